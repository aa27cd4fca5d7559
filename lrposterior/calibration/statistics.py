"""Scores of a set of candidates: each a function of cases (case, candidate) that gives (case,).

Three R² stand side by side. That of one candidate, 1 - |q - Eq|² / |q|², has a heavy tail below where |q|² happens to
be small, and its mean is of little use: its median is given. The certainty |Eq|² / E|q|² = 1 - E|q - Eq|² / E|q|² is a
ratio of expectations. What equals it on average under a right posterior is a ratio of sums: over candidates, with
each as large as it is ("pooled"), or each divided by E|q|², so that all count alike. The latter is the mean of the
R² of single candidates with weights

    y = |q|² / E|q|²,        sum of y R² / sum of y = 1 - sum of |q - Eq|² / E|q|² / sum of y,

and is what the reliability curve and the risk are made of: E[y (R² - certainty)] is 0, candidate by candidate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from lrposterior.calibration.cases import COVERAGE_LEVELS, Cases

# Scores of the order alone take 1 - R² up to this: one hopeless candidate is not worth all others.
WORST_ERROR = 2.0
MOST_BINS, FEWEST_IN_BIN = 10, 5

Statistic = Callable[[Cases], np.ndarray]


def weights(cases: Cases) -> np.ndarray:
    """y = |q|² / E|q|², with mean 1 under a right posterior."""
    return cases.power / cases.expected_power


def relative_error(cases: Cases) -> np.ndarray:
    """|q - Eq|² / E|q|²."""
    return cases.error / cases.expected_power


def pooled_expected_r2(cases: Cases) -> np.ndarray:
    """Sum of |Eq|² over the sum of E|q|²; the sums are unbiased, and the ratio is not below 0."""
    return np.maximum(1.0 - np.sum(cases.spread, axis=1) / np.sum(cases.expected_power, axis=1), 0.0)


def pooled_r2(cases: Cases) -> np.ndarray:
    """1 - sum of |q - Eq|² / sum of |q|²."""
    return 1.0 - np.sum(cases.error, axis=1) / np.sum(cases.power, axis=1)


def spearman(cases: Cases) -> np.ndarray:
    """Rank correlation of certainty and R²; NaN with less than three candidates, or where one does not vary."""
    if cases.power.shape[1] < 3:
        return np.full(len(cases.power), np.nan)
    one, other = (rankdata(values, axis=1) for values in (cases.expected_r2, cases.achieved_r2))
    one, other = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (one, other))
    return _ratio(np.sum(one * other, axis=1), np.sqrt(np.sum(one**2, axis=1) * np.sum(other**2, axis=1)))


class Bins(NamedTuple):
    """The reliability curve, (case, bin): candidates in the order of their certainty, as many in each bin."""

    predicted: np.ndarray
    achieved: np.ndarray
    share: np.ndarray


def reliability(cases: Cases) -> Bins:
    """Certainty and achieved R² of candidates of like certainty, both weighted by y."""
    num_candidates = cases.power.shape[1]
    num_bins = int(np.clip(num_candidates // FEWEST_IN_BIN, 1, MOST_BINS))
    edges = np.linspace(0, num_candidates, num_bins + 1).astype(int)
    order, weight = np.argsort(cases.expected_r2, axis=1, kind="stable"), weights(cases)

    def total(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.take_along_axis(values, order, axis=1), edges[:-1], axis=1)

    sums = total(weight)
    achieved = 1.0 - total(relative_error(cases)) / sums
    return Bins(total(weight * cases.expected_r2) / sums, achieved, np.diff(edges) / num_candidates)


def reliability_gap(cases: Cases) -> np.ndarray:
    """Mean absolute difference of predicted and achieved R² over the bins."""
    bins = reliability(cases)
    return np.sum(bins.share * np.abs(bins.achieved - bins.predicted), axis=1)


def reliability_slope(cases: Cases) -> np.ndarray:
    """Slope of achieved R² in certainty, by least squares with weights y; NaN where all are equally certain."""
    weight, certainty = weights(cases), cases.expected_r2
    mean = np.sum(weight * certainty, axis=1, keepdims=True) / np.sum(weight, axis=1, keepdims=True)
    return _ratio(
        np.sum((certainty - mean) * (weight - relative_error(cases)), axis=1),
        np.sum(weight * (certainty - mean) ** 2, axis=1),
    )


class Curves(NamedTuple):
    """What is left when only the k most certain candidates are kept, (case, k - 1)."""

    ours: np.ndarray
    oracle: np.ndarray
    random: np.ndarray


def sparsification(cases: Cases) -> Curves:
    """Mean of 1 - R² (at most 2) of the most certain candidates; the oracle orders them by that itself."""
    error = np.clip(1.0 - cases.achieved_r2, 0.0, WORST_ERROR)
    mean = np.broadcast_to(error.mean(axis=1, keepdims=True), error.shape)
    return Curves(_mean_of_first(_by_certainty(cases, error)), _mean_of_first(np.sort(error, axis=1)), mean)


def sparsification_area(cases: Cases) -> np.ndarray:
    """Area between the curve and the oracle's, over that between random order and the oracle."""
    ours, oracle, random = (curve.mean(axis=1) for curve in sparsification(cases))
    return _ratio(ours - oracle, random - oracle)


