"""Is the model wrong in a way that the data show? Checks that need no truth.

What a right model leaves of the recording is noise: independent from bin to bin and from neuron to neuron. Dynamics
that the network does not have are left over, and last; activity that it does not have is shared by many neurons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg

from lrposterior.checks import argument_error, require_instance, require_integer
from lrposterior.observations import require_rates_or_currents
from lrposterior.posterior import NORMAL_90, Posterior, require_like_fitted
from lrposterior.precision import double_precision
from lrposterior.recording import Recording
from lrposterior.rollouts import predicted_activity
from lrposterior.state_space import currents_at, filter_trials

# What counts as misfit: beyond chance, and large enough to matter.
LARGEST_Z, LARGEST_AUTOCORRELATION, LARGEST_SHARED, LARGEST_EXCESS = 4.0, 0.02, 1.1, 1.5
# Directions with less than this part of the largest power, or of that of the noise, are rounding errors.
SMALLEST_POWER = 1e-12


@dataclass(frozen=True)
class FitCheck:
    """What the residuals of some trials say about a fit.

    Attributes:
        autocorrelation: of the fitted trials, mean product of the standardised residuals of neighbouring bins; 0 if the
            model is right. NaN for new trials, where what is not known about the network lasts as well.
        autocorrelation_z: the same in units of its standard error under white noise.
        shared: of the fitted trials, largest singular value of the standardised residuals (sample, neuron) over that of
            independent noise, sqrt(samples) + sqrt(neurons) (Davidson and Szarek 2001,
            doi:10.1016/S1874-5849(01)80010-3); about 1 if the model is right. NaN for new trials.
        excess: of new trials, squared distance from the mean prediction over that of draws of the posterior in place of
            the truth: along the directions in which draws differ, weighted by how well the noise lets each be seen,
            without the part of the noise. About 1 if the posterior is right, more if it is too sure.
        excess_z: how far the excess is above 1, in standard deviations over the draws. The distribution is skewed: 4 is
            exceeded in about one of a hundred right fits.
        cover: share of the entries of new trials within their central 90% interval, noise included.
    """

    autocorrelation: float = float("nan")
    autocorrelation_z: float = float("nan")
    shared: float = float("nan")
    excess: float = float("nan")
    excess_z: float = float("nan")
    cover: float = float("nan")

    @property
    def has_lasting_residuals(self) -> bool:
        """Whether residuals of neighbouring bins correlate, beyond chance and so much that it matters."""
        return self.autocorrelation > LARGEST_AUTOCORRELATION and self.autocorrelation_z > LARGEST_Z

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong, in words; empty where nothing is found."""
        found = []
        if self.has_lasting_residuals:
            found.append(
                f"residuals of neighbouring bins correlate by {self.autocorrelation:.2f}: there are dynamics that the "
                "model does not have (another time constant or nonlinearity, a higher rank, a bulk)"
            )
        if self.shared > LARGEST_SHARED:
            found.append(
                f"residuals are shared by neurons, {self.shared:.2f} times as much as noise: there is activity that "
                "the model does not have (an input, a higher rank, a bulk), or noise of another size"
            )
        if self.excess > LARGEST_EXCESS and self.excess_z > LARGEST_Z:
            found.append(
                f"new trials lie {self.excess:.1f} times as far (in squares) from their prediction as draws of the "
                "posterior: it is too sure"
            )
        return tuple(found)

    def __str__(self) -> str:
        if np.isnan(self.excess):
            text = (
                f"fitted trials: residuals of neighbouring bins correlate by {self.autocorrelation:.3f} "
                f"({self.autocorrelation_z:.1f} standard errors), largest shared part {self.shared:.2f} times that of "
                "noise"
            )
        else:
            text = (
                f"new trials: squared distance from the prediction {self.excess:.2f} times that of draws "
                f"({self.excess_z:+.1f} standard deviations), 90% intervals with noise hold {self.cover:.0%}"
            )
        return "\n".join([text, *(f"beware: {warning}" for warning in self.warnings)])


