"""Arrays out of `.npz` files: nothing is unpickled, and what is wrong with a file is said in one line."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Collection
from typing import Any

import numpy as np

from lrposterior.checks import argument_error
from lrposterior.files import require_file


def read_npz(
    path: str | os.PathLike[str], name: str, what: str, mend: str, keys: Collection[str]
) -> dict[str, np.ndarray]:
    """All arrays of a file.

    Args:
        path: name of the file.
        name: name of the argument, for the error.
        what: what the file should be, such as "a readout".
        mend: what to do where it is another one.
        keys: names of arrays that it must hold; it may hold others.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is a folder, no `.npz` file, damaged, without one of the keys, or if it holds something else
            than plain arrays.
    """
    path = require_file(path, name, what)
    if not zipfile.is_zipfile(path):
        raise argument_error(name, what, f"{path.name!r}, which is no .npz file or is cut short", mend)
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in keys if key not in archive.files]
            if missing:
                held = ", ".join(archive.files) or "nothing"
                got = f"{path.name!r}, with {held} in it but without {', '.join(missing)}"
                raise argument_error(name, what, got, mend)
            return {key: _read_array(archive, key) for key in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        got = f"{path.name!r}, which is damaged ({error})"
        raise argument_error(name, what, got, f"copy it again, or {mend}") from error


def _read_array(archive: Any, key: str) -> np.ndarray:
    try:
        array = archive[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise zipfile.BadZipFile(str(error)) from error
        mend = "save plain numbers, and labels by np.array(labels, dtype=str)"
        raise argument_error(key, "an array of numbers or strings", "Python objects (a pickle)", mend) from None
    if not isinstance(array, np.ndarray):
        raise argument_error(key, "an array", "a member that is no .npy array", "write the file with numpy.savez")
    return array
