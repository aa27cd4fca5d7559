"""The Laplace posterior of a latent circuit."""

from __future__ import annotations

import time

import numpy as np
from tqdm.auto import tqdm

from lrposterior.circuits.models import LatentCircuit
from lrposterior.circuits.posterior import NetworkPosterior
from lrposterior.inference.approximation import CONVERGED
from lrposterior.inference.circuit_mode import CircuitProblem
from lrposterior.posterior import FitStatistics
from lrposterior.precision import double_precision
from lrposterior.recording import Recording


@double_precision
def fit_circuit(
    model: LatentCircuit, recording: Recording, seed: int, num_restarts: int, max_iterations: int, progress: bool
) -> NetworkPosterior:
    """The Normal approximation around the best mode that 1 + num_restarts starts from the prior reach."""
    started, problem = time.perf_counter(), CircuitProblem(model, recording)
    members = []
    for index in tqdm(range(1 + num_restarts), desc="circuit", unit="start", disable=not progress):
        members.append(problem.train(np.random.default_rng([seed, index]), 1.0, max_iterations))
    members.sort(key=lambda member: member.objective)
    best = members[0]
    z = best.parameters["z"]
    _, slope = problem.precision(z, 1.0)
    status = CONVERGED if best.converged else f"not converged: {max_iterations} steps; raise max_iterations"
    statistics = FitStatistics(
        objective=best.objective,
        gradient_norm=float(np.linalg.norm(slope)),
        decrement=float("nan"),
        num_iterations=best.num_steps,
        wall_time=time.perf_counter() - started,
        log_evidence=None,
        evidence_note="none is computed for a latent circuit",
        mode_objectives=tuple(member.objective for member in members),
        mode_counts=(1,) * len(members),
    )
    return NetworkPosterior(model, recording, "laplace", seed, status, statistics, problem.laplace(z))
