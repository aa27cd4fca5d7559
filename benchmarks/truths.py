"""Does the promise hold where the model is wrong?

One table: truths that the model holds and truths that it does not, each fitted by our posterior (random bulk,
correlated loadings) and by what else one might do. Truths, 60 neurons of tanh units unless it is said, recorded in 24
trials of 70 bins with noise of standard deviation 0.1 and two inputs:

- matched: rank 2, no bulk; bulk 0.25, 0.5, 0.8: the same and W0_ij ~ Normal(0, g² / N);
- trained: a network of full rank trained on a delayed-response task (`examples/delayed_response.py`), fitted with
  rank 3;
- modular: linear units in twenty clusters, coupled within (`--modular-neurons 1000`: clusters of 50);
- asymmetric: rank 2, a rotation between the latents, biases of standard deviation 1;
- wrong nonlinearity: the matched truth fitted by linear units;
- rank 1, rank 4: rank 2 with a bulk of 0.25, fitted with one less and two more;
- half the noise: the same, fitted with a known noise of half the size.

Methods: posterior; learned (the same fit read with `RandomBulk(learned=True)`); mode (the mode of the posterior alone:
it promises nothing); low rank (without a bulk); twins (20 full-rank networks from random starts); mean field
(mean-field SVI of the same model).

For each class of patterns (as in `bulk.py`) the expected and the achieved R², pooled, and the share of responses within
their 90% interval; the Spearman correlation of certainty and R² over all of them, and its ceiling.

    python benchmarks/truths.py --networks 2
    python benchmarks/truths.py --truths modular --modular-neurons 1000 --methods posterior
    python benchmarks/truths.py --summary
    python benchmarks/truths.py --tiny

Last, whether `check_fit` warns: of the recording that was fitted, and of eight trials with stimulation (two patterns of
each class, not those of the table).

Results are stored after every fit in benchmarks/results, and a second call goes on where the first one ended.
"""

import argparse
import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import stored
from bulk import CLASSES, DT, NUM_BINS, NUM_STIMULATED, ONSET, POWER_NORM, TAU, WINDOW, make_patterns

import lrposterior as lrp
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.responses import response_draws

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from delayed_response_parts.task import make_trials, train

NAME = "truths"
NOISE, NUM_CONDITIONS, NUM_DRAWS, NUM_TWINS, AT_ONCE = 0.1, 4, 299, 20, 10
METHODS = ("posterior", "learned", "mode", "low rank", "twins", "mean field")
SCORES = ("expected R², pooled", "achieved R², pooled", "90% coverage", "Spearman")
Network = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Size:
    num_neurons: int = 60
    modular_neurons: int = 60
    num_trials: int = 24
    per_class: int = 15
    training_steps: int = 600
    svi_steps: int = 3000
    twin_steps: int = 150


TINY = Size(20, 20, 6, 2, 20, 50, 5)


@dataclasses.dataclass(frozen=True)
class Truth:
    """How to make a network, its nonlinearity, and with what it is fitted (None: its own), rank and other options."""

    make: Callable[[np.random.Generator, int], Network]
    nonlinearity: str = "tanh"
    fitted: str | None = None
    rank: int = 2
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


def low_rank(random: np.random.Generator, num_neurons: int, gain: float = 0.0) -> Network:
    M, K = random.standard_normal((2, num_neurons, 2))
    W = M @ (2.0 * K).T / num_neurons + gain / np.sqrt(num_neurons) * random.standard_normal((num_neurons, num_neurons))
    return {"W": W, "B": random.standard_normal((num_neurons, 2)), "b": 0.5 * random.standard_normal(num_neurons)}


def asymmetric(random: np.random.Generator, num_neurons: int) -> Network:
    M, noise = random.standard_normal((2, num_neurons, 2))
    rotation = np.array([[1.0, 0.8], [-0.8, 1.0]])
    W = M @ (M @ rotation + noise).T / num_neurons
    return {"W": W, "B": random.standard_normal((num_neurons, 2)), "b": random.standard_normal(num_neurons)}


def modular(random: np.random.Generator, num_neurons: int) -> Network:
    size = num_neurons // 20
    W = np.kron(np.diag(random.uniform(0.3, 0.9, 20) / size), np.ones((size, size)))
    W += 0.02 / np.sqrt(num_neurons) * random.standard_normal(W.shape)
    return {"W": W, "B": random.standard_normal((num_neurons, 2)), "b": np.zeros(num_neurons)}


def bulk(gain: float) -> Callable[[np.random.Generator, int], Network]:
    return lambda random, num_neurons: low_rank(random, num_neurons, gain)


HALF_THE_NOISE = {"priors": lrp.CorrelatedLoadings(noise_scale=NOISE / 2, noise_spread=1e-3, unit=1.0)}
TRUTHS = {
    "matched": Truth(low_rank),
    "bulk 0.25": Truth(bulk(0.25)),
    "bulk 0.5": Truth(bulk(0.5)),
    "bulk 0.8": Truth(bulk(0.8)),
    "trained": Truth(low_rank, rank=3),
    "modular": Truth(modular, "linear"),
    "asymmetric": Truth(asymmetric),
    "wrong nonlinearity": Truth(low_rank, fitted="linear"),
    "rank 1": Truth(bulk(0.25), rank=1),
    "rank 4": Truth(bulk(0.25), rank=4),
    "half the noise": Truth(bulk(0.25), options=HALF_THE_NOISE),
}


