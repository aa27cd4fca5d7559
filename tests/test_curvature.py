"""The information matrix: structured, by automatic differentiation, by finite differences, and its null space."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from handmade import vertical_basis
from plain import plain_model

import lrposterior as lrp
from lrposterior.curvature import information, recursion
from lrposterior.curvature.automatic import automatic_information
from lrposterior.curvature.structured import structured_information
from lrposterior.inference.problem import Problem

INITIAL_STATES = ("zero", "free")
FACTORS = np.random.default_rng(4).standard_normal((2, 6, 2))

# Everything that the structured form serves.
REGISTRY = {
    "nonlinearity": ("tanh", "relu", "softplus", "linear"),
    "time_constant": (
        0.1,
        lrp.TimeConstantPrior(0.1),
        {"E": 0.1, "I": 0.04},
        {"I": lrp.TimeConstantPrior(0.05), "E": 0.1},
        {"E": lrp.TimeConstantPrior(0.1), "I": lrp.TimeConstantPrior(0.05)},
        lrp.PerNeuron(lrp.TimeConstantPrior(0.1)),
    ),
    "background": (None, lrp.RandomBulk(dimension=2), lrp.FixedBackground(left=FACTORS[0], right=FACTORS[1])),
    "observation": (lrp.GaussianObservation("rate"), lrp.GaussianObservation("current")),
    "initial_state": INITIAL_STATES,
    "priors": (lrp.Priors(), lrp.CorrelatedLoadings(), lrp.CorrelatedLoadings(by_cell_type=True)),
    "num_inputs": (0, 2),
    "stimulation": (False, True),
    "masked": (False, True),
}


def covering_combinations(registry):
    """Combinations of one choice for each name, so that every pair of choices of two names is in one at least.

    All would be some thousand. Of 300 random combinations, each in turn is the one with most pairs that are still
    missing.
    """
    random, names = np.random.default_rng(0), list(registry)

    def pairs(one):
        return {(i, one[i], j, one[j]) for i, j in itertools.combinations(range(len(names)), 2)}

    sizes = [len(registry[name]) for name in names]
    missing = set().union(*(pairs(one) for one in itertools.product(*(range(size) for size in sizes))))
    chosen = []
    while missing:
        candidates = [tuple(random.integers(sizes).tolist()) for _ in range(300)]
        chosen.append(max(candidates, key=lambda one: len(missing & pairs(one))))
        missing -= pairs(chosen[-1])
    return [{name: registry[name][place] for name, place in zip(names, one, strict=True)} for one in chosen]


def problem_of(
    model, *, num_trials=3, num_bins=9, num_neurons=6, num_inputs=2, stimulation=True, masked=True, cell_types="EEIEII"
):
    """A problem on arbitrary data with gaps: the information does not depend on the activity."""
    random = np.random.default_rng(0)
    shape = (num_trials, num_bins, num_neurons)
    recording = lrp.Recording(
        random.standard_normal(shape),
        0.02,
        inputs=random.standard_normal((num_trials, num_bins, num_inputs)),
        stimulation=random.standard_normal(shape) if stimulation else None,
        mask=random.random(shape) < 0.8 if masked else None,
        cell_types=list(cell_types),
    )
    return Problem.of(model, recording)


@pytest.mark.slow
@pytest.mark.parametrize("parts", covering_combinations(REGISTRY), ids=lambda parts: parts["nonlinearity"])
def test_structured_information_equals_automatic_differentiation(parts):
    parts = dict(parts)
    of_data = {name: parts.pop(name) for name in ("num_inputs", "stimulation", "masked")}
    problem = problem_of(plain_model(2, **parts), num_trials=2, num_bins=6, **of_data)
    z = jnp.asarray(np.random.default_rng(1).standard_normal(problem.space.size))
    arguments = (problem.model.structure, problem.space, z, problem.data)
    structured, automatic = (
        jax.jit(function, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})(*arguments)
        for function in (structured_information, automatic_information)
    )
    np.testing.assert_allclose(structured, automatic, rtol=0, atol=1e-10 * float(jnp.abs(automatic).max()))


def background(kind, num_neurons=6):
    W0 = 0.3 * np.random.default_rng(5).standard_normal((num_neurons, num_neurons))
    if kind == "none":
        return None
    return lrp.FixedBackground(W0 if kind == "dense" else scipy.sparse.csr_array(np.where(np.abs(W0) > 0.2, W0, 0.0)))


@pytest.mark.parametrize("kind", ["none", "dense", "sparse"])
def test_information_is_the_weighted_square_of_a_finite_difference_jacobian(kind):
    problem = problem_of(plain_model(2, background=background(kind)))
    z = np.random.default_rng(1).standard_normal(problem.space.size)
    num_dynamics, step = problem.space.num_dynamics, 1e-5
    rates, mask = lambda point: np.tanh(problem.currents(point)), problem.recording.mask
    jacobian = np.stack(
        [
            (rates(z + step * axis) - rates(z - step * axis)) / (2.0 * step)
            for axis in np.eye(problem.space.size)[:num_dynamics]
        ],
        axis=-1,
    )
    weight = mask / np.exp(2.0 * np.asarray(problem.space.unwhiten(z)["log_noise_scale"]))
    expected = np.einsum("btnp,btn,btnq->pq", jacobian, weight, jacobian)
    np.testing.assert_allclose(problem.information(z), expected, rtol=0, atol=1e-7 * np.abs(expected).max())


def test_dense_and_sparse_backgrounds_agree():
    sparse = background("sparse")
    problems = [problem_of(plain_model(2, background=one)) for one in (sparse, lrp.FixedBackground(sparse.to_dense()))]
    z = np.random.default_rng(1).standard_normal(problems[0].space.size)
    np.testing.assert_allclose(problems[0].currents(z), problems[1].currents(z), rtol=1e-12)
    np.testing.assert_allclose(problems[0].information(z), problems[1].information(z), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["none", "dense"])
@pytest.mark.parametrize("initial_state", INITIAL_STATES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_exactly_rank_squared_directions_carry_no_information_on_the_gauge(rank, initial_state, kind):
    """With enough data every other direction of W is seen; along the gauge the curvature vanishes exactly."""
    model = plain_model(rank, background=background(kind), initial_state=initial_state)
    problem = problem_of(model, num_trials=12, num_bins=25, stimulation=True)
    z = np.random.default_rng(2).standard_normal(problem.space.size)
    F = problem.information(z)
    values = np.linalg.eigvalsh(F)
    assert np.sum(values < 1e-11 * values[-1]) == rank**2
    vertical = vertical_basis(*problem.space.factors(z))
    assert vertical.shape[1] == rank**2
    assert np.abs(F[:, : len(vertical)] @ vertical).max() < 1e-11 * values[-1]


def test_information_of_masked_entries_is_absent():
    problem = problem_of(plain_model(2))
    z = np.random.default_rng(1).standard_normal(problem.space.size)
    recording = problem.recording
    changed = np.where(recording.mask, recording.activity, 1e6)
    moved = Problem.of(problem.model, dataclasses.replace(recording, activity=changed))
    np.testing.assert_array_equal(problem.information(z), moved.information(z))
    assert problem.negative_log_density(z) == moved.negative_log_density(z)


@pytest.mark.slow
@pytest.mark.parametrize("process_noise", [None, "full"])
def test_information_does_not_depend_on_how_many_bins_are_held_at_once(process_noise, monkeypatch):
    model = lrp.LowRankModel(rank=2, background=None, initial_state="free", process_noise=process_noise)
    problem = problem_of(model, num_trials=2, num_bins=11)
    z = jnp.asarray(0.7 * np.random.default_rng(1).standard_normal(problem.space.size))
    whole = jax.jit(structured_information, static_argnums=0)(problem.model.structure, problem.space, z, problem.data)
    monkeypatch.setattr(recursion, "BINS_AT_ONCE", 4)
    in_parts = structured_information(problem.model.structure, problem.space, z, problem.data)
    np.testing.assert_allclose(in_parts, whole, rtol=0, atol=1e-12 * float(jnp.abs(whole).max()))


def test_gradient_is_the_slope_of_the_objective():
    problem = problem_of(plain_model(2, lrp.TimeConstantPrior(0.1), initial_state="free"))
    random = np.random.default_rng(3)
    z, direction = 0.5 * random.standard_normal((2, problem.space.size))
    step = 1e-5
    slope = problem.negative_log_density(z + step * direction) - problem.negative_log_density(z - step * direction)
    assert problem.gradient(z) @ direction == pytest.approx(slope / (2.0 * step), rel=1e-7)


def test_pure_functions_need_no_promotion(strict_jax):
    problem = problem_of(plain_model(2, lrp.TimeConstantPrior(0.1), initial_state="free"))
    z = jnp.asarray(np.random.default_rng(1).standard_normal(problem.space.size))
    assert np.all(np.isfinite(information(problem.model, problem.space, z, problem.data)))
