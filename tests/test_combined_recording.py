"""Recordings of the same neurons as one."""

import dataclasses

import numpy as np
import pytest

import lrposterior as lrp


def recording(**changes):
    random = np.random.default_rng(changes.pop("seed", 0))
    return dataclasses.replace(
        lrp.Recording(random.standard_normal((2, 5, 3)), 0.02, inputs=random.standard_normal((2, 5, 1))), **changes
    )


def test_trials_follow_one_another_with_all_that_belongs_to_them():
    mask = np.ones((2, 5, 3), dtype=bool)
    mask[1, 2, 0] = False
    stimulation = np.random.default_rng(2).standard_normal((2, 5, 3))
    first = recording(mask=mask, neuron_labels=("a", "b", "c"))
    second = recording(seed=1, stimulation=stimulation, cell_types=("E", "E", "I"), trial_labels=("left", "right"))
    combined = lrp.combine_recordings(first, second, first)
    for trials, part in ((slice(0, 2), first), (slice(2, 4), second), (slice(4, 6), first)):
        for name in ("activity", "inputs", "mask"):
            np.testing.assert_array_equal(getattr(combined, name)[trials], getattr(part, name))
    np.testing.assert_array_equal(combined.stimulation[2:4], stimulation)
    np.testing.assert_array_equal(combined.stimulation[[0, 1, 4, 5]], 0.0)
    assert combined.neuron_labels == ("a", "b", "c")
    assert combined.cell_types == ("E", "E", "I")
    assert combined.trial_labels == (*["unlabelled"] * 2, "left", "right", *["unlabelled"] * 2)


def test_without_stimulation_and_labels_there_are_none():
    combined = lrp.combine_recordings(recording(), recording(seed=1))
    assert combined.stimulation is None
    assert combined.trial_labels is None
    assert combined.neuron_labels is None
    assert combined.num_trials == 4


def test_taking_it_apart_gives_back_the_parts():
    first, second = recording(), recording(seed=1, trial_labels=("left", "right"))
    again = lrp.combine_recordings(first, second).select(trials=["left", "right"])
    np.testing.assert_array_equal(again.activity, second.activity)


def other_inputs():
    return dataclasses.replace(recording(), inputs=np.zeros((2, 5, 2)))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: recording(dt=0.01), r"recordings\[1\]\.dt: expected 0.02 s.*got 0.01 s; bring"),
        (lambda: recording().select(time=slice(0, 4)), r"recordings\[1\]: expected 5 along time.*got 4"),
        (lambda: recording().select(neurons=[0, 1]), r"recordings\[1\]: expected 3 along neuron.*got 2"),
        (other_inputs, r"recordings\[1\]: expected 1 along input.*got 2"),
        (
            lambda: recording(neuron_labels=("a", "x", "c")),
            r"recordings\[1\]\.neuron_labels: expected 'b' for neuron 1",
        ),
        (lambda: "session.npz", r"recordings\[1\]: expected Recording, got str"),
    ],
)
def test_what_does_not_belong_together_is_refused_by_name(other, message):
    with pytest.raises(ValueError, match=message):
        lrp.combine_recordings(recording(neuron_labels=("a", "b", "c")), other())


def test_nothing_is_refused():
    with pytest.raises(ValueError, match="recordings: expected one Recording or more"):
        lrp.combine_recordings()
