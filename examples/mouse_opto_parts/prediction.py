"""Predictions of entries that were hidden from the fit, beside those without a network."""

from __future__ import annotations

import numpy as np
import scipy.special

import lrposterior as lrp
from mouse_opto_parts.session import Session


# [hide]
def hide_blocks(session: Session, *, fraction: float = 0.2, num_bins: int = 4, seed: int) -> np.ndarray:
    """(time, neuron) True in blocks of 40 ms of single neurons, chosen at random."""
    mask = session.recording.mask[0]
    chosen = np.random.default_rng(seed).random((-(-len(mask) // num_bins), mask.shape[1])) < fraction
    return np.repeat(chosen, num_bins, axis=0)[: len(mask)] & mask


def hide_end(session: Session, *, num_bins: int = 10) -> np.ndarray:
    """(time, neuron) True in the last 100 ms of all neurons."""
    hidden = np.zeros_like(session.recording.mask[0])
    hidden[-num_bins:] = True
    return hidden


# [end]
class HiddenEntries:
    """Scores of predictions of the hidden entries.

    The explained variance is 1 - sum of squared errors / sum of squares about every neuron's mean over the entries that
    were not hidden. A rate averaged over n trials has the noise of its spike count, of variance rate / (n dt): what
    this noise leaves to explain is the ceiling. Log predictive densities are in nats an entry.
    """

    def __init__(self, session: Session, hidden: np.ndarray) -> None:
        self.session, self.hidden = session, hidden
        self.activity = session.recording.activity[0]
        self.seen = session.recording.mask[0] & ~hidden
        self.baseline = self._mean(self.seen)
        self.squares = self._sum((self.activity - self.baseline) ** 2)

    @property
    def num_hidden(self) -> int:
        return int(self.hidden.sum())

    @property
    def ceiling(self) -> float:
        return 1.0 - self._sum(self.activity * self.session.spike) / self.squares

    def _sum(self, values: np.ndarray) -> float:
        return float(np.sum(values[self.hidden]))

    def _mean(self, chosen: np.ndarray) -> np.ndarray:
        """(neuron,) mean over the chosen entries."""
        return np.where(chosen, self.activity, 0.0).sum(axis=0) / np.maximum(chosen.sum(axis=0), 1)

    def score(self, predicted: np.ndarray, log_density: np.ndarray) -> dict[str, float]:
        """Of predictions and log predictive densities, each (time, neuron)."""
        return {
            "explained_variance": 1.0 - self._sum((self.activity - predicted) ** 2) / self.squares,
            "log_density": self._sum(log_density) / self.num_hidden,
        }

    def advantage(self, log_density: np.ndarray, reference: np.ndarray) -> dict:
        """Of one log predictive density over another, with its standard error over neurons, and by epoch."""
        gain = np.where(self.hidden, log_density - reference, 0.0)
        by_neuron = gain.sum(axis=0)
        error = np.sqrt(len(by_neuron)) * np.std(by_neuron, ddof=1)
        since_light = np.arange(len(gain)) - self.session.artefact
        epochs = {
            "before": since_light < 0,
            "first_100_ms": (since_light > 0) & (since_light <= 10),
            "later": since_light > 10,
        }
        return {
            "mean": float(by_neuron.sum()) / self.num_hidden,
            "standard_error": float(error) / self.num_hidden,
            "by_epoch": {
                name: float(gain[epoch].sum() / max(self.hidden[epoch].sum(), 1)) for name, epoch in epochs.items()
            },
        }

    def of_network(self, posterior: lrp.Posterior, num_draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean and log predictive density, (time, neuron)."""
        rates = posterior.predict_rates(num_draws=num_draws, seed=seed)[:, 0]
        noise = posterior.sample_parameters(num_draws, seed=seed)["noise_scale"][:, None, :]
        log_density = scipy.special.logsumexp(_log_normal(self.activity, rates, noise), axis=0) - np.log(num_draws)
        return rates.mean(axis=0), log_density

    def references(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Predictions and log densities without a network, each with the noise of its errors where it could see."""
        bins = np.arange(len(self.activity))
        lit = (bins > self.session.artefact)[:, None]
        levels = np.where(lit, self._mean(self.seen & lit), self._mean(self.seen & ~lit))
        one_scale = self._log_density(levels, self.seen)
        two_scales = np.where(
            lit, self._log_density(levels, self.seen & lit), self._log_density(levels, self.seen & ~lit)
        )
        mean = np.broadcast_to(self.baseline, levels.shape)
        result = {"mean": (mean, self._log_density(mean, self.seen)), "levels": (levels, one_scale)}
        if self.seen[bins != self.session.artefact].any(axis=1).all():
            population = self._scaled_population()
            result["population"] = population, self._log_density(population, self.seen)
        return result | {"levels_two_scales": (levels, two_scales)}

    def _scaled_population(self) -> np.ndarray:
        """Every neuron as a weighted sum of 1 and the average courses of E and I, by least squares."""
        courses = [np.ones(len(self.activity))]
        for members in (self.session.is_E, ~self.session.is_E):
            seen = self.seen[:, members]
            expected = np.where(seen, self.baseline[members], 0.0).sum(axis=1)
            courses.append(np.where(seen, self.activity[:, members], 0.0).sum(axis=1) / np.maximum(expected, 1e-9))
        design = np.stack(courses, axis=1)
        weights = [
            np.linalg.lstsq(design[seen], activity[seen], rcond=None)[0]
            for seen, activity in zip(self.seen.T, self.activity.T, strict=True)
        ]
        return design @ np.stack(weights, axis=1)

    def _log_density(self, predicted: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """With a noise scale per neuron from the errors on the chosen entries, at least that of rounding to spikes."""
        squares = np.where(chosen, (self.activity - predicted) ** 2, 0.0).sum(axis=0) / chosen.sum(axis=0)
        return _log_normal(self.activity, predicted, np.maximum(np.sqrt(squares), self.session.spike / np.sqrt(12.0)))


def _log_normal(value: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return -0.5 * ((value - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2.0 * np.pi)


def compare_predictions(
    session: Session, hidden: np.ndarray, posteriors: dict[int, lrp.Posterior | str], *, num_draws: int, seed: int
) -> dict:
    """Scores of the references and of the networks of every rank; a text in place of a posterior says what failed."""
    entries = HiddenEntries(session, hidden)
    references = entries.references()
    results = {
        "num_hidden": entries.num_hidden,
        "share_hidden": entries.num_hidden / int(session.recording.mask.sum()),
        "ceiling": entries.ceiling,
        "references": {name: entries.score(*reference) for name, reference in references.items()},
        "ranks": {},
    }
    for rank, posterior in posteriors.items():
        if isinstance(posterior, str):
            results["ranks"][str(rank)] = {"failure": posterior}
            continue
        predicted, log_density = entries.of_network(posterior, num_draws, seed)
        results["ranks"][str(rank)] = entries.score(predicted, log_density) | {
            "advantage": entries.advantage(log_density, references["levels"][1]),
            "log_evidence": posterior.statistics.log_evidence,
        }
    return results
