"""From a recording to a posterior, a degeneracy analysis and a ranking of perturbations.

Simulates a session, writes it to a file, and goes on as with a recording from the lab. LRPOSTERIOR_TINY=1 makes it
small.
"""

import os
import tempfile
from pathlib import Path

import lrposterior as lrp

TINY = os.environ.get("LRPOSTERIOR_TINY") == "1"
NUM_NEURONS, NUM_TRIALS, NUM_DRAWS = (12, 6, 50) if TINY else (100, 20, 300)


def main(folder: Path) -> None:
    truth = lrp.simulate_recording(
        lrp.LowRankModel(rank=2), num_neurons=NUM_NEURONS, num_trials=NUM_TRIALS, num_bins=50, noise_scale=0.1, seed=1
    )
    truth.recording.save(folder / "session.npz")

    recording = lrp.load_recording(folder / "session.npz")
    model = lrp.LowRankModel(rank=2, time_constant=0.1)
    posterior = lrp.fit(model, recording, method="laplace", seed=0)
    W = posterior.sample_connectivity(200, seed=1)
    degeneracy = lrp.analyze_degeneracy(posterior)
    candidates = lrp.single_neuron_candidates(recording, power=1.0)
    ranking = lrp.rank_perturbations(posterior, candidates, num_draws=NUM_DRAWS)

    print(posterior)
    print(W)
    print(degeneracy)
    print(ranking.top(5).to_string())
    ranking.plot().savefig(folder / "ranking.png")
    degeneracy.plot_spectrum().savefig(folder / "spectrum.png")
    posterior.save(folder / "fit.nc")
    print(f"{folder} has {', '.join(sorted(path.name for path in folder.iterdir()))}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
