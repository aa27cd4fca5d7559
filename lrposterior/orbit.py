"""How changes of the coordinates that leave W, B and b unchanged act on the whitened coordinates z.

Two kinds:

- the gauge, a group: M -> M A, K -> K A^-T. The whitened residuals of K and the initial latents move with K, and the
  coefficients of the regression of K by K_on_M -> A^-1 K_on_M A^-T, K_on_B -> A^-1 K_on_B, K_on_b -> A^-1 K_on_b.
- trades between blocks, straight lines: K + N Q Z against A - M Z^T, where the bulk is seen through A Q^T, and the
  coefficients of the regression against the residuals of K.

Together their tangents are the kernel of the derivative of (W, B, b), the vertical space.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg

from lrposterior.parameters import AnyArray, ParameterSpace, is_regression, joined, name_and_type

SMALLEST_MOMENT = 1e-6
LARGEST_STRETCH = 0.5
GAUGE_TOLERANCE = 1e-9


def move(space: ParameterSpace, z: AnyArray, A: AnyArray, inverse: AnyArray) -> AnyArray:
    """z in another gauge.

    Args:
        space: the parameters.
        z: (..., coordinate).
        A, inverse: (..., rank, rank) and its inverse.
    """

    def moved(name: str) -> AnyArray:
        block = space.coordinates(z, name)
        if name == "M":
            return block @ A
        if name in ("K", "initial_kappa"):
            return block @ inverse.swapaxes(-1, -2)
        if name_and_type(name)[0] == "K_on_M":
            return inverse @ block @ inverse.swapaxes(-1, -2)
        return inverse @ block if is_regression(name) else block

    return joined([moved(block.name).reshape(*z.shape[:-1], -1) for block in space.blocks], axis=-1)


def oriented(space: ParameterSpace, z: np.ndarray) -> np.ndarray:
    """z (coordinate,) turned so that the whitened left factors are orthogonal, longest first; the prior is the same.

    Draws around it do not depend on how a descent got there. Every left factor has a positive sum of cubes.
    """
    M = space.coordinates(z, "M")
    _, _, rows = np.linalg.svd(M, full_matrices=False)
    turned = M @ rows.T
    rotation = rows.T * np.where(np.sum(turned**3, axis=0) < 0.0, -1.0, 1.0)
    return move(space, z, rotation, rotation.T)


def gauge_direction(space: ParameterSpace, z: AnyArray, generator: AnyArray) -> AnyArray:
    """(coordinate,) derivative of z (coordinate,) along the gauge A = 1 + Omega, for a generator Omega (rank, rank)."""

    def direction(name: str) -> AnyArray:
        block = space.coordinates(z, name)
        if name == "M":
            return block @ generator
        if name in ("K", "initial_kappa"):
            return -block @ generator.T
        if name_and_type(name)[0] == "K_on_M":
            return -generator @ block - block @ generator.T
        return -generator @ block if is_regression(name) else 0.0 * block

    return joined([direction(block.name).reshape(-1) for block in space.blocks], axis=0)


def gauge_directions(space: ParameterSpace, z: np.ndarray, generators: np.ndarray) -> np.ndarray:
    """(coordinate, generator) the directions of several generators."""
    directions = [gauge_direction(space, z, generator) for generator in generators]
    return np.stack(directions, axis=1) if directions else np.zeros((space.size, 0))


def stretches_and_rotations(space: ParameterSpace, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gauge directions (coordinate, direction) of E_ij + E_ji, i >= j, and of E_ij - E_ji, i > j."""
    rank = space["M"].shape[1]
    row, column = np.tril_indices(rank)
    unit = np.zeros((row.size, rank, rank))
    unit[np.arange(row.size), row, column] = 1.0
    mirrored = np.swapaxes(unit, 1, 2)
    stretches = gauge_directions(space, z, unit + mirrored)
    return stretches, gauge_directions(space, z, (unit - mirrored)[row != column])


