"""What a posterior predicts for perturbations that were never applied, and how sure it is."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from lrposterior.checks import (
    argument_error,
    as_array,
    require_choice,
    require_finite,
    require_instance,
    require_integer,
    require_shape,
)
from lrposterior.circuits.posterior import NetworkPosterior
from lrposterior.connectivity import require_memory
from lrposterior.misfit import check_fit
from lrposterior.perturbation.candidates import Candidates
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.networks import network_responses
from lrposterior.perturbation.ranking import QUANTILES, PerturbationRanking, require_criterion
from lrposterior.perturbation.responses import Quantity, response_draws
from lrposterior.perturbation.scores import bounded_draws, score_candidates
from lrposterior.posterior import Posterior, require_uncertainty
from lrposterior.runaways import describe_runaways

MAX_GIGABYTES = 4.0
MAX_STORED_GIGABYTES = 2.0
QUANTITIES = ("current", "rate")
# A candidate rests on a few draws where so many of them would have its power, were they alike; of fewer draws in all
# that means nothing. So many candidates are named.
SMALLEST_PART, FEWEST_DRAWS_WARNED, NUM_NAMED = 0.1, 20, 8
Criterion = Literal["certainty", "contraction", "information"]


def predict_responses(
    posterior: Posterior | NetworkPosterior,
    candidates: Candidates,
    *,
    inputs: Any = None,
    window: tuple[float, float] | None = None,
    quantity: Quantity = "current",
    num_draws: int = 300,
    seed: int | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Posterior draws of the response to every candidate, without the direct feed-through of the stimulation.

        current:  x_perturbed - x_unperturbed - s_filtered
        rate:     phi(x_perturbed) - phi(x_unperturbed + s_filtered)

    where s_filtered is the stimulation filtered with the neurons' time constant: what a network without any
    connectivity would add. With process noise it is the average over the noise, which perturbed and unperturbed
    trajectories share: over 8 realisations for every draw. The first response comes two bins after the onset: one bin
    later the stimulation has moved the currents of its own neurons, two bins later they have moved the others.

    All draws are returned, also networks whose activity runs away, which rates without an upper bound allow: their mean
    says nothing then. `keep_bounded` leaves such draws out.

    Args:
        posterior: a fitted network, of any family. In a `LatentCircuit`, which has rates alone, the direct effect is
            what the stimulation does to nodes that receive the unperturbed rates of the others.
        candidates: the perturbations, with the bins of the inputs.
        inputs: (condition, time, input) inputs of the conditions under which to perturb; None takes the different time
            courses among the recording's trials (one condition without input where there are none). A free initial
            state is the mean of the fitted initial latents. Stimulation during the recording is not repeated.
        window: (start, stop) in s from the start of the trial: the bins that start at or after `start` and before
            `stop`. None takes all bins after that of the onset.
        quantity: "current" or "rate".
        num_draws: number of draws.
        seed: of the draws; None takes the seed of the fit.
        progress: show a progress bar.

    Returns:
        (draw, candidate, condition, time, neuron).

    Raises:
        ValueError: if the arguments do not fit each other, or the result would exceed 4 GB.
    """
    experiment = make_experiment(posterior, candidates, inputs, window)
    require_choice(quantity, "quantity", QUANTITIES)
    num_draws = require_integer(num_draws, "num_draws", minimum=1)
    seed = _seed(posterior, seed)
    require_memory(
        num_draws * int(np.prod(experiment.shape)),
        "num_draws",
        MAX_GIGABYTES,
        "ask for fewer draws, candidates or conditions, or a shorter window; rank_perturbations keeps no draws",
    )
    draws = posterior.sample_parameters(num_draws, seed=seed)
    if isinstance(posterior, NetworkPosterior):
        # Networks that diverge are found afterwards, by what is not finite.
        with np.errstate(over="ignore", invalid="ignore"):
            responses = network_responses(posterior, draws, experiment, quantity)
    else:
        responses = response_draws(posterior.model, draws, experiment, quantity, progress=progress)
    _require_finite_responses(responses, candidates)
    return responses


