"""Responses of full-rank networks and latent circuits, without the direct effect of the stimulation."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from lrposterior.checks import argument_error
from lrposterior.circuits.models import FullRankNetwork, LatentCircuit
from lrposterior.circuits.posterior import NetworkPosterior, simulate_currents, simulate_nodes
from lrposterior.network import NONLINEARITIES, low_pass
from lrposterior.perturbation.experiment import Experiment
from lrposterior.perturbation.responses import Quantity
from lrposterior.precision import double_precision


def network_responses(
    posterior: NetworkPosterior, draws: Mapping[str, np.ndarray], experiment: Experiment, quantity: Quantity
) -> np.ndarray:
    """Responses (draw, candidate, condition, time, neuron) of draws of the parameters by name.

    Raises:
        ValueError: if the currents of a latent circuit are asked for: it has rates alone.
    """
    if isinstance(posterior.model, LatentCircuit):
        if quantity != "rate":
            raise argument_error("quantity", "'rate' for a LatentCircuit", repr(quantity), "its nodes have rates alone")
        return _circuit_responses(posterior.model, draws, experiment)
    return _full_rank_responses(posterior.model, draws, experiment, quantity)


@double_precision
def _full_rank_responses(
    model: FullRankNetwork, draws: Mapping[str, np.ndarray], experiment: Experiment, quantity: Quantity
) -> np.ndarray:
    phi = NONLINEARITIES[model.nonlinearity].rate
    inputs, window = experiment.inputs[:, : experiment.stop], slice(experiment.start, experiment.stop)
    unperturbed = simulate_currents(model, draws, inputs, None, experiment.dt)[:, :, window]
    course = jnp.asarray(experiment.time_course[: experiment.stop])
    direct = np.asarray(low_pass(course, experiment.dt / model.time_constant, jnp.zeros(())))[window]
    responses = np.empty((len(unperturbed), *experiment.shape))
    for candidate, pattern in enumerate(experiment.patterns):
        stimulated = _stimulation(experiment, pattern)
        perturbed = simulate_currents(model, draws, inputs, stimulated, experiment.dt)[:, :, window]
        fed_through = unperturbed + direct[:, None] * pattern
        after, before = perturbed, fed_through
        if quantity == "rate":
            after, before = (np.asarray(phi(jnp.asarray(currents))) for currents in (after, before))
        responses[:, candidate] = after - before
    return responses


@double_precision
def _circuit_responses(model: LatentCircuit, draws: Mapping[str, np.ndarray], experiment: Experiment) -> np.ndarray:
    """With the direct effect what the stimulation does to nodes that receive the unperturbed rates of the others."""
    phi, a = NONLINEARITIES[model.nonlinearity].rate, experiment.dt / model.time_constant
    inputs, window = experiment.inputs[:, : experiment.stop], slice(experiment.start, experiment.stop)
    unperturbed = simulate_nodes(model, draws, inputs, None, experiment.dt)
    drive = np.einsum("dbtn,dmn->dbtm", unperturbed, draws["w"]) + np.einsum("cti,dni->dctn", inputs, draws["w_in"])
    drive += draws["b"][:, None, None, :]
    responses = np.empty((len(unperturbed), *experiment.shape))
    for candidate, pattern in enumerate(experiment.patterns):
        stimulated = _stimulation(experiment, pattern)
        perturbed = simulate_nodes(model, draws, inputs, stimulated, experiment.dt)
        of_nodes = np.einsum("ti,din->dtn", stimulated[0], draws["Q"])[:, None]
        moved = phi(jnp.asarray(drive + of_nodes))
        filtered = low_pass(jnp.moveaxis(moved, 2, 0), a, jnp.zeros_like(moved[:, :, 0]))
        direct = np.moveaxis(np.asarray(filtered), 0, 2)
        change = (perturbed - direct)[:, :, window]
        responses[:, candidate] = np.einsum("dbtn,din->dbti", change, draws["Q"])
    return responses


def _stimulation(experiment: Experiment, pattern: np.ndarray) -> np.ndarray:
    """(condition, time, neuron) in every condition."""
    stimulated = experiment.time_course[: experiment.stop, None] * pattern
    return np.broadcast_to(stimulated, (experiment.num_conditions, *stimulated.shape))
