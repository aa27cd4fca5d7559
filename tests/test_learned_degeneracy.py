"""What is constrained where the low-rank part was learned: counts, the pencil from its definition, and both forms."""

import dataclasses
import functools

import numpy as np
import pytest
import scipy.linalg
from any_size_cases import CORRELATED, MODELS, dense_fit, structured_fit

import lrposterior as lrp
from lrposterior.distribution import SampleDistribution, normals

NEURONS, RANK, DIMENSION, INPUTS = 12, 2, 2, 2
CASES = {
    "independent": MODELS["bulk"],
    "correlated": dataclasses.replace(MODELS["bulk"], priors=CORRELATED),
}


def learned(posterior):
    background = dataclasses.replace(posterior.model.background, learned=True)
    return dataclasses.replace(posterior, model=dataclasses.replace(posterior.model, background=background))


@functools.cache
def pair(name):
    """The analysis by factors, and that of the same posterior as one matrix."""
    posterior = learned(structured_fit(CASES[name]))
    ((_, normal),) = normals(posterior.distribution)
    return lrp.analyze_degeneracy(posterior), lrp.analyze_degeneracy(
        dataclasses.replace(posterior, distribution=normal)
    )


@pytest.fixture(params=CASES)
def analyses(request):
    return pair(request.param)


def network(posterior, z):
    """(V, B, b) as one vector, from the parameters by their definition; V = W Q of the network given out."""
    named = posterior.named(z)
    W = named["M"] @ named["K"].T / NEURONS + named["A"] @ posterior.subspace.T
    return np.concatenate([(W @ posterior.subspace).ravel(), named["B"].ravel(), named["b"]])


def test_directions_are_those_in_which_the_network_moves(analyses):
    """The rank of the derivative of what the network is, by finite differences."""
    for degeneracy in analyses:
        posterior = degeneracy.posterior
        z, step = posterior.mode_coordinates, 1e-5
        units = step * np.eye(posterior.space.num_dynamics, posterior.space.size)
        jacobian = [(network(posterior, z + each) - network(posterior, z - each)) / (2 * step) for each in units]
        values = np.linalg.svd(jacobian, compute_uv=False)
        rank = int(np.sum(values > 1e-6 * values[0]))
        assert degeneracy.parameters.num_seen == rank == NEURONS * (DIMENSION + INPUTS + 1)
        assert degeneracy.connectivity.num_seen == NEURONS * DIMENSION
        assert degeneracy.connectivity.num_directions == NEURONS**2
        assert degeneracy.num_unread == RANK * (NEURONS - DIMENSION)
        apart = degeneracy.num_gauge + degeneracy.num_trades + degeneracy.num_unread
        assert apart + rank == posterior.space.num_dynamics
        assert f"{degeneracy.num_unread} of K outside the visited patterns" in str(degeneracy)


def test_spectra_solve_the_pencil_of_prior_and_posterior(analyses):
    """Against the covariances of (V, B, b), and of V alone, propagated with finite differences."""
    _, dense = analyses
    posterior = dense.posterior
    space, z, step = posterior.space, posterior.mode_coordinates, 1e-5
    units = step * np.eye(space.num_dynamics, space.size)
    root = [(network(posterior, z + each) - network(posterior, z - each)) / (2 * step) for each in units]
    prior_root = np.array(root)
    posterior_root = posterior.distribution.scale[: space.num_dynamics].T @ prior_root
    scale = 1.0 / np.linalg.norm(prior_root, axis=0)
    for found, size in ((dense.parameters, prior_root.shape[1]), (dense.connectivity, NEURONS * DIMENSION)):
        prior, after = ((part := each[:, :size] * scale[:size]).T @ part for each in (prior_root, posterior_root))
        expected = 1.0 / scipy.linalg.eigh(after, prior, eigvals_only=True) - 1.0
        np.testing.assert_allclose(found.spectrum, expected, rtol=1e-4, atol=1e-4)


