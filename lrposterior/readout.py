"""What a network computes, read out of the rates of its neurons: outputs of the task beside a recording.

With the rates r of one network in the bins of all trials, the regression

    y[t] = W_out r[t] + b_out + noise,      W_out[o, n] ~ Normal(0, sd_o² / lambda_o),      noise ~ Normal(0, sd_o²),

flat in b_out and in log sd_o, has a closed form (Bishop 2006, chapter 3). In the eigenbasis of the centred rates, with
eigenvalues g of their Gram matrix, projections c of the centred outputs on it and n bins, the log evidence of lambda is

    1/2 sum log(lambda / (lambda + g)) - (n - 1) / 2 log(y^T y - sum c² / (lambda + g))  +  constant,

and lambda is where it is highest.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.bulk import UNSEEN
from lrposterior.checks import (
    argument_error,
    as_array,
    read_only,
    require_instance,
    require_integer,
    require_probability,
    require_shape,
)
from lrposterior.data import Data
from lrposterior.files import replacing, require_file_name
from lrposterior.held_out import sample_at_most
from lrposterior.latents import average_over_latents
from lrposterior.model import LowRankModel
from lrposterior.network import NONLINEARITIES
from lrposterior.npz_files import read_npz
from lrposterior.parameters import Parameters
from lrposterior.posterior import Posterior, require_like_fitted
from lrposterior.precision import double_precision
from lrposterior.priors import DaleLoadings
from lrposterior.recording import Recording
from lrposterior.rollouts import network_coordinates, simulate_draws
from lrposterior.state_space import currents_at, filter_trials, smooth

# lambda over the mean eigenvalue of the rates' Gram matrix.
PENALTIES = np.logspace(-10.0, 3.0, 131)
AXES = ("trial", "time", "output")
DRAWS = ("W_out", "b_out", "noise_scale")


@dataclass(frozen=True, eq=False)
class Readout:
    """Draws of a readout, each of the rates of a network drawn from the posterior; made by `fit_readout`.

    Attributes:
        posterior: that of the network.
        W_out: (draw, output, neuron) weights, in units of the output per unit of rate; 0 for neurons that inhibit.
        b_out: (draw, output).
        noise_scale: (draw, output) standard deviation of what the rates do not say.
        seed: with which networks were drawn; draw d belongs to network d, or, of fewer networks, to these in turn.
    """

    posterior: Posterior
    W_out: np.ndarray
    b_out: np.ndarray
    noise_scale: np.ndarray
    seed: int

    def __post_init__(self) -> None:
        for name in DRAWS:
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def predict(self, trials: Recording | None = None) -> np.ndarray:
        """(draw, trial, time, output) what the networks compute, without the noise of the outputs.

        Args:
            trials: as for `fit_readout`; None takes those of the posterior.

        Raises:
            ValueError: if the trials are of other neurons or inputs.
        """
        trials = _checked_trials(self.posterior, trials)
        size, num_networks = len(self.W_out), _num_networks(self.posterior, len(self.W_out))
        found = np.empty((size, trials.num_trials, trials.num_bins, self.W_out.shape[1]))
        for network, rates in enumerate(_rates_of_networks(self.posterior, trials, size, self.seed)):
            for draw in range(network, size, num_networks):
                found[draw] = rates @ self.W_out[draw].T + self.b_out[draw]
        return found

    def interval(
        self, trials: Recording | None = None, level: float = 0.9, *, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends (trial, time, output) of central intervals of the outputs, their noise included.

        Args:
            trials: as for `predict`.
            level: probability that an output lies between them.
            seed: of the noise.

        Raises:
            ValueError: if an argument is out of its range.
        """
        tail = 0.5 * (1.0 - require_probability(level, "level"))
        noise = np.random.default_rng(require_integer(seed, "seed"))
        predicted = self.predict(trials)
        predicted += self.noise_scale[:, None, None] * noise.standard_normal(predicted.shape)
        lower, upper = np.quantile(predicted, [tail, 1.0 - tail], axis=0)
        return lower, upper

    def r_squared(self, trials: Recording, outputs: Any) -> np.ndarray:
        """(output,) R² of the mean prediction: 1 - squared errors over squared deviations from the mean of `outputs`.

        Args:
            trials: trials that were held out.
            outputs: (trial, time, output) theirs; NaN where there is none.

        Raises:
            ValueError: if trials and outputs do not fit each other, or the readout.
        """
        outputs = _checked_outputs(outputs, _checked_trials(self.posterior, trials), self.W_out.shape[1])
        predicted, mean = self.predict(trials).mean(axis=0), np.nanmean(outputs, axis=(0, 1))
        return 1.0 - np.nansum((outputs - predicted) ** 2, axis=(0, 1)) / np.nansum((outputs - mean) ** 2, axis=(0, 1))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the draws to a `.npz` file; the posterior has a file of its own.

        Raises:
            ValueError: if the name ends otherwise, or its folder does not exist.
        """
        path = require_file_name(path, "path", (".npz",))
        arrays = {name: getattr(self, name) for name in (*DRAWS, "seed")}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, mode=self.posterior.mode_coordinates, **arrays)

    @staticmethod
    def load(path: str | os.PathLike[str], posterior: Posterior) -> Readout:
        """Read what `save` wrote.

        Args:
            path: name of the file.
            posterior: the one that it was fitted with.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is a file of another kind, damaged, or that of another posterior.
        """
        require_instance(posterior, "posterior", Posterior, "pass what fit(...) returned")
        mend = "name a file that Readout.save wrote"
        arrays = read_npz(path, "path", "a readout", mend, ("mode", *DRAWS, "seed"))
        if not np.array_equal(arrays["mode"], posterior.mode_coordinates):
            mend = "load the posterior that it was fitted with"
            raise argument_error("posterior", f"that of {Path(path).name!r}", "another one", mend)
        return Readout(posterior, *(arrays[name] for name in DRAWS), seed=int(arrays["seed"]))

    def __repr__(self) -> str:
        num_draws, num_outputs, num_neurons = self.W_out.shape
        return f"Readout({num_outputs} output(s) of {num_neurons} neurons, {num_draws} draws)"


def fit_readout(
    posterior: Posterior, outputs: Any, trials: Recording | None = None, *, num_draws: int = 100, seed: int
) -> Readout:
    """Fit y = W_out r + b_out + noise to outputs of the task, such as the choice or the position of a hand.

    r are the rates phi(x) of the neurons that excite under Dale's law, else of all neurons. For every network drawn
    from the posterior W_out, b_out and the noise are drawn from their posterior given its rates, so that the
    uncertainty of the network and that of the readout are both in the draws. The outputs do not change what is known
    of the network. The prior scale of W_out is that with the highest evidence, for every network and output; b_out and
    the logarithm of the noise have flat priors. The noise of the outputs is taken to be new in every bin: where it
    lasts, intervals of W_out are too narrow.

    Rates are those that follow from inputs and stimulation. With process noise they are the mean given all bins of the
    trial's activity, on which a regression is not attenuated by what is unknown of them.

    Args:
        posterior: what a fit returned.
        outputs: (trial, time, output); NaN in bins without an output, which are left out.
        trials: the trials of the outputs, of the fitted neurons; None for those that were fitted. Where the initial
            state is free, others start from the mean of the fitted ones.
        num_draws: of the readout.
        seed: of the draws.

    Raises:
        ValueError: if trials and outputs do not fit each other, or there are fewer than three bins with an output.
    """
    require_instance(posterior, "posterior", Posterior, "pass what fit(...) returned")
    require_integer(num_draws, "num_draws", minimum=1)
    random = np.random.default_rng([require_integer(seed, "seed"), 1])
    trials = _checked_trials(posterior, trials)
    values = _checked_outputs(outputs, trials, None)
    there = ~np.isnan(values).any(axis=2)
    num_networks, excites = _num_networks(posterior, num_draws), _excites(posterior)
    W_out = np.zeros((num_draws, values.shape[2], trials.num_neurons))
    b_out, noise_scale = np.empty((2, num_draws, values.shape[2]))
    for network, rates in enumerate(_rates_of_networks(posterior, trials, num_draws, seed)):
        regression = Regression.of(rates[there][:, excites], values[there])
        for draw in range(network, num_draws, num_networks):
            W_out[draw][:, excites], b_out[draw], noise_scale[draw] = regression.draw(random)
    return Readout(posterior, W_out, b_out, noise_scale, seed)


class Regression(NamedTuple):
    """The closed form of the regression of outputs on regressors.

    Attributes:
        mean: (regressor,) of the regressors; `output_mean` (output,) of the outputs.
        g: (regressor,) eigenvalues of the centred Gram matrix.
        basis: (regressor, regressor) its eigenvectors, by column.
        c: (regressor, output) projections of the outputs.
        power: (output,) squares of the centred outputs.
        num_samples: bins.
        penalty: (output,) lambda.
    """

    mean: np.ndarray
    output_mean: np.ndarray
    g: np.ndarray
    basis: np.ndarray
    c: np.ndarray
    power: np.ndarray
    num_samples: int
    penalty: np.ndarray

    @classmethod
    def of(cls, regressors: np.ndarray, outputs: np.ndarray) -> Regression:
        """That of regressors (sample, regressor) and outputs (sample, output), lambda by the evidence."""
        mean, output_mean = regressors.mean(axis=0), outputs.mean(axis=0)
        X, Y = regressors - mean, outputs - output_mean
        g, basis = np.linalg.eigh(X.T @ X)
        g = np.maximum(g, 0.0)
        unset = cls(mean, output_mean, g, basis, basis.T @ (X.T @ Y), np.sum(Y**2, axis=0), len(X), np.ones(Y.shape[1]))
        penalties = PENALTIES * max(float(g.mean()), np.finfo(float).tiny)
        evidence = np.stack([unset._replace(penalty=np.full(Y.shape[1], one)).log_evidence for one in penalties])
        return unset._replace(penalty=penalties[np.argmax(evidence, axis=0)])

    @property
    def _rest(self) -> np.ndarray:
        """(output,) squares that the regression leaves over, those of the weights in units of the noise included."""
        explained = np.sum(self.c**2 / (self.g[:, None] + self.penalty), axis=0)
        return np.maximum(self.power - explained, 1e-12 * self.power + np.finfo(float).tiny)

    @property
    def log_evidence(self) -> np.ndarray:
        """(output,) up to a constant."""
        spread = 0.5 * np.sum(np.log(self.penalty / (self.g[:, None] + self.penalty)), axis=0)
        return spread - 0.5 * (self.num_samples - 1) * np.log(self._rest)

    def draw(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights (output, regressor), offsets (output,) and noise scales (output,) from their posterior."""
        size = self.c.shape[1]
        noise_scale = np.sqrt(self._rest / random.chisquare(self.num_samples - 1, size))
        curvature = self.g[:, None] + self.penalty
        along = self.c / curvature + noise_scale * random.standard_normal(self.c.shape) / np.sqrt(curvature)
        weights = (self.basis @ along).T
        offset = self.output_mean + noise_scale * random.standard_normal(size) / np.sqrt(self.num_samples)
        return weights, offset - weights @ self.mean, noise_scale


