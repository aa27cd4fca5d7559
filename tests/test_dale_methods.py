"""SVI and NUTS under Dale's law: the whitened coordinates themselves, in which the prior is Normal(0, I)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from guides import random_guide
from numpyro import distributions

import lrposterior as lrp
from lrposterior.distribution import NormalDistribution
from lrposterior.inference import gauge_fixed, svi
from lrposterior.inference.laplace import bent_normal
from lrposterior.inference.problem import Problem
from lrposterior.inference.secant_mode import find_secant_mode
from lrposterior.inference.signed_start import signed_start

TYPES, SCALES = ["E"] * 3 + ["I"] * 2, {"E": 1.5, "I": 6.0}
SHORT = lrp.SVI(num_steps=30)
SHORT_CHAIN = lrp.NUTS(num_warmup=10, num_samples=10, num_chains=1)


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


@functools.cache
def simulated(rank, noise=0.1, num_trials=6, magnitudes="half-normal"):
    """A network of roughly the prior, and its recording."""
    random, number = np.random.default_rng(3), len(TYPES)
    signed = np.array([SCALES[name] if name == "E" else -SCALES[name] for name in TYPES])
    parameters = {
        "M": random.uniform(0.4, 1.6, (number, rank)),
        "K": signed[:, None] / rank * random.uniform(0.4, 1.6, (number, rank)),
        "B": random.standard_normal((number, 2)),
        "b": 0.5 * random.standard_normal(number),
        "noise_scale": np.full(number, noise),
    }
    inputs = np.repeat(random.standard_normal((num_trials, 4, 2)), 10, axis=1)
    like = lrp.Recording(np.zeros((num_trials, 40, number)), 0.02, inputs=inputs, cell_types=TYPES)
    model = lrp.LowRankModel(
        rank,
        nonlinearity="softplus",
        observation=lrp.GaussianObservation(of="rate"),
        background=None,
        priors=lrp.DaleLoadings(K=SCALES, magnitudes=magnitudes, unit=1.0),
    )
    return model, model.simulate(parameters, like, seed=3)


@functools.cache
def problem_and_mode(rank):
    problem = Problem.of(*simulated(rank))
    return problem, find_secant_mode(problem, signed_start(problem), max_iterations=300)


def density_of(problem, frame, z):
    """The target at whitened coordinates z, per unit of z."""
    scale = np.asarray(frame.scale)
    scale = scale if scale.ndim == 2 else np.diag(scale)
    e = jnp.asarray(np.linalg.solve(scale, z - np.asarray(frame.mode)))
    density = gauge_fixed.log_density(problem.model.structure, problem.space, frame, problem.data, e)
    return float(density) - np.linalg.slogdet(scale)[1]


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["full", "diagonal"])
def test_the_target_is_the_joint_density_of_whitened_coordinates(shape):
    """Density of the recording times Normal(z; 0, I), the same where columns of M and K change places."""
    problem, mode = problem_and_mode(2)
    space, frame = problem.space, gauge_fixed.make_frame(problem, mode, shape)
    z = mode.z + 0.1 * np.random.default_rng(0).standard_normal(space.size)
    expected = float(lrp.log_likelihood(problem.model, space.unwhiten(z), problem.data))
    expected += float(jnp.sum(distributions.Normal().log_prob(z)))
    assert density_of(problem, frame, z) == pytest.approx(expected, abs=1e-8)
    swapped = z.copy()
    for name in ("M", "K"):
        swapped[space.slices[name]] = space.coordinates(z, name)[:, ::-1].ravel()
    assert density_of(problem, frame, swapped) == pytest.approx(expected, abs=1e-8)


@pytest.mark.slow
def test_the_full_frame_is_the_laplace_posterior():
    problem, mode = problem_and_mode(1)
    frame, laplace = gauge_fixed.make_frame(problem, mode, "full"), bent_normal(problem, mode)
    diagonal = gauge_fixed.make_frame(problem, mode, "diagonal")
    e = np.random.default_rng(0).standard_normal((3, problem.space.size))
    found = gauge_fixed.points(problem.space, frame, jnp.asarray(e))
    np.testing.assert_allclose(found, laplace.location + e @ laplace.scale.T, atol=1e-12)
    precision = np.linalg.inv(laplace.scale @ laplace.scale.T)
    np.testing.assert_allclose(diagonal.scale, np.diag(precision) ** -0.5, rtol=1e-8)


@pytest.mark.parametrize("guide", list(svi.GUIDES))
def test_a_frame_around_a_guide_changes_neither_target_nor_guide(guide):
    problem, mode = problem_and_mode(1)
    random, size = np.random.default_rng(0), problem.space.size
    of_e = random_guide(guide, size, random, 2)
    frame = gauge_fixed.make_frame(problem, mode, "full" if guide == "full" else "diagonal")
    moved, differs = svi._recentred(problem.space, frame, of_e)
    z = mode.z + 0.1 * random.standard_normal(size)
    assert density_of(problem, moved, z) == pytest.approx(density_of(problem, frame, z), abs=1e-7)
    again = {
        "full": lambda: distributions.MultivariateNormal(jnp.zeros(size), scale_tril=jnp.eye(size)),
        "low_rank": lambda: distributions.LowRankMultivariateNormal(
            jnp.zeros(size), differs["auto_cov_factor"], jnp.ones(size)
        ),
        "mean_field": lambda: distributions.Normal(jnp.zeros(size), jnp.ones(size)),
    }[guide]()
    before, after = (svi._in_whitened_coordinates(problem.space, *each) for each in ((frame, of_e), (moved, again)))
    np.testing.assert_allclose(after.location, before.location, atol=1e-10)
    np.testing.assert_allclose(after.scale @ after.scale.T, before.scale @ before.scale.T, atol=1e-9)


@pytest.fixture
def other_target(monkeypatch):
    """Another target, for which nothing that was compiled is kept."""

    def install(of_z):
        def density(model, space, frame, data, e):
            constant = frame.constant + 0.5 * space.size * jnp.log(2.0 * jnp.pi)
            return of_z(frame.mode + frame.displacement(e)) + constant

        for module in (gauge_fixed, svi):
            monkeypatch.setattr(module, "log_density", density)

    for clear in (svi._climb.cache_clear, svi._elbo_draws.clear_cache):
        clear()
    yield install
    for clear in (svi._climb.cache_clear, svi._elbo_draws.clear_cache):
        clear()


@pytest.mark.slow
def test_a_posterior_that_is_normal_is_found_exactly(other_target):
    """However far from the Laplace posterior; its bound is then log p(activity), and has no noise."""
    problem, mode = problem_and_mode(1)
    start, random = bent_normal(problem, mode), np.random.default_rng(0)
    turn, _ = np.linalg.qr(random.standard_normal(start.scale.shape))
    root = start.scale @ turn @ np.diag(np.exp(random.uniform(-1.5, 0.5, len(turn))))
    exact = distributions.MultivariateNormal(
        jnp.asarray(start.location + root @ random.standard_normal(len(turn))), covariance_matrix=root @ root.T
    )
    other_target(lambda z: exact.log_prob(z) + 7.0)
    posterior = lrp.fit(*simulated(1), "svi", seed=0, progress=False)
    assert posterior.status == "converged"
    assert posterior.method == "svi"
    assert posterior.statistics.diagnostics["ELBO"] == pytest.approx(7.0, abs=0.01)
    found = posterior.distribution
    assert isinstance(found, NormalDistribution)
    white = np.linalg.solve(root, found.scale)
    np.testing.assert_allclose(white @ white.T, np.eye(len(turn)), atol=0.05)
    np.testing.assert_allclose(np.linalg.solve(root, found.location - np.asarray(exact.loc)), 0.0, atol=0.05)


def test_a_guide_under_which_networks_diverge_is_an_error(other_target):
    start = jnp.asarray(bent_normal(*problem_and_mode(1)).location)
    other_target(lambda z: jnp.where(jnp.sum((z - start) ** 2) > 1e-3, jnp.nan, 0.0))
    with pytest.raises(
        lrp.FitError, match=r"non-finite ELBO at step 1: for some draws .* network diverges; use priors with smaller M"
    ):
        lrp.fit(*simulated(1), SHORT, seed=0, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("method", [SHORT, SHORT_CHAIN, lrp.Laplace(correction="psis")])
def test_draws_obey_dales_law_and_are_kept(method, tmp_path):
    posterior = lrp.fit(*simulated(1), method, seed=0, progress=False)
    draws = posterior.sample_parameters(10, seed=0)
    assert np.all(draws["M"] >= 0.0)
    assert np.all(draws["K"] * np.where(np.array(TYPES) == "I", -1.0, 1.0)[:, None] >= 0.0)
    posterior.save(tmp_path / "dale.nc")
    loaded = lrp.load_posterior(tmp_path / "dale.nc")
    np.testing.assert_array_equal(loaded.sample_parameters(10, seed=0)["K"], draws["K"])
    assert (loaded.method, loaded.status) == (posterior.method, posterior.status)


@pytest.mark.slow
def test_draws_have_the_gauge_of_their_laplace_posterior():
    posterior = lrp.fit(*simulated(1), lrp.Laplace(correction="psis"), seed=0, progress=False)
    assert posterior.spectrum.vertical.shape[1] == 1
    with pytest.raises(ValueError, match=r"posterior: expected at least .* draws, twice the number of directions"):
        _ = lrp.fit(*simulated(1), SHORT_CHAIN, seed=0, progress=False).spectrum
