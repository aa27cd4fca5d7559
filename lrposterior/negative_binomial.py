"""The negative binomial distribution of counts by its mean mu and its dispersion alpha: variance mu + alpha mu².

It is a Poisson distribution whose mean is multiplied by a Gamma variable of mean 1 and variance alpha.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Stirling's series is used beyond this number, where what it leaves out is below 1e-12.
SHIFT = 8
STIRLING = (1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0)
# Of the integral over Gamma(1) weights: relative errors are below 1e-8 up to a dispersion of 1, 1e-5 up to 3 and 1e-3
# up to 10.
NODES, WEIGHTS = np.polynomial.laguerre.laggauss(32)


def log_density(count: Array, mean: Array, dispersion: Array) -> Array:
    """log p(count), in nats, down to dispersions of 1e-100, where it is that of the Poisson distribution.

    log p = log prod_{j < y} (1 + alpha j) - log y! + y log mu - (y + 1 / alpha) log(1 + alpha mu)
    """
    of_mean = count * (jnp.log(mean) - jnp.log1p(dispersion * mean)) - jnp.log1p(dispersion * mean) / dispersion
    return _log_product(count, dispersion) - jax.scipy.special.gammaln(count + 1.0) + of_mean


def _log_product(count: Array, dispersion: Array) -> Array:
    """log prod_{j < y} (1 + alpha j) = log Gamma(y + 1 / alpha) - log Gamma(1 / alpha) + y log alpha.

    The difference of the two is that of Stirling's series, without what cancels, at arguments larger by `SHIFT`.
    """
    shifted = SHIFT + 1.0 / dispersion
    series = (shifted + count - 0.5) * jnp.log1p(count / shifted) - count
    series = series + _stirling(shifted + count) - _stirling(shifted)
    first = sum(jnp.log1p(count * dispersion / (1.0 + k * dispersion)) for k in range(SHIFT))
    return series + count * jnp.log1p(SHIFT * dispersion) - first


def _stirling(value: Array) -> Array:
    """log Gamma(x) - (x - 1 / 2) log x + x - log(2 pi) / 2 by its series in 1 / x."""
    inverse = 1.0 / value
    return sum(coefficient * inverse ** (2 * k + 1) for k, coefficient in enumerate(STIRLING)) + jnp.zeros_like(value)


def dispersion_information(mean: Array, dispersion: Array) -> Array:
    """Expected information of one count about log alpha; jointly with the mean it is 0.

    With r = 1 / alpha and c = alpha mu / (1 + alpha mu), it is the sum of the squared parts of the score along the
    orthogonal polynomials of the distribution (Meixner's) of the degrees k = 2, 3, ...,

        I = sum_{k >= 2} (r / k)² k! c^k / (r (r + 1) ... (r + k - 1)).

    As k! / (r ... (r + k - 1)) is k B(k, r), a Beta function, it is an integral that Gauss-Laguerre quadrature takes:

        I = integral_0^inf exp(-v) (-log(1 - c s) - c s) / (alpha s) dv,      s = 1 - exp(-alpha v).
    """
    nodes, weights = jnp.asarray(NODES, mean.dtype), jnp.asarray(WEIGHTS, mean.dtype)
    share = jnp.expand_dims(dispersion * mean / (1.0 + dispersion * mean), -1)
    alpha = jnp.expand_dims(jnp.broadcast_to(dispersion, mean.shape), -1)
    drawn = -jnp.expm1(-alpha * nodes)
    return ((-jnp.log1p(-share * drawn) - share * drawn) / (alpha * drawn)) @ weights
