"""Which directions of the connectivity a recording constrains, and which it leaves to the prior.

Everything rests on `lrposterior.spectrum`: along a direction with information lambda the posterior variance is
1 / (1 + lambda) of the prior variance. A direction is constrained where lambda >= threshold, degenerate where it is
less. The gauge directions (M, K) -> (M A, K A^-T) change nothing at all and are counted apart, as are trades between
blocks of parameters that change nothing either: K within the span of Q against A of a random bulk, and coefficients of
the regression of K against its residuals. What no recording sees of a random bulk is degenerate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lrposterior.checks import (
    argument_error,
    as_array,
    read_only,
    require_finite,
    require_instance,
    require_integer,
    require_positive,
    require_probability,
    require_shape,
)
from lrposterior.degeneracy.subspaces import (
    LatentConnectivity,
    Subspace,
    connectivity_on,
    determined_subspace,
    principal_rates,
)
from lrposterior.degeneracy.tangent import ConnectivityTangent
from lrposterior.gauge import product_svd
from lrposterior.posterior import Posterior
from lrposterior.spectrum import Spectrum, connectivity_spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALLEST_SINGULAR_RATIO = 1e-6


@dataclass(frozen=True, eq=False)
class Directions:
    """Independent directions of parameters, by what the data say about each.

    Attributes:
        spectrum: (direction,) information lambda, decreasing.
        threshold: lambda from which a direction counts as constrained.
        num_unseen: directions of a random bulk that are not in the spectrum, as the data say nothing about them.
    """

    spectrum: np.ndarray
    threshold: float
    num_unseen: int = 0

    @property
    def num_directions(self) -> int:
        return len(self.spectrum) + self.num_unseen

    @property
    def num_constrained(self) -> int:
        """Number of directions with lambda >= threshold."""
        return int(np.sum(self.spectrum >= self.threshold))

    @property
    def num_degenerate(self) -> int:
        """Number of directions with lambda < threshold, with the unseen ones of a bulk."""
        return self.num_directions - self.num_constrained

    @property
    def effective_parameters(self) -> float:
        """Sum of lambda / (1 + lambda): the part of the prior variance that the data remove, summed over directions."""
        return float(np.sum(self.spectrum / (1.0 + self.spectrum)))

    @property
    def information(self) -> float:
        """Half the sum of log(1 + lambda), in nats: by how much the posterior is narrower than the prior."""
        return float(0.5 * np.sum(np.log1p(self.spectrum)))


@dataclass(frozen=True, eq=False)
class ConnectivitySplit:
    """A change of W, or W itself, in three parts that add up to it, each (post, pre).

    Attributes:
        constrained: what the data determine.
        degenerate: what the data leave to the prior.
        outside: what no small change of M and K at the mode can make; the model excludes it. With a random bulk
            nothing is excluded: this part is then degenerate, and zero here.
    """

    constrained: np.ndarray
    degenerate: np.ndarray
    outside: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Degeneracy:
    """What a recording says about the connectivity, and what it leaves open; made by `analyze_degeneracy`.

    Nothing here depends on the gauge. The noise scales, which the connectivity does not depend on, are left out.

    Attributes:
        posterior: what was analysed.
        threshold: lambda from which a direction counts as constrained.
        rate_tolerance: singular values of the visited rates below this share of the largest count as zero.
        parameters: the directions of all parameters of the dynamics together (M, K, B, b and, where the model has
            them, initial latents, the time constant, a random bulk and the regression of K).
        connectivity: the directions of W alone, all other parameters unknown.
    """

    posterior: Posterior
    threshold: float
    rate_tolerance: float
    parameters: Directions
    connectivity: Directions

    @property
    def spectrum(self) -> np.ndarray:
        """(direction,) information lambda of all parameters of the dynamics, decreasing.

        From sampled draws its two ends lie too far apart, and some values may be slightly negative.
        """
        return self.parameters.spectrum

    @property
    def num_gauge(self) -> int:
        """Number of directions of (M, K) that change nothing: rank²."""
        return self.posterior.model.rank**2

    @property
    def num_trades(self) -> int:
        """Number of directions in which blocks of parameters are traded for each other, and nothing else changes."""
        return int(self.posterior.spectrum.vertical.shape[1]) - self.num_gauge

    @property
    def num_unseen(self) -> int:
        """N (N - d), the directions of a random bulk outside the d visited patterns: no recording sees them."""
        return self.connectivity.num_unseen

    @property
    def num_constrained(self) -> int:
        """Number of directions with lambda >= threshold."""
        return self.parameters.num_constrained

    @property
    def num_degenerate(self) -> int:
        """Number of directions with lambda < threshold, without the gauge."""
        return self.parameters.num_degenerate

    @property
    def effective_parameters(self) -> float:
        """Sum of lambda / (1 + lambda)."""
        return self.parameters.effective_parameters

    @property
    def information(self) -> float:
        """Half the sum of log(1 + lambda), in nats."""
        return self.parameters.information

    @cached_property
    def _visited_rates(self) -> tuple[np.ndarray, np.ndarray]:
        return principal_rates(self.posterior.mode_rates(), self.posterior.recording.mask)

    @property
    def rate_rank(self) -> int:
        """Rank of the visited rates Phi (trial x time, neuron) at the mode, to the relative `rate_tolerance`.

        Rates after which nothing is observed, as in the last bin of a trial, have no effect and are left out.
        """
        values = self._visited_rates[0]
        return int(np.sum(values > self.rate_tolerance * values[0]))

    @property
    def unvisited_patterns(self) -> np.ndarray:
        """(pattern, neuron) orthonormal patterns z of rates that never occur.

        W + m z^T, with m in the span of M, explains the recording exactly as well as W: the exact null space of W.
        """
        return self._visited_rates[1][self.rate_rank :]

    @property
    def null_dimension(self) -> int:
        """R (N - rank Phi), the dimension of the exact null space K -> K + Z with Phi Z = 0.

        A regression of K on loadings that the data see says something even about these. The unseen directions of a
        random bulk are counted apart, by `num_unseen`.
        """
        return self.posterior.model.rank * len(self.unvisited_patterns)

    @property
    def max_constrained_connectivity(self) -> int:
        """R (N + rank Phi) - R², the directions of W outside the exact null space: the data constrain no more.

        With a random bulk there are (N - R) d more, those of A that no change of M K^T makes.
        """
        return len(self.connectivity.spectrum) - self.null_dimension

    @cached_property
    def null_deviation(self) -> float:
        """Largest abs(posterior variance / prior variance - 1) in the exact null space, where it is 0 in theory.

        It differs from 0 by what `rate_tolerance` neglects, and for a sampled posterior by the error of the draws.
        """
        unvisited = self.unvisited_patterns
        if not len(unvisited):
            return 0.0
        right = np.kron(unvisited.T, np.eye(self.posterior.model.rank))
        null, _ = np.linalg.qr(self._to_directions[:, -len(right) :] @ right)
        removed = self._connectivity_spectrum.removed_variance
        return float(np.abs(np.linalg.eigvalsh(null.T @ (removed[:, None] * null))).max())

    @cached_property
    def _tangent(self) -> ConnectivityTangent:
        return ConnectivityTangent.at(self.posterior)

    @cached_property
    def _connectivity_spectrum(self) -> Spectrum:
        posterior = self.posterior
        return connectivity_spectrum(
            posterior.space, posterior.mode_coordinates, posterior.spectrum, posterior.subspace
        )

    @cached_property
    def _to_directions(self) -> np.ndarray:
        """(direction, coordinate) components of a change of the factors along the directions of W."""
        return np.linalg.pinv(self._connectivity_spectrum.directions)

    @cached_property
    def _removed_covariance(self) -> np.ndarray:
        """(coordinate, coordinate) prior minus posterior covariance of the factors of W."""
        directions = self._connectivity_spectrum.directions
        return (directions * self._connectivity_spectrum.removed_variance) @ directions.T

    @cached_property
    def contraction(self) -> np.ndarray:
        """(post, pre) share of the prior variance of every synapse that the data remove.

        1 - posterior variance / prior variance of W_ij, both to first order at the mode: 0 is nothing, 1 is all. For a
        sampled posterior it may come out slightly below 0.
        """
        removed = self._tangent.entry_variance(self._removed_covariance)
        return read_only(removed / self._tangent.prior_entry_variance())

    @cached_property
    def read(self) -> Subspace:
        """Presynaptic patterns: eigenvectors of sum over directions v of lambda / (1 + lambda) dW_v^T dW_v."""
        tangent = self._tangent
        return determined_subspace(tangent.read_moment(self._removed_covariance), tangent.prior_read_moment())

    @cached_property
    def written(self) -> Subspace:
        """Postsynaptic patterns: eigenvectors of sum over directions v of lambda / (1 + lambda) dW_v dW_v^T."""
        tangent = self._tangent
        return determined_subspace(tangent.written_moment(self._removed_covariance), tangent.prior_written_moment())

    def split(self, dW: Any) -> ConnectivitySplit:
        """The constrained and the degenerate part of a change of W.

        The change is projected on the changes that M and K can make at the mode (to first order, in the least squares
        sense), and these on the directions of W with lambda above and below the threshold. The split is linear.
        So W itself may be given as well, and the constrained part of W minus the mode's W is the difference of their
        constrained parts. A known background W0 belongs to no part: subtract it from W first.

        Args:
            dW: (post, pre).

        Raises:
            ValueError: if dW is not a finite matrix of the recording's neurons.
        """
        num_neurons = self.posterior.recording.num_neurons
        matrix = as_array(dW, "dW", ("post", "pre")).astype(np.float64)
        require_shape(matrix, "dW", {"post": num_neurons, "pre": num_neurons})
        require_finite(matrix, "dW", "give a change for every synapse, 0 where there is none")
        coordinates = self._tangent.coordinates(matrix)
        kept = self.connectivity.num_constrained
        known = self._connectivity_spectrum.directions[:, :kept] @ (self._to_directions[:kept] @ coordinates)
        constrained, degenerate = self._tangent.change(known), self._tangent.change(coordinates - known)
        outside = matrix - constrained - degenerate
        if self.num_unseen:
            return ConnectivitySplit(constrained, degenerate + outside, np.zeros_like(outside))
        return ConnectivitySplit(constrained, degenerate, outside)

    def latent_connectivity(
        self, num_latents: int | None = None, *, probability: float = 0.9, num_draws: int = 400, seed: int
    ) -> LatentConnectivity:
        """Posterior of Q^T W Q, with Q the principal directions of the visited rates (not centred: W acts on rates).

        Args:
            num_latents: number of principal directions; None takes rank + number of inputs + 1, the number of
                dimensions in which the currents of a low-rank network move.
            probability: of the credible intervals.
            num_draws: number of posterior draws.
            seed: seed of the draws.

        Raises:
            ValueError: if an argument is out of its range.
        """
        posterior = self.posterior
        if num_latents is None:
            num_latents = min(posterior.model.rank + posterior.recording.num_inputs + 1, self.rate_rank)
        num_latents = require_integer(num_latents, "num_latents", 1, posterior.recording.num_neurons)
        basis = self._visited_rates[1][:num_latents].T
        return connectivity_on(basis, posterior.sample_connectivity(num_draws, seed=seed), probability)

    def plot_spectrum(self, **options: Any) -> Figure:
        """The information along every direction; see `lrposterior.plots.degeneracy.plot_spectrum`."""
        from lrposterior.plots.degeneracy import plot_spectrum

        return plot_spectrum(self, **options)

    def plot_contraction(self, **options: Any) -> Figure:
        """The map of variance removed per synapse; see `lrposterior.plots.degeneracy.plot_contraction`."""
        from lrposterior.plots.degeneracy import plot_contraction

        return plot_contraction(self, **options)

    def plot_subspaces(self, **options: Any) -> Figure:
        """The subspaces read and written; see `lrposterior.plots.degeneracy.plot_subspaces`."""
        from lrposterior.plots.degeneracy import plot_subspaces

        return plot_subspaces(self, **options)

    def __repr__(self) -> str:
        return (
            f"Degeneracy({self.num_constrained} constrained, {self.num_degenerate} degenerate, "
            f"{self.num_gauge} gauge directions, lambda >= {self.threshold:g})"
        )

    def __str__(self) -> str:
        posterior, rank = self.posterior, self.posterior.model.rank
        recording, columns = posterior.recording, (self.parameters, self.connectivity)
        rows = [
            ("directions", [str(one.num_directions) for one in columns]),
            (f"  constrained (lambda >= {self.threshold:g})", [str(one.num_constrained) for one in columns]),
            (f"  degenerate (lambda < {self.threshold:g})", [str(one.num_degenerate) for one in columns]),
            *([("    of them the unseen bulk", [str(self.num_unseen)] * 2)] if self.num_unseen else []),
            ("effective parameters", [f"{one.effective_parameters:.1f}" for one in columns]),
            ("information (nats)", [f"{one.information:.1f}" for one in columns]),
        ]
        low, middle, high = np.quantile(self.contraction, [0.05, 0.5, 0.95])
        lines = [
            f"Degeneracy of a {posterior.method} posterior: rank {rank}, {recording.num_neurons} neurons, "
            f"{recording.num_trials} trials x {recording.num_bins} bins",
            f"{'':34}{'all parameters':>16}{'W alone':>12}",
            *(f"{name:34}{everything:>16}{alone:>12}" for name, (everything, alone) in rows),
            f"gauge directions, counted apart: {self.num_gauge}"
            + (f", and {self.num_trades} trades between parameters that change nothing" if self.num_trades else ""),
            f"visited rates: rank {self.rate_rank} of {recording.num_neurons} (tolerance {self.rate_tolerance:g}), "
            f"so at most {self.max_constrained_connectivity} directions of W can be constrained",
            f"exact null space of {'M K^T' if self.num_unseen else 'W'}: {self.null_dimension} directions, where "
            f"posterior and prior variance differ by {100 * self.null_deviation:.2g}% at most"
            + (", through the regression of K alone" if posterior.space.regressions else ""),
            f"variance removed per synapse: median {middle:.2f}, 5% to 95% of synapses {low:.2f} to {high:.2f}",
            f"share of the removed variance on {rank} pattern(s): {self.read.shares[:rank].sum():.2f} presynaptic, "
            f"{self.written.shares[:rank].sum():.2f} postsynaptic",
        ]
        return "\n".join(lines)


def analyze_degeneracy(posterior: Posterior, threshold: float = 1.0, *, rate_tolerance: float = 1e-6) -> Degeneracy:
    """Separate the directions of the connectivity that the data constrain from those that they leave free.

    A sampled posterior gives its spectrum through the sample covariance, which spreads the spectrum: with twice as many
    draws as directions, the least that is accepted, the constrained directions come out a few percent too many.

    Args:
        posterior: of any fitting method.
        threshold: information lambda from which a direction counts as constrained. At 1 the data say as much as the
            prior: half the prior variance is left.
        rate_tolerance: singular values of the visited rates below this share of the largest count as zero.

    Raises:
        ValueError: if an argument is out of its range, a sampled posterior has too few draws, W at the mode has a lower
            rank than the model, or the covariance of the parameters would not fit into 4 GB.
    """
    require_instance(posterior, "posterior", Posterior, "make it with lrposterior.fit(...)")
    threshold = require_positive(threshold, "threshold")
    rate_tolerance = require_probability(rate_tolerance, "rate_tolerance")
    space, mode = posterior.space, posterior.mode_coordinates
    left, right = space.factors(mode)
    values = product_svd(left, right[: len(left)])[1]
    if values[-1] <= SMALLEST_SINGULAR_RATIO * values[0]:
        singular = f"singular values of W from {values[0]:.1g} to {values[-1]:.1g}"
        mend = "the recording does not support this rank, fit again with a lower one"
        raise argument_error("posterior", f"W of rank {len(values)} at the mode", singular, mend)
    connectivity = connectivity_spectrum(space, mode, posterior.spectrum, posterior.subspace)
    Q = posterior.subspace
    num_unseen = 0 if Q is None else len(Q) * (len(Q) - Q.shape[1])
    return Degeneracy(
        posterior,
        threshold,
        rate_tolerance,
        Directions(read_only(posterior.spectrum.information), threshold, num_unseen),
        Directions(read_only(connectivity.information), threshold, num_unseen),
    )
