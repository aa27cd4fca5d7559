"""The result of a comparison of two posteriors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from lrposterior.comparison.directions import Directions
from lrposterior.posterior import Posterior

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

# Below this contraction the prior says more about a change than the recordings do.
LEAST_CONTRACTION = 0.5
AXES = {
    "write_patterns": ("neuron", "write"),
    "read_patterns": ("neuron", "read"),
    "change": ("write", "read"),
    "change_sd": ("write", "read"),
    "contraction": ("write", "read"),
    "incoming_p": ("neuron",),
    "incoming_contraction": ("neuron",),
    "outgoing_p": ("neuron",),
    "outgoing_contraction": ("neuron",),
}
OF_DIRECTIONS = {
    "write": ("neuron", "direction"),
    "read": ("neuron", "direction"),
    "size": ("direction",),
    "sd": ("direction",),
    "p": ("direction",),
}


@dataclass(frozen=True, eq=False, repr=False)
class PosteriorComparison:
    """What differs between two W, after minus before, and how sure that is.

    Every test has the rate `level` of false alarms where both recordings say much about what it tests, and less where
    they do not. "Cannot be told" is what does not differ beyond doubt and of which the recordings took less than half
    of the prior's variance away.

    Attributes:
        before, after: the posteriors.
        level: of the tests.
        num_draws, seed: of the draws of both.
        num_visited: number of principal directions of the rates of both recordings that were looked at.
        read_patterns: (neuron, read) orthonormal V, those of them of which both recordings together took at least 80%
            of the prior's variance of W V away. What W does to the others cannot be told.
        write_patterns: (neuron, write) orthonormal U, what both W together write when they read these.
        directions: the parts u v^T of the change of W through the read patterns, and their tests.
        change, change_sd: (write, read) mean and standard deviation of U^T (W_after - W_before) V.
        contraction: (write, read) share of the prior's variance of it that the recordings took away.
        incoming_p, outgoing_p: (neuron,) of the hypothesis that what a neuron reads through the read patterns, or gives
            to the write patterns, is as before.
        incoming_contraction, outgoing_contraction: (neuron,) share of the prior's variance of these taken away.
        mean_power: squared Frobenius norm of the mean change, without what is not seen of a bulk (whose mean is 0).
        power_through_patterns: the part of it that is read through the read patterns.
        seen_spread, unseen_spread: trace of the covariance of the change of all synapses, in what is seen and in what
            is not seen of a random bulk.
    """

    before: Posterior
    after: Posterior
    level: float
    num_draws: int
    seed: int
    num_visited: int
    read_patterns: np.ndarray
    write_patterns: np.ndarray
    directions: Directions
    change: np.ndarray
    change_sd: np.ndarray
    contraction: np.ndarray
    incoming_p: np.ndarray
    incoming_contraction: np.ndarray
    outgoing_p: np.ndarray
    outgoing_contraction: np.ndarray
    mean_power: float
    power_through_patterns: float
    seen_spread: float
    unseen_spread: float

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    @property
    def z_score(self) -> np.ndarray:
        """(write, read) change over its standard deviation."""
        return self.change / self.change_sd

    @property
    def sign_certainty(self) -> np.ndarray:
        """(write, read) probability that the change has the sign of its mean."""
        return stats.norm.cdf(np.abs(self.z_score))

    @property
    def differs(self) -> np.ndarray:
        """(write, read) True where the change differs from zero at the level."""
        return 2.0 * (1.0 - self.sign_certainty) < self.level

    @property
    def untold(self) -> np.ndarray:
        """(write, read) True where nothing can be told: no difference, and more prior than data."""
        return ~self.differs & (self.contraction < LEAST_CONTRACTION)

    @property
    def p_value(self) -> float:
        """Of the hypothesis that W is the same in all that it does to the read patterns."""
        return self.directions.total_p

    @property
    def num_directions(self) -> int:
        """Number of directions of the change that are beyond doubt, at the level."""
        below = self.directions.p < self.level
        return int(below.size if below.all() else np.argmin(below))

    @property
    def certainty(self) -> float:
        """Expected R² of the mean change as a prediction of the change of all synapses that the recordings see."""
        total = self.mean_power + self.seen_spread
        return self.mean_power / total if total > 0.0 else 0.0

    def synapses(self, post: Any, pre: Any) -> pd.DataFrame:
        """The change of single synapses W[post[k], pre[k]] at any size, one row each.

        Columns are post, pre, change, sd, and the probability of an increase, from the moments of both posteriors as if
        the change were Normal.

        Raises:
            ValueError: if they are no indices of neurons, or of different length.
        """
        import pandas as pd

        (first, first_sd), (second, second_sd) = (
            each.connectivity_entries(post, pre) for each in (self.before, self.after)
        )
        change, sd = second - first, np.hypot(first_sd, second_sd)
        columns = {"post": np.atleast_1d(post), "pre": np.atleast_1d(pre), "change": change, "sd": sd}
        return pd.DataFrame(columns | {"P(increase)": stats.norm.cdf(change / sd)})

    def to_xarray(self) -> xr.Dataset:
        """Everything but the posteriors as a labelled dataset with the axes neuron, write, read and direction."""
        import xarray as xr

        labels = self.before.recording.neuron_labels or self.after.recording.neuron_labels
        scalars = (
            "num_visited",
            "level",
            "num_draws",
            "seed",
            "p_value",
            "mean_power",
            "power_through_patterns",
            "seen_spread",
        )
        return xr.Dataset(
            {name: (axes, getattr(self, name)) for name, axes in AXES.items()}
            | {f"direction_{name}": (axes, getattr(self.directions, name)) for name, axes in OF_DIRECTIONS.items()}
            | {"differs": (AXES["change"], self.differs), "untold": (AXES["change"], self.untold)},
            None if labels is None else {"neuron": list(labels)},
            {name: getattr(self, name) for name in (*scalars, "unseen_spread", "certainty")},
        )

    def plot(self) -> Any:
        """Draw the comparison; see `lrposterior.plots.comparison.plot_comparison`."""
        from lrposterior.plots.comparison import plot_comparison

        return plot_comparison(self)

    def __repr__(self) -> str:
        num_neurons, num_told = self.read_patterns.shape
        return (
            f"PosteriorComparison({num_neurons} neurons, {num_told} of {self.num_visited} visited patterns told, "
            f"p = {self.p_value:.2g}, {self.num_directions} direction(s) of change beyond doubt)"
        )

    def __str__(self) -> str:
        lines = [repr(self)]
        for index in range(self.num_directions):
            lines.append(
                f"  direction {index}: size {self.directions.size[index]:.3g} +- {self.directions.sd[index]:.2g}, "
                f"p = {self.directions.p[index]:.2g}"
            )
        size, chance = self.change.size, self.level
        lines.append(
            f"  entries between patterns: {self.differs.sum()} of {size} differ ({chance * size:.2g} would by chance), "
            f"{self.untold.sum()} cannot be told"
        )
        for what, p, contraction in (
            ("input", self.incoming_p, self.incoming_contraction),
            ("output", self.outgoing_p, self.outgoing_contraction),
        ):
            untold = (p >= self.level) & (contraction < LEAST_CONTRACTION)
            lines.append(
                f"  neurons: {what} of {np.sum(p < self.level)} of {p.size} differs ({chance * p.size:.2g} would by "
                f"chance), of {untold.sum()} cannot be told"
            )
        within = self.power_through_patterns / self.mean_power if self.mean_power > 0.0 else 0.0
        lines.append(
            f"  all synapses: expected R² {self.certainty:.2f} of the mean change, {100 * min(within, 1.0):.0f}% of "
            "which the read patterns show"
        )
        if self.unseen_spread > 0.0:
            ratio = self.unseen_spread / (self.mean_power + self.seen_spread)
            lines.append(f"  what no recording sees of the bulk may have changed by {ratio:.2g} times the rest")
        return "\n".join(lines)
