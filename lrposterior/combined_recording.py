"""Several recordings of the same neurons as one, for instance trials with stimulation after trials without."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lrposterior.checks import argument_error, require_instance
from lrposterior.recording import Recording

UNLABELLED = "unlabelled"


def combine_recordings(*recordings: Recording) -> Recording:
    """The trials of several recordings of the same neurons, one after the other.

    Where one has stimulation, the trials of those without have a stimulation of 0. Where one has trial labels, the
    trials of those without are called "unlabelled". Labels and types of the neurons are taken from the recordings that
    have them.

    Args:
        *recordings: in the order that their trials will have.

    Raises:
        ValueError: without any recording, or where bin widths, lengths of a trial, inputs, or number, labels or types
            of the neurons differ.
    """
    if not recordings:
        raise argument_error("recordings", "one Recording or more", "none", "name those to combine")
    for place, each in enumerate(recordings):
        require_instance(each, f"recordings[{place}]", Recording, "make it with Recording(activity, dt)")
        _require_alike(recordings[0], each, f"recordings[{place}]")
    stimulation = None
    if any(each.stimulation is not None for each in recordings):
        parts = [np.zeros(each.activity.shape) if each.stimulation is None else each.stimulation for each in recordings]
        stimulation = np.concatenate(parts)
    return Recording(
        np.concatenate([each.activity for each in recordings]),
        recordings[0].dt,
        np.concatenate([each.inputs for each in recordings]),
        stimulation,
        np.concatenate([each.mask for each in recordings]),
        _of_neurons(recordings, "neuron_labels", "order them with recording.select(neurons=[labels])"),
        _of_neurons(recordings, "cell_types", "give a neuron one type in all of them"),
        _trial_labels(recordings),
    )


def _require_alike(first: Recording, other: Recording, name: str) -> None:
    if not np.isclose(first.dt, other.dt, rtol=1e-9, atol=0.0):
        mend = "bring all to one bin width"
        raise argument_error(f"{name}.dt", f"{first.dt:g} s, as in the first", f"{other.dt:g} s", mend)
    for axis, size, expected, mend in (
        ("time", other.num_bins, first.num_bins, "cut with select(time=...), or fill up with bins that are masked"),
        ("neuron", other.num_neurons, first.num_neurons, "choose the same neurons with select(neurons=...)"),
        ("input", other.num_inputs, first.num_inputs, "give every trial all inputs, 0 where one was not there"),
    ):
        if size != expected:
            raise argument_error(name, f"{expected} along {axis}, as the first has", f"{size}", mend)


def _of_neurons(recordings: Sequence[Recording], field: str, mend: str) -> tuple[str, ...] | None:
    """What the recordings that have it say of the neurons."""
    known: tuple[str, ...] | None = None
    for place, each in enumerate(recordings):
        found: tuple[str, ...] | None = getattr(each, field)
        if known is not None and found is not None and found != known:
            neuron = next(index for index, pair in enumerate(zip(known, found, strict=True)) if pair[0] != pair[1])
            expected, got = f"{known[neuron]!r} for neuron {neuron}, as before", repr(found[neuron])
            raise argument_error(f"recordings[{place}].{field}", expected, got, mend)
        known = found if known is None else known
    return known


def _trial_labels(recordings: Sequence[Recording]) -> tuple[str, ...] | None:
    if all(each.trial_labels is None for each in recordings):
        return None
    return tuple(label for each in recordings for label in each.trial_labels or (UNLABELLED,) * each.num_trials)
