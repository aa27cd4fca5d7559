"""Latents of single trials against a particle smoother, where the network bends and where spikes are counted."""

import numpy as np
import pytest
from benchmark_files import load_benchmark

import lrposterior as lrp

NUM_PARTICLES, NUM_PATHS, NUM_RUNS = 3000, 500, 4
particle_smoother = load_benchmark("particle_smoother")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rates", "counts"])
def test_smoothed_latents_are_those_of_a_particle_smoother(kind):
    """In units of the posterior standard deviation the mean is off by 0.02 to 0.05 (`benchmarks/latents.py`).

    Four runs of the particle smoother have a standard error of 0.03 together, which is asserted. Latents that are
    filtered and not smoothed are off by 0.4 to 0.5.
    """
    posterior = particle_smoother.at_the_truth(kind, num_neurons=20, noise=0.2, process=0.1, seed=2)
    random = np.random.default_rng(0)
    found = lrp.infer_latents(posterior)
    runs = [
        particle_smoother.smoothed_particles(posterior, NUM_PARTICLES, NUM_PATHS, random)[:, 1:]
        for _ in range(NUM_RUNS)
    ]
    means, sd = np.mean(runs, axis=1), np.std(runs, axis=(0, 1))
    assert np.sqrt(np.mean(np.var(means, axis=0, ddof=1) / NUM_RUNS / sd**2)) < 0.05
    error = (found.mean[0, 1:] - means.mean(axis=0)) / sd
    assert np.sqrt(np.mean(error**2)) < 0.1
    assert np.all(np.abs(error) < 0.3)
    ratio = found.sd[0, 1:] / sd
    assert np.all((ratio > 0.8) & (ratio < 1.2))
    assert 0.95 < ratio.mean() < 1.05
    np.testing.assert_array_equal(found.mean[0, 0], 0.0)  # the first bin is known
