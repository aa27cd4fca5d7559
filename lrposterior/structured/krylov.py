"""The information as a block for every neuron and a part of low rank, by a block Krylov chain.

With the prior scales S and the Cholesky factors L L^T = S D S + I of the neurons, the precision in whitened coordinates
is L (I + Xi) L^T, and almost all eigenvalues of Xi are zero: its rank saturates at about a hundred per latent, however
many neurons there are. The chain Z is orthonormal, contains what Xi makes of its own columns, and starts from the
directions without information and from Xi times random columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lrposterior.structured.blocks import WhitenedBlocks
from lrposterior.structured.information import StructuredInformation, multiply_rows
from lrposterior.structured.products import Linearisation

BLOCK_SIZE = 48
# Columns of a new block shorter than this part of what they are left over from are rounding errors.
SMALLEST_COLUMN = 1e-10
# So are directions in which a new block has less than this part of its largest squared singular value.
SMALLEST_DIRECTION = 1e-12


@dataclass(frozen=True, eq=False)
class Chain:
    """Z and T = Z^T Xi Z.

    Attributes:
        basis: (coordinate, column) orthonormal Z.
        projected: (column, column) T.
        residual: largest singular value of what Xi makes of the last block outside Z: how well the chain is closed.
    """

    basis: np.ndarray
    projected: np.ndarray
    residual: float


@dataclass(frozen=True, eq=False)
class ReducedPrecision:
    """R (I + O diag(values) O^T) R^T, the posterior precision at one prior; see `lrposterior.structured.blocks`.

    Attributes:
        linearisation: the network at the point.
        local: R.
        basis: (coordinate, component) orthonormal O.
        values: (component,).
        residual: how well the chain is closed, in units of the precision within neurons.
    """

    linearisation: Linearisation
    local: WhitenedBlocks
    basis: np.ndarray
    values: np.ndarray
    residual: float

    def information(self) -> StructuredInformation:
        """The information alone, in coordinates that know nothing of the prior."""
        linearisation = self.linearisation
        return StructuredInformation(
            layout=linearisation.system.layout,
            blocks=linearisation.blocks,
            factor=self.local.times(self.basis),
            weights=self.values,
            vertical=linearisation.vertical(),
        )

    def apply(self, columns: np.ndarray) -> np.ndarray:
        """Xi times columns, exactly."""
        return _products(self.linearisation, self.local, columns)


def reduce_precision(
    linearisation: Linearisation,
    deviations: np.ndarray,
    *,
    max_rank: int,
    tolerance: float = 0.02,
    block_size: int = BLOCK_SIZE,
    seed: int = 0,
) -> ReducedPrecision:
    """The posterior precision at a point, accurate where the prior with these deviations does not dominate.

    Args:
        linearisation: the network at the point.
        deviations: (coordinate,) prior standard deviations.
        max_rank: largest number of columns of the low-rank part.
        tolerance: the chain ends when its residual is below.
        block_size: columns per product.
        seed: of the random columns.

    Raises:
        np.linalg.LinAlgError: if the result is not positive definite: the time courses were kept too coarsely.
    """
    local = WhitenedBlocks.of(linearisation.system.layout, linearisation.blocks, deviations)
    chain = block_krylov(
        lambda columns: _products(linearisation, local, columns),
        local.times_transposed(linearisation.vertical()),
        max_rank=max_rank,
        tolerance=tolerance,
        size=block_size,
        seed=seed,
    )
    values, rotation = np.linalg.eigh(chain.projected)
    if values[0] <= -1.0:
        raise np.linalg.LinAlgError(
            f"the smallest eigenvalue of the precision is {1.0 + values[0]:.2g} times the local one; "
            "keep the time courses to a smaller tolerance"
        )
    multiply_rows(chain.basis, rotation)
    return ReducedPrecision(linearisation, local, chain.basis, values, chain.residual)


def _products(linearisation: Linearisation, local: WhitenedBlocks, columns: np.ndarray) -> np.ndarray:
    return local.solve(linearisation.information_beyond_blocks(local.solve_transposed(columns)))


def block_krylov(
    apply: Callable[[np.ndarray], np.ndarray],
    first: np.ndarray,
    *,
    max_rank: int,
    tolerance: float,
    size: int,
    seed: int,
) -> Chain:
    """An orthonormal chain for a symmetric operator.

    Args:
        apply: products with columns (coordinate, column).
        first: (coordinate, column) what the chain has to contain.
        max_rank, tolerance, size, seed: see `reduce_precision`.
    """
    num_coordinates = len(first)
    max_rank = min(max_rank, num_coordinates)
    Z = np.empty((num_coordinates, max_rank))
    T = np.zeros((max_rank, max_rank))
    random = np.random.default_rng(seed).standard_normal((num_coordinates, min(size, num_coordinates)))
    block, _ = _orthonormal(np.concatenate([first, apply(random)], axis=1), Z[:, :0])
    block = block[:, :max_rank]
    filled, residual = 0, np.inf
    while block.shape[1]:
        columns = slice(filled, filled + block.shape[1])
        Z[:, columns] = block
        filled = columns.stop
        products = apply(block)
        known = Z[:, :filled]
        block, within = _orthonormal(products, known)
        T[:filled, columns] = within
        T[columns, :filled] = within.T
        outside = block.T @ products
        residual = float(np.linalg.norm(outside, 2)) if outside.size else 0.0
        if residual < tolerance:
            break
        block = block[:, : max_rank - filled]
    return Chain(Z[:, :filled], T[:filled, :filled], residual)


def _orthonormal(columns: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An orthonormal basis of what columns add to known ones, and their coefficients on the known ones."""
    coefficients = known.T @ columns
    rest = columns - known @ coefficients
    correction = known.T @ rest
    rest -= known @ correction
    coefficients += correction
    norms = np.linalg.norm(rest, axis=0)
    kept = norms > SMALLEST_COLUMN * np.linalg.norm(columns, axis=0)
    # Through the Gram matrix, once for the directions and once for their orthogonality to rounding: much faster than a
    # Householder decomposition of tall columns.
    rest = rest[:, kept] / norms[kept]
    values, rotation = np.linalg.eigh(rest.T @ rest)
    independent = values > SMALLEST_DIRECTION * np.max(values, initial=0.0)
    basis = rest @ (rotation[:, independent] / np.sqrt(values[independent]))
    basis -= known @ (known.T @ basis)
    triangle = np.linalg.cholesky(basis.T @ basis).T
    return basis @ np.linalg.inv(triangle), coefficients
