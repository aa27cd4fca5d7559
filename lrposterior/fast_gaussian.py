"""Random matrices that act on a few vectors as Gaussian ones do, at the cost of Fourier transforms.

A square matrix of independent Normal(0, 1 / N) entries is U diag(s) V^T with independent random rotations U and V and
singular values s that follow the quarter-circle law. Here each rotation is two rounds of random signs and a cosine
transform H, so that

    G = H D_1 H D_2 diag(s) H D_3 H D_4

takes N log N operations and 5 N numbers. The moments E G = 0 and E G v w^T G^T = (v . w) I / N hold to a part of the
order of 1 / N, and products with few vectors are Normal up to terms of the order of N^-1/2.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.scipy.fft
import numpy as np
import scipy.fft
from jax import Array

NUM_SIGNS = 4
GRID_SIZE = 4001


@dataclass(frozen=True, eq=False)
class FastGaussian:
    """One such matrix.

    Attributes:
        signs: (round, neuron) diagonals of D_1 to D_4.
        singular_values: (neuron,) s.
    """

    signs: np.ndarray
    singular_values: np.ndarray

    @classmethod
    def draw(cls, size: int, seed: int) -> FastGaussian:
        """A random matrix (size, size)."""
        random = np.random.default_rng(seed)
        signs = 2.0 * random.integers(2, size=(NUM_SIGNS, size)) - 1.0
        return cls(signs, random.permutation(quarter_circle(size)))

    def times(self, columns: np.ndarray) -> np.ndarray:
        """G times (neuron, column)."""
        first, second, third, fourth = self.signs[:, :, None]
        inner = _transformed(third * _transformed(fourth * columns))
        return _transformed(first * _transformed(second * self.singular_values[:, None] * inner))

    def transposed_times(self, columns: np.ndarray) -> np.ndarray:
        """G^T times (neuron, column)."""
        first, second, third, fourth = self.signs[:, :, None]
        inner = second * _untransformed(first * _untransformed(columns))
        return fourth * _untransformed(third * _untransformed(self.singular_values[:, None] * inner))

    def rows(self, chosen: np.ndarray) -> np.ndarray:
        """Some rows of G, (row, neuron)."""
        units = np.zeros((len(self.singular_values), len(chosen)))
        units[chosen, np.arange(len(chosen))] = 1.0
        return self.transposed_times(units).T


def quarter_circle(size: int) -> np.ndarray:
    """(size,) quantiles of the density sqrt(4 - s²) / pi on 0 to 2, scaled so that the mean of s² is 1."""
    angle = np.linspace(0.0, np.pi / 2, GRID_SIZE)
    share = (2.0 * angle + np.sin(2.0 * angle)) / np.pi
    values = 2.0 * np.sin(np.interp((np.arange(size) + 0.5) / size, share, angle))
    return values / np.sqrt(np.mean(values**2))


def _transformed(columns: np.ndarray) -> np.ndarray:
    return np.asarray(scipy.fft.dct(columns, axis=0, norm="ortho"))


def _untransformed(columns: np.ndarray) -> np.ndarray:
    return np.asarray(scipy.fft.idct(columns, axis=0, norm="ortho"))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FastBulk:
    """W0 = A Q^T + gain G (I - Q Q^T) for compiled code: `W0 @ r` for rates (neuron,).

    All fields may have a leading draw axis, over which compiled code maps.
    """

    A: Array
    Q: Array
    gain: Array
    signs: Array
    singular_values: Array

    def __matmul__(self, rates: Array) -> Array:
        seen = rates @ self.Q
        rest = rates - self.Q @ seen
        for sign in (self.signs[3], self.signs[2]):
            rest = jax.scipy.fft.dct(sign * rest, norm="ortho")
        rest = self.singular_values * rest
        for sign in (self.signs[1], self.signs[0]):
            rest = jax.scipy.fft.dct(sign * rest, norm="ortho")
        return self.A @ seen + self.gain * rest
