"""Files of embeddings: new inputs are embedded to the bit as the old were; other files are refused with the reason."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lrposterior as lrp
from lrposterior.embedding_file import FORMAT_VERSION
from lrposterior.inference.learned_embedding import EmbeddingToLearn

EMBEDDINGS = {
    "random": lrp.RandomEmbedding(5, seed=3),
    "learned": lrp.LearnedEmbedding(np.random.default_rng(1).standard_normal((3, 5)) / 3.0),
    "lags": lrp.LaggedInputs(2),
    "polynomial": lrp.PolynomialInputs(),
}


def recording(seed: int) -> lrp.Recording:
    random = np.random.default_rng(seed)
    return lrp.Recording(random.normal(size=(4, 7, 2)), 0.02, inputs=random.normal(size=(4, 7, 3)))


def changed(path: Path, **changes) -> Path:
    """The file with other arrays in it; None takes one out."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_new_inputs_are_embedded_as_the_old_were(name, tmp_path):
    embedding, path = EMBEDDINGS[name], tmp_path / "embedding.npz"
    lrp.save_embedding(embedding, path)
    again, new = lrp.load_embedding(path), recording(seed=9)
    assert type(again) is type(embedding)
    np.testing.assert_array_equal(lrp.embed_inputs(new, again).inputs, lrp.embed_inputs(new, embedding).inputs)
    assert [file.name for file in tmp_path.iterdir()] == ["embedding.npz"]


@pytest.mark.parametrize(
    "embedding", [lrp.RandomEmbedding(5, seed=2**70), lrp.LaggedInputs(np.int64(2)), lrp.PolynomialInputs()]
)
def test_what_has_no_arrays_comes_back_equal(embedding, tmp_path):
    lrp.save_embedding(embedding, tmp_path / "embedding.npz")
    assert lrp.load_embedding(tmp_path / "embedding.npz") == embedding


def test_a_random_layer_that_would_be_another_one_is_refused(tmp_path):
    """NumPy may change its streams of random numbers from version to version (NEP 19)."""
    lrp.save_embedding(EMBEDDINGS["random"], tmp_path / "embedding.npz")
    path = changed(tmp_path / "embedding.npz", sample=np.zeros(5), numpy_version="0.9")
    with pytest.raises(ValueError, match=r"a random layer of NumPy 0\.9, which NumPy .* draws otherwise; load it with"):
        lrp.load_embedding(path)


def test_other_files_are_refused_with_the_reason(tmp_path):
    good, text, folder = tmp_path / "good.npz", tmp_path / "text.npz", tmp_path / "folder.npz"
    lrp.save_embedding(EMBEDDINGS["learned"], good)
    content = good.read_bytes()
    text.write_text("no archive", encoding="utf-8")
    folder.mkdir()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    middle = content.index(b"projection.npy") + 60
    (tmp_path / "flipped.npz").write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    recording(seed=0).save(tmp_path / "session.npz")
    changes: dict[str, dict[str, Any]] = {
        "later.npz": {"format_version": FORMAT_VERSION + 1},
        "unmarked.npz": {"format": "another"},
        "undated.npz": {"format_version": None},
        "undatable.npz": {"format_version": "one"},
        "strange.npz": {"kind": "Fourier"},
        "empty.npz": {"projection": None},
    }
    for name, change in changes.items():
        changed(Path(shutil.copy(good, tmp_path / name)), **change)
    for name, words in {
        "text.npz": "which is no .npz file or is cut short; save the embedding again",
        "cut.npz": "which is no .npz file or is cut short; save the embedding again",
        "flipped.npz": r"which is damaged \(.*\); copy it again",
        "session.npz": "with activity, dt, inputs in it but without format, .* or name another file",
        "unmarked.npz": "a file of the format 'another'; save",
        "undated.npz": "in it but without format_version; save",
        "undatable.npz": "in format version one; this",
        "strange.npz": "of the unknown kind 'Fourier'; the kinds are .*RandomEmbedding",
        "empty.npz": r"whose contents do not fit \(.*'projection'.*\); save",
        "later.npz": f"in format version {FORMAT_VERSION + 1}; this lrposterior reads up to version",
        "folder.npz": "the folder .*; name the file in it",
    }.items():
        with pytest.raises(ValueError, match=f"path: expected an embedding written by save_embedding, got .*{words}"):
            lrp.load_embedding(tmp_path / name)
    with pytest.raises(
        FileNotFoundError, match="path: expected an embedding written by save_embedding, got no file at"
    ):
        lrp.load_embedding(tmp_path / "nothing.npz")


def test_bad_arguments_are_named(tmp_path):
    for embedding, path, words in (
        (EmbeddingToLearn(3, seed=0), "a.npz", "embedding: expected RandomEmbedding, .*, got EmbeddingToLearn"),
        (EMBEDDINGS["lags"], "a.nc", "path: expected a file name that ends in .npz, got 'a.nc'"),
        (EMBEDDINGS["lags"], "no/a.npz", "path: expected a folder that exists"),
    ):
        with pytest.raises(ValueError, match=words):
            lrp.save_embedding(embedding, tmp_path / path)
    assert not list(tmp_path.iterdir())
