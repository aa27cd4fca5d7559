"""Recordings of one network as one: of the same neurons, or of others in every session."""

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


def test_shorter_trials_are_filled_up_with_masked_bins():
    short, long = recording(stimulation=np.ones((2, 5, 3))).select(time=slice(0, 3)), recording(seed=1)
    for first, second in ((short, long), (long, short)):
        combined = lrp.combine_recordings(first, second)
        parts = combined.select(trials=slice(0, 2)), combined.select(trials=slice(2, 4))
        for part, whole in zip(parts, (first, second), strict=True):
            for name in ("activity", "inputs", "mask"):
                np.testing.assert_array_equal(getattr(part, name)[:, : whole.num_bins], getattr(whole, name))
                assert not getattr(part, name)[:, whole.num_bins :].any()
            assert np.all(part.stimulation[:, : whole.num_bins] == (whole is short))
            assert not part.stimulation[:, whole.num_bins :].any()


def test_neurons_of_other_sessions_are_masked():
    first = recording(neuron_labels=("a", "b", "c"), cell_types=("E", "I", "E"))
    second = recording(
        seed=1, neuron_labels=("d", "c", "a"), cell_types=("I", "E", "E"), stimulation=np.full((2, 5, 3), 2.0)
    )
    combined = lrp.combine_recordings(first, second)
    assert combined.neuron_labels == ("a", "b", "c", "d")
    assert combined.cell_types == ("E", "I", "E", "I")
    assert not combined.mask[:2, :, 3].any()
    assert not combined.mask[2:, :, 1].any()
    assert not combined.stimulation[2:, :, 1].any()
    assert combined.mask.sum() == first.mask.sum() + second.mask.sum()
    for trials, part in ((slice(0, 2), first), (slice(2, 4), second)):
        again = combined.select(trials=trials, neurons=part.neuron_labels)
        for name in ("activity", "inputs", "mask", "cell_types"):
            np.testing.assert_array_equal(getattr(again, name), getattr(part, name))


def test_the_order_of_neurons_is_that_of_the_first():
    first = recording(neuron_labels=("a", "b", "c"))
    combined = lrp.combine_recordings(first, first.select(neurons=["c", "a", "b"]))
    assert combined.neuron_labels == first.neuron_labels
    assert combined.fully_observed
    np.testing.assert_array_equal(combined.activity[2:], first.activity)


def test_what_is_masked_stays_so():
    mask = np.ones((2, 5, 3), dtype=bool)
    mask[1, 2, 0] = False
    combined = lrp.combine_recordings(
        recording(mask=mask, neuron_labels=("a", "b", "c")), recording(seed=1, neuron_labels=("x", "y", "z"))
    )
    np.testing.assert_array_equal(combined.mask[:2, :, :3], mask)


LABELLED = {"neuron_labels": ("a", "b", "c"), "cell_types": ("E", "E", "I")}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: recording(dt=0.01), r"recordings\[1\]\.dt: expected 0.02 s.*got 0.01 s; bring"),
        (lambda: recording(inputs=np.zeros((2, 5, 2))), r"recordings\[1\]: expected 1 inputs.*got 2; give every trial"),
        (
            lambda: recording().select(neurons=[0, 1]),
            r"recordings\[1\]\.neuron_labels: expected labels.*got None; name",
        ),
        (
            lambda: recording(neuron_labels=("c", "x", "b"), cell_types=("I", "E", "I")),
            r"recordings\[1\]\.cell_types: expected 'E' for neuron b, as before, got 'I'; give a neuron one type",
        ),
        (lambda: recording(cell_types=("E", "I", "I")), r"cell_types: expected 'E' for neuron b, as before, got 'I'"),
        (lambda: recording(neuron_labels=("c", "x", "b")), "cell_types: expected a type.*got none for neuron x; give"),
        (lambda: "session.npz", r"recordings\[1\]: expected Recording, got str"),
    ],
)
def test_what_does_not_belong_together_is_refused_by_name(other, message):
    with pytest.raises(ValueError, match=message):
        lrp.combine_recordings(recording(**LABELLED), other())


def test_nothing_is_refused():
    with pytest.raises(ValueError, match="recordings: expected one Recording or more"):
        lrp.combine_recordings()
