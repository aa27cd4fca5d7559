"""Linearised responses against numerical derivatives, and the unseen connectivity against simulated networks."""

import numpy as np
import pytest
from plain import plain_model
from structured_cases import problem_of, scales_of, system_of

from lrposterior.structured import trajectory as passes
from lrposterior.structured.courses import network_courses
from lrposterior.structured.krylov import reduce_precision
from lrposterior.structured.products import Linearisation
from lrposterior.structured.responses import response_moments
from lrposterior.structured.system import filtered

TIME, ONSET = 12, 4


def case(num_neurons=7, correlated=True, seen=2):
    problem = problem_of(plain_model(2), num_neurons=num_neurons)
    random = np.random.default_rng(2)
    seen_right = np.sqrt(num_neurons) * np.linalg.qr(random.standard_normal((num_neurons, seen)))[0]
    system = system_of(problem, seen_right=seen_right, correlated=correlated)
    deviations = scales_of(problem).deviations(system.layout)
    vector = 0.7 * random.standard_normal(deviations.size)
    trajectory = passes.run(system, vector)
    linearisation = Linearisation.of(system, trajectory, network_courses(system, trajectory, tolerance=1e-9))
    information = reduce_precision(linearisation, deviations, max_rank=10_000, tolerance=1e-8).information()
    inputs = random.standard_normal((2, TIME, 2))
    course = np.zeros(TIME)
    course[ONSET : ONSET + 3] = (1.0, 0.5, 1.0)
    patterns = random.standard_normal((3, num_neurons))
    return system, vector, information.posterior(deviations), inputs, course, patterns


def simulate(system, vector, inputs, extra):
    """Currents (condition, time, neuron) with an additional drive (time, neuron), by the plainest code."""
    layout = system.layout
    psi, right = layout.loadings(vector), system.right_factors(vector)
    left, rest, N = psi[:, : layout.num_latents], psi[:, layout.num_latents :], layout.num_neurons
    x, a, kept = np.zeros((len(inputs), N)), system.integration_constant, []
    for time in range(inputs.shape[1]):
        kept.append(x)
        r = np.tanh(x)
        drive = inputs[:, time] @ rest[:, :-1].T + rest[:, -1] + extra[time]
        x = (1 - a) * x + a * (r @ right @ left.T / N + drive)
    return np.stack(kept, axis=1)


def response(system, vector, inputs, course, pattern):
    feed = filtered(course[None], system.integration_constant)[0][:, None] * pattern
    none = np.zeros((len(course), len(pattern)))
    perturbed = simulate(system, vector, inputs, course[:, None] * pattern)
    return perturbed - simulate(system, vector, inputs, none) - feed


@pytest.mark.parametrize("bins", [np.arange(5, 12), np.array([6, 9, 11])])
def test_moments_equal_those_of_the_numerically_linearised_response(bins):
    system, vector, posterior, inputs, course, patterns = case()
    moments = response_moments(
        system, vector, posterior, inputs=inputs, patterns=patterns, time_course=course, bins=bins
    )
    covariance, step = posterior.times(np.eye(vector.size)), 1e-5
    for candidate, pattern in enumerate(patterns):
        q = response(system, vector, inputs, course, pattern)[:, bins]
        np.testing.assert_allclose(moments.mean_power[candidate], np.sum(q**2), rtol=1e-10)
        slopes = [
            (
                response(system, vector + e, inputs, course, pattern)
                - response(system, vector - e, inputs, course, pattern)
            )[:, bins].ravel()
            / (2 * step)
            for e in step * np.eye(vector.size)
        ]
        spread = np.einsum("pk,pq,qk->", slopes, covariance, slopes)
        np.testing.assert_allclose(moments.spread[candidate], spread, rtol=1e-6)
    assert moments.states.shape == (3, 2, len(bins), 4)


def test_the_unseen_connectivity_adds_the_variance_of_simulated_networks():
    """Small g, where the response is linear in the unseen connectivity; the unperturbed rates are held as seen."""
    system, vector, posterior, inputs, course, patterns = case(num_neurons=7, seen=2)
    bins, gain, N = np.arange(5, 12), 1e-4, 7
    moments = response_moments(
        system, vector, posterior, inputs=inputs[:1], patterns=patterns, time_course=course, bins=bins, unseen_gain=gain
    )
    seen, _ = np.linalg.qr(system.seen_right)
    projector, random = np.eye(N) - seen @ seen.T, np.random.default_rng(0)
    psi, right, a = system.layout.loadings(vector), system.right_factors(vector), system.integration_constant
    quiet = np.tanh(simulate(system, vector, inputs[:1], np.zeros((TIME, N))))[0]
    for candidate, pattern in enumerate(patterns[:2]):
        base = response(system, vector, inputs[:1], course, pattern)[0][bins]
        spreads = []
        for _ in range(3000):
            W = gain / np.sqrt(N) * random.standard_normal((N, N)) @ projector
            x, kept = np.zeros(N), []
            for time in range(TIME):
                kept.append(x)
                drive = inputs[0, time] @ psi[:, 4:-1].T + psi[:, -1] + course[time] * pattern
                r = np.tanh(x)
                x = (1 - a) * x + a * (psi[:, :4] @ (right.T @ r) / N + W @ (r - quiet[time]) + drive)
            kept = np.stack(kept) - simulate(system, vector, inputs[:1], np.zeros((TIME, N)))[0]
            feed = filtered(course[None], a)[0][:, None] * pattern
            spreads.append(np.sum(((kept - feed)[bins] - base) ** 2))
        error = np.std(spreads) / np.sqrt(len(spreads))
        assert abs(np.mean(spreads) - moments.unseen_spread[candidate]) < 4 * error
