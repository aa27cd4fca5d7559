"""A descent on z-scored averages, under which a network without a scale stays low and flat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import lrposterior as lrp
from lrposterior.distribution import SampleDistribution
from lrposterior.matching.losses import weight_norm
from lrposterior.posterior import FitStatistics
from lrposterior.precision import double_precision

LEARNING_RATE, WEIGHT_PENALTY = 0.01, 1e-4


# [descent]
def z_scored(averages: Array) -> Array:
    """(condition, time, neuron) by the mean and the standard deviation of each neuron's own averages."""
    return (averages - averages.mean((0, 1))) / (averages.std((0, 1)) + 1e-6)


@double_precision
def naive_descent(
    model: lrp.LowRankModel, recording: lrp.Recording, *, num_steps: int, seed: int
) -> tuple[lrp.Posterior, np.ndarray]:
    """Adam from a network of the prior on the mean square between z-scored trial averages, and its losses (step,).

    Rates are softplus(x): the loss sees no scale and no baseline, which stay at the medians of their priors. The
    penalty on weights is that of `Match`.
    """
    settled = dataclasses.replace(model, process_noise=None).for_recording(recording)
    space, data = settled.space_for(recording), settled.data(recording)
    labels = np.array(recording.trial_labels)
    members = labels == np.unique(labels)[:, None]
    weights = members / members.sum(axis=1, keepdims=True)  # (condition, trial)
    recorded = z_scored(jnp.einsum("cb,btn->ctn", weights, data.activity))

    def loss(z: Array) -> Array:
        parameters = space.unwhiten(z)
        rates = jax.nn.softplus(settled.currents(parameters, data))
        apart = z_scored(jnp.einsum("cb,btn->ctn", weights, rates)) - recorded
        left, right = settled.factors(parameters, data)
        return jnp.mean(apart**2) + WEIGHT_PENALTY * weight_norm(left, right, parameters["B"])

    start = np.random.default_rng(seed).standard_normal(space.size)
    for name in ("log_rate_scale", "log_baseline"):
        start[space.slices[name]] = 0.0
    z, losses = adam(loss, jnp.asarray(start), num_steps)
    return as_fit(settled, recording, z, losses, seed), losses


# [end]
def adam(loss: Callable[[Array], Array], start: Array, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Where a descent ends, and the losses (step,) on its way."""
    optimiser = optax.adam(LEARNING_RATE)

    def step(carry, _):
        z, state = carry
        value, slope = jax.value_and_grad(loss)(z)
        updates, state = optimiser.update(slope, state)
        return (optax.apply_updates(z, updates), state), value

    descend = jax.jit(lambda z: jax.lax.scan(step, (z, optimiser.init(z)), length=num_steps))
    (z, _), losses = descend(start)
    return np.asarray(z), np.asarray(losses)


def as_fit(
    model: lrp.LowRankModel, recording: lrp.Recording, z: np.ndarray, losses: np.ndarray, seed: int
) -> lrp.Posterior:
    """A network as a point estimate, for `diagnose` and `simulate_trials`."""
    statistics = FitStatistics(
        objective=float(losses[-1]),
        gradient_norm=np.nan,
        decrement=np.nan,
        num_iterations=len(losses),
        wall_time=0.0,
        log_evidence=None,
        evidence_note="",
    )
    return lrp.Posterior(model, recording, "match", seed, "naive", statistics, z, SampleDistribution(z[None, None]))
