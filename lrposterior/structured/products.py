"""Products of the information with vectors, without the sensitivities of the latents.

A change of the loadings d psi and of the right factors dK moves latents and currents by

    d kappa[t+1] = A[t] d kappa[t] + (a / N) ([K, Q]^T diag(phi') (d psi c[t]) + [dK^T phi, 0]),
    d x_n[t] = d psi_n . c[t] + [M, A]_n . d kappa[t],

and F = J^T w J follows by the adjoint of the same recursion. The part of F that acts within the loadings of a neuron,
D_n = sum_t w_n c c^T, is kept apart: the products here are those with the rest, F - blockdiag(D_n).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrposterior.structured.courses import Courses, NetworkCourses
from lrposterior.structured.layout import vertical_directions
from lrposterior.structured.system import System
from lrposterior.structured.trajectory import Trajectory, adjoint_recursion, later, recursion

# Entries of the arrays (neuron, latent, loading, column) or (sample, neuron, column) that exist at one time.
PRODUCT_ENTRIES = 8_000_000


@dataclass(frozen=True, eq=False)
class Linearisation:
    """The network linearised around a trajectory.

    Attributes:
        system, trajectory: what was linearised, and where.
        courses: time courses of all neurons.
        right: (neuron, latent) right factors of all latents.
        transitions: (sample, latent, latent) A.
        write: (sample, latent, latent) [M, A]^T diag(w) [M, A].
        blocks: (neuron, loading, loading) D.
    """

    system: System
    trajectory: Trajectory
    courses: NetworkCourses
    right: np.ndarray
    transitions: np.ndarray
    write: np.ndarray
    blocks: np.ndarray

    @classmethod
    def of(cls, system: System, trajectory: Trajectory, courses: NetworkCourses) -> Linearisation:
        layout, latents = system.layout, trajectory.latents
        left = layout.loadings(trajectory.vector)[:, : layout.num_latents]
        right = system.right_factors(trajectory.vector)
        a, num_neurons = system.integration_constant, layout.num_neurons
        mixed = courses.slopes.sum_over_neurons(right[:, :, None] * left[:, None, :])
        write = courses.weights.sum_over_neurons(left[:, :, None] * left[:, None, :])
        row, column = np.triu_indices(layout.num_loadings)
        by_pair = courses.weights.sum_over_samples(latents[:, row] * latents[:, column])
        blocks = np.empty((num_neurons, layout.num_loadings, layout.num_loadings))
        blocks[:, row, column] = by_pair
        blocks[:, column, row] = by_pair
        transitions = (1.0 - a) * np.eye(layout.num_latents) + (a / num_neurons) * mixed
        return cls(system, trajectory, courses, right, transitions, write, blocks)

    @property
    def vector(self) -> np.ndarray:
        return self.trajectory.vector

    def vertical(self) -> np.ndarray:
        """(coordinate, direction) directions without information."""
        system, rank = self.system, self.system.layout.rank
        directions = vertical_directions(system.layout, self.vector, system.seen_right)
        # A alone acts on patterns that K does not read: there, nothing is traded.
        unread = np.linalg.norm(system.seen_right - system.read_part(system.seen_right), axis=0) > 0.5
        trades = rank**2 + np.flatnonzero(np.tile(unread, rank))
        return np.delete(directions, trades, axis=1)

    def information_beyond_blocks(self, changes: np.ndarray) -> np.ndarray:
        """(F - blockdiag(D)) times changes (coordinate, column)."""
        system, layout, courses = self.system, self.system.layout, self.courses
        num_columns = changes.shape[1]
        loadings, K = layout.push(self.vector, changes)
        a_over_n = system.integration_constant / layout.num_neurons

        drive, seen = self._on_latents(loadings)
        drive[:, : layout.rank] += courses.rates.sum_over_neurons(system.read_part(K))
        initial = None
        if layout.num_initial:
            initial = np.zeros((system.num_trials, layout.num_latents, num_columns))
            initial[:, : layout.rank] = layout.initial_latents(changes)
        moved = recursion(system, self.transitions, a_over_n * drive, initial)

        adjoint = adjoint_recursion(system, self.transitions, seen + self.write @ moved)
        following = a_over_n * later(system, adjoint)

        by_loading = self._on_loadings(following, moved)
        by_right = system.read_part(courses.rates.sum_over_samples(following[:, : layout.rank]))
        by_initial = system.by_trial(adjoint)[:, 0, : layout.rank] if layout.num_initial else None
        return layout.pull(self.vector, by_loading, by_right, by_initial)

    @property
    def _left(self) -> np.ndarray:
        """(neuron, latent) left factors of all latents."""
        return self.system.layout.loadings(self.vector)[:, : self.system.layout.num_latents]

    def _on_latents(self, loadings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What changes of the loadings (neuron, loading, column) do, each (sample, latent, column).

        sum_n phi'_n [K, Q]_n (d psi_n . c), which drives the latents, and sum_n w_n [M, A]_n (d psi_n . c), which is
        seen of it.
        """
        if not self.courses.by_sample:
            return (
                self._through_latents(self.courses.slopes, self.right, loadings),
                self._through_latents(self.courses.weights, self._left, loadings),
            )
        num_latents, latents = self.right.shape[1], self.trajectory.latents
        num_neurons, num_loadings, num_columns = loadings.shape
        by_loading = np.ascontiguousarray(np.swapaxes(loadings, 0, 1)).reshape(num_loadings, -1)
        both = np.empty((len(latents), 2 * num_latents, num_columns))
        for part in self._samples(num_columns):
            current = (latents[part] @ by_loading).reshape(-1, num_neurons, num_columns)
            np.matmul(self._weighted_factors(part), current, out=both[part])
        return both[:, :num_latents], both[:, num_latents:]

    def _on_loadings(self, following: np.ndarray, moved: np.ndarray) -> np.ndarray:
        """The transpose of `_on_latents`: (neuron, loading, column) from two arrays (sample, latent, column)."""
        if not self.courses.by_sample:
            by_loading = self._to_loadings(self.courses.weights, self._left, moved)
            by_loading += self._to_loadings(self.courses.slopes, self.right, following)
            return by_loading
        latents, num_neurons, num_columns = self.trajectory.latents, len(self.right), moved.shape[2]
        both = np.concatenate([following, moved], axis=1)
        total = np.zeros((latents.shape[1], num_neurons * num_columns))
        for part in self._samples(num_columns):
            current = np.swapaxes(self._weighted_factors(part), 1, 2) @ both[part]
            total += latents[part].T @ current.reshape(len(current), -1)
        return np.swapaxes(total.reshape(latents.shape[1], num_neurons, num_columns), 0, 1)

    def _weighted_factors(self, part: slice) -> np.ndarray:
        """phi'_n [K, Q]_n and w_n [M, A]_n in some samples, one below the other: (sample, 2 latents, neuron)."""
        slopes, weights = (values.coefficients[:, part].T for values in (self.courses.slopes, self.courses.weights))
        return np.concatenate([slopes[:, None] * self.right.T, weights[:, None] * self._left.T], axis=1)

    def _samples(self, num_columns: int) -> list[slice]:
        """Slices of samples for arrays (sample, neuron, column)."""
        num_samples = self.system.num_samples
        size = max(1, PRODUCT_ENTRIES // (4 * len(self.right) * num_columns))
        return [slice(start, min(start + size, num_samples)) for start in range(0, num_samples, size)]

    def _through_latents(self, values: Courses, factor: np.ndarray, loadings: np.ndarray) -> np.ndarray:
        """sum_n values_n factor_n (d psi_n . c), (sample, latent, column)."""
        num_components = values.coefficients.shape[1]
        total = np.zeros((num_components, factor.shape[1] * loadings.shape[1] * loadings.shape[2]))
        for chunk in self._chunks(loadings.shape[2]):
            products = factor[chunk, :, None, None] * loadings[chunk, None]
            total += values.coefficients[chunk].T @ products.reshape(len(products), -1)
        by_sample = values.expand(total).reshape(-1, factor.shape[1], loadings.shape[1], loadings.shape[2])
        return np.einsum("tc,tlck->tlk", self.trajectory.latents, by_sample)

    def _to_loadings(self, values: Courses, factor: np.ndarray, states: np.ndarray) -> np.ndarray:
        """sum_t values_n (factor_n . states) c, (neuron, loading, column): the transpose of `_through_latents`."""
        latents, num_columns = self.trajectory.latents, states.shape[2]
        products = values.reduce(states[:, :, None, :] * latents[:, None, :, None])
        products = np.moveaxis(products, 0, 1).reshape(factor.shape[1], len(products), -1)
        result = np.empty((len(factor), latents.shape[1] * num_columns))
        for chunk in self._chunks(num_columns):
            part = factor[chunk, 0, None] * (values.coefficients[chunk] @ products[0])
            for latent in range(1, factor.shape[1]):
                part += factor[chunk, latent, None] * (values.coefficients[chunk] @ products[latent])
            result[chunk] = part
        return result.reshape(len(factor), latents.shape[1], num_columns)

    def _chunks(self, num_columns: int) -> list[slice]:
        layout = self.system.layout
        size = max(1, PRODUCT_ENTRIES // (layout.num_latents * layout.num_loadings * num_columns))
        return [slice(start, start + size) for start in range(0, layout.num_neurons, size)]
