"""How much responses vary along directions of the parameters, to first order, where these have signs.

In the coordinates z in which prior and posterior are Normal, with directions v of the posterior (`Spectrum`) and the
Jacobian J of a response q at the mode,

    z = mode + sum_v (1 + lambda_v)^-1/2 e_v v + gauge,      e_v ~ Normal(0, 1) independent,      J gauge = 0,

so that tr Cov q = sum_v |J v|² / (1 + lambda_v), of which those with lambda < 1 are a part. Of draws this is not so: a
magnitude bends, and the spread along some directions, the others held, may be more than that of all together.

Process noise is M eps with covariance M Q M^T, which no change of gauge changes. Nor may it change realisations of the
noise, M L O xi with L L^T = Q and standard Normal xi: O is the rotation that keeps M L O nearest to M L at the mode.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm.auto import tqdm

from lrposterior.data import Data
from lrposterior.model import LowRankModel
from lrposterior.parameters import Parameters
from lrposterior.perturbation.experiment import Experiment
from lrposterior.perturbation.responses import (
    Networks,
    Quantity,
    blocks,
    halted_networks,
    respond,
    standard_noise,
    trials_before,
)
from lrposterior.posterior import Posterior
from lrposterior.process_noise import latent_root, nearest_rotation
from lrposterior.spectrum import Spectrum

# Directions of a kind, constrained or degenerate, that are followed one by one, else so many combinations of them.
MOST_DIRECTIONS = 100
# Arrays (condition, time, neuron) that derivatives of one candidate take.
NUM_KEPT = 6


def first_order_spreads(
    posterior: Posterior, experiment: Experiment, quantity: Quantity, seed: int, bar: tqdm
) -> tuple[np.ndarray, np.ndarray]:
    """tr Cov q (candidate,) from the degenerate directions, and from all of them.

    NaN where there are no directions: of a sampled posterior with too few draws to tell them apart, or with a
    `SignedBackground`; where they are too many for memory; and of a generalised posterior. Call it in double precision.

    Args:
        posterior: of a model with signs.
        experiment: the conditions and the perturbations.
        quantity: of the response.
        seed: of the combinations of directions, where they are many.
        bar: goes on by one for every candidate.
    """
    spreads = np.full((2, experiment.num_candidates), np.nan)
    spectrum = spectrum_where_known(posterior)
    if spectrum is None:
        bar.update(experiment.num_candidates)
        return spreads[0], spreads[1]
    is_free = spectrum.information < 1.0
    kinds = [_followed(spectrum, chosen, np.random.default_rng([seed, 3])) for chosen in (is_free, ~is_free)]
    networks, tangents = _linearised(posterior, experiment, np.concatenate(kinds))
    spreads[:] = 0.0
    num_bins = experiment.stop - experiment.begin
    per_condition = 8.0 * NUM_KEPT * networks.num_noise * num_bins * experiment.shape[3]
    for candidates, conditions, patterns in blocks(experiment, networks.num_noise, per_condition):
        found = _squares(quantity, networks.at(conditions), tangents.at(conditions), jnp.asarray(patterns))
        of_directions = np.asarray(found)[:, : len(candidates)]
        spreads[0, candidates] += of_directions[: len(kinds[0])].sum(axis=0)
        spreads[1, candidates] += of_directions.sum(axis=0)
        if conditions.stop == experiment.num_conditions:
            bar.update(len(candidates))
    return spreads[0], spreads[1]


def spectrum_where_known(posterior: Posterior) -> Spectrum | None:
    """`Posterior.spectrum`; None where it is refused: too few draws, too little memory, a generalised posterior."""
    try:
        return posterior.spectrum
    except ValueError:
        return None


def _followed(spectrum: Spectrum, chosen: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(direction, dynamics coordinate) v / (1 + lambda)^1/2 of the chosen directions, or combinations of these.

    With G (direction, combination) of random orthonormal columns, E G G^T is the number of combinations over that of
    directions, so that sums of squares stay the same on average.
    """
    roots = (spectrum.directions * np.sqrt(spectrum.posterior_variance))[:, chosen].T
    if len(roots) <= MOST_DIRECTIONS:
        return roots
    columns, _ = np.linalg.qr(random.standard_normal((len(roots), MOST_DIRECTIONS)))
    return np.sqrt(len(roots) / MOST_DIRECTIONS) * columns.T @ roots


