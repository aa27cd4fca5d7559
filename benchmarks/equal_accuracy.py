"""What does a right interval cost? Coverage of predicted responses, and the seconds that each method took to get there.

Truths are drawn from the prior (rank 2) and recorded as in benchmarks/perturbation.py (8 conditions of 60 bins with a
cue, noise .045). Perturbations that the recording never saw: every single neuron, and twelve ensembles of four neurons,
all of norm sqrt(10) for 5 bins; responses in 30 bins from the onset in all conditions, without feed-through. Methods:

- Laplace, the default of `fit`;
- NUTS (400 draws of warm-up, 1000 draws, one chain), on the first --nuts-networks networks;
- SVI with the full guide;
- 100 twins, on the first --twin-networks networks: networks fitted from random starts by least squares, without a prior
  (L-BFGS, at most 2000 iterations); the interval is the range from 5% to 95% of the twins, the prediction their mean,
  the standard deviation theirs.

The table has, over all responses: the share within the central 90% interval, the root mean square of
z = (truth - mean) / sd (1 if the intervals are right), the R² of the mean over all responses together and the share of
networks whose method said that it had converged. Seconds are those of the process for a fit, after a first fit of
another network, so that what is compiled once is not counted; their ratio is to Laplace on the same networks.

Results are stored after every network, and a second call goes on where the first one ended.

    python benchmarks/equal_accuracy.py --neurons 12 --networks 10 --nuts-networks 6
    python benchmarks/equal_accuracy.py --summary
    python benchmarks/equal_accuracy.py --tiny
"""

import argparse
import time
from collections.abc import Iterable

import numpy as np
from perturbation import (
    DT,
    HIGHEST,
    LOWEST,
    NUM_BINS,
    NUM_DRAWS,
    NUM_STIMULATED,
    ONSET,
    TAU,
    Size,
    make_truth,
    make_twins,
    respond,
)
from stored import exists, load, store

import lrposterior as lrp
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.responses import response_draws

NAME = "equal_accuracy"
METHODS = {
    "Laplace": lrp.Laplace(),
    "NUTS": lrp.NUTS(num_warmup=400, num_samples=1000, num_chains=1),
    "SVI, full": lrp.SVI("full"),
}
TINY = METHODS | {
    "NUTS": lrp.NUTS(num_warmup=10, num_samples=NUM_DRAWS, num_chains=1),
    "SVI, full": lrp.SVI(num_steps=100),
}
TWINS = "twins"
WINDOW = (ONSET * DT, NUM_BINS * DT)


def make_candidates(recording: lrp.Recording, seed: int, num_ensembles: int) -> lrp.Candidates:
    options = {"power": 10.0 * NUM_STIMULATED * DT, "onset": ONSET * DT, "duration": NUM_STIMULATED * DT}
    ensembles = lrp.ensemble_candidates(recording, num_candidates=num_ensembles, size=4, seed=seed, **options)
    return lrp.combine_candidates(lrp.single_neuron_candidates(recording, **options), ensembles)


def score(draws: np.ndarray, truth: np.ndarray, covered: np.ndarray) -> dict[str, float]:
    """Draws (draw, candidate, response) and their intervals against a truth (candidate, response)."""
    moved = truth != 0.0  # the first two bins of the response are zero by construction
    mean, sd = draws.mean(axis=0)[moved], draws.std(axis=0, ddof=1)[moved]
    error = truth[moved] - mean
    return {
        "cover": float(np.mean(covered[moved])),
        "z": float(np.sqrt(np.mean((error / sd) ** 2))),
        "R2": float(1.0 - np.sum(error**2) / np.sum(truth[moved] ** 2)),
    }


