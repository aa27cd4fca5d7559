"""Variational inference and Markov chains find the posterior with the gauge integrated out."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from guides import random_guide
from handmade import with_factors
from jax.scipy.linalg import expm
from numpyro import distributions
from plain import plain_model
from scipy.special import kv

import lrposterior as lrp
from lrposterior.distribution import NormalDistribution, SampleDistribution
from lrposterior.inference import gauge_fixed, nuts, svi
from lrposterior.inference.balance import balance
from lrposterior.inference.initialise import initialise
from lrposterior.inference.laplace import log_evidence
from lrposterior.inference.mode import find_mode
from lrposterior.inference.problem import Problem

every_gauge = pytest.mark.parametrize(("rank", "initial_state"), [(1, "zero"), (2, "zero"), (3, "zero"), (2, "free")])
ROTATION_VOLUMES = {1: 2.0, 2: 4.0 * np.pi, 3: 16.0 * np.pi**2}


TRIALS_AND_BINS = {6: (10, 40), 10: (20, 70)}


@functools.cache
def simulate(rank, initial_state="zero", num_neurons=6):
    model = plain_model(rank, initial_state=initial_state)
    num_trials, num_bins = TRIALS_AND_BINS[num_neurons]
    simulation = lrp.simulate_recording(
        model, num_neurons=num_neurons, num_trials=num_trials, num_bins=num_bins, noise_scale=0.03, seed=4
    )
    return model, simulation.recording


@functools.cache
def problem_and_mode(rank, initial_state="zero"):
    problem = Problem.of(*simulate(rank, initial_state))
    return problem, balance(problem, find_mode(problem, initialise(problem))).mode


def in_another_gauge(problem, mode, seed=0):
    """The same W with the factors mixed."""
    left, right = problem.space.factors(mode.z)
    A = np.eye(left.shape[1]) + 0.3 * np.random.default_rng(seed).standard_normal((left.shape[1],) * 2)
    z = with_factors(problem.space, mode.z, left @ A, right @ np.linalg.inv(A).T)
    return dataclasses.replace(mode, z=z, information=problem.information(z), objective=problem.negative_log_density(z))


@functools.partial(jax.jit, static_argnums=0)
def evaluate(model, space, frame, data, batch):
    return jax.lax.map(lambda e: gauge_fixed.log_density(model, space, frame, data, e), batch)


def log_density_at(problem, frame, e):
    """The target at e (coordinate,) or at many (point, coordinate)."""
    batch = jnp.atleast_2d(jnp.asarray(e))
    found = np.asarray(evaluate(problem.model.structure, problem.space, frame, problem.data, batch))
    return found if np.ndim(e) == 2 else found[0]


# Every other set of options is compiled anew, which takes far longer than the steps: the tests share these.
SHORT = lrp.SVI(num_steps=30)
MEAN_FIELD = lrp.SVI("mean_field", num_steps=2000, learning_rate=0.01)
CHAINS = lrp.NUTS(num_warmup=150, num_samples=250, chain_method="vectorized")
SHORT_CHAIN = lrp.NUTS(num_warmup=10, num_samples=10, num_chains=1)


@functools.cache
def fitted(rank, method, *, num_neurons=6, seed=0):
    return lrp.fit(*simulate(rank, num_neurons=num_neurons), method, seed=seed, progress=False)


# The target


@pytest.mark.slow
@every_gauge
def test_the_target_is_the_joint_density_integrated_over_the_gauge(rank, initial_state):
    """By the textbook: density of (L, Q), times the Jacobian of the coordinates, times the volume of O(R)."""
    problem, balanced = problem_and_mode(rank, initial_state)
    mode = in_another_gauge(problem, balanced)
    space = problem.space
    frame = gauge_fixed.make_frame(problem, mode, "full")
    scale = np.asarray(frame.scale)
    left, right = space.factors(mode.z)
    stop, split = space.right_stop, left.size
    rows, columns = np.tril_indices(rank, -1)

    def displacement(X, Y, stretch, turn, rest):
        generator = stretch.at[rows, columns].add(turn).at[columns, rows].add(-turn)
        return jnp.concatenate([jnp.ravel(X + left @ generator), jnp.ravel(Y - right @ generator.T), rest])

    def all_factors(change):
        """(L, Q) of a displacement, with every gauge direction in it."""
        change_left, change_right = change[:split].reshape(left.shape), change[split:stop].reshape(right.shape)
        generator = jnp.linalg.solve(left.T @ left, left.T @ change_left)
        X, Y = change_left - left @ generator, change_right + right @ generator.T
        unit = jnp.eye(rank) + jnp.tril(generator + generator.T, -1)
        skew = jnp.tril(-generator.T, -1) - jnp.tril(-generator.T, -1).T
        A = unit @ jnp.diag(jnp.exp(jnp.diag(generator))) @ expm(skew)
        return jnp.concatenate([jnp.ravel((left + X) @ A), jnp.ravel((right + Y) @ jnp.linalg.inv(A).T)])

    random = np.random.default_rng(1)
    X = 0.3 * random.standard_normal(left.shape)
    X = X - left @ np.linalg.lstsq(left, X, rcond=None)[0]
    Y = 0.3 * random.standard_normal(right.shape)
    stretch = jnp.asarray(0.3 * np.tril(random.standard_normal((rank, rank))))
    turn = jnp.asarray(0.3 * random.standard_normal(len(rows)))
    rest = 0.1 * random.standard_normal(space.size - stop)
    here = displacement(X, Y, stretch, turn, rest)
    unturned = displacement(X, Y, stretch, 0.0 * turn, rest)

    factors = all_factors(unturned[:stop])
    moved = jnp.concatenate([factors, mode.z[stop:] + rest])
    # W does not depend on the gauge coordinates, and is that of the slice.
    point, _ = gauge_fixed.to_slice(space, frame, here)
    product = [one @ two.T for one, two in (space.factors(moved), space.factors(point))]
    np.testing.assert_allclose(product[0], product[1], rtol=1e-10, atol=1e-12)

    jacobian = np.linalg.slogdet(np.asarray(jax.jacfwd(all_factors)(unturned[:stop])))[1]
    of_turns = jax.jacfwd(lambda turned: frame.rotations.T @ displacement(X, Y, stretch, turned, rest))(turn)
    auxiliary = float(np.sum(distributions.Normal().log_prob(frame.rotations.T @ here)))
    auxiliary += np.linalg.slogdet(np.asarray(of_turns).reshape(len(rows), len(rows)))[1]
    expected = -problem.negative_log_density(moved) + jacobian + np.log(ROTATION_VOLUMES[rank]) + auxiliary
    expected += np.linalg.slogdet(scale)[1]
    np.testing.assert_allclose(
        log_density_at(problem, frame, np.linalg.solve(scale, here)), expected, rtol=0, atol=1e-7
    )


def test_the_integral_over_the_stretch_is_the_bessel_function():
    """For rank one the prior of W = L Q^T is known: integral of the joint density over the gauge = 2 K_0(|L| |Q|)."""
    problem, mode = problem_and_mode(1)
    space = problem.space
    frame = gauge_fixed.make_frame(problem, mode, "diagonal")
    left, right = (factor[:, 0] for factor in space.factors(mode.z))
    stretches = np.linspace(-4.0, 4.0, 801)
    direction = np.concatenate([left, -right, np.zeros(space.size - space.right_stop)])
    density = log_density_at(problem, frame, stretches[:, None] * direction / np.asarray(frame.scale))
    at_mode = -problem.negative_log_density(mode.z) + 0.5 * np.sum(mode.z[: space.right_stop] ** 2)
    found = np.log(np.sum(np.exp(density - at_mode)) * (stretches[1] - stretches[0]))
    expected = np.log(2.0 * kv(0, np.linalg.norm(left) * np.linalg.norm(right))) + np.sum(np.log(frame.scale))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@every_gauge
def test_laplace_on_the_target_is_the_evidence(rank, initial_state):
    problem, mode = problem_and_mode(rank, initial_state)
    for one in (mode, in_another_gauge(problem, mode)):
        frame = gauge_fixed.make_frame(problem, one, "full")
        found = log_density_at(problem, frame, np.zeros(problem.space.size))
        found += 0.5 * problem.space.size * np.log(2.0 * np.pi)
        expected, note = log_evidence(problem, one)
        assert expected is not None, note
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


def test_the_curvature_is_nearly_one_in_every_direction():
    problem, mode = problem_and_mode(2)
    frame = gauge_fixed.make_frame(problem, mode, "full")
    random = np.random.default_rng(0).standard_normal((20, problem.space.size))
    directions = np.concatenate([np.eye(problem.space.size), random / np.linalg.norm(random, axis=1, keepdims=True)])
    step = 1e-3
    here, *around = (log_density_at(problem, frame, shift * step * directions) for shift in (0.0, 1.0, -1.0))
    curvature = -(around[0] + around[1] - 2.0 * here) / step**2
    assert np.all(np.abs(curvature - 1.0) < 0.3)


def test_the_diagonal_frame_holds_the_conditional_spread():
    problem, mode = problem_and_mode(2)
    full, diagonal = (gauge_fixed.make_frame(problem, mode, shape) for shape in ("full", "diagonal"))
    precision = np.linalg.inv(np.asarray(full.scale) @ np.asarray(full.scale).T)
    np.testing.assert_allclose(diagonal.scale, 1.0 / np.sqrt(np.diag(precision)), rtol=1e-8)
    e = np.random.default_rng(0).standard_normal(problem.space.size)
    same = np.linalg.solve(full.scale, diagonal.scale * e)
    change = np.sum(np.log(diagonal.scale)) - np.linalg.slogdet(np.asarray(full.scale))[1]
    np.testing.assert_allclose(
        log_density_at(problem, diagonal, e), log_density_at(problem, full, same) + change, rtol=0, atol=1e-8
    )


def test_the_joint_target_is_the_objective():
    problem, mode = problem_and_mode(2)
    frame = gauge_fixed.make_joint_frame(problem, mode, "full")
    e = np.random.default_rng(0).standard_normal(problem.space.size)
    z = mode.z + np.asarray(frame.scale) @ e
    expected = -problem.negative_log_density(z) + np.linalg.slogdet(np.asarray(frame.scale))[1]
    found = log_density_at(problem, frame, e)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


# Variational inference


@pytest.mark.slow
def test_the_gradient_has_no_noise_where_the_guide_is_the_posterior():
    scale_tril = jnp.asarray([[1.0, 0.0], [0.5, 2.0]])

    def program():
        numpyro.sample("e", distributions.MultivariateNormal(jnp.ones(2), scale_tril=scale_tril))

    guide = svi.GUIDES["full"](program)
    exact = {"auto_loc": jnp.ones(2), "auto_scale_tril": scale_tril}
    guide_of = {"plain": guide, "pathwise": svi._pathwise(guide)}
    numpyro.handlers.seed(guide, 0)()

    def slope(name):
        loss = numpyro.infer.Trace_ELBO(num_particles=3).loss
        gradient = jax.grad(lambda values: loss(jax.random.key(1), values, program, guide_of[name]))(exact)
        return max(float(jnp.max(jnp.abs(value))) for value in gradient.values())

    assert slope("pathwise") < 1e-12
    assert slope("plain") > 0.1


@pytest.mark.long
@pytest.mark.slow
def test_bounds_are_ordered():
    """A larger family reaches a higher bound, and none the evidence. Laplace's is off by less than the margin here."""
    methods = MEAN_FIELD, lrp.SVI("low_rank", num_steps=800), lrp.SVI(num_steps=800)
    posteriors = [fitted(2, method) for method in methods]
    bounds = [posterior.statistics.diagnostics["ELBO"] for posterior in posteriors]
    errors = [posterior.statistics.diagnostics["standard error of ELBO"] for posterior in posteriors]
    evidence = posteriors[-1].statistics.log_evidence
    assert bounds[0] + 5.0 < bounds[1]
    assert bounds[1] + 5.0 < bounds[2]
    assert evidence - 1.5 < bounds[2] < evidence + 0.3
    assert max(errors) < 1.0
    for posterior, method in zip(posteriors, methods, strict=True):
        trace = posterior.statistics.elbo
        assert len(trace) % svi.STEPS_AT_ONCE == 0
        assert 0 < len(trace) <= method.num_steps
        assert np.all(np.isfinite(trace))
        assert np.mean(trace[-100:]) < evidence + 0.3


