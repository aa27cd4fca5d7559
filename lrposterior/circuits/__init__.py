"""Networks that are fitted beside the low-rank ones: latent circuits, and full-rank networks neuron by neuron."""

from lrposterior.circuits.models import FullRankNetwork, LatentCircuit
from lrposterior.circuits.posterior import NetworkPosterior

__all__ = ["FullRankNetwork", "LatentCircuit", "NetworkPosterior"]
