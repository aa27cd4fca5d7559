"""The course of one network: stages, the network that predicts best so far, and when to stop."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from lrposterior.matching.training import Losses, State


@dataclass(frozen=True)
class Schedule:
    """When L_trial comes in, and when a course ends.

    Attributes:
        warm_up: epochs on L_neuron alone.
        ramp: epochs over which L_trial comes in, linearly.
        num_epochs: largest number of all.
        patience: epochs after the ramp without a better validation, after which a course ends.
    """

    warm_up: int
    ramp: int
    num_epochs: int
    patience: int

    def share(self, epoch: int) -> float:
        """Of L_trial in an epoch, counted from 0."""
        return float(np.clip((epoch + 1 - self.warm_up) / (self.ramp + 1), 0.0, 1.0))

    def stage(self, epoch: int) -> str:
        share = self.share(epoch)
        return "warm-up" if share == 0.0 else "ramp" if share < 1.0 else "all"


@dataclass(frozen=True, eq=False)
class Course:
    """How far a network has come.

    Attributes:
        state: after the last epoch.
        epoch: number of epochs so far.
        best: (coordinate,) the network with the highest validation correlation since the end of the ramp; the last one
            where there is no validation.
        validation: its validation correlation; -inf before there is one, and NaN where there are no trials for it.
        loss: the sum of the losses in its epoch.
        stale: epochs since then.
    """

    state: State
    epoch: int
    best: np.ndarray
    validation: float
    loss: float
    stale: int

    @classmethod
    def at(cls, z: np.ndarray) -> Course:
        state = State.at(z)
        return cls(state, 0, np.asarray(state.z), -np.inf, np.nan, 0)

    def after(self, state: State, losses: Losses, validation: float | None, schedule: Schedule) -> Course:
        """The course after one more epoch, with its validation correlation; None where there are no trials for it."""
        ahead = dataclasses.replace(self, state=state, epoch=self.epoch + 1)
        if schedule.share(self.epoch) < 1.0:
            return ahead
        if validation is not None and validation <= self.validation:
            return dataclasses.replace(ahead, stale=self.stale + 1)
        loss = float(sum(np.asarray(each) for each in losses))
        best = np.asarray(state.z)
        return dataclasses.replace(
            ahead, best=best, validation=np.nan if validation is None else validation, loss=loss, stale=0
        )

    def has_settled(self, schedule: Schedule) -> bool:
        """Whether its validation has not risen any more."""
        return self.stale >= schedule.patience

    def has_ended(self, schedule: Schedule) -> bool:
        return self.has_settled(schedule) or self.epoch >= schedule.num_epochs
