"""One model on one recording of any size: what `Problem` is to few coordinates, by the structured engine.

The engine (`lrposterior.structured`) has a row for every neuron and a prior scale for every coordinate; here its vectors
are turned into the whitened coordinates z of the package and back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lrposterior.background import RandomBulk
from lrposterior.inference.mode import Mode
from lrposterior.inference.problem import FitError, rescaled
from lrposterior.model import LowRankModel
from lrposterior.orbit import gauge_basis
from lrposterior.parameters import ParameterSpace
from lrposterior.priors import CorrelatedLoadings, ScalePrior, TimeConstantPrior
from lrposterior.recording import Recording
from lrposterior.structured.coordinates import Coordinates
from lrposterior.structured.gauge import regauge_information
from lrposterior.structured.information import StructuredInformation, StructuredPosterior
from lrposterior.structured.mode import (
    Accuracy,
    ConvergenceError,
    Point,
    descend,
    posterior_information,
    quasi_newton,
)
from lrposterior.structured.start import find_start
from lrposterior.structured.system import System
from lrposterior.structured.trajectory import run

DECREMENT_TOLERANCE = 1e-3
# Nats by which the point may move before the information is found again.
REFRESH = 1.0


@dataclass(frozen=True, eq=False)
class StructuredProblem:
    """A settled model, its recording and its parameter space.

    Attributes:
        model, recording, space, scale_priors: as in `Problem`.
        system: the recording as the engine takes it.
    """

    model: LowRankModel
    recording: Recording
    space: ParameterSpace
    scale_priors: Mapping[str, ScalePrior]
    system: System

    decrement_tolerance = DECREMENT_TOLERANCE
    refresh = REFRESH

    @staticmethod
    def serves(model: LowRankModel) -> bool:
        """Whether the engine knows all parts of the model."""
        known = model.background is None or isinstance(model.background, RandomBulk)
        return known and not isinstance(model.time_constant, TimeConstantPrior)

    @classmethod
    def of(cls, model: LowRankModel, recording: Recording) -> StructuredProblem:
        settled = model.for_recording(recording)
        priors = settled.scale_priors
        settled = settled.with_scales({name: prior.median for name, prior in priors.items()})
        background = settled.background
        system = System.of(
            dataclasses.replace(settled, background=None),
            recording,
            seen_right=recording.num_neurons * background.subspace if isinstance(background, RandomBulk) else None,
            correlated=isinstance(settled.priors, CorrelatedLoadings),
        )
        return cls(settled, recording, settled.space_for(recording), priors, system)

    def with_scales(self, scales: Mapping[str, float]) -> StructuredProblem:
        """The same problem with other prior scales."""
        return rescaled(self, scales)

    def scales(self) -> dict[str, float]:
        """The inferred scales at their present values."""
        return {name: self.model.scale(name) for name in self.scale_priors}

    @property
    def subspace(self) -> np.ndarray | None:
        background = self.model.background
        return background.subspace if isinstance(background, RandomBulk) else None

    @cached_property
    def coordinates(self) -> Coordinates:
        return Coordinates.of(self.system.layout, self.space)

    def num_observations(self) -> np.ndarray:
        """(neuron,) number of observed entries."""
        return self.system.num_observed

    def point(self, z: np.ndarray) -> Point:
        return Point.at(self.system, self.coordinates.vector(z), self.coordinates.deviations)

    def whitened(self, point: Point) -> np.ndarray:
        """z (coordinate,) of a point, its noise scales included."""
        block = self.space["log_noise_scale"]
        noise = (point.trajectory.log_noise_scale - block.mean) / block.standard_deviation
        return np.concatenate([self.coordinates.whitened(point.trajectory.vector), noise])

    def negative_log_density(self, z: np.ndarray) -> float:
        """-log p(activity, z) in nats, with every noise scale at its conditional mode."""
        return self.point(z).objective

    def gradient(self, z: np.ndarray) -> np.ndarray:
        """(dynamics coordinate,)."""
        return self.coordinates.pulled(self.point(z).slope)

    def information(self, z: np.ndarray) -> StructuredInformation:
        """Gauss-Newton information about the dynamics coordinates, without the prior."""
        trajectory = run(self.system, self.coordinates.vector(z))
        return posterior_information(self.system, self.coordinates.deviations, trajectory, Accuracy())

    def covariance(self, z: np.ndarray, information: StructuredInformation) -> StructuredCovariance:
        gauge = gauge_basis(self.space, z, self.subspace)
        vertical = self.coordinates.unscaled(gauge)
        posterior = dataclasses.replace(information, vertical=vertical).posterior(self.coordinates.deviations)
        return StructuredCovariance(self.space, self.coordinates, posterior, gauge)

    def carried(self, information: StructuredInformation, A: np.ndarray) -> StructuredInformation:
        """The same information after a change of gauge; of the prior scales it knows nothing."""
        return regauge_information(information, A)

    def descend(self, z: np.ndarray, covariance: StructuredCovariance, slope: np.ndarray) -> tuple[np.ndarray, float]:
        """A point further down across the gauge, and the nats gained."""
        point = self.point(z)

        def solve(raw_slope: np.ndarray) -> np.ndarray:
            return covariance.posterior.times(raw_slope[:, None])[:, 0]

        reached, _ = quasi_newton(
            self.system, self.coordinates.deviations, point, solve, tolerance=0.1 * DECREMENT_TOLERANCE
        )
        return self.whitened(reached), point.objective - reached.objective

    def find_mode(
        self, *, max_iterations: int, report: Callable[[int, float, float], None] | None = None
    ) -> Mode:
        """The mode in (M, K) from a start in the data.

        Raises:
            FitError: if the descent does not converge.
        """
        deviations = self.coordinates.deviations

        def told(_phase: str, iteration: int, objective: float, decrement: float) -> None:
            if report is not None:
                report(iteration, objective, decrement)

        try:
            start = find_start(self.system, deviations)
            vector, objective, decrement, num_steps = descend(
                self.system, deviations, start, max_iterations=max_iterations, report=told
            )
        except ConvergenceError as failure:
            raise FitError(str(failure)) from failure
        point = Point.at(self.system, vector, deviations)
        z = self.whitened(point)
        gradient_norm = float(np.linalg.norm(self.coordinates.pulled(point.slope)))
        return Mode(z, objective, gradient_norm, decrement, None, num_steps)


@dataclass(frozen=True, eq=False)
class StructuredCovariance:
    """A `Covariance` by a block for every neuron and a part of low rank.

    Attributes:
        space, coordinates: where everything lies in z and in the engine's vectors.
        posterior: the covariance in the engine's coordinates.
        gauge: (dynamics coordinate, direction) orthonormal basis of the gauge in z.
    """

    space: ParameterSpace
    coordinates: Coordinates
    posterior: StructuredPosterior
    gauge: np.ndarray

    @property
    def log_determinant(self) -> float:
        return self.posterior.log_determinant

    def across_gauge(self, vector: np.ndarray) -> np.ndarray:
        return vector - self.gauge @ (self.gauge.T @ vector)

    def times(self, vector: np.ndarray) -> np.ndarray:
        raw = self.coordinates.covector(vector)
        return self.coordinates.whitened(self.posterior.times(raw[:, None])[:, 0])

    def trace(self, name: str) -> float:
        names, _ = self._blocks
        return self._traces[names[name]] if name in names else float(np.trace(self._shared(name)))

    def learned(self, first: str, second: str) -> float:
        names, _ = self._blocks
        groups, overlaps = self._overlaps
        return float(overlaps[groups.index(names[first]), groups.index(names[second])])

    def row_moment(self, name: str) -> np.ndarray:
        names, columns = self._blocks
        if name not in columns:
            return np.einsum("rcrd->cd", self._shared(name).reshape(2 * self.space[name].shape))
        part = columns[name]
        return self._row_covariances[part, part] / self.space[name].standard_deviation ** 2

    def column_moment(self, name: str) -> np.ndarray:
        return np.einsum("rcsc->rs", self._shared(name).reshape(2 * self.space[name].shape))

    @cached_property
    def _blocks(self) -> tuple[dict[str, str], dict[str, slice]]:
        """The engine's names of blocks and columns, by those of the parameter space."""
        columns = self.posterior.layout.columns
        own = {"M": "M", "K": "E", "A": "A", "B": "B", "b": "b"}
        return own | {"initial_kappa": "initial_latents"}, {name: columns[engine] for name, engine in own.items()}

    @cached_property
    def _traces(self) -> dict[str, float]:
        return self.posterior.whitened_traces()

    @cached_property
    def _overlaps(self) -> tuple[list[str], np.ndarray]:
        return self.posterior.learned_overlaps()

    @cached_property
    def _row_covariances(self) -> np.ndarray:
        return self.posterior.row_covariance().sum(axis=0)

    def _shared(self, name: str) -> np.ndarray:
        """Whitened covariance of a block of shared coordinates."""
        start = self.posterior.layout.num_local
        place = self.coordinates.places[self.space.slices[name]] - start
        return self.posterior.shared_covariance()[np.ix_(place, place)] / self.space[name].standard_deviation ** 2
