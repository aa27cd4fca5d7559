"""Distributions of whitened parameters: what a fitting method leaves behind, and all that later steps know of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrposterior.checks import argument_error, read_only, require_integer


@dataclass(frozen=True, eq=False)
class NormalDistribution:
    """z ~ Normal(location, scale scale^T).

    Attributes:
        location: (coordinate,) mean.
        scale: (coordinate, column) any square root of the covariance. For a Laplace posterior its columns are
            horizontal: nothing varies along the gauge.
    """

    location: np.ndarray
    scale: np.ndarray

    def __post_init__(self) -> None:
        # One memory layout: products, and so draws, are then the same to the bit after a round trip through a file.
        object.__setattr__(self, "location", read_only(self.location))
        object.__setattr__(self, "scale", read_only(self.scale))

    def sample(self, num_draws: int, *, seed: int) -> np.ndarray:
        """(draw, coordinate) independent draws."""
        require_integer(num_draws, "num_draws", minimum=1)
        require_integer(seed, "seed")
        noise = np.random.default_rng(seed).standard_normal((num_draws, self.scale.shape[1]))
        return self.location + noise @ self.scale.T


@dataclass(frozen=True, eq=False)
class MixtureDistribution:
    """A mixture of Normal distributions.

    Attributes:
        weights: (component,) probabilities.
        components: the Normal distributions.
    """

    weights: np.ndarray
    components: tuple[NormalDistribution, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", read_only(self.weights))

    @property
    def location(self) -> np.ndarray:
        """(coordinate,) mean."""
        return self.weights @ np.stack([each.location for each in self.components])

    def sample(self, num_draws: int, *, seed: int) -> np.ndarray:
        """(draw, coordinate) independent draws."""
        require_integer(num_draws, "num_draws", minimum=1)
        require_integer(seed, "seed")
        random = np.random.default_rng(seed)
        chosen = random.choice(len(self.weights), num_draws, p=self.weights)
        draws = np.empty((num_draws, len(self.components[0].location)))
        for index, component in enumerate(self.components):
            rows = np.flatnonzero(chosen == index)
            noise = random.standard_normal((len(rows), component.scale.shape[1]))
            draws[rows] = component.location + noise @ component.scale.T
        return draws


@dataclass(frozen=True, eq=False)
class SampleDistribution:
    """Stored draws of a Markov chain.

    Attributes:
        draws: (chain, draw, coordinate).
    """

    draws: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "draws", read_only(self.draws))

    @property
    def location(self) -> np.ndarray:
        """(coordinate,) mean. M and K of different draws are in different gauges: never average W through it."""
        return self.draws.mean(axis=(0, 1))

    def sample(self, num_draws: int, *, seed: int) -> np.ndarray:
        """(draw, coordinate) a random subset of the stored draws, without replacement."""
        flat = self.draws.reshape(-1, self.draws.shape[2])
        require_integer(num_draws, "num_draws", minimum=1)
        require_integer(seed, "seed")
        if num_draws > len(flat):
            raise argument_error(
                "num_draws",
                f"at most the {len(flat)} draws that were sampled",
                str(num_draws),
                "ask for fewer, or fit again with more draws",
            )
        return flat[np.sort(np.random.default_rng(seed).choice(len(flat), num_draws, replace=False))]


ParameterDistribution = NormalDistribution | MixtureDistribution | SampleDistribution
