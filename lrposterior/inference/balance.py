"""From the mode in (M, K) to the mode of W and of the prior scales: the gauge integrated out before the maximum.

The likelihood does not depend on the gauge A of (L A, Q A^-T), but the prior does, and so does what the prior says
about the part of W that the data leave open. At the mode in (M, K) the directions that nobody has seen are all zero,
which makes L and Q look smaller than they are: L^T L = Q^T Q = S there. With 100 neurons of which 20 patterns have been
seen the left factors are then too short by half, and every interval of an unseen direction of W with them.

Write z = A s with s on a slice across the orbits. The action of A (`lrposterior.orbit.move`) has the determinant
det(A)^e, with e = n - m for n rows of L and m rows of Q, so that

    p(A, s | y)  ~  p(y | s) exp(-|A s|² / 2) det(A)^e J(s).

A enters only through the prior. Where the density of A, with s integrated out, is highest, its derivative vanishes:

    E[L^T L] - E[Q^T Q] = e I,

the expectation over s given A. So the factors are balanced in their second moments, with the uncertainty of what was
not seen, and not at the mode. Without any data this is n I - m I, as it should be. Coefficients of a regression of K
move with the gauge too, and have their terms on the right (`lrposterior.orbit.prior_moments`).

Prior scales s_i that are inferred follow from the evidence in the same round. With the posterior covariance Sigma in
whitened coordinates, of which block i has n_i, its derivative and the expected curvature are (restricted maximum
likelihood; Gilmour, Thompson and Cullis 1995, doi:10.2307/2533274)

    d log p(y) / d log s_i = |z_i|² + tr Sigma_ii - n_i,      2 |(I - Sigma)_ij|²  (Frobenius norm).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg

from lrposterior.inference.mode import Mode
from lrposterior.inference.problem import FitError, Problem
from lrposterior.orbit import balancing_gauge, gauge_basis, gauge_exponent, move, prior_moments

MAX_STEPS = 100
# In units of log A and log scale.
BALANCE_TOLERANCE = 1e-4
DECREMENT_TOLERANCE = 1e-6
# After MAX_STEPS, what is still expected may be this much: a way of 0.04 posterior standard deviations to go.
ACCEPTED_DECREMENT = 1e-3
LARGEST_SCALE_STEP = 1.0
# The mode follows the scales, which a step for the scales alone does not know: whole steps go back and forth.
SCALE_STEP_LENGTH = 0.7
STEP_LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.03)
# Name of the block that a scale belongs to.
BLOCK_OF_SCALE = {"gain": "A"}


@dataclasses.dataclass(frozen=True, eq=False)
class Balanced:
    """The mode of W and of the prior scales.

    Attributes:
        problem: the problem at these scales.
        mode: the mode, in the balanced gauge. Its gradient norm and decrement are those across the gauge.
        scale_precision: (scale, scale) precision of the logarithms of the inferred scales, in their order.
    """

    problem: Problem
    mode: Mode
    scale_precision: np.ndarray


def balance(problem: Problem, mode: Mode) -> Balanced:
    """Move a mode along the gauge until its factors balance in expectation, and the scales to the highest evidence.

    Args:
        problem: what is fitted.
        mode: its mode in (M, K).

    Raises:
        FitError: if the balance is not reached.
    """
    z = mode.z
    for _ in range(MAX_STEPS):
        num_dynamics = problem.space.num_dynamics
        information, objective = problem.information(z), problem.negative_log_density(z)
        covariance, gauge = _covariance(problem, z, information)
        gradient = problem.gradient(z)[:num_dynamics]
        slope = gradient - gauge @ (gauge.T @ gradient)
        step = covariance @ slope
        decrement = 0.5 * float(slope @ step)
        scales = _scale_step(problem, z, covariance)
        reached = Balanced(
            problem,
            dataclasses.replace(
                mode,
                z=z,
                objective=objective,
                gradient_norm=float(np.linalg.norm(slope)),
                decrement=decrement,
                information=information,
            ),
            scales.precision,
        )
        following = _step(problem, z, step, objective)
        # One after the other: the same excess of K would else be taken off by its scale and by the gauge.
        problem, z = _rescale(problem, z if following is None else following, scales.change)
        A = _gauge_step(problem, z, covariance)
        z = move(problem.space, z, A, np.linalg.inv(A))
        moved = max(np.linalg.norm(A - np.eye(len(A)), 2), np.max(np.abs(scales.change), initial=0.0))
        if moved < BALANCE_TOLERANCE and (decrement < DECREMENT_TOLERANCE or following is None):
            return reached
    if decrement < ACCEPTED_DECREMENT and moved < np.sqrt(BALANCE_TOLERANCE):
        return reached
    raise FitError(
        f"no convergence: the gauge of the mode is not balanced after {MAX_STEPS} steps, and {decrement:.2g} nats are "
        "still to be gained; lower the rank, or use method='nuts'"
    )


def _covariance(problem: Problem, z: np.ndarray, information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior covariance across the gauge (dynamics, dynamics), and the basis of the gauge that was taken out."""
    precision = information + np.eye(len(information))
    (invert,) = scipy.linalg.get_lapack_funcs(("potri",), (precision,))
    lower, _ = invert(np.linalg.cholesky(precision), lower=1)
    covariance = np.tril(lower) + np.tril(lower, -1).T
    gauge = gauge_basis(problem.space, z)
    return covariance - gauge @ gauge.T, gauge


