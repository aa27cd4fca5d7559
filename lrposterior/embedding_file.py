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
from pathlib import Path
from typing import Any, get_args

import numpy as np

from lrposterior.checks import argument_error
from lrposterior.files import replacing, require_file_name
from lrposterior.input_embedding import InputEmbedding, RandomEmbedding, require_embedding
from lrposterior.npz_files import read_npz

FORMAT, FORMAT_VERSION = "lrposterior embedding", 1
EXPECTED = "an embedding written by save_embedding"
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
    path, mend = Path(path), "save the embedding again, or name another file"
    arrays = read_npz(path, "path", EXPECTED, mend, ("format", "format_version", "kind", "numbers"))
    version, kind = str(arrays["format_version"]), KINDS.get(str(arrays["kind"]))
    if str(arrays["format"]) != FORMAT:
        raise _refusal(path, f"a file of the format {str(arrays['format'])!r}", mend)
    if not version.isdecimal() or int(version) > FORMAT_VERSION:
        mend = f"this lrposterior reads up to version {FORMAT_VERSION}: upgrade it"
        raise _refusal(path, f"in format version {version}", mend)
    if kind is None:
        raise _refusal(path, f"of the unknown kind {str(arrays['kind'])!r}", f"the kinds are {', '.join(KINDS)}")
    names = [each.name for each in dataclasses.fields(kind)]
    try:
        numbers = json.loads(str(arrays["numbers"]))
        embedding = kind(**{name: arrays[name] for name in names if name in arrays}, **numbers)
        is_same = _is_drawn_alike(embedding, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise _refusal(path, f"whose contents do not fit ({error})", mend) from error
    if not is_same:
        got = f"a random layer of NumPy {arrays.get('numpy_version')}, which NumPy {np.__version__} draws otherwise"
        raise _refusal(path, got, "load it with that version")
    return embedding


def _is_drawn_alike(embedding: InputEmbedding, arrays: dict[str, np.ndarray]) -> bool:
    """Whether a random layer has the weights that it was saved with; the others have theirs in the file."""
    return not isinstance(embedding, RandomEmbedding) or np.array_equal(embedding.projection(1)[0], arrays["sample"])


def _refusal(path: Path, what: str, mend: str) -> ValueError:
    return argument_error("path", EXPECTED, f"{path.name!r}, {what}", mend)
