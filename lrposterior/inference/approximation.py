"""What a fitting method hands over to `fit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lrposterior.distribution import ParameterDistribution

CONVERGED = "converged"


@dataclass(frozen=True, eq=False)
class Approximation:
    """The posterior of one method, and how far to trust it.

    Attributes:
        distribution: the posterior in whitened coordinates.
        status: "converged", or "not converged: ..." with what to do.
        elbo: (step,) evidence lower bound in nats along a variational fit, else empty.
        diagnostics: convergence measures by name.
    """

    distribution: ParameterDistribution
    status: str = CONVERGED
    elbo: np.ndarray = field(default_factory=lambda: np.empty(0))
    diagnostics: Mapping[str, float] = field(default_factory=dict)
