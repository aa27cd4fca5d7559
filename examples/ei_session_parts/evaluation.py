"""Fitted networks beside held-out trials, and beside the truth, which a laboratory does not have."""

from __future__ import annotations

import numpy as np

import lrposterior as lrp
from ei_session_parts.session import DT, Size
from lrposterior.distribution import SampleDistribution
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.responses import response_draws

WIDTH = 0.05
PAIRS = (("E", "E"), ("E", "I"), ("I", "E"), ("I", "I"))
# Of a stimulation: current, onset, duration, and how long its response is followed, in s.
CURRENT, ONSET, DURATION, FOLLOWED = 0.5, 1.0, 0.25, 0.5


# [runaways]
def without_runaways(fit: lrp.Posterior, num_draws: int) -> tuple[lrp.Posterior, float]:
    """The posterior given that activity stays bounded, as it did in the recording, and the share of draws left out."""
    bounded = lrp.keep_bounded(fit, num_draws=num_draws, seed=0)
    if isinstance(bounded.distribution, SampleDistribution):
        return bounded, 1.0 - bounded.distribution.draws.shape[1] / num_draws
    return fit, 0.0


# [end]
# [compare]
def compare(fit: lrp.Posterior, held_out: lrp.Recording, size: Size) -> dict[str, list[float]]:
    """Every statistic with its 90% interval over trials."""
    found = lrp.score_trials(
        fit,
        held_out,
        width=WIDTH,
        conditions=held_out.trial_labels,
        num_simulations=size.num_simulations,
        seed=0,
    )
    return {name: [value.value, *value.interval] for name, value in found.statistics.items()}


# [end]
def interval(values: np.ndarray) -> list[float]:
    return np.quantile(values, [0.05, 0.5, 0.95], axis=0).tolist()


def integration_constants(fit: lrp.Posterior, num_draws: int) -> dict[str, list[float]]:
    """a = dt / time constant by cell type: 5%, 50% and 95% quantiles."""
    draws = DT / fit.sample_parameters(num_draws, seed=0)["time_constant"]
    return {name: interval(draws[:, place]) for place, name in enumerate(("E", "I"))}


def mean_weights(W: np.ndarray, cell_types: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Mean over the synapses of each pair of types, of W (..., post, pre)."""
    types = np.array(cell_types)
    return {f"{pre}→{post}": W[..., types == post, :][..., types == pre].mean(axis=(-2, -1)) for pre, post in PAIRS}


def connectivity(fit: lrp.Posterior, W: np.ndarray, num_draws: int) -> dict:
    """Mean weights of draws, and of every pair of types the part of the 90% intervals that hold the true synapse."""
    types = fit.recording.cell_types
    draws = fit.sample_connectivity(num_draws, seed=0).to_dense()
    lower, upper = np.quantile(draws, [0.05, 0.95], axis=0)
    held = mean_weights(((lower <= W) & (upper >= W)).astype(float), types)
    return {
        "means": {name: interval(values) for name, values in mean_weights(draws, types).items()},
        "cover": {name: float(value) for name, value in held.items()},
        "all": float(np.mean((lower <= W) & (upper >= W))),
        "correlation": float(np.corrcoef(W.ravel(), draws.mean(axis=0).ravel())[0, 1]),
    }


# [degeneracy]
def degeneracy(fit: lrp.Posterior) -> dict:
    """How many directions of W the session constrains, and how many it leaves to the prior."""
    found = lrp.analyze_degeneracy(fit)
    return {
        "constrained": found.connectivity.num_constrained,
        "degenerate": found.connectivity.num_degenerate,
        "effective": found.connectivity.effective_parameters,
        "gauge": found.num_gauge,
        "removed": np.quantile(found.contraction, [0.05, 0.5, 0.95]).tolist(),
    }


# [end]
# [candidates]
def make_candidates(fitted: lrp.Recording, size: Size) -> lrp.Candidates:
    """All E or all I neurons, and ensembles of five, at one current."""
    types = np.array(fitted.cell_types)
    random = np.random.default_rng(1)
    patterns = [types == "E", types == "I"]
    labels = ["all E", "all I"]
    for number in range(size.num_ensembles):
        name = "EI"[number % 2]
        members = np.flatnonzero(types == name)
        chosen = random.choice(members, min(5, len(members)), replace=False)
        patterns.append(np.isin(np.arange(len(types)), chosen))
        labels.append(f"{name} ensemble {number // 2}")
    bins = np.arange(fitted.num_bins) * DT
    time_course = (bins >= ONSET) & (bins < ONSET + DURATION) if fitted.num_bins > ONSET / DT else bins < DURATION
    return lrp.Candidates(CURRENT * np.array(patterns, dtype=float), time_course.astype(float), labels, dt=DT)


# [end]
def window(candidates: lrp.Candidates) -> tuple[float, float]:
    """From two bins after the onset on, when a stimulation has moved others."""
    onset = float(np.flatnonzero(candidates.time_course)[0]) * DT
    return onset + 2 * DT, onset + FOLLOWED


def true_responses(
    fit: lrp.Posterior, truth: lrp.Simulation, candidates: lrp.Candidates, inputs: np.ndarray, number: int
) -> np.ndarray:
    """(candidate, condition, time, neuron) of the network itself, averaged over its noise.

    Args:
        fit: of which the predictions are to be compared.
        truth: the network.
        candidates: the stimulations.
        inputs: (condition, time, input).
        number: of averages over eight realisations of the noise each.
    """
    settled = truth.model.with_noise_along(truth.parameters["M"]).for_recording(truth.recording)
    repeated = {name: np.repeat(value[None], number, axis=0) for name, value in truth.parameters.items()}
    experiment = make_experiment(fit, candidates, inputs, window(candidates))
    return response_draws(settled, repeated, experiment, "current").mean(axis=0)


def perturbations(
    fit: lrp.Posterior, candidates: lrp.Candidates, true: np.ndarray, inputs: np.ndarray, size: Size
) -> dict:
    """Predicted responses beside the true ones: cover, certainty, and the accuracy that the predictions have."""
    number = size.num_draws if not fit.is_point_estimate else size.num_members
    draws = lrp.predict_responses(fit, candidates, inputs=inputs, window=window(candidates), num_draws=number, seed=0)
    mean, types = draws.mean(axis=0), np.array(fit.recording.cell_types)
    axes = tuple(range(1, true.ndim))
    achieved = 1.0 - np.sum((mean - true) ** 2, axis=axes) / np.sum(true**2, axis=axes)
    lower, upper = np.quantile(draws, [0.05, 0.95], axis=0)
    held = ((lower <= true) & (true <= upper)).mean(axis=axes)
    found = {
        "labels": list(candidates.labels),
        "achieved": achieved.tolist(),
        "cover": {"all E": float(held[0]), "all I": float(held[1]), "ensembles": float(held[2:].mean())},
        "courses": {
            name: {
                seen: {
                    "true": true[place][..., types == seen].mean(axis=(0, 2)).tolist(),
                    "draws": interval(draws[:, place][..., types == seen].mean(axis=(1, 3))),
                }
                for seen in "EI"
            }
            for place, name in enumerate(("all E", "all I"))
        },
        "times": (DT * np.arange(true.shape[2]) + window(candidates)[0]).tolist(),
    }
    if fit.is_point_estimate:
        return found
    ranking = lrp.rank_perturbations(
        fit, candidates, inputs=inputs, window=window(candidates), num_draws=size.num_draws, seed=0, progress=False
    )
    return found | {"expected": ranking.expected_r2.tolist(), "noise_share": ranking.noise_share.tolist()}
