"""The truth ranks uniformly among the draws of its posterior (benchmarks/calibration.py, at a small size)."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import lrposterior as lrp
from lrposterior.distribution import NormalDistribution

ROOT = Path(__file__).resolve().parents[1]


def load_benchmark():
    specification = importlib.util.spec_from_file_location("calibration", ROOT / "benchmarks" / "calibration.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["calibration"] = module
    specification.loader.exec_module(module)
    return module


calibration = load_benchmark()
# Of the norm of W and the log likelihood, squares of many parameters, the Laplace posterior is not right.
CALIBRATED = tuple(
    name
    for group in ("connectivity", "eigenvalues", "responses")
    for name in calibration.GROUPS[group]
    if name != "norm of W"
)


def test_the_band_holds_uniform_ranks_and_no_others(monkeypatch):
    """Of 20 sets of uniform ranks one leaves the 95% band on average; those of a posterior too narrow do."""
    monkeypatch.setattr(calibration, "NUM_BAND_SIMULATIONS", 1000)
    random = np.random.default_rng(0)
    left = sum(not calibration.Band.of(random.uniform(size=100)).holds for _ in range(20))
    assert left <= 5  # more with probability 0.0003
    too_narrow = random.beta(0.5, 0.5, size=100)
    assert not calibration.Band.of(too_narrow).holds
    assert calibration.Band.of(too_narrow).excess > 0.02


def test_ranks_of_draws_from_the_same_distribution_are_uniform():
    random = np.random.default_rng(1)
    simulations = [
        {"num_draws": 9, "below": {name: int(np.sum(random.normal(size=9) < random.normal())) for name in CALIBRATED}}
        for _ in range(400)
    ]
    ranks = calibration.ranks([*simulations, {"seed": 0, "refused": "why"}], CALIBRATED[0])
    assert ranks.shape == (400,)
    assert calibration.Band.of(ranks).holds


def rank_truths(change=lambda posterior: posterior, num_simulations=60):
    """Ranks of the quantities under the Laplace posterior of 8 neurons, 12 trials of 40 bins."""
    setting = calibration.Setting("laplace", num_neurons=8, num_trials=12, num_bins=40)
    fit = lrp.fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "PROBABILITY", 0.994)
        patch.setattr(calibration.lrp, "fit", lambda *arguments, **options: change(fit(*arguments, **options)))
        simulations = [
            calibration.simulate_and_fit(setting, lrp.Laplace(), seed) for seed in range(1000, 1000 + num_simulations)
        ]
        assert sum("refused" in simulation for simulation in simulations) <= 3
        return {name: calibration.Band.of(calibration.ranks(simulations, name)) for name in CALIBRATED}


def narrowed(posterior):
    normal = posterior.distribution
    return dataclasses.replace(posterior, distribution=NormalDistribution(normal.location, 0.5 * normal.scale))


@pytest.mark.slow
def test_laplace_is_calibrated():
    """Eight bands of 99.4%: a right posterior leaves any of them with probability 0.05 or less."""
    bands = rank_truths()
    assert [name for name in CALIBRATED if not bands[name].holds] == []


@pytest.mark.slow
def test_a_posterior_of_half_the_width_is_caught():
    bands = rank_truths(narrowed)
    assert sum(not bands[name].holds for name in CALIBRATED) >= 3


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
def test_stored_results_are_complete(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert calibration.Setting(**content["setting"]).path == path
    assert [one["seed"] for one in content["simulations"]] == list(range(len(content["simulations"])))
    for one in content["simulations"]:
        assert "refused" in one or set(one["below"]) == set(calibration.QUANTITIES)