def _linearised(posterior: Posterior, experiment: Experiment, directions: np.ndarray) -> tuple[Networks, Networks]:
    """The network at the mode, halted, and what changes (direction, dynamics coordinate) of z change of it.

    Their process noise is standard: its covariance is that of `noise_loadings`.
    """
    model, space, mode = posterior.model, posterior.space, posterior.mode_coordinates
    networks = halted_networks(model, {name: value[None] for name, value in posterior.mode.items()}, experiment)
    before, noise = model.data(trials_before(model, experiment)), None
    if networks.process is not None:
        noise = jnp.asarray(standard_noise(experiment, 1, model.rank)[0])
        networks = dataclasses.replace(networks, process=noise[None, :, experiment.begin :])
    whole = np.zeros((len(directions), space.size))
    whole[:, : space.num_dynamics] = directions
    changes = space.differential(mode, whole)
    at_mode, along = _halted(model.structure, before, noise, space.unwhiten(mode), changes)
    return (
        dataclasses.replace(networks, parameters=at_mode[0], current=at_mode[1]),
        dataclasses.replace(networks, parameters=along[0], current=along[1]),
    )


@functools.partial(jax.jit, static_argnums=0)
def _halted(
    model: LowRankModel, before: Data, noise: Array | None, mode: Parameters, changes: Parameters
) -> tuple[tuple[Parameters, Array], tuple[Parameters, Array]]:
    """Parameters and currents of `Networks` at the mode, and their changes (direction, ...) by those of parameters."""
    num_trials, num_bins = before.inputs.shape[:2]
    reference = None if noise is None else _noise_loadings(mode)

    def halted(parameters: Parameters) -> tuple[Parameters, Array]:
        parameters, data = dict(parameters), before
        if "initial_kappa" in parameters:
            initial = jnp.mean(parameters["initial_kappa"], axis=0)
            parameters["initial_kappa"] = jnp.broadcast_to(initial, (num_trials, model.rank))
        if noise is not None:
            loadings = _noise_loadings(parameters)
            loadings = loadings @ nearest_rotation(loadings.T @ reference)
            data = model.driven_by_noise(parameters | {"M": loadings}, before, noise[:, :num_bins])
            parameters["noise_loadings"] = loadings
        current = model.currents(parameters, data)[:, -1]
        parameters["M"], parameters["K"] = model.latent_factors(parameters, data)
        return parameters, current

    at_mode, push = jax.linearize(halted, mode)
    return jax.tree.map(lambda leaf: leaf[None], at_mode), jax.lax.map(push, changes)


def _noise_loadings(parameters: Parameters) -> Array:
    """M L (neuron, rank)."""
    return parameters["M"] @ latent_root(parameters, None)


@functools.partial(jax.jit, static_argnums=0)
def _squares(quantity: Quantity, networks: Networks, tangents: Networks, patterns: Array) -> Array:
    """|J v|² (direction, candidate), over conditions, bins and neurons."""
    process = None if networks.process is None else networks.process[0]

    def response(parameters: Parameters, current: Array) -> Array:
        states = respond((quantity,), networks, patterns, parameters, current, None, process)[quantity]
        each = states @ parameters["M"].T if quantity == "current" else states
        candidates, trials, bins, neurons = each.shape
        return each.reshape(candidates, trials // networks.num_noise, networks.num_noise, bins, neurons).mean(axis=2)

    first = {name: value[0] for name, value in networks.parameters.items()}
    _, push = jax.linearize(response, first, networks.current[0])
    return jax.lax.map(
        lambda change: jnp.sum(push(*change) ** 2, axis=(1, 2, 3)), (tangents.parameters, tangents.current)
    )
