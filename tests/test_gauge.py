"""The gauge and the spectrum by identities: each against its definition, written out in the plainest way."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
from handmade import log_orbit_volume, make_posterior, make_recording, vertical_basis, with_factors
from plain import plain_model

import lrposterior as lrp
from lrposterior.distribution import NormalDistribution, SampleDistribution
from lrposterior.gauge import canonical, log_gauge_volume, product_svd
from lrposterior.orbit import gauge_basis, settle_trades, stretches_and_rotations, tilt_across, trade_basis
from lrposterior.spectrum import connectivity_spectrum, horizontal_spectrum

SIZES = [(1, 4, 4), (2, 5, 5), (3, 6, 9)]


@pytest.fixture(params=SIZES, ids=lambda size: f"rank{size[0]}")
def factors(request):
    """Left and right factors in no particular gauge."""
    rank, rows, columns = request.param
    random = np.random.default_rng(rank)
    return random.standard_normal((rows, rank)), random.standard_normal((columns, rank))


def random_gauge(left, right, random):
    A = np.eye(left.shape[-1]) + 0.5 * random.standard_normal(left.shape[:-2] + 2 * left.shape[-1:])
    return left @ A, right @ np.linalg.inv(np.swapaxes(A, -1, -2))


def product_jacobian(left, right):
    """d (left @ right^T) / d (left, right), (row * column, coordinate)."""

    def product(coordinates):
        X, Y = coordinates[: left.size].reshape(left.shape), coordinates[left.size :].reshape(right.shape)
        return (X @ Y.T).ravel()

    return jacobian_of(product, np.concatenate([left.ravel(), right.ravel()]))


def jacobian_of(function, at):
    """(value, coordinate) by central differences with steps of 1: exact, because the functions here are quadratic."""
    return np.stack([0.5 * (function(at + step) - function(at - step)) for step in np.eye(len(at))], axis=1)


# Singular values and the canonical gauge


def test_product_svd_is_that_of_the_product(factors):
    left, right = factors
    U, values, V = product_svd(left, right)
    rank = left.shape[1]
    np.testing.assert_allclose(values, np.linalg.svd(left @ right.T, compute_uv=False)[:rank], rtol=1e-12)
    np.testing.assert_allclose(U * values @ V.T, left @ right.T, atol=1e-13)
    for basis in (U, V):
        np.testing.assert_allclose(basis.T @ basis, np.eye(rank), atol=1e-14)
    assert (U[np.abs(U).argmax(axis=0), np.arange(rank)] > 0.0).all()


def test_product_svd_of_a_batch_is_that_of_each():
    random = np.random.default_rng(0)
    left, right = random.standard_normal((3, 4, 5, 2)), random.standard_normal((3, 4, 6, 2))
    batch = product_svd(left, right)
    alone = product_svd(left[1, 2], right[1, 2])
    for together, single in zip(batch, alone, strict=True):
        np.testing.assert_allclose(together[1, 2], single, atol=1e-14)


def test_canonical_gauge_keeps_the_product_and_is_balanced(factors):
    left, right = canonical(*factors)
    values = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False)[: left.shape[1]]
    np.testing.assert_allclose(left @ right.T, factors[0] @ factors[1].T, atol=1e-13)
    np.testing.assert_allclose(left.T @ left, np.diag(values), atol=1e-13)
    np.testing.assert_allclose(right.T @ right, np.diag(values), atol=1e-13)


def test_canonical_gauge_is_the_same_from_every_gauge_and_has_the_largest_prior_density(factors):
    random = np.random.default_rng(3)
    left, right = canonical(*factors)
    for _ in range(20):
        other_left, other_right = random_gauge(*factors, random)
        assert np.sum(other_left**2) + np.sum(other_right**2) > np.sum(left**2) + np.sum(right**2)
        for found, expected in zip(canonical(other_left, other_right), (left, right), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-10)


# Vertical and horizontal directions


def test_vertical_space_is_the_kernel_of_the_map_to_the_product(factors):
    jacobian = product_jacobian(*factors)
    basis, kernel = vertical_basis(*factors), scipy.linalg.null_space(jacobian)
    rank = factors[0].shape[1]
    assert basis.shape == (jacobian.shape[1], rank**2)
    np.testing.assert_allclose(basis.T @ basis, np.eye(rank**2), atol=1e-13)
    np.testing.assert_allclose(basis @ basis.T, kernel @ kernel.T, atol=1e-12)


def test_a_product_of_lower_rank_has_a_smaller_orbit():
    left, right = np.random.default_rng(0).standard_normal((2, 5, 2))
    left[:, 1], right[:, 1] = 0.0, 0.0
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert vertical_basis(left @ turn, right @ turn).shape == (20, 3)


# Volume of the orbit under rotations


def orbit_element(left, right, tangent):
    """Volume element of the orbit where its tangent is spanned by (left @ G, right @ G), G in `tangent`."""
    moved = np.array([np.concatenate([(left @ G).ravel(), (right @ G).ravel()]) for G in tangent])
    return np.sqrt(np.linalg.det(moved @ moved.T))


def rotation(angle, axis):
    first, second = [index for index in range(3) if index != axis]
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def test_orbit_of_rank_one_is_two_points():
    left, right = np.random.default_rng(0).standard_normal((2, 5, 1))
    assert log_orbit_volume(left, right) == pytest.approx(np.log(2.0))


def test_orbit_of_rank_two_is_two_circles_of_this_length():
    left, right = np.random.default_rng(0).standard_normal((2, 5, 2))
    angles = np.linspace(0.0, 2.0 * np.pi, 2001)
    turns = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]).transpose(2, 0, 1)
    points = np.concatenate([left @ turns, right @ turns], axis=1).reshape(len(angles), -1)
    circle = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
    assert log_orbit_volume(left, right) == pytest.approx(np.log(2.0 * circle), rel=1e-6)


def test_orbit_of_rank_three_by_quadrature_over_euler_angles():
    """Rz(a) Rx(b) Rz(c); the integrand depends on b only, by the symmetry of the rotations."""
    random = np.random.default_rng(0)
    left, right = random.standard_normal((5, 3)), 2.0 * random.standard_normal((7, 3))
    step, total = 1e-5, 0.0
    nodes, weights = np.polynomial.legendre.leggauss(12)

    def turn(angles):
        return rotation(angles[0], 2) @ rotation(angles[1], 0) @ rotation(angles[2], 2)

    for node, weight in zip(0.5 * np.pi * (nodes + 1.0), 0.5 * np.pi * weights, strict=True):
        angles = np.array([0.7, node, -0.4])
        tangent = [(turn(angles + shift) - turn(angles - shift)) / (2.0 * step) for shift in step * np.eye(3)]
        total += weight * orbit_element(left, right, tangent)
    assert log_orbit_volume(left, right) == pytest.approx(np.log(2.0 * (2.0 * np.pi) ** 2 * total), rel=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_orbit_volume_is_the_same_from_every_point_of_the_orbit(size):
    rank, rows, columns = size
    random = np.random.default_rng(5)
    left, right = random.standard_normal((rows, rank)), random.standard_normal((columns, rank))
    turn = np.linalg.qr(random.standard_normal((rank, rank)))[0]
    assert log_orbit_volume(left @ turn, right @ turn) == pytest.approx(log_orbit_volume(left, right))


# The spectrum: prior against posterior covariance of what the gauge leaves alone

MODELS = {
    "rank 1": plain_model(rank=1),
    "rank 2": plain_model(rank=2),
    "rank 3": plain_model(rank=3, priors=lrp.Priors(M=0.7, K=1.9)),
    "free initial state and time constant": plain_model(
        rank=2, initial_state="free", time_constant=lrp.TimeConstantPrior(0.1)
    ),
}


@pytest.fixture(params=MODELS, scope="module")
def posterior(request):
    """A Normal posterior of any covariance around a mode in the canonical gauge."""
    made = make_posterior(MODELS[request.param], make_recording())
    space, z = made.space, made.mode_coordinates
    mode = with_factors(space, z, *canonical(*space.factors(z)))
    normal = NormalDistribution(mode, made.distribution.scale)
    return dataclasses.replace(made, mode_coordinates=mode, distribution=normal)


def move_gauge(space, normal, seed):
    """The same Normal distribution of everything but the gauge, in another one."""
    random = np.random.default_rng(seed)
    rank = space["M"].shape[1]
    A = np.eye(rank) + 0.5 * random.standard_normal((rank, rank))

    def move(z):
        left, right = space.factors(z)
        return with_factors(space, z, left @ A, right @ np.linalg.inv(A).T)

    return NormalDistribution(move(normal.location), move(normal.scale.T).T)


def invariants_jacobian(space, z, names):
    """Jacobian of what the gauge leaves alone: products of the factors, and the parameters that it does not touch."""

    def invariants(dynamics):
        parameters = space.unwhiten(np.concatenate([dynamics, z[space.num_dynamics :]]))
        M = parameters["M"]
        values = {"W": M @ parameters["K"].T} | {name: parameters[name] for name in parameters if name not in "MK"}
        if "initial_kappa" in values:
            values["initial_kappa"] = values["initial_kappa"] @ M.T
        return np.concatenate([np.ravel(value) for name, value in values.items() if names is None or name in names])

    return jacobian_of(invariants, z[: space.num_dynamics])


def variance_ratios(jacobian, posterior_covariance):
    """Prior over posterior variance minus 1 along the directions of what a Jacobian maps to, decreasing."""
    basis, values, _ = np.linalg.svd(jacobian)
    basis = basis[:, : np.sum(values > 1e-10 * values[0])]
    mapped = basis.T @ jacobian
    return np.sort(scipy.linalg.eigh(mapped @ mapped.T, mapped @ posterior_covariance @ mapped.T)[0] - 1.0)[::-1]


def test_information_is_prior_over_posterior_variance_of_everything_observable(posterior):
    space, z = posterior.space, posterior.mode_coordinates
    root = posterior.distribution.scale[: space.num_dynamics]
    names = {block.name for block in space.blocks[:-1]} | {"W"}
    expected = variance_ratios(invariants_jacobian(space, z, names), root @ root.T)
    spectrum = posterior.spectrum
    assert len(expected) == space.num_dynamics - posterior.model.rank**2
    np.testing.assert_allclose(spectrum.information, expected, rtol=1e-7)
    assert (np.diff(spectrum.information) <= 0.0).all()


def test_information_on_W_is_prior_over_posterior_variance_of_W(posterior):
    space, z = posterior.space, posterior.mode_coordinates
    spectrum = posterior.spectrum
    horizontal = (spectrum.directions * spectrum.posterior_variance) @ spectrum.directions.T
    found = connectivity_spectrum(space, z, spectrum).information
    expected = variance_ratios(invariants_jacobian(space, z, {"W"}), horizontal)
    assert len(expected) == 2 * space["M"].size - posterior.model.rank**2
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_directions_are_orthonormal_and_complete(posterior):
    space, spectrum = posterior.space, posterior.spectrum
    everything = np.concatenate([spectrum.directions, spectrum.vertical], axis=1)
    assert everything.shape == (space.num_dynamics, space.num_dynamics)
    np.testing.assert_allclose(everything.T @ everything, np.eye(space.num_dynamics), atol=1e-11)
    jacobian = invariants_jacobian(space, posterior.mode_coordinates, None)
    np.testing.assert_allclose(jacobian @ spectrum.vertical, 0.0, atol=1e-11)


def test_removed_and_remaining_variance_add_up_to_the_prior(posterior):
    spectrum = posterior.spectrum
    np.testing.assert_allclose(spectrum.posterior_variance + spectrum.removed_variance, 1.0, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_spectrum_of_a_normal_posterior_does_not_depend_on_its_gauge(posterior, seed):
    space, expected = posterior.space, posterior.spectrum
    moved = move_gauge(space, posterior.distribution, seed)
    found = horizontal_spectrum(space, posterior.mode_coordinates, moved)
    np.testing.assert_allclose(found.information, expected.information, rtol=1e-7)
    np.testing.assert_allclose(np.abs(np.sum(found.directions * expected.directions, axis=0)), 1.0, atol=1e-5)


def test_spectrum_of_narrow_draws_is_that_of_their_distribution(posterior):
    """Where the posterior is narrow the map to W is linear: draws in any gauge have the covariance of the Normal."""
    space, mode = posterior.space, posterior.mode_coordinates
    random = np.random.default_rng(0)
    narrow = 1e-5 * posterior.distribution.scale
    noise = random.standard_normal((3 * space.size, narrow.shape[1]))
    draws = mode + noise @ narrow.T
    sample_scale = narrow @ np.linalg.cholesky(np.cov(noise, rowvar=False))
    expected = horizontal_spectrum(space, mode, NormalDistribution(mode, sample_scale)).information
    left, right = random_gauge(*space.factors(draws), random)
    chain = SampleDistribution(with_factors(space, draws, left, right).reshape(3, space.size, space.size))
    found = horizontal_spectrum(space, mode, chain).information
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_too_few_draws_are_refused():
    made = make_posterior(chains=True)
    draws = made.distribution.draws.reshape(1, -1, made.space.size)
    few, enough = (dataclasses.replace(made, distribution=SampleDistribution(draws[:, :number])) for number in (61, 62))
    with pytest.raises(ValueError, match=r"^posterior: expected at least 62 draws, .*, got 61; fit again with more"):
        _ = few.spectrum
    assert enough.spectrum.information.shape == (31,)


def gauge_directions_of(left, right):
    """Stretches and rotations of a model of which M and K are given; the other coordinates do not move."""
    model = plain_model(left.shape[1], initial_state="free")
    num_trials = len(right) - len(left)
    space = model.parameter_space(num_trials=num_trials, num_neurons=len(left), num_inputs=1, dt=0.02)
    return stretches_and_rotations(space, with_factors(space, np.zeros(space.size), left, right))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_gauge_volume_is_the_orbit_volume_where_the_factors_balance(rank):
    random = np.random.default_rng(rank)
    left, right = canonical(random.standard_normal((7, rank)), random.standard_normal((9, rank)))
    gauge = gauge_directions_of(left, right)
    assert log_gauge_volume(*gauge) == pytest.approx(log_orbit_volume(left, right), abs=1e-10)


def test_gauge_volume_counts_the_part_of_the_rotation_that_no_stretch_makes():
    """By projection: the length of the rotation after regressing it on the three stretches, times 4 pi for O(2)."""
    random = np.random.default_rng(0)
    left, right = 3.0 * random.standard_normal((7, 2)), random.standard_normal((9, 2))
    stretches = [np.diag([1.0, 0.0]), np.diag([0.0, 1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])]
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    moved = [np.concatenate([(left @ E).ravel(), -(right @ E.T).ravel()]) for E in [*stretches, turn]]
    design = np.stack(moved[:3], axis=1)
    rest = moved[3] - design @ np.linalg.lstsq(design, moved[3], rcond=None)[0]
    gauge = gauge_directions_of(left, right)
    assert log_gauge_volume(*gauge) == pytest.approx(np.log(4.0 * np.pi * np.linalg.norm(rest)), abs=1e-10)


def coordinates(rank, priors, background, seed=0):
    """The space of a small network, whitened coordinates, and the patterns through which a bulk is seen."""
    random = np.random.default_rng(seed)
    recording = lrp.Recording(random.standard_normal((3, 20, 7)), 0.02, inputs=random.standard_normal((3, 20, 2)))
    model = lrp.LowRankModel(rank, background=background, priors=priors).for_recording(recording)
    model = model.with_scales({name: prior.median for name, prior in model.scale_priors.items()})
    space = model.space_for(recording)
    subspace = None if background is None else model.background.visited
    return space, random.standard_normal(space.size), subspace


def test_tilt_is_what_the_turning_of_the_gauge_adds_to_the_curvature():
    """With a step p across the gauge the slope of |z|² / 2 there changes by P (1 - T) p; P projects on that space."""
    space, z, _ = coordinates(1, lrp.Priors(), None)
    size = space.num_dynamics

    def across(point):
        gauge = gauge_basis(space, point)
        return point[:size] - gauge @ (gauge.T @ point[:size])

    tilt, gauge = tilt_across(space, z, z[:size], None), gauge_basis(space, z)
    step = np.random.default_rng(1).standard_normal(size)
    step -= gauge @ (gauge.T @ step)
    moved = 1e-5 * np.concatenate([step, np.zeros(space.size - size)])
    change = (across(z + moved) - across(z - moved)) / 2e-5
    change -= gauge @ (gauge.T @ change)
    expected = step - tilt(step)
    np.testing.assert_allclose(change, expected - gauge @ (gauge.T @ expected), atol=1e-8)


@pytest.mark.parametrize("background", [None, lrp.RandomBulk(gain=0.5, dimension=3)], ids=["no bulk", "bulk"])
def test_tilted_slope_has_no_part_along_stretches_and_trades(background):
    space, z, subspace = coordinates(2, lrp.CorrelatedLoadings(), background)
    z, _ = settle_trades(space, z, subspace)
    size = space.num_dynamics
    tilt = tilt_across(space, z, z[:size], subspace)
    tilted = z[:size] - tilt(z[:size])
    trades = trade_basis(space, z, subspace)
    stretches = stretches_and_rotations(space, z)[0][:size]
    stretches -= trades @ (trades.T @ stretches)
    np.testing.assert_allclose(trades.T @ tilted, 0.0, atol=1e-9)
    np.testing.assert_allclose(stretches.T @ tilted, 0.0, atol=1e-8)
    first, second = np.random.default_rng(2).standard_normal((2, size))
    np.testing.assert_allclose(first @ tilt(second), second @ tilt(first), rtol=1e-10)