def risk(cases: Cases) -> np.ndarray:
    """(case, k - 1) 1 - R², weighted by y, of the k most certain candidates."""
    error, weight = (_by_certainty(cases, values) for values in (relative_error(cases), weights(cases)))
    return np.cumsum(error, axis=1) / np.cumsum(weight, axis=1)


def promised_risk(cases: Cases) -> np.ndarray:
    """(case, k - 1) what the risk should be: 1 - certainty, weighted by y."""
    weight = weights(cases)
    missing, weight = (_by_certainty(cases, values) for values in (weight * (1.0 - cases.expected_r2), weight))
    return np.cumsum(missing, axis=1) / np.cumsum(weight, axis=1)


def _by_certainty(cases: Cases, values: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, np.argsort(-cases.expected_r2, axis=1, kind="stable"), axis=1)


def _mean_of_first(values: np.ndarray) -> np.ndarray:
    return np.cumsum(values, axis=1) / np.arange(1, values.shape[1] + 1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    defined = denominator > 0.0
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)


def _coverage(index: int) -> Statistic:
    return lambda cases: cases.coverage[:, :, index].mean(axis=1)


STATISTICS: dict[str, Statistic] = {
    "expected R², median": lambda cases: np.median(cases.expected_r2, axis=1),
    "achieved R², median": lambda cases: np.median(cases.achieved_r2, axis=1),
    "gap of medians": lambda cases: np.abs(np.median(cases.expected_r2, axis=1) - np.median(cases.achieved_r2, axis=1)),
    "expected R², pooled": pooled_expected_r2,
    "achieved R², pooled": pooled_r2,
    "gap of pooled": lambda cases: np.abs(pooled_expected_r2(cases) - pooled_r2(cases)),
    **{f"{level:.0%} coverage": _coverage(index) for index, level in enumerate(COVERAGE_LEVELS)},
    "CRPS": lambda cases: cases.crps.mean(axis=1),
    "energy score": lambda cases: cases.energy.mean(axis=1),
    "Spearman": spearman,
    "sparsification area": sparsification_area,
    "risk area": lambda cases: risk(cases).mean(axis=1),
    "reliability slope": reliability_slope,
    "reliability gap": reliability_gap,
}
# Scores that ask for the order of the candidates: what they are when certainties are handed out at random is given.
OF_THE_ORDER = ("Spearman", "sparsification area", "risk area", "reliability slope", "reliability gap")
# Scores of the prediction alone, whatever the truth.
PREDICTED = ("expected R², median", "expected R², pooled")
