"""The figures of the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import lrposterior as lrp
from ei_session_parts.evaluation import WIDTH
from ei_session_parts.session import DT
from lrposterior.plots import save_figure
from lrposterior.plots.style import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILION, styled

COLORS = {"recorded": BLACK, "likelihood": BLUE, "matching": ORANGE, "naive": GREY, "collapsed": GREEN}
TITLES = {
    "recorded": "recorded",
    "likelihood": "likelihood",
    "matching": "matching",
    "naive": "matching, without a scale",
    "collapsed": "z-scored loss, without a scale",
}


def save_all(folder: Path, results: dict, shown: dict[str, Any]) -> None:
    made = {
        "collapse": draw_averages(shown, ("collapsed", "matching")),
        "averages": draw_averages(shown, ("likelihood", "matching", "naive")),
        "weights": draw_weights(results, shown),
        "responses": draw_responses(results),
        "certainty": draw_certainty(results["likelihood"]["perturbations"]),
    }
    for name, figure in made.items():
        save_figure(figure, folder / f"{name}.png")


def averages(activity: np.ndarray, like: lrp.Recording, condition: str) -> np.ndarray:
    """(time, neuron) smoothed spikes/s, averaged over the trials of a condition."""
    chosen = np.array(like.trial_labels) == condition
    return smooth(activity[chosen].mean(axis=0)[None])[0] / DT


def smooth(activity: np.ndarray) -> np.ndarray:
    return lrp.smooth_activity(lrp.Recording(activity, DT), WIDTH).activity


@styled
def draw_averages(shown: dict[str, Any], fits: Sequence[str]) -> Figure:
    """Averages of held-out trials of one condition: of E, of I, and of the two neurons that move most."""
    held_out = shown["held_out"]
    condition, types = held_out.trial_labels[0], np.array(held_out.cell_types)
    by_fit = {"recorded": averages(held_out.activity, held_out, condition)}
    for name in fits:
        by_fit[name] = averages(shown["simulated"][name].mean(axis=0), held_out, condition)
    moving = {name: int(np.argmax(np.where(types == name, by_fit["recorded"].std(axis=0), -1.0))) for name in "EI"}
    panels = {
        "mean of E": types == "E",
        "mean of I": types == "I",
        **{f"neuron {number}, {name}": np.arange(len(types)) == number for name, number in moving.items()},
    }
    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    for axes, (title, chosen) in zip(figure.subplots(2, 2, sharex=True).ravel(), panels.items(), strict=True):
        for name, values in by_fit.items():
            course = values[:, chosen].mean(axis=1)
            axes.plot(DT * np.arange(len(values)), course, color=COLORS[name], label=TITLES[name])
        axes.set_title(title)
        axes.set_ylim(bottom=0.0)
    for axes in figure.axes[2:]:
        axes.set_xlabel("time in the trial (s)")
    figure.supylabel(f"spikes/s, average over trials: {condition}")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


@styled
def draw_weights(results: dict, shown: dict[str, Any]) -> Figure:
    """Mean weights of pairs of types, and every synapse beside the truth."""
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    true = results["truth"]["means"]
    for place, name in enumerate(true):
        left.plot(place, true[name], "_", color=BLACK, markersize=22, label="truth" if place == 0 else None)
        for offset, fit in ((-0.12, "likelihood"), (0.12, "matching")):
            lower, middle, upper = results[fit]["connectivity"]["means"][name]
            errors = [[middle - lower], [upper - middle]]
            label = f"{fit}, {'90% interval' if fit == 'likelihood' else 'networks'}" if place == 0 else None
            left.errorbar(place + offset, middle, errors, fmt="o", color=COLORS[fit], label=label)
    left.axhline(0.0, color=GREY, linewidth=0.8)
    left.set_xticks(range(len(true)), list(true))
    left.set_ylabel("mean weight")
    left.legend()
    mean, W = shown["posterior"].connectivity_mean(), shown["W"]
    types = np.array(shown["held_out"].cell_types)
    for name, color in (("E", VERMILION), ("I", BLUE)):
        right.plot(W[:, types == name].ravel(), mean[:, types == name].ravel(), ".", color=color, label=f"from {name}")
    right.axline((0.0, 0.0), slope=1.0, color=GREY, linewidth=0.8)
    right.set_xlabel("true weight")
    right.set_ylabel("posterior mean")
    right.legend()
    return figure


@styled
def draw_responses(results: dict) -> Figure:
    """Mean currents of E and I after all E, or all I, neurons were stimulated."""
    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    for row, stimulated in zip(panels, ("all E", "all I"), strict=True):
        for axes, seen in zip(row, "EI", strict=True):
            for name in ("likelihood", "matching"):
                of_fit = results[name]["perturbations"]
                lower, middle, upper = of_fit["courses"][stimulated][seen]["draws"]
                kind = "90% interval" if name == "likelihood" else "networks"
                axes.fill_between(of_fit["times"], lower, upper, color=COLORS[name], alpha=0.3, linewidth=0.0)
                axes.plot(of_fit["times"], middle, color=COLORS[name], label=f"{name}, {kind}")
            true = results["likelihood"]["perturbations"]["courses"][stimulated][seen]["true"]
            axes.plot(of_fit["times"], true, color=BLACK, label="truth")
            axes.axhline(0.0, color=GREY, linewidth=0.8)
            axes.set_title(f"{stimulated} stimulated, currents of {seen}")
    for axes in figure.axes[2:]:
        axes.set_xlabel("time in the trial (s)")
    figure.supylabel("response of the mean current, without the direct effect")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@styled
def draw_certainty(perturbations: dict) -> Figure:
    """The R² that was promised and the one that was reached, for every stimulation."""
    figure = Figure(figsize=(4.5, 4.2), layout="constrained")
    axes = figure.subplots()
    labels = np.array(perturbations["labels"])
    expected, achieved = (np.array(perturbations[name]) for name in ("expected", "achieved"))
    for start, color, marker in (("E", VERMILION, "o"), ("I", BLUE, "s")):
        chosen = np.char.startswith(labels, f"{start} ")
        axes.plot(expected[chosen], achieved[chosen], marker, color=color, label=f"ensembles of {start}")
    whole = np.char.startswith(labels, "all")
    axes.plot(expected[whole], achieved[whole], "^", color=BLACK, label="all E, all I")
    axes.axline((0.0, 0.0), slope=1.0, color=GREY, linewidth=0.8)
    axes.set_xlabel("R² that was promised (certainty)")
    axes.set_ylabel("R² that was reached")
    axes.legend()
    return figure
