"""Time and memory of the structured engine against the number of neurons.

    OPENBLAS_NUM_THREADS=1 python benchmarks/scaling.py --sizes 1000 3000 10000 30000 100000 --figure scaling.png
    python benchmarks/scaling.py --tiny

Every size runs in a process of its own: 24 trials of 70 bins, two latents, two inputs, activity = rate + noise of 0.1.
`--network teacher` is the network of the perturbation benchmark with a cue in a direction of its own in every trial;
`prior` draws everything from the default priors, with smooth random inputs, which drives many neurons to saturation.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import lrposterior as lrp
from lrposterior.observations import GaussianObservation
from lrposterior.structured.coarse import find_refined_start
from lrposterior.structured.entries import entry_variances
from lrposterior.structured.layout import Layout
from lrposterior.structured.mode import balance, descend
from lrposterior.structured.responses import response_moments
from lrposterior.structured.system import PriorScales, System, filtered
from lrposterior.structured.trajectory import run_latents

DT, TIME_CONSTANT, NOISE = 0.02, 0.1, 0.1
STEPS = ("start", "mode", "balance", "draw", "entry", "candidate")


def make_system(
    num_neurons: int, network: str, num_trials: int, num_bins: int
) -> tuple[System, PriorScales, np.ndarray]:
    """A recording as the engine takes it, built neuron by neuron: nothing but the activity is large."""
    random = np.random.default_rng(num_neurons)
    layout = Layout(num_neurons, rank=2, num_seen=0, num_inputs=2)
    priors, a = lrp.Priors(), DT / TIME_CONSTANT
    if network == "teacher":
        M = 1.3 * random.standard_normal((num_neurons, 2))
        K = M * [1.25, 1.0] + 0.9 * random.standard_normal((num_neurons, 2))
        B = 0.5 * M + 0.7 * random.standard_normal((num_neurons, 2))
        b = np.zeros(num_neurons)
        angle, inputs = 2 * np.pi * np.arange(num_trials) / num_trials, np.zeros((num_trials, num_bins, 2))
        inputs[:, 3:13] = np.stack([np.cos(angle), np.sin(angle)], axis=1)[:, None]
    else:
        M, K, B = (sd * random.standard_normal((num_neurons, 2)) for sd in (priors.M, priors.K, priors.B))
        b, inputs = priors.b * random.standard_normal(num_neurons), random.standard_normal((num_trials, num_bins, 2))
        for bin_ in range(1, num_bins):
            inputs[:, bin_] = np.exp(-0.1) * inputs[:, bin_ - 1] + np.sqrt(1 - np.exp(-0.2)) * inputs[:, bin_]
    ones = np.tile(filtered(np.ones((1, num_bins, 1)), a), (num_trials, 1, 1))
    features = np.concatenate([filtered(inputs, a), ones], axis=2).reshape(num_trials * num_bins, -1)
    system = System(
        layout=layout,
        activity=np.empty((num_neurons, num_trials * num_bins), np.float32),
        mask=None,
        known=None,
        features=features,
        num_trials=num_trials,
        num_bins=num_bins,
        integration_constant=a,
        nonlinearity="tanh",
        observation=GaussianObservation(),
        seen_right=np.zeros((num_neurons, 0)),
        noise_median=float(np.log(priors.noise_scale)),
        noise_spread=priors.noise_spread,
        smallest_noise=1e-6,
    )
    truth = layout.join(np.concatenate([M, B, b[:, None], K], axis=1))
    latents, loadings = lrp.precision.double_precision(run_latents)(system, truth), layout.loadings(truth)
    for chunk in system.chunks():
        rates = np.tanh(loadings[chunk] @ latents.T)
        system.activity[chunk] = rates + NOISE * random.standard_normal(rates.shape, dtype=np.float32)
    return system, PriorScales(priors.M, priors.K, priors.B, priors.b), inputs


def measure(num_neurons: int, network: str, num_trials: int, num_bins: int, num_candidates: int) -> dict[str, float]:
    """Seconds of every step, peak memory in GB, and what was reached."""
    system, scales, inputs = make_system(num_neurons, network, num_trials, num_bins)
    deviations, row = scales.deviations(system.layout), {"neurons": num_neurons, "input GB": peak_memory()}
    clock = [time.perf_counter(), time.process_time()]

    def lap(name: str, count: int = 1) -> None:
        now = time.perf_counter(), time.process_time()
        row[name], row[f"{name} cpu"] = (now[0] - clock[0]) / count, (now[1] - clock[1]) / count
        clock[:] = time.perf_counter(), time.process_time()

    def report(phase: str, iteration: int, objective: float, decrement: float) -> None:
        print(
            f"  {phase} {iteration}: {objective:.4f} {decrement:.3g} {time.perf_counter() - clock[0]:.0f} s",
            file=sys.stderr,
        )

    start = find_refined_start(system, deviations, report=report)
    lap("start")
    vector, row["objective"], row["decrement"], row["steps"] = descend(system, deviations, start, report=report)
    lap("mode")
    mode, posterior = balance(system, deviations, vector, report=report)
    lap("balance")
    row |= {"gradient": mode.gradient_norm, "rank": posterior.values.size, "log det": posterior.log_determinant}
    posterior.sample(32, seed=0)
    lap("draw", 32)
    pairs = np.random.default_rng(0).integers(0, num_neurons, (2, 1000))
    row["sd of W N"] = float(np.median(np.sqrt(entry_variances(system, mode.vector, posterior, *pairs)))) * num_neurons
    lap("entry", 1000)
    course = np.zeros(num_bins)
    onset = num_bins // 2
    course[onset : onset + 5] = 1.0
    patterns = np.zeros((num_candidates, num_neurons))
    for pattern in patterns:
        pattern[np.random.default_rng(1).choice(num_neurons, 10, replace=False)] = 1.0
    bins = onset + np.linspace(2, num_bins - onset - 1, 5).astype(int)
    moments = response_moments(
        system, mode.vector, posterior, inputs=inputs[:1], patterns=patterns, time_course=course, bins=bins
    )
    lap("candidate", num_candidates)
    row["certainty"] = float(np.mean(moments.expected_r_squared))
    row["peak GB"] = peak_memory()
    return row


def peak_memory() -> float:
    """GB, of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def print_table(rows: list[dict[str, float]]) -> None:
    names = [*STEPS, "fit", "fit cpu", "peak GB", "rank", "steps", "decrement", "gradient"]
    print("neurons  " + "".join(f"{name:>11}" for name in names))
    for row in rows:
        print(f"{row['neurons']:>7}  " + "".join(f"{row[name]:>11.3g}" for name in names))
    if len(rows) > 1:
        sizes = np.log([row["neurons"] for row in rows])
        for name in ("fit", "fit cpu"):
            slope = np.polyfit(sizes, np.log([row[name] for row in rows]), 1)[0]
            print(f"exponent of the growth of '{name}' in the number of neurons: {slope:.2f}")


