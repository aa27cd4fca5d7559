"""Is the posterior right? Simulation-based calibration of every method (Talts et al. 2018, arXiv:1804.06788).

Networks are drawn from the prior, recorded and fitted with the same prior. Then the truth of any quantity is one more
draw from its posterior, and its rank among the draws is uniform. For every quantity the empirical distribution function
of the ranks is compared with the 95% simultaneous band of Säilynoja, Bürkner and Vehtari (2022,
doi:10.1007/s11222-022-10090-6), as ArviZ computes it. Entries of W of one network depend on each other, so there is a
small fixed set of quantities, each with a band of its own: a right method leaves each with probability 0.05.

The quantities are those of `lrp.simulate_calibration`: entries of W, eigenvalues, responses to stimulations, the log
likelihood. The simulations are its own too; here they are stored one by one.

Recordings: rank 2, tanh, time constant 0.1 s, 12 trials of 60 bins of 20 ms, 2 inputs of smooth noise, noise scales
around 0.15 (log-normal, 0.10 to 0.22), all else from the default priors. A fit that refuses (`FitError`) leaves no
rank; their number is part of the result, because the ranks of the others need not be uniform.

With `--process-noise` latents are driven by noise of 0.045 in every bin (log-normal, 0.02 to 0.12), and its variance in
the currents, averaged over neurons, is ranked as well.

Results are stored after every simulation in benchmarks/results, and a second call goes on where the first one ended.

    python benchmarks/calibration.py --method laplace
    python benchmarks/calibration.py --method nuts --neurons 10 --simulations 100
    python benchmarks/calibration.py --method laplace --neurons 10 --process-noise --simulations 100
    python benchmarks/calibration.py --summary --figure docs/images/calibration.png
    python benchmarks/calibration.py --method laplace --tiny
"""

import argparse
import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lrposterior as lrp
from lrposterior.calibration import Networks, gauge_invariant_quantities
from lrposterior.calibration.simulated_truth import SimulatedTruth, Size, simulate_truth
from lrposterior.plots.calibration import draw_rank_curves
from lrposterior.plots.style import save_figure, styled

RESULTS = Path(__file__).parent / "results"
# One model for all recordings: its unit is a number, so that nothing is compiled twice.
MODEL = lrp.LowRankModel(rank=2, priors=lrp.Priors(noise_scale=0.15, noise_spread=0.2, unit=1.0), background=None)
NOISY_MODEL = dataclasses.replace(MODEL, process_noise=lrp.ProcessNoise("full", spread=0.5))
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
# Quantities whose number of stimulated neurons the stored results have in their names.
STORED_NAMES = {"several to one": "four to one", "several to others": "four to others"}
GROUPS = {
    "connectivity": ("W[0, 1]", "W[2, 2]", "norm of W"),
    "eigenvalues": ("modulus 1", "real part 1", "modulus 2"),
    "responses": ("one to one", "four to one", "four to others"),
    "fit": ("log likelihood",),
}
QUANTITIES = tuple(name for group in GROUPS.values() for name in group)
PROCESS_NOISE = "process noise"


@dataclasses.dataclass(frozen=True)
class Setting:
    method: str
    num_neurons: int = 20
    num_trials: int = 12
    num_bins: int = 60
    process_noise: bool = False

    @property
    def path(self) -> Path:
        size = f"{self.num_neurons}x{self.num_trials}x{self.num_bins}"
        return RESULTS / f"calibration_{self.method}_{size}{'_process_noise' if self.process_noise else ''}.json"


def noise_and_others(networks: Networks) -> dict[str, np.ndarray]:
    """The usual quantities and the variance tr(M Q M^T) / N that process noise adds to the currents in a bin."""
    M, Q = networks.parameters["M"], networks.parameters["process_noise"]
    noise = np.einsum("dnr,drs,dns->d", M, Q, M) / M.shape[1]
    return gauge_invariant_quantities(networks) | {PROCESS_NOISE: noise}


