"""Prior scales and the gain of the bulk estimated again, from trials that show what was not seen before.

The scale of what no recording has seen is taken from what it has: the gain g of a random bulk from the columns A = W0 Q
of the visited patterns, the residual scale of K from neurons' loadings. Where the gain was fixed, or the visited
patterns are no fair sample of all, predictions are off by as much. Trials with stimulation visit others, and every new
pattern q shows a column W0 q ~ Normal(0, g² / N) of what was unseen. So the scales are those of the highest evidence of
all trials, old and new, as in a fit:

    log p(old, new | s) + log p(s) = log p(new | old, s) + log p(old | s) + log p(s),

the density of the new trials under the posterior predictive at scales s, and what was known of s before. A scale that
was fixed gets a prior around its value, so that it stays there as far as no trial says otherwise.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lrposterior.background import LARGEST_DIMENSION, RandomBulk
from lrposterior.checks import require_instance
from lrposterior.inference.approximation import CONVERGED
from lrposterior.inference.fit import Laplace
from lrposterior.inference.update import updated
from lrposterior.model import LowRankModel
from lrposterior.parameters import of_type
from lrposterior.populations import ByCellType
from lrposterior.posterior import Posterior
from lrposterior.priors import CorrelatedLoadings, Scale, ScalePrior
from lrposterior.recording import Recording

# Standard deviations by which the gain of new patterns may differ from that of the old ones before one should beware.
LARGEST_DISAGREEMENT = 3.0
NUM_DRAWS = 200


def recalibrate(
    posterior: Posterior,
    trials: Recording,
    *,
    method: Laplace | None = None,
    max_new_patterns: int = LARGEST_DIMENSION,
    progress: bool = True,
) -> Posterior:
    """Learn from stimulation trials (`update_posterior`), with the scale of K and the gain of a random bulk set free.

    Scales that were inferred keep their priors. One that was fixed gets a log-normal prior with its value as the median
    and the spread that is the default for an inferred one (1 for K, 1.5 for the gain); so it moves only as far as the
    trials, all together, ask for it.

    Args:
        posterior: a Laplace posterior.
        trials: new trials, with stimulation that differs from what the recording has.
        method, max_new_patterns, progress: as in `update_posterior`.

    Returns:
        The posterior of all trials at the new scales, which are in `statistics.scales`. Its diagnostics hold the old
        values ("gain before", "K before") and, where the trials added patterns, the gain by the old patterns and by
        the new ones alone. Where these differ by more than three standard deviations, the status says so: then the bulk
        is not the same in all directions, and the gain of what is still unseen is not known.

    Raises:
        ValueError, FitError: as `update_posterior`.
    """
    require_instance(posterior, "posterior", Posterior, "pass what fit(...) returned")
    freed = with_free_scales(posterior.settled_model)
    found = updated(posterior, freed, trials, method, max_new_patterns, progress)
    before = {f"{name} before": posterior.model.scale(name) for name in found.scale_priors}
    gains, status = _gains(found, posterior), found.status
    if len(gains) == 2:
        (old, old_spread), (new, new_spread) = gains.values()
        before |= {"gain by old patterns": old, "gain by new patterns": new}
        apart = abs(np.log(new / old)) / np.hypot(old_spread, new_spread)
        if apart > LARGEST_DISAGREEMENT and status == CONVERGED:
            status = (
                f"beware: the gain of the bulk is {old:.2g} by the patterns that were visited before and {new:.2g} by "
                f"those of the new trials, {apart:.1f} standard deviations apart"
            )
    diagnostics = {**found.statistics.diagnostics, **before}
    statistics = dataclasses.replace(found.statistics, diagnostics=diagnostics)
    return dataclasses.replace(found, statistics=statistics, status=status)


def with_free_scales(model: LowRankModel) -> LowRankModel:
    """A settled model in which the scale of K and the gain of a random bulk have priors, around their values."""
    K, freed = model.priors.K, dict[str, Scale]()
    fixed = {of_type("K", name): each for name, each in K.items()} if isinstance(K, ByCellType) else {"K": K}
    defaults = {name: _spread(CorrelatedLoadings().K) for name in fixed}
    if isinstance(model.background, RandomBulk):
        fixed["gain"], defaults["gain"] = model.background.gain, _spread(RandomBulk().gain)
    for name, scale in fixed.items():
        if not isinstance(scale, ScalePrior):
            freed[name] = ScalePrior(scale, defaults[name])
    return model.with_scales(freed)


def _spread(scale: object) -> float:
    """Spread of a prior that is a default of this package."""
    return require_instance(scale, "scale", ScalePrior).spread


def _gains(found: Posterior, before: Posterior) -> dict[str, tuple[float, float]]:
    """Gain by the old and by the new patterns alone, and the standard deviations of their logarithms.

    The whitened columns z of A have the prior Normal(0, 1) at the gain g. By themselves they would give (MacKay 1992,
    doi:10.1162/neco.1992.4.3.415)

        g² |E z|² / gamma,      gamma = number of entries - tr Cov z,

    with a standard deviation of the logarithm of 1 / sqrt(2 gamma).
    """
    if found.subspace is None or before.subspace is None or found.subspace.shape == before.subspace.shape:
        return {}
    z = found.space.coordinates(found.distribution.sample(NUM_DRAWS, seed=found.seed), "A")
    num_old = before.subspace.shape[1]
    gains = {}
    for name, part in (("old", z[:, :, :num_old]), ("new", z[:, :, num_old:])):
        variance = float(part.var(axis=0, ddof=1).sum())
        gamma = part[0].size - variance
        power = float(np.sum(part.mean(axis=0) ** 2)) - variance / NUM_DRAWS
        if gamma <= 0.0 or power <= 0.0:
            return {}
        gains[name] = (found.model.scale("gain") * np.sqrt(power / gamma), 1.0 / np.sqrt(2.0 * gamma))
    return gains
