"""Smoothed latents by particles, and posteriors of nothing but latents to compare them with."""

import jax
import numpy as np
import scipy.special
import scipy.stats

import lrposterior as lrp
from lrposterior.distribution import NormalDistribution
from lrposterior.posterior import FitStatistics

RANK, NUM_BINS = 2, 25
OBSERVATIONS = {"rates": lrp.GaussianObservation(), "counts": lrp.PoissonObservation(scale=40.0)}


def at_the_truth(kind: str, num_neurons: int, noise: float, process: float, seed: int) -> lrp.Posterior:
    """A posterior whose mode is the true network: what is left are the latents."""
    model = lrp.LowRankModel(
        RANK, observation=OBSERVATIONS[kind], background=None, priors=lrp.Priors(K=2.5, unit=1.0), process_noise="full"
    )
    simulation = lrp.simulate_recording(
        model,
        num_neurons=num_neurons,
        num_trials=1,
        num_bins=NUM_BINS,
        noise_scale=noise if kind == "rates" else None,
        process_noise=process**2 * (np.eye(RANK) + 0.3),
        seed=seed,
    )
    recording = simulation.recording
    settled = model.with_noise_along(simulation.parameters["M"]).for_recording(recording)
    space = settled.space_for(recording)
    with jax.enable_x64(True):
        z = np.asarray(space.whiten(settled.coordinates(simulation.parameters, recording.dt)))
    none = FitStatistics(0.0, 0.0, 0.0, 0, 0.0, None, "not fitted")
    return lrp.Posterior(settled, recording, "truth", 0, "", none, z, NormalDistribution(z, np.eye(space.size)))


def log_density(posterior: lrp.Posterior, activity: np.ndarray, currents: np.ndarray) -> np.ndarray:
    """(particle,) log p(activity of a bin | currents (particle, neuron))."""
    mode = posterior.mode
    if isinstance(posterior.model.observation, lrp.PoissonObservation):
        rates = mode["rate_scale"] * np.logaddexp(0.0, currents) + mode["baseline"]
        return scipy.stats.poisson.logpmf(activity, posterior.recording.dt * rates).sum(axis=1)
    return scipy.stats.norm.logpdf(activity, np.tanh(currents), mode["noise_scale"]).sum(axis=1)


def smoothed_particles(
    posterior: lrp.Posterior, num_particles: int, num_paths: int, random: np.random.Generator
) -> np.ndarray:
    """(path, time, rank) draws of the latents given all bins of the trial, from the equations of the model.

    Particles go forward through the dynamics, and paths are drawn backward through them with the weights
    p(kappa[t+1] | kappa[t]) (Godsill, Doucet and West 2004, doi:10.1198/016214504000000151).
    """
    recording, mode = posterior.recording, posterior.mode
    M, K, precision = mode["M"], mode["K"], np.linalg.inv(mode["process_noise"])
    root, a = np.linalg.cholesky(mode["process_noise"]), recording.dt / float(mode["time_constant"])
    kappa, known = np.zeros((num_particles, RANK)), np.zeros(len(M))
    particles, log_weights, following = [], [], []
    for activity, inputs in zip(recording.activity[0], recording.inputs[0], strict=True):
        currents = kappa @ M.T + known
        weights = log_density(posterior, activity, currents)
        particles.append(kappa)
        log_weights.append(weights - scipy.special.logsumexp(weights))
        following.append((1.0 - a) * kappa + a * np.tanh(currents) @ K / len(M))
        chosen = random.choice(num_particles, num_particles, p=np.exp(log_weights[-1]))
        kappa = following[-1][chosen] + random.standard_normal(kappa.shape) @ root.T
        known = (1.0 - a) * known + a * (mode["B"] @ inputs + mode["b"])
    paths = np.empty((num_paths, NUM_BINS, RANK))
    paths[:, -1] = particles[-1][random.choice(num_particles, num_paths, p=np.exp(log_weights[-1]))]
    for time in range(NUM_BINS - 2, -1, -1):
        along = following[time] @ precision
        # -|kappa[t+1] - following|² / 2 in the metric of Q, but for what all particles share.
        weights = log_weights[time] - 0.5 * np.sum(along * following[time], axis=1) + paths[:, time + 1] @ along.T
        # The largest of log weights with Gumbel noise is a draw with these weights.
        paths[:, time] = particles[time][np.argmax(weights + random.gumbel(size=weights.shape), axis=1)]
    return paths