@functools.lru_cache(maxsize=1)
def record(name: str, seed: int, size: Size) -> tuple[lrp.NetworkPosterior, lrp.Recording]:
    """The true network, and its recording."""
    random, truth = np.random.default_rng([seed, 5]), TRUTHS[name]
    if name == "trained":
        network, _ = train(size.num_neurons, seed, size.training_steps)
        inputs = make_trials(size.num_trials, seed + 1000).inputs
    else:
        num_neurons = size.modular_neurons if name == "modular" else size.num_neurons
        network = truth.make(random, num_neurons)
        inputs = lrp.simulate_recording(
            lrp.LowRankModel(1, background=None, priors=lrp.Priors()),
            num_neurons=2,
            num_trials=size.num_trials,
            num_bins=NUM_BINS,
            dt=DT,
            seed=seed,
        ).recording.inputs
    model = lrp.FullRankNetwork(time_constant=TAU, nonlinearity=truth.nonlinearity)
    silent = lrp.Recording(np.zeros((*inputs.shape[:2], len(network["b"]))), DT, inputs=inputs)
    true = lrp.NetworkPosterior.known(model, silent, network)
    rates = true.predict_rates(num_draws=1, seed=0)[0]
    return true, lrp.Recording(rates + NOISE * random.standard_normal(rates.shape), DT, inputs=inputs)


@functools.lru_cache(maxsize=2)
def fit(method: str, name: str, seed: int, size: Size) -> lrp.Posterior | lrp.NetworkPosterior:
    truth, recording = TRUTHS[name], record(name, seed, size)[1]
    if method == "learned":
        posterior = fit("posterior", name, seed, size)
        background = dataclasses.replace(posterior.model.background, learned=True)
        return dataclasses.replace(posterior, model=dataclasses.replace(posterior.model, background=background))
    nonlinearity = truth.fitted or truth.nonlinearity
    quiet = {"seed": 0, "progress": False}
    if method == "twins":
        twins = lrp.FullRankNetwork(time_constant=TAU, nonlinearity=nonlinearity)
        return lrp.fit(twins, recording, lrp.Ensemble(NUM_TWINS, 0.0, size.twin_steps), **quiet)
    options = truth.options | ({"background": None} if method == "low rank" else {})
    model = lrp.LowRankModel(truth.rank, time_constant=TAU, nonlinearity=nonlinearity, **options)
    chosen = lrp.SVI("mean_field", num_steps=size.svi_steps) if method == "mean field" else lrp.Laplace()
    return lrp.fit(model, recording, chosen, **quiet)


def run(name: str, method: str, seed: int, size: Size) -> dict[str, Any]:
    true, recording = record(name, seed, size)
    started = time.perf_counter()
    key = {"truth": name, "method": method, "seed": seed, "neurons": recording.num_neurons}
    try:
        posterior = fit("posterior" if method == "mode" else method, name, seed, size)
    except lrp.FitError as refusal:
        return key | {"refused": str(refusal)}
    seconds = time.perf_counter() - started
    patterns = make_patterns(recording, seed, size.per_class)
    candidates = lrp.pattern_candidates(
        recording,
        patterns,
        power=POWER_NORM**2 * NUM_STIMULATED * DT,
        onset=ONSET * DT,
        duration=NUM_STIMULATED * DT,
    )
    asked = {"inputs": recording.inputs[:NUM_CONDITIONS], "window": (ONSET * DT, (ONSET + WINDOW) * DT)}
    asked |= {"quantity": "rate", "seed": 1}
    truth = lrp.predict_responses(true, candidates, num_draws=1, **asked)[0]
    classes = np.repeat(CLASSES, size.per_class).tolist()
    if method == "mode":
        at_mode = predict_at_mode(posterior, candidates, **asked)
        scores = {one: {"achieved R², pooled": pooled_r2(at_mode, truth, classes, one)} for one in CLASSES}
        return key | {"seconds": seconds, "status": posterior.status, "scores": scores}
    num_draws = NUM_TWINS if method == "twins" else NUM_DRAWS
    # A few at a time: the draws of all responses of a thousand neurons would take 17 GB.
    draws = (
        lrp.predict_responses(posterior, candidates.select(slice(start, start + AT_ONCE)), num_draws=num_draws, **asked)
        for start in range(0, candidates.num_candidates, AT_ONCE)
    )
    found = lrp.score_predictions(draws, truth, classes=classes, seed=0)
    scores = {one: {score: round(found[one][score].value, 4) for score in SCORES} for one in found.class_names}
    ceiling = round(found["all"]["Spearman"].ceiling, 4)
    result = key | {"seconds": seconds, "status": posterior.status, "scores": scores, "ceiling": ceiling}
    if isinstance(posterior, lrp.Posterior):
        trials = stimulate(true, recording, seed)
        checks = [lrp.check_fit(posterior), lrp.check_fit(posterior, trials)]
        result |= {"warns": [bool(check.warnings) for check in checks], "checks": [str(check) for check in checks]}
    return result


