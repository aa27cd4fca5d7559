"""A session of a known excitatory-inhibitory network at work on a task, as laboratories export them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from lrposterior.checks import require_integer
from lrposterior.model import LowRankModel
from lrposterior.observations import PoissonObservation
from lrposterior.priors import DaleLoadings
from lrposterior.recording import Recording
from lrposterior.simulation import Simulation, smooth_noise

RANK, DT, MEAN_RATE = 3, 0.025, 13.6  # DT in s, MEAN_RATE in spikes/s
INTEGRATION_CONSTANTS = {"E": 0.54, "I": 0.72}  # a = DT / time_constant
MODEL = LowRankModel(
    RANK,
    time_constant={cell_type: DT / a for cell_type, a in INTEGRATION_CONSTANTS.items()},
    nonlinearity="softplus",
    observation=PoissonObservation(),
    background=None,
    process_noise="diagonal",
    priors=DaleLoadings(K={"E": 1.5, "I": 6.0}),
)
# Spectral radius of the part of W that leaves the neurons of one type, E or I.
GAIN = 1.5
# In units of current: mean and standard deviation over neurons of the mean current, then standard deviations of the
# weights of pulses and of inputs that last, and of the process noise.
MEAN_CURRENT, CURRENT_SD, PULSE_SD, LASTING_SD, NOISE_SD = 0.5, 0.5, 0.6, 0.2, 0.25
# Of the logarithm of a neuron's mean rate; and the part of it that is there at any current.
RATE_SPREAD, BASELINE_PART = 0.6, 1.0 / 30.0
# Rates and biases are set by trials of their own, so that a network does not depend on how many others it is shown.
NUM_REFERENCE_TRIALS = 100
# Counts of an artefact: 720 to 1,200 spikes/s.
ARTEFACTS = (18, 30)
# Pulses, from and to, in parts of a trial.
STIMULUS, DELAY, CUE, CHOICE, OUTCOME = (0.2, 0.32), (0.32, 0.5), (0.5, 0.53), (0.58, 0.66), (0.78, 0.86)
LONGEST_REACTION, PROBABILITY_CORRECT, COVARIATE_TIME = 0.06, 0.85, 1.5  # of a trial; and in s
LASTING_INPUTS, NUM_TASK_INPUTS = (2, 9, 10, 11), 12


def simulate_session(
    *,
    num_trials: int = 1043,
    num_bins: int = 219,
    num_excitatory: int = 41,
    num_inhibitory: int = 13,
    num_inputs: int = 14,
    num_outliers: int = 5,
    seed: int,
) -> Simulation:
    """A session of a known excitatory-inhibitory network: numbers of spikes in bins of 25 ms, while it does a task.

    The network is a `LowRankModel` of rank 3 with Dale's law, a softplus, process noise, Poisson counts, and
    a = dt / time_constant = 0.54 for the excitatory neurons and 0.72 for the inhibitory ones:

        x[t+1] = (1 - a) x[t] + a (M K^T r[t] / N + B u[t] + b) + M eps[t],      r = softplus(x)
        y[t]   ~ Poisson(dt (rate_scale r[t] + baseline)),                       eps[t] ~ Normal(0, 0.25²)

    Excitatory neurons drive most what they are driven with (K = M abs(z)), inhibition is broad (K = -abs(z)), and both
    parts of W have a spectral radius of 1.5. Biases hold the currents at Normal(0.5, 0.5²) where inputs are at their
    mean; rate_scale is set such that mean rates are log-normal (0.6) over neurons with a mean of 13.6 spikes/s.

    Inputs are, in this order: stimulus left and right (a pulse, of three contrasts), context (0 or 1), cue, choice left
    and right (of which 85% are correct, after a reaction time), reward, error, delay (pulses), previous choice (-1 or
    1), previous reward (0 or 1), the time in the session (-1 to 1), and further ones that wander with a correlation
    time of 1.5 s. Trials differ by them, by process noise and by counts.

    The unit is counts in a bin, for `PoissonObservation`; `counts_to_rates` makes spikes/s of them.

    Args:
        num_trials, num_bins: size of the session. Pulses stand at the same parts of a trial, however many bins it has.
        num_excitatory, num_inhibitory: neurons, with cell types "E" and "I" in this order.
        num_inputs: how many of the inputs there are.
        num_outliers: bins of single neurons whose counts are artefacts of 720 to 1,200 spikes/s.
        seed: seed of everything random. The network does not depend on the number of trials.

    Returns:
        The recording, whose trial labels are the conditions ("left A": stimulus and context), its truth, and where the
        artefacts are. Its model is the family of the truth, as one would fit it.

    Raises:
        ValueError: if an argument is out of its range.
    """
    sizes = {"num_trials": num_trials, "num_bins": num_bins}
    for name, value in sizes.items():
        require_integer(value, name, minimum=2)
    for name, value in (
        ("num_excitatory", num_excitatory),
        ("num_inhibitory", num_inhibitory),
        ("num_inputs", num_inputs),
    ):
        require_integer(value, name, minimum=1)
    num_neurons = num_excitatory + num_inhibitory
    require_integer(num_outliers, "num_outliers", maximum=num_trials * num_bins * num_neurons)
    cell_types = ["E"] * num_excitatory + ["I"] * num_inhibitory
    of_network, of_reference, of_trials, of_outliers = (np.random.default_rng([seed, stream]) for stream in range(4))

    reference, _ = _task_inputs(NUM_REFERENCE_TRIALS, num_bins, num_inputs, of_reference)
    parameters = _network(np.array(cell_types), _without_activity(reference, cell_types), of_network, seed)
    inputs, conditions = _task_inputs(num_trials, num_bins, num_inputs, of_trials)
    trials = _without_activity(inputs, cell_types, conditions)
    recording = MODEL.simulate(parameters, trials, seed=seed)
    entries = of_outliers.choice(recording.activity.size, num_outliers, replace=False)
    outliers = np.stack(np.unravel_index(np.sort(entries), recording.activity.shape), axis=1)
    activity = recording.activity.copy()
    activity[tuple(outliers.T)] = of_outliers.integers(*ARTEFACTS, size=num_outliers, endpoint=True)
    return Simulation(
        dataclasses.replace(recording, activity=activity),
        parameters,
        _rates(parameters, trials, seed),
        MODEL,
        outliers,
    )


def _without_activity(
    inputs: np.ndarray, cell_types: Sequence[str], trial_labels: Sequence[str] | None = None
) -> Recording:
    empty = np.zeros((*inputs.shape[:2], len(cell_types)))
    return Recording(empty, DT, inputs=inputs, cell_types=cell_types, trial_labels=trial_labels)


def _network(
    cell_types: np.ndarray, reference: Recording, random: np.random.Generator, seed: int
) -> dict[str, np.ndarray]:
    """The parameters by name, for inputs like those of reference trials."""
    num_neurons, num_inputs = reference.num_neurons, reference.num_inputs
    M, z = np.abs(random.standard_normal((2, num_neurons, RANK)))
    M /= np.sqrt(np.mean(M**2, axis=0))
    K = z * np.where(cell_types == "E", 1.0, -1.0)[:, None] * np.where((cell_types == "E")[:, None], M, 1.0)
    for chosen in (cell_types == "E", cell_types == "I"):
        K[chosen] *= GAIN / np.max(np.abs(np.linalg.eigvals(K[chosen].T @ M[chosen] / num_neurons)))
    channels = np.arange(num_inputs)
    lasts = np.isin(channels, LASTING_INPUTS) | (channels >= NUM_TASK_INPUTS)
    B = np.where(lasts, LASTING_SD, PULSE_SD) * random.standard_normal((num_neurons, num_inputs))
    mean_current = MEAN_CURRENT + CURRENT_SD * random.standard_normal(num_neurons)
    b = mean_current - M @ (K.T @ np.logaddexp(0.0, mean_current)) / num_neurons
    dynamics = {
        "M": M,
        "K": K,
        "B": B,
        "b": b - B @ reference.inputs.mean(axis=(0, 1)),
        "process_noise": NOISE_SD**2 * np.eye(RANK),
    }
    mean_rate = np.exp(RATE_SPREAD * random.standard_normal(num_neurons))
    mean_rate *= MEAN_RATE / mean_rate.mean()
    baseline = BASELINE_PART * mean_rate
    rate_scale = (mean_rate - baseline) / _rates(dynamics, reference, seed).mean(axis=(0, 1))
    return dynamics | {"rate_scale": rate_scale, "baseline": baseline}


def _rates(parameters: dict[str, np.ndarray], trials: Recording, seed: int) -> np.ndarray:
    """(trial, time, neuron) r, with the process noise of `MODEL.simulate` at this seed."""
    known = dataclasses.replace(MODEL, observation=PoissonObservation(scale=MEAN_RATE))
    settled = known.with_noise_along(parameters["M"]).for_recording(trials)
    return np.logaddexp(0.0, settled.simulated_currents(parameters, trials, seed=seed))


def _task_inputs(
    num_trials: int, num_bins: int, num_inputs: int, random: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    """(trial, time, input) what the network receives, and the conditions of the trials."""
    # Those of the trial before the first as well: it is the previous one.
    right, context = random.integers(2, size=(2, num_trials + 1))
    correct = (random.random(num_trials + 1) < PROBABILITY_CORRECT).astype(int)
    chose_right = np.where(correct, right, 1 - right)
    contrast = random.choice([0.25, 0.5, 1.0], num_trials)
    reaction = LONGEST_REACTION * random.random(num_trials)

    def pulse(window: tuple[float, float], size: np.ndarray, delay: np.ndarray | float = 0.0) -> np.ndarray:
        first, last = (np.floor((edge + np.broadcast_to(delay, num_trials)) * num_bins) for edge in window)
        bins = np.arange(num_bins)
        within = (bins >= first[:, None]) & (bins < np.maximum(last, first + 1)[:, None])
        return size[:, None] * within

    def level(size: np.ndarray) -> np.ndarray:
        return np.repeat(size[:, None], num_bins, axis=1)

    always = np.ones(num_trials)
    side, chosen, rewarded = right[1:], chose_right[1:], correct[1:]
    task = [
        pulse(STIMULUS, contrast * (1 - side)),
        pulse(STIMULUS, contrast * side),
        level(context[1:]),
        pulse(CUE, always),
        pulse(CHOICE, 1 - chosen, reaction),
        pulse(CHOICE, chosen, reaction),
        pulse(OUTCOME, rewarded, reaction),
        pulse(OUTCOME, 1 - rewarded, reaction),
        pulse(DELAY, always),
        level(2 * chose_right[:-1] - 1),
        level(correct[:-1]),
        level(np.linspace(-1.0, 1.0, num_trials)),
    ]
    num_others = max(num_inputs - NUM_TASK_INPUTS, 0)
    wandering = smooth_noise((num_trials, num_bins, num_others), COVARIATE_TIME / DT, random)
    inputs = np.concatenate([np.stack(task[:num_inputs], axis=2), wandering], axis=2)
    names = np.array(["left", "right"])[side], np.array(["A", "B"])[context[1:]]
    return inputs, [f"{stimulus} {rule}" for stimulus, rule in zip(*names, strict=True)]
