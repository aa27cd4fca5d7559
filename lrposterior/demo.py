"""The whole job on a simulated recording, where the truth is known and every prediction can be checked."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from lrposterior.background import FixedBackground
from lrposterior.checks import argument_error, require_integer
from lrposterior.degeneracy import Degeneracy, analyze_degeneracy
from lrposterior.fit_quality import FitQuality, assess_fit
from lrposterior.inference import fit
from lrposterior.model import LowRankModel
from lrposterior.perturbation.candidates import (
    Candidates,
    combine_candidates,
    ensemble_candidates,
    latent_candidates,
    single_neuron_candidates,
)
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.prediction import rank_perturbations
from lrposterior.perturbation.ranking import PerturbationRanking
from lrposterior.perturbation.responses import response_draws
from lrposterior.plots import (
    plot_accuracy,
    plot_certainty_information,
    plot_connectivity,
    plot_contraction,
    plot_explained_variance,
    plot_ranking,
    plot_rates,
    plot_recording,
    plot_responses,
    plot_spectrum,
    plot_subspaces,
    save_figure,
)
from lrposterior.plots.connectivity import draw_connectivity_mean
from lrposterior.plots.degeneracy import draw_contraction, draw_spectrum
from lrposterior.plots.perturbation import classify, draw_accuracy
from lrposterior.plots.style import BLACK, legend_below, styled
from lrposterior.posterior import Posterior
from lrposterior.recording import Recording
from lrposterior.report import write_report
from lrposterior.simulation import Simulation, simulate_recording

NUM_NEURONS, NUM_TRIALS, NUM_BINS, DT, NUM_INPUTS, RANK = 60, 20, 60, 0.02, 2, 2
VALIDATION_FRACTION, NOISE_SCALE = 0.2, 0.2
NUM_ENSEMBLES, ENSEMBLE_SIZE, NUM_LATENTS, NUM_CONDITIONS = 40, 8, 20, 6
NUM_STEPS = 9
INTERVAL_90 = 1.645

SUMMARY = """\
A network of {num_neurons} neurons was simulated, and recorded with noise: {num_trials} trials of {duration:g} s to fit,
and {num_held_out} to check the fit. Its true connectivity W was put aside.

Fit           explains {fitted:.0%} of the variance of the fitted trials and {held_out:.0%} of the others;
              what remains is noise.
Connectivity  could differ in {num_directions} directions. The recording constrains {num_constrained}
              and leaves {num_degenerate} to the prior (degenerate). The estimate's correlation with the
              true W is {constrained:.2f} in the constrained part and {degenerate:.2f} in the degenerate part;
              {covered:.0%} of the true weights lie in their 90% intervals.
Perturbation  {num_candidates} stimulations were ranked by how certain the predicted response is, and then
              applied to the true network. R²: 1 is a perfect prediction, 0 no better than none.
