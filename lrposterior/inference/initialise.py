"""A start for the mode from the data: principal components, regression, and a conjugate ridge for K.

1. The activity, through the inverse nonlinearity, minus the filtered inputs, gives the latents by its leading
   principal components. Where sessions had different neurons, the mode of the largest gives those of all.
2. A few sweeps of Gauss-Newton for the loadings of every neuron given the latents, and for the latents of every bin
   given the loadings, undo the distortion of the inverse nonlinearity.
3. Given latents and loadings, kappa is linear in K: kappa = K^T (filtered rates) / N. Ridge regression on the
   *filtered* rates (differences of single bins are far noisier) gives K.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrposterior.background import FixedBackground
from lrposterior.fit_error import FitError
from lrposterior.inference.mode import find_mode
from lrposterior.inference.problem import Problem
from lrposterior.network import NONLINEARITIES, low_pass
from lrposterior.observations import Emission, NormalEmission
from lrposterior.priors import Priors
from lrposterior.process_noise import pattern_coordinates
from lrposterior.state_space import filter_trials, smooth

NUM_SWEEPS = 4
# The noise of the latents has at least this part of the variance that their regression leaves.
SMALLEST_DRIVE = 0.05
# Nats that may still be expected at the mode of one session.
SESSION_TOLERANCE = 1.0
SHRINKAGES = (1.0, 0.7, 0.4, 0.1)


def initialise(problem: Problem) -> np.ndarray:
    """A whitened start (coordinate,), with a finite objective.

    Raises:
        FitError: if the activity does not span as many dimensions as the rank asks for.
    """
    model, space, data = problem.model, problem.space, problem.data
    recording, rank = problem.recording, model.rank
    priors_of: dict[str, Any] = {block.name: block.standard_deviation for block in space.blocks}
    activity, mask = recording.activity, np.asarray(data.mask)
    num_trials, num_bins, num_neurons = activity.shape
    prior_mean = space.unwhiten(jnp.zeros(space.size))
    own_constant = np.asarray(model.integration_constants(prior_mean, data))
    # Latents have one time constant here, whatever that of the neurons that they drive.
    a = float(own_constant.mean())
    free = model.initial_state == "free"

    filtered_one = np.asarray(low_pass(jnp.ones((num_bins, 1)), a, jnp.full(1, 1.0 if free else 0.0)))
    features = np.concatenate(
        [low_passed(recording.inputs, a), np.broadcast_to(filtered_one, (num_trials, num_bins, 1))], axis=2
    )
    first_current = model.observed_currents(recording)
    known = np.zeros_like(activity)
    if recording.stimulation is not None:
        known = known + low_passed(recording.stimulation, own_constant)
    if isinstance(model.background, FixedBackground):
        rates = np.asarray(NONLINEARITIES[model.nonlinearity].rate(jnp.asarray(first_current)))
        known = known + low_passed(model.background.product(rates), own_constant)

    flat_features, flat_known, flat_mask, flat_activity = (
        array.reshape(num_trials * num_bins, -1) for array in (features, known, mask, activity)
    )
    session = _session_to_start_from(np.any(mask, axis=1))
    if session.all():
        recurrent = first_current.reshape(flat_known.shape) - flat_known
        recurrent = recurrent - flat_features @ np.linalg.lstsq(flat_features, recurrent, rcond=None)[0]
        kappa, M = _principal_latents(recurrent, rank, priors_of["M"])
    else:
        kappa, M = _latents_of_session(problem, session), np.zeros((num_neurons, rank))
    loadings = np.concatenate([M, np.zeros((num_neurons, features.shape[2]))], axis=1)
    loading_sd = np.concatenate(
        [np.full(rank, priors_of["M"]), np.full(recording.num_inputs, priors_of["B"]), [priors_of["b"]]]
    )
    kappa_variance = np.maximum(np.var(kappa, axis=0), 1e-12)

    before = None if data.before is None else data.before.reshape(flat_activity.shape)
    nonlinearity, emission = model.nonlinearity, model.emission(prior_mean, recording.dt, before)
    for _ in range(NUM_SWEEPS):
        latents = np.concatenate([kappa, flat_features], axis=1)
        residual, slope, noise = _linearise(emission, flat_known + latents @ loadings.T, flat_activity, flat_mask)
        loadings = loadings + _loadings_step(latents, loadings, loading_sd, residual, slope, noise)
        residual, slope, noise = _linearise(emission, flat_known + latents @ loadings.T, flat_activity, flat_mask)
        kappa = kappa + _latents_step(kappa, loadings[:, :rank], kappa_variance, residual, slope, noise)

    latents = np.concatenate([kappa, flat_features], axis=1)
    current = flat_known + latents @ loadings.T
    residual, slope, noise = _linearise(emission, current, flat_activity, flat_mask)
    weights = slope**2 / noise
    M = loadings[:, :rank]
    precision = np.einsum("tn,nr,ns->trs", weights, M, M) + np.diag(1.0 / kappa_variance)
    uncertainty = np.trace(np.linalg.inv(precision), axis1=1, axis2=2) / rank + 1e-3 * kappa_variance.mean()

    rates = np.asarray(NONLINEARITIES[nonlinearity].rate(jnp.asarray(current))).reshape(activity.shape)
    found = _Latents(kappa.reshape(num_trials, num_bins, rank), rates, features, uncertainty, M)
    recurrence = _recurrence if model.process_noise is None else _noisy_recurrence
    K, from_features, found_parameters = recurrence(problem, found, a)
    loadings[:, rank:] += M @ from_features.T

    parameters = {name: np.asarray(value) for name, value in prior_mean.items()}
    parameters |= {
        "M": M,
        "B": loadings[:, rank:-1],
        "b": loadings[:, -1],
    }
    if "log_noise_scale" in space:
        parameters["log_noise_scale"] = 0.5 * np.log(noise)
    for name in space.regressions:
        del parameters[name]
    parameters |= found_parameters
    return best_start(problem, [parameters | {"K": shrinkage * K} for shrinkage in SHRINKAGES])


class _Latents(NamedTuple):
    """What the activity says before anything is known of the recurrence.

    Attributes:
        kappa: (trial, time, rank).
        rates: (trial, time, neuron).
        features: (trial, time, feature) filtered inputs, and a filtered 1.
        uncertainty: (sample,) variance of kappa.
        M: (neuron, rank).
    """

    kappa: np.ndarray
    rates: np.ndarray
    features: np.ndarray
    uncertainty: np.ndarray
    M: np.ndarray


Recurrence = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]


def _recurrence(problem: Problem, found: _Latents, a: float) -> Recurrence:
    """K (neuron, rank), what the features add to kappa (feature, rank), and initial latents where they are free.

    kappa is a sum of rates filtered since the start of the trial: by ridge regression on these.
    """
    model, space = problem.model, problem.space
    num_trials, num_bins, num_neurons = found.rates.shape
    kappa, features = (one.reshape(num_trials * num_bins, -1) for one in (found.kappa, found.features))
    regressors = [low_passed(found.rates, a).reshape(-1, num_neurons) / num_neurons, features]
    regressor_sd = [
        np.broadcast_to(space["K"].standard_deviation, (num_neurons, 1)).ravel(),
        np.full(features.shape[1], 10.0 * np.sqrt(np.maximum(np.var(kappa, axis=0), 1e-12).mean())),
    ]
    free = model.initial_state == "free"
    if free:
        decay = (1.0 - a) ** np.arange(num_bins)
        regressors.append(np.kron(np.eye(num_trials), decay[:, None]))
        regressor_sd.append(np.full(num_trials, float(space["initial_kappa"].standard_deviation)))
    coefficients = _ridge(np.concatenate(regressors, axis=1), kappa, found.uncertainty, np.concatenate(regressor_sd))
    ends = [num_neurons, num_neurons + features.shape[1]]
    K, from_features, initial_kappa = np.split(coefficients, ends, axis=0)
    return K, from_features, {"initial_kappa": initial_kappa} if free else {}


def _noisy_recurrence(problem: Problem, found: _Latents, a: float) -> Recurrence:
    """The same where noise drives kappa, and the covariance of that noise: by regression of its steps on the rates."""
    model, space, inputs = problem.model, problem.space, problem.recording.inputs
    num_neurons, kappa = found.rates.shape[2], found.kappa
    steps = ((kappa[:, 1:] - (1.0 - a) * kappa[:, :-1]) / a).reshape(-1, model.rank)
    drive = np.concatenate([inputs, np.ones((*inputs.shape[:2], 1))], axis=2)
    regressors = np.concatenate([found.rates / num_neurons, drive], axis=2)[:, :-1].reshape(len(steps), -1)
    regressor_sd = np.concatenate(
        [
            np.broadcast_to(space["K"].standard_deviation, (num_neurons, 1)).ravel(),
            np.full(drive.shape[2], 10.0 * np.sqrt(np.maximum(np.var(kappa), 1e-12))),
        ]
    )
    seen = found.uncertainty.reshape(kappa.shape[:2])
    measured = ((seen[:, 1:] + (1.0 - a) ** 2 * seen[:, :-1]) / a**2).ravel()
    driven, variance = 0.0, np.full(len(steps), np.var(steps, axis=0).mean())
    coefficients, residuals = np.zeros((len(regressor_sd), model.rank)), steps
    for _ in range(NUM_SWEEPS):
        coefficients = _ridge(regressors, steps, variance, regressor_sd)
        residuals = steps - regressors @ coefficients
        power = np.mean(residuals**2, axis=1)
        driven = max(float(np.mean(power - measured)), SMALLEST_DRIVE * float(np.mean(power)))
        variance = measured + driven
    # The part of the residuals' covariance that is not measured.
    covariance = a**2 * (residuals.T @ residuals / len(residuals)) * driven / np.mean(residuals**2)
    found_noise = pattern_coordinates(covariance, found.M, np.asarray(problem.data.noise_patterns))
    parameters = {name: value for name, value in found_noise.items() if name in space}
    from_features = coefficients[num_neurons:]
    if model.initial_state == "free":
        parameters["initial_kappa"] = kappa[:, 0] - found.features[:, 0] @ from_features
    return coefficients[:num_neurons], from_features, parameters


def best_start(problem: Problem, candidates: list[dict[str, np.ndarray]]) -> np.ndarray:
    """The start with the lowest objective; K is shrunk because a network with noisy K may diverge."""
    starts = [problem.best_noise(np.asarray(problem.space.whiten(candidate))) for candidate in candidates]
    objectives = [problem.negative_log_density(start) for start in starts]
    finite = [(objective, index) for index, objective in enumerate(objectives) if np.isfinite(objective)]
    if not finite:
        raise FitError(
            "initialisation: no finite start was found, even without recurrence; "
            "check the scale of the inputs and the stimulation, which alone make the network diverge"
        )
    return problem.prior_gauge(starts[min(finite)[1]])


def low_passed(drive: np.ndarray, a: float | np.ndarray) -> np.ndarray:
    """A drive (trial, time, ...) filtered with the integration constant a, from 0."""
    return np.asarray(jax.vmap(lambda one: low_pass(one, jnp.asarray(a), jnp.zeros_like(one[0])))(jnp.asarray(drive)))


def _session_to_start_from(seen: np.ndarray) -> np.ndarray:
    """(trial,) True for all trials, or, where some neurons never met in a trial, for those of the largest session.

    A session are the trials in which the same neurons were observed; the largest has the most of them in all its
    trials together.

    Args:
        seen: (trial, neuron) whether a neuron was observed in a trial.
    """
    known = seen[:, np.any(seen, axis=0)].astype(float)
    if np.all(known.T @ known > 0.0):
        return np.ones(len(seen), dtype=bool)
    _, session = np.unique(seen, axis=0, return_inverse=True)
    return session == np.argmax(np.bincount(session, weights=seen.sum(axis=1)))


def _latents_of_session(problem: Problem, session: np.ndarray) -> np.ndarray:
    """Latents (sample, rank) of all trials, as the mode of one session's trials (trial,) and neurons has them.

    Trials in which none of these neurons was observed have the latents that follow from their inputs: sessions without
    a neuron in common are aligned by what drives both.
    """
    model, noise = problem.model, problem.model.noise_of_process
    neurons = np.any(problem.recording.mask[session], axis=(0, 1))
    trials = problem.recording.select(neurons=neurons)
    names = [field.name for field in dataclasses.fields(Priors) if field.name != "K"]
    alone = dataclasses.replace(
        model,
        time_constant=float(np.mean(model.time_constants.medians)),
        background=None,
        priors=Priors(**{name: getattr(model.priors, name) for name in names}),
        process_noise=None if noise is None else dataclasses.replace(noise, patterns=None),
    )
    own = Problem.of(alone, trials.select(trials=session))
    mode = find_mode(own, initialise(own), tolerance=SESSION_TOLERANCE)
    parameters = dict(own.space.unwhiten(jnp.asarray(mode.z)))
    data, initial = own.model.data(trials), jnp.zeros((trials.num_trials, model.rank))
    if "initial_kappa" in parameters:
        initial = initial.at[session].set(parameters["initial_kappa"])
        parameters["initial_kappa"] = initial
    if noise is not None:
        kappa = smooth(filter_trials(own.model, parameters, data)).mean
    else:
        read = own.model.rates(parameters, data) @ parameters["K"] / trials.num_neurons
        a = own.model.integration_constants(parameters, data)[0]
        kappa = jax.vmap(lambda drive, start: low_pass(drive, a, start))(read, initial)
    return np.asarray(kappa).reshape(-1, model.rank)


def _principal_latents(recurrent: np.ndarray, rank: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Latents (sample, rank) and orthogonal left factors (neuron, rank) whose entries have size `scale`."""
    U, values, V = np.linalg.svd(recurrent, full_matrices=False)
    support = int(np.sum(values > 1e-10 * values[0])) if values[0] > 0.0 else 0
    if rank > support:
        raise FitError(
            f"rank: expected at most {support}, the number of dimensions that the activity spans beyond its inputs, "
            f"got {rank}; lower the rank or fit more bins and neurons"
        )
    size = scale * np.sqrt(recurrent.shape[1])
    return U[:, :rank] * values[:rank] / size, V[:rank].T * size


