"""Is the certainty of a prediction its accuracy? And is the posterior right at all?

Fits a simulated network, predicts perturbations of three kinds, and scores the predictions against the responses of the
network itself. Then draws networks from the prior and looks where the truth lies among the draws of their posteriors.
LRPOSTERIOR_TINY=1 makes it small.
"""

import os
import tempfile
from pathlib import Path

import numpy as np

import lrposterior as lrp
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.responses import response_draws
from lrposterior.plots import save_figure

TINY = os.environ.get("LRPOSTERIOR_TINY") == "1"
NUM_NEURONS, NUM_EACH, NUM_DRAWS, NUM_SIMULATIONS = (10, 5, 30, 3) if TINY else (40, 30, 300, 60)
PRIORS = lrp.Priors(noise_scale=0.1, noise_spread=0.2, unit=1.0)
MODEL = lrp.LowRankModel(rank=2, priors=PRIORS, background=None)


def main(folder: Path) -> None:
    truth = lrp.simulate_recording(MODEL, num_neurons=NUM_NEURONS, num_trials=8, num_bins=50, seed=1)
    posterior = lrp.fit(MODEL, truth.recording, seed=0, progress=False)
    power = {"power": 1.0, "onset": 0.4}
    candidates = lrp.combine_candidates(
        lrp.single_neuron_candidates(truth.recording, neurons=range(min(NUM_EACH, NUM_NEURONS)), **power),
        lrp.ensemble_candidates(truth.recording, num_candidates=NUM_EACH, size=5, seed=0, **power),
        lrp.latent_candidates(truth.recording, num_candidates=NUM_EACH, num_components=2, seed=0, **power),
    )
    classes = [label.rstrip("0123456789 ") for label in candidates.labels]
    inputs = truth.recording.inputs[:4]
    draws = lrp.predict_responses(posterior, candidates, inputs=inputs, num_draws=NUM_DRAWS, seed=0)
    # What an experiment would measure; here the network itself is asked.
    network = {name: np.asarray(value)[None] for name, value in truth.parameters.items()}
    experiment = make_experiment(posterior, candidates, inputs, None)
    measured = response_draws(posterior.model, network, experiment, "current")[0]
    scores = lrp.score_predictions(draws, measured, classes=classes, labels=candidates.labels, seed=0)
    print(scores)
    save_figure(scores.plot(), folder / "prediction_scores.png")

    calibration = lrp.simulate_calibration(
        MODEL,
        lambda model, recording, seed: lrp.fit(model, recording, seed=seed, progress=False),
        num_simulations=NUM_SIMULATIONS,
        num_neurons=10,
        num_trials=8,
        num_bins=40,
        seed=0,
        progress=False,
    )
    print(calibration)
    save_figure(calibration.plot(), folder / "simulation_based_calibration.png")
    print(f"{folder} has {', '.join(sorted(path.name for path in folder.iterdir()))}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
