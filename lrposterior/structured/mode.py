"""The mode by damped Gauss-Newton, each step solved with the low-rank form of the precision as preconditioner.

First the mode in all coordinates, then the mode of W: at the gauge at which the second moments of the factors balance in
expectation (`lrposterior.structured.gauge`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lrposterior.structured.courses import network_courses
from lrposterior.structured.gauge import balancing_step, regauge, regauge_information, settle, settle_trades
from lrposterior.structured.information import StructuredInformation, StructuredPosterior
from lrposterior.structured.krylov import ReducedPrecision, reduce_precision
from lrposterior.structured.products import Linearisation
from lrposterior.structured.system import System
from lrposterior.structured.trajectory import Trajectory, gradient, objective, run

SMALLEST_DAMPING, LARGEST_DAMPING = 1e-9, 1e12
STEP_LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.03)
# Nats by which the point may move before the information is found again.
REFRESH = 0.3

Report = Callable[[str, int, float, float], None]


@dataclass(frozen=True)
class Accuracy:
    """How closely the information is followed.

    Attributes:
        course_tolerance: of the time courses in the posterior; in a step of the mode, where the gradient is exact and
            only the curvature is not, `step_course_tolerance`.
        max_rank: columns of the low-rank part per latent in the posterior, `step_rank` in a step of the mode.
        residual: where the chain of the posterior ends, in units of the prior precision.
    """

    course_tolerance: float = 1e-5
    step_course_tolerance: float = 1e-4
    max_rank: int = 110
    step_rank: int = 60
    residual: float = 0.02


class ConvergenceError(RuntimeError):
    """No mode was found; the text holds cause and remedy."""


@dataclass(frozen=True, eq=False)
class StructuredMode:
    """A mode and what is known around it.

    Attributes:
        trajectory: the network at the mode.
        information: its information.
        objective: -log p(activity, z) in nats.
        gradient_norm: of the objective's gradient in whitened coordinates, in the balanced gauge on the horizontal space.
        decrement: nats that the quadratic model still expects to gain.
        num_iterations: Gauss-Newton steps.
    """

    trajectory: Trajectory
    information: StructuredInformation
    objective: float
    gradient_norm: float
    decrement: float
    num_iterations: int

    @property
    def vector(self) -> np.ndarray:
        return self.trajectory.vector


@dataclass(frozen=True, eq=False)
class _Point:
    """A point with its objective and the slope of the objective."""

    trajectory: Trajectory
    objective: float
    slope: np.ndarray

    @classmethod
    def at(cls, system: System, vector: np.ndarray, deviations: np.ndarray) -> _Point:
        trajectory = run(system, vector)
        slope = gradient(system, trajectory) + vector / deviations**2
        return cls(trajectory, objective(system, trajectory, deviations), slope)

    def linearise(self, system: System, tolerance: float) -> Linearisation:
        courses = network_courses(system, self.trajectory, tolerance=tolerance)
        return Linearisation.of(system, self.trajectory, courses)


def descend(
    system: System,
    deviations: np.ndarray,
    start: np.ndarray,
    *,
    accuracy: Accuracy | None = None,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
    report: Report | None = None,
) -> tuple[np.ndarray, float, float, int]:
    """From a start to the nearest mode in all coordinates, in the gauge with the highest prior density.

    Args:
        system: the recording.
        deviations: (coordinate,) prior standard deviations.
        start: (coordinate,) with a finite objective.
        accuracy: of the steps.
        max_iterations: steps at most.
        tolerance: largest decrement in nats that counts as converged.
        report: called with (phase, iteration, objective, decrement).

    Returns:
        The mode (coordinate,), its objective, decrement and the number of steps.

    Raises:
        ConvergenceError: if it does not converge, or the objective is not finite.
    """
    accuracy = accuracy or Accuracy()
    layout = system.layout
    point = _Point.at(system, settle(layout, start, deviations, system.seen_right), deviations)
    damping, decrement = 1e-3, np.inf
    for iteration in range(max_iterations + 1):
        if not (np.isfinite(point.objective) and np.all(np.isfinite(point.slope))):
            raise ConvergenceError("non-finite gradient: the network diverges; rescale the inputs or mask the bins")
        reduced = reduce_precision(
            point.linearise(system, accuracy.step_course_tolerance),
            deviations,
            max_rank=accuracy.step_rank * layout.num_latents,
            tolerance=accuracy.residual,
        )
        step = _solve(reduced, point.slope, 0.0)
        decrement = 0.5 * float(point.slope @ step)
        if report is not None:
            report("mode", iteration, point.objective, decrement)
        if decrement < tolerance:
            return point.trajectory.vector, point.objective, decrement, iteration
        if iteration == max_iterations:
            break
        moved, damping = _damped_step(system, deviations, point, reduced, damping)
        if moved is None:
            break
        point = moved
    raise ConvergenceError(
        f"no convergence: after {iteration} iterations the objective is {point.objective:.6g} nats and the quadratic "
        f"model expects {decrement:.2g} more; check nonlinearity and observation, or lower the rank"
    )


def _damped_step(
    system: System, deviations: np.ndarray, point: _Point, reduced: ReducedPrecision, damping: float
) -> tuple[_Point | None, float]:
    """The point after a step that goes down, or None, and the next damping."""
    layout = system.layout
    while damping < LARGEST_DAMPING:
        step = _solve(reduced, point.slope, damping)
        candidate = settle(layout, point.trajectory.vector - step, deviations, system.seen_right)
        reached = objective(system, run(system, candidate), deviations)
        if reached < point.objective:
            gained = (point.objective - reached) / max(0.5 * float(point.slope @ step), 1e-300)
            factor = 0.1 if gained > 0.5 else 1.0 if gained > 0.1 else 3.0
            return _Point.at(system, candidate, deviations), max(damping * factor, SMALLEST_DAMPING)
        damping = max(damping, 1e-6) * 8.0
    return None, damping


def _solve(reduced: ReducedPrecision, slope: np.ndarray, damping: float, *, tolerance: float = 1e-2) -> np.ndarray:
    """(R (I + Xi) R^T + damping R R^T)^-1 slope by conjugate gradients, preconditioned by the low-rank form of Xi."""
    values, basis = reduced.values, reduced.basis
    shift = 1.0 + damping
    gains = values / (shift * (shift + values))

    def precondition(column: np.ndarray) -> np.ndarray:
        return column / shift - basis @ (gains[:, None] * (basis.T @ column))

    residual = reduced.local.solve(slope[:, None])
    solution = np.zeros_like(residual)
    preconditioned = precondition(residual)
    direction = preconditioned
    power = first = float(np.sum(residual * preconditioned))
    for _ in range(12):
        if power <= tolerance**2 * first:
            break
        product = shift * direction + reduced.apply(direction)
        length = power / float(np.sum(direction * product))
        solution = solution + length * direction
        residual = residual - length * product
        preconditioned = precondition(residual)
        power, previous = float(np.sum(residual * preconditioned)), power
        direction = preconditioned + (power / previous) * direction
    return reduced.local.solve_transposed(solution)[:, 0]


def balance(
    system: System,
    deviations: np.ndarray,
    vector: np.ndarray,
    *,
    accuracy: Accuracy | None = None,
    max_iterations: int = 30,
    tolerance: float = 1e-3,
    stretch_tolerance: float = 1e-3,
    report: Report | None = None,
) -> tuple[StructuredMode, StructuredPosterior]:
    """From the mode in all coordinates to the mode of W, and the posterior there.

    Steps along the gauge alternate with steps on the horizontal space. The information is found again only
    after the point has moved.

    Raises:
        ConvergenceError: if the balance is not reached.
    """
    accuracy = accuracy or Accuracy()
    layout, seen_right = system.layout, system.seen_right
    information, moved_by = None, np.inf
    for iteration in range(max_iterations):
        if information is None or moved_by > REFRESH:
            point = _Point.at(system, vector, deviations)
            information = posterior_information(system, deviations, point.trajectory, accuracy)
            moved_by = 0.0
        posterior = information.posterior(deviations)
        stretch = np.inf
        for _ in range(5):
            A = balancing_step(layout, vector, deviations, posterior)
            stretch = float(np.linalg.norm(A - np.eye(len(A)), 2))
            vector = regauge(layout, vector, A)
            information = regauge_information(information, A)
            posterior = information.posterior(deviations)
            if stretch < stretch_tolerance:
                break
        point = _Point.at(system, vector, deviations)
        step = posterior.times(point.slope[:, None])[:, 0]
        decrement = 0.5 * float(point.slope @ step)
        if report is not None:
            report("balance", iteration, point.objective, decrement)
        if decrement < tolerance and stretch < stretch_tolerance:
            horizontal = _horizontal_norm(posterior, point.slope)
            return StructuredMode(
                point.trajectory, information, point.objective, horizontal, decrement, iteration
            ), posterior
        moved = _shortened_step(system, deviations, point, step)
        if moved is not None:
            vector = settle_trades(layout, moved, deviations, seen_right)
            moved_by += decrement
    raise ConvergenceError(
        f"no convergence: the gauge of the mode is not balanced after {max_iterations} steps, {decrement:.2g} nats are "
        "still to be gained; lower the rank"
    )


def posterior_information(
    system: System, deviations: np.ndarray, trajectory: Trajectory, accuracy: Accuracy
) -> StructuredInformation:
    """The information at a point to the accuracy of the posterior; finer time courses where it is not definite."""
    tolerance = accuracy.course_tolerance
    while True:
        courses = network_courses(system, trajectory, tolerance=tolerance)
        try:
            return reduce_precision(
                Linearisation.of(system, trajectory, courses),
                deviations,
                max_rank=accuracy.max_rank * system.layout.num_latents,
                tolerance=accuracy.residual,
            ).information()
        except np.linalg.LinAlgError:
            if tolerance == 0.0:
                raise
            tolerance = 0.0 if tolerance < 1e-7 else 0.03 * tolerance


def _shortened_step(system: System, deviations: np.ndarray, point: _Point, step: np.ndarray) -> np.ndarray | None:
    for length in STEP_LENGTHS:
        candidate = point.trajectory.vector - length * step
        if objective(system, run(system, candidate), deviations) < point.objective:
            return candidate
    return None


def _horizontal_norm(posterior: StructuredPosterior, slope: np.ndarray) -> float:
    whitened = slope * posterior.deviations
    vertical = posterior.factor[:, posterior.values.size :] / posterior.deviations[:, None]
    return float(np.linalg.norm(whitened - vertical @ (vertical.T @ whitened)))
