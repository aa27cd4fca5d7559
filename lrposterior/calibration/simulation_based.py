"""Simulation-based calibration of any method that fits."""

from __future__ import annotations

from collections.abc import Sequence

from tqdm.auto import tqdm

from lrposterior.calibration.calibration_result import CalibrationResult
from lrposterior.calibration.quantities import (
    FEWEST_BINS,
    FEWEST_NEURONS,
    Quantities,
    gauge_invariant_quantities,
)
from lrposterior.calibration.simulated_truth import Fit, Size, require_proper, simulate_truth
from lrposterior.checks import argument_error, require_integer
from lrposterior.model import LowRankModel


def simulate_calibration(
    model: LowRankModel,
    fit: Fit,
    *,
    num_simulations: int,
    num_neurons: int,
    num_trials: int = 12,
    num_bins: int = 60,
    dt: float = 0.02,
    num_inputs: int = 2,
    cell_types: Sequence[str] | None = None,
    quantities: Quantities = gauge_invariant_quantities,
    num_draws: int = 299,
    seed: int,
    progress: bool = True,
) -> CalibrationResult:
    """Is a posterior right? Fit recordings of networks drawn from the prior, and rank the truth among the draws.

    Under a right posterior the truth is one more draw, and the rank of any quantity is uniform (Talts et al. 2018,
    arXiv:1804.06788). Networks are drawn with all that the model leaves to be inferred; prior scales that have a prior
    are drawn from it.

    Args:
        model: the model that is fitted, and from whose priors the truths come. The unit of its priors has to be a
            number, unless the nonlinearity is bounded.
        fit: what makes a posterior from (model, recording, seed), for instance
            ``lambda model, recording, seed: lrp.fit(model, recording, "laplace", seed=seed, progress=False)``. Where it
            raises a `FitError`, the reason is kept in the result; any other error ends the run.
        num_simulations: how many truths. A band of 100 ranks reaches to 0.14 on either side, of 300 to 0.09.
        num_neurons, num_trials, num_bins, num_inputs: size of the recordings.
        dt: bin width in seconds.
        cell_types: (neuron,) types of the neurons, where the model asks for them.
        quantities: what is ranked: a function of `Networks` that gives scalars by name, (draw,) each. They have to be
            the same in every gauge.
        num_draws: draws of every posterior. Of a Markov chain take about as many as its effective sample size: ranks
            among draws that depend on each other are not uniform.
        seed: of the first simulation; the next ones count from there. It is that of the truth, of the fit and of the
            draws.
        progress: show a progress bar.

    Raises:
        ValueError: if an argument is out of its range, a network drawn from the prior diverges, or every fit refuses.
    """
    require_proper(model)
    if not callable(fit):
        raise argument_error("fit", "a function of (model, recording, seed)", repr(fit)[:60], "wrap it in a lambda")
    num_simulations = require_integer(num_simulations, "num_simulations", minimum=1)
    num_draws = require_integer(num_draws, "num_draws", minimum=1)
    default = quantities is gauge_invariant_quantities
    size = Size(
        num_neurons=require_integer(num_neurons, "num_neurons", minimum=FEWEST_NEURONS if default else 1),
        num_trials=require_integer(num_trials, "num_trials", minimum=1),
        num_bins=require_integer(num_bins, "num_bins", minimum=FEWEST_BINS if default else 2),
        dt=dt,
        num_inputs=require_integer(num_inputs, "num_inputs"),
        cell_types=cell_types,
    )
    first = require_integer(seed, "seed")
    simulations = [
        simulate_truth(model, size, fit, quantities=quantities, num_draws=num_draws, seed=one)
        for one in tqdm(range(first, first + num_simulations), unit="fit", disable=not progress)
    ]
    return CalibrationResult.of(simulations)
