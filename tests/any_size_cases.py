"""Small fits in both forms, each made once per test process: by matrices, and by the structured engine."""

import dataclasses
import functools
import importlib

import numpy as np
import pytest
from plain import plain_model

import lrposterior as lrp

FIXED = {"B": 1.0, "b": 1.0, "initial_kappa": 1.0}
INDEPENDENT, CORRELATED = lrp.Priors(K=2.5, **FIXED), lrp.CorrelatedLoadings(K=1.0, **FIXED)
BULK = lrp.RandomBulk(gain=0.5, dimension=2)
MODELS = {
    "independent": plain_model(2, priors=INDEPENDENT),
    "free": plain_model(2, priors=INDEPENDENT, initial_state="free"),
    "bulk": lrp.LowRankModel(2, priors=INDEPENDENT, background=BULK),
    "correlated": plain_model(2, priors=CORRELATED),
    "all": lrp.LowRankModel(2, priors=CORRELATED, background=BULK, initial_state="free"),
}
PRIOR = lrp.ScalePrior(1.5, 0.5)
INFERRED = {
    "independent": plain_model(2, priors=lrp.Priors(K=PRIOR, B=PRIOR, b=PRIOR)),
    "all": lrp.LowRankModel(
        2, priors=lrp.CorrelatedLoadings(), background=lrp.RandomBulk(dimension=2), initial_state="free"
    ),
}


@functools.cache
def recording() -> lrp.Recording:
    """12 neurons with inputs, stimulation and masked entries."""
    model, random = plain_model(2), np.random.default_rng(5)
    shape = (5, 30, 12)
    stimulation = np.zeros(shape)
    stimulation[1, 8:14, 3:6] = 1.0
    like = lrp.Recording(np.zeros(shape), 0.02, inputs=random.standard_normal((5, 30, 2)), stimulation=stimulation)
    parameters = {
        "M": random.standard_normal((12, 2)),
        "K": 1.5 * random.standard_normal((12, 2)),
        "B": random.standard_normal((12, 2)),
        "b": 0.3 * random.standard_normal(12),
        "noise_scale": np.full(12, 0.1),
    }
    simulated = model.simulate(parameters, like, seed=2)
    return dataclasses.replace(simulated, mask=random.random(shape) < 0.9)


@functools.cache
def dense_fit(model: lrp.LowRankModel, mean: str = "mode") -> lrp.Posterior:
    return lrp.fit(model, recording(), lrp.Laplace(mean=mean), seed=0, progress=False)


@functools.cache
def structured_fit(model: lrp.LowRankModel, mean: str = "mode") -> lrp.Posterior:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("lrposterior.inference.fit"), "MAX_DENSE", 0)
        return lrp.fit(model, recording(), lrp.Laplace(mean=mean), seed=0, progress=False)
