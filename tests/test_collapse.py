"""The collapse of a naive fit: a softplus network without a scale under a z-scored loss, its name, and its cure."""

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest

import lrposterior as lrp

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SESSION = {"num_trials": 100, "num_bins": 80, "num_excitatory": 9, "num_inhibitory": 4, "num_inputs": 8}


@pytest.fixture
def naive_descent(monkeypatch):
    """The descent that the page of the session shows."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("ei_session_parts.collapse").naive_descent
    for name in [one for one in sys.modules if one.startswith("ei_session_parts")]:
        del sys.modules[name]


def names(diagnosis: lrp.Diagnosis) -> set[str]:
    return {verdict.name for verdict in diagnosis.verdicts}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("magnitudes", ["half-normal", "log-normal"])
@pytest.mark.parametrize("seed", range(3))
def test_a_naive_fit_collapses_to_low_flat_rates_and_is_named(naive_descent, seed, magnitudes):
    """The loss falls, and rates do not come near 13 spikes/s: under it any scale is as good as any other.

    The verdicts are about the network that was fitted, however widely those of the prior scatter. Flatness has its name
    where recorded averages move by three standard errors, as they do with the first seed.
    """
    truth = lrp.simulate_session(**SESSION, num_outliers=0, seed=seed)
    naive = dataclasses.replace(
        truth.model,
        observation=lrp.PoissonObservation(scale=1.0),
        priors=lrp.DaleLoadings(K={"E": 1.5, "I": 6.0}, magnitudes=magnitudes),
    )
    posterior, losses = naive_descent(naive, truth.recording, num_steps=500, seed=seed)
    assert losses[-1] < 0.9 * losses[0]
    found = lrp.diagnose(posterior, seed=0)
    assert found.trained is not None
    assert found.trained.signal.level < 0.12 * found.data.signal.level
    assert found.trained.signal.temporal_sd < 0.12 * found.data.signal.temporal_sd
    assert "scale mismatch" in names(found)
    assert ("flat output" in names(found)) == (found.data.signal.temporal_z > 3.0)
    assert seed > 0 or "flat output" in names(found)


@pytest.mark.long
@pytest.mark.slow
def test_the_default_does_not_collapse():
    truth = lrp.simulate_session(**SESSION, num_outliers=0, seed=0)
    posterior = lrp.fit(truth.model, truth.recording, lrp.Match(conditions="labels"), seed=0, progress=False)
    assert not names(lrp.diagnose(posterior, seed=0))