def trade_directions(space: ParameterSpace, z: np.ndarray, subspace: np.ndarray | None) -> np.ndarray:
    """(dynamics coordinate, direction) the trades between blocks.

    Args:
        space: the parameters.
        z: (coordinate,) whitened.
        subspace: (neuron, dimension) Q of the bulk, or None.
    """
    parameters, (num_neurons, rank) = space.unwhiten(z), space["M"].shape
    found = []
    if subspace is not None:
        dimension = subspace.shape[1]
        direction = np.zeros((dimension * rank, space.num_dynamics))
        unit = np.eye(dimension * rank).reshape(-1, dimension, rank)
        direction[:, space.slices["K"]] = (num_neurons * subspace @ unit).reshape(len(unit), -1)
        direction[:, space.slices["A"]] = -(parameters["M"] @ np.swapaxes(unit, 1, 2)).reshape(len(unit), -1)
        for name in ("K", "A"):
            direction[:, space.slices[name]] /= space.standard_deviations[space.slices[name]]
        found.append(direction.T)
    for name in space.regressions:
        loadings = space.regressor(parameters, name)
        num_coefficients = rank * loadings.shape[1]
        unit = np.eye(num_coefficients).reshape(num_coefficients, rank, loadings.shape[1])
        direction = np.zeros((len(unit), space.num_dynamics))
        direction[:, space.slices[name]] = np.eye(len(unit))
        ratio = space[name].standard_deviation / space["K"].standard_deviation
        residual = -ratio * (loadings @ np.swapaxes(unit, 1, 2))
        direction[:, space.slices["K"]] = residual.reshape(len(unit), num_neurons * rank)
        found.append(direction.T)
    return np.concatenate([np.zeros((space.num_dynamics, 0)), *found], axis=1)


def trade_basis(space: ParameterSpace, z: np.ndarray, subspace: np.ndarray | None) -> np.ndarray:
    """(dynamics coordinate, direction) orthonormal basis of the trades."""
    trades = trade_directions(space, z, subspace)
    return scipy.linalg.orth(trades / np.maximum(np.linalg.norm(trades, axis=0), 1e-300))


def gauge_basis(space: ParameterSpace, z: np.ndarray, subspace: np.ndarray | None = None) -> np.ndarray:
    """(dynamics coordinate, rank²) orthonormal basis of the tangent of the gauge, as far as no trade makes it up."""
    rank = space["M"].shape[1]
    directions = gauge_directions(space, z, np.eye(rank * rank).reshape(-1, rank, rank))[: space.num_dynamics]
    trades = trade_basis(space, z, subspace)
    return scipy.linalg.orth(directions - trades @ (trades.T @ directions))


def stretch_basis(space: ParameterSpace, z: np.ndarray, subspace: np.ndarray | None) -> np.ndarray:
    """(dynamics coordinate, rank (rank + 1) / 2) orthonormal basis of the stretches, beyond what trades make up."""
    stretches = stretches_and_rotations(space, z)[0][: space.num_dynamics]
    trades = trade_basis(space, z, subspace)
    return scipy.linalg.orth(stretches - trades @ (trades.T @ stretches))


def tilt_across(
    space: ParameterSpace, z: np.ndarray, slope: np.ndarray, subspace: np.ndarray | None
) -> Callable[[np.ndarray], np.ndarray]:
    """A symmetric map T such that the slope less T z has no part along the vertical space.

    T z is the slope of z . T z / 2. With the gauge direction T_Y z, linear in z, of a symmetric Y and the projection P
    off the trades, T = P T_Y P. A density that is tilted by it has the prior precision 1 - Y for left factors and 1 + Y
    for right ones, and the curvature that the untilted one has from orbit to orbit, which bend.

    Args:
        space: the parameters.
        z: (coordinate,) whitened, without a part along the trades.
        slope: (dynamics coordinate,) of -log density at z, without a part along the trades.
        subspace: (neuron, dimension) Q of the bulk, or None.
    """
    rank = space["M"].shape[1]
    row, column = np.tril_indices(rank)
    trades = trade_basis(space, z, subspace)
    stretches = stretches_and_rotations(space, z)[0][: space.num_dynamics]
    stretches = stretches - trades @ (trades.T @ stretches)
    amounts = np.linalg.lstsq(stretches, slope, rcond=None)[0]
    generator = np.zeros((rank, rank))
    generator[row, column] += amounts
    generator[column, row] += amounts

    def tilt(vector: np.ndarray) -> np.ndarray:
        padded = np.zeros(space.size)
        padded[: space.num_dynamics] = vector - trades @ (trades.T @ vector)
        moved = gauge_direction(space, padded, generator)[: space.num_dynamics]
        return moved - trades @ (trades.T @ moved)

    return tilt


