"""What the data say about synapses and patterns, from the covariance of the parameters as one matrix."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg

from lrposterior.background import is_learned
from lrposterior.checks import read_only
from lrposterior.degeneracy.subspaces import Subspace, determined_subspace
from lrposterior.degeneracy.tangent import ConnectivityTangent, EntryTangent
from lrposterior.posterior import Posterior
from lrposterior.spectrum import Spectrum, complement, connectivity_spectrum
from lrposterior.visited_spectrum import visited_connectivity_spectrum, visited_parameter_spectrum


@dataclass(frozen=True, eq=False)
class DenseAnalysis:
    """The analysis of any posterior that is small enough for its covariance to be a matrix."""

    posterior: Posterior

    @cached_property
    def spectrum(self) -> Spectrum:
        """Directions of W alone."""
        posterior = self.posterior
        space, mode, Q = posterior.space, posterior.mode_coordinates, posterior.subspace
        if Q is not None and is_learned(posterior.model.background):
            return visited_connectivity_spectrum(space, mode, self.parameters, Q)
        return connectivity_spectrum(space, mode, self.parameters, Q)

    @cached_property
    def parameters(self) -> Spectrum:
        """Directions of all parameters."""
        posterior, Q = self.posterior, self.posterior.subspace
        if Q is not None and is_learned(posterior.model.background):
            return visited_parameter_spectrum(posterior.space, posterior.mode_coordinates, posterior.distribution, Q)
        return posterior.spectrum

    @cached_property
    def _tangent(self) -> ConnectivityTangent | EntryTangent:
        return (EntryTangent if self.posterior.space.is_dense else ConnectivityTangent).at(self.posterior)

    @cached_property
    def _to_directions(self) -> np.ndarray:
        """(direction, coordinate) components of a change of the factors along the directions of W."""
        return np.linalg.pinv(self.spectrum.directions)

    @cached_property
    def _removed_covariance(self) -> np.ndarray:
        """(coordinate, coordinate) prior minus posterior covariance of the factors of W."""
        directions = self.spectrum.directions
        return (directions * self.spectrum.removed_variance) @ directions.T

    @cached_property
    def contraction(self) -> np.ndarray:
        """(post, pre), NaN where there are no synapses."""
        removed, prior = self._tangent.entry_variance(self._removed_covariance), self._tangent.prior_entry_variance()
        return read_only(np.divide(removed, prior, out=np.full(prior.shape, np.nan), where=prior > 0.0))

    def contraction_entries(self, post: np.ndarray, pre: np.ndarray) -> np.ndarray:
        """(entry,)."""
        return self.contraction[post, pre]

    @cached_property
    def read(self) -> Subspace:
        tangent = self._tangent
        return determined_subspace(tangent.read_moment(self._removed_covariance), tangent.prior_read_moment())

    @cached_property
    def written(self) -> Subspace:
        tangent = self._tangent
        return determined_subspace(tangent.written_moment(self._removed_covariance), tangent.prior_written_moment())

    def null_dimension(self, visited: np.ndarray) -> int:
        """Number of changes of a dense W that no visited pattern (pattern, neuron) reads."""
        return self._unread(visited).shape[1]

    def _unread(self, visited: np.ndarray) -> np.ndarray:
        tangent = self._tangent
        if not isinstance(tangent, EntryTangent):
            raise TypeError(f"tangent: expected that of a dense W, got {type(tangent).__name__}")
        return tangent.unread(visited)

    def null_deviation(self, visited: np.ndarray) -> float:
        """Largest removed variance of K -> K + Z over the prior's, with Z orthogonal to visited (pattern, neuron).

        Where the low-rank part was learned of V -> V + Z, with Z Q^T orthogonal to them.
        """
        unvisited, background = complement(visited.T), self.posterior.model.background
        if self.posterior.space.is_dense:
            right = self._unread(visited)
        elif is_learned(background):
            right = np.kron(np.eye(len(unvisited)), scipy.linalg.null_space(visited @ background.visited))
        else:
            right = np.kron(unvisited, np.eye(self.posterior.model.rank))
        null, _ = np.linalg.qr(self._to_directions[:, -len(right) :] @ right)
        removed = self.spectrum.removed_variance
        return float(np.abs(np.linalg.eigvalsh(null.T @ (removed[:, None] * null))).max())

    def split(self, dW: np.ndarray, num_constrained: int) -> tuple[np.ndarray, np.ndarray]:
        """The changes (post, pre) along the first directions of W, and along the others."""
        coordinates = self._tangent.coordinates(dW)
        known = self.spectrum.directions[:, :num_constrained] @ (self._to_directions[:num_constrained] @ coordinates)
        return self._tangent.change(known), self._tangent.change(coordinates - known)
