"""What is known of a network, and what trials would add to it, as matrices over the coordinates.

The posterior is Normal around the mode with the precision Lambda = 1 + F in whitened coordinates, F the expected Fisher
information of the recording, and trials with a pattern p add F_p (`lrposterior.curvature`). All of them vanish along
the gauge, whose directions so drop out of every difference of log determinants. The expected information gain is

    1/2 log det(1 + Gamma^-1/2 Cov q Gamma^-1/2) = 1/2 [log det(Lambda + F_p) - log det Lambda]

with q the activity of the trials and Gamma its noise, and the part of it that bears on a goal, what trials with other
stimulations with information F* would show, is their mutual information

    1/2 [log det(Lambda + F*) + log det(Lambda + F_p) - log det Lambda - log det(Lambda + F* + F_p)],

the goal-directed 1/2 log det(S** + Gamma*) - 1/2 log det(S** + Gamma* - S*p (Spp + Gamma)^-1 Sp*)
(Lindley 1956, doi:10.1214/aoms/1177728069; Chaloner and Verdinelli 1995, doi:10.1214/ss/1177009939).
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.curvature import information
from lrposterior.data import Data
from lrposterior.design.trials import Setting
from lrposterior.model import LowRankModel
from lrposterior.parameters import ParameterSpace
from lrposterior.precision import double_precision, to_numpy


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trials:
    """Trials with a pattern still to be chosen, as an argument of compiled functions.

    Attributes:
        space: the parameters.
        z: (coordinate,) the mode.
        data: one trial per condition, without stimulation.
        time_course: (time,) of the stimulation.
        weight: how often the trials of all conditions are recorded.
    """

    space: ParameterSpace
    z: Array
    data: Data
    time_course: Array
    weight: Array


@dataclass(frozen=True, eq=False)
class DenseBeliefs:
    """A Normal posterior over the coordinates, and what patterns would teach.

    Attributes:
        structure: the structure of the settled model.
        trials: the trials to come.
        precision: (coordinate, coordinate) Lambda, with everything chosen so far.
        goal: (coordinate, coordinate) F*, or None where all is to be learnt.
    """

    structure: LowRankModel
    trials: Trials
    precision: np.ndarray
    goal: np.ndarray | None = None

    @classmethod
    @double_precision
    def of(cls, setting: Setting, trials_per_pattern: int) -> DenseBeliefs:
        """Before the first trial."""
        structure, data = setting.model.structure, setting.model.data(setting.recording)
        known = _information(structure, setting.space, jnp.asarray(setting.z), data)
        silent = setting.model.data(setting.trials(np.zeros(setting.recording.num_neurons)))
        trials = Trials(
            setting.space,
            jnp.asarray(setting.z),
            silent,
            jnp.asarray(setting.experiment.time_course),
            jnp.asarray(trials_per_pattern / setting.num_conditions),
        )
        return cls(structure, to_numpy(trials), np.eye(len(known)) + np.asarray(known))

    def towards(self, goals: np.ndarray) -> DenseBeliefs:
        """With the goal to predict one trial per condition with each of the patterns (goal, neuron)."""
        each = dataclasses.replace(self.trials, weight=np.ones(()))
        total = sum(_pattern_information(self.structure, each, pattern) for pattern in goals)
        return dataclasses.replace(self, goal=np.asarray(total))

    def towards_readout(self, weights: np.ndarray, patterns: np.ndarray) -> DenseBeliefs:
        """With the goal to predict a readout (neuron,) of such trials with each of the patterns (pattern, neuron)."""
        total = sum(_readout_information(self.structure, self.trials, pattern, weights) for pattern in patterns)
        return dataclasses.replace(self, goal=np.asarray(total))

    @property
    def has_diminishing_gains(self) -> bool:
        return self.goal is None

    def gains(self, patterns: np.ndarray) -> np.ndarray:
        """(pattern,) nats that trials with each pattern (pattern, neuron) alone are expected to add."""
        gained = _gains(self.structure, self.trials, self.precision, self.goal, patterns)
        return 0.5 * (gained - self._present)

    def gain_and_slope(self, pattern: np.ndarray) -> tuple[float, np.ndarray]:
        """The gain of one pattern and its derivatives (neuron,)."""
        value, slope = _gain_and_slope(self.structure, self.trials, self.precision, self.goal, pattern)
        return 0.5 * (float(value) - self._present), 0.5 * slope

    def after(self, pattern: np.ndarray) -> DenseBeliefs:
        """The beliefs that trials with a pattern will leave, to the accuracy of the linearisation."""
        return dataclasses.replace(self, precision=self.precision + self.information(pattern))

    def information(self, pattern: np.ndarray) -> np.ndarray:
        """(coordinate, coordinate) F_p of the trials with a pattern."""
        return _pattern_information(self.structure, self.trials, pattern)

    @functools.cached_property
    def _present(self) -> float:
        present = np.linalg.slogdet(self.precision)[1]
        return float(present if self.goal is None else present - np.linalg.slogdet(self.precision + self.goal)[1])


def _log_determinant(precision: Array) -> Array:
    return 2.0 * jnp.sum(jnp.log(jnp.diag(jnp.linalg.cholesky(precision))))


def _of_pattern(structure: LowRankModel, trials: Trials, pattern: Array) -> Array:
    data = trials.data
    stimulation = jnp.broadcast_to(trials.time_course[None, :, None] * pattern, data.activity.shape)
    stimulated = dataclasses.replace(data, stimulation=stimulation)
    return trials.weight * information(structure, trials.space, trials.z, stimulated)


def _gain(structure: LowRankModel, trials: Trials, precision: Array, goal: Array | None, pattern: Array) -> Array:
    reached = precision + _of_pattern(structure, trials, pattern)
    gained = _log_determinant(reached)
    return gained if goal is None else gained - _log_determinant(reached + goal)


@functools.partial(jax.jit, static_argnums=0)
def _information(structure: LowRankModel, space: ParameterSpace, z: Array, data: Data) -> Array:
    return information(structure, space, z, data)


@double_precision
@functools.partial(jax.jit, static_argnums=0)
def _pattern_information(structure: LowRankModel, trials: Trials, pattern: Array) -> Array:
    return _of_pattern(structure, trials, pattern)


@double_precision
@functools.partial(jax.jit, static_argnums=0)
def _readout_information(structure: LowRankModel, trials: Trials, pattern: Array, weights: Array) -> Array:
    """J^T J / noise variance of the readout of the observed quantity."""
    space, data = trials.space, trials.data
    stimulation = jnp.broadcast_to(trials.time_course[None, :, None] * pattern, data.activity.shape)
    stimulated = dataclasses.replace(data, stimulation=stimulation)

    def read(dynamics: Array) -> Array:
        parameters = space.unwhiten(jnp.concatenate([dynamics, trials.z[space.num_dynamics :]]))
        mean = structure.emission(parameters, stimulated.dt).mean(structure.currents(parameters, stimulated))
        return (mean @ weights).ravel()

    jacobian = jax.jacrev(read)(trials.z[: space.num_dynamics])
    noise_scale = jnp.exp(space.unwhiten(trials.z)["log_noise_scale"])
    return jacobian.T @ jacobian / jnp.sum((weights * noise_scale) ** 2)


@double_precision
@functools.partial(jax.jit, static_argnums=0)
def _gains(structure: LowRankModel, trials: Trials, precision: Array, goal: Array | None, patterns: Array) -> Array:
    return jax.lax.map(lambda pattern: _gain(structure, trials, precision, goal, pattern), patterns)


@double_precision
@functools.partial(jax.jit, static_argnums=0)
def _gain_and_slope(
    structure: LowRankModel, trials: Trials, precision: Array, goal: Array | None, pattern: Array
) -> tuple[Array, Array]:
    return jax.value_and_grad(_gain, argnums=4)(structure, trials, precision, goal, pattern)
