"""The information matrix from the sensitivity of the latents: exact, without automatic differentiation.

Where all connectivity has the form L R^T / N, with L = (M, A, left) and R = (K, N Q, N right), the currents are
x_n = psi_n . c with loadings psi_n = (M_n, A_n, left_n, B_n, b_n) and latents c = (kappa, filtered inputs, filtered 1),
plus the filtered stimulation. Where populations of neurons have time constants of their own, so do their latents: each
population has one copy of c, filtered with its a = dt / tau, and L has a block of columns for each, 0 for the neurons
of the others (`LowRankModel.latent_factors`). The only parameters that act through time do so through the latents
kappa, one for each column of L, whose sensitivity J obeys

    J[t+1] = T[t] J[t] + D[t],      T[t] = diag(1 - a) + diag(a) R^T diag(phi') L / N,

with D[t] the direct effects: a R_n phi'_n c / N for psi_n, a phi_n / N on their own latents for K_n. With the
observation weights w, S[t] = L^T diag(w) L and H[t] = L^T diag(w) (direct effect on x),

    F = sum_t J^T S J + J^T H + H^T J + (direct effect)^T diag(w) (direct effect).

Of a dense W (`lrposterior.signed_background`) L has a column, and a latent, for each neuron, and all of R has columns
in J. R is then a function of M, K and W0, and F about it is pulled back to these.

Known loadings (left) have no columns in J, nor have the parameters of what is seen of a neuron's current: they move
what is expected in the bin alone, and dispersions, which move its variance alone, have information of their own.

With process noise (`lrposterior.state_space`) the data tell the latents as well, and what they take from them they do
not say about the parameters. J is then the sensitivity of the latents minus that of the filter's prediction of them.
With its covariance P in the bin, given its own observations (`state_space.expected_filter`), and e = S J + H what the
bin says about the difference,

    J[t+1] = T[t] (J[t] - P[t] e[t]) + D[t],      F = sum_t (as above) - e^T P e,

T and D with the averages of the filter: the Gauss-Newton matrix of its prediction errors (Ljung 1999, chapter 10). Sums
over bins are taken by a second recursion, backwards in time (`lrposterior.curvature.recursion`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np
from jax import Array

from lrposterior.curvature.process_noise import NoiseSums, noise_sums, with_process_noise
from lrposterior.curvature.pull_back import pulled_back
from lrposterior.curvature.recursion import Series, through_latents
from lrposterior.data import Data
from lrposterior.model import LowRankModel
from lrposterior.network import NONLINEARITIES, low_pass
from lrposterior.observations import OWN
from lrposterior.parameters import Parameters, ParameterSpace
from lrposterior.signed_background import beyond_low_rank
from lrposterior.state_space import expected_filter


class _Trial(NamedTuple):
    """The arrays of one trial.

    Attributes:
        current: (time, neuron) the state of the network at the parameters; with process noise, that of the filter.
        mask, inputs, stimulation: of the recording.
        before: (time, neuron) as in `Data`, or None.
        session: () as in `Data`, or None.
        initial_kappa: (rank,).
        rates, slopes: (time, neuron) phi and phi', with process noise their averages in the filter.
        filtered: (time, latent) and (time, latent, latent), mean and covariance of the latents, or None without
            process noise.
    """

    current: Array
    mask: Array
    inputs: Array
    stimulation: Array
    before: Array | None
    session: Array | None
    initial_kappa: Array
    rates: Array
    slopes: Array
    filtered: tuple[Array, Array] | None


class TrialSums(NamedTuple):
    """What the information is made of: sums over trials, but for the initial latents of these.

    Attributes:
        direct: (direct, direct) F about the parameters on which the currents depend themselves, Q of the process noise
            and its gauge held; of a dense W behind them about N W^T - K M^T, as if these were more of them.
        of_noise: what there is besides with process noise, or None.
    """

    direct: Array
    of_noise: NoiseSums | None


def structured_information(model: LowRankModel, space: ParameterSpace, z: Array, data: Data) -> Array:
    """F (coordinate, coordinate) for a model without a known background."""
    return information_of_sums(space, z, data.noise_patterns, trial_sums(model, space, z, data))


def information_of_sums(space: ParameterSpace, z: Array, noise_patterns: Array | None, sums: TrialSums) -> Array:
    """F (coordinate, coordinate) from what is summed over trials, with the patterns of `Data`."""
    information = sums.direct
    if sums.of_noise is not None:
        information = with_process_noise(space, space.unwhiten(z), noise_patterns, sums.of_noise, information)
    return _whitened(space, z, information)


def trial_sums(model: LowRankModel, space: ParameterSpace, z: Array, data: Data) -> TrialSums:
    """The sums over the trials of some data."""
    parameters = space.unwhiten(z)
    num_trials, _, num_neurons = data.activity.shape
    filtered = None if model.process_noise is None else expected_filter(model, parameters, data)
    if filtered is None:
        current, phi = model.currents(parameters, data), NONLINEARITIES[model.nonlinearity]
        rates, slopes = phi.rate(current), phi.slope(current)
    else:
        current, rates, slopes = filtered.current, filtered.rates, filtered.slopes
    free = model.initial_state == "free"
    trials = _Trial(
        current=current,
        mask=data.mask,
        inputs=data.inputs,
        stimulation=jnp.zeros_like(current) if data.stimulation is None else data.stimulation,
        before=data.before,
        session=data.session,
        initial_kappa=parameters["initial_kappa"] if free else jnp.zeros((num_trials, model.rank), z.dtype),
        rates=rates,
        slopes=slopes,
        filtered=None if filtered is None else (filtered.mean, filtered.covariance),
    )
    layout = _Layout(space, num_neurons, num_trials, model.rank)
    num_shared = layout.shared.size

    def accumulate(total: Array, trial: _Trial) -> tuple[Array, tuple[Array, Array]]:
        own = _trial_information(model, parameters, data, trial)
        shared = total + own[:num_shared, :num_shared]
        return shared, (own[:num_shared, num_shared:], own[num_shared:, num_shared:])

    start = jnp.zeros((num_shared, num_shared), z.dtype)
    shared, (mixed, initial) = jax.lax.scan(accumulate, start, trials)
    mixed, initial = mixed[:, :, : model.rank], initial[:, : model.rank, : model.rank]

    information = jnp.zeros((layout.size, layout.size), z.dtype)
    information = information.at[np.ix_(layout.shared, layout.shared)].add(shared)
    if free:
        columns = layout.initial_kappa
        information = information.at[layout.shared[:, None, None], columns[None]].add(jnp.moveaxis(mixed, 0, 1))
        information = information.at[columns[:, :, None], layout.shared[None, None]].add(jnp.moveaxis(mixed, 1, 2))
        information = information.at[columns[:, :, None], columns[:, None, :]].set(initial)
    of_noise = None if filtered is None else noise_sums(model, parameters, data, filtered)
    return TrialSums(information, of_noise)


def _whitened(space: ParameterSpace, z: Array, information: Array) -> Array:
    """The information about the dynamics coordinates of z from that about the parameters (M, K, ...) themselves.

    It changes by the derivative of the parameters with respect to z, on both sides.
    """

    def direct(dynamics: Array) -> Array:
        parameters = space.unwhiten(jnp.concatenate([dynamics, z[space.num_dynamics :]]))
        flat = jnp.concatenate([jnp.ravel(parameters[block.name]) for block in space.blocks])[: space.num_direct]
        if not space.is_dense:
            return flat
        beyond = beyond_low_rank(parameters, space.self_connections)
        return jnp.concatenate([flat, jnp.ravel(len(beyond) * beyond.T)])

    return pulled_back(information, direct, z[: space.num_dynamics])


class _Layout:
    """Where the columns of the recursion lie in z.

    They are (psi and the parameters of what is seen, by neuron; K; time constants | initial latents). What all neurons
    share has a column for each, at one place in z, where the information about it is their sum. The columns of K that
    belong to a dense W stand behind z.
    """

    def __init__(self, space: ParameterSpace, num_neurons: int, num_trials: int, rank: int) -> None:
        index = {
            block.name: np.arange(space.size)[space.slices[block.name]].reshape(block.shape) for block in space.blocks
        }
        num_beyond = num_neurons if space.is_dense else 0
        beyond = space.num_direct + np.arange(num_neurons * num_beyond).reshape(num_neurons, num_beyond)
        right = np.concatenate([index["K"], beyond], axis=1)
        self.size = space.num_direct + beyond.size
        names = [name for name in ("M", "A", "B", "b", *OWN) if name in index]
        by_neuron = [
            index[name].reshape(num_neurons, -1) if index[name].ndim else np.full((num_neurons, 1), index[name])
            for name in names
        ]
        time_constant = index.get("log_time_constant_excess", np.empty(0, int)).reshape(-1)
        self.shared = np.concatenate([np.concatenate(by_neuron, axis=1).ravel(), right.ravel(), time_constant])
        self.initial_kappa = index.get("initial_kappa", np.empty((num_trials, rank), int))


def _trial_information(model: LowRankModel, parameters: Parameters, data: Data, trial: _Trial) -> Array:
    left, right = model.latent_factors(parameters, data)
    (num_neurons, num_latents), num_bins, dtype = left.shape, trial.current.shape[0], left.dtype
    population_of_latent = model.population_of_latents(num_latents, data.population)
    constants, constant_slopes = _integration_constants(model, parameters, data)
    of_neuron, of_latent = constants[data.population], constants[population_of_latent]
    rates, slopes = trial.rates, trial.slopes
    emission = model.emission(parameters, data.dt, trial.before, trial.session)
    weights = emission.weights(trial.mask, trial.current)
    precision = jnp.where(trial.mask, 1.0 / emission.variance(trial.current), 0.0)

    # Columns of right that belong to K, by latent.
    num_beyond = model.num_own_latents(num_neurons)
    num_shared = num_latents - num_beyond
    of_K = jnp.tile(jnp.eye(num_shared // len(constants), model.rank, dtype=dtype), (len(constants), 1))
    own_latent = jax.scipy.linalg.block_diag(of_K, jnp.eye(num_beyond, dtype=dtype))
    read = rates @ right / num_neurons
    initial_kappa = own_latent[:, : model.rank] @ trial.initial_kappa
    kappa = low_pass(read, of_latent, initial_kappa) if trial.filtered is None else trial.filtered[0]
    drive = jnp.concatenate([trial.inputs, jnp.ones((num_bins, 1), dtype)], axis=1)
    steady = jnp.zeros((1, drive.shape[1]), dtype).at[:, -1].set(1.0 if model.initial_state == "free" else 0.0)
    drives = jnp.broadcast_to(drive[:, None, :], (num_bins, len(constants), drive.shape[1]))
    features = low_pass(drives, constants[:, None], jnp.broadcast_to(steady, drives.shape[1:]))
    num_unknown = model.rank + (parameters["A"].shape[1] if "A" in parameters else 0)
    unknown = kappa[:, :num_shared].reshape(num_bins, len(constants), -1)[:, :, :num_unknown]
    latents = jnp.concatenate([unknown, features], axis=2)[:, data.population]

    # Time constants act on the filters of a neuron (current_slope) and on those of kappa.
    own_loadings = jnp.concatenate([parameters["B"], parameters["b"][:, None]], axis=1)
    filtered_stimulation = low_pass(trial.stimulation, of_neuron, jnp.zeros_like(trial.stimulation[0]))
    excess = jnp.einsum("tnc,nc->tn", (drives - features)[:, data.population], own_loadings)
    excess = (excess + trial.stimulation - filtered_stimulation) / of_neuron[None]
    current_slope = (
        low_pass(excess, of_neuron, jnp.zeros_like(excess[0]))[:, :, None] * constant_slopes[data.population][None]
    )
    explicit = (read - kappa)[:, :, None] * constant_slopes[population_of_latent][None]

    # Direct effects of the parameters of a neuron, its loadings and those of what is seen: on the mean, on the rates.
    own_slopes = emission.slopes(trial.current)
    sensitivity = emission.sensitivity(trial.current)[:, :, None]
    of_mean = jnp.concatenate([sensitivity * latents, own_slopes], axis=2)
    driven = jnp.concatenate([slopes[:, :, None] * latents, jnp.zeros_like(own_slopes)], axis=2)
    observed = (precision[:, :, None] * sensitivity) * of_mean
    covariance = None if trial.filtered is None else trial.filtered[1]
    series = Series(rates, slopes, weights, driven, observed, current_slope, explicit, covariance)
    information = through_latents(left, right, of_latent, own_latent, series)

    num_own = of_mean.shape[2]
    index = np.arange(num_neurons * num_own).reshape(num_neurons, num_own)
    alone = jnp.einsum("tn,tnp,tnq->npq", precision, of_mean, of_mean)
    information = information.at[index[:, :, None], index[:, None, :]].add(alone)
    columns = num_neurons * (num_own + own_latent.shape[1]) + np.arange(constant_slopes.shape[1])
    cross = jnp.einsum("tnp,tnq->npq", observed, current_slope).reshape(index.size, -1)
    information = information.at[np.ix_(index.ravel(), columns)].add(cross)
    information = information.at[np.ix_(columns, index.ravel())].add(cross.T)
    between = jnp.einsum("tn,tnq,tnp->qp", weights, current_slope, current_slope)
    information = information.at[np.ix_(columns, columns)].add(between)
    of_seen = index[:, latents.shape[2] :]
    return information.at[of_seen, of_seen].add(jnp.sum(emission.own_information(trial.mask, trial.current), axis=0))


def _integration_constants(model: LowRankModel, parameters: Parameters, data: Data) -> tuple[Array, Array]:
    """a (population,) and its derivatives (population, inferred) by `log_time_constant_excess`."""

    def constants(log_excess: Array) -> Array:
        return data.dt / model.time_constants_of(parameters | {"log_time_constant_excess": log_excess}, data.dt)

    log_excess = jnp.ravel(parameters.get("log_time_constant_excess", jnp.zeros(0, parameters["M"].dtype)))
    return constants(log_excess), jax.jacfwd(constants)(log_excess)
