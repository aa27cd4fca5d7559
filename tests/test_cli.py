"""The command line: four commands on a file that none of our code wrote, and one line for every mistake."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from command_line import run
from plain import plain_model

import lrposterior as lrp
from lrposterior.cli import main
from lrposterior.degeneracy import analyze_degeneracy
from lrposterior.fit_quality import assess_fit
from lrposterior.perturbation.prediction import rank_perturbations

# Fits of as many trials share what was compiled for the first.
HELD_OUT = ["--validation-fraction", "0.3"]
RANK_OPTIONS = ["--candidates", "single", "--draws", "40", "--seed", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session as somebody else writes it, float32 and dt as MATLAB has it, and a fit of it by the command line."""
    folder = tmp_path_factory.mktemp("session")
    random = np.random.default_rng(1)
    num_trials, num_bins, num_neurons = 10, 30, 8
    W = 2.0 * np.outer(random.normal(size=num_neurons), random.normal(size=num_neurons)) / num_neurons
    inputs = np.cumsum(random.normal(size=(num_trials, num_bins, 1)), axis=1) / 4
    current = np.zeros((num_trials, num_bins, num_neurons))
    weights = random.normal(size=num_neurons)
    for time in range(num_bins - 1):
        drive = np.tanh(current[:, time]) @ W.T + inputs[:, time] * weights
        current[:, time + 1] = 0.8 * current[:, time] + 0.2 * drive
    activity = np.tanh(current) + 0.1 * random.normal(size=current.shape)
    np.savez(
        folder / "session.npz",
        activity=activity.astype(np.float32),
        dt=np.array([[0.02]]),
        inputs=inputs,
        cell_types=np.array(["E"] * 6 + ["I"] * 2),
    )
    with pytest.raises(SystemExit) as end:
        main(["fit", str(folder / "session.npz"), str(folder / "fit.nc"), "--rank", "1", *HELD_OUT])
    assert not end.value.code
    return folder


@pytest.mark.slow
def test_from_a_recording_to_a_report_with_four_commands(folder, tmp_path, capsys):
    session, fit = folder / "session.npz", tmp_path / "fit.nc"
    assert run(capsys, "fit", session, fit, "--rank", 1, *HELD_OUT)[0] == 0
    assert run(capsys, "degeneracy", fit)[0] == 0
    assert run(capsys, "rank", fit, *RANK_OPTIONS)[0] == 0
    code, _, err = run(capsys, "report", fit, tmp_path / "report.html", *RANK_OPTIONS)
    assert code == 0
    # A report without the held-out trials tells where they are.
    assert (
        err == f"hint: add --validation {tmp_path / 'fit.validation.npz'} to show how the fit does on held-out trials\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit.nc", "fit.validation.npz", "report.html"]


@pytest.mark.long
@pytest.mark.slow
def test_a_network_with_dales_law_goes_all_the_way_to_a_report(tmp_path, capsys):
    model = lrp.LowRankModel(1, nonlinearity="softplus", background=None, priors=lrp.DaleLoadings(unit=1.0))
    size = {"num_neurons": 8, "num_trials": 8, "num_bins": 25, "num_inputs": 1, "cell_types": ["E"] * 6 + ["I"] * 2}
    lrp.simulate_recording(model, **size, noise_scale=0.1, seed=0).recording.save(tmp_path / "session.npz")
    fit, html = tmp_path / "fit.nc", tmp_path / "report.html"
    options = ["--rank", 1, "--nonlinearity", "softplus", "--background", "none", "--loadings", "dale"]
    for command in (
        ["fit", tmp_path / "session.npz", fit, *options],
        ["degeneracy", fit],
        ["rank", fit, *RANK_OPTIONS],
        ["report", fit, html, *RANK_OPTIONS],
    ):
        code, _, err = run(capsys, *command)
        assert code == 0, err
    assert isinstance(lrp.load_posterior(fit).model.priors, lrp.DaleLoadings)
    assert "magnitudes half-normal, inhibitory I" in html.read_text(encoding="utf-8")


