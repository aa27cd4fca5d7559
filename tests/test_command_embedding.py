"""Embeddings on the command line: of a kind, learned, and from the file of an earlier fit."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from plain import plain_model

import lrposterior as lrp

PLAIN = ["--rank", 1, "--background", "none", "--loadings", "independent"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions of one network, with two inputs."""
    folder = tmp_path_factory.mktemp("sessions")
    size = {"num_neurons": 6, "num_trials": 8, "num_bins": 15, "num_inputs": 2, "noise_scale": 0.1}
    for seed, name in enumerate(("session", "next")):
        lrp.simulate_recording(plain_model(1), **size, seed=seed).recording.save(folder / f"{name}.npz")
    return folder


@pytest.mark.slow
def test_a_fit_writes_its_embedding_and_another_session_takes_it(folder, tmp_path, capsys):
    options = [*PLAIN, "--validation-fraction", 0.25]
    first, second = tmp_path / "fit.nc", tmp_path / "next.nc"
    words = ["--embedding", "random,width=3,seed=5"]
    code, out, err = run(capsys, "fit", folder / "session.npz", first, *options, *words)
    assert code == 0, err
    assert out.endswith(f"written: {first}, {tmp_path / 'fit.validation.npz'}, {tmp_path / 'fit.embedding.npz'}\n")
    embedding = lrp.RandomEmbedding(3, seed=5)
    assert lrp.load_embedding(tmp_path / "fit.embedding.npz") == embedding
    parts = lrp.load_recording(folder / "session.npz").split(0.25, seed=0)
    fitted, held_out = lrp.load_posterior(first).recording, lrp.load_recording(tmp_path / "fit.validation.npz")
    for found, part in zip((fitted, held_out), parts, strict=True):
        np.testing.assert_array_equal(found.inputs, lrp.embed_inputs(part, embedding).inputs)
    words = ["--embedding", tmp_path / "fit.embedding.npz", "--json"]
    code, out, err = run(capsys, "fit", folder / "next.npz", second, *options, *words)
    assert code == 0, err
    assert json.loads(out)["embedding"] == str(tmp_path / "next.embedding.npz")
    training, _ = lrp.load_recording(folder / "next.npz").split(0.25, seed=0)
    expected = lrp.embed_inputs(training, embedding)
    np.testing.assert_array_equal(lrp.load_posterior(second).recording.inputs, expected.inputs)
    assert lrp.load_embedding(tmp_path / "next.embedding.npz") == embedding


@pytest.mark.long
@pytest.mark.slow
def test_a_learned_layer_learns_from_the_fitted_trials_by_the_options_of_the_fit(folder, tmp_path, capsys):
    options = ["--method", "match,num_epochs=4,warm_up=2,ramp=1", "--embedding", "learned,width=3,seed=2"]
    session = folder / "session.npz"
    code, _, err = run(
        capsys, "fit", session, tmp_path / "fit.nc", *PLAIN, *options, "--validation-fraction", 0.25, "--seed", 1
    )
    assert code == 0, err
    training, _ = lrp.load_recording(session).split(0.25, seed=1)
    method = lrp.Match(num_epochs=4, warm_up=2, ramp=1)
    expected = lrp.learn_embedding(plain_model(1), training, 3, method=method, seed=2, progress=False)
    found = lrp.load_embedding(tmp_path / "fit.embedding.npz")
    assert isinstance(found, lrp.LearnedEmbedding)
    np.testing.assert_array_equal(found.projection, expected.projection)


def test_diagnose_embeds_as_fit_does(folder, capsys):
    words = ["--embedding", "polynomial", "--draws", 3, "--json"]
    code, out, err = run(capsys, "diagnose", folder / "session.npz", *PLAIN, *words)
    assert code == 0, err
    embedded = lrp.embed_inputs(lrp.load_recording(folder / "session.npz"), lrp.PolynomialInputs())
    assert (
        json.loads(out)["inputs"]["sd"]
        == lrp.diagnose(plain_model(1), embedded, num_draws=3, seed=0).inputs.sd.tolist()
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "lag,lags=2",
            "--embedding: expected one of 'none', 'random', 'learned', 'lags', 'polynomial', got 'lag,lags=2'",
        ),
        ("lags", "--embedding: expected a value for lags, got none"),
        ("lags,lags=0", "--embedding: embedding.lags: expected an integer >= 1, got 0"),
        ("random,width=3", "--embedding: expected a value for seed, got none"),
        (
            "session.npz",
            "--embedding: expected an embedding written by save_embedding, got 'session.npz', with activity, dt",
        ),
        ("nothing.npz", "--embedding: expected an embedding written by save_embedding, got no file at 'nothing.npz'"),
        (
            "three.npz",
            "recording: expected the 3 inputs of the embedding, got 2; give the inputs",
        ),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(folder, monkeypatch, capsys, words, message):
    monkeypatch.chdir(folder)
    lrp.save_embedding(lrp.LearnedEmbedding(np.ones((3, 2))), "three.npz")
    before = sorted(folder.iterdir())
    code, out, err = run(capsys, "fit", "session.npz", "fit.nc", *PLAIN, "--embedding", words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert sorted(folder.iterdir()) == before


def test_an_embedding_of_that_name_is_not_replaced(folder, tmp_path, capsys):
    (tmp_path / "fit.embedding.npz").write_bytes(b"old")
    options = [*PLAIN, "--embedding", "polynomial"]
    code, _, err = run(capsys, "fit", folder / "session.npz", tmp_path / "fit.nc", *options)
    assert code == 2
    assert "--embedding: expected the name of a new file" in err
    assert (tmp_path / "fit.embedding.npz").read_bytes() == b"old"
