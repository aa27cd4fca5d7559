"""Recording: what goes in comes out, in every shape and through files, and every bad input says what to do."""

import dataclasses
import os
import re
import zipfile

import numpy as np
import pytest
from full_recording import ARRAYS, BINS, LABELS, NEURONS, TRIALS, assert_same, make_recording

from lrposterior import checks
from lrposterior.recording import Recording, load_recording


def without_options(**changes):
    return Recording(**({"activity": np.ones((TRIALS, BINS, NEURONS)), "dt": 0.01} | changes))


# What is stored


def test_counts_times_and_defaults():
    recording = without_options()
    assert (recording.num_trials, recording.num_bins, recording.num_neurons) == (TRIALS, BINS, NEURONS)
    assert recording.num_inputs == 0
    assert recording.inputs.shape == (TRIALS, BINS, 0)
    assert recording.stimulation is None
    assert recording.fully_observed
    assert recording.mask.dtype == bool
    assert recording.duration == pytest.approx(0.08)
    np.testing.assert_allclose(recording.times, 0.01 * np.arange(BINS))
    assert [getattr(recording, name) for name in LABELS] == [None] * len(LABELS)


def test_one_trial_may_have_two_axes():
    full = make_recording().select(trials=3)
    flat = {name: getattr(full, name)[0] for name in ARRAYS}
    labels = {name: getattr(full, name) for name in LABELS}
    assert_same(full, Recording(dt=full.dt, **flat, **labels))


def test_nothing_can_be_changed_and_nothing_is_shared():
    activity = np.ones((TRIALS, BINS, NEURONS))
    recording = make_recording(activity=activity)
    activity[:] = 2.0
    assert (recording.activity == 1.0).all()
    for name in ARRAYS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(recording, name)[0, 0, 0] = 0
        assert getattr(recording, name).dtype == (bool if name == "mask" else np.float64)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recording.dt = 1.0


def test_masked_entries_may_be_missing_and_observed_ones_survive():
    values = np.random.default_rng(0).standard_normal((BINS, NEURONS))
    activity, mask = values.copy(), np.ones((BINS, NEURONS), dtype=bool)
    activity[2, 1], activity[3, 0], mask[2, 1], mask[3, 0], mask[5, 2] = np.nan, np.inf, False, False, False
    recording = Recording(activity, 0.01, mask=mask)
    assert recording.activity[0, 2, 1] == recording.activity[0, 3, 0] == 0.0
    np.testing.assert_array_equal(recording.activity[0, 5], values[5])
    np.testing.assert_array_equal(recording.mask[0], mask)
    assert not recording.fully_observed
    assert_same(recording, Recording(activity, 0.01, mask=mask.astype(np.uint8)))


def test_counts_float_activity_below_zero_and_masked_sentinels_pass():
    counts = np.arange(BINS * NEURONS).reshape(BINS, NEURONS)
    assert Recording(counts, 0.01).activity.max() == counts.max()
    assert Recording(-1.0 * counts, 0.01).activity.min() == -counts.max()
    counts[0, 0] = -1
    assert not Recording(counts, 0.01, mask=counts >= 0).fully_observed


# Trials of different lengths


def trials_of(lengths):
    """Keyword arguments of `Recording.from_trials`, trials cut from those of `make_recording`."""
    whole = make_recording().select(trials=np.arange(len(lengths)))
    return {name: [one[:length] for one, length in zip(getattr(whole, name), lengths, strict=True)] for name in ARRAYS}


def test_trials_of_different_lengths_end_in_masked_bins():
    lengths = [5, BINS, 1]
    arrays = trials_of(lengths)
    recording = Recording.from_trials(**arrays, dt=0.01, trial_labels=["a", "b", "c"])
    assert recording.activity.shape == (3, BINS, NEURONS)
    assert recording.trial_labels == ("a", "b", "c")
    for trial, length in enumerate(lengths):
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(recording, name)[trial, :length], arrays[name][trial])
            assert not getattr(recording, name)[trial, length:].any()
    assert Recording.from_trials([[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]], 0.01).mask.sum() == 6


def test_trials_of_one_length_are_those_of_the_array():
    full = make_recording()
    arrays = {name: list(getattr(full, name)) for name in ARRAYS}
    labels = {name: getattr(full, name) for name in LABELS}
    assert_same(full, Recording.from_trials(**arrays, dt=full.dt, **labels))


