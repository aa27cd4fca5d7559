"""The low-rank network as a probabilistic model of a recording."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lrposterior.background import FixedBackground, RandomBulk, visited_subspace
from lrposterior.checks import (
    argument_error,
    require_choice,
    require_finite,
    require_integer,
    require_shape,
)
from lrposterior.data import Data
from lrposterior.drift import DriftingEmission, SessionDrift, session_names
from lrposterior.hidden import checked_hidden_neurons, recorded_share
from lrposterior.network import NONLINEARITIES, rollout
from lrposterior.observations import (
    PUBLIC_NAMES,
    SESSION_OFFSET,
    CalciumObservation,
    Emission,
    GaussianObservation,
    Observation,
    ScaledObservation,
    bins_before,
)
from lrposterior.observed import observed_currents, observed_rates
from lrposterior.parameters import (
    RIGHT_SCALE,
    Block,
    Parameters,
    ParameterSpace,
    is_regression,
    name_and_type,
    of_type,
)
from lrposterior.populations import ByCellType
from lrposterior.precision import double_precision
from lrposterior.priors import (
    SCALES,
    CorrelatedLoadings,
    DaleLoadings,
    Priors,
    Scale,
    ScalePrior,
    center,
)
from lrposterior.process_noise import (
    MIXING,
    SCALE,
    ProcessNoise,
    checked_process_noise,
    latent_covariance,
    pattern_coordinates,
    recurrent_patterns,
    require_covariance,
    require_patterns,
)
from lrposterior.signed_background import (
    SignedBackground,
    beyond_low_rank,
    entries_of,
    matrix_of,
    presynaptic,
    require_matrix,
)
from lrposterior.time_constants import (
    OfBins,
    PerNeuron,
    TimeConstant,
    TimeConstants,
    checked_time_constant,
    in_seconds,
)

if TYPE_CHECKING:
    from lrposterior.recording import Recording


# Trials are simulated together up to so many entries, 256 MB an array.
SIMULATED_AT_ONCE = 2**25


@dataclass(frozen=True)
class LowRankModel:
    """A rate network with low-rank connectivity, observed with noise.

        x[t+1] = (1 - a) x[t] + a (W r[t] + B u[t] + b + s[t]),      r = phi(x),      a = dt / time_constant
        W      = M K^T / N + W0

    Args:
        rank: number of columns R of M and K.
        time_constant: tau in seconds, a number or a `TimeConstantPrior`, for all neurons or, as a mapping, for those of
            every cell type: {"E": 0.1, "I": TimeConstantPrior(0.05)}; or `PerNeuron(TimeConstantPrior(0.1))`, one for
            every neuron. It is never below the bin width. `IntegrationConstant` and `IntegrationConstantPrior` say the
            same of a.
        nonlinearity: phi, one of "tanh", "relu", "softplus", "linear".
        observation: what is recorded, and with what noise: `GaussianObservation`, `SpikeRateObservation`,
            `PoissonObservation`, `NegativeBinomialObservation` or `CalciumObservation`.
        background: a known one (`FixedBackground`), a random one (`RandomBulk`), under Dale's law one with signs
            (`SignedBackground`), or None.
        initial_state: "zero": every trial starts with x = 0. "free": every trial starts with
            x = M initial_kappa + b, where initial_kappa (trial, rank) is inferred.
        process_noise: noise that drives the latents, M eps[t] in the currents with eps[t] ~ Normal(0, Q): None, or
            "diagonal" or "full" for its covariance along orthogonal columns of M, or a
            `ProcessNoise` with priors of its own. The path of the latents is integrated out
            (`lrposterior.state_space`).
        hidden_neurons: how many neurons of the circuit were not recorded, or, as a float, which share of all. N counts
            them, and W is that among the recorded neurons (`lrposterior.hidden`). They need background=None, and
            recordings without stimulation. Under Dale's law they are added to the recording (`add_hidden_neurons`).
        drift: `SessionDrift`, with which neurons are seen in the sessions of a recording, or None.
        priors: `CorrelatedLoadings`, in which a neuron's K depends on its other loadings, or independent `Priors`.
        self_connections: whether a neuron may drive itself. Under Dale's law False takes the diagonal of W away.

    Raises:
        ValueError: if an argument is out of its range.
    """

    rank: int
    time_constant: TimeConstant | OfBins | Mapping[str, TimeConstant | OfBins] | PerNeuron = 0.1
    nonlinearity: Literal["tanh", "relu", "softplus", "linear"] = "tanh"
    observation: Observation = field(default_factory=GaussianObservation)
    background: FixedBackground | RandomBulk | SignedBackground | None = field(default_factory=RandomBulk)
    initial_state: Literal["zero", "free"] = "zero"
    process_noise: Literal["diagonal", "full"] | ProcessNoise | None = None
    hidden_neurons: int | float = 0
    drift: SessionDrift | None = None
    priors: Priors = field(default_factory=CorrelatedLoadings)
    self_connections: bool = True

    def __post_init__(self) -> None:
        require_integer(self.rank, "rank", minimum=1)
        require_choice(self.nonlinearity, "nonlinearity", tuple(NONLINEARITIES))
        require_choice(self.initial_state, "initial_state", ("zero", "free"))
        object.__setattr__(self, "time_constant", checked_time_constant(self.time_constant))
        object.__setattr__(self, "process_noise", checked_process_noise(self.process_noise))
        object.__setattr__(self, "hidden_neurons", checked_hidden_neurons(self.hidden_neurons))
        for name, kind, expected, example in (
            (
                "observation",
                Observation,
                "GaussianObservation, SpikeRateObservation, PoissonObservation, NegativeBinomialObservation or "
                "CalciumObservation",
                "GaussianObservation()",
            ),
            ("priors", Priors, "Priors", "Priors()"),
            ("drift", SessionDrift | None, "SessionDrift or None", "SessionDrift()"),
            (
                "background",
                FixedBackground | RandomBulk | SignedBackground | None,
                "FixedBackground, RandomBulk, SignedBackground or None",
                "RandomBulk(), or FixedBackground(W0) for a known matrix",
            ),
            ("self_connections", bool, "True or False", "False"),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise argument_error(name, expected, type(value).__name__, f"for example {name}={example}")
        if isinstance(self.priors, DaleLoadings):
            self._check_dale()
        elif self.is_dense:
            name = "background" if isinstance(self.background, SignedBackground) else "self_connections"
            got, mend = repr(getattr(self, name))[:60], "give priors=DaleLoadings(), or leave it out"
            raise argument_error(name, "what needs no signs without DaleLoadings", got, mend)
        if self.hidden_neurons and self.background is not None:
            mend = "give background=None, or leave hidden_neurons out"
            raise argument_error(
                "background", "None, as there are hidden neurons", type(self.background).__name__, mend
            )

    def _check_dale(self) -> None:
        for name, value, expected, mend in (
            (
                "nonlinearity",
                self.nonlinearity,
                "'softplus' or 'relu', as rates have no sign",
                "nonlinearity='softplus'",
            ),
            (
                "background",
                None if isinstance(self.background, SignedBackground) else self.background,
                "None or a SignedBackground, as a bulk has both signs",
                "background=None",
            ),
            (
                "hidden_neurons",
                self.hidden_neurons,
                "0, as they need types",
                "add them to the recording: add_hidden_neurons(recording, {'E': 8})",
            ),
        ):
            if value not in ("softplus", "relu", None, 0):
                raise argument_error(name, f"{expected} under Dale's law", repr(value)[:60], mend)
        noise = self.noise_of_process
        if noise is not None and noise.patterns is not None:
            expected, got = "None under Dale's law, as noise is that of the latents of M", f"{noise.patterns.shape}"
            raise argument_error("process_noise.patterns", expected, got, "leave them out")

    def for_recording(self, recording: Recording) -> LowRankModel:
        """This model with everything that depends on the recording settled.

        It fits the recording, the unit is a number, time constants are in seconds, and a random bulk knows the patterns
        that the recording visits.
        Scales that have a prior are settled by a fit (`with_scales`).

        Raises:
            ValueError: if a time constant is below the bin width, the cell types are not those of the recording, or the
                background has another number of neurons.
        """
        time_constant = in_seconds(self.time_constant, recording.dt)
        if time_constant != self.time_constant:
            return dataclasses.replace(self, time_constant=time_constant).for_recording(recording)
        self.time_constants.require_above(recording.dt)
        if self.background is not None and self.background.num_neurons not in (None, recording.num_neurons):
            raise ValueError(
                f"background: expected W0 for the recording's {recording.num_neurons} neurons, got one for "
                f"{self.background.num_neurons}; select the same neurons in both"
            )
        settled = self
        if isinstance(self.observation, ScaledObservation):
            bin_width = recording.dt if self.observation.of == "count" else 1.0
            observation = self.observation.settled(float(recording.activity[recording.mask].mean()) / bin_width)
            settled = dataclasses.replace(settled, observation=observation)
        if isinstance(self.time_constant, ByCellType):
            constants = self.time_constant.settled("time_constant", recording.cell_types, recording.num_neurons)
            settled = dataclasses.replace(settled, time_constant=constants)
        if isinstance(self.time_constant, PerNeuron):
            settled = dataclasses.replace(settled, time_constant=self.time_constant.settled(recording.num_neurons))
        if isinstance(self.background, RandomBulk) and self.background.subspace is None:
            subspace = visited_subspace(settled.observed_rates(recording), self.background.dimension)
            settled = dataclasses.replace(settled, background=dataclasses.replace(self.background, subspace=subspace))
        if isinstance(self.priors, CorrelatedLoadings) and self.priors.by_cell_type:
            K = self.priors.K
            if not isinstance(K, ByCellType):
                cell_types = tuple(sorted(set(recording.cell_types or ())))
                K = ByCellType(cell_types, (K,) * len(cell_types))
            K = K.settled("priors.by_cell_type", recording.cell_types, recording.num_neurons)
            settled = dataclasses.replace(settled, priors=dataclasses.replace(settled.priors, K=K))
        if isinstance(self.priors, DaleLoadings):
            priors = self.priors.settled(recording.cell_types, recording.num_neurons)
            settled = dataclasses.replace(settled, priors=priors)
        if isinstance(self.background, SignedBackground):
            signed = self.background.settled(recording.cell_types, recording.num_neurons)
            settled = dataclasses.replace(settled, background=signed)
        if self.drift is not None and not self.drift.sessions:
            drift = dataclasses.replace(self.drift, sessions=session_names(recording))
            settled = dataclasses.replace(settled, drift=drift)
        noise = self.noise_of_process
        if noise is not None:
            require_patterns(noise, recording.num_neurons, self.rank)
        if noise is not None and noise.patterns is None and not self._has_signs:
            a = recording.dt / self._typical_time_constant
            currents, observed = settled.observed_currents(recording), np.any(recording.mask, axis=2)
            patterns = recurrent_patterns(currents, recording.inputs, observed, a, self.rank)
            settled = dataclasses.replace(settled, process_noise=dataclasses.replace(noise, patterns=patterns))
        if self.priors.unit is None:
            unit = 1.0 if self._has_own_unit else _root_mean_square(recording)
            settled = dataclasses.replace(settled, priors=dataclasses.replace(settled.priors, unit=unit))
        return settled

    @property
    def noise_of_process(self) -> ProcessNoise | None:
        """What is known of the process noise, or None where there is none."""
        return self.process_noise if isinstance(self.process_noise, ProcessNoise) else None

    @property
    def _has_own_unit(self) -> bool:
        """Whether currents are of order one whatever the unit of the recording."""
        return NONLINEARITIES[self.nonlinearity].bounded or isinstance(self.observation, ScaledObservation)

    def with_noise_along(self, M: Any) -> LowRankModel:
        """This model with its process noise, where it has any, seen along the left singular vectors of M."""
        noise = self.noise_of_process
        if noise is None or M is None or self._has_signs:
            return self
        patterns = np.linalg.svd(M, full_matrices=False)[0]
        return dataclasses.replace(self, process_noise=dataclasses.replace(noise, patterns=patterns))

    @property
    def noise_patterns(self) -> np.ndarray | None:
        """(neuron, rank) those through which a settled model sees its process noise; None under Dale's law."""
        noise = self.noise_of_process
        return None if noise is None or self._has_signs else noise.settled_patterns

    @property
    def _has_signs(self) -> bool:
        return isinstance(self.priors, DaleLoadings)

    @property
    def is_dense(self) -> bool:
        """Whether W is known beyond M K^T / N neuron by neuron, and no longer by patterns."""
        return not self.self_connections or isinstance(self.background, SignedBackground)

    def num_own_latents(self, num_neurons: int) -> int:
        """How many of the latents drive one neuron each: none, or of a dense W all N, behind those of M."""
        return num_neurons if self.is_dense else 0

    def recorded_share(self, num_recorded: int) -> float:
        """The share of all neurons that was recorded."""
        return recorded_share(self.hidden_neurons, num_recorded)

    def observed_rates(self, recording: Recording) -> np.ndarray:
        """(sample, neuron) the rates that a recording suggests to a settled model."""
        return observed_rates(recording, self.observation, self.nonlinearity, self._typical_time_constant)

    def observed_currents(self, recording: Recording) -> np.ndarray:
        """(trial, time, neuron) the currents that a recording suggests to a settled model."""
        return observed_currents(recording, self.observation, self.nonlinearity, self._typical_time_constant)

    @property
    def _typical_time_constant(self) -> float:
        """tau in seconds, or its prior median, of all populations on average."""
        return float(np.mean(self.time_constants.medians))

    @property
    def scale_priors(self) -> dict[str, ScalePrior]:
        """Scales that the evidence infers, by name: of `priors`, by cell type ("K[E]"), and "gain" of a random bulk."""
        scales: dict[str, Any] = {name: getattr(self.priors, name) for name in SCALES}
        if self._has_signs:
            del scales["K"]  # They are parameters.
        if self.initial_state == "zero":
            del scales["initial_kappa"]
        if isinstance(scales.get("K"), ByCellType):
            by_cell_type = scales.pop("K")
            scales = {of_type("K", cell_type): scale for cell_type, scale in by_cell_type.items()} | scales
        if isinstance(self.background, RandomBulk):
            scales["gain"] = self.background.gain
        return {name: scale for name, scale in scales.items() if isinstance(scale, ScalePrior)}

    def scale(self, name: str) -> float:
        """The value of one of the scales in `scale_priors`, or the median of its prior."""
        if name == "gain":
            return center(cast(RandomBulk, self.background).gain)
        whole, cell_type = name_and_type(name)
        scale = getattr(self.priors, whole)
        return center(scale if cell_type is None else scale[cell_type])

    def with_scales(self, scales: Mapping[str, Scale]) -> LowRankModel:
        """This model with numbers in the place of priors of scales, or with other priors."""
        of_priors: dict[str, Any] = {
            name: value for name, value in scales.items() if name != "gain" and name_and_type(name)[1] is None
        }
        if isinstance(self.priors.K, ByCellType):
            chosen = {cell_type: scales.get(of_type("K", cell_type)) for cell_type in self.priors.K}
            entries = tuple(old if (new := chosen[name]) is None else new for name, old in self.priors.K.items())
            of_priors["K"] = dataclasses.replace(self.priors.K, entries=entries)
        model = dataclasses.replace(self, priors=dataclasses.replace(self.priors, **of_priors))
        if "gain" not in scales or not isinstance(self.background, RandomBulk):
            return model
        return dataclasses.replace(model, background=dataclasses.replace(self.background, gain=scales["gain"]))

    def parameter_space(self, *, num_trials: int, num_neurons: int, num_inputs: int, dt: float) -> ParameterSpace:
        """Names, shapes and priors of the parameters."""
        priors = self.priors
        unit = 1.0 if priors.unit is None else priors.unit
        share, shape = self.recorded_share(num_neurons), (num_neurons, self.rank)
        if isinstance(priors, DaleLoadings):
            of_magnitudes = priors.magnitudes_of(np.arange(num_neurons)[:, None])
            right_scale = 1.0 if priors.scales_of_K else _right_scale(priors)
            blocks = [
                Block("M", shape, 0.0, priors.of_neurons("M")[:, None], 1.0, *of_magnitudes),
                Block("K", shape, 0.0, right_scale / self.rank, priors.signs[:, None], *of_magnitudes),
            ]
        else:
            blocks = [Block("M", shape, 0.0, priors.M), Block("K", shape, 0.0, _right_scale(priors) * share**0.5)]
        if self.initial_state == "free":
            blocks.append(Block("initial_kappa", (num_trials, self.rank), 0.0, center(priors.initial_kappa) * unit))
        blocks += [
            Block("B", (num_neurons, num_inputs), 0.0, center(priors.B) * unit),
            Block("b", (num_neurons,), 0.0, center(priors.b) * unit),
        ]
        if isinstance(self.background, RandomBulk):
            if self.background.subspace is None:
                raise ValueError("background: expected a subspace; settle the model with for_recording(recording)")
            bulk_scale = self.scale("gain") / math.sqrt(num_neurons)
            blocks.append(Block("A", self.background.subspace.shape, 0.0, bulk_scale))
        if isinstance(priors, DaleLoadings) and isinstance(self.background, SignedBackground):
            pre, scales = presynaptic(num_neurons, self.self_connections), self.background.scales(num_neurons)
            of_sign = priors.signs[pre], *priors.magnitudes_of(pre)
            blocks.append(Block("W0", pre.shape, 0.0, scales[pre] / num_neurons, *of_sign))
        blocks += self.time_constants.blocks(dt)
        noise = self.noise_of_process
        if noise is not None:
            blocks += noise.blocks(self.rank, unit, self._typical_time_constant / dt)
        seen, noise_blocks = self.observation.blocks(
            num_neurons, math.log(priors.noise_scale * unit), priors.noise_spread
        )
        blocks += seen
        if self.drift is not None:
            blocks += self.drift.blocks(num_neurons, unit)
        if isinstance(priors, CorrelatedLoadings):
            coefficient = priors.regression / unit
            for name, width, scale in (
                ("K_on_M", self.rank, priors.regression / priors.M),
                ("K_on_B", num_inputs, coefficient),
                ("K_on_b", 1, coefficient),
            ):
                names = [of_type(name, each) for each in priors.K] if isinstance(priors.K, ByCellType) else [name]
                blocks += [Block(each, (self.rank, width), 0.0, scale) for each in names]
        if isinstance(priors, DaleLoadings) and priors.scales_of_K:
            medians, spreads = (np.array(each) for each in zip(*priors.scales_of_K, strict=True))
            blocks.append(Block(RIGHT_SCALE, medians.shape, np.log(medians), spreads))
        blocks += noise_blocks
        types: dict[str, Any] = {"self_connections": self.self_connections}
        if isinstance(priors.K, ByCellType):
            types |= {"cell_types": priors.K.cell_types, "members": np.asarray(priors.K.members)}
        return ParameterSpace(tuple(blocks), **types)

    def space_for(self, recording: Recording) -> ParameterSpace:
        return self.parameter_space(
            num_trials=recording.num_trials,
            num_neurons=recording.num_neurons,
            num_inputs=recording.num_inputs,
            dt=recording.dt,
        )

    def informative(self, recording: Recording) -> np.ndarray:
        """(trial, time, neuron) which bins say something: those observed, and of calcium also in the bin before."""
        mask = recording.mask
        return mask & bins_before(mask) if self._depends_on_bins_before else mask

    @property
    def _depends_on_bins_before(self) -> bool:
        return isinstance(self.observation, CalciumObservation)

    def data(self, recording: Recording) -> Data:
        """The recording and the background as arrays for compiled functions.

        Raises:
            ValueError: if there is stimulation, and there are hidden neurons, which it does not reach.
        """
        if self.hidden_neurons and recording.stimulation is not None:
            mend = "fit trials without stimulation, or leave hidden_neurons out"
            raise argument_error("stimulation", "none, as there are hidden neurons", "a stimulation", mend)
        known = self.background if isinstance(self.background, FixedBackground) else None
        return Data(
            activity=jnp.asarray(recording.activity),
            mask=jnp.asarray(self.informative(recording)),
            inputs=jnp.asarray(recording.inputs),
            stimulation=None if recording.stimulation is None else jnp.asarray(recording.stimulation),
            dt=jnp.asarray(recording.dt),
            before=jnp.asarray(bins_before(recording.activity)) if self._depends_on_bins_before else None,
            session=None if self.drift is None else jnp.asarray(self.drift.sessions_of(recording)),
            background=None if known is None else known.arrays(),
            known_factors=(
                None if known is None or known.left is None else (jnp.asarray(known.left), jnp.asarray(known.right))
            ),
            subspace=jnp.asarray(self.background.subspace) if isinstance(self.background, RandomBulk) else None,
            population=jnp.asarray(self._populations(recording.num_neurons)),
            noise_patterns=None if self.noise_patterns is None else jnp.asarray(self.noise_patterns),
        )

    def _populations(self, num_neurons: int) -> np.ndarray:
        """(neuron,) which of the time constants every neuron has."""
        if isinstance(self.time_constant, ByCellType):
            return np.asarray(self.time_constant.members)
        if isinstance(self.time_constant, PerNeuron):
            return np.arange(num_neurons)
        return np.zeros(num_neurons, dtype=int)

    @property
    def structure(self) -> LowRankModel:
        """The dynamics alone: equal whatever the arrays and the priors, a static argument of compiled functions."""
        time_constant = self.time_constant
        if isinstance(time_constant, ByCellType):
            time_constant = dataclasses.replace(time_constant, members=())
        noise = self.noise_of_process
        return dataclasses.replace(
            self,
            background=SignedBackground() if isinstance(self.background, SignedBackground) else None,
            priors=DaleLoadings() if self._has_signs else Priors(),
            drift=None,
            time_constant=time_constant,
            process_noise=None if noise is None else ProcessNoise(noise.shape),
        )

    @property
    def time_constants(self) -> TimeConstants:
        """Those of all populations, a population being the neurons that share one."""
        return TimeConstants.of(self.time_constant)

    @property
    def num_populations(self) -> int:
        """How many time constants there are."""
        return len(self.time_constants.entries)

    def time_constants_of(self, parameters: Parameters, dt: Array) -> Array:
        """(population,) tau in seconds."""
        return self.time_constants.values(parameters.get("log_time_constant_excess"), dt)

    def emission(
        self,
        parameters: Parameters | Mapping[str, np.ndarray],
        dt: Array | float,
        before: Array | None = None,
        session: Array | None = None,
    ) -> Emission:
        """What is seen of currents.

        Args:
            parameters: in coordinates.
            dt: bin width in seconds.
            before: activity of the bins before, on which what is expected of calcium depends, not what is simulated.
            session: numbers of the sessions, as the currents without the neurons; None is one that was not fitted.
        """
        known = cast(Any, parameters)
        seen = self.observation.emission(known, self.nonlinearity, dt, before)
        if session is None or SESSION_OFFSET not in parameters:
            return seen
        return DriftingEmission.of(seen, known, session)

    def emission_of_trials(self, parameters: Parameters, data: Data) -> Emission:
        """What is seen of currents (trial, time, neuron)."""
        session = None if data.session is None else data.session[:, None]
        return self.emission(parameters, data.dt, data.before, session)

    def integration_constants(self, parameters: Parameters, data: Data) -> Array:
        """(neuron,) a = dt / tau."""
        return (data.dt / self.time_constants_of(parameters, data.dt))[data.population]

    def named(self, coordinates: Mapping[str, np.ndarray], dt: float) -> dict[str, np.ndarray]:
        """Parameters as users see them, from those in the coordinates of `space_for`; leading axes are kept.

        noise_scale, or rate_scale, baseline and dispersion of counts, decay_time (s) of calcium and session_scale take
        the place of their logarithms, K stands for its regression, and time_constant (s) is always there: () where it
        is one for all neurons, else (population,) in the order in which the cell types were given, or (neuron,).
        process_noise (rank, rank) is the covariance Q of the noise of the latents in the gauge of M, per bin. W0 of a
        `SignedBackground` is (post, pre), with a diagonal of 0 where there are no self-connections.
        """
        named = {name: np.asarray(value) for name, value in coordinates.items() if not is_regression(name)}
        if isinstance(self.background, SignedBackground):
            named["W0"] = matrix_of(named["W0"])
        noise = self.noise_of_process
        if noise is not None:
            # Where M is nearly orthogonal to the patterns, Q is lost in single precision.
            covariance = double_precision(latent_covariance)(named, self.noise_patterns)
            named["process_noise"] = np.asarray(covariance)
            for name in (SCALE, MIXING):
                named.pop(name, None)
        for name, public in PUBLIC_NAMES.items():
            if name in named:
                named[public] = np.exp(named.pop(name))
        excess = named.pop("log_time_constant_excess", None)
        named["time_constant"] = self.time_constants.named(excess, dt, named["b"].shape[:-1])
        return named

    def coordinates(self, named: Mapping[str, np.ndarray], dt: float) -> dict[str, np.ndarray]:
        """The inverse of `named`. Fixed time constants may be left out."""
        coordinates = {name: np.asarray(value, dtype=np.float64) for name, value in named.items()}
        for name, public in PUBLIC_NAMES.items():
            if public in coordinates:
                coordinates[name] = np.log(coordinates.pop(public))
        if isinstance(self.background, SignedBackground):
            coordinates["W0"] = entries_of(coordinates["W0"], self.self_connections)
        covariance, noise = coordinates.pop("process_noise", None), self.noise_of_process
        if covariance is not None and noise is not None:
            found = pattern_coordinates(covariance, coordinates["M"], self.noise_patterns)
            coordinates |= {block.name: found[block.name] for block in noise.blocks(self.rank, 1.0, 1.0)}
        constants = coordinates.pop("time_constant", None)
        if constants is not None and self.time_constants.inferred:
            coordinates["log_time_constant_excess"] = self.time_constants.log_excess(constants, dt)
        return coordinates

    @double_precision
    def simulate(self, parameters: Mapping[str, np.ndarray], like: Recording, *, seed: int) -> Recording:
        """Simulate a recording with the inputs, stimulation, mask, labels and length of another one.

        Args:
            parameters: by name, as in `Posterior.mode`: M, K (neuron, rank), B (neuron, input), b, noise_scale
                (neuron,), for calcium also decay_time in seconds (neuron,). For spike rates also rate_scale and
                baseline in spikes/s, (neuron,) or (); for counts these in the place of noise_scale and, where they vary
                more than Poisson's, dispersion (neuron,). With drift session_offset and session_scale (neuron,
                session), initial_kappa (trial, rank) where the initial state is free, time_constant in seconds, (),
                (population,) or (neuron,), where it has a prior, process_noise (rank, rank), the covariance Q of what
                is added to the latents in every bin, where there is any. With a `SignedBackground` also W0 (post, pre),
                with a random bulk also its matrix W0 (post, pre), or, if the model is settled, A (neuron, dimension),
                the part that a recording sees: the rest is then 0.
            like: the recording whose trials are repeated. Its activity is not used.
            seed: seed of the noise.

        Raises:
            ValueError: if a parameter is missing or does not fit, or the network diverges.
        """
        if isinstance(self.background, RandomBulk) and (self.background.subspace is None or "W0" in parameters):
            if "W0" not in parameters:
                raise argument_error("parameters", "the key 'W0'", f"{sorted(parameters)}", "add the bulk's matrix")
            known = dataclasses.replace(self, background=FixedBackground(parameters["W0"]))
            kept = {name: value for name, value in parameters.items() if name not in ("W0", "A")}
            return known.simulate(kept, like, seed=seed)
        settled = self._without_recording(parameters).for_recording(like)
        public = PUBLIC_NAMES | {"log_time_constant_excess": "time_constant", SCALE: "process_noise"}
        blocks = settled.space_for(like).blocks
        for block in blocks:
            if is_regression(block.name) or block.name in (MIXING, RIGHT_SCALE):
                continue
            name = public.get(block.name, block.name)
            if name not in parameters:
                raise argument_error("parameters", f"the key {name!r}", f"{sorted(parameters)}", "add it")
            if name == "process_noise":
                require_covariance(parameters[name], "parameters['process_noise']", self.rank)
                continue
            value = np.asarray(parameters[name], dtype=np.float64)
            shape = settled.time_constants.shape if name == "time_constant" else block.shape
            if name == "W0":
                shape = (like.num_neurons, like.num_neurons)
            require_shape(value, f"parameters[{name!r}]", {str(axis): size for axis, size in enumerate(shape)})
            require_finite(value, f"parameters[{name!r}]")
            if name == "W0":
                require_matrix(value, self.self_connections)
        currents = settled.simulated_currents(parameters, like, seed=seed)
        coordinates = {name: jnp.asarray(value) for name, value in settled.coordinates(parameters, like.dt).items()}
        emission = settled.emission_of_trials(coordinates, settled.data(like))
        try:
            activity = emission.sample(np.random.default_rng(seed), jnp.asarray(currents))
        except ValueError as failure:  # Counts beyond the integers.
            raise self._divergence() from failure
        return dataclasses.replace(like, activity=activity)

    def _divergence(self) -> ValueError:
        return argument_error(
            "parameters",
            "a network whose activity stays finite",
            f"one that diverges with nonlinearity {self.nonlinearity!r}",
            "use a weaker K, or fewer bins",
        )

    def _without_recording(self, parameters: Mapping[str, np.ndarray]) -> LowRankModel:
        """This model with what a fit takes from the activity of a recording: a simulation uses none of it."""
        model, noise = self, self.noise_of_process
        if noise is not None and noise.patterns is None:
            model = model.with_noise_along(parameters.get("M"))
        if isinstance(model.observation, ScaledObservation):
            model = dataclasses.replace(model, observation=model.observation.settled(1.0))
        return model

    @double_precision
    def simulated_currents(self, parameters: Mapping[str, np.ndarray], like: Recording, *, seed: int) -> np.ndarray:
        """Currents (trial, time, neuron) of a settled model with its process noise, a few trials at once.

        Args and Raises: as in `simulate`, but that the parameters are not checked.
        """
        known = {name: value for name, value in parameters.items() if name != "process_noise"}
        coordinates = {name: jnp.asarray(value) for name, value in self.coordinates(known, like.dt).items()}
        covariance, random = parameters.get("process_noise"), np.random.default_rng([seed, 1])
        data, currents = self.data(like), np.empty(like.activity.shape)
        at_once = max(1, SIMULATED_AT_ONCE // currents[0].size)
        for start in range(0, like.num_trials, at_once):
            chosen, some = np.arange(start, min(start + at_once, like.num_trials)), dict(coordinates)
            if "initial_kappa" in some:
                some["initial_kappa"] = some["initial_kappa"][chosen]
            trials = data.of_trials(chosen)
            if covariance is not None:
                standard = random.standard_normal((*trials.activity.shape[:2], self.rank))
                process = jnp.asarray(standard @ np.linalg.cholesky(covariance).T)
                trials = _driven(self.structure, some, trials, process)
            currents[chosen] = _currents(self.structure, some, trials)
        if not np.all(np.isfinite(currents)):
            raise self._divergence()
        return currents

    def driven_by_noise(self, parameters: Parameters, data: Data, process: Array) -> Data:
        """Trials in which noise drives the latents: M eps[t] reaches the currents in the next bin, as a stimulation.

        Args:
            parameters: in coordinates.
            data: the trials.
            process: (trial, time, rank) eps.
        """
        a = self.integration_constants(parameters, data)
        driven = (process @ parameters["M"].T) / a
        return dataclasses.replace(data, stimulation=driven if data.stimulation is None else data.stimulation + driven)

    def initial_current(self, parameters: Parameters, num_trials: int) -> Array:
        """(trial, neuron) currents in the first bin."""
        if self.initial_state == "free":
            return parameters["initial_kappa"] @ parameters["M"].T + parameters["b"][None, :]
        return jnp.zeros((num_trials, parameters["b"].shape[0]), dtype=parameters["b"].dtype)

    def currents(self, parameters: Parameters, data: Data) -> Array:
        """Currents x (trial, time, neuron) of the noise-free network; a pure JAX function."""
        drive = jnp.einsum("bti,ni->btn", data.inputs, parameters["B"]) + parameters["b"][None, None, :]
        if data.stimulation is not None:
            drive = drive + data.stimulation
        a = self.integration_constants(parameters, data)
        left, right = self.factors(parameters, data)

        def one_trial(driven: Array, initial: Array) -> Array:
            return rollout(left, right, driven, a, initial, self.nonlinearity, data.background)

        return jax.vmap(one_trial)(drive, self.initial_current(parameters, drive.shape[0]))

    def factors(self, parameters: Parameters, data: Data) -> tuple[Array, Array]:
        """Left and right factors of all connectivity but a known matrix W0, W = left right^T / N.

        They are M and K, where a random bulk is seen through Q also A and N Q, and the known factors, left and N right.
        Of a dense W they are M and K, and 1 and N (W - M K^T / N)^T, one pattern for every neuron.
        """
        left, right = self._shared_factors(parameters, data)
        if not self.is_dense:
            return left, right
        num_neurons = len(left)
        beyond = beyond_low_rank(parameters, self.self_connections)
        each = jnp.eye(num_neurons, dtype=left.dtype)
        return jnp.concatenate([left, each], axis=1), jnp.concatenate([right, num_neurons * beyond.T], axis=1)

    @staticmethod
    def _shared_factors(parameters: Parameters, data: Data) -> tuple[Array, Array]:
        """Those of `factors` whose patterns are shared by neurons."""
        left, right, num_neurons = [parameters["M"]], [parameters["K"]], parameters["M"].shape[0]
        if data.subspace is not None:
            left.append(parameters["A"])
            right.append(num_neurons * data.subspace)
        if data.known_factors is not None:
            left.append(data.known_factors[0])
            right.append(num_neurons * data.known_factors[1])
        return jnp.concatenate(left, axis=1), jnp.concatenate(right, axis=1)

    def latent_factors(self, parameters: Parameters, data: Data) -> tuple[Array, Array]:
        """The factors of `factors` with latents of their own for every population of neurons with one time constant.

        A latent is a sum of rates, filtered with the time constant of the neurons that it drives, so that

            x_n = left_n . kappa + filtered inputs,      kappa[t+1] = (1 - a) kappa[t] + a right^T r[t] / N

        with a of the latent's population. With one population they are `factors`. Latents of a dense W that drive one
        neuron each stand behind the others, and belong to the population of their neuron.

        Returns:
            left (neuron, latent), 0 for neurons of other populations, and right (neuron, latent), those of one
            population after those of the other.
        """
        left, right = self.factors(parameters, data)
        num_shared = left.shape[1] - self.num_own_latents(len(left))
        belongs = jnp.arange(self.num_populations)[None, :] == data.population[:, None]
        tiled = jnp.where(belongs[:, :, None], left[:, None, :num_shared], 0.0).reshape(len(left), -1)
        right_tiled = jnp.tile(right[:, :num_shared], (1, self.num_populations))
        return (
            jnp.concatenate([tiled, left[:, num_shared:]], axis=1),
            jnp.concatenate([right_tiled, right[:, num_shared:]], axis=1),
        )

    def population_of_latents(self, num_latents: int, population: Array) -> Array:
        """(latent,) the population of each of the latents of `latent_factors`, from those of the neurons."""
        num_own = self.num_own_latents(len(population))
        shared = np.repeat(np.arange(self.num_populations), (num_latents - num_own) // self.num_populations)
        return jnp.concatenate([jnp.asarray(shared, population.dtype), population[:num_own]])

    def integration_constants_of_latents(self, parameters: Parameters, data: Data, num_latents: int) -> Array:
        """(latent,) a of the latents of `latent_factors`."""
        constants = data.dt / self.time_constants_of(parameters, data.dt)
        return constants[self.population_of_latents(num_latents, data.population)]

    def rates(self, parameters: Parameters, data: Data) -> Array:
        """Rates r = phi(x) (trial, time, neuron)."""
        return NONLINEARITIES[self.nonlinearity].rate(self.currents(parameters, data))


def _right_scale(priors: Priors) -> float | np.ndarray:
    """Prior standard deviation of the residuals of K: a number, or (neuron, 1) where cell types have their own."""
    if not isinstance(priors.K, ByCellType):
        return center(priors.K)
    return np.array([center(scale) for scale in priors.K.entries])[np.asarray(priors.K.members), None]


def _root_mean_square(recording: Recording) -> float:
    scale = float(np.sqrt(np.mean(recording.activity[recording.mask] ** 2)))
    if scale == 0.0:
        raise ValueError(
            "activity: expected activity that differs from zero, got zeros only; "
            "check the export, or drop silent neurons with recording.select(neurons=...)"
        )
    return scale


@functools.partial(jax.jit, static_argnums=0)
def _currents(model: LowRankModel, parameters: Parameters, data: Data) -> Array:
    return model.currents(parameters, data)


@functools.partial(jax.jit, static_argnums=0)
def _driven(model: LowRankModel, parameters: Parameters, data: Data, process: Array) -> Data:
    return model.driven_by_noise(parameters, data, process)
