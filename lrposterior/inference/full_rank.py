"""Descents of a full-rank network: its weights, fitted to a recording from a random start."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.background import visited_subspace
from lrposterior.circuits.dynamics import full_rank_currents
from lrposterior.circuits.models import FullRankNetwork
from lrposterior.inference.descent import Member, descend
from lrposterior.network import NONLINEARITIES
from lrposterior.recording import Recording

# Of the squares of the presynaptic signals: keeps the regression of the start from fitting noise.
RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class FullRankProblem:
    """A full-rank network on a recording. Build it and train within double precision."""

    model: FullRankNetwork
    recording: Recording

    def train(self, random: np.random.Generator, regularisation: float, num_steps: int) -> Member:
        """A network from a random start W_ij ~ Normal(0, g² / N).

        The start is carried to the recording in one step, by regression of the synaptic drive that the recorded
        currents need on the recorded rates: what the visited rates do not read stays as it was drawn. The descent of

            |y - phi(x)|² / (2 sigma²) + regularisation (N |W|² / g² + |B|² + |b|²) / 2

        goes on from there, with sigma² the variance of the activity outside its visited subspace.
        """
        num_neurons = self.recording.num_neurons
        W = self.model.gain / np.sqrt(num_neurons) * random.standard_normal((num_neurons, num_neurons))
        start, noise_variance = self._carried(W)
        shapes = {name: value.shape for name, value in start.items()}
        ends = np.cumsum([value.size for value in start.values()])[:-1]

        def parameters(vector: np.ndarray) -> dict[str, np.ndarray]:
            parts = np.split(vector, ends)
            return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

        recording = self.recording
        arrays = [jnp.asarray(recording.activity), jnp.asarray(recording.inputs)]
        stimulation = None if recording.stimulation is None else jnp.asarray(recording.stimulation)
        constants = jnp.asarray(
            [recording.dt / self.model.time_constant, 1.0 / noise_variance, regularisation, self.model.gain]
        )

        def loss(vector: np.ndarray) -> tuple[float, np.ndarray]:
            value, slopes = _loss(self.model.nonlinearity, parameters(vector), *arrays, stimulation, constants)
            return float(value), np.concatenate([np.asarray(slopes[name]).ravel() for name in shapes])

        vector, objective, steps, converged = descend(
            loss, np.concatenate([value.ravel() for value in start.values()]), num_steps
        )
        return Member(parameters(vector), objective, steps, converged)

    def _carried(self, W: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
        """The start after the regression, and the variance of the noise."""
        recording, a = self.recording, self.recording.dt / self.model.time_constant
        num_neurons = recording.num_neurons
        rates = recording.activity
        Q = visited_subspace(rates.reshape(-1, num_neurons), None)
        seen = rates @ Q
        noise_variance = float(np.mean((rates - seen @ Q.T) ** 2)) * num_neurons / max(num_neurons - Q.shape[1], 1)
        scale = float(np.sqrt(np.mean(rates**2)))
        currents = np.asarray(NONLINEARITIES[self.model.nonlinearity].current(jnp.asarray(seen @ Q.T), scale))
        drive = (currents[:, 1:] - (1.0 - a) * currents[:, :-1]) / a - (seen[:, :-1] @ Q.T) @ W.T
        if recording.stimulation is not None:
            drive = drive - recording.stimulation[:, :-1]
        ones = np.ones((*rates.shape[:2], 1))
        read = np.concatenate([seen, recording.inputs, ones], axis=2)[:, :-1].reshape(
            -1, Q.shape[1] + recording.num_inputs + 1
        )
        gram = read.T @ read
        penalty = RIDGE * np.trace(gram) / len(gram)
        weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), read.T @ drive.reshape(-1, num_neurons)).T
        of_Q, of_inputs, of_ones = np.split(weights, [Q.shape[1], Q.shape[1] + recording.num_inputs], axis=1)
        return {"W": W + of_Q @ Q.T, "B": of_inputs, "b": of_ones[:, 0]}, max(noise_variance, 1e-12 * scale**2)


@functools.partial(jax.jit, static_argnums=0)
def _loss(
    nonlinearity: str,
    parameters: dict[str, Array],
    activity: Array,
    inputs: Array,
    stimulation: Array | None,
    constants: Array,
) -> tuple[Array, dict[str, Array]]:
    a, noise_precision, regularisation, gain = constants
    phi = NONLINEARITIES[nonlinearity].rate

    def loss(parameters: dict[str, Array]) -> Array:
        rates = phi(full_rank_currents(parameters, inputs, stimulation, a, nonlinearity))
        W, num_neurons = parameters["W"], activity.shape[2]
        squares = num_neurons * jnp.sum(W**2) / gain**2 + jnp.sum(parameters["B"] ** 2) + jnp.sum(parameters["b"] ** 2)
        return 0.5 * noise_precision * jnp.sum((activity - rates) ** 2) + 0.5 * regularisation * squares

    return jax.value_and_grad(loss)(parameters)
