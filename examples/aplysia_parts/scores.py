"""How well predicted rates hold for recorded spikes."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.special

from aplysia_parts.recordings import DT

# No model may predict less: a spike where a rate of zero was predicted would cost infinitely much.
LOWEST = 0.05 * DT  # spikes per bin, of 0.05 spikes/s


# [score]
def bits_per_spike(counts: np.ndarray, predicted: np.ndarray, mean_counts: np.ndarray) -> float:
    """Poisson log likelihood over that of the mean-rate model, in bits, for every spike.

    Args:
        counts: (..., neuron) spikes in bins.
        predicted: (..., neuron) expected number of spikes.
        mean_counts: (neuron,) those of the mean-rate model.
    """
    gained = log_likelihood(counts, predicted) - log_likelihood(counts, np.broadcast_to(mean_counts, counts.shape))
    return float(gained / (np.log(2.0) * counts.sum()))


# [end]
def log_likelihood(counts: np.ndarray, predicted: np.ndarray) -> float:
    """log p(counts) of independent Poisson numbers, in nats."""
    rates = np.maximum(predicted, LOWEST)
    return float(np.sum(scipy.special.xlogy(counts, rates) - rates - scipy.special.gammaln(counts + 1.0)))


@dataclasses.dataclass(frozen=True)
class Predicted:
    """Expected numbers of spikes, each (trial, time, neuron), or None where a model does not say.

    Attributes:
        ahead: of every bin from the bins before it.
        hidden: of the hidden neurons from all bins of the others.
    """

    ahead: np.ndarray | None = None
    hidden: np.ndarray | None = None
