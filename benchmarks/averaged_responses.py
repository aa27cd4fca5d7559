"""Responses of currents to stimulation, averaged over more realisations of the process noise than predictions have."""

import dataclasses

import numpy as np

import lrposterior as lrp
from lrposterior.perturbation.experiment import Experiment
from lrposterior.perturbation.responses import response_draws


def of_posterior(posterior: lrp.Posterior, experiment: Experiment, num_draws: int, num_repeats: int) -> np.ndarray:
    """(draw, candidate, condition, time, neuron).

    A prediction has eight realisations of the noise for each draw, whose scatter would widen the intervals; here they
    are eight times `num_repeats`.
    """
    parameters = posterior.sample_parameters(num_draws, seed=1)
    repeats = num_repeats if posterior.model.process_noise is not None else 1
    each = (dataclasses.replace(experiment, noise_seed=seed) for seed in range(repeats))
    return sum(response_draws(posterior.model, parameters, again, "current") for again in each) / repeats


def of_truth(
    model: lrp.LowRankModel, truth: lrp.Simulation, recording: lrp.Recording, experiment: Experiment, number: int
) -> np.ndarray:
    """(candidate, condition, time, neuron) of the true network as this model, over eight times `number` realisations.

    Args:
        model: of the truth.
        truth: the network.
        recording: of its neurons.
        experiment: the stimulations.
        number: of averages over eight realisations.
    """
    settled = model.with_noise_along(truth.parameters["M"]).for_recording(recording)
    repeated = {name: np.repeat(value[None], number, axis=0) for name, value in truth.parameters.items()}
    return response_draws(settled, repeated, experiment, "current").mean(axis=0)
