"""The posterior: its operators, moments and predictions against plain NumPy, whatever the gauge of what it stores."""

import dataclasses
import re

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from handmade import (
    BINS,
    INPUTS,
    NEURONS,
    TRIALS,
    fit_small_recording,
    in_another_gauge,
    make_posterior,
    make_recording,
)
from plain import plain_model

import lrposterior as lrp
from lrposterior import posterior as posterior_module
from lrposterior.distribution import NormalDistribution, SampleDistribution

DRAWS, RANK = 7, 2
RANDOM = np.random.default_rng(1)
DENSE = RANDOM.standard_normal((NEURONS, NEURONS)) / NEURONS
SPARSE = scipy.sparse.csr_array(DENSE * (RANDOM.random((NEURONS, NEURONS)) < 0.4))
FACTORS = RANDOM.standard_normal((2, NEURONS, 2)) / np.sqrt(NEURONS)
BACKGROUNDS = {
    "none": None,
    "dense": lrp.FixedBackground(DENSE),
    "sparse": lrp.FixedBackground(SPARSE),
    "factors": lrp.FixedBackground(left=FACTORS[0], right=FACTORS[1]),
    "sparse and factors": lrp.FixedBackground(SPARSE, *FACTORS),
}
W0 = {"none": np.zeros((NEURONS, NEURONS)), "dense": DENSE, "sparse": SPARSE.toarray()}
W0 |= {"factors": FACTORS[0] @ FACTORS[1].T, "sparse and factors": SPARSE.toarray() + FACTORS[0] @ FACTORS[1].T}

MODELS = {
    "plain": plain_model(rank=2),
    "everything inferred": plain_model(
        rank=3, time_constant=lrp.TimeConstantPrior(0.05, spread=0.8), nonlinearity="softplus", initial_state="free"
    ),
    "relu, dense background": plain_model(rank=1, nonlinearity="relu", background=BACKGROUNDS["dense"]),
    "linear, sparse background, free initial state": plain_model(
        rank=2, nonlinearity="linear", background=BACKGROUNDS["sparse"], initial_state="free", time_constant=0.02
    ),
    "known factors": plain_model(rank=2, background=BACKGROUNDS["factors"], initial_state="free"),
    "sparse background and known factors": plain_model(rank=1, background=BACKGROUNDS["sparse and factors"]),
}


@pytest.fixture(scope="module")
def fitted():
    return fit_small_recording()


def dense_draws(parameters, background=None):
    """(draw, post, pre) by the definition of W, one draw after the other."""
    fixed = 0.0 if background is None else background.to_dense()
    return np.stack([M @ K.T / len(M) + fixed for M, K in zip(parameters["M"], parameters["K"], strict=True)])


# -------------------------------------------------------------------------------------------------------- connectivity


@pytest.fixture(params=BACKGROUNDS)
def operator(request):
    random = np.random.default_rng(2)
    M, K = random.standard_normal((2, DRAWS, NEURONS, RANK))
    W = lrp.LowRankConnectivity(M, K, BACKGROUNDS[request.param])
    return W, np.einsum("dir,djr->dij", M, K) / NEURONS + W0[request.param]


def test_to_dense(operator):
    W, dense = operator
    np.testing.assert_allclose(W.to_dense(), dense, atol=1e-14)
    assert (W.num_draws, W.num_neurons, W.rank) == (DRAWS, NEURONS, RANK)


@pytest.mark.parametrize("shape", [(NEURONS,), (DRAWS, NEURONS)])
def test_products(operator, shape):
    W, dense = operator
    vector = np.random.default_rng(4).standard_normal(shape)
    by_draw = np.broadcast_to(vector, (DRAWS, NEURONS))
    np.testing.assert_allclose(W.matvec(vector), np.einsum("dij,dj->di", dense, by_draw), atol=1e-13)
    np.testing.assert_allclose(W.rmatvec(vector), np.einsum("dij,di->dj", dense, by_draw), atol=1e-13)


