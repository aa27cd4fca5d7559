"""Which coordinate is what: the rows of the neurons and the few coordinates that all neurons share.

W = (M K^T + A Q^T) / N. The left factors M (R columns) and A (d columns), the input weights B and the bias b of a
neuron are its loadings psi_n, with which it reads the latents. The right factors Q of A are known; those of M are

    K_n = E_n + G (M_n, B_n, b_n),

a regression on the neuron's own loadings, with coefficients G that all neurons share, and a residual E_n. Without
correlated loadings there is no G, and K = E.

A vector of coordinates is the rows (M_n, A_n, B_n, b_n, E_n) of all neurons one after the other, and then the shared
coordinates: G, and where the initial state is free the initial latents of every trial.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layout:
    """Sizes, and where in a vector of coordinates everything lies.

    Attributes:
        num_neurons: N.
        rank: R, the latents whose right factors are inferred.
        num_seen: d, the latents whose right factors are known.
        num_inputs: I.
        correlated: whether there is a G.
        num_initial: number of trials whose initial latents are inferred: all of them, or 0.
    """

    num_neurons: int
    rank: int
    num_seen: int
    num_inputs: int
    correlated: bool = False
    num_initial: int = 0

    @property
    def num_latents(self) -> int:
        """R + d."""
        return self.rank + self.num_seen

    @property
    def num_loadings(self) -> int:
        """C = R + d + I + 1, entries of psi_n."""
        return self.num_latents + self.num_inputs + 1

    @property
    def width(self) -> int:
        """Coordinates of one neuron."""
        return self.num_loadings + self.rank

    @property
    def num_local(self) -> int:
        return self.num_neurons * self.width

    @property
    def regressors(self) -> np.ndarray:
        """Columns of a neuron's row on which K is regressed: M, B and b."""
        return np.r_[: self.rank, self.num_latents : self.num_loadings]

    @property
    def num_coefficients(self) -> int:
        """Entries of G."""
        return self.rank * self.regressors.size if self.correlated else 0

    @property
    def num_shared(self) -> int:
        return self.num_coefficients + self.num_initial * self.rank

    @property
    def num_coordinates(self) -> int:
        return self.num_local + self.num_shared

    @property
    def columns(self) -> dict[str, slice]:
        """Columns of a neuron's row by name."""
        R, L, C, I = self.rank, self.num_latents, self.num_loadings, self.num_inputs
        return {
            "M": slice(0, R),
            "A": slice(R, L),
            "B": slice(L, L + I),
            "b": slice(L + I, C),
            "E": slice(C, self.width),
        }

    def rows(self, vectors: np.ndarray) -> np.ndarray:
        """The neurons' part (neuron, column, ...) of vectors (coordinate, ...), without a copy."""
        return vectors[: self.num_local].reshape(self.num_neurons, self.width, *vectors.shape[1:])

    def coefficients(self, vectors: np.ndarray) -> np.ndarray:
        """G (rank, regressor, ...); zeros where there is none."""
        shape = (self.rank, self.regressors.size, *vectors.shape[1:])
        if not self.correlated:
            return np.zeros(shape, vectors.dtype)
        return vectors[self.num_local : self.num_local + self.num_coefficients].reshape(shape)

    def initial_latents(self, vectors: np.ndarray) -> np.ndarray:
        """(trial, rank, ...)."""
        start = self.num_local + self.num_coefficients
        return vectors[start:].reshape(self.num_initial, self.rank, *vectors.shape[1:])

    def join(
        self, rows: np.ndarray, coefficients: np.ndarray | None = None, initial: np.ndarray | None = None
    ) -> np.ndarray:
        """Vectors (coordinate, ...) from their parts; what is absent is zero."""
        trailing = rows.shape[2:]
        vectors = np.zeros((self.num_coordinates, *trailing), rows.dtype)
        self.rows(vectors)[:] = rows
        if self.correlated and coefficients is not None:
            self.coefficients(vectors)[:] = coefficients
        if self.num_initial and initial is not None:
            self.initial_latents(vectors)[:] = initial
        return vectors

    def loadings(self, vector: np.ndarray) -> np.ndarray:
        """psi (neuron, loading)."""
        return self.rows(vector)[:, : self.num_loadings]

    def right_factors(self, vector: np.ndarray) -> np.ndarray:
        """K (neuron, rank)."""
        rows = self.rows(vector)
        K = rows[:, self.num_loadings :]
        if not self.correlated:
            return K
        return K + rows[:, self.regressors] @ self.coefficients(vector).T

    def push(self, vector: np.ndarray, changes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First-order changes of psi (neuron, loading, ...) and K (neuron, rank, ...) at a point.

        Args:
            vector: (coordinate,) the point.
            changes: (coordinate, column).
        """
        rows = self.rows(changes)
        K = rows[:, self.num_loadings :]
        if self.correlated:
            own = self.rows(vector)[:, self.regressors]
            K = K + np.matmul(self.coefficients(vector), rows[:, self.regressors])
            shape = (self.num_neurons, self.rank, changes.shape[1])
            by_coefficient = np.swapaxes(self.coefficients(changes), 0, 1).reshape(own.shape[1], -1)
            K += (own @ by_coefficient).reshape(shape)
        return rows[:, : self.num_loadings], K

    def pull(
        self, vector: np.ndarray, loadings: np.ndarray, right: np.ndarray, initial: np.ndarray | None = None
    ) -> np.ndarray:
        """The transpose of `push`: derivatives with respect to psi and K become those with respect to coordinates.

        Args:
            vector: (coordinate,) the point.
            loadings: (neuron, loading, column).
            right: (neuron, rank, column).
            initial: (trial, rank, column), where the initial state is free.
        """
        pulled = self.join(np.concatenate([loadings, right], axis=1), initial=initial)
        if self.correlated:
            own = self.rows(vector)[:, self.regressors]
            self.rows(pulled)[:, self.regressors] += np.matmul(self.coefficients(vector).T, right)
            by_neuron = right.reshape(self.num_neurons, -1)
            shape = (own.shape[1], self.rank, right.shape[2])
            self.coefficients(pulled)[:] = np.swapaxes((own.T @ by_neuron).reshape(shape), 0, 1)
        return pulled


def vertical_directions(layout: Layout, vector: np.ndarray, seen_right: np.ndarray) -> np.ndarray:
    """Directions (coordinate, direction) along which the network stays what it is; the information is 0 on them.

    - (M Omega, -K Omega^T), and with the initial latents k also -k Omega^T, for any (rank, rank) Omega;
    - K + Q Z^T against A - M Z, for any (rank, seen) Z;
    - E + (M, B, b) Y^T against G - Y, for any Y like G.

    Args:
        layout: sizes.
        vector: (coordinate,) the point.
        seen_right: (neuron, seen) Q.
    """
    rows, K = layout.rows(vector), layout.right_factors(vector)
    M, own, G = rows[:, : layout.rank], rows[:, layout.regressors], layout.coefficients(vector)
    initial = layout.initial_latents(vector)
    columns = layout.columns
    directions = []

    def units(*shape: int) -> np.ndarray:
        size = int(np.prod(shape))
        return np.eye(size).reshape(size, *shape)

    for Omega in units(layout.rank, layout.rank):
        change = np.zeros_like(rows)
        change[:, columns["M"]] = M @ Omega
        change[:, columns["E"]] = -K @ Omega.T - M @ Omega @ G[:, : layout.rank].T
        directions.append(layout.join(change, initial=-initial @ Omega.T))
    for Z in units(layout.rank, layout.num_seen):
        change = np.zeros_like(rows)
        change[:, columns["A"]] = -M @ Z
        change[:, columns["E"]] = seen_right @ Z.T
        directions.append(layout.join(change))
    if layout.correlated:
        for Y in units(*G.shape):
            change = np.zeros_like(rows)
            change[:, columns["E"]] = own @ Y.T
            directions.append(layout.join(change, coefficients=-Y))
    return np.stack(directions, axis=1)
