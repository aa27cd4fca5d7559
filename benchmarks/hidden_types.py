"""Do intervals hold under Dale's law where half of the excitatory neurons were not recorded?

    python benchmarks/hidden_types.py              run it and store the results
    python benchmarks/hidden_types.py --summary    print what is stored
    python benchmarks/hidden_types.py --tiny       one network of each kind, with few trials, which is not stored

Networks of 16 E and 4 I neurons, of which 8 E and 4 I are recorded. Rates: of rank 2 from the prior, half-normal or
log-normal (spread 0.7, half the scale of K), in 30 trials of 60 bins with noise of 0.1. Spikes: of `simulate_session`,
whose truth is of neither kind, with 2 inputs in 30 trials of 100 bins, fitted by its model with log-normal magnitudes
(spread 1). Each is fitted as if the recorded neurons were all, with 8 hidden E neurons (those of half-normal rates also
with too few and too many), and, to compare, with all neurons recorded.

The share of 90% intervals that hold the truth: of the entries of W among the 12 neurons, with those of which the truth
lies nearer to 0 and further from it; of the responses of their currents in the ten bins after a current of 0.5 into the
8 recorded E neurons, into all E neurons (of the truth and of the fit), and into the I neurons, averaged over the
process noise. And the width of the intervals of W, in parts of the mean size of an entry.

Of hidden neurons only what does not depend on their order has a truth: the share of intervals that hold the sum of the
weights of all hidden neurons onto each recorded one. And the posterior standard deviation of their M, K, B and b, in
whitened coordinates, in which that of the prior is 1.
"""

import argparse
import dataclasses
import time

import averaged_responses
import numpy as np
import stored
from dales_law import SCALES, SPREAD, session_case

import lrposterior as lrp
from lrposterior.perturbation.experiment import Experiment, make_experiment

NAME = "hidden_types"
# How many hidden E neurons a fit has; None: it sees all.
FITS = {"recorded alone": 0, "4 hidden": 4, "8 hidden": 8, "16 hidden": 16, "all recorded": None}
# What is recorded, of which magnitudes: the number of networks, and how each is fitted.
USUAL = ("recorded alone", "8 hidden", "all recorded")
KINDS = {"rates half-normal": (12, tuple(FITS)), "rates log-normal": (12, USUAL), "spikes log-normal": (8, USUAL)}
# The neurons in the order of a fit with hidden ones: the recorded come first.
ORDER, NUM_RECORDED = np.r_[0:8, 16:20, 8:16], 12
TYPES = ("E",) * 16 + ("I",) * 4
CURRENT, ONSET, NUM_BINS, NUM_DRAWS, NUM_REPEATS, NUM_TRUE = 0.5, 20, 10, 400, 8, 64


def simulated(kind: str, seed: int, num_trials: int) -> lrp.Simulation:
    """A network with its recording; the model is the one to fit."""
    of, magnitudes = kind.split()
    if of == "spikes":
        return session_case(magnitudes, num_trials, seed)
    part = 1.0 if magnitudes == "half-normal" else 0.5
    K = {name: part * scale for name, scale in SCALES.items()}
    model = lrp.LowRankModel(
        2,
        nonlinearity="softplus",
        observation=lrp.GaussianObservation(of="rate"),
        background=None,
        priors=lrp.DaleLoadings(K=K, magnitudes=magnitudes, spread=SPREAD, b=0.5, unit=1.0),
    )
    size = {"num_neurons": len(TYPES), "num_trials": num_trials, "num_bins": 60}
    return lrp.simulate_recording(model, **size, cell_types=TYPES, noise_scale=0.1, seed=seed)


def weight_cover(posterior: lrp.Posterior, W: np.ndarray) -> dict[str, float]:
    bounds = np.stack(posterior.connectivity_interval(0.9, num_draws=800, seed=1))[:, :NUM_RECORDED, :NUM_RECORDED]
    sizes = np.abs(bounds)
    nearer, further = np.abs(W) < sizes.min(axis=0), np.abs(W) > sizes.max(axis=0)
    width = np.mean(bounds[1] - bounds[0]) / np.mean(np.abs(W))
    return {"cover": np.mean(~nearer & ~further), "nearer": nearer.mean(), "further": further.mean(), "width": width}


def patterns_on(recording: lrp.Recording) -> np.ndarray:
    """(pattern, neuron) currents into the recorded E neurons, all E neurons, and the I neurons."""
    types, is_recorded = np.array(recording.cell_types), np.arange(recording.num_neurons) < NUM_RECORDED
    return CURRENT * np.array([(types == "E") & is_recorded, types == "E", types == "I"])


def experiment_on(posterior: lrp.Posterior) -> Experiment:
    """The currents, where there is no input."""
    recording, time_course = posterior.recording, np.zeros(posterior.recording.num_bins)
    time_course[ONSET : ONSET + NUM_BINS] = 1.0
    candidates = lrp.Candidates(patterns_on(recording), time_course, dt=recording.dt)
    inputs = np.zeros((1, recording.num_bins, recording.num_inputs))
    window = ((ONSET + 2) * recording.dt, (ONSET + 2 + NUM_BINS) * recording.dt)
    return make_experiment(posterior, candidates, inputs, window)


