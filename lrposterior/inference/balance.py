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

    d log p(y) / d log s_i = |z_i|² + tr (Sigma + P)_ii - n_i - 1/2 d log det(F + I) / d log s_i,
    2 |(I - Sigma)_ij|²  (Frobenius norm).

P projects on the stretches of M against K. They vary as well, with the prior's curvature and that of the orbit, and
what they add to |z_i|² in expectation, first and second order together, is this trace. The last term of the derivative
is the change of the curvature as the mode follows the scale, dz / d log s_i = 2 Sigma z_i, and the noise scales follow
the mode: the data say less where the recurrence is strong and rates saturate, so that without it residual scales come
out too small by a fifth and more.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.linalg

from lrposterior.fit_error import FitError
from lrposterior.inference.covariance import Covariance
from lrposterior.inference.mode import Mode
from lrposterior.inference.problem import AnyProblem, supported_gauge
from lrposterior.orbit import gauge_exponent, move, oriented, prior_moments, settle_trades, stretch_basis
from lrposterior.parameters import name_and_type

MAX_STEPS = 100
# In units of log A and log scale; a log scale may also miss this part of its posterior standard deviation.
BALANCE_TOLERANCE, SCALE_TOLERANCE = 4e-4, 0.02
# After MAX_STEPS the scales and the gauge stay for a few steps, in which the mode comes to rest where they are.
RESTING_STEPS = 3
# Then what is still expected may be this much: a way of 0.04 posterior standard deviations to go.
# A log scale may have a fifth of its posterior standard deviation to go.
ACCEPTED_DECREMENT, ACCEPTED_MOVE, ACCEPTED_SCALE_MOVE = 1e-3, 0.04, 0.2
# Moves of the scales keep the mode moving: where gauge and scales have been at rest for so many steps, as much may be
# expected as in the end.
SETTLED_STEPS = 5
LARGEST_SCALE_STEP = 1.0
SHORTEST_MOVE = 0.3
# The change of the curvature with the scales costs as much as all else. It is measured where the moves have become
# smaller than the first and a log scale has gone further than that since it was measured last, and in the end where one
# has gone further than the second or, if that is more, a twentieth of its posterior standard deviation.
FOLLOWED_AGAIN, FOLLOWED_LAST, FOLLOWED_SHARE = 0.1, 0.02, 0.05
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

    problem: AnyProblem
    mode: Mode
    scale_precision: np.ndarray


def balance(problem: AnyProblem, mode: Mode) -> Balanced:
    """Move a mode along the gauge until its factors balance in expectation, and the scales to the highest evidence.

    Args:
        problem: what is fitted.
        mode: its mode in (M, K).

    Raises:
        FitError: if the balance is not reached.
    """
    reached = _balance(problem, mode)
    z = oriented(reached.problem.space, reached.mode.z)
    information = reached.problem.refined(z, reached.mode.information)
    return dataclasses.replace(reached, mode=dataclasses.replace(reached.mode, z=z, information=information))


