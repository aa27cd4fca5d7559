"""`design_perturbations`: which stimulations to apply next."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from lrposterior.checks import (
    argument_error,
    as_array,
    require_finite,
    require_instance,
    require_integer,
    require_positive,
    require_probability,
    require_shape,
)
from lrposterior.design.dense import DenseBeliefs
from lrposterior.design.free import Constraints, ascend
from lrposterior.design.greedy import choose, take
from lrposterior.design.result import PerturbationDesign
from lrposterior.design.structured import StructuredBeliefs, serves
from lrposterior.design.trials import Setting, make_setting
from lrposterior.hidden import require_none_hidden
from lrposterior.observations import require_rates_or_currents
from lrposterior.perturbation.candidates import Candidates, ensemble_candidates
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.posterior import Posterior, require_likelihood, require_uncertainty

# Matrices over the coordinates are formed up to here.
MOST_DENSE = 1500
# Starts of a free pattern are the best of so many candidates for each pattern wanted.
CANDIDATES_PER_PATTERN, FEWEST_CANDIDATES = 5, 40
STARTS_PER_PATTERN = 2
DEFAULT_TARGETS = 0.1


def design_perturbations(
    posterior: Posterior,
    num_patterns: int,
    *,
    power: float,
    goal: Any = None,
    candidates: Candidates | Literal["free"] | None = None,
    num_targets: int | None = None,
    nonnegative: bool = True,
    trials_per_pattern: int = 8,
    random_fraction: float = 0.25,
    inputs: Any = None,
    onset: float | None = None,
    duration: float | None = None,
    seed: int,
) -> PerturbationDesign:
    """Choose the stimulations that are expected to teach the most.

    Every pattern is chosen with those before it in mind: it adds the most to what the recording and they teach, in
    closed form on the posterior linearised at its mode (`lrposterior.design.dense` has the formulae). What is recorded
    are whole trials with the stimulation, under all conditions, with the noise of the mode.

    A quarter of the patterns is drawn at random, before the others are chosen: where the model is wrong, what it takes
    for informative need not be, and only trials that it did not ask for can show that.

    Args:
        posterior: a fitted network whose trials start at zero.
        num_patterns: number of different patterns.
        power: of every pattern in current² s, see `single_neuron_candidates`; candidates are scaled to it.
        goal: what is to be learnt. None: the network as a whole, every parameter. `Candidates`: what trials with these
            stimulations would show, one for each condition. Weights (neuron,): what this readout would show under the
            candidates.
        candidates: patterns to choose from; None takes random ensembles of `num_targets` neurons; "free" patterns are
            found by gradient ascent from the best of these.
        num_targets: most neurons of a free pattern with a current (None: any number), and the size of the random
            ensembles (None: a tenth of the neurons).
        nonnegative: whether free patterns can only excite.
        trials_per_pattern: how often every pattern will be applied, spread evenly over the conditions.
        random_fraction: share of the patterns that is random, rounded.
        inputs: (condition, time, input) as in `predict_responses`.
        onset, duration: in s, of the stimulation, as in `single_neuron_candidates`; not where candidates are given,
            which have a time course.
        seed: of the random patterns.

    Returns:
        The patterns in the order in which they were chosen, the random ones first.

    Raises:
        ValueError: if an argument is out of its range, arguments do not fit each other, or the network is too large for
            free patterns or a readout (1,500 coordinates) and has parts that the form for large networks does not know.
    """
    require_instance(posterior, "posterior", Posterior, "pass what fit(...) returned")
    require_uncertainty(posterior)
    require_likelihood(posterior)
    mend = "rank candidates by rank_perturbations(..., by='information')"
    require_rates_or_currents(posterior.model.observation, "posterior", mend)
    if posterior.model.process_noise is not None:
        raise argument_error("posterior", "a fit without process noise", "one with it", mend)
    require_none_hidden(posterior.model.hidden_neurons, "posterior")
    num_patterns = require_integer(num_patterns, "num_patterns", 1)
    power = require_positive(power, "power", "current² s")
    trials_per_pattern = require_integer(trials_per_pattern, "trials_per_pattern", 1)
    seed = require_integer(seed, "seed")
    if posterior.model.initial_state == "free":
        raise argument_error(
            "posterior", "trials that start at zero", "a free initial state", "fit with initial_state='zero'"
        )
    is_free = isinstance(candidates, str)
    if is_free and candidates != "free":
        raise argument_error("candidates", "Candidates, 'free' or None", repr(candidates), "write 'free'")
    fraction = 0.0 if random_fraction == 0 else require_probability(random_fraction, "random_fraction")
    if isinstance(candidates, Candidates):
        if onset is not None or duration is not None:
            raise argument_error("onset", "None where candidates have a time course", "a time", "leave it out")
        pool = _scaled(candidates, power)
        mend = f"there are {pool.num_candidates} candidates, and none is chosen twice"
        require_integer(num_patterns, "num_patterns", 1, pool.num_candidates, mend)
    else:
        pool = _ensembles(posterior, num_patterns, num_targets, power, onset, duration, seed)
    experiment = make_experiment(posterior, pool, inputs, None)
    goals, readout = _goal(posterior, pool, goal)
    visited = pool.patterns if goals is None else np.concatenate([pool.patterns, goals.patterns])
    setting = make_setting(posterior, experiment, visited, MOST_DENSE)
    beliefs = _beliefs(setting, trials_per_pattern, needs_dense=is_free or readout is not None)
    if goals is not None:
        beliefs = beliefs.towards(goals.patterns)
    if readout is not None and isinstance(beliefs, DenseBeliefs):
        beliefs = beliefs.towards_readout(readout, pool.patterns)

    num_random = min(round(fraction * num_patterns), num_patterns)
    drawn = np.random.default_rng([seed, 2]).choice(pool.num_candidates, num_random, replace=False).tolist()
    beliefs, gains = take(beliefs, pool.patterns, drawn)
    num_chosen = num_patterns - num_random
    if is_free and isinstance(beliefs, DenseBeliefs):
        norm = float(np.linalg.norm(pool.patterns[0]))
        patterns, more = _free(beliefs, pool.patterns, num_chosen, Constraints(norm, nonnegative, num_targets))
        labels = [f"random {index}" for index in range(num_random)] + [f"free {index}" for index in range(num_chosen)]
        found = Candidates(np.concatenate([pool.patterns[drawn], patterns]), pool.time_course, labels, dt=pool.dt)
    else:
        _, (rows, more) = choose(beliefs, pool.patterns, num_chosen, drawn)
        found = pool.select([*drawn, *rows])
    return PerturbationDesign(
        candidates=found,
        gains=np.array([*gains, *more]),
        is_random=np.arange(num_patterns) < num_random,
        goal=_words(goals, readout),
        trials_per_pattern=trials_per_pattern,
        visible=setting.visible,
        seed=seed,
    )


def _beliefs(setting: Setting, trials_per_pattern: int, *, needs_dense: bool) -> DenseBeliefs | StructuredBeliefs:
    size = setting.space.num_dynamics
    if size <= MOST_DENSE:
        return DenseBeliefs.of(setting, trials_per_pattern)
    if needs_dense:
        raise argument_error(
            "posterior",
            f"at most {MOST_DENSE} coordinates for free patterns and for readouts",
            str(size),
            "choose from candidates, with candidates as the goal",
        )
    if not serves(setting):
        raise argument_error(
            "posterior",
            f"at most {MOST_DENSE} coordinates for a known background or inferred time constants",
            str(size),
            "fit fewer neurons",
        )
    return StructuredBeliefs.of(setting, trials_per_pattern)


def _ensembles(
    posterior: Posterior,
    num_patterns: int,
    num_targets: int | None,
    power: float,
    onset: float | None,
    duration: float | None,
    seed: int,
) -> Candidates:
    num_neurons = posterior.recording.num_neurons
    if num_targets is None:
        size = max(1, round(DEFAULT_TARGETS * num_neurons))
    else:
        size = require_integer(num_targets, "num_targets", 1, num_neurons, f"there are {num_neurons} neurons")
    wanted = max(FEWEST_CANDIDATES, CANDIDATES_PER_PATTERN * num_patterns)
    number = min(wanted, math.comb(num_neurons, size))
    mend = f"there are {number} ensembles of {size} neurons; name more targets"
    require_integer(num_patterns, "num_patterns", 1, number, mend)
    return ensemble_candidates(
        posterior.recording,
        num_candidates=number,
        size=size,
        power=power,
        onset=onset,
        duration=duration,
        seed=seed,
    )


def _scaled(candidates: Candidates, power: float) -> Candidates:
    scale = np.sqrt(power / candidates.power)
    patterns = candidates.patterns * scale[:, None]
    return Candidates(patterns, candidates.time_course, candidates.labels, dt=candidates.dt)


def _goal(posterior: Posterior, pool: Candidates, goal: Any) -> tuple[Candidates | None, np.ndarray | None]:
    """The goal as candidates or as a readout."""
    if goal is None:
        return None, None
    if isinstance(goal, Candidates):
        if not np.array_equal(goal.time_course, pool.time_course):
            mend = "make both with the same onset and duration"
            raise argument_error("goal", "candidates with the time course of the design", "another one", mend)
        return goal, None
    weights = as_array(goal, "goal", ("neuron",))
    require_shape(weights, "goal", {"neuron": posterior.recording.num_neurons}, "give one weight per neuron")
    require_finite(weights, "goal", "write 0 for neurons that do not count")
    if not weights.any():
        raise argument_error("goal", "a weight that is not 0", "zeros only", "weigh the neurons that are read out")
    return None, weights.astype(np.float64)


def _words(goals: Candidates | None, readout: np.ndarray | None) -> str:
    if goals is not None:
        return f"the responses to {goals.num_candidates} stimulations"
    return "the network" if readout is None else "a readout"


def _free(
    beliefs: DenseBeliefs, starts: np.ndarray, num_chosen: int, constraints: Constraints
) -> tuple[np.ndarray, list[float]]:
    """Free patterns (pattern, neuron) one after the other, each from the best of the starts (start, neuron)."""
    patterns, gains = np.empty((num_chosen, starts.shape[1])), []
    for index in range(num_chosen):
        best = np.argsort(-beliefs.gains(starts), kind="stable")[:STARTS_PER_PATTERN]
        found = [ascend(beliefs, starts[row], constraints) for row in best]
        pattern, gain = max(found, key=lambda each: each[1])
        patterns[index] = pattern
        gains.append(gain)
        beliefs = beliefs.after(pattern)
    return patterns, gains
