"""One model on one recording of any size: what `Problem` is to few coordinates, by the structured engine.

The engine (`lrposterior.structured`) has a row for every neuron and a prior scale for every coordinate; here its
vectors are turned into the whitened coordinates z of the package and back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import psutil

from lrposterior.checks import argument_error
from lrposterior.distribution import StructuredDistribution
from lrposterior.fit_error import FitError
from lrposterior.inference.covariance import Covariance
from lrposterior.inference.mode import Mode
from lrposterior.inference.problem import ScaledProblem, singular_curvature
from lrposterior.model import LowRankModel
from lrposterior.orbit import gauge_basis, tilt_across, vertical_basis
from lrposterior.parameters import ParameterSpace
from lrposterior.recording import Recording
from lrposterior.structured.coarse import find_refined_start
from lrposterior.structured.coordinates import Coordinates
from lrposterior.structured.gauge import regauge_information, trade_information
from lrposterior.structured.information import StructuredInformation, StructuredPosterior
from lrposterior.structured.mode import (
    Accuracy,
    ConvergenceError,
    Point,
    descend,
    posterior_information,
    quasi_newton,
)
from lrposterior.structured.system import System
from lrposterior.structured.trajectory import Trajectory, run

# Nats for every coordinate that may still be expected at a mode.
DECREMENT_TOLERANCE = 1e-8
# Nats by which the point may move before the information is found again.
REFRESH = 1.0
# Where the chains end on which the balance rests; scales and gauge follow from sums over all coordinates, which they
# give to a thousandth in half the time.
BALANCE_RESIDUAL = 0.05
# Change of a log scale over which the change of the curvature is measured: log determinants are good to some tenths.
FOLLOWED_STEP = 0.1


def require_structured_memory(model: LowRankModel, recording: Recording) -> None:
    """Refuse a fit that would not fit into the memory of this machine.

    Raises:
        ValueError: with the estimate.
    """
    space = model.space_for(recording)
    num_latents = model.rank + (space["A"].shape[1] if "A" in space else 0)
    components = min(Accuracy().max_rank * num_latents, space.num_dynamics)
    # The chain and what becomes of it, twice where scales are inferred, and the vectors in between.
    copies = 6 if model.scale_priors else 4
    needed = 8.0 * (copies * space.num_dynamics * components + recording.activity.size) / 1e9
    available = psutil.virtual_memory().available / 1e9
    if needed > available:
        raise argument_error(
            "recording",
            f"one whose posterior fits into {available:.3g} GB of free memory",
            f"{recording.num_neurons} neurons and {num_latents} latents, about {needed:.3g} GB",
            "fit fewer neurons, with recording.select(neurons=...), or lower the rank or the bulk's dimension",
        )


@dataclass(frozen=True, eq=False)
class StructuredProblem(ScaledProblem):
    """The structured form, for any number of neurons.

    Attributes:
        system: the recording as the engine takes it.
    """

    system: System

    refresh: ClassVar[float] = REFRESH
    followed_step: ClassVar[float] = FOLLOWED_STEP

    @property
    def decrement_tolerance(self) -> float:
        """Nats that may still be expected at a mode."""
        return DECREMENT_TOLERANCE * self.space.size

    @classmethod
    def of(cls, model: LowRankModel, recording: Recording) -> StructuredProblem:
        base = cls.settled(model, recording)
        return cls(base.model, recording, base.space, base.scale_priors, System.of(base.model, recording))

    @cached_property
    def coordinates(self) -> Coordinates:
        return Coordinates.of(self.system.layout, self.space)

    def noise_information(self, z: np.ndarray) -> np.ndarray:
        """(neuron,) expected information about the whitened log noise scales, 2 for every observation."""
        return 2.0 * self.system.num_observed * self.space["log_noise_scale"].standard_deviation ** 2

    def point(self, z: np.ndarray) -> Point:
        return Point.at(self.system, self.coordinates.vector(z), self.coordinates.deviations)

    def whitened(self, point: Point) -> np.ndarray:
        """z (coordinate,) of a point, its noise scales included."""
        return self._with_noise(self.coordinates.whitened(point.trajectory.vector), point.trajectory)

    def best_noise(self, z: np.ndarray) -> np.ndarray:
        """z with every noise scale at its conditional mode given the dynamics."""
        return self._with_noise(z[: self.space.num_dynamics], run(self.system, self.coordinates.vector(z)))

    def _with_noise(self, dynamics: np.ndarray, trajectory: Trajectory) -> np.ndarray:
        block = self.space["log_noise_scale"]
        return np.concatenate([dynamics, (trajectory.log_noise_scale - block.mean) / block.standard_deviation])

    def negative_log_density(self, z: np.ndarray) -> float:
        """-log p(activity, z) in nats, with every noise scale at its conditional mode."""
        return self.point(z).objective

    def gradient(self, z: np.ndarray) -> np.ndarray:
        """(dynamics coordinate,)."""
        return self.coordinates.pulled(self.point(z).slope)

    def information(self, z: np.ndarray) -> StructuredInformation:
        """Gauss-Newton information about the dynamics coordinates, without the prior."""
        return self._information(z, Accuracy(residual=BALANCE_RESIDUAL))

    def refined(self, z: np.ndarray, information: StructuredInformation) -> StructuredInformation:
        """The information at z, where it is roughly this, to the accuracy of the posterior."""
        return self._information(z, Accuracy())

    def roughened(self, information: StructuredInformation) -> StructuredInformation:
        """The information without the components that the balance does not have either."""
        return information.without_components_below(BALANCE_RESIDUAL)

    def information_near(self, z: np.ndarray, information: StructuredInformation) -> StructuredInformation:
        """The information nearby, where it is taken to be the same; of the prior scales it knows nothing."""
        return information

    def _information(self, z: np.ndarray, accuracy: Accuracy) -> StructuredInformation:
        trajectory = run(self.system, self.coordinates.vector(z))
        try:
            return posterior_information(self.system, self.coordinates.deviations, trajectory, accuracy)
        except np.linalg.LinAlgError as failure:
            raise singular_curvature(self.scales(), failure) from failure

    def covariance(self, z: np.ndarray, information: StructuredInformation) -> StructuredCovariance:
        gauge = gauge_basis(self.space, z, self.subspace)
        vertical = self.coordinates.unscaled(gauge)
        try:
            posterior = dataclasses.replace(information, vertical=vertical).posterior(self.coordinates.deviations)
        except np.linalg.LinAlgError as failure:
            raise singular_curvature(self.scales(), failure) from failure
        return StructuredCovariance(self.space, self.coordinates, posterior, gauge)

    def carried(self, information: StructuredInformation, A: np.ndarray, trades: np.ndarray) -> StructuredInformation:
        """The same information after a change of gauge and trades; of the prior scales it knows nothing."""
        rank, seen = self.model.rank, self.system.layout.num_seen
        Z = trades[: seen * rank].reshape(seen, rank).T
        parts, start = [np.zeros((rank, 0))], seen * rank
        for name in self.space.regressions:
            size = self.space[name].size
            part = trades[start : start + size].reshape(self.space[name].shape)
            parts.append(part * self.space[name].standard_deviation)
            start += size
        return trade_information(regauge_information(information, A), -Z, np.concatenate(parts, axis=1))

    def descend(self, z: np.ndarray, covariance: Covariance, slope: np.ndarray) -> tuple[np.ndarray, float]:
        """A point further down across the gauge, and the nats gained, both for the tilted objective.

        The slope along the gauge is not zero in the balance, and the gauge turns with the point: across the gauge of
        the next point some of it remains. The objective is tilted by a quadratic function that takes the slope along
        the gauge away (`lrposterior.orbit.tilt_across`), so that next to nothing does.
        """
        point = self.point(z)
        across = tilt_across(self.space, z, self.coordinates.pulled(point.slope), self.subspace)

        def tilt(vector: np.ndarray) -> np.ndarray:
            return self.coordinates.covector(across(self.coordinates.whitened(vector)))

        def solve(raw_slope: np.ndarray) -> np.ndarray:
            return self.coordinates.unscaled(covariance.times(self.coordinates.pulled(raw_slope)))

        tilted = point.tilted(tilt)
        reached, _ = quasi_newton(
            self.system,
            self.coordinates.deviations,
            tilted,
            solve,
            tolerance=0.1 * self.decrement_tolerance,
            tilt=tilt,
        )
        return self.whitened(reached), tilted.objective - reached.objective

    def distribution(
        self,
        z: np.ndarray,
        information: StructuredInformation,
        ratios: np.ndarray,
        locations: np.ndarray,
        noise: np.ndarray,
    ) -> StructuredDistribution:
        """The Laplace posterior around the mode z, a component for each choice of prior scales.

        Args:
            z: (coordinate,) the mode.
            information: at the mode, taken to be that at all locations.
            ratios: (component, coordinate) prior standard deviations over those of the problem.
            locations: (component, coordinate) the mode at these.
            noise: (neuron,) standard deviations of the whitened log noise scales.
        """
        coordinates, num_dynamics = self.coordinates, self.space.num_dynamics
        information = dataclasses.replace(
            information, vertical=coordinates.unscaled(vertical_basis(self.space, z, self.subspace))
        )
        deviations = np.tile(coordinates.deviations, (len(ratios), 1))
        deviations[:, coordinates.places] *= ratios[:, :num_dynamics]
        center = coordinates.vector(z)
        shifts = np.stack([coordinates.vector(location) - center for location in locations])
        return StructuredDistribution(
            z, information, coordinates.places, coordinates.deviations, deviations, shifts, noise
        )

    def find_mode(
        self,
        start: np.ndarray | None = None,
        *,
        max_iterations: int,
        report: Callable[[int, float, float], None] | None = None,
    ) -> Mode:
        """The mode in (M, K) from a start (coordinate,), or from one that is found in the data.

        Raises:
            FitError: if the descent does not converge.
        """
        deviations = self.coordinates.deviations

        def told(_phase: str, iteration: int, objective: float, decrement: float) -> None:
            if report is not None:
                report(iteration, objective, decrement)

        try:
            first = (
                find_refined_start(self.system, deviations, report=told)
                if start is None
                else self.coordinates.vector(start)
            )
            vector, objective, decrement, num_steps = descend(
                self.system, deviations, first, max_iterations=max_iterations, report=told
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
        _, columns = self._blocks
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
