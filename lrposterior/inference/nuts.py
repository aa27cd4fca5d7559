"""Markov chain Monte Carlo by NumPyro's NUTS: the reference on small problems."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import infer
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from lrposterior.checks import argument_error, require_choice, require_integer, require_probability
from lrposterior.data import Data
from lrposterior.distribution import SampleDistribution
from lrposterior.inference.approximation import CONVERGED, Approximation
from lrposterior.inference.balance import Balanced
from lrposterior.inference.gauge_fixed import (
    SITE,
    make_frame,
    make_joint_frame,
    make_program,
    points,
)
from lrposterior.inference.laplace import LARGEST_PRODUCT_SHARE, product_share
from lrposterior.inference.problem import Problem, dense
from lrposterior.model import LowRankModel
from lrposterior.parameters import ParameterSpace

MAX_COORDINATES = 3000
START_SPREAD = 0.5
LARGEST_R_HAT = 1.05
LARGEST_DIVERGENT_SHARE = 0.01
MAX_QUANTITIES = 500
DRAWS_AT_ONCE = 8


@dataclass(frozen=True)
class NUTS:
    """Markov chains of the no-U-turn sampler, for small problems: exact in the limit of many draws.

    The chains run in coordinates in which the gauge is integrated out and the Laplace posterior is Normal(0, I)
    (`lrposterior.inference.gauge_fixed`); on M and K themselves they would need twenty times the steps. Only where the
    data do not support the rank, and no slice across the orbits is straight, do they run on M and K. Convergence is
    judged by entries of W and by predicted rates. Under Dale's law they run on the whitened M and K as well, in which
    signs are no bounds.

    Args:
        num_warmup: draws per chain that tune the sampler, and are dropped.
        num_samples: draws per chain that are kept.
        num_chains: number of chains, each started near the mode.
        target_accept: acceptance probability that the step size is tuned to.
        chain_method: "sequential": one chain after the other. "vectorized": all at once, each draw as slow as the
            slowest chain's.

    Raises:
        ValueError: if an option is out of its range.
    """

    num_warmup: int = 500
    num_samples: int = 1000
    num_chains: int = 2
    target_accept: float = 0.8
    chain_method: Literal["sequential", "vectorized"] = "sequential"

    def __post_init__(self) -> None:
        require_integer(self.num_warmup, "num_warmup", minimum=1)
        require_integer(self.num_samples, "num_samples", minimum=10, mend="fewer draws say nothing about convergence")
        require_integer(self.num_chains, "num_chains", minimum=1)
        require_probability(self.target_accept, "target_accept")
        require_choice(self.chain_method, "chain_method", ("sequential", "vectorized"))

    def check(self, num_coordinates: int) -> None:
        """Refuse a problem that is too large.

        Raises:
            ValueError: with the number of coordinates, and what to use instead.
        """
        if num_coordinates > MAX_COORDINATES:
            raise argument_error(
                "method",
                f"at most {MAX_COORDINATES} coordinates for 'nuts'",
                str(num_coordinates),
                "use method='laplace' or 'svi', or fit fewer neurons with recording.select(neurons=...)",
            )

    def approximate(self, balanced: Balanced, *, seed: int, progress: bool) -> Approximation:
        """Run the chains."""
        problem, mode = dense(balanced.problem), balanced.mode
        model, space = problem.model.structure, problem.space
        # Where the data do not support the rank, no slice across the orbits is straight, and (M, K) is simpler.
        is_product = not space.is_signed and (
            product_share(problem, mode.z, problem.covariance(mode.z, mode.information)) >= LARGEST_PRODUCT_SHARE
        )
        frame = (make_joint_frame if is_product else make_frame)(problem, mode, "full")
        key, start_key = jax.random.split(jax.random.key(seed))
        sampler = infer.MCMC(
            infer.NUTS(make_program(model), target_accept_prob=self.target_accept),
            num_warmup=self.num_warmup,
            num_samples=self.num_samples,
            num_chains=self.num_chains,
            chain_method=self.chain_method,
            progress_bar=progress,
            jit_model_args=True,
        )
        shape = (self.num_chains, space.size) if self.num_chains > 1 else (space.size,)
        start = START_SPREAD * jax.random.normal(start_key, shape)
        sampler.run(key, space, frame, problem.data, init_params={SITE: start}, extra_fields=("diverging",))
        e = sampler.get_samples(group_by_chain=True)[SITE]
        draws = np.asarray(points(space, frame, e.reshape(-1, space.size))).reshape(e.shape)
        divergences = int(np.sum(sampler.get_extra_fields()["diverging"]))
        diagnostics = gauge_invariant_diagnostics(problem, draws, seed) | {"divergences": float(divergences)}
        return Approximation(
            SampleDistribution(draws), _status(diagnostics, divergences / draws[..., 0].size), diagnostics=diagnostics
        )


def gauge_invariant_diagnostics(problem: Problem, draws: np.ndarray, seed: int) -> dict[str, float]:
    """Worst R-hat and effective sample size over entries of W, and over predicted rates.

    Args:
        problem: what was fitted.
        draws: (chain, draw, coordinate) whitened parameters, in any gauge.
        seed: chooses the entries where there are more than 500.
    """
    random = np.random.default_rng(seed)
    num_neurons = problem.recording.num_neurons
    post, pre = _choose(random, (num_neurons, num_neurons))
    M, K = (problem.space.unwhiten(draws)[name] for name in ("M", "K"))
    connectivity = np.sum(M[:, :, post] * K[:, :, pre], axis=-1)
    picked = _choose(random, problem.recording.activity.shape)
    flat = jnp.asarray(draws.reshape(-1, draws.shape[-1]))
    rates = np.asarray(_rates_at(problem.model.structure, problem.space, flat, problem.data, picked))
    named = {"W": connectivity, "rates": rates.reshape(draws.shape[:2] + (-1,))}
    return {name: value for quantity, values in named.items() for name, value in _worst(quantity, values).items()}


def _choose(random: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Indices of at most 500 entries of an array."""
    size = int(np.prod(shape))
    flat = np.arange(size) if size <= MAX_QUANTITIES else random.choice(size, MAX_QUANTITIES, replace=False)
    return np.unravel_index(flat, shape)


