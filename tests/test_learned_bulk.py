"""A low-rank part that was learned amid the recorded activity reads visited patterns, and no others."""

import dataclasses

import numpy as np
import pytest
from handmade import STATISTICS, make_posterior, make_recording
from plain import plain_model
from test_linearised import structured_fit

import lrposterior as lrp
from lrposterior.background import visited_subspace
from lrposterior.report import write_report

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


@pytest.mark.long
@pytest.mark.slow
def test_learned_truths_are_predicted_as_promised():
    """Responses to random patterns of networks whose K lies nearly in the visited span, with a bulk of 0.3.

    Four networks of 24 neurons and 12 patterns. Of 24 such networks 90% intervals held 0.87 on average, with a standard
    deviation of 0.036 between networks, and the spread with K free in unseen directions was 1.7 times as large, with a
    standard deviation of 0.33: the means of four leave these bounds in less than 1 of 100 cases.
    """
    covered, spreads, errors = [], [], []
    for seed in range(4):
        truth, recording, patterns = learned_network(np.random.default_rng(seed))
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
        spreads.append([each.var(axis=0).sum() for each in (draws, of_free)])
        errors.append([np.sum((each.mean(axis=0) - true) ** 2) for each in (draws, of_free)])
    assert 0.80 < np.mean(covered) < 0.95
    assert np.mean([free / own for own, free in spreads]) > 1.2
    assert np.sum(errors, axis=0)[0] < np.sum(errors, axis=0)[1]


def learned_network(random):
    """W = M K^T / N + bulk, K in the span of the four leading patterns of the rates of this very network."""
    num_neurons, dimension = 24, 4
    B, M = random.standard_normal((2, num_neurons, 2))
    inputs = np.repeat(random.standard_normal((8, 5, 2)), 10, axis=1)
    bulk = 0.3 / np.sqrt(num_neurons) * random.standard_normal((num_neurons, num_neurons))
    K = B @ random.standard_normal((4, 2))[:2]
    silent = lrp.Recording(np.zeros((8, 50, num_neurons)), 0.02, inputs=inputs)
    model = lrp.FullRankNetwork(time_constant=0.1)
    for _ in range(20):
        K = 3.0 * np.sqrt(num_neurons) * K / np.linalg.norm(K, axis=0)
        weights = {"W": M @ K.T / num_neurons + bulk, "B": B, "b": np.zeros(num_neurons)}
        truth = lrp.NetworkPosterior.known(model, silent, weights)
        rates = truth.predict_rates(inputs, num_draws=1, seed=0)[0]
        Q = visited_subspace(rates.reshape(-1, num_neurons), dimension)
        K = Q @ (Q.T @ K)
    recording = lrp.Recording(rates + 0.1 * random.standard_normal(rates.shape), 0.02, inputs=inputs)
    patterns = random.standard_normal((12, num_neurons))
    return truth, recording, patterns / np.linalg.norm(patterns, axis=1, keepdims=True)


def learned_fit():
    """The structured posterior of a network of 14 neurons, whose low-rank part is then taken to be learned."""
    posterior = structured_fit(with_bulk=True)
    background = dataclasses.replace(posterior.model.background, learned=True)
    return dataclasses.replace(posterior, model=dataclasses.replace(posterior.model, background=background))


@pytest.mark.slow
def test_entries_of_a_large_network_are_those_of_the_matrix_and_of_draws():
    """Against the moments of the dense form to the error of one covariance for all prior scales, and of 4,000 draws."""
    posterior = learned_fit()
    mean, sd = posterior.connectivity_entries(*np.divmod(np.arange(14 * 14), 14))
    np.testing.assert_allclose(sd, posterior.connectivity_sd().ravel(), rtol=0.01)
    np.testing.assert_allclose(mean, posterior.connectivity_mean().ravel(), atol=0.02 * sd.min())
    draws = posterior.sample_connectivity(4000, seed=0).to_dense().reshape(4000, -1)
    np.testing.assert_allclose(sd, draws.std(axis=0), rtol=0.08)


@pytest.mark.slow
def test_certainty_without_draws_is_that_of_draws():
    """As for K that reads everything (`tests/test_linearised.py`), whose certainty is another."""
    posterior, free = learned_fit(), structured_fit(with_bulk=True)
    candidates = lrp.single_neuron_candidates(posterior.recording, power=2.0).select(slice(0, 12))
    linearised, of_free = (lrp.predict_certainty(one, candidates, num_readouts=40) for one in (posterior, free))
    drawn = lrp.rank_perturbations(posterior, candidates, num_draws=400, progress=False)
    np.testing.assert_allclose(linearised.expected_r2, drawn.expected_r2, atol=0.06)
    assert np.abs(of_free.expected_r2 - drawn.expected_r2).max() > 0.2


def test_learned_is_a_yes_or_a_no():
    with pytest.raises(ValueError, match="learned: expected True or False"):
        lrp.RandomBulk(learned="yes")


@pytest.mark.slow
def test_report_is_written(tmp_path):
    posterior = learned_fit()
    candidates = lrp.single_neuron_candidates(posterior.recording, power=2.0).select(slice(0, 3))
    ranking = lrp.rank_perturbations(posterior, candidates, num_draws=40, progress=False)
    path = tmp_path / "report.html"
    write_report(path, posterior, lrp.analyze_degeneracy(posterior), ranking, seed=0)
    assert path.stat().st_size > 0
