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
class SampleDistribution:
    """Stored draws of a Markov chain, or draws resampled by importance weights.

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


@dataclass(frozen=True, eq=False)
class MixtureDistribution:
    """Several Normal distributions, each with a weight: separate modes, or one fit under several hyperparameters.

    Attributes:
        weights: (component,) probabilities; they are divided by their sum.
        components: the Normal distributions, each in a gauge of its own.

    Raises:
        ValueError: if there is not one positive weight for each of one or more components.
    """

    weights: np.ndarray
    components: tuple[NormalDistribution, ...]

    def __post_init__(self) -> None:
        weights = np.asarray(self.weights, dtype=np.float64)
        if weights.shape != (len(self.components),) or not weights.size:
            raise argument_error(
                "weights",
                f"one number for each of {len(self.components)} components",
                f"the shape {weights.shape}",
                "give as many weights as components, and at least one",
            )
        if not (np.all(np.isfinite(weights)) and np.all(weights > 0.0)):
            raise argument_error("weights", "positive numbers", f"{weights}", "leave components without weight out")
        # What is normalised stays as it is to the bit, so that a file gives back the same draws.
        total = weights.sum()
        object.__setattr__(self, "weights", read_only(weights if abs(total - 1.0) < 1e-12 else weights / total))

    @property
    def location(self) -> np.ndarray:
        """(coordinate,) that of the heaviest component: components lie in different gauges and have no mean."""
        return self.components[int(np.argmax(self.weights))].location

    def sample(self, num_draws: int, *, seed: int) -> np.ndarray:
        """(draw, coordinate) independent draws; every draw has chosen its component by itself."""
        require_integer(num_draws, "num_draws", minimum=1)
        require_integer(seed, "seed")
        random = np.random.default_rng(seed)
        chosen = random.choice(len(self.components), num_draws, p=self.weights)
        draws = np.empty((num_draws, len(self.location)))
        for index, component in enumerate(self.components):
            rows = chosen == index
            noise = random.standard_normal((int(rows.sum()), component.scale.shape[1]))
            draws[rows] = component.location + noise @ component.scale.T
        return draws


ParameterDistribution = NormalDistribution | SampleDistribution | MixtureDistribution
