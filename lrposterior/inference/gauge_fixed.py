"""The posterior with the gauge integrated out: what variational inference and Markov chains work on.

In (M, K) the posterior is a bent sheet: along the R² gauge directions the data say nothing, so it follows the orbit
(L A, Q A^-T) of the mode (a ring for R = 2, see `lrposterior.gauge`) for as far as the prior lets it, and every stiff
direction turns with it. A Normal guide pinches itself to a piece of the orbit that is nearly straight, and a Markov
chain needs hundreds of steps for every draw. The coordinates here are straight, and nothing is approximated.

Let L0, Q0 be the whitened factors of the mode in any gauge, n rows and m rows. Every pair of factors for which L0^T L
is invertible is, in exactly one way,

    L = (L0 + X) A,    Q = (Q0 + Y) A^-T,    L0^T X = 0,    Y free,    A in GL(R).

The likelihood sees only the slice (X, Y) and the parameters that have no gauge; A is seen by the prior alone. With
A = T O, T lower triangular with a positive diagonal and O orthogonal,

    dL dQ = det(L0^T L0)^(R/2) |det A|^(n-m) dX dY dmu(A),    dmu(A) = prod_i T_ii^-i dT dO,
    log prior = -|(L0 + X) T|² / 2 - |(Q0 + Y) T^-T|² / 2 + const.

The integral over O is the volume of O(R). T, the R (R + 1) / 2 stretches of M against K, is integrated over together
with the rest; it is nearly Normal.

A displacement (dL, dQ) of the whitened factors from the mode is read as X + L0 Omega = dL, Y - Q0 Omega^T = dQ: the map
above to first order in Omega, a linear change whose volume element is det(L0^T L0)^(-R/2). T takes the symmetric part
of Omega: T = (1 + B) diag(exp h), h_i = Omega_ii, B_ij = Omega_ij + Omega_ji for i > j. Nothing depends on what is
left, the R (R - 1) / 2 rotations; they get a standard Normal density of their own along orthonormal directions. So the
target lives in all coordinates of the model, its integral is p(activity), and its curvature is about F + I, plus 1
along the stretches.

Where factors have signs there is no such slice: (L0 + X) A has to keep them. There, and where the data do not support
the rank, the frame is one of the whitened parameters themselves, whose prior is Normal(0, I) with signs or without, so
that the target is the joint density and no Jacobian is missing.
"""

# NumPyro's annotations are wider than what it returns: an array is a number or an array, a distribution any one.
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import scipy.linalg
from jax import Array
from numpyro import distributions

from lrposterior.data import Data
from lrposterior.gauge import log_group_volume
from lrposterior.inference.laplace import bent_normal, require_support
from lrposterior.inference.mode import Mode
from lrposterior.inference.problem import Problem
from lrposterior.likelihood import log_likelihood
from lrposterior.model import LowRankModel
from lrposterior.orbit import gauge_direction, gauge_exponent, move, stretches_and_rotations
from lrposterior.parameters import ParameterSpace

SITE = "e"


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frame:
    """Coordinates e around a mode, in which the posterior is roughly Normal(0, I).

    Attributes:
        mode: (coordinate,) whitened mode; with signs the mean of the Laplace posterior, unless its network diverges.
        scale: the displacement from the mode is scale @ e for a matrix (coordinate, coordinate), scale * e for a
        vector.
        inverse_left: (rank, neuron) pseudo-inverse of the left factors of the mode; no rows where the gauge is free.
        rotations: (coordinate, rank (rank - 1) / 2) orthonormal gauge directions that turn the factors of the mode.
        constant: logarithm of everything in the density that does not depend on e.
    """

    mode: Array
    scale: Array
    inverse_left: Array
    rotations: Array
    constant: Array

    @property
    def is_slice(self) -> bool:
        """Whether the gauge is integrated out, so that points lie on a slice across the orbits."""
        return self.inverse_left.shape[0] > 0

    def displacement(self, e: Array) -> Array:
        return self.scale @ e if self.scale.ndim == 2 else self.scale * e


def make_frame(problem: Problem, mode: Mode, shape: Literal["full", "diagonal"]) -> Frame:
    """Coordinates scaled by the curvature at the mode.

    Args:
        problem: what is fitted.
        mode: its mode, in any gauge.
        shape: "full": the inverse root of the curvature. "diagonal": the conditional standard deviations of the
            whitened parameters, so that e keeps their axes.

    Raises:
        FitError: if the data do not support the rank, so that the gauge of the mode is not fixed by its factors.
    """
    space = problem.space
    if space.is_signed:
        return make_joint_frame(problem, mode, shape)
    require_support(problem, mode)
    left, _ = space.factors(mode.z)
    stretches, turns = stretches_and_rotations(space, mode.z)
    stretches = scipy.linalg.orth(stretches)
    rotations = scipy.linalg.orth(turns - stretches @ (stretches.T @ turns)) if turns.size else turns
    scale, log_determinant = _scale(problem, mode, shape, stretches)
    log_volume = log_group_volume(len(left.T)) + np.linalg.slogdet(rotations.T @ turns)[1]
    num_normal = space.size + rotations.shape[1]
    constant = log_volume - 0.5 * num_normal * np.log(2.0 * np.pi) + log_determinant
    return Frame(*(jnp.asarray(value) for value in (mode.z, scale, np.linalg.pinv(left), rotations, constant)))


