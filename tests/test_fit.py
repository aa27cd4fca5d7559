"""`fit`: what it finds, what it refuses, and what it leaves behind."""

import dataclasses
import sys

import jax
import numpy as np
import pytest
from plain import plain_model

import lrposterior as lrp
from lrposterior.inference.initialise import initialise
from lrposterior.inference.mode import find_mode
from lrposterior.inference.problem import Problem


def simulation(rank=1, *, num_neurons=10, num_trials=5, num_bins=25, noise_scale=0.05, seed=0, **model):
    return lrp.simulate_recording(
        plain_model(rank, **model),
        num_neurons=num_neurons,
        num_trials=num_trials,
        num_bins=num_bins,
        noise_scale=noise_scale,
        seed=seed,
    )


def quick_fit(recording, rank=1, **options):
    return lrp.fit(plain_model(rank), recording, seed=0, progress=False, **options)


@pytest.fixture(scope="module")
def recording():
    return simulation().recording


@pytest.mark.slow
def test_mode_is_stationary_and_lower_than_the_truth(recording):
    """The gradient vanishes in all whitened coordinates, those of the noise included."""
    posterior = quick_fit(recording)
    problem = Problem.of(posterior.model, recording)
    gradient = problem.gradient(posterior.mode_coordinates)
    scale = np.sqrt(np.concatenate([np.diag(problem.information(posterior.mode_coordinates)) + 1.0, np.ones(10)]))
    assert np.abs(gradient / scale).max() < 0.02
    truth = simulation().parameters
    z = problem.space.whiten(posterior.model.coordinates(truth, recording.dt))
    assert posterior.statistics.objective < problem.negative_log_density(np.asarray(z))


def test_noise_is_at_its_conditional_mode():
    problem = Problem.of(plain_model(1), simulation().recording)
    z = problem.best_noise(initialise(problem))
    for sign in (-1.0, 1.0):
        moved = z.copy()
        moved[problem.space.num_dynamics :] += sign * 1e-3
        assert problem.negative_log_density(moved) > problem.negative_log_density(z)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"nonlinearity": "relu", "priors": lrp.Priors(K=1.0)},
        {"nonlinearity": "softplus", "priors": lrp.Priors(K=1.0)},
        {"nonlinearity": "linear", "priors": lrp.Priors(K=1.0)},
        {"observation": lrp.GaussianObservation("current")},
        {"initial_state": "free"},
        {"time_constant": lrp.TimeConstantPrior(0.08)},
    ],
    ids=["relu", "softplus", "linear", "current", "free", "time constant"],
)
def test_every_kind_of_model_is_fitted_to_its_noise(options):
    """The residual of a fit with enough data is the noise: sd within 10% of 0.05."""
    truth = simulation(2, num_neurons=12, num_trials=8, num_bins=40, **options)
    posterior = lrp.fit(plain_model(2, **options), truth.recording, seed=0, progress=False)
    assert posterior.status == "converged"
    assert np.median(posterior.mode["noise_scale"]) == pytest.approx(0.05, rel=0.1)
    assert np.sqrt(np.mean((posterior.mode_rates() - truth.rates) ** 2)) < 0.05


@pytest.mark.slow
def test_time_constant_is_recovered_with_its_uncertainty():
    """z-scores of the time constant over six networks: |mean z²| of six standard normals is below 2.8 in 99%."""
    scores = []
    for seed in range(6):
        truth = simulation(1, seed=seed, time_constant=0.07)
        model = plain_model(1, lrp.TimeConstantPrior(0.1))
        posterior = lrp.fit(model, truth.recording, seed=0, progress=False)
        draws = posterior.sample_parameters(500, seed=0)["time_constant"]
        scores.append((np.mean(draws) - 0.07) / np.std(draws))
    assert np.mean(np.square(scores)) < 2.8
    assert np.mean(np.square(scores)) > 0.1


def test_fit_reaches_the_same_optimum_from_the_truth_and_from_the_prior(recording):
    posterior = quick_fit(recording, num_restarts=4)
    problem = Problem.of(posterior.model, recording)
    start = problem.space.whiten(posterior.model.coordinates(simulation().parameters, recording.dt))
    from_truth = find_mode(problem, np.asarray(start))
    assert posterior.statistics.objective == pytest.approx(from_truth.objective, abs=1e-3)
    assert sum(posterior.statistics.mode_counts) + posterior.statistics.num_failed_starts == 5
    assert posterior.statistics.mode_objectives[0] == posterior.statistics.objective
    assert list(posterior.statistics.mode_objectives) == sorted(posterior.statistics.mode_objectives)


@pytest.mark.slow
def test_true_rank_has_the_highest_evidence():
    truth = simulation(2, num_neurons=20, num_trials=10, num_bins=50)
    evidence = {rank: quick_fit(truth.recording, rank).statistics.log_evidence for rank in (1, 2, 3)}
    assert max(evidence, key=lambda rank: -np.inf if evidence[rank] is None else evidence[rank]) == 2