def test_fit_keeps_trials_back_and_the_report_shows_them(folder, tmp_path, capsys):
    posterior, held_out = lrp.load_posterior(folder / "fit.nc"), lrp.load_recording(folder / "fit.validation.npz")
    session = lrp.load_recording(folder / "session.npz")
    training, validation = session.split(0.3, seed=0)
    np.testing.assert_array_equal(posterior.recording.activity, training.activity)
    np.testing.assert_array_equal(held_out.activity, validation.activity)
    html = tmp_path / "report.html"
    options = ["--validation", folder / "fit.validation.npz", *RANK_OPTIONS]
    assert run(capsys, "report", folder / "fit.nc", html, *options)[0] == 0
    expected = f"{100 * assess_fit(posterior, validation).explained_variance:.1f}%"
    assert f"it predicts\n{expected}" in html.read_text(encoding="utf-8")


def test_simulate_writes_what_python_simulates(tmp_path, capsys):
    session, truth = tmp_path / "session.npz", tmp_path / "truth.npz"
    options = ["--neurons", 6, "--trials", 3, "--bins", 20, "--dt", 0.01, "--rank", 1, "--inputs", 1, "--seed", 5]
    code, out, _ = run(capsys, "simulate", session, *options, "--truth", truth, "--json")
    assert code == 0
    assert json.loads(out) == {
        "num_trials": 3,
        "num_bins": 20,
        "num_neurons": 6,
        "num_inputs": 1,
        "dt_s": 0.01,
        "recording": str(session),
        "truth": str(truth),
    }
    expected = lrp.simulate_recording(
        lrp.LowRankModel(1),
        num_neurons=6,
        num_trials=3,
        num_bins=20,
        dt=0.01,
        num_inputs=1,
        noise_scale=0.1,
        seed=5,
    )
    np.testing.assert_array_equal(lrp.load_recording(session).activity, expected.recording.activity)
    with np.load(truth, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["M"], expected.parameters["M"])
        np.testing.assert_array_equal(arrays["rates"], expected.rates)


def test_fit_in_json_agrees_with_python(folder, tmp_path, capsys):
    fit = tmp_path / "fit.nc"
    options = ["--rank", 1, *HELD_OUT, "--restarts", 1, "--json"]
    code, out, err = run(capsys, "fit", folder / "session.npz", fit, *options)
    assert (code, err) == (0, "")
    printed, posterior = json.loads(out), lrp.load_posterior(fit)
    assert printed["posterior"] == str(fit)
    assert printed["validation"] == str(tmp_path / "fit.validation.npz")
    assert printed["objective"] == posterior.statistics.objective
    assert printed["num_iterations"] == posterior.statistics.num_iterations
    assert printed["time_constant_s"] == 0.1
    assert printed["integration_constant"] == pytest.approx(0.2)
    assert printed["time_constant_interval_s"] is printed["integration_constant_interval"] is None
    assert sum(printed["mode_counts"]) == 2
    validation = lrp.load_recording(printed["validation"])
    explained = printed["explained_variance"]
    assert explained["fitted"] == assess_fit(posterior).explained_variance
    assert explained["held_out"] == assess_fit(posterior, validation).explained_variance


def test_diagnose_of_a_recording_says_in_json_what_python_finds(folder, capsys):
    options = ["--rank", 1, "--background", "none", "--loadings", "independent", "--seed", 2, "--draws", 5]
    code, out, err = run(capsys, "diagnose", folder / "session.npz", *options, "--json")
    assert (code, err) == (0, "")
    printed, session = json.loads(out), lrp.load_recording(folder / "session.npz")
    found = lrp.diagnose(plain_model(1), session, num_draws=5, seed=2)
    assert printed["data"]["mean"] == found.data.mean
    assert printed["inputs"]["sd"] == found.inputs.sd.tolist()
    assert printed["untrained"]["level"] == found.untrained.signal.level
    assert printed["untrained"]["weights"]["E -> I"]["highest"] == found.untrained.weights["E -> I"].highest
    assert [verdict["name"] for verdict in printed["verdicts"]] == [verdict.name for verdict in found.verdicts]
    assert printed["trained"] is None


def test_diagnose_of_a_posterior_prints_its_table(folder, capsys):
    held_out = folder / "fit.validation.npz"
    code, out, _ = run(capsys, "diagnose", folder / "fit.nc", "--validation", held_out)
    assert code == 0
    posterior = lrp.load_posterior(folder / "fit.nc")
    assert out == f"{lrp.diagnose(posterior, validation=lrp.load_recording(held_out), seed=0)!r}\n"


