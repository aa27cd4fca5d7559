"""`compare_posteriors`: the change of W as seen through the patterns that both recordings visit, and the tests on it.

*Which patterns.* A recording tells of W what it does to the rates that occur, W r. So the read patterns are the
principal directions of the rates of both, as far as the posteriors know what W does to them. The write patterns are the
leading left singular vectors of the precision-weighted mean of both W V: if nothing changed, the noise of that mean is
independent of the noise of the difference, and a test is right only where it was not chosen by what it tests.

*Which uncertainty.* The posteriors are independent, so their covariances add. If both W are the same draw from the
prior, with posterior variances v_a and v_b over that of the prior along a direction, then the difference of the means
has the variance

    v_a + v_b - 2 v_a v_b,

where the tests take v_a + v_b: false alarms have the rate that is asked for where a recording says much, and are rarer
elsewhere.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from lrposterior.background import FixedBackground
from lrposterior.checks import argument_error, require_instance, require_integer, require_probability
from lrposterior.comparison.directions import find_directions
from lrposterior.comparison.projection import Draws, Moments, change_power, visited_patterns
from lrposterior.comparison.result import PosteriorComparison
from lrposterior.connectivity import require_memory
from lrposterior.distribution import SampleDistribution
from lrposterior.hidden import require_none_hidden
from lrposterior.posterior import MAX_GIGABYTES, Posterior, require_likelihood, require_uncertainty

# A read pattern must have this share of the power of the rates, a write pattern this of the squared norm of W V.
LEAST_SHARE, MOST_PATTERNS, LEAST_WRITTEN = 1e-3, 8, 1e-2
# And of the prior's variance of W V this must be gone, which takes no look at the change.
LEAST_TOLD = 0.8
FEWEST_DRAWS = 100


def compare_posteriors(
    before: Posterior, after: Posterior, *, level: float = 0.05, num_draws: int = 600, seed: int
) -> PosteriorComparison:
    """What differs between the W of two recordings of the same neurons, and what cannot be told.

    Args:
        before, after: posteriors of two conditions or sessions, fitted by any method to recordings of their own.
        level: rate of false alarms of every single test.
        num_draws: draws of each posterior and each prior; of a sampled posterior at most those it has.
        seed: of the draws.

    Returns:
        The change, `after` minus `before`, by directions, neurons and patterns, and of synapses that are asked for.

    Raises:
        ValueError: if they are of different neurons or known backgrounds, or an argument is out of its range.
    """
    for name, posterior in (("before", before), ("after", after)):
        require_instance(posterior, name, Posterior, "pass what fit(...) returned")
        require_uncertainty(posterior, name)
        require_likelihood(posterior, name)
        require_none_hidden(posterior.model.hidden_neurons, name)
    level = require_probability(level, "level")
    num_draws = require_integer(num_draws, "num_draws", minimum=FEWEST_DRAWS)
    require_integer(seed, "seed")
    _require_same_neurons(before, after)
    pair = before, after
    draws = [_draws(each, num_draws, seed + place) for place, each in enumerate(pair)]
    priors = [_prior_draws(each, num_draws, seed + place) for place, each in enumerate(pair)]
    rates = [each.mode_rates().reshape(-1, before.recording.num_neurons) for each in pair]
    visited = visited_patterns(np.concatenate(rates), LEAST_SHARE, MOST_PATTERNS)
    read = _told(visited, draws, priors)
    first, second = (each.incoming(read) for each in draws)
    write = _write_patterns(first, second)
    incoming, outgoing, between = (
        second.after(first),
        draws[1].outgoing(write).after(draws[0].outgoing(write)),
        draws[1].between(write, read).after(draws[0].between(write, read)),
    )
    prior_incoming = priors[1].incoming(read).after(priors[0].incoming(read))
    prior_outgoing = priors[1].outgoing(write).after(priors[0].outgoing(write))
    prior_between = priors[1].between(write, read).after(priors[0].between(write, read))
    shape = (write.shape[1], read.shape[1])
    variance = np.diag(between.covariance[0]).reshape(shape)
    num_used = min(each.num_draws for each in draws)
    mean_power, seen_spread = change_power(draws[0], draws[1])
    power_through = float(np.sum(incoming.mean**2) - np.sum(incoming.variance) / num_used)
    return PosteriorComparison(
        before=before,
        after=after,
        level=level,
        num_draws=num_used,
        seed=seed,
        num_visited=visited.shape[1],
        read_patterns=read,
        write_patterns=write,
        directions=find_directions(draws[0], draws[1], incoming, read, seed),
        change=between.mean.reshape(shape),
        change_sd=np.sqrt(variance),
        contraction=1.0 - variance / np.diag(prior_between.covariance[0]).reshape(shape),
        incoming_p=_p_values(incoming, num_used),
        incoming_contraction=1.0 - incoming.variance / prior_incoming.variance,
        outgoing_p=_p_values(outgoing, num_used),
        outgoing_contraction=1.0 - outgoing.variance / prior_outgoing.variance,
        mean_power=mean_power,
        power_through_patterns=max(power_through, 0.0),
        seen_spread=seen_spread,
        unseen_spread=sum(each.unseen_power for each in draws),
    )


def _require_same_neurons(before: Posterior, after: Posterior) -> None:
    first, second = before.recording, after.recording
    mend = "fit recordings of the same neurons, in the same order: recording.select(neurons=...)"
    if first.num_neurons != second.num_neurons:
        raise argument_error("after", f"the {first.num_neurons} neurons of before", f"{second.num_neurons}", mend)
    labels = first.neuron_labels, second.neuron_labels
    if None not in labels and labels[0] != labels[1]:
        raise argument_error("after", "the neuron labels of before", "others", mend)
    known = [_known(each) for each in (before, after)]
    same = len(known[0]) == len(known[1])
    if not (same and all(np.array_equal(one, other) for one, other in zip(*known, strict=True))):
        raise argument_error("after", "the known background of before", "another one", "fit both with the same one")


def _known(posterior: Posterior) -> list[np.ndarray]:
    """The arrays of a known background."""
    background = posterior.model.background
    if not isinstance(background, FixedBackground):
        return []
    arrays = [background.left, background.right]
    arrays += [*background.W0.coords, background.W0.data] if background.is_sparse else [background.W0]
    return [np.empty(0) if each is None else each for each in arrays]


def _draws(posterior: Posterior, num_draws: int, seed: int) -> Draws:
    if isinstance(posterior.distribution, SampleDistribution):
        num_draws = min(num_draws, posterior.distribution.draws[..., 0].size)
    num_neurons = posterior.recording.num_neurons
    width = posterior.model.rank + (0 if posterior.subspace is None else posterior.subspace.shape[1])
    size = 2 * num_draws * num_neurons * (num_neurons if posterior.space.is_dense else width)
    require_memory(size, "num_draws", MAX_GIGABYTES, "ask for fewer draws")
    return Draws.of(posterior, posterior.sample_connectivity(num_draws, seed=seed))


def _prior_draws(posterior: Posterior, num_draws: int, seed: int) -> Draws:
    """Draws of the prior at the scales that were found."""
    z = np.random.default_rng([seed, 1]).standard_normal((num_draws, posterior.space.size))
    return Draws.of(posterior, posterior.connectivity_of(posterior.named(z)))


def _told(visited: np.ndarray, draws: list[Draws], priors: list[Draws]) -> np.ndarray:
    """The patterns of which the posteriors know what W does to them; the best one where there is none."""
    of_posterior, of_prior = (
        sum(np.einsum("nrr->r", each.incoming(visited).covariance) for each in some) for some in (draws, priors)
    )
    contraction = 1.0 - of_posterior / of_prior
    return visited[:, contraction >= min(LEAST_TOLD, float(np.max(contraction)))]


def _write_patterns(before: Moments, after: Moments) -> np.ndarray:
    """(neuron, write) left singular vectors of the mean of both W V, weighted by their precisions."""
    weight = np.sum(before.variance) / (np.sum(before.variance) + np.sum(after.variance))
    U, values, _ = np.linalg.svd((1.0 - weight) * before.mean + weight * after.mean, full_matrices=False)
    return U[:, : max(1, int(np.sum(values**2 >= LEAST_WRITTEN * np.sum(values**2))))]


def _p_values(change: Moments, num_draws: int) -> np.ndarray:
    """(test,) P(chi² >= m^T C^-1 m) of means m and covariances C from some draws.

    The inverse of a covariance from S draws of p entries is too large by (S - 1) / (S - p - 2) (Hartlap, Simon and
    Schneider 2007, doi:10.1051/0004-6361:20066170).
    """
    mean, size = change.mean, change.mean.shape[1]
    distance = np.einsum("te,te->t", mean, np.linalg.solve(change.covariance, mean[:, :, None])[:, :, 0])
    return stats.chi2.sf(distance * (num_draws - size - 2) / (num_draws - 1), size)
