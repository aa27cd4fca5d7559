"""Why a network does not take on the activity of a recording: statistics, and defects by name."""

from lrposterior.diagnosis.analysis import diagnose
from lrposterior.diagnosis.networks import NetworkStatistics, WeightRange
from lrposterior.diagnosis.recorded import DataStatistics, InputStatistics
from lrposterior.diagnosis.result import Diagnosis
from lrposterior.diagnosis.signal import Signal
from lrposterior.diagnosis.verdicts import Generalisation, Verdict

__all__ = [
    "DataStatistics",
    "Diagnosis",
    "Generalisation",
    "InputStatistics",
    "NetworkStatistics",
    "Signal",
    "Verdict",
    "WeightRange",
    "diagnose",
]
