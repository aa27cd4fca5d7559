"""The latents of single trials under a fit with process noise: what was going on in each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpy as np

from lrposterior.checks import argument_error, read_only, require_choice, require_instance
from lrposterior.network import NONLINEARITIES
from lrposterior.posterior import Posterior
from lrposterior.precision import double_precision
from lrposterior.recording import Recording
from lrposterior.rollouts import to_coordinates
from lrposterior.state_space import currents_at, filter_trials, smooth

Given = Literal["all bins", "bins up to now", "bins before"]
GIVEN = ("all bins", "bins up to now", "bins before")


@dataclass(frozen=True, eq=False)
class LatentPaths:
    """The latents of every trial at the most probable network, given what was recorded of the trial.

    Their rank columns are those of `Posterior.mode["M"]`: the gauge in which the singular vectors of W are the axes.

    Attributes:
        given: "all bins" (smoothed), "bins up to now" (filtered), or "bins before" (predicted one bin ahead).
        mean: (trial, time, rank) of the latents kappa, in units of current.
        covariance: (trial, time, rank, rank) of the latents in one bin.
        currents, rates: (trial, time, neuron) at the mean.
        log_likelihood: (trial,) log p(activity of the trial) in nats.
        times: (time,) in s from the start of the trial.
    """

    given: Given
    mean: np.ndarray
    covariance: np.ndarray
    currents: np.ndarray
    rates: np.ndarray
    log_likelihood: np.ndarray
    times: np.ndarray

    def __post_init__(self) -> None:
        for name in ("mean", "covariance", "currents", "rates", "log_likelihood", "times"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    @property
    def sd(self) -> np.ndarray:
        """(trial, time, rank) standard deviation of every latent."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance, axis1=2, axis2=3), 0.0))


@double_precision
def infer_latents(posterior: Posterior, trials: Recording | None = None, *, given: Given = "all bins") -> LatentPaths:
    """The latents of single trials, at the most probable network.

    Args:
        posterior: a fit of a model with process noise.
        trials: trials of the same neurons, perhaps with neurons masked: their rates then follow from the others. None
            takes the fitted trials. Where the initial state is free, others start from the mean of the fitted ones.
        given: what is known of a trial: "all bins" smooths, "bins up to now" filters, "bins before" predicts.

    Raises:
        ValueError: if the model has no process noise, or the trials are of other neurons, inputs or bins.
    """
    require_instance(posterior, "posterior", Posterior, "pass what fit(...) returned")
    require_choice(given, "given", GIVEN)
    model, fitted = posterior.model, posterior.recording
    if model.process_noise is None:
        mend = "use Posterior.mode and simulate: without noise, inputs alone say what the latents do"
        raise argument_error("posterior", "a fit with process_noise", "one without", mend)
    trials = fitted if trials is None else require_instance(trials, "trials", Recording)
    for name in ("num_neurons", "num_inputs", "dt"):
        ours, theirs = getattr(fitted, name), getattr(trials, name)
        if ours != theirs:
            raise argument_error("trials", f"{name} = {ours}, as in the recording", f"{theirs}", "give such trials")
    mode = {name: value[None] for name, value in posterior.mode.items()}
    parameters = {name: value[0] for name, value in to_coordinates(model, mode, trials).items()}
    data = model.data(trials)
    filtered = filter_trials(model, parameters, data)
    if given == "all bins":
        mean, covariance = smooth(filtered)
    elif given == "bins up to now":
        mean, covariance = filtered.mean, filtered.covariance
    else:
        mean, covariance = filtered.predicted_mean, filtered.predicted_covariance
    currents = currents_at(model, parameters, data, mean)
    return LatentPaths(
        given=given,
        mean=np.asarray(mean)[:, :, : model.rank],
        covariance=np.asarray(covariance)[:, :, : model.rank, : model.rank],
        currents=np.asarray(currents),
        rates=np.asarray(NONLINEARITIES[model.nonlinearity].rate(jnp.asarray(currents))),
        log_likelihood=np.asarray(jnp.sum(filtered.log_likelihood, axis=1)),
        times=trials.times,
    )
