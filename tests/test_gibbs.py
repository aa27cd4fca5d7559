"""Generalised posteriors: the distribution that is fitted, the slope of its loss, labels, and the beta that covers."""

import importlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import distributions
from test_match import DT, SIGNS, TYPES, conditions, dale_model, truth

import lrposterior as lrp
from lrposterior.beta_calibration import mean_weights_and_responses
from lrposterior.calibration import Networks
from lrposterior.held_out import leave_one_out
from lrposterior.inference import gibbs
from lrposterior.inference.match import match_networks
from lrposterior.matching.guide import Guide, GuideState, climb
from lrposterior.matching.training import WeightedLoss

SHORT = lrp.Match(conditions=conditions(), validation=0.0, warm_up=2, ramp=2, num_epochs=30)
PAIRS = [(post, pre) for post in "EI" for pre in "EI"]


def test_the_divergence_from_the_prior_is_that_of_numpyro():
    random = np.random.default_rng(0)
    location, log_deviation = random.standard_normal((2, 7))
    guide = Guide(jnp.asarray(location), jnp.asarray(log_deviation))
    q = distributions.Normal(location, np.exp(log_deviation))
    reference = distributions.kl_divergence(q, distributions.Normal(0.0, 1.0)).sum()
    np.testing.assert_allclose(guide.divergence(), reference, rtol=1e-12)


class Quadratic(NamedTuple):
    """sum h (z - c)² / 2, and noise with a slope of 0.2."""

    h: np.ndarray
    c: np.ndarray

    def __call__(self, z, of_order, of_noise):
        return 0.5 * jnp.sum(self.h * (z - self.c) ** 2) + 0.2 * jnp.sum(jax.random.normal(of_noise, (4,)) * z)


def test_the_guide_of_a_quadratic_loss_is_its_generalised_posterior():
    """L = sum h (z - c)² / 2 and noise: Normal with precision 1 + beta h and mean beta h c / (1 + beta h)."""
    h, c, beta = np.array([0.0, 0.1, 1.0, 10.0]), np.array([3.0, -2.0, 1.0, 0.5]), 5.0

    with jax.enable_x64(False):
        state, guides = GuideState.at(Guide.at(np.zeros(4))), []
        for chunk in range(40):
            rates = jnp.full(100, 0.1 * 0.03 ** (chunk / 40))
            state, mean, _ = climb(Quadratic(h, c), jnp.asarray(beta), state, rates, jax.random.key(chunk))
            guides.append(mean)
    # The noise of 1,000 averaged steps leaves 0.2 beta / sqrt(1,000) / precision, 0.03 at most.
    found = jax.tree.map(lambda *each: np.mean(each, axis=0), *guides[-10:])
    precision = 1.0 + beta * h
    np.testing.assert_allclose(found.location, beta * h * c / precision, atol=0.1)
    np.testing.assert_allclose(np.exp(found.log_deviation), precision**-0.5, rtol=0.05)


@pytest.mark.long
@pytest.mark.slow
def test_the_slope_of_the_loss_is_that_of_its_expectation():
    """Along a direction, within four standard errors over 200 draws of the noise: a false alarm in 15,000 runs."""
    model, _, recording = truth(0, noise=0.8)
    matched = match_networks(model, recording, SHORT, seed=0, progress=False)
    matching, z = matched.matching, jnp.asarray(matched.best.best, jnp.float64)
    chosen, keys = jnp.arange(10), jax.random.split(jax.random.key(1), 200)
    step = 1e-3 * np.random.default_rng(2).standard_normal(z.size) / np.sqrt(z.size)

    fixed = matching.model.structure, matching.weights, matching.batch_size
    weighted = WeightedLoss(*fixed, matching.space, matching.trials, jnp.asarray(1000.0))

    def loss(z, key):
        return weighted.of_trials(z, chosen, key)

    def apart(key):
        return 0.5 * (loss(z + step, key) - loss(z - step, key)) - jax.grad(loss)(z, key) @ step

    found = np.asarray(jax.lax.map(jax.jit(apart), keys))
    assert abs(found.mean()) < 4.0 * found.std() / np.sqrt(len(found))


@pytest.fixture(scope="module")
def fitted():
    model, _, recording = truth(0)
    return lrp.fit(model, recording, lrp.Gibbs(30.0, SHORT, num_steps=400), seed=0, progress=False)


@pytest.mark.slow
def test_draws_keep_signs_and_simulate(fitted):
    draws = fitted.sample_parameters(50, seed=0)
    assert np.all(draws["M"] >= 0.0)
    assert np.all(draws["K"] * SIGNS[:, None] >= 0.0)
    lower, upper = fitted.connectivity_interval(seed=0)
    assert np.all(lower < upper)
    assert np.all(fitted.predict_rates(num_draws=3, seed=0) >= 0.0)


