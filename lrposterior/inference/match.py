"""Networks whose simulated trials match recorded ones, in their averages and in how they vary: point estimates."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from tqdm.auto import tqdm

from lrposterior.checks import (
    argument_error,
    as_indices,
    as_labels,
    require_choice,
    require_integer,
    require_number,
    require_positive,
)
from lrposterior.distribution import SampleDistribution
from lrposterior.files import require_file_name
from lrposterior.inference import loadings
from lrposterior.inference.approximation import CONVERGED
from lrposterior.inference.match_start import match_start
from lrposterior.inference.problem import ScaledProblem
from lrposterior.inference.recorded_means import has_rates
from lrposterior.matching.checkpoint import load_courses, save_courses
from lrposterior.matching.course import Course, Schedule
from lrposterior.matching.problem import MatchingProblem
from lrposterior.matching.sinkhorn import COSTS, Cost
from lrposterior.matching.training import Trials, Weights, learning_rates
from lrposterior.model import LowRankModel
from lrposterior.observations import CalciumObservation
from lrposterior.parameters import ParameterSpace
from lrposterior.posterior import FitStatistics, Posterior
from lrposterior.precision import double_precision
from lrposterior.recording import Recording

# Epochs between two checkpoints.
CHECKPOINT_EVERY = 10


@dataclass(frozen=True)
class Match:
    """Networks fitted by descent, so that simulated trials have the averages and the variability of recorded ones.

        L = L_neuron + balanced L_trial + weight_penalty L_reg + activity_penalty ((mean - target) / target)²

    L_neuron compares averages over trials neuron by neuron: correlation, mean and variance
    (`lrposterior.matching.losses`). L_trial is a Sinkhorn divergence between simulated and recorded trials
    (`lrposterior.matching.sinkhorn`), scaled so that its slope by the simulated trials has the norm of that of
    L_neuron. Every recorded trial is simulated under its own inputs, with process noise where the model has it and the
    noise of the observation, drawn anew in every step. Trials are smoothed first; averages are over those of a step.

    The result is point estimates and no posterior: the networks of an ensemble, each from another start.

    Args:
        num_members: networks.
        width: standard deviation in s of the Gaussian kernel that smooths trials.
        conditions: (trial,) labels of the trials that are averaged together, or "labels" for those of the recording;
            all where left out. Averages over different inputs hide what the network does with them.
        cost: of L_trial: "euclidean", the squared difference, or "poisson", the divergence y log(y / m) - y + m.
        entropy: regularisation of the divergence, over the mean cost between recorded trials.
        weight_penalty: of L_reg, the sum of the squared entries of W and B.
        activity_penalty: of the mean activity's distance from its target; 0 leaves it out.
        target_rate: the target, in spikes/s of counts, else in the unit of the recording; None is the recorded mean.
        warm_up: epochs on L_neuron alone.
        ramp: epochs over which L_trial then comes in.
        num_epochs: largest number of epochs.
        patience: epochs after the ramp without a higher correlation of the averages of validation trials, after which a
            network is done. The one with the highest correlation is kept.
        batch_size: largest number of trials of a step; an epoch has steps of one size.
        learning_rate: of Adam, in prior standard deviations.
        time_constant_rate: that of time constants that have a prior.
        validation: share of the trials that is held out, or the numbers of these trials; 0 holds out none, and every
            network goes through all epochs.
        checkpoint: name of a `.npz` file that is written on the way. A fit with the same arguments goes on from it and
            ends where it would have ended, to the bit; it may have more epochs, members or patience.

    Raises:
        ValueError: if an option is out of its range.
    """

    num_members: int = 1
    width: float = 0.05
    conditions: Sequence[str] | Literal["labels"] | None = None
    cost: Cost = "euclidean"
    entropy: float = 0.05
    weight_penalty: float = 1e-4
    activity_penalty: float = 0.0
    target_rate: float | None = None
    warm_up: int = 50
    ramp: int = 50
    num_epochs: int = 500
    patience: int = 50
    batch_size: int = 100
    learning_rate: float = 0.01
    time_constant_rate: float = 0.001
    validation: float | Sequence[int] = 0.2
    checkpoint: str | Path | None = None

    def __post_init__(self) -> None:
        require_choice(self.cost, "cost", COSTS)
        for name in ("num_members", "patience", "batch_size"):
            require_integer(getattr(self, name), name, minimum=1)
        for name in ("warm_up", "ramp"):
            require_integer(getattr(self, name), name)
        mend = "give epochs for all losses together, after warm_up and ramp"
        require_integer(self.num_epochs, "num_epochs", minimum=self.warm_up + self.ramp + 1, mend=mend)
        for name in ("width", "entropy", "learning_rate", "time_constant_rate"):
            object.__setattr__(self, name, require_positive(getattr(self, name), name, "s" if name == "width" else ""))
        for name in ("weight_penalty", "activity_penalty"):
            object.__setattr__(self, name, require_positive(getattr(self, name), name, allow_zero=True))
        if self.target_rate is not None:
            object.__setattr__(self, "target_rate", require_positive(self.target_rate, "target_rate"))
        if isinstance(self.conditions, str):
            require_choice(self.conditions, "conditions", ("labels",))
        elif self.conditions is not None:
            object.__setattr__(
                self, "conditions", as_labels(self.conditions, "conditions", "trial", len(self.conditions))
            )
        if self.checkpoint is not None:
            object.__setattr__(self, "checkpoint", require_file_name(self.checkpoint, "checkpoint", (".npz",)))
        object.__setattr__(self, "validation", _checked_validation(self.validation))

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.warm_up, self.ramp, self.num_epochs, self.patience)


def _checked_validation(validation: Any) -> float | tuple[int, ...]:
    """A share of the trials, or their numbers."""
    if np.ndim(validation) == 1 and len(validation):
        return tuple(require_integer(number, "validation") for number in validation)
    expected, mend = "a share of the trials in [0, 1), or the numbers of some", "for example 0.2"
    share = require_number(validation, "validation", expected, mend)
    if not 0.0 <= share < 1.0:
        raise argument_error("validation", expected, f"{share:g}", mend)
    return share


@double_precision
def fit_match(model: LowRankModel, recording: Recording, method: Match, *, seed: int, progress: bool) -> Posterior:
    """Fit networks that match a recording.

    Raises:
        FitError: if no start has rates as recorded, or a network diverges.
        ValueError: if model, recording and options do not fit each other, or the checkpoint is that of another fit.
    """
    matched = match_networks(model, recording, method, seed=seed, progress=progress)
    courses, best = matched.courses, matched.best
    statistics = FitStatistics(
        objective=best.loss,
        gradient_norm=float("nan"),
        decrement=float("nan"),
        num_iterations=max(course.epoch for course in courses),
        wall_time=matched.seconds,
        log_evidence=None,
        evidence_note="point estimates have none, and their scatter is no posterior",
        training_loss=np.array([course.loss for course in courses]),
        validation_loss=np.array([1.0 - course.validation for course in courses]),
    )
    networks = np.stack([course.best.astype(np.float64) for course in courses])
    status, draws = _status(courses, method), SampleDistribution(networks[None])
    base = matched.base
    return Posterior(base.model, base.recording, "match", seed, status, statistics, best.best, draws)


@dataclass(frozen=True, eq=False)
class Matched:
    """Networks that match a recording, and what they were fitted to.

    Attributes:
        base: the model, settled, and the trials that were fitted.
        matching: these trials and those held out, as the losses take them.
        courses: of every network, to its end.
        seconds: how long it took.
    """

    base: ScaledProblem
    matching: MatchingProblem
    courses: list[Course]
    seconds: float

    @property
    def best(self) -> Course:
        """The network that matches best."""
        return best_course(self.courses)


@double_precision
def match_networks(model: LowRankModel, recording: Recording, method: Match, *, seed: int, progress: bool) -> Matched:
    """The networks of `fit_match`. Raises: as there."""
    started = time.perf_counter()
    require_suitable(model, recording, method)
    chosen, held = split_trials(recording.num_trials, method, seed)
    if loadings.evidence_decides(model):
        model = loadings.independent(model)
    base = ScaledProblem.settled(model, recording.select(trials=chosen))
    matching = matching_problem(base.model, base.space, recording, method, chosen, held, seed)

    def start_of(network: int) -> np.ndarray:
        return match_start(base, seed=(seed, network))

    courses = train(matching, start_of, method, progress)
    return Matched(base, matching, courses, time.perf_counter() - started)


def require_suitable(model: LowRankModel, recording: Recording, method: Match) -> None:
    """Check that such trials can be matched by such a model.

    Raises:
        ValueError: with the mend.
    """
    if isinstance(model.observation, CalciumObservation):
        mend = "fit what deconvolve_calcium makes of it"
        raise argument_error("observation", "rates, currents or counts, to match trials", "calcium", mend)
    if method.cost == "poisson" and (not has_rates(model) or np.any(recording.activity[recording.mask] < 0.0)):
        mend = "use cost='euclidean'"
        raise argument_error("cost", "'euclidean' for activity that may be negative", "'poisson'", mend)
    if method.activity_penalty > 0.0 and not has_rates(model):
        mend = "leave activity_penalty out"
        raise argument_error(
            "activity_penalty", "0 for activity that may be negative", f"{method.activity_penalty:g}", mend
        )
    if method.conditions == "labels" and recording.trial_labels is None:
        mend = "give trial_labels to the Recording, or leave conditions out"
        raise argument_error("conditions", "a recording with trial_labels", "one without", mend)
    if method.conditions not in (None, "labels"):
        as_labels(method.conditions, "conditions", "trial", recording.num_trials)
    if not recording.fully_observed:
        seen = recording.mask.reshape(recording.num_trials, -1).astype(np.float32)
        if np.any(seen @ seen.T == 0.0):
            mend = "fit sessions with other neurons one by one"
            raise argument_error("mask", "trials of which every two have observed entries in common", "others", mend)


def split_trials(num_trials: int, method: Match, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the trials that are fitted, and of those that are held out."""
    if isinstance(method.validation, Sequence):
        held = as_indices(method.validation, "validation", "trial", num_trials)
    else:
        order = np.random.default_rng([seed, 12]).permutation(num_trials)
        held = order[: int(np.ceil(method.validation * num_trials))]
    chosen = np.setdiff1d(np.arange(num_trials), held)
    if not chosen.size:
        raise argument_error("validation", "trials to be left for the fit", "all of them", "hold out fewer")
    return chosen, np.sort(held)


