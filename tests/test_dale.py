"""Excitatory and inhibitory neurons: factors with signs, their mode and their posterior."""

import jax
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import lrposterior as lrp
from lrposterior.inference.bounded_mode import find_bounded_mode
from lrposterior.inference.problem import Problem
from lrposterior.inference.signed_start import positive_factors, signed_start
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.responses import response_draws
from lrposterior.truncated_normal import truncated_normal

NUM_NEURONS, RANK, SCALES = 12, 2, {"E": 1.5, "I": 6.0}
TYPES = ["E"] * 9 + ["I"] * 3
SIGNS = np.where(np.array(TYPES) == "I", -1.0, 1.0)


def dale_model(rank: int = RANK, **options) -> lrp.LowRankModel:
    settings = {"nonlinearity": "softplus", "observation": lrp.GaussianObservation(of="rate"), "background": None}
    return lrp.LowRankModel(rank, priors=lrp.DaleLoadings(K=SCALES, unit=1.0), **(settings | options))


def truth(seed: int, num_trials: int = 30, num_bins: int = 60, **options):
    """A network of the prior, and its recording."""
    random = np.random.default_rng(seed)
    scale = np.array([SCALES[name] for name in TYPES])[:, None] / RANK
    parameters = {
        "M": np.abs(random.standard_normal((NUM_NEURONS, RANK))),
        "K": SIGNS[:, None] * scale * np.abs(random.standard_normal((NUM_NEURONS, RANK))),
        "B": random.standard_normal((NUM_NEURONS, 2)),
        "b": 0.5 * random.standard_normal(NUM_NEURONS),
        "noise_scale": np.full(NUM_NEURONS, 0.1),
    } | options.pop("parameters", {})
    inputs = np.repeat(random.standard_normal((num_trials, num_bins // 10, 2)), 10, axis=1)
    like = lrp.Recording(np.zeros((num_trials, num_bins, NUM_NEURONS)), 0.02, inputs=inputs, cell_types=TYPES)
    model = dale_model(**options)
    if isinstance(model.observation, lrp.PoissonObservation):
        del parameters["noise_scale"]
    return model, parameters, model.simulate(parameters, like, seed=seed)


def cover(posterior: lrp.Posterior, W: np.ndarray) -> float:
    lower, upper = posterior.connectivity_interval(0.9, num_draws=800, seed=1)
    return float(np.mean((lower <= W) & (upper >= W)))


@pytest.fixture(scope="module")
def fitted():
    model, parameters, recording = truth(0)
    return lrp.fit(model, recording, seed=0, progress=False), parameters


def test_draws_within_half_spaces_have_the_moments_of_rejection_sampling():
    """Means and variances of 4,000 successive draws within five standard errors: false alarms below 1e-4."""
    random = np.random.default_rng(0)
    walls, offsets = random.standard_normal((4, 3)), np.array([0.3, 0.5, -0.2, 1.0])
    free = random.standard_normal((400_000, 3))
    inside = free[np.all(free @ walls.T + offsets >= 0.0, axis=1)]
    draws = truncated_normal(walls, offsets, inside[0], 8000, random)[::2]
    assert np.all(draws @ walls.T + offsets >= -1e-9)
    for statistic in (lambda x: x, lambda x: (x - inside.mean(axis=0)) ** 2, lambda x: x[:, :2] * x[:, 1:]):
        error = statistic(draws).mean(axis=0) - statistic(inside).mean(axis=0)
        assert np.all(np.abs(error) < 5.0 * statistic(inside).std(axis=0) / np.sqrt(len(draws)))


def test_one_wall_leaves_a_truncated_normal():
    draws = truncated_normal(np.ones((1, 1)), np.array([-0.5]), np.array([1.0]), 4000, np.random.default_rng(1))
    assert scipy.stats.kstest(draws[::4, 0], scipy.stats.truncnorm(0.5, np.inf).cdf).pvalue > 1e-3


def test_positive_factors_of_a_product_are_found():
    random = np.random.default_rng(0)
    M, K = np.abs(random.standard_normal((2, 15, 2)))
    found = positive_factors(M @ K.T, 2)
    assert all(np.all(each >= 0.0) for each in found)
    np.testing.assert_allclose(found[0] @ found[1].T, M @ K.T, atol=0.02 * np.max(M @ K.T))


def test_the_mode_within_signs_is_that_of_a_general_optimiser():
    model, _, recording = truth(3, num_trials=6)
    with jax.enable_x64(True):
        problem = Problem.of(model, recording)
        mode = find_bounded_mode(problem, signed_start(problem), max_iterations=300)
        bounds = [
            (0.0, None) if sign > 0 else (None, 0.0) if sign < 0 else (None, None) for sign in problem.space.signs
        ]
        other = scipy.optimize.minimize(
            problem.value_and_gradient, mode.z, jac=True, bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-15}
        )
    assert np.all(problem.space.signs * mode.z >= 0.0)
    assert np.any((mode.z == 0.0) & (problem.space.signs != 0.0))
    assert mode.objective - other.fun < 1e-4


def test_every_draw_obeys_dales_law(fitted):
    posterior, _ = fitted
    draws = posterior.sample_parameters(200, seed=0)
    assert np.all(draws["M"] >= 0.0)
    assert np.all(draws["K"] * SIGNS[:, None] >= 0.0)
    W = posterior.sample_connectivity(50, seed=0)
    assert all(np.all(W.dense(draw) * SIGNS >= 0.0) for draw in range(50))


@pytest.mark.parametrize("seed", [4, 5])
def test_intervals_of_w_hold_the_truth(seed):
    """Over 17 networks they hold 0.89 on average, 0.07 apart: below 0.7 with a probability of 0.5%."""
    model, parameters, recording = truth(seed)
    posterior = lrp.fit(model, recording, seed=0, progress=False)
    assert cover(posterior, parameters["M"] @ parameters["K"].T / NUM_NEURONS) > 0.7


@pytest.mark.slow
def test_intervals_hold_the_truth_on_average():
    found = []
    for seed in range(20, 32):
        model, parameters, recording = truth(seed)
        posterior = lrp.fit(model, recording, seed=0, progress=False)
        found.append(cover(posterior, parameters["M"] @ parameters["K"].T / NUM_NEURONS))
    assert 0.83 < np.mean(found) < 0.97


def test_spikes_of_a_noisy_network(tmp_path):
    model, parameters, recording = truth(
        2,
        num_trials=12,
        observation=lrp.PoissonObservation(),
        process_noise="full",
        parameters={
            "process_noise": 0.02 * np.eye(RANK),
            "rate_scale": np.full(NUM_NEURONS, 20.0),
            "baseline": np.full(NUM_NEURONS, 0.5),
        },
    )
    posterior = lrp.fit(model, recording, seed=0, progress=False)
    assert cover(posterior, parameters["M"] @ parameters["K"].T / NUM_NEURONS) > 0.7
    posterior.save(tmp_path / "dale.nc")
    loaded = lrp.load_posterior(tmp_path / "dale.nc")
    np.testing.assert_array_equal(
        loaded.sample_parameters(20, seed=3)["K"], posterior.sample_parameters(20, seed=3)["K"]
    )


def test_noise_of_the_latents_moves_with_the_gauge():
    """log p(activity) stays under (M A, K A^-T, A^-1 Q A^-T), and F says nothing along this change."""
    options = {
        "time_constant": {"E": 0.1, "I": lrp.TimeConstantPrior(0.05)},
        "observation": lrp.PoissonObservation(20.0),
    }
    options["observation"] = lrp.PoissonObservation(20.0)
    model, noise = dale_model(process_noise="full", **options), np.array([[0.02, 0.01], [0.01, 0.04]])
    simulation = lrp.simulate_recording(
        model, num_neurons=NUM_NEURONS, num_trials=2, num_bins=20, process_noise=noise, cell_types=TYPES, seed=0
    )
    recording, truth = simulation.recording, simulation.parameters
    with jax.enable_x64(True):
        problem = Problem.of(model, recording)

        def moved(A: np.ndarray) -> np.ndarray:
            inverse = np.linalg.inv(A)
            changed = {"M": truth["M"] @ A, "K": truth["K"] @ inverse.T, "process_noise": inverse @ noise @ inverse.T}
            return np.asarray(problem.space.whiten(problem.model.coordinates(truth | changed, recording.dt)))

        def log_likelihood(z: np.ndarray) -> float:
            return float(lrp.log_likelihood(problem.model, problem.space.unwhiten(z), problem.data))

        z, F = moved(np.eye(RANK)), problem.information(moved(np.eye(RANK)))
        for generator in np.eye(RANK**2).reshape(-1, RANK, RANK):
            ends = [moved(np.eye(RANK) + sign * 1e-4 * generator) for sign in (1.0, -1.0)]
            assert np.isclose(log_likelihood(ends[0]), log_likelihood(z), rtol=1e-9)
            direction = ((ends[0] - ends[1]) / 2e-4)[: len(F)]
            assert np.abs(F @ direction).max() < 1e-6 * np.abs(F).max() * np.abs(direction).max()


def test_responses_have_the_signs_of_the_stimulated_neurons(fitted):
    posterior, _ = fitted
    candidates = lrp.single_neuron_candidates(posterior.recording, power=1.0)
    responses = lrp.predict_responses(posterior, candidates, num_draws=50, seed=0, quantity="current")
    moved = np.any(responses != 0.0, axis=(0, 1, 2, 4))
    first = responses[:, :, :, np.flatnonzero(moved)[0]]
    assert np.all(np.sign(first.sum(axis=3)) == SIGNS[:, None])


def test_the_prior_of_a_ranking_has_the_signs(fitted):
    """The spread of first responses under the prior, from a contraction, against draws of the prior by hand.

    Without signs an entry of W varies 1.68 = 1 / (1 - (2 / pi)²) times as much.
    """
    posterior, _ = fitted
    candidates, window = lrp.single_neuron_candidates(posterior.recording, power=1.0), (0.62, 0.66)
    options = {"num_draws": 500, "window": window, "quantity": "current"}
    ranking = lrp.rank_perturbations(posterior, candidates, progress=False, **options)
    assert np.all(np.isnan(ranking.share_degenerate))
    random = np.random.default_rng(7)
    scale = np.array([SCALES[name] for name in TYPES])[:, None] / RANK
    M, K = np.abs(random.standard_normal((2, 500, NUM_NEURONS, RANK))) * np.stack([np.ones_like(scale), scale])[:, None]
    drawn = posterior.sample_parameters(500, seed=1) | {"M": M, "K": SIGNS[:, None] * K}
    drawn |= {"B": random.standard_normal((500, NUM_NEURONS, 2)), "b": random.standard_normal((500, NUM_NEURONS))}
    experiment = make_experiment(posterior, candidates, None, window)
    spreads = [
        response_draws(posterior.model, each, experiment, "current").var(axis=0, ddof=1).sum(axis=(1, 2, 3))
        for each in (posterior.sample_parameters(500, seed=1), drawn)
    ]
    found = spreads[0] / (1.0 - ranking.contraction)
    assert 1.0 / 1.3 < np.exp(np.mean(np.log(found / spreads[1]))) < 1.3


def test_the_prior_is_half_normal_within_the_signs():
    model, _, recording = truth(0, num_trials=4)
    with jax.enable_x64(True):
        settled = model.for_recording(recording)
        space = settled.space_for(recording)
        z = space.within_signs(np.random.default_rng(0).standard_normal((2000, space.size)))
        parameters = space.unwhiten(z)
        assert np.all(parameters["M"] >= 0.0)
        assert np.all(parameters["K"] * SIGNS[:, None] >= 0.0)
        one = {name: value[0] for name, value in parameters.items()}
        density = sum(
            scipy.stats.norm(block.mean, block.standard_deviation).logpdf(one[block.name]).sum()
            + (block.size * np.log(2.0) if block.name in ("M", "K") else 0.0)
            for block in space.blocks
        )
        assert float(lrp.log_prior(space, one)) == pytest.approx(density, rel=1e-12)
        assert float(lrp.log_prior(space, one | {"M": -one["M"]})) == -np.inf


def test_errors_name_what_does_not_fit(fitted):
    with pytest.raises(ValueError, match="posterior: expected a model without DaleLoadings"):
        lrp.analyze_degeneracy(fitted[0])
    _, _, recording = truth(0, num_trials=4)
    fit = {"seed": 0, "progress": False}
    with pytest.raises(ValueError, match="nonlinearity: expected 'softplus'"):
        dale_model(nonlinearity="tanh")
    with pytest.raises(ValueError, match="background: expected None"):
        dale_model(background=lrp.RandomBulk())
    with pytest.raises(ValueError, match=r"process_noise\.patterns: expected None under Dale's law"):
        dale_model(process_noise=lrp.ProcessNoise(patterns=np.eye(NUM_NEURONS, RANK)))
    with pytest.raises(ValueError, match="K: expected a number"):
        lrp.DaleLoadings(K=lrp.ScalePrior())
    for method in ("nuts", "svi", "ensemble", lrp.Laplace(correction="psis")):
        with pytest.raises(ValueError, match="method: expected 'laplace'"):
            lrp.fit(dale_model(), recording, method, **fit)
    with jax.enable_x64(True), pytest.raises(ValueError, match="model: expected a model without DaleLoadings"):
        lrp.numpyro_model(dale_model(), recording)
    with pytest.raises(ValueError, match="cell_types"):
        lrp.fit(dale_model(), lrp.Recording(recording.activity, 0.02, inputs=recording.inputs), **fit)
    one_kind = lrp.Recording(recording.activity, 0.02, inputs=recording.inputs, cell_types=["E"] * NUM_NEURONS)
    model = lrp.LowRankModel(1, nonlinearity="softplus", background=None, priors=lrp.DaleLoadings())
    with pytest.raises(ValueError, match="inhibitory: expected"):
        lrp.fit(model, one_kind, **fit)
