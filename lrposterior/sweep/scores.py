"""One run of a sweep: fit one configuration to some trials with one seed, and score it on the others."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.stats

from lrposterior.checks import argument_error
from lrposterior.fit_error import FitError
from lrposterior.held_out import held_out_density
from lrposterior.inference.approximation import CONVERGED
from lrposterior.inference.fit import fit
from lrposterior.inference.learned_embedding import learned_where_needed
from lrposterior.input_embedding import embed_inputs
from lrposterior.posterior import Posterior
from lrposterior.recording import Recording, load_recording
from lrposterior.runaways import keep_bounded
from lrposterior.sweep.configuration import Settings
from lrposterior.sweep.validation import Validation
from lrposterior.trial_scores import score_trials

LOG_DENSITY, BITS_PER_SPIKE, CORRELATION, CEILING = "log density", "bits per spike", "correlation", "ceiling"
SCORES = (LOG_DENSITY, BITS_PER_SPIKE, CORRELATION, CEILING)
RANKING_SCORES = SCORES[:3]
UNITS = {LOG_DENSITY: "nats per observation", BITS_PER_SPIKE: "bits per spike", CORRELATION: "correlation"}

NUM_DRAWS, NUM_SIMULATIONS = 300, 20
# `score_trials` takes no condition with fewer trials.
FEWEST_TRIALS = 4


@dataclass(frozen=True)
class Run:
    """What became of one configuration with one seed.

    Attributes:
        scores: by name, NaN where one is not known; empty where the fit was refused.
        refusal: why, or None.
        seconds: what it took.
        notes: the status of a fit that has not converged, its warnings, and why a score is not known.
    """

    scores: Mapping[str, float]
    refusal: str | None
    seconds: float
    notes: tuple[str, ...] = field(default=())


def score_configuration(settings: Settings, recording: Recording, validation: Validation, seed: int) -> Run:
    """Fit and score one configuration.

    - "log density": log p(held-out trials | fitted trials) over the number of held-out observations, in nats;
    - "bits per spike": of counts, the same above that of independent Poisson counts with every neuron's mean in the
      fitted trials, over the number of held-out spikes;
    - "correlation", "ceiling": those of `score_trials`, of trials simulated 20 times, with draws of the posterior.
      Trials of one label are averaged together; labels with fewer than 4 held-out trials do not take part.

    Draws of point estimates are the networks that were found: their densities are averaged, and their simulations
    differ in noise. A layer of the inputs that is learned learns from the fitted trials, by the options of the fit
    where this is `Match`.

    A fit that fails, and a model that does not suit the fitted trials, are refused.
    """
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        scores, refusal, notes = _fit_and_score(settings, recording, validation, seed)
    notes += [str(warning.message) for warning in caught]
    return Run(scores, refusal, time.perf_counter() - started, tuple(notes))


def score_in_file(settings: Settings, recording: Path, validation: Validation, seed: int) -> Run:
    """`score_configuration` of the recording in a file, which a process reads once: a task is small.

    A process keeps what it compiled for one configuration at a time, 0.2 GB and more.
    """
    _forget_other_than(repr(settings))
    return score_configuration(settings, _read(recording), validation, seed)


@functools.lru_cache(maxsize=1)
def _forget_other_than(settings: str) -> None:
    jax.clear_caches()


@functools.lru_cache(maxsize=1)
def _read(path: Path) -> Recording:
    return load_recording(path)


def require_correlation(held_out: Recording, seed: int) -> None:
    """Refuse held-out trials whose averages have no correlation.

    Raises:
        ValueError: if no label has enough of them.
    """
    most = int(_labels(held_out)[1].max())
    if most < FEWEST_TRIALS:
        expected = f"at least {FEWEST_TRIALS} held-out trials of some label, as correlation is the score that ranks"
        mend = "hold out more, or rank by another score"
        raise argument_error("validation", expected, f"{most} at most with seed {seed}", mend)


def _labels(trials: Recording) -> tuple[np.ndarray, np.ndarray]:
    """(trial,) labels, and how many of the trials have each."""
    labels = np.array(trials.trial_labels or ["all"] * trials.num_trials)
    _, member, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return labels, counts[member]


def _fit_and_score(
    settings: Settings, recording: Recording, validation: Validation, seed: int
) -> tuple[dict[str, float], str | None, list[str]]:
    """Scores, refusal and notes."""
    options: dict[str, Any] = {"method": settings.method, **settings.fit_options}
    try:
        training, held_out = _embedded(settings, *validation.split(recording, seed))
        posterior = fit(settings.model, training, seed=seed, progress=False, **options)
    except (FitError, ValueError) as failure:
        return {}, str(failure), []
    density = float(held_out_density(posterior, held_out, num_draws=NUM_DRAWS, seed=seed).sum())
    if not np.isfinite(density):
        return {}, "held-out trials: all networks drawn from the posterior diverge in one of them", []
    observed = posterior.model.informative(held_out)
    scores = dict.fromkeys(SCORES, float("nan")) | {LOG_DENSITY: density / float(observed.sum())}
    spikes = held_out.activity[held_out.mask].sum()
    if posterior.model.observation.of == "count" and spikes > 0.0:
        scores[BITS_PER_SPIKE] = (density - _density_of_means(training, held_out)) / float(np.log(2.0) * spikes)
    compared, notes = _compare(posterior, held_out, validation.smoothing or 2.0 * recording.dt, seed)
    status = [] if posterior.status == CONVERGED else [posterior.status]
    return scores | compared, None, status + notes


def _embedded(settings: Settings, training: Recording, held_out: Recording) -> tuple[Recording, Recording]:
    """Both with features of their inputs in their place."""
    if settings.embedding is None:
        return training, held_out
    embedding = learned_where_needed(settings.embedding, settings.model, training, settings.method, progress=False)
    return embed_inputs(training, embedding), embed_inputs(held_out, embedding)


def _density_of_means(training: Recording, held_out: Recording) -> float:
    """Log probability of held-out counts that are Poisson with every neuron's mean in the fitted trials, in nats."""
    mask = training.mask
    mean = np.sum(training.activity * mask, axis=(0, 1)) / np.maximum(mask.sum(axis=(0, 1)), 1)
    return float(scipy.stats.poisson.logpmf(held_out.activity, mean)[held_out.mask].sum())


def _compare(
    posterior: Posterior, held_out: Recording, smoothing: float, seed: int
) -> tuple[dict[str, float], list[str]]:
    """The correlation of trial averages and its ceiling, or why they are not known."""
    labels, counts = _labels(held_out)
    chosen = np.flatnonzero(counts >= FEWEST_TRIALS)
    if not chosen.size:
        most, number = f"{counts.max()} held-out trials at most", len(np.unique(labels))
        return {}, [f"no correlation of trial averages: {most} of each of {number} label(s), where 4 are needed"]
    trials = held_out.select(trials=chosen)
    try:
        bounded = keep_bounded(posterior, seed=seed)
        found = score_trials(
            bounded,
            trials,
            width=smoothing,
            conditions=labels[chosen].tolist(),
            num_simulations=NUM_SIMULATIONS,
            num_resamples=2,
            seed=seed,
        )
    except ValueError as failure:  # most networks run away, or one does under the held-out inputs
        return {}, [f"no correlation of trial averages: {failure}"]
    left_out = (
        []
        if bounded is posterior
        else [f"correlation of trial averages: {bounded.status.removeprefix(f'{posterior.status}; ')}"]
    )
    return {name: found[name].value for name in (CORRELATION, CEILING)}, left_out