def test_counts_stay_counts():
    with pytest.raises(ValueError, match="negative counts"):
        Recording.from_trials([np.ones((2, 1), dtype=int), np.full((1, 1), -1)], 0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activity": []}, "activity: expected one array (time, neuron) for every trial, got none; give a trial"),
        (
            {"activity": [np.ones((2, 3)), np.ones((2, 2))]},
            "activity[1]: expected shape (time=2, neuron=3), got (2, 2)",
        ),
        (
            {"activity": [np.ones((2, 3)), np.ones(3)]},
            "activity[1]: expected an array of real numbers with axes (time,",
        ),
        ({"inputs": [np.ones((4, 1))]}, "inputs: expected 2 arrays, one per trial, got 1; give all of them"),
        ({"inputs": [np.ones((4, 1)), np.ones((4, 1))]}, "inputs[1]: expected shape (time=3, input=1), got (4, 1)"),
        ({"mask": [np.ones((4, 3), bool), np.ones((3, 2), bool)]}, "mask[1]: expected shape (time=3, neuron=3)"),
        ({"mask": [np.zeros((4, 3), bool), np.zeros((3, 3), bool)]}, "mask: expected something observed"),
    ],
)
def test_trials_that_do_not_fit_are_refused_by_name(change, message):
    arguments = {"activity": [np.ones((4, 3)), np.ones((3, 3))], "dt": 0.01}
    with pytest.raises(ValueError, match=re.escape(message)):
        Recording.from_trials(**(arguments | change))


# Selection


@pytest.mark.parametrize(
    ("argument", "one", "same"),
    [
        ("trials", [1, 3, 5], "right"),
        ("trials", [0, 2, 4], slice(0, None, 2)),
        ("trials", [0, 2, 4, 1, 3, 5], ["left", "right"]),
        ("trials", -1, [TRIALS - 1]),
        ("time", range(2, 5), slice(2, 5)),
        ("time", [0, 1], np.arange(BINS) < 2),
        ("neurons", [2, 0], ["b1", "a1"]),
        ("neurons", 3, "b2"),
        ("neurons", [0, 1, 3], np.array(["E", "E", "I", "E"]) == "E"),
    ],
)
def test_selections_agree_with_indices(argument, one, same):
    recording = make_recording()
    assert_same(recording.select(**{argument: one}), recording.select(**{argument: same}))


def test_selection_takes_everything_along():
    recording, trials, bins, neurons = make_recording(), [4, 1], slice(3, 7), [3, 0]
    chosen = recording.select(trials, bins, neurons)
    for name in ARRAYS:
        expected = getattr(recording, name)[trials, bins]
        np.testing.assert_array_equal(getattr(chosen, name), expected if name == "inputs" else expected[:, :, neurons])
    assert chosen.neuron_labels == ("b2", "a1")
    assert chosen.cell_types == ("E", "E")
    assert chosen.trial_labels == ("left", "right")
    assert chosen.times[0] == 0.0
    assert_same(recording.select(), recording)


def test_trials_may_be_drawn_twice():
    assert make_recording().select(trials=[2, 2, 5]).trial_labels == ("left", "left", "right")


def test_split_is_a_partition_fixed_by_its_seed():
    activity = np.arange(10.0)[:, None, None] * np.ones((1, BINS, NEURONS))
    recording = Recording(activity, 0.01)
    train, validation = recording.split(0.3, seed=1)
    assert (train.num_trials, validation.num_trials) == (7, 3)
    parts = [part.activity[:, 0, 0] for part in (train, validation)]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(10.0))
    assert all((np.diff(part) > 0).all() for part in parts)
    assert_same(validation, recording.split(0.3, seed=1)[1])
    others = [recording.split(0.3, seed=seed)[1].activity[:, 0, 0].tolist() for seed in range(5)]
    assert len({tuple(other) for other in others}) > 1


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_split_leaves_a_trial_on_either_side(fraction):
    train, validation = make_recording().split(fraction, seed=0)
    assert {train.num_trials, validation.num_trials} == {1, TRIALS - 1}


# Files


