# The public names, in one place. They are imported when they are first used, so that `import lrposterior` and the help
# of the command line need no JAX. The library that reads this file wants relative imports.
from .background import FixedBackground, RandomBulk
from .beta_calibration import BetaCalibration, calibrate_beta
from .calibration import CalibrationResult, PredictionScores, score_predictions, simulate_calibration
from .circuits import FullRankNetwork, LatentCircuit, NetworkPosterior
from .combined_recording import combine_recordings
from .comparison import PosteriorComparison, compare_posteriors
from .connectivity import LowRankConnectivity
from .degeneracy import Degeneracy, analyze_degeneracy
from .design.planner import design_perturbations
from .design.result import PerturbationDesign
from .diagnosis import Diagnosis, diagnose
from .drift import SessionDrift
from .embedding_file import load_embedding, save_embedding
from .inference import (
    NUTS,
    SVI,
    Ensemble,
    FitError,
    Gibbs,
    Laplace,
    Match,
    fit,
    learn_embedding,
    recalibrate,
    update_posterior,
)
from .input_embedding import LaggedInputs, LearnedEmbedding, PolynomialInputs, RandomEmbedding, embed_inputs
from .latents import LatentPaths, infer_latents
from .likelihood import log_density, log_likelihood, log_prior
from .misfit import FitCheck, check_fit
from .model import LowRankModel
from .new_sessions import InferredDrift, infer_drift
from .numpyro_bridge import numpyro_model
from .observations import (
    CalciumObservation,
    GaussianObservation,
    NegativeBinomialObservation,
    PoissonObservation,
    SpikeRateObservation,
)
from .perturbation.candidates import (
    Candidates,
    combine_candidates,
    ensemble_candidates,
    latent_candidates,
    pattern_candidates,
    single_neuron_candidates,
)
from .perturbation.linearised import PredictedCertainty, predict_certainty
from .perturbation.prediction import predict_responses, rank_perturbations
from .perturbation.ranking import PerturbationRanking
from .posterior import FitStatistics, Posterior
from .preprocessing import (
    Clipping,
    bin_spikes,
    clip_outliers,
    counts_to_rates,
    deconvolve_calcium,
    smooth_activity,
    stabilise_variance,
)
from .priors import CorrelatedLoadings, DaleLoadings, Priors, ScalePrior, TimeConstantPrior
from .process_noise import ProcessNoise
from .rank_selection import RankSelection, select_rank
from .readout import Readout, fit_readout
from .recording import Recording, load_recording
from .runaways import keep_bounded
from .signed_background import SignedBackground
from .simulated_session import simulate_session
from .simulation import Simulation, simulate_recording
from .storage import load_posterior
from .sweep import SweepPlan, SweepResult, load_plan, run_sweep
from .time_constants import IntegrationConstant, IntegrationConstantPrior, PerNeuron
from .trial_comparison import TrialComparison, compare_trials
from .trial_scores import score_trials, simulate_trials
from .unrecorded import add_hidden_neurons

__version__: str

__all__ = [
    "NUTS",
    "SVI",
    "BetaCalibration",
    "CalciumObservation",
    "CalibrationResult",
    "Candidates",
    "Clipping",
    "CorrelatedLoadings",
    "DaleLoadings",
    "Degeneracy",
    "Diagnosis",
    "Ensemble",
    "FitCheck",
    "FitError",
    "FitStatistics",
    "FixedBackground",
    "FullRankNetwork",
    "GaussianObservation",
    "Gibbs",
    "InferredDrift",
    "IntegrationConstant",
    "IntegrationConstantPrior",
    "LaggedInputs",
    "Laplace",
    "LatentCircuit",
    "LatentPaths",
    "LearnedEmbedding",
    "LowRankConnectivity",
    "LowRankModel",
    "Match",
    "NegativeBinomialObservation",
    "NetworkPosterior",
    "PerNeuron",
    "PerturbationDesign",
    "PerturbationRanking",
    "PoissonObservation",
    "PolynomialInputs",
    "Posterior",
    "PosteriorComparison",
    "PredictedCertainty",
    "PredictionScores",
    "Priors",
    "ProcessNoise",
    "RandomBulk",
    "RandomEmbedding",
    "RankSelection",
    "Readout",
    "Recording",
    "ScalePrior",
    "SessionDrift",
    "SignedBackground",
    "Simulation",
    "SpikeRateObservation",
    "SweepPlan",
    "SweepResult",
    "TimeConstantPrior",
    "TrialComparison",
    "add_hidden_neurons",
    "analyze_degeneracy",
    "bin_spikes",
    "calibrate_beta",
    "check_fit",
    "clip_outliers",
    "combine_candidates",
    "combine_recordings",
    "compare_posteriors",
    "compare_trials",
    "counts_to_rates",
    "deconvolve_calcium",
    "design_perturbations",
    "diagnose",
    "embed_inputs",
    "ensemble_candidates",
    "fit",
    "fit_readout",
    "infer_drift",
    "infer_latents",
    "keep_bounded",
    "latent_candidates",
    "learn_embedding",
    "load_embedding",
    "load_plan",
    "load_posterior",
    "load_recording",
    "log_density",
    "log_likelihood",
    "log_prior",
    "numpyro_model",
    "pattern_candidates",
    "predict_certainty",
    "predict_responses",
    "rank_perturbations",
    "recalibrate",
    "run_sweep",
    "save_embedding",
    "score_predictions",
    "score_trials",
    "select_rank",
    "simulate_calibration",
    "simulate_recording",
    "simulate_session",
    "simulate_trials",
    "single_neuron_candidates",
    "smooth_activity",
    "stabilise_variance",
    "update_posterior",
]