def run(seed: int, size: Size, methods: Iterable[str], options: dict, num_twins: int, num_ensembles: int) -> list[dict]:
    """The scores of these methods on one network."""
    model = lrp.LowRankModel(rank=2, time_constant=TAU, priors=lrp.Priors(unit=1.0), background=None)
    truth, recording = make_truth(size, seed, model.priors)
    candidates = make_candidates(recording, seed, num_ensembles)
    settled = model.for_recording(recording)
    experiment, true, rows = None, np.empty(0), []
    for name in ("Laplace", *(name for name in methods if name not in ("Laplace", TWINS))):
        started = time.process_time()
        try:
            posterior = lrp.fit(model, recording, options[name], seed=seed, progress=False)
        except lrp.FitError as refusal:
            rows.append({"network": seed, "method": name, "refused": str(refusal)})
            continue
        seconds = time.process_time() - started
        if experiment is None:
            experiment = make_experiment(posterior, candidates, None, WINDOW)
            true = respond(settled, truth, experiment)
        parameters = posterior.sample_parameters(NUM_DRAWS, seed=seed)
        draws = response_draws(settled, parameters, experiment, "current").reshape(NUM_DRAWS, *true.shape)
        below = np.sum(draws < true, axis=0)
        scores = score(draws, true, (below >= LOWEST) & (below <= HIGHEST))
        converged = posterior.status == "converged"
        rows.append({"network": seed, "method": name, "seconds": seconds, "converged": converged, **scores})
    if TWINS in methods and experiment is not None:
        started = time.process_time()
        make = make_twins(model, recording, size.twin_iterations)
        twins, on_activity = zip(*(make(1000 * seed + twin) for twin in range(num_twins)), strict=True)
        seconds = time.process_time() - started
        parameters = {name: np.stack([twin[name] for twin in twins]) for name in twins[0]}
        draws = response_draws(settled, parameters, experiment, "current").reshape(num_twins, *true.shape)
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        scores = score(draws, true, (low <= true) & (true <= high))
        rows.append({"network": seed, "method": TWINS, "seconds": seconds, "on activity": on_activity, **scores})
    return [row for row in rows if row["method"] in methods]


def print_table(rows: list[dict]) -> None:
    print("method     networks  90% cover  rms z      R²  converged  seconds  ratio to Laplace")
    ours = {row["network"]: row["seconds"] for row in rows if row["method"] == "Laplace" and "seconds" in row}
    for name in (*METHODS, TWINS):
        of_method = [row for row in rows if row["method"] == name and "seconds" in row and row["network"] in ours]
        if not of_method:
            continue
        cover, seconds = (np.mean([row[field] for row in of_method]) for field in ("cover", "seconds"))
        z, R2 = np.sqrt(np.mean([row["z"] ** 2 for row in of_method])), np.median([row["R2"] for row in of_method])
        ratio = seconds / np.mean([ours[row["network"]] for row in of_method])
        converged = "" if name == TWINS else f"{sum(row['converged'] for row in of_method)}/{len(of_method)}"
        print(
            f"{name:10s} {len(of_method):8d} {cover:10.2f} {z:6.2f} {R2:7.2f}  {converged:>9s} {seconds:8.2f} "
            f"{ratio:17.1f}"
        )
    refused = [f"{row['method']} on network {row['network']}" for row in rows if "refused" in row]
    if refused:
        print(f"refused: {', '.join(refused)}")
    of_twins = [value for row in rows if row["method"] == TWINS for value in row["on activity"]]
    if of_twins:
        print(f"R² of the twins on the recorded activity: median {np.median(of_twins):.4f}, least {min(of_twins):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=12)
    parser.add_argument("--networks", type=int, default=10)
    parser.add_argument("--nuts-networks", type=int, default=6)
    parser.add_argument("--twin-networks", type=int, default=2)
    parser.add_argument("--twins", type=int, default=100)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="one small network and short chains; not stored")
    options = parser.parse_args()
    if options.tiny:
        size = Size(num_neurons=6, num_conditions=3, twin_iterations=50)
        print_table(run(0, size, (*METHODS, TWINS), TINY, num_twins=5, num_ensembles=2))
        return
    if options.summary:
        stored = load(NAME)
        print(stored["machine"])
        print_table(stored["rows"])
        return
    size = Size(num_neurons=options.neurons, twin_iterations=2000)
    stored = load(NAME) if exists(NAME) else {"neurons": options.neurons, "twins": options.twins, "rows": []}
    if (stored["neurons"], stored["twins"]) != (options.neurons, options.twins):
        stored = {"neurons": options.neurons, "twins": options.twins, "rows": []}
    rows = stored["rows"]
    counts = {"Laplace": options.networks, "NUTS": options.nuts_networks, "SVI, full": options.networks}
    counts[TWINS] = options.twin_networks
    done = {(row["network"], row["method"]) for row in rows}
    missing = {
        seed: [name for name, count in counts.items() if seed < count and (seed, name) not in done]
        for seed in range(options.networks)
    }
    to_compile = {name for names in missing.values() for name in names}
    if to_compile:
        run(options.networks, size, to_compile, METHODS | {"NUTS": TINY["NUTS"]}, num_twins=2, num_ensembles=12)
    for seed, names in missing.items():
        if not names:
            continue
        rows += run(seed, size, names, METHODS, options.twins, num_ensembles=12)
        print_table(rows)
        print(flush=True)
        store(NAME, neurons=options.neurons, twins=options.twins, rows=rows)


if __name__ == "__main__":
    main()
