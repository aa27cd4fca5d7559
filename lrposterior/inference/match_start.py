"""Where networks that are to match a recording start: from the data, each from other trials, and shaken."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from lrposterior.fit_error import FitError
from lrposterior.inference.initialise import initialise
from lrposterior.inference.problem import Problem, ScaledProblem
from lrposterior.inference.recorded_means import RATE_FACTOR, has_recorded_rate, with_recorded_means
from lrposterior.inference.signed_start import signed_start, with_weaker_recurrence

# Entries of the trials that a start is found from: seconds, for any recording of up to a hundred neurons.
MAX_ENTRIES = 2**19
# Prior standard deviations by which factors and W0 are shaken, and factors of K and W0; the first with rates as
# recorded is taken.
SHAKES = ((0.3, 1.0), (0.1, 1.0), (0.0, 1.0), (0.0, 0.5), (0.0, 0.2), (0.0, 1e-3))


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
    start = _signed_start(problem) if space.is_signed else initialise(problem)
    noise = random.standard_normal(space.size)
    for shake, shrinkage in SHAKES:
        z = start.copy()
        for name in ("M", "K", "W0"):
            if name not in space:
                continue
            z[space.slices[name]] += shake * noise[space.slices[name]]
        weaker = with_weaker_recurrence(space.unwhiten(z), shrinkage)
        z = with_recorded_means(problem, np.array(space.whiten(weaker)))
        if has_recorded_rate(problem, z):
            return _for_all_trials(base, problem, z)
    raise FitError(
        f"match: expected a start with a mean rate within a factor {RATE_FACTOR:g} of the recorded one, found none "
        "even with a recurrence of nearly 0; check the scale of the inputs and the stimulation"
    )


def _signed_start(problem: Problem) -> np.ndarray:
    """The start within signs of the network without process noise, whose latents are not integrated out.

    They may be more than a likelihood takes: of time constants per neuron, or of a dense W.
    """
    without = Problem.of(dataclasses.replace(problem.model, process_noise=None), problem.recording)
    parameters = problem.space.unwhiten(jnp.zeros(problem.space.size)) | without.space.unwhiten(signed_start(without))
    return np.array(problem.space.whiten({name: np.asarray(value) for name, value in parameters.items()}))


def _for_all_trials(base: ScaledProblem, problem: Problem, z: np.ndarray) -> np.ndarray:
    """The same network, with initial latents for all trials: those of the others are the mean."""
    parameters = {name: np.asarray(value) for name, value in problem.space.unwhiten(z).items()}
    if "initial_kappa" in parameters:
        mean = parameters["initial_kappa"].mean(axis=0)
        parameters["initial_kappa"] = np.tile(mean, (base.recording.num_trials, 1))
    return np.asarray(base.space.whiten(parameters))
