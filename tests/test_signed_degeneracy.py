"""What a recording says about a network that obeys Dale's law, against Jacobians of all that the network does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from signed_networks import CASES, KNOWN, NUM_NEURONS, TYPES, content, in_gauge, jacobian, problem_of

import lrposterior as lrp
from lrposterior.distribution import NormalDistribution
from lrposterior.inference.problem import Problem
from lrposterior.signed_orbit import num_signed_gauge, signed_vertical_basis
from lrposterior.spectrum import connectivity_spectrum, horizontal_spectrum


@pytest.fixture(params=CASES)
def case(request):
    """A problem, a point, and the numbers of directions."""
    options, num_gauge, num_trades = CASES[request.param]
    with jax.enable_x64(True):
        problem = problem_of(**options)
        z = 0.7 * np.random.default_rng(1).standard_normal(problem.space.size)
        yield problem, z, num_gauge, num_trades


@pytest.mark.slow
def test_what_changes_nothing_is_the_kernel_of_all_that_the_network_is(case):
    problem, z, num_gauge, num_trades = case
    vertical = signed_vertical_basis(problem.space, z)
    derivative = jacobian(problem, z, content)
    assert vertical.shape[1] == num_gauge + num_trades == scipy.linalg.null_space(derivative).shape[1]
    assert num_signed_gauge(problem.space, z) == num_gauge
    np.testing.assert_allclose(vertical.T @ vertical, np.eye(vertical.shape[1]), atol=1e-12)
    np.testing.assert_allclose(derivative @ vertical, 0.0, atol=1e-9 * np.abs(derivative).max())


@pytest.mark.slow
def test_the_data_say_nothing_about_it(case):
    problem, z, *_ = case
    information = problem.information(z)
    vertical = signed_vertical_basis(problem.space, z)
    np.testing.assert_allclose(information @ vertical, 0.0, atol=1e-7 * np.abs(information).max())


def test_scalings_keep_the_network_and_all_signs(case):
    """A finite change of gauge: permuted and scaled columns are the same network with the same signs."""
    problem, z, *_ = case
    A = np.diag(np.geomspace(0.2, 3.0, problem.model.rank))
    if problem.model.process_noise is None or problem.model.process_noise.shape == "full":
        A = np.roll(A, 1, axis=0)
    there = in_gauge(problem, z, A)
    assert np.all(np.isfinite(there))
    np.testing.assert_allclose(content(problem, jnp.asarray(there)), content(problem, jnp.asarray(z)), rtol=1e-8)
    assert np.isclose(
        problem.negative_log_density(there) - 0.5 * there @ there, problem.negative_log_density(z) - 0.5 * z @ z
    )


def normal_posterior(problem: Problem, z: np.ndarray) -> NormalDistribution:
    """Another covariance than that of any fit, with correlations between all coordinates."""
    random = np.random.default_rng(2)
    size = problem.space.size
    return NormalDistribution(z, random.standard_normal((size, size)) / np.sqrt(2.0 * size))


def test_directions_of_w_are_those_of_its_jacobian(case):
    """Prior against posterior covariance of W as one vector, all other parameters integrated out."""
    problem, z, *_ = case
    space, distribution = problem.space, normal_posterior(problem, z)
    everything = horizontal_spectrum(space, z, distribution)
    derivative = jacobian(problem, z, lambda problem, z: content(problem, z)[: NUM_NEURONS**2])
    kernel = scipy.linalg.null_space(jacobian(problem, z, content))
    root = (np.eye(len(kernel)) - kernel @ kernel.T) @ distribution.scale[: space.num_dynamics]
    left, values, _ = np.linalg.svd(derivative)
    seen = left[:, : np.sum(values > 1e-10 * values[0])]
    prior = seen.T @ derivative @ derivative.T @ seen
    posterior = seen.T @ derivative @ root @ root.T @ derivative.T @ seen
    expected = 1.0 / scipy.linalg.eigh(posterior, prior, eigvals_only=True) - 1.0
    found = connectivity_spectrum(space, z, everything).information
    np.testing.assert_allclose(found, np.sort(expected)[::-1], rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_the_contraction_of_a_fit_is_that_of_its_jacobian_and_rises_with_the_data():
    random = np.random.default_rng(3)
    model = lrp.LowRankModel(1, priors=KNOWN, nonlinearity="softplus", background=None)
    signs = np.where(np.array(TYPES) == "I", -1.0, 1.0)[:, None]
    parameters = {
        "M": np.abs(random.standard_normal((NUM_NEURONS, 1))),
        "K": signs * np.where(signs < 0.0, 6.0, 1.5) * np.abs(random.standard_normal((NUM_NEURONS, 1))),
        "B": random.standard_normal((NUM_NEURONS, 1)),
        "b": np.zeros(NUM_NEURONS),
        "noise_scale": np.full(NUM_NEURONS, 0.5),
    }
    constrained = []
    for num_trials in (1, 40):
        inputs = np.repeat(random.standard_normal((num_trials, 5, 1)), 8, axis=1)
        like = lrp.Recording(np.zeros((num_trials, 40, NUM_NEURONS)), 0.02, inputs=inputs, cell_types=TYPES)
        recording = model.simulate(parameters, like, seed=num_trials)
        posterior = lrp.fit(model, recording, seed=0, progress=False)
        found = lrp.analyze_degeneracy(posterior)
        with jax.enable_x64(True):
            settled = Problem.of(posterior.model, recording)
            W = jacobian(settled, posterior.mode_coordinates, lambda problem, z: content(problem, z)[: NUM_NEURONS**2])
        kernel = signed_vertical_basis(posterior.space, posterior.mode_coordinates)
        root = posterior.distribution.scale[: len(kernel)]
        root = root - kernel @ (kernel.T @ root)
        variance, prior = np.sum((W @ root) ** 2, axis=1), np.sum(W**2, axis=1)
        np.testing.assert_allclose(found.contraction.ravel(), 1.0 - variance / prior, rtol=1e-6, atol=1e-8)
        assert "gauge directions, counted apart: 1" in str(found)
        constrained.append(found.effective_parameters)
    assert constrained[1] > constrained[0] + 1.0
    assert np.all(found.contraction > 0.5)
