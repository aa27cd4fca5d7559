"""The result of a design: which patterns to apply, and what each is expected to teach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lrposterior.checks import read_only
from lrposterior.perturbation.candidates import Candidates

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


@dataclass(frozen=True, eq=False, repr=False)
class PerturbationDesign:
    """Patterns to apply in the next experiment, in the order in which they were chosen.

    Attributes:
        candidates: the patterns, ready for `predict_responses` and for `stimulation`.
        gains: (pattern,) nats that its trials are expected to add to what the recording and the patterns before it
            teach, about the network, or about the goal where there is one.
        is_random: (pattern,) True where a pattern was drawn at random, as a guard against a model that is wrong.
        goal: what the gains are about: "the network", or the goal in words.
        trials_per_pattern: how often every pattern is applied, spread evenly over the conditions.
        visible: share, in squares, of the rates outside the recording's reach whose unknown connectivity the gains
            hold; 1 without a random bulk.
        seed: of the random patterns.
    """

    candidates: Candidates
    gains: np.ndarray
    is_random: np.ndarray
    goal: str
    trials_per_pattern: int
    visible: float
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "gains", read_only(self.gains))
        object.__setattr__(self, "is_random", read_only(self.is_random, bool))

    @property
    def num_patterns(self) -> int:
        return self.candidates.num_candidates

    @property
    def total_gain(self) -> float:
        """Nats that all of it is expected to teach."""
        return float(self.gains.sum())

    @property
    def num_targets(self) -> np.ndarray:
        """(pattern,) number of neurons with a current."""
        return np.count_nonzero(self.candidates.patterns, axis=1)

    def table(self) -> pd.DataFrame:
        """One row for each pattern."""
        import pandas as pd

        columns = {
            "label": np.array(self.candidates.labels, dtype=object),
            "gain [nats]": self.gains,
            "random": self.is_random,
            "targets": self.num_targets,
            "power [current² s]": self.candidates.power,
        }
        return pd.DataFrame(columns)

    def to_xarray(self) -> xr.Dataset:
        """A labelled dataset with the axes pattern, neuron and time."""
        import xarray as xr

        candidates = self.candidates
        variables: dict[str, Any] = {
            "patterns": (("pattern", "neuron"), candidates.patterns, {"units": "current"}),
            "time_course": ("time", candidates.time_course, {"units": "1"}),
            "gain": ("pattern", self.gains, {"units": "nats"}),
            "is_random": ("pattern", self.is_random, {"units": "1"}),
        }
        times = np.arange(candidates.num_bins) * candidates.dt
        coordinates = {"pattern": list(candidates.labels), "time": ("time", times, {"units": "s"})}
        attributes = {
            "goal": self.goal,
            "trials_per_pattern": self.trials_per_pattern,
            "visible": self.visible,
            "seed": self.seed,
        }
        return xr.Dataset(variables, coordinates, attributes)

    def plot(self) -> Any:
        """Draw the design; see `lrposterior.plots.design.plot_design`."""
        from lrposterior.plots.design import plot_design

        return plot_design(self)

    def __repr__(self) -> str:
        return (
            f"PerturbationDesign({self.num_patterns} patterns, {self.is_random.sum()} of them random, "
            f"{self.trials_per_pattern} trials each, {self.total_gain:.3g} nats about {self.goal})"
        )

    def __str__(self) -> str:
        return f"{self!r}\n{self.table().to_string(float_format=lambda value: f'{value:.3g}')}"
