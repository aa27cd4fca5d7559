"""What changes between sessions in how a neuron is seen: an offset and a scale of its current.

    current that is seen = session_scale[n, s] x[t, n] + session_offset[n, s]

takes the place of x in the observation of neuron n in session s. The network is one and the same in all sessions, and
runs on x. With counts at low rates, where softplus is nearly exponential, an offset multiplies the rate by a factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.checks import argument_error, require_positive
from lrposterior.observations import SESSION_OFFSET, SESSION_SCALE, Emission
from lrposterior.parameters import Block
from lrposterior.recording import Recording


@dataclass(frozen=True)
class SessionDrift:
    """Every neuron is seen with an offset and a scale of its own in every session, the `session_labels` of a recording.

        session_offset[n, s]     ~ Normal(0, offset²)       in units of current
        log session_scale[n, s]  ~ Normal(0, scale²)

    A session that was not fitted is taken to be one with an offset of 0 and a scale of 1.

    Args:
        offset: prior standard deviation of the offsets, in units of current as those of the prior of b.
        scale: prior standard deviation of the logarithm of the scales.
        sessions: names of the sessions, found in the recording when a model is fitted.

    Raises:
        ValueError: if a standard deviation is not positive.
    """

    offset: float = 0.3
    scale: float = 0.1
    sessions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("offset", "scale"):
            object.__setattr__(self, name, require_positive(getattr(self, name), f"drift.{name}"))

    def blocks(self, num_neurons: int, unit: float) -> list[Block]:
        """The parameters, (neuron, session)."""
        shape = num_neurons, len(self.sessions)
        return [
            Block(SESSION_OFFSET, shape, 0.0, self.offset * unit),
            Block(SESSION_SCALE, shape, 0.0, self.scale),
        ]

    def sessions_of(self, recording: Recording) -> np.ndarray:
        """(trial,) numbers of the sessions; for one that was not fitted, their number."""
        labels = recording.session_labels or (None,) * recording.num_trials
        number = {name: index for index, name in enumerate(self.sessions)}
        return np.array([len(number) if label is None else number.get(label, len(number)) for label in labels])


def session_names(recording: Recording) -> tuple[str, ...]:
    """The sessions of a recording, in the order in which they first appear.

    Raises:
        ValueError: if the recording does not tell its sessions.
    """
    if recording.session_labels is None:
        mend = "give one name per trial, or combine_recordings(..., sessions=...); or fit with drift=None"
        raise argument_error("session_labels", "the session of every trial, as the model has drift", "None", mend)
    return tuple(dict.fromkeys(recording.session_labels))


@dataclass(frozen=True)
class DriftingEmission:
    """An `Emission` of the currents as they are seen in a session.

    Attributes:
        seen: the emission of these.
        scale, offset: (..., neuron), as the currents or constant along time.
        belongs: (..., 1, session) True for the session.
    """

    seen: Emission
    scale: Array
    offset: Array
    belongs: Array

    @classmethod
    def of(cls, seen: Emission, parameters: Mapping[str, Array], session: Array) -> DriftingEmission:
        """In sessions with these numbers (...), each for currents (..., neuron); beyond the last, without drift."""
        offset, log_scale = parameters[SESSION_OFFSET], parameters[SESSION_SCALE]
        belongs = session[..., None] == jnp.arange(offset.shape[1])
        chosen = belongs.astype(offset.dtype)
        return cls(seen, jnp.exp(chosen @ log_scale.T), chosen @ offset.T, belongs[..., None, :])

    def _current(self, current: Array) -> Array:
        return self.scale * current + self.offset

    def mean(self, current: Array) -> Array:
        return self.seen.mean(self._current(current))

    def variance(self, current: Array) -> Array:
        return self.seen.variance(self._current(current))

    def sensitivity(self, current: Array) -> Array:
        return self.scale * self.seen.sensitivity(self._current(current))

    def sample(self, random: np.random.Generator, current: Array) -> np.ndarray:
        return self.seen.sample(random, self._current(current))

    def log_likelihood(self, activity: Array, mask: Array, current: Array) -> Array:
        return self.seen.log_likelihood(activity, mask, self._current(current))

    def score(self, activity: Array, mask: Array, current: Array) -> Array:
        return self.scale * self.seen.score(activity, mask, self._current(current))

    def weights(self, mask: Array, current: Array) -> Array:
        return self.scale**2 * self.seen.weights(mask, self._current(current))

    def slopes(self, current: Array) -> Array:
        shifted = self._current(current)
        by_offset = self.seen.sensitivity(shifted)
        by_log_scale = by_offset * self.scale * current
        of_drift = [jnp.where(self.belongs, slope[..., None], 0.0) for slope in (by_offset, by_log_scale)]
        return jnp.concatenate([self.seen.slopes(shifted), *of_drift], axis=-1)

    def own_information(self, mask: Array, current: Array) -> Array:
        own = self.seen.own_information(mask, self._current(current))
        num_of_drift = 2 * self.belongs.shape[-1]
        return jnp.concatenate([own, jnp.zeros((*current.shape, num_of_drift), own.dtype)], axis=-1)
