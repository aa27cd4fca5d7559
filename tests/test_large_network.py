"""All that one can ask of a posterior of thousands of neurons: no step makes an N x N array."""

import functools
import tracemalloc

import numpy as np
import pytest
from plain import plain_model

import lrposterior as lrp
from lrposterior.distribution import StructuredDistribution
from lrposterior.perturbation.prediction import rank_perturbations
from lrposterior.report import write_report

# With fewer neurons the factors of the covariance and some hundred draws are as large as an N x N array themselves.
NEURONS = 10_000
SQUARE = 8 * NEURONS**2
# In units of one N x N array. The degeneracy holds a dozen copies of the factors, 1.2 in all: another 1 would show.
LARGEST = {"degeneracy": 1.5}


@functools.cache
def posterior() -> lrp.Posterior:
    random = np.random.default_rng(0)
    M = 1.3 * random.standard_normal((NEURONS, 1))
    K = 1.2 * M + 0.9 * random.standard_normal((NEURONS, 1))
    truth = lrp.simulate_recording(
        plain_model(1), num_neurons=NEURONS, num_trials=8, num_bins=30, M=M, K=K, noise_scale=0.1, seed=1
    )
    model = plain_model(1, priors=lrp.Priors(K=1.5, B=1.0, b=1.0))
    return lrp.fit(model, truth.recording, seed=0, progress=False)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_needs_an_array_of_all_synapses(tmp_path):
    fitted = posterior()
    assert isinstance(fitted.distribution, StructuredDistribution)
    took = {}

    def step(name):
        """What a step took at most beyond what was there before it."""
        current, peak = tracemalloc.get_traced_memory()
        took[name] = peak - before[-1]
        before.append(current)
        tracemalloc.reset_peak()

    tracemalloc.start()
    before = [0]
    try:
        W = fitted.sample_connectivity(50, seed=0)
        post, pre = np.random.default_rng(1).integers(NEURONS, size=(2, 200))
        mean, sd = fitted.connectivity_entries(post, pre)
        draws = W.entries(post, pre)
        assert np.median(np.abs(draws.mean(axis=0) - mean) / sd) < 3.0 / np.sqrt(50)
        assert np.median(draws.std(axis=0) / sd) == pytest.approx(1.0, abs=0.1)
        step("draws and entries")

        degeneracy = lrp.analyze_degeneracy(fitted)
        assert f"{NEURONS} neurons" in str(degeneracy)
        assert degeneracy.num_constrained + degeneracy.num_degenerate + 1 == fitted.space.num_dynamics
        assert np.sum(degeneracy.spectrum >= 1.0) == degeneracy.num_constrained
        share = degeneracy.contraction_entries(post, pre)
        prior_sd = sd / np.sqrt(1.0 - share)
        assert (prior_sd > sd).all()
        step("degeneracy")

        candidates = lrp.latent_candidates(fitted.recording, num_candidates=3, num_components=1, seed=0)
        ranking = rank_perturbations(fitted, candidates, num_draws=30, progress=False)
        assert ((ranking.expected_r2 > 0.0) & (ranking.expected_r2 <= 1.0)).all()
        assert np.isfinite(ranking.share_degenerate).all()
        step("ranking")
        write_report(tmp_path / "report.html", fitted, degeneracy, ranking, seed=0)
        assert "300 neurons chosen at random" in " ".join((tmp_path / "report.html").read_text().split())
        step("report")

        fitted.save(tmp_path / "fit.nc")
        loaded = lrp.load_posterior(tmp_path / "fit.nc")
        np.testing.assert_array_equal(
            loaded.sample_connectivity(2, seed=3).entries(post, pre), draws_of(fitted, post, pre)
        )
        step("save and load")
    finally:
        tracemalloc.stop()
    for name, memory in took.items():
        assert memory < LARGEST.get(name, 1.0) * SQUARE, took
    for method in (fitted.connectivity_sd, fitted.connectivity_mean):
        with pytest.raises(ValueError, match="use connectivity_entries"):
            method()
    with pytest.raises(ValueError, match="leave W out by connectivity=False"):
        fitted.to_arviz(seed=0)


def draws_of(fitted, post, pre):
    return fitted.sample_connectivity(2, seed=3).entries(post, pre)
