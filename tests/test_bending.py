"""What bent magnitudes add to the curvature and the mean, against derivatives and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrposterior.inference.bending import LEAST_PRIOR_CURVATURE, Bends, bent_curvature, bent_mean_shift
from lrposterior.parameters import RIGHT_SCALE, Block, ParameterSpace


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


MODE = np.array([0.4, -0.7, 0.3])
# Which of two magnitudes, or of the magnitudes of three neurons, are log-normal.
KINDS = {"half-normal": ([False, False], [False] * 3), "log-normal": ([True, True], [True] * 3)}
KINDS["mixed"] = [True, False], [True, False, True]


def bent_density(magnitudes: str, strength: float):
    """V (...,) of z (..., 3), two magnitudes and a coordinate without sign, its F, h, b, t at the mode."""
    random = np.random.default_rng(0)
    root = random.standard_normal((3, 3))
    information, slope = strength * (root @ root.T + 0.5 * np.eye(3)), -MODE
    signed = Block(
        "signed", (2,), 0.0, 1.0, sign=np.array([1.0, -1.0]), log_normal=np.array(KINDS[magnitudes][0]), spread=0.8
    )
    free = Block("free", (1,), 0.0, 1.0)
    slopes = np.concatenate([signed.slope(MODE[:2]), [free.slope(MODE[2:])]])
    bends = [np.concatenate(both) for both in zip(signed.bends(MODE[:2]), free.bends(MODE[2:]), strict=True)]

    def value(z):
        return jnp.concatenate([signed.value(z[..., :2]), free.value(z[..., 2:])], axis=-1)

    def objective(z):
        change = (value(z) - value(jnp.asarray(MODE))) / slopes
        along = change @ slope + 0.5 * jnp.sum(change @ information * change, axis=-1)
        return along + 0.5 * jnp.sum(z**2, axis=-1)

    return objective, information, slope, *bends


@pytest.mark.slow
@pytest.mark.parametrize("magnitudes", KINDS)
def test_the_curvature_has_a_diagonal_of_bends(magnitudes):
    objective, information, slope, second, _ = bent_density(magnitudes, 1.0)
    np.testing.assert_allclose(jax.grad(objective)(jnp.asarray(MODE)), 0.0, atol=1e-12)
    found = jax.hessian(objective)(jnp.asarray(MODE))
    np.testing.assert_allclose(found, information + np.eye(3) + np.diag(slope * second), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("push", [-3.0, 0.2, 3.0])
def test_bends_never_take_all_of_the_curvature_of_the_prior(push):
    """Of magnitudes in which the likelihood is linear; the curvature by automatic derivatives."""
    block = Block("q", (3,), 0.0, 1.0, sign=1.0, log_normal=True, spread=0.8)

    def objective(z):
        return push * jnp.sum(block.value(z)) + 0.5 * jnp.sum(z**2)

    curvature = np.diag(jax.hessian(objective)(jnp.asarray(MODE)))
    found = bent_curvature(ParameterSpace((block,)), MODE, np.asarray(jax.grad(objective)(jnp.asarray(MODE))))
    np.testing.assert_allclose(1.0 + found, np.maximum(curvature, LEAST_PRIOR_CURVATURE), rtol=1e-12)


@pytest.mark.parametrize("magnitudes", KINDS)
def test_the_mean_moves_as_quadrature_says(magnitudes):
    """Of the shift, the part that the second order misses falls as one over the strength of the data."""
    missed = []
    for strength in (80.0, 320.0):
        objective, information, slope, second, third = bent_density(magnitudes, strength)
        covariance = np.linalg.inv(information + np.eye(3) + np.diag(slope * second))
        bends = Bends(second, third, *np.zeros((2, 0), dtype=int), *np.zeros((2, 0)))
        shift = bent_mean_shift(slope, information, bends, covariance)
        scale = np.linalg.cholesky(covariance)
        axis = np.linspace(-9.0, 9.0, 121)
        z = MODE + np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1) @ scale.T
        weights = np.exp(-np.asarray(objective(jnp.asarray(z)) - objective(jnp.asarray(MODE))))
        mean = np.tensordot(weights / weights.sum(), z, axes=3)
        missed.append(np.linalg.norm(MODE + shift - mean) / np.linalg.norm(shift))
    assert missed[1] < 0.05
    assert 0.2 < missed[1] / missed[0] < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("magnitudes", KINDS)
def test_inferred_scales_bend_with_all_that_they_multiply(magnitudes):
    """g of a likelihood that is quadratic in M, K and b, by automatic derivatives of tr(S V'') / 2."""
    random, options = np.random.default_rng(1), {"log_normal": np.array(KINDS[magnitudes][1])[:, None], "spread": 0.8}
    space = ParameterSpace(
        (
            Block("M", (3, 2), 0.0, 1.0, sign=1.0, **options),
            Block("K", (3, 2), 0.0, 0.5, sign=np.array([[1.0], [-1.0], [1.0]]), **options),
            Block("b", (3,), 0.0, 1.0),
            Block(RIGHT_SCALE, (2,), np.log([1.5, 6.0]), np.array([0.7, 1.2])),
        ),
        ("E", "I"),
        np.array([0, 1, 0]),
    )
    z = 0.7 * random.standard_normal(space.size)

    def values(at):
        parameters = space.unwhiten(at)
        return jnp.concatenate([jnp.ravel(parameters[name]) for name in ("M", "K", "b")])

    jacobian = np.asarray(jax.jacobian(values)(jnp.asarray(z)))
    root = random.standard_normal((len(jacobian), 9))
    information, slope = root @ root.T, random.standard_normal(len(jacobian))
    spread = random.standard_normal((space.size, space.size))
    covariance = spread @ spread.T / space.size

    def half_trace(at):
        def objective(near):
            change = values(near) - values(jnp.asarray(z))
            return slope @ change + 0.5 * change @ information @ change

        return 0.5 * jnp.sum(covariance * jax.hessian(objective)(at))

    expected = -covariance @ np.asarray(jax.grad(half_trace)(jnp.asarray(z)))
    found = bent_mean_shift(jacobian.T @ slope, jacobian.T @ information @ jacobian, Bends.at(space, z), covariance)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
