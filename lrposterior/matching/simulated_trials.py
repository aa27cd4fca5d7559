"""Simulated trials as a differentiable function of the parameters: noise is drawn first, and then scaled."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from lrposterior.data import Data
from lrposterior.input_embedding import rectified
from lrposterior.model import LowRankModel
from lrposterior.parameters import Parameters
from lrposterior.process_noise import latent_root

# P (input, feature) of a rectified layer of the inputs, among the parameters where it is learned with the network.
PROJECTION = "projection"


def noisy_currents(model: LowRankModel, parameters: Parameters, data: Data, key: Array) -> Array:
    """(trial, time, neuron) currents, with process noise where the model has it, and the layer that is learned."""
    if PROJECTION in parameters:
        data = dataclasses.replace(data, inputs=rectified(data.inputs, parameters[PROJECTION]))
    if model.process_noise is not None:
        root = latent_root(parameters, data.noise_patterns)
        standard = jax.random.normal(key, (*data.inputs.shape[:2], model.rank), root.dtype)
        data = model.driven_by_noise(parameters, data, standard @ root.T)
    return model.currents(parameters, data)


def expected_trials(model: LowRankModel, parameters: Parameters, data: Data, key: Array) -> Array:
    """(trial, time, neuron) the activity that noisy currents let expect, in the unit of the recording."""
    currents = noisy_currents(model, parameters, data, key)
    return model.emission_of_trials(parameters, data).mean(currents)


def simulated_trials(model: LowRankModel, parameters: Parameters, data: Data, key: Array) -> Array:
    """(trial, time, neuron) activity with the noise of its observation, in the unit of the recording.

    Counts too have Normal noise here, of their variance: what is compared is smooth over several bins.
    """
    of_process, of_observation = jax.random.split(key)
    currents = noisy_currents(model, parameters, data, of_process)
    emission = model.emission_of_trials(parameters, data)
    noise = jax.random.normal(of_observation, currents.shape, currents.dtype)
    return emission.mean(currents) + jnp.sqrt(emission.variance(currents)) * noise


def of_trials(parameters: Parameters, chosen: Array) -> Parameters:
    """The parameters with the initial latents, where they are free, of some of the trials."""
    if "initial_kappa" not in parameters:
        return parameters
    return parameters | {"initial_kappa": parameters["initial_kappa"][chosen]}


def of_new_trials(parameters: Parameters, num_trials: int) -> Parameters:
    """The parameters for trials that were not fitted: all start from the mean of the initial latents."""
    if "initial_kappa" not in parameters:
        return parameters
    mean = jnp.mean(parameters["initial_kappa"], axis=0)
    return parameters | {"initial_kappa": jnp.broadcast_to(mean, (num_trials, mean.shape[0]))}