@pytest.mark.parametrize("options", [(), ("inputs",), ("stimulation",), ("mask",), LABELS, (*ARRAYS[1:], *LABELS)])
def test_save_and_load_return_the_same(tmp_path, options):
    full = make_recording()
    recording = without_options(**{name: getattr(full, name) for name in options})
    recording.save(tmp_path / "session.npz")
    assert_same(load_recording(tmp_path / "session.npz"), recording)
    with np.load(tmp_path / "session.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {"activity", "dt", *options}
    assert os.listdir(tmp_path) == ["session.npz"]


def test_selection_commutes_with_files(tmp_path):
    recording, selection = make_recording(), {"trials": "left", "time": slice(1, 6), "neurons": ["b1", "a2"]}
    recording.save(tmp_path / "full.npz")
    recording.select(**selection).save(tmp_path / "part.npz")
    assert_same(load_recording(tmp_path / "full.npz").select(**selection), load_recording(tmp_path / "part.npz"))


@pytest.mark.parametrize("dt", [0.01, [0.01], [[0.01]], np.float32(0.01)])
def test_files_of_others_are_read(tmp_path, dt):
    counts = np.arange(BINS * NEURONS, dtype=np.int8).reshape(BINS, NEURONS)
    np.savez(tmp_path / "other.npz", activity=counts, dt=dt, cell_types=np.array(list("EEII")))
    recording = load_recording(str(tmp_path / "other.npz"))
    np.testing.assert_array_equal(recording.activity[0], counts)
    assert recording.dt == pytest.approx(0.01)
    assert recording.cell_types == ("E", "E", "I", "I")


def test_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    recording = make_recording()
    recording.save(tmp_path / "session.npz")

    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recording.select(trials=0).save(tmp_path / "session.npz")
    assert os.listdir(tmp_path) == ["session.npz"]
    assert_same(load_recording(tmp_path / "session.npz"), recording)


def test_repr_and_summary_read_well():
    recording = make_recording()
    assert repr(recording).startswith("Recording(6 trials x 8 bins of 0.01 s, 4 neurons, 2 inputs, ")
    assert repr(recording.select(0, 0, 0)) == "Recording(1 trial x 1 bin of 0.01 s, 1 neuron, 2 inputs)"
    assert repr(without_options()) == "Recording(6 trials x 8 bins of 0.01 s, 4 neurons, 0 inputs)"
    summary = recording.summary()
    assert "8 bins of 0.01 s, 0.08 s per trial" in summary
    assert "4 (3 E, 1 I)" in summary
    assert f"{100 * recording.mask.mean():.4g}% of the entries" in summary
    never = np.ones((TRIALS, BINS, NEURONS), dtype=bool)
    never[:, :, 1] = False
    assert "1 neuron never" in without_options(mask=never).summary()


# Bad inputs: the arguments that replace good ones, and what the error says

SHAPE = (TRIALS, BINS, NEURONS)


def with_nan(shape, value=np.nan):
    array = np.ones(shape)
    array[0, 1, 1] = value
    return array


BAD_ARGUMENTS = {
    "nan": (
        {"activity": with_nan(SHAPE)},
        "activity: expected finite numbers, got 1 of 192 entries NaN or infinite, the first at (0, 1, 1); "
        "pass mask=np.isfinite(activity) if these are missing",
    ),
    "nan that the mask shows": (
        {"activity": with_nan(SHAPE), "mask": np.ones(SHAPE, bool)},
        "the first at (0, 1, 1); set the mask to False there",
    ),
    "infinity": ({"activity": with_nan(SHAPE, np.inf)}, "activity: expected finite numbers, got 1 of 192 entries"),
    "negative counts": (
        {"activity": np.full(SHAPE, -2)},
        "activity: expected integers (counts) >= 0, got 192 negative counts, the lowest -2; mask what is missing",
    ),
    "one axis": (
        {"activity": np.ones(5)},
        "activity: expected an array of real numbers with axes (trial, time, neuron)",
    ),
    "no trial": ({"activity": np.ones((0, 8, 4))}, "got shape (0, 8, 4); the trial axis must not be empty"),
    "no bin": ({"activity": np.ones((6, 0, 4))}, "got shape (6, 0, 4); the time axis must not be empty"),
    "no neuron": ({"activity": np.ones((6, 8, 0))}, "got shape (6, 8, 0); the neuron axis must not be empty"),
    "strings": ({"activity": np.full(SHAPE, "1.0")}, "got ndarray of dtype <U3; convert it to one dense array"),
    "objects": ({"activity": np.full(SHAPE, None)}, "got ndarray of dtype object; convert it to one dense array"),
    "complex": ({"activity": np.full(SHAPE, 1j)}, "got ndarray of dtype complex128; convert it"),
    "booleans": ({"activity": np.ones(SHAPE, bool)}, "got ndarray of dtype bool; convert it"),
    "ragged trials": (
        {"activity": [[[1.0]], [[1.0], [2.0]]]},
        "got different ones; make it with Recording.from_trials",
    ),
    "numpy mask": (
        {"activity": np.ma.masked_less(np.ones(SHAPE), 0)},
        "got a numpy masked array; pass its .data, and what it hides by mask=",
    ),
    "dt zero": ({"dt": 0}, "dt: expected one finite number > 0 (in s), got 0; give dt in s"),
    "dt negative": ({"dt": np.float64(-0.01)}, "dt: expected one finite number > 0 (in s), got -0.01"),
    "dt nan": ({"dt": np.nan}, "dt: expected one finite number > 0 (in s), got nan"),
    "dt infinite": ({"dt": float("inf")}, "dt: expected one finite number > 0 (in s), got inf"),
    "dt text": ({"dt": "10 ms"}, "dt: expected one finite number > 0 (in s), got '10 ms'"),
    "dt bool": ({"dt": True}, "dt: expected one finite number > 0 (in s), got True"),
    "dt array": ({"dt": np.ones(3)}, "dt: expected one finite number > 0 (in s), got an array of shape (3,)"),
    "dt list": ({"dt": [0.1, [0.2]]}, "dt: expected one finite number > 0 (in s), got [0.1, [0.2]]"),
    "inputs of other trials": (
        {"inputs": np.ones((5, BINS, 1))},
        "inputs: expected shape (trial=6, time=8, input=any), got (5, 8, 1); give one value per trial and bin",
    ),
    "inputs without trials": ({"inputs": np.ones((BINS, 1))}, "inputs: expected an array of real numbers with axes"),
    "inputs nan": ({"inputs": with_nan((6, 8, 2))}, "inputs: expected finite numbers, got 1 of 96 entries NaN"),
    "stimulation of other neurons": (
        {"stimulation": np.ones((6, 8, 3))},
        "stimulation: expected shape (trial=6, time=8, neuron=4), got (6, 8, 3); give it the activity's shape",
    ),
    "stimulation nan": ({"stimulation": with_nan(SHAPE)}, "stimulation: expected finite numbers, got 1 of 192 entries"),
    "mask of another shape": (
        {"mask": np.ones((6, 7, 4), bool)},
        "mask: expected shape (trial=6, time=8, neuron=4), got (6, 7, 4); give it the activity's shape",
    ),
    "mask of numbers": (
        {"mask": np.full(SHAPE, 0.5)},
        "mask: expected True (observed) or False, got other values; write for instance activity > 0",
    ),
    "mask without axes": ({"mask": True}, "mask: expected an array of real numbers with axes (trial, time, neuron)"),
    "mask observes nothing": (
        {"mask": np.zeros(SHAPE, bool)},
        "mask: expected something observed, got False everywhere; True stands for observed: invert it?",
    ),
    "too few neuron labels": (
        {"neuron_labels": ["a", "b"]},
        "neuron_labels: expected 4 strings, one per neuron, got 2; give every neuron its label",
    ),
    "duplicate neuron labels": (
        {"neuron_labels": list("abab")},
        "neuron_labels: expected a different label for every neuron, got 'a' 2 times; number them",
    ),
    "numbers as labels": (
        {"neuron_labels": range(4)},
        "neuron_labels: expected 4 strings, one per neuron, got 0; write np.asarray(neuron_labels).astype(str)",
    ),
    "types in one string": ({"cell_types": "EEIE"}, "cell_types: expected 4 strings, one per neuron, got 'EEIE'"),
    "types in two axes": ({"cell_types": np.full((4, 1), "E")}, "got an array of shape (4, 1); give a list of strings"),
    "too many trial labels": (
        {"trial_labels": ["a"] * 7},
        "trial_labels: expected 6 strings, one per trial, got 7; give every trial its label",
    ),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_are_refused(case):
    changes, message = BAD_ARGUMENTS[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        without_options(**changes)


BAD_SELECTIONS = {
    "trial out of range": (
        {"trials": 6},
        "trials: expected indices from 0 to 5 of 6 trials, got 6; counting starts at 0",
    ),
    "neuron out of range": ({"neurons": [0, -5]}, "neurons: expected indices from 0 to 3 of 4 neurons, got -5"),
    "bins beyond the end": ({"time": slice(8, 9)}, "time: expected at least one bin, got an empty selection"),
    "empty list": ({"neurons": []}, "neurons: expected at least one neuron, got an empty selection; select among 4"),
    "short boolean": (
        {"trials": [True, False]},
        "trials: expected one boolean for each of 6 trials, got 2; compute it",
    ),
    "one boolean": ({"trials": True}, "trials: expected a selection of trials among 6, got True; give integers"),
    "floats": (
        {"neurons": [0.0, 1.0]},
        "neurons: expected a selection of neurons among 4, got [0.0, 1.0]; give integers",
    ),
    "float slice": ({"time": slice(0.0, 0.05)}, "got slice(0.0, 0.05, None); give a slice or a list of integers"),
    "gaps in time": (
        {"time": [0, 2]},
        "time: expected bins that follow one another, got gaps or another order; select a range of bins",
    ),
    "time backwards": ({"time": slice(None, None, -1)}, "time: expected bins that follow one another, got gaps or"),
    "a neuron twice": ({"neurons": [1, 1]}, "neurons: expected every neuron at most once, got a repeated index"),
    "misspelt label": ({"trials": "rigth"}, "trials: expected labels of trials, got 'rigth'; did you mean 'right'?"),
    "unknown label": ({"neurons": "Z"}, "got 'Z'; the labels are 'a1', 'a2', 'b1', 'b2'"),
    "label of a bin": (
        {"time": "onset"},
        "time: expected indices, since the bins have no labels, got the label 'onset'",
    ),
    "ragged": ({"trials": [[1], [1, 2]]}, "trials: expected a selection of trials among 6, got [[1], [1, 2]]"),
    "all masked": ({"neurons": 1}, "mask: expected something observed, got False everywhere"),
}


@pytest.mark.parametrize("case", BAD_SELECTIONS)
def test_bad_selections_are_refused(case):
    selection, message = BAD_SELECTIONS[case]
    mask = np.arange(NEURONS) != 1
    recording = make_recording(mask=np.broadcast_to(mask, SHAPE))
    with pytest.raises(ValueError, match=re.escape(message)):
        recording.select(**selection)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"validation_fraction": 0, "seed": 0},
            "validation_fraction: expected a number between 0 and 1, both excluded",
        ),
        ({"validation_fraction": 20, "seed": 0}, "got 20; write 0.9 for 90%"),
        ({"validation_fraction": None, "seed": 0}, "validation_fraction: expected a number between 0 and 1"),
        ({"seed": -1}, "seed: expected an integer >= 0, got -1"),
        ({"seed": 1.0}, "seed: expected an integer >= 0, got 1.0; give it as an int"),
        ({"seed": True}, "seed: expected an integer >= 0, got True"),
    ],
)
def test_bad_splits_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_recording().split(**arguments)


