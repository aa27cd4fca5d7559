"""Magnitudes as functions of a coordinate that is Normal(0, 1): what has a sign then has no bound.

    half-normal:  P(q < Q) = 2 Phi(Q) - 1,    q(z) = -Phi^-1(Phi(-z) / 2)
    log-normal:                               q(z) = exp(spread z)

Phi is the distribution function of a Normal(0, 1) variable. q rises with z, so that a magnitude is distributed as its
name says where z is Normal(0, 1).
"""

from __future__ import annotations

from typing import Literal, get_args

import jax.numpy as jnp
import jax.scipy.special
import numpy as np
import scipy.special
from jax import Array

Magnitudes = Literal["half-normal", "log-normal"]
MAGNITUDES = get_args(Magnitudes)


def magnitude(distribution: Magnitudes, z: Array | np.ndarray, spread: float) -> Array | np.ndarray:
    """q(z), of any shape."""
    if distribution == "log-normal":
        return np.exp(spread * z) if isinstance(z, np.ndarray) else jnp.exp(spread * z)
    special = scipy.special if isinstance(z, np.ndarray) else jax.scipy.special
    return -special.ndtri(0.5 * special.ndtr(-z))


def coordinate(distribution: Magnitudes, q: Array, spread: float) -> Array:
    """The z of a magnitude, the inverse of `magnitude`; NaN where it is negative."""
    if distribution == "log-normal":
        return jnp.log(q) / spread
    return jnp.where(q >= 0.0, -jax.scipy.special.ndtri(2.0 * jax.scipy.special.ndtr(-q)), jnp.nan)


def slope(distribution: Magnitudes, z: np.ndarray, spread: float) -> np.ndarray:
    """dq / dz, of any shape."""
    q = np.asarray(magnitude(distribution, z, spread))
    return spread * q if distribution == "log-normal" else 0.5 * np.exp(0.5 * (q**2 - z**2))


def bends(distribution: Magnitudes, z: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """q'' / q' and q''' / q', of any shape."""
    if distribution == "log-normal":
        return np.full(z.shape, spread), np.full(z.shape, spread**2)
    q, first = np.asarray(magnitude(distribution, z, spread)), slope(distribution, z, spread)
    second = q * first - z
    return second, second**2 + first**2 + q * first * second - 1.0


def log_density(distribution: Magnitudes, q: Array, spread: float) -> Array:
    """log p(q) in nats, -inf where q is negative."""
    if distribution == "log-normal":
        positive = jnp.where(q > 0.0, q, 1.0)
        density = -0.5 * (jnp.log(positive) / spread) ** 2 - jnp.log(positive * spread)
        return jnp.where(q > 0.0, density - 0.5 * jnp.log(2.0 * jnp.pi), -jnp.inf)
    return jnp.where(q >= 0.0, -0.5 * q**2 + 0.5 * jnp.log(2.0 / jnp.pi), -jnp.inf)
