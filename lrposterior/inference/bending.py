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
"""

from __future__ import annotations

import numpy as np

from lrposterior.parameters import ParameterSpace

# Of a coordinate's prior curvature, what bends leave at least: Gauss-Newton's curvature stays positive definite.
LEAST_PRIOR_CURVATURE = 0.25


def bent_curvature(space: ParameterSpace, z: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """(dynamics coordinate,) h b, held above what would leave less than `LEAST_PRIOR_CURVATURE`.

    Args:
        space: the parameters.
        z: (coordinate,) a point.
        slope: (coordinate,) of the objective there.
    """
    second, _ = space.bends(z)
    return np.maximum(((slope - z) * second)[: space.num_dynamics], LEAST_PRIOR_CURVATURE - 1.0)


def bent_mean_shift(
    slope: np.ndarray, information: np.ndarray, second: np.ndarray, third: np.ndarray, covariance: np.ndarray
) -> np.ndarray:
    """(coordinate,) from the mode to the mean, -S g.

    Args:
        slope: (coordinate,) h, of the negative log likelihood.
        information: (coordinate, coordinate) F.
        second: (coordinate,) b.
        third: (coordinate,) t.
        covariance: (coordinate, coordinate) S.
    """
    variance = np.diag(covariance)
    expected = 0.5 * slope * third * variance
    expected += 0.5 * information @ (second * variance)
    expected += second * np.sum(information * covariance, axis=0)
    return -covariance @ expected
