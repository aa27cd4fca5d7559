"""Distribution functions of ranks, without the noise of breaking ties at random."""

from __future__ import annotations

import numpy as np

# Steps of 0.005, so that the ends of the central 50%, 80%, 90% and 95% intervals are among them.
LEVELS = np.linspace(0.0, 1.0, 201)


def rank_ecdf(first: np.ndarray, after: np.ndarray, num_ranks: int, owner: np.ndarray, num_owners: int) -> np.ndarray:
    """Distribution function of the ranks of each owner at `LEVELS`, (owner, level).

    Rank r of n stands for the uniform distribution on [r / n, (r + 1) / n], and a tie for the one on all ranks that it
    could have: the non-randomised probability integral transform (Czado, Gneiting and Held 2009,
    doi:10.1111/j.1541-0420.2009.01191.x). Under a right posterior its expectation is the identity, exactly, for any
    number of draws. Quantiles of S draws would cover p (S - 1) / (S + 1) instead of p.

    Args:
        first: the lowest rank that an entry could have, of 0 to num_ranks - 1.
        after: the highest one, plus one.
        num_ranks: how many ranks there are: draws + 1.
        owner: whose entry it is, an index; all have as many entries.
        num_owners: how many there are.
    """
    size, share = num_ranks + 1, 1.0 / (after - first)
    place = size * owner
    steps = np.bincount((place + first).ravel(), share.ravel(), num_owners * size)
    steps -= np.bincount((place + after).ravel(), share.ravel(), num_owners * size)
    density = np.cumsum(steps.reshape(num_owners, size)[:, :-1], axis=1)
    knots = np.concatenate([np.zeros((num_owners, 1)), np.cumsum(density, axis=1)], axis=1)
    return knots @ _interpolation(num_ranks) / (first.size / num_owners)


def central_coverage(ecdf: np.ndarray, probability: float) -> np.ndarray:
    """The share of ranks in the central interval of this probability, from distribution functions (..., level)."""
    step = len(LEVELS) - 1
    lower, upper = round((0.5 - 0.5 * probability) * step), round((0.5 + 0.5 * probability) * step)
    return ecdf[..., upper] - ecdf[..., lower]


def _interpolation(num_ranks: int) -> np.ndarray:
    """(rank + 1, level) weights that read a piecewise linear function, known at multiples of 1 / num_ranks."""
    position = LEVELS * num_ranks
    left = np.minimum(position.astype(int), num_ranks - 1)
    weights, levels = np.zeros((num_ranks + 1, len(LEVELS))), np.arange(len(LEVELS))
    weights[left, levels] = left + 1 - position
    weights[left + 1, levels] = position - left
    return weights
