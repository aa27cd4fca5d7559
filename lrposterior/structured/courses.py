"""Time courses of all neurons in a basis of a few hundred: what makes the rest independent of trials and bins.

Rates, slopes and observation weights of all neurons are smooth functions of a few latents, so that their time courses
span a small space to the precision that matters. Its basis comes from a sketch: sums of the time courses over random
groups of neurons with random signs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.network import NONLINEARITIES
from lrposterior.observations import GaussianObservation
from lrposterior.precision import double_precision
from lrposterior.structured.system import System
from lrposterior.structured.trajectory import Slice, Trajectory, currents, network, seen, slice_of

FIRST_SKETCH = 640
SMALLEST_TOLERANCE = 1e-7
# Where the basis needs more than this part of the samples, the time courses themselves are kept.
LARGEST_PART = 0.5
# Components of a basis, as a rule, and entries (neuron, sample) up to which time courses are kept as they are.
TYPICAL_COMPONENTS, LARGEST_BY_SAMPLE = 250, 20_000_000


@dataclass(frozen=True, eq=False)
class Courses:
    """Values (sample, neuron) = basis @ coefficients^T.

    Attributes:
        basis: (sample, component) orthonormal, or None for the identity.
        coefficients: (neuron, component).
    """

    basis: np.ndarray | None
    coefficients: np.ndarray

    def expand(self, components: np.ndarray) -> np.ndarray:
        """(sample, ...) from (component, ...)."""
        return components if self.basis is None else np.tensordot(self.basis, components, axes=1)

    def reduce(self, samples: np.ndarray) -> np.ndarray:
        """(component, ...) from (sample, ...)."""
        return samples if self.basis is None else np.tensordot(self.basis.T, samples, axes=1)

    def sum_over_neurons(self, weights: np.ndarray) -> np.ndarray:
        """sum_n values[t, n] weights[n, ...] (sample, ...)."""
        flat = weights.reshape(len(weights), -1)
        return self.expand((self.coefficients.T @ flat).reshape(-1, *weights.shape[1:]))

    def sum_over_samples(self, weights: np.ndarray) -> np.ndarray:
        """sum_t values[t, n] weights[t, ...] (neuron, ...)."""
        reduced = self.reduce(weights)
        return (self.coefficients @ reduced.reshape(len(reduced), -1)).reshape(-1, *weights.shape[1:])


@dataclass(frozen=True, eq=False)
class NetworkCourses:
    """Rates phi, slopes phi' and observation weights (information about the current) of all neurons."""

    rates: Courses
    slopes: Courses
    weights: Courses

    @property
    def by_sample(self) -> bool:
        """Whether slopes and weights are kept as they are, without a basis."""
        return self.slopes.basis is None and self.weights.basis is None


@double_precision
def network_courses(
    system: System, trajectory: Trajectory, *, tolerance: float, seed: int = 0, dtype: type[np.floating] = np.float64
) -> NetworkCourses:
    """The time courses at a point.

    Args:
        system: the recording.
        trajectory: the network at the point.
        tolerance: singular values of the sketch below this part of the largest are dropped. 0 keeps everything.
        seed: of the sketch.
        dtype: precision in which the coefficients are kept.
    """
    open_features = [] if _pays_by_sample(system) else [0, 1, 2]
    bases = _bases(system, trajectory, tolerance, seed, open_features)
    # What the right factors read of the rates has to be reproduced exactly: on it rests that the information vanishes
    # along the gauge.
    if bases[0] is not None:
        read = _read(system, trajectory)
        bases[0] = np.linalg.qr(np.concatenate([read, bases[0]], axis=1))[0]
    coefficients = [
        np.empty((system.layout.num_neurons, system.num_samples if basis is None else basis.shape[1]), dtype)
        for basis in bases
    ]
    for chunk, values in _values(system, trajectory):
        for basis, value, kept in zip(bases, values, coefficients, strict=True):
            kept[chunk] = value if basis is None else value @ basis
    return NetworkCourses(*(Courses(basis, kept) for basis, kept in zip(bases, coefficients, strict=True)))


