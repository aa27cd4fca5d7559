"""Sinkhorn divergences between two sets of trials: optimal transport with an entropic regularisation.

    OT(C) = min over P of  <P, C> + epsilon KL(P | 1 / nm),      P >= 0 with rows of 1 / n and columns of 1 / m
    S(y, x) = OT(C_yx) - OT(C_yy) / 2 - OT(C_xx) / 2

S(x, x) = 0: the last two terms take away what regularisation alone would gain by drawing trials together (Feydy et
al. 2019, arXiv:1810.08278). Between few trials of many entries that is not enough. Every trial is at 0 from itself, and
far from all others: x that vary less are nearer to y, and what is so fitted loses its variability. So C_xx is that
between two independent simulations of the network, x' and x (Salimans et al. 2018, arXiv:1803.05573). At the truth the
slopes of OT(C_yx) and OT(C_x'x) by x are then equal in expectation, however few the trials, and whatever the cost.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

Cost = Literal["euclidean", "poisson"]
COSTS = ("euclidean", "poisson")
MAX_ITERATIONS = 1000


def costs(recorded: Array, simulated: Array, counts: tuple[Array, Array] | None, kind: Cost) -> Array:
    """(trial, other) what it costs to bring a simulated trial to a recorded one: mean over entries that both count.

        "euclidean":  (y - m)²
        "poisson":    y log(y / m) - y + m,      the Bregman divergence of the Poisson log likelihood

    Args:
        recorded: (trial, entry) y; positive for "poisson".
        simulated: (other, entry) m; positive for "poisson".
        counts: (trial, entry) and (other, entry) 1 where an entry counts, else 0, with some for every pair; None where
            all do.
        kind: of the cost.
    """
    # Both are a(y) - y h(m) + c(m).
    if kind == "euclidean":
        alone, cross, others_alone = recorded**2, 2.0 * simulated, simulated**2
    else:
        alone, cross, others_alone = recorded * jnp.log(recorded) - recorded, jnp.log(simulated), simulated
    if counts is None:
        total = jnp.sum(alone, axis=1)[:, None] - recorded @ cross.T + jnp.sum(others_alone, axis=1)[None, :]
        return jnp.maximum(total, 0.0) / recorded.shape[1]
    own, other = counts
    total = (own * alone) @ other.T - (own * recorded) @ (other * cross).T + own @ (other * others_alone).T
    return jnp.maximum(total, 0.0) / (own @ other.T)


def sinkhorn_divergence(
    between: Array, within: Array, others: Array, epsilon: Array | float, tolerance: float = 1e-3
) -> Array:
    """S, from the costs (trial, other) between two sets, (trial, trial) within one and (other, other) within the other.

    Its slope by the costs within the other set counts twice: they are between two simulations x' and x, of which only x
    is followed, and x' would add as much in expectation.

    Args:
        between, within, others: costs.
        epsilon: > 0, in the unit of the costs.
        tolerance: as in `transport`.
    """
    of_both, of_one, of_other = (transport(each, epsilon, tolerance) for each in (between, within, others))
    twice = 2.0 * of_other - jax.lax.stop_gradient(of_other)
    return of_both - 0.5 * of_one - 0.5 * twice


def transport(cost: Array, epsilon: Array | float, tolerance: float = 1e-3) -> Array:
    """OT of costs (trial, other). Its slope is that at a plan that is held: it is stationary in the plan.

    Args:
        cost: of every pair.
        epsilon: > 0, in the unit of the cost.
        tolerance: the iteration ends when potentials move by less than this part of epsilon.
    """
    log_plan = _log_plan(jax.lax.stop_gradient(cost / epsilon), tolerance)
    plan = jnp.exp(log_plan) / cost.size
    return jnp.sum(plan * cost) + epsilon * jnp.sum(plan * log_plan)


def _log_plan(cost: Array, tolerance: float) -> Array:
    """log(nm P) for costs in units of epsilon, by Sinkhorn's iteration of the potentials (Cuturi 2013)."""
    of_rows, of_columns = jnp.log(jnp.asarray(cost.shape, cost.dtype))

    def columns(rows: Array) -> Array:
        return of_rows - jax.nn.logsumexp(rows[:, None] - cost, axis=0)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rows, _, iteration = state
        moved = of_columns - jax.nn.logsumexp(columns(rows)[None, :] - cost, axis=1)
        return moved, jnp.max(jnp.abs(moved - rows)), iteration + 1

    def moves(state: tuple[Array, Array, Array]) -> Array:
        return (state[1] > tolerance) & (state[2] < MAX_ITERATIONS)

    start = jnp.zeros(cost.shape[0], cost.dtype), jnp.asarray(jnp.inf, cost.dtype), jnp.asarray(0)
    rows, _, _ = jax.lax.while_loop(moves, step, start)
    return rows[:, None] + columns(rows)[None, :] - cost
