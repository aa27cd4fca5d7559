"""The degenerate share of responses under Dale's law, against networks simulated bin by bin, and where it is known."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from handmade import make_posterior
from signed_networks import CASES, KNOWN, NUM_NEURONS, RANK, TYPES, in_gauge
from tqdm import tqdm

import lrposterior as lrp
from lrposterior.distribution import NormalDistribution, SampleDistribution
from lrposterior.inference.problem import Problem
from lrposterior.perturbation import first_order, responses
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.responses import NUM_NOISE, standard_noise
from lrposterior.process_noise import latent_root
from lrposterior.signed_background import matrix_of
from lrposterior.signed_orbit import signed_vertical_basis

NUM_BINS, DT, TIME_CONSTANT, STEP = 14, 0.02, 0.05, 1e-5
STIMULATION = {"power": 0.4, "onset": 0.08, "duration": 0.06}


def posterior_of(**options):
    """Around a random network, with correlations between all parameters; two conditions."""
    random = np.random.default_rng(0)
    inputs = random.standard_normal((2, NUM_BINS, 1))
    recording = lrp.Recording(np.ones((2, NUM_BINS, NUM_NEURONS)), DT, inputs=inputs, cell_types=TYPES)
    settings = {"priors": KNOWN, "nonlinearity": "softplus", "background": None, "time_constant": TIME_CONSTANT}
    settings |= options
    model = lrp.LowRankModel(settings.pop("rank", RANK), observation=lrp.GaussianObservation(of="rate"), **settings)
    posterior = make_posterior(model, recording)
    size = posterior.space.size
    scale = random.standard_normal((size, 2 * size)) * np.geomspace(0.3, 1.2, 2 * size) / np.sqrt(2 * size)
    return dataclasses.replace(posterior, distribution=NormalDistribution(posterior.mode_coordinates, scale))


def with_scale(posterior, scale):
    """Another covariance of the parameters of the dynamics, scale (dynamics coordinate, column)."""
    whole = np.zeros((posterior.space.size, scale.shape[1]))
    whole[: len(scale)] = scale
    return dataclasses.replace(posterior, distribution=NormalDistribution(posterior.mode_coordinates, whole))


def candidates_of(posterior):
    return lrp.single_neuron_candidates(posterior.recording, **STIMULATION).select([0, NUM_NEURONS - 1])


def spreads(posterior, quantity="current"):
    """From the degenerate directions, and from all of them."""
    experiment = make_experiment(posterior, candidates_of(posterior), None, None)
    return first_order.first_order_spreads(posterior, experiment, quantity, 0, tqdm(disable=True))


def share(posterior, quantity="current"):
    degenerate, everything = spreads(posterior, quantity)
    return degenerate / everything


def simulated_responses(posterior, z, quantity):
    """(candidate, condition, time, neuron) bin by bin, on average over noise that no gauge turns."""
    space, experiment = posterior.space, make_experiment(posterior, candidates_of(posterior), None, None)
    parameters = {name: np.asarray(value) for name, value in space.unwhiten(z).items()}
    W = parameters["M"] @ parameters["K"].T / NUM_NEURONS
    if "W0" in parameters:
        W = W + matrix_of(parameters["W0"])
    if not posterior.model.self_connections:
        np.fill_diagonal(W, 0.0)
    is_noisy = posterior.model.process_noise is not None
    num_noise = NUM_NOISE if is_noisy else 1
    drive = np.repeat(experiment.inputs, num_noise, axis=0) @ parameters["B"].T + parameters["b"]
    noise, a = np.zeros(drive.shape), DT / TIME_CONSTANT
    if is_noisy:
        there, here = (
            np.asarray(each["M"] @ latent_root(each, None))
            for each in (space.unwhiten(posterior.mode_coordinates), parameters)
        )
        turned = here @ scipy.linalg.orthogonal_procrustes(here, there)[0]
        noise = standard_noise(experiment, 1, posterior.model.rank)[0] @ turned.T
    start = np.zeros(drive[:, 0].shape)
    if "initial_kappa" in parameters:
        start = start + parameters["M"] @ parameters["initial_kappa"].mean(axis=0) + parameters["b"]

    def phi(currents):
        return np.logaddexp(0.0, currents)

    def currents(stimulation):
        each = [start]
        for time in range(NUM_BINS - 1):
            pushed = phi(each[-1]) @ W.T + drive[:, time] + stimulation[time]
            each.append((1.0 - a) * each[-1] + a * pushed + noise[:, time])
        return np.stack(each, axis=1)

    before, found = currents(np.zeros((NUM_BINS, NUM_NEURONS))), []
    for pattern in experiment.patterns:
        stimulation = experiment.time_course[:, None] * pattern
        direct = np.zeros((NUM_BINS, NUM_NEURONS))
        for time in range(NUM_BINS - 1):
            direct[time + 1] = (1.0 - a) * direct[time] + a * stimulation[time]
        after = currents(stimulation)
        moved = after - before - direct if quantity == "current" else phi(after) - phi(before + direct)
        moved = moved[:, experiment.start : experiment.stop]
        found.append(moved.reshape(-1, num_noise, *moved.shape[1:]).mean(axis=1))
    return np.stack(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "quantity"),
    [
        ("rollouts", "rate"),
        ("inferred scales", "current"),
        ("full noise", "current"),
        ("full noise", "rate"),
        ("background, free start", "current"),
        ("no self-connections", "rate"),
    ],
)
def test_the_share_is_that_of_simulated_differences(name, quantity):
    """Of the directions of the posterior covariance on what is orthogonal to all that changes nothing."""
    posterior = posterior_of(**CASES[name][0])
    space, mode = posterior.space, posterior.mode_coordinates
    basis = scipy.linalg.null_space(signed_vertical_basis(space, mode).T)
    root = basis.T @ posterior.distribution.scale[: space.num_dynamics]
    variance, vectors = np.linalg.eigh(root @ root.T)
    directions = basis @ vectors
    squares = np.zeros((len(variance), 2))
    for column, row in zip(directions.T, squares, strict=True):
        step = np.zeros(space.size)
        step[: space.num_dynamics] = STEP * column
        ends = [simulated_responses(posterior, mode + sign * step, quantity) for sign in (1.0, -1.0)]
        row[:] = np.sum(((ends[0] - ends[1]) / (2.0 * STEP)) ** 2, axis=(1, 2, 3))
    squares *= variance[:, None]
    expected = squares[variance > 0.5].sum(axis=0) / squares.sum(axis=0)
    assert np.all((expected > 0.05) & (expected < 0.95))
    np.testing.assert_allclose(share(posterior, quantity), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["full noise", "diagonal noise", "free start", "background, inferred scales, full noise"],
)
def test_what_changes_nothing_has_no_part_in_it(name):
    """No response changes along it, with process noise either."""
    posterior = posterior_of(**CASES[name][0])
    vertical = signed_vertical_basis(posterior.space, posterior.mode_coordinates)
    directions = np.concatenate([posterior.spectrum.directions, vertical], axis=1).T
    experiment = make_experiment(posterior, candidates_of(posterior), None, None)
    networks, tangents = first_order._linearised(posterior, experiment, directions)
    squares = first_order._squares("current", networks, tangents, jnp.asarray(experiment.patterns))
    of_others, of_these = np.split(np.asarray(squares), [-vertical.shape[1]])
    assert np.all(of_these.max(axis=0) < 1e-20 * of_others.max(axis=0))


def test_all_directions_together_spread_the_same_in_every_gauge():
    """The posterior at (M A, K A^-T), moved there to first order, with A positive scalings and a permutation.

    A permutation alone also leaves the prior, and so the share, as it is.
    """
    posterior = posterior_of()
    problem = Problem.of(posterior.model, posterior.recording)
    mode, num_dynamics = posterior.mode_coordinates, posterior.space.num_dynamics

    def moved(A):
        there = in_gauge(problem, mode, A)
        steps = STEP * np.eye(num_dynamics, posterior.space.size)
        ends = [np.stack([in_gauge(problem, mode + sign * step, A) for step in steps]) for sign in (1.0, -1.0)]
        scale = (ends[0] - ends[1]).T / (2.0 * STEP) @ posterior.distribution.scale[:num_dynamics]
        return dataclasses.replace(posterior, mode_coordinates=there, distribution=NormalDistribution(there, scale))

    permutation = np.eye(RANK)[::-1]
    elsewhere = moved(permutation @ np.diag([0.4, 2.0]))
    np.testing.assert_allclose(spreads(elsewhere)[1], spreads(posterior)[1], rtol=1e-6)
    np.testing.assert_allclose(share(moved(permutation)), share(posterior), rtol=1e-6)


def test_only_the_directions_that_a_response_depends_on_count():
    """Where all neurons stay above 0, relu is linear, and a response depends on W and not on the biases."""
    posterior = posterior_of(nonlinearity="relu")
    space = posterior.space
    mode = posterior.mode_coordinates.copy()
    b = space["b"]
    mode[space.slices["b"]] = (20.0 - b.mean) / b.standard_deviation
    mode[space.slices["B"]] = 0.0
    mode[space.slices["M"]] -= 2.0
    posterior = dataclasses.replace(posterior, mode_coordinates=mode)
    of_biases = np.zeros(space.num_dynamics, dtype=bool)
    for name in ("B", "b"):
        of_biases[space.slices[name]] = True
    rates = posterior.mode_rates()
    assert np.all(rates[:, 1:] > 1.0)
    for known, expected in ((of_biases, 1.0), (~of_biases, 0.0)):
        scale = np.diag(np.where(known, 0.1, 0.9))
        np.testing.assert_allclose(share(with_scale(posterior, scale)), expected, atol=1e-12)


def test_without_data_all_is_degenerate_and_with_many_nothing():
    posterior = posterior_of()
    every = np.eye(posterior.space.num_dynamics)
    np.testing.assert_allclose(share(with_scale(posterior, (1.0 - 1e-9) * every)), 1.0)
    np.testing.assert_allclose(share(with_scale(posterior, 0.01 * every)), 0.0)


def test_combinations_of_many_directions_have_their_covariance(monkeypatch):
    posterior = posterior_of()
    spectrum = posterior.spectrum
    chosen = spectrum.information < 1.0
    roots = (spectrum.directions * np.sqrt(spectrum.posterior_variance))[:, chosen].T

    def followed(seed):
        return first_order._followed(spectrum, chosen, np.random.default_rng(seed))

    np.testing.assert_array_equal(followed(0), roots)
    monkeypatch.setattr(first_order, "MOST_DIRECTIONS", len(roots) // 2)
    found = [followed(seed) for seed in range(2000)]
    assert found[0].shape == (len(roots) // 2, roots.shape[1])
    np.testing.assert_allclose(np.mean([each.T @ each for each in found], axis=0), roots.T @ roots, atol=0.05)


def test_blocks_of_candidates_and_conditions_add_up(monkeypatch):
    posterior = posterior_of(process_noise="full")
    expected = spreads(posterior)
    monkeypatch.setattr(responses, "BLOCK_BYTES", 1.0)
    np.testing.assert_allclose(spreads(posterior), expected, rtol=1e-10)


@pytest.mark.slow
def test_the_share_of_draws_needs_enough_of_them():
    posterior = posterior_of(rank=1)
    draws = posterior.distribution.sample(600, seed=0)
    many = dataclasses.replace(posterior, distribution=SampleDistribution(draws[None]))
    few = dataclasses.replace(posterior, distribution=SampleDistribution(draws[None, :40]))
    assert np.isnan(share(few)).all()
    np.testing.assert_allclose(share(many), share(posterior), atol=0.1)
