"""The likelihood with process noise against dense Gaussian algebra, a particle filter, and its own limits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.special
import scipy.stats
from plain import plain_model

import lrposterior as lrp
from lrposterior.curvature import information
from lrposterior.curvature.process_noise import covariance_information, observation_noise_information
from lrposterior.inference.problem import Problem
from lrposterior.likelihood import log_likelihood, log_likelihood_by_trial
from lrposterior.orbit import gauge_directions, move, vertical_basis
from lrposterior.process_noise import latent_covariance, pattern_coordinates
from lrposterior.state_space import filter_trials, known_currents, smooth

NOISE = 0.3


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def noisy(num_neurons=4, rank=2, num_bins=6, num_trials=2, seed=0, process_noise=None, **options):
    """A model, its space, its data, the parameters of a truth and the simulation."""
    model = plain_model(rank=rank, process_noise="full", **options)
    covariance = np.eye(rank) * 0.2 + 0.1 if process_noise is None else process_noise
    simulation = lrp.simulate_recording(
        model,
        cell_types=cell_types_of(model, num_neurons),
        num_neurons=num_neurons,
        num_trials=num_trials,
        num_bins=num_bins,
        noise_scale=NOISE,
        process_noise=covariance,
        seed=seed,
    )
    settled = model.for_recording(simulation.recording)
    named = settled.coordinates(simulation.parameters, simulation.recording.dt)
    parameters = {name: jnp.asarray(value) for name, value in named.items()}
    return settled, settled.space_for(simulation.recording), settled.data(simulation.recording), parameters, simulation


def cell_types_of(model, num_neurons):
    """Types of the neurons where they have time constants of their own, else None."""
    return np.resize(["E", "E", "I"], num_neurons) if len(model.time_constants.entries) > 1 else None


def of_six_neurons(model):
    return lrp.simulate_recording(
        model,
        num_neurons=6,
        num_trials=3,
        num_bins=20,
        noise_scale=NOISE,
        cell_types=cell_types_of(model, 6),
        seed=1,
    )


def dense_gaussian(model, parameters, data, trial):
    """Mean and covariance of all currents (time, neuron) of one trial of a linear network, by brute force in x.

    Also the currents' derivatives by the noise, (time and neuron, time, rank).
    """
    M, K = np.asarray(parameters["M"]), np.asarray(parameters["K"])
    num_neurons, rank = M.shape
    num_bins = data.activity.shape[1]
    a = np.asarray(model.integration_constants(parameters, data))
    step = np.diag(1.0 - a) + a[:, None] * (M @ K.T) / num_neurons
    drive = np.asarray(data.inputs[trial] @ parameters["B"].T + parameters["b"])
    mean, response = np.zeros((num_bins, num_neurons)), np.zeros((num_bins, num_neurons, num_bins, rank))
    if model.initial_state == "free":
        mean[0] = M @ np.asarray(parameters["initial_kappa"][trial]) + np.asarray(parameters["b"])
    for time in range(1, num_bins):
        mean[time] = step @ mean[time - 1] + a * drive[time - 1]
        response[time] = np.einsum("nm,mtr->ntr", step, response[time - 1])
        response[time, :, time - 1] += M
    Q = np.asarray(latent_covariance(parameters, data.noise_patterns))
    flat = response.reshape(num_bins * num_neurons, num_bins, rank)
    return mean, np.einsum("itr,rs,jts->ij", flat, Q, flat), flat


LINEAR = {"nonlinearity": "linear", "observation": lrp.GaussianObservation(of="current")}
BY_CELL_TYPE = {"E": 0.05, "I": lrp.TimeConstantPrior(0.12)}
PER_NEURON = lrp.PerNeuron(lrp.TimeConstantPrior(0.12))
TIME_CONSTANTS = pytest.mark.parametrize("time_constant", [0.1, BY_CELL_TYPE], ids=["one", "by cell type"])


@pytest.mark.slow
@pytest.mark.parametrize("time_constant", [0.1, BY_CELL_TYPE, PER_NEURON], ids=["one", "by cell type", "by neuron"])
@pytest.mark.parametrize("initial_state", ["zero", "free"])
def test_the_linear_case_is_that_of_dense_gaussian_algebra(initial_state, time_constant):
    model, _, data, parameters, _ = noisy(initial_state=initial_state, time_constant=time_constant, **LINEAR)
    mask = np.random.default_rng(0).random(data.activity.shape) < 0.8
    mask[1, 2] = False
    data = dataclasses.replace(data, mask=jnp.asarray(mask))
    found, smoothed = log_likelihood_by_trial(model, parameters, data), smooth(filter_trials(model, parameters, data))
    left = np.asarray(model.latent_factors(parameters, data)[0])
    known = np.asarray(known_currents(model, parameters, data))
    variance = np.broadcast_to(np.exp(2.0 * np.asarray(parameters["log_noise_scale"])), known.shape[1:]).ravel()
    for trial in range(2):
        mean, covariance, _ = dense_gaussian(model, parameters, data, trial)
        seen = mask[trial].ravel()
        total = (covariance + np.diag(variance))[np.ix_(seen, seen)]
        residual = (np.asarray(data.activity[trial]) - mean).ravel()[seen]
        expected = scipy.stats.multivariate_normal(np.zeros(seen.sum()), total).logpdf(residual)
        assert np.isclose(found[trial], expected, rtol=1e-9, atol=1e-8)
        conditional = mean.ravel() + covariance[:, seen] @ np.linalg.solve(total, residual)
        currents = np.asarray(smoothed.mean[trial]) @ left.T + known[trial]
        np.testing.assert_allclose(currents.ravel(), conditional, rtol=1e-8, atol=1e-8)
        spread = covariance - covariance[:, seen] @ np.linalg.solve(total, covariance[seen])
        in_bin = np.einsum("tntm->tnm", spread.reshape(*mean.shape, *mean.shape))
        np.testing.assert_allclose(left @ np.asarray(smoothed.covariance[trial]) @ left.T, in_bin, atol=1e-8)


@pytest.mark.slow
@TIME_CONSTANTS
@pytest.mark.parametrize(("nonlinearity", "of"), [("tanh", "rate"), ("tanh", "current"), ("softplus", "rate")])
def test_the_gradient_is_that_of_finite_differences(nonlinearity, of, time_constant):
    model, space, data, parameters, _ = noisy(
        nonlinearity=nonlinearity, observation=lrp.GaussianObservation(of=of), time_constant=time_constant
    )
    z = space.whiten(parameters)

    def objective(z):
        return log_likelihood(model, space.unwhiten(z), data)

    slope, step = np.asarray(jax.grad(objective)(z)), 1e-5
    for direction in np.random.default_rng(1).standard_normal((5, space.size)):
        difference = float(objective(z + step * direction) - objective(z - step * direction)) / (2.0 * step)
        assert np.isclose(slope @ direction, difference, rtol=1e-6, atol=1e-6)


@TIME_CONSTANTS
@pytest.mark.parametrize("background", [None, lrp.RandomBulk(gain=0.4, dimension=2)])
def test_without_noise_it_is_the_likelihood_of_the_rollout(background, time_constant):
    model = plain_model(rank=2, process_noise="diagonal", background=background, time_constant=time_constant)
    plain = dataclasses.replace(model, process_noise=None)
    simulation = of_six_neurons(plain)
    settled, rollout = model.for_recording(simulation.recording), plain.for_recording(simulation.recording)
    z = np.random.default_rng(0).standard_normal(rollout.space_for(simulation.recording).size)
    parameters = rollout.space_for(simulation.recording).unwhiten(z)
    data = settled.data(simulation.recording)
    expected = log_likelihood(rollout, parameters, data)
    for log_scale, tolerance in ((-10.0, 1e-5), (-20.0, 1e-10)):
        noise = {"log_process_scale": jnp.full(2, log_scale)}
        assert np.isclose(log_likelihood(settled, parameters | noise, data), expected, rtol=tolerance)


@pytest.mark.slow
@TIME_CONSTANTS
@pytest.mark.parametrize("background", [None, lrp.RandomBulk(gain=0.4, dimension=2)])
def test_nothing_depends_on_the_gauge(background, time_constant):
    model = plain_model(
        rank=2, process_noise="full", background=background, initial_state="free", time_constant=time_constant
    )
    simulation = of_six_neurons(model)
    problem = Problem.of(model, simulation.recording)
    z = np.random.default_rng(2).standard_normal(problem.space.size)
    A = np.array([[1.5, 0.4], [-0.8, 0.7]])
    moved = np.asarray(move(problem.space, z, A, np.linalg.inv(A)))
    before, after = (
        float(log_likelihood(problem.model, problem.space.unwhiten(one), problem.data)) for one in (z, moved)
    )
    assert np.isclose(before, after, rtol=1e-10)
    F = np.asarray(information(problem.model, problem.space, jnp.asarray(z), problem.data))
    gauge = gauge_directions(problem.space, z, np.eye(4).reshape(4, 2, 2))[: len(F)]
    assert np.abs(F @ gauge).max() < 1e-9 * np.abs(F).max()
    F, vertical = problem.information(z), vertical_basis(problem.space, z, problem.subspace)
    assert np.abs(F @ vertical).max() < 1e-9 * np.abs(F).max()


def test_covariances_survive_the_way_through_their_coordinates():
    random = np.random.default_rng(0)
    M, patterns = random.standard_normal((2, 7, 3))
    root = random.standard_normal((3, 3))
    covariance = root @ root.T
    coordinates = pattern_coordinates(covariance, M, patterns)
    np.testing.assert_allclose(latent_covariance(coordinates | {"M": M}, patterns), covariance, rtol=1e-9)
    # Noise of the currents has the size that the coordinates say, whatever the gauge.
    scale = np.array([0.3, 0.2, 0.1])
    for A in (np.eye(3), random.standard_normal((3, 3))):
        Q = np.asarray(latent_covariance({"log_process_scale": np.log(scale), "M": M @ A}, patterns))
        assert np.isclose(np.trace(M @ A @ Q @ A.T @ M.T) / 7, np.sum(scale**2))


@pytest.mark.parametrize("patterns", [None, np.eye(3, 2)])
def test_what_is_no_covariance_has_no_coordinates(patterns):
    with pytest.raises(np.linalg.LinAlgError):
        pattern_coordinates(np.diag([1.0, -1.0]), np.eye(3, 2), patterns)


def test_columns_of_the_noise_are_turned_towards_the_patterns():
    """M Q M^T = U C U^T with U^T U = N and P^T U symmetric and positive semidefinite, in any gauge."""
    random = np.random.default_rng(1)
    M, patterns, A = random.standard_normal((7, 3)), random.standard_normal((7, 3)), random.standard_normal((3, 3))
    scale, mixing = np.array([0.3, 0.2, 0.1]), np.array([0.4, -0.3, 0.8])
    root = np.diag(scale) @ np.array([[1.0, 0.0, 0.0], [0.4, 1.0, 0.0], [-0.3, 0.8, 1.0]])
    values, axes = np.linalg.eigh(M.T @ M / 7)
    orthogonal = M @ axes / np.sqrt(values)
    left, _, right = np.linalg.svd(orthogonal.T @ patterns)
    U = orthogonal @ left @ right
    np.testing.assert_allclose(U.T @ U / 7, np.eye(3), atol=1e-12)
    assert np.linalg.eigvalsh(patterns.T @ U)[0] > 0.0
    np.testing.assert_allclose(patterns.T @ U, U.T @ patterns, atol=1e-12)
    for gauge in (np.eye(3), A):
        coordinates = {"log_process_scale": np.log(scale), "process_mixing": mixing, "M": M @ gauge}
        Q = np.asarray(latent_covariance(coordinates, patterns))
        np.testing.assert_allclose(M @ gauge @ Q @ gauge.T @ M.T, U @ root @ root.T @ U.T, atol=1e-12)


@pytest.mark.parametrize("overlap", [1.0, 1e-3])
def test_the_noise_changes_smoothly_with_M_where_the_patterns_hardly_see_one_of_its_directions(overlap):
    """Slopes of Q by finite differences; also where two singular values of P^T M are equal (overlap 1)."""
    random = np.random.default_rng(2)
    basis = np.linalg.qr(random.standard_normal((7, 4)))[0]
    patterns = basis[:, :2]
    M = basis[:, [0, 1]] * [1.0, overlap] + basis[:, [2, 3]] * [0.0, np.sqrt(1.0 - overlap**2)]
    coordinates = {"log_process_scale": np.log([0.3, 0.1]), "process_mixing": np.array([0.5])}

    def noise(M):
        return latent_covariance(coordinates | {"M": M}, patterns)

    direction = random.standard_normal((7, 2))
    _, slope = jax.jvp(noise, (jnp.asarray(M),), (jnp.asarray(direction),))
    _, pull_back = jax.vjp(noise, jnp.asarray(M))
    weights = random.standard_normal((2, 2))
    # Steps that do not take the overlap past 0, where the direction turns round.
    ends = [noise(M + sign * 1e-6 * direction) for sign in (1.0, -1.0)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-8)
    assert np.isclose(np.sum(pull_back(jnp.asarray(weights))[0] * direction), np.sum(weights * slope))
    assert np.abs(slope).max() < 10.0 * np.abs(noise(M)).max()


@TIME_CONSTANTS
def test_the_information_about_the_noise_is_that_of_dense_covariances(time_constant):
    model, _, data, parameters, _ = noisy(time_constant=time_constant, **LINEAR)
    filtered, expected = filter_trials(model, parameters, data), np.zeros((4, 4))
    variance = np.exp(2.0 * np.asarray(parameters["log_noise_scale"]))
    for trial in range(2):
        mean, covariance, flat = dense_gaussian(model, parameters, data, trial)
        total = covariance + np.diag(np.tile(variance, len(mean)))
        units = np.eye(4).reshape(4, 2, 2)
        slopes = [np.linalg.solve(total, np.einsum("itr,rs,jts->ij", flat, 0.5 * (e + e.T), flat)) for e in units]
        expected += 0.5 * np.array([[np.trace(one @ other) for other in slopes] for one in slopes])
    symmetric = 0.5 * (np.eye(4) + np.eye(4)[[0, 2, 1, 3]])
    found = symmetric @ np.asarray(covariance_information(filtered, 2, model.num_populations)) @ symmetric
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())


@pytest.mark.slow
@TIME_CONSTANTS
def test_the_information_about_the_noise_of_observations_is_that_of_dense_covariances(time_constant):
    model, _, data, parameters, _ = noisy(num_bins=7, time_constant=time_constant, **LINEAR)
    mask = np.random.default_rng(1).random(data.activity.shape) < 0.8
    data = dataclasses.replace(data, mask=jnp.asarray(mask))
    found, expected = observation_noise_information(model, parameters, data), np.zeros(4)
    for trial in range(2):
        mean, covariance, _ = dense_gaussian(model, parameters, data, trial)
        seen = mask[trial].ravel()
        variance = np.tile(np.exp(2.0 * np.asarray(parameters["log_noise_scale"])), len(mean))
        inverse = np.linalg.inv((covariance + np.diag(variance))[np.ix_(seen, seen)])
        for neuron in range(4):
            of_neuron = np.zeros(mean.shape)
            of_neuron[:, neuron] = 2.0 * np.exp(2.0 * parameters["log_noise_scale"][neuron])
            change = inverse @ np.diag(of_neuron.ravel()[seen])
            expected[neuron] += 0.5 * np.trace(change @ change)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.slow
@TIME_CONSTANTS
def test_the_information_about_inputs_and_biases_is_exact_in_the_linear_case(time_constant):
    """There J^T Sigma^-1 J, with Sigma the covariance of all that was recorded, is the information of a Gaussian."""
    model, space, data, parameters, _ = noisy(time_constant=time_constant, **LINEAR)
    z = space.whiten(parameters)
    columns = np.concatenate([space.places("B"), space.places("b")])
    found = np.asarray(information(model, space, z, data))[np.ix_(columns, columns)]
    variance, expected = np.exp(2.0 * np.asarray(parameters["log_noise_scale"])), 0.0
    jacobian = np.asarray(jax.jacfwd(lambda z: model.currents(space.unwhiten(z), data))(z))[..., columns]
    for trial in range(2):
        mean, covariance, _ = dense_gaussian(model, parameters, data, trial)
        total = covariance + np.diag(np.tile(variance, len(mean)))
        J = jacobian[trial].reshape(len(total), -1)
        expected = expected + J.T @ np.linalg.solve(total, J)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())


@TIME_CONSTANTS
@pytest.mark.long
@pytest.mark.slow
def test_the_information_is_the_covariance_of_the_score(time_constant):
    """By 200 recordings of one network: 80 variances of whitened scores, each with a standard error of a tenth.

    The filter linearises, so that this holds nearly: bounds are four standard errors and a tenth for that.
    """
    model, space, _, parameters, simulation = noisy(
        num_neurons=12, num_bins=30, num_trials=10, process_noise=0.005 * np.eye(2), time_constant=time_constant
    )
    z = space.whiten(parameters)
    score = jax.jit(lambda data: jax.grad(lambda z: log_likelihood(model.structure, space.unwhiten(z), data))(z))
    F_of = jax.jit(lambda data: information(model.structure, space, z, data))
    scores, F = [], 0.0
    for seed in range(200):
        again = model.data(model.simulate(simulation.parameters, simulation.recording, seed=seed))
        scores.append(np.asarray(score(again))[: space.num_dynamics])
        F = F + np.asarray(F_of(again)) / 200.0
    gauge = gauge_directions(space, np.asarray(z), np.eye(4).reshape(4, 2, 2))[: len(F)]
    across = scipy.linalg.null_space(gauge.T)
    values, axes = np.linalg.eigh(across.T @ F @ across)
    variances = np.var(np.array(scores) @ across @ axes / np.sqrt(values), axis=0)
    assert len(variances) > 70
    assert 0.95 < np.mean(variances) < 1.15
    assert np.all((variances > 0.5) & (variances < 1.5))


def particle_log_likelihood(model, parameters, data, trial, num_particles, random):
    """Bootstrap particle filter in the latent of a network of rank 1, written from the equations of the model."""
    M, K, b = (np.asarray(parameters[name]) for name in ("M", "K", "b"))
    B, sd = np.asarray(parameters["B"]), np.exp(np.asarray(parameters["log_noise_scale"]))
    a, num_neurons = float(model.integration_constants(parameters, data)[0]), len(M)
    scale = np.sqrt(float(latent_covariance(parameters, data.noise_patterns)[0, 0]))
    kappa, known, total = np.zeros(num_particles), np.zeros(num_neurons), 0.0
    for y, u in zip(np.asarray(data.activity[trial]), np.asarray(data.inputs[trial]), strict=True):
        rates = np.tanh(kappa[:, None] * M[:, 0] + known)
        weights = scipy.stats.norm.logpdf(y, rates, sd).sum(axis=1)
        total += scipy.special.logsumexp(weights) - np.log(num_particles)
        chosen = random.choice(num_particles, num_particles, p=np.exp(weights - scipy.special.logsumexp(weights)))
        noise = scale * random.standard_normal(num_particles)
        kappa = (1.0 - a) * kappa[chosen] + a * rates[chosen] @ K[:, 0] / num_neurons + noise
        known = (1.0 - a) * known + a * (B @ u + b)
    return total


@pytest.mark.slow
def test_the_nonlinear_case_is_near_that_of_a_particle_filter():
    """The filter linearises: with five neurons its density is off by up to a hundredth of a nat for every bin."""
    model, _, data, parameters, _ = noisy(rank=1, num_neurons=5, num_bins=15, process_noise=0.02 * np.eye(1), seed=3)
    found, random = log_likelihood_by_trial(model, parameters, data), np.random.default_rng(0)
    for trial in range(2):
        runs = [particle_log_likelihood(model, parameters, data, trial, 20_000, random) for _ in range(5)]
        assert abs(found[trial] - np.mean(runs)) < 0.01 * 15


def excess_of_second_bins(sd, counts=None, **changed):
    """(trial,) nats by which the density of a bin lies above the integral over its latent, and the simulated counts.

    The latent of the second bin is Normal(m, Q): the integral is a sum over 4,000 nodes. There are ten neurons; their
    parameters and the counts of the second bin may be others than those simulated.
    """
    model = plain_model(rank=1, process_noise="full", nonlinearity="softplus", observation=lrp.PoissonObservation(5.0))
    simulation = lrp.simulate_recording(
        model, num_neurons=10, num_trials=100, num_bins=2, process_noise=[[sd**2]], seed=0
    )
    settled = model.for_recording(simulation.recording)
    data = settled.data(simulation.recording)
    if counts is not None:
        data = dataclasses.replace(data, activity=data.activity.at[:, 1].set(counts))
    named = settled.coordinates(simulation.parameters, simulation.recording.dt) | changed
    parameters = {name: jnp.asarray(value) for name, value in named.items()}
    filtered = filter_trials(settled, parameters, data)
    scale = np.sqrt(float(latent_covariance(parameters, data.noise_patterns)[0, 0]))
    nodes = np.linspace(-8.0, 8.0, 4001)
    mean = np.asarray(filtered.predicted_mean)[:, 1, 0]
    currents = (mean[:, None] + scale * nodes)[..., None] * np.asarray(parameters["M"])[:, 0]
    currents = currents + np.asarray(known_currents(settled, parameters, data))[:, 1, None, :]
    rates = np.exp(np.asarray(parameters["log_rate_scale"])) * np.logaddexp(0.0, currents)
    expected_counts = data.dt * (rates + np.exp(np.asarray(parameters["log_baseline"])))
    second = np.asarray(data.activity)[:, 1]
    of_counts = scipy.stats.poisson.logpmf(second[:, None], expected_counts).sum(axis=2)
    exact = scipy.special.logsumexp(of_counts + scipy.stats.norm.logpdf(nodes), axis=1) + np.log(nodes[1] - nodes[0])
    return np.asarray(filtered.log_likelihood)[:, 1] - exact, simulation.recording.activity


@pytest.mark.slow
@pytest.mark.parametrize(("sd", "above", "below"), [(0.3, 1e-3, 1e-3), (1.0, 2e-3, 0.02), (3.0, 0.03, 0.1)])
def test_the_density_of_a_bin_is_a_bound_near_the_integral_however_few_the_spikes(sd, above, below):
    """At 3 units of current in one bin, the averages over three nodes are off by some hundredths themselves."""
    excess, counts = excess_of_second_bins(sd)
    assert np.mean(counts) < 0.2
    assert np.all(excess < above)
    assert np.mean(excess) > -below


@pytest.mark.slow
def test_counts_far_beyond_the_expected_ones_send_no_step_too_far():
    """One neuron fires eight times where next to nothing was expected of it and it follows the latent most.

    Whole steps of scoring end at rates of hundreds of counts, and with a density a hundred nats below the integral.
    """
    excess, _ = excess_of_second_bins(
        1.0, counts=np.array([8.0] + 9 * [0.0]), M=np.array([18.0] + 9 * [0.3])[:, None], b=np.full(10, -10.0)
    )
    assert np.all(excess < 0.05)
    assert np.mean(excess) > -1.0


@pytest.mark.slow
@pytest.mark.parametrize("observation", [lrp.GaussianObservation(), lrp.PoissonObservation(20.0)])
def test_the_information_is_never_negative(observation):
    """At networks that have nothing to do with the recording, whose activity their filters do not expect."""
    nonlinearity = "tanh" if observation.of == "rate" else "softplus"
    model, space, data, _, _ = noisy(
        num_neurons=5, num_bins=20, process_noise=0.5 * np.eye(2), observation=observation, nonlinearity=nonlinearity
    )
    for z in np.random.default_rng(1).standard_normal((5, space.size)):
        values = np.linalg.eigvalsh(np.asarray(information(model, space, z, data)))
        assert values[0] > -1e-9 * values[-1]


@pytest.mark.slow
def test_simulated_noise_has_the_variance_of_the_model():
    """Without recurrence, x is an autoregressive process with the variance (M Q M^T) sum_k (1 - a)^2k."""
    model = plain_model(rank=2, process_noise="full", nonlinearity="linear")
    M, Q = np.array([[1.0, 0.5], [0.3, -1.0], [0.8, 0.2]]), np.array([[0.2, 0.05], [0.05, 0.1]])
    like = lrp.Recording(np.zeros((4000, 6, 3)), 0.02)
    patterns = np.linalg.svd(M, full_matrices=False)[0]
    settled = dataclasses.replace(model, process_noise=lrp.ProcessNoise("full", patterns=patterns)).for_recording(
        dataclasses.replace(like, activity=np.random.default_rng(0).standard_normal(like.activity.shape))
    )
    parameters = {"M": M, "K": np.zeros((3, 2)), "B": np.zeros((3, 0)), "b": np.zeros(3), "noise_scale": np.ones(3)}
    currents = settled.simulated_currents(parameters | {"process_noise": Q}, like, seed=1)
    for time in (1, 5):
        expected = M @ Q @ M.T * np.sum(0.8 ** (2 * np.arange(time)))
        np.testing.assert_allclose(np.cov(currents[:, time].T), expected, atol=0.06 * expected.max())
    other = settled.simulated_currents(parameters | {"process_noise": Q}, like, seed=2)
    assert not np.allclose(currents, other)
