"""The figures of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import lrposterior as lrp
from lrposterior.plots import save_figure
from lrposterior.plots.style import BLACK, BLUE, GREY, PALE, SKY, TYPE_COLORS, color_bar, styled
from mouse_opto_parts.prediction import HiddenEntries
from mouse_opto_parts.session import DT, LIGHT_ON, Session
from mouse_opto_parts.summaries import CLASSES, class_of
from mouse_opto_parts.tables import KNOWN_SIGNS

COLORS = dict(zip("EI", TYPE_COLORS, strict=False))
MARKERS = {"E": "o", "I": "s"}
RATE = "rate (spikes/s)"
SMALLEST_SHOWN = 0.003


def save_all(
    folder: Path,
    session: Session,
    posterior: lrp.Posterior,
    degeneracy: lrp.Degeneracy,
    without_blocks: lrp.Posterior | str,
    blocks: np.ndarray,
    rankings: dict[str, lrp.PerturbationRanking],
    results: dict,
    *,
    num_draws: int,
    seed: int,
) -> None:
    rates = posterior.predict_rates(num_draws=num_draws, seed=seed)[:, 0]
    made = {
        "recording": draw_recording(session, rates),
        "noise": draw_noise(session, rates.mean(axis=0)),
        "degeneracy": degeneracy.plot_contraction(),
        "drives": draw_drives(results),
        "ranking": draw_ranking(rankings),
    }
    if isinstance(without_blocks, lrp.Posterior):
        made["prediction"] = draw_prediction(session, without_blocks, blocks, num_draws, seed)
    for name, figure in made.items():
        save_figure(figure, folder / f"{name}.png")


def _edges(session: Session) -> np.ndarray:
    """Edges of the bins in ms after the onset of the light."""
    starts = 1000.0 * (session.times - LIGHT_ON)
    return np.append(starts, starts[-1] + 1000.0 * DT)


def _middles(session: Session) -> np.ndarray:
    return 1000.0 * (session.times + 0.5 * DT - LIGHT_ON)


def _shade(axes: Axes, session: Session) -> None:
    """The light, and the bin that is masked."""
    edges, artefact = _edges(session), session.artefact
    axes.axvspan(0.0, edges[-1], color=SKY, alpha=0.13, linewidth=0)
    axes.axvspan(edges[artefact], edges[artefact + 1], color=PALE, linewidth=0)
    axes.set_xlim(edges[0], edges[-1])


@styled
def draw_recording(session: Session, rates: np.ndarray) -> Figure:
    """Every neuron, and the average courses of E and I beside those of the posterior."""
    activity, mask = session.recording.activity[0], session.recording.mask[0]
    figure = Figure(figsize=(7.6, 6.2))
    image, *courses = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [2.0, 1.0, 1.0]})
    order = np.concatenate(
        [np.flatnonzero(kind)[np.argsort(-activity[:, kind].mean(axis=0))] for kind in (session.is_E, ~session.is_E)]
    )
    shown = np.ma.masked_where(~mask, activity)[:, order].T
    mesh = image.pcolormesh(_edges(session), np.arange(len(order) + 1), shown, cmap="cividis", vmin=0.0, vmax=30.0)
    image.invert_yaxis()
    image.set_facecolor(PALE)
    for kind, start, stop in (("E", 0, session.is_E.sum()), ("I", session.is_E.sum(), len(order))):
        image.plot([-0.012] * 2, [start, stop], color=COLORS[kind], linewidth=4, transform=image.get_yaxis_transform(),
                   clip_on=False, solid_capstyle="butt")  # fmt: skip
        image.text(-0.025, 0.5 * (start + stop), kind, transform=image.get_yaxis_transform(), ha="right", va="center")
    image.set_yticks([])
    image.set_title("Every neuron, by type and mean rate (grey: masked)")
    color_bar(image, mesh, RATE, below=False, offset=0.02, extend="max")
    for axes, kind, members in ((courses[0], "E", session.is_E), (courses[1], "I", ~session.is_E)):
        _shade(axes, session)
        mean = np.where(mask.any(axis=1), activity[:, members].mean(axis=1), np.nan)
        low, middle, high = np.quantile(rates[:, :, members].mean(axis=2), [0.05, 0.5, 0.95], axis=0)
        axes.fill_between(_middles(session), low, high, color=GREY, alpha=0.45, linewidth=0, label="posterior, 90%")
        axes.plot(_middles(session), middle, color=BLACK, linewidth=1.0, label="posterior median")
        axes.plot(_middles(session), mean, MARKERS[kind], color=COLORS[kind], markersize=3.2, label="recorded")
        axes.set_ylim(bottom=0.0)
        axes.set_ylabel(f"mean {kind}\n{RATE}")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    courses[-1].set_xlabel("time after the light came on (ms)")
    return figure


@styled
def draw_prediction(
    session: Session, posterior: lrp.Posterior, hidden: np.ndarray, num_draws: int, seed: int
) -> Figure:
    """Six neurons whose hidden entries were predicted, from well to badly."""
    activity, mask = session.recording.activity[0], session.recording.mask[0]
    rates = posterior.predict_rates(num_draws=num_draws, seed=seed)[:, 0]
    noise = posterior.sample_parameters(num_draws, seed=seed)["noise_scale"][:, None, :]
    replicated = rates + noise * np.random.default_rng(seed).standard_normal(rates.shape)
    entries = HiddenEntries(session, hidden)
    squares = np.where(hidden, (activity - entries.baseline) ** 2, 0.0).sum(axis=0)
    errors = np.where(hidden, (activity - rates.mean(axis=0)) ** 2, 0.0).sum(axis=0)
    explained = 1.0 - errors / np.maximum(squares, 1e-9)
    chosen = []
    for members in (session.is_E, ~session.is_E):
        ranked = np.flatnonzero(members)[np.argsort(-explained[members])]
        chosen.append(ranked[(np.array([0.1, 0.5, 0.9]) * (len(ranked) - 1)).astype(int)])
    figure = Figure(figsize=(9.0, 4.6))
    panels = figure.subplots(2, 3, sharex=True)
    for axes, neuron in zip(panels.ravel(), np.concatenate(chosen), strict=True):
        kind, middles = session.recording.cell_types[neuron], _middles(session)
        _shade(axes, session)
        low, high = np.quantile(replicated[:, :, neuron], [0.05, 0.95], axis=0)
        axes.fill_between(middles, low, high, color=GREY, alpha=0.22, linewidth=0, label="90% of predicted data")
        low, high = np.quantile(rates[:, :, neuron], [0.05, 0.95], axis=0)
        axes.fill_between(middles, low, high, color=GREY, alpha=0.7, linewidth=0, label="90% of predicted rates")
        fitted = mask[:, neuron] & ~hidden[:, neuron]
        options = {"color": COLORS[kind], "markersize": 4.0, "linestyle": "none", "marker": MARKERS[kind]}
        axes.plot(middles[fitted], activity[fitted, neuron], **options | {"markersize": 2.2, "alpha": 0.6},
                  label=f"{kind} cell, fitted")  # fmt: skip
        axes.plot(middles[hidden[:, neuron]], activity[hidden[:, neuron], neuron], **options, markerfacecolor="white",
                  label=f"{kind} cell, hidden")  # fmt: skip
        axes.set_title(f"{session.recording.neuron_labels[neuron]}: {explained[neuron]:.2f} explained")
    for axes in panels[:, 0]:
        axes.set_ylabel(RATE)
    for axes in panels[-1]:
        axes.set_xlabel("time after the light came on (ms)")
    for axes in panels[:, -1]:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@styled
def draw_noise(session: Session, predicted: np.ndarray) -> Figure:
    """Variance of what the fit leaves, before and during the light, beside that of spike counts."""
    activity, mean = session.recording.activity[0], {}
    epochs = {"before": session.times + 2.0 * DT <= LIGHT_ON, "during": session.times > LIGHT_ON + 0.1}
    variance = {}
    for name, epoch in epochs.items():
        mean[name] = activity[epoch].mean(axis=0)
        variance[name] = np.maximum((activity - predicted)[epoch].var(axis=0), SMALLEST_SHOWN)
    figure = Figure(figsize=(7.8, 3.6))
    counts, change = figure.subplots(1, 2)
    for kind, members in (("E", session.is_E), ("I", ~session.is_E)):
        options = {
            "s": 15,
            "color": COLORS[kind],
            "marker": MARKERS[kind],
            "alpha": 0.75,
            "linewidth": 0,
            "label": kind,
        }
        counts.scatter((mean["before"] * session.spike)[members], variance["before"][members], **options)
        change.scatter(variance["before"][members], variance["during"][members], **options)
    for axes in (counts, change):
        axes.set_xscale("log")
        axes.set_yscale("log")
        low, high = axes.get_xlim()
        axes.plot([low, high], [low, high], color=BLACK, linewidth=0.9, zorder=0, label="equal")
        axes.set_xlim(low, high)
    counts.set_title("Before the light it is that of counting")
    counts.set_xlabel("variance of spike counts (spikes²/s²)")
    counts.set_ylabel("residual variance (spikes²/s²)")
    counts.legend(loc="upper left")
    change.set_title("During the light it is another (the model: equal)")
    change.set_xlabel("residual variance before the light (spikes²/s²)")
    change.set_ylabel(f"during the light (spikes²/s², at least {SMALLEST_SHOWN:g})")
    return figure


@styled
def draw_drives(results: dict) -> Figure:
    """Drives between types and by the light: prior, posterior, and posterior of a fit that did not see the onset."""
    hidden = next(one for name, one in results["other_fits"].items() if name.startswith("first"))
    shown = {
        "prior": ({name: drive["prior"] for name, drive in results["drives"].items()}, PALE, "|", 7.0),
        "posterior": ({name: drive["posterior"] for name, drive in results["drives"].items()}, BLACK, "o", 2.2),
        "posterior without the first\n10 ms of the response": (
            {name: drive["posterior"] for name, drive in hidden["drives"].items()}, BLUE, "D", 2.2,
        ),
    }  # fmt: skip
    groups = [[name for name in KNOWN_SIGNS if name.startswith("light") is lit] for lit in (False, True)]
    figure = Figure(figsize=(8.4, 3.2))
    panels = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.5, 1.0]})
    for axes, names in zip(panels, groups, strict=True):
        rows = np.arange(len(names))[::-1]
        for (label, (bounds, color, marker, width)), shift in zip(shown.items(), (0.0, 0.13, -0.13), strict=True):
            low, middle, high = np.array([bounds[name] for name in names]).T
            axes.hlines(rows + shift, low, high, color=color, linewidth=width)
            axes.plot(middle, rows + shift, marker, color=GREY if label == "prior" else color, markersize=5)
            axes.plot([], [], marker=marker, color=color, markeredgecolor=GREY if label == "prior" else color,
                      markersize=5, linewidth=width, label=f"{label}, 90%")  # fmt: skip
        axes.axvline(0.0, color=GREY, linewidth=0.8, zorder=0)
        axes.set_yticks(rows, [f"{name}  (known: {KNOWN_SIGNS[name]})" for name in names])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-0.6, len(names) - 0.4)
    panels[0].set_title("Between the types")
    panels[0].set_xlabel("current per rate, summed over the type\n(spikes/s per spike/s)")
    panels[1].set_title("By the light")
    panels[1].set_xlabel("current (spikes/s)")
    panels[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@styled
def draw_ranking(rankings: dict[str, lrp.PerturbationRanking]) -> Figure:
    """Expected R² of every candidate, and the predicted change of the mean E rate."""
    figure = Figure(figsize=(9.0, 6.2))
    panels = figure.subplots(2, len(rankings), sharey="row", squeeze=False)
    for column, (light, ranking) in enumerate(rankings.items()):
        _draw_certainty(panels[0, column], ranking)
        panels[0, column].set_title(light.capitalize())
        _draw_best(panels[1, column], ranking)
    panels[0, 0].set_ylabel("certainty: expected R²\nof the predicted response")
    panels[1, 0].set_ylabel("change of the mean E rate\n(spikes/s), without feed-through")
    for row in panels:
        row[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _draw_certainty(axes: Axes, ranking: lrp.PerturbationRanking) -> None:
    classes = np.array([class_of(label) for label in ranking.labels])
    kinds = np.array([label[0] for label in ranking.labels])
    groups = [("E ensemble", "E"), ("I ensemble", "I"), ("single cell", "E"), ("single cell", "I")]
    for place, (name, kind) in enumerate(groups):
        rows = np.flatnonzero((classes == name) & (kinds == kind))
        values = np.sort(ranking.expected_r2[rows])
        spread = np.linspace(-0.3, 0.3, len(values))
        axes.scatter(place + spread, values, s=14, color=COLORS[kind], marker=MARKERS[kind], linewidth=0, alpha=0.85,
                     label=f"{kind} stimulated" if place < 2 else None)  # fmt: skip
        axes.plot([place - 0.35, place + 0.35], [np.median(values)] * 2, color=BLACK, linewidth=1.2,
                  label="median" if place == 3 else None)  # fmt: skip
    axes.set_xticks(
        range(len(groups)), [f"{'single' if name == CLASSES[2] else 'ensemble'}\n{kind}" for name, kind in groups]
    )
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(-0.03, 1.03)


def _draw_best(axes: Axes, ranking: lrp.PerturbationRanking) -> None:
    """The most certain ensemble of either type."""
    milliseconds = 1000.0 * (ranking.times - ranking.times[0] + DT)
    for kind, style in (("E", "-"), ("I", "--")):
        rows = [index for index, label in enumerate(ranking.labels) if label.startswith(f"{kind} ensemble")]
        best = rows[int(np.argmax(ranking.expected_r2[rows]))]
        low, middle, high = ranking.readout_bands[best]
        axes.fill_between(milliseconds, low, high, color=COLORS[kind], alpha=0.25, linewidth=0)
        axes.plot(milliseconds, middle, style, marker=MARKERS[kind], markersize=3.5, color=COLORS[kind],
                  label=f"most certain\n{kind} ensemble, 90%")  # fmt: skip
    axes.axhline(0.0, color=GREY, linewidth=0.8, zorder=0)
    axes.set_xlabel("time after the stimulation began (ms)")
