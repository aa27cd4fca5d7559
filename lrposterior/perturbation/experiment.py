"""The experiment that is predicted: which perturbations, under which conditions, and where one looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lrposterior.checks import argument_error, as_array, require_finite, require_instance, require_number, require_shape
from lrposterior.circuits.posterior import NetworkPosterior
from lrposterior.perturbation.candidates import Candidates
from lrposterior.posterior import Posterior


@dataclass(frozen=True, eq=False)
class Experiment:
    """What is done to the networks, and where one looks.

    Attributes:
        inputs: (condition, time, input) inputs of every condition.
        patterns: (candidate, neuron) in units of current.
        time_course: (time,) factor of the patterns in every bin.
        dt: bin width in seconds.
        start, stop: the window, bins start to stop - 1.
        noise_seed: seed of the process noise.
    """

    inputs: np.ndarray
    patterns: np.ndarray
    time_course: np.ndarray
    dt: float
    start: int
    stop: int
    noise_seed: int

    @property
    def begin(self) -> int:
        """The first bin to simulate with the perturbation: until then it has no effect."""
        return min(int(np.flatnonzero(self.time_course)[0]), self.start)

    @property
    def num_candidates(self) -> int:
        return self.patterns.shape[0]

    @property
    def num_conditions(self) -> int:
        return self.inputs.shape[0]

    @property
    def num_bins(self) -> int:
        """Number of bins in the window."""
        return self.stop - self.start

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(candidate, condition, time, neuron) of one draw of the responses."""
        return (self.num_candidates, self.num_conditions, self.num_bins, self.patterns.shape[1])


def make_experiment(
    posterior: Posterior | NetworkPosterior, candidates: Candidates, inputs: Any, window: Any
) -> Experiment:
    """Check what belongs together, and settle the conditions and the bins of the window."""
    if not isinstance(posterior, NetworkPosterior):
        require_instance(posterior, "posterior", Posterior, "pass what fit(...) returned")
    require_instance(
        candidates, "candidates", Candidates, "make them with single_neuron_candidates(recording) or another maker"
    )
    recording = posterior.recording
    if candidates.num_neurons != recording.num_neurons:
        raise argument_error(
            "candidates",
            f"patterns on the {recording.num_neurons} neurons of the recording that was fitted",
            f"{candidates.num_neurons} neurons",
            "make them from that recording",
        )
    if not np.isclose(candidates.dt, recording.dt, rtol=1e-9, atol=0.0):
        raise argument_error(
            "candidates",
            f"bins of dt = {recording.dt:g} s, as in the recording that was fitted",
            f"{candidates.dt:g} s",
            "make the time course in these bins",
        )
    conditions = _conditions(posterior, inputs)
    if candidates.num_bins != conditions.shape[1]:
        raise argument_error(
            "candidates",
            f"a time course of {conditions.shape[1]} bins, as the inputs have",
            f"{candidates.num_bins} bins",
            "make them from the recording that was fitted, or pass inputs (condition, time, input) of that length",
        )
    start, stop = _window(candidates, window)
    return Experiment(
        conditions, candidates.patterns, candidates.time_course, recording.dt, start, stop, posterior.seed
    )


def _conditions(posterior: Posterior | NetworkPosterior, inputs: Any) -> np.ndarray:
    """(condition, time, input), those of the recording in the order of their first trials."""
    recording = posterior.recording
    if inputs is None:
        if not recording.num_inputs:
            return recording.inputs[:1]
        _, first = np.unique(recording.inputs.reshape(recording.num_trials, -1), axis=0, return_index=True)
        return recording.inputs[np.sort(first)]
    array = as_array(inputs, "inputs", ("condition", "time", "input"), may_be_empty=("input",))
    require_shape(array, "inputs", {"condition": None, "time": None, "input": recording.num_inputs})
    require_finite(array, "inputs", "write 0 where there is no input")
    return array.astype(np.float64)


def _window(candidates: Candidates, window: Any) -> tuple[int, int]:
    """The bins (start, stop) of the window.

    A stimulation in bin k moves the currents of its own neurons in bin k + 1, which is feed-through, and through them
    the network in bin k + 2.
    """
    dt, num_bins, first = candidates.dt, candidates.num_bins, candidates.onset + 2
    if first >= num_bins:
        raise argument_error(
            "candidates",
            f"a stimulation that starts before {max(num_bins - 2, 0) * dt:.4g} s, two bins before the end",
            f"its onset at {candidates.onset * dt:.4g} s",
            "stimulate earlier: the response comes after the end of the trial",
        )
    if window is None:
        return candidates.onset + 1, num_bins
    expected = f"(start, stop) in s within the trial of {num_bins * dt:.4g} s"
    mend = "times count from the start of the trial"
    if not isinstance(window, (tuple, list, np.ndarray)) or len(window) != 2:
        raise argument_error("window", expected, repr(window)[:60], mend)
    start, stop = (require_number(edge, "window", expected, mend) for edge in window)
    # Bins whose start lies in [start, stop); a tolerance because 0.29 / 0.01 is 28.999999999999996.
    first_bin, last_bin = (int(np.ceil(edge / dt - 1e-6)) for edge in (start, stop))
    if first_bin < 0 or last_bin > num_bins:
        raise argument_error("window", expected, f"({start:g}, {stop:g})", mend)
    if last_bin <= first_bin:
        raise argument_error(
            "window", expected + ", with a bin in it", f"({start:g}, {stop:g})", f"bins are {dt:g} s wide"
        )
    if last_bin <= first:
        raise argument_error(
            "window",
            f"a stop after {first * dt:.4g} s, where the first response appears",
            f"({start:g}, {stop:g})",
            f"look later: the stimulation starts at {candidates.onset * dt:.4g} s, and until then the response is zero",
        )
    return first_bin, last_bin
