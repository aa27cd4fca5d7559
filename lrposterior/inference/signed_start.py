"""A start for a network that obeys Dale's law, from the data.

The currents that the activity suggests are a linear function of the filtered rates, inputs and 1. The weights of the
rates are found within the signs of the neurons, by non-negative least squares (Lawson and Hanson 1974), and the matrix
that they make is brought to the rank by positive factors, in the least squares sense by multiplicative updates (Lee and
Seung 2001). What these leave of it is where a background with signs starts. Without self-connections the diagonal of
neither counts. What the signs, the rank and a smaller K take from the activity is given back by the biases: without
them a network starts at a third of its rate.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.optimize

from lrposterior.inference.initialise import SHRINKAGES, best_start, low_passed
from lrposterior.inference.problem import Problem
from lrposterior.inference.recorded_means import with_recorded_means
from lrposterior.network import NONLINEARITIES
from lrposterior.parameters import RIGHT_SCALE
from lrposterior.priors import DaleLoadings
from lrposterior.signed_background import entries_of

NUM_UPDATES = 500
# Of the squares of the regressors: keeps the regression from fitting noise.
RIDGE = 1e-3
# Entries of the factors at the start, in units of their prior scale: none is 0, which lies at no finite coordinate.
SMALLEST, LARGEST = 0.05, 3.0


def signed_start(problem: Problem) -> np.ndarray:
    """A whitened start (coordinate,) for a model with `DaleLoadings`, with a finite objective.

    Raises:
        FitError: if none of the starts that are tried is finite.
    """
    model, priors = problem.model, problem.model.priors
    if not isinstance(priors, DaleLoadings):
        raise TypeError(f"priors: expected DaleLoadings, got {type(priors).__name__}")
    recording = problem.recording
    prior_mean = problem.space.unwhiten(jnp.zeros(problem.space.size))
    a = float(np.asarray(model.integration_constants(prior_mean, problem.data)).mean())
    currents = model.observed_currents(recording)
    rates = np.asarray(NONLINEARITIES[model.nonlinearity].rate(jnp.asarray(currents)))
    ones = np.ones((*rates.shape[:2], 1))
    regressors = [low_passed(each, a) for each in (rates * priors.signs, recording.inputs, ones)]
    target = currents if recording.stimulation is None else currents - low_passed(recording.stimulation, a)
    seen = np.any(recording.mask, axis=2)
    size, B, b = _regress(np.concatenate(regressors, axis=2), target, seen, model.self_connections)
    found = {name: np.asarray(value) for name, value in prior_mean.items()} | {"B": B, "b": b}
    found.pop(RIGHT_SCALE, None)  # It follows from K.
    size = size * recording.num_neurons
    M, K = positive_factors(size, model.rank, model.self_connections)
    if "W0" in problem.space:
        beyond = np.maximum(size - M @ K.T, 0.0) / recording.num_neurons
        found["W0"] = _within(problem, "W0", entries_of(beyond, model.self_connections))
    balance = np.sqrt(K.mean(axis=0) / M.mean(axis=0))
    M, K = (
        _within(problem, name, each) for name, each in (("M", M * balance), ("K", K / balance * priors.signs[:, None]))
    )
    found |= {"M": M, "K": K}
    candidates = (with_weaker_recurrence(found, shrinkage) for shrinkage in SHRINKAGES)
    active = (with_recorded_means(problem, np.asarray(problem.space.whiten(each))) for each in candidates)
    return best_start(problem, [problem.space.unwhiten(each) for each in active])


def with_weaker_recurrence(parameters: Mapping[str, np.ndarray], factor: float) -> dict[str, np.ndarray]:
    """The parameters of a network whose K, and W0 where it is inferred, are multiplied by a factor."""
    return dict(parameters) | {name: factor * parameters[name] for name in ("K", "W0") if name in parameters}


def _regress(
    regressors: np.ndarray, target: np.ndarray, seen: np.ndarray, self_connections: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (neuron, neuron) >= 0 of the rates, (neuron, input) of the inputs and (neuron,) of 1.

    Free weights are differences of two that are positive. A regressor of zeros has no weight.
    """
    num_neurons = target.shape[2]
    flat, wanted = regressors[seen], target[seen]
    both = np.concatenate([flat, -flat[:, num_neurons:]], axis=1)
    gram = both.T @ both
    squares = np.diag(gram)
    # An input that is 0 in the whole recording has no weight.
    ridge = np.where(squares > 0.0, RIDGE * squares, 1.0)
    root = np.linalg.cholesky(gram + np.diag(ridge))
    projected = scipy.linalg.solve_triangular(root, both.T @ wanted, lower=True)
    found = np.empty((num_neurons, root.shape[0]))
    for neuron, wanted_of_neuron in enumerate(projected.T):
        columns = root.T.copy()
        if not self_connections:
            columns[:, neuron] = 0.0
        found[neuron] = scipy.optimize.nnls(columns, wanted_of_neuron)[0]
    free = found[:, num_neurons : flat.shape[1]] - found[:, flat.shape[1] :]
    return found[:, :num_neurons], free[:, :-1], free[:, -1]


def _within(problem: Problem, name: str, factor: np.ndarray) -> np.ndarray:
    """A factor with entries of a size that the prior expects."""
    block = problem.space[name]
    is_inferred = name == "K" and RIGHT_SCALE in problem.space
    scale = np.sqrt(np.mean(factor**2)) if is_inferred else block.standard_deviation
    return np.asarray(block.sign) * np.clip(np.abs(factor), SMALLEST * scale, LARGEST * scale)


def positive_factors(matrix: np.ndarray, rank: int, has_diagonal: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Positive factors (row, rank), (column, rank) of a matrix without negative entries, M K^T near it.

    Without a diagonal that counts, it is that of the factors themselves, found again in every step.
    """
    random = np.random.default_rng(0)
    scale = np.sqrt(np.maximum(matrix.mean(), 1e-12) / rank)
    M, K = (scale * np.exp(0.5 * random.standard_normal((size, rank))) for size in matrix.shape)
    for _ in range(NUM_UPDATES):
        if not has_diagonal:
            matrix = matrix.copy()
            np.fill_diagonal(matrix, np.sum(M * K, axis=1))
        K = K * (matrix.T @ M + 1e-12) / (K @ (M.T @ M) + 1e-12)
        M = M * (matrix @ K + 1e-12) / (M @ (K.T @ K) + 1e-12)
    return M, K
