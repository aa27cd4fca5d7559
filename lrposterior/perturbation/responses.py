"""Responses of many networks to many perturbations, without the direct effect of the stimulation.

A candidate with pattern p and time course c drives the neurons with s[t] = c[t] p. On its own it moves the currents by
h[t] p, where h is c filtered with every neuron's time constant, whatever the connectivity. The response is the rest:

    current:  q = x_perturbed - x_unperturbed - h p,     q[t+1] = (1 - a) q[t] + a W (r_perturbed[t] - r_unperturbed[t])
    rate:     q = phi(x_perturbed) - phi(x_unperturbed + h p)

Where all of W is of low rank, L R^T / N with a latent for each column (`LowRankModel.latent_factors`), the response of
the currents is q = L d with a state d of as many numbers (per draw, candidate and condition). With another background
the state is q itself; with a random bulk every draw has a W0 of its own. Everything below is written for a state and
its left factor, which is L in the first case and absent in the second, and for rates.

With hidden neurons (`lrposterior.hidden`), light reaches the recorded one among those that are alike, and with
K_recorded of this one and the share f

    q[t+1] = (1 - a) q[t] + a M (f K_recorded^T (r_perturbed - r) + (K - f K_recorded)^T (r_alike - r)) / (f N),

where r_alike = phi(x_perturbed - h p) are the rates of the others.

With process noise, perturbed and unperturbed trials share their noise. The response is its average over the noise: what
repeated stimulation shows. Every draw of the network has realisations of the noise of its own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm.auto import tqdm

from lrposterior.background import Background, recurrent_drive
from lrposterior.bulk import BulkDraws
from lrposterior.data import Data
from lrposterior.fast_gaussian import FastBulk
from lrposterior.hidden import K_RECORDED
from lrposterior.model import LowRankModel
from lrposterior.network import NONLINEARITIES
from lrposterior.parameters import Parameters
from lrposterior.perturbation.experiment import Experiment
from lrposterior.precision import double_precision
from lrposterior.recording import Recording
from lrposterior.rollouts import draws_in_chunks, simulate_each, to_coordinates, unseen_bulk

Quantity = Literal["current", "rate"]

# Realisations of the process noise for every draw and condition.
NUM_NOISE = 8

# What is kept of a block of candidates stays below this many bytes, and the arrays of one step near the cache.
BLOCK_BYTES = 6e8
STEP_ENTRIES = 2**16


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Networks:
    """Draws of a network, halted in the bin in which the perturbations start.

    Attributes:
        model: the structure of a settled model.
        num_bins: number of bins in the window, the last ones of those that are simulated.
        parameters: by name, with a leading draw axis; M and K are the factors of all latents, and with process noise
            noise_loadings (draw, neuron, rank) those that it drives.
        current: (draw, condition and noise, neuron) unperturbed currents in that bin.
        inputs: (condition and noise, time, input) from that bin to the end of the window.
        time_course: (time,) of the stimulation in the same bins.
        dt: bin width in seconds.
        population: (neuron,) which of the time constants every neuron has.
        background: a known W0 or None.
        own_background: (draw, neuron, neuron) W0 of every draw, or None.
        bulk: the same, not yet as arrays, or None.
        process: (draw, condition and noise, time, rank) what process noise adds to the latents after every bin, or
            None. There are `num_noise` realisations of every condition, one after the other.
    """

    model: LowRankModel = field(metadata={"static": True})
    num_bins: int = field(metadata={"static": True})
    parameters: Parameters
    current: Array
    inputs: Array
    time_course: Array
    dt: Array
    population: Array
    background: Background | None
    own_background: Array | FastBulk | None = None
    bulk: BulkDraws | None = None
    process: Array | None = None

    @property
    def num_noise(self) -> int:
        """Realisations of the process noise for every condition; 1 without any."""
        return 1 if self.process is None else NUM_NOISE

    @property
    def num_draws(self) -> int:
        return self.current.shape[0]

    @property
    def is_low_rank(self) -> bool:
        """Whether there is no W0 beside M K^T / N."""
        return self.background is None and self.own_background is None and self.bulk is None

    def chunks(self) -> Iterator[tuple[Networks, slice, int]]:
        """Some draws at a time, with the arrays of their W0; which they are, and how many of them are no repeats."""
        if self.bulk is None:
            yield self, slice(0, self.num_draws), self.num_draws
            return
        for draws, num_new in draws_in_chunks(self.bulk):
            chosen = dataclasses.replace(
                self,
                parameters={name: value[draws] for name, value in self.parameters.items()},
                current=self.current[draws],
                own_background=jax.tree.map(jnp.asarray, self.bulk.take(draws).operators()),
                bulk=None,
                process=None if self.process is None else self.process[draws],
            )
            yield chosen, slice(draws[0], draws[0] + num_new), num_new

    def at(self, conditions: slice) -> Networks:
        """The same networks in some of the conditions, with all of their noise."""
        trials = slice(conditions.start * self.num_noise, conditions.stop * self.num_noise)
        return dataclasses.replace(
            self,
            current=self.current[:, trials],
            inputs=self.inputs[trials],
            process=None if self.process is None else self.process[:, trials],
        )

    def state_size(self, quantity: Quantity) -> int:
        """How many numbers describe the response in one bin; see `Responses`."""
        left_factor = self.parameters["M"]
        return left_factor.shape[2 if quantity == "current" and self.is_low_rank else 1]


@dataclass(frozen=True, eq=False)
class Responses:
    """Responses of every draw of the networks to one candidate, as NumPy arrays.

    Attributes:
        states: (draw, condition and bin, state).
        factor: (draw, neuron, state), so that the response is states @ factor^T; None where states are responses.
        noise: (draw,) variance by process noise of the response in one trial, summed over conditions, bins and neurons.
    """

    states: np.ndarray
    factor: np.ndarray | None
    noise: np.ndarray

    @property
    def num_draws(self) -> int:
        return len(self.states)

    def every(self, stride: int) -> Responses:
        """A subset of the draws."""
        factor = None if self.factor is None else self.factor[::stride]
        return Responses(self.states[::stride], factor, self.noise[::stride])

    def mean(self) -> np.ndarray:
        """(condition and bin, neuron)."""
        if self.factor is None:
            return self.states.mean(axis=0)
        return _over_draws(self.states) @ _over_draws(self.factor).T / self.num_draws

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and unbiased variance over draws, each (condition and bin, neuron).

        With a factor the squares are q_n² = sum_{r,q} (M_nr M_nq) (d_r d_q): one matrix product over draws and pairs.
        """
        if self.factor is None:
            mean_square = np.einsum("skn,skn->kn", self.states, self.states) / self.num_draws
        else:
            left, right = np.triu_indices(self.factor.shape[2])
            products = self.states[..., left] * self.states[..., right] * np.where(left == right, 1.0, 2.0)
            of_factors = self.factor[..., left] * self.factor[..., right]
            mean_square = _over_draws(products) @ _over_draws(of_factors).T / self.num_draws
        mean = self.mean()
        variance = np.maximum(mean_square - mean**2, 0.0) * self.num_draws / (self.num_draws - 1)
        return mean, variance

    def dense(self) -> np.ndarray:
        """(draw, condition and bin, neuron)."""
        return self.states if self.factor is None else self.states @ np.swapaxes(self.factor, 1, 2)

    def powers(self) -> np.ndarray:
        """(draw,) squares, summed over conditions, bins and neurons."""
        if self.factor is None:
            return np.einsum("skn,skn->s", self.states, self.states)
        overlaps = np.swapaxes(self.factor, 1, 2) @ self.factor
        return np.einsum("skr,skr->s", self.states, self.states @ overlaps)

    def spread(self) -> float:
        """Unbiased variance over draws, summed over conditions, bins and neurons."""
        power = np.sum(self.powers()) - self.num_draws * np.sum(self.mean() ** 2)
        return np.maximum(power, 0.0) / (self.num_draws - 1)

    def readout(self, weights: np.ndarray) -> np.ndarray:
        """(draw, condition and bin) weighted sums over neurons."""
        return (
            self.states @ weights
            if self.factor is None
            else np.einsum("skr,sr->sk", self.states, weights @ self.factor)
        )

    def gram(self, noise_scale: np.ndarray) -> np.ndarray:
        """(draw, draw) sums over conditions, bins and neurons of q q' / noise_scale².

        With a factor, sum_n M_n d M'_n d' = sum_{r,q} (M^T M')_{rq} d_r d'_q, so that no response is formed.
        """
        if self.factor is None:
            scaled = (self.states / noise_scale).reshape(self.num_draws, -1)
            return scaled @ scaled.T
        size = self.factor.shape[2]
        states = np.moveaxis(self.states, 2, 0).reshape(size * self.num_draws, -1)
        factors = np.moveaxis(self.factor / noise_scale[:, None], 2, 0).reshape(size * self.num_draws, -1)
        products = (states @ states.T) * (factors @ factors.T)
        return products.reshape(size, self.num_draws, size, self.num_draws).sum(axis=(0, 2))


