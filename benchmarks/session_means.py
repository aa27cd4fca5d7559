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
"""

import argparse

import dales_law
import numpy as np
import stored

NAME = "session_means"
SESSIONS = tuple((trials, seed) for trials in (30, 100) for seed in range(1, 13))
NUM_DRAWS = 800


def run(num_trials: int, seed: int) -> dict:
    truth = dales_law.session_case("log-normal", num_trials, seed)
    posterior, row = dales_law.fitted(truth.model, truth.recording)
    row = {"trials": num_trials, "seed": seed} | row
    if posterior is None:
        return row
    W = truth.connectivity
    row |= dales_law.weight_cover(posterior, W) | dales_law.mean_weights(posterior, W, NUM_DRAWS)
    return row | {"responses": dales_law.response_cover(posterior, truth)}


def summarise(results: list[dict]) -> None:
    print("trials  sessions  refused  entries of W      mean weights      responses", end="")
    print("".join(f"     {pre} to {post}" for pre, post in dales_law.PAIRS))
    for trials in sorted({row["trials"] for row in results}):
        rows = [row for row in results if row["trials"] == trials]
        done = [row for row in rows if "refused" not in row]
        print(f"{trials:6d}  {len(rows):8d}  {len(rows) - len(done):7d}", end="")
        if done:
            shares = [[row["cover"] for row in done], [np.mean(row["held"]) for row in done]]
            for share in [*shares, [row["responses"] for row in done]]:
                print(f"  {np.mean(share):.3f} +- {np.std(share) / np.sqrt(len(share)):.3f}", end="")
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
        summarise([run(4, 1)])
        return
    results = [run(*session) for session in SESSIONS]
    summarise(results)
    stored.store(NAME, results=results)


if __name__ == "__main__":
    main()
