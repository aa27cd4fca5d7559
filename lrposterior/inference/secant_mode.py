"""The mode of a density over factors that have signs: Gauss-Newton, and secant steps between.

The curvature of Gauss-Newton holds what bends (`lrposterior.inference.bending`). It costs as much as many slopes;
between two of them it follows what steps and slopes tell (BFGS, kept positive definite as by Powell 1978,
doi:10.1007/BFb0067703).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

from lrposterior.fit_error import FitError
from lrposterior.inference.bending import bent_curvature
from lrposterior.inference.mode import (
    SMALLEST_DAMPING,
    STANDSTILL_PART,
    Mode,
    Report,
    check_noise,
    solve_curvature,
    where_not_finite,
)
from lrposterior.inference.problem import Problem

# Steps for every curvature of Gauss-Newton, which may cost as much as twenty of them.
MAX_STEPS = 30
# A step that goes down only where it is so much shorter is lost in rounding.
LARGEST_DAMPING = 1e8
# Of what a step keeps of the curvature along it, at least.
LEAST_CURVATURE = 0.2


class _Point(NamedTuple):
    """A point (coordinate,), the objective in nats and its slope (coordinate,) there."""

    z: np.ndarray
    objective: float
    slope: np.ndarray

    @classmethod
    def at(cls, problem: Problem, z: np.ndarray) -> _Point:
        return cls(z, *problem.value_and_gradient(z))

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.objective) and np.all(np.isfinite(self.slope)))

    def expected(self, curvature: np.ndarray) -> float:
        """Nats that the quadratic model expects to gain."""
        return 0.5 * float(self.slope @ solve_curvature(curvature, self.slope))


def find_secant_mode(
    problem: Problem, start: np.ndarray, *, max_iterations: int, tolerance: float = 1e-6, report: Report | None = None
) -> Mode:
    """Descend from a start to the nearest mode, whose information holds what bends as well.

    At a mode the slope of the negative log likelihood is -z, and what bends follows from it. Where the descent ends it
    differs: by next to nothing in posterior standard deviations, and by enough to move log det H by nats where much is
    known.

    Raises:
        FitError: if the objective or its gradient is not finite, a neuron is explained exactly, the curvature is
            singular, or the iteration does not converge.
    """
    num_dynamics = problem.space.num_dynamics
    point, damping, decrement, iteration = _Point.at(problem, problem.best_noise(start)), 1e-3, np.inf, 0
    for iteration in range(max_iterations + 1):
        if not point.is_finite:
            raise FitError(where_not_finite(problem, point.z))
        check_noise(problem, point.z)
        straight = problem.information(point.z)
        information = straight + np.diag(bent_curvature(problem.space, point.z, point.slope))
        of_noise = np.diag(problem.noise_information(point.z) + 1.0)
        curvature = np.asarray(scipy.linalg.block_diag(information + np.eye(num_dynamics), of_noise))
        decrement = point.expected(curvature)
        if report is not None:
            report(iteration, point.objective, decrement)
        norm = float(np.linalg.norm(point.slope))
        at_mode = straight + np.diag(bent_curvature(problem.space, point.z))
        mode = Mode(point.z, point.objective, norm, decrement, at_mode, iteration)
        if decrement < tolerance:
            return mode
        if iteration == max_iterations:
            break
        reached, damping = _descend(problem, point, curvature, damping, 0.1 * tolerance)
        if reached.objective == point.objective:
            # No step leads further down; what is left must be a small part of what the posterior's own draws lie above.
            if decrement < STANDSTILL_PART * 0.5 * num_dynamics:
                return mode
            break
        point = reached
    raise FitError(
        f"no convergence: after {iteration} iterations {decrement:.2g} nats are still expected; lower the rank, "
        "or raise max_iterations"
    )


def _descend(
    problem: Problem, point: _Point, curvature: np.ndarray, damping: float, tolerance: float
) -> tuple[_Point, float]:
    """The point after some steps down, and the next damping; the same point where no step leads down."""
    for _ in range(MAX_STEPS):
        while True:
            step = -solve_curvature(curvature + damping * np.diag(np.diag(curvature)), point.slope)
            reached = _Point.at(problem, point.z + step)
            if reached.is_finite and reached.objective < point.objective:
                break
            damping = max(damping, 1e-6) * 8.0
            if damping > LARGEST_DAMPING:
                return point, 1e-3
        part = (point.objective - reached.objective) / max(-0.5 * float(point.slope @ step), 1e-300)
        damping = max(damping * (0.2 if part > 0.5 else 1.0 if part > 0.1 else 3.0), SMALLEST_DAMPING)
        curvature = _updated(curvature, step, reached.slope - point.slope)
        point = reached
        if not _is_positive_definite(curvature) or point.expected(curvature) < tolerance:
            break
    return point, damping


def _is_positive_definite(matrix: np.ndarray) -> bool:
    """To double precision: rounding may take what updates keep."""
    (factorize,) = scipy.linalg.get_lapack_funcs(("potrf",), (matrix,))
    return factorize(matrix, lower=True)[1] == 0


def _updated(curvature: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The curvature after a step, over which the slope changed; positive definite where it was."""
    known = curvature @ step
    along = float(step @ known)
    seen = float(step @ change)
    kept = 1.0 if seen >= LEAST_CURVATURE * along else (1.0 - LEAST_CURVATURE) * along / (along - seen)
    change = kept * change + (1.0 - kept) * known
    return curvature + np.outer(change, change / float(step @ change)) - np.outer(known, known / along)
