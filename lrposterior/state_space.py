"""The likelihood of a network whose latents are driven by noise: a Gaussian filter in the space of the latents.

With connectivity L R^T / N, one latent for each column of L (`LowRankModel.factors`), the currents are
x[t] = L kappa[t] + known[t], where known[t] are the filtered inputs, biases and stimulation, and

    kappa[t+1] = f(kappa[t]) + eps[t],      f(kappa) = (1 - a) kappa + a R^T phi(L kappa + known) / N,

with eps[t] ~ Normal(0, Q) in the latents of M and no noise in those of a bulk. Where cell types have time constants of
their own, every type has latents of its own (`LowRankModel.latent_factors`), with its a, and the same eps drives them
all. The filter carries kappa[t] given the bins before, Normal(m, P). P may be singular: without noise it is 0, and the
likelihood is that of the rollout. Given its own bin as well, the latents are q = Normal(m + P lambda, P_filtered), with

    lambda = E_q g,      J = L^T diag(w) L,      w = -E_q d² log p / dx²,      P_filtered = (I + P J)^-1 P,

where g(x) = L^T d log p / dx is the score of the N observations of the bin, which fold into as many numbers as there
are latents. Of all Normal distributions this q is nearest to the posterior (Opper and Archambeau 2009,
doi:10.1162/neco.2008.08-07-592), and gives the greatest lower bound on

    log p(y[t] | y[0..t-1]) >= E_q log p(y[t] | x) - (lambda^T P lambda + log det(I + J P) - tr(J P_filtered)) / 2,

the right side being E_q log p(y[t] | x) - KL(q, Normal(m, P)). It is approached by steps of Fisher scoring at the mean
and one with the averages; where a step makes the bin less probable, as it does where a count is far beyond what was
expected and the expected information is small, a part of it is taken. Any q gives a bound, so that a descent finds no
network whose density in a bin is too high.

Averages are over the current of one neuron at a time, at three Gauss-Hermite nodes, and w from the scores at these
(Stein's lemma), never below 0. The next bin is predicted with the averages of rates and slopes,

    m' = E_q f(kappa),      P' = F P_filtered F^T + Q,      F = E_q f'(kappa).

It is exact where currents are observed and the network is linear. The cost is linear in neurons and bins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.checks import argument_error
from lrposterior.data import Data
from lrposterior.model import LowRankModel
from lrposterior.network import NONLINEARITIES, low_pass
from lrposterior.parameters import Parameters
from lrposterior.process_noise import latent_covariance
from lrposterior.small_matrices import solve_and_log_determinant

# For the latents of every bin, from the prediction of the bins before.
NUM_FISHER_STEPS = 2
# Parts of such a step, of which the first is taken that makes the bin more probable; 0 comes last.
STEP_PARTS = np.array([1.0, 0.25, 0.0625, 0.0])
# Gauss-Hermite nodes of an average over what is uncertain of a current, and their weights: exact to the fifth power.
NODES, NODE_WEIGHTS = np.sqrt(3.0) * np.array([-1.0, 0.0, 1.0]), np.array([1.0, 4.0, 1.0]) / 6.0
# In squared units of current: the derivative of a standard deviation is finite where there is no noise.
LEAST_VARIANCE = 1e-10


class Filtered(NamedTuple):
    """The filter in every bin of a trial; with leading axes where there are several trials.

    Attributes:
        log_likelihood: (time,) log p(y[t] | the bins before), in nats.
        predicted_mean, predicted_covariance: (time, latent), (time, latent, latent) of kappa[t] given the bins before.
        mean, covariance: given its own bin as well.
        score: (time, latent) lambda, so that mean = predicted_mean + predicted_covariance @ score.
        information: (time, latent, latent) J of the observations of the bin.
        transition: (time, latent, latent) F, the average of f'.
        current: (time, neuron) at the mean.
        rates, slopes: (time, neuron) averages of phi and phi'.
    """

    log_likelihood: Array
    predicted_mean: Array
    predicted_covariance: Array
    mean: Array
    covariance: Array
    score: Array
    information: Array
    transition: Array
    current: Array
    rates: Array
    slopes: Array

    @property
    def closed_loop(self) -> Array:
        """(time, latent, latent) F (I - P_filtered J), which takes one bin's error of prediction to the next."""
        return self.transition - self.transition @ self.covariance @ self.information

    @property
    def learned(self) -> Array:
        """(time, latent, latent) J - J P_filtered J, what a bin says about kappa beyond the bins before."""
        return self.information - self.information @ self.covariance @ self.information


