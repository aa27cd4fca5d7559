"""MATLAB files: which variable is which argument of a recording, and arrays with the axes in our order.

SciPy reads the versions up to 7. Version 7.3 is HDF5, in which MATLAB's axes stand in reverse; h5py reads it, and no
variable before it is needed. Neither runs anything that a file contains.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import scipy.sparse
from scipy.io.matlab import MatlabOpaque, varmats_from_mat

from lrposterior.checks import argument_error, describe, require_choice, require_instance, suggest

AXES = ("trial", "time", "neuron")
# Arguments of a recording, what else their variables are often called, and the last axis of those that are arrays.
COMMON_NAMES = {
    "activity": (
        "rates", "rate", "firing_rates", "firing_rate", "fr", "spikes", "spike_counts", "counts", "psth", "dff", "data",
        "y",
    ),
    "dt": ("dt_s", "bin_width", "bin_size", "time_step"),
    "inputs": ("input", "u", "stim_inputs", "task_inputs"),
    "stimulation": (),
    "mask": (),
    "neuron_labels": ("neuron_names", "unit_names"),
    "cell_types": ("cell_type", "ei"),
    "trial_labels": ("conditions", "trial_types"),
    "session_labels": (),
}  # fmt: skip
LAST_AXIS = {"activity": "neuron", "inputs": "input", "stimulation": "neuron", "mask": "neuron"}
# In s. A width that was found by its name, not given by the user, and is not below that may be in ms.
LONGEST_BIN = 1.0
NUM_LISTED = 8

# What a variable holds: what the arguments take, and what they do not.
NUMBERS, TEXT = "numbers", "strings"
STRUCT, STRUCTS, CELL, SPARSE = "a struct", "an array of structs", "a cell array", "a sparse matrix"
OBJECT, COMPLEX = "a string array, a table or another object", "complex numbers"
UNREADABLE = "a variable that SciPy cannot read"
MENDS = {
    TEXT: "store numbers",
    STRUCT: "name one of its fields, {name}.<field>",
    SPARSE: "store full({name})",
    COMPLEX: "store real({name}) or abs({name})",
    CELL: "store one array, for instance cat(3, {name}{{:}}), with a mask where trials differ in length",
}
NUMERIC = {"double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}


@dataclass(frozen=True)
class MatlabArrays:
    """What was read from a MATLAB file.

    Attributes:
        arguments: of `Recording`, axes in its order.
        origin: from which variable each of them came, in words.
        guessed: whether a name or the order of the axes was not given.
    """

    arguments: dict[str, Any]
    origin: str
    guessed: bool


@dataclass(frozen=True)
class _Variable:
    """A variable of a file, or a field of a struct: what it holds, its shape in MATLAB, and how to get it.

    Strings are counted; they are read as a list, down the columns.
    """

    kind: str
    shape: tuple[int, ...]
    read: Callable[[], Any]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


def read_matlab(
    path: Path, names: Mapping[str, str | None] | None, axes: Sequence[str] | None, dt: float | None
) -> MatlabArrays:
    """Read the arguments of a recording from a MATLAB file, as `load_recording` says.

    Raises:
        ValueError: Not a MATLAB file or a damaged one; no variable, several, or one of the wrong kind for an argument.
    """
    given = {} if names is None else dict(require_instance(names, "names", Mapping, "write {'activity': 'fr'}"))
    for argument in given:
        require_choice(argument, "names", tuple(COMMON_NAMES))
    order = None if axes is None else _as_order(axes)
    if dt is not None:
        given["dt"] = None
    with ExitStack() as opened:
        with _refusing_damage(path):
            variables = _variables(path, opened)
        if not variables:
            mend = "write it again by MATLAB's save"
            raise argument_error("path", "variables that MATLAB wrote", f"none in {path.name!r}", mend)
        for argument, name in given.items():
            if name is not None and name not in variables:
                mend = suggest(name, variables) or f"it has {_listed(variables)}"
                raise argument_error("names", f"a variable of {path.name!r}", f"{name!r} for {argument}", mend)
        guessed = _guessed(variables, given)
        chosen = {argument: name for argument, name in (given | guessed).items() if name is not None}
        for argument in ("activity", "dt") if dt is None else ("activity",):
            if argument not in chosen:
                raise _absent(argument, variables, path)
        in_turn = [argument for argument in COMMON_NAMES if argument in chosen]
        read = {argument: _read(argument, chosen[argument], variables, path) for argument in in_turn}
    order = order or (AXES if np.ndim(read["activity"]) > 2 else AXES[1:])
    arguments = {name: _in_order(value, order) if name in LAST_AXIS else value for name, value in read.items()}
    if dt is not None:
        arguments["dt"] = dt
    elif "dt" in guessed:
        _require_seconds(arguments["dt"], guessed["dt"])
    origin = ", ".join(f"{name} <- {chosen[name]!r} {_described(name, value, order)}" for name, value in read.items())
    unread = {name: one for name, one in variables.items() if one.kind == NUMBERS and name not in chosen.values()}
    if unread:
        origin += f"; not read: {_listed(unread)}"
    return MatlabArrays(arguments, origin, axes is None or bool(guessed))


# ------------------------------------------------------------------------------------------- which variable is which


def _guessed(variables: Mapping[str, _Variable], given: Mapping[str, str | None]) -> dict[str, str]:
    """The variables that by their names are the arguments that were not given; for the activity else by its axes."""
    free = {
        name: one for name, one in variables.items() if name not in given.values() and one.size and one.kind != STRUCT
    }
    found: dict[str, str] = {}
    for argument, names in COMMON_NAMES.items():
        if argument in given:
            continue
        # What bears the argument's own name is meant, whatever it holds; another name may stand for something else.
        own = [name for name in free if _plain(name) == _plain(argument)]
        common = {_plain(name) for name in names}
        others = [name for name, one in free.items() if _plain(name) in common and _suits(argument, one)]
        if own or others:
            found[argument] = _only(argument, own or others, variables)
    if "activity" not in given and "activity" not in found:
        cubes = {name for name, one in free.items() if one.kind == NUMBERS and len(one.shape) == len(AXES)}
        arrays = sorted(cubes - set(found.values()))
        if arrays:
            found["activity"] = _only("activity", arrays, variables)
    return found


def _plain(name: str) -> str:
    return name.rpartition(".")[2].replace("_", "").lower()


def _suits(argument: str, variable: _Variable) -> bool:
    if argument == "dt":
        return variable.kind == NUMBERS and variable.size == 1
    return variable.kind == (NUMBERS if argument in LAST_AXIS else TEXT) and variable.size > 1


def _only(argument: str, found: list[str], variables: Mapping[str, _Variable]) -> str:
    if len(found) > 1:
        mend = f"choose, for instance names={{{argument!r}: {found[0]!r}}}"
        got = _listed({name: variables[name] for name in found})
        raise argument_error("names", f"one variable for {argument}", got, mend)
    return found[0]


def _absent(argument: str, variables: Mapping[str, _Variable], path: Path) -> ValueError:
    mend = f"pass names={{{argument!r}: ...}}" + ", or dt=... in s" * (argument == "dt")
    got = f"no such name in {path.name!r}, which has {_listed(variables)}"
    return argument_error("names", f"a variable for {argument}", got, mend)


def _listed(variables: Mapping[str, _Variable]) -> str:
    shown = [f"{name!r} {one.shape if one.kind == NUMBERS else f'({one.kind})'}" for name, one in variables.items()]
    return ", ".join(shown[:NUM_LISTED]) + (f" and {len(shown) - NUM_LISTED} more" if len(shown) > NUM_LISTED else "")


# ---------------------------------------------------------------------------------------------------- what they hold


def _read(argument: str, name: str, variables: Mapping[str, _Variable], path: Path) -> Any:
    variable = variables[name]
    is_label = argument not in LAST_AXIS and argument != "dt"
    if variable.kind != (TEXT if is_label else NUMBERS):
        mend = MENDS.get(variable.kind, "store an array of numbers").format(name=name)
        if is_label and variable.kind != STRUCT:
            mend = f"store cellstr(string({name})), a cell array of strings"
        if argument not in ("activity", "dt"):
            mend += f", or leave it out by names={{{argument!r}: None}}"
        raise argument_error(
            argument, TEXT if is_label else NUMBERS, f"{name!r} in {path.name!r}, {variable.kind}", mend
        )
    with _refusing_damage(path):
        value = variable.read()
    if is_label:
        return value
    value = value.astype(np.uint8) if value.dtype.kind == "b" else value
    return value.item() if argument == "dt" and value.size == 1 else value


def _as_order(axes: Sequence[str]) -> tuple[str, ...]:
    order = () if isinstance(axes, str) else tuple(axes)
    if sorted(order) not in (sorted(AXES), sorted(AXES[1:])):
        mend = "give them in the order of size(activity) in MATLAB, such as ('neuron', 'time', 'trial')"
        raise argument_error("axes", f"the axes {AXES}, or without trial, in any order", describe(axes), mend)
    return order


def _in_order(value: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
    """Axes as a recording has them; those of length 1 that MATLAB leaves out at the end come back."""
    value = value.reshape(value.shape + (1,) * (len(order) - value.ndim))
    return value.transpose([order.index(axis) for axis in AXES if axis in order]) if value.ndim == len(order) else value


def _described(argument: str, value: Any, order: tuple[str, ...]) -> str:
    if argument == "dt":
        return f"= {describe(value)} s"
    if argument not in LAST_AXIS:
        return f"({len(value)} string{'s' * (len(value) != 1)})"
    shape = value.shape + (1,) * (len(order) - value.ndim)
    if len(shape) > len(order):
        return f"{shape}"
    names = [LAST_AXIS[argument] if axis == "neuron" else axis for axis in order]
    return f"({', '.join(f'{axis}={size}' for axis, size in zip(names, shape, strict=True))})"


def _require_seconds(dt: Any, name: str) -> None:
    if isinstance(dt, (int, float)) and dt >= LONGEST_BIN:
        mend = f"pass dt={dt / 1000:g} if that is in ms, or names={{'dt': {name!r}}} if it is in s"
        raise argument_error("dt", f"a guessed width of a bin below {LONGEST_BIN:g} s", f"{name!r} = {dt:g}", mend)


# -------------------------------------------------------------------------------------------------------- both formats


@contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # on damaged files, SciPy and h5py raise a dozen kinds, AttributeError among them
        got = f"{path.name!r}, which is damaged or of another kind ({error})"
        mend = "write it again, by save(..., '-v7') or save(..., '-v7.3')"
        raise argument_error("path", "a MATLAB file (.mat)", got, mend) from error


def _variables(path: Path, opened: ExitStack) -> dict[str, _Variable]:
    if not h5py.is_hdf5(path):
        contents = _load(path)
        items = ((name, value) for name, value in contents.items() if not name.startswith("__"))
        return _with_fields(items, _of_scipy, lambda struct: {name: struct[name].item() for name in struct.dtype.names})
    file = opened.enter_context(h5py.File(path, "r"))
    items = ((name, item) for name, item in file.items() if not name.startswith("#") and _class(item))
    return _with_fields(items, lambda item: _of_hdf5(item, file), dict)


def _load(path: Path) -> dict[str, Any]:
    """What SciPy reads. A variable that it cannot read comes as a str."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # `mat_dtype`: whole numbers in a matrix of doubles are stored as integers, and are no counts for that. With it,
        # SciPy drops imaginary parts.
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        try:
            contents = scipy.io.loadmat(path, appendmat=False, mat_dtype=True)
        except np.exceptions.ComplexWarning:
            contents = scipy.io.loadmat(path, appendmat=False)
        if isinstance(contents.get("None"), MatlabOpaque):  # SciPy's name for every string array and table
            del contents["None"]
            with path.open("rb") as file:
                parts = [scipy.io.loadmat(part)["None"] for name, part in varmats_from_mat(file) if name == "None"]
            contents |= {part[0]["s0"].decode(): part for part in parts}
    return contents


