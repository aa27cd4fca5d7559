"""What was recorded: inputs, population mean and the activity of every neuron."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrposterior.checks import require_instance, require_integer
from lrposterior.plots.style import (
    BLACK,
    GREEN,
    MARKERS,
    PALE,
    PURPLE,
    RECORDED_UNITS,
    SKY,
    color_bar,
    count_ticks,
    group_neurons,
    mark_groups,
    plain,
    styled,
    type_of_neurons,
)
from lrposterior.recording import Recording

INPUT_COLORS = (BLACK, GREEN, PURPLE, SKY)


@styled
def plot_recording(recording: Recording, *, trial: int = 0, activity_unit: str = RECORDED_UNITS) -> Figure:
    """Draw one trial of a recording over the mean of all trials.

    From above: the inputs of the trial; the activity averaged over the neurons of each cell type, in this trial and
    (mean and standard deviation) over all trials; the activity of every neuron in this trial. Masked bins are grey.

    Args:
        recording: What to draw.
        trial: Which trial, counted from 0.
        activity_unit: Unit of the activity, for the labels, for instance "spikes/s".

    Raises:
        ValueError: No Recording, or a trial that there is not.
    """
    require_instance(recording, "recording", Recording)
    require_integer(trial, "trial", 0, recording.num_trials - 1, f"there are {recording.num_trials} trials")
    has_inputs = recording.num_inputs > 0
    heights = [0.8, 1.0, 2.2] if has_inputs else [1.0, 2.2]
    figure = Figure(figsize=(7.5, 5.6 if has_inputs else 4.8))
    panels = figure.subplots(len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights})
    if has_inputs:
        _draw_inputs(panels[0], recording, trial)
    _draw_population(panels[-2], recording, trial, activity_unit)
    _draw_neurons(panels[-1], recording, trial, activity_unit)
    panels[-1].set_xlabel("time (s)")
    panels[-1].set_xlim(0.0, recording.duration)
    return figure


def _edges(recording: Recording) -> np.ndarray:
    return np.arange(recording.num_bins + 1) * recording.dt


def _draw_inputs(axes: Axes, recording: Recording, trial: int) -> None:
    for index in range(recording.num_inputs):
        values = recording.inputs[trial, :, index]
        label = f"input {index}" if index < 2 * len(INPUT_COLORS) else None
        axes.stairs(
            values, _edges(recording), baseline=None, linewidth=1.2, color=INPUT_COLORS[index % len(INPUT_COLORS)],
            linestyle=("-", "--")[index // len(INPUT_COLORS) % 2], label=label,
        )  # fmt: skip
    axes.set_title(f"Inputs in trial {_name(recording, trial)}")
    axes.set_ylabel("input\n(own units)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _draw_population(axes: Axes, recording: Recording, trial: int, unit: str) -> None:
    order, _ = group_neurons(recording.cell_types, recording.num_neurons)
    observed = np.ma.masked_where(~recording.mask, recording.activity)
    centers = (np.arange(recording.num_bins) + 0.5) * recording.dt
    for index, group in enumerate(type_of_neurons(recording.cell_types, recording.num_neurons)):
        means = observed[:, :, order[group.start : group.stop]].mean(axis=2).filled(np.nan)
        name = f"{plain(group.label, 12)}, " if group.label else ""
        marker = MARKERS[index % len(MARKERS)]
        axes.plot(
            centers, means[trial], color=group.color, marker=marker, markevery=0.1, markersize=4,
            label=f"{name}trial {_name(recording, trial)}",
        )  # fmt: skip
        if recording.num_trials > 1:
            seen = np.ma.masked_invalid(means)
            mean, sd = seen.mean(axis=0).filled(np.nan), seen.std(axis=0).filled(np.nan)
            axes.fill_between(
                centers, mean - sd, mean + sd, color=group.color, alpha=0.25, linewidth=0,
                label=f"{name}all trials,\nmean ± sd",
            )  # fmt: skip
    axes.set_title("Mean over neurons")
    axes.set_ylabel(f"mean activity\n({plain(unit)})")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _draw_neurons(axes: Axes, recording: Recording, trial: int, unit: str) -> None:
    order, groups = group_neurons(recording.cell_types, recording.num_neurons)
    shown = np.where(recording.mask[trial], recording.activity[trial], np.nan)[:, order]
    seen = shown[np.isfinite(shown)]
    low, high = np.quantile(seen, [0.005, 0.995]) if seen.size else (0.0, 1.0)
    both_signs = low < -0.05 * high
    reach = max(abs(low), abs(high)) or 1.0
    axes.set_facecolor(PALE)
    image = axes.imshow(
        shown.T, aspect="auto", origin="lower", extent=(0.0, recording.duration, -0.5, recording.num_neurons - 0.5),
        cmap="PuOr_r" if both_signs else "cividis",
        vmin=-reach if both_signs else min(low, 0.0), vmax=reach,
    )  # fmt: skip
    mark_groups(axes, groups, recording.num_neurons, "right")
    by_type = ", by cell type" if groups else ""
    axes.set_title(
        f"Activity in trial {_name(recording, trial)}" + ("" if recording.fully_observed else " (grey: not observed)")
    )
    axes.set_ylabel(f"neuron{by_type}")
    count_ticks(axes, "y")
    color_bar(axes, image, f"activity ({plain(unit)})", below=False, offset=0.09 if groups else 0.03, extend="both")


def _name(recording: Recording, trial: int) -> str:
    labels = recording.trial_labels
    return f"{trial}" if labels is None else f"{trial} ({plain(labels[trial], 16)})"
