"""Neurons that are seen otherwise in every session: the density, its information, fits and what they recover."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from observed_fits import connectivity_cover, require_answers, require_density_of_numpyro
from plain import plain_model

import lrposterior as lrp
from lrposterior.curvature import information
from lrposterior.curvature.automatic import automatic_information
from lrposterior.curvature.structured import structured_information
from lrposterior.likelihood import log_likelihood, log_likelihood_by_trial

DRIFT = lrp.SessionDrift(offset=0.5, scale=0.3)
OBSERVATIONS = {
    "currents": lrp.GaussianObservation(of="current"),
    "rates": lrp.GaussianObservation(),
    "counts": lrp.PoissonObservation(scale=60.0),
    "overdispersed counts": lrp.NegativeBinomialObservation(scale=60.0),
    "spike rates": lrp.SpikeRateObservation(scale=60.0),
    "calcium": lrp.CalciumObservation(decay_time=0.1),
}
LABELS = ("monday", "tuesday", "monday")


def setting(num_neurons=5, num_bins=12, **options):
    """A settled model with parameters of the prior, as z, and a recording with gaps of two sessions."""
    model = plain_model(rank=2, drift=DRIFT, **options)
    simulation = lrp.simulate_recording(
        model, num_neurons=num_neurons, num_trials=3, num_bins=num_bins, session_labels=LABELS, seed=0
    )
    mask = np.random.default_rng(0).random(simulation.recording.activity.shape) < 0.8
    recording = dataclasses.replace(simulation.recording, mask=mask)
    settled = model.for_recording(recording)
    z = jnp.asarray(np.random.default_rng(1).standard_normal(settled.space_for(recording).size))
    return settled, settled.space_for(recording), z, recording


@pytest.mark.slow
@pytest.mark.parametrize("name", OBSERVATIONS)
def test_score_slopes_and_information_are_those_of_the_density(name):
    with jax.enable_x64(True):
        model, space, z, recording = setting(observation=OBSERVATIONS[name])
        parameters, data = space.unwhiten(z), model.data(recording)
        current = model.currents(parameters, data)
        emission = model.emission_of_trials(parameters, data)

        def density(current):
            return jnp.sum(emission.log_likelihood(data.activity, data.mask, current))

        score = emission.score(data.activity, data.mask, current)
        np.testing.assert_allclose(score, jax.grad(density)(current), rtol=1e-9, atol=1e-9)
        sensitivity = jax.grad(lambda x: jnp.sum(emission.mean(x)))(current)
        np.testing.assert_allclose(emission.sensitivity(current), sensitivity, rtol=1e-10, atol=1e-12)
        expected = jnp.where(data.mask, sensitivity**2 / emission.variance(current), 0.0)
        np.testing.assert_allclose(emission.weights(data.mask, current), expected, rtol=1e-9, atol=1e-12)

        def mean(of_drift):
            return model.emission_of_trials(parameters | of_drift, data).mean(current)

        names = ("session_offset", "log_session_scale")
        slopes = jax.jacobian(mean)({one: parameters[one] for one in names})
        own = np.asarray(emission.slopes(current))[..., -4:]
        for place, one in enumerate(names):
            each = np.einsum("btnns->btns", slopes[one])
            np.testing.assert_allclose(own[..., 2 * place : 2 * place + 2], each, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", OBSERVATIONS)
def test_the_structured_information_is_that_of_automatic_differentiation(name):
    with jax.enable_x64(True):
        model, space, z, recording = setting(observation=OBSERVATIONS[name], initial_state="free")
        data = model.data(recording)
        structured, automatic = (
            np.asarray(each(model, space, z, data)) for each in (structured_information, automatic_information)
        )
    np.testing.assert_allclose(structured, automatic, atol=1e-10 * np.abs(automatic).max())
    assert np.all(np.diag(structured)[space.places("session_offset")] > 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("process_noise", [None, "full"])
def test_drift_of_currents_is_undone_in_the_recording(process_noise):
    """(y - offset) / scale is a recording without drift, of noise / scale and a density scale times as large."""
    with jax.enable_x64(True):
        observation = OBSERVATIONS["currents"]
        model, space, z, recording = setting(observation=observation, process_noise=process_noise)
        parameters, data = space.unwhiten(z), model.data(recording)
        found = log_likelihood_by_trial(model, parameters, data)
        plain = dataclasses.replace(model, drift=None)
        for trial, session in enumerate(data.session):
            offset, log_scale = (parameters[name][:, session] for name in ("session_offset", "log_session_scale"))
            one = data.of_trials(np.array([trial]))
            undone = dataclasses.replace(one, activity=(one.activity - offset) / jnp.exp(log_scale), session=None)
            rest = {name: value for name, value in parameters.items() if "session" not in name}
            rest["log_noise_scale"] = rest["log_noise_scale"] - log_scale
            expected = log_likelihood_by_trial(plain, rest, undone)[0] - jnp.sum(one.mask * log_scale)
            np.testing.assert_allclose(found[trial], expected, rtol=1e-11)


@pytest.mark.slow
def test_with_process_noise_the_information_about_offsets_is_that_of_a_linear_network():
    """There the log density is quadratic in B, b and the offsets, so that its curvature is the information."""
    with jax.enable_x64(True):
        model, space, z, recording = setting(
            observation=OBSERVATIONS["currents"], nonlinearity="linear", process_noise="full"
        )
        data = model.data(recording)
        places = np.concatenate([space.places(name) for name in ("B", "b", "session_offset")])
        found = np.asarray(information(model, space, z, data))[np.ix_(places, places)]

        def density(some):
            return log_likelihood(model, space.unwhiten(z.at[places].set(some)), data)

        np.testing.assert_allclose(found, -jax.hessian(density)(z[places]), atol=1e-8 * np.abs(found).max())


@pytest.mark.parametrize("process_noise", [None, "full"])
def test_a_session_that_was_not_fitted_is_one_without_drift(process_noise):
    with jax.enable_x64(True):
        model, space, z, recording = setting(process_noise=process_noise)
        parameters = space.unwhiten(z)
        plain = dataclasses.replace(model, drift=None)
        rest = {name: value for name, value in parameters.items() if "session" not in name}
        expected = log_likelihood(plain, rest, plain.data(recording))
        for labels in (None, ["friday"] * 3):
            other = dataclasses.replace(recording, session_labels=labels)
            np.testing.assert_allclose(log_likelihood(model, parameters, model.data(other)), expected, rtol=1e-12)


def noisy_simulation(seed):
    model = plain_model(rank=1, process_noise="diagonal", drift=DRIFT)
    simulation = lrp.simulate_recording(
        model,
        num_neurons=14,
        num_trials=12,
        num_bins=50,
        noise_scale=0.2,
        process_noise=0.006 * np.eye(1),
        session_labels=["monday", "tuesday", "friday"] * 4,
        seed=seed,
    )
    return model, simulation


@functools.cache
def fitted(seed=0):
    model, simulation = noisy_simulation(seed)
    return simulation, lrp.fit(model, simulation.recording, lrp.Laplace(mean="mode"), seed=0, progress=False)


@pytest.mark.slow
def test_everything_a_user_asks_works_with_drift(tmp_path):
    simulation, posterior = fitted()
    require_answers(simulation, posterior, "noise_scale", tmp_path)
    tree = posterior.to_arviz(20, seed=0)
    assert tree["posterior"]["session_offset"].dims == ("chain", "draw", "neuron", "session")
    assert list(tree["posterior"]["session"].values) == ["monday", "tuesday", "friday"]
    loaded = lrp.load_posterior(tmp_path / "fit.nc")
    assert loaded.model.drift == posterior.model.drift
    assert loaded.recording.session_labels == simulation.recording.session_labels
    np.testing.assert_array_equal(loaded.mode["session_scale"], posterior.mode["session_scale"])


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_drift_is_recovered_and_a_fit_without_it_is_too_sure_of_the_connectivity():
    """Five networks: 210 offsets and 210 scales, and 980 entries of W that depend on each other."""
    of_offset, of_scale, of_W, of_W_without = [], [], [], []
    for seed in range(5):
        simulation, posterior = fitted(seed)
        draws = posterior.sample_parameters(400, seed=0)
        for name, inside in (("session_offset", of_offset), ("session_scale", of_scale)):
            lower, upper = np.quantile(draws[name], [0.05, 0.95], axis=0)
            truth = simulation.parameters[name]
            inside.append(np.mean((lower < truth) & (truth < upper)))
        of_W.append(connectivity_cover(simulation, posterior))
        without = dataclasses.replace(noisy_simulation(seed)[0], drift=None)
        with pytest.warns(UserWarning, match="drift between sessions"):
            plain = lrp.fit(without, simulation.recording, lrp.Laplace(mean="mode"), seed=0, progress=False)
        assert posterior.statistics.log_evidence > plain.statistics.log_evidence + 100.0
        of_W_without.append(connectivity_cover(simulation, plain))
    assert 0.8 < np.mean(of_offset) < 0.98
    assert 0.8 < np.mean(of_scale) < 0.98
    assert 0.8 < np.mean(of_W) < 0.98
    assert np.mean(of_W_without) < np.mean(of_W) - 0.08


def new_session():
    """Trials of a session that was not fitted, of the fitted network, and how its neurons are seen."""
    _, posterior = fitted()
    random = np.random.default_rng(5)
    offset, scale = 0.5 * random.standard_normal((14, 1)), np.exp(0.3 * random.standard_normal((14, 1)))
    model = dataclasses.replace(posterior.model, drift=dataclasses.replace(DRIFT, sessions=("sunday",)))
    like = dataclasses.replace(posterior.recording, session_labels=["sunday"] * 12)
    seen = posterior.mode | {"session_offset": offset, "session_scale": scale}
    return model.simulate(seen, like, seed=3), offset, scale


@pytest.mark.slow
def test_the_drift_of_a_new_session_is_found_with_the_network_as_it_was_fitted():
    _, posterior = fitted()
    trials, offset, scale = new_session()
    mask = trials.mask.copy()
    mask[:, :, 2] = False
    found = lrp.infer_drift(posterior, dataclasses.replace(trials, mask=mask))
    assert found.sessions == ("sunday",)
    np.testing.assert_allclose([found.offset[2, 0], found.scale[2, 0]], [0.0, 1.0], atol=1e-6)
    seen = np.arange(14) != 2
    assert np.mean((found.offset - offset)[seen] ** 2) < 0.05 * np.mean(offset[seen] ** 2)
    assert np.mean(np.log(found.scale / scale)[seen] ** 2) < 0.3 * np.mean(np.log(scale[seen]) ** 2)
    without, within = (lrp.infer_latents(posterior, trials, drift=each) for each in (None, found))
    assert np.all(within.log_likelihood > without.log_likelihood + 20.0)


def fit_without_process_noise():
    model = plain_model(rank=1, drift=DRIFT)
    recording = noisy_simulation(2)[1].recording
    fit = lrp.fit(model, recording.select(trials=[0, 1, 3, 4]), lrp.Laplace(mean="mode"), seed=0, progress=False)
    return fit, recording.select(trials=[2, 5])


@pytest.mark.slow
@pytest.mark.parametrize("process_noise", [False, True])
def test_the_drift_that_is_found_is_the_most_probable(process_noise):
    """Prior and likelihood fall to either side along random directions, by finite differences."""
    fit, trials = (fitted()[1], new_session()[0]) if process_noise else fit_without_process_noise()
    found = lrp.infer_drift(fit, trials)
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        settled, mode = found.within(fit.model, fit.mode)
        coordinates = {name: jnp.asarray(value) for name, value in settled.coordinates(mode, trials.dt).items()}
        data = settled.data(trials)

        @jax.jit
        def density(change):
            offset, log_scale = found.offset + change[0], np.log(found.scale) + change[1]
            drifting = coordinates | {"session_offset": offset, "log_session_scale": log_scale}
            prior = jnp.sum((offset / DRIFT.offset) ** 2) + jnp.sum((log_scale / DRIFT.scale) ** 2)
            return log_likelihood(settled, drifting, data) - 0.5 * prior

        best = density(np.zeros((2, 14, 1)))
        for _ in range(5):
            step = 0.05 * random.standard_normal((2, 14, 1))
            assert all(density(sign * step) < best + 1e-3 for sign in (-1.0, 1.0))


def test_expected_activity_is_averaged_over_what_is_unknown_of_the_latents():
    posterior = fitted()[1]
    paths, mode = lrp.infer_latents(posterior, given="bins before"), posterior.mode
    deviation = np.random.default_rng(0).standard_normal((20_000, 1))
    for trial, bin_ in ((0, 5), (3, 30), (5, 40)):
        sd = np.sqrt(paths.covariance[trial, bin_, 0, 0]) * mode["M"][:, 0]
        current = paths.currents[trial, bin_] + deviation * sd
        session = trial % 3
        rates = np.tanh(mode["session_scale"][:, session] * current + mode["session_offset"][:, session])
        error = np.abs(paths.activity[trial, bin_] - rates.mean(axis=0))
        np.testing.assert_array_less(error, 5.0 * rates.std(axis=0) / np.sqrt(20_000))


@pytest.mark.slow
def test_a_numpyro_program_has_the_density_with_drift():
    model, simulation = noisy_simulation(1)
    require_density_of_numpyro(model, simulation.recording.select(trials=range(4)), "session_offset")


def test_sessions_are_carried_through_selection_files_and_combination(tmp_path):
    activity = np.random.default_rng(0).standard_normal((3, 4, 2))
    recording = lrp.Recording(activity, 0.1, session_labels=LABELS)
    assert recording.select(trials=[2, 1]).session_labels == ("monday", "tuesday")
    assert "3 of 2 sessions" in recording.summary()
    recording.save(tmp_path / "session.npz")
    assert lrp.load_recording(tmp_path / "session.npz").session_labels == LABELS
    plain = lrp.Recording(activity[:2], 0.1)
    assert lrp.combine_recordings(recording, plain).session_labels == (*LABELS, "unlabelled", "unlabelled")
    both = lrp.combine_recordings(plain, plain, sessions=["first", "second"])
    assert both.session_labels == ("first", "first", "second", "second")
    with pytest.raises(ValueError, match="sessions: expected 2 strings, one per recording"):
        lrp.combine_recordings(plain, plain, sessions=["first"])


def test_what_drift_needs_is_said():
    model, simulation = noisy_simulation(0)
    without = dataclasses.replace(simulation.recording, session_labels=None)
    with pytest.raises(ValueError, match="session_labels: expected the session of every trial"):
        lrp.fit(model, without, seed=0, progress=False)
    with pytest.raises(ValueError, match=r"drift\.offset: "):
        lrp.SessionDrift(offset=0.0)
    with pytest.raises(ValueError, match="drift: expected SessionDrift or None, got bool"):
        lrp.LowRankModel(rank=1, drift=True)
    _, posterior = fitted()
    with pytest.raises(ValueError, match="trials: expected sessions that were not fitted, got session 'friday'"):
        lrp.infer_drift(posterior, simulation.recording)
    trials, _, _ = new_session()
    with pytest.raises(ValueError, match=r"trials: expected num_neurons = 14, as in the recording, got 13"):
        lrp.infer_drift(posterior, trials.select(neurons=range(13)))
    with pytest.raises(ValueError, match=r"trials: expected num_inputs = 2, as in the recording, got 0"):
        lrp.infer_drift(posterior, dataclasses.replace(trials, inputs=None))
    found = lrp.InferredDrift(("saturday",), np.zeros((14, 1)), np.ones((14, 1)))
    with pytest.raises(ValueError, match="drift: expected that of session 'sunday'"):
        lrp.infer_latents(posterior, trials, drift=found)
    other = dataclasses.replace(simulation.recording, session_labels=["sunday"] * 12)
    with pytest.raises(ValueError, match=r"trials: expected trials of the sessions that were fitted.*'sunday'"):
        lrp.update_posterior(posterior, other, progress=False)
