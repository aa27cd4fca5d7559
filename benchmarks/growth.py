"""How the time of a fit and its memory grow with the recording: neurons, rank, trials and bins, one at a time.

From a base (200 neurons, rank 2, 24 trials of 70 bins, two inputs of smooth noise) every size is changed on its own. M
and K are those of benchmarks/perturbation.py, continued to other ranks, the rest is drawn from the prior (tanh, noise
0.1, bins of 20 ms); fitted with the true rank by Laplace, the default of `fit`.
Every fit runs in a process of its own, and once more in the same process: seconds are those of the processor for the
second fit, so that compilation is not counted. Beside them: Gauss-Newton and quasi-Newton steps to the mode, the
exponent of the growth (the slope of log seconds in log size, over all sizes and over the last two), and peak memory of
the process, of which its start (libraries and recording) is shown apart.

The table of memory compares what the fit adds with what others would need at least: two dense matrices of curvature
(8 bytes times P² each, P the number of coordinates: the matrix and its factor), and one N x N array.

Results are stored after every size, and a second call goes on where the first one ended.

    OPENBLAS_NUM_THREADS=1 NPROC=1 python benchmarks/growth.py
    python benchmarks/growth.py --summary --figure docs/images/growth.png
    python benchmarks/growth.py --tiny
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FixedLocator, NullFormatter
from scaling import peak_memory
from stored import exists, load, store

import lrposterior as lrp
from lrposterior.plots.style import PALETTE, save_figure, styled

NAME = "growth"
BASE = {"neurons": 200, "rank": 2, "trials": 24, "bins": 70}
SIZES = {
    "neurons": (200, 400, 800, 1600),
    "rank": (1, 2, 3, 4),
    "trials": (12, 24, 48, 96),
    "bins": (35, 70, 140, 280),
}
TINY_BASE = {"neurons": 120, "rank": 1, "trials": 4, "bins": 20}
TINY_SIZES = {"neurons": (120, 160)}
TIME_CONSTANT, NOISE, NUM_INPUTS = 0.1, 0.1, 2


def measure(size: dict[str, int]) -> dict[str, float]:
    model = lrp.LowRankModel(size["rank"], TIME_CONSTANT, priors=lrp.Priors(unit=1.0), background=None)
    random = np.random.default_rng(1)
    M = 1.3 * random.standard_normal((size["neurons"], size["rank"]))
    recording = lrp.simulate_recording(
        model,
        M=M,
        K=M * np.linspace(1.25, 1.0, size["rank"]) + 0.9 * random.standard_normal(M.shape),
        num_trials=size["trials"],
        num_bins=size["bins"],
        num_inputs=NUM_INPUTS,
        noise_scale=NOISE,
        seed=1,
    ).recording
    start = peak_memory()
    lrp.fit(model, recording, seed=0, progress=False)
    cpu = time.process_time()
    posterior = lrp.fit(model, recording, seed=0, progress=False)
    return {
        **size,
        "seconds": time.process_time() - cpu,
        "steps": posterior.statistics.num_iterations,
        "coordinates": posterior.mode_coordinates.size,
        "start GB": start,
        "peak GB": peak_memory(),
    }


def slope(rows: list[dict], name: str) -> float:
    """Of log seconds in log size."""
    return float(np.polyfit(np.log([row[name] for row in rows]), np.log([row["seconds"] for row in rows]), 1)[0])


def print_tables(results: dict[str, list[dict]]) -> None:
    print("changed      size  steps  seconds  ratio to base  peak GB  of which start   exponent: all, last two")
    for name, rows in results.items():
        base = next(row["seconds"] for row in rows if row[name] in (BASE[name], TINY_BASE[name]))
        for row in rows:
            last = row is rows[-1] and len(rows) > 1
            exponents = f"{slope(rows, name):8.2f}, {slope(rows[-2:], name):.2f}" if last else ""
            print(
                f"{name:8s} {row[name]:8d} {row['steps']:6d} {row['seconds']:8.2f} {row['seconds'] / base:14.2f} "
                f"{row['peak GB']:8.2f} {row['start GB']:15.2f}   {exponents}"
            )
    print("\nneurons  coordinates  added by the fit (GB)  two dense curvatures (GB)  one N x N array (GB)")
    for row in results.get("neurons", ()):
        added = row["peak GB"] - row["start GB"]
        dense, square = 16.0 * row["coordinates"] ** 2 / 1e9, 8.0 * row["neurons"] ** 2 / 1e9
        print(f"{row['neurons']:7d} {row['coordinates']:12d} {added:22.2f} {dense:26.3f} {square:21.4f}")


@styled
def plot(results: dict[str, list[dict]]) -> plt.Figure:
    """Seconds against every size in units of the base, and memory against neurons."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.0))
    for color, (name, rows) in zip(PALETTE, results.items(), strict=False):
        label = f"{name} (base {BASE[name]})"
        left.loglog(
            [row[name] / BASE[name] for row in rows], [row["seconds"] for row in rows], "o-", color=color, label=label
        )
    left.set(xlabel="size / base", ylabel="CPU time of a fit (s)")
    left.legend(frameon=False)
    rows = results["neurons"]
    neurons = np.array([row["neurons"] for row in rows])
    coordinates = np.array([row["coordinates"] for row in rows])
    right.loglog(neurons, [row["peak GB"] - row["start GB"] for row in rows], "o-", color=PALETTE[0], label="the fit")
    right.loglog(neurons, 16.0 * coordinates**2 / 1e9, "--", color=PALETTE[1], label="two dense curvatures")
    right.loglog(neurons, 8.0 * neurons**2 / 1e9, ":", color=PALETTE[2], label="one N x N array")
    right.set(xlabel="neurons", ylabel="memory (GB)")
    right.legend(frameon=False)
    for axis, ticks in ((left.xaxis, [0.5, 1, 2, 4, 8]), (left.yaxis, [2, 5, 10, 20, 40]), (right.xaxis, neurons)):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    return figure


