"""A start for the mode from the data: principal components, regression, and a conjugate ridge for K.

As `lrposterior.inference.initialise`, in passes over chunks of neurons. Where there are many neurons, the latents come
from some of them; one update of all loadings, of the latents and of the loadings again then uses all.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import Array

from lrposterior.network import NONLINEARITIES
from lrposterior.observations import GaussianObservation
from lrposterior.precision import double_precision
from lrposterior.structured.courses import rate_courses
from lrposterior.structured.gauge import settle, settle_trades
from lrposterior.structured.mode import ConvergenceError
from lrposterior.structured.system import System, filtered
from lrposterior.structured.trajectory import Slice, Trajectory, currents, network, objective, run, seen, slice_of

NUM_SWEEPS = 4
SUBSET = 1000
SHRINKAGES = (1.0, 0.7, 0.4, 0.1)
COURSE_TOLERANCE = 1e-4
# Variances of the latents count as no less than this part of their mean square. Coarser, it costs thousands of nats.
LATENT_FLOOR = 1e-7
# Noise variances below this part of the mean square of the activity count as this part.
SMALLEST_NOISE_PART = 1e-6


@double_precision
def find_start(
    system: System, deviations: np.ndarray, *, latents: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """A start (coordinate,) with a finite objective. Latents with known right factors start without left factors.

    Args:
        system: the recording.
        deviations: (coordinate,) prior standard deviations.
        latents: (sample, rank) latents that follow the dynamics of a network, to be kept; None takes them from the
            principal components of at most `SUBSET` neurons, and improves them by all neurons.
        seed: which neurons these are.

    Raises:
        ConvergenceError: if the activity does not span as many dimensions as the rank asks for.
    """
    layout = system.layout
    scale = _loading_scale(system, deviations)
    kappa, loadings = latents, None
    if kappa is None:
        part = system.select(choose_neurons(system, SUBSET, seed))
        kappa, loadings = _principal_start(part, scale)
        variance = np.maximum(np.var(kappa, axis=0), 1e-12)
        for _ in range(NUM_SWEEPS):
            loadings = _update_loadings(part, kappa, loadings, scale)
            kappa = kappa + _latents_step(part, kappa, loadings, variance)[0]
    variance = np.maximum(np.var(kappa, axis=0), 1e-12)
    if loadings is None or len(loadings) < layout.num_neurons:
        loadings = _update_loadings(system, kappa, _regress(system, kappa, scale), scale)
        loadings = _update_loadings(system, kappa, loadings, scale)
    uncertainty = np.full(len(kappa), LATENT_FLOOR * variance.mean())
    if latents is None:
        if layout.num_neurons > SUBSET:
            kappa = kappa + _latents_step(system, kappa, loadings, variance)[0]
            loadings = _update_loadings(system, kappa, loadings, scale)
        _, precision = _latents_step(system, kappa, loadings, variance)
        uncertainty += np.trace(np.linalg.inv(precision), axis1=1, axis2=2) / layout.rank
    K, from_features, initial = _recurrence(system, deviations, kappa, loadings, uncertainty, variance)
    loadings[:, layout.rank :] += loadings[:, : layout.rank] @ from_features.T
    return _best_start(system, deviations, loadings, K, initial)


def choose_neurons(system: System, number: int, seed: int) -> np.ndarray:
    """Sorted indices of a random choice of neurons, all of them where there are not more."""
    if system.layout.num_neurons <= number:
        return np.arange(system.layout.num_neurons)
    return np.sort(np.random.default_rng(seed).choice(system.layout.num_neurons, number, replace=False))


def _loading_scale(system: System, deviations: np.ndarray) -> np.ndarray:
    """(rank + input + 1,) prior standard deviations of M, B and b."""
    return system.layout.rows(deviations)[0, system.layout.regressors]


def _vector(system: System, loadings: np.ndarray, K: np.ndarray, initial: np.ndarray) -> np.ndarray:
    layout = system.layout
    rows = np.zeros((layout.num_neurons, layout.width))
    rows[:, layout.regressors], rows[:, layout.columns["E"]] = loadings, K
    return layout.join(rows, initial=initial)


def _best_start(
    system: System, deviations: np.ndarray, loadings: np.ndarray, K: np.ndarray, initial: np.ndarray
) -> np.ndarray:
    """The lowest start; K is shrunk because a network with noisy K may diverge."""
    best, lowest = None, np.inf
    for shrinkage in SHRINKAGES:
        vector = _vector(system, loadings, shrinkage * K, initial)
        vector = settle_trades(system.layout, vector, deviations, system.seen_right)
        reached = objective(system, run(system, vector), deviations)
        if reached < lowest:
            best, lowest = vector, reached
    if best is None:
        raise ConvergenceError(
            "initialisation: no finite start was found, even without recurrence; check the scale of the inputs and the "
            "stimulation, which alone make the network diverge"
        )
    return settle(system.layout, best, deviations, system.seen_right)


def _principal_start(system: System, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latents (sample, rank) and loadings (neuron, rank + input + 1) from the currents that the data suggest."""
    rank, features = system.layout.rank, system.features
    current = np.asarray(_suggested(system.observation, system.nonlinearity, *_observed(system, slice(None)))).T
    recurrent = current - features @ np.linalg.lstsq(features, current, rcond=None)[0]
    U, values, V = np.linalg.svd(recurrent, full_matrices=False)
    support = int(np.sum(values > 1e-10 * values[0])) if values[0] > 0.0 else 0
    if rank > support:
        raise ConvergenceError(
            f"rank: expected at most {support}, the number of dimensions that the activity spans beyond its inputs, "
            f"got {rank}; lower the rank or fit more bins and neurons"
        )
    size = scale[0] * np.sqrt(recurrent.shape[1])
    M = V[:rank].T * size
    return U[:, :rank] * values[:rank] / size, np.concatenate([M, np.zeros((len(M), features.shape[1]))], axis=1)


