"""Responses and rankings: against rollouts and dense covariances written out here, and by the laws they obey."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from handmade import vertical_basis, with_factors
from matplotlib.figure import Figure
from plain import plain_model

import lrposterior as lrp
from lrposterior.distribution import NormalDistribution, SampleDistribution
from lrposterior.gauge import canonical
from lrposterior.perturbation import prediction, ranking, responses
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.prediction import predict_responses, rank_perturbations
from lrposterior.perturbation.responses import response_draws
from lrposterior.posterior import FitStatistics, Posterior

TRIALS, BINS, NEURONS, DT, TAU = 4, 24, 7, 0.01, 0.04
ONSET, DRAWS = 8, 40
CELL_TYPES = ["E", "I", "E", "E", "I", "E", "E"]
CRITERIA = ("certainty", "contraction", "information")


# A posterior without a fit, and references


def make_recording(num_neurons=NEURONS, num_inputs=2, seed=0):
    random = np.random.default_rng(seed)
    inputs = np.zeros((TRIALS, BINS, num_inputs))
    inputs[:, 2:6] = random.standard_normal((TRIALS, 1, num_inputs))
    inputs[3] = inputs[1]  # a repeated condition
    activity = random.standard_normal((TRIALS, BINS, num_neurons))
    return lrp.Recording(activity, DT, inputs=inputs, cell_types=(3 * CELL_TYPES)[:num_neurons])


def make_posterior(spread=0.2, seed=0, num_inputs=2, **changes):
    """A Normal posterior around a random network, with prior-like spread in most directions."""
    recording = make_recording(num_inputs=num_inputs)
    model = plain_model(**({"rank": 2, "time_constant": TAU} | changes)).for_recording(recording)
    space = model.space_for(recording)
    random = np.random.default_rng(seed)
    mode = random.standard_normal(space.size)
    mode = with_factors(space, mode, *canonical(*space.factors(mode)))
    precision = np.diag(random.exponential(size=space.size)) / spread**2
    precision = precision[: space.num_dynamics, : space.num_dynamics]
    scale = np.zeros((space.size, space.num_dynamics))
    scale[: space.num_dynamics] = np.linalg.inv(np.linalg.cholesky(precision + np.eye(space.num_dynamics))).T
    vertical = vertical_basis(*space.factors(mode))
    scale[: len(vertical)] -= vertical @ (vertical.T @ scale[: len(vertical)])
    statistics = FitStatistics(0.0, 0.0, 0.0, 0, 0.0, None, "made for a test")
    distribution = NormalDistribution(mode, scale)
    return Posterior(model, recording, "laplace", 5, "converged", statistics, mode, distribution)


def make_candidates(recording, num_candidates=5, seed=1, **options):
    patterns = np.random.default_rng(seed).standard_normal((num_candidates, recording.num_neurons))
    return lrp.pattern_candidates(recording, patterns, power=0.3, onset=ONSET * DT, duration=3 * DT, **options)


def distinct(inputs):
    return np.stack(
        [each for index, each in enumerate(inputs) if not any(np.array_equal(each, e) for e in inputs[:index])]
    )


RATES = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "softplus": lambda x: np.logaddexp(0.0, x),
    "linear": lambda x: x,
}


def reference(model, parameters, inputs, candidates, quantity="current"):
    """(candidate, condition, time, neuron) by two rollouts of the whole network, bin by bin with the matrix W."""
    M, K, B, b = (parameters[name] for name in ("M", "K", "B", "b"))
    num_neurons = len(M)
    W = M @ K.T / num_neurons + (0.0 if model.background is None else model.background.to_dense())
    tau = parameters["time_constant"]
    if isinstance(model.time_constant, Mapping):
        tau = np.array([dict(zip(model.time_constant, tau, strict=True))[cell_type] for cell_type in CELL_TYPES])
    a, phi = DT / tau, RATES[model.nonlinearity]
    start = np.zeros(num_neurons)
    if model.initial_state == "free":
        start = M @ parameters["initial_kappa"].mean(axis=0) + b

    def run(one_input, stimulation):
        x = np.empty((BINS, num_neurons))
        x[0] = start
        for t in range(BINS - 1):
            x[t + 1] = (1 - a) * x[t] + a * (W @ phi(x[t]) + B @ one_input[t] + b + stimulation[t])
        return x

    response = np.empty((candidates.num_candidates, len(inputs), BINS, num_neurons))
    for index, pattern in enumerate(candidates.patterns):
        stimulation = candidates.time_course[:, None] * pattern
        direct = np.zeros((BINS, num_neurons))
        for t in range(BINS - 1):
            direct[t + 1] = (1 - a) * direct[t] + a * stimulation[t]
        for condition, one_input in enumerate(inputs):
            perturbed, unperturbed = run(one_input, stimulation), run(one_input, 0 * stimulation)
            if quantity == "current":
                response[index, condition] = perturbed - unperturbed - direct
            else:
                response[index, condition] = phi(perturbed) - phi(unperturbed + direct)
    return response


SPARSE = np.where(np.random.default_rng(9).random((NEURONS, NEURONS)) < 0.3, 0.4, 0.0)
FACTORS = np.random.default_rng(10).standard_normal((2, NEURONS, 2)) / np.sqrt(NEURONS)
MODELS = {
    "tanh": {},
    "relu": {"nonlinearity": "relu"},
    "softplus": {"nonlinearity": "softplus"},
    "linear": {"nonlinearity": "linear", "observation": lrp.GaussianObservation(of="current")},
    "current": {"observation": lrp.GaussianObservation(of="current")},
    "rank 1": {"rank": 1},
    "free initial state": {"initial_state": "free"},
    "time constant": {"time_constant": lrp.TimeConstantPrior(TAU)},
    "background": {"background": lrp.FixedBackground(SPARSE)},
    "sparse background": {
        "background": lrp.FixedBackground(scipy.sparse.csr_array(SPARSE)),
        "observation": lrp.GaussianObservation(of="current"),
    },
    "time constants": {"time_constant": {"I": lrp.TimeConstantPrior(TAU / 2), "E": TAU}, "initial_state": "free"},
    "known factors": {"background": lrp.FixedBackground(left=FACTORS[0], right=FACTORS[1])},
    "sparse background and known factors": {
        "background": lrp.FixedBackground(scipy.sparse.csr_array(SPARSE), *FACTORS),
    },
    "no inputs": {"num_inputs": 0},
}
every_model = pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS.keys())
every_quantity = pytest.mark.parametrize("quantity", ["current", "rate"])


def rank(posterior, candidates, **options):
    return rank_perturbations(posterior, candidates, **({"num_draws": DRAWS, "progress": False} | options))


def predict(posterior, candidates, **options):
    return predict_responses(posterior, candidates, **({"num_draws": DRAWS} | options))


# Responses


@every_model
@every_quantity
def test_response_is_the_difference_of_two_rollouts(changes, quantity):
    posterior = make_posterior(**changes)
    candidates = make_candidates(posterior.recording, 3)
    predicted = predict(posterior, candidates, quantity=quantity, num_draws=3, seed=2)
    draws = posterior.sample_parameters(3, seed=2)
    inputs = distinct(posterior.recording.inputs)
    assert predicted.shape == (3, 3, len(inputs), BINS - ONSET - 1, NEURONS)
    assert len(inputs) == (3 if posterior.recording.num_inputs else 1)
    for index in range(3):
        parameters = {name: value[index] for name, value in draws.items()}
        expected = reference(posterior.model, parameters, inputs, candidates, quantity)
        np.testing.assert_allclose(predicted[index], expected[:, :, ONSET + 1 :], rtol=1e-9, atol=1e-12)


def test_window_selects_bins_and_inputs_conditions():
    posterior = make_posterior()
    candidates = make_candidates(posterior.recording)
    inputs = np.random.default_rng(3).standard_normal((TRIALS, BINS, 2))
    everything = predict(posterior, candidates, inputs=inputs, window=(0.0, BINS * DT), num_draws=2)
    assert everything.shape == (2, 5, TRIALS, BINS, NEURONS)
    np.testing.assert_array_equal(everything[:, :, :, : ONSET + 2], 0.0)
    assert np.all(np.any(everything[:, :, :, ONSET + 2] != 0.0, axis=-1))
    part = predict(posterior, candidates, inputs=inputs[2:3], window=(0.12, 0.17), num_draws=2)
    np.testing.assert_allclose(part, everything[:, :, 2:3, 12:17], rtol=1e-9, atol=1e-14)
    default = predict(posterior, candidates, inputs=inputs, num_draws=2)
    np.testing.assert_allclose(default, everything[:, :, :, ONSET + 1 :], rtol=1e-9, atol=1e-14)
    early = predict(posterior, candidates, inputs=inputs, window=(0.0, (ONSET + 3) * DT), num_draws=2)
    np.testing.assert_allclose(early, everything[:, :, :, : ONSET + 3], rtol=1e-9, atol=1e-14)


@every_quantity
def test_no_recurrence_no_response(quantity):
    posterior = make_posterior()
    draws = posterior.distribution.sample(DRAWS, seed=0)
    draws[:, posterior.space.slices["M"]] = 0.0
    silent = dataclasses.replace(posterior, distribution=SampleDistribution(draws[None]))
    candidates = make_candidates(posterior.recording)
    np.testing.assert_array_equal(predict(silent, candidates, quantity=quantity), 0.0)
    result = rank(silent, candidates, quantity=quantity)
    assert np.isnan(result.expected_r2).all()
    np.testing.assert_array_equal(result.contraction, 1.0)
    np.testing.assert_array_equal(result.information, 0.0)
    np.testing.assert_array_equal(result.sign_certainty, 0.0)
    np.testing.assert_array_equal(result.order, np.arange(5))


@pytest.mark.parametrize("changes", [{}, {"background": lrp.FixedBackground(SPARSE)}], ids=["low rank", "background"])
def test_linear_network_superposes(changes):
    posterior = make_posterior(nonlinearity="linear", **changes)
    one, other = np.random.default_rng(4).standard_normal((2, NEURONS))
    time_course = make_candidates(posterior.recording).time_course
    candidates = lrp.Candidates(np.stack([one, other, one + other, -3 * one]), time_course, dt=DT)
    q = predict(posterior, candidates)
    np.testing.assert_allclose(q[:, 2], q[:, 0] + q[:, 1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(q[:, 3], -3 * q[:, 0], rtol=1e-9, atol=1e-12)
    # A linear response does not depend on the state it starts from.
    np.testing.assert_allclose(q[:, :, 0], q[:, :, 1], rtol=1e-9, atol=1e-12)
    result = rank(posterior, candidates)
    for name in ("expected_r2", "contraction", "share_degenerate"):
        np.testing.assert_allclose(getattr(result, name)[3], getattr(result, name)[0], rtol=1e-9, atol=1e-12)


def test_linear_network_in_closed_form():
    """State d[t+1] = ((1-a) I + a K^T M / N) d[t] + (a/N) K^T p h[t] and q = M d, in powers of a matrix."""
    posterior = make_posterior(nonlinearity="linear")
    candidates = make_candidates(posterior.recording, 1)
    parameters = {name: value[0] for name, value in posterior.sample_parameters(1, seed=5).items()}
    M, K, a = parameters["M"], parameters["K"], DT / TAU
    direct = np.array(
        [sum(a * (1 - a) ** (t - 1 - s) * candidates.time_course[s] for s in range(t)) for t in range(BINS)]
    )
    A = (1 - a) * np.eye(2) + a * K.T @ M / NEURONS
    kick = a / NEURONS * K.T @ candidates.patterns[0]
    expected = [
        sum(M @ np.linalg.matrix_power(A, t - 1 - s) @ kick * direct[s] for s in range(t)) for t in range(1, BINS)
    ]
    predicted = predict(posterior, candidates, num_draws=1, window=(DT, BINS * DT))
    np.testing.assert_allclose(predicted[0, 0, 0], expected, rtol=1e-9, atol=1e-13)


# Scores


@every_model
@every_quantity
def test_scores_are_those_of_the_dense_covariance(changes, quantity):
    posterior = make_posterior(**changes)
    candidates = make_candidates(posterior.recording, 3)
    readout = np.random.default_rng(6).standard_normal(NEURONS)
    result = rank(posterior, candidates, quantity=quantity, readout=readout, seed=7)
    q = predict(posterior, candidates, quantity=quantity, seed=7)
    observed = predict(posterior, candidates, quantity=posterior.model.observation.of, seed=7)
    window = q.shape[3]
    noise = np.tile(posterior.mode["noise_scale"], q.shape[2] * window)
    for index in range(3):
        flat = q[:, index].reshape(DRAWS, -1)
        mean, covariance = flat.mean(axis=0), np.cov(flat, rowvar=False)
        power = mean @ mean - np.trace(covariance) / DRAWS
        np.testing.assert_allclose(
            result.expected_r2[index], max(power, 0) / (max(power, 0) + np.trace(covariance)), rtol=1e-9
        )
        whitened = np.cov(observed[:, index].reshape(DRAWS, -1) / noise, rowvar=False)
        information = 0.5 * np.linalg.slogdet(np.eye(len(whitened)) + whitened)[1]
        np.testing.assert_allclose(result.information[index], information, rtol=1e-8)
        read = q[:, index].mean(axis=(1, 2)) @ readout
        np.testing.assert_allclose(result.readout_mean[index], read.mean(), rtol=1e-9)
        np.testing.assert_allclose(result.readout_interval[index], np.quantile(read, [0.05, 0.95]), rtol=1e-9)
        np.testing.assert_allclose(result.sign_certainty[index], max((read > 0).mean(), (read < 0).mean()), rtol=1e-12)
        bands = np.quantile(q[:, index].mean(axis=1) @ readout, [0.05, 0.5, 0.95], axis=0)
        np.testing.assert_allclose(result.readout_bands[index], bands, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(result.response_mean, q.mean(axis=0), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(result.response_sd, q.std(axis=0, ddof=1), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(result.times, np.arange(ONSET + 1, BINS) * DT)


def test_contraction_compares_with_draws_of_the_prior():
    posterior = make_posterior()
    candidates = make_candidates(posterior.recording)
    result = rank(posterior, candidates, num_draws=1200)
    # The prior as a posterior is contracted by nothing.
    draws = np.random.default_rng(8).standard_normal((1, 1200, posterior.space.size))
    prior = dataclasses.replace(posterior, distribution=SampleDistribution(draws))
    np.testing.assert_allclose(rank(prior, candidates, num_draws=1200).contraction, 0.0, atol=0.25)
    spread = [
        predict(each, candidates, num_draws=1200, seed=8).var(axis=0, ddof=1).sum(axis=(1, 2, 3))
        for each in (posterior, prior)
    ]
    np.testing.assert_allclose(1 - result.contraction, spread[0] / spread[1], rtol=0.25)


def test_share_of_the_degenerate_directions():
    """Constrain all directions, or none: the share is 0, or 1."""
    posterior = make_posterior()
    candidates = make_candidates(posterior.recording)
    spectrum, space, mode = posterior.spectrum, posterior.space, posterior.mode_coordinates
    for lambdas, share in ((3.0, 0.0), (0.5, 1.0)):
        scale = np.zeros((space.size, spectrum.directions.shape[1]))
        scale[: space.num_dynamics] = spectrum.directions / np.sqrt(1 + lambdas)
        result = rank(dataclasses.replace(posterior, distribution=NormalDistribution(mode, scale)), candidates)
        np.testing.assert_allclose(result.share_degenerate, share, atol=0.05)
    assert np.all(rank(posterior, candidates).share_degenerate > 0.0)


def test_share_of_a_sampled_posterior_needs_enough_draws():
    posterior = make_posterior()
    candidates = make_candidates(posterior.recording)
    draws = posterior.distribution.sample(400, seed=0)
    many = dataclasses.replace(posterior, distribution=SampleDistribution(draws.reshape(2, 200, -1)))
    few = dataclasses.replace(posterior, distribution=SampleDistribution(draws[None, :DRAWS]))
    assert np.isnan(rank(few, candidates).share_degenerate).all()
    share = rank(many, candidates, num_draws=400).share_degenerate
    np.testing.assert_allclose(share, rank(posterior, candidates, num_draws=400).share_degenerate, atol=0.3)


@pytest.mark.parametrize("changes", [{}, {"initial_state": "free"}, {"background": lrp.FixedBackground(SPARSE)}])
def test_every_score_is_invariant_under_the_gauge(changes):
    posterior = make_posterior(**changes)
    candidates = make_candidates(posterior.recording)
    space, random = posterior.space, np.random.default_rng(11)
    draws = posterior.distribution.sample(300, seed=0)

    def moved(z):
        left, right = space.factors(z)
        A = random.standard_normal((*z.shape[:-1], 2, 2)) + 2 * np.eye(2)
        return with_factors(space, z, left @ A, right @ np.swapaxes(np.linalg.inv(A), -1, -2))

    one, other = (
        dataclasses.replace(posterior, distribution=SampleDistribution(each[None])) for each in (draws, moved(draws))
    )
    np.testing.assert_allclose(predict(one, candidates), predict(other, candidates), rtol=1e-8, atol=1e-12)
    assert_same_ranking(rank(one, candidates), rank(other, candidates))


def assert_same_ranking(one, other, rows=slice(None), rtol=1e-6):
    for field in dataclasses.fields(one):
        values, others = getattr(one, field.name), getattr(other, field.name)
        if isinstance(values, np.ndarray):
            of_candidates = field.name not in ("readout", "times")
            np.testing.assert_allclose(
                values[rows] if of_candidates else values, others, rtol=rtol, atol=1e-7, err_msg=field.name
            )


@pytest.mark.parametrize("of", ["current", "rate"])
def test_candidates_do_not_see_each_other(of, monkeypatch):
    """Order, blocks of candidates and blocks of conditions change nothing."""
    posterior = make_posterior(observation=lrp.GaussianObservation(of=of))
    candidates = make_candidates(posterior.recording)
    result = rank(posterior, candidates)
    permutation = np.array([3, 0, 4, 2, 1])
    assert_same_ranking(result, rank(posterior, candidates.select(permutation)), permutation, rtol=1e-9)
    np.testing.assert_array_equal(permutation[rank(posterior, candidates.select(permutation)).order], result.order)
    for num_bytes in (1e3, 1e5):
        monkeypatch.setattr(responses, "BLOCK_BYTES", num_bytes)
        assert_same_ranking(result, rank(posterior, candidates), rtol=1e-9)
        np.testing.assert_allclose(
            predict(posterior, candidates, num_draws=3)[:, 1],
            predict(posterior, candidates.select([1]), num_draws=3)[:, 0],
        )


def test_draws_repeat_by_seed():
    posterior = make_posterior()
    candidates = make_candidates(posterior.recording)
    np.testing.assert_array_equal(predict(posterior, candidates), predict(posterior, candidates, seed=posterior.seed))
    assert_same_ranking(rank(posterior, candidates), rank(posterior, candidates, seed=posterior.seed), rtol=1e-12)
    assert rank(posterior, candidates).seed == posterior.seed
    assert np.any(predict(posterior, candidates, seed=1) != predict(posterior, candidates, seed=2))


@pytest.mark.usefixtures("single_precision")
def test_double_precision_without_the_users_help():
    posterior = make_posterior()
    candidates = make_candidates(posterior.recording, 1)
    predicted = predict(posterior, candidates, num_draws=1, seed=3)
    parameters = {name: value[0] for name, value in posterior.sample_parameters(1, seed=3).items()}
    expected = reference(posterior.model, parameters, distinct(posterior.recording.inputs), candidates)
    np.testing.assert_allclose(predicted[0], expected[:, :, ONSET + 1 :], rtol=1e-9, atol=1e-12)


# The promise


def test_expected_r2_is_the_accuracy_under_the_posterior():
    """Truths drawn from the posterior: 1 - E|q - m|² / E|q|² is expected_r2. Tolerance: 4 standard errors."""
    posterior = make_posterior(spread=1.0)
    candidates = make_candidates(posterior.recording)
    result = rank(posterior, candidates, num_draws=800, seed=0)
    prediction = predict(posterior, candidates, num_draws=800, seed=0).mean(axis=0)
    truth = predict(posterior, candidates, num_draws=800, seed=1)
    error, power = (np.sum(each**2, axis=(2, 3, 4)) for each in (truth - prediction, truth))
    expected = result.expected_r2
    residual = (1 - expected) * power - error
    tolerance = 4 * np.sqrt(2) * residual.std(axis=0) / np.sqrt(len(truth))
    np.testing.assert_array_less(np.abs(residual.mean(axis=0)), tolerance)


def test_the_predicted_power_is_unbiased_in_the_number_of_draws():
    """Ten draws: the mean's own power would promise R² of 0.1 where nothing can be predicted."""
    posterior = make_posterior()
    mirrored = np.concatenate([posterior.distribution.sample(400, seed=0)] * 2)
    mirrored[400:, posterior.space.slices["M"]] *= -1  # W and -W are equally probable
    candidates = make_candidates(posterior.recording, 2)
    blind = dataclasses.replace(posterior, distribution=SampleDistribution(mirrored[None]))
    estimates = [rank(blind, candidates, num_draws=10, seed=seed).expected_r2 for seed in range(30)]
    exact = rank(blind, candidates, num_draws=800).expected_r2
    np.testing.assert_allclose(np.mean(estimates, axis=0), exact, atol=0.08)


