"""The information of a recording in its structured form, and the posterior under any diagonal prior."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from lrposterior.structured.blocks import WhitenedBlocks
from lrposterior.structured.layout import Layout

ROWS_AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class StructuredInformation:
    """F = blockdiag(D_n) + Y diag(tau) Y^T in the coordinates of the layout, whatever the prior.

    Attributes:
        layout: sizes and coordinates.
        blocks: (neuron, loading, loading) D.
        factor: (coordinate, component) Y.
        weights: (component,) tau, of both signs.
        vertical: (coordinate, direction) directions on which F is zero exactly and which mean nothing.
    """

    layout: Layout
    blocks: np.ndarray
    factor: np.ndarray
    weights: np.ndarray
    vertical: np.ndarray

    def times(self, columns: np.ndarray) -> np.ndarray:
        """F times columns (coordinate, column)."""
        product = self.factor @ (self.weights[:, None] * (self.factor.T @ columns))
        C = self.layout.num_loadings
        self.layout.rows(product)[:, :C] += self.blocks @ self.layout.rows(columns)[:, :C]
        return product

    def without_components_below(self, weight: float) -> StructuredInformation:
        """Without the components of a smaller weight, in units of the precision within neurons."""
        kept = np.abs(self.weights) >= weight
        return dataclasses.replace(self, factor=self.factor[:, kept], weights=self.weights[kept])

    def posterior(self, deviations: np.ndarray) -> StructuredPosterior:
        """Covariance of the posterior under independent Normal priors with these (coordinate,) deviations.

        Raises:
            np.linalg.LinAlgError: if the precision is not positive definite.
        """
        local = WhitenedBlocks.of(self.layout, self.blocks, deviations)
        # R^-1 (F + prior precision) R^-T = I + U tau U^T with U = R^-1 Y, and U = O rotation^T triangle.
        factor = local.solve(self.factor)
        triangle = np.linalg.cholesky(factor.T @ factor).T
        values, rotation = np.linalg.eigh(triangle * self.weights @ triangle.T)
        if values[0] <= -1.0:
            raise np.linalg.LinAlgError(
                f"posterior: the precision has a negative eigenvalue, {1.0 + values[0]:.2g} times the local one; find "
                "the information with a smaller tolerance, or at prior scales nearer to these"
            )
        multiply_rows(factor, scipy.linalg.solve_triangular(triangle, rotation))
        factor = local.solve_transposed(factor)
        scaled, _ = np.linalg.qr(self.vertical / deviations[:, None])
        return StructuredPosterior(local, values, np.concatenate([factor, scaled * deviations[:, None]], axis=1))


def multiply_rows(rows: np.ndarray, matrix: np.ndarray) -> None:
    """Overwrite rows (row, column) with rows @ matrix, a few at a time: there is no memory for both."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        rows[some] = rows[some] @ matrix