def _balance(problem: AnyProblem, mode: Mode) -> Balanced:
    z, information = mode.z, None
    num_scales = len(problem.scale_priors)
    followed, last_change, travelled = np.zeros(num_scales), np.zeros(num_scales), np.full(num_scales, np.inf)
    length, before, allowed = 0.5, None, np.full(num_scales, FOLLOWED_LAST)
    gained, is_fresh, is_calm, at_rest, step = 0.0, False, False, 0, -1
    # `travelled`: of every log scale since the change of the curvature, `followed`, was measured.
    while True:
        step += 1
        is_last = step == MAX_STEPS + RESTING_STEPS - 1
        # The last covariance goes before the next is found: a large population needs the memory.
        covariance = None
        num_dynamics = problem.space.num_dynamics
        follows = (is_calm or is_last) and bool(np.any(travelled > (allowed if at_rest or is_last else FOLLOWED_AGAIN)))
        if information is None or gained > problem.refresh or (follows and not is_fresh):
            information = None
            information, gained, is_fresh = problem.information(z), 0.0, True
        covariance = problem.covariance(z, information)
        slope = covariance.across_gauge(problem.gradient(z)[:num_dynamics])
        decrement = 0.5 * float(slope @ covariance.times(slope))
        if follows:
            change, travelled = _followed_log_determinants(problem, z, covariance) - followed, np.zeros(num_scales)
            # It changes with the scales that it moves: half way where it goes back and forth.
            followed, last_change = followed + np.where(change * last_change < 0.0, 0.5, 1.0) * change, change
        following, gain = problem.descend(z, covariance, slope)
        scales = _scale_step(problem, following, covariance, followed)
        allowed = np.maximum(FOLLOWED_LAST, FOLLOWED_SHARE / np.sqrt(np.diag(scales.precision)))
        # Scales and gauge one after the other: both would else take off the same excess of K.
        rescaled, moved_z = _rescale(problem, following, scales.change)
        log_A = np.real(scipy.linalg.logm(_gauge_step(rescaled, moved_z, covariance)))
        moves = np.concatenate([scales.change, log_A.ravel()])
        is_calm = bool(np.all(np.abs(moves) < FOLLOWED_AGAIN))
        if is_last:
            acceptable = _are_small(moves, scales.precision, ACCEPTED_MOVE, ACCEPTED_SCALE_MOVE)
            if decrement < ACCEPTED_DECREMENT and acceptable:
                return _reached(problem, mode, z, information, slope, decrement, scales.precision)
            raise FitError(
                f"no convergence: the gauge of the mode is not balanced after {MAX_STEPS} steps, and {decrement:.2g} "
                "nats are still to be gained; lower the rank, or use method='nuts'"
            )
        if step >= MAX_STEPS:
            z, information = following, None
            continue
        settled = _are_small(moves, scales.precision, BALANCE_TOLERANCE, SCALE_TOLERANCE)
        at_rest = at_rest + 1 if settled else 0
        waited = at_rest > SETTLED_STEPS and decrement < ACCEPTED_DECREMENT
        if settled and (decrement < problem.decrement_tolerance or gain == 0.0 or waited):
            if is_fresh and np.all(travelled <= allowed):
                return _reached(problem, mode, z, information, slope, decrement, scales.precision)
            information = information if is_fresh else None
            continue
        if gain == 0.0 and not is_fresh:
            information = None
            continue
        # What a measurement changes is no effect of the last move.
        length = _relaxation(length, None if follows else before, moves)
        before, travelled = moves, travelled + length * np.abs(scales.change)
        problem, z = follow_scales(problem, z, following, covariance, length * scales.change)
        A = scipy.linalg.expm(length * log_A)
        z, trades = settle_trades(problem.space, move(problem.space, z, A, np.linalg.inv(A)), problem.subspace)
        information, is_fresh = problem.carried(information, A, trades), False
        gained += gain


def _reached(
    problem: AnyProblem,
    mode: Mode,
    z: np.ndarray,
    information: Any,
    slope: np.ndarray,
    decrement: float,
    scale_precision: np.ndarray,
) -> Balanced:
    mode = dataclasses.replace(
        mode,
        z=z,
        objective=problem.negative_log_density(z),
        gradient_norm=float(np.linalg.norm(slope)),
        decrement=decrement,
        information=information,
    )
    return Balanced(problem, mode, scale_precision)


def _are_small(moves: np.ndarray, scale_precision: np.ndarray, tolerance: float, share: float) -> bool:
    """Whether moves of log scales and log A are below a tolerance, those of scales or below a share of their sd."""
    tolerances = np.full(moves.size, tolerance)
    spreads = 1.0 / np.sqrt(np.diag(scale_precision))
    tolerances[: spreads.size] = np.maximum(tolerance, share * spreads)
    return bool(np.all(np.abs(moves) < tolerances))


def _sensitivity(problem: AnyProblem, z: np.ndarray, covariance: Covariance, scale: str) -> np.ndarray:
    """(dynamics coordinate,) Sigma z_i, half the derivative of the mode by the logarithm of a scale."""
    rows = problem.space.places(BLOCK_OF_SCALE.get(scale, scale))
    block = np.zeros(problem.space.num_dynamics)
    block[rows] = z[rows]
    return covariance.times(block)


def _relaxation(length: float, before: np.ndarray | None, moves: np.ndarray) -> float:
    """The part of the next move that is taken: the mode follows it, so that whole moves may go back and forth.

    Aitken's extrapolation for vectors (Irons and Tuck 1969, doi:10.1002/nme.1620010306), never beyond whole moves.
    """
    if before is None:
        return length
    change = moves - before
    estimate = -length * float(before @ change) / max(float(change @ change), 1e-300)
    return float(np.clip(estimate, SHORTEST_MOVE, 1.0))