def _over_draws(values: np.ndarray) -> np.ndarray:
    """(row, draw and column) from (draw, row, column)."""
    return np.swapaxes(values, 0, 1).reshape(values.shape[1], -1)


def halted_networks(model: LowRankModel, draws: Mapping[str, np.ndarray], experiment: Experiment) -> Networks:
    """Run draws of the parameters without perturbation up to the bin in which the perturbations start.

    A free initial state is the mean of the fitted initial latents, in every condition. Where the draws do not hold the
    unseen part of a random bulk, it is 0, and W is of low rank. Call it in double precision.

    Args:
        model: a settled model.
        draws: parameters by name with a leading draw axis, as `Posterior.sample_parameters` gives them.
        experiment: the conditions and the perturbations.
    """
    draws = dict(draws)
    if "initial_kappa" in draws:
        draws["initial_kappa"] = draws["initial_kappa"].mean(axis=1, keepdims=True)
    begin, stop = experiment.begin, experiment.stop
    before, process = trials_before(model, experiment), None
    if model.process_noise is not None:
        roots = np.linalg.cholesky(draws["process_noise"])
        process = standard_noise(experiment, *roots.shape[:2]) @ np.swapaxes(roots, 1, 2)[:, None]
        draws["process"] = process[:, :, : begin + 1]
    parameters, data, bulk = to_coordinates(model, draws, before), model.data(before), unseen_bulk(model, draws)
    current = jnp.asarray(simulate_each(_last_current, model, draws, before))
    if parameters.pop("process", None) is not None:
        parameters["noise_loadings"] = parameters["M"]
    if bulk is None:
        parameters["M"], parameters["K"] = jax.vmap(lambda draw: model.latent_factors(draw, data))(parameters)
        if K_RECORDED in parameters:
            own = parameters[K_RECORDED]
            parameters[K_RECORDED] = jnp.tile(own, (1, 1, parameters["K"].shape[2] // own.shape[2]))

    return Networks(
        model=model.structure,
        num_bins=experiment.num_bins,
        parameters=parameters,
        current=current,
        inputs=jnp.asarray(_inputs(model, experiment)[:, begin:stop]),
        time_course=jnp.asarray(experiment.time_course[begin:stop]),
        dt=data.dt,
        population=data.population,
        background=data.background,
        bulk=bulk,
        process=None if process is None else jnp.asarray(process[:, :, begin:stop]),
    )


def trials_before(model: LowRankModel, experiment: Experiment) -> Recording:
    """Trials up to the bin in which the perturbations start, `NUM_NOISE` of every condition with process noise."""
    inputs = _inputs(model, experiment)[:, : experiment.begin + 1]
    return Recording(np.zeros((*inputs.shape[:2], experiment.shape[3])), experiment.dt, inputs=inputs)


def _inputs(model: LowRankModel, experiment: Experiment) -> np.ndarray:
    """(condition and noise, time, input)."""
    return experiment.inputs if model.process_noise is None else np.repeat(experiment.inputs, NUM_NOISE, axis=0)


def _last_current(model: LowRankModel, parameters: Parameters, data: Data) -> Array:
    """(trial, neuron) currents in the last bin, where there is "process" (trial, time, rank) with this noise."""
    if "process" in parameters:
        data = model.driven_by_noise(parameters, data, parameters["process"])
    return model.currents(parameters, data)[:, -1]


def standard_noise(experiment: Experiment, num_draws: int, rank: int) -> np.ndarray:
    """(draw, condition and noise, time, rank) process noise before it has its covariance."""
    shape = (num_draws, experiment.num_conditions * NUM_NOISE, experiment.stop, rank)
    return np.random.default_rng([experiment.noise_seed, 2]).standard_normal(shape)


@double_precision
def response_draws(
    model: LowRankModel,
    draws: Mapping[str, np.ndarray],
    experiment: Experiment,
    quantity: Quantity,
    *,
    progress: bool = False,
) -> np.ndarray:
    """Responses of draws of the parameters, (draw, candidate, condition, time, neuron); see `halted_networks`."""
    networks = halted_networks(model, draws, experiment)
    responses = np.empty((networks.num_draws, *experiment.shape))
    with tqdm(total=experiment.num_candidates, desc="responses", unit="candidate", disable=not progress) as bar:
        for candidates, conditions, simulated in simulate_blocks(networks, experiment, (quantity,)):
            for candidate, each in zip(candidates, simulated[quantity], strict=True):
                part = responses[:, candidate, conditions]
                part[:] = each.dense().reshape(part.shape)
            if conditions.stop == experiment.num_conditions:
                bar.update(len(candidates))
    return responses


def simulate_blocks(
    networks: Networks, experiment: Experiment, quantities: tuple[Quantity, ...], *, with_gram: bool = False
) -> Iterator[tuple[range, slice, dict[Quantity, list[Responses]]]]:
    """Simulate the candidates in blocks of bounded memory. Call it in double precision.

    Args:
        networks: draws of the network.
        experiment: the conditions and the perturbations.
        quantities: of "current" and "rate".
        with_gram: whether the caller keeps a (draw, draw) matrix for each candidate of a block as well.

    Yields:
        Which candidates, which conditions (to the end before other candidates follow), and the responses of each of
        these candidates by quantity.
    """
    num_draws = networks.num_draws
    state_size = sum(networks.state_size(quantity) for quantity in set(quantities))
    per_condition = 8.0 * num_draws * experiment.num_bins * state_size * networks.num_noise
    per_candidate = 8.0 * num_draws**2 if with_gram else 0.0
    factor = np.asarray(networks.parameters["M"]) if networks.is_low_rank else None
    # With as many latents as neurons responses themselves are no longer than states.
    is_short = factor is not None and factor.shape[2] < experiment.shape[3]
    for candidates, conditions, patterns in blocks(experiment, networks.num_noise, per_condition, per_candidate):
        simulated = _simulate_draws(tuple(sorted(set(quantities))), networks.at(conditions), patterns)
        responses: dict[Quantity, list[Responses]] = {}
        for quantity, array in simulated.items():
            left = factor if quantity == "current" else None
            if left is not None and not is_short:
                array, left = np.einsum("dpcts,dns->dpctn", array, left, optimize=True), None
            responses[quantity] = [
                _over_noise(array[:, row], left, networks.num_noise) for row in range(len(candidates))
            ]
        yield candidates, conditions, responses


def blocks(
    experiment: Experiment, num_noise: int, per_condition: float, per_candidate: float = 0.0
) -> Iterator[tuple[range, slice, np.ndarray]]:
    """Candidates and conditions in blocks of bounded memory.

    All blocks have one number of candidates, so that a function compiles once.

    Args:
        experiment: the conditions and the perturbations.
        num_noise: trials of every condition.
        per_condition: bytes that one candidate takes in every condition.
        per_candidate: bytes that it takes besides.

    Yields:
        Which candidates, which conditions (to the end before other candidates follow), and the patterns (candidate,
        neuron) of these, the last block filled up with zeros.
    """
    num_neurons = experiment.shape[3]
    num_conditions = int(np.clip(BLOCK_BYTES // per_condition, 1, experiment.num_conditions))
    in_memory = BLOCK_BYTES // (per_condition * num_conditions + per_candidate)
    largest = min(in_memory, STEP_ENTRIES // (num_conditions * num_noise * num_neurons))
    size = int(np.clip(largest, 1, experiment.num_candidates))
    for start in range(0, experiment.num_candidates, size):
        chosen = experiment.patterns[start : start + size]
        patterns = np.zeros((size, num_neurons))
        patterns[: len(chosen)] = chosen
        for first in range(0, experiment.num_conditions, num_conditions):
            conditions = slice(first, min(first + num_conditions, experiment.num_conditions))
            yield range(start, start + len(chosen)), conditions, patterns


def _over_noise(states: np.ndarray, factor: np.ndarray | None, num_noise: int) -> Responses:
    """The average over realisations of the noise of states (draw, condition and noise, time, state)."""
    num_draws, _, num_bins, size = states.shape
    if num_noise == 1:
        return Responses(states.reshape(num_draws, -1, size), factor, np.zeros(num_draws))
    apart = states.reshape(num_draws, -1, num_noise, num_bins, size)
    mean = apart.mean(axis=2)
    rest = (apart - mean[:, :, None]).reshape(num_draws, -1, size)
    seen = rest if factor is None else rest @ (np.swapaxes(factor, 1, 2) @ factor)
    noise = np.einsum("dks,dks->d", seen, rest) / (num_noise - 1)
    return Responses(mean.reshape(num_draws, -1, size), factor, noise)


def _simulate_draws(
    quantities: tuple[Quantity, ...], networks: Networks, patterns: np.ndarray
) -> dict[Quantity, np.ndarray]:
    """States (draw, candidate, condition, time, state) by quantity."""
    states: dict[Quantity, np.ndarray] = {}
    for some, draws, num_new in networks.chunks():
        for quantity, array in _simulate(quantities, some, jnp.asarray(patterns)).items():
            if draws == slice(0, networks.num_draws):
                states[quantity] = np.asarray(array)
                continue
            if quantity not in states:
                states[quantity] = np.empty((networks.num_draws, *array.shape[1:]))
            states[quantity][draws] = array[:num_new]
    return states


@functools.partial(jax.jit, static_argnums=0)
def _simulate(quantities: tuple[Quantity, ...], networks: Networks, patterns: Array) -> dict[Quantity, Array]:
    """States (draw, candidate, condition, time, state) by quantity.

    One draw at a time: several at once were slower at every size that was tried.
    """
    return jax.lax.map(
        lambda draw: respond(quantities, networks, patterns, *draw),
        (networks.parameters, networks.current, networks.own_background, networks.process),
    )


def respond(
    quantities: tuple[Quantity, ...],
    networks: Networks,
    patterns: Array,
    parameters: Parameters,
    current: Array,
    own_background: Array | FastBulk | None,
    process: Array | None,
) -> dict[Quantity, Array]:
    """States (candidate, condition, time, state) of one draw by quantity."""
    model = networks.model
    M, K = parameters["M"], parameters["K"]
    num_neurons, rank = M.shape
    constants = networks.dt / model.time_constants_of(parameters, networks.dt)
    a = constants[networks.population]
    phi = NONLINEARITIES[model.nonlinearity].rate
    low_rank, W0 = networks.is_low_rank, networks.background if own_background is None else own_background
    of_state = constants[model.population_of_latents(rank, networks.population)] if low_rank else a
    drive = jnp.einsum("cti,ni->tcn", networks.inputs, parameters["B"]) + parameters["b"][None, None, :]
    if process is not None:
        drive = drive + jnp.einsum("ctr,nr->tcn", process, parameters["noise_loadings"]) / a

    def read(rates: Array) -> Array:
        return rates @ K / num_neurons

    def recurrent(rates: Array) -> Array:
        if low_rank:
            return read(rates) @ M.T
        background = jax.vmap(lambda each: jnp.asarray(recurrent_drive(cast(Any, W0), each)))
        return read(rates) @ M.T + background(rates.reshape(-1, num_neurons)).reshape(rates.shape)

    def read_change(change: Array, unperturbed: Array, recurrent_change: Array) -> Array:
        """What latents receive of changed rates; light reaches the recorded one among neurons that are alike."""
        if K_RECORDED not in parameters:
            return read(change)
        of_recorded = model.recorded_share(num_neurons) * parameters[K_RECORDED]
        of_others = phi(unperturbed + recurrent_change) - phi(unperturbed)
        return (change @ of_recorded + of_others @ (K - of_recorded)) / num_neurons

    def step(carry: tuple[Array, Array, Array], driven: tuple[Array, Array]) -> tuple:
        unperturbed, direct, state = carry
        drive_now, course_now = driven
        fed_through = unperturbed[None, :, :] + direct * patterns[:, None, :]
        rates = phi(unperturbed)
        recurrent_change = state @ M.T if low_rank else state
        rates_perturbed = phi(fed_through + recurrent_change)
        change = rates_perturbed - rates[None, :, :]
        kept: dict[Quantity, Array] = {"current": state}
        if "rate" in quantities:
            kept["rate"] = rates_perturbed - phi(fed_through)
        following = (
            (1.0 - a) * unperturbed + a * (recurrent(rates) + drive_now),
            (1.0 - a) * direct + a * course_now,
            (1.0 - of_state) * state
            + of_state * (read_change(change, unperturbed, recurrent_change) if low_rank else recurrent(change)),
        )
        return following, {name: kept[name] for name in quantities}

    at_rest = jnp.zeros((patterns.shape[0], current.shape[0], rank if low_rank else num_neurons), M.dtype)
    start = (current, jnp.zeros(num_neurons, M.dtype), at_rest)
    _, states = jax.lax.scan(step, start, (drive, networks.time_course))
    return {name: jnp.moveaxis(values[-networks.num_bins :], 0, 2) for name, values in states.items()}
