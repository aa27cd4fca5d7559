"""Several recordings as one: trials with stimulation after trials without, or sessions that saw different neurons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lrposterior.checks import argument_error, as_labels, require_instance
from lrposterior.recording import Recording

UNLABELLED = "unlabelled"

Labels = tuple[str, ...] | None


def combine_recordings(*recordings: Recording, sessions: Sequence[str] | None = None) -> Recording:
    """The trials of several recordings of one network, one after the other.

    *Neurons.* Where all have the same neurons, they stay as they are. Else the labels say which is which: the result
    has every neuron of any recording, in the order in which they first appear, and one that a recording did not have
    is masked in its trials. A label stands for one neuron, so that sessions which number their neurons anew need labels
    that hold the session ("monday 3").

    *Length.* Shorter trials are filled up at their end with bins that are masked, whose activity and inputs are 0, as
    `Recording.from_trials` does. `Recording.summary` says which part of the entries is observed.

    Where one has stimulation, the trials of those without have a stimulation of 0. Where one has labels of trials or of
    sessions, the trials of those without are called "unlabelled". Types of the neurons are taken from the recordings
    that have them.

    Args:
        *recordings: in the order that their trials will have.
        sessions: one name for every recording, which its trials get as their session, in place of what they had.

    Raises:
        ValueError: without any recording or with another number of sessions, where bin widths or the number of inputs
            differ, where neurons differ and have no labels, or where a neuron has two types, or none while others have
            one.
    """
    if not recordings:
        raise argument_error("recordings", "one Recording or more", "none", "name those to combine")
    for place, each in enumerate(recordings):
        require_instance(each, f"recordings[{place}]", Recording, "make it with Recording(activity, dt)")
        _require_alike(recordings[0], each, f"recordings[{place}]")
    labels = _neuron_labels(recordings)
    columns = [_columns(each, labels) for each in recordings]
    num_neurons = recordings[0].num_neurons if labels is None else len(labels)
    num_bins = max(each.num_bins for each in recordings)

    def joined(parts: Sequence[np.ndarray], num_columns: int, places: Sequence[np.ndarray]) -> np.ndarray:
        """Arrays (trial, time, column) one after the other, 0 (False) where a recording has no bin or no column."""
        whole = np.zeros((sum(map(len, parts)), num_bins, num_columns), dtype=parts[0].dtype)
        stops = np.cumsum([len(part) for part in parts])
        for part, stop, place in zip(parts, stops, places, strict=True):
            whole[stop - len(part) : stop, : part.shape[1], place] = part
        return whole

    stimulation = None
    if any(each.stimulation is not None for each in recordings):
        parts = [np.zeros(each.activity.shape) if each.stimulation is None else each.stimulation for each in recordings]
        stimulation = joined(parts, num_neurons, columns)
    num_inputs = recordings[0].num_inputs
    return Recording(
        joined([each.activity for each in recordings], num_neurons, columns),
        recordings[0].dt,
        joined([each.inputs for each in recordings], num_inputs, [np.arange(num_inputs)] * len(recordings)),
        stimulation,
        joined([each.mask for each in recordings], num_neurons, columns),
        labels,
        _cell_types(recordings, columns, labels or tuple(map(str, range(num_neurons)))),
        _labels_of_trials([each.trial_labels for each in recordings], recordings),
        _labels_of_trials(_sessions(recordings, sessions), recordings),
    )


def _require_alike(first: Recording, other: Recording, name: str) -> None:
    if not np.isclose(first.dt, other.dt, rtol=1e-9, atol=0.0):
        mend = "bring all to one bin width"
        raise argument_error(f"{name}.dt", f"{first.dt:g} s, as in the first", f"{other.dt:g} s", mend)
    if first.num_inputs != other.num_inputs:
        mend = "give every trial all inputs, 0 where one was not there"
        raise argument_error(name, f"{first.num_inputs} inputs, as the first has", f"{other.num_inputs}", mend)


def _neuron_labels(recordings: Sequence[Recording]) -> tuple[str, ...] | None:
    """Labels of all neurons, in the order in which they first appear; None where the same neurons have none."""
    known = {each.neuron_labels for each in recordings if each.neuron_labels is not None}
    sizes = {each.num_neurons for each in recordings}
    if len(known) < 2 and len(sizes) == 1:
        return known.pop() if known else None
    names: dict[str, None] = {}
    for place, each in enumerate(recordings):
        if each.neuron_labels is None:
            mend = "name them with dataclasses.replace(recording, neuron_labels=...), or choose the same with select"
            expected = "labels that tell which neurons are the same, as they differ between recordings"
            raise argument_error(f"recordings[{place}].neuron_labels", expected, "None", mend)
        names |= dict.fromkeys(each.neuron_labels)
    return tuple(names)


def _columns(recording: Recording, labels: tuple[str, ...] | None) -> np.ndarray:
    """(neuron,) where the neurons of a recording stand among all."""
    if labels is None or recording.neuron_labels is None:
        return np.arange(recording.num_neurons)
    place = {label: index for index, label in enumerate(labels)}
    return np.array([place[label] for label in recording.neuron_labels])


def _cell_types(
    recordings: Sequence[Recording], columns: Sequence[np.ndarray], names: tuple[str, ...]
) -> tuple[str, ...] | None:
    """(neuron,) what the recordings that have types say of the neurons."""
    known: dict[int, str] = {}
    for place, (each, own) in enumerate(zip(recordings, columns, strict=True)):
        if each.cell_types is None:
            continue
        for neuron, found in zip(own.tolist(), each.cell_types, strict=True):
            if known.setdefault(neuron, found) != found:
                expected = f"{known[neuron]!r} for neuron {names[neuron]}, as before"
                mend = "give a neuron one type in all of them"
                raise argument_error(f"recordings[{place}].cell_types", expected, repr(found), mend)
    untyped = [name for neuron, name in enumerate(names) if neuron not in known]
    if known and untyped:
        mend = "give cell_types in every recording, or in none"
        raise argument_error("cell_types", "a type for every neuron", f"none for neuron {untyped[0]}", mend)
    return tuple(known[neuron] for neuron in range(len(names))) if known else None


def _sessions(recordings: Sequence[Recording], names: Sequence[str] | None) -> list[Labels]:
    if names is None:
        return [each.session_labels for each in recordings]
    named = as_labels(names, "sessions", "recording", len(recordings))
    return [(name,) * each.num_trials for name, each in zip(named, recordings, strict=True)]


def _labels_of_trials(labels: Sequence[Labels], recordings: Sequence[Recording]) -> Labels:
    if all(each is None for each in labels):
        return None
    filled = (own or (UNLABELLED,) * each.num_trials for own, each in zip(labels, recordings, strict=True))
    return tuple(label for own in filled for label in own)
