"""The parameters of a model as named blocks, and as one whitened vector.

Every parameter has a Normal prior in the coordinates used here (the noise scale and the time constant through their
logarithm), so that value = mean + standard_deviation * z with z ~ Normal(0, 1) independent: "whitened coordinates".
All curvature, gauge and posterior computations happen in z. One array is made of several blocks: with correlated
loadings the right factors are their regression on the other loadings plus a residual,

    K = M K_on_M^T + B K_on_B^T + b K_on_b^T + standard_deviation z_K.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Parameters = dict[str, Array]
AnyArray = TypeVar("AnyArray", np.ndarray, Array)

# The coefficients (rank, loading) of the regression of K, by the loadings that they multiply.
REGRESSIONS = {"K_on_M": "M", "K_on_B": "B", "K_on_b": "b"}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Block:
    """One named array of parameters with independent Normal(mean, standard_deviation²) priors.

    Mean and standard deviation are numbers, or arrays that broadcast to the shape.
    """

    name: str = field(metadata={"static": True})
    shape: tuple[int, ...] = field(metadata={"static": True})
    mean: float | np.ndarray
    standard_deviation: float | np.ndarray

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ParameterSpace:
    """The blocks of a model in the order in which they lie in the whitened vector z.

    The left factors M come first, then the rows that the gauge (M A, K A^-T) moves with the right factors: K and, where
    the initial state is free, initial_kappa. The coefficients of the regression of K follow all other parameters of the
    dynamics, and the noise comes last.

    Names and shapes are static for compiled functions, the prior scales are not: other scales compile nothing anew.
    """

    blocks: tuple[Block, ...]

    @cached_property
    def slices(self) -> dict[str, slice]:
        ends = np.cumsum([block.size for block in self.blocks]).tolist()
        return {block.name: slice(end - block.size, end) for block, end in zip(self.blocks, ends, strict=True)}

    @property
    def size(self) -> int:
        return sum(block.size for block in self.blocks)

    @property
    def num_dynamics(self) -> int:
        """Number of coordinates that move the currents: all but the noise."""
        return self.slices["log_noise_scale"].start

    @property
    def num_direct(self) -> int:
        """Number of coordinates of the parameters on which the currents depend themselves: all but regressions."""
        return next((self.slices[name].start for name in REGRESSIONS if name in self), self.num_dynamics)

    @property
    def regressions(self) -> tuple[str, ...]:
        """Names of the blocks of regression coefficients."""
        return tuple(name for name in REGRESSIONS if name in self)

    @property
    def right_stop(self) -> int:
        """Where the rows of the right factors end."""
        return self.slices["initial_kappa" if "initial_kappa" in self else "K"].stop

    def __getitem__(self, name: str) -> Block:
        return next(block for block in self.blocks if block.name == name)

    def __contains__(self, name: str) -> bool:
        return any(block.name == name for block in self.blocks)

    @property
    def standard_deviations(self) -> np.ndarray:
        """(coordinate,) prior standard deviations."""
        return np.concatenate([np.broadcast_to(b.standard_deviation, b.shape).ravel() for b in self.blocks])

    def log_scale(self) -> Array | float:
        """Sum over coordinates of the logarithm of the prior standard deviation."""
        return sum(jnp.sum(jnp.log(jnp.broadcast_to(b.standard_deviation, b.shape))) for b in self.blocks)

    def coordinates(self, z: AnyArray, name: str) -> AnyArray:
        """The whitened coordinates (..., *shape) of one block."""
        return z[..., self.slices[name]].reshape(z.shape[:-1] + self[name].shape)

    def unwhiten(self, z: AnyArray) -> dict[str, AnyArray]:
        """Parameters by name from whitened coordinates (..., coordinate); leading axes are kept."""
        parameters = {
            block.name: block.mean + block.standard_deviation * self.coordinates(z, block.name) for block in self.blocks
        }
        for name in self.regressions:
            parameters["K"] = parameters["K"] + _regressed(parameters, name)
        return parameters

    def mean_of_right(self, parameters: Mapping[str, Array]) -> Array:
        """(neuron, rank) the prior mean of K given all other parameters: its regression on them, or 0."""
        mean = jnp.zeros(self["K"].shape)
        return mean + sum(_regressed(dict(parameters), name) for name in self.regressions)

    def differential(self, z: np.ndarray, change: np.ndarray) -> dict[str, np.ndarray]:
        """First-order change of the parameters by name, from changes (..., coordinate) of z (coordinate,)."""
        changes = {block.name: block.standard_deviation * self.coordinates(change, block.name) for block in self.blocks}
        parameters = self.unwhiten(z)
        for name in self.regressions:
            loadings = REGRESSIONS[name]
            changes["K"] = changes["K"] + _regressed({name: parameters[name], loadings: changes[loadings]}, name)
            changes["K"] = changes["K"] + _regressed({name: changes[name], loadings: parameters[loadings]}, name)
        return changes

    def whiten(self, parameters: Mapping[str, np.ndarray] | Mapping[str, Array]) -> Array:
        """The inverse of `unwhiten` for one set of parameters.

        Coefficients of the regression of K may be left out: the most probable ones are taken.
        """
        known: dict[str, Array] = {name: jnp.asarray(value) for name, value in parameters.items()}
        if any(name not in known for name in self.regressions):
            known |= self._regress(known)
        known["K"] = known["K"] - sum(_regressed(known, name) for name in self.regressions)
        return jnp.concatenate(
            [jnp.ravel((known[block.name] - block.mean) / block.standard_deviation) for block in self.blocks]
        )

    def _regress(self, parameters: Mapping[str, Array]) -> dict[str, Array]:
        """The coefficients with the largest prior density together with the residuals that they leave of K."""
        loadings = [jnp.reshape(parameters[REGRESSIONS[name]], (len(parameters["M"]), -1)) for name in self.regressions]
        scales = [
            jnp.full(part.shape[1], self[name].standard_deviation)
            for name, part in zip(self.regressions, loadings, strict=True)
        ]
        regressor, ridge = jnp.concatenate(loadings, axis=1), self["K"].standard_deviation / jnp.concatenate(scales)
        coefficients = jnp.linalg.solve(regressor.T @ regressor + jnp.diag(ridge**2), regressor.T @ parameters["K"])
        ends = np.cumsum([part.shape[1] for part in loadings])[:-1].tolist()
        parts = jnp.split(coefficients, ends, axis=0)
        return {name: part.T for name, part in zip(self.regressions, parts, strict=True)}

    def factors(self, z: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Left and right factors over their prior scales, (..., neuron, rank) and (..., neuron [+ trial], rank).

        left @ right^T is the content of z that no gauge changes: W and, where the initial state is free, the initial
        recurrent currents M initial_kappa^T, each divided by its prior scale.
        """
        left, right = self.coordinates(z, "M"), self.coordinates(z, "K")
        if self.regressions:
            right = self.unwhiten(z)["K"] / self["K"].standard_deviation
        if "initial_kappa" not in self:
            return left, right
        return left, joined([right, self.coordinates(z, "initial_kappa")], axis=-2)


def joined(parts: Sequence[AnyArray], axis: int) -> AnyArray:
    """Arrays of NumPy or of JAX one after the other."""
    if isinstance(parts[0], np.ndarray):
        return cast(AnyArray, np.concatenate(cast(Sequence[np.ndarray], parts), axis=axis))
    return cast(AnyArray, jnp.concatenate(cast(Sequence[Array], parts), axis=axis))


def _regressed(parameters: Mapping[str, AnyArray], name: str) -> AnyArray:
    """(..., neuron, rank) the part of K that one block of coefficients explains."""
    loadings, coefficients = parameters[REGRESSIONS[name]], parameters[name]
    if REGRESSIONS[name] == "b":
        loadings = loadings[..., None]
    return loadings @ coefficients.swapaxes(-1, -2)
