"""`python -m lrposterior.cli`."""

from lrposterior.cli import main

main()
