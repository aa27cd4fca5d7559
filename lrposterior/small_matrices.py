"""Equations with so few unknowns that a formula beats the general routines, many times over for batches of them."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

LARGEST_BY_FORMULA = 3


def solve_and_log_determinant(matrix: Array, right_side: Array) -> tuple[Array, Array]:
    """The solution x of matrix @ x = right_side, and the logarithm of the determinant, which is positive.

    Up to three unknowns by cofactors, which compiled code works out among its sums for all trials at once.

    Args:
        matrix: (size, size).
        right_side: (size,) or (size, column).
    """
    size = len(matrix)
    if size > LARGEST_BY_FORMULA:
        return jnp.linalg.solve(matrix, right_side), jnp.linalg.slogdet(matrix)[1]
    entries = [[matrix[row, column] for column in range(size)] for row in range(size)]
    adjugate = [[_cofactor(entries, column, row) for column in range(size)] for row in range(size)]
    determinant = sum(entries[0][column] * adjugate[column][0] for column in range(size))
    return jnp.array(adjugate) @ right_side / determinant, jnp.log(determinant)


def _cofactor(entries: list[list[Array]], row: int, column: int) -> Array:
    """Of up to three unknowns; in cyclic order of rows and columns no sign is left."""
    size = len(entries)
    if size == 1:
        return jnp.ones_like(entries[0][0])
    if size == 2:
        return (-1) ** (row + column) * entries[1 - row][1 - column]
    (first, second), (left, right) = ([(place + step) % 3 for step in (1, 2)] for place in (row, column))
    return entries[first][left] * entries[second][right] - entries[first][right] * entries[second][left]