@pytest.mark.parametrize(("post", "pre"), [([0, 3, 3, -1], [1, 3, 0, -2]), (2, 4), (np.array([4]), [0])])
def test_entries(operator, post, pre):
    W, dense = operator
    entries = W.entries(post, pre)
    assert entries.dtype == np.float64
    np.testing.assert_allclose(entries, dense[:, np.atleast_1d(post), np.atleast_1d(pre)], atol=1e-14)


@pytest.mark.parametrize(("post", "pre"), [([0, 3, -1], [4, 4]), (2, [0, 1]), ([1], 3)])
def test_block(operator, post, pre):
    W, dense = operator
    expected = dense[:, np.atleast_1d(post)][:, :, np.atleast_1d(pre)]
    np.testing.assert_allclose(W.block(post, pre), expected, atol=1e-14)


def test_eigenvalues(operator):
    W, dense = operator
    values = W.eigenvalues()
    num_known = 0 if W.background is None else NEURONS if W.background.W0 is not None else FACTORS.shape[2]
    assert values.shape == (DRAWS, min(RANK + num_known, NEURONS))
    assert values.dtype == np.complex128
    assert np.all(np.diff(np.abs(values), axis=1) <= 1e-12)
    for found, matrix in zip(values, dense, strict=True):
        complete = np.concatenate([found, np.zeros(NEURONS - len(found))])  # rank R: the other N - R are zero
        distance = np.abs(complete[:, None] - np.linalg.eigvals(matrix)[None, :])
        assert distance[scipy.optimize.linear_sum_assignment(distance)].max() < 1e-7


def test_singular_values_and_effective_rank(operator):
    W, dense = operator
    values = W.singular_values()
    expected = np.linalg.svd(dense, compute_uv=False)
    np.testing.assert_allclose(values, expected[:, : values.shape[1]], atol=1e-13)
    np.testing.assert_allclose(expected[:, values.shape[1] :], 0.0, atol=1e-13)
    gram = dense @ np.swapaxes(dense, 1, 2)
    participation = np.trace(gram, axis1=1, axis2=2) ** 2 / np.trace(gram @ gram, axis1=1, axis2=2)
    np.testing.assert_allclose(W.effective_rank(), participation)


def test_dense_draws_have_a_size_limit(operator):
    W, _ = operator
    exact = 8 * DRAWS * NEURONS**2 / 1e9
    W.to_dense(max_gigabytes=1.001 * exact)
    with pytest.raises(ValueError, match=r"to_dense: expected an array of at most .* GB, got .* GB; use matvec,"):
        W.to_dense(max_gigabytes=0.999 * exact)


# ------------------------------------------------------------------------------------------------------------- moments


def brute_force_moments(posterior):
    """Mean and standard deviation of W, entry by entry, from the covariance of all pairs of parameters.

    For jointly Normal x, y: E xy = m_x m_y + C_xy and, for a second pair u, v,
    Cov(xy, uv) = m_x m_u C_yv + m_x m_v C_yu + m_y m_u C_xv + m_y m_v C_xu + C_xu C_yv + C_xv C_yu.
    """
    space, normal, rank = posterior.space, posterior.distribution, posterior.model.rank
    num_neurons = posterior.recording.num_neurons
    mean = np.concatenate([np.full(block.size, block.mean) for block in space.blocks])
    sds = np.concatenate([np.full(block.size, block.standard_deviation) for block in space.blocks])
    mean = mean + sds * normal.location
    C = normal.scale @ normal.scale.T * np.outer(sds, sds)
    fixed = np.zeros((num_neurons, num_neurons))
    if posterior.model.background is not None:
        fixed = posterior.model.background.to_dense()
    W, sd = np.zeros((2, num_neurons, num_neurons))
    start = {name: space.slices[name].start for name in ("M", "K")}
    for i in range(num_neurons):
        for j in range(num_neurons):
            pairs = [(start["M"] + i * rank + r, start["K"] + j * rank + r) for r in range(rank)]
            W[i, j] = fixed[i, j] + sum(mean[x] * mean[y] + C[x, y] for x, y in pairs) / num_neurons
            variance = 0.0
            for x, y in pairs:
                for u, v in pairs:
                    variance += mean[x] * mean[u] * C[y, v] + mean[x] * mean[v] * C[y, u]
                    variance += mean[y] * mean[u] * C[x, v] + mean[y] * mean[v] * C[x, u]
                    variance += C[x, u] * C[y, v] + C[x, v] * C[y, u]
            sd[i, j] = np.sqrt(variance) / num_neurons
    return W, sd


