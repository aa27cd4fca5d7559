"""The way to the mode: Gauss-Newton against L-BFGS on the same objective.

Recordings of networks drawn from the prior (rank 2, tanh, two inputs, 24 trials of 70 bins, noise 0.1). All descend on
-log p(activity, z) in whitened coordinates:

- Gauss-Newton, dense (`lrposterior.inference.mode`), where there are at most --max-dense coordinates;
- Gauss-Newton, structured (`lrposterior.structured.mode`), which `fit` uses from 750 coordinates on;
- L-BFGS (SciPy's L-BFGS-B, 30 corrections, at most 5000 iterations), with gradients by automatic differentiation.

Each starts from the data (`lrposterior.inference.initialise`) and from a draw of the prior. Counted is what it takes to
come within 0.1 nats of the lowest objective that any of them found on this recording: Gauss-Newton steps or
evaluations of objective and gradient, and seconds of the processor, of code that is compiled. A descent that ends in a
higher mode does not count there, and the table says by how many nats the worst of them ended above. Ratios are to the
form that `fit` uses at this size. The steps of the structured form are the
reported ones; each has up to 12 quasi-Newton steps with the same curvature.

    OPENBLAS_NUM_THREADS=1 NPROC=1 python benchmarks/mode.py
    python benchmarks/mode.py --summary
    python benchmarks/mode.py --tiny
"""

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from stored import load, store

import lrposterior as lrp
from lrposterior.inference.fit import MAX_DENSE
from lrposterior.inference.initialise import initialise
from lrposterior.inference.mode import find_mode
from lrposterior.inference.problem import FitError, Problem
from lrposterior.inference.structured_problem import StructuredProblem
from lrposterior.likelihood import log_likelihood
from lrposterior.precision import double_precision

NAME = "mode"
CLOSE = 0.1
MODEL = lrp.LowRankModel(rank=2, time_constant=0.1, priors=lrp.Priors(unit=1.0), background=None)
GAUSS_NEWTON, STRUCTURED, LBFGS = "Gauss-Newton", "Gauss-Newton, structured", "L-BFGS"
Trace = list[tuple[float, float]]  # (seconds, objective) after every step or evaluation


def by_steps(descend: Callable) -> Trace:
    trace: Trace = []
    started = time.process_time()

    def report(_: int, objective: float, __: float) -> None:
        trace.append((time.process_time() - started, objective))

    try:
        found = descend(report)
        trace.append((time.process_time() - started, found.objective))
    except FitError as failure:
        print(failure)
    return trace


def objective_and_gradient(problem: Problem) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Of a whitened point, compiled, in one pass."""
    model, space, data = problem.model, problem.space, problem.data

    @jax.jit
    @jax.value_and_grad
    def both(z: jax.Array) -> jax.Array:
        prior = 0.5 * jnp.sum(z**2) + 0.5 * space.size * jnp.log(2.0 * jnp.pi)
        return prior - log_likelihood(model, space.unwhiten(z), data)

    def evaluate(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = both(jnp.asarray(z))
        return float(value), np.asarray(slope)

    evaluate(np.zeros(space.size))
    return evaluate


def by_lbfgs(evaluate_both: Callable, start: np.ndarray, max_iterations: int) -> Trace:
    trace: Trace = []
    started = time.process_time()

    def evaluate(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = evaluate_both(z)
        trace.append((time.process_time() - started, value))
        return (value, slope) if np.isfinite(value) else (1e300, np.zeros_like(z))

    options = {"maxiter": max_iterations, "maxfun": 2 * max_iterations, "maxcor": 30, "ftol": 1e-13, "gtol": 1e-6}
    scipy.optimize.minimize(evaluate, start, jac=True, method="L-BFGS-B", options=options)
    return trace


@double_precision
def run(num_neurons: int, seed: int, num_trials: int, num_bins: int, max_dense: int, max_iterations: int) -> list[dict]:
    recording = lrp.simulate_recording(
        MODEL, num_neurons=num_neurons, num_trials=num_trials, num_bins=num_bins, noise_scale=0.1, seed=seed
    ).recording
    problem, structured = Problem.of(MODEL, recording), StructuredProblem.of(MODEL, recording)
    is_small = problem.space.size <= max_dense
    random = problem.best_noise(np.random.default_rng(seed).standard_normal(problem.space.size))
    starts = {"data": initialise(problem), "random": random}
    evaluate = objective_and_gradient(problem)
    structured.find_mode(starts["data"], max_iterations=300)  # compiles
    if is_small:
        find_mode(problem, starts["data"])
    traces = {}
    for start, z in starts.items():
        if is_small:
            traces[GAUSS_NEWTON, start] = by_steps(lambda report, z=z: find_mode(problem, z, report=report))
        traces[STRUCTURED, start] = by_steps(
            lambda report, z=z: structured.find_mode(z, max_iterations=300, report=report)
        )
        traces[LBFGS, start] = by_lbfgs(evaluate, z, max_iterations)
    lowest = min(objective for trace in traces.values() for _, objective in trace)
    rows = []
    for (name, start), trace in traces.items():
        reached = next((index for index, (_, value) in enumerate(trace) if value < lowest + CLOSE), None)
        rows.append(
            {
                "neurons": num_neurons,
                "coordinates": problem.space.size,
                "network": seed,
                "method": name,
                "start": start,
                # A report comes before its step, an evaluation counts itself.
                "steps": None if reached is None else reached + (name == LBFGS),
                "seconds": None if reached is None else trace[reached][0],
                "above": min((value for _, value in trace), default=np.inf) - lowest,
                "all seconds": trace[-1][0] if trace else None,
            }
        )
    return rows


def print_table(rows: list[dict]) -> None:
    print("neurons  start   method                    within 0.1 nats  steps  seconds  ratio of seconds  nats above")
    for num_neurons in dict.fromkeys(row["neurons"] for row in rows):
        for start in ("data", "random"):
            chosen = [row for row in rows if row["neurons"] == num_neurons and row["start"] == start]
            of_fit = GAUSS_NEWTON if chosen[0]["coordinates"] <= MAX_DENSE else STRUCTURED
            ours = {row["network"]: row["seconds"] for row in chosen if row["method"] == of_fit}
            for name in (GAUSS_NEWTON, STRUCTURED, LBFGS):
                of_method = [row for row in chosen if row["method"] == name]
                there = [row for row in of_method if row["steps"] is not None]
                if not of_method:
                    continue
                ratios = [row["seconds"] / ours[row["network"]] for row in there if ours[row["network"]]]
                steps, seconds = (
                    np.median([row[field] for row in there]) if there else np.nan for field in ("steps", "seconds")
                )
                above = max(row["above"] for row in of_method)
                print(
                    f"{num_neurons:7d}  {start:6s}  {name:24s} {len(there):9d} of {len(of_method)} {steps:8.0f} "
                    f"{seconds:8.2f} {np.median(ratios) if ratios else np.nan:17.1f} {above:11.1f}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--max-dense", type=int, default=900, help="coordinates up to which the dense form runs")
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="one small network; not stored")
    options = parser.parse_args()
    if options.tiny:
        print_table(run(10, 0, num_trials=4, num_bins=30, max_dense=900, max_iterations=300))
        return
    rows: list[dict] = []
    if not options.summary:
        for num_neurons in options.neurons:
            for seed in range(options.networks):
                rows += run(num_neurons, seed, 24, 70, options.max_dense, max_iterations=5000)
                print_table(rows)
                print(flush=True)
                store(NAME, rows=rows)
    stored = load(NAME)
    print(stored["machine"])
    print_table(stored["rows"])


if __name__ == "__main__":
    main()
