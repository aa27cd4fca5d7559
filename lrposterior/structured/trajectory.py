"""The network at a point, the objective and its gradient: passes over the recording in chunks of neurons.

The currents are x = c psi^T with latents c = (kappa, filtered inputs, filtered 1) and

    kappa[t+1] = (1 - a) kappa[t] + (a / N) [K, Q]^T phi(x[t]).

The gradient of the negative log likelihood needs two passes and a recursion in R + d dimensions: with the residual's
derivative e = (phi(x) - y) phi' / noise variance and g[t] = [M, A]^T e[t],

    lambda[t] = g[t] + A[t]^T lambda[t+1],    A[t] = (1 - a) I + (a / N) [K, Q]^T diag(phi'[t]) [M, A],

    d / d psi_n = sum_t (e_n + phi'_n [K, Q]_n . l) c,    d / d K_n = sum_t phi(x_n) l,    l[t] = (a / N) lambda[t+1].
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.network import NONLINEARITIES
from lrposterior.observations import GaussianObservation
from lrposterior.precision import double_precision
from lrposterior.structured.system import System


class Slice(NamedTuple):
    """A chunk of neurons: the static description of the network comes with every function."""

    loadings: Array | np.ndarray
    activity: Array | np.ndarray
    mask: Array | np.ndarray | None
    known: Array | np.ndarray | None


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The network at a point.

    Attributes:
        vector: (coordinate,) the point.
        latents: (sample, loading) c.
        log_noise_scale: (neuron,) the noise at its conditional mode.
        squares: (neuron,) sums of squared residuals.
        negative_log_likelihood: in nats.
    """

    vector: np.ndarray
    latents: np.ndarray
    log_noise_scale: np.ndarray
    squares: np.ndarray
    negative_log_likelihood: float


def objective(system: System, trajectory: Trajectory, deviations: np.ndarray) -> float:
    """-log p(activity, z) in nats, z the whitened coordinates with those of the noise."""
    noise = (trajectory.log_noise_scale - system.noise_median) / system.noise_spread
    squares = np.sum((trajectory.vector / deviations) ** 2) + np.sum(noise**2)
    size = trajectory.vector.size + noise.size
    return trajectory.negative_log_likelihood + 0.5 * float(squares) + 0.5 * size * np.log(2.0 * np.pi)


@double_precision
def run(system: System, vector: np.ndarray) -> Trajectory:
    """Run the network of a point, with every noise scale at its conditional mode.

    Where the network diverges, nothing explains the recording: the negative log likelihood is infinite.
    """
    latents = run_latents(system, vector)
    loadings = system.layout.loadings(vector)
    squares = np.empty(len(loadings))
    for chunk in system.chunks():
        squares[chunk] = _squares(system.observation, system.nonlinearity, slice_of(system, loadings, chunk), latents)
    if not np.all(np.isfinite(squares)):
        return Trajectory(vector, latents, np.full(len(squares), system.noise_median), squares, np.inf)
    log_scale = _conditional_noise(system, squares)
    count = system.num_observed
    by_neuron = 0.5 * squares * np.exp(-2.0 * log_scale) + count * (log_scale + 0.5 * np.log(2.0 * np.pi))
    return Trajectory(vector, latents, log_scale, squares, float(np.sum(by_neuron)))


def run_latents(system: System, vector: np.ndarray) -> np.ndarray:
    """(sample, loading) latents c. Call it in double precision."""
    layout = system.layout
    initial = np.zeros((system.num_trials, layout.num_latents))
    if layout.num_initial:
        initial[:, : layout.rank] = layout.initial_latents(vector)
    known = None
    if system.known is not None:
        known = system.known.reshape(layout.num_neurons, system.num_trials, system.num_bins)
    kappa = _latents(
        system.nonlinearity,
        layout.loadings(vector),
        system.right_factors(vector),
        np.moveaxis(system.by_trial(system.features), 1, 0),
        known,
        initial,
        system.integration_constant,
    )
    return np.concatenate([system.by_sample(np.moveaxis(np.asarray(kappa), 0, 1)), system.features], axis=1)


