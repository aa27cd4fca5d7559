"""`fit`: one entry for every method."""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
import threadpoolctl
from tqdm.auto import tqdm

from lrposterior.background import RandomBulk
from lrposterior.checks import argument_error, require_choice, require_instance, require_integer
from lrposterior.circuits.models import FullRankNetwork, LatentCircuit, require_recording
from lrposterior.circuits.posterior import NetworkPosterior
from lrposterior.fit_error import FitError
from lrposterior.gauge import relative_distance
from lrposterior.inference import loadings
from lrposterior.inference.approximation import Approximation
from lrposterior.inference.balance import Balanced, balance
from lrposterior.inference.circuit_laplace import fit_circuit
from lrposterior.inference.ensemble import Ensemble, fit_ensemble
from lrposterior.inference.gauge_fixed import make_frame
from lrposterior.inference.gibbs import Gibbs, fit_gibbs
from lrposterior.inference.importance import Correction, correct, require_correction, standard_normal
from lrposterior.inference.initialise import initialise
from lrposterior.inference.laplace import (
    bent_normal,
    excess_of_draws,
    laplace,
    log_evidence,
    normal_at_mode,
    require_support,
)
from lrposterior.inference.match import Match, fit_match
from lrposterior.inference.mixture import combine, weigh
from lrposterior.inference.mode import Mode, Report, find_mode
from lrposterior.inference.noise_patterns import first_network
from lrposterior.inference.nuts import NUTS
from lrposterior.inference.problem import AnyProblem, Problem, dense
from lrposterior.inference.signed_fit import fit_signed
from lrposterior.inference.structured_problem import StructuredProblem, require_structured_memory
from lrposterior.inference.svi import SVI
from lrposterior.inference.variational_mean import shifted, variational_shift
from lrposterior.misfit import check_fit
from lrposterior.model import LowRankModel
from lrposterior.posterior import EXCESS, FitStatistics, Posterior
from lrposterior.precision import double_precision
from lrposterior.priors import DaleLoadings
from lrposterior.recording import Recording
from lrposterior.signed_background import SignedBackground
from lrposterior.structured.system import System
from lrposterior.time_constants import PerNeuron

logger = logging.getLogger(__name__)

# Up to this many coordinates the dense curvature is exact and quick.
MAX_DENSE = 750
# Where neurons have time constants or synapses of their own a likelihood carries latents of each: 64, of 32 neurons
# with time constants of their own, take a minute.
MAX_LATENTS = 64
MEANS = ("variational", "mode")


@dataclass(frozen=True)
class Laplace:
    """Normal approximation with the curvature at the mode, on the horizontal space; fast.

    Args:
        correction: "psis": resample draws of it by their importance weights, so that they come from the exact
            posterior as long as the two are not far apart (`lrposterior.inference.importance`): for small problems.
            They are proposed around the mode, whatever mean says; under Dale's law around the moved mean.
        mean: "variational": where the log density is stationary on average over the approximation
            (`lrposterior.inference.variational_mean`), unless that is far from the mode. "mode": at the mode, which
            lies to one side of the posterior's mass; half the time, but on few data the eigenvalues of W are off by
            half a standard deviation. Fits of more than 750 coordinates stay at the mode; under Dale's law the mean
            moves by what bends (`lrposterior.inference.bending`), whatever is asked for.

    Raises:
        ValueError: if an option is none of its choices.
    """

    correction: Correction | None = None
    mean: Literal["variational", "mode"] = "variational"

    def __post_init__(self) -> None:
        require_correction(self.correction)
        require_choice(self.mean, "mean", MEANS)

    def check(self, num_coordinates: int) -> None:
        """Every size that has a mode has a Laplace approximation."""

    def approximate(self, balanced: Balanced, *, seed: int, progress: bool) -> Approximation:
        problem = balanced.problem
        if self.correction is None:
            return self._normal(balanced)
        frame = make_frame(dense(problem), balanced.mode, "full")
        return correct(dense(problem), frame, standard_normal(problem.space), seed=seed)

    def _normal(self, balanced: Balanced) -> Approximation:
        problem, mode = balanced.problem, balanced.mode
        if problem.space.is_signed:
            normal = bent_normal(dense(problem), mode)
            return Approximation(normal, diagnostics={EXCESS: excess_of_draws(dense(problem), mode, normal)})
        distribution = laplace(problem, mode, balanced.scale_precision)
        if self.mean == "mode" or not isinstance(problem, Problem):
            return Approximation(distribution)
        shift, gained = variational_shift(problem, normal_at_mode(problem, mode))
        return Approximation(shifted(distribution, shift), diagnostics={"nats gained by the mean": gained})


