"""Defects by name: what tells them, with which numbers, and what mends them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrposterior.diagnosis.networks import NetworkStatistics
from lrposterior.diagnosis.recorded import DataStatistics

# The reasons for these thresholds stand in `diagnose`.
SCALE_FACTOR, LEAST_TEMPORAL_SD, LEAST_DRIVE, LEAST_Z = 2.0, 0.2, 0.1, 3.0
LEAST_SHARE_DIVERGING = 0.5
LARGEST_LOSS, LARGEST_LOSS_Z = 0.2, 3.0


@dataclass(frozen=True)
class Verdict:
    """A defect that has a name.

    Attributes:
        name: "scale mismatch", "flat output", "weak input drive", "exploding loss", "outliers" or "overfit".
        found: what tells it, in numbers.
        mend: what to do about it.
    """

    name: str
    found: str
    mend: str

    def __str__(self) -> str:
        return f"{self.name}: {self.found}; {self.mend}"


@dataclass(frozen=True)
class Generalisation:
    """How well the network at the mode predicts trials, fitted and held out (`lrposterior.fit_quality`).

    Attributes:
        fitted, held_out: the explained share of the variance.
        standard_error: that of their difference, from the scatter over trials.
    """

    fitted: float
    held_out: float
    standard_error: float


def judge_data(data: DataStatistics) -> tuple[Verdict, ...]:
    """Whether there are outliers."""
    if not len(data.outliers):
        return ()
    neurons = np.unique(data.outliers[:, 2])
    found = (
        f"{len(data.outliers)} entries in {len(neurons)} neurons lie beyond what the neuron does else, and reach "
        f"{data.largest:.4g} {data.unit}"
    )
    return (Verdict("outliers", found, "look at these trials, then clip_outliers(recording) or mask them"),)


def judge_network(data: DataStatistics, network: NetworkStatistics, num_inputs: int, which: str) -> tuple[Verdict, ...]:
    """What is wrong with networks; where they run away, nothing else is said of them."""
    if network.share_diverging >= LEAST_SHARE_DIVERGING:
        found = f"the activity of {network.share_diverging:.0%} of {network.num_networks} {which} networks runs away"
        mend = "use a smaller prior scale of K, or more inhibition, as DaleLoadings(K={'E': 1.5, 'I': 6.0})"
        return (Verdict("exploding loss", found, mend),)
    verdicts, recorded, own = [], data.signal, network.signal
    ratio = own.level / recorded.level
    is_beyond = not network.levels[0] <= recorded.level <= network.levels[1]
    if is_beyond and not 1.0 / SCALE_FACTOR <= ratio <= SCALE_FACTOR:
        found = (
            f"the mean activity of the {which} network is {own.level:.3g} {data.unit}, that of the recording "
            f"{recorded.level:.3g}"
        )
        mend = (
            "take the scale from the data: fit counts with PoissonObservation(), or leave priors.unit out; "
            "tanh has rates within -1 and 1, so use softplus or relu for spikes/s"
        )
        verdicts.append(Verdict("scale mismatch", found, mend))
    if recorded.temporal_z < LEAST_Z:
        return tuple(verdicts)
    if own.temporal_sd < LEAST_TEMPORAL_SD * recorded.temporal_sd:
        found = (
            f"over time the averages of the {which} network have a standard deviation of {own.temporal_sd:.3g} "
            f"{data.unit}, those of the recording {recorded.temporal_sd:.3g}"
        )
        mend = "mend the scale and the inputs first, where they are named here; else use a higher rank"
        verdicts.append(Verdict("flat output", found, mend))
    if num_inputs and network.input_modulation < LEAST_DRIVE * recorded.modulation:
        found = (
            f"inputs modulate the {which} network by {network.input_modulation:.2g} of its mean activity, and the "
            f"recording moves by {recorded.modulation:.2g}"
        )
        mend = "scale the inputs to a standard deviation of about 1, check their times, or raise priors.B"
        verdicts.append(Verdict("weak input drive", found, mend))
    return tuple(verdicts)


def judge_generalisation(shares: Generalisation) -> tuple[Verdict, ...]:
    """Whether held-out trials are predicted worse than fitted ones."""
    loss = shares.fitted - shares.held_out
    if loss <= max(LARGEST_LOSS * shares.fitted, LARGEST_LOSS_Z * shares.standard_error):
        return ()
    found = f"the fit explains {shares.fitted:.1%} of the variance of fitted trials, {shares.held_out:.1%} of others"
    return (Verdict("overfit", found, "fit more trials, use a lower rank (select_rank), or fewer inputs"),)
