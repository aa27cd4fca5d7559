"""Embeddings of inputs as `.npz` files, so that new inputs are embedded as the old were; nothing is pickled.

A file holds `format`, `format_version`, `kind` (the name of the class), `numbers` (its fields as JSON), and what it has
of arrays. A random layer is its seed; beside it stand `sample`, the weights of its first input, and the `numpy_version`
that drew them.
"""

from __future__ import annotations

import dataclasses
import json
import operator
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, get_args

import numpy as np

from lrposterior.checks import argument_error
from lrposterior.files import replacing, require_file_name
from lrposterior.input_embedding import InputEmbedding, RandomEmbedding, require_embedding

FORMAT, FORMAT_VERSION = "lrposterior embedding", 1
KINDS: dict[str, type[InputEmbedding]] = {kind.__name__: kind for kind in get_args(InputEmbedding)}


def save_embedding(embedding: InputEmbedding, path: str | os.PathLike[str]) -> None:
    """Write an embedding of inputs to a file; `load_embedding` gives back the same one, to the bit.

    The file appears complete or not at all.

    Args:
        embedding: `RandomEmbedding`, `LearnedEmbedding`, `LaggedInputs` or `PolynomialInputs`.
        path: name of the file, ending in ``.npz``; an old file of this name is replaced.

    Raises:
        ValueError: if it is another object, the name ends otherwise, or its folder does not exist.
    """
    require_embedding(embedding)
    path = require_file_name(path, "path", (".npz",))
    fields = {each.name: getattr(embedding, each.name) for each in dataclasses.fields(embedding)}
    arrays: dict[str, Any] = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
    numbers = {name: operator.index(value) for name, value in fields.items() if name not in arrays}
    arrays |= {"format": FORMAT, "format_version": FORMAT_VERSION, "kind": type(embedding).__name__}
    arrays["numbers"] = json.dumps(numbers)
    if isinstance(embedding, RandomEmbedding):
        arrays |= {"sample": embedding.projection(1)[0], "numpy_version": np.__version__}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_embedding(path: str | os.PathLike[str]) -> InputEmbedding:
    """Read an embedding that `save_embedding` wrote, for `embed_inputs(new_recording, embedding)`.

    Args:
        path: name of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is a file of another kind, damaged, or written by a later format version, or if it is a random
            layer whose weights this version of NumPy draws otherwise.
    """
    source = Path(path)
    if not source.exists():
        got = f"no file at {str(source)!r}"
        raise FileNotFoundError(f"path: expected an embedding, got {got}; check the name and folder")
    arrays = _arrays(source)
    if str(arrays.pop("format", "")) != FORMAT:
        raise _refusal(source, f"with {', '.join(sorted(arrays)) or 'nothing'} in it", "name the file of an embedding")
    version = int(arrays.pop("format_version"))
    if version > FORMAT_VERSION:
        mend = f"this lrposterior reads up to version {FORMAT_VERSION}: upgrade it"
        raise _refusal(source, f"in format version {version}", mend)
    kind = KINDS[str(arrays["kind"])]
    fields: dict[str, Any] = {each.name: arrays[each.name] for each in dataclasses.fields(kind) if each.name in arrays}
    embedding = kind(**fields, **json.loads(str(arrays["numbers"])))
    if isinstance(embedding, RandomEmbedding) and not np.array_equal(embedding.projection(1)[0], arrays["sample"]):
        got = f"a random layer of NumPy {arrays['numpy_version']}, which NumPy {np.__version__} draws otherwise"
        raise _refusal(source, got, "load it with that version")
    return embedding


def _arrays(path: Path) -> dict[str, np.ndarray]:
    mend = "copy it again, or save the embedding again"
    if not zipfile.is_zipfile(path):
        raise _refusal(path, "which is no .npz file, or cut short", mend)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _refusal(path, f"which is damaged ({error})", mend) from error


def _refusal(path: Path, what: str, mend: str) -> ValueError:
    return argument_error("path", "an embedding written by save_embedding", f"{str(path)!r}, {what}", mend)