Method = Laplace | SVI | NUTS
METHODS: dict[str, type[Method] | type[Ensemble] | type[Match]] = {
    "laplace": Laplace,
    "svi": SVI,
    "nuts": NUTS,
    "ensemble": Ensemble,
    "match": Match,
}


@overload
def fit(
    model: LowRankModel,
    recording: Recording,
    method: str | Method | Ensemble | Match | Gibbs = "laplace",
    *,
    seed: int,
    num_restarts: int = 0,
    max_iterations: int = 300,
    progress: bool = True,
) -> Posterior: ...


@overload
def fit(
    model: FullRankNetwork | LatentCircuit,
    recording: Recording,
    method: str | Laplace | Ensemble = "laplace",
    *,
    seed: int,
    num_restarts: int = 0,
    max_iterations: int = 300,
    progress: bool = True,
) -> NetworkPosterior: ...


def fit(
    model: LowRankModel | FullRankNetwork | LatentCircuit,
    recording: Recording,
    method: str | Method | Ensemble | Match | Gibbs = "laplace",
    *,
    seed: int,
    num_restarts: int = 0,
    max_iterations: int = 300,
    progress: bool = True,
) -> Posterior | NetworkPosterior:
    """Fit a model to a recording.

    Args:
        model: the model. A `LatentCircuit` is fitted by "laplace" or "ensemble", a `FullRankNetwork` by "ensemble".
        recording: what to fit.
        method: "laplace", "svi", "nuts", "ensemble" or "match", or one of `Laplace`, `SVI`, `NUTS`, `Ensemble`, `Match`
            with their options.
        seed: seed of everything random (restarts, variational and Markov chain sampling).
        num_restarts: additional starts of the mode from the prior, to see how many modes there are. Where several
            hold more than a thousandth of the evidence, "laplace" and "svi" return the mixture of all of them; "nuts",
            importance sampling and fits of more than 750 coordinates stay with the heaviest.
        max_iterations: Gauss-Newton steps of one descent to a mode.
        progress: show a progress bar.

    Returns:
        The posterior.

    Raises:
        ValueError: if an argument is out of its range, or model and recording do not fit each other.
        FitError: if the fit fails; the text holds the cause and the remedy. Nothing is written or changed before the
            posterior is returned, so that an interrupted fit leaves no trace.

    Warns:
        UserWarning: where a fit with process noise leaves errors that last from bin to bin: what drives them is not in
            the model, for example neurons that nobody recorded, and the eigenvalues of W are not to be trusted.

    "laplace" is fast and the place to start. "svi" finds the Normal distribution with the highest evidence lower bound
    instead of the one with the curvature of the mode: its draws fit the recording as well as those of the posterior do,
    and its intervals are somewhat narrow. "nuts" is the reference for small problems, and
    exact in the limit of many draws. "ensemble" fits many networks from random starts; their scatter is no posterior.
    "match" gives point estimates whose simulated trials have the averages and the variability of the recorded ones;
    `Gibbs(beta)`, which has no name of its own as no beta suits all, a generalised posterior of what it minimises.
    """
    chosen = _method(method)
    if not isinstance(model, (LowRankModel, FullRankNetwork, LatentCircuit)):
        raise argument_error("model", "a LowRankModel", type(model).__name__, "make one with lrposterior.LowRankModel")
    if not isinstance(recording, Recording):
        raise argument_error(
            "recording", "a Recording", type(recording).__name__, "make one with lrposterior.Recording"
        )
    require_integer(seed, "seed")
    require_integer(num_restarts, "num_restarts")
    require_integer(max_iterations, "max_iterations", minimum=1)
    _check_support(model, recording)
    if not isinstance(model, LowRankModel):
        require_recording(model, recording)
    with threadpoolctl.threadpool_limits(1, "blas"):
        if isinstance(chosen, Match | Gibbs):
            network = require_instance(model, "model", LowRankModel, "fit other networks by method='ensemble'")
            # Starts without signs are compared by their likelihoods.
            if network.process_noise is not None and not isinstance(network.priors, DaleLoadings):
                _require_few_latents(network, recording, of_dense=False)
            if isinstance(chosen, Gibbs):
                return fit_gibbs(network, recording, chosen, seed=seed, progress=progress)
            return fit_match(network, recording, chosen, seed=seed, progress=progress)
        if isinstance(model, LowRankModel):
            _require_few_latents(model, recording, of_dense=True)
        is_signed = isinstance(model, LowRankModel) and isinstance(model.priors, DaleLoadings)
        if isinstance(chosen, Ensemble):
            if is_signed:
                expected = "'laplace', 'svi', 'nuts', 'match' or Gibbs(beta) under DaleLoadings"
                raise argument_error("method", expected, "Ensemble", "fit with method='laplace'")
            return fit_ensemble(model, recording, chosen, seed=seed, progress=progress)
        if not isinstance(model, LowRankModel):
            return fit_circuit(_circuit(model, chosen), recording, seed, num_restarts, max_iterations, progress)
        if is_signed:
            posterior = fit_signed(
                model,
                recording,
                chosen,
                _name(chosen),
                seed=seed,
                num_restarts=num_restarts,
                max_iterations=max_iterations,
                progress=progress,
            )
        else:
            posterior = _fit(model, recording, chosen, seed, num_restarts, max_iterations, progress)
        _warn_of_lasting_noise(posterior)
        return posterior