@pytest.mark.parametrize(("file", "options", "words"), [("session.npz", [], "a number"), ("fit.nc", [2], "none, for")])
def test_diagnose_asks_for_a_rank_of_recordings_alone(folder, capsys, file, options, words):
    code, _, err = run(capsys, "diagnose", folder / file, *(["--rank", *options] if options else []))
    assert code == 2
    assert f"--rank: expected {words}" in err


def test_the_model_has_a_bulk_and_correlated_loadings_unless_asked_otherwise(folder, tmp_path, monkeypatch, capsys):
    asked = []

    def fit(model, *arguments, **keywords):
        asked.append(model)
        raise lrp.FitError("the model is all that is looked at")

    monkeypatch.setattr("lrposterior.fit", fit)
    for options in ([], ["--background", "none", "--loadings", "independent"]):
        assert run(capsys, "fit", folder / "session.npz", tmp_path / "fit.nc", "--rank", 1, *options)[0] == 2
    assert (type(asked[0].background), type(asked[0].priors)) == (lrp.RandomBulk, lrp.CorrelatedLoadings)
    assert (asked[1].background, type(asked[1].priors)) == (None, lrp.Priors)


def test_fit_takes_the_options_of_the_model(folder, tmp_path, capsys):
    np.save(tmp_path / "W0.npy", np.full((8, 8), 0.01))
    fit = tmp_path / "fit.nc"
    options = ["--rank", 1, "--time-constant", 0.08, "--infer-time-constant", "--nonlinearity", "linear"]
    options += ["--observe", "current", "--initial-state", "free", "--background", tmp_path / "W0.npy"]
    code, out, err = run(capsys, "fit", folder / "session.npz", fit, *options, "--json")
    assert code == 0, err
    posterior, printed = lrp.load_posterior(fit), json.loads(out)
    assert printed["time_constant_interval_s"] == [float(end) for end in posterior.time_constant_interval(seed=0)]
    assert printed["integration_constant"] == 0.02 / printed["time_constant_s"]
    model = posterior.model
    assert model.time_constant == lrp.TimeConstantPrior(0.08)
    assert (model.nonlinearity, model.observation.of, model.initial_state) == ("linear", "current", "free")
    np.testing.assert_array_equal(model.background.to_dense(), 0.01)


SHARED_OPTIONS = (
    "name", "axes", "dt", "clip", "hidden", "embedding", "time-constant", "infer-time-constant", "nonlinearity",
    "observe", "initial-state", "background", "process-noise", "hidden-neurons", "drift", "loadings", "seed", "json",
)  # fmt: skip


def test_diagnose_describes_a_model_as_fit_does(capsys):
    helps = [run(capsys, command, "--help")[1] for command in ("fit", "diagnose")]
    for option in SHARED_OPTIONS:
        for text in helps:
            assert sum(f"{line} ".startswith(f"  --{option} ") for line in text.splitlines()) == 1, option


def test_diagnose_takes_the_options_of_fit(folder, capsys):
    options = ["--rank", 1, "--clip", 99.9, "--nonlinearity", "softplus", "--background", "none", "--loadings", "dale"]
    options += ["--hidden", "E=2", "--hidden", "I=1", "--infer-time-constant", "--initial-state", "free"]
    options += ["--process-noise", "diagonal", "--observe", "current", "--draws", 3]
    code, out, err = run(capsys, "diagnose", folder / "session.npz", *options, "--json")
    assert (code, err) == (0, "")
    printed = json.loads(out)
    recording, clipping = lrp.clip_outliers(lrp.load_recording(folder / "session.npz"), percentile=99.9)
    model = lrp.LowRankModel(
        1,
        lrp.TimeConstantPrior(0.1),
        nonlinearity="softplus",
        observation=lrp.GaussianObservation(of="current"),
        background=None,
        initial_state="free",
        process_noise="diagonal",
        priors=lrp.DaleLoadings(),
    )
    found = lrp.diagnose(model, lrp.add_hidden_neurons(recording, {"E": 2, "I": 1}), num_draws=3, seed=0)
    assert printed["clipping"]["num_clipped"] == clipping.num_clipped.sum()
    assert printed["untrained"]["level"] == found.untrained.signal.level
    assert printed["untrained"]["weights"]["bias -> I"]["highest"] == found.untrained.weights["bias -> I"].highest


