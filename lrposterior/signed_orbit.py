"""What changes nothing under Dale's law, in the coordinates in which magnitudes have no bound.

Near a network whose factors all have their signs, (M A, K A^-T, A^-1 Q A^-T) has them as well for every A near 1, so
that rank² directions change nothing there:

    dM = M G,      dK = -K G^T,      d initial_kappa = -initial_kappa G^T,      dQ = -(G Q + Q G^T),

of which a covariance Q of the process noise that is diagonal allows rank (rank + 1) / 2. Further away signs end all but
the positive scalings of the columns, which are rank of them, and the permutations. Where the scale of K of a cell type
is a parameter, it is traded for the magnitudes of K of that type, one direction for each.

Where W has a background W0 of full rank within the signs, it takes back whatever M and K do to W: all changes of K, and
all of M that neither process noise nor initial latents see; where there is either, those with dM = M G. Without
self-connections and without W0, W has no diagonal, and changes nothing where M K^T changes on its diagonal alone,

    dM K^T + M dK^T = N diag(d),      so that      (1 - P_M) diag(d) (1 - P_K) = 0,

with the projections P on the columns of M and of K: for no d as long as (N - rank)² >= N, generically.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from lrposterior.parameters import RIGHT_SCALE, ParameterSpace
from lrposterior.precision import double_precision
from lrposterior.process_noise import MIXING, SCALE, latent_covariance
from lrposterior.signed_background import entries_of


def signed_gauge_directions(space: ParameterSpace, z: np.ndarray) -> np.ndarray:
    """(direction, dynamics coordinate) changes of z (coordinate,) along the gauge, not orthogonal."""
    generators, of_noise = _allowed(space, z)
    parameters = space.unwhiten(z)
    K = space["K"].value(space.coordinates(z, "K"))
    changes = {"M": parameters["M"] @ generators, "K": -K @ np.swapaxes(generators, 1, 2)}
    if "initial_kappa" in space:
        changes["initial_kappa"] = -parameters["initial_kappa"] @ np.swapaxes(generators, 1, 2)
    directions = np.zeros((len(generators), space.size))
    for name, change in changes.items():
        moved = change / space[name].slope(space.coordinates(z, name))
        directions[:, space.slices[name]] = moved.reshape(len(generators), -1)
    for name, moved in of_noise.items():
        directions[:, space.slices[name]] = moved
    return directions[:, : space.num_dynamics]


def signed_trade_directions(space: ParameterSpace, z: np.ndarray) -> np.ndarray:
    """(direction, dynamics coordinate) changes of z (coordinate,) that trade parameters of W for each other.

    Scales of K for its magnitudes, a background for M and K, and what is seen of M and K but on the diagonal of W.
    """
    trades = [_scale_trades(space, z)]
    if "W0" in space:
        trades.append(_background_trades(space, z))
    elif not space.self_connections:
        trades.append(_diagonal_trades(space, z))
    return np.concatenate(trades)


def _background_trades(space: ParameterSpace, z: np.ndarray) -> np.ndarray:
    """Changes of K, of its scales, and of M as far as W alone sees it, each with that of W0 that takes it back."""
    parameters, shape = space.unwhiten(z), space["M"].shape
    if SCALE in space:
        mixtures = np.zeros((shape[1], 0))
    elif "initial_kappa" in space:
        mixtures = scipy.linalg.null_space(parameters["initial_kappa"])
    else:
        mixtures = np.eye(shape[1])
    of_M = np.einsum("nm,rk->nkmr", np.eye(shape[0]), mixtures).reshape(-1, *shape)
    unit = np.eye(space.size)
    free = [np.zeros((len(of_M), space.size)), unit[space.slices["K"]]]
    free[0][:, space.slices["M"]] = _coordinate_change(space, z, "M", of_M)
    if RIGHT_SCALE in space:
        free.append(unit[space.slices[RIGHT_SCALE]])
    directions = np.concatenate(free)
    changes = space.differential(z, directions)
    of_W = changes["M"] @ parameters["K"].T + parameters["M"] @ np.swapaxes(changes["K"], 1, 2)
    back = -entries_of(of_W, space.self_connections) / shape[0]
    directions[:, space.slices["W0"]] = _coordinate_change(space, z, "W0", back)
    return directions[:, : space.num_dynamics]


def _diagonal_trades(space: ParameterSpace, z: np.ndarray) -> np.ndarray:
    """Changes of M and K that change the diagonal of M K^T alone."""
    parameters = space.unwhiten(z)
    inverse_M, inverse_K = np.linalg.pinv(parameters["M"]), np.linalg.pinv(parameters["K"])
    each = np.eye(len(parameters["M"]))
    beyond_M, beyond_K = each - parameters["M"] @ inverse_M, each - parameters["K"] @ inverse_K
    if SCALE in space or "initial_kappa" in space:  # M itself is seen
        beyond_K = each
    diagonals = scipy.linalg.null_space(beyond_M * beyond_K).T[:, :, None]
    directions = np.zeros((len(diagonals), space.size))
    of_K, of_M = diagonals * inverse_M.T, beyond_M @ (diagonals * inverse_K.T)
    for name, change in (("M", of_M), ("K", of_K)):
        directions[:, space.slices[name]] = _coordinate_change(space, z, name, change)
    return directions[:, : space.num_dynamics]


def _coordinate_change(space: ParameterSpace, z: np.ndarray, name: str, change: np.ndarray) -> np.ndarray:
    """(direction, coordinate) changes of the coordinates of a block from those of its parameter, scales of K held."""
    coordinates, block = space.coordinates(z, name), space[name]
    relative = block.value(coordinates) / (space.unwhiten(z)[name] * block.slope(coordinates))
    return (change * relative).reshape(len(change), block.size)


def _scale_trades(space: ParameterSpace, z: np.ndarray) -> np.ndarray:
    """Scales of K for its magnitudes."""
    if RIGHT_SCALE not in space:
        return np.zeros((0, space.num_dynamics))
    directions = np.zeros((len(space.cell_types), space.size))
    coordinates = space.coordinates(z, "K")
    relative = space["K"].value(coordinates) / space["K"].slope(coordinates)
    belongs = space.members == np.arange(len(space.cell_types))[:, None]
    directions[:, space.slices["K"]] = -(belongs[:, :, None] * relative).reshape(len(belongs), -1)
    block = space[RIGHT_SCALE]
    directions[:, space.slices[RIGHT_SCALE]] = np.diag(1.0 / np.broadcast_to(block.standard_deviation, block.shape))
    return directions[:, : space.num_dynamics]


def signed_vertical_basis(space: ParameterSpace, z: np.ndarray) -> np.ndarray:
    """(dynamics coordinate, direction) orthonormal basis of all that changes nothing: the gauge and all trades."""
    directions = np.concatenate([signed_gauge_directions(space, z), signed_trade_directions(space, z)])
    return scipy.linalg.orth((directions / np.linalg.norm(directions, axis=1, keepdims=True)).T)


def num_signed_gauge(space: ParameterSpace, z: np.ndarray) -> int:
    """Number of directions of the gauge at z (coordinate,)."""
    return len(_allowed(space, z)[0])


def _allowed(space: ParameterSpace, z: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Generators G (direction, rank, rank) that Q follows, and the changes (direction, coordinate) of z that Q then is.

    With process noise those of the kernel of (G, change of the coordinates of Q) -> dQ + G Q + Q G^T.
    """
    rank = space["M"].shape[1]
    units = np.eye(rank**2).reshape(-1, rank, rank)
    names = [name for name in (SCALE, MIXING) if name in space]
    if not names:
        return units, {}
    Q, slopes = _covariance_and_slopes(space, z, names)
    of_gauge = (units @ Q + Q @ np.swapaxes(units, 1, 2)).reshape(rank**2, -1).T
    kernel = scipy.linalg.null_space(np.concatenate([of_gauge, slopes], axis=1)).T
    ends = rank**2 + np.cumsum([space[name].size for name in names])
    starts = [rank**2, *ends[:-1]]
    of_noise = {name: kernel[:, start:end] for name, start, end in zip(names, starts, ends, strict=True)}
    return kernel[:, : rank**2].reshape(-1, rank, rank), of_noise


@double_precision
def _covariance_and_slopes(space: ParameterSpace, z: np.ndarray, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Q (rank, rank), and its derivatives (entry, coordinate) by the whitened coordinates of some blocks."""
    sizes = [space[name].size for name in names]

    def covariance(flat: jax.Array) -> jax.Array:
        parts = jnp.split(flat, np.cumsum(sizes)[:-1].tolist())
        values = {
            name: space[name].value(jnp.reshape(part, space[name].shape))
            for name, part in zip(names, parts, strict=True)
        }
        return latent_covariance(values, None)

    flat = jnp.concatenate([jnp.ravel(jnp.asarray(space.coordinates(z, name))) for name in names])
    slopes = jax.jacfwd(covariance)(flat)
    return np.asarray(covariance(flat)), np.asarray(slopes).reshape(-1, flat.size)
