"""The model: dynamics, priors, log density and simulation against plain NumPy."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse
import scipy.special
import scipy.stats
from plain import plain_model

import lrposterior as lrp


def plain_currents(parameters, recording, tau, phi, initial, W0=0.0):
    """The equations of the model, written out."""
    M, K, B, b = (np.asarray(parameters[name]) for name in ("M", "K", "B", "b"))
    num_neurons, a = len(M), recording.dt / tau
    stimulation = np.zeros_like(recording.activity) if recording.stimulation is None else recording.stimulation
    x = np.zeros(recording.activity.shape)
    x[:, 0] = initial
    for t in range(recording.num_bins - 1):
        W = M @ K.T / num_neurons + W0
        drive = phi(x[:, t]) @ W.T + recording.inputs[:, t] @ B.T + b + stimulation[:, t]
        x[:, t + 1] = (1.0 - a) * x[:, t] + a * drive
    return x


PHI = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "linear": lambda x: x,
}


def recording_with_stimulation(num_neurons=5, seed=0):
    random = np.random.default_rng(seed)
    shape = (3, 12, num_neurons)
    return lrp.Recording(
        random.standard_normal(shape),
        0.02,
        inputs=random.standard_normal((3, 12, 2)),
        stimulation=random.standard_normal(shape),
        mask=random.random(shape) < 0.9,
    )


def draw_parameters(model, recording, seed=1):
    settled = model.for_recording(recording)
    space = settled.space_for(recording)
    z = np.random.default_rng(seed).standard_normal(space.size)
    return settled, space, z, settled.named(space.unwhiten(z), recording.dt)


@pytest.mark.parametrize("background", [None, "dense", "sparse", "dense and factors"])
@pytest.mark.parametrize("initial_state", ["zero", "free"])
@pytest.mark.parametrize("nonlinearity", PHI)
def test_log_density_is_that_of_the_equations(nonlinearity, initial_state, background):
    recording = recording_with_stimulation()
    matrix = 0.2 * np.random.default_rng(3).standard_normal((5, 5))
    factors = 0.4 * np.random.default_rng(4).standard_normal((2, 5, 3))
    known, W0 = {
        None: (None, 0.0),
        "dense": (lrp.FixedBackground(matrix), matrix),
        "sparse": (lrp.FixedBackground(scipy.sparse.csr_array(matrix)), matrix),
        "dense and factors": (lrp.FixedBackground(matrix, *factors), matrix + factors[0] @ factors[1].T),
    }[background]
    model = plain_model(
        2,
        lrp.TimeConstantPrior(0.1),
        nonlinearity,
        background=known,
        initial_state=initial_state,
    )
    settled, space, z, named = draw_parameters(model, recording)
    initial = named["initial_kappa"] @ named["M"].T + named["b"] if initial_state == "free" else 0.0
    x = plain_currents(named, recording, named["time_constant"], PHI[nonlinearity], initial, W0)
    log_likelihood = scipy.stats.norm.logpdf(recording.activity, PHI[nonlinearity](x), named["noise_scale"])
    expected = log_likelihood[recording.mask].sum()
    log_prior = sum(
        scipy.stats.norm.logpdf(np.asarray(space.unwhiten(z)[block.name]), block.mean, block.standard_deviation).sum()
        for block in space.blocks
    )
    arguments = (settled, space.unwhiten(z), settled.data(recording))
    assert float(lrp.log_likelihood(*arguments)) == pytest.approx(expected, rel=1e-11)
    joint = lrp.log_density(settled, space, space.unwhiten(z), settled.data(recording))
    assert float(joint) == pytest.approx(expected + log_prior, rel=1e-11)


def test_whitening_is_inverted_and_named_parameters_return():
    recording = recording_with_stimulation()
    model = plain_model(2, lrp.TimeConstantPrior(0.1), initial_state="free")
    settled, space, z, named = draw_parameters(model, recording)
    np.testing.assert_allclose(space.whiten(settled.coordinates(named, recording.dt)), z, rtol=1e-12, atol=1e-12)


def test_currents_follow_the_time_constants_of_the_cell_types():
    recording = dataclasses.replace(recording_with_stimulation(), cell_types=list("EIEEI"))
    model = plain_model(2, {"I": lrp.TimeConstantPrior(0.05), "E": 0.1}, initial_state="free")
    settled, space, z, named = draw_parameters(model, recording)
    tau_I, tau_E = named["time_constant"]
    assert tau_E == 0.1
    assert tau_I != pytest.approx(0.05)
    initial = named["initial_kappa"] @ named["M"].T + named["b"]
    tau = np.array([tau_E, tau_I, tau_E, tau_E, tau_I])
    expected = plain_currents(named, recording, tau, np.tanh, initial, 0.0)
    found = settled.currents(space.unwhiten(z), settled.data(recording))
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    np.testing.assert_allclose(space.whiten(settled.coordinates(named, recording.dt)), z, rtol=1e-12, atol=1e-12)


def test_currents_follow_the_time_constants_of_the_neurons():
    recording = recording_with_stimulation()
    given = lrp.PerNeuron([0.1, lrp.TimeConstantPrior(0.05), 0.03, lrp.TimeConstantPrior(0.2), 0.04])
    settled, space, z, named = draw_parameters(plain_model(2, given, initial_state="free"), recording)
    tau = named["time_constant"]
    np.testing.assert_array_equal(tau[[0, 2, 4]], [0.1, 0.03, 0.04])
    initial = named["initial_kappa"] @ named["M"].T + named["b"]
    expected = plain_currents(named, recording, tau, np.tanh, initial, 0.0)
    found = settled.currents(space.unwhiten(z), settled.data(recording))
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    np.testing.assert_allclose(space.whiten(settled.coordinates(named, recording.dt)), z, rtol=1e-12, atol=1e-12)


def test_one_prior_is_that_of_all_neurons_and_no_time_constant_falls_below_a_bin():
    recording = recording_with_stimulation()
    settled = plain_model(1, lrp.PerNeuron(lrp.TimeConstantPrior(0.1, 0.3))).for_recording(recording)
    assert settled == settled.for_recording(recording)
    block = settled.space_for(recording)["log_time_constant_excess"]
    assert block.shape == (5,)
    np.testing.assert_allclose(block.mean, np.log(0.1 - recording.dt))
    np.testing.assert_allclose(block.standard_deviation, 0.3)
    far = settled.named({"log_time_constant_excess": np.full(5, -100.0), "b": np.zeros(5)}, recording.dt)
    assert np.all(far["time_constant"] >= recording.dt)


@pytest.mark.parametrize(
    ("time_constant", "cell_types", "message"),
    [
        ({"E": 0.1, "I": 0.05}, None, "time_constant: expected a recording with cell_types, got one without"),
        ({"E": 0.1}, "EIEEI", r"time_constant: expected a value for each of the cell types .*, got none for \['I'\]"),
        ({"E": 0.1, "I": 0.05, "X": 0.1}, "EIEEI", r"time_constant: .*, got one for \['X'\], of which the recording"),
        ({"E": 0.1, "I": 0.01}, "EIEEI", "time_constant: expected at least the bin width"),
        (lrp.PerNeuron([0.1] * 4), None, "time_constant.each: expected one for each of the 5 neurons, got 4; or one"),
        (lrp.PerNeuron([0.1] * 4 + [0.01]), None, "time_constant: expected at least the bin width"),
    ],
)
def test_time_constants_that_do_not_fit_the_recording_are_refused(time_constant, cell_types, message):
    recording = recording_with_stimulation()
    recording = dataclasses.replace(recording, cell_types=None if cell_types is None else list(cell_types))
    with pytest.raises(ValueError, match=message):
        plain_model(1, time_constant).for_recording(recording)


def test_loadings_by_cell_type_need_cell_types():
    model = plain_model(1, priors=lrp.CorrelatedLoadings(by_cell_type=True))
    with pytest.raises(ValueError, match="by_cell_type: expected a recording with cell_types"):
        model.for_recording(recording_with_stimulation())


def test_time_constant_is_never_below_the_bin_width():
    recording = recording_with_stimulation()
    settled, space, _, _ = draw_parameters(plain_model(1, lrp.TimeConstantPrior(0.03, spread=3.0)), recording)
    draws = np.random.default_rng(0).standard_normal((500, space.size)) * 10.0
    assert np.all(settled.named(space.unwhiten(draws), recording.dt)["time_constant"] >= recording.dt)


def test_median_of_the_time_constant_prior():
    recording = recording_with_stimulation()
    settled, space, z, _ = draw_parameters(plain_model(1, lrp.TimeConstantPrior(0.08)), recording)
    assert settled.named(space.unwhiten(0.0 * z), recording.dt)["time_constant"] == pytest.approx(0.08)


def test_the_prior_of_an_integration_constant_is_logit_normal():
    recording = recording_with_stimulation()
    model = plain_model(1, lrp.PerNeuron(lrp.IntegrationConstantPrior(0.54, spread=0.3)))
    settled, space, _, _ = draw_parameters(model, recording)
    draws = np.random.default_rng(0).standard_normal((4000, space.size))
    a = recording.dt / settled.named(space.unwhiten(draws), recording.dt)["time_constant"]
    assert np.all((a > 0.0) & (a < 1.0))
    logit = scipy.special.logit(a)
    np.testing.assert_allclose(np.median(a, axis=0), 0.54, atol=0.01)
    np.testing.assert_allclose(logit.std(axis=0), 0.3, rtol=0.05)
    assert np.all(scipy.stats.kstest(logit, "norm", (scipy.special.logit(0.54), 0.3), axis=0).pvalue > 1e-3)
    far = settled.named({"log_time_constant_excess": np.full(5, -700.0), "b": np.zeros(5)}, recording.dt)
    assert np.all(far["time_constant"] >= recording.dt)


def test_integration_constants_are_time_constants_at_the_bin_width():
    recording = dataclasses.replace(recording_with_stimulation(), cell_types=list("EIEEI"))
    dt, fixed, prior = recording.dt, lrp.IntegrationConstant(0.25), lrp.IntegrationConstantPrior(0.5, 0.2)
    in_seconds = lrp.TimeConstantPrior(2.0 * dt, 0.2)
    for of_bins, of_seconds in (
        (fixed, 4.0 * dt),
        (prior, in_seconds),
        ({"E": fixed, "I": prior}, {"E": 4.0 * dt, "I": in_seconds}),
        (lrp.PerNeuron(prior), lrp.PerNeuron(in_seconds)),
        (lrp.PerNeuron([fixed, 0.1, prior, prior, in_seconds]), lrp.PerNeuron([4.0 * dt, 0.1, *[in_seconds] * 3])),
    ):
        settled = plain_model(1, of_bins).for_recording(recording)
        assert settled == plain_model(1, of_seconds).for_recording(recording) == settled.for_recording(recording)
    with pytest.raises(ValueError, match=r"time_constant: expected it in s, got a = dt / tau; settle the model"):
        plain_model(1, prior).parameter_space(num_trials=1, num_neurons=5, num_inputs=0, dt=dt)


@pytest.mark.parametrize("num_neurons", [30, 300])
def test_prior_makes_w_of_order_one_at_any_number_of_neurons(num_neurons):
    """The spectral norm of W is M * K, within the fluctuation of two random N x 1 factors."""
    space = plain_model(1).parameter_space(num_trials=1, num_neurons=num_neurons, num_inputs=0, dt=0.02)
    draws = space.unwhiten(np.random.default_rng(0).standard_normal((200, space.size)))
    norms = lrp.LowRankConnectivity(draws["M"], draws["K"]).singular_values()[:, 0]
    assert np.mean(norms) == pytest.approx(2.5, rel=0.05)


def test_unit_is_the_scale_of_unbounded_activity_and_one_for_tanh():
    recording = lrp.Recording(np.full((1, 4, 2), 20.0) + np.arange(8).reshape(1, 4, 2), 0.02)
    root_mean_square = np.sqrt(np.mean(recording.activity**2))
    assert plain_model(1, nonlinearity="relu").for_recording(recording).priors.unit == pytest.approx(root_mean_square)
    assert plain_model(1).for_recording(recording).priors.unit == 1.0
    chosen = plain_model(1, nonlinearity="relu", priors=lrp.Priors(unit=3.0)).for_recording(recording)
    assert chosen.priors.unit == 3.0


def test_simulated_noise_has_the_scale_asked_for_and_the_mean_is_the_network():
    recording = lrp.Recording(np.zeros((40, 30, 4)), 0.02, inputs=np.random.default_rng(0).standard_normal((40, 30, 1)))
    model = plain_model(1)
    named = draw_parameters(model, recording)[3] | {"noise_scale": np.array([0.1, 0.2, 0.3, 0.4])}
    simulated = model.simulate(named, recording, seed=4)
    residual = simulated.activity - np.tanh(plain_currents(named, recording, 0.1, np.tanh, 0.0))
    # 1,200 samples a neuron: four relative standard errors of a standard deviation are 8%.
    np.testing.assert_allclose(residual.std(axis=(0, 1)), named["noise_scale"], rtol=0.08)
    np.testing.assert_array_equal(simulated.activity, model.simulate(named, recording, seed=4).activity)
    assert np.any(simulated.activity != model.simulate(named, recording, seed=5).activity)


def test_large_recordings_are_simulated_a_few_trials_at_once(monkeypatch):
    recording = recording_with_stimulation()
    model = plain_model(2, initial_state="free")
    named = draw_parameters(model, recording)[3]
    at_once = model.simulate(named, recording, seed=3)
    monkeypatch.setattr("lrposterior.model.SIMULATED_AT_ONCE", 2 * 12 * 5)
    in_parts = model.simulate(named, recording, seed=3)
    np.testing.assert_allclose(in_parts.activity, at_once.activity, rtol=1e-12, atol=1e-14)


def test_simulate_recording_returns_the_truth_that_it_ran():
    model = plain_model(2)
    random = np.random.default_rng(0)
    M, K = random.standard_normal((2, 9, 2))
    simulation = lrp.simulate_recording(model, M=M, K=K, num_trials=3, num_bins=15, noise_scale=0.01, seed=2)
    np.testing.assert_array_equal(simulation.parameters["M"], M)
    np.testing.assert_allclose(simulation.connectivity, M @ K.T / 9)
    x = plain_currents(simulation.parameters, simulation.recording, 0.1, np.tanh, 0.0)
    np.testing.assert_allclose(simulation.rates, np.tanh(x), rtol=1e-10, atol=1e-12)
    assert np.std(simulation.recording.activity - simulation.rates) == pytest.approx(0.01, rel=0.15)


def test_default_inputs_have_unit_variance_and_a_correlation_time_of_ten_bins():
    simulation = lrp.simulate_recording(
        plain_model(1), num_neurons=2, num_trials=400, num_bins=40, num_inputs=1, seed=0
    )
    inputs = simulation.recording.inputs[..., 0]
    assert np.var(inputs) == pytest.approx(1.0, abs=0.1)
    assert np.mean(inputs[:, 10:] * inputs[:, :-10]) == pytest.approx(np.exp(-1.0), abs=0.08)


BAD_MODELS = {
    "rank: expected an integer": lambda: plain_model(0),
    "rank: expected an integer >= 1, got 2.0": lambda: plain_model(2.0),
    "nonlinearity: expected one of": lambda: plain_model(1, nonlinearity="tan"),
    "initial_state: expected one of": lambda: plain_model(1, initial_state="fixed"),
    "time_constant: expected one finite number > 0": lambda: plain_model(1, time_constant=0.0),
    "time_constant: expected one finite number > 0, got 'slow'": lambda: plain_model(1, time_constant="slow"),
    r"time_constant\['E'\]: expected one finite number > 0": lambda: plain_model(1, time_constant={"E": -0.1}),
    r"time_constant.each\[1\]: expected one finite number > 0": lambda: lrp.PerNeuron([0.1, -0.1]),
    "time_constant.each: expected one finite number > 0, got 'slow'": lambda: lrp.PerNeuron("slow"),  # pyright: ignore[reportArgumentType]
    "time_constant.each: expected at least one, got none": lambda: lrp.PerNeuron(()),
    "time_constant: expected names of cell types, got the keys": lambda: plain_model(1, time_constant={}),
    r"priors\.by_cell_type: expected True or False, got 'E'": lambda: lrp.CorrelatedLoadings(by_cell_type="E"),
    "median: expected one finite number > 0": lambda: lrp.TimeConstantPrior(-0.1),
    "time_constant.a: expected a number between 0 and 1": lambda: lrp.IntegrationConstant(1.0),
    "median: expected a number between 0 and 1": lambda: lrp.IntegrationConstantPrior(0.0),
    "spread: expected one finite number > 0, got -1": lambda: lrp.IntegrationConstantPrior(0.5, -1.0),
    "spread: expected one finite number > 0": lambda: lrp.TimeConstantPrior(0.1, spread=0.0),
    r"priors\.K: expected one finite number > 0": lambda: lrp.Priors(K=-1.0),
    r"priors\.noise_spread: expected": lambda: lrp.Priors(noise_spread=float("nan")),
    "priors: expected Priors, got dict": lambda: plain_model(1, priors={"K": 1.0}),
    "observation: expected GaussianObservation, .* or CalciumObservation, got str": lambda: plain_model(
        1, observation="gaussian"
    ),
    "of: expected one of 'rate', 'current'": lambda: lrp.GaussianObservation(of="voltage"),
    "background: expected FixedBackground, RandomBulk, SignedBackground or None, got ndarray": lambda: plain_model(
        1, background=np.eye(3)
    ),
    "W0: expected a square matrix": lambda: lrp.FixedBackground(np.ones((2, 3))),
    "W0: expected finite numbers": lambda: lrp.FixedBackground(np.array([[np.nan]])),
    "W0: expected a matrix, or left and right factors, got neither": lambda: lrp.FixedBackground(),
    "right: expected a factor to go with left": lambda: lrp.FixedBackground(left=np.ones((3, 1))),
    "left: expected a factor to go with right": lambda: lrp.FixedBackground(np.eye(3), right=np.ones((3, 1))),
    r"right: expected shape \(neuron=3, dimension=1\), got": lambda: lrp.FixedBackground(
        left=np.ones((3, 1)), right=np.ones((3, 2))
    ),
    r"left: expected shape \(neuron=3, dimension=any\), got": lambda: lrp.FixedBackground(
        np.eye(3), np.ones((4, 1)), np.ones((4, 1))
    ),
    "right: expected finite numbers": lambda: lrp.FixedBackground(left=np.ones((3, 1)), right=np.full((3, 1), np.inf)),
}


@pytest.mark.parametrize("message", BAD_MODELS)
def test_bad_models_are_refused(message):
    with pytest.raises(ValueError, match=message):
        BAD_MODELS[message]()


def simulate_badly(**changes):
    arguments = {"num_neurons": 5, "num_trials": 2, "num_bins": 10, "seed": 0} | changes
    return lrp.simulate_recording(arguments.pop("model", plain_model(1)), **arguments)


BAD_SIMULATIONS = {
    "num_neurons: expected one number of neurons, got none": {"num_neurons": None},
    r"num_neurons: expected one number of neurons, got \[4, 5\]": {"M": np.ones((4, 1))},
    r"K: expected shape \(neuron=any, rank=1\)": {"K": np.ones((5, 2))},
    "M: expected finite numbers": {"M": np.full((5, 1), np.nan)},
    "dt: expected one finite number > 0": {"dt": 0.0},
    "num_bins: expected an integer >= 2": {"num_bins": 1},
    "num_trials: expected an integer >= 1": {"num_trials": 0},
    "num_inputs: expected an integer >= 0": {"num_inputs": -1},
    "noise_scale: expected one finite number > 0": {"noise_scale": -0.1},
    "inputs: expected": {"inputs": np.zeros((2, 10))},
    "time_constant: expected at least the bin width": {"dt": 0.2},
    "parameters: expected a network whose activity stays finite": {
        "model": plain_model(1, nonlinearity="linear"),
        "M": np.full((5, 1), 1e3),
        "K": np.full((5, 1), 1e3),
        "num_bins": 400,
    },
    # Currents are finite here, and no integer is as large as the counts.
    "parameters: expected a network whose activity stays finite, got one that diverges with nonlinearity 'softplus'": {
        "model": plain_model(1, nonlinearity="softplus", observation=lrp.PoissonObservation(scale=10.0)),
        "M": np.full((5, 1), 10.0),
        "K": np.full((5, 1), 10.0),
        "num_bins": 40,
    },
}


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("message", BAD_SIMULATIONS)
def test_bad_simulations_are_refused(message):
    with pytest.raises(ValueError, match=message):
        simulate_badly(**BAD_SIMULATIONS[message])


def test_simulate_names_the_parameter_that_is_missing_or_does_not_fit():
    recording = recording_with_stimulation()
    model = plain_model(2)
    named = draw_parameters(model, recording)[3]
    with pytest.raises(ValueError, match="parameters: expected the key 'noise_scale'"):
        model.simulate({name: value for name, value in named.items() if name != "noise_scale"}, recording, seed=0)
    with pytest.raises(ValueError, match=r"parameters\['B'\]: expected shape \(0=5, 1=2\)"):
        model.simulate(named | {"B": np.zeros((5, 1))}, recording, seed=0)


def test_background_of_another_size_is_refused():
    model = plain_model(1, background=lrp.FixedBackground(np.zeros((4, 4))))
    with pytest.raises(ValueError, match="background: expected W0 for the recording's 5 neurons, got one for 4"):
        model.for_recording(recording_with_stimulation())
