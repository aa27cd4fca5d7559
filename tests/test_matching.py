"""The losses of matching: averages, the Sinkhorn divergence, noise that is drawn first, and how slopes are balanced."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import lrposterior as lrp
from lrposterior.matching.averages import smooth, smoothing_kernel, smoothing_weight
from lrposterior.matching.course import Course, Schedule
from lrposterior.matching.losses import activity_loss, balanced, mean_correlation, neuron_loss, weight_norm
from lrposterior.matching.simulated_trials import noisy_currents, simulated_trials
from lrposterior.matching.sinkhorn import costs, sinkhorn_divergence, transport
from lrposterior.matching.training import (
    OPTIMISER,
    Losses,
    State,
    Trials,
    Weights,
    learning_rates,
    loss_and_slope,
    run_epoch,
    trial_loss,
)

compiled = jax.jit(loss_and_slope, static_argnums=(0, 1))
EVERYTHING = Weights("euclidean", 0.5, weight_penalty=1e-2, activity_penalty=0.3)


def trials_with_gaps(seed: int = 0, shape: tuple[int, int, int] = (7, 20, 3)):
    """Two sets of positive trials, 0 where masked, the bins that count, and two conditions."""
    random = np.random.default_rng(seed)
    mask = random.random(shape) > 0.2
    one, other = mask * random.gamma(2.0, 1.0, (2, *shape))
    belongs = np.eye(2)[np.arange(shape[0]) % 2]
    return jnp.asarray(one), jnp.asarray(other), jnp.asarray(mask), jnp.asarray(belongs)


def dale_model(**options) -> lrp.LowRankModel:
    settings = {"nonlinearity": "softplus", "observation": lrp.PoissonObservation(scale=20.0), "background": None}
    return lrp.LowRankModel(2, priors=lrp.DaleLoadings(K={"E": 1.5, "I": 6.0}), **(settings | options))


def small_problem(**options):
    """A settled model, its parameters' space, its trials in double precision, and a network."""
    random = np.random.default_rng(1)
    inputs = random.standard_normal((6, 15, 2))
    recording = lrp.Recording(
        random.poisson(2.0, (6, 15, 4)).astype(float), 0.02, inputs=inputs, cell_types=["E", "E", "E", "I"]
    )
    model = dale_model(**options).for_recording(recording)
    space = model.space_for(recording)
    trials = Trials.of(model, recording, 0.04, np.eye(2)[np.arange(6) % 2], None)
    return model, space, trials, jnp.asarray(random.standard_normal(space.size))


@pytest.mark.usefixtures("strict_jax")
def test_trials_are_smoothed_as_those_of_a_recording():
    one, _, mask, _ = trials_with_gaps()
    recording = lrp.Recording(np.asarray(one), 0.02, mask=np.asarray(mask))
    expected = lrp.smooth_activity(recording, 0.05).activity
    kernel = jnp.asarray(smoothing_kernel(20, 2.5))
    found = smooth(kernel, smoothing_weight(kernel, mask), one, mask)
    np.testing.assert_allclose(found, expected, atol=1e-13)


@pytest.mark.usefixtures("strict_jax")
def test_loss_of_neurons_is_what_its_docstring_says():
    one, other, mask, belongs = trials_with_gaps()
    expected, correlations = [], []
    for neuron in range(3):
        pairs = []
        for condition in range(2):
            members = np.flatnonzero(belongs[:, condition])
            for time in range(20):
                seen = [trial for trial in members if mask[trial, time, neuron]]
                if seen:
                    pairs.append([np.mean([each[trial, time, neuron] for trial in seen]) for each in (one, other)])
        simulated, recorded = np.array(pairs).T
        correlations.append(np.corrcoef(simulated, recorded)[0, 1])
        scale = (simulated.mean() - recorded.mean()) ** 2 / np.mean(recorded**2)
        spread = (simulated.var() / recorded.var() - 1.0) ** 2
        expected.append(1.0 - correlations[-1] + 0.1 * scale + 0.05 * spread)
    np.testing.assert_allclose(neuron_loss(one, other, mask, belongs), np.mean(expected), rtol=1e-12)
    np.testing.assert_allclose(mean_correlation(one, other, mask, belongs), np.mean(correlations), rtol=1e-12)