def make_joint_frame(problem: Problem, mode: Mode, shape: Literal["full", "diagonal"]) -> Frame:
    """Coordinates of (M, K) themselves, for `joint_log_density`; they exist at every mode. Args: as `make_frame`."""
    space = problem.space
    centre = bent_normal(problem, mode).location if space.is_signed else mode.z
    if not np.isfinite(problem.negative_log_density(centre)):  # its network diverges, as that of a mode does not
        centre = mode.z
    scale, log_determinant = _scale(problem, mode, shape, np.zeros((space.size, 0)))
    nothing = np.zeros((0, space["M"].shape[0])), np.zeros((space.size, 0))
    constant = log_determinant - 0.5 * space.size * np.log(2.0 * np.pi)
    return Frame(*(jnp.asarray(value) for value in (centre, scale, *nothing, constant)))


def log_density(model: LowRankModel, space: ParameterSpace, frame: Frame, data: Data, e: Array) -> Array:
    """Log density of the recording and of e (coordinate,), in nats: the one of the two that belongs to the frame."""
    of_frame = gauge_fixed_log_density if frame.is_slice else joint_log_density
    return of_frame(model, space, frame, data, e)


def gauge_fixed_log_density(model: LowRankModel, space: ParameterSpace, frame: Frame, data: Data, e: Array) -> Array:
    """Log density of the recording and of e (coordinate,), in nats; its integral over e is p(activity)."""
    displacement = frame.displacement(e)
    z, generator = to_slice(space, frame, displacement)
    rank = generator.shape[0]
    log_diagonal = jnp.diag(generator)
    below = jnp.tril(generator + generator.T, -1)
    stretch = (jnp.eye(rank) + below) * jnp.exp(log_diagonal)[None, :]
    # (1 + B)^-1 = 1 - B (1 - B (1 - ...)), R - 1 times, because B is strictly triangular.
    inverse = jnp.eye(rank)
    for _ in range(rank - 1):
        inverse = jnp.eye(rank) - below @ inverse
    inverse = inverse * jnp.exp(-log_diagonal)[:, None]
    squares = jnp.sum(move(space, z, stretch, inverse) ** 2) + jnp.sum((frame.rotations.T @ displacement) ** 2)
    # det(A)^e prod_i T_ii^-i dT, where dT = prod_i T_ii^(R-i+1) dh dB.
    powers = gauge_exponent(space) + rank + 1 - 2 * np.arange(1, rank + 1)
    measure = jnp.sum(jnp.asarray(powers, log_diagonal.dtype) * log_diagonal)
    return log_likelihood(model, space.unwhiten(z), data) - 0.5 * squares + measure + frame.constant


def joint_log_density(model: LowRankModel, space: ParameterSpace, frame: Frame, data: Data, e: Array) -> Array:
    """Log density of the recording and of e (coordinate,) with the gauge left free: the plain posterior of (M, K)."""
    z = frame.mode + frame.displacement(e)
    return log_likelihood(model, space.unwhiten(z), data) - 0.5 * jnp.sum(z**2) + frame.constant


def make_program(model: LowRankModel) -> Callable[[ParameterSpace, Frame, Data], None]:
    """The density of e as a NumPyro program with one site."""

    def program(space: ParameterSpace, frame: Frame, data: Data) -> None:
        everywhere = distributions.ImproperUniform(distributions.constraints.real_vector, (), (space.size,))
        e = numpyro.sample(SITE, everywhere)
        numpyro.factor("log_density", log_density(model, space, frame, data, e))

    return program


def to_slice(space: ParameterSpace, frame: Frame, displacement: Array) -> tuple[Array, Array]:
    """Whitened parameters (coordinate,) on the slice, and Omega (rank, rank); affine in the displacement."""
    generator = frame.inverse_left @ space.coordinates(displacement, "M")
    return frame.mode + displacement - gauge_direction(space, frame.mode, generator), generator


@jax.jit
def points(space: ParameterSpace, frame: Frame, e: Array) -> Array:
    """(draw, coordinate) whitened parameters, on the slice where there is one, for every e (draw, coordinate)."""
    displacements = jax.vmap(frame.displacement)(e)
    if not frame.is_slice:
        return frame.mode + displacements
    return jax.vmap(lambda one: to_slice(space, frame, one)[0])(displacements)


def _scale(problem: Problem, mode: Mode, shape: str, stretches: np.ndarray) -> tuple[np.ndarray, float]:
    """The scale of the coordinates, and the logarithm of its determinant."""
    num_dynamics = problem.space.num_dynamics
    stretches = stretches[:num_dynamics]
    precision = mode.information + np.eye(num_dynamics) + stretches @ stretches.T
    noise = 1.0 / np.sqrt(problem.noise_information(mode.z) + 1.0)
    if shape == "diagonal":
        scale = diagonal = np.concatenate([1.0 / np.sqrt(np.diag(precision)), noise])
    else:
        root = np.linalg.cholesky(precision)
        dynamics = scipy.linalg.solve_triangular(root, np.eye(num_dynamics), lower=True, trans=1, check_finite=False)
        scale = np.asarray(scipy.linalg.block_diag(dynamics, np.diag(noise)))
        diagonal = np.diag(scale)
    return scale, float(np.sum(np.log(diagonal)))
