"""The Laplace posterior on the horizontal space, and the evidence.

Both are taken at the mode of W (`lrposterior.inference.balance`), not at the mode in (M, K).
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from lrposterior.distribution import NormalDistribution
from lrposterior.gauge import log_gauge_volume, product_svd, vertical_basis
from lrposterior.inference.balance import unknown_moments
from lrposterior.inference.mode import Mode
from lrposterior.inference.problem import FitError, Problem

# The Normal posterior of W is linear in what is unknown of M and K: where the variance of the product of two unknown
# parts reaches this share of the linear part's, it is not even roughly right.
LARGEST_PRODUCT_SHARE = 0.5
# Below this many posterior standard deviations the smallest singular value of W is near zero, where the volume that the
# evidence needs changes too fast.
EVIDENCE_RATIO = 3.0


def laplace(problem: Problem, mode: Mode) -> NormalDistribution:
    """Normal posterior with the Gauss-Newton curvature, without variance along the gauge.

    In whitened coordinates the precision is F + I. F is exactly zero on the vertical space, so that this space is an
    eigenspace of the precision with eigenvalue 1, and (F + I)^-1 loses its vertical part by a projection. The noise
    scales are independent of the dynamics, with expected information 2 for every observation.

    Raises:
        FitError: if the data do not support the rank.
    """
    require_support(problem, mode)
    space = problem.space
    num_dynamics = space.num_dynamics
    root = np.linalg.cholesky(mode.information + np.eye(num_dynamics))
    scale = scipy.linalg.solve_triangular(root, np.eye(num_dynamics), lower=True, trans=1, check_finite=False)
    vertical = vertical_basis(*space.factors(mode.z))
    scale[: space.right_stop] -= vertical @ (vertical.T @ scale[: space.right_stop])
    noise = 1.0 / np.sqrt(noise_information(problem) + 1.0)
    return NormalDistribution(mode.z, np.asarray(scipy.linalg.block_diag(scale, np.diag(noise))))


def require_support(problem: Problem, mode: Mode) -> None:
    """Refuse a rank of which the data do not determine enough.

    Raises:
        FitError: where neither the left nor the right factor of a part of W is known, it is a product of two unknowns,
            which no Normal distribution resembles.
    """
    share, rank = product_share(problem, mode), problem.model.rank
    if share >= LARGEST_PRODUCT_SHARE:
        raise FitError(
            f"rank: expected data that determine a factor of each of the {rank} parts of W, got one of which neither "
            f"is known "
            f"(the product of the unknown has {share:.2g} times the variance of the rest): the data do not support "
            f"rank "
            f"{rank}; lower it, or use method='nuts'"
        )


def noise_information(problem: Problem) -> np.ndarray:
    """(neuron,) expected information about the whitened log noise scales."""
    return 2.0 * problem.num_observations() * problem.space["log_noise_scale"].standard_deviation ** 2


def log_evidence(problem: Problem, mode: Mode) -> tuple[float | None, str]:
    """log p(activity | model) in nats by Laplace's method, and a note on it.

        log Z = -V + log Vol + (d - k)/2 log 2 pi - 1/2 sum log h,      k = R (R - 1) / 2

    V = -log p(activity, z) at the mode of W, d the number of coordinates, Vol the volume of the orbit of the mode under
    rotations of the factors, along which the curvature is zero (k directions). h are the other curvatures: those of F
    + I
    on the horizontal space, 2 on the R (R + 1) / 2 directions that stretch M against K (there the prior alone acts,
    twice:
    through its own curvature and through the bending of the orbit), and those of the noise scales.

    Returns:
        (log evidence, note). None in place of the evidence where the rank-th singular value of W is not clearly
        above its posterior standard deviation: there the model is singular and Laplace's method does not hold.
    """
    space = problem.space
    left, right = space.factors(mode.z)
    rank = left.shape[1]
    ratio = smallest_singular_ratio(problem, mode)
    if ratio < EVIDENCE_RATIO:
        return None, (
            f"no evidence: singular value {rank} of W is only {ratio:.1f} posterior standard deviations above zero, "
            f"where "
            "Laplace's method does not hold; compare held-out predictive densities instead, or lower the rank"
        )
    curvature = mode.information + np.eye(space.num_dynamics)
    log_determinant = 2.0 * np.sum(np.log(np.diag(np.linalg.cholesky(curvature))))
    log_determinant += 0.5 * rank * (rank + 1) * np.log(2.0)
    log_determinant += np.sum(np.log(noise_information(problem) + 1.0))
    num_flat = rank * (rank - 1) // 2
    return (
        -mode.objective
        + log_gauge_volume(left, right)
        + 0.5 * (space.size - num_flat) * np.log(2.0 * np.pi)
        - 0.5 * log_determinant
    ), "Laplace's method with the Gauss-Newton curvature"


def product_share(problem: Problem, mode: Mode) -> float:
    """Variance of the product of the unknown parts of the factors over the linear variance, the largest over W's parts.

    For one part of W, with G the squared norms of its whitened factors at the mode and U the summed variances of their
    entries, it is U_L U_Q / (U_L G_Q + U_Q G_L).
    """
    left, right = problem.space.factors(mode.z)
    moments = [left.T @ left, right.T @ right, *unknown_moments(problem, mode.z, mode.information)]
    axes = np.linalg.eigh(moments[0] + moments[1])[1]
    G_L, G_Q, U_L, U_Q = (np.einsum("ri,rs,si->i", axes, moment, axes) for moment in moments)
    return float(np.max(U_L * U_Q / (U_L * G_Q + U_Q * G_L)))


def smallest_singular_ratio(problem: Problem, mode: Mode) -> float:
    """Smallest singular value of the factors' product over its linearised posterior standard deviation."""
    space = problem.space
    left, right = space.factors(mode.z)
    U, values, V = product_svd(left, right)
    slope = np.zeros(space.num_dynamics)
    slope[: space.right_stop] = np.concatenate(
        [np.outer(U[:, -1], right.T @ V[:, -1]).ravel(), np.outer(V[:, -1], left.T @ U[:, -1]).ravel()]
    )
    curvature = mode.information + np.eye(space.num_dynamics)
    variance = slope @ scipy.linalg.cho_solve(scipy.linalg.cho_factor(curvature, lower=True), slope)
    return float(values[-1] / np.sqrt(variance)) if values[-1] > 0.0 else 0.0
