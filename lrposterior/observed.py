"""What a recording suggests of the currents and rates behind it, before anything is fitted."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from lrposterior.network import NONLINEARITIES
from lrposterior.observations import (
    CalciumObservation,
    GaussianObservation,
    Observation,
    ScaledObservation,
    bins_before,
    require_settled,
)
from lrposterior.preprocessing import smooth_activity

if TYPE_CHECKING:
    from lrposterior.recording import Recording


def observed_rates(
    recording: Recording, observation: Observation, nonlinearity: str, time_constant: float
) -> np.ndarray:
    """(sample, neuron) the recorded rates r, in bins that were observed; a masked neuron in them gets its mean.

    Those of counts, spike rates and calcium are smoothed, and taken at bins whose noise is nearly independent.

    Args:
        recording: what was recorded.
        observation: settled on it.
        nonlinearity: of the network.
        time_constant: in seconds, how long the currents hardly change.
    """
    seen = np.any(recording.mask, axis=2)
    if observation.of == "rate":
        return _filled(recording.activity, recording.mask)[seen]
    currents = observed_currents(recording, observation, nonlinearity, time_constant)
    if not isinstance(observation, GaussianObservation):
        apart = max(1, round(2.0 * _kernel_width(recording, time_constant)))
        currents, seen = currents[:, ::apart], seen[:, ::apart]
    return np.asarray(NONLINEARITIES[nonlinearity].rate(jnp.asarray(currents)))[seen]


def observed_currents(
    recording: Recording, observation: Observation, nonlinearity: str, time_constant: float
) -> np.ndarray:
    """Currents (trial, time, neuron) by the inverse nonlinearity; what is not observed gets its neuron's mean.

    Counts, spike rates and what each bin adds to calcium are smoothed first, by a Gaussian kernel as wide as the time
    constant.
    Args: as in `observed_rates`.
    """
    current, mask = recording.activity, recording.mask
    width = _kernel_width(recording, time_constant) * recording.dt
    if isinstance(observation, ScaledObservation):
        bin_width = recording.dt if observation.of == "count" else 1.0
        rates = smooth_activity(recording, width).activity / (bin_width * require_settled(observation.scale))
        return _filled(np.asarray(NONLINEARITIES["softplus"].current(jnp.asarray(rates), 1.0)), mask)
    if isinstance(observation, CalciumObservation):
        added = smooth_activity(_added(recording, observation.decay_time), width)
        current, mask = added.activity, added.mask
    if observation.of != "current":
        scale = float(np.sqrt(np.mean(current[mask] ** 2)))
        current = np.asarray(NONLINEARITIES[nonlinearity].current(jnp.asarray(current), scale))
    return _filled(current, mask)


def _added(recording: Recording, decay_time: float) -> Recording:
    """What each bin adds to calcium, in units of the rate: (y[t] - gamma y[t-1]) / (1 - gamma)."""
    kept = np.exp(-recording.dt / decay_time)
    added = (recording.activity - kept * bins_before(recording.activity)) / (1.0 - kept)
    mask = recording.mask & bins_before(recording.mask)
    return dataclasses.replace(recording, activity=np.where(mask, added, 0.0), mask=mask)


def _kernel_width(recording: Recording, time_constant: float) -> float:
    """Standard deviation in bins of the kernel that smooths counts, spike rates and calcium."""
    return max(1.0, time_constant / recording.dt)


def _filled(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    mean = np.where(mask, values, 0.0).sum(axis=(0, 1)) / np.maximum(mask.sum(axis=(0, 1)), 1)
    return np.where(mask, values, mean)
