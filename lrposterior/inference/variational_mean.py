"""The mean of a Normal posterior of given covariance: where the log density is stationary on average, not at a point.

At the mode V = -log p(activity, z) is stationary, but V is not symmetric around it: W is a product, activity saturates,
eigenvalues bend, and the posterior has more mass on one side. Among all Normal(m, Sigma) with the Laplace covariance
Sigma = S S^T the one with the largest evidence lower bound minimises

    E[V(m + S xi)],    xi ~ Normal(0, I),        so that    S^T E[grad V(m + S xi)] = 0.

To second order in the displacement this is m = z - Sigma grad tr(Sigma V'') / 2: the correction of the posterior mean
by the third derivatives of V (Tierney and Kadane 1986, doi:10.1080/01621459.1986.10478240), and Gaussian variational
inference with the covariance held (Opper and Archambeau 2009, doi:10.1162/neco.2008.08-07-592). The covariance is held
because the nearest Normal distribution in the sense of the bound is too narrow where the posterior is bent.

S is horizontal: m moves across the gauge only, as the mode does.

All of this is a correction of a density that is nearly Normal. Where it is not, as under a prior much wider than what
the network has, the expectation is ruled by draws far from all that the recording allows, and its minimum lies further
from the truth than the mode. The sign of it is a long way: then the mean stays.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lrposterior.distribution import (
    MixtureDistribution,
    NormalDistribution,
    ParameterDistribution,
)
from lrposterior.inference.problem import Problem
from lrposterior.quasi_newton import descend

# Nats that may still be expected, a way of 0.06 standard deviations in all directions together.
DECREMENT_TOLERANCE = 2e-3
MAX_STEPS = 30
LONGEST_SHIFT = 0.5


def variational_shift(problem: Problem, approximation: NormalDistribution) -> tuple[np.ndarray, float]:
    """How far the mean of a Normal distribution moves, its covariance held.

    The expectation is that over fixed draws, so that the same recording always gives the same posterior.

    Args:
        problem: what is fitted.
        approximation: the Laplace posterior at the mode, of one component.

    Returns:
        (coordinate,) the shift, and by how many nats it raises the evidence lower bound. Both are zero where the
        network of a draw diverges, as it may with an unbounded nonlinearity: the expectation does not exist then; and
        where the mean would move by more than `LONGEST_SHIFT` standard deviations in the root mean square over
        coordinates.
    """
    scale = approximation.scale
    draws = standard_draws(scale.shape[1], problem.num_pairs, seed=0)
    # Of a neuron that was never observed nothing is known but that it does not disturb the others. It stays at the
    # prior, in the expectation as well: there its loadings would multiply each other, each as wide as the prior, to
    # what no Normal distribution describes.
    moves = problem.of_observed.astype(np.float64)
    points = approximation.location + moves * (draws @ scale.T)

    def expectation(shift: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = problem.expectation(points + shift)
        return value, moves * slope

    nowhere = np.zeros(len(approximation.location))

    def times(slope: np.ndarray) -> np.ndarray:
        return moves * (scale @ (scale.T @ slope))

    shift, gained = descend(expectation, times, nowhere, tolerance=DECREMENT_TOLERANCE, max_steps=MAX_STEPS)
    # A quadratic bound falls by half the squared distance in standard deviations.
    return (shift, gained) if 2.0 * gained < LONGEST_SHIFT**2 * len(nowhere) else (nowhere, 0.0)


def shifted(distribution: ParameterDistribution, shift: np.ndarray) -> ParameterDistribution:
    """A distribution whose mean, or those of all components, are moved by a shift (coordinate,)."""
    if isinstance(distribution, MixtureDistribution):
        moved = (dataclasses.replace(each, location=each.location + shift) for each in distribution.components)
        return dataclasses.replace(distribution, components=tuple(moved))
    return dataclasses.replace(distribution, location=distribution.location + shift)


def standard_draws(size: int, num_pairs: int, *, seed: int) -> np.ndarray:
    """(2 num_pairs, size) draws of Normal(0, I) in pairs +-xi, orthogonal to each other as far as there is room.

    Against independent pairs this takes a fifth off the error of the mean with 20 neurons.
    """
    random = np.random.default_rng(seed)
    bases = [
        np.linalg.qr(random.standard_normal((size, min(size, num_pairs - start))))[0].T
        for start in range(0, num_pairs, size)
    ]
    draws = np.sqrt(random.chisquare(size, num_pairs))[:, None] * np.concatenate(bases)
    return np.concatenate([draws, -draws])
