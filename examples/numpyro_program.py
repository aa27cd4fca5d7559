"""The network inside a larger NumPyro program: how strongly the neurons are read out is itself unknown.

`lrposterior.Priors` fixes the prior scale of K, the right factors. Here it gets a prior of its own, and NumPyro's NUTS
samples it together with the network. Everything that is printed is invariant under the gauge (M A, K A^-T).

    python examples/numpyro_program.py

LRPOSTERIOR_TINY=1 makes it run in seconds.
"""

import os

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

import lrposterior as lrp

jax.config.update("jax_enable_x64", True)  # before the first array is made

TINY = os.environ.get("LRPOSTERIOR_TINY") == "1"
NUM_NEURONS, NUM_TRIALS = (4, 3) if TINY else (8, 10)
NUM_WARMUP, NUM_SAMPLES = (30, 20) if TINY else (500, 500)

model = lrp.LowRankModel(rank=1, time_constant=0.1, background=None, priors=lrp.Priors())
simulation = lrp.simulate_recording(model, num_neurons=NUM_NEURONS, num_trials=NUM_TRIALS, noise_scale=0.1, seed=0)
network = lrp.numpyro_model(model, simulation.recording)


def program():
    scale = numpyro.sample("scale", dist.HalfNormal(2.5))
    shape = numpyro.sample("shape", dist.Normal().expand([NUM_NEURONS, 1]).to_event(2))
    parameters = network(K=scale * shape)  # the rest, M, B, b and the noise, is sampled from the priors of the model
    numpyro.deterministic("W", parameters["M"] @ parameters["K"].T / NUM_NEURONS)


# A fit in which the scale is fixed shows where to start.
mode = lrp.fit(model, simulation.recording, seed=0, progress=False).mode
start = {"scale": 2.5, "shape": mode["K"] / 2.5, "log_noise_scale": np.log(mode["noise_scale"])}
start |= {name: mode[name] for name in ("M", "B", "b")}
sampler = numpyro.infer.MCMC(
    numpyro.infer.NUTS(program, dense_mass=True, init_strategy=numpyro.infer.init_to_value(values=start)),
    num_warmup=NUM_WARMUP,
    num_samples=NUM_SAMPLES,
    num_chains=2,
    chain_method="sequential",
    progress_bar=False,
)
sampler.run(jax.random.key(1))

draws = sampler.get_samples(group_by_chain=True)
W, scale = np.asarray(draws["W"]), np.asarray(draws["scale"])
truth = simulation.connectivity
print(f"prior scale of K: {scale.mean():.2f} +- {scale.std():.2f} (the network was drawn with 2.5)")
print(f"W: largest R-hat {split_gelman_rubin(W).max():.3f}, smallest ESS {effective_sample_size(W).min():.0f}")
for name, value in (("posterior mean", W.mean(axis=(0, 1))), ("truth", truth)):
    print(f"singular value of W, {name}: {np.linalg.norm(value, 2):.2f}")
lower, upper = np.quantile(W, [0.05, 0.95], axis=(0, 1))
print(f"90% intervals cover {np.mean((lower < truth) & (truth < upper)):.0%} of the entries of W")
