"""The trials that a design is about, and the coordinates in which they are described.

A pattern is applied under every condition of an experiment, and the activity of the whole trial is recorded. A random
bulk acts on rates that the recording has not visited and the stimulation will: with U an orthonormal basis of these,

    W0 = A Q^T + A' U^T + unseen,       A'_ik ~ Normal(0, gain² / N),

A' joins the parameters in the same way as A did. Before the experiment it is known by its prior alone, and the
experiment teaches about it as about everything else.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from lrposterior.background import RandomBulk, is_learned
from lrposterior.model import LowRankModel
from lrposterior.parameters import ParameterSpace
from lrposterior.perturbation.experiment import Experiment
from lrposterior.posterior import Posterior
from lrposterior.recording import Recording
from lrposterior.rollouts import simulate_draws

# Rates from which the new patterns U are found, all in all.
MOST_SAMPLES = 2000
MOST_PATTERNS = 40


@dataclass(frozen=True, eq=False)
class Setting:
    """The posterior's mode and its recording, in coordinates that hold what stimulations will make visible.

    Attributes:
        model: settled, the bulk's subspace widened.
        space: its parameters. Where the low-rank part was learned it reads what the recording has visited, Q, alone.
        z: (coordinate,) whitened mode; A' is 0 there.
        recording: what was fitted.
        experiment: conditions and time course of the trials to come.
        visible: share of the squared rates outside Q, of the candidates' perturbed trials, that U holds; 1 without a
            bulk.
    """

    model: LowRankModel
    space: ParameterSpace
    z: np.ndarray
    recording: Recording
    experiment: Experiment
    visible: float

    def trials(self, pattern: np.ndarray) -> Recording:
        """One trial per condition with a pattern (neuron,), its activity left open.

        A neuron that the recording never observed will not be observed either.
        """
        return perturbed_trials(self.recording, self.experiment, pattern)

    @property
    def num_conditions(self) -> int:
        return self.experiment.num_conditions


def perturbed_trials(recording: Recording, experiment: Experiment, pattern: np.ndarray) -> Recording:
    """One trial per condition with a pattern (neuron,), its activity left open."""
    shape = (*experiment.inputs.shape[:2], recording.num_neurons)
    stimulation = np.broadcast_to(experiment.time_course[None, :, None] * pattern, shape)
    mask = np.broadcast_to(recording.mask.any(axis=(0, 1)), shape)
    return Recording(
        np.zeros(shape),
        experiment.dt,
        inputs=experiment.inputs,
        stimulation=stimulation,
        mask=mask,
        cell_types=recording.cell_types,
    )


def make_setting(posterior: Posterior, experiment: Experiment, patterns: np.ndarray, most_coordinates: int) -> Setting:
    """Widen the subspace of a random bulk by what patterns (pattern, neuron) will visit.

    Args:
        posterior: the fitted network.
        experiment: conditions and time course.
        patterns: all candidates and goals.
        most_coordinates: U has as many columns as this number of coordinates leaves room for, one at least.
    """
    model, space, recording = posterior.model, posterior.space, posterior.recording
    if not isinstance(model.background, RandomBulk):
        return Setting(model, space, posterior.mode_coordinates, recording, experiment, 1.0)
    room = (most_coordinates - space.num_dynamics) // recording.num_neurons
    num_new = int(np.clip(room, 1, MOST_PATTERNS))
    widened, visible = _widened(posterior, model.background.visited, experiment, patterns, num_new)
    background = dataclasses.replace(model.background, subspace=widened, dimension=widened.shape[1])
    model = dataclasses.replace(model, background=background)
    read = posterior.subspace if is_learned(posterior.model.background) else None
    wider = dataclasses.replace(model.space_for(recording), read=read)
    parts = []
    for block in wider.blocks:
        part = space.coordinates(posterior.mode_coordinates, block.name)
        if block.name == "A":
            part = np.pad(part, ((0, 0), (0, block.shape[1] - part.shape[1])))
        parts.append(part.ravel())
    return Setting(model, wider, np.concatenate(parts), recording, experiment, visible)


def _widened(
    posterior: Posterior, Q: np.ndarray, experiment: Experiment, patterns: np.ndarray, most_patterns: int
) -> tuple[np.ndarray, float]:
    """[Q, U] (neuron, dimension), and the share of what lies outside Q that U holds."""
    mode = {name: value[None] for name, value in posterior.mode.items()}
    samples = []
    per_pattern = max(1, MOST_SAMPLES // len(patterns))
    for pattern in patterns[:MOST_SAMPLES]:
        trials = perturbed_trials(posterior.recording, experiment, pattern)
        rates = simulate_draws(posterior.model, mode, trials, quantity="rate")[0][:, experiment.begin :]
        rates = rates.reshape(-1, rates.shape[-1])
        kept = np.unique(np.linspace(0, len(rates) - 1, per_pattern).round().astype(int))
        samples.append(rates[kept])
    rates = np.concatenate(samples)
    outside = rates - (rates @ Q) @ Q.T
    _, values, rows = np.linalg.svd(outside, full_matrices=False)
    num_new = min(most_patterns, Q.shape[0] - Q.shape[1], int(np.sum(values > 1e-6 * max(values[0], 1e-300))))
    U = rows[:num_new].T
    U = np.linalg.qr(U - Q @ (Q.T @ U))[0]
    total = float(np.sum(values**2))
    return np.concatenate([Q, U], axis=1), float(np.sum(values[:num_new] ** 2) / total) if total > 0.0 else 1.0
