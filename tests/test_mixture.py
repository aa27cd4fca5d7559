"""Several modes become one posterior, with the weights that brute force finds."""

import dataclasses
import functools

import numpy as np
import pytest
from handmade import with_factors
from plain import plain_model
from single_neuron import integrate, record_ambiguous

import lrposterior as lrp
from lrposterior.distribution import MixtureDistribution, NormalDistribution, SampleDistribution
from lrposterior.spectrum import horizontal_spectrum

GRID, LOG_SCALES = np.linspace(-4.0007, 4.0, 1600), np.linspace(-4.0, 0.0, 50)


@functools.cache
def ambiguous(noise_scale=0.1, seed=3):
    return record_ambiguous(0.8, 0.05, num_trials=20, noise_scale=noise_scale, seed=seed)


@functools.cache
def fitted(method="laplace", noise_scale=0.1, seed=3):
    return lrp.fit(*ambiguous(noise_scale, seed), method, seed=0, num_restarts=6, progress=False)


@functools.cache
def small_posterior():
    """One mode, rank two."""
    simulation = lrp.simulate_recording(
        plain_model(2), num_neurons=6, num_trials=8, num_bins=40, noise_scale=0.05, seed=4
    )
    return lrp.fit(plain_model(2), simulation.recording, seed=0, progress=False)


def mixed(posterior, *distributions, weights):
    return dataclasses.replace(posterior, distribution=MixtureDistribution(np.asarray(weights), distributions))


def moved(posterior, shift):
    """The Normal posterior at another place of the parameters, and in another gauge."""
    space, normal = posterior.space, posterior.distribution
    A = np.array([[1.3, 0.4], [-0.2, 0.8]])
    left, right = space.factors(normal.location + shift)
    columns_left, columns_right = space.factors(normal.scale.T)
    inverse = np.linalg.inv(A).T
    location = with_factors(space, normal.location + shift, left @ A, right @ inverse)
    scale = with_factors(space, normal.scale.T, columns_left @ A, columns_right @ inverse).T
    return NormalDistribution(location, scale)


# The fit


@pytest.mark.slow
@pytest.mark.parametrize(("noise_scale", "seed"), [(0.1, 1), (0.2, 0), (0.1, 3), (0.2, 3)])
def test_two_modes_have_the_weights_and_the_evidence_of_brute_force(noise_scale, seed):
    model, recording = ambiguous(noise_scale, seed)
    density, log_evidence = integrate(model, recording, GRID, LOG_SCALES)
    width = GRID[1] - GRID[0]
    mean = np.sum(GRID * density) * width
    sd = np.sqrt(np.sum((GRID - mean) ** 2 * density) * width)
    posterior = fitted("laplace", noise_scale, seed)
    mixture, statistics = posterior.distribution, posterior.statistics
    assert isinstance(mixture, MixtureDistribution)
    signs = np.array([np.prod(one.location[:2]) > 0.0 for one in mixture.components])
    positive = np.sum(density[GRID > 0.0]) * width
    np.testing.assert_allclose(mixture.weights @ signs, positive, rtol=0, atol=0.01)
    assert mixture.weights[0] == statistics.diagnostics["weight of the heaviest mode"] > 0.5
    assert statistics.diagnostics["modes in the mixture"] == 2
    assert abs(statistics.log_evidence - log_evidence) < 0.15
    assert statistics.evidence_note.endswith("summed over 2 modes")
    assert abs(posterior.connectivity_mean().item() - mean) < 0.01 * sd
    assert abs(posterior.connectivity_sd().item() / sd - 1.0) < 0.02
    # The mode is that with more of the posterior, which here need not be the higher one.
    assert (posterior.mode_connectivity.to_dense().item() > 0.0) == (positive > 0.5)
    draws = posterior.sample_connectivity(4000, seed=0).to_dense()
    assert abs(np.mean(draws > 0.0) - mixture.weights @ signs) < 4.0 * 0.5 / np.sqrt(4000)


def test_the_heaviest_mode_need_not_be_the_highest():
    statistics = fitted().statistics
    assert np.argmax(statistics.mode_log_evidences) == 1
    assert statistics.objective == statistics.mode_objectives[1] > statistics.mode_objectives[0]


@pytest.mark.long
@pytest.mark.slow
def test_svi_mixes_and_sampling_stays_with_the_heaviest():
    variational = fitted(lrp.SVI(num_steps=300))
    np.testing.assert_array_equal(variational.distribution.weights, fitted().distribution.weights)
    np.testing.assert_allclose(variational.connectivity_sd(), fitted().connectivity_sd(), rtol=0.02)
    corrected = fitted(lrp.Laplace("psis"))
    assert isinstance(corrected.distribution, SampleDistribution)
    sign = np.sign(fitted().mode_connectivity.to_dense().item())
    assert np.mean(corrected.sample_connectivity(1000, seed=0).to_dense() * sign > 0.0) > 0.99


