"""Readouts: their regression against its closed form in other words, known ones recovered, what they refuse."""

import dataclasses
import functools

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from plain import plain_model

import lrposterior as lrp
from lrposterior.distribution import SampleDistribution
from lrposterior.readout import Regression

TYPES = list("EEEEEEII")
# Two outputs of the six neurons that excite, and their noise.
W_OUT = np.random.default_rng(7).standard_normal((2, 6))
B_OUT, NOISE = np.array([0.5, -1.0]), np.array([0.3, 0.5])


def regression() -> tuple[np.ndarray, np.ndarray, Regression]:
    random = np.random.default_rng(0)
    X = random.standard_normal((40, 4)) @ random.standard_normal((4, 4)) + 2.0
    Y = X @ random.standard_normal((4, 2)) + 0.5 + random.standard_normal((40, 2))
    return X, Y, Regression.of(X, Y)


def test_draws_of_the_regression_have_the_moments_of_its_posterior():
    """A multivariate t over (W_out, b_out), from one design matrix in which b_out has no prior."""
    X, Y, found = regression()
    design, dof = np.column_stack([X, np.ones(len(X))]), len(X) - 1
    random = np.random.default_rng(1)
    draws = [found.draw(random) for _ in range(20_000)]
    for output in range(2):
        precision = design.T @ design + np.diag([found.penalty[output]] * 4 + [0.0])
        mean = np.linalg.solve(precision, design.T @ Y[:, output])
        rest = Y[:, output] @ Y[:, output] - mean @ precision @ mean
        sampled = np.array([[*weights[output], offset[output]] for weights, offset, _ in draws])
        covariance = rest / (dof - 2) * np.linalg.inv(precision)
        sd = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(sampled.mean(axis=0), mean, atol=0.03 * sd.max())
        np.testing.assert_allclose(np.cov(sampled.T), covariance, atol=0.06 * sd.max() ** 2)
        variances = np.array([noise[output] for *_, noise in draws]) ** 2
        assert scipy.stats.kstest(rest / variances, "chi2", (dof,)).pvalue > 1e-3


def test_the_prior_scale_is_that_with_the_highest_evidence():
    """The evidence of the outputs beside their mean, in one multivariate t over bins for every prior scale."""
    X, Y, found = regression()
    contrasts = scipy.linalg.null_space(np.ones((1, len(X)))).T
    penalties = np.logspace(-3.0, 6.0, 19)

    def evidence(penalty: float, output: int) -> float:
        shape = np.eye(len(contrasts)) + contrasts @ X @ X.T @ contrasts.T / penalty
        y = contrasts @ Y[:, output]
        return -0.5 * np.linalg.slogdet(shape)[1] - 0.5 * len(y) * np.log(y @ np.linalg.solve(shape, y))

    for output in range(2):
        expected = np.array([evidence(one, output) for one in penalties])
        values = np.array([found._replace(penalty=np.full(2, one)).log_evidence[output] for one in penalties])
        np.testing.assert_allclose(values - values[0], expected - expected[0], rtol=1e-8, atol=1e-8)
        assert evidence(found.penalty[output], output) >= expected.max() - 1e-3


@functools.cache
def dale_case():
    """The posterior from half of the trials, the others, and what the network computes, without noise and with."""
    model = lrp.LowRankModel(
        2,
        nonlinearity="softplus",
        observation=lrp.PoissonObservation(scale=30.0),
        background=None,
        priors=lrp.DaleLoadings(K={"E": 1.5, "I": 6.0}, b=0.5),
    )
    truth = lrp.simulate_recording(
        model, num_neurons=8, num_trials=40, num_bins=40, num_inputs=2, cell_types=TYPES, seed=4
    )
    recording = truth.recording
    settled = model.for_recording(recording)
    rates = np.logaddexp(0.0, settled.simulated_currents(truth.parameters, recording, seed=0))
    computed = rates[..., :6] @ W_OUT.T + B_OUT
    outputs = computed + NOISE * np.random.default_rng(0).standard_normal(computed.shape)
    fitted, held = recording.select(trials=range(20)), recording.select(trials=range(20, 40))
    posterior = lrp.fit(model, fitted, seed=0, progress=False)
    return posterior, held, computed, outputs


@functools.cache
def dale_readout() -> lrp.Readout:
    posterior, _, _, outputs = dale_case()
    return lrp.fit_readout(posterior, outputs[:20], num_draws=60, seed=0)


@pytest.mark.slow
def test_a_known_readout_predicts_held_out_outputs_with_the_right_intervals():
    _, held, computed, outputs = dale_case()
    readout = dale_readout()
    expected = 1.0 - NOISE**2 / outputs[20:].var(axis=(0, 1))
    np.testing.assert_allclose(readout.r_squared(held, outputs[20:]), expected, atol=0.05)
    lower, upper = readout.interval(held, seed=1)
    assert 0.86 < np.mean((lower <= outputs[20:]) & (outputs[20:] <= upper)) < 0.94
    np.testing.assert_allclose(readout.noise_scale.mean(axis=0), NOISE, rtol=0.1)
    predicted = readout.predict(held)
    assert predicted.shape == (60, 20, 40, 2)
    lower, upper = np.quantile(predicted, [0.05, 0.95], axis=0)
    assert 0.75 < np.mean((lower <= computed[20:]) & (computed[20:] <= upper)) < 0.97


