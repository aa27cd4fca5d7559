"""Finished runs on disk: one small JSON file each, which appears whole or not at all.

A run is known by a hash of everything that its result depends on: the recording, all options (not the name), the
validation and the seed. What a plan still has to run is what has no file yet.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lrposterior.checks import argument_error
from lrposterior.files import replacing
from lrposterior.recording import Recording
from lrposterior.storage import package_version
from lrposterior.sweep.configuration import Configuration
from lrposterior.sweep.scores import SCORES, Run
from lrposterior.sweep.validation import Validation

BACKGROUND = "model.background"


@dataclass(frozen=True)
class RunStore:
    """The runs of one recording in a folder.

    Attributes:
        folder: holds one file for every run.
        fingerprint: of the recording, from `fingerprint`.
        validation: which trials are held out.
    """

    folder: Path
    fingerprint: str
    validation: Validation

    def key(self, configuration: Configuration, seed: int) -> str:
        """What a run is known by."""
        options = dict(configuration.options)
        background = Path(str(options.get(BACKGROUND, "")))
        if background.is_file():
            options[BACKGROUND] = hashlib.sha256(background.read_bytes()).hexdigest()
        content = [self.fingerprint, options, dataclasses.asdict(self.validation), seed]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]

    def load(self, key: str) -> Run | None:
        """The finished run of this key, if there is one.

        Raises:
            ValueError: if its file is damaged.
        """
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            scores = content["scores"] and {
                name: float("nan") if value is None else value for name, value in content["scores"].items()
            }
            return Run(scores, content["refusal"], content["seconds"], tuple(content["notes"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            got = f"{str(path)!r}, which is damaged ({error})"
            raise argument_error("folder", "finished runs", got, "remove the file, and it is run again") from error

    def save(self, key: str, configuration: Configuration, seed: int, run: Run) -> None:
        """Write a finished run."""
        content: dict[str, Any] = {
            "configuration": configuration.name,
            "options": dict(configuration.options),
            "seed": seed,
            "scores": run.scores and {name: _finite(run.scores[name]) for name in SCORES},
            "refusal": run.refusal,
            "seconds": run.seconds,
            "notes": list(run.notes),
            "version": package_version(),
        }
        with replacing(self._path(key)) as temporary:
            temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def fingerprint(recording: Recording) -> str:
    """A hash of everything in a recording."""
    found = hashlib.sha256()
    for each in dataclasses.fields(recording):
        array = np.asarray(getattr(recording, each.name) if getattr(recording, each.name) is not None else "none")
        found.update(f"{each.name} {array.shape} {array.dtype}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
