"""Statistics of networks that receive the inputs of a recording."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from lrposterior.connectivity import LowRankConnectivity, connectivity_draws
from lrposterior.diagnosis.signal import Signal, conditions_of, signal_of
from lrposterior.model import LowRankModel
from lrposterior.network import NONLINEARITIES
from lrposterior.precision import double_precision
from lrposterior.recording import Recording
from lrposterior.rollouts import currents_and_activity, simulate_each, to_coordinates
from lrposterior.runaways import LARGEST_GROWTH

MEDIANS = ("level_without_inputs", "level_of_tenfold_inputs", "input_modulation", "spectral_radius")


class WeightRange(NamedTuple):
    """Weights from neurons of a type, inputs or a constant to those of a type: the lowest, their mean, the highest."""

    lowest: float
    mean: float
    highest: float


@dataclass(frozen=True, eq=False)
class NetworkStatistics:
    """What networks do in the trials of a recording: medians over networks. A network that runs away counts as inf.

    Activity is the expected one, without process noise, in the unit of the data.

    Attributes:
        num_networks: how many there are.
        share_diverging: share of them whose activity is not finite, or over a hundred times the largest recorded one.
        signal: level and temporal standard deviation of the averages under the recorded inputs.
        levels: the lowest and the highest level of the networks that do not run away; inf where all do.
        level_without_inputs, level_of_tenfold_inputs: the level under inputs of 0, and ten times the recorded ones.
        input_modulation: the temporal standard deviation of the averages of what inputs change, the activity under the
            recorded inputs less that without inputs, over the level under the recorded ones.
        spectral_radius: the largest absolute eigenvalue of 1 - a + a W phi'(x), with x the mean currents of the
            neurons: above 1, deviations from the mean state grow.
        weights: of W by pre- and postsynaptic type, "E -> I", or "all"; of B, "inputs -> E" or "inputs", where there
            are inputs; and of b, "bias -> E" or "bias".
    """

    num_networks: int
    share_diverging: float
    signal: Signal
    levels: tuple[float, float]
    level_without_inputs: float
    level_of_tenfold_inputs: float
    input_modulation: float
    spectral_radius: float
    weights: Mapping[str, WeightRange]


@double_precision
def describe_networks(
    model: LowRankModel, draws: Mapping[str, np.ndarray], trials: Recording, largest: float
) -> NetworkStatistics:
    """Statistics of networks in some trials.

    Args:
        model: a settled model.
        draws: parameters by name with a leading draw axis.
        trials: the recorded trials.
        largest: the largest recorded absolute activity.
    """
    kept = {name: value for name, value in draws.items() if name != "process_noise"}
    found = [
        _describe_network(model, {name: value[draw : draw + 1] for name, value in kept.items()}, trials, largest)
        for draw in range(len(kept["b"]))
    ]
    levels = [one.signal.level for one in found if not one.share_diverging] or [np.inf]
    return NetworkStatistics(
        num_networks=len(found),
        share_diverging=float(np.mean([one.share_diverging for one in found])),
        signal=Signal(*np.median([one.signal for one in found], axis=0).tolist()),
        levels=(min(levels), max(levels)),
        **{name: float(np.median([getattr(one, name) for one in found])) for name in MEDIANS},
        weights={
            name: WeightRange(*np.median([one.weights[name] for one in found], axis=0).tolist())
            for name in found[0].weights
        },
    )


def _describe_network(
    model: LowRankModel, draw: dict[str, np.ndarray], trials: Recording, largest: float
) -> NetworkStatistics:
    """Statistics of one network."""
    W = connectivity_draws(
        draw,
        model.background,
        model.recorded_share(trials.num_neurons),
        self_connections=model.self_connections,
    )
    groups, limit, runs_away = conditions_of(trials), LARGEST_GROWTH * largest, Signal(np.inf, np.inf, np.inf)

    def signal_in(activity: np.ndarray) -> Signal:
        return signal_of(activity, trials.mask, groups) if np.all(np.abs(activity) <= limit) else runs_away

    current, activity = _activity(model, draw, trials, 1.0)
    without, tenfold = (_activity(model, draw, trials, factor)[1] for factor in (0.0, 10.0))
    signal = signal_in(activity)
    diverges = signal is runs_away
    changed = runs_away if diverges else signal_in(activity - without)
    return NetworkStatistics(
        num_networks=1,
        share_diverging=float(diverges),
        signal=signal,
        levels=(signal.level, signal.level),
        level_without_inputs=signal_in(without).level,
        level_of_tenfold_inputs=signal_in(tenfold).level,
        input_modulation=np.inf if diverges else signal._replace(temporal_sd=changed.temporal_sd).modulation,
        spectral_radius=np.inf if diverges else _spectral_radius(model, draw, trials, W, current.mean(axis=(0, 1))),
        weights=_weights(W.dense(0), draw["B"][0], draw["b"][0], trials.cell_types),
    )


def _activity(
    model: LowRankModel, draw: dict[str, np.ndarray], trials: Recording, factor: float
) -> tuple[np.ndarray, np.ndarray]:
    """(trial, time, neuron) currents and expected activity, counts per second, of one network under scaled inputs."""
    scaled = dataclasses.replace(trials, inputs=factor * trials.inputs)
    current, activity = np.asarray(simulate_each(currents_and_activity, model, draw, scaled))[0]
    return current, activity


def _spectral_radius(
    model: LowRankModel, draw: dict[str, np.ndarray], trials: Recording, W: LowRankConnectivity, current: np.ndarray
) -> float:
    """Of J = 1 - a + a W phi'(x).

    Without a known matrix beside the factors, J has the eigenvalues of the filtered sums of rates that drive the
    neurons of each time constant (`LowRankModel.latent_factors`), and 1 - a; with as many of these as neurons, J is no
    larger.
    """
    parameters = {name: value[0] for name, value in to_coordinates(model, draw, trials).items()}
    data = model.data(trials)
    a = np.asarray(model.integration_constants(parameters, data))
    slope = np.asarray(NONLINEARITIES[model.nonlinearity].slope(jnp.asarray(current)))
    left, right = (np.asarray(each) for each in model.factors(parameters, data))
    if data.background is None and model.num_populations * left.shape[1] < len(a):
        left, right = (np.asarray(each) for each in model.latent_factors(parameters, data))
        of_population = np.asarray(data.dt / model.time_constants_of(parameters, data.dt))
        own = of_population[np.asarray(model.population_of_latents(left.shape[1], data.population))]
        jacobian = np.diag(1.0 - own) + own[:, None] * ((right * slope[:, None]).T @ left) / len(left)
    else:
        recurrent = left @ right.T / len(left) if data.background is None else W.dense(0)
        jacobian = np.diag(1.0 - a) + a[:, None] * recurrent * slope
    return float(max(np.max(np.abs(np.linalg.eigvals(jacobian))), np.max(1.0 - a)))


def _weights(W: np.ndarray, B: np.ndarray, b: np.ndarray, cell_types: tuple[str, ...] | None) -> dict[str, WeightRange]:
    """Ranges of W (post, pre), B (neuron, input) and b (neuron,)."""
    if cell_types is None:
        blocks = {"all": W, "inputs": B, "bias": b}
    else:
        types, names = np.asarray(cell_types), sorted(set(cell_types))
        blocks = {f"{pre} -> {post}": W[np.ix_(types == post, types == pre)] for pre in names for post in names}
        blocks |= {f"inputs -> {post}": B[types == post] for post in names}
        blocks |= {f"bias -> {post}": b[types == post] for post in names}
    return {name: WeightRange(block.min(), block.mean(), block.max()) for name, block in blocks.items() if block.size}
