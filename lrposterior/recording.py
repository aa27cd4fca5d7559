"""Recordings: what was measured, what went in, and which entries were seen."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lrposterior.checks import (
    argument_error,
    as_array,
    as_indices,
    as_labels,
    describe,
    read_only,
    require_finite,
    require_integer,
    require_positive,
    require_probability,
    require_shape,
    suggest,
)
from lrposterior.files import require_file
from lrposterior.matlab_files import read_matlab
from lrposterior.npz_files import read_npz

Selection = int | str | slice | Sequence[int] | Sequence[bool] | Sequence[str] | np.ndarray | None


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Recording:
    """The activity of a population over trials, with its inputs, known stimulation and mask.

    Everything is checked and copied once, here; the arrays are read-only.

    Args:
        activity: ``(trial, time, neuron)``: rates in spikes/s, currents, dF/F or counts. Two axes ``(time, neuron)``
            are one trial; inputs, stimulation and mask may then have two axes as well. Integers are taken for counts.
            Trials of different lengths go through :meth:`from_trials`.
        dt: Width of a time bin in s.
        inputs: ``(trial, time, input)``, known external inputs in any unit (their weights are inferred).
            ``None`` is stored as an array of zero inputs.
        stimulation: ``(trial, time, neuron)``, known drive of single neurons in units of current, or ``None``.
        mask: ``(trial, time, neuron)``, True where the activity was observed. ``None`` is stored as all True. What is
            not finite under a False becomes 0; it enters no computation.
        neuron_labels: One name per neuron, no two alike.
        cell_types: One type per neuron, for instance ``"E"`` or ``"I"``.
        trial_labels: One name per trial; trials of one condition may share it.
        session_labels: The name of the session of every trial, for models with `SessionDrift`.

    Raises:
        ValueError: An argument is not of this kind, shape or range; the text names it, what came and the mend.
    """

    activity: np.ndarray
    dt: float
    inputs: np.ndarray
    stimulation: np.ndarray | None
    mask: np.ndarray
    neuron_labels: tuple[str, ...] | None
    cell_types: tuple[str, ...] | None
    trial_labels: tuple[str, ...] | None
    session_labels: tuple[str, ...] | None

    def __init__(
        self,
        activity: ArrayLike,
        dt: float,
        inputs: ArrayLike | None = None,
        stimulation: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        neuron_labels: Sequence[str] | None = None,
        cell_types: Sequence[str] | None = None,
        trial_labels: Sequence[str] | None = None,
        session_labels: Sequence[str] | None = None,
    ) -> None:
        if _num_axes(activity) is None:
            mend = "make it with Recording.from_trials(activity, dt), which masks what is missing"
            raise argument_error("activity", "trials of one length and one number of neurons", "different ones", mend)
        one_trial = not isinstance(activity, np.ma.MaskedArray) and _num_axes(activity) == 2
        values = _as_trials(activity, "activity", "neuron", one_trial)
        num_trials, num_bins, num_neurons = values.shape
        observed = _as_mask(mask, values.shape, one_trial)
        _require_observed(values, observed, mask is not None)
        shape = {"trial": num_trials, "time": num_bins}

        drive = np.zeros((num_trials, num_bins, 0))
        if inputs is not None:
            drive = _as_trials(inputs, "inputs", "input", one_trial)
            require_shape(drive, "inputs", shape | {"input": None}, "give one value per trial and bin of the activity")
            require_finite(drive, "inputs", "replace what is missing by the value that the circuit received")
        if stimulation is not None:
            stimulation = _as_trials(stimulation, "stimulation", "neuron", one_trial)
            require_shape(stimulation, "stimulation", shape | {"neuron": num_neurons}, "give it the activity's shape")
            require_finite(stimulation, "stimulation", "write 0 where no neuron is stimulated")
            stimulation = read_only(stimulation)

        def labels(value: Sequence[str] | None, name: str, axis: str, size: int) -> tuple[str, ...] | None:
            return None if value is None else as_labels(value, name, axis, size, unique=name == "neuron_labels")

        kept = np.array(values, dtype=np.float64, order="C", copy=True)
        np.copyto(kept, 0.0, where=~np.isfinite(kept))
        kept.flags.writeable = False
        stored = {
            "activity": kept,
            "dt": require_positive(dt, "dt", "s"),
            "inputs": read_only(drive),
            "stimulation": stimulation,
            "mask": read_only(observed, bool),
            "neuron_labels": labels(neuron_labels, "neuron_labels", "neuron", num_neurons),
            "cell_types": labels(cell_types, "cell_types", "neuron", num_neurons),
            "trial_labels": labels(trial_labels, "trial_labels", "trial", num_trials),
            "session_labels": labels(session_labels, "session_labels", "trial", num_trials),
        }
        for name, value in stored.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_trials(
        cls,
        activity: Sequence[ArrayLike],
        dt: float,
        inputs: Sequence[ArrayLike] | None = None,
        stimulation: Sequence[ArrayLike] | None = None,
        mask: Sequence[ArrayLike] | None = None,
        **labels: Any,
    ) -> Recording:
        """A recording of trials of different lengths.

        All are as long as the longest one; behind the end of the others, bins are masked, and activity, inputs and
        stimulation are 0. What is masked at the end of a trial enters no computation, inputs included.

        Args:
            activity: for every trial an array ``(time, neuron)``.
            dt: Width of a time bin in s.
            inputs: for every trial ``(time, input)``, as long as its activity, or ``None``.
            stimulation: for every trial ``(time, neuron)``, or ``None``.
            mask: for every trial ``(time, neuron)``, True where the activity was observed, or ``None``.
            **labels: neuron_labels, cell_types, trial_labels and session_labels, as :class:`Recording` takes them.

        Raises:
            ValueError: Not as many trials in all of them, trials of another length or number of columns, or what
                :class:`Recording` refuses.
        """
        lengths = [len(np.atleast_1d(trial)) for trial in activity]
        if not lengths:
            raise argument_error("activity", "one array (time, neuron) for every trial", "none", "give a trial")

        def filled(given: Sequence[Any], name: str, axis: str) -> np.ndarray:
            if len(given) != len(lengths):
                raise argument_error(name, f"{len(lengths)} arrays, one per trial", f"{len(given)}", "give all of them")
            parts: list[np.ndarray] = []
            for place, (each, length) in enumerate(zip(given, lengths, strict=True)):
                part = as_array(
                    each, f"{name}[{place}]", ("time", axis), may_be_empty=() if axis == "neuron" else (axis,)
                )
                size = {"time": length, axis: (parts or [part])[0].shape[1]}
                require_shape(part, f"{name}[{place}]", size, "give every trial the same columns, in its own bins")
                parts.append(np.pad(part, ((0, max(lengths) - length), (0, 0))))
            return np.stack(parts)

        seen = [np.ones(np.shape(trial)) for trial in activity] if mask is None else [_numbers(each) for each in mask]
        return cls(
            filled(activity, "activity", "neuron"),
            dt,
            None if inputs is None else filled(inputs, "inputs", "input"),
            None if stimulation is None else filled(stimulation, "stimulation", "neuron"),
            filled(seen, "mask", "neuron"),
            **labels,
        )

    @property
    def num_trials(self) -> int:
        """Number of trials."""
        return self.activity.shape[0]

    @property
    def num_bins(self) -> int:
        """Number of time bins in a trial."""
        return self.activity.shape[1]

    @property
    def num_neurons(self) -> int:
        """Number of neurons."""
        return self.activity.shape[2]

    @property
    def num_inputs(self) -> int:
        """Number of inputs, possibly 0."""
        return self.inputs.shape[2]

    @property
    def duration(self) -> float:
        """Length of a trial in s."""
        return self.num_bins * self.dt

    @property
    def times(self) -> np.ndarray:
        """``(time,)``, the start of every bin in s; the first is 0."""
        return np.arange(self.num_bins) * self.dt

    @property
    def fully_observed(self) -> bool:
        """Whether no entry is masked."""
        return bool(self.mask.all())

    def select(self, trials: Selection = None, time: Selection = None, neurons: Selection = None) -> Recording:
        """Choose trials, time bins and neurons; labels, inputs, stimulation and mask follow.

        Args:
            trials: Integers, a boolean array, a slice, or labels of trials. A label stands for every trial that bears
                it; an index may come twice (for a bootstrap).
            time: Bins, as integers, a boolean array or a slice. They must follow one another, since the dynamics run
                from bin to bin; hide bins in between by the mask. Times count from the first bin kept, and a model
                fitted to the result starts there.
            neurons: Integers, a boolean array, a slice, or labels of neurons, in the order wanted. Neurons left out
                are no part of a model fitted to the result.

        Returns:
            A new recording.

        Raises:
            ValueError: A selection that is empty, out of range, repeated (neurons, bins) or with gaps (bins).
        """
        rows = as_indices(trials, "trials", "trial", self.num_trials, self.trial_labels, unique=False)
        bins = as_indices(time, "time", "bin", self.num_bins)
        columns = as_indices(neurons, "neurons", "neuron", self.num_neurons, self.neuron_labels)
        if np.any(np.diff(bins) != 1):
            mend = "select a range of bins, and hide bins within it by the mask"
            raise argument_error("time", "bins that follow one another", "gaps or another order", mend)
        by_neuron, by_input = np.ix_(rows, bins, columns), np.ix_(rows, bins)

        def carried(labels: tuple[str, ...] | None, indices: np.ndarray) -> list[str] | None:
            return None if labels is None else [labels[index] for index in indices]

        return Recording(
            self.activity[by_neuron],
            self.dt,
            self.inputs[by_input],
            None if self.stimulation is None else self.stimulation[by_neuron],
            self.mask[by_neuron],
            carried(self.neuron_labels, columns),
            carried(self.cell_types, columns),
            carried(self.trial_labels, rows),
            carried(self.session_labels, rows),
        )

    def split(self, validation_fraction: float = 0.2, *, seed: int) -> tuple[Recording, Recording]:
        """Split the trials at random into training and validation, in their old order within each.

        Args:
            validation_fraction: Share of the trials for validation, rounded, with at least one trial on either side.
            seed: The same seed gives the same split.

        Returns:
            The training and the validation recording.

        Raises:
            ValueError: A fraction not between 0 and 1, or a recording of one trial.
        """
        fraction = require_probability(validation_fraction, "validation_fraction")
        seed = require_integer(seed, "seed")
        if self.num_trials < 2:
            mend = "record more trials, or hold out bins by the mask"
            raise argument_error("recording", "at least two trials to split", "one trial", mend)
        num_validation = min(max(round(fraction * self.num_trials), 1), self.num_trials - 1)
        held_out = np.zeros(self.num_trials, dtype=bool)
        held_out[np.random.default_rng(seed).permutation(self.num_trials)[:num_validation]] = True
        return self.select(trials=~held_out), self.select(trials=held_out)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.npz`` file that :func:`load_recording` and ``numpy.load`` read.

        Its keys are the names of the arguments; what is absent or says nothing (no inputs, nothing masked) is left
        out. The file appears complete or not at all.

        Args:
            path: Name of the file, ending in ``.npz``; an old file of this name is replaced.

        Raises:
            ValueError: Another ending, or the folder does not exist.
        """
        path = Path(path)
        if path.suffix != ".npz":
            raise argument_error("path", "a file name that ends in .npz", f"{path.name!r}", "add .npz")
        if not path.parent.is_dir():
            raise argument_error("path", "a folder that exists", f"{str(path.parent)!r}", "make the folder first")
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        kept: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
        if not self.num_inputs:
            del kept["inputs"]
        if self.fully_observed:
            del kept["mask"]
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                np.savez_compressed(file, **kept)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def summary(self) -> str:
        """A short description, one property on each line, with units."""
        seen = self.activity[self.mask]
        unseen = int((~self.mask.any(axis=(0, 1))).sum())
        types, counts = np.unique(self.cell_types or (), return_counts=True)
        of_types = ", ".join(f"{count} {kind}" for kind, count in zip(types, counts, strict=True))
        sessions = len(set(self.session_labels or ()))
        lines = {
            "trials": f"{self.num_trials}" + (f" of {_count(sessions, 'session')}" if sessions else ""),
            "time": f"{_count(self.num_bins, 'bin')} of {self.dt:g} s, {self.duration:g} s per trial",
            "neurons": f"{self.num_neurons}" + (f" ({of_types})" if of_types else ""),
            "inputs": f"{self.num_inputs}",
            "stimulation": "none" if self.stimulation is None else _count(_num_stimulated(self.stimulation), "neuron"),
            "observed": f"{100 * self.mask.mean():.4g}% of the entries"
            + (f", {_count(unseen, 'neuron')} never" if unseen else ""),
            "activity": f"{seen.min():.4g} to {seen.max():.4g}, mean {seen.mean():.4g}",
        }
        return "\n".join(["Recording", *(f"  {name:<12}{text}" for name, text in lines.items())])

    def __repr__(self) -> str:
        observed = "" if self.fully_observed else f", {100 * self.mask.mean():.3g}% observed"
        return (
            f"Recording({_count(self.num_trials, 'trial')} x {_count(self.num_bins, 'bin')} of {self.dt:g} s, "
            f"{_count(self.num_neurons, 'neuron')}, {_count(self.num_inputs, 'input')}{observed})"
        )


