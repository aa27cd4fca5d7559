"""Statistics of a recording and of its inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrposterior.diagnosis.signal import Signal, conditions_of, signal_of
from lrposterior.preprocessing import clip_outliers
from lrposterior.recording import Recording

HIGH_PERCENTILE, COUNT_DEVIATIONS, WHOLE = 99.9, 3.0, 1e-6
DUPLICATE_CORRELATION = 0.99


@dataclass(frozen=True, eq=False)
class DataStatistics:
    """What was recorded.

    Attributes:
        unit: of the activity: "spikes/s" of counts, which are divided by the width of a bin, else "activity".
        mean: over all observed entries.
        neuron_means: (neuron,) over the observed entries of a neuron, NaN where there are none.
        num_silent: neurons that were observed and are 0 always.
        signal: that of the averages of the trials that networks are compared in.
        outlier_bounds: (2, neuron) the lowest and the largest activity that is no outlier. Activity in whole spikes has
            no lower bound, and the upper one is q + 3 sqrt(q + 1) spikes with the 99.9th percentile q of the neuron's
            bins, beyond which at most one of 1e9 Poisson counts lies; else they are those of `clip_outliers`, twice
            as far from the median as the 0.1th and the 99.9th percentile.
        outliers: (outlier, 3) trial, bin and neuron of what lies beyond.
        largest: the largest absolute activity.
    """

    unit: str
    mean: float
    neuron_means: np.ndarray
    num_silent: int
    signal: Signal
    outlier_bounds: np.ndarray
    outliers: np.ndarray
    largest: float


def describe_data(recording: Recording, are_counts: bool, chosen: Recording) -> DataStatistics:
    """Statistics of a recording, and the signal of some of its trials."""
    scale = 1.0 / recording.dt if are_counts else 1.0
    observed = np.where(recording.mask, scale * recording.activity, 0.0)
    number = recording.mask.sum(axis=(0, 1))
    sums = observed.sum(axis=(0, 1))
    bounds = scale * _outlier_bounds(recording, are_counts)
    return DataStatistics(
        unit="spikes/s" if are_counts else "activity",
        mean=float(sums.sum() / number.sum()),
        neuron_means=np.divide(sums, number, out=np.full(sums.shape, np.nan), where=number > 0),
        num_silent=int(np.sum((number > 0) & ~observed.any(axis=(0, 1)))),
        signal=signal_of(scale * chosen.activity, chosen.mask, conditions_of(chosen)),
        outlier_bounds=bounds,
        outliers=np.argwhere(recording.mask & ((observed < bounds[0]) | (observed > bounds[1]))),
        largest=float(np.max(np.abs(observed))),
    )


def _outlier_bounds(recording: Recording, are_counts: bool) -> np.ndarray:
    """(2, neuron) in the unit of the recording."""
    spikes = recording.activity * (1.0 if are_counts else recording.dt)
    if not np.all((spikes >= 0.0) & (np.abs(spikes - np.round(spikes)) < WHOLE)):
        clipping = clip_outliers(recording, percentile=HIGH_PERCENTILE)[1]
        return np.stack([clipping.lower, clipping.upper])
    upper = np.full(recording.num_neurons, np.nan)
    for neuron in np.flatnonzero(recording.mask.any(axis=(0, 1))):
        high = np.percentile(spikes[:, :, neuron][recording.mask[:, :, neuron]], HIGH_PERCENTILE)
        upper[neuron] = high + COUNT_DEVIATIONS * np.sqrt(high + 1.0)
    return np.stack([np.full(upper.shape, -np.inf), upper / (1.0 if are_counts else recording.dt)])


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """What went in, in the bins in which something was observed.

    Attributes:
        mean, sd, lowest, highest: (input,).
        share_on: (input,) share of the bins in which it is not 0.
        constant: inputs that never change, which a bias stands for as well.
        duplicates: pairs of inputs whose correlation is beyond 0.99 or -0.99: their weights cannot be told apart.
    """

    mean: np.ndarray
    sd: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    share_on: np.ndarray
    constant: tuple[int, ...]
    duplicates: tuple[tuple[int, int], ...]


def describe_inputs(recording: Recording) -> InputStatistics:
    """Statistics of the inputs of a recording."""
    values = recording.inputs[recording.mask.any(axis=2)]
    mean, sd = values.mean(axis=0), values.std(axis=0)
    constant = np.ptp(values, axis=0) == 0.0
    standardised = np.divide(values - mean, sd, out=np.zeros_like(values), where=~constant)
    correlation = standardised.T @ standardised / len(values)
    one, other = np.nonzero(np.triu(np.abs(correlation) > DUPLICATE_CORRELATION, 1))
    return InputStatistics(
        mean,
        sd,
        values.min(axis=0),
        values.max(axis=0),
        np.mean(values != 0.0, axis=0),
        tuple(np.flatnonzero(constant).tolist()),
        tuple(zip(one.tolist(), other.tolist(), strict=True)),
    )
