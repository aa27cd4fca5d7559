"""Do intervals hold under Dale's law: on rates with little noise, and on sessions of spikes?

    python benchmarks/dales_law.py              run it and store the results
    python benchmarks/dales_law.py --summary    print what is stored
    python benchmarks/dales_law.py --tiny       one network of each kind, with few trials, which is not stored

Networks of 12 neurons (9 E, 3 I) and rank 2 from the prior, half-normal or log-normal (spread 0.7, half the scale of
K), in 30 trials of 60 bins: rates with noise of 0.1. And sessions of `simulate_session` with 20 neurons (16 E, 4 I), 2
inputs and trials of 100 bins, fitted by its model with half-normal or log-normal magnitudes (spread 1), whose truth is
neither, and with half-normal ones whose scales of K are inferred.

The share of 90% intervals that hold the truth: of the entries of W, with those of which the truth lies nearer to 0 and
further from it; in sessions of the mean weights of each pair of types, and of the responses of all currents in the ten
bins after a current of 0.5 into all E, and into all I neurons, averaged over the process noise.
"""

import argparse
import dataclasses
import time

import averaged_responses
import numpy as np
import stored

import lrposterior as lrp
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.simulated_session import MODEL

NAME = "dales_law"
RATES_SEEDS, SESSIONS = tuple(range(20, 44)), tuple((trials, seed) for trials in (30, 100) for seed in (1, 2, 3))
INFERRED = "half-normal, inferred"
TYPES, SCALES, RANK, SPREAD = ("E",) * 9 + ("I",) * 3, {"E": 1.5, "I": 6.0}, 2, 0.7
PAIRS = (("E", "E"), ("E", "I"), ("I", "E"), ("I", "I"))  # from, to
CURRENT, NUM_BINS, NUM_DRAWS, NUM_REPEATS, NUM_TRUE = 0.5, 10, 400, 8, 64


def rates_case(magnitudes: str, seed: int, num_trials: int) -> tuple[lrp.LowRankModel, lrp.Recording, np.ndarray]:
    """A model, a recording of a network of its prior, and W."""
    random, number = np.random.default_rng([seed, 1]), len(TYPES)
    half, log = np.abs(random.standard_normal((2, number, RANK))), random.standard_normal((2, number, RANK))
    part = 1.0 if magnitudes == "half-normal" else 0.5
    M, q = half if magnitudes == "half-normal" else np.exp(SPREAD * log)
    scales = {name: part * scale for name, scale in SCALES.items()}
    signed = np.array([scales[name] if name == "E" else -scales[name] for name in TYPES])
    parameters = {
        "M": M,
        "K": signed[:, None] / RANK * q,
        "B": random.standard_normal((number, 2)),
        "b": 0.5 * random.standard_normal(number),
        "noise_scale": np.full(number, 0.1),
    }
    inputs = np.repeat(random.standard_normal((num_trials, 6, 2)), 10, axis=1)
    like = lrp.Recording(np.zeros((num_trials, 60, number)), 0.02, inputs=inputs, cell_types=TYPES)
    model = lrp.LowRankModel(
        RANK,
        nonlinearity="softplus",
        observation=lrp.GaussianObservation(of="rate"),
        background=None,
        priors=lrp.DaleLoadings(K=scales, magnitudes=magnitudes, spread=SPREAD, unit=1.0),
    )
    return model, model.simulate(parameters, like, seed=seed), M @ parameters["K"].T / number


def weight_cover(posterior: lrp.Posterior, W: np.ndarray) -> dict[str, float]:
    bounds = np.abs(posterior.connectivity_interval(0.9, num_draws=800, seed=1))
    nearer, further = np.abs(W) < bounds.min(axis=0), np.abs(W) > bounds.max(axis=0)
    return {"cover": float(np.mean(~nearer & ~further)), "nearer": nearer.mean(), "further": further.mean()}


def mean_weights(posterior: lrp.Posterior, W: np.ndarray, num_draws: int = NUM_DRAWS) -> dict[str, list]:
    """Of `PAIRS`: whether 90% intervals hold, the mean over the truth, and how many sd weaker than the truth it is."""
    draws, types = posterior.sample_connectivity(num_draws, seed=1).to_dense(), np.array(posterior.recording.cell_types)
    found: dict[str, list] = {"held": [], "ratio": [], "distance": []}
    for pre, post in PAIRS:
        block = np.ix_(types == post, types == pre)
        means, true = np.array([draw[block].mean() for draw in draws]), W[block].mean()
        lower, upper = np.quantile(means, [0.05, 0.95])
        found["held"].append(bool(lower <= true <= upper))
        found["ratio"].append(float(means.mean() / true))
        found["distance"].append(float((abs(true) - abs(means.mean())) / means.std()))
    return found


