"""Fits of single trials of noisy circuits: do intervals hold, and how long does a fit take?

    python benchmarks/single_trials.py                  run all that is not stored yet, and store it
    python benchmarks/single_trials.py --truth prior    networks from the prior alone
    python benchmarks/single_trials.py --summary        print what is stored
    python benchmarks/single_trials.py --tiny           one small network that is not stored

Truths: networks from the prior (rank 2, 40 neurons, 20 trials of 100 bins, process noise .05 in the latents of every
bin, observation noise .2); task-trained networks with known weights (`--truth osc_rnn` and so on; relu, 40 trials of
100 bins, process noise of a twentieth of each latent's standard deviation, Gaussian observation noise .05), where the
folder LRPOSTERIOR_DATA or ../shared/data has them. Each is fitted with process noise, and without as a rollout. Results
are stored after every network, and a second call goes on where the first one ended.

Cover is that of 90% intervals: of the entries of W, of those of which the data remove half of the prior variance and
nine tenths of it (`Degeneracy.contraction`), and of the response of the currents to 20 random triples of neurons,
averaged over process noise, one and 50 bins after the stimulation has first moved a current. What is 0 in the truth and
in all draws is not counted. Entries and responses of one network depend on each other: their errors are z-scores, with
their root mean square within a network, and summaries are means over networks with standard errors.

`--truth speed`: 200 trials x 75 bins x 20 neurons, the size for which variational sequential Monte Carlo was published
with 2.6 s for each of 1,000 epochs on a CPU, and 9 s for each of 2,000 with Poisson counts (Pals et al. 2024,
arXiv:2406.16749).
"""

import argparse
import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import averaged_responses
import jax
import numpy as np
import stored

import lrposterior as lrp
from lrposterior.perturbation.experiment import make_experiment

NAME = "single_trials"
TEACHERS = ("osc_rnn", "osc_rnn_poisson", "rdm_rnn", "reach_rnn")
PUBLISHED_SECONDS = {"Gaussian": 2600.0, "Poisson": 18000.0}
SPEED = {
    "Gaussian, at the mode": (lrp.GaussianObservation(), lrp.Laplace(mean="mode")),
    "Poisson, at the mode": (lrp.PoissonObservation(scale=20.0), lrp.Laplace(mean="mode")),
    "Gaussian": (lrp.GaussianObservation(), lrp.Laplace()),
    "Poisson": (lrp.PoissonObservation(scale=20.0), lrp.Laplace()),
}
NUM_CANDIDATES, NUM_DRAWS, NUM_TRUE, NUM_REPEATS = 20, 300, 60, 8
Z90 = 1.645
# Shares of the prior variance that the data remove of an entry of W that counts.
CONTRACTIONS = {"all": 0.0, "half": 0.5, "nine tenths": 0.9}
# A stimulation moves the currents of its own neurons a bin after its onset, and those of others a bin later.
FIRST_MOVED, READ_AFTER = 1, (1, 50)


def prior_model(**options: Any) -> lrp.LowRankModel:
    return lrp.LowRankModel(rank=2, background=None, priors=lrp.Priors(K=2.5), process_noise="full", **options)


def prior_truth(model: lrp.LowRankModel, num_neurons: int, num_trials: int, num_bins: int, seed: int) -> lrp.Simulation:
    return lrp.simulate_recording(
        model,
        num_neurons=num_neurons,
        num_trials=num_trials,
        num_bins=num_bins,
        noise_scale=0.2,
        process_noise=0.05**2 * np.array([[1.0, 0.3], [0.3, 0.5]]),
        seed=seed,
    )


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
    settled = model.with_noise_along(M).for_recording(like)
    recording = settled.simulate(parameters, like, seed=seed)
    rates = np.maximum(settled.simulated_currents(parameters, like, seed=seed), 0.0)
    return model, lrp.Simulation(recording, parameters, rates, model)


def truth_of(name: str, seed: int) -> tuple[lrp.LowRankModel, lrp.Simulation]:
    """The model to fit, and a network and its recording."""
    if name != "prior":
        return teacher_truth(name, seed)
    model = prior_model()
    return model, prior_truth(model, 40, 20, 100, seed)


def cover_of(z: np.ndarray) -> dict:
    """How many z-scores are within their 90% interval, how large they are, and how many there are."""
    return {"cover": float(np.mean(np.abs(z) < Z90)), "z": float(np.sqrt(np.mean(z**2))), "number": z.size}


def connectivity_cover(posterior: lrp.Posterior, W: np.ndarray) -> dict[str, dict]:
    """By the share of the prior variance that the data remove."""
    z = (W - posterior.connectivity_mean()) / posterior.connectivity_sd()
    contraction = lrp.analyze_degeneracy(posterior).contraction
    return {
        name: cover_of(z[contraction >= least] if least else z.ravel())
        for name, least in CONTRACTIONS.items()
        if not least or np.any(contraction >= least)
    }


def response_cover(posterior: lrp.Posterior, truth: lrp.Simulation, true_model: lrp.LowRankModel) -> list[dict]:
    """In the bins of READ_AFTER, over candidates and neurons."""
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
    draws = averaged_responses.of_posterior(posterior, experiment, NUM_DRAWS, NUM_REPEATS)
    true = averaged_responses.of_truth(true_model, truth, recording, experiment, NUM_TRUE)
    found = []
    for after in READ_AFTER:
        last = min(onset + FIRST_MOVED + after, recording.num_bins - 1) - experiment.start
        of_draws, of_truth = draws[:, :, 0, last], true[:, 0, last]
        counted = (of_truth != 0.0) | np.any(of_draws != 0.0, axis=0)
        lower, upper = np.quantile(of_draws, [0.05, 0.95], axis=0)
        inside = (lower <= of_truth) & (of_truth <= upper)
        z = ((of_truth - of_draws.mean(axis=0)) / of_draws.std(axis=0))[counted]
        found.append(cover_of(z) | {"cover": float(inside[counted].mean())})
    return found


