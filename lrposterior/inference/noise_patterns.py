"""A first network, along whose columns of M the process noise of a fit is seen.

Principal directions of the recording may miss a direction of M altogether, where the network hardly moves along it. So
a start goes a few steps down with these, and the columns of M that are reached take their place.
"""

from __future__ import annotations

import numpy as np

from lrposterior.inference.initialise import initialise
from lrposterior.inference.mode import Report, first_steps
from lrposterior.inference.problem import Problem

# Nats that may still be expected: the columns of M then turn by little. Steps, where it takes longer.
TOLERANCE, MAX_STEPS = 1.0, 30


def first_network(problem: Problem, report: Report) -> dict[str, np.ndarray]:
    """Named parameters, as `LowRankModel.named` gives them, after the first steps of a fit.

    Args:
        problem: what to fit.
        report: as `find_mode` takes it.

    Raises:
        FitError: if there is no start, or no step.
    """
    z = first_steps(problem, initialise(problem), MAX_STEPS, TOLERANCE, report)
    coordinates = {name: np.asarray(value) for name, value in problem.space.unwhiten(z).items()}
    return problem.model.named(coordinates, problem.recording.dt)