@pytest.mark.parametrize("background", [None, lrp.FixedBackground(DENSE[:3, :3])], ids=["no background", "background"])
def test_exact_moments_of_a_normal_posterior(background):
    recording = lrp.Recording(np.random.default_rng(0).standard_normal((2, 6, 3)), 0.02)
    posterior = make_posterior(plain_model(rank=2, background=background), recording)
    W, sd = brute_force_moments(posterior)
    np.testing.assert_allclose(posterior.connectivity_mean(), W, atol=1e-13)
    np.testing.assert_allclose(posterior.connectivity_sd(), sd, atol=1e-13)


@pytest.mark.parametrize("kind", ["fitted", "by hand"])
def test_moments_against_draws(kind, fitted):
    posterior = fitted if kind == "fitted" else make_posterior(MODELS["linear, sparse background, free initial state"])
    num_draws = 40_000
    draws = posterior.sample_connectivity(num_draws, seed=1).to_dense()
    centered = draws - draws.mean(axis=0)
    variance, fourth = (centered**2).mean(axis=0), (centered**4).mean(axis=0)
    errors = [
        (draws.mean(axis=0) - posterior.connectivity_mean()) / np.sqrt(variance / num_draws),
        (variance - posterior.connectivity_sd() ** 2) / np.sqrt((fourth - variance**2) / num_draws),
    ]
    for error in errors:  # in units of the Monte-Carlo standard error
        assert np.abs(error).max() < 4.5
        assert np.sqrt(np.mean(error**2)) < 2.0


def test_moments_of_stored_draws_are_theirs():
    posterior = make_posterior(MODELS["relu, dense background"], chains=True)
    parameters = posterior.space.unwhiten(posterior.distribution.draws.reshape(-1, posterior.space.size))
    draws = dense_draws(parameters, posterior.model.background)
    np.testing.assert_allclose(posterior.connectivity_mean(), draws.mean(axis=0), atol=1e-13)
    np.testing.assert_allclose(posterior.connectivity_sd(), draws.std(axis=0, ddof=1), atol=1e-13)


def test_moments_have_a_size_limit(monkeypatch):
    monkeypatch.setattr(posterior_module, "MAX_GIGABYTES", 1e-6)
    refused = r"connectivity: expected an array of at most .*; use connectivity_entries, or sample_connectivity"
    with pytest.raises(ValueError, match=refused):
        make_posterior().connectivity_mean()


@pytest.mark.parametrize("probability", [0.5, 0.9])
def test_interval_holds_its_share_of_other_draws(fitted, probability):
    lower, upper = fitted.connectivity_interval(probability, num_draws=2000, seed=1)
    others = fitted.sample_connectivity(4000, seed=2).to_dense()
    inside = ((lower < others) & (others < upper)).mean(axis=0)
    # standard error of one entry: both ends are quantiles of 2,000 draws, the share is one of 4,000
    error = np.sqrt(probability * (1 - probability) * (1 / 2000 + 1 / 4000))
    assert np.abs(inside - probability).max() < 4.5 * error
    below = (others <= lower).mean(axis=0)
    assert np.abs(below - (1 - probability) / 2).max() < 4.5 * error


