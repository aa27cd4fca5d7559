"""Distributions of whitened parameters: what a fitting method leaves behind, and all that later steps know of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lrposterior.checks import argument_error, read_only, require_integer
from lrposterior.structured.information import StructuredInformation, StructuredPosterior

# Draws of a structured posterior that are made together.
DRAWS_AT_ONCE = 64


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


@dataclass(frozen=True, eq=False)
class StructuredDistribution:
    """A mixture of Normal distributions that differ in the prior scales alone, of any size.

    All share the information of the recording, a block for every neuron and a part of low rank
    (`lrposterior.structured`); the covariance under each prior follows from it when it is needed.

    Attributes:
        location: (coordinate,) the mean at the most probable prior scales.
        information: in the engine's coordinates.
        places: (dynamics coordinate,) where a whitened coordinate lies among the engine's.
        unit: (coordinate of the engine,) prior standard deviations, in which location is whitened.
        deviations: (component, coordinate of the engine) those of every component.
        shifts: (component, coordinate of the engine) from there to the mean of every component.
        noise: (neuron,) standard deviations of the whitened log noise scales.
    """

    location: np.ndarray
    information: StructuredInformation
    places: np.ndarray
    unit: np.ndarray
    deviations: np.ndarray
    shifts: np.ndarray
    noise: np.ndarray

    def __post_init__(self) -> None:
        for name in ("location", "unit", "deviations", "shifts", "noise"):
            object.__setattr__(self, name, read_only(getattr(self, name)))
        object.__setattr__(self, "places", read_only(self.places, np.int64))
        arrays = {
            name: read_only(getattr(self.information, name)) for name in ("blocks", "factor", "weights", "vertical")
        }
        object.__setattr__(self, "information", dataclasses.replace(self.information, **arrays))

    @property
    def num_components(self) -> int:
        return len(self.deviations)

    def covariance(self, component: int) -> StructuredPosterior:
        """Covariance of a component around its mean."""
        return self.information.posterior(self.deviations[component])

    def typical_covariance(self) -> StructuredPosterior:
        """One covariance for all components: that at the root mean square of their prior standard deviations."""
        return self.information.posterior(np.sqrt(np.mean(self.deviations**2, axis=0)))

    def vector(self) -> np.ndarray:
        """The mean at the most probable prior scales, in the engine's coordinates."""
        moved = np.empty(self.places.size)
        moved[self.places] = self.location[: self.places.size]
        return moved * self.unit

    def sample(self, num_draws: int, *, seed: int) -> np.ndarray:
        """(draw, coordinate) independent draws; every draw has chosen its component by itself."""
        require_integer(num_draws, "num_draws", minimum=1)
        require_integer(seed, "seed")
        random = np.random.default_rng(seed)
        chosen = random.integers(self.num_components, size=num_draws)
        draws = np.tile(self.location, (num_draws, 1))
        for component in np.unique(chosen):
            covariance, of_component = self.covariance(component), np.flatnonzero(chosen == component)
            for start in range(0, len(of_component), DRAWS_AT_ONCE):
                rows = of_component[start : start + DRAWS_AT_ONCE]
                white = random.standard_normal((self.places.size, len(rows)))
                changes = covariance.color(white) + self.shifts[component][:, None]
                draws[rows, : self.places.size] += self._whitened(changes).T
        draws[:, self.places.size :] += self.noise * random.standard_normal((num_draws, self.noise.size))
        return draws

    def normal(self, component: int) -> NormalDistribution:
        """A component as a dense Normal distribution."""
        size = self.places.size
        scale = np.zeros((self.location.size, self.location.size))
        scale[:size, :size] = self._whitened(self.covariance(component).color(np.eye(size)))
        noise = np.arange(size, self.location.size)
        scale[noise, noise] = self.noise
        location = self.location.copy()
        location[:size] += self._whitened(self.shifts[component])
        return NormalDistribution(location, scale)

    def _whitened(self, changes: np.ndarray) -> np.ndarray:
        return (changes.T / self.unit).T[self.places]


ParameterDistribution = NormalDistribution | SampleDistribution | MixtureDistribution | StructuredDistribution


def normals(distribution: ParameterDistribution) -> Iterator[tuple[float, NormalDistribution]]:
    """The Normal distributions that one is made of, with their weights; none for draws of a Markov chain."""
    if isinstance(distribution, NormalDistribution):
        yield 1.0, distribution
    if isinstance(distribution, MixtureDistribution):
        yield from zip(distribution.weights.tolist(), distribution.components, strict=True)
    if isinstance(distribution, StructuredDistribution):
        for component in range(distribution.num_components):
            yield 1.0 / distribution.num_components, distribution.normal(component)
