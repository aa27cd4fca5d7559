"""Start, mode and posterior of the structured engine, against those of the dense one."""

import dataclasses

import numpy as np
import pytest
from plain import plain_model
from structured_cases import (
    entry_means,
    problem_of,
    scales_of,
    simulated_problem,
    structured_from_dense,
    system_of,
    to_dense,
    to_vector,
)

import lrposterior as lrp
from lrposterior.inference.balance import balance
from lrposterior.inference.initialise import initialise
from lrposterior.inference.mode import find_mode
from lrposterior.inference.structured_problem import StructuredProblem
from lrposterior.structured import coarse
from lrposterior.structured import start as start_module
from lrposterior.structured import trajectory as passes
from lrposterior.structured.entries import entry_variances
from lrposterior.structured.gauge import regauge, regauge_information, settle, settle_trades
from lrposterior.structured.layout import vertical_directions
from lrposterior.structured.mode import ConvergenceError, descend
from lrposterior.structured.start import find_start


def fitted(problem, **options):
    system = system_of(problem, **options)
    deviations = scales_of(problem).deviations(system.layout)
    start = find_start(system, deviations)
    vector, objective, decrement, _ = descend(system, deviations, start, tolerance=1e-5, max_iterations=300)
    return system, deviations, start, vector, objective, decrement


@pytest.mark.slow
@pytest.mark.parametrize("subset", [1000, 15])
def test_the_start_is_as_good_as_the_dense_one(subset, monkeypatch):
    monkeypatch.setattr(start_module, "SUBSET", subset)
    problem = simulated_problem(num_neurons=40, num_trials=8, num_bins=40)
    system = system_of(problem)
    deviations = scales_of(problem).deviations(system.layout)
    vector = find_start(system, deviations)
    reached = passes.objective(system, passes.run(system, vector), deviations)
    expected = problem.negative_log_density(initialise(problem))
    prior = problem.negative_log_density(problem.best_noise(np.zeros(problem.space.size)))
    assert reached < expected + (0.01 if subset == 1000 else 0.1) * (prior - expected)


@pytest.mark.slow
def test_mode_balance_and_posterior_equal_the_dense_ones():
    problem = simulated_problem(num_neurons=40, num_trials=8, num_bins=40)
    system, deviations, _, _, objective, decrement = fitted(problem)
    dense = find_mode(problem, initialise(problem))
    assert decrement < 1e-5
    np.testing.assert_allclose(objective, dense.objective, rtol=0, atol=0.01)
    structured = StructuredProblem.of(problem.model, problem.recording)
    mode = balance(structured, structured.find_mode(max_iterations=300)).mode
    expected = balance(problem, dense).mode
    np.testing.assert_allclose(mode.objective, expected.objective, rtol=0, atol=0.05)
    assert mode.decrement < structured.decrement_tolerance
    determinant = np.linalg.slogdet(expected.information + np.eye(problem.space.num_dynamics))[1]
    same, located = np.ones((1, mode.z.size)), mode.z[None]
    posterior = structured.distribution(mode.z, mode.information, same, located, np.ones(40)).covariance(0)
    np.testing.assert_allclose(posterior.log_determinant, determinant, rtol=1e-3)
    at_dense, at_mode = to_vector(problem, system.layout, expected.z), structured.coordinates.vector(mode.z)
    post, pre = np.divmod(np.arange(1600), 40)
    exact = entry_means(system, at_dense, post, pre)
    information = expected.information / np.outer(*2 * [_dense_scale(problem)])
    layout = system.layout
    to = (
        np.stack([to_dense(problem, layout, e) for e in np.eye(layout.num_coordinates)], axis=1)
        * _dense_scale(problem)[:, None]
    )
    vertical = vertical_directions(layout, at_dense, system.seen_right)
    dense_posterior = structured_from_dense(layout, to.T @ information @ to, vertical, deviations).posterior(deviations)
    sd = np.sqrt(entry_variances(system, at_dense, dense_posterior, post, pre))
    assert np.abs((entry_means(system, at_mode, post, pre) - exact) / sd).max() < 0.05
    ratio = np.sqrt(entry_variances(system, at_mode, posterior, post, pre)) / sd
    assert np.median(np.abs(ratio - 1)) < 1e-3
    assert np.abs(ratio - 1).max() < 5e-3


def _dense_scale(problem):
    return problem.space.standard_deviations[: problem.space.num_dynamics]


