"""Draws of the connectivity W = M K^T / N + W0 as operators, without N x N arrays until one is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrposterior.background import FixedBackground, RandomBulk
from lrposterior.bulk import BulkDraws, bulk_draws
from lrposterior.checks import argument_error, as_array, require_shape
from lrposterior.hidden import K_RECORDED
from lrposterior.signed_background import SignedBackground, SignedDraws

BYTES_PER_GIGABYTE = 1e9
# What is said of the synapses of a large network comes from so many of them.
NUM_SYNAPSES = 20_000
# Eigenvalues and singular values of a full matrix take minutes of a larger one.
LARGEST_DECOMPOSED = 2000


def require_memory(num_entries: int, name: str, max_gigabytes: float, mend: str) -> None:
    """Refuse to make an array of doubles that is larger than `max_gigabytes`.

    Raises:
        ValueError: with the size that it would have.
    """
    size = 8.0 * num_entries / BYTES_PER_GIGABYTE
    if size > max_gigabytes:
        raise argument_error(name, f"an array of at most {max_gigabytes:g} GB", f"{size:.3g} GB", mend)


def some_synapses(num_neurons: int) -> tuple[np.ndarray, np.ndarray]:
    """Post- and presynaptic neurons (entry,) of 20,000 synapses chosen at random, always the same ones."""
    post, pre = np.divmod(np.random.default_rng(0).integers(num_neurons**2, size=NUM_SYNAPSES), num_neurons)
    return post, pre


@dataclass(frozen=True, eq=False)
class LowRankConnectivity:
    """A batch of draws of W [post, pre].

    Attributes:
        M: (draw, neuron, rank) left factors.
        K: (draw, neuron, rank) right factors.
        background: a known W0, common to all draws, or None.
        bulk: a W0 that is another one in every draw, random or with signs, or None.
    """

    M: np.ndarray
    K: np.ndarray
    background: FixedBackground | None = None
    bulk: BulkDraws | SignedDraws | None = None

    @property
    def num_draws(self) -> int:
        return int(self.M.shape[0])

    @property
    def num_neurons(self) -> int:
        return int(self.M.shape[1])

    @property
    def rank(self) -> int:
        return int(self.M.shape[2])

    @property
    def is_low_rank(self) -> bool:
        """Whether W is M K^T / N, and known factors where there are some, without any other W0."""
        return self.bulk is None and (self.background is None or self.background.W0 is None)

    def _factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Left and right factors (draw, neuron, factor) of a W of low rank, W = left right^T."""
        left, right = self.M, self.K / self.num_neurons
        if self.background is None:
            return left, right
        known = [
            np.broadcast_to(each, (self.num_draws, *each.shape))
            for each in (self.background.left, self.background.right)
        ]
        return np.concatenate([left, known[0]], axis=2), np.concatenate([right, known[1]], axis=2)

    def __repr__(self) -> str:
        background = "" if self.background is None and self.bulk is None else " + W0"
        size = f"{self.num_neurons} neurons, rank {self.rank}"
        return f"LowRankConnectivity({self.num_draws} draws of W{background}, {size})"

    def matvec(self, vector: Any) -> np.ndarray:
        """W v for one vector (neuron,) or one a draw (draw, neuron); gives (draw, neuron)."""
        return self._product(vector, self.M, self.K, transposed=False)

    def rmatvec(self, vector: Any) -> np.ndarray:
        """W^T v for one vector (neuron,) or one a draw (draw, neuron); gives (draw, neuron)."""
        return self._product(vector, self.K, self.M, transposed=True)

    def _product(self, vector: Any, left: np.ndarray, right: np.ndarray, *, transposed: bool) -> np.ndarray:
        array = np.asarray(vector, dtype=np.float64)
        axes = ("neuron",) if array.ndim == 1 else ("draw", "neuron")
        array = as_array(array, "vector", axes)
        sizes = {"draw": self.num_draws, "neuron": self.num_neurons}
        require_shape(array, "vector", {axis: sizes[axis] for axis in axes})
        array = np.broadcast_to(array, (self.num_draws, self.num_neurons))
        product = np.einsum("dnr,dr->dn", left, np.einsum("dnr,dn->dr", right, array)) / self.num_neurons
        if self.bulk is not None:
            product += self.bulk.transposed_product(array) if transposed else self.bulk.product(array)
        if self.background is not None:
            fixed = self.background
            product += fixed.transposed_product(array) if transposed else fixed.product(array)
        return product

    def entries(self, post: Any, pre: Any) -> np.ndarray:
        """W[post[k], pre[k]] for lists of neurons of equal length; gives (draw, entry)."""
        post, pre = self.pairs(post, pre)
        values = np.einsum("der,der->de", self.M[:, post], self.K[:, pre]) / self.num_neurons
        if self.bulk is not None:
            rows, row = np.unique(post, return_inverse=True)
            values += self.bulk.rows(rows)[:, row, pre]
        if self._lacks_diagonal:
            values = np.where(post == pre, 0.0, values)
        return values if self.background is None else values + self.background.entries(post, pre)

    def pairs(self, post: Any, pre: Any) -> tuple[np.ndarray, np.ndarray]:
        """Neurons of single synapses, (entry,) each, counted from 0.

        Raises:
            ValueError: if they are no indices of neurons, or of different length.
        """
        post, pre = self._neurons(post, "post"), self._neurons(pre, "pre")
        if post.shape != pre.shape:
            raise argument_error(
                "pre", f"as many neurons as post, {post.size}", str(pre.size), "give one pair of neurons an entry"
            )
        return post, pre

    def block(self, post: Any, pre: Any) -> np.ndarray:
        """W restricted to rows `post` and columns `pre`; gives (draw, post, pre)."""
        post, pre = self._neurons(post, "post"), self._neurons(pre, "pre")
        values = self.M[:, post] @ np.swapaxes(self.K[:, pre], 1, 2) / self.num_neurons
        if self.bulk is not None:
            values += self.bulk.rows(post)[:, :, pre]
        if self._lacks_diagonal:
            values = np.where(post[:, None] == pre, 0.0, values)
        return values if self.background is None else values + self.background.block(post, pre)

    @property
    def _lacks_diagonal(self) -> bool:
        """Whether there are no self-connections: what is left of them after rounding is set to 0."""
        return isinstance(self.bulk, SignedDraws) and self.bulk.taken_off is not None

    def _neurons(self, indices: Any, name: str) -> np.ndarray:
        array = np.atleast_1d(np.asarray(indices))
        if array.ndim != 1 or array.dtype.kind not in "iu" or not array.size:
            raise argument_error(
                name, "indices of neurons", repr(indices)[:60], "give an integer or a list of integers"
            )
        if array.min() < -self.num_neurons or array.max() >= self.num_neurons:
            raise argument_error(
                name,
                f"indices below {self.num_neurons}",
                f"{array.min()} to {array.max()}",
                f"the network has {self.num_neurons} neurons, counted from 0",
            )
        return array % self.num_neurons

    def seen(self) -> LowRankConnectivity:
        """The same draws without what no recording sees of a random bulk: W = M K^T / N + A Q^T, of low rank.

        Where all of W is seen neuron by neuron, under Dale's law, its factors are 1 and N W^T.
        """
        if self.bulk is None:
            return self
        if isinstance(self.bulk, SignedDraws):
            every = np.arange(self.num_neurons)
            each = np.broadcast_to(np.eye(self.num_neurons), (self.num_draws, self.num_neurons, self.num_neurons))
            return LowRankConnectivity(each, self.num_neurons * np.swapaxes(self.block(every, every), 1, 2))
        Q = np.broadcast_to(self.num_neurons * self.bulk.Q, self.bulk.A.shape)
        left, right = np.concatenate([self.M, self.bulk.A], axis=2), np.concatenate([self.K, Q], axis=2)
        return LowRankConnectivity(left, right, self.background)

    def eigenvalues(self) -> np.ndarray:
        """Eigenvalues of W that are not zero, by decreasing magnitude.

        Without a W0 they are those of the (rank, rank) overlap K^T M / N, (draw, rank) complex; with known factors of
        some dimension those of the larger overlap, (draw, rank + dimension); with another W0 all those of the N x N
        matrix, (draw, neuron).

        Raises:
            ValueError: of more than 2,000 neurons with a W0 that is not made of factors.
        """
        if self.is_low_rank:
            left, right = self._factors()
            values = np.linalg.eigvals(np.swapaxes(right, 1, 2) @ left)
        else:
            self._require_few_neurons("eigenvalues")
            values = np.stack([np.linalg.eigvals(self.dense(draw)) for draw in range(self.num_draws)])
        values = values.astype(np.complex128)
        order = np.argsort(-np.abs(values), axis=1, kind="stable")[:, : self.num_neurons]
        return np.take_along_axis(values, order, axis=1)

    def singular_values(self) -> np.ndarray:
        """Singular values of W, decreasing: (draw, rank) without a W0, else as many as there are `eigenvalues`.

        Raises:
            ValueError: of more than 2,000 neurons with a W0 that is not made of factors.
        """
        if self.is_low_rank:
            left, right = (np.linalg.qr(each, mode="r") for each in self._factors())
            return np.linalg.svd(left @ np.swapaxes(right, 1, 2), compute_uv=False)
        self._require_few_neurons("singular_values")
        return np.stack([np.linalg.svd(self.dense(draw), compute_uv=False) for draw in range(self.num_draws)])

    def _require_few_neurons(self, name: str) -> None:
        if self.num_neurons > LARGEST_DECOMPOSED:
            raise argument_error(
                name,
                f"at most {LARGEST_DECOMPOSED} neurons where W has a W0 beside M K^T / N",
                f"{self.num_neurons}",
                "take those of what the recording sees of a random bulk, sample_connectivity(...).seen()",
            )

    def effective_rank(self) -> np.ndarray:
        """Participation ratio (sum s²)² / sum s⁴ of the singular values s of W, (draw,)."""
        squares = self.singular_values() ** 2
        return squares.sum(axis=1) ** 2 / (squares**2).sum(axis=1)

    def dense(self, draw: int) -> np.ndarray:
        """W of one draw, (post, pre)."""
        W = self.M[draw] @ self.K[draw].T / self.num_neurons
        if self.bulk is not None:
            W = W + self.bulk.dense(draw)
        if self._lacks_diagonal:
            np.fill_diagonal(W, 0.0)
        return W if self.background is None else W + self.background.to_dense()

    def to_dense(self, max_gigabytes: float = 2.0) -> np.ndarray:
        """All draws as one array (draw, post, pre).

        Raises:
            ValueError: if the array would be larger than `max_gigabytes`.
        """
        require_memory(
            self.num_draws * self.num_neurons**2,
            "to_dense",
            max_gigabytes,
            "use matvec, entries or block, take fewer draws, or raise max_gigabytes",
        )
        return np.stack([self.dense(draw) for draw in range(self.num_draws)])


def connectivity_draws(
    draws: Mapping[str, np.ndarray],
    background: FixedBackground | RandomBulk | SignedBackground | None,
    recorded_share: float = 1.0,
    *,
    self_connections: bool = True,
) -> LowRankConnectivity:
    """W of named draws of the parameters, as `Posterior.sample_parameters` gives them, under a settled background.

    Where only a share of the neurons was recorded, it is W among these; right factors that the draws do not hold are at
    their mean.
    """
    if isinstance(background, SignedBackground) or not self_connections:
        return LowRankConnectivity(draws["M"], draws["K"], bulk=SignedDraws.of(draws, self_connections))
    if isinstance(background, RandomBulk):
        return LowRankConnectivity(draws["M"], draws["K"], bulk=bulk_draws(draws, background.visited))
    return LowRankConnectivity(draws["M"], recorded_share * draws.get(K_RECORDED, draws["K"]), background)
