"""Passes over the recording and products of the information, against the dense engine and automatic differentiation."""

import jax
import numpy as np
import pytest
from plain import plain_model
from structured_cases import (
    automatic_objective,
    information_times,
    jacobian_to_dense,
    problem_of,
    scales_of,
    system_of,
    to_vector,
)

import lrposterior as lrp
from lrposterior.structured import courses as courses_module
from lrposterior.structured import system as system_module
from lrposterior.structured import trajectory as passes
from lrposterior.structured.courses import network_courses
from lrposterior.structured.layout import vertical_directions
from lrposterior.structured.products import Linearisation

NONLINEARITIES = ("tanh", "relu", "softplus", "linear")


@pytest.fixture(params=[2_000_000, 60], ids=["one chunk", "chunks"], autouse=True)
def chunk_entries(request, monkeypatch):
    monkeypatch.setattr(system_module, "CHUNK_ENTRIES", request.param)


@pytest.fixture(params=[True, False], ids=["by sample", "in a basis"], autouse=True)
def by_sample(request, monkeypatch):
    monkeypatch.setattr(courses_module, "_pays_by_sample", lambda system: request.param)


def case(nonlinearity="tanh", of="rate", initial_state="zero", **options):
    model = plain_model(2, 0.1, nonlinearity, lrp.GaussianObservation(of), initial_state=initial_state)
    problem = problem_of(model, **options)
    random = np.random.default_rng(1)
    z = problem.best_noise(0.7 * random.standard_normal(problem.space.size))
    return problem, z


def rich_system(initial_state="zero", nonlinearity="tanh"):
    """Seen latents, correlated loadings, and everything else."""
    problem, _ = case(nonlinearity, initial_state=initial_state)
    random = np.random.default_rng(2)
    seen_right = np.sqrt(6) * np.linalg.qr(random.standard_normal((6, 2)))[0]
    system = system_of(problem, seen_right=seen_right, correlated=True)
    return system, 0.5 * random.standard_normal(system.layout.num_coordinates)


def linearise(system, vector, tolerance=1e-9):
    trajectory = passes.run(system, vector)
    return Linearisation.of(system, trajectory, network_courses(system, trajectory, tolerance=tolerance))


@pytest.mark.parametrize("initial_state", ["zero", "free"])
@pytest.mark.parametrize("of", ["rate", "current"])
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_objective_gradient_and_noise_equal_the_dense_ones(nonlinearity, of, initial_state):
    problem, z = case(nonlinearity, of, initial_state)
    system, deviations = system_of(problem), scales_of(problem).deviations(system_of(problem).layout)
    vector = to_vector(problem, system.layout, z)
    trajectory = passes.run(system, vector)
    expected = problem.negative_log_density(z)
    np.testing.assert_allclose(passes.objective(system, trajectory, deviations), expected, rtol=1e-12)
    noise = np.asarray(problem.space.unwhiten(z)["log_noise_scale"])
    np.testing.assert_allclose(trajectory.log_noise_scale, noise, atol=1e-10)
    slope = passes.gradient(system, trajectory) + vector / deviations**2
    num_dynamics = problem.space.num_dynamics
    dense = problem.gradient(z)[:num_dynamics] @ jacobian_to_dense(problem, system.layout)
    np.testing.assert_allclose(slope, dense, rtol=0, atol=1e-9 * np.abs(dense).max())


@pytest.mark.parametrize("tolerance", [0.0, 1e-9])
@pytest.mark.parametrize("initial_state", ["zero", "free"])
@pytest.mark.parametrize("of", ["rate", "current"])
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_information_products_equal_the_dense_matrix(nonlinearity, of, initial_state, tolerance):
    problem, z = case(nonlinearity, of, initial_state)
    system = system_of(problem)
    linearisation = linearise(system, to_vector(problem, system.layout, z), tolerance)
    to_dense = jacobian_to_dense(problem, system.layout)
    expected = to_dense.T @ problem.information(z) @ to_dense
    actual = information_times(linearisation, np.eye(system.layout.num_coordinates))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("nonlinearity", ["tanh", "softplus"])
@pytest.mark.parametrize("initial_state", ["zero", "free"])
def test_seen_latents_and_correlated_loadings_by_automatic_differentiation(initial_state, nonlinearity):
    system, vector = rich_system(initial_state, nonlinearity)
    linearisation = linearise(system, vector)
    trajectory = linearisation.trajectory
    deviations = np.random.default_rng(5).uniform(0.5, 2.0, vector.size)
    currents, objective = automatic_objective(system, deviations, trajectory.log_noise_scale)
    slope = passes.gradient(system, trajectory) + vector / deviations**2
    expected = np.asarray(jax.grad(objective)(vector))
    np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    jacobian = np.asarray(jax.jacfwd(currents)(vector))
    sensitivity = np.asarray(system.observation.sensitivity(currents(vector), nonlinearity))
    weight = system.mask.T * (sensitivity * np.exp(-trajectory.log_noise_scale)) ** 2
    information = np.einsum("tnp,tn,tnq->pq", jacobian, weight, jacobian)
    actual = information_times(linearisation, np.eye(vector.size))
    np.testing.assert_allclose(actual, information, rtol=0, atol=1e-9 * np.abs(information).max())


@pytest.mark.parametrize("initial_state", ["zero", "free"])
def test_the_information_vanishes_along_the_gauge_and_nowhere_else_by_structure(initial_state):
    system, vector = rich_system(initial_state)
    vertical = vertical_directions(system.layout, vector, system.seen_right)
    rank, seen = 2, 2
    assert vertical.shape[1] == rank**2 + rank * seen + rank * (rank + 2 + 1)
    assert np.linalg.matrix_rank(vertical) == vertical.shape[1]
    currents, _ = automatic_objective(system, np.ones(vector.size), np.zeros(6))
    moved = np.stack([np.asarray(jax.jvp(currents, (vector,), (column,))[1]) for column in vertical.T])
    assert np.abs(moved).max() < 1e-12
    for tolerance in (1e-9, 1e-2):
        product = information_times(linearise(system, vector, tolerance), vertical)
        whole = information_times(linearise(system, vector, tolerance), np.eye(vector.size))
        assert np.abs(product).max() < 1e-11 * np.abs(whole).max()


def test_push_and_pull_are_transposes():
    system, vector = rich_system("free")
    layout, random = system.layout, np.random.default_rng(3)
    changes = random.standard_normal((vector.size, 2))
    loadings, K = layout.push(vector, changes)
    other, right = random.standard_normal(loadings.shape), random.standard_normal(K.shape)
    pulled = layout.pull(vector, other, right)
    np.testing.assert_allclose(
        np.sum(pulled * changes, axis=0), (loadings * other).sum((0, 1)) + (K * right).sum((0, 1))
    )
    step = 1e-6
    moved = (
        layout.right_factors(vector + step * changes[:, 0]) - layout.right_factors(vector - step * changes[:, 0])
    ) / (2 * step)
    np.testing.assert_allclose(moved, K[:, :, 0], atol=1e-8)
