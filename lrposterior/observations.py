"""What of a network is recorded, and with what noise."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior import negative_binomial
from lrposterior.checks import argument_error, require_choice, require_positive
from lrposterior.network import NONLINEARITIES
from lrposterior.parameters import RIGHT_SCALE, Block

# Names of the parameters (neuron,) in coordinates; RATE_SCALE and BASELINE may be those of the network, ().
NOISE, RATE_SCALE, BASELINE, DISPERSION = "log_noise_scale", "log_rate_scale", "log_baseline", "log_dispersion"
DECAY_TIME = "log_decay_time"
# And those (neuron, session) of `lrposterior.drift`.
SESSION_OFFSET, SESSION_SCALE = "session_offset", "log_session_scale"
# What users see in their place, the exponential.
PUBLIC_NAMES = {
    NOISE: "noise_scale",
    RATE_SCALE: "rate_scale",
    BASELINE: "baseline",
    DISPERSION: "dispersion",
    DECAY_TIME: "decay_time",
    SESSION_SCALE: "session_scale",
    RIGHT_SCALE: "K_scale",
}
# Those that act on what is seen of a neuron's current, in the order of `Emission.slopes`.
OWN = (RATE_SCALE, BASELINE, DISPERSION, DECAY_TIME, SESSION_OFFSET, SESSION_SCALE)


@dataclass(frozen=True)
class GaussianObservation:
    """Activity = rate (or current) + independent Gaussian noise with a variance of its own for every neuron.

        y[t, n] ~ Normal(r[t, n], noise_scale[n]²)     of="rate"
        y[t, n] ~ Normal(x[t, n], noise_scale[n]²)     of="current"

    Args:
        of: "rate" (for example smoothed spike rates, in spikes/s) or "current".
    """

    of: Literal["rate", "current"] = "rate"

    def __post_init__(self) -> None:
        require_choice(self.of, "of", ("rate", "current"))

    def mean(self, current: Array, nonlinearity: str) -> Array:
        """Noise-free activity at a current, same shape."""
        return NONLINEARITIES[nonlinearity].rate(current) if self.of == "rate" else current

    def sensitivity(self, current: Array, nonlinearity: str) -> Array:
        """Derivative of `mean` with respect to the current, same shape."""
        return NONLINEARITIES[nonlinearity].slope(current) if self.of == "rate" else jnp.ones_like(current)

    def blocks(self, num_neurons: int, noise_median: float, noise_spread: float) -> tuple[list[Block], list[Block]]:
        """Parameters that act on what is seen of the currents (none), and those of the noise alone."""
        return [], [Block(NOISE, (num_neurons,), noise_median, noise_spread)]

    def emission(
        self, parameters: Mapping[str, Array], nonlinearity: str, dt: Array | float, before: Array | None = None
    ) -> Emission:
        """What is seen of currents, at parameters in coordinates."""
        return GaussianEmission(parameters[NOISE], self, nonlinearity)


@dataclass(frozen=True)
class CalciumObservation:
    """Activity = fluorescence of a calcium indicator, which follows the rate and decays, with noise in every step.

        y[t, n] ~ Normal(gamma[n] y[t-1, n] + (1 - gamma[n]) r[t, n], noise_scale[n]²)
        gamma[n] = exp(-dt / decay_time[n]),      r = phi(x) of the network

    The unit is that of the rates: where a rate stays, the fluorescence goes to it. The noise is that of what a step
    adds, and lasts as long as calcium does; of y[t] given y[t-1] it is all there is, so that this density is exact and
    nothing is deconvolved. A bin is a datum where its own fluorescence and that of the bin before were observed; the
    first bin of a trial, and one whose predecessor is masked, are known and say nothing. As decay_time goes to 0 it is
    `GaussianObservation` of rates. In a simulation the first bin of a trial is the rate in it, with noise.

    Args:
        decay_time: prior median of decay_time, in s, the time in which fluorescence falls to 1 / e: a property of the
            indicator.
        decay_spread: standard deviation of its natural logarithm.

    Raises:
        ValueError: if an argument is not positive.
    """

    decay_time: float
    decay_spread: float = 0.3

    def __post_init__(self) -> None:
        object.__setattr__(self, "decay_time", require_positive(self.decay_time, "observation.decay_time", "s"))
        object.__setattr__(self, "decay_spread", require_positive(self.decay_spread, "observation.decay_spread"))

    @property
    def of(self) -> Literal["calcium"]:
        """What is recorded."""
        return "calcium"

    def blocks(self, num_neurons: int, noise_median: float, noise_spread: float) -> tuple[list[Block], list[Block]]:
        """Parameters that act on what is seen of the currents, and those of the noise alone."""
        decay_time = Block(DECAY_TIME, (num_neurons,), math.log(self.decay_time), self.decay_spread)
        return [decay_time], [Block(NOISE, (num_neurons,), noise_median, noise_spread)]

    def emission(
        self, parameters: Mapping[str, Array], nonlinearity: str, dt: Array | float, before: Array | None = None
    ) -> Emission:
        """What is seen of currents, at parameters in coordinates."""
        return CalciumEmission(parameters[NOISE], nonlinearity, parameters[DECAY_TIME], dt, before)


@dataclass(frozen=True)
class ScaledObservation:
    """What observations in spikes, or spikes/s, have in common: how the mean follows from the current."""

    scale: float | None = None
    scale_spread: float = 0.5
    baseline: float = 0.1
    baseline_spread: float = 1.0
    per: Literal["neuron", "network"] = dataclasses.field(default="neuron", kw_only=True)

    def __post_init__(self) -> None:
        require_choice(self.per, "observation.per", ("neuron", "network"))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and field.name != "per":
                object.__setattr__(self, field.name, require_positive(value, f"observation.{field.name}"))

    def settled(self, mean_rate: float) -> Self:
        """With the scale that the mean rate of a recording, in spikes/s, suggests.

        Raises:
            ValueError: if there is no spike, and no scale.
        """
        if self.scale is not None:
            return self
        if mean_rate <= 0.0:
            raise argument_error(
                "activity", "spikes: a mean rate above 0", f"a mean of {mean_rate:g} spikes/s", "check the export"
            )
        return dataclasses.replace(self, scale=mean_rate)

    def _of_rate(self, num_neurons: int) -> list[Block]:
        """The parameters of the rate of spikes: of every neuron, or () of the network."""
        scale, shape = require_settled(self.scale), (num_neurons,) if self.per == "neuron" else ()
        return [
            Block(RATE_SCALE, shape, math.log(scale), self.scale_spread),
            Block(BASELINE, shape, math.log(self.baseline), self.baseline_spread),
        ]


@dataclass(frozen=True)
class CountObservation(ScaledObservation):
    """What observations of numbers of spikes have in common."""

    @property
    def of(self) -> Literal["count"]:
        """What is recorded."""
        return "count"


@dataclass(frozen=True)
class SpikeRateObservation(ScaledObservation):
    """Activity = rate of spikes, in spikes/s, with independent Gaussian noise: counts that were smoothed, for example.

        y[t, n] ~ Normal(rate[t, n], noise_scale[n]²),      rate = rate_scale[n] softplus(x[t, n]) + baseline[n]

    The rate is that of `PoissonObservation`, and so are scale and baseline. Smoothing makes noise last
    from bin to bin, which this density does not know; where the counts are at hand, they say more.

    Args:
        scale, scale_spread, baseline, baseline_spread, per: as for `PoissonObservation`. The prior median of
            noise_scale is `Priors.noise_scale` times this scale.

    Raises:
        ValueError: if an argument is not positive.
    """

    @property
    def of(self) -> Literal["spike rate"]:
        """What is recorded."""
        return "spike rate"

    def blocks(self, num_neurons: int, noise_median: float, noise_spread: float) -> tuple[list[Block], list[Block]]:
        """Parameters that act on what is seen of the currents, and those of the noise alone."""
        noise = Block(NOISE, (num_neurons,), noise_median + math.log(require_settled(self.scale)), noise_spread)
        return self._of_rate(num_neurons), [noise]

    def emission(
        self, parameters: Mapping[str, Array], nonlinearity: str, dt: Array | float, before: Array | None = None
    ) -> Emission:
        """What is seen of currents, at parameters in coordinates."""
        rate = PoissonEmission(parameters[RATE_SCALE], parameters[BASELINE], 1.0)
        return SpikeRateEmission(parameters[NOISE], rate)


@dataclass(frozen=True)
class PoissonObservation(CountObservation):
    """Activity = number of spikes in a bin.

        y[t, n] ~ Poisson(dt rate[t, n]),      rate = rate_scale[n] softplus(x[t, n]) + baseline[n]     (spikes/s)

    The rate of spikes is a function of its own of the current: the rates r = phi(x) that drive the network may be those
    of any nonlinearity. Scale and baseline are inferred, those of every neuron or one of each for the network, with
    log-normal priors; at low rates softplus is nearly exponential, and the scale is told from the bias by its prior
    alone.

    Args:
        scale: prior median of rate_scale, in spikes/s; None takes the mean rate of the recording.
        scale_spread: standard deviation of its natural logarithm.
        baseline: prior median of the rate that is there at any current, in spikes/s. It keeps a spike in a silent bin
            possible.
        baseline_spread: standard deviation of its natural logarithm.
        per: "neuron", or "network" for a scale and a baseline, each (), that all neurons share.

    Raises:
        ValueError: if an argument is not positive, or per is neither.
    """

    distribution: ClassVar[str] = "Poisson"

    def blocks(self, num_neurons: int, noise_median: float, noise_spread: float) -> tuple[list[Block], list[Block]]:
        """Parameters that act on what is seen of the currents, and those of the noise alone (none)."""
        return self._of_rate(num_neurons), []

    def emission(
        self, parameters: Mapping[str, Array], nonlinearity: str, dt: Array | float, before: Array | None = None
    ) -> Emission:
        """What is seen of currents, at parameters in coordinates."""
        return PoissonEmission(parameters[RATE_SCALE], parameters[BASELINE], dt)


@dataclass(frozen=True)
class NegativeBinomialObservation(CountObservation):
    """Activity = number of spikes in a bin, where every neuron varies more than a Poisson number does.

        y[t, n] ~ NegativeBinomial(mean = mu, variance = mu + dispersion[n] mu²),      mu = dt rate[t, n]
        rate    = rate_scale[n] softplus(x[t, n]) + baseline[n]     (spikes/s)

    The rate is that of `PoissonObservation`, multiplied in every bin by a Gamma variable of mean 1 and variance
    dispersion, the variance of the gain of Goris et al. (2014, doi:10.1038/nn.3711). It is independent from bin to bin
    and from neuron to neuron; what is shared by neurons, or lasts, is process noise. As dispersion goes to 0 the counts
    are Poisson.

    Args:
        scale, scale_spread, baseline, baseline_spread, per: as for `PoissonObservation`.
        dispersion: prior median of dispersion, without unit.
        dispersion_spread: standard deviation of its natural logarithm. By default 90% of the prior lie between 0.02 and
            0.5: at a mean of one spike, a variance between 1.02 and 1.5 times the mean.

    Raises:
        ValueError: if an argument is not positive.
    """

    dispersion: float = 0.1
    dispersion_spread: float = 1.0

    distribution: ClassVar[str] = "negative binomial"

    def blocks(self, num_neurons: int, noise_median: float, noise_spread: float) -> tuple[list[Block], list[Block]]:
        """Parameters that act on what is seen of the currents, and those of the noise alone (none)."""
        dispersion = Block(DISPERSION, (num_neurons,), math.log(self.dispersion), self.dispersion_spread)
        return [*self._of_rate(num_neurons), dispersion], []

    def emission(
        self, parameters: Mapping[str, Array], nonlinearity: str, dt: Array | float, before: Array | None = None
    ) -> Emission:
        """What is seen of currents, at parameters in coordinates."""
        poisson = PoissonEmission(parameters[RATE_SCALE], parameters[BASELINE], dt)
        return NegativeBinomialEmission(poisson, parameters[DISPERSION])


Observation = (
    GaussianObservation | SpikeRateObservation | PoissonObservation | NegativeBinomialObservation | CalciumObservation
)


def require_settled(scale: float | None) -> float:
    """The scale of counts.

    Raises:
        ValueError: if it is not settled.
    """
    if scale is None:
        raise ValueError("observation: expected a scale; settle the model with for_recording(recording)")
    return scale


def bins_before(values: np.ndarray) -> np.ndarray:
    """Values (trial, time, neuron) of the bin before; 0, or False, in the first."""
    return np.concatenate([np.zeros_like(values[:, :1]), values[:, :-1]], axis=1)


def require_rates_or_currents(observation: Observation, argument: str, mend: str) -> None:
    """Refuse a fit of what is not Gaussian about rates or currents.

    Raises:
        ValueError: if it is one of counts, spike rates or calcium.
    """
    if not isinstance(observation, GaussianObservation):
        got = {"count": "one of counts", "spike rate": "one of spike rates", "calcium": "one of calcium"}
        raise argument_error(argument, "a fit of rates or currents", got[observation.of], mend)


class Emission(Protocol):
    """What is seen of currents (..., neuron), at given parameters; each method returns an array of that shape."""

    def mean(self, current: Array) -> Array:
        """Expected activity."""
        ...

    def variance(self, current: Array) -> Array:
        """Variance of the activity."""
        ...

    def sensitivity(self, current: Array) -> Array:
        """Derivative of the mean with respect to the current."""
        ...

    def sample(self, random: np.random.Generator, current: Array) -> np.ndarray:
        """Activity with noise, at currents (..., time, neuron)."""
        ...

    def log_likelihood(self, activity: Array, mask: Array, current: Array) -> Array:
        """Log density of each observation; 0 where the mask is False."""
        ...

    def score(self, activity: Array, mask: Array, current: Array) -> Array:
        """Its derivative with respect to the current."""
        ...

    def weights(self, mask: Array, current: Array) -> Array:
        """Expected information about the current, 0 where masked."""
        ...

    def slopes(self, current: Array) -> Array:
        """(..., neuron, parameter) derivatives of the mean with respect to the neuron's parameters of `OWN`."""
        ...

    def own_information(self, mask: Array, current: Array) -> Array:
        """(..., neuron, parameter) expected information about these beyond that of the mean; 0 where masked.

        It is 0 jointly with the mean, and between two of them.
        """
        ...


