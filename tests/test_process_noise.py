"""Fits of single trials that noise drives: intervals, latents, perturbations, and what a user may get wrong."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from plain import plain_model

import lrposterior as lrp
from lrposterior.calibration.quantities import gauge_invariant_quantities
from lrposterior.calibration.simulated_truth import Size, simulate_truth
from lrposterior.inference.balance import balance
from lrposterior.inference.initialise import initialise
from lrposterior.inference.mode import find_mode
from lrposterior.inference.problem import Problem
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.responses import response_draws
from lrposterior.precision import double_precision
from lrposterior.process_noise import latent_covariance
from lrposterior.rollouts import predicted_activity, predicted_moments

MODEL = plain_model(rank=1, process_noise="diagonal")
COVARIANCE = np.array([[0.006]])


@functools.cache
def simulated(seed=0, num_trials=12, num_neurons=14):
    return lrp.simulate_recording(
        MODEL,
        num_neurons=num_neurons,
        num_trials=num_trials,
        num_bins=50,
        noise_scale=0.2,
        process_noise=COVARIANCE,
        seed=seed,
    )


@functools.cache
def fitted(seed=0):
    return lrp.fit(MODEL, simulated(seed).recording, lrp.Laplace(mean="mode"), seed=0, progress=False)


def current_noise(parameters):
    return parameters["M"] @ parameters["process_noise"] @ parameters["M"].T


@pytest.mark.slow
def test_intervals_hold_where_those_of_a_rollout_do_not():
    """Three networks, 588 entries of W that depend on each other: 90% intervals hold 82 to 97%, a rollout's fewer."""
    inside, of_rollout = [], []
    for seed in range(3):
        W = simulated(seed).connectivity
        rollout = dataclasses.replace(MODEL, process_noise=None)
        plain = lrp.fit(rollout, simulated(seed).recording, lrp.Laplace(mean="mode"), seed=0, progress=False)
        for posterior, kept in ((fitted(seed), inside), (plain, of_rollout)):
            z = (W - posterior.connectivity_mean()) / posterior.connectivity_sd()
            kept.append(np.mean(np.abs(z) < 1.645))
    assert 0.82 < np.mean(inside) < 0.97
    assert np.mean(of_rollout) < np.mean(inside) - 0.1


@pytest.mark.slow
def test_a_fit_whose_noise_is_nearly_0_is_that_of_a_rollout():
    """The same recording without process noise: the same W with the same intervals."""
    plain = dataclasses.replace(MODEL, process_noise=None)
    simulation = lrp.simulate_recording(plain, num_neurons=8, num_trials=6, num_bins=40, noise_scale=0.2, seed=4)
    quiet = dataclasses.replace(MODEL, process_noise=lrp.ProcessNoise(scale=1e-6, spread=0.01))
    rollout, found = (
        lrp.fit(model, simulation.recording, lrp.Laplace(mean="mode"), seed=0, progress=False)
        for model in (plain, quiet)
    )
    error = (found.connectivity_mean() - rollout.connectivity_mean()) / rollout.connectivity_sd()
    assert np.abs(error).max() < 1e-3
    np.testing.assert_allclose(found.connectivity_sd(), rollout.connectivity_sd(), rtol=1e-3)


def test_the_noise_of_the_currents_is_found():
    posterior = fitted()
    draws = posterior.sample_parameters(400, seed=0)
    of_draws = np.array(
        [np.trace(current_noise({name: value[i] for name, value in draws.items()})) for i in range(400)]
    )
    truth = np.trace(current_noise(simulated().parameters))
    assert abs(np.log(of_draws).mean() - np.log(truth)) < 3.0 * np.log(of_draws).std()
    assert np.log(of_draws).std() < 0.5


@pytest.mark.slow
def test_latents_of_single_trials_are_within_their_intervals():
    """600 bins of correlated currents along one latent: 90% intervals hold 80 to 97%; smoothing beats prediction."""
    simulation, posterior = simulated(), fitted()
    true = observed_truth(simulation)
    errors = {}
    for given in ("all bins", "bins up to now", "bins before"):
        paths = lrp.infer_latents(posterior, given=given)
        error, sd = paths.currents - true, np.abs(posterior.mode["M"][:, 0]) * paths.sd
        strong = np.argmax(np.abs(posterior.mode["M"][:, 0]))
        inside = np.abs(error[:, 1:, strong]) < 1.645 * sd[:, 1:, strong]
        assert 0.8 < inside.mean() < 0.97
        errors[given] = np.mean(error**2)
        np.testing.assert_allclose(paths.rates, np.tanh(paths.currents))
    assert errors["all bins"] < errors["bins up to now"] < errors["bins before"]


