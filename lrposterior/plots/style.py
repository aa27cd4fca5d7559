"""One look for every figure, put on only while a figure is made: nobody's matplotlib settings change."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from lrposterior.files import replacing, require_file_name

# Okabe and Ito's palette, which readers with any colour vision tell apart (Wong 2011, doi:10.1038/nmeth.1618).
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
PALETTE = (BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, BLACK)
TYPE_COLORS = (VERMILION, BLUE, GREEN, ORANGE, PURPLE, SKY, BLACK)  # in alphabetical order: E red, I blue
GREY, PALE = "#6E6E6E", "#D9D9D9"
SEQUENTIAL, DIVERGING = "cividis", "RdBu_r"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

RECORDED_UNITS = "recorded units"
DOTS_PER_INCH = 150
# Images of all pairs of neurons show a choice of them where there are more.
MOST_NEURONS, NUM_CHOSEN = 600, 300
# Colour bars that end below write their numbers as multiples of a power of ten.
SMALLEST_WRITTEN_OUT = 0.005
FIGURE_ENDINGS = (".png", ".svg", ".pdf")

SETTINGS = {
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.06,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "lines.linewidth": 1.4,
}

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def styled(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Run a function with matplotlib's defaults and the settings above, then give back the caller's."""

    @functools.wraps(function)
    def in_style(*arguments: Parameters.args, **keywords: Parameters.kwargs) -> Result:
        with matplotlib.style.context(["default", SETTINGS]):
            return function(*arguments, **keywords)

    return in_style


@styled
def to_png(figure: Figure, dots_per_inch: int = DOTS_PER_INCH) -> bytes:
    """The figure as a PNG file, on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, facecolor="white", metadata={"Software": "lrposterior"})
    return buffer.getvalue()


@styled
def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure to a file in the format of its ending, all or nothing.

    Args:
        figure: What any of the plot functions returned.
        path: Name of the file, ending in .png, .svg or .pdf; an old file of this name is replaced.

    Raises:
        ValueError: Another ending, or a folder that does not exist.
    """
    path = require_file_name(path, "figure", FIGURE_ENDINGS)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=DOTS_PER_INCH, facecolor="white")


def plain(text: str, longest: int = 28) -> str:
    """A label from outside as literal text: short, on one line, without matplotlib's mathematics."""
    line = " ".join(text.split())
    return (line if len(line) <= longest else line[: longest - 1] + "…").replace("$", r"\$")


@dataclass(frozen=True)
class Group:
    """Neurons of one cell type, side by side in a figure.

    Attributes:
        label: the type.
        start, stop: first position, and the one after the last.
        color: of everything that belongs to the type.
    """

    label: str
    start: int
    stop: int
    color: str


def neurons_shown(num_neurons: int) -> np.ndarray:
    """All neurons, or where they are too many for an image of all pairs a random choice of them, in order."""
    if num_neurons <= MOST_NEURONS:
        return np.arange(num_neurons)
    return np.sort(np.random.default_rng(0).choice(num_neurons, NUM_CHOSEN, replace=False))


def of_how_many(shown: np.ndarray, num_neurons: int) -> str:
    """What a title has to add where not all neurons are shown."""
    return "" if len(shown) == num_neurons else f"\n{len(shown)} of {num_neurons:,} neurons, chosen at random"


