"""The time constants of a network: of all neurons, of every cell type or of every neuron, each fixed or inferred.

A population is the neurons that share a time constant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.checks import argument_error, require_positive, require_probability
from lrposterior.parameters import Block
from lrposterior.populations import ByCellType
from lrposterior.priors import TimeConstantPrior

BLOCK = "log_time_constant_excess"
OF_A = "a = dt / time constant: 0.5 is a time constant of two bins"


@dataclass(frozen=True)
class IntegrationConstant:
    """A known time constant, written as a = dt / tau of the recording.

    Args:
        a: between 0 and 1, so that tau is above the bin width.

    Raises:
        ValueError: if it is not.
    """

    a: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "a", require_probability(self.a, "time_constant.a", OF_A))

    def in_seconds(self, dt: float) -> float:
        """tau at a bin width."""
        return dt / self.a


@dataclass(frozen=True)
class IntegrationConstantPrior:
    """A prior on a time constant, written for a = dt / tau of the recording, which it keeps between 0 and 1.

        logit(a) ~ Normal(logit(median), spread²)

    As tau / dt - 1 = (1 - a) / a, this is `TimeConstantPrior(dt / median, spread)`, and a settled model says it so.

    Args:
        median: prior median of a, between 0 and 1.
        spread: standard deviation of logit(a).

    Raises:
        ValueError: if median is not between 0 and 1, or spread is not a positive number.
    """

    median: float
    spread: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "median", require_probability(self.median, "median", OF_A))
        object.__setattr__(self, "spread", require_positive(self.spread, "spread"))

    def in_seconds(self, dt: float) -> TimeConstantPrior:
        """The same prior of tau at a bin width."""
        return TimeConstantPrior(dt / self.median, self.spread)


TimeConstant = float | TimeConstantPrior
OfBins = IntegrationConstant | IntegrationConstantPrior


@dataclass(frozen=True)
class PerNeuron:
    """A time constant of its own for every neuron.

    Args:
        each: tau in seconds, a `TimeConstantPrior` that all neurons have independently of each other, or one of these
            for a = dt / tau (`IntegrationConstant`, `IntegrationConstantPrior`); or (neuron,) one for every neuron.

    Raises:
        ValueError: if one is neither, or not positive.
    """

    each: TimeConstant | OfBins | Sequence[TimeConstant | OfBins]

    def __post_init__(self) -> None:
        given: Any = self.each
        if np.ndim(np.asarray(given, dtype=object)) == 0:
            object.__setattr__(self, "each", _checked(given, "time_constant.each"))
            return
        checked = tuple(_checked(one, f"time_constant.each[{neuron}]") for neuron, one in enumerate(given))
        if not checked:
            raise argument_error("time_constant.each", "at least one", "none", "give one for all or for every neuron")
        object.__setattr__(self, "each", checked)

    @property
    def entries(self) -> tuple[TimeConstant | OfBins, ...]:
        """(neuron,) those of all neurons; a single one until a recording has settled how many there are."""
        return tuple(self.each) if isinstance(self.each, Sequence) else (self.each,)

    def settled(self, num_neurons: int) -> PerNeuron:
        """The same with an entry for every neuron of a recording.

        Raises:
            ValueError: if there are entries for another number of neurons.
        """
        if not isinstance(self.each, Sequence):
            return PerNeuron(self.entries * num_neurons)
        if len(self.each) != num_neurons:
            expected, mend = f"one for each of the {num_neurons} neurons", "or one for all, PerNeuron(0.1)"
            raise argument_error("time_constant.each", expected, f"{len(self.each)}", mend)
        return self


@dataclass(frozen=True)
class TimeConstants:
    """What is known of the time constants a priori.

    Attributes:
        entries: (population,) tau in seconds, or its prior.
        is_shared: whether there is one for all neurons; parameters then have no axis of populations.
    """

    entries: tuple[TimeConstant, ...]
    is_shared: bool

    @classmethod
    def of(cls, time_constant: Any) -> TimeConstants:
        """Those of a `LowRankModel.time_constant`.

        Raises:
            ValueError: if some are given for a = dt / tau, and no recording has settled them.
        """
        is_shared = not isinstance(time_constant, ByCellType | PerNeuron)
        entries: tuple[Any, ...] = (time_constant,) if is_shared else time_constant.entries
        if any(isinstance(entry, OfBins) for entry in entries):
            raise ValueError("time_constant: expected it in s, got a = dt / tau; settle the model with for_recording")
        return cls(entries, is_shared)

    @property
    def inferred(self) -> list[int]:
        """Populations whose time constant has a prior."""
        return [index for index, entry in enumerate(self.entries) if isinstance(entry, TimeConstantPrior)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the parameter that users see."""
        return () if self.is_shared else (len(self.entries),)

    def blocks(self, dt: float) -> list[Block]:
        """The logarithms of tau - dt that are inferred, () or (inferred,), as a block of parameters; none or one."""
        priors = [entry for entry in self.entries if isinstance(entry, TimeConstantPrior)]
        if not priors:
            return []
        shape = () if self.is_shared else (len(priors),)
        medians = np.log([prior.median - dt for prior in priors]).reshape(shape)
        spreads = np.array([prior.spread for prior in priors]).reshape(shape)
        return [Block(BLOCK, shape, medians, spreads)]

    def values(self, log_excess: Array | None, dt: Array) -> Array:
        """(population,) tau in seconds, from the parameters of `blocks`."""
        constants = jnp.asarray(self._fixed, dtype=dt.dtype)
        if log_excess is None or not self.inferred:
            return constants
        return constants.at[np.asarray(self.inferred)].set(dt + jnp.exp(jnp.reshape(log_excess, (-1,))))

    def named(self, log_excess: np.ndarray | None, dt: float, leading: tuple[int, ...]) -> np.ndarray:
        """(..., *shape) tau in seconds as users see it, with leading axes of this shape."""
        constants = np.empty((*leading, len(self.entries)))
        constants[:] = self._fixed
        if log_excess is not None:
            constants[..., self.inferred] = dt + np.exp(log_excess[..., None] if self.is_shared else log_excess)
        return constants[..., 0] if self.is_shared else constants

    def log_excess(self, constants: np.ndarray, dt: float) -> np.ndarray:
        """The inverse of `named`."""
        return np.log((constants if self.is_shared else constants[..., self.inferred]) - dt)

    @property
    def medians(self) -> list[float]:
        """(population,) tau in seconds, or its prior median."""
        return [entry.median if isinstance(entry, TimeConstantPrior) else entry for entry in self.entries]

    @property
    def _fixed(self) -> list[float]:
        """(population,) those that are numbers, and 0 in the place of others."""
        return [0.0 if isinstance(entry, TimeConstantPrior) else entry for entry in self.entries]

    def require_above(self, dt: float) -> None:
        """Refuse time constants below the bin width.

        Raises:
            ValueError: with the mend.
        """
        for entry in self.entries:
            inferred = isinstance(entry, TimeConstantPrior)
            shortest = entry.median if isinstance(entry, TimeConstantPrior) else entry
            if shortest < dt or (inferred and shortest == dt):
                raise ValueError(
                    f"time_constant: expected {'a prior median above' if inferred else 'at least'} the bin width "
                    f"dt = {dt:g} s, got {shortest:g} s; below it the discrete dynamics overshoot. "
                    "Use finer bins or a longer time constant (both are in seconds)"
                )