def observed_truth(simulation):
    """The true currents, from the true rates."""
    return np.arctanh(np.clip(simulation.rates, -1.0 + 1e-12, 1.0 - 1e-12))


def test_rates_of_masked_neurons_follow_from_the_others():
    simulation, posterior = simulated(), fitted()
    mask = np.ones(simulation.recording.activity.shape, dtype=bool)
    mask[:, :, 2] = False
    hidden = dataclasses.replace(simulation.recording, mask=mask)
    seen = lrp.infer_latents(posterior).rates[:, :, 2]
    found = lrp.infer_latents(posterior, hidden).rates[:, :, 2]
    assert not np.allclose(found, seen)
    true = simulation.rates[:, :, 2]
    assert np.mean((found - true) ** 2) < 0.3 * np.var(true)


def test_the_log_likelihood_of_trials_is_that_of_the_model():
    posterior = fitted()
    model, recording = posterior.model, posterior.recording
    with jax.enable_x64(True):
        expected = lrp.log_likelihood(
            model, posterior.space.unwhiten(posterior.mode_coordinates), model.data(recording)
        )
        assert np.isclose(lrp.infer_latents(posterior).log_likelihood.sum(), float(expected), rtol=1e-10)


@pytest.mark.slow
def test_responses_are_averages_over_the_noise():
    """Against 1,500 pairs of simulated trials with the same noise, one of each pair stimulated."""
    posterior = fitted()
    recording = posterior.recording
    candidates = lrp.pattern_candidates(recording, np.eye(14)[:1] * 3.0, power=1.0)
    inputs = np.zeros((1, recording.num_bins, recording.num_inputs))
    experiment = make_experiment(posterior, candidates, inputs, None)
    mode = {name: np.repeat(value[None], 300, axis=0) for name, value in posterior.mode.items()}
    draws = response_draws(posterior.model, mode, experiment, "current")[:, 0, 0]
    stimulation = experiment.time_course[:, None] * experiment.patterns[0]
    silent = np.zeros((1500, recording.num_bins, 14))
    like = lrp.Recording(silent, recording.dt, np.zeros((1500, recording.num_bins, 2)))
    perturbed = dataclasses.replace(like, stimulation=np.broadcast_to(stimulation, silent.shape))
    unknown = dataclasses.replace(posterior.model, initial_state="zero")
    before, after = (unknown.simulated_currents(posterior.mode, each, seed=3) for each in (like, perturbed))
    direct, a = np.zeros(silent.shape[1:]), recording.dt / posterior.model.time_constant
    for time in range(1, len(direct)):
        direct[time] = (1.0 - a) * direct[time - 1] + a * stimulation[time - 1]
    single = (after - before - direct)[:, experiment.start : experiment.stop]
    error = np.sqrt(single.var(axis=0) / 1500 + draws.var(axis=0) / 300)
    late = error > 0.0
    z = (draws.mean(axis=0) - single.mean(axis=0))[late] / error[late]
    assert np.sqrt(np.mean(z**2)) < 2.0
    # 300 draws of 8 realisations: the spread between draws is an eighth of that between trials.
    assert 0.8 < np.sum(draws.var(axis=0)) * 8.0 / np.sum(single.var(axis=0)) < 1.25


@pytest.mark.slow
def test_a_ranking_tells_noise_from_ignorance():
    posterior = fitted()
    candidates = lrp.single_neuron_candidates(posterior.recording, power=1.0).select([0, 3, 5])
    ranking = lrp.rank_perturbations(posterior, candidates, num_draws=200, progress=False)
    assert np.all((ranking.noise_share > 0.0) & (ranking.noise_share < 1.0))
    assert "noise share" in ranking.top(2)
    assert np.all((ranking.expected_r2 >= 0.0) & (ranking.expected_r2 <= 1.0))
    assert ranking.warnings == ()


@pytest.mark.slow
def test_without_process_noise_no_share_of_it_is_named():
    model = dataclasses.replace(MODEL, process_noise=None)
    posterior = lrp.fit(model, simulated().recording, lrp.Laplace(mean="mode"), seed=0, progress=False)
    candidates = lrp.single_neuron_candidates(posterior.recording, power=1.0).select([0, 3])
    ranking = lrp.rank_perturbations(posterior, candidates, num_draws=50, progress=False)
    assert np.all(ranking.noise_share == 0.0)
    assert "noise share" not in ranking.top(2)
    # The rollout leaves what the noise does in its residuals, and a check says so.
    assert any("neighbouring bins" in warning for warning in ranking.warnings)


