"""Arguments and options that commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

PosteriorFile = Annotated[Path, typer.Argument(metavar="FIT.nc", help="A posterior that `lrposterior fit` wrote.")]
Force = Annotated[bool, typer.Option("--force", help="Replace output files that exist.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random; the same seed gives the same numbers.")]


def shown(quiet: bool) -> bool:
    """Whether a progress bar is drawn: on a terminal, unless it is not wanted."""
    return not quiet and sys.stderr.isatty()
