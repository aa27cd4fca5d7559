"""Double precision where a posterior needs it, without touching the user's global settings.

At a log density of 5e5 a float32 number has a step of 0.03 nats: a mode or a Laplace curvature in single
precision is wrong without looking wrong. So every public function that computes with JAX switches x64 on
for its own duration, and hands out NumPy arrays only, which keep their precision outside.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])


def double_precision(function: Function) -> Function:
    """Run `function` with 64-bit JAX arrays and return its arrays as NumPy arrays."""

    @functools.wraps(function)
    def in_double_precision(*arguments: Any, **keywords: Any) -> Any:
        with jax.enable_x64(True):
            return to_numpy(function(*arguments, **keywords))

    return cast(Function, in_double_precision)


def to_numpy(tree: Any) -> Any:
    """Replace every JAX array in a tree by a NumPy array; other leaves stay as they are."""
    return jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, tree)


def require_double_precision(caller: str) -> None:
    """Refuse to go on in single precision.

    Raises:
        RuntimeError: if 64-bit arrays are switched off where `caller` runs.
    """
    if not jax.config.read("jax_enable_x64"):
        raise RuntimeError(
            f"{caller}: expected 64-bit JAX arrays, got 32-bit ones, in which this log density is rounded to 0.03 nats "
            "or worse; run it inside `with jax.enable_x64(True):` or call jax.config.update('jax_enable_x64', True) "
            "before the first array is made"
        )
