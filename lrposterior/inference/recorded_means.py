"""Networks of which every neuron is about as active as it was recorded."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.data import Data
from lrposterior.inference.problem import Problem
from lrposterior.matching.simulated_trials import noisy_currents
from lrposterior.model import LowRankModel
from lrposterior.parameters import Parameters

# Half a Newton step of every bias, of one unit of current at most, so often.
NUM_STEPS, DAMPING = 20, 0.5
# The mean rate is as recorded up to this factor.
RATE_FACTOR = 2.0


def has_rates(model: LowRankModel) -> bool:
    """Whether what is observed is never negative but for noise."""
    of = model.observation.of
    return of in ("count", "spike rate") or (of == "rate" and model.nonlinearity in ("relu", "softplus"))


def with_recorded_means(problem: Problem, z: np.ndarray) -> np.ndarray:
    """The network of whitened coordinates (coordinate,), with biases that give neurons about their recorded means."""
    space, wanted = problem.space, _means(problem, problem.recording.activity)
    block, unit = space["b"], problem.model.priors.unit or 1.0
    for _ in range(NUM_STEPS):
        mean, slope = (_means(problem, each) for each in _expected(problem, z))
        step = np.clip(DAMPING * (wanted - mean) / np.maximum(slope, 1e-6), -unit, unit)
        z = z.copy()
        z[space.slices["b"]] += step / block.standard_deviation
    return z


def has_recorded_rate(problem: Problem, z: np.ndarray) -> bool:
    """Whether the mean rate is within a factor of 2 of the recorded one; of what may be negative, whether it is finite.

    Args:
        z: (coordinate,) whitened.
    """
    mask = problem.recording.mask
    simulated, recorded = _expected(problem, z)[0][mask].mean(), problem.recording.activity[mask].mean()
    if not has_rates(problem.model):
        return bool(np.isfinite(simulated))
    return bool(recorded / RATE_FACTOR < simulated < recorded * RATE_FACTOR)


def _means(problem: Problem, values: np.ndarray) -> np.ndarray:
    """(neuron,) over bins that were observed."""
    mask = problem.recording.mask
    return np.where(mask, values, 0.0).sum(axis=(0, 1)) / np.maximum(mask.sum(axis=(0, 1)), 1)


def _expected(problem: Problem, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parameters = problem.space.unwhiten(jnp.asarray(z))
    mean, slope = _mean_and_slope(problem.model.structure, parameters, problem.data)
    return np.asarray(mean), np.asarray(slope)


@functools.partial(jax.jit, static_argnums=0)
def _mean_and_slope(model: LowRankModel, parameters: Parameters, data: Data) -> tuple[Array, Array]:
    """Expected activity (trial, time, neuron), and its derivative by the current."""
    currents = noisy_currents(model, parameters, data, jax.random.key(0))
    emission = model.emission_of_trials(parameters, data)
    return emission.mean(currents), emission.sensitivity(currents)
