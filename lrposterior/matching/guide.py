"""A Normal distribution fitted to the prior times exp(-beta L), from losses of noisy trials. In single precision.

    maximise over q:   -beta E_q L(z) - KL(q || prior),      prior = Normal(0, 1),      q = Normal(m, diag(s²))

Its maximum over all q is the generalised posterior, prior(z) exp(-beta L(z)) over its integral (Bissiri, Holmes and
Walker 2016, doi:10.1111/rssb.12158). L is an expectation over the noise of simulated trials and over batches, which
every step draws anew together with z: slopes are without bias.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

# L at z, of trials chosen by one key and with noise by another, as `lrposterior.matching.training.WeightedLoss`.
Loss = Callable[[Array, Array, Array], Array]
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


@jax.jit
def climb(loss: Loss, beta: Array, state: GuideState, rates: Array, key: Array) -> tuple[GuideState, Guide, Array]:
    """Some steps: the state after them, the mean guide of them, and the bound (step,) before each, in nats.

    Args:
        loss: L.
        beta: of L.
        state: before the first step.
        rates: (step,) learning rates of Adam.
        key: of all draws.
    """
    optimiser = _optimiser(state.guide)

    def objective(guide: Guide, key: Array) -> Array:
        return beta * _loss_of_draw(loss, guide, key) + guide.divergence()

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


@jax.jit
def losses_of_draws(loss: Loss, guide: Guide, keys: Array) -> Array:
    """(draw,) L of draws of a guide, each with noise and trials of its own."""
    return jax.lax.map(lambda key: _loss_of_draw(loss, guide, key), keys)


def _loss_of_draw(loss: Loss, guide: Guide, key: Array) -> Array:
    of_z, of_order, of_noise = jax.random.split(key, 3)
    return loss(guide.draw(of_z), of_order, of_noise)
