"""The mode of a density over factors that have signs: Gauss-Newton within bounds.

Coordinates at their bound whose slope points out of it stay there. The others take the damped step to the minimum of
the quadratic model within the bounds, as far as it can be found by setting those to their bound that would cross it
(projected Newton, Bertsekas 1982, doi:10.1137/0320018).
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from lrposterior.fit_error import FitError
from lrposterior.inference.mode import (
    LARGEST_DAMPING,
    SMALLEST_DAMPING,
    STANDSTILL_PART,
    Mode,
    Report,
    check_noise,
    where_not_finite,
)
from lrposterior.inference.problem import Problem


def find_bounded_mode(
    problem: Problem, start: np.ndarray, *, max_iterations: int, tolerance: float = 1e-6, report: Report | None = None
) -> Mode:
    """Descend from a start within the bounds to the nearest mode.

    Raises:
        FitError: if the objective or its gradient is not finite, a neuron is explained exactly, or the iteration does
            not converge.
    """
    num_dynamics, signs = problem.space.num_dynamics, problem.space.signs
    z, damping, decrement, iteration = problem.best_noise(start), 1e-3, np.inf, 0
    objective = problem.negative_log_density(z)
    for iteration in range(max_iterations + 1):
        gradient = problem.gradient(z)
        if not (np.isfinite(objective) and np.all(np.isfinite(gradient))):
            raise FitError(where_not_finite(problem, z))
        check_noise(problem, z)
        information = problem.information(z)
        curvature, slope = information + np.eye(num_dynamics), gradient[:num_dynamics]
        at, sign = z[:num_dynamics], signs[:num_dynamics]
        free = ~((sign != 0.0) & (sign * at <= 0.0) & (sign * slope >= 0.0))
        expected = 0.5 * float(slope[free] @ np.linalg.solve(curvature[np.ix_(free, free)], slope[free]))
        of_noise = gradient[num_dynamics:]
        decrement = expected + 0.5 * float(np.sum(of_noise**2 / (problem.noise_information(z) + 1.0)))
        if report is not None:
            report(iteration, objective, decrement)
        mode = Mode(z, objective, float(np.linalg.norm(slope[free])), decrement, information, iteration)
        if decrement < tolerance:
            return mode
        if iteration == max_iterations:
            break
        while damping < LARGEST_DAMPING:
            step = _bounded_step(curvature + damping * np.diag(np.diag(curvature)), slope, at, sign, free)
            candidate = problem.best_noise(np.concatenate([at + step, z[num_dynamics:]]))
            reached = problem.negative_log_density(candidate)
            if reached < objective:
                gained = (objective - reached) / max(-0.5 * float(slope @ step), 1e-300)
                damping = max(damping * (0.2 if gained > 0.5 else 1.0 if gained > 0.1 else 3.0), SMALLEST_DAMPING)
                z, objective = candidate, reached
                break
            damping = max(damping, 1e-6) * 8.0
        else:
            # No step leads further down; what is left must be a small part of what the posterior's own draws lie above.
            if decrement < STANDSTILL_PART * 0.5 * num_dynamics:
                return mode
            break
    raise FitError(
        f"no convergence: after {iteration} iterations {decrement:.2g} nats are still expected; lower the rank, "
        "or raise max_iterations"
    )


def _bounded_step(
    curvature: np.ndarray, slope: np.ndarray, at: np.ndarray, sign: np.ndarray, free: np.ndarray
) -> np.ndarray:
    """(dynamics coordinate,) the step of those that are free; what would cross its bound goes there, and no further."""
    step, free = np.zeros_like(at), free.copy()
    while True:
        held = ~free
        right = slope[free] + curvature[np.ix_(free, held)] @ step[held]
        step[free] = -scipy.linalg.solve(curvature[np.ix_(free, free)], right, assume_a="pos")
        crossing = free & (sign * (at + step) < 0.0)
        if not crossing.any():
            return step
        step[crossing] = -at[crossing]
        free &= ~crossing
