"""Designs: closed forms against joint Normal densities and sampling, greedy sets against brute force, constraints."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain import plain_model
from scipy.special import logsumexp

import lrposterior as lrp
from lrposterior.design.dense import DenseBeliefs
from lrposterior.design.free import Constraints
from lrposterior.design.greedy import choose
from lrposterior.design.structured import StructuredBeliefs
from lrposterior.design.trials import make_setting
from lrposterior.orbit import move
from lrposterior.perturbation.experiment import make_experiment

NUM_NEURONS, NUM_TRIALS, NUM_BINS, POWER = 6, 3, 16, 0.5


@functools.cache
def small_fit(with_bulk=False, noise=0.1, num_trials=NUM_TRIALS):
    """A fit of six neurons, pairs of neurons as candidates, and the setting, with three conditions or one."""
    background = lrp.RandomBulk(gain=0.5, dimension=2) if with_bulk else None
    model = plain_model(rank=2, time_constant=0.05, background=background)
    recording = lrp.simulate_recording(
        model,
        num_neurons=NUM_NEURONS,
        num_trials=num_trials,
        num_bins=NUM_BINS,
        dt=0.02,
        num_inputs=1,
        noise_scale=noise,
        seed=4,
    ).recording
    posterior = lrp.fit(model, recording, method=lrp.Laplace(mean="mode"), seed=0, progress=False)
    candidates = lrp.ensemble_candidates(recording, num_candidates=10, size=2, power=POWER, onset=0.08, seed=0)
    inputs = recording.inputs[: 1 if num_trials > NUM_TRIALS else NUM_TRIALS]
    experiment = make_experiment(posterior, candidates, inputs, None)
    setting = make_setting(posterior, experiment, candidates.patterns, 1500)
    return posterior, candidates, setting


def beliefs(weight=1, **options):
    _, _, setting = small_fit(**options)
    return DenseBeliefs.of(setting, weight * setting.num_conditions)


def means(setting, trials, background=None):
    """The activity of trials as a function of the whitened dynamics, and of an explicit W0."""
    model = setting.model
    if background is not None:
        model = dataclasses.replace(model, background=None)
    data, start = model.data(trials), jnp.asarray(setting.z)
    num_dynamics = setting.space.num_dynamics

    def mean(dynamics, W0=None):
        parameters = setting.space.unwhiten(jnp.concatenate([dynamics, start[num_dynamics:]]))
        own = data if W0 is None else dataclasses.replace(data, background=W0)
        return jnp.ravel(model.rates(parameters, own))

    return mean


def jacobian(setting, trials):
    """Derivatives (observation, coordinate) of the activity in units of its noise."""
    start = jnp.asarray(setting.z)
    noise_scale = np.exp(setting.space.unwhiten(setting.z)["log_noise_scale"])
    derivative = jax.jacfwd(means(setting, trials))(start[: setting.space.num_dynamics])
    return np.asarray(derivative) / np.tile(noise_scale, len(derivative) // NUM_NEURONS)[:, None]


def log_determinant(*jacobians):
    """Of the joint covariance of all observations under the prior, in units of their noise."""
    stacked = np.concatenate(jacobians)
    return np.linalg.slogdet(np.eye(len(stacked)) + stacked @ stacked.T)[1]


@pytest.mark.slow
@pytest.mark.parametrize("with_bulk", [False, True])
def test_gains_are_those_of_the_joint_normal_density(with_bulk):
    _, candidates, setting = small_fit(with_bulk=with_bulk)
    known, first, second, goal = (
        jacobian(setting, trials)
        for trials in (setting.recording, *(setting.trials(pattern) for pattern in candidates.patterns[:3]))
    )
    each = beliefs(with_bulk=with_bulk)
    alone = 0.5 * (log_determinant(known, first) - log_determinant(known))
    later = 0.5 * (log_determinant(known, second, first) - log_determinant(known, second))
    np.testing.assert_allclose(each.gains(candidates.patterns[:1]), alone, rtol=1e-8)
    np.testing.assert_allclose(each.after(candidates.patterns[1]).gains(candidates.patterns[:1]), later, rtol=1e-8)
    mutual = alone + 0.5 * (log_determinant(known, goal) - log_determinant(known, first, goal))
    towards = each.towards(candidates.patterns[2:3])
    np.testing.assert_allclose(towards.gains(candidates.patterns[:1]), mutual, rtol=1e-7)


def test_the_information_about_a_readout_is_that_of_the_joint_normal_density():
    _, candidates, setting = small_fit()
    weights = np.linspace(-1.0, 2.0, NUM_NEURONS)
    noise_scale = np.exp(setting.space.unwhiten(setting.z)["log_noise_scale"])
    known, first = (jacobian(setting, each) for each in (setting.recording, setting.trials(candidates.patterns[0])))
    of_goal = jacobian(setting, setting.trials(candidates.patterns[1])).reshape(-1, NUM_NEURONS, known.shape[1])
    read = np.einsum("n,tnp->tp", weights * noise_scale, of_goal) / np.linalg.norm(weights * noise_scale)
    mutual = 0.5 * (
        log_determinant(known, first)
        + log_determinant(known, read)
        - log_determinant(known)
        - log_determinant(known, first, read)
    )
    towards = beliefs().towards_readout(weights, candidates.patterns[1:2])
    np.testing.assert_allclose(towards.gains(candidates.patterns[:1]), mutual, rtol=1e-7)


@pytest.mark.slow
def test_the_unseen_bulk_is_in_the_gain():
    """With every direction of the rates outside Q made visible the gain is that with all of W0 as parameters."""
    posterior, candidates, setting = small_fit(with_bulk=True)
    assert setting.visible == pytest.approx(1.0)
    gain, Q = posterior.model.scale("gain"), posterior.subspace
    seen = make_setting(posterior, setting.experiment, candidates.patterns, 0)  # as few new directions as there can be
    plain = dataclasses.replace(seen, model=posterior.model, space=posterior.space, z=posterior.mode_coordinates)
    outside = np.linalg.svd(np.eye(NUM_NEURONS) - Q @ Q.T)[0][:, : NUM_NEURONS - 2]
    rows = []
    for trials in (setting.recording, setting.trials(candidates.patterns[0])):
        model, data = posterior.model, posterior.model.data(trials)
        left_right = [np.asarray(f) for f in model.factors(posterior.space.unwhiten(jnp.asarray(plain.z)), data)]
        W = left_right[0] @ left_right[1].T / NUM_NEURONS
        parameters = posterior.space.unwhiten(jnp.asarray(plain.z))
        drive = data.inputs @ parameters["B"].T + parameters["b"]
        drive = drive if data.stimulation is None else drive + data.stimulation
        a = trials.dt / model.time_constant

        def rates(entries, W=W, drive=drive, a=a):
            whole = W + entries.reshape(NUM_NEURONS, -1) @ outside.T
            x, seen_rates = jnp.zeros((len(drive), NUM_NEURONS)), []
            for time in range(NUM_BINS):
                seen_rates.append(jnp.tanh(x))
                x = (1 - a) * x + a * (jnp.tanh(x) @ whole.T + drive[:, time])
            return jnp.stack(seen_rates, axis=1).ravel()

        unseen = np.asarray(jax.jacfwd(rates)(jnp.zeros(NUM_NEURONS * (NUM_NEURONS - 2)))) * gain / NUM_NEURONS**0.5
        noise = np.tile(posterior.mode["noise_scale"], len(unseen) // NUM_NEURONS)[:, None]
        rows.append(np.concatenate([jacobian(plain, trials), unseen / noise], axis=1))
    expected = 0.5 * (log_determinant(*rows) - log_determinant(rows[0]))
    found = beliefs(with_bulk=True).gains(candidates.patterns[:1])[0]
    assert found == pytest.approx(expected, rel=1e-7)
    without = 0.5 * (
        log_determinant(*(row[:, : posterior.space.num_dynamics] for row in rows))
        - log_determinant(rows[0][:, : posterior.space.num_dynamics])
    )
    assert found > without + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("with_bulk", [False, True])
def test_the_structured_form_agrees_with_matrices(with_bulk):
    """The chain of the structured form is followed to 2% of a prior precision in every direction."""
    _, candidates, setting = small_fit(with_bulk=with_bulk)
    dense, structured = (kind.of(setting, 2) for kind in (DenseBeliefs, StructuredBeliefs))
    for change in (
        lambda b: b,
        lambda b: b.after(candidates.patterns[3]),
        lambda b: b.towards(candidates.patterns[4:6]),
    ):
        np.testing.assert_allclose(
            change(structured).gains(candidates.patterns), change(dense).gains(candidates.patterns), rtol=2e-3
        )


@pytest.mark.slow
@pytest.mark.parametrize("towards", [False, True])
def test_the_slope_of_a_gain_is_that_of_differences(towards):
    _, candidates, _ = small_fit()
    each = beliefs().towards(candidates.patterns[5:7]) if towards else beliefs()
    pattern, step = candidates.patterns[0] + 0.1, 1e-5
    gain, slope = each.gain_and_slope(pattern)
    assert gain == pytest.approx(each.gains(pattern[None])[0], rel=1e-10)
    ends = [each.gains(pattern + sign * step * np.eye(NUM_NEURONS)) for sign in (1, -1)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-5 * np.abs(slope).max())


def test_a_goal_cannot_be_learnt_better_than_the_network():
    _, candidates, _ = small_fit()
    all_of_it, towards = beliefs(), beliefs().towards(candidates.patterns[5:])
    of_goal = towards.gains(candidates.patterns)
    assert np.all(of_goal > 0.0)
    assert np.all(of_goal < all_of_it.gains(candidates.patterns))


def test_rotations_of_the_factors_change_nothing():
    posterior, candidates, setting = small_fit(with_bulk=True)
    angle = 0.7
    A = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([1.0, -1.0])
    moved = dataclasses.replace(posterior, mode_coordinates=move(posterior.space, posterior.mode_coordinates, A, A.T))
    gains = [
        DenseBeliefs.of(make_setting(each, setting.experiment, candidates.patterns, 1500), 1).gains(candidates.patterns)
        for each in (posterior, moved)
    ]
    np.testing.assert_allclose(gains[1], gains[0], rtol=1e-9)


WELL_KNOWN = {"noise": 0.02, "num_trials": 16}  # a posterior so narrow that the activity is linear within it


def sampled_trial(num_draws, seed):
    """What gives the mean of one more trial (draw, observation), in units of its noise, from white draws of the
    posterior; such draws; and the derivatives of the mean by them."""
    posterior, candidates, setting = small_fit(**WELL_KNOWN)
    num_dynamics = setting.space.num_dynamics
    root = posterior.distribution.scale[:num_dynamics]
    root = root[:, np.linalg.norm(root, axis=0) > 0.0]
    trials = setting.trials(candidates.patterns[0])
    noise = np.tile(posterior.mode["noise_scale"], NUM_BINS * len(trials.activity))
    white = np.random.default_rng(seed).standard_normal((num_draws, root.shape[1]))
    mean = jax.jit(jax.vmap(means(setting, trials)))
    linear = jacobian(setting, trials) @ root

    def of(xi):
        return np.asarray(mean(jnp.asarray(setting.z[:num_dynamics] + xi @ root.T))) / noise

    return of, white, linear


@pytest.mark.slow
def test_nested_monte_carlo_agrees():
    """For one more trial. The outer sum has 1,500 draws, the inner one 3,000 others. Nested sums are biased by less
    than log M allows while the gain is far below it. False alarm: below 1% (3 standard errors), beside 3% of the gain
    for what is not linear."""
    of, white, linear = sampled_trial(4500, 1)
    outer, inner = of(white[:1500]), of(white[1500:])
    activity = outer + np.random.default_rng(2).standard_normal(outer.shape)
    fits = -0.5 * np.sum((activity - outer) ** 2, axis=1)
    distances = (activity**2).sum(axis=1)[:, None] + (inner**2).sum(axis=1) - 2.0 * activity @ inner.T
    values = fits - (logsumexp(-0.5 * distances, axis=1) - np.log(len(inner)))
    expected = 0.5 * np.linalg.slogdet(np.eye(linear.shape[1]) + linear.T @ linear)[1]
    found = beliefs(**WELL_KNOWN).gains(small_fit(**WELL_KNOWN)[1].patterns[:1])[0]
    assert found == pytest.approx(expected, rel=1e-6)
    assert 0.5 < found < 0.5 * np.log(len(inner))
    standard_error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - found) < 3.0 * standard_error + 0.03 * found


def test_importance_sampling_around_the_linearised_posterior_agrees():
    """The evidence of every simulated trial from draws of its linearised posterior, where nested sums would need many
    more. Tolerance as above."""
    of, white, linear = sampled_trial(300, 3)
    outer, center = of(white), of(np.zeros((1, white.shape[1])))[0]
    random = np.random.default_rng(4)
    activity = outer + random.standard_normal(outer.shape)
    precision = np.eye(linear.shape[1]) + linear.T @ linear
    root = np.linalg.inv(np.linalg.cholesky(precision)).T
    log_det = np.linalg.slogdet(precision)[1]
    values = []
    for own, seen in zip(outer, activity, strict=True):
        noise = random.standard_normal((200, linear.shape[1]))
        xi = np.linalg.solve(precision, linear.T @ (seen - center)) + noise @ root.T
        log_weights = (
            -0.5 * np.sum((seen - of(xi)) ** 2, axis=1)
            - 0.5 * np.sum(xi**2, axis=1)
            + 0.5 * np.sum(noise**2, axis=1)
            - 0.5 * log_det
        )
        values.append(-0.5 * np.sum((seen - own) ** 2) - (logsumexp(log_weights) - np.log(200)))
    found = beliefs(**WELL_KNOWN).gains(small_fit(**WELL_KNOWN)[1].patterns[:1])[0]
    assert abs(np.mean(values) - found) < 3.0 * np.std(values) / np.sqrt(len(values)) + 0.03 * found


def test_a_greedy_set_is_near_the_best_and_looks_at_few():
    _, candidates, _ = small_fit()
    each, patterns = beliefs(weight=3), candidates.patterns[:7]
    _, chosen = choose(each, patterns, 3)

    def total(rows):
        gained, now = 0.0, each
        for row in rows:
            gained += now.gains(patterns[row][None])[0]
            now = now.after(patterns[row])
        return gained

    best = max(total(rows) for rows in itertools.combinations(range(7), 3))
    assert best >= sum(chosen.gains) - 1e-9
    assert sum(chosen.gains) >= (1.0 - np.exp(-1.0)) * best
    plain, now = [], each
    for _ in range(3):
        gains = now.gains(patterns)
        gains[plain] = -np.inf
        plain.append(int(np.argmax(gains)))
        now = now.after(patterns[plain[-1]])
    assert chosen.rows == plain
    np.testing.assert_allclose(sum(chosen.gains), total(chosen.rows), rtol=1e-9)


@pytest.mark.parametrize(("nonnegative", "num_targets"), [(True, None), (True, 2), (False, 3)])
def test_free_patterns_keep_their_constraints_and_beat_their_starts(nonnegative, num_targets):
    posterior, _, _ = small_fit()
    design = lrp.design_perturbations(
        posterior,
        2,
        power=POWER,
        candidates="free",
        num_targets=num_targets,
        nonnegative=nonnegative,
        trials_per_pattern=3,
        random_fraction=0.0,
        onset=0.08,
        seed=1,
    )
    np.testing.assert_allclose(design.candidates.power, POWER, rtol=1e-9)
    assert np.all(design.num_targets <= (num_targets or NUM_NEURONS))
    assert not nonnegative or np.all(design.candidates.patterns >= 0.0)
    starts = lrp.ensemble_candidates(
        posterior.recording, num_candidates=6, size=num_targets or 1, power=POWER, onset=0.08, seed=1
    )
    assert design.gains[0] > beliefs().gains(starts.patterns).max()


@pytest.mark.parametrize("nonnegative", [False, True])
def test_a_projection_is_the_nearest_pattern_that_is_allowed(nonnegative):
    constraints = Constraints(2.0, nonnegative, 2)
    random = np.random.default_rng(0)
    wish = random.standard_normal(5)
    found = constraints.project(wish)
    np.testing.assert_allclose(constraints.project(found), found)
    others = [constraints.project(random.standard_normal(5)) for _ in range(2000)]
    assert np.linalg.norm(found - wish) <= min(np.linalg.norm(other - wish) for other in others) + 1e-12


def test_a_design_shows_what_it_is():
    posterior, candidates, setting = small_fit()
    options = {"power": POWER, "candidates": candidates, "trials_per_pattern": 6, "seed": 3}
    design, again = (lrp.design_perturbations(posterior, 4, **options) for _ in range(2))
    np.testing.assert_array_equal(design.candidates.patterns, again.candidates.patterns)
    assert design.is_random.tolist() == [True, False, False, False]
    assert len(set(design.candidates.labels)) == 4
    assert set(design.candidates.labels) <= set(candidates.labels)
    now = DenseBeliefs.of(setting, 6)
    for pattern, gain in zip(design.candidates.patterns, design.gains, strict=True):
        assert gain == pytest.approx(now.gains(pattern[None])[0])
        now = now.after(pattern)
    assert design.total_gain == pytest.approx(design.gains.sum())
    assert f"{design.total_gain:.3g} nats about the network" in str(design)
    dataset = design.to_xarray()
    assert dataset["patterns"].dims == ("pattern", "neuron")
    np.testing.assert_array_equal(dataset["gain"], design.gains)
    figure = design.plot()
    assert figure.axes[0].get_xlabel() == "nats about the network"


def test_a_goal_changes_the_choice_and_the_words():
    posterior, candidates, _ = small_fit()
    design = lrp.design_perturbations(
        posterior, 2, power=POWER, candidates=candidates, goal=candidates.select([0]), seed=0
    )
    assert design.goal == "the responses to 1 stimulations"
    readout = lrp.design_perturbations(
        posterior, 2, power=POWER, candidates=candidates, goal=np.ones(NUM_NEURONS), seed=0
    )
    assert readout.goal == "a readout"
    assert np.all(
        readout.gains < lrp.design_perturbations(posterior, 2, power=POWER, candidates=candidates, seed=0).gains
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": "any"}, r"^candidates: expected Candidates, 'free' or None, got 'any'; "),
        ({"num_patterns": 11}, r"^num_patterns: expected .*; there are 10 candidates"),
        ({"power": -1.0}, r"^power: "),
        ({"goal": np.zeros(NUM_NEURONS)}, r"^goal: expected a weight that is not 0"),
        ({"goal": np.ones(3)}, r"^goal: "),
        ({"onset": 0.1}, r"^onset: expected None where candidates have a time course"),
        ({"random_fraction": 1.5}, r"^random_fraction: "),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    posterior, candidates, _ = small_fit()
    options = {"num_patterns": 2, "power": POWER, "candidates": candidates, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        lrp.design_perturbations(posterior, **options)
