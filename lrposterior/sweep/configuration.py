"""Configurations of model and fit in words, as flat options: "model.rank", "model.priors.K", "fit.method".

An option that is an object is held as its kind, "model.priors": "dale", beside its fields, "model.priors.K": 2.0, so
that a change may name one field alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lrposterior.checks import argument_error, describe, require_choice
from lrposterior.inference.fit import Ensemble, Method
from lrposterior.inference.learned_embedding import EmbeddingToLearn
from lrposterior.inference.match import Match
from lrposterior.input_embedding import InputEmbedding
from lrposterior.model import LowRankModel
from lrposterior.options import KIND, KINDS, MODEL_OPTIONS, describe_option, make_model, make_option

BASE = "base"
EMBEDDING = "embedding"
SECTIONS = {"model": MODEL_OPTIONS, "fit": ("method", "num_restarts", "max_iterations")}

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Configuration:
    """One way to fit the recording.

    Attributes:
        name: in tables and figures.
        options: all of them, flat.
    """

    name: str
    options: Options


@dataclass(frozen=True, eq=False)
class Settings:
    """The objects that a configuration describes.

    Attributes:
        model: what is fitted.
        embedding: of the inputs, one to learn from the trials that are fitted, or None.
        method: of the fit.
        fit_options: what else `fit` takes.
    """

    model: LowRankModel
    embedding: InputEmbedding | EmbeddingToLearn | None = None
    method: str | Method | Ensemble | Match = "laplace"
    fit_options: Mapping[str, int] = field(default_factory=dict)


def flatten(table: Any, name: str) -> dict[str, Any]:
    """The flat options in a table of a plan, {"model": {"rank": 5}, "embedding": "polynomial"}.

    Raises:
        ValueError: if it is no table, or names an option that does not exist.
    """
    flat: dict[str, Any] = {}
    for section, content in require_table(table, name).items():
        require_choice(section, name, (*SECTIONS, EMBEDDING))
        if section == EMBEDDING:
            flat |= flatten_value(EMBEDDING, content)
            continue
        for option, value in require_table(content, f"{name}.{section}").items():
            require_choice(option, f"{name}.{section}", SECTIONS[section])
            flat |= flatten_value(f"{section}.{option}", value)
    return flat


def flatten_value(option: str, value: Any) -> dict[str, Any]:
    """One flat option, or its kind and its fields where it is a table of these."""
    if isinstance(value, Mapping) and option.rpartition(".")[2] in KINDS:
        return {option if part == KIND else f"{option}.{part}": content for part, content in value.items()}
    return {option: value}


def changed(options: Options, changes: Options) -> dict[str, Any]:
    """The options after the changes. A kind that changes takes the fields of the old one away."""
    return {name: value for name, value in options.items() if not _touches(changes, name)} | dict(changes)


def conflict(one: Options, other: Options) -> bool:
    """Whether two sets of changes are alternatives, because they change the same option."""
    return any(_touches(one, name) for name in other) or any(_touches(other, name) for name in one)


def name_of(changes: Options) -> str:
    """A name for a set of changes, such as "rank=5, process_noise.scale=0.1"."""
    grouped = _grouped(changes)
    words = []
    for option, value in grouped.items():
        short = option.rpartition(".")[2]
        if isinstance(value, Mapping) and KIND not in value:
            words += [f"{short}.{part}={describe_option(content)}" for part, content in value.items()]
        else:
            words.append(f"{short}={describe_option(value)}")
    return ", ".join(words)


def make_settings(options: Options) -> Settings:
    """The objects that flat options describe.

    Raises:
        FileNotFoundError: if a background is a file that does not exist.
        ValueError: if an option is missing, not known, or out of its range.
    """
    grouped = _grouped(options)
    model = {name.partition(".")[2]: value for name, value in grouped.items() if name.startswith("model.")}
    others = {name.rpartition(".")[2]: value for name, value in grouped.items() if not name.startswith("model.")}
    names = {"embedding": EMBEDDING, "method": "fit.method"}
    made = {option: make_option(option, others.pop(option), name) for option, name in names.items() if option in others}
    return Settings(make_model(model), fit_options=others, **made)


def _grouped(options: Options) -> dict[str, Any]:
    """Options by name, those of a kind with fields again as tables."""
    parts: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        option, part = _split(name)
        parts.setdefault(option, {})[part or KIND] = value
    return {option: table[KIND] if list(table) == [KIND] else table for option, table in parts.items()}


def _split(name: str) -> tuple[str, str]:
    """The option and its field: ("model.priors", "K")."""
    parts = name.split(".")
    depth = 1 if parts[0] == EMBEDDING else 2
    return ".".join(parts[:depth]), ".".join(parts[depth:])


def _touches(changes: Options, name: str) -> bool:
    """Whether the changes replace this option."""
    return name in changes or _split(name)[0] in changes


def require_table(value: Any, name: str) -> Mapping[str, Any]:
    """Check that a part of a plan is a table.

    Raises:
        ValueError: if it is something else.
    """
    if not isinstance(value, Mapping):
        raise argument_error(name, "a table of options", describe(value), f"write it below [{name}]")
    return value
