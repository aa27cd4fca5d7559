"""Several modes as one posterior: a mixture of their Normal approximations, weighted by their evidence.

Where modes lie so far apart that their Normal approximations do not overlap, p(activity) is the sum of what each of
them integrates to, and each has its share of the posterior. Each is balanced on its own and lies in a gauge of its
own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lrposterior.distribution import MixtureDistribution, NormalDistribution
from lrposterior.inference.approximation import CONVERGED, Approximation
from lrposterior.inference.mode import Mode
from lrposterior.inference.problem import Problem

SMALLEST_WEIGHT = 1e-3
# Two modes in (M, K) can lead to one mode of W.
SMALLEST_DIFFERENCE = 0.01


def weigh(
    problem: Problem, modes: Mapping[int, Mode], evidences: Sequence[float | None]
) -> tuple[list[int], np.ndarray]:
    """Which modes make up the posterior, heaviest first, and the log evidence of each in nats.

    Args:
        problem: what is fitted.
        modes: modes of W by their place among all modes, of which 0 is the best; without those that have no Normal
            approximation.
        evidences: log evidence of every mode; None for one that cannot be trusted.

    Returns:
        Indices of the modes with a weight above 0.001, and the log evidence of each. Where that of the best mode is not
        known, nothing can be weighed: the best mode alone, and no evidence.
    """
    if evidences[0] is None:
        return [0], np.empty(0)
    known = [
        (value, index, problem.space.factors(modes[index].z))
        for index, value in enumerate(evidences)
        if value is not None and index in modes
    ]
    known.sort(key=lambda each: -each[0])
    kept: list[tuple[float, int, np.ndarray]] = []
    for value, index, (left, right) in known:
        product = left @ right.T
        is_new = all(_distance(product, other) > SMALLEST_DIFFERENCE for _, _, other in kept)
        if is_new and value - known[0][0] > np.log(SMALLEST_WEIGHT):
            kept.append((value, index, product))
    return [index for _, index, _ in kept], np.array([value for value, _, _ in kept])


def combine(approximations: Sequence[Approximation], log_evidences: np.ndarray) -> Approximation:
    """The mixture of Normal approximations with these log evidences (approximation,) in nats; of one, itself."""
    first = approximations[0]
    components = tuple(
        each.distribution for each in approximations if isinstance(each.distribution, NormalDistribution)
    )
    if len(components) < 2:
        return first
    weights = np.exp(log_evidences - np.logaddexp.reduce(log_evidences))
    status = next((each.status for each in approximations if each.status != CONVERGED), CONVERGED)
    more = {"modes in the mixture": float(len(weights)), "weight of the heaviest mode": float(weights[0])}
    distribution = MixtureDistribution(weights, components)
    return Approximation(distribution, status, first.elbo, {**first.diagnostics, **more})


def _distance(product: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(product - reference) / np.linalg.norm(reference))
