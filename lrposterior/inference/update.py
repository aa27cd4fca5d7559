"""A Laplace posterior brought up to date with new trials, from where it stands.

The information adds over trials: at the old mode the precision of all trials is the old one and the information of the
new trials, of low rank. The first Gauss-Newton step from there is this update of a Normal posterior; a few more take
the curvature along, and the balance of the gauge and the prior scales follow from where they were. What comes out is
the posterior that `fit` would reach from the data alone, under the same settled model.

Stimulation drives patterns of rates that the old recording never visited. Through these the random bulk acts as well,
so that the visited patterns Q of `RandomBulk` grow by what stands out of the noise in the new trials. That is the same
prior of W: G (I - Q Q^T) gives off a column for every new pattern, with the mean 0 and the variance g² / N that it had.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

import numpy as np
import threadpoolctl
from tqdm.auto import tqdm

from lrposterior.background import LARGEST_DIMENSION, RandomBulk, newly_visited
from lrposterior.checks import argument_error, require_instance, require_integer
from lrposterior.combined_recording import combine_recordings
from lrposterior.distribution import SampleDistribution
from lrposterior.inference.balance import Balanced, balance
from lrposterior.inference.fit import Laplace, inferred_scales, make_problem
from lrposterior.inference.laplace import log_evidence
from lrposterior.inference.mode import Mode
from lrposterior.inference.problem import AnyProblem, FitError
from lrposterior.model import LowRankModel
from lrposterior.posterior import FitStatistics, Posterior
from lrposterior.precision import double_precision
from lrposterior.priors import require_no_signs
from lrposterior.recording import Recording

# Gauss-Newton steps from the old mode, and the nats below which gauge and scales may follow.
MAX_STEPS, STEP_TOLERANCE = 50, 0.1


def update_posterior(
    posterior: Posterior,
    trials: Recording,
    *,
    method: Laplace | None = None,
    max_new_patterns: int = LARGEST_DIMENSION,
    progress: bool = True,
) -> Posterior:
    """Learn from new trials, such as those with stimulation, without starting again.

    The result is what `fit` gives of all trials together under `settled_model` of the posterior that is returned, so
    long as both end in the same mode. Of a posterior that mixes several modes the heaviest is followed.

    Args:
        posterior: a Laplace posterior.
        trials: new trials of neurons that were fitted, in bins of the same width.
        method: options of the Laplace approximation; None for the defaults.
        max_new_patterns: patterns of rates at most by which the visited ones of a random bulk grow. With 0 they stay,
            and what the bulk does with other patterns is put down to those that are there.
        progress: show a progress bar.

    Returns:
        The posterior of all trials, old ones first. Its diagnostics hold "trials added" and "patterns added".

    Raises:
        ValueError: if the trials do not fit the old ones (`combine_recordings`), or the posterior is of another kind.
        FitError: as `fit`.
    """
    require_instance(posterior, "posterior", Posterior, "pass what fit(...) returned")
    return updated(posterior, posterior.settled_model, trials, method, max_new_patterns, progress)


def updated(
    posterior: Posterior,
    model: LowRankModel,
    trials: Recording,
    method: Laplace | None,
    max_new_patterns: int,
    progress: bool,
) -> Posterior:
    """`update_posterior` under a settled model that differs from the posterior's in its prior scales alone."""
    require_instance(trials, "trials", Recording, "make it with Recording(activity, dt, stimulation=...)")
    require_integer(max_new_patterns, "max_new_patterns")
    if posterior.method != "laplace" or isinstance(posterior.distribution, SampleDistribution):
        raise argument_error(
            "posterior",
            "a Laplace posterior without correction",
            f"one of method {posterior.method!r}, as a {type(posterior.distribution).__name__}",
            "fit all trials together: fit(model, combine_recordings(recording, trials), ...)",
        )
    require_no_signs(posterior.model.priors, "posterior", "fit all trials together")
    with threadpoolctl.threadpool_limits(1, "blas"):
        return _updated(posterior, model, trials, method or Laplace(), max_new_patterns, progress)