def test_a_fit_comes_back_from_its_file(tmp_path):
    posterior = fitted()
    posterior.save(tmp_path / "fit.nc")
    loaded = lrp.load_posterior(tmp_path / "fit.nc")
    assert loaded.model.process_noise == posterior.model.process_noise
    for name, value in posterior.mode.items():
        np.testing.assert_array_equal(loaded.mode[name], value)
    np.testing.assert_array_equal(lrp.infer_latents(loaded).mean, lrp.infer_latents(posterior).mean)


def test_noise_is_drawn_once_and_then_given_out_in_the_gauge_of_M():
    posterior = fitted()
    draws = posterior.sample_parameters(5, seed=0)
    assert draws["process_noise"].shape == (5, 1, 1)
    named = posterior.model.coordinates(draws, posterior.recording.dt)
    again = posterior.model.named(named, posterior.recording.dt)
    np.testing.assert_allclose(again["process_noise"], draws["process_noise"], rtol=1e-10)


@pytest.mark.usefixtures("single_precision")
def test_the_noise_is_given_out_in_double_precision():
    random = np.random.default_rng(0)
    M, patterns = random.standard_normal((7, 2)), np.linalg.qr(random.standard_normal((7, 2)))[0]
    model = plain_model(rank=2, process_noise=lrp.ProcessNoise("full", patterns=patterns))
    settled = model.for_recording(simulated(num_neurons=7).recording)
    coordinates = {"M": M, "b": np.zeros(7), "log_process_scale": np.log([0.3, 0.1]), "process_mixing": np.array([0.5])}
    found = settled.named(coordinates, 0.02)["process_noise"]
    with jax.enable_x64(True):
        expected = latent_covariance(coordinates, patterns)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_currents_that_patterns_are_found_in_are_those_of_the_recording():
    recording = simulated().recording
    model = dataclasses.replace(MODEL, observation=lrp.GaussianObservation(of="current"))
    np.testing.assert_array_equal(model.observed_currents(recording), recording.activity)


@pytest.mark.parametrize("wrong", ["none", 0.1, True, ["diagonal"]])
def test_what_is_no_process_noise_is_refused(wrong):
    with pytest.raises(ValueError, match=r"process_noise: expected None, 'diagonal', 'full' or a ProcessNoise"):
        lrp.LowRankModel(rank=1, process_noise=wrong)


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"process_noise\.scale"):
        lrp.ProcessNoise(scale=0.0)
    with pytest.raises(ValueError, match=r"process_noise\.shape"):
        lrp.ProcessNoise("round")
    with pytest.raises(ValueError, match="positive definite"):
        lrp.simulate_recording(MODEL, num_neurons=5, process_noise=[[-1.0]], seed=0)
    truth = simulated()
    with pytest.raises(ValueError, match=r"parameters\['process_noise'\]: expected a positive definite covariance"):
        MODEL.simulate(truth.parameters | {"process_noise": np.array([[-1.0]])}, truth.recording, seed=0)
    settled = MODEL.for_recording(truth.recording)
    with pytest.raises(
        ValueError, match=r"process_noise\.patterns: expected shape \(neuron=5, rank=1\), got \(14, 1\)"
    ):
        settled.for_recording(truth.recording.select(neurons=np.arange(5)))
    plain = dataclasses.replace(MODEL, process_noise=None)
    with pytest.raises(ValueError, match="a model that has process noise"):
        lrp.simulate_recording(plain, num_neurons=5, process_noise=[[1.0]], seed=0)


def test_a_dense_background_is_refused_with_the_mend():
    recording = simulated().recording
    model = dataclasses.replace(MODEL, background=lrp.FixedBackground(np.eye(14) * 0.1))
    with pytest.raises(ValueError, match="connectivity of low rank, got a known matrix W0"):
        lrp.fit(model, recording, seed=0, progress=False)


def test_questions_that_need_noise_or_none_say_so():
    posterior = fitted()
    candidates = lrp.single_neuron_candidates(posterior.recording, power=1.0)
    with pytest.raises(ValueError, match="a fit without process noise"):
        lrp.design_perturbations(posterior, 2, power=1.0, candidates=candidates, trials_per_pattern=1, seed=0)
    with pytest.raises(ValueError, match="a fit without process noise"):
        lrp.check_fit(posterior, posterior.recording)
    plain = lrp.fit(plain_model(rank=1), simulated().recording, lrp.Laplace(mean="mode"), seed=0, progress=False)
    with pytest.raises(ValueError, match="a fit with process_noise"):
        lrp.infer_latents(plain)
    with pytest.raises(ValueError, match="num_neurons = 14"):
        lrp.infer_latents(posterior, posterior.recording.select(neurons=np.arange(5)))


