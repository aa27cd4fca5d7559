"""The structured engine stands in for the dense curvature in fits of many coordinates: the switch must not be seen."""

import numpy as np
import psutil
import pytest
from any_size_cases import INFERRED, MODELS, dense_fit, recording, structured_fit
from handmade import assert_same
from structured_cases import structured_from_dense

import lrposterior as lrp
from lrposterior.distribution import StructuredDistribution, normals
from lrposterior.inference.problem import Problem
from lrposterior.inference.structured_problem import StructuredProblem
from lrposterior.orbit import move, settle_trades, vertical_basis
from lrposterior.precision import double_precision


def differences(model: lrp.LowRankModel) -> tuple[float, float, float]:
    """Largest difference of the means of W in standard deviations, of these in themselves, and of the evidence."""
    one, other = dense_fit(model), structured_fit(model)
    assert not isinstance(one.distribution, StructuredDistribution)
    assert isinstance(other.distribution, StructuredDistribution)
    sd = one.connectivity_sd()
    mean = np.max(np.abs(other.connectivity_mean() - one.connectivity_mean()) / sd)
    evidence = other.statistics.log_evidence - one.statistics.log_evidence
    return float(mean), float(np.max(np.abs(other.connectivity_sd() / sd - 1.0))), abs(evidence)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_posterior_is_that_of_the_dense_form(model):
    mean, sd, evidence = differences(model)
    # Either form stops within some 1e-6 nats of the mode, and balances the gauge to 0.2%.
    assert mean < 4e-3
    assert sd < 3e-3
    assert evidence < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("model", INFERRED.values(), ids=INFERRED)
def test_posterior_is_that_of_the_dense_form_where_scales_are_inferred(model):
    mean, sd, evidence = differences(model)
    assert mean < 0.03
    assert sd < 0.02
    assert evidence < 0.1
    one, other = dense_fit(model).statistics.scales, structured_fit(model).statistics.scales
    assert list(one) == list(other)
    for name, (value, spread) in one.items():
        assert abs(np.log(other[name][0] / value)) < 0.1 * spread
        assert other[name][1] == pytest.approx(spread, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("model", [MODELS["bulk"], INFERRED["independent"]], ids=["one component", "mixture"])
def test_mean_moves_in_the_dense_form_alone(model):
    """The one difference between the forms: where coordinates are many, moving the mean costs far more than the fit."""
    posteriors = {
        (fit, mean): fit(model, mean) for fit in (dense_fit, structured_fit) for mean in ("mode", "variational")
    }
    W = {case: posterior.connectivity_mean().ravel() for case, posterior in posteriors.items()}
    sd = dense_fit(model).connectivity_sd().ravel()
    assert 0.05 < np.std((W[dense_fit, "variational"] - W[dense_fit, "mode"]) / sd) < 0.5
    np.testing.assert_array_equal(W[structured_fit, "variational"], W[structured_fit, "mode"])
    assert posteriors[dense_fit, "variational"].statistics.diagnostics["nats gained by the mean"] > 0.5


@pytest.mark.parametrize("model", [MODELS["all"], INFERRED["all"]], ids=["one component", "mixture"])
def test_draws_have_the_moments_of_the_components(model):
    distribution = structured_fit(model).distribution
    draws = distribution.sample(20_000, seed=1)
    weights, components = zip(*normals(distribution), strict=True)
    assert sum(weights) == pytest.approx(1.0)
    mean = sum(weight * each.location for weight, each in zip(weights, components, strict=True))
    variance = sum(
        weight * (np.sum(each.scale**2, axis=1) + (each.location - mean) ** 2)
        for weight, each in zip(weights, components, strict=True)
    )
    # Sampling errors: 0.007 standard deviations of a mean, 0.5% of a standard deviation; five times that.
    assert np.max(np.abs(draws.mean(axis=0) - mean) / np.sqrt(variance)) < 0.036
    np.testing.assert_allclose(draws.std(axis=0), np.sqrt(variance), rtol=0.03)


@pytest.mark.parametrize("name", MODELS)
def test_entries_are_those_of_the_moments(name):
    posterior = structured_fit(MODELS[name])
    post, pre = np.divmod(np.arange(144), 12)
    mean, sd = posterior.connectivity_entries(post, pre)
    np.testing.assert_allclose(mean, posterior.connectivity_mean().ravel(), atol=1e-8)
    np.testing.assert_allclose(sd, posterior.connectivity_sd().ravel(), rtol=1e-6)


def test_draws_of_W_have_the_stated_sd():
    posterior = structured_fit(MODELS["independent"])
    W = posterior.sample_connectivity(4000, seed=0).to_dense()
    np.testing.assert_allclose(W.std(axis=0), posterior.connectivity_sd(), rtol=0.06)


@pytest.mark.parametrize("name", ["free", "bulk", "correlated", "all"])
@double_precision
def test_information_that_is_carried_over_is_that_found_anew(name):
    problem = StructuredProblem.of(MODELS[name], recording())
    dense = Problem.of(MODELS[name], recording())
    z = structured_fit(MODELS[name]).mode_coordinates
    A = np.array([[1.2, 0.3], [-0.1, 0.8]])
    moved, trades = settle_trades(problem.space, move(problem.space, z, A, np.linalg.inv(A)), problem.subspace)
    # From a matrix without truncation, so that nothing but the move differs.
    coordinates, unit = problem.coordinates, np.eye(problem.space.num_dynamics)
    jacobian, columns = coordinates.whitened(unit), coordinates.unscaled(unit)
    exact = structured_from_dense(
        problem.system.layout,
        jacobian.T @ dense.information(z) @ jacobian,
        coordinates.unscaled(vertical_basis(problem.space, z, problem.subspace)),
        coordinates.deviations,
    )
    expected = dense.information(moved)
    found = columns.T @ problem.carried(exact, A, trades).times(columns)
    np.testing.assert_allclose(found, expected, atol=1e-8 * np.max(np.abs(expected)))


@pytest.mark.parametrize("name", MODELS)
def test_results_know_a_structured_posterior(name, tmp_path):
    dense, posterior = dense_fit(MODELS[name]), structured_fit(MODELS[name])
    np.testing.assert_allclose(posterior.spectrum.removed_variance, dense.spectrum.removed_variance, atol=0.01)
    assert posterior.to_arviz(num_draws=20, seed=0).posterior.sizes["draw"] == 20
    posterior.save(tmp_path / "fit.nc")
    assert_same(posterior, lrp.load_posterior(tmp_path / "fit.nc"))


@pytest.mark.usefixtures("structured_fits")
def test_refusal_where_memory_would_not_do(monkeypatch):
    free = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(ValueError, match=r"recording: expected one whose posterior fits into 1e-06 GB .* 12 neurons"):
        lrp.fit(MODELS["independent"], recording(), seed=0, progress=False)
