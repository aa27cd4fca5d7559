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
    legend_below,
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
    matrix, sizes, neurons = figure.subplots(1, 3)
    image = matrix.imshow(comparison.change, cmap=DIVERGING, norm=symmetric_norm(comparison.change, 1.0))
    for mask, marker, label in ((comparison.differs, "o", "differs"), (comparison.untold, "x", "cannot be told")):
        write, read = np.nonzero(mask)
        if write.size:
            matrix.scatter(read, write, marker=marker, s=18, color=BLACK, linewidths=1.0, label=label)
    matrix.set(title="Change of W between patterns", xlabel="read pattern", ylabel="write pattern")
    count_ticks(matrix, "both")
    color_bar(matrix, image, "after - before", below=False, offset=0.03)
    if matrix.get_legend_handles_labels()[0]:
        legend_below(matrix)

    index, certain = np.arange(comparison.directions.size.size), comparison.num_directions
    colors = [VERMILION if each < certain else GREY for each in index]
    sizes.bar(index, comparison.directions.size, color=PALE, edgecolor=colors)
    sizes.errorbar(
        index, comparison.directions.size, 1.645 * comparison.directions.sd, fmt="none", color=BLACK, capsize=3
    )
    sizes.set(title=f"{certain} direction(s) beyond doubt", xlabel="direction", ylabel="size of the change of W")
    count_ticks(sizes, "x")

    neurons.axhline(0.0, color=GREY, linewidth=0.6)
    neurons.axvline(0.0, color=GREY, linewidth=0.6)
    told = comparison.incoming_contraction >= LEAST_CONTRACTION
    for mask, color, label in ((told, BLUE, "input known"), (~told, PALE, "input: more prior than data")):
        if mask.any():
            first = comparison.directions.write[mask, 0], comparison.directions.read[mask, 0]
            neurons.scatter(*first, s=10, color=color, label=label)
    neurons.set(title="First direction, by neuron", xlabel="as postsynaptic", ylabel="as presynaptic")
    legend_below(neurons, columns=1)
    return figure
