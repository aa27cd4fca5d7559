"""Neurons that nobody recorded: W among the others, their perturbations, and what is refused."""

import dataclasses
import functools

import numpy as np
import pytest

import lrposterior as lrp
from lrposterior.hidden import recorded_share
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.responses import response_draws

NUM_RECORDED, NUM_ALIKE = 6, 4
MODEL = lrp.LowRankModel(2, background=None, priors=lrp.Priors(), hidden_neurons=NUM_RECORDED * (NUM_ALIKE - 1))


def everything() -> lrp.LowRankModel:
    return dataclasses.replace(MODEL, hidden_neurons=0)


@functools.cache
def fitted() -> lrp.Posterior:
    simulation = lrp.simulate_recording(everything(), num_neurons=24, num_trials=6, num_bins=40, seed=1)
    return lrp.fit(MODEL, simulation.recording.select(neurons=np.arange(NUM_RECORDED)), seed=0, progress=False)


def of_alike_neurons(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The parameters of a network in which every four neurons differ in K alone; K (alike, neuron, rank)."""
    random = np.random.default_rng(seed)
    M, K = random.standard_normal((NUM_RECORDED, 2)), random.standard_normal((NUM_ALIKE, NUM_RECORDED, 2))
    shared = {
        "M": M,
        "B": random.standard_normal((NUM_RECORDED, 1)),
        "b": random.standard_normal(NUM_RECORDED),
        "noise_scale": np.ones(NUM_RECORDED),
    }
    return shared, K


def inputs(seed: int) -> lrp.Recording:
    drive = np.random.default_rng(seed).standard_normal((2, 30, 1))
    return lrp.Recording(np.zeros((2, 30, NUM_RECORDED)), 0.02, inputs=drive)


def test_neurons_that_are_alike_act_by_the_mean_of_their_K():
    shared, K = of_alike_neurons(0)
    trials = inputs(1)
    all_neurons = {name: np.concatenate([value] * NUM_ALIKE) for name, value in shared.items()}
    all_neurons["K"] = K.reshape(-1, 2)
    many = lrp.Recording(np.zeros((2, 30, NUM_RECORDED * NUM_ALIKE)), 0.02, inputs=trials.inputs)
    expected = everything().simulated_currents(all_neurons, many, seed=0)[:, :, :NUM_RECORDED]
    found = MODEL.simulated_currents(shared | {"K": K.mean(axis=0)}, trials, seed=0)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("quantity", ["current", "rate"])
def test_light_reaches_the_recorded_neurons_alone(quantity):
    shared, K = of_alike_neurons(2)
    posterior = fitted()
    candidates = lrp.pattern_candidates(posterior.recording, [[1.0, 0.5, 0.0, 0.0, 0.0, 0.0]], power=2.0)
    experiment = make_experiment(posterior, candidates, None, None)
    named = shared | {"K": K.mean(axis=0), "K_recorded": K[0]}
    draws = {name: value[None] for name, value in named.items()}
    found = response_draws(posterior.model, draws, experiment, quantity)[0, 0]
    num_all = NUM_RECORDED * NUM_ALIKE
    all_neurons = {name: np.concatenate([value] * NUM_ALIKE) for name, value in shared.items()}
    all_neurons["K"] = K.reshape(-1, 2)
    pattern = np.concatenate([candidates.patterns, np.zeros((1, num_all - NUM_RECORDED))], axis=1)
    widened = dataclasses.replace(experiment, patterns=pattern)
    all_draws = {name: value[None] for name, value in all_neurons.items()}
    expected = response_draws(everything(), all_draws, widened, quantity)[0, 0]
    np.testing.assert_allclose(found, expected[:, :, :NUM_RECORDED], rtol=1e-9, atol=1e-12)


def test_K_of_a_recorded_neuron_is_that_of_a_member_whose_mean_is_seen():
    """Brute force for one column: K of four neurons that are alike, of which a noisy mean is known."""
    scale, noise, seen = 1.3, 0.4, 0.7
    prior = scale**2 * np.eye(NUM_ALIKE)
    mean_of = np.full(NUM_ALIKE, 1.0 / NUM_ALIKE)
    gain = prior @ mean_of / (mean_of @ prior @ mean_of + noise**2)
    expected_mean, covariance = gain * seen, prior - np.outer(gain, mean_of @ prior)
    share = recorded_share(NUM_ALIKE - 1, 1)
    of_mean = share * scale**2
    shrunk = of_mean / (of_mean + noise**2)
    assert np.isclose(shrunk * seen, expected_mean[0], rtol=1e-12)
    assert np.isclose(shrunk * noise**2 + scale**2 * (1.0 - share), covariance[0, 0], rtol=1e-12)


def test_the_prior_of_K_is_that_of_a_mean():
    recording = fitted().recording
    space = dataclasses.replace(MODEL, priors=lrp.Priors(K=0.8)).for_recording(recording).space_for(recording)
    assert np.isclose(space["K"].standard_deviation, 0.8 / np.sqrt(NUM_ALIKE), rtol=1e-12)


def test_moments_of_W_are_those_of_its_draws():
    posterior = fitted()
    draws = posterior.sample_connectivity(20_000, seed=0).to_dense()
    sd = posterior.connectivity_sd()
    # Standard errors of 20,000 draws are .007 sd; products have heavier tails than a Normal.
    assert np.max(np.abs(draws.mean(axis=0) - posterior.connectivity_mean()) / sd) < 0.05
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.1)


def test_what_is_not_seen_of_K_is_the_same_in_every_gauge():
    posterior = fitted()
    space, z = posterior.space, np.tile(posterior.mode_coordinates, (20_000, 1))
    angle = 0.8
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = z.copy()
    for name in ("M", "K"):
        turned[:, space.slices[name]] = (space.coordinates(z, name) @ turn).reshape(len(z), -1)
    spreads = []
    for points in (z, turned):
        W = posterior.connectivity_of(posterior.named_draws(points, np.random.default_rng(0))).to_dense()
        spreads.append(W.std(axis=0))
    np.testing.assert_allclose(spreads[0], spreads[1], rtol=0.06)


@pytest.mark.slow
def test_perturbations_are_less_certain_the_fewer_neurons_were_recorded():
    recording = fitted().recording
    candidates = lrp.single_neuron_candidates(recording)
    certain = []
    for share in (0.0, 0.5, 0.95):
        model = dataclasses.replace(MODEL, hidden_neurons=share, priors=lrp.Priors(K=1.0))
        posterior = lrp.fit(model, recording, seed=0, progress=False)
        certain.append(lrp.rank_perturbations(posterior, candidates, num_draws=200, progress=False).expected_r2.mean())
    assert certain[0] > certain[1] > certain[2]


def test_a_file_holds_the_hidden_neurons(tmp_path):
    posterior = fitted()
    posterior.save(tmp_path / "fit.nc")
    again = lrp.load_posterior(tmp_path / "fit.nc")
    assert again.model == posterior.model
    np.testing.assert_array_equal(
        again.sample_connectivity(5, seed=0).to_dense(), posterior.sample_connectivity(5, seed=0).to_dense()
    )


def test_eigenvalues_are_those_of_the_whole_network():
    posterior = fitted()
    draws = posterior.sample_parameters(5, seed=0)
    overlap = np.swapaxes(draws["K"], 1, 2) @ draws["M"] / NUM_RECORDED
    expected = np.sort(np.abs(np.linalg.eigvals(overlap)), axis=1)
    np.testing.assert_allclose(np.sort(np.abs(posterior.eigenvalues(5, seed=0)), axis=1), expected, rtol=1e-10)


@pytest.mark.long
@pytest.mark.slow
def test_intervals_of_W_cover_a_network_of_which_a_quarter_was_recorded():
    """Ten networks; entries of one depend on each other, and single networks hold .80 to .95.

    Five of them are fitted as if the recorded neurons were all, too: such fits need not converge.
    """
    whole, covers = everything(), {0: [], 90: []}
    for seed in range(10):
        simulation = lrp.simulate_recording(whole, num_neurons=120, num_trials=20, num_bins=60, seed=seed)
        chosen = np.random.default_rng(seed).permutation(120)[:30]
        M, K = simulation.parameters["M"], simulation.parameters["K"]
        W = M[chosen] @ K[chosen].T / 120
        for hidden, cover in covers.items():
            if not hidden and seed >= 5:
                continue
            model = dataclasses.replace(whole, hidden_neurons=hidden)
            recording, method = simulation.recording.select(neurons=chosen), lrp.Laplace(mean="mode")
            posterior = lrp.fit(model, recording, method, seed=0, progress=False)
            lower, upper = posterior.connectivity_interval(0.9, seed=0)
            cover.append(np.mean((lower <= W) & (upper >= W)))
    assert 0.85 <= np.mean(covers[90]) <= 0.95
    assert np.mean(covers[0]) < 0.85


def test_what_does_not_know_hidden_neurons_is_refused():
    posterior = fitted()
    with pytest.raises(ValueError, match="background: expected None, as there are hidden neurons, got RandomBulk"):
        lrp.LowRankModel(1, hidden_neurons=5)
    with pytest.raises(ValueError, match="hidden_neurons: expected an integer >= 0, got -1"):
        lrp.LowRankModel(1, background=None, hidden_neurons=-1)
    with pytest.raises(ValueError, match=r"hidden_neurons: expected a number between 0 and 1.*got 1.5"):
        lrp.LowRankModel(1, background=None, hidden_neurons=1.5)
    recording = posterior.recording
    stimulated = dataclasses.replace(recording, stimulation=np.ones(recording.activity.shape))
    with pytest.raises(ValueError, match="stimulation: expected none, as there are hidden neurons"):
        lrp.fit(MODEL, stimulated, seed=0, progress=False)
    with pytest.raises(ValueError, match="posterior: expected a model without hidden neurons, got hidden_neurons=18"):
        lrp.analyze_degeneracy(posterior)
    with pytest.raises(ValueError, match="model: expected a model without hidden neurons"):
        lrp.simulate_recording(MODEL, num_neurons=5, seed=0)
