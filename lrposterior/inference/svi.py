"""Variational inference: the Normal distribution that is nearest to the posterior, fitted with NumPyro."""

# NumPyro's annotations are wider than what it returns: an array is a number or an array, a distribution any one.
# pyright: reportAttributeAccessIssue=false, reportOptionalCall=false, reportIncompatibleMethodOverride=false, reportReturnType=false, reportArgumentType=false

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpyro import distributions, infer
from numpyro.infer import autoguide
from numpyro.infer.svi import SVIState
from numpyro.primitives import Messenger
from tqdm.auto import tqdm

from lrposterior.checks import argument_error, require_choice, require_integer, require_positive
from lrposterior.data import Data
from lrposterior.distribution import NormalDistribution
from lrposterior.fit_error import FitError
from lrposterior.inference.approximation import CONVERGED, Approximation
from lrposterior.inference.balance import Balanced
from lrposterior.inference.gauge_fixed import (
    SITE,
    Frame,
    log_density,
    make_frame,
    make_program,
    points,
)
from lrposterior.inference.importance import Correction, correct, require_correction
from lrposterior.inference.mode import Mode
from lrposterior.inference.problem import Problem, dense
from lrposterior.model import LowRankModel
from lrposterior.parameters import ParameterSpace

GUIDES = {
    "full": autoguide.AutoMultivariateNormal,
    "low_rank": autoguide.AutoLowRankMultivariateNormal,
    "mean_field": autoguide.AutoDiagonalNormal,
}
STEPS_AT_ONCE = 100
# Of hundreds of steps without a rise, so many before a climb within signs begins again around its guide.
STALE = 3
FINAL_DRAWS = 1000
FINAL_LEARNING_RATE = 0.1
LARGEST_GRADIENT = 100.0
MAX_COORDINATES = 5000

Unconstrained = dict[str, Array]


