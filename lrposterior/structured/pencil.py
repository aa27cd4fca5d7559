"""How a posterior covariance compares with the prior's, where both are a block for every neuron and a low-rank part.

In coordinates in which the prior makes the entries of a neuron independent, with variance 1, and the posterior's blocks
are diagonal,

    posterior = diag(local) + parts diag(weights) parts^T + shared diag(signs) shared^T,
    prior     = I + shared diag(signs) shared^T,

both on the orthogonal complement of `null`, the directions that mean nothing. Along a direction v of the pencil

    posterior v = ratio prior v,       ratio = 1 / (1 + lambda).

As many lambda lie above a threshold t as posterior - prior / (1 + t) has negative eigenvalues on the complement. By
Haynsworth's additivity of inertia (1968, doi:10.1016/0024-3795(68)90050-5), with the border of `null` and every part of
low rank moved into a small matrix, that number is exact, and costs one product of the parts with themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg

ROWS_AT_ONCE = 8192
# A threshold that meets an entry of `local` more closely than this is taken to lie beside it.
SMALLEST_GAP = 1e-12
# Where the integral of `Pencil.above` is evaluated.
CONTOUR_STEP = 1.0
CONTOUR_HEIGHTS = np.exp(np.arange(np.log(1e-4), np.log(1e3), CONTOUR_STEP))
# Information below is not told apart from none: the parts of low rank are known to some thousandths of the prior's.
SMALLEST_INFORMATION = 1e-3
# Neighbours of the grid on which the spectrum is counted lie nearer to each other than this factor, ...
GRID_FACTOR = 1.35
# ... unless counting all of it would cost more multiplications than this.
COUNTING_OPERATIONS = 5e11


@dataclass(frozen=True, eq=False)
class Pencil:
    """A posterior and a prior covariance.

    Attributes:
        local: (row,) posterior variance of the blocks, over the prior's.
        parts: (row, part).
        weights: (part,) of both signs.
        shared: (row, shared) what the prior has beyond its blocks.
        null: (row, direction) orthonormal.
        signs: (shared,) 1 or -1.
    """

    local: np.ndarray
    parts: np.ndarray
    weights: np.ndarray
    shared: np.ndarray
    null: np.ndarray
    signs: np.ndarray

    @classmethod
    def of_blocks(
        cls,
        prior_blocks: np.ndarray,
        posterior_blocks: np.ndarray,
        *,
        parts: np.ndarray,
        weights: np.ndarray,
        shared: np.ndarray,
        signs: np.ndarray,
        null: np.ndarray | None = None,
    ) -> tuple[Pencil, np.ndarray]:
        """Of changes in other coordinates, and the matrices that lead to these: changes = matrix @ coordinates.

        Args:
            prior_blocks, posterior_blocks: (neuron, change, change).
            parts: (neuron, change, part).
            weights: (part,).
            shared: (neuron, change, shared).
            signs: (shared,).
            null: (neuron, change, direction), not orthonormal, or None where all directions mean something.
        """
        roots = np.linalg.cholesky(prior_blocks)
        inverses = np.linalg.inv(roots)
        local, rotations = np.linalg.eigh(inverses @ posterior_blocks @ np.swapaxes(inverses, 1, 2))
        to_rows = np.swapaxes(rotations, 1, 2) @ inverses

        def rows(changes: np.ndarray) -> np.ndarray:
            return (to_rows @ changes).reshape(local.size, -1)

        meaningless = np.zeros((local.size, 0))
        if null is not None:
            columns = rows(null)
            meaningless = scipy.linalg.orth(columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-300))
        return cls(local.ravel(), rows(parts), weights, rows(shared), meaningless, signs), roots @ rotations

    @property
    def num_directions(self) -> int:
        return len(self.local) - self.null.shape[1]

    def count(self, threshold: float) -> int:
        """Number of directions with lambda >= threshold, which is positive."""
        return self.num_directions - self._num_above(1.0 / (1.0 + threshold))

    def _num_above(self, ratio: float) -> int:
        """Number of directions whose posterior variance is above this part of the prior's."""
        gaps = self.local - ratio
        gaps = np.where(np.abs(gaps) < SMALLEST_GAP, np.copysign(SMALLEST_GAP, gaps), gaps)
        core = self._core(gaps, self._columns, 1.0 - ratio)
        num_positive = [np.count_nonzero(values > 0.0) for values in (gaps, np.linalg.eigvalsh(core))]
        num_negative = [np.count_nonzero(values < 0.0) for values in (self.weights, self.signs)]
        return sum(num_positive) - sum(num_negative) - self.null.shape[1]

    @cached_property
    def _columns(self) -> np.ndarray:
        """(row, part, shared and null)."""
        return np.concatenate([self.parts * np.sqrt(np.abs(self.weights)), self.shared, self.null], axis=1)

    def _core(self, gaps: np.ndarray, columns: np.ndarray, share: float) -> np.ndarray:
        """The Schur complement of diag(gaps) in the bordered matrix diag(gaps) + parts + share * shared, null."""
        signs = np.concatenate([-np.sign(self.weights), -self.signs, np.zeros(self.null.shape[1])])
        scale = np.ones(len(signs))
        scale[self.weights.size : self.weights.size + self.shared.shape[1]] = np.sqrt(share)
        return np.diag(signs) - scale[:, None] * _gram(columns, 1.0 / gaps) * scale

    @cached_property
    def _prior_inverse(self) -> tuple[np.ndarray, np.ndarray]:
        """X and C: on the complement of `null` the prior's inverse is I - X C X^T, X (row, column)."""
        columns = np.concatenate([self.shared, self.null], axis=1)
        inner = columns.T @ columns
        inner[np.diag_indices(self.signs.size)] += self.signs
        return columns, np.linalg.inv(inner)

    def inverse_prior_times(self, rows: np.ndarray) -> np.ndarray:
        """The prior's inverse on the complement of `null`, times (row, column)."""
        columns, inner = self._prior_inverse
        return rows - columns @ (inner @ (columns.T @ rows))

    def removed_times(self, rows: np.ndarray) -> np.ndarray:
        """Prior minus posterior covariance, times (row, column)."""
        return (1.0 - self.local)[:, None] * rows - self.parts @ (self.weights[:, None] * (self.parts.T @ rows))

    @cached_property
    def effective_parameters(self) -> float:
        """Sum of lambda / (1 + lambda), the trace of the removed covariance over the prior's."""
        trace = np.sum(1.0 - self.local) - np.sum(self.weights * np.sum(self.parts**2, axis=0))
        columns, inner = self._prior_inverse
        return float(trace - np.sum(inner * (columns.T @ self.removed_times(columns))))

    @cached_property
    def information(self) -> float:
        """Half the sum of log(1 + lambda), in nats: half the difference of the log determinants."""
        posterior = self._core(self.local, self._columns, 1.0)
        columns = self._columns[:, self.weights.size :]
        prior = -columns.T @ columns
        prior[np.diag_indices(self.signs.size)] -= self.signs
        logarithms = [np.linalg.slogdet(matrix)[1] if matrix.size else 0.0 for matrix in (posterior, prior)]
        return float(0.5 * (logarithms[1] - logarithms[0] - np.sum(np.log(self.local))))

    def above(self, ratio: float, rows: np.ndarray) -> np.ndarray:
        """The part of (row, column) along eigenvectors of the posterior whose variance is above `ratio`.

        Where prior and posterior share nothing: (1 + sign X) / 2 with X = posterior - ratio, and

            sign x = 2 / pi times the integral over y of x / (x² + y²),    x / (x² + y²) = Re 1 / (x - i y),

        by the trapezoidal rule in log y, which converges exponentially. Eigenvectors within 1e-3 of the ratio are taken
        in part.
        """
        total = np.zeros(rows.shape)
        for height in CONTOUR_HEIGHTS:
            gaps = self.local - ratio - 1j * height
            scaled = rows / gaps[:, None]
            inner = np.diag(1.0 / self.weights) + _complex_gram(self.parts, 1.0 / gaps)
            coefficients = np.linalg.solve(inner, self.parts.T @ scaled)
            total += height * np.real(scaled - (self.parts @ coefficients) / gaps[:, None])
        return 0.5 * (rows + (2.0 * CONTOUR_STEP / np.pi) * total)

    def spectrum(self, threshold: float) -> np.ndarray:
        """(direction,) lambda, decreasing, each within a factor `GRID_FACTOR`; what is below 1e-3 is 0.

        The number of directions between two points of a grid, of which one is the threshold, is exact; within, they
        are spread evenly.
        """
        return spread_over_grid(self.count, self.num_directions, threshold, self._most_counts)

    @property
    def _most_counts(self) -> int:
        return int(COUNTING_OPERATIONS / (len(self.local) * self._columns.shape[1] ** 2 + 1))


