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

    A curve's deviation is the largest of its distances from the mean of all curves, measured in the distance of their
    pointwise 2.5% or 97.5% quantile on that side (directional quantiles: Myllymäki et al. 2017,
    doi:10.1111/rssb.12172), or their standard deviation where that is more, as many curves may lie on a bound together.
    The tested curve is one of all: whatever the dependence between points, the rank of a right one among the deviations
    is uniform.

    Args:
        curve: (point,) the tested one.
        references: (reference, point).
        probability: of the band.
    """
    curves = np.concatenate([curve[None], references])
    centre, sd = curves.mean(axis=0), curves.std(axis=0)
    lower, upper = np.quantile(curves, POINTWISE, axis=0)
    below, above = np.maximum(centre - lower, sd), np.maximum(upper - centre, sd)
    distance = curves - centre
    scale = np.where(distance < 0.0, below, above)
    deviations = np.max(np.abs(distance) / np.where(scale > ROUNDING, scale, np.inf), axis=1)
    # The tested curve is out where fewer than 1 - probability of all curves deviate as much as it does.
    place = max(0, int(np.ceil(probability * len(curves))) - 1)
    factor = np.sort(deviations)[place]
    p_value = np.count_nonzero(deviations >= deviations[0]) / len(curves)
    return Envelope(centre - factor * below, centre + factor * above, p_value)