@pytest.mark.long
@pytest.mark.slow
def test_hidden_neurons_of_a_type_follow_the_recorded_ones(folder, tmp_path, capsys):
    options = ["--rank", 1, "--nonlinearity", "softplus", "--background", "none", "--loadings", "dale"]
    options += ["--observe", "current", "--method", "match", "--hidden", "I=1"]
    code, out, err = run(capsys, "fit", folder / "session.npz", tmp_path / "fit.nc", *options)
    assert code == 0, err
    posterior = lrp.load_posterior(tmp_path / "fit.nc")
    assert posterior.recording.cell_types == (*["E"] * 6, *["I"] * 2, "I")
    assert not posterior.recording.mask[:, :, 8].any()
    assert posterior.recording.num_trials == 8  # a fifth of ten is held out to know when to stop
    assert "of 8 fitted trials" in out
    assert f"networks: 1, each from a start of its own, after {posterior.statistics.num_iterations} epochs" in out
    assert "--restarts" not in out


@pytest.mark.long
@pytest.mark.slow
def test_fit_takes_spikes_of_single_trials_and_hidden_neurons(tmp_path, capsys):
    spiking = plain_model(1, observation=lrp.PoissonObservation(scale=50.0), process_noise="diagonal")
    simulation = lrp.simulate_recording(spiking, num_neurons=10, num_trials=8, num_bins=50, num_inputs=1, seed=1)
    simulation.recording.save(tmp_path / "session.npz")
    options = ["--rank", 1, "--observe", "count", "--process-noise", "diagonal", "--background", "none"]
    options += ["--hidden-neurons", "0.5", "--loadings", "independent"]
    code, _, err = run(capsys, "fit", tmp_path / "session.npz", tmp_path / "fit.nc", *options)
    assert code == 0, err
    model = lrp.load_posterior(tmp_path / "fit.nc").model
    assert isinstance(model.observation, lrp.PoissonObservation)
    assert (model.process_noise.shape, model.hidden_neurons) == ("diagonal", 0.5)


@pytest.mark.parametrize(
    ("name", "value"), [("--observe", "spikes"), ("--hidden-neurons", "many"), ("--process-noise", "some")]
)
def test_an_option_that_the_model_does_not_have_is_named(folder, tmp_path, capsys, name, value):
    code, _, err = run(capsys, "fit", folder / "session.npz", tmp_path / "fit.nc", "--rank", 1, name, value)
    assert code != 0
    assert name.lstrip("-").replace("-", "_") in err.replace("-", "_")
    assert repr(value) in err


def test_degeneracy_in_json_agrees_with_python(folder, tmp_path, capsys):
    figure = tmp_path / "spectrum.png"
    code, out, err = run(capsys, "degeneracy", folder / "fit.nc", "--threshold", 2, "--figure", figure, "--json")
    assert (code, err) == (0, "")
    printed, analysis = json.loads(out), analyze_degeneracy(lrp.load_posterior(folder / "fit.nc"), 2.0)
    assert printed["num_gauge"] == analysis.num_gauge == 1
    assert printed["num_constrained"] == analysis.num_constrained
    assert printed["information_nats"] == analysis.information
    assert printed["connectivity"]["num_degenerate"] == analysis.connectivity.num_degenerate
    assert printed["spectrum"] == analysis.spectrum.tolist()
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_degeneracy_prints_the_table(folder, capsys):
    analysis = analyze_degeneracy(lrp.load_posterior(folder / "fit.nc"))
    assert run(capsys, "degeneracy", folder / "fit.nc") == (0, f"{analysis}\n", "")


@pytest.mark.parametrize("draw", ["contraction", "subspaces"])
def test_degeneracy_draws_what_is_asked_for(folder, tmp_path, capsys, draw):
    figure = tmp_path / "figure.svg"
    assert run(capsys, "degeneracy", folder / "fit.nc", "--figure", figure, "--draw", draw)[0] == 0
    assert "</svg>" in figure.read_text(encoding="utf-8")