def _checked_trials(posterior: Posterior, trials: Recording | None) -> Recording:
    if trials is None:
        return posterior.recording
    require_like_fitted(require_instance(trials, "trials", Recording), posterior.recording)
    return trials


def _checked_outputs(outputs: Any, trials: Recording, num_outputs: int | None) -> np.ndarray:
    values = as_array(outputs, "outputs", AXES).astype(np.float64)
    require_shape(values, "outputs", {"trial": trials.num_trials, "time": trials.num_bins, "output": num_outputs})
    if np.isinf(values).any():
        raise argument_error("outputs", "finite numbers, or NaN where there is none", "infinity", "mask it with NaN")
    number = int((~np.isnan(values).any(axis=2)).sum())
    if number < 3:
        raise argument_error("outputs", "at least three bins with all outputs", f"{number}", "give more trials")
    return values


def _excites(posterior: Posterior) -> np.ndarray:
    """(neuron,) whose rates are read: those of neurons that excite; of all where no signs are known."""
    priors = posterior.model.priors
    if isinstance(priors, DaleLoadings):
        return priors.signs > 0.0
    return np.ones(posterior.recording.num_neurons, dtype=bool)


def _num_networks(posterior: Posterior, num_draws: int) -> int:
    return len(sample_at_most(posterior, num_draws, seed=0)["b"])


