"""Models and fits in words: what the command line and plan files write in the place of objects.

An object is written as the name of its kind, "count", or as a table with this name and some of its fields,
{kind = "count", scale = 20.0}. A prior on a scale or on a time constant is a table {median = 0.1, spread = 0.5}, and
a = dt / tau in the place of a time constant is {a = 0.5} or {a = {median = 0.5}}.
"""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from lrposterior.background import FixedBackground, RandomBulk
from lrposterior.checks import argument_error, describe, require_choice, require_positive
from lrposterior.drift import SessionDrift
from lrposterior.files import require_file
from lrposterior.inference.fit import METHODS
from lrposterior.inference.learned_embedding import EmbeddingToLearn
from lrposterior.input_embedding import LaggedInputs, PolynomialInputs, RandomEmbedding
from lrposterior.model import LowRankModel
from lrposterior.observations import (
    CalciumObservation,
    GaussianObservation,
    NegativeBinomialObservation,
    PoissonObservation,
    SpikeRateObservation,
)
from lrposterior.priors import CorrelatedLoadings, DaleLoadings, Priors, ScalePrior, TimeConstantPrior
from lrposterior.process_noise import ProcessNoise
from lrposterior.signed_background import SignedBackground
from lrposterior.time_constants import IntegrationConstant, IntegrationConstantPrior, PerNeuron

KIND = "kind"


@dataclass(frozen=True)
class Kind:
    """A class of objects under the name that they have in words, with the fields that this name settles."""

    make: type
    settled: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> list[dataclasses.Field[Any]]:
        """Those that are still to be given."""
        if self.make is NoneType:
            return []
        return [each for each in dataclasses.fields(self.make) if each.name not in self.settled]


NONE = Kind(NoneType)
KINDS: Mapping[str, Mapping[str, Kind]] = {
    "observation": {
        "rate": Kind(GaussianObservation, {"of": "rate"}),
        "current": Kind(GaussianObservation, {"of": "current"}),
        "spike-rate": Kind(SpikeRateObservation),
        "count": Kind(PoissonObservation),
        "overdispersed-count": Kind(NegativeBinomialObservation),
        "calcium": Kind(CalciumObservation),
    },
    "background": {"bulk": Kind(RandomBulk), "signed": Kind(SignedBackground), "none": NONE},
    "process_noise": {
        "none": NONE,
        "diagonal": Kind(ProcessNoise, {"shape": "diagonal"}),
        "full": Kind(ProcessNoise, {"shape": "full"}),
    },
    "drift": {"none": NONE, "sessions": Kind(SessionDrift)},
    "priors": {
        "correlated": Kind(CorrelatedLoadings),
        "independent": Kind(Priors),
        "dale": Kind(DaleLoadings),
    },
    "embedding": {
        "none": NONE,
        "random": Kind(RandomEmbedding),
        "learned": Kind(EmbeddingToLearn),
        "lags": Kind(LaggedInputs),
        "polynomial": Kind(PolynomialInputs),
    },
    "method": {name: Kind(options) for name, options in METHODS.items()},
}
MODEL_OPTIONS = tuple(each.name for each in dataclasses.fields(LowRankModel))


def make_model(options: Mapping[str, Any], names: Mapping[str, str] | None = None) -> LowRankModel:
    """The model that options in words describe.

    Args:
        options: by the name of the argument of `LowRankModel`.
        names: what the user calls an option, for errors; by default "model." and its name.

    Raises:
        FileNotFoundError: if a background is a file that does not exist.
        ValueError: if a name is not known, rank is missing, or an option is out of its range.
    """
    for option in options:
        require_choice(option, "model", MODEL_OPTIONS)
    if "rank" not in options:
        raise argument_error("model", "a rank", "none", "write for example rank = 5")
    names = names or {}
    made = {
        option: make_option(option, value, names.get(option, f"model.{option}")) for option, value in options.items()
    }
    return LowRankModel(**made)


