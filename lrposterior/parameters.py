"""The parameters of a model as named blocks, and as one whitened vector.

Every parameter has a Normal prior in the coordinates used here (the noise scale and the time constant through their
logarithm), so that value = mean + standard_deviation * z with z ~ Normal(0, 1) independent: "whitened coordinates".
What has a sign is sign * scale * q(z), with the magnitude q of `lrposterior.magnitudes`, and z ~ Normal(0, 1) as well.
All curvature, gauge and posterior computations happen in z. One array is made of several blocks: with correlated
loadings the right factors are their regression on the other loadings plus a residual,

    K = M K_on_M^T + B K_on_B^T + b K_on_b^T + standard_deviation z_K.

Where every cell type has a regression of its own, its blocks are named "K_on_M[E]" and so on. Under Dale's law K may be
multiplied by scales that are parameters, one for every cell type.
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

from lrposterior.magnitudes import IsLogNormal, Spread, bends, coordinate, log_density, magnitude, slope

Parameters = dict[str, Array]
AnyArray = TypeVar("AnyArray", np.ndarray, Array)

# Logarithms of the scales of K (type,), where these are parameters.
RIGHT_SCALE = "log_K_scale"
# The coefficients (rank, loading) of the regression of K, by the loadings that they multiply.
REGRESSIONS = {"K_on_M": "M", "K_on_B": "B", "K_on_b": "b"}


def of_type(name: str, cell_type: str) -> str:
    """The name of what belongs to the neurons of one cell type: "K[E]"."""
    return f"{name}[{cell_type}]"


def name_and_type(name: str) -> tuple[str, str | None]:
    """The inverse of `of_type`; no type where the name is that of a whole."""
    whole, bracket, rest = name.partition("[")
    return whole, rest[:-1] if bracket else None


def is_regression(name: str) -> bool:
    """Whether a block holds coefficients of the regression of K."""
    return name_and_type(name)[0] in REGRESSIONS


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Block:
    """One named array of parameters with independent priors: Normal(mean, standard_deviation²), or of one sign.

    All but name and shape are numbers, or arrays that broadcast to the shape. Where there is a sign, of 1 or -1, values
    are sign * standard_deviation * q(z) with a magnitude q: the standard deviation is then that before values of the
    wrong sign are mirrored (half-normal), or the median (log-normal, with this spread).
    """

    name: str = field(metadata={"static": True})
    shape: tuple[int, ...] = field(metadata={"static": True})
    mean: float | np.ndarray
    standard_deviation: float | np.ndarray
    sign: float | np.ndarray | None = None
    log_normal: IsLogNormal = False
    spread: Spread = 1.0

    def value(self, z: AnyArray) -> AnyArray:
        """The parameter (..., *shape) at whitened coordinates of this shape."""
        if self.sign is None:
            return cast(AnyArray, self.mean + self.standard_deviation * z)
        q = magnitude(self.log_normal, z, self.spread)
        return cast(AnyArray, self.sign * self.standard_deviation * q)

    def whitened(self, value: Array) -> Array:
        """The inverse of `value`; NaN where a value has the wrong sign."""
        if self.sign is None:
            return (value - self.mean) / self.standard_deviation
        return coordinate(self.log_normal, value / (self.sign * self.standard_deviation), self.spread)

    def slope(self, z: np.ndarray) -> np.ndarray | float:
        """Derivative of `value`, of the shape of z, or one that broadcasts to it."""
        if self.sign is None:
            return self.standard_deviation
        return self.sign * self.standard_deviation * slope(self.log_normal, z, self.spread)

    def bends(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Second and third derivative of `value` over the first, of the shape of z."""
        if self.sign is None:
            return np.zeros(z.shape), np.zeros(z.shape)
        return bends(self.log_normal, z, self.spread)

    def log_density(self, value: Array) -> Array:
        """log p(value) of all entries together, in nats."""
        if self.sign is None:
            of_entry = -0.5 * self.whitened(value) ** 2 - 0.5 * jnp.log(2.0 * jnp.pi)
        else:
            of_entry = log_density(self.log_normal, value / (self.sign * self.standard_deviation), self.spread)
        return jnp.sum(of_entry - jnp.log(jnp.broadcast_to(self.standard_deviation, self.shape)))

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

    Attributes:
        blocks: the named arrays.
        cell_types: names of the types that have a scale of K and a regression of their own.
        members: (neuron,) place of every neuron's type in `cell_types`, or None where there are none.
        read: (neuron, dimension) orthonormal Q where the parameter K is Q Q^T of what the coordinates say, or None.
        self_connections: whether W has a diagonal.
    """

    blocks: tuple[Block, ...]
    cell_types: tuple[str, ...] = field(default=(), metadata={"static": True})
    members: np.ndarray | None = None
    read: np.ndarray | None = None
    self_connections: bool = field(default=True, metadata={"static": True})

    @cached_property
    def slices(self) -> dict[str, slice]:
        ends = np.cumsum([block.size for block in self.blocks]).tolist()
        return {block.name: slice(end - block.size, end) for block, end in zip(self.blocks, ends, strict=True)}

    @property
    def size(self) -> int:
        return sum(block.size for block in self.blocks)

    @property
    def num_dynamics(self) -> int:
        """Number of coordinates that move what is expected: all but the noise."""
        return self.slices["log_noise_scale"].start if "log_noise_scale" in self else self.size

    @property
    def num_direct(self) -> int:
        """Number of coordinates of the parameters on which the currents depend themselves: not through K alone."""
        through_K = (*self.regressions, *([RIGHT_SCALE] if RIGHT_SCALE in self else []))
        return next((self.slices[name].start for name in through_K), self.num_dynamics)

    @property
    def regressions(self) -> tuple[str, ...]:
        """Names of the blocks of regression coefficients."""
        return tuple(block.name for block in self.blocks if is_regression(block.name))

    @property
    def right_stop(self) -> int:
        """Where the rows of the right factors end."""
        return self.slices["initial_kappa" if "initial_kappa" in self else "K"].stop

    def places(self, name: str) -> np.ndarray:
        """(coordinate,) where a block lies in z, or the part of K of one cell type ("K[E]")."""
        whole, cell_type = name_and_type(name)
        if name in self or cell_type is None:
            return np.arange(self.size)[self.slices[name]]
        rows = np.arange(self.size)[self.slices[whole]].reshape(self[whole].shape)
        return rows[self.members == self.cell_types.index(cell_type)].ravel()

    def regressor(self, parameters: Mapping[str, AnyArray], name: str) -> AnyArray:
        """(..., neuron, loading) what a block of coefficients multiplies; 0 for neurons of other cell types."""
        whole, cell_type = name_and_type(name)
        loadings = parameters[REGRESSIONS[whole]]
        if REGRESSIONS[whole] == "b":
            loadings = loadings[..., None]
        if cell_type is None:
            return loadings
        return loadings * (self.members == self.cell_types.index(cell_type))[:, None]

    def __getitem__(self, name: str) -> Block:
        return next(block for block in self.blocks if block.name == name)

    def __contains__(self, name: str) -> bool:
        return any(block.name == name for block in self.blocks)

    def bends(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(coordinate,) second and third derivatives of the parameters over the first, of z (coordinate,)."""
        second, third = zip(*(block.bends(self.coordinates(z, block.name)) for block in self.blocks), strict=True)
        return np.concatenate([each.ravel() for each in second]), np.concatenate([each.ravel() for each in third])

    @property
    def is_signed(self) -> bool:
        """Whether factors have signs, as under Dale's law."""
        return self["M"].sign is not None

    @property
    def is_dense(self) -> bool:
        """Whether W is known beyond M K^T / N neuron by neuron (`lrposterior.signed_background`)."""
        return not self.self_connections or "W0" in self

    @property
    def standard_deviations(self) -> np.ndarray:
        """(coordinate,) prior standard deviations."""
        return np.concatenate([np.broadcast_to(b.standard_deviation, b.shape).ravel() for b in self.blocks])

    def coordinates(self, z: AnyArray, name: str) -> AnyArray:
        """The whitened coordinates (..., *shape) of one block."""
        return z[..., self.slices[name]].reshape(z.shape[:-1] + self[name].shape)

    def unwhiten(self, z: AnyArray) -> dict[str, AnyArray]:
        """Parameters by name from whitened coordinates (..., coordinate); leading axes are kept."""
        parameters = {block.name: block.value(self.coordinates(z, block.name)) for block in self.blocks}
        if RIGHT_SCALE in self:
            parameters["K"] = parameters["K"] * self._right_scales(parameters)
        for name in self.regressions:
            parameters["K"] = parameters["K"] + self._regressed(parameters, name)
        parameters["K"] = self._read_part(parameters["K"])
        return cast(dict[str, AnyArray], parameters)

    def mean_of_right(self, parameters: Mapping[str, Array]) -> Array:
        """(neuron, rank) the prior mean of K given all other parameters: its regression on them, or 0."""
        mean = jnp.zeros(self["K"].shape)
        return mean + sum(self._regressed(parameters, name) for name in self.regressions)

    def differential(self, z: np.ndarray, change: np.ndarray) -> dict[str, np.ndarray]:
        """First-order change of the parameters by name, from changes (..., coordinate) of z (coordinate,)."""
        changes = {
            block.name: block.slope(self.coordinates(z, block.name)) * self.coordinates(change, block.name)
            for block in self.blocks
        }
        parameters = self.unwhiten(z)
        if RIGHT_SCALE in self:
            of_scales = parameters["K"] * changes[RIGHT_SCALE][..., self.members, None]
            changes["K"] = changes["K"] * self._right_scales(parameters) + of_scales
        for name in self.regressions:
            changes["K"] = changes["K"] + self._regressed(changes | {name: parameters[name]}, name)
            changes["K"] = changes["K"] + self._regressed(parameters | {name: changes[name]}, name)
        changes["K"] = self._read_part(changes["K"])
        return changes

    def whiten(self, parameters: Mapping[str, np.ndarray] | Mapping[str, Array]) -> Array:
        """The inverse of `unwhiten` for one set of parameters.

        Coefficients of the regression of K may be left out: the most probable ones are taken. So may its scales, which
        are then those of its entries.
        """
        known = self._independent(parameters)
        return jnp.concatenate([jnp.ravel(block.whitened(known[block.name])) for block in self.blocks])

    def log_density(self, parameters: Mapping[str, np.ndarray] | Mapping[str, Array]) -> Array | float:
        """log p(parameters) under the prior, in nats."""
        known = self._independent(parameters)
        density = sum(block.log_density(known[block.name]) for block in self.blocks)
        if RIGHT_SCALE in self:
            density = density - self["K"].shape[1] * jnp.sum(known[RIGHT_SCALE][self.members])
        return density

    def _independent(self, parameters: Mapping[str, np.ndarray] | Mapping[str, Array]) -> dict[str, Array]:
        """Parameters that are independent under the prior: K without its regression, or its scales."""
        known: dict[str, Array] = {name: jnp.asarray(value) for name, value in parameters.items()}
        if RIGHT_SCALE in self:
            if RIGHT_SCALE not in known:
                known[RIGHT_SCALE] = self._typical_scales(known["K"])
            known["K"] = known["K"] / self._right_scales(known)
        if any(name not in known for name in self.regressions):
            known |= self._regress(known)
        known["K"] = known["K"] - sum(self._regressed(known, name) for name in self.regressions)
        return known

    def _regress(self, parameters: Mapping[str, Array]) -> dict[str, Array]:
        """The coefficients with the largest prior density together with the residuals that they leave of K."""
        loadings = [self.regressor(parameters, name) for name in self.regressions]
        scales = [
            jnp.full(part.shape[1], self[name].standard_deviation)
            for name, part in zip(self.regressions, loadings, strict=True)
        ]
        residual_scale, ridge = self["K"].standard_deviation, 1.0 / jnp.concatenate(scales)
        regressor = jnp.concatenate(loadings, axis=1) / residual_scale
        target = regressor.T @ (parameters["K"] / residual_scale)
        coefficients = jnp.linalg.solve(regressor.T @ regressor + jnp.diag(ridge**2), target)
        ends = np.cumsum([part.shape[1] for part in loadings])[:-1].tolist()
        parts = jnp.split(coefficients, ends, axis=0)
        return {name: part.T for name, part in zip(self.regressions, parts, strict=True)}

    def _right_scales(self, parameters: Mapping[str, AnyArray]) -> AnyArray:
        """(..., neuron, 1) the scale of K of every neuron."""
        scales = parameters[RIGHT_SCALE][..., self.members, None]
        return cast(AnyArray, np.exp(scales) if isinstance(scales, np.ndarray) else jnp.exp(scales))

    def _typical_scales(self, K: Array) -> Array:
        """(type,) logarithms of the scales with which K (neuron, rank) has the mean square, or the median, of q."""
        block = self["K"]
        sizes, log_normal = jnp.abs(K) / block.standard_deviation, np.broadcast_to(block.log_normal, K.shape)
        scales = []
        for place in range(len(self.cell_types)):
            of_type = self.members == place
            median = jnp.mean(jnp.log(sizes[of_type]))
            root_mean_square = 0.5 * jnp.log(jnp.mean(sizes[of_type] ** 2))
            scales.append(median if np.all(log_normal[of_type]) else root_mean_square)
        return jnp.stack(scales)

    def _regressed(self, parameters: Mapping[str, AnyArray], name: str) -> AnyArray:
        """(..., neuron, rank) the part of K that one block of coefficients explains."""
        return self.regressor(parameters, name) @ parameters[name].swapaxes(-1, -2)

    def _read_part(self, K: AnyArray) -> AnyArray:
        """Q Q^T K (..., neuron, rank), or K where it reads all patterns."""
        return K if self.read is None else cast(AnyArray, self.read @ (self.read.T @ K))

    def factors(self, z: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Left and right factors over their prior scales, (..., neuron, rank) and (..., neuron [+ trial], rank).

        left @ right^T is the content of z that no gauge changes: W and, where the initial state is free, the initial
        recurrent currents M initial_kappa^T, each divided by its prior scale.
        """
        left, right = self.coordinates(z, "M"), self.coordinates(z, "K")
        if self.regressions or self.read is not None:
            right = self.unwhiten(z)["K"] / self["K"].standard_deviation
        if "initial_kappa" not in self:
            return left, right
        return left, joined([right, self.coordinates(z, "initial_kappa")], axis=-2)


def joined(parts: Sequence[AnyArray], axis: int) -> AnyArray:
    """Arrays of NumPy or of JAX one after the other."""
    if isinstance(parts[0], np.ndarray):
        return cast(AnyArray, np.concatenate(cast(Sequence[np.ndarray], parts), axis=axis))
    return cast(AnyArray, jnp.concatenate(cast(Sequence[Array], parts), axis=axis))
