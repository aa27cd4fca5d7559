"""What is constrained and what is free: every figure against its definition, and none of them moved by the gauge."""

import dataclasses
import sys
import types

import numpy as np
import pytest
from handmade import STATISTICS, with_factors
from plain import plain_model

import lrposterior as lrp
from lrposterior.degeneracy import Degeneracy, analyze_degeneracy
from lrposterior.degeneracy.subspaces import principal_rates
from lrposterior.distribution import NormalDistribution, SampleDistribution
from lrposterior.inference.laplace import laplace
from lrposterior.inference.mode import Mode
from lrposterior.inference.problem import Problem
from lrposterior.posterior import Posterior

NEURONS = 8


def laplace_posterior(model, recording, parameters):
    """The Laplace posterior at given parameters instead of at a mode, which costs no fit, and its information F."""
    problem = Problem.of(model, recording)
    coordinates = {name: value for name, value in parameters.items() if name in problem.space}
    coordinates["log_noise_scale"] = np.log(parameters["noise_scale"])
    if "log_time_constant_excess" in problem.space:
        coordinates["log_time_constant_excess"] = np.log(parameters["time_constant"] - recording.dt)
    z = problem.prior_gauge(np.asarray(problem.space.whiten(coordinates)))
    mode = Mode(z, 0.0, 0.0, 0.0, problem.information(z), 1)
    posterior = Posterior(problem.model, recording, "laplace", 0, "by hand", STATISTICS, z, laplace(problem, mode))
    return posterior, mode.information


def simulated(model, *, noise_scale=0.1, seed=0, num_neurons=NEURONS, num_trials=6, num_bins=30, **options):
    """A recording with inputs that differ from bin to bin, and its truth."""
    inputs = np.random.default_rng(seed).standard_normal((num_trials, num_bins, 3))
    return lrp.simulate_recording(
        model, num_neurons=num_neurons, inputs=inputs, noise_scale=noise_scale, seed=seed, **options
    )


def posterior_of(model, **options):
    truth = simulated(model, **options)
    return laplace_posterior(model, truth.recording, truth.parameters)


MODELS = {
    "rank 1": plain_model(rank=1),
    "rank 2": plain_model(rank=2, priors=lrp.Priors(M=0.8, K=1.7)),
    "rank 3": plain_model(rank=3),
    "free initial state": plain_model(
        rank=2, nonlinearity="softplus", initial_state="free", time_constant=lrp.TimeConstantPrior(0.1)
    ),
    "background": plain_model(
        rank=1, background=lrp.FixedBackground(np.random.default_rng(9).standard_normal((NEURONS, NEURONS)) / 10)
    ),
}


@pytest.fixture(params=MODELS, scope="module")
def case(request):
    """(posterior, information F)."""
    return posterior_of(MODELS[request.param])


@pytest.fixture
def posterior(case):
    return case[0]


@pytest.fixture
def degeneracy(posterior):
    return analyze_degeneracy(posterior)


@pytest.fixture(scope="module")
def plain():
    return analyze_degeneracy(posterior_of(MODELS["rank 2"])[0])


def connectivity_jacobian(posterior):
    """dW / d (M, K in whitened coordinates), (post * pre, coordinate), from the mode's parameters one by one."""
    mode, priors = posterior.mode, posterior.model.priors
    num_neurons, rank = mode["M"].shape
    columns = []
    for factor, scale in (("M", priors.M), ("K", priors.K)):
        for neuron in range(num_neurons):
            for index in range(rank):
                change = {"M": np.zeros((num_neurons, rank)), "K": np.zeros((num_neurons, rank))}
                change[factor][neuron, index] = scale
                columns.append((change["M"] @ mode["K"].T + mode["M"] @ change["K"].T).ravel() / num_neurons)
    return np.stack(columns, axis=1)


# Counts


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_gauge_is_the_exact_kernel_of_the_information(rank):
    posterior, information = posterior_of(plain_model(rank=rank), num_neurons=5, noise_scale=0.01)
    eigenvalues = np.linalg.eigvalsh(information)
    relative = np.abs(eigenvalues) / eigenvalues[-1]
    degeneracy = analyze_degeneracy(posterior)
    assert degeneracy.num_gauge == np.sum(relative < 1e-13) == rank**2
    assert relative[rank**2] > 1e-9
    np.testing.assert_allclose(degeneracy.spectrum, eigenvalues[rank**2 :][::-1], rtol=1e-5)