def _observed(system: System, chunk: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Activity, mask and known currents (neuron, sample) of a chunk, and the typical size of the activity."""
    activity = system.activity[chunk]
    mask = np.ones(activity.shape, bool) if system.mask is None else system.mask[chunk]
    known = np.zeros(activity.shape) if system.known is None else system.known[chunk]
    return activity, mask, known, float(np.sqrt(np.mean(activity[mask] ** 2))) if mask.any() else 1.0


@network
def _suggested(
    observation: GaussianObservation, nonlinearity: str, activity: Array, mask: Array, known: Array, size: float
) -> Array:
    """Currents (neuron, sample) by the inverse nonlinearity, the mean where nothing was observed, without the known."""
    current = activity
    if observation.of == "rate":
        current = NONLINEARITIES[nonlinearity].current(activity, size)
    count = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
    mean = jnp.sum(jnp.where(mask, current, 0.0), axis=1, keepdims=True) / count
    return jnp.where(mask, current, mean) - known


def _regress(system: System, kappa: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(neuron, rank + input + 1) loadings by linear regression of the suggested currents on the latents."""
    latents = np.concatenate([kappa, system.features], axis=1)
    moments = latents.T @ latents
    moments += 1e-3 * np.trace(moments) / len(moments) * np.diag((scale.max() / scale) ** 2)
    loadings = np.empty((system.layout.num_neurons, latents.shape[1]))
    for chunk in system.chunks():
        current = _suggested(system.observation, system.nonlinearity, *_observed(system, chunk))
        loadings[chunk] = np.linalg.solve(moments, latents.T @ np.asarray(current).T).T
    return loadings


def _update_loadings(system: System, kappa: np.ndarray, loadings: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """One Gauss-Newton step for the loadings of every neuron, given the latents."""
    latents = np.concatenate([kappa, system.features], axis=1)
    updated, floor = np.empty_like(loadings), _noise_floor(system)
    settings = system.observation, system.nonlinearity
    for chunk in system.chunks():
        updated[chunk] = _loadings_step(*settings, slice_of(system, loadings, chunk), latents, scale, floor)
    return updated


def _latents_step(
    system: System, kappa: np.ndarray, loadings: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A Gauss-Newton step (sample, rank) of the latents, given the loadings, and its precision (sample, rank, rank)."""
    rank = kappa.shape[1]
    latents, floor = np.concatenate([kappa, system.features], axis=1), _noise_floor(system)
    precision = np.tile(np.diag(1.0 / variance), (len(kappa), 1, 1))
    slope = -kappa / variance
    settings = system.observation, system.nonlinearity
    for chunk in system.chunks():
        more = _latents_normal(*settings, rank, slice_of(system, loadings, chunk), latents, floor)
        slope += np.asarray(more[0])
        precision += np.asarray(more[1])
    return np.linalg.solve(precision, slope[..., None])[..., 0], precision


def _noise_floor(system: System) -> float:
    some = system.activity[: max(1, 1_000_000 // system.num_samples)]
    return max(SMALLEST_NOISE_PART * float(np.mean(some**2)), 1e-300)


def _linearise(
    observation: GaussianObservation, nonlinearity: str, part: Slice, latents: Array, floor: Array
) -> tuple[Array, Array, Array]:
    """Residual and slope (neuron, sample), 0 where masked, and the noise variance (neuron,)."""
    current = currents(part, latents)
    residual = seen(part, part.activity - observation.mean(current, nonlinearity))
    slope = seen(part, observation.sensitivity(current, nonlinearity))
    count = latents.shape[0] if part.mask is None else jnp.maximum(jnp.sum(part.mask, axis=1), 1)
    return residual, slope, jnp.maximum(jnp.sum(residual**2, axis=1) / count, floor)


@network
def _loadings_step(
    observation: GaussianObservation, nonlinearity: str, part: Slice, latents: Array, scale: Array, floor: Array
) -> Array:
    residual, slope, noise = _linearise(observation, nonlinearity, part, latents, floor)
    size = latents.shape[1]
    pairs = (latents[:, :, None] * latents[:, None, :]).reshape(-1, size * size)
    information = (slope**2 @ pairs).reshape(-1, size, size) / noise[:, None, None]
    gradient = (slope * residual) @ latents / noise[:, None] - part.loadings / scale**2
    return part.loadings + jnp.linalg.solve(information + jnp.diag(scale**-2.0), gradient[..., None])[..., 0]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _latents_normal(
    observation: GaussianObservation, nonlinearity: str, rank: int, part: Slice, latents: Array, floor: Array
) -> tuple[Array, Array]:
    residual, slope, noise = _linearise(observation, nonlinearity, part, latents, floor)
    M = part.loadings[:, :rank]
    pairs = (M[:, :, None] * M[:, None, :] / noise[:, None, None]).reshape(-1, rank * rank)
    return (slope * residual).T @ (M / noise[:, None]), ((slope**2).T @ pairs).reshape(-1, rank, rank)


def _recurrence(
    system: System,
    deviations: np.ndarray,
    kappa: np.ndarray,
    loadings: np.ndarray,
    uncertainty: np.ndarray,
    variance: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """K, what of the latents the filtered inputs explain instead (input + 1, rank), and the initial latents.

    kappa = (filtered rates) K / N + filtered inputs + decaying initial latents, a ridge regression with a prior on K
    that is solved in the basis U of the rates phi = U C^T: beta = C^T K / N ~ Normal(0, s² C^T C / N²).
    """
    layout, a = system.layout, system.integration_constant
    latents = np.concatenate([kappa, np.zeros((len(kappa), layout.num_seen)), system.features], axis=1)
    vector = _vector(
        system, loadings, np.zeros((layout.num_neurons, layout.rank)), np.zeros((layout.num_initial, layout.rank))
    )
    trajectory = Trajectory(vector, latents, np.zeros(layout.num_neurons), np.zeros(0), np.nan)
    rates = rate_courses(system, trajectory, tolerance=COURSE_TOLERANCE)
    scale = layout.rows(deviations)[0, layout.columns["E"]][0] / layout.num_neurons
    gram = scale**2 * rates.coefficients.T @ rates.coefficients
    triangle = np.linalg.cholesky(gram + 1e-12 * np.trace(gram) / len(gram) * np.eye(len(gram)))
    reading = system.by_trial(rates.expand(triangle))
    regressors = [system.by_sample(filtered(reading, a)), 10.0 * np.sqrt(variance.mean()) * system.features]
    if layout.num_initial:
        decay = (1.0 - a) ** np.arange(system.num_bins)
        regressors.append(layout.initial_latents(deviations)[0, 0] * np.kron(np.eye(system.num_trials), decay[:, None]))
    X = np.concatenate(regressors, axis=1)
    weighted = X / uncertainty[:, None]
    coefficients = np.linalg.solve(weighted.T @ X + np.eye(X.shape[1]), weighted.T @ kappa)
    on_rates, on_features, initial = np.split(coefficients, np.cumsum([len(gram), system.features.shape[1]]))
    K = (
        scale**2
        * layout.num_neurons
        * rates.coefficients
        @ scipy.linalg.solve_triangular(triangle, on_rates, lower=True, trans=1)
    )
    initial = initial * layout.initial_latents(deviations)[0, 0] if layout.num_initial else np.zeros((0, layout.rank))
    return K, 10.0 * np.sqrt(variance.mean()) * on_features, initial