@double_precision
def _updated(
    posterior: Posterior,
    model: LowRankModel,
    trials: Recording,
    method: Laplace,
    max_new_patterns: int,
    progress: bool,
) -> Posterior:
    started = time.perf_counter()
    num_old, recording = posterior.recording.num_trials, combine_recordings(posterior.recording, trials)
    if recording.num_neurons != posterior.recording.num_neurons:
        raise argument_error(
            "trials",
            f"neurons among the {posterior.recording.num_neurons} that were fitted",
            f"{recording.num_neurons - posterior.recording.num_neurons} others",
            "fit all together: fit(model, combine_recordings(recording, trials), ...)",
        )
    unknown = set(recording.session_labels or ()) - set(model.drift.sessions) if model.drift is not None else None
    if unknown:
        raise argument_error(
            "trials",
            "trials of the sessions that were fitted, as the model has drift",
            f"session {min(unknown)!r}",
            "fit all together: fit(model, combine_recordings(recording, trials), ...)",
        )
    extended = with_visited(model, recording.select(trials=slice(num_old, None)), max_new_patterns)
    problem = make_problem(extended, recording, method)
    problem = problem.with_scales({name: posterior.model.scale(name) for name in problem.scale_priors})
    with tqdm(desc="update", unit="step", disable=not progress) as bar:
        mode = _follow(problem, _start(posterior, problem), bar)
        bar.set_description_str("balance")
        balanced = balance(problem, mode)
    approximation = method.approximate(balanced, seed=posterior.seed, progress=progress)
    evidence, note = log_evidence(balanced.problem, balanced.mode, balanced.scale_precision)
    added = {
        "trials added": float(trials.num_trials),
        "patterns added": float(_num_visited(extended) - _num_visited(model)),
    }
    statistics = _statistics(balanced, mode.num_iterations, time.perf_counter() - started, evidence, note)
    return Posterior(
        balanced.problem.model,
        recording,
        "laplace",
        posterior.seed,
        approximation.status,
        dataclasses.replace(statistics, diagnostics={**approximation.diagnostics, **added}),
        balanced.mode.z,
        approximation.distribution,
        problem.scale_priors,
    )


def with_visited(model: LowRankModel, trials: Recording, max_new_patterns: int) -> LowRankModel:
    """A settled model whose visited patterns, of a random bulk, are also those of the trials."""
    background = model.background
    if not isinstance(background, RandomBulk) or not max_new_patterns:
        return model
    added = newly_visited(model.observed_rates(trials), background.visited, max_new_patterns)
    if not added.size:
        return model
    subspace = np.concatenate([background.visited, added], axis=1)
    return dataclasses.replace(
        model, background=dataclasses.replace(background, subspace=subspace, dimension=subspace.shape[1])
    )


def _num_visited(model: LowRankModel) -> int:
    return model.background.visited.shape[1] if isinstance(model.background, RandomBulk) else 0


def _start(posterior: Posterior, problem: AnyProblem) -> np.ndarray:
    """(coordinate,) the old mode; what belongs to new trials and new patterns is at the mean of its prior."""
    old = posterior.space.unwhiten(posterior.mode_coordinates)
    space = problem.space
    start = {name: np.array(value) for name, value in space.unwhiten(np.zeros(space.size)).items()}
    for name, value in old.items():
        start[name][tuple(slice(size) for size in value.shape)] = value
    return problem.best_noise(np.asarray(space.whiten(start)))


def _follow(problem: AnyProblem, z: np.ndarray, bar: tqdm) -> Mode:
    """From a point down to the mode nearby, in its gauge and at the scales of the problem.

    Raises:
        FitError: if it does not get there.
    """
    objective = problem.negative_log_density(z)
    for step in range(1, MAX_STEPS + 1):
        information = problem.information(z)
        covariance = problem.covariance(z, information)
        slope = covariance.across_gauge(problem.gradient(z)[: problem.space.num_dynamics])
        if not np.all(np.isfinite(slope)):
            break
        decrement = 0.5 * float(slope @ covariance.times(slope))
        z, gained = problem.descend(z, covariance, slope)
        objective -= gained
        bar.update()
        bar.set_postfix_str(f"objective {objective:.2f} nats, gained {gained:.1e}")
        if gained < max(STEP_TOLERANCE, problem.refresh):
            return Mode(z, objective, float(np.linalg.norm(slope)), decrement, information, step)
    raise FitError(
        f"no convergence: {MAX_STEPS} steps from the old mode do not lead to one of all trials; fit them together from "
        "the start: fit(model, combine_recordings(recording, trials), ...)"
    )


def _statistics(
    balanced: Balanced, num_steps: int, wall_time: float, evidence: float | None, note: str
) -> FitStatistics:
    mode = balanced.mode
    scales: Mapping[str, tuple[float, float]] = inferred_scales(balanced)
    return FitStatistics(
        objective=mode.objective,
        gradient_norm=mode.gradient_norm,
        decrement=mode.decrement,
        num_iterations=num_steps,
        wall_time=wall_time,
        log_evidence=evidence,
        evidence_note=note,
        mode_objectives=(mode.objective,),
        mode_log_evidences=(np.nan if evidence is None else evidence,),
        mode_counts=(1,),
        scales=scales,
    )
