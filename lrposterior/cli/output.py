"""What the command line prints and writes: tables for people, JSON for machines."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrposterior.files import replacing

if TYPE_CHECKING:
    from lrposterior.degeneracy import Degeneracy
    from lrposterior.diagnosis import Diagnosis, NetworkStatistics
    from lrposterior.fit_quality import FitQuality
    from lrposterior.perturbation.ranking import PerturbationRanking
    from lrposterior.posterior import Posterior
    from lrposterior.preprocessing import Clipping
    from lrposterior.recording import Recording


def save_ranking(ranking: PerturbationRanking, path: Path) -> None:
    """Write all candidates, as a table (.csv) or with their predicted responses (.nc)."""
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            ranking.top(ranking.num_candidates).to_csv(temporary)
        else:
            ranking.to_xarray().to_netcdf(temporary, engine="h5netcdf")


def format_ranking(ranking: PerturbationRanking, top: int) -> str:
    """The best candidates as a table, under a line that says what they are ranked by."""
    lowest, highest = f"{ranking.power.min():.4g}", f"{ranking.power.max():.4g}"
    power = lowest if lowest == highest else f"{lowest} to {highest}"
    columns = {
        "expected R²": ranking.expected_r2,
        "contraction": ranking.contraction,
        "information (nats)": ranking.information,
        "degenerate share": ranking.share_degenerate,
        f"response rms ({ranking.quantity})": ranking.response_size,
    }
    best = ranking.order[:top]
    width = min(32, max(len("candidate"), *(len(ranking.labels[candidate]) for candidate in best)))
    header = "  ".join([f"{'':>4} {'candidate':<{width}}", *columns])
    rows = []
    for place, candidate in enumerate(best, start=1):
        label = " ".join(ranking.labels[candidate].split())[:width]
        numbers = [f"{values[candidate]:>{len(name)}.3g}" for name, values in columns.items()]
        rows.append("  ".join([f"{place:>4} {label:<{width}}", *numbers]))
    return "\n".join(
        [
            f"{ranking.num_candidates} candidates by {ranking.by}, from {ranking.num_draws} draws; power {power} "
            "current² s; "
            f"{ranking.quantity} from {ranking.times[0]:.4g} to {ranking.times[-1]:.4g} s",
            header,
            *rows,
            *(f"beware: {warning}" for warning in ranking.warnings),
        ]
    )


def describe_recording(recording: Recording) -> dict[str, Any]:
    """Its size, for JSON."""
    names = ("num_trials", "num_bins", "num_neurons", "num_inputs")
    return {name: getattr(recording, name) for name in names} | {"dt_s": recording.dt}


def describe_clipping(clipping: Clipping | None) -> dict[str, Any] | None:
    """How much was clipped, for JSON."""
    if clipping is None:
        return None
    return {
        "num_clipped": int(clipping.num_clipped.sum()),
        "num_observed": int(clipping.num_observed.sum()),
        "num_neurons": int(np.count_nonzero(clipping.num_clipped)),
    }


def describe_fit(posterior: Posterior, fitted: FitQuality, validation: FitQuality | None) -> dict[str, Any]:
    """How a fit went, for JSON."""
    statistics = posterior.statistics
    counted = ("objective", "gradient_norm", "decrement", "num_iterations", "log_evidence", "evidence_note")
    return {
        "method": posterior.method,
        "status": posterior.status,
        "seed": posterior.seed,
        "rank": posterior.model.rank,
        "recording": describe_recording(posterior.recording),
        **{name: getattr(statistics, name) for name in counted},
        "wall_time_s": statistics.wall_time,
        "mode_objectives": statistics.mode_objectives,
        "mode_log_evidences": statistics.mode_log_evidences,
        "mode_counts": statistics.mode_counts,
        "diagnostics": dict(statistics.diagnostics),
        "scales": dict(statistics.scales),
        **_describe_time_constants(posterior),
        "explained_variance": {
            "fitted": fitted.explained_variance,
            "held_out": None if validation is None else validation.explained_variance,
            "held_out_expected": None if validation is None else validation.expected,
        },
    }


def _describe_time_constants(posterior: Posterior) -> dict[str, Any]:
    """At the mode, and 90% intervals (lower, upper) where they are inferred; as numbers or lists of them."""
    from lrposterior.posterior import typical_time_constant_interval

    dt, tau, interval = (
        posterior.recording.dt,
        posterior.mode["time_constant"],
        typical_time_constant_interval(posterior),
    )
    return {
        "time_constant_s": tau.tolist(),
        "time_constant_interval_s": None if interval is None else [each.tolist() for each in interval],
        "integration_constant": (dt / tau).tolist(),
        "integration_constant_interval": None
        if interval is None
        else [(dt / each).tolist() for each in interval[::-1]],
    }


def describe_modes(posterior: Posterior) -> str:
    """One line on how many modes were looked for and found, or on the networks that match."""
    statistics = posterior.statistics
    if posterior.is_point_estimate:
        number = len(statistics.training_loss)
        return f"networks: {number}, each from a start of its own, after {statistics.num_iterations} epochs at most"
    counts, objectives = statistics.mode_counts, statistics.mode_objectives
    if max(sum(counts), len(objectives)) <= 1:
        return f"mode: one start, {statistics.num_iterations} steps; --restarts looks for others"
    if not counts:
        return f"modes: of {len(objectives)} starts, at {objectives[0]:.2f} to {objectives[-1]:.2f} nats"
    return f"modes: {len(counts)} distinct one(s) from {sum(counts)} starts; the best was reached {counts[0]} time(s)"


def describe_degeneracy(analysis: Degeneracy) -> dict[str, Any]:
    """The counts and the spectrum, for JSON."""
    names = (
        "threshold", "num_gauge", "num_trades", "num_unseen", "num_constrained", "num_degenerate",
        "effective_parameters", "information",
        "rate_rank", "null_dimension", "max_constrained_connectivity", "null_deviation",
    )  # fmt: skip
    renamed = {"information": "information_nats"}
    of_directions = ("num_directions", "num_constrained", "num_degenerate", "effective_parameters", "information")
    return {renamed.get(name, name): getattr(analysis, name) for name in names} | {
        "spectrum": analysis.spectrum.tolist(),
        "connectivity": {renamed.get(name, name): getattr(analysis.connectivity, name) for name in of_directions},
        "median_contraction": float(np.median(analysis.sampled_contraction)),
    }


def describe_diagnosis(diagnosis: Diagnosis) -> dict[str, Any]:
    """All numbers and verdicts, for JSON."""
    data, inputs, shares = diagnosis.data, diagnosis.inputs, diagnosis.generalisation
    of_inputs = ("mean", "sd", "lowest", "highest", "share_on")
    return {
        "data": {
            "unit": data.unit,
            "mean": data.mean,
            "neuron_means": data.neuron_means.tolist(),
            "num_silent": data.num_silent,
            "largest": data.largest,
            "outliers": data.outliers.tolist(),
            **data.signal._asdict(),
        },
        "inputs": {name: getattr(inputs, name).tolist() for name in of_inputs}
        | {"constant": inputs.constant, "duplicates": inputs.duplicates},
        "untrained": _describe_networks(diagnosis.untrained),
        "trained": None if diagnosis.trained is None else _describe_networks(diagnosis.trained),
        "explained_variance": None if shares is None else {"fitted": shares.fitted, "held_out": shares.held_out},
        "verdicts": [{"name": one.name, "found": one.found, "mend": one.mend} for one in diagnosis.verdicts],
    }


def _describe_networks(networks: NetworkStatistics) -> dict[str, Any]:
    names = (
        "num_networks", "share_diverging", "level_without_inputs", "level_of_tenfold_inputs",
        "input_modulation", "spectral_radius",
    )  # fmt: skip
    weights = {name: each._asdict() for name, each in networks.weights.items()}
    return {name: getattr(networks, name) for name in names} | networks.signal._asdict() | {"weights": weights}


def describe_ranking(ranking: PerturbationRanking, top: int) -> dict[str, Any]:
    """The best candidates with all their scores, for JSON."""
    columns = {
        "power_current2_s": ranking.power,
        "expected_r2": ranking.expected_r2,
        "contraction": ranking.contraction,
        "information_nats": ranking.information,
        "share_degenerate": ranking.share_degenerate,
        f"response_rms_{ranking.quantity}": ranking.response_size,
        f"readout_mean_{ranking.quantity}": ranking.readout_mean,
        "sign_certainty": ranking.sign_certainty,
    }
    best = [
        {"candidate": int(candidate), "label": ranking.labels[candidate]}
        | {name: float(values[candidate]) for name, values in columns.items()}
        for candidate in ranking.order[:top]
    ]
    return {
        "by": ranking.by,
        "quantity": ranking.quantity,
        "num_candidates": ranking.num_candidates,
        "num_draws": ranking.num_draws,
        "warnings": list(ranking.warnings),
        "seed": ranking.seed,
        "window_start_s": float(ranking.times[0]),
        "window_last_bin_s": float(ranking.times[-1]),
        "top": best,
    }


def to_json(value: dict[str, Any]) -> str:
    """The value as JSON, with null for what is not finite."""
    return json.dumps(_plain(value), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    """Numbers, strings, lists and dictionaries; what is not finite becomes null, which JSON has."""
    if isinstance(value, dict):
        return {name: _plain(content) for name, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(content) for content in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def listed(*paths: Path | None) -> str:
    """The files among these, in one line."""
    return ", ".join(str(path) for path in paths if path is not None)
