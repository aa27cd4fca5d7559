"""Magnitudes as functions of a coordinate that is Normal(0, 1): what has a sign then has no bound.

    half-normal:  P(q < Q) = 2 Phi(Q) - 1,    q(z) = -Phi^-1(Phi(-z) / 2)
    log-normal:                               q(z) = exp(spread z)

Phi is the distribution function of a Normal(0, 1) variable. q rises with z, so that a magnitude is distributed as its
name says where z is Normal(0, 1). Which magnitudes are log-normal, and their spread, is a value for all, or an array
that broadcasts to the shape of z. No entry is put into the function of the other distribution, so that no derivative is
NaN because of the one that is not taken.
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

IsLogNormal = bool | np.ndarray
Spread = float | np.ndarray


def magnitude(log_normal: IsLogNormal, z: Array | np.ndarray, spread: Spread) -> Array | np.ndarray:
    """q(z), of any shape."""
    of, special = (np, scipy.special) if isinstance(z, np.ndarray) else (jnp, jax.scipy.special)
    logarithm, normal = of.where(log_normal, spread * z, 0.0), of.where(log_normal, 0.0, z)
    return of.where(log_normal, of.exp(logarithm), -special.ndtri(0.5 * special.ndtr(-normal)))


def coordinate(log_normal: IsLogNormal, q: Array, spread: Spread) -> Array:
    """The z of a magnitude, the inverse of `magnitude`; NaN where it is negative."""
    of_log_normal, of_half_normal = jnp.where(log_normal, q, 1.0), jnp.where(log_normal, 1.0, q)
    mirrored = -jax.scipy.special.ndtri(2.0 * jax.scipy.special.ndtr(-of_half_normal))
    mirrored = jnp.where(of_half_normal >= 0.0, mirrored, jnp.nan)
    return jnp.where(log_normal, jnp.log(of_log_normal) / spread, mirrored)


def slope(log_normal: IsLogNormal, z: np.ndarray, spread: Spread) -> np.ndarray:
    """dq / dz, of any shape."""
    q = np.asarray(magnitude(log_normal, z, spread))
    log_ratio = np.where(log_normal, 0.0, 0.5 * (q**2 - z**2))
    return np.where(log_normal, spread * q, 0.5 * np.exp(log_ratio))


def bends(log_normal: IsLogNormal, z: np.ndarray, spread: Spread) -> tuple[np.ndarray, np.ndarray]:
    """q'' / q' and q''' / q', of any shape."""
    q, first = np.asarray(magnitude(log_normal, z, spread)), slope(log_normal, z, spread)
    second = np.where(log_normal, spread, q * first - z)
    third = second**2 + first**2 + q * first * second - 1.0
    return second, np.where(log_normal, second**2, third)


def log_density(log_normal: IsLogNormal, q: Array, spread: Spread) -> Array:
    """log p(q) in nats, -inf where q is negative, and of log-normal magnitudes where it is 0."""
    positive = jnp.where(log_normal, jnp.where(q > 0.0, q, 1.0), 1.0)
    of_log_normal = -0.5 * (jnp.log(positive) / spread) ** 2 - jnp.log(positive * spread) - 0.5 * jnp.log(2.0 * jnp.pi)
    of_half_normal = -0.5 * q**2 + 0.5 * jnp.log(2.0 / jnp.pi)
    is_possible = jnp.where(log_normal, q > 0.0, q >= 0.0)
    return jnp.where(is_possible, jnp.where(log_normal, of_log_normal, of_half_normal), -jnp.inf)