def load_recording(
    path: str | os.PathLike[str],
    *,
    names: Mapping[str, str | None] | None = None,
    axes: Sequence[str] | None = None,
    dt: float | None = None,
) -> Recording:
    """Read a recording from a ``.npz`` file, or from a MATLAB file of any version; nothing is ever unpickled.

    The keys of a ``.npz`` file are the names of the arguments of :class:`Recording`: ``activity`` and ``dt`` (in s, one
    number) must be there, the others may; ``numpy.savez("session.npz", activity=activity, dt=0.01)`` makes one.

    In a ``.mat`` file variables may have other names. What `names` leaves open is found by the argument's own name or a
    common one (such as ``fr`` or ``firing_rates``), in any case and with or without underscores, at the top or in a
    struct; the activity else as the only array with three axes. The order of the axes is nowhere in the file. A warning
    says what was taken for what, unless `names` and `axes` say it all. Labels are cell arrays of strings or char
    arrays.

    Args:
        path: Name of the file.
        names: For ``.mat``: variables by the argument of :class:`Recording` that they are, as in
            ``{"activity": "fr", "inputs": "session.u"}``, with a dot for the field of a struct. ``None`` for a variable
            leaves the argument out.
        axes: For ``.mat``: the axes of the activity, stimulation and mask in the order of MATLAB's ``size``, such as
            ``("neuron", "time", "trial")``; the inputs have the input where these have the neuron. By default
            ``("trial", "time", "neuron")``, or ``("time", "neuron")`` where the activity has two axes. An axis of
            length 1 that MATLAB leaves out at the end comes back.
        dt: For ``.mat``: width of a time bin in s; it goes before what the file says.

    Warns:
        UserWarning: Names in a ``.mat`` file, or the order of its axes, were guessed: which variable is what.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Neither a ``.npz`` nor a ``.mat`` file, damaged, keys missing or unknown, Python objects inside, or
            contents that :class:`Recording` refuses. In a ``.mat`` file, a variable is missing, several could be meant,
            one holds something else than numbers or strings, or a guessed ``dt`` is not below 1 s (is it in ms?).
    """
    path = require_file(path, "path", "a recording")
    ending = path.suffix.lower()
    if ending == ".mat":
        return _from_matlab(path, names, axes, dt)
    if ending != ".npz":
        mend = "save it by Recording.save, numpy.savez or MATLAB's save"
        raise argument_error("path", "a recording that ends in .npz or .mat", f"{path.name!r}", mend)
    for argument, value in {"names": names, "axes": axes, "dt": dt}.items():
        if value is not None:
            mend = "leave it out, or read the arrays by numpy.load and give them to Recording"
            raise argument_error(argument, "None for a .npz file, whose keys are exact", describe(value), mend)
    arrays = _read_npz(path)
    width = arrays.pop("dt")
    return Recording(dt=width.item() if width.size == 1 else width, **arrays)  # others write numbers as (1,) or (1, 1)


