"""Candidates: matched power, the promised patterns, and every bad input says what to do."""

import dataclasses
import math
import re

import numpy as np
import pytest

from lrposterior.perturbation.candidates import (
    Candidates,
    combine_candidates,
    ensemble_candidates,
    latent_candidates,
    pattern_candidates,
    single_neuron_candidates,
)
from lrposterior.recording import Recording

TRIALS, BINS, NEURONS, DT = 3, 40, 6, 0.005
CELL_TYPES = ("E", "E", "I", "E", "I", "E")


def make_recording(**changes):
    generator = np.random.default_rng(0)
    latents = np.cumsum(generator.standard_normal((TRIALS, BINS, 2)), axis=1)
    activity = latents @ generator.standard_normal((2, NEURONS)) + 3.0
    return Recording(**({"activity": activity, "dt": DT, "cell_types": CELL_TYPES} | changes))


def user_patterns(recording, **options):
    return pattern_candidates(recording, np.random.default_rng(1).standard_normal((5, NEURONS)), **options)


MAKERS = {
    "single neurons": single_neuron_candidates,
    "ensembles": lambda recording, **options: ensemble_candidates(
        recording, num_candidates=7, size=3, seed=0, **options
    ),
    "latents": lambda recording, **options: latent_candidates(recording, num_candidates=7, seed=0, **options),
    "patterns": user_patterns,
}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


# Laws of every maker


@every_maker
@pytest.mark.parametrize(("power", "onset", "duration"), [(1.0, None, None), (0.3, 0.05, 0.02), (40.0, 0.0, 0.2)])
def test_power_is_matched(make, power, onset, duration):
    candidates = make(make_recording(), power=power, onset=onset, duration=duration)
    np.testing.assert_allclose(candidates.power, power, rtol=1e-12)
    drive = candidates.patterns[:, None, :] * candidates.time_course[None, :, None]
    np.testing.assert_allclose((drive**2).sum(axis=(1, 2)) * DT, power, rtol=1e-12)
    assert f"{candidates.num_candidates} patterns" in repr(candidates)
    assert f"power {power:g} current² s" in repr(candidates)


@every_maker
def test_power_belongs_to_the_stimulus_and_not_to_the_bins(make):
    coarse, fine = make_recording(), make_recording(activity=np.repeat(make_recording().activity, 2, axis=1), dt=DT / 2)
    one, other = (make(recording, onset=0.05, duration=0.02) for recording in (coarse, fine))
    np.testing.assert_allclose(np.abs(one.patterns), np.abs(other.patterns), rtol=1e-9)
    np.testing.assert_array_equal(np.repeat(one.time_course, 2), other.time_course)


@every_maker
def test_time_course_is_a_box_over_whole_bins(make):
    recording = make_recording()
    default, chosen = make(recording), make(recording, onset=0.151, duration=0.0149)
    assert default.onset == BINS // 2
    assert default.time_course.sum() == BINS // 10
    assert chosen.onset == 30
    np.testing.assert_array_equal(np.flatnonzero(chosen.time_course), [30, 31, 32])
    assert set(chosen.time_course) == {0.0, 1.0}
    assert (chosen.num_bins, chosen.num_neurons, chosen.dt) == (BINS, NEURONS, DT)


@every_maker
@pytest.mark.parametrize("num_bins", [1, 2, 3, 9])
def test_short_trials_are_stimulated_for_a_bin(make, num_bins):
    candidates = make(make_recording(activity=make_recording().activity[:, :num_bins]))
    assert candidates.time_course.sum() == 1
    assert candidates.onset == num_bins // 2


@every_maker
def test_candidates_cannot_be_changed(make):
    candidates = make(make_recording())
    for array in (candidates.patterns, candidates.time_course):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        candidates.dt = 1.0


@every_maker
def test_selection_and_combination_undo_each_other(make):
    candidates = make(make_recording())
    parts = [candidates.select(slice(0, 2)), candidates.select(list(candidates.labels[2:]))]
    again = combine_candidates(*parts)
    np.testing.assert_array_equal(again.patterns, candidates.patterns)
    assert again.labels == candidates.labels
    assert again.time_course.tolist() == candidates.time_course.tolist()


@pytest.mark.parametrize("bins_on", range(1, 40))
def test_times_that_are_whole_bins_stay_whole(bins_on):
    recording = make_recording(activity=np.ones((1, 100, NEURONS)), dt=0.01)
    candidates = single_neuron_candidates(recording, onset=bins_on / 100, duration=0.01 * bins_on)
    assert candidates.onset == bins_on
    assert candidates.time_course.sum() == bins_on


# What each maker promises


