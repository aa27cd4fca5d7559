"""The log density of a recording under a model: pure JAX functions of named parameters."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from lrposterior.data import Data
from lrposterior.model import LowRankModel
from lrposterior.parameters import Parameters, ParameterSpace
from lrposterior.state_space import filtered_log_likelihood


def log_likelihood_by_trial(model: LowRankModel, parameters: Parameters, data: Data) -> Array:
    """log p(activity of a trial | parameters), (trial,), in nats. Masked entries contribute nothing.

    With process noise the path of the latents is integrated out.
    """
    if model.process_noise is not None:
        return filtered_log_likelihood(model, parameters, data)
    emission = model.emission_of_trials(parameters, data)
    by_observation = emission.log_likelihood(data.activity, data.mask, model.currents(parameters, data))
    return jnp.sum(by_observation, axis=(1, 2))


def log_likelihood(model: LowRankModel, parameters: Parameters, data: Data) -> Array:
    """log p(activity | parameters), in nats."""
    return jnp.sum(log_likelihood_by_trial(model, parameters, data))


def log_prior(space: ParameterSpace, parameters: Parameters) -> Array:
    """log p(parameters): independent Normal densities, and those of magnitudes where values have a sign, in nats."""
    return jnp.asarray(space.log_density(parameters))


def log_density(model: LowRankModel, space: ParameterSpace, parameters: Parameters, data: Data) -> Array:
    """log p(activity, parameters), in nats.

    Args:
        model: a model settled on its recording by `LowRankModel.for_recording`.
        space: its `LowRankModel.space_for(recording)`.
        parameters: arrays by name, as in `space.blocks`.
        data: its `LowRankModel.data(recording)`.
    """
    return log_likelihood(model, parameters, data) + log_prior(space, parameters)