NUM_NETWORKS, FALSE_ALARM = 12, 1e-3


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_neurons", "rank", "num_trials", "num_bins", "noise_scale"),
    [(8, 1, 16, 80, 0.1), (100, 2, 4, 50, 0.05)],
    ids=["the data see all directions", "the data see few directions"],
)
def test_certainty_is_accuracy_on_networks_from_the_prior(num_neurons, rank, num_trials, num_bins, noise_scale):
    """Student's t over networks at a false alarm of 1e-3 for each of two laws.

    With the mean m of S draws, E|q - m|² = (1 + 1/S) tr Cov q, whatever the network; and 90 of 100 truths have a rank
    from 5 to 94 among 99 draws.
    """
    excess, coverage = [], []
    for seed in range(NUM_NETWORKS):
        model = plain_model(rank, TAU)
        simulation = lrp.simulate_recording(
            model,
            num_neurons=num_neurons,
            num_trials=num_trials,
            num_bins=num_bins,
            dt=DT,
            noise_scale=noise_scale,
            seed=seed,
        )
        recording = simulation.recording
        posterior = lrp.fit(model, recording, seed=seed, progress=False)
        patterns = np.random.default_rng([seed, 1]).standard_normal((4, num_neurons))
        candidates = lrp.pattern_candidates(recording, patterns, power=0.5, onset=0.2, duration=0.05)
        inputs = recording.inputs[:2]
        draws = predict_responses(posterior, candidates, inputs=inputs, num_draws=99)
        experiment = make_experiment(posterior, candidates, inputs, None)
        parameters = {name: value[None] for name, value in simulation.parameters.items()}
        truth = response_draws(posterior.model, parameters, experiment, "current")[0]
        spread = draws.var(axis=0, ddof=1).sum()
        error = np.sum((truth - draws.mean(axis=0)) ** 2)
        excess.append((error - (1 + 1 / 99) * spread) / np.sum(draws**2, axis=(1, 2, 3, 4)).mean())
        below, moved = np.sum(draws < truth, axis=0), truth != 0.0
        coverage.append(np.mean((below[moved] >= 5) & (below[moved] <= 94)))
    assert scipy.stats.ttest_1samp(excess, 0.0).pvalue > FALSE_ALARM
    assert scipy.stats.ttest_1samp(coverage, 0.9).pvalue > FALSE_ALARM


