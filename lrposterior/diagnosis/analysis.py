"""Does a network, before or after it is fitted, suit the recording?"""

from __future__ import annotations

import numpy as np

from lrposterior.checks import argument_error, require_instance, require_integer
from lrposterior.diagnosis.networks import describe_networks
from lrposterior.diagnosis.recorded import describe_data, describe_inputs
from lrposterior.diagnosis.result import Diagnosis
from lrposterior.diagnosis.verdicts import Generalisation, judge_data, judge_generalisation, judge_network
from lrposterior.fit_quality import FitQuality, assess_fit
from lrposterior.model import LowRankModel
from lrposterior.posterior import Posterior, require_like_fitted
from lrposterior.precision import double_precision
from lrposterior.recording import Recording

# Networks are shown so many of the trials.
MOST_TRIALS = 60


@double_precision
def diagnose(
    fitted: LowRankModel | Posterior,
    recording: Recording | None = None,
    *,
    validation: Recording | None = None,
    num_draws: int = 20,
    seed: int,
) -> Diagnosis:
    """Look for the usual reasons why a network does not take on the activity of a recording.

    Networks drawn from the prior, and the one at the mode of a posterior, receive the inputs of the recording (of at
    most 60 of its trials, chosen at random), none, and ten times as much. Conditions are the trial labels that trials
    share. The verdicts are about the trained network where there is one, else about the median of the untrained ones:

    - "exploding loss": half of the networks or more run away. Fits start at the data: a few of the prior that do so are
      harmless.
    - "scale mismatch": the mean activity is off by more than a factor of 2, and beyond that of every network drawn;
      networks that run away do not count, as they pass any activity.
      A softplus network is of order 1 without a scale: rates of 14 spikes/s are then a factor of 10 away, while
      networks of a prior with the scale of the data were 0.7 to 1.3 times as active as 28 simulated sessions.
    - "flat output": averages over trials move with a fifth of the recorded standard deviation over time, or less.
      In the same sessions they moved 0.9 to 2.4 times as much.
    - "weak input drive": inputs modulate the network by a tenth or less of the recorded modulation, both relative to
      the mean activity: a mere mismatch of scale is none.
    - "outliers": an entry lies beyond the bounds in `DataStatistics`, as chance alone does in one of 1e9.
    - "overfit": held-out trials lose a fifth or more of the explained share of the variance, beyond three standard
      errors; a smaller loss changes no conclusion.

    Flat output and weak input drive need averages that move: nothing is said where the variance of the recorded ones is
    less than three standard errors above 0, as with inputs that differ in every trial.

    Args:
        fitted: a model, or the posterior of a fit.
        recording: the recording that is to be fitted; for a posterior None takes the one that was.
        validation: trials that the fit has not seen; for a posterior.
        num_draws: networks drawn from the prior.
        seed: of the draws and of the choice of trials.

    Raises:
        ValueError: if an argument is of another kind, or trials are not like those that were fitted.
    """
    if isinstance(fitted, Posterior):
        posterior, model = fitted, fitted.settled_model
        recording = fitted.recording if recording is None else require_instance(recording, "recording", Recording)
        require_like_fitted(recording, fitted.recording)
    else:
        posterior, model = None, require_instance(fitted, "fitted", LowRankModel, "or pass what fit(...) returned")
        recording = require_instance(recording, "recording", Recording, "give the recording that is to be fitted")
        if validation is not None:
            mend = "fit the model, and pass the posterior"
            raise argument_error("validation", "None where nothing was fitted", "a recording", mend)
    num_draws = require_integer(num_draws, "num_draws", minimum=1)
    seed = require_integer(seed, "seed")
    settled, chosen = model.for_recording(recording), _some_trials(recording, seed)
    data = describe_data(recording, settled.observation.of == "count", chosen)
    untrained = describe_networks(settled, _prior_draws(settled, chosen, num_draws, seed), chosen, data.largest)
    verdicts, trained, generalisation = judge_data(data), None, None
    if posterior is None:
        verdicts += judge_network(data, untrained, recording.num_inputs, "untrained")
    else:
        mode = {name: value[None] for name, value in posterior.mode.items()}
        trained = describe_networks(posterior.model, mode, chosen, data.largest)
        verdicts += judge_network(data, trained, recording.num_inputs, "trained")
        if validation is not None:
            generalisation = _generalisation(posterior, validation)
            verdicts += judge_generalisation(generalisation)
    size = (recording.num_trials, recording.num_bins, recording.num_neurons, recording.num_inputs)
    return Diagnosis(size, data, describe_inputs(recording), untrained, trained, generalisation, verdicts)


def _some_trials(recording: Recording, seed: int) -> Recording:
    if recording.num_trials <= MOST_TRIALS:
        return recording
    chosen = np.random.default_rng([seed, 1]).choice(recording.num_trials, MOST_TRIALS, replace=False)
    return recording.select(trials=np.sort(chosen))


def _prior_draws(model: LowRankModel, trials: Recording, num_draws: int, seed: int) -> dict[str, np.ndarray]:
    """Draws of a settled model by name, with a leading draw axis."""
    space = model.space_for(trials)
    z = np.random.default_rng(seed).standard_normal((num_draws, space.size))
    return model.named(space.unwhiten(z), trials.dt)


def _generalisation(posterior: Posterior, validation: Recording) -> Generalisation:
    fitted, held_out = assess_fit(posterior), assess_fit(posterior, validation)
    error = np.hypot(_standard_error(fitted), _standard_error(held_out))
    return Generalisation(fitted.explained_variance, held_out.explained_variance, float(error))


def _standard_error(quality: FitQuality) -> float:
    """Of the explained share 1 - R / T, over trials: sqrt(sum_b (R_b - T_b R / T)²) / T.

    R_b and T_b are the sums of squares of trial b, of the residuals and about the mean of its neuron.
    """
    mask, activity = quality.recording.mask, quality.recording.activity
    mean = np.sum(activity * mask, axis=(0, 1)) / np.maximum(mask.sum(axis=(0, 1)), 1)
    total = np.sum(np.where(mask, activity - mean, 0.0) ** 2, axis=(1, 2))
    residual = np.nansum(quality.residuals**2, axis=(1, 2))
    return float(np.linalg.norm(residual - total * residual.sum() / total.sum()) / total.sum())
