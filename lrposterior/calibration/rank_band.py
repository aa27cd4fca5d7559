"""Are ranks uniform? Their distribution function and its simultaneous band."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from arviz_stats.ecdf_utils import ecdf_pit

PROBABILITY = 0.95
NUM_BAND_SIMULATIONS = 4000


@dataclass(frozen=True, eq=False)
class RankBand:
    """The distribution function of ranks minus that of the uniform distribution, and its simultaneous band.

    Uniform ranks leave the band anywhere with probability 1 - `probability` (Säilynoja, Bürkner and Vehtari 2022,
    doi:10.1007/s11222-022-10090-6, by simulation, as ArviZ computes it).

    Attributes:
        probability: of the band.
        at: (point,) where they are compared, in (0, 1).
        difference: (point,) share of ranks up to there, minus `at`.
        lower, upper: (point,) the band.
    """

    probability: float
    at: np.ndarray
    difference: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @classmethod
    def of(cls, ranks: np.ndarray, probability: float = PROBABILITY) -> RankBand:
        """The band of ranks (simulation,) in (0, 1)."""
        at, lower, upper = _band(len(ranks), probability, NUM_BAND_SIMULATIONS)
        share = np.searchsorted(np.sort(ranks), at, side="right") / len(ranks)
        return cls(probability, at, share - at, lower, upper)

    @property
    def holds(self) -> bool:
        """Whether the ranks stay in the band."""
        return bool(np.all((self.lower <= self.difference) & (self.difference <= self.upper)))

    @property
    def excess(self) -> float:
        """How far the function leaves the band, at most."""
        beyond = np.maximum(self.lower - self.difference, self.difference - self.upper)
        return float(np.max(beyond, initial=0.0))


@functools.lru_cache(maxsize=32)
def _band(num_ranks: int, probability: float, num_simulations: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(point,) where, lower and upper; of a number of ranks, not of the ranks themselves."""
    evenly = (np.arange(num_ranks) + 0.5) / num_ranks
    at, _, lower, upper = ecdf_pit(evenly, probability, num_simulations, rng=np.random.default_rng(0))
    arrays = (np.asarray(at), lower - at, upper - at)
    for array in arrays:
        array.flags.writeable = False
    return arrays
