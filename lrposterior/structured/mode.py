"""The mode by damped Gauss-Newton, each step solved with the low-rank form of the precision as preconditioner."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lrposterior.quasi_newton import quasi_newton_step
from lrposterior.structured.courses import network_courses
from lrposterior.structured.gauge import settle
from lrposterior.structured.information import StructuredInformation
from lrposterior.structured.krylov import ReducedPrecision, reduce_precision
from lrposterior.structured.products import Linearisation
from lrposterior.structured.system import System
from lrposterior.structured.trajectory import Trajectory, gradient, objective, run

SMALLEST_DAMPING, LARGEST_DAMPING = 1e-9, 1e9
STEP_LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.03)
# On a kink of relu a descent stands still where the gradient is of no use. It counts as the mode if the quadratic model
# expects no more than this part of P / 2, the nats by which draws of P coordinates lie above their mode.
STANDSTILL_GAIN, STANDSTILL_PART = 1e-5, 0.02
# Steps with one curvature, and how many of them are remembered.
MAX_QUASI_NEWTON, MEMORY = 40, 30
# Conjugate gradients of one step: iterations at most, and the part of the residual that may be left.
MAX_CONJUGATE, CONJUGATE_TOLERANCE = 60, 0.03
SMALLEST_CURVATURE = 1e-2

Report = Callable[[str, int, float, float], None]


@dataclass(frozen=True)
class Accuracy:
    """How closely the information is followed.

    Attributes:
        course_tolerance: of the time courses in the posterior; in a step of the mode, where the gradient is exact and
            only the curvature is not, `step_course_tolerance`.
        max_rank: columns of the low-rank part per latent in the posterior, `step_rank` in a step of the mode.
        residual: where the chain of the posterior ends, in units of the precision within neurons; in a step of the mode
            `step_residual`.
    """

    course_tolerance: float = 1e-4
    step_course_tolerance: float = 3e-4
    max_rank: int = 120
    step_rank: int = 60
    residual: float = 0.002
    step_residual: float = 0.1


# A symmetric map T of vectors v (coordinate,): a tilted objective is less by v . T v / 2, and its slope by T v.
Tilt = Callable[[np.ndarray], np.ndarray]


class ConvergenceError(RuntimeError):
    """No mode was found; the text holds cause and remedy."""


@dataclass(frozen=True, eq=False)
class Point:
    """A point with its objective and the slope of the objective."""

    trajectory: Trajectory
    objective: float
    slope: np.ndarray

    @classmethod
    def at(cls, system: System, vector: np.ndarray, deviations: np.ndarray) -> Point:
        trajectory = run(system, vector)
        slope = gradient(system, trajectory) + vector / deviations**2
        return cls(trajectory, objective(system, trajectory, deviations), slope)

    def tilted(self, tilt: Tilt) -> Point:
        """The same point of the objective less half of vector . tilt(vector)."""
        vector = self.trajectory.vector
        taken = tilt(vector)
        return Point(self.trajectory, self.objective - 0.5 * float(vector @ taken), self.slope - taken)

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
    point = Point.at(system, settle(layout, start, deviations, system.seen_right), deviations)
    damping, decrement, num_steps = 1e-3, np.inf, 0
    for iteration in range(max_iterations + 1):
        if not (np.isfinite(point.objective) and np.all(np.isfinite(point.slope))):
            raise ConvergenceError("non-finite gradient: the network diverges; rescale the inputs or mask the bins")
        reduced = reduce_precision(
            point.linearise(system, accuracy.step_course_tolerance),
            deviations,
            max_rank=accuracy.step_rank * layout.num_latents,
            tolerance=accuracy.step_residual,
        )
        decrement = 0.5 * float(point.slope @ _solve(reduced, point.slope, 0.0))
        if report is not None:
            report("mode", iteration, point.objective, decrement)
        if decrement < tolerance:
            return point.trajectory.vector, point.objective, decrement, num_steps
        if iteration == max_iterations:
            break
        moved, damping = _damped_step(system, deviations, point, reduced, damping)
        if moved is None or point.objective - moved.objective < min(STANDSTILL_GAIN, 0.1 * decrement):
            if decrement < 0.5 * STANDSTILL_PART * start.size:
                return point.trajectory.vector, point.objective, decrement, num_steps
            break
        point, more = quasi_newton(
            system, deviations, moved, functools.partial(_solve_roughly, reduced), tolerance=0.1 * tolerance
        )
        point = Point.at(system, settle(layout, point.trajectory.vector, deviations, system.seen_right), deviations)
        num_steps += 1 + more
    raise ConvergenceError(
        f"no convergence: after {num_steps} steps the objective is {point.objective:.6g} nats and the quadratic "
        f"model expects {decrement:.2g} more; check nonlinearity and observation, or lower the rank"
    )


def quasi_newton(
    system: System,
    deviations: np.ndarray,
    point: Point,
    solve: Callable[[np.ndarray], np.ndarray],
    *,
    tolerance: float,
    tilt: Tilt = np.zeros_like,
) -> tuple[Point, int]:
    """Descend by limited-memory BFGS that starts from a fixed Gauss-Newton curvature; gives the point and its steps.

    Where the prior dominates, the curvature differs from that of Gauss-Newton by a factor: the true one follows from
    the changes of the slope. A step costs two passes over the recording, and no new curvature.

    Args:
        system, deviations: see `descend`.
        point: where to start.
        solve: the inverse Gauss-Newton curvature times a slope. It may project on a subspace, which is then kept to.
        tolerance: ends where the decrement is below.
        tilt: of the objective, also at the point to start from.
    """
    steps: list[np.ndarray] = []
    changes: list[np.ndarray] = []
    for count in range(MAX_QUASI_NEWTON):
        direction = quasi_newton_step(solve, point.slope, steps, changes)
        if 0.5 * float(point.slope @ direction) < tolerance:
            return point, count
        following = _shortened_step(system, deviations, point, direction, tilt)
        if following is None:
            return point, count
        step, change = following.trajectory.vector - point.trajectory.vector, following.slope - point.slope
        if float(step @ change) > 0.0:
            steps, changes = [*steps, step][-MEMORY:], [*changes, change][-MEMORY:]
        point = following
    return point, MAX_QUASI_NEWTON


def _damped_step(
    system: System, deviations: np.ndarray, point: Point, reduced: ReducedPrecision, damping: float
) -> tuple[Point | None, float]:
    """The point after a step that goes down, or None, and the next damping."""
    layout = system.layout
    while damping < LARGEST_DAMPING:
        step = _solve(reduced, point.slope, damping)
        candidate = settle(layout, point.trajectory.vector - step, deviations, system.seen_right)
        reached = objective(system, run(system, candidate), deviations)
        if reached < point.objective:
            gained = (point.objective - reached) / max(0.5 * float(point.slope @ step), 1e-300)
            factor = 0.1 if gained > 0.5 else 1.0 if gained > 0.1 else 3.0
            return Point.at(system, candidate, deviations), max(damping * factor, SMALLEST_DAMPING)
        damping = max(damping, 1e-6) * 8.0
    return None, damping


def _solve(reduced: ReducedPrecision, slope: np.ndarray, damping: float) -> np.ndarray:
    """R^-T (I + Xi + damping W)^-1 R^-1 slope by conjugate gradients, preconditioned by the low-rank form of Xi.

    W is the diagonal of I + Xi: coordinates are damped in proportion to what is known of each.
    """
    values, basis = reduced.values, reduced.basis
    known = np.maximum(1.0 + np.square(basis) @ values, SMALLEST_CURVATURE)[:, None]
    diagonal = 1.0 + damping * known
    gram = basis.T @ (basis / diagonal)
    core = np.linalg.solve(np.eye(values.size) + values[:, None] * gram, np.diag(values))

    def precondition(column: np.ndarray) -> np.ndarray:
        scaled = column / diagonal
        return scaled - (basis @ (core @ (basis.T @ scaled))) / diagonal

    residual = reduced.local.solve(slope[:, None])
    solution = np.zeros_like(residual)
    preconditioned = precondition(residual)
    direction = preconditioned
    power = first = float(np.sum(residual * preconditioned))
    for _ in range(MAX_CONJUGATE):
        if power <= CONJUGATE_TOLERANCE**2 * first:
            break
        product = diagonal * direction + reduced.apply(direction)
        length = power / float(np.sum(direction * product))
        solution = solution + length * direction
        residual = residual - length * product
        preconditioned = precondition(residual)
        power, previous = float(np.sum(residual * preconditioned)), power
        direction = preconditioned + (power / previous) * direction
    return reduced.local.solve_transposed(solution)[:, 0]


def _solve_roughly(reduced: ReducedPrecision, slope: np.ndarray) -> np.ndarray:
    """(R (I + Xi) R^T)^-1 slope with the low-rank form of Xi."""
    column = reduced.local.solve(slope[:, None])
    gains = reduced.values / (1.0 + reduced.values)
    column -= reduced.basis @ (gains[:, None] * (reduced.basis.T @ column))
    return reduced.local.solve_transposed(column)[:, 0]


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


def _shortened_step(system: System, deviations: np.ndarray, point: Point, step: np.ndarray, tilt: Tilt) -> Point | None:
    for length in STEP_LENGTHS:
        candidate = point.trajectory.vector - length * step
        trajectory, taken = run(system, candidate), tilt(candidate)
        reached = objective(system, trajectory, deviations) - 0.5 * float(candidate @ taken)
        if reached < point.objective:
            return Point(trajectory, reached, gradient(system, trajectory) + candidate / deviations**2 - taken)
    return None
