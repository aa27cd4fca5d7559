"""Latents of single trials against a particle smoother, where the network bends and where spikes are counted."""

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats
from handmade import STATISTICS
from plain import plain_model

import lrposterior as lrp
from lrposterior.distribution import NormalDistribution

NUM_BINS, NUM_PARTICLES, NUM_PATHS, NUM_RUNS = 25, 3000, 500, 4
RANK, NUM_NEURONS = 2, 20


def at_the_truth(observation):
    """A posterior whose mode is the true network: what is left are the latents."""
    model = plain_model(rank=RANK, process_noise="full", observation=observation)
    simulation = lrp.simulate_recording(
        model,
        num_neurons=NUM_NEURONS,
        num_trials=1,
        num_bins=NUM_BINS,
        noise_scale=0.2,
        process_noise=0.1**2 * (np.eye(RANK) + 0.3),
        seed=2,
    )
    settled, recording = model.for_recording(simulation.recording), simulation.recording
    space = settled.space_for(recording)
    with jax.enable_x64(True):
        z = np.asarray(space.whiten(settled.coordinates(simulation.parameters, recording.dt)))
    everywhere = NormalDistribution(z, np.eye(space.size))
    return lrp.Posterior(settled, recording, "by hand", 0, "converged", STATISTICS, z, everywhere)


def log_density(observation, parameters, dt, activity, currents):
    """(particle,) log p(activity of a bin | currents (particle, neuron))."""
    if isinstance(observation, lrp.PoissonObservation):
        rates = parameters["rate_scale"] * np.logaddexp(0.0, currents) + parameters["baseline"]
        return scipy.stats.poisson.logpmf(activity, dt * rates).sum(axis=1)
    return scipy.stats.norm.logpdf(activity, np.tanh(currents), parameters["noise_scale"]).sum(axis=1)


def smoothed_particles(posterior, random):
    """(path, time, rank) draws of the latents given all bins of the trial, from the equations of the model.

    Particles go forward through the dynamics, and paths are drawn backward through them with the weights
    p(kappa[t+1] | kappa[t]) (Godsill, Doucet and West 2004, doi:10.1198/016214504000000151).
    """
    recording, mode = posterior.recording, posterior.mode
    M, K, precision = mode["M"], mode["K"], np.linalg.inv(mode["process_noise"])
    root = np.linalg.cholesky(mode["process_noise"])
    a = recording.dt / posterior.model.time_constant
    kappa, known = np.zeros((NUM_PARTICLES, RANK)), np.zeros(len(M))
    particles, log_weights, following = [], [], []
    for activity, inputs in zip(recording.activity[0], recording.inputs[0], strict=True):
        currents = kappa @ M.T + known
        weights = log_density(posterior.model.observation, mode, recording.dt, activity, currents)
        particles.append(kappa)
        log_weights.append(weights - scipy.special.logsumexp(weights))
        ahead = (1.0 - a) * kappa + a * np.tanh(currents) @ K / len(M)
        following.append(ahead)
        chosen = random.choice(NUM_PARTICLES, NUM_PARTICLES, p=np.exp(log_weights[-1]))
        kappa = ahead[chosen] + random.standard_normal((NUM_PARTICLES, RANK)) @ root.T
        known = (1.0 - a) * known + a * (mode["B"] @ inputs + mode["b"])
    paths = np.empty((NUM_PATHS, NUM_BINS, RANK))
    paths[:, -1] = particles[-1][random.choice(NUM_PARTICLES, NUM_PATHS, p=np.exp(log_weights[-1]))]
    for time in range(NUM_BINS - 2, -1, -1):
        along = following[time] @ precision
        # -|kappa[t+1] - following|² / 2 in the metric of Q, but for what all particles share.
        weights = log_weights[time] - 0.5 * np.sum(along * following[time], axis=1) + paths[:, time + 1] @ along.T
        # The largest of log weights with Gumbel noise is a draw with these weights.
        chosen = np.argmax(weights + random.gumbel(size=weights.shape), axis=1)
        paths[:, time] = particles[time][chosen]
    return paths


@pytest.mark.parametrize("observation", [lrp.GaussianObservation(), lrp.PoissonObservation(scale=40.0)])
def test_smoothed_latents_are_those_of_a_particle_smoother(observation):
    """In units of the posterior standard deviation the mean is off by 0.02 to 0.05 (`benchmarks/latents.py`).

    Four runs of the particle smoother have a standard error of 0.03 together, which is asserted. Latents that are
    filtered and not smoothed are off by 0.4 to 0.5.
    """
    posterior, random = at_the_truth(observation), np.random.default_rng(0)
    found = lrp.infer_latents(posterior)
    runs = [smoothed_particles(posterior, random)[:, 1:] for _ in range(NUM_RUNS)]
    means, sd = np.mean(runs, axis=1), np.std(runs, axis=(0, 1))
    assert np.sqrt(np.mean(np.var(means, axis=0, ddof=1) / NUM_RUNS / sd**2)) < 0.05
    error = (found.mean[0, 1:] - means.mean(axis=0)) / sd
    assert np.sqrt(np.mean(error**2)) < 0.1
    assert np.all(np.abs(error) < 0.3)
    ratio = found.sd[0, 1:] / sd
    assert np.all((ratio > 0.8) & (ratio < 1.2))
    assert 0.95 < ratio.mean() < 1.05
    np.testing.assert_array_equal(found.mean[0, 0], 0.0)  # the first bin is known
