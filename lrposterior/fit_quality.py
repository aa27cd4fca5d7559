"""How well the most probable network predicts trials, fitted or held out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lrposterior.checks import argument_error, require_instance
from lrposterior.posterior import Posterior
from lrposterior.recording import Recording
from lrposterior.rollouts import predicted_activity, predicted_moments

# Numbers of the simulated trials (draw, time, neuron) that exist at one time.
ENTRIES_AT_ONCE = 5_000_000


@dataclass(frozen=True, eq=False)
class FitQuality:
    """Observed trials beside what the network at the mode predicts from their inputs alone.

    Attributes:
        recording: the trials; of calcium, bins without an observed predecessor are masked.
        predicted: (trial, time, neuron) noise-free activity at the mode, in units of the recording.
        noise_scale: (neuron,) inferred standard deviation of what was recorded around the prediction, in the same
            units, the square root of the mean over bins of its variance: the noise of the observation, and with process
            noise that of the latents given the bins before.
        held_out: whether these trials were kept from the fit.
    """

    recording: Recording
    predicted: np.ndarray
    noise_scale: np.ndarray
    held_out: bool

    @cached_property
    def residuals(self) -> np.ndarray:
        """(trial, time, neuron) observed minus predicted, in units of the recording; NaN where not observed."""
        return np.where(self.recording.mask, self.recording.activity - self.predicted, np.nan)

    @property
    def standardized_residuals(self) -> np.ndarray:
        """(trial, time, neuron) residuals over the noise scale: Normal(0, 1) if the model is right."""
        return self.residuals / self.noise_scale

    @cached_property
    def _squares(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(neuron,) each: number of observations, their sum of squares about their mean, the residuals' sum."""
        mask, activity = self.recording.mask, self.recording.activity
        count = mask.sum(axis=(0, 1))
        mean = np.where(mask, activity, 0.0).sum(axis=(0, 1)) / np.maximum(count, 1)
        total = np.where(mask, (activity - mean) ** 2, 0.0).sum(axis=(0, 1))
        return count, total, np.nansum(self.residuals**2, axis=(0, 1))

    @property
    def neuron_explained_variance(self) -> np.ndarray:
        """(neuron,) 1 - sum of squared residuals / sum of squares about the neuron's mean over these trials.

        1 is perfect, 0 no better than the neuron's mean; NaN for a neuron without observations or variation.
        """
        _, total, residual = self._squares
        return _share(residual, total)

    @property
    def neuron_expected(self) -> np.ndarray:
        """(neuron,) the explained variance if the residuals had exactly the inferred noise scale.

        In fitted trials this says nothing, since the noise scale was inferred from their residuals: it holds whatever
        the model does not explain. Held-out trials that stay below it were predicted worse than fitted ones.
        """
        count, total, _ = self._squares
        return _share(count * self.noise_scale**2, total)

    @property
    def explained_variance(self) -> float:
        """The same with the sums over all neurons: neurons that vary more count more."""
        _, total, residual = self._squares
        return float(_share(residual.sum(), total.sum()))

    @property
    def expected(self) -> float:
        """The same for the explained variance over all neurons."""
        count, total, _ = self._squares
        return float(_share((count * self.noise_scale**2).sum(), total.sum()))


def assess_fit(posterior: Posterior, held_out: Recording | None = None) -> FitQuality:
    """Compare what was recorded with what the most probable network predicts.

    With process noise, and of calcium, it predicts one bin ahead.

    Args:
        posterior: The fit.
        held_out: Trials of the same neurons that were kept from the fit; `None` takes the fitted trials.

    Raises:
        ValueError: Held-out trials with other neurons, inputs or bins, or among them one that was fitted.
    """
    require_instance(posterior, "posterior", Posterior, "pass what fit or load_posterior returned")
    fitted = posterior.recording
    if held_out is None:
        return _quality(posterior, fitted, None)
    require_instance(held_out, "held_out", Recording, "pass the second recording that Recording.split returned")
    for name in ("num_neurons", "num_inputs", "dt", "neuron_labels"):
        ours, theirs = getattr(fitted, name), getattr(held_out, name)
        if ours != theirs and None not in (ours, theirs):
            got = "others" if name == "neuron_labels" else f"{theirs}"
            what = "the neuron_labels" if name == "neuron_labels" else f"{name} = {ours}"
            raise argument_error("held_out", f"{what} of the fitted trials", got, "hold out trials of that session")
    seen = {_fingerprint(fitted, trial) for trial in range(fitted.num_trials)}
    repeated = [trial for trial in range(held_out.num_trials) if _fingerprint(held_out, trial) in seen]
    if repeated:
        got = f"{len(repeated)} that were fitted, the first is trial {repeated[0]}"
        raise argument_error("held_out", "trials that the fit has not seen", got, "split before the fit")
    return _quality(posterior, held_out, held_out)


def predict_activity(
    posterior: Posterior, trials: Recording | None, trial: int, neurons: np.ndarray, *, num_draws: int, seed: int
) -> np.ndarray:
    """Posterior draws (draw, time, neuron) of the expected activity, rate or current as was recorded.

    With process noise it is expected from the bins before (`lrposterior.rollouts.predicted_activity`).

    Args:
        posterior: The fit.
        trials: Give inputs and stimulation; `None` takes the fitted trials.
        trial: Which of them.
        neurons: Which neurons are kept.
        num_draws: Number of draws.
        seed: Seed of the draws.
    """
    draws = posterior.sample_parameters(num_draws, seed=seed)
    if "initial_kappa" in draws:
        initial = draws["initial_kappa"]
        draws["initial_kappa"] = initial[:, [trial]] if trials is None else initial.mean(axis=1, keepdims=True)
    one_trial = (posterior.recording if trials is None else trials).select(trials=[trial])
    size = max(1, min(num_draws, ENTRIES_AT_ONCE // one_trial.activity.size))
    kept = []
    for start in range(0, num_draws, size):
        some = {name: value[start : start + size] for name, value in draws.items()}
        simulated = predicted_activity(posterior.model, some, one_trial)
        kept.append(simulated[:, 0][..., neurons])
    return np.concatenate(kept)


def _quality(posterior: Posterior, recording: Recording, held_out: Recording | None) -> FitQuality:
    mode = {name: np.asarray(value)[None] for name, value in posterior.mode.items()}
    predicted, variance = _simulate(posterior, mode, held_out, predicted_moments)[0]
    informative = dataclasses.replace(recording, mask=posterior.model.informative(recording))
    return FitQuality(informative, predicted, np.sqrt(variance.mean(axis=(0, 1))), held_out=held_out is not None)


def _simulate(
    posterior: Posterior,
    draws: dict[str, np.ndarray],
    trials: Recording | None,
    what: Callable[..., np.ndarray] = predicted_activity,
) -> np.ndarray:
    if trials is None:
        return what(posterior.model, draws, posterior.recording)
    if "initial_kappa" in draws:  # inferred for the fitted trials alone: others start from the mean
        draws = draws | {"initial_kappa": draws["initial_kappa"].mean(axis=1, keepdims=True)}
    return what(posterior.model, draws, trials)


def _share(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(total) > 0.0, 1.0 - part / np.asarray(total), np.nan)


def _fingerprint(recording: Recording, trial: int) -> bytes:
    return recording.activity[trial].tobytes() + recording.mask[trial].tobytes()
