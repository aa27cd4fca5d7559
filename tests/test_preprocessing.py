"""From spike times, counts and fluorescence to a recording."""

from types import SimpleNamespace

import numpy as np
import pytest

import lrposterior as lrp


def test_counts_are_those_of_a_histogram():
    random = np.random.default_rng(0)
    trains = [random.uniform(0.0, 10.0, size) for size in (200, 0, 57)]
    onsets = np.array([0.5, 3.25, 7.0])
    recording = lrp.bin_spikes(trains, 0.125, duration=2.0, onsets=onsets)
    assert recording.activity.shape == (3, 16, 3)
    for trial, onset in enumerate(onsets):
        for neuron, times in enumerate(trains):
            inside = times[(times >= onset) & (times < onset + 2.0)]
            expected = np.bincount(((inside - onset) // 0.125).astype(int), minlength=16)
            np.testing.assert_array_equal(recording.activity[trial, :, neuron], expected)


def test_a_spike_on_an_edge_belongs_to_the_bin_that_begins_there():
    recording = lrp.bin_spikes([[0.0, 0.25, 0.5]], 0.25, duration=0.5)
    np.testing.assert_array_equal(recording.activity[0, :, 0], [1, 1])


def test_labels_and_other_objects():
    group = {7: SimpleNamespace(t=np.array([0.3, 0.1])), "b": [0.25]}
    recording = lrp.bin_spikes(group, 0.2, duration=0.4, cell_types=["E", "I"])
    assert recording.neuron_labels == ("7", "b")
    assert recording.cell_types == ("E", "I")
    np.testing.assert_array_equal(recording.activity[0], [[1, 0], [1, 1]])


def test_shorter_trials_are_masked_behind_their_end():
    recording = lrp.bin_spikes([[0.05, 1.05, 1.25]], 0.1, duration=[0.3, 0.1], onsets=[0.0, 1.0])
    np.testing.assert_array_equal(recording.mask[:, :, 0], [[True, True, True], [True, False, False]])


def test_trials_of_different_lengths_are_those_of_single_ones():
    trains, onsets, lengths = [[0.05, 1.05, 1.25], [0.15]], [0.0, 1.0], [0.3, 0.1]
    together = lrp.bin_spikes(trains, 0.1, duration=lengths, onsets=onsets)
    alone = [
        lrp.bin_spikes(trains, 0.1, duration=length, onsets=onset).activity[0]
        for length, onset in zip(lengths, onsets, strict=True)
    ]
    ragged = lrp.Recording.from_trials(alone, 0.1)
    np.testing.assert_array_equal(ragged.mask, together.mask)
    np.testing.assert_array_equal(ragged.activity[ragged.mask], together.activity[together.mask])
    combined = lrp.combine_recordings(*(lrp.Recording(one, 0.1) for one in alone))
    np.testing.assert_array_equal(combined.mask, together.mask)
    np.testing.assert_array_equal(combined.activity, ragged.activity)


def test_bins_of_a_duration_do_not_hang_on_the_last_digit():
    assert lrp.bin_spikes([[0.1]], 0.1, duration=0.3).num_bins == 3
    assert lrp.bin_spikes([[0.1]], 0.01, duration=1.0).num_bins == 100


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"spike_times": []}, "spike_times: expected one array of times"),
        ({"spike_times": [[0.1, np.nan]]}, r"spike_times\[0\]: expected finite"),
        ({"duration": 0.05}, "duration: expected at least a bin of 0.1 s"),
        ({"duration": [1.0, 2.0]}, "duration: expected a number or one for each of 1 trials"),
        ({"dt": 0.0}, "dt: expected"),
    ],
)
def test_bad_spikes_are_named(change, text):
    arguments = {"spike_times": [[0.1]], "dt": 0.1, "duration": 1.0} | change
    with pytest.raises(ValueError, match=text):
        lrp.bin_spikes(arguments.pop("spike_times"), arguments.pop("dt"), **arguments)


def test_rates_are_counts_over_the_bin():
    counts = lrp.bin_spikes([[0.01, 0.02, 0.13]], 0.05, duration=0.2)
    np.testing.assert_allclose(lrp.counts_to_rates(counts).activity[0, :, 0], [40.0, 0.0, 20.0, 0.0])


def test_smoothing_is_the_sum_over_observed_bins():
    random = np.random.default_rng(1)
    mask = random.random((2, 30, 3)) < 0.7
    recording = lrp.Recording(random.standard_normal((2, 30, 3)), 0.01, mask=mask)
    smoothed = lrp.smooth_activity(recording, 0.025)
    apart = np.subtract.outer(np.arange(30), np.arange(30))
    kernel = np.where(np.abs(apart) <= 10, np.exp(-((apart * 0.01) ** 2) / (2.0 * 0.025**2)), 0.0)
    weighted = np.einsum("ts,bsn->btn", kernel, mask * recording.activity)
    expected = weighted / np.einsum("ts,bsn->btn", kernel, mask)
    np.testing.assert_allclose(smoothed.activity[mask], expected[mask], rtol=1e-10)
    np.testing.assert_array_equal(smoothed.mask, mask)


def test_smoothing_leaves_a_constant_as_it_is():
    recording = lrp.Recording(np.full((1, 20, 2), 3.5), 0.01)
    np.testing.assert_allclose(lrp.smooth_activity(recording, 0.03).activity, 3.5)


