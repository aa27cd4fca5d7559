"""The part of the posterior precision that acts within neurons, and its Cholesky factor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrposterior.structured.layout import Layout

NEURONS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class WhitenedBlocks:
    """Root R of the precision without its low-rank part: R R^T = blockdiag(D_n) + diag(1 / deviations²).

    R is S^-1 L, with a Cholesky factor L for the loadings of every neuron and the identity elsewhere.

    Attributes:
        layout: sizes.
        deviations: (coordinate,) prior standard deviations, the diagonal of S.
        factors, inverses: (neuron, loading, loading) L and its inverse.
    """

    layout: Layout
    deviations: np.ndarray
    factors: np.ndarray
    inverses: np.ndarray

    @classmethod
    def of(cls, layout: Layout, blocks: np.ndarray, deviations: np.ndarray) -> WhitenedBlocks:
        scale = layout.rows(deviations)[:, : layout.num_loadings]
        identity = np.eye(layout.num_loadings)
        factors = np.linalg.cholesky(blocks * scale[:, :, None] * scale[:, None, :] + identity)
        return cls(layout, deviations, factors, np.linalg.inv(factors))

    @property
    def log_determinant(self) -> float:
        """log det of R R^T over that of the prior precision."""
        return 2.0 * float(np.sum(np.log(np.diagonal(self.factors, axis1=1, axis2=2))))

    def times(self, columns: np.ndarray) -> np.ndarray:
        """R times columns (coordinate, column)."""
        product = self._on_loadings(self.factors, columns.copy())
        product /= self.deviations[:, None]
        return product

    def times_transposed(self, columns: np.ndarray) -> np.ndarray:
        """R^T times columns."""
        return self._on_loadings(np.swapaxes(self.factors, 1, 2), columns / self.deviations[:, None])

    def solve(self, columns: np.ndarray) -> np.ndarray:
        """R^-1 times columns."""
        return self._on_loadings(self.inverses, columns * self.deviations[:, None])

    def solve_transposed(self, columns: np.ndarray) -> np.ndarray:
        """R^-T times columns."""
        product = self._on_loadings(np.swapaxes(self.inverses, 1, 2), columns.copy())
        product *= self.deviations[:, None]
        return product

    def covariance(self) -> np.ndarray:
        """(neuron, column, column) blocks of (R R^T)^-1."""
        layout = self.layout
        blocks = np.zeros((layout.num_neurons, layout.width, layout.width))
        C, deviations = layout.num_loadings, layout.rows(self.deviations)
        local = np.swapaxes(self.inverses, 1, 2) @ self.inverses
        blocks[:, :C, :C] = local * deviations[:, :C, None] * deviations[:, None, :C]
        right = np.arange(C, layout.width)
        blocks[:, right, right] = deviations[:, C:] ** 2
        return blocks

    def _on_loadings(self, matrices: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Columns with the loadings of every neuron multiplied; overwrites them."""
        columns = np.ascontiguousarray(columns)
        loadings = self.layout.rows(columns)[:, : self.layout.num_loadings]
        for start in range(0, len(loadings), NEURONS_AT_ONCE):
            part = slice(start, start + NEURONS_AT_ONCE)
            loadings[part] = matrices[part] @ loadings[part]
        return columns