def test_one_trial_cannot_be_split():
    with pytest.raises(
        ValueError, match="recording: expected at least two trials to split, got one trial; record more"
    ):
        make_recording().select(trials=0).split(seed=0)


GOOD = {"activity": np.ones((BINS, NEURONS)), "dt": 0.01}

BAD_FILES = {
    "no activity": (
        {"dt": 0.01},
        "path: expected a recording (.npz), got 'bad.npz', with dt in it but without activity; write one",
    ),
    "no dt": ({"activity": GOOD["activity"]}, "got 'bad.npz', with activity in it but without dt; write one"),
    "misspelt key": (GOOD | {"stimulus": 1}, "got the unknown key 'stimulus'; did you mean 'stimulation'?"),
    "unknown key": (GOOD | {"xyz": 1}, "got the unknown key 'xyz'; rename it or leave it out"),
    "unnamed array": (
        {"arr_0": GOOD["activity"]},
        "got 'bad.npz', with arr_0 in it but without activity, dt",
    ),
    "another name": (
        {"data": GOOD["activity"], "dt": 0.1},
        "got 'bad.npz', with data, dt in it but without activity",
    ),
    "pickled activity": (
        GOOD | {"activity": np.array([[1.0, None]], dtype=object)},
        "activity: expected an array of numbers or strings, got Python objects (a pickle); save plain numbers",
    ),
    "pickled labels": (
        GOOD | {"cell_types": np.array(list("EEII"), dtype=object)},
        "cell_types: expected an array of numbers or strings, got Python objects (a pickle); save plain numbers, "
        "and labels by np.array(labels, dtype=str)",
    ),
    "labels as bytes": (
        GOOD | {"cell_types": np.array([b"E"] * 4)},
        "one per neuron, got b'E'; write np.asarray(cell_types).astype(str)",
    ),
    "several dt": (
        GOOD | {"dt": [0.01, 0.02]},
        "dt: expected one finite number > 0 (in s), got an array of shape (2,)",
    ),
    "dt as text": (GOOD | {"dt": "10 ms"}, "dt: expected one finite number > 0 (in s), got '10 ms'"),
    "bad contents": (
        GOOD | {"mask": np.ones((3, 3))},
        "mask: expected shape (trial=1, time=8, neuron=4), got (1, 3, 3)",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused(tmp_path, case):
    arrays, message = BAD_FILES[case]
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_recording(tmp_path / "bad.npz")


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_truncated_files_are_refused(tmp_path, kept):
    path = tmp_path / "session.npz"
    make_recording().save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        ValueError, match=r"path: .*'session.npz', which is no .npz file or is cut short; write one with"
    ):
        load_recording(path)


@pytest.mark.parametrize("kind", [np.savez, np.savez_compressed])
def test_damaged_files_are_refused(tmp_path, kind):
    path = tmp_path / "session.npz"
    kind(path, activity=np.random.default_rng(0).standard_normal((50, 4)), dt=0.01)
    contents = bytearray(path.read_bytes())
    contents[400:700] = bytes(300)
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"path: expected a recording \(.npz\), got 'session.npz', which is damaged"):
        load_recording(path)


