"""The posterior mode by damped Gauss-Newton, with every noise scale at its conditional mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from lrposterior.fit_error import FitError
from lrposterior.inference.problem import EXPECTED_PART, MAX_QUASI_NEWTON, SMALLEST_NOISE, Problem
from lrposterior.quasi_newton import descend

# Called with (iteration, objective, nats still expected) at every step.
Report = Callable[[int, float, float], None]

SMALLEST_DAMPING, LARGEST_DAMPING = 1e-9, 1e12
# The slope of relu jumps where a current crosses zero, so a descent may stand still on a kink, where the gradient is
# of no
# use. The mean gradient over points nearby, within this part of the posterior's standard deviation, leads on; where it
# does not, the kink is the lowest point. There the gradient does not vanish, but the quadratic model must not expect to
# gain more than a small part of P / 2, the nats by which draws of a posterior with P coordinates lie above its mode.
STANDSTILL_GAIN, STANDSTILL_PART = 1e-5, 0.02
NEARBY, NUM_NEARBY = 0.02, 16
# What is expected falls fast where it is no more than this part of what it was a step before. Near the mode is within
# P / 2 nats of it.
FAST = 0.25


@dataclass(frozen=True, eq=False)
class Mode:
    """A converged mode.

    Attributes:
        z: (coordinate,) whitened parameters in the canonical gauge.
        objective: -log p(activity, z) in nats.
        gradient_norm: norm of its gradient in whitened coordinates.
        decrement: g^T (F + I)^-1 g / 2, the nats that the quadratic model still expects to gain, noise scales included.
        information: Gauss-Newton information F at z: (dynamics, dynamics), or in the structured form.
        num_iterations: Gauss-Newton steps taken.
    """

    z: np.ndarray
    objective: float
    gradient_norm: float
    decrement: float
    information: Any
    num_iterations: int


def find_mode(
    problem: Problem,
    start: np.ndarray,
    *,
    max_iterations: int = 300,
    tolerance: float = 1e-6,
    report: Report | None = None,
) -> Mode:
    """Descend from a start to the nearest mode.

    Args:
        problem: what to fit.
        start: (coordinate,) whitened start with a finite objective.
        max_iterations: how many Gauss-Newton steps to try.
        tolerance: largest decrement, in nats, that counts as converged.
        report: called with (iteration, objective, decrement) after every step.

    Raises:
        FitError: if the objective or its gradient is not finite, or the iteration does not converge.
    """
    if not np.isfinite(problem.negative_log_density(start)):
        raise FitError(where_not_finite(problem, start))
    z = problem.prior_gauge(problem.best_noise(start))
    objective = problem.negative_log_density(z)
    damping, decrement, before, iteration = 1e-3, np.inf, np.inf, 0
    num_dynamics = problem.space.num_dynamics
    for iteration in range(max_iterations + 1):
        gradient = problem.gradient(z)
        if not (np.isfinite(objective) and np.all(np.isfinite(gradient))):
            raise FitError(where_not_finite(problem, z))
        check_noise(problem, z)
        information = problem.information(z)
        curvature = information + np.eye(num_dynamics)
        slope, of_noise = gradient[:num_dynamics], gradient[num_dynamics:]
        expected = 0.5 * float(slope @ solve_curvature(curvature, slope))
        decrement = expected + 0.5 * float(np.sum(of_noise**2 / (problem.noise_information(z) + 1.0)))
        if report is not None:
            report(iteration, objective, decrement)
        mode = Mode(z, objective, float(np.linalg.norm(gradient)), decrement, information, iteration)
        if decrement < tolerance:
            return mode
        if iteration == max_iterations:
            break
        least_gain = min(STANDSTILL_GAIN, 0.1 * decrement)
        z, reached, damping = _step(problem, z, curvature, slope, objective, expected, before, damping, tolerance)
        before = expected
        if objective - reached < least_gain:
            z, reached = _leave_kink(problem, z, curvature, reached)
            damping = 1e-3
        if objective - reached < least_gain:
            if decrement < STANDSTILL_PART * 0.5 * num_dynamics:
                return mode
            break
        objective = reached
    raise FitError(
        f"no convergence: after {iteration} iterations the objective is {objective:.6g} nats and the quadratic model "
        f"expects {decrement:.2g} more; check the fit's nonlinearity and observation against the data, lower the rank, "
        "or raise max_iterations"
    )


def first_steps(problem: Problem, start: np.ndarray, num_steps: int, tolerance: float, report: Report) -> np.ndarray:
    """Where the first steps of `find_mode` lead from a start (coordinate,), until little is expected of the next.

    Raises:
        FitError: if the objective is not finite at the start, or the curvature is singular.
    """
    if not np.isfinite(problem.negative_log_density(start)):
        raise FitError(where_not_finite(problem, start))
    z, damping, before = problem.prior_gauge(problem.best_noise(start)), 1e-3, np.inf
    objective = problem.negative_log_density(z)
    for iteration in range(num_steps):
        curvature = problem.information(z) + np.eye(problem.space.num_dynamics)
        slope = problem.gradient(z)[: len(curvature)]
        expected = 0.5 * float(slope @ solve_curvature(curvature, slope))
        report(iteration, objective, expected)
        if expected < tolerance:
            break
        z, objective, damping = _step(problem, z, curvature, slope, objective, expected, before, damping, tolerance)
        before = expected
    return z


def _step(
    problem: Problem,
    z: np.ndarray,
    curvature: np.ndarray,
    slope: np.ndarray,
    objective: float,
    expected: float,
    before: float,
    damping: float,
    tolerance: float,
) -> tuple[np.ndarray, float, float]:
    """The point after one step of Gauss-Newton, and of quasi-Newton where it is poor; objective, next damping.

    With process noise the curvature of Gauss-Newton is an expectation, and may be far off. It is poor where a step
    gains less than it promised, as it was damped; and where the mode is near, but what is expected does not fall fast.
    Far from the mode some more damped steps lead there sooner than quasi-Newton, which is at a loss that far off.
    """
    is_near = expected < 0.5 * len(slope)
    z, reached, damping, part = _descend(problem, z, curvature, slope, objective, damping)
    is_poor = part < EXPECTED_PART or (is_near and expected > FAST * before)
    if problem.model.process_noise is not None and is_poor:
        z, reached = _quasi_newton(problem, z, curvature, 0.1 * tolerance)
    return z, reached, damping


def _descend(
    problem: Problem, z: np.ndarray, curvature: np.ndarray, slope: np.ndarray, objective: float, damping: float
) -> tuple[np.ndarray, float, float, float]:
    """The point after one damped Gauss-Newton step, its objective, the next damping and the gain over the expected.

    Damping grows until the step goes down; where none does, the point stays.
    """
    while damping < LARGEST_DAMPING:
        step = solve_curvature(curvature + damping * np.diag(np.diag(curvature)), slope)
        candidate, reached = _after(problem, z, step)
        if reached < objective:
            gained = (objective - reached) / max(0.5 * float(slope @ step), 1e-300)
            factor = 0.2 if gained > 0.5 else 1.0 if gained > 0.1 else 3.0
            return candidate, reached, max(damping * factor, SMALLEST_DAMPING), gained
        damping = max(damping, 1e-6) * 8.0
    return z, objective, damping, 0.0


def _quasi_newton(problem: Problem, z: np.ndarray, curvature: np.ndarray, tolerance: float) -> tuple[np.ndarray, float]:
    """The point after steps of limited-memory BFGS from the curvature of Gauss-Newton, and its objective.

    With process noise that curvature is an expectation, far off along some directions where the model does not fit.
    """
    num_dynamics, factor = len(curvature), scipy.linalg.cho_factor(curvature, lower=True, check_finite=False)
    of_noise = problem.noise_information(z) + 1.0

    def solve(slope: np.ndarray) -> np.ndarray:
        of_dynamics = scipy.linalg.cho_solve(factor, slope[:num_dynamics], check_finite=False)
        return np.concatenate([of_dynamics, slope[num_dynamics:] / of_noise])

    point, _ = descend(problem.value_and_gradient, solve, z, tolerance=tolerance, max_steps=MAX_QUASI_NEWTON)
    settled = problem.prior_gauge(point)
    return settled, problem.negative_log_density(settled)


def _leave_kink(problem: Problem, z: np.ndarray, curvature: np.ndarray, objective: float) -> tuple[np.ndarray, float]:
    """The lowest point along the mean gradient over points nearby, and its objective; the start if none is lower."""
    root = np.linalg.cholesky(curvature)
    noise = np.random.default_rng(0).standard_normal((len(curvature), NUM_NEARBY))
    shifts = np.zeros((NUM_NEARBY, z.size))
    shifts[:, : len(curvature)] = NEARBY * scipy.linalg.solve_triangular(root, noise, lower=True, trans=1).T
    slope = np.mean([problem.gradient(z + sign * shift) for shift in shifts for sign in (1.0, -1.0)], axis=0)
    step = solve_curvature(curvature, slope[: len(curvature)])
    best = z, objective
    for length in (1.0, 0.3, 0.1, 0.03):
        candidate, reached = _after(problem, z, length * step)
        if reached < best[1]:
            best = candidate, reached
    return best


def _after(problem: Problem, z: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, float]:
    """The point after a step down, with the best noise and in the canonical gauge, and its objective."""
    candidate = np.concatenate([z[: step.size] - step, z[step.size :]])
    if not np.isfinite(problem.negative_log_density(candidate)):
        return z, np.inf
    candidate = problem.prior_gauge(problem.best_noise(candidate))
    return candidate, problem.negative_log_density(candidate)


def solve_curvature(matrix: np.ndarray, right_side: np.ndarray) -> np.ndarray:
    """The solution x of matrix @ x = right_side.

    Raises:
        FitError: if the matrix is not positive definite.
    """
    try:
        factor = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
    except np.linalg.LinAlgError as failure:
        raise FitError(
            f"singular curvature: the information matrix is not positive definite to double precision ({failure}); "
            "bring inputs and stimulation to the scale of the currents, or drop neurons that are explained exactly"
        ) from failure
    return scipy.linalg.cho_solve(factor, right_side, check_finite=False)


def where_not_finite(problem: Problem, z: np.ndarray) -> str:
    """What to say where the density, or its gradient, is not finite."""
    bad = np.argwhere(~np.all(np.isfinite(problem.currents(z)), axis=2))
    place = f"first in trial {bad[0][0]}, bin {bad[0][1]}" if len(bad) else "although all currents are"
    return (
        f"non-finite gradient: the log density or its gradient is not finite, {place}; the network diverges or a value "
        "is far out of scale: look at that bin, mask it, rescale the inputs, or use a bounded nonlinearity"
    )


def check_noise(problem: Problem, z: np.ndarray) -> None:
    """Refuse a point that explains a neuron exactly.

    Raises:
        FitError: with the neuron and the mend.
    """
    if "log_noise_scale" not in problem.space:
        return
    noise_scale = np.exp(np.asarray(problem.space.unwhiten(z)["log_noise_scale"]))
    unit = problem.model.priors.unit or 1.0
    singular = np.flatnonzero(noise_scale < 2.0 * SMALLEST_NOISE * unit)
    if singular.size:
        raise FitError(
            f"singular noise: the model explains neuron {singular[0]} exactly (noise scale "
            f"{noise_scale[singular[0]]:.1e}"
            f"{f', and {singular.size - 1} more' if singular.size > 1 else ''}), which leaves the likelihood "
            f"unbounded; "
            "drop constant or noise-free neurons with recording.select(neurons=...), or add the measurement noise"
        )