# Order, tables


def test_order_and_ties():
    posterior = make_posterior()
    candidates = make_candidates(posterior.recording)
    by_certainty = rank(posterior, candidates)
    for by in CRITERIA:
        other = by_certainty.ranked_by(by)
        assert other.by == by
        np.testing.assert_array_equal(other.order, rank(posterior, candidates, by=by).order)
        score = getattr(by_certainty, ranking.CRITERIA[by])
        np.testing.assert_array_equal(other.score, score)
        assert np.all(np.diff(score[other.order]) <= 0)
    tied = dataclasses.replace(by_certainty, expected_r2=np.array([0.2, 0.7, np.nan, 0.7, 0.2]))
    np.testing.assert_array_equal(tied.order, [1, 3, 0, 4, 2])


def test_table_dataset_and_text():
    posterior = make_posterior()
    candidates = make_candidates(posterior.recording, 12)
    result = rank(posterior, candidates)
    table = result.top(3)
    np.testing.assert_array_equal(table.index, result.order[:3])
    assert list(table["label"]) == [candidates.labels[index] for index in result.order[:3]]
    np.testing.assert_array_equal(table["expected R²"], np.sort(result.expected_r2)[::-1][:3])
    np.testing.assert_allclose(table["power [current² s]"], 0.3)
    assert len(result.top(100)) == 12
    dataset = result.to_xarray()
    assert dataset.sizes == {
        "candidate": 12,
        "neuron": NEURONS,
        "bound": 2,
        "quantile": 3,
        "time": 15,
        "condition": 3,
        "rank": 12,
    }
    assert dataset["response_mean"].attrs["units"] == "current"
    np.testing.assert_array_equal(dataset["expected_r2"].sel(candidate=candidates.labels[4]), result.expected_r2[4])
    assert "12 candidates by certainty" in repr(result)
    assert "... and 2 more" in str(result)
    assert candidates.labels[result.order[0]] in str(result)
    assert isinstance(result.plot(), Figure)
    with pytest.raises(ValueError, match="read-only"):
        result.expected_r2[0] = 1.0


