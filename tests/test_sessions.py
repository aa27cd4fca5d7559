"""Gaps in a recording say nothing, and sessions that saw different neurons say what they saw."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain import plain_model

import lrposterior as lrp
from lrposterior.curvature import information
from lrposterior.inference.initialise import _session_to_start_from, initialise
from lrposterior.inference.mode import find_mode
from lrposterior.inference.problem import Problem
from lrposterior.likelihood import log_likelihood_by_trial

MODEL = plain_model(rank=1, process_noise="diagonal")
COUNTS = lrp.PoissonObservation(scale=20.0)
MODELS = {
    "rollout": plain_model(rank=2),
    "counts": plain_model(rank=2, observation=COUNTS),
    "process noise": plain_model(rank=2, process_noise="full"),
    "counts with process noise": plain_model(rank=2, process_noise="full", observation=COUNTS),
    "free start with a bulk": plain_model(rank=2, initial_state="free", background=lrp.RandomBulk(gain=0.4)),
}


def setting(name, num_bins=12, **options):
    """A settled model with parameters of the prior, and what it simulates."""
    simulation = lrp.simulate_recording(MODELS[name], num_neurons=5, num_trials=3, num_bins=num_bins, seed=0, **options)
    model = MODELS[name].for_recording(simulation.recording)
    z = np.random.default_rng(1).standard_normal(model.space_for(simulation.recording).size)
    return model, model.space_for(simulation.recording).unwhiten(z), simulation.recording


@pytest.mark.parametrize("name", MODELS)
def test_what_is_masked_may_have_any_value(name):
    with jax.enable_x64(True):
        model, parameters, recording = setting(name)
        mask = np.random.default_rng(2).random(recording.activity.shape) < 0.6
        mask[0, 4:] = mask[1, :, 2] = mask[2, 5] = False
        data = dataclasses.replace(model.data(recording), mask=jnp.asarray(mask))
        found = log_likelihood_by_trial(model, parameters, data)
        other = jnp.where(mask, data.activity, 7.0)
        again = log_likelihood_by_trial(model, parameters, dataclasses.replace(data, activity=other))
        np.testing.assert_array_equal(again, found)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_masked_bins_at_the_end_of_a_trial_are_not_there(name):
    """Whatever their inputs; the likelihood of each trial is that of the shorter one, but for the order of sums."""
    with jax.enable_x64(True):
        model, parameters, recording = setting(name)
        lengths = [12, 7, 3]
        parts = [recording.select(trials=trial, time=slice(0, length)) for trial, length in enumerate(lengths)]
        combined = lrp.combine_recordings(*parts)
        inputs = np.where(combined.mask.any(axis=2)[:, :, None], combined.inputs, 5.0)
        for padded in (combined, dataclasses.replace(combined, inputs=inputs)):
            found = log_likelihood_by_trial(model, parameters, model.data(padded))
            for trial, part in enumerate(parts):
                own = dict(parameters)
                if "initial_kappa" in own:
                    own["initial_kappa"] = own["initial_kappa"][trial : trial + 1]
                expected = log_likelihood_by_trial(model, own, model.data(part))[0]
                np.testing.assert_allclose(found[trial], expected, rtol=1e-13)


def with_and_without_the_end(model):
    """A recording whose trials end in bins that are masked, and the same without these."""
    whole = lrp.simulate_recording(model, num_neurons=8, num_trials=6, num_bins=40, noise_scale=0.2, seed=0).recording
    mask = np.ones(whole.activity.shape, dtype=bool)
    mask[:, 30:] = False
    return dataclasses.replace(whole, mask=mask), whole.select(time=slice(0, 30))


def test_what_a_model_takes_from_a_recording_is_that_of_the_bins_that_were_observed():
    model = lrp.LowRankModel(rank=2, process_noise="full", background=lrp.RandomBulk(gain=0.3, dimension=2))
    padded, short = (model.for_recording(each) for each in with_and_without_the_end(model))
    np.testing.assert_allclose(padded.background.visited, short.background.visited, atol=1e-12)
    patterns = (each.noise_of_process.settled_patterns for each in (padded, short))
    np.testing.assert_allclose(*patterns, atol=1e-12)


@pytest.mark.long
@pytest.mark.parametrize("process_noise", [None, pytest.param("diagonal", marks=pytest.mark.slow)])
def test_a_fit_does_not_see_bins_in_which_nothing_was_observed(process_noise):
    model = plain_model(rank=1, process_noise=process_noise)
    posterior, expected = (
        lrp.fit(model, each, lrp.Laplace(mean="mode"), seed=0, progress=False)
        for each in with_and_without_the_end(model)
    )
    sd = expected.connectivity_sd()
    np.testing.assert_allclose((posterior.connectivity_mean() - expected.connectivity_mean()) / sd, 0.0, atol=0.01)
    np.testing.assert_allclose(posterior.connectivity_sd() / sd, 1.0, atol=0.01)


def unseen_neuron(model):
    """Eight neurons of which one was never observed, and its number."""
    recording = lrp.simulate_recording(
        model, num_neurons=8, num_trials=8, num_bins=40, noise_scale=0.2, seed=1
    ).recording
    mask = np.ones(recording.activity.shape, dtype=bool)
    mask[:, :, 3] = False
    return dataclasses.replace(recording, mask=mask), 3


def places_of(space, neuron):
    """Where the loadings and the noise of a neuron lie in z."""
    names = ("M", "K", "B", "b", "log_noise_scale")
    return np.concatenate([space.coordinates(np.arange(space.size), name)[neuron].ravel() for name in names])


@pytest.mark.slow
@pytest.mark.parametrize("process_noise", [None, "full"])
def test_nothing_is_known_of_a_neuron_that_was_never_observed_and_does_nothing(process_noise):
    """Loadings of 0 are stationary and have no information, whatever the other neurons do."""
    recording, neuron = unseen_neuron(plain_model(rank=2))
    problem = Problem.of(plain_model(rank=2, process_noise=process_noise), recording)
    z = np.random.default_rng(0).standard_normal(problem.space.size)
    places = places_of(problem.space, neuron)
    z[places] = 0.0
    with jax.enable_x64(True):
        gradient, curvature = problem.gradient(z), np.asarray(_information(problem, z))
    np.testing.assert_allclose(gradient[places], 0.0, atol=1e-10 * np.abs(gradient).max())
    dynamics = places[places < problem.space.num_dynamics]
    np.testing.assert_allclose(curvature[dynamics], 0.0, atol=1e-12 * np.abs(curvature).max())


def _information(problem, z):
    return jax.jit(lambda z: information(problem.model.structure, problem.space, z, problem.data))(jnp.asarray(z))


def test_what_was_never_observed_has_its_prior():
    """The Laplace posterior of the loadings of a masked neuron is Normal(0, 1) in whitened coordinates, to 1e-6.

    Loadings are independent in the prior here; the noise of the neuron has mean and spread of its prior as well.
    """
    model = plain_model(rank=2)
    recording, neuron = unseen_neuron(model)
    posterior = lrp.fit(model, recording, lrp.Laplace(mean="mode"), seed=0, progress=False)
    space, distribution, places = posterior.space, posterior.distribution, places_of(posterior.space, neuron)
    np.testing.assert_allclose(distribution.location[places], 0.0, atol=1e-6)
    covariance = distribution.scale @ distribution.scale[places].T
    np.testing.assert_allclose(covariance, np.eye(space.size)[:, places], atol=1e-6)


def sessions(simulation):
    """The first half of the trials with one half of the neurons, the second with the other, as one recording."""
    recording = dataclasses.replace(
        simulation.recording, neuron_labels=[f"n{index}" for index in range(simulation.recording.num_neurons)]
    )
    trials, neurons = recording.num_trials // 2, recording.num_neurons // 2
    first = recording.select(trials=slice(0, trials), neurons=slice(0, neurons))
    second = recording.select(trials=slice(trials, None), neurons=slice(neurons, None))
    return lrp.combine_recordings(first, second)


@functools.cache
def fitted_sessions(seed):
    """Two sessions of 8 neurons each, none in common, of one network of 16 with process noise."""
    simulation = lrp.simulate_recording(
        MODEL, num_neurons=16, num_trials=24, num_bins=50, noise_scale=0.2, process_noise=[[0.01]], seed=seed
    )
    return simulation, lrp.fit(MODEL, sessions(simulation), lrp.Laplace(mean="mode"), seed=0, progress=False)


@pytest.mark.slow
def test_neurons_of_another_session_are_predicted():
    """Rates of masked neurons, against their variance and against the true network without its noise.

    What the noise does in a session is known through the neurons that it saw alone. On 16 networks the squared error
    was 0.007 to 0.025 of the variance, and 0.46 +- 0.12 of that of the true network without noise: no right fit fails.
    """
    simulation, posterior = fitted_sessions(0)
    hidden, rates = ~posterior.recording.mask, lrp.infer_latents(posterior).rates
    quiet = dataclasses.replace(MODEL, process_noise=None).for_recording(posterior.recording)
    known = {name: value for name, value in simulation.parameters.items() if name != "process_noise"}
    alone = quiet.simulated_currents(known, posterior.recording, seed=0)
    error, of_alone = (np.mean((one - simulation.rates)[hidden] ** 2) for one in (rates, np.tanh(alone)))
    assert error < 0.1 * np.var(simulation.rates)
    assert error < 0.9 * of_alone


@pytest.mark.long
@pytest.mark.slow
def test_connectivity_between_sessions_is_within_its_intervals():
    """384 entries of three networks between neurons that were never recorded together, by 90% intervals.

    On 16 networks they held 0.90 +- 0.07: the mean of three right fits leaves these bounds in 1.5% of all cases.
    """
    inside = []
    for seed in range(3):
        simulation, posterior = fitted_sessions(seed)
        z = (simulation.connectivity - posterior.connectivity_mean()) / posterior.connectivity_sd()
        first = posterior.recording.mask[0, 0]
        inside.append(np.mean(np.abs(z)[first[:, None] != first] < 1.645))
    assert 0.78 < np.mean(inside) < 0.99


def test_sessions_start_from_one_of_them_where_others_have_other_neurons():
    """The fit ends in the mode to which a descent from the truth leads, or in a lower one."""
    simulation, posterior = fitted_sessions(0)
    problem = Problem.of(MODEL, posterior.recording)
    with jax.enable_x64(True):
        truth = problem.model.coordinates(simulation.parameters, posterior.recording.dt)
        near = find_mode(problem, np.asarray(problem.space.whiten(truth)))
    assert posterior.statistics.mode_objectives[0] < near.objective + 0.01


@pytest.mark.slow
def test_new_trials_may_lack_neurons_but_not_add_them():
    model = plain_model(rank=1)
    simulation = lrp.simulate_recording(model, num_neurons=8, num_trials=8, num_bins=40, noise_scale=0.2, seed=0)
    recording = dataclasses.replace(simulation.recording, neuron_labels=list("abcdefgh"))
    old, new = recording.select(trials=slice(0, 6)), recording.select(trials=slice(6, 8), neurons=list("heb"))
    posterior = lrp.fit(model, old, lrp.Laplace(mean="mode"), seed=0, progress=False)
    updated = lrp.update_posterior(posterior, new, method=lrp.Laplace(mean="mode"), progress=False)
    together = lrp.fit(
        updated.settled_model, lrp.combine_recordings(old, new), lrp.Laplace(mean="mode"), seed=0, progress=False
    )
    sd = together.connectivity_sd()
    np.testing.assert_allclose((updated.connectivity_mean() - together.connectivity_mean()) / sd, 0.0, atol=1e-3)
    other = dataclasses.replace(new, neuron_labels=list("hex"))
    with pytest.raises(ValueError, match=r"trials: expected neurons among the 8 that were fitted, got 1 others; fit"):
        lrp.update_posterior(posterior, other, progress=False)


@pytest.mark.long
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if "noise" in name else name for name in MODELS]
)
def test_every_model_has_a_start_from_one_session(name):
    """It lies below each of ten networks of the prior with the best noise."""
    simulation = lrp.simulate_recording(MODELS[name], num_neurons=8, num_trials=8, num_bins=40, seed=0)
    with jax.enable_x64(True):
        problem = Problem.of(MODELS[name], sessions(simulation))
        reached = problem.negative_log_density(initialise(problem))
        others = np.random.default_rng(0).standard_normal((10, problem.space.size))
        assert reached < min(problem.negative_log_density(problem.best_noise(z)) for z in others)


def test_a_start_takes_one_session_only_where_neurons_never_met():
    together, first, second = [True] * 4, [True, True, True, False], [False, True, True, True]
    for seen in ([together] * 3, [first, together, second], [[True, False]] * 2):
        assert _session_to_start_from(np.array(seen)).all()
    # Neurons 0 and 3 never met: two trials of three neurons have more of them than three of one.
    alone = [False, False, False, True]
    found = _session_to_start_from(np.array([second[:1] + [False, False, True], first, first, alone, alone]))
    np.testing.assert_array_equal(found, [False, True, True, False, False])
