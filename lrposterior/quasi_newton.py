"""Steps of limited-memory BFGS from an inverse curvature that is roughly known (Nocedal 1980, doi:10.2307/2006193)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

STEP_LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01, 0.003)


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


def descend(
    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]],
    solve: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    *,
    tolerance: float,
    max_steps: int,
) -> tuple[np.ndarray, float]:
    """The lowest point, and by how much it lies below the start.

    Args:
        evaluate: the value at a point and its slope.
        solve: the inverse curvature to start from, times a slope; steps stay in its range.
        start: where to begin. Where the value is not finite there, it is also the end.
        tolerance: ends where no more than this is expected to be gained.
        max_steps: ends after so many steps.
    """
    point, (value, slope) = start, evaluate(start)
    if not np.isfinite(value):
        return start, 0.0
    first, steps, changes, longest = value, [], [], 0
    for _ in range(max_steps):
        direction = quasi_newton_step(solve, slope, steps, changes)
        if 0.5 * float(slope @ direction) < tolerance:
            break
        # Where steps are to be short, the next is likely to be so as well.
        for length in STEP_LENGTHS[longest:]:
            reached, following = evaluate(point - length * direction)
            if reached < value:
                break
        else:
            break
        longest = max(STEP_LENGTHS.index(length) - 1, 0)
        step, change = -length * direction, following - slope
        if float(step @ change) > 0.0:
            steps, changes = [*steps, step], [*changes, change]
        point, value, slope = point + step, reached, following
    return point, first - value