@dataclass(frozen=True)
class NormalEmission(abc.ABC):
    """What `Emission`s with Gaussian noise have in common, whatever their mean.

    The expected information about log_noise_scale is 2 for every observation, and 0 jointly with the mean.
    """

    log_noise_scale: Array

    @abc.abstractmethod
    def mean(self, current: Array) -> Array: ...

    @abc.abstractmethod
    def sensitivity(self, current: Array) -> Array: ...

    @abc.abstractmethod
    def slopes(self, current: Array) -> Array: ...

    def variance(self, current: Array) -> Array:
        return jnp.exp(2.0 * self._log_scale(current))

    def _log_scale(self, current: Array) -> Array:
        return jnp.broadcast_to(self.log_noise_scale, current.shape)

    def _noise(self, random: np.random.Generator, current: Array) -> np.ndarray:
        return np.asarray(jnp.exp(self._log_scale(current))) * random.standard_normal(current.shape)

    def log_likelihood(self, activity: Array, mask: Array, current: Array) -> Array:
        log_scale = self._log_scale(current)
        residual = (activity - self.mean(current)) * jnp.exp(-log_scale)
        log_density = -0.5 * residual**2 - log_scale - 0.5 * jnp.log(2.0 * jnp.pi)
        return jnp.where(mask, log_density, 0.0)

    def score(self, activity: Array, mask: Array, current: Array) -> Array:
        residual = (activity - self.mean(current)) / self.variance(current)
        return jnp.where(mask, residual * self.sensitivity(current), 0.0)

    def weights(self, mask: Array, current: Array) -> Array:
        information = (self.sensitivity(current) * jnp.exp(-self._log_scale(current))) ** 2
        return jnp.where(mask, information, 0.0)

    def own_information(self, mask: Array, current: Array) -> Array:
        return jnp.zeros_like(self.slopes(current))


