"""Fits of single trials of noisy circuits: do intervals hold, and how long does a fit take?

    python benchmarks/single_trials.py                  run all and store the results
    python benchmarks/single_trials.py --truth prior    networks from the prior alone
    python benchmarks/single_trials.py --summary        print what is stored
    python benchmarks/single_trials.py --tiny           one small network that is not stored

Truths: networks from the prior (rank 2, 40 neurons, 20 trials of 100 bins, process noise .05 in the latents of every
bin, observation noise .2); task-trained networks with known weights (`--truth osc_rnn` and so on; relu, 40 trials of
100 bins, process noise of a twentieth of each latent's standard deviation, observation noise .05), where the folder
LRPOSTERIOR_DATA or ../shared/data has them. Each is fitted with process noise, and without as a rollout.

Cover is that of 90% intervals: of the entries of W, and of the response of the currents to 20 random triples of
neurons, averaged over process noise, two bins after the onset of the stimulation and 50 bins after it.

`--truth speed`: 200 trials x 75 bins x 20 neurons, the size for which variational sequential Monte Carlo was published
with 2.6 s for each of 1,000 epochs on a CPU (Pals et al. 2024, arXiv:2406.16749).
"""

import argparse
import dataclasses
import os
import time
from pathlib import Path

import numpy as np
import stored

import lrposterior as lrp
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.responses import response_draws

NAME = "single_trials"
TEACHERS = ("osc_rnn", "osc_rnn_poisson", "rdm_rnn", "reach_rnn")
PUBLISHED_SECONDS = 2600.0
NUM_CANDIDATES, NUM_DRAWS, NUM_TRUE = 20, 300, 60
READ_AFTER = (2, 50)


def prior_truth(num_neurons: int, num_trials: int, num_bins: int, seed: int) -> tuple[lrp.LowRankModel, lrp.Simulation]:
    model = lrp.LowRankModel(rank=2, background=None, priors=lrp.Priors(K=2.5), process_noise="full")
    simulation = lrp.simulate_recording(
        model,
        num_neurons=num_neurons,
        num_trials=num_trials,
        num_bins=num_bins,
        noise_scale=0.2,
        process_noise=0.05**2 * np.array([[1.0, 0.3], [0.3, 0.5]]),
        seed=seed,
    )
    return model, simulation


