"""The collapse of a naive fit: a softplus network without a scale under a z-scored loss, its name, and its cure."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrposterior as lrp
from lrposterior.distribution import SampleDistribution
from lrposterior.matching.losses import weight_norm
from lrposterior.posterior import FitStatistics, Posterior

SESSION = {"num_trials": 100, "num_bins": 80, "num_excitatory": 9, "num_inhibitory": 4, "num_inputs": 8}


def naive_descent(model: lrp.LowRankModel, recording: lrp.Recording, seed: int, num_steps: int = 500) -> Posterior:
    """Adam from a network of the prior on the mean square between trial averages, each z-scored by its own moments.

    Rates are softplus(x) in spikes/s: what a model learns of scale and baseline stays at its start. The penalty on
    weights is that of `Match`.
    """
    bare = dataclasses.replace(model, process_noise=None, observation=lrp.PoissonObservation(scale=1.0))
    settled = bare.for_recording(recording)
    space, data = settled.space_for(recording), settled.data(recording)
    moves = np.ones(space.size)
    for name in ("log_rate_scale", "log_baseline"):
        moves[space.slices[name]] = 0.0
    labels = np.array(recording.trial_labels)
    belongs = jnp.asarray((labels[:, None] == np.unique(labels)).astype(float))

    def z_scored_averages(activity):
        averages = jnp.einsum("bc,btn->ctn", belongs, activity) / jnp.sum(belongs, axis=0)[:, None, None]
        return (averages - averages.mean((0, 1))) / (averages.std((0, 1)) + 1e-6)

    def loss(z):
        parameters = space.unwhiten(z)
        expected = settled.emission_of_trials(parameters, data).mean(settled.currents(parameters, data))
        left, right = settled.factors(parameters, data)
        apart = z_scored_averages(expected / data.dt) - z_scored_averages(data.activity)
        return jnp.mean(apart**2) + 1e-4 * weight_norm(left, right, parameters["B"])

    adam = optax.adam(0.01)

    def step(carry, _):
        z, state = carry
        updates, state = adam.update(moves * jax.grad(loss)(z), state)
        return (optax.apply_updates(z, updates), state), None

    start = jnp.asarray(moves * np.random.default_rng(seed).standard_normal(space.size))
    descend = jax.jit(lambda z: jax.lax.scan(step, (z, adam.init(z)), length=num_steps)[0][0])
    z = np.asarray(descend(start))
    assert loss(z) < 0.9 * loss(start)
    statistics = FitStatistics(
        objective=float(loss(z)), gradient_norm=np.nan, decrement=np.nan, num_iterations=num_steps, wall_time=0.0,
        log_evidence=None, evidence_note="",
    )  # fmt: skip
    return Posterior(settled, recording, "match", seed, "naive", statistics, z, SampleDistribution(z[None, None]))


def names(posterior: Posterior) -> set[str]:
    return {verdict.name for verdict in lrp.diagnose(posterior, seed=0).verdicts}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_naive_fit_collapses_to_low_flat_rates_and_is_named(seed):
    """The loss falls, and rates do not come near 13 spikes/s: under it any scale is as good as any other.

    Flatness has its name where recorded averages move by three standard errors, as they do with the first seed.
    """
    truth = lrp.simulate_session(**SESSION, num_outliers=0, seed=seed)
    with jax.enable_x64(True):
        posterior = naive_descent(truth.model, truth.recording, seed)
    found = lrp.diagnose(posterior, seed=0)
    assert found.trained is not None
    assert found.trained.signal.level < 0.12 * found.data.signal.level
    assert found.trained.signal.temporal_sd < 0.12 * found.data.signal.temporal_sd
    assert "scale mismatch" in names(posterior)
    assert ("flat output" in names(posterior)) == (found.data.signal.temporal_z > 3.0)
    assert seed > 0 or "flat output" in names(posterior)


@pytest.mark.slow
def test_the_default_does_not_collapse():
    truth = lrp.simulate_session(**SESSION, num_outliers=0, seed=0)
    posterior = lrp.fit(truth.model, truth.recording, lrp.Match(conditions="labels"), seed=0, progress=False)
    assert not names(posterior)
