"""Simulated trials beside recorded ones: against NumPy by hand, and standard errors against repetition."""

import dataclasses

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats

import lrposterior as lrp

DT, WIDTH = 0.02, 0.03
NUM_TRIALS, NUM_BINS, NUM_NEURONS = 40, 50, 6


def spikes(seed: int, num_draws: int = 1, gain_sd: float = 0.3, num_trials: int = NUM_TRIALS) -> np.ndarray:
    """Counts (draw, trial, time, neuron) at rates with a rhythm, and a gain that all neurons of a trial share."""
    random = np.random.default_rng(seed)
    phase = np.linspace(0.0, 2.0, NUM_NEURONS)
    rate = 2.0 + np.sin(np.arange(NUM_BINS)[:, None] * 2.0 * np.pi / NUM_BINS + phase)
    gain = np.exp(gain_sd * random.standard_normal((num_draws, num_trials, 1, 1)))
    return random.poisson(rate * gain).astype(float)


def smoothed(activity: np.ndarray) -> np.ndarray:
    return np.stack([lrp.smooth_activity(lrp.Recording(one, DT), WIDTH).activity for one in activity])


def compare(recorded: np.ndarray, simulated: np.ndarray, **options) -> lrp.TrialComparison:
    return lrp.compare_trials(lrp.Recording(recorded, DT), simulated, **({"width": WIDTH, "seed": 0} | options))


def test_statistics_are_those_of_numpy():
    recorded, simulated = spikes(0)[0], spikes(1, num_draws=2)
    found = compare(recorded, simulated)
    average, other = smoothed(recorded[None])[0].mean(axis=0), smoothed(simulated).mean(axis=(0, 1))
    by_neuron = [np.corrcoef(average[:, n], other[:, n])[0, 1] for n in range(NUM_NEURONS)]
    assert found["correlation"].value == pytest.approx(np.mean(by_neuron))
    assert found["mean"].value == pytest.approx(recorded.mean())
    assert found["mean simulated"].value == pytest.approx(simulated.mean())
    trials = smoothed(recorded[None])[0]
    centered = trials - trials.mean(axis=1, keepdims=True)
    signal = average.var(axis=0) - centered.var(axis=0, ddof=1).mean(axis=0) / NUM_TRIALS
    assert found["temporal sd"].value == pytest.approx(np.sqrt(signal.mean()))
    assert found["ceiling"].value == pytest.approx(np.mean(np.sqrt(signal / average.var(axis=0))))
    assert found["correlation over ceiling"].value == found["correlation"].value / found["ceiling"].value
    means = recorded.mean(axis=1)
    assert found["trial sd"].value == pytest.approx(np.sqrt(means.var(axis=0, ddof=1).mean()))
    above = np.triu_indices(NUM_NEURONS, 1)
    assert found["shared"].value == pytest.approx(np.corrcoef(means.T)[above].mean())
    covariance = np.mean([np.cov(draw.mean(axis=1).T) for draw in simulated], axis=0)
    agreement = np.corrcoef(np.cov(means.T)[above], covariance[above])[0, 1]
    assert found["shared agreement"].value == pytest.approx(agreement)
    apart = ~np.eye(NUM_TRIALS, dtype=bool)
    one, others = smoothed(recorded[None])[0].reshape(NUM_TRIALS, -1), smoothed(simulated).reshape(2, NUM_TRIALS, -1)
    distance = scipy.spatial.distance.cdist
    within = distance(one, one)[apart].mean()
    between = [2.0 * distance(one, each)[apart].mean() - distance(each, each)[apart].mean() for each in others]
    assert found["distance"].value == pytest.approx(np.mean(between) / within - 1.0)


def test_conditions_are_averaged_apart():
    """Two conditions with opposite courses: together their average is flat, apart it is theirs."""
    random = np.random.default_rng(0)
    course = np.sin(np.arange(NUM_BINS) / 5.0)[:, None] * np.ones(NUM_NEURONS)
    sign = np.repeat([1.0, -1.0], NUM_TRIALS // 2)[:, None, None]
    recorded = sign * course + 0.1 * random.standard_normal((NUM_TRIALS, NUM_BINS, NUM_NEURONS))
    labels = np.repeat(["up", "down"], NUM_TRIALS // 2).tolist()
    found = compare(recorded, (sign * course)[None], conditions=labels)
    assert found["correlation"].value > 0.99
    assert compare(recorded, (sign * course)[None])["correlation"].value < 0.5
    assert found["trial sd"].value < 0.1 < compare(10.0 * recorded, (sign * course)[None])["trial sd"].value


def test_a_perfect_model_reaches_the_ceiling():
    recorded, simulated = spikes(2)[0], spikes(3, num_draws=50)
    found = compare(recorded, simulated)
    assert found["ceiling"].value < 0.99
    assert abs(found["correlation"].value - found["ceiling"].value) < 3.0 * found["correlation"].standard_error
    assert abs(found["distance"].value) < 3.0 * found["distance"].standard_error
    assert found["shared"].value == pytest.approx(found["shared simulated"].value, abs=0.15)


def test_trials_that_vary_too_little_are_far():
    found = compare(spikes(4, gain_sd=0.6)[0], spikes(5, num_draws=5, gain_sd=0.0))
    assert found["distance"].value > 4.0 * found["distance"].standard_error
    lower, upper = found["trial sd simulated"].interval
    assert upper < found["trial sd"].interval[0]
    assert lower < found["trial sd simulated"].value < upper
    assert found["shared simulated"].value < 0.1 < found["shared"].value


@pytest.mark.parametrize("name", ["mean", "temporal sd", "trial sd", "shared", "bits per spike"])
def test_standard_errors_are_those_of_other_trials(name, repeated):
    """The mean standard error of 60 data sets beside the scatter of the statistic: the ratio of one to the other is
    known to 9%, and the bootstrap's own deficit with 40 trials is a few percent more."""
    values = [one[name].value for one in repeated]
    errors = [one[name].standard_error for one in repeated]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values, ddof=1), rel=0.3)


