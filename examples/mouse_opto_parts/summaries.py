"""The numbers of the page."""

from __future__ import annotations

import numpy as np

import lrposterior as lrp
from mouse_opto_parts.session import DT, LIGHT_ON, Session

INTERVAL = (0.05, 0.5, 0.95)
CLASSES = ("E ensemble", "I ensemble", "single cell")


def check_noise(session: Session, posterior: lrp.Posterior, *, num_draws: int, seed: int) -> dict:
    """Statistics of the residuals beside those of data that the posterior itself would make."""
    activity, seen = session.recording.activity[0], session.recording.mask[0, :, 0]
    rates = posterior.predict_rates(num_draws=num_draws, seed=seed)[:, 0]
    noise = posterior.sample_parameters(num_draws, seed=seed)["noise_scale"][:, None, :]
    replicated = np.random.default_rng(seed).standard_normal(rates.shape)
    before, settled = session.times + 2.0 * DT <= LIGHT_ON, session.times > LIGHT_ON + 0.1

    def statistics(residuals: np.ndarray, values: np.ndarray) -> dict[str, np.ndarray]:
        """(draw,) each, of standardised residuals and activity (draw, time, neuron)."""
        ratio = residuals[:, before].std(axis=1) / np.maximum(residuals[:, settled].std(axis=1), 1e-9)
        products = (residuals[:, 1:] * residuals[:, :-1])[:, seen[1:] & seen[:-1]].mean(axis=(1, 2))
        residuals = residuals[:, seen]
        return {
            "before_over_during": np.median(ratio, axis=1),
            "beyond_three": (np.abs(residuals) > 3.0).mean(axis=(1, 2)),
            "autocorrelation": products / (residuals**2).mean(axis=(1, 2)),
            "negative": (values[:, seen] < 0.0).mean(axis=(1, 2)),
        }

    recorded = statistics((activity - rates) / noise, np.broadcast_to(activity, rates.shape))
    expected = statistics(replicated, rates + noise * replicated)
    checks = {
        name: {
            "recorded": float(np.median(recorded[name])),
            "replicated": np.quantile(expected[name], [0.05, 0.95]).tolist(),
        }
        for name in recorded
    }
    return checks | {
        "over_counts_before": _over_counts(session, before),
        "over_counts_during": _over_counts(session, settled),
    }


def _over_counts(session: Session, epoch: np.ndarray) -> float:
    """Median over neurons of the variance over bins, in units of that of spike counts at the mean rate."""
    activity = session.recording.activity[0, epoch]
    mean = activity.mean(axis=0)
    fires = mean >= 0.2
    return float(np.median(activity.var(axis=0, ddof=1)[fires] / (mean * session.spike)[fires]))


def summarize_connectivity(
    session: Session, posterior: lrp.Posterior, degeneracy: lrp.Degeneracy, *, num_draws: int, seed: int
) -> dict:
    W = posterior.sample_connectivity(num_draws, seed=seed)
    lower, upper = posterior.connectivity_interval(0.9, num_draws=num_draws, seed=seed)
    contraction, alone, statistics = degeneracy.contraction, degeneracy.connectivity, posterior.statistics
    energy = np.linalg.svd(posterior.mode_rates()[0], compute_uv=False) ** 2
    return {
        "num_neurons": session.recording.num_neurons,
        "num_synapses": session.recording.num_neurons**2,
        "num_directions": alone.num_directions,
        "num_constrained": alone.num_constrained,
        "num_degenerate": alone.num_degenerate,
        "effective_parameters": alone.effective_parameters,
        "information": alone.information,
        "variance_removed_median": float(np.median(contraction)),
        "variance_removed_above": {str(share): float(np.mean(contraction > share)) for share in (0.1, 0.5, 0.9)},
        "sign_known": float(np.mean((lower > 0.0) | (upper < 0.0))),
        "read_share": float(degeneracy.read.shares[: posterior.model.rank].sum()),
        "num_rate_patterns": int(1 + np.argmax(np.cumsum(energy) > 0.999 * energy.sum())),
        "effective_rank": np.quantile(W.effective_rank(), INTERVAL).tolist(),
        "spectral_radius": np.quantile(np.abs(W.eigenvalues()[:, 0]), INTERVAL).tolist(),
        "time_constant": float(posterior.mode["time_constant"]),
        "log_evidence": statistics.log_evidence,
        "mode_log_evidences": list(statistics.mode_log_evidences),
        "mode_counts": list(statistics.mode_counts),
    }


