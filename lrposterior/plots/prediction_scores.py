"""How right predicted responses were: ranks, intervals, certainty against accuracy, and what the order is worth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrposterior.calibration.cases import COVERAGE_LEVELS
from lrposterior.calibration.prediction_scores import ALL, BAND, PredictionScores
from lrposterior.calibration.ranks import central_coverage
from lrposterior.calibration.statistics import promised_risk, reliability, risk, sparsification
from lrposterior.checks import require_choice, require_instance
from lrposterior.plots.style import BLUE, GREY, MARKERS, ORANGE, PALE, PALETTE, legend_below, plain, styled

LOWEST_R2 = -0.5
CENTRAL = (0.025, 0.975)
RIGHT = "right posterior (95%)"
# Coverage is read where its levels are exact.
PROBABILITIES = np.linspace(0.0, 1.0, 101)


@styled
def plot_prediction_scores(scores: PredictionScores, name: str = ALL, *, panel: str | None = None) -> Figure:
    """Draw how right predicted responses were.

    - "ranks": the distribution function of the ranks of true entries minus that of the uniform distribution, with its
      simultaneous band. Above 0 on the left and below on the right: intervals too narrow; the other way round: too
      wide.
    - "coverage": the share of true entries in their central intervals against the probability of the interval.
    - "reliability": the R² that predictions were expected to have against the one that they had.
    - "class R²": both R², pooled over the candidates of every class.
    - "sparsification": the mean error that is left when the least certain candidates are removed.
    - "risk": the error of the most certain candidates, and what their certainty promised.

    Grey is where the curve of 95% of the draws lies with a draw in the place of the truth: what to expect if the
    posterior is right.

    Args:
        scores: From :func:`lrposterior.score_predictions`.
        name: One of the classes, or "all".
        panel: One of the above; None draws them all side by side.

    Raises:
        ValueError: No such class or panel.
    """
    require_instance(scores, "scores", PredictionScores, "make them with score_predictions(draws, truth, seed=0)")
    require_choice(name, "name", scores.class_names)
    which = "all candidates" if name == ALL else plain(name)
    if panel is not None:
        figure = Figure(figsize=(4.6, 4.3))
        PANELS[require_choice(panel, "panel", tuple(PANELS))](figure.subplots(), scores, name)
        figure.suptitle(which, x=0.01, ha="left", fontsize=10)
        return figure
    figure = Figure(figsize=(10.4, 7.6))
    for axes, draw in zip(figure.subplots(2, 3).ravel(), PANELS.values(), strict=True):
        draw(axes, scores, name)
    title = f"{which}: {len(scores.members(name))}, predicted by {scores.num_draws} draws"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def draw_ranks(axes: Axes, scores: PredictionScores, name: str) -> None:
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


PANELS: dict[str, Callable[[Axes, PredictionScores, str], None]] = {
    "ranks": draw_ranks,
    "coverage": draw_coverage,
    "reliability": draw_reliability,
    "class R²": draw_class_r2,
    "sparsification": draw_sparsification,
    "risk": draw_risk,
}
