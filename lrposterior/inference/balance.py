"""From the mode in (M, K) to the mode of W: the gauge integrated out before the maximum is taken.

The likelihood does not depend on the gauge A of (L A, Q A^-T), but the prior does, and so does what the prior says
about
the part of W that the data leave open. At the mode in (M, K) the directions that nobody has seen are all zero, which
makes
L and Q look smaller than they are: L^T L = Q^T Q = S there. With 100 neurons of which 20 patterns have been seen the
left
factors are then too short by half, and every interval of an unseen direction of W with them.

Write z = A s with s on a slice across the orbits. The action of A on the whitened factors has determinant
det(A)^(n - m), n rows of L and m rows of Q, so that

    p(A, s | y)  ~  p(y | s) exp(-|A s|² / 2) det(A)^(n - m) J(s).

A enters only through the prior. Where the density of A, with s integrated out, is highest, its derivative vanishes:

    E[L^T L] - E[Q^T Q] = (n - m) I,

the expectation over s given A. So the factors are balanced in their second moments, with the uncertainty of what was
not
seen, and not at the mode. Without any data this is n I - m I, as it should be.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg

from lrposterior.gauge import canonical, vertical_basis
from lrposterior.inference.mode import Mode
from lrposterior.inference.problem import FitError, Problem

MAX_STEPS = 100
GAUGE_TOLERANCE = 1e-6
LARGEST_STRETCH = 0.5
SMALLEST_MOMENT = 1e-6
DECREMENT_TOLERANCE = 1e-6
# After MAX_STEPS, what is still expected may be this much: a way of 0.04 posterior standard deviations to go.
ACCEPTED_DECREMENT = 1e-3
STEP_LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.03)


def balance(problem: Problem, mode: Mode) -> Mode:
    """Move a mode along the gauge until its factors balance in expectation, and back to the optimum given this gauge.

    Args:
        problem: what is fitted.
        mode: its mode in (M, K), in the canonical gauge.

    Returns:
        The mode of W: its z is in the balanced gauge, its gradient norm and decrement are those on the horizontal
        space.

    Raises:
        FitError: if the balance is not reached.
    """
    num_dynamics = problem.space.num_dynamics
    balanced, z, information, decrement = mode, mode.z, mode.information, np.inf
    gradient = problem.gradient(z)[:num_dynamics] - z[:num_dynamics]
    for _ in range(MAX_STEPS):
        z, information, gradient = _balance_gauge(problem, z, information, gradient)
        slope = _horizontal(problem, z, gradient + z[:num_dynamics])
        step = scipy.linalg.solve(information + np.eye(num_dynamics), slope, assume_a="pos")
        decrement = 0.5 * float(slope @ step)
        objective = problem.negative_log_density(z)
        balanced = dataclasses.replace(
            mode,
            z=z,
            objective=objective,
            gradient_norm=float(np.linalg.norm(slope)),
            decrement=decrement,
            information=information,
        )
        moved = _step(problem, z, step, objective)
        if decrement < DECREMENT_TOLERANCE or moved is None:
            return balanced
        z = moved
        information = problem.information(z)
        gradient = problem.gradient(z)[:num_dynamics] - z[:num_dynamics]
    if decrement < ACCEPTED_DECREMENT:
        return balanced
    raise FitError(
        f"no convergence: the gauge of the mode is not balanced after {MAX_STEPS} steps, and {decrement:.2g} nats are "
        "still to be gained; lower the rank, or use method='nuts'"
    )


def in_canonical_gauge(problem: Problem, mode: Mode) -> Mode:
    """The same W, information and objective up to the prior of the gauge, with the factors in the canonical gauge."""
    left, right = problem.space.factors(mode.z)
    canonical_left, canonical_right = canonical(left, right)
    A = np.linalg.lstsq(left, canonical_left, rcond=None)[0]
    z = problem.space.with_factors(mode.z, canonical_left, canonical_right)
    information = _regauge(problem, _regauge(problem, mode.information, A).T, A)
    return dataclasses.replace(mode, z=z, objective=problem.negative_log_density(z), information=information)


def _step(problem: Problem, z: np.ndarray, step: np.ndarray, objective: float) -> np.ndarray | None:
    """The lowest point along a step, in the same gauge and with the best noise; None if none is lower than the start.

    The lowest, not the first: together with the change of gauge, a step that is too long by half goes back and forth.
    """
    lowest = None
    for length in STEP_LENGTHS:
        candidate = np.concatenate([z[: step.size] - length * step, z[step.size :]])
        if np.isfinite(problem.negative_log_density(candidate)):
            candidate = problem.best_noise(candidate)
            reached = problem.negative_log_density(candidate)
            if reached < objective:
                lowest, objective = candidate, reached
    return lowest


def _horizontal(problem: Problem, z: np.ndarray, direction: np.ndarray) -> np.ndarray:
    stop = problem.space.right_stop
    vertical = vertical_basis(*problem.space.factors(z))
    projected = direction.copy()
    projected[:stop] -= vertical @ (vertical.T @ direction[:stop])
    return projected


def _balance_gauge(
    problem: Problem, z: np.ndarray, information: np.ndarray, gradient: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z, the information and the gradient of the likelihood in the gauge that balances the second moments.

    Newton's method for A = exp(S), S symmetric: with G_L = L^T L, G_Q = Q^T Q and the covariances of what is unknown
    held,
    the difference of the moments changes by (G_L + G_Q) S + S (G_L + G_Q).
    """
    space = problem.space
    for _ in range(MAX_STEPS):
        left, right = space.factors(z)
        unknown_left, unknown_right = unknown_moments(problem, z, information)
        moment_left, moment_right = left.T @ left, right.T @ right
        surplus = moment_left + unknown_left - moment_right - unknown_right
        surplus -= (len(left) - len(right)) * np.eye(left.shape[1])
        if np.linalg.eigvalsh(moment_left + moment_right)[0] < SMALLEST_MOMENT:
            raise FitError(
                f"rank: expected {left.shape[1]} parts of W that differ from zero at the mode, got fewer: the data "
                f"do not "
                f"support rank {left.shape[1]}; lower it, or use method='nuts'"
            )
        stretch = scipy.linalg.solve_continuous_lyapunov(moment_left + moment_right, -surplus)
        size = np.linalg.norm(stretch, 2)
        A = scipy.linalg.expm(stretch * min(1.0, LARGEST_STRETCH / size) if size > 0.0 else stretch)
        z = space.with_factors(z, left @ A, right @ np.linalg.inv(A).T)
        information = _regauge(problem, _regauge(problem, information, A).T, A)
        gradient = _regauge(problem, gradient[:, None], A)[:, 0]
        if size < GAUGE_TOLERANCE:
            return z, information, gradient
    raise FitError(
        f"no convergence: the gauge of the mode is not balanced after {MAX_STEPS} steps; lower the rank, or use "
        f"method='nuts'"
    )