def in_seconds(constant: Any, dt: float) -> Any:
    """A `LowRankModel.time_constant` with what is given for a = dt / tau as tau, in s."""
    if isinstance(constant, ByCellType):
        return dataclasses.replace(constant, entries=tuple(in_seconds(entry, dt) for entry in constant.entries))
    if isinstance(constant, PerNeuron):
        each: Any = constant.each
        return PerNeuron(
            tuple(in_seconds(entry, dt) for entry in each) if isinstance(each, tuple) else in_seconds(each, dt)
        )
    return constant.in_seconds(dt) if isinstance(constant, OfBins) else constant


def checked_time_constant(constant: Any) -> TimeConstant | OfBins | ByCellType[TimeConstant | OfBins] | PerNeuron:
    """A time constant, or those of the cell types or neurons in a form that can be hashed.

    Raises:
        ValueError: if it is none of these, or not positive.
    """
    if isinstance(constant, ByCellType | PerNeuron):
        return constant
    if not isinstance(constant, Mapping):
        return _checked(constant, "time_constant")
    if not constant or not all(isinstance(cell_type, str) for cell_type in constant):
        raise argument_error("time_constant", "names of cell types", f"the keys {list(constant)}", "name each type")
    entries = tuple(_checked(value, f"time_constant[{key!r}]") for key, value in constant.items())
    return ByCellType(tuple(constant), entries)


def _checked(value: Any, name: str) -> TimeConstant | OfBins:
    return value if isinstance(value, TimeConstantPrior | OfBins) else require_positive(value, name)
