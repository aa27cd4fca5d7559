"""Networks of a posterior that run away, and the posterior without them.

Rates of a softplus, a relu and a linear network have no upper bound, and a Normal approximation does not know that the
recorded activity stayed finite: some of its draws are networks whose activity grows without end. A single one has more
power than all others together, so that means and variances over draws say nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.bulk import unseen_stream
from lrposterior.checks import argument_error, require_instance, require_integer
from lrposterior.data import Data
from lrposterior.distribution import SampleDistribution
from lrposterior.model import LowRankModel
from lrposterior.network import NONLINEARITIES
from lrposterior.parameters import Parameters
from lrposterior.posterior import Posterior
from lrposterior.precision import double_precision
from lrposterior.rollouts import currents_and_activity, simulate_each

# A network whose activity goes beyond the largest recorded one by this factor has run away.
LARGEST_GROWTH = 100.0
# Of the recorded trials, evenly chosen.
NUM_TRIALS = 8


def keep_bounded(posterior: Posterior, *, num_draws: int = 400, seed: int) -> Posterior:
    """The posterior given that activity stays bounded, as it did in the recording: draws without those that run away.

    A draw runs away if, in eight of the recorded trials with their inputs, stimulation and a realisation of its process
    noise, the activity that it expects is somewhere over a hundred times the largest recorded one. Where none does, the
    posterior is returned as it is. Else it is one of the draws that stay, and its status says how many were left out;
    what needs more than draws, as `analyze_degeneracy`, is asked of the one that was fitted.

    Args:
        posterior: what `fit` returned.
        num_draws: draws to choose from; of a sampled posterior at most those it has.
        seed: of the draws.

    Raises:
        ValueError: if more than half of the draws run away.
    """
    require_instance(posterior, "posterior", Posterior, "pass what fit(...) of a LowRankModel returned")
    num_draws = require_integer(num_draws, "num_draws", minimum=2)
    if isinstance(posterior.distribution, SampleDistribution):
        num_draws = min(num_draws, posterior.distribution.draws[..., 0].size)
    z = posterior.distribution.sample(num_draws, seed=seed)
    stays = ~runs_away(posterior, posterior.named_draws(z, unseen_stream(seed)))
    if stays.all():
        return posterior
    require_mostly_bounded(stays)
    status = f"{posterior.status}; {describe_runaways(stays)}"
    return dataclasses.replace(posterior, distribution=SampleDistribution(z[None, stays]), status=status)


def require_mostly_bounded(stays: np.ndarray) -> None:
    """Refuse a posterior of whose draws (draw,) more than half run away.

    Raises:
        ValueError: with the mend.
    """
    if np.mean(stays) < 0.5:
        raise argument_error(
            "posterior",
            "networks whose activity stays bounded in trials like the recorded ones",
            f"{np.sum(~stays)} of {len(stays)} draws that run away",
            "fit more trials, a tighter prior (a smaller scale of K, more inhibition), or a bounded nonlinearity",
        )


def describe_runaways(stays: np.ndarray) -> str:
    """How many of the draws (draw,) were left out, in words."""
    return (
        f"{np.sum(~stays)} of {len(stays)} draws run away, to over {LARGEST_GROWTH:g} times the largest recorded "
        "activity, and are left out: this is the posterior given that activity stays bounded"
    )


@double_precision
def runs_away(posterior: Posterior, draws: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which draws run away (draw,); see `keep_bounded`.

    Args:
        posterior: whose draws they are.
        draws: parameters by name with a leading draw axis, as `Posterior.sample_parameters` gives them.
    """
    model, recording, draws = posterior.model, posterior.recording, dict(draws)
    if NONLINEARITIES[model.nonlinearity].bounded:
        return np.zeros(len(draws["b"]), dtype=bool)
    chosen = np.unique(np.linspace(0, recording.num_trials - 1, NUM_TRIALS).astype(int))
    if "initial_kappa" in draws:
        draws["initial_kappa"] = draws["initial_kappa"][:, chosen]
    covariance = draws.pop("process_noise", None)
    if covariance is not None:
        # The same for all draws, so that each stays or runs away whatever others it is among.
        shape = (len(chosen), recording.num_bins, model.rank)
        standard = np.random.default_rng([posterior.seed, 3]).standard_normal(shape)
        draws["process"] = standard @ np.swapaxes(np.linalg.cholesky(covariance), 1, 2)[:, None]
    largest = np.asarray(simulate_each(_largest_activity, model, draws, recording.select(trials=chosen)))
    recorded = np.max(np.abs(recording.activity[recording.mask]))
    limit = LARGEST_GROWTH * recorded / (recording.dt if model.observation.of == "count" else 1.0)
    return ~(largest <= limit)  # also where it is not a number


def _largest_activity(model: LowRankModel, parameters: Parameters, data: Data) -> Array:
    """The largest absolute activity that is expected, with "process" (trial, time, rank) that of this noise."""
    if "process" in parameters:
        data = model.driven_by_noise(parameters, data, parameters["process"])
    return jnp.max(jnp.abs(currents_and_activity(model, parameters, data)[1]))
