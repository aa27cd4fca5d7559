"""Draws of a random bulk, W0 = A Q^T + G (I - Q Q^T), without N x N arrays until one is asked for.

G is what no data see. Its rows are made in blocks, each from a seed of its own, whenever they are needed: so all
products, entries and blocks are those of one matrix that is never stored. Where that would be too much work, beyond
4,096 neurons, G is a matrix with the same moments that takes N log N operations (`lrposterior.fast_gaussian`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from lrposterior.fast_gaussian import FastBulk, FastGaussian

# Rows of G that share a seed.
BLOCK_ROWS = 256
# Draws of parameters by name hold these two where they are of a network with the unseen part of its bulk.
UNSEEN = ("gain", "bulk_seed")
# Larger networks have a G that is cheaper to multiply with.
LARGEST_FULL = 4096
# The unseen part has a stream of random numbers beside that of the parameters, default_rng(seed).
STREAM = 2


@dataclass(frozen=True, eq=False)
class BlockGaussian:
    """A matrix of independent Normal(0, 1 / N) entries, made block by block of its rows whenever it is needed.

    Attributes:
        size: N.
        seed: of the matrix; every block has a seed of its own.
    """

    size: int
    seed: int

    def times(self, columns: np.ndarray) -> np.ndarray:
        """G times (neuron, column)."""
        return np.concatenate([G @ columns for _, G in self._blocks()])

    def transposed_times(self, columns: np.ndarray) -> np.ndarray:
        """G^T times (neuron, column)."""
        total = np.zeros(columns.shape)
        for rows, G in self._blocks():
            total += G.T @ columns[rows]
        return total

    def rows(self, chosen: np.ndarray) -> np.ndarray:
        """Some rows of G, (row, neuron)."""
        values = np.empty((chosen.size, self.size))
        for block in np.unique(chosen // BLOCK_ROWS):
            places = np.flatnonzero(chosen // BLOCK_ROWS == block)
            within = chosen[places] % BLOCK_ROWS
            values[places] = self._block(int(block), int(within.max()) + 1)[within]
        return values

    def _blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        for block, start in enumerate(range(0, self.size, BLOCK_ROWS)):
            stop = min(start + BLOCK_ROWS, self.size)
            yield slice(start, stop), self._block(block, stop - start)

    def _block(self, block: int, num_rows: int) -> np.ndarray:
        """The first rows of a block: they do not depend on how many are asked for."""
        random = np.random.default_rng([self.seed, block])
        return random.standard_normal((num_rows, self.size)) / np.sqrt(self.size)


@dataclass(frozen=True, eq=False)
class BulkDraws:
    """A batch of draws of W0 [post, pre].

    Attributes:
        A: (draw, neuron, dimension) connectivity from the visited patterns.
        Q: (neuron, dimension) the visited patterns, orthonormal.
        gain: (draw,) g: the entries of G have mean 0 and variance g² / N. None with `seeds`.
        seeds: (draw,) of G, or None for G = 0, its mean.
    """

    A: np.ndarray
    Q: np.ndarray
    gain: np.ndarray | None = None
    seeds: np.ndarray | None = None

    @property
    def num_draws(self) -> int:
        return int(self.A.shape[0])

    @property
    def num_neurons(self) -> int:
        return int(self.A.shape[1])

    def take(self, draws: np.ndarray) -> BulkDraws:
        """Some of the draws."""
        gain = None if self.gain is None else self.gain[draws]
        return BulkDraws(self.A[draws], self.Q, gain, None if self.seeds is None else self.seeds[draws])

    def product(self, vectors: np.ndarray) -> np.ndarray:
        """W0 v (draw, neuron) of one vector a draw, (draw, neuron)."""
        seen = vectors @ self.Q
        rest = vectors - seen @ self.Q.T
        products = np.einsum("dnk,dk->dn", self.A, seen)
        for draw, (gain, G) in enumerate(self._unseen):
            products[draw] += gain * G.times(rest[draw][:, None])[:, 0]
        return products

    def transposed_product(self, vectors: np.ndarray) -> np.ndarray:
        """W0^T v (draw, neuron) of one vector a draw, (draw, neuron)."""
        rest = np.zeros(vectors.shape)
        for draw, (gain, G) in enumerate(self._unseen):
            rest[draw] = gain * G.transposed_times(vectors[draw][:, None])[:, 0]
        seen = np.einsum("dnk,dn->dk", self.A, vectors) - rest @ self.Q
        return rest + seen @ self.Q.T

    def rows(self, post: np.ndarray) -> np.ndarray:
        """Rows of W0, (draw, post, neuron), for neurons counted from 0."""
        values = self.A[:, post] @ self.Q.T
        for draw, (gain, G) in enumerate(self._unseen):
            unseen = gain * G.rows(post)
            values[draw] += unseen - (unseen @ self.Q) @ self.Q.T
        return values

    def dense(self, draw: int) -> np.ndarray:
        """W0 of one draw, (post, pre)."""
        one, everyone = self.take(np.array([draw])), np.arange(self.num_neurons)
        starts = range(0, self.num_neurons, BLOCK_ROWS)
        return np.concatenate([one.rows(everyone[start : start + BLOCK_ROWS])[0] for start in starts])

    def to_dense(self) -> np.ndarray:
        """All draws of W0, (draw, post, pre)."""
        return np.stack([self.dense(draw) for draw in range(self.num_draws)])

    def operators(self) -> np.ndarray | FastBulk:
        """W0 for compiled code, with a leading draw axis: of few neurons (draw, post, pre)."""
        if not self._is_fast:
            return self.to_dense()
        gains, drawn = zip(*self._unseen, strict=True)
        return FastBulk(
            A=jnp.asarray(self.A),
            Q=jnp.broadcast_to(jnp.asarray(self.Q), self.A.shape),
            gain=jnp.asarray(gains),
            signs=jnp.asarray([each.signs for each in drawn]),
            singular_values=jnp.asarray([each.singular_values for each in drawn]),
        )

    @property
    def operator_size(self) -> int:
        """Numbers that `operators` has in one draw."""
        if not self._is_fast:
            return self.num_neurons**2
        return self.num_neurons * (2 * self.A.shape[2] + 5)

    @property
    def _is_fast(self) -> bool:
        return self.seeds is not None and self.num_neurons > LARGEST_FULL

    @property
    def _unseen(self) -> Iterator[tuple[float, BlockGaussian | FastGaussian]]:
        """The gain of every draw, and G over it; nothing where G is 0.

        Raises:
            ValueError: if there are seeds without gains.
        """
        if self.seeds is None:
            return
        if self.gain is None:
            raise ValueError("gain: expected a gain and a seed for every draw of the bulk, got none; give both")
        for gain, seed in zip(self.gain, self.seeds, strict=True):
            make = FastGaussian.draw if self._is_fast else BlockGaussian
            yield float(gain), make(self.num_neurons, int(seed))


def bulk_draws(draws: Mapping[str, np.ndarray], Q: np.ndarray) -> BulkDraws:
    """The bulk in named draws of the parameters; its unseen part is 0 where they do not hold it.

    Args:
        draws: A (draw, neuron, dimension) and, for the unseen part, gain (draw,) and bulk_seed (draw,).
        Q: (neuron, dimension) the visited patterns.
    """
    return BulkDraws(np.asarray(draws["A"]), Q, draws.get("gain"), draws.get("bulk_seed"))


def unseen_stream(seed: int) -> np.random.Generator:
    """The random numbers of the unseen part of the bulk in the draws of a posterior with this seed."""
    return np.random.default_rng([seed, STREAM])


def draw_unseen(num_draws: int, gain: tuple[float, float], random: np.random.Generator) -> dict[str, np.ndarray]:
    """What makes the unseen part of a bulk, by name: gain (draw,) and bulk_seed (draw,).

    Args:
        num_draws: number of draws.
        gain: the gain, and the standard deviation of its logarithm.
        random: where they come from.
    """
    value, spread = gain
    return {
        "gain": value * np.exp(spread * random.standard_normal(num_draws)),
        "bulk_seed": random.integers(2**63, size=num_draws),
    }
