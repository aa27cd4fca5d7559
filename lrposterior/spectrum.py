"""How much the data say along every direction of the parameters, with the gauge taken out.

Both degeneracy and the perturbation ranking rest on this one decomposition. Prior and posterior covariance are
compared on the horizontal space at the mode (whitened coordinates without the noise), where the prior covariance is the
identity:

    Sigma v = v / (1 + lambda),       so that   F v = lambda v   for a Laplace posterior with information F.

Under Dale's law all of this is in the coordinates in which magnitudes have no bound and prior and posterior are Normal,
and synapses change with them to first order at the mode. Draws are moved within the signs to the nearest copy of their
network (`lrposterior.signed_alignment`), and lambda holds what bends (`lrposterior.inference.bending`), so that it may
be slightly negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from lrposterior.distribution import ParameterDistribution, SampleDistribution, normals
from lrposterior.orbit import aligning_gauge, move, vertical_basis
from lrposterior.parameters import ParameterSpace
from lrposterior.signed_alignment import align_within_signs
from lrposterior.signed_background import entries_of, matrix_of
from lrposterior.signed_orbit import signed_vertical_basis

SMALLEST_VARIANCE = np.finfo(np.float64).tiny


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Directions of the parameters by what the data say about them.

    Attributes:
        information: (direction,) lambda, decreasing: prior over posterior variance, minus 1. From sampled draws it can
            be slightly negative.
        directions: (dynamics coordinate, direction) orthonormal horizontal directions v in whitened coordinates.
        vertical: (dynamics coordinate, direction) orthonormal directions that change nothing: the gauge and all trades
            between blocks (`lrposterior.orbit`).
    """

    information: np.ndarray
    directions: np.ndarray
    vertical: np.ndarray

    @property
    def posterior_variance(self) -> np.ndarray:
        """(direction,) 1 / (1 + lambda), where the prior variance is 1."""
        return 1.0 / (1.0 + self.information)

    @property
    def removed_variance(self) -> np.ndarray:
        """(direction,) lambda / (1 + lambda), the share of the prior variance that the data remove."""
        return self.information * self.posterior_variance


def horizontal_spectrum(
    space: ParameterSpace, mode: np.ndarray, distribution: ParameterDistribution, subspace: np.ndarray | None = None
) -> Spectrum:
    """Decompose the posterior covariance on the horizontal space at the mode.

    Args:
        space: the parameters.
        mode: (coordinate,) whitened mode, in the gauge in which prior and posterior are to be compared.
        distribution: the posterior, in any gauge: the location of a Normal distribution, or every draw of a Markov
            chain, is first brought into the gauge of the mode.
        subspace: (neuron, dimension) Q of a random bulk, or None.

    Raises:
        ValueError: if a sampled posterior has too few draws for its dimension, or, under Dale's law, trades of M and K
            against more than scales.
    """
    vertical = unchanged_basis(space, mode, subspace)
    return spectrum_on(complement(vertical), vertical, space, mode, distribution)


def unchanged_basis(space: ParameterSpace, mode: np.ndarray, subspace: np.ndarray | None = None) -> np.ndarray:
    """(dynamics coordinate, direction) orthonormal basis of what changes nothing, with signs of the factors or without.

    Args: as in `horizontal_spectrum`.
    """
    return signed_vertical_basis(space, mode) if space.is_signed else vertical_basis(space, mode, subspace)