def test_spectrum_solves_the_pencil_of_information_and_prior(case):
    posterior, information = case
    spectrum = posterior.spectrum
    largest = spectrum.information[0]
    np.testing.assert_allclose(
        information @ spectrum.directions, spectrum.directions * spectrum.information, atol=1e-7 * largest
    )


@pytest.mark.parametrize("threshold", [0.01, 1.0, 30.0])
def test_counts_are_those_of_the_spectrum_and_add_up(case, threshold):
    posterior, information = case
    degeneracy = analyze_degeneracy(posterior, threshold)
    eigenvalues = np.maximum(np.linalg.eigvalsh(information), 0.0)
    total = degeneracy.num_gauge + degeneracy.num_constrained + degeneracy.num_degenerate
    assert total == posterior.space.num_dynamics == len(eigenvalues)
    assert degeneracy.num_gauge == posterior.model.rank**2
    assert degeneracy.num_constrained == np.sum(eigenvalues >= threshold)
    assert degeneracy.effective_parameters == pytest.approx(np.sum(eigenvalues / (1.0 + eigenvalues)), rel=1e-6)
    assert degeneracy.information == pytest.approx(0.5 * np.sum(np.log(1.0 + eigenvalues)), rel=1e-6)
    connectivity = degeneracy.connectivity
    num_factors = 2 * posterior.recording.num_neurons * posterior.model.rank
    assert connectivity.num_constrained + connectivity.num_degenerate == connectivity.num_directions
    assert connectivity.num_directions == num_factors - degeneracy.num_gauge
    assert (np.diff(degeneracy.spectrum) <= 0.0).all()
    assert (np.diff(connectivity.spectrum) <= 0.0).all()


def test_ignorance_of_other_parameters_takes_information_about_W_away(case):
    """Marginal information on M and K is less than that with all other parameters known, and positive."""
    posterior, information = case
    connectivity = analyze_degeneracy(posterior).connectivity
    num_factors = 2 * posterior.recording.num_neurons * posterior.model.rank
    given_the_rest = np.linalg.eigvalsh(information[:num_factors, :num_factors])[::-1]
    assert (connectivity.spectrum <= given_the_rest[: connectivity.num_directions] * (1.0 + 1e-6) + 1e-6).all()
    assert connectivity.spectrum.min() > -1e-6
    assert connectivity.information < analyze_degeneracy(posterior).information


def test_a_recording_with_little_noise_constrains_every_direction():
    posterior, _ = posterior_of(plain_model(rank=2), noise_scale=1e-5, num_neurons=5, num_trials=12)
    degeneracy = analyze_degeneracy(posterior)
    assert degeneracy.null_dimension == 0
    assert degeneracy.num_degenerate == degeneracy.connectivity.num_degenerate == 0
    assert degeneracy.contraction.min() > 0.9999


def test_a_recording_of_noise_alone_supports_no_rank():
    with pytest.raises(lrp.FitError, match="the data do not support rank 2"):
        posterior_of(plain_model(rank=2), noise_scale=1e5)


