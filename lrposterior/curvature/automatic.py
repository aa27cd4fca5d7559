"""The information matrix by automatic differentiation: any dynamics, one trial at a time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from lrposterior.data import Data
from lrposterior.model import LowRankModel
from lrposterior.observations import OWN
from lrposterior.parameters import Parameters, ParameterSpace


def automatic_information(model: LowRankModel, space: ParameterSpace, z: Array, data: Data) -> Array:
    """F (coordinate, coordinate) from the Jacobian of what is expected to be seen of every trial.

    Memory: one Jacobian (time, neuron, coordinate) at a time.
    """
    noise, num_neurons = z[space.num_dynamics :], data.activity.shape[2]

    def one_trial(total: Array, trial: Array) -> tuple[Array, None]:
        before = None if data.before is None else data.before[trial]
        session = None if data.session is None else data.session[trial]

        def parameters(dynamics: Array) -> Parameters:
            return space.unwhiten(jnp.concatenate([dynamics, noise]))

        def current(dynamics: Array) -> Array:
            return model.currents(_keep_initial_state(parameters(dynamics), trial), data.of_trials(trial[None]))[0]

        def mean(dynamics: Array) -> Array:
            return model.emission(parameters(dynamics), data.dt, before, session).mean(current(dynamics))

        def own(dynamics: Array) -> Array:
            named = parameters(dynamics)
            each = [named[name] for name in OWN if name in named]
            by_neuron = [value if value.ndim else jnp.broadcast_to(value, (num_neurons,)) for value in each]
            return jnp.concatenate([value.reshape(num_neurons, -1) for value in by_neuron], axis=1)

        dynamics = z[: space.num_dynamics]
        emission = model.emission(space.unwhiten(z), data.dt, before, session)
        variance = emission.variance(current(dynamics))
        weights = jnp.where(data.mask[trial], 1.0 / variance, 0.0)
        flat = jax.jacfwd(mean)(dynamics).reshape(-1, space.num_dynamics)
        total = total + flat.T @ (weights.reshape(-1, 1) * flat)
        of_own = jnp.sum(emission.own_information(data.mask[trial], current(dynamics)), axis=0)
        if of_own.size:
            own_slopes = jax.jacfwd(own)(dynamics)
            total = total + jnp.einsum("np,npi,npj->ij", of_own, own_slopes, own_slopes)
        return total, None

    start = jnp.zeros((space.num_dynamics, space.num_dynamics), dtype=z.dtype)
    total, _ = jax.lax.scan(one_trial, start, jnp.arange(data.activity.shape[0]))
    return total


def _keep_initial_state(parameters: dict[str, Array], trial: Array) -> dict[str, Array]:
    if "initial_kappa" not in parameters:
        return parameters
    return parameters | {"initial_kappa": parameters["initial_kappa"][trial][None]}
