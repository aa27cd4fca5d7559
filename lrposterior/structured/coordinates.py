"""Between the whitened coordinates of the package and the vectors of the engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrposterior.parameters import ParameterSpace
from lrposterior.structured.layout import Layout

COLUMNS = {"M": "M", "A": "A", "B": "B", "b": "b", "K": "E"}


@dataclass(frozen=True, eq=False)
class Coordinates:
    """A permutation and a scale.

    Attributes:
        places: (dynamics coordinate,) where a whitened coordinate lies in the engine's vector.
        deviations: (coordinate of the engine,) prior standard deviations.
    """

    places: np.ndarray
    deviations: np.ndarray

    @classmethod
    def of(cls, layout: Layout, space: ParameterSpace) -> Coordinates:
        index = np.arange(layout.num_coordinates)
        rows, coefficients = layout.rows(index), None
        places, deviations = [], np.empty(layout.num_coordinates)
        regressor = 0
        if layout.correlated:
            coefficients = layout.coefficients(index)
        for block in space.blocks:
            if block.name in COLUMNS:
                place = rows[:, layout.columns[COLUMNS[block.name]]]
            elif block.name == "initial_kappa":
                place = layout.initial_latents(index)
            elif block.name.startswith("K_on_") and coefficients is not None:
                place = coefficients[:, regressor : regressor + block.shape[1]]
                regressor += block.shape[1]
            else:
                continue
            places.append(place.ravel())
            deviations[places[-1]] = block.standard_deviation
        return cls(np.concatenate(places), deviations)

    def vector(self, z: np.ndarray) -> np.ndarray:
        """The engine's vector of whitened coordinates, with or without those of the noise."""
        return self.unscaled(z[: self.places.size])

    def unscaled(self, columns: np.ndarray) -> np.ndarray:
        """Changes of the engine's vector from changes (dynamics coordinate, ...) of z."""
        moved = np.empty_like(columns)
        moved[self.places] = columns
        return moved * self.deviations.reshape(-1, *[1] * (columns.ndim - 1))

    def whitened(self, vector: np.ndarray) -> np.ndarray:
        """(dynamics coordinate, ...) from (coordinate of the engine, ...)."""
        return (vector / self.deviations.reshape(-1, *[1] * (vector.ndim - 1)))[self.places]

    def pulled(self, slope: np.ndarray) -> np.ndarray:
        """Derivatives by the whitened coordinates from those by the engine's."""
        return (slope * self.deviations)[self.places]

    def covector(self, slope: np.ndarray) -> np.ndarray:
        """The inverse of `pulled`."""
        moved = np.empty_like(slope)
        moved[self.places] = slope
        return moved / self.deviations