@double_precision
def _fit(
    model: LowRankModel,
    recording: Recording,
    method: Method,
    seed: int,
    num_restarts: int,
    max_iterations: int,
    progress: bool,
) -> Posterior:
    started = time.perf_counter()
    noise, model = model.noise_of_process, model.for_recording(recording)
    evidence_decides = not isinstance(method, NUTS) and loadings.evidence_decides(model)
    first = loadings.independent(model) if evidence_decides else model
    start, problem, ahead = None, make_problem(first, recording, method), None
    with tqdm(desc="mode", unit="step", disable=not progress) as bar:

        def report(iteration: int, objective: float, decrement: float) -> None:
            bar.update()
            bar.set_postfix_str(f"objective {objective:.2f} nats, expected gain {decrement:.1e}")

        if noise is not None and noise.patterns is None and isinstance(problem, Problem):
            network = first_network(problem, report)
            model, first = (each.with_noise_along(network["M"]) for each in (model, first))
            problem = make_problem(first, recording, method)
            start = np.asarray(problem.space.whiten(problem.model.coordinates(network, recording.dt)))
        asked = make_problem(model, recording, method) if evidence_decides else problem
        modes = [_find_mode(problem, start, max_iterations, report)]
        for other_start in np.random.default_rng(seed).standard_normal((num_restarts, problem.space.size)):
            try:
                modes.append(_find_mode(problem, other_start, max_iterations, report))
            except FitError as failure:
                logger.info("a start from the prior ended without a mode: %s", failure)
        distinct = _distinct(problem, modes)
        bar.set_description_str("balance")
        found = {0: _balance(problem, distinct[0][0], method)} | {
            index: other
            for index, (mode, _) in enumerate(distinct[1:], 1)
            if (other := _balance_another(problem, mode))
        }
        if evidence_decides:
            bar.set_description_str("loadings")
            problem, found, ahead = loadings.choose_loadings(asked, found)
    evidence, evidence_note = _evidence(found[0])
    evidences = [evidence] + [
        _evidence(found[index])[0] if index in found else None for index in range(1, len(distinct))
    ]
    kept, log_evidences = weigh(found, evidences)
    balanced = found[kept[0]]
    mode = balanced.mode
    if len(kept) > 1:
        evidence, evidence_note = (
            float(np.logaddexp.reduce(log_evidences)),
            f"{evidence_note}, summed over {len(kept)} modes",
        )
    mixed = kept if _is_normal(method) and isinstance(problem, Problem) else kept[:1]
    approximation = combine(
        [method.approximate(found[index], seed=seed, progress=progress) for index in mixed],
        [found[index].problem.space for index in mixed],
        log_evidences,
    )
    statistics = FitStatistics(
        objective=mode.objective if ahead is not None and ahead > 0.0 else distinct[kept[0]][0].objective,
        gradient_norm=mode.gradient_norm,
        decrement=mode.decrement,
        num_iterations=mode.num_iterations,
        wall_time=time.perf_counter() - started,
        log_evidence=evidence,
        evidence_note=evidence_note,
        mode_objectives=tuple(other.objective for other, _ in distinct),
        mode_log_evidences=tuple(np.nan if value is None else value for value in evidences),
        mode_counts=tuple(count for _, count in distinct),
        num_failed_starts=1 + num_restarts - len(modes),
        elbo=approximation.elbo,
        diagnostics=approximation.diagnostics,
        scales=inferred_scales(balanced),
        regression_ahead=ahead,
    )
    return Posterior(
        balanced.problem.model,
        recording,
        _name(method),
        seed,
        approximation.status,
        statistics,
        mode.z,
        approximation.distribution,
        problem.scale_priors,
    )


