"""Inputs embedded in more features: what a circuit may receive of them beyond a linear map of their current values."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TypeVar, cast

import numpy as np
from jax import Array

from lrposterior.checks import (
    argument_error,
    as_array,
    read_only,
    require_finite,
    require_instance,
    require_integer,
)
from lrposterior.recording import Recording

AnyArray = TypeVar("AnyArray", np.ndarray, Array)


@dataclass(frozen=True)
class RandomEmbedding:
    """A fixed random layer of rectified units, in place of the inputs.

        feature[t] = max(0, P u[t] / sqrt(number of inputs)),      P_kj ~ Normal(0, 1)

    Args:
        width: number of features.
        seed: of P: the same seed gives the same features in every recording with as many inputs.

    Raises:
        ValueError: if width or seed is out of its range.
    """

    width: int
    seed: int = field(kw_only=True)

    def __post_init__(self) -> None:
        require_integer(self.width, "embedding.width", minimum=1)
        require_integer(self.seed, "embedding.seed")

    def projection(self, num_inputs: int) -> np.ndarray:
        """(input, feature) P^T."""
        return np.random.default_rng(self.seed).standard_normal((num_inputs, self.width))

    def features(self, inputs: np.ndarray) -> np.ndarray:
        """(trial, time, feature) of inputs (trial, time, input)."""
        return rectified(inputs, self.projection(inputs.shape[2]))


@dataclass(frozen=True, eq=False)
class LearnedEmbedding:
    """A fixed layer of rectified units with given weights, such as those that `learn_embedding` found.

        feature[t] = max(0, u[t] P / sqrt(number of inputs))

    Args:
        projection: (input, feature) P, read-only.

    Raises:
        ValueError: if it is no matrix of finite numbers.
    """

    projection: np.ndarray

    def __post_init__(self) -> None:
        projection = as_array(self.projection, "embedding.projection", ("input", "feature"))
        require_finite(projection, "embedding.projection")
        object.__setattr__(self, "projection", read_only(projection))

    def features(self, inputs: np.ndarray) -> np.ndarray:
        """(trial, time, feature) of inputs (trial, time, input)."""
        return rectified(inputs, self.projection)


def rectified(inputs: AnyArray, projection: AnyArray) -> AnyArray:
    """(trial, time, feature) max(0, u P / sqrt(number of inputs)), of arrays of NumPy or of JAX."""
    return cast(AnyArray, (inputs @ projection / math.sqrt(inputs.shape[2])).clip(min=0.0))


@dataclass(frozen=True)
class LaggedInputs:
    """The inputs, and after them those of 1, 2, ..., lags bins before.

        feature[t] = (u[t], u[t-1], ..., u[t-lags]),      u[t] = 0 before the trial

    Args:
        lags: how many bins back.

    Raises:
        ValueError: if it is no positive integer.
    """

    lags: int

    def __post_init__(self) -> None:
        require_integer(self.lags, "embedding.lags", minimum=1)

    def features(self, inputs: np.ndarray) -> np.ndarray:
        """(trial, time, feature) of inputs (trial, time, input)."""
        num_bins = inputs.shape[1]
        before = [np.pad(inputs, ((0, 0), (lag, 0), (0, 0)))[:, :num_bins] for lag in range(1, self.lags + 1)]
        return np.concatenate([inputs, *before], axis=2)


@dataclass(frozen=True)
class PolynomialInputs:
    """The inputs, and after them their squares and products, each pair once.

    feature[t] = (u_j[t] for all j, u_j[t] u_k[t] for all j <= k)
    """

    def features(self, inputs: np.ndarray) -> np.ndarray:
        """(trial, time, feature) of inputs (trial, time, input)."""
        first, second = np.triu_indices(inputs.shape[2])
        return np.concatenate([inputs, inputs[:, :, first] * inputs[:, :, second]], axis=2)


InputEmbedding = RandomEmbedding | LearnedEmbedding | LaggedInputs | PolynomialInputs


def require_embedding(embedding: object) -> None:
    """Check that an object is an embedding that embeds.

    Raises:
        ValueError: if it is another one, or one that is still to be learned.
    """
    if not isinstance(embedding, InputEmbedding):
        expected = "RandomEmbedding, LearnedEmbedding, LaggedInputs or PolynomialInputs"
        raise argument_error("embedding", expected, type(embedding).__name__, "for example LaggedInputs(lags=2)")


def embed_inputs(recording: Recording, embedding: InputEmbedding) -> Recording:
    """The recording with features of its inputs in their place.

    Input weights B are then those of the features. Trials that a fit of the result is to simulate or predict need the
    same embedding.

    Args:
        recording: with at least one input.
        embedding: `RandomEmbedding`, `LearnedEmbedding`, `LaggedInputs` or `PolynomialInputs`.

    Raises:
        ValueError: if the recording has no inputs, or others than were learned, or the embedding is none of these.
    """
    require_instance(recording, "recording", Recording)
    require_embedding(embedding)
    if not recording.num_inputs:
        raise argument_error("recording", "at least one input to embed", "none", "give the recording its inputs")
    if isinstance(embedding, LearnedEmbedding) and recording.num_inputs != len(embedding.projection):
        expected, got = f"the {len(embedding.projection)} inputs of the embedding", f"{recording.num_inputs}"
        raise argument_error("recording", expected, got, "give the inputs that it was learned on, not yet embedded")
    return dataclasses.replace(recording, inputs=embedding.features(recording.inputs))