def test_single_neurons_are_driven_alone():
    candidates = single_neuron_candidates(make_recording(), neurons=[4, 1])
    assert candidates.labels == ("neuron 4", "neuron 1")
    np.testing.assert_array_equal(candidates.patterns > 0, np.eye(NEURONS, dtype=bool)[[4, 1]])
    assert np.count_nonzero(candidates.patterns) == 2
    named = single_neuron_candidates(make_recording(neuron_labels=list("uvwxyz")), neurons=["z", "u"])
    assert named.labels == ("z", "u")
    assert named.patterns[0, 5] > 0
    assert single_neuron_candidates(make_recording()).num_candidates == NEURONS


def test_ensembles_have_their_size_and_differ():
    recording = make_recording()
    every = ensemble_candidates(recording, num_candidates=math.comb(NEURONS, 3), size=3, seed=0)
    assert len({tuple(pattern) for pattern in every.patterns > 0}) == math.comb(NEURONS, 3)
    assert ((every.patterns > 0).sum(axis=1) == 3).all()
    assert len(np.unique(every.patterns)) == 2
    excitatory = ensemble_candidates(recording, num_candidates=4, size=2, cell_type="E", seed=0)
    assert not excitatory.patterns[:, np.array(CELL_TYPES) == "I"].any()
    assert every.labels[3] == "ensemble 3"
    assert excitatory.labels[0] == "E ensemble 0"


