"""First-order changes of the connectivity at the mode, and second moments of random ones.

In whitened factors L (neuron, rank) of M and Q (neuron, rank) of K,

    W = L Q^T,      dW = X Q^T + L Y^T      in units of scale_M scale_K / N.

The unit cancels in all that is made of this. Coordinates of a change are (X, Y) raveled, 2 N R of them. A random change
is given by the covariance of its coordinates; under the prior it is the identity, where the vertical part changes
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrposterior.gauge import horizontal_direction
from lrposterior.parameters import ParameterSpace


@dataclass(frozen=True, eq=False)
class ConnectivityTangent:
    """The changes of W that a change of M and K can make, to first order.

    Attributes:
        left, right: (neuron, rank) whitened M and K at the mode.
    """

    left: np.ndarray
    right: np.ndarray

    @classmethod
    def at(cls, space: ParameterSpace, z: np.ndarray) -> ConnectivityTangent:
        """The tangent at whitened coordinates z."""
        left, right = space.factors(z)
        return cls(left, right[: len(left)])

    def change(self, coordinates: np.ndarray) -> np.ndarray:
        """dW (post, pre) of coordinates (coordinate,)."""
        X, Y = coordinates.reshape(2, *self.left.shape)
        return X @ self.right.T + self.left @ Y.T

    def coordinates(self, dW: np.ndarray) -> np.ndarray:
        """Horizontal coordinates (coordinate,) of the change that is nearest to dW (post, pre)."""
        return horizontal_direction(self.left, self.right, dW, np.eye(len(dW)))

    def entry_variance(self, covariance: np.ndarray) -> np.ndarray:
        """Variance (post, pre) of every entry of dW."""
        MM, MK, KK = self._blocks(covariance)
        own_left, own_right = (np.einsum("iris->irs", block) for block in (MM, KK))
        return (
            np.einsum("irs,jr,js->ij", own_left, self.right, self.right, optimize=True)
            + np.einsum("jrs,ir,is->ij", own_right, self.left, self.left, optimize=True)
            + 2.0 * np.einsum("irjs,jr,is->ij", MK, self.right, self.left, optimize=True)
        )

    def read_moment(self, covariance: np.ndarray) -> np.ndarray:
        """E dW^T dW, (pre, pre)."""
        MM, MK, KK = self._blocks(covariance)
        return _moment(self.left, self.right, MM, MK, KK)

    def written_moment(self, covariance: np.ndarray) -> np.ndarray:
        """E dW dW^T, (post, post): the same for the transpose of W."""
        MM, MK, KK = self._blocks(covariance)
        return _moment(self.right, self.left, KK, MK.transpose(2, 3, 0, 1), MM)

    def prior_entry_variance(self) -> np.ndarray:
        """Variance (post, pre) of every entry under the prior: `entry_variance` of the identity."""
        return np.sum(self.left**2, axis=1)[:, None] + np.sum(self.right**2, axis=1)[None, :]

    def prior_read_moment(self) -> np.ndarray:
        """E dW^T dW (pre, pre) under the prior."""
        num_neurons = len(self.left)
        return num_neurons * self.right @ self.right.T + np.sum(self.left**2) * np.eye(num_neurons)

    def prior_written_moment(self) -> np.ndarray:
        """E dW dW^T (post, post) under the prior."""
        return ConnectivityTangent(self.right, self.left).prior_read_moment()

    def _blocks(self, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Covariances (neuron, rank, neuron, rank) of X with X, of X with Y and of Y with Y."""
        num_neurons, rank = self.left.shape
        blocks = covariance.reshape(2, num_neurons, rank, 2, num_neurons, rank)
        return blocks[0, :, :, 0], blocks[0, :, :, 1], blocks[1, :, :, 1]


def _moment(left: np.ndarray, right: np.ndarray, MM: np.ndarray, MK: np.ndarray, KK: np.ndarray) -> np.ndarray:
    """E (X Q^T + L Y^T)^T (X Q^T + L Y^T) = Q E[X^T X] Q^T + Q E[X^T L Y^T] + (Q E[X^T L Y^T])^T + E[Y L^T L Y^T]."""
    mixed = right @ np.einsum("irjs,is->rj", MK, left, optimize=True)
    return (
        right @ np.einsum("iris->rs", MM) @ right.T
        + mixed
        + mixed.T
        + np.einsum("irjs,rs->ij", KK, left.T @ left, optimize=True)
    )
