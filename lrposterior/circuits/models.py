"""What is assumed about a full-rank network and about a latent circuit."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lrposterior.checks import (
    argument_error,
    as_array,
    read_only,
    require_choice,
    require_finite,
    require_integer,
    require_positive,
    require_shape,
)
from lrposterior.network import NONLINEARITIES
from lrposterior.recording import Recording

OF_NODES = ("relu", "softplus", "linear")


@dataclass(frozen=True)
class FullRankNetwork:
    """A network with one unit for every neuron and a weight for every pair of them: what "twins" are made of.

        x[t+1] = (1 - a) x[t] + a (W phi(x[t]) + B u[t] + b + s[t]),      a = dt / time_constant,      x[0] = 0
        y      = phi(x) + noise

    The recording determines N of its N² weights for every direction that the activity visits, and says nothing about
    the others. So it is fitted as an `Ensemble` of networks from random starts; for a posterior over a W that is not of
    low rank use `LowRankModel` with `RandomBulk`.

    Args:
        time_constant: tau in seconds.
        nonlinearity: phi, one of "tanh", "relu", "softplus", "linear".
        gain: g of the prior and of the random starts, W_ij ~ Normal(0, g² / N).

    Raises:
        ValueError: if an argument is out of its range.
    """

    time_constant: float = 0.1
    nonlinearity: Literal["tanh", "relu", "softplus", "linear"] = "tanh"
    gain: float = 1.0

    def __post_init__(self) -> None:
        _check_dynamics(self.time_constant, self.nonlinearity, self.gain, tuple(NONLINEARITIES))


@dataclass(frozen=True, eq=False)
class LatentCircuit:
    """A small circuit whose nodes are embedded in the population.

        rho[t+1] = (1 - a) rho[t] + a phi(w rho[t] + w_in u[t] + b + Q^T s[t]),   a = dt / time_constant,   rho[0] = 0
        y        = Q rho + noise,      outputs = w_out rho + noise

    with Q (neuron, node), Q^T Q = I (Langdon and Engel 2025, doi:10.1038/s41593-025-01869-7). Where it describes a
    network with connectivity W, w agrees with Q^T W Q. Nodes have no order: w is determined up to a permutation of
    them.

    Args:
        num_nodes: n.
        time_constant: tau in seconds.
        nonlinearity: phi, one of "relu", "softplus", "linear". As Q keeps lengths, a node's rate is as large as
            those of all neurons together, beyond the bounds of a tanh.
        gain: g of the prior of the recurrent weights, w_ij ~ Normal(0, g² / n).
        outputs: (trial, time, output) what the circuit computes, read out of its nodes and fitted together with the
            activity; None fits the activity alone.

    Raises:
        ValueError: if an argument is out of its range.
    """

    num_nodes: int
    time_constant: float = 0.1
    nonlinearity: Literal["relu", "softplus", "linear"] = "relu"
    gain: float = 1.0
    outputs: np.ndarray | None = None

    def __post_init__(self) -> None:
        require_integer(self.num_nodes, "num_nodes", minimum=1)
        _check_dynamics(self.time_constant, self.nonlinearity, self.gain, OF_NODES)
        if self.outputs is not None:
            outputs = read_only(as_array(self.outputs, "outputs", ("trial", "time", "output")))
            require_finite(outputs, "outputs")
            object.__setattr__(self, "outputs", outputs)

    def outputs_for(self, recording: Recording) -> np.ndarray:
        """(trial, time, output), with no outputs where there are none."""
        shape: tuple[int, int] = recording.activity.shape[:2]
        if self.outputs is None:
            return np.zeros((*shape, 0))
        require_shape(self.outputs, "outputs", {"trial": shape[0], "time": shape[1], "output": None})
        return self.outputs


NetworkModel = FullRankNetwork | LatentCircuit


def require_recording(model: NetworkModel, recording: Recording) -> None:
    """Refuse a recording that these networks cannot be fitted to.

    Raises:
        ValueError: if entries are masked, the time constant is below the bin width, there are more nodes than neurons
            or samples, or a circuit's trials have stimulation.
    """
    if not recording.mask.all():
        raise argument_error(
            "recording",
            f"every entry observed for a {type(model).__name__}",
            f"{int((~recording.mask).sum())} masked entries",
            "leave those trials or neurons out with recording.select(...), or fit a LowRankModel",
        )
    if model.time_constant < recording.dt:
        raise argument_error(
            "time_constant",
            f"at least the bin width of {recording.dt:g} s",
            f"{model.time_constant:g} s",
            "use wider time constants or narrower bins",
        )
    if isinstance(model, LatentCircuit):
        largest = min(recording.num_neurons, recording.num_trials * recording.num_bins)
        if model.num_nodes > largest:
            raise argument_error(
                "num_nodes", f"at most {largest}, the neurons or samples there are", str(model.num_nodes), "lower it"
            )
        model.outputs_for(recording)
        if recording.stimulation is not None and recording.stimulation.any():
            raise argument_error(
                "recording",
                "trials without stimulation for a LatentCircuit, whose embedding is fitted to the activity alone",
                "stimulation",
                "leave those trials out with recording.select(trials=...), or fit a LowRankModel",
            )


def _check_dynamics(time_constant: Any, nonlinearity: Any, gain: Any, choices: Collection[str]) -> None:
    require_positive(time_constant, "time_constant")
    require_choice(nonlinearity, "nonlinearity", choices)
    require_positive(gain, "gain")
