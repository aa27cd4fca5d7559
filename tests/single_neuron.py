"""One linear neuron, whose posterior can be integrated by brute force: the reference for what is not Normal.

Given w and the noise scale s the activity is linear in the input weight and the bias, and so Normal once these are
integrated out; what remains is an integral over two numbers. With one neuron and rank one, w = M K has the density of
a product of two Normal numbers, a Bessel function.
"""

import numpy as np
from plain import plain_model
from scipy.special import kv, logsumexp

import lrposterior as lrp

DT = 0.02


def model(time_constant=0.1, noise_scale=0.3):
    priors = lrp.Priors(unit=1.0, noise_scale=noise_scale, noise_spread=0.5)
    return plain_model(1, time_constant=time_constant, nonlinearity="linear", priors=priors)


def record(model, w, *, num_trials, num_bins, noise_scale, seed):
    """A recording of one neuron with known w and one input of white noise."""
    inputs = np.random.default_rng(seed).standard_normal((num_trials, num_bins, 1))
    return _simulate(model, w, 0.3, noise_scale, lrp.Recording(np.zeros(inputs.shape), DT, inputs=inputs), seed)


def record_ambiguous(w, bias, *, num_trials, noise_scale, seed):
    """A model and a recording that say what w² is, and almost nothing about its sign.

    A pulse of input in the first bin, a time constant of one bin, and of the three bins after the pulse the second is
    masked: x[1] = u + b, x[3] = w² x[1] + w b + b. Only the bias knows the sign.
    """
    ambiguous = model(time_constant=DT, noise_scale=noise_scale)
    inputs, mask = np.zeros((num_trials, 4, 1)), np.zeros((num_trials, 4, 1), dtype=bool)
    inputs[:, 0] = np.random.default_rng(seed).standard_normal((num_trials, 1))
    mask[:, [1, 3]] = True
    trials = lrp.Recording(np.zeros(inputs.shape), DT, inputs=inputs, mask=mask)
    return ambiguous, _simulate(ambiguous, w, bias, noise_scale, trials, seed)


def _simulate(model, w, bias, noise_scale, trials, seed):
    parameters = {
        "M": np.ones((1, 1)), "K": np.full((1, 1), w), "B": np.ones((1, 1)), "b": np.full(1, bias),
        "noise_scale": np.full(1, noise_scale),
    }  # fmt: skip
    return model.simulate(parameters, trials, seed=seed)


def integrate(model, recording, w, log_scale):
    """(w,) normalised posterior density of w on an even grid, and log p(activity)."""
    a = recording.dt / model.time_constant
    observed = recording.mask[:, :, 0]
    y = recording.activity[:, :, 0][observed]
    log_joint = np.empty((len(w), len(log_scale)))
    priors = model.priors
    log_prior_scale = -0.5 * ((log_scale - np.log(priors.noise_scale)) / priors.noise_spread) ** 2
    log_prior_scale -= np.log(priors.noise_spread * np.sqrt(2.0 * np.pi))
    variance = np.exp(2.0 * log_scale)
    for index, value in enumerate(w):
        columns = np.zeros((*recording.activity.shape[:2], 2))
        for time in range(recording.num_bins - 1):
            drive = np.stack([recording.inputs[:, time, 0], np.ones(recording.num_trials)], axis=1)
            columns[:, time + 1] = (1.0 - a) * columns[:, time] + a * (value * columns[:, time] + drive)
        A = columns[observed] * np.array([priors.B, priors.b])
        squares, moment, product = y @ y, A.T @ A, A.T @ y
        for place, v in enumerate(variance):
            inner = np.eye(2) + moment / v
            log_determinant = len(y) * np.log(2.0 * np.pi * v) + np.linalg.slogdet(inner)[1]
            quadratic = (squares - product @ np.linalg.solve(inner, product) / v) / v
            log_joint[index, place] = -0.5 * (log_determinant + quadratic)
    scale = priors.M * priors.K
    log_prior = np.log(kv(0, np.abs(w) / scale) / (np.pi * scale))
    log_joint += log_prior[:, None] + log_prior_scale
    log_evidence = logsumexp(log_joint) + np.log((w[1] - w[0]) * (log_scale[1] - log_scale[0]))
    density = np.exp(logsumexp(log_joint, axis=1) + np.log(log_scale[1] - log_scale[0]) - log_evidence)
    return density, log_evidence
