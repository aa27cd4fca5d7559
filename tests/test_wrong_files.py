"""Whatever loads a file of ours names the argument, the file and what came, where it is another file or damaged."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from handmade import make_posterior, make_recording

import lrposterior as lrp
from lrposterior.matching import checkpoint
from lrposterior.npz_files import read_npz
from lrposterior.options import load_matrix
from lrposterior.sweep import SweepResult
from lrposterior.sweep.plan import load_plan
from lrposterior.sweep.store import RunStore


def load_readout(path: Path) -> lrp.Readout:
    return lrp.Readout.load(path, make_posterior())


# By the ending of their files: the argument that errors name, what should have come, and the loader.
LOADERS: dict[str, tuple[str, str, str, Callable[[Path], Any]]] = {
    "recording": ("a.npz", "path", "a recording", lrp.load_recording),
    "embedding": ("a.npz", "path", "an embedding", lrp.load_embedding),
    "readout": ("a.npz", "path", "a readout", load_readout),
    "posterior": ("a.nc", "path", "a posterior", lrp.load_posterior),
    "sweep": ("a.nc", "path", "a result written by SweepResult.save", SweepResult.load),
    "sparse matrix": ("a.npz", "background", "", lambda path: load_matrix(path, "background")),
    "matrix": ("a.npy", "background", "", lambda path: load_matrix(path, "background")),
    "plan": ("a.toml", "plan", "", load_plan),
}


def another_archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, cats=np.arange(3))


def half_an_archive(path: Path) -> None:
    another_archive(path)
    path.write_bytes(path.read_bytes()[:100])


WRONG: dict[str, Callable[[Path], object]] = {
    "a text": lambda path: path.write_bytes(b"cats = ["),
    "no text": lambda path: path.write_bytes(bytes(range(256))),
    "an archive of something else": another_archive,
    "half an archive": half_an_archive,
    "a NetCDF file of something else": lambda path: xr.Dataset({"cats": ("paw", np.arange(4))}).to_netcdf(
        path, engine="h5netcdf"
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("loader", LOADERS)
def test_a_file_of_another_kind_is_refused(loader, wrong, tmp_path):
    file_name, argument, what, load = LOADERS[loader]
    WRONG[wrong](tmp_path / file_name)
    with pytest.raises(ValueError, match=rf"^{argument}: expected {what}.*, got .*{file_name}'?.*; \w+"):
        load(tmp_path / file_name)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_missing_file_is_named(loader, tmp_path):
    file_name, argument, what, load = LOADERS[loader]
    expected = re.escape(str(tmp_path / file_name))
    with pytest.raises(FileNotFoundError, match=rf"^{argument}: expected {what}.*, got no file at '{expected}'; .+"):
        load(tmp_path / file_name)


def test_pickles_and_members_that_are_no_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", cats=np.array([{}, None]))
    with pytest.raises(ValueError, match=r"cats: expected an array .*, got Python objects \(a pickle\)"):
        read_npz(tmp_path / "a.npz", "path", "cats", "draw some", ("cats",))
    with pytest.raises(ValueError, match=r"path: expected cats, got 'a.npz', with cats in it but without dogs; draw"):
        read_npz(tmp_path / "a.npz", "path", "cats", "draw some", ("cats", "dogs"))


def test_a_readout_of_another_kind_of_file_says_what_is_in_it(tmp_path):
    make_recording(bare=True).save(tmp_path / "session.npz")
    words = "'session.npz', with activity, dt in it but without mode, W_out, b_out, noise_scale, seed; name a file that"
    with pytest.raises(ValueError, match=f"path: expected a readout, got {words}"):
        load_readout(tmp_path / "session.npz")


@pytest.mark.parametrize("wrong", ["a text", "an archive of something else", "half an archive"])
def test_a_checkpoint_of_another_kind_is_refused_before_it_is_compared(wrong, tmp_path):
    WRONG[wrong](tmp_path / "fit.npz")
    matching: Any = None
    with pytest.raises(
        ValueError, match=r"checkpoint: expected a checkpoint of this fit, got 'fit.npz', w.*begin anew"
    ):
        checkpoint.load_courses(tmp_path / "fit.npz", matching)


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"scores": None})])
def test_a_damaged_run_of_a_sweep_is_named(content, tmp_path):
    validation: Any = None
    (tmp_path / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"folder: expected finished runs, got '.*run.json', which .*; remove the file"
    ):
        RunStore(tmp_path, "recording", validation).load("run")
