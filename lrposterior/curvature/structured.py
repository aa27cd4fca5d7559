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

Known loadings (left) have no columns in J.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.model import Data, LowRankModel
from lrposterior.network import NONLINEARITIES, low_pass
from lrposterior.parameters import Parameters, ParameterSpace


class _Trial(NamedTuple):
    """The arrays of one trial; `current` is the state of the network at the parameters."""

    current: Array
    mask: Array
    inputs: Array
    stimulation: Array
    initial_kappa: Array


def structured_information(model: LowRankModel, space: ParameterSpace, z: Array, data: Data) -> Array:
    """F (coordinate, coordinate) for a model without a known background."""
    parameters = space.unwhiten(z)
    num_trials, _, num_neurons = data.activity.shape
    current = model.currents(parameters, data)
    free = model.initial_state == "free"
    trials = _Trial(
        current=current,
        mask=data.mask,
        inputs=data.inputs,
        stimulation=jnp.zeros_like(current) if data.stimulation is None else data.stimulation,
        initial_kappa=parameters["initial_kappa"] if free else jnp.zeros((num_trials, model.rank), z.dtype),
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
    """Where the columns of the recursion, (psi, K, time constant | initial latents), lie in z."""

    def __init__(self, space: ParameterSpace, num_neurons: int, num_trials: int, rank: int) -> None:
        index = {
            block.name: np.arange(space.size)[space.slices[block.name]].reshape(block.shape) for block in space.blocks
        }
        bulk = [index["A"]] if "A" in space else []
        loadings = np.concatenate([index["M"], *bulk, index["B"], index["b"][:, None]], axis=1)
        time_constant = index.get("log_time_constant_excess", np.empty(0, int)).reshape(-1)
        self.shared = np.concatenate([loadings.ravel(), index["K"].ravel(), time_constant])
        self.initial_kappa = index.get("initial_kappa", np.empty((num_trials, rank), int))


def _trial_information(model: LowRankModel, parameters: Parameters, data: Data, trial: _Trial) -> Array:
    left, right = model.latent_factors(parameters, data)
    (num_neurons, num_latents), num_bins, dtype = left.shape, trial.current.shape[0], left.dtype
    population_of_latent = model.population_of_latents(num_latents)
    constants, constant_slopes = _integration_constants(model, parameters, data)
    of_neuron, of_latent = constants[data.population], constants[population_of_latent]
    phi = NONLINEARITIES[model.nonlinearity]
    rates, slopes = phi.rate(trial.current), phi.slope(trial.current)
    weights = model.observation.fisher_weights(
        trial.mask, trial.current, parameters["log_noise_scale"][None, :], model.nonlinearity
    )

    # Columns of right that belong to K, by latent.
    own_latent = jnp.tile(jnp.eye(num_latents // len(constants), model.rank, dtype=dtype), (len(constants), 1))
    read = rates @ right / num_neurons
    kappa = low_pass(read, of_latent, own_latent @ trial.initial_kappa)
    drive = jnp.concatenate([trial.inputs, jnp.ones((num_bins, 1), dtype)], axis=1)
    steady = jnp.zeros((1, drive.shape[1]), dtype).at[:, -1].set(1.0 if model.initial_state == "free" else 0.0)
    drives = jnp.broadcast_to(drive[:, None, :], (num_bins, len(constants), drive.shape[1]))
    features = low_pass(drives, constants[:, None], jnp.broadcast_to(steady, drives.shape[1:]))
    num_unknown = model.rank + (parameters["A"].shape[1] if "A" in parameters else 0)
    unknown = kappa.reshape(num_bins, len(constants), -1)[:, :, :num_unknown]
    latents = jnp.concatenate([unknown, features], axis=2)[:, data.population]

    gain = jnp.einsum("nr,tn->trn", right, slopes) * (of_latent[None, :, None] / num_neurons)
    transition = jnp.diag(1.0 - of_latent)[None] + jnp.einsum("trn,ns->trs", gain, left)
    weighted = jnp.einsum("nr,tn->trn", left, weights)
    write = jnp.einsum("trn,ns->trs", weighted, left)

    def for_loadings(per_neuron: Array) -> Array:
        return jnp.einsum("trn,tnc->trnc", per_neuron, latents).reshape(num_bins, num_latents, -1)

    of_right = jnp.einsum("tn,lr->tlnr", rates, own_latent * (of_latent[:, None] / num_neurons))
    of_right = of_right.reshape(num_bins, num_latents, -1)

    # Time constants act on the filters of a neuron (current_slope) and on those of kappa.
    own_loadings = jnp.concatenate([parameters["B"], parameters["b"][:, None]], axis=1)
    filtered_stimulation = low_pass(trial.stimulation, of_neuron, jnp.zeros_like(trial.stimulation[0]))
    excess = jnp.einsum("tnc,nc->tn", (drives - features)[:, data.population], own_loadings)
    excess = (excess + trial.stimulation - filtered_stimulation) / of_neuron[None]
    current_slope = (
        low_pass(excess, of_neuron, jnp.zeros_like(excess[0]))[:, :, None] * constant_slopes[data.population][None]
    )
    explicit = (read - kappa)[:, :, None] * constant_slopes[population_of_latent][None]
    of_time_constants = jnp.einsum("trn,tnq->trq", gain, current_slope) + explicit

    nothing = jnp.zeros((num_bins, num_latents, model.rank), dtype)
    driven = jnp.concatenate([for_loadings(gain), of_right, of_time_constants, nothing], axis=2)
    seen_slope = jnp.einsum("trn,tnq->trq", weighted, current_slope)
    observed = jnp.concatenate([for_loadings(weighted), jnp.zeros_like(of_right), seen_slope, nothing], axis=2)
    num_columns = driven.shape[2]
    start = jnp.zeros((num_latents, num_columns), dtype).at[:, num_columns - model.rank :].set(own_latent)

    def step(sensitivity: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        return now[0] @ sensitivity + now[1], sensitivity

    _, sensitivity = jax.lax.scan(step, start, (transition, driven))

    half = 0.5 * jnp.einsum("trs,tsp->trp", write, sensitivity) + observed
    half_information = sensitivity.reshape(-1, num_columns).T @ half.reshape(-1, num_columns)
    information = half_information + half_information.T

    num_loadings = latents.shape[2]
    index = np.arange(num_neurons * num_loadings).reshape(num_neurons, num_loadings)
    local = jnp.einsum("tn,tnc,tnd->ncd", weights, latents, latents)
    information = information.at[index[:, :, None], index[:, None, :]].add(local)
    columns = num_neurons * (num_loadings + model.rank) + np.arange(constant_slopes.shape[1])
    cross = jnp.einsum("tn,tnq,tnc->ncq", weights, current_slope, latents).reshape(index.size, -1)
    information = information.at[np.ix_(index.ravel(), columns)].add(cross)
    information = information.at[np.ix_(columns, index.ravel())].add(cross.T)
    between = jnp.einsum("tn,tnq,tnp->qp", weights, current_slope, current_slope)
    return information.at[np.ix_(columns, columns)].add(between)


def _integration_constants(model: LowRankModel, parameters: Parameters, data: Data) -> tuple[Array, Array]:
    """a (population,) and its derivatives (population, inferred) by `log_time_constant_excess`."""

    def constants(log_excess: Array) -> Array:
        return data.dt / model.time_constants_of(parameters | {"log_time_constant_excess": log_excess}, data.dt)

    log_excess = jnp.ravel(parameters.get("log_time_constant_excess", jnp.zeros(0, parameters["M"].dtype)))
    return constants(log_excess), jax.jacfwd(constants)(log_excess)
