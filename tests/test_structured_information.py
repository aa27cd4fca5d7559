"""The structured information and its posterior, against dense matrices."""

import numpy as np
import pytest
from plain import plain_model
from structured_cases import (
    entry_means,
    information_times,
    jacobian_to_dense,
    problem_of,
    scales_of,
    simulated_problem,
    structured_from_dense,
    system_of,
    to_dense,
    to_vector,
)

from lrposterior.inference.initialise import initialise
from lrposterior.structured import trajectory as passes
from lrposterior.structured.courses import network_courses
from lrposterior.structured.entries import entry_variances
from lrposterior.structured.krylov import block_krylov, reduce_precision
from lrposterior.structured.layout import vertical_directions
from lrposterior.structured.products import Linearisation


def information_at(system, vector, deviations, *, tolerance=1e-8, max_rank=10_000, residual=1e-6):
    trajectory = passes.run(system, vector)
    courses = network_courses(system, trajectory, tolerance=tolerance)
    linearisation = Linearisation.of(system, trajectory, courses)
    reduced = reduce_precision(linearisation, deviations, max_rank=max_rank, tolerance=residual)
    return linearisation, reduced.information()


def rich_case(initial_state="free"):
    """Seen latents, correlated loadings, free initial latents, gaps and stimulation."""
    problem = problem_of(plain_model(2, initial_state=initial_state), num_neurons=7)
    random = np.random.default_rng(2)
    seen_right = np.sqrt(7) * np.linalg.qr(random.standard_normal((7, 2)))[0]
    system = system_of(problem, seen_right=seen_right, correlated=True)
    deviations = scales_of(problem).deviations(system.layout)
    return system, 0.5 * random.standard_normal(deviations.size), deviations


def dense_posterior(F, vertical, deviations):
    """Covariance without the vertical part, and log determinant, of a dense information."""
    whitened = deviations[:, None] * F * deviations
    basis, _ = np.linalg.qr(vertical / deviations[:, None])
    covariance = np.linalg.inv(whitened + np.eye(len(F))) - basis @ basis.T
    return deviations[:, None] * covariance * deviations, np.linalg.slogdet(whitened + np.eye(len(F)))[1]


def test_the_chain_of_a_small_matrix_is_exact_and_orthonormal():
    random = np.random.default_rng(0)
    matrix = random.standard_normal((40, 9)) @ np.diag(np.geomspace(1e-3, 1e4, 9)) @ random.standard_normal((9, 40))
    matrix = matrix + matrix.T
    first = random.standard_normal((40, 3))
    chain = block_krylov(lambda columns: matrix @ columns, first, max_rank=100, tolerance=1e-9, size=5, seed=0)
    np.testing.assert_allclose(chain.basis.T @ chain.basis, np.eye(chain.basis.shape[1]), atol=1e-12)
    rebuilt = chain.basis @ chain.projected @ chain.basis.T
    np.testing.assert_allclose(rebuilt, matrix, atol=1e-9 * np.abs(matrix).max())


@pytest.mark.parametrize("initial_state", ["zero", "free"])
def test_the_krylov_form_equals_the_dense_form(initial_state):
    system, vector, deviations = rich_case(initial_state)
    linearisation, structured = information_at(system, vector, deviations)
    F = information_times(linearisation, np.eye(vector.size))
    np.testing.assert_allclose(structured.times(np.eye(vector.size)), F, rtol=0, atol=1e-9 * np.abs(F).max())
    dense = structured_from_dense(system.layout, F, structured.vertical, deviations)
    np.testing.assert_allclose(dense.times(np.eye(vector.size)), F, rtol=0, atol=1e-9 * np.abs(F).max())


