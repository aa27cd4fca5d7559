"""The demo: the whole job at a small size, with results that agree with the truth it knows."""

import numpy as np
import pytest

import lrposterior as lrp
from lrposterior import demo


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    sizes = {"NUM_NEURONS": 8, "NUM_TRIALS": 10, "NUM_BINS": 24, "NUM_INPUTS": 1, "RANK": 1, "VALIDATION_FRACTION": 0.4}
    sizes |= {"NUM_ENSEMBLES": 4, "ENSEMBLE_SIZE": 3, "NUM_LATENTS": 3, "NUM_CONDITIONS": 2}
    for name, value in sizes.items():
        monkeypatch.setattr(demo, name, value)


@pytest.mark.long
@pytest.mark.slow
def test_it_writes_all_that_it_lists_and_agrees_with_the_files(tmp_path, capsys):
    folder = tmp_path / "results" / "demo"
    text = demo.run_demo(folder, seed=1, progress=True)
    written = {path.name for path in folder.iterdir()}
    listed = {line.rsplit("/", 1)[-1] for line in text.splitlines() if line.startswith(f"  {folder}")}
    assert listed == written
    assert {"report.html", "demo.png", "recording.npz", "fit.nc", "ranking.csv", "summary.txt"} <= written
    assert [path.name for path in folder.parent.iterdir()] == ["demo"]
    out, err = capsys.readouterr()
    assert out == ""
    assert f"step {demo.NUM_STEPS} of {demo.NUM_STEPS}" in err
    posterior = lrp.load_posterior(folder / "fit.nc")
    np.testing.assert_array_equal(lrp.load_recording(folder / "recording.npz").activity, posterior.recording.activity)
    alone = lrp.analyze_degeneracy(posterior).connectivity
    words = " ".join(text.split())
    assert f"constrains {alone.num_constrained} and leaves {alone.num_degenerate} to the prior" in words
    assert "achieved R²" in (folder / "ranking.csv").read_text(encoding="utf-8").splitlines()[0]
    again = demo.run_demo(folder, seed=1, progress=False)  # its own folder it replaces
    assert again.split("All of it took")[0] == text.split("All of it took")[0]


@pytest.mark.slow
def test_what_was_achieved_is_what_the_true_network_does():
    results = demo.compute_demo(seed=2)
    simulation, recording, candidates = results.simulation, results.posterior.recording, results.candidates
    candidate, condition = 1, 0
    inputs = recording.inputs[: demo.NUM_CONDITIONS]
    stimulation = candidates.patterns[candidate] * candidates.time_course[:, None]
    still = lrp.Recording(np.zeros((1, recording.num_bins, recording.num_neurons)), recording.dt, inputs=inputs[:1])
    M, K, B, b = (simulation.parameters[name] for name in ("M", "K", "B", "b"))
    W = M @ K.T / recording.num_neurons + simulation.parameters["W0"]
    a = recording.dt / results.posterior.model.time_constant
    perturbed, unperturbed, alone = (np.zeros(recording.num_neurons) for _ in range(3))
    responses = []
    for time in range(recording.num_bins):
        responses.append(perturbed - unperturbed - alone)
        drive = B @ still.inputs[0, time] + b
        current = [
            (1 - a) * x + a * (W @ np.tanh(x) + drive + s)
            for x, s in ((perturbed, stimulation[time]), (unperturbed, 0.0))
        ]
        alone = (1 - a) * alone + a * stimulation[time]
        perturbed, unperturbed = current
    first = round(results.ranking.times[0] / recording.dt)
    truth = np.array(responses)[first:]
    np.testing.assert_allclose(results.true_responses[candidate, condition], truth, atol=1e-10)
    predicted = results.ranking.response_mean[candidate].astype(float)
    error = np.sum((results.true_responses[candidate] - predicted) ** 2)
    achieved = 1.0 - error / np.sum(results.true_responses[candidate] ** 2)
    np.testing.assert_allclose(results.achieved_r2[candidate], achieved, rtol=1e-6)


def test_it_does_not_touch_somebody_elses_folder(tmp_path):
    (tmp_path / "fit.nc").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="output: expected a new or empty folder, or one of an earlier demo"):
        demo.run_demo(tmp_path, seed=0, progress=False)
    assert (tmp_path / "fit.nc").read_text(encoding="utf-8") == "mine"
    with pytest.raises(ValueError, match="output: expected"):
        demo.run_demo(tmp_path / "fit.nc", seed=0, progress=False)


@pytest.mark.slow
def test_interrupted_it_leaves_no_folder(tmp_path, monkeypatch):
    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "write_report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(tmp_path / "demo", seed=1, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_seed_is_a_whole_number(tmp_path):
    with pytest.raises(ValueError, match="seed: expected an integer"):
        demo.run_demo(tmp_path / "demo", seed=-1)
