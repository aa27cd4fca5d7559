"""Draws whose activity runs away: which they are, and what is asked of the others alone."""

import dataclasses

import numpy as np
import pytest
from handmade import make_posterior, make_recording
from plain import plain_model

import lrposterior as lrp
from lrposterior import runaways
from lrposterior.cli.output import format_ranking
from lrposterior.distribution import NormalDistribution, SampleDistribution
from lrposterior.runaways import runs_away

NUM_DRAWS, AWAY = 60, [3, 17, 40]


def with_runaways(model: lrp.LowRankModel, recording: lrp.Recording | None = None) -> lrp.Posterior:
    """Draws beside a mode, of which three have a self-connection of a neuron that makes rates grow without end."""
    posterior = make_posterior(model, recording)
    location = posterior.mode_coordinates
    z = location + 0.05 * np.random.default_rng(0).standard_normal((NUM_DRAWS, len(location)))
    M, K = (posterior.space.slices[name].start for name in ("M", "K"))
    z[np.ix_(AWAY, [M, K])] = 1e3
    return dataclasses.replace(posterior, distribution=SampleDistribution(z[None]))


def make_candidates(recording: lrp.Recording) -> lrp.Candidates:
    patterns = np.random.default_rng(1).standard_normal((5, recording.num_neurons))
    return lrp.pattern_candidates(recording, patterns, power=0.3, onset=0.02, duration=0.04)


def stored(posterior: lrp.Posterior) -> np.ndarray:
    assert isinstance(posterior.distribution, SampleDistribution)
    return posterior.distribution.draws


def without(posterior: lrp.Posterior) -> lrp.Posterior:
    stays = np.setdiff1d(np.arange(NUM_DRAWS), AWAY)
    return dataclasses.replace(posterior, distribution=SampleDistribution(stored(posterior)[:, stays]))


def counts() -> lrp.Recording:
    recording = make_recording()
    return dataclasses.replace(recording, activity=np.random.default_rng(0).poisson(1.5, recording.activity.shape))


MODELS = {
    "softplus": (plain_model(1, nonlinearity="softplus"), None),
    "process noise": (plain_model(1, nonlinearity="softplus", process_noise="diagonal"), None),
    "free start": (plain_model(1, nonlinearity="relu", initial_state="free"), None),
    "counts": (plain_model(1, nonlinearity="softplus", observation=lrp.PoissonObservation(20.0)), counts()),
}


@pytest.mark.parametrize("name", MODELS)
def test_draws_that_run_away_are_found_by_their_activity_and_left_out(name):
    posterior = with_runaways(*MODELS[name])
    draws = posterior.sample_parameters(NUM_DRAWS, seed=0)
    np.testing.assert_array_equal(np.flatnonzero(runs_away(posterior, draws)), AWAY)
    bounded = lrp.keep_bounded(posterior, seed=0)
    np.testing.assert_array_equal(stored(bounded), stored(without(posterior)))
    assert "3 of 60 draws run away" in bounded.status
    ranked = lrp.rank_perturbations(bounded, make_candidates(bounded.recording), num_draws=50, seed=0, progress=False)
    assert bounded.status in ranked.warnings
    assert lrp.keep_bounded(bounded, seed=0) is bounded


def test_a_draw_runs_away_whatever_others_it_is_among(monkeypatch):
    """With process noise, and a limit that about half of the draws exceed."""
    posterior = with_runaways(*MODELS["process noise"])
    draws = posterior.sample_parameters(NUM_DRAWS, seed=0)
    rates = lrp.simulate_trials(without(posterior), posterior.recording, num_simulations=NUM_DRAWS - 3, seed=0)
    recorded = np.abs(posterior.recording.activity[posterior.recording.mask]).max()
    monkeypatch.setattr(runaways, "LARGEST_GROWTH", np.median(np.abs(rates).max(axis=(1, 2, 3))) / recorded)
    of_all = runs_away(posterior, draws)
    assert 5 < of_all.sum() < NUM_DRAWS - 5
    some = np.arange(0, NUM_DRAWS, 3)
    np.testing.assert_array_equal(
        runs_away(posterior, {name: value[some] for name, value in draws.items()}), of_all[some]
    )


def test_nothing_runs_away_where_rates_are_bounded():
    posterior = with_runaways(plain_model(1))
    assert lrp.keep_bounded(posterior, seed=0) is posterior