@double_precision
def gradient(system: System, trajectory: Trajectory) -> np.ndarray:
    """(coordinate,) derivative of the negative log likelihood at the noise of the trajectory."""
    layout = system.layout
    loadings, right = layout.loadings(trajectory.vector), system.right_factors(trajectory.vector)
    precision = np.exp(-2.0 * trajectory.log_noise_scale)
    settings = system.observation, system.nonlinearity
    num_latents = layout.num_latents
    g = np.zeros((system.num_samples, num_latents))
    mixed = np.zeros((system.num_samples, num_latents, num_latents))
    for chunk in system.chunks():
        part = slice_of(system, loadings, chunk)
        residual, slopes = _reverse_drive(*settings, part, trajectory.latents, right[chunk], precision[chunk])
        g += np.asarray(residual)
        mixed += np.asarray(slopes)
    a, num_neurons = system.integration_constant, layout.num_neurons
    transitions = (1.0 - a) * np.eye(num_latents) + (a / num_neurons) * mixed
    adjoint = adjoint_recursion(system, transitions, g[:, :, None])
    following = (a / num_neurons) * later(system, adjoint)[:, :, 0]
    by_loading, by_right = np.empty_like(loadings), np.empty((num_neurons, layout.rank))
    for chunk in system.chunks():
        part = slice_of(system, loadings, chunk)
        by_loading[chunk], by_all = _parameter_slopes(
            *settings, part, trajectory.latents, right[chunk], precision[chunk], following
        )
        by_right[chunk] = by_all[:, : layout.rank]
    by_right = system.read_part(by_right)
    initial = system.by_trial(adjoint)[:, 0, : layout.rank]
    return layout.pull(trajectory.vector, by_loading[:, :, None], by_right[:, :, None], initial)[:, 0]


def _conditional_noise(system: System, squares: np.ndarray) -> np.ndarray:
    """(neuron,) log noise scales that maximise the density given the sums of squared residuals.

    Minimises n s + S exp(-2 s) / 2 + ((s - median) / spread)² / 2, a convex function; Newton's method started below the
    minimum increases towards it.
    """
    count, precision = system.num_observed, system.noise_spread**-2
    squares = np.maximum(squares, count * system.smallest_noise**2)
    sample = np.divide(squares, count, out=np.full(squares.shape, np.exp(2.0 * system.noise_median)), where=count > 0)
    log_scale = np.minimum(0.5 * np.log(sample), system.noise_median)
    for _ in range(60):
        power = squares * np.exp(-2.0 * log_scale)
        step = (count - power + precision * (log_scale - system.noise_median)) / (2.0 * power + precision)
        log_scale = log_scale - step
        if np.all(np.abs(step) < 1e-12):
            break
    return log_scale


def recursion(system: System, transitions: np.ndarray, drive: np.ndarray, initial: np.ndarray | None) -> np.ndarray:
    """J[t+1] = A[t] J[t] + d[t] in every trial.

    Args:
        transitions: (sample, latent, latent).
        drive: (sample, latent, column).
        initial: (trial, latent, column), or None for zeros.
    """
    A, d = system.by_trial(transitions), system.by_trial(drive)
    states = np.zeros_like(d)
    if initial is not None:
        states[:, 0] = initial
    for time in range(system.num_bins - 1):
        states[:, time + 1] = A[:, time] @ states[:, time] + d[:, time]
    return system.by_sample(states)


def adjoint_recursion(system: System, transitions: np.ndarray, drive: np.ndarray) -> np.ndarray:
    """lambda[t] = g[t] + A[t]^T lambda[t+1] in every trial; shapes as in `recursion`."""
    A, states = np.swapaxes(system.by_trial(transitions), 2, 3), system.by_trial(drive).copy()
    for time in range(system.num_bins - 2, -1, -1):
        states[:, time] += A[:, time] @ states[:, time + 1]
    return system.by_sample(states)


