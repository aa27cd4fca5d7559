"""Small problems in both forms: the dense one of `inference`, and that of the structured engine."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from plain import plain_model

import lrposterior as lrp
from lrposterior.inference.problem import Problem
from lrposterior.priors import SCALES, center
from lrposterior.structured.blocks import WhitenedBlocks
from lrposterior.structured.information import StructuredInformation
from lrposterior.structured.layout import Layout
from lrposterior.structured.system import System


@dataclasses.dataclass(frozen=True, eq=False)
class PriorScales:
    """Standard deviations of the independent Normal priors, with any for what a model would not have.

    G is that of the coefficients that regress K / E on the whitened loadings (M / M scale, B / B scale, b / b scale).
    """

    M: float
    E: float
    B: float
    b: float
    A: float = 1.0
    G: float = 1.0
    initial_latents: float = 1.0

    def deviations(self, layout: Layout) -> np.ndarray:
        row = np.empty(layout.width)
        for name, columns in layout.columns.items():
            row[columns] = getattr(self, name)
        rows = np.broadcast_to(row, (layout.num_neurons, layout.width))
        coefficients = np.broadcast_to(self.G / row[layout.regressors], (layout.rank, layout.regressors.size))
        initial = np.full((layout.num_initial, layout.rank), self.initial_latents)
        return layout.join(rows, coefficients, initial)


def structured_from_dense(layout, information, vertical, deviations):
    """The structured form of a matrix F (coordinate, coordinate), without truncation."""
    C = layout.num_loadings
    rows = np.arange(layout.num_local).reshape(layout.num_neurons, -1)[:, :C]
    index = rows[:, :, None], rows[:, None, :]
    blocks, rest = information[index], information.copy()
    rest[index] = 0.0
    whitened = WhitenedBlocks.of(layout, blocks, deviations)
    weights, rotation = np.linalg.eigh(whitened.solve(whitened.solve(rest).T))
    return StructuredInformation(layout, blocks, whitened.times(rotation), weights, vertical)


def information_times(linearisation, changes):
    """F times changes (coordinate, column): what the neurons' own blocks add to the rest."""
    layout = linearisation.system.layout
    product = linearisation.information_beyond_blocks(changes)
    loadings = layout.rows(changes)[:, : layout.num_loadings]
    layout.rows(product)[:, : layout.num_loadings] += linearisation.blocks @ loadings
    return product


def entry_means(system, vector, post, pre):
    """(entry,) W[post, pre] at a point."""
    left = system.layout.loadings(vector)[:, : system.layout.num_latents]
    return np.einsum("er,er->e", left[post], system.right_factors(vector)[pre]) / len(left)


def problem_of(model, *, num_trials=3, num_bins=9, num_neurons=6, num_inputs=2, stimulation=True, gaps=True, seed=0):
    random = np.random.default_rng(seed)
    shape = (num_trials, num_bins, num_neurons)
    recording = lrp.Recording(
        random.standard_normal(shape),
        0.02,
        inputs=random.standard_normal((num_trials, num_bins, num_inputs)),
        stimulation=random.standard_normal(shape) if stimulation else None,
        mask=random.random(shape) < 0.8 if gaps else None,
    )
    return Problem.of(model, recording)


def system_of(problem, *, seen_right=None, correlated=False):
    """The engine's system with any right factors of the seen latents, not only orthonormal ones."""
    system = System.of(problem.model, problem.recording)
    layout = dataclasses.replace(system.layout, correlated=correlated)
    if seen_right is None:
        return dataclasses.replace(system, layout=layout)
    layout = dataclasses.replace(layout, num_seen=seen_right.shape[1])
    return dataclasses.replace(system, layout=layout, seen_right=seen_right)


def scales_of(problem):
    priors = problem.model.priors
    K, B, b, initial_kappa = (center(getattr(priors, name)) for name in SCALES)
    unit = priors.unit or 1.0
    return PriorScales(priors.M, K, B * unit, b * unit, initial_latents=initial_kappa * unit)


def to_vector(problem, layout: Layout, z):
    """Coordinates of the engine from whitened coordinates of the dense problem, without correlated loadings."""
    named = problem.space.unwhiten(np.asarray(z))
    A = np.zeros((layout.num_neurons, layout.num_seen))
    rows = np.concatenate([named["M"], A, named["B"], named["b"][:, None], named["K"]], axis=1)
    return layout.join(rows, initial=named.get("initial_kappa"))


def to_dense(problem, layout: Layout, vector):
    """Whitened dynamics coordinates of the dense problem."""
    rows, columns = layout.rows(vector), layout.columns
    named = {
        "M": rows[:, columns["M"]],
        "K": layout.right_factors(vector),
        "B": rows[:, columns["B"]],
        "b": rows[:, columns["b"]][:, 0],
        "initial_kappa": layout.initial_latents(vector),
    }
    blocks = [block for block in problem.space.blocks if block.name in named]
    return np.concatenate([named[block.name].ravel() / block.standard_deviation for block in blocks])


def jacobian_to_dense(problem, layout: Layout):
    """(dense coordinate, engine coordinate): how the whitened dense coordinates follow those of the engine."""
    return np.stack([to_dense(problem, layout, unit) for unit in np.eye(layout.num_coordinates)], axis=1)


@functools.cache
def simulated_problem(num_neurons=12, num_trials=6, num_bins=30, rank=2, noise_scale=0.1, seed=1):
    model = plain_model(rank)
    simulation = lrp.simulate_recording(
        model, num_neurons=num_neurons, num_trials=num_trials, num_bins=num_bins, noise_scale=noise_scale, seed=seed
    )
    return Problem.of(model, simulation.recording)


def automatic_objective(system: System, deviations, log_noise_scale):
    """The objective as a plain JAX function of the vector, the noise held: a naive reference, one neuron-time array."""
    layout = system.layout

    def currents(vector):
        rows = vector[: layout.num_local].reshape(layout.num_neurons, layout.width)
        psi, K = rows[:, : layout.num_loadings], rows[:, layout.num_loadings :]
        if layout.correlated:
            G = vector[layout.num_local : layout.num_local + layout.num_coefficients].reshape(layout.rank, -1)
            K = K + rows[:, layout.regressors] @ G.T
        right = jnp.concatenate([K, jnp.asarray(system.seen_right)], axis=1)
        kappa = jnp.zeros((system.num_trials, layout.num_latents))
        if layout.num_initial:
            initial = vector[layout.num_local + layout.num_coefficients :].reshape(layout.num_initial, layout.rank)
            kappa = kappa.at[:, : layout.rank].set(initial)
        features = system.features.reshape(system.num_trials, system.num_bins, -1)
        a, bins = system.integration_constant, []
        for time in range(system.num_bins):
            x = jnp.concatenate([kappa, features[:, time]], axis=1) @ psi.T
            if system.known is not None:
                x = x + system.known.reshape(layout.num_neurons, system.num_trials, -1)[:, :, time].T
            bins.append(x)
            kappa = (1 - a) * kappa + a * lrp.network.NONLINEARITIES[system.nonlinearity].rate(x) @ right / len(K)
        return jnp.stack(bins, axis=1).reshape(system.num_samples, -1)

    def objective(vector):
        residual = system.activity.T - system.observation.mean(currents(vector), system.nonlinearity)
        mask = 1.0 if system.mask is None else system.mask.T
        return 0.5 * jnp.sum(mask * residual**2 * jnp.exp(-2.0 * log_noise_scale)) + 0.5 * jnp.sum(
            (vector / deviations) ** 2
        )

    return currents, objective


def replace_scales(scales, **changes):
    return dataclasses.replace(scales, **changes)
