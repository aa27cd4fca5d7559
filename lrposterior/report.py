"""A report of one fit: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import dataclasses
import os

import jinja2
import numpy as np
from matplotlib.figure import Figure

from lrposterior.background import FixedBackground, RandomBulk
from lrposterior.checks import argument_error, require_instance
from lrposterior.connectivity import some_synapses
from lrposterior.degeneracy import Degeneracy
from lrposterior.files import replacing, require_file_name
from lrposterior.fit_quality import FitQuality, assess_fit
from lrposterior.misfit import check_fit
from lrposterior.parameters import of_type
from lrposterior.perturbation.ranking import PerturbationRanking
from lrposterior.plots import (
    plot_certainty_information,
    plot_connectivity,
    plot_contraction,
    plot_explained_variance,
    plot_ranking,
    plot_rates,
    plot_recording,
    plot_residuals,
    plot_responses,
    plot_spectrum,
    plot_subspaces,
    to_png,
)
from lrposterior.plots.style import MOST_NEURONS, RECORDED_UNITS, neurons_shown
from lrposterior.populations import ByCellType
from lrposterior.posterior import Posterior, describe_loadings, describe_scale, describe_time_constants
from lrposterior.priors import DaleLoadings, Priors, Scale, TimeConstantPrior, center
from lrposterior.recording import Recording
from lrposterior.signed_background import SignedBackground
from lrposterior.storage import package_version
from lrposterior.time_constants import PerNeuron

NUM_BEST = 10
NUM_DRAWS = 400
INTERVAL_90 = 1.645


def write_report(
    path: str | os.PathLike[str],
    posterior: Posterior,
    degeneracy: Degeneracy,
    ranking: PerturbationRanking,
    *,
    held_out: Recording | None = None,
    title: str = "What the recording says about the circuit",
    activity_unit: str = RECORDED_UNITS,
    seed: int,
) -> None:
    """Write one HTML file with the data, the quality of the fit, connectivity, degeneracy and ranking.

    Args:
        path: Name of the file, ending in .html; it appears complete or not at all.
        posterior: The fit.
        degeneracy: Its degeneracy analysis.
        ranking: A ranking of perturbations under it.
        held_out: Trials that were kept from the fit, or `None`.
        title: Heading of the report.
        activity_unit: Unit of the activity, for instance "spikes/s".
        seed: Seed of the draws behind the figures.

    Raises:
        ValueError: Another ending, no such folder, results of another fit, or held-out trials that do not fit.
    """
    path = require_file_name(path, "path", (".html",))
    text = render_report(
        posterior, degeneracy, ranking, held_out=held_out, title=title, activity_unit=activity_unit, seed=seed
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render_report(
    posterior: Posterior,
    degeneracy: Degeneracy,
    ranking: PerturbationRanking,
    *,
    held_out: Recording | None = None,
    title: str = "What the recording says about the circuit",
    activity_unit: str = RECORDED_UNITS,
    seed: int,
) -> str:
    """The report as text; see `write_report`."""
    require_instance(posterior, "posterior", Posterior, "pass what fit or load_posterior returned")
    require_instance(degeneracy, "degeneracy", Degeneracy, "make it with analyze_degeneracy(posterior)")
    require_instance(ranking, "ranking", PerturbationRanking, "make it with rank_perturbations(posterior, candidates)")
    if degeneracy.posterior is not posterior:
        raise argument_error("degeneracy", "the analysis of this posterior", "that of another", "analyse this one")
    if len(ranking.readout) != posterior.recording.num_neurons:
        got = f"one of {len(ranking.readout)} neurons"
        raise argument_error("ranking", "a ranking under this posterior", got, "rank with this posterior")
    num_neurons = posterior.recording.num_neurons
    W = posterior.sample_connectivity(NUM_DRAWS, seed=seed)
    if num_neurons > MOST_NEURONS:
        W = W.seen()
    fitted = assess_fit(posterior)
    validation = None if held_out is None else assess_fit(posterior, held_out)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lrposterior", "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": _percent, "number": _number, "embedded": _embedded}
    return environment.get_template("report.html.jinja").render(
        title=title,
        activity_unit=activity_unit,
        seed=seed,
        version=package_version(),
        posterior=posterior,
        fitted=fitted,
        validation=validation,
        degeneracy=degeneracy,
        ranking=ranking,
        data_rows=[line.split(maxsplit=1) for line in posterior.recording.summary().splitlines()[1:]],
        fit_rows=_fit_rows(posterior, fitted, activity_unit),
        share_excluding_zero=_share_excluding_zero(posterior),
        effective_rank=np.quantile(W.effective_rank(), [0.05, 0.5, 0.95]).tolist(),
        num_shown=len(neurons_shown(num_neurons)),
        median_contraction=float(np.median(degeneracy.sampled_contraction)),
        ranking_columns=_ranking_columns(ranking),
        best=ranking.order[:NUM_BEST].tolist(),
        window_end=float(ranking.times[-1]) + posterior.recording.dt,
        time_constant=_time_constant(posterior),
        priors=_priors(posterior.model.priors),
        background=_background(posterior),
        figures=_figures(posterior, fitted, validation, degeneracy, ranking, activity_unit, seed),
    )


def _figures(
    posterior: Posterior,
    fitted: FitQuality,
    validation: FitQuality | None,
    degeneracy: Degeneracy,
    ranking: PerturbationRanking,
    unit: str,
    seed: int,
) -> dict[str, Figure]:
    held_out = None if validation is None else validation.recording
    return {
        "recording": plot_recording(posterior.recording, activity_unit=unit),
        "rates": plot_rates(posterior, held_out, seed=seed, activity_unit=unit),
        "explained_variance": plot_explained_variance(fitted, validation),
        "residuals": plot_residuals(validation or fitted),
        "connectivity": plot_connectivity(posterior, seed=seed),
        "spectrum": plot_spectrum(degeneracy),
        "contraction": plot_contraction(degeneracy),
        "subspaces": plot_subspaces(degeneracy, seed=seed),
        "ranking": plot_ranking(ranking),
        "responses": plot_responses(ranking, cell_types=posterior.recording.cell_types),
        "certainty_information": plot_certainty_information(ranking),
    }


def _noise_label(posterior: Posterior) -> str:
    observation = posterior.model.observation
    of_counts = f" of {observation.distribution} counts" if observation.of == "count" else ""
    ahead = "" if posterior.model.process_noise is None else " and of what was not known a bin before"
    return f"noise{of_counts}{ahead}, median over neurons"


def _fit_rows(posterior: Posterior, fitted: FitQuality, unit: str) -> list[tuple[str, str]]:
    statistics = posterior.statistics
    evidence = "none" if statistics.log_evidence is None else f"{statistics.log_evidence:.1f} nats"
    rows = [
        ("status", posterior.status),
        ("objective at the mode (−log density)", f"{statistics.objective:.2f} nats"),
        ("gain that a further step would bring", f"{statistics.decrement:.1e} nats"),
        ("iterations", f"{statistics.num_iterations}"),
        ("wall time", f"{statistics.wall_time:.1f} s"),
        ("log evidence", evidence),
        ("about the evidence", statistics.evidence_note),
        (_noise_label(posterior), f"sd {_number(float(np.median(fitted.noise_scale)))} {unit}"),
        *((name, _number(value)) for name, value in statistics.diagnostics.items()),
        *_noise_rows(posterior),
        *_drift_rows(posterior),
    ]
    if statistics.scales:
        rows.append(("inferred prior scales (90% interval)", ", ".join(map(describe_scale, statistics.scales.items()))))
    if posterior.model.time_constants.inferred:
        rows.append(("inferred time constants (90% interval)", describe_time_constants(posterior)))
    if statistics.regression_ahead is not None:
        rows.append(("loadings", describe_loadings(statistics.regression_ahead)))
    if posterior.explained_parts is not None:
        rows.append(("parts of the connectivity at the mode", str(posterior.explained_parts)))
    if sum(statistics.mode_counts) > 1:
        found = zip(statistics.mode_objectives, statistics.mode_counts, strict=True)
        modes = ", ".join(f"{objective:.1f} nats ({count})" for objective, count in found)
        rows.append(("objectives of the distinct modes (starts that reached each)", modes))
    return rows


def _noise_rows(posterior: Posterior) -> list[tuple[str, str]]:
    """What drives the latents, and whether errors of predictions last longer than it should make them."""
    if posterior.model.process_noise is None:
        return []
    M, Q = posterior.mode["M"], posterior.mode["process_noise"]
    in_currents = np.sqrt(np.mean(np.einsum("nr,rs,ns->n", M, Q, M)))
    check = check_fit(posterior)
    lasting = "; beware: they last" if check.has_lasting_residuals else ""
    return [
        ("process noise in one bin, root mean square over neurons", f"sd {_number(float(in_currents))} of current"),
        ("correlation of errors in neighbouring bins", f"{_number(check.autocorrelation)}{lasting}"),
    ]


def _drift_rows(posterior: Posterior) -> list[tuple[str, str]]:
    """How differently neurons are seen in each session, at the mode."""
    drift = posterior.model.drift
    if drift is None:
        return []
    offset, scale = posterior.mode["session_offset"], posterior.mode["session_scale"]
    return [
        (
            f"drift in session {name}: offsets, scales of currents (sd over neurons)",
            f"{_number(float(np.std(offset[:, session])))}, {_number(float(np.std(scale[:, session])))}",
        )
        for session, name in enumerate(drift.sessions)
    ]


def _ranking_columns(ranking: PerturbationRanking) -> dict[str, np.ndarray]:
    return {
        "power (current² s)": ranking.power,
        "expected R²": ranking.expected_r2,
        "contraction": ranking.contraction,
        "information (nats)": ranking.information,
        "degenerate share": ranking.share_degenerate,
        **({"noise in one trial": ranking.noise_share} if np.any(ranking.noise_share > 0.0) else {}),
        f"response rms ({ranking.quantity})": ranking.response_size,
    }


def _share_excluding_zero(posterior: Posterior) -> float:
    """Share of the synapses, or of a random choice of many, of which the interval mean ± 1.645 sd excludes 0."""
    num_neurons = posterior.recording.num_neurons
    if num_neurons <= MOST_NEURONS:
        mean, sd = posterior.connectivity_mean(), posterior.connectivity_sd()
    else:
        mean, sd = posterior.connectivity_entries(*some_synapses(num_neurons))
    return float(np.mean(np.abs(mean) > INTERVAL_90 * sd))


def _priors(priors: Priors) -> dict[str, str]:
    """What the priors say, by name: their numbers, and under Dale's law the kind of magnitudes and who inhibits."""
    has_spread = isinstance(priors, DaleLoadings) and "log-normal" in priors.of_neurons("magnitudes")
    said: dict[str, str] = {}
    for field in dataclasses.fields(priors):
        value = getattr(priors, field.name)
        if isinstance(value, bool) or (field.name == "spread" and not has_spread):
            continue
        if isinstance(value, ByCellType):
            said |= {of_type(field.name, cell_type): _word(each) for cell_type, each in value.items()}
        else:
            said[field.name] = " and ".join(value) if isinstance(value, tuple) else _word(value)
    return said