def settle_trades(space: ParameterSpace, z: np.ndarray, subspace: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The point with the largest prior density that trades reach from z (coordinate,), which has no part along them.

    Returns:
        The point, and how far each of `trade_directions` went (direction,): z - directions @ how far.
    """
    trades = trade_directions(space, z, subspace)
    norms = np.maximum(np.linalg.norm(trades, axis=0), 1e-300)
    coefficients = np.linalg.lstsq(trades / norms, z[: space.num_dynamics], rcond=None)[0] / norms
    settled = z.copy()
    settled[: space.num_dynamics] -= trades @ coefficients
    return settled, coefficients


def vertical_basis(space: ParameterSpace, z: np.ndarray, subspace: np.ndarray | None) -> np.ndarray:
    """(dynamics coordinate, direction) orthonormal basis of the vertical space: the gauge and all trades."""
    return np.concatenate([gauge_basis(space, z, subspace), trade_basis(space, z, subspace)], axis=1)


def gauge_exponent(space: ParameterSpace) -> int:
    """The power of |det A| in the volume element of `move`."""
    num_neurons, rank = space["M"].shape
    rows = space.right_stop // rank - num_neurons
    of_M = [name for name in space.regressions if name_and_type(name)[0] == "K_on_M"]
    coefficients = sum(space[name].shape[1] for name in space.regressions if name not in of_M)
    return num_neurons - rows - coefficients - 2 * rank * len(of_M)


def aligning_gauge(space: ParameterSpace, z: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The gauge A (..., rank, rank) that brings the left factors of z nearest to those of a reference, and its inverse.

    Args:
        space: the parameters.
        z: (..., coordinate).
        reference: (coordinate,).
    """
    A = np.linalg.pinv(space.coordinates(z, "M")) @ space.coordinates(reference, "M")
    return A, np.linalg.inv(A)


def prior_moments(space: ParameterSpace, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the prior density of z depends on along the gauge.

    Returns:
        L^T L of the left factors (rank, rank); the sum Q of c c^T over all vectors c that move to A^-1 c, the rows of
        K and initial_kappa and the columns of K_on_B and K_on_b (rank, rank); and H, the coefficients K_on_M
        (regression, rank, rank): none, one, or one for every cell type.
    """
    rank = space["M"].shape[1]
    left = space.coordinates(z, "M")
    right = z[space.slices["M"].stop : space.right_stop].reshape(-1, rank)
    moment, H = right.T @ right, []
    for name in space.regressions:
        coefficients = space.coordinates(z, name)
        if name_and_type(name)[0] == "K_on_M":
            H.append(coefficients)
        else:
            moment = moment + coefficients @ coefficients.T
    return left.T @ left, moment, np.reshape(H, (-1, rank, rank))


def balancing_gauge(
    moments: tuple[np.ndarray, np.ndarray, np.ndarray], surplus: np.ndarray | float = 0.0, num_steps: int = 200
) -> np.ndarray:
    """The symmetric part of the gauge A in which the moments of the factors balance.

    With the moments (P, Q, H) of `prior_moments` and H_A = A^-1 H A^-T it solves

        A^T P A - A^-1 Q A^-T - sum (H_A H_A^T + H_A^T H_A) + surplus = 0,

    by Newton's method for A = exp(S), S symmetric.

    Raises:
        ValueError: if P + Q is singular, or the iteration does not converge.
    """
    left, right, H = moments
    A = np.eye(len(left))
    for _ in range(num_steps):
        inverse = np.linalg.inv(A)
        moved_left, moved_right, moved_H = A.T @ left @ A, inverse @ right @ inverse.T, inverse @ H @ inverse.T
        transposed_H = np.swapaxes(moved_H, 1, 2)
        of_H = np.sum(moved_H @ transposed_H + transposed_H @ moved_H, axis=0)
        total = moved_left + moved_right + 2.0 * of_H
        if np.linalg.eigvalsh(total)[0] < SMALLEST_MOMENT:
            raise ValueError("a part of W is zero")
        stretch = scipy.linalg.solve_continuous_lyapunov(total, moved_right + of_H - moved_left - surplus)
        size = np.linalg.norm(stretch, 2)
        A = A @ scipy.linalg.expm(stretch * min(1.0, LARGEST_STRETCH / size) if size > 0.0 else stretch)
        if size < GAUGE_TOLERANCE:
            return A
    raise ValueError("the gauge does not balance")