def test_a_posterior_of_networks_that_run_away_is_refused():
    posterior = with_runaways(plain_model(1, nonlinearity="softplus"))
    z = stored(posterior)[:, [3, 17, 40, 0]]
    with pytest.raises(ValueError, match="bounded in trials like the recorded ones, got 3 of 4 draws that run away"):
        lrp.keep_bounded(dataclasses.replace(posterior, distribution=SampleDistribution(z)), seed=0)


def test_a_ranking_is_that_of_the_draws_that_stay():
    posterior = with_runaways(plain_model(1, nonlinearity="softplus"))
    candidates = make_candidates(posterior.recording)
    found = lrp.rank_perturbations(posterior, candidates, num_draws=NUM_DRAWS, seed=0, progress=False)
    wanted = lrp.rank_perturbations(without(posterior), candidates, num_draws=NUM_DRAWS - 3, seed=0, progress=False)
    for field in ("expected_r2", "information", "response_mean", "response_sd", "readout_interval"):
        np.testing.assert_allclose(getattr(found, field), getattr(wanted, field), rtol=1e-9, err_msg=field)
    assert (found.num_draws, wanted.num_draws) == (NUM_DRAWS - 3, NUM_DRAWS - 3)
    assert found.warnings[0].startswith("3 of 60 draws run away")
    assert not [warning for warning in wanted.warnings if "run away" in warning]
    assert f"beware: {found.warnings[0]}" in format_ranking(found, 2)
    assert found.to_xarray().attrs["warnings"].splitlines() == list(found.warnings)


def test_candidates_whose_response_is_that_of_a_few_draws_are_named():
    """One draw of forty has a K 300 times as large."""
    posterior = make_posterior(plain_model(1))
    z = posterior.mode_coordinates + 1e-3 * np.random.default_rng(0).standard_normal((40, posterior.space.size))
    z[5, posterior.space.slices["K"]] *= 300.0
    posterior = dataclasses.replace(posterior, distribution=SampleDistribution(z[None]))
    candidates = make_candidates(posterior.recording)
    found = lrp.rank_perturbations(posterior, candidates, num_draws=40, seed=0, progress=False)
    powers = np.sum(lrp.predict_responses(posterior, candidates, num_draws=40, seed=0) ** 2, axis=(2, 3, 4))
    few = np.flatnonzero(powers.sum(axis=0) ** 2 / np.sum(powers**2, axis=0) < 4.0)
    assert few.size
    names = ", ".join(repr(candidates.labels[place]) for place in few)
    assert found.warnings[0].startswith(f"under {few.size} of {candidates.num_candidates} candidates ({names}) fewer")


def test_contraction_is_to_the_prior_whose_networks_stay():
    """A prior of K so wide that networks run away now and then, and one so wide that most do."""
    for K, is_known in ((5.0, True), (1000.0, False)):
        posterior = make_posterior(plain_model(4, nonlinearity="softplus", priors=lrp.Priors(K=K, unit=1.0)))
        z = 1e-3 * posterior.mode_coordinates
        small = NormalDistribution(z, 1e-3 * np.eye(posterior.space.size))
        posterior = dataclasses.replace(posterior, mode_coordinates=z, distribution=small)
        candidates = make_candidates(posterior.recording)
        found = lrp.rank_perturbations(posterior, candidates, num_draws=200, seed=0, progress=False)
        random = np.random.default_rng([0, 1])
        prior = posterior.named_draws(random.standard_normal((200, posterior.space.size)), random)
        stays = ~runs_away(posterior, prior)
        assert np.any(~stays)
        assert (stays.mean() >= 0.5) == is_known
        assert np.isfinite(found.contraction).all() == is_known
        if is_known:
            random = np.random.default_rng([0, 1])
            kept = SampleDistribution(random.standard_normal((200, posterior.space.size))[None, stays])
            of_prior = dataclasses.replace(posterior, distribution=kept)
            spread, prior_spread = (
                np.sum(lrp.predict_responses(each, candidates, num_draws=number, seed=0).var(axis=0, ddof=1), (1, 2, 3))
                for each, number in ((posterior, 200), (of_prior, int(stays.sum())))
            )
            np.testing.assert_allclose(found.contraction, 1.0 - spread / prior_spread, rtol=1e-6)


def test_simulated_trials_name_the_mend():
    posterior = with_runaways(*MODELS["counts"])
    with pytest.raises(ValueError, match=r"3 of 60 draws that run away .* pass keep_bounded"):
        lrp.simulate_trials(posterior, posterior.recording, num_simulations=NUM_DRAWS, seed=0)
    bounded = lrp.keep_bounded(posterior, seed=0)
    assert np.isfinite(lrp.simulate_trials(bounded, posterior.recording, num_simulations=5, seed=0)).all()
