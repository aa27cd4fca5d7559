"""Connectivity beside the low-rank part: W = M K^T / N + W0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array

from lrposterior.checks import read_only, require_finite


@dataclass(frozen=True, eq=False)
class FixedBackground:
    """A known matrix W0 [post, pre], for instance a measured connectome.

    Args:
        W0: (neuron, neuron) connectivity, a dense array or any SciPy sparse matrix. Rows are postsynaptic.

    Raises:
        ValueError: if W0 is not square, or not finite.
    """

    W0: Any

    def __post_init__(self) -> None:
        if scipy.sparse.issparse(self.W0):
            matrix = scipy.sparse.coo_array(scipy.sparse.csr_array(self.W0, dtype=np.float64))
            require_finite(matrix.data, "W0")
            matrix.data.flags.writeable = False
        else:
            matrix = read_only(np.asarray(self.W0, dtype=np.float64))
            require_finite(matrix, "W0")
        shape = tuple(matrix.shape or ())
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError(
                f"W0: expected a square matrix (neuron, neuron), got shape {shape}; "
                "give one row (postsynaptic) and one column (presynaptic) for every neuron of the recording"
            )
        object.__setattr__(self, "W0", matrix)

    @property
    def num_neurons(self) -> int:
        return int(self.W0.shape[0])

    @property
    def is_sparse(self) -> bool:
        return bool(scipy.sparse.issparse(self.W0))

    def arrays(self) -> Background:
        """The matrix in the form that compiled functions take as an argument."""
        if self.is_sparse:
            post, pre = self.W0.coords
            return SparseMatrix(jnp.asarray(post), jnp.asarray(pre), jnp.asarray(self.W0.data))
        return jnp.asarray(self.W0)

    def to_dense(self) -> np.ndarray:
        return self.W0.toarray() if self.is_sparse else self.W0

    def to_sparse(self) -> scipy.sparse.csr_array:
        return scipy.sparse.csr_array(self.W0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SparseMatrix:
    """Non-zero entries: value[k] stands at row post[k] and column pre[k]."""

    post: Array
    pre: Array
    value: Array


Background = Array | SparseMatrix


def recurrent_drive(background: Background | None, rates: Array) -> Array | float:
    """W0 r for rates (neuron,); 0 without a background."""
    if background is None:
        return 0.0
    if isinstance(background, SparseMatrix):
        return jnp.zeros_like(rates).at[background.post].add(background.value * rates[background.pre])
    return background @ rates
