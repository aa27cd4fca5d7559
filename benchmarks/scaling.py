"""Time and memory of a fit, and of what is asked of its posterior, against the number of neurons.

    OPENBLAS_NUM_THREADS=1 python benchmarks/scaling.py --sizes 1000 3000 10000 --figure scaling.png
    OPENBLAS_NUM_THREADS=1 python benchmarks/scaling.py --sizes 1000 3000 10000 --model defaults
    python benchmarks/scaling.py --tiny

Every size runs in a process of its own, through the functions that a user calls: `fit` (rank 2, 24 trials of 70 bins,
two inputs, activity = rate + noise of 0.1), draws of the parameters, single entries of W, certainties of perturbations
of ten neurons (one condition, read in five bins), and saving. The network is that of the perturbation benchmark, with a
cue in a direction of its own in every trial. Seconds are those of the clock; "fit cpu" are those of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import lrposterior as lrp

DT, TIME_CONSTANT, NOISE = 0.02, 0.1, 0.1
STEPS = ("fit", "fit cpu", "draw", "entry", "candidate", "save")
MODELS = {
    "independent": {"priors": lrp.Priors(), "background": None},
    "correlated": {"priors": lrp.CorrelatedLoadings(), "background": None},
    "defaults": {},
}


def make_recording(num_neurons: int, num_trials: int, num_bins: int) -> lrp.Recording:
    random = np.random.default_rng(num_neurons)
    M = 1.3 * random.standard_normal((num_neurons, 2))
    angle, inputs = 2 * np.pi * np.arange(num_trials) / num_trials, np.zeros((num_trials, num_bins, 2))
    inputs[:, 3:13] = np.stack([np.cos(angle), np.sin(angle)], axis=1)[:, None]
    truth = {
        "M": M,
        "K": M * [1.25, 1.0] + 0.9 * random.standard_normal((num_neurons, 2)),
        "B": 0.5 * M + 0.7 * random.standard_normal((num_neurons, 2)),
        "b": np.zeros(num_neurons),
        "noise_scale": np.full(num_neurons, NOISE),
    }
    trials = lrp.Recording(np.zeros((num_trials, num_bins, num_neurons)), DT, inputs=inputs)
    model = lrp.LowRankModel(rank=2, time_constant=TIME_CONSTANT, background=None, priors=lrp.Priors())
    return model.simulate(truth, trials, seed=num_neurons)


def measure(num_neurons: int, fitted: str, num_trials: int, num_bins: int, num_candidates: int) -> dict[str, float]:
    """Seconds of every step, peak memory in GB, and what was reached."""
    recording = make_recording(num_neurons, num_trials, num_bins)
    row: dict[str, float] = {"neurons": num_neurons, "input GB": peak_memory()}
    model = lrp.LowRankModel(rank=2, time_constant=TIME_CONSTANT, **MODELS[fitted])
    clock, cpu = time.perf_counter(), time.process_time()
    posterior = lrp.fit(model, recording, seed=0, progress=False)
    row["fit"], row["fit cpu"] = time.perf_counter() - clock, time.process_time() - cpu
    row["decrement"], row["gradient"] = posterior.statistics.decrement, posterior.statistics.gradient_norm
    row["objective"] = posterior.statistics.objective

    def timed(name: str, count: int, step) -> None:
        start = time.perf_counter()
        step()
        row[name] = (time.perf_counter() - start) / count

    timed("draw", 32, lambda: posterior.sample_parameters(32, seed=0))
    post, pre = np.random.default_rng(0).integers(0, num_neurons, (2, 1000))
    timed("entry", 1000, lambda: posterior.connectivity_entries(post, pre))
    candidates = lrp.ensemble_candidates(recording, num_candidates=num_candidates, size=10, seed=1)
    inputs = recording.inputs[:1]
    timed("candidate", num_candidates, lambda: lrp.predict_certainty(posterior, candidates, inputs=inputs))
    with tempfile.TemporaryDirectory() as folder:
        timed("save", 1, lambda: posterior.save(Path(folder) / "fit.nc"))
    row["peak GB"] = peak_memory()
    return row


def peak_memory() -> float:
    """GB, of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def print_table(rows: list[dict[str, float]]) -> None:
    names = [*STEPS, "input GB", "peak GB", "decrement", "gradient"]
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
    for name in ("fit", "fit cpu", "candidate", "draw"):
        left.loglog(sizes, [row[name] for row in rows], "o-", label=name)
    left.set(xlabel="neurons", ylabel="time (s)")
    left.legend(frameon=False)
    right.loglog(sizes, [row["peak GB"] for row in rows], "o-", color="black")
    right.set(xlabel="neurons", ylabel="peak memory (GB)")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument("--model", choices=tuple(MODELS), default="independent")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes, for a test")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    num_trials, num_bins = (6, 30) if options.tiny else (24, 70)
    if options.one:
        print(json.dumps(measure(options.one, options.model, num_trials, num_bins, options.candidates)))
        return
    rows = []
    for size in [120, 200] if options.tiny else options.sizes:
        command = [sys.executable, __file__, "--one", str(size), "--model", options.model]
        command += ["--candidates", str(options.candidates)] + ["--tiny"] * options.tiny
        environment = {"OPENBLAS_NUM_THREADS": "1"} | os.environ
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        rows.append(json.loads(finished.stdout))
        print_table(rows)
    if options.figure:
        draw_figure(rows, options.figure)


if __name__ == "__main__":
    main()