@dataclass(frozen=True)
class GaussianEmission(NormalEmission):
    """`Emission` of a `GaussianObservation`."""

    observation: GaussianObservation
    nonlinearity: str

    def mean(self, current: Array) -> Array:
        return self.observation.mean(current, self.nonlinearity)

    def sensitivity(self, current: Array) -> Array:
        return self.observation.sensitivity(current, self.nonlinearity)

    def slopes(self, current: Array) -> Array:
        return jnp.zeros((*current.shape, 0), current.dtype)

    def sample(self, random: np.random.Generator, current: Array) -> np.ndarray:
        return np.asarray(self.mean(current)) + self._noise(random, current)


@dataclass(frozen=True)
class CalciumEmission(NormalEmission):
    """`Emission` of a `CalciumObservation` in bins whose predecessors have the fluorescence `before`.

    Without it, it gives samples alone.
    """

    nonlinearity: str
    log_decay_time: Array
    dt: Array | float
    before: Array | None

    def mean(self, current: Array) -> Array:
        kept = self._kept(current)
        return kept * cast(Array, self.before) + (1.0 - kept) * self._rate(current)

    def sensitivity(self, current: Array) -> Array:
        return (1.0 - self._kept(current)) * NONLINEARITIES[self.nonlinearity].slope(current)

    def slopes(self, current: Array) -> Array:
        bins = self.dt * jnp.exp(-self.log_decay_time)
        return (self._kept(current) * bins * (cast(Array, self.before) - self._rate(current)))[..., None]

    def sample(self, random: np.random.Generator, current: Array) -> np.ndarray:
        kept, rate = np.asarray(self._kept(current)), np.asarray(self._rate(current))
        activity = self._noise(random, current)
        activity[..., 0, :] += rate[..., 0, :]
        for time in range(1, activity.shape[-2]):
            now = ..., time, slice(None)
            activity[now] += kept[now] * activity[..., time - 1, :] + (1.0 - kept[now]) * rate[now]
        return activity

    def _kept(self, current: Array) -> Array:
        """gamma, the part of the fluorescence that a bin leaves."""
        return jnp.broadcast_to(jnp.exp(-self.dt * jnp.exp(-self.log_decay_time)), current.shape)

    def _rate(self, current: Array) -> Array:
        return NONLINEARITIES[self.nonlinearity].rate(current)


