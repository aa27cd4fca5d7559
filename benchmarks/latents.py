"""Smoothed latents of single trials against a particle smoother.

    python benchmarks/latents.py              run it and store the results
    python benchmarks/latents.py --summary    print what is stored
    python benchmarks/latents.py --tiny       one network with few particles, which is not stored

True networks of the prior (rank 2, tanh), two for each line, one trial of 25 bins: rates with Gaussian noise, and
counts of 40 spikes/s. The other smoother moves 3,000 particles by the equations of the model and draws 500 paths
backwards through them (Godsill, Doucet and West 2004, doi:10.1198/016214504000000151), four times. Errors of the mean
are in its standard deviations, root mean square over latents and the bins after the first, which is known; its own
error is in them, and shown apart.
"""

import argparse

import jax
import numpy as np
import scipy.special
import scipy.stats
import stored

import lrposterior as lrp
from lrposterior.distribution import NormalDistribution
from lrposterior.posterior import FitStatistics

NAME = "latents"
RANK, NUM_BINS, NUM_NETWORKS = 2, 25, 2
NUM_PARTICLES, NUM_PATHS, NUM_RUNS = 3000, 500, 4
# Neurons, noise of the observations, process noise of a bin.
CASES = ((8, 0.3, 0.05), (8, 0.3, 0.1), (20, 0.2, 0.05), (20, 0.2, 0.1), (20, 0.3, 0.15), (40, 0.2, 0.05))
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


def smoothed_particles(posterior: lrp.Posterior, num_particles: int, random: np.random.Generator) -> np.ndarray:
    """(path, time, rank) draws of the latents given all bins of the trial, from the equations of the model."""
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
    paths = np.empty((NUM_PATHS, NUM_BINS, RANK))
    paths[:, -1] = particles[-1][random.choice(num_particles, NUM_PATHS, p=np.exp(log_weights[-1]))]
    for time in range(NUM_BINS - 2, -1, -1):
        along = following[time] @ precision
        # -|kappa[t+1] - following|² / 2 in the metric of Q, but for what all particles share.
        weights = log_weights[time] - 0.5 * np.sum(along * following[time], axis=1) + paths[:, time + 1] @ along.T
        # The largest of log weights with Gumbel noise is a draw with these weights.
        paths[:, time] = particles[time][np.argmax(weights + random.gumbel(size=weights.shape), axis=1)]
    return paths


def compare(kind: str, num_neurons: int, noise: float, process: float, seed: int, num_particles: int) -> dict:
    posterior = at_the_truth(kind, num_neurons, noise, process, seed)
    random = np.random.default_rng(seed)
    runs = np.stack([smoothed_particles(posterior, num_particles, random) for _ in range(NUM_RUNS)])[:, :, 1:]
    means, sd = runs.mean(axis=1), runs.std(axis=(0, 1))
    found = lrp.infer_latents(posterior)
    ratio = found.sd[0, 1:] / sd
    return {
        "activity": kind,
        "neurons": num_neurons,
        "noise": noise,
        "process": process,
        "seed": seed,
        "mean": float(np.sqrt(np.mean(((found.mean[0, 1:] - means.mean(axis=0)) / sd) ** 2))),
        "reference": float(np.sqrt(np.mean(means.var(axis=0, ddof=1) / NUM_RUNS / sd**2))),
        "sd": [float(ratio.min()), float(ratio.max())],
    }


def summarise(results: list[dict]) -> None:
    print("activity neurons  noise  process noise  seed  error of the mean (of the reference)  ratio of sd")
    for row in results:
        print(
            f"{row['activity']:8s} {row['neurons']:7d} {row['noise']:6.2f} {row['process']:14.2f} {row['seed']:5d}",
            end="",
        )
        print(f"  {row['mean']:.2f} ({row['reference']:.2f})  {row['sd'][0]:.2f} to {row['sd'][1]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="one network with few particles, which is not stored")
    options = parser.parse_args()
    if options.summary:
        summarise(stored.load(NAME)["results"])
        return
    if options.tiny:
        summarise([compare(kind, *CASES[0], 1, 100) for kind in OBSERVATIONS])
        return
    results = [
        compare(kind, *case, seed, NUM_PARTICLES)
        for kind in OBSERVATIONS
        for case in CASES
        for seed in range(1, NUM_NETWORKS + 1)
    ]
    summarise(results)
    stored.store(NAME, results=results)


if __name__ == "__main__":
    main()
