"""Checks of a fit on data: silent where the model is right, loud where it is not."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
from plain import plain_model

import lrposterior as lrp
from lrposterior.misfit import _visible_distances

DT, TAU, NOISE = 0.02, 0.1, 0.1


def record(seed: int, gain: float = 0.0, num_neurons: int = 20) -> tuple[lrp.NetworkPosterior, lrp.Recording]:
    """A network of rank 1 with a bulk, and its recording."""
    random = np.random.default_rng(seed)
    M, K, B = random.standard_normal((3, num_neurons, 1))
    W = 1.5 * M @ K.T / num_neurons + gain / np.sqrt(num_neurons) * random.standard_normal((num_neurons, num_neurons))
    inputs = np.repeat(random.standard_normal((16, 6, 1)), 10, axis=1)
    model = lrp.FullRankNetwork(time_constant=TAU)
    silent = lrp.Recording(np.zeros((16, 60, num_neurons)), DT, inputs=inputs)
    truth = lrp.NetworkPosterior.known(model, silent, {"W": W, "B": B, "b": 0.3 * random.standard_normal(num_neurons)})
    return truth, with_noise(truth, inputs, None, seed)


def with_noise(truth: lrp.NetworkPosterior, inputs: np.ndarray, stimulation: np.ndarray | None, seed: int):
    rates = truth.predict_rates(inputs, stimulation=stimulation, num_draws=1, seed=0)[0]
    noise = NOISE * np.random.default_rng([seed, 1]).standard_normal(rates.shape)
    return lrp.Recording(rates + noise, DT, inputs=inputs, stimulation=stimulation)


def stimulate(truth: lrp.NetworkPosterior, recording: lrp.Recording, seed: int) -> lrp.Recording:
    stimulation = np.zeros((8, *recording.activity.shape[1:]))
    stimulation[:, 20:25, :4] = 2.0
    return with_noise(truth, recording.inputs[:8], stimulation, seed + 100)


def fit_rank_one(recording: lrp.Recording) -> lrp.Posterior:
    return lrp.fit(plain_model(1, time_constant=TAU), recording, seed=0, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_right_models_pass(seed):
    """A false alarm is less likely than one in a thousand on the fitted trials, and one in a hundred on new ones."""
    truth, recording = record(seed)
    posterior = fit_rank_one(recording)
    on_fitted, on_new = lrp.check_fit(posterior), lrp.check_fit(posterior, stimulate(truth, recording, seed))
    assert on_fitted.warnings == on_new.warnings == ()
    assert abs(on_fitted.autocorrelation_z) < 4.0
    assert on_fitted.shared == pytest.approx(1.0, abs=0.1)
    assert on_new.cover == pytest.approx(0.9, abs=0.02)


def test_a_bulk_that_the_model_lacks_is_seen_in_fitted_and_in_stimulated_trials():
    truth, recording = record(0, gain=0.8)
    posterior = fit_rank_one(recording)
    on_fitted, on_new = lrp.check_fit(posterior), lrp.check_fit(posterior, stimulate(truth, recording, 0))
    assert len(on_fitted.warnings) == 2
    assert "posterior: it is too sure" in on_new.warnings[0]
    assert "beware: residuals are shared" in str(on_fitted)
    candidates = lrp.single_neuron_candidates(recording, power=1.0, onset=0.2, duration=0.1)
    ranking = lrp.rank_perturbations(posterior, candidates, inputs=recording.inputs[:1], num_draws=20, progress=False)
    assert ranking.warnings == on_fitted.warnings
    assert "beware: " in str(ranking)


def test_statistics_are_those_of_the_residuals():
    _, recording = record(1)
    posterior = fit_rank_one(recording)
    residuals = (recording.activity - posterior.mode_rates()) / posterior.mode["noise_scale"]
    check = lrp.check_fit(posterior)
    assert check.autocorrelation == pytest.approx(np.mean(residuals[:, 1:] * residuals[:, :-1]))
    rows = residuals.reshape(-1, recording.num_neurons)
    assert check.shared == pytest.approx(np.linalg.norm(rows, 2) / sum(np.sqrt(rows.shape)))


def predict(posterior: lrp.Posterior, trials: lrp.Recording, num_draws: int, seed: int) -> np.ndarray:
    return posterior.predict_rates(trials.inputs, stimulation=trials.stimulation, num_draws=num_draws, seed=seed)


def test_distances_from_the_prediction_are_squared():
    """At c times the distance of a draw the excess is f(0) + c² (f(1) - f(0)), whatever the weights."""
    truth, recording = record(1)
    posterior, trials = fit_rank_one(recording), stimulate(truth, recording, 1)
    center, other = predict(posterior, trials, 200, 0)[:100].mean(axis=0), predict(posterior, trials, 1, 5)[0]
    values = [
        lrp.check_fit(posterior, dataclasses.replace(trials, activity=center + c * (other - center)), seed=0).excess
        for c in (0.0, 1.0, 3.0)
    ]
    assert values[2] - values[0] == pytest.approx(9.0 * (values[1] - values[0]), rel=1e-9)
    assert values[0] < values[1]


@pytest.mark.slow
def test_draws_of_the_posterior_raise_no_alarm():
    """Truths that are draws of the posterior: the mean excess is 1 to within four standard errors (false alarm below
    1e-4), and at most two of fifty are warned of (a rate of 1% gives more with probability 0.014)."""
    truth, recording = record(2, gain=0.3)
    posterior, trials = fit_rank_one(recording), stimulate(truth, recording, 2)
    rates, random = predict(posterior, trials, 50, 7), np.random.default_rng(3)
    found = [
        lrp.check_fit(posterior, dataclasses.replace(trials, activity=each), seed=0)
        for each in rates + posterior.mode["noise_scale"] * random.standard_normal(rates.shape)
    ]
    excess = np.array([each.excess for each in found])
    assert abs(excess.mean() - 1.0) < 4.0 * excess.std(ddof=1) / np.sqrt(len(excess))
    assert sum(bool(each.warnings) for each in found) <= 2


@pytest.mark.slow
def test_new_trials_start_where_the_prior_has_them():
    """With a free initial state a new trial does not start where the fitted ones did on average."""
    model = plain_model(1, time_constant=TAU, initial_state="free")
    simulation = lrp.simulate_recording(
        model, num_neurons=20, num_trials=24, num_bins=40, dt=DT, noise_scale=NOISE, seed=3
    )
    old, new = (simulation.recording.select(trials=some) for some in (slice(0, 16), slice(16, 24)))
    check = lrp.check_fit(lrp.fit(model, old, seed=0, progress=False), new)
    assert check.warnings == ()
    assert check.cover == pytest.approx(0.9, abs=0.04)


def test_a_posterior_that_is_far_too_sure_is_seen_where_its_draws_hardly_differ():
    """Draws with a twentieth of the noise in five directions, and a truth thirty times as far: what is expected does
    not hang on the noise that is drawn, and the truth is four standard deviations beyond draws whatever it is."""
    random = np.random.default_rng(0)
    draws = 0.05 * random.standard_normal((200, 5)) @ np.linalg.qr(random.standard_normal((300, 5)))[0].T
    far = 30.0 * draws[150] + random.standard_normal(300)
    found = [_visible_distances(far, draws, np.random.default_rng(seed)) for seed in range(20)]
    assert all(each.expected == found[0].expected > 0.0 for each in found)
    assert all(each.trial > 4.0 * each.draws.std() for each in found)


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_few_stimulation_trials_tell_what_no_recording_can(seed):
    """K of the truth reads what was never visited. Both fits explain the recording; that with a learned part is too
    sure of stimulations by far, and eight trials show it."""
    truth, recording = record(seed, gain=0.2, num_neurons=40)
    stimulation = np.zeros((8, *recording.activity.shape[1:]))
    stimulation[:, 20:25] = np.random.default_rng(seed).standard_normal((8, 1, 40))
    trials = with_noise(truth, recording.inputs[:8], stimulation, seed + 100)
    found = {}
    for learned in (False, True):
        model = lrp.LowRankModel(1, time_constant=TAU, background=lrp.RandomBulk(learned=learned))
        posterior = lrp.fit(model, recording, seed=0, progress=False)
        assert lrp.check_fit(posterior).warnings == ()
        found[learned] = lrp.check_fit(posterior, trials)
    assert found[True].warnings
    assert found[True].excess > 1.5 * found[False].excess


def test_the_cover_is_that_of_the_intervals():
    truth, recording = record(1)
    posterior, trials = fit_rank_one(recording), stimulate(truth, recording, 1)
    draws, noise = predict(posterior, trials, 100, 0), posterior.mode["noise_scale"]
    spread = np.sqrt(draws.var(axis=0, ddof=1) * 1.01 + noise**2)
    inside = np.abs(trials.activity - draws.mean(axis=0)) < scipy.stats.norm.ppf(0.95) * spread
    assert lrp.check_fit(posterior, trials, num_draws=100, seed=0).cover == pytest.approx(inside.mean(), abs=1e-12)


def test_errors_name_what_does_not_fit():
    _, recording = record(0)
    posterior = fit_rank_one(recording)
    with pytest.raises(ValueError, match="trials: expected num_neurons = 20, as in the recording, got 19"):
        lrp.check_fit(posterior, recording.select(neurons=range(19)))
    with pytest.raises(ValueError, match="num_draws: expected an integer >= 100"):
        lrp.check_fit(posterior, recording, num_draws=5)
    first = np.zeros(recording.mask.shape, dtype=bool)
    first[:, 0] = True
    with pytest.raises(ValueError, match="trials: expected observations that depend on the network"):
        lrp.check_fit(posterior, dataclasses.replace(recording, mask=first))


def test_one_neuron_and_bins_without_neighbours_can_be_checked():
    """A recording of one neuron has no shared part beyond its own; bins that are seen one by one have no neighbours."""
    random = np.random.default_rng(0)
    inputs = random.standard_normal((3, 30, 1))
    activity = np.cumsum(inputs, axis=1) * 0.1 + 0.1 * random.standard_normal((3, 30, 1))
    every_other = np.zeros(activity.shape, dtype=bool)
    every_other[:, ::2] = True
    for mask in (None, every_other):
        recording = lrp.Recording(activity, DT, inputs=inputs, mask=mask)
        model = plain_model(1, time_constant=TAU, nonlinearity="linear")
        posterior = lrp.fit(model, recording, seed=0, progress=False)
        check = lrp.check_fit(posterior)
        assert np.isnan(check.autocorrelation) == (mask is not None)
        assert np.isfinite(check.shared)
