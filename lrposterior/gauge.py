"""The gauge (M, K) -> (M A, K A^-T), which leaves W unchanged for every invertible A.

Everything here is written for the whitened factors: left L (neuron, rank), whose rows M_n / s_M are Normal(0, I) a
priori, and right Q (column, rank), the rows of K / s_K and, where the initial state is free, of
initial_kappa / s_kappa. What the data can see is L Q^T.

- vertical directions: (L Omega, -Q Omega^T) for any (rank, rank) Omega; R² of them, along which L Q^T stands still.
- horizontal directions (X, Y): orthogonal to these, L^T X = Y^T Q (`lrposterior.orbit` has both for all coordinates).
- canonical gauge: L = U sqrt(S), Q = V sqrt(S) from the singular value decomposition of L Q^T. It is the point of its
  orbit with the largest prior density.
"""

from __future__ import annotations

import numpy as np
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


def log_gauge_volume(stretches: np.ndarray, rotations: np.ndarray) -> float:
    """Logarithm of the volume of the orbit {(L A, Q A^-T) : A orthogonal}, on which the prior density is constant.

    It is that of O(R) and 1/2 log det of the Gram matrix of the rotations. Where L^T L differs from Q^T Q, the
    rotations are not orthogonal to the stretches, and what counts is the part of the rotations that is: the Gram
    determinant of all gauge directions over that of the stretches.

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
