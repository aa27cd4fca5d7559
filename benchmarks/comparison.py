"""How often `compare_posteriors` finds a change where there is none, and where one was planted.

    python benchmarks/comparison.py              run all and store the results
    python benchmarks/comparison.py --summary    print what is stored
    python benchmarks/comparison.py --tiny       one network of each kind that is not stored

Networks of 16 neurons and rank 2, two recordings of 12 trials of 40 bins each. W of the second is the same, or has a
change u v^T more, u at random and v the second principal direction of the rates.
"""

import argparse

import numpy as np
import stored

import lrposterior as lrp

NAME = "comparison"
NUM_NEURONS, NUM_TRIALS, NUM_BINS, LEVEL = 16, 12, 40, 0.05
SIZES = (0.0, 0.3, 0.6)
MODELS = {
    "low rank": lrp.LowRankModel(rank=2, background=None, priors=lrp.Priors()),
    "with bulk": lrp.LowRankModel(rank=2, background=lrp.RandomBulk(gain=0.3), priors=lrp.CorrelatedLoadings(K=1.0)),
}


def run(kind: str, size: float, seed: int) -> dict | None:
    model = MODELS[kind]
    simulation = lrp.simulate_recording(
        model, num_neurons=NUM_NEURONS, num_trials=2 * NUM_TRIALS, num_bins=NUM_BINS, noise_scale=0.1, seed=seed
    )
    parts = [simulation.recording.select(trials=slice(start, start + NUM_TRIALS)) for start in (0, NUM_TRIALS)]
    write = np.random.default_rng(seed).standard_normal(NUM_NEURONS)
    write /= np.linalg.norm(write)
    read = np.linalg.svd(simulation.rates.reshape(-1, NUM_NEURONS), full_matrices=False)[2][1]
    parameters = dict(simulation.parameters)
    W0 = parameters.pop("W0", np.zeros((NUM_NEURONS, NUM_NEURONS)))
    truth = lrp.LowRankModel(rank=2, background=lrp.FixedBackground(W0 + size * np.outer(write, read)))
    second = truth.simulate(parameters, parts[1], seed=seed + 1_000_000)
    try:
        posteriors = [lrp.fit(model, each, seed=0, progress=False) for each in (parts[0], second)]
    except lrp.FitError as failure:
        print(f"{kind}, change {size}, network {seed}: {failure}", flush=True)
        return None
    found = lrp.compare_posteriors(*posteriors, level=LEVEL, seed=0)
    return {
        "model": kind,
        "size": size,
        "seed": seed,
        "anything": found.p_value < LEVEL,
        "direction": bool(found.directions.p[0] < LEVEL),
        "entries": float(found.differs.mean()),
        "neurons": float(np.mean(found.incoming_p < LEVEL)),
        "write": float(abs(found.directions.write[:, 0] @ write)),
        "read": float(abs(found.directions.read[:, 0] @ read)),
        "told": [found.read_patterns.shape[1], found.num_visited],
    }


def summarise(results: list[dict]) -> None:
    print("model      change  networks  anything  direction  entries  neurons  |u.u'|  |v.v'|  patterns told, of")
    for kind in MODELS:
        for size in SIZES:
            some = [one for one in results if (one["model"], one["size"]) == (kind, size)]
            if not some:
                continue
            rates = [np.mean([one[name] for one in some]) for name in ("anything", "direction", "entries", "neurons")]
            aligned = [np.median([one[name] for one in some]) for name in ("write", "read")]
            told, visited = np.mean([one["told"] for one in some], axis=0)
            print(
                f"{kind:10s} {size:6.1f} {len(some):9d} {rates[0]:9.2f} {rates[1]:10.2f} {rates[2]:8.3f} "
                f"{rates[3]:8.3f} {aligned[0]:7.2f} {aligned[1]:7.2f} {told:10.1f} {visited:7.1f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="one network of each kind that is not stored")
    options = parser.parse_args()
    if options.summary:
        summarise(stored.load(NAME)["results"])
        return
    number = 1 if options.tiny else options.networks
    sizes = SIZES[-1:] if options.tiny else SIZES
    runs = [run(kind, size, seed) for kind in MODELS for size in sizes for seed in range(number)]
    results = [one for one in runs if one is not None]
    if not options.tiny:
        stored.store(NAME, results=results)
    summarise(results)


if __name__ == "__main__":
    main()
