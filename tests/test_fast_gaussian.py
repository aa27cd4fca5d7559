"""The matrices that stand for a Gaussian one in large networks, against its moments, and as one matrix throughout."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from lrposterior.bulk import BulkDraws
from lrposterior.connectivity import LowRankConnectivity
from lrposterior.fast_gaussian import FastGaussian, quarter_circle

SIZE = 64


def matrices(number):
    return np.stack([FastGaussian.draw(SIZE, seed).times(np.eye(SIZE)) for seed in range(number)])


def test_moments_are_those_of_independent_entries():
    G = matrices(4000)
    random = np.random.default_rng(0)
    v, w = random.standard_normal((2, SIZE))
    v[5:] = 0.0
    one, other = G @ v, G @ w
    assert np.abs(one.mean(axis=0)).max() < 5 * np.linalg.norm(v) / np.sqrt(SIZE * 4000)
    found = np.einsum("dn,dm->nm", one, other) / 4000
    error = np.linalg.norm(v) * np.linalg.norm(w) / SIZE / np.sqrt(4000)
    np.testing.assert_allclose(found, (v @ w) / SIZE * np.eye(SIZE), atol=6 * error)


@pytest.mark.parametrize("size", [256, 1000])
def test_products_are_normal(size):
    """Also with the vector of a single neuron, and of a pair jointly."""
    v, w = np.zeros((2, size))
    v[3], w[3], w[7] = 1.0, 0.6, 0.8
    products = [FastGaussian.draw(size, seed).times(np.stack([v, w], axis=1)) for seed in range(40)]
    one, other = np.sqrt(size) * np.concatenate(products).T
    for values in (one, other, (other - 0.6 * one) / 0.8, (one - one[::-1]) / np.sqrt(2.0)):
        assert scipy.stats.kstest(values, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(one**2, (other - 0.6 * one) ** 2)[0, 1]) < 4 / np.sqrt(one.size)


def test_singular_values_are_those_of_a_gaussian_matrix():
    gaussian = np.random.default_rng(0).standard_normal((SIZE, SIZE)) / np.sqrt(SIZE)
    found = np.linalg.svd(FastGaussian.draw(SIZE, 1).times(np.eye(SIZE)), compute_uv=False)
    np.testing.assert_allclose(found, np.sort(quarter_circle(SIZE))[::-1], atol=1e-12)
    assert np.mean(found**2) == pytest.approx(1.0)
    np.testing.assert_allclose(found, np.linalg.svd(gaussian, compute_uv=False), atol=0.2)


def test_a_large_bulk_is_one_matrix_throughout(monkeypatch):
    monkeypatch.setattr("lrposterior.bulk.LARGEST_FULL", 10)
    random = np.random.default_rng(0)
    Q = np.linalg.qr(random.standard_normal((SIZE, 3)))[0]
    bulk = BulkDraws(random.standard_normal((2, SIZE, 3)), Q, np.array([0.5, 0.7]), np.array([3, 4]))
    dense = bulk.to_dense()
    for draw in range(2):
        G = bulk.gain[draw] * FastGaussian.draw(SIZE, int(bulk.seeds[draw])).times(np.eye(SIZE))
        np.testing.assert_allclose(dense[draw], bulk.A[draw] @ Q.T + G @ (np.eye(SIZE) - Q @ Q.T), atol=1e-12)
    M, K = random.standard_normal((2, 2, SIZE, 2))
    W = LowRankConnectivity(M, K, bulk=bulk)
    whole, v = W.to_dense(), random.standard_normal((2, SIZE))
    np.testing.assert_allclose(W.matvec(v), np.einsum("dij,dj->di", whole, v), atol=1e-12)
    np.testing.assert_allclose(W.rmatvec(v), np.einsum("dij,di->dj", whole, v), atol=1e-12)
    np.testing.assert_allclose(W.entries([9, 1, 9], [2, 2, 60]), whole[:, [9, 1, 9], [2, 2, 60]], atol=1e-12)
    np.testing.assert_allclose(W.block([5, 63], [1, 8]), whole[:, [5, 63]][:, :, [1, 8]], atol=1e-12)
    operators = bulk.operators()
    for draw in range(2):
        fields = {name: getattr(operators, name)[draw] for name in ("A", "Q", "gain", "signs", "singular_values")}
        np.testing.assert_allclose(type(operators)(**fields) @ jnp.asarray(v[draw]), dense[draw] @ v[draw], atol=1e-10)