def rank_perturbations(
    posterior: Posterior,
    candidates: Candidates,
    *,
    inputs: Any = None,
    by: Criterion = "certainty",
    window: tuple[float, float] | None = None,
    readout: Any = None,
    quantity: Quantity = "current",
    num_draws: int = 300,
    seed: int | None = None,
    progress: bool = True,
) -> PerturbationRanking:
    """Rank perturbations by how well the posterior predicts their responses, or by how much they would teach.

    - "certainty": the R² that the prediction is expected to have. If the posterior is right, it is what an experiment
      will find on average.
    - "contraction": how much of the prior's uncertainty about the response the recording has removed.
    - "information": how much one perturbed trial per condition would teach about the network.

    The most certain and the most informative perturbations are as a rule opposite ends of the list. All three are
    always computed, see `PerturbationRanking` for their definitions; `PerturbationRanking.ranked_by` changes between
    them.

    Draws of the posterior and of the prior whose activity runs away in trials like the recorded ones are left out: all
    of it is given that activity stays bounded, and `warnings` say how many draws of the posterior that concerns (see
    `keep_bounded`).

    Args:
        posterior: a fitted network.
        candidates: the perturbations, with the bins of the inputs; at matched power, or else certainty follows power.
        inputs: as in `predict_responses`.
        by: the criterion.
        window: as in `predict_responses`.
        readout: (neuron,) weights of a readout whose sign and size are predicted; None takes the mean over neurons.
        quantity: "current" or "rate": what all scores but the information are about.
        num_draws: draws of the posterior, and as many of the prior.
        seed: of the draws; None takes the seed of the fit.
        progress: show a progress bar.

    Raises:
        ValueError: if the arguments do not fit each other, more than half of the draws run away, a network diverges,
            or the predicted responses would exceed 2 GB.
    """
    require_instance(posterior, "posterior", Posterior, "rank with a fit of a LowRankModel")
    require_uncertainty(posterior)
    experiment = make_experiment(posterior, candidates, inputs, window)
    require_criterion(by)
    require_choice(quantity, "quantity", QUANTITIES)
    num_draws = require_integer(
        num_draws, "num_draws", minimum=2, mend="a spread needs 2 draws at least, and intervals 300"
    )
    seed = _seed(posterior, seed)
    weights = _readout(readout, experiment.shape[3])
    require_memory(
        int(np.prod(experiment.shape)),
        "candidates",
        MAX_STORED_GIGABYTES,
        "rank fewer candidates at a time with candidates.select(...), or fewer conditions or a shorter window",
    )
    draws = bounded_draws(posterior, num_draws, seed)
    scores = score_candidates(posterior, experiment, quantity, weights, draws, seed, progress)
    _require_finite_responses(scores.response_sd[None], candidates)
    spread, mean_power = scores.spread, np.maximum(scores.mean_power, 0.0)
    power = mean_power + spread
    prior_is_finite = np.isfinite(scores.prior_spread) & (scores.prior_spread > 0.0)
    share = _ratio(np.maximum(scores.degenerate_spread, 0.0), scores.subset_spread, scores.subset_spread > 0.0)
    window_mean = scores.readout.mean(axis=2)
    positive, negative = (window_mean > 0.0).mean(axis=0), (window_mean < 0.0).mean(axis=0)
    return PerturbationRanking(
        labels=candidates.labels,
        power=candidates.power,
        by=require_criterion(by, np.where(prior_is_finite, 0.0, np.nan)),
        quantity=quantity,
        times=np.arange(experiment.start, experiment.stop) * experiment.dt,
        num_draws=len(draws.z),
        seed=seed,
        expected_r2=_ratio(mean_power, power, power > 0.0),
        noise_share=_ratio(scores.noise_spread, scores.noise_spread + spread, scores.noise_spread + spread > 0.0),
        contraction=1.0 - _ratio(spread, scores.prior_spread, prior_is_finite),
        information=scores.information,
        share_degenerate=np.minimum(share, 1.0),
        readout=weights,
        sign_certainty=np.maximum(positive, negative),
        readout_mean=window_mean.mean(axis=0),
        readout_interval=np.quantile(window_mean, [QUANTILES[0], QUANTILES[-1]], axis=0).T,
        readout_bands=np.moveaxis(np.quantile(scores.readout, QUANTILES, axis=0), 0, 1),
        response_mean=scores.response_mean,
        response_sd=scores.response_sd,
        warnings=(
            *(() if draws.stays.all() else (describe_runaways(draws.stays),)),
            *_resting_on_few_draws(scores.powers, candidates),
            *(() if posterior.status == "converged" else (posterior.status,)),
            *posterior.warnings,
            *check_fit(posterior).warnings,
            *((posterior.caveat,) if posterior.caveat else ()),
        ),
    )


def _resting_on_few_draws(powers: np.ndarray, candidates: Candidates) -> tuple[str, ...]:
    """A warning of candidates whose power is that of a few draws: (sum p)² / sum p² of powers p (draw, candidate)."""
    num_draws = len(powers)
    total = powers.sum(axis=0)
    effective = _ratio(total**2, np.sum(powers**2, axis=0), total > 0.0)
    few = np.flatnonzero(effective < SMALLEST_PART * num_draws)
    if num_draws < FEWEST_DRAWS_WARNED or not few.size:
        return ()
    named = ", ".join(repr(candidates.labels[place]) for place in few[:NUM_NAMED])
    more = ", ..." if len(few) > NUM_NAMED else ""
    return (
        f"under {len(few)} of {len(effective)} candidates ({named}{more}) fewer than a tenth of the {num_draws} draws "
        "have nearly all of the response's power: certainty, contraction and information rest on these networks. Ask "
        "for a shorter window, or fit more trials or a tighter prior",
    )


def _ratio(numerator: np.ndarray, denominator: np.ndarray, defined: np.ndarray) -> np.ndarray:
    """The ratio, or NaN where it is not defined."""
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)


def _readout(readout: Any, num_neurons: int) -> np.ndarray:
    if readout is None:
        return np.full(num_neurons, 1.0 / num_neurons)
    weights = as_array(readout, "readout", ("neuron",))
    require_shape(weights, "readout", {"neuron": num_neurons}, "give one weight per neuron")
    require_finite(weights, "readout", "write 0 for neurons that do not count")
    if not weights.any():
        raise argument_error("readout", "a weight that is not 0", "zeros only", "weigh the neurons that are read out")
    return weights.astype(np.float64)


def _seed(posterior: Posterior | NetworkPosterior, seed: int | None) -> int:
    return posterior.seed if seed is None else require_integer(seed, "seed")


def _require_finite_responses(responses: np.ndarray, candidates: Candidates) -> None:
    """Refuse responses (draw, candidate, ...) of networks that diverge."""
    bad = ~np.isfinite(responses.reshape(*responses.shape[:2], -1)).all(axis=(0, 2))
    if bad.any():
        label = candidates.labels[int(np.flatnonzero(bad)[0])]
        raise argument_error(
            "posterior",
            "networks whose responses are finite",
            f"draws that diverge under {bad.sum()} candidates (the first is {label!r})",
            "end the window earlier, or fit a bounded nonlinearity or a tighter prior",
        )
