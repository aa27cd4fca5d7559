"""Figures: every function returns a new `matplotlib.figure.Figure` and changes no setting of matplotlib.

`figure.savefig("name.png")` writes it; a notebook shows it where it is the last value of a cell.
"""

from lrposterior.plots.calibration import plot_calibration
from lrposterior.plots.comparison import plot_comparison
from lrposterior.plots.connectivity import plot_connectivity
from lrposterior.plots.degeneracy import plot_contraction, plot_spectrum, plot_subspaces
from lrposterior.plots.design import plot_design
from lrposterior.plots.fit import plot_explained_variance, plot_rates, plot_residuals
from lrposterior.plots.perturbation import plot_accuracy, plot_certainty_information, plot_ranking, plot_responses
from lrposterior.plots.prediction_scores import plot_prediction_scores
from lrposterior.plots.rank import plot_rank_selection
from lrposterior.plots.recording import plot_recording
from lrposterior.plots.style import save_figure, to_png
from lrposterior.plots.sweep import plot_sweep

__all__ = [
    "plot_accuracy",
    "plot_calibration",
    "plot_certainty_information",
    "plot_comparison",
    "plot_connectivity",
    "plot_contraction",
    "plot_design",
    "plot_explained_variance",
    "plot_prediction_scores",
    "plot_rank_selection",
    "plot_ranking",
    "plot_rates",
    "plot_recording",
    "plot_residuals",
    "plot_responses",
    "plot_spectrum",
    "plot_sweep",
    "plot_subspaces",
    "save_figure",
    "to_png",
]
