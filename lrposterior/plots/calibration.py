"""Simulation-based calibration: ranks of the truth, quantity by quantity."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrposterior.calibration.calibration_result import CalibrationResult
from lrposterior.checks import require_choice, require_instance
from lrposterior.plots.style import BLUE, GREY, PALE, PALETTE, VERMILION, plain, styled

MOST_COLUMNS = 5


@styled
def plot_calibration(result: CalibrationResult, *, familywise: bool = False) -> Figure:
    """Draw the distribution function of the ranks of every quantity, minus the uniform one, with its 95% band.

    A curve above 0 on the left and below it on the right: intervals too narrow; the other way round: too wide; above
    0 everywhere: the posterior lies too high.

    Args:
        result: From :func:`lrposterior.simulate_calibration`.
        familywise: Whether the bands hold together with 95%, or each on its own.
    """
    require_instance(result, "result", CalibrationResult, "make it with simulate_calibration(model, fit, ...)")
    names = result.quantities
    columns = min(MOST_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.1 * columns + 0.5, 1.9 * rows + 0.7))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, name in zip(panels.ravel(), names, strict=False):
        band = result.band(name, familywise=familywise)
        axes.fill_between(band.at, band.lower, band.upper, step="post", color=PALE, linewidth=0)
        axes.axhline(0.0, color=GREY, linewidth=0.6)
        axes.plot(band.at, band.difference, color=BLUE if band.holds else VERMILION, drawstyle="steps-post")
        axes.set_title(plain(name, 18))
        axes.set_xlim(0.0, 1.0)
    for axes in panels.ravel()[len(names) :]:
        axes.set_visible(False)
    for column in range(columns):
        last = max(row for row in range(rows) if row * columns + column < len(names))
        panels[last, column].set_xlabel("rank of the truth")
        panels[last, column].tick_params(labelbottom=True)
    for axes in panels[:, 0]:
        axes.set_ylabel("ECDF − uniform")
    refused = f", {result.num_refused} refused" if result.num_refused else ""
    kind = "95% bands that hold together" if familywise else "95% band of each"
    figure.suptitle(f"{result.num_fitted} fits{refused}; grey: {kind}", x=0.01, ha="left", fontsize=9.5)
    return figure


def draw_rank_curves(axes: Axes, result: CalibrationResult, quantities: Sequence[str]) -> None:
    """Several quantities on axes of their own, with the band that each of them has.

    Raises:
        ValueError: No such quantity.
    """
    for color, name in zip(PALETTE, quantities, strict=False):
        band = result.band(require_choice(name, "quantities", result.quantities))
        axes.plot(band.at, band.difference, color=color, label=name, drawstyle="steps-post")
    band = result.band(quantities[0])
    axes.fill_between(band.at, band.lower, band.upper, step="post", color=GREY, alpha=0.25, linewidth=0.0)
    axes.axhline(0.0, color=GREY, linewidth=0.6)