@pytest.mark.slow
def test_one_mode_stays_a_normal_distribution():
    simulation = lrp.simulate_recording(
        plain_model(1), num_neurons=6, num_trials=8, num_bins=40, noise_scale=0.05, seed=4
    )
    posterior = lrp.fit(plain_model(1), simulation.recording, seed=0, num_restarts=2, progress=False)
    assert isinstance(posterior.distribution, NormalDistribution)
    assert "modes in the mixture" not in posterior.statistics.diagnostics


# The distribution


def test_draws_choose_their_component_by_weight():
    components = tuple(
        NormalDistribution(np.full(3, place), np.eye(3, columns)) for place, columns in ((0.0, 2), (9.0, 1))
    )
    mixture = MixtureDistribution(np.array([3.0, 1.0]), components)
    np.testing.assert_array_equal(mixture.weights, [0.75, 0.25])
    np.testing.assert_array_equal(mixture.location, 0.0)
    draws = mixture.sample(4000, seed=0)
    second = draws[:, 2] == 9.0
    assert abs(second.mean() - 0.25) < 4.0 * np.sqrt(0.25 * 0.75 / 4000)
    np.testing.assert_allclose(draws[~second].std(axis=0), [1.0, 1.0, 0.0], atol=0.06)
    np.testing.assert_allclose(draws[second].std(axis=0), [1.0, 0.0, 0.0], atol=0.1)
    np.testing.assert_array_equal(draws, mixture.sample(4000, seed=0))
    # The order of the components is not that of the draws.
    assert np.sum(np.diff(second.astype(int)) != 0) > 1000


@pytest.mark.slow
def test_the_moments_of_a_mixture_are_those_of_its_draws():
    posterior = small_posterior()
    shift = 0.2 * np.random.default_rng(0).standard_normal(posterior.space.size)
    mixture = mixed(posterior, posterior.distribution, moved(posterior, shift), weights=[0.3, 0.7])
    draws = mixture.sample_connectivity(20_000, seed=0).to_dense()
    standard_error = mixture.connectivity_sd() / np.sqrt(len(draws))
    assert np.max(np.abs(draws.mean(axis=0) - mixture.connectivity_mean()) / standard_error) < 4.5
    np.testing.assert_allclose(draws.std(axis=0), mixture.connectivity_sd(), rtol=0.05)


def test_a_mixture_of_equals_is_one_of_them_in_whatever_gauge():
    posterior = small_posterior()
    mixture = mixed(posterior, posterior.distribution, moved(posterior, 0.0), weights=[1.0, 2.0])
    np.testing.assert_allclose(mixture.connectivity_mean(), posterior.connectivity_mean(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(mixture.connectivity_sd(), posterior.connectivity_sd(), rtol=1e-9)
    np.testing.assert_allclose(mixture.spectrum.information, posterior.spectrum.information, rtol=1e-6, atol=1e-9)


def test_the_spectrum_counts_the_distance_of_the_components():
    """The covariance in horizontal coordinates against that of draws of W mapped there."""
    posterior = small_posterior()
    shift = 0.1 * np.random.default_rng(0).standard_normal(posterior.space.size)
    mixture = mixed(posterior, posterior.distribution, moved(posterior, shift), weights=[0.5, 0.5])
    draws = SampleDistribution(mixture.distribution.sample(20_000, seed=0)[None])
    sampled = horizontal_spectrum(posterior.space, posterior.mode_coordinates, draws)
    np.testing.assert_allclose(
        np.log(mixture.spectrum.posterior_variance), np.log(sampled.posterior_variance), rtol=0, atol=0.15
    )
    assert np.max(mixture.spectrum.posterior_variance / posterior.spectrum.posterior_variance) > 1.5


def test_a_mixture_is_stored_and_goes_everywhere(tmp_path):
    posterior = fitted()
    posterior.save(tmp_path / "fit.nc")
    loaded = lrp.load_posterior(tmp_path / "fit.nc")
    np.testing.assert_array_equal(loaded.distribution.weights, posterior.distribution.weights)
    for before, after in zip(posterior.distribution.components, loaded.distribution.components, strict=True):
        np.testing.assert_array_equal(before.location, after.location)
        np.testing.assert_array_equal(before.scale, after.scale)
    for name, values in posterior.sample_parameters(50, seed=1).items():
        np.testing.assert_array_equal(values, loaded.sample_parameters(50, seed=1)[name])
    assert posterior.to_arviz(300, seed=0).posterior["W"].shape == (1, 300, 1, 1)
    assert lrp.analyze_degeneracy(posterior).num_gauge == 1


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 1.0], r"weights: expected one number for each of 1 components, got the shape \(2,\); give as many"),
        ([0.0], r"weights: expected positive numbers, got \[0\.\]; leave components without weight out"),
        ([np.nan], r"weights: expected positive numbers, got \[nan\]"),
    ],
)
def test_bad_weights_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        MixtureDistribution(np.array(weights), (NormalDistribution(np.zeros(2), np.eye(2)),))
