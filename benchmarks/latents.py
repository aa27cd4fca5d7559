"""Smoothed latents of single trials against a particle smoother.

    python benchmarks/latents.py              run it and store the results
    python benchmarks/latents.py --summary    print what is stored
    python benchmarks/latents.py --tiny       one network with few particles, which is not stored

True networks of the prior (rank 2, tanh), two for each line, one trial of 25 bins: rates with Gaussian noise, and
counts of 40 spikes/s. The other smoother moves 3,000 particles by the equations of the model and draws 500 paths
backwards through them (Godsill, Doucet and West 2004, doi:10.1198/016214504000000151), four times. Errors of the mean
are in its standard deviations, root mean square over latents and the bins after the first, which is known; its own
error is in them, and shown apart.
"""

import argparse

import numpy as np
import stored
from particle_smoother import OBSERVATIONS, at_the_truth, smoothed_particles

import lrposterior as lrp

NAME = "latents"
NUM_NETWORKS = 2
NUM_PARTICLES, NUM_PATHS, NUM_RUNS = 3000, 500, 4
# Neurons, noise of the observations, process noise of a bin.
CASES = ((8, 0.3, 0.05), (8, 0.3, 0.1), (20, 0.2, 0.05), (20, 0.2, 0.1), (20, 0.3, 0.15), (40, 0.2, 0.05))


def compare(kind: str, num_neurons: int, noise: float, process: float, seed: int, num_particles: int) -> dict:
    posterior = at_the_truth(kind, num_neurons, noise, process, seed)
    random = np.random.default_rng(seed)
    runs = np.stack([smoothed_particles(posterior, num_particles, NUM_PATHS, random) for _ in range(NUM_RUNS)])[
        :, :, 1:
    ]
    means, sd = runs.mean(axis=1), runs.std(axis=(0, 1))
    found = lrp.infer_latents(posterior)
    ratio = found.sd[0, 1:] / sd
    return {
        "activity": kind,
        "neurons": num_neurons,
        "noise": noise,
        "process": process,
        "seed": seed,
        "mean": float(np.sqrt(np.mean(((found.mean[0, 1:] - means.mean(axis=0)) / sd) ** 2))),
        "reference": float(np.sqrt(np.mean(means.var(axis=0, ddof=1) / NUM_RUNS / sd**2))),
        "sd": [float(ratio.min()), float(ratio.max())],
    }


def summarise(results: list[dict]) -> None:
    print("activity neurons  noise  process noise  seed  error of the mean (of the reference)  ratio of sd")
    for row in results:
        print(
            f"{row['activity']:8s} {row['neurons']:7d} {row['noise']:6.2f} {row['process']:14.2f} {row['seed']:5d}",
            end="",
        )
        print(f"  {row['mean']:.2f} ({row['reference']:.2f})  {row['sd'][0]:.2f} to {row['sd'][1]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="one network with few particles, which is not stored")
    options = parser.parse_args()
    if options.summary:
        summarise(stored.load(NAME)["results"])
        return
    if options.tiny:
        summarise([compare(kind, *CASES[0], 1, 100) for kind in OBSERVATIONS])
        return
    results = [
        compare(kind, *case, seed, NUM_PARTICLES)
        for kind in OBSERVATIONS
        for case in CASES
        for seed in range(1, NUM_NETWORKS + 1)
    ]
    summarise(results)
    stored.store(NAME, results=results)


if __name__ == "__main__":
    main()
