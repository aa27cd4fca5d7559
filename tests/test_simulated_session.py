"""The simulated session: what its documentation says of it, of the network and of its trials."""

import dataclasses

import numpy as np
import pytest

import lrposterior as lrp

DT = 0.025
HIGH = 700.0 * DT  # counts in a bin
SMALL = {"num_trials": 40, "num_bins": 60, "num_excitatory": 9, "num_inhibitory": 4, "num_inputs": 5}


@pytest.fixture(scope="module", params=[0, 1, 2])
def session(request) -> lrp.Simulation:
    return lrp.simulate_session(num_trials=120, seed=request.param)


def integration_constants(simulation: lrp.Simulation) -> np.ndarray:
    """(neuron,) a, from the model's time constants."""
    constants = simulation.model.time_constant
    return np.array([DT / constants[cell_type] for cell_type in simulation.recording.cell_types])


@pytest.mark.long
@pytest.mark.slow
def test_the_default_session_has_the_sizes_of_a_real_export():
    session = lrp.simulate_session(seed=0)
    recording = session.recording
    assert recording.activity.shape == (1043, 219, 54)
    assert recording.activity.mean() / DT == pytest.approx(13.6, rel=0.1)
    np.testing.assert_array_equal(np.argwhere(recording.activity > HIGH), session.outliers)
    assert recording.num_inputs == 14
    assert recording.cell_types == ("E",) * 41 + ("I",) * 13


def test_mean_rates_are_those_of_the_documentation(session):
    rates = session.recording.activity.mean(axis=(0, 1)) / DT
    assert rates.mean() == pytest.approx(13.6, rel=0.1)
    # The standard deviation over 54 neurons is known to a tenth of itself.
    assert np.std(np.log(rates), ddof=1) == pytest.approx(0.6, rel=0.4)


def test_the_connectivity_obeys_dales_law_and_the_integration_constants_are_those_of_the_types(session):
    types = np.array(session.recording.cell_types)
    assert np.all(session.connectivity[:, types == "E"] >= 0.0)
    assert np.all(session.connectivity[:, types == "I"] <= 0.0)
    assert np.linalg.matrix_rank(session.connectivity) == 3
    np.testing.assert_allclose(integration_constants(session), np.where(types == "E", 0.54, 0.72))
    for chosen in (types == "E", types == "I"):
        part = np.where(chosen, session.connectivity, 0.0)
        assert np.max(np.abs(np.linalg.eigvals(part))) == pytest.approx(1.5)


def test_the_network_is_stable_about_its_mean_state_and_no_linear_filter(session):
    current = np.log(np.expm1(session.rates)).mean(axis=(0, 1))
    a, slope = integration_constants(session), 1.0 / (1.0 + np.exp(-current))
    jacobian = np.diag(1.0 - a) + a[:, None] * session.connectivity * slope
    largest = np.max(np.abs(np.linalg.eigvals(jacobian)))
    assert 1.0 - a.min() + 0.05 < largest < 0.9
    assert np.all((slope > 0.2) & (slope < 0.98))


def test_currents_follow_the_equation_of_the_documentation():
    """What is left of x[t+1] beyond it is M eps[t], with the covariance of eps."""
    session = lrp.simulate_session(**SMALL, seed=0)
    M, K, B, b = (session.parameters[name] for name in ("M", "K", "B", "b"))
    x, a = np.log(np.expm1(session.rates)), integration_constants(session)
    drive = session.rates @ K @ M.T / len(M) + session.recording.inputs @ B.T + b
    noise = x[:, 1:] - ((1.0 - a) * x + a * drive)[:, :-1]
    eps = noise.reshape(-1, len(M)) @ np.linalg.pinv(M).T
    np.testing.assert_allclose(eps @ M.T, noise.reshape(-1, len(M)), atol=1e-9)
    # 2,360 samples: standard errors of 1.5% of a standard deviation, and of 0.02 of a correlation.
    np.testing.assert_allclose(eps.std(axis=0), 0.25, rtol=0.06)
    np.testing.assert_allclose(np.corrcoef(eps.T), np.eye(3), atol=0.1)


def test_artefacts_are_where_they_are_said_to_be_and_nothing_else_is_as_large(session):
    activity = session.recording.activity
    assert session.outliers.shape == (5, 3)
    np.testing.assert_array_equal(np.argwhere(activity > HIGH), session.outliers)
    assert np.all(activity[tuple(session.outliers.T)] <= 1200.0 * DT)


def test_artefacts_change_nothing_else():
    with_artefacts, without = (lrp.simulate_session(**SMALL, num_outliers=number, seed=0) for number in (3, 0))
    changed = np.argwhere(with_artefacts.recording.activity != without.recording.activity)
    np.testing.assert_array_equal(changed, with_artefacts.outliers)
    assert without.outliers.shape == (0, 3)


def test_trials_vary_more_than_counts_at_a_fixed_rate(session):
    """Sums of Poisson counts at one course of the rate have a variance as large as their mean."""
    sums = session.recording.activity.sum(axis=1)
    conditions = np.array(session.recording.trial_labels)
    within = np.mean([sums[conditions == each].var(axis=0, ddof=1) for each in np.unique(conditions)], axis=0)
    assert np.mean(within / sums.mean(axis=0)) > 1.5


