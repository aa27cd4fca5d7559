"""The result of a ranking of perturbations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lrposterior.checks import require_choice, require_integer

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

CRITERIA = {"certainty": "expected_r2", "contraction": "contraction", "information": "information"}
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, eq=False, repr=False)
class PerturbationRanking:
    """Candidate perturbations with what the posterior says about their responses.

    The response q is the perturbed minus the unperturbed trajectory minus the direct feed-through of the stimulation,
    over all conditions and the bins of the window, and on average over process noise. Every array is in the order of
    the candidates; `order` ranks them. A candidate to which no draw responds at all has NaN as expected_r2, and comes
    last.

    Attributes:
        labels: one name per candidate.
        power: (candidate,) in current² s.
        by: the criterion of `order`, "certainty", "contraction" or "information".
        quantity: "current" or "rate", the unit of the responses.
        times: (time,) start of every bin of the window, in s from the start of the trial.
        num_draws: draws of the posterior that take part, without those that run away.
        seed: seed of these draws.
        expected_r2: (candidate,) certainty, ‖E q‖² / (‖E q‖² + tr Cov q): the R² that the prediction E q will have,
            against the baseline "no response", on average under the posterior: 1 - E|q - Eq|² / E|q|². Both terms are
            unbiased in the draws: with the mean m of S draws and their unbiased covariance C, ‖E q‖² is estimated by
            ‖m‖² - tr C / S, not below 0.
        contraction: (candidate,) 1 - tr Cov q / tr Cov_prior q, what the recording took away from the prior's spread.
            It is negative where the recording showed a recurrence that amplifies more than networks drawn from the
            prior do; NaN where more than half of these run away.
        information: (candidate,) expected information gain in nats of one perturbed trial per condition,
            1/2 log det(I + G^-1/2 Cov o G^-1/2), where o is the response in the units of the observation (rate or
            current, whatever `quantity` is) and G the noise variance at the mode; the unperturbed trajectory is taken
            as known, and so is the process noise of the trial, where there is any: then it is too much. With S draws
            Cov o has at most S - 1 dimensions, and since log det is concave, few draws give too
            little.
        share_degenerate: (candidate,) share of tr Cov q from directions of the connectivity that the prior determines
            more than the data (lambda < 1 in `Posterior.spectrum`): the spread of draws whose other directions are held
            at the mode, over that of the same draws as they are, at most 1. From 100 to 200 of the draws. Under Dale's
            law, where magnitudes bend, a share of the variance to first order at the mode
            (`lrposterior.perturbation.first_order`). NaN for a sampled posterior with too few draws to tell the
            directions apart, or of a `SignedBackground`, and where they are too many for memory.
        noise_share: (candidate,) share of the variance of q in one trial that is process noise, which more knowledge of
            the network would not remove; the rest, tr Cov q, is ignorance of it. 0 without process noise.
        readout: (neuron,) weights of the readout.
        sign_certainty: (candidate,) larger one of P(readout > 0) and P(readout < 0), for the readout's mean over the
            window and the conditions. A response of exactly zero has no sign.
        readout_mean: (candidate,) posterior mean of it.
        readout_interval: (candidate, 2) its central 90% interval.
        readout_bands: (candidate, quantile, time) 5%, 50% and 95% quantiles of the readout, averaged over conditions.
        response_mean, response_sd: (candidate, condition, time, neuron) mean and standard deviation of the
            response, in single precision. With process noise a draw is an average over 8 realisations, and what is left
            of the noise is in this spread and in that of the readout; `expected_r2` and `contraction` are free of it.
        warnings: how many draws run away and were left out; which candidates rest on a few draws; how far the posterior
            is from what its fit assumes; and what a check of the fit on its recording found (`check_fit`): certainty
            rests on a model that is right. A fit without warnings may still be wrong where only stimulation leads.
    """

    labels: tuple[str, ...]
    power: np.ndarray
    by: str
    quantity: str
    times: np.ndarray
    num_draws: int
    seed: int
    expected_r2: np.ndarray
    contraction: np.ndarray
    information: np.ndarray
    share_degenerate: np.ndarray
    noise_share: np.ndarray
    readout: np.ndarray
    sign_certainty: np.ndarray
    readout_mean: np.ndarray
    readout_interval: np.ndarray
    readout_bands: np.ndarray
    response_mean: np.ndarray
    response_sd: np.ndarray
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    @property
    def num_candidates(self) -> int:
        return len(self.labels)

    @property
    def score(self) -> np.ndarray:
        """(candidate,) the criterion that ranks: `expected_r2`, `contraction` or `information`."""
        return getattr(self, CRITERIA[self.by])

    @property
    def order(self) -> np.ndarray:
        """(candidate,) indices of the candidates, best first; ties keep their order, NaN comes last."""
        return best_first(self.score)

    @property
    def response_size(self) -> np.ndarray:
        """(candidate,) root mean square of the predicted response over conditions, bins and neurons."""
        return np.sqrt(np.mean(np.square(self.response_mean, dtype=np.float64), axis=(1, 2, 3)))

    def ranked_by(self, by: str) -> PerturbationRanking:
        """The same candidates ranked by another criterion; nothing is computed again.

        Raises:
            ValueError: if it is none of "certainty", "contraction" and "information", or a contraction that the prior
                does not allow.
        """
        require_criterion(by, self.contraction)
        return dataclasses.replace(self, by=by)

    def top(self, num_best: int = 10) -> pd.DataFrame:
        """The best candidates as a table, best first; the index is that of the candidates.

        Raises:
            ValueError: if num_best is not a positive integer. More than there are gives all.
        """
        columns = {
            "label": np.array(self.labels, dtype=object),
            "power [current² s]": self.power,
            "expected R²": self.expected_r2,
            "contraction": self.contraction,
            "information [nats]": self.information,
            "degenerate share": self.share_degenerate,
            **({"noise share": self.noise_share} if np.any(self.noise_share > 0.0) else {}),
            f"response RMS [{self.quantity}]": self.response_size,
            f"readout [{self.quantity}]": self.readout_mean,
            "sign certainty": self.sign_certainty,
        }
        return best_table(columns, self.order, num_best)

    def to_xarray(self) -> xr.Dataset:
        """Everything as a labelled dataset with the axes candidate, condition, time, neuron, bound and quantile."""
        import xarray as xr

        axes = {
            "power": ("candidate",),
            "expected_r2": ("candidate",),
            "contraction": ("candidate",),
            "information": ("candidate",),
            "share_degenerate": ("candidate",),
            "noise_share": ("candidate",),
            "sign_certainty": ("candidate",),
            "readout": ("neuron",),
            "readout_mean": ("candidate",),
            "readout_interval": ("candidate", "bound"),
            "readout_bands": ("candidate", "quantile", "time"),
            "response_mean": ("candidate", "condition", "time", "neuron"),
            "response_sd": ("candidate", "condition", "time", "neuron"),
        }
        units = {"power": "current² s", "information": "nats"}
        units |= dict.fromkeys(
            ("readout_mean", "readout_interval", "readout_bands", "response_mean", "response_sd"), self.quantity
        )
        variables: dict[str, Any] = {
            name: (dims, getattr(self, name), {"units": units.get(name, "1")}) for name, dims in axes.items()
        }
        variables["order"] = ("rank", self.order)
        coordinates = {
            "candidate": list(self.labels),
            "time": ("time", self.times, {"units": "s"}),
            "quantile": list(QUANTILES),
            "bound": ["lower", "upper"],
        }
        attributes = {"by": self.by, "quantity": self.quantity, "num_draws": self.num_draws, "seed": self.seed}
        if self.warnings:
            attributes["warnings"] = "\n".join(self.warnings)
        return xr.Dataset(variables, coordinates, attributes)

    def plot(self, **options: Any) -> Any:
        """Draw the ranking; see `lrposterior.plots.perturbation.plot_ranking`."""
        from lrposterior.plots.perturbation import plot_ranking

        return plot_ranking(self, **options)

    def __repr__(self) -> str:
        best = self.order[0]
        return (
            f"PerturbationRanking({self.num_candidates} candidates by {self.by}, {self.quantity} from "
            f"{self.times[0]:.4g} to {self.times[-1]:.4g} s, {self.num_draws} draws; best: {self.labels[best]!r} with "
            f"{CRITERIA[self.by]} {self.score[best]:.3g})"
        )

    def __str__(self) -> str:
        shown = min(10, self.num_candidates)
        table = self.top(shown).to_string(float_format=lambda value: f"{value:.3g}")
        more = [f"... and {self.num_candidates - shown} more"] if self.num_candidates > shown else []
        return "\n".join([repr(self), table, *more, *(f"beware: {warning}" for warning in self.warnings)])


def require_criterion(by: Any, contraction: np.ndarray | None = None) -> str:
    """Check the criterion, and that the contraction is there if it is wanted.

    Raises:
        ValueError: an unknown criterion, or "contraction" where networks drawn from the prior diverge.
    """
    require_choice(by, "by", tuple(CRITERIA))
    if by == "contraction" and contraction is not None and np.isnan(contraction).any():
        raise ValueError(
            "by: expected 'certainty' or 'information', since networks drawn from the prior run away and have no "
            "spread to compare, got 'contraction'; choose another criterion, narrower priors, or a bounded nonlinearity"
        )
    return by


def best_first(score: np.ndarray) -> np.ndarray:
    """(candidate,) indices by score, best first; ties keep their order, NaN comes last."""
    return np.argsort(-score, kind="stable")


def best_table(columns: Mapping[str, np.ndarray], order: np.ndarray, num_best: int) -> pd.DataFrame:
    """The first candidates in an order as a table of columns (candidate,); the index is that of the candidates.

    Raises:
        ValueError: if num_best is not a positive integer. More than there are gives all.
    """
    import pandas as pd

    best = order[: require_integer(num_best, "num_best", minimum=1)]
    return pd.DataFrame(
        {name: values[best] for name, values in columns.items()}, index=pd.Index(best, name="candidate")
    )
