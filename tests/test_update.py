"""An updated posterior is that of all trials together, and stimulation trials are trials like any other."""

import dataclasses
import importlib

import numpy as np
import pytest
from plain import plain_model
from stimulated import stimulated

import lrposterior as lrp
from lrposterior.background import newly_visited
from lrposterior.distribution import StructuredDistribution
from lrposterior.inference.problem import Problem
from lrposterior.inference.structured_problem import StructuredProblem
from lrposterior.orbit import move, oriented

FIXED = lrp.LowRankModel(rank=2, background=lrp.RandomBulk(gain=0.4), priors=lrp.CorrelatedLoadings(K=1.0))


def agree(updated, refitted, tolerance, *, evidence=1e-3):
    """Means in posterior standard deviations, standard deviations relative to each other, evidence in nats."""
    rows, columns = np.divmod(np.arange(updated.recording.num_neurons**2), updated.recording.num_neurons)
    mean, sd = updated.connectivity_entries(rows, columns)
    expected, expected_sd = refitted.connectivity_entries(rows, columns)
    np.testing.assert_allclose((mean - expected) / expected_sd, 0.0, atol=tolerance)
    np.testing.assert_allclose(sd / expected_sd, 1.0, atol=tolerance)
    assert updated.statistics.log_evidence == pytest.approx(refitted.statistics.log_evidence, abs=evidence)


def refit(posterior):
    return lrp.fit(posterior.settled_model, posterior.recording, seed=0, progress=False)


@pytest.mark.long
@pytest.mark.parametrize("initial_state", ["zero", pytest.param("free", marks=pytest.mark.slow)])
def test_an_update_is_a_refit_of_all_trials(initial_state):
    model = plain_model(rank=2, initial_state=initial_state)
    simulation, trials = stimulated(model, num_neurons=12, num_trials=10, num_new=3, seed=1)
    posterior = lrp.fit(model, simulation.recording, seed=0, progress=False)
    updated = lrp.update_posterior(posterior, trials, progress=False)
    assert updated.recording.num_trials == 13
    assert updated.statistics.diagnostics["trials added"] == 3.0
    agree(updated, refit(updated), 1e-3)


@pytest.mark.slow
def test_with_a_bulk_the_visited_patterns_grow_and_the_refit_is_that_of_the_same_model():
    simulation, trials = stimulated(FIXED, num_neurons=12, num_trials=8, num_new=3, seed=2)
    posterior = lrp.fit(FIXED, simulation.recording, seed=0, progress=False)
    updated = lrp.update_posterior(posterior, trials, progress=False)
    num_old = posterior.subspace.shape[1]
    assert updated.subspace.shape[1] == num_old + updated.statistics.diagnostics["patterns added"] > num_old
    np.testing.assert_array_equal(updated.subspace[:, :num_old], posterior.subspace)
    agree(updated, refit(updated), 1e-3)
    held = lrp.update_posterior(posterior, trials, max_new_patterns=0, method=lrp.Laplace(mean="mode"), progress=False)
    np.testing.assert_array_equal(held.subspace, posterior.subspace)
    assert "nats gained by the mean" not in held.statistics.diagnostics


@pytest.mark.long
@pytest.mark.slow
def test_inferred_scales_follow_from_where_they_were(monkeypatch):
    balance = importlib.import_module("lrposterior.inference.balance")
    # A fit settles its scales to some hundredths; with less, the two agree as far as both are settled.
    tight = {"BALANCE_TOLERANCE": 1e-5, "SCALE_TOLERANCE": 5e-4, "FOLLOWED_LAST": 1e-3, "FOLLOWED_SHARE": 1e-3}
    for name, value in tight.items():
        monkeypatch.setattr(balance, name, value)
    model = lrp.LowRankModel(rank=2)
    simulation, trials = stimulated(
        lrp.LowRankModel(rank=2, background=lrp.RandomBulk(gain=0.4)), num_neurons=14, num_trials=8, num_new=3, seed=3
    )
    posterior = lrp.fit(model, simulation.recording, seed=0, progress=False)
    updated = lrp.update_posterior(posterior, trials, progress=False)
    assert (
        updated.scale_priors
        == posterior.scale_priors
        == {"K": lrp.ScalePrior(1.0, 1.0), "gain": lrp.ScalePrior(0.3, 1.5)}
    )
    agree(updated, refit(updated), 1e-3)


@pytest.mark.long
@pytest.mark.slow
def test_the_structured_form_as_well(structured_fits):
    simulation, trials = stimulated(FIXED, num_neurons=20, num_trials=8, num_new=3, seed=4)
    posterior = lrp.fit(FIXED, simulation.recording, seed=0, progress=False)
    updated = lrp.update_posterior(posterior, trials, progress=False)
    assert isinstance(updated.distribution, StructuredDistribution)
    assert updated.statistics.diagnostics["patterns added"] > 0.0
    # Its information is found by a chain that ends at two thousandths of the prior's precision.
    agree(updated, refit(updated), 3e-3, evidence=0.02)


