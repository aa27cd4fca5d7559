"""Several modes as one posterior: a mixture of their Normal approximations, weighted by their evidence.

Where modes lie so far apart that their Normal approximations do not overlap, p(activity) is the sum of what each of
them integrates to, and each has its share of the posterior. Each is balanced on its own and lies in a gauge of its
own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lrposterior.distribution import MixtureDistribution, NormalDistribution, normals
from lrposterior.gauge import relative_distance
from lrposterior.inference.approximation import CONVERGED, Approximation
from lrposterior.inference.balance import Balanced
from lrposterior.parameters import ParameterSpace

SMALLEST_WEIGHT = 1e-3
# Two modes in (M, K) can lead to one mode of W.
SMALLEST_DIFFERENCE = 0.01


def weigh(modes: Mapping[int, Balanced], evidences: Sequence[float | None]) -> tuple[list[int], np.ndarray]:
    """Which modes make up the posterior, heaviest first, and the log evidence of each in nats.

    Args:
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
        (value, index, _factors(modes[index]))
        for index, value in enumerate(evidences)
        if value is not None and index in modes
    ]
    known.sort(key=lambda each: -each[0])
    kept: list[tuple[float, int, tuple[np.ndarray, np.ndarray]]] = []
    for value, index, factors in known:
        is_new = all(relative_distance(factors, other) > SMALLEST_DIFFERENCE for _, _, other in kept)
        if is_new and value - known[0][0] > np.log(SMALLEST_WEIGHT):
            kept.append((value, index, factors))
    return [index for _, index, _ in kept], np.array([value for value, _, _ in kept])


def combine(
    approximations: Sequence[Approximation], spaces: Sequence[ParameterSpace], log_evidences: np.ndarray
) -> Approximation:
    """The mixture of Normal approximations, in the coordinates of the first; of one, itself.

    Args:
        approximations: of the modes, heaviest first.
        spaces: the coordinates of each, which differ where prior scales are inferred.
        log_evidences: (approximation,) in nats.
    """
    first = approximations[0]
    if len(approximations) < 2:
        return first
    weights = np.exp(log_evidences - np.logaddexp.reduce(log_evidences))
    all_weights, components = [], []
    for weight, each, space in zip(weights, approximations, spaces, strict=True):
        scale = space.standard_deviations / spaces[0].standard_deviations
        for part, normal in normals(each.distribution):
            all_weights.append(weight * part)
            components.append(NormalDistribution(normal.location * scale, normal.scale * scale[:, None]))
    status = next((each.status for each in approximations if each.status != CONVERGED), CONVERGED)
    more = {"modes in the mixture": float(len(weights)), "weight of the heaviest mode": float(weights[0])}
    distribution = MixtureDistribution(np.array(all_weights), tuple(components))
    return Approximation(distribution, status, first.elbo, {**first.diagnostics, **more})


def _factors(balanced: Balanced) -> tuple[np.ndarray, np.ndarray]:
    """M and K, in units that all problems share."""
    parameters = balanced.problem.space.unwhiten(balanced.mode.z)
    return parameters["M"], parameters["K"]
