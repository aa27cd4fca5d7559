"""Distributions as named arrays with named axes, as a file holds them, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from lrposterior.distribution import (
    MixtureDistribution,
    NormalDistribution,
    ParameterDistribution,
    SampleDistribution,
    StructuredDistribution,
)
from lrposterior.structured.information import StructuredInformation
from lrposterior.structured.layout import Layout

Axes = Mapping[str, tuple[str, ...]]

DISTRIBUTIONS: dict[str, type] = {
    "NormalDistribution": NormalDistribution,
    "MixtureDistribution": MixtureDistribution,
    "SampleDistribution": SampleDistribution,
    "StructuredDistribution": StructuredDistribution,
}

# The whitened coordinates of the package are the axis `coordinate`; `place` is a coordinate of the engine.
DISTRIBUTION_AXES: dict[str, Axes] = {
    "NormalDistribution": {"location": ("coordinate",), "scale": ("coordinate", "column")},
    "SampleDistribution": {"draws": ("chain", "draw", "coordinate")},
    "MixtureDistribution": {
        "weights": ("component",),
        "location": ("component", "coordinate"),
        "scale": ("coordinate", "column"),
        "num_columns": ("component",),
    },
    "StructuredDistribution": {
        "location": ("coordinate",),
        "places": ("dynamics_coordinate",),
        "unit": ("place",),
        "deviations": ("component", "place"),
        "shifts": ("component", "place"),
        "noise": ("neuron",),
        "blocks": ("neuron", "loading", "other_loading"),
        "factor": ("place", "part"),
        "weights": ("part",),
        "vertical": ("place", "direction"),
        "num_neurons": (),
        "rank": (),
        "num_seen": (),
        "num_inputs": (),
        "correlated": (),
        "num_initial": (),
    },
}


def distribution_arrays(distribution: ParameterDistribution) -> dict[str, Any]:
    """Arrays and numbers by name, with the axes `DISTRIBUTION_AXES`."""
    if isinstance(distribution, MixtureDistribution):
        components = distribution.components
        return {
            "weights": distribution.weights,
            "location": np.stack([component.location for component in components]),
            "scale": np.concatenate([component.scale for component in components], axis=1),
            "num_columns": np.array([component.scale.shape[1] for component in components]),
        }
    arrays = fields_of(distribution)
    if isinstance(distribution, StructuredDistribution):
        arrays |= fields_of(arrays.pop("information"))
        arrays |= fields_of(arrays.pop("layout"))
    return arrays


def distribution_of(kind: type, arrays: Mapping[str, Any]) -> ParameterDistribution:
    """The inverse of `distribution_arrays` for a distribution of this kind."""
    if kind is StructuredDistribution:
        layout = Layout(**_fields_from(Layout, arrays))
        information = StructuredInformation(**_fields_from(StructuredInformation, arrays), layout=layout)
        return StructuredDistribution(**_fields_from(StructuredDistribution, arrays), information=information)
    if kind is MixtureDistribution:
        scales = np.split(arrays["scale"], np.cumsum(arrays["num_columns"])[:-1], axis=1)
        components = (NormalDistribution(*each) for each in zip(arrays["location"], scales, strict=True))
        return MixtureDistribution(arrays["weights"], tuple(components))
    return kind(**arrays)


def fields_of(instance: Any) -> dict[str, Any]:
    """The fields of a dataclass by name."""
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}


def _fields_from(kind: type, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arrays that are fields of a dataclass."""
    return {field.name: arrays[field.name] for field in dataclasses.fields(kind) if field.name in arrays}
