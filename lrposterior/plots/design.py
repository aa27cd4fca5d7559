"""A design: what every pattern is expected to teach, and where it goes."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lrposterior.checks import require_instance
from lrposterior.design.result import PerturbationDesign
from lrposterior.plots.style import BLUE, DIVERGING, GREY, color_bar, count_ticks, plain, styled, symmetric_norm


@styled
def plot_design(design: PerturbationDesign) -> Figure:
    """Draw the expected gain of every pattern, in the order of choice, and its currents.

    Args:
        design: From :func:`lrposterior.design_perturbations`.
    """
    require_instance(design, "design", PerturbationDesign, "pass what design_perturbations(...) returned")
    rows, names = np.arange(design.num_patterns), [plain(label, 20) for label in design.candidates.labels]
    figure = Figure(figsize=(8.6, max(2.6, 1.2 + 0.2 * design.num_patterns)))
    gains, patterns = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.0, 1.5]})
    for random, color, label in ((False, BLUE, "chosen"), (True, GREY, "random")):
        kept = design.is_random == random
        if kept.any():
            gains.barh(rows[kept], design.gains[kept], color=color, label=label)
    gains.set_yticks(rows, names)
    gains.invert_yaxis()
    gains.set_title("Expected gain, in the order of choice")
    gains.set_xlabel(f"nats about {design.goal}")
    gains.legend(loc="lower right")
    image = patterns.imshow(
        design.candidates.patterns,
        aspect="auto",
        cmap=DIVERGING,
        norm=symmetric_norm(design.candidates.patterns, 1.0),
    )
    patterns.set_yticks([])
    patterns.set_title("Patterns")
    patterns.set_xlabel("neuron")
    count_ticks(patterns, "x")
    color_bar(patterns, image, "current", below=False, offset=0.05)
    return figure
