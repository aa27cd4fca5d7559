"""The posterior covariance of the whitened coordinates at a point, as `balance` and `laplace` ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.linalg

from lrposterior.orbit import gauge_basis
from lrposterior.parameters import ParameterSpace


class Covariance(Protocol):
    """(F + I)^-1 without its part along the gauge. Trades between blocks keep the variance that the prior gives them.

    It does not hold the noise. Blocks are asked for by their name in the parameter space (`ParameterSpace.places`).
    """

    @property
    def log_determinant(self) -> float:
        """log det (F + I)."""
        ...

    def across_gauge(self, vector: np.ndarray) -> np.ndarray:
        """A vector (dynamics coordinate,) without its part along the gauge."""
        ...

    def times(self, vector: np.ndarray) -> np.ndarray:
        """The covariance times a vector (dynamics coordinate,)."""
        ...

    def trace(self, name: str) -> float:
        """Trace of the covariance of a block."""
        ...

    def learned(self, first: str, second: str) -> float:
        """Squared Frobenius norm of the part of I - covariance that belongs to two blocks."""
        ...

    def row_moment(self, name: str) -> np.ndarray:
        """(column, column) covariance of the rows of a block (row, column), summed over rows."""
        ...

    def column_moment(self, name: str) -> np.ndarray:
        """(row, row) covariance of the columns of a block (row, column), summed over columns."""
        ...


@dataclass(frozen=True, eq=False)
class DenseCovariance:
    """A `Covariance` as a matrix.

    Attributes:
        space: the parameters.
        matrix: (dynamics coordinate, dynamics coordinate).
        gauge: (dynamics coordinate, direction) orthonormal basis of the gauge.
        log_determinant: log det (F + I).
    """

    space: ParameterSpace
    matrix: np.ndarray
    gauge: np.ndarray
    log_determinant: float

    @classmethod
    def at(
        cls, space: ParameterSpace, z: np.ndarray, subspace: np.ndarray | None, information: np.ndarray
    ) -> DenseCovariance:
        """From the information F at z, with Q of a random bulk as subspace."""
        precision = information + np.eye(len(information))
        (invert,) = scipy.linalg.get_lapack_funcs(("potri",), (precision,))
        root = np.linalg.cholesky(precision)
        lower, _ = invert(root, lower=1)
        gauge = gauge_basis(space, z, subspace)
        matrix = np.tril(lower) + np.tril(lower, -1).T - gauge @ gauge.T
        return cls(space, matrix, gauge, 2.0 * float(np.sum(np.log(np.diag(root)))))

    def across_gauge(self, vector: np.ndarray) -> np.ndarray:
        return vector - self.gauge @ (self.gauge.T @ vector)

    def times(self, vector: np.ndarray) -> np.ndarray:
        return self.matrix @ vector

    def trace(self, name: str) -> float:
        return float(np.trace(self._block(name, name)))

    def learned(self, first: str, second: str) -> float:
        block = self._block(first, second)
        return float(np.sum(((np.eye(len(block)) if first == second else 0.0) - block) ** 2))

    def row_moment(self, name: str) -> np.ndarray:
        return np.einsum("rcrd->cd", self._block(name, name).reshape(2 * self.space[name].shape))

    def column_moment(self, name: str) -> np.ndarray:
        return np.einsum("rcsc->rs", self._block(name, name).reshape(2 * self.space[name].shape))

    def _block(self, first: str, second: str) -> np.ndarray:
        return self.matrix[np.ix_(self.space.places(first), self.space.places(second))]
