"""How near are Laplace's method and SVI to the posterior under Dale's law, and which intervals hold?

    python benchmarks/dales_law_methods.py              run what is not stored yet, and store it
    python benchmarks/dales_law_methods.py --summary    print what is stored
    python benchmarks/dales_law_methods.py --tiny       one network and short chains, which are not stored

Networks of 7 neurons (5 E, 2 I) and rank 1 from the prior of the fit, in 6 trials of 30 bins: eight of each kind fitted
by Laplace's method and SVI, the first two by NUTS as well.
Kinds: rates with noise of 0.1 (softplus or relu; half-normal or log-normal magnitudes; with and without noise in the
latents), and counts with noise in the latents. For W and for whitened coordinates z, against chains of NUTS and in its
standard deviations: root mean square error of the mean, of log sd, and the geometric mean of the ratio of the sds. And
the share of 90% intervals of W that hold the truth.
"""

import argparse
import dataclasses
import time

import numpy as np
import stored

import lrposterior as lrp
from lrposterior.distribution import SampleDistribution

NAME = "dales_law_methods"
TYPES, SCALES, SPREAD, SEEDS = ("E",) * 5 + ("I",) * 2, {"E": 1.5, "I": 6.0}, 0.7, tuple(range(8))
NUM_TRIALS, NUM_BINS, NOISE, LATENT_NOISE, NUM_REFERENCES = 6, 30, 0.1, 0.02, 2
NUTS = lrp.NUTS(num_warmup=300, num_samples=1000, target_accept=0.9)


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is simulated and fitted."""

    nonlinearity: str = "softplus"
    magnitudes: str = "half-normal"
    process_noise: str | None = None
    spikes: bool = False


KINDS = {
    "rates": Kind(),
    "rates, relu": Kind(nonlinearity="relu"),
    "rates, log-normal": Kind(magnitudes="log-normal"),
    "rates, noisy latents": Kind(process_noise="diagonal"),
    "counts, log-normal": Kind(magnitudes="log-normal", process_noise="diagonal", spikes=True),
}


def case(kind: Kind, seed: int, num_trials: int) -> tuple[lrp.LowRankModel, lrp.Recording, np.ndarray]:
    """A model, a recording of a network of its prior, and W."""
    random, number = np.random.default_rng([seed, 5]), len(TYPES)
    inputs = np.repeat(random.standard_normal((num_trials, NUM_BINS // 10, 2)), 10, axis=1)
    normal = random.standard_normal((2, number, 1))
    part, q = (1.0, np.abs(normal)) if kind.magnitudes == "half-normal" else (0.5, np.exp(SPREAD * normal))
    scales = {name: part * scale for name, scale in SCALES.items()}
    signed = np.array([scales[name] if name == "E" else -scales[name] for name in TYPES])
    parameters = {
        "M": q[0],
        "K": signed[:, None] * q[1],
        "B": random.standard_normal((number, 2)),
        "b": 0.5 * random.standard_normal(number),
    }
    if not kind.spikes:
        parameters["noise_scale"] = np.full(number, NOISE)
    if kind.process_noise:
        parameters["process_noise"] = np.array([[LATENT_NOISE]])
    model = lrp.LowRankModel(
        1,
        nonlinearity=kind.nonlinearity,
        observation=lrp.PoissonObservation(20.0) if kind.spikes else lrp.GaussianObservation(of="rate"),
        background=None,
        process_noise=kind.process_noise,
        priors=lrp.DaleLoadings(K=scales, magnitudes=kind.magnitudes, spread=SPREAD, unit=1.0),
    )
    like = lrp.Recording(np.zeros((num_trials, NUM_BINS, number)), 0.02, inputs=inputs, cell_types=TYPES)
    return model, model.simulate(parameters, like, seed=seed), parameters["M"] @ parameters["K"].T / number


def moments(posterior: lrp.Posterior) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation of the entries of W, and of z."""
    of_W = posterior.connectivity_mean().ravel(), posterior.connectivity_sd().ravel()
    distribution = posterior.distribution
    if isinstance(distribution, SampleDistribution):
        draws = distribution.draws.reshape(-1, posterior.space.size)
        return {"W": of_W, "z": (draws.mean(axis=0), draws.std(axis=0))}
    return {"W": of_W, "z": (distribution.location, np.linalg.norm(distribution.scale, axis=1))}