def _word(value: Scale | str) -> str:
    return value if isinstance(value, str) else _number(center(value))


def _time_constant(posterior: Posterior) -> str:
    model = posterior.model
    names = [f"{name}: " for name in model.time_constant] if isinstance(model.time_constant, ByCellType) else [""]
    values = np.atleast_1d(posterior.mode["time_constant"])
    if isinstance(model.time_constant, PerNeuron):
        number = len(model.time_constants.inferred)
        return f"{values.min():.4g} to {values.max():.4g} s, median {np.median(values):.4g} s, one per neuron, " + (
            f"{number} of {len(values)} inferred" if number else "fixed"
        )
    return "; ".join(
        f"{name}{value:.4g} s, "
        + (f"inferred (prior median {prior.median:g} s)" if isinstance(prior, TimeConstantPrior) else "fixed")
        for name, value, prior in zip(names, values, model.time_constants.entries, strict=True)
    )


def _background(posterior: Posterior) -> str:
    background = posterior.model.background
    if isinstance(background, RandomBulk):
        dimension = background.visited.shape[1]
        return f"random, gain {posterior.model.scale('gain'):.3g}, seen through {dimension} patterns of activity"
    if isinstance(background, SignedBackground):
        return "inferred, with the signs of the neurons"
    if not isinstance(background, FixedBackground):
        return "none"
    factors = "" if background.left is None else f"{background.left.shape[1]} known factors"
    return " and ".join(part for part in ("" if background.W0 is None else "known", factors) if part)


def _embedded(figure: Figure) -> str:
    return base64.b64encode(to_png(figure)).decode("ascii")


def _percent(share: float) -> str:
    return f"{100.0 * share:.1f}%"


def _number(value: float | None) -> str:
    return "not defined" if value is None or not np.isfinite(value) else f"{value:.3g}".replace("-", "−")
