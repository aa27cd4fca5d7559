"""What a sweep is to try: a base, changes to it, and which of them are to be combined."""

from __future__ import annotations

import itertools
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lrposterior.checks import argument_error, describe, require_choice, require_instance, require_integer
from lrposterior.inference.match import Match
from lrposterior.sweep.configuration import (
    BASE,
    Configuration,
    Options,
    changed,
    conflict,
    flatten,
    flatten_value,
    make_settings,
    name_of,
    require_table,
)
from lrposterior.sweep.scores import BITS_PER_SPIKE, LOG_DENSITY, RANKING_SCORES
from lrposterior.sweep.validation import Validation

SIZES = (2, 3)
JOINT = " + "


@dataclass(frozen=True)
class Combinations:
    """Which improvements are combined after the first stage.

    Attributes:
        sizes: 2 for pairs, 3 for triples.
        best: of how many of the best.
    """

    sizes: tuple[int, ...]
    best: int

    def __post_init__(self) -> None:
        if not self.sizes or not set(self.sizes) <= set(SIZES):
            expected, mend = "some of 2 (pairs) and 3 (triples)", "write sizes = [2, 3]"
            raise argument_error("combine.sizes", expected, describe(list(self.sizes)), mend)
        require_integer(self.best, "combine.best", minimum=2)


@dataclass(frozen=True, eq=False)
class SweepPlan:
    """A plan, made by `SweepPlan.from_dict` or `load_plan`.

    Attributes:
        base: flat options of the configuration that all others are compared with.
        improvements: by name, the flat options that each changes; points of grids come after those that were named.
        seeds: of fits and splits, at least one.
        validation: which trials are held out.
        score: which one ranks the configurations.
        combine: which improvements are combined, or None.
        recording: file with the recording, or None.
    """

    base: Options
    improvements: Mapping[str, Options]
    seeds: tuple[int, ...]
    validation: Validation = field(default_factory=Validation)
    score: str = LOG_DENSITY
    combine: Combinations | None = None
    recording: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", MappingProxyType(dict(self.base)))
        frozen = {name: MappingProxyType(dict(changes)) for name, changes in self.improvements.items()}
        object.__setattr__(self, "improvements", MappingProxyType(frozen))

    @classmethod
    def from_dict(cls, plan: Mapping[str, Any]) -> SweepPlan:
        """The plan in a dictionary as a plan file has it; see the page on sweeps.

        Raises:
            FileNotFoundError: if a background is a file that does not exist.
            ValueError: if a name is not known, a value is out of its range, or a name is given twice.
        """
        known = ("recording", "seeds", "score", "validation", "base", "improvements", "grid", "combine")
        for name in require_table(plan, "plan"):
            require_choice(name, "plan", known)
        base = flatten(plan.get("base", {}), "base")
        improvements: dict[str, dict[str, Any]] = {}
        for name, table in require_table(plan.get("improvements", {}), "improvements").items():
            improvements[name] = flatten(table, f"improvements.{name}")
        for number, grid in enumerate(_list(plan.get("grid", []), "grid")):
            for changes in _grid_points(grid, f"grid[{number}]"):
                name = name_of(changes)
                if name in improvements:
                    raise argument_error(f"grid[{number}]", "every point once", f"{name!r} twice", "leave one out")
                improvements[name] = changes
        for name in improvements:
            if name == BASE or JOINT in name:
                expected = f"names other than {BASE!r}, without {JOINT!r}, which joins those of pairs"
                raise argument_error("improvements", expected, repr(name), "rename it")
        recording = plan.get("recording")
        made = cls(
            base,
            improvements,
            _seeds(plan.get("seeds", [0])),
            Validation.from_dict(plan.get("validation", {})),
            require_choice(plan.get("score", LOG_DENSITY), "score", RANKING_SCORES),
            _combinations(plan["combine"]) if "combine" in plan else None,
            None if recording is None else require_instance(recording, "recording", str, "name a file"),
        )
        for configuration in made.configurations:
            _require_known(configuration, made.score)
        return made

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """The base, and every single improvement."""
        singles = (Configuration(name, changed(self.base, changes)) for name, changes in self.improvements.items())
        return Configuration(BASE, self.base), *singles

    def combinations(self, ranked: Sequence[str]) -> tuple[Configuration, ...]:
        """Pairs and triples of the best improvements.

        Of improvements that change the same option, which are alternatives, the best alone takes part.

        Args:
            ranked: names of the improvements that are better than the base, best first.
        """
        if self.combine is None:
            return ()
        best: list[str] = []
        for name in ranked:
            changes = self.improvements[name]
            if len(best) < self.combine.best and not any(conflict(changes, self.improvements[one]) for one in best):
                best.append(name)
        return tuple(
            self._combined(parts)
            for size in sorted(set(self.combine.sizes))
            for parts in itertools.combinations(best, size)
        )

    def _combined(self, parts: tuple[str, ...]) -> Configuration:
        options: Options = self.base
        for part in parts:
            options = changed(options, self.improvements[part])
        return Configuration(JOINT.join(parts), options)


