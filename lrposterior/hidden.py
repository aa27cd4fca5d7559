"""Neurons that nobody recorded.

N neurons, of which a share f was recorded. Nothing tells a neuron that was not recorded from one that was, so each of
the others is taken to have the loadings, inputs and bias of one that was recorded, and a K of its own. The 1 / f
neurons that are alike have one rate, and drive the latents together: what a recording of f N neurons sees is

    K^T r / (f N),      K = mean over the neurons that are alike,

as if there were no others. Residuals of K have the prior standard deviation sqrt(f) s_K where those of one neuron have
s_K. That of the recorded neuron itself is

    K_recorded = K + s_K sqrt(1 - f) xi,      xi ~ Normal(0, 1),      W = M K_recorded^T / N,

since the mean of Normal variables does not depend on their deviations from it. The recording says nothing about xi.
This is also, up to terms of order 1 / (f N), what other neurons with loadings of their own leave in a linear network.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lrposterior.checks import argument_error, require_integer, require_probability

# The right factors of the recorded neurons themselves, in draws of the parameters.
K_RECORDED = "K_recorded"


def checked_hidden_neurons(value: Any) -> int | float:
    """A number of neurons, or their share of all.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(value, float | np.floating):
        if value == 0.0:
            return 0
        return require_probability(value, "hidden_neurons")
    return require_integer(value, "hidden_neurons", minimum=0)


def recorded_share(hidden_neurons: int | float, num_recorded: int) -> float:
    """The share f of all neurons that was recorded."""
    if isinstance(hidden_neurons, float):
        return 1.0 - hidden_neurons
    return num_recorded / (num_recorded + hidden_neurons)


def require_none_hidden(hidden_neurons: int | float, name: str) -> None:
    """Refuse what does not know hidden neurons.

    Raises:
        ValueError: with the mend.
    """
    if hidden_neurons:
        mend = "fit without hidden_neurons: the recorded neurons then stand for all"
        raise argument_error(name, "a model without hidden neurons", f"hidden_neurons={hidden_neurons}", mend)