@pytest.mark.slow
def test_mean_field_finds_the_conditional_spread(monkeypatch):
    """The best independent Normal approximation of a Normal posterior has the standard deviations 1 / sqrt(P_ii).

    The guide starts there, so for this test it is made to start from elsewhere.
    """
    problem, mode = problem_and_mode(2)

    def too_wide(problem, mode, shape):
        frame = gauge_fixed.make_frame(problem, mode, shape)
        constant = frame.constant + problem.space.size * np.log(1.5)
        return dataclasses.replace(frame, scale=1.5 * frame.scale, constant=constant)

    monkeypatch.setattr(svi, "make_frame", too_wide)
    posterior = lrp.fit(*simulate(2), MEAN_FIELD, seed=0, progress=False)
    expected = gauge_fixed.make_frame(problem, mode, "diagonal").scale
    rest = slice(problem.space.right_stop, None)
    found = np.linalg.norm(posterior.distribution.scale, axis=1)
    np.testing.assert_allclose(found[rest], expected[rest], rtol=0.15)
    full = fitted(2, lrp.SVI(num_steps=800))
    dynamics = slice(problem.space.right_stop, problem.space.num_dynamics)
    assert np.all(found[dynamics] < np.linalg.norm(full.distribution.scale, axis=1)[dynamics])
    assert np.mean(posterior.connectivity_sd() / full.connectivity_sd()) < 0.6


