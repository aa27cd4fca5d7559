"""How much the data say where the low-rank part was learned, and the network reads visited patterns through V alone.

With W = M (Q Q^T K)^T / N + A Q^T + G (I - Q Q^T), what any recording of visited patterns can see of W is

    V = W Q = M K^T Q / N + A      (neuron, dimension).

K outside the span of Q does not exist, and every change of M or K is made up for by one of A. So the directions of W
are the N d entries of V, and those of all parameters are V with inputs, biases, time constants and initial currents.
Prior and posterior of these come from the derivative at the mode; all that it takes to zero means nothing.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from lrposterior.checks import argument_error
from lrposterior.distribution import ParameterDistribution, SampleDistribution
from lrposterior.parameters import ParameterSpace
from lrposterior.spectrum import Spectrum, complement, spectrum_of_changes, spectrum_on


def visited_changes(space: ParameterSpace, mode: np.ndarray, subspace: np.ndarray) -> np.ndarray:
    """(dynamics coordinate, neuron x dimension) changes of V with the whitened coordinates, over the scale of A."""
    value, change = space.unwhiten(mode), _unit_changes(space, mode)
    read, more_read = value["K"].T @ subspace, np.einsum("pnr,nd->prd", change["K"], subspace)
    changes = (change["M"] @ read + value["M"] @ more_read) / len(subspace) + change["A"]
    return changes.reshape(len(changes), -1) / float(space["A"].standard_deviation)


def visited_parameter_spectrum(
    space: ParameterSpace, mode: np.ndarray, distribution: ParameterDistribution, subspace: np.ndarray
) -> Spectrum:
    """What the data say about V and all other parameters of the dynamics.

    Args:
        space: the parameters.
        mode: (coordinate,) whitened.
        distribution: the posterior.
        subspace: (neuron, dimension) Q.

    Raises:
        ValueError: of a sampled posterior: its draws move M far along what A makes up for, where V is not linear.
    """
    if isinstance(distribution, SampleDistribution):
        raise argument_error(
            "posterior", "one with a covariance where RandomBulk(learned=True)", "draws", "fit with method='laplace'"
        )
    value, change = space.unwhiten(mode), _unit_changes(space, mode)
    moved = [visited_changes(space, mode, subspace)]
    for name in ("B", "b", "log_time_constant_excess"):
        if name in space:
            moved.append(change[name].reshape(len(moved[0]), -1) / space[name].standard_deviation)
    if "initial_kappa" in space:
        currents = np.einsum("pnr,tr->pnt", change["M"], value["initial_kappa"])
        currents += np.einsum("nr,ptr->pnt", value["M"], change["initial_kappa"])
        scale = space["M"].standard_deviation * space["initial_kappa"].standard_deviation
        moved.append(currents.reshape(len(currents), -1) / scale)
    basis = scipy.linalg.orth(np.concatenate(moved, axis=1))
    return spectrum_on(basis, complement(basis), space, mode, distribution)


def visited_connectivity_spectrum(
    space: ParameterSpace, mode: np.ndarray, spectrum: Spectrum, subspace: np.ndarray
) -> Spectrum:
    """The same for V alone, over its N d entries, from that of all parameters."""
    changes = visited_changes(space, mode, subspace)
    size = changes.shape[1]
    return spectrum_of_changes(changes, np.eye(size), np.zeros((size, 0)), spectrum)


def _unit_changes(space: ParameterSpace, mode: np.ndarray) -> dict[str, np.ndarray]:
    return space.differential(mode, np.eye(space.num_dynamics, space.size))
