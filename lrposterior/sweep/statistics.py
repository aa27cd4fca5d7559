"""How sure differences between configurations are, and whether improvements stack.

Seeds that draw their own trials to hold out share most of the trials that they fit, and their scores are not
independent. With n1 fitted and n2 held-out trials the variance of the mean of J seeds is taken for

    (1 / J + n2 / n1) s²,      s² the variance between seeds

(Nadeau and Bengio 2003, doi:10.1023/A:1024068626366): exact for a mean over independent trials that no fit changes.
Where all seeds hold out the same trials there is no second term, and the error is that of the fits alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.stats

# Of a wrong verdict, half of it on either side.
LEVEL = 0.1

Verdict = Literal["stack", "do not stack", "not decided"]


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        value: NaN without any seed.
        standard_error: NaN with fewer than two.
        num_seeds: over which it is; those in which a fit was refused do not count.
    """

    value: float
    standard_error: float
    num_seeds: int

    @classmethod
    def over_seeds(cls, values: np.ndarray, overlap: float) -> Mean:
        """Of (seed,) values, NaN where there is none, with held-out over fitted trials as the overlap."""
        known = values[np.isfinite(values)]
        number = known.size
        if not number:
            return cls(float("nan"), float("nan"), 0)
        error = np.sqrt((1.0 / number + overlap) * known.var(ddof=1)) if number > 1 else float("nan")
        return cls(float(known.mean()), float(error), number)

    @property
    def interval(self) -> tuple[float, float]:
        """Central 90%, by Student's t."""
        reach = float(scipy.stats.t.ppf(1.0 - LEVEL / 2.0, max(self.num_seeds - 1, 1))) * self.standard_error
        return self.value - reach, self.value + reach

    def __str__(self) -> str:
        error = "?" if np.isnan(self.standard_error) else f"{self.standard_error:.2g}"
        return f"{self.value:.4g} ± {error}"


@dataclass(frozen=True)
class Stacking:
    """Whether improvements add up.

    Attributes:
        name: of the combination.
        parts: names of the improvements.
        gain: of the combination over the base.
        largest_gain: of the best of the single improvements.
        sum_of_gains: of the single improvements.
        difference: of the two, paired over seeds; negative where the combination falls short of the sum.
        verdict: with S the sum and B the largest of the single gains, "stack" where the gain is above (B + S) / 2
            beyond doubt, so that more than half of what the smaller gains promise arrives; "do not stack" where it is
            below beyond doubt; else "not decided". The probability of either, where the other is true, is at most 5%.
    """

    name: str
    parts: tuple[str, ...]
    gain: Mean
    largest_gain: Mean
    sum_of_gains: Mean
    difference: Mean
    verdict: Verdict


def judge_stacking(name: str, combined: np.ndarray, singles: Mapping[str, np.ndarray], overlap: float) -> Stacking:
    """Compare the gain of a combination with those of its parts.

    Args:
        name: of the combination.
        combined: (seed,) its gain over the base, NaN where a fit was refused.
        singles: by name, (seed,) the gains of its parts.
        overlap: held-out over fitted trials, as in `Mean.over_seeds`.
    """
    gains = np.array(list(singles.values()))
    known = np.isfinite(combined) & np.isfinite(gains).all(axis=0)
    combined, gains = np.where(known, combined, np.nan), np.where(known, gains, np.nan)
    total = gains.sum(axis=0)
    largest = gains[np.argmax(np.where(known, gains, 0.0).sum(axis=1))]
    beyond_half = Mean.over_seeds(combined - 0.5 * (largest + total), overlap)
    return Stacking(
        name,
        tuple(singles),
        Mean.over_seeds(combined, overlap),
        Mean.over_seeds(largest, overlap),
        Mean.over_seeds(total, overlap),
        Mean.over_seeds(combined - total, overlap),
        _verdict(beyond_half),
    )


def _verdict(beyond_half: Mean) -> Verdict:
    """None where there is no error to judge by: one seed, or fits that no seed changes."""
    lower, upper = beyond_half.interval
    if not beyond_half.standard_error > 0.0:
        return "not decided"
    return "stack" if lower > 0.0 else "do not stack" if upper < 0.0 else "not decided"