def test_the_standard_error_of_a_correlation_near_its_ceiling_is_too_wide_and_not_too_narrow(repeated):
    """1 - correlation is of second order in the noise there, and a resampled average has twice as much of it."""
    values = [one["correlation"].value for one in repeated]
    errors = [one["correlation"].standard_error for one in repeated]
    assert 0.8 < np.sqrt(np.mean(np.square(errors))) / np.std(values, ddof=1) < 3.0


def test_the_interval_of_the_correlation_over_its_ceiling_holds_1(repeated):
    """Expected counts are the truth: over 60 data sets the ratio is 1, and nine of ten intervals or more hold it."""
    ratios = [one["correlation over ceiling"] for one in repeated]
    assert np.mean([one.value for one in ratios]) == pytest.approx(1.0, abs=0.01)
    assert np.mean([one.interval[0] < 1.0 < one.interval[1] for one in ratios]) > 0.85


def test_without_a_ceiling_there_is_no_ratio():
    random = np.random.default_rng(0)
    flat = compare(np.ones((4, 5, 1)), random.standard_normal((1, 4, 5, 1)))
    assert flat["ceiling"].value == 0.0
    assert np.isnan(flat["correlation over ceiling"].value)


def test_few_trials_have_standard_errors_though_some_resamples_are_one_trial_four_times():
    found = compare(spikes(7, num_trials=4)[0], spikes(8, num_trials=4))
    assert all(np.isfinite(statistic.standard_error) for statistic in found.statistics.values())


@pytest.fixture(scope="module")
def repeated():
    rate = 2.0 + np.sin(np.arange(NUM_BINS)[:, None] * 2.0 * np.pi / NUM_BINS + np.linspace(0.0, 2.0, NUM_NEURONS))
    expected = np.broadcast_to(rate, (NUM_TRIALS, *rate.shape))
    return [compare(spikes(100 + seed)[0], expected[None], expected=expected) for seed in range(60)]


def test_bits_per_spike_are_the_gain_in_likelihood():
    counts = spikes(6)[0]
    expected = 2.0 + np.zeros_like(counts)
    expected[:, :10] = 3.0
    mean = np.broadcast_to(counts.mean(axis=(0, 1)), counts.shape)
    gained = scipy.stats.poisson.logpmf(counts, expected) - scipy.stats.poisson.logpmf(counts, mean)
    found = compare(counts, expected[None], expected=expected)["bits per spike"]
    assert found.value == pytest.approx(gained.sum() / np.log(2.0) / counts.sum())
    assert compare(counts, mean[None], expected=mean)["bits per spike"].value == pytest.approx(0.0, abs=1e-12)


def test_what_is_masked_says_nothing():
    recorded, simulated = spikes(7)[0], spikes(8, num_draws=2)
    mask = np.ones(recorded.shape, dtype=bool)
    mask[3], mask[:, :5, 1] = False, False
    found = []
    for fill in (0.0, 100.0):
        filled = lrp.Recording(np.where(mask, recorded, fill), DT, mask=mask)
        others = np.where(mask, simulated, -fill)
        found.append(lrp.compare_trials(filled, others, width=WIDTH, expected=np.where(mask, 2.0, 50.0 + fill), seed=0))
    for name, statistic in found[0].statistics.items():
        assert found[1][name].value == pytest.approx(statistic.value, rel=1e-12), name


def test_bad_arguments_are_named():
    recorded, simulated = lrp.Recording(spikes(0)[0], DT), spikes(1)
    for options, words in (
        ({"simulated": simulated[0]}, "simulated: expected"),
        ({"simulated": simulated[:, :5]}, "simulated: expected shape"),
        ({"conditions": ["a"] * 3}, "conditions: expected 40 labels"),
        ({"conditions": ["a"] * 38 + ["b"] * 2}, "conditions: expected at least 4 trials of each, got 2 of 'b'"),
        ({"expected": -np.ones(recorded.activity.shape)}, "expected: expected counts of at least 0"),
        ({"recorded": dataclasses.replace(recorded, activity=-recorded.activity)}, "recorded: expected counts"),
    ):
        arguments = {"recorded": recorded, "simulated": simulated, "width": WIDTH, "seed": 0} | options
        if "recorded" in options:
            arguments["expected"] = np.ones(recorded.activity.shape)
        with pytest.raises(ValueError, match=words):
            lrp.compare_trials(arguments.pop("recorded"), arguments.pop("simulated"), **arguments)
