"""Predictions without a network of ours: the mean of earlier responses, a neuron's own past, a GLM, a linear system.

Each is fitted to the training recordings without their validation blocks, and becomes a `Predictor`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.ndimage
import scipy.signal

import lrposterior as lrp
from aplysia_parts.recordings import DT, Preparation
from aplysia_parts.scores import Predicted

# From recorded trials to expected numbers of spikes.
Predictor = Callable[[lrp.Recording], Predicted]


# [history]
def history(counts: np.ndarray, time_constant: float, start: np.ndarray) -> np.ndarray:
    """(trial, time, neuron) exponentially weighted mean of the bins before each, from `start` (neuron,) on."""
    decay = np.exp(-DT / time_constant)
    state = np.broadcast_to(start, (len(counts), 1, counts.shape[2]))
    return scipy.signal.lfilter([0.0, 1.0 - decay], [1.0, -decay], counts, axis=1, zi=state)[0]


def calibrate(feature: np.ndarray, counts: np.ndarray, num_steps: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Maximum likelihood of counts ~ Poisson(a + b feature) with a, b >= 0 of every neuron, by EM.

    Args:
        feature, counts: (bin, neuron), not negative.

    Returns:
        a and b, (neuron,).
    """
    a, b = 0.5 * counts.mean(axis=0), np.full(counts.shape[1], 0.5)
    total = np.maximum(feature.sum(axis=0), 1e-12)
    for _ in range(num_steps):
        share = counts / np.maximum(a + b * feature, 1e-12)
        a, b = a * share.mean(axis=0), b * (share * feature).sum(axis=0) / total
    return a, b


def fit_history(preparation: Preparation, hidden: np.ndarray, *, time_constant: float) -> Predictor:
    """Every neuron's own past: Poisson(a + b history). It says nothing about neurons that are not recorded."""

    def feature(counts: np.ndarray) -> np.ndarray:
        return history(counts, time_constant, preparation.mean_counts)

    fitted = preparation.fitted
    a, b = calibrate(feature(preparation.counts)[fitted], preparation.counts[fitted])
    return lambda trials: Predicted(a + b * feature(trials.activity))


# [end]
def fit_average(preparation: Preparation, hidden: np.ndarray, *, width: float) -> Predictor:
    """The average of the training responses (PSTH), smoothed over time by a Gaussian kernel (width in s)."""

    def smoothed(values: np.ndarray) -> np.ndarray:
        return scipy.ndimage.gaussian_filter1d(values, width / DT, axis=0, mode="constant")

    seen = preparation.fitted[:, :, None]
    average = smoothed(np.where(seen, preparation.counts, 0.0).sum(axis=0)) / smoothed(seen.sum(axis=0).astype(float))

    def predict(trials: lrp.Recording) -> Predicted:
        rates = np.broadcast_to(average, trials.activity.shape)
        return Predicted(rates, rates[:, :, hidden])

    return predict


def fit_glm(
    preparation: Preparation, hidden: np.ndarray, *, time_constant: float, penalty: float, task: str
) -> Predictor:
    """Poisson regression with a log link and ridge on the smoothed spikes of the population.

    Args:
        preparation: the recordings.
        hidden: (neuron,) the neurons to predict from the others where the task is "hidden".
        time_constant: of the smoothing, in s.
        penalty: `alpha` of scikit-learn's PoissonRegressor, features having unit variance.
        task: "ahead": all neurons from the bins before, by exponential smoothing; "hidden": the hidden neurons from the
            others in the bins before and after, by the same kernel in both directions.
    """
    from sklearn.linear_model import PoissonRegressor

    start, fitted, ahead = preparation.mean_counts, preparation.fitted, task == "ahead"

    def features(counts: np.ndarray) -> np.ndarray:
        before = history(counts, time_constant, start)
        if ahead:
            return before
        after = history(counts[:, ::-1], time_constant, start)[:, ::-1]
        decay = np.exp(-DT / time_constant)
        return (((1.0 - decay) * counts + decay * (before + after)) / (1.0 + decay))[:, :, ~hidden]

    rows = features(preparation.counts)[fitted]
    center, scale = rows.mean(axis=0), rows.std(axis=0)
    neurons = np.arange(len(hidden)) if ahead else np.flatnonzero(hidden)
    models = [
        PoissonRegressor(alpha=penalty, solver="newton-cholesky").fit(
            (rows - center) / scale, preparation.counts[fitted][:, neuron]
        )
        for neuron in neurons
    ]

    def predict(trials: lrp.Recording) -> Predicted:
        values = (features(trials.activity) - center) / scale
        flat = values.reshape(-1, values.shape[-1])
        rates = np.stack([model.predict(flat) for model in models], axis=1).reshape(*values.shape[:2], -1)
        return Predicted(ahead=rates) if ahead else Predicted(hidden=rates)

    return predict


def fit_linear_system(
    preparation: Preparation, hidden: np.ndarray, *, num_latents: int, num_steps: int = 50
) -> Predictor:
    """A linear dynamical system with Gaussian observations of the square roots of counts, by statsmodels' EM.

    The stretches that are fitted are put after one another: the few transitions between them are false. The predicted
    square root m of a neuron, given the bins before or, where it is hidden, all bins of the others, becomes a rate
    a + b max(m, 0)² with a, b >= 0 of maximum likelihood in the fitted bins.
    """
    from statsmodels.tsa.statespace.dynamic_factor_mq import DynamicFactorMQ

    roots = np.sqrt(preparation.counts)
    center, scale = roots[preparation.fitted].mean(axis=0), roots[preparation.fitted].std(axis=0)

    def model(counts: np.ndarray) -> Any:
        options = {"factors": 1, "factor_multiplicities": num_latents, "factor_orders": 1}
        system = DynamicFactorMQ(
            (np.sqrt(counts) - center) / scale, idiosyncratic_ar1=False, standardize=False, **options
        )
        system.ssm.filter_collapsed = True  # filters as many numbers as latents, with the same result
        system.ssm.memory_no_std_forecast = True
        return system

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the number of steps is fixed, and said to be too small
        parameters = (
            model(preparation.counts[preparation.fitted])
            .fit_em(maxiter=num_steps, full_output=False, cov_type="none")
            .params
        )

    def features(counts: np.ndarray, masked: np.ndarray | None) -> np.ndarray:
        """(trial, time, neuron) of max(m, 0)²."""
        found = []
        for trial in counts:
            seen = trial if masked is None else np.where(masked, np.nan, trial)
            system = model(seen)
            result = system.smooth(parameters, return_ssm=True)
            state = result.smoothed_state if masked is not None else result.predicted_state[:, :-1]
            found.append(np.maximum(center + scale * (system.ssm["design"] @ state).T, 0.0) ** 2)
        return np.stack(found)

    def calibrated(masked: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        fitted = preparation.fitted
        return calibrate(features(preparation.counts, masked)[fitted], preparation.counts[fitted])

    (a, b), (a_hidden, b_hidden) = calibrated(None), calibrated(hidden)

    def predict(trials: lrp.Recording) -> Predicted:
        counts = trials.activity
        return Predicted(a + b * features(counts, None), (a_hidden + b_hidden * features(counts, hidden))[:, :, hidden])

    return predict


# [end]
