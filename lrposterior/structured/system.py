"""What the engine works on: a recording, neuron by neuron, and what is known of the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lrposterior.background import RandomBulk, is_learned
from lrposterior.checks import require_instance
from lrposterior.model import LowRankModel
from lrposterior.observations import GaussianObservation
from lrposterior.populations import ByCellType
from lrposterior.priors import CorrelatedLoadings
from lrposterior.recording import Recording
from lrposterior.structured.layout import Layout

# Entries (neuron, sample) of the arrays that exist at one time only.
CHUNK_ENTRIES = 2_000_000
# Entries up to which a recording is copied neuron by neuron, which is a little faster to read.
LARGEST_COPY = 20_000_000
# Noise scales below this part of the unit count as zero.
SMALLEST_NOISE = 1e-6


@dataclass(frozen=True, eq=False)
class System:
    """A recording and the fixed parts of a network. A sample is one bin of one trial, trials one after the other.

    Attributes:
        layout: sizes and coordinates.
        activity: (neuron, sample), of a large recording a view.
        mask: (neuron, sample) True where observed, or None where all are.
        known: (neuron, sample) filtered stimulation, or None.
        features: (sample, input + 1) filtered inputs and the filtered 1.
        num_trials, num_bins: their product is the number of samples.
        integration_constant: a = dt / time constant.
        nonlinearity: a name in `NONLINEARITIES`.
        observation: what is recorded.
        seen_right: (neuron, seen) right factors Q of the latents whose right factors are known.
        noise_median, noise_spread: prior of the log noise scales.
        smallest_noise: noise scales are never below.
        read: (neuron, dimension) orthonormal patterns, the only ones that K reads, or None where it may read all. A fit
            leaves that open: it hardly sees what else K reads.
    """

    layout: Layout
    activity: np.ndarray
    mask: np.ndarray | None
    known: np.ndarray | None
    features: np.ndarray
    num_trials: int
    num_bins: int
    integration_constant: float
    nonlinearity: str
    observation: GaussianObservation
    seen_right: np.ndarray
    noise_median: float
    noise_spread: float
    smallest_noise: float
    read: np.ndarray | None = None

    @classmethod
    def of(cls, model: LowRankModel, recording: Recording) -> System:
        """From a settled model (`LowRankModel.for_recording`) and a recording.

        Args:
            model: the model; its time constant is a number.
            recording: what is fitted.

        Raises:
            ValueError: if the model has what this engine does not know: a known background, or a time constant that is
                inferred or differs between neurons.
        """
        if not cls.serves(model) or not isinstance(model.time_constant, float):
            raise ValueError(
                "model: expected no fixed background and a time constant that is a number, got "
                f"background={model.background!r}, time_constant={model.time_constant!r}; fix them"
            )
        shape = (recording.num_trials, recording.num_bins, recording.num_neurons)
        seen = np.zeros((shape[2], 0))
        if isinstance(model.background, RandomBulk):
            seen = shape[2] * model.background.visited
        a, free = recording.dt / model.time_constant, model.initial_state == "free"
        ones = filtered(np.ones((1, shape[1], 1)), a, 1.0 if free else 0.0)
        features = np.concatenate([filtered(recording.inputs, a), np.tile(ones, (shape[0], 1, 1))], axis=2)
        stimulation = recording.stimulation
        unit = model.priors.unit or 1.0
        return cls(
            layout=Layout(
                num_neurons=shape[2],
                rank=model.rank,
                num_seen=seen.shape[1],
                num_inputs=recording.num_inputs,
                correlated=isinstance(model.priors, CorrelatedLoadings),
                num_initial=shape[0] if free else 0,
            ),
            activity=_by_neuron(recording.activity),
            mask=None if recording.fully_observed else _by_neuron(recording.mask),
            known=None if stimulation is None else _by_neuron(filtered(stimulation, a)),
            features=features.reshape(shape[0] * shape[1], -1),
            num_trials=shape[0],
            num_bins=shape[1],
            integration_constant=a,
            nonlinearity=model.nonlinearity,
            observation=require_instance(model.observation, "observation", GaussianObservation),
            seen_right=seen,
            noise_median=float(np.log(model.priors.noise_scale * unit)),
            noise_spread=model.priors.noise_spread,
            smallest_noise=SMALLEST_NOISE * unit,
        )

    @classmethod
    def given_out(cls, model: LowRankModel, recording: Recording) -> System:
        """The same for the networks that a posterior gives out: K reads visited patterns alone where it was learned."""
        read = model.background.visited if is_learned(model.background) else None
        return dataclasses.replace(cls.of(model, recording), read=read)

    @staticmethod
    def serves(model: LowRankModel) -> bool:
        """Whether the engine knows all parts of the model."""
        known = model.background is None or isinstance(model.background, RandomBulk)
        one_law = isinstance(model.time_constant, float) and not isinstance(model.priors.K, ByCellType)
        gaussian = isinstance(model.observation, GaussianObservation) and model.process_noise is None
        return known and one_law and gaussian and not model.hidden_neurons and model.drift is None

    @property
    def num_samples(self) -> int:
        return self.num_trials * self.num_bins

    @property
    def num_observed(self) -> np.ndarray:
        """(neuron,) number of observed entries."""
        if self.mask is None:
            return np.full(self.layout.num_neurons, self.num_samples)
        return self.mask.sum(axis=1)

    def right_factors(self, vector: np.ndarray) -> np.ndarray:
        """(neuron, latent) right factors of all latents: K and Q."""
        return np.concatenate([self.read_part(self.layout.right_factors(vector)), self.seen_right], axis=1)

    def read_part(self, K: np.ndarray) -> np.ndarray:
        """What the network has of right factors K (neuron, ...): all, or where it learned Q Q^T K.

        The projection is its own transpose: it takes derivatives by what is read to those by K as well.
        """
        if self.read is None:
            return K
        return (self.read @ (self.read.T @ K.reshape(len(K), -1))).reshape(K.shape)

    @property
    def patterns(self) -> np.ndarray:
        """(neuron, seen) the orthonormal patterns of a random bulk."""
        return self.seen_right / self.layout.num_neurons

    def chunks(self) -> Iterator[slice]:
        """Slices of neurons, all of one size but the last."""
        size = max(1, CHUNK_ENTRIES // self.num_samples)
        number = -(-self.layout.num_neurons // size)
        size = -(-self.layout.num_neurons // number)
        for start in range(0, self.layout.num_neurons, size):
            yield slice(start, min(start + size, self.layout.num_neurons))

    def select(self, neurons: np.ndarray) -> System:
        """Some neurons only, with the right factors of the seen latents as they are."""
        return dataclasses.replace(
            self,
            layout=dataclasses.replace(self.layout, num_neurons=len(neurons)),
            activity=self.activity[neurons],
            mask=None if self.mask is None else self.mask[neurons],
            known=None if self.known is None else self.known[neurons],
            seen_right=self.seen_right[neurons],
        )

    def by_trial(self, values: np.ndarray) -> np.ndarray:
        """(trial, bin, ...) from (sample, ...)."""
        return values.reshape(self.num_trials, self.num_bins, *values.shape[1:])

    def by_sample(self, values: np.ndarray) -> np.ndarray:
        """(sample, ...) from (trial, bin, ...)."""
        return values.reshape(self.num_samples, *values.shape[2:])


def filtered(drive: np.ndarray, integration_constant: float, initial: float = 0.0) -> np.ndarray:
    """A drive (trial, bin, ...) through the neurons' low-pass filter; the last bin of the drive has no effect."""
    values = np.empty(drive.shape)
    values[:, 0] = initial
    for time in range(1, drive.shape[1]):
        values[:, time] = (1.0 - integration_constant) * values[:, time - 1]
        values[:, time] += integration_constant * drive[:, time - 1]
    return values


def _by_neuron(values: np.ndarray) -> np.ndarray:
    """(neuron, sample) from (trial, bin, neuron)."""
    by_neuron = values.reshape(-1, values.shape[2]).T
    return np.ascontiguousarray(by_neuron) if values.size <= LARGEST_COPY else by_neuron
