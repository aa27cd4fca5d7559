"""The degeneracy from the factors of a covariance of any size, against that from the covariance as a matrix."""

import dataclasses
import functools

import numpy as np
import pytest
from any_size_cases import INFERRED, MODELS, dense_fit, structured_fit

from lrposterior.degeneracy import analyze_degeneracy
from lrposterior.distribution import normals
from lrposterior.perturbation.scores import _free_part
from lrposterior.structured.pencil import spread_over_grid

THRESHOLDS = (0.01, 0.1, 1.0, 10.0, 1e3)


@functools.cache
def pair(name):
    """The analysis by factors, and that of the same posterior as one matrix."""
    posterior = structured_fit(MODELS[name])
    ((_, normal),) = normals(posterior.distribution)
    return analyze_degeneracy(posterior), analyze_degeneracy(dataclasses.replace(posterior, distribution=normal))


@pytest.fixture(params=MODELS)
def analyses(request):
    return pair(request.param)


def test_counts_and_sums_are_those_of_the_matrix(analyses):
    factored, dense = analyses
    for found, expected in (
        (factored.parameters, dense.parameters),
        (factored.connectivity, dense.connectivity),
    ):
        assert found.num_directions == expected.num_directions
        for threshold in THRESHOLDS:
            found, expected = (dataclasses.replace(one, threshold=threshold) for one in (found, expected))
            assert found.num_constrained == expected.num_constrained
            assert found.num_degenerate == expected.num_degenerate
        assert found.effective_parameters == pytest.approx(expected.effective_parameters, rel=1e-8)
        assert found.information == pytest.approx(expected.information, rel=1e-8)
    for name in (
        "num_gauge",
        "num_trades",
        "num_unseen",
        "rate_rank",
        "null_dimension",
        "max_constrained_connectivity",
    ):
        assert getattr(factored, name) == getattr(dense, name)


def test_the_spectrum_lies_within_the_stated_factor(analyses):
    factored, dense = analyses
    for found, expected in (
        (factored.spectrum, dense.spectrum),
        (factored.connectivity.spectrum, dense.connectivity.spectrum),
    ):
        resolved = expected >= 1e-3
        np.testing.assert_array_equal(found > 0.0, resolved)
        assert np.max(np.abs(np.log(found[resolved] / expected[resolved]))) < np.log(1.35)
        assert (np.diff(found) <= 0.0).all()


def test_synapses_and_patterns_are_those_of_the_matrix(analyses):
    factored, dense = analyses
    np.testing.assert_allclose(factored.contraction, dense.contraction, atol=1e-10)
    post, pre = np.array([3, 3, 0]), np.array([3, 1, 11])
    np.testing.assert_allclose(factored.contraction_entries(post, pre), dense.contraction[post, pre], atol=1e-10)
    np.testing.assert_allclose(factored.sampled_contraction, dense.contraction.ravel(), atol=1e-10)
    for found, expected in ((factored.read, dense.read), (factored.written, dense.written)):
        number = len(found.patterns)
        assert number >= 11
        np.testing.assert_allclose(found.shares, expected.shares[:number], atol=1e-9)
        np.testing.assert_allclose(found.contraction, expected.contraction[:number], atol=1e-8)
        np.testing.assert_allclose(found.patterns[:3], expected.patterns[:3], atol=1e-6)


def test_null_deviation_and_split_are_those_of_the_matrix(analyses):
    # A coarse tolerance, so that some of the 12 patterns count as unvisited although the data say something of them.
    factored, dense = (dataclasses.replace(one, rate_tolerance=0.1) for one in analyses)
    assert 0 < factored.rate_rank < 12
    assert factored.null_deviation == pytest.approx(dense.null_deviation, rel=1e-4)
    dW = np.random.default_rng(0).standard_normal((12, 12))
    np.testing.assert_allclose(factored.split(dW).constrained, dense.split(dW).constrained, atol=1e-8)
    one, other = (analysis.latent_connectivity(seed=0) for analysis in analyses)
    np.testing.assert_allclose(one.basis, other.basis)


def test_both_print_the_same(analyses):
    factored, dense = analyses
    assert str(factored) == str(dense)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_analysis_of_the_dense_fit(name):
    factored, dense = pair(name)[0], analyze_degeneracy(dense_fit(MODELS[name]))
    assert factored.num_constrained == dense.num_constrained
    assert factored.connectivity.num_constrained == dense.connectivity.num_constrained
    for found, expected in ((factored.parameters, dense.parameters), (factored.connectivity, dense.connectivity)):
        assert found.effective_parameters == pytest.approx(expected.effective_parameters, rel=1e-3)
        assert found.information == pytest.approx(expected.information, rel=1e-3)
    np.testing.assert_allclose(factored.contraction, dense.contraction, atol=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("name", INFERRED)
def test_inferred_scales_make_no_difference_to_the_comparison(name):
    """Within what the mixture over scales adds beyond its root mean square, with 12 neurons much."""
    factored, dense = (analyze_degeneracy(fit(INFERRED[name])) for fit in (structured_fit, dense_fit))
    for found, expected in ((factored.parameters, dense.parameters), (factored.connectivity, dense.connectivity)):
        assert abs(found.num_constrained - expected.num_constrained) <= 2
        assert found.effective_parameters == pytest.approx(expected.effective_parameters, rel=0.03)
        assert found.information == pytest.approx(expected.information, rel=0.05)


@pytest.mark.parametrize("name", ["free", "all"])
def test_draws_are_held_along_constrained_directions(name):
    posterior, (_, dense) = structured_fit(MODELS[name]), pair(name)
    spectrum = dense.posterior.spectrum
    free = spectrum.directions[:, spectrum.information < 1.0]
    moved = np.random.default_rng(0).standard_normal((len(free), 20))
    found, expected = _free_part(posterior.distribution, moved), free @ (free.T @ moved)
    assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)


def test_counts_become_values():
    values = np.sort(np.random.default_rng(0).lognormal(0.0, 3.0, 200))[::-1]
    found = spread_over_grid(lambda threshold: int(np.sum(values >= threshold)), 200, 2.0, 1000)
    resolved = values >= 1e-3
    assert np.max(np.abs(np.log(found[resolved] / values[resolved]))) < np.log(1.35)
    assert np.sum(found >= 2.0) == np.sum(values >= 2.0)


def test_large_networks_are_served_by_entries_and_told_so(monkeypatch):
    degeneracy = analyze_degeneracy(structured_fit(MODELS["all"]))
    monkeypatch.setattr("lrposterior.degeneracy.factored.LARGEST_MATRIX_GIGABYTES", 1e-7)
    with pytest.raises(ValueError, match=r"^contraction: expected an array of at most .*; use contraction_entries"):
        _ = degeneracy.contraction
    monkeypatch.setattr("lrposterior.degeneracy.analysis.LARGEST_BASIS", 5)
    with pytest.raises(ValueError, match=r"^unvisited_patterns: expected at most 5 neurons, got 12; they are all that"):
        _ = degeneracy.unvisited_patterns
    monkeypatch.setattr("lrposterior.degeneracy.analysis.ALL_SYNAPSES", 100)
    assert degeneracy.sampled_contraction.shape == (20_000,)
    assert "(20,000 synapses at random)" in str(degeneracy)
    with pytest.raises(ValueError, match="pre: expected as many neurons as post, 2, got 1"):
        degeneracy.contraction_entries([0, 1], [0])