def run(base: dict[str, int], sizes: dict[str, tuple[int, ...]], done: list[dict], keep: Callable) -> None:
    """Measure the sizes that are not done; `keep` is called after every one."""
    environment = {"OPENBLAS_NUM_THREADS": "1", "NPROC": "1"} | os.environ
    for name, values in sizes.items():
        for value in values:
            size = base | {name: value}
            if any(size.items() <= row.items() for row in done):
                continue
            command = [sys.executable, __file__, "--one", json.dumps(size)]
            finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            done.append(json.loads(finished.stdout))
            print(f"{name} {value}: {done[-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
            keep(done)


def by_size(base: dict[str, int], done: list[dict]) -> dict[str, list[dict]]:
    """What was measured, by what was changed, in the order of its size."""
    found = {}
    for name in base:
        others = {other: value for other, value in base.items() if other != name}
        rows = sorted((row for row in done if others.items() <= row.items()), key=lambda row: row[name])
        if len(rows) > 1:
            found[name] = rows
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--change", nargs="+", choices=tuple(SIZES), default=tuple(SIZES), help="what to change")
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--figure", type=Path, help="draw what is stored")
    parser.add_argument("--tiny", action="store_true", help="two sizes of one kind; not stored")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    if options.tiny:
        done: list[dict] = []
        run(TINY_BASE, TINY_SIZES, done, keep=lambda rows: None)
        print_tables(by_size(TINY_BASE, done))
        return
    if not options.summary and not options.figure:
        done = load(NAME)["rows"] if exists(NAME) else []
        wanted = {name: SIZES[name] for name in options.change}
        run(BASE, wanted, done, keep=lambda rows: store(NAME, rows=rows))
    stored = load(NAME)
    print(stored["machine"])
    results = by_size(BASE, stored["rows"])
    print_tables(results)
    if options.figure:
        save_figure(plot(results), options.figure)


if __name__ == "__main__":
    main()
