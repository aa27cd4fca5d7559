"""Candidate perturbations: how certain their responses are, what they would teach, and what they look like."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrposterior.checks import as_array, as_labels, require_finite, require_instance, require_integer, require_shape
from lrposterior.perturbation.ranking import PerturbationRanking
from lrposterior.plots.style import (
    BLUE,
    DIVERGING,
    GREY,
    MARKERS,
    PALETTE,
    color_bar,
    count_ticks,
    group_neurons,
    mark_groups,
    plain,
    styled,
    symmetric_norm,
)

AXIS_NAMES = {
    "certainty": "expected R² of the prediction",
    "contraction": "contraction of the response's variance",
    "information": "information (nats)",
}
MOST_CLASSES = 7
LOWEST_R2 = -0.5


@styled
def plot_ranking(ranking: PerturbationRanking, *, classes: Sequence[str] | None = None, num_best: int = 12) -> Figure:
    """Draw the score of every candidate, class by class, and the best candidates by name.

    Args:
        ranking: From :func:`lrposterior.rank_perturbations`.
        classes: Class of every candidate; by default its label without the number at its end.
        num_best: How many candidates to name.

    Raises:
        ValueError: Classes that do not fit the candidates, or num_best < 1.
    """
    _require_ranking(ranking)
    best = ranking.order[: require_integer(num_best, "num_best", 1, 40)]
    members = _members(ranking, classes)
    figure = Figure(figsize=(9.4, max(3.6, 1.0 + 0.22 * len(best))))
    everything, named = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.5, 1.0]})
    start = 0
    colors = np.empty(ranking.num_candidates, dtype=object)
    size = float(np.clip(2500 / ranking.num_candidates, 8, 30))
    middles, names = [], []
    for index, (name, rows) in enumerate(members.items()):
        ranked = rows[np.argsort(-ranking.score[rows], kind="stable")]
        color, marker = _look(index)
        colors[rows] = color
        positions = start + np.arange(len(rows))
        everything.scatter(positions, ranking.score[ranked], s=size, color=color, marker=marker, linewidth=0)
        middles.append(positions.mean())
        names.append(f"{plain(name, 16)}\n({len(rows)})")
        start += len(rows) + max(1, round(0.03 * ranking.num_candidates))
    everything.set_xticks(middles, names, rotation=0 if len(names) <= 4 else 30)
    everything.tick_params(axis="x", length=0)
    _limit(everything, "y", ranking.by, ranking.score)
    everything.set_title("Every candidate, best first within its class")
    everything.set_xlabel("class (number of candidates)")
    everything.set_ylabel(AXIS_NAMES[ranking.by])
    rows = np.arange(len(best))[::-1]
    named.hlines(rows, 0.0, ranking.score[best], color=list(colors[best]), linewidth=1.5)
    for row, candidate in zip(rows, best, strict=True):
        named.plot(ranking.score[candidate], row, "o", color=colors[candidate], markersize=5)
    named.set_yticks(rows, [plain(ranking.labels[candidate], 24) for candidate in best])
    named.set_ylim(-0.7, len(best) - 0.3)
    named.tick_params(axis="y", length=0)
    _limit(named, "x", ranking.by, ranking.score)
    named.set_title(f"The first {len(best)}")
    named.set_xlabel(AXIS_NAMES[ranking.by])
    return figure


@styled
def plot_responses(
    ranking: PerturbationRanking,
    candidates: Sequence[int] | None = None,
    *,
    cell_types: Sequence[str] | None = None,
) -> Figure:
    """Draw the predicted response to some candidates: the readout with its band, and every neuron.

    The stimulus' own feed-through is not part of it. Above: median and 5 to 95% of the readout, averaged over the
    conditions. Below: posterior mean of every neuron's response, averaged over the conditions.

    Args:
        ranking: From :func:`lrposterior.rank_perturbations`.
        candidates: Indices of candidates; by default the first of every class (or the first three, where there is one
            class or more than four) and the last of all.
        cell_types: Of the neurons, which are then grouped.

    Raises:
        ValueError: An index that there is not, more than six of them, or other cell types than neurons.
    """
    _require_ranking(ranking)
    order = ranking.order
    if candidates is None:
        candidates = _typical(ranking)
    mend = f"there are {ranking.num_candidates} candidates"
    chosen = [require_integer(one, "candidates", 0, ranking.num_candidates - 1, mend) for one in candidates]
    require_integer(len(chosen), "number of candidates", 1, 6, "draw some at a time")
    num_neurons = len(ranking.readout)
    if cell_types is not None:
        cell_types = as_labels(cell_types, "cell_types", "neuron", num_neurons)
    neurons, groups = group_neurons(cell_types, num_neurons)
    place = {int(candidate): rank for rank, candidate in enumerate(order, start=1)}
    means = ranking.response_mean[chosen].mean(axis=1)
    norm = symmetric_norm(means, 0.995)
    figure = Figure(figsize=(2.5 * len(chosen) + 1.0, 4.8))
    panels = figure.subplots(2, len(chosen), sharex=True, squeeze=False, gridspec_kw={"height_ratios": [1.0, 1.4]})
    dt = float(ranking.times[1] - ranking.times[0]) if len(ranking.times) > 1 else 1.0
    edges = (float(ranking.times[0]), float(ranking.times[-1]) + dt)
    bands = ranking.readout_bands[chosen]
    reach = 1.1 * float(np.abs(bands).max()) or 1.0
    for column, candidate in enumerate(chosen):
        readout, image = panels[:, column]
        low, middle, high = ranking.readout_bands[candidate]
        readout.fill_between(ranking.times + 0.5 * dt, low, high, color=BLUE, alpha=0.3, linewidth=0, label="5 to 95%")
        readout.plot(ranking.times + 0.5 * dt, middle, color=BLUE, label="median")
        readout.axhline(0.0, color=GREY, linewidth=0.8, zorder=0)
        readout.set_ylim(-reach, reach)
        readout.set_title(
            f"{place[candidate]}. {plain(ranking.labels[candidate], 20)}\nexpected R² "
            f"{ranking.expected_r2[candidate]:.2f}",
            fontsize=8.5,
        )
        image.imshow(
            means[column][:, neurons].T, aspect="auto", origin="lower", cmap=DIVERGING, norm=norm,
            extent=(*edges, -0.5, num_neurons - 0.5),
        )  # fmt: skip
        image.set_xlabel("time (s)")
        image.set_xlim(*edges)
        image.locator_params(axis="x", nbins=4)
        count_ticks(image, "y")
        if column:
            readout.tick_params(labelleft=False)
            image.tick_params(labelleft=False)
    mark_groups(panels[1, -1], groups, num_neurons, "right")
    panels[0, 0].set_ylabel(f"readout of the\nresponse ({ranking.quantity})")
    panels[1, 0].set_ylabel("neuron" + (", by cell type" if groups else ""))
    panels[0, -1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    offset = 0.22 if groups else 0.06
    color_bar(
        panels[1, -1],
        panels[1, -1].images[0],
        f"response ({ranking.quantity})",
        below=False,
        offset=offset,
        extend="both",
    )
    return figure


@styled
def plot_certainty_information(ranking: PerturbationRanking, *, classes: Sequence[str] | None = None) -> Figure:
    """Draw how certain each prediction is against how much the experiment would teach.

    Args:
        ranking: From :func:`lrposterior.rank_perturbations`.
        classes: Class of every candidate; by default its label without the number at its end.

    Raises:
        ValueError: Classes that do not fit the candidates.
    """
    _require_ranking(ranking)
    figure = Figure(figsize=(6.4, 4.0))
    axes = figure.subplots()
    _draw_classes(axes, ranking, classes, ranking.expected_r2, ranking.information)
    _limit(axes, "x", "certainty", ranking.expected_r2)
    axes.set_ylim(bottom=0.0)
    axes.set_title("Sure of the answer, or something to learn")
    axes.set_xlabel(AXIS_NAMES["certainty"])
    axes.set_ylabel("information of one trial\nper condition (nats)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@styled
def plot_accuracy(ranking: PerturbationRanking, achieved_r2: Any, *, classes: Sequence[str] | None = None) -> Figure:
    """Draw the R² that predictions were expected to have against the one that they had.

    On average over many candidates the points of a right posterior lie on the diagonal.

    Args:
        ranking: From :func:`lrposterior.rank_perturbations`.
        achieved_r2: ``(candidate,)`` 1 - ‖measured - predicted‖² / ‖measured‖², without feed-through.
        classes: Class of every candidate; by default its label without the number at its end.

    Raises:
        ValueError: Another number of candidates.
    """
    _require_ranking(ranking)
    figure = Figure(figsize=(5.6, 4.2))
    axes = figure.subplots()
    draw_accuracy(axes, ranking, achieved_r2, classes)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw_accuracy(
    axes: Axes, ranking: PerturbationRanking, achieved_r2: Any, classes: Sequence[str] | None = None
) -> None:
    """Expected against achieved R² on axes of its own; what lies below -0.5 stands on the lower edge."""
    achieved = as_array(achieved_r2, "achieved_r2", ("candidate",))
    require_shape(achieved, "achieved_r2", {"candidate": ranking.num_candidates})
    require_finite(achieved, "achieved_r2")
    axes.plot([0.0, 1.0], [0.0, 1.0], color=GREY, linestyle="--", linewidth=1.0, label="as predicted", zorder=0)
    members, below = _members(ranking, classes), achieved < LOWEST_R2
    size = float(np.clip(3000 / ranking.num_candidates, 10, 30))
    for index, (name, rows) in enumerate(members.items()):
        color, marker = _look(index)
        shown, cut = rows[~below[rows]], rows[below[rows]]
        points = {"color": color, "s": size, "alpha": 0.75, "linewidth": 0}
        axes.scatter(ranking.expected_r2[shown], achieved[shown], marker=marker, label=plain(name, 20), **points)
        if cut.size:
            edge = np.full(cut.size, LOWEST_R2)
            axes.scatter(ranking.expected_r2[cut], edge, marker="v", clip_on=False, **points)
    if below.any():
        axes.scatter([], [], color=GREY, marker="v", s=size, label=f"below {LOWEST_R2:g}".replace("-", "−"))
    axes.axhline(0.0, color=GREY, linewidth=0.8, zorder=0)
    lowest = min(0.0, float(np.maximum(achieved, LOWEST_R2).min()))
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(lowest - 0.02, 1.02)
    axes.set_title("Is the certainty right?")
    axes.set_xlabel("expected R² (predicted certainty)")
    axes.set_ylabel("achieved R²")


def _draw_classes(
    axes: Axes, ranking: PerturbationRanking, classes: Sequence[str] | None, x: np.ndarray, y: np.ndarray
) -> None:
    size = float(np.clip(3000 / ranking.num_candidates, 10, 30))
    for index, (name, rows) in enumerate(_members(ranking, classes).items()):
        color, marker = _look(index)
        axes.scatter(
            x[rows], y[rows], s=size, color=color, marker=marker, alpha=0.75, linewidth=0, label=plain(name, 20)
        )


def _members(ranking: PerturbationRanking, classes: Sequence[str] | None) -> dict[str, np.ndarray]:
    """Indices of the candidates of each class, in the order in which the classes first appear."""
    if classes is None:
        names = [classify(label) for label in ranking.labels]
        if len(set(names)) > MOST_CLASSES:
            names = ["candidate"] * ranking.num_candidates
    else:
        names = list(as_labels(classes, "classes", "candidate", ranking.num_candidates))
    array = np.array(names)
    return {name: np.flatnonzero(array == name) for name in dict.fromkeys(names)}


def _typical(ranking: PerturbationRanking) -> list[int]:
    members = _members(ranking, None)
    place = np.argsort(ranking.order)
    first = [int(rows[place[rows].argmin()]) for rows in members.values()]
    if not 1 < len(first) <= 4:
        first = ranking.order[:3].tolist()
    return list(dict.fromkeys([*sorted(first, key=lambda one: place[one]), int(ranking.order[-1])]))


def classify(label: str) -> str:
    """The class of a candidate: its label without the number at its end."""
    return re.sub(r"[\s_-]*\d+$", "", label) or "candidate"


def _look(index: int) -> tuple[str, str]:
    return PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]


def _limit(axes: Axes, side: str, by: str, values: np.ndarray) -> None:
    """R² from 0 to 1; contraction from 0, or less, to 1; information from 0."""
    finite = values[np.isfinite(values)]
    lowest = float(finite.min()) if by == "contraction" and finite.size else 0.0
    highest = 1.0 if by != "information" else float(finite.max() if finite.size else 1.0) or 1.0
    limits = (min(0.0, lowest) - 0.03 * highest, 1.03 * highest)
    axes.set(**{f"{side}lim": limits})


def _require_ranking(value: PerturbationRanking) -> None:
    require_instance(value, "ranking", PerturbationRanking, "make it with rank_perturbations(posterior, candidates)")
