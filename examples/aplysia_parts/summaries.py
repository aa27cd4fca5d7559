"""What the posterior says about the connectivity, and about stimulations."""

from __future__ import annotations

import numpy as np

import lrposterior as lrp
from aplysia_parts.recordings import Preparation

INTERVAL = (0.05, 0.5, 0.95)
CLASSES = ("ensemble", "along the activity", "single neuron")


def rate_correlations(preparation: Preparation) -> list[float]:
    """Of the neurons' mean counts: between the two training responses, and between their mean and the third."""
    first, second = preparation.counts.mean(axis=1)
    third = preparation.test.activity[0].mean(axis=0)
    pairs = ((first, second), (0.5 * (first + second), third))
    return [float(np.corrcoef(*pair)[0, 1]) for pair in pairs]


def summarize_connectivity(posterior: lrp.Posterior, degeneracy: lrp.Degeneracy, *, num_draws: int, seed: int) -> dict:
    W, alone = posterior.sample_connectivity(num_draws, seed=seed), degeneracy.connectivity
    lower, upper = posterior.connectivity_interval(0.9, num_draws=num_draws, seed=seed)
    a = posterior.recording.dt / float(posterior.mode["time_constant"])
    steps = 1.0 - a + a * W.eigenvalues()[:, : posterior.model.rank]  # of the latents, from bin to bin
    largest = steps[np.arange(len(steps)), np.argmax(np.abs(steps), axis=1)]
    return {
        "num_neurons": posterior.recording.num_neurons,
        "num_directions": alone.num_directions,
        "num_constrained": alone.num_constrained,
        "num_degenerate": alone.num_degenerate,
        "information": alone.information,
        "variance_removed_median": float(np.median(degeneracy.contraction)),
        "sign_known": float(np.mean((lower > 0.0) | (upper < 0.0))),
        "largest_step": np.quantile(np.abs(largest), INTERVAL).tolist(),
        "unstable": float(np.mean(np.abs(largest) > 1.0)),
        "frequency": np.quantile(np.abs(np.angle(largest)) / (2.0 * np.pi * posterior.recording.dt), INTERVAL).tolist(),
    }


def class_of(label: str) -> str:
    """The class of a candidate, by its label."""
    return "ensemble" if "ensemble" in label else "single neuron" if "neuron" in label else "along the activity"


def summarize_ranking(ranking: lrp.PerturbationRanking) -> dict:
    classes = np.array([class_of(label) for label in ranking.labels])
    summary = {}
    for name in CLASSES:
        rows = np.flatnonzero(classes == name)
        r2 = ranking.expected_r2[rows]
        summary[name] = {
            "num_candidates": len(rows),
            "expected_r2": [float(np.min(r2)), float(np.median(r2)), float(np.max(r2))],
            "share_degenerate": float(np.median(ranking.share_degenerate[rows])),
            "noise_share": float(np.median(ranking.noise_share[rows])),
            "sign_sure": float(np.mean(ranking.sign_certainty[rows] >= 0.95)),
        }
    return {"classes": summary, "best": [ranking.labels[row] for row in ranking.order[:5]]}
