"""MATLAB files: every version gives the recording that was written, what is guessed is shown, the rest is refused."""

import dataclasses
import io
import itertools
import json
import re
import struct

import full_recording
import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from command_line import run
from full_recording import ARRAYS, BINS, INPUTS, LABELS, NEURONS, TRIALS, assert_same

import lrposterior as lrp
from lrposterior.recording import Recording, load_recording

AXES = ("trial", "time", "neuron")
ORDERS = list(itertools.permutations(AXES))
OBJECT = object()  # stands for a string array, a table and the like


def make_recording(**changes):
    """Its labels are of different lengths, and one holds a space."""
    labels = {"neuron_labels": ["a1", "a2", "b1", "neuron 4"], "cell_types": ["exc", "exc", "inhib", "exc"]}
    return full_recording.make_recording(**(labels | changes))


def contents_of(recording):
    """A recording as the variables of a file, by the names of its arguments; lists stand for cell arrays."""
    arrays = {name: getattr(recording, name) for name in ("dt", *ARRAYS)}
    return arrays | {name: list(getattr(recording, name)) for name in LABELS}


# Files as MATLAB writes them


def write_v5(path, contents, **options):
    def stored(value):
        if isinstance(value, list):
            return np.array(value, dtype=object)[:, None]
        return {name: stored(inner) for name, inner in value.items()} if isinstance(value, dict) else value

    known = {name: stored(value) for name, value in contents.items() if value is not OBJECT}
    scipy.io.savemat(path, known, **options)
    with path.open("ab") as file:
        for name in contents.keys() - known.keys():
            file.write(object_in_v5(name))


def object_in_v5(name):
    """A variable of the class opaque, which SciPy does not write: its name, its kind, and numbers."""

    def element(kind, data):
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    numbers = io.BytesIO()
    scipy.io.savemat(numbers, {"n": np.array([[0xDD000000, 2, 1, 1, 1, 1]], dtype=np.uint32)})
    texts = (name, "MCOS", "string")
    flags = element(6, struct.pack("<II", 17, 0))
    return element(14, flags + b"".join(element(1, text.encode()) for text in texts) + numbers.getvalue()[128:])


