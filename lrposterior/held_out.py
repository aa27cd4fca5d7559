"""Density of trials that a fit has not seen: by importance weights (PSIS-LOO), or by fitting again without them.

For trial i, log p(y_i | the other trials) is the log of the mean of p(y_i | parameters) over the posterior given the
others. PSIS-LOO (Vehtari, Gelman and Gabry 2017, doi:10.1007/s11222-016-9696-4) takes draws of the posterior given all
trials and weighs them by 1 / p(y_i | parameters). That works while no trial moves the posterior far: Pareto k up to
0.7. A trial of a network is informative, and k is mostly 1.2 and more (20 neurons, 12 trials of 40 bins: up to 2.4 at
the true rank and up to 7 above it). K folds of trials then need K more fits, and no weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import logsumexp

from lrposterior.arviz_bridge import log_likelihood_of_draws, to_arviz
from lrposterior.checks import read_only
from lrposterior.distribution import SampleDistribution
from lrposterior.fit_error import FitError
from lrposterior.posterior import Posterior, require_likelihood
from lrposterior.recording import Recording

# Above this Pareto k the weights of a trial have no useful mean.
LARGEST_PARETO_K = 0.7


@dataclass(frozen=True, eq=False)
class HeldOutDensity:
    """Log density of every trial given the others.

    Attributes:
        by: "loo" or "k-fold". The two are not comparable: a fit without a fold has seen fewer trials.
        by_trial: (trial,) log p(trial | others), in nats.
        pareto_k: (trial,) of the importance weights, infinite where it cannot be estimated; empty for "k-fold", which
            has none.
        effective_parameters: p_loo, by how much the fitted trials are predicted better; NaN for "k-fold".
    """

    by: Literal["loo", "k-fold"]
    by_trial: np.ndarray
    pareto_k: np.ndarray
    effective_parameters: float

    def __post_init__(self) -> None:
        for name in ("by_trial", "pareto_k"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    @property
    def elpd(self) -> float:
        """Sum over trials, in nats."""
        return float(self.by_trial.sum())

    @property
    def standard_error(self) -> float:
        """Of the sum, from the spread over trials."""
        return _standard_error(self.by_trial)

    @property
    def largest_pareto_k(self) -> float:
        """NaN for "k-fold"."""
        return float(self.pareto_k.max()) if self.pareto_k.size else float("nan")

    @property
    def is_trusted(self) -> bool:
        """Whether no trial has a Pareto k above 0.7."""
        return not bool(np.any(self.pareto_k > LARGEST_PARETO_K))

    def better_than(self, other: HeldOutDensity) -> tuple[float, float]:
        """Nats by which this predicts the trials better, and the standard error of that, trial against trial."""
        difference = self.by_trial - other.by_trial
        return float(difference.sum()), _standard_error(difference)


def leave_one_out(posterior: Posterior, *, num_draws: int, seed: int) -> HeldOutDensity | None:
    """PSIS-LOO over trials; None for a single trial, or where a draw of the network diverges.

    Raises:
        ValueError: for a generalised posterior: its draws have no weights by a likelihood.
    """
    require_likelihood(posterior)
    from arviz_stats.loo import loo as psis_loo

    sampled = isinstance(posterior.distribution, SampleDistribution)
    tree = to_arviz(posterior, None if sampled else num_draws, seed=seed, connectivity=False)
    finite = bool(np.isfinite(np.asarray(tree["log_likelihood"]["activity"])).all())
    if posterior.recording.num_trials < 2 or not finite:
        return None
    with warnings.catch_warnings():
        # Of k, which is reported; and of divisions by zero where the weights of all draws but a few vanish.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        loo: Any = psis_loo(tree, pointwise=True, reff=None if sampled else 1.0)
    pareto_k = np.nan_to_num(np.ravel(loo.pareto_k), nan=np.inf)
    return HeldOutDensity("loo", np.ravel(loo.elpd_i), pareto_k, float(loo.p))


def held_out_density(posterior: Posterior, trials: Recording, *, num_draws: int, seed: int) -> np.ndarray:
    """(trial,) log of the mean density of trials that were not fitted over draws of the posterior, in nats.

    -inf where every draw of the network diverges.

    Args:
        posterior: the fit to other trials.
        trials: those held out.
        num_draws: draws of the posterior; of a Markov chain at most those it has.
        seed: seed of the draws.
    """
    draws = sample_at_most(posterior, num_draws, seed=seed)
    values = log_likelihood_of_draws(posterior.model, draws, trials)
    values = np.where(np.isfinite(values), values, -np.inf)  # a network that diverges predicts nothing
    return logsumexp(values, axis=0) - np.log(len(values))


def sample_at_most(posterior: Posterior, num_draws: int, *, seed: int) -> dict[str, np.ndarray]:
    """Draws of all parameters: as many as asked for, or of a sampled posterior at most those it has."""
    distribution = posterior.distribution
    stored = distribution.draws[..., 0].size if isinstance(distribution, SampleDistribution) else num_draws
    return posterior.sample_parameters(min(num_draws, stored), seed=seed)


def cross_validate(
    refit: Callable[[Recording], Posterior],
    recording: Recording,
    folds: Sequence[np.ndarray],
    *,
    num_draws: int,
    seed: int,
) -> tuple[HeldOutDensity | None, str]:
    """Fit again without every fold of trials, and take the density of the trials left out.

    Args:
        refit: fits the same model to the trials that remain.
        recording: all trials.
        folds: the trials of every fold.
        num_draws: draws of each posterior; of a Markov chain at most those it has.
        seed: seed of the draws.

    Returns:
        (density, note). None in place of the density where a fit failed, or every draw diverges.
    """
    by_trial = np.full(recording.num_trials, -np.inf)
    for number, fold in enumerate(folds, 1):
        rest = np.setdiff1d(np.arange(recording.num_trials), fold)
        try:
            posterior = refit(recording.select(trials=rest))
        except (FitError, ValueError) as failure:  # ValueError: for example a neuron that is constant in what remains
            return None, f"no held-out density: the fit without fold {number} of {len(folds)} failed ({failure})"
        by_trial[fold] = held_out_density(posterior, recording.select(trials=fold), num_draws=num_draws, seed=seed)
    if not np.isfinite(by_trial).all():
        return None, "no held-out density: the networks drawn from the posterior diverge in held-out trials"
    return HeldOutDensity("k-fold", by_trial, np.empty(0), float("nan")), f"{len(folds)} folds of trials"


def make_folds(num_trials: int, num_folds: int, *, seed: int) -> list[np.ndarray]:
    """Trials shared out at random among folds of as equal size as possible, in order within each."""
    order = np.random.default_rng(seed).permutation(num_trials)
    return [np.sort(fold) for fold in np.array_split(order, min(num_folds, num_trials))]


def _standard_error(values: np.ndarray) -> float:
    return float(np.sqrt(values.size) * values.std(ddof=1)) if values.size > 1 else float("inf")
