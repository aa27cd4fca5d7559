"""The figures of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter1d

from aplysia_parts.network import leading_pattern
from aplysia_parts.recordings import BLOCK, BLOCK_STARTS, DT, WINDOW, Preparation
from lrposterior.plots import save_figure
from lrposterior.plots.style import BLACK, BLUE, GREY, PALE, SKY, VERMILION, color_bar, styled

MODELS = {
    "average": "PSTH",
    "history": "own history",
    "linear_system": "linear system",
    "glm": "GLM",
    "network": "network",
}


def save_all(folder: Path, results: dict, shown: dict[str, dict[str, Any]]) -> None:
    by_name = results["preparations"]
    made = {
        "recordings": draw_recordings({name: one["preparation"] for name, one in shown.items()}),
        "prediction": draw_prediction(by_name),
    }
    fitted = {name: one for name, one in shown.items() if "run" in one}
    if fitted:
        first = next(iter(fitted.values()))
        made |= {
            "spectra": draw_spectra({name: by_name[name]["spectra"] for name in fitted}),
            "traces": draw_traces(first["preparation"], first["predicted"].ahead[0], first["run"]),
            "degeneracy": first["degeneracy"].plot_contraction(),
            "ranking": first["ranking"].plot(),
        }
    for name, figure in made.items():
        save_figure(figure, folder / f"{name}.png")


def _times(counts: np.ndarray) -> np.ndarray:
    """(time,) middles of the bins, in s after the stimulation began."""
    return DT * (np.arange(len(counts)) + 0.5)


@styled
def draw_recordings(preparations: dict[str, Preparation]) -> Figure:
    """All neurons in the three responses of every preparation, by their place on the leading pattern."""
    figure = Figure(figsize=(9.0, 6.0))
    panels = figure.subplots(len(preparations), 3, sharex=True, squeeze=False)
    mesh = None
    for row, (name, preparation) in zip(panels, preparations.items(), strict=True):
        order = np.argsort(-leading_pattern(preparation))
        for number, (axes, counts) in enumerate(
            zip(row, (*preparation.counts, *preparation.test.activity), strict=True)
        ):
            rates = gaussian_filter1d(counts, 5.0, axis=0)[:, order].T / DT
            edges = DT * np.arange(len(counts) + 1)
            mesh = axes.pcolormesh(edges, np.arange(len(order) + 1), rates, cmap="cividis", vmin=0.0, vmax=6.0)
            axes.set_yticks([])
            for start in BLOCK_STARTS[number] if number < 2 else ():
                axes.axvspan(start, start + BLOCK, ymin=1.0, ymax=1.04, color=VERMILION, clip_on=False, linewidth=0)
        row[0].set_ylabel(f"{name}\n{len(order)} neurons")
    titles = ("First response (orange: validation)", "Second response", "Third response: test")
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set_title(title, pad=10)
    for axes in panels[-1]:
        axes.set_xlabel("time after the stimulation began (s)")
    if mesh is not None:
        color_bar(panels[0, -1], mesh, "rate (spikes/s)", below=False, offset=0.03, extend="max")
    return figure


@styled
def draw_prediction(by_name: dict) -> Figure:
    """Bits per spike in the third response of all models."""
    figure = Figure(figsize=(9.0, 3.4))
    panels = figure.subplots(1, 2, sharey=True)
    colors = dict(zip(by_name, (BLACK, BLUE, VERMILION), strict=False))
    markers = dict(zip(by_name, "osD", strict=False))
    lowest = -0.35
    for axes, task, title in zip(
        panels, ("ahead", "hidden"), ("One step ahead", "Hidden neurons from the others"), strict=True
    ):
        for shift, (name, one) in zip((0.2, 0.0, -0.2), by_name.items(), strict=False):
            values = [_score(one, model, task) for model in MODELS]
            rows = np.arange(len(MODELS)) + shift
            known = np.array([np.nan if value is None else max(value, lowest) for value in values])
            axes.plot(known, rows, markers[name], color=colors[name], label=name)
            for value, row in zip(values, rows, strict=True):
                if value is not None and value < lowest:
                    axes.annotate(f"{value:.1f}", (lowest, row), (6, 0), textcoords="offset points", va="center",
                                  color=colors[name], fontsize=7)  # fmt: skip
        axes.axvline(0.0, color=GREY, linewidth=0.8, zorder=0)
        axes.set_title(title)
        axes.set_xlabel("bits per spike over constant rates")
    panels[0].set_yticks(range(len(MODELS)), list(MODELS.values()))
    panels[0].tick_params(axis="y", length=0)
    panels[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _score(one: dict, model: str, task: str) -> float | None:
    if model == "network":
        return one["networks"][str(one["rank"])]["test"][task] if "rank" in one else None
    found = one["baselines"].get(f"glm_{task}" if model == "glm" else model)
    return None if found is None else found["test"][task]


@styled
def draw_spectra(by_name: dict[str, dict]) -> Figure:
    """Power of the leading pattern in the recordings and in free runs."""
    figure = Figure(figsize=(9.0, 3.2))
    panels = figure.subplots(1, len(by_name), squeeze=False)[0]
    for axes, (name, spectra) in zip(panels, by_name.items(), strict=True):
        frequencies = np.array(spectra["frequencies"])
        low, middle, high = np.array(spectra["free"])
        axes.fill_between(frequencies, low, high, color=SKY, alpha=0.35, linewidth=0, label="free runs, 90%")
        axes.plot(frequencies, middle, color=BLUE, label="free runs, median")
        for number, power in enumerate(spectra["training"]):
            axes.plot(frequencies, power, color=GREY, linewidth=0.9, label=None if number else "first two responses")
        axes.plot(frequencies, spectra["test"], color=BLACK, linewidth=1.4, label="third response")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("frequency (Hz)")
        axes.set_title(name)
    panels[0].set_ylabel("power of the leading\npattern (spikes²/Hz)")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@styled
def draw_traces(preparation: Preparation, ahead: np.ndarray, free: np.ndarray) -> Figure:
    """The leading pattern in the third response, predicted one step ahead, and in one free run."""
    figure = Figure(figsize=(7.6, 3.6))
    panels = figure.subplots(2, 1, sharex=True, sharey=True)
    pattern, test = leading_pattern(preparation), preparation.test.activity[0]
    _draw_trace(panels[0], test @ pattern, PALE, 1.0, "third response", smoothed=False)
    _draw_trace(panels[0], ahead @ pattern, BLUE, 1.2, "predicted one step ahead", smoothed=False)
    _draw_trace(panels[1], test @ pattern, BLACK, 1.2, "third response, smoothed")
    _draw_trace(panels[1], free @ pattern, VERMILION, 1.2, "a free run, smoothed")
    for axes in panels:
        axes.set_ylabel("leading pattern\n(spikes per bin)")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    panels[0].set_title(f"{preparation.name}, from the onset of the stimulation on")
    panels[1].set_xlabel("time after the stimulation began (s)")
    panels[1].set_xlim(0.0, WINDOW[1] - WINDOW[0])
    return figure


def _draw_trace(axes: Axes, values: np.ndarray, color: str, width: float, label: str, *, smoothed: bool = True) -> None:
    shown = gaussian_filter1d(values, 3.0) if smoothed else values
    axes.plot(_times(values), shown, color=color, linewidth=width, label=label)
