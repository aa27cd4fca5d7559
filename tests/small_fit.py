"""One small fit with its results, made once per test process: for the tests of figures, report and commands."""

import dataclasses
import functools
from types import SimpleNamespace

import numpy as np
from plain import plain_model

import lrposterior as lrp
from lrposterior.degeneracy import analyze_degeneracy
from lrposterior.perturbation.prediction import rank_perturbations

EVIL = "<script>alert(1)</script> $x^2"


@functools.cache
def small_fit() -> SimpleNamespace:
    """A recording of 8 neurons with labels, cell types and masked entries, fitted, analysed and ranked."""
    model = plain_model(rank=1)
    simulation = lrp.simulate_recording(
        model, num_neurons=8, num_trials=5, num_bins=24, dt=0.02, num_inputs=1, noise_scale=0.1, seed=3
    )
    mask = np.ones(simulation.recording.activity.shape, dtype=bool)
    mask[:, 10:12, 2] = False
    recording = dataclasses.replace(
        simulation.recording,
        mask=mask,
        neuron_labels=[EVIL, *(f"cell {index}" for index in range(1, 8))],
        cell_types=["I", "E", "E", "E", "I", "E", "E", "E"],
    )
    training, held_out = recording.split(0.4, seed=0)
    posterior = lrp.fit(model, training, seed=0, progress=False)
    candidates = lrp.combine_candidates(
        lrp.single_neuron_candidates(training),
        lrp.ensemble_candidates(training, num_candidates=6, size=3, seed=0),
        lrp.latent_candidates(training, num_candidates=4, num_components=1, seed=0),
    )
    ranking = rank_perturbations(posterior, candidates, num_draws=50, seed=0, progress=False)
    return SimpleNamespace(
        simulation=simulation,
        training=training,
        held_out=held_out,
        posterior=posterior,
        degeneracy=analyze_degeneracy(posterior),
        candidates=candidates,
        ranking=ranking,
    )
