"""Prior distributions of the parameters, and what they mean for W."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from lrposterior.checks import argument_error, require_choice, require_positive
from lrposterior.magnitudes import MAGNITUDES, Magnitudes
from lrposterior.populations import ByCellType


@dataclass(frozen=True)
class ScalePrior:
    """A prior on a prior standard deviation, which is then inferred with the evidence.

        log(scale) ~ Normal(log(median), spread²)

    Args:
        median: prior median of the scale.
        spread: standard deviation of its natural logarithm.

    Raises:
        ValueError: if median or spread is not a positive number.
    """

    median: float = 1.0
    spread: float = 1.0

    def __post_init__(self) -> None:
        for name in ("median", "spread"):
            object.__setattr__(self, name, require_positive(getattr(self, name), name))


Scale = float | ScalePrior


def center(scale: Scale) -> float:
    """The scale, or the median of its prior."""
    return scale.median if isinstance(scale, ScalePrior) else scale


@dataclass(frozen=True)
class Priors:
    """Standard deviations of the independent, zero-mean Normal priors.

    W = M K^T / N maps a rate pattern of norm ‖r‖ to a current pattern whose norm is about M * K * ‖r‖: both factors of
    order one make W of order one at any number of neurons. The defaults let the largest singular value of W be about
    2.5 before any data: more than the 1 that a network needs to sustain activity on its own, and what task-trained
    low-rank networks have (entries of M near 1, of K between 1.4 and 2.7). Only the product of the scales of M and K
    matters, because (M A, K A^-T) is the same W.

    A `ScalePrior` in the place of a number says that the scale itself is inferred.

    B, b, the initial latents and the noise are measured in the unit of the currents. `unit=None` takes it from the
    recording when a model is fitted: 1 for tanh, else the root mean square of the activity.

    Args:
        M: of the left factors (neuron, rank).
        K: of the right factors (neuron, rank).
        B: of the input weights (neuron, input), in units of current per unit of input.
        b: of the biases (neuron,), in units of current.
        initial_kappa: of the initial latents (trial, rank), in units of current.
        noise_scale: median of the noise standard deviation (neuron,), in units of activity.
        noise_spread: standard deviation of its natural logarithm, which is Normal.
        unit: size of one unit of current, or None.

    Raises:
        ValueError: if a scale is not a positive number.
    """

    M: float = 1.0
    K: Scale = 2.5
    B: Scale = 1.0
    b: Scale = 1.0
    initial_kappa: Scale = 1.0
    noise_scale: float = 0.3
    noise_spread: float = 1.5
    unit: float | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, name = getattr(self, field.name), f"priors.{field.name}"
            if isinstance(value, ByCellType) or field.name in NO_SCALES:
                continue
            if isinstance(value, ScalePrior):
                if field.name not in SCALES:
                    expected = f"a number; only {', '.join(SCALES)} can be inferred"
                    raise argument_error(name, expected, "a ScalePrior", "give a number")
            elif value is not None:
                object.__setattr__(self, field.name, require_positive(value, name))


SCALES = ("K", "B", "b", "initial_kappa")
# Fields that are no scale.
NO_SCALES = ("by_cell_type", "inhibitory", "magnitudes")


@dataclass(frozen=True)
class CorrelatedLoadings(Priors):
    """Loadings of a neuron that depend on each other, as they do in every trained network.

    The right factors of a neuron are a linear function of its other loadings plus a residual,

        K_n = K_on_M M_n + K_on_B B_n + K_on_b b_n + residual,      residual ~ Normal(0, K²),

    with coefficients that are parameters: each is Normal(0, regression²), per unit of M, B and b, and is integrated out
    with the rest. The scale of the residuals is what predictions about patterns rest on that no data have seen. It is
    inferred from what the regression leaves over (restricted maximum likelihood), and its uncertainty is part of every
    posterior draw.

    Where it is inferred, `fit` compares the evidence with that of loadings that are independent, K_n ~ Normal(0, K²),
    and returns the posterior with the higher one: it then has `Priors`, and `statistics.regression_ahead` says by how
    much. NUTS samples the regression as it stands.

    With `by_cell_type` every cell type of the recording has coefficients and a residual scale of its own; the scales
    are then named "K[E]" and so on. Excitatory and inhibitory neurons, say, need not follow one law.

    Args:
        K: standard deviation of the residuals, or its prior, the same for all cell types. Where the recording has
            settled the types, a `ByCellType`.
        regression: prior standard deviation of the coefficients that multiply M, B / unit and b / unit.
        by_cell_type: whether every cell type has a regression and a residual scale of its own.
    """

    K: Scale | ByCellType[Scale] = ScalePrior(1.0, 1.0)  # pyright: ignore[reportIncompatibleVariableOverride]
    regression: float = 2.5
    by_cell_type: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.by_cell_type, bool):
            raise argument_error(
                "priors.by_cell_type", "True or False", repr(self.by_cell_type), "name the types in the Recording"
            )


@dataclass(frozen=True)
class DaleLoadings(Priors):
    """Loadings of a network that obeys Dale's law: what a neuron sends out is excitatory, or inhibitory, everywhere.

    Left factors are positive and right factors have the sign of their neuron, so that the column of W = M K^T / N that
    belongs to a neuron does as well, at every rank:

        M_nr = M q,      K_nr = sign_n (K / rank) q,      q = abs(z) or exp(spread z),      z ~ Normal(0, 1).

    Of the changes (M A, K A^-T) that leave W as it is, only permutations and positive scalings of the columns keep all
    signs. Magnitudes are functions of a coordinate that is Normal(0, 1) under the prior (`lrposterior.magnitudes`), in
    which the posterior is found: a mode in M and K themselves would be far too small, as the product of two unknown
    magnitudes is.

    M, K, magnitudes and spread are one value for all neurons, or one for every cell type of the recording,
    {"E": 2.0, "I": 6.0}. A row of M and of K is that of one neuron, and follows the type of this neuron: K of the
    neuron that sends, M of the one that receives.

    Args:
        M: scale of the left factors. Only the product of the scales of M and K matters.
        K: scale of the right factors, times the rank. In the place of each number a `ScalePrior` says that it is
            inferred, for each type by itself (`Posterior.mode["K_scale"]`, in the order of the types as given, or of
            their names): known scales determine the mean weights of many neurons, whatever the data say.
        magnitudes: "half-normal", many near 0 and none far above the scale, or "log-normal", with the scale as median.
        spread: standard deviation of the natural logarithm of log-normal magnitudes.
        inhibitory: names of the cell types whose neurons inhibit; those of all others excite.

    Raises:
        ValueError: if a scale or a spread is not a positive number, magnitudes are of another kind, or no type is
            inhibitory.
    """

    M: float | Mapping[str, float] = 1.0  # pyright: ignore[reportIncompatibleVariableOverride]
    K: Scale | Mapping[str, Scale] = 2.0  # pyright: ignore[reportIncompatibleVariableOverride]
    magnitudes: Magnitudes | Mapping[str, Magnitudes] = "half-normal"
    spread: float | Mapping[str, float] = 1.0
    inhibitory: tuple[str, ...] = ("I",)

    def __post_init__(self) -> None:
        if isinstance(self.inhibitory, str) or not all(isinstance(name, str) for name in self.inhibitory):
            mend = "for example ('I',)"
            raise argument_error("priors.inhibitory", "names of cell types", repr(self.inhibitory)[:60], mend)
        object.__setattr__(self, "inhibitory", tuple(self.inhibitory))
        for name, check in (
            ("M", require_positive),
            ("K", _checked_scale),
            ("magnitudes", _checked_magnitudes),
            ("spread", require_positive),
        ):
            value = getattr(self, name)
            if isinstance(value, Mapping) and not isinstance(value, ByCellType):
                entries = tuple(check(each, f"priors.{name}[{cell_type!r}]") for cell_type, each in value.items())
                object.__setattr__(self, name, ByCellType(tuple(value), entries))
        if not isinstance(self.magnitudes, ByCellType):
            _checked_magnitudes(self.magnitudes, "priors.magnitudes")
        if isinstance(self.K, ByCellType) and len({isinstance(each, ScalePrior) for each in self.K.entries}) > 1:
            mend = "give ScalePrior(median, spread) for each, with a small spread where you know it"
            raise argument_error("priors.K", "numbers alone, or ScalePriors alone", "both", mend)
        super().__post_init__()

    def settled(self, cell_types: Sequence[str] | None, num_neurons: int) -> DaleLoadings:
        """The same with the type of every neuron of a recording.

        Raises:
            ValueError: if the recording has no cell types, other ones than are named, or none that is inhibitory.
        """
        K = self.K
        if not isinstance(K, ByCellType):
            names = tuple(sorted(set(cell_types or ())))
            K = ByCellType(names, (self.K,) * len(names)).settled("priors", cell_types, num_neurons)
        by_cell_type = {"K": K, "M": self.M, "magnitudes": self.magnitudes, "spread": self.spread}
        settled: dict[str, Any] = {
            name: value.settled(f"priors.{name}", cell_types, num_neurons)
            for name, value in by_cell_type.items()
            if isinstance(value, ByCellType)
        }
        unknown = sorted(set(self.inhibitory) - set(K))
        if unknown:
            mend = "name the inhibitory types of the recording in DaleLoadings(inhibitory=...)"
            raise argument_error("priors.inhibitory", f"some of the cell types {sorted(K)}", f"{unknown}", mend)
        return dataclasses.replace(self, **settled)

    def of_neurons(self, name: str) -> np.ndarray:
        """(neuron,) M, magnitudes or spread of every neuron, of settled priors."""
        value = getattr(self, name)
        num_neurons = len(cast(ByCellType[Scale], self.K).members)
        return value.of_neurons if isinstance(value, ByCellType) else np.full(num_neurons, value)

    def magnitudes_of(self, neurons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether the magnitudes of neurons, counted from 0, are log-normal, and their spread, of the same shape."""
        return (self.of_neurons("magnitudes") == "log-normal")[neurons], self.of_neurons("spread")[neurons]

    @property
    def scales_of_K(self) -> tuple[tuple[float, float], ...]:
        """Median and spread of the scale of every type, of settled priors; none where the scales are numbers."""
        entries = cast(ByCellType[Scale], self.K).entries
        return tuple((each.median, each.spread) for each in entries if isinstance(each, ScalePrior))

    @property
    def signs(self) -> np.ndarray:
        """(neuron,) 1 for neurons that excite, -1 for those that inhibit, of settled priors."""
        K = cast(ByCellType[Scale], self.K)
        return np.where([name in self.inhibitory for name in K], -1.0, 1.0)[np.asarray(K.members)]


def _checked_scale(value: object, name: str) -> Scale:
    return value if isinstance(value, ScalePrior) else require_positive(value, name)


def _checked_magnitudes(value: object, name: str) -> str:
    return require_choice(value, name, MAGNITUDES)


def require_no_signs(priors: Priors, name: str, mend: str) -> None:
    """Refuse what does not know factors with signs.

    Raises:
        ValueError: with the mend.
    """
    if isinstance(priors, DaleLoadings):
        raise argument_error(name, "a model without DaleLoadings", "one with them", mend)


@dataclass(frozen=True)
class TimeConstantPrior:
    """A prior on the time constant that keeps it above the bin width.

        tau = dt + (median - dt) * exp(spread * z),     z ~ Normal(0, 1)

    Args:
        median: prior median, in seconds; must exceed the bin width of the recording.
        spread: standard deviation of log(tau - dt).

    Raises:
        ValueError: if median or spread is not a positive number.
    """

    median: float
    spread: float = 0.5

    def __post_init__(self) -> None:
        for name in ("median", "spread"):
            object.__setattr__(self, name, require_positive(getattr(self, name), name))