@dataclass(frozen=True)
class PoissonEmission:
    """`Emission` of a `PoissonObservation`."""

    log_rate_scale: Array
    log_baseline: Array
    dt: Array | float

    def mean(self, current: Array) -> Array:
        return self._scale(current) * jax.nn.softplus(current) + self._baseline(current)

    def _scale(self, current: Array) -> Array:
        """Spikes per bin."""
        return jnp.broadcast_to(self.dt * jnp.exp(self.log_rate_scale), current.shape)

    def _baseline(self, current: Array) -> Array:
        return jnp.broadcast_to(self.dt * jnp.exp(self.log_baseline), current.shape)

    def variance(self, current: Array) -> Array:
        return self.mean(current)

    def sensitivity(self, current: Array) -> Array:
        return self._scale(current) * jax.nn.sigmoid(current)

    def sample(self, random: np.random.Generator, current: Array) -> np.ndarray:
        return random.poisson(np.asarray(self.mean(current))).astype(np.float64)

    def log_likelihood(self, activity: Array, mask: Array, current: Array) -> Array:
        mean = self.mean(current)
        log_density = activity * jnp.log(mean) - mean - jax.scipy.special.gammaln(activity + 1.0)
        return jnp.where(mask, log_density, 0.0)

    def score(self, activity: Array, mask: Array, current: Array) -> Array:
        return jnp.where(mask, (activity / self.mean(current) - 1.0) * self.sensitivity(current), 0.0)

    def weights(self, mask: Array, current: Array) -> Array:
        return jnp.where(mask, self.sensitivity(current) ** 2 / self.mean(current), 0.0)

    def slopes(self, current: Array) -> Array:
        return jnp.stack([self._scale(current) * jax.nn.softplus(current), self._baseline(current)], axis=-1)

    def own_information(self, mask: Array, current: Array) -> Array:
        return jnp.zeros_like(self.slopes(current))


