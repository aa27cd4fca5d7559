"""Draws under Dale's law, each moved along what changes nothing, and the analysis of a sampled posterior."""

import dataclasses

import jax
import numpy as np
import pytest
from signed_networks import CASES, NUM_NEURONS, content, in_gauge, jacobian, problem_of, simulated

import lrposterior as lrp
from lrposterior.distribution import NormalDistribution, SampleDistribution
from lrposterior.inference.problem import Problem
from lrposterior.signed_alignment import align_within_signs
from lrposterior.signed_orbit import signed_vertical_basis
from lrposterior.spectrum import complement, horizontal_spectrum

ALIGNED = ["rollouts", "log-normal", "full noise", "diagonal noise", "inferred scales", "all", "free start"]
NUM_DRAWS = 2000


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def scattered(problem, draws, seed):
    """The same networks, columns in random order and of random lengths."""
    random, rank = np.random.default_rng(seed), problem.model.rank
    diagonal = problem.model.process_noise is not None and problem.model.process_noise.shape == "diagonal"
    moved = []
    for z in draws:
        order = np.arange(rank) if diagonal else random.permutation(rank)
        moved.append(in_gauge(problem, z, np.diag(np.exp(random.normal(0.0, 0.5, rank)))[order]))
    return np.stack(moved)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALIGNED)
def test_a_draw_is_moved_to_the_nearest_copy_of_its_network(name):
    """All that it does is the same, nothing of what is left lies along its orbit, and columns have no order."""
    problem, random = problem_of(**CASES[name][0]), np.random.default_rng(1)
    size = problem.space.num_dynamics
    reference = 0.7 * random.standard_normal(problem.space.size)
    draws = reference + 0.5 * random.standard_normal((5, problem.space.size))
    found = align_within_signs(problem.space, draws, reference)
    for draw, one in zip(draws, found, strict=True):
        np.testing.assert_allclose(content(problem, one), content(problem, draw), rtol=1e-9, atol=1e-9)
        left_over = (one - reference)[:size] @ signed_vertical_basis(problem.space, one)
        np.testing.assert_allclose(left_over, 0.0, atol=1e-6)
        assert np.linalg.norm(one - reference) < np.linalg.norm(draw - reference)
    again = align_within_signs(problem.space, scattered(problem, draws, 3), reference)
    np.testing.assert_allclose(again, found, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rollouts", "diagonal noise"])
def test_draws_of_a_normal_posterior_have_its_spectrum(name):
    """Wherever they lie on orbits: of n draws of d coordinates its covariance within factors of (1 +- sqrt(d / n))²."""
    problem, random = problem_of(**CASES[name][0]), np.random.default_rng(4)
    space = problem.space
    mode = 0.7 * random.standard_normal(space.size)
    basis = complement(signed_vertical_basis(space, mode))
    scale = np.zeros((space.size, basis.shape[1]))
    scale[: space.num_dynamics] = 1e-3 * basis @ np.diag(np.geomspace(0.1, 1.0, basis.shape[1]))
    normal = NormalDistribution(mode, scale)
    draws = scattered(problem, normal.sample(NUM_DRAWS, seed=5), 6)
    exact = horizontal_spectrum(space, mode, normal)
    found = horizontal_spectrum(space, mode, SampleDistribution(draws[None]))
    assert found.vertical.shape == exact.vertical.shape
    covariance = found.directions * found.posterior_variance @ found.directions.T
    white = (exact.directions / np.sqrt(exact.posterior_variance)).T
    values = np.linalg.eigvalsh(white @ covariance @ white.T)
    error = np.sqrt(basis.shape[1] / NUM_DRAWS)
    assert (1.0 - 1.3 * error) ** 2 < values[0]
    assert values[-1] < (1.0 + 1.3 * error) ** 2


def sampled():
    """A fit by Laplace, and the same with narrow draws around its mode, scattered along their orbits."""
    laplace = lrp.fit(*simulated(20), seed=0, progress=False)
    mode, problem = laplace.mode_coordinates, Problem.of(laplace.model, laplace.recording)
    narrow = mode + 1e-3 * (laplace.distribution.sample(NUM_DRAWS, seed=1) - laplace.distribution.location)
    draws = SampleDistribution(scattered(problem, narrow, 2)[None])
    return problem, laplace, dataclasses.replace(laplace, method="nuts", distribution=draws)


@pytest.mark.slow
def test_the_analysis_of_draws_is_that_of_their_connectivity():
    """Contraction is the variance of W over the draws themselves, against that of the prior to first order."""
    problem, laplace, posterior = sampled()
    found = lrp.analyze_degeneracy(posterior)
    exact = lrp.analyze_degeneracy(laplace)
    assert (found.num_gauge, found.num_trades) == (exact.num_gauge, exact.num_trades)
    assert found.connectivity.num_directions == exact.connectivity.num_directions
    assert found.null_dimension == exact.null_dimension
    W = posterior.sample_connectivity(NUM_DRAWS, seed=0).to_dense()
    slopes = jacobian(problem, posterior.mode_coordinates, lambda problem, z: content(problem, z)[: NUM_NEURONS**2])
    left = W.var(axis=0, ddof=1) / np.sum(slopes**2, axis=1).reshape(W.shape[1:])
    np.testing.assert_allclose((1.0 - found.contraction) / left, 1.0, atol=0.01)


def test_what_is_traded_beyond_the_gauge_keeps_draws_apart():
    problem = problem_of(**CASES["background"][0])
    z = 0.7 * np.random.default_rng(1).standard_normal(problem.space.size)
    draws = SampleDistribution(np.tile(z, (1, 300, 1)))
    with pytest.raises(ValueError, match=r"posterior: expected a Normal distribution where a background .* got draws"):
        horizontal_spectrum(problem.space, z, draws)
