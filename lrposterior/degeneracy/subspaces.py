"""Patterns of neurons: those that the activity visits, and those that the determined connectivity reads and writes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrposterior.checks import read_only, require_probability
from lrposterior.connectivity import LowRankConnectivity

# Patterns that no rate visits are made for networks of so many neurons at most.
LARGEST_BASIS = 2000


@dataclass(frozen=True, eq=False)
class Subspace:
    """Orthonormal patterns of neurons, ordered by how much of the connectivity the data determine on them.

    Attributes:
        patterns: (pattern, neuron); the entry of each that is largest in magnitude is positive. From a posterior in the
            structured form the first 24, else all.
        shares: (pattern,) share of all the variance of W that the data remove; those of all patterns add up to 1.
        contraction: (pattern,) variance removed over prior variance of the synapses of this pattern.
    """

    patterns: np.ndarray
    shares: np.ndarray
    contraction: np.ndarray


@dataclass(frozen=True, eq=False)
class LatentConnectivity:
    """The connectivity Q^T W Q between the principal directions Q of the rates.

    Attributes:
        basis: Q (neuron, latent), orthonormal, by decreasing share of the rates.
        mean: (latent, latent) posterior mean; rows are postsynaptic.
        lower, upper: (latent, latent) bounds of the central credible interval.
        probability: its probability.
    """

    basis: np.ndarray
    mean: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    probability: float


def determined_subspace(removed: np.ndarray, prior: np.ndarray) -> Subspace:
    """Eigenvectors of the part of the second moment of dW that the data remove.

    Args:
        removed: (neuron, neuron) prior minus posterior E dW^T dW (presynaptic patterns) or E dW dW^T (postsynaptic).
        prior: (neuron, neuron) the same under the prior.
    """
    values, vectors = np.linalg.eigh(removed)
    values, patterns = values[::-1], fix_sign(vectors.T[::-1])
    prior_values = np.einsum("pn,nm,pm->p", patterns, prior, patterns, optimize=True)
    return Subspace(read_only(patterns), read_only(values / values.sum()), read_only(values / prior_values))


def principal_rates(rates: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular value decomposition of the rates that act on the observations, not centred.

    Rates after which nothing is observed, such as those of the last bin of a trial, act on none and are left out.

    Args:
        rates, mask: (trial, time, neuron).

    Returns:
        Singular values (neuron,), decreasing, and principal patterns (pattern, neuron) as rows: all of a small network,
        of one of more than 2,000 neurons as many as there are rates that act.
    """
    num_observed = mask.sum(axis=2)
    acts = num_observed.sum(axis=1, keepdims=True) > num_observed.cumsum(axis=1)
    acting = rates[acts]
    if len(acting) > rates.shape[2]:
        acting = np.linalg.qr(acting, mode="r")
    _, values, patterns = np.linalg.svd(acting, full_matrices=rates.shape[2] <= LARGEST_BASIS)
    return np.pad(values, (0, rates.shape[2] - len(values))), fix_sign(patterns)


def connectivity_on(basis: np.ndarray, W: LowRankConnectivity, probability: float) -> LatentConnectivity:
    """Mean and central intervals of Q^T W Q over draws of W, with Q (neuron, latent)."""
    tail = 0.5 * (1.0 - require_probability(probability, "probability"))
    draws = np.stack([W.matvec(direction) @ basis for direction in basis.T], axis=2)
    lower, upper = np.quantile(draws, [tail, 1.0 - tail], axis=0)
    return LatentConnectivity(
        read_only(basis), read_only(draws.mean(axis=0)), read_only(lower), read_only(upper), probability
    )


def fix_sign(patterns: np.ndarray) -> np.ndarray:
    """Patterns (pattern, neuron) whose entry of largest magnitude is positive."""
    largest = np.take_along_axis(patterns, np.abs(patterns).argmax(axis=1, keepdims=True), axis=1)
    return np.where(largest < 0.0, -patterns, patterns)