def distances(found: lrp.Posterior, reference: lrp.Posterior) -> dict[str, float]:
    rows = {}
    for name, (mean, spread) in moments(found).items():
        exact, scale = moments(reference)[name]
        ratio = np.log(spread / scale)
        rows[f"mean of {name}"] = float(np.sqrt(np.mean(((mean - exact) / scale) ** 2)))
        rows[f"log sd of {name}"] = float(np.sqrt(np.mean(ratio**2)))
        rows[f"sd ratio of {name}"] = float(np.exp(np.mean(ratio)))
    return rows


def run(name: str, seed: int, sampler: lrp.NUTS = NUTS, num_trials: int = NUM_TRIALS) -> list[dict]:
    model, recording, W = case(KINDS[name], seed, num_trials)
    rows, reference = [], None
    for method in (*([sampler] if seed < NUM_REFERENCES else []), "laplace", "svi"):
        label = method if isinstance(method, str) else "nuts"
        row = {"kind": name, "seed": seed, "method": label}
        started = time.process_time()
        try:
            posterior = lrp.fit(model, recording, method, seed=0, progress=False)
        except lrp.FitError as failure:
            rows.append(row | {"refused": str(failure)})
            continue
        row |= {"seconds": time.process_time() - started, "status": posterior.status}
        row |= dict(posterior.statistics.diagnostics)
        number = sampler.num_chains * sampler.num_samples
        lower, upper = posterior.connectivity_interval(0.9, num_draws=number, seed=1)
        row["cover"] = float(np.mean((lower <= W) & (upper >= W)))
        if label == "nuts":
            reference = posterior
        elif reference is not None:
            row |= distances(posterior, reference)
        rows.append(row)
    return rows


def summarise(results: list[dict]) -> None:
    print("kind                  method   networks refused settled  W: mean, log sd, sd ratio  z", end="")
    print(": mean, log sd, sd ratio  cover of W       seconds")
    for name in KINDS:
        for method in ("nuts", "laplace", "svi"):
            rows = [row for row in results if (row["kind"], row["method"]) == (name, method)]
            done = [row for row in rows if "refused" not in row]
            settled = sum(row["status"] == "converged" for row in done)
            if not done:
                continue
            print(f"{name:21s} {method:8s} {len(rows):8d} {len(rows) - len(done):7d} {settled:7d}", end="")
            for quantity in ("W", "z"):
                keys = [f"{what} of {quantity}" for what in ("mean", "log sd", "sd ratio")]
                known = [[row[key] for key in keys] for row in done if keys[0] in row]
                text = ", ".join(f"{value:.2f}" for value in np.median(known, axis=0)) if known else ""
                print(f"  {text:>24s}", end="")
            cover = np.array([row["cover"] for row in done])
            print(f"  {cover.mean():.3f} +- {cover.std() / np.sqrt(len(cover)):.3f}", end="")
            print(f"  {np.mean([row['seconds'] for row in done]):6.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="one network and short chains; not stored")
    options = parser.parse_args()
    if options.tiny:
        summarise(run("rates", 0, lrp.NUTS(num_warmup=30, num_samples=30, num_chains=1), 3))
        return
    results = stored.load(NAME)["results"] if options.summary or stored.exists(NAME) else []
    done = {(row["kind"], row["seed"]) for row in results}
    for name, seed in [(name, seed) for seed in reversed(SEEDS) for name in KINDS if (name, seed) not in done]:
        if options.summary:
            break
        results += run(name, seed)
        stored.store(NAME, results=results)
    summarise(results)


if __name__ == "__main__":
    main()