def spectrum_on(
    basis: np.ndarray,
    vertical: np.ndarray,
    space: ParameterSpace,
    mode: np.ndarray,
    distribution: ParameterDistribution,
) -> Spectrum:
    """The same on a horizontal space with an orthonormal basis (dynamics coordinate, direction)."""
    if isinstance(distribution, SampleDistribution):
        draws = distribution.draws.reshape(-1, space.size)
        if len(draws) < 2 * basis.shape[1]:
            raise ValueError(
                f"posterior: expected at least {2 * basis.shape[1]} draws, twice the number of directions, got "
                f"{len(draws)}; fit again with more draws, or analyse a Laplace posterior itself, which needs none"
            )
        if space.is_signed:
            draws = align_within_signs(space, draws, mode)
        covariance = np.cov(displacements(space, mode, draws) @ basis, rowvar=False)
        return _spectrum(covariance, basis, vertical)
    mean, square = np.zeros(basis.shape[1]), np.zeros((basis.shape[1], basis.shape[1]))
    for weight, each in normals(distribution):
        location = displacements(space, mode, each.location[None])[0] @ basis
        columns = each.scale.T
        if not space.is_signed:
            columns = move(space, columns, *aligning_gauge(space, each.location, mode))
        root = basis.T @ columns[:, : space.num_dynamics].T
        mean += weight * location
        square += weight * (root @ root.T + np.outer(location, location))
    covariance = square - np.outer(mean, mean)
    return _spectrum(covariance, basis, vertical)


