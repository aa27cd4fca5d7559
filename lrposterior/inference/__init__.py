"""Fitting: from a model and a recording to a posterior."""

from lrposterior.fit_error import FitError
from lrposterior.inference.ensemble import Ensemble
from lrposterior.inference.fit import Laplace, fit
from lrposterior.inference.gibbs import Gibbs
from lrposterior.inference.learned_embedding import learn_embedding
from lrposterior.inference.match import Match
from lrposterior.inference.nuts import NUTS
from lrposterior.inference.recalibrate import recalibrate
from lrposterior.inference.svi import SVI
from lrposterior.inference.update import update_posterior

__all__ = [
    "NUTS",
    "SVI",
    "Ensemble",
    "FitError",
    "Gibbs",
    "Laplace",
    "Match",
    "fit",
    "learn_embedding",
    "recalibrate",
    "update_posterior",
]