@pytest.mark.parametrize("guide", ["full", "low_rank", "mean_field"])
def test_the_posterior_of_the_parameters_is_that_of_the_guide(guide):
    problem, mode = problem_and_mode(2)
    space, random = problem.space, np.random.default_rng(0)
    frame = gauge_fixed.make_frame(problem, mode, "full" if guide == "full" else "diagonal")
    of_e = random_guide(guide, space.size, random, 3)
    covariance = np.diag(of_e.variance) if guide == "mean_field" else np.asarray(of_e.covariance_matrix)
    points = np.asarray(
        gauge_fixed.points(space, frame, jnp.concatenate([jnp.zeros((1, space.size)), jnp.eye(space.size)]))
    )
    change = (points[1:] - points[0]).T
    found = svi._in_whitened_coordinates(space, frame, of_e)
    np.testing.assert_allclose(found.location, points[0] + change @ np.asarray(of_e.mean), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.scale @ found.scale.T, change @ covariance @ change.T, rtol=0, atol=1e-9)
    np.testing.assert_allclose(points[0], mode.z, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_a_fit_is_its_seed():
    first, other = fitted(1, SHORT), fitted(1, SHORT, seed=1)
    again = lrp.fit(*simulate(1), SHORT, seed=0, progress=False)
    np.testing.assert_array_equal(first.distribution.scale, again.distribution.scale)
    np.testing.assert_array_equal(first.statistics.elbo, again.statistics.elbo)
    assert np.all(first.statistics.elbo != other.statistics.elbo)


@pytest.mark.slow
def test_what_has_not_come_to_rest_says_so():
    posterior = fitted(1, SHORT)
    assert posterior.status == ("not converged: the ELBO had not come to rest after 30 steps; raise num_steps")
    assert len(posterior.statistics.elbo) == 30
    settled, defaults = fitted(1, "svi"), lrp.SVI()
    assert settled.status == "converged"
    assert defaults.patience * svi.STEPS_AT_ONCE < len(settled.statistics.elbo) < defaults.num_steps


def test_a_guide_that_meets_nothing_finite_is_an_error(monkeypatch):
    def diverges(model, space, frame, data, e):
        return jnp.where(jnp.sum(e**2) > 40.0, jnp.nan, -0.5 * jnp.sum(e**2))

    monkeypatch.setattr(gauge_fixed, "log_density", diverges)
    svi._climb.cache_clear()
    model, recording = simulate(1)
    with pytest.raises(
        lrp.FitError, match=r"non-finite ELBO at step \d+: for some draws .* network diverges; use a bounded"
    ):
        lrp.fit(model, recording, lrp.SVI(num_steps=100), seed=0, progress=False)
    svi._climb.cache_clear()


def test_the_low_rank_guide_starts_with_the_leading_correlations():
    problem, mode = problem_and_mode(2)
    full, frame = (gauge_fixed.make_frame(problem, mode, shape) for shape in ("full", "diagonal"))
    covariance = np.asarray(full.scale) @ np.asarray(full.scale).T / np.outer(frame.scale, frame.scale)
    previous = np.inf
    for rank in (1, 5, problem.space.size):
        factor = svi._initial_guide(lrp.SVI("low_rank", rank=rank), problem, mode, frame)["auto_cov_factor"]
        assert factor.shape == (problem.space.size, rank)
        missing = np.linalg.eigvalsh(covariance - np.eye(problem.space.size) - factor @ factor.T)
        assert missing[-1] < previous
        previous = missing[-1]
    assert previous < 1e-8
    assert svi._rank(lrp.SVI("low_rank", rank=1000), problem.space.size) == problem.space.size


# Markov chains


@pytest.mark.long
@pytest.mark.slow
def test_chains_of_a_small_network():
    posterior = fitted(1, CHAINS)
    diagnostics = posterior.statistics.diagnostics
    assert posterior.status == "converged"
    assert isinstance(posterior.distribution, SampleDistribution)
    assert posterior.distribution.draws.shape == (2, 250, posterior.space.size)
    assert set(diagnostics) == {
        "max R-hat of W", "min ESS of W", "max R-hat of rates", "min ESS of rates", "divergences",
    }  # fmt: skip
    for quantity in ("W", "rates"):
        assert 0.99 < diagnostics[f"max R-hat of {quantity}"] < 1.03
        assert diagnostics[f"min ESS of {quantity}"] > 100
    assert diagnostics["divergences"] == 0
    assert posterior.statistics.elbo.size == 0
    assert posterior.predict_rates(num_draws=3, seed=0).shape == (3, 10, 40, 6)


@pytest.mark.slow
def test_laplace_svi_and_nuts_agree():
    """On six neurons with plenty of data, up to the noise of 500 draws."""
    compare(1, CHAINS, 6, mean=0.15, spread=0.2)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 2])
