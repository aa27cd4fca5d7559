"""Quantities that all neurons of one cell type share: one value for every type."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, TypeVar

import numpy as np

from lrposterior.checks import argument_error

Value = TypeVar("Value", covariant=True)


@dataclass(frozen=True)
class ByCellType(Mapping[str, Value]):
    """A value for every cell type: a mapping that can be hashed.

    Attributes:
        cell_types: names of the types.
        entries: (type,) the values.
        members: (neuron,) place of every neuron's type in `cell_types`; empty until a recording has settled it.
    """

    cell_types: tuple[str, ...]
    entries: tuple[Value, ...]
    members: tuple[int, ...] = field(default=(), repr=False)

    def __getitem__(self, cell_type: str) -> Value:
        return dict(zip(self.cell_types, self.entries, strict=True))[cell_type]

    def __iter__(self) -> Iterator[str]:
        return iter(self.cell_types)

    def __len__(self) -> int:
        return len(self.cell_types)

    @property
    def of_neurons(self) -> np.ndarray:
        """(neuron,) the value of every neuron's type, of settled ones."""
        return np.array(self.entries)[np.asarray(self.members)]

    def settled(self, name: str, cell_types: Sequence[str] | None, num_neurons: int) -> Self:
        """The same, knowing the type of every neuron of a recording. What is settled stays as it is.

        Args:
            name: name of the argument, for errors.
            cell_types: (neuron,) those of the recording, or None.
            num_neurons: the recording's.

        Raises:
            ValueError: if the recording has no cell types, or other ones than these.
        """
        if self.members:
            if len(self.members) != num_neurons:
                raise argument_error(
                    name, f"cell types of {len(self.members)} neurons", f"a recording of {num_neurons}", "fit it anew"
                )
            return self
        if cell_types is None:
            raise argument_error(
                name, "a recording with cell_types", "one without", "give cell_types to the Recording, one per neuron"
            )
        missing, unknown = sorted(set(cell_types) - set(self)), sorted(set(self) - set(cell_types))
        if missing or unknown:
            got = f"none for {missing}" if missing else f"one for {unknown}, of which the recording has no neuron"
            raise argument_error(
                name, f"a value for each of the cell types {sorted(set(cell_types))}", got, "name each type once"
            )
        place = {cell_type: index for index, cell_type in enumerate(self.cell_types)}
        return dataclasses.replace(self, members=tuple(place[each] for each in cell_types))
