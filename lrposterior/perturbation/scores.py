"""What the draws of a posterior say about the responses to every candidate, added up over conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from lrposterior.bulk import UNSEEN, unseen_stream
from lrposterior.distribution import StructuredDistribution
from lrposterior.observations import GaussianObservation
from lrposterior.perturbation.experiment import Experiment
from lrposterior.perturbation.first_order import first_order_spreads, spectrum_where_known
from lrposterior.perturbation.responses import Quantity, Responses, halted_networks, simulate_blocks
from lrposterior.posterior import Posterior
from lrposterior.precision import double_precision
from lrposterior.rollouts import simulate_draws
from lrposterior.runaways import require_mostly_bounded, runs_away
from lrposterior.spectrum import displacements
from lrposterior.structured.factor_changes import CoordinateChanges

DEGENERATE_DRAWS = 100


class Scores(NamedTuple):
    """Sums over the window, the conditions and the neurons, by candidate.

    Attributes:
        mean_power: (candidate,) unbiased estimate of |E q|².
        spread: (candidate,) tr Cov q, over draws of the network.
        noise_spread: (candidate,) the mean over draws of the variance that process noise gives to q in one trial.
        subset_spread: (candidate,) tr Cov q from a subset of the draws, or under Dale's law to first order.
        degenerate_spread: (candidate,) the same from this subset, the constrained directions held at the mode, or to
            first order from the degenerate directions.
        prior_spread: (candidate,) tr Cov q of draws of the prior.
        information: (candidate,) expected information gain in nats.
        powers: (draw, candidate) |q|² of every draw.
        readout: (draw, candidate, time) readout of the response, averaged over conditions.
        response_mean, response_sd: (candidate, condition, time, neuron) over draws, in single precision.
    """

    mean_power: np.ndarray
    spread: np.ndarray
    noise_spread: np.ndarray
    subset_spread: np.ndarray
    degenerate_spread: np.ndarray
    prior_spread: np.ndarray
    information: np.ndarray
    powers: np.ndarray
    readout: np.ndarray
    response_mean: np.ndarray
    response_sd: np.ndarray


class BoundedDraws(NamedTuple):
    """Networks that do not run away.

    Attributes:
        z: (draw, coordinate) of the posterior.
        posterior: the same by name, with what no recording sees.
        prior: draws of the prior by name, or None where more than half of them run away.
        stays: (draw,) which of all draws of the posterior are left.
    """

    z: np.ndarray
    posterior: dict[str, np.ndarray]
    prior: dict[str, np.ndarray] | None
    stays: np.ndarray


def bounded_draws(posterior: Posterior, num_draws: int, seed: int) -> BoundedDraws:
    """Draws of the posterior, as many of the prior, and of both those that do not run away.

    Raises:
        ValueError: if more than half of the draws of the posterior run away.
    """
    z = posterior.distribution.sample(num_draws, seed=seed)
    draws = posterior.named_draws(z, unseen_stream(seed))
    stays = ~runs_away(posterior, draws)
    require_mostly_bounded(stays)
    # A stream of its own: the draws of the posterior come from default_rng(seed).
    of_prior = np.random.default_rng([seed, 1])
    standard = of_prior.standard_normal((num_draws, posterior.space.size))
    prior_draws = posterior.named_draws(standard, of_prior)
    prior_stays = ~runs_away(posterior, prior_draws)
    kept_prior = _some(prior_draws, prior_stays) if np.mean(prior_stays) >= 0.5 else None
    return BoundedDraws(z[stays], _some(draws, stays), kept_prior, stays)


def _some(draws: dict[str, np.ndarray], stays: np.ndarray) -> dict[str, np.ndarray]:
    return {name: value[stays] for name, value in draws.items()}


@double_precision
def score_candidates(
    posterior: Posterior,
    experiment: Experiment,
    quantity: Quantity,
    readout: np.ndarray,
    draws: BoundedDraws,
    seed: int,
    progress: bool,
) -> Scores:
    """Score all candidates by draws of the posterior and of the prior; NaN as prior_spread where it has none."""
    stride = max(1, len(draws.z) // DEGENERATE_DRAWS)
    scores = _empty_scores(experiment, len(draws.z))
    # Networks that diverge are found afterwards, by what is not finite.
    with (
        np.errstate(over="ignore", invalid="ignore"),
        tqdm(total=3 * experiment.num_candidates, unit="candidate", disable=not progress) as bar,
    ):
        bar.set_description("posterior")
        _score_posterior(scores, posterior, experiment, quantity, draws.posterior, readout, stride, bar)
        bar.set_description("prior")
        if draws.prior is None:
            scores.prior_spread[:] = np.nan
            bar.update(experiment.num_candidates)
        else:
            _add_spreads(scores.prior_spread, posterior, experiment, quantity, draws.prior, bar)
        bar.set_description("degenerate directions")
        if posterior.space.is_signed:
            spreads = first_order_spreads(posterior, experiment, quantity, seed, bar)
            scores.degenerate_spread[:], scores.subset_spread[:] = spreads
        elif (z_degenerate := _hold_constrained(posterior, draws.z[::stride])) is None:
            scores.degenerate_spread[:] = np.nan
            bar.update(experiment.num_candidates)
        else:
            unseen = {name: draws.posterior[name][::stride] for name in UNSEEN if name in draws.posterior}
            degenerate_draws = posterior.named_draws(z_degenerate, unseen_stream(seed)) | unseen
            _add_spreads(scores.degenerate_spread, posterior, experiment, quantity, degenerate_draws, bar)
    return scores


def _score_posterior(
    scores: Scores,
    posterior: Posterior,
    experiment: Experiment,
    quantity: Quantity,
    draws: Mapping[str, np.ndarray],
    readout: np.ndarray,
    stride: int,
    bar: tqdm,
) -> None:
    observed, noise_scale = _seen_noise(posterior)
    networks = halted_networks(posterior.model, draws, experiment)
    gram: dict[int, np.ndarray] = {}
    blocks = simulate_blocks(networks, experiment, (quantity, observed), with_gram=True)
    for candidates, conditions, simulated in blocks:
        for row, candidate in enumerate(candidates):
            _add(scores, candidate, conditions, simulated[quantity][row], readout, stride, networks.num_noise)
            products = simulated[observed][row].gram(noise_scale)
            gram[candidate] = gram[candidate] + products if candidate in gram else products
            if conditions.stop == experiment.num_conditions:
                scores.information[candidate] = _information(gram.pop(candidate))
                bar.update()
    scores.readout[:] /= experiment.num_conditions


def _seen_noise(posterior: Posterior) -> tuple[Quantity, np.ndarray]:
    """What is observed of a response, and the standard deviation of its noise (neuron,).

    Of counts and spike rates it is the current, and the noise is what the mean information of a fitted bin about it
    says. Of calcium it is the rate: a trace and its first bin say the same as (y[t] - gamma y[t-1]) / (1 - gamma),
    which is the rate with independent noise of noise_scale / (1 - gamma).
    """
    model, recording = posterior.model, posterior.recording
    if model.observation.of == "calcium":
        return "rate", posterior.mode["noise_scale"] / -np.expm1(-recording.dt / posterior.mode["decay_time"])
    if isinstance(model.observation, GaussianObservation):
        return model.observation.of, posterior.mode["noise_scale"]
    mode = {name: value[None] for name, value in posterior.mode.items()}
    currents = jnp.asarray(simulate_draws(model, mode, recording, quantity="current")[0])
    parameters = {name: jnp.asarray(value) for name, value in model.coordinates(posterior.mode, recording.dt).items()}
    emission = model.emission_of_trials(parameters, model.data(recording))
    weights = emission.weights(jnp.ones(currents.shape, dtype=bool), currents)
    return "current", np.asarray(jnp.mean(weights, axis=(0, 1))) ** -0.5


def _add_spreads(
    spreads: np.ndarray,
    posterior: Posterior,
    experiment: Experiment,
    quantity: Quantity,
    draws: Mapping[str, np.ndarray],
    bar: tqdm,
) -> None:
    """Add tr Cov q of the draws to spreads (candidate,)."""
    networks = halted_networks(posterior.model, draws, experiment)
    for candidates, conditions, simulated in simulate_blocks(networks, experiment, (quantity,)):
        spreads[candidates] += [
            responses.spread() - float(responses.noise.mean()) / networks.num_noise for responses in simulated[quantity]
        ]
        if conditions.stop == experiment.num_conditions:
            bar.update(len(candidates))


def _empty_scores(experiment: Experiment, num_draws: int) -> Scores:
    shape = (experiment.num_candidates,)
    return Scores(
        mean_power=np.zeros(shape),
        spread=np.zeros(shape),
        noise_spread=np.zeros(shape),
        subset_spread=np.zeros(shape),
        degenerate_spread=np.zeros(shape),
        prior_spread=np.zeros(shape),
        information=np.zeros(shape),
        powers=np.zeros((num_draws, *shape)),
        readout=np.zeros((num_draws, *shape, experiment.num_bins)),
        response_mean=np.zeros(experiment.shape, np.float32),
        response_sd=np.zeros(experiment.shape, np.float32),
    )


def _add(
    scores: Scores,
    candidate: int,
    conditions: slice,
    responses: Responses,
    readout: np.ndarray,
    stride: int,
    num_noise: int,
) -> None:
    """Add what a candidate does under some of the conditions."""
    mean, variance = responses.moments()
    # An average over S realisations of the noise still has a part 1 / S of its variance.
    left_over = float(responses.noise.mean()) / num_noise
    total = float(np.sum(variance))
    subset = responses.every(stride)
    # |m|² of a mean of S draws is too large by tr Cov / S on average.
    scores.mean_power[candidate] += np.sum(mean**2 - variance / responses.num_draws)
    scores.spread[candidate] += max(total - left_over, 0.0)
    scores.noise_spread[candidate] += float(responses.noise.mean())
    scores.subset_spread[candidate] += max(subset.spread() - float(subset.noise.mean()) / num_noise, 0.0)
    scores.powers[:, candidate] += responses.powers()
    num_bins = scores.readout.shape[2]
    scores.readout[:, candidate] += responses.readout(readout).reshape(responses.num_draws, -1, num_bins).sum(axis=1)
    shape = scores.response_mean[candidate, conditions].shape
    scores.response_mean[candidate, conditions] = mean.reshape(shape)
    scores.response_sd[candidate, conditions] = np.sqrt(variance).reshape(shape)


def _information(gram: np.ndarray) -> float:
    """1/2 log det(I + G^-1/2 Cov G^-1/2) from the inner products of the draws (draw, draw), in nats.

    With the centred draws Q (draw, :) the covariance is Q^T Q / (S - 1), and the determinant is that of
    I + Q G^-1 Q^T / (S - 1). Centring Q takes the means off the rows and the columns of the inner products.
    """
    if not np.all(np.isfinite(gram)):
        return np.nan
    centred = gram - gram.mean(axis=0) - gram.mean(axis=1, keepdims=True) + gram.mean()
    return 0.5 * float(np.linalg.slogdet(np.eye(len(gram)) + centred / (len(gram) - 1))[1])


def _hold_constrained(posterior: Posterior, z: np.ndarray) -> np.ndarray | None:
    """Draws (draw, coordinate) with every direction in which the data say more than the prior held at the mode.

    None where a sampled posterior has too few draws to tell the directions apart, or they are too many for memory; and
    of a generalised posterior.
    """
    space, mode, distribution = posterior.space, posterior.mode_coordinates, posterior.distribution
    held = np.tile(mode, (len(z), 1))
    if isinstance(distribution, StructuredDistribution):
        held[:, : space.num_dynamics] += _free_part(distribution, displacements(space, mode, z).T).T
        return held
    spectrum = spectrum_where_known(posterior)
    if spectrum is None:
        return None
    free = spectrum.directions[:, spectrum.information < 1.0]
    moved = displacements(space, mode, z)
    held[:, : space.num_dynamics] += (moved @ free) @ free.T
    return held


def _free_part(distribution: StructuredDistribution, moved: np.ndarray) -> np.ndarray:
    """The part of (dynamics coordinate, draw) along directions with more than half of the prior variance."""
    changes = CoordinateChanges.of(distribution.typical_covariance(), distribution.unit)
    whitened = np.empty_like(moved)
    whitened[distribution.places] = moved
    return changes.above(0.5, whitened)[distribution.places]
