"""Mean and variance of the response to a perturbation, linearised in the parameters, without draws.

A stimulation c[t] p moves the currents by h[t] p on its own, h the filtered time course. The rest of what it does is
q = [M, A] d, with d the difference of the latents with and without it. To first order in the parameters

    dq[t] = d[M, A] d[t] + [M, A] J[t] dtheta,

so that the variance summed over neurons needs the covariance of the left factors summed over neurons, the covariance
of J[t] theta, and the products of the two, for which Sigma times R + d vectors per latent is computed once. J comes
from the adjoint recursion, and what happened before the stimulation enters through the latents at its onset.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.network import NONLINEARITIES
from lrposterior.precision import double_precision
from lrposterior.structured.information import StructuredPosterior
from lrposterior.structured.system import System, filtered
from lrposterior.structured.unseen import unseen_spread

# Entries (candidate, bin, neuron) of the arrays that exist at one time.
CANDIDATE_ENTRIES = 4_000_000


@dataclass(frozen=True, eq=False)
class ResponseMoments:
    """Sums over conditions, bins and neurons of the currents' responses, by candidate.

    Attributes:
        mean_power: (candidate,) |E q|², the response at the mode.
        spread: (candidate,) tr Cov q from what is unknown of the parameters.
        unseen_spread: (candidate,) tr Cov q from the unseen connectivity; zeros without any.
        states: (candidate, condition, bin, latent) d at the mode.
    """

    mean_power: np.ndarray
    spread: np.ndarray
    unseen_spread: np.ndarray
    states: np.ndarray


@dataclass(frozen=True, eq=False)
class _Run:
    """A network in the bins from the onset on: latents (bin, loading), rates and slopes (bin, neuron)."""

    latents: np.ndarray
    rates: np.ndarray
    slopes: np.ndarray


@double_precision
def response_moments(
    system: System,
    vector: np.ndarray,
    posterior: StructuredPosterior,
    *,
    inputs: np.ndarray,
    patterns: np.ndarray,
    time_course: np.ndarray,
    bins: np.ndarray,
    unseen_gain: float = 0.0,
) -> ResponseMoments:
    """Moments of the responses to candidates, all with the same time course.

    Args:
        system: the network's fixed parts; trials start without currents.
        vector: (coordinate,) the mode.
        posterior: covariance around it.
        inputs: (condition, time, input).
        patterns: (candidate, neuron) in units of current.
        time_course: (time,) factor of the patterns.
        bins: where the response is read, after the onset of the time course.
        unseen_gain: g of the connectivity that the recording has not seen, entries Normal(0, g² / N) on rates outside
            the span of the seen right factors.
    """
    layout, left = system.layout, system.layout.loadings(vector)[:, : system.layout.num_latents]
    onset, stop = int(np.flatnonzero(time_course)[0]), int(np.max(bins))
    a = system.integration_constant
    ones = filtered(np.ones((1, len(time_course), 1)), a)
    features = np.concatenate([filtered(inputs, a), np.tile(ones, (len(inputs), 1, 1))], axis=2)
    feed_through = filtered(time_course[None], a)[0]
    readouts = np.asarray(bins) - onset
    summary = _Summary.of(system, vector, posterior, left)
    shape = (len(patterns), len(inputs), len(readouts), layout.num_latents)
    states, spread, unseen = np.zeros(shape), np.zeros(len(patterns)), np.zeros(len(patterns))
    runner = functools.partial(_run, system, vector)
    size = max(1, CANDIDATE_ENTRIES // ((stop - onset + 1) * layout.num_neurons))
    for condition, feature in enumerate(features):
        silent = np.zeros((1, layout.num_neurons))
        before = runner(np.zeros((1, layout.num_latents)), feature[: onset + 1], np.zeros(onset + 1), silent)[0]
        start = before.latents[-1:, : layout.num_latents]
        at_onset, _ = _sensitivities(system, vector, before, np.array([onset]))
        window = feature[onset : stop + 1]
        quiet = runner(start, window, np.zeros(len(window)), silent)[0]
        quiet_slopes, quiet_carried = _sensitivities(system, vector, quiet, readouts)
        for first in range(0, len(patterns), size):
            part = patterns[first : first + size]
            runs = runner(start, window, feed_through[onset : stop + 1], part)
            slopes = np.empty((layout.num_coordinates, len(part), quiet_slopes.shape[1]))
            for row, perturbed in enumerate(runs):
                by_coordinate, carried = _sensitivities(system, vector, perturbed, readouts)
                slopes[:, row] = by_coordinate - quiet_slopes + at_onset @ (carried - quiet_carried)
                difference = (perturbed.latents - quiet.latents)[readouts, : layout.num_latents]
                states[first + row, condition] = difference
                if unseen_gain > 0.0:
                    adjoint = _adjoints(system, _transitions(system, vector, perturbed), readouts)
                    change = perturbed.rates - quiet.rates
                    unseen[first + row] += unseen_spread(
                        system, left, summary.right, change, perturbed.slopes, adjoint, readouts, unseen_gain
                    )
            reached = slice(first, first + len(part))
            spread[reached] += summary.spreads(slopes, states[reached, condition])
    power = np.einsum("kctr,rs,kcts->k", states, left.T @ left, states)
    return ResponseMoments(power, spread, unseen, states)


@dataclass(frozen=True, eq=False)
class _Summary:
    """What all candidates need of the posterior.

    Attributes:
        posterior: the covariance.
        overlaps: (latent, latent) [M, A]^T [M, A].
        unknown: (latent, latent) covariance of the left factors, summed over neurons.
        crossed: (coordinate, latent, latent) Sigma times the vector with left factor s in the place of left factor r.
        right: (neuron, latent) right factors.
    """

    posterior: StructuredPosterior
    overlaps: np.ndarray
    unknown: np.ndarray
    crossed: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, system: System, vector: np.ndarray, posterior: StructuredPosterior, left: np.ndarray) -> _Summary:
        layout, num_latents = system.layout, system.layout.num_latents
        rows = np.zeros((layout.num_neurons, layout.width, num_latents, num_latents))
        for latent in range(num_latents):
            rows[:, latent, latent] = left
        crossed = posterior.times(layout.join(rows).reshape(layout.num_coordinates, -1))
        unknown = posterior.row_covariance()[:, :num_latents, :num_latents].sum(axis=0)
        return cls(
            posterior,
            left.T @ left,
            unknown,
            crossed.reshape(-1, num_latents, num_latents),
            system.right_factors(vector),
        )

    def spreads(self, slopes: np.ndarray, states: np.ndarray) -> np.ndarray:
        """tr Cov q summed over bins, (candidate,).

        Args:
            slopes: (coordinate, candidate, bin and latent) J.
            states: (candidate, bin, latent) d.
        """
        num_coordinates, (num_candidates, num_bins, num_latents) = len(slopes), states.shape
        columns = slopes.reshape(num_coordinates, -1)
        local = self.posterior.local.solve(columns).reshape(num_coordinates, num_candidates, -1)
        read = (self.posterior.factor.T @ columns).reshape(-1, *states.shape)
        # (candidate, bin, latent, latent) covariance of J theta, bin by bin.
        latent = -np.einsum("kctr,k,kcts->ctrs", read, self.posterior.removed, read)
        for candidate in range(num_candidates):
            gram = local[:, candidate].T @ local[:, candidate]
            latent[candidate] += np.einsum("trts->trs", gram.reshape(num_bins, num_latents, num_bins, num_latents))
        mixed = self.crossed.reshape(num_coordinates, -1).T @ columns
        mixed = mixed.reshape(num_latents, num_latents, *states.shape)
        return (
            np.einsum("ctr,rs,cts->c", states, self.unknown, states)
            + np.einsum("rs,ctrs->c", self.overlaps, latent)
            + 2.0 * np.einsum("ctr,rscts->c", states, mixed)
        )


def _run(
    system: System,
    vector: np.ndarray,
    start: np.ndarray,
    features: np.ndarray,
    course: np.ndarray,
    patterns: np.ndarray,
) -> list[_Run]:
    """Networks (pattern,) from latents start (1, latent) on."""
    kappa, rates, slopes = _simulate(
        system.nonlinearity,
        system.layout.loadings(vector),
        system.right_factors(vector),
        features,
        course,
        patterns,
        start[0],
        system.integration_constant,
    )
    return [
        _Run(np.concatenate([one, features], axis=1), rate, slope)
        for one, rate, slope in zip(np.asarray(kappa), np.asarray(rates), np.asarray(slopes), strict=True)
    ]


@functools.partial(jax.jit, static_argnums=0)
def _simulate(
    nonlinearity: str,
    loadings: Array,
    right: Array,
    features: Array,
    course: Array,
    patterns: Array,
    start: Array,
    a: Array,
) -> tuple[Array, Array, Array]:
    """Latents (pattern, bin, latent), rates and slopes (pattern, bin, neuron)."""
    phi, num_latents = NONLINEARITIES[nonlinearity], right.shape[1]
    left = loadings[:, :num_latents]
    driven = features @ loadings[:, num_latents:].T

    def step(kappa: Array, now: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array, Array]]:
        drive, strength = now
        current = kappa @ left.T + drive[None, :] + strength * patterns
        rates = phi.rate(current)
        return (1.0 - a) * kappa + (a / len(right)) * (rates @ right), (kappa, rates, phi.slope(current))

    initial = jnp.broadcast_to(start, (patterns.shape[0], num_latents))
    _, (kappa, rates, slopes) = jax.lax.scan(step, initial, (driven, course))
    return jnp.swapaxes(kappa, 0, 1), jnp.swapaxes(rates, 0, 1), jnp.swapaxes(slopes, 0, 1)


def _transitions(system: System, vector: np.ndarray, run: _Run) -> np.ndarray:
    """(bin, latent, latent) A."""
    num_latents, a = system.layout.num_latents, system.integration_constant
    left, right = system.layout.loadings(vector)[:, :num_latents], system.right_factors(vector)
    pairs = (right[:, :, None] * left[:, None, :]).reshape(len(left), -1)
    mixed = (run.slopes @ pairs).reshape(-1, num_latents, num_latents)
    return (1.0 - a) * np.eye(num_latents) + (a / len(left)) * mixed


def _adjoints(system: System, transitions: np.ndarray, readouts: np.ndarray) -> np.ndarray:
    """lambda (bin, latent, readout and latent): derivatives of the latents at the readouts by those of each bin."""
    num_bins, num_latents = transitions.shape[:2]
    states = np.zeros((num_bins, num_latents, len(readouts), num_latents))
    for time in range(num_bins - 1, -1, -1):
        if time + 1 < num_bins:
            states[time] = np.tensordot(transitions[time].T, states[time + 1], axes=1)
        states[time][:, readouts == time] += np.eye(num_latents)[:, None, :]
    return states.reshape(num_bins, num_latents, -1)


def _sensitivities(
    system: System, vector: np.ndarray, run: _Run, readouts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of the latents at the readouts (column: readout and latent).

    Returns:
        Those by the coordinates (coordinate, column), and those by the latents of the first bin (latent, column).
    """
    layout, right = system.layout, system.right_factors(vector)
    adjoint = _adjoints(system, _transitions(system, vector, run), readouts)
    following = np.zeros_like(adjoint)
    following[:-1] = (system.integration_constant / layout.num_neurons) * adjoint[1:]
    num_columns = following.shape[2]
    by_loading = np.zeros((layout.num_neurons, layout.num_loadings * num_columns))
    for latent in range(layout.num_latents):
        weights = run.latents[:, :, None] * following[:, latent, None, :]
        by_loading += right[:, latent, None] * (run.slopes.T @ weights.reshape(len(weights), -1))
    by_right = run.rates.T @ following[:, : layout.rank].reshape(len(following), -1)
    initial = np.zeros((layout.num_initial, layout.rank, num_columns))
    pulled = layout.pull(
        vector,
        by_loading.reshape(layout.num_neurons, layout.num_loadings, num_columns),
        system.read_part(by_right).reshape(layout.num_neurons, layout.rank, num_columns),
        initial,
    )
    return pulled, adjoint[0]
