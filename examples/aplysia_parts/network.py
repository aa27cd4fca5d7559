"""What fitted networks predict of spikes, and what they do on their own."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
import scipy.signal

import lrposterior as lrp
from aplysia_parts.recordings import DT, Preparation
from aplysia_parts.scores import Predicted, log_likelihood

SEGMENT = 51.2  # s, of the spectra: some four cycles of the rhythm
LOWEST_FREQUENCY = 2.0 / SEGMENT  # Hz, below which a spectrum has too few cycles in a segment
HIGHEST_FREQUENCY = 1.0  # Hz
STAGES = (2.0, 5.0, 10.0, 20.0, 40.0, 60.0)  # s, after which the drift of a new session is inferred anew


# [predict]
def predict(posterior: lrp.Posterior, trials: lrp.Recording, hidden: np.ndarray) -> Predicted:
    """One bin ahead, and the hidden neurons from all bins of the others, at the most probable network."""
    ahead = np.zeros(trials.activity.shape)
    for bins, drift in stages(posterior, trials):
        ahead[:, bins] = lrp.infer_latents(posterior, trials, given="bins before", drift=drift).activity[:, bins]
    masked = dataclasses.replace(trials, mask=trials.mask & ~hidden)
    drift = lrp.infer_drift(posterior, masked) if is_new(posterior, trials) else None
    smoothed = lrp.infer_latents(posterior, masked, given="all bins", drift=drift)
    return Predicted(ahead, smoothed.activity[:, :, hidden])


def is_new(posterior: lrp.Posterior, trials: lrp.Recording) -> bool:
    """Whether neurons drift, and the trials are of sessions that were not fitted."""
    return posterior.model.drift is not None and posterior.recording.session_labels != trials.session_labels


@functools.lru_cache(maxsize=1)
def stages(posterior: lrp.Posterior, trials: lrp.Recording) -> list[tuple[slice, lrp.InferredDrift | None]]:
    """Bins, one stage after the other, and what the bins before the stage say about the drift of a new session."""
    if not is_new(posterior, trials):
        return [(slice(0, trials.num_bins), None)]
    edges = [round(time / DT) for time in STAGES if time < trials.duration] + [trials.num_bins]
    later = [
        (slice(start, stop), lrp.infer_drift(posterior, until(trials, start)))
        for start, stop in itertools.pairwise(edges)
    ]
    return [(slice(0, edges[0]), None), *later]


def until(trials: lrp.Recording, stop: int) -> lrp.Recording:
    """The trials with all bins from `stop` on masked."""
    before = np.arange(trials.num_bins)[:, None] < stop
    return dataclasses.replace(trials, mask=trials.mask & before)


# [end]
def density_gained(posterior: lrp.Posterior, preparation: Preparation) -> dict[str, float]:
    """Log density of validation blocks and of the test recording over that of the mean-rate model, bits per spike.

    The density of the blocks is that given all other bins of the training recordings, p(all) / p(all but the blocks).
    That of the test recording is the product over stages, each given the bins before it.
    """

    test, reached = preparation.test, 0.0
    for bins, drift in stages(posterior, test):
        before = log_density(posterior, until(test, bins.start), drift) if bins.start else 0.0
        reached += log_density(posterior, until(test, bins.stop), drift) - before
    return {
        "validation": density_in_blocks(posterior, preparation),
        "test": per_spike(reached, test.activity[0], preparation),
    }


def density_in_blocks(posterior: lrp.Posterior, preparation: Preparation) -> float:
    gained = log_density(posterior, preparation.whole) - log_density(posterior, preparation.training)
    return per_spike(gained, preparation.counts[~preparation.fitted], preparation)


def log_density(posterior: lrp.Posterior, trials: lrp.Recording, drift: lrp.InferredDrift | None = None) -> float:
    return float(lrp.infer_latents(posterior, trials, drift=drift).log_likelihood.sum())


def per_spike(density: float, counts: np.ndarray, preparation: Preparation) -> float:
    """Bits per spike by which a log density of counts (..., neuron) is above that of the mean-rate model."""
    of_mean = log_likelihood(counts, np.broadcast_to(preparation.mean_counts, counts.shape))
    return float((density - of_mean) / (np.log(2.0) * counts.sum()))


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
