"""The truth ranks uniformly among the draws of its posterior (benchmarks/calibration.py, at a small size)."""

import dataclasses
import json
from pathlib import Path

import pytest
from benchmark_files import load_benchmark

import lrposterior as lrp
from lrposterior.distribution import NormalDistribution

ROOT = Path(__file__).resolve().parents[1]


calibration = load_benchmark("calibration")
# Of the norm of W and the log likelihood, squares of many parameters, the Laplace posterior is not right.
CALIBRATED = tuple(
    name
    for group in ("connectivity", "eigenvalues", "responses")
    for name in calibration.GROUPS[group]
    if name != "norm of W"
)


def in_bands(change=lambda posterior: posterior):
    """Which quantities stay in the familywise band, under the Laplace posterior of 8 neurons, 12 trials of 40 bins."""

    def fit(model, recording, seed):
        return change(lrp.fit(model, recording, seed=seed, progress=False))

    result = lrp.simulate_calibration(
        calibration.MODEL, fit, num_simulations=60, num_neurons=8, num_bins=40, seed=1000, progress=False
    )
    assert result.num_refused <= 3
    inside = result.in_band(familywise=True)
    return {
        name: inside[{new: old for old, new in calibration.STORED_NAMES.items()}.get(name, name)] for name in CALIBRATED
    }


def narrowed(posterior):
    normal = posterior.distribution
    return dataclasses.replace(posterior, distribution=NormalDistribution(normal.location, 0.5 * normal.scale))


@pytest.mark.long
@pytest.mark.slow
def test_laplace_is_calibrated():
    """Ten bands of 99.5%, of which eight are looked at: a right posterior leaves any with probability 0.05 or less."""
    assert in_bands() == dict.fromkeys(CALIBRATED, True)


@pytest.mark.long
@pytest.mark.slow
def test_a_posterior_of_half_the_width_is_caught():
    assert sum(not holds for holds in in_bands(narrowed).values()) >= 3


def test_stored_results_are_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "RESULTS", tmp_path)
    monkeypatch.setattr(calibration, "simulate_and_fit", lambda setting, method, seed: {"seed": seed, "refused": "no"})
    setting = calibration.Setting("laplace")
    calibration.run(setting, 2)
    assert [one["seed"] for one in calibration.load(setting)] == [0, 1]
    monkeypatch.setattr(calibration, "simulate_and_fit", lambda setting, method, seed: {"seed": seed, "refused": "yes"})
    calibration.run(setting, 3)
    assert [one["refused"] for one in calibration.load(setting)] == ["no", "no", "yes"]
    assert calibration.stored_settings() == [(setting, calibration.load(setting))]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks" / "results").glob("calibration_*.json")), ids=lambda p: p.stem
)
def test_stored_results_are_complete_and_read(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    simulations = content["simulations"]
    assert calibration.Setting(**content["setting"]).path == path
    assert [one["seed"] for one in simulations] == list(range(len(simulations)))
    of_noise = [calibration.PROCESS_NOISE] if content["setting"].get("process_noise") else []
    quantities = {*calibration.QUANTITIES, *of_noise}
    for one in simulations:
        assert "refused" in one or set(one["below"]) == quantities
    result = calibration.result_of(simulations)
    assert set(result.quantities) == quantities
    assert result.num_fitted + result.num_refused == len(simulations)
    first = next(one for one in simulations if "below" in one)
    for name, below in first["below"].items():
        assert below < result.ranks_of(name)[0] * (first["num_draws"] + 1) < below + 1


@pytest.mark.slow
def test_what_is_stored_is_what_the_package_found():
    setting = calibration.Setting("laplace", num_neurons=6, num_trials=6, num_bins=40)
    stored = calibration.simulate_and_fit(setting, lrp.Laplace(), 0)
    assert set(stored["below"]) == set(calibration.QUANTITIES)
    assert json.loads(json.dumps(stored)) == stored
    result = lrp.simulate_calibration(
        calibration.MODEL,
        lambda model, recording, seed: lrp.fit(model, recording, seed=seed, progress=False),
        num_simulations=1,
        num_neurons=6,
        num_trials=6,
        num_bins=40,
        seed=0,
        progress=False,
    )
    found = dict(zip(result.quantities, result.ranks[0], strict=True))
    for name in result.quantities:
        assert int(300 * found[name]) == stored["below"][calibration.STORED_NAMES.get(name, name)]
