"""How right the predicted responses to perturbations were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lrposterior.calibration.cases import COVERAGE_LEVELS, Cases
from lrposterior.calibration.envelope import Envelope, global_envelope
from lrposterior.calibration.ranks import LEVELS
from lrposterior.calibration.statistics import PREDICTED
from lrposterior.calibration.summary import Score
from lrposterior.checks import require_choice

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

ALL = "all"
BAND = 0.95
NOTE = (
    "value / ceiling [central 95% of it]: the ceiling is the score with draws of the posterior in the place of the "
    "truth;\n* the value lies outside; random order: of all candidates"
)


@dataclass(frozen=True, eq=False, repr=False)
class PredictionScores:
    """Predicted responses to perturbations beside the true ones; made by `score_predictions`.

    Attributes:
        labels: one name per candidate.
        classes: the class of every candidate.
        clusters: (candidate,) which candidates are resampled together.
        num_draws: draws of the predicted responses.
        truth: (1, candidate) what the scores of the truth are made of.
        draws: (draw, candidate) the same with every draw in the place of the truth, predicted from the others.
        pits: (class, level) distribution function of the ranks of the true entries among the draws at `levels`, mean
            over the candidates of a class; the first class is "all".
        draw_pits: (class, draw, level) the same of every draw among the others.
        summary: scores by class and name; the first class is "all".
    """

    labels: tuple[str, ...]
    classes: tuple[str, ...]
    clusters: np.ndarray
    num_draws: int
    truth: Cases
    draws: Cases
    pits: np.ndarray
    draw_pits: np.ndarray
    summary: Mapping[str, Mapping[str, Score]]

    def __post_init__(self) -> None:
        for array in (self.clusters, *self.truth, *self.draws, self.pits, self.draw_pits):
            array.flags.writeable = False
        frozen = {name: MappingProxyType(dict(scores)) for name, scores in self.summary.items()}
        object.__setattr__(self, "summary", MappingProxyType(frozen))

    @property
    def num_candidates(self) -> int:
        return len(self.labels)

    @property
    def class_names(self) -> tuple[str, ...]:
        """First "all", then the classes in the order in which they first appear, if there is more than one."""
        return tuple(self.summary)

    @property
    def levels(self) -> np.ndarray:
        """(level,) where the distribution functions of the ranks are known, from 0 to 1."""
        return LEVELS

    @property
    def expected_r2(self) -> np.ndarray:
        """(candidate,) certainty, ‖E q‖² / (‖E q‖² + tr Cov q), as in `PerturbationRanking`."""
        return self.truth.expected_r2[0]

    @property
    def achieved_r2(self) -> np.ndarray:
        """(candidate,) 1 - ‖q - E q‖² / ‖q‖² of the posterior mean, against the baseline "no response"."""
        return self.truth.achieved_r2[0]

    @property
    def coverage(self) -> np.ndarray:
        """(candidate, level) share of the entries within their central 50%, 80%, 90% and 95% intervals."""
        return self.truth.coverage[0]

    @property
    def crps(self) -> np.ndarray:
        """(candidate,) continuous ranked probability score, mean over entries, in units of the response."""
        return self.truth.crps[0]

    @property
    def energy_score(self) -> np.ndarray:
        """(candidate,) energy score of the whole response, in units of the response."""
        return self.truth.energy[0]

    def __getitem__(self, name: str) -> Mapping[str, Score]:
        """The scores of a class ("all", or one of the classes) by name.

        Raises:
            ValueError: if there is no such class.
        """
        return self.summary[require_choice(name, "class", self.class_names)]

    def members(self, name: str = ALL) -> np.ndarray:
        """Indices of the candidates of a class.

        Raises:
            ValueError: if there is no such class.
        """
        require_choice(name, "class", self.class_names)
        return np.flatnonzero([name in (ALL, one) for one in self.classes])

    def pit_band(self, name: str = ALL) -> Envelope:
        """The simultaneous 95% band of the ranks' distribution function for a class, and the p-value of the truth's.

        From the curves of the draws in the place of the truth. All entries of a response, and all responses of a
        network, go up and down together, and so they do in every draw: the band is as wide as that makes it.

        Raises:
            ValueError: if there is no such class.
        """
        index = self.class_names.index(require_choice(name, "class", self.class_names))
        return global_envelope(self.pits[index], self.draw_pits[index], BAND)

    def to_dataframe(self) -> pd.DataFrame:
        """Every score of every class: a row each, with the fields of `Score` as columns."""
        import pandas as pd

        rows = {(name, score): value for name, scores in self.summary.items() for score, value in scores.items()}
        index = pd.MultiIndex.from_tuples(list(rows), names=["class", "score"])
        return pd.DataFrame(list(rows.values()), index=index, columns=list(Score._fields))

    def to_xarray(self) -> xr.Dataset:
        """Scores by class, and what is known of every candidate, as a labelled dataset."""
        import xarray as xr

        table = np.array([list(scores.values()) for scores in self.summary.values()])
        variables: dict[str, Any] = {
            "score_of_class": (("class", "score", "statistic"), table),
            "pit": (("class", "level"), self.pits),
            "pit_p_value": (("class",), [self.pit_band(name).p_value for name in self.class_names]),
            "coverage": (("candidate", "probability"), self.coverage),
            "class_of_candidate": (("candidate",), list(self.classes)),
            "cluster": (("candidate",), self.clusters),
        }
        for name in ("expected_r2", "achieved_r2", "crps", "energy_score"):
            variables[name] = (("candidate",), getattr(self, name))
        coordinates = {
            "candidate": list(self.labels),
            "class": list(self.class_names),
            "score": list(self.summary[ALL]),
            "statistic": list(Score._fields),
            "probability": list(COVERAGE_LEVELS),
            "level": LEVELS,
        }
        return xr.Dataset(variables, coordinates, {"num_draws": self.num_draws})

    def plot(self, name: str = ALL) -> Any:
        """Draw the scores of a class; see `lrposterior.plots.plot_prediction_scores`."""
        from lrposterior.plots.prediction_scores import plot_prediction_scores

        return plot_prediction_scores(self, name)

    def __repr__(self) -> str:
        scores = self.summary[ALL]
        classes = f" in {len(self.class_names) - 1} classes" if len(self.class_names) > 1 else ""
        return (
            f"PredictionScores({self.num_candidates} candidates{classes}, {self.num_draws} draws; pooled R² "
            f"{scores['achieved R², pooled'].value:.2f} where {scores['expected R², pooled'].value:.2f} was expected, "
            f"90% intervals cover {scores['90% coverage'].value:.2f})"
        )

    def __str__(self) -> str:
        """Every score by class, with its ceiling and what chance would give."""
        names, chance = self.class_names, self.summary[ALL]
        rows = [["class (candidates)", *(f"{name} ({len(self.members(name))})" for name in names), "random order"]]
        rows += [
            [score, *(_cell(score, self.summary[name][score]) for name in names), _number(chance[score].random)]
            for score in chance
        ]
        rows.append(["PIT band, p-value", *(_p_value(self.pit_band(name).p_value) for name in names), ""])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([repr(self), *lines, NOTE])


def _cell(name: str, score: Score) -> str:
    if np.isnan(score.value) or name in PREDICTED:
        return _number(score.value)
    star = "" if score.is_as_expected else " *"
    lower, upper = _number(score.ceiling_lower), _number(score.ceiling_upper)
    return f"{_number(score.value)} / {_number(score.ceiling)} [{lower}, {upper}]{star}"


def _number(value: float) -> str:
    if np.isnan(value):
        return ""
    return f"{value:.2f}" if 0.1 <= abs(value) < 100.0 else f"{value:.2g}"


def _p_value(value: float) -> str:
    return f"{value:.3f}" + (" *" if value <= 1.0 - BAND else "")
