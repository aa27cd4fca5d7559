"""An information matrix in other coordinates."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import Array

# Rows that are pulled back together. More would not be faster, and take more memory.
ROWS_AT_ONCE = 64


def pulled_back(information: Array, function: Callable[[Array], Array], point: Array) -> Array:
    """G^T F G, from F (value, value) about the values of a function with the derivative G (value, coordinate).

    Args:
        information: F.
        function: from coordinates (coordinate,) to values (value,).
        point: where the derivative is taken.
    """
    _, pull_back = jax.vjp(function, point)

    def rows(matrix: Array) -> Array:
        return jax.lax.map(lambda row: pull_back(row)[0], matrix, batch_size=ROWS_AT_ONCE)

    return rows(rows(information).T)
