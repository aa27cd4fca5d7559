"""Noise that drives the latents from bin to bin, in a form that no change of gauge touches.

    kappa[t+1] = (1 - a) kappa[t] + a K^T r[t] / N + eps[t],      eps[t] ~ Normal(0, Q)

The covariance Q of the latents changes with the gauge, Q -> A^-1 Q A^-T under (M A, K A^-T); the noise of the currents,
M Q M^T, does not. So what is inferred is C, its covariance along columns of M in a gauge of their own,

    M Q M^T = U C U^T,      U^T U / N = 1,      P^T U symmetric and positive semidefinite,

with fixed patterns P (neuron, rank): of all orthogonal columns that span those of M, U is the
nearest to sqrt(N) P (Schönemann 1966, doi:10.1007/BF02289451). P fixes how U is turned, and nothing else. A direction
of M that P hardly sees does no harm, as long as it is only one. C_kk is the variance of the currents along column k,
averaged over neurons.

Under Dale's law no change of gauge is open but permutations and positive scalings, which the prior on M fixes, and the
columns of M say which inputs neurons share: there the noise is that of the latents of M themselves, C = Q.

The Cholesky factor of C is diag(exp(log_process_scale)) T, with T lower triangular with a unit diagonal and the entries
of `process_mixing` below it: T = 1 for shape="diagonal".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal
from jax import Array

from lrposterior.checks import (
    argument_error,
    as_array,
    read_only,
    require_choice,
    require_finite,
    require_positive,
    require_shape,
)
from lrposterior.parameters import AnyArray, Block
from lrposterior.precision import double_precision

SHAPES = ("diagonal", "full")
SCALE, MIXING = "log_process_scale", "process_mixing"


@dataclass(frozen=True)
class ProcessNoise:
    """What is known of the process noise a priori.

    Args:
        shape: of its covariance C along orthogonal columns of M, turned by the patterns: "diagonal" or "full".
        scale: prior median of its standard deviation along each, accumulated over one time constant, in units of
            current: noise of scale sqrt(dt / time_constant) in every bin, root mean square over neurons.
        spread: standard deviation of the logarithm of this scale, which is Normal.
        patterns: (neuron, rank) P. Left out, they are found when a model is fitted: the singular vectors of M after the
            first steps, which start from the leading patterns of the recurrent activity. There are none under Dale's
            law.

    Raises:
        ValueError: if an argument is out of its range.
    """

    shape: Literal["diagonal", "full"] = "diagonal"
    scale: float = 0.1
    spread: float = 1.5
    patterns: np.ndarray | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        require_choice(self.shape, "process_noise.shape", SHAPES)
        for name in ("scale", "spread"):
            object.__setattr__(self, name, require_positive(getattr(self, name), f"process_noise.{name}"))
        if self.patterns is not None:
            patterns = read_only(np.asarray(self.patterns, dtype=np.float64))
            if patterns.ndim != 2 or not np.all(np.isfinite(patterns)):
                raise argument_error(
                    "process_noise.patterns", "(neuron, rank) finite numbers", f"shape {patterns.shape}", "leave it out"
                )
            object.__setattr__(self, "patterns", patterns)

    @property
    def settled_patterns(self) -> np.ndarray:
        """(neuron, rank) P.

        Raises:
            ValueError: if they are not settled.
        """
        if self.patterns is None:
            raise ValueError("process_noise: expected patterns; settle the model with for_recording(recording)")
        return self.patterns

    def blocks(self, rank: int, unit: float, bins_per_time_constant: float) -> list[Block]:
        """The parameters of C."""
        median = math.log(self.scale * unit / math.sqrt(bins_per_time_constant))
        blocks = [Block(SCALE, (rank,), median, self.spread)]
        if self.shape == "full" and rank > 1:
            blocks.append(Block(MIXING, (rank * (rank - 1) // 2,), 0.0, 1.0))
        return blocks


def checked_process_noise(noise: Any) -> ProcessNoise | None:
    """A description of the process noise from what a user wrote.

    Raises:
        ValueError: if it is none.
    """
    if noise is None or isinstance(noise, ProcessNoise):
        return noise
    if not isinstance(noise, str) or noise not in SHAPES:
        raise argument_error(
            "process_noise", "None, 'diagonal', 'full' or a ProcessNoise", repr(noise)[:60], "for example 'diagonal'"
        )
    return ProcessNoise("diagonal" if noise == "diagonal" else "full")


def require_patterns(noise: ProcessNoise, num_neurons: int, rank: int) -> None:
    """Refuse patterns that were settled on other neurons, or for another rank.

    Raises:
        ValueError: with the mend.
    """
    if noise.patterns is not None and noise.patterns.shape != (num_neurons, rank):
        mend = "leave them out: they are found in the recording"
        raise argument_error(
            "process_noise.patterns", f"shape (neuron={num_neurons}, rank={rank})", f"{noise.patterns.shape}", mend
        )


def require_covariance(value: Any, name: str, rank: int) -> np.ndarray:
    """A covariance Q of the noise of the latents.

    Raises:
        ValueError: if it is not (rank, rank), finite, symmetric and positive definite.
    """
    covariance = as_array(value, name, ("rank", "rank"))
    require_shape(covariance, name, {"rank": rank, "other rank": rank})
    require_finite(covariance, name)
    if not np.allclose(covariance, covariance.T) or np.linalg.eigvalsh(covariance)[0] <= 0.0:
        mend = "make it symmetric with positive eigenvalues"
        raise argument_error(name, "a positive definite covariance", f"{covariance.tolist()}", mend)
    return covariance.astype(np.float64)


def pattern_root(parameters: Mapping[str, AnyArray]) -> Array:
    """(..., rank, rank) the Cholesky factor of C."""
    scale = jnp.exp(jnp.asarray(parameters[SCALE]))
    rank = scale.shape[-1]
    unit = jnp.broadcast_to(jnp.eye(rank, dtype=scale.dtype), (*scale.shape, rank))
    if MIXING in parameters:
        row, column = np.tril_indices(rank, -1)
        unit = unit.at[..., row, column].set(jnp.asarray(parameters[MIXING]))
    return scale[..., :, None] * unit


def latent_covariance(parameters: Mapping[str, AnyArray], patterns: AnyArray | None) -> Array:
    """(..., rank, rank) Q, from parameters (log_process_scale, process_mixing, M) and P; without P, Q = C."""
    root = latent_root(parameters, patterns)
    return root @ jnp.swapaxes(root, -1, -2)


def latent_root(parameters: Mapping[str, AnyArray], patterns: AnyArray | None) -> Array:
    """(..., rank, rank) a square root of Q."""
    if patterns is None:
        return pattern_root(parameters)
    return jnp.linalg.solve(_frame(jnp.asarray(parameters["M"]), jnp.asarray(patterns)), pattern_root(parameters))


@double_precision
def pattern_coordinates(covariance: np.ndarray, M: np.ndarray, patterns: np.ndarray | None) -> dict[str, np.ndarray]:
    """log_process_scale (..., rank) and process_mixing (..., pair) from Q; the inverse of `latent_covariance`."""
    if patterns is not None:
        frame = np.asarray(_frame(jnp.asarray(M), jnp.asarray(patterns)))
        covariance = frame @ covariance @ np.swapaxes(frame, -1, -2)
    return latent_coordinates(covariance)


def latent_coordinates(covariance: AnyArray) -> dict[str, AnyArray]:
    """log_process_scale (..., rank) and process_mixing (..., pair) from C; where there is no P, from Q.

    Raises:
        LinAlgError: if an array of NumPy is not positive definite; of one of JAX they are NaN.
    """
    xp: Any = np if isinstance(covariance, np.ndarray) else jnp
    root = xp.linalg.cholesky(covariance)
    scale = xp.diagonal(root, axis1=-2, axis2=-1)
    row, column = np.tril_indices(scale.shape[-1], -1)
    return {SCALE: xp.log(scale), MIXING: (root / scale[..., :, None])[..., row, column]}


def _frame(M: Array, patterns: Array) -> Array:
    """(..., rank, rank) U^T M / N, so that M = U frame."""
    upper = jnp.swapaxes(jnp.linalg.cholesky(jnp.swapaxes(M, -1, -2) @ M / M.shape[-2]), -1, -2)
    # (M upper^-1)^T P: the columns of M upper^-1 are orthogonal.
    overlap = jnp.linalg.solve(jnp.swapaxes(upper, -1, -2), jnp.swapaxes(M, -1, -2) @ patterns)
    return jnp.swapaxes(nearest_rotation(overlap), -1, -2) @ upper


@jax.custom_jvp
def nearest_rotation(matrix: Array) -> Array:
    """(..., rank, rank) the orthogonal matrix O nearest to a matrix, so that O^T matrix is positive semidefinite.

    With matrix = X diag(s) Y^T it is X Y^T, and changes by X D Y^T with D_ij = (E_ij - E_ji) / (s_i + s_j),
    E = X^T d matrix Y: also where two s are alike, and derivatives of X and Y are not defined.
    """
    left, _, right = jnp.linalg.svd(matrix)
    return left @ right


@nearest_rotation.defjvp
def _change_of_rotation(at: tuple[Array], by: tuple[Array]) -> tuple[Array, Array]:
    left, sizes, right = jnp.linalg.svd(at[0])
    change = jnp.swapaxes(left, -1, -2) @ by[0] @ jnp.swapaxes(right, -1, -2)
    pairs = sizes[..., :, None] + sizes[..., None, :]
    turn = (change - jnp.swapaxes(change, -1, -2)) / jnp.where(jnp.eye(sizes.shape[-1], dtype=bool), 1.0, pairs)
    return left @ right, left @ turn @ right


def recurrent_patterns(
    currents: np.ndarray, inputs: np.ndarray, observed: np.ndarray, integration_constant: float, rank: int
) -> np.ndarray:
    """P (neuron, rank): principal directions of the currents beyond the filtered inputs.

    Args:
        currents: (trial, time, neuron).
        inputs: (trial, time, input).
        observed: (trial, time) True for the bins that count.
        integration_constant: a = dt / tau.
        rank: number of directions.
    """
    a = integration_constant
    filtered = np.asarray(scipy.signal.lfilter([0.0, a], [1.0, a - 1.0], inputs, axis=1))
    flat = currents[observed]
    features = np.concatenate([filtered[observed], np.ones((len(flat), 1))], axis=1)
    rest = flat - features @ np.linalg.lstsq(features, flat, rcond=None)[0]
    return np.linalg.svd(rest, full_matrices=False)[2][:rank].T
