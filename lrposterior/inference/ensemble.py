"""Ensembles of networks, each fitted on its own from a random start: the "twins" of a recorded network.

The scatter of an ensemble is not a posterior: it is the range of the optima that descents from these starts happen to
reach. It is here to be compared with one.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from lrposterior.checks import argument_error, require_integer, require_number
from lrposterior.circuits.models import FullRankNetwork, LatentCircuit, NetworkModel
from lrposterior.circuits.posterior import NetworkEnsemble, NetworkPosterior, simulate_networks
from lrposterior.distribution import SampleDistribution
from lrposterior.inference.approximation import CONVERGED
from lrposterior.inference.circuit_mode import CircuitProblem
from lrposterior.inference.descent import Member, descend
from lrposterior.inference.full_rank import FullRankProblem
from lrposterior.inference.problem import Problem
from lrposterior.model import LowRankModel
from lrposterior.posterior import FitStatistics, Posterior
from lrposterior.precision import double_precision
from lrposterior.recording import Recording
from lrposterior.rollouts import predicted_activity


@dataclass(frozen=True)
class Ensemble:
    """Many networks, each fitted from a random start by descent of the squared error.

    Args:
        num_networks: how many.
        regularisation: weight of -log prior in the loss -log likelihood + regularisation * -log prior. With 0 whatever
            the data do not determine stays as it was at the start; with 1 every network is a mode of the posterior.
        num_steps: largest number of steps of each descent.
        validation_fraction: share of the trials that is held out from all networks, in [0, 1).

    Raises:
        ValueError: if an option is out of its range.
    """

    num_networks: int = 20
    regularisation: float = 0.0
    num_steps: int = 300
    validation_fraction: float = 0.2

    def __post_init__(self) -> None:
        require_integer(self.num_networks, "num_networks", minimum=1)
        require_integer(self.num_steps, "num_steps", minimum=1)
        for name, upper in (("regularisation", np.inf), ("validation_fraction", 1.0)):
            value = require_number(getattr(self, name), name)
            if not 0.0 <= value < upper:
                raise argument_error(name, f"a number in [0, {upper:g})", f"{value:g}", "choose one in this range")


def split_trials(recording: Recording, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The trials to fit and those held out, at least one of each; nothing is held out where the fraction is 0.

    Raises:
        ValueError: if no trial would be left.
    """
    num_held = int(np.ceil(fraction * recording.num_trials))
    if num_held >= recording.num_trials:
        raise argument_error(
            "validation_fraction",
            "trials to be left for the fit",
            f"{fraction:g} of {recording.num_trials} trials",
            "lower it, or set it to 0",
        )
    order = np.random.default_rng([seed, 11]).permutation(recording.num_trials)
    return np.sort(order[num_held:]), np.sort(order[:num_held])


@double_precision
def fit_ensemble(
    model: LowRankModel | NetworkModel, recording: Recording, method: Ensemble, *, seed: int, progress: bool
) -> Posterior | NetworkPosterior:
    """Fit the networks of an ensemble.

    Raises:
        ValueError: if the recording does not suit the model, or no trial would be left for the fit.
    """
    started = time.perf_counter()
    chosen, others = split_trials(recording, method.validation_fraction, seed)
    fitted, held = recording.select(trials=chosen), recording.select(trials=others) if others.size else None
    if isinstance(model, LatentCircuit) and model.outputs is not None:
        model = dataclasses.replace(model, outputs=model.outputs_for(recording)[chosen])
    problem = _problem(model, fitted)
    members: list[Member] = []
    with tqdm(total=method.num_networks, desc="ensemble", unit="network", disable=not progress) as bar:
        for index in range(method.num_networks):
            random = np.random.default_rng([seed, index])
            members.append(problem.train(random, method.regularisation, method.num_steps))
            bar.update()
    stacked = {name: np.stack([member.parameters[name] for member in members]) for name in members[0].parameters}
    coordinates = stacked.pop("z", np.empty((len(members), 0)))

    def statistics(predict: Callable[[Recording], np.ndarray]) -> FitStatistics:
        validation_loss = _losses(predict, held) if held else np.full(len(members), np.nan)
        return _statistics(members, _losses(predict, fitted), validation_loss, started)

    status = _status(members, method)
    if isinstance(problem, LowRankProblem):
        settled = problem.problem.model
        named = settled.named(problem.problem.space.unwhiten(coordinates), recording.dt)
        best = coordinates[int(np.argmin([member.objective for member in members]))]
        return Posterior(
            settled,
            fitted,
            "ensemble",
            seed,
            status,
            statistics(lambda trials: predicted_activity(settled, named, trials)),
            best,
            SampleDistribution(coordinates[None]),
        )
    network = problem.model

    def simulate(trials: Recording) -> np.ndarray:
        return simulate_networks(network, stacked, trials.inputs, trials.stimulation, trials.dt)

    return NetworkPosterior(network, fitted, "ensemble", seed, status, statistics(simulate), NetworkEnsemble(stacked))


@dataclass(frozen=True, eq=False)
class LowRankProblem:
    """A low-rank network on a recording."""

    problem: Problem

    def train(self, random: np.random.Generator, regularisation: float, num_steps: int) -> Member:
        """A network from a start drawn from the prior, with the noise at its prior's centre."""
        problem = self.problem
        start = random.standard_normal(problem.space.size)
        start[problem.space.num_dynamics :] = 0.0
        while not np.isfinite(problem.negative_log_density(start)):
            start = 0.5 * start

        def loss(z: np.ndarray) -> tuple[float, np.ndarray]:
            beyond = 1.0 - regularisation
            return problem.negative_log_density(z) - 0.5 * beyond * float(z @ z), problem.gradient(z) - beyond * z

        z, objective, steps, converged = descend(loss, start, num_steps)
        return Member({"z": z}, objective, steps, converged)


def _problem(
    model: LowRankModel | NetworkModel, recording: Recording
) -> LowRankProblem | FullRankProblem | CircuitProblem:
    if isinstance(model, LowRankModel):
        return LowRankProblem(Problem.of(model, recording))
    return FullRankProblem(model, recording) if isinstance(model, FullRankNetwork) else CircuitProblem(model, recording)


def _losses(predict: Callable[[Recording], np.ndarray], trials: Recording) -> np.ndarray:
    """(network,) mean squared error over the observed entries of some trials."""
    squares = np.where(trials.mask, (predict(trials) - trials.activity) ** 2, 0.0)
    return squares.sum(axis=(1, 2, 3)) / trials.mask.sum()


def _status(members: list[Member], method: Ensemble) -> str:
    moving = sum(not member.converged for member in members)
    if not moving:
        return CONVERGED
    return (
        f"not converged: {moving} of {len(members)} networks were still descending after {method.num_steps} steps; "
        "raise num_steps"
    )


def _statistics(
    members: list[Member], training_loss: np.ndarray, validation_loss: np.ndarray, started: float
) -> FitStatistics:
    objectives = sorted(member.objective for member in members)
    return FitStatistics(
        objective=objectives[0],
        gradient_norm=float("nan"),
        decrement=float("nan"),
        num_iterations=max(member.num_steps for member in members),
        wall_time=time.perf_counter() - started,
        log_evidence=None,
        evidence_note="an ensemble has none",
        training_loss=training_loss,
        validation_loss=validation_loss,
    )
