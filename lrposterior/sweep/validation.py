"""Which trials are held out from the fits of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lrposterior.checks import argument_error, as_indices, require_choice, require_positive, require_probability
from lrposterior.recording import Recording
from lrposterior.sweep.configuration import require_table


@dataclass(frozen=True)
class Validation:
    """The trials that are held out, and how their averages are smoothed.

    Attributes:
        fraction: share of the trials, drawn anew for every seed, and the same for all configurations.
        trials: indices or labels of the trials instead, the same for every seed; None for a fraction.
        smoothing: standard deviation in s of the kernel that smooths trials before they are averaged, or None for two
            bins.

    Raises:
        ValueError: if a value is out of its range.
    """

    fraction: float = 0.2
    trials: tuple[int | str, ...] | None = None
    smoothing: float | None = None

    def __post_init__(self) -> None:
        require_probability(self.fraction, "validation.fraction")
        if self.smoothing is not None:
            require_positive(self.smoothing, "validation.smoothing", "s")

    @classmethod
    def from_dict(cls, table: Any) -> Validation:
        """From a table of a plan.

        Raises:
            ValueError: if a name is not known, or both a fraction and trials are given.
        """
        given: dict[str, Any] = dict(require_table(table, "validation"))
        for name in given:
            require_choice(name, "validation", ("fraction", "trials", "smoothing"))
        if "trials" in given:
            if "fraction" in given:
                raise argument_error("validation", "a fraction, or trials", "both", "leave one out")
            given["trials"] = tuple(given["trials"]) if isinstance(given["trials"], list) else (given["trials"],)
        return cls(**given)

    def split(self, recording: Recording, seed: int) -> tuple[Recording, Recording]:
        """The trials that are fitted and those that are held out.

        Raises:
            ValueError: if there is no such trial, or none would be left to fit.
        """
        if self.trials is None:
            return recording.split(self.fraction, seed=seed)
        held_out = as_indices(list(self.trials), "validation.trials", "trial", recording.num_trials)
        rest = np.setdiff1d(np.arange(recording.num_trials), held_out)
        if not rest.size:
            raise argument_error("validation.trials", "trials left to fit", "all of them", "hold out fewer")
        return recording.select(trials=rest), recording.select(trials=held_out)

    def overlap(self, recording: Recording) -> float:
        """Held-out over fitted trials where every seed draws its own, else 0: see `lrposterior.sweep.statistics`."""
        if self.trials is not None:
            return 0.0
        training, held_out = self.split(recording, 0)
        return held_out.num_trials / training.num_trials
