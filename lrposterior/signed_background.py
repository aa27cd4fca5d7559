"""Connectivity beyond M K^T / N under Dale's law: a full matrix with signs, and self-connections that there are not.

    W = M K^T / N + W0,      and without self-connections W_nn = 0: the diagonal of M K^T / N is taken off.

Both are known neuron by neuron, as a matrix over pairs of neurons, and not by patterns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.checks import argument_error, require_positive
from lrposterior.populations import ByCellType

AnyArray = TypeVar("AnyArray", np.ndarray, Array)


@dataclass(frozen=True)
class SignedBackground:
    """An inferred connectivity W0 [post, pre] of full rank beside M K^T / N, within the signs of `DaleLoadings`.

        W0_ij = sign_j (scale_j / N) q,

    with the magnitudes q of the priors, half-normal or log-normal, independent of each other; where they differ between
    cell types, those of the neuron j that sends. So what the rates r of one type send to a neuron, sum_j W0_ij r_j, is
    on average its scale times the mean of q, times the share of the neurons that are of this type, times the mean of r,
    at any number N of neurons. Where a network has no self-connections W0 has no diagonal.

    M and K say nothing that W0 could not say as well: they are the prior that synapses have in common, and carry the
    process noise.

    Args:
        scale: a number, or one for every cell type of the recording, {"E": 1.0, "I": 4.0}.

    Raises:
        ValueError: if a scale is not a positive number.
    """

    scale: float | Mapping[str, float] = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.scale, ByCellType):
            return
        if isinstance(self.scale, Mapping):
            entries = tuple(require_positive(each, f"scale[{name!r}]") for name, each in self.scale.items())
            object.__setattr__(self, "scale", ByCellType(tuple(self.scale), entries))
        else:
            object.__setattr__(self, "scale", require_positive(self.scale, "scale"))

    @property
    def num_neurons(self) -> int | None:
        """Number of neurons whose types are settled."""
        return (len(self.scale.members) or None) if isinstance(self.scale, ByCellType) else None

    def settled(self, cell_types: Sequence[str] | None, num_neurons: int) -> SignedBackground:
        """The same with the type of every neuron of a recording.

        Raises:
            ValueError: if the recording has no cell types, or other ones than the scales.
        """
        if not isinstance(self.scale, ByCellType):
            return self
        scale = cast(ByCellType[float], self.scale).settled("background.scale", cell_types, num_neurons)
        return dataclasses.replace(self, scale=scale)

    def scales(self, num_neurons: int) -> np.ndarray:
        """(neuron,) the scale of what every neuron sends out, settled."""
        if isinstance(self.scale, ByCellType):
            return self.scale.of_neurons
        return np.full(num_neurons, self.scale)


def presynaptic(num_neurons: int, self_connections: bool) -> np.ndarray:
    """(post, entry) the presynaptic neuron of every entry of W0, in order: all, or all others."""
    entries = np.arange(num_neurons if self_connections else num_neurons - 1)
    others = entries + (entries >= np.arange(num_neurons)[:, None])
    return np.broadcast_to(entries, (num_neurons, num_neurons)) if self_connections else others


def entries_of(W0: AnyArray, self_connections: bool) -> AnyArray:
    """(..., post, entry) the entries of matrices W0 (..., post, pre) that there are."""
    rows = np.arange(W0.shape[-1])[:, None]
    return W0[..., rows, presynaptic(W0.shape[-1], self_connections)]


def matrix_of(entries: AnyArray) -> AnyArray:
    """(..., post, pre) matrices W0 from their entries (..., post, entry), with a diagonal of 0 where there is none."""
    num_neurons, num_entries = entries.shape[-2:]
    if num_entries == num_neurons:
        return entries
    of = np if isinstance(entries, np.ndarray) else jnp
    with_zero = of.pad(entries, [(0, 0)] * (entries.ndim - 1) + [(1, 0)])
    pre, post = np.arange(num_neurons), np.arange(num_neurons)[:, None]
    return cast(AnyArray, with_zero[..., post, np.where(pre == post, 0, pre + (pre < post))])


def beyond_low_rank(parameters: Mapping[str, Array], self_connections: bool) -> Array:
    """(post, pre) W - M K^T / N from parameters in coordinates: W0 where there is one, less self-connections of M K^T.

    Args:
        parameters: M, K (neuron, rank) and perhaps W0 (post, entry).
        self_connections: whether a neuron may drive itself.
    """
    M = parameters["M"]
    rest = matrix_of(parameters["W0"]) if "W0" in parameters else jnp.zeros((len(M), len(M)), M.dtype)
    return rest if self_connections else rest - jnp.diag(jnp.sum(M * parameters["K"], axis=1) / len(M))


def require_matrix(W0: np.ndarray, self_connections: bool) -> None:
    """Refuse self-connections where there are none.

    Raises:
        ValueError: with the mend.
    """
    if not self_connections and np.any(np.diagonal(W0) != 0.0):
        mend = "set its diagonal to 0, or leave self_connections=False out"
        raise argument_error("parameters['W0']", "no self-connections", "a diagonal that is not 0", mend)


@dataclass(frozen=True, eq=False)
class SignedDraws:
    """Draws of the connectivity beyond M K^T / N.

    Attributes:
        W0: (draw, post, pre), or None.
        taken_off: (draw, neuron) self-connections of M K^T / N that there are not, or None.
    """

    W0: np.ndarray | None
    taken_off: np.ndarray | None

    @classmethod
    def of(cls, draws: Mapping[str, np.ndarray], self_connections: bool) -> SignedDraws:
        """From named draws of the parameters."""
        M, K = draws["M"], draws["K"]
        return cls(draws.get("W0"), None if self_connections else np.sum(M * K, axis=2) / M.shape[1])

    def product(self, vectors: np.ndarray) -> np.ndarray:
        """It times one vector a draw, (draw, neuron)."""
        product = np.zeros(vectors.shape)
        if self.W0 is not None:
            product += np.einsum("dij,dj->di", self.W0, vectors)
        return product if self.taken_off is None else product - self.taken_off * vectors

    def transposed_product(self, vectors: np.ndarray) -> np.ndarray:
        """Its transpose times one vector a draw, (draw, neuron)."""
        transposed = None if self.W0 is None else np.swapaxes(self.W0, 1, 2)
        return SignedDraws(transposed, self.taken_off).product(vectors)

    def rows(self, post: np.ndarray) -> np.ndarray:
        """Rows of it, (draw, post, neuron), for neurons counted from 0."""
        num_draws, num_neurons = self._shape
        rows = np.zeros((num_draws, len(post), num_neurons)) if self.W0 is None else self.W0[:, post]
        if self.taken_off is not None:
            rows[:, np.arange(len(post)), post] -= self.taken_off[:, post]
        return rows

    def dense(self, draw: int) -> np.ndarray:
        """One draw of it, (post, pre)."""
        one = SignedDraws(*(None if each is None else each[draw, None] for each in (self.W0, self.taken_off)))
        return one.rows(np.arange(self._shape[1]))[0]

    @property
    def _shape(self) -> tuple[int, int]:
        """Numbers of draws and of neurons."""
        num_draws, num_neurons = cast(np.ndarray, self.taken_off if self.W0 is None else self.W0).shape[:2]
        return num_draws, num_neurons
