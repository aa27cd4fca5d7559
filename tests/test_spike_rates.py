"""Rates in spikes/s with Gaussian noise, of neurons with scales and baselines of their own."""

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
    require_structured_information,
)
from plain import plain_model

import lrposterior as lrp
from lrposterior.likelihood import log_likelihood

RATES = lrp.SpikeRateObservation(scale=15.0)


def simulated(seed=0, num_trials=12, process_noise="diagonal"):
    model = plain_model(rank=1, process_noise=process_noise, observation=RATES)
    noise = {} if process_noise is None else {"process_noise": 0.006 * np.eye(1)}
    simulation = lrp.simulate_recording(
        model, num_neurons=14, num_trials=num_trials, num_bins=50, noise_scale=2.0, seed=seed, **noise
    )
    return model, simulation


@functools.cache
def fitted():
    model, simulation = simulated()
    return simulation, lrp.fit(model, simulation.recording, lrp.Laplace(mean="mode"), seed=0, progress=False)


def test_the_density_is_normal_about_the_scaled_rate():
    model, simulation = simulated(process_noise=None)
    parameters, recording = simulation.parameters, simulation.recording
    settled = model.for_recording(recording)
    with jax.enable_x64(True):
        named = {name: jnp.asarray(value) for name, value in settled.coordinates(parameters, recording.dt).items()}
        data = settled.data(recording)
        found = float(log_likelihood(settled, named, data))
        currents = np.asarray(settled.currents(named, data))
    rate = parameters["rate_scale"] * np.log1p(np.exp(currents)) + parameters["baseline"]
    expected = scipy.stats.norm(rate, parameters["noise_scale"]).logpdf(recording.activity).sum()
    assert np.isclose(found, expected, rtol=1e-10)


@pytest.mark.slow
def test_the_structured_information_is_that_of_automatic_differentiation():
    require_structured_information(RATES, initial_state="free", time_constant=lrp.TimeConstantPrior(0.1))


@pytest.mark.slow
def test_everything_a_user_asks_works_for_spike_rates(tmp_path):
    require_answers(*fitted(), "rate_scale", tmp_path)


def test_a_numpyro_program_has_the_same_density():
    model, simulation = simulated(process_noise=None)
    require_density_of_numpyro(model, simulation.recording, "log_rate_scale")


@pytest.mark.long
@pytest.mark.slow
def test_scales_noise_and_connectivity_are_recovered():
    """Five networks: 70 scales and noise scales, and 980 entries of W that depend on each other."""
    of_scale, of_noise, of_W = [], [], []
    for seed in range(5):
        model, simulation = simulated(seed, num_trials=20, process_noise=None)
        posterior = lrp.fit(model, simulation.recording, lrp.Laplace(mean="mode"), seed=0, progress=False)
        of_scale.append(parameter_cover(simulation, posterior, "rate_scale"))
        of_noise.append(parameter_cover(simulation, posterior, "noise_scale"))
        of_W.append(connectivity_cover(simulation, posterior))
    assert 0.75 < np.mean(of_scale) < 0.98
    assert 0.75 < np.mean(of_noise) < 0.98
    assert 0.75 < np.mean(of_W) < 0.98


@pytest.mark.parametrize("factor", [0.1, 1.0, 50.0])
def test_a_network_of_the_prior_has_the_mean_rate_of_the_recording(factor):
    """Within a factor of two, in the median over 20 networks, whatever that rate is."""
    recording = fitted()[0].recording
    scaled = dataclasses.replace(recording, activity=factor * recording.activity)
    model = plain_model(rank=1, observation=lrp.SpikeRateObservation()).for_recording(scaled)
    with jax.enable_x64(True):
        space, data = model.space_for(scaled), model.data(scaled)
        means = []
        for seed in range(20):
            parameters = space.unwhiten(jnp.asarray(np.random.default_rng(seed).standard_normal(space.size)))
            currents = model.currents(parameters, data)
            means.append(float(jnp.mean(model.emission(parameters, data.dt).mean(currents))))
    assert 0.5 < np.median(means) / scaled.activity.mean() < 2.0


def test_a_recording_without_spikes_is_refused():
    recording = fitted()[0].recording
    silent = dataclasses.replace(recording, activity=-np.abs(recording.activity))
    with pytest.raises(ValueError, match="activity: expected spikes: a mean rate above 0, got a mean of -"):
        plain_model(rank=1, observation=lrp.SpikeRateObservation()).for_recording(silent)
