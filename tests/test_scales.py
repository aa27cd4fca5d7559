"""Prior scales, the balance of the gauge, and the orbits of correlated loadings, against their definitions."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from plain import plain_model

import lrposterior as lrp
from lrposterior.inference.balance import _followed_log_determinants, _scale_step, balance
from lrposterior.inference.laplace import log_evidence, scale_nodes
from lrposterior.inference.mode import find_mode
from lrposterior.inference.problem import Problem
from lrposterior.orbit import gauge_exponent, move, vertical_basis
from lrposterior.precision import double_precision

FIXED = {"B": 1.0, "b": 1.0, "initial_kappa": 1.0}
PRIOR = lrp.ScalePrior(1.5, 0.5)


@functools.cache
def recording(num_inputs=1) -> lrp.Recording:
    return lrp.simulate_recording(
        plain_model(2),
        num_neurons=8,
        num_trials=4,
        num_bins=25,
        num_inputs=num_inputs,
        noise_scale=0.1,
        cell_types=list("EIEEIEIE"),
        seed=3,
    ).recording


def model_of(*, bulk=False, correlated=False, by_cell_type=False, free=False, K=1.0) -> lrp.LowRankModel:
    priors = lrp.Priors(K=K, **FIXED)
    if correlated or by_cell_type:
        priors = lrp.CorrelatedLoadings(K=K, by_cell_type=by_cell_type, **FIXED)
    return lrp.LowRankModel(
        2,
        priors=priors,
        background=lrp.RandomBulk(gain=0.5, dimension=2) if bulk else None,
        initial_state="free" if free else "zero",
    )


COMBINATIONS = [
    {"bulk": bulk, "correlated": correlated, "free": free}
    for bulk, correlated, free in itertools.product([False, True], repeat=3)
] + [{"by_cell_type": True}, {"bulk": True, "by_cell_type": True, "free": True}]
every_combination = pytest.mark.parametrize(
    "parts", COMBINATIONS, ids=["+".join(name for name in one if one[name]) or "plain" for one in COMBINATIONS]
)


@functools.cache
@double_precision
def balanced_at(correlated: bool, K: float | lrp.ScalePrior):
    problem = Problem.of(model_of(correlated=correlated, K=K), recording())
    first = lrp.fit(model_of(correlated=correlated), recording(), seed=0, progress=False)
    return balance(problem, find_mode(problem, first.mode_coordinates))


# ----------------------------------------------------------------------------------------------------------- the scales


@pytest.mark.slow
@pytest.mark.parametrize("correlated", [False, True], ids=["independent", "correlated"])
def test_slope_of_a_scale_is_that_of_the_evidence(correlated):
    """Where the steps end, the evidence of refits at fixed scales is flat, to a tenth of the scale's posterior sd.

    Without the stretches it would be .3 sd away at this size, and without the change of the curvature more.
    """
    inferred = balanced_at(correlated, PRIOR)
    K, step = inferred.problem.model.scale("K"), 0.05

    @double_precision
    def evidence(factor: float) -> float:
        at = balanced_at(correlated, K * factor)
        value, _ = log_evidence(at.problem, at.mode)
        assert value is not None
        return value

    slope = (evidence(np.exp(step)) - evidence(np.exp(-step))) / (2.0 * step)
    slope -= np.log(K / PRIOR.median) / PRIOR.spread**2
    assert abs(slope) < 0.1 * np.sqrt(inferred.scale_precision[0, 0])


@pytest.mark.parametrize("correlated", [False, True], ids=["independent", "correlated"])
@double_precision
def test_scale_step_vanishes_at_the_balance(correlated):
    inferred = balanced_at(correlated, PRIOR)
    problem, z = inferred.problem, inferred.mode.z
    covariance = problem.covariance(z, problem.information(z))
    step = _scale_step(problem, z, covariance, _followed_log_determinants(problem, z, covariance))
    assert np.max(np.abs(step.change)) < 0.1 / np.sqrt(step.precision[0, 0])
    np.testing.assert_allclose(step.precision, inferred.scale_precision, rtol=1e-6)


@pytest.mark.parametrize("num_scales", [1, 2, 5])
def test_scale_nodes_have_the_moments_of_the_normal_posterior(num_scales):
    root = np.random.default_rng(1).standard_normal((num_scales, num_scales)) + 2.0 * np.eye(num_scales)
    nodes = scale_nodes(root @ root.T)
    np.testing.assert_allclose(nodes.mean(axis=0), 0.0, atol=1e-12)
    covariance = nodes.T @ nodes / len(nodes)
    np.testing.assert_allclose(covariance, np.linalg.inv(root @ root.T), atol=1e-10)


# ---------------------------------------------------------------------------------------------------------- the balance


@pytest.mark.parametrize("correlated", [False, True], ids=["independent", "correlated"])
@double_precision
def test_expected_moments_balance(correlated):
    """E[L^T L] - E[Q^T Q] - E[c c^T] - E[H H^T + H^T H] = e I, with the covariance across the gauge."""
    balanced = balanced_at(correlated, 1.0)
    problem, z = balanced.problem, balanced.mode.z
    space, matrix = problem.space, problem.covariance(z, balanced.mode.information).matrix

    def second_moment(name: str, *, of_columns: bool = False) -> np.ndarray:
        at = space.coordinates(z, name)
        rows = space.slices[name]
        covariance = matrix[rows, rows].reshape(*at.shape, *at.shape)
        if of_columns:
            return at @ at.T + np.einsum("rcsc->rs", covariance)
        return at.T @ at + np.einsum("rcrd->cd", covariance)

    difference = second_moment("M") - second_moment("K")
    for name in space.regressions:
        difference -= second_moment(name, of_columns=True)
        if name == "K_on_M":
            difference -= second_moment(name)
    exponent = gauge_exponent(space)
    scale = np.linalg.norm(second_moment("M"))
    np.testing.assert_allclose(difference, exponent * np.eye(2), atol=3e-3 * scale)


# ------------------------------------------------------------------------------------------------------------ the orbit


@functools.cache
def point(**parts: bool) -> tuple[Problem, np.ndarray]:
    model = model_of(**parts)
    if parts.get("by_cell_type"):  # as after a fit: scales that differ
        model = model.for_recording(recording()).with_scales({"K[E]": 0.5, "K[I]": 2.0})
    problem = Problem.of(model, recording())
    z = np.random.default_rng(2).standard_normal(problem.space.size)
    return problem, 0.5 * z


@every_combination
@double_precision
def test_vertical_space_is_the_kernel_of_the_network(parts):
    problem, z = point(**parts)
    space, subspace = problem.space, problem.subspace

    def network(dynamics):
        named = space.unwhiten(jnp.concatenate([dynamics, jnp.asarray(z[space.num_dynamics :])]))
        W = named["M"] @ named["K"].T / len(named["M"])
        if subspace is not None:
            W = W + named["A"] @ subspace.T
        initial = named["M"] @ named["initial_kappa"].T if parts.get("free") else jnp.zeros(0)
        return jnp.concatenate([each.ravel() for each in (W, named["B"], named["b"], initial)])

    jacobian = np.asarray(jax.jacobian(network)(jnp.asarray(z[: space.num_dynamics])))
    kernel = scipy.linalg.null_space(jacobian, rcond=1e-9)
    vertical = vertical_basis(space, z, subspace)
    assert vertical.shape == kernel.shape
    np.testing.assert_allclose(vertical.T @ vertical, np.eye(vertical.shape[1]), atol=1e-9)
    np.testing.assert_allclose(np.linalg.svd(vertical.T @ kernel, compute_uv=False), 1.0, atol=1e-9)


@every_combination
@double_precision
def test_moves_are_a_group_that_leaves_currents_unchanged(parts):
    problem, z = point(**parts)
    A, C = np.array([[1.2, 0.3], [-0.4, 0.7]]), np.array([[0.8, -0.2], [0.1, 1.5]])
    first = move(problem.space, z, A, np.linalg.inv(A))
    np.testing.assert_allclose(problem.currents(first), problem.currents(z), atol=1e-9)
    both = move(problem.space, z, A @ C, np.linalg.inv(A @ C))
    np.testing.assert_allclose(move(problem.space, first, C, np.linalg.inv(C)), both, atol=1e-12)
    np.testing.assert_allclose(move(problem.space, first, np.linalg.inv(A), A), z, atol=1e-12)


@every_combination
def test_gauge_exponent_is_that_of_the_volume_of_a_move(parts):
    problem, z = point(**parts)
    A = np.array([[1.2, 0.3], [-0.4, 0.7]])
    linear = move(problem.space, np.eye(z.size), A, np.linalg.inv(A))
    expected = gauge_exponent(problem.space) * np.log(np.linalg.det(A))
    assert np.linalg.slogdet(linear)[1] == pytest.approx(expected, abs=1e-9)


# ---------------------------------------------------------------------------------------------------------- cell types


@pytest.mark.slow
def test_residual_scales_of_cell_types_are_nearer_to_the_truth_than_any_shared_one():
    """Where two scales differ by a factor of five, a shared one misses one of them by root five at least.

    Forty neurons, as with fewer, and in some recordings of as many, the evidence prefers independent loadings.
    """
    truth, cell_types, random = {"E": 0.4, "I": 2.0}, ["E", "I"] * 20, np.random.default_rng(1)
    M = random.standard_normal((40, 1))
    residual = np.array([truth[cell_type] for cell_type in cell_types])[:, None] * random.standard_normal((40, 1))
    simulation = lrp.simulate_recording(
        plain_model(1),
        M=M,
        K=2.0 * M + residual,
        num_trials=12,
        num_bins=40,
        num_inputs=3,
        noise_scale=0.05,
        cell_types=cell_types,
        seed=1,
    )
    model = plain_model(1, priors=lrp.CorrelatedLoadings(by_cell_type=True, B=1.0, b=1.0))
    posterior = lrp.fit(model, simulation.recording, seed=0, progress=False)
    assert list(posterior.statistics.scales) == ["K[E]", "K[I]"]
    assert posterior.statistics.regression_ahead > 0.0
    for cell_type, scale in truth.items():
        found, spread = posterior.statistics.scales[f"K[{cell_type}]"]
        assert abs(np.log(found / scale)) < 0.5 * np.log(truth["I"] / truth["E"])
        assert abs(np.log(found / scale)) < 2.0 * spread