def _pays_by_sample(system: System) -> bool:
    """Whether products with the time courses themselves take less than products in a basis of them.

    With C loadings, L latents, T samples and N neurons the first take T N (C + 2 L) operations, the second, with q
    components, 2 q L C (N + T).
    """
    layout = system.layout
    C, L, T, N = layout.num_loadings, layout.num_latents, system.num_samples, layout.num_neurons
    components = min(N, TYPICAL_COMPONENTS)
    return T * N <= LARGEST_BY_SAMPLE and 2 * components * L * C * (N + T) > T * (C + 2 * L) * N


def _values(system: System, trajectory: Trajectory) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """Chunks of neurons with their rates, slopes and weights (neuron, sample)."""
    loadings = system.layout.loadings(trajectory.vector)
    precision = np.exp(-2.0 * trajectory.log_noise_scale)
    # What happens in the last bin of a trial acts on no later one.
    acts = np.tile(np.arange(system.num_bins) < system.num_bins - 1, system.num_trials)
    settings = system.observation, system.nonlinearity
    for chunk in system.chunks():
        part = slice_of(system, loadings, chunk)
        values = _features(*settings, part, trajectory.latents, precision[chunk], acts)
        yield chunk, [np.asarray(value) for value in values]


@network
def _features(
    observation: GaussianObservation, nonlinearity: str, part: Slice, latents: Array, precision: Array, acts: Array
) -> tuple[Array, Array, Array]:
    current = currents(part, latents)
    phi = NONLINEARITIES[nonlinearity]
    weights = observation.sensitivity(current, nonlinearity) ** 2 * precision[:, None]
    weights = seen(part, jnp.broadcast_to(weights, current.shape))
    return phi.rate(current) * acts, phi.slope(current) * acts, weights


@double_precision
def rate_courses(system: System, trajectory: Trajectory, *, tolerance: float, seed: int = 0) -> Courses:
    """The rates alone, of any latents, not only those that the network makes itself; see `network_courses`."""
    basis = _bases(system, trajectory, tolerance, seed, [0])[0]
    size = system.num_samples if basis is None else basis.shape[1]
    coefficients = np.empty((system.layout.num_neurons, size))
    for chunk, (rates, _, _) in _values(system, trajectory):
        coefficients[chunk] = rates if basis is None else rates @ basis
    return Courses(basis, coefficients)


def _bases(
    system: System, trajectory: Trajectory, tolerance: float, seed: int, open_features: list[int]
) -> list[np.ndarray | None]:
    bases: list[np.ndarray | None] = [None, None, None]
    largest = int(LARGEST_PART * system.num_samples)
    size = min(FIRST_SKETCH, largest)
    while tolerance > 0.0 and open_features and size <= largest:
        sketches = _sketch(system, trajectory, size, seed, open_features)
        unresolved = []
        for feature in open_features:
            # The Gram matrix resolves 1e-8 of the largest singular value, and is much cheaper than these.
            values, groups = np.linalg.eigh(sketches[feature] @ sketches[feature].T)
            kept = values > max(tolerance, SMALLEST_TOLERANCE) ** 2 * values[-1]
            if kept.sum() < 0.9 * size or system.layout.num_neurons <= size:
                bases[feature] = np.linalg.qr(sketches[feature].T @ (groups[:, kept] / np.sqrt(values[kept])))[0]
            else:
                unresolved.append(feature)
        size, open_features = 2 * size, unresolved
    return bases


def _sketch(system: System, trajectory: Trajectory, size: int, seed: int, features: list[int]) -> dict[int, np.ndarray]:
    """(group, sample) for each feature."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], system.layout.num_neurons)
    sketches = {feature: np.zeros((size, system.num_samples)) for feature in features}
    for chunk, values in _values(system, trajectory):
        for feature in features:
            signed = values[feature] * signs[chunk, None]
            begin = chunk.start
            while begin < chunk.stop:
                end = min(chunk.stop, begin + size - begin % size)
                sketches[feature][begin % size : begin % size + end - begin] += signed[
                    begin - chunk.start : end - chunk.start
                ]
                begin = end
    return sketches


def _read(system: System, trajectory: Trajectory) -> np.ndarray:
    """(sample, latent) what drives the latents, (kappa[t+1] - (1 - a) kappa[t]) / a; 0 in the last bin."""
    kappa, a = trajectory.latents[:, : system.layout.num_latents], system.integration_constant
    following = np.zeros_like(kappa)
    by_trial = system.by_trial(kappa)
    system.by_trial(following)[:, :-1] = by_trial[:, 1:] - (1.0 - a) * by_trial[:, :-1]
    return following / a