def test_contraction_is_the_variance_that_is_removed(analyses):
    for degeneracy in analyses:
        posterior = degeneracy.posterior
        ((_, normal),) = normals(posterior.distribution)
        space, z, step = posterior.space, posterior.mode_coordinates, 1e-5
        units = step * np.eye(space.num_dynamics, space.size)
        root = [(network(posterior, z + each) - network(posterior, z - each)) / (2 * step) for each in units]
        V = np.array(root)[:, : NEURONS * DIMENSION].reshape(-1, NEURONS, DIMENSION)
        W = (V @ posterior.subspace.T).reshape(len(V), -1)
        after = normal.scale[: space.num_dynamics].T @ W
        prior, left = np.sum(W**2, axis=0), np.sum(after**2, axis=0)
        unseen = np.tile(posterior.unseen_variance, NEURONS)
        np.testing.assert_allclose(degeneracy.contraction.ravel(), (prior - left) / (prior + unseen), atol=1e-6)


def test_both_forms_agree(analyses):
    factored, dense = analyses
    for found, expected in ((factored.parameters, dense.parameters), (factored.connectivity, dense.connectivity)):
        for threshold in (0.01, 0.1, 1.0, 10.0, 100.0, 1e3):
            one, other = (dataclasses.replace(each, threshold=threshold) for each in (found, expected))
            assert one.num_constrained == other.num_constrained
        assert found.effective_parameters == pytest.approx(expected.effective_parameters, rel=1e-8)
        assert found.information == pytest.approx(expected.information, rel=1e-8)
    for name in ("num_gauge", "num_trades", "num_unread", "null_dimension", "max_constrained_connectivity"):
        assert getattr(factored, name) == getattr(dense, name)
    for name in ("read", "written"):
        found, expected = getattr(factored, name), getattr(dense, name)
        number = DIMENSION if name == "read" else 5
        for values in ("shares", "contraction"):
            np.testing.assert_allclose(
                getattr(found, values)[:number], getattr(expected, values)[:number], rtol=1e-6, atol=1e-9
            )


def test_patterns_of_Q_that_no_rate_visits_are_the_exact_null_space(analyses):
    """With a tolerance that leaves one visited pattern: what it neglects is known after all, in both forms alike."""
    found = []
    for degeneracy in analyses:
        one = dataclasses.replace(degeneracy, rate_tolerance=0.99)
        assert one.rate_rank == 1
        assert one.null_dimension == NEURONS * (DIMENSION - 1)
        assert one.max_constrained_connectivity == NEURONS
        found.append(one.null_deviation)
    assert found[0] == pytest.approx(found[1], rel=1e-3)
    assert found[1] > 0.5


@pytest.mark.parametrize("name", CASES)
def test_single_synapses_have_the_moments_of_the_matrix(name):
    """Exactly, where no prior scale was inferred."""
    posterior = learned(structured_fit(CASES[name]))
    mean, sd = posterior.connectivity_entries(*np.divmod(np.arange(NEURONS**2), NEURONS))
    np.testing.assert_allclose(mean, posterior.connectivity_mean().ravel(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(sd, posterior.connectivity_sd().ravel(), rtol=1e-7)


def test_split_adds_up_and_excludes_nothing(analyses):
    _, dense = analyses
    dW = np.random.default_rng(0).standard_normal((NEURONS, NEURONS))
    split = dense.split(dW)
    np.testing.assert_allclose(split.constrained + split.degenerate, dW, atol=1e-12)
    Q = dense.posterior.subspace
    np.testing.assert_allclose(split.constrained @ (np.eye(NEURONS) - Q @ Q.T), 0.0, atol=1e-12)


def test_what_is_not_known_is_refused():
    free = dataclasses.replace(MODELS["bulk"], initial_state="free")
    with pytest.raises(ValueError, match=r"^background: expected RandomBulk\(learned=False\) for .* initial state"):
        lrp.analyze_degeneracy(learned(structured_fit(free)))
    posterior = learned(dense_fit(MODELS["bulk"]))
    draws = posterior.distribution.sample(500, seed=0)[None]
    with pytest.raises(ValueError, match=r"^posterior: expected one with a covariance"):
        lrp.analyze_degeneracy(dataclasses.replace(posterior, distribution=SampleDistribution(draws)))