def response_cover(posterior: lrp.Posterior, truth: lrp.Simulation) -> list[float]:
    """For every pattern, in the recorded neurons."""
    experiment, whole = experiment_on(posterior), truth.recording
    draws = averaged_responses.of_posterior(posterior, experiment, NUM_DRAWS, NUM_REPEATS)[..., :NUM_RECORDED]
    on_all = np.empty((len(experiment.patterns), whole.num_neurons))
    on_all[:, ORDER] = patterns_on(whole.select(neurons=ORDER))
    of_whole = dataclasses.replace(experiment, patterns=on_all)
    true = averaged_responses.of_truth(truth.model, truth, whole, of_whole, NUM_TRUE)[..., ORDER[:NUM_RECORDED]]
    lower, upper = np.quantile(draws, [0.05, 0.95], axis=0)
    return np.mean((lower <= true) & (true <= upper), axis=(1, 2, 3)).tolist()


def of_hidden(posterior: lrp.Posterior, truth: lrp.Simulation) -> dict:
    drives = posterior.sample_connectivity(NUM_DRAWS, seed=1).to_dense()[:, :NUM_RECORDED, NUM_RECORDED:].sum(axis=2)
    true = truth.connectivity[np.ix_(ORDER[:NUM_RECORDED], ORDER[NUM_RECORDED:])].sum(axis=1)
    lower, upper = np.quantile(drives, [0.05, 0.95], axis=0)
    z = posterior.distribution.sample(NUM_DRAWS, seed=1)
    spreads = {
        name: float(np.mean(posterior.space.coordinates(z, name)[:, NUM_RECORDED:].std(axis=0))) for name in "MKBb"
    }
    return {"drive": float(np.mean((lower <= true) & (true <= upper))), "spreads": spreads}


def run(kind: str, seed: int, num_trials: int = 30) -> list[dict]:
    truth, rows = simulated(kind, seed, num_trials), []
    everything = truth.recording.select(neurons=ORDER)
    recorded = everything.select(neurons=slice(NUM_RECORDED))
    W = truth.connectivity[np.ix_(ORDER[:NUM_RECORDED], ORDER[:NUM_RECORDED])]
    for fit in KINDS[kind][1]:
        hidden = FITS[fit]
        recording = everything if hidden is None else lrp.add_hidden_neurons(recorded, {"E": hidden})
        started = time.process_time()
        row = {"kind": kind, "seed": seed, "fit": fit}
        try:
            posterior = lrp.fit(truth.model, recording, seed=0, progress=False)
        except lrp.FitError as failure:
            rows.append(row | {"refused": str(failure)})
            continue
        row |= {"seconds": time.process_time() - started, "curvatures": posterior.statistics.num_iterations}
        row |= weight_cover(posterior, W) | {"responses": response_cover(posterior, truth)}
        rows.append(row | of_hidden(posterior, truth) if hidden else row)
    return rows


def mean_and_error(values: list[float]) -> str:
    error = f" +- {np.std(values, ddof=1) / np.sqrt(len(values)):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{error}"


def summarise(results: list[dict]) -> None:
    print("recording          fit             networks  refused  W: cover, nearer, further, width  ", end="")
    print("responses to E recorded, all E, I  curvatures")
    for kind, fit in ((kind, fit) for kind, (_, fits) in KINDS.items() for fit in fits):
        rows = [row for row in results if (row["kind"], row["fit"]) == (kind, fit)]
        done = [row for row in rows if "refused" not in row]
        print(f"{kind:17s}  {fit:14s}  {len(rows):8d}  {len(rows) - len(done):7d}", end="")
        if done:
            print(f"  {mean_and_error([row['cover'] for row in done])}", end="")
            for name in ("nearer", "further", "width"):
                print(f", {np.mean([row[name] for row in done]):.2f}", end="")
            columns = zip(*(row["responses"] for row in done), strict=True)
            print("  " + ", ".join(mean_and_error(list(column)) for column in columns), end="")
            print(f"  {np.mean([row['curvatures'] for row in done]):.0f}", end="")
        print()
    print("\nrecording          fit             weights of hidden  spread of their M, K, B, b")
    for kind, fit in ((kind, fit) for kind, (_, fits) in KINDS.items() for fit in fits):
        rows = [row for row in results if (row["kind"], row["fit"]) == (kind, fit) and "drive" in row]
        if rows:
            spreads = ", ".join(f"{np.mean([row['spreads'][name] for row in rows]):.2f}" for name in "MKBb")
            print(f"{kind:17s}  {fit:14s}  {mean_and_error([row['drive'] for row in rows]):17s}  {spreads}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="one network of each kind, with few trials; not stored")
    options = parser.parse_args()
    if options.summary:
        summarise(stored.load(NAME)["results"])
        return
    if options.tiny:
        summarise([row for kind in KINDS for row in run(kind, 0, 4)])
        return
    results = [row for kind, (number, _) in KINDS.items() for seed in range(number) for row in run(kind, seed)]
    summarise(results)
    stored.store(NAME, results=results)


if __name__ == "__main__":
    main()