@pytest.mark.slow
def test_with_nearly_no_beta_it_is_the_prior():
    model = lrp.LowRankModel(1, background=None, priors=lrp.Priors())
    simulated = lrp.simulate_recording(
        model, num_neurons=8, num_trials=12, num_bins=40, num_inputs=1, noise_scale=0.1, seed=0
    )
    match = lrp.Match(validation=0.0, warm_up=0, ramp=0, num_epochs=2)
    method = lrp.Gibbs(1e-9, match, num_steps=1000)
    posterior = lrp.fit(model, simulated.recording, method, seed=0, progress=False)
    z = posterior.distribution.sample(4000, seed=0)
    # 4,000 draws: five standard errors, and as much for the steps.
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=0.16)
    np.testing.assert_allclose(z.std(axis=0), 1.0, atol=0.12)
    assert posterior.statistics.diagnostics["nats from the prior"] < 0.01 * z.shape[1]


@pytest.mark.slow
def test_a_larger_beta_lowers_the_loss_and_leaves_the_prior_further_behind(fitted):
    model, _, recording = truth(0)
    other = lrp.fit(model, recording, lrp.Gibbs(1000.0, SHORT, num_steps=400), seed=0, progress=False)
    before, after = (each.statistics.diagnostics for each in (fitted, other))
    assert before["weight of L_trial"] == after["weight of L_trial"]
    assert after["mean loss"] < before["mean loss"]
    assert after["nats from the prior"] > before["nats from the prior"]


@pytest.mark.slow
def test_it_says_everywhere_what_it_is(fitted, tmp_path):
    assert fitted.method == "gibbs"
    assert fitted.statistics.log_evidence is None
    assert "no evidence" in fitted.statistics.evidence_note
    caveat = "a generalised posterior, exp(-beta L) for a likelihood: beta = 30"
    assert f"beware: {caveat}" in str(fitted)
    candidates = lrp.single_neuron_candidates(fitted.recording, power=1.0)
    refused = {
        "spectrum": lambda: fitted.spectrum,
        "degeneracy": lambda: lrp.analyze_degeneracy(fitted),
        "design": lambda: lrp.design_perturbations(fitted, num_patterns=1, power=1.0, trials_per_pattern=1, seed=0),
        "leave one out": lambda: leave_one_out(fitted, num_draws=100, seed=0),
        "comparison": lambda: lrp.compare_posteriors(fitted, fitted, seed=0),
    }
    for question in refused.values():
        with pytest.raises(ValueError, match="the posterior of a likelihood, got a generalised posterior"):
            question()
    with pytest.raises(ValueError, match="expected a Laplace posterior without correction, got one of method 'gibbs'"):
        lrp.update_posterior(fitted, fitted.recording, progress=False)
    ranking = lrp.rank_perturbations(fitted, candidates, num_draws=20, progress=False)
    assert np.all(np.isfinite(ranking.expected_r2))
    assert any(caveat in warning for warning in ranking.warnings)
    tree = fitted.to_arviz(20, seed=0)
    assert caveat in tree.attrs["caveat"]
    assert "log_likelihood" not in tree.children
    fitted.save(tmp_path / "generalised.nc")
    loaded = lrp.load_posterior(tmp_path / "generalised.nc")
    assert str(loaded) == str(fitted)
    for name in ("location", "scale"):
        np.testing.assert_array_equal(getattr(loaded.distribution, name), getattr(fitted.distribution, name))
    np.testing.assert_array_equal(loaded.statistics.elbo, fitted.statistics.elbo)


def test_what_intervals_are_asked_for_is_what_a_network_does():
    """Mean weights, and responses by a loop over bins."""
    model, parameters, recording = truth(3)
    settled = model.for_recording(recording)
    found = mean_weights_and_responses(Networks(settled, {n: v[None] for n, v in parameters.items()}, recording))
    W, of = parameters["M"] @ parameters["K"].T / 8, {name: np.array(TYPES) == name for name in "EI"}
    a = DT / np.where(of["E"], *parameters["time_constant"])
    unit = settled.priors.unit

    def mean_rates(stimulated: str | None) -> np.ndarray:
        x, rates = np.zeros((60, 8)), np.zeros((60, 8))
        for time in range(60):
            rates[time] = np.logaddexp(0.0, x[time])
            pulse = unit * of[stimulated] if stimulated and 20 <= time < 25 else 0.0
            drive = parameters["B"] @ recording.inputs[0, time] + parameters["b"] + pulse
            if time < 59:
                x[time + 1] = (1.0 - a) * x[time] + a * (W @ rates[time] + drive)
        return rates[20:35].mean(axis=0)

    at_rest = mean_rates(None)
    for post, pre in PAIRS:
        np.testing.assert_allclose(found[f"W[{post}, {pre}]"], W[of[post]][:, of[pre]].mean())
        change = (mean_rates(pre) - at_rest)[of[post]].mean()
        np.testing.assert_allclose(found[f"{post} to stimulated {pre}"], change, rtol=1e-6)


