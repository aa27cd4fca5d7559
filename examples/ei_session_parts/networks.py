"""The networks of the page, and how they are fitted."""

from __future__ import annotations

import dataclasses

import lrposterior as lrp
from ei_session_parts.session import DT, Size

# [model]
MODEL = lrp.LowRankModel(
    rank=3,
    nonlinearity="softplus",
    observation=lrp.PoissonObservation(),  # spikes/s: scale and baseline of every neuron are inferred
    time_constant={"E": lrp.TimeConstantPrior(2 * DT), "I": lrp.TimeConstantPrior(2 * DT)},  # s, never below a bin
    priors=lrp.DaleLoadings(K={"E": 1.5, "I": 6.0}, magnitudes="log-normal"),
    process_noise="diagonal",
    background=None,
)
# [end]
# A softplus is of order one where the currents are: without a scale it has to reach the rates by its currents alone.
NAIVE = dataclasses.replace(MODEL, observation=lrp.PoissonObservation(scale=1.0))
HALF_NORMAL = dataclasses.replace(NAIVE, priors=lrp.DaleLoadings(K={"E": 1.5, "I": 6.0}))


# [fit]
def fit_likelihood(fitted: lrp.Recording) -> lrp.Posterior:
    return lrp.fit(MODEL, fitted, lrp.Laplace(), seed=0, progress=False)


def fit_matching(model: lrp.LowRankModel, fitted: lrp.Recording, size: Size, num_epochs: int) -> lrp.Posterior:
    """An ensemble of networks whose simulated trials match the recorded ones; point estimates, and no posterior."""
    stages = {"warm_up": num_epochs // 4, "ramp": num_epochs // 4, "num_epochs": num_epochs}
    method = lrp.Match(conditions=fitted.trial_labels, num_members=size.num_members, **stages)
    return lrp.fit(model, fitted, method, seed=0, progress=False)


# [end]
