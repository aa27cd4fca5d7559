"""One simulation of simulation-based calibration: a truth from the prior, its fit, and its rank among the draws."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lrposterior.background import FixedBackground, RandomBulk
from lrposterior.calibration.quantities import Networks, Quantities, gauge_invariant_quantities
from lrposterior.checks import argument_error, require_instance
from lrposterior.fit_error import FitError
from lrposterior.model import LowRankModel
from lrposterior.network import NONLINEARITIES
from lrposterior.posterior import Posterior
from lrposterior.recording import Recording
from lrposterior.simulation import Simulation, simulate_recording

Fit = Callable[[LowRankModel, Recording, int], Posterior]


@dataclass(frozen=True)
class Size:
    """The size of the simulated recordings.

    Attributes:
        num_neurons, num_trials, num_bins, num_inputs: how many.
        dt: bin width in seconds.
        cell_types: (neuron,) types of the neurons, where the model asks for them.
    """

    num_neurons: int
    num_trials: int = 12
    num_bins: int = 60
    dt: float = 0.02
    num_inputs: int = 2
    cell_types: Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class SimulatedTruth:
    """What became of one truth.

    Attributes:
        seed: seed of the truth, of its fit and of the draws.
        refusal: why there was no fit, or None.
        status: "converged", or what to beware of.
        seconds: duration of the fit.
        num_draws: draws of the posterior.
        below: by quantity, the number of draws below the truth.
        equal: by quantity, the number of draws equal to the truth.
        error: by quantity, (truth - posterior mean) / posterior standard deviation.
        diagnostics: convergence measures of the fit, by name.
    """

    seed: int
    refusal: str | None = None
    status: str = ""
    seconds: float = float("nan")
    num_draws: int = 0
    below: Mapping[str, int] = field(default_factory=dict)
    equal: Mapping[str, int] = field(default_factory=dict)
    error: Mapping[str, float] = field(default_factory=dict)
    diagnostics: Mapping[str, float] = field(default_factory=dict)


def require_proper(model: LowRankModel) -> None:
    """Refuse a model whose prior is not complete before there is a recording.

    Raises:
        ValueError: where the unit of the currents is taken from the recording.
    """
    require_instance(model, "model", LowRankModel)
    if model.priors.unit is None and not NONLINEARITIES[model.nonlinearity].bounded:
        raise argument_error(
            "model",
            "priors whose unit is a number: no truth can be drawn from a prior that waits for the recording",
            "unit=None",
            "give one, as in Priors(unit=1.0)",
        )


def with_drawn_scales(model: LowRankModel, *, seed: int) -> LowRankModel:
    """The model with every prior scale that is inferred drawn from its prior."""
    # A stream of its own: where no scale is inferred, the network is that of simulate_recording with this seed.
    random = np.random.default_rng([seed, 2])
    scales = {
        name: float(prior.median * np.exp(prior.spread * random.standard_normal()))
        for name, prior in model.scale_priors.items()
    }
    return model.with_scales(scales)


def draw_truth(model: LowRankModel, size: Size, *, seed: int) -> Simulation:
    """A network drawn from the prior, scales that are inferred included, and its recording."""
    options = {one.name: getattr(size, one.name) for one in dataclasses.fields(size)}
    return simulate_recording(with_drawn_scales(model, seed=seed), seed=seed, **options)


def simulate_truth(
    model: LowRankModel,
    size: Size,
    fit: Fit,
    *,
    quantities: Quantities = gauge_invariant_quantities,
    num_draws: int,
    seed: int,
) -> SimulatedTruth:
    """Draw a truth, record and fit it, and rank its quantities among those of the draws.

    Raises:
        ValueError: if the network drawn from the prior diverges, or a quantity is not one finite number a draw.
    """
    simulation = draw_truth(model, size, seed=seed)
    started = time.perf_counter()
    try:
        posterior = fit(model, simulation.recording, seed)
    except FitError as refusal:
        return SimulatedTruth(seed, refusal=str(refusal))
    seconds = time.perf_counter() - started
    require_instance(posterior, "fit", Posterior, "return what lrposterior.fit returns")
    drawn = _quantities(
        quantities,
        Networks(posterior.model, posterior.sample_parameters(num_draws, seed=seed), simulation.recording),
        num_draws,
    )
    true = _quantities(quantities, _true_network(posterior.model, simulation), 1)
    return SimulatedTruth(
        seed,
        status=posterior.status,
        seconds=seconds,
        num_draws=num_draws,
        below={name: int(np.sum(values < true[name])) for name, values in drawn.items()},
        equal={name: int(np.sum(values == true[name])) for name, values in drawn.items()},
        error={name: _error(values, float(true[name][0])) for name, values in drawn.items()},
        diagnostics={name: float(value) for name, value in posterior.statistics.diagnostics.items()},
    )


def _true_network(model: LowRankModel, simulation: Simulation) -> Networks:
    parameters = {name: np.asarray(value)[None] for name, value in simulation.parameters.items()}
    if "W0" in parameters and isinstance(model.background, RandomBulk):
        model = dataclasses.replace(model, background=FixedBackground(parameters.pop("W0")[0]))
    return Networks(model, parameters, simulation.recording)


def _quantities(quantities: Quantities, networks: Networks, num_draws: int) -> dict[str, np.ndarray]:
    found = {name: np.asarray(values) for name, values in quantities(networks).items()}
    for name, values in found.items():
        if values.shape != (num_draws,) or not np.isfinite(values).all():
            got = f"{name!r} of shape {values.shape}" + (", not all finite" if values.shape == (num_draws,) else "")
            raise argument_error("quantities", f"{num_draws} finite numbers, one a draw", got, "reduce it to a scalar")
    return found


def _error(values: np.ndarray, true: float) -> float:
    sd = float(values.std())
    return (true - float(values.mean())) / sd if sd > 0.0 else float("nan")
