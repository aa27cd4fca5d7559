"""Where networks that are to match a recording start: from the data, each from other trials, and shaken."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.fit_error import FitError
from lrposterior.inference.initialise import initialise
from lrposterior.inference.problem import Problem, ScaledProblem
from lrposterior.inference.signed_start import signed_start, with_weaker_recurrence
from lrposterior.matching.simulated_trials import noisy_currents
from lrposterior.model import Data, LowRankModel
from lrposterior.parameters import Parameters

# Entries of the trials that a start is found from: seconds, for any recording of up to a hundred neurons.
MAX_ENTRIES = 2**19
# Prior standard deviations by which factors and W0 are shaken, and factors of K and W0; the first with rates as
# recorded is taken.
SHAKES = ((0.3, 1.0), (0.1, 1.0), (0.0, 1.0), (0.0, 0.5), (0.0, 0.2), (0.0, 1e-3))
# Half a Newton step of every bias, of one unit of current at most, so often.
NUM_STEPS, DAMPING = 20, 0.5
# The mean rate is as recorded up to this factor.
RATE_FACTOR = 2.0


def match_start(base: ScaledProblem, *, seed: tuple[int, int]) -> np.ndarray:
    """A whitened start (coordinate,) with a mean rate within a factor of 2 of the recorded one.

    It is the start of other fits, from trials at random, with factors that are shaken, and biases moved until neurons
    have their recorded means. Where activity may be negative, as that of currents, it is finite and no more is asked.

    Raises:
        FitError: if there is none.
    """
    random, recording = np.random.default_rng(seed), base.recording
    num_trials = max(4, MAX_ENTRIES // recording.activity[0].size)
    chosen = np.sort(random.permutation(recording.num_trials)[:num_trials])
    problem = Problem.of(base.model, recording.select(trials=chosen))
    space = problem.space
    start = signed_start(problem) if space.is_signed else initialise(problem)
    noise = random.standard_normal(space.size)
    for shake, shrinkage in SHAKES:
        z = start.copy()
        for name in ("M", "K", "W0"):
            if name not in space:
                continue
            z[space.slices[name]] += shake * noise[space.slices[name]]
        weaker = with_weaker_recurrence(space.unwhiten(z), shrinkage)
        z = _with_recorded_means(problem, np.array(space.whiten(weaker)))
        if _has_recorded_rate(problem, z):
            return _for_all_trials(base, problem, z)
    raise FitError(
        f"match: expected a start with a mean rate within a factor {RATE_FACTOR:g} of the recorded one, found none "
        "even with a recurrence of nearly 0; check the scale of the inputs and the stimulation"
    )


def has_rates(model: LowRankModel) -> bool:
    """Whether what is observed is never negative but for noise."""
    of = model.observation.of
    return of == "count" or (of == "rate" and model.nonlinearity in ("relu", "softplus"))


def _with_recorded_means(problem: Problem, z: np.ndarray) -> np.ndarray:
    """The network with biases with which neurons have about their recorded means."""
    space, wanted = problem.space, _means(problem, problem.recording.activity)
    block, unit = space["b"], problem.model.priors.unit or 1.0
    for _ in range(NUM_STEPS):
        mean, slope = (_means(problem, each) for each in _expected(problem, z))
        step = np.clip(DAMPING * (wanted - mean) / np.maximum(slope, 1e-6), -unit, unit)
        z = z.copy()
        z[space.slices["b"]] += step / block.standard_deviation
    return z


def _has_recorded_rate(problem: Problem, z: np.ndarray) -> bool:
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


def _for_all_trials(base: ScaledProblem, problem: Problem, z: np.ndarray) -> np.ndarray:
    """The same network, with initial latents for all trials: those of the others are the mean."""
    parameters = {name: np.asarray(value) for name, value in problem.space.unwhiten(z).items()}
    if "initial_kappa" in parameters:
        mean = parameters["initial_kappa"].mean(axis=0)
        parameters["initial_kappa"] = np.tile(mean, (base.recording.num_trials, 1))
    return np.asarray(base.space.whiten(parameters))
