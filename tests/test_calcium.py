"""Fluorescence that follows the rate and decays: its density, its information, fits and what they recover."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from observed_fits import (
    connectivity_cover,
    parameter_cover,
    require_answers,
    require_density_of_numpyro,
)
from plain import plain_model

import lrposterior as lrp
from lrposterior.curvature.automatic import automatic_information
from lrposterior.curvature.structured import structured_information
from lrposterior.fit_quality import assess_fit
from lrposterior.likelihood import log_likelihood, log_likelihood_by_trial
from lrposterior.perturbation.scores import _seen_noise
from lrposterior.process_noise import latent_covariance

CALCIUM = lrp.CalciumObservation(decay_time=0.4)
DT = 0.02


@pytest.fixture
def _double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def emission(_double_precision):
    parameters = {"log_decay_time": jnp.log(jnp.array([0.4, 0.05])), "log_noise_scale": jnp.log(jnp.array([0.1, 0.2]))}
    return CALCIUM.emission(parameters, "tanh", DT, jnp.array([0.3, -0.2]))


def settled_case(mask_share=0.8, num_trials=3, num_bins=15, **options):
    """A settled model, its space, its data, parameters and the recording, with bins masked at random."""
    model = plain_model(**({"rank": 2, "observation": CALCIUM} | options))
    simulation = lrp.simulate_recording(
        model, num_neurons=6, num_trials=num_trials, num_bins=num_bins, dt=DT, noise_scale=0.05, seed=0
    )
    mask = np.random.default_rng(0).random(simulation.recording.activity.shape) < mask_share
    recording = dataclasses.replace(simulation.recording, mask=mask)
    settled = model.for_recording(recording)
    space = settled.space_for(recording)
    z = jnp.asarray(np.random.default_rng(1).standard_normal(space.size))
    return settled, space, settled.data(recording), z, recording


@pytest.mark.usefixtures("_double_precision")
def test_the_density_is_that_of_the_trace_bin_by_bin():
    model, space, data, z, recording = settled_case()
    parameters = space.unwhiten(z)
    rates = np.tanh(model.currents(parameters, data))
    kept = np.exp(-DT / np.exp(np.asarray(parameters["log_decay_time"])))
    noise = np.exp(np.asarray(parameters["log_noise_scale"]))
    expected = np.zeros(recording.num_trials)
    for trial in range(recording.num_trials):
        y, seen = recording.activity[trial], recording.mask[trial]
        for time in range(1, recording.num_bins):
            for n in range(recording.num_neurons):
                if seen[time, n] and seen[time - 1, n]:
                    mean = kept[n] * y[time - 1, n] + (1.0 - kept[n]) * rates[trial, time, n]
                    expected[trial] += scipy.stats.norm(mean, noise[n]).logpdf(y[time, n])
    np.testing.assert_allclose(log_likelihood_by_trial(model, parameters, data), expected, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("_double_precision")
@pytest.mark.parametrize("process_noise", [None, "diagonal"])
def test_without_decay_time_it_is_gaussian_noise_on_rates(process_noise):
    """Of bins whose predecessor was observed."""
    model, space, data, z, _ = settled_case(process_noise=process_noise)
    gaussian = dataclasses.replace(model, observation=lrp.GaussianObservation())
    parameters = space.unwhiten(z) | {"log_decay_time": jnp.full(6, np.log(DT / 60.0))}
    found = log_likelihood(model, parameters, data)
    assert np.isclose(found, log_likelihood(gaussian, parameters, dataclasses.replace(data, before=None)), rtol=1e-12)
    slope = jax.grad(lambda log: log_likelihood(model, parameters | {"log_decay_time": log}, data))
    np.testing.assert_allclose(slope(parameters["log_decay_time"]), 0.0, atol=1e-12)


def test_score_weights_and_slopes_are_those_of_the_density(emission):
    current, mask, activity = jnp.array([-1.0, 0.7]), jnp.ones(2, dtype=bool), jnp.array([0.2, 0.1])
    by_autodiff = jax.grad(lambda x: jnp.sum(emission.log_likelihood(activity, mask, x)))(current)
    np.testing.assert_allclose(emission.score(activity, mask, current), by_autodiff, rtol=1e-10)
    draws = emission.mean(current) + 0.1 * jnp.linspace(-12.0, 12.0, 4001)[:, None]
    density = np.exp(jax.vmap(lambda y: emission.log_likelihood(y, mask, current))(draws))
    scores = np.asarray(jax.vmap(lambda y: emission.score(y, mask, current))(draws))
    information = np.sum(density * scores**2, axis=0) * 0.1 * 24.0 / 4000.0
    np.testing.assert_allclose(emission.weights(mask, current), information, rtol=1e-6)
    step = 1e-6
    ends = [
        dataclasses.replace(emission, log_decay_time=emission.log_decay_time + sign * step).mean(current)
        for sign in (1, -1)
    ]
    np.testing.assert_allclose(emission.slopes(current)[:, 0], (ends[0] - ends[1]) / (2.0 * step), rtol=1e-6)
    np.testing.assert_array_equal(emission.own_information(mask, current), np.zeros((2, 1)))
    assert np.all(np.asarray(emission.weights(jnp.zeros(2, dtype=bool), current)) == 0.0)


def test_samples_follow_the_rate_with_the_noise_of_their_steps(emission):
    """A constant rate r: fluorescence with the mean r and the variance noise² (1 + gamma² + gamma⁴ + ...)."""
    current = jnp.broadcast_to(jnp.array([0.5, -0.4]), (20_000, 6, 2))
    sample = emission.sample(np.random.default_rng(0), current)
    kept, noise = np.exp(-DT / np.array([0.4, 0.05])), np.array([0.1, 0.2])
    for time in (0, 3, 5):
        variance = noise**2 * sum(kept ** (2 * step) for step in range(time + 1))
        np.testing.assert_allclose(sample[:, time].mean(axis=0), np.tanh([0.5, -0.4]), atol=0.02)
        np.testing.assert_allclose(sample[:, time].var(axis=0), variance, rtol=0.05)
    rising = jnp.concatenate([jnp.zeros((1, 1, 2)), jnp.ones((1, 4, 2))], axis=1)
    silent = dataclasses.replace(emission, log_noise_scale=jnp.full(2, -50.0))
    trace = silent.sample(np.random.default_rng(0), rising)[0]
    expected = np.tanh(1.0) * (1.0 - kept[None, :] ** np.arange(5)[:, None])
    np.testing.assert_allclose(trace, expected, atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("_double_precision")
def test_the_structured_information_is_that_of_automatic_differentiation():
    model, space, data, z, _ = settled_case(
        background=lrp.RandomBulk(gain=0.3, dimension=2),
        initial_state="free",
        time_constant=lrp.TimeConstantPrior(0.1),
    )
    structured = np.asarray(structured_information(model, space, z, data))
    automatic = np.asarray(automatic_information(model, space, z, data))
    np.testing.assert_allclose(structured, automatic, atol=1e-10 * np.abs(automatic).max())
    assert np.all(np.diag(structured)[space.places("log_decay_time")] > 0.0)


@pytest.mark.usefixtures("_double_precision")
def test_the_filter_is_exact_where_the_network_is_linear():
    """Steps y[t] - gamma y[t-1] are then jointly Normal, with the covariance of the currents by brute force."""
    model, space, data, _, recording = settled_case(
        rank=1, nonlinearity="linear", process_noise="diagonal", num_trials=2, num_bins=6
    )
    z = 0.5 * jnp.asarray(np.random.default_rng(1).standard_normal(space.size))
    parameters = space.unwhiten(z)
    found = log_likelihood_by_trial(model, parameters, data)

    def currents(process):
        return model.currents(parameters, model.driven_by_noise(parameters, data, process))

    nothing = jnp.zeros((2, 6, 1))
    means, response = currents(nothing), jax.jacfwd(currents)(nothing)
    variance = float(latent_covariance(parameters, data.noise_patterns)[0, 0])
    kept = np.exp(-DT / np.exp(np.asarray(parameters["log_decay_time"])))
    noise = np.exp(2.0 * np.asarray(parameters["log_noise_scale"]))
    for trial in range(2):
        y, seen = recording.activity[trial], np.asarray(data.mask[trial]).ravel()
        steps = y - kept * np.concatenate([np.zeros((1, 6)), y[:-1]])
        flat = ((1.0 - kept)[:, None] * np.asarray(response[trial, :, :, trial, :, 0])).reshape(36, 6)
        covariance = variance * flat @ flat.T + np.diag(np.tile(noise, 6))
        residual = (steps - (1.0 - kept) * np.asarray(means[trial])).ravel()[seen]
        expected = scipy.stats.multivariate_normal(np.zeros(seen.sum()), covariance[np.ix_(seen, seen)])
        assert np.isclose(found[trial], expected.logpdf(residual), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("_double_precision")
@pytest.mark.parametrize("process_noise", [None, "diagonal"])
def test_the_likelihood_has_the_right_gradient(process_noise):
    model, space, data, z, _ = settled_case(rank=1, process_noise=process_noise)
    slope = np.asarray(jax.grad(lambda z: log_likelihood(model, space.unwhiten(z), data))(z))
    for direction in np.random.default_rng(1).standard_normal((3, space.size)):
        ends = [float(log_likelihood(model, space.unwhiten(z + s * direction), data)) for s in (1e-6, -1e-6)]
        assert np.isclose(slope @ direction, (ends[0] - ends[1]) / 2e-6, rtol=1e-5)


def noisy_simulation(seed, process_noise="diagonal"):
    model = plain_model(rank=1, process_noise=process_noise, observation=CALCIUM)
    noise = {} if process_noise is None else {"process_noise": 0.006 * np.eye(1)}
    simulation = lrp.simulate_recording(
        model, num_neurons=14, num_trials=16, num_bins=50, noise_scale=0.02, seed=seed, **noise
    )
    return model, simulation


@functools.cache
def fitted(seed=0):
    model, simulation = noisy_simulation(seed)
    return simulation, lrp.fit(model, simulation.recording, lrp.Laplace(mean="mode"), seed=0, progress=False)


@pytest.mark.slow
def test_everything_a_user_asks_works_for_calcium(tmp_path):
    simulation, posterior = fitted()
    require_answers(simulation, posterior, "decay_time", tmp_path)
    quality = assess_fit(posterior)
    assert not quality.recording.mask[:, 0].any()
    assert 0.9 < np.nanmean(quality.standardized_residuals**2) < 1.1
    again = posterior.model.simulate(posterior.mode, posterior.recording, seed=1)
    assert again.activity.shape == posterior.recording.activity.shape


def test_responses_are_seen_with_the_information_of_a_trace():
    """The noise of a rate in the ranking, phi'² / noise², is the information of a bin of fluorescence."""
    _, posterior = fitted()
    observed, noise = _seen_noise(posterior)
    assert observed == "rate"
    with jax.enable_x64(True):
        emission = posterior.model.emission(posterior.model.coordinates(posterior.mode, DT), DT)
        current = jnp.linspace(-1.0, 1.0, 14)
        weights = emission.weights(jnp.ones(14, dtype=bool), current)
    np.testing.assert_allclose((1.0 - np.tanh(current) ** 2) ** 2 / noise**2, weights, rtol=1e-9)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_decay_times_are_recovered_and_rates_with_independent_noise_are_too_sure():
    """Five networks: 70 decay times, and 980 entries of W that depend on each other."""
    of_decay_time, of_W, of_W_by_rates = [], [], []
    for seed in range(5):
        model, simulation = noisy_simulation(seed, None)
        for observation, inside in ((CALCIUM, of_W), (lrp.GaussianObservation(), of_W_by_rates)):
            fitted_model = dataclasses.replace(model, observation=observation)
            posterior = lrp.fit(fitted_model, simulation.recording, lrp.Laplace(mean="mode"), seed=0, progress=False)
            inside.append(connectivity_cover(simulation, posterior))
            if observation is CALCIUM:
                of_decay_time.append(parameter_cover(simulation, posterior, "decay_time"))
    assert 0.8 < np.mean(of_decay_time) < 0.98
    assert 0.8 < np.mean(of_W) < 0.98
    assert np.mean(of_W_by_rates) < 0.6


