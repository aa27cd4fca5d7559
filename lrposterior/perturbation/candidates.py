"""Candidate perturbations: patterns of current on the neurons, all at matched power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lrposterior.checks import (
    argument_error,
    as_array,
    as_indices,
    as_labels,
    read_only,
    require_choice,
    require_finite,
    require_instance,
    require_integer,
    require_positive,
    require_shape,
)
from lrposterior.connectivity import require_memory
from lrposterior.recording import Recording, Selection

# Patterns of the stimulations of single neurons.
MAX_GIGABYTES = 0.5


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Candidates:
    """Perturbations that could be applied: one spatial pattern each, and one time course for all.

    Candidate c drives neuron n in bin t with the current ``patterns[c, n] * time_course[t]``.

    Args:
        patterns: ``(candidate, neuron)`` in units of current.
        time_course: ``(time,)``, a factor per bin, over the bins of a trial.
        labels: One name per candidate, no two alike; ``None`` numbers them.
        dt: Width of a time bin in s.

    Raises:
        ValueError: Not finite, empty, zero throughout (a pattern or the time course), or labels that do not fit.
    """

    patterns: np.ndarray
    time_course: np.ndarray
    labels: tuple[str, ...]
    dt: float

    def __init__(
        self, patterns: ArrayLike, time_course: ArrayLike, labels: Sequence[str] | None = None, *, dt: float
    ) -> None:
        spatial = _as_patterns(patterns)
        temporal = as_array(time_course, "time_course", ("time",))
        require_finite(temporal, "time_course", "write 0 in the bins without stimulation")
        if not temporal.any():
            mend = "set the bins of the stimulation, for instance to 1"
            raise argument_error("time_course", "a bin that is not 0", "zeros only", mend)
        if labels is None:
            labels = [f"candidate {index}" for index in range(len(spatial))]
        stored = {
            "patterns": read_only(spatial),
            "time_course": read_only(temporal),
            "labels": as_labels(labels, "labels", "candidate", len(spatial), unique=True),
            "dt": require_positive(dt, "dt", "s"),
        }
        for name, value in stored.items():
            object.__setattr__(self, name, value)

    @property
    def num_candidates(self) -> int:
        """Number of candidates."""
        return self.patterns.shape[0]

    @property
    def num_neurons(self) -> int:
        """Number of neurons."""
        return self.patterns.shape[1]

    @property
    def num_bins(self) -> int:
        """Number of time bins of a trial."""
        return self.time_course.shape[0]

    @property
    def power(self) -> np.ndarray:
        """``(candidate,)``, the sum of squared currents over neurons and time, in current² s."""
        return (self.patterns**2).sum(axis=1) * (self.time_course**2).sum() * self.dt

    @property
    def onset(self) -> int:
        """The first bin (an index, not s) in which the time course is not 0."""
        return int(np.flatnonzero(self.time_course)[0])

    def select(self, indices: Selection) -> Candidates:
        """Choose candidates by integers, a boolean array, a slice or labels, in the order wanted.

        Raises:
            ValueError: A selection that is empty, out of range or repeated.
        """
        rows = as_indices(indices, "indices", "candidate", self.num_candidates, self.labels)
        return Candidates(self.patterns[rows], self.time_course, [self.labels[row] for row in rows], dt=self.dt)

    def __repr__(self) -> str:
        lowest, highest = f"{self.power.min():.4g}", f"{self.power.max():.4g}"
        power = lowest if lowest == highest else f"{lowest} to {highest}"
        return (
            f"Candidates({self.num_candidates} patterns on {self.num_neurons} neurons, "
            f"from {self.onset * self.dt:g} s, power {power} current² s)"
        )


def single_neuron_candidates(
    recording: Recording,
    *,
    power: float = 1.0,
    neurons: Selection = None,
    onset: float | None = None,
    duration: float | None = None,
) -> Candidates:
    """One candidate for each neuron: a positive current into that neuron alone.

    Args:
        recording: Gives the neurons, the bins and the labels.
        power: Power of every candidate in current² s, ``sum_n pattern_n² * sum_t time_course_t² * dt``.
        neurons: Which neurons, as in :meth:`Recording.select`; ``None`` takes all.
        onset: Start of the stimulation in s from the start of the trial, moved back to the start of its bin; by
            default in the middle of the trial.
        duration: Its duration in s, rounded to whole bins, at least one; by default a tenth of the trial, or what
            remains after the onset if that is less. The time course is 1 in these bins and 0 elsewhere.

    Returns:
        Candidates labelled by the neurons' labels, or ``"neuron 12"``.

    Raises:
        ValueError: A selection, power, onset or duration that does not fit the recording, or patterns of more than
            0.5 GB.
    """
    _require_recording(recording)
    labels = recording.neuron_labels or [f"neuron {index}" for index in range(recording.num_neurons)]
    chosen = as_indices(neurons, "neurons", "neuron", recording.num_neurons, recording.neuron_labels)
    require_memory(
        len(chosen) * recording.num_neurons,
        "neurons",
        MAX_GIGABYTES,
        "choose some of them by neurons=[...], or rank ensembles or latent patterns",
    )
    patterns = np.zeros((len(chosen), recording.num_neurons))
    patterns[np.arange(len(chosen)), chosen] = 1.0
    return _at_matched_power(recording, patterns, [labels[index] for index in chosen], power, onset, duration)


def ensemble_candidates(
    recording: Recording,
    *,
    num_candidates: int,
    size: int,
    power: float = 1.0,
    onset: float | None = None,
    duration: float | None = None,
    cell_type: str | None = None,
    seed: int,
) -> Candidates:
    """Random ensembles: the same positive current into each of ``size`` neurons, no two ensembles alike.

    Args:
        recording: Gives the neurons, the bins and the cell types.
        num_candidates: How many ensembles.
        size: Neurons in an ensemble.
        power: Power of every candidate in current² s, see :func:`single_neuron_candidates`.
        onset: Start of the stimulation in s, see there.
        duration: Its duration in s, see there.
        cell_type: Draw from neurons of this type alone, for instance ``"E"``.
        seed: The same seed gives the same ensembles.

    Returns:
        Candidates labelled ``"ensemble 3"``, or ``"E ensemble 3"``.

    Raises:
        ValueError: More neurons or more ensembles than there are, an unknown cell type, or what
            :func:`single_neuron_candidates` refuses.
    """
    pool = _neurons_of_type(_require_recording(recording), cell_type)
    mend = f"there are {len(pool)} neurons" + ("" if cell_type is None else f" of type {cell_type!r}")
    size = require_integer(size, "size", 1, len(pool), mend)
    num_ensembles = math.comb(len(pool), size)
    mend = f"there are {num_ensembles} different ensembles of {size} among {len(pool)} neurons"
    num_candidates = require_integer(num_candidates, "num_candidates", 1, num_ensembles, mend)
    generator = np.random.default_rng(require_integer(seed, "seed"))
    ensembles: dict[tuple[int, ...], None] = {}  # a set that keeps its order
    while len(ensembles) < num_candidates:
        ensembles[tuple(sorted(generator.choice(pool, size, replace=False).tolist()))] = None
    patterns = np.zeros((num_candidates, recording.num_neurons))
    np.put_along_axis(patterns, np.array(list(ensembles)), 1.0, axis=1)
    kind = "ensemble" if cell_type is None else f"{cell_type} ensemble"
    return _at_matched_power(recording, patterns, _numbered(kind, num_candidates), power, onset, duration)


def latent_candidates(
    recording: Recording,
    *,
    num_candidates: int,
    num_components: int = 2,
    power: float = 1.0,
    onset: float | None = None,
    duration: float | None = None,
    seed: int,
) -> Candidates:
    """Random directions within the leading principal components of the activity.

    These push the population along the directions in which it moved most during the recording, where predictions are
    the safest. With V ``(neuron, component)`` the leading principal components of the activity (every neuron centred
    on its mean over all observed trials and bins; masked entries take that mean), a pattern is ``V z / |z|`` with
    ``z ~ Normal(0, I)``: uniform over the directions of that subspace. Currents have both signs.

    Args:
        recording: Gives the activity and the bins.
        num_candidates: How many directions.
        num_components: How many principal components span the subspace.
        power: Power of every candidate in current² s, see :func:`single_neuron_candidates`.
        onset: Start of the stimulation in s, see there.
        duration: Its duration in s, see there.
        seed: The same seed gives the same directions.

    Returns:
        Candidates labelled ``"latent 1"``.

    Raises:
        ValueError: More components than the activity has, or what :func:`single_neuron_candidates` refuses.
    """
    _require_recording(recording)
    num_candidates = require_integer(num_candidates, "num_candidates", 1)
    generator = np.random.default_rng(require_integer(seed, "seed"))
    components = _principal_components(recording, num_components)
    directions = generator.standard_normal((num_candidates, components.shape[1])) @ components.T
    return _at_matched_power(recording, directions, _numbered("latent", num_candidates), power, onset, duration)


def pattern_candidates(
    recording: Recording,
    patterns: ArrayLike,
    *,
    power: float = 1.0,
    onset: float | None = None,
    duration: float | None = None,
    labels: Sequence[str] | None = None,
) -> Candidates:
    """Patterns of your own, each scaled to the same power.

    Args:
        recording: Gives the bins.
        patterns: ``(candidate, neuron)``; only the relative currents within a pattern matter.
        power: Power of every candidate in current² s, see :func:`single_neuron_candidates`.
        onset: Start of the stimulation in s, see there.
        duration: Its duration in s, see there.
        labels: One name per pattern; by default ``"pattern 0"`` and so on.

    Raises:
        ValueError: Patterns not finite, zero throughout or of another number of neurons, labels that do not fit, or
            what :func:`single_neuron_candidates` refuses.
    """
    _require_recording(recording)
    spatial = _as_patterns(patterns)
    shape = {"candidate": None, "neuron": recording.num_neurons}
    require_shape(spatial, "patterns", shape, "give one current per neuron of the recording")
    names = _numbered("pattern", len(spatial)) if labels is None else labels
    return _at_matched_power(recording, spatial, names, power, onset, duration)


def combine_candidates(*candidates: Candidates) -> Candidates:
    """Join sets of candidates for the same neurons with the same time course.

    Raises:
        ValueError: Nothing to join, another number of neurons, time course or dt, or a label that occurs twice.
    """
    if not candidates:
        mend = "pass them one by one, or as *sets"
        raise argument_error("candidates", "at least one set of candidates", "none", mend)
    first = candidates[0]
    for other in candidates:
        require_instance(other, "candidates", Candidates, "pass the sets one by one, or as *sets")
        if other.num_neurons != first.num_neurons:
            got = f"{first.num_neurons} and {other.num_neurons}"
            raise argument_error("candidates", "sets for the same neurons", got, "make them from one recording")
        if other.dt != first.dt or not np.array_equal(other.time_course, first.time_course):
            mend = "make them with the same onset and duration from one recording"
            raise argument_error("candidates", "sets with the same time course and dt", "different ones", mend)
    labels = [label for each in candidates for label in each.labels]
    if len(set(labels)) < len(labels):
        repeated = next(label for label in labels if labels.count(label) > 1)
        mend = "rename one set by dataclasses.replace(candidates, labels=[...])"
        raise argument_error("candidates", "a different label for every candidate", f"{repeated!r} twice", mend)
    patterns = np.concatenate([each.patterns for each in candidates])
    return Candidates(patterns, first.time_course, labels, dt=first.dt)


def _at_matched_power(
    recording: Recording,
    directions: np.ndarray,
    labels: Sequence[str],
    power: float,
    onset: float | None,
    duration: float | None,
) -> Candidates:
    power = require_positive(power, "power", "current² s")
    time_course = _box(recording, onset, duration)
    # power = sum_n pattern_n² * sum_t time_course_t² * dt; the box is 1 in its bins, so its sum of squares counts them
    amplitude = math.sqrt(power / (time_course.sum() * recording.dt))
    peaks = np.abs(directions).max(axis=1, keepdims=True)  # first, so that no square overflows or vanishes
    scaled = directions / peaks
    patterns = amplitude * scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    return Candidates(patterns, time_course, labels, dt=recording.dt)


def _box(recording: Recording, onset: float | None, duration: float | None) -> np.ndarray:
    num_bins, dt = recording.num_bins, recording.dt
    first = num_bins // 2
    if onset is not None:
        start = require_positive(onset, "onset", "s", allow_zero=True)
        first = int(min(start / dt + 1e-6, num_bins))  # 0.29 / 0.01 is 28.999999999999996
    if first >= num_bins:
        mend = "start earlier; times count from the start of a trial"
        raise argument_error("onset", f"a time before the trial ends at {recording.duration:g} s", f"{onset} s", mend)
    remaining = num_bins - first
    if duration is None:
        length = min(max(round(num_bins / 10), 1), remaining)
    else:
        length = max(round(min(require_positive(duration, "duration", "s") / dt, num_bins + 1)), 1)
    if length > remaining:
        expected = f"at most {remaining * dt:g} s, which remain of the trial after the onset at {first * dt:g} s"
        raise argument_error("duration", expected, f"{duration} s", "stimulate for less time, or start earlier")
    time_course = np.zeros(num_bins)
    time_course[first : first + length] = 1.0
    return time_course


def _as_patterns(patterns: ArrayLike) -> np.ndarray:
    spatial = as_array(patterns, "patterns", ("candidate", "neuron"))
    require_finite(spatial, "patterns", "write 0 for neurons that are not stimulated")
    silent = np.flatnonzero(~spatial.any(axis=1))
    if silent.size:
        mend = "leave it out: it has no power"
        raise argument_error("patterns", "a current in every pattern", f"zeros only in pattern {silent[0]}", mend)
    return spatial.astype(np.float64)


def _neurons_of_type(recording: Recording, cell_type: str | None) -> np.ndarray:
    if cell_type is None:
        return np.arange(recording.num_neurons)
    if recording.cell_types is None:
        mend = "give cell_types to the Recording"
        raise argument_error("cell_type", "None, since the recording has no cell types", f"{cell_type!r}", mend)
    require_choice(cell_type, "cell_type", sorted(set(recording.cell_types)))
    return np.flatnonzero(np.asarray(recording.cell_types) == cell_type)


def _principal_components(recording: Recording, num_components: int) -> np.ndarray:
    """``(neuron, component)``, orthonormal, by decreasing variance."""
    mask, num_neurons = recording.mask, recording.num_neurons
    num_components = require_integer(
        num_components, "num_components", 1, num_neurons, f"there are {num_neurons} neurons"
    )
    observed = np.where(mask, recording.activity, 0.0)
    means = observed.sum(axis=(0, 1)) / np.maximum(mask.sum(axis=(0, 1)), 1)
    centred = np.where(mask, observed - means, 0.0).reshape(-1, num_neurons)
    # The singular value decomposition of a triangular factor of the size of the smaller axis gives the same right
    # vectors at a fraction of the cost, without squaring the singular values as a covariance would.
    factor = np.linalg.qr(centred, mode="r") if len(centred) > num_neurons else centred
    _, scales, rows = np.linalg.svd(factor, full_matrices=False)
    num_varying = int((scales > scales[0] * max(centred.shape) * np.finfo(float).eps).sum())
    if num_components > num_varying:
        expected = f"at most {num_varying}, the components in which the activity varies"
        raise argument_error("num_components", expected, f"{num_components}", "ask for fewer, or record more")
    leading = rows[:num_components].T
    # A singular vector has no sign of its own: its largest entry is made positive, on every machine.
    largest = leading[np.abs(leading).argmax(axis=0), np.arange(num_components)]
    return leading * np.sign(largest)


def _numbered(kind: str, count: int) -> list[str]:
    return [f"{kind} {index}" for index in range(count)]


def _require_recording(recording: Recording) -> Recording:
    return require_instance(recording, "recording", Recording, "pass the Recording that the model was fitted to")
