"""A first network, along whose columns of M the process noise of a fit is seen.

Principal directions of the recording may miss a direction of M altogether, where the network hardly moves along it. So
a start goes a few steps down with these, and the columns of M that are reached take their place.
"""

from __future__ import annotations

import numpy as np

from lrposterior.inference.initialise import initialise
from lrposterior.inference.mode import Report, first_steps
from lrposterior.inference.problem import Problem

# The first step goes most of the way, and the second turns the columns of M by little. Nats that may then be left.
NUM_STEPS, TOLERANCE = 2, 0.1


def first_network(problem: Problem, report: Report) -> dict[str, np.ndarray]:
    """Named parameters, as `LowRankModel.named` gives them, after the first steps of a fit.

    Args:
        problem: what to fit.
        report: as `find_mode` takes it.

    Raises:
        FitError: if there is no start, or no step.
    """
    z = first_steps(problem, initialise(problem), NUM_STEPS, TOLERANCE, report)
    coordinates = {name: np.asarray(value) for name, value in problem.space.unwhiten(z).items()}
    return problem.model.named(coordinates, problem.recording.dt)
