"""The posterior under Dale's law: the usual methods, in coordinates in which signs are no bounds.

Magnitudes are functions of coordinates that are Normal(0, 1) under the prior (`lrposterior.magnitudes`), so that the
posterior is the prior where the data say nothing, and its density there is likelihood times Normal(z; 0, I). Laplace's
method has a curvature and a mean that hold what bends (`lrposterior.inference.bending`); the guide of `SVI` and the
chains of `NUTS` start from there.

Along the gauge the prior alone acts. Draws are not confined across it: (M A, K A^-T) has the same signs for A in a
bounded region around 1, and for all positive scalings and permutations, and no slice across it holds all networks.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
from tqdm.auto import tqdm

from lrposterior.fit_error import FitError
from lrposterior.inference.approximation import Approximation
from lrposterior.inference.balance import Balanced
from lrposterior.inference.mode import Mode
from lrposterior.inference.problem import Problem
from lrposterior.inference.secant_mode import find_secant_mode
from lrposterior.inference.signed_start import signed_start
from lrposterior.model import LowRankModel
from lrposterior.posterior import FitStatistics, Posterior
from lrposterior.precision import double_precision
from lrposterior.recording import Recording

logger = logging.getLogger(__name__)

# Of recordings with so many trials and more a mode is first found from a part of them, evenly spaced, as most steps are
# taken far from it.
MANY_TRIALS, FIRST_TRIALS = 480, 240
# Nats that may still be expected at the mode, 0.014 posterior standard deviations in all directions together; and at
# that of a part of the trials, from which the descent goes on.
TOLERANCE, FIRST_TOLERANCE = 1e-4, 1.0


class SignedMethod(Protocol):
    """What a method makes of a mode."""

    def check(self, num_coordinates: int) -> None:
        """Refuse a problem that is too large."""
        ...

    def approximate(self, balanced: Balanced, *, seed: int, progress: bool) -> Approximation: ...


@double_precision
def fit_signed(
    model: LowRankModel,
    recording: Recording,
    method: SignedMethod,
    name: str,
    *,
    seed: int,
    num_restarts: int,
    max_iterations: int,
    progress: bool,
) -> Posterior:
    """Fit a model with `DaleLoadings` by a method of this name.

    Raises:
        FitError: if no mode is found from the data (starts from the prior may fail), or the method fails there.
        ValueError: if model and recording do not fit each other, or are too large for the method.
    """
    started = time.perf_counter()
    settled = model.for_recording(recording)
    method.check(settled.space_for(recording).size)
    problem = Problem.of(settled, recording)
    with tqdm(desc="mode", unit="step", disable=not progress) as bar:

        def report(iteration: int, objective: float, decrement: float) -> None:
            bar.update()
            bar.set_postfix_str(f"objective {objective:.2f} nats, expected gain {decrement:.1e}")

        find = functools.partial(find_secant_mode, max_iterations=max_iterations, report=report)
        random = np.random.default_rng(seed)
        modes = [find(problem, _start(problem, find), tolerance=TOLERANCE)]
        for other in (_drawn(problem, random) for _ in range(num_restarts)):
            try:
                modes.append(find(problem, other, tolerance=TOLERANCE))
            except FitError as failure:
                logger.info("a start from the prior ended without a mode: %s", failure)
    mode = min(modes, key=lambda one: one.objective)
    found = method.approximate(Balanced(problem, mode, np.zeros((0, 0))), seed=seed, progress=progress)
    statistics = FitStatistics(
        objective=mode.objective,
        gradient_norm=mode.gradient_norm,
        decrement=mode.decrement,
        num_iterations=mode.num_iterations,
        wall_time=time.perf_counter() - started,
        log_evidence=None,
        evidence_note="no evidence under Dale's law: compare held-out predictive densities instead",
        mode_objectives=tuple(sorted(one.objective for one in modes)),
        num_failed_starts=1 + num_restarts - len(modes),
        elbo=found.elbo,
        diagnostics=found.diagnostics,
    )
    return Posterior(problem.model, recording, name, seed, found.status, statistics, mode.z, found.distribution)


def _start(problem: Problem, find: Callable[..., Mode]) -> np.ndarray:
    """Where the descent starts: of many trials at the mode of some, where there is one."""
    num_trials = problem.recording.num_trials
    if num_trials < MANY_TRIALS or problem.model.initial_state == "free":
        return signed_start(problem)
    chosen = np.linspace(0, num_trials - 1, FIRST_TRIALS).astype(int)
    few = Problem.of(problem.model, problem.recording.select(trials=chosen))
    try:
        return find(few, signed_start(few), tolerance=FIRST_TOLERANCE).z
    except FitError as failure:
        logger.info("no mode of %d of the trials: %s", FIRST_TRIALS, failure)
        return signed_start(problem)


def _drawn(problem: Problem, random: np.random.Generator) -> np.ndarray:
    """A start from the prior, with noise at its centre; nearer to the centre where the network diverges."""
    z = random.standard_normal(problem.space.size)
    z[problem.space.num_dynamics :] = 0.0
    while not np.isfinite(problem.negative_log_density(z)):
        z = 0.5 * z
    return z
