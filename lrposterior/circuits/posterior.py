"""What a fit of a full-rank network or a latent circuit leaves behind."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax import Array

from lrposterior.checks import argument_error, read_only, require_instance, require_integer, require_probability
from lrposterior.circuits.dynamics import full_rank_currents, node_rates
from lrposterior.circuits.models import FullRankNetwork, LatentCircuit, NetworkModel
from lrposterior.network import NONLINEARITIES
from lrposterior.posterior import FitStatistics
from lrposterior.precision import double_precision
from lrposterior.recording import Recording


class Networks(Protocol):
    """Where draws of the parameters come from."""

    def sample(self, num_draws: int, *, seed: int) -> dict[str, np.ndarray]:
        """Parameters by name with a leading draw axis."""
        ...


@dataclass(frozen=True, eq=False)
class NetworkEnsemble:
    """Networks that were fitted one by one.

    Attributes:
        members: parameters by name, with a leading network axis.
    """

    members: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", {name: read_only(value) for name, value in self.members.items()})

    @property
    def num_networks(self) -> int:
        return len(next(iter(self.members.values())))

    def sample(self, num_draws: int, *, seed: int) -> dict[str, np.ndarray]:
        """A random subset of the networks, in their order; all of them where as many are asked for.

        Raises:
            ValueError: if there are not as many.
        """
        if require_integer(num_draws, "num_draws", minimum=1) > self.num_networks:
            raise argument_error(
                "num_draws",
                f"at most the {self.num_networks} networks of the ensemble",
                str(num_draws),
                "ask for fewer, or fit a larger ensemble",
            )
        random = np.random.default_rng(require_integer(seed, "seed"))
        chosen = np.sort(random.choice(self.num_networks, num_draws, replace=False))
        return {name: value[chosen] for name, value in self.members.items()}


@dataclass(frozen=True, eq=False)
class NetworkPosterior:
    """Draws of a full-rank network or a latent circuit: those of an ensemble, or of a Laplace approximation.

    Attributes:
        model: the model.
        recording: what was fitted.
        method: "ensemble" or "laplace".
        seed: seed of the fit.
        status: "converged", or what to beware of.
        statistics: how the fit went.
        networks: where the draws come from.
    """

    model: NetworkModel
    recording: Recording
    method: str
    seed: int
    status: str
    statistics: FitStatistics
    networks: Networks

    @classmethod
    def known(cls, model: NetworkModel, recording: Recording, parameters: Mapping[str, np.ndarray]) -> NetworkPosterior:
        """A network that is known, for instance a simulated truth, as an ensemble of one.

        Args:
            model: its model.
            recording: where the bins, the inputs and the number of neurons are taken from.
            parameters: by name, as one draw of `sample_parameters`.
        """
        nothing = FitStatistics(0.0, 0.0, 0.0, 0, 0.0, None, "a known network has none")
        ensemble = NetworkEnsemble({name: np.asarray(value)[None] for name, value in parameters.items()})
        return cls(model, recording, "ensemble", 0, "converged", nothing, ensemble)

    def sample_parameters(self, num_draws: int, *, seed: int) -> dict[str, np.ndarray]:
        """Draws by name, with a leading draw axis.

        A full-rank network has W (post, pre), B (neuron, input), b (neuron,); a circuit w (node, node),
        w_in (node, input), b (node,), w_out (output, node), Q (neuron, node).

        Raises:
            ValueError: if an ensemble has fewer networks than are asked for.
        """
        return self.networks.sample(num_draws, seed=seed)

    def sample_connectivity(self, num_draws: int, *, seed: int) -> np.ndarray:
        """Draws of the connectivity among units: W (draw, post, pre) of the neurons, or w of the nodes.

        The nodes of every draw are in the order in which they match those of the first draw best.
        """
        draws = self.sample_parameters(num_draws, seed=seed)
        return draws["W"] if "W" in draws else match_nodes(draws)["w"]

    def connectivity_interval(
        self, probability: float = 0.9, *, num_draws: int = 400, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Central interval of every weight among units from draws, (lower, upper), each (post, pre)."""
        tail = 0.5 * (1.0 - require_probability(probability, "probability"))
        lower, upper = np.quantile(self.sample_connectivity(num_draws, seed=seed), [tail, 1.0 - tail], axis=0)
        return lower, upper

    def predict_rates(
        self, inputs: Any = None, *, stimulation: Any = None, num_draws: int = 20, seed: int
    ) -> np.ndarray:
        """Noise-free rates of draws, (draw, trial, time, neuron).

        Args:
            inputs: (trial, time, input) of new trials; None repeats the recording's own, with their stimulation.
            stimulation: (trial, time, neuron) in units of current, or None.
            num_draws: number of draws.
            seed: of the draws.
        """
        recording = self.recording
        if inputs is None:
            inputs, stimulation = recording.inputs, recording.stimulation if stimulation is None else stimulation
        draws = self.sample_parameters(num_draws, seed=seed)
        return simulate_networks(self.model, draws, np.asarray(inputs), stimulation, recording.dt)

    def predict_outputs(self, inputs: Any = None, *, num_draws: int = 20, seed: int) -> np.ndarray:
        """What draws of a latent circuit compute, (draw, trial, time, output).

        Raises:
            ValueError: if this is no latent circuit with outputs.
        """
        if not isinstance(self.model, LatentCircuit) or self.model.outputs is None:
            raise argument_error(
                "model", "a LatentCircuit with outputs", type(self.model).__name__, "fit LatentCircuit(n, outputs=...)"
            )
        draws = self.sample_parameters(num_draws, seed=seed)
        inputs = self.recording.inputs if inputs is None else np.asarray(inputs)
        nodes = simulate_nodes(self.model, draws, inputs, None, self.recording.dt)
        return np.einsum("dbtn,don->dbto", nodes, draws["w_out"])

    def __repr__(self) -> str:
        recording = self.recording
        units = f"{self.model.num_nodes} nodes, " if isinstance(self.model, LatentCircuit) else ""
        number = f" of {self.networks.num_networks}" if isinstance(self.networks, NetworkEnsemble) else ""
        return (
            f"NetworkPosterior({type(self.model).__name__}, {self.method}{number}, {self.status}: {units}"
            f"{recording.num_neurons} neurons, {recording.num_trials} trials x {recording.num_bins} bins)"
        )


