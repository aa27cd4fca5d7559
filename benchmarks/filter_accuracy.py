"""How far is the filter's density from that of a particle filter?

    python benchmarks/filter_accuracy.py              run it and store the results
    python benchmarks/filter_accuracy.py --summary    print what is stored
    python benchmarks/filter_accuracy.py --tiny       few particles and trials, which are not stored

True networks of 20 neurons and rank 2, trials of 60 bins: tanh, rates observed with noise of 0.3, and softplus, counts;
and the excitatory-inhibitory network of `simulate_session` with 20 neurons and trials of 100 bins. The other filter
moves 20,000 particles by the equations of the model (bootstrap, systematic resampling). Differences in nats a trial:
the mean over trials and its standard error, which holds the noise of the particle filter.
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import stored

import lrposterior as lrp
from lrposterior.data import Data
from lrposterior.likelihood import log_likelihood_by_trial
from lrposterior.network import NONLINEARITIES
from lrposterior.state_space import known_currents, noise_covariance

NAME = "filter_accuracy"
NOISES = (0.14, 0.32, 0.63)
NUM_TRIALS, NUM_PARTICLES = 8, 20_000


def simulate(network: str, noise: float) -> lrp.Simulation:
    """A true network and its recording; noise is the standard deviation of that of every latent, in one bin."""
    if network == "session":
        return lrp.simulate_session(
            num_trials=30, num_bins=100, num_excitatory=15, num_inhibitory=5, num_outliers=0, seed=0
        )
    are_counts = network == "softplus"
    observation = lrp.PoissonObservation(scale=20.0) if are_counts else lrp.GaussianObservation()
    model = lrp.LowRankModel(2, nonlinearity=network, observation=observation, background=None, process_noise="full")
    return lrp.simulate_recording(
        model,
        num_neurons=20,
        num_bins=60,
        noise_scale=None if are_counts else 0.3,
        process_noise=noise**2 * np.eye(2),
        seed=2,
    )


def by_particles(
    model: lrp.LowRankModel, parameters: dict[str, jax.Array], data: Data, trial: int, number: int, seed: int
) -> float:
    """log p(activity of a trial), from the equations of the model."""
    random = np.random.default_rng([seed, trial])
    left, right = map(np.asarray, model.latent_factors(parameters, data))
    a = np.asarray(model.integration_constants_of_latents(parameters, data, left.shape[1]))
    values, axes = np.linalg.eigh(np.asarray(noise_covariance(model, parameters, data, left.shape[1])))
    root = axes * np.sqrt(np.maximum(values, 0.0))
    known = np.asarray(known_currents(model, parameters, data))[trial]
    emission, rate = model.emission(parameters, data.dt, None, None), jax.jit(NONLINEARITIES[model.nonlinearity].rate)
    density: Callable[..., jax.Array] = jax.jit(lambda *seen: jnp.sum(emission.log_likelihood(*seen), axis=1))
    kappa, total = np.zeros((number, left.shape[1])), 0.0
    for time, now in enumerate(known):
        current = kappa @ left.T + now
        weights = np.asarray(density(data.activity[trial, time], data.mask[trial, time], current))
        of_bin = scipy.special.logsumexp(weights)
        total += of_bin - np.log(number)
        places = (random.random() + np.arange(number)) / number
        chosen = np.minimum(np.searchsorted(np.cumsum(np.exp(weights - of_bin)), places), number - 1)
        driven = np.asarray(rate(current[chosen])) @ right / len(left)
        kappa = (1.0 - a) * kappa[chosen] + a * driven + random.standard_normal(kappa.shape) @ root.T
    return total


def compare(network: str, noise: float, num_trials: int, num_particles: int) -> dict:
    simulation = simulate(network, noise)
    recording = simulation.recording.select(trials=list(range(num_trials)))
    model = simulation.model.for_recording(simulation.recording)
    named = model.coordinates(simulation.parameters, recording.dt)
    parameters = {name: jnp.asarray(value) for name, value in named.items()}
    data = model.data(recording)
    found = np.asarray(log_likelihood_by_trial(model, parameters, data))
    other = [by_particles(model, parameters, data, trial, num_particles, seed=0) for trial in range(num_trials)]
    difference = found - other
    return {
        "network": network,
        "noise": noise,
        "activity": float(recording.activity.mean()),
        "mean": float(difference.mean()),
        "error": float(difference.std(ddof=1) / np.sqrt(num_trials)),
    }


def summarise(results: list[dict]) -> None:
    print("network   noise in a bin  mean activity  filter - particle filter (nats a trial)")
    for row in results:
        print(f"{row['network']:9s} {row['noise']:14.2f}  {row['activity']:13.2f}", end="")
        print(f"  {row['mean']:.2f} +- {row['error']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="few particles and trials, which are not stored")
    options = parser.parse_args()
    if options.summary:
        summarise(stored.load(NAME)["results"])
        return
    size = (2, 200) if options.tiny else (NUM_TRIALS, NUM_PARTICLES)
    with jax.enable_x64(True):
        results = [compare(network, noise, *size) for network in ("softplus", "tanh") for noise in NOISES]
        results.append(compare("session", 0.25, *size))
    summarise(results)
    if not options.tiny:
        stored.store(NAME, results=results)


if __name__ == "__main__":
    main()
