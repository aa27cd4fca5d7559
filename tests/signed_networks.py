"""Models with Dale's law of all kinds, and all that a network of each does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import lrposterior as lrp
from lrposterior.inference.problem import Problem
from lrposterior.process_noise import latent_covariance, pattern_coordinates
from lrposterior.signed_background import matrix_of

TYPES = ["E", "E", "E", "E", "I", "I"]
NUM_NEURONS, NUM_TRIALS, RANK = len(TYPES), 2, 2
KNOWN = lrp.DaleLoadings(K={"E": 1.5, "I": 6.0}, unit=1.0)
INFERRED = lrp.DaleLoadings(K={"E": lrp.ScalePrior(1.5, 0.5), "I": lrp.ScalePrior(6.0, 0.5)}, unit=1.0)
BY_TYPE = lrp.DaleLoadings(
    M={"E": 0.7, "I": 2.0},
    K={"E": 1.5, "I": 3.0},
    magnitudes={"E": "log-normal", "I": "half-normal"},
    spread={"E": 0.7, "I": 1.0},
    unit=1.0,
)
BACKGROUND = lrp.SignedBackground({"E": 1.0, "I": 4.0})
BEYOND = {"background": BACKGROUND, "self_connections": False}
# Models, and how many directions change nothing: of the gauge, and of trades.
CASES = {
    "rollouts": ({}, 4, 0),
    "log-normal": ({"priors": dataclasses.replace(KNOWN, magnitudes="log-normal", spread=0.7)}, 4, 0),
    "magnitudes by type": ({"priors": BY_TYPE}, 4, 0),
    "full noise": ({"process_noise": "full"}, 4, 0),
    "diagonal noise": ({"process_noise": "diagonal"}, 3, 0),
    "inferred scales": ({"priors": INFERRED}, 4, 2),
    "all": ({"priors": INFERRED, "process_noise": "full"}, 4, 2),
    "free start": ({"initial_state": "free"}, 4, 0),
    "no self-connections": ({"self_connections": False}, 4, 0),
    "rank of W that its other entries leave open": ({"self_connections": False, "rank": 4}, 16, 2),
    "the same with noise": ({"self_connections": False, "rank": 4, "process_noise": "full"}, 16, 0),
    "background": ({"background": BACKGROUND}, 4, 20),
    "background, magnitudes by type": ({"background": BACKGROUND, "priors": BY_TYPE}, 4, 20),
    "background, diagonal noise": (BEYOND | {"process_noise": "diagonal"}, 3, 12),
    "background, inferred scales, full noise": (BEYOND | {"priors": INFERRED, "process_noise": "full"}, 4, 14),
    "background, free start": (BEYOND | {"initial_state": "free"}, 4, 12),
}


def problem_of(**options) -> Problem:
    settings = {"priors": KNOWN, "nonlinearity": "softplus", "background": None} | options
    model = lrp.LowRankModel(settings.pop("rank", RANK), observation=lrp.GaussianObservation(of="rate"), **settings)
    random = np.random.default_rng(0)
    activity = np.exp(0.3 * random.standard_normal((NUM_TRIALS, 15, NUM_NEURONS)))
    recording = lrp.Recording(activity, 0.02, inputs=random.standard_normal((NUM_TRIALS, 15, 1)), cell_types=TYPES)
    return Problem.of(model.for_recording(recording), recording)


def content(problem: Problem, z: jax.Array) -> jax.Array:
    """All that the network is, gauge or not: W, the noise of its currents, how trials start, and the other blocks."""
    parameters = problem.space.unwhiten(z)
    M = parameters["M"]
    W = M @ parameters["K"].T / NUM_NEURONS
    if "W0" in parameters:
        W = W + matrix_of(parameters["W0"])
    if not problem.model.self_connections:
        W = W * (1.0 - np.eye(NUM_NEURONS))
    parts = [W]
    if problem.model.process_noise is not None:
        parts.append(M @ latent_covariance(parameters, None) @ M.T)
    if "initial_kappa" in parameters:
        parts.append(M @ parameters["initial_kappa"].T)
    return jnp.concatenate([jnp.ravel(part) for part in [*parts, parameters["B"], parameters["b"]]])


def jacobian(problem: Problem, z: np.ndarray, what) -> np.ndarray:
    """(entry, dynamics coordinate)."""
    return np.asarray(jax.jacfwd(lambda z: what(problem, z))(jnp.asarray(z)))[:, : problem.space.num_dynamics]


def in_gauge(problem: Problem, z: np.ndarray, A: np.ndarray) -> np.ndarray:
    """The same network as z with its columns scaled and permuted by A (rank, rank)."""
    inverse, parameters = np.linalg.inv(A), problem.space.unwhiten(z)
    moved = dict(parameters) | {"M": parameters["M"] @ A, "K": parameters["K"] @ inverse.T}
    if "initial_kappa" in parameters:
        moved["initial_kappa"] = parameters["initial_kappa"] @ inverse.T
    if problem.model.process_noise is not None:
        covariance = np.asarray(latent_covariance(parameters, None))
        moved |= pattern_coordinates(inverse @ covariance @ inverse.T, moved["M"], None)
    return np.asarray(problem.space.whiten({name: jnp.asarray(value) for name, value in moved.items()}))


def simulated(
    num_trials: int, strength: float = 1.0, noise: float = 0.5, **options
) -> tuple[lrp.LowRankModel, lrp.Recording]:
    """A network of rank 1 roughly as the prior has it, inhibition times a strength, and a recording of it."""
    random = np.random.default_rng(3)
    of_type = np.where(np.array(TYPES) == "I", -6.0 * strength, 1.5)[:, None]
    parameters = {
        "M": random.uniform(0.4, 1.6, (NUM_NEURONS, 1)),
        "K": of_type * random.uniform(0.4, 1.6, (NUM_NEURONS, 1)),
        "B": random.standard_normal((NUM_NEURONS, 1)),
        "b": np.zeros(NUM_NEURONS),
        "noise_scale": np.full(NUM_NEURONS, noise),
    }
    inputs = np.repeat(random.standard_normal((num_trials, 5, 1)), 8, axis=1)
    like = lrp.Recording(np.zeros((num_trials, 40, NUM_NEURONS)), 0.02, inputs=inputs, cell_types=TYPES)
    model = lrp.LowRankModel(1, **({"priors": KNOWN, "nonlinearity": "softplus", "background": None} | options))
    if model.background is not None:
        signs = np.where(np.array(TYPES) == "I", -4.0, 1.0) / NUM_NEURONS
        parameters["W0"] = signs * random.uniform(0.2, 1.0, (NUM_NEURONS, NUM_NEURONS))
    return model, model.simulate(parameters, like, seed=1)