def test_a_mode_with_seen_latents_and_correlated_loadings_is_stationary():
    problem = simulated_problem(num_neurons=30, num_trials=8, num_bins=40)
    rates = problem.recording.activity.reshape(-1, 30)
    seen_right = np.sqrt(30) * np.linalg.svd(rates, full_matrices=False)[2][:3].T
    system, deviations, _, vector, objective, _ = fitted(problem, seen_right=seen_right, correlated=True)
    slope = passes.gradient(system, passes.run(system, vector)) + vector / deviations**2
    assert np.linalg.norm(slope * deviations) < 0.5
    assert np.isfinite(objective)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"initial_state": "free"}, {"nonlinearity": "softplus"}, {"nonlinearity": "linear"}]
)
def test_modes_of_every_kind_of_network_equal_the_dense_ones(options):
    model = plain_model(1, **options)
    simulation = lrp.simulate_recording(model, num_neurons=15, num_trials=6, num_bins=30, noise_scale=0.2, seed=4)
    problem = problem_of(model, num_neurons=2)
    mask = np.random.default_rng(0).random(simulation.recording.activity.shape) < 0.9
    recording = dataclasses.replace(simulation.recording, mask=mask)
    problem = type(problem).of(model, recording)
    _, _, _, _, objective, _ = fitted(problem)
    dense = find_mode(problem, initialise(problem))
    assert abs(objective - dense.objective) < 0.01


def test_a_network_that_diverges_has_an_infinite_objective():
    problem = problem_of(plain_model(1, nonlinearity="relu"), num_bins=400, stimulation=False, gaps=False)
    system = system_of(problem)
    deviations = scales_of(problem).deviations(system.layout)
    vector = np.full(deviations.size, 1e3)
    trajectory = passes.run(system, vector)
    assert not np.all(np.isfinite(trajectory.squares))
    assert passes.objective(system, trajectory, deviations) == np.inf


def test_moving_along_the_gauge_changes_no_network():
    problem = problem_of(plain_model(2, initial_state="free"), num_neurons=7)
    random = np.random.default_rng(2)
    system = system_of(problem, seen_right=random.standard_normal((7, 2)), correlated=True)
    deviations = scales_of(problem).deviations(system.layout)
    vector = 0.5 * random.standard_normal(deviations.size)
    before = passes.run(system, vector)
    A = np.eye(2) + 0.3 * random.standard_normal((2, 2))
    for moved in (
        regauge(system.layout, vector, A),
        settle(system.layout, vector, deviations, system.seen_right),
        settle_trades(system.layout, vector, deviations, system.seen_right),
    ):
        after = passes.run(system, moved)
        np.testing.assert_allclose(after.squares, before.squares, rtol=1e-9)
    settled = settle(system.layout, vector, deviations, system.seen_right)
    vertical = vertical_directions(system.layout, settled, system.seen_right)
    along = vertical.T @ (settled / deviations**2)
    assert np.abs(along).max() < 1e-6 * np.abs(vertical.T).sum(axis=1).max()
    F = random.standard_normal((vector.size, vector.size))
    information = structured_from_dense(system.layout, F @ F.T, vertical, deviations)
    push = np.stack([regauge(system.layout, e, A) for e in np.eye(vector.size)], axis=1)
    regauged = regauge_information(information, A).times(np.eye(vector.size))
    inverse = np.linalg.inv(push)
    np.testing.assert_allclose(regauged, inverse.T @ F @ F.T @ inverse, atol=1e-8 * np.abs(F @ F.T).max() * 10)


def test_a_rank_above_what_the_activity_spans_is_refused():
    problem = simulated_problem(num_neurons=12)
    system = system_of(problem)
    flat = dataclasses.replace(system, activity=np.zeros_like(system.activity))
    with pytest.raises(ConvergenceError, match="rank"):
        find_start(flat, scales_of(problem).deviations(system.layout))


def test_the_mode_of_some_neurons_leads_to_a_start_for_all(monkeypatch):
    monkeypatch.setattr(coarse, "COARSE_NEURONS", 25)
    problem = simulated_problem(num_neurons=80, num_trials=8, num_bins=40)
    system = system_of(problem)
    deviations = scales_of(problem).deviations(system.layout)
    phases = []
    start = coarse.find_refined_start(system, deviations, report=lambda phase, *_: phases.append(phase))
    assert set(phases) == {"coarse mode"}
    reached = passes.objective(system, passes.run(system, start), deviations)
    _, best, *_ = descend(system, deviations, start)
    silent = passes.objective(system, passes.run(system, np.zeros_like(start)), deviations)
    assert reached < best + 0.1 * (silent - best)
