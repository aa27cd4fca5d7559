"""Whether what a posterior says is true: predictions against measured responses, and simulation-based calibration."""

from lrposterior.calibration.calibration_result import CalibrationResult
from lrposterior.calibration.prediction import score_predictions
from lrposterior.calibration.prediction_scores import PredictionScores
from lrposterior.calibration.quantities import Networks, gauge_invariant_quantities
from lrposterior.calibration.rank_band import RankBand
from lrposterior.calibration.simulated_truth import SimulatedTruth
from lrposterior.calibration.simulation_based import simulate_calibration
from lrposterior.calibration.summary import Score

__all__ = [
    "CalibrationResult",
    "Networks",
    "PredictionScores",
    "RankBand",
    "Score",
    "SimulatedTruth",
    "gauge_invariant_quantities",
    "score_predictions",
    "simulate_calibration",
]
