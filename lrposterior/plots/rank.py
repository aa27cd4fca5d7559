"""Evidence and held-out density of every rank."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrposterior.checks import require_instance
from lrposterior.plots.style import BLACK, BLUE, GREY, ORANGE, PALE, VERMILION, styled
from lrposterior.rank_selection import RankSelection


@styled
def plot_rank_selection(selection: RankSelection) -> Figure:
    """Draw the log evidence and the held-out density of every rank, as far below the best as they are.

    Ranks whose evidence is refused, and those that could not be fitted, are marked at the lower edge. The bars of the
    held-out density are the standard error of the difference from the chosen rank, trial against trial.

    Args:
        selection: From :func:`lrposterior.select_rank`.
    """
    require_instance(selection, "selection", RankSelection, "make it with select_rank(model, recording, seed=0)")
    ranks = [one.rank for one in selection.fits]
    figure = Figure(figsize=(8.2, 3.5))
    left, right = figure.subplots(1, 2)
    evidence = [np.nan if one.log_evidence is None else one.log_evidence for one in selection.fits]
    _draw(left, selection, np.array(evidence), np.zeros(len(ranks)), BLUE, "no evidence: singular")
    left.set(title="Evidence", xlabel="rank", ylabel="log evidence, below the best (nats)")

    chosen = selection[selection.rank].held_out
    values, errors = np.full(len(ranks), np.nan), np.zeros(len(ranks))
    for index, one in enumerate(selection.fits):
        if one.held_out is not None:
            values[index] = one.held_out.elpd
            errors[index] = 0.0 if chosen is None else one.held_out.better_than(chosen)[1]
    _draw(right, selection, values, errors, ORANGE, "not compared")
    by = sorted({one.held_out.by for one in selection.fits if one.held_out is not None})
    right.set(
        title="Held-out trials" + (f" ({by[0]})" if by else ""),
        xlabel="rank",
        ylabel="log density, below the best (nats)",
    )
    figure.suptitle(f"rank {selection.rank}, chosen by: {selection.criterion}", x=0.01, ha="left", fontsize=9.5)
    handles = {}
    for axes in (left, right):
        found, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def _draw(
    axes: Axes, selection: RankSelection, values: np.ndarray, errors: np.ndarray, color: str, missing: str
) -> None:
    positions = np.arange(len(values))
    axes.axvspan(*(_position(selection) + np.array([-0.35, 0.35])), color=PALE, linewidth=0, label="chosen")
    known = np.isfinite(values)
    shown = values - values[known].max() if known.any() else values
    axes.errorbar(positions[known], shown[known], errors[known], color=color, marker="o", capsize=3)
    failed = np.array([one.failure is not None for one in selection.fits])
    low = axes.get_xaxis_transform()
    for mask, marker, shade, label in (
        (~known & ~failed, "v", GREY, missing),
        (failed, "x", VERMILION, "could not be fitted"),
    ):
        if mask.any():
            axes.scatter(
                positions[mask],
                np.full(mask.sum(), 0.04),
                marker=marker,
                color=shade,
                transform=low,
                label=label,
                zorder=3,
            )
    if known.any():
        axes.axhline(0.0, color=BLACK, linewidth=0.6, zorder=0)
        depth = max(1.0, -float(np.min(shown[known] - errors[known])))
        axes.set_ylim(-1.2 * depth, 0.12 * depth + float(np.max(shown[known] + errors[known])))
    else:
        axes.set_yticks([])
    axes.set_xticks(positions, [str(one.rank) for one in selection.fits])
    axes.set_xlim(-0.6, len(positions) - 0.4)


def _position(selection: RankSelection) -> int:
    return [one.rank for one in selection.fits].index(selection.rank)
