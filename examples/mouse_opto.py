"""What one step of light says about the connectivity of mouse cortex: a posterior from a published recording.

Light on the inhibitory cells, trial-averaged rates of single units labelled E or I: Sanzeni et al., eLife 9:e54875
(2020). The recording is no part of this package. The script looks for it in the folder that the environment variable
LRPOSTERIOR_DATA names, else in ../shared/data beside the checkout.

    python examples/mouse_opto.py                                       prints the results
    python examples/mouse_opto.py --output docs/examples/mouse_opto     writes the figures and numbers of the page, too

LRPOSTERIOR_TINY=1 makes it a test of seconds, with few neurons, bins and draws; its files go to a temporary folder.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
from mouse_opto_parts import figures, tables
from mouse_opto_parts.prediction import compare_predictions, hide_blocks, hide_end
from mouse_opto_parts.session import DT, LOWEST_RATE, Session, run_on_session
from mouse_opto_parts.summaries import check_noise, summarize_connectivity, summarize_drives, summarize_ranking
from page_parts.tables import rounded, save

import lrposterior as lrp

TINY = os.environ.get("LRPOSTERIOR_TINY", "") not in ("", "0")
BINS = {"first": -98, "num_bins": 40, "max_neurons": 24}
RANKS, RANK = ((1,), 1) if TINY else ((1, 2, 3), 2)
SEED = 0
DRAWS = {"num_draws": 20 if TINY else 400, "seed": SEED}
# Starts of the stimulation, in s from the first bin: before and well after the light comes on.
ONSETS = {"light on": 0.2} if TINY else {"light off": 0.1, "light on": 0.6}


# [model]
def make_model(rank: int) -> lrp.LowRankModel:
    return lrp.LowRankModel(
        rank,
        time_constant=lrp.TimeConstantPrior(median=0.02, spread=0.5),
        nonlinearity="softplus",  # rates in spikes/s, never negative
        observation=lrp.GaussianObservation(of="rate"),
        initial_state="free",  # the recording begins amid spontaneous activity
        background=None,
        priors=lrp.Priors(unit=10.0),  # currents of some 10 spikes/s, whichever entries are hidden
    )


def fit(recording: lrp.Recording, rank: int, hidden: np.ndarray | None = None, num_restarts: int = 0) -> lrp.Posterior:
    """Fit the recording without the hidden entries (time, neuron)."""
    if hidden is not None:
        recording = dataclasses.replace(recording, mask=recording.mask & ~hidden)
    return lrp.fit(
        make_model(rank), recording, seed=SEED, num_restarts=num_restarts, max_iterations=400, progress=False
    )


# [candidates]
def make_candidates(recording: lrp.Recording, onset: float) -> lrp.Candidates:
    """Ensembles of ten E or ten I cells, and single cells: all at the power of 10 spikes/s into ten cells for 50 ms."""
    options = {"power": 10 * 10.0**2 * 0.05, "onset": onset, "duration": 0.05}
    number, size = (3, 3) if TINY else (20, 10)
    return lrp.combine_candidates(
        lrp.ensemble_candidates(recording, num_candidates=number, size=size, cell_type="E", seed=1, **options),
        lrp.ensemble_candidates(recording, num_candidates=number, size=size, cell_type="I", seed=2, **options),
        lrp.single_neuron_candidates(recording, **options),
    )


def rank_candidates(session: Session, posterior: lrp.Posterior, onset: float) -> lrp.PerturbationRanking:
    return lrp.rank_perturbations(
        posterior,
        make_candidates(session.recording, onset),
        inputs=session.recording.inputs,
        by="certainty",
        window=(onset + DT, onset + 0.1),
        readout=session.is_E / session.is_E.sum(),  # the mean rate of the E cells
        quantity="rate",
        progress=False,
        **DRAWS,
    )


# [end]
def fit_or_failure(recording: lrp.Recording, rank: int, hidden: np.ndarray) -> lrp.Posterior | str:
    try:
        return fit(recording, rank, hidden)
    except lrp.FitError as error:
        return str(error).partition(":")[0]


def run(session: Session, output: Path | None) -> None:
    recording, found, kept = session.recording, session.num_found, session.num_kept
    print(recording.summary())
    print(f"  left out    {found['E'] - kept['E']} E and {found['I'] - kept['I']} I below {LOWEST_RATE} spikes/s")

    print("\nFits without a fifth of the entries ...", flush=True)
    blocks = hide_blocks(session, seed=SEED)
    by_rank = {rank: fit_or_failure(recording, rank, blocks) for rank in RANKS}
    print("... without the last 100 ms ...", flush=True)
    end = hide_end(session)
    without_end = {RANK: fit_or_failure(recording, RANK, end)}
    print("... without the first 10 ms of the response ...", flush=True)
    onset = np.zeros_like(blocks)
    onset[session.artefact + 1] = True
    without_onset = fit(recording, RANK, onset)
    print("... with all there is ...", flush=True)
    posterior = fit(recording, RANK, num_restarts=0 if TINY else 2)
    degeneracy = lrp.analyze_degeneracy(posterior)
    print("Ranking ...", flush=True)
    rankings = {light: rank_candidates(session, posterior, start) for light, start in ONSETS.items()}

    others = {f"rank {rank}, a fifth of the entries hidden": one for rank, one in by_rank.items()}
    others = {name: one for name, one in others.items() if isinstance(one, lrp.Posterior)}
    others["first 10 ms of the response hidden"] = without_onset
    results = rounded(
        {
            "version": lrp.__version__,
            "rank": RANK,
            "data": {
                "num_found": found,
                "num_kept": kept,
                "lowest_rate": LOWEST_RATE,
                "num_recordings": session.num_recordings,
                "num_mice": session.num_mice,
                "num_averaged": np.quantile(session.num_averaged, [0.0, 1.0]).tolist(),
                "num_bins": recording.num_bins,
            },
            "blocks": compare_predictions(session, blocks, by_rank, **DRAWS),
            "end": compare_predictions(session, end, without_end, **DRAWS),
            "noise": check_noise(session, posterior, **DRAWS),
            "connectivity": summarize_connectivity(session, posterior, degeneracy, **DRAWS),
            "drives": summarize_drives(session, posterior, **DRAWS),
            "other_fits": {
                name: {
                    "correlation": _correlation(posterior.connectivity_mean(), other.connectivity_mean()),
                    "drives": summarize_drives(session, other, **DRAWS),
                }
                for name, other in others.items()
            },
            "rankings": {light: summarize_ranking(session, ranking) for light, ranking in rankings.items()},
        }
    )
    print(f"\n{degeneracy}\n\n{tables.as_markdown(results)}")
    for light, ranking in rankings.items():
        print(f"\nThe most certain stimulations, {light}:\n{ranking.top(5).to_string(float_format='{:.3g}'.format)}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        figures.save_all(output, session, posterior, degeneracy, by_rank[RANK], blocks, rankings, results, **DRAWS)
        save(results, tables.as_markdown(results), output)
        print(f"\nThe figures, results.json and results.md are in {output}")


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


if __name__ == "__main__":
    run_on_session(run, __doc__, BINS if TINY else None)
