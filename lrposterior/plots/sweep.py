"""What every change of a sweep does to the score, and whether improvements stack."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lrposterior.checks import require_instance
from lrposterior.plots.style import BLACK, BLUE, GREY, ORANGE, PALE, VERMILION, plain, styled
from lrposterior.sweep.configuration import BASE
from lrposterior.sweep.plan import JOINT
from lrposterior.sweep.result import SweepResult
from lrposterior.sweep.scores import UNITS

LONGEST_NAME = 50
ROW_HEIGHT = 0.24


@styled
def plot_sweep(result: SweepResult) -> Figure:
    """Draw the gain of every configuration over the base, best first, and of combinations beside what singles promise.

    Bars are 90% intervals over seeds, small dots single seeds, paired with the base. Configurations of which a fit was
    refused are marked on the right. Of combinations a bar reaches from the largest single gain to the sum of the
    gains: a gain right of its middle says that more than half of what the smaller gains promise arrives.

    Args:
        result: From :func:`lrposterior.run_sweep`.
    """
    require_instance(result, "result", SweepResult, "make it with run_sweep(plan, recording, folder)")
    rows = [len(result.ranking), len(result.stacking)] if result.stacking else [len(result.ranking)]
    figure = Figure(figsize=(7.6, 1.6 * len(rows) + ROW_HEIGHT * sum(rows)))
    panels = np.atleast_1d(figure.subplots(len(rows), height_ratios=[2 + count for count in rows]))
    _draw_ranking(panels[0], result)
    if result.stacking:
        _draw_stacking(panels[1], result)
        handles, labels = panels[1].get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True))
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=3)
    for axes in panels:
        axes.set_xlabel(f"gain over the base ({UNITS[result.score]})")
        axes.axvline(0.0, color=GREY, linewidth=0.8, zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    return figure


def _draw_ranking(axes: Axes, result: SweepResult) -> None:
    beside = axes.get_yaxis_transform()
    for row, one in enumerate(result.ranking):
        if one.gain.num_seeds and one.name != BASE:
            gains = result.gains(one.name)
            axes.plot(gains, np.full(gains.shape, row), "o", color=GREY, markersize=2.5, alpha=0.7)
            axes.plot(one.gain.interval, [row, row], color=BLUE, linewidth=1.2)
            axes.plot(one.gain.value, row, "o", color=BLUE, markersize=5)
        if one.refusals:
            refused = f"refused, {len(one.refusals)} of {len(result.seeds)}"
            axes.text(1.01, row, refused, color=VERMILION, fontsize=7, va="center", transform=beside)
    _name_rows(axes, [one.name for one in result.ranking])
    axes.set_title(f"Every change, {len(result.seeds)} seed(s), by {result.score}")


def _draw_stacking(axes: Axes, result: SweepResult) -> None:
    for row, one in enumerate(result.stacking):
        axes.text(1.01, row, one.verdict, fontsize=7, va="center", transform=axes.get_yaxis_transform())
        if not one.gain.num_seeds:
            continue
        promised = np.array([one.largest_gain.value, one.sum_of_gains.value])
        axes.plot(promised, [row, row], color=PALE, linewidth=9, solid_capstyle="butt",
                  label="largest single gain to sum of gains")  # fmt: skip
        axes.plot(promised.mean(), row, "|", color=BLACK, markersize=9, label="half way")
        axes.plot(one.gain.interval, [row, row], color=ORANGE, linewidth=1.2)
        axes.plot(one.gain.value, row, "o", color=ORANGE, markersize=5, label="together")
    _name_rows(axes, [one.name for one in result.stacking])
    axes.set_title("Do improvements stack?")


def _name_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [_shortened(name) for name in names])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _shortened(name: str) -> str:
    """A name of which every improvement has its share: cut at the end, pairs and triples would look alike."""
    parts = name.split(JOINT)
    longest = (LONGEST_NAME - len(JOINT) * (len(parts) - 1)) // len(parts)
    return JOINT.join(plain(part, longest) for part in parts)
