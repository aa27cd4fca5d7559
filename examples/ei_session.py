"""From an exported session to an excitatory-inhibitory network that is diagnosed, fitted, compared and perturbed.

    python examples/ei_session.py                                      prints the results
    python examples/ei_session.py --output docs/examples/ei_session    writes the figures and numbers of the page, too
    python examples/ei_session.py --fits .cache/ei_session             keeps fits there, and takes what it finds

The session is simulated: the network behind it is known. LRPOSTERIOR_TINY=1 makes it a test of a minute, with few
neurons and trials; its files go to a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from ei_session_parts import evaluation, figures, tables
from ei_session_parts.collapse import naive_descent
from ei_session_parts.networks import HALF_NORMAL, MODEL, NAIVE, fit_likelihood, fit_matching
from ei_session_parts.session import DT, TINY, Size, export_session, load_session
from page_parts.tables import rounded, save

import lrposterior as lrp
from lrposterior.simulated_session import INTEGRATION_CONSTANTS

# Of the naive descent: a network of the prior that does not run away, as that of seed 0 does.
DESCENT_SEED = 1
IS_TINY = os.environ.get("LRPOSTERIOR_TINY", "") not in ("", "0")


def kept(folder: Path | None, name: str, fit: Callable[[], lrp.Posterior]) -> lrp.Posterior:
    """A fit, stored in a folder and found there."""
    path = None if folder is None else folder / f"{name}.nc"
    if path is not None and path.is_file():
        return lrp.load_posterior(path)
    posterior = fit()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        posterior.save(path)
    return posterior


def diagnosed(diagnosis: lrp.Diagnosis) -> dict:
    network = diagnosis.trained or diagnosis.untrained
    return {
        "verdicts": [verdict.name for verdict in diagnosis.verdicts],
        "recorded": diagnosis.data.signal.level,
        "level": network.signal.level,
        "sd": network.signal.temporal_sd,
        "recorded sd": diagnosis.data.signal.temporal_sd,
    }


def run(folder: Path, size: Size, fits: Path | None) -> tuple[dict, dict]:
    """The numbers of the page, and what else its figures show."""
    path = folder / "session.mat"
    truth = export_session(path, size)
    fitted, held_out, clipping = load_session(path, size.num_held_out)
    print(clipping)
    results: dict = {
        "session": {
            "fitted": fitted.num_trials,
            "held_out": held_out.num_trials,
            "clipped": int(clipping.num_clipped.sum()),
            "largest": float(truth.recording.activity.max() / DT),
            "mean": float(fitted.activity.mean() / DT),
        }
    }
    naive = kept(fits, "naive", lambda: fit_matching(NAIVE, fitted, size, size.num_naive_epochs))
    posterior = kept(fits, "likelihood", lambda: fit_likelihood(fitted))
    networks = kept(fits, "matching", lambda: fit_matching(MODEL, fitted, size, size.num_epochs))
    results["diagnosis"] = {
        "half-normal": diagnosed(lrp.diagnose(HALF_NORMAL, fitted, seed=0)),
        "naive": diagnosed(lrp.diagnose(NAIVE, fitted, seed=0)),
        "naive, fitted": diagnosed(lrp.diagnose(naive, seed=0)),
        "default": diagnosed(lrp.diagnose(MODEL, fitted, seed=0)),
        "default, fitted": diagnosed(lrp.diagnose(posterior, validation=held_out, seed=0)),
    }
    few = fitted.select(trials=list(range(size.num_descent_trials)))
    collapsed, losses = naive_descent(NAIVE, few, num_steps=size.num_descent_steps, seed=DESCENT_SEED)
    results["collapse"] = {
        "trials": few.num_trials,
        "losses": [float(losses[0]), float(losses[-1])],
        "networks": {
            "naive, z-scored": diagnosed(lrp.diagnose(collapsed, fitted, seed=0)),
            "default, matched": diagnosed(lrp.diagnose(networks, seed=0)),
        },
    }
    results["degeneracy"] = evaluation.degeneracy(posterior)
    posterior, share = evaluation.without_runaways(posterior, size.num_draws + size.num_draws // 3)
    results["runaways"] = share
    fits_by_name = {"likelihood": posterior, "matching": networks, "naive": naive}
    simulated = {
        name: lrp.simulate_trials(fit, held_out, num_simulations=size.num_simulations, seed=0)
        for name, fit in (fits_by_name | {"collapsed": collapsed}).items()
    }
    results["comparison"] = {name: evaluation.compare(fit, held_out, size) for name, fit in fits_by_name.items()}
    inputs = held_out.inputs[:2]
    W = truth.connectivity
    results["truth"] = {
        "integration_constants": INTEGRATION_CONSTANTS,
        "means": {name: float(value) for name, value in evaluation.mean_weights(W, fitted.cell_types).items()},
    }
    candidates = evaluation.make_candidates(fitted, size)
    true = evaluation.true_responses(posterior, truth, candidates, inputs, size.num_true)
    for name in ("likelihood", "matching"):
        number = size.num_draws if name == "likelihood" else size.num_members
        results[name] = {
            "integration_constants": evaluation.integration_constants(fits_by_name[name], number),
            "connectivity": evaluation.connectivity(fits_by_name[name], W, number),
            "perturbations": evaluation.perturbations(fits_by_name[name], candidates, true, inputs, size),
            "seconds": fits_by_name[name].statistics.wall_time,
        }
    shown = {"held_out": held_out, "simulated": simulated, "posterior": posterior, "W": W}
    return rounded(results), shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder for the figures, results.json and results.md")
    parser.add_argument("--fits", type=Path, help="folder that keeps fitted networks, and from which they are taken")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        output = options.output or (temporary if IS_TINY else None)
        results, shown = run(temporary, TINY if IS_TINY else Size(), options.fits)
        print(f"\n{tables.as_markdown(results)}")
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            figures.save_all(output, results, shown)
            save(results, tables.as_markdown(results), output)


if __name__ == "__main__":
    main()