def all_pairs(neurons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Post- and presynaptic neurons (pair,) of a matrix between these."""
    return np.repeat(neurons, len(neurons)), np.tile(neurons, len(neurons))


def types_of(cell_types: tuple[str, ...] | None, neurons: np.ndarray) -> tuple[str, ...] | None:
    """Cell types of some neurons, if there are any."""
    return None if cell_types is None else tuple(cell_types[neuron] for neuron in neurons)


def group_neurons(cell_types: Sequence[str] | None, num_neurons: int) -> tuple[np.ndarray, list[Group]]:
    """An order of the neurons that puts those of one type together, and the types; no types without cell_types."""
    if cell_types is None:
        return np.arange(num_neurons), []
    kinds, member = np.unique(cell_types, return_inverse=True)
    stops = np.cumsum(np.bincount(member)).tolist()
    starts = [0, *stops[:-1]]
    groups = [
        Group(str(kind), start, stop, TYPE_COLORS[index % len(TYPE_COLORS)])
        for index, (kind, start, stop) in enumerate(zip(kinds, starts, stops, strict=True))
    ]
    return np.argsort(member, kind="stable"), groups


def type_of_neurons(cell_types: Sequence[str] | None, num_neurons: int) -> list[Group]:
    """The groups as in `group_neurons`, or one nameless group of all neurons."""
    return group_neurons(cell_types, num_neurons)[1] or [Group("", 0, num_neurons, BLUE)]


def mark_groups(axes: Axes, groups: Sequence[Group], num_neurons: int, sides: str) -> None:
    """Bars with the names of the cell types along the axes of an image.

    Args:
        axes: An image whose cells are neurons in grouped order.
        groups: From `group_neurons`.
        num_neurons: Number of neurons.
        sides: "right", "top" or both, as in "right top".
    """
    for group in groups:
        start, stop = group.start - 0.5, group.stop - 0.5
        wide = group.stop - group.start > 0.06 * num_neurons
        name = plain(group.label, 8) if wide else ""
        middle = 0.5 * (start + stop)
        bar: dict[str, Any] = {"color": group.color, "linewidth": 4, "clip_on": False, "solid_capstyle": "butt"}
        if "right" in sides:
            axes.plot([1.02, 1.02], [start, stop], transform=axes.get_yaxis_transform(), **bar)
            axes.text(1.045, middle, name, transform=axes.get_yaxis_transform(), va="center", ha="left", fontsize=8)
        if "top" in sides:
            axes.plot([start, stop], [1.02, 1.02], transform=axes.get_xaxis_transform(), **bar)
            axes.text(middle, 1.04, name, transform=axes.get_xaxis_transform(), va="bottom", ha="center", fontsize=8)


def count_ticks(axes: Axes, which: str) -> None:
    """A handful of whole numbers along an axis ("x", "y" or "both")."""
    for name in "xy" if which == "both" else which:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))


def color_bar(axes: Axes, image: Any, label: str, *, below: bool, offset: float, extend: str = "neither") -> None:
    """A colour bar close to an image, below or on the right of it, `offset` axes lengths away."""
    place = (0.0, -offset - 0.045, 1.0, 0.045) if below else (1.0 + offset, 0.0, 0.022, 1.0)
    bar = axes.figure.colorbar(
        image, cax=axes.inset_axes(place), orientation="horizontal" if below else "vertical", extend=extend
    )
    bar.set_label(label)
    bar.locator = MaxNLocator(nbins=5)
    if max(abs(image.norm.vmin), abs(image.norm.vmax)) < SMALLEST_WRITTEN_OUT:
        # With the power of ten once at the end: as decimal fractions the numbers run into each other.
        bar.formatter = ScalarFormatter(useMathText=True)
        bar.formatter.set_powerlimits((0, 0))
        if below:
            # The power stands at the right end, on the line of the label.
            bar.ax.xaxis.label.set(x=0.0, horizontalalignment="left")
    bar.update_ticks()
    bar.outline.set_edgecolor(GREY)


def symmetric_norm(values: np.ndarray, quantile: float = 0.99) -> TwoSlopeNorm:
    """Colours centred on 0 that reach to this quantile of the magnitudes."""
    reach = float(np.quantile(np.abs(values), quantile)) or 1.0
    return TwoSlopeNorm(0.0, -reach, reach)


def positive_norm(values: np.ndarray, quantile: float = 0.99) -> Normalize:
    """Colours from 0 to this quantile of the values."""
    return Normalize(0.0, float(np.quantile(values, quantile)) or 1.0)


def legend_below(axes: Axes, columns: int = 3, **keywords: Any) -> None:
    """The legend under the axes, where no data are."""
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=columns, columnspacing=1.2, handlelength=1.6, **keywords
    )
