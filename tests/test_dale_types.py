"""Priors under Dale's law that differ between cell types: scales of M and K, kinds of magnitudes and their spread."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import lrposterior as lrp
from lrposterior import magnitudes
from lrposterior.parameters import ParameterSpace

NUM_NEURONS, RANK = 12, 2
TYPES = ["I"] * 2 + ["E"] * 9 + ["I"]
SIGNS = np.where(np.array(TYPES) == "I", -1.0, 1.0)
# The spread of half-normal magnitudes means nothing.
OF_TYPES = {
    "M": {"E": 1.0, "I": 0.5},
    "K": {"E": 0.8, "I": 6.0},
    "magnitudes": {"E": "log-normal", "I": "half-normal"},
    "spread": {"I": 1.0, "E": 0.7},
}
MIXED = lrp.DaleLoadings(unit=1.0, **OF_TYPES)
SCALE_OF_W0 = {"E": 1.0, "I": 4.0}
DISTRIBUTIONS = {"E": scipy.stats.lognorm(0.7), "I": scipy.stats.halfnorm()}
SHORT = {
    "laplace": "laplace",
    "svi": lrp.SVI(num_steps=30),
    "nuts": lrp.NUTS(num_warmup=10, num_samples=10, num_chains=1),
}


@pytest.fixture
def double_precision():
    with jax.enable_x64(True):
        yield


def model_of(priors: lrp.DaleLoadings = MIXED, rank: int = RANK, **options) -> lrp.LowRankModel:
    settings = {"nonlinearity": "softplus", "observation": lrp.GaussianObservation(of="rate"), "background": None}
    return lrp.LowRankModel(rank, priors=priors, **(settings | options))


def recording_of(activity: np.ndarray, **options) -> lrp.Recording:
    return lrp.Recording(activity, 0.02, **({"cell_types": TYPES} | options))


def space_of(priors: lrp.DaleLoadings = MIXED, **options) -> ParameterSpace:
    recording = recording_of(np.ones((2, 5, NUM_NEURONS)))
    return model_of(priors, **options).for_recording(recording).space_for(recording)


def magnitudes_by_type(random: np.random.Generator) -> dict[str, np.ndarray]:
    """M and K (neuron, rank) of the prior, neuron by neuron, by the generators of NumPy."""
    M, K = np.empty((2, NUM_NEURONS, RANK))
    for neuron, name in enumerate(TYPES):
        z = random.standard_normal((2, RANK))
        q = np.exp(OF_TYPES["spread"]["E"] * z) if name == "E" else np.abs(z)
        M[neuron], K[neuron] = OF_TYPES["M"][name] * q[0], SIGNS[neuron] * OF_TYPES["K"][name] / RANK * q[1]
    return {"M": M, "K": K}


def simulated(seed: int, num_trials: int = 30, num_bins: int = 60):
    """The model, a network of its prior, and a recording of it."""
    random = np.random.default_rng([seed, 5])
    parameters = magnitudes_by_type(random) | {
        "B": random.standard_normal((NUM_NEURONS, 2)),
        "b": 0.5 * random.standard_normal(NUM_NEURONS),
        "noise_scale": np.full(NUM_NEURONS, 0.1),
    }
    inputs = np.repeat(random.standard_normal((num_trials, num_bins // 10, 2)), 10, axis=1)
    like = recording_of(np.zeros((num_trials, num_bins, NUM_NEURONS)), inputs=inputs)
    return model_of(), parameters, model_of().simulate(parameters, like, seed=seed)


@pytest.mark.usefixtures("double_precision")
def test_draws_of_the_prior_have_the_magnitudes_of_their_type():
    """M by the type of the neuron that receives, K and W0 by that of the one that sends; six false alarms in 1e4."""
    space = space_of(background=lrp.SignedBackground(SCALE_OF_W0), self_connections=False)
    drawn = space.unwhiten(np.random.default_rng(0).standard_normal((1000, space.size)))
    for name, expected in DISTRIBUTIONS.items():
        belongs = np.array(TYPES) == name
        pre = np.array([[other for other in range(NUM_NEURONS) if other != post] for post in range(NUM_NEURONS)])
        sign = -1.0 if name == "I" else 1.0
        for values, scale in (
            (drawn["M"][:, belongs], OF_TYPES["M"][name]),
            (drawn["K"][:, belongs], sign * OF_TYPES["K"][name] / RANK),
            (drawn["W0"][:, belongs[pre]], sign * SCALE_OF_W0[name] / NUM_NEURONS),
        ):
            assert scipy.stats.kstest((values / scale).ravel(), expected.cdf).pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.usefixtures("double_precision")
def test_the_density_is_that_of_every_type_and_of_the_change_of_variables():
    space = space_of()
    z = np.random.default_rng(1).standard_normal(space.size)
    one = {name: np.asarray(value) for name, value in space.unwhiten(z).items()}
    density = sum(
        scipy.stats.norm(block.mean, block.standard_deviation).logpdf(one[block.name]).sum()
        for block in space.blocks
        if block.name not in ("M", "K")
    )
    for neuron, name in enumerate(TYPES):
        for factor, scale in (("M", OF_TYPES["M"][name]), ("K", SIGNS[neuron] * OF_TYPES["K"][name] / RANK)):
            density += np.sum(DISTRIBUTIONS[name].logpdf(one[factor][neuron] / scale) - np.log(abs(scale)))
    assert float(lrp.log_prior(space, one)) == pytest.approx(density, rel=1e-12)

    def flat(z):
        return jnp.concatenate([jnp.ravel(space.unwhiten(z)[block.name]) for block in space.blocks])

    _, log_slope = np.linalg.slogdet(jax.jacfwd(flat)(jnp.asarray(z)))
    assert float(lrp.log_prior(space, one)) == pytest.approx(scipy.stats.norm.logpdf(z).sum() - log_slope, rel=1e-12)
    np.testing.assert_allclose(space.whiten(one), z, rtol=1e-8, atol=1e-8)
    for name in ("M", "K"):
        wrong = one | {name: one[name] * np.where(np.arange(NUM_NEURONS) == 3, -1.0, 1.0)[:, None]}
        assert float(lrp.log_prior(space, wrong)) == -np.inf


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", ["M", "K", "W0"])
def test_derivatives_are_those_of_automatic_differentiation(name):
    space = space_of(background=lrp.SignedBackground(SCALE_OF_W0))
    block, z = space[name], space.coordinates(2.0 * np.random.default_rng(2).standard_normal(space.size), name)

    def derivative(of):
        return lambda z: jax.jvp(of, (z,), (jnp.ones_like(z),))[1]

    once = derivative(block.value)
    twice = derivative(once)
    first, second, third = (jax.jit(each)(jnp.asarray(z)) for each in (once, twice, derivative(twice)))
    bends = block.bends(z)
    np.testing.assert_allclose(np.broadcast_to(block.slope(z), z.shape), first, rtol=1e-7)
    np.testing.assert_allclose(bends[0] * block.slope(z), second, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(bends[1] * block.slope(z), third, rtol=1e-5, atol=1e-8)


def value_and_slopes(of, log_normal: np.ndarray, spread: np.ndarray, at: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Of a function of entries, its values and the derivative of each."""
    values, pull_back = jax.vjp(lambda x: of(log_normal, x, spread), at)
    return np.asarray(values), np.asarray(pull_back(jnp.ones_like(values))[0])


