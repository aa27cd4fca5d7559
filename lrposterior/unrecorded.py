"""Neurons of known types that nobody recorded, each with loadings of its own: columns of a recording, all masked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from lrposterior.checks import argument_error, require_instance, require_integer
from lrposterior.recording import Recording


def add_hidden_neurons(
    recording: Recording, numbers: Mapping[str, int] | None = None, *, ratio: Mapping[str, int] | None = None
) -> Recording:
    """A recording of the whole circuit, in which neurons that nobody recorded are masked in every bin.

    They come after the recorded ones, whose W is therefore the first block of W of a fit. N counts all of them. Where
    neurons have labels, theirs are "hidden E 1" and so on. No stimulation reaches them.

    This is for models with `DaleLoadings`, in which a type says what a neuron may do; others have `hidden_neurons`.

    Args:
        recording: what was recorded, with cell types.
        numbers: how many neurons of each type were not recorded: {"E": 8}.
        ratio: instead, the ratio of the types in the circuit: {"E": 4, "I": 1}. The fewest neurons are added with which
            these types are in exactly this ratio; types that it does not name stay as they are.

    Raises:
        ValueError: without cell types, with both numbers and a ratio or neither, or if a number or a type is not as
            expected.
    """
    require_instance(recording, "recording", Recording, "make it with Recording(activity, dt)")
    if recording.cell_types is None:
        mend = "give cell_types to the Recording, one per neuron"
        raise argument_error("recording", "one with cell_types", "one without", mend)
    recorded = Counter(recording.cell_types)
    if (numbers is None) == (ratio is None):
        mend = "give numbers={'E': 8}, or ratio={'E': 4, 'I': 1}"
        raise argument_error("numbers", "numbers, or a ratio", "neither" if numbers is None else "both", mend)
    if numbers is None:
        numbers = _numbers_for(ratio, recorded)
    hidden = _types_of_hidden(numbers, sorted(recorded))
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


def _numbers_for(ratio: Any, recorded: Counter[str]) -> dict[str, int]:
    """How many of each type bring the recorded ones to the ratio: the smallest multiple of it that holds them all."""
    require_instance(ratio, "ratio", Mapping, "for example {'E': 4, 'I': 1}")
    parts = {name: require_integer(part, f"ratio[{name!r}]", minimum=1) for name, part in ratio.items()}
    _require_known(parts, "ratio", sorted(recorded))
    if len(parts) < 2:
        raise argument_error("ratio", "two cell types at least", f"{list(parts)}", "for example {'E': 4, 'I': 1}")
    divisor = math.gcd(*parts.values())
    parts = {name: part // divisor for name, part in parts.items()}
    multiple = max(-(-recorded[name] // part) for name, part in parts.items())
    return {name: multiple * part - recorded[name] for name, part in parts.items()}


def _require_known(named: Mapping[str, Any], argument: str, known: list[str]) -> None:
    for name in named:
        if name not in known:
            mend = "name types of the recorded neurons"
            raise argument_error(argument, f"some of the cell types {known}", repr(name), mend)


def _types_of_hidden(numbers: Any, known: list[str]) -> list[str]:
    """(hidden neuron,) the type of each."""
    require_instance(numbers, "numbers", Mapping, "for example {'E': 8}")
    _require_known(numbers, "numbers", known)
    hidden: list[str] = []
    for name, number in numbers.items():
        hidden += [name] * require_integer(number, f"numbers[{name!r}]", minimum=0)
    return hidden