def _with_fields(
    items: Iterable[tuple[str, Any]],
    variable_of: Callable[[Any], _Variable],
    fields_of: Callable[[Any], Mapping[str, Any]],
) -> dict[str, _Variable]:
    """The variables, each struct followed by its fields under dotted names."""
    variables = {}
    for name, item in items:
        variables[name] = variable_of(item)
        if variables[name].kind == STRUCT:
            variables |= {f"{name}.{field}": variable_of(inner) for field, inner in fields_of(item).items()}
    return variables


def _of_scipy(value: Any) -> _Variable:
    strings: list[str] = []
    if scipy.sparse.issparse(value):
        kind = SPARSE
    elif not isinstance(value, np.ndarray):
        kind = UNREADABLE
    elif type(value) is not np.ndarray:  # functions, objects and tables have classes of their own
        kind = OBJECT
    elif value.dtype.names is not None:
        kind = STRUCT if value.size == 1 else STRUCTS
    elif value.dtype.kind in "biuf":
        kind = NUMBERS
    elif value.dtype.kind == "c":
        kind = COMPLEX
    elif value.dtype.kind == "U":
        kind, strings = TEXT, list(value.ravel("F"))
    else:
        cells = list(value.ravel("F"))
        kind = TEXT if all(_is_string(cell) for cell in cells) else CELL
        strings = ["".join(cell.flat) for cell in cells] if kind == TEXT else []
    if kind == TEXT:
        return _Variable(kind, (len(strings),), lambda: [str(one).rstrip() for one in strings])
    return _Variable(kind, np.shape(value), lambda: value)


