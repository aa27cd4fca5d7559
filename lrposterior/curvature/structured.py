"""The information matrix from the sensitivity of the latents: exact, without automatic differentiation.

Where all connectivity has the form L R^T / N, with L = (M, A) and R = (K, N Q), the currents are x_n = psi_n . c with
loadings psi_n = (M_n, A_n, B_n, b_n) and latents c = (kappa, filtered inputs, filtered 1), plus the filtered
stimulation. The only parameters that act through time do so through the latents kappa, one for each column of L, whose
sensitivity J obeys

    J[t+1] = T[t] J[t] + D[t],      T[t] = (1 - a) I + (a / N) R^T diag(phi') L,

with D[t] the direct effects: (a / N) R_n phi'_n c for psi_n, (a / N) phi_n on their own latent for K_n. With the
observation weights w, S[t] = L^T diag(w) L and H[t] = L^T diag(w) (direct effect on x),

    F = sum_t J^T S J + J^T H + H^T J + (direct effect)^T diag(w) (direct effect).
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
    factors = model.factors(parameters, data)
    num_latents = factors[0].shape[1]
    num_trials, _, num_neurons = data.activity.shape
    current = model.currents(parameters, data)
    free = model.initial_state == "free"
    trials = _Trial(
        current=current,
        mask=data.mask,
        inputs=data.inputs,
        stimulation=jnp.zeros_like(current) if data.stimulation is None else data.stimulation,
        initial_kappa=jnp.zeros((num_trials, num_latents), z.dtype),
    )
    if free:
        trials = trials._replace(
            initial_kappa=trials.initial_kappa.at[:, : model.rank].set(parameters["initial_kappa"])
        )
    layout = _Layout(space, num_neurons, num_trials, model.rank)
    num_shared = layout.shared.size

    def accumulate(total: Array, trial: _Trial) -> tuple[Array, tuple[Array, Array]]:
        own = _trial_information(
            model, parameters, factors, data.dt, trial, infer_time_constant=layout.has_time_constant
        )
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
        self.has_time_constant = "log_time_constant_excess" in space
        time_constant = index["log_time_constant_excess"].reshape(-1) if self.has_time_constant else np.empty(0, int)
        self.shared = np.concatenate([loadings.ravel(), index["K"].ravel(), time_constant])
        self.initial_kappa = index.get("initial_kappa", np.empty((num_trials, rank), int))


def _trial_information(
    model: LowRankModel,
    parameters: Parameters,
    factors: tuple[Array, Array],
    dt: Array,
    trial: _Trial,
    *,
    infer_time_constant: bool,
) -> Array:
    left, right = factors
    B, b = parameters["B"], parameters["b"]
    num_neurons, rank = left.shape
    num_bins = trial.current.shape[0]

    def integration_constant(log_excess: Array | None) -> Array:
        moved = parameters if log_excess is None else parameters | {"log_time_constant_excess": log_excess}
        return dt / model.time_constant_of(moved, dt)

    a = integration_constant(None)
    phi = NONLINEARITIES[model.nonlinearity]
    rates, slopes = phi.rate(trial.current), phi.slope(trial.current)
    weights = model.observation.fisher_weights(
        trial.mask, trial.current, parameters["log_noise_scale"][None, :], model.nonlinearity
    )
    ones = jnp.ones((num_bins, 1), left.dtype)
    steady = jnp.ones(1, left.dtype) if model.initial_state == "free" else jnp.zeros(1, left.dtype)
    read = rates @ right / num_neurons
    kappa = low_pass(read, a, trial.initial_kappa)
    filtered_inputs = low_pass(trial.inputs, a, jnp.zeros_like(trial.inputs[0]))
    filtered_one = low_pass(ones, a, steady)
    num_unknown = model.rank + (parameters["A"].shape[1] if "A" in parameters else 0)
    latents = jnp.concatenate([kappa[:, :num_unknown], filtered_inputs, filtered_one], axis=1)

    gain = jnp.einsum("nr,tn->trn", right, slopes) * (a / num_neurons)
    transition = (1.0 - a) * jnp.eye(rank, dtype=left.dtype)[None] + jnp.einsum("trn,ns->trs", gain, left)
    weighted = jnp.einsum("nr,tn->trn", left, weights)
    write = jnp.einsum("trn,ns->trs", weighted, left)

    def for_loadings(per_neuron: Array) -> Array:
        return jnp.einsum("trn,tc->trnc", per_neuron, latents).reshape(num_bins, rank, -1)

    own_latent = jnp.eye(rank, model.rank, dtype=left.dtype)
    of_right = jnp.einsum("tn,rs->trns", rates, own_latent).reshape(num_bins, rank, -1)
    drive = [for_loadings(gain), of_right * (a / num_neurons)]
    direct = [for_loadings(weighted), jnp.zeros_like(of_right)]

    current_slope = jnp.zeros_like(trial.current)
    if infer_time_constant:
        a_slope = jax.grad(integration_constant)(parameters["log_time_constant_excess"])
        filtered_stimulation = low_pass(trial.stimulation, a, jnp.zeros_like(trial.stimulation[0]))

        def filter_slope(drive: Array, filtered: Array) -> Array:
            return low_pass((drive - filtered) * (a_slope / a), a, jnp.zeros_like(filtered[0]))

        current_slope = (
            filter_slope(trial.inputs, filtered_inputs) @ B.T
            + filter_slope(ones, filtered_one) @ b[None, :]
            + filter_slope(trial.stimulation, filtered_stimulation)
        )
        explicit = (read - kappa) * a_slope
        drive.append((jnp.einsum("trn,tn->tr", gain, current_slope) + explicit)[:, :, None])
        direct.append(jnp.einsum("trn,tn->tr", weighted, current_slope)[:, :, None])

    nothing = jnp.zeros((num_bins, rank, model.rank), left.dtype)
    driven = jnp.concatenate([*drive, nothing], axis=2)
    observed = jnp.concatenate([*direct, nothing], axis=2)
    num_columns = driven.shape[2]
    start = jnp.zeros((rank, num_columns), left.dtype).at[:, num_columns - model.rank :].set(own_latent)

    def step(sensitivity: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        return now[0] @ sensitivity + now[1], sensitivity

    _, sensitivity = jax.lax.scan(step, start, (transition, driven))

    half = 0.5 * jnp.einsum("trs,tsp->trp", write, sensitivity) + observed
    half_information = sensitivity.reshape(-1, num_columns).T @ half.reshape(-1, num_columns)
    information = half_information + half_information.T

    num_loadings = latents.shape[1]
    local = jnp.einsum("tn,tc,td->ncd", weights, latents, latents)
    index = np.arange(num_neurons * num_loadings).reshape(num_neurons, num_loadings)
    information = information.at[index[:, :, None], index[:, None, :]].add(local)
    if infer_time_constant:
        column = num_neurons * (num_loadings + model.rank)
        cross = jnp.einsum("tn,tn,tc->nc", weights, current_slope, latents).ravel()
        information = information.at[index.ravel(), column].add(cross).at[column, index.ravel()].add(cross)
        information = information.at[column, column].add(jnp.sum(weights * current_slope**2))
    return information