def spread_over_grid(
    count: Callable[[float], int], num_directions: int, threshold: float, most_counts: int
) -> np.ndarray:
    """Values (direction,), decreasing, of which count(t) are t or more, from as few counts as possible."""
    counts = {min(SMALLEST_INFORMATION, threshold): 0, threshold: 0}
    counts = {point: count(point) for point in counts}
    top = max(counts)
    while counts[top]:
        top *= 10.0
        counts[top] = count(top)
    while len(counts) < max(most_counts, 24):
        points = np.array(sorted(counts))
        numbers = np.array([counts[point] for point in points])
        between = numbers[:-1] - numbers[1:]
        # The widest step of the drawn curve comes first.
        wide = (points[1:] > GRID_FACTOR * points[:-1]) & (between > 0)
        if not wide.any():
            break
        widths = np.where(wide, np.log(points[1:] / points[:-1]) * between, 0.0)
        widest = int(np.argmax(widths))
        middle = float(np.sqrt(points[widest] * points[widest + 1]))
        counts[middle] = count(middle)
    values = np.zeros(num_directions)
    for low, high in itertools.pairwise(sorted(counts)):
        first, last = counts[high], counts[low]
        part = (np.arange(last - first) + 0.5) / max(last - first, 1)
        values[first:last] = high * (low / high) ** part
    return values


def _gram(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """columns^T diag(weights) columns, rows of one sign at a time: a matrix times its own transpose is cheaper."""
    total = np.zeros((columns.shape[1], columns.shape[1]))
    for sign in (1.0, -1.0):
        rows = np.flatnonzero(sign * weights > 0.0)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            chosen = rows[start : start + ROWS_AT_ONCE]
            scaled = columns[chosen] * np.sqrt(np.abs(weights[chosen]))[:, None]
            total += sign * (scaled.T @ scaled)
    return total


def _complex_gram(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """columns^T diag(weights) columns for complex weights."""
    return _gram(columns, np.real(weights)) + 1j * _gram(columns, np.imag(weights))