def matching_problem(
    model: LowRankModel,
    space: ParameterSpace,
    recording: Recording,
    method: Match,
    chosen: np.ndarray,
    held: np.ndarray,
    seed: int,
) -> MatchingProblem:
    """The epochs of a settled model with these parameters on the trials that are chosen."""
    target = method.target_rate
    if target is not None and model.observation.of == "count":
        target = target * recording.dt
    conditions = recording.trial_labels if method.conditions == "labels" else method.conditions
    labels = np.zeros(recording.num_trials) if conditions is None else np.asarray(conditions)
    belongs = labels[:, None] == np.unique(labels)

    def trials(numbers: np.ndarray) -> Trials:
        return Trials.of(model, recording.select(trials=numbers), method.width, belongs[numbers], target)

    num_batches = -(-len(chosen) // method.batch_size)
    with jax.enable_x64(False):
        return MatchingProblem(
            model,
            space,
            trials(chosen),
            trials(held) if held.size else None,
            Weights(method.cost, method.entropy, method.weight_penalty, method.activity_penalty),
            method.schedule,
            learning_rates(space, method.learning_rate, method.time_constant_rate),
            len(chosen) // num_batches,
            seed,
        )


def train(
    matching: MatchingProblem, start_of: Callable[[int], np.ndarray], method: Match, progress: bool
) -> list[Course]:
    """The courses of all networks, to their end, each from its whitened start, which is found in double precision."""
    path = None if method.checkpoint is None else Path(method.checkpoint)
    with jax.enable_x64(False):
        courses = [] if path is None else load_courses(path, matching)

    def save() -> None:
        if path is not None:
            save_courses(path, matching, courses)

    with tqdm(total=method.num_members * method.num_epochs, desc="match", unit="epoch", disable=not progress) as bar:
        bar.update(sum(course.epoch for course in courses))
        for network in range(method.num_members):
            if network == len(courses):
                courses.append(Course.at(start_of(network)))
            while not courses[network].has_ended(method.schedule):
                with jax.enable_x64(False):
                    courses[network], epoch = matching.advance(courses[network], network)
                bar.update()
                bar.set_postfix_str(f"network {network + 1} of {method.num_members}, {epoch}")
                if courses[network].epoch % CHECKPOINT_EVERY == 0:
                    save()
            save()
    return courses[: method.num_members]


def best_course(courses: Sequence[Course]) -> Course:
    """That with the highest validation correlation, or, where no trials are held out, with the lowest loss."""
    return max(courses, key=lambda course: -course.loss if np.isnan(course.validation) else course.validation)


def _status(courses: list[Course], method: Match) -> str:
    moving = sum(not course.has_settled(method.schedule) for course in courses)
    if not moving:
        return CONVERGED
    mend = "raise num_epochs" if method.validation else "whether they had settled only held-out trials can tell"
    return f"not converged: {moving} of {len(courses)} networks went through all {method.num_epochs} epochs; {mend}"