@pytest.mark.long
@pytest.mark.slow
def test_svi_takes_the_decay_time():
    model, simulation = noisy_simulation(1, None)
    recording = simulation.recording.select(trials=range(4))
    posterior = lrp.fit(model, recording, lrp.SVI(num_steps=200), seed=0, progress=False)
    assert posterior.sample_parameters(5, seed=0)["decay_time"].shape == (5, 14)


def test_a_numpyro_program_has_the_density_with_the_decay_time():
    model, simulation = noisy_simulation(1, None)
    recording = simulation.recording.select(trials=range(4))
    require_density_of_numpyro(model, recording, "log_decay_time")


@pytest.mark.slow
def test_a_bulk_finds_what_the_rates_visit_in_fluorescence():
    """And the parts of the connectivity are not compared: what is predicted is told by the bin before."""
    model, simulation = noisy_simulation(1, None)
    with_bulk = dataclasses.replace(model, background=lrp.RandomBulk(gain=0.1, dimension=2))
    posterior = lrp.fit(with_bulk, simulation.recording, lrp.Laplace(mean="mode"), seed=0, progress=False)
    leading = np.linalg.svd(simulation.rates.reshape(-1, 14), full_matrices=False)[2][0]
    assert np.linalg.norm(posterior.subspace.T @ leading) > 0.9
    assert posterior.explained_parts is None


def test_what_calcium_cannot_do_says_so():
    model, simulation = noisy_simulation(0, None)
    recording = simulation.recording.select(trials=range(6))
    quiet = lrp.fit(model, recording, lrp.Laplace(mean="mode"), seed=0, progress=False)
    candidates = lrp.single_neuron_candidates(recording, power=1.0)
    with pytest.raises(ValueError, match="a fit of rates or currents, got one of calcium"):
        lrp.design_perturbations(quiet, 2, power=1.0, candidates=candidates, trials_per_pattern=1, seed=0)
    with pytest.raises(ValueError, match="a fit of rates or currents, got one of calcium"):
        lrp.check_fit(quiet, recording)
    for options, name in (
        ({"decay_time": 0.0}, "decay_time"),
        ({"decay_time": 1.0, "decay_spread": -1.0}, "decay_spread"),
    ):
        with pytest.raises(ValueError, match=rf"observation\.{name}: expected"):
            lrp.CalciumObservation(**options)
