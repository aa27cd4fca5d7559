"""How certain the responses to perturbations are, without draws: for large networks and many candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lrposterior.checks import argument_error, require_integer
from lrposterior.distribution import StructuredDistribution
from lrposterior.perturbation.candidates import Candidates
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.ranking import best_first, best_table
from lrposterior.posterior import Posterior
from lrposterior.structured.responses import response_moments
from lrposterior.structured.system import System

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_READOUTS = 5


@dataclass(frozen=True, eq=False)
class PredictedCertainty:
    """Candidate perturbations with the R² that the prediction of their response is expected to have.

    The response is that of the currents, without the direct feed-through of the stimulation, over all conditions,
    neurons and the bins that were read.

    Attributes:
        labels: one name per candidate.
        times: (time,) bins that were read, in s from the start of the trial.
        mean_power: (candidate,) ‖E q‖², the response at the posterior mean of the parameters.
        spread: (candidate,) tr Cov q, to first order in what is unknown of the parameters.
        unseen_spread: (candidate,) the part of the spread that comes from the unseen part of a random bulk.
    """

    labels: tuple[str, ...]
    times: np.ndarray
    mean_power: np.ndarray
    spread: np.ndarray
    unseen_spread: np.ndarray

    def __post_init__(self) -> None:
        for name in ("times", "mean_power", "spread", "unseen_spread"):
            getattr(self, name).flags.writeable = False

    @property
    def expected_r2(self) -> np.ndarray:
        """(candidate,) ‖E q‖² / (‖E q‖² + tr Cov q); NaN for a candidate without any response."""
        total = self.mean_power + self.spread
        return np.where(total > 0.0, self.mean_power / np.where(total > 0.0, total, 1.0), np.nan)

    @property
    def order(self) -> np.ndarray:
        """(candidate,) indices of the candidates, most certain first; NaN comes last."""
        return best_first(self.expected_r2)

    def top(self, num_best: int = 10) -> pd.DataFrame:
        """The most certain candidates as a table; the index is that of the candidates.

        Raises:
            ValueError: if num_best is not a positive integer. More than there are gives all.
        """
        columns = {
            "label": np.array(self.labels, dtype=object),
            "expected R²": self.expected_r2,
            "power of the mean response": self.mean_power,
            "spread": self.spread,
            "spread of the unseen": self.unseen_spread,
        }
        return best_table(columns, self.order, num_best)

    def __repr__(self) -> str:
        return f"PredictedCertainty({len(self.labels)} candidates, best {np.nanmax(self.expected_r2):.2f})"


def predict_certainty(
    posterior: Posterior,
    candidates: Candidates,
    *,
    inputs: Any = None,
    window: tuple[float, float] | None = None,
    num_readouts: int = DEFAULT_READOUTS,
) -> PredictedCertainty:
    """The certainty of `rank_perturbations` from the covariance of the parameters, without draws.

    The response is linearised in the parameters around the mode, for every candidate along its own perturbed
    trajectory. An unseen part of a random bulk adds its variance analytically, to first order as well: where the gain
    is large, draws spread more (by 4 to 12% at g = 0.25, 5 to 18% at 0.5, 16 to 31% at 1, on 24 neurons), so that
    `rank_perturbations` is less certain. Memory and time grow with the number of neurons, not with its square.

    Args:
        posterior: a Laplace posterior in the structured form, which `fit` gives to networks of more than a few dozen
            neurons.
        candidates: the perturbations, with the bins of the inputs.
        inputs: as in `predict_responses`.
        window: as in `predict_responses`.
        num_readouts: the response is read in this many bins, spread evenly over the window.

    Raises:
        ValueError: if the arguments do not fit each other, or the posterior has another form.
    """
    experiment = make_experiment(posterior, candidates, inputs, window)
    distribution = posterior.distribution
    if not isinstance(distribution, StructuredDistribution):
        raise argument_error(
            "posterior",
            "a Laplace posterior in the structured form",
            f"a {type(distribution).__name__} of {posterior.recording.num_neurons} neurons",
            "use rank_perturbations, which takes every posterior",
        )
    if posterior.model.initial_state == "free":
        raise argument_error(
            "posterior", "trials that start at zero", "a free initial state", "use rank_perturbations, which takes both"
        )
    num_readouts = require_integer(num_readouts, "num_readouts", minimum=1)
    first = max(experiment.start, experiment.begin + 2)
    bins = np.unique(np.linspace(first, experiment.stop - 1, num_readouts).round().astype(int))
    gain = posterior.unseen_scale * np.sqrt(posterior.recording.num_neurons) if posterior.subspace is not None else 0.0
    moments = response_moments(
        System.given_out(posterior.model, posterior.recording),
        distribution.vector(),
        distribution.typical_covariance(),
        inputs=experiment.inputs,
        patterns=experiment.patterns,
        time_course=experiment.time_course,
        bins=bins,
        unseen_gain=gain,
    )
    return PredictedCertainty(
        labels=candidates.labels,
        times=bins * experiment.dt,
        mean_power=moments.mean_power,
        spread=moments.spread + moments.unseen_spread,
        unseen_spread=moments.unseen_spread,
    )