def match_nodes(draws: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Circuits with their nodes in the order in which they match those of the first one best.

    The order maximises the sum of the cosines between the embeddings Q of nodes that are matched (Kuhn 1955,
    doi:10.1002/nav.3800020109).
    """
    matched = {name: value.copy() for name, value in draws.items()}
    for index in range(1, len(draws["Q"])):
        overlap = draws["Q"][0].T @ draws["Q"][index]
        _, order = scipy.optimize.linear_sum_assignment(-overlap)
        matched["w"][index] = draws["w"][index][np.ix_(order, order)]
        for name, axis in (("w_in", 0), ("b", 0), ("w_out", 1), ("Q", 1)):
            matched[name][index] = np.take(draws[name][index], order, axis=axis)
    return matched


@double_precision
def simulate_networks(
    model: NetworkModel, draws: Mapping[str, np.ndarray], inputs: np.ndarray, stimulation: Any, dt: float
) -> np.ndarray:
    """Noise-free rates of the neurons, (draw, trial, time, neuron), of draws of the parameters by name."""
    if isinstance(model, LatentCircuit):
        nodes = simulate_nodes(model, draws, inputs, stimulation, dt)
        return np.einsum("dbtn,din->dbti", nodes, draws["Q"])
    currents = simulate_currents(model, draws, inputs, stimulation, dt)
    return np.asarray(NONLINEARITIES[model.nonlinearity].rate(jnp.asarray(currents)))


@double_precision
def simulate_currents(
    model: FullRankNetwork, draws: Mapping[str, np.ndarray], inputs: np.ndarray, stimulation: Any, dt: float
) -> np.ndarray:
    """Noise-free currents (draw, trial, time, neuron) of full-rank networks."""
    require_instance(model, "model", FullRankNetwork)
    stimulated = None if stimulation is None else jnp.asarray(stimulation)
    parameters, a = {name: jnp.asarray(draws[name]) for name in ("W", "B", "b")}, dt / model.time_constant
    return np.asarray(_currents(model.nonlinearity, parameters, jnp.asarray(inputs), stimulated, a))


@double_precision
def simulate_nodes(
    model: LatentCircuit, draws: Mapping[str, np.ndarray], inputs: np.ndarray, stimulation: Any, dt: float
) -> np.ndarray:
    """Noise-free rates (draw, trial, time, node) of circuits under a stimulation (trial, time, neuron) or None."""
    parameters = {name: jnp.asarray(draws[name]) for name in ("w", "w_in", "b", "Q")}
    stimulated = None if stimulation is None else jnp.asarray(stimulation)
    a = dt / model.time_constant
    return np.asarray(_nodes(model.nonlinearity, parameters, jnp.asarray(inputs), stimulated, a))


@functools.partial(jax.jit, static_argnums=0)
def _currents(nonlinearity: str, draws: dict[str, Array], inputs: Array, stimulation: Array | None, a: float) -> Array:
    return jax.lax.map(lambda draw: full_rank_currents(draw, inputs, stimulation, a, nonlinearity), draws)


@functools.partial(jax.jit, static_argnums=0)
def _nodes(nonlinearity: str, draws: dict[str, Array], inputs: Array, stimulation: Array | None, a: float) -> Array:
    def simulate(draw: dict[str, Array]) -> Array:
        driven = None if stimulation is None else stimulation @ draw["Q"]
        return node_rates(draw, inputs, driven, a, nonlinearity)

    return jax.lax.map(simulate, draws)
