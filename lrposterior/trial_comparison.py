"""Simulated trials beside recorded ones: trial averages, rates, and how trials differ from each other.

Every statistic is that of these trials, with the standard error that other trials of the same kind would give it, by
the bootstrap over trials: with weights w (resample, trial) of a multinomial, averages are sums over trials of w times
what is averaged. A correlation close to 1 is of second order in the noise, which resampled averages have twice of: its
standard error is then up to two and a half times too large.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.spatial.distance
import scipy.special

from lrposterior.checks import argument_error, as_array, require_finite, require_instance, require_integer
from lrposterior.posterior import NORMAL_90
from lrposterior.preprocessing import smooth_activity
from lrposterior.recording import Recording

# No rate may be less than this part of the neuron's mean: a spike where none was predicted would cost infinitely much.
LOWEST_PART = 1e-3


@dataclass(frozen=True)
class Statistic:
    """A statistic of trials.

    Attributes:
        value: of these trials.
        standard_error: by the bootstrap over trials, from the resamples in which the statistic is defined.
    """

    value: float
    standard_error: float

    @property
    def interval(self) -> tuple[float, float]:
        """Central 90%, value -+ 1.645 standard errors."""
        half = NORMAL_90 * self.standard_error
        return self.value - half, self.value + half

    def __str__(self) -> str:
        lower, upper = self.interval
        return f"{self.value:.3g} [{lower:.3g}, {upper:.3g}]"


@dataclass(frozen=True, eq=False, repr=False)
class TrialComparison:
    """Simulated trials beside recorded ones; made by `compare_trials`.

    Attributes:
        statistics: by name,

            - "correlation": of the smoothed trial averages, Pearson's over time and conditions, mean over neurons;
            - "ceiling": what it would be if the simulated average were the recorded one without its noise,
              sqrt(1 - noise / variance) of the recorded average, mean over neurons;
            - "correlation over ceiling": the one over the other, NaN where the ceiling is 0;
            - "mean", "mean simulated": the activity, over all neurons and bins;
            - "temporal sd", "temporal sd simulated": of the trial averages over time and conditions, without the
              variance of their noise, root mean square over neurons;
            - "trial sd", "trial sd simulated": of a trial's mean activity about that of its condition, root mean
              square over neurons;
            - "shared", "shared simulated": the mean correlation of two neurons between trials of a condition, from the
              trials' mean activities;
            - "shared agreement": Pearson's correlation, over pairs of neurons, of the recorded and the simulated
              covariance of these;
            - "distance": energy distance of the two distributions of smoothed trials, over the mean distance of two
              recorded trials, from pairs of different trials: 0 where they are the same (Székely and Rizzo 2013,
              doi:10.1016/j.jspi.2013.03.018);
            - "bits per spike": of counts, the Poisson log likelihood of the expected ones over that of every neuron's
              mean in these trials; where expected counts were given.
        num_trials: recorded trials.
        num_draws: simulations of each.
    """

    statistics: Mapping[str, Statistic]
    num_trials: int
    num_draws: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "statistics", MappingProxyType(dict(self.statistics)))

    def __getitem__(self, name: str) -> Statistic:
        return self.statistics[name]

    def __repr__(self) -> str:
        lines = [f"TrialComparison: {self.num_trials} recorded trials, each simulated {self.num_draws} times"]
        return "\n".join([*lines, *(f"  {name:24s} {value}" for name, value in self.statistics.items())])


def compare_trials(
    recorded: Recording,
    simulated: Any,
    *,
    width: float,
    conditions: Sequence[str] | None = None,
    expected: Any = None,
    num_resamples: int = 200,
    seed: int,
) -> TrialComparison:
    """Compare simulated trials with recorded ones.

    Args:
        recorded: trials, best such that the fit has not seen.
        simulated: (draw, trial, time, neuron) activity in the unit of the recording, with its noise: every recorded
            trial simulated once or more, under its own inputs.
        width: standard deviation in s of the Gaussian kernel that smooths trials before they are averaged or compared.
        conditions: (trial,) which trials are averaged together; all of them where left out.
        expected: (trial, time, neuron) counts that are expected in the recorded trials, or None.
        num_resamples: resamples of the trials for standard errors.
        seed: of the resamples.

    Raises:
        ValueError: if shapes do not fit each other, or there are fewer than four trials of a condition.
    """
    require_instance(recorded, "recorded", Recording)
    shape = recorded.activity.shape
    draws = as_array(simulated, "simulated", ("draw", "trial", "time", "neuron"))
    require_finite(draws, "simulated")
    if draws.shape[1:] != shape or not len(draws):
        raise argument_error(
            "simulated", f"shape (draw, {', '.join(map(str, shape))})", f"{draws.shape}", "simulate the recorded trials"
        )
    groups = _groups(conditions, recorded.num_trials)
    require_integer(num_resamples, "num_resamples", minimum=2)
    random = np.random.default_rng(require_integer(seed, "seed"))
    weights = np.concatenate([np.ones((1, recorded.num_trials)), _resampled(groups, num_resamples, random)])
    both = [recorded.activity[None], draws]
    smoothed = [
        np.stack([smooth_activity(dataclasses.replace(recorded, activity=one), width).activity for one in each])
        for each in both
    ]
    found: dict[str, np.ndarray] = {}
    averages = [_Averages.of(each, recorded.mask, groups, weights) for each in smoothed]
    found["correlation"], found["ceiling"] = averages[0].correlation(averages[1]), averages[0].ceiling
    found["correlation over ceiling"] = _ratio(found["correlation"], found["ceiling"])
    for suffix, each, average in zip(("", " simulated"), both, averages, strict=True):
        found["mean" + suffix] = _mean(each, recorded.mask, weights)
        found["temporal sd" + suffix] = average.temporal_sd
    covariances = [_trial_covariance(each, recorded.mask, groups, weights) for each in both]
    for suffix, covariance in zip(("", " simulated"), covariances, strict=True):
        found["trial sd" + suffix] = np.sqrt(np.mean(_variances(covariance), axis=1))
        found["shared" + suffix] = _mean_correlation(covariance)
    found["shared agreement"] = _agreement(covariances[0], covariances[1])
    found["distance"] = _energy_distance(smoothed[0][0], smoothed[1], weights)
    if expected is not None:
        found["bits per spike"] = _bits_per_spike(recorded, expected, weights)
    statistics = {name: Statistic(float(each[0]), _spread(each[1:])) for name, each in found.items()}
    return TrialComparison(statistics, recorded.num_trials, len(draws))


def _spread(values: np.ndarray) -> float:
    """Standard deviation over the resamples (resample,) in which a statistic is defined; NaN with fewer than two."""
    defined = values[~np.isnan(values)]
    return float(np.std(defined, ddof=1)) if len(defined) > 1 else float("nan")


def _ratio(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(resample,) NaN where the other is 0."""
    return np.divide(one, other, out=np.full(one.shape, np.nan), where=other > 0.0)


