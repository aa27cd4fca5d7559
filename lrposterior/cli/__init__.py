"""The command line, `lrposterior`."""

from lrposterior.cli.commands import main

__all__ = ["main"]