def test_rank_in_json_agrees_with_python(folder, tmp_path, capsys):
    options = [*RANK_OPTIONS, "--power", 2.0, "--onset", 0.2, "--duration", 0.1, "--by", "information", "--top", 3]
    figure = tmp_path / "ranking.pdf"
    code, out, err = run(capsys, "rank", folder / "fit.nc", *options, "--figure", figure, "--json")
    assert (code, err) == (0, "")
    printed, posterior = json.loads(out), lrp.load_posterior(folder / "fit.nc")
    candidates = lrp.single_neuron_candidates(posterior.recording, power=2.0, onset=0.2, duration=0.1)
    ranking = rank_perturbations(posterior, candidates, by="information", num_draws=40, seed=3, progress=False)
    assert [row["label"] for row in printed["top"]] == [ranking.labels[best] for best in ranking.order[:3]]
    assert printed["warnings"] == list(ranking.warnings)
    for row, best in zip(printed["top"], ranking.order, strict=False):
        np.testing.assert_allclose(row["expected_r2"], ranking.expected_r2[best], rtol=1e-12)
        np.testing.assert_allclose(row["information_nats"], ranking.information[best], rtol=1e-12)
        np.testing.assert_allclose(row["power_current2_s"], 2.0)
    assert figure.read_bytes().startswith(b"%PDF")


