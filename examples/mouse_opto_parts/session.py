"""The recording of Sanzeni et al. (2020) in the form that the package takes."""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import lrposterior as lrp

FILE = "mouse_opto_ei_sanzeni2020.npz"
PUBLISHED = (
    "It is published with Sanzeni et al., eLife 9:e54875 (2020), in the GitHub repository "
    "histedlab/code-Sanzeni-inhibition-stabilization-cortex (CC-BY-4.0). To run this example, save its arrays "
    "dynamics_E__rate (neuron, bin of 1 ms; spikes/s), dynamics_E__t (s), dynamics_E__mouse and dynamics_E__rec_day "
    "(neuron), and the same of I, in a file of this name, and name its folder by LRPOSTERIOR_DATA."
)
DT = 0.01  # s
LIGHT_ON = 0.020  # s, on the clock of the file
LOWEST_RATE = 0.5  # spikes/s


@dataclasses.dataclass(frozen=True)
class Session:
    """A recording and what else is known about it.

    Attributes:
        recording: one trial, the average over all; rates in spikes/s.
        start: start of its first bin on the clock of the file, in s.
        num_averaged: (neuron,) trials over which the rate of a neuron was averaged.
        num_found: neurons in the file by type.
        num_recordings, num_mice: from which they were pooled.
    """

    recording: lrp.Recording
    start: float
    num_averaged: np.ndarray
    num_found: dict[str, int]
    num_recordings: int
    num_mice: int

    @property
    def is_E(self) -> np.ndarray:
        return np.array(self.recording.cell_types) == "E"

    @property
    def num_kept(self) -> dict[str, int]:
        return {"E": int(self.is_E.sum()), "I": int((~self.is_E).sum())}

    @property
    def times(self) -> np.ndarray:
        """(time,) start of every bin on the clock of the file, in s."""
        return self.start + self.recording.times

    @property
    def artefact(self) -> int:
        """The bin with the light artefact."""
        return int(np.flatnonzero(~self.recording.mask[0].any(axis=1))[0])

    @property
    def spike(self) -> np.ndarray:
        """(neuron,) rate of one spike in one bin of one of the averaged trials, in spikes/s."""
        return 1.0 / (self.num_averaged * self.recording.dt)


def find_file() -> Path | None:
    beside_checkout = Path(__file__).resolve().parents[3] / "shared" / "data"
    path = Path(os.environ.get("LRPOSTERIOR_DATA") or beside_checkout) / FILE
    return path if path.is_file() else None


# [load]
def load_session(path: Path, *, first: int = -298, num_bins: int = 79, max_neurons: int | None = None) -> Session:
    """Bins of 10 ms from `first` (ms on the clock of the file) on."""
    with np.load(path, allow_pickle=False) as file:
        rates = np.concatenate([file["dynamics_E__rate"], file["dynamics_I__rate"]]).astype(np.float64)
        cell_types = np.repeat(["E", "I"], [len(file["dynamics_E__rate"]), len(file["dynamics_I__rate"])])
        mice, days = (
            np.concatenate([file[f"dynamics_{kind}__{key}"] for kind in "EI"]) for key in ("mouse", "rec_day")
        )
        milliseconds = np.rint(1000.0 * file["dynamics_E__t"]).astype(int)

    # The artefact of the light (up to 1000 spikes/s) is in the millisecond at 20 ms, and the counts of the one before
    # and the one after are odd. With edges at ..., 12, 22, 32 ms all three lie in one bin. Masking it costs 8 ms of
    # baseline, and the first bin of the response, from 22 ms, is whole.
    start = int(np.flatnonzero(milliseconds == first)[0])
    bins = rates[:, start : start + 10 * num_bins].reshape(len(rates), num_bins, 10).mean(axis=2).T
    starts = 1e-3 * first + DT * np.arange(num_bins)
    has_artefact = (starts < LIGHT_ON) & (starts + DT > LIGHT_ON)

    # What drives a bin is the input of the bin before it. The light of the first whole bin (from 22 ms) therefore
    # stands in the masked one, which contains the onset.
    light = (starts + DT > LIGHT_ON).astype(float)

    # A network explains a neuron that hardly ever fires exactly, by silence, and its noise scale shrinks to zero.
    kept = np.flatnonzero(bins[~has_artefact].mean(axis=0) >= LOWEST_RATE)
    if max_neurons is not None:
        kept = kept[np.linspace(0, len(kept) - 1, max_neurons).astype(int)]
    recording = lrp.Recording(
        bins[:, kept],
        DT,
        inputs=light[:, None],
        mask=np.repeat(~has_artefact[:, None], len(kept), axis=1),
        cell_types=cell_types[kept].tolist(),
        neuron_labels=[f"{cell_types[index]} cell {index}" for index in kept],
        trial_labels=["average"],
    )
    # [end]
    recordings = 100 * mice.astype(int) + days
    return Session(
        recording,
        start=float(starts[0]),
        num_averaged=_trials_averaged(rates, recordings)[kept],
        num_found={kind: int(np.sum(cell_types == kind)) for kind in ("E", "I")},
        num_recordings=len(np.unique(recordings[kept])),
        num_mice=len(np.unique(mice[kept])),
    )


def _trials_averaged(rates: np.ndarray, recordings: np.ndarray) -> np.ndarray:
    """(neuron,) from one spike in 1 ms, a rate of 1000 / trials: the smallest step of most neurons of a recording."""
    steps = np.array([np.min(rate[rate > 0.0], initial=np.inf) for rate in rates])
    of_recording = {one: np.median(steps[recordings == one]) for one in np.unique(recordings)}
    return np.rint([1000.0 / of_recording[one] for one in recordings])


def run_on_session(run: Callable[[Session, Path | None], None], description: str | None, tiny: dict | None) -> None:
    """The command line of an example: `run` with the recording and the folder for its figures.

    Args:
        run: of the recording, and a folder or None.
        description: of the command.
        tiny: options of `load_session` for a small recording, whose files go to a temporary folder; None for all of it.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder for the figures, results.json and results.md")
    output = parser.parse_args().output
    path = find_file()
    if path is None:
        print(f"There is no {FILE} here. {PUBLISHED}")
    elif tiny is not None:
        with tempfile.TemporaryDirectory() as folder:
            run(load_session(path, **tiny), Path(folder))
    else:
        run(load_session(path), output)