@pytest.mark.usefixtures("strict_jax")
def test_loss_of_neurons_is_zero_at_the_truth_and_knows_no_unit():
    one, other, mask, belongs = trials_with_gaps()
    np.testing.assert_allclose(neuron_loss(other, other, mask, belongs), 0.0, atol=1e-14)
    in_other_unit = neuron_loss(7.0 * one, 7.0 * other, mask, belongs)
    np.testing.assert_allclose(in_other_unit, neuron_loss(one, other, mask, belongs), rtol=1e-12)


@pytest.mark.usefixtures("strict_jax")
@pytest.mark.parametrize("flat", [0.0, 3.0])
def test_loss_of_neurons_leads_away_from_a_flat_model(flat):
    _, other, mask, belongs = trials_with_gaps()
    value, slope = jax.value_and_grad(neuron_loss)(flat * mask.astype(float), other, mask, belongs)
    assert np.isfinite(value)
    assert np.all(np.isfinite(slope))
    assert neuron_loss(flat * mask.astype(float) - 0.1 * slope, other, mask, belongs) < value


@pytest.mark.usefixtures("strict_jax")
def test_a_neuron_whose_recorded_average_is_constant_does_not_count():
    one, other, mask, belongs = trials_with_gaps()
    flat = other.at[:, :, 1].set(0.0)
    value, slope = jax.value_and_grad(neuron_loss)(one, flat, mask, belongs)
    without = [each[:, :, np.array([0, 2])] for each in (one, other, mask)]
    np.testing.assert_allclose(value, neuron_loss(*without, belongs), rtol=1e-12)
    np.testing.assert_array_equal(slope[:, :, 1], 0.0)


@pytest.mark.usefixtures("strict_jax")
def test_penalties_are_those_of_w_b_and_the_mean():
    random = np.random.default_rng(0)
    left, right, B = (jnp.asarray(random.standard_normal((5, width))) for width in (2, 2, 3))
    W = np.asarray(left) @ np.asarray(right).T / 5
    np.testing.assert_allclose(weight_norm(left, right, B), np.sum(W**2) + np.sum(np.asarray(B) ** 2), rtol=1e-12)
    one, _, mask, _ = trials_with_gaps()
    mean = np.asarray(one)[np.asarray(mask)].mean()
    np.testing.assert_allclose(activity_loss(one, mask, jnp.asarray(4.0)), (mean / 4.0 - 1.0) ** 2, rtol=1e-12)


@pytest.mark.usefixtures("strict_jax")
@pytest.mark.parametrize("kind", ["euclidean", "poisson"])
def test_costs_are_means_over_entries_that_both_trials_count(kind):
    one, other, mask, _ = trials_with_gaps()
    recorded, simulated, counts = (np.asarray(each).reshape(7, -1) for each in (one, other, mask))
    # What does not count is any positive number.
    recorded, simulated = (np.where(counts, each, 5.0) for each in (recorded, simulated))
    both = jnp.asarray(1.0 * counts), jnp.asarray(1.0 * counts[:5])
    found = costs(jnp.asarray(recorded), jnp.asarray(simulated[:5]), both, kind)
    for i, j in np.ndindex(7, 5):
        both = counts[i] & counts[j]
        y, m = recorded[i, both], simulated[j, both]
        each = (y - m) ** 2 if kind == "euclidean" else y * np.log(y / m) - y + m
        np.testing.assert_allclose(found[i, j], each.mean(), rtol=1e-10)
    sets = jnp.asarray(recorded), jnp.asarray(simulated[:5])
    np.testing.assert_allclose(costs(*sets, None, kind), costs(*sets, tuple(map(jnp.ones_like, sets)), kind))


@pytest.mark.usefixtures("strict_jax")
def test_transport_goes_to_the_best_assignment():
    cost = np.random.default_rng(0).random((12, 12))
    best = cost[scipy.optimize.linear_sum_assignment(cost)].mean()
    for epsilon in (0.1, 0.01, 0.002):
        found = float(transport(jnp.asarray(cost), epsilon, 1e-9))
        assert best <= found <= best + epsilon * np.log(12)


