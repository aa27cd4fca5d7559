"""How much of the activity each part of the connectivity explains: the low-rank one, and a random bulk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lrposterior.model import LowRankModel
from lrposterior.recording import Recording
from lrposterior.rollouts import predicted_activity

# A part whose removal costs less than this share of the variance is not needed.
NEGLIGIBLE_SHARE = 0.01


@dataclass(frozen=True)
class ExplainedParts:
    """Share of the variance of the recorded activity that the network at the mode explains, with and without a part.

    The share is 1 - squared residuals / squared deviations from each neuron's mean; NaN where the network diverges.

    Attributes:
        both: with W = M K^T / N + A Q^T.
        low_rank: with M K^T / N alone.
        bulk: with A Q^T alone.
        neither: without any connectivity, by inputs and biases.
    """

    both: float
    low_rank: float
    bulk: float
    neither: float

    @property
    def warning(self) -> str | None:
        """What to beware of: connectivity that is not needed, or a low-rank part that does less than the bulk."""
        if self.both - self.neither < NEGLIGIBLE_SHARE:
            return (
                "inputs and biases explain the activity without any connectivity, so that it says little about W; "
                "record where the circuit goes on by itself, or with inputs that differ more"
            )
        if self.both - self.bulk < NEGLIGIBLE_SHARE:
            return (
                "the low-rank part is not needed, the bulk explains the activity without it; lower the rank, or give "
                "the bulk a smaller gain, RandomBulk(gain=...)"
            )
        if self.bulk > self.low_rank:
            return "the low-rank part is not enough, the bulk explains more than it does; try a higher rank"
        return None

    def __str__(self) -> str:
        return (
            f"explained variance {self.both:.3f}, by M K^T alone {self.low_rank:.3f}, by the bulk alone "
            f"{self.bulk:.3f}, without connectivity {self.neither:.3f}"
        )


def explained_by_parts(model: LowRankModel, mode: Mapping[str, np.ndarray], recording: Recording) -> ExplainedParts:
    """Run the network of a settled model with a random bulk, with and without its parts.

    Args:
        model: the model.
        mode: parameters by name, as `Posterior.mode`.
        recording: what is explained.
    """
    kept = {"both": {}, "low_rank": {"A": 0.0}, "bulk": {"K": 0.0}, "neither": {"A": 0.0, "K": 0.0}}
    networks = {name: np.stack([factors.get(name, 1.0) * mode[name] for factors in kept.values()]) for name in mode}
    predicted = predicted_activity(model, networks, recording)
    mask, activity = recording.mask, recording.activity
    mean = np.where(mask, activity, 0.0).sum(axis=(0, 1)) / np.maximum(mask.sum(axis=(0, 1)), 1)
    total = np.sum(np.where(mask, activity - mean, 0.0) ** 2)
    with np.errstate(over="ignore", invalid="ignore"):
        residual = np.sum(np.where(mask, activity - predicted, 0.0) ** 2, axis=(1, 2, 3))
    shares = 1.0 - np.where(np.isfinite(residual), residual, np.nan) / total
    return ExplainedParts(*shares.tolist())