def _is_string(cell: Any) -> bool:
    return isinstance(cell, np.ndarray) and cell.dtype.kind == "U" and cell.size <= 1


def _of_hdf5(item: Any, file: h5py.File) -> _Variable:
    kind = _class(item)
    if "MATLAB_sparse" in item.attrs:
        return _Variable(SPARSE, (), lambda: None)
    if isinstance(item, h5py.Group) and kind == "struct":
        # The fields of an array of structs are references to the values, without a class.
        return _Variable(STRUCT if all(_class(field) for field in item.values()) else STRUCTS, (), lambda: None)
    if not isinstance(item, h5py.Dataset) or "MATLAB_object_decode" in item.attrs:
        return _Variable(OBJECT, (), lambda: None)
    if _is_empty(item):
        return _Variable(NUMBERS, (0, 0), lambda: np.zeros((0, 0))) if kind in NUMERIC else _Variable(TEXT, (0,), list)
    shape = item.shape[::-1]
    if kind in NUMERIC:
        return _Variable(COMPLEX if item.dtype.names else NUMBERS, shape, lambda: item[()].T)
    if kind == "char":
        return _Variable(TEXT, shape[:1], lambda: _rows_of_text(item))
    if kind == "cell":
        references = item[()].ravel()  # in reverse, C's order is MATLAB's
        if all(_is_row_of_text(file[reference]) for reference in references):
            return _Variable(
                TEXT,
                (len(references),),
                lambda: ["".join(_rows_of_text(file[reference])) for reference in references],
            )
        return _Variable(CELL, shape, lambda: None)
    return _Variable(OBJECT, shape, lambda: None)


def _class(item: Any) -> str:
    name = item.attrs.get("MATLAB_class", b"")
    return name.decode() if isinstance(name, bytes) else str(name)


def _is_empty(item: Any) -> bool:
    """Whether the dataset stands for an array without entries; what it holds is its shape."""
    return bool(item.attrs.get("MATLAB_empty", 0))


def _is_row_of_text(item: Any) -> bool:
    return _class(item) == "char" and (_is_empty(item) or item.shape[-1] == 1)


def _rows_of_text(item: Any) -> list[str]:
    if _is_empty(item):
        return []
    return [row.astype("<u2").tobytes().decode("utf-16-le", "replace").rstrip() for row in item[()].T]