def stimulate(true: lrp.NetworkPosterior, recording: lrp.Recording, seed: int) -> lrp.Recording:
    """Eight trials with stimulation, two patterns of each class."""
    patterns = POWER_NORM * make_patterns(recording, seed + 1000, 2)
    stimulation = np.zeros((len(patterns), recording.num_bins, recording.num_neurons))
    stimulation[:, ONSET : ONSET + NUM_STIMULATED] = patterns[:, None]
    trials = lrp.Recording(
        np.zeros(stimulation.shape),
        DT,
        inputs=np.resize(recording.inputs, (len(patterns), *recording.inputs.shape[1:])),
        stimulation=stimulation,
    )
    network = {name: value[0] for name, value in true.sample_parameters(1, seed=0).items()}
    rates = lrp.NetworkPosterior.known(true.model, trials, network).predict_rates(num_draws=1, seed=0)[0]
    noise = np.random.default_rng([seed, 6]).standard_normal(rates.shape)
    return dataclasses.replace(trials, activity=rates + NOISE * noise)


def predict_at_mode(posterior: lrp.Posterior, candidates: lrp.Candidates, **asked: Any) -> np.ndarray:
    experiment = make_experiment(posterior, candidates, asked["inputs"], asked["window"])
    mode = {name: value[None] for name, value in posterior.mode.items()}
    return response_draws(posterior.model, mode, experiment, asked["quantity"])[0]


def pooled_r2(predicted: np.ndarray, truth: np.ndarray, classes: list[str], name: str) -> float:
    chosen = np.array([one == name for one in classes])
    return float(1.0 - np.sum((predicted[chosen] - truth[chosen]) ** 2) / np.sum(truth[chosen] ** 2))


def summarise(results: list[dict[str, Any]]) -> None:
    """A table in Markdown."""
    print("expected R², achieved R² (pooled), 90% cover; medians over networks\n")
    header = ["truth", "method", "networks", *CLASSES, "Spearman (ceiling)", "warned: fit, trials"]
    print(" | ".join(["", *header, ""]).strip())
    print("|---" * len(header) + "|")
    for name in TRUTHS:
        for method in METHODS:
            chosen = [one for one in results if one["truth"] == name and one["method"] == method]
            for neurons in sorted({one["neurons"] for one in chosen}):
                of_size = [one for one in chosen if one["neurons"] == neurons]
                label = name if neurons <= Size.num_neurons else f"{name}, {neurons:,} neurons"
                print(" | ".join(["", label, method, *cells(of_size), ""]).strip())


def cells(chosen: list[dict[str, Any]]) -> list[str]:
    """A row: number of networks, the three scores of every class, Spearman and its ceiling, warnings."""
    fitted = [one for one in chosen if "scores" in one]
    number = str(len(chosen)) if len(fitted) == len(chosen) else f"{len(chosen)}, {len(chosen) - len(fitted)} refused"

    def median(one_class: str, score: str) -> float:
        return float(np.median([one["scores"].get(one_class, {}).get(score, np.nan) for one in fitted]))

    if not fitted:
        return [number] + ["–"] * (len(CLASSES) + 2)
    row = [", ".join(shown(median(each, score)) for score in SCORES[:3]) for each in CLASSES]
    ceiling = float(np.median([one.get("ceiling", np.nan) for one in fitted]))
    warned = [one["warns"] for one in fitted if "warns" in one]
    counts = ", ".join(str(sum(each)) for each in zip(*warned, strict=True)) if warned else "–"
    return [number, *row, f"{shown(median('all', 'Spearman'))} ({shown(ceiling)})", counts]


def shown(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}".replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truths", nargs="+", choices=TRUTHS, default=list(TRUTHS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--networks", type=int, default=2)
    parser.add_argument("--modular-neurons", type=int, default=Size.modular_neurons)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="small networks that are not stored")
    options = parser.parse_args()
    if options.tiny:
        summarise([run(name, method, 0, TINY) for name in ("bulk 0.5", "trained") for method in METHODS])
        return
    results = stored.load(NAME)["fits"] if stored.exists(NAME) else []
    size = Size(modular_neurons=options.modular_neurons)
    if not options.summary:
        for seed in range(options.networks):
            for name in options.truths:
                for method in options.methods:
                    neurons = size.modular_neurons if name == "modular" else size.num_neurons
                    key = {"truth": name, "method": method, "seed": seed, "neurons": neurons}
                    if any(key.items() <= one.items() for one in results):
                        continue
                    results.append(run(name, method, seed, size))
                    stored.store(NAME, fits=results)
                    print(f"{key}: {results[-1].get('seconds', np.nan):.0f} s", flush=True)
    summarise(results)


if __name__ == "__main__":
    main()
