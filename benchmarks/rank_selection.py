"""How often is the true rank found?

True networks: M ~ Normal(0, 1), K ~ Normal(0, 2²), b ~ Normal(0, .5²) and B ~ Normal(0, 1), relu, tau of 0.1 s, bins of
10 ms, 8 inputs of smooth noise and observation noise of 0.05: drive and noise of the task-trained teachers of
tests/test_recovery.py. Their W has singular values of 1.3 to 3.5 and their rates a root mean square of 1.6 to 1.7; here
it is 0.9 to 2.9 and 1.3 to 1.7. The recordings are smaller: by default 20 neurons and 12 trials of 50 bins, where the
teachers have 20 to 128 neurons and 60 trials of 100. With a gain g the truth has a bulk W0_ij ~ Normal(0, g² / N)
beside the low-rank part, and is fitted with a bulk of --dimension directions ("with") or without one ("without").

Candidates are R - 1, R and R + 1 (more by --above). Folds of trials are fitted only where a rank that could be
fitted has no evidence, and the choice therefore needs them.

    python benchmarks/rank_selection.py --ranks 1 2 3 5 --recordings 20
    python benchmarks/rank_selection.py --ranks 2 --gain 0.5 --bulk with --recordings 5
    python benchmarks/rank_selection.py --summary
    python benchmarks/rank_selection.py --tiny

Results are stored after every recording in benchmarks/results, and a second call goes on where the first one ended.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np

import lrposterior as lrp

RESULTS = Path(__file__).parent / "results" / "rank_selection.json"
DT, TAU, NOISE, NUM_INPUTS = 0.01, 0.1, 0.05, 8
KEY = ("rank", "gain", "bulk", "neurons", "trials", "bins", "above", "dimension", "seed")


def record(setting: dict) -> lrp.Recording:
    """A recording of a network of known rank."""
    rank, num_neurons, seed = (setting[name] for name in ("rank", "neurons", "seed"))
    random = np.random.default_rng([rank, seed])
    parameters = {
        "M": random.standard_normal((num_neurons, rank)),
        "K": 2.0 * random.standard_normal((num_neurons, rank)),
        "B": random.standard_normal((num_neurons, NUM_INPUTS)),
        "b": 0.5 * random.standard_normal(num_neurons),
        "noise_scale": np.full(num_neurons, NOISE),
    }
    inputs = random.standard_normal((setting["trials"], setting["bins"], NUM_INPUTS))
    for bin_ in range(1, setting["bins"]):
        inputs[:, bin_] = 0.9 * inputs[:, bin_ - 1] + np.sqrt(1.0 - 0.9**2) * inputs[:, bin_]
    model = make_model(rank)
    if setting["gain"]:
        W0 = setting["gain"] / np.sqrt(num_neurons) * random.standard_normal((num_neurons, num_neurons))
        model = dataclasses.replace(model, background=lrp.FixedBackground(W0))
    empty = lrp.Recording(np.zeros((*inputs.shape[:2], num_neurons)), DT, inputs=inputs)
    return model.simulate(parameters, empty, seed=seed)


def make_model(rank: int, *, bulk: str = "without", dimension: int = 0) -> lrp.LowRankModel:
    """With a bulk that is seen in this many dimensions (0: those found in the recording), or without."""
    background = lrp.RandomBulk(dimension=dimension or None) if bulk == "with" else None
    return lrp.LowRankModel(rank, TAU, "relu", background=background, priors=lrp.Priors(unit=1.0))


def run(setting: dict) -> dict:
    """Choose the rank of one recording."""
    started, rank = time.perf_counter(), setting["rank"]
    recording = record(setting)
    ranks = [one for one in range(rank - 1, rank + setting["above"] + 1) if one > 0]
    model, options = (
        make_model(rank, bulk=setting["bulk"], dimension=setting["dimension"]),
        {"seed": 0, "progress": False},
    )
    # Without folds first; where no rank has an evidence there is then nothing to choose by.
    try:
        selection = lrp.select_rank(model, recording, ranks, num_folds=0, **options)
        fitted = [one for one in selection.fits if one.failure is None]
        needs_folds = len(fitted) > 1 and any(one.log_evidence is None for one in fitted)
    except lrp.FitError:
        selection, needs_folds = None, True
    if needs_folds:
        try:
            selection = lrp.select_rank(model, recording, ranks, **options)
        except lrp.FitError as failure:
            return setting | {"chosen": None, "reason": str(failure), "seconds": time.perf_counter() - started}
    found = selection.to_dict()
    del found["seed"]  # that of the fits; the one in the setting is the recording's
    scales = {rank: one.statistics.scales for rank, one in selection.posteriors.items()}
    gains = {rank: of_rank["gain"][0] for rank, of_rank in scales.items() if "gain" in of_rank}
    return setting | {
        "chosen": found.pop("rank"),
        **found,
        "singular": [one.rank for one in selection.fits if one.failure is None and one.log_evidence is None],
        "failed": [one.rank for one in selection.fits if one.failure is not None],
        "gain found": gains,
        "seconds": time.perf_counter() - started,
    }


def load() -> list[dict]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else []


def summarise(results: list[dict]) -> None:
    print("true rank  gain  fitted bulk  size         right  chosen (rank: times)  by                    at R + 1")
    keys = sorted({tuple(one[name] for name in KEY[:-1]) for one in results})
    for key in keys:
        of_key = [one for one in results if tuple(one[name] for name in KEY[:-1]) == key]
        rank, gain, bulk, *size, _, dimension = key
        chosen, by, above = {}, {}, {"regular": 0, "singular": 0, "failed": 0}
        for one in of_key:
            chosen[str(one["chosen"])] = chosen.get(str(one["chosen"]), 0) + 1
            by[one.get("criterion", "none")] = by.get(one.get("criterion", "none"), 0) + 1
            kinds = [kind for kind in ("singular", "failed") if rank + 1 in one.get(kind, ())]
            above[kinds[0] if kinds else "regular"] += 1
        fitted = f"{bulk} {dimension or 'found'}" if bulk == "with" else bulk
        right = f"{chosen.get(str(rank), 0)}/{len(of_key)}"
        print(
            f"{rank:9d}  {gain:4.2f}  {fitted:11s}  {'x'.join(map(str, size)):11s}  {right:>5s}  {chosen}  {by}  "
            f"{above}  {np.mean([one['seconds'] for one in of_key]):.0f} s each"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3, 5])
    parser.add_argument("--gain", type=float, default=0.0)
    parser.add_argument("--bulk", choices=("with", "without"), default="without", help="in the fit")
    parser.add_argument("--dimension", type=int, help="of the fitted bulk; found in the recording if left out")
    parser.add_argument("--neurons", type=int, default=20)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--bins", type=int, default=50)
    parser.add_argument("--above", type=int, default=1, help="candidates above the true rank")
    parser.add_argument("--recordings", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=np.inf, help="start no recording later than this")
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="one small recording that is not stored")
    options = parser.parse_args()
    if options.tiny:
        summarise([run(dict(zip(KEY, (1, 0.0, "without", 8, 6, 30, 1, 0, 0), strict=True)))])
        return
    started = time.perf_counter()
    for seed in range(options.recordings if not options.summary else 0):
        for rank in options.ranks:
            dimension = options.dimension or 0
            size = (options.neurons, options.trials, options.bins)
            values = (rank, options.gain, options.bulk, *size, options.above, dimension, seed)
            done = any(tuple(one[name] for name in KEY) == values for one in load())
            if done or time.perf_counter() - started > options.seconds:
                continue
            result = run(dict(zip(KEY, values, strict=True)))
            print(f"{values}: chosen {result['chosen']}, {result['seconds']:.0f} s. {result['reason']}", flush=True)
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps([*load(), result], indent=1))
    summarise(load())


if __name__ == "__main__":
    main()
