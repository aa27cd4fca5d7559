"""Checks of arguments at the public door.

Every failure is a ``ValueError`` that reads ``<argument>: expected <what>, got <what came>; <mend>``.
Behind the door nothing is checked again.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

Kind = TypeVar("Kind")


def argument_error(name: str, expected: str, got: str, mend: str) -> ValueError:
    """The error that every check raises: what was expected, what came and how to mend it."""
    return ValueError(f"{name}: expected {expected}, got {got}; {mend}")


def describe(value: Any) -> str:
    """What came, in a few words: the shape of an array, else the value itself, cut to one short line."""
    shape = getattr(value, "shape", ())
    if shape:
        return f"an array of shape {tuple(shape)}"
    text = " ".join(repr(value.item() if isinstance(value, np.generic) else value).split())
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:50]}..."


def read_only(array: Any, dtype: Any = np.float64) -> np.ndarray:
    """A contiguous copy of an array that cannot be written to."""
    copy = np.array(array, dtype=dtype, order="C", copy=True)
    copy.flags.writeable = False
    return copy


def as_array(value: Any, name: str, axes: Sequence[str], *, may_be_empty: Collection[str] = ()) -> np.ndarray:
    """Check that ``value`` is an array of real numbers with these axes.

    Args:
        value: Anything that numpy makes into an array.
        name: Name of the argument, for the error.
        axes: Names of the axes, for instance ``("trial", "time", "neuron")``.
        may_be_empty: Axes that may have length zero.

    Returns:
        The array, with the dtype in which it came (integers stay integers); NaN and infinities pass.

    Raises:
        ValueError: Not real numbers, ragged, a numpy mask that would be lost, another number of axes, an empty axis.
    """
    expected = f"an array of real numbers with axes ({', '.join(axes)})"
    if isinstance(value, np.ma.MaskedArray):
        raise argument_error(name, expected, "a numpy masked array", "pass its .data, and what it hides by mask=")
    try:
        array = np.asarray(value)
    except ValueError:
        raise argument_error(name, expected, "rows of different lengths", "pad them to one length") from None
    if array.dtype.kind not in "iuf":
        raise argument_error(
            name, expected, f"{type(value).__name__} of dtype {array.dtype}", "convert it to one dense array of float64"
        )
    if array.ndim != len(axes):
        raise argument_error(name, expected, f"shape {array.shape}", f"give it {len(axes)} axes, in this order")
    empty = [axis for axis, size in zip(axes, array.shape, strict=True) if size == 0 and axis not in may_be_empty]
    if empty:
        raise argument_error(
            name,
            f"at least one entry on every axis ({', '.join(axes)})",
            f"shape {array.shape}",
            f"the {empty[0]} axis must not be empty",
        )
    return array


def require_shape(array: np.ndarray, name: str, expected: Mapping[str, int | None], mend: str | None = None) -> None:
    """Check the sizes of the axes; ``None`` stands for any size.

    Args:
        array: The array.
        name: Name of the argument, for the error.
        expected: Size of each axis, in order, for instance ``{"neuron": 100, "rank": 2}``.
        mend: What to do about it; by default the axes that do not fit are named.

    Raises:
        ValueError: Another number of axes or another size.
    """
    sizes = tuple(expected.values())
    if array.ndim == len(sizes) and all(
        want is None or want == size for want, size in zip(sizes, array.shape, strict=True)
    ):
        return
    wanted = ", ".join(f"{axis}={'any' if size is None else size}" for axis, size in expected.items())
    if mend is None and array.ndim == len(sizes):
        misfits = [
            axis for (axis, want), size in zip(expected.items(), array.shape, strict=True) if want not in (None, size)
        ]
        mend = f"check the {' and '.join(misfits)} axis"
    raise argument_error(
        name, f"shape ({wanted})", f"{array.shape}", mend or f"give it {len(sizes)} axes, in this order"
    )


def require_finite(array: np.ndarray, name: str, mend: str = "remove or replace what is not finite") -> None:
    """Check that no entry is NaN or infinite; the error names how many are and where the first one is.

    Raises:
        ValueError: An entry is NaN or infinite.
    """
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        first = tuple(int(index) for index in bad[0])
        count = f"{len(bad)} of {np.size(array)} entries NaN or infinite"
        raise argument_error(name, "finite numbers", f"{count}, the first at {first}", mend)


def require_number(value: Any, name: str, expected: str = "a finite number", mend: str = "give one number") -> float:
    """Check that ``value`` is one finite real number (a bool is none) and return it as a float.

    Raises:
        ValueError: Not one number, or not finite.
    """
    array = np.asarray(value) if np.isscalar(value) or hasattr(value, "dtype") else np.asarray(None)
    if array.ndim or array.dtype.kind not in "iuf" or not np.isfinite(array):
        raise argument_error(name, expected, describe(value), mend)
    return float(array)


def require_positive(
    value: Any, name: str, unit: str = "", *, allow_zero: bool = False, mend: str | None = None
) -> float:
    """Check that ``value`` is one finite number above zero (or, if allowed, zero) and return it as a float.

    Args:
        value: The number.
        name: Name of the argument, for the error.
        unit: Its unit, for the error, for instance ``"s"``.
        allow_zero: Whether zero passes.
        mend: What to do about it.

    Raises:
        ValueError: Not one number, not finite, negative, or a zero that is not allowed.
    """
    expected = f"one finite number {'>= 0' if allow_zero else '> 0'}{f' (in {unit})' if unit else ''}"
    mend = mend or f"give {name}{f' in {unit}' if unit else ''} as such a number"
    number = require_number(value, name, expected, mend)
    if number < 0 or (number == 0 and not allow_zero):
        raise argument_error(name, expected, describe(value), mend)
    return number


def require_probability(value: Any, name: str, mend: str = "write 0.9 for 90%") -> float:
    """Check that ``value`` lies strictly between 0 and 1 and return it as a float.

    Raises:
        ValueError: Not one number in the open interval (0, 1).
    """
    expected = "a number between 0 and 1, both excluded"
    number = require_number(value, name, expected, mend)
    if not 0 < number < 1:
        raise argument_error(name, expected, describe(value), mend)
    return number


def require_integer(
    value: Any, name: str, minimum: int = 0, maximum: int | None = None, mend: str | None = None
) -> int:
    """Check that ``value`` is a whole number (neither a bool nor a float) within these bounds, both included.

    Raises:
        ValueError: Not an integer, or out of bounds.
    """
    bounds = f">= {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    mend = mend or "give it as an int within these bounds"
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < minimum or (maximum is not None and number > maximum):
        raise argument_error(name, f"an integer {bounds}", describe(value), mend)
    return number


def require_choice(value: Any, name: str, choices: Collection[str]) -> str:
    """Check that ``value`` is one of these names; the error suggests the nearest.

    Raises:
        ValueError: Not one of them.
    """
    if isinstance(value, str) and value in choices:
        return value
    listed = ", ".join(repr(choice) for choice in choices)
    raise argument_error(name, f"one of {listed}", describe(value), suggest(value, choices) or "choose one of these")


def suggest(value: Any, choices: Collection[str]) -> str:
    """``"did you mean 'tanh'?"`` for a name near to one of the choices, else an empty string."""
    nearest = difflib.get_close_matches(value, list(choices), n=1) if isinstance(value, str) else []
    return f"did you mean {nearest[0]!r}?" if nearest else ""


def require_instance(value: Any, name: str, kind: type[Kind], mend: str | None = None) -> Kind:
    """Check that ``value`` is an object of this class and return it.

    Raises:
        ValueError: An object of another class.
    """
    if not isinstance(value, kind):
        raise argument_error(name, kind.__name__, type(value).__name__, mend or f"make it with {kind.__name__}(...)")
    return value


def as_labels(labels: Any, name: str, axis: str, size: int, *, unique: bool = False) -> tuple[str, ...]:
    """Check that ``labels`` holds one string per entry of an axis and return them as a tuple.

    Args:
        labels: A sequence or an array of strings.
        name: Name of the argument, for the error.
        axis: What is labelled, for instance ``"neuron"``.
        size: How many labels there must be.
        unique: Whether a label may occur only once.

    Raises:
        ValueError: A single string, entries that are not strings, another number of them, a repeated label.
    """
    expected = f"{size} strings, one per {axis}"
    one_axis = isinstance(labels, Sequence) or np.ndim(labels) == 1
    if isinstance(labels, (str, bytes)) or not one_axis:
        raise argument_error(name, expected, describe(labels), "give a list of strings")
    items = list(labels)
    strange = [item for item in items if not isinstance(item, str)]
    if strange:
        raise argument_error(name, expected, describe(strange[0]), f"write np.asarray({name}).astype(str)")
    if len(items) != size:
        raise argument_error(name, expected, f"{len(items)}", f"give every {axis} its label, in order")
    if unique and len(set(items)) < size:
        repeated = next(item for item in items if items.count(item) > 1)
        raise argument_error(
            name, f"a different label for every {axis}", f"{repeated!r} {items.count(repeated)} times", "number them"
        )
    return tuple(str(item) for item in items)


def as_indices(
    selection: Any, name: str, axis: str, size: int, labels: Sequence[str] | None = None, *, unique: bool = True
) -> np.ndarray:
    """Turn a selection along an axis into its indices.

    Args:
        selection: ``None`` (all), an integer (negative ones count from the end), a slice, a boolean array over the
            axis, a sequence of integers, or one or several labels (each stands for every entry that bears it).
        name: Name of the argument, for the error.
        axis: What is selected, for instance ``"neuron"``.
        size: Length of the axis.
        labels: The labels of the axis, where it has some.
        unique: Whether an entry may be selected only once.

    Returns:
        Integers from 0 to ``size - 1``, at least one, in the order asked for.

    Raises:
        ValueError: Out of range, empty, a boolean array of another length, a label unknown or repeated, floats.
    """
    indices = _indices(selection, name, axis, size, labels)
    if not indices.size:
        raise argument_error(name, f"at least one {axis}", "an empty selection", f"select among {size} {axis}s")
    if unique and len(np.unique(indices)) < len(indices):
        raise argument_error(name, f"every {axis} at most once", "a repeated index", "remove the repetition")
    return indices


def _indices(selection: Any, name: str, axis: str, size: int, labels: Sequence[str] | None) -> np.ndarray:
    expected, everything = f"a selection of {axis}s among {size}", np.arange(size)
    if selection is None:
        return everything
    try:
        if isinstance(selection, slice):
            return everything[selection]
        asked = np.atleast_1d(np.asarray(selection))
    except (TypeError, ValueError):
        raise argument_error(name, expected, describe(selection), "give a slice or a list of integers") from None
    kind = asked.dtype.kind if asked.size else "i"
    if asked.ndim == 1 and kind == "U":
        return _indices_of_labels([str(label) for label in asked], name, axis, labels)
    if asked.ndim == 1 and kind == "b" and np.ndim(selection) == 1:
        if len(asked) != size:
            mend = f"compute it from all {axis}s"
            raise argument_error(name, f"one boolean for each of {size} {axis}s", f"{len(asked)}", mend)
        return everything[asked]
    if asked.ndim == 1 and kind in "iu":
        outside = asked[(asked < -size) | (asked >= size)]
        if outside.size:
            range_ = f"indices from 0 to {size - 1} of {size} {axis}s"
            raise argument_error(name, range_, f"{outside[0]}", "counting starts at 0")
        return everything[asked.astype(int)]
    mend = "give integers, booleans, a slice or labels, in one dimension"
    raise argument_error(name, expected, describe(selection), mend)


def _indices_of_labels(asked: list[str], name: str, axis: str, labels: Sequence[str] | None) -> np.ndarray:
    if labels is None:
        raise argument_error(
            name, f"indices, since the {axis}s have no labels", f"the label {asked[0]!r}", f"give {axis}_labels first"
        )
    for label in asked:
        if label not in labels:
            shown = ", ".join(repr(known) for known in labels[:5]) + (", ..." if len(labels) > 5 else "")
            raise argument_error(
                name, f"labels of {axis}s", f"{label!r}", suggest(label, labels) or f"the labels are {shown}"
            )
    return np.concatenate([np.flatnonzero(np.asarray(labels) == label) for label in asked])