def _rates_of_networks(posterior: Posterior, trials: Recording, num_draws: int, seed: int) -> Iterator[np.ndarray]:
    """(trial, time, neuron) rates of the networks in turn."""
    model, draws = posterior.model, sample_at_most(posterior, num_draws, seed=seed)
    if "initial_kappa" in draws and trials is not posterior.recording:
        draws = draws | {"initial_kappa": draws["initial_kappa"].mean(axis=1, keepdims=True)}
    for network in range(len(draws["b"])):
        one = {name: value[network] for name, value in draws.items()}
        if model.process_noise is None:
            alone = {name: value[None] for name, value in one.items()}
            yield simulate_draws(model, alone, trials, quantity="rate")[0]
        else:
            seen = {name: value for name, value in one.items() if name not in UNSEEN}
            yield _mean_rates(model, seen, trials)


@double_precision
def _mean_rates(model: LowRankModel, network: dict[str, np.ndarray], trials: Recording) -> np.ndarray:
    parameters = network_coordinates(model, network, trials)
    return np.asarray(_smoothed_rates(model.structure, parameters, model.data(trials)))


@functools.partial(jax.jit, static_argnums=0)
def _smoothed_rates(model: LowRankModel, parameters: Parameters, data: Data) -> Array:
    mean, covariance = smooth(filter_trials(model, parameters, data))
    currents, left = currents_at(model, parameters, data, mean), model.latent_factors(parameters, data)[0]
    phi = NONLINEARITIES[model.nonlinearity].rate
    return average_over_latents(phi, currents, left, jnp.asarray(covariance))
