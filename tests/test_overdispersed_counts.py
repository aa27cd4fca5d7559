"""Counts that vary more than Poisson's: the negative binomial density, its information, fits and what they recover."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from observed_fits import (
    connectivity_cover,
    parameter_cover,
    require_answers,
    require_density_of_numpyro,
    require_structured_information,
)
from plain import plain_model

import lrposterior as lrp
from lrposterior.fit_quality import assess_fit
from lrposterior.likelihood import log_likelihood
from lrposterior.negative_binomial import dispersion_information, log_density

COUNTS = lrp.NegativeBinomialObservation(scale=150.0, dispersion=0.5, dispersion_spread=0.7)
DT = 0.02


@pytest.fixture
def _double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def emission(_double_precision):
    parameters = {
        "log_rate_scale": jnp.log(jnp.array([40.0, 200.0])),
        "log_baseline": jnp.log(jnp.array([0.1, 2.0])),
        "log_dispersion": jnp.log(jnp.array([0.3, 1.5])),
    }
    return COUNTS.emission(parameters, "tanh", DT)


def reference(mean, dispersion):
    return scipy.stats.nbinom(1.0 / dispersion, 1.0 / (1.0 + dispersion * mean))


@pytest.mark.usefixtures("_double_precision")
@pytest.mark.parametrize("dispersion", [1e-4, 0.03, 0.5, 3.0, 40.0])
def test_the_density_is_that_of_a_negative_binomial_distribution(dispersion):
    count, mean = np.meshgrid([0.0, 1.0, 2.0, 7.0, 50.0, 1000.0], [1e-3, 0.5, 4.0, 90.0])
    found = log_density(jnp.asarray(count), jnp.asarray(mean), jnp.asarray(dispersion))
    np.testing.assert_allclose(found, reference(mean, dispersion).logpmf(count), rtol=1e-8, atol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("_double_precision")
@pytest.mark.parametrize("dispersion", [1e-12, 1e-100])
def test_without_dispersion_counts_are_poisson(dispersion):
    """To first order they differ by alpha ((y - mu)² - y) / 2, which is also the slope by log alpha."""
    count, mean = map(jnp.asarray, np.meshgrid([0.0, 1.0, 2.0, 7.0, 50.0], [1e-3, 0.5, 4.0, 60.0]))
    found = log_density(count, mean, jnp.asarray(dispersion))
    np.testing.assert_allclose(found, scipy.stats.poisson(mean).logpmf(count), rtol=1e-12, atol=1e-8)
    slope = jax.grad(lambda log: jnp.sum(log_density(count, mean, jnp.exp(log))))(jnp.log(dispersion))
    assert np.isclose(slope, 0.5 * dispersion * np.sum((count - mean) ** 2 - count), rtol=1e-3, atol=1e-10)
    assert np.all(np.abs(dispersion_information(mean, jnp.asarray(dispersion))) < 1e-8)


def expectation(emission, current, values):
    """Expected value (neuron, ...) over the counts, of values (count, neuron, ...) at the counts 0, 1, 2, ..."""
    mean, dispersion = np.asarray(emission.mean(current)), np.exp(np.asarray(emission.log_dispersion))
    density = reference(mean, dispersion).pmf(np.arange(len(values))[:, None])
    return np.einsum("cn,cn...->n...", density, values)


@pytest.mark.slow
def test_score_and_information_are_those_of_the_density(emission):
    """The 2 x 2 information about mean and dispersion of each neuron by the sum over all counts, with its zeros."""
    current, mask = jnp.array([-1.0, 1.2]), jnp.ones(2, dtype=bool)
    counts = jnp.arange(1500.0)[:, None] * jnp.ones(2)
    mean = np.asarray(emission.mean(current))
    assert np.isclose(expectation(emission, current, np.ones((1500, 2))), 1.0).all()

    def density(current, log_dispersion, count):
        moved = dataclasses.replace(emission, log_dispersion=log_dispersion)
        return jnp.sum(moved.log_likelihood(count, mask, current))

    scores = jax.vmap(jax.grad(density, argnums=(0, 1)), (None, None, 0))(current, emission.log_dispersion, counts)
    score = np.asarray(jax.vmap(lambda y: emission.score(y, mask, current))(counts))
    np.testing.assert_allclose(score, scores[0], rtol=1e-8, atol=1e-10)
    both = np.stack(scores, axis=-1)
    information = expectation(emission, current, both[..., :, None] * both[..., None, :])
    np.testing.assert_allclose(information[:, 0, 0], emission.weights(mask, current), rtol=1e-8)
    np.testing.assert_allclose(information[:, 0, 1], 0.0, atol=1e-9)
    own = np.asarray(emission.own_information(mask, current))
    np.testing.assert_allclose(information[:, 1, 1], own[:, 2], rtol=1e-6)
    np.testing.assert_array_equal(own[:, :2], 0.0)
    variance = expectation(emission, current, (np.asarray(counts) - mean) ** 2)
    np.testing.assert_allclose(emission.variance(current), variance, rtol=1e-9)
    np.testing.assert_allclose(emission.weights(mask, current), emission.sensitivity(current) ** 2 / variance)
    step = 1e-6
    slopes = np.asarray(emission.slopes(current))
    for index, name in enumerate(("log_rate_scale", "log_baseline")):
        moved = [getattr(emission.poisson, name) + sign * step for sign in (1, -1)]
        ends = [dataclasses.replace(emission.poisson, **{name: value}).mean(current) for value in moved]
        np.testing.assert_allclose(slopes[:, index], (ends[0] - ends[1]) / (2.0 * step), rtol=1e-6)
    np.testing.assert_array_equal(slopes[:, 2], 0.0)


@pytest.mark.usefixtures("_double_precision")
@pytest.mark.parametrize(
    ("dispersion", "tolerance"), [(0.01, 1e-6), (0.3, 1e-7), (1.0, 1e-7), (3.0, 2e-5), (10.0, 2e-3)]
)
def test_the_information_about_the_dispersion_is_that_of_its_sum_over_all_counts(dispersion, tolerance):
    """E sum_{j < y} (1 + alpha j)^-2 - mu / (1 + alpha mu), from the second derivative; and the series."""
    for mean in (0.1, 1.0, 10.0, 100.0):
        distribution = reference(mean, dispersion)
        below = np.arange(int(distribution.isf(1e-15)) + 50)
        expected = np.sum(distribution.sf(below) / (1.0 + dispersion * below) ** 2) - mean / (1.0 + dispersion * mean)
        found = float(dispersion_information(jnp.asarray(mean), jnp.asarray(dispersion)))
        assert np.isclose(found, expected, rtol=tolerance)
        r, share, k = 1.0 / dispersion, dispersion * mean / (1.0 + dispersion * mean), np.arange(2, 40_000)
        log_rising = scipy.special.gammaln(r + k) - scipy.special.gammaln(r)
        terms = np.exp(scipy.special.gammaln(k + 1.0) + k * np.log(share) - log_rising) * (r / k) ** 2
        assert np.isclose(found, np.sum(terms), rtol=tolerance)


@pytest.mark.usefixtures("_double_precision")
def test_masked_counts_say_nothing(emission):
    current, mask = jnp.array([0.3, 0.2]), jnp.array([True, False])
    for values in (
        emission.log_likelihood(jnp.array([2.0, 3.0]), mask, current),
        emission.score(jnp.array([2.0, 3.0]), mask, current),
        emission.weights(mask, current),
        emission.own_information(mask, current)[:, 2],
    ):
        assert values[0] != 0.0
        assert values[1] == 0.0


def test_samples_have_the_mean_and_the_variance(emission):
    current = jnp.broadcast_to(jnp.array([0.5, 1.0]), (200_000, 2))
    sample = emission.sample(np.random.default_rng(0), current)
    np.testing.assert_array_equal(sample, np.round(sample))
    np.testing.assert_allclose(sample.mean(axis=0), emission.mean(current)[0], rtol=0.02)
    np.testing.assert_allclose(sample.var(axis=0), emission.variance(current)[0], rtol=0.05)


@pytest.mark.slow
def test_the_structured_information_is_that_of_automatic_differentiation():
    problem, z, structured = require_structured_information(
        COUNTS, initial_state="free", time_constant=lrp.TimeConstantPrior(0.1)
    )
    model, space, data = problem.model, problem.space, problem.data
    with jax.enable_x64(True):
        parameters = space.unwhiten(jnp.asarray(z))
        emission = model.emission(parameters, data.dt)
        own = emission.own_information(data.mask, model.currents(parameters, data))
    places = space.places("log_dispersion")
    of_dispersion = np.diag(np.sum(np.asarray(own), axis=(0, 1))[:, 2] * COUNTS.dispersion_spread**2)
    np.testing.assert_allclose(structured[np.ix_(places, places)], of_dispersion, rtol=1e-10)
    assert np.all(structured[places][:, np.setdiff1d(np.arange(space.size), places)] == 0.0)


def noisy_simulation(seed, process_noise="diagonal"):
    model = plain_model(rank=1, process_noise=process_noise, observation=COUNTS)
    noise = {} if process_noise is None else {"process_noise": 0.006 * np.eye(1)}
    simulation = lrp.simulate_recording(model, num_neurons=14, num_trials=12, num_bins=50, seed=seed, **noise)
    return model, simulation


@pytest.mark.slow
@pytest.mark.usefixtures("_double_precision")
@pytest.mark.parametrize("process_noise", [None, "diagonal"])
def test_the_likelihood_has_the_right_gradient_and_a_poisson_limit(process_noise):
    model, simulation = noisy_simulation(3, process_noise)
    recording = simulation.recording.select(trials=[0, 1])
    settled = model.for_recording(recording)
    space, data = settled.space_for(recording), settled.data(recording)
    z = space.whiten({k: jnp.asarray(v) for k, v in settled.coordinates(simulation.parameters, DT).items()})
    slope = np.asarray(jax.grad(lambda z: log_likelihood(settled, space.unwhiten(z), data))(z))
    for direction in np.random.default_rng(1).standard_normal((3, space.size)):
        ends = [float(log_likelihood(settled, space.unwhiten(z + s * direction), data)) for s in (1e-5, -1e-5)]
        assert np.isclose(slope @ direction, (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-6)
    poisson = dataclasses.replace(settled, observation=lrp.PoissonObservation(scale=COUNTS.scale))
    parameters = space.unwhiten(z)
    without = log_likelihood(settled, parameters | {"log_dispersion": jnp.full(14, -30.0)}, data)
    assert np.isclose(without, log_likelihood(poisson, parameters, data), rtol=1e-8)


@functools.cache
def fitted(seed=0):
    model, simulation = noisy_simulation(seed)
    return simulation, lrp.fit(model, simulation.recording, lrp.Laplace(mean="mode"), seed=0, progress=False)


@pytest.mark.slow
def test_everything_a_user_asks_works_for_counts(tmp_path):
    simulation, posterior = fitted()
    require_answers(simulation, posterior, "dispersion", tmp_path)
    again = posterior.model.simulate(posterior.mode, posterior.recording, seed=1)
    np.testing.assert_array_equal(again.activity, np.round(again.activity))


@pytest.mark.slow
def test_the_noise_of_a_fit_is_that_of_its_counts():
    """Squared residuals are as large as the noise says; those of a Poisson fit to these counts are not."""
    _, posterior = fitted()
    quality = assess_fit(posterior)
    assert 0.85 < np.mean(quality.standardized_residuals**2) < 1.2
    poisson = lrp.fit(
        dataclasses.replace(posterior.model, observation=lrp.PoissonObservation(scale=COUNTS.scale)),
        posterior.recording,
        lrp.Laplace(mean="mode"),
        seed=0,
        progress=False,
    )
    assert np.mean(assess_fit(poisson).standardized_residuals ** 2) > 1.4
    assert poisson.statistics.log_evidence < posterior.statistics.log_evidence - 100.0


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_dispersions_are_recovered_and_a_poisson_fit_is_too_sure_of_the_connectivity():
    """Five networks: 70 dispersions, and 980 entries of W that depend on each other and bend, as for Poisson counts."""
    of_dispersion, of_W, of_W_by_poisson = [], [], []
    for seed in range(5):
        model = plain_model(rank=1, observation=COUNTS)
        simulation = lrp.simulate_recording(model, num_neurons=14, num_trials=20, num_bins=50, seed=seed)
        for observation, inside in ((COUNTS, of_W), (lrp.PoissonObservation(scale=COUNTS.scale), of_W_by_poisson)):
            fitted_model = dataclasses.replace(model, observation=observation)
            posterior = lrp.fit(fitted_model, simulation.recording, lrp.Laplace(mean="mode"), seed=0, progress=False)
            inside.append(connectivity_cover(simulation, posterior))
            if observation is COUNTS:
                of_dispersion.append(parameter_cover(simulation, posterior, "dispersion"))
    assert 0.75 < np.mean(of_dispersion) < 0.98
    assert 0.75 < np.mean(of_W) < 0.98
    assert np.mean(of_W_by_poisson) < np.mean(of_W) - 0.08


def test_the_default_scale_is_the_mean_rate():
    recording = fitted()[0].recording
    settled = lrp.LowRankModel(rank=1, observation=lrp.NegativeBinomialObservation()).for_recording(recording)
    assert settled.observation.scale == pytest.approx(recording.activity.mean() / DT)
    assert settled.priors.unit == 1.0
    assert isinstance(settled.observation, lrp.NegativeBinomialObservation)


@pytest.mark.long
@pytest.mark.slow
def test_svi_takes_the_dispersion():
    model, simulation = noisy_simulation(1, None)
    recording = simulation.recording.select(trials=range(4))
    posterior = lrp.fit(model, recording, lrp.SVI(num_steps=200), seed=0, progress=False)
    assert posterior.sample_parameters(5, seed=0)["dispersion"].shape == (5, 14)


@pytest.mark.slow
def test_a_numpyro_program_has_the_density_with_the_dispersion():
    model, simulation = noisy_simulation(1, None)
    recording = simulation.recording.select(trials=range(4))
    require_density_of_numpyro(model, recording, "log_dispersion")


@pytest.mark.slow
def test_what_is_no_count_and_what_counts_cannot_do_is_refused():
    model, simulation = noisy_simulation(0, None)
    recording = simulation.recording.select(trials=range(6))
    with pytest.raises(ValueError, match=r"activity: expected numbers of spikes, 0, 1, 2, \.\.\., got 0\.5"):
        lrp.fit(model, dataclasses.replace(recording, activity=0.5 + recording.activity * 0.0), seed=0, progress=False)
    quiet = lrp.fit(model, recording, lrp.Laplace(mean="mode"), seed=0, progress=False)
    candidates = lrp.single_neuron_candidates(recording, power=1.0)
    with pytest.raises(ValueError, match="a fit of rates or currents, got one of counts"):
        lrp.design_perturbations(quiet, 2, power=1.0, candidates=candidates, trials_per_pattern=1, seed=0)
    with pytest.raises(ValueError, match="a fit of rates or currents, got one of counts"):
        lrp.check_fit(quiet, recording)
    with pytest.raises(ValueError, match=r"observation\.dispersion: expected"):
        lrp.NegativeBinomialObservation(dispersion=0.0)
    without = dataclasses.replace(model, observation=lrp.NegativeBinomialObservation())
    with pytest.raises(ValueError, match=r"for example NegativeBinomialObservation\(scale=20\.0\)"):
        lrp.simulate_recording(without, num_neurons=5, seed=0)
    silent = dataclasses.replace(recording, activity=np.zeros(recording.activity.shape))
    with pytest.raises(ValueError, match="spikes: a mean rate above 0"):
        without.for_recording(silent)
