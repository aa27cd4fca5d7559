"""Is the certainty right where the true connectivity is not of low rank?

True networks: W = M K^T / N + W0 with M and K of rank 2 and W0_ij ~ Normal(0, g² / N), recorded in 24 trials of 70 bins
with two inputs of smooth noise and noise of standard deviation 0.1. A network is fitted with a random bulk whose gain
is inferred, and without one. Perturbations of norm sqrt(10), for 5 bins, in four classes of patterns: in the plane of
the first two principal components of the activity ("latent"), random, orthogonal to all visited directions
("off-manifold") and of ten neurons. Scored on the response without the direct effect of the stimulation, in 30 bins
from its onset, in eight of the recorded trials.

For every class: share of responses within their 90% interval, median certainty (the expected R²), median R² of the
posterior mean against the baseline "no response", and the median that this R² has where draws of the posterior take the
place of the truth: the certainty is that of means, and where it is small the median of R² lies elsewhere even so.

    python benchmarks/bulk.py --neurons 100 --gains 0 0.25 0.5 0.8 --networks 5
    python benchmarks/bulk.py --neurons 100 --gains 0.5 --networks 1 --dimension 12
    python benchmarks/bulk.py --summary
    python benchmarks/bulk.py --tiny

Results are stored after every network in benchmarks/results, and a second call goes on where the first one ended.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from perturbation import HIGHEST, LOWEST, NUM_DRAWS, respond, squares, unit

import lrposterior as lrp
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.prediction import predict_responses

RESULTS = Path(__file__).parent / "results" / "bulk.json"
DT, TAU, NOISE, POWER_NORM = 0.02, 0.1, 0.1, np.sqrt(10.0)
NUM_TRIALS, NUM_BINS, NUM_CONDITIONS, ONSET, NUM_STIMULATED, WINDOW = 24, 70, 8, 20, 5, 30
CLASSES = ("latent", "random", "off-manifold", "ten neurons")
PER_CLASS, CANDIDATES_AT_ONCE, DRAWS_AS_TRUTH = 15, 10, 20
MODELS = ("correlated", "independent", "low rank only")


def make_truth(num_neurons: int, gain: float, seed: int, num_trials: int) -> tuple[lrp.LowRankModel, lrp.Simulation]:
    """The true model with its W0, and its recording."""
    W0 = gain / np.sqrt(num_neurons) * np.random.default_rng([seed, 3]).standard_normal((num_neurons, num_neurons))
    truth = lrp.LowRankModel(rank=2, time_constant=TAU, background=lrp.FixedBackground(W0), priors=lrp.Priors())
    simulation = lrp.simulate_recording(
        truth, num_neurons=num_neurons, num_trials=num_trials, num_bins=NUM_BINS, dt=DT, noise_scale=NOISE, seed=seed
    )
    return truth, simulation


def make_patterns(recording: lrp.Recording, seed: int, per_class: int) -> np.ndarray:
    """(candidate, neuron) patterns of unit norm, class after class."""
    random, num_neurons = np.random.default_rng([seed, 7]), recording.num_neurons
    activity = recording.activity.reshape(-1, num_neurons)
    _, values, rows = np.linalg.svd(activity - activity.mean(axis=0), full_matrices=False)
    visited = rows[values > NOISE * (np.sqrt(len(activity)) + np.sqrt(num_neurons))]
    latent = unit(random.standard_normal((per_class, 2))) @ rows[:2]
    dense, off = random.standard_normal((2, per_class, num_neurons))
    ensembles = np.zeros((per_class, num_neurons))
    for pattern in ensembles:
        pattern[random.choice(num_neurons, 10, replace=False)] = 1.0
    return np.concatenate([latent, unit(dense), unit(off - off @ visited.T @ visited), unit(ensembles)])


def make_model(kind: str, dimension: int | None) -> lrp.LowRankModel:
    priors = lrp.CorrelatedLoadings() if kind == "correlated" else lrp.Priors()
    background = None if kind == "low rank only" else lrp.RandomBulk(dimension=dimension)
    return lrp.LowRankModel(rank=2, time_constant=TAU, background=background, priors=priors)


def score(posterior: lrp.Posterior, truth: lrp.LowRankModel, simulation: lrp.Simulation, patterns: np.ndarray) -> dict:
    """Coverage, certainty and R² of every candidate."""
    recording = simulation.recording
    candidates = lrp.pattern_candidates(
        recording, patterns, power=POWER_NORM**2 * NUM_STIMULATED * DT, onset=ONSET * DT, duration=NUM_STIMULATED * DT
    )
    inputs, window = recording.inputs[:NUM_CONDITIONS], (ONSET * DT, (ONSET + WINDOW) * DT)
    experiment = make_experiment(posterior, candidates, inputs, window)
    true_parameters = {name: value for name, value in simulation.parameters.items() if name != "W0"}
    truth_response = respond(truth.for_recording(recording), true_parameters, experiment)
    found: dict[str, list] = {"cover": [], "certainty": [], "R2": [], "R2 of draws": []}
    for start in range(0, len(truth_response), CANDIDATES_AT_ONCE):
        some = slice(start, start + CANDIDATES_AT_ONCE)
        draws = predict_responses(
            posterior, candidates.select(some), inputs=inputs, window=window, num_draws=NUM_DRAWS, seed=1
        )
        draws, true = draws.reshape(*draws.shape[:2], -1), truth_response[some]
        mean, spread = draws.mean(axis=0), draws.var(axis=0, ddof=1).sum(axis=1)
        power = np.maximum(squares(mean) - spread / NUM_DRAWS, 0.0)
        below, moved = np.sum(draws < true, axis=0), true != 0.0
        covered = (below >= LOWEST) & (below <= HIGHEST) & moved
        found["cover"] += (covered.sum(axis=1) / moved.sum(axis=1)).tolist()
        found["certainty"] += (power / (power + spread)).tolist()
        found["R2"] += (1.0 - squares(true - mean) / squares(true)).tolist()
        truths = draws[:DRAWS_AS_TRUTH]
        left_out = (NUM_DRAWS * mean - truths) / (NUM_DRAWS - 1)
        found["R2 of draws"] += np.round(1.0 - squares(truths - left_out) / squares(truths), 3).T.tolist()
    return found


def run(num_neurons: int, gain: float, seed: int, kind: str, dimension: int | None, *, tiny: bool = False) -> dict:
    started = time.perf_counter()
    truth, simulation = make_truth(num_neurons, gain, seed, 4 if tiny else NUM_TRIALS)
    posterior = lrp.fit(make_model(kind, dimension), simulation.recording, seed=0, progress=False)
    fitted = time.perf_counter() - started
    patterns = make_patterns(simulation.recording, seed, 2 if tiny else PER_CLASS)
    background = posterior.model.background
    return {
        "neurons": num_neurons,
        "gain": gain,
        "seed": seed,
        "model": kind,
        "asked dimension": dimension,
        "dimension": None if background is None else background.dimension,
        "scales": {name: [float(each) for each in value] for name, value in posterior.statistics.scales.items()},
        "log evidence": posterior.statistics.log_evidence,
        "seconds of fit": fitted,
        **score(posterior, truth, simulation, patterns),
    }


def load() -> list[dict]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else []


def summarise(results: list[dict]) -> None:
    """A table in Markdown."""
    print("90% cover, median certainty, median R² (that with draws as truths)\n")
    header = ["neurons", "g", "networks", "model", "directions", "gain found", *CLASSES]
    print("| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|")
    groups: dict[tuple, list[dict]] = {}
    for one in results:
        key = (one["neurons"], one["model"], one["dimension"] or 0, one["gain"])
        groups.setdefault(key, []).append(one)
    for (num_neurons, kind, dimension, gain), chosen in sorted(groups.items()):
        found = ", ".join(f"{one['scales']['gain'][0]:.2f}" for one in chosen if "gain" in one["scales"])
        row = [str(num_neurons), f"{gain:g}", str(len(chosen)), kind, str(dimension or "–"), found or "–"]
        print("| " + " | ".join([*row, *(cell(chosen, index) for index in range(len(CLASSES)))]) + " |")


def cell(chosen: list[dict], index: int) -> str:
    """Of one class of candidates of some networks."""

    def values(name: str) -> np.ndarray:
        return np.concatenate([np.ravel(np.array_split(one[name], len(CLASSES))[index]) for one in chosen])

    shown = [values("cover").mean(), np.median(values("certainty")), np.median(values("R2"))]
    text = ", ".join(f"{value:.2f}" for value in shown)
    if all("R2 of draws" in one for one in chosen):
        text += f" ({np.median(values('R2 of draws')):.2f})"
    return text.replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=100)
    parser.add_argument("--gains", type=float, nargs="+", default=[0.0, 0.25, 0.5, 0.8])
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--dimension", type=int, help="of the visited subspace; found in the recording if left out")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["correlated"])
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="a small network that is not stored")
    options = parser.parse_args()
    if options.tiny:
        summarise([run(20, 0.5, 0, kind, 3 if kind != "low rank only" else None, tiny=True) for kind in MODELS])
        return
    if not options.summary:
        for seed in range(options.networks):
            for gain in options.gains:
                for kind in options.models:
                    key = [options.neurons, gain, seed, kind, options.dimension]
                    fields = ("neurons", "gain", "seed", "model", "asked dimension")
                    if any([one[field] for field in fields] == key for one in load()):
                        continue
                    try:
                        result = run(options.neurons, gain, seed, kind, options.dimension)
                    except lrp.FitError as failure:
                        print(f"{key}: {failure}", flush=True)
                        continue
                    print(f"{key}: {result['seconds of fit']:.0f} s, {result['scales']}", flush=True)
                    RESULTS.parent.mkdir(exist_ok=True)
                    RESULTS.write_text(json.dumps([*load(), result]))
    summarise(load())


if __name__ == "__main__":
    main()
