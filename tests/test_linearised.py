"""Certainty without draws, and single entries of W, against posterior draws."""

import functools
import importlib

import numpy as np
import pytest
from plain import plain_model

import lrposterior as lrp


@functools.cache
def structured_fit(with_bulk):
    """A small network fitted by the structured engine, which would else take the dense form."""
    truth = plain_model(rank=2, background=lrp.RandomBulk(gain=0.5))
    simulation = lrp.simulate_recording(truth, num_neurons=14, num_trials=8, num_bins=40, noise_scale=0.1, seed=1)
    model = lrp.LowRankModel(
        rank=2, background=lrp.RandomBulk(dimension=3) if with_bulk else None, priors=lrp.CorrelatedLoadings()
    )
    module = importlib.import_module("lrposterior.inference.fit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_DENSE", 0)
        return lrp.fit(model, simulation.recording, seed=0, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("with_bulk", [False, True])
def test_certainty_without_draws_is_that_of_draws(with_bulk):
    """Over twelve candidates from hardly to almost certain. 400 draws leave an error of about .01, and the product of
    two unknown parts, which the linearisation leaves out, a few hundredths at this size."""
    posterior = structured_fit(with_bulk)
    candidates = lrp.single_neuron_candidates(posterior.recording, power=2.0).select(slice(0, 12))
    linearised = lrp.predict_certainty(posterior, candidates, num_readouts=40)
    drawn = lrp.rank_perturbations(posterior, candidates, num_draws=400, progress=False)
    assert drawn.expected_r2.min() < 0.4 < 0.8 < drawn.expected_r2.max()
    np.testing.assert_allclose(linearised.expected_r2, drawn.expected_r2, atol=0.06)
    assert np.all(linearised.unseen_spread > 0.0) == with_bulk
    assert list(linearised.top(3).index) == list(linearised.order[:3])


@pytest.mark.parametrize("with_bulk", [False, True])
def test_entries_have_the_mean_and_spread_of_the_matrix(with_bulk):
    posterior = structured_fit(with_bulk)
    post, pre = np.divmod(np.arange(14 * 14), 14)
    mean, sd = posterior.connectivity_entries(post, pre)
    np.testing.assert_allclose(sd, posterior.connectivity_sd().ravel(), rtol=0.06)
    assert np.max(np.abs(mean - posterior.connectivity_mean().ravel()) / sd) < 0.25


def test_a_dense_posterior_is_referred_to_the_ranking():
    model = lrp.LowRankModel(rank=1, background=None, priors=lrp.Priors())
    simulation = lrp.simulate_recording(model, num_neurons=6, num_trials=4, num_bins=20, noise_scale=0.1, seed=0)
    posterior = lrp.fit(model, simulation.recording, seed=0, progress=False)
    candidates = lrp.single_neuron_candidates(simulation.recording)
    with pytest.raises(
        ValueError, match=r"^posterior: expected a Laplace posterior in the structured form, .*; use rank"
    ):
        lrp.predict_certainty(posterior, candidates)
