"""What fitted networks predict of spikes, and what they do on their own."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.signal

import lrposterior as lrp
from aplysia_parts.recordings import DT, Preparation
from aplysia_parts.scores import Predicted, log_likelihood

SEGMENT = 51.2  # s, of the spectra: some four cycles of the rhythm
LOWEST_FREQUENCY = 2.0 / SEGMENT  # Hz, below which a spectrum has too few cycles in a segment
HIGHEST_FREQUENCY = 1.0  # Hz


# [predict]
def predict(posterior: lrp.Posterior, trials: lrp.Recording, hidden: np.ndarray) -> Predicted:
    """One bin ahead, and the hidden neurons from all bins of the others, at the most probable network."""
    ahead = lrp.infer_latents(posterior, trials, given="bins before")
    masked = dataclasses.replace(trials, mask=trials.mask & ~hidden)
    smoothed = lrp.infer_latents(posterior, masked, given="all bins")
    return Predicted(ahead.activity, smoothed.activity[:, :, hidden])


# [end]
def density_gained(posterior: lrp.Posterior, preparation: Preparation) -> dict[str, float]:
    """Log density of validation blocks and of the test recording over that of the mean-rate model, bits per spike.

    The density of the blocks is that given all other bins of the training recordings, p(all) / p(all but the blocks).
    """

    def log_density(trials: lrp.Recording) -> float:
        return float(lrp.infer_latents(posterior, trials).log_likelihood.sum())

    blocks, test = preparation.counts[~preparation.fitted], preparation.test.activity[0]
    found = {
        "validation": (log_density(preparation.whole) - log_density(preparation.training), blocks),
        "test": (log_density(preparation.test), test),
    }
    mean = preparation.mean_counts
    return {
        name: (density - log_likelihood(counts, np.broadcast_to(mean, counts.shape))) / (np.log(2.0) * counts.sum())
        for name, (density, counts) in found.items()
    }


# [simulate]
def simulate_freely(posterior: lrp.Posterior, trials: lrp.Recording, *, num_draws: int, seed: int) -> list[np.ndarray]:
    """Spikes (time, neuron) of networks drawn from the posterior that run from the stimulation on, unseen by the data.

    Each starts at the mean of the fitted initial latents. A draw that diverges is left out.
    """
    drawn = posterior.sample_parameters(num_draws, seed=seed)
    runs = []
    for draw in range(num_draws):
        parameters = {name: value[draw] for name, value in drawn.items()}
        parameters["initial_kappa"] = parameters["initial_kappa"].mean(axis=0, keepdims=True)
        runs.append(posterior.model.simulate(parameters, trials, seed=draw).activity[0])
    return runs


# [end]
def leading_pattern(preparation: Preparation) -> np.ndarray:
    """(neuron,) the first principal component of the smoothed spikes of the training recordings, of positive sum."""
    smooth = np.concatenate([scipy.signal.savgol_filter(one, 11, 2, axis=0) for one in preparation.counts])
    pattern = np.linalg.svd(smooth - smooth.mean(axis=0), full_matrices=False)[2][0]
    return pattern * np.sign(pattern.sum())


def spectrum(counts: np.ndarray, pattern: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in Hz and power per Hz of the spikes (time, neuron) along a pattern, by Welch's method."""
    length = min(round(SEGMENT / DT), len(counts))
    frequencies, power = scipy.signal.welch(counts @ pattern, 1.0 / DT, nperseg=length, detrend="linear")
    kept = (frequencies >= LOWEST_FREQUENCY) & (frequencies <= HIGHEST_FREQUENCY)
    return frequencies[kept], power[kept]


def compare_spectra(preparation: Preparation, runs: list[np.ndarray]) -> dict:
    """Spectra of the recordings and of free runs, and how far they are from the test recording's.

    Distances are root mean squares over frequencies of the log power ratio, in decibels.
    """
    pattern = leading_pattern(preparation)
    frequencies, test = spectrum(preparation.test.activity[0], pattern)
    training = [spectrum(one, pattern)[1] for one in preparation.counts]
    free = [spectrum(one, pattern)[1] for one in runs]

    def distance(power: np.ndarray) -> float:
        return float(np.sqrt(np.mean((10.0 * np.log10(power / test)) ** 2)))

    def peak(power: np.ndarray) -> float:
        return float(frequencies[np.argmax(power)])

    poisson = np.random.default_rng(0).poisson(preparation.mean_counts, preparation.test.activity[0].shape)
    return {
        "frequencies": frequencies.tolist(),
        "test": test.tolist(),
        "training": [one.tolist() for one in training],
        "free": np.quantile(free, [0.05, 0.5, 0.95], axis=0).tolist(),
        "peak_test": peak(test),
        "peak_training": [peak(one) for one in training],
        "peak_free": np.quantile([peak(one) for one in free], [0.05, 0.5, 0.95]).tolist(),
        "distance_free": np.quantile([distance(one) for one in free], [0.05, 0.5, 0.95]).tolist(),
        "distance_training": [distance(one) for one in training],
        "distance_poisson": distance(spectrum(poisson, pattern)[1]),
        "rate_test": float(preparation.test.activity.mean() / DT),
        "rate_free": np.quantile([one.mean() / DT for one in runs], [0.05, 0.5, 0.95]).tolist(),
    }
