"""Posteriors through files: what comes back is the same to the bit, and every file that is none says so."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import typing

import h5py
import numpy as np
import pytest
import scipy.sparse
import xarray as xr
from handmade import NEURONS, STATISTICS, assert_same, fit_small_recording, make_posterior, make_recording
from plain import plain_model

import lrposterior as lrp
from lrposterior import storage
from lrposterior.distribution import ParameterDistribution, StructuredDistribution
from lrposterior.structured.information import StructuredInformation
from lrposterior.structured.layout import Layout


def random_matrix(density=1.0):
    random = np.random.default_rng(3)
    return random.standard_normal((NEURONS, NEURONS)) * (random.random((NEURONS, NEURONS)) < density) / NEURONS


def unordered_sparse():
    return scipy.sparse.coo_array(([0.1, -0.2, 0.0, 1 / 3], ([4, 0, 2, 0], [1, 3, 2, 0])), shape=(NEURONS, NEURONS))


FOREIGN = "path: expected a posterior written by Posterior.save, got "
SIGNATURE_SIZE = 8


MODELS = {
    "plain": plain_model(rank=2),
    "numpy scalars": plain_model(rank=np.int64(3), time_constant=np.float64(0.1) / 3),
    "time constant and initial state inferred": plain_model(
        rank=1, time_constant=lrp.TimeConstantPrior(0.07, spread=0.3), initial_state="free"
    ),
    "other choices": plain_model(
        rank=2,
        nonlinearity="softplus",
        observation=lrp.GaussianObservation(of="current"),
        priors=lrp.Priors(M=0.1, K=7.0),
    ),
    "dense background": plain_model(rank=2, background=lrp.FixedBackground(random_matrix())),
    "sparse background": plain_model(
        rank=2, background=lrp.FixedBackground(scipy.sparse.csr_array(random_matrix(0.3)))
    ),
    "unordered sparse background": plain_model(rank=2, background=lrp.FixedBackground(unordered_sparse())),
    "empty sparse background": plain_model(
        rank=2, background=lrp.FixedBackground(scipy.sparse.csr_array((NEURONS, NEURONS)))
    ),
    "time constants by cell type": plain_model(
        rank=2, time_constant={"I": lrp.TimeConstantPrior(0.07, spread=0.3), "E": 0.1}
    ),
    "time constants by neuron": plain_model(rank=2, time_constant=lrp.PerNeuron(lrp.TimeConstantPrior(0.07))),
    "integration constants by cell type": plain_model(
        rank=2, time_constant={"I": lrp.IntegrationConstantPrior(0.4), "E": lrp.IntegrationConstant(0.2)}
    ),
    "correlated loadings by cell type": plain_model(rank=1, priors=lrp.CorrelatedLoadings(by_cell_type=True)),
    "known factors": plain_model(
        rank=2, background=lrp.FixedBackground(left=random_matrix()[:, :2], right=random_matrix()[:, 2:4])
    ),
    "sparse background and known factors": plain_model(
        rank=2,
        background=lrp.FixedBackground(
            scipy.sparse.csr_array(random_matrix(0.3)), random_matrix()[:, :1], random_matrix()[:, 2:3]
        ),
    ),
}


NUMBERS = {"B": 1.0, "b": 1.0, "initial_kappa": 1.0}


@pytest.fixture(scope="module")
def posterior():
    return make_posterior()


@pytest.fixture
def saved(posterior, tmp_path):
    path = tmp_path / "fit.nc"
    posterior.save(path)
    return path


# ---------------------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("chains", [False, True], ids=["normal", "chains"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_round_trip_is_exact(tmp_path, model, chains):
    original = make_posterior(model, chains=chains)
    original.save(tmp_path / "fit.nc")
    loaded = lrp.load_posterior(tmp_path / "fit.nc")
    assert_same(original, loaded)
    for draws, again in (
        (original.mode, loaded.mode),
        (original.sample_parameters(20, seed=4), loaded.sample_parameters(20, seed=4)),
    ):
        assert list(draws) == list(again)
        for name, values in draws.items():
            assert values.tobytes() == again[name].tobytes(), name
    np.testing.assert_array_equal(original.connectivity_sd(), loaded.connectivity_sd())
    rates = original.predict_rates(num_draws=3, seed=0), loaded.predict_rates(num_draws=3, seed=0)
    np.testing.assert_array_equal(*rates)


def test_round_trip_of_a_recording_with_activity_only_and_of_absent_statistics(tmp_path):
    absent = lrp.FitStatistics(1.0, 0.0, 0.0, 0, 0.0, None, "")
    original = make_posterior(recording=make_recording(bare=True), statistics=absent)
    original.save(tmp_path / "fit.nc")
    loaded = lrp.load_posterior(tmp_path / "fit.nc")
    assert_same(original, loaded)
    assert loaded.statistics.log_evidence is None
    assert loaded.recording.num_inputs == 0


@pytest.mark.parametrize(
    "labels", [["", "", "", "", ""], ["a", "ab", "abc", "x" * 300, " "], ["é", "\N{SNOWMAN}", "\n", '"', "\\"]]
)
def test_labels_keep_every_character(tmp_path, labels):
    original = make_posterior(recording=make_recording(cell_types=labels))
    original.save(tmp_path / "fit.nc")
    assert lrp.load_posterior(tmp_path / "fit.nc").recording.cell_types == tuple(labels)


def test_fitted_posterior_survives_and_saves_again(tmp_path):
    fitted = fit_small_recording()
    fitted.save(tmp_path / "one.nc")
    loaded = lrp.Posterior.load(str(tmp_path / "one.nc"))
    loaded.save(tmp_path / "two.nc")
    again = lrp.load_posterior(tmp_path / "two.nc")
    assert_same(fitted, loaded)
    assert_same(fitted, again)
    assert fitted.sample_parameters(5, seed=1)["M"].tobytes() == again.sample_parameters(5, seed=1)["M"].tobytes()
    assert repr(fitted) == repr(again)


@pytest.mark.usefixtures("structured_fits")
@pytest.mark.parametrize("inferred", [False, True], ids=["one component", "mixture"])
def test_fit_of_any_size_survives(tmp_path, inferred):
    model = lrp.LowRankModel(
        1,
        initial_state="free",
        background=lrp.RandomBulk(gain=0.5, dimension=2),
        priors=lrp.CorrelatedLoadings(K=lrp.ScalePrior(1.0, 0.5) if inferred else 1.0, **NUMBERS),
    )
    simulation = lrp.simulate_recording(
        plain_model(1), num_neurons=6, num_trials=3, num_bins=20, num_inputs=1, noise_scale=0.1, seed=3
    )
    fitted = lrp.fit(model, simulation.recording, seed=0, progress=False)
    assert isinstance(fitted.distribution, StructuredDistribution)
    assert (fitted.distribution.num_components > 1) is inferred
    fitted.save(tmp_path / "fit.nc")
    loaded = lrp.load_posterior(tmp_path / "fit.nc")
    assert_same(fitted, loaded)
    for one, other in (
        (fitted.distribution.sample(5, seed=1), loaded.distribution.sample(5, seed=1)),
        (fitted.connectivity_sd(), loaded.connectivity_sd()),
    ):
        assert one.tobytes() == other.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        loaded.distribution.information.factor[...] = 0.0


def test_another_process_draws_the_same(posterior, saved):
    script = (
        "import sys, lrposterior\n"
        "draws = lrposterior.load_posterior(sys.argv[1]).sample_parameters(9, seed=2)\n"
        "print(b''.join(draws[name].tobytes() for name in sorted(draws)).hex())\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(saved)], capture_output=True, text=True, check=True)
    draws = posterior.sample_parameters(9, seed=2)
    assert result.stdout.strip() == b"".join(draws[name].tobytes() for name in sorted(draws)).hex()


def test_loaded_posterior_is_immutable(saved):
    loaded = lrp.load_posterior(saved)
    for array in (loaded.mode_coordinates, loaded.distribution.scale, loaded.recording.activity, loaded.mode["M"]):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


def test_new_file_replaces_the_old_one_and_leaves_nothing_beside_it(saved):
    other = make_posterior(seed=9)
    other.save(saved)
    assert_same(other, lrp.load_posterior(saved))
    assert os.listdir(saved.parent) == ["fit.nc"]


# ---------------------------------------------------------------------------------------------------------- the format


def test_every_field_has_its_place_in_the_file():
    def names(kind):
        return {field.name for field in dataclasses.fields(kind)}

    assert set(storage.RECORDING_AXES) == names(lrp.Recording)
    beside = {"diagnostic_names", "diagnostic_values", "scale_names", "scale_values"}
    assert set(storage.STATISTICS_AXES) - beside == names(lrp.FitStatistics) - {
        "evidence_note",
        "diagnostics",
        "scales",
    }
    assert set(storage.DISTRIBUTIONS.values()) == set(typing.get_args(ParameterDistribution))
    flattened = {
        "components": {"location", "scale", "num_columns"},
        "information": names(StructuredInformation) - {"layout"} | names(Layout),
    }
    for name, kind in storage.DISTRIBUTIONS.items():
        assert set(storage.DISTRIBUTION_AXES[name]) == set().union(*(flattened.get(one, {one}) for one in names(kind)))
    for field in dataclasses.fields(lrp.FitStatistics):
        value = getattr(STATISTICS, field.name)
        assert value is not field.default, f"{field.name} is not tried by these tests"
        assert np.size(value), f"{field.name} is not tried by these tests"


def test_axes_are_named_and_nothing_is_an_object(saved):
    with xr.open_dataset(saved, group="recording", engine="h5netcdf") as recording:
        assert recording.activity.dims == ("trial", "time", "neuron")
        assert recording.inputs.dims == ("trial", "time", "input")
        assert recording.neuron_labels.dims == ("neuron",)
        assert recording.dt.attrs["units"] == "s"
        assert recording["mask"].dtype == bool
    with xr.open_dataset(saved, group="distribution", engine="h5netcdf") as distribution:
        assert distribution.scale.dims == ("coordinate", "column")
    kinds = set()
    with h5py.File(saved) as file:
        assert file.attrs["format"] == "lrposterior posterior"
        assert file.attrs["package_version"] == lrp.__version__
        assert json.loads(file.attrs["configuration"])["model"]["observation"] == {
            "class": "GaussianObservation",
            "of": "rate",
        }
        file.visititems(lambda _, item: kinds.add(item.dtype.kind) if isinstance(item, h5py.Dataset) else None)
    assert kinds <= set("fiSub")


@pytest.mark.parametrize(("part", "change"), [("model", "observation"), ("distribution", None)])
def test_class_that_the_format_does_not_know_is_refused(tmp_path, posterior, part, change):
    class Mine(lrp.GaussianObservation):
        pass

    strange = Mine() if change else type("Mine", (type(posterior.distribution),), {})(*2 * [np.zeros((3, 3))])
    changed = dataclasses.replace(posterior.model, **{change: strange}) if change else strange
    with pytest.raises(ValueError, match=r"posterior: expected parts of the classes .*, got Mine; .*keep the fit"):
        dataclasses.replace(posterior, **{part: changed}).save(tmp_path / "fit.nc")
    assert not os.listdir(tmp_path)


# ------------------------------------------------------------------------------------------------------------ writing


class FullDisk(OSError):
    pass


@pytest.mark.parametrize("error", [FullDisk, KeyboardInterrupt])
@pytest.mark.parametrize("moment", ["within a group", "between groups", "at the end"])
def test_failed_write_leaves_the_old_file_and_nothing_else(posterior, saved, monkeypatch, error, moment):
    before = saved.read_bytes()
    write = xr.Dataset.to_netcdf
    touched = []

    def fail(*_, **__):
        raise error

    def write_some(dataset, path, *, group, **options):
        touched.append(path)
        if group == "statistics":
            fail()
        return write(dataset, path, group=group, **options)

    if moment == "within a group":
        create = h5py.Group.create_dataset
        monkeypatch.setattr(
            h5py.Group, "create_dataset", lambda *a, **k: fail() if touched else touched.append(1) or create(*a, **k)
        )
    elif moment == "between groups":
        monkeypatch.setattr(xr.Dataset, "to_netcdf", write_some)
    else:
        monkeypatch.setattr(os, "replace", lambda *arguments: touched.append(arguments) or fail())
    with pytest.raises(error):
        make_posterior(seed=1).save(saved)
    monkeypatch.undo()
    assert touched
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == ["fit.nc"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fit.npz", "path: expected a file name that ends in .nc, got 'fit.npz'; add .nc"),
        ("fit", "path: expected a file name that ends in .nc, got 'fit'; add .nc"),
        ("absent/fit.nc", "path: expected a folder that exists, got "),
        ("folder.nc", "path: expected the name of a file, got the folder "),
    ],
)
def test_names_that_cannot_be_written(posterior, tmp_path, name, message):
    (tmp_path / "folder.nc").mkdir()
    with pytest.raises(ValueError, match=re.escape(message)):
        posterior.save(tmp_path / name)
    assert os.listdir(tmp_path) == ["folder.nc"]


# ------------------------------------------------------------------------------------------------------------ reading


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path: expected a posterior, got no file at '.*absent\.nc'; check"):
        lrp.load_posterior(tmp_path / "absent.nc")


def test_folder(tmp_path):
    with pytest.raises(ValueError, match=r"path: expected a posterior, got the folder '.*'; name the file"):
        lrp.load_posterior(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.02, 0.3, 0.7, 0.99, 0.99999])
def test_truncated_file(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    expected = "is cut short, damaged or changed" if share > 0.2 else "is no NetCDF-4 file|a NetCDF or HDF5 file of"
    with pytest.raises(ValueError, match=rf"path: expected a posterior .*fit\.nc', (which )?({expected})"):
        lrp.load_posterior(saved)


@pytest.mark.parametrize("size", [1, 400, 4096, None], ids=["one byte", "short hole", "page", "tail"])
def test_damage_anywhere_is_found(saved, size):
    """Zeros, as a copy that was cut off leaves them: HDF5 takes those within numbers for zeros."""
    content = saved.read_bytes()
    for start in np.random.default_rng(0).integers(SIGNATURE_SIZE, len(content) - 1, size=10):
        stop = len(content) if size is None else min(start + size, len(content))
        hole = bytes(stop - start) if size != 1 else bytes([content[start] ^ 1])
        damaged = content[:start] + hole + content[stop:]
        if damaged == content:  # free space: zeros as it is
            continue
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match=re.escape(FOREIGN)):
            lrp.load_posterior(saved)


@pytest.mark.parametrize("kind", ["text", "recording", "another NetCDF", "another HDF5", "ArviZ"])
def test_foreign_file(tmp_path, posterior, kind):
    path = tmp_path / "fit.nc"
    expected = "a NetCDF or HDF5 file of another kind; name a file that holds a fit"
    if kind == "text":
        path.write_text("trial,time,neuron\n" * 100)
        expected = "which is no NetCDF-4 file; name a file that ends in .nc"
    elif kind == "recording":
        posterior.recording.save(tmp_path / "recording.npz")
        os.replace(tmp_path / "recording.npz", path)
        expected = "which is no NetCDF-4 file; name a file that ends in .nc"
    elif kind == "another NetCDF":
        xr.Dataset({"activity": ("time", np.arange(3.0))}).to_netcdf(path, engine="h5netcdf")
    elif kind == "another HDF5":
        with h5py.File(path, "w") as file:
            file["x"] = 1.0
    else:
        posterior.to_arviz(3, seed=0).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match=re.escape(FOREIGN)) as caught:
        lrp.load_posterior(path)
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


def _set(name, value):
    return lambda file: file.attrs.__setitem__(name, value)


def _configure(*keys, value):
    def change(file):
        configuration = inner = json.loads(file.attrs["configuration"])
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        file.attrs["configuration"] = json.dumps(configuration)

    return change


def _delete(name):
    def change(file):
        del file[name]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("format_version", 2), r"in format version 2 of lrposterior 0\.1\.0; this is lrposterior .*: upgrade it"),
        (_configure("model", "class", value="RandomModel"), "contents do not fit.*RandomModel"),
        (_configure("model", "nonlinearity", value="tan"), "contents do not fit.*did you mean 'tanh'"),
        (_configure("model", "colour", value="red"), "contents do not fit.*colour"),
        (_configure("model", "rank", value=3), r"do not fit \(the distribution does not have the \d+ coordinates"),
        (_configure("distribution", value="Cauchy"), "contents do not fit.*Cauchy"),
        (_configure("background", value={"class": "Bulk"}), "contents do not fit"),
        (_delete("recording/activity"), "contents do not fit.*activity"),
        (_delete("statistics/objective"), "contents do not fit.*objective"),
        (_delete("distribution/scale"), "contents do not fit.*scale"),
    ],
)
def test_intact_files_that_do_not_hold_what_they_should(saved, change, message):
    with h5py.File(saved, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=rf"{FOREIGN}'.*fit.nc', which is cut short, damaged or changed since it was"):
        lrp.load_posterior(saved)
    storage._seal(saved)
    with pytest.raises(ValueError, match=rf"{FOREIGN}'.*fit.nc', .*{message}"):
        lrp.load_posterior(saved)


def test_distribution_of_another_model_is_refused(saved):
    other = {"location": ("coordinate", np.zeros(3)), "scale": (("coordinate", "column"), np.eye(3))}
    with h5py.File(saved, "r+") as file:
        del file["distribution"]
    xr.Dataset(other).to_netcdf(saved, mode="a", group="distribution", engine="h5netcdf")
    storage._seal(saved)
    with pytest.raises(ValueError, match=r"do not fit \(the distribution does not have the \d+ coordinates of"):
        lrp.load_posterior(saved)
