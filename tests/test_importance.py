"""Importance weights turn a Normal approximation into the exact posterior, or say that they cannot."""

import functools

import numpy as np
import pytest
from plain import plain_model
from single_neuron import integrate, model, record

import lrposterior as lrp
from lrposterior.distribution import SampleDistribution
from lrposterior.inference import importance

GRID, LOG_SCALES = np.linspace(-8.0007, 8.0, 1200), np.linspace(-2.5, 1.0, 50)
WELL_SEEN = {"w": 2.0, "num_trials": 3, "num_bins": 15, "noise_scale": 0.3, "seed": 0}
SKEWED = {"w": 0.9, "num_trials": 2, "num_bins": 20, "noise_scale": 0.3, "seed": 1}


@functools.cache
def exact(w, num_trials, num_bins, noise_scale, seed):
    """The recording, and mean, standard deviation and log evidence of w by brute force."""
    recording = record(model(), w, num_trials=num_trials, num_bins=num_bins, noise_scale=noise_scale, seed=seed)
    density, log_evidence = integrate(model(), recording, GRID, LOG_SCALES)
    width = GRID[1] - GRID[0]
    mean = np.sum(GRID * density) * width
    return recording, mean, np.sqrt(np.sum((GRID - mean) ** 2 * density) * width), log_evidence


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("method", [lrp.Laplace("psis"), lrp.SVI(num_steps=1500, correction="psis")])
def test_the_corrected_posterior_is_that_of_brute_force(method):
    """The evidence within three of its standard errors of 0.01 nats, the moments within four of 2000 draws."""
    recording, mean, sd, log_evidence = exact(**WELL_SEEN)
    posterior = lrp.fit(model(), recording, method, seed=0, progress=False)
    diagnostics = posterior.statistics.diagnostics
    assert posterior.status == "converged"
    assert diagnostics["Pareto k"] < 0.7
    assert diagnostics["effective sample size"] > 3000
    np.testing.assert_allclose(diagnostics["log evidence by importance sampling"], log_evidence, rtol=0, atol=0.03)
    assert abs(posterior.connectivity_mean().item() - mean) < 0.09 * sd
    assert abs(posterior.connectivity_sd().item() / sd - 1.0) < 0.08


def test_the_correction_mends_a_skewed_posterior():
    recording, mean, sd, _ = exact(**SKEWED)
    plain, corrected = (
        lrp.fit(model(), recording, method, seed=0, progress=False)
        for method in (lrp.Laplace(mean="mode"), lrp.Laplace("psis"))
    )
    errors = [abs(posterior.connectivity_mean().item() - mean) / sd for posterior in (plain, corrected)]
    assert errors[0] > 0.4
    assert errors[1] < 0.12
    assert plain.connectivity_sd() < corrected.connectivity_sd() < 1.05 * sd
    assert isinstance(corrected.distribution, SampleDistribution)
    assert corrected.distribution.draws.shape == (1, importance.NUM_RESAMPLED, corrected.space.size)


def test_a_corrected_fit_is_its_seed():
    recording = exact(**WELL_SEEN)[0]
    first, again, other = (
        lrp.fit(model(), recording, lrp.Laplace("psis"), seed=seed, progress=False) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.distribution.draws, again.distribution.draws)
    assert np.all(first.connectivity_mean() != other.connectivity_mean())


@pytest.mark.slow
def test_weights_that_cannot_be_trusted_say_so():
    """Ten neurons and six short trials: no Normal distribution is near."""
    simulation = lrp.simulate_recording(
        plain_model(2), num_neurons=10, num_trials=6, num_bins=40, noise_scale=0.15, seed=2
    )
    posterior = lrp.fit(plain_model(2), simulation.recording, lrp.Laplace("psis"), seed=0, progress=False)
    assert posterior.statistics.diagnostics["Pareto k"] > 0.7
    assert posterior.status.startswith("not converged: Pareto k of the importance weights is ")
    assert posterior.status.endswith("use method='nuts'")


def test_smoothed_weights():
    """Ratios exp(E / a) with E exponential have the tail index k = 1 / a; the estimate's error is about 0.06."""
    random = np.random.default_rng(0)
    for k in (0.3, 0.9):
        log_weights, found = importance.smooth(k * random.exponential(size=10_000))
        assert abs(found - k) < 0.2
        np.testing.assert_allclose(np.sum(np.exp(log_weights)), 1.0, rtol=1e-12)
    ratios = random.standard_normal(2000)
    ratios[:20] = -np.inf
    log_weights, _ = importance.smooth(ratios)
    assert np.all(log_weights[:20] == -np.inf)
    assert np.all(np.diff(log_weights[20:][np.argsort(ratios[20:])]) >= 0.0)
    assert importance.smooth(np.full(100, -np.inf))[1] == np.inf


def test_resampling_counts_are_the_weights():
    weights = np.random.default_rng(0).dirichlet(np.full(50, 0.3))
    counts = np.bincount(importance.resample(weights, 1000, seed=1), minlength=50)
    assert counts.sum() == 1000
    assert np.all(np.abs(counts - 1000 * weights) <= 2.0)
    assert np.std(counts - 1000 * weights) < 1.0


@pytest.mark.parametrize("method", [lrp.Laplace, functools.partial(lrp.SVI, "full")])
def test_another_correction_is_named(method):
    with pytest.raises(ValueError, match=r"correction: expected one of 'psis', got 'pis'; did you mean 'psis'\?"):
        method(correction="pis")