@pytest.mark.parametrize("other_scales", [1.0, 0.6])
@pytest.mark.parametrize("kind", ["krylov", "dense"])
def test_posterior_under_any_prior_equals_the_dense_inverse(kind, other_scales):
    system, vector, at = rich_case()
    linearisation, structured = information_at(system, vector, at)
    F = information_times(linearisation, np.eye(vector.size))
    if kind == "dense":
        structured = structured_from_dense(system.layout, F, structured.vertical, at)
    deviations = at * other_scales ** np.random.default_rng(0).uniform(0, 2, at.size)
    posterior = structured.posterior(deviations)
    covariance, log_determinant = dense_posterior(F, structured.vertical, deviations)
    size = np.abs(covariance).max()
    identity = np.eye(vector.size)
    np.testing.assert_allclose(posterior.log_determinant, log_determinant, rtol=1e-8)
    np.testing.assert_allclose(posterior.times(identity), covariance, rtol=0, atol=1e-8 * size)
    np.testing.assert_allclose(posterior.covariance(identity, identity), covariance, rtol=0, atol=1e-8 * size)
    np.testing.assert_allclose(posterior.variances(), np.diag(covariance), rtol=0, atol=1e-8 * size)
    root = posterior.color(identity)
    np.testing.assert_allclose(root @ root.T, covariance, rtol=0, atol=1e-8 * size)
    layout = system.layout
    index = layout.rows(np.arange(vector.size))
    blocks = covariance[index[:, :, None], index[:, None, :]]
    np.testing.assert_allclose(posterior.row_covariance(), blocks, rtol=0, atol=1e-8 * size)
    shared = covariance[layout.num_local :, layout.num_local :]
    np.testing.assert_allclose(posterior.shared_covariance(), shared, rtol=0, atol=1e-8 * size)


def test_traces_and_overlaps_of_whitened_coordinates():
    system, vector, deviations = rich_case()
    _, structured = information_at(system, vector, deviations)
    posterior = structured.posterior(deviations)
    covariance = posterior.times(np.eye(vector.size)) / (deviations[:, None] * deviations)
    groups, learned = posterior.groups(), np.eye(vector.size) - covariance
    assert sorted(np.concatenate(list(groups.values()))) == list(range(vector.size))
    for name, trace in posterior.whitened_traces().items():
        np.testing.assert_allclose(trace, np.trace(covariance[np.ix_(groups[name], groups[name])]), rtol=1e-8)
    names, overlaps = posterior.learned_overlaps()
    expected = [[np.sum(learned[np.ix_(groups[i], groups[j])] ** 2) for j in names] for i in names]
    np.testing.assert_allclose(overlaps, expected, rtol=1e-8, atol=1e-8)


def test_variances_of_entries_equal_those_by_the_gradient():
    system, vector, deviations = rich_case()
    _, structured = information_at(system, vector, deviations)
    posterior = structured.posterior(deviations)
    post, pre = np.divmod(np.arange(49), 7)
    layout, step = system.layout, 1e-6

    def W(point):
        left = layout.loadings(point)[:, : layout.num_latents]
        return (left @ system.right_factors(point).T / 7).ravel()

    np.testing.assert_allclose(entry_means(system, vector, post, pre), W(vector))
    slopes = np.stack([(W(vector + step * e) - W(vector - step * e)) / (2 * step) for e in np.eye(vector.size)])
    expected = np.diag(posterior.covariance(slopes, slopes))
    actual = entry_variances(system, vector, posterior, post, pre)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-9 * expected.max())


def test_a_truncated_chain_agrees_with_the_dense_laplace_to_one_in_a_thousand():
    """100 neurons, where the chain is much smaller than the number of coordinates."""
    problem = simulated_problem(num_neurons=100, num_trials=12, num_bins=50)
    z = initialise(problem)
    system, deviations = system_of(problem), scales_of(problem).deviations(system_of(problem).layout)
    vector = to_vector(problem, system.layout, z)
    linearisation, structured = information_at(system, vector, deviations, tolerance=1e-6, max_rank=240, residual=0.02)
    assert structured.weights.size <= 240
    posterior = structured.posterior(deviations)
    jacobian = jacobian_to_dense(problem, system.layout)
    F = jacobian.T @ problem.information(z) @ jacobian
    covariance, log_determinant = dense_posterior(F, structured.vertical, deviations)
    np.testing.assert_allclose(posterior.log_determinant, log_determinant, rtol=1e-3)
    post, pre = np.random.default_rng(0).integers(0, 100, (2, 500))
    exact = structured_from_dense(system.layout, F, structured.vertical, deviations).posterior(deviations)
    np.testing.assert_allclose(exact.log_determinant, log_determinant, rtol=1e-9)
    sd, expected = (np.sqrt(entry_variances(system, vector, one, post, pre)) for one in (posterior, exact))
    assert np.median(np.abs(sd / expected - 1)) < 1e-4
    assert np.abs(sd / expected - 1).max() < 3e-3
    assert to_dense(problem, system.layout, vector).shape == (problem.space.num_dynamics,)
    assert vertical_directions(system.layout, vector, system.seen_right).shape[1] == 4
    np.testing.assert_allclose(exact.times(np.eye(len(F))), covariance, atol=1e-7 * np.abs(covariance).max())
    assert linearisation.blocks.shape == (100, 5, 5)
