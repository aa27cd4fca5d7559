"""Fits that match trials: recovery, signs, where they start, that they go on where they stopped, what they refuse."""

import dataclasses
import importlib
import re

import jax
import numpy as np
import pytest

import lrposterior as lrp
from lrposterior.inference.match_start import match_start
from lrposterior.inference.problem import ScaledProblem
from lrposterior.matching.problem import MatchingProblem

TYPES, NUM_TRIALS, DT = ["E"] * 6 + ["I"] * 2, 40, 0.02
SIGNS = np.where(np.array(TYPES) == "I", -1.0, 1.0)
SHORT = lrp.Match(warm_up=2, ramp=2, num_epochs=14, patience=30)


def dale_model(**options) -> lrp.LowRankModel:
    settings = {
        "time_constant": {"E": 0.1, "I": lrp.TimeConstantPrior(0.05)},
        "nonlinearity": "softplus",
        "observation": lrp.PoissonObservation(),
        "background": None,
    }
    return lrp.LowRankModel(2, priors=lrp.DaleLoadings(K={"E": 1.5, "I": 6.0}), **(settings | options))


def conditions(num_trials: int = NUM_TRIALS) -> list[str]:
    return ["left", "right"] * (num_trials // 2)


def held_out(num_trials: int = NUM_TRIALS) -> tuple[int, ...]:
    """A quarter of the trials of every condition."""
    return tuple(trial for trial in range(num_trials) if trial % 8 < 2)


def truth(seed: int, noise: float | None = None, num_trials: int = NUM_TRIALS):
    """A network of the prior, and its trials under one of two inputs."""
    random = np.random.default_rng(seed)
    scale = np.where(SIGNS > 0, 1.5, 6.0)[:, None] / 2
    inputs = np.zeros((num_trials, 60, 2))
    inputs[0::2, 8:30, 0] = inputs[1::2, 24:50, 1] = 1.0
    parameters = {
        "M": np.abs(random.standard_normal((8, 2))),
        "K": SIGNS[:, None] * scale * np.abs(random.standard_normal((8, 2))),
        "B": 2.0 * random.standard_normal((8, 2)),
        "b": 0.5 * random.standard_normal(8),
        "rate_scale": np.full(8, 20.0),
        "baseline": np.full(8, 0.5),
    }
    options = {}
    if noise is None:
        parameters["time_constant"] = np.array([0.1, 0.06])
    else:
        options = {"time_constant": 0.1, "process_noise": "diagonal"}
        parameters["process_noise"] = noise**2 * np.eye(2)
    model = dale_model(**options)
    like = lrp.Recording(np.zeros((num_trials, 60, 8)), DT, inputs=inputs, cell_types=TYPES)
    return model, parameters, model.simulate(parameters, like, seed=seed)


def compare(posterior: lrp.Posterior, recording: lrp.Recording) -> lrp.TrialComparison:
    """Held-out trials beside eight simulations by the best network."""
    held = held_out(recording.num_trials)
    trials = recording.select(trials=held)
    draws = [posterior.model.simulate(posterior.mode, trials, seed=seed).activity for seed in range(8)]
    labels = [conditions()[trial % 2] for trial in held]
    return lrp.compare_trials(trials, np.stack(draws), width=0.05, conditions=labels, seed=0)


@pytest.fixture(scope="module")
def fitted():
    model, parameters, recording = truth(0)
    method = lrp.Match(
        conditions=conditions(), validation=held_out(), num_members=2, warm_up=30, ramp=30, num_epochs=300
    )
    return lrp.fit(model, recording, method, seed=0, progress=False), parameters, recording


def test_averages_of_held_out_trials_are_matched_and_signs_are_kept(fitted):
    posterior, _, recording = fitted
    found = compare(posterior, recording)
    assert found["correlation"].value > 0.9 * found["ceiling"].value
    np.testing.assert_allclose(found["mean simulated"].value, found["mean"].value, rtol=0.1)
    draws = posterior.sample_parameters(2, seed=0)
    assert np.all(draws["M"] >= 0.0)
    assert np.all(draws["K"] * SIGNS[:, None] >= 0.0)
    W = posterior.sample_connectivity(2, seed=0)
    assert all(np.all(W.dense(draw) * SIGNS >= 0.0) for draw in range(2))


@pytest.mark.slow
def test_trials_vary_as_recorded_ones_where_noise_drives_them():
    """Standard deviations of trials' means, and what neurons share of them, within three standard errors."""
    model, _, recording = truth(1, noise=0.8, num_trials=80)
    # One step an epoch: the ramp gives L_trial time before the first network is kept.
    schedule = {"warm_up": 20, "ramp": 160, "num_epochs": 280, "patience": 100, "learning_rate": 0.02}
    method = lrp.Match(conditions=conditions(80), validation=held_out(80), **schedule)
    found = compare(lrp.fit(model, recording, method, seed=0, progress=False), recording)
    assert found["shared"].interval[0] > 0.1
    for name in ("trial sd", "shared"):
        error = 3.0 * np.hypot(found[name].standard_error, found[f"{name} simulated"].standard_error)
        assert abs(found[f"{name} simulated"].value - found[name].value) < error


def test_the_result_says_that_it_is_no_posterior(fitted, tmp_path):
    posterior, _, _ = fitted
    assert "point estimates" in str(posterior)
    assert posterior.statistics.log_evidence is None
    assert "no posterior" in posterior.statistics.evidence_note
    assert posterior.statistics.validation_loss.shape == (2,)
    candidates = lrp.single_neuron_candidates(posterior.recording, power=1.0)
    asked = {
        "sd": lambda: posterior.connectivity_sd(),
        "interval": lambda: posterior.connectivity_interval(num_draws=2, seed=0),
        "spectrum": lambda: posterior.spectrum,
        "degeneracy": lambda: lrp.analyze_degeneracy(posterior),
        "ranking": lambda: lrp.rank_perturbations(posterior, candidates),
        "design": lambda: lrp.design_perturbations(posterior, num_patterns=1, power=1.0, trials_per_pattern=1, seed=0),
        "comparison": lambda: lrp.compare_posteriors(posterior, posterior, seed=0),
    }
    for question in asked.values():
        with pytest.raises(ValueError, match="a posterior, got point estimates"):
            question()
    posterior.save(tmp_path / "networks.nc")
    loaded = lrp.load_posterior(tmp_path / "networks.nc")
    assert loaded.is_point_estimate
    np.testing.assert_array_equal(loaded.connectivity_mean(), posterior.connectivity_mean())


def test_the_best_network_is_that_with_the_highest_correlation(fitted):
    posterior, _, _ = fitted
    best = posterior.distribution.draws[0, int(np.argmin(posterior.statistics.validation_loss))]
    np.testing.assert_array_equal(posterior.mode_coordinates, best)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("observation", "seed"),
    [
        *((lrp.PoissonObservation(), seed) for seed in range(3)),
        (lrp.PoissonObservation(per="network"), 0),
        (lrp.SpikeRateObservation(per="network"), 0),
        (lrp.SpikeRateObservation(), 1),
    ],
)
def test_a_network_starts_with_the_recorded_rates(observation, seed):
    """Those of neurons too, whoever has the scale: biases take what it cannot."""
    model, _, recording = truth(seed)
    if observation.of == "spike rate":
        recording = dataclasses.replace(recording, activity=recording.activity / DT)
    model = dataclasses.replace(model, observation=observation)
    with jax.enable_x64(True):
        base = ScaledProblem.settled(model, recording)
        z = match_start(base, seed=(seed, 0))
        other = match_start(base, seed=(seed, 1))
    assert np.any(z != other)
    assert np.all(np.isfinite(z))
    parameters = base.model.named({name: np.asarray(value) for name, value in base.space.unwhiten(z).items()}, DT)
    activity = base.model.simulate(parameters, recording, seed=0).activity
    assert 0.5 < activity.mean() / recording.activity.mean() < 2.0
    means = [each.mean(axis=(0, 1)) for each in (activity, recording.activity)]
    assert np.corrcoef(*means)[0, 1] > 0.7


