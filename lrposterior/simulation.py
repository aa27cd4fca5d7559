"""Recordings of networks whose connectivity is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from lrposterior.background import FixedBackground, RandomBulk
from lrposterior.checks import (
    argument_error,
    as_array,
    require_finite,
    require_integer,
    require_positive,
    require_shape,
)
from lrposterior.hidden import require_none_hidden
from lrposterior.model import LowRankModel
from lrposterior.network import NONLINEARITIES
from lrposterior.observations import ScaledObservation
from lrposterior.parameters import RIGHT_SCALE
from lrposterior.process_noise import require_covariance
from lrposterior.recording import Recording

INPUT_TIMESCALE_BINS = 10.0


@dataclass(frozen=True, eq=False)
class Simulation:
    """A simulated recording and the truth behind it.

    Attributes:
        recording: what an experimenter would see.
        parameters: the true parameters by name, as in `Posterior.mode`; with a random bulk W0 (post, pre) in the place
            of A.
        rates: (trial, time, neuron) rates r = phi(x) of the network, without observation noise.
        model: the model that made it; with `parameters`, `model.simulate` makes more trials of the same network.
        outliers: (outlier, 3) trial, bin and neuron of entries that are artefacts, not what the network did.
    """

    recording: Recording
    parameters: dict[str, np.ndarray]
    rates: np.ndarray
    model: LowRankModel
    outliers: np.ndarray = field(default_factory=lambda: np.empty((0, 3), dtype=int))

    @property
    def connectivity(self) -> np.ndarray:
        """The true connectivity (post, pre): M K^T / N, and a random bulk or one with signs, W0, where there is one.

        A known background is not in it.
        """
        W = self.parameters["M"] @ self.parameters["K"].T / len(self.parameters["M"])
        if not self.model.self_connections:
            np.fill_diagonal(W, 0.0)
        return W + self.parameters["W0"] if "W0" in self.parameters else W


def simulate_recording(
    model: LowRankModel,
    *,
    num_neurons: int | None = None,
    num_trials: int = 20,
    num_bins: int = 70,
    dt: float = 0.02,
    num_inputs: int = 2,
    inputs: Any = None,
    M: Any = None,
    K: Any = None,
    noise_scale: float | None = None,
    process_noise: Any = None,
    cell_types: Sequence[str] | None = None,
    session_labels: Sequence[str] | None = None,
    seed: int,
) -> Simulation:
    """Draw a network from the prior (or take its M and K), run it and record it.

    Args:
        model: the model; its priors give everything that is not passed. Prior scales that are inferred are at the
            medians of their own priors, such as the gain of a random bulk.
        num_neurons: number of neurons; needed where neither M nor K is given.
        num_trials, num_bins: size of the recording, where `inputs` does not give it.
        dt: bin width in seconds.
        num_inputs: number of inputs. By default they are independent smooth noise of variance one with a correlation
            time of 10 bins, different in every trial, so that they drive the network through its state space.
        inputs: (trial, time, input) inputs in place of these.
        M, K: (neuron, rank) factors of the connectivity.
        noise_scale: standard deviation of the observation noise of all neurons; by default drawn from its prior.
        process_noise: (rank, rank) covariance of what is added to the latents in every bin, where the model has process
            noise; by default drawn from its prior, along the left singular vectors of M.
        cell_types: (neuron,) types of the neurons, where the model asks for them.
        session_labels: (trial,) names of the sessions, where the model has drift.
        seed: seed of everything random.

    Returns:
        The recording and its truth.

    Raises:
        ValueError: if an argument is out of its range, shapes do not fit, or the network diverges.
    """
    require_none_hidden(model.hidden_neurons, "model")
    dt = require_positive(dt, "dt", "s")
    given = {name: _factor(value, name, model.rank) for name, value in (("M", M), ("K", K)) if value is not None}
    sizes = {len(value) for value in given.values()} | ({num_neurons} if num_neurons is not None else set())
    if len(sizes) != 1:
        raise argument_error(
            "num_neurons",
            "one number of neurons",
            f"{sorted(sizes) or 'none'}",
            "pass num_neurons, or M and K that agree",
        )
    size = require_integer(sizes.pop(), "num_neurons", minimum=1)
    random = np.random.default_rng(seed)
    if inputs is None:
        shape = tuple(
            require_integer(value, name, minimum=minimum)
            for value, name, minimum in (
                (num_trials, "num_trials", 1),
                (num_bins, "num_bins", 2),
                (num_inputs, "num_inputs", 0),
            )
        )
        inputs = smooth_noise(shape, INPUT_TIMESCALE_BINS, random)
    inputs = as_array(inputs, "inputs", ("trial", "time", "input"), may_be_empty=("input",))
    labels = {"cell_types": cell_types, "session_labels": session_labels}
    trials = Recording(np.zeros((*inputs.shape[:2], size)), dt, inputs=inputs, **labels)
    unit = 1.0 if model.priors.unit is None else model.priors.unit
    truth, bulk = dataclasses.replace(model, priors=dataclasses.replace(model.priors, unit=unit)), {}
    if isinstance(model.observation, ScaledObservation) and model.observation.scale is None:
        mend = f"give the prior median of the rate, for example {type(model.observation).__name__}(scale=20.0)"
        raise argument_error(
            "observation.scale", "a number of spikes/s", "None, without a recording to take it from", mend
        )
    if isinstance(model.background, RandomBulk):
        # A stream of its own: the other parameters are those of the model without a bulk.
        entries = np.random.default_rng([seed, 1]).standard_normal((size, size))
        bulk = {"W0": model.scale("gain") / np.sqrt(size) * entries}
        truth = dataclasses.replace(truth, background=FixedBackground(bulk["W0"]))
    settled = truth.with_noise_along(np.eye(size, model.rank)).for_recording(trials)
    space = settled.space_for(trials)
    z = random.standard_normal(space.size)
    if RIGHT_SCALE in space:
        z[space.slices[RIGHT_SCALE]] = 0.0
    if "M" in given:  # K may depend on it
        z[space.slices["M"]] = np.ravel(space["M"].whitened(jnp.asarray(given["M"])))
    coordinates = space.unwhiten(z)
    settled = settled.with_noise_along(given.get("M", np.asarray(coordinates["M"])))
    parameters = settled.named(coordinates, dt) | given
    if process_noise is not None:
        parameters["process_noise"] = _process_noise(process_noise, model)
    if noise_scale is not None:
        parameters["noise_scale"] = np.full(size, require_positive(noise_scale, "noise_scale"))
    noise_seed = int(random.integers(2**32))
    recording = settled.simulate(parameters, trials, seed=noise_seed)
    currents = settled.simulated_currents(parameters, trials, seed=noise_seed)
    rates = np.asarray(NONLINEARITIES[model.nonlinearity].rate(jnp.asarray(currents)))
    return Simulation(recording, parameters | bulk, rates, model)


def _process_noise(value: Any, model: LowRankModel) -> np.ndarray:
    if model.process_noise is None:
        mend = "give the model process_noise='diagonal'"
        raise argument_error("process_noise", "a model that has process noise", "one without", mend)
    return require_covariance(value, "process_noise", model.rank)


def _factor(value: Any, name: str, rank: int) -> np.ndarray:
    array = as_array(value, name, ("neuron", "rank"))
    require_shape(array, name, {"neuron": None, "rank": rank})
    require_finite(array, name)
    return np.asarray(array, dtype=np.float64)


def smooth_noise(shape: tuple[int, ...], timescale: float, random: np.random.Generator) -> np.ndarray:
    """Stationary first-order autoregressive noise of variance one along the time axis, with a timescale in bins."""
    persistence = np.exp(-1.0 / timescale)
    noise = random.standard_normal(shape)
    for time in range(1, shape[1]):
        noise[:, time] = persistence * noise[:, time - 1] + np.sqrt(1.0 - persistence**2) * noise[:, time]
    return noise
