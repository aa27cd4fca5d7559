"""What an update with stimulation trials costs against a refit of all trials, and by how much the two differ.

    python benchmarks/update.py              run all and store the results
    python benchmarks/update.py --summary    print what is stored
    python benchmarks/update.py --tiny       a small network that is not stored

A network of rank 2 with a bulk of gain 0.3, 16 trials of 50 bins, then 4 trials in each of which a tenth of the neurons
is stimulated. The refit is that of the same settled model, `update.settled_model`, to all 20 trials. Differences are
those of 2,000 synapses: of means in posterior standard deviations, and of the standard deviations themselves.
"""

import argparse
import time

import numpy as np
import stored

import lrposterior as lrp

NAME = "update"
NUM_TRIALS, NUM_NEW, NUM_BINS, GAIN = 16, 4, 50, 0.3
MODELS = {
    "fixed scales": lrp.LowRankModel(
        rank=2, background=lrp.RandomBulk(gain=GAIN), priors=lrp.CorrelatedLoadings(K=1.0)
    ),
    "inferred scales": lrp.LowRankModel(rank=2),
}


def make_trials(num_neurons: int, num_trials: int, seed: int) -> tuple[lrp.Recording, lrp.Recording]:
    truth = lrp.LowRankModel(rank=2, background=lrp.RandomBulk(gain=GAIN))
    simulation = lrp.simulate_recording(
        truth, num_neurons=num_neurons, num_trials=num_trials, num_bins=NUM_BINS, noise_scale=0.1, seed=seed
    )
    random = np.random.default_rng(seed)
    stimulation = np.zeros((NUM_NEW, NUM_BINS, num_neurons))
    for trial in stimulation:
        trial[10:30, random.choice(num_neurons, max(2, num_neurons // 10), replace=False)] = 1.0
    inputs = np.zeros((NUM_NEW, NUM_BINS, simulation.recording.num_inputs))
    like = lrp.Recording(np.zeros(stimulation.shape), simulation.recording.dt, inputs, stimulation)
    return simulation.recording, truth.simulate(simulation.parameters, like, seed=seed + 1)


def compare(posterior: lrp.Posterior, trials: lrp.Recording) -> tuple[lrp.Posterior, lrp.Posterior, dict[str, float]]:
    """The updated and the refitted posterior, and the seconds of the processor that each took."""
    started = time.process_time()
    updated = lrp.update_posterior(posterior, trials, progress=False)
    between = time.process_time()
    refitted = lrp.fit(updated.settled_model, updated.recording, seed=0, progress=False)
    return updated, refitted, {"update": between - started, "refit": time.process_time() - between}


def run(num_neurons: int, kind: str, seed: int, num_trials: int = NUM_TRIALS) -> dict:
    recording, trials = make_trials(num_neurons, num_trials, seed)
    posterior = lrp.fit(MODELS[kind], recording, seed=0, progress=False)
    compare(posterior, trials)  # compiles
    updated, refitted, seconds = compare(posterior, trials)
    post, pre = np.random.default_rng(0).integers(num_neurons, size=(2, 2000))
    mean, sd = updated.connectivity_entries(post, pre)
    expected, expected_sd = refitted.connectivity_entries(post, pre)
    first, second = updated.statistics.log_evidence, refitted.statistics.log_evidence
    return {
        "neurons": num_neurons,
        "scales": kind,
        "seed": seed,
        "coordinates": updated.space.size,
        "patterns added": updated.statistics.diagnostics["patterns added"],
        "steps": [updated.statistics.num_iterations, refitted.statistics.num_iterations],
        "seconds": seconds,
        "mean": float(np.sqrt(np.mean(((mean - expected) / expected_sd) ** 2))),
        "sd": float(np.sqrt(np.mean((sd / expected_sd - 1.0) ** 2))),
        "evidence": None if first is None or second is None else float(first - second),
    }


def summarise(results: list[dict]) -> None:
    print("neurons  scales           coordinates  patterns added  steps: update, refit  seconds: update, refit", end="")
    print("  ratio  mean (sd)  sd (ratio)  evidence (nats)")
    for one in results:
        seconds = one["seconds"]
        evidence = "none" if one["evidence"] is None else f"{one['evidence']:.1e}"
        print(
            f"{one['neurons']:7d}  {one['scales']:16s} {one['coordinates']:11d} {one['patterns added']:15.0f} "
            f"{one['steps'][0]:13d} {one['steps'][1]:7d} {seconds['update']:15.1f} {seconds['refit']:7.1f} "
            f"{seconds['refit'] / seconds['update']:6.1f} {one['mean']:10.1e} {one['sd']:11.1e} {evidence:>16s}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="a small network that is not stored")
    options = parser.parse_args()
    if options.tiny:
        summarise([run(10, "fixed scales", 1, num_trials=6)])
        return
    if not options.summary:
        results = []
        for num_neurons in options.neurons:
            for kind in MODELS:
                for seed in range(1, options.seeds + 1):
                    results.append(run(num_neurons, kind, seed))
                    print(results[-1], flush=True)
        stored.store(NAME, results=results)
    summarise(stored.load(NAME)["results"])


if __name__ == "__main__":
    main()
