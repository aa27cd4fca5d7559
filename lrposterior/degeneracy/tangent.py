"""First-order changes of the connectivity at the mode, and second moments of random ones.

In whitened factors L (neuron, rank) of M, X_A of A, and with K over its prior scale,

    W = L K^T + A Q^T,      dW = (X, X_A) (K, Q)^T + L Y^T      in units of scale_M scale_K / N.

The unit cancels in all that is made of this. Coordinates of a change are (X, X_A) and Y, raveled in this order; X_A and
the scaled Q are there where a random bulk is. Where the low-rank part was learned W = V Q^T, V (neuron, dimension), has
coordinates of its own: right factors Q, no left ones, and the unit is the scale of A.

A random change is given by the covariance of its coordinates. Under the prior it is the identity, unless K depends on
the other loadings, or was learned. The unseen part of the bulk is independent of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from lrposterior.background import is_learned
from lrposterior.posterior import Posterior
from lrposterior.spectrum import (
    bulk_patterns,
    connectivity_kernel,
    entry_basis,
    entry_changes,
    factor_changes,
    factor_unit,
    scaled_factors,
)
from lrposterior.visited_spectrum import visited_changes


@dataclass(frozen=True, eq=False)
class ConnectivityTangent:
    """The changes of W that a change of M, K and A can make, to first order.

    Attributes:
        left: (neuron, rank) whitened M at the mode.
        right: (neuron, rank + dimension) K over its prior scale at the mode, and the scaled Q of a bulk.
        kernel: (coordinate, direction) orthonormal changes of the factors that leave W as it is.
        prior: (coordinate, coordinate) prior covariance of the coordinates.
        unseen: (neuron, neuron) prior covariance of the entries of every row of the unseen part of a bulk, or None.
    """

    left: np.ndarray
    right: np.ndarray
    kernel: np.ndarray
    prior: np.ndarray
    unseen: np.ndarray | None

    @classmethod
    def at(cls, posterior: Posterior) -> ConnectivityTangent:
        """The tangent at the mode of a posterior."""
        space, z, Q = posterior.space, posterior.mode_coordinates, posterior.subspace
        if Q is not None and is_learned(posterior.model.background):
            root, scale = visited_changes(space, z, Q), float(space["A"].standard_deviation)
            kernel, unseen = np.zeros((Q.size, 0)), posterior.unseen_scale**2 / scale**2 * (np.eye(len(Q)) - Q @ Q.T)
            return cls(np.zeros((len(Q), 0)), Q, kernel, root.T @ root, unseen)
        (left, right), unseen = scaled_factors(space, z), None
        if Q is not None:
            right = np.concatenate([right, bulk_patterns(space, Q)], axis=1)
            unit = factor_unit(space, "M") * factor_unit(space, "K") / len(left)
            unseen = posterior.unseen_scale**2 / unit**2 * (np.eye(len(Q)) - Q @ Q.T)
        root = factor_changes(space, z, np.eye(space.num_dynamics))
        return cls(left, right, connectivity_kernel(space, z, Q), root.T @ root, unseen)

    def change(self, coordinates: np.ndarray) -> np.ndarray:
        """dW (post, pre) of coordinates (coordinate,)."""
        X, Y = np.split(coordinates, [self.right.size])
        return X.reshape(self.right.shape) @ self.right.T + self.left @ Y.reshape(self.left.shape).T

    def coordinates(self, dW: np.ndarray) -> np.ndarray:
        """Coordinates (coordinate,) of the change that is nearest to dW (post, pre), without any part in the kernel."""
        X = np.linalg.lstsq(self.right, dW.T, rcond=None)[0].T
        Y = np.linalg.lstsq(self.left, dW - X @ self.right.T, rcond=None)[0].T
        coordinates = np.concatenate([X.ravel(), Y.ravel()])
        return coordinates - self.kernel @ (self.kernel.T @ coordinates)

    def entry_variance(self, covariance: np.ndarray) -> np.ndarray:
        """Variance (post, pre) of every entry of dW."""
        XX, XY, YY = self._blocks(covariance)
        own_left, own_right = (np.einsum("iris->irs", block) for block in (XX, YY))
        return (
            np.einsum("irs,jr,js->ij", own_left, self.right, self.right, optimize=True)
            + np.einsum("jrs,ir,is->ij", own_right, self.left, self.left, optimize=True)
            + 2.0 * np.einsum("irjs,jr,is->ij", XY, self.right, self.left, optimize=True)
        )

    def read_moment(self, covariance: np.ndarray) -> np.ndarray:
        """E dW^T dW, (pre, pre): R E[X^T X] R^T + R E[X^T L Y^T] + (R E[X^T L Y^T])^T + E[Y L^T L Y^T]."""
        XX, XY, YY = self._blocks(covariance)
        return _moment(self.left, self.right, XX, XY, YY)

    def written_moment(self, covariance: np.ndarray) -> np.ndarray:
        """E dW dW^T, (post, post): the same for the transpose of W."""
        XX, XY, YY = self._blocks(covariance)
        return _moment(self.right, self.left, YY, XY.transpose(2, 3, 0, 1), XX)

    def prior_entry_variance(self) -> np.ndarray:
        """Variance (post, pre) of every entry under the prior."""
        seen = self.entry_variance(self.prior)
        return seen if self.unseen is None else seen + np.diag(self.unseen)

    def prior_read_moment(self) -> np.ndarray:
        """E dW^T dW (pre, pre) under the prior."""
        seen = self.read_moment(self.prior)
        return seen if self.unseen is None else seen + len(self.left) * self.unseen

    def prior_written_moment(self) -> np.ndarray:
        """E dW dW^T (post, post) under the prior."""
        seen = self.written_moment(self.prior)
        return seen if self.unseen is None else seen + np.trace(self.unseen) * np.eye(len(self.left))

    def _blocks(self, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Covariances (neuron, column, neuron, column) of X with X, of X with Y and of Y with Y."""
        split, right, left = self.right.size, self.right.shape, self.left.shape
        return (
            covariance[:split, :split].reshape(*right, *right),
            covariance[:split, split:].reshape(*right, *left),
            covariance[split:, split:].reshape(*left, *left),
        )


