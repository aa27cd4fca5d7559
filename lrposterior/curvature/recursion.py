"""The sensitivity of the latents forwards in time, and what later bins say about them backwards.

In the terms of `lrposterior.curvature.structured`, with the sensitivity J of the latents and e = S J + H,

    J[t+1] = T[t] (J[t] - P[t] e[t]) + D[t]

forwards, and backwards, with what a bin and those after it say about a change of its latents, m = e + T^T lambda[t+1],

    lambda[t] = m[t] - S[t] P[t] m[t],
    sum_t J^T S J + J^T H + H^T J - e^T P e = J[0]^T lambda[0] + sum_t D[t]^T lambda[t+1] + H[t]^T (J[t] - P[t] m[t]),

which needs no product of two sensitivities. Direct effects are sparse: the row that belongs to K_nr is
a / N sum_t phi_n[t] lambda_r[t+1]. The sensitivities of a few bins are held at once, and those at the start of every
few.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Bins whose sensitivities are held at once. Of a symmetric matrix, so many blocks of rows are found up to the diagonal.
BINS_AT_ONCE, NUM_BLOCKS = 64, 4


class Series(NamedTuple):
    """What the recursions need of every bin, the first axis being time.

    Attributes:
        rates, slopes, weights: (time, neuron) phi, phi' and the information about the current.
        driven: (time, neuron, parameter) direct effect of a neuron's own parameters on its rate.
        observed: (time, neuron, parameter) their direct effect on what is seen of it, as information.
        current_slope, explicit: (time, neuron, constant) and (time, latent, constant) direct effects of time constants.
        covariance: (time, latent, latent) P of the filter, or None without process noise.
    """

    rates: Array
    slopes: Array
    weights: Array
    driven: Array
    observed: Array
    current_slope: Array
    explicit: Array
    covariance: Array | None


class _Bins(NamedTuple):
    """T, D, S, H and P, the first axis being time."""

    transition: Array
    driven: Array
    write: Array
    observed: Array
    covariance: Array | None


def through_latents(left: Array, right: Array, of_latent: Array, own_latent: Array, series: Series) -> Array:
    """(column, column) all of F but (direct effect)^T diag(w) (direct effect), for one trial.

    Columns are the parameters of the neurons, neuron by neuron; K; time constants; the initial latents.

    Args:
        left, right: (neuron, latent).
        of_latent: (latent,) a.
        own_latent: (latent, rank) which latents belong to which column of K.
        series: of the trial.
    """
    (num_neurons, num_latents), rank = left.shape, own_latent.shape[1]
    num_bins, _, num_own = series.driven.shape
    num_local, num_constants = num_neurons * num_own, series.explicit.shape[2]
    before_constants = num_local + num_neurons * rank
    num_columns = before_constants + num_constants + rank
    drive = right * (of_latent / num_neurons)[None]
    drive_of_right = own_latent * (of_latent / num_neurons)[:, None]
    edges = np.linspace(0, num_local, NUM_BLOCKS + 1).astype(int).tolist()
    blocks = [slice(*pair) for pair in (*itertools.pairwise(edges), (before_constants, num_columns - rank))]

    def bins_of(now: Series) -> _Bins:
        gain, weighted = (
            jnp.einsum("nr,tn->trn", factor, by_neuron)
            for factor, by_neuron in ((drive, now.slopes), (left, now.weights))
        )
        driven, observed = (
            jnp.einsum("nr,tnp->trnp", factor, effect).reshape(-1, num_latents, num_local)
            for factor, effect in ((drive, now.driven), (left, now.observed))
        )
        of_right = jnp.einsum("tn,lr->tlnr", now.rates, drive_of_right).reshape(len(now.rates), num_latents, -1)
        of_constants = jnp.einsum("trn,tnq->trq", gain, now.current_slope) + now.explicit
        seen_constants = jnp.einsum("trn,tnq->trq", weighted, now.current_slope)
        of_initial = jnp.zeros((len(now.rates), num_latents, rank), left.dtype)
        return _Bins(
            transition=jnp.diag(1.0 - of_latent)[None] + jnp.einsum("trn,ns->trs", gain, left),
            driven=jnp.concatenate([driven, of_right, of_constants, of_initial], axis=2),
            write=jnp.einsum("trn,ns->trs", weighted, left),
            observed=jnp.concatenate([observed, jnp.zeros_like(of_right), seen_constants, of_initial], axis=2),
            covariance=now.covariance,
        )

    def ahead(J: Array, now: _Bins) -> tuple[Array, tuple[Array, Array]]:
        e = now.write @ J + now.observed
        kept = J if now.covariance is None else J - now.covariance @ e
        return now.transition @ kept + now.driven, (J, e)

    def back(later: Array, both: tuple[_Bins, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        now, J, e = both
        m = e + now.transition.T @ later
        if now.covariance is None:
            return m, (later, J)
        taken_off = now.covariance @ m
        return m - now.write @ taken_off, (later, J - taken_off)

    def several_ahead(J: Array, now: Series) -> tuple[Array, Array]:
        return jax.lax.scan(ahead, J, bins_of(now))[0], J

    def several_back(carry: tuple[Array, list[Array], Array], both: tuple[Series, Array]) -> tuple:
        later, direct, of_right = carry
        now, start = both
        bins = bins_of(now)
        _, (J, e) = jax.lax.scan(ahead, start, bins)
        first, (later, smoothed) = jax.lax.scan(back, later, (bins, J, e), reverse=True)
        effects, answers = jnp.concatenate([bins.driven, bins.observed]), jnp.concatenate([later, smoothed])
        direct = [
            total + jnp.einsum("trd,trp->dp", effects[:, :, rows], answers[:, :, : rows.stop])
            for total, rows in zip(direct, blocks, strict=True)
        ]
        of_right = of_right + jnp.einsum("tn,trp->nrp", now.rates, jnp.einsum("lr,tlp->trp", drive_of_right, later))
        return (first, direct, of_right), None

    chunks = jax.tree.map(lambda values: _in_chunks(values, num_bins), series)
    start = jnp.zeros((num_latents, num_columns), left.dtype).at[:, num_columns - rank :].set(own_latent)
    _, starts = jax.lax.scan(several_ahead, start, chunks)
    nothing = (
        jnp.zeros_like(start),
        [jnp.zeros((rows.stop - rows.start, rows.stop), left.dtype) for rows in blocks],
        jnp.zeros((num_neurons, rank, num_columns), left.dtype),
    )
    (first, direct, of_right), _ = jax.lax.scan(several_back, nothing, (chunks, starts), reverse=True)
    *of_neurons, of_constants = (jnp.pad(rows, ((0, 0), (0, num_columns - rows.shape[1]))) for rows in direct)
    of_right = of_right.reshape(-1, num_columns)
    lower = jnp.tril(jnp.concatenate([*of_neurons, of_right, of_constants, own_latent.T @ first]))
    return lower + jnp.tril(lower, -1).T


def _in_chunks(values: Array, num_bins: int) -> Array:
    """(chunk, time, ...) of equal lengths, with bins of zeros at the end, which say nothing."""
    num_chunks = -(-num_bins // BINS_AT_ONCE)
    size = -(-num_bins // num_chunks)
    padded = jnp.pad(values, [(0, num_chunks * size - num_bins), *[(0, 0)] * (values.ndim - 1)])
    return padded.reshape(num_chunks, size, *values.shape[1:])
