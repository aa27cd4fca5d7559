"""Connectivity beside the low-rank part: W = M K^T / N + W0, with W0 known or random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array

from lrposterior.checks import argument_error, read_only, require_finite, require_integer, require_positive
from lrposterior.priors import Scale, ScalePrior


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


# More directions of the activity than this are left to the unseen part of the bulk.
LARGEST_DIMENSION = 10


@dataclass(frozen=True, eq=False)
class RandomBulk:
    """Random connectivity beside the low-rank part, W0_ij ~ Normal(0, gain² / N), integrated out.

    With Q (neuron, dimension) an orthonormal basis of the patterns of rates that the recording visits,

        W0 = A Q^T + G (I - Q Q^T),      A_ik ~ Normal(0, gain² / N),      G_ij ~ Normal(0, gain² / N).

    A is inferred with the other parameters. The recording says nothing about G: it is drawn from its prior in every
    draw of the posterior. No real circuit is exactly of low rank, and intervals hold only if they know this.

    Args:
        gain: g, a number, or the prior from which it is inferred.
        dimension: number of visited directions; None takes those that stand out of the noise, 10 at most.
        subspace: Q. Left out, it is found in the recording when a model is fitted.

    Raises:
        ValueError: if an argument is out of its range.
    """

    gain: Scale = ScalePrior(median=0.3, spread=1.5)
    dimension: int | None = None
    subspace: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.gain, ScalePrior):
            object.__setattr__(self, "gain", require_positive(self.gain, "gain"))
        if self.dimension is not None:
            require_integer(self.dimension, "dimension", minimum=1)
        if self.subspace is not None:
            Q = read_only(np.asarray(self.subspace, dtype=np.float64))
            if Q.ndim != 2 or Q.shape[1] > Q.shape[0] or not np.allclose(Q.T @ Q, np.eye(Q.shape[1]), atol=1e-8):
                raise argument_error(
                    "subspace", "orthonormal columns (neuron, dimension)", f"shape {Q.shape}", "leave it out"
                )
            object.__setattr__(self, "subspace", Q)
            object.__setattr__(self, "dimension", Q.shape[1])

    @property
    def num_neurons(self) -> int | None:
        """Number of neurons of the settled subspace."""
        return None if self.subspace is None else self.subspace.shape[0]

    @property
    def visited(self) -> np.ndarray:
        """(neuron, dimension) the settled subspace Q.

        Raises:
            ValueError: if it is not settled.
        """
        if self.subspace is None:
            raise ValueError("background: expected a subspace; settle the model with for_recording(recording)")
        return self.subspace


def visited_subspace(rates: np.ndarray, dimension: int | None) -> np.ndarray:
    """Principal directions Q (neuron, dimension) of rates (sample, neuron), not centred: W0 acts on rates.

    Without a dimension, those whose singular value exceeds the largest that independent noise alone would have. The
    noise is measured by the median singular value, which is one of noise as long as the visited directions are few
    (Gavish and Donoho 2014, doi:10.1109/TIT.2014.2323359). At least one, and at most `LARGEST_DIMENSION`.

    Raises:
        ValueError: if there are not as many directions.
    """
    num_samples, num_neurons = rates.shape
    if dimension is not None and dimension > min(rates.shape):
        raise argument_error(
            "dimension",
            f"at most {min(rates.shape)}, what {num_neurons} neurons in {num_samples} bins can span",
            str(dimension),
            "lower it, or leave it out",
        )
    _, values, rows = np.linalg.svd(rates, full_matrices=False)
    if dimension is None:
        aspect = min(num_samples, num_neurons) / max(num_samples, num_neurons)
        edge = (1.0 + np.sqrt(aspect)) / np.sqrt(_median_of_noise(aspect)) * np.median(values)
        dimension = int(np.clip(np.sum(values > edge), 1, LARGEST_DIMENSION))
    return rows[:dimension].T


def _median_of_noise(aspect: float) -> float:
    """Median of the Marchenko-Pastur distribution of squared singular values of noise with unit variance."""
    lower, upper = (1.0 - np.sqrt(aspect)) ** 2, (1.0 + np.sqrt(aspect)) ** 2
    edges = np.linspace(lower, upper, 20_001)
    middle = 0.5 * (edges[1:] + edges[:-1])
    density = np.sqrt((upper - middle) * (middle - lower)) / middle
    cumulative = np.cumsum(density)
    return float(np.interp(0.5, cumulative / cumulative[-1], middle))


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
