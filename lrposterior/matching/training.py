"""Epochs of matching, in single precision: slopes are averages over noisy trials, whose own error is far larger."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from lrposterior.data import Data
from lrposterior.matching.averages import smooth, smoothing_kernel, smoothing_weight
from lrposterior.matching.losses import activity_loss, balanced, mean_correlation, neuron_loss, weight_norm
from lrposterior.matching.simulated_trials import expected_trials, of_new_trials, of_trials, simulated_trials
from lrposterior.matching.sinkhorn import Cost, costs, sinkhorn_divergence
from lrposterior.model import LowRankModel
from lrposterior.parameters import ParameterSpace
from lrposterior.recording import Recording
from lrposterior.time_constants import BLOCK

# A slope is cut to this norm: the losses are of order one, and so are the whitened coordinates.
LARGEST_SLOPE = 1.0
# The Poisson cost takes smoothed activity for at least this part of its neuron's mean.
LOWEST_PART = 0.05
OPTIMISER = optax.chain(optax.clip_by_global_norm(LARGEST_SLOPE), optax.scale_by_adam())


@dataclass(frozen=True)
class Weights:
    """What the loss is made of.

    Attributes:
        cost: of bringing one trial to another.
        entropy: epsilon of the Sinkhorn divergence, over the mean cost between recorded trials.
        weight_penalty: of L_reg.
        activity_penalty: of L_activity.
    """

    cost: Cost
    entropy: float
    weight_penalty: float
    activity_penalty: float


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trials:
    """Recorded trials as compiled functions take them.

    Attributes:
        data: the trials; their activity is smoothed, and 0 where masked.
        kernel, weight: of the smoothing.
        belongs: (trial, condition) 1 for the condition of a trial, else 0.
        lowest: (neuron,) what the Poisson cost takes smoothed activity for at least.
        target: the mean activity that L_activity asks for.
        fully_observed: whether all bins count.
    """

    data: Data
    kernel: Array
    weight: Array
    belongs: Array
    lowest: Array
    target: Array
    fully_observed: bool = field(metadata={"static": True})

    @classmethod
    def of(
        cls, model: LowRankModel, recording: Recording, width: float, belongs: np.ndarray, target: float | None
    ) -> Trials:
        """Of a settled model, with a kernel of this width in s. Call it in the precision that is wanted.

        Args:
            target: a mean activity in the unit of the recording; None is the recorded one.
        """
        data = model.data(recording)
        kernel = jnp.asarray(smoothing_kernel(recording.num_bins, width / recording.dt))
        weight = smoothing_weight(kernel, data.mask)
        smoothed = smooth(kernel, weight, data.activity, data.mask)
        counts = np.maximum(recording.mask.sum(axis=(0, 1)), 1)
        mean = np.where(recording.mask, recording.activity, 0.0).sum(axis=(0, 1)) / counts
        own = recording.activity[recording.mask].mean() if target is None else target
        lowest = LOWEST_PART * np.where(mean > 0.0, mean, mean.mean())
        return cls(
            dataclasses.replace(data, activity=smoothed),
            kernel,
            weight,
            jnp.asarray(belongs, smoothed.dtype),
            jnp.asarray(lowest, smoothed.dtype),
            jnp.asarray(own, smoothed.dtype),
            recording.fully_observed,
        )

    def some(self, chosen: Array) -> Trials:
        """Some of the trials, by their numbers."""
        return dataclasses.replace(
            self, data=self.data.of_trials(chosen), weight=self.weight[chosen], belongs=self.belongs[chosen]
        )

    def smoothed(self, simulated: Array) -> Array:
        """Simulated trials (trial, time, neuron) smoothed as the recorded ones."""
        return smooth(self.kernel, self.weight, simulated, self.data.mask)


class State(NamedTuple):
    """Where a network stands between two epochs.

    Attributes:
        z: (coordinate,) whitened.
        optimiser: the moments of Adam.
    """

    z: Array
    optimiser: optax.OptState

    @classmethod
    def at(cls, z: np.ndarray) -> State:
        start = jnp.asarray(z, jnp.float32)
        return cls(start, OPTIMISER.init(start))


class Losses(NamedTuple):
    """Of an epoch, averaged over its batches: L_neuron, L_trial (0 during the warm-up) and both penalties together."""

    neuron: Array
    trial: Array
    penalty: Array


def learning_rates(space: ParameterSpace, rate: float, time_constant_rate: float) -> np.ndarray:
    """(coordinate,) one for time constants, and one for all others."""
    rates = np.full(space.size, rate)
    if BLOCK in space:
        rates[space.slices[BLOCK]] = time_constant_rate
    return rates


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def run_epoch(
    model: LowRankModel,
    weights: Weights,
    batch_size: int,
    space: ParameterSpace,
    rates: Array,
    trials: Trials,
    state: State,
    share: Array,
    key: Array,
) -> tuple[State, Losses]:
    """One pass over the trials in a new order; those that fill no batch wait for another epoch.

    Args:
        model: the structure of a settled model.
        weights: of the losses.
        batch_size: trials of a step.
        space: the parameters.
        rates: (coordinate,) learning rates.
        trials: those that are fitted.
        state: before the epoch.
        share: of L_trial, from 0 to 1.
        key: of the order and the noise.
    """
    num_trials = trials.belongs.shape[0]
    num_batches = num_trials // batch_size
    of_order, of_noise = jax.random.split(key)
    order = jax.random.permutation(of_order, num_trials)[: num_batches * batch_size]

    def step(state: State, batch: tuple[Array, Array]) -> tuple[State, Losses]:
        losses, slope = loss_and_slope(model, weights, space, trials, state.z, share, *batch)
        updates, optimiser = OPTIMISER.update(slope, state.optimiser)
        z = state.z - rates * jnp.asarray(updates)
        return State(z, optimiser), losses

    batches = order.reshape(num_batches, batch_size), jax.random.split(of_noise, num_batches)
    state, losses = jax.lax.scan(step, state, batches)
    return state, jax.tree.map(jnp.mean, losses)


def loss_and_slope(
    model: LowRankModel,
    weights: Weights,
    space: ParameterSpace,
    trials: Trials,
    z: Array,
    share: Array,
    chosen: Array,
    key: Array,
) -> tuple[Losses, Array]:
    """The losses of some trials, and the slope (coordinate,) of their sum.

        L = L_neuron + share balance L_trial + weight_penalty L_reg + activity_penalty L_activity

    The balance, with which both slopes by the simulated trials have one norm, is held: what goes back through the
    network is one slope.
    """
    some = trials.some(chosen)
    of_one, of_other = jax.random.split(key)

    def of_trial(simulated: Array) -> Array:
        again = jax.lax.stop_gradient(simulated_again(model, space, some, z, chosen, of_other))
        return trial_loss(simulated, again, some, weights)

    def of_weights(z: Array) -> Array:
        parameters = space.unwhiten(z)
        left, right = model.factors(parameters, dataclasses.replace(some.data, known_factors=None))
        return weights.weight_penalty * weight_norm(left, right, parameters["B"])

    def of_activity(simulated: Array) -> Array:
        return weights.activity_penalty * activity_loss(simulated, some.data.mask, some.target)

    simulated, pull_back = jax.vjp(lambda z: simulated_again(model, space, some, z, chosen, of_one), z)
    neuron, slope = jax.value_and_grad(neuron_loss)(simulated, some.data.activity, some.data.mask, some.belongs)
    trial, more = jax.lax.cond(
        share > 0.0,
        jax.value_and_grad(of_trial),
        lambda simulated: (jnp.zeros((), simulated.dtype), jnp.zeros_like(simulated)),
        simulated,
    )
    slope = slope + share * balanced(slope, more)
    penalty, of_penalty = jax.value_and_grad(of_weights)(z)
    if weights.activity_penalty > 0.0:
        activity, more = jax.value_and_grad(of_activity)(simulated)
        penalty, slope = penalty + activity, slope + more
    return Losses(neuron, trial, penalty), pull_back(slope)[0] + of_penalty


def simulated_again(
    model: LowRankModel, space: ParameterSpace, some: Trials, z: Array, chosen: Array, key: Array
) -> Array:
    """(trial, time, neuron) the chosen trials, which are `some`, simulated with new noise and smoothed."""
    parameters = of_trials(space.unwhiten(z), chosen)
    return some.smoothed(simulated_trials(model, parameters, some.data, key))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WeightedLoss:
    """L = L_neuron + trial_weight L_trial + activity_penalty L_activity of some trials, with noise drawn anew.

    With a weight that is fixed its expectation over the noise is a function of z, and the expectation of its slope is
    the slope of that (`lrposterior.matching.sinkhorn`). L_reg is not in it: z has a prior.

    Attributes:
        model: the structure of a settled model.
        weights: of the losses.
        batch_size: how many trials.
        space: the parameters.
        trials: those that are fitted.
        trial_weight: of L_trial.
    """

    model: LowRankModel = field(metadata={"static": True})
    weights: Weights = field(metadata={"static": True})
    batch_size: int = field(metadata={"static": True})
    space: ParameterSpace
    trials: Trials
    trial_weight: Array

    def __call__(self, z: Array, of_order: Array, of_noise: Array) -> Array:
        """L of trials that the first key chooses, with noise by the second."""
        chosen = jax.random.permutation(of_order, self.trials.belongs.shape[0])[: self.batch_size]
        return self.of_trials(z, chosen, of_noise)

    def of_trials(self, z: Array, chosen: Array, key: Array) -> Array:
        """L of chosen trials."""
        some, weights = self.trials.some(chosen), self.weights
        of_one, of_other = jax.random.split(key)
        simulated = simulated_again(self.model, self.space, some, z, chosen, of_one)
        again = jax.lax.stop_gradient(simulated_again(self.model, self.space, some, z, chosen, of_other))
        neuron = neuron_loss(simulated, some.data.activity, some.data.mask, some.belongs)
        loss = neuron + self.trial_weight * trial_loss(simulated, again, some, weights)
        if weights.activity_penalty > 0.0:
            loss = loss + weights.activity_penalty * activity_loss(simulated, some.data.mask, some.target)
        return loss


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def balancing_weight(
    model: LowRankModel,
    weights: Weights,
    batch_size: int,
    space: ParameterSpace,
    trials: Trials,
    z: Array,
    keys: Array,
) -> Array:
    """The weight of L_trial with which both slopes by the simulated trials have one norm, mean over keys (draw,)."""

    def one(key: Array) -> Array:
        of_order, of_one, of_other = jax.random.split(key, 3)
        chosen = jax.random.permutation(of_order, trials.belongs.shape[0])[:batch_size]
        some = trials.some(chosen)
        simulated = simulated_again(model, space, some, z, chosen, of_one)
        again = simulated_again(model, space, some, z, chosen, of_other)
        neuron = jax.grad(neuron_loss)(simulated, some.data.activity, some.data.mask, some.belongs)
        trial = jax.grad(trial_loss)(simulated, again, some, weights)
        return jnp.sqrt(jnp.sum(neuron**2) / jnp.sum(trial**2))

    return jnp.mean(jax.lax.map(one, keys))


def trial_loss(simulated: Array, again: Array, trials: Trials, weights: Weights) -> Array:
    """L_trial: the Sinkhorn divergence between recorded and simulated smoothed trials.

    Args:
        simulated, again: (trial, time, neuron) two independent simulations of the trials; the slope is by the first.
        trials: the recorded ones.
        weights: cost and entropy.
    """
    each = trials.data.activity, simulated, again
    if weights.cost == "poisson":
        each = tuple(jnp.maximum(one, trials.lowest) for one in each)
    recorded, simulated, again = (one.reshape(len(one), -1) for one in each)
    counts = trials.data.mask.reshape(len(recorded), -1).astype(simulated.dtype)
    both = None if trials.fully_observed else (counts, counts)
    between, within, others = (
        costs(one, other, both, weights.cost)
        for one, other in ((recorded, simulated), (recorded, recorded), (again, simulated))
    )
    epsilon = jnp.maximum(weights.entropy * jnp.mean(within), jnp.finfo(within.dtype).tiny)
    return sinkhorn_divergence(between, within, others, epsilon)


@functools.partial(jax.jit, static_argnums=0)
def validation_correlation(model: LowRankModel, space: ParameterSpace, trials: Trials, z: Array, key: Array) -> Array:
    """Correlation of the averages of trials that are not fitted with those that are expected."""
    parameters = of_new_trials(space.unwhiten(z), trials.belongs.shape[0])
    expected = trials.smoothed(expected_trials(model, parameters, trials.data, key))
    return mean_correlation(expected, trials.data.activity, trials.data.mask, trials.belongs)
