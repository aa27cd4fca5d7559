"""Which directions of the connectivity the data constrain, and which they leave open."""

from lrposterior.degeneracy.analysis import ConnectivitySplit, Degeneracy, analyze_degeneracy
from lrposterior.degeneracy.directions import Directions
from lrposterior.degeneracy.subspaces import LatentConnectivity, Subspace

__all__ = ["ConnectivitySplit", "Degeneracy", "Directions", "LatentConnectivity", "Subspace", "analyze_degeneracy"]
