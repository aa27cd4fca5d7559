"""The tables and the figure of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from mouse_opto_parts.session import Session
from page_parts.tables import between_comments, interval, number, table

import lrposterior as lrp
from lrposterior.plots import save_figure
from lrposterior.plots.style import BLACK, BLUE, GREY, ORANGE, VERMILION, styled
from paradoxical_fall_parts.attribution import SOURCES

COLORS = {"half-normal": BLUE, "log-normal": ORANGE}


def as_markdown(results: dict) -> str:
    return between_comments({"attribution": of_attribution(results), "stability": of_stability(results)})


def label(one: dict) -> str:
    return f"{one['magnitudes']}, {one['scale']:g}"


def of_attribution(results: dict) -> str:
    rows = []
    for one in results["fits"]:
        if "refused" in one:
            rows.append([label(one), one["refused"], "", "", "", ""])
            continue
        after = one["posterior"]
        parts = [interval(after["contributions"][source], 1) for source in SOURCES]
        rows.append([label(one), *parts, number(after["light excites"]), number(after["E outweighs the light"])])
    header = ["magnitudes, scale of K from E", "from E", "from I", "from the light"]
    return table([*header, "P(light excites I)", "P(E takes more than the light brings)"], rows)


def of_stability(results: dict) -> str:
    rows = []
    for one in results["fits"]:
        if "refused" in one:
            continue
        row = [label(one)]
        for name in ("prior", "posterior"):
            row += [interval(one[name]["eigenvalue"]), number(one[name]["stabilised"])]
        row.append(interval(one["posterior"]["light on E"], 1))
        rows.append([*row, *(number(one["held out"][name]) for name in "EI")])
    header = ["magnitudes, scale of K from E", "eigenvalue, prior", "above 1", "posterior", "above 1", "light on E"]
    return table([*header, "R² of E, held out", "of I"], rows)


def save_figures(folder: Path, session: Session, results: dict, posterior: lrp.Posterior, end: int) -> None:
    save_figure(draw(session, results, posterior, end), folder / "fall.png")


@styled
def draw(session: Session, results: dict, posterior: lrp.Posterior, end: int) -> Figure:
    """Mean rates with the first fit, what moves the I cells, and the eigenvalue of E alone."""
    figure = Figure(figsize=(10.0, 3.6), layout="constrained")
    rates, changes, eigenvalues = figure.subplots(1, 3)
    predicted = posterior.predict_rates(num_draws=200, seed=0)[:, 0]
    seen = session.recording.mask[0].any(axis=1)
    for name, chosen, color in (("E", session.is_E, VERMILION), ("I", ~session.is_E, BLUE)):
        recorded = np.where(seen, session.recording.activity[0][:, chosen].mean(axis=1), np.nan)
        lower, middle, upper = np.quantile(predicted[:, :, chosen].mean(axis=2), [0.05, 0.5, 0.95], axis=0)
        rates.plot(session.times, recorded, color=color, linewidth=0.8, label=f"{name}, recorded")
        rates.plot(session.times, middle, color=color, linestyle="--", label=f"{name}, network")
        rates.fill_between(session.times, lower, upper, color=color, alpha=0.25, linewidth=0.0)
    rates.axvline(session.times[end], color=GREY, linewidth=0.8)
    rates.set_xlabel("time (s); not fitted right of the line")
    rates.set_ylabel("mean rate (spikes/s)")
    rates.legend(fontsize="small")
    done = [one for one in results["fits"] if "refused" not in one]
    for place, one in enumerate(done):
        offset = 0.1 * (place - 0.5 * (len(done) - 1))
        for position, source in enumerate(SOURCES):
            _bar(changes, position + offset, one["posterior"]["contributions"][source], COLORS[one["magnitudes"]])
        _bar(eigenvalues, place - 0.12, one["prior"]["eigenvalue"], GREY)
        _bar(eigenvalues, place + 0.12, one["posterior"]["eigenvalue"], COLORS[one["magnitudes"]])
    changes.axhline(0.0, color=BLACK, linewidth=0.8)
    changes.set_xticks(range(len(SOURCES)), [f"from {source}" for source in SOURCES])
    changes.set_ylabel("change of the mean current of I (spikes/s)")
    for name, color in COLORS.items():
        changes.plot([], [], color=color, label=name)
    changes.legend(fontsize="small")
    eigenvalues.axhline(1.0, color=BLACK, linewidth=0.8)
    eigenvalues.set_yscale("log")
    eigenvalues.set_xticks(range(len(done)), [f"{one['scale']:g}" for one in done])
    eigenvalues.set_xlabel("scale of K from E (grey: prior)")
    eigenvalues.set_ylabel("eigenvalue of E alone")
    return figure


def _bar(axes, position: float, bounds: list[float], color: str) -> None:
    lower, middle, upper = bounds
    axes.plot([position, position], [lower, upper], color=color)
    axes.plot(position, middle, "o", color=color, markersize=4)