def test_loadings_of_a_neuron_that_is_neither_seen_nor_heard_are_degenerate():
    """A masked neuron with K = 0 has no effect: its M, B and b are null, its synapses are known through K only."""
    model, hidden = plain_model(rank=2), 3
    truth = simulated(model, noise_scale=0.01)
    K = truth.parameters["K"].copy()
    K[hidden] = 0.0
    parameters = truth.parameters | {"K": K}
    mask = np.ones(truth.recording.activity.shape, dtype=bool)
    seen = analyze_degeneracy(laplace_posterior(model, truth.recording, parameters)[0])
    mask[:, :, hidden] = False
    masked = dataclasses.replace(truth.recording, mask=mask)
    unseen = analyze_degeneracy(laplace_posterior(model, masked, parameters)[0])
    null = [np.sum(np.abs(one.spectrum) < 1e-6) for one in (seen, unseen)]
    assert null == [0, 2 + 3 + 1]
    assert np.sum(np.abs(unseen.connectivity.spectrum) < 1e-6) == 2

    left, right = unseen.posterior.space.factors(unseen.posterior.mode_coordinates)
    through_K = np.sum(left[hidden] ** 2) / (np.sum(left[hidden] ** 2) + np.sum(right**2, axis=1))
    heard = np.arange(NEURONS) != hidden
    assert (unseen.contraction[hidden] <= through_K + 1e-7).all()
    assert (seen.contraction[hidden, heard] > through_K[heard]).all()

    dW = np.zeros((NEURONS, NEURONS))
    dW[hidden] = K @ [0.3, -1.2]
    split = unseen.split(dW)
    np.testing.assert_allclose(split.degenerate, dW, atol=1e-6)
    np.testing.assert_allclose(split.constrained, 0.0, atol=1e-6)
    np.testing.assert_allclose(seen.split(dW).constrained, dW, atol=0.2)


# The exact null space


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_linear_network_leaves_exactly_the_unvisited_rates_free(rank):
    """Its rates lie in the span of M, B and b: rank + inputs + 1 dimensions; R (N - rank Phi) directions are null."""
    model = plain_model(rank=rank, nonlinearity="linear", priors=lrp.Priors(K=1.0, unit=1.0))
    posterior, information = posterior_of(model, num_neurons=10)
    degeneracy = analyze_degeneracy(posterior)
    assert degeneracy.rate_rank == rank + 3 + 1
    assert degeneracy.null_dimension == rank * (10 - degeneracy.rate_rank)
    assert degeneracy.max_constrained_connectivity == rank * (10 + degeneracy.rate_rank) - rank**2
    eigenvalues = np.linalg.eigvalsh(information[: 20 * rank, : 20 * rank])
    assert np.sum(eigenvalues > 1e-9 * eigenvalues[-1]) == degeneracy.max_constrained_connectivity
    assert degeneracy.null_deviation < 1e-8
    unvisited = degeneracy.unvisited_patterns
    assert unvisited.shape == (10 - degeneracy.rate_rank, 10)
    np.testing.assert_allclose(unvisited @ unvisited.T, np.eye(len(unvisited)), atol=1e-12)
    np.testing.assert_allclose(posterior.mode_rates()[:, :-1] @ unvisited.T, 0.0, atol=1e-10)


def test_the_recording_is_blind_to_the_null_space():
    """Not only to first order: any change of K within it leaves every rate as it is."""
    model = plain_model(rank=2, nonlinearity="linear", priors=lrp.Priors(K=1.0, unit=1.0))
    posterior, _ = posterior_of(model, num_neurons=10)
    unvisited = analyze_degeneracy(posterior).unvisited_patterns
    Z = unvisited.T @ np.random.default_rng(0).standard_normal((len(unvisited), 2))
    space, z = posterior.space, posterior.mode_coordinates
    left, right = space.factors(z)
    moved = dataclasses.replace(posterior, mode_coordinates=with_factors(space, z, left, right + 3.0 * Z))
    assert np.linalg.norm(moved.mode_connectivity.to_dense() - posterior.mode_connectivity.to_dense()) > 1.0
    np.testing.assert_allclose(moved.mode_rates(), posterior.mode_rates(), atol=1e-9)


def test_null_deviation_tells_what_the_tolerance_neglects(plain):
    deviations = [
        analyze_degeneracy(plain.posterior, rate_tolerance=tolerance).null_deviation for tolerance in (1e-12, 0.1, 0.5)
    ]
    assert deviations[0] == 0.0
    assert 0.1 < deviations[1] <= deviations[2] <= 1.0


def test_rates_that_act_on_no_observation_are_not_visited():
    rates = np.zeros((2, 4, 3))
    rates[0, 0, 0] = rates[0, 2, 1] = 2.0
    rates[1, :, 2] = 1.0
    mask = np.ones((2, 4, 3), dtype=bool)
    mask[1] = False
    mask[1, 1, 0] = True
    values, patterns = principal_rates(rates, mask)
    np.testing.assert_allclose(values, [2.0, 2.0, 1.0], atol=1e-14)
    np.testing.assert_allclose(np.abs(patterns[2]), [0.0, 0.0, 1.0], atol=1e-14)
    mask[0, 3] = False
    mask[0, 1:3, 1:] = False
    np.testing.assert_allclose(principal_rates(rates, mask)[0], [2.0, 1.0, 0.0], atol=1e-14)
    mask[1, 1] = False
    np.testing.assert_allclose(principal_rates(rates, mask)[0], [2.0, 0.0, 0.0], atol=1e-14)


