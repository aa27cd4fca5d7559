"""Recovery of task-trained networks with known weights (Pals et al., NeurIPS 2024)."""

import numpy as np
import pytest
import scipy.stats
from plain import plain_model

import lrposterior as lrp

TEACHERS = ("osc_rnn", "osc_rnn_poisson", "rdm_rnn", "reach_rnn", "reach_rnn_128")
NOISE_SCALE, TIME_CONSTANT, DT = 0.05, 0.1, 0.01


def teacher(folder, name):
    """Parameters of a teacher in the form of the model: W = m n / N, relu, bias within the nonlinearity.

    x <- (1-a) x + a W relu(x + b) is x' <- (1-a) x' + a (W relu(x') + b) for x' = x + b.
    """
    with np.load(folder / "lowrank_teachers_smc_rnns.npz") as file:
        M, K, b = (np.float64(file[f"{name}__{key}"]) for key in ("m", "n", "b_rec"))
    return {"M": M, "K": K.T, "b": b, "noise_scale": np.full(len(M), NOISE_SCALE)}


def record(model, parameters, *, num_trials, num_bins, num_inputs, seed):
    """Smooth random inputs through random weights, which drive the network through its state space."""
    random = np.random.default_rng(seed)
    B = random.standard_normal((len(parameters["M"]), num_inputs))
    inputs = random.standard_normal((num_trials, num_bins, num_inputs))
    for time in range(1, num_bins):
        inputs[:, time] = 0.9 * inputs[:, time - 1] + np.sqrt(1.0 - 0.9**2) * inputs[:, time]
    empty = lrp.Recording(np.zeros((num_trials, num_bins, len(B))), DT, inputs=inputs)
    return model.simulate(parameters | {"B": B}, empty, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", TEACHERS)
def test_every_teacher_is_fitted_without_restarts(shared_data, name):
    """A converged fit explains the activity down to the noise: residual = noise * sqrt(1 - P / n), P parameters."""
    parameters = teacher(shared_data, name)
    model = plain_model(parameters["M"].shape[1], TIME_CONSTANT, "relu", priors=lrp.Priors(unit=1.0))
    recording = record(model, parameters, num_trials=12, num_bins=50, num_inputs=3, seed=0)
    posterior = lrp.fit(model, recording, seed=0, progress=False)
    assert posterior.status == "converged"
    num_coordinates, num_observations = posterior.space.num_dynamics, recording.activity.size
    expected = NOISE_SCALE * np.sqrt(1.0 - num_coordinates / num_observations)
    residual = recording.activity - posterior.mode_rates()
    assert residual.std() == pytest.approx(expected, rel=0.02)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name in TEACHERS if name != "reach_rnn_128"])
def test_constrained_connectivity_of_every_teacher_is_recovered_with_honest_intervals(shared_data, name):
    """Correlation of the constrained parts of W above .99, 90% intervals that cover 85-95% of the constrained entries.

    Entries count as constrained where the data remove 90% of the prior variance. Three recordings each: the entries of
    one network are so dependent that its coverage alone has a standard deviation of about .05. The largest teacher is
    left
    out, because three fits of it take too long here.
    """
    parameters = teacher(shared_data, name)
    model = plain_model(parameters["M"].shape[1], TIME_CONSTANT, "relu", priors=lrp.Priors(unit=1.0))
    truth = parameters["M"] @ parameters["K"].T / len(parameters["M"])
    covered, correlations = [], []
    for seed in range(3):
        recording = record(model, parameters, num_trials=60, num_bins=100, num_inputs=8, seed=seed)
        posterior = lrp.fit(model, recording, seed=0, progress=False)
        degeneracy = lrp.analyze_degeneracy(posterior)
        parts = [degeneracy.split(W).constrained.ravel() for W in (truth, posterior.connectivity_mean())]
        correlations.append(np.corrcoef(*parts)[0, 1])
        scores = (truth - posterior.connectivity_mean()) / posterior.connectivity_sd()
        constrained = degeneracy.contraction > 0.9
        covered.append(np.abs(scores[constrained]) < scipy.stats.norm.ppf(0.95))
    assert min(correlations) >= 0.99
    assert 0.85 <= np.concatenate(covered).mean() <= 0.95