@dataclass(frozen=True, eq=False)
class EntryTangent:
    """The same of a dense W, whose entries are the coordinates.

    Attributes:
        basis: (post * pre, direction) orthonormal, of the changes that there are.
        prior: (post * pre, post * pre) prior covariance of the entries.
        num_neurons: N.
    """

    basis: np.ndarray
    prior: np.ndarray
    num_neurons: int

    @classmethod
    def at(cls, posterior: Posterior) -> EntryTangent:
        """The tangent at the mode of a posterior."""
        root = entry_changes(posterior.space, posterior.mode_coordinates)
        return cls(entry_basis(posterior.space, root), root.T @ root, posterior.recording.num_neurons)

    def change(self, coordinates: np.ndarray) -> np.ndarray:
        """dW (post, pre) of coordinates (coordinate,)."""
        return coordinates.reshape(self.num_neurons, self.num_neurons)

    def coordinates(self, dW: np.ndarray) -> np.ndarray:
        """Coordinates (coordinate,) of the change that is nearest to dW (post, pre)."""
        return self.basis @ (self.basis.T @ dW.ravel())

    def unread(self, visited: np.ndarray) -> np.ndarray:
        """(coordinate, direction) orthonormal changes of W that no visited pattern (pattern, neuron) reads."""
        changes = self.basis.reshape(self.num_neurons, self.num_neurons, -1)
        read = np.einsum("pj,ijd->ipd", visited, changes, optimize=True).reshape(-1, self.basis.shape[1])
        return self.basis @ scipy.linalg.null_space(read)

    def entry_variance(self, covariance: np.ndarray) -> np.ndarray:
        """Variance (post, pre) of every entry of dW."""
        return self.change(np.diag(covariance))

    def read_moment(self, covariance: np.ndarray) -> np.ndarray:
        """E dW^T dW, (pre, pre)."""
        return np.einsum("ijik->jk", covariance.reshape(4 * (self.num_neurons,)))

    def written_moment(self, covariance: np.ndarray) -> np.ndarray:
        """E dW dW^T, (post, post)."""
        return np.einsum("ijkj->ik", covariance.reshape(4 * (self.num_neurons,)))

    def prior_entry_variance(self) -> np.ndarray:
        """Variance (post, pre) of every entry under the prior."""
        return self.entry_variance(self.prior)

    def prior_read_moment(self) -> np.ndarray:
        """E dW^T dW (pre, pre) under the prior."""
        return self.read_moment(self.prior)

    def prior_written_moment(self) -> np.ndarray:
        """E dW dW^T (post, post) under the prior."""
        return self.written_moment(self.prior)


def _moment(left: np.ndarray, right: np.ndarray, XX: np.ndarray, XY: np.ndarray, YY: np.ndarray) -> np.ndarray:
    """E (X R^T + L Y^T)^T (X R^T + L Y^T) from the covariances of X and Y, `left` L and `right` R."""
    mixed = right @ np.einsum("irjs,is->rj", XY, left, optimize=True)
    return (
        right @ np.einsum("iris->rs", XX) @ right.T
        + mixed
        + mixed.T
        + np.einsum("irjs,rs->ij", YY, left.T @ left, optimize=True)
    )
