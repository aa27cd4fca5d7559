"""The posterior: what every `fit` returns, whichever method made it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrposterior.background import FixedBackground, RandomBulk, is_learned
from lrposterior.bulk import draw_unseen, unseen_stream
from lrposterior.checks import argument_error, as_array, read_only, require_integer, require_probability, require_shape
from lrposterior.connectivity import LowRankConnectivity, connectivity_draws, require_memory
from lrposterior.distribution import (
    NormalDistribution,
    ParameterDistribution,
    SampleDistribution,
    StructuredDistribution,
    normals,
)
from lrposterior.gauge import canonical
from lrposterior.hidden import K_RECORDED
from lrposterior.model import LowRankModel
from lrposterior.parameters import ParameterSpace, of_type
from lrposterior.parts import ExplainedParts, explained_by_parts
from lrposterior.populations import ByCellType
from lrposterior.priors import ScalePrior
from lrposterior.recording import Recording
from lrposterior.rollouts import simulate_draws
from lrposterior.spectrum import Spectrum, horizontal_spectrum
from lrposterior.structured.entries import entry_variances
from lrposterior.structured.factor_changes import FactorChanges
from lrposterior.structured.read_entries import read_entry_moments
from lrposterior.structured.system import System
from lrposterior.time_constants import PerNeuron

if TYPE_CHECKING:
    from xarray import DataTree

MAX_GIGABYTES = 4.0
# Moments of W under Dale's law are those of so many draws.
NUM_MOMENT_DRAWS = 4000
# Intervals that are printed are those of so many draws.
NUM_INTERVAL_DRAWS = 400
# In the diagnostics of a fit within signs, and the part of the number of coordinates that is too much.
EXCESS, LARGEST_EXCESS = "excess nats of draws", 0.5
# Half the central interval of a standard Normal that has probability 0.9.
NORMAL_90 = 1.6448536269514722


@dataclass(frozen=True, eq=False)
class FitStatistics:
    """How a fit went.

    Attributes:
        objective: -log p(activity, z) at the mode in whitened coordinates, in nats; at that of W where the evidence
            chose a regression, which starts from there. Of `Match` its loss, which is no density, and of `Gibbs` the
            mean loss of its draws.
        gradient_norm: norm of its gradient there.
        decrement: nats that the quadratic model at the mode still expected to gain.
        num_iterations: Gauss-Newton steps to the mode.
        wall_time: duration of the whole fit, in seconds.
        log_evidence: log p(activity | model) in nats, or None where it cannot be trusted.
        evidence_note: how the evidence was computed, or why there is none.
        mode_objectives: objective of every distinct mode that restarts found, best first.
        mode_log_evidences: log evidence of each of them (NaN where refused).
        mode_counts: number of starts that ended in each of them.
        num_failed_starts: number of restarts that ended without a mode, for example because the network drawn from the
            prior diverges.
        elbo: (step,) evidence lower bound along a variational fit, in nats, else empty. Of `Gibbs` what takes its
            place, E (-beta L) - KL(q || prior).
        diagnostics: convergence measures by name, for example R-hat of entries of W for a Markov chain.
        scales: prior scales that were inferred, by name: the value, and the posterior standard deviation of its
            natural logarithm.
        regression_ahead: where the evidence decided whether K depends on the other loadings of a neuron
            (`CorrelatedLoadings`), log evidence with their regression less that without, in nats; -inf or inf where
            only the one without or with it has a posterior. The posterior has the regression where this is positive.
        training_loss: (network,) of an ensemble, the mean squared error of what each network predicts, in the trials
            that were fitted; of `Match` the loss of each network.
        validation_loss: (network,) the same in the trials that were held out, of `Match` 1 - correlation of their
            averages; NaN where none were.
    """

    objective: float
    gradient_norm: float
    decrement: float
    num_iterations: int
    wall_time: float
    log_evidence: float | None
    evidence_note: str
    mode_objectives: tuple[float, ...] = ()
    mode_log_evidences: tuple[float, ...] = ()
    mode_counts: tuple[int, ...] = ()
    num_failed_starts: int = 0
    elbo: np.ndarray = field(default_factory=lambda: np.empty(0))
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    regression_ahead: float | None = None
    training_loss: np.ndarray = field(default_factory=lambda: np.empty(0))
    validation_loss: np.ndarray = field(default_factory=lambda: np.empty(0))


def require_like_fitted(trials: Recording, fitted: Recording) -> None:
    """Refuse trials of other neurons, inputs or bins than those of a fitted recording.

    Raises:
        ValueError: with the first difference.
    """
    for name in ("num_neurons", "num_inputs", "dt"):
        ours, theirs = getattr(fitted, name), getattr(trials, name)
        if ours != theirs:
            mend = "give trials like those that were fitted"
            raise argument_error("trials", f"{name} = {ours}, as in the recording", f"{theirs}", mend)


def require_uncertainty(posterior: Posterior, name: str = "posterior") -> None:
    """Refuse point estimates where the uncertainty of a posterior is asked for.

    Raises:
        ValueError: with the mend.
    """
    if posterior.is_point_estimate:
        mend = "fit with method='laplace'; the networks themselves are in sample_parameters and sample_connectivity"
        raise argument_error(name, "a posterior", "point estimates, whose scatter is none", mend)


def require_likelihood(posterior: Posterior, name: str = "posterior") -> None:
    """Refuse a generalised posterior where what a recording says is asked for, which beta says in its place.

    Raises:
        ValueError: with the mend.
    """
    if posterior.is_generalised:
        raise argument_error(name, "the posterior of a likelihood", posterior.caveat, "fit with method='laplace'")


@dataclass(frozen=True, eq=False)
class Posterior:
    """The posterior of a low-rank network given a recording.

    Everything that it gives out is a function of W (and of the other parameters), never of the gauge: M and K are
    always in the canonical gauge, where their whitened columns are the singular vectors of W. Only under Dale's law
    they are those of the draws, as no gauge that is a function of W keeps their signs.

    Attributes:
        model: the model, with its unit settled by the recording.
        recording: what was fitted.
        method: name of the fitting method.
        seed: seed of the fit.
        status: "converged", or what to beware of.
        statistics: how the fit went.
        mode_coordinates: (coordinate,) whitened mode of W: the posterior mode with the gauge integrated out, in the
            gauge in which the prior compares best with it (`lrposterior.inference.balance`). Of `Gibbs` the mean.
        distribution: the posterior in whitened coordinates.
        scale_priors: the priors of the scales that were inferred, by name. In `model` their values stand.
    """

    model: LowRankModel
    recording: Recording
    method: str
    seed: int
    status: str
    statistics: FitStatistics
    mode_coordinates: np.ndarray
    distribution: ParameterDistribution
    scale_priors: Mapping[str, ScalePrior] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode_coordinates", read_only(self.mode_coordinates))

    @property
    def settled_model(self) -> LowRankModel:
        """The model as it was fitted: unit, visited patterns and types settled, scales with the priors they had."""
        return self.model.with_scales(self.scale_priors)

    @property
    def is_point_estimate(self) -> bool:
        """Whether the draws are networks that were fitted one by one, as by `Match`: their scatter is no posterior."""
        return self.method == "match"

    @property
    def is_generalised(self) -> bool:
        """Whether exp(-beta L) has the place of the likelihood, as by `Gibbs`."""
        return self.method == "gibbs"

    @property
    def caveat(self) -> str:
        """Why this is not the posterior of a likelihood; empty where it is."""
        if self.is_point_estimate:
            return "point estimates, whose scatter is no posterior"
        if self.is_generalised:
            beta = self.statistics.diagnostics["beta"]
            return (
                f"a generalised posterior, exp(-beta L) for a likelihood: beta = {beta:g} sets the width of intervals"
            )
        return ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the fit found out about itself, in words; empty where nothing speaks against it.

        Under Dale's law draws that lie further from the mode than those of a Normal posterior, by more than the half of
        a nat for each coordinate that these do.
        """
        excess, size = self.statistics.diagnostics.get(EXCESS, 0.0), self.space.size
        if not excess > LARGEST_EXCESS * size:
            return ()
        return (
            f"draws explain the recording worse than those of the exact posterior, by {excess:.0f} nats where the "
            f"approximation takes {0.5 * size:.0f} for granted: magnitudes bend it, and intervals of W and of mean "
            "weights may hold too little",
        )

    @cached_property
    def space(self) -> ParameterSpace:
        """Names, shapes and priors of the parameters."""
        return self.model.space_for(self.recording)

    @cached_property
    def _network_space(self) -> ParameterSpace:
        """The parameters of the networks that are given out: K reads visited patterns alone where it was learned."""
        return dataclasses.replace(self.space, read=self.subspace) if is_learned(self.model.background) else self.space

    @cached_property
    def spectrum(self) -> Spectrum:
        """What the data say along every direction of the parameters.

        Raises:
            ValueError: if it would need more than 4 GB, a sampled posterior has too few draws, or these are point
                estimates or a generalised posterior.
        """
        require_uncertainty(self)
        require_likelihood(self)
        require_memory(
            4 * self.space.num_dynamics**2,
            "posterior",
            MAX_GIGABYTES,
            "analyse fewer neurons, with recording.select(neurons=...)",
        )
        return horizontal_spectrum(self.space, self.mode_coordinates, self.distribution, self.subspace)

    @property
    def subspace(self) -> np.ndarray | None:
        """(neuron, dimension) the visited patterns Q through which a random bulk is seen, or None."""
        background = self.model.background
        return background.subspace if isinstance(background, RandomBulk) else None

    @property
    def mode(self) -> dict[str, np.ndarray]:
        """The most probable parameters by name, read-only.

        M, K (neuron, rank), B (neuron, input), b, noise_scale (neuron,), of calcium also decay_time (neuron,) in
        seconds, or of counts rate_scale and baseline (neuron,) or () in spikes/s and, where they vary more than
        Poisson's, dispersion (neuron,), process_noise (rank, rank) where there is any, time_constant in seconds, () or
        (population,) in the order in which the model names the cell types, or (neuron,), initial_kappa (trial, rank)
        where the initial state is free, A (neuron, dimension) of a random bulk, whose unseen part is 0 here, and W0
        (post, pre) of a `SignedBackground`.
        """
        return dict(self._mode)

    @cached_property
    def _mode(self) -> dict[str, np.ndarray]:
        return {name: read_only(value) for name, value in self.named(self.mode_coordinates).items()}

    @cached_property
    def explained_parts(self) -> ExplainedParts | None:
        """How much of the activity the low-rank part and the random bulk explain at the mode.

        None without a bulk, with process noise, where no trial is the rollout of its inputs, and of calcium, which is
        predicted from the bin before.
        """
        of_inputs = self.model.process_noise is None and self.model.observation.of != "calcium"
        if self.subspace is None or not of_inputs:
            return None
        return explained_by_parts(self.model, self.mode, self.recording)

    def sample_parameters(self, num_draws: int, *, seed: int) -> dict[str, np.ndarray]:
        """Draws of all parameters, as `mode` with a leading draw axis.

        With a random bulk also gain (draw,) and bulk_seed (draw,), from which its unseen part is made. With hidden
        neurons K is the mean over neurons that are alike, and K_recorded (draw, neuron, rank) that of the recorded one.

        Raises:
            ValueError: if num_draws is not a positive integer, or exceeds the draws of a sampled posterior.
        """
        z = self.distribution.sample(num_draws, seed=seed)
        return self.named_draws(z, unseen_stream(seed))

    def named_draws(self, z: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
        """Draws z (draw, coordinate) by name, each with what no recording sees of it, where there is such a thing."""
        named = self.named(z)
        if isinstance(self.model.background, RandomBulk):
            named |= draw_unseen(len(z), self._gain, random)
        if self.model.hidden_neurons:
            named[K_RECORDED] = named["K"] + self._apart(z, named["M"], random)
        return named

    @property
    def _gain(self) -> tuple[float, float]:
        """The gain of the bulk, and the standard deviation of its logarithm."""
        return self.statistics.scales.get("gain", (self.model.scale("gain"), 0.0))

    def _apart(self, z: np.ndarray, M: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(draw, neuron, rank) what K of the recorded neurons differs by from K of those that are like them.

        Independent between columns in the gauge of z, and then brought into that of M (draw, neuron, rank).
        """
        scale, spread, population = self._apart_scale
        scales = scale * np.exp(spread * random.standard_normal((len(z), spread.size)))
        own = scales[:, population, None] * random.standard_normal(M.shape)
        left = self.space.factors(z)[0] * self.space["M"].standard_deviation
        gauge = np.linalg.pinv(left) @ M
        return own @ np.swapaxes(np.linalg.inv(gauge), -1, -2)

    @property
    def _apart_scale(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Standard deviation by population of K_recorded - K, that of its logarithm, and (neuron,) the populations."""
        num_neurons, K = self.recording.num_neurons, self.model.priors.K
        names, population = ["K"], np.zeros(num_neurons, dtype=int)
        if isinstance(K, ByCellType):
            names, population = [of_type("K", name) for name in K], np.asarray(K.members)
        scales = np.array([self.model.scale(name) for name in names])
        spreads = np.array([self.statistics.scales.get(name, (0.0, 0.0))[1] for name in names])
        return scales * np.sqrt(1.0 - self._recorded_share), spreads, population

    def named(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters by name, in the canonical gauge, from whitened coordinates (..., coordinate) in any gauge."""
        parameters = self._network_space.unwhiten(z)
        if self.space.is_signed:
            return self.model.named(parameters, self.recording.dt)
        left, right = canonical(*self._network_space.factors(z))
        num_neurons = left.shape[-2]
        parameters["M"] = left * self.space["M"].standard_deviation
        parameters["K"] = right[..., :num_neurons, :] * self.space["K"].standard_deviation
        if "initial_kappa" in parameters:
            initial = right[..., num_neurons:, :] * self.space["initial_kappa"].standard_deviation
            parameters["initial_kappa"] = initial
        return self.model.named(parameters, self.recording.dt)

    def sample_connectivity(self, num_draws: int, *, seed: int) -> LowRankConnectivity:
        """Draws of W as operators; the draws of `sample_parameters` with the same seed.

        Raises:
            ValueError: as `sample_parameters`.
        """
        return self.connectivity_of(self.sample_parameters(num_draws, seed=seed))

    def connectivity_of(self, draws: Mapping[str, np.ndarray]) -> LowRankConnectivity:
        """W of named draws of the parameters; what they do not hold of what no recording sees is at its mean."""
        return connectivity_draws(
            draws, self.model.background, self._recorded_share, self_connections=self.model.self_connections
        )

    @property
    def _recorded_share(self) -> float:
        return self.model.recorded_share(self.recording.num_neurons)

    @property
    def mode_connectivity(self) -> LowRankConnectivity:
        """W at the mode, as a batch of one draw. What is not seen of a random bulk is at its mean, 0."""
        return self._connectivity_at(self.mode_coordinates)

    def _connectivity_at(self, z: np.ndarray) -> LowRankConnectivity:
        return self.connectivity_of(self.named(z[None]))

    def connectivity_mean(self) -> np.ndarray:
        """Posterior mean of every synapse, (post, pre), without drawing from a Normal posterior.

        Under Dale's law, where synapses are no polynomials of what is Normal, of 4,000 draws, always the same ones.
        """
        return self._moments[0]

    def connectivity_sd(self) -> np.ndarray:
        """Posterior standard deviation of every synapse, (post, pre); without draws as `connectivity_mean`.

        Raises:
            ValueError: if these are point estimates.
        """
        require_uncertainty(self)
        return self._moments[1]

    def connectivity_entries(self, post: Any, pre: Any) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean and standard deviation of single synapses W[post[k], pre[k]], (entry,) each, at any size.

        From the covariance, without draws and without N x N arrays: the exact moments of the product of the factors, at
        the root mean square of prior scales that were inferred. Where the posterior is small enough to be stored as a
        matrix, from `connectivity_mean` and `connectivity_sd`.

        Args:
            post, pre: (entry,) indices of neurons.

        Raises:
            ValueError: if they are no indices of neurons, or of different length.
        """
        post, pre = self.mode_connectivity.pairs(post, pre)
        distribution = self.distribution
        if not isinstance(distribution, StructuredDistribution):
            return self.connectivity_mean()[post, pre], self.connectivity_sd()[post, pre]
        system, covariance = System.given_out(self.model, self.recording), distribution.typical_covariance()
        vector = distribution.vector()
        if system.read is not None:
            more_mean, variance = read_entry_moments(system, vector, covariance, post, pre)
        else:
            changes = FactorChanges.of(covariance, distribution.unit, vector, system.seen_right)
            more_mean, more_variance = changes.beyond_first_order(post, pre)
            variance = entry_variances(system, vector, covariance, post, pre) + more_variance
        mean = self._connectivity_at(distribution.location).entries(post, pre)[0] + more_mean
        return mean, np.sqrt(variance + self.unseen_variance[pre])

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        num_neurons, rank = self.recording.num_neurons, self.model.rank
        num_left = rank + (0 if self.subspace is None else self.subspace.shape[1])
        mend = "use connectivity_entries, or sample_connectivity and look at entries or blocks"
        require_memory(
            3 * num_neurons**2 * (1 + rank * num_left),
            "connectivity",
            MAX_GIGABYTES,
            mend,
        )
        if isinstance(self.distribution, StructuredDistribution):
            require_memory(3 * self.space.size**2, "connectivity", MAX_GIGABYTES, mend)
        if isinstance(self.distribution, SampleDistribution):
            mean, variance = self._sample_moments(self.distribution.draws.reshape(-1, self.space.size))
        elif self.space.is_signed:
            mean, variance = self._sample_moments(self.distribution.sample(NUM_MOMENT_DRAWS, seed=0))
        else:
            mean, variance = self._mixture_moments(self.distribution)
        if isinstance(self.model.background, FixedBackground):
            mean = mean + self.model.background.to_dense()
        return read_only(mean), read_only(np.sqrt(variance + self.unseen_variance))

    def _among_recorded(
        self, mean: np.ndarray, variance: np.ndarray, left_power: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance (post, pre) of W among the recorded neurons, from those of M K^T / N as if all were.

        Args:
            left_power: (post,) E |M_n|².
        """
        if not self.model.hidden_neurons:
            return mean, variance
        share = self._recorded_share
        scale, spread, population = self._apart_scale
        apart = (scale * np.exp(spread**2))[population]
        num_neurons = self.recording.num_neurons / share
        return share * mean, share**2 * variance + np.outer(left_power, apart**2) / num_neurons**2

    @property
    def unseen_variance(self) -> np.ndarray:
        """(neuron,) variance of G (I - Q Q^T), the unseen part of a random bulk, in every row of a column of W."""
        if self.subspace is None:
            return np.zeros(self.recording.num_neurons)
        return self.unseen_scale**2 * np.maximum(1.0 - np.sum(self.subspace**2, axis=1), 0.0)

    @property
    def unseen_scale(self) -> float:
        """Root mean square of the entries of G of a random bulk, over all values that its gain may have."""
        gain, spread = self._gain
        return float(gain * np.exp(spread**2) / np.sqrt(self.recording.num_neurons))

    def _sample_moments(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the seen part of W over draws (draw, coordinate)."""
        seen = None if isinstance(self.model.background, FixedBackground) else self.model.background
        W = connectivity_draws(self.named(z), seen, self_connections=self.model.self_connections)
        mean, square = np.zeros((W.num_neurons, W.num_neurons)), np.zeros((W.num_neurons, W.num_neurons))
        for draw in range(W.num_draws):
            each = W.dense(draw)
            change = each - mean
            mean += change / (draw + 1)
            square += change * (each - mean)
        power = np.mean(np.sum(self.space.unwhiten(z)["M"] ** 2, axis=2), axis=0)
        return self._among_recorded(mean, square / max(W.num_draws - 1, 1), power)

    def _mixture_moments(self, distribution: ParameterDistribution) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of W over all Normal components: the variance within them and that of their means."""
        mean, square = np.zeros((2, self.recording.num_neurons, self.recording.num_neurons))
        seen = 0.0
        for weight, component in normals(distribution):
            own_mean, own_variance = self._normal_moments(component)
            seen += weight
            change = own_mean - mean
            mean = mean + change * weight / seen
            square = square + weight * (own_variance + change * (own_mean - mean))
        return mean, square

    def _normal_moments(self, normal: NormalDistribution) -> tuple[np.ndarray, np.ndarray]:
        """Exact mean and variance of L_i . R_j / N for jointly Normal factors (Isserlis' theorem).

        L = (M, A) and R = (K, N Q), of which N Q is fixed. With covariances S between the entries of L_i and K_j,
        mean = L_i . R_j + tr S_MK,
        variance = R_j' S_LL R_j + M_i' S_KK M_i + 2 R_j' S_LK M_i + tr(S_MM S_KK) + tr(S_MK S_MK).
        A regression of K enters to first order.
        """
        num_neurons, rank = self.recording.num_neurons, self.model.rank
        location = self._network_space.unwhiten(normal.location)
        changes = self._network_space.differential(normal.location, normal.scale.T)
        M, left, right = location["M"], location["M"], location["K"]
        root_left, root_K = np.moveaxis(changes["M"], 0, -1), np.moveaxis(changes["K"], 0, -1)
        if self.subspace is not None:
            left = np.concatenate([left, location["A"]], axis=1)
            right = np.concatenate([right, num_neurons * self.subspace], axis=1)
            root_left = np.concatenate([root_left, np.moveaxis(changes["A"], 0, -1)], axis=1)
        S_LL = np.einsum("nrq,nsq->nrs", root_left, root_left, optimize=True)
        S_KK = np.einsum("nrq,nsq->nrs", root_K, root_K, optimize=True)
        S_LK = np.reshape(
            root_left.reshape(left.size, -1) @ root_K.reshape(M.size, -1).T, (num_neurons, -1, num_neurons, rank)
        )
        S_MM, S_MK = S_LL[:, :rank, :rank], S_LK[:, :rank]
        mean = left @ right.T + np.einsum("irjr->ij", S_MK)
        variance = (
            np.einsum("irs,jr,js->ij", S_LL, right, right, optimize=True)
            + np.einsum("jrs,ir,is->ij", S_KK, M, M, optimize=True)
            + 2.0 * np.einsum("jr,irjs,is->ij", right, S_LK, M, optimize=True)
            + np.einsum("irs,jrs->ij", S_MM, S_KK, optimize=True)
            + np.einsum("irjs,isjr->ij", S_MK, S_MK, optimize=True)
        )
        power = np.sum(M**2, axis=1) + np.einsum("irr->i", S_MM)
        return self._among_recorded(mean / num_neurons, variance / num_neurons**2, power)

    def connectivity_interval(
        self, probability: float = 0.9, *, num_draws: int = 400, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Central credible interval of every synapse from draws, (lower, upper), each (post, pre).

        Raises:
            ValueError: if probability is not between 0 and 1, the draws would not fit into memory, or these are point
                estimates.
        """
        require_uncertainty(self)
        tail = 0.5 * (1.0 - require_probability(probability, "probability"))
        num_entries = require_integer(num_draws, "num_draws", minimum=1) * self.recording.num_neurons**2
        require_memory(num_entries, "num_draws", MAX_GIGABYTES, "ask for fewer draws, or use connectivity_sd")
        dense = self.sample_connectivity(num_draws, seed=seed).to_dense(MAX_GIGABYTES)
        lower, upper = np.quantile(dense, [tail, 1.0 - tail], axis=0)
        return lower, upper

    def time_constant_interval(
        self, probability: float = 0.9, *, num_draws: int = 400, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Central credible interval of every time constant in seconds from draws, (lower, upper).

        Each is of the shape of `mode["time_constant"]`: () where it is one for all neurons, else (population,) in the
        order in which the model names the cell types, or (neuron,). Ends of one that is fixed are the same.

        Raises:
            ValueError: if probability is not between 0 and 1, a sampled posterior has fewer draws, or these are point
                estimates.
        """
        require_uncertainty(self)
        tail = 0.5 * (1.0 - require_probability(probability, "probability"))
        draws = self.sample_parameters(num_draws, seed=seed)["time_constant"]
        lower, upper = np.quantile(draws, [tail, 1.0 - tail], axis=0)
        return lower, upper

    def integration_constant_interval(
        self, probability: float = 0.9, *, num_draws: int = 400, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """That of a = dt / time constant, between 0 and 1, (lower, upper); see `time_constant_interval`."""
        lower, upper = self.time_constant_interval(probability, num_draws=num_draws, seed=seed)
        return self.recording.dt / upper, self.recording.dt / lower

    def eigenvalues(self, num_draws: int = 400, *, seed: int) -> np.ndarray:
        """Posterior draws of the eigenvalues of W, (draw, eigenvalue) complex, by decreasing magnitude.

        With hidden neurons they are those of all of W, and not of the part of it among the recorded neurons.
        """
        return self.eigenvalues_of(self.sample_parameters(num_draws, seed=seed))

    def eigenvalues_of(self, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Those of `eigenvalues`, of named draws of the parameters."""
        whole = {name: value for name, value in draws.items() if name != K_RECORDED}
        W = connectivity_draws(whole, self.model.background, self_connections=self.model.self_connections)
        return W.eigenvalues()

    def effective_rank(self, num_draws: int = 400, *, seed: int) -> np.ndarray:
        """Posterior draws (draw,) of the effective rank of W; see `LowRankConnectivity.effective_rank`."""
        return self.sample_connectivity(num_draws, seed=seed).effective_rank()

    def predict_rates(
        self, inputs: Any = None, *, stimulation: Any = None, num_draws: int = 100, seed: int
    ) -> np.ndarray:
        """Posterior draws of the noise-free rates (draw, trial, time, neuron).

        Args:
            inputs: (trial, time, input) inputs of new trials, in the units of the recording's; None repeats the
                recording's own trials.
            stimulation: (trial, time, neuron) known drive in units of current, or None. With `inputs=None` the
                recording's own stimulation is kept where this is None.
            num_draws: number of draws.
            seed: seed of the draws.

        With a free initial state, new trials (those of given inputs) start from the mean of the fitted trials' initial
        latents.

        Raises:
            ValueError: if a shape does not fit, or the result would exceed 4 GB.
        """
        trials = self.trials_like(inputs, stimulation)
        num_entries = require_integer(num_draws, "num_draws", minimum=1) * trials.activity.size
        require_memory(num_entries, "num_draws", MAX_GIGABYTES, "ask for fewer draws or trials at a time")
        draws = self.sample_parameters(num_draws, seed=seed)
        return self._simulate(draws, trials, are_new=inputs is not None)

    def mode_rates(self, inputs: Any = None, *, stimulation: Any = None) -> np.ndarray:
        """Noise-free rates (trial, time, neuron) at the mode; arguments as in `predict_rates`."""
        mode = {name: value[None] for name, value in self.mode.items()}
        return self._simulate(mode, self.trials_like(inputs, stimulation), are_new=inputs is not None)[0]

    def _simulate(self, draws: dict[str, np.ndarray], trials: Recording, *, are_new: bool) -> np.ndarray:
        if are_new and "initial_kappa" in draws:
            draws = draws | {"initial_kappa": draws["initial_kappa"].mean(axis=1, keepdims=True)}
        return simulate_draws(self.model, draws, trials, quantity="rate")

    def trials_like(self, inputs: Any = None, stimulation: Any = None) -> Recording:
        """A recording that carries these inputs and stimulation, to simulate trials of (its activity is zero).

        Raises:
            ValueError: if a shape does not fit the recording.
        """
        recording = self.recording
        if inputs is None:
            inputs = recording.inputs
            stimulation = recording.stimulation if stimulation is None else stimulation
        array = as_array(inputs, "inputs", ("trial", "time", "input"), may_be_empty=("input",))
        require_shape(array, "inputs", {"trial": None, "time": None, "input": recording.num_inputs})
        shape = {"trial": array.shape[0], "time": array.shape[1], "neuron": recording.num_neurons}
        if stimulation is not None:
            stimulation = as_array(stimulation, "stimulation", tuple(shape))
            require_shape(stimulation, "stimulation", shape)
        return Recording(np.zeros(tuple(shape.values())), recording.dt, inputs=array, stimulation=stimulation)

    def to_arviz(self, num_draws: int | None = None, *, seed: int, connectivity: bool = True) -> DataTree:
        """The posterior as an ArviZ `DataTree`; see `lrposterior.arviz_bridge.to_arviz`."""
        from lrposterior.arviz_bridge import to_arviz

        return to_arviz(self, num_draws, seed=seed, connectivity=connectivity)

    def save(self, path: str | Path) -> None:
        """Write the posterior to a NetCDF file (``.nc``), all or nothing; see `lrposterior.storage`."""
        from lrposterior.storage import save_posterior

        save_posterior(self, path)

    @staticmethod
    def load(path: str | Path) -> Posterior:
        """Read a posterior that `save` wrote; another name of `load_posterior`."""
        from lrposterior.storage import load_posterior

        return load_posterior(path)

    def __repr__(self) -> str:
        recording, statistics = self.recording, self.statistics
        evidence = "none" if statistics.log_evidence is None else f"{statistics.log_evidence:.1f} nats"
        return (
            f"Posterior({self.method}, {self.status}: rank {self.model.rank}, {recording.num_neurons} neurons, "
            f"{recording.num_trials} trials x {recording.num_bins} bins, log evidence {evidence})"
        )

    def __str__(self) -> str:
        lines = [repr(self)]
        if self.caveat:
            lines.append(f"beware: {self.caveat}")
        lines += [f"beware: {warning}" for warning in self.warnings]
        if self.statistics.scales:
            lines.append("inferred prior scales: " + ", ".join(map(describe_scale, self.statistics.scales.items())))
        if self.statistics.regression_ahead is not None:
            lines.append(f"loadings: {describe_loadings(self.statistics.regression_ahead)}")
        if self.model.time_constants.inferred:
            lines.append(f"inferred time constants: {describe_time_constants(self)}")
        if self.explained_parts is not None:
            lines.append(str(self.explained_parts))
            lines += [f"beware: {self.explained_parts.warning}"] if self.explained_parts.warning else []
        return "\n".join(lines)


def describe_scale(scale: tuple[str, tuple[float, float]]) -> str:
    """A name with (value, standard deviation of its logarithm) as text: the value and its 90% interval."""
    name, (value, spread) = scale
    factor = np.exp(NORMAL_90 * spread)
    return f"{name} {value:.3g} ({value / factor:.3g} to {value * factor:.3g})"


def describe_loadings(regression_ahead: float) -> str:
    """What the evidence decided about the right factors, as text."""
    has_regression = regression_ahead > 0.0
    chosen, other = ("depends on", "independent") if has_regression else ("independent of", "their regression")
    if np.isinf(regression_ahead):
        return f"K {chosen} M, B and b ({other} has no posterior)"
    return f"K {chosen} M, B and b ({abs(regression_ahead):.1f} nats above {other})"


def typical_time_constant_interval(posterior: Posterior) -> tuple[np.ndarray, np.ndarray] | None:
    """That of `Posterior.time_constant_interval` with the seed 0; None of fixed ones and of point estimates."""
    if posterior.is_point_estimate or not posterior.model.time_constants.inferred:
        return None
    distribution, most = posterior.distribution, NUM_INTERVAL_DRAWS
    if isinstance(distribution, SampleDistribution):
        most = min(most, distribution.draws[..., 0].size)
    return posterior.time_constant_interval(num_draws=most, seed=0)


def describe_time_constants(posterior: Posterior) -> str:
    """Time constants that were inferred as text, and a = dt / tau, each with its 90% interval where there is one.

    Of time constants for single neurons their range, and the median width of the intervals.
    """
    model, dt, interval = posterior.model, posterior.recording.dt, typical_time_constant_interval(posterior)
    inferred = model.time_constants.inferred
    values = np.atleast_1d(posterior.mode["time_constant"])[inferred]
    ends = None if interval is None else np.stack([np.atleast_1d(each)[inferred] for each in interval], axis=1)
    if isinstance(model.time_constant, PerNeuron):
        shortest, longest = values.min(), values.max()
        text = (
            f"{len(inferred)} of {posterior.recording.num_neurons} neurons, {shortest:.3g} to {longest:.3g} s, "
            f"a = dt / tau {dt / longest:.3g} to {dt / shortest:.3g}"
        )
        return text if ends is None else f"{text}; 90% intervals {np.median(np.ptp(ends, axis=1)):.3g} s wide (median)"
    names = [f"{name} " for name in model.time_constant] if isinstance(model.time_constant, ByCellType) else [""]
    said = []
    for place, index in enumerate(inferred):
        tau, a = f"{values[place]:.3g} s", f"{dt / values[place]:.3g}"
        if ends is not None:
            lower, upper = ends[place]
            tau, a = f"{tau} ({lower:.3g} to {upper:.3g})", f"{a} ({dt / upper:.3g} to {dt / lower:.3g})"
        said.append(f"{names[index]}{tau}, a = dt / tau {a}")
    return "; ".join(said)