@dataclass(frozen=True)
class SVI:
    """Stochastic variational inference: a Normal guide fitted to the posterior with the gauge integrated out.

    The guide starts at the mode with the Laplace covariance, or with what its family can hold of it, and climbs the
    evidence lower bound (ELBO) by Adam. Its gradient is the pathwise one (Roeder, Wu and Duvenaud 2017,
    arXiv:1703.09194), whose noise vanishes where guide and posterior agree; the result is the average of the iterates
    since the last improvement (Dhaka et al. 2020, arXiv:2009.00666). Why not simply a Normal in M and K:
    `lrposterior.inference.gauge_fixed`.

    Under Dale's law it is a Normal in the whitened M and K, from which the prior takes the signs. Draws of the Laplace
    posterior lie a hundred nats and more too low there, so that the climb is long: where the ELBO does not rise, it
    begins again in coordinates in which the guide is Normal(0, I), until that gains nothing. Magnitudes bend so much
    that even at the maximum the standard deviations of W are a third too small.

    Args:
        guide: "full": any covariance; where the posterior is bent, its intervals are too narrow by about a tenth even
            when the ELBO is at its maximum, as those of the nearest Normal distribution are. "low_rank": diagonal plus
            low rank. "mean_field": independent whitened parameters; it understates the uncertainty of whatever rests on
            several of them, as every entry of W does.
        num_steps: largest number of steps; the learning rate falls to a tenth on the way there.
        num_particles: draws per step.
        learning_rate: of Adam, in posterior standard deviations.
        rank: of the low-rank part; None takes the square root of the number of coordinates.
        patience: the fit has converged when the mean ELBO of 100 steps has not risen beyond its own standard error
            this many times in a row.
        correction: "psis": resample draws of the guide by their importance weights (as for `Laplace`). Whether the
            result can be trusted depends on the weights alone, and not on whether the ELBO has come to rest.

    Raises:
        ValueError: if an option is out of its range.
    """

    guide: Literal["full", "low_rank", "mean_field"] = "full"
    num_steps: int = 10_000
    num_particles: int = 8
    learning_rate: float = 0.003
    rank: int | None = None
    patience: int = 10
    correction: Correction | None = None

    def __post_init__(self) -> None:
        require_choice(self.guide, "guide", tuple(GUIDES))
        for name in ("num_steps", "num_particles", "patience"):
            require_integer(getattr(self, name), name, minimum=1)
        require_positive(self.learning_rate, "learning_rate")
        if self.rank is not None:
            require_integer(self.rank, "rank", minimum=1)
            if self.guide != "low_rank":
                raise argument_error(
                    "rank", f"None for guide={self.guide!r}", str(self.rank), "it belongs to guide='low_rank'"
                )
        require_correction(self.correction)

    def check(self, num_coordinates: int) -> None:
        """Refuse a problem whose covariance would be too large.

        Raises:
            ValueError: with the number of coordinates, and what to use instead.
        """
        if self.guide == "full" and num_coordinates > MAX_COORDINATES:
            raise argument_error(
                "method",
                f"at most {MAX_COORDINATES} coordinates for SVI(guide='full')",
                str(num_coordinates),
                "use method='laplace', which holds all correlations too, or SVI(guide='low_rank')",
            )

    def approximate(self, balanced: Balanced, *, seed: int, progress: bool) -> Approximation:
        """Fit the guide.

        Raises:
            FitError: if the data do not support the rank, or the ELBO is not finite.
        """
        problem, mode = dense(balanced.problem), balanced.mode
        frame = make_frame(problem, mode, "full" if self.guide == "full" else "diagonal")
        climb = _climb(problem.model.structure, problem.space.size, dataclasses.replace(self, correction=None))
        key, final_key = jax.random.split(jax.random.key(seed))
        state = climb.start(key, problem.space, frame, problem.data, _initial_guide(self, problem, mode, frame))
        trace: list[np.ndarray] = []
        highest, variance, stale, has_risen = -np.inf, 0.0, 0, False
        average, count = None, 0
        num_chunks = -(-self.num_steps // climb.num_steps)
        with tqdm(total=num_chunks * climb.num_steps, desc="svi", unit="step", disable=not progress) as bar:
            while len(trace) < num_chunks and stale < self.patience:
                if has_risen and stale >= STALE and not frame.is_slice:
                    frame, initial = _recentred(problem.space, frame, climb.posterior(average))
                    again = jax.random.fold_in(key, len(trace))
                    state = climb.start(again, problem.space, frame, problem.data, initial)
                    average, count, has_risen = None, 0, False
                state, iterate, elbo = climb.run(state, problem.space, frame, problem.data)
                trace.append(np.asarray(elbo))
                if not np.all(np.isfinite(trace[-1])):
                    raise FitError(_not_finite(trace, climb.num_steps, problem.space.is_signed))
                mean, own_variance = float(np.mean(trace[-1])), float(np.var(trace[-1])) / len(trace[-1])
                bar.update(climb.num_steps)
                bar.set_postfix_str(f"ELBO {mean:.2f} nats")
                if mean > highest + np.sqrt(variance + own_variance):
                    highest, variance, stale, has_risen = mean, own_variance, 0, True
                    average, count = iterate, 1
                else:
                    stale, count = stale + 1, count + 1
                    before = iterate if average is None else average
                    average = jax.tree.map(lambda old, new, n=count: old + (new - old) / n, before, iterate)
        guide = climb.posterior(average)
        final = np.asarray(_elbo_draws(problem.model.structure, problem.space, frame, problem.data, guide, final_key))
        diagnostics = {"ELBO": float(final.mean()), "standard error of ELBO": float(final.std() / np.sqrt(len(final)))}
        if self.correction is not None:
            corrected = correct(problem, frame, guide, seed=seed)
            return dataclasses.replace(
                corrected, elbo=np.concatenate(trace), diagnostics={**diagnostics, **corrected.diagnostics}
            )
        num_steps = num_chunks * climb.num_steps
        unsettled = f"not converged: the ELBO had not come to rest after {num_steps} steps; raise num_steps"
        return Approximation(
            _in_whitened_coordinates(problem.space, frame, guide),
            CONVERGED if stale >= self.patience else unsettled,
            np.concatenate(trace),
            diagnostics,
        )


@dataclass(frozen=True)
class _Climb:
    """The compiled steps of one kind of fit, kept for the next fit of the same kind.

    Attributes:
        num_steps: steps per call of `run`.
        start: (key, space, frame, data, initial guide) -> state.
        run: (state, space, frame, data) -> (state, mean of the iterates, ELBO (step,)).
        posterior: iterate -> the guide's distribution of e.
    """

    num_steps: int
    start: Callable[[Array, ParameterSpace, Frame, Data, Unconstrained], SVIState]
    run: Callable[[SVIState, ParameterSpace, Frame, Data], tuple[SVIState, Unconstrained, Array]]
    posterior: Callable[[Unconstrained], distributions.Distribution]


@functools.lru_cache(maxsize=16)
def _climb(model: LowRankModel, size: int, options: SVI) -> _Climb:
    num_steps = min(STEPS_AT_ONCE, options.num_steps)
    schedule = optax.exponential_decay(options.learning_rate, options.num_steps, FINAL_LEARNING_RATE)
    program = make_program(model)
    at_mode = infer.init_to_value(values={SITE: np.zeros(size)})
    more = {"rank": _rank(options, size)} if options.guide == "low_rank" else {}
    guide = GUIDES[options.guide](program, init_loc_fn=at_mode, init_scale=1.0, **more)
    svi = infer.SVI(
        program,
        _pathwise(guide),
        optax.chain(optax.clip_by_global_norm(LARGEST_GRADIENT * size), optax.adam(schedule)),
        infer.Trace_ELBO(num_particles=options.num_particles),
    )

    def start(key: Array, space: ParameterSpace, frame: Frame, data: Data, initial: Unconstrained) -> SVIState:
        return svi.init(key, space, frame, data, init_params=initial)

    @jax.jit
    def run(state: SVIState, space: ParameterSpace, frame: Frame, data: Data) -> tuple[SVIState, Unconstrained, Array]:
        def step(carry: tuple[SVIState, Unconstrained], _: None) -> tuple[tuple[SVIState, Unconstrained], Array]:
            state, total = carry
            state, loss = svi.update(state, space, frame, data)
            return (state, jax.tree.map(jnp.add, total, svi.optim.get_params(state.optim_state))), -loss

        nothing = jax.tree.map(jnp.zeros_like, svi.optim.get_params(state.optim_state))
        (state, total), elbo = jax.lax.scan(step, (state, nothing), None, length=num_steps)
        return state, jax.tree.map(lambda sum_: sum_ / num_steps, total), elbo

    def posterior(iterate: Unconstrained) -> distributions.Distribution:
        return guide.get_posterior(svi.constrain_fn(iterate))

    return _Climb(num_steps, start, run, posterior)


class _pathwise(Messenger):
    """A guide whose gradient flows through its draws only.

    The derivative of log q along its own parameters has mean zero and contributes nothing but noise.
    """

    def process_message(self, message: dict[str, Any]) -> None:
        if message["type"] == "sample":
            message["fn"] = _Pathwise(message["fn"])


class _Pathwise(distributions.Distribution):
    """A distribution whose draws depend on its parameters, and whose density counts them as constants."""

    def __init__(self, base: distributions.Distribution) -> None:
        self.base = base
        super().__init__(base.batch_shape, base.event_shape)

    @property
    def support(self) -> Any:
        return self.base.support

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        return self.base.sample(key, sample_shape)

    def log_prob(self, value: Array) -> Array:
        return jax.tree.map(jax.lax.stop_gradient, self.base).log_prob(value)


def _rank(options: SVI, size: int) -> int:
    rank = round(np.sqrt(size)) if options.rank is None else options.rank
    return min(rank, size)


def _initial_guide(options: SVI, problem: Problem, mode: Mode, frame: Frame) -> Unconstrained:
    """What differs from e ~ Normal(0, I): for the low-rank guide the leading correlations of the Laplace posterior.

    Its diagonal part are the conditional variances, which are 1 in e; what the covariance has beyond them is cut to
    the rank.
    """
    if options.guide != "low_rank":
        return {}
    root = np.asarray(make_frame(problem, mode, "full").scale) / np.asarray(frame.scale)[:, None]
    values, vectors = np.linalg.eigh(root @ root.T)
    leading = slice(-_rank(options, problem.space.size), None)
    return {"auto_cov_factor": jnp.asarray(vectors[:, leading] * np.sqrt(np.maximum(values[leading] - 1.0, 0.0)))}


def _recentred(space: ParameterSpace, frame: Frame, guide: distributions.Distribution) -> tuple[Frame, Unconstrained]:
    """The frame of the whitened parameters in which a guide is Normal(0, I), and what differs from it."""
    differs = {}
    if isinstance(guide, distributions.MultivariateNormal):
        spread, scale = jnp.diag(guide.scale_tril), frame.scale @ jnp.asarray(guide.scale_tril)
    else:
        is_low_rank = isinstance(guide, distributions.LowRankMultivariateNormal)
        spread = jnp.sqrt(guide.cov_diag) if is_low_rank else guide.scale
        scale = frame.scale * spread
        differs = {"auto_cov_factor": guide.cov_factor / spread[:, None]} if is_low_rank else {}
    mode, constant = points(space, frame, guide.loc[None])[0], frame.constant + jnp.sum(jnp.log(spread))
    return dataclasses.replace(frame, mode=mode, scale=scale, constant=constant), differs


@functools.partial(jax.jit, static_argnums=0)
def _elbo_draws(
    model: LowRankModel, space: ParameterSpace, frame: Frame, data: Data, guide: distributions.Distribution, key: Array
) -> Array:
    """(draw,) log density of recording and draw, minus log density of the guide; the ELBO is its mean."""
    draws = guide.sample(key, (FINAL_DRAWS,))
    log_densities = jax.lax.map(lambda e: log_density(model, space, frame, data, e), draws, batch_size=50)
    log_guide = guide.log_prob(draws)
    return log_densities - (jnp.sum(log_guide, axis=-1) if log_guide.ndim == 2 else log_guide)


def _in_whitened_coordinates(
    space: ParameterSpace, frame: Frame, guide: distributions.Distribution
) -> NormalDistribution:
    """The guide's Normal distribution of e, as one of the parameters on the slice."""
    if isinstance(guide, distributions.MultivariateNormal):
        location, root = guide.loc, guide.scale_tril
    elif isinstance(guide, distributions.LowRankMultivariateNormal):
        location, root = guide.loc, jnp.concatenate([jnp.diag(jnp.sqrt(guide.cov_diag)), guide.cov_factor], axis=1)
    else:
        location, root = guide.loc, jnp.diag(guide.scale)
    origin = points(space, frame, jnp.zeros_like(location)[None])
    columns = points(space, frame, root.T) - origin
    return NormalDistribution(np.asarray(points(space, frame, location[None])[0]), np.asarray(columns.T))


def _not_finite(trace: list[np.ndarray], num_steps: int, is_signed: bool) -> str:
    step = (len(trace) - 1) * num_steps + int(np.argmin(np.isfinite(trace[-1]))) + 1
    bounded = "" if is_signed else "a bounded nonlinearity, "
    return (
        f"non-finite ELBO at step {step}: for some draws of the guide the network diverges; use {bounded}"
        "priors with smaller M and K, or a lower learning_rate; method='laplace' needs no draws"
    )
