"""How much the data say along every direction of the parameters, with the gauge taken out.

Both degeneracy and the perturbation ranking rest on this one decomposition. Prior and posterior covariance are
compared on the horizontal space at the mode (whitened coordinates without the noise), where the prior covariance is the
identity:

    Sigma v = v / (1 + lambda),       so that   F v = lambda v   for a Laplace posterior with information F.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrposterior.distribution import MixtureDistribution, ParameterDistribution, SampleDistribution
from lrposterior.gauge import vertical_basis as factor_vertical_basis
from lrposterior.orbit import aligning_gauge, move, vertical_basis
from lrposterior.parameters import ParameterSpace


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Directions of the parameters by what the data say about them.

    Attributes:
        information: (direction,) lambda, decreasing: prior over posterior variance, minus 1. From sampled draws it can
            be slightly negative.
        directions: (dynamics coordinate, direction) orthonormal horizontal directions v in whitened coordinates.
        vertical: (dynamics coordinate, rank²) orthonormal gauge directions.
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
        ValueError: if a sampled posterior has too few draws for its dimension.
    """
    vertical = vertical_basis(space, mode, subspace)
    basis = _complement(vertical)
    if isinstance(distribution, SampleDistribution):
        draws = distribution.draws.reshape(-1, space.size)
        if len(draws) < 2 * basis.shape[1]:
            raise ValueError(
                f"posterior: expected at least {2 * basis.shape[1]} draws, twice the number of directions, got "
                f"{len(draws)}; fit again with more draws, or use method='laplace', which needs none"
            )
        covariance = np.cov(displacements(space, mode, draws) @ basis, rowvar=False)
        return _spectrum(covariance, basis, vertical)
    components = distribution.components if isinstance(distribution, MixtureDistribution) else (distribution,)
    weights = distribution.weights if isinstance(distribution, MixtureDistribution) else np.ones(1)
    covariance = np.zeros((basis.shape[1], basis.shape[1]))
    locations = displacements(space, mode, np.stack([each.location for each in components])) @ basis
    mean = weights @ locations
    for weight, location, each in zip(weights, locations, components, strict=True):
        columns = move(space, each.scale.T, *aligning_gauge(space, each.location, mode))
        root = basis.T @ columns[:, : space.num_dynamics].T
        covariance += weight * (root @ root.T + np.outer(location - mean, location - mean))
    return _spectrum(covariance, basis, vertical)


def displacements(space: ParameterSpace, mode: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(draw, dynamics coordinate) from the mode to draws (draw, coordinate) that are in any gauge, in its own."""
    moved = move(space, draws, *aligning_gauge(space, draws, mode))
    return (moved - mode)[:, : space.num_dynamics]


def connectivity_spectrum(space: ParameterSpace, mode: np.ndarray, spectrum: Spectrum) -> Spectrum:
    """The same for W alone: prior against posterior variance of the coordinates of M and K, all others integrated out.

    Returns:
        A spectrum over the coordinates of M and K, which are the first of z.
    """
    left, right = space.factors(mode)
    vertical = factor_vertical_basis(left, right[: len(left)])
    basis = _complement(vertical)
    root = basis.T @ (spectrum.directions[: len(basis)] * np.sqrt(spectrum.posterior_variance))
    return _spectrum(root @ root.T, basis, vertical)


def _complement(vertical: np.ndarray) -> np.ndarray:
    complete, _ = np.linalg.qr(vertical, mode="complete")
    return complete[:, vertical.shape[1] :]


def _spectrum(covariance: np.ndarray, basis: np.ndarray, vertical: np.ndarray) -> Spectrum:
    variance, rotation = np.linalg.eigh(covariance)
    return Spectrum(1.0 / variance - 1.0, basis @ rotation, vertical)
