"""What choosing patterns needs to know of a posterior, whatever its form."""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np


class Beliefs(Protocol):
    """A posterior, linearised, and what trials with a pattern (neuron,) would add to it."""

    @property
    def has_diminishing_gains(self) -> bool:
        """Whether a pattern can only teach less after others: so for all of the network, not for a goal."""
        ...

    def gains(self, patterns: np.ndarray) -> np.ndarray:
        """(pattern,) nats that each of the patterns (pattern, neuron) alone is expected to add."""
        ...

    def after(self, pattern: np.ndarray) -> Self:
        """The beliefs that trials with a pattern will leave."""
        ...
