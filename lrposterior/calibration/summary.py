"""A score with all that it has to be read beside."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lrposterior.calibration.cases import Cases
from lrposterior.calibration.statistics import OF_THE_ORDER, STATISTICS

NUM_RESAMPLES, NUM_SHUFFLES = 400, 1000
INTERVAL = (0.025, 0.975)


class Score(NamedTuple):
    """One score of one class of candidates.

    Attributes:
        value: of the truth.
        lower, upper: 95% interval by resampling clusters of candidates; NaN with a single cluster. It holds what other
            candidates of this class would change, for the same truth and posterior.
        ceiling: mean of the score over draws of the posterior in the place of the truth.
        ceiling_lower, ceiling_upper: central 95% of these: where the value lies if the posterior is right.
        random: where the score depends on the order of the candidates, its mean when their certainties are shuffled;
            else NaN.
    """

    value: float
    lower: float
    upper: float
    ceiling: float
    ceiling_lower: float
    ceiling_upper: float
    random: float

    @property
    def is_as_expected(self) -> bool:
        """Whether the value lies where 95% of the draws in the place of the truth lie; NaN does not."""
        return bool(self.ceiling_lower <= self.value <= self.ceiling_upper)


def summarise(truth: Cases, draws: Cases, clusters: np.ndarray, random: np.random.Generator) -> dict[str, Score]:
    """Every score of a set of candidates.

    Args:
        truth: one case.
        draws: a case for every draw in the place of the truth.
        clusters: (candidate,) which cluster each belongs to.
        random: of the resampling and the shuffling.
    """
    members = [np.flatnonzero(clusters == cluster) for cluster in np.unique(clusters)]
    resampled = dict.fromkeys(STATISTICS, np.empty(0))
    if len(members) > 1:
        samples = [
            truth.of(np.concatenate([members[one] for one in random.integers(len(members), size=len(members))]))
            for _ in range(NUM_RESAMPLES)
        ]
        resampled = {
            name: np.concatenate([statistic(sample) for sample in samples]) for name, statistic in STATISTICS.items()
        }
    shuffled = _shuffle(truth, random)
    return {
        name: Score(
            float(statistic(truth)[0]),
            *_quantiles(resampled[name]),
            *_mean_and_quantiles(statistic(draws)),
            float(np.mean(statistic(shuffled))) if name in OF_THE_ORDER else np.nan,
        )
        for name, statistic in STATISTICS.items()
    }


def _shuffle(truth: Cases, random: np.random.Generator) -> Cases:
    """The truth again and again, with the certainties of other candidates."""
    certainty = random.permuted(np.repeat(truth.expected_r2, NUM_SHUFFLES, axis=0), axis=1)
    copies = (np.broadcast_to(values, (NUM_SHUFFLES, *values.shape[1:])) for values in truth)
    return Cases(*copies)._replace(expected_r2=certainty)


def _quantiles(values: np.ndarray) -> tuple[float, float]:
    finite = values[~np.isnan(values)]
    if not finite.size:
        return np.nan, np.nan
    # Nearest order statistics: an R² can be -inf, and nothing lies between that and a number.
    lower, upper = np.quantile(finite, INTERVAL, method="nearest")
    return float(lower), float(upper)


def _mean_and_quantiles(values: np.ndarray) -> tuple[float, float, float]:
    finite = values[~np.isnan(values)]
    return (float(np.mean(finite)) if finite.size else np.nan, *_quantiles(values))
