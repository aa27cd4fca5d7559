"""The result of simulation-based calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lrposterior.calibration.rank_band import PROBABILITY, RankBand
from lrposterior.calibration.simulated_truth import SimulatedTruth
from lrposterior.checks import argument_error, require_choice

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

MOST_REFUSALS_SHOWN = 3


@dataclass(frozen=True, eq=False, repr=False)
class CalibrationResult:
    """Ranks of simulated truths among the draws of their posteriors; made by `simulate_calibration`.

    A fit that refuses leaves no rank. The ranks of the others need not be uniform then, as they are those of truths
    that can be fitted: read them beside `num_refused`.

    Attributes:
        quantities: names of what was ranked.
        ranks: (simulation, quantity) ranks as numbers in (0, 1), of simulations that were fitted. Rank r among S draws
            is a random number between r / (S + 1) and (r + 1) / (S + 1), so that it is uniform under a right posterior.
        errors: (simulation, quantity) (truth - posterior mean) / posterior standard deviation.
        seeds: (simulation,) of the simulations that were fitted.
        statuses: their `Posterior.status`.
        seconds: (simulation,) duration of their fits.
        refusals: why others were not, by their seed.
    """

    quantities: tuple[str, ...]
    ranks: np.ndarray
    errors: np.ndarray
    seeds: np.ndarray
    statuses: tuple[str, ...]
    seconds: np.ndarray
    refusals: Mapping[int, str]

    def __post_init__(self) -> None:
        for array in (self.ranks, self.errors, self.seeds, self.seconds):
            array.flags.writeable = False
        object.__setattr__(self, "refusals", MappingProxyType(dict(self.refusals)))

    @classmethod
    def of(cls, simulations: Sequence[SimulatedTruth]) -> CalibrationResult:
        """From single simulations, for instance from several processes; they have the same quantities.

        Raises:
            ValueError: if none was fitted, with the reasons.
        """
        fitted = [one for one in simulations if one.refusal is None]
        refusals = {one.seed: one.refusal for one in simulations if one.refusal is not None}
        if not fitted:
            reason = next(iter(refusals.values()), "there was no simulation")
            raise argument_error(
                "fit",
                "one fit at least",
                f"none of {len(simulations)}; the first: {reason}",
                "mend the fit, or the model",
            )
        names = tuple(fitted[0].below)
        return cls(
            quantities=names,
            ranks=np.stack([_fractional_ranks(fitted, name, index) for index, name in enumerate(names)], axis=1),
            errors=np.array([[one.error[name] for name in names] for one in fitted]),
            seeds=np.array([one.seed for one in fitted]),
            statuses=tuple(one.status for one in fitted),
            seconds=np.array([one.seconds for one in fitted]),
            refusals=refusals,
        )

    @property
    def num_fitted(self) -> int:
        return len(self.seeds)

    @property
    def num_refused(self) -> int:
        return len(self.refusals)

    @property
    def num_unconverged(self) -> int:
        """Fits whose status is not "converged"; their ranks count like any other."""
        return sum(status != "converged" for status in self.statuses)

    def ranks_of(self, quantity: str) -> np.ndarray:
        """(simulation,) the ranks of one quantity.

        Raises:
            ValueError: if there is no such quantity.
        """
        return self.ranks[:, self.quantities.index(require_choice(quantity, "quantity", self.quantities))]

    def band(self, quantity: str, *, familywise: bool = False) -> RankBand:
        """The distribution function of the ranks of a quantity with its simultaneous 95% band.

        Args:
            quantity: its name.
            familywise: whether all bands together are to hold with 95% (Bonferroni: each with 1 - 0.05 / quantities).

        Raises:
            ValueError: if there is no such quantity.
        """
        family = len(self.quantities) if familywise else 1
        return RankBand.of(self.ranks_of(quantity), 1.0 - (1.0 - PROBABILITY) / family)

    def in_band(self, *, familywise: bool = False) -> dict[str, bool]:
        """Whether each quantity stays in its band; familywise, a right posterior leaves any with probability 0.05."""
        return {name: self.band(name, familywise=familywise).holds for name in self.quantities}

    def to_dataframe(self) -> pd.DataFrame:
        """A row for every quantity: in its bands or not, how far out, bias and spread of errors, and coverage."""
        import pandas as pd

        table = {}
        for index, name in enumerate(self.quantities):
            band, ranks, errors = self.band(name), self.ranks[:, index], self.errors[:, index]
            table[name] = {
                "in_band": band.holds,
                "in_familywise_band": self.band(name, familywise=True).holds,
                "leaves_by": band.excess,
                "mean_error": errors.mean(),
                "sd_error": errors.std(),
                "cover_50": np.mean(np.abs(ranks - 0.5) < 0.25),
                "cover_90": np.mean(np.abs(ranks - 0.5) < 0.45),
            }
        return pd.DataFrame.from_dict(table, orient="index")

    def to_xarray(self) -> xr.Dataset:
        """Ranks and errors with the axes simulation (its seed) and quantity; refusals are an attribute."""
        import xarray as xr

        axes = ("simulation", "quantity")
        variables: dict[str, Any] = {
            "rank": (axes, self.ranks),
            "error": (axes, self.errors),
            "seconds": (axes[:1], self.seconds),
            "status": (axes[:1], list(self.statuses)),
        }
        coordinates = {"simulation": self.seeds, "quantity": list(self.quantities)}
        refusals = [f"seed {seed}: {reason}" for seed, reason in self.refusals.items()]
        return xr.Dataset(variables, coordinates, {"num_refused": self.num_refused, "refusals": refusals})

    def plot(self, **options: Any) -> Any:
        """Draw the distribution functions of the ranks; see `lrposterior.plots.plot_calibration`."""
        from lrposterior.plots.calibration import plot_calibration

        return plot_calibration(self, **options)

    def __repr__(self) -> str:
        inside = self.in_band()
        out = [name for name, holds in inside.items() if not holds]
        verdict = f"{', '.join(out)} out of the 95% band" if out else "all in the 95% band"
        return (
            f"CalibrationResult({self.num_fitted} fits, {self.num_refused} refused, {len(self.quantities)} quantities: "
            f"{verdict})"
        )

    def __str__(self) -> str:
        """A table of all quantities: do they stay in the band, bias and spread of errors, cover of intervals."""
        width = max(15, *map(len, self.quantities))
        lines = [
            f"{self.num_fitted + self.num_refused} simulations, {self.num_refused} refused, "
            f"{self.num_unconverged} not converged, median {np.median(self.seconds):.1f} s",
            f"{'quantity':{width}s} | in band | leaves by | error / sd: mean, sd | 50%, 90% cover",
        ]
        for name, row in self.to_dataframe().to_dict("index").items():
            verdict = "yes" if row["in_band"] else "no" if row["in_familywise_band"] else "NO"
            lines.append(
                f"{name:{width}s} | {verdict:7s} | {row['leaves_by']:9.3f} | "
                f"{row['mean_error']:11.2f}, {row['sd_error']:6.2f} | {row['cover_50']:6.2f}, {row['cover_90']:.2f}"
            )
        if not all(self.in_band().values()):
            lines.append(
                "no: out of the 95% band of this quantity; NO: out of the wider one that all quantities of a right "
                "posterior stay in with probability 0.95"
            )
        for seed, reason in list(self.refusals.items())[:MOST_REFUSALS_SHOWN]:
            lines.append(f"refused, seed {seed}: {reason}")
        if self.num_refused > MOST_REFUSALS_SHOWN:
            lines.append(f"... and {self.num_refused - MOST_REFUSALS_SHOWN} more, in refusals")
        return "\n".join(lines)


def _fractional_ranks(fitted: Sequence[SimulatedTruth], quantity: str, index: int) -> np.ndarray:
    """(simulation,) ranks as numbers in (0, 1): the gaps between draws are filled, and ties broken, at random."""
    gap = np.random.default_rng(index).uniform(size=len(fitted))
    below, equal, num_draws = (
        np.array(values)
        for values in zip(*((one.below[quantity], one.equal[quantity], one.num_draws) for one in fitted), strict=True)
    )
    return (below + gap * (equal + 1)) / (num_draws + 1)