TIME_CONSTANTS = {
    "shared": (lrp.TimeConstantPrior(0.05, 0.4), [lrp.TimeConstantPrior(0.05, 0.4)]),
    "types": ({"I": 0.06, "E": lrp.TimeConstantPrior(0.1, 0.3)}, [0.06, lrp.TimeConstantPrior(0.1, 0.3)]),
    "neurons": (lrp.PerNeuron([lrp.TimeConstantPrior(0.08), *[0.03] * 3, lrp.TimeConstantPrior(0.2)]),) * 2,
}


@pytest.mark.parametrize("case", TIME_CONSTANTS)
def test_intervals_of_time_constants_are_those_of_their_normal_coordinates(case):
    """tau - dt is log-normal; the ends from 4,000 draws are within 0.1 standard deviations."""
    given, entries = TIME_CONSTANTS[case]
    entries = getattr(entries, "each", entries)
    posterior = make_posterior(plain_model(2, given))
    dt, where = posterior.recording.dt, posterior.space.slices["log_time_constant_excess"]
    center = posterior.distribution.location[where]
    sd = np.sqrt(np.sum(posterior.distribution.scale[where] ** 2, axis=1))
    priors = [entry for entry in entries if isinstance(entry, lrp.TimeConstantPrior)]
    inferred = [isinstance(entry, lrp.TimeConstantPrior) for entry in entries]
    ends = posterior.time_constant_interval(0.8, num_draws=4000, seed=1)
    assert all(end.shape == posterior.mode["time_constant"].shape for end in ends)
    for end, quantile in zip(ends, (-1.2816, 1.2816), strict=True):
        tau = np.atleast_1d(end)
        found = [
            np.log((each - dt) / (prior.median - dt)) / prior.spread
            for each, prior in zip(tau[inferred], priors, strict=True)
        ]
        np.testing.assert_array_less(np.abs(found - (center + quantile * sd)), 0.1 * sd)
        fixed = [entry for entry in entries if not isinstance(entry, lrp.TimeConstantPrior)]
        np.testing.assert_allclose(tau[~np.array(inferred)], fixed, rtol=1e-12)
    lower, upper = posterior.integration_constant_interval(0.8, num_draws=4000, seed=1)
    np.testing.assert_allclose([lower, upper], [dt / ends[1], dt / ends[0]])
    assert np.all((lower > 0.0) & (lower <= upper) & (upper < 1.0))


def test_inferred_time_constants_are_printed_with_their_intervals():
    posterior = make_posterior(plain_model(2, TIME_CONSTANTS["types"][0]))
    lower, upper = (end[1] for end in posterior.time_constant_interval(seed=0))
    tau, dt = posterior.mode["time_constant"][1], posterior.recording.dt
    said = (
        f"inferred time constants: E {tau:.3g} s ({lower:.3g} to {upper:.3g}), "
        f"a = dt / tau {dt / tau:.3g} ({dt / upper:.3g} to {dt / lower:.3g})"
    )
    assert said in str(posterior).splitlines()
    points = dataclasses.replace(posterior, method="match")
    assert f"inferred time constants: E {tau:.3g} s, a = dt / tau {dt / tau:.3g}" in str(points).splitlines()
    with pytest.raises(ValueError, match="posterior: expected a posterior, got point estimates"):
        points.time_constant_interval(seed=0)
    of_neurons = str(make_posterior(plain_model(2, TIME_CONSTANTS["neurons"][0])))
    assert re.search(r"inferred time constants: 2 of 5 neurons, .* s wide \(median\)", of_neurons)
    assert "time constants" not in str(make_posterior())
    assert "inferred time constants" in str(make_posterior(plain_model(2, TIME_CONSTANTS["types"][0]), chains=True))


# --------------------------------------------------------------------------------------------------------------- draws


