"""Do intervals of mean weights and of responses hold, over many sessions of an excitatory-inhibitory network?

    python benchmarks/session_means.py              run it and store the results; takes an hour
    python benchmarks/session_means.py --summary    print what is stored
    python benchmarks/session_means.py --tiny       one session of few trials, which is not stored

Sessions of `simulate_session` with 20 neurons (16 E, 4 I), 2 inputs and trials of 100 bins, fitted by its model with
log-normal magnitudes (spread 1) and scales of K that are given, as in `dales_law.py`, whose three sessions say little
of quantities of which each has four: the mean weights from E and I neurons to E and I neurons. They rise and fall
together, so that sessions count, not weights: standard errors are over sessions. The share of 90% intervals that hold
the truth, of the entries of W, of the mean weights, and of the responses to a current into all E, and into all I
neurons; and for each pair of types the share, and the median over sessions of the posterior mean over the truth.

The networks of `simulate_session` are none of the prior: their magnitudes are half-normal and depend on each other,
their mean weights are others. So there are also networks drawn from the prior itself, where intervals would hold 90%
were the posterior right: with half the scales of K, as more of them run away at the others, and at 20 spikes/s. Of
them too: by how many nats the true network is less probable than the mode, beyond the half of a nat for each
coordinate that is expected.
"""

import argparse
import dataclasses

import dales_law
import numpy as np
import session_truth
import stored

import lrposterior as lrp
from lrposterior.inference.problem import Problem
from lrposterior.precision import double_precision
from lrposterior.simulated_session import DT, MODEL

NAME = "session_means"
SESSION, PRIOR = "session", "prior"
NETWORKS = (
    *((SESSION, trials, seed) for trials in (30, 100) for seed in range(1, 13)),
    *((PRIOR, 30, seed) for seed in range(1, 13)),
)
NUM_DRAWS = 800
TYPES, RATE = ("E",) * 16 + ("I",) * 4, 20.0  # RATE in spikes/s
# Networks of the prior are drawn again where rates in spikes/s, the mean and that of the fastest bin, lie beyond.
RATES, FASTEST = (3.0, 60.0), 400.0


def prior_case(num_trials: int, seed: int) -> lrp.Simulation:
    """A network of the prior, the first that is active and does not run away."""
    scales = {name: 0.5 * scale for name, scale in dales_law.SCALES.items()}
    priors = lrp.DaleLoadings(K=scales, magnitudes="log-normal", unit=1.0)
    model = dataclasses.replace(MODEL, priors=priors, observation=lrp.PoissonObservation(scale=RATE))
    for other in range(1000):
        try:
            truth = lrp.simulate_recording(
                model,
                num_neurons=len(TYPES),
                num_trials=num_trials,
                num_bins=100,
                dt=DT,
                cell_types=TYPES,
                seed=1000 * seed + other,
            )
        except ValueError:  # it runs away
            continue
        averages = truth.recording.activity.mean(axis=0) / DT
        if RATES[0] < averages.mean() < RATES[1] and averages.max() < FASTEST:
            return truth
    raise RuntimeError("no network of the prior is active without running away")


@double_precision
def truth_above_mode(posterior: lrp.Posterior, truth: lrp.Simulation) -> float:
    """Nats by which -log p of the true network exceeds that of the mode, less half the number of coordinates."""
    problem = Problem.of(posterior.model, posterior.recording)
    above = (
        problem.negative_log_density(session_truth.true_coordinates(problem, truth)) - posterior.statistics.objective
    )
    return above - 0.5 * problem.space.size


def run(kind: str, num_trials: int, seed: int) -> dict:
    truth = prior_case(num_trials, seed) if kind == PRIOR else dales_law.session_case("log-normal", num_trials, seed)
    posterior, row = dales_law.fitted(truth.model, truth.recording)
    row = {"kind": kind, "trials": num_trials, "seed": seed} | row
    if posterior is None:
        return row
    W = truth.connectivity
    row |= dales_law.weight_cover(posterior, W) | dales_law.mean_weights(posterior, W, NUM_DRAWS)
    row |= {"responses": dales_law.response_cover(posterior, truth)}
    return row | {"above": truth_above_mode(posterior, truth)} if kind == PRIOR else row


def summarise(results: list[dict]) -> None:
    print("network  trials  networks  refused  entries of W      mean weights      responses       truth above", end="")
    print("".join(f"     {pre} to {post}" for pre, post in dales_law.PAIRS))
    for kind, trials in sorted({(row["kind"], row["trials"]) for row in results}, reverse=True):
        rows = [row for row in results if (row["kind"], row["trials"]) == (kind, trials)]
        done = [row for row in rows if "refused" not in row]
        print(f"{kind:7s}  {trials:6d}  {len(rows):8d}  {len(rows) - len(done):7d}", end="")
        if done:
            shares = [[row["cover"] for row in done], [np.mean(row["held"]) for row in done]]
            for share in [*shares, [row["responses"] for row in done]]:
                print(f"  {np.mean(share):.3f} +- {np.std(share) / np.sqrt(len(share)):.3f}", end="")
            print(f"  {np.median([row['above'] for row in done]):11.0f}" if kind == PRIOR else 13 * " ", end="")
            held, ratio = (np.array([row[name] for row in done]) for name in ("held", "ratio"))
            for place in range(len(dales_law.PAIRS)):
                print(f"  {held[:, place].mean():.2f}, x {np.median(ratio[:, place]):.2f}", end="")
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="one session of few trials; not stored")
    options = parser.parse_args()
    if options.summary:
        summarise(stored.load(NAME)["results"])
        return
    if options.tiny:
        summarise([run(SESSION, 4, 1)])
        return
    results = [run(*network) for network in NETWORKS]
    summarise(results)
    stored.store(NAME, results=results)


if __name__ == "__main__":
    main()
