"""Scores of a posterior on trials that it has not seen: simulations and statistics by hand."""

import dataclasses

import numpy as np
import pytest
from handmade import BINS, NEURONS, TRIALS, make_posterior, make_recording
from plain import plain_model

import lrposterior as lrp
from lrposterior.distribution import SampleDistribution

OPTIONS = {"width": 0.03, "num_resamples": 5, "seed": 3}


def count_posterior() -> tuple[lrp.Posterior, lrp.Recording]:
    """Spikes of a network with process noise, by hand, and other trials."""
    random = np.random.default_rng(0)
    counts = random.poisson(1.5, (2, TRIALS, BINS, NEURONS)).astype(float)
    model = plain_model(1, nonlinearity="softplus", observation=lrp.PoissonObservation(20.0), process_noise="diagonal")
    fitted, held_out = (dataclasses.replace(make_recording(), activity=each) for each in counts)
    return make_posterior(model, fitted), held_out


def by_network(posterior: lrp.Posterior, num_draws: int, number: int) -> list[dict[str, np.ndarray]]:
    """The networks of simulations, with seed 3."""
    draws = posterior.sample_parameters(num_draws, seed=3)
    return [{name: value[place % num_draws] for name, value in draws.items()} for place in range(number)]


def test_scores_are_those_of_simulations_by_hand():
    posterior, held_out = count_posterior()
    simulated, expected = [], []
    for place, network in enumerate(by_network(posterior, 6, 6)):
        simulated.append(posterior.model.simulate(network, held_out, seed=3 + place).activity)
        currents = posterior.model.simulated_currents(network, held_out, seed=3 + place)
        rates = network["rate_scale"] * np.logaddexp(0.0, currents) + network["baseline"]
        expected.append(held_out.dt * rates)
    np.testing.assert_array_equal(lrp.simulate_trials(posterior, held_out, num_simulations=6, seed=3), simulated)
    wanted = lrp.compare_trials(held_out, np.stack(simulated), expected=np.mean(expected, axis=0), **OPTIONS)
    found = lrp.score_trials(posterior, held_out, num_simulations=6, **OPTIONS)
    assert list(found.statistics) == list(wanted.statistics)
    assert "bits per spike" in found.statistics
    for name, statistic in wanted.statistics.items():
        np.testing.assert_allclose(dataclasses.astuple(found[name]), dataclasses.astuple(statistic), rtol=1e-9)


def test_networks_take_turns_and_start_from_the_mean_of_fitted_trials():
    posterior = make_posterior(plain_model(1, initial_state="free"), chains=True)
    two = SampleDistribution(posterior.distribution.draws[:1, :2])
    posterior, held_out = dataclasses.replace(posterior, distribution=two), make_recording()
    simulated = lrp.simulate_trials(posterior, held_out, num_simulations=3, seed=3)
    for place, network in enumerate(by_network(posterior, 2, 3)):
        network["initial_kappa"] = np.repeat(network["initial_kappa"].mean(axis=0)[None], TRIALS, axis=0)
        by_hand = posterior.model.simulate(network, held_out, seed=3 + place).activity
        np.testing.assert_array_equal(simulated[place], by_hand)
    assert "bits per spike" not in lrp.score_trials(posterior, held_out, num_simulations=2, **OPTIONS).statistics


def test_counts_without_a_spike_have_no_bits_per_spike():
    posterior, held_out = count_posterior()
    silent = dataclasses.replace(held_out, activity=np.zeros(held_out.activity.shape))
    assert "bits per spike" not in lrp.score_trials(posterior, silent, num_simulations=2, **OPTIONS).statistics


def test_bad_arguments_are_named():
    posterior, held_out = count_posterior()
    for arguments, options, words in (
        ((1, held_out), {}, "posterior: expected Posterior"),
        ((posterior, 1), {}, "trials: expected Recording"),
        ((posterior, held_out.select(neurons=[0, 1])), {}, "trials: expected num_neurons = 5"),
        ((posterior, held_out), {"num_simulations": 0}, "num_simulations: expected an integer >= 1"),
        ((posterior, held_out), {"conditions": ["a", "a", "b", "b"]}, "conditions: expected at least 4 trials"),
    ):
        with pytest.raises(ValueError, match=words):
            lrp.score_trials(*arguments, **(OPTIONS | options))
