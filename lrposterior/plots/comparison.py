"""What changed between two posteriors."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lrposterior.checks import require_instance
from lrposterior.comparison.result import LEAST_CONTRACTION, PosteriorComparison
from lrposterior.plots.style import (
    BLACK,
    BLUE,
    DIVERGING,
    GREY,
    PALE,
    VERMILION,
    color_bar,
    count_ticks,
    styled,
    symmetric_norm,
)


@styled
def plot_comparison(comparison: PosteriorComparison) -> Figure:
    """Draw the change between patterns, its directions, and the neurons that it belongs to.

    Left, the change from read to write patterns: a dot where it differs from zero, a cross where it cannot be told.
    Middle, the directions of the change with 90% intervals, those beyond doubt in red. Right, what every neuron has of
    the first of them as a postsynaptic and as a presynaptic neuron.

    Args:
        comparison: From :func:`lrposterior.compare_posteriors`.
    """
    require_instance(comparison, "comparison", PosteriorComparison, "make it with compare_posteriors(a, b, seed=0)")
    figure = Figure(figsize=(10.0, 3.4))
    matrix, sizes, neurons = figure.subplots(1, 3, gridspec_kw={"width_ratios": [1.2, 1.0, 1.0]})
    image = matrix.imshow(comparison.change, aspect="auto", cmap=DIVERGING, norm=symmetric_norm(comparison.change, 1.0))
    for mask, marker, label in ((comparison.differs, "o", "differs"), (comparison.untold, "x", "cannot be told")):
        write, read = np.nonzero(mask)
        if write.size:
            matrix.scatter(read, write, marker=marker, s=18, color=BLACK, linewidths=1.0, label=f"change {label}")
    matrix.set(title="Change of W between patterns", xlabel="read pattern", ylabel="write pattern")
    count_ticks(matrix, "both")
    color_bar(matrix, image, "current / rate", below=False, offset=0.03)

    index, certain = np.arange(comparison.directions.size.size), comparison.num_directions
    colors = [VERMILION if each < certain else GREY for each in index]
    sizes.bar(index, comparison.directions.size, color=PALE, edgecolor=colors)
    sizes.errorbar(
        index, comparison.directions.size, 1.645 * comparison.directions.sd, fmt="none", color=BLACK, capsize=3
    )
    sizes.set(
        title=f"{certain} direction(s) beyond doubt", xlabel="direction", ylabel="size of the change (current / rate)"
    )
    count_ticks(sizes, "x")

    neurons.axhline(0.0, color=GREY, linewidth=0.6)
    neurons.axvline(0.0, color=GREY, linewidth=0.6)
    told = comparison.incoming_contraction >= LEAST_CONTRACTION
    for mask, color, label in ((told, BLUE, "neuron's input is known"), (~told, PALE, "neuron's input cannot be told")):
        if mask.any():
            first = comparison.directions.write[mask, 0], comparison.directions.read[mask, 0]
            neurons.scatter(*first, s=10, color=color, label=label)
    neurons.set(title="First direction, by neuron", xlabel="as postsynaptic", ylabel="as presynaptic")
    handles = {}
    for axes in (matrix, neurons):
        found, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure
