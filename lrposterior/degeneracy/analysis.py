"""Which directions of the connectivity a recording constrains, and which it leaves to the prior.

Everything rests on `lrposterior.spectrum`: along a direction with information lambda the posterior variance is
1 / (1 + lambda) of the prior variance. A direction is constrained where lambda >= threshold, degenerate where it is
less. The gauge directions (M, K) -> (M A, K A^-T) change nothing at all and are counted apart, as are trades between
blocks of parameters that change nothing either: K within the span of Q against A of a random bulk, and coefficients of
the regression of K against its residuals. What no recording sees of a random bulk is degenerate. Where the low-rank
part was learned, K outside the span of Q does not exist, and M K^T within it is traded for A: the directions of W that
are seen are those of V = W Q (`lrposterior.visited_spectrum`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import null_space

from lrposterior.background import is_learned, refuse_learned
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
from lrposterior.connectivity import some_synapses
from lrposterior.degeneracy.dense import DenseAnalysis
from lrposterior.degeneracy.directions import CountedDirections, Directions, ListedDirections
from lrposterior.degeneracy.factored import FactoredAnalysis
from lrposterior.degeneracy.subspaces import (
    LARGEST_BASIS,
    LatentConnectivity,
    Subspace,
    connectivity_on,
    principal_rates,
)
from lrposterior.distribution import StructuredDistribution
from lrposterior.gauge import product_svd
from lrposterior.hidden import require_none_hidden
from lrposterior.posterior import Posterior, require_likelihood, require_uncertainty
from lrposterior.signed_orbit import num_signed_gauge
from lrposterior.spectrum import scaled_factors, unchanged_basis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALLEST_SINGULAR_RATIO = 1e-6
# Quantiles over synapses are those of all, or where there are more than these of a random sample.
ALL_SYNAPSES = 100_000


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

        From sampled draws its two ends lie too far apart, and some values may be slightly negative. From a posterior in
        the structured form it is counted on a grid: each value within a factor of 1.35, and 0 below 1e-3.
        """
        return self.parameters.spectrum

    @property
    def num_gauge(self) -> int:
        """Number of directions of (M, K) that change nothing: rank².

        Under Dale's law as well, as signs end none of them near the mode, but with process noise whose covariance is
        diagonal rank (rank + 1) / 2 (`lrposterior.signed_orbit`).
        """
        posterior = self.posterior
        if posterior.space.is_signed:
            return num_signed_gauge(posterior.space, posterior.mode_coordinates)
        return posterior.model.rank**2

    @property
    def num_trades(self) -> int:
        """Number of directions in which blocks of parameters are traded for each other, and nothing else changes."""
        posterior = self.posterior
        if self._is_learned:
            return posterior.space.num_dynamics - self.parameters.num_seen - self.num_gauge - self.num_unread
        unchanged = unchanged_basis(posterior.space, posterior.mode_coordinates, posterior.subspace)
        return unchanged.shape[1] - self.num_gauge

    @property
    def num_unread(self) -> int:
        """R (N - d), the directions of K outside the d visited patterns where M K^T was learned, else 0.

        They do not exist in the network, and are neither constrained nor degenerate.
        """
        return self.posterior.model.rank * (self.num_unseen // self.posterior.recording.num_neurons) * self._is_learned

    @property
    def _is_learned(self) -> bool:
        return is_learned(self.posterior.model.background)

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
    def visited_patterns(self) -> np.ndarray:
        """(pattern, neuron) orthonormal patterns that span the visited rates, by decreasing share."""
        return self._visited_rates[1][: self.rate_rank]

    @property
    def unvisited_patterns(self) -> np.ndarray:
        """(pattern, neuron) orthonormal patterns z of rates that never occur.

        W + m z^T, with m in the span of M, explains the recording exactly as well as W: the exact null space of W.

        Raises:
            ValueError: of more than 2,000 neurons.
        """
        patterns = self._visited_rates[1]
        num_neurons = patterns.shape[1]
        if num_neurons > LARGEST_BASIS:
            raise argument_error(
                "unvisited_patterns",
                f"at most {LARGEST_BASIS} neurons",
                f"{num_neurons}",
                "they are all that is orthogonal to visited_patterns",
            )
        return patterns[self.rate_rank :]

    @property
    def null_dimension(self) -> int:
        """R (N - rank Phi), the dimension of the exact null space K -> K + Z with Phi Z = 0.

        A regression of K on loadings that the data see says something even about these. The unseen directions of a
        random bulk are counted apart, by `num_unseen`. Where the low-rank part was learned it is N (d - rank Phi Q),
        with V -> V + Z and Phi Q Z^T = 0: nothing as long as the rates visit all of Q. Of a dense W under Dale's law it
        is that of all changes of W that there are with Phi dW^T = 0.
        """
        if self.posterior.space.is_dense:
            return self._dense.null_dimension(self.visited_patterns)
        background, num_neurons = self.posterior.model.background, self.posterior.recording.num_neurons
        if is_learned(background):
            return num_neurons * null_space(self.visited_patterns @ background.visited).shape[1]
        return self.posterior.model.rank * (num_neurons - self.rate_rank)

    @property
    def max_constrained_connectivity(self) -> int:
        """R (N + rank Phi) - R², the directions of W outside the exact null space: the data constrain no more.

        With a random bulk there are (N - R) d more, those of A that no change of M K^T makes; N d in all where the
        low-rank part was learned.
        """
        return self.connectivity.num_seen - self.null_dimension

    @cached_property
    def null_deviation(self) -> float:
        """Largest abs(posterior variance / prior variance - 1) in the exact null space, where it is 0 in theory.

        It differs from 0 by what `rate_tolerance` neglects, and for a sampled posterior by the error of the draws.
        """
        return self._analysis.null_deviation(self.visited_patterns) if self.null_dimension else 0.0

    @cached_property
    def _analysis(self) -> DenseAnalysis | FactoredAnalysis:
        distribution = self.posterior.distribution
        if isinstance(distribution, StructuredDistribution):
            return FactoredAnalysis(self.posterior, distribution)
        return DenseAnalysis(self.posterior)

    @cached_property
    def contraction(self) -> np.ndarray:
        """(post, pre) share of the prior variance of every synapse that the data remove.

        1 - posterior variance / prior variance of W_ij, both to first order at the mode: 0 is nothing, 1 is all. For a
        sampled posterior it may come out slightly below 0. It is NaN where there are no self-connections.

        Raises:
            ValueError: of a posterior in the structured form with more than 600 neurons.
        """
        return self._analysis.contraction

    def contraction_entries(self, post: Any, pre: Any) -> np.ndarray:
        """(entry,) the contraction of single synapses W[post[k], pre[k]], at any number of neurons.

        Args:
            post, pre: (entry,) indices of neurons.

        Raises:
            ValueError: if they are no indices of neurons, or of different length.
        """
        return self._analysis.contraction_entries(*self.posterior.mode_connectivity.pairs(post, pre))

    @cached_property
    def sampled_contraction(self) -> np.ndarray:
        """(entry,) the contraction of all synapses, or of 20,000 at random where there are more than 100,000.

        Self-connections are not among them where there are none.
        """
        num_neurons = self.posterior.recording.num_neurons
        if num_neurons**2 > ALL_SYNAPSES:
            post, pre = some_synapses(num_neurons)
        else:
            post, pre = np.divmod(np.arange(num_neurons**2), num_neurons)
        if not self.posterior.model.self_connections:
            post, pre = post[post != pre], pre[post != pre]
        return read_only(self._analysis.contraction_entries(post, pre))

    @property
    def read(self) -> Subspace:
        """Presynaptic patterns: eigenvectors of sum over directions v of lambda / (1 + lambda) dW_v^T dW_v."""
        return self._analysis.read

    @property
    def written(self) -> Subspace:
        """Postsynaptic patterns: eigenvectors of sum over directions v of lambda / (1 + lambda) dW_v dW_v^T."""
        return self._analysis.written

    @cached_property
    def _dense(self) -> DenseAnalysis:
        return self._analysis if isinstance(self._analysis, DenseAnalysis) else DenseAnalysis(self.posterior)

    def split(self, dW: Any) -> ConnectivitySplit:
        """The constrained and the degenerate part of a change of W.

        The change is projected on the changes that M and K can make at the mode (to first order, in the least squares
        sense), and these on the directions of W with lambda above and below the threshold. The split is linear.
        So W itself may be given as well, and the constrained part of W minus the mode's W is the difference of their
        constrained parts. A known background W0 belongs to no part: subtract it from W first.

        Args:
            dW: (post, pre).

        Raises:
            ValueError: if dW is not a finite matrix of the recording's neurons, or the covariance of the parameters
                would not fit into 4 GB.
        """
        num_neurons = self.posterior.recording.num_neurons
        matrix = as_array(dW, "dW", ("post", "pre")).astype(np.float64)
        require_shape(matrix, "dW", {"post": num_neurons, "pre": num_neurons})
        require_finite(matrix, "dW", "give a change for every synapse, 0 where there is none")
        constrained, degenerate = self._dense.split(matrix, self.connectivity.num_constrained)
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
        low, middle, high = np.quantile(self.sampled_contraction, [0.05, 0.5, 0.95])
        num_sampled = self.sampled_contraction.size
        sampled = "" if recording.num_neurons**2 <= ALL_SYNAPSES else f" ({num_sampled:,} synapses at random)"
        what = "W Q" if self._is_learned else "M K^T" if self.num_unseen else "W"
        lines = [
            f"Degeneracy of a {posterior.method} posterior: rank {rank}, {recording.num_neurons} neurons, "
            f"{recording.num_trials} trials x {recording.num_bins} bins",
            f"{'':34}{'all parameters':>16}{'W alone':>12}",
            *(f"{name:34}{everything:>16}{alone:>12}" for name, (everything, alone) in rows),
            f"gauge directions, counted apart: {self.num_gauge}"
            + (f", {self.num_unread} of K outside the visited patterns" if self.num_unread else "")
            + (f", and {self.num_trades} trades between parameters that change nothing" if self.num_trades else ""),
            f"visited rates: rank {self.rate_rank} of {recording.num_neurons} (tolerance {self.rate_tolerance:g}), "
            f"so at most {self.max_constrained_connectivity} directions of W can be constrained",
            f"exact null space of {what}: {self.null_dimension} directions, where "
            f"posterior and prior variance differ by {100 * self.null_deviation:.2g}% at most"
            + (", through the regression of K alone" if posterior.space.regressions and self.null_dimension else ""),
            f"variance removed per synapse: median {middle:.2f}, 5% to 95% of synapses {low:.2f} to {high:.2f}"
            + sampled,
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
            rank than the model, or the covariance of the parameters would not fit into 4 GB. Where the low-rank
            part was learned also of a sampled posterior, and of one in the structured form with a free initial state.
            Of a sampled posterior under Dale's law also with a `SignedBackground`.
    """
    require_instance(posterior, "posterior", Posterior, "make it with lrposterior.fit(...)")
    require_uncertainty(posterior)
    require_likelihood(posterior)
    require_none_hidden(posterior.model.hidden_neurons, "posterior")
    threshold = require_positive(threshold, "threshold")
    rate_tolerance = require_probability(rate_tolerance, "rate_tolerance")
    space, mode = posterior.space, posterior.mode_coordinates
    values = product_svd(*scaled_factors(space, mode))[1]
    if values[-1] <= SMALLEST_SINGULAR_RATIO * values[0]:
        singular = f"singular values of W from {values[0]:.1g} to {values[-1]:.1g}"
        mend = "the recording does not support this rank, fit again with a lower one"
        raise argument_error("posterior", f"W of rank {len(values)} at the mode", singular, mend)
    Q = posterior.subspace
    num_unseen = 0 if Q is None else len(Q) * (len(Q) - Q.shape[1])
    if isinstance(posterior.distribution, StructuredDistribution):
        if posterior.model.initial_state == "free":
            refuse_learned(
                posterior.model.background, "analyze_degeneracy of a large network with a free initial state"
            )
        factored = FactoredAnalysis(posterior, posterior.distribution)
        of_parameters: Directions = CountedDirections(threshold, num_unseen, factored.parameters)
        of_connectivity: Directions = CountedDirections(threshold, num_unseen, factored.connectivity)
    else:
        dense = DenseAnalysis(posterior)
        of_parameters = ListedDirections(threshold, num_unseen, dense.parameters.information)
        of_connectivity = ListedDirections(threshold, num_unseen, dense.spectrum.information)
    return Degeneracy(posterior, threshold, rate_tolerance, of_parameters, of_connectivity)
