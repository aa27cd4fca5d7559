"""The posterior of the connectivity: mean and standard deviation of every synapse, and the eigenvalues."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from lrposterior.checks import require_instance
from lrposterior.plots.style import (
    BLUE,
    DIVERGING,
    GREY,
    MOST_NEURONS,
    SEQUENTIAL,
    VERMILION,
    all_pairs,
    color_bar,
    count_ticks,
    group_neurons,
    legend_below,
    mark_groups,
    neurons_shown,
    of_how_many,
    positive_norm,
    styled,
    symmetric_norm,
    types_of,
)
from lrposterior.posterior import Posterior


@styled
def plot_connectivity(posterior: Posterior, *, num_draws: int = 400, seed: int) -> Figure:
    """Draw the posterior mean and standard deviation of W, and the eigenvalues of its draws.

    Neurons of one cell type stand together; of more than 600 neurons 300 are shown, chosen at random. W is the current
    that a presynaptic rate of 1 evokes. The dashed circle has radius 1; to the right of the dotted line (real part 1) a
    mode of activity sustains itself where the slope of the nonlinearity is 1. Of a random bulk in a network of more
    than 600 neurons, the eigenvalues are those of what the recording sees of W.

    Args:
        posterior: The fit.
        num_draws: Draws of W for the eigenvalues.
        seed: Seed of the draws.

    """
    require_instance(posterior, "posterior", Posterior, "pass what fit or load_posterior returned")
    figure = Figure(figsize=(10.2, 3.7))
    mean, sd, plane = figure.subplots(1, 3)
    shown = neurons_shown(posterior.recording.num_neurons)
    W_mean, W_sd = _moments(posterior, shown)
    _draw_mean(mean, posterior, W_mean, shown)
    draw_synapses(
        sd, W_sd, types_of(posterior.recording.cell_types, shown),
        title="Posterior standard deviation of W" + of_how_many(shown, posterior.recording.num_neurons),
        label="sd of W (current / rate)", colors=SEQUENTIAL, norm=positive_norm(W_sd),
    )  # fmt: skip
    sd.set_ylabel("")
    _draw_eigenvalues(plane, posterior, num_draws, seed)
    return figure


def draw_connectivity_mean(axes: Axes, posterior: Posterior) -> None:
    """The posterior mean of W as an image."""
    shown = neurons_shown(posterior.recording.num_neurons)
    _draw_mean(axes, posterior, _moments(posterior, shown)[0], shown)


def _moments(posterior: Posterior, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (post, pre) of W between some neurons."""
    if len(shown) == posterior.recording.num_neurons:
        return posterior.connectivity_mean(), posterior.connectivity_sd()
    mean, sd = posterior.connectivity_entries(*all_pairs(shown))
    return mean.reshape(len(shown), -1), sd.reshape(len(shown), -1)


def _draw_mean(axes: Axes, posterior: Posterior, W: np.ndarray, shown: np.ndarray) -> None:
    draw_synapses(
        axes, W, types_of(posterior.recording.cell_types, shown),
        title="Posterior mean of W" + of_how_many(shown, posterior.recording.num_neurons), label="W (current / rate)",
        colors=DIVERGING, norm=symmetric_norm(W),
    )  # fmt: skip


def draw_synapses(
    axes: Axes,
    W: np.ndarray,
    cell_types: tuple[str, ...] | None,
    *,
    title: str,
    label: str,
    colors: str,
    norm: Normalize,
) -> None:
    """One number per synapse (post, pre) as an image, neurons of one cell type together.

    Args:
        axes: Where.
        W: (post, pre) what to draw.
        cell_types: Type of every neuron, or None.
        title: Of the image.
        label: Of the colour bar, with the unit.
        colors: Name of a colour map.
        norm: From number to colour.
    """
    order, groups = group_neurons(cell_types, len(W))
    image = axes.imshow(W[np.ix_(order, order)], cmap=colors, norm=norm)
    mark_groups(axes, groups, len(W), "right top")
    axes.set_xlabel("presynaptic neuron")
    axes.set_ylabel("postsynaptic neuron")
    axes.spines[["top", "right"]].set_visible(True)
    count_ticks(axes, "both")
    axes.set_title(title, pad=20 if groups else 6)
    reach = norm.vmax, (norm.vmin if isinstance(norm, TwoSlopeNorm) else -np.inf)
    beyond = W.max() > reach[0], W.min() < reach[1]
    extend = {(True, True): "both", (True, False): "max", (False, True): "min", (False, False): "neither"}[beyond]
    color_bar(axes, image, label, below=True, offset=0.19, extend=extend)


def _draw_eigenvalues(axes: Axes, posterior: Posterior, num_draws: int, seed: int) -> None:
    W, most_probable = posterior.sample_connectivity(num_draws, seed=seed), posterior.mode_connectivity
    is_large = W.num_neurons > MOST_NEURONS
    if is_large:
        W, most_probable = W.seen(), most_probable.seen()
    draws, mode = W.eigenvalues().ravel(), most_probable.eigenvalues()[0]
    axes.scatter(np.real(draws), np.imag(draws), s=6, color=BLUE, alpha=0.3, linewidth=0, label="posterior draws")
    axes.scatter(
        np.real(mode), np.imag(mode), s=42, color=VERMILION, marker="x", linewidth=1.6, label="most probable W"
    )
    angle = np.linspace(0.0, 2.0 * np.pi, 201)
    axes.plot(np.cos(angle), np.sin(angle), color=GREY, linestyle="--", linewidth=1.0, label="magnitude 1", zorder=0)
    axes.axvline(1.0, color=GREY, linestyle=":", linewidth=1.2, label="real part 1", zorder=0)
    values = np.concatenate([draws, mode])
    title = "Eigenvalues of W"
    if is_large and posterior.subspace is not None:
        title += "\n(of what the recording sees of it)"
    reach = 1.08 * max(1.15, float(np.abs(np.real(values)).max()), float(np.abs(np.imag(values)).max()))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=title)
    axes.set_xlabel("real part (current / rate)")
    axes.set_ylabel("imaginary part (current / rate)")
    legend_below(axes, 2, markerscale=1.5)