@pytest.mark.parametrize(
    ("member", "message"),
    [("activity", "activity: expected an array, got a member that is no .npy"), ("activity.npy", "which is damaged")],
)
def test_archives_of_something_else_are_refused(tmp_path, member, message):
    np.savez(tmp_path / "session.npz", dt=0.01)
    with zipfile.ZipFile(tmp_path / "session.npz", "a") as archive:
        archive.writestr(member, b"\x93NUMPY\x01\x00\x08\x00nonsense" if member.endswith("npy") else b"1, 2, 3")
    with pytest.raises(ValueError, match=message):
        load_recording(tmp_path / "session.npz")


def test_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / "notes.npz").write_text("activity, dt")
    np.save(tmp_path / "array.npy", np.ones(3))
    with pytest.raises(ValueError, match=r"'notes.npz', which is no .npz file or is cut short"):
        load_recording(tmp_path / "notes.npz")
    with pytest.raises(ValueError, match=r"path: expected a recording that ends in .npz or .mat, got 'array.npy'"):
        load_recording(tmp_path / "array.npy")
    with pytest.raises(ValueError, match=r"path: expected a recording, got the folder .*; name the file in it"):
        load_recording(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"path: expected a recording, got no file at .*absent.npz'; check the name"
    ):
        load_recording(tmp_path / "absent.npz")


