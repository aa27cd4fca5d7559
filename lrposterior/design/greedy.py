"""Greedy sets of patterns.

The information of a set is submodular: what a pattern adds can only shrink as others are chosen. So the set that takes
the best addition every time has at least 1 - 1/e of the most that any set of its size has (Nemhauser, Wolsey and Fisher
1978, doi:10.1007/BF01588971), and old gains are bounds of new ones: most patterns need no second look (Minoux 1978,
doi:10.1007/BFb0006528). The information about a goal is not submodular; there every pattern is looked at every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from lrposterior.design.beliefs import Beliefs

AnyBeliefs = TypeVar("AnyBeliefs", bound=Beliefs)


class Chosen(NamedTuple):
    """Rows of the patterns in the order in which they were chosen, with the nats that each added to those before."""

    rows: list[int]
    gains: list[float]


def take(beliefs: AnyBeliefs, patterns: np.ndarray, rows: Sequence[int]) -> tuple[AnyBeliefs, list[float]]:
    """Take patterns (pattern, neuron) in a given order: what is believed after them, and what each adds."""
    gains = []
    for row in rows:
        gains.append(float(beliefs.gains(patterns[row][None])[0]))
        beliefs = beliefs.after(patterns[row])
    return beliefs, gains


def choose(
    beliefs: AnyBeliefs, patterns: np.ndarray, num_chosen: int, taken: Sequence[int] = ()
) -> tuple[AnyBeliefs, Chosen]:
    """Choose patterns one by one, each the best addition to those before; none twice, and none of those taken."""
    bounds = np.full(len(patterns), -np.inf)
    free = np.setdiff1d(np.arange(len(patterns)), taken)
    chosen = Chosen([], [])
    for step in range(num_chosen):
        if step == 0 or not beliefs.has_diminishing_gains:
            bounds[free] = beliefs.gains(patterns)[free]  # of all: compiled once for their number
            best = int(free[np.argmax(bounds[free])])
        else:
            best = _best_by_bounds(beliefs, patterns, bounds)
        chosen.rows.append(best)
        chosen.gains.append(float(bounds[best]))
        bounds[best] = -np.inf
        free = free[free != best]
        beliefs = beliefs.after(patterns[best])
    return beliefs, chosen


def _best_by_bounds(beliefs: Beliefs, patterns: np.ndarray, bounds: np.ndarray) -> int:
    """The row with the largest gain, where `bounds` (pattern,) are upper bounds; those looked at are replaced."""
    fresh: set[int] = set()
    while (best := int(np.argmax(bounds))) not in fresh:
        bounds[best] = beliefs.gains(patterns[best][None])[0]
        fresh.add(best)
    return best
