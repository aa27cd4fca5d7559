"""The Laplace posterior on the horizontal space, and the evidence.

Both are taken at the mode of W (`lrposterior.inference.balance`), not at the mode in (M, K).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import Array
from scipy.stats.qmc import MultivariateNormalQMC

from lrposterior.distribution import (
    MixtureDistribution,
    NormalDistribution,
    ParameterDistribution,
    StructuredDistribution,
)
from lrposterior.fit_error import FitError
from lrposterior.gauge import log_gauge_volume, product_svd
from lrposterior.inference.balance import follow_scales, unknown_moments
from lrposterior.inference.bending import Bends, bent_curvature, bent_mean_shift
from lrposterior.inference.covariance import Covariance
from lrposterior.inference.mode import Mode
from lrposterior.inference.problem import AnyProblem, Problem
from lrposterior.inference.structured_problem import StructuredProblem
from lrposterior.orbit import stretches_and_rotations, vertical_basis
from lrposterior.structured.information import StructuredInformation

# The Normal posterior of W is linear in what is unknown of M and K: where the variance of the product of two unknown
# parts reaches this share of the linear part's, it is not even roughly right.
LARGEST_PRODUCT_SHARE = 0.5
# Below this many posterior standard deviations the smallest singular value of W is near zero, where the volume that the
# evidence needs changes too fast.
EVIDENCE_RATIO = 3.0
NUM_SCALE_NODES = 8
# Draws of a posterior within signs whose density is looked at.
NUM_CHECKED = 8
# From the mode to that at other scales: Gauss-Newton steps at most, and nats that a last one may gain.
MAX_NODE_DESCENTS, NODE_TOLERANCE = 5, 0.05


def laplace(problem: AnyProblem, mode: Mode, scale_precision: np.ndarray | None = None) -> ParameterDistribution:
    """Normal posterior with the Gauss-Newton curvature, without variance along the gauge.

    In whitened coordinates the precision is F + I. F is exactly zero on the vertical space, so that this space is an
    eigenspace of the precision with eigenvalue 1, and (F + I)^-1 loses its vertical part by a projection. The noise
    scales are independent of the dynamics, with expected information 2 for every observation, or with process noise
    less.

    Where prior scales are inferred, their logarithms are Normal with the given precision, and the posterior is a
    mixture over `NUM_SCALE_NODES` values of them, each with the Normal distribution at its own mode.

    Args:
        problem: what is fitted, at the most probable scales.
        mode: its mode of W.
        scale_precision: (scale, scale) precision of the logarithms of the inferred scales, or None to hold them fixed.

    Raises:
        FitError: if the data do not support the rank.
    """
    covariance = problem.covariance(mode.z, mode.information)
    require_support(problem, mode, covariance)
    nodes = [(problem, mode)]
    if scale_precision is not None and scale_precision.size:
        rough = dataclasses.replace(mode, information=problem.roughened(mode.information))
        nodes = [_at_scales(problem, rough, covariance, change) for change in scale_nodes(scale_precision)]
    if isinstance(problem, StructuredProblem):
        return _structured(problem, mode, nodes)
    components = []
    for scaled, moved in nodes:
        normal, ratio = normal_at_mode(scaled, moved), _ratio(problem, scaled)
        components.append(NormalDistribution(ratio * normal.location, ratio[:, None] * normal.scale))
    if len(components) == 1:
        return components[0]
    return MixtureDistribution(np.full(len(components), 1.0 / len(components)), tuple(components))


def _at_scales(problem: AnyProblem, mode: Mode, covariance: Covariance, change: np.ndarray) -> tuple[AnyProblem, Mode]:
    """The problem where the logarithms of its scales change, and its mode there; the covariance is that at the mode.

    The mode is not linear in the scales: with a regression, K is a product of coefficients and loadings.
    """
    scaled, z = follow_scales(problem, mode.z, mode.z, covariance, change)
    information = nearby = None
    for _ in range(MAX_NODE_DESCENTS):
        near = scaled.information_near(z, mode.information)
        if nearby is None or near is not information:  # The structured form has one information for all of them.
            information, nearby = near, scaled.covariance(z, near)
        slope = nearby.across_gauge(scaled.gradient(z)[: problem.space.num_dynamics])
        z, gained = scaled.descend(z, nearby, slope)
        if gained < NODE_TOLERANCE:
            break
    return scaled, dataclasses.replace(mode, z=z, information=scaled.information_near(z, mode.information))


def _ratio(problem: AnyProblem, scaled: AnyProblem) -> np.ndarray:
    """(coordinate,) prior standard deviations of the same problem at other scales over those at the first."""
    return scaled.space.standard_deviations / problem.space.standard_deviations


def _structured(
    problem: StructuredProblem, mode: Mode, nodes: Sequence[tuple[AnyProblem, Mode]]
) -> StructuredDistribution:
    ratios = np.stack([_ratio(problem, scaled) for scaled, _ in nodes])
    locations = ratios * np.stack([moved.z for _, moved in nodes])
    information = cast(StructuredInformation, mode.information)
    return problem.distribution(mode.z, information, ratios, locations, _noise_spread(problem, mode.z))


def _noise_spread(problem: AnyProblem, z: np.ndarray) -> np.ndarray:
    """(neuron,) posterior standard deviations of the whitened log noise scales."""
    return 1.0 / np.sqrt(problem.noise_information(z) + 1.0)


def normal_at_mode(problem: AnyProblem, mode: Mode) -> NormalDistribution:
    """The one Normal distribution at a mode, in the dense form, as if the scales were known.

    It has no variance along the gauge, but where factors have signs: no slice across it holds all of these.
    """
    root = np.linalg.cholesky(mode.information + np.eye(len(mode.information)))
    scale = scipy.linalg.solve_triangular(root, np.eye(len(root)), lower=True, trans=1, check_finite=False)
    if not problem.space.is_signed:
        vertical = vertical_basis(problem.space, mode.z, problem.subspace)
        scale -= vertical @ (vertical.T @ scale)
    return NormalDistribution(
        mode.z, np.asarray(scipy.linalg.block_diag(scale, np.diag(_noise_spread(problem, mode.z))))
    )


def bent_normal(problem: Problem, mode: Mode) -> NormalDistribution:
    """The Normal distribution at a mode of factors with signs, its mean moved by what bends.

    Args:
        problem: what is fitted.
        mode: its mode, whose information holds what bends (`lrposterior.inference.secant_mode`).
    """
    normal, num_dynamics = normal_at_mode(problem, mode), problem.space.num_dynamics
    scale = normal.scale[:num_dynamics, :num_dynamics]
    location = mode.z.copy()
    location[:num_dynamics] += bent_mean_shift(
        -mode.z[:num_dynamics],
        mode.information - np.diag(bent_curvature(problem.space, mode.z)),
        Bends.at(problem.space, mode.z),
        scale @ scale.T,
    )
    return NormalDistribution(location, normal.scale)


def excess_of_draws(problem: Problem, mode: Mode, normal: NormalDistribution) -> float:
    """How far draws lie above the mode beyond what those of a Normal posterior do, in nats: the median of a few.

    -log p(activity, z) of a Normal posterior of n coordinates lies n / 2 above the mode on average; around that of one
    that is not Normal most draws are of networks that explain the recording worse than the posterior's own. A network
    that diverges lies infinitely far above.
    """
    above = np.array([problem.negative_log_density(draw) for draw in normal.sample(NUM_CHECKED, seed=0)])
    above = np.where(np.isfinite(above), above - mode.objective, np.inf)
    return float(np.median(above)) - 0.5 * problem.space.size


def scale_nodes(precision: np.ndarray) -> np.ndarray:
    """(node, scale) changes of the log scales, spread evenly over their Normal posterior, whose moments they have."""
    points = MultivariateNormalQMC(np.zeros(len(precision)), rng=0).random(NUM_SCALE_NODES)
    points = points - points.mean(axis=0)
    root = np.linalg.cholesky(np.atleast_2d(np.cov(points, rowvar=False, bias=True)))
    standard = scipy.linalg.solve_triangular(root, points.T, lower=True)
    return scipy.linalg.solve_triangular(np.linalg.cholesky(precision), standard, lower=True, trans=1).T


def require_support(problem: AnyProblem, mode: Mode, covariance: Covariance | None = None) -> None:
    """Refuse a rank of which the data do not determine enough.

    Args:
        problem: what is fitted.
        mode: its mode of W.
        covariance: the posterior's at the mode, where it is known already.

    Raises:
        FitError: where neither the left nor the right factor of a part of W is known, it is a product of two unknowns,
            which no Normal distribution resembles.
    """
    covariance = covariance or problem.covariance(mode.z, mode.information)
    share, rank = product_share(problem, mode.z, covariance), problem.model.rank
    if share >= LARGEST_PRODUCT_SHARE:
        raise FitError(
            f"rank: expected data that determine a factor of each of the {rank} parts of W, got one of which neither "
            f"is known "
            f"(the product of the unknown has {share:.2g} times the variance of the rest): the data do not support "
            f"rank "
            f"{rank}; lower it, or use method='nuts'"
        )


def log_evidence(
    problem: AnyProblem, mode: Mode, scale_precision: np.ndarray | None = None
) -> tuple[float | None, str]:
    """log p(activity | model) in nats by Laplace's method, and a note on it.

    Returns:
        (log evidence, note). None in place of the evidence where the rank-th singular value of W is not clearly
        above its posterior standard deviation: there the model is singular and Laplace's method does not hold.
    """
    rank = problem.model.rank
    covariance = problem.covariance(mode.z, mode.information)
    ratio = smallest_singular_ratio(problem, mode.z, covariance)
    if ratio < EVIDENCE_RATIO:
        return None, (
            f"no evidence: singular value {rank} of W is only {ratio:.1f} posterior standard deviations above zero, "
            f"where "
            "Laplace's method does not hold; compare held-out predictive densities instead, or lower the rank"
        )
    evidence = laplace_evidence(problem, mode, covariance, scale_precision)
    return evidence, "Laplace's method with the Gauss-Newton curvature"


def laplace_evidence(
    problem: AnyProblem, mode: Mode, covariance: Covariance, scale_precision: np.ndarray | None
) -> float:
    """log p(activity | model) in nats by Laplace's method, whether it holds or not.

        log Z = -V + log Vol + (d - k)/2 log 2 pi - 1/2 sum log h,      k = R (R - 1) / 2

    V = -log p(activity, z) at the mode of W, d the number of coordinates, Vol the volume of the orbit of the mode under
    rotations of the factors, along which the curvature is zero (k directions). h are the other curvatures: those of F
    + I across the gauge, 2 on the R (R + 1) / 2 directions that stretch M against K (there the prior alone acts, twice:
    through its own curvature and through the bending of the orbit), and those of the noise scales. Inferred prior
    scales are integrated out in the same way, over their logarithms.
    """
    space, rank = problem.space, problem.model.rank
    log_determinant = covariance.log_determinant
    log_determinant += 0.5 * rank * (rank + 1) * np.log(2.0)
    log_determinant += np.sum(np.log(problem.noise_information(mode.z) + 1.0))
    num_flat = rank * (rank - 1) // 2
    of_scales = 0.0
    if scale_precision is not None and scale_precision.size:
        for name, prior in problem.scale_priors.items():
            of_scales -= 0.5 * (np.log(problem.model.scale(name) / prior.median) / prior.spread) ** 2
            of_scales -= np.log(prior.spread)
        of_scales -= 0.5 * np.linalg.slogdet(scale_precision)[1]
    return (
        -mode.objective
        + of_scales
        + log_gauge_volume(*stretches_and_rotations(space, mode.z))
        + 0.5 * (space.size - num_flat) * np.log(2.0 * np.pi)
        - 0.5 * log_determinant
    )


def product_share(problem: AnyProblem, z: np.ndarray, covariance: Covariance) -> float:
    """Variance of the product of the unknown parts of the factors over the linear variance, the largest over W's parts.

    For one part of W, with G the squared norms of its whitened factors at the mode and U the summed variances of their
    entries, it is U_L U_Q / (U_L G_Q + U_Q G_L).
    """
    left, right = problem.space.factors(z)
    moments = [left.T @ left, right.T @ right, *unknown_moments(problem, covariance)]
    axes = np.linalg.eigh(moments[0] + moments[1])[1]
    G_L, G_Q, U_L, U_Q = (np.einsum("ri,rs,si->i", axes, moment, axes) for moment in moments)
    return float(np.max(U_L * U_Q / (U_L * G_Q + U_Q * G_L)))


def smallest_singular_ratio(problem: AnyProblem, z: np.ndarray, covariance: Covariance) -> float:
    """Smallest singular value of the factors' product over its linearised posterior standard deviation."""
    space = problem.space
    U, values, V = product_svd(*space.factors(z))

    def singular_value(z: Array) -> Array:
        left, right = space.factors(z)
        return (left.T @ U[:, -1]) @ (right.T @ V[:, -1])

    slope = np.asarray(jax.grad(singular_value)(jnp.asarray(z)))[: space.num_dynamics]
    variance = float(slope @ covariance.times(slope))
    return float(values[-1] / np.sqrt(variance)) if values[-1] > 0.0 else 0.0
