"""Modes of latent circuits, and the Laplace approximation around one.

The activity Y (sample, neuron) of a circuit with rates rho (sample, node) has the residual sum of squares

    |Y - rho Q^T|² = |Y|² - 2 <Y^T rho, Q> + |rho|²,

which is least at the polar factor Q of Y^T rho (Schönemann 1966, doi:10.1007/BF02289451). Noise has one variance for
all neurons; at its best it is sigma² = RSS / (samples N), and leaves samples N log(RSS) / 2 to minimise.

A change of the embedding is Q S + Q_perp C with S skew. C moves Y's prediction out of the span of Q, where no parameter
of the circuit moves it: so in the Gauss-Newton information C stands alone, and parameters and S follow from

    e = Y Q (I + S) - rho - d rho      in n dimensions, however many neurons there are.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import Array

from lrposterior.checks import read_only, require_integer
from lrposterior.circuits.dynamics import node_rates
from lrposterior.circuits.models import LatentCircuit
from lrposterior.fit_error import FitError
from lrposterior.inference.descent import Member
from lrposterior.recording import Recording

# Outputs are fitted with noise of this part of their root mean square.
OUTPUT_NOISE = 0.1
# Prior standard deviations of w_in, b and w_out in their units (`CircuitProblem.scales`).
INPUT_SCALE, BIAS_SCALE, OUTPUT_SCALE = 2.0, 1.0, 2.0
DAMPING, SMALLEST_DAMPING, LARGEST_DAMPING = 1e-2, 1e-9, 1e9
# Nats: a descent has come to rest when its last step was expected to gain less.
TOLERANCE = 1e-4
# Nats that may still be expected where no step of any length gains.
KINK_TOLERANCE = 1.0
SMALLEST_VARIANCE = 1e-10


@dataclass(frozen=True, eq=False)
class CircuitNormal:
    """A Normal distribution around a mode, over the parameters of a circuit and the embedding of its nodes.

    Attributes:
        problem: what was fitted.
        mode: (coordinate,) whitened parameters.
        embedding: (neuron, node) Q at the mode.
        root: (coordinate and rotation, column) a square root of the covariance of parameters and S.
        outside: (node, node) a square root of the covariance of every row of C.
    """

    problem: CircuitProblem
    mode: np.ndarray
    embedding: np.ndarray
    root: np.ndarray
    outside: np.ndarray

    def __post_init__(self) -> None:
        for name in ("mode", "embedding", "root", "outside"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def sample(self, num_draws: int, *, seed: int) -> dict[str, np.ndarray]:
        """Parameters by name, with a leading draw axis; Q is orthonormal in every draw."""
        random = np.random.default_rng(require_integer(seed, "seed"))
        changes = random.standard_normal((require_integer(num_draws, "num_draws", minimum=1), self.root.shape[1]))
        changes = changes @ self.root.T
        draws = [self.problem.named(self.mode + change[: self.mode.size]) for change in changes]
        embeddings, Q = [], self.embedding
        for change in changes[:, self.mode.size :]:
            outside = random.standard_normal(Q.shape) @ self.outside.T
            moved = Q + Q @ _skew(change, Q.shape[1]) + outside - Q @ (Q.T @ outside)
            embeddings.append(scipy.linalg.polar(moved)[0])
        stacked = {name: np.stack([draw[name] for draw in draws]) for name in draws[0]}
        return stacked | {"Q": np.stack(embeddings)}


@dataclass(frozen=True, eq=False)
class CircuitProblem:
    """A latent circuit on a recording. Build it and descend within double precision."""

    model: LatentCircuit
    recording: Recording

    @functools.cached_property
    def activity(self) -> np.ndarray:
        """(sample, neuron)."""
        return self.recording.activity.reshape(-1, self.recording.num_neurons)

    @functools.cached_property
    def outputs(self) -> np.ndarray:
        """(trial, time, output)."""
        return self.model.outputs_for(self.recording)

    @functools.cached_property
    def output_noise(self) -> float:
        return OUTPUT_NOISE * float(np.sqrt(np.mean(self.outputs**2))) if self.outputs.size else 1.0

    @functools.cached_property
    def scales(self) -> dict[str, tuple[tuple[int, ...], float]]:
        """Shape and prior standard deviation of every block.

        The unit of the rates of nodes is u = sqrt(mean |y|² / n), because Q preserves norms.
        """
        n, num_inputs, num_outputs = self.model.num_nodes, self.recording.num_inputs, self.outputs.shape[2]
        unit = float(np.sqrt(np.mean(np.sum(self.activity**2, axis=1)) / n))
        return {
            "w": ((n, n), self.model.gain / np.sqrt(n)),
            "w_in": ((n, num_inputs), INPUT_SCALE * unit),
            "b": ((n,), BIAS_SCALE * unit),
            "w_out": ((num_outputs, n), OUTPUT_SCALE * self.output_noise / OUTPUT_NOISE / unit),
        }

    @property
    def size(self) -> int:
        """Number of parameters of the circuit."""
        return sum(int(np.prod(shape)) for shape, _ in self.scales.values())

    def named(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters by name from whitened coordinates (coordinate,)."""
        named, start = {}, 0
        for name, (shape, scale) in self.scales.items():
            end = start + int(np.prod(shape))
            named[name] = scale * z[start:end].reshape(shape)
            start = end
        return named

    def embedding(self, z: np.ndarray) -> np.ndarray:
        """(neuron, node) the best Q."""
        return scipy.linalg.polar(self.activity.T @ self.rates(z))[0]

    def rates(self, z: np.ndarray) -> np.ndarray:
        """(sample, node)."""
        return np.asarray(_rates(self._structure, jnp.asarray(z), self._arrays)).reshape(-1, self.model.num_nodes)

    def noise_variance(self, z: np.ndarray) -> float:
        """At its best, given the parameters."""
        return self._noise_variance(self.rates(z))

    def objective(self, z: np.ndarray, regularisation: float) -> float:
        """-log density in nats up to a constant, at the best Q and noise; not finite where the circuit diverges."""
        rates = self.rates(z)
        if not np.all(np.isfinite(rates)):
            return np.inf
        w_out = self.named(z)["w_out"]
        misfit = self.outputs.reshape(len(rates), -1) - rates @ w_out.T
        return float(
            0.5 * self.activity.size * np.log(self._noise_variance(rates))
            + 0.5 * np.sum(misfit**2) / self.output_noise**2
            + 0.5 * regularisation * z @ z
        )

    def train(self, random: np.random.Generator, regularisation: float, num_steps: int) -> Member:
        """A circuit from a start drawn from the prior."""
        z = random.standard_normal(self.size)
        while not np.isfinite(self.objective(z, regularisation)):
            z = 0.5 * z
        z, objective, steps, converged = self.descend(z, regularisation, num_steps)
        return Member(self.named(z) | {"Q": self.embedding(z), "z": z}, objective, steps, converged)

    def descend(self, z: np.ndarray, regularisation: float, num_steps: int) -> tuple[np.ndarray, float, int, bool]:
        """Levenberg-Marquardt steps from z: the end, the objective there, the steps, and whether it came to rest."""
        objective, damping = self.objective(z, regularisation), DAMPING
        precision, slope = self.precision(z, regularisation)
        for step in range(num_steps):
            change = _newton(precision + damping * np.diag(np.diag(precision)), slope)
            expected = -0.5 * float(change @ slope)
            if expected < TOLERANCE and damping <= DAMPING:
                return z, objective, step, True
            candidate = z + change[: z.size]
            reached = self.objective(candidate, regularisation)
            if reached < objective:
                z, objective, damping = candidate, reached, max(damping / 5.0, SMALLEST_DAMPING)
                precision, slope = self.precision(z, regularisation)
            elif damping < LARGEST_DAMPING:
                damping *= 4.0
            else:
                # Nothing is lower however short the step is: a kink of relu, or a mode.
                return z, objective, step, -0.5 * float(_newton(precision, slope) @ slope) < KINK_TOLERANCE
        return z, objective, num_steps, False

    def precision(self, z: np.ndarray, regularisation: float) -> tuple[np.ndarray, np.ndarray]:
        """Gauss-Newton precision of parameters and S (coordinate and rotation, ...), and the slope."""
        Q, variance = self.embedding(z), self.noise_variance(z)
        projected = (self.activity @ Q).reshape(*self.recording.activity.shape[:2], -1)
        weights = jnp.asarray([1.0 / variance, self.output_noise**-2])
        gram, slope = map(
            np.asarray, _normal_equations(self._structure, jnp.asarray(z), self._arrays, projected, weights)
        )
        prior = np.zeros(len(slope))
        prior[: z.size] = regularisation
        # Q is the best at z, so that the slope along S is zero; rounding errors would be followed.
        slope = slope.copy()
        slope[z.size :] = 0.0
        slope[: z.size] += regularisation * z
        # A part in 1e12 of the diagonal keeps what no data and no prior determine from dividing by zero.
        return gram + np.diag(prior + 1e-12 * np.diag(gram).max()), slope

    def laplace(self, z: np.ndarray) -> CircuitNormal:
        """The Normal approximation at a mode under the prior.

        Raises:
            FitError: if the rates of the nodes are not independent of each other: what embeds them is then unknown.
        """
        precision, _ = self.precision(z, 1.0)
        rates = self.rates(z)
        inverse_root = scipy.linalg.solve_triangular(np.linalg.cholesky(precision), np.eye(len(precision)), lower=True)
        try:
            of_rates = np.linalg.cholesky(rates.T @ rates / self._noise_variance(rates))
        except np.linalg.LinAlgError as failure:
            raise FitError(
                f"num_nodes: expected nodes with rates of their own, got {rates.shape[1]} whose rates have rank "
                f"{np.linalg.matrix_rank(rates)}: some are silent, or the same, and their embedding is unknown; "
                "lower num_nodes"
            ) from failure
        outside = scipy.linalg.solve_triangular(of_rates, np.eye(len(of_rates)), lower=True)
        return CircuitNormal(self, z, self.embedding(z), inverse_root.T, outside.T)

    def _noise_variance(self, rates: np.ndarray) -> float:
        total, nuclear = np.sum(self.activity**2), np.linalg.norm(self.activity.T @ rates, "nuc")
        squares = float(total - 2.0 * nuclear + np.sum(rates**2))
        return max(squares, SMALLEST_VARIANCE * float(total)) / self.activity.size

    @functools.cached_property
    def _structure(self) -> Structure:
        blocks = tuple((name, shape, scale) for name, (shape, scale) in self.scales.items())
        return Structure(self.model.nonlinearity, blocks)

    @functools.cached_property
    def _arrays(self) -> Arrays:
        recording = self.recording
        return Arrays(
            jnp.asarray(recording.inputs),
            jnp.asarray(self.outputs),
            jnp.asarray(recording.dt / self.model.time_constant),
        )