# Bad inputs


def bad(posterior, candidates, call, **options):
    return getattr(prediction, call)(posterior, candidates, **options)


PREDICT, RANK = "predict_responses", "rank_perturbations"
LATE = np.eye(1, BINS, BINS - 2).ravel()
BAD_OPTIONS = {
    "quantity": (
        PREDICT,
        {"quantity": "currents"},
        "quantity: expected one of 'current', 'rate', got 'currents'; did you mean 'current'?",
    ),
    "criterion": (
        RANK,
        {"by": "informative"},
        "by: expected one of 'certainty', 'contraction', 'information', got 'informative'; did you mean 'information'?",
    ),
    "no draws": (
        PREDICT,
        {"num_draws": 0},
        "num_draws: expected an integer >= 1, got 0; give it as an int within these bounds",
    ),
    "one draw": (
        RANK,
        {"num_draws": 1},
        "num_draws: expected an integer >= 2, got 1; a spread needs 2 draws at least, and intervals 300",
    ),
    "seed": (RANK, {"seed": -1}, "seed: expected an integer >= 0, got -1; give it as an int within these bounds"),
    "axes of inputs": (
        PREDICT,
        {"inputs": np.zeros((BINS, 2))},
        "inputs: expected an array of real numbers with axes (condition, time, input), got shape (24, 2); give it "
        "3 axes, in this order",
    ),
    "number of inputs": (
        PREDICT,
        {"inputs": np.zeros((1, BINS, 3))},
        "inputs: expected shape (condition=any, time=any, input=2), got (1, 24, 3); check the input axis",
    ),
    "inputs not finite": (
        PREDICT,
        {"inputs": np.full((1, BINS, 2), np.nan)},
        "inputs: expected finite numbers, got 48 of 48 entries NaN or infinite, the first at (0, 0, 0); write 0 "
        "where there is no input",
    ),
    "length of inputs": (
        PREDICT,
        {"inputs": np.zeros((1, 30, 2))},
        "candidates: expected a time course of 30 bins, as the inputs have, got 24 bins; make them from the "
        "recording that was fitted, or pass inputs (condition, time, input) of that length",
    ),
    "window of one number": (
        PREDICT,
        {"window": 0.1},
        "window: expected (start, stop) in s within the trial of 0.24 s, got 0.1; times count from the start of "
        "the trial",
    ),
    "window of words": (
        PREDICT,
        {"window": ("a", 0.2)},
        "window: expected (start, stop) in s within the trial of 0.24 s, got 'a'; times count from the start of "
        "the trial",
    ),
    "window beyond the trial": (
        PREDICT,
        {"window": (0.1, 0.3)},
        "window: expected (start, stop) in s within the trial of 0.24 s, got (0.1, 0.3); times count from the "
        "start of the trial",
    ),
    "window before the trial": (
        PREDICT,
        {"window": (-0.1, 0.2)},
        "window: expected (start, stop) in s within the trial of 0.24 s, got (-0.1, 0.2); times count from the "
        "start of the trial",
    ),
    "empty window": (
        RANK,
        {"window": (0.15, 0.15)},
        "window: expected (start, stop) in s within the trial of 0.24 s, with a bin in it, got (0.15, 0.15); bins "
        "are 0.01 s wide",
    ),
    "window before the response": (
        RANK,
        {"window": (0.0, 0.1)},
        "window: expected a stop after 0.1 s, where the first response appears, got (0, 0.1); look later: the "
        "stimulation starts at 0.08 s, and until then the response is zero",
    ),
    "readout of other neurons": (
        RANK,
        {"readout": np.ones(3)},
        "readout: expected shape (neuron=7), got (3,); give one weight per neuron",
    ),
    "readout not finite": (
        RANK,
        {"readout": np.full(7, np.inf)},
        "readout: expected finite numbers, got 7 of 7 entries NaN or infinite, the first at (0,); write 0 for "
        "neurons that do not count",
    ),
    "readout of zeros": (
        RANK,
        {"readout": np.zeros(7)},
        "readout: expected a weight that is not 0, got zeros only; weigh the neurons that are read out",
    ),
    "memory of draws": (
        PREDICT,
        {"num_draws": 10**7},
        "num_draws: expected an array of at most 4 GB, got 126 GB; ask for fewer draws, candidates or conditions, "
        "or a shorter window; rank_perturbations keeps no draws",
    ),
}


