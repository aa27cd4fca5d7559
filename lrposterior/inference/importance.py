"""Correct a Normal approximation by importance sampling (Vehtari et al. 2024, JMLR 25(72), Pareto smoothed).

Draws from the approximation are weighted by the exact density over the approximation's, both in the coordinates of
`lrposterior.inference.gauge_fixed`, in which the density has the gauge integrated out exactly and counts everything
once: entries of W, the stretch of M against K, the noise scales. The largest weights are replaced by the quantiles of
a Pareto distribution fitted to them, whose shape k tells whether the weights can be trusted, and the draws are
resampled by their weights.
"""

# NumPyro's annotations are wider than what it returns: an array is a number or an array, a distribution any one.
# pyright: reportArgumentType=false, reportReturnType=false

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.base.array import array_stats
from jax import Array
from numpyro import distributions

from lrposterior.checks import require_choice
from lrposterior.data import Data
from lrposterior.distribution import SampleDistribution
from lrposterior.inference.approximation import CONVERGED, Approximation
from lrposterior.inference.gauge_fixed import Frame, log_density, points
from lrposterior.inference.problem import Problem
from lrposterior.model import LowRankModel
from lrposterior.parameters import ParameterSpace

Correction = Literal["psis"]
CORRECTIONS = ("psis",)

NUM_PROPOSALS = 10_000
NUM_RESAMPLED = 2_000
LARGEST_PARETO_K = 0.7
PROPOSALS_AT_ONCE = 50


def require_correction(correction: str | None) -> None:
    """Refuse a correction of another name.

    Raises:
        ValueError: with what there is.
    """
    if correction is not None:
        require_choice(correction, "correction", CORRECTIONS)


def standard_normal(space: ParameterSpace) -> distributions.Distribution:
    """The Laplace posterior in the coordinates of a full frame.

    It gives to W what the Laplace posterior on the horizontal space gives, to first order in the displacement from the
    mode; they differ where two displacements multiply each other.
    """
    return distributions.Normal(jnp.zeros(space.size), jnp.ones(space.size))


def correct(problem: Problem, frame: Frame, proposal: distributions.Distribution, *, seed: int) -> Approximation:
    """Draws of the exact posterior from draws of a Normal distribution of the frame's coordinates.

    Args:
        problem: what is fitted.
        frame: coordinates e around its mode.
        proposal: normalised distribution of e (coordinate,).
        seed: seed of the draws.

    Returns:
        2000 resampled draws. The diagnostics have Pareto's k of the weights, the number of independent draws that the
        weighted ones are worth (`effective sample size`), and the importance sampling estimate of log p(activity) in
        nats. The status says so where k exceeds 0.7, above which the average of the weights converges too slowly to be
        of use.
    """
    space = problem.space
    e, log_ratios = _propose(problem.model.structure, space, frame, problem.data, proposal, jax.random.key(seed))
    log_ratios = np.nan_to_num(np.asarray(log_ratios), nan=-np.inf)  # a network that diverges explains nothing
    log_weights, pareto_k = smooth(log_ratios)
    weights = np.exp(log_weights)
    chosen = resample(weights, NUM_RESAMPLED, seed=seed)
    draws = np.asarray(points(space, frame, jnp.asarray(np.asarray(e)[chosen])))
    diagnostics = {
        "Pareto k": pareto_k,
        "effective sample size": float(1.0 / np.sum(weights**2)),
        "log evidence by importance sampling": float(np.logaddexp.reduce(log_ratios) - np.log(len(log_ratios))),
    }
    return Approximation(SampleDistribution(draws[None]), _status(pareto_k), diagnostics=diagnostics)


def smooth(log_ratios: np.ndarray) -> tuple[np.ndarray, float]:
    """Normalised logarithms of Pareto smoothed weights (draw,), and k; infinite k where hardly a ratio is finite."""
    finite = np.isfinite(log_ratios)
    if np.sum(finite) < max(5, 0.5 * len(log_ratios)):
        return np.where(finite, 0.0, -np.inf) - np.log(max(np.sum(finite), 1)), np.inf
    # ArviZ takes log likelihoods of what is left out, the negative of the logarithm of the ratio.
    smoothed, pareto_k = array_stats.psislw(-log_ratios[finite])
    log_weights = np.full(log_ratios.shape, -np.inf)
    log_weights[finite] = smoothed - np.logaddexp.reduce(smoothed)
    return log_weights, float(pareto_k)


def resample(weights: np.ndarray, num_draws: int, *, seed: int) -> np.ndarray:
    """(draw,) indices, each as often as its weight (draw,) says, to within two; in random order."""
    random = np.random.default_rng(seed)
    places = (np.arange(num_draws) + random.uniform(size=num_draws)) / num_draws
    total = np.cumsum(weights)
    return random.permutation(np.minimum(np.searchsorted(total / total[-1], places), len(weights) - 1))


@functools.partial(jax.jit, static_argnums=0)
def _propose(
    model: LowRankModel,
    space: ParameterSpace,
    frame: Frame,
    data: Data,
    proposal: distributions.Distribution,
    key: Array,
) -> tuple[Array, Array]:
    """Draws e (draw, coordinate), and (draw,) log density of recording and draw minus log density of the proposal."""
    e = proposal.sample(key, (NUM_PROPOSALS,))
    log_densities = jax.lax.map(
        lambda one: log_density(model, space, frame, data, one), e, batch_size=PROPOSALS_AT_ONCE
    )
    # A distribution of independent coordinates gives the density of each.
    log_proposal = jnp.reshape(proposal.log_prob(e), (NUM_PROPOSALS, -1))
    return e, log_densities - jnp.sum(log_proposal, axis=-1)


def _status(pareto_k: float) -> str:
    if pareto_k <= LARGEST_PARETO_K:
        return CONVERGED
    return (
        f"not converged: Pareto k of the importance weights is {pareto_k:.2f}, above {LARGEST_PARETO_K}, so the "
        "correction cannot be trusted: the approximation is too far from the posterior; use method='nuts'"
    )
