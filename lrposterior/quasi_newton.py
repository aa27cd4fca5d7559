"""Steps of limited-memory BFGS from an inverse curvature that is roughly known (Nocedal 1980, doi:10.2307/2006193)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def quasi_newton_step(
    solve: Callable[[np.ndarray], np.ndarray],
    slope: np.ndarray,
    steps: Sequence[np.ndarray],
    changes: Sequence[np.ndarray],
) -> np.ndarray:
    """The inverse curvature that past steps and changes of the slope suggest, times a slope.

    Args:
        solve: the inverse curvature to start from, times a slope.
        slope: (coordinate,).
        steps: past steps (coordinate,), oldest first.
        changes: the change of the slope over each of them; its product with the step is positive.
    """
    remaining, coefficients = slope.copy(), []
    for step, change in zip(reversed(steps), reversed(changes), strict=True):
        coefficients.append(float(step @ remaining) / float(step @ change))
        remaining -= coefficients[-1] * change
    direction = solve(remaining)
    for step, change, coefficient in zip(steps, changes, reversed(coefficients), strict=True):
        direction = direction + (coefficient - float(change @ direction) / float(step @ change)) * step
    return direction
