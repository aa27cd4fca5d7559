"""Recordings in which some trials have stimulation and others have none, of a network whose connectivity is known."""

from typing import Any

import numpy as np

import lrposterior as lrp


def stimulated(
    model: lrp.LowRankModel,
    *,
    num_neurons: int,
    num_trials: int,
    num_new: int,
    num_bins: int = 30,
    num_targets: int = 2,
    seed: int,
    **options: Any,
) -> tuple[lrp.Simulation, lrp.Recording]:
    """A simulation without stimulation, and trials in which a few neurons are stimulated in a third of the bins."""
    simulation = lrp.simulate_recording(
        model, num_neurons=num_neurons, num_trials=num_trials, num_bins=num_bins, noise_scale=0.1, seed=seed, **options
    )
    random = np.random.default_rng(seed)
    stimulation = np.zeros((num_new, num_bins, num_neurons))
    for trial in stimulation:
        trial[num_bins // 4 : num_bins // 2, random.choice(num_neurons, num_targets, replace=False)] = 1.0
    inputs = np.zeros((num_new, num_bins, simulation.recording.num_inputs))
    like = lrp.Recording(np.zeros(stimulation.shape), simulation.recording.dt, inputs, stimulation)
    parameters = dict(simulation.parameters)
    if "initial_kappa" in parameters:
        parameters["initial_kappa"] = random.standard_normal((num_new, model.rank))
    return simulation, model.simulate(parameters, like, seed=seed + 1)