@dataclass(frozen=True)
class Structure:
    """What compiled functions know of a circuit beforehand."""

    nonlinearity: str
    blocks: tuple[tuple[str, tuple[int, ...], float], ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Arrays:
    """Inputs (trial, time, input), outputs (trial, time, output) and a = dt / time constant."""

    inputs: Array
    outputs: Array
    a: Array


def _newton(precision: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return -scipy.linalg.solve(precision, slope, assume_a="pos")


def _skew(change: np.ndarray, num_nodes: int) -> np.ndarray:
    S = np.zeros((num_nodes, num_nodes))
    S[np.triu_indices(num_nodes, 1)] = change
    return S - S.T


def _parameters(structure: Structure, z: Array) -> dict[str, Array]:
    named, start = {}, 0
    for name, shape, scale in structure.blocks:
        end = start + int(np.prod(shape))
        named[name] = scale * z[start:end].reshape(shape)
        start = end
    return named


@functools.partial(jax.jit, static_argnums=0)
def _rates(structure: Structure, z: Array, arrays: Arrays) -> Array:
    return node_rates(_parameters(structure, z), arrays.inputs, None, arrays.a, structure.nonlinearity)


@functools.partial(jax.jit, static_argnums=0)
def _normal_equations(
    structure: Structure, z: Array, arrays: Arrays, projected: Array, weights: Array
) -> tuple[Array, Array]:
    """J^T J and J^T e of the weighted residuals in parameters and rotation, added up trial by trial."""
    first, second = np.triu_indices(projected.shape[2], 1)
    of_activity, of_outputs = jnp.sqrt(weights)

    def residuals(z: Array, trial: tuple[Array, Array, Array]) -> Array:
        inputs, outputs, seen = trial
        parameters = _parameters(structure, z)
        rates = node_rates(parameters, inputs[None], None, arrays.a, structure.nonlinearity)[0]
        misfit = outputs - rates @ parameters["w_out"].T
        return jnp.concatenate([of_activity * (seen - rates), of_outputs * misfit], axis=1)

    def of_trial(trial: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        e = residuals(z, trial)
        J = jax.jacfwd(residuals)(z, trial)
        seen, pairs = of_activity * trial[2], np.arange(first.size)
        rotated = jnp.zeros((*e.shape, first.size))
        rotated = rotated.at[:, second, pairs].set(seen[:, first]).at[:, first, pairs].add(-seen[:, second])
        D = jnp.concatenate([J, rotated], axis=2).reshape(e.size, -1)
        return D.T @ D, D.T @ e.ravel()

    grams, slopes = jax.lax.map(of_trial, (arrays.inputs, arrays.outputs, projected))
    return grams.sum(axis=0), slopes.sum(axis=0)