def write_v73(path, contents):
    """HDF5 behind a block with MATLAB's header: axes in reverse, classes as attributes, cells as references."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in contents.items():
            put(file, name, value)
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Sun Nov 29 2026 HDF5 schema 1.00 ."
    with path.open("r+b") as written:
        written.write(header.ljust(116) + bytes(8) + b"\x00\x02IM")


def put(group, name, value):
    file = group.file
    if isinstance(value, dict) or scipy.sparse.issparse(value):
        made = group.create_group(name)
        made.attrs["MATLAB_class"] = np.bytes_("struct" if isinstance(value, dict) else "double")
        if isinstance(value, dict):
            for field, inner in value.items():
                put(made, field, inner)
        else:
            made.attrs["MATLAB_sparse"] = np.uint64(value.shape[0])
            made["data"] = value.tocsc().data
        return
    if isinstance(value, list):
        cells = file.require_group("#refs#")
        names = [f"cell{len(cells) + place}" for place in range(len(value))]
        for cell, one in zip(names, value, strict=True):
            put(cells, cell, one)
        kind, data = "cell", np.array([cells[cell].ref for cell in names], dtype=h5py.ref_dtype)[None]
    elif value is OBJECT:
        kind, data = "string", np.array([[0xDD000000, 2, 1, 1, 1, 1]], dtype=np.uint32)
    else:
        array = np.atleast_2d(value)
        if array.dtype.kind == "U":
            rows = np.ravel(value)
            width = max(len(row) for row in rows)
            array = np.array([[ord(letter) for letter in row.ljust(width)] for row in rows], dtype=np.uint16)
            array = array.reshape(len(rows), width)
        kinds = {"U": "char", "b": "logical", "f": "double" if array.dtype.itemsize == 8 else "single", "c": "double"}
        kind = "char" if np.asarray(value).dtype.kind == "U" else kinds.get(array.dtype.kind, str(array.dtype))
        data = array.T.astype(np.uint8) if array.dtype.kind == "b" else array.T
        if np.iscomplexobj(array):
            data = np.empty(array.T.shape, dtype=[("real", float), ("imag", float)])
            data["real"], data["imag"] = array.T.real, array.T.imag
    is_empty = not data.size
    made = group.create_dataset(name, data=np.array(np.shape(value) or (0, 0), dtype=np.uint64) if is_empty else data)
    made.attrs["MATLAB_class"] = np.bytes_(kind)
    if is_empty:
        made.attrs["MATLAB_empty"] = np.uint8(1)
    if kind == "string":
        made.attrs["MATLAB_object_decode"] = np.int32(3)


WRITERS = {"v5": write_v5, "v7.3": write_v73}


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    """Writes variables to a file of one version and returns its path."""

    def written(contents, name="session.mat"):
        WRITERS[request.param](tmp_path / name, contents)
        return tmp_path / name

    return written


# What was written comes back


def test_the_files_of_this_test_are_of_the_versions_that_they_say(tmp_path):
    contents = contents_of(make_recording())
    for version, writer in WRITERS.items():
        writer(tmp_path / version, contents)
    assert scipy.io.matlab.matfile_version(tmp_path / "v5") == (1, 0)
    assert scipy.io.matlab.matfile_version(tmp_path / "v7.3") == (2, 0)
    with h5py.File(tmp_path / "v7.3") as file:
        assert file["inputs"].shape == (INPUTS, BINS, TRIALS)


def test_a_recording_comes_back_without_a_word_when_all_is_said(write):
    recording = make_recording()
    names = {field.name: field.name for field in dataclasses.fields(Recording)}
    assert_same(load_recording(write(contents_of(recording)), names=names, axes=AXES), recording)


@pytest.mark.parametrize("order", ORDERS)
def test_axes_come_back_from_any_order(write, order):
    recording = make_recording()
    contents = contents_of(recording)
    for name in ARRAYS:
        contents[name] = contents[name].transpose([AXES.index(axis) for axis in order])
    assert_same(load_recording(write(contents), names={name: name for name in contents}, axes=order), recording)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("single", AXES)
def test_axes_of_length_one_that_matlab_leaves_out_come_back(write, order, single):
    one = {"trial": {"trials": [0]}, "time": {"time": [0]}, "neuron": {"neurons": [0]}}[single]
    recording = make_recording(inputs=np.ones((TRIALS, BINS, 1)), mask=None).select(**one)
    contents = contents_of(recording)
    for name in ARRAYS:
        array = contents[name].transpose([AXES.index(axis) for axis in order])
        contents[name] = array[:, :, 0] if array.shape[2] == 1 else array
    assert_same(load_recording(write(contents), names={name: name for name in contents}, axes=order), recording)


@pytest.mark.parametrize("order", [("time", "neuron"), ("neuron", "time")])
def test_one_trial_has_two_axes(write, order):
    recording = make_recording().select(trials=[2])
    contents = contents_of(recording)
    for name in ARRAYS:
        contents[name] = contents[name][0] if order[0] == "time" else contents[name][0].T
    assert_same(load_recording(write(contents), names={name: name for name in contents}, axes=order), recording)


def test_files_of_version_4_are_read(tmp_path):
    activity = np.random.default_rng(0).standard_normal((BINS, NEURONS))
    write_v5(tmp_path / "old.mat", {"activity": activity, "dt": 0.01}, format="4")
    recording = load_recording(
        tmp_path / "old.mat", names={"activity": "activity", "dt": "dt"}, axes=("time", "neuron")
    )
    np.testing.assert_array_equal(recording.activity[0], activity)


@pytest.mark.parametrize(
    "labels",
    [["exc", "exc", "inhib", "exc"], np.array(["exc", "exc", "inhib", "exc"])],
    ids=["cell array", "char array, filled up by blanks"],
)
def test_labels_are_cell_arrays_of_strings_or_char_arrays(write, labels):
    contents = {"activity": np.ones((TRIALS, BINS, NEURONS)), "dt": 0.01, "cell_types": labels}
    with pytest.warns(UserWarning, match=re.escape("cell_types <- 'cell_types' (4 strings)")):
        recording = load_recording(write(contents))
    assert recording.cell_types == ("exc", "exc", "inhib", "exc")


def test_labels_may_hold_any_letters_and_be_empty(write):
    names = ["Čížek", "", "β", "n 1"]
    contents = {"activity": np.ones((2, 3, 4)), "dt": 0.01, "neuron_labels": names}
    with pytest.warns(UserWarning, match="neuron_labels"):
        assert load_recording(write(contents)).neuron_labels == tuple(names)


def test_a_logical_raster_is_read_as_counts(write):
    raster = np.random.default_rng(0).random((TRIALS, BINS, NEURONS)) < 0.5
    path = write({"spikes": raster, "dt": 0.01})
    recording = load_recording(path, names={"activity": "spikes", "dt": "dt"}, axes=AXES)
    np.testing.assert_array_equal(recording.activity, raster.astype(float))


def test_whole_numbers_in_a_matrix_of_doubles_are_no_counts(tmp_path):
    """MATLAB stores them as small integers of the class double; negative ones are fine then."""
    activity = np.arange(-10, 14, dtype=np.int8).reshape(6, 4)
    write_v5(tmp_path / "session.mat", {"activity": activity})
    contents = bytearray((tmp_path / "session.mat").read_bytes())
    assert contents[144] == 8  # the class int8, behind the header and two tags
    contents[144] = 6
    (tmp_path / "session.mat").write_bytes(contents)
    recording = load_recording(
        tmp_path / "session.mat", names={"activity": "activity"}, axes=("time", "neuron"), dt=0.1
    )
    np.testing.assert_array_equal(recording.activity[0], activity)


def test_empty_variables_say_nothing(write):
    path = write({"activity": np.ones((2, 3, 4)), "dt": 0.1, "inputs": np.zeros((0, 0)), "cell_types": []})
    with pytest.warns(UserWarning, match="activity"):
        recording = load_recording(path)
    assert (recording.num_inputs, recording.cell_types) == (0, None)


# What is guessed

GUESSES = {
    "own names": {"activity": "activity", "dt": "dt", "inputs": "inputs", "cell_types": "cell_types"},
    "in capitals": {"activity": "Activity", "dt": "DT", "inputs": "INPUTS", "cell_types": "CellTypes"},
    "common names": {"activity": "firingRates", "dt": "bin_size", "inputs": "u", "cell_types": "celltype"},
    "others": {"activity": "FR", "dt": "binWidth", "inputs": "Stim_Inputs", "cell_types": "EI"},
    "no name": {"activity": "X17", "dt": "dt", "inputs": "inputs", "cell_types": "cell_types"},
    "in a struct": {
        "activity": "session.rates",
        "dt": "session.dt",
        "inputs": "session.u",
        "cell_types": "session.cell_type",
    },
}


@pytest.mark.parametrize("names", GUESSES.values(), ids=GUESSES.keys())
def test_guesses_are_right_and_shown(write, names):
    recording = make_recording(stimulation=None, mask=None, neuron_labels=None, trial_labels=None, session_labels=None)
    contents = {"subject": "m12", "trial_number": np.arange(TRIALS)}
    for argument, name in names.items():
        value = getattr(recording, argument)
        outer, _, field = name.rpartition(".")
        place = contents.setdefault(outer, {}) if outer else contents
        place[field] = list(value) if argument == "cell_types" else value
    with pytest.warns(UserWarning, match=r"read from 'session.mat'.*is a guess") as caught:
        read = load_recording(write(contents))
    assert_same(read, recording)
    (warning,) = caught
    assert warning.filename == __file__
    for text in (
        f"activity <- {names['activity']!r} (trial=6, time=8, neuron=4)",
        f"dt <- {names['dt']!r} = 0.01 s",
        f"inputs <- {names['inputs']!r} (trial=6, time=8, input=2)",
        f"cell_types <- {names['cell_types']!r} (4 strings)",
        "; not read: 'trial_number' (1, 6).",
    ):
        assert text in str(warning.message)


def test_the_order_of_axes_is_a_guess_that_is_shown(write):
    contents = {"activity": np.ones((2, 3, 4)), "dt": 0.1}
    names = {"activity": "activity", "dt": "dt"}
    with pytest.warns(UserWarning, match=re.escape("activity <- 'activity' (trial=2, time=3, neuron=4)")):
        load_recording(write(contents), names=names)
    with pytest.warns(UserWarning, match=re.escape("activity <- 'activity' (neuron=2, time=3, trial=4)")):
        load_recording(write(contents), axes=("neuron", "time", "trial"))


def test_what_is_given_goes_before_what_is_guessed(write):
    arrays = {name: np.full((2, 3, 4), value) for name, value in {"activity": 1.0, "raw": 2.0, "inputs": 3.0}.items()}
    path = write(arrays | {"dt": 0.1, "bin": 0.2})
    with pytest.warns(UserWarning, match="activity <- 'raw'"):
        recording = load_recording(path, names={"activity": "raw", "inputs": None})
    assert (recording.activity == 2.0).all()
    assert (recording.dt, recording.num_inputs) == (0.1, 0)
    with pytest.warns(UserWarning, match="dt <- 'bin'"):
        assert load_recording(path, names={"dt": "bin"}).dt == 0.2
    with pytest.warns(UserWarning, match="activity"):
        assert load_recording(path, dt=0.3).dt == 0.3


def test_a_width_in_ms_is_not_guessed_to_be_in_s(write):
    path = write({"activity": np.ones((2, 3, 4)), "bin_size": 20.0})
    message = "got 'bin_size' = 20; pass dt=0.02 if that is in ms, or names={'dt': 'bin_size'} if it is in s"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_recording(path)
    with pytest.warns(UserWarning, match="activity"):
        assert load_recording(path, names={"dt": "bin_size"}).dt == 20.0
    with pytest.warns(UserWarning, match="activity"):
        assert load_recording(path, dt=0.02).dt == 0.02


# What is refused

SHAPE = (2, 3, 4)
GOOD = {"activity": np.ones(SHAPE), "dt": 0.1}
NO_GUESS = {"names": {"activity": "activity", "dt": "dt"}, "axes": AXES}

REFUSED = {
    "two common names": (
        {"rates": np.ones(SHAPE), "y": np.ones((2, 3)), "dt": 0.1},
        {},
        "names: expected one variable for activity, got 'rates' (2, 3, 4), 'y' (2, 3); "
        "choose, for instance names={'activity': 'rates'}",
    ),
    "two arrays": (
        {"first": np.ones(SHAPE), "second": np.ones(SHAPE), "dt": 0.1},
        {},
        "names: expected one variable for activity, got 'first' (2, 3, 4), 'second' (2, 3, 4); choose",
    ),
    "the same in two structs": (
        {"a": {"fr": np.ones(SHAPE)}, "b": {"fr": np.ones(SHAPE)}, "dt": 0.1},
        {},
        "got 'a.fr' (2, 3, 4), 'b.fr' (2, 3, 4)",
    ),
    "no activity": (
        {"a": np.ones((2, 3)), "dt": 0.1, "note": "hello"},
        {},
        "names: expected a variable for activity, got no such name in 'session.mat', which has 'a' (2, 3), "
        "'dt' (1, 1), 'note' (strings); pass names={'activity': ...}",
    ),
    "no dt": (
        {"activity": np.ones(SHAPE), "fs": 100.0},
        {},
        "'fs' (1, 1); pass names={'dt': ...}, or dt=... in s",
    ),
    "no variable at all": ({}, {}, "path: expected variables that MATLAB wrote, got none in 'session.mat'"),
    "an unknown variable": (
        GOOD,
        {"names": {"activity": "activty"}},
        "names: expected a variable of 'session.mat', got 'activty' for activity; did you mean 'activity'?",
    ),
    "an unknown field": (
        GOOD,
        {"names": {"activity": "s.x"}},
        "got 's.x' for activity; it has 'activity' (2, 3, 4), 'dt' (1, 1)",
    ),
    "an unknown argument": (
        GOOD,
        {"names": {"rates": "activity"}},
        "names: expected one of 'activity', 'dt', 'inputs', 'stimulation', 'mask'",
    ),
    "names of another kind": (
        GOOD,
        {"names": "activity"},
        "names: expected Mapping, got str; write {'activity': 'fr'}",
    ),
    "an unknown axis": (
        GOOD,
        {"axes": ("trial", "bin", "neuron")},
        "axes: expected the axes ('trial', 'time', 'neuron')",
    ),
    "an axis too few": (GOOD, {"axes": ("trial", "time")}, "such as ('neuron', 'time', 'trial')"),
    "one axis": (GOOD, {"axes": "trial"}, "axes: expected"),
    "sparse": (
        GOOD | {"spikes": scipy.sparse.eye(3).tocsc()},
        {"names": {"activity": "spikes"}},
        "activity: expected numbers, got 'spikes' in 'session.mat', a sparse matrix; store full(spikes)",
    ),
    "complex": (GOOD | {"z": np.full(SHAPE, 1j)}, {"names": {"activity": "z"}}, "complex numbers; store real(z)"),
    "a struct": (
        GOOD | {"s": {"fr": np.ones(SHAPE)}},
        {"names": {"activity": "s"}},
        "got 's' in 'session.mat', a struct; name one of its fields, s.<field>",
    ),
    "a cell array of trials": (
        GOOD | {"c": [np.ones((3, 4)), np.ones((2, 4))]},
        {"names": {"activity": "c"}},
        "a cell array; store one array, for instance cat(3, c{:}), with a mask where trials differ in length",
    ),
    "strings as activity": (GOOD | {"t": ["a", "b"]}, {"names": {"activity": "t"}}, "strings; store numbers"),
    "numbers as cell types": (
        GOOD | {"cell_types": np.array([1.0, 1.0, 2.0, 1.0])},
        {},
        "cell_types: expected strings, got 'cell_types' in 'session.mat', numbers; "
        "store cellstr(string(cell_types)), a cell array of strings, or leave it out by names={'cell_types': None}",
    ),
    "one string as cell types": (
        GOOD | {"cell_types": "EEIE"},
        {},
        "cell_types: expected 4 strings, one per neuron, got 1; give every neuron its label, in order (read from "
        "'session.mat': activity <- 'activity' (trial=2, time=3, neuron=4), dt <- 'dt' = 0.1 s, "
        "cell_types <- 'cell_types' (1 string); if it is not that, give axes, or names, where None leaves one out)",
    ),
    "inputs of another order": (
        GOOD | {"inputs": np.ones((5, 3, 2))},
        {},
        "inputs: expected shape (trial=2, time=3, input=any), got (5, 3, 2); give one value per trial and bin of the "
        "activity (read from 'session.mat': activity <- 'activity' (trial=2, time=3, neuron=4), dt <- 'dt' = 0.1 s, "
        "inputs <- 'inputs' (trial=5, time=3, input=2); if it is not that, give axes",
    ),
    "four axes": ({"activity": np.ones((2, 3, 4, 5)), "dt": 0.1}, {}, "activity <- 'activity' (2, 3, 4, 5)"),
    "several widths": (GOOD | {"dt": np.ones((1, 3))}, {}, "dt: expected one finite number > 0 (in s)"),
    "missing values": (
        GOOD | {"activity": np.full(SHAPE, np.nan)},
        {},
        "activity: expected finite numbers, got 24 of 24 entries NaN or infinite",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_clear_or_not_right_is_refused(write, case):
    contents, options, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        load_recording(write(contents), **options)


def test_what_cannot_be_read_is_no_obstacle_where_it_is_not_meant(write):
    """Sparse matrices, cells and structs of the names that are guessed, but not of what an argument holds."""
    others = {"rates": scipy.sparse.eye(3).tocsc(), "spikes": [np.ones(3), np.ones(2)], "data": {"n": 3.0}, "y": "no"}
    path = write(GOOD | others | {"conditions": np.arange(2.0)})
    assert_same(load_recording(path, **NO_GUESS), Recording(**GOOD))
    with pytest.warns(UserWarning, match="activity <- 'X'"):
        load_recording(write({"X": np.ones(SHAPE), "dt": 0.1} | others))


def test_objects_are_refused_by_name(write):
    """Also where the name is guessed: cell types that were saved as a string array are not silently left out."""
    path = write(GOOD | {"cell_types": OBJECT, "data": OBJECT})
    kind = "a string array, a table or another object"
    for names, message in (
        (
            {},
            f"cell_types: expected strings, got 'cell_types' in 'session.mat', {kind}; "
            "store cellstr(string(cell_types))",
        ),
        ({"activity": "data"}, f"activity: expected numbers, got 'data' in 'session.mat', {kind}"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            load_recording(path, names=names)
    names = NO_GUESS["names"] | {"cell_types": None}
    assert_same(load_recording(path, names=names, axes=AXES), Recording(**GOOD))


def test_arrays_of_structs_are_refused_by_name(tmp_path):
    structs = np.zeros((1, 2), dtype=[("fr", object)])
    structs["fr"] = 1.0
    write_v5(tmp_path / "session.mat", GOOD | {"trials": structs})
    with pytest.raises(ValueError, match=r"got 'trials' in 'session.mat', an array of structs"):
        load_recording(tmp_path / "session.mat", names={"activity": "trials"})


# Files that are none

CUT_SHORT = [0, 1, 100, 127, 140, 400, 600, 1500]


@pytest.mark.parametrize("kept", CUT_SHORT)
def test_files_that_are_cut_short_are_refused(write, kept):
    path = write(contents_of(make_recording()))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"^path: expected .*'session.mat'.*; write it again"):
        load_recording(path)


@pytest.mark.parametrize("options", [{}, {"do_compression": True}, None], ids=["v5", "v5, compressed", "v7.3"])
def test_damaged_files_are_refused(tmp_path, options):
    path = tmp_path / "session.mat"
    if options is None:
        write_v73(path, contents_of(make_recording()))
    else:
        write_v5(path, contents_of(make_recording()), **options)
    contents = bytearray(path.read_bytes())
    start = 620 if options is None else 136
    contents[start : start + 64] = bytes(64)
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"path: expected a MATLAB file \(.mat\), got 'session.mat', which is damaged"):
        load_recording(path)


def test_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / "text.mat").write_text("activity, dt\n" * 20)
    make_recording().save(tmp_path / "recording.npz")
    (tmp_path / "recording.npz").rename(tmp_path / "archive.mat")
    for name in ("text.mat", "archive.mat"):
        with pytest.raises(ValueError, match=f"expected a MATLAB file .*'{name}', which is damaged or of another kind"):
            load_recording(tmp_path / name)
    with h5py.File(tmp_path / "other.mat", "w") as file:
        file["activity"] = np.ones((4, 3, 2))
    with pytest.raises(ValueError, match=r"path: expected variables that MATLAB wrote, got none in 'other.mat'"):
        load_recording(tmp_path / "other.mat")


def test_other_endings_are_refused_and_capitals_are_not(write, tmp_path):
    with pytest.warns(UserWarning, match="activity"):
        assert_same(load_recording(write(GOOD, "SESSION.MAT")), Recording(**GOOD))
    (tmp_path / "session.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"path: expected a recording that ends in .npz or .mat, got 'session.h5'"):
        load_recording(tmp_path / "session.h5")


@pytest.mark.parametrize("option", [{"names": {"activity": "fr"}}, {"axes": AXES}, {"dt": 0.1}])
def test_npz_files_are_exact(tmp_path, option):
    make_recording().save(tmp_path / "session.npz")
    (name,) = option
    with pytest.raises(ValueError, match=f"{name}: expected None for a .npz file, whose keys are exact"):
        load_recording(tmp_path / "session.npz", **option)


# The command line


@pytest.fixture(scope="module")
def simulated():
    model = lrp.LowRankModel(1, time_constant=0.1)
    simulation = lrp.simulate_recording(
        model, num_neurons=6, num_trials=6, num_bins=20, dt=0.02, num_inputs=1, noise_scale=0.1, seed=0
    )
    activity = np.array(simulation.recording.activity)
    activity[2, 3, 4] = 50.0
    return Recording(activity, 0.02, simulation.recording.inputs)


@pytest.mark.slow
def test_fit_takes_a_matlab_file_and_says_what_it_guessed(write, simulated, tmp_path, capsys):
    session = write({"fr": simulated.activity, "bin_size": 0.02, "u": simulated.inputs[:, :, 0]})
    code, _, err = run(capsys, "fit", session, tmp_path / "fit.nc", "--rank", 1)
    assert code == 0
    assert err == (
        "note: read from 'session.mat': activity <- 'fr' (trial=6, time=20, neuron=6), dt <- 'bin_size' = 0.02 s, "
        "inputs <- 'u' (trial=6, time=20, input=1). What names and axes do not give is a guess.\n"
    )
    fitted = lrp.load_posterior(tmp_path / "fit.nc").recording
    for name in ("activity", "inputs"):
        np.testing.assert_array_equal(getattr(fitted, name), getattr(simulated, name))


@pytest.mark.slow
def test_fit_takes_names_axes_and_dt_and_clips(write, simulated, tmp_path, capsys):
    session = write({"s": {"a": simulated.activity.T, "drive": simulated.inputs.T}, "inputs": 1.0})
    options = ["--name", "activity=s.a", "--name", "inputs=s.drive", "--axes", "neuron,time,trial", "--dt", 0.02]
    code, out, err = run(capsys, "fit", session, tmp_path / "fit.nc", "--rank", 1, *options, "--clip", 99)
    assert (code, err) == (0, "")
    clipped, report = lrp.clip_outliers(simulated, percentile=99)
    assert report.num_clipped.sum() == 1
    assert out.startswith(f"{report}\n")
    fitted = lrp.load_posterior(tmp_path / "fit.nc").recording
    np.testing.assert_array_equal(fitted.activity, clipped.activity)
    np.testing.assert_array_equal(fitted.inputs, simulated.inputs)
    options = [*options, "--name", "inputs=", "--clip", 99, "--json", "--force"]
    code, out, err = run(capsys, "fit", session, tmp_path / "fit.nc", "--rank", 1, *options)
    assert (code, err) == (0, "")
    assert json.loads(out)["clipping"] == {"num_clipped": 1, "num_observed": 720, "num_neurons": 1}
    assert lrp.load_posterior(tmp_path / "fit.nc").recording.num_inputs == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name", "fr"], "--name: expected argument=variable, got 'fr'; write for instance --name activity=fr"),
        (["--name", "rates=fr"], "names: expected one of 'activity'"),
        (["--axes", "neuron,time"], "names: expected a variable for dt"),
        (["--dt", 0.1, "--axes", "neuron-time"], "axes: expected"),
        (["--dt", 0.1, "--clip", 20], "percentile: expected more than 50"),
    ],
)
def test_a_mistake_gets_one_line(tmp_path, capsys, options, message):
    write_v5(tmp_path / "session.mat", {"fr": np.ones(SHAPE)})
    code, out, err = run(capsys, "fit", tmp_path / "session.mat", tmp_path / "fit.nc", "--rank", 1, *options)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
