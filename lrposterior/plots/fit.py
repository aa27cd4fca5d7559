"""How well a fit predicts the recording: traces, residuals and explained variance."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrposterior.checks import argument_error, as_indices, require_instance, require_integer
from lrposterior.fit_quality import FitQuality, assess_fit, predict_activity
from lrposterior.plots.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    PALE,
    RECORDED_UNITS,
    VERMILION,
    plain,
    styled,
)
from lrposterior.posterior import Posterior
from lrposterior.recording import Recording, Selection

NUM_NEURONS_SHOWN = 6


@styled
def plot_rates(
    posterior: Posterior,
    held_out: Recording | None = None,
    *,
    neurons: Selection = None,
    trial: int = 0,
    num_draws: int = 300,
    seed: int,
    activity_unit: str = RECORDED_UNITS,
) -> Figure:
    """Draw the observed activity of some neurons in one trial beside what the posterior predicts from the inputs.

    Args:
        posterior: The fit.
        held_out: Trials that were kept from the fit; `None` draws a fitted trial.
        neurons: Which, as in :meth:`Recording.select`; by default six, from the best to the worst explained.
        trial: Which trial, counted from 0.
        num_draws: Posterior draws for the bands (5 to 95%).
        seed: Seed of the draws.
        activity_unit: Unit of the activity, for the labels.

    Raises:
        ValueError: A trial or neuron that there is not, or held-out trials that do not fit.
    """
    quality = assess_fit(posterior, held_out)
    recording = quality.recording
    require_integer(trial, "trial", 0, recording.num_trials - 1, f"there are {recording.num_trials} trials")
    chosen = _spread_neurons(quality) if neurons is None else as_indices(
        neurons, "neurons", "neuron", recording.num_neurons, recording.neuron_labels
    )  # fmt: skip
    if len(chosen) > 24:
        raise argument_error("neurons", "at most 24 neurons in one figure", f"{len(chosen)}", "choose some of them")
    draws = predict_activity(posterior, held_out, trial, chosen, num_draws=num_draws, seed=seed)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(2.9 * columns + 0.4, 1.75 * rows + 0.7))
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
    centers = (np.arange(recording.num_bins) + 0.5) * recording.dt
    for index, (panel, neuron) in enumerate(zip(panels.flat, chosen, strict=False)):
        noise = 1.645 * quality.noise_scale[neuron]
        seen = np.where(recording.mask[trial, :, neuron], recording.activity[trial, :, neuron], np.nan)
        panel.fill_between(
            centers, low[:, index] - noise, high[:, index] + noise, color=PALE, linewidth=0,
            label="90% of single observations, with noise",
        )  # fmt: skip
        panel.fill_between(
            centers, low[:, index], high[:, index], color=BLUE, alpha=0.45, linewidth=0,
            label="90% of the predicted noise-free activity",
        )  # fmt: skip
        panel.plot(
            centers, quality.predicted[trial, :, neuron], color=BLUE, label="predicted by the most probable network"
        )
        panel.plot(centers, seen, color=BLACK, marker=".", markersize=3, linestyle="none", label="observed")
        panel.set_title(_neuron_title(quality, int(neuron)), fontsize=8.5)
    for panel in list(panels.flat)[len(chosen) :]:
        panel.set_visible(False)
    for column in range(columns):
        lowest = max(row for row in range(rows) if row * columns + column < len(chosen))
        panels[lowest, column].set_xlabel("time (s)")
        panels[lowest, column].tick_params(labelbottom=True)
    what = posterior.model.observation.of
    figure.supylabel(f"{what} ({plain(activity_unit)})", fontsize=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2)
    kind = "held-out" if quality.held_out else "fitted"
    title = f"{kind.capitalize()} trial {trial} (with each neuron, its explained variance over all {kind} trials)"
    figure.suptitle(title, x=0.01, ha="left", fontsize=9.5)
    return figure


@styled
def plot_residuals(quality: FitQuality) -> Figure:
    """Draw what a fit leaves over, which is white Normal noise of one size if the model is right.

    Left: histogram of the standardised residuals over the standard Normal density. Middle: their root mean square in
    every bin. Right: their autocorrelation within trials, averaged over neurons.

    Args:
        quality: From :func:`lrposterior.fit_quality.assess_fit`.
    """
    require_instance(quality, "quality", FitQuality, "make it with assess_fit(posterior)")
    residuals, recording = quality.standardized_residuals, quality.recording
    figure = Figure(figsize=(9.4, 2.9))
    histogram, course, correlation = figure.subplots(1, 3)
    seen = residuals[np.isfinite(residuals)]
    edges = np.linspace(-5.0, 5.0, 51)
    histogram.stairs(
        np.histogram(np.clip(seen, -5, 5), edges, density=True)[0],
        edges,
        fill=True,
        color=ORANGE,
        alpha=0.7,
        label="residuals",
    )
    grid = np.linspace(-5.0, 5.0, 201)
    histogram.plot(grid, np.exp(-0.5 * grid**2) / np.sqrt(2 * np.pi), color=BLACK, label="Normal(0, 1)")
    histogram.set(title="Distribution", xlabel="residual / noise sd", ylabel="probability density")
    histogram.set_ylim(top=1.35 * histogram.get_ylim()[1])
    histogram.legend(loc="upper left")

    centers = (np.arange(recording.num_bins) + 0.5) * recording.dt
    course.plot(centers, _root_mean_square(residuals), color=BLUE)
    _expected(course, 1.0)
    course.set(title="Size over the trial", xlabel="time (s)", ylabel="rms of residual / noise sd")
    course.set_ylim(0.0, max(1.5, 1.2 * float(np.nanmax(_root_mean_square(residuals)))))

    lags, values = _autocorrelation(residuals, recording.dt)
    correlation.plot(lags, values, color=BLUE, marker="o", markersize=3)
    _expected(correlation, 0.0)
    correlation.set(title="Autocorrelation", xlabel="lag (s)", ylabel="correlation of residuals")
    reach = max(0.2, 1.2 * float(np.nanmax(np.abs(values), initial=0.0)))
    correlation.set_ylim(-reach, reach)
    correlation.set_xlim(left=0.0)
    return figure


@styled
def plot_explained_variance(quality: FitQuality, held_out: FitQuality | None = None) -> Figure:
    """Draw the explained variance of every neuron, in fitted and in held-out trials.

    Args:
        quality: Of the fitted trials, from :func:`lrposterior.fit_quality.assess_fit`.
        held_out: Of held-out trials, or `None`.
    """
    require_instance(quality, "quality", FitQuality, "make it with assess_fit(posterior)")
    order = np.argsort(-quality.neuron_explained_variance)  # NaN last
    position = np.arange(len(order))
    figure = Figure(figsize=(7.5, 3.2))
    axes = figure.subplots()
    size = float(np.clip(600 / len(order), 4, 26))
    axes.scatter(
        position, quality.neuron_explained_variance[order], s=size, color=BLUE, label=_summary("fitted trials", quality)
    )
    if held_out is not None:
        axes.scatter(
            position, held_out.neuron_expected[order], s=2 * size, marker="_", color=GREY,
            label="held-out trials if they were predicted as well as fitted ones",
        )  # fmt: skip
        axes.scatter(
            position, held_out.neuron_explained_variance[order], s=size, marker="D", facecolor="none",
            edgecolor=VERMILION, linewidth=1.0, label=_summary("held-out trials", held_out),
        )  # fmt: skip
    shown = [one.neuron_explained_variance for one in (quality, held_out) if one is not None]
    lowest = float(np.nanmin(np.concatenate(shown)))
    # A few neurons far below 0 must not flatten the others: they stand on the lower edge.
    floor = max(lowest - 0.05, -1.0)
    if lowest < -1.0:
        for values, color in zip(shown, (BLUE, VERMILION), strict=False):
            below = np.flatnonzero(values[order] < floor)
            axes.scatter(below, np.full(below.size, floor), marker="v", s=22, color=color, clip_on=False)
    axes.set_ylim(min(floor, 0.0), 1.03)
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    axes.set_xlim(-0.02 * len(order) - 0.5, 1.02 * len(order) - 0.5)
    axes.set_xlabel("neurons, from the best to the worst explained in the fitted trials")
    axes.set_ylabel("explained variance (share)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=1 if held_out is None else 2)
    return figure


def _summary(what: str, quality: FitQuality) -> str:
    return f"{what}: {quality.explained_variance:.3f} over all neurons"


def _spread_neurons(quality: FitQuality) -> np.ndarray:
    """Neurons at even steps of the ranking by explained variance, the best and the worst among them."""
    values = quality.neuron_explained_variance
    ranked = np.argsort(-values)[: int(np.isfinite(values).sum())]
    count = min(NUM_NEURONS_SHOWN, len(ranked))
    return ranked[np.linspace(0, len(ranked) - 1, count).round().astype(int)]


def _neuron_title(quality: FitQuality, neuron: int) -> str:
    recording = quality.recording
    name = f"neuron {neuron}" if recording.neuron_labels is None else plain(recording.neuron_labels[neuron], 18)
    if recording.cell_types is not None:
        name += f" ({plain(recording.cell_types[neuron], 8)})"
    value = quality.neuron_explained_variance[neuron]
    return name if np.isnan(value) else f"{name}: {value:.2f}"


def _root_mean_square(residuals: np.ndarray) -> np.ndarray:
    """(time,), NaN in bins that were never observed."""
    count = np.isfinite(residuals).sum(axis=(0, 2))
    with np.errstate(invalid="ignore"):
        return np.sqrt(np.nansum(residuals**2, axis=(0, 2)) / np.where(count, count, np.nan))


def _autocorrelation(residuals: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Lags in s, and the correlation of residuals that far apart; pairs with a masked entry are left out."""
    num_lags = max(1, min(residuals.shape[1] - 1, 20))
    power = np.nanmean(residuals**2)
    values = []
    for lag in range(1, num_lags + 1):
        products = residuals[:, lag:] * residuals[:, :-lag]
        values.append(np.nansum(products) / max(np.isfinite(products).sum(), 1) / power)
    return np.arange(1, num_lags + 1) * dt, np.array(values)


def _expected(axes: Axes, value: float) -> None:
    axes.axhline(value, color=BLACK, linestyle="--", linewidth=1.0, label="if the model is right")
    axes.legend(loc="upper right")