def unknown_moments(problem: Problem, z: np.ndarray, information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums over rows of the posterior covariance (rank, rank) of the rows of L and of Q, on the horizontal space."""
    space, rank = problem.space, problem.model.rank
    precision = information + np.eye(len(information))
    (invert,) = scipy.linalg.get_lapack_funcs(("potri",), (precision,))
    covariance, _ = invert(np.linalg.cholesky(precision), lower=1)
    stop, split = space.right_stop, space.slices["M"].stop
    vertical = vertical_basis(*space.factors(z))

    def moment(rows: slice) -> np.ndarray:
        columns = np.arange(rows.start, rows.stop).reshape(-1, rank)
        first, second = columns[:, :, None], columns[:, None, :]
        blocks = covariance[np.maximum(first, second), np.minimum(first, second)]
        on_gauge = vertical[rows].reshape(-1, rank, vertical.shape[1])
        return blocks.sum(axis=0) - np.einsum("nrv,nsv->rs", on_gauge, on_gauge)

    return moment(slice(0, split)), moment(slice(split, stop))


def _regauge(problem: Problem, covectors: np.ndarray, A: np.ndarray) -> np.ndarray:
    """Derivatives (dynamics, column) with respect to the factors (L A, Q A^-T), from those with respect to (L, Q)."""
    rank, num_columns = problem.model.rank, covectors.shape[1]
    stop, split = problem.space.right_stop, problem.space.slices["M"].stop
    moved = covectors.copy()
    for rows, matrix in ((slice(0, split), np.linalg.inv(A)), (slice(split, stop), A.T)):
        moved[rows] = (matrix @ covectors[rows].reshape(-1, rank, num_columns)).reshape(-1, num_columns)
    return moved