def check_fit(
    posterior: Posterior, trials: Recording | None = None, *, num_draws: int = 200, seed: int | None = None
) -> FitCheck:
    """Check a fit on the trials that were fitted, or on new ones: unperturbed, or better with stimulation.

    Args:
        posterior: the fit.
        trials: trials of the same neurons that the fit has not seen, with their inputs and stimulation. None checks
            the residuals of the fitted trials at the mode. A few stimulation trials show what no unperturbed one can.
        num_draws: draws for the prediction of new trials; half of them stand in the place of the truth.
        seed: of the draws; None takes that of the fit.

    Raises:
        ValueError: if the trials are of other neurons, inputs or bins, if what was observed does not depend on the
            network, or if new trials are given for a fit with process noise, of counts or of calcium.
    """
    require_instance(posterior, "posterior", Posterior, "pass what fit(...) of a LowRankModel returned")
    num_draws = require_integer(num_draws, "num_draws", minimum=100)
    seed = posterior.seed if seed is None else require_integer(seed, "seed")
    return _check_fitted(posterior) if trials is None else _check_new(posterior, trials, num_draws, seed)


def _check_fitted(posterior: Posterior) -> FitCheck:
    mask = posterior.model.informative(posterior.recording)
    residuals = _residuals(posterior)
    pairs = mask[:, 1:] & mask[:, :-1]
    products = (residuals[:, 1:] * residuals[:, :-1])[pairs]
    rows = residuals.reshape(-1, residuals.shape[2])[mask.any(axis=2).ravel()]
    edge = np.sqrt(rows.shape[0]) + np.sqrt(rows.shape[1])
    if min(rows.shape) > 2:
        start = np.random.default_rng(0).standard_normal(min(rows.shape))
        largest = scipy.sparse.linalg.svds(rows, k=1, return_singular_vectors=False, v0=start)[0]
    else:
        largest = np.linalg.norm(rows, 2)
    # Without neighbouring bins that were both observed there is nothing to correlate.
    return FitCheck(
        autocorrelation=float(products.mean()) if products.size else np.nan,
        autocorrelation_z=float(products.sum() / np.sqrt(np.sum(products**2))) if products.size else np.nan,
        shared=float(largest / edge),
    )


@double_precision
def _residuals(posterior: Posterior) -> np.ndarray:
    """(trial, time, neuron) residuals at the mode in units of their standard deviation, 0 where masked.

    With process noise they are those of predictions one bin ahead, y - y_predicted ~ Normal(0, D + A A^T) with the
    noise D, and A the uncertainty of the latents seen by the neurons, multiplied by the inverse root of this.
    """
    model, data = posterior.model, posterior.model.data(posterior.recording)
    coordinates = posterior.space.unwhiten(posterior.mode_coordinates)
    parameters = {name: jnp.asarray(value) for name, value in coordinates.items()}
    emission = model.emission_of_trials(parameters, data)
    if model.process_noise is None:
        current, uncertain = model.currents(parameters, data), None
    else:
        filtered, left = filter_trials(model, parameters, data), model.latent_factors(parameters, data)[0]
        current = currents_at(model, parameters, data, filtered.predicted_mean)
        # By eigenvectors: covariances are singular where a bulk has latents without noise.
        values, axes = jnp.linalg.eigh(filtered.predicted_covariance)
        uncertain = left @ (axes * jnp.sqrt(jnp.maximum(values, 0.0))[..., None, :])
    precision = jnp.where(data.mask, emission.variance(current) ** -0.5, 0.0)
    residuals = np.array((data.activity - emission.mean(current)) * precision)
    if uncertain is None:
        return np.where(data.mask, residuals, 0.0)
    seen = np.asarray((emission.sensitivity(current) * precision)[..., None] * uncertain)
    for residual, root in zip(residuals, seen, strict=True):
        turns, sizes, _ = np.linalg.svd(root, full_matrices=False)
        along = np.einsum("tnr,tn->tr", turns, residual)
        residual -= np.einsum("tnr,tr->tn", turns, (1.0 - 1.0 / np.sqrt(1.0 + sizes**2)) * along)
    return residuals


