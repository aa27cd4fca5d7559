"""The third evoked response of Aplysia's pedal ganglion, predicted from the first two: networks beside simple models.

Spikes during fictive locomotion, three responses to the same nerve stimulation in each of three preparations: Bruno,
Frost and Humphries, eLife 6:e27342 (2017). The recordings are no part of this package. The script looks for them in the
folder that the environment variable LRPOSTERIOR_DATA names, else in ../shared/data beside the checkout.

    pip install 'lrposterior[examples]'                             scikit-learn and statsmodels, for two baselines
    python examples/aplysia.py                                      prints the results
    python examples/aplysia.py --output docs/examples/aplysia       writes the figures and numbers of the page, too
    python examples/aplysia.py --fits .cache/aplysia                keeps fitted networks there, and takes what it finds

LRPOSTERIOR_TINY=1 makes it a test of a minute, with few neurons and bins; its files go to a temporary folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import jax
import numpy as np
from aplysia_parts import figures, tables
from aplysia_parts.baselines import Predictor, fit_average, fit_glm, fit_history, fit_linear_system
from aplysia_parts.network import compare_spectra, density_gained, density_in_blocks, predict, simulate_freely
from aplysia_parts.recordings import (
    DT,
    FILE,
    PREPARATIONS,
    PUBLISHED,
    Preparation,
    find_file,
    hidden_neurons,
    load_preparation,
)
from aplysia_parts.scores import bits_per_spike
from aplysia_parts.summaries import rate_correlations, summarize_connectivity, summarize_ranking
from page_parts.tables import rounded, save

import lrposterior as lrp

TINY = os.environ.get("LRPOSTERIOR_TINY", "") not in ("", "0")
NAMES, SIZE = (("Sep2914",), {"num_bins": 450, "max_neurons": 12}) if TINY else (PREPARATIONS, {})
SEED = 0
RANKS = (1,) if TINY else tuple(range(1, 9))
# What the network may be, tried one change after the other at this rank; a change is kept where the blocks are better.
RANK_OF_CHOICE = 1 if TINY else 2
START = {"observation": "Poisson", "drift": False, "time_constant": 0.5}
CHANGES = (
    {"observation": "negative binomial"},
    {"drift": True},
    {"time_constant": 0.25},
    {"time_constant": 1.0},
)
if TINY:
    CHANGES = CHANGES[:2]
NUM_DRAWS = 10 if TINY else 100
NUM_RUNS = 4 if TINY else 40
# What every baseline may be, all of it tried on the validation blocks.
GRIDS = {
    "history": [{"time_constant": value} for value in (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)],
    "average": [{"width": value} for value in (0.5, 1.0, 2.0, 5.0, 10.0)],
    "glm": [{"time_constant": one, "penalty": other} for one in (0.25, 0.5) for other in (0.03, 0.1, 0.3, 1.0)],
    "linear_system": [{"num_latents": value} for value in (2, 4, 8, 16)],
}
if TINY:
    GRIDS = {name: grid[:1] for name, grid in GRIDS.items()}


# [model]
OBSERVATIONS = {"Poisson": lrp.PoissonObservation, "negative binomial": lrp.NegativeBinomialObservation}


def make_model(rank: int, settings: dict) -> lrp.LowRankModel:
    return lrp.LowRankModel(
        rank,
        time_constant=settings["time_constant"],  # s
        # At low rates, scales and biases are hard to tell apart.
        observation=OBSERVATIONS[settings["observation"]](scale_spread=0.1),
        drift=lrp.SessionDrift(offset=0.5, scale=0.1) if settings["drift"] else None,
        process_noise="full",
        initial_state="free",  # the window begins amid spontaneous activity
        background=None,
        priors=lrp.Priors(),
    )


def fit(preparation: Preparation, rank: int, settings: dict) -> lrp.Posterior:
    """Fit the training recordings without their validation blocks.

    The warning that errors last from bin to bin, if it comes, is in the table of ranks as their correlation.
    """
    warnings.filterwarnings("ignore", "errors of predictions one bin ahead")
    return lrp.fit(
        make_model(rank, settings), preparation.training, lrp.Laplace(mean="mode"), seed=SEED, progress=False
    )


# [end]
def fit_or_failure(
    preparation: Preparation, rank: int, settings: dict, folder: Path | None
) -> tuple[lrp.Posterior | str, float]:
    """A posterior or what was wrong, and the seconds that it took; kept in a folder, and found there."""
    # The compiled code of one network is of no use to the next, and a process may hold only so much of it.
    jax.clear_caches()
    if folder is None:
        return _fit_or_failure(preparation, rank, settings)
    name = "_".join(str(value).replace(" ", "_") for value in (preparation.name, rank, *settings.values()))
    path, refusal = folder / f"{name}.nc", folder / f"{name}.json"
    if refusal.is_file():
        return tuple(json.loads(refusal.read_text(encoding="utf-8")))
    if path.is_file():
        posterior = lrp.load_posterior(path)
        return posterior, posterior.statistics.wall_time
    found, seconds = _fit_or_failure(preparation, rank, settings)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(found, str):
        refusal.write_text(json.dumps([found, round(seconds)]), encoding="utf-8")
    else:
        found.save(path)
    return found, seconds


def _fit_or_failure(preparation: Preparation, rank: int, settings: dict) -> tuple[lrp.Posterior | str, float]:
    started = time.perf_counter()
    try:
        posterior = fit(preparation, rank, settings)
    except lrp.FitError as error:
        return str(error).partition(":")[0], time.perf_counter() - started
    return posterior, posterior.statistics.wall_time


def score(preparation: Preparation, hidden: np.ndarray, predictor: Predictor) -> dict[str, dict[str, float | None]]:
    """Bits per spike of what was predicted in validation blocks and in the test recording."""
    mean = preparation.mean_counts

    def scores(trials: lrp.Recording, chosen: np.ndarray) -> dict[str, float | None]:
        spikes, predicted = trials.activity[chosen], predictor(trials)
        ahead, of_hidden = predicted.ahead, predicted.hidden
        return {
            "ahead": None if ahead is None else bits_per_spike(spikes, ahead[chosen], mean),
            "hidden": None if of_hidden is None else bits_per_spike(spikes[:, hidden], of_hidden[chosen], mean[hidden]),
        }

    everywhere = np.ones(preparation.test.activity.shape[:2], dtype=bool)
    return {
        "validation": scores(preparation.whole, ~preparation.fitted),
        "test": scores(preparation.test, everywhere),
    }


# [choose]
def choose(fit_baseline, grid: list[dict], preparation: Preparation, hidden: np.ndarray, task: str = "ahead") -> dict:
    """The settings with the highest score in the validation blocks, and their scores there and in the test recording.

    The scores of all settings are kept: where the test would have chosen another, the recordings differ.
    """
    tried = [
        {"settings": settings} | score(preparation, hidden, fit_baseline(preparation, hidden, **settings))
        for settings in grid
    ]
    return max(tried, key=lambda one: one["validation"][task]) | {"tried": tried}


# [end]
def run_baselines(preparation: Preparation, hidden: np.ndarray) -> dict:
    found = {
        "history": choose(fit_history, GRIDS["history"], preparation, hidden),
        "average": choose(fit_average, GRIDS["average"], preparation, hidden),
    }
    if importlib.util.find_spec("sklearn"):
        for task in ("ahead", "hidden"):
            grid = [settings | {"task": task} for settings in GRIDS["glm"]]
            found[f"glm_{task}"] = choose(fit_glm, grid, preparation, hidden, task)
    if importlib.util.find_spec("statsmodels"):
        found["linear_system"] = choose(fit_linear_system, GRIDS["linear_system"], preparation, hidden)
    return found


# [settings]
def choose_settings(preparation: Preparation, folder: Path | None) -> dict:
    """What the network is, by the held-out density of the validation blocks; with all that was tried."""
    settings, tried, best = START, [], -np.inf
    for change in ({}, *CHANGES):
        changed = settings | change
        posterior, seconds = fit_or_failure(preparation, RANK_OF_CHOICE, changed, folder)
        refused = isinstance(posterior, str)
        density = -np.inf if refused else density_in_blocks(posterior, preparation)
        print(f"  {changed}: {posterior if refused else f'{density:.3f}'} in {seconds:.0f} s", flush=True)
        tried.append({"settings": changed, "density": None if refused else density})
        if density > best or not change:
            settings, best = changed, density
    return {"settings": settings, "tried": tried}


# [end]
def run_networks(
    preparation: Preparation, hidden: np.ndarray, settings: dict, folder: Path | None
) -> tuple[dict, dict]:
    """Numbers and posteriors by rank, up to two in a row that cannot be fitted."""
    numbers, posteriors = {}, {}
    for rank in RANKS:
        if all("failure" in numbers.get(str(lower), {}) for lower in (rank - 1, rank - 2)):
            break
        posterior, seconds = fit_or_failure(preparation, rank, settings, folder)
        print(f"  rank {rank}: {posterior if isinstance(posterior, str) else 'fitted'} in {seconds:.0f} s", flush=True)
        if isinstance(posterior, str):
            numbers[str(rank)] = {"failure": posterior, "seconds": seconds}
            continue
        posteriors[rank] = posterior
        mode = posterior.mode
        numbers[str(rank)] = score(preparation, hidden, partial(predict, posterior, hidden=hidden)) | {
            "density": density_gained(posterior, preparation),
            "autocorrelation": lrp.check_fit(posterior).autocorrelation,
            "log_evidence": posterior.statistics.log_evidence,
            "num_iterations": posterior.statistics.num_iterations,
            "seconds": seconds,
            "noise": np.sqrt(np.trace(mode["M"].T @ mode["M"] @ mode["process_noise"]) / len(mode["M"])).item(),
        }
    return numbers, posteriors


# [candidates]
def make_candidates(trials: lrp.Recording, preparation: Preparation) -> lrp.Candidates:
    """Ensembles of ten neurons, patterns along the activity and single neurons: the power of a current of 1 into ten
    neurons for half a second, a second after the trial began."""
    options = {"power": 10 * 0.5, "onset": 1.0, "duration": 0.5}
    number, size = (3, 3) if TINY else (20, 10)
    spread = np.unique(np.linspace(0, trials.num_neurons - 1, number).astype(int))
    patterns = lrp.latent_candidates(preparation.whole, num_candidates=number, num_components=4, seed=1, onset=1.0)
    return lrp.combine_candidates(
        lrp.ensemble_candidates(trials, num_candidates=number, size=size, seed=2, **options),
        lrp.pattern_candidates(trials, patterns.patterns, labels=patterns.labels, **options),
        lrp.single_neuron_candidates(trials, neurons=spread, **options),
    )


def rank_candidates(preparation: Preparation, posterior: lrp.Posterior) -> lrp.PerturbationRanking:
    """In six seconds without stimulation of the nerve: the responses in the two seconds from the onset on."""
    like = preparation.training.select(trials=[0], time=slice(100, 160))
    trials = dataclasses.replace(like, mask=np.ones_like(like.mask))
    return lrp.rank_perturbations(
        posterior,
        make_candidates(trials, preparation),
        inputs=trials.inputs,
        by="certainty",
        window=(1.1, 3.0),
        num_draws=NUM_DRAWS,
        seed=SEED,
        progress=False,
    )


# [end]
def run_preparation(path: Path, name: str, folder: Path | None) -> tuple[dict, dict]:
    """Numbers, and what the figures show of the network with the best held-out density."""
    jax.clear_caches()
    preparation = load_preparation(path, name, **SIZE)
    hidden = hidden_neurons(preparation.training.num_neurons, seed=SEED)
    print(f"{name}: {preparation.training.num_neurons} neurons, baselines ...", flush=True)
    results = {
        "data": {
            "num_neurons": preparation.training.num_neurons,
            "num_hidden": int(hidden.sum()),
            "num_bins": preparation.training.num_bins,
            "num_validation": int((~preparation.fitted).sum()),
            "rates": [float(one.mean() / DT) for one in (*preparation.counts, *preparation.test.activity)],
            "rate_correlation": rate_correlations(preparation),
        },
        "baselines": run_baselines(preparation, hidden),
    }
    print("networks ...", flush=True)
    results["choice"] = choose_settings(preparation, folder)
    results["networks"], posteriors = run_networks(preparation, hidden, results["choice"]["settings"], folder)
    shown = {"preparation": preparation}
    if posteriors:
        rank = max(posteriors, key=lambda one: results["networks"][str(one)]["density"]["validation"])
        posterior = posteriors[rank]
        degeneracy = lrp.analyze_degeneracy(posterior)
        ranking = rank_candidates(preparation, posterior)
        runs = simulate_freely(posterior, preparation.test, num_draws=NUM_RUNS, seed=SEED)
        results |= {
            "rank": rank,
            "spectra": compare_spectra(preparation, runs),
            "connectivity": summarize_connectivity(posterior, degeneracy, num_draws=NUM_DRAWS, seed=SEED),
            "ranking": summarize_ranking(ranking),
        }
        shown |= {
            "predicted": predict(posterior, preparation.test, hidden),
            "hidden": hidden,
            "degeneracy": degeneracy,
            "ranking": ranking,
            "run": runs[0],
        }
    return results, shown


def run(path: Path, output: Path | None, folder: Path | None) -> None:
    missing = [name for name in ("sklearn", "statsmodels") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"Without {' and '.join(missing)}, a baseline is left out: pip install 'lrposterior[examples]'")
    results, shown = {}, {}
    for name in NAMES:
        results[name], shown[name] = run_preparation(path, name, folder)
    stored = rounded({"version": lrp.__version__, "seed": SEED, "preparations": results})
    print(f"\n{tables.as_markdown(stored)}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        figures.save_all(output, stored, shown)
        save(stored, tables.as_markdown(stored), output)
        print(f"\nThe figures, results.json and results.md are in {output}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder for the figures, results.json and results.md")
    parser.add_argument("--fits", type=Path, help="folder that keeps fitted networks, and from which they are taken")
    arguments = parser.parse_args()
    path = find_file()
    if path is None:
        print(f"There is no {FILE} here. {PUBLISHED}")
    elif TINY:
        with tempfile.TemporaryDirectory() as temporary:
            run(path, Path(temporary), None)
    else:
        run(path, arguments.output, arguments.fits)


if __name__ == "__main__":
    main()