# In W itself


def test_contraction_is_one_minus_posterior_over_prior_variance(posterior, degeneracy):
    jacobian = connectivity_jacobian(posterior)
    root = jacobian @ posterior.distribution.scale[: jacobian.shape[1]]
    expected = 1.0 - np.sum(root**2, axis=1) / np.sum(jacobian**2, axis=1)
    np.testing.assert_allclose(degeneracy.contraction.ravel(), expected, atol=1e-7)
    assert degeneracy.contraction.min() > -1e-7
    assert degeneracy.contraction.max() < 1.0 + 1e-7


def test_contraction_agrees_with_draws():
    """Draws of W around the mode from a posterior that is shrunk, and from a prior that is: nearly linear."""
    posterior, _ = posterior_of(MODELS["rank 2"])
    random = np.random.default_rng(0)
    space, mode = posterior.space, posterior.mode_coordinates
    spread = []
    for scale in (posterior.distribution.scale, np.eye(space.size)):
        z = mode + 1e-3 * random.standard_normal((4000, scale.shape[1])) @ scale.T
        left, right = space.factors(z)
        spread.append(np.var(left @ np.swapaxes(right[:, :NEURONS], 1, 2), axis=0))
    found = analyze_degeneracy(posterior).contraction
    np.testing.assert_allclose(1.0 - found, spread[0] / spread[1], rtol=0.15)


def test_subspaces_are_those_of_the_weighted_sums_over_directions(posterior, degeneracy):
    jacobian, spectrum = connectivity_jacobian(posterior), posterior.spectrum
    num_neurons = posterior.recording.num_neurons
    changes = (jacobian @ spectrum.directions[: jacobian.shape[1]]).T.reshape(-1, num_neurons, num_neurons)
    weights = spectrum.information / (1.0 + spectrum.information)
    prior = jacobian.T.reshape(-1, num_neurons, num_neurons)
    for found, equation in ((degeneracy.read, "vij,vik->jk"), (degeneracy.written, "vij,vkj->ik")):
        removed = np.einsum("v," + equation, weights, changes, changes)
        total = np.einsum(equation, prior, prior)
        np.testing.assert_allclose(found.patterns @ found.patterns.T, np.eye(num_neurons), atol=1e-12)
        expected = np.einsum("pi,ij,pj->p", found.patterns, removed, found.patterns)
        np.testing.assert_allclose(found.shares * np.trace(removed), expected, rtol=1e-6)
        diagonal = found.patterns @ removed @ found.patterns.T
        np.testing.assert_allclose(diagonal, np.diag(expected), atol=1e-7 * expected[0])
        np.testing.assert_allclose(
            found.contraction, expected / np.einsum("pi,ij,pj->p", found.patterns, total, found.patterns), rtol=1e-6
        )
        assert (np.diff(found.shares) <= 1e-12).all()
        assert found.shares.sum() == pytest.approx(1.0)
        assert (found.patterns[np.arange(num_neurons), np.abs(found.patterns).argmax(axis=1)] > 0.0).all()


def test_read_patterns_of_a_well_recorded_network_are_its_right_singular_vectors():
    """Each neuron's row of M is known best, and dW = dM K^T reads K only."""
    degeneracy = analyze_degeneracy(posterior_of(plain_model(rank=2), num_neurons=40)[0])
    K = np.linalg.qr(degeneracy.posterior.mode["K"])[0]
    overlap = np.linalg.svd(degeneracy.read.patterns[:2] @ K, compute_uv=False)
    assert overlap.min() > 0.99
    assert degeneracy.read.shares[:2].sum() > 0.6


def matrix_of(split, part):
    """The split as a matrix on all of (post * pre)."""
    units = np.eye(NEURONS**2).reshape(-1, NEURONS, NEURONS)
    return np.stack([getattr(split(unit), part).ravel() for unit in units], axis=1)


