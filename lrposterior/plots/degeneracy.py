"""What a recording constrains: the spectrum, the map of contracted synapses and the patterns read and written."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from lrposterior.checks import require_instance, require_integer
from lrposterior.degeneracy import Degeneracy
from lrposterior.degeneracy.subspaces import LatentConnectivity
from lrposterior.plots.connectivity import draw_synapses
from lrposterior.plots.style import (
    BLACK,
    BLUE,
    DIVERGING,
    GREY,
    MARKERS,
    ORANGE,
    PALE,
    SEQUENTIAL,
    all_pairs,
    count_ticks,
    group_neurons,
    legend_below,
    neurons_shown,
    of_how_many,
    styled,
    symmetric_norm,
    type_of_neurons,
    types_of,
)

SMALLEST_SHOWN = 1e-4
LARGEST_TABLE = 12
MOST_INTERVALS = 16


@styled
def plot_spectrum(degeneracy: Degeneracy) -> Figure:
    """Draw the information lambda along every direction, of all parameters and of W alone.

    Along a direction the posterior variance is 1 / (1 + lambda) of the prior variance. Values below 1e-4, the exact
    null space among them, are drawn at 1e-4; the gauge directions and the unseen part of a random bulk are left out. Of
    a posterior in the structured form the values are counted on a grid, and those below 1e-3 are drawn at 1e-4.

    Args:
        degeneracy: From :func:`lrposterior.analyze_degeneracy`.
    """
    _require_degeneracy(degeneracy)
    figure = Figure(figsize=(6.6, 4.2))
    axes = figure.subplots()
    draw_spectrum(axes, degeneracy)
    legend_below(axes, 1)
    return figure


def draw_spectrum(axes: Axes, degeneracy: Degeneracy) -> None:
    """The spectrum on axes of its own."""
    for directions, name, color, style in (
        (degeneracy.parameters, "all parameters", BLACK, "-"),
        (degeneracy.connectivity, "W alone", BLUE, "--"),
    ):
        number = np.arange(1, len(directions.spectrum) + 1)
        values = np.maximum(directions.spectrum, SMALLEST_SHOWN)
        label = f"{name}: {directions.num_constrained} of {directions.num_directions} constrained"
        label += f", {directions.num_unseen} never seen and not shown" if directions.num_unseen else ""
        axes.plot(number, values, color=color, linestyle=style, drawstyle="steps-mid", label=label)
    axes.set_yscale("log")
    top = 3.0 * max(float(degeneracy.spectrum.max()), 10.0 * degeneracy.threshold)
    bottom = min(SMALLEST_SHOWN, 0.1 * degeneracy.threshold)
    axes.axhspan(bottom / 2, degeneracy.threshold, color=PALE, alpha=0.6, linewidth=0, zorder=0)
    axes.axhline(degeneracy.threshold, color=GREY, linewidth=1.0)
    axes.set_ylim(bottom / 2, top)
    axes.set_xlim(0, len(degeneracy.spectrum) + 1)
    right = axes.get_yaxis_transform()
    for text, place, side in (("constrained", 1.25, "bottom"), ("degenerate", 0.8, "top")):
        axes.text(0.01, place * degeneracy.threshold, text, transform=right, va=side, fontsize=8)
    count_ticks(axes, "x")
    axes.set_title("Information along every direction")
    axes.set_xlabel("direction, from the best to the least constrained")
    axes.set_ylabel("information λ (prior / posterior variance − 1)")


@styled
def plot_contraction(degeneracy: Degeneracy) -> Figure:
    """Draw the share of the prior variance of every synapse that the data removed, and its histogram.

    Of more than 600 neurons, the synapses between 300 are shown.

    Args:
        degeneracy: From :func:`lrposterior.analyze_degeneracy`.
    """
    _require_degeneracy(degeneracy)
    num_neurons = degeneracy.posterior.recording.num_neurons
    figure = Figure(figsize=(8.4, 3.9))
    image, histogram = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.0, 1.1]})
    draw_contraction(image, degeneracy)
    is_small = len(neurons_shown(num_neurons)) == num_neurons
    values = degeneracy.contraction.ravel() if is_small else degeneracy.sampled_contraction
    values = values[np.isfinite(values)]
    edges = np.linspace(min(0.0, float(values.min())), max(1.0, float(values.max())), 41)
    counts = np.histogram(values, edges)[0] / len(values)
    histogram.stairs(counts, edges, fill=True, color=BLUE, alpha=0.75)
    median = float(np.median(values))
    histogram.axvline(median, color=BLACK, linestyle="--", linewidth=1.2, label=f"median {median:.2f}")
    histogram.set_xlim(edges[0], edges[-1])
    histogram.set_title("All synapses" if is_small else f"{values.size:,} of all synapses, chosen at random")
    histogram.set_xlabel("variance removed (share of the prior's)")
    histogram.set_ylabel("share of synapses")
    legend_below(histogram, 1)
    return figure


def draw_contraction(axes: Axes, degeneracy: Degeneracy) -> None:
    """The contraction of every synapse as an image."""
    recording = degeneracy.posterior.recording
    shown = neurons_shown(recording.num_neurons)
    if len(shown) == recording.num_neurons:
        values = degeneracy.contraction
    else:
        values = degeneracy.contraction_entries(*all_pairs(shown)).reshape(len(shown), -1)
    draw_synapses(
        axes, values, types_of(recording.cell_types, shown),
        title="Variance removed per synapse" + of_how_many(shown, recording.num_neurons),
        label="variance removed (share of the prior's)", colors=SEQUENTIAL, norm=Normalize(0.0, 1.0),
    )  # fmt: skip


@styled
def plot_subspaces(degeneracy: Degeneracy, *, num_patterns: int = 8, num_draws: int = 400, seed: int) -> Figure:
    """Draw the patterns that the determined connectivity reads and writes, and W between the principal rates.

    Above: share of the removed variance on the leading presynaptic (read) and postsynaptic (written) patterns; the
    first pattern of either kind, neuron by neuron. Below: posterior mean of Q^T W Q, with Q the principal directions of
    the visited rates, and the 90% intervals of its largest entries.

    Args:
        degeneracy: From :func:`lrposterior.analyze_degeneracy`.
        num_patterns: How many patterns to show.
        num_draws: Draws of W for the intervals.
        seed: Seed of these draws.
    """
    _require_degeneracy(degeneracy)
    num_neurons = degeneracy.posterior.recording.num_neurons
    num_patterns = min(require_integer(num_patterns, "num_patterns", 1), num_neurons)
    latent = degeneracy.latent_connectivity(num_draws=num_draws, seed=seed)
    figure = Figure(figsize=(8.6, 7.4))
    panels = figure.subplots(2, 2, gridspec_kw={"height_ratios": [1.0, 1.15]})
    _draw_shares(panels[0, 0], degeneracy, num_patterns)
    _draw_patterns(panels[0, 1], degeneracy)
    _draw_latent_mean(panels[1, 0], latent)
    _draw_latent_intervals(panels[1, 1], latent)
    return figure


def _draw_shares(axes: Axes, degeneracy: Degeneracy, num_patterns: int) -> None:
    num_patterns = min(num_patterns, len(degeneracy.read.shares))
    number = np.arange(1, num_patterns + 1)
    for subspace, label, color, marker, shift in (
        (degeneracy.read, "read (presynaptic)", BLUE, "o", -0.12),
        (degeneracy.written, "written (postsynaptic)", ORANGE, "s", 0.12),
    ):
        shares = subspace.shares[:num_patterns]
        axes.vlines(number + shift, 0.0, shares, color=color, linewidth=2.0)
        axes.plot(number + shift, shares, marker, color=color, markersize=5, label=label)
    axes.set_ylim(bottom=0.0)
    count_ticks(axes, "x")
    axes.set_title("Where the information is")
    axes.set_xlabel("pattern")
    axes.set_ylabel("share of the removed variance")
    legend_below(axes, 1)


def _draw_patterns(axes: Axes, degeneracy: Degeneracy) -> None:
    recording = degeneracy.posterior.recording
    order, _ = group_neurons(recording.cell_types, recording.num_neurons)
    read, written = degeneracy.read.patterns[0], degeneracy.written.patterns[0]
    groups = type_of_neurons(recording.cell_types, recording.num_neurons)
    size = float(np.clip(1500 / recording.num_neurons, 6, 30))
    for index, group in enumerate(groups):
        members = order[group.start : group.stop]
        axes.scatter(
            read[members], written[members], s=size, color=group.color, marker=MARKERS[index % len(MARKERS)], alpha=0.8,
            linewidth=0, label=group.label or None,
        )  # fmt: skip
    for line in (axes.axhline, axes.axvline):
        line(0.0, color=GREY, linewidth=0.8, zorder=0)
    axes.locator_params(nbins=5)
    axes.set_title("First patterns (a point is a neuron)")
    axes.set_xlabel("loading of the first pattern read")
    axes.set_ylabel("loading of the first pattern written")
    if recording.cell_types is not None:
        legend_below(axes, 4)


def _draw_latent_mean(axes: Axes, latent: LatentConnectivity) -> None:
    size = len(latent.mean)
    norm = symmetric_norm(latent.mean, 1.0)
    draw_synapses(
        axes, latent.mean, None, title="W between the principal rates: mean", label="QᵀWQ (current / rate)",
        colors=DIVERGING, norm=norm,
    )  # fmt: skip
    names = [_direction(index) for index in range(size)]
    if size <= LARGEST_TABLE:
        axes.set_xticks(range(size), names)
        axes.set_yticks(range(size), names)
    axes.set_xlabel("presynaptic direction of the rates")
    axes.set_ylabel("postsynaptic direction")


def _draw_latent_intervals(axes: Axes, latent: LatentConnectivity) -> None:
    size = len(latent.mean)
    largest = np.argsort(-np.abs(latent.mean), axis=None)[:MOST_INTERVALS]
    rows = np.arange(len(largest))[::-1]
    mean, lower, upper = (array.ravel()[largest] for array in (latent.mean, latent.lower, latent.upper))
    axes.hlines(rows, lower, upper, color=BLUE, linewidth=2.0)
    axes.plot(mean, rows, "o", color=BLACK, markersize=4)
    axes.axvline(0.0, color=GREY, linewidth=0.8, zorder=0)
    axes.set_yticks(rows, [f"{_direction(index % size)} → {_direction(index // size)}" for index in largest.tolist()])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.7, len(largest) - 0.3)
    axes.set_title(f"Mean and {100 * latent.probability:g}% interval")
    axes.set_xlabel("QᵀWQ (current / rate)")
    axes.set_ylabel("largest entries, from → to")


def _direction(index: int) -> str:
    return f"q{index + 1}"


def _require_degeneracy(value: Degeneracy) -> None:
    require_instance(value, "degeneracy", Degeneracy, "make it with analyze_degeneracy(posterior)")
