"""A recording in the form that compiled functions take."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import numpy as np
from jax import Array

from lrposterior.background import Background


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Data:
    """A recording (and a known background) in the form that compiled functions take as an argument.

    Attributes:
        activity, mask: (trial, time, neuron); the mask is that of the bins that say something
            (`LowRankModel.informative`).
        inputs: (trial, time, input).
        stimulation: (trial, time, neuron) or None.
        dt: bin width in seconds.
        before: (trial, time, neuron) activity of the bins before, where what is seen depends on it, else None.
        session: (trial,) numbers of the sessions where neurons drift between them, else None.
        background: a known W0 or None.
        known_factors: left and right factors (neuron, dimension) of known connectivity, or None.
        population: (neuron,) which of the time constants every neuron has, counted from 0.
        subspace: (neuron, dimension) the patterns through which a random bulk is seen, or None.
        noise_patterns: (neuron, rank) those through which the process noise is seen; None without it and under Dale's
            law.
    """

    activity: Array
    mask: Array
    inputs: Array
    stimulation: Array | None
    dt: Array
    before: Array | None
    session: Array | None
    background: Background | None
    known_factors: tuple[Array, Array] | None
    subspace: Array | None
    population: Array
    noise_patterns: Array | None

    def of_trials(self, chosen: np.ndarray | Array) -> Data:
        """Some of the trials, by their numbers from 0."""
        return dataclasses.replace(
            self,
            activity=self.activity[chosen],
            mask=self.mask[chosen],
            inputs=self.inputs[chosen],
            stimulation=None if self.stimulation is None else self.stimulation[chosen],
            before=None if self.before is None else self.before[chosen],
            session=None if self.session is None else self.session[chosen],
        )
