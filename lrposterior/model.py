"""The low-rank network as a probabilistic model of a recording."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.background import Background, FixedBackground
from lrposterior.checks import (
    argument_error,
    require_choice,
    require_finite,
    require_integer,
    require_positive,
    require_shape,
)
from lrposterior.network import NONLINEARITIES, rollout
from lrposterior.observations import GaussianObservation
from lrposterior.parameters import Block, Parameters, ParameterSpace
from lrposterior.precision import double_precision
from lrposterior.priors import Priors, TimeConstantPrior

if TYPE_CHECKING:
    from lrposterior.recording import Recording


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Data:
    """A recording (and a known background) in the form that compiled functions take as an argument.

    Attributes:
        activity, mask: (trial, time, neuron).
        inputs: (trial, time, input).
        stimulation: (trial, time, neuron) or None.
        dt: bin width in seconds.
        background: W0 or None.
    """

    activity: Array
    mask: Array
    inputs: Array
    stimulation: Array | None
    dt: Array
    background: Background | None


@dataclass(frozen=True)
class LowRankModel:
    """A rate network with low-rank connectivity, observed with noise.

        x[t+1] = (1 - a) x[t] + a (W r[t] + B u[t] + b + s[t]),      r = phi(x),      a = dt / time_constant
        W      = M K^T / N + W0

    Args:
        rank: number of columns R of M and K.
        time_constant: tau in seconds, a number or a `TimeConstantPrior`. It is never below the bin width.
        nonlinearity: phi, one of "tanh", "relu", "softplus", "linear".
        observation: what is recorded, and with what noise.
        background: a known W0 (`FixedBackground`), or None.
        initial_state: "zero": every trial starts with x = 0. "free": every trial starts with
            x = M initial_kappa + b, where initial_kappa (trial, rank) is inferred.
        priors: scales of the Normal priors.

    Raises:
        ValueError: if an argument is out of its range.
    """

    rank: int
    time_constant: float | TimeConstantPrior = 0.1
    nonlinearity: Literal["tanh", "relu", "softplus", "linear"] = "tanh"
    observation: GaussianObservation = field(default_factory=GaussianObservation)
    background: FixedBackground | None = None
    initial_state: Literal["zero", "free"] = "zero"
    priors: Priors = field(default_factory=Priors)

    def __post_init__(self) -> None:
        require_integer(self.rank, "rank", minimum=1)
        require_choice(self.nonlinearity, "nonlinearity", tuple(NONLINEARITIES))
        require_choice(self.initial_state, "initial_state", ("zero", "free"))
        if not isinstance(self.time_constant, TimeConstantPrior):
            object.__setattr__(self, "time_constant", require_positive(self.time_constant, "time_constant"))
        for name, kind, expected, example in (
            ("observation", GaussianObservation, "GaussianObservation", "GaussianObservation()"),
            ("priors", Priors, "Priors", "Priors()"),
            ("background", FixedBackground | None, "FixedBackground or None", "FixedBackground(W0)"),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise argument_error(name, expected, type(value).__name__, f"for example {name}={example}")

    def for_recording(self, recording: Recording) -> LowRankModel:
        """This model with everything that depends on the recording settled: it fits, and the unit is a number.

        Raises:
            ValueError: if the time constant is below the bin width, or the background has another number of neurons.
        """
        shortest = (
            self.time_constant.median if isinstance(self.time_constant, TimeConstantPrior) else self.time_constant
        )
        inferred = isinstance(self.time_constant, TimeConstantPrior)
        if shortest < recording.dt or (inferred and shortest == recording.dt):
            raise ValueError(
                f"time_constant: expected {'a prior median above' if inferred else 'at least'} the bin width "
                f"dt = {recording.dt:g} s, got {shortest:g} s; below it the discrete dynamics overshoot. "
                "Use finer bins or a longer time constant (both are in seconds)"
            )
        if self.background is not None and self.background.num_neurons != recording.num_neurons:
            raise ValueError(
                f"background: expected W0 for the recording's {recording.num_neurons} neurons, got one for "
                f"{self.background.num_neurons}; select the same neurons in both"
            )
        if self.priors.unit is not None:
            return self
        unit = 1.0 if NONLINEARITIES[self.nonlinearity].bounded else _root_mean_square(recording)
        return dataclasses.replace(self, priors=dataclasses.replace(self.priors, unit=unit))

    def parameter_space(self, *, num_trials: int, num_neurons: int, num_inputs: int, dt: float) -> ParameterSpace:
        """Names, shapes and priors of the parameters."""
        priors = self.priors
        unit = 1.0 if priors.unit is None else priors.unit
        blocks = [
            Block("M", (num_neurons, self.rank), 0.0, priors.M),
            Block("K", (num_neurons, self.rank), 0.0, priors.K),
        ]
        if self.initial_state == "free":
            blocks.append(Block("initial_kappa", (num_trials, self.rank), 0.0, priors.initial_kappa * unit))
        blocks += [
            Block("B", (num_neurons, num_inputs), 0.0, priors.B * unit),
            Block("b", (num_neurons,), 0.0, priors.b * unit),
        ]
        if isinstance(self.time_constant, TimeConstantPrior):
            median_excess = math.log(self.time_constant.median - dt)
            blocks.append(Block("log_time_constant_excess", (), median_excess, self.time_constant.spread))
        noise_median = math.log(priors.noise_scale * unit)
        blocks.append(Block("log_noise_scale", (num_neurons,), noise_median, priors.noise_spread))
        return ParameterSpace(tuple(blocks))

    def space_for(self, recording: Recording) -> ParameterSpace:
        return self.parameter_space(
            num_trials=recording.num_trials,
            num_neurons=recording.num_neurons,
            num_inputs=recording.num_inputs,
            dt=recording.dt,
        )

    def data(self, recording: Recording) -> Data:
        """The recording and the background as arrays for compiled functions."""
        return Data(
            activity=jnp.asarray(recording.activity),
            mask=jnp.asarray(recording.mask),
            inputs=jnp.asarray(recording.inputs),
            stimulation=None if recording.stimulation is None else jnp.asarray(recording.stimulation),
            dt=jnp.asarray(recording.dt),
            background=None if self.background is None else self.background.arrays(),
        )

    @property
    def structure(self) -> LowRankModel:
        """This model without its arrays: equal for equal dynamics, and so a static argument of compiled functions."""
        return dataclasses.replace(self, background=None)

    def time_constant_of(self, parameters: Parameters, dt: Array) -> Array:
        """tau in seconds."""
        if isinstance(self.time_constant, TimeConstantPrior):
            return dt + jnp.exp(parameters["log_time_constant_excess"])
        return jnp.asarray(cast(float, self.time_constant), dtype=dt.dtype)

    def named(self, coordinates: Mapping[str, np.ndarray], dt: float) -> dict[str, np.ndarray]:
        """Parameters as users see them, from those in the coordinates of `space_for`; leading axes are kept.

        noise_scale takes the place of its logarithm, and time_constant (s) is always there.
        """
        named = {name: np.asarray(value) for name, value in coordinates.items()}
        named["noise_scale"] = np.exp(named.pop("log_noise_scale"))
        excess = named.pop("log_time_constant_excess", None)
        shape = named["noise_scale"].shape[:-1]
        named["time_constant"] = np.full(shape, self.time_constant) if excess is None else dt + np.exp(excess)
        return named

    def coordinates(self, named: Mapping[str, np.ndarray], dt: float) -> dict[str, np.ndarray]:
        """The inverse of `named`. A fixed time constant may be left out."""
        coordinates = {name: np.asarray(value, dtype=np.float64) for name, value in named.items()}
        coordinates["log_noise_scale"] = np.log(coordinates.pop("noise_scale"))
        if isinstance(self.time_constant, TimeConstantPrior):
            coordinates["log_time_constant_excess"] = np.log(coordinates["time_constant"] - dt)
        coordinates.pop("time_constant", None)
        return coordinates

    @double_precision
    def simulate(self, parameters: Mapping[str, np.ndarray], like: Recording, *, seed: int) -> Recording:
        """Simulate a recording with the inputs, stimulation, mask, labels and length of another one.

        Args:
            parameters: by name, as in `Posterior.mode`: M, K (neuron, rank), B (neuron, input), b, noise_scale
                (neuron,), initial_kappa (trial, rank) where the initial state is free, time_constant () in seconds
                where it has a prior.
            like: the recording whose trials are repeated. Its activity is not used.
            seed: seed of the observation noise.

        Raises:
            ValueError: if a parameter is missing or does not fit, or the network diverges.
        """
        settled = self.for_recording(like)
        public = {"log_noise_scale": "noise_scale", "log_time_constant_excess": "time_constant"}
        blocks = settled.space_for(like).blocks
        for block in blocks:
            name = public.get(block.name, block.name)
            if name not in parameters:
                raise argument_error("parameters", f"the key {name!r}", f"{sorted(parameters)}", "add it")
            value = np.asarray(parameters[name], dtype=np.float64)
            require_shape(value, f"parameters[{name!r}]", {str(axis): size for axis, size in enumerate(block.shape)})
            require_finite(value, f"parameters[{name!r}]")
        coordinates = {name: jnp.asarray(value) for name, value in settled.coordinates(parameters, like.dt).items()}
        currents = settled.currents(coordinates, settled.data(like))
        mean = np.asarray(settled.observation.mean(currents, settled.nonlinearity))
        if not np.all(np.isfinite(mean)):
            raise argument_error(
                "parameters",
                "a network whose activity stays finite",
                f"one that diverges with nonlinearity {self.nonlinearity!r}",
                "use a weaker K, or fewer bins",
            )
        noise = np.asarray(parameters["noise_scale"]) * np.random.default_rng(seed).standard_normal(mean.shape)
        return dataclasses.replace(like, activity=mean + noise)

    def initial_current(self, parameters: Parameters, num_trials: int) -> Array:
        """(trial, neuron) currents in the first bin."""
        if self.initial_state == "free":
            return parameters["initial_kappa"] @ parameters["M"].T + parameters["b"][None, :]
        return jnp.zeros((num_trials, parameters["b"].shape[0]), dtype=parameters["b"].dtype)

    def currents(self, parameters: Parameters, data: Data) -> Array:
        """Currents x (trial, time, neuron) of the noise-free network; a pure JAX function."""
        drive = jnp.einsum("bti,ni->btn", data.inputs, parameters["B"]) + parameters["b"][None, None, :]
        if data.stimulation is not None:
            drive = drive + data.stimulation
        a = data.dt / self.time_constant_of(parameters, data.dt)

        def one_trial(driven: Array, initial: Array) -> Array:
            return rollout(parameters["M"], parameters["K"], driven, a, initial, self.nonlinearity, data.background)

        return jax.vmap(one_trial)(drive, self.initial_current(parameters, drive.shape[0]))

    def rates(self, parameters: Parameters, data: Data) -> Array:
        """Rates r = phi(x) (trial, time, neuron)."""
        return NONLINEARITIES[self.nonlinearity].rate(self.currents(parameters, data))


def _root_mean_square(recording: Recording) -> float:
    scale = float(np.sqrt(np.mean(recording.activity[recording.mask] ** 2)))
    if scale == 0.0:
        raise ValueError(
            "activity: expected activity that differs from zero, got zeros only; "
            "check the export, or drop silent neurons with recording.select(neurons=...)"
        )
    return scale
