"""Many trials are shared out among the cores: what is said of all of them does not depend on how many there are."""

import dataclasses

import jax
import numpy as np
import pytest
from plain import plain_model

import lrposterior as lrp
from lrposterior.inference import problem as problems
from lrposterior.inference.problem import Problem

# Nine trials for four cores: parts differ in size.
NUM_TRIALS, NUM_CORES = 9, 4
MODELS = {
    "rollouts": {},
    "process noise": {"process_noise": "full"},
    "counts": {"process_noise": "diagonal", "observation": lrp.PoissonObservation(scale=20.0)},
    "known background": {"background": lrp.FixedBackground(0.1 * np.eye(6))},
}


@pytest.fixture(params=MODELS)
def both(request, monkeypatch):
    """A problem in one part, the same one in four, and a point."""
    model = plain_model(rank=2, **MODELS[request.param])
    simulated = lrp.simulate_recording(
        model, num_neurons=6, num_trials=NUM_TRIALS, num_bins=20, noise_scale=0.2, seed=1
    )
    with jax.enable_x64(True):
        whole = Problem.of(model, simulated.recording)
        assert len(whole._parts) == 1
        monkeypatch.setattr(problems, "MANY_TRIALS", NUM_TRIALS)
        monkeypatch.setattr(problems.os, "cpu_count", lambda: NUM_CORES)
        parts = dataclasses.replace(whole)
        assert [len(part.activity) for part in parts._parts] == [3, 2, 2, 2]
        yield whole, parts, 0.3 * np.random.default_rng(0).standard_normal(whole.space.size)


@pytest.mark.slow
def test_density_slope_and_information_are_those_of_all_trials(both):
    whole, parts, z = both
    assert np.isclose(parts.negative_log_density(z), whole.negative_log_density(z), rtol=1e-12)
    (value, slope), (expected, expected_slope) = parts.value_and_gradient(z), whole.value_and_gradient(z)
    assert np.isclose(value, expected, rtol=1e-12)
    for found, right in (
        (slope, expected_slope),
        (parts.information(z), whole.information(z)),
        (parts.noise_information(z), whole.noise_information(z)),
    ):
        np.testing.assert_allclose(found, right, rtol=1e-9, atol=1e-9 * np.abs(right).max(initial=1.0))


def test_the_density_and_its_average_include_the_prior(both):
    """The slope is the derivative of the value, and an expectation the mean of values and slopes."""
    whole, parts, z = both
    change = np.random.default_rng(1).standard_normal(z.size)
    for problem in (whole, parts):
        ahead, behind = (problem.negative_log_density(z + sign * 1e-5 * change) for sign in (1.0, -1.0))
        assert np.isclose((ahead - behind) / 2e-5, problem.gradient(z) @ change, rtol=1e-6, atol=1e-5)
        points = np.stack([z, z + 0.1 * change])
        value, slope = problem.expectation(points)
        each = [problem.value_and_gradient(point) for point in points]
        assert np.isclose(value, np.mean([value for value, _ in each]), rtol=1e-12)
        np.testing.assert_allclose(slope, np.mean([slope for _, slope in each], axis=0), rtol=1e-9, atol=1e-9)
