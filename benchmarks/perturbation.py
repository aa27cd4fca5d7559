"""Are perturbations as predictable as the posterior says?

Networks of known connectivity (N = 100, rank 2, K correlated with M) are recorded and fitted; 170 perturbations that
the recording never saw are predicted and compared with the truth. Four classes of patterns, all of norm sqrt(10) for 5
bins: ten-neuron ensembles, directions of the two leading principal components ("latent"), directions orthogonal to all
that the activity visits ("off-manifold"), and mixtures of the last two. The response is that without feed-through.

For every class the table gives

- the median R² of the prediction at the mode and of the posterior mean, against the baseline "no response", and the
  median expected R² (with its standard deviation over candidates);
- the R² of the posterior mean for the class as a whole, and its expectation: under a correct posterior they agree;
- the squared error over the posterior spread: 1 if the posterior is right, less if it is too wide;
- the share of responses (per condition, bin and neuron) within the central 90% interval;
- the median R² of a "twin", a network fitted from a random start by least squares, without a prior.

The ranking is judged by Spearman correlations over all candidates, of certainty with R² and of posterior spread with
error, each beside its ceiling: the same with draws of the posterior in the place of the truth.

    python benchmarks/perturbation.py --networks 2
    python benchmarks/perturbation.py --networks 5 --matched --no-twins    # truths drawn from the priors
    python benchmarks/perturbation.py --tiny
"""

import argparse
import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.stats

import lrposterior as lrp
from lrposterior.perturbation.experiment import Experiment, make_experiment
from lrposterior.perturbation.prediction import predict_responses
from lrposterior.perturbation.responses import response_draws
from lrposterior.precision import double_precision

DT, TAU, NUM_BINS = 0.01, 0.05, 60
ONSET, NUM_STIMULATED = 30, 5
NOISE = 0.1 / np.sqrt(5.0)
NUM_DRAWS = 299  # ranks of a truth among 299 draws: exactly 90% of them lie from 15 to 284
LOWEST, HIGHEST = 15, 284
CLASSES = ("random", "latent", "off-manifold", "mixture")


@dataclasses.dataclass(frozen=True)
class Size:
    num_neurons: int = 100
    num_conditions: int = 8
    num_per_class: tuple[int, ...] = (50, 30, 30, 60)
    ensemble: int = 10
    twin_iterations: int = 3000


TINY = Size(num_neurons=20, num_conditions=4, num_per_class=(4, 3, 3, 4), ensemble=4, twin_iterations=200)


def make_truth(size: Size, seed: int, priors: lrp.Priors | None) -> tuple[dict[str, np.ndarray], lrp.Recording]:
    """A network with loadings that depend on each other, or drawn from the priors."""
    random = np.random.default_rng(seed)
    shape = (size.num_neurons, 2)
    M, K, B = random.standard_normal((3, *shape))
    b = np.zeros(size.num_neurons)
    if priors is None:
        M *= 1.3
        K, B = M * np.array([1.25, 1.0]) + 0.9 * K, 0.5 * M + 0.7 * B
    else:
        M, K, B = priors.M * M, priors.K * K, priors.B * B
        b = priors.b * random.standard_normal(size.num_neurons)
    angles = 2.0 * np.pi * np.arange(size.num_conditions) / size.num_conditions
    inputs = np.zeros((size.num_conditions, NUM_BINS, 2))
    inputs[:, 3:13] = np.stack([np.cos(angles), np.sin(angles)], axis=1)[:, None]
    parameters = {
        "M": M,
        "K": K,
        "B": B,
        "b": b,
        "noise_scale": np.full(size.num_neurons, NOISE),
        "time_constant": np.asarray(TAU),
    }
    trials = lrp.Recording(np.zeros((size.num_conditions, NUM_BINS, size.num_neurons)), DT, inputs=inputs)
    return parameters, lrp.LowRankModel(rank=2, time_constant=TAU, background=None, priors=lrp.Priors()).simulate(
        parameters, trials, seed=seed
    )


