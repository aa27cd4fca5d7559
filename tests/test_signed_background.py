"""A full background with signs, and networks without self-connections, under Dale's law."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from handmade import make_posterior

import lrposterior as lrp
from lrposterior.curvature import automatic_information
from lrposterior.inference.problem import Problem
from lrposterior.inference.signed_start import positive_factors
from lrposterior.options import make_model
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.responses import response_draws
from lrposterior.signed_background import entries_of, matrix_of

TYPES = ["E", "E", "E", "E", "I", "I"]
NUM_NEURONS, NUM_BINS, RANK, DT = len(TYPES), 15, 2, 0.02
SIGNS = np.where(np.array(TYPES) == "I", -1.0, 1.0)
POPULATIONS = {"E": 0.1, "I": 0.05}
BOTH = {"background": lrp.SignedBackground({"E": 1.0, "I": 4.0}), "self_connections": False}
CASES = {
    "no self-connections": {"self_connections": False},
    "background": {"background": lrp.SignedBackground(2.0)},
    "both": BOTH,
    "populations": BOTH | {"time_constant": POPULATIONS},
    "own time constants": BOTH | {"initial_state": "free", "time_constant": lrp.PerNeuron(lrp.TimeConstantPrior(0.1))},
}


def model_of(rank=RANK, **options) -> lrp.LowRankModel:
    settings = {
        "nonlinearity": "softplus",
        "observation": lrp.GaussianObservation(of="rate"),
        "background": None,
        "priors": lrp.DaleLoadings(K={"E": 1.5, "I": 4.0}, unit=1.0),
    }
    return lrp.LowRankModel(rank, **(settings | options))


def simulated(num_trials=3, num_bins=NUM_BINS, seed=0, types=TYPES, rank=RANK, **options) -> lrp.Simulation:
    size = {"num_neurons": len(types), "num_trials": num_trials, "num_bins": num_bins, "dt": DT}
    return lrp.simulate_recording(model_of(rank, **options), cell_types=types, noise_scale=0.1, seed=seed, **size)


def problem_and_point(simulation: lrp.Simulation) -> tuple[Problem, np.ndarray]:
    problem = Problem.of(simulation.model, simulation.recording)
    return problem, np.asarray(problem.space.whiten(problem.model.coordinates(simulation.parameters, DT)))


def connectivity(parameters: dict[str, np.ndarray], self_connections: bool) -> np.ndarray:
    """W by its definition, entry by entry."""
    W = np.zeros((NUM_NEURONS, NUM_NEURONS))
    for post in range(NUM_NEURONS):
        for pre in range(NUM_NEURONS):
            if post != pre or self_connections:
                W[post, pre] = parameters["M"][post] @ parameters["K"][pre] / NUM_NEURONS
                W[post, pre] += parameters["W0"][post, pre] if "W0" in parameters else 0.0
    return W


@pytest.fixture(params=CASES)
def case(request):
    return simulated(**CASES[request.param])


@pytest.mark.parametrize("self_connections", [True, False])
def test_entries_of_a_matrix_are_in_their_places(self_connections):
    W0 = np.random.default_rng(0).standard_normal((3, 5, 5))
    if not self_connections:
        W0[:, np.arange(5), np.arange(5)] = 0.0
    entries = entries_of(W0, self_connections)
    assert entries.shape == (3, 5, 5 if self_connections else 4)
    np.testing.assert_array_equal(matrix_of(entries), W0)
    np.testing.assert_array_equal(matrix_of(jnp.asarray(entries)), W0)


def test_draws_of_the_prior_have_signs_and_no_self_connections(case):
    model = case.model
    np.testing.assert_array_equal(case.connectivity, connectivity(case.parameters, model.self_connections))
    assert np.all(case.connectivity * SIGNS >= 0.0)
    assert np.all((np.diagonal(case.connectivity) == 0.0) == (not model.self_connections))


def test_currents_are_those_of_a_plain_loop(case):
    """x[t+1] = (1 - a) x[t] + a (W softplus(x[t]) + B u[t] + b), with W as one matrix."""
    parameters, model = case.parameters, case.model.for_recording(case.recording)
    W, inputs = connectivity(parameters, model.self_connections), case.recording.inputs
    taus = parameters["time_constant"]
    if model.num_populations == 2:
        taus = np.array([POPULATIONS[name] for name in TYPES])
    x = np.zeros(case.recording.activity.shape)
    if model.initial_state == "free":
        x[:, 0] = parameters["initial_kappa"] @ parameters["M"].T + parameters["b"]
    for time in range(NUM_BINS - 1):
        driven = np.log1p(np.exp(x[:, time])) @ W.T + inputs[:, time] @ parameters["B"].T + parameters["b"]
        x[:, time + 1] = (1.0 - DT / taus) * x[:, time] + DT / taus * driven
    found = model.simulated_currents(parameters, case.recording, seed=0)
    np.testing.assert_allclose(found, x, rtol=1e-10, atol=1e-12)


def test_all_that_is_read_of_w_is_that_of_the_matrix(case):
    posterior = make_posterior(case.model, case.recording)
    draws = posterior.sample_parameters(4, seed=3)
    W = posterior.sample_connectivity(4, seed=3)
    one_by_one = [{name: value[draw] for name, value in draws.items()} for draw in range(4)]
    dense = np.stack([connectivity(each, case.model.self_connections) for each in one_by_one])
    v = np.random.default_rng(1).standard_normal((4, NUM_NEURONS))
    post, pre = np.array([0, 3, 3, 5]), np.array([0, 1, 3, 2])
    for found, expected in (
        (W.to_dense(), dense),
        (W.matvec(v), np.einsum("dij,dj->di", dense, v)),
        (W.rmatvec(v), np.einsum("dij,di->dj", dense, v)),
        (W.entries(post, pre), dense[:, post, pre]),
        (W.block(post[1:], pre), dense[:, post[1:]][:, :, pre]),
        (W.seen().to_dense(), dense),
        (W.singular_values(), np.linalg.svd(dense, compute_uv=False)),
        (np.abs(W.eigenvalues()[:, 0]), np.abs(np.linalg.eigvals(dense)).max(axis=1)),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    moments = posterior._sample_moments(posterior.distribution.sample(50, seed=0))
    every = posterior.sample_connectivity(50, seed=0).to_dense()
    if not case.model.self_connections:
        assert np.all(np.diagonal(W.to_dense(), axis1=1, axis2=2) == 0.0)
    np.testing.assert_allclose(moments[0], every.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(moments[1], every.var(axis=0, ddof=1), atol=1e-12)


@pytest.mark.parametrize("num_neurons", [12, 60])
@pytest.mark.parametrize("name", ["half-normal", "log-normal"])
def test_the_scale_is_what_a_type_sends_at_any_number_of_neurons(num_neurons, name):
    """With all rates 1 a type sends sign * scale * share * E q to a neuron, on average; magnitudes are those of q."""
    scales, spread = {"E": 1.5, "I": 4.0}, 0.5
    types = ["E"] * (num_neurons * 3 // 4) + ["I"] * (num_neurons // 4)
    priors = lrp.DaleLoadings(K=1.0, unit=1.0, magnitudes=name, spread=spread)
    model = model_of(background=lrp.SignedBackground(scales), priors=priors)
    recording = lrp.Recording(np.ones((1, 2, num_neurons)), DT, cell_types=types)
    with jax.enable_x64(True):
        settled = model.for_recording(recording)
        space = settled.space_for(recording)
        z = np.random.default_rng(0).standard_normal((400, space.size))
        W0 = settled.named(space.unwhiten(z), DT)["W0"]
    expected = scipy.stats.halfnorm() if name == "half-normal" else scipy.stats.lognorm(spread)
    for sign, share, each in ((1.0, 0.75, "E"), (-1.0, 0.25, "I")):
        belongs = np.array(types) == each
        sent = W0[:, :, belongs].sum(axis=2)
        assert sent.mean() == pytest.approx(sign * scales[each] * share * expected.mean(), rel=0.02)
        q = sign * num_neurons * W0[:, :, belongs].ravel() / scales[each]
        assert scipy.stats.kstest(q[:20000], expected.cdf).pvalue > 1e-4


@pytest.mark.parametrize("options", [CASES["no self-connections"], BOTH | {"time_constant": POPULATIONS}])
def test_the_likelihood_with_process_noise_is_that_of_a_filter_of_all_currents(options):
    """Where relu is linear, Kalman's filter over the N currents themselves, with W as one matrix and noise M Q M^T."""
    noise = np.array([[0.02, 0.01], [0.01, 0.04]])
    model = model_of(
        **(options | {"nonlinearity": "relu", "process_noise": "full", "initial_state": "free"}),
    )
    simulation = simulated(num_trials=2, **options, process_noise="full", initial_state="free")
    parameters = dict(simulation.parameters) | {"b": np.full(NUM_NEURONS, 40.0), "process_noise": noise}
    parameters |= {name: 0.2 * parameters[name] for name in ("K", "W0") if name in parameters}
    recording = model.simulate(parameters, simulation.recording, seed=1)
    W, B = connectivity(parameters, model.self_connections), parameters["B"]
    taus = np.array([POPULATIONS[name] for name in TYPES]) if "time_constant" in options else np.full(NUM_NEURONS, 0.1)
    a, M = DT / taus, parameters["M"]
    F, R = np.diag(1.0 - a) + a[:, None] * W, np.diag(parameters["noise_scale"] ** 2)
    expected = np.zeros(2)
    for trial in range(2):
        x, P = M @ parameters["initial_kappa"][trial] + parameters["b"], np.zeros((NUM_NEURONS, NUM_NEURONS))
        for now, seen in zip(recording.inputs[trial], recording.activity[trial], strict=True):
            expected[trial] += scipy.stats.multivariate_normal(x, P + R).logpdf(seen)
            gain = P @ np.linalg.inv(P + R)
            x, P = x + gain @ (seen - x), P - gain @ P
            assert np.all(x > 5.0)
            x, P = F @ x + a * (B @ now + parameters["b"]), F @ P @ F.T + M @ noise @ M.T
    with jax.enable_x64(True):
        problem = Problem.of(model, recording)
        known = {name: jnp.asarray(value) for name, value in problem.model.coordinates(parameters, DT).items()}
        found = lrp.likelihood.log_likelihood_by_trial(problem.model.structure, known, problem.data)
    # The filter adds 1e-10 to the variance of every current.
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.long
@pytest.mark.slow
def test_the_information_is_that_of_automatic_differentiation(case):
    problem, z = problem_and_point(case)
    information = jax.jit(automatic_information, static_argnums=0)
    expected = np.asarray(information(problem.model.structure, problem.space, jnp.asarray(z), problem.data))
    np.testing.assert_allclose(problem.information(z), expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("options", [CASES["no self-connections"], BOTH])
def test_columns_may_change_places_and_scales(options):
    simulation = simulated(**options)
    model, parameters = simulation.model.for_recording(simulation.recording), simulation.parameters
    A = np.array([[0.0, 3.0], [0.2, 0.0]])
    moved = parameters | {"M": parameters["M"] @ A, "K": parameters["K"] @ np.linalg.inv(A).T}
    found = [model.simulated_currents(each, simulation.recording, seed=0) for each in (moved, parameters)]
    np.testing.assert_allclose(*found, rtol=1e-10)


def test_a_background_takes_back_what_the_low_rank_part_does():
    simulation = simulated(**BOTH)
    model, parameters = simulation.model.for_recording(simulation.recording), simulation.parameters
    moved = parameters | {"M": 1.1 * parameters["M"]}
    moved["W0"] = parameters["W0"] + connectivity(parameters, False) - connectivity(moved, False)
    np.testing.assert_allclose(connectivity(moved, False), simulation.connectivity, atol=1e-12)
    found = [model.simulated_currents(each, simulation.recording, seed=0) for each in (moved, parameters)]
    np.testing.assert_allclose(*found, rtol=1e-10)


@pytest.mark.parametrize("name", ["both", "populations"])
@pytest.mark.parametrize("quantity", ["current", "rate"])
def test_responses_are_those_of_two_plain_loops(name, quantity):
    simulation = simulated(**CASES[name])
    posterior = make_posterior(simulation.model, simulation.recording)
    candidates = lrp.single_neuron_candidates(simulation.recording, power=1.0, onset=0.06, duration=0.06)
    experiment = make_experiment(posterior, candidates, None, (0.1, 0.3))
    draws = posterior.sample_parameters(2, seed=0)
    found = response_draws(posterior.model, draws, experiment, quantity)
    taus = np.array([POPULATIONS[each] for each in TYPES]) if name == "populations" else np.full(NUM_NEURONS, 0.1)
    a = DT / taus

    def softplus(x):
        return np.log1p(np.exp(x))

    for draw in range(2):
        one = {key: value[draw] for key, value in draws.items()}
        W = connectivity(one, posterior.model.self_connections)
        for candidate, pattern in enumerate(experiment.patterns):
            x, y, light = np.zeros(NUM_NEURONS), np.zeros(NUM_NEURONS), np.zeros(NUM_NEURONS)
            for time in range(experiment.stop):
                if time >= experiment.start:
                    change = y - x - light if quantity == "current" else softplus(y) - softplus(x + light)
                    at = found[draw, candidate, 0, time - experiment.start]
                    np.testing.assert_allclose(at, change, rtol=1e-8, atol=1e-10)
                drive = one["B"] @ experiment.inputs[0, time] + one["b"]
                shone = experiment.time_course[time] * pattern
                x = (1.0 - a) * x + a * (W @ softplus(x) + drive)
                y = (1.0 - a) * y + a * (W @ softplus(y) + drive + shone)
                light = (1.0 - a) * light + a * shone


@pytest.mark.parametrize("options", [{}, BOTH])
def test_responses_amid_process_noise_are_alike_with_one_time_constant_and_two_that_are_equal(options):
    """The noise reaches the neurons of every population."""
    simulation = simulated(**options, process_noise="full")
    posterior = make_posterior(simulation.model, simulation.recording)
    candidates = lrp.single_neuron_candidates(simulation.recording, power=1.0, onset=0.06, duration=0.06)
    experiment = make_experiment(posterior, candidates, None, (0.1, 0.3))
    draws = posterior.sample_parameters(2, seed=0)
    two = dataclasses.replace(posterior.model, time_constant={"E": 0.1, "I": 0.1}).for_recording(simulation.recording)
    found = [
        response_draws(each, draws | {"time_constant": np.full(shape, 0.1)}, experiment, "rate")
        for each, shape in ((posterior.model, (2,)), (two, (2, 2)))
    ]
    np.testing.assert_allclose(*found, rtol=1e-8, atol=1e-10)


def test_positive_factors_of_a_product_without_its_diagonal_are_found():
    M, K = np.abs(np.random.default_rng(0).standard_normal((2, 15, 2)))
    found = positive_factors(M @ K.T + np.diag(np.full(15, 7.0)), 2, has_diagonal=False)
    rest = found[0] @ found[1].T - M @ K.T
    assert np.abs(rest).max() < 0.05 * np.max(M @ K.T)


def test_saved_and_loaded(case, tmp_path):
    posterior = make_posterior(case.model, case.recording)
    posterior.save(tmp_path / "fit.nc")
    loaded = lrp.load_posterior(tmp_path / "fit.nc")
    assert loaded.model == posterior.model
    for found, expected in zip(
        loaded.sample_parameters(3, seed=0).items(), posterior.sample_parameters(3, seed=0).items(), strict=True
    ):
        assert found[0] == expected[0]
        np.testing.assert_array_equal(found[1], expected[1])


TRUTH_TYPES = ["E"] * 6 + ["I"] * 2


@pytest.fixture(scope="module")
def fitted():
    simulation = simulated(30, 60, 3, TRUTH_TYPES, 1, **BOTH)
    return lrp.fit(simulation.model, simulation.recording, seed=0, progress=False), simulation


@pytest.mark.slow
def test_a_fit_holds_the_truth(fitted):
    """Over seven networks 90% intervals hold 0.91 of W, 0.07 apart, and means correlate with it by 0.99."""
    posterior, simulation = fitted
    assert posterior.status == "converged"
    lower, upper = posterior.connectivity_interval(0.9, num_draws=800, seed=1)
    apart = ~np.eye(len(TRUTH_TYPES), dtype=bool)
    W = simulation.connectivity
    held = np.mean(((lower <= W) & (upper >= W))[apart])
    assert held > 0.7
    assert np.corrcoef(posterior.connectivity_mean()[apart], W[apart])[0, 1] > 0.8
    draws = posterior.sample_connectivity(50, seed=0).to_dense()
    assert np.all(draws[:, np.eye(len(TRUTH_TYPES), dtype=bool)] == 0.0)
    assert np.all(draws * np.where(np.array(TRUTH_TYPES) == "I", -1.0, 1.0) >= 0.0)


@pytest.mark.slow
def test_a_ranking_and_a_diagnosis_of_a_fit(fitted):
    posterior, simulation = fitted
    candidates = lrp.single_neuron_candidates(simulation.recording, power=1.0)
    ranking = lrp.rank_perturbations(posterior, candidates, num_draws=50, progress=False)
    assert np.all(np.isfinite(ranking.expected_r2))
    W = posterior.mode_connectivity.dense(0)
    weights = lrp.diagnose(posterior, num_draws=1, seed=0).trained.weights["E -> I"]
    assert weights.highest == pytest.approx(W[6:, :6].max())


@pytest.mark.long
@pytest.mark.slow
def test_a_match_keeps_signs_and_has_no_self_connections():
    simulation = simulated(20, 30, 1, **BOTH, process_noise="diagonal")
    method = lrp.Match(num_epochs=3, warm_up=1, ramp=1, validation=0.2)
    posterior = lrp.fit(simulation.model, simulation.recording, method, seed=0, progress=False)
    W = posterior.mode_connectivity.dense(0)
    assert np.all(np.diagonal(W) == 0.0)
    assert np.all(W * SIGNS >= 0.0)
    assert posterior.mode["W0"].shape == W.shape


def test_options_in_words():
    options = {"rank": 1, "nonlinearity": "softplus", "priors": "dale", "self_connections": False}
    model = make_model(options | {"background": {"kind": "signed", "scale": {"E": 1.0, "I": 4.0}}})
    assert model.background == BOTH["background"]
    assert not model.self_connections


@pytest.mark.slow
def test_the_degeneracy_of_a_fit_is_that_of_w_without_its_diagonal(fitted):
    posterior, _ = fitted
    found, size = lrp.analyze_degeneracy(posterior), len(TRUTH_TYPES)
    # All changes of M and K, of rank 1, are taken back by W0: one of them is the gauge.
    assert (found.num_gauge, found.num_trades) == (1, 2 * size - 1)
    assert found.connectivity.num_seen == size * (size - 1)
    np.testing.assert_array_equal(np.isnan(found.contraction), np.eye(size, dtype=bool))
    assert found.sampled_contraction.shape == (size * (size - 1),)
    assert np.median(found.sampled_contraction) > 0.3
    assert f"gauge directions, counted apart: 1, and {2 * size - 1} trades" in str(found)
    dW = np.random.default_rng(0).standard_normal((size, size))
    split = found.split(dW)
    np.testing.assert_allclose(split.constrained + split.degenerate, dW * (1.0 - np.eye(size)), atol=1e-8)


def test_errors_name_the_mend():
    recording = simulated().recording
    with pytest.raises(ValueError, match=r"self_connections: expected .* without DaleLoadings, got False; give priors"):
        lrp.LowRankModel(1, self_connections=False)
    with pytest.raises(ValueError, match=r"background: expected .* without DaleLoadings"):
        lrp.LowRankModel(1, background=lrp.SignedBackground())
    with pytest.raises(ValueError, match=r"self_connections: expected True or False"):
        model_of(self_connections=0)
    with pytest.raises(ValueError, match=r"scale: expected"):
        lrp.SignedBackground(-1.0)
    with pytest.raises(ValueError, match=r"scale\['E'\]: expected"):
        lrp.SignedBackground({"E": 0.0, "I": 1.0})
    with pytest.raises(ValueError, match=r"background\.scale: expected a value for each of the cell types"):
        model_of(background=lrp.SignedBackground({"E": 1.0})).for_recording(recording)
    activity = np.random.default_rng(0).random((1, 5, 63))
    many = lrp.Recording(activity, DT, cell_types=["E"] * 43 + ["I"] * 20)
    with pytest.raises(ValueError, match=r"self_connections: expected at most 64 latents.*got 65; use method='match'"):
        lrp.fit(model_of(self_connections=False), many, seed=0)
    with pytest.raises(ValueError, match=r"background: expected at most 64 latents"):
        lrp.fit(model_of(background=lrp.SignedBackground()), many, seed=0)
    simulation = simulated(**BOTH)
    wrong = simulation.parameters | {"W0": simulation.parameters["W0"] + 0.1 * np.eye(NUM_NEURONS)}
    with pytest.raises(ValueError, match=r"parameters\['W0'\]: expected no self-connections"):
        simulation.model.simulate(wrong, simulation.recording, seed=0)
    del wrong["W0"]
    with pytest.raises(ValueError, match=r"the key 'W0'"):
        simulation.model.simulate(wrong, simulation.recording, seed=0)
