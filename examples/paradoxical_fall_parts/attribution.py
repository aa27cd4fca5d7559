"""To what a network with Dale's law attributes the fall of the inhibitory rates, and whether E alone is unstable."""

from __future__ import annotations

import numpy as np
from mouse_opto_parts.session import DT, Session

import lrposterior as lrp

INTERVAL = [0.05, 0.5, 0.95]
SOURCES = ("E", "I", "light")


def quantiles(values: np.ndarray) -> list[float]:
    return np.quantile(values, INTERVAL, axis=0).tolist()


# [attribution]
def contributions(session: Session, draws: dict[str, np.ndarray], end: int) -> dict[str, np.ndarray]:
    """(draw,) by how much each source changes the mean current of the I cells when the light comes on.

    In spikes/s: the recorded change of the rates of E and of I through W, and the weight of the light.
    """
    before, during = _windows(session, end)
    change = session.recording.activity[0, during].mean(axis=0) - session.recording.activity[0, before].mean(axis=0)
    W, of_I = lrp.LowRankConnectivity(draws["M"], draws["K"]), ~session.is_E
    by_type = {name: W.matvec(np.where(chosen, change, 0.0)) for name, chosen in (("E", session.is_E), ("I", of_I))}
    found = {name: currents[:, of_I].mean(axis=1) for name, currents in by_type.items()}
    return found | {"light": draws["B"][:, of_I, 0].mean(axis=1)}


def instability_without_inhibition(session: Session, draws: dict[str, np.ndarray], end: int) -> np.ndarray:
    """(draw,) the largest real part of the eigenvalues of W from E to E times the slopes of the rates before the light.

    Above 1 the E cells alone run away from this state, and what holds them is inhibition. The slope of softplus at the
    rate r is 1 - exp(-r).
    """
    before, _ = _windows(session, end)
    slopes = 1.0 - np.exp(-session.recording.activity[0, before].mean(axis=0)[session.is_E])
    left, right = draws["M"][:, session.is_E], draws["K"][:, session.is_E] * slopes[:, None]
    # The eigenvalues of M K^T that are not 0 are those of K^T M.
    small = np.swapaxes(right, 1, 2) @ left / session.recording.num_neurons
    return np.linalg.eigvals(small).real.max(axis=1)


# [end]
def _windows(session: Session, end: int) -> tuple[slice, slice]:
    """The 200 ms before the light, and the fitted bins from 50 ms after it came on."""
    artefact = session.artefact
    return slice(artefact - round(0.2 / DT), artefact), slice(artefact + 1 + round(0.05 / DT), end)


def summarize(session: Session, posterior: lrp.Posterior, end: int, *, num_draws: int, seed: int) -> dict:
    drawn = posterior.sample_parameters(num_draws, seed=seed)
    z = np.random.default_rng(seed).standard_normal((num_draws, posterior.space.size))
    prior = {name: np.asarray(value) for name, value in posterior.space.unwhiten(z).items()}
    found: dict = {}
    for name, draws in (("posterior", drawn), ("prior", prior)):
        parts = contributions(session, draws, end)
        eigenvalue = instability_without_inhibition(session, draws, end)
        found[name] = {
            "contributions": {source: quantiles(values) for source, values in parts.items()},
            "eigenvalue": quantiles(eigenvalue),
            "light on E": quantiles(draws["B"][:, session.is_E, 0].mean(axis=1)),
            "stabilised": float(np.mean(eigenvalue > 1.0)),
            "light excites": float(np.mean(parts["light"] > 0.0)),
            "E outweighs the light": float(np.mean(parts["E"] + parts["light"] < 0.0)),
        }
    return found | {"held out": held_out_r2(session, posterior, end, num_draws=num_draws, seed=seed)}


def held_out_r2(session: Session, posterior: lrp.Posterior, end: int, *, num_draws: int, seed: int) -> dict[str, float]:
    """Of the bins from `end` on, for the mean rates of E and of I: 1 - squared error over that of the mean before.

    The prediction is the median over draws, of which some run away.
    """
    activity, (_, during) = session.recording.activity[0], _windows(session, end)
    predicted = np.median(posterior.predict_rates(num_draws=num_draws, seed=seed)[:, 0], axis=0)
    found = {}
    for name, chosen in (("E", session.is_E), ("I", ~session.is_E)):
        true, mean = activity[end:, chosen].mean(axis=1), activity[during][:, chosen].mean()
        error = np.sum((predicted[end:, chosen].mean(axis=1) - true) ** 2)
        found[name] = float(1.0 - error / np.sum((true - mean) ** 2))
    return found
