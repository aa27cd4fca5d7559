"""The evidence decides whether K depends on the other loadings of a neuron."""

import dataclasses
import functools

import numpy as np
import pytest
from plain import plain_model

import lrposterior as lrp

NUM_NEURONS, DT, TIME_CONSTANT, NOISE = 40, 0.02, 0.1, 0.1
CORRELATED = lrp.CorrelatedLoadings()
INDEPENDENT = lrp.Priors(K=CORRELATED.K)


def recorded(network, seed):
    """12 trials of 60 bins of a network (W, B, b), driven by two smooth inputs."""
    random = np.random.default_rng([seed, 1])
    inputs = random.standard_normal((12, 60, 2))
    for time in range(1, 60):
        inputs[:, time] = 0.9 * inputs[:, time - 1] + np.sqrt(1.0 - 0.9**2) * inputs[:, time]
    silent = lrp.Recording(np.zeros((12, 60, NUM_NEURONS)), DT, inputs=inputs)
    known = lrp.NetworkPosterior.known(lrp.FullRankNetwork(time_constant=TIME_CONSTANT), silent, network)
    rates = known.predict_rates(num_draws=1, seed=0)[0]
    return dataclasses.replace(silent, activity=rates + NOISE * random.standard_normal(rates.shape))


@functools.cache
def weak_latent(seed):
    """Independent loadings, a strong and a weak latent, and a bulk of gain 0.25."""
    random = np.random.default_rng([seed, 0])
    M, K = random.standard_normal((2, NUM_NEURONS, 2))
    W = M @ (np.array([3.5, 0.8]) * K).T / NUM_NEURONS
    W = W + 0.25 / np.sqrt(NUM_NEURONS) * random.standard_normal(W.shape)
    B, b = random.standard_normal((NUM_NEURONS, 2)), 0.5 * random.standard_normal(NUM_NEURONS)
    return W, recorded({"W": W, "B": B, "b": b}, seed)


@functools.cache
def correlated(seed):
    """K = 1.25 M + 0.6 x, without a bulk; and the residuals' scale in units of the root mean square of M."""
    random = np.random.default_rng([seed, 0])
    M, x = random.standard_normal((2, NUM_NEURONS, 2))
    W = M @ (1.25 * M + 0.6 * x).T / NUM_NEURONS
    B, b = random.standard_normal((NUM_NEURONS, 2)), 0.5 * random.standard_normal(NUM_NEURONS)
    return W, recorded({"W": W, "B": B, "b": b}, seed)


@functools.cache
def fitted(truth, seed, priors, background):
    model = lrp.LowRankModel(2, TIME_CONSTANT, priors=priors, background=background)
    return lrp.fit(model, truth(seed)[1], seed=0, progress=False)


BULK = lrp.RandomBulk()


def promise(W, posterior, seed):
    """R² promised and achieved, pooled over 40 currents W s of patterns that the recording never visited."""
    Q = posterior.model.background.visited
    patterns = np.random.default_rng([seed, 2]).standard_normal((NUM_NEURONS, 40))
    patterns -= Q @ (Q.T @ patterns)
    draws = posterior.sample_connectivity(300, seed=0).to_dense() @ patterns
    mean, truth = draws.mean(axis=0), W @ patterns
    signal = np.sum(mean**2)
    promised = signal / (signal + np.sum(draws.var(axis=0)))
    return promised, 1.0 - np.sum((truth - mean) ** 2) / np.sum(truth**2)


@pytest.mark.slow
def test_a_weak_latent_does_not_become_a_copy_of_the_right_factor_of_a_strong_one():
    """Promised and achieved R² of currents that no data have seen.

    On three networks they differ by .06 to .08; where left factors copied right ones, .53 was promised and -.01 reached
    on this one, and .4 to .6 and .1 to .2 on the others.
    """
    posterior = fitted(weak_latent, 2, CORRELATED, BULK)
    assert posterior.statistics.regression_ahead < 0.0
    assert "loadings: K independent of M, B and b" in str(posterior)
    promised, achieved = promise(weak_latent(2)[0], posterior, 2)
    assert abs(promised - achieved) < 0.25


@pytest.mark.slow
def test_correlated_loadings_are_found():
    posterior = fitted(correlated, 0, CORRELATED, None)
    assert posterior.statistics.regression_ahead > 0.0
    assert "loadings: K depends on M, B and b" in str(posterior)
    scale, spread = posterior.statistics.scales["K"]
    assert abs(np.log(scale / 0.6)) < 3.0 * spread
    assert scale < fitted(correlated, 0, INDEPENDENT, None).statistics.scales["K"][0]


@pytest.mark.slow
def test_the_evidence_of_the_posterior_is_the_higher_one():
    """Of the two models, each with the regression or without, to what the balance leaves open (0.1 nats)."""
    chosen, without = fitted(correlated, 0, CORRELATED, None), fitted(correlated, 0, INDEPENDENT, None)
    ahead = chosen.statistics.log_evidence - without.statistics.log_evidence
    assert ahead == pytest.approx(chosen.statistics.regression_ahead, abs=0.1)
    assert without.statistics.regression_ahead is None
    chosen, without = (fitted(weak_latent, 2, priors, BULK) for priors in (CORRELATED, INDEPENDENT))
    assert chosen.statistics.log_evidence == pytest.approx(without.statistics.log_evidence, abs=0.1)
    np.testing.assert_allclose(chosen.connectivity_mean(), without.connectivity_mean(), atol=1e-6)


def test_a_known_scale_of_the_residuals_is_not_put_to_the_choice():
    posterior = fitted(correlated, 0, lrp.CorrelatedLoadings(K=0.6), None)
    assert posterior.statistics.regression_ahead is None
    assert isinstance(posterior.model.priors, lrp.CorrelatedLoadings)


@pytest.mark.slow
def test_every_cell_type_keeps_its_scale_where_loadings_are_independent():
    """Right factors of standard deviation 3 for one type and 0.5 for the other, independent of all else."""
    random = np.random.default_rng(7)
    scales = np.repeat([3.0, 0.5], NUM_NEURONS // 2)
    M, K = random.standard_normal((2, NUM_NEURONS, 1))
    W = M @ (scales[:, None] * K).T / NUM_NEURONS
    B, b = random.standard_normal((NUM_NEURONS, 2)), 0.5 * random.standard_normal(NUM_NEURONS)
    recording = recorded({"W": W, "B": B, "b": b}, 7)
    recording = dataclasses.replace(recording, cell_types=["A"] * (NUM_NEURONS // 2) + ["B"] * (NUM_NEURONS // 2))
    model = plain_model(1, TIME_CONSTANT, priors=lrp.CorrelatedLoadings(by_cell_type=True))
    posterior = lrp.fit(model, recording, seed=0, progress=False)
    assert posterior.statistics.regression_ahead < 0.0
    for name, true in (("K[A]", 3.0), ("K[B]", 0.5)):
        scale, spread = posterior.statistics.scales[name]
        assert abs(np.log(scale / true)) < 3.0 * spread


def test_the_choice_is_saved(tmp_path):
    posterior = fitted(correlated, 0, CORRELATED, None)
    posterior.save(tmp_path / "fit.nc")
    loaded = lrp.load_posterior(tmp_path / "fit.nc")
    assert str(loaded) == str(posterior)