def test_same_seed_same_posterior(recording):
    first, second = quick_fit(recording), quick_fit(recording)
    np.testing.assert_array_equal(first.mode_coordinates, second.mode_coordinates)
    np.testing.assert_array_equal(
        first.sample_connectivity(5, seed=1).to_dense(), second.sample_connectivity(5, seed=1).to_dense()
    )


def test_single_precision_user_gets_the_same_double_precision_posterior(recording, single_precision):
    posterior = quick_fit(recording)
    assert not jax.config.read("jax_enable_x64")
    assert posterior.connectivity_mean().dtype == np.float64
    with jax.enable_x64(True):
        reference = quick_fit(recording)
    np.testing.assert_array_equal(posterior.connectivity_mean(), reference.connectivity_mean())
    assert posterior.predict_rates(num_draws=2, seed=0).dtype == np.float64


@pytest.mark.slow
def test_masked_neuron_returns_the_prior():
    recording = simulation(1, num_neurons=8).recording
    mask = np.ones_like(recording.mask)
    mask[:, :, 3] = False
    posterior = quick_fit(dataclasses.replace(recording, mask=mask))
    draws = posterior.sample_parameters(4000, seed=0)
    # Standard deviations of 4,000 draws are known to 1.1%, means to 1.6% of the sd: five of these.
    assert np.std(draws["b"][:, 3]) == pytest.approx(1.0, rel=0.06)
    assert np.std(draws["B"][:, 3, 0]) == pytest.approx(1.0, rel=0.06)
    assert abs(np.mean(draws["b"][:, 3])) < 0.08


