"""Draws of W seen through a few patterns: W V row by row, W^T U, and U^T W V, without N x N arrays.

With patterns U (write) and V (read), (neuron, pattern) each with orthonormal columns, the unseen part G (I - Q Q^T) of
a random bulk, G_ij ~ Normal(0, g² / N), adds to the covariance what follows from its own. With C = V^T (I - Q Q^T) V

    Cov[(G V_perp)_n] = g²/N C,      Cov[(U^T G V_perp)_ij, (U^T G V_perp)_kl] = g²/N delta_ik C_jl,
    Cov[((I - Q Q^T) G^T U)_n] = g²/N (1 - |Q_n|²) I.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lrposterior.connectivity import LowRankConnectivity
from lrposterior.posterior import Posterior

# Entries (draw, neuron, pattern) that exist at one time.
CHUNK_ENTRIES = 10_000_000


@dataclass(frozen=True, eq=False)
class Moments:
    """Means (test, entry) and covariances (test, entry, entry).

    Attributes:
        mean, covariance: of the entries of every test.
    """

    mean: np.ndarray
    covariance: np.ndarray

    def after(self, before: Moments) -> Moments:
        """Those of the change from something independent to this."""
        return Moments(self.mean - before.mean, self.covariance + before.covariance)

    @property
    def variance(self) -> np.ndarray:
        """(test,) summed over the entries."""
        return np.trace(self.covariance, axis1=1, axis2=2)


@dataclass(frozen=True, eq=False)
class Draws:
    """Independent draws of the seen part of W, and the variance of the unseen one.

    Attributes:
        left, right: (draw, neuron, factor) with W = left right^T.
        unseen_variance: g² / N, or 0 without a bulk.
        subspace: (neuron, dimension) Q, of no dimension without a bulk.
    """

    left: np.ndarray
    right: np.ndarray
    unseen_variance: float
    subspace: np.ndarray

    @classmethod
    def of(cls, posterior: Posterior, connectivity: LowRankConnectivity) -> Draws:
        """From draws of a posterior's W, or of its prior's. A known background is left out."""
        seen, subspace = connectivity.seen(), posterior.subspace
        variance = 0.0 if subspace is None else posterior.unseen_scale**2
        subspace = np.zeros((seen.num_neurons, 0)) if subspace is None else subspace
        return cls(seen.M, seen.K / seen.num_neurons, variance, subspace)

    @property
    def num_draws(self) -> int:
        return len(self.left)

    @property
    def unseen_power(self) -> float:
        """Expected squared Frobenius norm of the unseen part."""
        num_neurons, dimension = self.subspace.shape
        return self.unseen_variance * num_neurons * (num_neurons - dimension)

    def unseen_reading(self, read: np.ndarray) -> np.ndarray:
        """(read, read) covariance of what the unseen part has in every row of W V."""
        beyond = read - self.subspace @ (self.subspace.T @ read)
        return self.unseen_variance * (beyond.T @ beyond)

    def incoming(self, read: np.ndarray) -> Moments:
        """Of (W V)_n, (neuron, read)."""
        return _by_neuron(self.left, self._through(read, self.right), self.unseen_reading(read))

    def outgoing(self, write: np.ndarray) -> Moments:
        """Of (W^T U)_n, (neuron, write)."""
        unseen = self.unseen_variance * np.maximum(1.0 - np.sum(self.subspace**2, axis=1), 0.0)
        unseen = unseen[:, None, None] * np.eye(write.shape[1])
        return _by_neuron(self.right, self._through(write, self.left), unseen)

    def between(self, write: np.ndarray, read: np.ndarray) -> Moments:
        """Of the entries of U^T W V, row by row, as a single test."""
        reduced = self._through(write, self.left) @ np.swapaxes(self._through(read, self.right), 1, 2)
        flat = reduced.reshape(self.num_draws, -1)
        covariance = np.atleast_2d(np.cov(flat, rowvar=False))
        covariance = covariance + np.kron(np.eye(write.shape[1]), self.unseen_reading(read))
        return Moments(flat.mean(axis=0)[None], covariance[None])

    def each_incoming(self, read: np.ndarray) -> Iterator[np.ndarray]:
        """W V (neuron, read) of one draw after the other, without the unseen part."""
        for left, through in zip(self.left, self._through(read, self.right), strict=True):
            yield left @ through.T

    @staticmethod
    def _through(patterns: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """(draw, pattern, factor)."""
        return np.einsum("nk,dnr->dkr", patterns, factors, optimize=True)


def visited_patterns(rates: np.ndarray, least_share: float, most: int) -> np.ndarray:
    """Principal directions (neuron, pattern) of rates (sample, neuron), not centred, with a share of their power."""
    num_samples, num_neurons = rates.shape
    if num_samples < num_neurons:
        values, left = np.linalg.eigh(rates @ rates.T)
        directions = np.linalg.qr(rates.T @ left[:, ::-1][:, :most])[0]
    else:
        values, directions = np.linalg.eigh(rates.T @ rates)
        directions = directions[:, ::-1]
    share = values[::-1] / np.sum(values)
    return directions[:, : int(np.clip(np.sum(share >= least_share), 1, most))]


def change_power(before: Draws, after: Draws) -> tuple[float, float]:
    """|E change|² and tr Cov change of the seen parts, squared Frobenius norms, unbiased in the draws."""
    number = min(before.num_draws, after.num_draws)
    left = np.concatenate([after.left[:number], -before.left[:number]], axis=2)
    right = np.concatenate([after.right[:number], before.right[:number]], axis=2)

    def inner(first: slice, second: slice) -> float:
        of_left = np.swapaxes(left[first], 1, 2) @ left[second]
        of_right = np.swapaxes(right[first], 1, 2) @ right[second]
        return float(np.mean(np.sum(of_left * of_right, axis=(1, 2))))

    total, of_mean = inner(slice(None), slice(None)), max(inner(slice(None, -1), slice(1, None)), 0.0)
    return of_mean, max(total - of_mean, 0.0)


def _by_neuron(factors: np.ndarray, patterns: np.ndarray, more: np.ndarray) -> Moments:
    """Of factors (draw, neuron, factor) times patterns (draw, pattern, factor), with more covariance added."""
    num_draws, num_neurons, _ = factors.shape
    num_patterns = patterns.shape[1]
    mean = np.empty((num_neurons, num_patterns))
    covariance = np.empty((num_neurons, num_patterns, num_patterns))
    size = max(1, CHUNK_ENTRIES // (num_draws * num_patterns))
    for start in range(0, num_neurons, size):
        some = slice(start, start + size)
        values = factors[:, some] @ np.swapaxes(patterns, 1, 2)
        mean[some] = values.mean(axis=0)
        deviations = np.moveaxis(values - mean[some], 0, -1)
        covariance[some] = deviations @ np.swapaxes(deviations, 1, 2) / (num_draws - 1)
    return Moments(mean, covariance + more)
