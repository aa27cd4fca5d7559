"""A Normal distribution fitted to the prior times exp(-beta L), from losses of noisy trials. In single precision.

    maximise over q:   -beta E_q L(z) - KL(q || prior),      prior = Normal(0, 1),      q = Normal(m, diag(s²))

Its maximum over all q is the generalised posterior, prior(z) exp(-beta L(z)) over its integral (Bissiri, Holmes and
Walker 2016, doi:10.1111/rssb.12158). L is an expectation over the noise of simulated trials and over batches, which
every step draws anew together with z: slopes are without bias.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from lrposterior.matching.training import Trials, Weights, weighted_loss
from lrposterior.model import LowRankModel
from lrposterior.parameters import ParameterSpace

# Standard deviations of a guide before the first step.
FIRST_DEVIATION = 0.1
# A slope is cut to this norm, per root of the number of coordinates; that of KL(q || prior) is of order one.
LARGEST_SLOPE = 10.0


class Guide(NamedTuple):
    """q(z) = Normal(location, diag(exp(log_deviation)²)), each (coordinate,)."""

    location: Array
    log_deviation: Array

    @classmethod
    def at(cls, z: np.ndarray) -> Guide:
        """A narrow one around z (coordinate,)."""
        location = jnp.asarray(z, jnp.float32)
        return cls(location, jnp.full_like(location, np.log(FIRST_DEVIATION)))

    def draw(self, key: Array) -> Array:
        """(coordinate,)."""
        return self.location + jnp.exp(self.log_deviation) * jax.random.normal(key, self.location.shape)

    def divergence(self) -> Array:
        """KL(q || Normal(0, 1)) in nats."""
        variance = jnp.exp(2.0 * self.log_deviation)
        return 0.5 * jnp.sum(variance + self.location**2 - 1.0 - 2.0 * self.log_deviation)


class GuideState(NamedTuple):
    """A guide between two steps, and the moments of Adam."""

    guide: Guide
    optimiser: optax.OptState

    @classmethod
    def at(cls, guide: Guide) -> GuideState:
        return cls(guide, _optimiser(guide).init(guide))


def _optimiser(guide: Guide) -> optax.GradientTransformation:
    largest = LARGEST_SLOPE * float(np.sqrt(guide.location.size))
    return optax.chain(optax.clip_by_global_norm(largest), optax.scale_by_adam())


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def climb(
    model: LowRankModel,
    weights: Weights,
    batch_size: int,
    space: ParameterSpace,
    trials: Trials,
    trial_weight: Array,
    beta: Array,
    state: GuideState,
    rates: Array,
    key: Array,
) -> tuple[GuideState, Guide, Array]:
    """Some steps: the state after them, the mean guide of them, and the bound (step,) before each, in nats.

    Args:
        model: the structure of a settled model.
        weights: of the losses.
        batch_size: trials of a step.
        space: the parameters.
        trials: those that are fitted.
        trial_weight: of L_trial.
        beta: of L.
        state: before the first step.
        rates: (step,) learning rates of Adam.
        key: of all draws.
    """
    optimiser = _optimiser(state.guide)

    def objective(guide: Guide, key: Array) -> Array:
        loss = _loss_of_draw(model, weights, batch_size, space, trials, trial_weight, guide, key)
        return beta * loss + guide.divergence()

    def step(carry: tuple[GuideState, Guide], given: tuple[Array, Array]) -> tuple[tuple[GuideState, Guide], Array]:
        (guide, moments), total = carry
        rate, key = given
        value, slope = jax.value_and_grad(objective)(guide, key)
        # Adam does not see the scale; what is cut is a slope of order one.
        slope = jax.tree.map(lambda each: each / (1.0 + beta), slope)
        updates, moments = optimiser.update(slope, moments)
        guide = jax.tree.map(lambda each, update: each - rate * update, guide, updates)
        return (GuideState(guide, moments), jax.tree.map(jnp.add, total, guide)), -value

    nothing = jax.tree.map(jnp.zeros_like, state.guide)
    (state, total), bound = jax.lax.scan(step, (state, nothing), (rates, jax.random.split(key, rates.size)))
    return state, jax.tree.map(lambda each: each / rates.size, total), bound


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def losses_of_draws(
    model: LowRankModel,
    weights: Weights,
    batch_size: int,
    space: ParameterSpace,
    trials: Trials,
    trial_weight: Array,
    guide: Guide,
    keys: Array,
) -> Array:
    """(draw,) L of draws of a guide, each with noise and trials of its own."""
    loss = functools.partial(_loss_of_draw, model, weights, batch_size, space, trials, trial_weight, guide)
    return jax.lax.map(loss, keys)


def _loss_of_draw(
    model: LowRankModel,
    weights: Weights,
    batch_size: int,
    space: ParameterSpace,
    trials: Trials,
    trial_weight: Array,
    guide: Guide,
    key: Array,
) -> Array:
    of_z, of_order, of_noise = jax.random.split(key, 3)
    chosen = jax.random.permutation(of_order, trials.belongs.shape[0])[:batch_size]
    return weighted_loss(model, weights, space, trials, trial_weight, guide.draw(of_z), chosen, of_noise)