def _require_few_latents(model: LowRankModel, recording: Recording, of_dense: bool) -> None:
    """Refuse networks whose latents, of each neuron, are too many: of time constants per neuron, or of a dense W."""
    is_dense = of_dense and model.is_dense
    if not (is_dense or isinstance(model.time_constant, PerNeuron)):
        return
    settled = model.for_recording(recording)
    seen = settled.background.visited.shape[1] if isinstance(settled.background, RandomBulk) else 0
    number = settled.num_populations * (model.rank + seen) + settled.num_own_latents(recording.num_neurons)
    if number <= MAX_LATENTS:
        return
    if isinstance(model.time_constant, PerNeuron):
        expected = f"at most {MAX_LATENTS} latents of single neurons, neurons times rank, for a likelihood"
        mend = "use a time constant for each cell type, background=None, or method='match' without process noise"
        raise argument_error("time_constant", expected, f"PerNeuron with {number}", mend)
    name = "background" if isinstance(model.background, SignedBackground) else "self_connections"
    expected = f"at most {MAX_LATENTS} latents, one for each neuron and those of M, for a likelihood"
    mend = "use method='match', fewer neurons, or low-rank connectivity alone"
    raise argument_error(name, expected, f"{number}", mend)


def _warn_of_lasting_noise(posterior: Posterior) -> None:
    """Warn where noise that should be new in every bin lasts: the recurrence then takes the blame for its memory."""
    if posterior.model.process_noise is None:
        return
    check = check_fit(posterior)
    if check.has_lasting_residuals:
        warnings.warn(
            f"errors of predictions one bin ahead correlate from bin to bin ({check.autocorrelation:.2f}): something "
            "that lasts drives the recorded neurons and is not in the model, such as neurons that nobody recorded or a "
            "drift between sessions. Its memory is taken for that of the network: do not trust the eigenvalues of W",
            stacklevel=3,
        )


def inferred_scales(balanced: Balanced) -> dict[str, tuple[float, float]]:
    """Value of every inferred prior scale, and the marginal standard deviation of its logarithm.

    Where they could not be inferred, they stand where their priors put them.
    """
    problem = balanced.problem
    if not balanced.scale_precision.size:
        return {name: (problem.model.scale(name), prior.spread) for name, prior in problem.scale_priors.items()}
    spreads = np.sqrt(np.diag(np.linalg.inv(balanced.scale_precision)))
    return {
        name: (value, float(spread)) for (name, value), spread in zip(problem.scales().items(), spreads, strict=True)
    }


def make_problem(model: LowRankModel, recording: Recording, method: Method) -> Problem | StructuredProblem:
    """The dense form for few coordinates and for all that only it knows, else the structured one."""
    settled = model.for_recording(recording)
    size = settled.space_for(recording).size
    method.check(size)
    if isinstance(method, Laplace) and method.correction is None and size > MAX_DENSE and System.serves(model):
        require_structured_memory(settled, recording)
        return StructuredProblem.of(settled, recording)
    return Problem.of(settled, recording)


def _find_mode(
    problem: Problem | StructuredProblem,
    start: np.ndarray | None,
    max_iterations: int,
    report: Report,
) -> Mode:
    if isinstance(problem, StructuredProblem):
        return problem.find_mode(start, max_iterations=max_iterations, report=report)
    start = initialise(problem) if start is None else start
    return find_mode(problem, start, max_iterations=max_iterations, report=report)


def _evidence(balanced: Balanced) -> tuple[float | None, str]:
    return log_evidence(balanced.problem, balanced.mode, balanced.scale_precision)


