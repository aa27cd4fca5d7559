"""Simulated trials of many networks at once, in bounded memory."""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.model import Data, LowRankModel
from lrposterior.parameters import Parameters
from lrposterior.precision import double_precision
from lrposterior.recording import Recording

DRAWS_AT_ONCE = 8


@double_precision
def simulate_draws(
    model: LowRankModel,
    draws: dict[str, np.ndarray],
    trials: Recording,
    *,
    quantity: Literal["rate", "current"],
) -> np.ndarray:
    """Noise-free trials of every draw of the parameters.

    Args:
        model: a settled model.
        draws: parameters by name with a leading draw axis, as `Posterior.sample_parameters` gives them.
        trials: inputs, stimulation, bin width and length of the trials.
        quantity: "rate" or "current".

    Returns:
        (draw, trial, time, neuron).
    """
    parameters = to_coordinates(model, draws, trials)
    return _simulate(model.structure, quantity, parameters, model.data(trials))


def to_coordinates(model: LowRankModel, draws: dict[str, np.ndarray], trials: Recording) -> Parameters:
    """Named draws in the coordinates of the model, with initial latents for these trials.

    Where there are not as many initial latents as trials, every trial starts from their mean.
    """
    parameters = {name: jnp.asarray(value) for name, value in model.coordinates(draws, trials.dt).items()}
    initial = parameters.get("initial_kappa")
    if initial is not None and initial.shape[1] != trials.num_trials:
        mean = jnp.mean(initial, axis=1, keepdims=True)
        parameters["initial_kappa"] = jnp.broadcast_to(mean, (mean.shape[0], trials.num_trials, mean.shape[2]))
    return parameters


@functools.partial(jax.jit, static_argnums=(0, 1))
def _simulate(model: LowRankModel, quantity: str, parameters: Parameters, data: Data) -> Array:
    simulate = model.rates if quantity == "rate" else model.currents
    return jax.lax.map(lambda draw: simulate(draw, data), parameters, batch_size=DRAWS_AT_ONCE)
