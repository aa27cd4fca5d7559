"""Whose doing is the paradoxical fall? Dale's law, a light step, and what the posterior attributes the fall of I to.

The recording is that of `examples/mouse_opto.py`, Sanzeni et al., eLife 9:e54875 (2020); it is no part of this package,
and looked for in the folder that the environment variable LRPOSTERIOR_DATA names, else in ../shared/data.

    python examples/paradoxical_fall.py                                           prints the results
    python examples/paradoxical_fall.py --output docs/examples/paradoxical_fall   writes the page's figure and numbers

LRPOSTERIOR_TINY=1 makes it a test of seconds, with few neurons and one fit; its files go to a temporary folder.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
from mouse_opto_parts.session import LIGHT_ON, Session, run_on_session
from page_parts.tables import rounded, save
from paradoxical_fall_parts import pages
from paradoxical_fall_parts.attribution import summarize

import lrposterior as lrp

TINY = os.environ.get("LRPOSTERIOR_TINY", "") not in ("", "0")
BINS = {"first": -238, "num_bins": 73, "max_neurons": 20}
# Scales of K from E; those from I are twice as large.
SCALES = (2.0,) if TINY else (1.0, 2.0, 4.0)
MAGNITUDES = ("log-normal",) if TINY else ("half-normal", "log-normal")
FITTED = 0.25  # s of the light
DRAWS = {"num_draws": 40 if TINY else 1000, "seed": 0}


# [model]
def make_model(magnitudes: str, scale: float) -> lrp.LowRankModel:
    time_constant = lrp.TimeConstantPrior(median=0.02, spread=0.5)
    return lrp.LowRankModel(
        rank=1,
        time_constant={"E": time_constant, "I": time_constant},
        nonlinearity="softplus",  # rates in spikes/s, never negative
        observation=lrp.GaussianObservation(of="rate"),
        initial_state="free",  # the recording begins amid spontaneous activity
        background=None,
        priors=lrp.DaleLoadings(K={"E": scale, "I": 2.0 * scale}, magnitudes=magnitudes, unit=10.0),
    )


def fit(session: Session, magnitudes: str, scale: float, end: int) -> lrp.Posterior:
    """Fit the bins before the one with the number `end`."""
    mask = session.recording.mask.copy()
    mask[:, end:] = False
    recording = dataclasses.replace(session.recording, mask=mask)
    return lrp.fit(make_model(magnitudes, scale), recording, seed=0, progress=False)


# [end]
def run(session: Session, output: Path | None) -> None:
    end = int(np.searchsorted(session.times, LIGHT_ON + FITTED - 1e-9))
    fits, shown = [], None
    for magnitudes in MAGNITUDES:
        for scale in SCALES:
            print(f"{magnitudes}, {scale:g} ...", flush=True)
            one: dict = {"magnitudes": magnitudes, "scale": scale}
            try:
                posterior = fit(session, magnitudes, scale, end)
            except lrp.FitError as failure:
                fits.append(one | {"refused": str(failure).partition(":")[0]})
                continue
            shown = shown or posterior
            fits.append(one | summarize(session, posterior, end, **DRAWS))
    results = rounded({"version": lrp.__version__, "fits": fits})
    print(f"\n{pages.as_markdown(results)}")
    if output is not None and shown is not None:
        output.mkdir(parents=True, exist_ok=True)
        pages.save_figures(output, session, results, shown, end)
        save(results, pages.as_markdown(results), output)


if __name__ == "__main__":
    run_on_session(run, __doc__, BINS if TINY else None)