def test_split_is_made_of_projections_onto_the_counted_directions(posterior):
    degeneracy = analyze_degeneracy(posterior, threshold=5.0)
    parts = {name: matrix_of(degeneracy.split, name) for name in ("constrained", "degenerate", "outside")}
    num_outside = (NEURONS - posterior.model.rank) ** 2
    ranks = (degeneracy.connectivity.num_constrained, degeneracy.connectivity.num_degenerate, num_outside)
    np.testing.assert_allclose(sum(parts.values()), np.eye(NEURONS**2), atol=1e-11)
    for (name, part), rank in zip(parts.items(), ranks, strict=True):
        np.testing.assert_allclose(part @ part, part, atol=1e-7, err_msg=name)
        assert np.trace(part) == pytest.approx(rank, abs=1e-7), name
        for other in parts:
            if other != name:
                np.testing.assert_allclose(part @ parts[other], 0.0, atol=1e-7, err_msg=f"{name} {other}")
    np.testing.assert_allclose(parts["outside"], parts["outside"].T, atol=1e-9)


def test_split_sorts_changes_of_M_and_K_by_their_information(posterior, degeneracy):
    jacobian = connectivity_jacobian(posterior)
    spectrum = degeneracy._analysis.spectrum
    for index in (0, degeneracy.connectivity.num_constrained - 1, spectrum.information.size - 1):
        dW = (jacobian @ spectrum.directions[:, index]).reshape(NEURONS, NEURONS)
        split = degeneracy.split(dW)
        own, other = split.constrained, split.degenerate
        if spectrum.information[index] < 1.0:
            own, other = other, own
        size = np.abs(dW).max()
        np.testing.assert_allclose(own, dW, atol=1e-7 * size)
        np.testing.assert_allclose(other, 0.0, atol=1e-7 * size)
        np.testing.assert_allclose(split.outside, 0.0, atol=1e-9 * size)


def test_split_of_W_itself(plain):
    W = plain.posterior.mode_connectivity.to_dense()[0]
    truth = W + 0.1 * np.random.default_rng(0).standard_normal(W.shape)
    np.testing.assert_allclose(plain.split(W).outside, 0.0, atol=1e-12)
    difference = plain.split(truth).constrained - plain.split(W).constrained
    np.testing.assert_allclose(difference, plain.split(truth - W).constrained, atol=1e-12)
    assert np.linalg.norm(plain.split(truth).outside) > 0.1


def test_constrained_part_of_W_is_recovered_better_than_W():
    model = plain_model(rank=2)
    truth = simulated(model, num_neurons=20, num_trials=8, noise_scale=0.02)
    degeneracy = analyze_degeneracy(lrp.fit(model, truth.recording, seed=0, progress=False), threshold=10.0)
    W = degeneracy.posterior.mode_connectivity.to_dense()[0]
    found, real = degeneracy.split(W), degeneracy.split(truth.connectivity)
    constrained, everything, degenerate = (
        np.corrcoef(one.ravel(), other.ravel())[0, 1]
        for one, other in (
            (found.constrained, real.constrained),
            (W, truth.connectivity),
            (found.degenerate, real.degenerate),
        )
    )
    assert constrained > 0.98
    assert degenerate < everything < constrained


