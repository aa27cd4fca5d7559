"""A model, the trials that it is to match, and what an epoch does to a network. Use it in single precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.fit_error import FitError
from lrposterior.matching.course import Course, Schedule
from lrposterior.matching.training import Losses, Trials, Weights, run_epoch, validation_correlation
from lrposterior.model import LowRankModel
from lrposterior.parameters import ParameterSpace


class Epoch(NamedTuple):
    """What an epoch came to: its number from 0, its stage, losses and validation correlation (None without trials)."""

    number: int
    stage: str
    losses: Losses
    validation: float | None

    def __str__(self) -> str:
        losses = ", ".join(f"{name} {float(value):.3g}" for name, value in self.losses._asdict().items())
        return f"{self.stage}: {losses}" + ("" if self.validation is None else f", validation {self.validation:.3f}")


@dataclass(frozen=True, eq=False)
class MatchingProblem:
    """What stays the same over all epochs.

    Attributes:
        model: a settled model.
        space: its parameters.
        trials: those that are fitted.
        validation: those that are held out, or None.
        weights: of the losses.
        schedule: of the course.
        rates: (coordinate,) learning rates.
        batch_size: trials of a step.
        seed: of batches and noise.
    """

    model: LowRankModel
    space: ParameterSpace
    trials: Trials
    validation: Trials | None
    weights: Weights
    schedule: Schedule
    rates: np.ndarray
    batch_size: int
    seed: int

    def advance(self, course: Course, network: int) -> tuple[Course, Epoch]:
        """The course of a network after one more epoch.

        Noise and batches depend on seed, network and epoch alone, so that it does not matter where a course was
        interrupted. Validation trials have the same noise in every epoch.

        Raises:
            FitError: if the network diverges.
        """
        key = jax.random.fold_in(jax.random.key(self.seed), network)
        share = jnp.asarray(self.schedule.share(course.epoch), jnp.float32)
        state, losses = run_epoch(
            self.model.structure,
            self.weights,
            self.batch_size,
            self.space,
            jnp.asarray(self.rates),
            self.trials,
            course.state,
            share,
            jax.random.fold_in(key, course.epoch),
        )
        if not np.all(np.isfinite(state.z)):
            raise FitError(
                f"match: the network diverged in epoch {course.epoch + 1}, after which its parameters are not finite; "
                "lower learning_rate, or use a bounded nonlinearity"
            )
        correlation = None if self.validation is None else self._correlation(state.z)
        epoch = Epoch(course.epoch, self.schedule.stage(course.epoch), losses, correlation)
        return course.after(state, losses, correlation, self.schedule), epoch

    def _correlation(self, z: Array) -> float:
        key = jax.random.key(self.seed)
        return float(validation_correlation(self.model.structure, self.space, self.validation, z, key))