def test_laplace_svi_and_nuts_agree_on_ten_neurons(rank):
    compare(rank, lrp.NUTS(num_warmup=500, num_samples=3000), 10, mean=0.1, spread=0.15)


def compare(rank, sampler, num_neurons, *, mean, spread):
    """Every entry of W: means within `mean` standard deviations, standard deviations within the share `spread`."""
    reference = fitted(rank, sampler, num_neurons=num_neurons)
    assert reference.status == "converged"
    for method in ("laplace", "svi"):
        posterior = fitted(rank, method, num_neurons=num_neurons)
        assert posterior.status == "converged"
        assert posterior.method == method
        assert isinstance(posterior.distribution, NormalDistribution)
        difference = (posterior.connectivity_mean() - reference.connectivity_mean()) / reference.connectivity_sd()
        assert np.max(np.abs(difference)) < mean, method
        ratio = posterior.connectivity_sd() / reference.connectivity_sd()
        assert np.max(np.abs(np.log(ratio))) < np.log1p(spread), method


def test_diagnostics_do_not_see_the_gauge():
    problem, mode = problem_and_mode(2)
    random = np.random.default_rng(0)
    draws = mode.z + 0.01 * random.standard_normal((2, 40, problem.space.size))
    before = nuts.gauge_invariant_diagnostics(problem, draws, 0)
    A = random.standard_normal((2, 40, 2, 2)) + 2.0 * np.eye(2)
    left, right = problem.space.factors(draws)
    moved = with_factors(problem.space, draws, left @ A, right @ np.linalg.inv(np.swapaxes(A, -1, -2)))
    after = nuts.gauge_invariant_diagnostics(problem, moved, 0)
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-6, err_msg=name)