@pytest.mark.slow
def test_networks_that_share_a_scale_are_matched():
    model, _, recording = truth(0)
    model = dataclasses.replace(model, observation=lrp.PoissonObservation(per="network"))
    posterior = lrp.fit(model, recording, SHORT, seed=0, progress=False)
    assert posterior.mode["rate_scale"].shape == posterior.mode["baseline"].shape == ()
    assert posterior.mode["rate_scale"] > 0.0
    assert np.all(np.isfinite(posterior.mode_rates()))


@pytest.mark.slow
def test_an_interrupted_fit_ends_where_it_would_have_ended(tmp_path, monkeypatch):
    model, _, recording = truth(0)
    whole = lrp.fit(model, recording, dataclasses.replace(SHORT, num_members=2), seed=3, progress=False)
    method = dataclasses.replace(SHORT, num_members=2, checkpoint=tmp_path / "fit.npz")
    advance, calls = MatchingProblem.advance, []

    def interrupted(self, course, network):
        calls.append(network)
        if len(calls) == 27:
            raise KeyboardInterrupt
        return advance(self, course, network)

    monkeypatch.setattr(MatchingProblem, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lrp.fit(model, recording, method, seed=3, progress=False)
    assert calls == [0] * 14 + [1] * 13
    resumed = lrp.fit(model, recording, method, seed=3, progress=False)
    # Of the second network ten epochs had been written.
    assert calls[27:] == [1] * 4
    np.testing.assert_array_equal(resumed.distribution.draws, whole.distribution.draws)
    np.testing.assert_array_equal(resumed.statistics.validation_loss, whole.statistics.validation_loss)
    with pytest.raises(ValueError, match="checkpoint: expected a checkpoint of this fit, got 'fit"):
        lrp.fit(model, recording, method, seed=4, progress=False)


@pytest.mark.slow
def test_a_fit_goes_on_with_more_epochs_and_members(tmp_path):
    model, _, recording = truth(0)
    few = dataclasses.replace(SHORT, num_epochs=6, checkpoint=tmp_path / "fit.npz")
    begun = lrp.fit(model, recording, few, seed=3, progress=False)
    assert begun.status.startswith("not converged: 1 of 1 networks went through all 6 epochs; raise num_epochs")
    more = dataclasses.replace(few, num_epochs=14, num_members=2)
    continued = lrp.fit(model, recording, more, seed=3, progress=False)
    whole = lrp.fit(model, recording, dataclasses.replace(more, checkpoint=None), seed=3, progress=False)
    np.testing.assert_array_equal(continued.distribution.draws, whole.distribution.draws)


@pytest.mark.slow
def test_what_is_masked_changes_nothing():
    model, _, recording = truth(0)
    mask = np.ones(recording.activity.shape, dtype=bool)
    mask[::3, 45:] = False
    mask[4, :30, 2] = False
    found = []
    for seed in range(2):
        other = np.random.default_rng(seed).poisson(50.0, mask.shape)
        changed = dataclasses.replace(recording, activity=np.where(mask, recording.activity, other), mask=mask)
        found.append(lrp.fit(model, changed, SHORT, seed=0, progress=False))
    np.testing.assert_array_equal(found[0].distribution.draws, found[1].distribution.draws)


@pytest.mark.slow
def test_networks_without_signs_whose_initial_states_are_free():
    """Rates of a tanh network under the default model, with a bulk; no trial is held out, and the loss falls."""
    truth_model = lrp.LowRankModel(1, background=None, priors=lrp.Priors())
    simulated = lrp.simulate_recording(
        truth_model, num_neurons=8, num_trials=12, num_bins=40, num_inputs=1, noise_scale=0.1, seed=0
    )
    losses = []
    for num_epochs in (1, 60):
        method = lrp.Match(warm_up=0, ramp=0, num_epochs=num_epochs, validation=0.0)
        model = lrp.LowRankModel(1, initial_state="free")
        posterior = lrp.fit(model, simulated.recording, method, seed=0, progress=False)
        losses.append(posterior.statistics.objective)
        assert np.isnan(posterior.statistics.validation_loss).all()
        assert "only held-out trials can tell" in posterior.status
    assert losses[1] < losses[0]
    assert np.corrcoef(posterior.mode_rates().ravel(), simulated.rates.ravel())[0, 1] > 0.9


@pytest.mark.slow
def test_time_constants_of_neurons_are_learned_and_kept(tmp_path):
    """Neurons that only follow their input, five slow ones and three fast ones, from one prior for all."""
    random, tau = np.random.default_rng(0), np.array([0.2] * 5 + [0.03] * 3)
    inputs = np.repeat(random.standard_normal((NUM_TRIALS, 12, 1)), 5, axis=1)
    parameters = {"M": np.zeros((8, 1)), "K": np.zeros((8, 1)), "B": np.ones((8, 1)), "b": np.zeros(8)}
    parameters["noise_scale"] = np.full(8, 0.05)
    like = lrp.Recording(np.zeros((NUM_TRIALS, 60, 8)), DT, inputs=inputs)
    settings = {"background": None, "priors": lrp.Priors()}
    recording = lrp.LowRankModel(1, time_constant=lrp.PerNeuron(tau), **settings).simulate(parameters, like, seed=0)
    model = lrp.LowRankModel(1, time_constant=lrp.PerNeuron(lrp.TimeConstantPrior(0.08, 1.0)), **settings)
    labels = [str(trial) for trial in range(NUM_TRIALS)]
    method = lrp.Match(
        conditions=labels, width=0.01, warm_up=799, ramp=0, num_epochs=800, validation=0.0, learning_rate=0.05,
        time_constant_rate=0.3,
    )  # fmt: skip
    posterior = lrp.fit(model, recording, method, seed=0, progress=False)
    np.testing.assert_allclose(posterior.mode["time_constant"], tau, rtol=0.1)
    posterior.save(tmp_path / "networks.nc")
    loaded = lrp.load_posterior(tmp_path / "networks.nc")
    np.testing.assert_array_equal(loaded.mode["time_constant"], posterior.mode["time_constant"])
    assert loaded.model == posterior.model


@pytest.mark.slow
def test_networks_within_signs_with_noise_may_have_any_number_of_latents():
    """Time constants of 24 neurons at rank 3, with process noise, are 72 latents, of which a likelihood takes 64."""
    truth = lrp.simulate_session(
        num_trials=12, num_bins=20, num_excitatory=18, num_inhibitory=6, num_inputs=2, num_outliers=0, seed=0
    )
    model = dataclasses.replace(truth.model, time_constant=lrp.PerNeuron(lrp.TimeConstantPrior(0.05)))
    with pytest.raises(ValueError, match="expected at most 64 latents"):
        lrp.fit(model, truth.recording, seed=0, progress=False)
    method = lrp.Match(warm_up=1, ramp=1, num_epochs=3)
    posterior = lrp.fit(model, truth.recording, method, seed=0, progress=False)
    assert posterior.mode["time_constant"].shape == (24,)
    assert np.all(np.linalg.eigvalsh(posterior.mode["process_noise"]) > 0.0)
    rate = posterior.model.simulate(posterior.mode, truth.recording, seed=0).activity.mean()
    assert 0.5 < rate / truth.recording.activity.mean() < 2.0


@pytest.mark.slow
def test_a_target_in_spikes_per_second_draws_the_rate_to_it():
    model, _, recording = truth(0)
    target = 2.0 * recording.activity.mean() / DT
    method = lrp.Match(
        warm_up=0, ramp=0, num_epochs=100, validation=0.0, learning_rate=0.03, activity_penalty=100.0,
        target_rate=target,
    )  # fmt: skip
    posterior = lrp.fit(model, recording, method, seed=0, progress=False)
    rate = posterior.model.simulate(posterior.mode, recording, seed=0).activity.mean() / DT
    np.testing.assert_allclose(rate, target, rtol=0.1)


def test_the_progress_bar_shows_stage_losses_and_validation_correlation(capsys):
    model, _, recording = truth(0)
    posterior = lrp.fit(model, recording, SHORT, seed=0, progress=True)
    number = r"(-?[\d.]+(?:e-?\d+)?)"
    text = (
        rf"network 1 of 1, (warm-up|ramp|all): neuron {number}, trial {number}, penalty {number}, validation {number}"
    )
    found = list(dict.fromkeys(re.findall(text, capsys.readouterr().err)))
    stages = [stage for stage, *_ in found]
    assert stages == ["warm-up"] * 2 + ["ramp"] * 2 + ["all"] * 10
    losses = np.array([values for _, *values in found], dtype=float)
    assert np.all(losses[:2, 1] == 0.0)
    assert np.all(losses[2:, 1] > 0.0)
    assert np.all(losses[:, [0, 2]] > 0.0)
    best = 1.0 - posterior.statistics.validation_loss[0]
    assert losses[4:, 3].max() == pytest.approx(best, abs=6e-4)
    assert losses[4 + np.argmax(losses[4:, 3]), :3].sum() == pytest.approx(posterior.statistics.objective, rel=0.02)


@pytest.mark.slow
def test_the_divergence_of_poisson_trials_falls():
    """L_trial by its Poisson-Bregman cost, in whole fits with gaps; the networks are others than of squares."""
    model, _, recording = truth(0)
    mask = np.ones(recording.activity.shape, dtype=bool)
    mask[::3, 45:] = False
    gaps = dataclasses.replace(recording, mask=mask)
    schedule = {"warm_up": 0, "ramp": 0, "validation": 0.0, "learning_rate": 0.03, "conditions": conditions()}
    fits = {
        (cost, num_epochs): lrp.fit(
            model, gaps, lrp.Match(cost=cost, num_epochs=num_epochs, **schedule), seed=0, progress=False
        )
        for cost, num_epochs in (("poisson", 1), ("poisson", 40), ("euclidean", 40))
    }
    begun, ended, of_squares = fits.values()
    assert ended.statistics.objective < 0.7 * begun.statistics.objective
    assert np.all(np.isfinite(ended.mode_coordinates))
    assert np.abs(ended.mode_coordinates - of_squares.mode_coordinates).max() > 1e-2
    simulated = ended.model.simulate(ended.mode, gaps, seed=0)
    np.testing.assert_allclose(simulated.activity[mask].mean(), gaps.activity[mask].mean(), rtol=0.15)


@pytest.mark.slow
def test_conditions_may_be_the_labels_of_the_recording():
    model, _, recording = truth(0)
    given = dataclasses.replace(recording, trial_labels=conditions())
    found = [
        lrp.fit(model, given, dataclasses.replace(SHORT, conditions=labels), seed=0, progress=False)
        for labels in (conditions(), "labels")
    ]
    np.testing.assert_array_equal(found[0].distribution.draws, found[1].distribution.draws)


def test_match_is_a_method_by_name(monkeypatch):
    seen = []
    module = importlib.import_module("lrposterior.inference.fit")
    monkeypatch.setattr(module, "fit_match", lambda *arguments, **options: seen.append(arguments[2]))
    model, _, recording = truth(0)
    lrp.fit(model, recording, "match", seed=0, progress=False)
    assert seen == [lrp.Match()]


REFUSED = {
    "num_epochs": (lambda: lrp.Match(warm_up=50, ramp=50, num_epochs=100), "num_epochs: expected an integer >= 101"),
    "cost": (lambda: lrp.Match(cost="cosine"), "cost: expected one of 'euclidean', 'poisson', got 'cosine'"),
    "validation": (lambda: lrp.Match(validation=1.0), r"validation: expected a share of the trials in \[0, 1\)"),
    "checkpoint": (lambda: lrp.Match(checkpoint="fit.nc"), "checkpoint: expected a file name that ends in .npz"),
    "entropy": (lambda: lrp.Match(entropy=0.0), "entropy: expected one finite number > 0"),
    "conditions": (lambda: match(conditions=["a"] * 3), "conditions: expected 40 strings, one per trial, got 3"),
    "no labels": (lambda: match(conditions="labels"), "conditions: expected a recording with trial_labels, got one"),
    "name": (lambda: lrp.Match(conditions="label"), "conditions: expected one of 'labels', got 'label'"),
    "numbers": (lambda: match(validation=[40]), "validation: expected indices from 0 to 39"),
    "all held": (lambda: match(validation=range(40)), "validation: expected trials to be left for the fit"),
    "tanh": (
        lambda: match(lrp.LowRankModel(1), cost="poisson"),
        "cost: expected 'euclidean' for activity that may be negative",
    ),
    "activity": (
        lambda: match(lrp.LowRankModel(1), activity_penalty=1.0),
        "activity_penalty: expected 0 for activity that may be negative",
    ),
    "calcium": (
        lambda: match(lrp.LowRankModel(1, observation=lrp.CalciumObservation(0.5))),
        "observation: expected rates, currents or counts, to match trials, got calcium",
    ),
    "circuit": (lambda: match(lrp.FullRankNetwork(8)), "model: expected LowRankModel, got FullRankNetwork"),
}


def match(model=None, **options):
    return lrp.fit(model or dale_model(), truth(0)[2], lrp.Match(**options), seed=0, progress=False)


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_are_checked(name):
    call, text = REFUSED[name]
    with pytest.raises(ValueError, match=text):
        call()


def test_sessions_without_a_neuron_in_common_are_refused():
    _, _, recording = truth(0)
    mask = np.ones(recording.activity.shape, dtype=bool)
    mask[:20, :, :4] = mask[20:, :, 4:] = False
    with pytest.raises(ValueError, match="mask: expected trials of which every two have observed entries in common"):
        lrp.fit(dale_model(), dataclasses.replace(recording, mask=mask), "match", seed=0, progress=False)
