"""What one long trial with process noise costs: the time and the memory of what a fit to it is made of.

20 neurons of rank 2 (tanh, the covariance of the noise "full", one input of smooth noise, Gaussian noise on rates of
0.2) from the prior, in one trial of 1,000, 10,000 or 100,000 bins. For each length, in a process of its own and once
compiled: seconds of the processor for the log density, its gradient and the information at arbitrary parameters, then
for a whole fit, of up to 10,000 bins, with all that is compiled for it, and the peak memory of the process up to then,
of which that before the first (libraries and recording) is shown apart. Of the fit also how many of the 90% intervals
of W hold the truth, and their standard deviation.

    OPENBLAS_NUM_THREADS=1 NPROC=1 python benchmarks/long_recording.py
    python benchmarks/long_recording.py --summary
    python benchmarks/long_recording.py --tiny
"""

import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np
from scaling import peak_memory
from stored import load, store

import lrposterior as lrp
from lrposterior.inference.problem import Problem
from lrposterior.precision import double_precision

NAME = "long_recording"
NUM_NEURONS, RANK, NOISE, DT = 20, 2, 0.2, 0.02
Z90, LONGEST_FITTED = 1.645, 10_000
LENGTHS = (1_000, 10_000, 100_000)
QUANTITIES = {
    "density": Problem.negative_log_density,
    "gradient": Problem.gradient,
    "information": Problem.information,
}


@double_precision
def measure(num_bins: int) -> dict[str, float]:
    model = lrp.LowRankModel(RANK, process_noise="full", background=None, priors=lrp.Priors())
    simulated = lrp.simulate_recording(
        model,
        num_neurons=NUM_NEURONS,
        num_trials=1,
        num_bins=num_bins,
        num_inputs=1,
        dt=DT,
        noise_scale=NOISE,
        seed=1,
    )
    problem = Problem.of(model, simulated.recording)
    z = 0.3 * np.random.default_rng(0).standard_normal(problem.space.size)
    row = {"bins": num_bins, "coordinates": problem.space.size, "start GB": peak_memory()}
    for name, quantity in QUANTITIES.items():
        quantity(problem, z)
        started = time.process_time()
        quantity(problem, z)
        row |= {name: time.process_time() - started, f"{name} GB": peak_memory()}
    if num_bins > LONGEST_FITTED:
        return row
    started = time.process_time()
    posterior = lrp.fit(model, simulated.recording, seed=0, progress=False)
    spent = {"fit": time.process_time() - started, "fit GB": peak_memory()}
    W, sd = posterior.connectivity_mean(), posterior.connectivity_sd()
    held = np.abs(W - simulated.connectivity) < Z90 * sd
    return row | spent | {"cover": float(held.mean()), "sd": float(np.sqrt(np.mean(sd**2)))}


def run(lengths: tuple[int, ...]) -> list[dict]:
    environment = {"OPENBLAS_NUM_THREADS": "1", "NPROC": "1"} | os.environ
    rows = []
    for num_bins in lengths:
        command = [sys.executable, __file__, "--one", str(num_bins)]
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        rows.append(json.loads(finished.stdout))
    return rows


def print_table(rows: list[dict]) -> None:
    print("              seconds of the processor                                               peak GB")
    print("   bins    density   gradient information        fit", end="")
    print("      start    density   gradient information        fit  cover of W, sd")
    for row in rows:
        seconds = " ".join(f"{row.get(name, np.nan):10.2f}" for name in (*QUANTITIES, "fit"))
        memory = " ".join(f"{row.get(f'{name} GB', np.nan):10.2f}" for name in ("start", *QUANTITIES, "fit"))
        print(f"{row['bins']:7d} {seconds}  {memory}  {row.get('cover', np.nan):.2f} {row.get('sd', np.nan):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="one short recording; not stored")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    if options.tiny:
        print_table(run((1_000,)))
        return
    if not options.summary:
        store(NAME, rows=run(LENGTHS))
    stored = load(NAME)
    print(stored["machine"])
    print_table(stored["rows"])


if __name__ == "__main__":
    main()