@pytest.mark.parametrize("name", ["ensembles", "latents"])
def test_random_candidates_follow_their_seed(name):
    maker = {"ensembles": ensemble_candidates, "latents": latent_candidates}[name]
    options = {"num_candidates": 8} | ({"size": 3} if name == "ensembles" else {})
    one, same, other = (maker(make_recording(), **options, seed=seed).patterns for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_latents_lie_in_the_principal_subspace():
    recording = make_recording(activity=np.random.default_rng(3).standard_normal((5, 40, NEURONS)) * np.arange(1, 7))
    samples = recording.activity.reshape(-1, NEURONS)
    variances, axes = np.linalg.eigh(np.cov(samples.T))
    for num_components in (1, 2, 4):
        leading = axes[:, np.argsort(variances)[::-1][:num_components]]
        candidates = latent_candidates(recording, num_candidates=9, num_components=num_components, seed=0)
        inside = candidates.patterns @ leading @ leading.T
        np.testing.assert_allclose(inside, candidates.patterns, atol=1e-10)
        assert np.linalg.matrix_rank(candidates.patterns) == num_components
    assert candidates.labels[:2] == ("latent 0", "latent 1")


def test_latent_directions_are_uniform():
    recording = make_recording(activity=np.random.default_rng(3).standard_normal((5, 40, NEURONS)) * np.arange(1, 7))
    patterns = latent_candidates(recording, num_candidates=20_000, num_components=3, seed=0).patterns
    unit = patterns / np.linalg.norm(patterns, axis=1, keepdims=True)
    moments = np.linalg.eigvalsh(unit.T @ unit / len(unit))
    np.testing.assert_allclose(moments, [0, 0, 0, 1 / 3, 1 / 3, 1 / 3], atol=0.02)


def test_latents_do_not_see_masked_entries_nor_the_number_of_samples():
    full = make_recording()
    mask = np.random.default_rng(0).random(full.activity.shape) < 0.8
    spoilt = [np.where(mask, full.activity, value) for value in (np.nan, 1e6)]
    one, other = (latent_candidates(make_recording(activity=a, mask=mask), num_candidates=4, seed=0) for a in spoilt)
    np.testing.assert_array_equal(one.patterns, other.patterns)
    short = full.select(trials=0, time=slice(0, 4))  # fewer samples than neurons
    span = np.linalg.svd(short.activity[0] - short.activity[0].mean(axis=0))[2][:2]
    patterns = latent_candidates(short, num_candidates=4, seed=0).patterns
    np.testing.assert_allclose(patterns @ span.T @ span, patterns, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_only_relative_currents_of_user_patterns_matter(scale):
    patterns = np.array([[1, -2, 0, 0, 0, 3], [0, 0, 1, 0, 0, 0]])
    candidates = pattern_candidates(make_recording(), patterns * scale, power=2.0)
    np.testing.assert_allclose(candidates.power, 2.0)
    np.testing.assert_allclose(candidates.patterns[0] / candidates.patterns[0, 0], patterns[0], rtol=1e-12)
    assert candidates.labels == ("pattern 0", "pattern 1")
    assert pattern_candidates(make_recording(), patterns, labels=["a", "b"]).labels == ("a", "b")


def test_candidates_by_hand():
    candidates = Candidates([[3, 4], [0, 1]], [0, 0, 2, -1], dt=0.1)
    np.testing.assert_allclose(candidates.power, [25 * 5 * 0.1, 5 * 0.1])
    assert candidates.onset == 2
    assert candidates.labels == ("candidate 0", "candidate 1")
    assert Candidates([[1.0]], [1.0], ["poke"], dt=0.1).labels == ("poke",)
    assert repr(candidates) == "Candidates(2 patterns on 2 neurons, from 0.2 s, power 0.5 to 12.5 current² s)"


def test_different_kinds_combine():
    recording = make_recording()
    sets = [make(recording) for make in MAKERS.values()]
    joined = combine_candidates(*sets)
    assert joined.num_candidates == sum(each.num_candidates for each in sets)
    np.testing.assert_allclose(joined.power, 1.0)
    np.testing.assert_array_equal(joined.select("latent 2").patterns[0], sets[2].patterns[2])


# Bad inputs: a call, and what the error says


def candidates(**changes):
    return Candidates(**({"patterns": np.ones((2, 3)), "time_course": [0, 1], "dt": 0.01} | changes))


def ensembles(**changes):
    recording = changes.pop("recording", make_recording())
    return ensemble_candidates(recording, **({"num_candidates": 2, "size": 2, "seed": 0} | changes))


def latents(**changes):
    recording = changes.pop("recording", make_recording())
    return latent_candidates(recording, **({"num_candidates": 2, "seed": 0} | changes))


def single(**options):
    return single_neuron_candidates(make_recording(), **options)


def patterns(value, **options):
    return pattern_candidates(make_recording(), value, **options)


BAD_CALLS = {
    "patterns nan": (
        lambda: candidates(patterns=[[1.0, np.nan]]),
        "patterns: expected finite numbers, got 1 of 2 entries NaN or infinite, the first at (0, 1); write 0",
    ),
    "patterns of zeros": (
        lambda: candidates(patterns=[[1.0, 0], [0, 0]]),
        "patterns: expected a current in every pattern, got zeros only in pattern 1; leave it out: it has no power",
    ),
    "patterns in one axis": (
        lambda: candidates(patterns=[1.0, 2.0]),
        "patterns: expected an array of real numbers with axes (candidate, neuron), got shape (2,); give it 2 axes",
    ),
    "no pattern": (
        lambda: candidates(patterns=np.ones((0, 3))),
        "got shape (0, 3); the candidate axis must not be empty",
    ),
    "patterns as text": (lambda: candidates(patterns=[["a"]]), "patterns: expected an array of real numbers"),
    "time course of zeros": (
        lambda: candidates(time_course=np.zeros(4)),
        "time_course: expected a bin that is not 0, got zeros only; set the bins of the stimulation",
    ),
    "time course nan": (
        lambda: candidates(time_course=[1, np.nan]),
        "time_course: expected finite numbers, got 1 of 2 entries NaN or infinite, the first at (1,); write 0",
    ),
    "time course in two axes": (
        lambda: candidates(time_course=np.ones((2, 2))),
        "time_course: expected an array of real numbers with axes (time), got shape (2, 2)",
    ),
    "empty time course": (lambda: candidates(time_course=[]), "got shape (0,); the time axis must not be empty"),
    "dt": (lambda: candidates(dt=0.0), "dt: expected one finite number > 0 (in s), got 0.0"),
    "too few labels": (
        lambda: candidates(labels=["a"]),
        "labels: expected 2 strings, one per candidate, got 1; give every candidate its label",
    ),
    "labels twice": (
        lambda: candidates(labels=["a", "a"]),
        "labels: expected a different label for every candidate, got 'a' 2 times; number them",
    ),
    "selection out of range": (
        lambda: candidates().select([0, 2]),
        "indices: expected indices from 0 to 1 of 2 candidates, got 2",
    ),
    "unknown candidate": (
        lambda: candidates().select("candidate 2"),
        "indices: expected labels of candidates, got 'candidate 2'; did you mean 'candidate ",
    ),
    "power zero": (lambda: single(power=0), "power: expected one finite number > 0 (in current² s), got 0; give power"),
    "power infinite": (lambda: single(power=np.inf), "power: expected one finite number > 0 (in current² s), got inf"),
    "power per candidate": (lambda: single(power=[1.0, 2.0]), "power: expected one finite number > 0 (in current² s)"),
    "onset negative": (lambda: single(onset=-0.1), "onset: expected one finite number >= 0 (in s), got -0.1"),
    "onset after the end": (
        lambda: single(onset=0.2),
        "onset: expected a time before the trial ends at 0.2 s, got 0.2 s; start earlier; times count from the start",
    ),
    "onset in bins": (
        lambda: single(onset=1e300),
        "onset: expected a time before the trial ends at 0.2 s, got 1e+300 s",
    ),
    "duration zero": (lambda: single(duration=0.0), "duration: expected one finite number > 0 (in s), got 0.0"),
    "duration too long": (
        lambda: single(onset=0.15, duration=0.1),
        "duration: expected at most 0.05 s, which remain of the trial after the onset at 0.15 s, got 0.1 s;",
    ),
    "duration without end": (lambda: single(duration=1e300), "duration: expected at most 0.1 s, which remain"),
    "not a recording": (
        lambda: single_neuron_candidates(np.ones((2, 3, 4))),
        "recording: expected Recording, got ndarray; pass the Recording that the model was fitted to",
    ),
    "neuron out of range": (lambda: single(neurons=6), "neurons: expected indices from 0 to 5 of 6 neurons, got 6"),
    "neuron without label": (
        lambda: single(neurons="n1"),
        "neurons: expected indices, since the neurons have no labels, got the label 'n1'; give neuron_labels first",
    ),
    "ensemble too large": (
        lambda: ensembles(size=7),
        "size: expected an integer from 1 to 6, got 7; there are 6 neurons",
    ),
    "ensemble of a type too large": (
        lambda: ensembles(size=3, cell_type="I"),
        "size: expected an integer from 1 to 2, got 3; there are 2 neurons of type 'I'",
    ),
    "ensemble of none": (lambda: ensembles(size=0), "size: expected an integer from 1 to 6, got 0"),
    "half a neuron": (lambda: ensembles(size=2.5), "size: expected an integer from 1 to 6, got 2.5"),
    "too many ensembles": (
        lambda: ensembles(num_candidates=16),
        "num_candidates: expected an integer from 1 to 15, got 16; there are 15 different ensembles of 2",
    ),
    "unknown cell type": (lambda: ensembles(cell_type="e"), "cell_type: expected one of 'E', 'I', got 'e'; choose one"),
    "no cell types": (
        lambda: ensembles(cell_type="E", recording=make_recording(cell_types=None)),
        "cell_type: expected None, since the recording has no cell types, got 'E'; give cell_types to the Recording",
    ),
    "seed": (lambda: ensembles(seed=None), "seed: expected an integer >= 0, got None"),
    "no latent": (lambda: latents(num_candidates=0), "num_candidates: expected an integer >= 1, got 0"),
    "more components than neurons": (
        lambda: latents(num_components=7),
        "num_components: expected an integer from 1 to 6, got 7; there are 6 neurons",
    ),
    "more components than the activity has": (
        lambda: latents(num_components=3),
        "num_components: expected at most 2, the components in which the activity varies, got 3; ask for fewer",
    ),
    "silent recording": (
        lambda: latents(recording=make_recording(activity=np.zeros((2, 9, 6)))),
        "num_components: expected at most 0, the components in which the activity varies, got 2",
    ),
    "patterns of other neurons": (
        lambda: patterns(np.ones((2, 5))),
        "patterns: expected shape (candidate=any, neuron=6), got (2, 5); give one current per neuron of the recording",
    ),
    "user pattern of zeros": (lambda: patterns(np.zeros((1, 6))), "patterns: expected a current in every pattern"),
    "user labels": (
        lambda: patterns(np.ones((1, 6)), labels="a"),
        "labels: expected 1 strings, one per candidate, got 'a'",
    ),
    "nothing to combine": (
        lambda: combine_candidates(),
        "candidates: expected at least one set of candidates, got none; pass them one by one",
    ),
    "a list to combine": (
        lambda: combine_candidates([candidates()]),
        "candidates: expected Candidates, got list; pass the sets one by one, or as *sets",
    ),
    "other neurons": (
        lambda: combine_candidates(candidates(), candidates(patterns=[[1.0]])),
        "candidates: expected sets for the same neurons, got 3 and 1; make them from one recording",
    ),
    "another time course": (
        lambda: combine_candidates(single(), single(onset=0.0)),
        "candidates: expected sets with the same time course and dt, got different ones; make them with the same onset",
    ),
    "another dt": (
        lambda: combine_candidates(candidates(), candidates(dt=0.02)),
        "candidates: expected sets with the same time course and dt, got different ones",
    ),
    "the same labels": (
        lambda: combine_candidates(candidates(), candidates()),
        "candidates: expected a different label for every candidate, got 'candidate 0' twice; rename one set by",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_inputs_are_refused(case):
    call, message = BAD_CALLS[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_the_mend_for_equal_labels_works():
    renamed = dataclasses.replace(candidates(), labels=["a", "b"])
    assert combine_candidates(candidates(), renamed).labels == ("candidate 0", "candidate 1", "a", "b")


def test_single_neurons_of_a_large_network_are_chosen(monkeypatch):
    monkeypatch.setattr("lrposterior.perturbation.candidates.MAX_GIGABYTES", 1e-7)
    large = Recording(np.zeros((1, 5, 20)), 0.02)
    with pytest.raises(ValueError, match=r"^neurons: expected an array of at most .*; choose some of them by neurons="):
        single_neuron_candidates(large)