def _gauge_step(problem: AnyProblem, z: np.ndarray, covariance: Covariance) -> np.ndarray:
    """(rank, rank) A that balances the factors, given what is unknown of them."""
    space, rank = problem.space, problem.model.rank
    unknown_left, unknown_right = unknown_moments(problem, covariance)
    for name in space.regressions:
        unknown_right = unknown_right + covariance.column_moment(name)
        if name_and_type(name)[0] == "K_on_M":
            unknown_right = unknown_right + covariance.row_moment(name)
    surplus = unknown_left - unknown_right - gauge_exponent(space) * np.eye(rank)
    return supported_gauge(rank, prior_moments(space, z), surplus)


def unknown_moments(problem: AnyProblem, covariance: Covariance) -> tuple[np.ndarray, np.ndarray]:
    """Sums over rows of the covariance (rank, rank) of the whitened rows of M, and of K and initial_kappa."""
    right = covariance.row_moment("K")
    if "initial_kappa" in problem.space:
        right = right + covariance.row_moment("initial_kappa")
    return covariance.row_moment("M"), right


@dataclasses.dataclass(frozen=True, eq=False)
class _ScaleStep:
    change: np.ndarray
    precision: np.ndarray


def _scale_step(problem: AnyProblem, z: np.ndarray, covariance: Covariance, followed: np.ndarray) -> _ScaleStep:
    """Fisher scoring for the logarithms of the scales (scale,), with their priors."""
    blocks = [BLOCK_OF_SCALE.get(name, name) for name in problem.scale_priors]
    precision, slope = np.zeros((len(blocks), len(blocks))), -0.5 * followed
    stretches = stretch_basis(problem.space, z, problem.subspace)
    for i, (name, prior) in enumerate(problem.scale_priors.items()):
        rows = problem.space.places(blocks[i])
        slope[i] += np.sum(z[rows] ** 2) + covariance.trace(blocks[i]) - rows.size
        slope[i] += np.sum(stretches[rows] ** 2)
        slope[i] -= np.log(problem.model.scale(name) / prior.median) / prior.spread**2
        precision[i] = [2.0 * covariance.learned(blocks[i], other) for other in blocks]
        precision[i, i] += prior.spread**-2
    if not blocks:
        return _ScaleStep(slope, precision)
    change = np.linalg.solve(precision, slope)
    return _ScaleStep(np.clip(change, -LARGEST_SCALE_STEP, LARGEST_SCALE_STEP), precision)


def _followed_log_determinants(problem: AnyProblem, z: np.ndarray, covariance: Covariance) -> np.ndarray:
    """(scale,) d log det(F + I) / d log scale, as the mode follows a scale and the prior is held."""
    slopes = np.zeros(len(problem.scale_priors))
    for i, name in enumerate(problem.scale_priors):
        followed = z.copy()
        step = 2.0 * problem.followed_step
        followed[: problem.space.num_dynamics] += step * _sensitivity(problem, z, covariance, name)
        followed = problem.best_noise(followed)
        moved = problem.covariance(followed, problem.information(followed))
        slopes[i] = (moved.log_determinant - covariance.log_determinant) / problem.followed_step
    return slopes


def follow_scales(
    problem: AnyProblem, z: np.ndarray, following: np.ndarray, covariance: Covariance, change: np.ndarray
) -> tuple[AnyProblem, np.ndarray]:
    """The problem at other scales, and where the mode goes with them: dz / d log s_i = 2 Sigma z_i.

    Where the prior dominates, Sigma = 1 and parameters are proportional to s². Without this the next round would see
    the mode of the last scales, and small scales, of which the data say little, would go back and forth. Where the
    network bends so much that this leads up, the parameters stay.
    """
    moved = following.copy()
    for name, log_factor in zip(problem.scale_priors, change, strict=True):
        step = np.expm1(2.0 * log_factor)
        moved[: problem.space.num_dynamics] += step * _sensitivity(problem, z, covariance, name)
    rescaled, stays = _rescale(problem, following, change)
    if not change.size:
        return rescaled, stays
    _, goes = _rescale(problem, moved, change)
    is_lower = rescaled.negative_log_density(goes) < rescaled.negative_log_density(stays)
    return rescaled, goes if is_lower else stays


def _rescale(problem: AnyProblem, z: np.ndarray, change: np.ndarray) -> tuple[AnyProblem, np.ndarray]:
    """The problem at other scales, and the same parameters in its coordinates."""
    if not change.size:
        return problem, z
    factors = np.exp(change)
    scales = {name: scale * factor for (name, scale), factor in zip(problem.scales().items(), factors, strict=True)}
    moved = z.copy()
    for name, factor in zip(scales, factors, strict=True):
        moved[problem.space.places(BLOCK_OF_SCALE.get(name, name))] /= factor
    return problem.with_scales(scales), moved