def test_rank_writes_all_candidates(folder, tmp_path, capsys):
    table, dataset = tmp_path / "ranking.csv", tmp_path / "ranking.nc"
    code, out, _ = run(capsys, "rank", folder / "fit.nc", *RANK_OPTIONS, "--top", 2, "--output", table)
    assert code == 0
    assert len(out.splitlines()) == 5  # what is ranked, the header, two candidates, the file
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    values = [float(row["expected R²"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert run(capsys, "rank", folder / "fit.nc", *RANK_OPTIONS, "--output", dataset)[0] == 0
    with xr.open_dataset(dataset, engine="h5netcdf") as read:
        assert read["response_mean"].sizes["candidate"] == 8
        np.testing.assert_allclose(np.sort(read["expected_r2"])[::-1], values)


def test_rank_joins_kinds_of_candidates(folder, tmp_path, capsys):
    patterns = tmp_path / "patterns.npz"
    np.savez(patterns, patterns=np.eye(8)[:2], labels=np.array(["mine", "yours"]))
    kinds = ["--candidates", "ensemble", "--candidates", "latent", "--candidates", patterns]
    options = [*kinds, "--num-candidates", 3, "--size", 2, "--cell-type", "E", "--top", 20, "--draws", 20, "--json"]
    code, out, _ = run(capsys, "rank", folder / "fit.nc", *options)
    assert code == 0
    labels = sorted(row["label"] for row in json.loads(out)["top"])
    ensembles, latents = [f"E ensemble {index}" for index in range(3)], [f"latent {index}" for index in range(3)]
    assert labels == sorted([*ensembles, *latents, "mine", "yours"])
    code, out, _ = run(capsys, "rank", folder / "fit.nc", "--draws", 5, "--top", 200, "--json")
    assert code == 0
    assert {row["label"].rsplit(" ", 1)[0] for row in json.loads(out)["top"]} == {"neuron", "ensemble", "latent"}


MISTAKES = {
    "no such recording": (["fit", "nothing.npz", "new.nc", "--rank", 1], "got no file at 'nothing.npz'"),
    "no recording": (["fit", "text.npz", "new.nc", "--rank", 1], "no .npz file"),
    "an unknown key": (["fit", "rate.npz", "new.nc", "--rank", 1], "the unknown key 'rate'"),
    "NaN": (["fit", "nan.npz", "new.nc", "--rank", 1], "activity: expected finite numbers"),
    "no rank": (["fit", "session.npz", "new.nc"], "Missing option '--rank'"),
    "rank 0": (["fit", "session.npz", "new.nc", "--rank", 0], "rank: expected an integer >= 1, got 0"),
    "rank of a half": (["fit", "session.npz", "new.nc", "--rank", 0.5], "Invalid value for '--rank'"),
    "rank above the neurons": (["fit", "session.npz", "new.nc", "--rank", 9], "rank: expected at most the 8 neurons"),
    "rank above the data": (["fit", "session.npz", "new.nc", "--rank", 7], "rank: expected"),
    "tau below dt": (
        ["fit", "session.npz", "new.nc", "--rank", 1, "--time-constant", 0.01],
        "--time-constant: expected",
    ),
    "a misspelt name": (
        ["fit", "session.npz", "new.nc", "--rank", 1, "--nonlinearity", "tahn"],
        "did you mean 'tanh'?",
    ),
    "an unknown method": (
        ["fit", "session.npz", "new.nc", "--rank", 1, "--method", "magic"],
        "method: expected one of",
    ),
    "a fraction": (
        ["fit", "session.npz", "new.nc", "--rank", 1, "--validation-fraction", 1.5],
        "validation_fraction: expected a number between 0 and 1",
    ),
    "no such matrix": (
        ["fit", "session.npz", "new.nc", "--rank", 1, "--background", "W0.npy"],
        "--background: expected",
    ),
    "no such loadings": (
        ["fit", "session.npz", "new.nc", "--rank", 1, "--loadings", "some"],
        "--loadings: expected",
    ),
    "hidden neurons without a type": (
        ["fit", "session.npz", "new.nc", "--rank", 1, "--loadings", "dale", "--hidden", "8"],
        "--hidden: expected TYPE=NUMBER, got '8'; write for instance --hidden E=8",
    ),
    "hidden neurons without Dale's law": (
        ["fit", "session.npz", "new.nc", "--rank", 1, "--hidden", "E=8"],
        "--hidden: expected --loadings dale, got 'correlated'",
    ),
    "no matrix": (["fit", "session.npz", "new.nc", "--rank", 1, "--background", "text.npz"], "--background: expected"),
    "an existing file": (["fit", "session.npz", "fit.nc", "--rank", 1], "add --force to replace it"),
    "another ending": (["fit", "session.npz", "fit.h5", "--rank", 1], "FIT.nc: expected a file name that ends in .nc"),
    "no such folder": (["fit", "session.npz", "no/fit.nc", "--rank", 1], "FIT.nc: expected a folder that exists"),
    "an unknown option": (["fit", "session.npz", "new.nc", "--rnk", 1], "No such option: --rnk"),
    "an unknown command": (["fitt"], "No such command 'fitt'"),
    "no such posterior": (["degeneracy", "nothing.nc"], "path: expected a posterior, got no file at 'nothing.nc'"),
    "no posterior": (["degeneracy", "session.npz"], "path: expected a posterior written by Posterior.save"),
    "a negative threshold": (["degeneracy", "fit.nc", "--threshold", -1], "threshold: expected"),
    "an unknown figure": (["degeneracy", "fit.nc", "--draw", "cats"], "--draw: expected one of 'spectrum'"),
    "a figure as .jpg": (["degeneracy", "fit.nc", "--figure", "a.jpg"], "--figure: expected a file name that ends in"),
    "an unknown criterion": (["rank", "fit.nc", "--by", "luck"], "by: expected one of 'certainty'"),
    "unknown candidates": (["rank", "fit.nc", "--candidates", "cats"], "--candidates: expected single, ensemble or"),
    "no such patterns": (["rank", "fit.nc", "--candidates", "cats.npz"], "--candidates: expected patterns"),
    "other patterns": (["rank", "fit.nc", "--candidates", "nan.npz"], "--candidates: expected patterns (.npz), got"),
    "no patterns": (["rank", "fit.nc", "--candidates", "text.npz"], "--candidates: expected patterns (.npz), got"),
    "power 0": (["rank", "fit.nc", "--power", 0], "power: expected one finite number > 0 (in current² s), got 0.0"),
    "a late onset": (["rank", "fit.nc", "--onset", 3], "onset: expected a time before the trial ends at 0.6 s"),
    "an unknown type": (["rank", "fit.nc", "--cell-type", "X"], "cell_type: expected one of 'E', 'I'"),
    "too large an ensemble": (["rank", "fit.nc", "--size", 9], "size: expected an integer from 1 to 8, got 9"),
    "none to show": (["rank", "fit.nc", "--top", 0], "--top: expected an integer >= 1"),
    "one draw": (["rank", "fit.nc", "--draws", 1], "num_draws: expected an integer >= 2"),
    "fitted trials as held out": (
        ["report", "fit.nc", "new.html", "--validation", "session.npz", *RANK_OPTIONS],
        "held_out: expected trials that the fit has not seen",
    ),
    "a report as .pdf": (["report", "fit.nc", "new.pdf"], "REPORT.html: expected a file name that ends in .html"),
    "no neurons": (["simulate", "new.npz", "--neurons", 0], "num_neurons: expected an integer >= 1, got 0"),
    "negative dt": (["simulate", "new.npz", "--dt", -0.1], "dt: expected one finite number > 0 (in s), got -0.1"),
    "somebody's folder": (["demo", "--output", "."], "output: expected a new or empty folder"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_exit_code_2(mistake, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    if not Path("text.npz").exists():
        Path("text.npz").write_text("no archive", encoding="utf-8")
        np.savez("rate.npz", activity=np.ones((2, 5, 3)), dt=0.1, rate=1.0)
        np.savez("nan.npz", activity=np.full((2, 5, 3), np.nan), dt=0.1)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    arguments, text = MISTAKES[mistake]
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("lrposterior: ")
    assert text in err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_failed_fit_is_a_users_error(folder, tmp_path, capsys):
    options = ["--rank", 1, *HELD_OUT, "--max-iterations", 1]
    code, _, err = run(capsys, "fit", folder / "session.npz", tmp_path / "fit.nc", *options)
    assert code == 2
    assert err.startswith("lrposterior: no convergence")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_what_is_there(folder, tmp_path, capsys):
    target = tmp_path / "figure.png"
    target.write_bytes(b"old")
    assert run(capsys, "degeneracy", folder / "fit.nc", "--figure", target)[0] == 2
    assert target.read_bytes() == b"old"
    assert run(capsys, "degeneracy", folder / "fit.nc", "--figure", target, "--force")[0] == 0
    assert target.read_bytes() != b"old"


def test_an_interrupted_fit_leaves_nothing_behind(folder, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr("lrposterior.fit", interrupted)
    options = ["--rank", 1, *HELD_OUT]
    code, out, err = run(capsys, "fit", folder / "session.npz", tmp_path / "fit.nc", *options)
    assert (code, out) == (130, "")
    assert err == "lrposterior: interrupted; no file is left half written\n"
    assert list(tmp_path.iterdir()) == []


def test_a_bug_is_not_hidden(folder, monkeypatch):
    def broken(path):
        raise TypeError("a bug")

    monkeypatch.setattr("lrposterior.storage.load_posterior", broken)
    with pytest.raises(TypeError, match="a bug"):
        main(["degeneracy", str(folder / "fit.nc")])


def test_a_runtime_error_that_is_no_failed_fit_is_not_hidden(folder, monkeypatch):
    def broken(path):
        raise RuntimeError("inside a library")

    monkeypatch.setattr("lrposterior.storage.load_posterior", broken)
    with pytest.raises(RuntimeError, match="inside a library"):
        main(["degeneracy", str(folder / "fit.nc")])


def test_traceback_shows_where_an_error_came_from():
    with pytest.raises(FileNotFoundError):
        main(["--traceback", "degeneracy", "nothing.nc"])


@pytest.mark.parametrize("command", ["simulate", "fit", "diagnose", "degeneracy", "rank", "report", "demo"])
def test_help_shows_units_and_an_example(command, capsys):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"\n    lrposterior {command} " in out
    units = {"simulate": "in s.", "fit": "in s;", "degeneracy": "nats", "rank": "current² s", "report": "current² s"}
    assert units.get(command, "") in out
    assert "\b" not in out


def test_without_a_command_it_shows_what_there_is(capsys):
    code, out, err = run(capsys)
    assert (code, out) == (2, "")
    for command in ("simulate", "fit", "diagnose", "degeneracy", "rank", "report", "demo"):
        assert f"  {command} " in err


def test_as_a_process_it_keeps_compiled_code_where_it_belongs(tmp_path):
    """Twice, since XLA complains when it reads back what it compiled: that must not reach the user."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    # A fast machine compiles everything in less time than is worth keeping.
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = str(Path(lrp.__file__).parents[1])
    size = ["--neurons", "3", "--trials", "2", "--bins", "5", "--rank", "1", "--inputs", "1"]
    for name in ("compiled.npz", "read.npz"):
        command = [sys.executable, "-m", "lrposterior.cli", "simulate", str(tmp_path / name), *size]
        done = subprocess.run(
            [*command, "--json"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["num_neurons"] == 3
    if sys.platform == "linux":
        assert any((tmp_path / "cache" / "lrposterior" / "jax").glob("*/*"))
