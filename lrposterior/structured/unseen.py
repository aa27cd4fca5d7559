"""The part of a response's variance that comes from connectivity which the recording has not seen."""

from __future__ import annotations

import numpy as np

from lrposterior.structured.system import System


def unseen_spread(
    system: System,
    left: np.ndarray,
    right: np.ndarray,
    rate_change: np.ndarray,
    slopes: np.ndarray,
    adjoint: np.ndarray,
    readouts: np.ndarray,
    gain: float,
) -> float:
    """tr Cov q summed over readouts and neurons.

    Rows of the unseen W are independent Normal(0, g² / N) on what is orthogonal to the seen right factors, so that all
    neurons get currents with the same covariance over bins, (g² / N) r_perp[t] . r_perp[t'], r the change of the rates.
    Filtered, these are xi; they drive the linearised latents and reach q = xi + [M, A] delta with

        delta_l[t] = sum_s sum_n (phi'_n[s] [K, Q]_n . l[s]) xi_n[s],    l the adjoint of latent l at t.

    Args:
        system: the network's fixed parts.
        left, right: (neuron, latent) factors.
        rate_change, slopes: (bin, neuron) with the stimulation, from its onset on.
        adjoint: (bin, latent, readout and latent).
        readouts: (readout,) bins.
        gain: g.
    """
    a, num_neurons = system.integration_constant, len(left)
    num_bins, num_latents = adjoint.shape[:2]
    orthogonal = rate_change
    if system.layout.num_seen:
        seen, _ = np.linalg.qr(system.seen_right)
        orthogonal = rate_change - (rate_change @ seen) @ seen.T
    currents = (gain**2 / num_neurons) * orthogonal @ orthogonal.T
    lag = np.arange(num_bins)[:, None] - np.arange(num_bins)[None, :] - 1
    low_pass = np.where(lag >= 0, a * (1.0 - a) ** np.maximum(lag, 0), 0.0)
    filtered = low_pass @ currents @ low_pass.T

    following = np.zeros_like(adjoint)
    following[:-1] = (a / num_neurons) * adjoint[1:]
    following = following.reshape(num_bins, num_latents, len(readouts), num_latents)
    weighted = (slopes[:, :, None] * right[None]).transpose(0, 2, 1).reshape(-1, num_neurons)
    pairs = (weighted @ weighted.T).reshape(num_bins, num_latents, num_bins, num_latents) * filtered[:, None, :, None]
    by_readout = np.moveaxis(following, 2, 0).reshape(len(readouts), num_bins * num_latents, num_latents)
    covariance = np.swapaxes(by_readout, 1, 2) @ pairs.reshape(num_bins * num_latents, -1) @ by_readout
    mixed = (weighted @ left).reshape(num_bins, num_latents, num_latents)
    crossed = np.einsum("slrm,slm,rs->", following, mixed, filtered[readouts])
    direct = num_neurons * np.sum(np.diag(filtered)[readouts])
    return float(direct + 2.0 * crossed + np.einsum("lm,rlm->", left.T @ left, covariance))
