"""Directions of a change of W: the parts u v^T in the order of how far they exceed their uncertainty.

The change D = (W_after - W_before) V (neuron, read) has the covariance C_n in the row of neuron n. Divided by what is
common to all of them, alpha_n² = tr C_n / k and the mean S of C_n / alpha_n²,

    D~ = diag(1 / alpha) D S^(-1/2) = sum_m s_m p_m q_m^T,

has noise of about one in every entry, and every part is one of W, u_m = alpha p_m read through v_m = V S^(1/2) q_m. How
large the largest singular value of uncertainty alone is, with all its correlations between neurons, the draws tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrposterior.comparison.projection import Draws, Moments


@dataclass(frozen=True, eq=False)
class Directions:
    """The parts of a change, the furthest beyond its uncertainty first.

    Attributes:
        write, read: (neuron, direction) unit vectors u and v.
        size, sd: (direction,) of u (change of W) v^T and its standard deviation.
        p: (direction,) share of draws of the uncertainty alone whose largest part is as far beyond.
        total_p: share of those that are as large in all parts together.
    """

    write: np.ndarray
    read: np.ndarray
    size: np.ndarray
    sd: np.ndarray
    p: np.ndarray
    total_p: float


def find_directions(before: Draws, after: Draws, change: Moments, read: np.ndarray, seed: int) -> Directions:
    """The directions of a change of what neurons read.

    Args:
        before, after: draws of both.
        change: of (W_after - W_before) V by neuron.
        read: (neuron, read) V.
        seed: of the draws of what is not seen.
    """
    alpha = np.sqrt(change.variance / read.shape[1])[:, None]
    common = np.mean(change.covariance / alpha[:, :, None] ** 2, axis=0)
    values, axes = np.linalg.eigh(common)
    root, inverse = (axes * values**power @ axes.T for power in (0.5, -0.5))
    P, sizes, Q = np.linalg.svd((change.mean / alpha) @ inverse, full_matrices=False)
    random = np.random.default_rng([seed, 2])
    unseen = np.linalg.cholesky(before.unseen_reading(read) + after.unseen_reading(read) + 1e-12 * common).T
    largest, totals, along = [], [], []
    for first, second in zip(before.each_incoming(read), after.each_incoming(read), strict=False):
        noise = second - first - change.mean + random.standard_normal(change.mean.shape) @ unseen
        noise = (noise / alpha) @ inverse
        squares = np.linalg.eigvalsh(noise.T @ noise)
        largest.append(np.sqrt(squares[-1]))
        totals.append(squares.sum())
        along.append(np.einsum("nm,nj,mj->m", P, noise, Q))
    written, was_read = alpha * P, read @ (root @ Q.T)
    lengths = np.linalg.norm(written, axis=0) * np.linalg.norm(was_read, axis=0)
    return Directions(
        written / np.linalg.norm(written, axis=0),
        was_read / np.linalg.norm(was_read, axis=0),
        sizes * lengths,
        np.std(along, axis=0) * lengths,
        (1.0 + np.sum(np.array(largest)[:, None] >= sizes, axis=0)) / (1.0 + len(largest)),
        float((1.0 + np.sum(np.array(totals) >= np.sum(sizes**2))) / (1.0 + len(totals))),
    )
