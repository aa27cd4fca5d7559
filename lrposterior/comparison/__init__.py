"""What changed in W between two conditions or sessions, with the uncertainty of both."""

from lrposterior.comparison.analysis import compare_posteriors
from lrposterior.comparison.result import PosteriorComparison

__all__ = ["PosteriorComparison", "compare_posteriors"]
