"""Posterior over the connectivity of a circuit from a population recording.

What a recording says about the connectivity W = M K^T / N + W0 of a low-rank network, what it leaves open, and which
photostimulation to try next.
"""

from lrposterior.background import FixedBackground
from lrposterior.candidates import (
    Candidates,
    combine_candidates,
    ensemble_candidates,
    latent_candidates,
    pattern_candidates,
    single_neuron_candidates,
)
from lrposterior.connectivity import LowRankConnectivity
from lrposterior.degeneracy import Degeneracy, analyze_degeneracy
from lrposterior.inference import FitError, Laplace, fit
from lrposterior.likelihood import log_density, log_likelihood, log_prior
from lrposterior.model import LowRankModel
from lrposterior.observations import GaussianObservation
from lrposterior.perturbation import predict_responses, rank_perturbations
from lrposterior.posterior import FitStatistics, Posterior
from lrposterior.priors import Priors, TimeConstantPrior
from lrposterior.ranking import PerturbationRanking
from lrposterior.recording import Recording, load_recording
from lrposterior.simulation import Simulation, simulate_recording
from lrposterior.storage import load_posterior

__version__ = "0.1.0"

__all__ = [
    "Candidates",
    "Degeneracy",
    "FitError",
    "FitStatistics",
    "FixedBackground",
    "GaussianObservation",
    "Laplace",
    "LowRankConnectivity",
    "LowRankModel",
    "PerturbationRanking",
    "Posterior",
    "Priors",
    "Recording",
    "Simulation",
    "TimeConstantPrior",
    "analyze_degeneracy",
    "combine_candidates",
    "ensemble_candidates",
    "fit",
    "latent_candidates",
    "load_posterior",
    "load_recording",
    "log_density",
    "log_likelihood",
    "log_prior",
    "pattern_candidates",
    "predict_responses",
    "rank_perturbations",
    "simulate_recording",
    "single_neuron_candidates",
]