@pytest.mark.usefixtures("strict_jax")
@pytest.mark.parametrize("epsilon", [0.05, 0.5, 5.0])
def test_transport_between_two_pairs_has_a_closed_form(epsilon):
    """<P, C> + epsilon KL with the part p on the diagonal is least at p = 1 / (1 + exp(-c / epsilon))."""
    cost = jnp.array([[0.0, 1.3], [1.3, 0.0]])
    expected = -epsilon * np.log(0.5 * (1.0 + np.exp(-1.3 / epsilon)))
    np.testing.assert_allclose(transport(cost, epsilon), expected, rtol=1e-10)


def divergence(simulated, again, recorded, kind, epsilon=0.3):
    pairs = ((recorded, simulated), (recorded, recorded), (again, simulated))
    return sinkhorn_divergence(*(costs(a, b, None, kind) for a, b in pairs), epsilon, 1e-12)


@pytest.mark.usefixtures("strict_jax")
@pytest.mark.parametrize("kind", ["euclidean", "poisson"])
def test_divergence_of_a_set_from_itself_is_zero(kind):
    recorded, other = (jnp.asarray(each) for each in np.random.default_rng(3).gamma(2.0, 1.0, (2, 8, 6)))
    np.testing.assert_allclose(divergence(recorded[::-1], recorded[::-1], recorded, kind), 0.0, atol=1e-12)
    assert divergence(other, other, recorded, kind) > 1e-3


@pytest.mark.usefixtures("strict_jax")
@pytest.mark.parametrize("kind", ["euclidean", "poisson"])
def test_slope_of_the_divergence_is_that_of_both_simulations(kind):
    """By finite differences of OT(C_yx) - OT(C_x'x)."""
    random = np.random.default_rng(3)
    recorded, simulated, again, along = (jnp.asarray(each) for each in random.gamma(2.0, 1.0, (4, 8, 6)))
    slope = jax.grad(divergence)(simulated, again, recorded, kind)
    step = 1e-4

    def followed(length):
        there = simulated + length * along
        both = (transport(costs(one, there, None, kind), 0.3, 1e-12) for one in (recorded, again))
        return next(both) - next(both)

    expected = (followed(step) - followed(-step)) / (2.0 * step)
    np.testing.assert_allclose(jnp.sum(slope * along), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["euclidean", "poisson"])
def test_slope_leads_to_the_variability_of_recorded_trials(kind):
    """By the size of what 12 trials of 60 entries share: on average over 300 draws, within four standard errors."""
    shape = np.outer(np.sin(np.linspace(0.0, 3.0, 12)), np.linspace(-0.5, 0.5, 5)).ravel()

    def draw(size, key):
        of_shared, of_own = jax.random.split(key)
        shared, own = jax.random.normal(of_shared, (12, 1)), jax.random.normal(of_own, (12, 60))
        return 4.0 + size * shared * shape + 0.2 * own

    @jax.jit
    def slopes(size, keys):
        def one(key):
            of_recorded, of_simulated, of_again = jax.random.split(key, 3)
            again, recorded = jax.lax.stop_gradient(draw(size, of_again)), draw(1.0, of_recorded)
            return jax.grad(lambda size: divergence(draw(size, of_simulated), again, recorded, kind, 0.05))(size)

        return jax.lax.map(one, keys)

    keys = jax.random.split(jax.random.key(0), 300)
    found = {size: slopes(size, keys) for size in (0.5, 1.0, 1.5)}
    z = {size: float(each.mean() / (each.std() / np.sqrt(300))) for size, each in found.items()}
    assert z[0.5] < -4.0
    assert abs(z[1.0]) < 4.0
    assert z[1.5] > 4.0


def test_masked_entries_change_no_loss_of_trials():
    _, _, trials, _ = small_problem()
    random = np.random.default_rng(0)
    mask = jnp.asarray(random.random((6, 15, 4)) > 0.3)
    masked = dataclasses.replace(trials, data=dataclasses.replace(trials.data, mask=mask), fully_observed=False)
    simulated = jnp.asarray(random.gamma(2.0, 1.0, (2, *mask.shape)))
    other = jnp.where(mask, simulated, 99.0)
    for kind in ("euclidean", "poisson"):
        weights = dataclasses.replace(EVERYTHING, cost=kind)
        found = [trial_loss(*each, masked, weights) for each in (simulated, other)]
        np.testing.assert_allclose(found[0], found[1])