def _gauge_step(problem: Problem, z: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """(rank, rank) A that balances the factors, given what is unknown of them."""
    space, rank = problem.space, problem.model.rank
    unknown_left, unknown_right = unknown_moments(problem, covariance)
    for name in space.regressions:
        rows = space.slices[name]
        unknown = covariance[rows, rows].reshape(rank, -1, rank, space[name].shape[1])
        unknown_right = unknown_right + np.einsum("rcsc->rs", unknown)
        if name == "K_on_M":
            unknown_right = unknown_right + np.einsum("crcs->rs", unknown)
    surplus = unknown_left - unknown_right - gauge_exponent(space) * np.eye(rank)
    try:
        return balancing_gauge(prior_moments(space, z), surplus)
    except ValueError as failure:
        raise FitError(
            f"rank: expected {rank} parts of W that differ from zero at the mode, got fewer ({failure}): the data do "
            f"not support rank {rank}; lower it, or use method='nuts'"
        ) from failure


@dataclasses.dataclass(frozen=True, eq=False)
class _ScaleStep:
    change: np.ndarray
    precision: np.ndarray


def _scale_step(problem: Problem, z: np.ndarray, covariance: np.ndarray) -> _ScaleStep:
    """Fisher scoring for the logarithms of the scales (scale,), with their priors."""
    names, space = list(problem.scale_priors), problem.space
    rows = [space.slices[BLOCK_OF_SCALE.get(name, name)] for name in names]
    precision, slope = np.zeros((len(names), len(names))), np.zeros(len(names))
    for i, (name, prior) in enumerate(problem.scale_priors.items()):
        block = covariance[rows[i], rows[i]]
        slope[i] = np.sum(z[rows[i]] ** 2) + np.trace(block) - len(block)
        slope[i] -= np.log(problem.model.scale(name) / prior.median) / prior.spread**2
        for j in range(len(names)):
            removed = -covariance[rows[i], rows[j]]
            if i == j:
                removed = removed + np.eye(len(block))
            precision[i, j] = 2.0 * np.sum(removed**2) + (prior.spread**-2 if i == j else 0.0)
    if not names:
        return _ScaleStep(slope, precision)
    change = SCALE_STEP_LENGTH * np.linalg.solve(precision, slope)
    return _ScaleStep(np.clip(change, -LARGEST_SCALE_STEP, LARGEST_SCALE_STEP), precision)


def _rescale(problem: Problem, z: np.ndarray, change: np.ndarray) -> tuple[Problem, np.ndarray]:
    """The problem at other scales, and the same parameters in its coordinates."""
    if not change.size:
        return problem, z
    factors = np.exp(change)
    scales = {name: scale * factor for (name, scale), factor in zip(problem.scales().items(), factors, strict=True)}
    moved = z.copy()
    for name, factor in zip(scales, factors, strict=True):
        moved[problem.space.slices[BLOCK_OF_SCALE.get(name, name)]] /= factor
    return problem.with_scales(scales), moved


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


def unknown_moments(problem: Problem, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums over rows of the covariance (rank, rank) of the whitened rows of M, and of K and initial_kappa."""
    rank = problem.model.rank
    stop, split = problem.space.right_stop, problem.space.slices["M"].stop

    def moment(rows: slice) -> np.ndarray:
        columns = np.arange(rows.start, rows.stop).reshape(-1, rank)
        return covariance[columns[:, :, None], columns[:, None, :]].sum(axis=0)

    return moment(slice(0, split)), moment(slice(split, stop))