def _groups(conditions: Sequence[str] | None, num_trials: int) -> np.ndarray:
    """(trial,) numbers of the conditions."""
    if conditions is None:
        conditions = ["all"] * num_trials
    if len(conditions) != num_trials:
        mend = "give one label for every trial"
        raise argument_error("conditions", f"{num_trials} labels", f"{len(conditions)}", mend)
    names, groups, counts = np.unique(np.asarray(conditions), return_inverse=True, return_counts=True)
    if counts.min() < 4:
        got = f"{counts.min()} of {str(names[np.argmin(counts)])!r}"
        raise argument_error(
            "conditions", "at least 4 trials of each", got, "join conditions, or leave those trials out"
        )
    return groups


def _resampled(groups: np.ndarray, num_resamples: int, random: np.random.Generator) -> np.ndarray:
    """(resample, trial) how often every trial is drawn, conditions apart."""
    weights = np.zeros((num_resamples, len(groups)))
    for group in range(groups.max() + 1):
        members = np.flatnonzero(groups == group)
        weights[:, members] = random.multinomial(
            len(members), np.full(len(members), 1.0 / len(members)), size=num_resamples
        )
    return weights


@dataclass(frozen=True, eq=False)
class _Averages:
    """Averages over trials (resample, condition and time, neuron), and what noise adds to their variance over time.

    Of independent trials with the variance s²[t] / n of the average, that is the mean of s² / n over time less the
    variance of the noise's own mean over time: what moves a whole trial up or down moves no average up and down.
    """

    average: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(cls, trials: np.ndarray, mask: np.ndarray, groups: np.ndarray, weights: np.ndarray) -> _Averages:
        """Those of trials (draw, trial, time, neuron), whose draws are averaged first."""
        each, number_of_groups = trials.mean(axis=0), groups.max() + 1
        averages, noise = [], np.zeros(1)
        for group in range(number_of_groups):
            members = groups == group
            weight, values, seen = weights[:, members], each[members], mask[members]
            average, variance = _weighted_moments(weight, values, seen)
            whole = _weighted_moments(weight, _over_time(values, seen), np.any(seen, axis=1))[1]
            averages.append(average)
            noise = noise + variance.mean(axis=1) / number_of_groups - whole / number_of_groups**2
        return cls(np.concatenate(averages, axis=1), noise)

    @cached_property
    def variance(self) -> np.ndarray:
        """(resample, neuron) over time and conditions."""
        return self.average.var(axis=1)

    @cached_property
    def signal(self) -> np.ndarray:
        """(resample, neuron) the same without that of the noise."""
        return np.maximum(self.variance - self.noise, 0.0)

    @property
    def temporal_sd(self) -> np.ndarray:
        return np.sqrt(self.signal.mean(axis=1))

    @property
    def ceiling(self) -> np.ndarray:
        share = np.divide(self.signal, self.variance, out=np.zeros_like(self.signal), where=self.variance > 0.0)
        return np.sqrt(share).mean(axis=1)

    def correlation(self, other: _Averages) -> np.ndarray:
        """(resample,) mean over neurons; that of a neuron whose average does not change is 0."""
        deviations = [each.average - each.average.mean(axis=1, keepdims=True) for each in (self, other)]
        together = np.mean(deviations[0] * deviations[1], axis=1)
        apart = np.sqrt(self.variance * other.variance)
        return np.divide(together, apart, out=np.zeros_like(together), where=apart > 0.0).mean(axis=1)


