"""How fast is a ranking without draws, and is its certainty that of draws?

One network of 200 neurons (rank 2, the truth of `perturbation.py`), 8 conditions of 30 bins, the stimulation of bins 10
to 12, 1,000 candidates of the four classes of that benchmark. The certainty (the expected R²) of every one by

- `predict_certainty`, from the covariance of the parameters, reading all bins or 5 of them;
- `rank_perturbations` with 300 draws. It also gives contraction, information and bands, for which it draws from the
  prior as well; so the time that counts is also that of its first pass, the draws of the posterior alone.

Half the difference between the two halves of the draws, for 50 candidates, says how far the draws themselves can be
trusted, and --check compares these candidates with ten times as many. Both run in
this process, once for the compilation and once for the time, in seconds of the processor.

With --neurons 10000 the linearised ranking alone is timed, with 100 candidates, and the peak of the memory is shown.

    python benchmarks/ranking_speed.py
    python benchmarks/ranking_speed.py --check      # 50 of the candidates against 3,000 draws
    python benchmarks/ranking_speed.py --bulk
    python benchmarks/ranking_speed.py --neurons 10000 --candidates 100
    python benchmarks/ranking_speed.py --summary
    python benchmarks/ranking_speed.py --tiny
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import perturbation
import stored

import lrposterior as lrp
from lrposterior.perturbation.prediction import predict_responses

DT, NUM_BINS, ONSET, NUM_STIMULATED = perturbation.DT, 30, 10, 3
NUM_DRAWS, CHECK_DRAWS = 300, 3000
LARGEST_DRAWN = 1000
SHARES = np.array([50, 30, 30, 60])


def make_problem(num_neurons: int, num_candidates: int, bulk: bool) -> tuple[lrp.Posterior, lrp.Candidates]:
    counts = (SHARES * num_candidates // SHARES.sum()).tolist()
    counts[0] += num_candidates - sum(counts)
    size = perturbation.Size(num_neurons, 8, tuple(counts), ensemble=max(2, min(10, num_neurons // 5)))
    _, full = perturbation.make_truth(size, 0, None)
    recording = full.select(time=slice(0, NUM_BINS))
    longer, _ = perturbation.make_candidates(full, size, 0)
    candidates = lrp.pattern_candidates(
        recording, longer.patterns, power=float(longer.power[0]), onset=ONSET * DT, duration=NUM_STIMULATED * DT
    )
    model = lrp.LowRankModel(
        rank=2,
        time_constant=perturbation.TAU,
        background=lrp.RandomBulk(gain=0.3, dimension=3) if bulk else None,
        priors=lrp.Priors(),
    )
    return lrp.fit(model, recording, seed=0, progress=False), candidates


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function gives, and the seconds of the processor of its second run."""
    function()
    started = time.process_time()
    result = function()
    return result, time.process_time() - started


def certainties(draws: np.ndarray) -> np.ndarray:
    """(candidate,) expected R² from draws (draw, candidate, response)."""
    spread = draws.var(axis=0, ddof=1).sum(axis=1)
    power = np.maximum((draws.mean(axis=0) ** 2).sum(axis=1) - spread / len(draws), 0.0)
    return power / (power + spread)