def _linearise(
    emission: Emission, current: np.ndarray, activity: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residual and slope (sample, neuron), 0 where masked, and the noise variance (neuron,).

    Those of counts are divided by the standard deviation that is expected, and the variance is 1.
    """
    at = jnp.asarray(current)
    residual = np.where(mask, activity - np.asarray(emission.mean(at)), 0.0)
    slope = np.where(mask, np.asarray(emission.sensitivity(at)), 0.0)
    if not isinstance(emission, NormalEmission):
        sd = np.sqrt(np.asarray(emission.variance(at)))
        return residual / sd, slope / sd, np.ones(current.shape[1])
    noise = np.sum(residual**2, axis=0) / np.maximum(mask.sum(axis=0), 1)
    return residual, slope, np.maximum(noise, 1e-6 * max(float(np.mean(activity[mask] ** 2)), 1e-300))


def _loadings_step(
    latents: np.ndarray,
    loadings: np.ndarray,
    sd: np.ndarray,
    residual: np.ndarray,
    slope: np.ndarray,
    noise: np.ndarray,
) -> np.ndarray:
    information = np.einsum("tn,tc,td->ncd", slope**2, latents, latents, optimize=True) / noise[:, None, None]
    gradient = (slope * residual).T @ latents / noise[:, None] - loadings / sd**2
    return np.linalg.solve(information + np.diag(sd**-2.0), gradient[..., None])[..., 0]


def _latents_step(
    kappa: np.ndarray, M: np.ndarray, variance: np.ndarray, residual: np.ndarray, slope: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    information = np.einsum("tn,nr,ns->trs", slope**2 / noise, M, M, optimize=True)
    gradient = (slope * residual / noise) @ M - kappa / variance
    return np.linalg.solve(information + np.diag(1.0 / variance), gradient[..., None])[..., 0]


def _ridge(regressors: np.ndarray, target: np.ndarray, variance: np.ndarray, prior_sd: np.ndarray) -> np.ndarray:
    """Posterior mean of coefficients ~ Normal(0, prior_sd²) with noise `variance` (sample,), common to all targets."""
    weighted = regressors / variance[:, None]
    return np.linalg.solve(weighted.T @ regressors + np.diag(prior_sd**-2.0), weighted.T @ target)
