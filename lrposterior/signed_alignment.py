"""Draws under Dale's law brought together: each moved, within the signs, to the network nearest to a reference.

A network is not changed by the moves of `lrposterior.signed_orbit`,

    M A,      K A^-T,      initial_kappa A^-T,      A^-1 Q A^-T,

and by scales of K of a cell type against its magnitudes. A sampler goes along all of them as far as the prior lets it.
Without signs the slice of what is orthogonal to them meets every orbit; with signs some orbits end before. But the
distance of whitened coordinates has a minimum on each, as it has no bound where a magnitude goes to 0:

    min over A and scales of |z(M A, K A^-T, ...) - z_reference|.

It is searched by damped Newton steps A <- A (1 + G), from the order and the lengths of columns that fit those of
the reference best: the same from every permutation and positive scaling of the columns.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import linear_sum_assignment

from lrposterior.checks import argument_error
from lrposterior.parameters import RIGHT_SCALE, ParameterSpace
from lrposterior.precision import double_precision
from lrposterior.process_noise import MIXING, SCALE, latent_coordinates, latent_covariance
from lrposterior.signed_orbit import signed_trade_directions

NUM_STEPS = 40
DRAWS_AT_ONCE = 100
FIRST_DAMPING = 1.0
# Damping after a step that came nearer, and after one that did not or left the signs.
LOWER, RAISE = 0.2, 8.0


def align_within_signs(space: ParameterSpace, draws: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(draw, coordinate) the same networks, nearest to the reference.

    Args:
        space: the parameters, with signs.
        draws: (draw, coordinate) whitened.
        reference: (coordinate,) whitened.

    Raises:
        ValueError: if W is known beyond M K^T in a way that is traded for M and K.
    """
    num_scales = len(space.cell_types) if RIGHT_SCALE in space else 0
    if len(signed_trade_directions(space, reference)) > num_scales:
        expected = "a Normal distribution where a background or the missing diagonal of W is traded for M and K"
        raise argument_error("posterior", expected, "draws", "fit with method='laplace' or 'svi' without correction")
    # Batches of one size, so that any number of draws compiles the same.
    padded = np.pad(draws, ((0, -len(draws) % DRAWS_AT_ONCE), (0, 0)), mode="edge")
    A = _ordering(space, padded, reference)
    batches = np.arange(len(padded)).reshape(-1, DRAWS_AT_ONCE)
    return np.concatenate([_nearest(space, padded[rows], A[rows], reference) for rows in batches])[: len(draws)]


def _ordering(space: ParameterSpace, draws: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """A (draw, rank, rank) that gives columns the order of those of the reference, and the ratio of their lengths."""
    parameters, goal = space.unwhiten(draws), space.unwhiten(reference)
    (M, K), lengths = (parameters["M"], parameters["K"]), [np.linalg.norm(goal[name], axis=0) for name in ("M", "K")]
    overlap = np.einsum("dnr,ns->drs", M, goal["M"]) * np.einsum("dnr,ns->drs", K, goal["K"])
    power = np.sum(M**2, axis=1) * np.sum(K**2, axis=1)
    distance = np.swapaxes(power[:, :, None] - 2.0 * overlap, 1, 2)
    order = np.stack([linear_sum_assignment(each)[1] for each in distance])
    ratio = np.take_along_axis(np.linalg.norm(K, axis=1) / np.linalg.norm(M, axis=1), order, axis=1)
    scaling = np.sqrt(ratio * lengths[0] / lengths[1])
    return np.swapaxes(np.eye(M.shape[2])[order], 1, 2) * scaling[:, None, :]


@double_precision
@jax.jit
def _nearest(space: ParameterSpace, draws: Array, A: Array, reference: Array) -> Array:
    """(draw, coordinate) where steps from draws (draw, coordinate) in the gauge A (draw, rank, rank) end."""

    def nearest(draw: Array, gauge: Array) -> Array:
        start = space.whiten(_moved(space, space.unwhiten(draw), gauge))
        first = start, _distance(space, start, reference), jnp.asarray(FIRST_DAMPING)
        return jax.lax.fori_loop(0, NUM_STEPS, lambda _, state: _step(space, reference, state), first)[0]

    return jax.vmap(nearest)(draws, A)


def _step(space: ParameterSpace, reference: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """One damped step: the point (coordinate,), half its squared distance, and the damping."""
    z, distance, damping = state
    parameters, here = space.unwhiten(z), jnp.zeros(_num_amounts(space))

    def along(amounts: Array) -> Array:
        return space.whiten(_along_orbit(space, parameters, amounts))

    def reached_by(amounts: Array) -> Array:
        return _distance(space, along(amounts), reference)

    slope, curvature = jax.jacfwd(reached_by)(here), jax.jacfwd(jax.jacfwd(reached_by))(here)
    candidate = along(-jnp.linalg.solve(curvature + damping * jnp.eye(len(here)), slope))
    reached = _distance(space, candidate, reference)
    nearer = reached < distance  # not where it is not finite, beyond the signs
    damping = damping * jnp.where(nearer, LOWER, RAISE)
    return jnp.where(nearer, candidate, z), jnp.where(nearer, reached, distance), damping


def _distance(space: ParameterSpace, z: Array, reference: Array) -> Array:
    return 0.5 * jnp.sum((z - reference)[: space.num_dynamics] ** 2)


def _num_amounts(space: ParameterSpace) -> int:
    """How many numbers say how far to go along an orbit."""
    rank = space["M"].shape[1]
    num_gauge = rank * (rank + 1) // 2 if _is_diagonal(space) else rank**2
    return num_gauge + (len(space.cell_types) if RIGHT_SCALE in space else 0)


def _is_diagonal(space: ParameterSpace) -> bool:
    """Whether there is a covariance of the process noise that has to stay diagonal."""
    return SCALE in space and MIXING not in space


def _along_orbit(space: ParameterSpace, parameters: dict[str, Array], amounts: Array) -> dict[str, Array]:
    """The same network further along its orbit, a differentiable function of amounts (amount,) that are 0 here."""
    rank = space["M"].shape[1]
    if _is_diagonal(space):
        # A = Q^1/2 O Q^-1/2 D keeps A^-1 Q A^-T diagonal, with D diagonal and O = (1 - S)^-1 (1 + S) orthogonal, as S
        # is antisymmetric.
        lengths, turns = amounts[:rank], amounts[rank : rank * (rank + 1) // 2]
        row, column = np.tril_indices(rank, -1)
        turn = jnp.zeros((rank, rank)).at[row, column].set(turns)
        each, turn = jnp.eye(rank), turn - turn.T
        rotation = jnp.linalg.solve(each - turn, each + turn)
        root = jnp.exp(parameters[SCALE])
        A = root[:, None] * rotation / root * jnp.exp(lengths)
    else:
        A = jnp.eye(rank) + amounts[: rank**2].reshape(rank, rank)
    moved = _moved(space, parameters, A)
    if RIGHT_SCALE in space:
        moved[RIGHT_SCALE] = moved[RIGHT_SCALE] + amounts[-len(space.cell_types) :]
    return moved


def _moved(space: ParameterSpace, parameters: dict[str, Array], A: Array) -> dict[str, Array]:
    """Parameters in the gauge A (rank, rank)."""
    inverse = jnp.linalg.inv(A)
    moved = parameters | {"M": parameters["M"] @ A, "K": parameters["K"] @ inverse.T}
    if "initial_kappa" in space:
        moved["initial_kappa"] = parameters["initial_kappa"] @ inverse.T
    if SCALE in space:
        moved |= latent_coordinates(inverse @ latent_covariance(parameters, None) @ inverse.T)
    return moved
