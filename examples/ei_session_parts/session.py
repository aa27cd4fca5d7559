"""A session as a laboratory exports it: a MATLAB file, some entries of which are artefacts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io

import lrposterior as lrp
from lrposterior.simulated_session import DT


@dataclass(frozen=True)
class Size:
    """How much of everything: of the session, the held-out trials, the fits and the simulations."""

    num_trials: int = 1043
    num_bins: int = 219
    num_excitatory: int = 41
    num_inhibitory: int = 13
    num_inputs: int = 14
    num_held_out: int = 208
    num_members: int = 2
    num_epochs: int = 240
    num_naive_epochs: int = 60
    num_draws: int = 300
    num_simulations: int = 12
    num_ensembles: int = 16
    num_true: int = 25
    num_descent_trials: int = 100
    num_descent_steps: int = 500


TINY = Size(64, 60, 6, 2, 2, 32, 1, 8, 4, 30, 2, 3, 4, 16, 20)


def export_session(path: Path, size: Size) -> lrp.Simulation:
    """Write spike counts, inputs and labels to a MATLAB file, and return the network that made them."""
    truth = lrp.simulate_session(
        num_trials=size.num_trials,
        num_bins=size.num_bins,
        num_excitatory=size.num_excitatory,
        num_inhibitory=size.num_inhibitory,
        num_inputs=size.num_inputs,
        seed=0,
    )
    recording = truth.recording
    variables = {
        "spike_counts": recording.activity,
        "bin_width": DT,
        "task_inputs": recording.inputs,
        "ei": np.array(recording.cell_types, dtype=object),
        "conditions": np.array(recording.trial_labels, dtype=object),
    }
    scipy.io.savemat(path, variables, do_compression=True)
    return truth


# [load]
def load_session(path: Path, num_held_out: int) -> tuple[lrp.Recording, lrp.Recording, lrp.Clipping]:
    """The trials to fit and those that are held out, and what was clipped."""
    recording = lrp.load_recording(path)  # warns, and says which variable it takes for what
    recording, clipping = lrp.clip_outliers(recording)
    order = np.random.default_rng(0).permutation(recording.num_trials)
    held_out, fitted = np.sort(order[:num_held_out]), np.sort(order[num_held_out:])
    return recording.select(trials=fitted), recording.select(trials=held_out), clipping


# [end]