# [drives]
def drives_between_types(session: Session, W: lrp.LowRankConnectivity) -> dict[str, np.ndarray]:
    """(draw,) for every pair of types: what an average neuron receives where all of a type fire 1 spike/s more."""
    members = {"E": session.is_E, "I": ~session.is_E}
    return {
        f"{pre} → {post}": W.matvec(members[pre].astype(float))[:, members[post]].mean(axis=1)
        for pre in members
        for post in members
    }


# [end]
def drives_by_light(session: Session, B: np.ndarray) -> dict[str, np.ndarray]:
    """(draw,) mean weight of the light, from B (draw, neuron, input)."""
    return {"light → E": B[:, session.is_E, 0].mean(axis=1), "light → I": B[:, ~session.is_E, 0].mean(axis=1)}


def summarize_drives(session: Session, posterior: lrp.Posterior, *, num_draws: int, seed: int) -> dict[str, dict]:
    """Medians and 90% intervals under the posterior and under the prior."""
    drawn = posterior.sample_parameters(num_draws, seed=seed)
    z = np.random.default_rng(seed).standard_normal((num_draws, posterior.space.size))
    prior = {name: np.asarray(value) for name, value in posterior.space.unwhiten(z).items()}
    after, before = (
        drives_between_types(session, lrp.LowRankConnectivity(one["M"], one["K"])) | drives_by_light(session, one["B"])
        for one in (drawn, prior)
    )
    return {
        name: {
            "posterior": np.quantile(after[name], INTERVAL).tolist(),
            "prior": np.quantile(before[name], INTERVAL).tolist(),
            "positive": float(np.mean(after[name] > 0.0)),
        }
        for name in after
    }


def class_of(label: str) -> str:
    """The class of a candidate, by its label."""
    return "single cell" if " ensemble " not in label else label.rpartition(" ")[0]


def summarize_ranking(session: Session, ranking: lrp.PerturbationRanking) -> dict:
    activity, onset, best = session.recording.activity[0], session.artefact, ranking.order[:10]
    by_light = activity[onset + 11 :].mean(axis=0) - activity[:onset].mean(axis=0)
    predicted = ranking.response_mean[best].mean(axis=(1, 2))
    cosine = predicted @ by_light / (np.linalg.norm(predicted, axis=1) * np.linalg.norm(by_light))
    return {
        "classes": _summarize_classes(ranking),
        "ten_best": {
            "readout": float(np.median(ranking.readout_mean[best])),
            "cosine_with_light": float(np.median(cosine)),
        },
    }


def _summarize_classes(ranking: lrp.PerturbationRanking) -> dict[str, dict]:
    classes = np.array([class_of(label) for label in ranking.labels])
    summary = {}
    for name in CLASSES:
        rows = np.flatnonzero(classes == name)
        best = rows[np.argmax(ranking.expected_r2[rows])]
        sure = ranking.sign_certainty[rows] >= 0.95
        summary[name] = {
            "num_candidates": len(rows),
            "expected_r2": {
                "lowest": float(ranking.expected_r2[rows].min()),
                "median": float(np.median(ranking.expected_r2[rows])),
                "highest": float(ranking.expected_r2[rows].max()),
            },
            "above_half": float(np.mean(ranking.expected_r2[rows] > 0.5)),
            "share_degenerate": float(np.median(ranking.share_degenerate[rows])),
            "sure_fall": float(np.mean(sure & (ranking.readout_mean[rows] < 0.0))),
            "sure_rise": float(np.mean(sure & (ranking.readout_mean[rows] > 0.0))),
            "best": ranking.labels[best],
        }
    return summary
