"""What importance weights mend, against long Markov chains.

Small networks with few data are fitted by every method. For all entries of W the table gives the root mean square of
(mean - NUTS's mean) / NUTS's sd and of log(sd / NUTS's sd), and Pareto's k where there are weights.

    python benchmarks/correction.py --neurons 6 --rank 1 --trials 4
    python benchmarks/correction.py --neurons 10 --rank 2 --trials 8
    python benchmarks/correction.py --tiny
"""

import argparse

import numpy as np

import lrposterior as lrp

METHODS = {
    "Laplace, mode": lrp.Laplace(mean="mode"),
    "Laplace": lrp.Laplace(),
    "Laplace, psis": lrp.Laplace("psis"),
    "SVI": lrp.SVI(),
    "SVI, psis": lrp.SVI(correction="psis"),
}


def compare(posterior: lrp.Posterior, reference: lrp.Posterior) -> tuple[float, float]:
    """Root mean square over entries of W of the errors of the mean and of the logarithm of the sd."""
    mean = (posterior.connectivity_mean() - reference.connectivity_mean()) / reference.connectivity_sd()
    spread = np.log(posterior.connectivity_sd() / reference.connectivity_sd())
    return float(np.sqrt(np.mean(mean**2))), float(np.sqrt(np.mean(spread**2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=6)
    parser.add_argument("--rank", type=int, default=1)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--recordings", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="one recording and short chains, to see that all runs")
    options = parser.parse_args()
    model = lrp.LowRankModel(options.rank, priors=lrp.Priors(unit=1.0), background=None)
    num_draws = 100 if options.tiny else 3000
    chains = lrp.NUTS(num_warmup=num_draws // 4, num_samples=num_draws, num_chains=2)
    print("recording | method         | mean  | log sd | Pareto k")
    for seed in range(1 if options.tiny else options.recordings):
        recording = lrp.simulate_recording(
            model, num_neurons=options.neurons, num_trials=options.trials, num_bins=40, noise_scale=0.2, seed=seed
        ).recording
        reference = lrp.fit(model, recording, chains, seed=0, progress=False)
        print(f"{seed:9d} | NUTS           | {reference.status}, {reference.statistics.diagnostics}", flush=True)
        for name, method in METHODS.items():
            try:
                posterior = lrp.fit(model, recording, method, seed=0, progress=False)
            except lrp.FitError as refusal:
                print(f"{seed:9d} | {name:14s} | refused: {str(refusal)[:60]}")
                continue
            mean, spread = compare(posterior, reference)
            pareto_k = posterior.statistics.diagnostics.get("Pareto k", np.nan)
            print(f"{seed:9d} | {name:14s} | {mean:5.2f} | {spread:6.2f} | {pareto_k:5.2f}", flush=True)


if __name__ == "__main__":
    main()