def test_variance_of_counts_is_near_one_whatever_their_mean():
    """20,000 Poisson counts of each mean: their variance is known to 1%; that is within 2% of 1 from a mean of 4 on."""
    counts = np.random.default_rng(2).poisson([4.0, 10.0, 40.0], (1, 20_000, 3))
    stabilised = lrp.stabilise_variance(lrp.Recording(counts, 0.02))
    np.testing.assert_allclose(stabilised.activity.var(axis=(0, 1)), 1.0, atol=0.05)
    with pytest.raises(ValueError, match="recording: expected counts, which are not negative, got -1"):
        lrp.stabilise_variance(lrp.Recording([[-1.0], [2.0]], 0.02))


def test_outliers_alone_are_clipped_and_reported():
    random = np.random.default_rng(3)
    activity = random.gamma(2.0, 5.0, (4, 500, 3))
    clean = lrp.Recording(activity, 0.02)
    unchanged, nothing = lrp.clip_outliers(clean)
    np.testing.assert_array_equal(unchanged.activity, activity)
    assert str(nothing) == "0 of 6000 entries clipped, in 0 neurons"
    spoilt = activity.copy()
    spoilt[1, [7, 9], 2] = 900.0
    mask = np.ones(spoilt.shape, dtype=bool)
    mask[0, 0, 1] = False
    spoilt[0, 0, 1] = 1e9
    clipped, report = lrp.clip_outliers(lrp.Recording(spoilt, 0.02, mask=mask, neuron_labels=["a", "b", "c"]))
    np.testing.assert_array_equal(report.num_clipped, [0, 0, 2])
    quantile, median = np.percentile(spoilt[:, :, 2], [99.9, 50.0])
    assert report.upper[2] == pytest.approx(quantile + (quantile - median))
    np.testing.assert_allclose(clipped.activity[1, [7, 9], 2], report.upper[2])
    assert report.largest[2] == pytest.approx(900.0 - report.upper[2])
    np.testing.assert_array_equal(clipped.activity[mask & (spoilt < 900.0)], spoilt[mask & (spoilt < 900.0)])
    assert "c: 2 beyond" in str(report)
    assert "2 of 5999 entries clipped, in 1 neurons" in str(report)


def test_a_neuron_that_hardly_ever_fires_keeps_its_spikes():
    counts = np.zeros((1, 5000, 1))
    counts[0, [10, 2000], 0] = 1.0
    for margin in (0.0, 1.0):
        clipped, report = lrp.clip_outliers(lrp.Recording(counts, 0.02), margin=margin)
        np.testing.assert_array_equal(clipped.activity, counts)
        assert (report.num_clipped[0], report.upper[0]) == (0, np.inf)


def test_clipped_counts_are_counts():
    counts = np.random.default_rng(4).poisson(0.7, (20, 300, 4)).astype(float)
    counts[3, 5] = 40.0
    clipped, report = lrp.clip_outliers(lrp.Recording(counts, 0.02), percentile=99.7, margin=0.4)
    quantile, median = np.percentile(counts, [99.7, 50.0], axis=(0, 1))
    np.testing.assert_array_equal(report.upper, np.ceil(quantile + 0.4 * (quantile - median)))
    np.testing.assert_array_equal(clipped.activity[3, 5], report.upper)
    lrp.LowRankModel(1, observation=lrp.PoissonObservation()).for_recording(clipped)


def test_without_a_margin_the_percentiles_are_the_limits():
    values = np.arange(101.0)[None, :, None]
    clipped, report = lrp.clip_outliers(lrp.Recording(values, 0.02), percentile=90.0, margin=0.0)
    assert (clipped.activity.min(), clipped.activity.max(), report.num_clipped[0]) == (10.0, 90.0, 20)
    with pytest.raises(ValueError, match="percentile: expected more than 50 and at most 100, got 10"):
        lrp.clip_outliers(lrp.Recording(values, 0.02), percentile=10.0)


def test_deconvolution_finds_the_spikes():
    """Noise of a twentieth of a spike: 9/10 of what is found is within a bin of a spike, and half of each is found."""
    random = np.random.default_rng(4)
    decay, dt, num_bins = 0.5, 1.0 / 30.0, 600
    spikes = (random.random((num_bins, 2)) < 0.05).astype(float)
    calcium = np.zeros_like(spikes)
    for time in range(num_bins):
        calcium[time] = (np.exp(-dt / decay) * calcium[time - 1] if time else 0.0) + spikes[time]
    activity = (calcium + 0.3 + 0.05 * random.standard_normal(calcium.shape))[None]
    mask = np.ones(activity.shape, dtype=bool)
    mask[0, 590:, 1] = False
    found = lrp.deconvolve_calcium(lrp.Recording(activity, dt, mask=mask), decay_time=decay).activity[0]
    for neuron in range(2):
        near = np.convolve(spikes[:, neuron], np.ones(3), mode="same") > 0.0
        assert found[near, neuron].sum() > 0.9 * found[:590, neuron].sum()
        around = np.convolve(found[:590, neuron], np.ones(3), mode="same")
        assert np.all(around[spikes[:590, neuron] > 0.0] > 0.5)
    mask[0, 100, 0] = False
    with pytest.raises(ValueError, match="neuron 0 in trial 0"):
        lrp.deconvolve_calcium(lrp.Recording(activity, dt, mask=mask))
