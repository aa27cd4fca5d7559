"""Files: those that are read are there, and those that are written appear complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from lrposterior.checks import argument_error


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name beside `path` to write to: its file takes the place of `path` if the block ends well, or is removed."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def require_file(path: str | os.PathLike[str], name: str, what: str) -> Path:
    """Check that there is a file of this name.

    Args:
        path: Name of the file.
        name: Name of the argument, for the error.
        what: What the file should be, such as "a recording".

    Raises:
        FileNotFoundError: There is nothing of this name.
        ValueError: It is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise argument_error(name, what, f"the folder {str(path)!r}", "name the file in it")
    if not path.exists():
        got = f"no file at {str(path)!r}"
        raise FileNotFoundError(f"{name}: expected {what}, got {got}; check the name and folder")
    return path


def require_file_name(path: str | os.PathLike[str], name: str, endings: Collection[str]) -> Path:
    """Check that a file of this name can be written: its ending, and that its folder exists.

    Args:
        path: Name of the file.
        name: Name of the argument, for the error.
        endings: Those allowed, such as ".png".

    Raises:
        ValueError: Another ending, no such folder, or the name of a folder.
    """
    path = Path(path)
    if path.suffix not in endings:
        listed = " or ".join(endings)
        raise argument_error(name, f"a file name that ends in {listed}", f"{path.name!r}", f"add {next(iter(endings))}")
    if not path.parent.is_dir():
        raise argument_error(name, "a folder that exists", f"{str(path.parent)!r}", "make the folder first")
    if path.is_dir():
        raise argument_error(name, "the name of a file", f"the folder {str(path)!r}", "choose another name")
    return path
