"""How much the data say along every direction of the parameters, with the gauge taken out.

Both degeneracy and the perturbation ranking rest on this one decomposition. Prior and posterior covariance are
compared on the horizontal space at the mode (whitened coordinates without the noise), where the prior covariance is the
identity:

    Sigma v = v / (1 + lambda),       so that   F v = lambda v   for a Laplace posterior with information F.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrposterior.distribution import MixtureDistribution, NormalDistribution, ParameterDistribution, SampleDistribution
from lrposterior.gauge import horizontal_direction, vertical_basis
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


def horizontal_spectrum(space: ParameterSpace, mode: np.ndarray, distribution: ParameterDistribution) -> Spectrum:
    """Decompose the posterior covariance on the horizontal space at the mode.

    Args:
        space: the parameters.
        mode: (coordinate,) whitened mode, in the gauge in which prior and posterior are to be compared.
        distribution: the posterior, in any gauge. What counts are the changes of W that it allows, mapped to the
            horizontal coordinates at the mode: for a Normal distribution to first order around its location; for a
            mixture so for each component, and for their locations as well; for draws of a Markov chain, each of which
            may lie in a gauge of its own, the W of every draw.

    Raises:
        ValueError: if a sampled posterior has too few draws for its dimension.
    """
    num_dynamics, stop = space.num_dynamics, space.right_stop
    moved = vertical_basis(*space.factors(mode))
    vertical = np.concatenate([moved, np.zeros((num_dynamics - stop, moved.shape[1]))])
    basis = _complement(vertical)
    if isinstance(distribution, NormalDistribution):
        root = basis.T @ _horizontal_scale(space, mode, distribution)
        covariance = root @ root.T
    elif isinstance(distribution, MixtureDistribution):
        root = basis.T @ _mixture_scale(space, mode, distribution)
        covariance = root @ root.T
    else:
        covariance = np.cov(_horizontal_draws(space, mode, distribution) @ basis, rowvar=False)
    return _spectrum(covariance, basis, vertical)


def connectivity_spectrum(space: ParameterSpace, mode: np.ndarray, spectrum: Spectrum) -> Spectrum:
    """The same for W alone: prior against posterior variance of the coordinates of M and K, all others integrated out.

    Returns:
        A spectrum over the coordinates of M and K, which are the first of z.
    """
    left, right = space.factors(mode)
    vertical = vertical_basis(left, right[: len(left)])
    basis = _complement(vertical)
    root = basis.T @ (spectrum.directions[: len(basis)] * np.sqrt(spectrum.posterior_variance))
    return _spectrum(root @ root.T, basis, vertical)


def _complement(vertical: np.ndarray) -> np.ndarray:
    complete, _ = np.linalg.qr(vertical, mode="complete")
    return complete[:, vertical.shape[1] :]


def _spectrum(covariance: np.ndarray, basis: np.ndarray, vertical: np.ndarray) -> Spectrum:
    variance, rotation = np.linalg.eigh(covariance)
    return Spectrum(1.0 / variance - 1.0, basis @ rotation, vertical)


def _horizontal_scale(space: ParameterSpace, mode: np.ndarray, normal: NormalDistribution) -> np.ndarray:
    """(dynamics coordinate, column) square root of the covariance, the gauge of the location taken out."""
    left, right = space.factors(normal.location)
    columns = normal.scale.T
    left_change, right_change = space.factors(columns)
    factors = space.factors(mode)
    moved = horizontal_direction(*factors, left_change, right) + horizontal_direction(*factors, left, right_change)
    return np.concatenate([moved, columns[:, space.right_stop : space.num_dynamics]], axis=1).T


def _mixture_scale(space: ParameterSpace, mode: np.ndarray, mixture: MixtureDistribution) -> np.ndarray:
    """(dynamics coordinate, column) square root of the covariance: within the components, and of their locations."""
    locations = _horizontal_locations(space, mode, np.stack([one.location for one in mixture.components]))
    roots = np.sqrt(mixture.weights)
    between = (locations - mixture.weights @ locations).T * roots
    within = [
        root * _horizontal_scale(space, mode, component)
        for root, component in zip(roots, mixture.components, strict=True)
    ]
    return np.concatenate([*within, between], axis=1)


def _horizontal_draws(space: ParameterSpace, mode: np.ndarray, distribution: SampleDistribution) -> np.ndarray:
    """(draw, dynamics coordinate) up to a constant."""
    draws = distribution.draws.reshape(-1, space.size)
    num_horizontal = space.num_dynamics - space["M"].shape[1] ** 2
    if len(draws) < 2 * num_horizontal:
        raise ValueError(
            f"posterior: expected at least {2 * num_horizontal} draws, twice the number of directions, got "
            f"{len(draws)}; fit again with more draws, or use method='laplace', which needs none"
        )
    return _horizontal_locations(space, mode, draws)


def _horizontal_locations(space: ParameterSpace, mode: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(point, dynamics coordinate) the W of whitened points (point, coordinate), up to a constant."""
    moved = horizontal_direction(*space.factors(mode), *space.factors(points))
    return np.concatenate([moved, points[:, space.right_stop : space.num_dynamics]], axis=1)
