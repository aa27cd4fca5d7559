"""The generalised (Gibbs) posterior of the losses of `Match`: prior times exp(-beta L), by variational inference."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from lrposterior.checks import require_instance, require_integer, require_positive
from lrposterior.distribution import NormalDistribution
from lrposterior.fit_error import FitError
from lrposterior.inference.approximation import CONVERGED
from lrposterior.inference.match import Match, Matched, match_networks
from lrposterior.matching.guide import Guide, GuideState, climb, losses_of_draws
from lrposterior.matching.training import WeightedLoss, balancing_weight
from lrposterior.model import LowRankModel
from lrposterior.posterior import FitStatistics, Posterior
from lrposterior.precision import double_precision
from lrposterior.recording import Recording

STEPS_AT_ONCE = 50
# The learning rate falls to this part of the first.
FINAL_RATE = 0.03
# Draws of the noise that the weight of L_trial is measured with, and of z behind the mean loss.
NUM_MEASURED, NUM_FINAL = 20, 100
# The bound has come to rest where its mean over the last eighth of the steps is above that over the eighth before by
# less than so many standard errors.
RESTING_ERRORS = 3.0


@dataclass(frozen=True)
class Gibbs:
    """The generalised (Gibbs) posterior of the losses of `Match`: it is updated by a loss, and not by a likelihood.

        p(z) ∝ prior(z) exp(-beta L(z)),      L = E (L_neuron + trial_weight L_trial + activity_penalty L_activity)

    (Bissiri, Holmes and Walker 2016, doi:10.1111/rssb.12158), with the expectation over the noise of simulated trials,
    and over batches where there are several. How wide it is follows from beta, of which the recording says nothing:
    `calibrate_beta` chooses it by simulated sessions. There is no evidence.

    `Match` scales L_trial in every step by a balance that is held, and descends along the slope of no function. Here
    its weight is one number. `weight_penalty` is no part of L, as the prior is there; it counts for the network of
    `Match` alone, at which the fit starts. Trials that `match` holds out are held out here as well.

    The result is the nearest Normal distribution (highest bound, by Adam) with independent whitened coordinates, in
    which the prior is Normal(0, 1) and signs are kept. It has the gauge of the network at which it starts, and is too
    narrow for what rests on several coordinates: a beta that is calibrated makes up for that on average.

    Args:
        beta: of the loss, which has no unit.
        match: the losses, and how the network at which the fit starts is found; of several networks the best.
        trial_weight: of L_trial; None measures the balance at this network, once.
        num_steps: of Adam; the last quarter is averaged.
        learning_rate: of Adam, in prior standard deviations; it falls to 3%.

    Raises:
        ValueError: if an option is out of its range.
    """

    beta: float
    match: Match = field(default_factory=Match)
    trial_weight: float | None = None
    num_steps: int = 3000
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        for name in ("beta", "learning_rate"):
            object.__setattr__(self, name, require_positive(getattr(self, name), name))
        require_instance(self.match, "match", Match, "for example Match(conditions=labels)")
        if self.trial_weight is not None:
            weight = require_positive(self.trial_weight, "trial_weight", allow_zero=True)
            object.__setattr__(self, "trial_weight", weight)
        require_integer(self.num_steps, "num_steps", minimum=4 * STEPS_AT_ONCE)


@double_precision
def fit_gibbs(model: LowRankModel, recording: Recording, method: Gibbs, *, seed: int, progress: bool) -> Posterior:
    """Fit the generalised posterior of a recording.

    Raises:
        FitError: as `fit_match`, or if a draw has no finite loss.
        ValueError: as `fit_match`.
    """
    matched = match_networks(model, recording, method.match, seed=seed, progress=progress)
    return around_match(matched, method, seed=seed, progress=progress)


@double_precision
def around_match(matched: Matched, method: Gibbs, *, seed: int, progress: bool) -> Posterior:
    """Fit it from a network that matches the recording. Raises: FitError, if a draw has no finite loss."""
    started = time.perf_counter()
    base, matching = matched.base, matched.matching
    fixed = matching.model.structure, matching.weights, matching.batch_size
    with jax.enable_x64(False):
        of_weight, of_steps, of_losses = jax.random.split(jax.random.key(seed), 3)
        start = matched.best.best
        weight = method.trial_weight
        if weight is None:
            keys = jax.random.split(of_weight, NUM_MEASURED)
            weight = float(balancing_weight(*fixed, matching.space, matching.trials, start, keys))
        loss = WeightedLoss(*fixed, matching.space, matching.trials, jnp.asarray(weight, jnp.float32))
        guide, bound = _climbed(loss, method, GuideState.at(Guide.at(start)), of_steps, progress)
        keys = jax.random.split(of_losses, NUM_FINAL)
        losses = np.asarray(losses_of_draws(loss, guide, keys), np.float64)
        finite = np.isfinite(losses)
        mean_loss = float(losses[finite].mean()) if finite.any() else float("nan")
        divergence = float(guide.divergence())
    location, log_deviation = (np.asarray(each, np.float64) for each in guide)
    normal = NormalDistribution(location, np.diag(np.exp(log_deviation)))
    statistics = FitStatistics(
        objective=mean_loss,
        gradient_norm=float("nan"),
        decrement=float("nan"),
        num_iterations=len(bound),
        wall_time=matched.seconds + time.perf_counter() - started,
        log_evidence=None,
        evidence_note="exp(-beta L) is no likelihood, and a generalised posterior has no evidence",
        elbo=bound,
        diagnostics={
            "beta": method.beta,
            "weight of L_trial": weight,
            "mean loss": mean_loss,
            "nats from the prior": divergence,
        },
    )
    return Posterior(base.model, base.recording, "gibbs", seed, _status(bound, finite), statistics, location, normal)


def _climbed(
    loss: WeightedLoss, method: Gibbs, state: GuideState, key: jax.Array, progress: bool
) -> tuple[Guide, np.ndarray]:
    """The mean guide of the last quarter of the steps, and the bound (step,) in nats.

    Raises:
        FitError: if the bound is not finite.
    """
    num_chunks = -(-method.num_steps // STEPS_AT_ONCE)
    parts = np.linspace(0.0, 1.0, num_chunks * STEPS_AT_ONCE).reshape(num_chunks, STEPS_AT_ONCE)
    beta, guides, bounds = jnp.asarray(method.beta, jnp.float32), list[Guide](), list[np.ndarray]()
    with tqdm(total=parts.size, desc="gibbs", unit="step", disable=not progress) as bar:
        for chunk, part in enumerate(parts):
            rates = jnp.asarray(method.learning_rate * FINAL_RATE**part, jnp.float32)
            state, mean, bound = climb(loss, beta, state, rates, jax.random.fold_in(key, chunk))
            bounds.append(np.asarray(bound, np.float64))
            if not np.all(np.isfinite(bounds[-1])):
                raise FitError(
                    f"gibbs: the loss of a draw is not finite before step {(chunk + 1) * STEPS_AT_ONCE}, as its "
                    "network diverges; raise beta, use priors with smaller M and K, or a bounded nonlinearity"
                )
            guides.append(mean)
            bar.update(STEPS_AT_ONCE)
            bar.set_postfix_str(f"bound {bounds[-1].mean():.2f} nats")
    last = guides[-(-3 * num_chunks // 4) :]
    return jax.tree.map(lambda *each: jnp.mean(jnp.stack(each), axis=0), *last), np.concatenate(bounds)


def _status(bound: np.ndarray, finite: np.ndarray) -> str:
    """Whether the bound (step,) rests, and the losses of the last draws are finite (draw,)."""
    if not finite.all():
        return (
            f"not converged: {np.sum(~finite)} of {len(finite)} draws simulate networks that diverge; raise beta, or "
            "fit with a tighter prior"
        )
    number = len(bound) // 8
    last, before = bound[-number:], bound[-2 * number : -number]
    error = np.sqrt((last.var() + before.var()) / number)
    if last.mean() - before.mean() < RESTING_ERRORS * error:
        return CONVERGED
    return f"not converged: the bound had not come to rest after {len(bound)} steps; raise num_steps"
