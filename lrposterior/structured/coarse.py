"""From the mode of some neurons to a start for all.

A random choice of a few thousand neurons of a low-rank network is, in distribution, the same network. Its mode costs
little, its latents already follow the dynamics, and from them the loadings and right factors of all neurons follow by
regression: far fewer steps are left for the whole population.
"""

from __future__ import annotations

import numpy as np

from lrposterior.precision import double_precision
from lrposterior.structured.layout import Layout
from lrposterior.structured.mode import Accuracy, Report, descend
from lrposterior.structured.start import choose_neurons, find_start
from lrposterior.structured.system import System
from lrposterior.structured.trajectory import run_latents

COARSE_NEURONS = 2000
# Only populations this many times larger are worth the detour.
WORTHWHILE = 3
COARSE_TOLERANCE = 1.0


def find_refined_start(
    system: System,
    deviations: np.ndarray,
    *,
    accuracy: Accuracy | None = None,
    seed: int = 0,
    report: Report | None = None,
) -> np.ndarray:
    """A start (coordinate,) by way of the mode of some neurons; that of `find_start` where the population is small.

    Args:
        system: the recording.
        deviations: (coordinate,) prior standard deviations.
        accuracy: of the steps to the mode of some neurons.
        seed: which neurons.
        report: called with ("coarse mode", iteration, objective, decrement).
    """
    if system.layout.num_neurons < WORTHWHILE * COARSE_NEURONS:
        return find_start(system, deviations, seed=seed)
    chosen = choose_neurons(system, COARSE_NEURONS, seed)
    part = system.select(chosen)
    part_deviations = _select(system.layout, part.layout, deviations, chosen)

    def report_part(_: str, iteration: int, objective: float, decrement: float) -> None:
        if report is not None:
            report("coarse mode", iteration, objective, decrement)

    vector, *_ = descend(
        part,
        part_deviations,
        find_start(part, part_deviations, seed=seed),
        accuracy=accuracy,
        tolerance=COARSE_TOLERANCE,
        report=report_part,
    )
    latents = double_precision(run_latents)(part, vector)[:, : system.layout.rank]
    return find_start(system, deviations, latents=latents, seed=seed)


def _select(layout: Layout, part: Layout, vector: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Coordinates of some neurons, and the shared ones."""
    return part.join(layout.rows(vector)[chosen], layout.coefficients(vector), layout.initial_latents(vector))
