"""Posterior over the connectivity of a circuit from a population recording.

What a recording says about the connectivity W = M K^T / N + W0 of a low-rank network, what it leaves open, and which
photostimulation to try next. The public names are listed in `__init__.pyi`.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
