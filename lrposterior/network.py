"""The dynamics of a rate network: nonlinearities, the integration constant and rollouts.

    x[t+1] = (1 - a) x[t] + a (M K^T r[t] / N + W0 r[t] + B u[t] + b + s[t]),    r = phi(x),    a = dt / tau

Arrays are those of one trial: currents x (time, neuron), inputs u (time, input), stimulation s (time, neuron).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from lrposterior.background import Background, recurrent_drive


@dataclass(frozen=True)
class Nonlinearity:
    """A transfer function from current to rate, elementwise.

    Attributes:
        rate: phi, current -> rate.
        slope: phi', current -> derivative of the rate. At the kink of relu it is 0, as in JAX.
        current: an inverse of phi, defined on every rate: a rate outside phi's range is first clipped into it.
            `scale` is the typical size of the rates, which sets how close to the edge of the range is too close.
        bounded: whether rates lie within (-1, 1), whatever their unit.
    """

    rate: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    current: Callable[[Array, Array | float], Array]
    bounded: bool = False


def _softplus_inverse(rate: Array, scale: Array | float) -> Array:
    clipped = jnp.maximum(rate, 0.05 * scale)
    return clipped + jnp.log(-jnp.expm1(-clipped))


NONLINEARITIES: dict[str, Nonlinearity] = {
    "tanh": Nonlinearity(
        rate=jnp.tanh,
        slope=lambda x: 1.0 - jnp.tanh(x) ** 2,
        current=lambda rate, scale: jnp.arctanh(jnp.clip(rate, -0.95, 0.95)),
        bounded=True,
    ),
    "relu": Nonlinearity(
        rate=jax.nn.relu,
        slope=lambda x: jnp.where(x > 0.0, 1.0, 0.0),
        current=lambda rate, scale: rate,
    ),
    "softplus": Nonlinearity(rate=jax.nn.softplus, slope=jax.nn.sigmoid, current=_softplus_inverse),
    "linear": Nonlinearity(rate=lambda x: x, slope=jnp.ones_like, current=lambda rate, scale: rate),
}


def low_pass(drive: Array, integration_constant: Array | float, initial: Array) -> Array:
    """Filter a drive with the neurons' own time constant.

    Args:
        drive: (time, ...) input of the filter.
        integration_constant: a = dt / tau, in (0, 1], one for all or one for each entry of the last axis.
        initial: (...) value in the first bin.

    Returns:
        (time, ...) filtered drive, v[0] = initial, v[t+1] = (1 - a) v[t] + a drive[t]. The last bin of the drive
        has no effect: it acts on the bin after the last.
    """

    def step(value: Array, driven: Array) -> tuple[Array, Array]:
        following = (1.0 - integration_constant) * value + integration_constant * driven
        return following, following

    _, later = jax.lax.scan(step, initial, drive[:-1])
    return jnp.concatenate([initial[None], later])


def rollout(
    M: Array,
    K: Array,
    drive: Array,
    integration_constant: Array | float,
    initial_current: Array,
    nonlinearity: str,
    background: Background | None = None,
) -> Array:
    """Currents of one trial, from the first bin to the last.

    Args:
        M: (neuron, rank) left factors.
        K: (neuron, rank) right factors.
        drive: (time, neuron) everything that is not recurrent, B u + b + s. Its last bin has no effect.
        integration_constant: a = dt / tau, one for all neurons or (neuron,).
        initial_current: (neuron,) current in the first bin.
        nonlinearity: a name in `NONLINEARITIES`.
        background: connectivity beside M K^T / N, or None.

    Returns:
        (time, neuron) currents x.
    """
    rate = NONLINEARITIES[nonlinearity].rate
    num_neurons = M.shape[0]

    def step(current: Array, driven: Array) -> tuple[Array, Array]:
        rates = rate(current)
        recurrent = M @ (K.T @ rates) / num_neurons + recurrent_drive(background, rates)
        following = (1.0 - integration_constant) * current + integration_constant * (recurrent + driven)
        return following, following

    _, later = jax.lax.scan(step, initial_current, drive[:-1])
    return jnp.concatenate([initial_current[None], later])