def load_plan(path: str | os.PathLike[str]) -> SweepPlan:
    """The plan in a TOML file.

    Raises:
        FileNotFoundError: if there is no such file, or a background is a file that does not exist.
        ValueError: if it is no TOML, or not a plan.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"plan: expected a plan in TOML, got no file at {str(path)!r}; `lrposterior sweep --example` prints one"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise argument_error("plan", "TOML", f"{path.name!r} ({error})", "mend this line") from error
    return SweepPlan.from_dict(content)


def _grid_points(grid: Any, name: str) -> list[dict[str, Any]]:
    """The changes of every point of a grid, the last list fastest."""
    lists = {option: _list(values, f"{name}.{option}") for option, values in flatten(grid, name).items()}
    for option, values in lists.items():
        if not values:
            raise argument_error(f"{name}.{option}", "at least one value", "none", "leave it out")
    points = []
    for chosen in itertools.product(*lists.values()):
        changes: dict[str, Any] = {}
        for option, value in zip(lists, chosen, strict=True):
            changes |= flatten_value(option, value)
        points.append(changes)
    return points


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise argument_error(name, "a list", describe(value), "write the values in brackets, or [[grid]] for a grid")
    return value


def _seeds(seeds: Any) -> tuple[int, ...]:
    numbers = tuple(require_integer(seed, "seeds") for seed in _list(seeds, "seeds"))
    if not numbers or len(set(numbers)) < len(numbers):
        raise argument_error("seeds", "different integers, at least one", describe(seeds), "write seeds = [0, 1, 2]")
    return numbers


def _combinations(table: Any) -> Combinations:
    given = dict(require_table(table, "combine"))
    for name in given:
        require_choice(name, "combine", ("sizes", "best"))
    sizes = _list(given.get("sizes", [2]), "combine.sizes")
    return Combinations(tuple(require_integer(size, "combine.sizes") for size in sizes), given.get("best", 3))


def _require_known(configuration: Configuration, score: str) -> None:
    """Check that there are such a model, such a fit and such a score of it; errors name the configuration."""
    try:
        settings = make_settings(configuration.options)
    except ValueError as error:
        raise ValueError(f"{configuration.name}: {error}") from error
    observation, method = settings.model.observation, settings.method
    if isinstance(method, Match) and method.checkpoint is not None:
        expected, mend = "none in a plan, as all runs would write the same file", "leave it out: finished runs are kept"
        raise argument_error("fit.method.checkpoint", expected, f"{str(method.checkpoint)!r}", mend)
    if score == BITS_PER_SPIKE and observation.of != "count":
        expected = 'models of counts with score = "bits per spike"'
        raise argument_error("score", expected, f"others in {configuration.name!r}", 'write score = "log density"')
