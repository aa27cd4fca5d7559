"""Diagnosis: statistics against NumPy by hand, defects that are built and found, and no false alarms."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from plain import plain_model

import lrposterior as lrp
from lrposterior.diagnosis.analysis import _standard_error
from lrposterior.diagnosis.networks import WeightRange, describe_networks
from lrposterior.diagnosis.signal import conditions_of, signal_of
from lrposterior.fit_quality import FitQuality

DT = 0.025
SMALL = {"num_trials": 40, "num_bins": 80, "num_excitatory": 9, "num_inhibitory": 4, "num_inputs": 8}


def session(seed: int = 0, **changes) -> lrp.Simulation:
    return lrp.simulate_session(**(SMALL | {"num_outliers": 0} | changes), seed=seed)


def names(diagnosis: lrp.Diagnosis) -> list[str]:
    return [verdict.name for verdict in diagnosis.verdicts]


def small_network(**options) -> tuple[lrp.LowRankModel, dict[str, np.ndarray], lrp.Recording]:
    """An excitatory-inhibitory network without process noise, its parameters and a recording of it."""
    truth = session(3, num_trials=6, num_bins=20)
    model = dataclasses.replace(truth.model, process_noise=None, **options)
    parameters = {name: value for name, value in truth.parameters.items() if name != "process_noise"}
    parameters["time_constant"] = np.array([model.time_constant[cell_type] for cell_type in ("E", "I")])
    return model.for_recording(truth.recording), parameters, truth.recording


def currents(parameters: dict[str, np.ndarray], recording: lrp.Recording, inputs: np.ndarray) -> np.ndarray:
    """The network neuron by neuron."""
    a = np.where(np.array(recording.cell_types) == "E", 0.54, 0.72)
    W = parameters["M"] @ parameters["K"].T / recording.num_neurons
    x = np.zeros((recording.num_trials, recording.num_bins, recording.num_neurons))
    for time in range(recording.num_bins - 1):
        drive = np.logaddexp(0.0, x[:, time]) @ W.T + inputs[:, time] @ parameters["B"].T + parameters["b"]
        x[:, time + 1] = (1.0 - a) * x[:, time] + a * drive
    return x


# ---------------------------------------------------------------------------------------------------------- statistics
def test_the_signal_of_averages_is_that_of_all_pairs_of_trials():
    random = np.random.default_rng(0)
    groups = np.array([0, 1, 0, 0, 1, 0, 1])
    activity = random.standard_normal((7, 9, 3)) + 2.0 * np.sin(np.arange(9))[:, None]
    deviations = activity - activity.mean(axis=1, keepdims=True)
    variances, levels = [], []
    for group in (0, 1):
        members = np.flatnonzero(groups == group)
        pairs = [np.mean(deviations[b] * deviations[c]) for b, c in itertools.permutations(members, 2)]
        variances.append(np.mean(pairs))
        levels.append(np.mean(np.abs(activity[members].mean(axis=0))))
    found = signal_of(activity, np.ones(activity.shape, dtype=bool), groups)
    assert found.temporal_sd == pytest.approx(np.sqrt(np.mean(variances)))
    assert found.level == pytest.approx(np.mean(levels))
    assert found.modulation == pytest.approx(found.temporal_sd / found.level)


def test_the_temporal_variance_is_unbiased_and_its_standard_error_is_its_scatter():
    """In 400 data sets of trials with noise and offsets of their own."""
    course = np.sin(np.linspace(0.0, 5.0, 20))[:, None] * np.array([0.5, 1.0])
    truth = np.mean(course.var(axis=0))
    variances, errors = [], []
    for seed in range(400):
        random = np.random.default_rng(seed)
        trials = course + random.standard_normal((16, 20, 2)) + random.standard_normal((16, 1, 2))
        found = signal_of(trials, np.ones(trials.shape, dtype=bool), np.zeros(16))
        variances.append(found.temporal_sd**2)
        errors.append(found.temporal_sd**2 / found.temporal_z)
    assert np.mean(variances) == pytest.approx(truth, abs=4.0 * np.std(variances) / np.sqrt(400))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(variances), rel=0.2)


def test_averages_of_noise_do_not_move():
    """Below 3 standard errors, as a false alarm would be in one of 700 Normal variables, in 300 data sets."""
    z = []
    for seed in range(300):
        noise = np.random.default_rng(seed).standard_normal((12, 15, 3))
        z.append(signal_of(noise, np.ones(noise.shape, dtype=bool), np.repeat([0, 1], 6)).temporal_z)
    assert np.mean(np.array(z) > 3.0) < 0.02


def test_what_is_masked_says_nothing():
    random = np.random.default_rng(1)
    activity, groups = random.standard_normal((6, 10, 3)), np.array([0, 0, 0, 1, 1, 1])
    mask = random.random(activity.shape) < 0.8
    one, other = (signal_of(np.where(mask, activity, fill), mask, groups) for fill in (0.0, 1e3))
    np.testing.assert_allclose(one, other)
    whole = np.ones((6, 10, 3), dtype=bool)
    whole[2] = False
    np.testing.assert_allclose(
        signal_of(activity, whole, groups), signal_of(np.delete(activity, 2, 0), np.delete(whole, 2, 0), groups[1:])
    )


def test_trials_without_a_shared_label_are_one_condition():
    recording = lrp.Recording(np.ones((5, 2, 1)), DT, trial_labels=["a", "b", "a", "c", "d"])
    groups = conditions_of(recording)
    assert groups[0] == groups[2] != groups[1] == groups[3] == groups[4]
    assert np.isnan(signal_of(np.ones((1, 2, 1)), np.ones((1, 2, 1), dtype=bool), np.zeros(1)).temporal_sd)


def test_statistics_of_the_data_are_those_of_numpy():
    counts = session(num_outliers=3)
    activity = counts.recording.activity.copy()
    activity[:, :, 2] = 0.0
    mask = np.ones(activity.shape, dtype=bool)
    mask[0, :, 0] = False
    recording = dataclasses.replace(counts.recording, activity=activity, mask=mask)
    data = lrp.diagnose(counts.model, recording, num_draws=1, seed=0).data
    assert data.unit == "spikes/s"
    assert data.mean == pytest.approx(activity[mask].mean() / DT)
    assert data.neuron_means[0] == pytest.approx(activity[1:, :, 0].mean() / DT)
    assert data.num_silent == 1
    assert data.largest == pytest.approx(activity.max() / DT)


def test_a_poisson_count_is_no_outlier_and_an_artefact_is():
    """Two million counts at rates that differ between neurons and bins."""
    random = np.random.default_rng(0)
    rates = np.geomspace(0.003, 2.0, 40) * np.exp(0.5 * np.sin(np.arange(100) / 8.0))[:, None]
    counts = random.poisson(np.broadcast_to(rates, (500, 100, 40)))
    model = lrp.LowRankModel(1, nonlinearity="softplus", observation=lrp.PoissonObservation(), background=None)
    places = np.array([[3, 7, 0], [20, 50, 20], [400, 99, 39]])
    for as_rates in (False, True):
        for values, expected in ((None, np.empty((0, 3))), (20, places)):
            activity = counts.astype(float)
            if values is not None:
                activity[tuple(places.T)] = values
            recording = lrp.Recording(activity / DT if as_rates else activity, DT)
            chosen = dataclasses.replace(model, observation=lrp.GaussianObservation()) if as_rates else model
            diagnosis = lrp.diagnose(chosen, recording, num_draws=1, seed=0)
            np.testing.assert_array_equal(diagnosis.data.outliers, expected)
            assert ("outliers" in names(diagnosis)) == bool(len(expected))


def test_outliers_of_other_activity_are_those_that_clipping_finds():
    activity = np.random.default_rng(2).standard_normal((20, 50, 4)) - 5.0
    activity[3, 4, 1], activity[5, 6, 2] = -50.0, 50.0
    mask = np.ones(activity.shape, dtype=bool)
    mask[0, :, 0] = False
    recording = lrp.Recording(activity, DT, mask=mask)
    data = lrp.diagnose(plain_model(1, nonlinearity="linear"), recording, num_draws=1, seed=0).data
    np.testing.assert_array_equal(data.outliers, [[3, 4, 1], [5, 6, 2]])
    assert len(data.outliers) == lrp.clip_outliers(recording)[1].num_clipped.sum()


def test_statistics_of_the_inputs_are_those_of_numpy():
    random = np.random.default_rng(0)
    inputs = np.zeros((8, 30, 4))
    inputs[:, :, 0] = random.standard_normal((8, 30))
    inputs[:, :, 1] = 3.0
    inputs[:, :, 2] = -2.0 * inputs[:, :, 0] + 0.01 * random.standard_normal((8, 30))
    inputs[:, 10:16, 3] = 1.0
    mask = np.ones((8, 30, 2), dtype=bool)
    mask[0, 20:] = False
    recording = lrp.Recording(random.standard_normal((8, 30, 2)), DT, inputs=inputs, mask=mask)
    found = lrp.diagnose(plain_model(1), recording, num_draws=1, seed=0).inputs
    seen = inputs[mask[:, :, 0]]
    np.testing.assert_allclose(found.mean, seen.mean(axis=0))
    np.testing.assert_allclose(found.sd, seen.std(axis=0))
    np.testing.assert_allclose([found.lowest, found.highest], [seen.min(axis=0), seen.max(axis=0)])
    np.testing.assert_allclose(found.share_on, [1.0, 1.0, 1.0, 48.0 / 230.0])
    assert found.constant == (1,)
    assert found.duplicates == ((0, 2),)


def test_statistics_of_a_network_are_those_of_a_simulation_by_hand():
    model, parameters, recording = small_network()
    draws = {name: value[None] for name, value in parameters.items()}
    found = describe_networks(model, draws, recording, 1000.0)
    x = {factor: currents(parameters, recording, factor * recording.inputs) for factor in (0.0, 1.0, 10.0)}
    rates = {
        factor: parameters["rate_scale"] * np.logaddexp(0.0, each) + parameters["baseline"]
        for factor, each in x.items()
    }
    groups = conditions_of(recording)
    signal, changed = (signal_of(each, recording.mask, groups) for each in (rates[1.0], rates[1.0] - rates[0.0]))
    np.testing.assert_allclose(found.signal, signal)
    assert found.levels == pytest.approx((signal.level, signal.level))
    assert found.level_without_inputs == pytest.approx(np.mean(rates[0.0]))
    assert found.level_of_tenfold_inputs == pytest.approx(np.mean(rates[10.0]))
    assert found.input_modulation == pytest.approx(changed.temporal_sd / signal.level)
    W = parameters["M"] @ parameters["K"].T / recording.num_neurons
    types = np.array(recording.cell_types)
    block = W[np.ix_(types == "I", types == "E")]
    np.testing.assert_allclose(found.weights["E -> I"], [block.min(), block.mean(), block.max()])
    for name, each in (("inputs", parameters["B"][types == "I"]), ("bias", parameters["b"][types == "I"])):
        np.testing.assert_allclose(found.weights[f"{name} -> I"], [each.min(), each.mean(), each.max()])
    pairs = ["E -> E", "E -> I", "I -> E", "I -> I"]
    assert list(found.weights) == [*pairs, "inputs -> E", "inputs -> I", "bias -> E", "bias -> I"]


@pytest.mark.parametrize("known", [False, True])
def test_the_spectral_radius_is_that_of_the_jacobian(known):
    W0 = 0.2 * np.random.default_rng(0).standard_normal((13, 13)) if known else np.zeros((13, 13))
    model, parameters, recording = small_network()
    if known:
        model = dataclasses.replace(model, background=lrp.FixedBackground(W0), priors=lrp.Priors(unit=1.0))
    draws = {name: value[None] for name, value in parameters.items()}
    with_inputs = model.simulated_currents(parameters, recording, seed=0)
    place = np.where(np.array(recording.cell_types) == "E", 0, 1)
    a = np.array([0.54, 0.72])[place]
    slope = 1.0 / (1.0 + np.exp(-with_inputs.mean(axis=(0, 1))))
    W = parameters["M"] @ parameters["K"].T / recording.num_neurons + W0
    jacobian = np.diag(1.0 - a) + a[:, None] * W * slope
    expected = np.max(np.abs(np.linalg.eigvals(jacobian)))
    assert describe_networks(model, draws, recording, 1000.0).spectral_radius == pytest.approx(expected)
    of_neurons = dataclasses.replace(model, time_constant=lrp.PerNeuron(parameters["time_constant"][place]))
    draws["time_constant"] = parameters["time_constant"][place][None]
    assert describe_networks(of_neurons, draws, recording, 1000.0).spectral_radius == pytest.approx(expected)


def test_medians_and_ranges_are_those_over_networks():
    model, parameters, recording = small_network()
    each = [parameters | {"b": parameters["b"] + shift} for shift in (0.0, 0.5, 2.0)]
    draws = {name: np.stack([one[name] for one in each]) for name in parameters}
    levels = [
        describe_networks(model, {name: value[None] for name, value in one.items()}, recording, 1000.0).signal.level
        for one in each
    ]
    found = describe_networks(model, draws, recording, 1000.0)
    assert found.signal.level == pytest.approx(levels[1])
    assert found.levels == pytest.approx((levels[0], levels[2]))
    assert found.num_networks == 3


def test_networks_that_run_away_leave_the_range_to_the_others():
    model, parameters, recording = small_network()
    excited = parameters | {"K": 1000.0 * np.abs(parameters["K"])}
    draws = {name: np.stack([parameters[name], parameters[name], excited[name]]) for name in parameters}
    level = describe_networks(model, {name: value[:1] for name, value in draws.items()}, recording, 1000.0).signal.level
    found = describe_networks(model, draws, recording, 1000.0)
    assert found.share_diverging == pytest.approx(1.0 / 3.0)
    assert found.levels == pytest.approx((level, level))
    wild = describe_networks(model, {name: value[2:] for name, value in draws.items()}, recording, 1000.0)
    assert wild.levels == (np.inf, np.inf)


# ------------------------------------------------------------------------------------------------------------ verdicts
@pytest.mark.parametrize("seed", range(4))
def test_a_network_on_its_own_data_has_no_defect(seed):
    truth = session(seed)
    assert names(lrp.diagnose(truth.model, truth.recording, seed=seed)) == []


@pytest.mark.parametrize("seed", range(4))
def test_networks_of_other_models_on_their_own_data_have_no_defect(seed):
    model = lrp.LowRankModel(2)
    recording = lrp.simulate_recording(model, num_neurons=20, noise_scale=0.1, seed=seed).recording
    assert names(lrp.diagnose(model, recording, seed=seed)) == []


def test_a_softplus_network_without_a_scale_is_low_and_flat():
    """Rates of 14 spikes/s, of a network whose own are of order 1: with counts, and with rates."""
    truth = session(0)
    without = dataclasses.replace(truth.model, observation=lrp.PoissonObservation(scale=1.0))
    of_rates = dataclasses.replace(
        truth.model, observation=lrp.GaussianObservation(of="rate"), priors=lrp.DaleLoadings(K=1.5, unit=1.0)
    )
    for model, recording in (
        (without, truth.recording),
        (of_rates, lrp.counts_to_rates(truth.recording)),
    ):
        diagnosis = lrp.diagnose(model, recording, seed=0)
        assert names(diagnosis) == ["scale mismatch", "flat output"]
        assert diagnosis.untrained.signal.level < 0.5 * diagnosis.data.mean
    default = lrp.diagnose(truth.model, truth.recording, seed=0)
    assert 0.5 < default.untrained.signal.level / default.data.mean < 2.0


def test_a_network_that_hardly_receives_its_inputs_is_weakly_driven():
    truth = session(0)
    faint = dataclasses.replace(truth.recording, inputs=0.01 * truth.recording.inputs)
    diagnosis = lrp.diagnose(truth.model, faint, seed=0)
    assert "weak input drive" in names(diagnosis)
    assert "scale mismatch" not in names(diagnosis)
    without = lrp.Recording(truth.recording.activity, DT, cell_types=truth.recording.cell_types)
    assert "weak input drive" not in names(lrp.diagnose(truth.model, without, seed=0))


def test_a_slow_network_is_flat():
    truth = session(0)
    slow = dataclasses.replace(truth.model, time_constant={"E": 20.0, "I": 20.0})
    assert "flat output" in names(lrp.diagnose(slow, truth.recording, seed=0))


def test_a_network_with_too_much_excitation_explodes():
    truth = session(0)
    wild = dataclasses.replace(truth.model, priors=lrp.DaleLoadings(K={"E": 12.0, "I": 1.0}))
    diagnosis = lrp.diagnose(wild, truth.recording, seed=0)
    assert names(diagnosis) == ["exploding loss"]
    assert diagnosis.untrained.share_diverging > 0.5


def test_outliers_are_named():
    truth = session(0, num_outliers=4)
    diagnosis = lrp.diagnose(truth.model, truth.recording, seed=0)
    assert names(diagnosis) == ["outliers"]
    np.testing.assert_array_equal(diagnosis.data.outliers, truth.outliers)
    clipped, _ = lrp.clip_outliers(truth.recording)
    assert names(lrp.diagnose(truth.model, clipped, seed=0)) == []


def test_the_standard_error_of_the_explained_share_is_its_scatter():
    """In 300 data sets of trials that differ in how well they are predicted."""
    shares, errors = [], []
    for seed in range(300):
        random = np.random.default_rng(seed)
        signal = 2.0 * np.exp(0.3 * random.standard_normal((25, 1, 1))) * random.standard_normal((25, 12, 2))
        noise = np.exp(0.3 * random.standard_normal((25, 1, 1))) * random.standard_normal(signal.shape)
        quality = FitQuality(lrp.Recording(signal + noise, DT), signal, np.ones(2), held_out=False)
        shares.append(quality.explained_variance)
        errors.append(_standard_error(quality))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(shares), rel=0.15)


@pytest.fixture(scope="module")
def trained() -> tuple[lrp.Posterior, lrp.Recording]:
    truth = session(0, num_trials=90)
    training, validation = truth.recording.split(0.3, seed=0)
    model = dataclasses.replace(truth.model, process_noise=None, rank=1)
    return lrp.fit(model, training, seed=0, progress=False), validation


def test_a_fit_of_enough_trials_has_no_defect(trained):
    posterior, validation = trained
    diagnosis = lrp.diagnose(posterior, validation=validation, seed=0)
    assert names(diagnosis) == []
    assert diagnosis.trained.signal.level == pytest.approx(diagnosis.data.signal.level, rel=0.05)
    # The recorded variance is known to four standard errors, its root to eight.
    assert diagnosis.trained.signal.temporal_sd == pytest.approx(diagnosis.data.signal.temporal_sd, rel=0.4)
    assert diagnosis.generalisation.fitted > diagnosis.generalisation.held_out - 0.02


def test_verdicts_are_about_the_trained_network(trained):
    """One that was trained to be flat, on a recording that is not."""
    posterior, _ = trained
    flat = dataclasses.replace(posterior, mode_coordinates=0.0 * posterior.mode_coordinates)
    assert {"flat output", "weak input drive"} <= set(names(lrp.diagnose(flat, seed=0)))


def test_a_fit_of_few_trials_with_many_inputs_is_overfit():
    random = np.random.default_rng(0)
    recording = lrp.Recording(random.standard_normal((30, 25, 6)), DT, inputs=random.standard_normal((30, 25, 12)))
    few, rest = recording.select(trials=slice(0, 5)), recording.select(trials=slice(5, 30))
    posterior = lrp.fit(plain_model(1), few, lrp.Laplace(mean="mode"), seed=0, progress=False)
    diagnosis = lrp.diagnose(posterior, validation=rest, seed=0)
    assert "overfit" in names(diagnosis)
    assert diagnosis.generalisation.held_out < 0.0 < diagnosis.generalisation.fitted


def test_the_table_shows_numbers_and_mends():
    truth = session(0, num_outliers=2, num_inputs=3)
    diagnosis = lrp.diagnose(truth.model, truth.recording, seed=0)
    text = repr(diagnosis)
    assert f"{diagnosis.data.signal.level:.3g}" in text
    assert f"{diagnosis.untrained.signal.level:.3g}" in text
    assert "weights E -> I" in text
    assert f"  {diagnosis.verdicts[0]}" in text.splitlines()
    assert "verdicts: none" in repr(lrp.diagnose(truth.model, session(0, num_inputs=3).recording, seed=0))


def test_columns_of_the_table_stay_apart_whatever_the_numbers():
    truth = session(0, num_trials=10)
    diagnosis = lrp.diagnose(truth.model, truth.recording, num_draws=1, seed=0)
    wide = diagnosis.untrained.weights | {"E -> E": (-1.23456e-5, 0.0, -1.23456e-15)}
    networks = dataclasses.replace(
        diagnosis.untrained, weights={name: WeightRange(*each) for name, each in wide.items()}
    )
    text = repr(dataclasses.replace(diagnosis, untrained=networks, trained=networks))
    (row,) = [line for line in text.splitlines() if "weights E -> E" in line]
    entry = "-1.23e-05 to -1.23e-15"
    assert row.endswith(f"  {entry}  {entry}")
    header = text.splitlines()[1]
    assert header.endswith("trained")
    assert len(header) == len(row)


@pytest.mark.usefixtures("single_precision")
def test_users_in_single_precision_see_the_same():
    truth = session(0, num_trials=10)
    found = lrp.diagnose(truth.model, truth.recording, num_draws=2, seed=0).untrained
    with jax.enable_x64(True):
        expected = lrp.diagnose(truth.model, truth.recording, num_draws=2, seed=0).untrained
    assert found.signal == expected.signal
    assert found.weights == expected.weights


def test_bad_arguments_are_named(trained):
    posterior, validation = trained
    truth = session(0)
    for arguments, options, words in (
        ((truth.recording,), {}, "fitted: expected LowRankModel"),
        ((truth.model,), {}, "recording: expected Recording"),
        ((truth.model, truth.recording), {"validation": validation}, "validation: expected None"),
        ((posterior, truth.recording.select(neurons=np.arange(5))), {}, "trials: expected num_neurons"),
        ((truth.model, truth.recording), {"num_draws": 0}, "num_draws: expected"),
        ((truth.model, truth.recording), {"seed": -1}, "seed: expected"),
    ):
        with pytest.raises(ValueError, match=words):
            lrp.diagnose(*arguments, **({"seed": 0} | options))
