"""The network as a part of a NumPyro program: a thin bridge on `log_likelihood`."""

# NumPyro's annotations are wider than what it returns: an array is a number or an array, a distribution any one.
# pyright: reportReturnType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from numpyro import distributions

from lrposterior.checks import argument_error, require_instance, suggest
from lrposterior.likelihood import log_likelihood
from lrposterior.model import LowRankModel
from lrposterior.parameters import Parameters, ParameterSpace
from lrposterior.precision import require_double_precision
from lrposterior.priors import require_no_signs
from lrposterior.recording import Recording


def numpyro_model(model: LowRankModel, recording: Recording) -> Callable[..., Parameters]:
    """A NumPyro program of a recording under a model.

    Called without arguments the program samples every parameter from its prior, under the names

    - M, K (neuron, rank),
    - initial_kappa (trial, rank), where the initial state is free,
    - B (neuron, input), b (neuron,),
    - A (neuron, dimension), where there is a random bulk: of what the recording sees of it,
    - log_time_constant_excess, where the time constant is inferred: (), or one for each cell type with a prior,
    - K_on_M (rank, rank), K_on_B (rank, input), K_on_b (rank, 1), where the loadings are correlated: the regression of
      K, which gives the mean of its prior,
    - log_process_scale (rank,), and process_mixing for a full covariance, where there is process noise
      (`lrposterior.process_noise`),
    - log_noise_scale (neuron,), for calcium also log_decay_time (neuron,), or for counts log_rate_scale and
      log_baseline (neuron,), and log_dispersion where they vary more than Poisson's,

    with scales that have priors of their own at the medians of these. It adds the log likelihood of the recording by
    `numpyro.factor`, and returns the parameters by name. Its log density is that of `lrposterior.log_density`.

    Inside a larger program, pass what that program has sampled or computed itself; only the rest is then sampled::

        network = numpyro_model(model, recording)

        def program():
            scale = numpyro.sample("scale", dist.HalfNormal(2.5))
            shape = numpyro.sample("shape", dist.Normal().expand([num_neurons, rank]).to_event(2))
            network(K=scale * shape)

    M and K of the draws lie along the gauge orbit (`lrposterior.gauge`): look at W = M K^T / N and at predictions, and
    judge convergence by them.

    Args:
        model: the model.
        recording: the recording.

    Returns:
        The program. It raises a ValueError where it is given a parameter that the model does not have, or a shape that
        does not fit, and a RuntimeError in single precision.

    Raises:
        ValueError: if the model and the recording do not fit each other.
        RuntimeError: if 64-bit arrays are switched off.
    """
    require_double_precision("numpyro_model")
    require_instance(model, "model", LowRankModel)
    require_instance(recording, "recording", Recording)
    require_no_signs(model.priors, "model", "fit it with method='laplace', or give it other priors")
    settled = model.for_recording(recording)
    space = settled.space_for(recording)

    def program(**given: Any) -> Parameters:
        require_double_precision("numpyro_model")
        known = {name: _given(space, name, value) for name, value in given.items()}
        parameters = {}
        # K comes last: the mean of its prior is its regression on the others.
        for block in sorted(space.blocks, key=lambda block: block.name == "K"):
            mean = jnp.asarray(block.mean) if block.name != "K" else space.mean_of_right(parameters)
            if block.name in known:
                parameters[block.name] = known[block.name]
            else:
                parameters[block.name] = _sample(block.name, mean, block.standard_deviation, block.shape)
        numpyro.factor("log_likelihood", log_likelihood(settled, parameters, settled.data(recording)))
        return parameters

    return program


def _sample(name: str, mean: Array, standard_deviation: float | np.ndarray, shape: tuple[int, ...]) -> Array:
    if 0 in shape:
        return jnp.zeros(shape)
    prior = distributions.Normal(mean, jnp.asarray(standard_deviation))
    return numpyro.sample(name, prior.expand(shape).to_event(len(shape)))


def _given(space: ParameterSpace, name: str, value: Any) -> Array:
    names = [block.name for block in space.blocks]
    if name not in names:
        raise argument_error(
            name, f"one of the parameters {', '.join(names)}", repr(name), suggest(name, names) or "choose one of these"
        )
    array = jnp.asarray(value)
    if array.shape != space[name].shape:
        raise argument_error(name, f"shape {space[name].shape}", f"{array.shape}", "give all of its entries")
    return array