@pytest.mark.slow
@pytest.mark.parametrize("precise", [True, False])
def test_no_gradient_is_nan_because_of_the_other_kind(precise):
    """Where the kind that an entry does not have overflows, or has no derivative."""
    log_normal, spread = np.array([True, False, True, False]), np.array([0.1, 400.0, 0.1, 400.0])
    with jax.enable_x64(precise):
        z, q, edge = jnp.array([45.0, -30.0, -45.0, 2.0]), jnp.array([60.0, 0.5, 1e-3, 2.0]), jnp.array([-1.0, 0.0] * 2)
        for of, at in ((magnitudes.magnitude, z), (magnitudes.coordinate, q), (magnitudes.log_density, q)):
            values, slopes = value_and_slopes(of, log_normal, spread, at)
            assert np.all(np.isfinite(values))
            assert np.all(np.isfinite(slopes))
        values, slopes = value_and_slopes(magnitudes.log_density, log_normal, spread, edge)
        np.testing.assert_array_equal(np.isfinite(values), ~log_normal)
        assert np.all(np.isfinite(slopes))
        _, slopes = value_and_slopes(magnitudes.coordinate, log_normal, spread, edge)
        assert np.all(np.isfinite(slopes[~log_normal]))


@pytest.mark.usefixtures("double_precision")
def test_scales_that_are_left_out_are_those_of_each_type():
    """The root mean square where magnitudes are half-normal, the geometric mean where they are log-normal."""
    priors = dataclasses.replace(MIXED, K={"E": lrp.ScalePrior(0.8), "I": lrp.ScalePrior(6.0)})
    space = space_of(priors)
    one = dict(space.unwhiten(np.random.default_rng(3).standard_normal(space.size)))
    del one["log_K_scale"]
    sizes = {name: np.abs(one["K"][np.array(TYPES) == name]) * RANK for name in "EI"}
    expected = [np.mean(np.log(sizes["E"])), 0.5 * np.log(np.mean(sizes["I"] ** 2))]
    found = space.unwhiten(np.asarray(space.whiten(one)))
    np.testing.assert_allclose(found["log_K_scale"], expected, rtol=1e-12)
    np.testing.assert_allclose(found["K"], one["K"], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["half-normal", "log-normal"])
