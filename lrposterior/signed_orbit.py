"""What changes nothing under Dale's law, in the coordinates in which magnitudes have no bound.

Near a network whose factors all have their signs, (M A, K A^-T, A^-1 Q A^-T) has them as well for every A near 1, so
that rank² directions change nothing there:

    dM = M G,      dK = -K G^T,      d initial_kappa = -initial_kappa G^T,      dQ = -(G Q + Q G^T),

of which a covariance Q of the process noise that is diagonal allows rank (rank + 1) / 2. Further away signs end all but
the positive scalings of the columns, which are rank of them, and the permutations. Where the scale of K of a cell type
is a parameter, it is traded for the magnitudes of K of that type, one direction for each.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from lrposterior.parameters import RIGHT_SCALE, ParameterSpace
from lrposterior.precision import double_precision
from lrposterior.process_noise import MIXING, SCALE, latent_covariance


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
    """(direction, dynamics coordinate) changes of z (coordinate,) that trade scales of K for its magnitudes."""
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