@pytest.mark.parametrize("chains", [False, True], ids=["normal", "chains"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_draws_have_the_names_and_axes_of_the_mode(model, chains):
    posterior = make_posterior(model, chains=chains)
    mode, draws = posterior.mode, posterior.sample_parameters(6, seed=0)
    expected = {
        "M": (NEURONS, model.rank),
        "K": (NEURONS, model.rank),
        "B": (NEURONS, INPUTS),
        "b": (NEURONS,),
        "noise_scale": (NEURONS,),
        "time_constant": (),
    }
    if model.initial_state == "free":
        expected["initial_kappa"] = (TRIALS, model.rank)
    assert {name: value.shape for name, value in mode.items()} == expected
    assert {name: value.shape for name, value in draws.items()} == {k: (6, *v) for k, v in expected.items()}
    assert np.all(draws["noise_scale"] > 0.0)
    assert np.all(draws["time_constant"] >= posterior.recording.dt)


def test_draws_of_a_normal_posterior_have_its_moments():
    normal = make_posterior().distribution
    draws = normal.sample(20_000, seed=0)
    covariance = normal.scale @ normal.scale.T
    np.testing.assert_allclose(draws.mean(axis=0), normal.location, atol=4.5 * np.sqrt(covariance.max() / 20_000))
    deviation = np.cov(draws, rowvar=False) - covariance
    error = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / 20_000)
    assert np.abs(deviation / error).max() < 6.0  # the largest of about a thousand


@pytest.mark.parametrize("chains", [False, True], ids=["normal", "chains"])
def test_draws_follow_their_seed(chains):
    posterior = make_posterior(chains=chains)
    one, same, other = (posterior.sample_parameters(30, seed=seed) for seed in (0, 0, 1))
    for name in ("M", "K", "B", "b", "noise_scale"):
        np.testing.assert_array_equal(one[name], same[name])
        assert np.any(one[name] != other[name])
    W = posterior.sample_connectivity(30, seed=0)
    np.testing.assert_array_equal(W.M, one["M"])
    np.testing.assert_array_equal(W.K, one["K"])


def test_stored_draws_are_given_out_once_each():
    stored = make_posterior(chains=True).distribution
    flat = stored.draws.reshape(-1, stored.draws.shape[2])
    np.testing.assert_array_equal(stored.sample(len(flat), seed=0), flat)
    some = stored.sample(50, seed=3)
    matches = (some[:, None, :] == flat[None, :, :]).all(axis=2)
    assert np.all(matches.sum(axis=1) == 1)
    assert len(set(matches.argmax(axis=1).tolist())) == 50


def test_factors_are_in_the_canonical_gauge():
    """Whitened columns are orthogonal, and as long in the left as in the right factor; the left one leans positive."""
    posterior = make_posterior(MODELS["everything inferred"])
    draws, prior = posterior.sample_parameters(5, seed=0), posterior.space
    for draw in range(5):
        left = draws["M"][draw] / prior["M"].standard_deviation
        right = np.concatenate([draws[name][draw] / prior[name].standard_deviation for name in ("K", "initial_kappa")])
        np.testing.assert_allclose(left.T @ left, right.T @ right, atol=1e-12)
        off_diagonal = left.T @ left - np.diag(np.diag(left.T @ left))
        np.testing.assert_allclose(off_diagonal, 0.0, atol=1e-12)
        assert np.all(left[np.abs(left).argmax(axis=0), range(left.shape[1])] > 0)


def test_functions_of_W_are_those_of_its_draws(fitted):
    W = fitted.sample_connectivity(40, seed=5)
    np.testing.assert_array_equal(fitted.eigenvalues(40, seed=5), W.eigenvalues())
    np.testing.assert_array_equal(fitted.effective_rank(40, seed=5), W.effective_rank())
    mode = fitted.mode
    np.testing.assert_allclose(fitted.mode_connectivity.to_dense()[0], mode["M"] @ mode["K"].T / len(mode["M"]))
    assert "laplace, converged: rank 2, 6 neurons, 4 trials x 20 bins" in repr(fitted)


# ----------------------------------------------------------------------------------------------------------- the gauge


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_nothing_that_is_given_out_depends_on_the_gauge(model):
    posterior = make_posterior(model, chains=True)
    moved = in_another_gauge(posterior)
    assert not np.allclose(posterior.distribution.draws, moved.distribution.draws)
    outputs = [
        lambda p: p.mode,
        lambda p: p.sample_parameters(30, seed=0),
        lambda p: p.sample_connectivity(30, seed=0).to_dense(),
        lambda p: p.connectivity_mean(),
        lambda p: p.connectivity_sd(),
        lambda p: p.connectivity_interval(0.8, num_draws=100, seed=0),
        lambda p: np.abs(p.eigenvalues(30, seed=0)),  # pairs of equal magnitude may swap
        lambda p: p.effective_rank(30, seed=0),
        lambda p: p.predict_rates(num_draws=5, seed=0),
        lambda p: p.mode_rates(),
    ]
    for output in outputs:
        one, other = output(posterior), output(moved)
        if isinstance(one, dict):
            assert list(one) == list(other)
            one, other = list(one.values()), list(other.values())
        pairs = zip(one, other, strict=True) if isinstance(one, list | tuple) else [(one, other)]
        for before, after in pairs:
            np.testing.assert_allclose(after, before, rtol=1e-7, atol=1e-9)


# --------------------------------------------------------------------------------------------------------------- rates

PHI = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "linear": lambda x: x,
}


