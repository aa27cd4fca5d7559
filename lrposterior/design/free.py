"""Patterns of any shape: projected gradient ascent within power, sign and number of targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

MAX_STEPS = 40
# Of a pattern's norm: the first step, and the shortest that is tried.
FIRST_STEP, SHORTEST_STEP = 0.5, 1e-3


class Slopes(Protocol):
    """Something that knows the gain of a pattern and its derivatives (neuron,)."""

    def gain_and_slope(self, pattern: np.ndarray) -> tuple[float, np.ndarray]: ...


@dataclass(frozen=True)
class Constraints:
    """What a pattern must be.

    Attributes:
        norm: Euclidean norm of the currents, set by the power.
        nonnegative: whether stimulation can only excite.
        num_targets: most neurons with a current, or None for any number.
    """

    norm: float
    nonnegative: bool
    num_targets: int | None

    def project(self, pattern: np.ndarray) -> np.ndarray:
        """The nearest pattern that fulfils all: the largest currents are kept, and scaled to the norm.

        Where no current is positive and none may be negative, it is the least negative neuron alone.
        """
        kept = np.maximum(pattern, 0.0) if self.nonnegative else pattern.copy()
        if not kept.any():
            kept[np.argmax(pattern)] = 1.0
        if self.num_targets is not None and self.num_targets < kept.size:
            kept[np.argsort(-np.abs(kept), kind="stable")[self.num_targets :]] = 0.0
        return self.norm * kept / np.linalg.norm(kept)


def ascend(beliefs: Slopes, start: np.ndarray, constraints: Constraints) -> tuple[np.ndarray, float]:
    """A pattern (neuron,) with a larger gain than its start, and the gain.

    First without the limit on the targets, then, from the largest currents of what is found, with their places fixed;
    where the start within the limit leads further, it is the one that counts.
    """
    if constraints.num_targets is None or constraints.num_targets >= start.size:
        return _climb(beliefs, start, constraints, np.ones(start.size, dtype=bool))
    anywhere = Constraints(constraints.norm, constraints.nonnegative, None)
    dense, _ = _climb(beliefs, start, anywhere, np.ones(start.size, dtype=bool))
    sparse = [constraints.project(dense), constraints.project(start)]
    found = [_climb(beliefs, pattern, constraints, pattern != 0.0) for pattern in sparse]
    return max(found, key=lambda each: each[1])


def _climb(
    beliefs: Slopes, start: np.ndarray, constraints: Constraints, places: np.ndarray
) -> tuple[np.ndarray, float]:
    """Projected steps along the slope at some places (neuron,), shortened until they gain."""
    pattern = constraints.project(start)
    gain, slope = beliefs.gain_and_slope(pattern)
    length = FIRST_STEP
    for _ in range(MAX_STEPS):
        slope = np.where(places, slope, 0.0)
        slope -= (slope @ pattern) / (pattern @ pattern) * pattern
        size = np.linalg.norm(slope)
        if size == 0.0:
            break
        while length >= SHORTEST_STEP:
            moved = constraints.project(pattern + length * constraints.norm / size * slope)
            reached, new_slope = beliefs.gain_and_slope(moved)
            if reached > gain:
                break
            length *= 0.5
        else:
            break
        pattern, gain, slope, length = moved, reached, new_slope, 2.0 * length
    return pattern, gain