def test_a_balanced_slope_has_the_norm_of_the_other():
    random = np.random.default_rng(0)
    one, other = (jnp.asarray(random.standard_normal((3, 4))) for _ in range(2))
    found = balanced(one, 1e-3 * other)
    np.testing.assert_allclose(jnp.linalg.norm(found), jnp.linalg.norm(one), rtol=1e-12)
    np.testing.assert_allclose(found / jnp.linalg.norm(found), other / jnp.linalg.norm(other), rtol=1e-12)
    np.testing.assert_array_equal(balanced(one, jnp.zeros((3, 4))), 0.0)


@pytest.mark.slow
def test_slope_is_that_of_the_sum_with_the_balance_held():
    """Against automatic differentiation of the sum, with the ratio of the two norms as a number."""
    model, space, trials, z = small_problem(process_noise="diagonal")
    chosen, key, share = jnp.array([4, 0, 3, 1]), jax.random.key(5), 0.7
    some = trials.some(chosen)

    of_one, of_other = jax.random.split(key)

    def simulate(z, key=of_one):
        return some.smoothed(simulated_trials(model, space.unwhiten(z), some.data, key))

    again = simulate(z, of_other)

    def neuron(simulated):
        return neuron_loss(simulated, some.data.activity, some.data.mask, some.belongs)

    def trial(simulated):
        return trial_loss(simulated, again, some, EVERYTHING)

    simulated = simulate(z)
    ratio = jnp.linalg.norm(jax.grad(neuron)(simulated)) / jnp.linalg.norm(jax.jit(jax.grad(trial))(simulated))

    def total(z):
        parameters = space.unwhiten(z)
        W = parameters["M"] @ parameters["K"].T / 4
        weights = jnp.sum(W**2) + jnp.sum(parameters["B"] ** 2)
        activity = activity_loss(simulate(z), some.data.mask, some.target)
        return neuron(simulate(z)) + share * ratio * trial(simulate(z)) + 1e-2 * weights + 0.3 * activity

    losses, slope = compiled(model.structure, EVERYTHING, space, trials, z, jnp.asarray(share), chosen, key)
    value, expected = jax.jit(jax.value_and_grad(total))(z)
    np.testing.assert_allclose(slope, expected, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(losses.neuron + share * ratio * losses.trial + losses.penalty, value, rtol=1e-10)


@pytest.mark.slow
def test_before_the_ramp_only_neurons_count():
    model, space, trials, z = small_problem()
    chosen, key, off = jnp.arange(6), jax.random.key(0), Weights("poisson", 0.5, 0.0, 0.0)

    def neuron(z):
        drawn = simulated_trials(model, space.unwhiten(z), trials.data, jax.random.split(key)[0])
        return neuron_loss(trials.smoothed(drawn), trials.data.activity, trials.data.mask, trials.belongs)

    losses, slope = compiled(model.structure, off, space, trials, z, jnp.asarray(0.0), chosen, key)
    assert losses.trial == 0.0
    np.testing.assert_allclose(slope, jax.jit(jax.grad(neuron))(z), rtol=1e-9, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize(
    "observation", [lrp.PoissonObservation(scale=20.0), lrp.NegativeBinomialObservation(scale=20.0)]
)
def test_simulated_trials_have_the_moments_of_the_observation(observation):
    """Over 4,000 draws, within five standard errors."""
    model, space, trials, z = small_problem(observation=observation)
    parameters = space.unwhiten(z)
    simulate = jax.jit(jax.vmap(lambda key: simulated_trials(model, parameters, trials.data, key)))
    draws = simulate(jax.random.split(jax.random.key(0), 4000))
    emission = model.emission_of_trials(parameters, trials.data)
    currents = model.currents(parameters, trials.data)
    mean, variance = emission.mean(currents), emission.variance(currents)
    assert np.all(np.abs(draws.mean(axis=0) - mean) < 5.0 * jnp.sqrt(variance / 4000))
    np.testing.assert_allclose(draws.var(axis=0), variance, rtol=5.0 * np.sqrt(2.0 / 4000))


@pytest.mark.slow
def test_noisy_currents_are_those_of_a_simulation():
    """Standard deviations over 2,000 trials of `LowRankModel.simulated_currents`, within five standard errors."""
    model, space, trials, z = small_problem(process_noise="full")
    parameters = space.unwhiten(z)
    draw = jax.jit(jax.vmap(lambda key: noisy_currents(model, parameters, trials.data, key)[0]))
    ours = np.asarray(draw(jax.random.split(jax.random.key(0), 2000)))[:, 1:]
    named = model.named({name: np.asarray(value) for name, value in parameters.items()}, 0.02)
    inputs = np.repeat(np.asarray(trials.data.inputs)[:1], 2000, axis=0)
    like = lrp.Recording(np.zeros((2000, 15, 4)), 0.02, inputs=inputs, cell_types=["E", "E", "E", "I"])
    theirs = model.simulated_currents(named, like, seed=0)[:, 1:]
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=5.0 / np.sqrt(2000))
    assert np.all(np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 5.0 * np.sqrt(2.0 / 2000) * theirs.std(axis=0))


def test_time_constants_have_a_learning_rate_of_their_own():
    _, space, _, _ = small_problem(time_constant={"E": 0.1, "I": lrp.TimeConstantPrior(0.05)})
    rates = learning_rates(space, 0.01, 0.002)
    np.testing.assert_array_equal(space.coordinates(rates, "log_time_constant_excess"), [0.002])
    assert np.sum(rates == 0.01) == space.size - 1


@pytest.mark.slow
def test_slopes_are_cut_to_norm_one_before_adam_sees_them():
    """Three epochs of one step each, against Adam (Kingma and Ba 2015) in NumPy, with slopes cut and as they are."""
    model, space, trials, start = small_problem()
    weights, rates, share = Weights("euclidean", 0.5, 1.0, 0.0), np.full(space.size, 0.3), jnp.asarray(0.0)
    keys = jax.random.split(jax.random.key(3), 3)
    state = State(start, OPTIMISER.init(start))
    for key in keys:
        state, _ = run_epoch(model.structure, weights, 6, space, jnp.asarray(rates), trials, state, share, key)

    def by_hand(largest: float) -> tuple[np.ndarray, list[float]]:
        z, mean, square, norms = np.asarray(start), 0.0, 0.0, []
        for step, key in enumerate(keys, 1):
            of_order, of_noise = jax.random.split(key)
            chosen, of_batch = jax.random.permutation(of_order, 6), jax.random.split(of_noise, 1)[0]
            slope = compiled(model.structure, weights, space, trials, jnp.asarray(z), share, chosen, of_batch)[1]
            norms.append(float(np.linalg.norm(slope)))
            slope = np.asarray(slope) * min(1.0, largest / norms[-1])
            mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
            z = z - rates * (mean / (1.0 - 0.9**step)) / (np.sqrt(square / (1.0 - 0.999**step)) + 1e-8)
        return z, norms

    cut, norms = by_hand(1.0)
    assert min(norms) > 1.0
    np.testing.assert_allclose(state.z, cut, rtol=1e-5, atol=1e-5)
    assert np.abs(cut - by_hand(np.inf)[0]).max() > 1e-2


def test_trials_come_in_after_the_warm_up_along_a_line():
    schedule = Schedule(warm_up=2, ramp=3, num_epochs=9, patience=2)
    np.testing.assert_allclose([schedule.share(epoch) for epoch in range(7)], [0, 0, 0.25, 0.5, 0.75, 1, 1])
    stages = [schedule.stage(epoch) for epoch in range(7)]
    assert stages == ["warm-up"] * 2 + ["ramp"] * 3 + ["all"] * 2
    assert Schedule(0, 0, 1, 1).share(0) == 1.0


def test_the_best_network_after_the_ramp_is_kept_until_patience_ends():
    schedule = Schedule(warm_up=1, ramp=0, num_epochs=9, patience=2)
    course, losses = Course.at(np.zeros(2)), Losses(*map(jnp.asarray, (1.0, 0.5, 0.1)))
    for number, validation in enumerate((0.9, 0.5, 0.7, 0.6, 0.7)):
        assert not course.has_ended(schedule)
        course = course.after(State.at(np.full(2, number)), losses, validation, schedule)
    assert course.has_settled(schedule)
    assert course.has_ended(schedule)
    assert course.validation == 0.7
    np.testing.assert_array_equal(course.best, 2.0)
    np.testing.assert_allclose(course.loss, 1.6)