def simulate(model, parameters, inputs, stimulation, dt, initial_kappa=None):
    """Rates (trial, time, neuron) of one network by the equations of `LowRankModel`, one bin after the other."""
    phi, a = PHI[model.nonlinearity], dt / parameters["time_constant"]
    W = parameters["M"] @ parameters["K"].T / len(parameters["M"])
    if model.background is not None:
        W = W + model.background.to_dense()
    rates = np.zeros((*inputs.shape[:2], len(W)))
    for trial in range(len(inputs)):
        x = np.zeros(len(W))
        if initial_kappa is not None:
            x = parameters["M"] @ initial_kappa[trial] + parameters["b"]
        for time in range(inputs.shape[1]):
            rates[trial, time] = phi(x)
            drive = W @ phi(x) + parameters["B"] @ inputs[trial, time] + parameters["b"]
            if stimulation is not None:
                drive = drive + stimulation[trial, time]
            x = (1.0 - a) * x + a * drive
    return rates


def draws_of(parameters):
    return [{name: values[draw] for name, values in parameters.items()} for draw in range(len(parameters["b"]))]


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_rates_of_the_recorded_trials(model):
    posterior = make_posterior(model)
    recording, given = posterior.recording, posterior.predict_rates(num_draws=10, seed=3)
    assert given.shape == (10, TRIALS, BINS, NEURONS)
    one_by_one = draws_of(posterior.sample_parameters(10, seed=3))
    for rates, draw in [*zip(given, one_by_one, strict=True), (posterior.mode_rates(), posterior.mode)]:
        expected = simulate(
            model, draw, recording.inputs, recording.stimulation, recording.dt, draw.get("initial_kappa")
        )
        np.testing.assert_allclose(rates, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("num_trials", [1, TRIALS, 6])
@pytest.mark.parametrize("stimulated", [False, True])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_rates_of_new_trials(model, stimulated, num_trials):
    """They start from the mean of the initial latents, however many there are, and receive what is given alone."""
    posterior = make_posterior(model)
    random = np.random.default_rng(6)
    inputs = random.standard_normal((num_trials, 12, INPUTS))
    stimulation = random.standard_normal((num_trials, 12, NEURONS)) if stimulated else None
    given = posterior.predict_rates(inputs, stimulation=stimulation, num_draws=3, seed=3)
    at_mode = posterior.mode_rates(inputs, stimulation=stimulation)
    one_by_one = draws_of(posterior.sample_parameters(3, seed=3))
    for rates, draw in [*zip(given, one_by_one, strict=True), (at_mode, posterior.mode)]:
        initial = draw.get("initial_kappa")
        if initial is not None:
            initial = np.tile(initial.mean(axis=0), (num_trials, 1))
        expected = simulate(model, draw, inputs, stimulation, posterior.recording.dt, initial)
        np.testing.assert_allclose(rates, expected, rtol=1e-9, atol=1e-10)


def test_stimulation_of_the_recorded_trials_can_be_replaced():
    posterior = make_posterior()
    silence = np.zeros((TRIALS, BINS, NEURONS))
    given = posterior.predict_rates(stimulation=silence, num_draws=2, seed=0)
    draws = draws_of(posterior.sample_parameters(2, seed=0))
    for rates, draw in zip(given, draws, strict=True):
        expected = simulate(posterior.model, draw, posterior.recording.inputs, None, posterior.recording.dt)
        np.testing.assert_allclose(rates, expected, rtol=1e-9, atol=1e-12)


def test_rates_are_the_same_in_batches_and_for_users_of_single_precision(single_precision):
    posterior = make_posterior()
    together = posterior.predict_rates(num_draws=19, seed=0)
    assert together.dtype == np.float64
    draw = draws_of(posterior.sample_parameters(19, seed=0))[18]
    recording = posterior.recording
    expected = simulate(posterior.model, draw, recording.inputs, recording.stimulation, recording.dt)
    np.testing.assert_allclose(together[18], expected, rtol=1e-9, atol=1e-12)


# -------------------------------------------------------------------------------------------------------- immutability


@pytest.mark.parametrize("chains", [False, True], ids=["normal", "chains"])
def test_nothing_can_be_changed(chains):
    posterior = make_posterior(chains=chains)
    distribution = posterior.distribution
    arrays = [
        posterior.mode_coordinates,
        posterior.connectivity_mean(),
        posterior.connectivity_sd(),
        *posterior.mode.values(),
        posterior.recording.activity,
        distribution.draws if chains else distribution.scale,
    ]
    for array in arrays:
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0
    for frozen, name in (
        (posterior, "mode_coordinates"),
        (distribution, "draws" if chains else "location"),
        (posterior.statistics, "elbo"),
        (posterior.sample_connectivity(2, seed=0), "M"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(frozen, name, 0)


def test_mode_is_a_copy():
    posterior = make_posterior()
    M = posterior.mode["M"].copy()
    handed_out = posterior.mode
    handed_out["M"] = np.zeros(3)
    del handed_out["K"]
    np.testing.assert_array_equal(posterior.mode["M"], M)
    assert "K" in posterior.mode


def test_arrays_that_it_was_made_from_may_change():
    center, scale, stored = np.ones(3), np.eye(3), np.ones((1, 2, 3))
    normal, chains = NormalDistribution(center, scale), SampleDistribution(stored)
    center[:], scale[:], stored[:] = 9.0, 9.0, 9.0
    assert normal.location[0] == normal.scale[0, 0] == chains.draws[0, 0, 0] == 1.0


# ---------------------------------------------------------------------------------------------------------- bad inputs


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.sample_parameters(0, seed=0), "num_draws: expected an integer >= 1, got 0"),
        (lambda p: p.sample_parameters(2.0, seed=0), "num_draws: expected an integer >= 1, got 2.0"),
        (lambda p: p.sample_connectivity(3, seed=None), "seed: expected an integer >= 0, got None"),
        (lambda p: p.sample_connectivity(3, seed=-2), "seed: expected an integer >= 0, got -2"),
        (lambda p: p.connectivity_interval(0.0, seed=0), "probability: expected a number between 0 and 1"),
        (lambda p: p.connectivity_interval(90, seed=0), "write 0.9 for 90%"),
        (lambda p: p.eigenvalues(-1, seed=0), "num_draws: expected an integer >= 1, got -1"),
        (lambda p: p.predict_rates(num_draws=True, seed=0), "num_draws: expected an integer >= 1, got True"),
        (lambda p: p.predict_rates(np.zeros((2, 3)), seed=0), "inputs: expected an array of real numbers with axes"),
        (lambda p: p.predict_rates(np.zeros((2, 3, 4)), seed=0), "inputs: expected shape (trial=any, time=any, inp"),
        (lambda p: p.predict_rates(np.zeros((0, 3, 2)), seed=0), "inputs: expected at least one entry on every axis"),
        (lambda p: p.predict_rates(np.full((1, 3, 2), np.nan), seed=0), "inputs: expected finite numbers, got 6 of 6"),
        (lambda p: p.predict_rates([["a"]], seed=0), "inputs: expected an array of real numbers"),
        (
            lambda p: p.predict_rates(np.zeros((2, 3, 2)), stimulation=np.zeros((2, 4, 5)), seed=0),
            "stimulation: expected shape (trial=2, time=3, neuron=5), got (2, 4, 5); check the time axis",
        ),
        (lambda p: p.mode_rates(stimulation=np.zeros(5)), "stimulation: expected an array of real numbers with axes"),
        (lambda p: p.predict_rates(num_draws=10**9, seed=0), "num_draws: expected an array of at most 4 GB, got"),
        (lambda p: p.connectivity_interval(num_draws=10**9, seed=0), "got 200 GB; ask for fewer draws, or use connec"),
        (lambda p: p.sample_connectivity(1, seed=0).matvec(np.zeros(4)), "vector: expected shape (neuron=5), got (4,)"),
        (
            lambda p: p.sample_connectivity(1, seed=0).rmatvec(np.zeros((2, 5))),
            "vector: expected shape (draw=1, neuron",
        ),
        (lambda p: p.sample_connectivity(1, seed=0).entries([0, 1], [2]), "pre: expected as many neurons as post, 2"),
        (lambda p: p.sample_connectivity(1, seed=0).entries([5], [2]), "post: expected indices below 5, got 5 to 5"),
        (lambda p: p.sample_connectivity(1, seed=0).block([0], [0.5]), "pre: expected indices of neurons, got [0.5]"),
        (lambda p: p.sample_connectivity(1, seed=0).block([], [0]), "post: expected indices of neurons, got []"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(make_posterior())


def test_more_draws_than_were_stored():
    with pytest.raises(ValueError, match=r"num_draws: expected at most the 120 draws that were sampled, got 121"):
        make_posterior(chains=True).sample_parameters(121, seed=0)


def test_inputs_of_a_recording_that_has_none():
    bare = make_posterior(recording=make_recording(bare=True))
    assert bare.predict_rates(np.zeros((2, 3, 0)), num_draws=1, seed=0).shape == (1, 2, 3, NEURONS)
    with pytest.raises(ValueError, match=r"inputs: expected shape \(trial=any, time=any, input=0\), got \(2, 3, 1\)"):
        bare.predict_rates(np.zeros((2, 3, 1)), num_draws=1, seed=0)


@pytest.mark.parametrize("part", [0.4, 0.6])
def test_a_posterior_says_where_its_draws_lie_too_far_from_the_mode(part):
    """By more than half a nat for each coordinate; in what is printed, and in a ranking."""
    posterior = make_posterior()
    excess = part * posterior.space.size
    statistics = dataclasses.replace(posterior.statistics, diagnostics={"excess nats of draws": excess})
    posterior = dataclasses.replace(posterior, statistics=statistics)
    said = f"beware: draws explain the recording worse than those of the exact posterior, by {excess:.0f} nats where"
    assert (said in str(posterior)) == (part > 0.5)
    candidates = lrp.single_neuron_candidates(posterior.recording, power=1.0)
    ranking = lrp.rank_perturbations(posterior, candidates, num_draws=10, seed=0, progress=False)
    assert (said in str(ranking)) == (part > 0.5)