def simulate_and_fit(setting: Setting, method: lrp.Laplace | lrp.SVI | lrp.NUTS, seed: int) -> dict:
    """The ranks of one truth among the draws of its posterior, or the reason why there is none, as they are stored."""
    found = simulate_truth(
        NOISY_MODEL if setting.process_noise else MODEL,
        Size(setting.num_neurons, setting.num_trials, setting.num_bins),
        lambda model, recording, seed: lrp.fit(model, recording, method, seed=seed, progress=False),
        quantities=noise_and_others if setting.process_noise else gauge_invariant_quantities,
        num_draws=NUM_CHAIN_DRAWS if isinstance(method, lrp.NUTS) else NUM_DRAWS,
        seed=seed,
    )
    if found.refusal is not None:
        return {"seed": seed, "refused": found.refusal}
    return {
        "seed": seed,
        "status": found.status,
        "seconds": round(found.seconds, 2),
        "num_draws": found.num_draws,
        "diagnostics": {name: round(value, 4) for name, value in found.diagnostics.items()},
        "below": {STORED_NAMES.get(name, name): number for name, number in found.below.items()},
        "error": {STORED_NAMES.get(name, name): round(value, 4) for name, value in found.error.items()},
    }


def result_of(simulations: Sequence[dict]) -> lrp.CalibrationResult:
    """What `lrp.simulate_calibration` would have returned. No two values of a quantity are equal."""
    return lrp.CalibrationResult.of(
        [
            SimulatedTruth(one["seed"], refusal=one["refused"])
            if "refused" in one
            else SimulatedTruth(**one, equal=dict.fromkeys(one["below"], 0))
            for one in simulations
        ]
    )


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


def summarise(setting: Setting, simulations: list[dict]) -> str:
    """A table of every quantity: does it stay in the band, bias and spread of the errors, and cover of intervals."""
    size = f"{setting.num_neurons} neurons, {setting.num_trials} trials x {setting.num_bins} bins"
    noise = ", process noise" if setting.process_noise else ""
    return f"{setting.method}, {size}{noise}: {result_of(simulations)}"


@styled
def plot(stored: list[tuple[Setting, list[dict]]]) -> plt.Figure:
    """A column for every method, a row for every group of quantities."""
    figure, axes = plt.subplots(
        len(GROUPS), len(stored), figsize=(1.9 * len(stored), 7.5), sharex=True, sharey=True, squeeze=False
    )
    for column, (setting, simulations) in enumerate(stored):
        result = result_of(simulations)
        title = setting.method.replace("svi_", "SVI, ").replace("_", " ")
        title = (
            title.replace("laplace mode", "Laplace at the mode").replace("laplace", "Laplace").replace("nuts", "NUTS")
        )
        axes[0, column].set_title(f"{title}\nN = {setting.num_neurons}, {result.num_fitted} fits")
        for row, names in enumerate(GROUPS.values()):
            more = (PROCESS_NOISE,) if setting.process_noise and "log likelihood" in names else ()
            draw_rank_curves(axes[row, column], result, (*names, *more))
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
    parser.add_argument("--process-noise", action="store_true", help="of networks whose latents are driven by noise")
    parser.add_argument("--summary", action="store_true", help="tables of all that is stored")
    parser.add_argument(
        "--figure",
        type=Path,
        help="where to draw what is stored with this number of trials, with or without process noise",
    )
    parser.add_argument(
        "--tiny", action="store_true", help="three simulations, not stored, to see that everything runs"
    )
    options = parser.parse_args()
    if options.method and options.tiny:
        setting = Setting(options.method, 6, num_trials=6, num_bins=40, process_noise=options.process_noise)
        print(summarise(setting, [simulate_and_fit(setting, TINY[options.method], seed) for seed in range(3)]))
    elif options.method:
        setting = Setting(options.method, options.neurons, options.trials, process_noise=options.process_noise)
        run(setting, options.simulations)
    stored = stored_settings() if options.summary or options.figure else []
    if options.summary:
        print("\n\n".join(summarise(*each) for each in stored))
    if options.figure:
        wanted = (options.trials, options.process_noise)
        chosen = [each for each in stored if (each[0].num_trials, each[0].process_noise) == wanted]
        save_figure(plot(chosen), options.figure)


if __name__ == "__main__":
    main()