@dataclass(frozen=True, eq=False)
class StructuredPosterior:
    """Normal posterior around zero, without variance along the directions that mean nothing.

        Sigma = (R R^T)^-1 - factor diag(removed) factor^T

    Attributes:
        local: R, the precision within neurons.
        values: (component,).
        factor: (coordinate, component and vertical direction). The first are R^-T O, with an orthonormal O and R^-1 (F
            + prior precision) R^-T = I + O diag(values) O^T.
    """

    local: WhitenedBlocks
    values: np.ndarray
    factor: np.ndarray

    @property
    def layout(self) -> Layout:
        return self.local.layout

    @property
    def deviations(self) -> np.ndarray:
        """(coordinate,) prior standard deviations."""
        return self.local.deviations

    @property
    def removed(self) -> np.ndarray:
        """(component and vertical direction,) weights of what the covariance lacks of the local one."""
        return np.concatenate([self.values / (1.0 + self.values), np.ones(self.vertical.shape[1])])

    @property
    def log_determinant(self) -> float:
        """log det of the precision over that of the prior precision, on the horizontal space."""
        return self.local.log_determinant + float(np.sum(np.log1p(self.values)))

    @property
    def components(self) -> np.ndarray:
        """(coordinate, component) R^-T O, a view."""
        return self.factor[:, : self.values.size]

    @property
    def vertical(self) -> np.ndarray:
        """(coordinate, direction) orthonormal in whitened coordinates, a view."""
        return self.factor[:, self.values.size :]

    def times(self, columns: np.ndarray) -> np.ndarray:
        """Sigma times columns (coordinate, column)."""
        vertical, precision = self.vertical, self.deviations[:, None] ** -2.0
        # The part along the vertical directions is taken off before and after: what is left of large numbers would else
        # be felt.
        columns = columns - precision * (vertical @ (vertical.T @ columns))
        product = self.local.solve_transposed(self.local.solve(columns))
        gains = self.values / (1.0 + self.values)
        product -= self.components @ (gains[:, None] * (self.components.T @ columns))
        return product - vertical @ (vertical.T @ (precision * product))

    def sample(self, num_draws: int, *, seed: int) -> np.ndarray:
        """(coordinate, draw) deviations from the mode."""
        return self.color(np.random.default_rng(seed).standard_normal((len(self.factor), num_draws)))

    def color(self, noise: np.ndarray) -> np.ndarray:
        """A square root of Sigma times white noise (coordinate, column)."""
        gains = 1.0 / np.sqrt(1.0 + self.values) - 1.0
        read = self.components.T @ self.local.times(noise)
        draws = self.local.solve_transposed(noise) + self.components @ (gains[:, None] * read)
        return draws - self.vertical @ (self.vertical.T @ (draws / self.deviations[:, None] ** 2))

    def covariance(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Covariance (function, function) of linear functions with gradients (coordinate, function)."""
        local = self.local.solve(first).T @ self.local.solve(second)
        return local - (self.factor.T @ first).T @ (self.removed[:, None] * (self.factor.T @ second))

    def row_covariance(self) -> np.ndarray:
        """(neuron, column, column) covariance of every neuron's own row."""
        rows = self.layout.rows(self.factor)
        return self.local.covariance() - (rows * self.removed) @ np.swapaxes(rows, 1, 2)

    def shared_covariance(self) -> np.ndarray:
        """(shared, shared) covariance of the shared coordinates."""
        start = self.layout.num_local
        shared = self.factor[start:]
        return np.diag(self.deviations[start:] ** 2) - (shared * self.removed) @ shared.T

    def variances(self) -> np.ndarray:
        """(coordinate,) diagonal of Sigma."""
        local = np.diagonal(self.local.covariance(), axis1=1, axis2=2)
        variances = self.deviations**2
        self.layout.rows(variances)[:] = local
        return variances - np.einsum("pr,r,pr->p", self.factor, self.removed, self.factor)

    def groups(self) -> dict[str, np.ndarray]:
        """(coordinate,) indices by name: M, A, B, b, E of all neurons, G and the initial latents."""
        layout, index = self.layout, np.arange(self.layout.num_coordinates)
        found = {name: layout.rows(index)[:, columns].ravel() for name, columns in layout.columns.items()}
        if layout.correlated:
            found["G"] = layout.coefficients(index).ravel()
        if layout.num_initial:
            found["initial_latents"] = layout.initial_latents(index).ravel()
        return {name: indices for name, indices in found.items() if indices.size}

    def whitened_traces(self) -> dict[str, float]:
        """Trace of the covariance of the whitened coordinates by group."""
        whitened = self.variances() / self.deviations**2
        return {name: float(np.sum(whitened[indices])) for name, indices in self.groups().items()}

    def learned_overlaps(self) -> tuple[list[str], np.ndarray]:
        """Squared Frobenius norms (group, group) of the blocks of I - Sigma in whitened coordinates, and the groups.

        With I - Sigma = local + w removed w^T the norm of a block splits into that of the local part, that of the
        low-rank part through the Gram matrices of its rows, and their inner product.
        """
        layout, names = self.layout, list(self.groups())
        whitened = self.factor / self.deviations[:, None]
        grams = [(part := whitened[indices]).T @ part for indices in self.groups().values()]
        weighted = [self.removed[:, None] * gram for gram in grams]
        overlaps = np.array([[np.sum(first * second.T) for second in weighted] for first in weighted])
        scale, rows = layout.rows(self.deviations), layout.rows(whitened)
        local = np.eye(layout.width) - self.local.covariance() / (scale[:, :, None] * scale[:, None, :])
        crossed = local**2 + 2.0 * local * ((rows * self.removed) @ np.swapaxes(rows, 1, 2))
        for first, row in layout.columns.items():
            for second, column in layout.columns.items():
                if first in names and second in names:
                    overlaps[names.index(first), names.index(second)] += crossed[:, row, column].sum()
        return names, overlaps
