"""What of a network is recorded, and with what noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jax import Array

from lrposterior.checks import require_choice
from lrposterior.network import NONLINEARITIES


@dataclass(frozen=True)
class GaussianObservation:
    """Activity = rate (or current) + independent Gaussian noise with a variance of its own for every neuron.

        y[t, n] ~ Normal(r[t, n], noise_scale[n]²)     of="rate"
        y[t, n] ~ Normal(x[t, n], noise_scale[n]²)     of="current"

    Args:
        of: "rate" (for example smoothed spike rates, in spikes/s) or "current".
    """

    of: Literal["rate", "current"] = "rate"

    def __post_init__(self) -> None:
        require_choice(self.of, "of", ("rate", "current"))

    def mean(self, current: Array, nonlinearity: str) -> Array:
        """Noise-free activity at a current, same shape."""
        return NONLINEARITIES[nonlinearity].rate(current) if self.of == "rate" else current

    def sensitivity(self, current: Array, nonlinearity: str) -> Array:
        """Derivative of `mean` with respect to the current, same shape."""
        return NONLINEARITIES[nonlinearity].slope(current) if self.of == "rate" else jnp.ones_like(current)

    def log_likelihood(
        self, activity: Array, mask: Array, current: Array, log_noise_scale: Array, nonlinearity: str
    ) -> Array:
        """Log density of each observation (..., neuron); 0 where the mask is False."""
        residual = (activity - self.mean(current, nonlinearity)) * jnp.exp(-log_noise_scale)
        log_density = -0.5 * residual**2 - log_noise_scale - 0.5 * jnp.log(2.0 * jnp.pi)
        return jnp.where(mask, log_density, 0.0)

    def fisher_weights(self, mask: Array, current: Array, log_noise_scale: Array, nonlinearity: str) -> Array:
        """Expected information about the current (..., neuron): phi'² / noise variance, 0 where masked.

        The expected information about log_noise_scale is 2 for every observation, and 0 jointly with the current.
        """
        information = (self.sensitivity(current, nonlinearity) * jnp.exp(-log_noise_scale)) ** 2
        return jnp.where(mask, information, 0.0)
