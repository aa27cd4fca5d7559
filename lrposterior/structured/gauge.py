"""Coordinates of the same network: moving along the directions that mean nothing.

(M, E, G, initial latents) -> (M A, E A^-T, A^-1 G diag(A^-T, I), initial A^-T) leaves W and the activity as they are,
and so do the trades of E against G and against A. Only the prior tells these points apart. Where its density is
highest,

    M^T M - E^T E - initial^T initial - G G^T - G_M^T G_M = 0

in whitened coordinates, G_M the coefficients of M.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg

from lrposterior.structured.information import StructuredInformation
from lrposterior.structured.layout import Layout

MAX_STEPS = 50
LARGEST_STRETCH = 0.5


def regauge(layout: Layout, vector: np.ndarray, A: np.ndarray) -> np.ndarray:
    """(coordinate,) the same network with left factors M A."""
    rows, inverse = layout.rows(vector).copy(), np.linalg.inv(A)
    columns = layout.columns
    rows[:, columns["M"]] = rows[:, columns["M"]] @ A
    rows[:, columns["E"]] = rows[:, columns["E"]] @ inverse.T
    G = inverse @ layout.coefficients(vector)
    G[:, : layout.rank] = G[:, : layout.rank] @ inverse.T
    return layout.join(rows, G, layout.initial_latents(vector) @ inverse.T)


def regauge_information(information: StructuredInformation, A: np.ndarray) -> StructuredInformation:
    """The information, and the directions without any, at the regauged point."""
    layout, R = information.layout, information.layout.rank
    inverse, columns = np.linalg.inv(A), information.layout.columns
    factor = information.factor.copy()
    rows = layout.rows(factor)
    rows[:, columns["M"]] = inverse @ rows[:, columns["M"]]
    rows[:, columns["E"]] = A.T @ rows[:, columns["E"]]
    if layout.correlated:
        G = layout.coefficients(factor)
        G[:] = np.einsum("sr,sck->rck", A, G)
        G[:, :R] = np.einsum("rsk,sc->rck", G[:, :R], A)
    if layout.num_initial:
        initial = layout.initial_latents(factor)
        initial[:] = np.einsum("bsk,sr->brk", initial, A)
    blocks = information.blocks.copy()
    blocks[:, :R] = inverse @ blocks[:, :R]
    blocks[:, :, :R] = blocks[:, :, :R] @ inverse.T
    vertical = np.stack([regauge(layout, direction, A) for direction in information.vertical.T], axis=1)
    return dataclasses.replace(information, blocks=blocks, factor=factor, vertical=vertical)


def trade_information(information: StructuredInformation, Z: np.ndarray, Y: np.ndarray) -> StructuredInformation:
    """The information at the point after the trades E + Q Z^T against A - M Z, and E + (M, B, b) Y^T against G - Y.

    Its vertical directions are those of the point before.

    Args:
        information: at the point before.
        Z: (rank, seen).
        Y: (rank, regressor); (rank, 0) without a G.
    """
    layout, columns = information.layout, information.layout.columns
    if not (layout.correlated or layout.num_seen):
        return information
    factor, blocks = information.factor.copy(), information.blocks.copy()
    rows = layout.rows(factor)
    if layout.correlated:
        rows[:, layout.regressors] -= Y.T @ rows[:, columns["E"]]
    rows[:, columns["M"]] += Z @ rows[:, columns["A"]]
    blocks[:, columns["M"]] += Z @ blocks[:, columns["A"]]
    blocks[:, :, columns["M"]] += blocks[:, :, columns["A"]] @ Z.T
    return dataclasses.replace(information, blocks=blocks, factor=factor)


def _settling_step(layout: Layout, vector: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """A (rank, rank), one Newton step towards the gauge with the highest prior density."""
    R, whitened = layout.rank, vector / deviations
    rows, G, initial = layout.rows(whitened), layout.coefficients(whitened), layout.initial_latents(whitened)
    M, E = rows[:, :R], rows[:, layout.num_loadings :]
    left, right = M.T @ M, E.T @ E + initial.T @ initial + G @ G.T + G[:, :R].T @ G[:, :R]
    stretch = scipy.linalg.solve_continuous_lyapunov(left + right, right - left)
    size = np.linalg.norm(stretch, 2)
    return scipy.linalg.expm(stretch * min(1.0, LARGEST_STRETCH / max(size, 1e-300)))


def settle(layout: Layout, vector: np.ndarray, deviations: np.ndarray, seen_right: np.ndarray) -> np.ndarray:
    """(coordinate,) the same network at the point with the highest prior density.

    Args:
        layout: sizes.
        vector: (coordinate,) the point.
        deviations: (coordinate,) prior standard deviations, the same for all entries of M, E or the initial latents.
        seen_right: (neuron, seen) Q.
    """
    for _ in range(MAX_STEPS):
        A = _settling_step(layout, vector, deviations)
        vector = settle_trades(layout, regauge(layout, vector, A), deviations, seen_right)
        if np.linalg.norm(A - np.eye(len(A))) < 1e-9:
            break
    return vector


def settle_trades(layout: Layout, vector: np.ndarray, deviations: np.ndarray, seen_right: np.ndarray) -> np.ndarray:
    """(coordinate,) the same network and left factors, E traded against G and A for the highest prior density."""
    rows, G = layout.rows(vector).copy(), layout.coefficients(vector).copy()
    scale, columns = layout.rows(deviations), layout.columns
    E = rows[:, columns["E"]]
    precision = scale[:, columns["E"]][:, :1] ** -2.0
    if layout.num_seen:
        M, A = rows[:, columns["M"]], rows[:, columns["A"]]
        other = scale[:, columns["A"]][:, :1] ** -2.0
        # Z minimises |E + Q Z^T|² / variance of E + |A - M Z|² / variance of A.
        Z = scipy.linalg.solve_sylvester(
            M.T @ (other * M),
            seen_right.T @ (precision * seen_right),
            M.T @ (other * A) - E.T @ (precision * seen_right),
        )
        E = E + seen_right @ Z.T
        rows[:, columns["A"]] = A - M @ Z
    if layout.correlated:
        own = rows[:, layout.regressors]
        deviation = layout.coefficients(deviations)
        for latent in range(layout.rank):
            total = E[:, latent] + own @ G[latent]
            moments = own.T @ (precision * own) + np.diag(deviation[latent] ** -2.0)
            G[latent] = np.linalg.solve(moments, own.T @ (precision[:, 0] * total))
            E[:, latent] = total - own @ G[latent]
    rows[:, columns["E"]] = E
    return layout.join(rows, G, layout.initial_latents(vector))