def teacher_truth(name: str, seed: int) -> tuple[lrp.LowRankModel, lrp.Simulation]:
    """A trained network, as in tests/test_recovery.py, with noise in its latents."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("LRPOSTERIOR_DATA", default)) / "lowrank_teachers_smc_rnns.npz"
    with np.load(path) as file:
        M, K, b = (np.float64(file[f"{name}__{key}"]) for key in ("m", "n", "b_rec"))
    K, rank, num_neurons = K.T, M.shape[1], len(M)
    model = lrp.LowRankModel(
        rank=rank,
        nonlinearity="relu",
        background=None,
        priors=lrp.Priors(K=2.5, unit=1.0),
        process_noise="full",
    )
    random = np.random.default_rng(seed)
    inputs = random.standard_normal((40, 100, 8))
    for index in range(1, 100):
        inputs[:, index] = 0.9 * inputs[:, index - 1] + np.sqrt(1.0 - 0.9**2) * inputs[:, index]
    like = lrp.Recording(np.zeros((40, 100, num_neurons)), 0.01, inputs=inputs)
    B = random.standard_normal((num_neurons, 8))
    parameters = {"M": M, "K": K, "b": b, "B": B, "noise_scale": np.full(num_neurons, 0.05)}
    rollout = dataclasses.replace(model, process_noise=None).for_recording(like)
    quiet = rollout.simulated_currents(parameters, like, seed=0)
    kappa = np.linalg.lstsq(M, (quiet - quiet.mean(axis=(0, 1))).reshape(-1, num_neurons).T, rcond=None)[0]
    parameters["process_noise"] = np.diag((0.05 * kappa.std(axis=1)) ** 2)
    recording = model.simulate(parameters, like, seed=seed)
    return model, lrp.Simulation(recording, parameters, np.maximum(recording.activity, 0.0))


def response_cover(posterior: lrp.Posterior, truth: lrp.Simulation, true_model: lrp.LowRankModel) -> list[float]:
    """Of 90% intervals in the bins of READ_AFTER, over candidates and neurons."""
    recording, random = posterior.recording, np.random.default_rng(0)
    patterns = np.zeros((NUM_CANDIDATES, recording.num_neurons))
    for pattern in patterns:
        pattern[random.choice(recording.num_neurons, 3, replace=False)] = 1.0
    onset = recording.num_bins // 4
    candidates = lrp.pattern_candidates(
        recording, patterns, power=1.0, onset=onset * recording.dt, duration=5 * recording.dt
    )
    inputs = np.zeros((1, recording.num_bins, recording.num_inputs))
    experiment = make_experiment(posterior, candidates, inputs, None)
    draws = lrp.predict_responses(posterior, candidates, inputs=inputs, num_draws=NUM_DRAWS, seed=1)
    settled = true_model.with_noise_along(truth.parameters["M"]).for_recording(recording)
    repeated = {name: np.repeat(value[None], NUM_TRUE, axis=0) for name, value in truth.parameters.items()}
    true = response_draws(settled, repeated, experiment, "current").mean(axis=0)
    lower, upper = np.quantile(draws, [0.05, 0.95], axis=0)
    inside = (lower <= true) & (true <= upper)
    bins = [min(onset + after, recording.num_bins - 1) - experiment.start for after in READ_AFTER]
    return [float(inside[:, :, each].mean()) for each in bins]


def run(name: str, model: lrp.LowRankModel, truth: lrp.Simulation, seed: int) -> list[dict]:
    rows = []
    for kind, fitted in (("noisy", model), ("rollout", dataclasses.replace(model, process_noise=None))):
        started = time.process_time()
        row = {"truth": name, "seed": seed, "neurons": truth.recording.num_neurons, "fit": kind}
        try:
            posterior = lrp.fit(fitted, truth.recording, seed=0, progress=False)
        except lrp.FitError as failure:
            rows.append(row | {"refused": str(failure)})
            continue
        z = (truth.connectivity - posterior.connectivity_mean()) / posterior.connectivity_sd()
        correlation = np.corrcoef(truth.connectivity.ravel(), posterior.connectivity_mean().ravel())[0, 1]
        rows.append(
            row
            | {
                "seconds": time.process_time() - started,
                "cover": float(np.mean(np.abs(z) < 1.645)),
                "z": float(z.std()),
                "correlation": float(correlation),
                "responses": response_cover(posterior, truth, model),
            }
        )
    return rows


def run_speed() -> list[dict]:
    model, truth = prior_truth(20, 200, 75, seed=1)
    rows = []
    for kind, method in (("noisy", lrp.Laplace()), ("noisy, at the mode", lrp.Laplace(mean="mode"))):
        started = time.process_time()
        lrp.fit(model, truth.recording, method, seed=0, progress=False)
        seconds = time.process_time() - started
        rows.append({"truth": "speed", "seed": 1, "neurons": 20, "fit": kind, "seconds": seconds})
    return rows


def summarise(results: list[dict]) -> None:
    print("truth            seed  neurons  fit                 cover of W  sd of z  correlation", end="")
    print("  cover of responses: 2 bins, 50 bins   seconds")
    for row in results:
        start = f"{row['truth']:16s} {row['seed']:4d} {row['neurons']:8d}  {row['fit']:18s}"
        if "refused" in row:
            print(f"{start}  refused: {row['refused'][:80]}")
        elif row["truth"] == "speed":
            ratio = PUBLISHED_SECONDS / row["seconds"]
            print(f"{start}  {row['seconds']:.0f} s of the processor, {ratio:.0f} times less than published")
        else:
            first, last = row["responses"]
            print(
                f"{start} {row['cover']:11.2f} {row['z']:8.2f} {row['correlation']:12.2f} {first:28.2f} {last:8.2f} "
                f"{row['seconds']:9.0f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    truths = ["prior", *TEACHERS, "speed"]
    parser.add_argument("--truth", nargs="+", default=truths, choices=truths)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="one small network that is not stored")
    options = parser.parse_args()
    if options.tiny:
        summarise(run("prior", *prior_truth(10, 5, 40, seed=1), seed=1))
        return
    if not options.summary:
        results = []
        for name in options.truth:
            if name == "speed":
                results += run_speed()
            else:
                for seed in range(1, options.seeds + 1):
                    truth = prior_truth(40, 20, 100, seed) if name == "prior" else teacher_truth(name, seed)
                    results += run(name, *truth, seed=seed)
            summarise(results)
        before = stored.load(NAME)["results"] if stored.exists(NAME) else []
        kept = [row for row in before if row["truth"] not in options.truth]
        stored.store(NAME, results=kept + results)
    summarise(stored.load(NAME)["results"])


if __name__ == "__main__":
    main()
