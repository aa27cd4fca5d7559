"""How wide the posterior is on networks whose loadings depend on each other, as they do in trained networks.

True networks are those of `benchmarks/perturbation.py`: K = M diag(1.25, 1) + 0.9 x, B = 0.5 M + 0.7 x'. Each is fitted
with `CorrelatedLoadings` and with the independent `Priors`, without a bulk, which the truth does not have. Under a
right posterior z-scores, (truth - posterior mean) / posterior sd, have standard deviation 1 and 90% intervals cover
0.9. The table has them for 20,000 entries of W, and for responses to stimulations of ten neurons, in the latent plane,
and off the manifold; the inferred scale of the residuals of K beside that in the true network (times the root mean
square of its M, which the prior puts at 1); and the log evidence.

    python benchmarks/loadings.py --neurons 100 --networks 6
    python benchmarks/loadings.py --neurons 1000 --networks 1 --conditions 24
    python benchmarks/loadings.py --tiny
"""

import argparse
import dataclasses

import numpy as np
from perturbation import DT, HIGHEST, LOWEST, NUM_BINS, NUM_DRAWS, ONSET, TAU, TINY, Size, make_candidates, make_truth
from perturbation import respond as respond_to

import lrposterior as lrp
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.prediction import predict_responses

NUM_ENTRIES = 20_000
PRIORS = {"correlated": lrp.CorrelatedLoadings(), "independent": lrp.Priors()}


@dataclasses.dataclass(frozen=True)
class Widths:
    """Of one fit; every z-score and cover is over entries or responses."""

    z_entries: float
    cover_entries: float
    z_responses: float
    cover_responses: float
    K_scale: float
    true_K_scale: float
    log_evidence: float


def residual_scale(truth: dict[str, np.ndarray]) -> float:
    """Root mean square of what the regression of the true K on M, B and b leaves over."""
    loadings = np.concatenate([truth["M"], truth["B"]], axis=1)
    residual = truth["K"] - loadings @ np.linalg.lstsq(loadings, truth["K"], rcond=None)[0]
    return float(np.sqrt(np.sum(residual**2) / (residual.size - loadings.shape[1] * residual.shape[1])))


def measure(posterior: lrp.Posterior, truth: dict[str, np.ndarray], candidates: lrp.Candidates, seed: int) -> Widths:
    size = posterior.recording.num_neurons
    post, pre = np.random.default_rng([seed, 5]).integers(0, size, (2, NUM_ENTRIES))
    mean, sd = posterior.connectivity_entries(post, pre)
    z = (np.sum(truth["M"][post] * truth["K"][pre], axis=1) / size - mean) / sd
    window = (ONSET * DT, NUM_BINS * DT)
    squares_of_z, covered = [], []
    for candidate in range(candidates.num_candidates):
        # One at a time: the draws of a response to a thousand neurons take two gigabytes.
        one = candidates.select([candidate])
        true = respond_to(posterior.model, truth, make_experiment(posterior, one, None, window))[0]
        draws = predict_responses(posterior, one, window=window, num_draws=NUM_DRAWS, seed=seed).reshape(NUM_DRAWS, -1)
        moved = true != 0.0  # the first bins of the response are zero by construction
        draws, true = draws[:, moved], true[moved]
        below = np.sum(draws < true, axis=0)
        squares_of_z.append(((true - draws.mean(axis=0)) / draws.std(axis=0)) ** 2)
        covered.append((below >= LOWEST) & (below <= HIGHEST))
    scales = posterior.statistics.scales
    K_scale = scales["K"][0] if "K" in scales else np.nan
    return Widths(
        z_entries=float(np.sqrt(np.mean(z**2))),
        cover_entries=float(np.mean(np.abs(z) < 1.645)),
        z_responses=float(np.sqrt(np.mean(np.concatenate(squares_of_z)))),
        cover_responses=float(np.mean(np.concatenate(covered))),
        K_scale=K_scale,
        true_K_scale=residual_scale(truth) * float(np.sqrt(np.mean(truth["M"] ** 2))),
        log_evidence=np.nan if posterior.statistics.log_evidence is None else posterior.statistics.log_evidence,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=100)
    parser.add_argument("--conditions", type=int, default=8, help="directions of the cue, one trial each")
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--tiny", action="store_true", help="a small network, to see that everything runs")
    options = parser.parse_args()
    size = TINY if options.tiny else Size(options.neurons, options.conditions, num_per_class=(15, 15, 15, 0))
    fields = [field.name for field in dataclasses.fields(Widths)]
    print(f"{size.num_neurons} neurons, {size.num_conditions} trials of {NUM_BINS} bins")
    print("network  priors       " + "".join(f"{name:>16}" for name in fields))
    found: dict[str, list[Widths]] = {name: [] for name in PRIORS}
    for seed in range(1 if options.tiny else options.networks):
        truth, recording = make_truth(size, seed, None)
        candidates, _ = make_candidates(recording, size, seed)
        for name, priors in PRIORS.items():
            model = lrp.LowRankModel(rank=2, time_constant=TAU, background=None, priors=priors)
            posterior = lrp.fit(model, recording, seed=seed, progress=False)
            widths = measure(posterior, truth, candidates, seed)
            found[name].append(widths)
            row = "".join(f"{value:16.2f}" for value in dataclasses.astuple(widths))
            print(f"{seed:7d}  {name:12s} {row}", flush=True)
    for name, several in found.items():
        values = np.array([dataclasses.astuple(each) for each in several])
        print(
            f"{name}: z-scores of entries {np.sqrt(np.mean(values[:, 0] ** 2)):.2f} and of responses "
            f"{np.sqrt(np.mean(values[:, 2] ** 2)):.2f} (root mean square over networks), 90% cover "
            f"{values[:, 1].mean():.2f} and {values[:, 3].mean():.2f}"
        )


if __name__ == "__main__":
    main()