@pytest.mark.slow
def test_noise_is_seen_along_a_direction_of_M_that_leading_patterns_of_the_recording_miss():
    """A network that hardly moves along one direction: with principal directions alone the descent finds no mode."""
    priors = lrp.Priors(noise_scale=0.15, noise_spread=0.2, unit=1.0)
    model = plain_model(rank=2, priors=priors, process_noise=lrp.ProcessNoise("full", spread=0.5))
    fits = []

    def fit(model, recording, seed):
        fits.append(lrp.fit(model, recording, lrp.Laplace(mean="mode"), seed=seed, progress=False))
        return fits[0]

    simulate_truth(model, Size(10, 12, 60), fit, quantities=gauge_invariant_quantities, num_draws=99, seed=45)
    columns = np.linalg.svd(fits[0].mode["M"], full_matrices=False)[0]
    of_recording = model.for_recording(fits[0].recording).noise_of_process.settled_patterns
    found = fits[0].model.noise_of_process.settled_patterns
    assert np.linalg.svd(of_recording.T @ columns)[1][-1] < 0.3
    assert np.linalg.svd(found.T @ columns)[1][-1] > 0.9


@double_precision
def test_a_long_descent_ends_where_no_slope_across_the_gauge_of_its_end_is_left(monkeypatch):
    """Factors are balanced in expectation: there is a slope along the gauge, and the gauge turns with the point.

    From a start half a standard deviation away in every direction, less than 3 of 10,000 expected nats are left. Steps
    of the same number that go down the slope along the gauge leave 28 of them.
    """
    monkeypatch.setattr("lrposterior.inference.problem.EXPECTED_PART", np.inf)
    simulation = simulated()
    problem = Problem.of(
        MODEL.for_recording(simulation.recording).with_noise_along(simulation.parameters["M"]), simulation.recording
    )
    balanced = balance(problem, find_mode(problem, initialise(problem))).mode.z
    num_dynamics = problem.space.num_dynamics

    def expected(z):
        covariance = problem.covariance(z, problem.information(z))
        slope = covariance.across_gauge(problem.gradient(z)[:num_dynamics])
        return covariance, slope, 0.5 * slope @ covariance.times(slope)

    covariance, *_ = expected(balanced)
    root = np.linalg.cholesky(np.linalg.inv(problem.information(balanced) + np.eye(num_dynamics)))
    start = balanced.copy()
    start[:num_dynamics] += covariance.across_gauge(0.5 * root @ np.random.default_rng(0).standard_normal(num_dynamics))
    covariance, slope, before = expected(start)
    end, _ = problem.descend(start, covariance, slope)
    assert before > 5.0
    assert expected(end)[2] < 3e-4 * before


@pytest.mark.parametrize("of", ["current", "count"])
def test_what_is_recorded_varies_around_its_prediction_as_is_said(of):
    """Innovations of the true network are white: mean squares of 2,000 bins, within five standard errors."""
    observation = lrp.PoissonObservation(200.0) if of == "count" else lrp.GaussianObservation(of=of)
    nonlinearity = "softplus" if of == "count" else "linear"
    priors = lrp.Priors(M=1.0, K=0.5, unit=1.0)
    model = plain_model(1, nonlinearity=nonlinearity, observation=observation, process_noise="full", priors=priors)
    truth = lrp.simulate_recording(
        model,
        num_neurons=6,
        num_trials=40,
        num_bins=50,
        noise_scale=None if of == "count" else 0.1,
        process_noise=np.array([[0.04]]),
        seed=1,
    )
    settled = truth.model.with_noise_along(truth.parameters["M"]).for_recording(truth.recording)
    draws = {name: np.asarray(value)[None] for name, value in truth.parameters.items()}
    predicted, variance = predicted_moments(settled, draws, truth.recording)[0]
    np.testing.assert_allclose(predicted, predicted_activity(settled, draws, truth.recording)[0], rtol=1e-9, atol=1e-9)
    squares = (truth.recording.activity - predicted) ** 2
    ratio = squares / variance
    error = ratio.std(axis=(0, 1)) / np.sqrt(ratio[..., 0].size)
    assert np.all(np.abs(ratio.mean(axis=(0, 1)) - 1.0) < 5.0 * error)
    of_observation = predicted if of == "count" else 0.01
    assert np.max(np.mean(squares / of_observation, axis=(0, 1))) > 1.2
