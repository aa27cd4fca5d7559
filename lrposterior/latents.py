"""The latents of single trials under a fit with process noise: what was going on in each of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.checks import argument_error, read_only, require_choice, require_instance
from lrposterior.data import Data
from lrposterior.model import LowRankModel
from lrposterior.network import NONLINEARITIES
from lrposterior.new_sessions import InferredDrift
from lrposterior.parameters import Parameters
from lrposterior.posterior import Posterior, require_like_fitted
from lrposterior.precision import double_precision
from lrposterior.recording import Recording
from lrposterior.rollouts import network_coordinates
from lrposterior.state_space import currents_at, filter_trials, smooth

# Of a mean over a Normal variable.
NUM_NODES = 9
Given = Literal["all bins", "bins up to now", "bins before"]
GIVEN = ("all bins", "bins up to now", "bins before")


@dataclass(frozen=True, eq=False)
class LatentPaths:
    """The latents of every trial at the most probable network, given what was recorded of the trial.

    Their rank columns are those of `Posterior.mode["M"]`: the gauge in which the singular vectors of W are the axes.
    Where cell types have time constants of their own, every type has rank latents of its own, which drive its neurons:
    those of one type stand after those of the other.

    Attributes:
        given: "all bins" (smoothed), "bins up to now" (filtered), or "bins before" (predicted one bin ahead).
        mean: (trial, time, latent) of the latents kappa, in units of current.
        covariance: (trial, time, latent, latent) of the latents in one bin.
        currents, rates: (trial, time, neuron) at the mean.
        activity: (trial, time, neuron) expected activity, averaged over what is unknown of the latents.
        log_likelihood: (trial,) log p(activity of the trial) in nats.
        times: (time,) in s from the start of the trial.
    """

    given: Given
    mean: np.ndarray
    covariance: np.ndarray
    currents: np.ndarray
    rates: np.ndarray
    activity: np.ndarray
    log_likelihood: np.ndarray
    times: np.ndarray

    def __post_init__(self) -> None:
        for name in ("mean", "covariance", "currents", "rates", "activity", "log_likelihood", "times"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    @property
    def sd(self) -> np.ndarray:
        """(trial, time, latent) standard deviation of every latent."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance, axis1=2, axis2=3), 0.0))


@double_precision
def infer_latents(
    posterior: Posterior,
    trials: Recording | None = None,
    *,
    given: Given = "all bins",
    drift: InferredDrift | None = None,
) -> LatentPaths:
    """The latents of single trials, at the most probable network.

    Args:
        posterior: a fit of a model with process noise.
        trials: trials of the same neurons, perhaps with neurons masked: their rates then follow from the others. None
            takes the fitted trials. Where the initial state is free, others start from the mean of the fitted ones.
        given: what is known of a trial: "all bins" smooths, "bins up to now" filters, "bins before" predicts.
        drift: where the trials are of sessions that were not fitted, what `infer_drift` found of these. Left out, they
            have none.

    Raises:
        ValueError: if the model has no process noise, or the trials are of other neurons, inputs, bins or sessions.
    """
    require_instance(posterior, "posterior", Posterior, "pass what fit(...) returned")
    require_choice(given, "given", GIVEN)
    model, fitted = posterior.model, posterior.recording
    if model.process_noise is None:
        mend = "use Posterior.mode and simulate: without noise, inputs alone say what the latents do"
        raise argument_error("posterior", "a fit with process_noise", "one without", mend)
    trials = fitted if trials is None else require_instance(trials, "trials", Recording)
    require_like_fitted(trials, fitted)
    mode = posterior.mode
    if drift is not None:
        drift.require_sessions_of(trials)
        model, mode = drift.within(model, mode)
    parameters, data = network_coordinates(model, mode, trials), model.data(trials)
    mean, covariance, currents, activity, log_likelihood = map(
        np.asarray, _paths(model.structure, given, parameters, data)
    )
    num_shared = mean.shape[2] - model.num_own_latents(fitted.num_neurons)
    of_M = np.flatnonzero(np.arange(num_shared) % (num_shared // model.num_populations) < model.rank)
    return LatentPaths(
        given=given,
        mean=mean[:, :, of_M],
        covariance=covariance[:, :, of_M][:, :, :, of_M],
        currents=currents,
        rates=np.asarray(NONLINEARITIES[model.nonlinearity].rate(jnp.asarray(currents))),
        activity=activity,
        log_likelihood=log_likelihood,
        times=trials.times,
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _paths(model: LowRankModel, given: Given, parameters: Parameters, data: Data) -> tuple[Array, ...]:
    """Mean and covariance of the latents, currents, expected activity, log likelihood."""
    filtered = filter_trials(model, parameters, data)
    if given == "all bins":
        mean, covariance = smooth(filtered)
    elif given == "bins up to now":
        mean, covariance = filtered.mean, filtered.covariance
    else:
        mean, covariance = filtered.predicted_mean, filtered.predicted_covariance
    currents = currents_at(model, parameters, data, mean)
    left, emission = model.latent_factors(parameters, data)[0], model.emission_of_trials(parameters, data)
    activity = average_over_latents(emission.mean, currents, left, covariance)
    return mean, covariance, currents, activity, jnp.sum(filtered.log_likelihood, axis=1)


def average_over_latents(function: Callable[[Array], Array], currents: Array, left: Array, covariance: Array) -> Array:
    """(trial, time, neuron) mean of a function of the currents, over what is unknown of the latents.

    Args:
        function: entry by entry.
        currents: (trial, time, neuron) at the mean of the latents.
        left: (neuron, latent) how the latents add to them.
        covariance: (trial, time, latent, latent) of the latents.
    """
    sd = jnp.sqrt(jnp.maximum(jnp.einsum("nr,btrs,ns->btn", left, covariance, left), 0.0))
    nodes, weights = np.polynomial.hermite_e.hermegauss(NUM_NODES)

    def at_node(node: Array) -> Array:
        return function(currents + node * sd)

    return jnp.einsum("k,kbtn->btn", weights / weights.sum(), jax.lax.map(at_node, jnp.asarray(nodes)))
