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

Known loadings (left) have no columns in J, nor have the parameters of what is seen of a neuron's current: they move
what is expected in the bin alone, and dispersions, which move its variance alone, have information of their own.

With process noise (`lrposterior.state_space`) the data tell the latents as well, and what they take from them they do
not say about the parameters. J is then the sensitivity of the latents minus that of the filter's prediction of them.
With its covariance P in the bin, given its own observations, and e = S J + H what the bin says about the difference,

    J[t+1] = T[t] (J[t] - P[t] e[t]) + D[t],      F = sum_t (as above) - e^T P e,

T and D at the mean of the filter: the Gauss-Newton matrix of its prediction errors (Ljung 1999, chapter 10).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.curvature.process_noise import with_process_noise
from lrposterior.model import Data, LowRankModel
from lrposterior.network import NONLINEARITIES, low_pass
from lrposterior.observations import OWN
from lrposterior.parameters import Parameters, ParameterSpace
from lrposterior.state_space import filter_trials

# Bins whose direct effects are held at once.
BINS_AT_ONCE = 256


class _Trial(NamedTuple):
    """The arrays of one trial.

    Attributes:
        current: (time, neuron) the state of the network at the parameters; with process noise, that of the filter.
        mask, inputs, stimulation: of the recording.
        before: (time, neuron) as in `Data`, or None.
        session: () as in `Data`, or None.
        initial_kappa: (rank,).
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
    filtered: tuple[Array, Array] | None


class _Series(NamedTuple):
    """What the recursion needs in every bin, the first axis being time. `filtered` as in `_Trial`, the covariance.

    own_weights (time, neuron, parameter) are those of a neuron's current together with the parameters of what is seen
    of it, d mean / d current * d mean / d parameter / variance.
    """

    rates: Array
    slopes: Array
    weights: Array
    own_weights: Array
    latents: Array
    current_slope: Array
    explicit: Array
    filtered: Array | None


def structured_information(model: LowRankModel, space: ParameterSpace, z: Array, data: Data) -> Array:
    """F (coordinate, coordinate) for a model without a known background."""
    parameters = space.unwhiten(z)
    num_trials, _, num_neurons = data.activity.shape
    filtered = None if model.process_noise is None else filter_trials(model, parameters, data)
    current = model.currents(parameters, data) if filtered is None else filtered.current
    free = model.initial_state == "free"
    trials = _Trial(
        current=current,
        mask=data.mask,
        inputs=data.inputs,
        stimulation=jnp.zeros_like(current) if data.stimulation is None else data.stimulation,
        before=data.before,
        session=data.session,
        initial_kappa=parameters["initial_kappa"] if free else jnp.zeros((num_trials, model.rank), z.dtype),
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

    information = jnp.zeros((space.num_direct, space.num_direct), z.dtype)
    information = information.at[np.ix_(layout.shared, layout.shared)].set(shared)
    if free:
        columns = layout.initial_kappa
        information = information.at[layout.shared[:, None, None], columns[None]].set(jnp.moveaxis(mixed, 0, 1))
        information = information.at[columns[:, :, None], layout.shared[None, None]].set(jnp.moveaxis(mixed, 1, 2))
        information = information.at[columns[:, :, None], columns[:, None, :]].set(initial)
    if filtered is not None:
        information = with_process_noise(model, space, parameters, data, filtered, information)
    return _whitened(space, z, information)


def _whitened(space: ParameterSpace, z: Array, information: Array) -> Array:
    """The information about the dynamics coordinates of z from that about the parameters (M, K, ...) themselves.

    It changes by the derivative of the parameters with respect to z, on both sides.
    """

    def direct(dynamics: Array) -> Array:
        parameters = space.unwhiten(jnp.concatenate([dynamics, z[space.num_dynamics :]]))
        flat = [jnp.ravel(parameters[block.name]) for block in space.blocks]
        return jnp.concatenate(flat)[: space.num_direct]

    _, pull_back = jax.vjp(direct, z[: space.num_dynamics])
    pull_rows = jax.vmap(lambda row: pull_back(row)[0])
    return pull_rows(pull_rows(information).T)


class _Layout:
    """Where the columns of the recursion, (psi, K, time constant, own of what is seen | initial latents), lie in z."""

    def __init__(self, space: ParameterSpace, num_neurons: int, num_trials: int, rank: int) -> None:
        index = {
            block.name: np.arange(space.size)[space.slices[block.name]].reshape(block.shape) for block in space.blocks
        }
        bulk = [index["A"]] if "A" in space else []
        loadings = np.concatenate([index["M"], *bulk, index["B"], index["b"][:, None]], axis=1)
        time_constant = index.get("log_time_constant_excess", np.empty(0, int)).reshape(-1)
        own = [index[name].reshape(num_neurons, -1) for name in OWN if name in index]
        of_seen = np.concatenate(own, axis=1).ravel() if own else np.empty(0, int)
        self.shared = np.concatenate([loadings.ravel(), index["K"].ravel(), time_constant, of_seen])
        self.initial_kappa = index.get("initial_kappa", np.empty((num_trials, rank), int))


def _trial_information(model: LowRankModel, parameters: Parameters, data: Data, trial: _Trial) -> Array:
    left, right = model.latent_factors(parameters, data)
    (num_neurons, num_latents), num_bins, dtype = left.shape, trial.current.shape[0], left.dtype
    population_of_latent = model.population_of_latents(num_latents)
    constants, constant_slopes = _integration_constants(model, parameters, data)
    of_neuron, of_latent = constants[data.population], constants[population_of_latent]
    phi = NONLINEARITIES[model.nonlinearity]
    rates, slopes = phi.rate(trial.current), phi.slope(trial.current)
    emission = model.emission(parameters, data.dt, trial.before, trial.session)
    weights = emission.weights(trial.mask, trial.current)
    own_slopes = emission.slopes(trial.current)
    precision = jnp.where(trial.mask, 1.0 / emission.variance(trial.current), 0.0)
    own_weights = (precision * emission.sensitivity(trial.current))[:, :, None] * own_slopes

    # Columns of right that belong to K, by latent.
    own_latent = jnp.tile(jnp.eye(num_latents // len(constants), model.rank, dtype=dtype), (len(constants), 1))
    read = rates @ right / num_neurons
    initial_kappa = own_latent @ trial.initial_kappa
    kappa = low_pass(read, of_latent, initial_kappa) if trial.filtered is None else trial.filtered[0]
    drive = jnp.concatenate([trial.inputs, jnp.ones((num_bins, 1), dtype)], axis=1)
    steady = jnp.zeros((1, drive.shape[1]), dtype).at[:, -1].set(1.0 if model.initial_state == "free" else 0.0)
    drives = jnp.broadcast_to(drive[:, None, :], (num_bins, len(constants), drive.shape[1]))
    features = low_pass(drives, constants[:, None], jnp.broadcast_to(steady, drives.shape[1:]))
    num_unknown = model.rank + (parameters["A"].shape[1] if "A" in parameters else 0)
    unknown = kappa.reshape(num_bins, len(constants), -1)[:, :, :num_unknown]
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
    covariance = None if trial.filtered is None else trial.filtered[1]
    series = _Series(rates, slopes, weights, own_weights, latents, current_slope, explicit, covariance)
    num_own, num_constants = own_slopes.shape[2], constant_slopes.shape[1]
    num_columns = num_neurons * (latents.shape[2] + model.rank + num_own) + num_constants + model.rank
    start = jnp.zeros((num_latents, num_columns), dtype).at[:, num_columns - model.rank :].set(own_latent)
    information = _through_latents(left, right, of_latent, own_latent, series, start)

    num_loadings = latents.shape[2]
    index = np.arange(num_neurons * num_loadings).reshape(num_neurons, num_loadings)
    local = jnp.einsum("tn,tnc,tnd->ncd", weights, latents, latents)
    information = information.at[index[:, :, None], index[:, None, :]].add(local)
    columns = num_neurons * (num_loadings + model.rank) + np.arange(constant_slopes.shape[1])
    cross = jnp.einsum("tn,tnq,tnc->ncq", weights, current_slope, latents).reshape(index.size, -1)
    information = information.at[np.ix_(index.ravel(), columns)].add(cross)
    information = information.at[np.ix_(columns, index.ravel())].add(cross.T)
    between = jnp.einsum("tn,tnq,tnp->qp", weights, current_slope, current_slope)
    information = information.at[np.ix_(columns, columns)].add(between)
    if not num_own:
        return information
    own = columns.size + num_neurons * (num_loadings + model.rank) + np.arange(num_neurons * num_own)
    own = own.reshape(num_neurons, num_own)
    cross = jnp.einsum("tnp,tnc->ncp", own_weights, latents)
    information = information.at[index[:, :, None], own[:, None, :]].add(cross)
    information = information.at[own[:, :, None], index[:, None, :]].add(jnp.moveaxis(cross, 1, 2))
    cross = jnp.einsum("tnp,tnq->npq", own_weights, current_slope)
    information = information.at[own[:, :, None], columns[None, None, :]].add(cross)
    information = information.at[columns[None, :, None], own[:, None, :]].add(jnp.moveaxis(cross, 1, 2))
    alone = jnp.einsum("tn,tnp,tnq->npq", precision, own_slopes, own_slopes)
    information = information.at[own[:, :, None], own[:, None, :]].add(alone)
    return information.at[own, own].add(jnp.sum(emission.own_information(trial.mask, trial.current), axis=0))


def _through_latents(
    left: Array, right: Array, of_latent: Array, own_latent: Array, series: _Series, start: Array
) -> Array:
    """(column, column) all of F but (direct effect)^T diag(w) (direct effect).

    Args:
        left, right: (neuron, latent).
        of_latent: (latent,) a.
        own_latent: (latent, rank) which latents belong to which column of K.
        series: of the trial.
        start: (latent, column) sensitivity in the first bin.
    """
    num_neurons, num_latents = left.shape

    def several(carry: tuple[Array, Array], now: _Series) -> tuple[tuple[Array, Array], None]:
        sensitivity, total = carry
        num_bins = now.rates.shape[0]
        gain = jnp.einsum("nr,tn->trn", right, now.slopes) * (of_latent[None, :, None] / num_neurons)
        transition = jnp.diag(1.0 - of_latent)[None] + jnp.einsum("trn,ns->trs", gain, left)
        weighted = jnp.einsum("nr,tn->trn", left, now.weights)
        write = jnp.einsum("trn,ns->trs", weighted, left)

        def for_loadings(per_neuron: Array) -> Array:
            return jnp.einsum("trn,tnc->trnc", per_neuron, now.latents).reshape(num_bins, num_latents, -1)

        of_right = jnp.einsum("tn,lr->tlnr", now.rates, own_latent * (of_latent[:, None] / num_neurons))
        of_right = of_right.reshape(num_bins, num_latents, -1)
        of_time_constants = jnp.einsum("trn,tnq->trq", gain, now.current_slope) + now.explicit
        nothing = jnp.zeros((num_bins, num_latents, own_latent.shape[1]), left.dtype)
        own = jnp.einsum("nr,tnp->trnp", left, now.own_weights).reshape(num_bins, num_latents, -1)
        driven = jnp.concatenate(
            [for_loadings(gain), of_right, of_time_constants, jnp.zeros_like(own), nothing], axis=2
        )
        seen_slope = jnp.einsum("trn,tnq->trq", weighted, now.current_slope)
        observed = jnp.concatenate([for_loadings(weighted), jnp.zeros_like(of_right), seen_slope, own, nothing], axis=2)

        def step(sensitivity: Array, one: tuple) -> tuple[Array, tuple[Array, tuple[Array, Array] | None]]:
            transition, driven, write, observed, covariance = one
            if covariance is None:
                return transition @ sensitivity + driven, (sensitivity, None)
            innovation = write @ sensitivity + observed
            learned = covariance @ innovation
            return transition @ (sensitivity - learned) + driven, (sensitivity, (innovation, learned))

        bins = (transition, driven, write, observed, now.filtered)
        sensitivity, (before, taken_off) = jax.lax.scan(step, sensitivity, bins)
        half = 0.5 * jnp.einsum("trs,tsp->trp", write, before) + observed
        part = before.reshape(-1, before.shape[2]).T @ half.reshape(-1, before.shape[2])
        total = total + part + part.T
        if taken_off is not None:
            innovation, learned = (one.reshape(-1, before.shape[2]) for one in taken_off)
            total = total - innovation.T @ learned
        return (sensitivity, total), None

    num_bins = series.rates.shape[0]
    carry = start, jnp.zeros((start.shape[1], start.shape[1]), left.dtype)
    num_whole = num_bins // BINS_AT_ONCE
    stop = num_whole * BINS_AT_ONCE
    if num_whole:
        chunks = jax.tree.map(lambda one: one[:stop].reshape(num_whole, BINS_AT_ONCE, *one.shape[1:]), series)
        carry, _ = jax.lax.scan(several, carry, chunks)
    if stop < num_bins:
        carry, _ = several(carry, jax.tree.map(lambda one: one[stop:], series))
    return carry[1]


def _integration_constants(model: LowRankModel, parameters: Parameters, data: Data) -> tuple[Array, Array]:
    """a (population,) and its derivatives (population, inferred) by `log_time_constant_excess`."""

    def constants(log_excess: Array) -> Array:
        return data.dt / model.time_constants_of(parameters | {"log_time_constant_excess": log_excess}, data.dt)

    log_excess = jnp.ravel(parameters.get("log_time_constant_excess", jnp.zeros(0, parameters["M"].dtype)))
    return constants(log_excess), jax.jacfwd(constants)(log_excess)
