"""The linear problem of `closed_loop.py`: which inputs show a matrix, low rank plus diagonal, in the fewest trials?

After the synthetic experiment of Wagenmaker et al. 2024 (arXiv:2412.02529): the response to a stimulation u is

    y = (diag(D) + c U V^T) u + e,     e ~ Normal(0, 0.25²),     |u|_1 <= 10,

with d = 100 neurons, rank 5 and an update every 200 trials. It is no recurrent network of the package, so the posterior
is its own here: the mode of (D, U, V) by alternating ridge regressions, which need the sums of u u^T and y u^T alone,
and a Laplace approximation with the information of Gauss and Newton, J^T J / noise variance.

Where this differs from the paper: D, U and V are drawn from their priors (Normal, sd 0.5, 1, 1, c² = 1 / (5 d)), which
the fit knows, as it knows rank and noise; the estimate is the mode and not of least nuclear norm; candidates are the
100 single neurons with all of the current and 60 ensembles of ten neurons with a tenth of it each, no other inputs; the
first 200 trials, common to all rules, are drawn at random from these. A round has 40 patterns of 5 trials. Held out are
ensembles of ten neurons that are no candidates. "information" is the greedy set with 10 of 40 patterns at random, as
`design_perturbations` has it, beside one without these; "uniform" takes the single neurons in turn.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

NOISE, BUDGET, DIAGONAL_SD = 0.25, 10.0, 0.5
RULES = ("random", "uniform", "most uncertain", "A-optimal", "information", "information, none random")
NUM_SWEEPS = 40


@dataclasses.dataclass(frozen=True)
class Size:
    num_neurons: int
    rank: int
    num_ensembles: int
    ensemble: int
    num_rounds: int
    num_patterns: int
    num_repeats: int

    @property
    def scale(self) -> float:
        return 1.0 / np.sqrt(self.rank * self.num_neurons)

    @property
    def per_round(self) -> int:
        return self.num_patterns * self.num_repeats

    @property
    def trials(self) -> list[int]:
        """Trials so far after every round, with those that all rules have in common."""
        return [self.per_round * (number + 1) for number in range(self.num_rounds + 1)]


FULL = Size(100, 5, 60, 10, 4, 40, 5)
TINY = Size(12, 2, 6, 3, 2, 4, 3)


@dataclasses.dataclass(frozen=True)
class Sums:
    """Of u u^T (neuron, neuron) and of y u^T over the trials so far."""

    inputs: np.ndarray
    products: np.ndarray

    def plus(self, other: "Sums") -> "Sums":
        return Sums(self.inputs + other.inputs, self.products + other.products)


def run_seed(size: Size, seed: int, rules: Sequence[str] = RULES) -> dict[str, list[float]]:
    random = np.random.default_rng([seed, 77])
    D = DIAGONAL_SD * random.standard_normal(size.num_neurons)
    U, V = random.standard_normal((2, size.num_neurons, size.rank))
    truth = np.diag(D) + size.scale * U @ V.T
    pool = np.concatenate([BUDGET * np.eye(size.num_neurons), ensembles(size, size.num_ensembles, random)])
    held_out = ensembles(size, 500, random)
    start = measured(truth, pool[random.integers(len(pool), size=size.per_round)], random)
    first = find_mode(size, start, None)
    return {rule: run_rule(size, rule, truth, pool, held_out, start, first, seed) for rule in rules}


def ensembles(size: Size, number: int, random: np.random.Generator) -> np.ndarray:
    patterns = np.zeros((number, size.num_neurons))
    for pattern in patterns:
        pattern[random.choice(size.num_neurons, size.ensemble, replace=False)] = BUDGET / size.ensemble
    return patterns


def measured(truth: np.ndarray, inputs: np.ndarray, random: np.random.Generator) -> Sums:
    responses = inputs @ truth.T + NOISE * random.standard_normal(inputs.shape)
    return Sums(inputs.T @ inputs, responses.T @ inputs)


def run_rule(
    size: Size,
    rule: str,
    truth: np.ndarray,
    pool: np.ndarray,
    held_out: np.ndarray,
    sums: Sums,
    mode: tuple[np.ndarray, np.ndarray, np.ndarray],
    seed: int,
) -> list[float]:
    random = np.random.default_rng([seed, RULES.index(rule)])

    def error() -> float:
        D, U, V = mode
        wrong = held_out @ (truth - np.diag(D) - size.scale * U @ V.T).T
        return float(np.sum(wrong**2) / np.sum((held_out @ truth.T) ** 2))

    errors = [error()]
    for number in range(size.num_rounds):
        if rule == "random":
            inputs = pool[random.integers(len(pool), size=size.per_round)]
        elif rule == "uniform":
            inputs = pool[(size.per_round * number + np.arange(size.per_round)) % size.num_neurons]
        else:
            rows = choose(size, rule, pool, covariance(size, sums, mode), mode, random)
            inputs = np.repeat(pool[rows], size.num_repeats, axis=0)
        sums = sums.plus(measured(truth, inputs, random))
        mode = find_mode(size, sums, mode)
        errors.append(error())
    return errors


def find_mode(
    size: Size, sums: Sums, start: tuple[np.ndarray, np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """D (neuron,), U and V (neuron, rank) of the largest posterior density near a start."""
    S, P, c = sums.inputs / NOISE**2, sums.products / NOISE**2, size.scale
    if start is None:
        ridge = np.linalg.solve(S + np.eye(size.num_neurons) / c**2, P.T).T
        left, values, right = np.linalg.svd(ridge - np.diag(np.diag(ridge)))
        root = np.sqrt(values[: size.rank] / c)
        start = np.diag(ridge).copy(), left[:, : size.rank] * root, right[: size.rank].T * root
    D, U, V = start
    values, vectors = np.linalg.eigh(S)
    for _ in range(NUM_SWEEPS):
        precision, target = local_precisions(size, S, V), np.empty((size.num_neurons, size.rank + 1))
        target[:, 0], target[:, 1:] = np.diag(P), c * P @ V
        rows = np.linalg.solve(precision, target[:, :, None])[:, :, 0]
        D, U = rows[:, 0], rows[:, 1:]
        # (c² S (x) U^T U + 1) vec V = vec(c (P - D S)^T U), in the eigenbases of S and of U^T U
        powers, axes = np.linalg.eigh(U.T @ U)
        right = vectors.T @ (c * (P - D[:, None] * S).T @ U) @ axes
        V = vectors @ (right / (c**2 * values[:, None] * powers + 1.0)) @ axes.T
    return D, U, V


def local_precisions(size: Size, S: np.ndarray, V: np.ndarray) -> np.ndarray:
    """(neuron, 1 + rank, 1 + rank) posterior precision of (D_i, U_i) given V, S in units of the noise."""
    precision = np.empty((size.num_neurons, size.rank + 1, size.rank + 1))
    precision[:, 0, 0] = np.diag(S) + DIAGONAL_SD**-2
    precision[:, 0, 1:] = precision[:, 1:, 0] = size.scale * S @ V
    precision[:, 1:, 1:] = size.scale**2 * V.T @ S @ V + np.eye(size.rank)
    return precision


def covariance(size: Size, sums: Sums, mode: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """(coordinate, coordinate) of (D_i, U_i) neuron by neuron, then V, around the mode."""
    _, U, V = mode
    S, (N, R) = sums.inputs / NOISE**2, U.shape
    num_local = N * (R + 1)
    precision = np.zeros((num_local + N * R, num_local + N * R))
    for neuron, block in enumerate(local_precisions(size, S, V)):
        place = slice(neuron * (R + 1), (neuron + 1) * (R + 1))
        precision[place, place] = block
        felt = np.concatenate([S[neuron][None], size.scale * V.T @ S])  # (1 + rank, neuron)
        crossed = (felt[:, :, None] * size.scale * U[neuron]).reshape(R + 1, -1)
        precision[place, num_local:], precision[num_local:, place] = crossed, crossed.T
    precision[num_local:, num_local:] = np.kron(S, size.scale**2 * U.T @ U) + np.eye(N * R)
    return np.linalg.inv(precision)


def jacobian(size: Size, pattern: np.ndarray, mode: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """(neuron, coordinate) derivatives of the response to a pattern, in units of the noise."""
    _, U, V = mode
    N, R = U.shape
    J = np.zeros((N, N * (R + 1) + N * R))
    own = J[:, : N * (R + 1)].reshape(N, N, R + 1)
    neurons = np.arange(N)
    own[neurons, neurons, 0], own[neurons, neurons, 1:] = pattern, size.scale * V.T @ pattern
    J[:, N * (R + 1) :] = (pattern[:, None] * size.scale * U[:, None, :]).reshape(N, -1)
    return J / NOISE


def choose(
    size: Size,
    rule: str,
    pool: np.ndarray,
    Sigma: np.ndarray,
    mode: tuple[np.ndarray, np.ndarray, np.ndarray],
    random: np.random.Generator,
) -> list[int]:
    """Rows of the patterns of a round, each for `num_repeats` trials."""

    def score(row: int) -> float:
        J = jacobian(size, pool[row], mode)
        spread = J @ Sigma
        inner = spread @ J.T
        if rule == "most uncertain":
            return float(np.trace(inner))
        reached = np.eye(len(inner)) + size.num_repeats * inner
        if rule == "A-optimal":
            return size.num_repeats * float(np.sum(spread * np.linalg.solve(reached, spread)))
        return 0.5 * float(np.linalg.slogdet(reached)[1])

    def taken(row: int) -> np.ndarray:
        spread = jacobian(size, pool[row], mode) @ Sigma
        inner = spread @ jacobian(size, pool[row], mode).T
        return Sigma - spread.T @ np.linalg.solve(inner + np.eye(len(inner)) / size.num_repeats, spread)

    rows = []
    if rule == "information":
        rows = random.choice(len(pool), round(0.25 * size.num_patterns), replace=False).tolist()
        for row in rows:
            Sigma = taken(row)
    bounds = np.array([score(row) for row in range(len(pool))])
    bounds[rows] = -np.inf
    if rule == "most uncertain":
        return np.argsort(-bounds, kind="stable")[: size.num_patterns].tolist()
    while len(rows) < size.num_patterns:
        # Old scores bound new ones for the information; for A-optimality this is taken to be so.
        fresh: set[int] = set()
        while (best := int(np.argmax(bounds))) not in fresh and rows:
            bounds[best] = score(best)
            fresh.add(best)
        rows.append(best)
        bounds[best] = -np.inf
        Sigma = taken(best)
    return rows
