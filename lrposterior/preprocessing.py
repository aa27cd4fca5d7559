"""From what was measured to a `Recording`: spike times to counts, counts to smooth rates, clipping, deconvolution."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage

from lrposterior.checks import (
    argument_error,
    as_array,
    describe,
    read_only,
    require_finite,
    require_instance,
    require_number,
    require_positive,
)
from lrposterior.recording import Recording

# The kernel of `smooth_activity` ends at so many of its standard deviations.
KERNEL_REACH = 4.0
SMALLEST_PERCENTILE = 50.0
NUM_NAMED = 5


def bin_spikes(
    spike_times: Sequence[Any] | Mapping[Any, Any], dt: float, *, duration: Any, onsets: Any = 0.0, **others: Any
) -> Recording:
    """Counts of spikes in bins.

    Bin k of a trial holds the spikes at onset + k dt <= t < onset + (k + 1) dt. A trial is as long as its duration has
    whole bins; where trials differ, the bins behind the end of the shorter ones are masked.

    Args:
        spike_times: for every neuron its spike times in s, in any order; a mapping by label gives labels too. An object
            with times `.t` in s, as pynapple's, may stand for an array.
        dt: width of a bin in s.
        duration: of a trial, in s: a number, or (trial,).
        onsets: (trial,) time of the first bin of every trial, in s.
        **others: inputs, stimulation, cell_types and so on, as `Recording` takes them.

    Returns:
        The recording, with counts as its activity.

    Raises:
        ValueError: if a time is not finite, or a duration is shorter than a bin.
    """
    dt = require_positive(dt, "dt", "s")
    if isinstance(spike_times, Mapping):
        others = {"neuron_labels": [str(label) for label in spike_times]} | others
        trains = [spike_times[label] for label in spike_times]
    else:
        trains = list(spike_times)
    if not trains:
        raise argument_error("spike_times", "one array of times for every neuron", "none", "give at least one neuron")
    starts = as_array(np.atleast_1d(onsets), "onsets", ("trial",))
    lengths = as_array(np.atleast_1d(duration), "duration", ("trial",))
    if lengths.size not in (1, starts.size):
        raise argument_error(
            "duration", f"a number or one for each of {starts.size} trials", describe(lengths), "give as many as onsets"
        )
    require_finite(starts, "onsets")
    require_finite(lengths, "duration")
    # A duration of 1 s has a hundred bins of 0.01 s, whatever the last digit of their ratio says.
    num_bins = np.broadcast_to(np.floor(lengths / dt + 1e-9).astype(int), starts.shape)
    if num_bins.min() < 1:
        raise argument_error("duration", f"at least a bin of {dt:g} s", f"{lengths.min():g} s", "give it in s")
    edges = starts[:, None] + dt * np.arange(num_bins.max() + 1)
    counts = np.empty((starts.size, num_bins.max(), len(trains)))
    for neuron, train in enumerate(trains):
        times = np.sort(
            as_array(
                np.asarray(getattr(train, "t", train)), f"spike_times[{neuron}]", ("spike",), may_be_empty=("spike",)
            )
        )
        require_finite(times, f"spike_times[{neuron}]")
        counts[:, :, neuron] = np.diff(np.searchsorted(times, edges), axis=1)
    recorded = np.arange(num_bins.max()) < num_bins[:, None]
    if not recorded.all():
        within = np.repeat(recorded[:, :, None], len(trains), axis=2)
        others = {"mask": within & np.asarray(others.pop("mask", True), dtype=bool)} | others
    return Recording(counts, dt, **others)


def counts_to_rates(recording: Recording) -> Recording:
    """Counts over the width of the bins: rates in spikes/s."""
    return dataclasses.replace(recording, activity=_activity(recording) / recording.dt)


def smooth_activity(recording: Recording, width: float) -> Recording:
    """The activity smoothed over time by a Gaussian kernel.

    The kernel ends at four widths. Where a trial ends or bins are masked, its weights are those of the observed bins,
    scaled to a sum of 1:

        smoothed[t] = sum_s k(t - s) m[s] x[s] / sum_s k(t - s) m[s],      k(t) = exp(-(t dt)² / (2 width²)).

    What is masked stays so. A smoothed bin knows of later ones, and its noise is shared with its neighbours: where a
    posterior is the aim, prefer wider bins, whose noise is independent.

    Args:
        recording: what to smooth.
        width: standard deviation of the kernel in s.

    Raises:
        ValueError: if width is not a positive number.
    """
    deviations = require_positive(width, "width", "s") / require_instance(recording, "recording", Recording).dt

    def convolved(values: np.ndarray) -> np.ndarray:
        return scipy.ndimage.gaussian_filter1d(
            values, deviations, axis=1, mode="constant", radius=max(int(np.ceil(KERNEL_REACH * deviations)), 1)
        )

    weight = convolved(recording.mask.astype(float))
    smoothed = convolved(np.where(recording.mask, recording.activity, 0.0)) / np.maximum(weight, 1e-300)
    return dataclasses.replace(recording, activity=np.where(recording.mask, smoothed, 0.0))


def stabilise_variance(recording: Recording) -> Recording:
    """Counts x as 2 sqrt(x + 3/8), whose variance is nearly 1 for Poisson counts with a mean of 4 or more.

    Source: Anscombe 1948, doi:10.1093/biomet/35.3-4.246.

    Raises:
        ValueError: if an observed entry is negative.
    """
    counts = _activity(recording)
    if np.any(counts[recording.mask] < 0.0):
        lowest = f"{counts[recording.mask].min():g}"
        raise argument_error("recording", "counts, which are not negative", lowest, "transform counts, before all else")
    return dataclasses.replace(recording, activity=2.0 * np.sqrt(np.maximum(counts, 0.0) + 0.375))


@dataclass(frozen=True, eq=False)
class Clipping:
    """What `clip_outliers` did.

    Attributes:
        neuron_labels: (neuron,) names.
        lower, upper: (neuron,) limits, in units of activity; infinite where nothing is clipped on that side, NaN for a
            neuron that was never observed.
        num_clipped: (neuron,) entries that were beyond them.
        largest: (neuron,) the largest distance of such an entry from its limit, in units of activity.
        num_observed: (neuron,) entries that were observed.
    """

    neuron_labels: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    num_clipped: np.ndarray
    largest: np.ndarray
    num_observed: np.ndarray

    def __str__(self) -> str:
        total, seen = int(self.num_clipped.sum()), int(self.num_observed.sum())
        lines = [f"{total} of {seen} entries clipped, in {np.count_nonzero(self.num_clipped)} neurons"]
        for neuron in np.argsort(-self.largest, kind="stable")[:NUM_NAMED]:
            if self.num_clipped[neuron]:
                lines.append(
                    f"  {self.neuron_labels[neuron]}: {self.num_clipped[neuron]} beyond {self.lower[neuron]:.4g} to "
                    f"{self.upper[neuron]:.4g}, by up to {self.largest[neuron]:.4g}"
                )
        return "\n".join(lines)


def clip_outliers(recording: Recording, *, percentile: float = 99.9, margin: float = 1.0) -> tuple[Recording, Clipping]:
    """Entries far beyond what a neuron does else are set to a limit.

    The limits of a neuron lie beyond its percentiles by `margin` times the distance between them and its median: with
    the defaults an entry is clipped where it is twice as far from the median as the 99.9th percentile is (or, below,
    the 0.1th). With margin = 0 all beyond the percentiles are clipped. Where a percentile is the median itself, as in a
    neuron that hardly ever fires, nothing tells how far is far, and nothing is clipped on that side. Of a recording of
    whole numbers the limits are whole numbers, the next ones outwards, so that counts stay counts.

    Args:
        recording: what to clip.
        percentile: from 50 to 100, of the observed entries of a neuron.
        margin: how much further the limit lies.

    Returns:
        The recording with its outliers at the limits, and what was clipped.

    Raises:
        ValueError: if percentile or margin is out of range.
    """
    activity = np.where(recording.mask, _activity(recording), np.nan)
    percentile = require_number(percentile, "percentile")
    if not SMALLEST_PERCENTILE < percentile <= 100.0:
        raise argument_error("percentile", "more than 50 and at most 100", f"{percentile:g}", "try 99.9")
    margin = require_positive(margin, "margin", allow_zero=True)
    limits = np.full((3, recording.num_neurons), np.nan)
    seen = recording.mask.any(axis=(0, 1))
    levels = [100.0 - percentile, 50.0, percentile]
    limits[:, seen] = np.nanpercentile(activity[:, :, seen], levels, axis=(0, 1))
    apart = limits[[0, 2]] - limits[1]
    lower, upper = np.where(apart == 0.0, [[-np.inf], [np.inf]], limits[[0, 2]] + margin * apart)
    if np.all(recording.activity[recording.mask] % 1.0 == 0.0):
        lower, upper = np.floor(lower), np.ceil(upper)
    beyond = np.fmax(np.fmax(activity - upper, lower - activity), 0.0)
    report = Clipping(
        recording.neuron_labels or tuple(f"neuron {index}" for index in range(recording.num_neurons)),
        read_only(lower),
        read_only(upper),
        read_only(np.sum(beyond > 0.0, axis=(0, 1)), int),
        read_only(beyond.max(axis=(0, 1))),
        read_only(recording.mask.sum(axis=(0, 1)), int),
    )
    clipped = np.where(recording.mask, np.fmin(np.fmax(activity, lower), upper), 0.0)
    return dataclasses.replace(recording, activity=clipped), report


def deconvolve_calcium(recording: Recording, decay_time: float | None = None) -> Recording:
    """Fluorescence to the activity that it follows, by OASIS with a calcium of one decay time.

    Every trace of a trial is deconvolved on its own, with a baseline and a noise level of its own; what comes out is
    the rise of fluorescence in a bin, in units of the fluorescence, never negative and, as few bins are to hold all
    of it, somewhat small. It needs the package oasis-deconv:
    `pip install "lrposterior[calcium]"`.

    Source: Friedrich, Zhou and Paninski 2017, doi:10.1371/journal.pcbi.1005423.

    Args:
        recording: fluorescence, dF/F for instance, (trial, time, neuron). Traces may be masked at their ends.
        decay_time: of the calcium, in s; None estimates it from the autocovariance of each trace.

    Raises:
        ImportError: if oasis-deconv is not installed.
        ValueError: if bins within a trace are masked.
    """
    activity = _activity(recording).copy()
    tau = None if decay_time is None else require_positive(decay_time, "decay_time", "s")
    try:
        from oasis.functions import deconvolve
    except ImportError as missing:
        raise ImportError('deconvolution needs oasis-deconv: pip install "lrposterior[calcium]"') from missing
    for trial, neuron in np.ndindex(recording.num_trials, recording.num_neurons):
        bins = np.flatnonzero(recording.mask[trial, :, neuron])
        if not bins.size:
            continue
        if bins[-1] - bins[0] + 1 != bins.size:
            raise argument_error(
                "recording",
                "traces without masked bins between observed ones",
                f"neuron {neuron} in trial {trial}",
                "select the bins between the gaps, or fill them before",
            )
        known: dict[str, Any] = {} if tau is None else {"tau_d": tau, "framerate": 1.0 / recording.dt}
        activity[trial, bins, neuron] = deconvolve(np.ascontiguousarray(activity[trial, bins, neuron]), **known).s
    return dataclasses.replace(recording, activity=activity)


def _activity(recording: Recording) -> np.ndarray:
    return require_instance(recording, "recording", Recording).activity
