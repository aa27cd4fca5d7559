"""Is the posterior right? Simulation-based calibration of every method (Talts et al. 2018, arXiv:1804.06788).

Networks are drawn from the prior, recorded and fitted with the same prior. Then the truth of any quantity is one more
draw from its posterior, and its rank among the draws is uniform. For every quantity the empirical distribution function
of the ranks is compared with the 95% simultaneous band of Säilynoja, Bürkner and Vehtari (2022,
doi:10.1007/s11222-022-10090-6), as ArviZ computes it. Entries of W of one network depend on each other, so there is a
small fixed set of quantities, each with a band of its own: a right method leaves each with probability 0.05.

- two entries of W, one of them on the diagonal, and the Frobenius norm of W;
- the modulus and the real part of the eigenvalue of largest modulus, and the modulus of the other one;
- the response to a stimulation (five bins, in the first trial), averaged over 15 bins from its onset: of one neuron
  to another one, of one neuron to an ensemble of four others, and of the mean over the neurons outside the ensemble;
- the log likelihood of the recording: the number of directions in which the posterior is as wide as it should be.

Recordings: rank 2, tanh, time constant 0.1 s, 12 trials of 60 bins of 20 ms, 2 inputs of smooth noise, noise scales
around 0.15 (log-normal, 0.10 to 0.22), all else from the default priors. A fit that refuses (`FitError`) leaves no
rank; their number is part of the result, because the ranks of the others need not be uniform.

Results are stored after every simulation in benchmarks/results, and a second call goes on where the first one ended.

    python benchmarks/calibration.py --method laplace
    python benchmarks/calibration.py --method nuts --neurons 10 --simulations 100
    python benchmarks/calibration.py --summary --figure docs/images/calibration.png
    python benchmarks/calibration.py --method laplace --tiny
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from arviz_stats.ecdf_utils import ecdf_pit

import lrposterior as lrp
from lrposterior.plots.style import GREY, PALETTE, save_figure, styled
from lrposterior.rollouts import simulate_draws

RESULTS = Path(__file__).parent / "results"
# One model for all recordings: its unit is a number, so that nothing is compiled twice.
MODEL = lrp.LowRankModel(rank=2, priors=lrp.Priors(noise_scale=0.15, noise_spread=0.2, unit=1.0), background=None)
METHODS: dict[str, lrp.Laplace | lrp.SVI | lrp.NUTS] = {
    "laplace": lrp.Laplace(),
    "laplace_mode": lrp.Laplace(mean="mode"),
    "svi_full": lrp.SVI("full"),
    "svi_low_rank": lrp.SVI("low_rank"),
    "svi_mean_field": lrp.SVI("mean_field"),
    "nuts": lrp.NUTS(num_warmup=400, num_samples=1000, num_chains=1),
}
TINY: dict[str, lrp.Laplace | lrp.SVI | lrp.NUTS] = METHODS | {
    **{f"svi_{guide}": lrp.SVI(guide, num_steps=100) for guide in ("full", "low_rank", "mean_field")},
    "nuts": lrp.NUTS(num_warmup=10, num_samples=100, num_chains=1),
}
NUM_DRAWS, NUM_CHAIN_DRAWS = 299, 99  # of a chain a tenth, which are nearly independent
STIMULUS, ONSET, NUM_STIMULATED, WINDOW = 2.0, 20, 5, 15
PROBABILITY, NUM_BAND_SIMULATIONS = 0.95, 4000
GROUPS = {
    "connectivity": ("W[0, 1]", "W[2, 2]", "norm of W"),
    "eigenvalues": ("modulus 1", "real part 1", "modulus 2"),
    "responses": ("one to one", "four to one", "four to others"),
    "fit": ("log likelihood",),
}
QUANTITIES = tuple(name for group in GROUPS.values() for name in group)


@dataclasses.dataclass(frozen=True)
class Setting:
    method: str
    num_neurons: int = 20
    num_trials: int = 12
    num_bins: int = 60

    @property
    def path(self) -> Path:
        return RESULTS / f"calibration_{self.method}_{self.num_neurons}x{self.num_trials}x{self.num_bins}.json"


def quantities(parameters: dict[str, np.ndarray], recording: lrp.Recording) -> dict[str, np.ndarray]:
    """(draw,) every quantity of draws of the parameters."""
    M, K = parameters["M"], parameters["K"]
    W = M @ np.swapaxes(K, 1, 2) / recording.num_neurons
    eigenvalues = np.linalg.eigvals(np.swapaxes(K, 1, 2) @ M / recording.num_neurons)
    order = np.argsort(-np.abs(eigenvalues), axis=1)
    leading, other = np.take_along_axis(eigenvalues, order, axis=1).T
    rates = simulate_draws(MODEL, parameters, recording, quantity="rate")
    scale = parameters["noise_scale"][:, None, None, :]
    log_likelihood = np.sum(-0.5 * ((recording.activity - rates) / scale) ** 2 - np.log(scale), axis=(1, 2, 3))
    one, four = (respond(parameters, recording, rates[:, 0], stimulated) for stimulated in (slice(0, 1), slice(0, 4)))
    return {
        "W[0, 1]": W[:, 0, 1],
        "W[2, 2]": W[:, 2, 2],
        "norm of W": np.linalg.norm(W, axis=(1, 2)),
        "modulus 1": np.abs(leading),
        "real part 1": leading.real,
        "modulus 2": np.abs(other),
        "one to one": one[:, 5],
        "four to one": four[:, 5],
        "four to others": four[:, 4:].mean(axis=1),
        "log likelihood": log_likelihood,
    }


def respond(
    parameters: dict[str, np.ndarray], recording: lrp.Recording, unperturbed: np.ndarray, stimulated: slice
) -> np.ndarray:
    """(draw, neuron) mean change of the rates in the first trial."""
    stimulation = np.zeros((1, *recording.activity.shape[1:]))
    stimulation[:, ONSET : ONSET + NUM_STIMULATED, stimulated] = STIMULUS
    trial = lrp.Recording(recording.activity[:1], recording.dt, inputs=recording.inputs[:1], stimulation=stimulation)
    change = simulate_draws(MODEL, parameters, trial, quantity="rate")[:, 0] - unperturbed
    return change[:, ONSET : ONSET + WINDOW].mean(axis=1)


def simulate_and_fit(setting: Setting, method: lrp.Laplace | lrp.SVI | lrp.NUTS, seed: int) -> dict:
    """The ranks of one truth among the draws of its posterior, or the reason why there is none."""
    truth = lrp.simulate_recording(
        MODEL, num_neurons=setting.num_neurons, num_trials=setting.num_trials, num_bins=setting.num_bins, seed=seed
    )
    started = time.perf_counter()
    try:
        posterior = lrp.fit(MODEL, truth.recording, method, seed=seed, progress=False)
    except lrp.FitError as refusal:
        return {"seed": seed, "refused": str(refusal)}
    seconds = time.perf_counter() - started
    num_draws = NUM_CHAIN_DRAWS if isinstance(method, lrp.NUTS) else NUM_DRAWS
    draws = quantities(posterior.sample_parameters(num_draws, seed=seed), truth.recording)
    true = quantities({name: np.asarray(value)[None] for name, value in truth.parameters.items()}, truth.recording)
    return {
        "seed": seed,
        "status": posterior.status,
        "seconds": round(seconds, 2),
        "num_draws": num_draws,
        "diagnostics": {name: round(float(value), 4) for name, value in posterior.statistics.diagnostics.items()},
        "below": {name: int(np.sum(draws[name] < true[name])) for name in QUANTITIES},
        "error": {
            name: round(float((true[name][0] - draws[name].mean()) / draws[name].std()), 4) for name in QUANTITIES
        },
    }


def load(setting: Setting) -> list[dict]:
    if not setting.path.exists():
        return []
    return json.loads(setting.path.read_text(encoding="utf-8"))["simulations"]


def store(setting: Setting, simulations: list[dict]) -> None:
    """All or nothing, so that the program can be stopped at any time."""
    setting.path.parent.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(simulation) for simulation in simulations)
    temporary = setting.path.with_suffix(".tmp")
    header = json.dumps(dataclasses.asdict(setting))
    temporary.write_text(f'{{"setting": {header},\n"simulations": [\n{lines}\n]}}\n', encoding="utf-8")
    os.replace(temporary, setting.path)


def run(setting: Setting, num_simulations: int) -> None:
    simulations = load(setting)
    for seed in range(len(simulations), num_simulations):
        simulations.append(simulate_and_fit(setting, METHODS[setting.method], seed))
        store(setting, simulations)
        print(f"{setting.path.stem}: {seed + 1} of {num_simulations}", flush=True)


def ranks(simulations: Iterable[dict], quantity: str) -> np.ndarray:
    """(simulation,) ranks as numbers in (0, 1), uniform under a right posterior: the gaps between draws are filled."""
    kept = [simulation for simulation in simulations if "below" in simulation]
    gap = np.random.default_rng(QUANTITIES.index(quantity)).uniform(size=len(kept))
    return np.array([(one["below"][quantity] + u) / (one["num_draws"] + 1) for one, u in zip(kept, gap, strict=True)])


@dataclasses.dataclass(frozen=True, eq=False)
class Band:
    """The distribution function of ranks minus that of the uniform distribution, and its simultaneous 95% band."""

    at: np.ndarray
    difference: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @classmethod
    def of(cls, ranks: np.ndarray) -> "Band":
        at, ecdf, lower, upper = ecdf_pit(ranks, PROBABILITY, NUM_BAND_SIMULATIONS, rng=np.random.default_rng(0))
        return cls(at, ecdf - at, lower - at, upper - at)

    @property
    def holds(self) -> bool:
        return bool(np.all((self.lower <= self.difference) & (self.difference <= self.upper)))

    @property
    def excess(self) -> float:
        """How far the function leaves the band, at most."""
        return float(np.max(np.maximum(self.lower - self.difference, self.difference - self.upper).clip(0.0)))


def summarise(setting: Setting, simulations: list[dict]) -> str:
    """A table of every quantity: does it stay in the band, bias and spread of the errors, and cover of intervals."""
    fitted = [simulation for simulation in simulations if "below" in simulation]
    unconverged = sum(simulation["status"] != "converged" for simulation in fitted)
    lines = [
        f"{setting.method}, {setting.num_neurons} neurons, {setting.num_trials} trials x {setting.num_bins} bins: "
        f"{len(simulations)} simulations, {len(simulations) - len(fitted)} refused, {unconverged} not converged, "
        f"median {np.median([one['seconds'] for one in fitted]):.1f} s",
        "quantity        | in band | leaves by | error / sd: mean, sd | 50%, 90% cover",
    ]
    for name in QUANTITIES:
        rank, error = ranks(simulations, name), np.array([one["error"][name] for one in fitted])
        band = Band.of(rank)
        half, most = (np.mean(np.abs(rank - 0.5) < 0.5 * mass) for mass in (0.5, 0.9))
        lines.append(
            f"{name:15s} | {'yes' if band.holds else 'NO':7s} | {band.excess:9.3f} | "
            f"{error.mean():11.2f}, {error.std():6.2f} | {half:6.2f}, {most:.2f}"
        )
    return "\n".join(lines)


@styled
def plot(stored: list[tuple[Setting, list[dict]]]) -> plt.Figure:
    """A column for every method, a row for every group of quantities."""
    figure, axes = plt.subplots(
        len(GROUPS), len(stored), figsize=(1.9 * len(stored), 7.5), sharex=True, sharey=True, squeeze=False
    )
    shade = {"color": GREY, "alpha": 0.25, "linewidth": 0.0}
    for column, (setting, simulations) in enumerate(stored):
        count = sum("below" in simulation for simulation in simulations)
        title = setting.method.replace("svi_", "SVI, ").replace("_", " ")
        title = (
            title.replace("laplace mode", "Laplace at the mode").replace("laplace", "Laplace").replace("nuts", "NUTS")
        )
        axes[0, column].set_title(f"{title}\nN = {setting.num_neurons}, {count} fits")
        for row, names in enumerate(GROUPS.values()):
            for color, name in zip(PALETTE, names, strict=False):
                band = Band.of(ranks(simulations, name))
                axes[row, column].plot(band.at, band.difference, color=color, label=name, drawstyle="steps-post")
            axes[row, column].fill_between(band.at, band.lower, band.upper, step="post", **shade)
            axes[row, column].axhline(0.0, color=GREY, linewidth=0.6)
            if column == 0:
                axes[row, 0].set_ylabel("ECDF - uniform")
                axes[row, 0].legend(loc="lower left", fontsize=6.5, handlelength=1.0, borderpad=0.1)
        axes[-1, column].set_xlabel("rank of the truth")
    return figure


def stored_settings() -> list[tuple[Setting, list[dict]]]:
    """What lies in the folder of results, in the order of the methods."""
    found = []
    for path in RESULTS.glob("calibration_*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        found.append((Setting(**content["setting"]), content["simulations"]))
    order = tuple(METHODS)
    return sorted(found, key=lambda each: (-each[0].num_neurons, -each[0].num_trials, order.index(each[0].method)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=tuple(METHODS), help="what to calibrate")
    parser.add_argument("--simulations", type=int, default=300, help="how many in all, with those that are stored")
    parser.add_argument("--neurons", type=int, default=20)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--summary", action="store_true", help="tables of all that is stored")
    parser.add_argument("--figure", type=Path, help="where to draw all that is stored with this number of trials")
    parser.add_argument(
        "--tiny", action="store_true", help="three simulations, not stored, to see that everything runs"
    )
    options = parser.parse_args()
    if options.method and options.tiny:
        setting = Setting(options.method, num_neurons=6, num_trials=6, num_bins=40)
        print(summarise(setting, [simulate_and_fit(setting, TINY[options.method], seed) for seed in range(3)]))
    elif options.method:
        run(Setting(options.method, options.neurons, options.trials), options.simulations)
    stored = stored_settings() if options.summary or options.figure else []
    if options.summary:
        print("\n\n".join(summarise(*each) for each in stored))
    if options.figure:
        save_figure(plot([each for each in stored if each[0].num_trials == options.trials]), options.figure)


if __name__ == "__main__":
    main()
