"""A delayed-response task, and networks of full rank that are trained to perform it."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

DT, TAU, GAIN = 0.02, 0.1, 0.8
NUM_BINS, CUE, DISTRACTOR, GO, SETTLED = 70, (5, 15), (27, 33), 48, 56
LEFT, RIGHT, GO_SIGNAL = range(3)
DISTRACTION, JITTER, PRIVATE_NOISE = 0.6, 4, 0.1
BATCH, LEARNING_RATE, MOMENTUM, RATE_COST = 32, 0.1, 0.9, 0.1


@dataclass(frozen=True)
class Trials:
    """Trials of the task.

    Attributes:
        inputs: (trial, time, input): the two cues and the go signal.
        targets: (trial, time): 0 until the go signal, then 1 or -1 after the left or the right cue.
        counts: (time,) bins in which the output counts.
    """

    inputs: np.ndarray
    targets: np.ndarray
    counts: np.ndarray


def make_trials(num_trials: int, seed: int) -> Trials:
    """Trials of all conditions in turn: two cues, and a weaker distractor on the same, the other or neither side.

    Strength of cue and distractor and their times vary from trial to trial.
    """
    random = np.random.default_rng(seed)
    inputs, targets = np.zeros((num_trials, NUM_BINS, 3)), np.zeros((num_trials, NUM_BINS))
    for trial in range(num_trials):
        side, distraction = trial % 2, (trial // 2) % 3
        start = CUE[0] + random.integers(JITTER)
        inputs[trial, start : start + CUE[1] - CUE[0], side] = random.uniform(0.7, 1.3)
        if distraction:
            later = DISTRACTOR[0] + random.integers(-JITTER, JITTER)
            channel = side if distraction == 1 else 1 - side
            inputs[trial, later : later + DISTRACTOR[1] - DISTRACTOR[0], channel] = DISTRACTION * random.uniform(0.5, 1)
        inputs[trial, GO:, GO_SIGNAL] = 1.0
        targets[trial, GO:] = 1.0 - 2.0 * side
    counts = np.ones(NUM_BINS)
    counts[GO:SETTLED] = 0.0
    return Trials(inputs, targets, counts)


def train(num_units: int, seed: int, num_steps: int) -> tuple[dict[str, np.ndarray], float]:
    """A network of full rank that performs the task, and its squared error on trials it was not trained on.

        x[t+1] = (1 - a) x[t] + a (W tanh(x[t]) + B u[t] + b + noise),      output = w_out . tanh(x)

    W starts at Normal(0, 0.8² / N). All weights are trained through time by gradient descent with momentum, at a
    cost of the rates, as is usual for networks that are compared with brains.
    """
    random = np.random.default_rng([seed, 1])
    parameters = {
        "W": GAIN / np.sqrt(num_units) * random.standard_normal((num_units, num_units)),
        "B": 0.5 * random.standard_normal((num_units, 3)),
        "b": np.zeros(num_units),
        "w_out": random.standard_normal(num_units) / num_units,
    }
    parameters = {name: jnp.asarray(value, jnp.float32) for name, value in parameters.items()}
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, num_steps)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(schedule, momentum=MOMENTUM))
    counts = jnp.asarray(make_trials(1, 0).counts, jnp.float32)

    def error(
        parameters: dict, inputs: jax.Array, targets: jax.Array, noise: jax.Array | float
    ) -> tuple[jax.Array, jax.Array]:
        """Squared error of the output, and the cost of the rates."""
        drive = inputs @ parameters["B"].T + parameters["b"] + noise

        def step(current: jax.Array, driven: jax.Array) -> tuple[jax.Array, jax.Array]:
            rates = jnp.tanh(current)
            following = current + DT / TAU * (-current + rates @ parameters["W"].T + driven)
            return following, (rates @ parameters["w_out"], jnp.mean(rates**2))

        _, (outputs, power) = jax.lax.scan(step, jnp.zeros_like(drive[:, 0]), jnp.moveaxis(drive, 1, 0))
        cost = RATE_COST * jnp.mean(power)
        return jnp.sum(counts * (outputs.T - targets) ** 2) / (len(inputs) * counts.sum()), cost

    @jax.jit
    def update(parameters: dict, state: optax.OptState, key: jax.Array, inputs: jax.Array, targets: jax.Array):
        noise = PRIVATE_NOISE * jax.random.normal(key, (BATCH, NUM_BINS, num_units))
        slopes = jax.grad(lambda *each: sum(error(*each)))(parameters, inputs, targets, noise)
        changes, state = optimiser.update(slopes, state)
        return optax.apply_updates(parameters, changes), state

    state = optimiser.init(parameters)
    for step in range(num_steps):
        trials = make_trials(BATCH, int(random.integers(2**31)))
        arrays = jnp.asarray(trials.inputs, jnp.float32), jnp.asarray(trials.targets, jnp.float32)
        parameters, state = update(parameters, state, jax.random.key(step), *arrays)
    tested = make_trials(BATCH, seed + 2**20)
    arrays = jnp.asarray(tested.inputs, jnp.float32), jnp.asarray(tested.targets, jnp.float32)
    final, _ = error(parameters, *arrays, 0.0)
    return {name: np.asarray(value, np.float64) for name, value in parameters.items()}, float(final)
