"""The Gauss-Newton (expected Fisher) information of a recording about the parameters that move the currents.

    F = sum over observations of J^T J / variance,      J = d mean / d z,

in whitened coordinates z without the noise scales; the dispersions of counts, which move the variance alone, have the
information of `lrposterior.negative_binomial`. F is positive semidefinite and exactly zero along the gauge
directions, which the Hessian of the log density is not.
"""

from __future__ import annotations

from jax import Array

from lrposterior.curvature.automatic import automatic_information as automatic_information
from lrposterior.curvature.process_noise import observation_noise_information as observation_noise_information
from lrposterior.curvature.structured import information_of_sums as information_of_sums
from lrposterior.curvature.structured import structured_information
from lrposterior.curvature.structured import trial_sums as trial_sums
from lrposterior.data import Data
from lrposterior.model import LowRankModel
from lrposterior.parameters import ParameterSpace


def information(model: LowRankModel, space: ParameterSpace, z: Array, data: Data) -> Array:
    """Information matrix F (coordinate, coordinate) over the first `space.num_dynamics` coordinates of z.

    The latent recursion gives it where the currents are a function of a few latents; automatic differentiation
    where a known matrix W0 carries a state of its own for every neuron.
    """
    if data.background is None:
        return structured_information(model, space, z, data)
    return automatic_information(model, space, z, data)