@pytest.mark.parametrize(("call", "options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_bad_options(call, options, message):
    posterior = make_posterior()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        bad(posterior, make_candidates(posterior.recording), call, **options)


BAD_CANDIDATES = {
    "no candidates": (
        np.eye(NEURONS),
        "candidates: expected Candidates, got ndarray; make them with single_neuron_candidates(recording) or "
        "another maker",
    ),
    "other neurons": (
        lrp.Candidates(np.eye(3), np.ones(BINS), dt=DT),
        "candidates: expected patterns on the 7 neurons of the recording that was fitted, got 3 neurons; make "
        "them from that recording",
    ),
    "other bins": (
        lrp.Candidates(np.eye(NEURONS), np.ones(BINS), dt=0.02),
        "candidates: expected bins of dt = 0.01 s, as in the recording that was fitted, got 0.02 s; make the time "
        "course in these bins",
    ),
    "other length": (
        lrp.Candidates(np.eye(NEURONS), np.ones(30), dt=DT),
        "candidates: expected a time course of 24 bins, as the inputs have, got 30 bins; make them from the "
        "recording that was fitted, or pass inputs (condition, time, input) of that length",
    ),
    "too late": (
        lrp.Candidates(np.eye(NEURONS), LATE, dt=DT),
        "candidates: expected a stimulation that starts before 0.22 s, two bins before the end, got its onset at "
        "0.22 s; stimulate earlier: the response comes after the end of the trial",
    ),
}


@pytest.mark.parametrize(("candidates", "message"), BAD_CANDIDATES.values(), ids=BAD_CANDIDATES.keys())
@pytest.mark.parametrize("call", [PREDICT, RANK])
def test_bad_candidates(call, candidates, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        bad(make_posterior(), candidates, call)


def test_bad_posterior_and_table():
    posterior = make_posterior()
    candidates = make_candidates(posterior.recording)
    with pytest.raises(
        ValueError, match=re.escape("posterior: expected Posterior, got dict; pass what fit(...) returned")
    ):
        predict(posterior.mode, candidates)
    few = dataclasses.replace(
        posterior, distribution=SampleDistribution(posterior.distribution.sample(5, seed=0)[None])
    )
    with pytest.raises(ValueError, match="num_draws: expected at most the 5 draws that were sampled, got 40; "):
        rank(few, candidates)
    result = rank(posterior, candidates)
    with pytest.raises(ValueError, match="num_best: expected an integer >= 1, got 0; "):
        result.top(0)
    with pytest.raises(ValueError, match="by: expected one of 'certainty', 'contraction', 'information', got 'r2'; "):
        result.ranked_by("r2")


def test_too_many_candidates_for_the_memory(monkeypatch):
    monkeypatch.setattr(prediction, "MAX_STORED_GIGABYTES", 1e-6)
    posterior = make_posterior()
    message = "candidates: expected an array of at most 1e-06 GB, got 1.26e-05 GB; rank fewer candidates at a time"
    with pytest.raises(ValueError, match=re.escape(message)):
        rank(posterior, make_candidates(posterior.recording))


def test_networks_that_diverge():
    posterior = make_posterior(nonlinearity="linear", priors=lrp.Priors(K=1e30, unit=1.0))
    candidates = make_candidates(posterior.recording)
    tame = posterior.mode_coordinates.copy()
    tame[posterior.space.slices["K"]] *= 1e-30
    certain = dataclasses.replace(
        posterior, mode_coordinates=tame, distribution=NormalDistribution(tame, 1e-32 * np.eye(posterior.space.size))
    )
    result = rank(certain, candidates)
    assert np.isnan(result.contraction).all()
    assert np.isfinite(result.information).all()
    message = "by: expected 'certainty' or 'information', since networks drawn from the prior run away"
    with pytest.raises(ValueError, match=message):
        rank(certain, candidates, by="contraction")
    with pytest.raises(ValueError, match=message):
        result.ranked_by("contraction")
    with pytest.raises(ValueError, match="posterior: expected networks whose responses are finite, got draws that"):
        predict(posterior, candidates)
    with pytest.raises(ValueError, match=r"posterior: expected networks whose activity stays bounded .* that run away"):
        rank(posterior, candidates)
