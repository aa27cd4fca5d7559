"""Neurons of known types that nobody recorded, each with loadings of its own: columns of a recording, all masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lrposterior.checks import argument_error, require_instance, require_integer
from lrposterior.recording import Recording


def add_hidden_neurons(recording: Recording, numbers: Mapping[str, int]) -> Recording:
    """A recording of the whole circuit, in which neurons that nobody recorded are masked in every bin.

    They come after the recorded ones, whose W is therefore the first block of W of a fit. N counts all of them. Where
    neurons have labels, theirs are "hidden E 1" and so on. No stimulation reaches them.

    This is for models with `DaleLoadings`, in which a type says what a neuron may do; others have `hidden_neurons`.

    Args:
        recording: what was recorded, with cell types.
        numbers: how many neurons of each type were not recorded: {"E": 8}.

    Raises:
        ValueError: without cell types, or if a number or a type is not as expected.
    """
    require_instance(recording, "recording", Recording, "make it with Recording(activity, dt)")
    if recording.cell_types is None:
        mend = "give cell_types to the Recording, one per neuron"
        raise argument_error("recording", "one with cell_types", "one without", mend)
    hidden = _types_of_hidden(numbers, sorted(set(recording.cell_types)))
    labels = recording.neuron_labels
    if labels is not None:
        labels = (
            *labels,
            *(f"hidden {name} {place}" for name, size in numbers.items() for place in range(1, size + 1)),
        )

    def widened(array: np.ndarray) -> np.ndarray:
        """(trial, time, neuron) with zeros (False) for the hidden neurons."""
        return np.pad(array, ((0, 0), (0, 0), (0, len(hidden))))

    return Recording(
        widened(recording.activity),
        recording.dt,
        recording.inputs,
        None if recording.stimulation is None else widened(recording.stimulation),
        widened(recording.mask),
        labels,
        (*recording.cell_types, *hidden),
        recording.trial_labels,
        recording.session_labels,
    )


def _types_of_hidden(numbers: Any, known: list[str]) -> list[str]:
    """(hidden neuron,) the type of each."""
    require_instance(numbers, "numbers", Mapping, "for example {'E': 8}")
    hidden: list[str] = []
    for name, number in numbers.items():
        if name not in known:
            mend = "name types of the recorded neurons"
            raise argument_error("numbers", f"some of the cell types {known}", repr(name), mend)
        hidden += [name] * require_integer(number, f"numbers[{name!r}]", minimum=0)
    return hidden