def _from_matlab(
    path: Path, names: Mapping[str, str | None] | None, axes: Sequence[str] | None, dt: float | None
) -> Recording:
    read = read_matlab(path, names, axes, dt)
    try:
        recording = Recording(**read.arguments)
    except ValueError as error:
        mend = "if it is not that, give axes, or names, where None leaves one out"
        text = f"{error} (read from {path.name!r}: {read.origin}; {mend})"
        raise ValueError(text) from None
    if read.guessed:
        text = f"read from {path.name!r}: {read.origin}. What names and axes do not give is a guess."
        warnings.warn(text, UserWarning, stacklevel=3)
    return recording


def _read_npz(path: Path) -> dict[str, Any]:
    mend = "write one with Recording.save or numpy.savez(path, activity=..., dt=...), dt in s"
    arrays = read_npz(path, "path", "a recording (.npz)", mend, ("activity", "dt"))
    allowed = [field.name for field in fields(Recording)]
    for key in arrays:
        if key not in allowed:
            mend = suggest(key, allowed) or "rename it or leave it out"
            raise argument_error("path", f"the keys {', '.join(allowed)}", f"the unknown key {key!r}", mend)
    return arrays


def _num_axes(value: Any) -> int | None:
    try:
        return np.ndim(value)
    except ValueError:  # ragged: refused where it is asked for
        return None


