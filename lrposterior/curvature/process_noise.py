"""What a recording says about the covariance of the process noise, and how M and that covariance move together.

With linear dynamics and observations, the score of the parameter theta_i of Q is

    sum_t [rho_t^T Q_i rho_t - tr(Q_i N_t)] / 2,      Q_i = dQ / d theta_i,      N_t = Cov rho_t,

where rho_t = d log p(y) / d kappa[t] is what the bins from t on say about kappa[t] beyond the bins before (Durbin and
Koopman 2012, chapter 4). With Omega_t = J - J P_filtered J and the closed loop G_t = F_t (I - P_filtered J),

    N_t = Omega_t + G_t^T N_{t+1} G_t,      Cov(rho_t, rho_s) = (G_{s-1} ... G_t)^T N_s   for s > t,
    F_ij = sum_{t,s} tr(Q_i Cov(rho_t, rho_s) Q_j Cov(rho_s, rho_t)) / 2
         = 1/2 tr(Sigma^-1 Sigma_i Sigma^-1 Sigma_j),

the last with the covariance Sigma of all that was recorded. Noise enters in every bin but the first of a trial.

A change of M at constant C changes Q as well. The part of it within the columns of M, dM = M Omega, is a change of
gauge together with dK = K Omega^T: so F is asked about (dM - M Omega, dK + K Omega^T, dQ), with Omega such that the
rest of dM is orthogonal to M in the metric of the observations. Nothing that is known of Q depends on that rest, and F
is exactly zero along the gauge. Where Q is a parameter itself, it stays, and the change with dM = M Omega is that of
(dM - M Omega, dK + K Omega^T, dQ + Omega Q + Q Omega^T).

The noise of the observations has the smoothing errors u[t, n] as its score, u_n^T u_n, of which latents that are
uncertain take a part upon them: with the covariance P_ts of the latents given all bins, and weights w of the
observations,

    v_ts = sqrt(w[t, n] w[s, n]) M_n P_ts M_n^T,      P_ts = P_t (G_{s-1} ... G_t)^T (1 - N_s P_s)   for s > t,
    F_nn = 2 sum_{t,s} (delta_ts - v_ts)²

about log noise_scale[n], where P_t is the covariance that the filter predicts.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np
from jax import Array

from lrposterior.curvature.pull_back import pulled_back
from lrposterior.data import Data
from lrposterior.model import LowRankModel
from lrposterior.parameters import Block, Parameters, ParameterSpace
from lrposterior.process_noise import MIXING, SCALE, latent_covariance
from lrposterior.state_space import Filtered, expected_filter


class NoiseSums(NamedTuple):
    """Sums over trials: F about the entries of Q (entry, entry), and the weights (neuron,) of the observations."""

    of_Q: Array
    weights: Array


def noise_sums(model: LowRankModel, parameters: Parameters, data: Data, filtered: Filtered) -> NoiseSums:
    """The sums over the trials of some data, from the filter in them."""
    weights = model.emission_of_trials(parameters, data).weights(data.mask, filtered.current)
    num_own = model.num_own_latents(len(parameters["M"]))
    of_Q = covariance_information(filtered, model.rank, model.num_populations, num_own)
    return NoiseSums(of_Q, jnp.sum(weights, axis=(0, 1)))


def with_process_noise(
    space: ParameterSpace, parameters: Parameters, patterns: Array | None, sums: NoiseSums, information: Array
) -> Array:
    """F (direct, direct) over all parameters on which the currents depend themselves, those of Q included.

    Args:
        space, parameters: of the fit.
        patterns: (neuron, rank) those through which the noise is seen, or None.
        sums: over all trials.
        information: (direct, direct) F with Q, and the gauge of the noise, held. What there is besides, of W beyond
            M K^T / N, stands behind, and no gauge changes it.
    """
    M = parameters["M"]
    weighted = M * sums.weights[:, None]
    metric = jnp.linalg.solve(weighted.T @ M, weighted.T)
    names = [name for name in (SCALE, MIXING) if name in parameters]

    def covariance(of_noise: Parameters) -> Array:
        return latent_covariance(of_noise, patterns)

    def equivalent(flat: Array) -> Array:
        """A change of the parameters as one that leaves the gauge of the noise, and the change of Q."""
        change = {block.name: jnp.reshape(flat[space.slices[block.name]], block.shape) for block in _direct(space)}
        generator = metric @ change["M"]
        rest = change["M"] - M @ generator
        moved = {"M": rest}
        for name in ("K", "initial_kappa"):
            if name in change:
                moved[name] = change[name] + parameters[name] @ generator.T
        of_noise = {name: parameters[name] for name in ("M", *names)}
        tangent = {"M": rest} | {name: change[name] for name in names}
        Q, change_of_Q = jax.jvp(covariance, (of_noise,), (tangent,))
        if patterns is None:
            change_of_Q = change_of_Q + generator @ Q + Q @ generator.T
        kept = change | moved
        of_blocks = [jnp.ravel(kept[block.name]) for block in _direct(space)]
        return jnp.concatenate([*of_blocks, flat[space.num_direct :], jnp.ravel(change_of_Q)])

    both = jax.scipy.linalg.block_diag(information, sums.of_Q)
    return pulled_back(both, equivalent, jnp.zeros(len(information), information.dtype))


def observation_noise_information(model: LowRankModel, parameters: Parameters, data: Data) -> Array:
    """(neuron,) F about the log noise scales, of each alone."""
    filtered = expected_filter(model, parameters, data)
    left = model.latent_factors(parameters, data)[0]
    weights = model.emission_of_trials(parameters, data).weights(data.mask, filtered.current)
    loadings = jnp.sqrt(weights)[..., None] * left
    by_trial = jax.vmap(_of_observations)(filtered, loadings, data.mask)
    return 2.0 * jnp.sum(by_trial, axis=0)


def _of_observations(filtered: Filtered, loadings: Array, mask: Array) -> Array:
    """(neuron,) sum_{t,s} (delta_ts - v_ts)² in one trial, for weighted loadings (time, neuron, latent)."""
    _, num_neurons, num_latents = loadings.shape

    def step(carry: tuple[Array, Array, Array], now: tuple[Filtered, Array, Array]) -> tuple:
        # Of the bins after: N, and for every neuron the sum over them of (1 - N P) M_n^T, squared and brought back.
        spread, later, total = carry
        bin_, seen, observed = now
        before, closed_loop = bin_.predicted_covariance, bin_.closed_loop
        spread = bin_.learned + closed_loop.T @ spread @ closed_loop
        later = jnp.einsum("ba,nbc,cd->nad", closed_loop, later, closed_loop)
        at_once = jnp.einsum("nr,rs,ns->n", seen, before - before @ spread @ before, seen)
        across = jnp.einsum("nr,nrs,ns->n", seen @ before, later, seen @ before)
        left_over = seen - seen @ before @ spread
        total = total + jnp.where(observed, (1.0 - at_once) ** 2, 0.0) + 2.0 * across
        return (spread, later + left_over[:, :, None] * left_over[:, None, :], total), None

    dtype = loadings.dtype
    nothing = (
        jnp.zeros((num_latents, num_latents), dtype),
        jnp.zeros((num_neurons, num_latents, num_latents), dtype),
        jnp.zeros(num_neurons, dtype),
    )
    (_, _, total), _ = jax.lax.scan(step, nothing, (filtered, loadings, mask), reverse=True)
    return total


def _direct(space: ParameterSpace) -> list[Block]:
    return [block for block in space.blocks if space.slices[block.name].stop <= space.num_direct]


def covariance_information(filtered: Filtered, rank: int, num_populations: int = 1, num_own: int = 0) -> Array:
    """F (entry, entry) over the entries of Q (rank, rank), of the first latents of each population, over all trials.

    The last `num_own` latents belong to single neurons, and have no noise.
    """
    size = (filtered.mean.shape[2] - num_own) // num_populations
    units = np.zeros((rank**2, size, size))
    units[:, :rank, :rank] = np.eye(rank**2).reshape(-1, rank, rank)
    tiled = np.tile(units, (1, num_populations, num_populations))
    slopes = jnp.asarray(np.pad(tiled, ((0, 0), (0, num_own), (0, num_own))))
    return jnp.sum(jax.vmap(lambda trial: _of_trial(slopes, trial))(filtered), axis=0)


def _of_trial(slopes: Array, filtered: Filtered) -> Array:
    """F of one trial, for slopes (parameter, latent, latent) of Q."""
    num_latents = filtered.mean.shape[1]

    def step(carry: tuple[Array, Array, Array], now: Filtered) -> tuple:
        # Of the bin after: N, and the sum over later bins s of Cov(rho, rho_s) Q_j Cov(rho_s, rho), for every j.
        spread, later, total = carry
        closed_loop = now.closed_loop
        both = jnp.einsum("ab,ibc,cd->iad", spread, slopes, spread)
        total = total + 0.5 * jnp.einsum("iab,jba->ij", slopes, both) + jnp.einsum("iab,jba->ij", slopes, later)
        later = jnp.einsum("ba,ibc,cd->iad", closed_loop, later + both, closed_loop)
        return (now.learned + closed_loop.T @ spread @ closed_loop, later, total), None

    nothing = jnp.zeros((num_latents, num_latents))
    start = nothing, jnp.zeros_like(slopes), jnp.zeros((len(slopes), len(slopes)))
    (_, _, total), _ = jax.lax.scan(step, start, filtered, reverse=True)
    return 0.5 * (total + total.T)