def _check_new(posterior: Posterior, trials: Recording, num_draws: int, seed: int) -> FitCheck:
    require_instance(trials, "trials", Recording, "give the new trials as a Recording")
    require_like_fitted(trials, posterior.recording)
    if posterior.model.process_noise is not None:
        mend = "compare held-out trials by their density, or check the fitted ones with check_fit(posterior)"
        raise argument_error("trials", "a fit without process noise", "one with it", mend)
    mend = "compare held-out trials by their density, or check the fitted ones with check_fit(posterior)"
    require_rates_or_currents(posterior.model.observation, "trials", mend)
    draws = posterior.sample_parameters(num_draws, seed=seed)
    noise, random = posterior.mode["noise_scale"], np.random.default_rng([seed, 1])
    start = posterior.space["initial_kappa"] if "initial_kappa" in draws else None
    distance, of_draws, expected, inside = 0.0, np.zeros(num_draws - num_draws // 2), 0.0, []
    for index in np.flatnonzero(trials.mask.any(axis=(1, 2))):
        trial = trials.select(trials=np.array([index]))
        if start is not None:  # A new trial starts where the prior has it.
            kappa = start.mean + start.standard_deviation * random.standard_normal((num_draws, 1, start.shape[1]))
            draws = draws | {"initial_kappa": kappa}
        predicted = predicted_activity(posterior.model, draws, trial)[:, 0] / noise
        mask = trial.mask[0]
        activity, predicted = (trial.activity[0] / noise)[mask], predicted[:, mask]
        # A mean of S draws is itself off by a part 1 / S of their variance.
        variance = predicted.var(axis=0, ddof=1) * (1.0 + 1.0 / num_draws) + 1.0
        inside.append((activity - predicted.mean(axis=0)) ** 2 <= NORMAL_90**2 * variance)
        found = _visible_distances(activity, predicted, random)
        distance, of_draws, expected = distance + found.trial, of_draws + found.draws, expected + found.expected
    if expected == 0.0:
        mend = "give trials in which the network acts"
        raise argument_error("trials", "observations that depend on the network", "draws that do not differ", mend)
    return FitCheck(
        excess=float(distance / expected),
        excess_z=float((distance - np.mean(of_draws)) / np.std(of_draws, ddof=1)),
        cover=float(np.mean(np.concatenate(inside))),
    )


class _Distances(NamedTuple):
    """Squared distances from the mean of half of the draws, without the part of the noise.

    Attributes:
        trial: of the trial.
        draws: (draw,) of the other draws with noise.
        expected: their mean without noise, which is that of `draws` over the noise.
    """

    trial: float
    draws: np.ndarray
    expected: float


def _visible_distances(activity: np.ndarray, draws: np.ndarray, random: np.random.Generator) -> _Distances:
    """How far a trial, and draws in its place, lie from their prediction, along the directions in which draws differ.

    The first half of the draws has the principal directions v_k with variances lambda_k. With noise of variance 1, the
    derivative of the log density of y by a common factor of all lambda_k is, but for a half,

        sum_k w_k (a_k² - 1) + const,      a_k = v_k . (y - mean),      w_k = lambda_k / (1 + lambda_k)²,

    for one trial the most powerful statistic for variances that are all too small by the same small factor (Neyman and
    Pearson).

    Args:
        activity: (entry,) in units of its noise.
        draws: (draw, entry) predictions without noise, in the same units.
        random: for the noise of the draws.
    """
    half = len(draws) // 2
    mean = draws[:half].mean(axis=0)
    first, others = draws[:half] - mean, draws[half:] - mean
    # The directions are sums of draws, v = first^T turns / sqrt(power): nothing of their length is formed.
    power, turns = np.linalg.eigh(first @ first.T)
    kept = power > SMALLEST_POWER * max(power[-1], 1.0)
    turns = turns[:, kept] / np.sqrt(power[kept])
    variances = power[kept] / (half - 1)
    weights = variances / (1.0 + variances) ** 2
    own, along = (first @ (activity - mean)) @ turns, (others @ first.T) @ turns
    noisy = along + random.standard_normal(along.shape)
    return _Distances(float((own**2 - 1.0) @ weights), (noisy**2 - 1.0) @ weights, float(np.mean(along**2 @ weights)))
