"""Whether a neuron's right factors depend on its other loadings: the evidence decides.

With a regression, K = K_on_M M + ... + residual, the density has maxima that promise what is not so. Where a latent is
weak, or there is one too many, the data leave its left factor open, and this can become a copy of the right factor of
another latent: the residuals vanish, and what no data have seen is predicted with certainty. Such a point has a high
density and little volume around it. Its evidence is below that of independent loadings, but a descent that starts with
a regression may end there.

So the loadings are independent first. The regression starts from that mode, without any coefficients, and stays where
its evidence is the higher one of the two.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from lrposterior.fit_error import FitError
from lrposterior.inference.balance import Balanced, balance
from lrposterior.inference.laplace import laplace_evidence, require_support
from lrposterior.inference.problem import AnyProblem
from lrposterior.model import LowRankModel
from lrposterior.orbit import settle_trades
from lrposterior.parameters import name_and_type
from lrposterior.priors import CorrelatedLoadings, Priors

logger = logging.getLogger(__name__)


def evidence_decides(model: LowRankModel) -> bool:
    """Whether it does: with `CorrelatedLoadings` of which a scale of K is inferred."""
    of_right = any(name_and_type(name)[0] == "K" for name in model.scale_priors)
    return isinstance(model.priors, CorrelatedLoadings) and of_right


def independent(model: LowRankModel) -> LowRankModel:
    """The same model with K independent of all other loadings."""
    kept: dict[str, Any] = {field.name: getattr(model.priors, field.name) for field in dataclasses.fields(Priors)}
    return dataclasses.replace(model, priors=Priors(**kept))


def choose_loadings(
    correlated: AnyProblem, found: Mapping[int, Balanced]
) -> tuple[AnyProblem, dict[int, Balanced], float]:
    """The problem with the higher evidence, its modes, and by how much the regression is ahead.

    Where only one of the two knows a factor of every part of W, as a Normal posterior must, it is that one.

    Args:
        correlated: the problem with a regression.
        found: modes of W of the problem without one, by their place among all modes, of which 0 is the best.

    Returns:
        The chosen problem, its modes by the same places, and the log evidence with a regression less that without, in
        nats, of the best mode; -inf or inf where only the one without or with it has a posterior.
    """
    without = found[0]
    with_regression = _regressed(correlated, without)
    evidence, other = _evidence(with_regression), _evidence(without)
    if with_regression is None or evidence is None:
        return without.problem, dict(found), -np.inf
    ahead = np.inf if other is None else evidence - other
    if not ahead > 0.0:
        return without.problem, dict(found), ahead
    chosen = {0: with_regression}
    for index, each in found.items():
        regressed = _regressed(correlated, each) if index else None
        if regressed is not None and _evidence(regressed) is not None:
            chosen[index] = regressed
    return correlated, chosen, ahead


def _regressed(correlated: AnyProblem, without: Balanced) -> Balanced | None:
    """The mode of W with a regression next to one without; None where there is none."""
    problem = correlated.with_scales(without.problem.scales())
    parameters = without.problem.space.unwhiten(without.mode.z)
    coefficients = {name: np.zeros(problem.space[name].shape) for name in problem.space.regressions}
    z = np.asarray(problem.space.whiten(parameters | coefficients))
    z, _ = settle_trades(problem.space, z, problem.subspace)
    try:
        return balance(problem, dataclasses.replace(without.mode, z=problem.best_noise(z)))
    except FitError as failure:
        logger.info("no mode of W with a regression of K on the other loadings: %s", failure)
        return None


def _evidence(balanced: Balanced | None) -> float | None:
    """In nats; None where there is no mode, or no Normal posterior around it."""
    if balanced is None:
        return None
    problem, mode = balanced.problem, balanced.mode
    covariance = problem.covariance(mode.z, mode.information)
    try:
        require_support(problem, mode, covariance)
    except FitError as failure:
        logger.info("no posterior around a mode of W: %s", failure)
        return None
    return laplace_evidence(problem, mode, covariance, balanced.scale_precision)
