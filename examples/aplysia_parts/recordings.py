"""The recordings of Bruno, Frost and Humphries (2017) in the form that the package takes, and how they are split."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

import lrposterior as lrp

FILE = "aplysia_pedal_bruno2017.npz"
PUBLISHED = (
    "It is published with Bruno, Frost and Humphries, eLife 6:e27342 (2017), in the GitHub repository "
    "mdhumphries/AplysiaAttractorAnalysis (MIT). To run this example, save its spikes as numbers in bins of 0.1 s, "
    "counts__<recording> (bin, neuron) for Jun0914da01 to 03, Sep2914da01 to 03 and Nov0514da01 to 03, in a file of "
    "this name, and name its folder by LRPOSTERIOR_DATA."
)
PREPARATIONS = ("Jun0914", "Sep2914", "Nov0514")
DT = 0.1  # s
WINDOW = (30.0, 120.0)  # s, on the clock of the file: from the onset of the stimulation on
TRAIN_OF_PULSES = 2.5  # s, how long the nerve is stimulated
BLOCK = 10.0  # s, a validation block
# Starts of the blocks in s from the first bin. They differ between the recordings, so that whatever happens at one time
# of the response is fitted in one of them.
BLOCK_STARTS = ((15.0, 55.0), (35.0, 75.0))


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Three evoked responses of the same neurons: two to learn from and one to predict.

    Attributes:
        name: of the preparation.
        training: the first two responses; validation blocks are seen in its activity, and False in its mask.
        test: the third.
    """

    name: str
    training: lrp.Recording
    test: lrp.Recording

    @property
    def counts(self) -> np.ndarray:
        """(trial, time, neuron) spikes in the training recordings, validation blocks included."""
        return self.training.activity

    @property
    def fitted(self) -> np.ndarray:
        """(trial, time) True in bins that are fitted, False in validation blocks."""
        return self.training.mask.all(axis=2)

    @property
    def mean_counts(self) -> np.ndarray:
        """(neuron,) spikes per bin over the fitted bins: the mean-rate model."""
        return self.counts[self.fitted].mean(axis=0)

    @property
    def whole(self) -> lrp.Recording:
        """The training recordings with nothing masked, to predict validation blocks from what came before."""
        return dataclasses.replace(self.training, mask=np.ones_like(self.training.mask))


def find_file() -> Path | None:
    beside_checkout = Path(__file__).resolve().parents[3] / "shared" / "data"
    path = Path(os.environ.get("LRPOSTERIOR_DATA") or beside_checkout) / FILE
    return path if path.is_file() else None


# [load]
def load_preparation(
    path: Path, name: str, *, num_bins: int | None = None, max_neurons: int | None = None
) -> Preparation:
    """Two responses with masked validation blocks, and the third, from the onset of the stimulation on."""
    first, last = (round(edge / DT) for edge in WINDOW)
    with np.load(path, allow_pickle=False) as file:
        counts = np.stack([file[f"counts__{name}da0{number}"][first:last] for number in (1, 2, 3)]).astype(int)
    counts = counts[:, :num_bins, :max_neurons]
    times = DT * np.arange(counts.shape[1])
    stimulation = np.repeat((times < TRAIN_OF_PULSES).astype(float)[None, :, None], 3, axis=0)
    seen = np.ones(counts[:2].shape, dtype=bool)
    for trial, starts in enumerate(BLOCK_STARTS):
        for start in starts:
            seen[trial, (times >= start) & (times < start + BLOCK)] = False
    labels = [f"{name} response {number}" for number in (1, 2, 3)]
    training = lrp.Recording(counts[:2], DT, inputs=stimulation[:2], mask=seen, session_labels=labels[:2])
    return Preparation(name, training, lrp.Recording(counts[2:], DT, inputs=stimulation[2:], session_labels=labels[2:]))


def hidden_neurons(num_neurons: int, *, share: float = 0.2, seed: int) -> np.ndarray:
    """(neuron,) True for the neurons that co-smoothing has to predict from the others, chosen at random."""
    hidden = np.zeros(num_neurons, dtype=bool)
    hidden[np.random.default_rng(seed).permutation(num_neurons)[: round(share * num_neurons)]] = True
    return hidden


# [end]
