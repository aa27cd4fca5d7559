"""The losses that matching adds up, and how their slopes are balanced.

    L = L_neuron + balanced L_trial + L_reg (+ L_activity)

All but L_reg are functions of simulated smoothed trials (trial, time, neuron), which stand beside recorded ones.
L_trial is a Sinkhorn divergence (`lrposterior.matching.sinkhorn`).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from lrposterior.matching.averages import compare_averages

SCALE_WEIGHT, VARIANCE_WEIGHT = 0.1, 0.05


def neuron_loss(simulated: Array, recorded: Array, mask: Array, belongs: Array) -> Array:
    """L_neuron: how trial averages differ, mean over neurons whose recorded average varies.

        1 - correlation + 0.1 ((m_s - m_r) / q_r)² + 0.05 ((v_s - v_r) / v_r)²

    with the mean m and the variance v of the simulated and the recorded average over time and conditions, and the root
    mean square q of the recorded one: the loss has no unit. It is 0 where the averages agree. A simulated average
    that does not vary has a correlation of 0, and a finite slope (`Averages.correlation`).

    Args:
        simulated, recorded, mask, belongs: as in `lrposterior.matching.averages.compare_averages`.
    """
    averages = compare_averages(simulated, recorded, mask, belongs)
    power = averages.recorded_mean**2 + averages.recorded_variance
    scale = (averages.mean - averages.recorded_mean) ** 2 / power
    spread = (averages.variance / averages.recorded_variance - 1.0) ** 2
    return averages.over_neurons(1.0 - averages.correlation + SCALE_WEIGHT * scale + VARIANCE_WEIGHT * spread)


def mean_correlation(simulated: Array, recorded: Array, mask: Array, belongs: Array) -> Array:
    """Correlation of trial averages, mean over neurons whose recorded average varies. Args: as in `neuron_loss`."""
    averages = compare_averages(simulated, recorded, mask, belongs)
    return averages.over_neurons(averages.correlation)


def activity_loss(simulated: Array, mask: Array, target: Array) -> Array:
    """L_activity: ((mean - target) / target)² of the mean over all bins that count."""
    mean = jnp.sum(simulated) / jnp.sum(mask.astype(simulated.dtype))
    return ((mean - target) / target) ** 2


def weight_norm(left: Array, right: Array, B: Array) -> Array:
    """L_reg: squared entries of W and B summed, of W = left right^T / N by its factors (neuron, rank)."""
    return jnp.sum((left.T @ left) * (right.T @ right)) / left.shape[0] ** 2 + jnp.sum(B**2)


def balanced(one: Array, other: Array) -> Array:
    """A slope scaled to the norm of another one; 0 where it is 0."""
    norm = jnp.sqrt(jnp.sum(other**2))
    return other * jnp.sqrt(jnp.sum(one**2)) / jnp.where(norm > 0.0, norm, 1.0)