@pytest.mark.parametrize("kind", [Problem, StructuredProblem])
def test_log_densities_of_trials_with_and_without_stimulation_add(kind):
    model = plain_model(rank=2)
    simulation, trials = stimulated(model, num_neurons=6, num_trials=3, num_new=2, num_bins=12, seed=5)
    both = kind.of(model, lrp.combine_recordings(simulation.recording, trials))
    z = 0.5 * np.random.default_rng(0).standard_normal(both.space.size)
    z = both.best_noise(z)
    parameters = both.space.unwhiten(z)
    whole = both.negative_log_density(z)
    parts = sum(
        float(lrp.log_likelihood(model.for_recording(each), parameters, model.for_recording(each).data(each)))
        for each in (simulation.recording, trials)
    )
    prior = 0.5 * z @ z + 0.5 * z.size * np.log(2.0 * np.pi)
    assert whole == pytest.approx(prior - parts, rel=1e-10)
    silent = dataclasses.replace(trials, stimulation=None)
    other = kind.of(model, lrp.combine_recordings(simulation.recording, silent))
    assert abs(other.negative_log_density(z) - whole) > 1.0


def test_patterns_are_new_where_they_stand_out_of_the_noise_and_out_of_the_old_ones():
    random = np.random.default_rng(0)
    old, new = np.linalg.qr(random.standard_normal((30, 4)))[0].T[:, :, None].reshape(2, 2, 30)
    noise = 0.1 * random.standard_normal((200, 30))
    seen = noise + random.standard_normal((200, 2)) @ old
    assert newly_visited(seen, old.T, 10).shape == (30, 0)
    both = seen + random.standard_normal((200, 2)) @ (new + 0.5 * old)
    found = newly_visited(both, old.T, 10)
    assert found.shape == (30, 2)
    np.testing.assert_allclose(found.T @ old.T, 0.0, atol=1e-12)
    np.testing.assert_allclose(found.T @ found, np.eye(2), atol=1e-12)
    assert np.linalg.norm(new @ found) ** 2 > 1.95
    assert newly_visited(both, old.T, 1).shape == (30, 1)


def test_a_fit_ends_in_one_orientation_of_the_factors():
    model = FIXED
    simulation, _ = stimulated(model, num_neurons=6, num_trials=2, num_new=1, num_bins=8, seed=5)
    settled = model.for_recording(simulation.recording)
    space, random = settled.space_for(simulation.recording), np.random.default_rng(0)
    z = random.standard_normal(space.size)
    turned = np.linalg.qr(random.standard_normal((2, 2)))[0]
    one, other = oriented(space, z), oriented(space, move(space, z, turned, turned.T))
    np.testing.assert_allclose(one, other, atol=1e-10)
    assert one @ one == pytest.approx(z @ z)
    for name, value in space.unwhiten(z).items():
        if name not in ("M", "K", "K_on_M", "K_on_B", "K_on_b"):
            np.testing.assert_allclose(space.unwhiten(one)[name], value)
    left, right = space.factors(z)
    moved_left, moved_right = space.factors(one)
    np.testing.assert_allclose(moved_left @ moved_right.T, left @ right.T, atol=1e-10)


def test_a_posterior_from_a_file_knows_the_priors_of_its_scales(tmp_path):
    model = plain_model(rank=1, priors=lrp.Priors(K=lrp.ScalePrior(2.0, 0.5)))
    simulation, trials = stimulated(model, num_neurons=6, num_trials=6, num_new=2, seed=6)
    posterior = lrp.fit(model, simulation.recording, seed=0, progress=False)
    posterior.save(tmp_path / "fit.nc")
    loaded = lrp.load_posterior(tmp_path / "fit.nc")
    assert loaded.settled_model.scale_priors == posterior.settled_model.scale_priors == model.scale_priors
    first, second = (lrp.update_posterior(each, trials, progress=False) for each in (posterior, loaded))
    np.testing.assert_array_equal(first.distribution.location, second.distribution.location)


def test_what_cannot_be_updated_is_refused():
    model = plain_model(rank=1)
    simulation, trials = stimulated(model, num_neurons=6, num_trials=6, num_new=2, seed=6)
    posterior = lrp.fit(model, simulation.recording, seed=0, progress=False)
    with pytest.raises(
        ValueError, match=r"posterior: expected a Laplace posterior without correction, got one of.*'svi'"
    ):
        lrp.update_posterior(dataclasses.replace(posterior, method="svi"), trials)
    with pytest.raises(ValueError, match=r"recordings\[0\]\.neuron_labels: expected labels"):
        lrp.update_posterior(posterior, trials.select(neurons=[0, 1]))
    with pytest.raises(ValueError, match="trials: expected Recording"):
        lrp.update_posterior(posterior, trials.activity)
    with pytest.raises(ValueError, match="posterior: expected Posterior"):
        lrp.update_posterior(model, trials)
