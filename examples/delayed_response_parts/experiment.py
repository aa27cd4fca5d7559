"""What is recorded from a trained network, and what is done to it afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import lrposterior as lrp
from delayed_response_parts.task import DT, NUM_BINS, TAU, Trials, make_trials

NOISE, ENSEMBLE = 0.1, 10
ONSET, NUM_STIMULATED, WINDOW, POWER_NORM = 20, 5, 30, np.sqrt(10.0)
CLASSES = ("random ensembles", "single units", "latent directions")
TWIN = lrp.FullRankNetwork(time_constant=TAU)


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    num_units: int = 200
    num_trials: int = 24
    num_steps: int = 600
    per_class: int = 20
    num_conditions: int = 4
    num_draws: int = 299
    num_replicates: int = 20
    circuit_sizes: tuple[int, ...] = (4, 6, 8, 10)
    twin_steps: int = 150
    circuit_steps: int = 300
    rank: int = 3


TINY = Size(
    num_units=24,
    num_trials=8,
    num_steps=30,
    per_class=3,
    num_conditions=2,
    num_draws=40,
    circuit_sizes=(2, 3),
    twin_steps=3,
    circuit_steps=5,
    rank=1,
)


@dataclass(frozen=True)
class Experiment:
    """A recording of a network, and perturbations with the true responses.

    Attributes:
        network: the trained network by name.
        trials: the task of the recording.
        recording: rates with noise, without any stimulation.
        candidates: perturbations, the same number of each class.
        classes: the class of each.
        inputs: (condition, time, input) under which they are applied.
        truth: (candidate, condition, time, neuron) responses of the rates, without the direct effect.
        tested: trials that no model has seen, and their rates without noise.
    """

    network: dict[str, np.ndarray]
    trials: Trials
    recording: lrp.Recording
    candidates: lrp.Candidates
    classes: tuple[str, ...]
    inputs: np.ndarray
    truth: np.ndarray
    tested: lrp.Recording


def make_experiment(network: dict[str, np.ndarray], size: Size, seed: int) -> Experiment:
    trials, random = make_trials(size.num_trials, seed + 1000), np.random.default_rng([seed, 2])
    silent = lrp.Recording(np.zeros((size.num_trials, NUM_BINS, size.num_units)), DT, inputs=trials.inputs)
    true = lrp.NetworkPosterior.known(TWIN, silent, network)
    rates = true.predict_rates(trials.inputs, num_draws=1, seed=0)[0]
    recording = lrp.Recording(rates + NOISE * random.standard_normal(rates.shape), DT, inputs=trials.inputs)
    candidates = make_candidates(recording, size, random)
    conditions = make_trials(2 * size.num_conditions, seed + 2000).inputs[: size.num_conditions]
    new = make_trials(12, seed + 3000).inputs
    return Experiment(
        network,
        trials,
        recording,
        candidates,
        tuple(np.repeat(CLASSES, size.per_class).tolist()),
        conditions,
        lrp.predict_responses(true, candidates, inputs=conditions, window=window(), quantity="rate", num_draws=1)[0],
        lrp.Recording(true.predict_rates(new, num_draws=1, seed=0)[0], DT, inputs=new),
    )


def window() -> tuple[float, float]:
    return ONSET * DT, (ONSET + WINDOW) * DT


def make_candidates(recording: lrp.Recording, size: Size, random: np.random.Generator) -> lrp.Candidates:
    """Ten random neurons, one neuron, or a direction among the two leading principal components; of one norm."""
    num_units = recording.num_neurons
    ensembles = np.zeros((size.per_class, num_units))
    for pattern in ensembles:
        pattern[random.choice(num_units, ENSEMBLE, replace=False)] = 1.0
    singles = np.eye(num_units)[random.choice(num_units, size.per_class, replace=False)]
    activity = recording.activity.reshape(-1, num_units)
    plane = np.linalg.svd(activity - activity.mean(axis=0), full_matrices=False)[2][:2]
    directions = random.standard_normal((size.per_class, 2)) @ plane
    patterns = np.concatenate([ensembles, singles, directions])
    patterns /= np.linalg.norm(patterns, axis=1, keepdims=True)
    return lrp.pattern_candidates(
        recording, patterns, power=POWER_NORM**2 * NUM_STIMULATED * DT, onset=ONSET * DT, duration=NUM_STIMULATED * DT
    )
