"""Scales that were fixed at a wrong value are found from stimulation trials; right ones stay where they are."""

import dataclasses

import numpy as np
import pytest
from plain import plain_model
from stimulated import stimulated

import lrposterior as lrp
from lrposterior.background import FixedBackground
from lrposterior.inference.recalibrate import with_free_scales
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.responses import response_draws

GAIN, NUM_NEURONS = 0.5, 24
TRUTH = lrp.LowRankModel(rank=2, background=lrp.RandomBulk(gain=GAIN))


def coverage(posterior, simulation):
    """Of 90% intervals of the response to stimulation of triples of neurons that was never applied."""
    recording, random = posterior.recording, np.random.default_rng(0)
    patterns = np.zeros((20, NUM_NEURONS))
    for pattern in patterns:
        pattern[random.choice(NUM_NEURONS, 3, replace=False)] = 1.0
    candidates = lrp.pattern_candidates(recording, patterns, power=0.6)
    inputs = np.zeros((1, recording.num_bins, recording.num_inputs))
    draws = lrp.predict_responses(posterior, candidates, inputs=inputs, num_draws=400, seed=1)
    parameters = {name: value[None] for name, value in simulation.parameters.items() if name != "W0"}
    model = dataclasses.replace(TRUTH, background=FixedBackground(simulation.parameters["W0"])).for_recording(recording)
    experiment = make_experiment(posterior, candidates, inputs, None)
    true = response_draws(model, parameters, experiment, "current", progress=False)[0]
    lower, upper = np.quantile(draws, [0.05, 0.95], axis=0)
    moved = true != 0.0
    return np.mean((lower <= true)[moved] & (true <= upper)[moved])


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("wrong", "seed"), [(0.1, 1), (1.5, 1), (0.1, 3)])
def test_a_wrong_gain_is_found_and_held_out_perturbations_are_covered_again(wrong, seed):
    simulation, trials = stimulated(TRUTH, num_neurons=NUM_NEURONS, num_trials=10, num_new=8, seed=seed)
    model = dataclasses.replace(TRUTH, background=lrp.RandomBulk(gain=wrong))
    posterior = lrp.fit(model, simulation.recording, seed=0, progress=False)
    found = lrp.recalibrate(posterior, trials, progress=False)
    value, spread = found.statistics.scales["gain"]
    assert abs(np.log(value / GAIN)) < 3.0 * spread
    assert abs(np.log(value / GAIN)) < 0.25 * abs(np.log(wrong / GAIN))
    assert found.statistics.diagnostics["gain before"] == wrong
    assert found.status == "converged"
    before, after = coverage(posterior, simulation), coverage(found, simulation)
    assert before < 0.75 if wrong < GAIN else before > 0.97
    assert 0.8 < after < 0.97


@pytest.mark.long
@pytest.mark.slow
def test_a_right_posterior_stays_within_its_uncertainty():
    for seed in (1, 3):
        simulation, trials = stimulated(TRUTH, num_neurons=NUM_NEURONS, num_trials=10, num_new=8, seed=seed)
        model = lrp.LowRankModel(rank=2)
        posterior = lrp.fit(model, simulation.recording, seed=0, progress=False)
        found = lrp.recalibrate(posterior, trials, progress=False)
        for name, (value, spread) in posterior.statistics.scales.items():
            assert abs(np.log(found.statistics.scales[name][0] / value)) < 3.0 * spread
        # Scales that were inferred keep their priors.
        assert found.scale_priors == posterior.scale_priors


def test_fixed_scales_get_priors_around_their_values_and_others_keep_theirs():
    recording = lrp.Recording(np.random.default_rng(0).standard_normal((2, 9, 6)), 0.02, cell_types=["E", "I"] * 3)
    fixed = lrp.LowRankModel(rank=1, background=lrp.RandomBulk(gain=0.2), priors=lrp.CorrelatedLoadings(K=0.7))
    freed = with_free_scales(fixed.for_recording(recording))
    assert freed.scale_priors == {"K": lrp.ScalePrior(0.7, 1.0), "gain": lrp.ScalePrior(0.2, 1.5)}
    typed = dataclasses.replace(fixed, priors=lrp.CorrelatedLoadings(K=0.7, by_cell_type=True))
    freed = with_free_scales(typed.for_recording(recording))
    assert freed.scale_priors["K[E]"] == freed.scale_priors["K[I]"] == lrp.ScalePrior(0.7, 1.0)
    own = lrp.ScalePrior(0.3, 0.1)
    kept = dataclasses.replace(fixed, background=lrp.RandomBulk(gain=own)).for_recording(recording)
    assert with_free_scales(kept).scale_priors["gain"] == own
    plain = with_free_scales(plain_model(rank=1).for_recording(recording))
    assert plain.scale_priors == {"K": lrp.ScalePrior(2.5, 1.0)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 7])
def test_what_the_trials_do_not_tell_follows_from_the_recording(seed):
    """With one bin of one neuron observed in the new trial, the scales are those of a fit to the old ones."""
    model = lrp.LowRankModel(rank=1, background=lrp.RandomBulk(gain=0.3, dimension=1), priors=lrp.Priors(K=2.5))
    truth = dataclasses.replace(model, background=None)
    simulation, trials = stimulated(truth, num_neurons=8, num_trials=6, num_new=1, num_bins=25, seed=seed)
    mask = np.zeros(trials.activity.shape, dtype=bool)
    mask[0, 3, 0] = True
    posterior = lrp.fit(model, simulation.recording, seed=0, progress=False)
    freed = with_free_scales(posterior.settled_model)
    expected = lrp.fit(freed, simulation.recording, seed=0, progress=False).statistics.scales
    unseen = dataclasses.replace(trials, mask=mask)
    found = lrp.recalibrate(posterior, unseen, max_new_patterns=0, progress=False).statistics.scales
    assert found.keys() == expected.keys() == {"K", "gain"}
    for name, (value, spread) in expected.items():
        assert abs(np.log(found[name][0] / value)) < 0.1 * spread


@pytest.mark.long
@pytest.mark.slow
def test_a_bulk_that_is_stronger_where_nobody_looked_is_told():
    simulation, _ = stimulated(TRUTH, num_neurons=NUM_NEURONS, num_trials=10, num_new=1, seed=1)
    posterior = lrp.fit(lrp.LowRankModel(rank=2), simulation.recording, seed=0, progress=False)
    Q, W0 = posterior.subspace, simulation.parameters["W0"]
    seen = W0 @ Q @ Q.T
    parameters = dict(simulation.parameters) | {"W0": seen + 3.0 * (W0 - seen)}
    random = np.random.default_rng(0)
    stimulation = np.zeros((8, 30, NUM_NEURONS))
    for trial in stimulation:
        trial[8:15, random.choice(NUM_NEURONS, 2, replace=False)] = 1.0
    like = lrp.Recording(np.zeros(stimulation.shape), 0.02, np.zeros((8, 30, 2)), stimulation)
    found = lrp.recalibrate(posterior, TRUTH.simulate(parameters, like, seed=2), progress=False)
    assert found.status.startswith("beware: the gain of the bulk is")
    diagnostics = found.statistics.diagnostics
    assert diagnostics["gain by new patterns"] > 1.5 * diagnostics["gain by old patterns"]