@dataclass(frozen=True)
class SpikeRateEmission(NormalEmission):
    """`Emission` of a `SpikeRateObservation`, whose mean is that of Poisson counts in a bin of 1 s."""

    rate: PoissonEmission

    def mean(self, current: Array) -> Array:
        return self.rate.mean(current)

    def sensitivity(self, current: Array) -> Array:
        return self.rate.sensitivity(current)

    def slopes(self, current: Array) -> Array:
        return self.rate.slopes(current)

    def sample(self, random: np.random.Generator, current: Array) -> np.ndarray:
        return np.asarray(self.mean(current)) + self._noise(random, current)


@dataclass(frozen=True)
class NegativeBinomialEmission:
    """`Emission` of a `NegativeBinomialObservation`, whose mean is that of Poisson counts."""

    poisson: PoissonEmission
    log_dispersion: Array

    def mean(self, current: Array) -> Array:
        return self.poisson.mean(current)

    def variance(self, current: Array) -> Array:
        return self.mean(current) * self._excess(current)

    def _excess(self, current: Array) -> Array:
        """Variance over mean, 1 + dispersion mean."""
        return 1.0 + self._dispersion(current) * self.mean(current)

    def _dispersion(self, current: Array) -> Array:
        return jnp.broadcast_to(jnp.exp(self.log_dispersion), current.shape)

    def sensitivity(self, current: Array) -> Array:
        return self.poisson.sensitivity(current)

    def sample(self, random: np.random.Generator, current: Array) -> np.ndarray:
        dispersion = np.asarray(self._dispersion(current))
        mean = np.asarray(self.mean(current)) * random.gamma(1.0 / dispersion, dispersion)
        return random.poisson(mean).astype(np.float64)

    def log_likelihood(self, activity: Array, mask: Array, current: Array) -> Array:
        log_density = negative_binomial.log_density(activity, self.mean(current), self._dispersion(current))
        return jnp.where(mask, log_density, 0.0)

    def score(self, activity: Array, mask: Array, current: Array) -> Array:
        return self.poisson.score(activity, mask, current) / self._excess(current)

    def weights(self, mask: Array, current: Array) -> Array:
        return self.poisson.weights(mask, current) / self._excess(current)

    def slopes(self, current: Array) -> Array:
        return jnp.concatenate([self.poisson.slopes(current), jnp.zeros((*current.shape, 1), current.dtype)], axis=-1)

    def own_information(self, mask: Array, current: Array) -> Array:
        of_dispersion = negative_binomial.dispersion_information(self.mean(current), self._dispersion(current))
        of_rate = self.poisson.own_information(mask, current)
        return jnp.concatenate([of_rate, jnp.where(mask, of_dispersion, 0.0)[..., None]], axis=-1)