"""
SUMMARY_NAME, FIRST_LINE = "summary.txt", "lrposterior demo"


@dataclass(frozen=True, eq=False)
class Demo:
    """What the demo computes.

    Attributes:
        simulation: the network, its truth and what was recorded of it.
        held_out: trials that were kept from the fit.
        posterior: the fit to the other trials.
        degeneracy: what these constrain.
        candidates: the perturbations.
        ranking: what the posterior predicts for them.
        true_responses: (candidate, condition, time, neuron) what the true network does.
    """

    simulation: Simulation
    held_out: Recording
    posterior: Posterior
    degeneracy: Degeneracy
    candidates: Candidates
    ranking: PerturbationRanking
    true_responses: np.ndarray

    @property
    def achieved_r2(self) -> np.ndarray:
        """(candidate,) 1 - |true - predicted|² / |true|² of the responses."""
        error, power = self._squares
        return 1.0 - error / power

    def pooled_r2(self) -> dict[str, tuple[float, float]]:
        """Promised and achieved R² of each class of candidates as a whole, all its responses taken as one."""
        ranking, (error, power) = self.ranking, self._squares
        spread = np.sum(np.square(ranking.response_sd, dtype=np.float64), axis=(1, 2, 3))
        mean_power = np.sum(np.square(ranking.response_mean, dtype=np.float64), axis=(1, 2, 3))
        mean_power = mean_power - spread / ranking.num_draws
        classes = np.array([classify(label) for label in ranking.labels])
        pooled = {}
        for name in dict.fromkeys(classes.tolist()):
            rows = classes == name
            promised = mean_power[rows].sum() / (mean_power[rows].sum() + spread[rows].sum())
            pooled[f"{name} ({rows.sum()})"] = (float(promised), float(1.0 - error[rows].sum() / power[rows].sum()))
        return pooled

    @property
    def _squares(self) -> tuple[np.ndarray, np.ndarray]:
        """(candidate,) each: squared error of the prediction and power of the true response."""
        error = np.sum((self.true_responses - self.ranking.response_mean) ** 2, axis=(1, 2, 3))
        return error, np.sum(self.true_responses**2, axis=(1, 2, 3))


def run_demo(output: str | os.PathLike[str], *, seed: int = 0, progress: bool = True) -> str:
    """Simulate, fit, analyse, rank, compare with the truth, and write figures, data and a report.

    Args:
        output: Folder for the results, complete or untouched: new, empty, or made by an earlier demo.
        seed: Seed of the network, the recording and everything else.
        progress: Show a progress bar.

    Returns:
        The summary that stands in `summary.txt` as well.

    Raises:
        ValueError: A folder that holds something else.
    """
    output = Path(output)
    require_integer(seed, "seed")
    _require_own_folder(output)
    started = time.perf_counter()
    with tqdm(
        total=NUM_STEPS, disable=not progress, bar_format="{desc:<28}{bar:24} step {n} of {total}, {elapsed}"
    ) as bar:

        def announce(what: str) -> None:
            bar.set_description_str(what, refresh=False)
            bar.update()

        demo = compute_demo(seed=seed, announce=announce)
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as folder:
            names = _write_results(demo, Path(folder), seed=seed, announce=announce)
            summary = summarize(demo, duration=time.perf_counter() - started)
            (Path(folder) / SUMMARY_NAME).write_text(f"{FIRST_LINE}\n\n{summary}\n", encoding="utf-8")
            output.mkdir(exist_ok=True)
            for name in (SUMMARY_NAME, *names):
                os.replace(Path(folder) / name, output / name)
    files = "\n".join(f"  {output / name}" for name in (SUMMARY_NAME, *names))
    return f"{summary}\n\nWritten (open {output / 'report.html'} first):\n{files}"


def compute_demo(*, seed: int, announce: Callable[[str], None] = lambda what: None) -> Demo:
    """Everything but the files.

    Args:
        seed: Seed of everything.
        announce: Called with what comes next.
    """
    announce("simulating a recording")
    model = LowRankModel(rank=RANK)
    simulation = simulate_recording(
        model, num_neurons=NUM_NEURONS, num_trials=NUM_TRIALS, num_bins=NUM_BINS, dt=DT, num_inputs=NUM_INPUTS,
        noise_scale=NOISE_SCALE, seed=seed,
    )  # fmt: skip
    recording, held_out = simulation.recording.split(VALIDATION_FRACTION, seed=seed)
    announce("fitting the network")
    posterior = fit(model, recording, method="laplace", seed=seed, progress=False)
    announce("analysing the degeneracy")
    degeneracy = analyze_degeneracy(posterior)
    announce("ranking perturbations")
    candidates = combine_candidates(
        single_neuron_candidates(recording),
        ensemble_candidates(recording, num_candidates=NUM_ENSEMBLES, size=ENSEMBLE_SIZE, seed=seed),
        latent_candidates(recording, num_candidates=NUM_LATENTS, num_components=RANK, seed=seed),
    )
    inputs = recording.inputs[:NUM_CONDITIONS]
    ranking = rank_perturbations(posterior, candidates, inputs=inputs, num_draws=300, seed=seed, progress=False)
    announce("perturbing the true network")
    true_responses = _true_responses(posterior, simulation, candidates, inputs)
    return Demo(simulation, held_out, posterior, degeneracy, candidates, ranking, true_responses)


def summarize(demo: Demo, *, duration: float | None = None) -> str:
    """What was found, for somebody who sees it for the first time."""
    posterior, degeneracy, ranking = demo.posterior, demo.degeneracy, demo.ranking
    recording, alone = posterior.recording, degeneracy.connectivity
    fitted, held_out = assess_fit(posterior).explained_variance, assess_fit(posterior, demo.held_out).explained_variance
    truth, mean = demo.simulation.connectivity, posterior.connectivity_mean()
    of_truth, of_mean = degeneracy.split(truth), degeneracy.split(mean)
    constrained = np.corrcoef(of_truth.constrained.ravel(), of_mean.constrained.ravel())[0, 1]
    degenerate = np.corrcoef(of_truth.degenerate.ravel(), of_mean.degenerate.ravel())[0, 1]
    covered = np.mean(np.abs(truth - mean) < INTERVAL_90 * posterior.connectivity_sd())
    achieved = demo.achieved_r2
    found = SUMMARY.format(
        num_neurons=recording.num_neurons,
        num_trials=recording.num_trials,
        duration=recording.duration,
        num_held_out=demo.held_out.num_trials,
        fitted=fitted,
        held_out=held_out,
        num_directions=alone.num_directions,
        num_constrained=alone.num_constrained,
        num_degenerate=alone.num_degenerate,
        constrained=constrained,
        degenerate=degenerate,
        covered=covered,
        num_candidates=ranking.num_candidates,
    )
    lines = [found, f"  {'the five most certain':<24}{'promised R²':>12}{'achieved R²':>14}"]
    for place, candidate in enumerate(ranking.order[:5], start=1):
        name = f"{place}. {ranking.labels[candidate]}"
        lines.append(f"  {name:<24}{ranking.expected_r2[candidate]:>12.2f}{achieved[candidate]:>14.2f}")
    lines.append(f"  {'all, class by class':<24}")
    for name, (promised, reached) in demo.pooled_r2().items():
        lines.append(f"  {name:<24}{promised:>12.2f}{reached:>14.2f}")
    if duration is not None:
        lines += ["", f"All of it took {duration:.0f} s."]
    return "\n".join(lines)


@styled
def plot_overview(demo: Demo) -> Figure:
    """Connectivity, degeneracy and the check of the predictions on one page."""
    figure = Figure(figsize=(9.0, 8.2))
    panels = figure.subplots(2, 2, gridspec_kw={"height_ratios": [1.1, 1.0]})
    draw_connectivity_mean(panels[0, 0], demo.posterior)
    draw_contraction(panels[0, 1], demo.degeneracy)
    draw_spectrum(panels[1, 0], demo.degeneracy)
    draw_accuracy(panels[1, 1], demo.ranking, demo.achieved_r2)
    pooled = np.array(list(demo.pooled_r2().values()))
    panels[1, 1].scatter(
        *pooled.T, s=70, facecolor="none", edgecolor=BLACK, linewidth=1.6, label="whole class", zorder=4
    )
    titles = (
        "a  Connectivity W: posterior mean",
        "b  What the data say on each synapse",
        "c  Directions constrained, and left open",
        "d  Perturbations: promised and actual R²",
    )
    for axes, title in zip(panels.flat, titles, strict=True):
        axes.set_title(title, fontweight="bold")
    legend_below(panels[1, 0], 1)
    legend_below(panels[1, 1], 2)
    return figure


def _true_responses(posterior: Posterior, simulation: Simulation, candidates: Candidates, inputs: Any) -> np.ndarray:
    """(candidate, condition, time, neuron) what the network that was simulated does under the candidates."""
    parameters = {name: value[None] for name, value in simulation.parameters.items() if name != "W0"}
    true_model = dataclasses.replace(posterior.model, background=FixedBackground(simulation.parameters["W0"]))
    experiment = make_experiment(posterior, candidates, inputs, None)
    return response_draws(true_model, parameters, experiment, "current")[0]


def _write_results(demo: Demo, folder: Path, *, seed: int, announce: Callable[[str], None]) -> list[str]:
    """Write data, figures and the report; gives the names of the files."""
    announce("writing the data")
    posterior, ranking = demo.posterior, demo.ranking
    fitted, validation = assess_fit(posterior), assess_fit(posterior, demo.held_out)
    posterior.recording.save(folder / "recording.npz")
    demo.held_out.save(folder / "validation.npz")
    arrays: dict[str, Any] = demo.simulation.parameters
    np.savez_compressed(folder / "truth.npz", **arrays)
    posterior.save(folder / "fit.nc")
    table = ranking.top(ranking.num_candidates)
    table["achieved R²"] = demo.achieved_r2[table.index]
    table.to_csv(folder / "ranking.csv")
    announce("drawing")
    figures = {"demo.png": plot_overview(demo)} | _figures(demo, fitted, validation, seed)
    announce("writing the figures")
    for name, figure in figures.items():
        save_figure(figure, folder / name)
    announce("writing the report")
    write_report(
        folder / "report.html", posterior, demo.degeneracy, ranking, held_out=demo.held_out,
        title="What a simulated recording says about its circuit", seed=seed,
    )  # fmt: skip
    return ["report.html", *figures, "recording.npz", "validation.npz", "truth.npz", "fit.nc", "ranking.csv"]


def _figures(demo: Demo, fitted: FitQuality, validation: FitQuality, seed: int) -> dict[str, Figure]:
    posterior, degeneracy, ranking = demo.posterior, demo.degeneracy, demo.ranking
    return {
        "recording.png": plot_recording(posterior.recording),
        "rates.png": plot_rates(posterior, demo.held_out, seed=seed),
        "explained_variance.png": plot_explained_variance(fitted, validation),
        "connectivity.png": plot_connectivity(posterior, seed=seed),
        "spectrum.png": plot_spectrum(degeneracy),
        "contraction.png": plot_contraction(degeneracy),
        "subspaces.png": plot_subspaces(degeneracy, seed=seed),
        "ranking.png": plot_ranking(ranking),
        "responses.png": plot_responses(ranking),
        "certainty_information.png": plot_certainty_information(ranking),
        "accuracy.png": plot_accuracy(ranking, demo.achieved_r2),
    }


def _require_own_folder(output: Path) -> None:
    """Refuse a folder with somebody else's files, which the demo might replace."""
    expected, mend = "a new or empty folder, or one of an earlier demo", "name another one"
    if output.exists() and not output.is_dir():
        raise argument_error("output", expected, f"the file {str(output)!r}", mend)
    if output.is_dir() and any(output.iterdir()):
        summary = output / SUMMARY_NAME
        lines = summary.read_text(encoding="utf-8").splitlines() if summary.is_file() else []
        if lines[:1] != [FIRST_LINE]:
            raise argument_error("output", expected, f"{str(output)!r} with other files in it", mend)