def draw_figure(rows: list[dict[str, float]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    sizes = [row["neurons"] for row in rows]
    for name in ("start", "mode", "balance", "fit", "candidate", "draw"):
        left.loglog(sizes, [row[name] for row in rows], "o-", label=name)
    left.set(xlabel="neurons", ylabel="time (s)")
    left.legend(frameon=False)
    right.loglog(sizes, [row["peak GB"] for row in rows], "o-", color="black")
    right.set(xlabel="neurons", ylabel="peak memory (GB)")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument("--network", choices=("teacher", "prior"), default="teacher")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes, for a test")
    parser.add_argument("--candidates", type=int, default=32)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    num_trials, num_bins = (6, 30) if options.tiny else (24, 70)
    if options.one:
        print(json.dumps(measure(options.one, options.network, num_trials, num_bins, options.candidates)))
        return
    rows = []
    for size in [30, 60] if options.tiny else options.sizes:
        command = [sys.executable, __file__, "--one", str(size), "--network", options.network]
        command += ["--candidates", str(options.candidates)] + ["--tiny"] * options.tiny
        environment = {"OPENBLAS_NUM_THREADS": "1"} | os.environ
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        row = json.loads(finished.stdout)
        row["fit"] = sum(row[step] for step in ("start", "mode", "balance"))
        row["fit cpu"] = sum(row[f"{step} cpu"] for step in ("start", "mode", "balance"))
        rows.append(row)
        print_table(rows)
    if options.figure:
        draw_figure(rows, options.figure)


if __name__ == "__main__":
    main()
