"""What does the likelihood of noisy latents cost, against an off-the-shelf filter in JAX?

    python benchmarks/filter_speed.py              run it and store the results
    python benchmarks/filter_speed.py --summary    print what is stored
    python benchmarks/filter_speed.py --tiny       one small recording that is not stored

The other filter is that of dynamax 1.0, which is not a dependency: `pip install dynamax`, best into an environment of
its own. Both evaluate the same log likelihood, of a network whose currents are observed: tanh by dynamax's extended
Kalman filter, and linear by its Kalman filter with diagonal noise of the observations. Values are compared first. The
linear ones differ by what dynamax adds to the diagonal of covariances; of tanh ours takes averages of rates where an
extended Kalman filter takes the rate of the mean.

Seconds of the processor of compiled code, for the value, and for the value with the gradient by all parameters
(loadings, input weights, biases, noise of observations and latents). The two take turns; the ratio is the median over
turns.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import stored

import lrposterior as lrp
from lrposterior.data import Data
from lrposterior.likelihood import log_likelihood_by_trial
from lrposterior.state_space import known_currents, noise_covariance

NAME = "filter_speed"
SIZES = {"200 x 75 x 20": (200, 75, 20), "20 x 200 x 100": (20, 200, 100)}
NETWORKS = {"tanh": 2.5, "linear": 0.8}  # and the prior scale of K
RANK, NUM_TURNS = 2, 5
# dynamax takes the Cholesky factor of the covariance in the first bin, which is 0.
START = 1e-14

Likelihood = Callable[[dict[str, jax.Array], Data], jax.Array]


def by_dynamax(model: lrp.LowRankModel) -> Likelihood:
    """log p(activity of a trial | parameters), (trial,), by a filter of dynamax.

    dynamax hands the inputs of bin t + 1 to the step from t to t + 1, so that it is given those of two bins.
    """
    from dynamax.linear_gaussian_ssm import lgssm_filter
    from dynamax.linear_gaussian_ssm.inference import make_lgssm_params
    from dynamax.nonlinear_gaussian_ssm import ParamsNLGSSM, extended_kalman_filter

    def likelihood(parameters: dict[str, jax.Array], data: Data) -> jax.Array:
        M, K = parameters["M"], parameters["K"]
        num_neurons = len(M)
        a = model.integration_constants(parameters, data)[0]
        known = known_currents(model, parameters, data)
        before = jnp.roll(known, 1, axis=1)
        inputs = jnp.concatenate([before, known], axis=2)
        variance, noise = jnp.exp(2.0 * parameters["log_noise_scale"]), noise_covariance(model, parameters, data, RANK)
        start, spread = jnp.zeros(RANK), START * jnp.eye(RANK)

        def extended(activity: jax.Array, inputs: jax.Array) -> jax.Array:
            def ahead(kappa: jax.Array, inputs: jax.Array) -> jax.Array:
                rates = jnp.tanh(M @ kappa + inputs[:num_neurons])
                return (1.0 - a) * kappa + a * K.T @ rates / num_neurons

            params = ParamsNLGSSM(
                start, spread, ahead, noise, lambda kappa, inputs: M @ kappa + inputs[num_neurons:], jnp.diag(variance)
            )
            return extended_kalman_filter(params, activity, inputs=inputs).marginal_loglik

        def linear(activity: jax.Array, inputs: jax.Array) -> jax.Array:
            step, none = (1.0 - a) * jnp.eye(RANK) + a * K.T @ M / num_neurons, jnp.zeros((RANK, num_neurons))
            params = make_lgssm_params(
                start,
                spread,
                step,
                noise,
                M,
                variance,
                dynamics_input_weights=jnp.concatenate([a * K.T / num_neurons, none], axis=1),
                emissions_input_weights=jnp.concatenate(
                    [jnp.zeros((num_neurons, num_neurons)), jnp.eye(num_neurons)], axis=1
                ),
            )
            return lgssm_filter(params, activity, inputs).marginal_loglik

        return jax.vmap(linear if model.nonlinearity == "linear" else extended)(data.activity, inputs)

    return likelihood


def seconds_of(function: Callable[..., Any], *arguments: Any) -> float:
    started = time.process_time()
    jax.block_until_ready(function(*arguments))
    return time.process_time() - started


def compare(nonlinearity: str, num_trials: int, num_bins: int, num_neurons: int, seed: int = 1) -> dict[str, Any]:
    model = lrp.LowRankModel(
        rank=RANK,
        nonlinearity=nonlinearity,
        background=None,
        priors=lrp.Priors(K=NETWORKS[nonlinearity], unit=1.0),
        observation=lrp.GaussianObservation(of="current"),
        process_noise="full",
    )
    truth = lrp.simulate_recording(
        model,
        num_neurons=num_neurons,
        num_trials=num_trials,
        num_bins=num_bins,
        noise_scale=0.2,
        process_noise=0.05**2 * np.eye(RANK),
        seed=seed,
    )
    settled = model.for_recording(truth.recording)
    data, structure = settled.data(truth.recording), settled.structure
    named = settled.coordinates(truth.parameters, truth.recording.dt)
    parameters = {name: jnp.asarray(value) for name, value in named.items()}

    def ours(parameters: dict[str, jax.Array], data: Data) -> jax.Array:
        return log_likelihood_by_trial(structure, parameters, data)

    functions = {"ours": ours, "dynamax": by_dynamax(structure)}
    values, seconds = {}, {}
    for name, function in functions.items():
        value = jax.jit(function)
        slope = jax.jit(
            jax.value_and_grad(lambda parameters, data, function=function: function(parameters, data).sum())
        )
        values[name] = np.asarray(value(parameters, data))
        jax.block_until_ready(slope(parameters, data))
        functions[name] = (value, slope)
    for _ in range(NUM_TURNS):
        for name, both in functions.items():
            for of, function in zip(("value", "gradient"), both, strict=True):
                seconds.setdefault((name, of), []).append(seconds_of(function, parameters, data))
    row = {"network": nonlinearity, "difference": float(np.abs(values["ours"] - values["dynamax"]).max())}
    row["size"] = float(np.abs(values["ours"]).max())
    for of in ("value", "gradient"):
        ours, theirs = np.array(seconds["ours", of]), np.array(seconds["dynamax", of])
        row[of] = {"ours": float(np.median(ours)), "dynamax": float(np.median(theirs))}
        row[of]["ratio"] = float(np.median(theirs / ours))
    return row


def summarise(results: list[dict]) -> None:
    print(
        "network  trials x bins x neurons  largest difference of a trial (of)  value: ours, dynamax (s), ratio", end=""
    )
    print("  gradient: ours, dynamax (s), ratio")
    for row in results:
        print(f"{row['network']:8s} {row['recording']:24s} {row['difference']:.1e} ({row['size']:.0f} nats)", end="")
        for of in ("value", "gradient"):
            each = row[of]
            print(f"  {each['ours']:.3f}, {each['dynamax']:.3f}, {each['ratio']:.1f}", end="")
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="one small recording that is not stored")
    options = parser.parse_args()
    if options.summary:
        summarise(stored.load(NAME)["results"])
        return
    if importlib.util.find_spec("dynamax") is None:
        summarise([])
        print("skipped: dynamax is not installed; pip install dynamax")
        return
    sizes = {"3 x 20 x 6": (3, 20, 6)} if options.tiny else SIZES
    results = []
    with jax.enable_x64(True):
        for network in NETWORKS:
            for name, size in sizes.items():
                results.append({"recording": name} | compare(network, *size))
                summarise(results[-1:])
    if not options.tiny:
        stored.store(NAME, results=results)


if __name__ == "__main__":
    main()