def test_latent_connectivity_is_that_of_the_draws(posterior, degeneracy):
    latent = degeneracy.latent_connectivity(3, probability=0.8, num_draws=50, seed=4)
    W = posterior.sample_connectivity(50, seed=4).to_dense()
    draws = latent.basis.T @ W @ latent.basis
    np.testing.assert_allclose(latent.mean, draws.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(latent.lower, np.quantile(draws, 0.1, axis=0), atol=1e-12)
    np.testing.assert_allclose(latent.upper, np.quantile(draws, 0.9, axis=0), atol=1e-12)
    rates = posterior.mode_rates()[:, :-1].reshape(-1, NEURONS)
    _, _, principal = np.linalg.svd(rates)
    np.testing.assert_allclose(np.abs(principal[:3] @ latent.basis), np.eye(3), atol=1e-8)


def test_latent_connectivity_has_as_many_dimensions_as_the_currents(plain):
    assert plain.latent_connectivity(seed=0).mean.shape == (6, 6)
    wide, narrow = (plain.latent_connectivity(seed=0, probability=value) for value in (0.95, 0.5))
    assert (wide.lower < narrow.lower).all()
    assert (narrow.upper < wide.upper).all()
    np.testing.assert_array_equal(wide.mean, narrow.mean)
    linear = plain_model(rank=2, nonlinearity="linear", priors=lrp.Priors(K=1.0, unit=1.0))
    no_bias = simulated(linear, num_neurons=9)
    parameters = no_bias.parameters | {"b": np.zeros(9)}
    degeneracy = analyze_degeneracy(laplace_posterior(linear, no_bias.recording, parameters)[0])
    assert degeneracy.latent_connectivity(seed=0).mean.shape == (5, 5)


# The gauge


def random_gauge(space, z, *, one_for_all, seed):
    """z (..., coordinate) moved along its orbit: all by the same matrix, or each by its own."""
    random = np.random.default_rng(seed)
    left, right = space.factors(z)
    shape = () if one_for_all else z.shape[:-1]
    A = np.eye(left.shape[-1]) + 0.5 * random.standard_normal(shape + 2 * left.shape[-1:])
    return with_factors(space, z, left @ A, right @ np.linalg.inv(np.swapaxes(A, -1, -2)))


def outputs(degeneracy):
    """Everything that a user can see, by name."""
    latent = degeneracy.latent_connectivity(seed=3, num_draws=40)
    dW = np.random.default_rng(0).standard_normal((NEURONS, NEURONS))
    split = degeneracy.split(dW)
    counts = (
        "num_gauge", "num_constrained", "num_degenerate", "effective_parameters", "information", "rate_rank",
        "null_dimension", "max_constrained_connectivity", "null_deviation", "contraction",
    )  # fmt: skip
    shown = {name: getattr(degeneracy, name) for name in counts}
    shown |= {"spectrum": np.log1p(degeneracy.spectrum), "W spectrum": np.log1p(degeneracy.connectivity.spectrum)}
    shown |= {name: getattr(split, name) for name in ("constrained", "degenerate", "outside")}
    shown |= {f"latent {name}": getattr(latent, name) for name in ("basis", "mean", "lower", "upper")}
    for name in ("read", "written"):
        subspace = getattr(degeneracy, name)
        shown |= {f"{name} {field}": getattr(subspace, field) for field in ("patterns", "shares", "contraction")}
    return shown


def assert_same_outputs(one, other):
    expected, found = outputs(one), outputs(other)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    assert str(one).splitlines()[:8] == str(other).splitlines()[:8]


def test_nothing_depends_on_the_gauge_of_a_normal_posterior(posterior, degeneracy):
    normal, space = posterior.distribution, posterior.space
    move = {"one_for_all": True, "seed": 1}
    moved = NormalDistribution(
        random_gauge(space, normal.location, **move), random_gauge(space, normal.scale.T, **move).T
    )
    assert np.abs(moved.location - normal.location).max() > 0.1
    assert_same_outputs(degeneracy, analyze_degeneracy(dataclasses.replace(posterior, distribution=moved)))


def test_nothing_depends_on_the_gauge_of_sampled_draws(posterior):
    space = posterior.space
    draws = posterior.distribution.sample(3 * space.size, seed=0)
    one, other = (
        analyze_degeneracy(dataclasses.replace(posterior, method="nuts", distribution=SampleDistribution(chains)))
        for chains in (draws[None], random_gauge(space, draws, one_for_all=False, seed=1)[None])
    )
    assert_same_outputs(one, other)


def test_samples_tell_what_the_laplace_posterior_tells():
    """Draws in gauges of their own, as a Markov chain leaves them, against the Normal they come from."""
    posterior, _ = posterior_of(MODELS["rank 2"], noise_scale=0.05)
    space = posterior.space
    draws = random_gauge(space, posterior.distribution.sample(6000, seed=0), one_for_all=False, seed=1)
    chains = SampleDistribution(draws.reshape(4, 1500, space.size))
    exact = analyze_degeneracy(posterior)
    sampled = analyze_degeneracy(dataclasses.replace(posterior, method="nuts", distribution=chains))
    assert abs(sampled.num_constrained - exact.num_constrained) <= 1
    assert abs(sampled.connectivity.num_constrained - exact.connectivity.num_constrained) <= 1
    assert sampled.effective_parameters == pytest.approx(exact.effective_parameters, rel=0.02)
    assert sampled.information == pytest.approx(exact.information, rel=0.05)
    ratio = (1.0 + sampled.spectrum) / (1.0 + exact.spectrum)
    assert 0.8 < np.median(ratio) < 1.1
    assert np.abs(sampled.contraction - exact.contraction).max() < 0.1


# What is printed and drawn


def test_table_holds_the_counts(plain):
    table = str(plain)
    rows = {line[:34].strip(): line[34:].split() for line in table.splitlines()[2:7]}
    connectivity = plain.connectivity
    assert rows["directions"] == [str(plain.spectrum.size), str(connectivity.num_directions)]
    assert rows["constrained (lambda >= 1)"] == [str(plain.num_constrained), str(connectivity.num_constrained)]
    assert rows["degenerate (lambda < 1)"] == [str(plain.num_degenerate), str(connectivity.num_degenerate)]
    assert rows["effective parameters"][0] == f"{plain.effective_parameters:.1f}"
    assert rows["information (nats)"][1] == f"{connectivity.information:.1f}"
    assert "gauge directions, counted apart: 4\n" in table
    assert "rank 2, 8 neurons, 6 trials x 30 bins" in table
    assert max(len(line) for line in table.splitlines()) <= 110
    assert repr(plain) == (
        f"Degeneracy({plain.num_constrained} constrained, {plain.num_degenerate} degenerate, 4 gauge directions, "
        "lambda >= 1)"
    )


@pytest.mark.parametrize("name", ["plot_spectrum", "plot_contraction", "plot_subspaces"])
def test_plots_are_those_of_the_plotting_module(plain, name, monkeypatch):
    module = types.ModuleType("lrposterior.plots.degeneracy")
    setattr(module, name, lambda degeneracy, **options: (degeneracy, options))
    monkeypatch.setitem(sys.modules, "lrposterior.plots.degeneracy", module)
    assert getattr(plain, name)(width=3) == (plain, {"width": 3})


def test_results_cannot_be_changed(plain):
    with pytest.raises(dataclasses.FrozenInstanceError):
        plain.threshold = 2.0
    for array in (plain.spectrum, plain.connectivity.spectrum, plain.contraction, plain.read.patterns):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0


# Bad arguments


def full(value):
    return np.full((NEURONS, NEURONS), value)


BAD_CALLS = {
    "threshold zero": (lambda d: analyze_degeneracy(d.posterior, 0.0), r"^threshold: expected .* > 0, got 0.0"),
    "threshold negative": (lambda d: analyze_degeneracy(d.posterior, -1), r"^threshold: expected .* > 0, got -1"),
    "threshold NaN": (lambda d: analyze_degeneracy(d.posterior, np.nan), r"^threshold: expected .*, got nan"),
    "threshold text": (lambda d: analyze_degeneracy(d.posterior, "1"), r"^threshold: expected .*, got '1'"),
    "tolerance": (lambda d: analyze_degeneracy(d.posterior, rate_tolerance=1.0), r"^rate_tolerance: .*, got 1.0"),
    "no posterior": (
        lambda d: analyze_degeneracy(d.posterior.recording),
        r"^posterior: expected Posterior, got Recording; make it with lrposterior.fit",
    ),
    "split of a smaller matrix": (lambda d: d.split(np.eye(3)), r"^dW: expected .*post.*, got .*\(3, 3\)"),
    "split of a vector": (lambda d: d.split(np.ones(NEURONS)), r"^dW: expected .*\(post, pre\).*, got shape \(8,\)"),
    "split of draws": (lambda d: d.split(full(1.0)[None]), r"^dW: expected .*\(post, pre\).*, got shape \(1, 8, 8\)"),
    "split of NaN": (lambda d: d.split(full(np.nan)), r"^dW: expected finite numbers, got 64 of 64 entries NaN"),
    "split of text": (lambda d: d.split("W"), r"^dW: expected an array of real numbers"),
    "latents zero": (lambda d: d.latent_connectivity(0, seed=0), r"^num_latents: expected .* 1 to 8, got 0"),
    "latents many": (lambda d: d.latent_connectivity(9, seed=0), r"^num_latents: expected .* 1 to 8, got 9"),
    "probability": (
        lambda d: d.latent_connectivity(seed=0, probability=90),
        r"^probability: expected a number between 0 and 1.*, got 90; write 0.9 for 90%",
    ),
    "draws": (lambda d: d.latent_connectivity(seed=0, num_draws=0), r"^num_draws: expected .* >= 1, got 0"),
}


@pytest.mark.parametrize("call", BAD_CALLS)
def test_bad_arguments_say_what_to_do(plain, call):
    action, message = BAD_CALLS[call]
    with pytest.raises(ValueError, match=message):
        action(plain)


def test_too_few_draws_are_refused(plain):
    draws = plain.posterior.distribution.sample(50, seed=0)[None]
    few = dataclasses.replace(plain.posterior, method="nuts", distribution=SampleDistribution(draws))
    with pytest.raises(ValueError, match=r"^posterior: expected at least \d+ draws, .*, got 50; fit again with more"):
        analyze_degeneracy(few)


def test_a_rank_that_the_data_do_not_support_is_refused(plain):
    space, z = plain.posterior.space, plain.posterior.mode_coordinates.copy()
    left, right = space.factors(z)
    left[:, 1] *= 1e-9
    flat = dataclasses.replace(plain.posterior, mode_coordinates=with_factors(space, z, left, right))
    with pytest.raises(ValueError, match=r"^posterior: expected W of rank 2 at the mode, .*fit again with a lower one"):
        analyze_degeneracy(flat)


def test_a_network_too_large_for_the_memory_is_refused(plain, monkeypatch):
    monkeypatch.setattr("lrposterior.posterior.MAX_GIGABYTES", 1e-6)
    with pytest.raises(ValueError, match=r"^posterior: expected an array of at most .* GB; analyse fewer neurons"):
        analyze_degeneracy(dataclasses.replace(plain.posterior))


# The reference figures


@pytest.mark.long
@pytest.mark.slow
def test_counts_of_the_perturbation_benchmark():
    """N = 100, R = 2: a prototype found 541 of 700 directions constrained, and 232 of 396 for M and K alone."""
    random = np.random.default_rng(0)
    num_neurons, num_conditions = 100, 8
    M = 1.3 * random.standard_normal((num_neurons, 2))
    K = M * [1.25, 1.0] + 0.9 * random.standard_normal((num_neurons, 2))
    B = 0.5 * M + 0.7 * random.standard_normal((num_neurons, 2))
    angles = 2.0 * np.pi * np.arange(num_conditions) / num_conditions
    inputs = np.zeros((num_conditions, 60, 2))
    inputs[:, 3:13] = np.stack([np.cos(angles), np.sin(angles)], axis=1)[:, None]
    model = plain_model(rank=2, time_constant=0.1, priors=lrp.Priors(unit=1.0))
    trials = lrp.Recording(np.zeros((num_conditions, 60, num_neurons)), 0.02, inputs=inputs)
    parameters = {
        "M": M, "K": K, "B": B, "b": np.zeros(num_neurons), "time_constant": np.array(0.1),
        "noise_scale": np.full(num_neurons, 0.1 / np.sqrt(5.0)),
    }  # fmt: skip
    recording = model.simulate(parameters, trials, seed=1)
    degeneracy = analyze_degeneracy(lrp.fit(model, recording, seed=0, progress=False))
    assert degeneracy.num_gauge == 4
    assert degeneracy.spectrum.size == 696
    assert degeneracy.connectivity.num_directions == 396
    assert degeneracy.num_constrained == pytest.approx(541, rel=0.05)
    assert degeneracy.connectivity.num_constrained == pytest.approx(232, rel=0.06)
    assert degeneracy.connectivity.num_constrained <= degeneracy.max_constrained_connectivity
    assert degeneracy.null_deviation < 1e-5
    assert isinstance(degeneracy, Degeneracy)