def response_cover(posterior: lrp.Posterior, truth: lrp.Simulation) -> float:
    recording = posterior.recording
    types, onset = np.array(recording.cell_types), 20
    patterns = np.array([types == "E", types == "I"], dtype=float)
    timing = {"onset": onset * recording.dt, "duration": NUM_BINS * recording.dt}
    candidates = lrp.combine_candidates(
        *(
            lrp.pattern_candidates(
                recording,
                pattern[None],
                power=CURRENT**2 * pattern.sum() * NUM_BINS * recording.dt,
                labels=[name],
                **timing,
            )
            for name, pattern in zip("EI", patterns, strict=True)
        )
    )
    inputs = np.zeros((1, recording.num_bins, recording.num_inputs))
    window = ((onset + 2) * recording.dt, (onset + 2 + NUM_BINS) * recording.dt)
    experiment = make_experiment(posterior, candidates, inputs, window)
    draws = averaged_responses.of_posterior(posterior, experiment, NUM_DRAWS, NUM_REPEATS)
    true = averaged_responses.of_truth(truth.model, truth, recording, experiment, NUM_TRUE)
    lower, upper = np.quantile(draws, [0.05, 0.95], axis=0)
    return float(np.mean((lower <= true) & (true <= upper)))


def fitted(model: lrp.LowRankModel, recording: lrp.Recording) -> tuple[lrp.Posterior | None, dict]:
    started = time.process_time()
    try:
        posterior = lrp.fit(model, recording, seed=0, progress=False)
    except lrp.FitError as failure:
        return None, {"refused": str(failure)}
    seconds = time.process_time() - started
    return posterior, {"seconds": seconds, "curvatures": posterior.statistics.num_iterations}


def run_rates(magnitudes: str, seed: int, num_trials: int = 30) -> dict:
    model, recording, W = rates_case(magnitudes, seed, num_trials)
    posterior, row = fitted(model, recording)
    row = {"kind": "rates", "magnitudes": magnitudes, "trials": num_trials, "seed": seed} | row
    return row if posterior is None else row | weight_cover(posterior, W)


def session_case(magnitudes: str, num_trials: int, seed: int) -> lrp.Simulation:
    """A session whose model is the one to fit."""
    truth = lrp.simulate_session(
        num_trials=num_trials,
        num_bins=100,
        num_excitatory=16,
        num_inhibitory=4,
        num_inputs=2,
        num_outliers=0,
        seed=seed,
    )
    K = {name: lrp.ScalePrior(scale) for name, scale in SCALES.items()} if magnitudes == INFERRED else SCALES
    priors = lrp.DaleLoadings(K=K, magnitudes="log-normal" if magnitudes == "log-normal" else "half-normal")
    return dataclasses.replace(truth, model=dataclasses.replace(MODEL, priors=priors))


def run_session(magnitudes: str, num_trials: int, seed: int) -> dict:
    truth = session_case(magnitudes, num_trials, seed)
    posterior, row = fitted(truth.model, truth.recording)
    row = {"kind": "session", "magnitudes": magnitudes, "trials": num_trials, "seed": seed} | row
    if posterior is None:
        return row
    W = truth.connectivity
    more = {"means": float(np.mean(mean_weights(posterior, W)["held"])), "responses": response_cover(posterior, truth)}
    return row | weight_cover(posterior, W) | more


def summarise(results: list[dict]) -> None:
    print("recording  magnitudes             trials  networks  refused  W: cover, nearer, further", end="")
    print("  means  responses  curvatures")
    kinds = sorted({(row["kind"], row["magnitudes"], row["trials"]) for row in results})
    for kind in kinds:
        rows = [row for row in results if (row["kind"], row["magnitudes"], row["trials"]) == kind]
        done = [row for row in rows if "refused" not in row]
        print(f"{kind[0]:9s}  {kind[1]:21s}  {kind[2]:6d}  {len(rows):8d}  {len(rows) - len(done):7d}", end="")
        if done:
            covers = np.array([row["cover"] for row in done])
            print(f"  {covers.mean():.3f} +- {covers.std() / np.sqrt(len(covers)):.3f}", end="")
            print("".join(f", {np.mean([row[name] for row in done]):.2f}" for name in ("nearer", "further")), end="")
            for name in ("means", "responses"):
                print(f"  {np.mean([row[name] for row in done]):.2f}" if name in done[0] else "     -", end="")
            print(f"  {np.mean([row['curvatures'] for row in done]):.0f}", end="")
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="one network of each kind, with few trials; not stored")
    options = parser.parse_args()
    if options.summary:
        summarise(stored.load(NAME)["results"])
        return
    both = ("half-normal", "log-normal")
    if options.tiny:
        summarise([run_rates("half-normal", 20, 6), run_session("log-normal", 4, 1)])
        return
    results = [run_rates(magnitudes, seed) for magnitudes in both for seed in RATES_SEEDS]
    results += [run_session(magnitudes, *session) for magnitudes in (*both, INFERRED) for session in SESSIONS]
    summarise(results)
    stored.store(NAME, results=results)


if __name__ == "__main__":
    main()