def _weighted_moments(weights: np.ndarray, values: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(resample, ...) mean over trials, and its own variance, of values (trial, ...) where they are seen."""
    number = np.tensordot(weights, seen.astype(float), 1)
    center = np.sum(values * seen, axis=0) / np.maximum(seen.sum(axis=0), 1)
    deviations = np.where(seen, values - center, 0.0)
    mean = np.tensordot(weights, deviations, 1) / np.maximum(number, 1.0)
    square = np.tensordot(weights, deviations**2, 1) / np.maximum(number, 1.0)
    return center + mean, np.maximum(square - mean**2, 0.0) / np.maximum(number - 1.0, 1.0)


def _over_time(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(..., trial, neuron) mean over the bins of trials (..., trial, time, neuron) that are seen."""
    return np.sum(values * seen, axis=-2) / np.maximum(seen.sum(axis=-2), 1)


def _mean(trials: np.ndarray, mask: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(resample,) over draws, trials, bins and neurons."""
    sums = np.sum(trials.mean(axis=0) * mask, axis=(1, 2))
    return weights @ sums / (weights @ mask.sum(axis=(1, 2)))


def _trial_covariance(trials: np.ndarray, mask: np.ndarray, groups: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(resample, neuron, neuron) of the mean activities of trials about those of their condition, within draws."""
    means = _over_time(trials, mask)
    means = means - means.mean(axis=1, keepdims=True)
    covariance, freedom = np.zeros(1), np.zeros(1)
    for group in range(groups.max() + 1):
        members = groups == group
        each, weight = means[:, members], weights[:, members]
        number = weight.sum(axis=1)
        center = np.einsum("wb,dbn->wdn", weight, each) / number[:, None, None]
        second = np.einsum("wb,dbn,dbm->wnm", weight, each, each, optimize=True) / len(trials)
        between = np.einsum("w,wdn,wdm->wnm", number, center, center, optimize=True) / len(trials)
        covariance, freedom = covariance + second - between, freedom + number - 1.0
    return covariance / freedom[:, None, None]


def _variances(covariance: np.ndarray) -> np.ndarray:
    """(resample, neuron) the diagonal, without what rounding leaves below 0."""
    return np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0.0)


def _pairs(covariance: np.ndarray) -> np.ndarray:
    """(resample, pair) entries above the diagonal."""
    post, pre = np.triu_indices(covariance.shape[1], 1)
    return covariance[:, post, pre]


def _mean_correlation(covariance: np.ndarray) -> np.ndarray:
    """(resample,) over pairs of neurons; NaN where there is no pair that varies."""
    sd = np.sqrt(_variances(covariance))
    product = _pairs(sd[:, :, None] * sd[:, None, :])
    correlation = np.divide(_pairs(covariance), product, out=np.full(product.shape, np.nan), where=product > 0.0)
    number = np.sum(~np.isnan(correlation), axis=1)
    return np.divide(np.nansum(correlation, axis=1), number, out=np.full(number.shape, np.nan), where=number > 0)


def _agreement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(resample,) correlation over pairs of neurons; NaN where one of them does not vary, or there is no pair."""
    number = max(_pairs(one).shape[1], 1)
    deviations = [pairs - pairs.sum(axis=1, keepdims=True) / number for pairs in (_pairs(one), _pairs(other))]
    together = np.sum(deviations[0] * deviations[1], axis=1)
    apart = np.sqrt(np.sum(deviations[0] ** 2, axis=1) * np.sum(deviations[1] ** 2, axis=1))
    return np.divide(together, apart, out=np.full(together.shape, np.nan), where=apart > 0.0)


def _energy_distance(recorded: np.ndarray, simulated: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(resample,) 2 E|X - Y| - E|X - X'| - E|Y - Y'| over E|X - X'|, mean over draws; pairs are of different trials.

    NaN where all trials of a resample are one, or the same.
    """
    one = recorded.reshape(len(recorded), -1)

    def mean_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        distances = scipy.spatial.distance.cdist(first, second)
        np.fill_diagonal(distances, 0.0)
        pairs = np.sum(weights, axis=1) ** 2 - np.sum(weights**2, axis=1)
        return _ratio(np.einsum("wi,ij,wj->w", weights, distances, weights, optimize=True), pairs)

    within, ratios = mean_distance(one, one), []
    for draw in simulated:
        other = draw.reshape(len(one), -1)
        ratios.append(_ratio(2.0 * mean_distance(one, other) - within - mean_distance(other, other), within))
    return np.mean(ratios, axis=0)


def _bits_per_spike(recorded: Recording, expected: Any, weights: np.ndarray) -> np.ndarray:
    """(resample,) of the recorded counts."""
    counts, mask = recorded.activity, recorded.mask
    rates = as_array(expected, "expected", ("trial", "time", "neuron"))
    require_finite(rates, "expected")
    if rates.shape != counts.shape or np.any(rates < 0.0):
        got = f"{rates.shape}" if rates.shape != counts.shape else f"{rates.min():.3g}"
        raise argument_error("expected", f"counts of at least 0, shape {counts.shape}", got, "give expected counts")
    if np.any(counts[mask] < 0.0):
        mend = "leave expected out: bits per spike are for counts"
        raise argument_error("recorded", "counts of at least 0", f"{counts[mask].min():.3g}", mend)
    mean = np.sum(counts * mask, axis=(0, 1)) / np.maximum(mask.sum(axis=(0, 1)), 1)
    rates = np.maximum(rates, np.maximum(LOWEST_PART * mean, np.finfo(float).tiny))
    gained = scipy.special.xlogy(counts, rates) - rates - scipy.special.xlogy(counts, mean) + mean
    number = weights @ np.sum(counts * mask, axis=(1, 2))
    return weights @ np.sum(gained * mask, axis=(1, 2)) / (np.log(2.0) * number)
