"""The command line, `lrposterior`."""

from lrposterior.cli.app import main

__all__ = ["main"]
