"""How well a posterior simulates trials that it has not seen: all statistics of `compare_trials` at once."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from lrposterior.checks import argument_error, require_instance, require_integer
from lrposterior.held_out import sample_at_most
from lrposterior.model import LowRankModel
from lrposterior.posterior import Posterior, require_like_fitted
from lrposterior.precision import double_precision
from lrposterior.recording import Recording
from lrposterior.runaways import runs_away
from lrposterior.trial_comparison import TrialComparison, compare_trials


def score_trials(
    posterior: Posterior,
    held_out: Recording,
    *,
    width: float,
    conditions: Sequence[str] | None = None,
    num_simulations: int = 20,
    num_resamples: int = 200,
    seed: int,
) -> TrialComparison:
    """Simulate trials that were not fitted, and compare them with the recorded ones.

    Every simulation is that of `simulate_trials`: from the inputs alone, with all noise. Of counts, "bits per spike"
    are those of the mean of what the simulated networks expect, over constant rates, which are the neurons' means in
    these trials. The density of whole trials, in which early bins tell about later ones, is in a sweep's "log density".

    Args:
        posterior: what `fit` returned, also networks that match.
        held_out: trials that the fit has not seen.
        width: standard deviation in s of the Gaussian kernel that smooths trials before they are averaged or compared.
        conditions: (trial,) which trials are averaged together; all of them where left out.
        num_simulations: of every trial.
        num_resamples: resamples of the trials for standard errors.
        seed: of the draws, of all noise and of the resamples.

    Raises:
        ValueError: if the trials are not like those that were fitted, there are fewer than four of a condition, or a
            network that was drawn runs away (`keep_bounded`).
    """
    activity, expected = _simulated(posterior, held_out, num_simulations, seed)
    has_spikes = posterior.model.observation.of == "count" and np.any(held_out.activity[held_out.mask] > 0.0)
    return compare_trials(
        held_out,
        activity,
        width=width,
        conditions=conditions,
        expected=expected if has_spikes else None,
        num_resamples=num_resamples,
        seed=seed,
    )


def simulate_trials(posterior: Posterior, trials: Recording, *, num_simulations: int = 20, seed: int) -> np.ndarray:
    """Activity (simulation, trial, time, neuron) under the inputs of trials, with process and observation noise.

    Every simulation is by another draw of the posterior, or, where draws are networks, by the next of them. Where the
    initial state is free, all trials start from the mean of those that were fitted.

    Args:
        posterior: what `fit` returned, also networks that match.
        trials: whose inputs and stimulation are used.
        num_simulations: of every trial.
        seed: of the draws and of all noise.

    Raises:
        ValueError: if the trials are not like those that were fitted, or a network that was drawn runs away
            (`keep_bounded`).
    """
    return _simulated(posterior, trials, num_simulations, seed)[0]


def _simulated(
    posterior: Posterior, trials: Recording, num_simulations: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Activity (simulation, trial, time, neuron), and the mean (trial, time, neuron) of what networks expect."""
    require_instance(posterior, "posterior", Posterior, "pass what fit or load_posterior returned")
    require_instance(trials, "trials", Recording, "make it with Recording(activity, dt)")
    require_like_fitted(trials, posterior.recording)
    require_integer(num_simulations, "num_simulations", minimum=1)
    draws = sample_at_most(posterior, num_simulations, seed=seed)
    if np.any(away := runs_away(posterior, draws)):
        raise _runs_away(f"{np.sum(away)} of {len(away)} draws that run away in trials like the recorded ones")
    simulated, expected = [], np.zeros(trials.activity.shape)
    for simulation in range(num_simulations):
        network = {name: value[simulation % len(draws["M"])] for name, value in draws.items()}
        if "initial_kappa" in network:  # inferred for the fitted trials alone
            mean = network["initial_kappa"].mean(axis=0, keepdims=True)
            network["initial_kappa"] = np.repeat(mean, trials.num_trials, axis=0)
        activity, own = _simulate(posterior.model, network, trials, seed + simulation)
        simulated.append(activity)
        expected += own / num_simulations
    return np.stack(simulated), expected


@double_precision
def _simulate(
    model: LowRankModel, network: dict[str, np.ndarray], trials: Recording, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Activity of one network as `LowRankModel.simulate` has it, and what its currents let expect."""
    currents = jnp.asarray(model.simulated_currents(network, trials, seed=seed))
    coordinates = {name: jnp.asarray(value) for name, value in model.coordinates(network, trials.dt).items()}
    emission = model.emission_of_trials(coordinates, model.data(trials))
    try:
        activity = emission.sample(np.random.default_rng(seed), currents)
    except ValueError as failure:  # Counts beyond the integers.
        raise _runs_away("one whose counts are beyond the integers") from failure
    return activity, np.asarray(emission.mean(currents))


def _runs_away(what_came: str) -> ValueError:
    mend = "pass keep_bounded(posterior, seed=0), which leaves such draws out"
    return argument_error("posterior", "networks whose activity stays bounded", what_came, mend)
