"""Results of benchmarks as JSON in benchmarks/results, each with the machine that they were measured on."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("jax", "numpyro", "numpy", "scipy")


def machine() -> str:
    """What figures of time depend on."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "all")
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {threads} thread(s) of BLAS, "
        f"Python {platform.python_version()}, {versions}"
    )


def store(name: str, **content: Any) -> None:
    """Replace the stored results of a benchmark."""
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine()} | content, indent=1)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def exists(name: str) -> bool:
    return (FOLDER / f"{name}.json").exists()


def load(name: str) -> dict[str, Any]:
    """The stored results of a benchmark.

    Raises:
        SystemExit: if there are none.
    """
    path = FOLDER / f"{name}.json"
    if not exists(name):
        raise SystemExit(f"{path}: there are no stored results; run the benchmark without --summary first")
    return json.loads(path.read_text(encoding="utf-8"))