def test_inhibitory_neurons_have_no_weight_and_excitatory_ones_do():
    readout = dale_readout()
    assert readout.W_out.shape == (60, 2, 8)
    assert np.all(readout.W_out[..., 6:] == 0.0)
    assert np.all(readout.W_out[..., :6] != 0.0)


def test_the_weights_of_a_known_network_are_recovered():
    """Of a posterior that is a point at the truth: 90% intervals of weights and offsets, over eight readouts."""
    posterior = dale_case()[0]
    mode = SampleDistribution(posterior.mode_coordinates[None, None])
    point = dataclasses.replace(posterior, method="match", distribution=mode)
    rates, random, inside = point.mode_rates()[..., :6], np.random.default_rng(2), []
    for seed in range(8):
        W, b = random.standard_normal((2, 6)), random.standard_normal(2)
        outputs = rates @ W.T + b
        outputs = outputs + 0.5 * outputs.std(axis=(0, 1)) * random.standard_normal(outputs.shape)
        readout = lrp.fit_readout(point, outputs, num_draws=400, seed=seed)
        for draws, truth in ((readout.W_out[..., :6], W), (readout.b_out, b)):
            lower, upper = np.quantile(draws, [0.05, 0.95], axis=0)
            inside.append(((lower <= truth) & (truth <= upper)).ravel())
    assert 0.8 < np.mean(np.concatenate(inside)) < 0.97


def test_bins_without_an_output_are_left_out():
    posterior, held, _, outputs = dale_case()
    choice = np.full(outputs.shape, np.nan)
    choice[:, -8:] = outputs[:, -8:]
    readout = lrp.fit_readout(posterior, choice[:20], num_draws=20, seed=0)
    assert np.all(readout.r_squared(held, choice[20:]) > 0.3)
    changed = np.where(np.isnan(choice), 1e6, choice)
    changed[:, :-8, 0] = np.nan  # a bin without one of the outputs counts for none
    again = lrp.fit_readout(posterior, changed[:20], num_draws=20, seed=0)
    np.testing.assert_array_equal(again.W_out, readout.W_out)


@pytest.mark.slow
def test_with_process_noise_the_activity_of_a_trial_says_what_its_output_is():
    model = plain_model(1, process_noise="diagonal")
    truth = lrp.simulate_recording(
        model, num_neurons=10, num_trials=30, num_bins=40, num_inputs=1, noise_scale=0.2,
        process_noise=0.04 * np.eye(1), seed=1,
    )  # fmt: skip
    outputs = truth.rates @ np.random.default_rng(0).standard_normal((10, 1))
    fitted, held = truth.recording.select(trials=range(20)), truth.recording.select(trials=range(20, 30))
    posterior = lrp.fit(model, fitted, lrp.Laplace(mean="mode"), seed=0, progress=False)
    r_squared = lrp.fit_readout(posterior, outputs[:20], num_draws=10, seed=0).r_squared(held, outputs[20:])
    without = dataclasses.replace(posterior.model, process_noise=None)
    network = {name: value for name, value in posterior.mode.items() if name != "process_noise"}
    from_inputs = without.simulate(network, held, seed=0)
    explained = np.corrcoef((from_inputs.activity @ np.ones(10)).ravel(), outputs[20:].ravel())[0, 1] ** 2
    assert r_squared[0] > 0.9 > explained


def test_a_readout_returns_from_its_file(tmp_path):
    posterior, held, _, _ = dale_case()
    readout = dale_readout()
    readout.save(tmp_path / "readout.npz")
    loaded = lrp.Readout.load(tmp_path / "readout.npz", posterior)
    np.testing.assert_array_equal(loaded.predict(held), readout.predict(held))
    other = dataclasses.replace(posterior, mode_coordinates=posterior.mode_coordinates + 1.0)
    with pytest.raises(ValueError, match=r"posterior: expected that of 'readout.npz', got another one; load the"):
        lrp.Readout.load(tmp_path / "readout.npz", other)
    with pytest.raises(ValueError, match="read-only"):
        loaded.W_out[0] = 0.0


def test_what_does_not_fit_is_refused():
    posterior, held, _, outputs = dale_case()
    with pytest.raises(ValueError, match="outputs: expected shape"):
        lrp.fit_readout(posterior, outputs, seed=0)
    with pytest.raises(ValueError, match="outputs: expected at least three bins with all outputs, got 0"):
        lrp.fit_readout(posterior, np.full((20, 40, 1), np.nan), seed=0)
    with pytest.raises(ValueError, match="outputs: expected finite numbers, or NaN"):
        lrp.fit_readout(posterior, np.full((20, 40, 1), np.inf), seed=0)
    with pytest.raises(ValueError, match="trials: expected num_neurons = 8, as in the recording, got 7"):
        lrp.fit_readout(posterior, outputs[20:], held.select(neurons=range(7)), seed=0)
    with pytest.raises(ValueError, match="outputs: expected shape"):
        dale_readout().r_squared(held, outputs[20:, :, :1])
