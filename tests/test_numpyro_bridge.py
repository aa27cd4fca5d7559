"""The NumPyro program is the model: same names, same density, alone and inside a larger program."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import distributions
from numpyro.infer.util import log_density
from plain import plain_model

import lrposterior as lrp

NEURONS, RANK = 5, 2
random = np.random.default_rng(0)
MODELS = {
    "plain": plain_model(RANK),
    "free start": plain_model(RANK, initial_state="free"),
    "unknown time constant": plain_model(RANK, time_constant=lrp.TimeConstantPrior(0.1)),
    "background": plain_model(RANK, background=lrp.FixedBackground(0.3 * random.standard_normal((NEURONS, NEURONS)))),
    "bulk and correlated loadings": lrp.LowRankModel(
        RANK, background=lrp.RandomBulk(dimension=2), priors=lrp.CorrelatedLoadings()
    ),
    "cell types": plain_model(
        RANK,
        time_constant={"I": lrp.TimeConstantPrior(0.05), "E": lrp.TimeConstantPrior(0.1)},
        priors=lrp.CorrelatedLoadings(by_cell_type=True),
    ),
    "unbounded rates": plain_model(RANK, nonlinearity="softplus", priors=lrp.Priors(K=1.0, noise_scale=0.1)),
}
every_model = pytest.mark.parametrize("name", MODELS)


def make(name, num_inputs=2):
    """A model, a recording, parameters drawn from the prior, and the log density that the package gives them."""
    model = MODELS[name]
    recording = lrp.simulate_recording(
        model,
        num_neurons=NEURONS,
        num_trials=3,
        num_bins=12,
        num_inputs=num_inputs,
        noise_scale=0.2,
        cell_types=list("EIEEI"),
        seed=1,
    ).recording
    settled = model.for_recording(recording)
    space = settled.space_for(recording)
    z = np.random.default_rng(2).standard_normal(space.size)
    parameters = {key: jnp.asarray(value) for key, value in space.unwhiten(z).items()}
    expected = float(lrp.log_density(settled, space, parameters, settled.data(recording)))
    return model, recording, parameters, expected


@every_model
@pytest.mark.parametrize("num_inputs", [0, 2])
def test_the_density_is_that_of_the_package(name, num_inputs):
    model, recording, parameters, expected = make(name, num_inputs)
    found, _ = log_density(lrp.numpyro_model(model, recording), (), {}, parameters)
    np.testing.assert_allclose(float(found), expected, rtol=0, atol=1e-9)


@every_model
def test_sites_are_the_blocks_of_the_parameter_space(name):
    model, recording, parameters, _ = make(name)
    program = numpyro.handlers.seed(lrp.numpyro_model(model, recording), 0)
    trace = numpyro.handlers.trace(program).get_trace()
    sampled = {key: site["value"].shape for key, site in trace.items() if not site.get("is_observed", False)}
    assert sampled == {key: value.shape for key, value in parameters.items()}
    assert [key for key, site in trace.items() if site.get("is_observed", False)] == ["log_likelihood"]
    returned = program()
    assert {key: value.shape for key, value in returned.items()} == sampled


def test_priors_are_those_of_the_model():
    model, recording, _, _ = make("unbounded rates")
    space = model.for_recording(recording).space_for(recording)
    trace = numpyro.handlers.trace(numpyro.handlers.seed(lrp.numpyro_model(model, recording), 0)).get_trace()
    for block in space.blocks:
        prior = trace[block.name]["fn"]
        np.testing.assert_allclose(prior.mean, np.full(block.shape, block.mean), rtol=1e-12)
        np.testing.assert_allclose(prior.variance, np.full(block.shape, block.standard_deviation**2), rtol=1e-12)


def test_what_is_given_is_not_sampled():
    model, recording, parameters, expected = make("free start")
    program = lrp.numpyro_model(model, recording)
    given = {"K": parameters["K"], "b": np.asarray(parameters["b"])}
    rest = {key: value for key, value in parameters.items() if key not in given}
    found, trace = log_density(program, (), given, rest)
    assert not set(given) & set(trace)
    settled = model.for_recording(recording)
    space = settled.space_for(recording)
    of_given = sum(
        float(jnp.sum(distributions.Normal(space[key].mean, space[key].standard_deviation).log_prob(value)))
        for key, value in given.items()
    )
    np.testing.assert_allclose(float(found), expected - of_given, rtol=0, atol=1e-9)


def test_inside_a_larger_program():
    model, recording, parameters, _ = make("plain")
    network = lrp.numpyro_model(model, recording)

    def program():
        scale = numpyro.sample("scale", distributions.HalfNormal(2.5))
        shape = numpyro.sample("shape", distributions.Normal().expand([NEURONS, RANK]).to_event(2))
        network(K=scale * shape)

    scale, shape = 1.7, np.random.default_rng(3).standard_normal((NEURONS, RANK))
    rest = {key: value for key, value in parameters.items() if key != "K"}
    values = {"scale": scale, "shape": shape} | rest
    found = jax.jit(lambda values: log_density(program, (), {}, values)[0])(values)
    inner, _ = log_density(network, (), {"K": scale * shape}, rest)
    hyperprior = distributions.HalfNormal(2.5).log_prob(scale) + distributions.Normal().log_prob(shape).sum()
    np.testing.assert_allclose(float(found), float(inner + hyperprior), rtol=0, atol=1e-9)


@pytest.mark.slow
def test_it_can_be_differentiated():
    model, recording, parameters, _ = make("plain")
    gradient = jax.grad(lambda values: log_density(lrp.numpyro_model(model, recording), (), {}, values)[0])(parameters)
    for name, value in gradient.items():
        assert np.all(np.isfinite(value)), name
        assert np.any(value != 0.0), name


def test_single_precision_is_refused(single_precision):
    model, recording = plain_model(1), lrp.Recording(random.standard_normal((2, 9, 3)), 0.02)
    with pytest.raises(RuntimeError, match=r"numpyro_model: expected 64-bit JAX arrays, got 32-bit ones.*enable_x64"):
        lrp.numpyro_model(model, recording)
    with jax.enable_x64(True):
        program = lrp.numpyro_model(model, recording)
    with pytest.raises(RuntimeError, match="numpyro_model: expected 64-bit JAX arrays"):
        numpyro.handlers.seed(program, 0)()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"W": 0.0}, r"W: expected one of the parameters M, K, B, b, log_noise_scale, got 'W'; choose one of these"),
        ({"noise_scale": 0.1}, r"noise_scale: expected one of the parameters .*; did you mean 'log_noise_scale'\?"),
        ({"initial_kappa": 0.1}, r"initial_kappa: expected one of the parameters M, K, B, b, log_noise_scale, got"),
        ({"K": np.zeros((NEURONS, 1))}, r"K: expected shape \(5, 2\), got \(5, 1\); give all of its entries"),
    ],
)
def test_bad_values_are_named(given, message):
    model, recording, _, _ = make("plain")
    program = numpyro.handlers.seed(lrp.numpyro_model(model, recording), 0)
    with pytest.raises(ValueError, match=message):
        program(**given)


@pytest.mark.parametrize(
    ("model", "recording", "message"),
    [
        ("tanh", None, r"model: expected LowRankModel, got str"),
        (plain_model(1), np.zeros((2, 3, 4)), r"recording: expected Recording, got ndarray"),
        (plain_model(1, time_constant=0.001), None, r"time_constant: expected at least the bin width"),
    ],
)
def test_bad_arguments_are_named(model, recording, message):
    with pytest.raises(ValueError, match=message):
        lrp.numpyro_model(model, make("plain")[1] if recording is None else recording)