class Smoothed(NamedTuple):
    """The latents given all bins of their trial: (trial, time, latent) and (trial, time, latent, latent)."""

    mean: Array
    covariance: Array


class _Bin(NamedTuple):
    activity: Array
    mask: Array
    before: Array | None
    session: Array | None
    known: Array


def filter_trials(model: LowRankModel, parameters: Parameters, data: Data) -> Filtered:
    """The filter in all trials, with a leading trial axis."""
    return _each_trial(model, parameters, data, lambda filtered: filtered)


def expected_filter(model: LowRankModel, parameters: Parameters, data: Data) -> Filtered:
    """The filter with the covariances that it has on average over what may be observed, at the means that it has.

    In the place of w the information of a bin has its expectation under the model at the mean of the currents; the
    covariances follow from it. This is what the information about parameters is made of.
    """
    filtered = filter_trials(model, parameters, data)
    left = model.latent_factors(parameters, data)[0]
    noise = noise_covariance(model, parameters, data, left.shape[1])
    weights = model.emission_of_trials(parameters, data).weights(data.mask, filtered.current)
    information = (weights @ _products(left, left)).reshape(*weights.shape[:2], *noise.shape)

    def step(before: Array, now: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        about, transition = now
        spread = jnp.eye(len(before), dtype=before.dtype) + before @ about
        after = solve_and_log_determinant(spread, before)[0]
        after = 0.5 * (after + after.T)
        return transition @ after @ transition.T + noise, (before, after)

    def one_trial(about: Array, transition: Array) -> tuple[Array, Array]:
        return jax.lax.scan(step, jnp.zeros_like(noise), (about, transition))[1]

    before, after = jax.vmap(one_trial)(information, filtered.transition)
    return filtered._replace(information=information, predicted_covariance=before, covariance=after)


def filtered_log_likelihood(model: LowRankModel, parameters: Parameters, data: Data) -> Array:
    """log p(activity of a trial | parameters), (trial,), in nats."""
    return jnp.sum(_each_trial(model, parameters, data, lambda filtered: filtered.log_likelihood), axis=1)


def smooth(filtered: Filtered) -> Smoothed:
    """The latents given all bins, from the filter in all trials (de Jong 1989, doi:10.2307/2336456).

    With the closed loop G = F (I - P_filtered J), what the bins from t on say about kappa[t] beyond the bins before is

        rho[t] = lambda[t] + G[t]^T rho[t+1],      N[t] = J - J P_filtered J + G[t]^T N[t+1] G[t],
        mean = m + P rho[t],      covariance = P - P N[t] P.

    Dynamics and observations are linearised where the filter did.
    """

    def step(later: tuple[Array, Array], now: Filtered) -> tuple:
        about, spread = later
        about = now.score + now.closed_loop.T @ about
        spread = now.learned + now.closed_loop.T @ spread @ now.closed_loop
        before = now.predicted_covariance
        return (about, spread), Smoothed(now.predicted_mean + before @ about, before - before @ spread @ before)

    def one_trial(trial: Filtered) -> Smoothed:
        num_latents = trial.mean.shape[1]
        nothing = jnp.zeros(num_latents, trial.mean.dtype), jnp.zeros((num_latents, num_latents), trial.mean.dtype)
        return jax.lax.scan(step, nothing, trial, reverse=True)[1]

    return jax.vmap(one_trial)(filtered)


def predicted_currents(model: LowRankModel, parameters: Parameters, data: Data) -> Array:
    """(trial, time, neuron) currents at the mean of the latents given the bins before."""
    mean = _each_trial(model, parameters, data, lambda filtered: filtered.predicted_mean)
    return currents_at(model, parameters, data, mean)


def currents_at(model: LowRankModel, parameters: Parameters, data: Data, kappa: Array) -> Array:
    """(trial, time, neuron) currents at latents (trial, time, latent)."""
    return kappa @ model.latent_factors(parameters, data)[0].T + known_currents(model, parameters, data)


def noise_covariance(model: LowRankModel, parameters: Parameters, data: Data, num_latents: int) -> Array:
    """(latent, latent) Q between the latents of M, of all populations alike, and 0 for others."""
    noise = latent_covariance(parameters, data.noise_patterns)
    num_own = model.num_own_latents(len(parameters["M"]))
    num_others = (num_latents - num_own) // model.num_populations - model.rank
    shared = jnp.tile(jnp.pad(noise, (0, num_others)), (model.num_populations, model.num_populations))
    return jnp.pad(shared, (0, num_own))


def known_currents(model: LowRankModel, parameters: Parameters, data: Data) -> Array:
    """(trial, time, neuron) the part of the currents that does not depend on the latents."""
    drive = jnp.einsum("bti,ni->btn", data.inputs, parameters["B"]) + parameters["b"][None, None, :]
    if data.stimulation is not None:
        drive = drive + data.stimulation
    initial = parameters["b"] if model.initial_state == "free" else jnp.zeros_like(parameters["b"])
    a = model.integration_constants(parameters, data)
    return jax.vmap(lambda one: low_pass(one, a, initial))(drive)


def initial_latents(model: LowRankModel, parameters: Parameters, num_trials: int, num_latents: int) -> Array:
    """(trial, latent) the latents in the first bin, which are known."""
    if model.initial_state == "zero":
        return jnp.zeros((num_trials, num_latents), parameters["M"].dtype)
    num_own = model.num_own_latents(len(parameters["M"]))
    num_others = (num_latents - num_own) // model.num_populations - model.rank
    shared = jnp.tile(jnp.pad(parameters["initial_kappa"], ((0, 0), (0, num_others))), (1, model.num_populations))
    return jnp.pad(shared, ((0, 0), (0, num_own)))


def _products(one: Array, other: Array) -> Array:
    """(neuron, latent * latent) one_nr other_ns.

    Sums over neurons become products of matrices: trials are mapped over, and their backward pass is one as well.
    """
    return jnp.einsum("nr,ns->nrs", one, other).reshape(len(one), -1)


def _each_trial(model: LowRankModel, parameters: Parameters, data: Data, kept: Callable[[Filtered], Any]) -> Any:
    """What is kept of the filter in every bin, with leading axes trial and time."""
    if data.background is not None:
        mend = "give a low-rank W0 by FixedBackground(left=..., right=...), or a RandomBulk()"
        raise argument_error("process_noise", "connectivity of low rank", "a known matrix W0", mend)
    left, right = model.latent_factors(parameters, data)
    num_neurons, num_latents = left.shape
    a = model.integration_constants_of_latents(parameters, data, num_latents)
    noise = noise_covariance(model, parameters, data, num_latents)
    phi = NONLINEARITIES[model.nonlinearity]
    identity = jnp.eye(num_latents, dtype=left.dtype)
    nodes, average = jnp.asarray(NODES, left.dtype), jnp.asarray(NODE_WEIGHTS, left.dtype)
    written, read = _products(left, left), _products(right, left)

    def step(state: tuple[Array, Array], now: _Bin) -> tuple:
        mean, covariance = state
        emission = model.emission(parameters, data.dt, now.before, now.session)

        def folded(weights: Array) -> Array:
            return (weights @ written).reshape(identity.shape)

        def updated(score: Array, information: Array, slope: Array) -> tuple[Array, Array, Array]:
            """Score, filtered covariance and log det(I + J P) after a step from a score."""
            spread = information @ covariance
            right_hand_side = jnp.concatenate([(slope + spread @ score)[:, None], identity], axis=1)
            solved, log_determinant = solve_and_log_determinant(identity + spread, right_hand_side)
            filtered = covariance @ solved[:, 1:]
            return solved[:, 0], 0.5 * (filtered + filtered.T), log_determinant

        def around(score: Array, filtered: Array) -> tuple[Array, Array]:
            """Standard deviations of the currents, (neuron,), and currents at the nodes, (node, neuron)."""
            sd = jnp.sqrt(jnp.einsum("nr,rs,ns->n", left, filtered, left) + LEAST_VARIANCE)
            return sd, left @ (mean + covariance @ score) + now.known + nodes[:, None] * sd

        def shortened(score: Array, reached: Array) -> Array:
            """The score after that part of a step from one score to another which leads up."""
            scores = score + jnp.asarray(STEP_PARTS, score.dtype)[:, None] * (reached - score)
            moved = scores @ covariance
            currents = (mean + moved) @ left.T + now.known
            by_current = emission.log_likelihood(now.activity, now.mask, currents)
            fit = jax.lax.stop_gradient(jnp.sum(by_current, axis=1) - 0.5 * jnp.sum(moved * scores, axis=1))
            return scores[jnp.argmax(fit >= fit[-1])]

        score, filtered = jnp.zeros_like(mean), covariance
        for _ in range(NUM_FISHER_STEPS):
            current = left @ (mean + covariance @ score) + now.known
            information = folded(emission.weights(now.mask, current))
            slope = emission.score(now.activity, now.mask, current) @ left
            reached, filtered, _ = updated(score, information, slope)
            score = shortened(score, reached)
        sd, currents = around(score, filtered)
        slopes_at_nodes = emission.score(now.activity, now.mask, currents)
        information = folded(jnp.maximum(-(average * nodes) @ slopes_at_nodes / sd, 0.0))
        score, filtered, log_determinant = updated(score, information, average @ slopes_at_nodes @ left)
        _, currents = around(score, filtered)
        of_observations = jnp.sum(average @ emission.log_likelihood(now.activity, now.mask, currents))
        divergence = 0.5 * (score @ covariance @ score + log_determinant - jnp.sum(information * filtered))
        rates, slopes = average @ phi.rate(currents), average @ phi.slope(currents)
        kappa = mean + covariance @ score
        transition = (1.0 - a) * identity + (a / num_neurons)[:, None] * (slopes @ read).reshape(identity.shape)
        following = (
            (1.0 - a) * kappa + (a / num_neurons) * (rates @ right),
            transition @ filtered @ transition.T + noise,
        )
        each = Filtered(
            of_observations - divergence,
            mean,
            covariance,
            kappa,
            filtered,
            score,
            information,
            transition,
            current=left @ kappa + now.known,
            rates=rates,
            slopes=slopes,
        )
        return following, kept(each)

    def one_trial(bins: _Bin, start: Array) -> Any:
        state = start, jnp.zeros((num_latents, num_latents), left.dtype)
        # The backward pass computes every step again: less is kept, and that is faster than to read it from memory.
        return jax.lax.scan(jax.checkpoint(step), state, bins)[1]

    start = initial_latents(model, parameters, data.activity.shape[0], num_latents)
    session = None if data.session is None else jnp.broadcast_to(data.session[:, None], data.activity.shape[:2])
    bins = _Bin(data.activity, data.mask, data.before, session, known_currents(model, parameters, data))
    return jax.vmap(one_trial)(bins, start)