def displacements(space: ParameterSpace, mode: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(draw, dynamics coordinate) from the mode to draws (draw, coordinate) that are in any gauge, in its own.

    Draws with signs stay as they are: those of a Normal distribution around the mode, or aligned already.
    """
    moved = draws if space.is_signed else move(space, draws, *aligning_gauge(space, draws, mode))
    return (moved - mode)[:, : space.num_dynamics]


def connectivity_spectrum(
    space: ParameterSpace, mode: np.ndarray, spectrum: Spectrum, subspace: np.ndarray | None = None
) -> Spectrum:
    """The same for W alone: prior against posterior covariance of its factors, all other parameters integrated out.

    Two changes of the factors that make the same change of W, to first order, count as one.

    Returns:
        A spectrum over the coordinates of `factor_changes`, or, of a dense W, over its entries. Its directions are
        orthonormal in the metric of the prior: directions @ directions^T is the prior covariance, up to changes that
        leave W as it is.
    """
    if space.is_dense:
        entries = entry_changes(space, mode)
        return spectrum_of_changes(entries, entry_basis(space, entries), np.zeros((entries.shape[1], 0)), spectrum)
    vertical = connectivity_kernel(space, mode, subspace)
    changes = factor_changes(space, mode, np.eye(space.num_dynamics))
    return spectrum_of_changes(changes, complement(vertical), vertical, spectrum)


def spectrum_of_changes(changes: np.ndarray, basis: np.ndarray, vertical: np.ndarray, spectrum: Spectrum) -> Spectrum:
    """Prior against posterior covariance of what (dynamics coordinate, coordinate) changes of the parameters do.

    Args:
        changes: what each of the whitened coordinates does.
        basis, vertical: (coordinate, direction) orthonormal, that which counts and that which means nothing.
        spectrum: of all parameters.
    """
    prior_root = changes @ basis
    posterior_root = (spectrum.directions * np.sqrt(spectrum.posterior_variance)).T @ prior_root
    prior_scale = np.linalg.cholesky(prior_root.T @ prior_root)
    whitened = scipy.linalg.solve_triangular(prior_scale, posterior_root.T, lower=True)
    return _spectrum(whitened @ whitened.T, basis @ prior_scale, vertical)


def factor_changes(space: ParameterSpace, mode: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """What changes of the parameters do to the factors of W, to first order, in units of `scaled_factors`.

    Args:
        space: the parameters.
        mode: (coordinate,) whitened.
        changes: (change, dynamics coordinate) whitened.

    Returns:
        (change, coordinate): the rows of M, with those of A of a random bulk beside them, then the rows of K.
    """
    noise = np.zeros((len(changes), space.size - space.num_dynamics))
    of_blocks = space.differential(mode, np.concatenate([changes, noise], axis=1))
    left = [of_blocks[name] / factor_unit(space, name) for name in ("M", "A") if name in space]
    right = of_blocks["K"] / factor_unit(space, "K")
    return np.concatenate(
        [np.concatenate(left, axis=2).reshape(len(changes), -1), right.reshape(len(changes), -1)], axis=1
    )


def entry_changes(space: ParameterSpace, mode: np.ndarray) -> np.ndarray:
    """(dynamics coordinate, post * pre) what each of the whitened coordinates does to a dense W, to first order."""
    parameters = space.unwhiten(mode)
    changes = space.differential(mode, np.eye(space.num_dynamics, space.size))
    num_neurons = len(parameters["M"])
    of_W = changes["M"] @ parameters["K"].T + parameters["M"] @ np.swapaxes(changes["K"], 1, 2)
    of_W = matrix_of(entries_of(of_W / num_neurons, space.self_connections))
    if "W0" in space:
        of_W = of_W + matrix_of(changes["W0"])
    return of_W.reshape(space.num_dynamics, -1)


def entry_basis(space: ParameterSpace, changes: np.ndarray) -> np.ndarray:
    """(post * pre, direction) orthonormal basis of what changes (dynamics coordinate, post * pre) reach."""
    if "W0" not in space:
        return scipy.linalg.orth(changes.T)
    every, num_neurons = np.eye(changes.shape[1]), space["M"].shape[0]
    places = np.arange(len(every)).reshape(num_neurons, num_neurons)
    return every[:, entries_of(places, space.self_connections).ravel()]


def factor_unit(space: ParameterSpace, name: str) -> float:
    """Prior scale of M, K or A: the root mean square over neurons, where they differ, so that all of W has one unit."""
    return float(np.sqrt(np.mean(np.square(space[name].standard_deviation))))


def scaled_factors(space: ParameterSpace, mode: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left and right factors (neuron, rank) of W, each in its `factor_unit`."""
    parameters = space.unwhiten(mode)
    return parameters["M"] / factor_unit(space, "M"), parameters["K"] / factor_unit(space, "K")


def bulk_patterns(space: ParameterSpace, subspace: np.ndarray) -> np.ndarray:
    """(neuron, dimension) Q, scaled to be right factors beside those of `scaled_factors`."""
    scales = factor_unit(space, "M") * factor_unit(space, "K")
    return len(subspace) * space["A"].standard_deviation / scales * subspace


def connectivity_kernel(space: ParameterSpace, mode: np.ndarray, subspace: np.ndarray | None) -> np.ndarray:
    """(coordinate, direction) orthonormal changes of the factors, as in `factor_changes`, that leave W as it is.

    They are the gauge and, with a bulk, the trades of K within Q against A.
    """
    left, right = scaled_factors(space, mode)
    num_neurons, rank = left.shape
    patterns = np.zeros((num_neurons, 0)) if subspace is None else bulk_patterns(space, subspace)
    dimension = patterns.shape[1]
    generators = np.eye(rank * rank).reshape(-1, rank, rank)
    trades = np.eye(dimension * rank).reshape(dimension * rank, dimension, rank)
    of_left = np.zeros((len(generators) + len(trades), num_neurons, rank + dimension))
    of_left[: len(generators), :, :rank] = left @ generators
    of_left[len(generators) :, :, rank:] = -left @ np.swapaxes(trades, 1, 2)
    of_right = np.concatenate([-right @ np.swapaxes(generators, 1, 2), patterns @ trades])
    kernel = np.concatenate([of_left.reshape(len(of_left), -1), of_right.reshape(len(of_left), -1)], axis=1)
    norms = np.linalg.norm(kernel, axis=1)
    return scipy.linalg.orth((kernel / np.maximum(norms, 1e-300)[:, None]).T)


def complement(vertical: np.ndarray) -> np.ndarray:
    """Orthonormal basis of what is orthogonal to orthonormal columns."""
    complete, _ = np.linalg.qr(vertical, mode="complete")
    return complete[:, vertical.shape[1] :]


def _spectrum(covariance: np.ndarray, basis: np.ndarray, vertical: np.ndarray) -> Spectrum:
    variance, rotation = np.linalg.eigh(covariance)
    # What the data determine beyond double precision has an information that is as large as it can be written.
    variance = np.where(np.abs(variance) < SMALLEST_VARIANCE, SMALLEST_VARIANCE, variance)
    return Spectrum(1.0 / variance - 1.0, basis @ rotation, vertical)