def make_candidates(recording: lrp.Recording, size: Size, seed: int) -> tuple[lrp.Candidates, np.ndarray]:
    """The candidates and the class of each."""
    random = np.random.default_rng([seed, 7])
    num_random, num_latent, num_off, num_mixed = size.num_per_class
    activity = recording.activity.reshape(-1, recording.num_neurons)
    _, values, rows = np.linalg.svd(activity - activity.mean(axis=0), full_matrices=False)
    plane = rows[:2]
    # Components above the noise: the largest singular value of pure noise is sd (sqrt(samples) + sqrt(neurons)).
    visited = rows[values > NOISE * (np.sqrt(len(activity)) + np.sqrt(recording.num_neurons))]

    def off_manifold(count: int) -> np.ndarray:
        patterns = random.standard_normal((count, recording.num_neurons))
        return unit(patterns - patterns @ visited.T @ visited)

    ensembles = np.zeros((num_random, recording.num_neurons))
    for pattern in ensembles:
        pattern[random.choice(recording.num_neurons, size.ensemble, replace=False)] = 1.0
    latents = unit(random.standard_normal((num_latent, 2))) @ plane
    angle = np.linspace(0.0, np.pi / 2, num_mixed + 2)[1:-1, None]
    mixtures = np.cos(angle) * (unit(random.standard_normal((num_mixed, 2))) @ plane) + np.sin(angle) * off_manifold(
        num_mixed
    )
    patterns = np.concatenate([unit(ensembles), latents, off_manifold(num_off), mixtures])
    power = 10.0 * NUM_STIMULATED * DT  # patterns of norm sqrt(10)
    candidates = lrp.pattern_candidates(
        recording, patterns, power=power, onset=ONSET * DT, duration=NUM_STIMULATED * DT
    )
    return candidates, np.repeat(CLASSES, size.num_per_class)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_twins(
    model: lrp.LowRankModel, recording: lrp.Recording, max_iterations: int
) -> Callable[[int], tuple[dict[str, np.ndarray], float]]:
    """What makes a network from a seed: by least squares from a random start, and its R² on the activity."""
    space = model.for_recording(recording).space_for(recording)
    fitted = ("M", "K", "B", "b")
    shapes = [space[name].shape for name in fitted]
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])
    data = double_precision(lambda: model.data(recording))()
    others = {"noise_scale": np.full(recording.num_neurons, NOISE), "time_constant": np.asarray(TAU)}

    def unpack(vector: jax.Array) -> dict[str, jax.Array]:
        parts = [part.reshape(shape) for part, shape in zip(jnp.split(vector, ends[:-1]), shapes, strict=True)]
        return dict(zip(fitted, parts, strict=True))

    @jax.jit
    @jax.value_and_grad
    def loss(vector: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum((model.rates(unpack(vector), data) - data.activity) ** 2) / NOISE**2

    @double_precision
    def make(seed: int) -> tuple[dict[str, np.ndarray], float]:
        start = space.unwhiten(np.random.default_rng([seed, 8]).standard_normal(space.size))
        found = scipy.optimize.minimize(
            lambda vector: tuple(np.asarray(value) for value in loss(jnp.asarray(vector))),
            np.concatenate([np.ravel(start[name]) for name in fitted]),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": max_iterations, "maxfun": 2 * max_iterations, "maxcor": 30},
        )
        parameters = unpack(jnp.asarray(found.x))
        residual = np.asarray(model.rates(parameters, data)) - recording.activity
        r2 = 1.0 - np.sum(residual**2) / np.sum((recording.activity - recording.activity.mean()) ** 2)
        return parameters | others, float(r2)

    return make


def respond(model: lrp.LowRankModel, parameters: dict[str, np.ndarray], experiment: Experiment) -> np.ndarray:
    """(candidate, response) of one network."""
    draw = {name: np.asarray(value)[None] for name, value in parameters.items()}
    response = response_draws(model, draw, experiment, "current")[0]
    return response.reshape(len(response), -1)


def squares(rows: np.ndarray) -> np.ndarray:
    return np.sum(rows**2, axis=-1)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All (candidate,), except for the ceilings: lists of Spearman correlations."""

    r2_mode: np.ndarray
    r2_mean: np.ndarray
    expected_r2: np.ndarray
    error: np.ndarray
    spread: np.ndarray
    power: np.ndarray
    coverage: np.ndarray
    ceiling_of_certainty: list[float]
    ceiling_of_spread: list[float]


def compare(
    posterior: lrp.Posterior, truth: dict, candidates: lrp.Candidates, seed: int, chunk: int = 10
) -> Comparison:
    window = (ONSET * DT, NUM_BINS * DT)
    experiment = make_experiment(posterior, candidates, None, window)
    model = posterior.model
    q_true, q_mode = (respond(model, parameters, experiment) for parameters in (truth, posterior.mode))
    draws_as_truth = 40
    mean, variance, coverage = np.empty_like(q_true), np.empty_like(q_true), np.empty(len(q_true))
    errors, powers = np.empty((2, draws_as_truth, len(q_true)))
    for start in range(0, len(q_true), chunk):
        rows = slice(start, start + chunk)
        draws = predict_responses(posterior, candidates.select(rows), window=window, num_draws=NUM_DRAWS, seed=seed)
        draws = draws.reshape(*draws.shape[:2], -1)
        mean[rows], variance[rows] = draws.mean(axis=0), draws.var(axis=0, ddof=1)
        below = np.sum(draws < q_true[rows], axis=0)
        moved = q_true[rows] != 0.0  # the first two bins of the response are zero by construction
        coverage[rows] = np.sum((below >= LOWEST) & (below <= HIGHEST) & moved, axis=1) / np.sum(moved, axis=1)
        # A draw as the truth: the prediction is the mean of the others.
        left_out = (NUM_DRAWS * mean[rows] - draws[:draws_as_truth]) / (NUM_DRAWS - 1)
        errors[:, rows], powers[:, rows] = squares(draws[:draws_as_truth] - left_out), squares(draws[:draws_as_truth])
    spread = variance.sum(axis=1)
    mean_power = np.maximum(squares(mean) - spread / NUM_DRAWS, 0.0)
    expected_r2 = mean_power / (mean_power + spread)
    error, power = squares(q_true - mean), squares(q_true)

    def spearman(one: np.ndarray, other: np.ndarray) -> float:
        return float(scipy.stats.spearmanr(one, other).statistic)

    return Comparison(
        r2_mode=1.0 - squares(q_true - q_mode) / power,
        r2_mean=1.0 - error / power,
        expected_r2=expected_r2,
        error=error,
        spread=spread,
        power=power,
        coverage=coverage,
        ceiling_of_certainty=[spearman(expected_r2, 1.0 - e / p) for e, p in zip(errors, powers, strict=True)],
        ceiling_of_spread=[spearman(spread, e) for e in errors],
    )


def report(name: str, comparison: Comparison, twin_r2: np.ndarray, classes: np.ndarray) -> None:
    print(f"\n{name}")
    print("                  median R²                     | all together       | error² /  | 90%    | twin's")
    print("class          n   mode   mean   expected (std) |    R²    expected  | spread²   | cover  | median R²")
    for label in (*CLASSES, "all"):
        rows = classes == label if label != "all" else np.ones(len(classes), dtype=bool)
        error, spread, power = (each[rows].sum() for each in (comparison.error, comparison.spread, comparison.power))
        predicted = (comparison.spread / np.maximum(1.0 - comparison.expected_r2, 1e-12))[rows].sum()
        print(
            f"{label:13s}{rows.sum():4d} {np.median(comparison.r2_mode[rows]):6.2f} "
            f"{np.median(comparison.r2_mean[rows]):6.2f} {np.median(comparison.expected_r2[rows]):9.2f} "
            f"({comparison.expected_r2[rows].std():.2f}) | {1 - error / power:6.2f} {1 - spread / predicted:9.2f}   | "
            f"{error / spread:7.2f}   | {comparison.coverage[rows].mean():5.2f}  | {np.median(twin_r2[rows]):8.2f}"
        )
    for title, predictor, outcome, ceiling in (
        ("certainty and R²", comparison.expected_r2, comparison.r2_mean, comparison.ceiling_of_certainty),
        ("spread and error", comparison.spread, comparison.error, comparison.ceiling_of_spread),
    ):
        found = scipy.stats.spearmanr(predictor, outcome).statistic
        print(f"Spearman of {title}: {found:.2f}, ceiling {np.mean(ceiling):.2f} (sd {np.std(ceiling):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=2, help="how many networks to fit")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first network")
    parser.add_argument("--prior-K", type=float, default=lrp.Priors().K, help="prior sd of the right factors")
    parser.add_argument("--matched", action="store_true", help="draw the true networks from the priors")
    parser.add_argument("--no-twins", action="store_true", help="leave the twins out")
    parser.add_argument("--tiny", action="store_true", help="a small network, to see that everything runs")
    options = parser.parse_args()
    size = TINY if options.tiny else Size()
    priors = lrp.Priors(K=options.prior_K)
    model = lrp.LowRankModel(rank=2, time_constant=TAU, priors=priors, background=None)
    found, twins, classes = [], [], np.empty(0)
    for seed in range(options.seed, options.seed + (1 if options.tiny else options.networks)):
        started = time.perf_counter()
        truth, recording = make_truth(size, seed, priors if options.matched else None)
        candidates, classes = make_candidates(recording, size, seed)
        posterior = lrp.fit(model, recording, seed=seed, progress=False)
        comparison = compare(posterior, truth, candidates, seed)
        twin_r2, on_activity = np.full(len(classes), np.nan), np.nan
        if not options.no_twins:
            twin, on_activity = make_twins(model, recording, size.twin_iterations)(seed)
            experiment = make_experiment(posterior, candidates, None, (ONSET * DT, NUM_BINS * DT))
            q_true, q_twin = (respond(model, parameters, experiment) for parameters in (truth, twin))
            twin_r2 = 1.0 - squares(q_true - q_twin) / squares(q_true)
        evidence = posterior.statistics.log_evidence
        heading = (
            f"network {seed} ({posterior.status}, log evidence {np.nan if evidence is None else evidence:.1f} nats, "
            f"twin's R² on the activity {on_activity:.3f}, {time.perf_counter() - started:.0f} s)"
        )
        report(heading, comparison, twin_r2, classes)
        found.append(comparison)
        twins.append(twin_r2)
    if len(found) > 1:
        fields = {
            field.name: np.concatenate([np.asarray(getattr(each, field.name)) for each in found])
            for field in dataclasses.fields(Comparison)
        }
        name = f"all {len(found)} networks together, prior sd of K {options.prior_K:g}"
        report(name, Comparison(**fields), np.concatenate(twins), np.tile(classes, len(found)))


if __name__ == "__main__":
    main()
