"""Prior and posterior covariance of the factors of W, and of all coordinates, as a `Pencil`.

W = (M K^T + A Q^T) / N. The factors of a neuron are (M_n, A_n, K_n); K follows from the coordinates to first order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrposterior.structured.entries import ENTRIES_AT_ONCE
from lrposterior.structured.information import StructuredPosterior
from lrposterior.structured.layout import vertical_directions
from lrposterior.structured.moments import ChangeCovariance, SecondMoment
from lrposterior.structured.pencil import Pencil


@dataclass(frozen=True, eq=False)
class FactorChanges:
    """Random changes of the factors of W under prior and posterior, neuron by neuron.

        prior     = blockdiag(prior_blocks) + shared shared^T
        posterior = blockdiag(posterior_blocks) + shared shared^T - parts diag(removed) parts^T

    Attributes:
        left: (neuron, rank) M.
        right: (neuron, rank + seen) K and Q.
        prior_blocks, posterior_blocks: (neuron, factor, factor).
        parts: (neuron, factor, part).
        removed: (part,).
        shared: (neuron, factor, shared) from the coefficients of the regression of K.
        null: (neuron, factor, direction) changes that leave W as it is.
    """

    left: np.ndarray
    right: np.ndarray
    prior_blocks: np.ndarray
    posterior_blocks: np.ndarray
    parts: np.ndarray
    removed: np.ndarray
    shared: np.ndarray
    null: np.ndarray

    @classmethod
    def of(
        cls, posterior: StructuredPosterior, prior: np.ndarray, vector: np.ndarray, seen_right: np.ndarray
    ) -> FactorChanges:
        """At a point.

        Args:
            posterior: the posterior covariance.
            prior: (coordinate,) standard deviations of the prior to compare it with. Those of the coefficients of the
                regression of K are the posterior's own.
            vector: (coordinate,) the point.
            seen_right: (neuron, seen) Q.
        """
        layout = posterior.layout
        num_latents, width = layout.num_latents, layout.width
        jacobian = np.zeros((num_latents + layout.rank, width))
        jacobian[:num_latents, :num_latents] = np.eye(num_latents)
        jacobian[num_latents:, layout.num_loadings :] = np.eye(layout.rank)
        if layout.correlated:
            jacobian[num_latents:, layout.regressors] += layout.coefficients(vector)
        coefficients = np.arange(layout.num_local, layout.num_local + layout.num_coefficients)
        units = np.zeros((layout.num_coordinates, coefficients.size))
        units[coefficients, np.arange(coefficients.size)] = prior[coefficients]
        variances = layout.rows(prior) ** 2

        def factors(changes: np.ndarray) -> np.ndarray:
            loadings, K = layout.push(vector, changes)
            return np.concatenate([loadings[:, :num_latents], K], axis=1)

        return cls(
            left=layout.loadings(vector)[:, : layout.rank],
            right=np.concatenate([layout.right_factors(vector), seen_right], axis=1),
            prior_blocks=(jacobian * variances[:, None, :]) @ jacobian.T,
            posterior_blocks=jacobian @ posterior.local.covariance() @ jacobian.T,
            parts=factors(posterior.factor),
            removed=posterior.removed,
            shared=factors(units),
            # The gauge, and K within Q against A; trades with the regression of K change no factor.
            null=factors(vertical_directions(layout, vector, seen_right)[:, : layout.rank * num_latents]),
        )

    @property
    def num_latents(self) -> int:
        return self.right.shape[1]

    def beyond_first_order(self, post: np.ndarray, pre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What products of changes add to mean and variance of W[post, pre], (entry,) each.

        dM_i . dK_j / N has the mean tr S_MK and the variance tr(S_MM S_KK) + tr(S_MK S_MK) over N and N² (Isserlis'
        theorem), S the covariances of M_i and K_j.
        """
        (num_neurons, rank), num_latents = self.left.shape, self.num_latents
        blocks = self.posterior_blocks
        of_M = np.concatenate([self.parts[:, :rank], self.shared[:, :rank]], axis=2)
        of_K = np.concatenate([self.parts[:, num_latents:], self.shared[:, num_latents:]], axis=2)
        weights = np.concatenate([-self.removed, np.ones(self.shared.shape[2])])
        MM = blocks[:, :rank, :rank] + (of_M * weights) @ np.swapaxes(of_M, 1, 2)
        KK = blocks[:, num_latents:, num_latents:] + (of_K * weights) @ np.swapaxes(of_K, 1, 2)
        means, variances = np.empty((2, len(post)))
        size = max(1, ENTRIES_AT_ONCE // (rank * weights.size))
        for start in range(0, len(post), size):
            part = slice(start, start + size)
            i, j = post[part], pre[part]
            MK = (of_M[i] * weights) @ np.swapaxes(of_K[j], 1, 2)
            MK += np.where((i == j)[:, None, None], blocks[i, :rank, num_latents:], 0.0)
            means[part] = np.einsum("err->e", MK)
            variances[part] = np.einsum("ers,ers->e", MM[i], KK[j]) + np.einsum("ers,esr->e", MK, MK)
        return means / num_neurons, variances / num_neurons**2

    def pencil(self) -> tuple[Pencil, np.ndarray]:
        """Prior against posterior, and the (neuron, factor, row) of its coordinates: factors = matrix @ coordinates."""
        return Pencil.of_blocks(
            self.prior_blocks,
            self.posterior_blocks,
            parts=self.parts,
            weights=-self.removed,
            shared=self.shared,
            signs=np.ones(self.shared.shape[2]),
            null=self.null,
        )

    def moments(self, *, read: bool) -> tuple[SecondMoment, SecondMoment]:
        """N² E dW^T dW where read, else N² E dW dW^T: the removed part, and the prior's of what is seen.

        With N dW = d(M, A) (K, Q)^T + M dK^T.
        """
        removed = ChangeCovariance(self.prior_blocks - self.posterior_blocks, self.parts, self.removed)
        prior = ChangeCovariance(self.prior_blocks, self.shared, np.ones(self.shared.shape[2]))
        of_left, of_K = slice(0, self.num_latents), slice(self.num_latents, None)
        factors = (self.right, self.left, of_left, of_K) if read else (self.left, self.right, of_K, of_left)
        return SecondMoment(removed, *factors), SecondMoment(prior, *factors)


@dataclass(frozen=True, eq=False)
class CoordinateChanges:
    """Prior against posterior of all coordinates together.

    Attributes:
        pencil: in rotated coordinates.
        rotations: (neuron, column, row) from these to the whitened coordinates of a neuron.
    """

    pencil: Pencil
    rotations: np.ndarray

    @classmethod
    def of(cls, posterior: StructuredPosterior, prior: np.ndarray) -> CoordinateChanges:
        """With the prior's standard deviations (coordinate,)."""
        layout = posterior.layout
        scale = layout.rows(prior)
        blocks = posterior.local.covariance() / (scale[:, :, None] * scale[:, None, :])
        local, rotations = np.linalg.eigh(blocks)
        ratios = (posterior.deviations / prior) ** 2
        layout.rows(ratios)[:] = local
        rows = posterior.factor / prior[:, None]
        by_neuron = layout.rows(rows)
        by_neuron[:] = np.swapaxes(rotations, 1, 2) @ by_neuron
        null, _ = np.linalg.qr(rows[:, posterior.values.size :])
        return cls(Pencil(ratios, rows, -posterior.removed, np.zeros((len(rows), 0)), null, np.empty(0)), rotations)

    def above(self, ratio: float, whitened: np.ndarray) -> np.ndarray:
        """The part of (coordinate, column), over the prior's deviations, with more than this part of its variance."""
        found = self.pencil.above(ratio, self._turned(np.swapaxes(self.rotations, 1, 2), whitened))
        return self._turned(self.rotations, found)

    def _turned(self, matrices: np.ndarray, columns: np.ndarray) -> np.ndarray:
        num_neurons, width, _ = matrices.shape
        turned = columns.copy()
        turned[: num_neurons * width] = (
            matrices @ turned[: num_neurons * width].reshape(num_neurons, width, -1)
        ).reshape(num_neurons * width, -1)
        return turned