@pytest.mark.slow
def test_sessions_are_simulated_and_fitted_at_every_beta(monkeypatch):
    """Nearly no beta gives intervals as wide as the prior's, and a large one narrow intervals."""
    module, seen = importlib.import_module("lrposterior.beta_calibration"), []
    original = module.match_networks

    def spied(model, recording, *arguments, **options):
        seen.append(recording)
        return original(model, recording, *arguments, **options)

    monkeypatch.setattr(module, "match_networks", spied)
    _, _, recording = truth(0)
    found = lrp.calibrate_beta(
        dale_model(), recording, lrp.Gibbs(1.0, SHORT, num_steps=400), betas=(1000.0, 0.001), num_sessions=2, seed=0,
        progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(found.betas, [0.001, 1000.0])
    assert set(found.quantities) == {f"W[{a}, {b}]" for a, b in PAIRS} | {f"{a} to stimulated {b}" for a, b in PAIRS}
    weights = [name.startswith("W") for name in found.quantities]
    assert np.all(found.width[:, 1, weights] < 0.7)
    assert np.all(np.abs(found.width[:, 0, weights] - 1.0) < 0.35)
    assert len(seen) == 2
    size = np.sqrt(np.mean(recording.activity**2))
    for simulated in seen:
        assert 0.5 < np.sqrt(np.mean(simulated.activity**2)) / size < 2.0
        np.testing.assert_array_equal(simulated.inputs, recording.inputs)
        assert simulated.cell_types == recording.cell_types


def calibration(*shares: float) -> lrp.BetaCalibration:
    """Ten sessions and one quantity, of which the first so many are held at every beta."""
    held = np.array([[[float(session < round(10 * share))] for share in shares] for session in range(10)])
    betas = 10.0 ** np.arange(len(shares))
    return lrp.BetaCalibration(betas, ("W[E, I]",), held, np.ones(held.shape), {})


def test_the_largest_beta_that_covers_is_chosen():
    found = calibration(1.0, 0.9, 0.8)
    assert found.beta == 10.0
    np.testing.assert_allclose(found.cover[:, 0], [1.0, 0.9, 0.8])
    np.testing.assert_allclose(found.standard_error, np.sqrt([0.0, 0.09 / 9, 0.16 / 9]))
    assert "chosen: 10" in str(found)
    assert list(found.to_dataframe().cover) == [1.0, 0.9, 0.8]


def test_where_none_covers_it_says_so():
    found = calibration(0.8, 0.3)
    assert found.beta is None
    assert "none covers 90%" in str(found)
    assert "no beta covers 90%" in repr(found)


def test_fits_that_were_refused_do_not_count():
    found = calibration(0.9, 0.9)
    held = np.concatenate([found.held, np.full((3, 2, 1), np.nan)])
    refusals = {(session, beta): "diverged" for session in (10, 11, 12) for beta in found.betas}
    more = lrp.BetaCalibration(found.betas, found.quantities, held, held, refusals)
    np.testing.assert_array_equal(more.cover, found.cover)
    np.testing.assert_array_equal(more.standard_error, found.standard_error)
    assert "13 simulated sessions, 6 fits refused" in str(more)


REFUSED = {
    "beta": (lambda: lrp.Gibbs(0.0), "beta: expected one finite number > 0"),
    "num_steps": (lambda: lrp.Gibbs(1.0, num_steps=100), "num_steps: expected an integer >= 200"),
    "match": (lambda: lrp.Gibbs(1.0, "match"), "match: expected Match, got str"),
    "betas": (lambda: calibrate(dale_model(), betas=()), "betas: expected one value or more, got none"),
    "bulk": (lambda: calibrate(lrp.LowRankModel(1)), "model: expected a model without a random bulk"),
    "circuit": (
        lambda: lrp.fit(lrp.FullRankNetwork(8), truth(0)[2], lrp.Gibbs(1.0), seed=0, progress=False),
        "model: expected LowRankModel, got FullRankNetwork",
    ),
}


def calibrate(model: lrp.LowRankModel, betas=(1.0,)):
    return lrp.calibrate_beta(model, truth(0)[2], lrp.Gibbs(1.0), betas=betas, num_sessions=1, seed=0, progress=False)


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_are_checked(name):
    call, text = REFUSED[name]
    with pytest.raises(ValueError, match=text):
        call()


def test_without_a_beta_it_is_refused():
    recording = lrp.Recording(np.zeros((4, 5, 2)), 0.02)
    with pytest.raises(ValueError, match=r"^method: expected the weight beta .*; pass Gibbs\(beta=\.\.\.\)"):
        lrp.fit(lrp.LowRankModel(1), recording, "gibbs", seed=0)


def test_draws_whose_loss_is_not_finite_are_told():
    at_rest = np.random.default_rng(0).standard_normal(800)
    assert gibbs._status(at_rest, np.array([True, True])) == "converged"
    assert "1 of 2 draws simulate networks that diverge" in gibbs._status(at_rest, np.array([True, False]))
