"""A low-rank part that was learned amid the recorded activity reads visited patterns, and no others."""

import dataclasses

import numpy as np
import pytest
from handmade import STATISTICS, make_posterior, make_recording
from plain import plain_model

import lrposterior as lrp

BULK = lrp.RandomBulk(gain=0.5, dimension=2, learned=True)
RANDOM = np.random.default_rng(0)


def made(learned=True, priors=None, **options):
    background = dataclasses.replace(BULK, learned=learned)
    model = plain_model(2, background=background, priors=priors or lrp.Priors())
    return make_posterior(model, make_recording(stimulation=None, mask=None), **options)


@pytest.mark.parametrize("priors", [lrp.Priors(), lrp.CorrelatedLoadings()])
def test_low_rank_part_reads_visited_patterns_only(priors):
    posterior = made(priors=priors)
    unseen = np.eye(posterior.recording.num_neurons) - posterior.subspace @ posterior.subspace.T
    draws = posterior.sample_parameters(50, seed=1)
    np.testing.assert_allclose(unseen @ draws["K"], 0.0, atol=1e-12)
    np.testing.assert_allclose(unseen @ posterior.mode["K"], 0.0, atol=1e-12)
    free = made(learned=False, priors=priors)
    assert np.abs(unseen @ free.mode["K"]).max() > 1e-3
    # What visited patterns do is the same in both.
    visited = [one.sample_connectivity(50, seed=1).to_dense() @ one.subspace for one in (posterior, free)]
    np.testing.assert_allclose(*visited, atol=1e-10)


def test_factors_are_canonical_after_the_projection():
    posterior = made()
    scale_M, scale_K = (posterior.space[name].standard_deviation for name in ("M", "K"))
    for M, K in zip(*(posterior.sample_parameters(5, seed=2)[name] for name in ("M", "K")), strict=True):
        gram_M, gram_K = (M / scale_M).T @ (M / scale_M), (K / scale_K).T @ (K / scale_K)
        np.testing.assert_allclose(gram_M, np.diag(np.diag(gram_M)), atol=1e-10)
        np.testing.assert_allclose(gram_M, gram_K, atol=1e-10)


def test_gauge_changes_nothing():
    posterior = made()
    space, z = posterior.space, posterior.distribution.sample(3, seed=1)
    A = np.eye(2) + 0.3 * RANDOM.standard_normal((2, 2))
    moved = z.copy()
    left, right = space.factors(z)
    moved[:, space.places("M")] = (left @ A).reshape(3, -1)
    moved[:, space.places("K")] = (right @ np.linalg.inv(A).T).reshape(3, -1)
    for name, value in posterior.named(z).items():
        if name not in ("M", "K"):
            np.testing.assert_allclose(posterior.named(moved)[name], value, atol=1e-12)
    products = [one["M"] @ np.swapaxes(one["K"], 1, 2) for one in map(posterior.named, (z, moved))]
    np.testing.assert_allclose(*products, atol=1e-10)


def test_moments_are_those_of_draws():
    posterior = dataclasses.replace(made(), statistics=dataclasses.replace(STATISTICS, scales={}))
    draws = posterior.sample_connectivity(4000, seed=3).to_dense()
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert np.abs((draws.mean(axis=0) - posterior.connectivity_mean()) / error).max() < 4.5
    np.testing.assert_allclose(draws.std(axis=0), posterior.connectivity_sd(), rtol=0.1)


def test_saved_and_loaded(tmp_path):
    posterior = made()
    posterior.save(tmp_path / "learned.nc")
    loaded = lrp.load_posterior(tmp_path / "learned.nc")
    assert loaded.model.background.learned
    np.testing.assert_array_equal(loaded.mode["K"], posterior.mode["K"])


def test_learned_truths_are_predicted_as_promised():
    """Responses to random patterns of networks whose K lies nearly in the visited span, with a bulk of 0.3.

    Three networks of 24 neurons and 12 patterns: 90% intervals hold 0.80 to 0.97 (three standard errors of some 60
    independent responses), and with K free in unseen directions the spread is larger in each of them.
    """
    covered, ratios = [], []
    for seed in range(3):
        random = np.random.default_rng(seed)
        truth, recording, patterns = learned_network(random)
        candidates = lrp.pattern_candidates(recording, patterns, power=1.0, onset=0.2, duration=0.1)
        asked = {"inputs": recording.inputs[:2], "window": (0.2, 0.8)}
        true = lrp.predict_responses(truth, candidates, num_draws=1, **asked)[0]
        model = lrp.LowRankModel(2, background=lrp.RandomBulk(learned=True))
        posterior = lrp.fit(model, recording, seed=0, progress=False)
        settled = dataclasses.replace(posterior.model.background, learned=False)
        free = dataclasses.replace(posterior, model=dataclasses.replace(posterior.model, background=settled))
        draws, of_free = (lrp.predict_responses(one, candidates, num_draws=199, **asked) for one in (posterior, free))
        below, moved = np.sum(draws < true, axis=0), true != 0.0
        covered.append(np.mean(((below >= 10) & (below <= 189))[moved]))
        ratios.append(of_free.var(axis=0).sum() / draws.var(axis=0).sum())
    assert 0.80 < np.mean(covered) < 0.97
    assert min(ratios) > 1.0


def learned_network(random):
    """K in the span of B, of which the visited patterns hold 96 to 98%; a recording, and random patterns."""
    num_neurons = 24
    B, M = random.standard_normal((2, num_neurons, 2))
    K = 3.0 * B @ random.standard_normal((2, 2))
    W = M @ K.T / num_neurons + 0.3 / np.sqrt(num_neurons) * random.standard_normal((num_neurons, num_neurons))
    inputs = np.repeat(random.standard_normal((16, 5, 2)), 10, axis=1)
    silent = lrp.Recording(np.zeros((16, 50, num_neurons)), 0.02, inputs=inputs)
    model = lrp.FullRankNetwork(time_constant=0.1)
    truth = lrp.NetworkPosterior.known(model, silent, {"W": W, "B": B, "b": np.zeros(num_neurons)})
    rates = truth.predict_rates(inputs, num_draws=1, seed=0)[0]
    recording = lrp.Recording(rates + 0.1 * random.standard_normal(rates.shape), 0.02, inputs=inputs)
    patterns = random.standard_normal((12, num_neurons))
    return truth, recording, patterns / np.linalg.norm(patterns, axis=1, keepdims=True)


def test_what_rests_on_the_covariance_of_all_of_K_is_refused():
    posterior = made()
    candidates = lrp.single_neuron_candidates(posterior.recording, power=1.0)
    message = r"background: expected RandomBulk\(learned=False\) for .*rank_perturbations"
    for call in (
        lambda: lrp.analyze_degeneracy(posterior),
        lambda: lrp.predict_certainty(posterior, candidates),
        lambda: lrp.design_perturbations(posterior, 2, power=1.0, seed=0),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="learned: expected True or False"):
        lrp.RandomBulk(learned="yes")
