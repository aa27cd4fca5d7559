"""What keeps intervals from holding in the session of the page: likelihood, prior, or the Normal distribution?

    python benchmarks/session_truth.py --fit FIT.nc    of a kept fit: examples/ei_session.py --fits FOLDER keeps it as
                                                       FOLDER/likelihood.nc; takes ten minutes, and stores the results
    python benchmarks/session_truth.py --summary       print what is stored
    python benchmarks/session_truth.py --tiny          a session of four neurons, fitted here; not stored

At the true network the slope s of the log likelihood has mean 0 and the information F as its covariance, if both are
right: s^T F^-1 s over the directions with an eigenvalue of F above 1 is then near their number, and the likelihood at
the mode lies above that at the truth by half of it. To first order the posterior mean is off by S (s - z) there, with
the covariance S = (F + 1)^-1: S s is what the spikes do, and -S z the prior. For either alone and both together, the
share of 90% intervals of W that would hold the truth, were the posterior Normal around there. And of draws of the
fitted posterior: how many nats they lie above the mode, beside half the number of coordinates if it were Normal.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import stored
from scipy.stats import norm

import lrposterior as lrp
from lrposterior.inference.problem import Problem
from lrposterior.precision import double_precision
from lrposterior.simulated_session import DT, INTEGRATION_CONSTANTS, MODEL

NAME, SEED, NUM_DRAWS = "session_truth", 0, 8
KNOWN_WELL = 1.0
PAIRS = (("E", "E"), ("E", "I"), ("I", "E"), ("I", "I"))


@double_precision
def true_coordinates(problem: Problem, truth: lrp.Simulation) -> np.ndarray:
    """(coordinate,) of the true network."""
    named = dict(truth.parameters) | {"time_constant": np.array([DT / INTEGRATION_CONSTANTS[name] for name in "EI"])}
    coordinates = problem.model.coordinates(named, problem.recording.dt)
    return np.asarray(problem.space.whiten(coordinates))


@double_precision
def examine(posterior: lrp.Posterior, truth: lrp.Simulation) -> dict:
    problem = Problem.of(posterior.model, posterior.recording)
    space, types = problem.space, np.array(posterior.recording.cell_types)
    z, mode = true_coordinates(problem, truth), posterior.mode_coordinates
    objective, slope = problem.value_and_gradient(z)
    information = problem.information(z)
    of_likelihood = z - slope
    values, vectors = np.linalg.eigh(information)
    known = values > KNOWN_WELL
    score = (vectors[:, known].T @ of_likelihood) ** 2 / values[known]

    def weights(at: jax.Array) -> jax.Array:
        parameters = space.unwhiten(at)
        return parameters["M"] @ parameters["K"].T / len(types)

    def means(at: jax.Array) -> jax.Array:
        W = weights(at)
        return jnp.stack([W[np.ix_(types == post, types == pre)].mean() for pre, post in PAIRS])

    covariance = np.linalg.inv(information + np.eye(len(z)))
    by_weight = np.asarray(jax.jacobian(lambda at: jnp.ravel(weights(at)))(jnp.asarray(z)))
    by_mean = np.asarray(jax.jacobian(means)(jnp.asarray(z)))
    reach = norm.ppf(0.95) * np.sqrt(np.einsum("ij,jk,ik->i", by_weight, covariance, by_weight))
    shifts = {"spikes": covariance @ of_likelihood, "prior": -covariance @ z}
    shifts["both"] = shifts["spikes"] + shifts["prior"]
    draws = posterior.distribution.sample(NUM_DRAWS, seed=SEED)
    return {
        "coordinates": len(z),
        "known": int(known.sum()),
        "score": float(score.sum()),
        "likelihood": float((objective - 0.5 * z @ z) - (posterior.statistics.objective - 0.5 * mode @ mode)),
        "cover": {name: float(np.mean(np.abs(by_weight @ shift) < reach)) for name, shift in shifts.items()},
        "means": {
            "truth": np.asarray(means(jnp.asarray(z))).tolist(),
            "sd": np.sqrt(np.einsum("ij,jk,ik->i", by_mean, covariance, by_mean)).tolist(),
            **{name: (by_mean @ shift).tolist() for name, shift in shifts.items()},
        },
        "draws": [float(problem.negative_log_density(each) - posterior.statistics.objective) for each in draws],
    }


def tiny() -> tuple[lrp.Posterior, lrp.Simulation]:
    truth = lrp.simulate_session(
        num_trials=20, num_bins=40, num_excitatory=3, num_inhibitory=1, num_inputs=1, num_outliers=0, seed=1
    )
    time_constant = {name: lrp.TimeConstantPrior(2 * DT) for name in "EI"}
    model = dataclasses.replace(MODEL, time_constant=time_constant)
    return lrp.fit(model, truth.recording, seed=0, progress=False), truth


def of_page(path: Path) -> tuple[lrp.Posterior, lrp.Simulation]:
    """A kept fit of the page, and the network of its session."""
    return lrp.load_posterior(path), lrp.simulate_session(num_trials=2, seed=SEED)


def summarise(found: dict) -> None:
    print(f"{found['known']} of {found['coordinates']} directions are known to better than 1 prior standard deviation")
    print(f"score statistic at the truth {found['score']:.0f}, expected {found['known']}")
    print(
        f"likelihood at the mode above that at the truth {found['likelihood']:.0f} nats, expected {found['known'] / 2}"
    )
    print("90% intervals of W, to first order, off by: " + ", ".join(f"{k} {v:.2f}" for k, v in found["cover"].items()))
    for place, (pre, post) in enumerate(PAIRS):
        print(f"mean weight {pre} to {post}: " + ", ".join(f"{k} {v[place]:.4f}" for k, v in found["means"].items()))
    print(f"draws above the mode {np.round(found['draws']).tolist()} nats, expected {found['coordinates'] / 2}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", type=Path, help="a kept fit of the page")
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="a small session, which is not stored")
    options = parser.parse_args()
    if options.summary:
        summarise(stored.load(NAME)["results"])
        return
    if options.tiny:
        summarise(examine(*tiny()))
        return
    if options.fit is None:
        parser.error(
            "--fit: expected a kept fit of the page, got none; make it by examples/ei_session.py --fits FOLDER"
        )
    results = examine(*of_page(options.fit))
    summarise(results)
    stored.store(NAME, results=results)


if __name__ == "__main__":
    main()