def test_bad_paths_to_save_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"path: expected a file name that ends in .npz, got 'session.mat'; add .npz"):
        make_recording().save(tmp_path / "session.mat")
    with pytest.raises(ValueError, match=r"path: expected a folder that exists, got .*nowhere'; make the folder first"):
        make_recording().save(tmp_path / "nowhere" / "session.npz")


# The checks themselves, where no argument above reaches them


def test_checks_return_plain_values():
    assert checks.require_positive(np.float32(0.5), "x") == 0.5
    assert checks.require_positive(0, "x", allow_zero=True) == 0.0
    assert type(checks.require_integer(np.int8(3), "x")) is int
    assert checks.require_choice("tanh", "nonlinearity", ("tanh", "relu")) == "tanh"
    array = checks.read_only(np.ones((3, 2), order="F"))
    assert array.flags.c_contiguous
    assert not array.flags.writeable
    assert array.dtype == np.float64


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda: checks.require_choice("tahn", "nonlinearity", ("tanh", "relu")),
            "nonlinearity: expected one of 'tanh', 'relu', got 'tahn'; did you mean 'tanh'?",
        ),
        (lambda: checks.require_choice(3, "by", ("a",)), "by: expected one of 'a', got 3; choose one of these"),
        (lambda: checks.require_integer(9, "rank", 1, 4), "rank: expected an integer from 1 to 4, got 9"),
        (
            lambda: checks.require_shape(np.ones((3, 2)), "M", {"neuron": 4, "rank": 2}),
            "M: expected shape (neuron=4, rank=2), got (3, 2); check the neuron axis",
        ),
        (
            lambda: checks.require_shape(np.ones(3), "M", {"neuron": 4, "rank": None}),
            "M: expected shape (neuron=4, rank=any), got (3,); give it 2 axes, in this order",
        ),
        (
            lambda: checks.require_instance(3, "recording", Recording),
            "recording: expected Recording, got int; make it with Recording(...)",
        ),
    ],
)
def test_checks_explain(check, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check()
