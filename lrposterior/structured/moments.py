"""Second moments E dW^T dW and E dW dW^T of random changes of W, as operators on vectors of neurons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse.linalg


class _Operator(scipy.sparse.linalg.LinearOperator):
    def __init__(self, moment: SecondMoment, size: int) -> None:
        super().__init__(np.dtype(np.float64), (size, size))
        self._moment = moment

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._moment.times(x)


@dataclass(frozen=True, eq=False)
class ChangeCovariance:
    """Covariance blockdiag(blocks) + parts diag(weights) parts^T of changes (X, Y) of factors, neuron by neuron.

    Attributes:
        blocks: (neuron, factor, factor).
        parts: (neuron, factor, part).
        weights: (part,).
    """

    blocks: np.ndarray
    parts: np.ndarray
    weights: np.ndarray


class SecondMoment:
    """E dW^T dW of dW = X base^T + other Y^T: a matrix (neuron, neuron) that is not formed.

    With the columns `of_base` of the factors in X and `of_other` in Y,

        base E[X^T X] base^T + base E[X^T other Y^T] + (base E[X^T other Y^T])^T + E[Y other^T other Y^T].
    """

    def __init__(
        self, covariance: ChangeCovariance, base: np.ndarray, other: np.ndarray, of_base: slice, of_other: slice
    ) -> None:
        blocks, weights = covariance.blocks, covariance.weights
        X, self._Y = covariance.parts[:, of_base], covariance.parts[:, of_other]
        self._base, self._weights, self._overlap = base, weights, other.T @ other
        self._inner = blocks[:, of_base, of_base].sum(axis=0)
        self._inner = self._inner + np.einsum("k,jlk,jmk->lm", weights, X, X, optimize=True)
        mixed = np.einsum("jlk,js->lks", X, other, optimize=True)
        self._mixed = np.einsum("jls,js->lj", blocks[:, of_base, of_other], other)
        self._mixed = self._mixed + np.einsum("k,lks,jsk->lj", weights, mixed, self._Y, optimize=True)
        self._diagonal = np.einsum("jst,st->j", blocks[:, of_other, of_other], self._overlap)

    @property
    def trace(self) -> float:
        """Sum of its eigenvalues."""
        base = np.sum(self._inner * (self._base.T @ self._base)) + 2.0 * np.sum(self._mixed * self._base.T)
        rest = np.einsum("k,jsk,st,jtk->", self._weights, self._Y, self._overlap, self._Y, optimize=True)
        return float(base + rest + np.sum(self._diagonal))

    def times(self, vector: np.ndarray) -> np.ndarray:
        """Its product with a vector (neuron,)."""
        v = vector.reshape(-1)
        onto = v @ self._base
        product = self._base @ (self._inner @ onto + self._mixed @ v) + onto @ self._mixed
        by_part = (v @ self._Y.reshape(len(v), -1)).reshape(self._Y.shape[1:])
        weighted = (self._overlap @ by_part) * self._weights
        return product + self._Y.reshape(len(v), -1) @ weighted.ravel() + self._diagonal * v

    def leading(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The largest eigenvalues, decreasing, and their eigenvectors (pattern, neuron)."""
        size = len(self._base)
        operator = _Operator(self, size)
        start = np.random.default_rng(0).standard_normal(size)
        values, vectors = scipy.sparse.linalg.eigsh(operator, k=min(number, size - 1), which="LA", v0=start)
        return values[::-1], vectors.T[::-1]