def compare(num_neurons: int, num_candidates: int, bulk: bool) -> dict[str, Any]:
    posterior, candidates = make_problem(num_neurons, num_candidates, bulk)
    window = (ONSET * DT, NUM_BINS * DT)
    row: dict[str, Any] = {"neurons": num_neurons, "candidates": num_candidates, "bulk": bulk}
    num_readouts = {"all bins": NUM_BINS, "5 bins": 5}
    for name, number in num_readouts.items():
        found, seconds = timed(
            lambda number=number: lrp.predict_certainty(posterior, candidates, window=window, num_readouts=number)
        )
        row[name] = {"seconds": seconds, "certainty": found.expected_r2}
    row["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if num_neurons > LARGEST_DRAWN:
        return row
    ranking, row["drawn_seconds"] = timed(
        lambda: lrp.rank_perturbations(posterior, candidates, window=window, num_draws=NUM_DRAWS, progress=False)
    )
    some = some_of(candidates)
    draws = predict_responses(posterior, some, window=window, num_draws=NUM_DRAWS)
    draws = draws.reshape(*draws.shape[:2], -1)
    halves = certainties(draws[::2]) - certainties(draws[1::2])
    row["of_draws"] = float(np.sqrt(np.mean(halves**2)) / 2.0)
    for name in num_readouts:
        row[name] |= differences(row[name]["certainty"] - ranking.expected_r2)
    return row


def some_of(candidates: lrp.Candidates) -> lrp.Candidates:
    """Fifty of the candidates, of all classes."""
    return candidates.select(np.arange(0, candidates.num_candidates, max(1, candidates.num_candidates // 50)))


def differences(error: np.ndarray) -> dict[str, float]:
    """Of certainties (candidate,)."""
    return {
        "rms": float(np.sqrt(np.mean(error**2))),
        "bias": float(error.mean()),
        "p95": float(np.quantile(np.abs(error), 0.95)),
        "worst": float(np.abs(error).max()),
    }


def check(num_neurons: int, num_candidates: int, bulk: bool, num_draws: int) -> dict[str, float]:
    """The linearised certainty of all bins against that of many draws."""
    posterior, candidates = make_problem(num_neurons, num_candidates, bulk)
    some, window = some_of(candidates), (ONSET * DT, NUM_BINS * DT)
    found = lrp.predict_certainty(posterior, some, window=window, num_readouts=NUM_BINS)
    drawn = lrp.rank_perturbations(posterior, some, window=window, num_draws=num_draws, progress=False)
    return differences(found.expected_r2 - drawn.expected_r2)


def report(rows: list[dict[str, Any]]) -> None:
    print(
        "neurons  candidates  bulk  read       seconds    drawn (s)  ratio  peak GB | differs: rms   bias    95%  worst"
    )
    for row in rows:
        for name in ("all bins", "5 bins"):
            each, drawn = row[name], row.get("drawn_seconds")
            compared = f"{drawn:9.1f}  {drawn / each['seconds']:5.1f}" if drawn else f"{'–':>9}  {'–':>5}"
            differs = "".join(f"{each[key]:7.3f}" for key in ("rms", "bias", "p95", "worst")) if drawn else "–"
            print(
                f"{row['neurons']:7d}  {row['candidates']:10d}  {'yes' if row['bulk'] else 'no':4s}  {name:9s}"
                f"{each['seconds']:9.2f}    {compared}  {row['peak_gb']:7.1f} |      {differs}"
            )
        if "of_draws" in row:
            print(f"         the draws' own error: rms {row['of_draws']:.3f}")
        if "check" in row:
            values = "".join(f"{row['check'][key]:7.3f}" for key in ("rms", "bias", "p95", "worst"))
            print(f"         all bins against {CHECK_DRAWS} draws, 50 candidates: {values}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=200)
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--bulk", action="store_true", help="fit with a random bulk of three visited directions")
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="a small network, nothing is stored")
    parser.add_argument("--check", action="store_true", help="compare some candidates with many draws")
    options = parser.parse_args()
    if options.tiny:
        report([compare(130, 12, False) | {"check": check(130, 12, False, 2 * NUM_DRAWS)}])
        return
    if not options.summary:
        sizes = options.neurons, options.candidates, options.bulk
        key = f"{sizes[0]}, {sizes[1]}, {'bulk' if options.bulk else 'no bulk'}"
        new = {"check": check(*sizes, CHECK_DRAWS)} if options.check else compare(*sizes)
        for name in ("all bins", "5 bins"):
            new.get(name, {}).pop("certainty", None)
        rows = stored.load("ranking_speed")["rows"] if stored.exists("ranking_speed") else {}
        stored.store("ranking_speed", rows=rows | {key: rows.get(key, {}) | new})
    report(list(stored.load("ranking_speed")["rows"].values()))


if __name__ == "__main__":
    main()