def test_chains_that_disagree_say_so():
    problem, mode = problem_and_mode(2)
    draws = mode.z + 0.01 * np.random.default_rng(0).standard_normal((2, 40, problem.space.size))
    draws[1] += 0.05
    diagnostics = nuts.gauge_invariant_diagnostics(problem, draws, 0)
    status = nuts._status(diagnostics, 0.0)
    assert status.startswith("not converged: R-hat of ")
    assert status.endswith("above 1.05; raise num_warmup and num_samples")
    fine = {"max R-hat of W": 1.01, "max R-hat of rates": np.nan}
    assert nuts._status(fine, 0.0) == "converged"
    assert nuts._status(fine, 0.05).startswith("not converged: 5.0% of the draws diverged")


def test_rates_that_do_not_vary_have_no_diagnostics():
    constant, varying = np.ones((2, 10, 1)), np.random.default_rng(0).standard_normal((2, 10, 1))
    assert np.all(np.isnan(list(nuts._worst("rates", constant).values())))
    both = nuts._worst("rates", np.concatenate([constant, varying], axis=2))
    assert both == nuts._worst("rates", varying)


@pytest.mark.slow
def test_a_rank_that_the_data_do_not_support():
    """No connections at all: there is no Normal posterior, and the chains run on M and K."""
    nothing = np.zeros((4, 1))
    recording = lrp.simulate_recording(
        plain_model(1), M=nothing, K=nothing, num_trials=4, num_bins=40, noise_scale=0.3, seed=0
    ).recording
    with pytest.raises(lrp.FitError, match="lower"):
        lrp.fit(plain_model(2), recording, "svi", seed=0, progress=False)
    posterior = lrp.fit(plain_model(2), recording, SHORT_CHAIN, seed=0, progress=False)
    assert posterior.distribution.draws.shape == (1, 10, posterior.space.size)
    assert posterior.statistics.log_evidence is None


