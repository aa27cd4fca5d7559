"""Smoothed trials and their averages: pure functions of arrays (trial, time, neuron), with the bins that count."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.preprocessing import KERNEL_REACH

# A simulated average counts as one with at least this part of the recorded one's standard deviation.
FLATTEST = 0.1
# Recorded averages that vary by less than this part of their root mean square are constant but for rounding.
CONSTANT = 1e-4


def smoothing_kernel(num_bins: int, deviations: float) -> np.ndarray:
    """(time, time) the weights of `lrposterior.smooth_activity` before they are scaled, of a width in bins."""
    apart = np.subtract.outer(np.arange(num_bins), np.arange(num_bins))
    reach = max(int(np.ceil(KERNEL_REACH * deviations)), 1)
    return np.where(np.abs(apart) <= reach, np.exp(-0.5 * (apart / deviations) ** 2), 0.0)


def smoothing_weight(kernel: Array, mask: Array) -> Array:
    """(trial, time, neuron) the sum of the weights of the bins that count; 1 in bins that do not."""
    return jnp.where(mask, jnp.einsum("ts,bsn->btn", kernel, mask.astype(kernel.dtype)), 1.0)


def smooth(kernel: Array, weight: Array, trials: Array, mask: Array) -> Array:
    """Trials smoothed over the bins that count, as `lrposterior.smooth_activity` does; 0 in all others.

    Args:
        kernel: (time, time) `smoothing_kernel`.
        weight: (trial, time, neuron) `smoothing_weight` of the mask.
        trials: (trial, time, neuron).
        mask: (trial, time, neuron) which bins count.
    """
    total = jnp.einsum("ts,bsn->btn", kernel, jnp.where(mask, trials, 0.0))
    return mask.astype(trials.dtype) * total / weight


def trial_averages(smoothed: Array, mask: Array, belongs: Array) -> tuple[Array, Array]:
    """Averages (condition, time, neuron) over the trials that count, and where there is such a trial.

    Args:
        smoothed: (trial, time, neuron), 0 where masked.
        mask: (trial, time, neuron).
        belongs: (trial, condition) 1 for the condition of a trial, else 0.
    """
    number = jnp.einsum("bc,btn->ctn", belongs, mask.astype(smoothed.dtype))
    return jnp.einsum("bc,btn->ctn", belongs, smoothed) / jnp.maximum(number, 1.0), number > 0.0


class Averages(NamedTuple):
    """Simulated and recorded trial averages, over conditions and time; each (neuron,).

    Attributes:
        mean, recorded_mean: of the averages.
        variance, recorded_variance: of the averages; the recorded one is 1 where `varies` is False.
        covariance: of the two.
        varies: whether the recorded average does.
    """

    mean: Array
    recorded_mean: Array
    variance: Array
    recorded_variance: Array
    covariance: Array
    varies: Array

    @property
    def correlation(self) -> Array:
        """Pearson's, where the simulated standard deviation is at least `FLATTEST` of the recorded one.

        Below that the simulated one is replaced by it: the correlation of an average that does not vary is then 0, and
        its derivative finite.
        """
        variance = jnp.maximum(self.variance, FLATTEST**2 * self.recorded_variance)
        return self.covariance / jnp.sqrt(variance * self.recorded_variance)

    def over_neurons(self, each: Array) -> Array:
        """The mean of something (neuron,) over neurons whose recorded average varies."""
        counts = self.varies.astype(each.dtype)
        return jnp.sum(counts * each) / jnp.maximum(jnp.sum(counts), 1.0)


def compare_averages(simulated: Array, recorded: Array, mask: Array, belongs: Array) -> Averages:
    """Trial averages of simulated beside those of recorded trials.

    Args:
        simulated, recorded: (trial, time, neuron) smoothed trials, 0 where masked.
        mask: (trial, time, neuron) which bins count.
        belongs: (trial, condition) 1 for the condition of a trial, else 0: averages are over the trials of each.
    """
    (one, seen), (other, _) = (trial_averages(each, mask, belongs) for each in (simulated, recorded))
    counts = seen.astype(one.dtype)
    weight = counts / jnp.maximum(jnp.sum(counts, axis=(0, 1), keepdims=True), 1.0)
    mean, recorded_mean = (jnp.sum(weight * each, axis=(0, 1)) for each in (one, other))
    apart, recorded_apart = one - mean[None, None], other - recorded_mean[None, None]
    recorded_variance = jnp.sum(weight * recorded_apart**2, axis=(0, 1))
    varies = recorded_variance > CONSTANT**2 * (recorded_mean**2 + recorded_variance)
    return Averages(
        mean,
        recorded_mean,
        jnp.sum(weight * apart**2, axis=(0, 1)),
        # A neuron that does not count has a finite slope all the same.
        jnp.where(varies, recorded_variance, 1.0),
        jnp.sum(weight * apart * recorded_apart, axis=(0, 1)),
        varies,
    )
