"""What averages over trials say: their level, and how they move over time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lrposterior.recording import Recording


class Signal(NamedTuple):
    """What averages over the trials of each condition say, in the unit of activity.

    Attributes:
        level: their absolute value, mean over conditions, time and neurons: of rates, the mean rate.
        temporal_sd: their standard deviation over time, without that of their noise, root mean square over conditions
            and neurons; NaN where no condition has two trials.
        temporal_z: its square in units of the standard error that the scatter of trials gives it.
    """

    level: float
    temporal_sd: float
    temporal_z: float

    @property
    def modulation(self) -> float:
        """The temporal standard deviation over the level."""
        return self.temporal_sd / self.level if self.level > 0.0 else float("nan")


def signal_of(activity: np.ndarray, mask: np.ndarray, groups: np.ndarray) -> Signal:
    """Level and temporal standard deviation of trials.

    With d the deviations of a trial from its own mean over time, the variance of the average of n trials over time,
    without that of noise that is independent between trials, is the mean of d_b d_c over pairs of different trials,

        variance = mean over time and neurons of ((sum_b d_b)² - sum_b d_b²) / (n (n - 1)),

    with a standard error of 2 sd(h_b) / sqrt(n), h_b the mean of trial b's products with the other trials.

    Args:
        activity, mask: (trial, time, neuron).
        groups: (trial,) the condition of every trial.
    """
    own_mean = np.sum(activity * mask, axis=1, keepdims=True) / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    deviations = np.where(mask, activity - own_mean, 0.0)
    levels, variances, errors = [], [], []
    for group in np.unique(groups):
        members = (groups == group) & mask.any(axis=(1, 2))
        if not members.any():
            continue
        number = mask[members].sum(axis=0)
        average = np.sum(activity[members] * mask[members], axis=0)[number > 0] / number[number > 0]
        levels.append(np.mean(np.abs(average)))
        pairs = np.where(number > 1, number * (number - 1.0), np.inf)
        if not np.any(number > 1):
            continue
        d = deviations[members]
        products = np.sum(d * (d.sum(axis=0) - d) / pairs, axis=(1, 2)) / np.sum(number > 1)
        variances.append(products.sum())
        errors.append(2.0 * np.std(products * len(d), ddof=1) / np.sqrt(len(d)))
    if not variances:
        return Signal(float(np.mean(levels)), float("nan"), float("nan"))
    variance, error = np.mean(variances), np.sqrt(np.sum(np.square(errors))) / len(errors)
    z = variance / error if error > 0.0 else np.inf
    return Signal(float(np.mean(levels)), float(np.sqrt(max(variance, 0.0))), float(z))


def conditions_of(recording: Recording) -> np.ndarray:
    """(trial,) numbers of the conditions: labels that trials share. Trials without such a label are one condition."""
    labels = recording.trial_labels or ("",) * recording.num_trials
    _, groups, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    return np.where(counts[groups] > 1, groups, -1)
