"""Entries of the connectivity W = (M K^T + A Q^T) / N: their variance, one at a time."""

from __future__ import annotations

import numpy as np

from lrposterior.structured.information import StructuredPosterior
from lrposterior.structured.layout import Layout
from lrposterior.structured.system import System

# Numbers of the arrays (entry, component) that exist at one time.
ENTRIES_AT_ONCE = 4_000_000


def entry_variances(
    system: System, vector: np.ndarray, posterior: StructuredPosterior, post: np.ndarray, pre: np.ndarray
) -> np.ndarray:
    """(entry,) linearised posterior variance of W[post, pre]; post and pre are (entry,) indices of neurons.

    W_ij depends on the rows of neurons i and j and on the shared coordinates:
    dW_ij = ([K, Q]_j . d[M, A]_i + M_i . dK_j) / N with
    dK_j = dE_j + G d(M, B, b)_j + dG (M, B, b)_j.

    The cost of an entry is one product with the low-rank part.
    """
    factor = system.layout.rows(posterior.factor)
    variances = np.empty(len(post))
    size = max(1, ENTRIES_AT_ONCE // (system.layout.width * factor.shape[2]))
    local = posterior.local.covariance()
    for start in range(0, len(post), size):
        part = slice(start, start + size)
        i, j = post[part], pre[part]
        on_post, on_pre, on_shared = _slopes(system, vector, i, j)
        read = np.einsum("ew,ewr->er", on_post, factor[i]) + np.einsum("ew,ewr->er", on_pre, factor[j])
        read += on_shared @ posterior.factor[system.layout.num_local :]
        own = np.einsum("ew,ewv,ev->e", on_post, local[i], on_post) + np.einsum(
            "ew,ewv,ev->e", on_pre, local[j], on_pre
        )
        own += np.where(i == j, 2.0 * np.einsum("ew,ewv,ev->e", on_post, local[i], on_pre), 0.0)
        own += on_shared**2 @ posterior.deviations[system.layout.num_local :] ** 2
        variances[part] = own - read**2 @ posterior.removed
    return variances


def prior_entry_variances(
    system: System, vector: np.ndarray, deviations: np.ndarray, post: np.ndarray, pre: np.ndarray
) -> np.ndarray:
    """(entry,) the same under independent Normal priors with these (coordinate,) deviations."""
    rows = system.layout.rows(deviations)
    on_post, on_pre, on_shared = _slopes(system, vector, post, pre)
    variances = np.sum((on_post * rows[post]) ** 2 + (on_pre * rows[pre]) ** 2, axis=1)
    variances += np.where(post == pre, 2.0 * np.sum(on_post * on_pre * rows[post] ** 2, axis=1), 0.0)
    return variances + on_shared**2 @ deviations[system.layout.num_local :] ** 2


def _slopes(
    system: System, vector: np.ndarray, post: np.ndarray, pre: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Derivatives of entries by the rows of the post- and of the presynaptic neuron, and by the shared coordinates."""
    layout: Layout = system.layout
    rows, columns = layout.rows(vector), layout.columns
    M = rows[post, columns["M"]] / layout.num_neurons
    on_post, on_pre = np.zeros((2, len(post), layout.width))
    on_post[:, : layout.num_latents] = system.right_factors(vector)[pre] / layout.num_neurons
    on_pre[:, columns["E"]] = M
    on_shared = np.zeros((len(post), layout.num_shared))
    if layout.correlated:
        own = rows[pre][:, layout.regressors]
        on_pre[:, layout.regressors] += M @ layout.coefficients(vector)
        on_shared[:, : layout.num_coefficients] = (M[:, :, None] * own[:, None, :]).reshape(len(post), -1)
    return on_post, on_pre, on_shared
