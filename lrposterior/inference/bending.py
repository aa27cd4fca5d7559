"""What magnitudes add to a Normal approximation because they bend: to its curvature, and to its mean.

Around a mode z* a likelihood that is quadratic in the parameters p(z), of slope h and information F in z, has

    V(z) = h . D + D^T F D / 2 + |z|^2 / 2,    D_i = (p_i(z) - p_i(z*)) / p_i'(z*).

With b = p'' / p' and t = p''' / p' at z*, its curvature there is F + I + diag(h b). Where h b is positive it holds
a magnitude that the data push towards 0, where p' and with it F vanish. With the covariance S of that curvature, its
third derivatives move the mean away from the mode, to second order (Tierney and Kadane 1986,
doi:10.1080/01621459.1986.10478240), to z* - S g with

    g_k = h_k t_k S_kk / 2  +  sum_j F_kj b_j S_jj / 2  +  b_k (F S)_kk.

No network is simulated for it. Without it magnitudes come out too large: their logarithms have a long tail to the side
where they no longer matter, and none to the other.

Where the scale of K of a cell type is inferred, exp(c z_s) multiplies all K of that type, and each of these entries k
bends with both of its coordinates. With r = p / p', further derivatives of it over p_k' are

    c by (k, s),    c^2 r by (s, s),    c b by (k, k, s),    c^2 by (k, s, s),    c^3 r by (s, s, s),

so that g has besides, with A_k = c S_ks + c^2 r S_ss / 2, and for g_s summed over the entries k of the type,

    in g      sum_k F_.k A_k,
    in g_k    h_k (c b S_ks + c^2 S_ss / 2) + c (S F)_sk,
    in g_s    h_k (c b S_kk / 2 + c^2 S_ks + c^3 r S_ss / 2) + c (S F)_kk + c^2 r (S F)_sk.

Without these a scale stays at the mode over scales and entries together, which is far from the mass.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lrposterior.parameters import RIGHT_SCALE, ParameterSpace

# Of a coordinate's prior curvature, what bends leave at least: Gauss-Newton's curvature stays positive definite.
LEAST_PRIOR_CURVATURE = 0.25


def bent_curvature(space: ParameterSpace, z: np.ndarray, slope: np.ndarray | float = 0.0) -> np.ndarray:
    """(dynamics coordinate,) h b, held above what would leave less than `LEAST_PRIOR_CURVATURE`.

    Args:
        space: the parameters.
        z: (coordinate,) a point.
        slope: (coordinate,) of the objective there, 0 at a mode.
    """
    second, _ = space.bends(z)
    return np.maximum(((slope - z) * second)[: space.num_dynamics], LEAST_PRIOR_CURVATURE - 1.0)


class Bends(NamedTuple):
    """Higher derivatives of the parameters at a point, over the first.

    Attributes:
        second, third: (coordinate,) b and t.
        entries, scales: (entry,) where in z the K lie whose scale is inferred, and where the scale of each lies.
        width: (entry,) c.
        ratio: (entry,) r.
    """

    second: np.ndarray
    third: np.ndarray
    entries: np.ndarray
    scales: np.ndarray
    width: np.ndarray
    ratio: np.ndarray

    @classmethod
    def at(cls, space: ParameterSpace, z: np.ndarray) -> Bends:
        """Those of the dynamics coordinates, at z (coordinate,)."""
        second, third = (each[: space.num_dynamics] for each in space.bends(z))
        if RIGHT_SCALE not in space:
            return cls(second, third, *np.zeros((2, 0), dtype=int), *np.zeros((2, 0)))
        K, block, coordinates = space["K"], space[RIGHT_SCALE], space.coordinates(z, "K")
        types = np.broadcast_to(np.asarray(space.members)[:, None], K.shape).ravel()
        return cls(
            second,
            third,
            space.places("K"),
            space.places(RIGHT_SCALE)[types],
            np.broadcast_to(block.standard_deviation, block.shape)[types],
            np.ravel(K.value(coordinates) / K.slope(coordinates)),
        )


def bent_mean_shift(slope: np.ndarray, information: np.ndarray, bends: Bends, covariance: np.ndarray) -> np.ndarray:
    """(coordinate,) from the mode to the mean, -S g.

    Args:
        slope: (coordinate,) h, of the negative log likelihood.
        information: (coordinate, coordinate) F.
        bends: at the mode.
        covariance: (coordinate, coordinate) S.
    """
    second, third, k, s, c, r = bends
    variance, both = np.diag(covariance), covariance @ information
    expected = 0.5 * slope * third * variance
    expected += 0.5 * information @ (second * variance)
    expected += second * np.diag(both)
    mixed, of_scale = covariance[k, s], variance[s]
    expected += information[:, k] @ (c * mixed + 0.5 * c**2 * r * of_scale)
    of_entries = slope[k] * (0.5 * c * second[k] * variance[k] + c**2 * mixed + 0.5 * c**3 * r * of_scale)
    expected[k] += slope[k] * (c * second[k] * mixed + 0.5 * c**2 * of_scale) + c * both[s, k]
    np.add.at(expected, s, of_entries + c * both[k, k] + c**2 * r * both[s, k])
    return -covariance @ expected
