"""The drift of sessions that were recorded after a fit, with the network as it was fitted."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.checks import argument_error, read_only, require_instance
from lrposterior.data import Data
from lrposterior.drift import SessionDrift, session_names
from lrposterior.likelihood import log_likelihood
from lrposterior.model import LowRankModel
from lrposterior.observations import SESSION_OFFSET, SESSION_SCALE
from lrposterior.parameters import Parameters
from lrposterior.posterior import Posterior, require_like_fitted
from lrposterior.precision import double_precision
from lrposterior.quasi_newton import descend
from lrposterior.recording import Recording
from lrposterior.rollouts import network_coordinates
from lrposterior.state_space import predicted_currents

# Nats that may still be expected at the most probable drift, and steps to it.
TOLERANCE, MAX_STEPS = 1e-3, 200


@dataclass(frozen=True, eq=False)
class InferredDrift:
    """How neurons are seen in sessions that were not fitted, at the most probable network.

    Attributes:
        sessions: their names.
        offset: (neuron, session) most probable session_offset, in units of current.
        scale: (neuron, session) session_scale.
    """

    sessions: tuple[str, ...]
    offset: np.ndarray
    scale: np.ndarray

    def __post_init__(self) -> None:
        for name in ("offset", "scale"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def require_sessions_of(self, trials: Recording) -> None:
        """Refuse trials of other sessions.

        Raises:
            ValueError: with the first of them.
        """
        for label in trials.session_labels or ("none",):
            if label not in self.sessions:
                mend = "infer the drift of these trials, or give those of these sessions"
                raise argument_error("drift", f"that of session {label!r}, as the trials", f"{self.sessions}", mend)

    def within(self, model: LowRankModel, mode: dict[str, np.ndarray]) -> tuple[LowRankModel, dict[str, np.ndarray]]:
        """A fitted model, and its named parameters, with these sessions in the place of its own."""
        drift = dataclasses.replace(cast(SessionDrift, model.drift), sessions=self.sessions)
        model = dataclasses.replace(model, drift=drift)
        return model, mode | {SESSION_OFFSET: self.offset, "session_scale": self.scale}


@double_precision
def infer_drift(posterior: Posterior, trials: Recording) -> InferredDrift:
    """The most probable offsets and scales in sessions that were not fitted, all else as at the mode of a fit.

    Maximises log p(activity | offsets, scales) + log p(offsets, scales), the latents integrated out where there is
    process noise. Mask the bins from which nothing may be learnt, for instance those to be predicted; a neuron that is
    masked throughout keeps the median of its prior.

    Args:
        posterior: a fit of a model with `SessionDrift`.
        trials: trials of the same neurons with `session_labels`, of sessions that were not fitted.

    Raises:
        ValueError: if the model has no drift, or the trials are of other neurons, inputs or bins, do not tell their
            sessions, or are of sessions that were fitted.
    """
    require_instance(posterior, "posterior", Posterior, "pass what fit(...) returned")
    require_instance(trials, "trials", Recording)
    drift = posterior.model.drift
    if drift is None:
        raise argument_error("posterior", "a fit with drift", "one without", "fit with drift=SessionDrift()")
    require_like_fitted(trials, posterior.recording)
    sessions = session_names(trials)
    known = sorted(set(sessions) & set(drift.sessions))
    if known:
        mend = "leave their trials out: Posterior.mode has their offsets and scales"
        raise argument_error("trials", "sessions that were not fitted", f"session {known[0]!r}, which was", mend)
    shape = 2, trials.num_neurons, len(sessions)
    nothing = InferredDrift(sessions, np.zeros(shape[1:]), np.ones(shape[1:]))
    model, mode = nothing.within(posterior.model, posterior.mode)
    parameters, data = network_coordinates(model, mode, trials), model.data(trials)
    spread = np.array(
        [block.standard_deviation for block in drift.blocks(trials.num_neurons, model.priors.unit or 1.0)]
    )

    def evaluate(z: np.ndarray) -> tuple[float, np.ndarray]:
        whitened = jnp.asarray(z.reshape(shape))
        value, slope = _objective(model.structure, whitened, jnp.asarray(spread), parameters, data)
        return float(value), np.asarray(slope).ravel()

    curvature = 1.0 + _information(model, parameters, data) * spread[:, None, None] ** 2
    z, _ = descend(
        evaluate,
        lambda slope: slope / curvature.ravel(),
        np.zeros(curvature.size),
        tolerance=TOLERANCE,
        max_steps=MAX_STEPS,
    )
    offset, log_scale = spread[:, None, None] * z.reshape(shape)
    return InferredDrift(sessions, offset, np.exp(log_scale))


def _information(model: LowRankModel, parameters: Parameters, data: Data) -> np.ndarray:
    """(2, neuron, session) roughly, that of every offset and log scale alone, at the currents that are expected."""
    expected = LowRankModel.currents if model.process_noise is None else predicted_currents
    current = expected(model, parameters, data)
    emission = model.emission_of_trials(parameters, data)
    of_drift = emission.slopes(current)[..., -2 * parameters[SESSION_OFFSET].shape[1] :]
    precision = jnp.where(data.mask, 1.0 / emission.variance(current), 0.0)
    found = jnp.einsum("btn,btnp->np", precision, of_drift**2)
    return np.moveaxis(np.asarray(found).reshape(len(found), 2, -1), 1, 0)


@functools.partial(jax.jit, static_argnums=0)
def _objective(model: LowRankModel, z: Array, spread: Array, parameters: Parameters, data: Data) -> tuple[Array, Array]:
    def negative_log_density(z: Array) -> Array:
        offset, log_scale = spread[:, None, None] * z
        drifting = parameters | {SESSION_OFFSET: offset, SESSION_SCALE: log_scale}
        return 0.5 * jnp.sum(z**2) - log_likelihood(model, drifting, data)

    return jax.value_and_grad(negative_log_density)(z)