def test_interrupted_fit_leaves_nothing_and_can_be_repeated(recording, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    calls = []

    def interrupted(*arguments, **keywords):
        calls.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["lrposterior.inference.fit"], "find_mode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quick_fit(recording)
    monkeypatch.undo()
    assert calls
    assert list(tmp_path.iterdir()) == []
    assert quick_fit(recording).status == "converged"


def without_convergence(recording):
    quick_fit(recording, max_iterations=1)


def noise_free(recording):
    truth = simulation(noise_scale=1e-13)
    quick_fit(truth.recording)


def without_recurrence(recording):
    truth = lrp.simulate_recording(
        plain_model(1), K=np.zeros((10, 1)), num_trials=5, num_bins=20, noise_scale=1.0, seed=2
    )
    quick_fit(truth.recording, 2)


def too_few_dimensions(recording):
    quick_fit(recording.select(trials=[0], time=slice(0, 3)), 8)


def diverging(recording):
    huge = dataclasses.replace(recording, inputs=np.full_like(recording.inputs, 1e200))
    lrp.fit(plain_model(1, nonlinearity="linear"), huge, seed=0, progress=False)


FAILURES = {
    "no convergence: after 1 iterations .* raise max_iterations": without_convergence,
    r"singular noise: the model explains neuron \d+ exactly": noise_free,
    "the data do not support rank 2; lower it": without_recurrence,
    "rank: expected at most .* dimensions that the activity spans beyond its inputs, got 8": too_few_dimensions,
    "initialisation: no finite start was found|non-finite gradient": diverging,
}


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("message", FAILURES)
def test_failures_are_exceptions_with_cause_and_remedy(message, recording):
    with pytest.raises(lrp.FitError, match=message):
        FAILURES[message](recording)


def test_non_finite_gradient_names_the_first_bad_trial_and_bin():
    truth = simulation(1, nonlinearity="linear", priors=lrp.Priors(K=0.5))
    inputs = truth.recording.inputs.copy()
    inputs[2, 7:] = 1e300
    problem = Problem.of(plain_model(1, nonlinearity="linear"), dataclasses.replace(truth.recording, inputs=inputs))
    z = 10.0 * np.ones(problem.space.size)
    with pytest.raises(lrp.FitError, match=r"not finite, first in trial 2, bin \d+; the network diverges"):
        find_mode(problem, z)


def test_a_precision_that_is_not_definite_names_cause_and_mend(recording):
    problem = Problem.of(plain_model(1, priors=lrp.Priors(K=lrp.ScalePrior(2.0, 0.5))), recording)
    information = -2.0 * np.eye(problem.space.num_dynamics)
    with pytest.raises(lrp.FitError, match=r"^singular curvature: .* at the prior scales K 2; .*lower the rank"):
        problem.covariance(np.ones(problem.space.size), information)


BAD_ARGUMENTS = {
    "model: expected a LowRankModel, got int": {"model": 2},
    "recording: expected a Recording, got ndarray": {"recording": np.zeros((2, 3, 4))},
    "method: expected one of 'laplace'": {"method": "laplas"},
    r"method: expected one of 'laplace', .*, got the class Laplace; write Laplace\(\)": {"method": lrp.Laplace},
    "seed: expected an integer >= 0": {"seed": -1},
    "seed: expected an integer >= 0, got None": {"seed": None},
    "num_restarts: expected an integer >= 0": {"num_restarts": 1.5},
    "max_iterations: expected an integer >= 1": {"max_iterations": 0},
    "rank: expected at most the 10 neurons of the recording, got 11": {"model": plain_model(11)},
    "time_constant: expected at least the bin width": {"model": plain_model(1, time_constant=0.01)},
    "time_constant: expected a prior median above the bin width": {
        "model": plain_model(1, time_constant=lrp.TimeConstantPrior(0.02))
    },
}


@pytest.mark.parametrize("message", BAD_ARGUMENTS)
def test_bad_arguments_are_refused(message, recording):
    arguments = {"model": plain_model(1), "recording": recording, "seed": 0} | BAD_ARGUMENTS[message]
    with pytest.raises(ValueError, match=message):
        lrp.fit(arguments.pop("model"), arguments.pop("recording"), progress=False, **arguments)


def test_constant_neuron_is_named(recording):
    activity = recording.activity.copy()
    activity[:, :, 4] = 0.5
    with pytest.raises(
        ValueError, match=r"activity: expected every observed neuron to vary, got 1 constant .* neuron 4"
    ):
        quick_fit(dataclasses.replace(recording, activity=activity))


def test_seed_has_to_be_given(recording):
    with pytest.raises(TypeError, match="seed"):
        lrp.fit(plain_model(1), recording)


@pytest.mark.slow
def test_time_constants_of_two_cell_types_are_recovered():
    truth = {"E": 0.12, "I": 0.05}
    recording = lrp.simulate_recording(
        plain_model(1, time_constant=truth),
        num_neurons=8,
        num_trials=8,
        num_bins=40,
        num_inputs=2,
        noise_scale=0.05,
        cell_types=list("EIEEIEIE"),
        seed=1,
    ).recording
    model = plain_model(1, time_constant={name: lrp.TimeConstantPrior(0.08) for name in truth})
    posterior = lrp.fit(model, recording, seed=0, progress=False)
    draws = posterior.sample_parameters(400, seed=1)["time_constant"]
    error = posterior.mode["time_constant"] - list(truth.values())
    assert np.all(np.abs(error) < 3.0 * draws.std(axis=0))
    assert np.all(draws.std(axis=0) < 0.005)


@pytest.mark.slow
def test_time_constants_of_neurons_are_recovered():
    truth = np.array([0.04, 0.06, 0.09, 0.12, 0.15])
    recording = lrp.simulate_recording(
        plain_model(1, time_constant=lrp.PerNeuron(truth)),
        num_neurons=5, num_trials=8, num_bins=40, num_inputs=2, noise_scale=0.05, seed=2,
    ).recording  # fmt: skip
    model = plain_model(1, time_constant=lrp.PerNeuron(lrp.TimeConstantPrior(0.08)))
    posterior = lrp.fit(model, recording, seed=0, progress=False)
    draws = posterior.sample_parameters(400, seed=1)["time_constant"]
    assert draws.shape == (400, 5)
    assert np.all(np.abs(posterior.mode["time_constant"] - truth) < 3.0 * draws.std(axis=0))
    assert np.all(draws.std(axis=0) < 0.01)


@pytest.mark.slow
def test_draws_of_an_inferred_integration_constant_lie_between_0_and_1():
    recording = simulation(1, num_neurons=8, num_trials=4, num_bins=20).recording
    model = plain_model(1, time_constant=lrp.IntegrationConstantPrior(0.9, spread=2.0))
    posterior = lrp.fit(model, recording, lrp.Laplace(mean="mode"), seed=0, progress=False)
    a = recording.dt / posterior.sample_parameters(400, seed=1)["time_constant"]
    assert np.all((a > 0.0) & (a < 1.0))
    spread = a.std()
    assert spread > 0.0
    assert abs(recording.dt / 0.1 - a.mean()) < 4.0 * spread


def test_a_likelihood_with_too_many_latents_of_single_neurons_is_refused():
    recording = simulation(1, num_neurons=22).recording
    model = plain_model(3, time_constant=lrp.PerNeuron(0.1))
    words = (
        "time_constant: expected at most 64 latents of single neurons, .*, got PerNeuron with 66; "
        "use a time constant for each cell type, background=None, or method='match'"
    )
    with pytest.raises(ValueError, match=words):
        lrp.fit(model, recording, seed=0, progress=False)
    noisy = dataclasses.replace(model, process_noise="diagonal")
    for method in ("match", lrp.Gibbs(1.0)):
        with pytest.raises(ValueError, match=words):
            lrp.fit(noisy, recording, method, seed=0, progress=False)
