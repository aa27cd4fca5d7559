"""Every family of models, fitted to one recording and scored on perturbations that it never saw."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import lrposterior as lrp
from delayed_response_parts.experiment import CLASSES, TWIN, Experiment, Size, make_experiment, window
from delayed_response_parts.task import TAU, train

AT_ONCE = 10
PREDICTION = {"quantity": "rate", "seed": 1}
SCORES = (
    "90% coverage",
    "expected R², median",
    "achieved R², median",
    "expected R², pooled",
    "achieved R², pooled",
    "Spearman",
)


# [families]
def low_rank(size: Size, *, bulk: bool) -> lrp.LowRankModel:
    return lrp.LowRankModel(size.rank, time_constant=TAU, background=lrp.RandomBulk() if bulk else None)


def families(experiment: Experiment, size: Size) -> dict[str, Callable[[], Any]]:
    """What fits each of them."""
    recording, outputs = experiment.recording, experiment.trials.targets[:, :, None]
    twins = functools.partial(lrp.Ensemble, size.num_replicates, num_steps=size.twin_steps)
    circuits = lrp.Ensemble(size.num_replicates, 1.0, size.circuit_steps, validation_fraction=0.0)

    def fit(model: Any, method: Any = "laplace", **options: Any) -> Callable[[], Any]:
        return functools.partial(lrp.fit, model, recording, method, seed=0, progress=False, **options)

    def circuit(num_nodes: int) -> lrp.LatentCircuit:
        return lrp.LatentCircuit(num_nodes, time_constant=TAU, outputs=outputs)

    @functools.cache
    def with_bulk() -> lrp.Posterior:
        return fit(low_rank(size, bulk=True))()

    def learned() -> lrp.Posterior:
        """The same fit: what K reads of unseen patterns is no matter of the recording."""
        model = with_bulk().model
        bulk = dataclasses.replace(model.background, learned=True)
        return dataclasses.replace(with_bulk(), model=dataclasses.replace(model, background=bulk))

    largest = size.circuit_sizes[-1]
    return {
        "posterior, learned": learned,
        "posterior with a bulk": with_bulk,
        "posterior, low rank only": fit(low_rank(size, bulk=False)),
        "twins": fit(TWIN, twins()),
        "twins, regularised": fit(TWIN, twins(regularisation=1.0)),
        **{f"circuits, {nodes} nodes": fit(circuit(nodes), circuits) for nodes in size.circuit_sizes},
        f"circuit posterior, {largest} nodes": fit(
            circuit(largest), num_restarts=4, max_iterations=2 * size.circuit_steps
        ),
    }


# [end]
def run(seed: int, size: Size, folder: Path | None = None) -> dict[str, Any]:
    """Train a network, record it, fit every family and score all of them.

    Results are stored in a folder after every fit, and a second call goes on where the first one ended. Of a fit that
    failed the reason is kept.
    """
    stored = None if folder is None else folder / f"network_{seed}.json"
    network, error = train(size.num_units, seed, size.num_steps)
    experiment = make_experiment(network, size, seed)
    results: dict[str, Any] = {"seed": seed, "task error": error, "families": {}, "failed": {}}
    if stored is not None and stored.exists():
        results |= json.loads(stored.read_text(encoding="utf-8"))

    def store() -> None:
        if stored is not None:
            stored.write_text(json.dumps(results, indent=1), encoding="utf-8")

    for name, fit in families(experiment, size).items():
        if name in results["families"] or name in results["failed"]:
            continue
        started = time.perf_counter()
        try:
            posterior = fit()
        except lrp.FitError as failure:
            results["failed"][name] = str(failure)
            store()
            continue
        fitted = time.perf_counter() - started
        found = {"seconds": fitted, "status": posterior.status, **score(posterior, experiment, size)}
        if "circuit" in name:
            found |= describe_circuits(posterior, network["W"], size)
        found["seconds in all"] = time.perf_counter() - started
        results["families"][name] = found
        print(f"network {seed}, {name}: {fitted:.0f} s", flush=True)
        store()
    return results


def score(posterior: Any, experiment: Experiment, size: Size) -> dict[str, Any]:
    """Scores by class; of every network of an ensemble its losses, and its own R² by class as well."""
    is_ensemble = posterior.method == "ensemble"
    num_draws = size.num_replicates if is_ensemble else size.num_draws

    def predictions() -> Iterator[np.ndarray]:
        for start in range(0, experiment.candidates.num_candidates, AT_ONCE):
            some = experiment.candidates.select(slice(start, start + AT_ONCE))
            yield lrp.predict_responses(
                posterior, some, inputs=experiment.inputs, window=window(), num_draws=num_draws, **PREDICTION
            )

    chunks = list(predictions()) if is_ensemble else predictions()
    scores = lrp.score_predictions(chunks, experiment.truth, classes=experiment.classes, seed=0)
    tested = experiment.tested
    rates = posterior.predict_rates(tested.inputs, num_draws=min(num_draws, 40), seed=1)
    variance = np.sum((tested.activity - tested.activity.mean(axis=(0, 1))) ** 2)
    found: dict[str, Any] = {
        "activity R²": (1.0 - np.sum((rates - tested.activity) ** 2, axis=(1, 2, 3)) / variance).tolist(),
        "scores": {name: {one: round(scores[name][one].value, 4) for one in SCORES} for name in scores.class_names},
        "ceilings": {name: {one: round(scores[name][one].ceiling, 4) for one in SCORES} for name in scores.class_names},
        "expected R²": scores.expected_r2.tolist(),
        "achieved R²": scores.achieved_r2.tolist(),
    }
    if is_ensemble:
        draws = np.concatenate(chunks, axis=1)
        found["validation loss"] = posterior.statistics.validation_loss.tolist()
        found["R² of each"] = {name: each_r2(draws, experiment, name) for name in CLASSES}
    return found


def each_r2(draws: np.ndarray, experiment: Experiment, name: str) -> list[float]:
    """(network,) R² of every network on its own, pooled over the candidates of a class."""
    chosen = np.array([one == name for one in experiment.classes])
    true = experiment.truth[chosen]
    errors = np.sum((draws[:, chosen] - true) ** 2, axis=(1, 2, 3, 4))
    return (1.0 - errors / np.sum(true**2)).tolist()


def describe_circuits(posterior: lrp.NetworkPosterior, W: np.ndarray, size: Size) -> dict[str, Any]:
    """Whether the circuits' connectivity is that of the network between the same patterns, and how far it scatters."""
    num_draws = size.num_replicates if posterior.method == "ensemble" else size.num_draws
    draws = posterior.sample_parameters(num_draws, seed=1)
    true = np.einsum("din,ij,djm->dnm", draws["Q"], W, draws["Q"])
    agreement = [np.corrcoef(w.ravel(), other.ravel())[0, 1] for w, other in zip(draws["w"], true, strict=True)]
    matched = posterior.sample_connectivity(num_draws, seed=1)
    lower, upper = np.quantile(matched - true if posterior.method == "laplace" else matched, [0.05, 0.95], axis=0)
    return {
        "agreement": agreement,
        "dispersion": float(np.sqrt(np.mean(matched.var(axis=0)) / np.mean(matched**2))),
        "cover of Q^T W Q": float(np.mean((lower <= 0.0) & (upper >= 0.0))) if posterior.method == "laplace" else None,
    }