def later(system: System, states: np.ndarray) -> np.ndarray:
    """(sample, ...) the state one bin later, 0 after the last."""
    shifted = np.zeros_like(system.by_trial(states))
    shifted[:, :-1] = system.by_trial(states)[:, 1:]
    return system.by_sample(shifted)


def slice_of(system: System, loadings: np.ndarray, chunk: slice) -> Slice:
    """A chunk of neurons of a system."""
    mask, known = system.mask, system.known
    return Slice(
        jnp.asarray(loadings[chunk]),
        jnp.asarray(system.activity[chunk]),
        None if mask is None else jnp.asarray(mask[chunk]),
        None if known is None else jnp.asarray(known[chunk]),
    )


def currents(part: Slice, latents: Array) -> Array:
    """(neuron, sample) currents of a chunk."""
    current = jnp.asarray(part.loadings) @ latents.T
    return current if part.known is None else current + part.known


def seen(part: Slice, values: Array | np.ndarray) -> Array:
    """Values (neuron, sample), 0 where nothing was observed."""
    return jnp.asarray(values) if part.mask is None else jnp.where(part.mask, values, 0.0)


network = functools.partial(jax.jit, static_argnums=(0, 1))


@functools.partial(jax.jit, static_argnums=0)
def _latents(
    nonlinearity: str, loadings: Array, right: Array, features: Array, known: Array | None, initial: Array, a: Array
) -> Array:
    """(bin, trial, latent) kappa."""
    rate = NONLINEARITIES[nonlinearity].rate
    num_neurons = loadings.shape[0]

    def step(kappa: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        time, feature = now
        current = loadings @ jnp.concatenate([kappa, feature], axis=1).T
        if known is not None:
            current = current + known[:, :, time]
        read = rate(current).T @ right / num_neurons
        return (1.0 - a) * kappa + a * read, kappa

    _, kappa = jax.lax.scan(step, initial, (jnp.arange(features.shape[0]), features))
    return kappa


@network
def _squares(observation: GaussianObservation, nonlinearity: str, part: Slice, latents: Array) -> Array:
    residual = part.activity - observation.mean(currents(part, latents), nonlinearity)
    return jnp.sum(seen(part, residual) ** 2, axis=1)


@network
def _reverse_drive(
    observation: GaussianObservation, nonlinearity: str, part: Slice, latents: Array, right: Array, precision: Array
) -> tuple[Array, Array]:
    """Sums over neurons: g (sample, latent) and K^T diag(phi') M (sample, latent, latent)."""
    current = currents(part, latents)
    left = part.loadings[:, : right.shape[1]]
    error = seen(part, observation.mean(current, nonlinearity) - part.activity)
    error = error * observation.sensitivity(current, nonlinearity) * precision[:, None]
    pairs = (right[:, :, None] * left[:, None, :]).reshape(len(left), -1)
    mixed = NONLINEARITIES[nonlinearity].slope(current).T @ pairs
    return error.T @ left, mixed.reshape(-1, right.shape[1], right.shape[1])


@network
def _parameter_slopes(
    observation: GaussianObservation,
    nonlinearity: str,
    part: Slice,
    latents: Array,
    right: Array,
    precision: Array,
    following: Array,
) -> tuple[Array, Array]:
    """Derivatives with respect to the loadings (neuron, loading) and to all right factors (neuron, latent)."""
    current = currents(part, latents)
    phi = NONLINEARITIES[nonlinearity]
    error = seen(part, observation.mean(current, nonlinearity) - part.activity)
    error = error * observation.sensitivity(current, nonlinearity) * precision[:, None]
    error = error + phi.slope(current) * (right @ following.T)
    return error @ latents, phi.rate(current) @ following