def _balance(problem: AnyProblem, mode: Mode, method: Method) -> Balanced:
    """The mode of W. Where there is none, as the data do not support the rank, the mode in (M, K) does for NUTS."""
    try:
        return balance(problem, mode)
    except FitError:
        if isinstance(method, NUTS):
            return Balanced(problem, mode, np.zeros((0, 0)))
        raise


def _balance_another(problem: AnyProblem, mode: Mode) -> Balanced | None:
    """The mode of W of one that restarts found beside the best; None where it has no Normal approximation."""
    try:
        balanced = balance(problem, mode)
        require_support(balanced.problem, balanced.mode)
    except FitError as failure:
        logger.info("nothing around the mode with objective %g: %s", mode.objective, failure)
        return None
    return balanced


def _is_normal(method: Method) -> bool:
    """Whether a method gives a Normal distribution, of which several can be mixed."""
    return not isinstance(method, NUTS) and method.correction is None


def _method(method: str | Method | Ensemble | Match | Gibbs) -> Method | Ensemble | Match | Gibbs:
    if isinstance(method, (*METHODS.values(), Gibbs)):
        return method
    if isinstance(method, type):
        names = ", ".join(map(repr, METHODS))
        raise argument_error("method", f"one of {names}", f"the class {method.__name__}", f"write {method.__name__}()")
    if method == "gibbs":
        mend = "pass Gibbs(beta=...), with a beta that calibrate_beta chose"
        raise argument_error("method", "the weight beta of a generalised posterior", "'gibbs' alone", mend)
    return METHODS[require_choice(method, "method", tuple(METHODS))]()


def _name(method: Method) -> str:
    return next(name for name, options in METHODS.items() if isinstance(method, options))


def _circuit(model: FullRankNetwork | LatentCircuit, method: Method) -> LatentCircuit:
    """The circuit that a Laplace approximation can be made for."""
    if isinstance(model, FullRankNetwork):
        raise argument_error(
            "method",
            "'ensemble' for a FullRankNetwork",
            f"{type(method).__name__}",
            "fit an ensemble, or a LowRankModel with RandomBulk for a posterior",
        )
    if method != Laplace():
        raise argument_error(
            "method", "'laplace' or 'ensemble' for a LatentCircuit", f"{method!r}", "fit with method='laplace'"
        )
    return model


def _check_support(model: LowRankModel | FullRankNetwork | LatentCircuit, recording: Recording) -> None:
    """Refuse what no fit can answer: a rank above the number of neurons, and neurons without variation."""
    if isinstance(model, LowRankModel) and model.rank > recording.num_neurons:
        raise argument_error(
            "rank", f"at most the {recording.num_neurons} neurons of the recording", str(model.rank), "lower the rank"
        )
    if isinstance(model, LowRankModel) and model.observation.of == "count":
        _require_counts(recording)
    observed = np.where(recording.mask, recording.activity, np.nan)
    seen = recording.mask.any(axis=(0, 1))
    spread = np.zeros(recording.num_neurons)
    spread[seen] = np.nanmax(observed[:, :, seen], axis=(0, 1)) - np.nanmin(observed[:, :, seen], axis=(0, 1))
    constant = np.flatnonzero(seen & (spread == 0.0))
    if constant.size:
        raise argument_error(
            "activity",
            "every observed neuron to vary",
            f"{constant.size} constant neuron(s), the first is neuron {constant[0]}",
            "drop them with recording.select(neurons=...), or mask them: their noise scale would be zero",
        )


def _require_counts(recording: Recording) -> None:
    seen = recording.activity[recording.mask]
    wrong = seen[(seen < 0.0) | (seen != np.round(seen))]
    if wrong.size:
        mend = "bin spikes with bin_spikes, or use GaussianObservation for rates"
        raise argument_error("activity", "numbers of spikes, 0, 1, 2, ...", f"{wrong[0]:g}", mend)


def _distinct(problem: AnyProblem, modes: list[Mode]) -> list[tuple[Mode, int]]:
    """Modes with different W, best first, each with the number of starts that reached it."""
    found: list[tuple[Mode, int]] = []
    for mode in sorted(modes, key=lambda one: one.objective):
        factors = problem.space.factors(mode.z)
        for index, (other, count) in enumerate(found):
            apart = relative_distance(factors, problem.space.factors(other.z))
            if apart < 0.01 and abs(mode.objective - other.objective) < 0.1:
                found[index] = (other, count + 1)
                break
        else:
            found.append((mode, 1))
    return found