def run(name: str, model: lrp.LowRankModel, truth: lrp.Simulation, seed: int, kind: str) -> dict:
    """One fit, with process noise or as a rollout."""
    fitted = {"noisy": model, "rollout": dataclasses.replace(model, process_noise=None)}[kind]
    row = {"truth": name, "seed": seed, "neurons": truth.recording.num_neurons, "fit": kind}
    started = time.process_time()
    try:
        posterior = lrp.fit(fitted, truth.recording, seed=0, progress=False)
    except lrp.FitError as failure:
        return row | {"refused": str(failure)}
    seconds = time.process_time() - started
    correlation = np.corrcoef(truth.connectivity.ravel(), posterior.connectivity_mean().ravel())[0, 1]
    return row | {
        "status": posterior.status,
        "seconds": seconds,
        "correlation": float(correlation),
        "connectivity": connectivity_cover(posterior, truth.connectivity),
        "responses": response_cover(posterior, truth, model),
    }


def run_speed(kind: str, seed: int) -> dict:
    """The time of one fit by the clock, compilation included: nothing else should run."""
    observation, method = SPEED[kind]
    model = prior_model(observation=observation)
    truth = prior_truth(model, 20, 200, 75, seed=seed)
    jax.clear_caches()
    row = {"truth": "speed", "seed": seed, "neurons": 20, "fit": kind}
    started = time.perf_counter()
    try:
        posterior = lrp.fit(model, truth.recording, method, seed=0, progress=False)
    except lrp.FitError as failure:
        return row | {"refused": str(failure)}
    return row | {"seconds": time.perf_counter() - started, "status": posterior.status}


def mean_and_error(values: list[float]) -> str:
    error = f" ± {np.std(values, ddof=1) / np.sqrt(len(values)):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{error}"


def summarise(results: list[dict]) -> None:
    """Every network, and the means over the networks of a truth."""
    print(
        "truth            seed  neurons  fit      correlation | cover of W, rms z: all | half | nine tenths (entries) "
        "| of responses: 1 bin | 50 bins | seconds"
    )
    for row in results:
        start = f"{row['truth']:16s} {row['seed']:4d} {row['neurons']:8d}  {row['fit']:8s}"
        if "refused" in row:
            print(f"{start} refused: {row['refused'][:80]}")
        elif row["truth"] == "speed":
            ratio = PUBLISHED_SECONDS[row["fit"].partition(",")[0]] / row["seconds"]
            print(f"{start} {row['seconds']:.0f} s, {ratio:.0f} times less than published")
        else:
            of_W = " | ".join(
                f"{each['cover']:.2f} {each['z']:.2f} ({each['number']})" for each in row["connectivity"].values()
            )
            of_responses = " | ".join(f"{each['cover']:.2f} {each['z']:.2f}" for each in row["responses"])
            print(f"{start} {row['correlation']:.2f} | {of_W} | {of_responses} | {row['seconds']:.0f}")
    fitted = [row for row in results if "connectivity" in row]
    print("\ntruth            fit      networks | W, all | half | nine tenths | responses, 1 bin | 50 bins")
    for name, kind in dict.fromkeys((row["truth"], row["fit"]) for row in fitted):
        rows = [row for row in fitted if (row["truth"], row["fit"]) == (name, kind)]
        covers = [
            [row["connectivity"][part]["cover"] for row in rows if part in row["connectivity"]] for part in CONTRACTIONS
        ]
        covers += [[row["responses"][place]["cover"] for row in rows] for place in range(len(READ_AFTER))]
        columns = " | ".join(mean_and_error(values) if values else "none" for values in covers)
        print(f"{name:16s} {kind:8s} {len(rows):8d} | {columns}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    truths = ["prior", *TEACHERS, "speed"]
    parser.add_argument("--truth", nargs="+", default=truths, choices=truths)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rollouts", type=int, default=1, help="seeds of every truth that are fitted as rollouts too")
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="one small network that is not stored")
    options = parser.parse_args()
    if options.tiny:
        truth = prior_truth(prior_model(), 10, 5, 40, seed=1)
        summarise([run("prior", prior_model(), truth, 1, kind) for kind in ("noisy", "rollout")])
        return
    for name in options.truth if not options.summary else ():
        for seed in range(1, options.seeds + 1):
            for kind in SPEED if name == "speed" else ["noisy"] + ["rollout"] * (seed <= options.rollouts):
                results = stored.load(NAME)["results"] if stored.exists(NAME) else []
                if any((row["truth"], row["seed"], row["fit"]) == (name, seed, kind) for row in results):
                    continue
                row = run_speed(kind, seed) if name == "speed" else run(name, *truth_of(name, seed), seed, kind)
                results.append(row)
                results.sort(key=lambda row: (truths.index(row["truth"]), row["seed"], row["fit"]))
                stored.store(NAME, results=results)
                print(f"{name}, {seed}, {kind}: stored", flush=True)
    summarise(stored.load(NAME)["results"])


if __name__ == "__main__":
    main()
