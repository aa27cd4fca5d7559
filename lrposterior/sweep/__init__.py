"""A systematic search: many configurations of model and fit, compared by trials that none of them has seen."""

from lrposterior.sweep.plan import SweepPlan, load_plan
from lrposterior.sweep.result import SweepResult
from lrposterior.sweep.search import run_sweep

__all__ = ["SweepPlan", "SweepResult", "load_plan", "run_sweep"]