def make_option(option: str, value: Any, name: str) -> Any:
    """The argument that one option in words stands for.

    Args:
        option: its name, such as "observation".
        value: the name of a kind, a table, or whatever the option takes as it is.
        name: what the user calls it, for errors.

    Raises:
        FileNotFoundError: if a background is a file that does not exist.
        ValueError: if a kind or a field is not known, or a field is missing or out of its range.
    """
    if option == "time_constant":
        return _time_constant(value, name)
    if option not in KINDS:
        return value
    if option == "background" and isinstance(value, str) and value not in KINDS[option]:
        return FixedBackground(load_matrix(Path(value), name))
    given = dict(value) if isinstance(value, Mapping) else {KIND: value}
    if KIND not in given:
        mend = f"one of {', '.join(map(repr, KINDS[option]))}"
        raise argument_error(name, "its kind beside its fields", f"the fields {sorted(given)} alone", mend)
    kind = KINDS[option][require_choice(given.pop(KIND), name, tuple(KINDS[option]))]
    fields = {each: _prior_or_value(content, ScalePrior, f"{name}.{each}") for each, content in given.items()}
    return _construct(kind, fields, name)


def _time_constant(value: Any, name: str) -> Any:
    """That of all neurons, a table by cell type, or a table of the kind "neuron"; each of these in s or as a."""
    if isinstance(value, list):
        return tuple(_time_constant(entry, f"{name}[{place}]") for place, entry in enumerate(value))
    if not isinstance(value, Mapping):
        return require_positive(value, name, "s")
    if list(value) == ["a"]:
        given = value["a"]
        if isinstance(given, Mapping):
            return _construct(Kind(IntegrationConstantPrior), given, f"{name}.a")
        return _construct(Kind(IntegrationConstant), value, name)
    if "median" in value:
        return _construct(Kind(TimeConstantPrior), value, name)
    fields = {each: _time_constant(entry, f"{name}.{each}") for each, entry in value.items() if each != KIND}
    if KIND not in value:
        return fields
    require_choice(value[KIND], name, ("neuron",))
    return _construct(Kind(PerNeuron), fields, name)


def _prior_or_value(value: Any, prior: type, name: str) -> Any:
    """A table with a median as a prior; tables by cell type entry by entry; lists as tuples."""
    if isinstance(value, Mapping):
        if "median" in value:
            return _construct(Kind(prior), value, name)
        return {key: _prior_or_value(entry, prior, f"{name}.{key}") for key, entry in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _construct(kind: Kind, given: Mapping[str, Any], name: str) -> Any:
    known = [each.name for each in kind.fields]
    for each in given:
        if not known:
            raise argument_error(name, "a kind without fields alone", f"the field {each!r}", "leave it out")
        require_choice(each, name, known)
    for each in kind.fields:
        if each.name not in given and each.default is each.default_factory is dataclasses.MISSING:
            raise argument_error(name, f"a value for {each.name}", "none", f"write {each.name} = ... beside its kind")
    try:
        return kind.make(**kind.settled, **given)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def load_matrix(path: Path, name: str) -> Any:
    """The matrix in a file of `numpy.save` or `scipy.sparse.save_npz`; nothing is unpickled.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is another file.
    """
    require_file(path, name, "bulk, signed, none or a matrix")
    try:
        with path.open("rb") as file:
            if path.suffix == ".npz":
                import scipy.sparse

                return scipy.sparse.load_npz(file)
            return np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        mend = "write it with numpy.save or scipy.sparse.save_npz"
        raise argument_error(name, "a matrix in .npy or .npz", f"{path.name!r} ({error})", mend) from error


def describe_option(value: Any) -> str:
    """An option in words as a person would say it in a table of results: random(width=28, seed=0)."""
    if isinstance(value, Mapping):
        rest = ", ".join(f"{key}={describe_option(entry)}" for key, entry in value.items() if key != KIND)
        kind = str(value.get(KIND, ""))
        return f"{kind}({rest})" if rest or not kind else kind
    return value if isinstance(value, str) else describe(value)
