"""Entries of W = (M (Q Q^T K)^T + A Q^T) / N, where what was learned reads the patterns Q and nothing else."""

from __future__ import annotations

import numpy as np

from lrposterior.structured.entries import ENTRIES_AT_ONCE
from lrposterior.structured.information import StructuredPosterior
from lrposterior.structured.system import System


def read_entry_moments(
    system: System, vector: np.ndarray, posterior: StructuredPosterior, post: np.ndarray, pre: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the covariance adds to the mean of W[post, pre] at a point, and the variance, (entry,) each.

    Every entry depends on K of all neurons, but through Q^T K (pattern, rank) alone, whose covariance with all else is
    found once. With L = (M, A), R = (Q Q^T K, N Q) and S the covariances of L_i and of the rows j of Q Q^T K,

        mean - L_i . R_j / N = tr S_MK / N,
        N² variance = R_j' S_LL R_j + M_i' S_KK M_i + 2 R_j' S_LK M_i + tr(S_MM S_KK) + tr(S_MK S_MK),

    which is Isserlis' theorem for jointly Normal factors. A regression of K enters to first order.

    Args:
        system: of a network whose low-rank part was learned.
        vector: (coordinate,) the point.
        posterior: covariance around it.
        post, pre: (entry,) indices of neurons.
    """
    layout, Q = system.layout, system.patterns
    num_neurons, rank, num_latents, dimension = layout.num_neurons, layout.rank, layout.num_latents, Q.shape[1]
    nothing = np.zeros((num_neurons, layout.num_loadings, rank * dimension))
    gradients = layout.pull(vector, nothing, np.kron(np.eye(rank), Q[:, None, :]).reshape(num_neurons, rank, -1))
    spread = posterior.times(gradients)
    of_K = (gradients.T @ spread).reshape(rank, dimension, rank, dimension)
    of_left_and_K = layout.rows(spread)[:, :num_latents].reshape(num_neurons, num_latents, rank, dimension)
    of_left = posterior.row_covariance()[:, :num_latents, :num_latents]
    M, right = layout.loadings(vector)[:, :rank], system.right_factors(vector)
    means, variances = np.empty((2, len(post)))
    size = max(1, ENTRIES_AT_ONCE // (num_latents * rank * dimension))
    for start in range(0, len(post), size):
        part = slice(start, start + size)
        i, j = post[part], pre[part]
        LL, LK = of_left[i], np.einsum("elra,ea->elr", of_left_and_K[i], Q[j])
        KK = np.einsum("rasb,ea,eb->ers", of_K, Q[j], Q[j], optimize=True)
        MM, MK = LL[:, :rank, :rank], LK[:, :rank]
        means[part] = np.einsum("err->e", MK)
        variances[part] = (
            np.einsum("el,elm,em->e", right[j], LL, right[j])
            + np.einsum("er,ers,es->e", M[i], KK, M[i])
            + 2.0 * np.einsum("el,elr,er->e", right[j], LK, M[i])
            + np.einsum("ers,ers->e", MM, KK)
            + np.einsum("ers,esr->e", MK, MK)
        )
    return means / num_neurons, variances / num_neurons**2
