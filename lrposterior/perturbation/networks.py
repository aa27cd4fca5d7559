"""Responses of full-rank networks and latent circuits, without the direct effect of the stimulation."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from lrposterior.checks import argument_error
from lrposterior.circuits.models import FullRankNetwork, LatentCircuit
from lrposterior.circuits.posterior import NetworkPosterior, simulate_currents, simulate_nodes
from lrposterior.network import NONLINEARITIES
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
    direct = _filtered(experiment, model.time_constant)[window]
    responses = np.empty((len(unperturbed), *experiment.shape))
    for candidate, pattern in enumerate(experiment.patterns):
        stimulated = _stimulation(experiment, pattern)
        perturbed = simulate_currents(model, draws, inputs, stimulated, experiment.dt)[:, :, window]
        fed_through = unperturbed + direct[:, None] * pattern
        kept = (
            (perturbed, fed_through) if quantity == "current" else map(phi, map(jnp.asarray, (perturbed, fed_through)))
        )
        after, before = map(np.asarray, kept)
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
        moved = np.asarray(phi(jnp.asarray(drive + of_nodes)))
        direct = np.zeros_like(unperturbed)
        for time in range(direct.shape[2] - 1):
            direct[:, :, time + 1] = (1.0 - a) * direct[:, :, time] + a * moved[:, :, time]
        change = (perturbed - direct)[:, :, window]
        responses[:, candidate] = np.einsum("dbtn,din->dbti", change, draws["Q"])
    return responses


def _stimulation(experiment: Experiment, pattern: np.ndarray) -> np.ndarray:
    """(condition, time, neuron) in every condition."""
    stimulated = experiment.time_course[: experiment.stop, None] * pattern
    return np.broadcast_to(stimulated, (experiment.num_conditions, *stimulated.shape))


def _filtered(experiment: Experiment, time_constant: float) -> np.ndarray:
    """(time,) the time course filtered with a time constant."""
    a, filtered = experiment.dt / time_constant, np.zeros(experiment.stop)
    for time in range(experiment.stop - 1):
        filtered[time + 1] = (1.0 - a) * filtered[time] + a * experiment.time_course[time]
    return filtered
