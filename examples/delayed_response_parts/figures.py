"""The figures of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from delayed_response_parts.experiment import CLASSES
from delayed_response_parts.tables import families, fitted
from lrposterior.plots import save_figure
from lrposterior.plots.style import GREY, PALETTE, styled

COLORS = dict(zip(CLASSES, PALETTE, strict=False))
LOWEST = -1.0


def save_all(folder: Path, results: list[dict]) -> None:
    for name, draw in (("promises", draw_promises), ("validation", draw_validation), ("circuits", draw_circuits)):
        save_figure(draw(results), folder / f"{name}.png")


@styled
def draw_promises(results: list[dict]) -> Figure:
    """Promised against achieved R² of every candidate, a panel for each family."""
    shown = [name for name in families(results) if not name.startswith("circuits, ") or name == last_circuit(results)]
    figure = Figure(figsize=(9.0, 2.9 * -(-len(shown) // 3)))
    panels = figure.subplots(-(-len(shown) // 3), 3, squeeze=False, sharex=True, sharey=True)
    for axes, family in zip(panels.flat, shown, strict=False):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
        axes.axhline(0.0, color=GREY, linewidth=0.5, linestyle=":")
        for index, name in enumerate(CLASSES):
            promised, achieved = (
                np.concatenate([np.split(np.array(found[kind]), 3)[index] for found in fitted(results, family)])
                for kind in ("expected R²", "achieved R²")
            )
            axes.scatter(promised, np.maximum(achieved, LOWEST), s=9, color=COLORS[name], alpha=0.7, label=name)
        axes.set(title=family, xlim=(-0.03, 1.03), ylim=(LOWEST - 0.06, 1.03))
    for axes in panels.flat[max(0, len(shown) - 3) : len(shown)]:
        axes.set_xlabel("promised R²")
        axes.tick_params(labelbottom=True)
    for axes in panels[:, 0]:
        axes.set_ylabel("achieved R² (below −1 at −1)")
    for axes in panels.flat[len(shown) :]:
        axes.set_axis_off()
    panels[0, 0].legend(loc="lower right")
    return figure


@styled
def draw_validation(results: list[dict]) -> Figure:
    """Loss on held-out trials against R² under perturbations, a dot for every twin."""
    figure = Figure(figsize=(8.0, 3.0))
    panels = figure.subplots(1, 2)
    for axes, name in zip(panels, (CLASSES[0], CLASSES[2]), strict=True):
        for family, marker in (("twins", "o"), ("twins, regularised", "^")):
            for one, color in zip(results, PALETTE, strict=False):
                found = one["families"][family]
                label = f"network {one['seed']}" if family == "twins" else None
                loss = np.array(found["validation loss"])
                axes.scatter(loss, found["R² of each"][name], s=14, color=color, marker=marker, alpha=0.7, label=label)
        axes.set(title=name, xlabel="mean squared error, held-out trials", ylabel="R² of each twin")
        axes.locator_params(axis="x", nbins=4)
    panels[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="dots: free\ntriangles: regularised")
    return figure


@styled
def draw_circuits(results: list[dict]) -> Figure:
    """How circuits agree with the network, and with each other, by their size."""
    sizes = [name for name in families(results) if name.startswith("circuits, ")]
    numbers = [int(name.split()[1]) for name in sizes]
    figure = Figure(figsize=(8.0, 2.8))
    panels = figure.subplots(1, 3)
    labels = ("correlation of w with QᵀWQ", "dispersion of w over replicates", "R², ensembles (below −1 at −1)")
    for one, color in zip(results, PALETTE, strict=False):
        found = [one["families"][name] for name in sizes]
        for axes, values in (
            (panels[0], [each["agreement"] for each in found]),
            (panels[2], [np.maximum(each["R² of each"][CLASSES[0]], LOWEST) for each in found]),
        ):
            for number, value in zip(numbers, values, strict=True):
                axes.scatter(np.full(len(value), number), value, s=7, color=color, alpha=0.5)
            axes.plot(numbers, [np.median(value) for value in values], color=color)
        label = f"network {one['seed']}"
        panels[1].plot(numbers, [each["dispersion"] for each in found], marker="o", color=color, label=label)
    for axes, label in zip(panels, labels, strict=True):
        axes.set(xlabel="nodes", title=label, xticks=numbers)
    panels[1].legend()
    return figure


def last_circuit(results: list[dict]) -> str:
    return [name for name in families(results) if name.startswith("circuits, ")][-1]
