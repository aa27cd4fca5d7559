"""Latent circuits and full-rank networks: dynamics, modes, posteriors, ensembles and their responses."""

import dataclasses

import numpy as np
import pytest
from plain import plain_model

import lrposterior as lrp
from lrposterior.circuits.posterior import NetworkEnsemble, match_nodes, simulate_networks, simulate_nodes
from lrposterior.inference.circuit_mode import CircuitProblem
from lrposterior.inference.descent import descend
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.networks import network_responses
from lrposterior.perturbation.responses import response_draws
from lrposterior.precision import double_precision

DT, TAU, NUM_NEURONS, NUM_NODES = 0.02, 0.1, 15, 3


def inputs_of(num_trials: int, num_bins: int = 50) -> np.ndarray:
    random = np.random.default_rng(3)
    steps = random.standard_normal((num_trials, num_bins // 10, 2))
    return np.repeat(steps, 10, axis=1)


def draw_circuit(random: np.random.Generator, num_neurons: int = NUM_NEURONS) -> dict[str, np.ndarray]:
    return {
        "w": random.standard_normal((NUM_NODES, NUM_NODES)) / np.sqrt(NUM_NODES),
        "w_in": random.standard_normal((NUM_NODES, 2)),
        "b": random.standard_normal(NUM_NODES),
        "w_out": random.standard_normal((1, NUM_NODES)),
        "Q": np.linalg.qr(random.standard_normal((num_neurons, NUM_NODES)))[0],
    }


def record_circuit(seed: int, noise: float = 0.1, num_trials: int = 12) -> tuple[dict[str, np.ndarray], lrp.Recording]:
    random = np.random.default_rng(seed)
    truth, inputs = draw_circuit(random), inputs_of(num_trials)
    rates = simulate_networks(lrp.LatentCircuit(NUM_NODES, nonlinearity="softplus"), stack(truth), inputs, None, DT)[0]
    return truth, lrp.Recording(rates + noise * random.standard_normal(rates.shape), DT, inputs=inputs)


def stack(parameters: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value[None] for name, value in parameters.items()}


def orthonormal(Q: np.ndarray) -> bool:
    return np.allclose(np.swapaxes(Q, 1, 2) @ Q, np.eye(Q.shape[2]), atol=1e-10)


def as_posterior(model, parameters, recording) -> lrp.NetworkPosterior:
    return lrp.NetworkPosterior.known(model, recording, parameters)


def test_nodes_follow_their_equation():
    truth, recording = record_circuit(0, noise=0.0)
    a, rates = DT / TAU, np.zeros((recording.num_trials, NUM_NODES))
    random = np.random.default_rng(1)
    stimulation = random.standard_normal(recording.activity.shape)
    model = lrp.LatentCircuit(NUM_NODES, nonlinearity="relu")
    found = simulate_nodes(model, stack(truth), recording.inputs, stimulation, DT)[0]
    for time in range(recording.num_bins):
        np.testing.assert_allclose(found[:, time], rates, atol=1e-12)
        drive = rates @ truth["w"].T + recording.inputs[:, time] @ truth["w_in"].T + truth["b"]
        rates = (1 - a) * rates + a * np.maximum(drive + stimulation[:, time] @ truth["Q"], 0.0)


def test_silent_nodes_have_no_posterior():
    """Without input, bias or recurrence all nodes of a rectified circuit are silent."""
    _, recording = record_circuit(0)
    problem = CircuitProblem(lrp.LatentCircuit(NUM_NODES, nonlinearity="relu"), recording)
    with pytest.raises(lrp.FitError, match=r"num_nodes: .* 3 whose rates have rank 0.* lower num_nodes"):
        problem.laplace(np.zeros(problem.size))


@pytest.mark.slow
def test_full_rank_network_is_the_low_rank_one_where_its_weights_are():
    truth = lrp.simulate_recording(plain_model(2), num_neurons=12, num_trials=4, num_bins=40, dt=DT, seed=0)
    M, K, B, b = (truth.parameters[name] for name in ("M", "K", "B", "b"))
    network = {"W": M @ K.T / 12, "B": B, "b": b}
    model, recording = plain_model(2).for_recording(truth.recording), truth.recording
    posterior = as_posterior(lrp.FullRankNetwork(time_constant=model.time_constant), network, recording)
    low_rank = lrp.fit(plain_model(2), recording, seed=0, progress=False)
    candidates = lrp.single_neuron_candidates(recording, power=1.0, onset=0.1, duration=0.1)
    experiment = make_experiment(low_rank, candidates, None, None)
    for quantity in ("current", "rate"):
        draws = stack(dict(truth.parameters))
        expected = response_draws(low_rank.model, draws, experiment, quantity)
        found = network_responses(posterior, posterior.sample_parameters(1, seed=0), experiment, quantity)
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_circuit_without_recurrence_does_not_respond():
    truth, recording = record_circuit(0)
    posterior = as_posterior(lrp.LatentCircuit(NUM_NODES), truth | {"w": np.zeros((NUM_NODES, NUM_NODES))}, recording)
    candidates = lrp.single_neuron_candidates(recording, power=1.0, onset=0.1, duration=0.1)
    responses = lrp.predict_responses(posterior, candidates, quantity="rate", num_draws=1)
    assert np.abs(responses).max() < 1e-12
    connected = as_posterior(lrp.LatentCircuit(NUM_NODES), truth, recording)
    assert np.abs(lrp.predict_responses(connected, candidates, quantity="rate", num_draws=1)).max() > 1e-3


@double_precision
def test_slope_of_a_circuit_agrees_with_finite_differences():
    """Embedding and noise are always at their best, so the slope of the profile is that with both held."""
    truth, recording = record_circuit(2, noise=0.0)
    outputs = simulate_nodes(lrp.LatentCircuit(3, nonlinearity="softplus"), stack(truth), recording.inputs, None, DT)
    model = lrp.LatentCircuit(NUM_NODES, nonlinearity="softplus", outputs=outputs[0] @ truth["w_out"].T)
    problem = CircuitProblem(model, recording)
    random = np.random.default_rng(0)
    z, direction, step = 0.5 * random.standard_normal(problem.size), random.standard_normal(problem.size), 1e-5
    _, slope = problem.precision(z, 1.0)
    above, below = (problem.objective(z + sign * step * direction, 1.0) for sign in (1, -1))
    assert slope[: z.size] @ direction == pytest.approx((above - below) / (2 * step), rel=1e-6)


@double_precision
def test_embedding_is_the_best_one():
    _, recording = record_circuit(4)
    problem = CircuitProblem(lrp.LatentCircuit(NUM_NODES, nonlinearity="softplus"), recording)
    z = np.random.default_rng(0).standard_normal(problem.size)
    rates, Q = problem.rates(z), problem.embedding(z)
    squares = np.sum((problem.activity - rates @ Q.T) ** 2)
    assert problem.noise_variance(z) * problem.activity.size == pytest.approx(squares)
    random = np.random.default_rng(1)
    for _ in range(20):
        other = np.linalg.qr(Q + 0.1 * random.standard_normal(Q.shape))[0]
        other *= np.sign(np.sum(other * Q, axis=0))
        assert np.sum((problem.activity - rates @ other.T) ** 2) > squares


@pytest.mark.slow
def test_laplace_finds_the_circuit_and_its_intervals_cover():
    """All weights and embeddings of six circuits: 90% intervals hold between 82 and 97% of them.

    Weights of one circuit depend on each other; with some ten independent ones in each the standard error is 4%.
    """
    covered = []
    for seed in range(6):
        truth, recording = record_circuit(seed)
        model = lrp.LatentCircuit(NUM_NODES, nonlinearity="softplus")
        posterior = lrp.fit(model, recording, seed=0, num_restarts=8, progress=False)
        draws = posterior.sample_parameters(400, seed=1)
        assert orthonormal(draws["Q"])
        of_truth = truth | {"w_out": np.zeros((0, NUM_NODES))}
        together = {name: np.concatenate([of_truth[name][None], value]) for name, value in draws.items()}
        matched = match_nodes(together)
        for name in ("w", "w_in", "Q"):
            lower, upper = np.quantile(matched[name][1:], [0.05, 0.95], axis=0)
            covered.append(((truth[name] >= lower) & (truth[name] <= upper)).mean())
    assert 0.82 < np.mean(covered) < 0.97


def test_outputs_follow_the_trials_that_are_fitted():
    truth, recording = record_circuit(0)
    nodes = simulate_nodes(lrp.LatentCircuit(3, nonlinearity="softplus"), stack(truth), recording.inputs, None, DT)[0]
    model = lrp.LatentCircuit(NUM_NODES, nonlinearity="softplus", outputs=nodes @ truth["w_out"].T)
    method = lrp.Ensemble(2, regularisation=1.0, validation_fraction=0.25)
    ensemble = lrp.fit(model, recording, method, seed=0, progress=False)
    assert ensemble.recording.num_trials == 9
    chosen = [int(np.flatnonzero((recording.inputs == one).all(axis=(1, 2)))[0]) for one in ensemble.recording.inputs]
    np.testing.assert_array_equal(ensemble.model.outputs, model.outputs[chosen])
    errors = ensemble.predict_outputs(recording.inputs, num_draws=2, seed=0) - model.outputs
    assert np.mean(errors**2) < 0.05 * model.outputs.var()


@pytest.mark.slow
def test_losses_are_of_what_was_observed():
    """Currents of 3 are no rates of 1: a loss that mistook one for the other would be large."""
    model = plain_model(1, observation=lrp.GaussianObservation(of="current"))
    truth = lrp.simulate_recording(model, num_neurons=8, num_trials=6, num_bins=40, dt=DT, noise_scale=0.05, seed=1)
    ensemble = lrp.fit(model, truth.recording, lrp.Ensemble(2, num_steps=2000), seed=0, progress=False)
    np.testing.assert_allclose(ensemble.statistics.training_loss, 0.05**2, rtol=0.2)


def test_responses_that_diverge_are_refused():
    truth, recording = record_circuit(0)
    wild = as_posterior(lrp.LatentCircuit(NUM_NODES), truth | {"w": 1e10 * np.eye(NUM_NODES)}, recording)
    candidates = lrp.single_neuron_candidates(recording, power=1.0, onset=0.1, duration=0.1)
    with pytest.raises(ValueError, match="posterior: expected networks whose responses are finite"):
        lrp.predict_responses(wild, candidates, quantity="rate", num_draws=1)


def test_matched_nodes_undo_a_permutation():
    circuit = draw_circuit(np.random.default_rng(0))
    order = np.array([2, 0, 1])
    moved = {
        "w": circuit["w"][np.ix_(order, order)],
        "w_in": circuit["w_in"][order],
        "b": circuit["b"][order],
        "w_out": circuit["w_out"][:, order],
        "Q": circuit["Q"][:, order],
    }
    both = match_nodes({name: np.stack([circuit[name], moved[name]]) for name in circuit})
    for value in both.values():
        np.testing.assert_array_equal(value[0], value[1])


@pytest.mark.slow
def test_twins_fit_the_recording_and_keep_what_it_does_not_determine():
    """Unregularised networks differ where the recording is silent; regularised ones are small there.

    Losses are the variance of the noise, held-out ones with what W takes from the noise of eight trials on top.
    """
    truth = lrp.simulate_recording(
        plain_model(2), num_neurons=20, num_trials=10, num_bins=50, dt=DT, noise_scale=0.1, seed=0
    )
    model = lrp.FullRankNetwork(time_constant=plain_model(2).time_constant)
    free = lrp.fit(model, truth.recording, lrp.Ensemble(3), seed=0, progress=False)
    tied = lrp.fit(model, truth.recording, lrp.Ensemble(3, regularisation=1.0), seed=0, progress=False)
    for ensemble in (free, tied):
        np.testing.assert_allclose(ensemble.statistics.training_loss, 0.01, rtol=0.1)
        np.testing.assert_allclose(ensemble.statistics.validation_loss, 0.01, rtol=0.4)
    scatter = [ensemble.sample_connectivity(3, seed=0).std(axis=0).mean() for ensemble in (free, tied)]
    assert scatter[0] > 3 * scatter[1]


@pytest.mark.slow
def test_regularised_low_rank_networks_reach_the_mode():
    """With the prior in full the loss is the negative log density: networks end within a nat of the mode's."""
    truth = lrp.simulate_recording(
        plain_model(1), num_neurons=8, num_trials=6, num_bins=40, dt=DT, noise_scale=0.1, seed=1
    )
    method = lrp.Ensemble(3, regularisation=1.0, num_steps=3000, validation_fraction=0.0)
    ensemble = lrp.fit(plain_model(1), truth.recording, method, seed=0, progress=False)
    laplace = lrp.fit(plain_model(1), truth.recording, seed=0, progress=False)
    assert ensemble.statistics.objective == pytest.approx(laplace.statistics.objective, abs=1.0)
    assert ensemble.method == "ensemble"
    assert np.isnan(ensemble.statistics.validation_loss).all()
    assert ensemble.sample_connectivity(3, seed=0).to_dense().shape == (3, 8, 8)


@pytest.mark.slow
def test_saved_ensemble_keeps_its_losses(tmp_path):
    truth = lrp.simulate_recording(plain_model(1), num_neurons=6, num_trials=5, num_bins=30, dt=DT, seed=1)
    ensemble = lrp.fit(plain_model(1), truth.recording, lrp.Ensemble(2, num_steps=5), seed=0, progress=False)
    assert ensemble.status.startswith("not converged: 2 of 2")
    ensemble.save(tmp_path / "twins.nc")
    loaded = lrp.load_posterior(tmp_path / "twins.nc")
    np.testing.assert_array_equal(loaded.statistics.training_loss, ensemble.statistics.training_loss)
    np.testing.assert_array_equal(loaded.statistics.validation_loss, ensemble.statistics.validation_loss)


def test_descent_of_a_quadratic_finds_its_minimum():
    matrix = np.diag([1.0, 10.0, 100.0])
    point, value, _, converged = descend(lambda x: (0.5 * x @ matrix @ x + 1.0, matrix @ x), np.ones(3), 200)
    assert converged
    assert value == pytest.approx(1.0, abs=1e-3)
    assert np.abs(point).max() < 0.05


def bad_calls():
    _, recording = record_circuit(0)
    seen = np.arange(recording.activity.size).reshape(recording.activity.shape) > 5
    masked = dataclasses.replace(recording, mask=seen)
    full, circuit = lrp.FullRankNetwork(), lrp.LatentCircuit(2)
    return {
        "num_nodes: expected an integer >= 1": lambda: lrp.LatentCircuit(0),
        "num_nodes: expected at most 15": lambda: lrp.fit(lrp.LatentCircuit(16), recording, seed=0),
        "nonlinearity: expected one of 'relu', 'softplus', 'linear'": lambda: lrp.LatentCircuit(2, nonlinearity="tanh"),
        "outputs: expected shape": lambda: lrp.fit(
            lrp.LatentCircuit(2, outputs=np.zeros((1, 2, 1))), recording, seed=0
        ),
        "recording: expected trials without stimulation": lambda: lrp.fit(
            circuit, dataclasses.replace(recording, stimulation=np.ones(recording.activity.shape)), seed=0
        ),
        "recording: expected every entry observed": lambda: lrp.fit(circuit, masked, seed=0),
        "time_constant: expected at least the bin width": lambda: lrp.fit(
            lrp.LatentCircuit(2, time_constant=0.001), recording, seed=0
        ),
        "method: expected 'ensemble' for a FullRankNetwork": lambda: lrp.fit(full, recording, seed=0),
        "method: expected 'laplace' or 'ensemble' for a LatentCircuit": lambda: lrp.fit(
            circuit, recording, "nuts", seed=0
        ),
        r"validation_fraction: expected a number in \[0, 1\)": lambda: lrp.Ensemble(validation_fraction=1.0),
        "regularisation: expected a number in": lambda: lrp.Ensemble(regularisation=-1.0),
        "validation_fraction: expected trials to be left": lambda: lrp.fit(
            full, recording.select(trials=[0]), lrp.Ensemble(2), seed=0
        ),
        "num_draws: expected at most the 2 networks": lambda: NetworkEnsemble({"w": np.zeros((2, 1))}).sample(
            3, seed=0
        ),
        "posterior: expected Posterior, got NetworkPosterior": lambda: lrp.rank_perturbations(
            as_posterior(circuit, record_circuit(0)[0], recording), lrp.single_neuron_candidates(recording, power=1.0)
        ),
        "quantity: expected 'rate' for a LatentCircuit": lambda: lrp.predict_responses(
            as_posterior(circuit, record_circuit(0)[0], recording),
            lrp.single_neuron_candidates(recording, power=1.0),
            num_draws=1,
        ),
    }


@pytest.mark.parametrize("message", bad_calls())
def test_errors_name_the_argument_and_the_mend(message):
    with pytest.raises(ValueError, match=message):
        bad_calls()[message]()
