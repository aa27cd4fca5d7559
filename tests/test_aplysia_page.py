"""The example with evoked responses of Aplysia: stored results, the page, and what scores and baselines mean."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "docs" / "examples" / "aplysia"
PAGE = ROOT / "docs" / "examples" / "aplysia.md"


@pytest.fixture
def part(monkeypatch):
    """Imports a module of the example by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    yield lambda name: importlib.import_module(f"aplysia_parts.{name}")
    for name in [one for one in sys.modules if one.startswith("aplysia_parts")]:
        del sys.modules[name]


def test_every_choice_was_the_best_in_the_validation_blocks():
    results = json.loads((STORED / "results.json").read_text(encoding="utf-8"))
    for one in results["preparations"].values():
        for name, chosen in one["baselines"].items():
            task = "hidden" if name == "glm_hidden" else "ahead"
            assert chosen["validation"][task] == max(tried["validation"][task] for tried in chosen["tried"])
        tried = {
            str(each["settings"]): each["density"] for each in one["choice"]["tried"] if each["density"] is not None
        }
        assert max(tried, key=tried.__getitem__) == str(one["choice"]["settings"])
        if "rank" in one:
            densities = {
                rank: fit["density"]["validation"] for rank, fit in one["networks"].items() if "density" in fit
            }
            assert max(densities, key=densities.__getitem__) == str(one["rank"])


def test_a_constant_rate_scores_zero_and_the_true_rate_what_it_gains(part):
    """Bits per spike of the true rates are the Kullback-Leibler divergence per spike from the constant ones."""
    random = np.random.default_rng(0)
    rates = np.array([[0.1, 2.0], [0.5, 0.3]])[np.arange(200_000) % 2]
    counts, mean = random.poisson(rates).astype(float), rates[:2].mean(axis=0)
    scores = part("scores")
    assert scores.bits_per_spike(counts, np.broadcast_to(mean, counts.shape), mean) == 0.0
    divergence = np.sum(rates * np.log(rates / mean) - rates + mean) / (np.log(2.0) * rates.sum())
    gained = scores.bits_per_spike(counts, rates, mean)
    np.testing.assert_allclose(gained, divergence, atol=0.01)


def test_the_history_is_the_weighted_mean_of_the_bins_before(part):
    counts = np.random.default_rng(1).poisson(1.0, (2, 30, 3)).astype(float)
    start = np.array([0.5, 1.0, 2.0])
    found = part("baselines").history(counts, 0.7, start)
    decay, expected = np.exp(-0.1 / 0.7), np.broadcast_to(start, (2, 3))
    for time in range(30):
        np.testing.assert_allclose(found[:, time], expected)
        expected = decay * expected + (1.0 - decay) * counts[:, time]


@pytest.mark.slow
def test_calibration_recovers_the_weights_of_poisson_counts(part):
    random = np.random.default_rng(2)
    feature = random.gamma(2.0, 1.0, (100_000, 2))
    a, b = np.array([0.2, 1.0]), np.array([0.8, 0.1])
    found = part("baselines").calibrate(feature, random.poisson(a + b * feature).astype(float), num_steps=2000)
    np.testing.assert_allclose(found, (a, b), atol=0.03)


def test_validation_blocks_are_masked_and_their_counts_kept(part, shared_data):
    recordings = part("recordings")
    preparation = recordings.load_preparation(shared_data / recordings.FILE, "Nov0514")
    assert not np.any(~preparation.fitted[0] & ~preparation.fitted[1])  # every time of the response is fitted once
    np.testing.assert_allclose((~preparation.fitted).sum(axis=1) * recordings.DT, 20.0)
    assert preparation.counts[~preparation.fitted].sum() > 0.0
    np.testing.assert_allclose(preparation.test.inputs.sum() * recordings.DT, recordings.TRAIN_OF_PULSES)


def test_the_history_scores_as_it_was_found_to_on_the_first_preparation(part, shared_data):
    """About .38 bits per spike one step ahead: an earlier analysis, with code of its own."""
    recordings, scores = part("recordings"), part("scores")
    preparation = recordings.load_preparation(shared_data / recordings.FILE, "Jun0914")
    predictor = part("baselines").fit_history(preparation, np.zeros(151, dtype=bool), time_constant=1.0)
    predicted, counts = predictor(preparation.test).ahead, preparation.test.activity
    assert abs(scores.bits_per_spike(counts, predicted, preparation.mean_counts) - 0.38) < 0.02
