"""The gauge (M, K) -> (M A, K A^-T), which leaves W unchanged for every invertible A.

Everything here is written for the whitened factors: left L (neuron, rank), whose rows M_n / s_M are Normal(0, I) a
priori, and right Q (column, rank), the rows of K / s_K and, where the initial state is free, of
initial_kappa / s_kappa. What the data can see is L Q^T.

- vertical directions: (L Omega, -Q Omega^T) for any (rank, rank) Omega; R² of them, along which L Q^T stands still.
- horizontal directions (X, Y): orthogonal to these, L^T X = Y^T Q.
- canonical gauge: L = U sqrt(S), Q = V sqrt(S) from the singular value decomposition of L Q^T. It is the point of its
  orbit with the largest prior density.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from scipy.special import gammaln


def product_svd(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thin singular value decomposition of left @ right^T without forming it.

    Args:
        left: (..., row, rank).
        right: (..., column, rank).

    Returns:
        U (..., row, rank), singular values (..., rank), V (..., column, rank). The sign of each pair makes the entry
        of U that is largest in magnitude positive.
    """
    left_basis, left_core = np.linalg.qr(left)
    right_basis, right_core = np.linalg.qr(right)
    core_left, values, core_right = np.linalg.svd(left_core @ np.swapaxes(right_core, -1, -2))
    U = left_basis @ core_left
    V = right_basis @ np.swapaxes(core_right, -1, -2)
    largest = np.take_along_axis(U, np.abs(U).argmax(axis=-2, keepdims=True), axis=-2)
    sign = np.where(largest < 0.0, -1.0, 1.0)
    return U * sign, values, V * sign


def relative_distance(factors: tuple[np.ndarray, np.ndarray], reference: tuple[np.ndarray, np.ndarray]) -> float:
    """Frobenius norm of the difference of two products left @ right^T over that of the second, without forming them."""
    left = np.concatenate([factors[0], -reference[0]], axis=1)
    right = np.concatenate([factors[1], reference[1]], axis=1)
    return float(np.linalg.norm(product_svd(left, right)[1]) / np.linalg.norm(product_svd(*reference)[1]))


def canonical(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The factors of the same product in the canonical gauge; leading axes are kept."""
    U, values, V = product_svd(left, right)
    root = np.sqrt(values)[..., None, :]
    return U * root, V * root


def vertical_basis(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Orthonormal basis (row * rank + column * rank, direction) of the vertical space, factors raveled in this order.

    It has rank² directions, unless a singular value of left @ right^T is zero.
    """
    rank = left.shape[1]
    generators = np.eye(rank * rank).reshape(rank * rank, rank, rank)
    moved_left = (left @ generators).reshape(rank * rank, -1)
    moved_right = -(right @ np.swapaxes(generators, 1, 2)).reshape(rank * rank, -1)
    return scipy.linalg.orth(np.concatenate([moved_left, moved_right], axis=1).T)


def horizontal_direction(
    left: np.ndarray, right: np.ndarray, change_left: np.ndarray, change_right: np.ndarray
) -> np.ndarray:
    """The horizontal direction whose first-order change of the product is nearest to a given change.

    Minimises |X right^T + left Y^T - D| in the Frobenius norm over horizontal (X, Y), where
    D = change_left change_right^T. Only the product enters: neither the gauge nor the rank of the factors of D matters.

    Args:
        left, right: (row, rank) and (column, rank), in any gauge; left @ right^T has full rank.
        change_left, change_right: (..., row, any rank) and (..., column, any rank).

    Returns:
        (..., row * rank + column * rank) X and Y, raveled in this order.
    """
    on_right = change_left @ (np.swapaxes(change_right, -1, -2) @ right)
    on_left = change_right @ (np.swapaxes(change_left, -1, -2) @ left)
    # One solution of the normal equations D right = X right^T right + left Y^T right and D^T left = Y left^T left
    # + right X^T left; all others differ from it by vertical directions.
    X = on_right @ np.linalg.inv(right.T @ right)
    Y = (on_left - right @ (np.swapaxes(X, -1, -2) @ left)) @ np.linalg.inv(left.T @ left)
    direction = np.concatenate([X.reshape(*X.shape[:-2], -1), Y.reshape(*Y.shape[:-2], -1)], axis=-1)
    vertical = vertical_basis(left, right)
    return direction - (direction @ vertical) @ vertical.T


def horizontal_coordinates(
    left: np.ndarray, right: np.ndarray, other_left: np.ndarray, other_right: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of other factors, whatever their gauge: the horizontal direction towards their product.

    Args:
        left, right: (row, rank) and (column, rank), in any gauge; left @ right^T has full rank.
        other_left, other_right: (..., row, any rank) and (..., column, any rank).

    Returns:
        X (..., row, rank) and Y (..., column, rank).
    """
    direction = horizontal_direction(left, right, other_left, other_right) - horizontal_direction(
        left, right, left, right
    )
    X, Y = direction[..., : left.size], direction[..., left.size :]
    return X.reshape(*X.shape[:-1], *left.shape), Y.reshape(*Y.shape[:-1], *right.shape)


def log_orbit_volume(left: np.ndarray, right: np.ndarray) -> float:
    """Logarithm of the volume of the orbit {(L A, Q A) : A orthogonal}, on which the prior density is constant.

    log Vol = sum_{j=1..R} [log 2 + (j/2) log pi - logGamma(j/2)] + 1/2 sum_{i<j} log(s_i + s_j),

    s the eigenvalues of L^T L + Q^T Q.
    """
    values = np.linalg.eigvalsh(left.T @ left + right.T @ right)
    pairs = values[:, None] + values[None, :]
    return log_group_volume(left.shape[1]) + 0.5 * float(np.sum(np.log(pairs[np.triu_indices(len(pairs), k=1)])))


def log_gauge_volume(stretches: np.ndarray, rotations: np.ndarray) -> float:
    """`log_orbit_volume` for factors that need not be balanced.

    The volume of the orbit is that of O(R) times 1/2 log det of the Gram matrix of the rotations. Where L^T L differs
    from Q^T Q, the rotations are not orthogonal to the stretches, and what counts is the part of the rotations that is:
    the Gram determinant of all gauge directions over that of the stretches.

    Args:
        stretches: (coordinate, R (R + 1) / 2) gauge directions of a basis of the symmetric generators.
        rotations: (coordinate, R (R - 1) / 2) gauge directions of the generators E_ij - E_ji, i < j.
    """
    rank = stretches.shape[1] - rotations.shape[1]

    def log_gram(directions: np.ndarray) -> float:
        return float(np.linalg.slogdet(directions.T @ directions)[1])

    everything = np.concatenate([stretches, rotations], axis=1)
    return log_group_volume(rank) + 0.5 * (log_gram(everything) - log_gram(stretches))


def log_group_volume(rank: int) -> float:
    """Logarithm of the volume of O(R), where a rotation by a small angle e has length e."""
    sizes = np.arange(1, rank + 1)
    return float(np.sum(np.log(2.0) + 0.5 * sizes * np.log(np.pi) - gammaln(0.5 * sizes)))
