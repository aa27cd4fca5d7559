"""The tables of the page."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from delayed_response_parts.experiment import CLASSES

WITH_BULK = {"posterior, learned": "learned", "posterior with a bulk": "any K"}
SHORT = {"random ensembles": "ensembles", "single units": "single units", "latent directions": "latent"}


def make_tables(results: list[dict]) -> str:
    parts = {"scores": scores(results), "seeds": by_seed(results), "circuits": circuits(results), "run": run(results)}
    return "\n".join(f"<!-- {name}: start -->\n{text}\n<!-- {name}: end -->\n" for name, text in parts.items())


def families(results: list[dict]) -> list[str]:
    """Those that were fitted to any of the networks, in their order."""
    return list(dict.fromkeys(name for one in results for name in one["families"]))


def fitted(results: list[dict], family: str) -> list[dict]:
    """What was found of a family, for every network that it could be fitted to."""
    return [one["families"][family] for one in results if family in one["families"]]


def over_seeds(results: list[dict], family: str, value: Callable[[dict], float]) -> np.ndarray:
    return np.array([value(found) for found in fitted(results, family)])


def scores(results: list[dict]) -> str:
    """Every family by class, medians over networks: promised and achieved R² and cover."""
    head = ["model", "R² of unperturbed activity"]
    head += [f"{SHORT[name]}: promised, achieved, cover" for name in CLASSES] + ["Spearman (ceiling)"]
    rows = []
    for family in families(results):
        activity = over_seeds(results, family, lambda one: float(np.median(one["activity R²"])))
        shown = family if len(activity) == len(results) else f"{family} ({len(activity)} of {len(results)} fits)"
        row = [shown, f"{np.median(activity):.3f}"]
        for name in CLASSES:
            cells = [
                np.median(over_seeds(results, family, lambda one, s=score, n=name: one["scores"][n][s]))
                for score in ("expected R², pooled", "achieved R², pooled", "90% coverage")
            ]
            row.append(", ".join(f"{cell:.2f}" for cell in cells))
        ranked = over_seeds(results, family, lambda one: one["scores"]["all"]["Spearman"])
        ceiling = over_seeds(results, family, lambda one: one["ceilings"]["all"]["Spearman"])
        row.append(f"{np.median(ranked):.2f} ({np.median(ceiling):.2f})")
        rows.append(row)
    return table(head, rows)


def by_seed(results: list[dict]) -> str:
    """The posteriors with a bulk, every network and class apart."""
    head = ["posterior", "network", "class", "90% cover", "promised, achieved (median)", "gap"]
    head += ["promised, achieved (pooled)", "gap"]
    rows = []
    for family in WITH_BULK:
        for one in results:
            for name in CLASSES:
                found = one["families"][family]["scores"][name]
                row = [WITH_BULK[family], str(one["seed"]), SHORT[name], f"{found['90% coverage']:.2f}"]
                for kind in ("median", "pooled"):
                    promised, achieved = found[f"expected R², {kind}"], found[f"achieved R², {kind}"]
                    row += [f"{promised:.2f}, {achieved:.2f}", f"{abs(promised - achieved):.2f}"]
                rows.append(row)
    return table(head, rows)


def circuits(results: list[dict]) -> str:
    """Agreement of w with Q^T W Q, scatter of the replicates, and what the Laplace posterior says."""
    head = ["circuits", "R² of activity", "correlation of w with Q^T W Q (5%, 95%)", "dispersion", "cover of Q^T W Q"]
    rows = []
    for family in families(results):
        if "circuit" not in family:
            continue
        together = np.concatenate([found["agreement"] for found in fitted(results, family)])
        activity = np.concatenate([found["activity R²"] for found in fitted(results, family)])
        cover = fitted(results, family)[0]["cover of Q^T W Q"]
        if cover is not None:
            cover = float(np.median(over_seeds(results, family, lambda one: one["cover of Q^T W Q"])))
        lower, upper = np.quantile(together, [0.05, 0.95])
        rows.append(
            [
                family,
                f"{np.median(activity):.3f}",
                f"{np.median(together):.2f} ({lower:.2f}, {upper:.2f})",
                f"{np.median(over_seeds(results, family, lambda one: one['dispersion'])):.2f}",
                "–" if cover is None else f"{cover:.2f}",
            ]
        )
    return table(head, rows)


def run(results: list[dict]) -> str:
    errors = ", ".join(f"{one['task error']:.1e}" for one in results)
    minutes = sum(found["seconds in all"] for one in results for found in one["families"].values()) / 120
    rank = np.mean([correlation for one in results for correlation in loss_correlations(one).values()])
    failed = [f"{name} of network {one['seed']}: {why}" for one in results for name, why in one["failed"].items()]
    failures = " Fits that failed: " + "; ".join(failed) + "." if failed else ""
    return (
        f"Squared error of the trained networks on new trials of the task: {errors}. The rank correlation between "
        f"validation loss and R² on random ensembles, over the networks of an ensemble, is {rank:.2f} on average over "
        f"ensembles of twins. Fits and predictions took {minutes:.0f} minutes of two processes."
        f"{failures}"
    )


def loss_correlations(one: dict) -> dict[str, float]:
    """Spearman of validation loss (negative) and own R² on random ensembles, for ensembles of twins."""
    found = {}
    for family, values in one["families"].items():
        if family.startswith("twins"):
            loss, r2 = np.array(values["validation loss"]), np.array(values["R² of each"][CLASSES[0]])
            found[family] = float(np.corrcoef(np.argsort(np.argsort(-loss)), np.argsort(np.argsort(r2)))[0, 1])
    return found


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)
