"""Independent directions of parameters, and how many of them the data constrain."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lrposterior.checks import read_only
from lrposterior.structured.pencil import Pencil


@dataclass(frozen=True, eq=False)
class Directions(ABC):
    """Independent directions of parameters, by what the data say about each.

    Attributes:
        threshold: lambda from which a direction counts as constrained.
        num_unseen: directions of a random bulk that are not in the spectrum, as the data say nothing about them.
    """

    threshold: float
    num_unseen: int

    @property
    @abstractmethod
    def spectrum(self) -> np.ndarray:
        """(direction,) information lambda, decreasing."""

    @property
    @abstractmethod
    def num_seen(self) -> int:
        """Number of directions in the spectrum."""

    @property
    @abstractmethod
    def num_constrained(self) -> int:
        """Number of directions with lambda >= threshold."""

    @property
    @abstractmethod
    def effective_parameters(self) -> float:
        """Sum of lambda / (1 + lambda): the part of the prior variance that the data remove, summed over directions."""

    @property
    @abstractmethod
    def information(self) -> float:
        """Half the sum of log(1 + lambda), in nats: by how much the posterior is narrower than the prior."""

    @property
    def num_directions(self) -> int:
        return self.num_seen + self.num_unseen

    @property
    def num_degenerate(self) -> int:
        """Number of directions with lambda < threshold, with the unseen ones of a bulk."""
        return self.num_directions - self.num_constrained


@dataclass(frozen=True, eq=False)
class ListedDirections(Directions):
    """Directions whose information is known one by one.

    Attributes:
        values: (direction,) information lambda, decreasing.
    """

    values: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", read_only(self.values))

    @property
    def spectrum(self) -> np.ndarray:
        return self.values

    @property
    def num_seen(self) -> int:
        return len(self.values)

    @property
    def num_constrained(self) -> int:
        return int(np.sum(self.values >= self.threshold))

    @property
    def effective_parameters(self) -> float:
        return float(np.sum(self.values / (1.0 + self.values)))

    @property
    def information(self) -> float:
        return float(0.5 * np.sum(np.log1p(self.values)))


@dataclass(frozen=True, eq=False)
class CountedDirections(Directions):
    """Directions that are counted, and summed over, by the factors of a covariance of any size.

    Counts and sums are exact for the covariance. The spectrum comes from counts on a grid: each value within a factor
    of 1.35, and 0 below 1e-3.

    Attributes:
        pencil: posterior and prior covariance.
    """

    pencil: Pencil

    @property
    def spectrum(self) -> np.ndarray:
        return self._counted_spectrum

    @cached_property
    def _counted_spectrum(self) -> np.ndarray:
        return read_only(self.pencil.spectrum(self.threshold))

    @property
    def num_seen(self) -> int:
        return self.pencil.num_directions

    @property
    def num_constrained(self) -> int:
        return self._count

    @cached_property
    def _count(self) -> int:
        return self.pencil.count(self.threshold)

    @property
    def effective_parameters(self) -> float:
        return self.pencil.effective_parameters

    @property
    def information(self) -> float:
        return self.pencil.information
