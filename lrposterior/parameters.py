"""The parameters of a model as named blocks, and as one whitened vector.

Every parameter has a Normal prior in the coordinates used here (the noise scale and the time constant through their
logarithm), so that value = mean + standard_deviation * z with z ~ Normal(0, 1) independent: "whitened coordinates".
All curvature, gauge and posterior computations happen in z.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array

Parameters = dict[str, Array]
AnyArray = TypeVar("AnyArray", np.ndarray, Array)


@dataclass(frozen=True)
class Block:
    """One named array of parameters with independent Normal(mean, standard_deviation²) priors."""

    name: str
    shape: tuple[int, ...]
    mean: float
    standard_deviation: float

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class ParameterSpace:
    """The blocks of a model in the order in which they lie in the whitened vector z.

    The left factors M come first, then all blocks that the gauge (M A, K A^-T) moves with the right factors: K and,
    where the initial state is free, initial_kappa. The noise comes last.
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

    def __getitem__(self, name: str) -> Block:
        return next(block for block in self.blocks if block.name == name)

    def __contains__(self, name: str) -> bool:
        return any(block.name == name for block in self.blocks)

    @cached_property
    def standard_deviations(self) -> np.ndarray:
        """(coordinate,) prior standard deviations."""
        return np.concatenate([np.full(block.size, block.standard_deviation) for block in self.blocks])

    def unwhiten(self, z: AnyArray) -> dict[str, AnyArray]:
        """Parameters by name from whitened coordinates (..., coordinate); leading axes are kept."""
        return {
            block.name: block.mean
            + block.standard_deviation * z[..., self.slices[block.name]].reshape(z.shape[:-1] + block.shape)
            for block in self.blocks
        }

    def whiten(self, parameters: Mapping[str, np.ndarray] | Mapping[str, Array]) -> Array:
        """The inverse of `unwhiten` for one set of parameters."""
        return jnp.concatenate(
            [
                (jnp.reshape(parameters[block.name], (-1,)) - block.mean) / block.standard_deviation
                for block in self.blocks
            ]
        )

    def factors(self, z: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Whitened left and right factors, (..., neuron, rank) and (..., neuron [+ trial], rank).

        left @ right^T is the gauge-invariant content of z: W and, where the initial state is free, the initial
        recurrent currents M initial_kappa^T, each divided by its prior scale.
        """
        num_neurons, rank = self["M"].shape
        left = z[..., self.slices["M"]].reshape(z.shape[:-1] + (num_neurons, rank))
        right = z[..., self.slices["M"].stop : self.right_stop].reshape(z.shape[:-1] + (-1, rank))
        return left, right

    @property
    def right_stop(self) -> int:
        """Where the coordinates that the gauge moves end."""
        return self.slices["initial_kappa" if "initial_kappa" in self else "K"].stop

    def with_factors(self, z: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """z with its factors replaced."""
        moved = np.concatenate([left.reshape(*z.shape[:-1], -1), right.reshape(*z.shape[:-1], -1)], axis=-1)
        return np.concatenate([moved, z[..., self.right_stop :]], axis=-1)
