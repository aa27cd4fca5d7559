"""Prior and posterior covariance of a network whose low-rank part was learned, at any size.

Of W it is V = M K^T Q / N + A (neuron, dimension) that a recording of the patterns Q can see, as in
`lrposterior.visited_spectrum`. The rows of a neuron are V_n, and with the other parameters B_n and b_n. With
kappa = K^T Q / N, a few numbers that all neurons share,

    dV_n = dM_n kappa + dA_n + M_n dkappa,

so that their covariance, too, is a block for every neuron and a part of low rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrposterior.structured.information import StructuredPosterior
from lrposterior.structured.moments import ChangeCovariance, SecondMoment
from lrposterior.structured.pencil import Pencil
from lrposterior.structured.system import System


@dataclass(frozen=True, eq=False)
class VisitedChanges:
    """Random changes of the rows of the neurons under prior and posterior.

        prior     = blockdiag(prior_blocks) + shared diag(signs) shared^T
        posterior = blockdiag(posterior_blocks) + parts diag(weights) parts^T + shared diag(signs) shared^T

    Attributes:
        patterns: (neuron, dimension) Q.
        prior_blocks, posterior_blocks: (neuron, row, row).
        parts: (neuron, row, part).
        weights: (part,).
        shared: (neuron, row, shared).
        signs: (shared,) 1 or -1.
    """

    patterns: np.ndarray
    prior_blocks: np.ndarray
    posterior_blocks: np.ndarray
    parts: np.ndarray
    weights: np.ndarray
    shared: np.ndarray
    signs: np.ndarray

    @classmethod
    def of(
        cls, system: System, vector: np.ndarray, posterior: StructuredPosterior, prior: np.ndarray, *, everything: bool
    ) -> VisitedChanges:
        """At a point.

        Args:
            system: of trials that start without currents.
            vector: (coordinate,) the point.
            posterior: covariance around it.
            prior: (coordinate,) standard deviations of the prior to compare it with.
            everything: whether the rows hold B and b beside V.
        """
        layout, Q = system.layout, system.patterns
        N, rank, dimension = layout.num_neurons, layout.rank, Q.shape[1]
        M, kappa = layout.loadings(vector)[:, :rank], layout.right_factors(vector).T @ Q / N
        num_loadings = layout.num_loadings if everything else layout.num_latents
        local = np.zeros((num_loadings - rank, layout.width))
        local[:dimension, :rank] = kappa.T
        local[:, rank:num_loadings] = np.eye(num_loadings - rank)
        on_kappa = np.zeros((N, len(local), rank * dimension))
        on_kappa[:, :dimension] = (M[:, None, :, None] * np.eye(dimension)[None, :, None]).reshape(N, dimension, -1)
        unit = (np.eye(rank)[None, :, :, None] * Q[:, None, None] / N).reshape(N, rank, -1)
        kappa_slopes = layout.pull(vector, np.zeros((N, layout.num_loadings, unit.shape[2])), unit)

        def moved(changes: np.ndarray) -> np.ndarray:
            return local @ layout.rows(changes) + on_kappa @ (kappa_slopes.T @ changes)

        def through_kappa(spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """What blocks within neurons (times `kappa_slopes`) give beyond blocks: columns, and their signs."""
            columns = np.concatenate([local @ layout.rows(spread), on_kappa], axis=2)
            size = on_kappa.shape[2]
            core = np.block([[np.zeros((size, size)), np.eye(size)], [np.eye(size), kappa_slopes.T @ spread]])
            values, rotation = np.linalg.eigh(core)
            return columns @ (rotation * np.sqrt(np.abs(values))), np.sign(values)

        of_prior, prior_signs = through_kappa(prior[:, None] ** 2 * kappa_slopes)
        within = posterior.local.solve_transposed(posterior.local.solve(kappa_slopes))
        of_posterior, posterior_signs = through_kappa(within)
        return cls(
            patterns=Q,
            prior_blocks=(local * layout.rows(prior)[:, None, :] ** 2) @ local.T,
            posterior_blocks=local @ posterior.local.covariance() @ local.T,
            parts=np.concatenate([moved(posterior.factor), of_posterior, of_prior], axis=2),
            weights=np.concatenate([-posterior.removed, posterior_signs, -prior_signs]),
            shared=of_prior,
            signs=prior_signs,
        )

    def pencil(self) -> tuple[Pencil, np.ndarray]:
        """Prior against posterior, and the (neuron, row, row) of its coordinates: rows = matrix @ coordinates."""
        return Pencil.of_blocks(
            self.prior_blocks,
            self.posterior_blocks,
            parts=self.parts,
            weights=self.weights,
            shared=self.shared,
            signs=self.signs,
        )

    def row_covariances(self) -> tuple[np.ndarray, np.ndarray]:
        """(neuron, row, row) prior and posterior covariance of the rows of every neuron."""
        prior = self.prior_blocks + (self.shared * self.signs) @ np.swapaxes(self.shared, 1, 2)
        more = (self.parts * self.weights) @ np.swapaxes(self.parts, 1, 2)
        return prior, prior - self.prior_blocks + self.posterior_blocks + more

    def entry_variances(self, post: np.ndarray, pre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(entry,) prior and posterior variance of what is seen of W[post, pre], V_post . Q_pre."""
        read = self.patterns[pre]
        of_rows = (each[post] for each in self.row_covariances())
        prior, posterior = (np.einsum("ed,edc,ec->e", read, rows, read, optimize=True) for rows in of_rows)
        return prior, posterior

    def moments(self, *, read: bool) -> tuple[SecondMoment, SecondMoment]:
        """E dW^T dW where read, else E dW dW^T: the removed part, and the prior's of what is seen. dW = dV Q^T."""
        removed = ChangeCovariance(self.prior_blocks - self.posterior_blocks, self.parts, -self.weights)
        prior = ChangeCovariance(self.prior_blocks, self.shared, self.signs)
        nothing, of_V = np.zeros((len(self.patterns), 0)), slice(0, self.patterns.shape[1])
        factors = (self.patterns, nothing, of_V, slice(0, 0)) if read else (nothing, self.patterns, slice(0, 0), of_V)
        return SecondMoment(removed, *factors), SecondMoment(prior, *factors)
