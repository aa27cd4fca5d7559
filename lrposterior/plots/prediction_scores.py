"""How right predicted responses were: ranks, intervals, certainty against accuracy, and what the order is worth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrposterior.calibration.comparison import COVERAGE_LEVELS
from lrposterior.calibration.prediction_scores import ALL, BAND, PredictionScores
from lrposterior.calibration.ranks import central_coverage
from lrposterior.calibration.statistics import promised_risk, reliability, risk, sparsification
from lrposterior.checks import require_choice, require_instance
from lrposterior.plots.style import BLUE, GREY, MARKERS, ORANGE, PALE, PALETTE, legend_below, plain, styled

Drawing = Callable[[Axes, PredictionScores, str], None]
LOWEST_R2 = -0.5
CENTRAL = (0.025, 0.975)
RIGHT = "right posterior (95%)"
# Coverage is read where its levels are exact.
PROBABILITIES = np.linspace(0.0, 1.0, 101)


@styled
def plot_prediction_scores(scores: PredictionScores, name: str = ALL) -> Figure:
    """Draw ranks, coverage, reliability, R² by class, sparsification and risk side by side.

    Grey is where the curve of 95% of the draws lies with a draw in the place of the truth: what to expect if the
    posterior is right.

    Args:
        scores: From :func:`lrposterior.score_predictions`.
        name: One of the classes, or "all".

    Raises:
        ValueError: No such class.
    """
    _require(scores, name)
    figure = Figure(figsize=(10.4, 7.6))
    panels = (draw_pit, draw_coverage, draw_reliability, draw_class_r2, draw_sparsification, draw_risk)
    for axes, draw in zip(figure.subplots(2, 3).ravel(), panels, strict=True):
        draw(axes, scores, name)
    which = "all candidates" if name == ALL else plain(name)
    title = f"{which}: {len(scores.members(name))}, predicted by {scores.num_draws} draws"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


@styled
def plot_pit(scores: PredictionScores, name: str = ALL) -> Figure:
    """Draw the distribution function of the ranks minus that of the uniform distribution, with its simultaneous band.

    Above 0 on the left and below on the right: intervals too narrow. The other way round: too wide.

    Args:
        scores: From :func:`lrposterior.score_predictions`.
        name: One of the classes, or "all".

    Raises:
        ValueError: No such class.
    """
    return _alone(draw_pit, scores, name)


@styled
def plot_coverage(scores: PredictionScores, name: str = ALL) -> Figure:
    """Draw the share of true entries in their central intervals against the probability of the interval.

    Args:
        scores: From :func:`lrposterior.score_predictions`.
        name: One of the classes, or "all".

    Raises:
        ValueError: No such class.
    """
    return _alone(draw_coverage, scores, name)


@styled
def plot_reliability(scores: PredictionScores, name: str = ALL) -> Figure:
    """Draw the R² that predictions were expected to have against the one that they had, candidates and bins of them.

    Args:
        scores: From :func:`lrposterior.score_predictions`.
        name: One of the classes, or "all".

    Raises:
        ValueError: No such class.
    """
    return _alone(draw_reliability, scores, name)


@styled
def plot_class_r2(scores: PredictionScores, name: str = ALL) -> Figure:
    """Draw expected and achieved R² class by class, pooled over the candidates of each.

    Args:
        scores: From :func:`lrposterior.score_predictions`.
        name: One of the classes, or "all" for each of them.

    Raises:
        ValueError: No such class.
    """
    return _alone(draw_class_r2, scores, name)


@styled
def plot_sparsification(scores: PredictionScores, name: str = ALL) -> Figure:
    """Draw the mean error that is left when the least certain candidates are removed, between oracle and random order.

    Args:
        scores: From :func:`lrposterior.score_predictions`.
        name: One of the classes, or "all".

    Raises:
        ValueError: No such class.
    """
    return _alone(draw_sparsification, scores, name)


@styled
def plot_risk(scores: PredictionScores, name: str = ALL) -> Figure:
    """Draw the error of the most certain candidates against their share, and what their certainty promised.

    Args:
        scores: From :func:`lrposterior.score_predictions`.
        name: One of the classes, or "all".

    Raises:
        ValueError: No such class.
    """
    return _alone(draw_risk, scores, name)


def draw_pit(axes: Axes, scores: PredictionScores, name: str) -> None:
    """The ranks of the true entries."""
    band, levels = scores.pit_band(name), scores.levels
    axes.fill_between(levels, band.lower - levels, band.upper - levels, color=PALE, linewidth=0, label=RIGHT)
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    axes.plot(levels, scores.pits[scores.class_names.index(name)] - levels, color=BLUE, label="truth")
    verdict = "in" if band.p_value > 1.0 - BAND else "out of"
    axes.set_title(f"Ranks: {verdict} the band (p = {band.p_value:.3f})")
    axes.set_xlabel("rank of the truth among the draws")
    axes.set_ylabel("ECDF − uniform")
    legend_below(axes, 2, fontsize=7)


def draw_coverage(axes: Axes, scores: PredictionScores, name: str) -> None:
    """Actual against nominal coverage."""
    index = scores.class_names.index(name)
    actual = _coverages(scores.pits[index])
    _shade(axes, PROBABILITIES, _coverages(scores.draw_pits[index]))
    axes.plot([0.0, 1.0], [0.0, 1.0], color=GREY, linestyle="--", linewidth=1.0, label="exact")
    axes.plot(PROBABILITIES, actual, color=BLUE, label="truth")
    marked = np.round(100 * np.array(COVERAGE_LEVELS)).astype(int)
    axes.plot(PROBABILITIES[marked], actual[marked], "o", color=BLUE, markersize=4)
    axes.set_title(f"90% intervals cover {actual[90]:.2f}")
    axes.set_xlabel("probability of the interval")
    axes.set_ylabel("share of entries inside")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    legend_below(axes, 2, fontsize=7)


def draw_reliability(axes: Axes, scores: PredictionScores, name: str) -> None:
    """Achieved against expected R²; what lies below -0.5 stands on the lower edge."""
    rows = scores.members(name)
    truth, draws = reliability(scores.truth.of(rows)), reliability(scores.draws.of(rows))
    _shade(axes, draws.predicted.mean(axis=0), draws.achieved)
    axes.plot([0.0, 1.0], [0.0, 1.0], color=GREY, linestyle="--", linewidth=1.0, label="as predicted")
    for kind, marker, color, chosen in _classes(scores, rows):
        below = scores.achieved_r2[chosen] < LOWEST_R2
        points = {"color": color, "s": 11, "alpha": 0.55, "linewidth": 0}
        shown, cut = chosen[~below], chosen[below]
        label = plain(kind, 16) if kind else "candidate"
        axes.scatter(scores.expected_r2[shown], scores.achieved_r2[shown], marker=marker, label=label, **points)
        axes.scatter(scores.expected_r2[cut], np.full(cut.size, LOWEST_R2), marker="v", clip_on=False, **points)
    axes.plot(truth.predicted[0], truth.achieved[0], "o-", color=PALETTE[-1], markersize=4, label="bins")
    scored = scores[name]
    slope, gap = scored["reliability slope"].value, scored["reliability gap"].value
    axes.set_title(f"Certainty: slope {slope:.2f}, gap {gap:.2f}")
    axes.set_xlabel("expected R² (predicted certainty)")
    axes.set_ylabel("achieved R²")
    lowest = min(0.0, float(np.maximum(scores.achieved_r2[rows], LOWEST_R2).min()))
    axes.set(xlim=(-0.02, 1.02), ylim=(lowest - 0.04, 1.04))
    legend_below(axes, 3, fontsize=7)


def draw_class_r2(axes: Axes, scores: PredictionScores, name: str) -> None:
    """Expected and achieved R², pooled, of every class."""
    names = [one for one in scores.class_names if name in (ALL, one)]
    for row, one in enumerate(names):
        expected, achieved = scores[one]["expected R², pooled"], scores[one]["achieved R², pooled"]
        first = row == 0
        limits = np.clip([achieved.ceiling_lower, achieved.ceiling_upper], LOWEST_R2, 1.0)
        axes.plot(limits, [row, row], color=PALE, linewidth=9, solid_capstyle="butt", label=RIGHT if first else None)
        interval = np.clip([achieved.lower, achieved.upper], LOWEST_R2, 1.0)
        axes.plot(interval, [row, row], color=BLUE, linewidth=1.2, label="other candidates (95%)" if first else None)
        shown = max(achieved.value, LOWEST_R2)
        marker = "o" if achieved.value >= LOWEST_R2 else "<"
        axes.plot(shown, row, marker, color=BLUE, markersize=5, label="achieved" if first else None)
        axes.plot(expected.value, row, "|", color=ORANGE, markersize=13, markeredgewidth=2.2,
                  label="expected" if first else None)  # fmt: skip
    axes.set_yticks(range(len(names)), [f"{plain(one, 14)} ({len(scores.members(one))})" for one in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_title("R² of all candidates of a class together")
    axes.set_xlabel("R², pooled")
    axes.set_xlim(min(-0.02, axes.get_xlim()[0]), 1.02)
    legend_below(axes, 2, fontsize=7)


def draw_sparsification(axes: Axes, scores: PredictionScores, name: str) -> None:
    """Mean error of what is left."""
    rows = scores.members(name)
    truth, draws = sparsification(scores.truth.of(rows)), sparsification(scores.draws.of(rows))
    removed = 1.0 - np.arange(1, len(rows) + 1) / len(rows)
    _shade(axes, removed, draws.ours)
    axes.plot(removed, truth.random[0], color=GREY, linestyle="--", linewidth=1.0, label="random order")
    axes.plot(removed, truth.oracle[0], color=ORANGE, label="oracle")
    axes.plot(removed, truth.ours[0], color=BLUE, label="least certain first")
    axes.set_title(f"Sparsification: {scores[name]['sparsification area'].value:.2f} (oracle 0, random 1)")
    axes.set_xlabel("share of candidates removed")
    axes.set_ylabel("mean of 1 − R² (at most 2)")
    axes.set(xlim=(-0.02, 1.02))
    axes.set_ylim(bottom=0.0)
    legend_below(axes, 2, fontsize=7)


def draw_risk(axes: Axes, scores: PredictionScores, name: str) -> None:
    """Error of what is kept, and what was promised."""
    rows = scores.members(name)
    cases = scores.truth.of(rows)
    kept = np.arange(1, len(rows) + 1) / len(rows)
    _shade(axes, kept, risk(scores.draws.of(rows)))
    ours = risk(cases)[0]
    axes.axhline(ours[-1], color=GREY, linestyle="--", linewidth=1.0, label="random order")
    axes.plot(kept, ours, color=BLUE, label="achieved")
    axes.plot(kept, promised_risk(cases)[0], color=ORANGE, label="promised, 1 − certainty")
    axes.set_title("Risk of the most certain")
    axes.set_xlabel("share of candidates kept")
    axes.set_ylabel("1 − R², weighted by power")
    axes.set(xlim=(-0.02, 1.02))
    axes.set_ylim(bottom=0.0)
    legend_below(axes, 2, fontsize=7)


def _alone(draw: Drawing, scores: PredictionScores, name: str) -> Figure:
    _require(scores, name)
    figure = Figure(figsize=(4.6, 4.3))
    draw(figure.subplots(), scores, name)
    if name != ALL:
        figure.suptitle(plain(name), x=0.01, ha="left", fontsize=10)
    return figure


def _require(scores: PredictionScores, name: str) -> None:
    require_instance(scores, "scores", PredictionScores, "make them with score_predictions(draws, truth, seed=0)")
    require_choice(name, "name", scores.class_names)


def _coverages(ecdf: np.ndarray) -> np.ndarray:
    return np.stack([central_coverage(ecdf, probability) for probability in PROBABILITIES], axis=-1)


def _shade(axes: Axes, x: np.ndarray, curves: np.ndarray) -> None:
    """Where the central 95% of curves (draw, point) lie, point by point."""
    lower, upper = np.quantile(curves, CENTRAL, axis=0)
    axes.fill_between(x, lower, upper, color=PALE, linewidth=0, label=RIGHT)


def _classes(scores: PredictionScores, rows: np.ndarray) -> list[tuple[str, str, str, np.ndarray]]:
    """Name, marker, colour and candidates of every class among these, in the order of `class_names`."""
    kinds = scores.class_names[1:]
    if not kinds:
        return [("", MARKERS[0], BLUE, rows)]
    found = []
    for index, kind in enumerate(kinds):
        chosen = np.intersect1d(rows, scores.members(kind))
        if chosen.size:
            found.append((kind, MARKERS[index % len(MARKERS)], PALETTE[index % len(PALETTE)], chosen))
    return found
