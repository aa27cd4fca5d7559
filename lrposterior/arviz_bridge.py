"""The posterior for ArviZ: a `DataTree` of what does not depend on the gauge."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array

from lrposterior.bulk import unseen_stream
from lrposterior.checks import argument_error, require_integer
from lrposterior.connectivity import require_memory
from lrposterior.data import Data
from lrposterior.distribution import SampleDistribution
from lrposterior.likelihood import log_likelihood_by_trial
from lrposterior.model import LowRankModel
from lrposterior.observations import ScaledObservation
from lrposterior.parameters import Parameters
from lrposterior.populations import ByCellType
from lrposterior.precision import double_precision
from lrposterior.recording import Recording
from lrposterior.rollouts import DRAWS_AT_ONCE, to_coordinates
from lrposterior.storage import package_version
from lrposterior.time_constants import PerNeuron

if TYPE_CHECKING:
    from xarray import DataTree

    from lrposterior.distribution import ParameterDistribution
    from lrposterior.posterior import Posterior

MAX_GIGABYTES = 2.0
DEFAULT_DRAWS = 400
# Parameters that no change of gauge touches.
INVARIANT = (
    "B",
    "b",
    "noise_scale",
    "rate_scale",
    "baseline",
    "dispersion",
    "decay_time",
    "session_offset",
    "session_scale",
    "gain",
)

AXES = {
    "W": ["post", "pre"],
    "eigenvalue_real": ["eigenvalue"],
    "eigenvalue_imag": ["eigenvalue"],
    "B": ["neuron", "input"],
    "b": ["neuron"],
    "noise_scale": ["neuron"],
    "rate_scale": ["neuron"],
    "baseline": ["neuron"],
    "dispersion": ["neuron"],
    "decay_time": ["neuron"],
    "session_offset": ["neuron", "session"],
    "session_scale": ["neuron", "session"],
    "initial_current": ["trial", "neuron"],
    "process_noise": ["post", "pre"],
    "activity": ["trial", "time", "neuron"],  # of the log likelihood: ["trial"], by leaving out what is not there
    "inputs": ["trial", "time", "input"],
    "stimulation": ["trial", "time", "neuron"],
    "cell_types": ["neuron"],
    "trial_labels": ["trial"],
    "session_labels": ["trial"],
}


def to_arviz(posterior: Posterior, num_draws: int | None = None, *, seed: int, connectivity: bool = True) -> DataTree:
    """Draws of the posterior as an ArviZ `DataTree`, every variable with the axes (chain, draw, ...).

    Groups and variables:

    - posterior: W (post, pre), eigenvalue_real and eigenvalue_imag of W (eigenvalue), by decreasing magnitude, hidden
      neurons included, effective_rank, B (neuron, input), b and noise_scale (neuron), of counts rate_scale, baseline
      and, where they vary more than Poisson's, dispersion in its place, of calcium also decay_time in seconds,
      session_offset and session_scale (neuron, session) where they drift, time_constant in seconds where it is
      inferred, initial_current (trial, neuron) where the initial state is free, process_noise (post, pre), the
      covariance of what process noise adds to the currents in every bin, where there is any and W is included, the gain
      of a random bulk, whose unseen part is in W. M and K are not there: they depend on the gauge.
    - log_likelihood: activity (trial), in nats, so that `loo` leaves out whole trials. A random bulk counts as far as
      the recording sees it, as in the fit. It is left out of a generalised posterior, of which no likelihood is a part;
      the attribute `caveat` says so.
    - observed_data: activity (trial, time, neuron), NaN where masked.
    - constant_data: inputs, stimulation, dt in seconds, cell_types, trial_labels, session_labels.

    Laplace and variational draws are independent and form one chain. R-hat and effective sample size say nothing about
    them, nor about whether the approximation is good: leave them out by ``arviz_stats.summary(tree, kind="stats")``.
    `loo` weighs the draws as if they came from the exact posterior. Where trials are few, each moves the posterior much
    and Pareto k is high: take that warning seriously and compare held-out trials instead. ArviZ below 1.0 takes
    ``arviz.InferenceData.from_datatree(tree)``.

    Args:
        posterior: what a fit returned.
        num_draws: number of draws, by default 400. Of Markov chains by default all draws; else at most this many in
            all, from every chain the same number at even spacing, so that chains stay chains.
        seed: seed of the draws; a Markov chain does not use it.
        connectivity: whether to include W. Without it the tree is small at any number of neurons. A model with a
            background then also leaves out the eigenvalues and effective_rank, which need all of W.

    Raises:
        ValueError: if num_draws or seed is out of its range, or W would exceed 2 GB.
    """
    from arviz_base import from_dict

    seed = require_integer(seed, "seed")
    recording = posterior.recording
    num_chains, num_kept = _num_draws(posterior.distribution, num_draws)
    _require_room(num_chains * num_kept, recording, posterior.model, connectivity)
    draws = posterior.named_draws(_draws(posterior.distribution, num_kept, seed), unseen_stream(seed))

    variables = _invariants(posterior, draws, connectivity)
    likelihood = {}
    if not posterior.is_generalised:
        likelihood["activity"] = log_likelihood_of_draws(posterior.model, draws, recording)
    constants = {
        name: np.asarray(getattr(recording, name))
        for name in ("inputs", "stimulation", "dt", "cell_types", "trial_labels", "session_labels")
        if getattr(recording, name) is not None and np.size(getattr(recording, name))
    }
    time_constant, drift = posterior.model.time_constant, posterior.model.drift
    observation = posterior.model.observation
    axes, named_axes = dict(AXES), {}
    if isinstance(time_constant, ByCellType):
        axes["time_constant"], named_axes["population"] = ["population"], list(time_constant)
    if isinstance(time_constant, PerNeuron):
        axes["time_constant"] = ["neuron"]
    if isinstance(observation, ScaledObservation) and observation.per == "network":
        axes |= {"rate_scale": [], "baseline": []}
    if drift is not None:
        named_axes["session"] = list(drift.sessions)
    return from_dict(
        {
            "posterior": _by_chain(variables, num_chains),
            **({"log_likelihood": _by_chain(likelihood, num_chains)} if likelihood else {}),
            "observed_data": {"activity": np.where(recording.mask, recording.activity, np.nan)},
            "constant_data": constants,
        },
        dims=axes,
        coords=_coordinates(recording) | named_axes,
        check_conventions=False,  # it warns of more chains than draws, taking them for swapped axes
        attrs={
            "/": {
                "inference_library": "lrposterior",
                "inference_library_version": package_version(),
                "method": posterior.method,
                "status": posterior.status,
                **({"caveat": posterior.caveat} if posterior.caveat else {}),
                "fit_seed": int(posterior.seed),
                "seed": seed,
            }
        },
    )


def _num_draws(distribution: ParameterDistribution, num_draws: int | None) -> tuple[int, int]:
    """Number of chains, and of draws of each."""
    if num_draws is not None:
        require_integer(num_draws, "num_draws", minimum=1)
    if not isinstance(distribution, SampleDistribution):
        return 1, DEFAULT_DRAWS if num_draws is None else num_draws
    num_chains, num_stored, _ = distribution.draws.shape
    if num_draws is None:
        return num_chains, num_stored
    if not num_chains <= num_draws <= num_chains * num_stored:
        raise argument_error(
            "num_draws",
            f"{num_chains} to {num_chains * num_stored}, the draws of {num_chains} chains",
            str(num_draws),
            "choose a number between these, or leave it out to have all draws",
        )
    return num_chains, num_draws // num_chains


def _draws(distribution: ParameterDistribution, num_draws: int, seed: int) -> np.ndarray:
    """(draw, coordinate) whitened draws, those of one chain after those of the other."""
    if not isinstance(distribution, SampleDistribution):
        return distribution.sample(num_draws, seed=seed)
    spaced = np.linspace(0, distribution.draws.shape[1] - 1, num_draws).round().astype(int)
    return distribution.draws[:, spaced].reshape(-1, distribution.draws.shape[2])


def _require_room(num_draws: int, recording: Recording, model: LowRankModel, connectivity: bool) -> None:
    num_entries = num_draws * recording.num_neurons * (recording.num_inputs + 2)
    if model.initial_state == "free":
        num_entries += num_draws * recording.num_trials * recording.num_neurons
    mend = "ask for fewer draws by num_draws="
    if connectivity:
        num_entries += (1 if model.process_noise is None else 2) * num_draws * recording.num_neurons**2
        mend += ", or leave W out by connectivity=False"
    require_memory(num_entries, "to_arviz", MAX_GIGABYTES, mend)


def _invariants(posterior: Posterior, draws: dict[str, np.ndarray], connectivity: bool) -> dict[str, np.ndarray]:
    """What does not depend on the gauge, by name, with a leading draw axis."""
    model, W = posterior.model, posterior.connectivity_of(draws)
    variables = {}
    if connectivity:
        variables["W"] = W.to_dense(MAX_GIGABYTES)
        if model.process_noise is not None:
            variables["process_noise"] = draws["M"] @ draws["process_noise"] @ np.swapaxes(draws["M"], 1, 2)
    if connectivity or W.is_low_rank:
        eigenvalues = posterior.eigenvalues_of(draws)
        variables |= {
            "eigenvalue_real": np.real(eigenvalues),
            "eigenvalue_imag": np.imag(eigenvalues),
            "effective_rank": W.effective_rank(),
        }
    variables |= {name: draws[name] for name in INVARIANT if np.size(draws.get(name, ()))}
    if model.time_constants.inferred:
        variables["time_constant"] = draws["time_constant"]
    if model.initial_state == "free":
        recurrent = draws["initial_kappa"] @ np.swapaxes(draws["M"], 1, 2)
        variables["initial_current"] = recurrent + draws["b"][:, None, :]
    return variables


@double_precision
def log_likelihood_of_draws(model: LowRankModel, draws: dict[str, np.ndarray], recording: Recording) -> np.ndarray:
    """(draw, trial) log likelihoods in nats of trials, fitted or new, as far as they see a random bulk.

    Args:
        model: a settled model.
        draws: parameters by name with a leading draw axis, as `Posterior.named_draws` gives them.
        recording: the trials. Where there are not as many initial latents, each starts from their mean.
    """
    return np.asarray(_by_trial(model.structure, to_coordinates(model, draws, recording), model.data(recording)))


@functools.partial(jax.jit, static_argnums=0)
def _by_trial(model: LowRankModel, parameters: Parameters, data: Data) -> Array:
    return jax.lax.map(lambda draw: log_likelihood_by_trial(model, draw, data), parameters, batch_size=DRAWS_AT_ONCE)


def _by_chain(variables: dict[str, np.ndarray], num_chains: int) -> dict[str, np.ndarray]:
    return {name: array.reshape(num_chains, -1, *array.shape[1:]) for name, array in variables.items()}


def _coordinates(recording: Recording) -> dict[str, Any]:
    """Labels of the axes. Labels of trials serve where no two are alike; constant_data holds them in any case."""
    neurons = recording.neuron_labels or range(recording.num_neurons)
    labels = recording.trial_labels
    unique = labels is not None and len(set(labels)) == len(labels)
    return {
        "neuron": np.asarray(neurons),
        "post": np.asarray(neurons),
        "pre": np.asarray(neurons),
        "trial": np.asarray(labels) if unique else np.arange(recording.num_trials),
        "time": recording.times,
    }