@functools.partial(jax.jit, static_argnums=0)
def _rates_at(model: LowRankModel, space: ParameterSpace, draws: Array, data: Data, picked: tuple[Array, ...]) -> Array:
    """(draw, entry) noise-free rates at the picked (trial, bin, neuron)."""
    return jax.lax.map(lambda z: model.rates(space.unwhiten(z), data)[picked], draws, batch_size=DRAWS_AT_ONCE)


def _worst(quantity: str, values: np.ndarray) -> dict[str, float]:
    """Over the entries (chain, draw, entry) that vary: a rate in the first bin, or of a silent neuron, does not."""
    varying = values[:, :, np.ptp(values, axis=(0, 1)) > 0.0]
    if not varying.size:
        return {f"max R-hat of {quantity}": np.nan, f"min ESS of {quantity}": np.nan}
    with np.errstate(divide="ignore"):  # a few anticorrelated draws can count as infinitely many
        size = float(np.min(effective_sample_size(varying)))
    return {f"max R-hat of {quantity}": float(np.max(split_gelman_rubin(varying))), f"min ESS of {quantity}": size}


def _status(diagnostics: dict[str, float], divergent_share: float) -> str:
    quantity = max(("W", "rates"), key=lambda name: np.nan_to_num(diagnostics[f"max R-hat of {name}"]))
    r_hat = diagnostics[f"max R-hat of {quantity}"]
    if r_hat > LARGEST_R_HAT:
        return (
            f"not converged: R-hat of {quantity} is {r_hat:.3f}, above {LARGEST_R_HAT}; "
            "raise num_warmup and num_samples"
        )
    if divergent_share > LARGEST_DIVERGENT_SHARE:
        return (
            f"not converged: {100.0 * divergent_share:.1f}% of the draws diverged, so the chains miss a part of the "
            "posterior; raise target_accept towards 1"
        )
    return CONVERGED
