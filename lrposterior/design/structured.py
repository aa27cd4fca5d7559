"""What is known of a large network, and what trials would add to it, without matrices over the coordinates.

The information of the recording and that of trials with a pattern are each a block for every neuron and a part of low
rank (`lrposterior.structured`); sums of them have the same form. With R R^T the blocks and the prior together,

    log det(Lambda) = log det(R R^T) + log det(1 + diag(tau) U^T U),      U = R^-1 Y,

for F = blockdiag(D) + Y diag(tau) Y^T. The formulae of the gains are those of `lrposterior.design.dense`.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from lrposterior.design.trials import Setting
from lrposterior.precision import double_precision
from lrposterior.recording import Recording
from lrposterior.structured.blocks import WhitenedBlocks
from lrposterior.structured.coordinates import Coordinates
from lrposterior.structured.information import StructuredInformation
from lrposterior.structured.mode import Accuracy, posterior_information
from lrposterior.structured.system import System
from lrposterior.structured.trajectory import Trajectory, run_latents

# Trials with a pattern add little to the recording: their information is followed to this part of a prior precision.
RESIDUAL = 0.02


def serves(setting: Setting) -> bool:
    """Whether the structured form knows all parts of the model."""
    return System.serves(setting.model)


@dataclass(frozen=True, eq=False)
class StructuredBeliefs:
    """A Normal posterior over the coordinates of the engine, and what patterns would teach.

    Attributes:
        setting: the mode and the trials.
        coordinates: of the engine.
        known: information of the recording and of everything chosen so far.
        weight: how often the trials of all conditions are recorded.
        goal: information of what is to be predicted, or None where all is to be learnt.
    """

    setting: Setting
    coordinates: Coordinates
    known: StructuredInformation
    weight: float
    goal: StructuredInformation | None = None

    @classmethod
    def of(cls, setting: Setting, trials_per_pattern: int) -> StructuredBeliefs:
        """Before the first trial."""
        system = _system(setting, setting.recording)
        coordinates = Coordinates.of(system.layout, setting.space)
        known = _information(system, coordinates, setting, Accuracy())
        return cls(setting, coordinates, known, trials_per_pattern / setting.num_conditions)

    @property
    def has_diminishing_gains(self) -> bool:
        return self.goal is None

    def towards(self, goals: np.ndarray) -> StructuredBeliefs:
        """With the goal to predict one trial per condition with each of the patterns (goal, neuron)."""
        total = self.information(goals[0])
        for pattern in goals[1:]:
            total = _sum(total, self.information(pattern), 1.0)
        return dataclasses.replace(self, goal=total)

    def gains(self, patterns: np.ndarray) -> np.ndarray:
        """(pattern,) nats that trials with each pattern (pattern, neuron) alone are expected to add."""
        return np.array([self._gain(self.information(pattern)) for pattern in patterns])

    def after(self, pattern: np.ndarray) -> StructuredBeliefs:
        """The beliefs that trials with a pattern will leave, to the accuracy of the linearisation."""
        return dataclasses.replace(self, known=_sum(self.known, self.information(pattern), self.weight))

    def information(self, pattern: np.ndarray) -> StructuredInformation:
        """The information of one trial per condition with a pattern."""
        system = _system(self.setting, self.setting.trials(pattern))
        return _information(system, self.coordinates, self.setting, Accuracy(residual=RESIDUAL))

    def _gain(self, added: StructuredInformation) -> float:
        reached = _sum(self.known, added, self.weight)
        gained = self._log_determinant(reached)
        if self.goal is not None:
            gained -= self._log_determinant(_sum(reached, self.goal, 1.0))
        return 0.5 * (gained - self._present)

    @functools.cached_property
    def _present(self) -> float:
        present = self._log_determinant(self.known)
        return present if self.goal is None else present - self._log_determinant(_sum(self.known, self.goal, 1.0))

    def _log_determinant(self, information: StructuredInformation) -> float:
        """log det of the precision over that of the prior precision."""
        local = WhitenedBlocks.of(information.layout, information.blocks, self.coordinates.deviations)
        factor = local.solve(information.factor)
        inner = np.eye(factor.shape[1]) + information.weights[:, None] * (factor.T @ factor)
        return local.log_determinant + float(np.linalg.slogdet(inner)[1])


def _system(setting: Setting, trials: Recording) -> System:
    return dataclasses.replace(System.of(setting.model, trials), read=setting.space.read)


def _sum(first: StructuredInformation, second: StructuredInformation, weight: float) -> StructuredInformation:
    """The first, and `weight` times the second."""
    return dataclasses.replace(
        first,
        blocks=first.blocks + weight * second.blocks,
        factor=np.concatenate([first.factor, second.factor], axis=1),
        weights=np.concatenate([first.weights, weight * second.weights]),
    )


@double_precision
def _latents(system: System, vector: np.ndarray) -> np.ndarray:
    return run_latents(system, vector)


def _information(
    system: System, coordinates: Coordinates, setting: Setting, accuracy: Accuracy
) -> StructuredInformation:
    """The information of trials at the mode, whatever their activity, with the noise of the mode."""
    vector = coordinates.vector(setting.z)
    log_noise_scale = setting.space.unwhiten(setting.z)["log_noise_scale"]
    latents = _latents(system, vector)
    trajectory = Trajectory(vector, latents, log_noise_scale, np.zeros(system.layout.num_neurons), 0.0)
    return posterior_information(system, coordinates.deviations, trajectory, accuracy)
