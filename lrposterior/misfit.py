"""Is the model wrong in a way that the data show? Checks that need no truth.

What a right model leaves of the recording is noise: independent from bin to bin and from neuron to neuron. Dynamics
that the network does not have are left over, and last; activity that it does not have is shared by many neurons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse.linalg

from lrposterior.checks import argument_error, require_instance, require_integer
from lrposterior.posterior import NORMAL_90, Posterior
from lrposterior.recording import Recording
from lrposterior.rollouts import simulate_draws

# What counts as misfit: beyond chance, and large enough to matter.
LARGEST_Z, LARGEST_AUTOCORRELATION, LARGEST_SHARED, LARGEST_EXCESS = 4.0, 0.02, 1.1, 1.5


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
        excess: of new trials, squared distance from their prediction without the part of the noise, over the predicted
            variance; 1 if the posterior is right. NaN for the fitted trials.
        excess_z: how far the excess is above 1, in standard errors over trials.
        cover: share of the entries of new trials within their central 90% interval, noise included.
    """

    autocorrelation: float = float("nan")
    autocorrelation_z: float = float("nan")
    shared: float = float("nan")
    excess: float = float("nan")
    excess_z: float = float("nan")
    cover: float = float("nan")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong, in words; empty where nothing is found."""
        found = []
        if self.autocorrelation > LARGEST_AUTOCORRELATION and self.autocorrelation_z > LARGEST_Z:
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
                f"new trials lie {self.excess:.1f} times as far (in squares) from their prediction as they should: the "
                "posterior is too sure"
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
                f"new trials: squared error without noise {self.excess:.2f} times the predicted ({self.excess_z:.1f} "
                f"standard errors), 90% intervals hold {self.cover:.0%}"
            )
        return "\n".join([text, *(f"beware: {warning}" for warning in self.warnings)])


def check_fit(
    posterior: Posterior, trials: Recording | None = None, *, num_draws: int = 100, seed: int | None = None
) -> FitCheck:
    """Check a fit on the trials that were fitted, or on new ones: unperturbed, or better with stimulation.

    Args:
        posterior: the fit.
        trials: trials of the same neurons that the fit has not seen, with their inputs and stimulation. None checks
            the residuals of the fitted trials at the mode. A few stimulation trials show what no unperturbed one can.
        num_draws: draws for the prediction of new trials.
        seed: of the draws; None takes that of the fit.

    Raises:
        ValueError: if the trials are of other neurons, inputs or bins.
    """
    require_instance(posterior, "posterior", Posterior, "pass what fit(...) of a LowRankModel returned")
    num_draws = require_integer(num_draws, "num_draws", minimum=20)
    seed = posterior.seed if seed is None else require_integer(seed, "seed")
    return _check_fitted(posterior) if trials is None else _check_new(posterior, trials, num_draws, seed)


def _check_fitted(posterior: Posterior) -> FitCheck:
    recording, model = posterior.recording, posterior.model
    mode = {name: value[None] for name, value in posterior.mode.items()}
    predicted = simulate_draws(model, mode, recording, quantity=model.observation.of)[0]
    mask = recording.mask
    residuals = np.where(mask, recording.activity - predicted, 0.0) / posterior.mode["noise_scale"]
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


def _check_new(posterior: Posterior, trials: Recording, num_draws: int, seed: int) -> FitCheck:
    require_instance(trials, "trials", Recording, "give the new trials as a Recording")
    for name in ("num_neurons", "num_inputs", "dt"):
        ours, theirs = getattr(posterior.recording, name), getattr(trials, name)
        if ours != theirs:
            mend = "give trials of the session that was fitted"
            raise argument_error("trials", f"{name} = {ours}, as in the recording", f"{theirs}", mend)
    draws = posterior.sample_parameters(num_draws, seed=seed)
    if "initial_kappa" in draws:
        draws = draws | {"initial_kappa": draws["initial_kappa"].mean(axis=1, keepdims=True)}
    predicted = simulate_draws(posterior.model, draws, trials, quantity=posterior.model.observation.of)
    # A mean of S draws is itself off by a part 1 / S of their variance.
    variance = predicted.var(axis=0, ddof=1) * (1.0 + 1.0 / num_draws)
    noise = np.broadcast_to(posterior.mode["noise_scale"] ** 2, variance.shape)
    squares = (trials.activity - predicted.mean(axis=0)) ** 2
    mask = trials.mask
    without_noise = np.sum(np.where(mask, squares - noise, 0.0), axis=(1, 2))
    expected = np.sum(np.where(mask, variance, 0.0), axis=(1, 2))
    excess = without_noise - expected
    error = excess.std(ddof=1) * np.sqrt(len(excess)) if len(excess) > 1 else np.inf
    return FitCheck(
        excess=float(without_noise.sum() / expected.sum()),
        excess_z=float(excess.sum() / error),
        cover=float(np.mean((squares <= NORMAL_90**2 * (variance + noise))[mask])),
    )