def test_types_that_agree_are_the_plain_form(kind):
    _, _, recording = simulated(0, num_trials=6)
    plain = lrp.DaleLoadings(M=0.8, K=2.0, magnitudes=kind, spread=0.6, unit=1.0)
    named = {name: dict.fromkeys("EI", getattr(plain, name)) for name in ("M", "K", "magnitudes", "spread")}
    one, other = (
        lrp.fit(model_of(priors), recording, seed=0, progress=False)
        for priors in (plain, dataclasses.replace(plain, **named))
    )
    np.testing.assert_array_equal(one.mode_coordinates, other.mode_coordinates)
    for name, draws in one.sample_parameters(20, seed=0).items():
        np.testing.assert_array_equal(draws, other.sample_parameters(20, seed=0)[name])


@pytest.mark.slow
@pytest.mark.parametrize("method", SHORT)
def test_a_fit_is_kept_with_its_priors(method, tmp_path):
    model, _, recording = simulated(1, num_trials=6)
    posterior = lrp.fit(model, recording, SHORT[method], seed=0, progress=False)
    draws = posterior.sample_parameters(10, seed=0)
    assert np.all(draws["M"] > 0.0)
    assert np.all(draws["K"] * SIGNS[:, None] > 0.0)
    posterior.save(tmp_path / "types.nc")
    loaded = lrp.load_posterior(tmp_path / "types.nc")
    assert loaded.model.priors == posterior.model.priors
    assert dict(loaded.model.priors.magnitudes) == OF_TYPES["magnitudes"]
    np.testing.assert_array_equal(loaded.sample_parameters(10, seed=0)["K"], draws["K"])


@pytest.mark.long
@pytest.mark.slow
def test_intervals_hold_the_truth_on_average():
    """Single networks of the mixed prior are 0.13 apart: by chance the mean is off by more than 0.07 in 6% of cases."""
    held = []
    for seed in range(12):
        model, parameters, recording = simulated(seed)
        posterior = lrp.fit(model, recording, seed=0, progress=False)
        lower, upper = posterior.connectivity_interval(0.9, num_draws=800, seed=1)
        W = parameters["M"] @ parameters["K"].T / NUM_NEURONS
        held.append(np.mean((lower <= W) & (upper >= W)))
    assert 0.83 < np.mean(held) < 0.97


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"M": {"E": 1.0, "I": -0.5}}, r"priors\.M\['I'\]: expected one finite number > 0, got -0\.5; give"),
        ({"M": {"E": lrp.ScalePrior(1.0), "I": 1.0}}, r"priors\.M\['E'\]: expected one finite number > 0, got ScaleP"),
        ({"K": {"E": "1"}}, r"priors\.K\['E'\]: expected one finite number > 0, got '1'"),
        ({"spread": {"E": 0.0, "I": 1.0}}, r"priors\.spread\['E'\]: expected one finite number > 0, got 0\.0; give"),
        (
            {"magnitudes": {"E": "log-normal", "I": "halfnormal"}},
            r"priors\.magnitudes\['I'\]: expected one of 'half-normal', 'log-normal', got 'halfnormal'; did you",
        ),
        ({"magnitudes": ["log-normal"]}, r"priors\.magnitudes: expected one of 'half-normal', 'log-normal', got \["),
    ],
)
def test_errors_name_the_type(options, words):
    with pytest.raises(ValueError, match=words):
        lrp.DaleLoadings(**options)


@pytest.mark.parametrize("name", OF_TYPES)
def test_every_type_of_the_recording_is_named_once(name):
    recording, value = recording_of(np.ones((2, 5, NUM_NEURONS))), OF_TYPES[name]["I"]
    expected = rf"priors\.{name}: expected a value for each of the cell types \['E', 'I'\], got "
    for given, got in (({"I": value}, r"none for \['E'\]"), (OF_TYPES[name] | {"PV": value}, r"one for \['PV'\]")):
        with pytest.raises(ValueError, match=f"{expected}{got}.*; name each type once"):
            model_of(lrp.DaleLoadings(**{name: given})).for_recording(recording)
    untyped = lrp.Recording(recording.activity, 0.02)
    for given, where in ((lrp.DaleLoadings(), "priors"), (lrp.DaleLoadings(K=OF_TYPES["K"]), r"priors\.K")):
        with pytest.raises(ValueError, match=f"^{where}: expected a recording with cell_types, got one without"):
            model_of(given).for_recording(untyped)
