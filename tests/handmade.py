"""Recordings and posteriors put together by hand, without a fit: every kind, at no cost. And one small fit."""

import dataclasses
import functools

import numpy as np
import scipy.linalg
import scipy.sparse
from plain import plain_model

import lrposterior as lrp
from lrposterior import gauge
from lrposterior.distribution import MixtureDistribution, NormalDistribution, SampleDistribution
from lrposterior.held_out import HeldOutDensity
from lrposterior.rank_selection import RankFit, choose

TRIALS, BINS, NEURONS, INPUTS = 4, 9, 5, 2

STATISTICS = lrp.FitStatistics(
    objective=-12.25,
    gradient_norm=1e-7 / 3,
    decrement=1e-12,
    num_iterations=17,
    wall_time=2.5,
    log_evidence=np.pi,
    evidence_note="by hand: µ ± σ",
    mode_objectives=(-12.25, -11.0),
    mode_log_evidences=(np.pi, np.nan),
    mode_counts=(3, 1),
    num_failed_starts=2,
    elbo=np.linspace(-100.0, -1.0 / 3.0, 7),
    training_loss=np.array([0.02, 1.0 / 3.0]),
    validation_loss=np.array([0.04, np.nan]),
    diagnostics={"rhat of W": 1.01, "smallest ess of W": np.inf},
    scales={"K": (1.0 / 3.0, 0.25), "gain": (0.4, 1e-3)},
    regression_ahead=-np.e,
)


def make_recording(*, bare=False, **changes):
    """A recording with everything in it, or with activity only."""
    random = np.random.default_rng(5)
    shape = (TRIALS, BINS, NEURONS)
    activity = random.standard_normal(shape)
    if bare:
        return lrp.Recording(activity, 0.02, **changes)
    everything = {
        "inputs": random.standard_normal((TRIALS, BINS, INPUTS)),
        "stimulation": random.standard_normal(shape) * (random.random(shape) < 0.2),
        "mask": random.random(shape) < 0.9,
        "neuron_labels": ["µ1", "a b", "", "Zelle-ß", "神経"],
        "cell_types": ["E", "E", "I", "E", "I"],
        "trial_labels": ["left", "right", "left", "right"],
    }
    return lrp.Recording(activity, 0.02, **(everything | changes))


def make_posterior(model=None, recording=None, *, chains=False, mixture=False, statistics=STATISTICS, seed=0):
    """A posterior around random parameters: Normal with any covariance, two of these, or draws of three chains."""
    recording = make_recording() if recording is None else recording
    model = (plain_model(rank=2) if model is None else model).for_recording(recording)
    size = model.space_for(recording).size
    random = np.random.default_rng(seed)
    center = 0.7 * random.standard_normal(size)
    if chains:
        distribution = SampleDistribution(center + 0.3 * random.standard_normal((3, 40, size)))
    else:
        distribution = NormalDistribution(center, 0.3 * random.standard_normal((size, size + 3)) / np.sqrt(size))
    if mixture:
        other = NormalDistribution(center + 0.1 * random.standard_normal(size), 0.5 * distribution.scale)
        distribution = MixtureDistribution(np.array([0.7, 0.3]), (distribution, other))
    method = "nuts" if chains else "laplace"
    return lrp.Posterior(model, recording, method, 11, "converged", statistics, center, distribution)


def with_factors(space, z, left, right):
    """z (..., coordinate) with other whitened factors, those of `space.factors`; no regressions."""
    factors = (np.reshape(factor, (*z.shape[:-1], -1)) for factor in (left, right))
    return np.concatenate([*factors, z[..., space.right_stop :]], axis=-1)


def in_another_gauge(posterior, seed=0):
    """The same posterior with every stored draw and the mode moved along its gauge orbit by a random matrix."""
    random = np.random.default_rng(seed)
    space, draws = posterior.space, posterior.distribution.draws

    def moved(z):
        left, right = space.factors(z)
        A = np.eye(left.shape[-1]) + 0.4 * random.standard_normal(z.shape[:-1] + 2 * left.shape[-1:])
        return with_factors(space, z, left @ A, right @ np.linalg.inv(np.swapaxes(A, -1, -2)))

    return lrp.Posterior(
        posterior.model,
        posterior.recording,
        posterior.method,
        posterior.seed,
        posterior.status,
        posterior.statistics,
        moved(posterior.mode_coordinates),
        SampleDistribution(moved(draws)),
    )


@functools.cache
def fit_small_recording():
    """The Laplace posterior of a simulated network of 6 neurons, 4 trials of 20 bins."""
    model = plain_model(rank=2)
    simulation = lrp.simulate_recording(model, num_neurons=6, num_trials=4, num_bins=20, noise_scale=0.2, seed=0)
    return lrp.fit(model, simulation.recording, seed=0, progress=False)


def density(*by_trial):
    """Of these trials, by K-fold."""
    return HeldOutDensity("k-fold", np.array(by_trial, dtype=float), np.empty(0), np.nan)


def make_rank_selection():
    """Two regular ranks, a singular one and one that the data refuse."""
    fits = [
        RankFit(1, None, 1000.0, "", None, density(400, 410, 390, 400)),
        RankFit(2, None, 1500.0, "", None, density(510, 525, 515, 530)),
        RankFit(3, None, None, "no evidence", None, density(480, 500, 480, 500)),
        RankFit(4, "the data do not support rank 4"),
    ]
    return lrp.RankSelection(*choose(fits), tuple(fits))


def assert_same(one, other, name="posterior"):
    """Equal in type and to the bit, through all fields."""
    assert type(one) is type(other) or isinstance(one, float | int | np.generic), name
    if scipy.sparse.issparse(one):
        assert one.shape == other.shape
        for part in (*zip(one.coords, other.coords, strict=True), (one.data, other.data)):
            np.testing.assert_array_equal(*part, err_msg=name)
    elif dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name), f"{name}.{field.name}")
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()), name
    else:
        np.testing.assert_equal(other, one, err_msg=name)


def vertical_basis(left, right):
    """Orthonormal basis (row * rank + column * rank, direction) of the vertical space, factors raveled in this order.

    It has rank² directions, unless a singular value of left @ right^T is zero.
    """
    rank = left.shape[1]
    generators = np.eye(rank * rank).reshape(rank * rank, rank, rank)
    moved_left = (left @ generators).reshape(rank * rank, -1)
    moved_right = -(right @ np.swapaxes(generators, 1, 2)).reshape(rank * rank, -1)
    return scipy.linalg.orth(np.concatenate([moved_left, moved_right], axis=1).T)


def log_orbit_volume(left, right):
    """Logarithm of the volume of the orbit {(L A, Q A) : A orthogonal}, on which the prior density is constant.

    log Vol = sum_{j=1..R} [log 2 + (j/2) log pi - logGamma(j/2)] + 1/2 sum_{i<j} log(s_i + s_j),

    s the eigenvalues of L^T L + Q^T Q.
    """
    values = np.linalg.eigvalsh(left.T @ left + right.T @ right)
    pairs = values[:, None] + values[None, :]
    return gauge.log_group_volume(left.shape[1]) + 0.5 * float(np.sum(np.log(pairs[np.triu_indices(len(pairs), k=1)])))
