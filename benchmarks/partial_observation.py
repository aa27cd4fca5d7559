"""Eigenvalues of a network of which only a part was recorded (Qian et al. 2024, doi:10.1101/2024.05.24.595741).

    x[t+1] = (1 - a) x[t] + a W x[t] + sqrt(2 a) noise[t],      W = gain (m_1 n_1^T + m_2 n_2^T)

with m_1, m_2, n_1, n_2 orthonormal, linear, and noise of its own in every neuron: W feeds n_k forward to m_k, and all
its eigenvalues are 0. Whoever takes the recorded neurons for all regresses their next bin on the present one,

    A_recorded = (A C)_oo C_oo^-1,      C = A C A^T + 2 a,      A = (1 - a) + a W,

with o the recorded neurons: the limit of infinitely long recordings. As gain and neurons grow, the eigenvalues of W
that it finds tend to (1 - f) / (1 - f / 2) for a recorded share f.

    python benchmarks/partial_observation.py               measures, prints and stores benchmarks/results/
    python benchmarks/partial_observation.py --summary     prints what is stored
"""

import argparse
import warnings

import numpy as np
import scipy.linalg
import stored

import lrposterior as lrp

NAME = "partial_observation"
DT, TIME_CONSTANT, GAIN = 0.01, 0.1, 100.0
INTEGRATION = DT / TIME_CONSTANT
HEADER = "| recorded | regression | its limit | 90% interval, median | covers 0 | warned | refused |"
SHARES = (0.05, 0.1, 0.5, 1.0)
FITTED_SHARES = (0.1, 0.5)


def network(num_neurons: int, seed: int) -> np.ndarray:
    """W (post, pre), of rank 2 and with eigenvalues 0."""
    patterns = np.linalg.qr(np.random.default_rng(seed).standard_normal((num_neurons, 4)))[0]
    return GAIN * patterns[:, :2] @ patterns[:, 2:].T


def recorded_neurons(num_neurons: int, share: float, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, 1]).permutation(num_neurons)[: round(share * num_neurons)]


def transition(W: np.ndarray) -> np.ndarray:
    return (1.0 - INTEGRATION) * np.eye(len(W)) + INTEGRATION * W


def covariance(W: np.ndarray) -> np.ndarray:
    """(neuron, neuron) that of the currents in the stationary state."""
    return scipy.linalg.solve_discrete_lyapunov(transition(W), 2.0 * INTEGRATION * np.eye(len(W)))


def regressed_eigenvalues(W: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The two leading eigenvalues of W, by real part, for whoever takes the recorded neurons for all."""
    C = covariance(W)
    A = np.linalg.solve(C[np.ix_(chosen, chosen)], (transition(W) @ C)[np.ix_(chosen, chosen)].T).T
    found = np.linalg.eigvals((A - (1.0 - INTEGRATION) * np.eye(len(chosen))) / INTEGRATION).real
    return np.sort(found)[::-1][:2]


def limit(share: float) -> float:
    """The same for a large gain and many neurons."""
    return (1.0 - share) / (1.0 - share / 2.0)


def simulate(W: np.ndarray, num_trials: int, num_bins: int, seed: int) -> np.ndarray:
    """(trial, time, neuron) currents from the stationary state."""
    random, A = np.random.default_rng([seed, 2]), transition(W)
    current = random.standard_normal((num_trials, len(W))) @ np.linalg.cholesky(covariance(W)).T
    currents = np.empty((num_trials, num_bins, len(W)))
    for now in range(num_bins):
        currents[:, now] = current
        noise = np.sqrt(2.0 * INTEGRATION) * random.standard_normal(current.shape)
        current = current @ A.T + noise
    return currents


def fit_leading_eigenvalue(currents: np.ndarray, hidden_neurons: int) -> dict:
    """The central 90% interval of the real part of the leading eigenvalue, and whether `fit` warned, or refused."""
    model = lrp.LowRankModel(
        2,
        time_constant=TIME_CONSTANT,
        nonlinearity="linear",
        background=None,
        initial_state="free",
        process_noise="full",
        hidden_neurons=hidden_neurons,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            posterior = lrp.fit(model, lrp.Recording(currents, DT), lrp.Laplace(mean="mode"), seed=0, progress=False)
        except lrp.FitError as refusal:
            return {"refused": str(refusal)}
    leading = posterior.eigenvalues(400, seed=0)[:, 0].real
    warned = any("eigenvalues of W" in str(each.message) for each in caught)
    return {"interval": np.quantile(leading, [0.05, 0.95]).tolist(), "warned": warned}


def measure(num_networks: int, num_neurons: int, num_trials: int, num_bins: int) -> dict:
    shares = [share for share in SHARES if round(share * num_neurons) >= 2]
    regressed = {
        str(share): np.mean(
            [
                regressed_eigenvalues(network(num_neurons, seed), recorded_neurons(num_neurons, share, seed))
                for seed in range(num_networks)
            ],
            axis=0,
        ).tolist()
        for share in shares
    }
    fits: dict[str, list] = {str(share): [] for share in FITTED_SHARES}
    for share in FITTED_SHARES:
        for seed in range(num_networks):
            W, chosen = network(num_neurons, seed), recorded_neurons(num_neurons, share, seed)
            currents = simulate(W, num_trials, num_bins, seed)[:, :, chosen]
            fits[str(share)].append(fit_leading_eigenvalue(currents, num_neurons - len(chosen)))
            print(f"{share:.0%} recorded, network {seed}: {fits[str(share)][-1]}", flush=True)
    size = f"{num_neurons} neurons, {num_trials} trials of {num_bins} bins"
    return {"size": size, "regressed": regressed, "fits": fits}


def summarise(results: dict) -> str:
    lines = [results["size"], "", HEADER, "|---|---|---|---|---|---|---|"]
    for share, values in results["regressed"].items():
        cells = [f"{float(share):.0%}", ", ".join(f"{value:.2f}" for value in values), f"{limit(float(share)):.2f}"]
        fits = results["fits"].get(share)
        if fits is None:
            cells += [""] * 4
        else:
            kept = [each for each in fits if "interval" in each]
            low, high = np.median([each["interval"] for each in kept], axis=0) if kept else (np.nan, np.nan)
            covers = sum(each["interval"][0] <= 0.0 <= each["interval"][1] for each in kept)
            cells += [
                f"{low:.2f} to {high:.2f}",
                f"{covers} of {len(kept)}",
                f"{sum(each['warned'] for each in kept)} of {len(kept)}",
                f"{len(fits) - len(kept)} of {len(fits)}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--neurons", type=int, default=200)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--bins", type=int, default=200)
    parser.add_argument("--tiny", action="store_true", help="a test of seconds; stores nothing")
    options = parser.parse_args()
    if options.summary:
        print(summarise(stored.load(NAME)))
        return
    if options.tiny:
        print(summarise(measure(num_networks=1, num_neurons=40, num_trials=4, num_bins=40)))
        return
    results = measure(options.networks, options.neurons, options.trials, options.bins)
    stored.store(NAME, **results)
    print(summarise(results))


if __name__ == "__main__":
    main()
