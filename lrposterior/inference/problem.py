"""One model on one recording: what every fitting method works on."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.background import RandomBulk
from lrposterior.curvature import (
    automatic_information,
    information_of_sums,
    observation_noise_information,
    trial_sums,
)
from lrposterior.data import Data
from lrposterior.fit_error import FitError
from lrposterior.gauge import canonical
from lrposterior.inference.covariance import Covariance, DenseCovariance
from lrposterior.likelihood import log_likelihood
from lrposterior.model import LowRankModel
from lrposterior.observations import PUBLIC_NAMES, SESSION_OFFSET
from lrposterior.orbit import (
    balancing_gauge,
    move,
    prior_moments,
    settle_trades,
    tilt_across,
    vertical_basis,
)
from lrposterior.parameters import ParameterSpace
from lrposterior.precision import double_precision
from lrposterior.priors import ScalePrior
from lrposterior.quasi_newton import descend
from lrposterior.recording import Recording

# Noise scales below this part of the unit count as zero.
SMALLEST_NOISE = 1e-6
STEP_LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.03)
# Gauge and trades are settled in turns, until the gauge moves by less than this.
MAX_SETTLING, SETTLED = 100, 1e-7
# Points that are evaluated together, fewer where there are many trials: beyond that it takes longer, not less.
MOST_POINTS_AT_ONCE, TRIALS_AT_ONCE = 16, 400
# With so many trials points are evaluated one by one: together they would take no less time, and compiling besides.
# Trials are then shared out among the cores, as what goes from bin to bin keeps one of them busy.
MANY_TRIALS = 100
# Fisher scoring of the noise ends where so many nats are expected, far below what counts for a mode, or after a few
# steps: it goes on with the next step of the dynamics.
MAX_SCORING_STEPS, NOISE_DECREMENT = 2, 1e-8
# With process noise, a step that gains less than this part of what was expected is followed by so many of quasi-Newton
# at most, which learn how the curvature differs from that of Gauss-Newton.
EXPECTED_PART, MAX_QUASI_NEWTON = 0.5, 60
# Blocks with a row for every neuron.
PER_NEURON = ("M", "K", "A", "B", "b", SESSION_OFFSET, *PUBLIC_NAMES)


class AnyProblem(Protocol):
    """What `balance` and the Laplace posterior ask of a problem, whatever form its information has.

    Attributes:
        refresh: nats by which the point may move before the information is found again.
        followed_step: change of a log scale over which the change of the curvature is measured.
    """

    refresh: ClassVar[float]
    followed_step: ClassVar[float]

    @property
    def decrement_tolerance(self) -> float:
        """Nats that may still be expected at a mode."""
        ...

    @property
    def model(self) -> LowRankModel: ...

    @property
    def recording(self) -> Recording: ...

    @property
    def space(self) -> ParameterSpace: ...

    @property
    def scale_priors(self) -> Mapping[str, ScalePrior]: ...

    @property
    def subspace(self) -> np.ndarray | None:
        """(neuron, dimension) the patterns through which a random bulk is seen."""
        ...

    def with_scales(self, scales: Mapping[str, float]) -> AnyProblem:
        """The same problem with other prior scales."""
        ...

    def scales(self) -> dict[str, float]:
        """The inferred scales at their present values."""
        ...

    def noise_information(self, z: np.ndarray) -> np.ndarray:
        """(neuron,) expected information about the whitened log noise scales; (0,) where there are none."""
        ...

    def negative_log_density(self, z: np.ndarray) -> float:
        """-log p(activity, z) in nats."""
        ...

    def gradient(self, z: np.ndarray) -> np.ndarray:
        """Its derivatives, by the dynamics coordinates first."""
        ...

    def information(self, z: np.ndarray) -> Any:
        """Gauss-Newton information about the dynamics coordinates, without the prior."""
        ...

    def refined(self, z: np.ndarray, information: Any) -> Any:
        """The information at z, where it is roughly this, to the accuracy of the posterior."""
        ...

    def roughened(self, information: Any) -> Any:
        """The information, as far as it takes to find modes nearby."""
        ...

    def information_near(self, z: np.ndarray, information: Any) -> Any:
        """The information at z, where nearby, and perhaps at other prior scales, it is this."""
        ...

    def covariance(self, z: np.ndarray, information: Any) -> Covariance:
        """Posterior covariance at z, where the information is this."""
        ...

    def carried(self, information: Any, A: np.ndarray, trades: np.ndarray) -> Any:
        """The information after a change of gauge and trades; None where it is to be found again."""
        ...

    def best_noise(self, z: np.ndarray) -> np.ndarray:
        """z with every noise scale at its conditional mode given the dynamics."""
        ...

    def descend(self, z: np.ndarray, covariance: Covariance, slope: np.ndarray) -> tuple[np.ndarray, float]:
        """A point further down across the gauge, and the nats gained."""
        ...


@dataclass(frozen=True, eq=False)
class ScaledProblem:
    """A settled model at some prior scales, its recording and its parameter space.

    Attributes:
        model: the model, with a number for every scale.
        recording: what is fitted.
        space: the parameters.
        scale_priors: the priors of the scales that are inferred, by name.
    """

    model: LowRankModel
    recording: Recording
    space: ParameterSpace
    scale_priors: Mapping[str, ScalePrior]

    @classmethod
    def settled(cls, model: LowRankModel, recording: Recording) -> ScaledProblem:
        """With every inferred scale at the median of its prior."""
        settled = model.for_recording(recording)
        priors = settled.scale_priors
        settled = settled.with_scales({name: prior.median for name, prior in priors.items()})
        return ScaledProblem(settled, recording, settled.space_for(recording), priors)

    def with_scales(self, scales: Mapping[str, float]) -> Self:
        """The same problem with other prior scales."""
        model = self.model.with_scales(scales)
        return dataclasses.replace(self, model=model, space=model.space_for(self.recording))

    def scales(self) -> dict[str, float]:
        """The inferred scales at their present values."""
        return {name: self.model.scale(name) for name in self.scale_priors}

    @property
    def subspace(self) -> np.ndarray | None:
        """(neuron, dimension) the patterns through which a random bulk is seen."""
        background = self.model.background
        return background.visited if isinstance(background, RandomBulk) else None

    @property
    def of_observed(self) -> np.ndarray:
        """(coordinate,) False for what belongs to neurons that were never observed."""
        of_coordinate = np.ones(self.space.size, dtype=bool)
        unobserved = np.flatnonzero(~self.model.informative(self.recording).any(axis=(0, 1)))
        for name in PER_NEURON:
            if name in self.space and self.space[name].shape:
                rows = self.space.coordinates(np.arange(self.space.size), name)[unobserved]
                of_coordinate[rows.ravel()] = False
        return of_coordinate


@dataclass(frozen=True, eq=False)
class Problem(ScaledProblem):
    """The dense form, for few coordinates. Build it within double precision.

    Attributes:
        data: the recording as arrays for compiled functions.
    """

    data: Data

    refresh: ClassVar[float] = 0.0
    followed_step: ClassVar[float] = 0.02
    num_pairs: ClassVar[int] = 32

    @property
    def decrement_tolerance(self) -> float:
        """Nats that may still be expected at a mode."""
        return 1e-6

    @classmethod
    def of(cls, model: LowRankModel, recording: Recording) -> Problem:
        base = cls.settled(model, recording)
        return cls(base.model, recording, base.space, base.scale_priors, base.model.data(recording))

    def negative_log_density(self, z: np.ndarray) -> float:
        """-log p(activity, z) in nats; not finite where the network diverges."""
        return _negative_log_prior(z) - float(self._over_trials(_log_likelihood, z))

    def gradient(self, z: np.ndarray) -> np.ndarray:
        return self.value_and_gradient(z)[1]

    def value_and_gradient(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        """-log p(activity, z) in nats and its derivative (coordinate,)."""
        value, slope = self._over_trials(_likelihood_and_slope, z)
        return _negative_log_prior(z) - float(value), z - slope

    def _over_trials(self, function: Callable[..., Any], z: np.ndarray) -> Any:
        """What a compiled function of model, space, z and data says of all trials, where those of parts add up."""
        apply = double_precision(functools.partial(function, self.model.structure, self.space, jnp.asarray(z)))
        if len(self._parts) == 1:
            return apply(self.data)
        with ThreadPoolExecutor(len(self._parts)) as threads:
            return jax.tree.map(lambda *parts: sum(parts), *threads.map(apply, self._parts))

    @cached_property
    def _parts(self) -> list[Data]:
        """The trials in one part for each core, where there are many and they share all parameters."""
        num_trials = len(self.data.activity)
        if num_trials < MANY_TRIALS or self.model.initial_state == "free":
            return [self.data]
        return [self.data.of_trials(chosen) for chosen in np.array_split(np.arange(num_trials), os.cpu_count() or 1)]

    def expectation(self, points: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean of -log p(activity, z) in nats over points (point, coordinate), and its derivative (coordinate,)."""
        if len(self.data.activity) < MANY_TRIALS:
            likelihoods, slopes = _each(self.model.structure, self.space, jnp.asarray(points), self.data)
            prior = np.mean([_negative_log_prior(point) for point in points])
            return float(prior - jnp.mean(likelihoods)), np.mean(points - np.asarray(slopes), axis=0)
        values, slopes = zip(*(self.value_and_gradient(point) for point in points), strict=True)
        return float(np.mean(values)), np.mean(slopes, axis=0)

    def information(self, z: np.ndarray) -> np.ndarray:
        """Gauss-Newton information about the dynamics coordinates, without the prior.

        Along the gauge and trades between blocks it is 0; with process noise, along trades with a bulk only nearly so,
        and what is left is taken off.
        """
        if self.data.background is None:
            sums = self._over_trials(_trial_sums, z)
            information = np.asarray(_information_of_sums(self.space, jnp.asarray(z), self.data.noise_patterns, sums))
        else:
            information = self._over_trials(_automatic_information, z)
        # Under Dale's law noise moves with the gauge, and is in none of these directions.
        if self.model.process_noise is None or self.space.is_signed:
            return information
        vertical = vertical_basis(self.space, z, self.subspace)
        information = information - vertical @ (vertical.T @ information)
        return information - (information @ vertical) @ vertical.T

    def refined(self, z: np.ndarray, information: np.ndarray) -> np.ndarray:
        """The information at z, which costs no more than to know whether it is another one."""
        return self.information(z)

    def roughened(self, information: np.ndarray) -> np.ndarray:
        """The information: less of it would not be cheaper."""
        return information

    def information_near(self, z: np.ndarray, information: np.ndarray) -> np.ndarray:
        """The information at z, which costs no more than to carry it over from nearby."""
        return self.information(z)

    def covariance(self, z: np.ndarray, information: np.ndarray) -> Covariance:
        """Posterior covariance at z, where the information is this.

        Raises:
            FitError: if the precision is not positive definite to double precision.
        """
        try:
            return DenseCovariance.at(self.space, z, self.subspace, information)
        except np.linalg.LinAlgError as failure:
            raise singular_curvature(self.scales(), failure) from failure

    def carried(self, information: np.ndarray, A: np.ndarray, trades: np.ndarray) -> None:
        """Information is found again after a move, which costs no more than to carry it over."""

    def descend(self, z: np.ndarray, covariance: Covariance, slope: np.ndarray) -> tuple[np.ndarray, float]:
        """The lowest point along a Gauss-Newton step with the best noise, and the nats gained.

        The lowest, not the first: together with the change of gauge, a step that is too long by half goes back and
        forth. With process noise, where the step gains less than it should, steps of quasi-Newton go on from there.
        """
        step, start = covariance.times(slope), self.negative_log_density(z)
        lowest, objective = z, start
        for length in STEP_LENGTHS:
            candidate = np.concatenate([z[: step.size] - length * step, z[step.size :]])
            if np.isfinite(self.negative_log_density(candidate)):
                candidate = self.best_noise(candidate)
                reached = self.negative_log_density(candidate)
                if reached < objective:
                    lowest, objective = candidate, reached
        expected = 0.5 * float(slope @ step)
        if self.model.process_noise is None or start - objective >= EXPECTED_PART * expected:
            return lowest, start - objective
        noise = lowest[step.size :]
        across = self._tilt_across(z)

        def evaluate(dynamics: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = self.value_and_gradient(np.concatenate([dynamics, noise]))
            taken = across(dynamics)
            return value - 0.5 * float(dynamics @ taken), gradient[: step.size] - taken

        further, gained = descend(
            evaluate,
            lambda gradient: covariance.times(covariance.across_gauge(gradient)),
            lowest[: step.size],
            tolerance=0.1 * self.decrement_tolerance,
            max_steps=MAX_QUASI_NEWTON,
        )
        return np.concatenate([further, noise]), start - objective + gained

    def _tilt_across(self, z: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """The tilt that takes the slope along the gauge away at z, so that none of it turns up across that of others.

        The factors are balanced in expectation and not at the mode, so there is such a slope, and the gauge turns with
        the point. Without a tilt, long steps would go down it, and moves of the gauge up again, for ever.
        """
        return tilt_across(self.space, z, self.gradient(z)[: self.space.num_dynamics], self.subspace)

    def currents(self, z: np.ndarray) -> np.ndarray:
        return np.asarray(_currents(self.model.structure, self.space, jnp.asarray(z), self.data))

    def noise_information(self, z: np.ndarray) -> np.ndarray:
        """(neuron,) expected information about the whitened log noise scales; (0,) where there are none.

        It is 2 for every observation; with process noise less, as the latents can take some of it upon them.
        """
        if "log_noise_scale" not in self.space:
            return np.zeros(0)
        variance = self.space["log_noise_scale"].standard_deviation ** 2
        if self.model.process_noise is None:
            return 2.0 * variance * self._num_observations
        return variance * self._over_trials(_noise_information, z)

    @property
    def _num_observations(self) -> np.ndarray:
        """(neuron,) number of observed entries."""
        return self.model.informative(self.recording).sum(axis=(0, 1))

    def best_noise(self, z: np.ndarray) -> np.ndarray:
        """z with every noise scale at its conditional mode given the dynamics.

        Minimises n s + S exp(-2 s) / 2 + ((s - mean) / sd)² / 2 over s = log noise scale, with n observations and
        S the sum of squared residuals: a convex function. Newton's method started below the minimum increases
        monotonically towards it. With process noise the residuals depend on the noise, and its mode is found by
        Fisher scoring.
        """
        if "log_noise_scale" not in self.space:
            return z
        if self.model.process_noise is not None:
            return self._best_noise_of_filter(z)
        block = self.space["log_noise_scale"]
        count = self._num_observations
        squares = np.asarray(_residual_squares(self.model.structure, self.space, jnp.asarray(z), self.data))
        squares = np.maximum(squares, count * (SMALLEST_NOISE * (self.model.priors.unit or 1.0)) ** 2)
        precision = block.standard_deviation**-2
        sample = np.divide(squares, count, out=np.full(squares.shape, np.exp(2.0 * block.mean)), where=count > 0)
        log_scale = np.minimum(0.5 * np.log(sample), block.mean)
        for _ in range(60):
            slope = count - squares * np.exp(-2.0 * log_scale) + precision * (log_scale - block.mean)
            step = slope / (2.0 * squares * np.exp(-2.0 * log_scale) + precision)
            log_scale = log_scale - step
            if np.all(np.abs(step) < 1e-12):
                break
        noise = (log_scale - block.mean) / block.standard_deviation
        return np.concatenate([z[: self.space.num_dynamics], noise])

    def _best_noise_of_filter(self, z: np.ndarray) -> np.ndarray:
        noise = slice(self.space.num_dynamics, self.space.size)
        information = self.noise_information(z) + 1.0
        for _ in range(MAX_SCORING_STEPS):
            objective, gradient = self.value_and_gradient(z)
            step = gradient[noise] / information
            if not 0.5 * float(gradient[noise] @ step) > NOISE_DECREMENT:
                break
            for length in STEP_LENGTHS:
                candidate = z.copy()
                candidate[noise] -= length * step
                if self.negative_log_density(candidate) < objective:
                    z = candidate
                    break
            else:
                break
        return z

    def prior_gauge(self, z: np.ndarray) -> np.ndarray:
        """The same network at the point with the largest prior density.

        Where there are no trades between blocks, it is that of the gauge of the singular vectors.
        """
        if self.space.is_signed:
            return z
        if not self.space.regressions and self.subspace is None:
            left, right = self.space.factors(z)
            A = np.linalg.lstsq(left, canonical(left, right)[0], rcond=None)[0]
            return move(self.space, z, A, np.linalg.inv(A))
        for _ in range(MAX_SETTLING):
            A = supported_gauge(self.model.rank, prior_moments(self.space, z))
            z, _ = settle_trades(self.space, move(self.space, z, A, np.linalg.inv(A)), self.subspace)
            if np.linalg.norm(A - np.eye(len(A)), 2) < SETTLED:
                break
        return z


def supported_gauge(
    rank: int, moments: tuple[np.ndarray, np.ndarray, np.ndarray], surplus: np.ndarray | float = 0.0
) -> np.ndarray:
    """The gauge in which moments balance, `lrposterior.orbit.balancing_gauge`.

    Raises:
        FitError: if there is none, as the data do not support the rank.
    """
    try:
        return balancing_gauge(moments, surplus)
    except ValueError as failure:
        raise FitError(
            f"rank: expected {rank} parts of W that differ from zero at the mode, got fewer ({failure}): the data do "
            f"not support rank {rank}; lower it, or use method='nuts'"
        ) from failure


def singular_curvature(scales: Mapping[str, float], failure: np.linalg.LinAlgError) -> FitError:
    """What to say where a precision is not positive definite to double precision."""
    at = f", at the prior scales {', '.join(f'{name} {value:.2g}' for name, value in scales.items())}" if scales else ""
    return FitError(
        f"singular curvature: the precision is not positive definite to double precision ({failure}){at}; the "
        "recording may hold too little signal for the model: lower the rank, give scales as numbers instead of "
        "ScalePrior, or use method='nuts'"
    )


def dense(problem: AnyProblem) -> Problem:
    """The problem, of which a method needs the dense form.

    Raises:
        TypeError: if it has another one.
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"problem: expected its dense form, got {type(problem).__name__}")
    return problem


compiled = functools.partial(jax.jit, static_argnums=0)


def _negative_log_prior(z: np.ndarray) -> float:
    return 0.5 * float(z @ z) + 0.5 * z.size * np.log(2.0 * np.pi)


@compiled
def _log_likelihood(model: LowRankModel, space: ParameterSpace, z: Array, data: Data) -> Array:
    return log_likelihood(model, space.unwhiten(z), data)


@compiled
def _likelihood_and_slope(model: LowRankModel, space: ParameterSpace, z: Array, data: Data) -> tuple[Array, Array]:
    return jax.value_and_grad(_log_likelihood, argnums=2)(model, space, z, data)


@compiled
def _each(model: LowRankModel, space: ParameterSpace, points: Array, data: Data) -> tuple[Array, Array]:
    likelihood = jax.value_and_grad(lambda z: _log_likelihood(model, space, z, data))
    at_once = max(1, min(MOST_POINTS_AT_ONCE, TRIALS_AT_ONCE // len(data.activity)))
    return jax.lax.map(likelihood, points, batch_size=at_once)


_trial_sums, _automatic_information = compiled(trial_sums), compiled(automatic_information)
_information_of_sums = jax.jit(information_of_sums)


@compiled
def _noise_information(model: LowRankModel, space: ParameterSpace, z: Array, data: Data) -> Array:
    return observation_noise_information(model, space.unwhiten(z), data)


@compiled
def _currents(model: LowRankModel, space: ParameterSpace, z: Array, data: Data) -> Array:
    return model.currents(space.unwhiten(z), data)


@compiled
def _residual_squares(model: LowRankModel, space: ParameterSpace, z: Array, data: Data) -> Array:
    parameters = space.unwhiten(z)
    mean = model.emission_of_trials(parameters, data).mean(model.currents(parameters, data))
    return jnp.sum(jnp.where(data.mask, (data.activity - mean) ** 2, 0.0), axis=(0, 1))
