"""Trajectories of full-rank networks and of latent circuits: pure JAX functions of one set of parameters."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from lrposterior.network import NONLINEARITIES


def full_rank_currents(
    parameters: Mapping[str, Array], inputs: Array, stimulation: Array | None, a: Array | float, nonlinearity: str
) -> Array:
    """Currents (trial, time, neuron) of a network with W (post, pre), B (neuron, input) and b (neuron,)."""
    phi = NONLINEARITIES[nonlinearity].rate
    drive = inputs @ parameters["B"].T + parameters["b"]
    drive = drive if stimulation is None else drive + stimulation

    def step(current: Array, driven: Array) -> tuple[Array, Array]:
        return (1.0 - a) * current + a * (phi(current) @ parameters["W"].T + driven), current

    _, currents = jax.lax.scan(step, jnp.zeros_like(drive[:, 0]), jnp.moveaxis(drive, 1, 0))
    return jnp.moveaxis(currents, 0, 1)


def node_rates(
    parameters: Mapping[str, Array], inputs: Array, stimulation: Array | None, a: Array | float, nonlinearity: str
) -> Array:
    """Rates (trial, time, node) of a circuit with w (node, node), w_in (node, input) and b (node,).

    Args:
        parameters: of one circuit.
        inputs: (trial, time, input).
        stimulation: (trial, time, node) drive of the nodes, Q^T s, or None.
        a: dt / time constant.
        nonlinearity: a name in `NONLINEARITIES`.
    """
    phi = NONLINEARITIES[nonlinearity].rate
    drive = inputs @ parameters["w_in"].T + parameters["b"]
    drive = drive if stimulation is None else drive + stimulation

    def step(rates: Array, driven: Array) -> tuple[Array, Array]:
        return (1.0 - a) * rates + a * phi(rates @ parameters["w"].T + driven), rates

    _, rates = jax.lax.scan(step, jnp.zeros_like(drive[:, 0]), jnp.moveaxis(drive, 1, 0))
    return jnp.moveaxis(rates, 0, 1)