def test_process_noise_alone_makes_trials_vary_together():
    """Spikes of the population in a bin, over trials with the same inputs: variance over mean."""
    session = lrp.simulate_session(**SMALL, seed=0)
    repeated = np.repeat(session.recording.inputs[:1], SMALL["num_trials"], axis=0)
    same = dataclasses.replace(session.recording, inputs=repeated)
    ratios = []
    for variance in (0.25**2, 1e-12):
        parameters = session.parameters | {"process_noise": variance * np.eye(3)}
        counts = session.model.simulate(parameters, same, seed=1).activity.sum(axis=2)
        ratios.append(np.mean(counts.var(axis=0, ddof=1)) / np.mean(counts))
    # Of independent Poisson counts, from 60 bins of 40 trials: 1 with a standard error of 0.03.
    assert ratios[1] == pytest.approx(1.0, abs=0.12)
    assert ratios[0] > 1.2


def test_averages_follow_the_task(session):
    """The variance over time of the averages beside that of what counts leave in them, and when they move."""
    recording = session.recording
    conditions = np.array(recording.trial_labels)
    signal, noise = [], []
    for condition in np.unique(conditions):
        trials = recording.activity[conditions == condition]
        noise.append(trials.var(axis=0, ddof=1).mean(axis=0) / len(trials))
        signal.append(trials.mean(axis=0).var(axis=0) - noise[-1])
    ratio = np.sum(signal, axis=0) / np.sum(noise, axis=0)
    assert np.median(ratio) > 0.1
    difference = recording.activity[np.isin(conditions, ["left A", "left B"])].mean(axis=0) - recording.activity[
        np.isin(conditions, ["right A", "right B"])
    ].mean(axis=0)
    size = np.mean(difference**2, axis=1)
    before, during = size[: int(0.2 * 219)], size[int(0.22 * 219) : int(0.32 * 219)]
    assert during.mean() > 1.2 * before.mean()


def test_inputs_are_those_of_the_task():
    inputs = lrp.simulate_session(**(SMALL | {"num_inputs": 16}), seed=1).recording.inputs
    stimulus, choice, outcome = (inputs[:, :, pair].sum(axis=1) > 0.0 for pair in ([0, 1], [4, 5], [6, 7]))
    for pair in (stimulus, choice, outcome):
        assert np.all(pair.sum(axis=1) == 1)
    correct = choice[:, 1] == stimulus[:, 1]
    np.testing.assert_array_equal(outcome[:, 0], correct)
    previous = inputs[:, 0, 9] == 1.0
    np.testing.assert_array_equal(previous[1:], choice[:-1, 1])
    np.testing.assert_array_equal(inputs[1:, 0, 10] == 1.0, correct[:-1])
    for lasting in (2, 9, 10, 11):
        assert np.all(np.ptp(inputs[:, :, lasting], axis=1) == 0.0)
    wandering = inputs[:, :, 12:]
    steps = np.mean(wandering[:, 1:] * wandering[:, :-1]) / np.mean(wandering**2)
    assert steps == pytest.approx(np.exp(-DT / 1.5), abs=0.02)


def test_labels_say_stimulus_and_context():
    session = lrp.simulate_session(**SMALL, seed=2)
    inputs, labels = session.recording.inputs, np.array(session.recording.trial_labels)
    right, context = inputs[:, :, 1].sum(axis=1) > 0.0, inputs[:, 0, 2] == 1.0
    expected = [
        f"{'right' if side else 'left'} {'B' if rule else 'A'}" for side, rule in zip(right, context, strict=True)
    ]
    np.testing.assert_array_equal(labels, expected)


def test_the_network_is_that_of_the_seed_whatever_the_number_of_trials():
    one, other = (lrp.simulate_session(**(SMALL | {"num_trials": number}), seed=3) for number in (5, 30))
    assert set(one.parameters) == set(other.parameters)
    for name, value in one.parameters.items():
        np.testing.assert_array_equal(value, other.parameters[name])
    another = lrp.simulate_session(**SMALL, seed=4)
    assert not np.allclose(one.parameters["M"], another.parameters["M"])


def test_the_model_and_the_parameters_make_more_trials_of_the_network():
    session = lrp.simulate_session(**SMALL, num_outliers=0, seed=0)
    again = session.model.simulate(session.parameters, session.recording, seed=0)
    np.testing.assert_array_equal(again.activity, session.recording.activity)
    expected = DT * (session.rates * session.parameters["rate_scale"] + session.parameters["baseline"])
    residual = (session.recording.activity - expected) / np.sqrt(expected)
    # Of 31,200 counts, whose standardised squares have a variance of 2 + 1 / mean, about 5 here.
    assert np.mean(residual**2) == pytest.approx(1.0, abs=0.06)


def test_what_is_out_of_range_is_named():
    for name, value in (("num_trials", 1), ("num_inhibitory", 0), ("num_inputs", 0), ("num_outliers", -1)):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            lrp.simulate_session(**(SMALL | {name: value}), seed=0)