@pytest.mark.slow
@pytest.mark.parametrize("method", [SHORT, SHORT_CHAIN])
def test_single_precision_outside_changes_nothing(method, single_precision):
    model, recording = simulate(1)
    inside = lrp.fit(model, recording, method, seed=0, progress=False)
    with jax.enable_x64(True):
        reference = fitted(1, method)
    for found, expected in zip(*(vars(one.distribution).values() for one in (inside, reference)), strict=True):
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


# What a user can get wrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            lambda: lrp.SVI("ful"),
            r"guide: expected one of 'full', 'low_rank', 'mean_field', got 'ful'; did you mean 'full'\?",
        ),
        (lambda: lrp.SVI(num_steps=-1), r"num_steps: expected an integer >= 1, got -1"),
        (lambda: lrp.SVI(num_steps=1e4), r"num_steps: expected an integer >= 1, got 10000.0"),
        (lambda: lrp.SVI(num_particles=0), r"num_particles: expected an integer >= 1, got 0"),
        (lambda: lrp.SVI(learning_rate=0.0), r"learning_rate: expected one finite number > 0, got 0.0"),
        (lambda: lrp.SVI(patience=0), r"patience: expected an integer >= 1, got 0"),
        (lambda: lrp.SVI("low_rank", rank=0), r"rank: expected an integer >= 1, got 0"),
        (
            lambda: lrp.SVI("full", rank=2),
            r"rank: expected None for guide='full', got 2; it belongs to guide='low_rank'",
        ),
        (lambda: lrp.NUTS(num_warmup=0), r"num_warmup: expected an integer >= 1, got 0"),
        (lambda: lrp.NUTS(num_samples=9), r"num_samples: expected an integer >= 10, got 9; fewer draws say nothing"),
        (lambda: lrp.NUTS(num_chains=0), r"num_chains: expected an integer >= 1, got 0"),
        (
            lambda: lrp.NUTS(target_accept=1.0),
            r"target_accept: expected a number between 0 and 1, both excluded, got 1.0",
        ),
        (lambda: lrp.NUTS(chain_method="parallel"), r"chain_method: expected one of 'sequential', 'vectorized', got"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        options()


@pytest.mark.parametrize(
    ("method", "limit", "message"),
    [
        (
            "nuts",
            3000,
            r"method: expected at most 3000 coordinates for 'nuts', got 3001; use method='laplace' or 'svi'",
        ),
        (
            "svi",
            5000,
            r"method: expected at most 5000 coordinates for SVI\(guide='full'\), got 5001; use method='laplace'",
        ),
    ],
)
def test_too_large_a_problem_is_refused_before_anything_is_computed(method, limit, message):
    num_neurons = limit // 5
    recording = lrp.Recording(np.random.default_rng(0).standard_normal((1, 3, num_neurons)), 0.02)
    extra = lrp.Recording(
        np.random.default_rng(0).standard_normal((1, 3, num_neurons)), 0.02, inputs=np.ones((1, 3, 1))
    )
    model = plain_model(1, time_constant=lrp.TimeConstantPrior(0.1))
    assert model.space_for(recording).size < limit
    assert model.space_for(extra).size == limit + 1
    with pytest.raises(ValueError, match=message):
        lrp.fit(model, extra, method, seed=0, progress=False)
    assert lrp.SVI("low_rank").check(10**6) is None


@pytest.mark.parametrize("method", ["vi", lrp.SVI])
def test_an_unknown_method_is_named(method):
    with pytest.raises(ValueError, match=r"method: expected one of 'laplace', 'svi', 'nuts', 'ensemble', 'match', got"):
        lrp.fit(*simulate(1), method, seed=0)


def test_progress_is_shown_on_request(capfd, monkeypatch):
    for name in ("CI", "PYTEST_XDIST_WORKER"):  # where NumPyro hides its bar
        monkeypatch.delenv(name, raising=False)
    lrp.fit(*simulate(1), SHORT, seed=0, progress=False)
    assert capfd.readouterr().err == ""
    lrp.fit(*simulate(1), SHORT, seed=0, progress=True)
    assert "svi: 100%" in capfd.readouterr().err
    lrp.fit(*simulate(1), SHORT_CHAIN, seed=0, progress=True)
    assert "sample: 100%" in capfd.readouterr().err