def _as_trials(value: Any, name: str, last_axis: str, one_trial: bool) -> np.ndarray:
    may_be_empty = (last_axis,) if last_axis == "input" else ()
    if one_trial and not isinstance(value, np.ma.MaskedArray) and _num_axes(value) == 2:
        return as_array(value, name, ("time", last_axis), may_be_empty=may_be_empty)[None]
    return as_array(value, name, ("trial", "time", last_axis), may_be_empty=may_be_empty)


def _numbers(mask: Any) -> Any:
    """Booleans as 0 and 1, anything else as it came."""
    boolean = _num_axes(mask) is not None and np.asarray(mask).dtype.kind == "b"
    return np.asarray(mask, dtype=np.uint8) if boolean else mask


def _as_mask(mask: Any, shape: tuple[int, ...], one_trial: bool) -> np.ndarray:
    if mask is None:
        return np.ones(shape, dtype=bool)
    numbers = _as_trials(_numbers(mask), "mask", "neuron", one_trial)
    require_shape(
        numbers, "mask", dict(zip(("trial", "time", "neuron"), shape, strict=True)), "give it the activity's shape"
    )
    if not np.isin(numbers, (0, 1)).all():
        raise argument_error("mask", "True (observed) or False", "other values", "write for instance activity > 0")
    if not numbers.any():
        raise argument_error("mask", "something observed", "False everywhere", "True stands for observed: invert it?")
    return numbers.astype(bool)


def _require_observed(values: np.ndarray, observed: np.ndarray, has_mask: bool) -> None:
    mend = "set the mask to False there" if has_mask else "pass mask=np.isfinite(activity) if these are missing"
    if np.any(observed & ~np.isfinite(values)):
        require_finite(np.where(observed, values, 0), "activity", mend)
    negative = values[observed & (values < 0)] if values.dtype.kind == "i" else values[:0]
    if negative.size:
        mend = "mask what is missing, or convert to float if these are not counts"
        got = f"{negative.size} negative counts, the lowest {negative.min()}"
        raise argument_error("activity", "integers (counts) >= 0", got, mend)


def _num_stimulated(stimulation: np.ndarray) -> int:
    return int((stimulation != 0).any(axis=(0, 1)).sum())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
