"""What the data say about synapses and patterns of any number of neurons, from the factors of the covariance."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from lrposterior.background import is_learned
from lrposterior.checks import read_only
from lrposterior.connectivity import require_memory
from lrposterior.degeneracy.subspaces import Subspace, fix_sign
from lrposterior.distribution import StructuredDistribution
from lrposterior.posterior import Posterior
from lrposterior.structured.entries import entry_variances, prior_entry_variances
from lrposterior.structured.factor_changes import CoordinateChanges, FactorChanges
from lrposterior.structured.information import StructuredPosterior
from lrposterior.structured.moments import SecondMoment
from lrposterior.structured.pencil import Pencil
from lrposterior.structured.system import System
from lrposterior.structured.visited_changes import VisitedChanges

# Leading patterns of a subspace that are computed.
NUM_PATTERNS = 24
# A matrix of all synapses is made for so many at most.
LARGEST_MATRIX_GIGABYTES = 0.003
MATRIX_MEND = "use contraction_entries(post, pre), which takes any synapses of a large network"
DEVIATION_TOLERANCE, DEVIATION_STEPS = 1e-6, 100


@dataclass(frozen=True, eq=False)
class FactoredAnalysis:
    """The analysis of a posterior in the structured form; nothing (neuron, neuron) is formed unless it is small.

    Where prior scales were inferred, the posterior is that at the root mean square of what they may be, and the prior
    that at the most probable scales.
    """

    posterior: Posterior
    distribution: StructuredDistribution

    @cached_property
    def covariance(self) -> StructuredPosterior:
        return self.distribution.typical_covariance()

    @property
    def _prior(self) -> np.ndarray:
        return self.distribution.unit

    @cached_property
    def _vector(self) -> np.ndarray:
        """The mode, in the coordinates of the engine."""
        return dataclasses.replace(self.distribution, location=self.posterior.mode_coordinates).vector()

    @cached_property
    def _system(self) -> System:
        return System.of(self.posterior.model, self.posterior.recording)

    @cached_property
    def _changes(self) -> FactorChanges:
        return FactorChanges.of(self.covariance, self._prior, self._vector, self._system.seen_right)

    @property
    def _is_learned(self) -> bool:
        return is_learned(self.posterior.model.background)

    def _visited(self, *, everything: bool) -> VisitedChanges:
        return VisitedChanges.of(self._system, self._vector, self.covariance, self._prior, everything=everything)

    @property
    def _unit(self) -> int:
        """N where the second moments are those of N dW."""
        return 1 if self._is_learned else self.posterior.recording.num_neurons

    @cached_property
    def _of_V(self) -> VisitedChanges:
        return self._visited(everything=False)

    @cached_property
    def parameters(self) -> Pencil:
        """Of all parameters."""
        if self._is_learned:
            return self._visited(everything=True).pencil()[0]
        return CoordinateChanges.of(self.covariance, self._prior).pencil

    @cached_property
    def _connectivity(self) -> tuple[Pencil, np.ndarray]:
        return self._of_V.pencil() if self._is_learned else self._changes.pencil()

    @property
    def connectivity(self) -> Pencil:
        """Of W alone."""
        return self._connectivity[0]

    @cached_property
    def contraction(self) -> np.ndarray:
        """(post, pre), of few neurons only."""
        num_neurons = self.posterior.recording.num_neurons
        require_memory(num_neurons**2, "contraction", LARGEST_MATRIX_GIGABYTES, MATRIX_MEND)
        post, pre = np.divmod(np.arange(num_neurons**2), num_neurons)
        return read_only(self.contraction_entries(post, pre).reshape(num_neurons, num_neurons))

    def contraction_entries(self, post: np.ndarray, pre: np.ndarray) -> np.ndarray:
        """(entry,)."""
        if self._is_learned:
            prior, left = self._of_V.entry_variances(post, pre)
            return (prior - left) / (prior + self.posterior.unseen_variance[pre])
        vector = self._vector
        left = entry_variances(self._system, vector, self.covariance, post, pre)
        prior = prior_entry_variances(self._system, vector, self._prior, post, pre)
        return (prior - left) / (prior + self.posterior.unseen_variance[pre])

    @cached_property
    def read(self) -> Subspace:
        removed, prior = self._moments(read=True)
        return self._subspace(removed, prior, self.posterior.recording.num_neurons)

    @cached_property
    def written(self) -> Subspace:
        removed, prior = self._moments(read=False)
        return self._subspace(removed, prior, None)

    def _moments(self, *, read: bool) -> tuple[SecondMoment, SecondMoment]:
        """In units of dW over `_unit`."""
        if not self._is_learned:
            return self._changes.moments(read=read)
        return self._of_V.moments(read=read)

    def _subspace(self, removed: SecondMoment, prior: SecondMoment, num_rows: int | None) -> Subspace:
        """The leading patterns; the unseen part of a bulk is the same in each of num_rows, or in every pattern."""
        values, vectors = removed.leading(NUM_PATTERNS)
        patterns, num_neurons = fix_sign(vectors), vectors.shape[1]
        prior_values = np.array([pattern @ prior.times(pattern) for pattern in patterns])
        Q = self.posterior.subspace
        if Q is not None:
            unseen = (self._unit * self.posterior.unseen_scale) ** 2
            if num_rows is None:
                prior_values += unseen * (num_neurons - Q.shape[1])
            else:
                prior_values += unseen * num_rows * (1.0 - np.sum((patterns @ Q) ** 2, axis=1))
        return Subspace(read_only(patterns), read_only(values / removed.trace), read_only(values / prior_values))

    def null_deviation(self, visited: np.ndarray) -> float:
        """Largest removed variance of K -> K + Z over the prior's, with Z orthogonal to visited (pattern, neuron).

        Where the low-rank part was learned of V -> V + Z, with Z Q^T orthogonal to them.
        """
        pencil, to_factors = self._connectivity
        num_neurons, background = self.posterior.recording.num_neurons, self.posterior.model.background
        unvisited = scipy.linalg.null_space(visited @ background.visited) if is_learned(background) else None
        width = self.posterior.model.rank if unvisited is None else len(unvisited)
        of_changed = np.linalg.inv(to_factors)[:, :, -width:]

        def orthogonal(Z: np.ndarray) -> np.ndarray:
            if unvisited is not None:
                by_neuron = Z.reshape(num_neurons, width, -1)
                return (unvisited @ (unvisited.T @ by_neuron)).reshape(Z.shape)
            flat = Z.reshape(num_neurons, -1)
            return (flat - visited.T @ (visited @ flat)).reshape(Z.shape)

        def to_rows(Z: np.ndarray) -> np.ndarray:
            rows = of_changed @ orthogonal(Z).reshape(num_neurons, width, -1)
            return pencil.inverse_prior_times(rows.reshape(pencil.local.size, -1))

        def from_rows(rows: np.ndarray) -> np.ndarray:
            by_neuron = np.swapaxes(of_changed, 1, 2) @ rows.reshape(num_neurons, -1, rows.shape[1])
            return orthogonal(by_neuron.reshape(num_neurons * width, -1))

        def removed(Z: np.ndarray) -> np.ndarray:
            return from_rows(pencil.inverse_prior_times(pencil.removed_times(to_rows(Z))))

        def prior(Z: np.ndarray) -> np.ndarray:
            # Along visited patterns any precision does: nothing is removed there.
            return from_rows(to_rows(Z)) + Z - orthogonal(Z)

        start = orthogonal(np.random.default_rng(0).standard_normal((num_neurons * width, 3)))
        values, _ = scipy.sparse.linalg.lobpcg(
            removed, start, B=prior, largest=True, tol=DEVIATION_TOLERANCE, maxiter=DEVIATION_STEPS
        )
        return float(np.max(np.abs(values)))
