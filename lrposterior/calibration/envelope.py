"""Simultaneous bands for curves whose points depend on each other, from curves that are known to be right."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

POINTWISE = (0.025, 0.975)
# Points where all references agree but for rounding say nothing: a distribution function at 0 and at 1.
ROUNDING = 1e-9


class Envelope(NamedTuple):
    """A global envelope.

    Attributes:
        lower, upper: (point,) the band.
        p_value: share of the curves, the tested one among them, that deviate as much as the tested one.
    """

    lower: np.ndarray
    upper: np.ndarray
    p_value: float


def global_envelope(curve: np.ndarray, references: np.ndarray, probability: float) -> Envelope:
    """The band that a curve leaves with probability 1 - `probability` if it is like the references.

    A curve's deviation is the largest of its distances from the mean of the references, measured in the distance of
    their pointwise 2.5% or 97.5% quantile on that side (directional quantiles: Myllymäki et al. 2017,
    doi:10.1111/rssb.12172), or their standard deviation where that is more, as many references may lie on a bound
    together. Whatever the dependence between points, a right curve's rank among the deviations is uniform.

    Args:
        curve: (point,) the tested one.
        references: (reference, point).
        probability: of the band.
    """
    centre = references.mean(axis=0)
    lower, upper = np.quantile(references, POINTWISE, axis=0)
    sd = references.std(axis=0)
    below, above = np.maximum(centre - lower, sd), np.maximum(upper - centre, sd)

    def deviation(curves: np.ndarray) -> np.ndarray:
        distance = curves - centre
        scale = np.where(distance < 0.0, below, above)
        return np.max(np.abs(distance) / np.where(scale > ROUNDING, scale, np.inf), axis=-1)

    deviations, own = deviation(references), float(deviation(curve))
    place = min(len(deviations), int(np.ceil(probability * (len(deviations) + 1))))
    factor = np.sort(deviations)[place - 1]
    p_value = (1 + np.count_nonzero(deviations >= own)) / (1 + len(deviations))
    return Envelope(centre - factor * below, centre + factor * above, p_value)
