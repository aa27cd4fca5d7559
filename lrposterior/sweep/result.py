"""What a sweep found: one table of all runs, and what it says about configurations and changes."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from lrposterior.checks import argument_error
from lrposterior.files import replacing, require_file, require_file_name
from lrposterior.recording import Recording
from lrposterior.storage import package_version
from lrposterior.sweep.configuration import BASE, Configuration
from lrposterior.sweep.plan import JOINT, SweepPlan
from lrposterior.sweep.scores import CEILING, CORRELATION, SCORES, UNITS, Run
from lrposterior.sweep.statistics import Mean, Stacking, judge_stacking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VARIABLES = {"scores", "seconds", "refusal", "notes", "options"}


@dataclass(frozen=True)
class RankedConfiguration:
    """One configuration in the ranking.

    Attributes:
        name: of the configuration.
        score: that the plan ranks by, over seeds.
        gain: over the base, paired over seeds; of the base 0.
        correlation, ceiling: of trial averages, over seeds.
        refusals: by seed, why the fit was refused.
    """

    name: str
    score: Mean
    gain: Mean
    correlation: Mean
    ceiling: Mean
    refusals: Mapping[int, str]


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult:
    """The runs of a sweep; made by `run_sweep`.

    Attributes:
        table: `scores` (configuration, seed, score), NaN where not known, `seconds` and `refusal` (configuration,
            seed), the text or "", `notes` (configuration, seed), warnings of the fit and why a score is not known, and
            of every configuration its `options` as JSON. Pairs and triples have the names of their parts, joined by
            " + ". Attributes: the `score` that ranks, and `overlap`, held-out over fitted trials where every seed draws
            its own, else 0.
    """

    table: xr.Dataset

    @classmethod
    def of_runs(
        cls,
        plan: SweepPlan,
        recording: Recording,
        configurations: Sequence[Configuration],
        runs: Mapping[tuple[str, int], Run],
    ) -> SweepResult:
        """The table of these configurations and their runs, by name and seed."""
        names = [one.name for one in configurations]
        each = [[runs[name, seed] for seed in plan.seeds] for name in names]
        axes = ("configuration", "seed")
        unknown = dict.fromkeys(SCORES, float("nan"))
        scores = [[list((unknown | dict(run.scores)).values()) for run in row] for row in each]
        table = xr.Dataset(
            {
                "scores": ((*axes, "score"), np.array(scores)),
                "seconds": (axes, np.array([[run.seconds for run in row] for row in each])),
                "refusal": (axes, np.array([[run.refusal or "" for run in row] for row in each])),
                "notes": (axes, np.array([["\n".join(run.notes) for run in row] for row in each])),
                "options": (axes[:1], [json.dumps(dict(one.options), sort_keys=True) for one in configurations]),
            },
            {"configuration": names, "seed": list(plan.seeds), "score": list(SCORES)},
            {"score": plan.score, "overlap": plan.validation.overlap(recording), "version": package_version()},
        )
        return cls(table)

    @property
    def score(self) -> str:
        """The one that ranks."""
        return self.table.attrs["score"]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(int(seed) for seed in self.table["seed"].values)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the configurations: the base, single improvements, pairs, triples."""
        return tuple(str(name) for name in self.table["configuration"].values)

    def values(self, name: str, score: str | None = None) -> np.ndarray:
        """(seed,) a score of one configuration, by default the one that ranks; NaN where it is not known."""
        return self.table["scores"].sel(configuration=name, score=score or self.score).values

    def gains(self, name: str) -> np.ndarray:
        """(seed,) the score above that of the base with the same seed, and so with the same held-out trials."""
        return self.values(name) - self.values(BASE)

    @cached_property
    def ranking(self) -> tuple[RankedConfiguration, ...]:
        """All configurations, best first; those whose score is not known for every seed come last."""
        found = []
        for name in self.names:
            texts = [str(text) for text in self.table["refusal"].sel(configuration=name).values]
            refusals = {seed: text for seed, text in zip(self.seeds, texts, strict=True) if text}
            correlation, ceiling = (self._mean(self.values(name, score)) for score in (CORRELATION, CEILING))
            mean, gain = self._mean(self.values(name)), self._mean(self.gains(name))
            found.append(RankedConfiguration(name, mean, gain, correlation, ceiling, refusals))
        complete = [one for one in found if one.score.num_seeds == len(self.seeds)]
        others = [one for one in found if one.score.num_seeds < len(self.seeds)]
        return (*sorted(complete, key=lambda one: -one.score.value), *others)

    @property
    def better_than_base(self) -> tuple[str, ...]:
        """Configurations whose mean gain is above 0 and known for every seed, best first."""
        return tuple(one.name for one in self.ranking if one.gain.value > 0.0 and one.gain.num_seeds == len(self.seeds))

    @cached_property
    def stacking(self) -> tuple[Stacking, ...]:
        """Whether the improvements of every pair and triple add up."""
        return tuple(
            judge_stacking(name, self.gains(name), {part: self.gains(part) for part in parts}, self._overlap)
            for name in self.names
            if len(parts := name.split(JOINT)) > 1
        )

    @property
    def _overlap(self) -> float:
        return float(self.table.attrs["overlap"])

    def _mean(self, values: np.ndarray) -> Mean:
        return Mean.over_seeds(values, self._overlap)

    def to_dict(self) -> dict[str, Any]:
        """Ranking and verdicts as numbers and text; None in place of what is not known."""
        return {
            "score": self.score,
            "unit": UNITS[self.score],
            "seeds": list(self.seeds),
            "ranking": [
                {
                    "name": one.name,
                    "score": _numbers(one.score),
                    "gain": _numbers(one.gain),
                    "correlation": _numbers(one.correlation),
                    "ceiling": _numbers(one.ceiling),
                    "refusals": {str(seed): text for seed, text in one.refusals.items()},
                }
                for one in self.ranking
            ],
            "stacking": [
                {
                    "name": one.name,
                    "parts": list(one.parts),
                    "gain": _numbers(one.gain),
                    "largest_gain": _numbers(one.largest_gain),
                    "sum_of_gains": _numbers(one.sum_of_gains),
                    "difference": _numbers(one.difference),
                    "verdict": one.verdict,
                }
                for one in self.stacking
            ],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as NetCDF.

        Raises:
            ValueError: if the name does not end in .nc, or its folder does not exist.
        """
        with replacing(require_file_name(path, "path", (".nc",))) as temporary:
            self.table.to_netcdf(temporary, engine="h5netcdf")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SweepResult:
        """The result in a file of `save`.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is a file of another kind, or damaged.
        """
        expected, mend = "a result written by SweepResult.save", "name a file that holds one"
        source = require_file(path, "path", expected)
        try:
            table = xr.load_dataset(source, engine="h5netcdf")
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            got = f"{source.name!r}, which is no NetCDF-4 file or is damaged ({error})"
            raise argument_error("path", expected, got, mend) from error
        if not VARIABLES.issubset(table.data_vars):
            got = f"{source.name!r}, with {', '.join(map(str, table.data_vars)) or 'nothing'} in it"
            raise argument_error("path", expected, got, mend)
        return cls(table)

    def save_summary(self, path: str | os.PathLike[str]) -> None:
        """Write `to_dict` as JSON.

        Raises:
            ValueError: if the name does not end in .json, or its folder does not exist.
        """
        with replacing(require_file_name(path, "path", (".json",))) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")

    def plot(self) -> Figure:
        """Draw ranking and stacking; see `lrposterior.plots.plot_sweep`."""
        from lrposterior.plots.sweep import plot_sweep

        return plot_sweep(self)

    def __repr__(self) -> str:
        first = self.ranking[0]
        best = first.name if first.score.num_seeds == len(self.seeds) else "none known for every seed"
        return f"SweepResult({len(self.names)} configurations, {len(self.seeds)} seed(s), best by {self.score}: {best})"

    def __str__(self) -> str:
        beside = [CEILING] if self.score == CORRELATION else [CORRELATION, CEILING]
        rows: list[Sequence[str]] = [("configuration", UNITS[self.score], "gain over the base", *beside, "seeds")]
        for one in self.ranking:
            known = [str(mean) if mean.num_seeds else "" for mean in (one.score, one.gain)]
            means = [{CORRELATION: one.correlation, CEILING: one.ceiling}[name] for name in beside]
            averages = [f"{mean.value:.3f}" if mean.num_seeds else "" for mean in means]
            rows.append((one.name, *known, *averages, f"{one.score.num_seeds} of {len(self.seeds)}"))
        lines = [repr(self), *_columns(rows)]
        if self.stacking:
            head = ("combination", "gain", "sum of single gains", "difference", "the improvements")
            means = [
                (one.name, str(one.gain), str(one.sum_of_gains), str(one.difference), one.verdict)
                for one in self.stacking
            ]
            lines += ["", *_columns([head, *means])]
        for one in self.ranking:
            for text in dict.fromkeys(one.refusals.values()):
                seeds = ", ".join(str(seed) for seed, other in one.refusals.items() if other == text)
                lines.append(f"refused: {one.name}, seed {seeds}: {text}")
        notes = Counter(text for cell in self.table["notes"].values.ravel() for text in str(cell).splitlines())
        lines += [f"note, {count} run(s): {text}" for text, count in notes.items()]
        return "\n".join([*lines, self._note])

    @property
    def _note(self) -> str:
        number = len(self.seeds)
        if number == 1:
            return "One seed: no standard errors, and nothing is decided."
        trials = (
            f"each with held-out trials of its own, {self._overlap:.2g} times the fitted ones"
            if self._overlap
            else "all with the same held-out trials: standard errors are of the fits alone"
        )
        return f"± standard error over {number} seeds, {trials}."


def _numbers(mean: Mean) -> dict[str, float | int | None]:
    known = {"mean": mean.value, "standard_error": mean.standard_error}
    finite = {name: value if np.isfinite(value) else None for name, value in known.items()}
    return finite | {"num_seeds": mean.num_seeds}


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
