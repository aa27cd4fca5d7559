"""One network of an ensemble: a descent from one start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import scipy.optimize

# A descent has come to rest when a step gains less than this part of the loss.
RELATIVE_TOLERANCE = 1e-5


class Member(NamedTuple):
    """Where a descent ended.

    Attributes:
        parameters: what was fitted, by name.
        objective: the loss there, in nats.
        num_steps: steps on the way.
        converged: whether it came to rest.
    """

    parameters: Mapping[str, np.ndarray]
    objective: float
    num_steps: int
    converged: bool


def descend(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray, num_steps: int
) -> tuple[np.ndarray, float, int, bool]:
    """Limited-memory BFGS from a start: the end, the loss there, the steps, and whether it came to rest.

    Args:
        loss: value and slope (coordinate,) at a point. Where it is not finite the line search turns back.
        start: (coordinate,).
        num_steps: largest number of steps.
    """

    def finite_loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = loss(point)
        return (value, slope) if np.isfinite(value) and np.all(np.isfinite(slope)) else (np.inf, np.zeros_like(point))

    found = scipy.optimize.minimize(
        finite_loss,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": num_steps, "maxfun": 2 * num_steps, "ftol": RELATIVE_TOLERANCE, "gtol": 1e-6, "maxcor": 20},
    )
    return np.asarray(found.x), float(found.fun), int(found.nit), bool(found.status == 0)
