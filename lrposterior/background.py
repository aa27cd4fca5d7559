"""Connectivity beside the low-rank part: W = M K^T / N + W0, with W0 known or random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array

from lrposterior.checks import (
    argument_error,
    as_array,
    read_only,
    require_finite,
    require_integer,
    require_positive,
    require_shape,
)
from lrposterior.priors import Scale, ScalePrior


@dataclass(frozen=True, eq=False)
class FixedBackground:
    """A known connectivity [post, pre] beside M K^T / N: a matrix, a product of factors, or their sum.

        W0 + left right^T

    A measured connectome is a matrix. Known pathways of low rank are factors: with factors alone the network keeps its
    latent form, and nothing of size N x N is ever formed.

    Args:
        W0: (neuron, neuron) connectivity, a dense array or any SciPy sparse matrix, or None. Rows are postsynaptic.
        left: (neuron, dimension) what each of the known patterns writes, or None.
        right: (neuron, dimension) what each of them reads, or None.

    Raises:
        ValueError: if all are left out, W0 is not square, the factors do not fit each other or W0, or a number is not
            finite.
    """

    W0: Any = None
    left: Any = None
    right: Any = None

    def __post_init__(self) -> None:
        if self.W0 is not None:
            object.__setattr__(self, "W0", _square(self.W0))
        for name, other in (("left", "right"), ("right", "left")):
            value = getattr(self, name)
            if value is None:
                if getattr(self, other) is not None:
                    raise argument_error(name, f"a factor to go with {other}", "None", "give both factors or none")
                continue
            factor = read_only(np.asarray(as_array(value, name, ("neuron", "dimension")), dtype=np.float64))
            require_finite(factor, name)
            object.__setattr__(self, name, factor)
        if self.W0 is None and self.left is None:
            raise argument_error("W0", "a matrix, or left and right factors", "neither", "give one of them, or both")
        if self.left is not None:
            neurons = len(self.left) if self.W0 is None else self.W0.shape[0]
            require_shape(self.left, "left", {"neuron": neurons, "dimension": None})
            require_shape(self.right, "right", {"neuron": neurons, "dimension": self.left.shape[1]})

    @property
    def num_neurons(self) -> int:
        return int((self.left if self.W0 is None else self.W0).shape[0])

    @property
    def is_sparse(self) -> bool:
        """Whether W0 is a sparse matrix."""
        return bool(scipy.sparse.issparse(self.W0))

    def arrays(self) -> Background | None:
        """W0 in the form that compiled functions take as an argument."""
        if self.is_sparse:
            post, pre = self.W0.coords
            return SparseMatrix(jnp.asarray(post), jnp.asarray(pre), jnp.asarray(self.W0.data))
        return None if self.W0 is None else jnp.asarray(self.W0)

    def product(self, vectors: np.ndarray) -> np.ndarray:
        """The connectivity times each of the vectors (..., neuron)."""
        product = np.zeros(vectors.shape)
        if self.W0 is not None:
            product += (self._matrix @ vectors.reshape(-1, self.num_neurons).T).T.reshape(vectors.shape)
        return product if self.left is None else product + (vectors @ self.right) @ self.left.T

    def transposed_product(self, vectors: np.ndarray) -> np.ndarray:
        """The transposed connectivity times each of the vectors (..., neuron)."""
        product = np.zeros(vectors.shape)
        if self.W0 is not None:
            product += (self._matrix.T @ vectors.reshape(-1, self.num_neurons).T).T.reshape(vectors.shape)
        return product if self.left is None else product + (vectors @ self.left) @ self.right.T

    def entries(self, post: np.ndarray, pre: np.ndarray) -> np.ndarray:
        """(entry,) the entries [post[k], pre[k]], for neurons counted from 0."""
        values = np.zeros(post.shape)
        if self.W0 is not None:
            values += np.asarray(self._matrix[post, pre]).reshape(-1)
        return values if self.left is None else values + np.sum(self.left[post] * self.right[pre], axis=1)

    def block(self, post: np.ndarray, pre: np.ndarray) -> np.ndarray:
        """Rows `post` and columns `pre`, (post, pre), for neurons counted from 0."""
        values = np.zeros((post.size, pre.size))
        if self.is_sparse:
            values += self._matrix[post][:, pre].toarray()
        elif self.W0 is not None:
            values += self.W0[np.ix_(post, pre)]
        return values if self.left is None else values + self.left[post] @ self.right[pre].T

    def to_dense(self) -> np.ndarray:
        """All of it, (post, pre)."""
        every = np.arange(self.num_neurons)
        return self.block(every, every)

    @property
    def _matrix(self) -> Any:
        """W0 in a form that can be multiplied and indexed."""
        return scipy.sparse.csr_array(self.W0) if self.is_sparse else self.W0


def _square(W0: Any) -> Any:
    """A read-only square matrix, dense or sparse by coordinates."""
    if scipy.sparse.issparse(W0):
        matrix = scipy.sparse.coo_array(scipy.sparse.csr_array(W0, dtype=np.float64))
        require_finite(matrix.data, "W0")
        matrix.data.flags.writeable = False
    else:
        matrix = read_only(np.asarray(W0, dtype=np.float64))
        require_finite(matrix, "W0")
    shape = tuple(matrix.shape or ())
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(
            f"W0: expected a square matrix (neuron, neuron), got shape {shape}; "
            "give one row (postsynaptic) and one column (presynaptic) for every neuron of the recording"
        )
    return matrix


# More directions of the activity than this are left to the unseen part of the bulk, and in large populations fewer: a
# fit takes as long as neurons times the square of the directions.
LARGEST_DIMENSION, NEURONS_AT_LARGEST = 20, 1000


@dataclass(frozen=True, eq=False)
class RandomBulk:
    """Random connectivity beside the low-rank part, W0_ij ~ Normal(0, gain² / N), integrated out.

    With Q (neuron, dimension) an orthonormal basis of the patterns of rates that the recording visits,

        W0 = A Q^T + G (I - Q Q^T),      A_ik ~ Normal(0, gain² / N),      G_ij ~ Normal(0, gain² / N).

    A is inferred with the other parameters. The recording says nothing about G: it is drawn from its prior in every
    draw of the posterior. No real circuit is exactly of low rank, and intervals hold only if they know this.

    Args:
        gain: g, a number, or the prior from which it is inferred.
        dimension: number of visited directions; None takes those that stand out of the noise, 20 at most, and
            20 sqrt(1,000 / N) at most of N > 1,000 neurons: a fit takes as long as neurons times squared directions.
        subspace: Q. Left out, it is found in the recording when a model is fitted.
        learned: whether the low-rank part was learned amid the activity that the recording visits. Gradients of what a
            network does with its rates, and Hebbian plasticity, change W by sums of (something of the postsynaptic
            neuron) times rates, so that what was learned reads visited patterns and no others (Schuessler et al. 2020,
            arXiv:2006.11036): W = M (Q Q^T K)^T / N + A Q^T + G (I - Q Q^T). Unperturbed activity cannot tell; False
            lets K read unseen patterns as strongly as seen ones. The fit is the same: it sees K through Q alone, up to
            what activity lies outside of Q. The networks that a posterior gives out are projected.

    Raises:
        ValueError: if an argument is out of its range.
    """

    gain: Scale = ScalePrior(median=0.3, spread=1.5)
    dimension: int | None = None
    subspace: np.ndarray | None = None
    learned: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.learned, bool):
            raise argument_error("learned", "True or False", repr(self.learned), "say whether M K^T was learned")
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


def is_learned(background: object) -> TypeGuard[RandomBulk]:
    """Whether the low-rank part reads visited patterns and nothing else."""
    return isinstance(background, RandomBulk) and background.learned


def refuse_learned(background: object, what: str) -> None:
    """Refuse what follows from the covariance of K as it was fitted, where K reads visited patterns alone.

    Raises:
        ValueError: if the low-rank part was learned.
    """
    if is_learned(background):
        raise argument_error(
            "background",
            f"RandomBulk(learned=False) for {what}",
            "learned=True",
            "use rank_perturbations, predict_responses or sample_connectivity, which work with draws",
        )


def visited_subspace(rates: np.ndarray, dimension: int | None) -> np.ndarray:
    """Principal directions Q (neuron, dimension) of rates (sample, neuron), not centred: W0 acts on rates.

    Without a dimension, those whose singular value exceeds the largest that independent noise alone would have. The
    noise is measured by the median singular value, which is one of noise as long as the visited directions are few
    (Gavish and Donoho 2014, doi:10.1109/TIT.2014.2323359). At least one, and no more than `RandomBulk` says.

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
        most = int(LARGEST_DIMENSION * min(1.0, np.sqrt(NEURONS_AT_LARGEST / num_neurons)))
        dimension = int(np.clip(_number_above_noise(values, rates.shape), 1, max(1, most)))
    return rows[:dimension].T


def newly_visited(rates: np.ndarray, subspace: np.ndarray, most: int) -> np.ndarray:
    """Principal directions (neuron, dimension) of rates (sample, neuron) outside a subspace that exceed the noise.

    They are found as in `visited_subspace`, among the rest of the rates.

    Args:
        rates: of other trials than those in which the subspace was found.
        subspace: (neuron, dimension) Q.
        most: how many at most.
    """
    rest = rates - (rates @ subspace) @ subspace.T
    shape = (rates.shape[0], rates.shape[1] - subspace.shape[1])
    _, values, rows = np.linalg.svd(rest, full_matrices=False)
    added = rows[: min(most, _number_above_noise(values[: min(shape)], shape))].T
    return np.linalg.qr(added - subspace @ (subspace.T @ added))[0]


def _number_above_noise(values: np.ndarray, shape: tuple[int, int]) -> int:
    """How many singular values of a matrix of this shape exceed the largest of noise; half of them are noise alone."""
    if min(shape) == 0:
        return 0
    aspect = min(shape) / max(shape)
    edge = (1.0 + np.sqrt(aspect)) / np.sqrt(_median_of_noise(aspect)) * np.median(values)
    return int(np.sum(values > edge))


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
