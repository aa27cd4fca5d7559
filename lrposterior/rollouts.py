"""Simulated trials of many networks at once, in bounded memory."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.background import RandomBulk
from lrposterior.bulk import UNSEEN, BulkDraws, bulk_draws
from lrposterior.data import Data
from lrposterior.fast_gaussian import FastBulk
from lrposterior.model import LowRankModel
from lrposterior.network import NONLINEARITIES
from lrposterior.parameters import Parameters
from lrposterior.precision import double_precision
from lrposterior.recording import Recording
from lrposterior.state_space import currents_at, filter_trials, predicted_currents

DRAWS_AT_ONCE = 8
# Matrices W0 that are held at once have this many entries together, 128 MB.
DENSE_ENTRIES = 2**24

Simulator = Callable[[LowRankModel, Parameters, Data], Array]


@double_precision
def simulate_draws(
    model: LowRankModel,
    draws: Mapping[str, np.ndarray],
    trials: Recording,
    *,
    quantity: Literal["rate", "current"],
) -> np.ndarray:
    """Noise-free trials of every draw of the parameters.

    Args:
        model: a settled model.
        draws: parameters by name with a leading draw axis, as `Posterior.sample_parameters` gives them. Where they do
            not hold the unseen part of a random bulk, it is 0.
        trials: inputs, stimulation, bin width and length of the trials.
        quantity: "rate" or "current".

    Returns:
        (draw, trial, time, neuron).
    """
    simulator = LowRankModel.rates if quantity == "rate" else LowRankModel.currents
    return np.asarray(simulate_each(simulator, model, draws, trials))


@double_precision
def predicted_activity(model: LowRankModel, draws: Mapping[str, np.ndarray], trials: Recording) -> np.ndarray:
    """What every draw expects to be recorded (draw, trial, time, neuron).

    Without process noise that is the activity of the network, from inputs and stimulation alone. With process noise it
    is said one bin ahead, from the bins that were recorded before; a random bulk counts as far as it is seen. Calcium
    is always said one bin ahead.

    Args:
        model, draws: as in `simulate_draws`.
        trials: the recorded trials.
    """
    if model.process_noise is not None:
        draws = {name: value for name, value in draws.items() if name not in UNSEEN}
    return np.asarray(simulate_each(_expected, model, draws, trials))


@double_precision
def predicted_moments(model: LowRankModel, draws: Mapping[str, np.ndarray], trials: Recording) -> np.ndarray:
    """(draw, 2, trial, time, neuron) `predicted_activity`, and the variance of what is recorded around it.

    The variance is that of the observation, and with process noise that of the latents given the bins before, seen by
    the neurons.

    Args:
        model, draws, trials: as in `predicted_activity`.
    """
    if model.process_noise is not None:
        draws = {name: value for name, value in draws.items() if name not in UNSEEN}
    return np.asarray(simulate_each(_moments, model, draws, trials))


def _moments(model: LowRankModel, parameters: Parameters, data: Data) -> Array:
    emission = model.emission_of_trials(parameters, data)
    if model.process_noise is None:
        current = model.currents(parameters, data)
        return jnp.stack([emission.mean(current), emission.variance(current)])
    filtered, left = filter_trials(model, parameters, data), model.latent_factors(parameters, data)[0]
    current = currents_at(model, parameters, data, filtered.predicted_mean)
    of_current = jnp.einsum("nr,btrs,ns->btn", left, filtered.predicted_covariance, left)
    return jnp.stack(
        [emission.mean(current), emission.variance(current) + emission.sensitivity(current) ** 2 * of_current]
    )


def _expected(model: LowRankModel, parameters: Parameters, data: Data) -> Array:
    predict = LowRankModel.currents if model.process_noise is None else predicted_currents
    return model.emission_of_trials(parameters, data).mean(predict(model, parameters, data))


def currents_and_activity(model: LowRankModel, parameters: Parameters, data: Data) -> Array:
    """(2, trial, time, neuron) currents, and the activity that they let expect in the unit of the data.

    Of counts it is per second, of calcium that to which fluorescence goes where the rate stays.
    """
    current = model.currents(parameters, data)
    if model.observation.of == "calcium":
        return jnp.stack([current, NONLINEARITIES[model.nonlinearity].rate(current)])
    mean = model.emission_of_trials(parameters, data).mean(current)
    return jnp.stack([current, mean / data.dt if model.observation.of == "count" else mean])


def simulate_each(
    simulator: Simulator, model: LowRankModel, draws: Mapping[str, np.ndarray], trials: Recording
) -> Array | np.ndarray:
    """What a function of (model, parameters, data) gives for every draw, (draw, ...). Call it in double precision."""
    parameters, data = to_coordinates(model, draws, trials), model.data(trials)
    bulk = unseen_bulk(model, draws)
    if bulk is None:
        return _simulate(simulator, model.structure, parameters, data)
    data = dataclasses.replace(data, subspace=None)
    results = []
    for chunk, num_new in draws_in_chunks(bulk):
        chosen = {name: value[chunk] for name, value in parameters.items()}
        W0 = jax.tree.map(jnp.asarray, bulk.take(chunk).operators())
        results.append(np.asarray(_simulate_with(simulator, model.structure, chosen, W0, data))[:num_new])
    return np.concatenate(results)


def to_coordinates(model: LowRankModel, draws: Mapping[str, np.ndarray], trials: Recording) -> Parameters:
    """Named draws in the coordinates of the model, with initial latents for these trials.

    Where there are not as many initial latents as trials, every trial starts from their mean.
    """
    seen = {name: value for name, value in draws.items() if name not in UNSEEN}
    parameters = {name: jnp.asarray(value) for name, value in model.coordinates(seen, trials.dt).items()}
    initial = parameters.get("initial_kappa")
    if initial is not None and initial.shape[1] != trials.num_trials:
        mean = jnp.mean(initial, axis=1, keepdims=True)
        parameters["initial_kappa"] = jnp.broadcast_to(mean, (mean.shape[0], trials.num_trials, mean.shape[2]))
    return parameters


def network_coordinates(model: LowRankModel, named: Mapping[str, np.ndarray], trials: Recording) -> Parameters:
    """`to_coordinates` of one network, without a draw axis."""
    draws = to_coordinates(model, {name: value[None] for name, value in named.items()}, trials)
    return {name: value[0] for name, value in draws.items()}


def unseen_bulk(model: LowRankModel, draws: Mapping[str, np.ndarray]) -> BulkDraws | None:
    """The random bulk of every draw, or None where there is none or its unseen part is 0."""
    if not isinstance(model.background, RandomBulk) or "bulk_seed" not in draws:
        return None
    return bulk_draws(draws, model.background.visited)


def draws_in_chunks(bulk: BulkDraws) -> Iterator[tuple[np.ndarray, int]]:
    """Indices of draws whose W0 fit into memory together, and how many of them are new.

    All chunks have one length, so that a function compiles once; the last is filled up with its last draw.
    """
    size = int(np.clip(DENSE_ENTRIES // bulk.operator_size, 1, bulk.num_draws))
    for start in range(0, bulk.num_draws, size):
        num_new = min(size, bulk.num_draws - start)
        yield np.minimum(start + np.arange(size), bulk.num_draws - 1), num_new


@functools.partial(jax.jit, static_argnums=(0, 1))
def _simulate(simulator: Simulator, model: LowRankModel, parameters: Parameters, data: Data) -> Array:
    return jax.lax.map(lambda draw: simulator(model, draw, data), parameters, batch_size=DRAWS_AT_ONCE)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _simulate_with(
    simulator: Simulator, model: LowRankModel, parameters: Parameters, W0: Array | FastBulk, data: Data
) -> Array:
    """One draw after the other, each with a background of its own, W0 (draw, neuron, neuron)."""

    def simulate(draw: tuple[Parameters, Any]) -> Array:
        return simulator(model, draw[0], dataclasses.replace(data, background=draw[1]))

    return jax.lax.map(simulate, (parameters, W0))
