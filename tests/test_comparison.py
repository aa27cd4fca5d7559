"""What changed between two posteriors: exact moments, the rate of false alarms, and planted changes."""

import dataclasses
import functools

import numpy as np
import pytest
from plain import plain_model
from stimulated import stimulated

import lrposterior as lrp
from lrposterior.comparison.directions import find_directions
from lrposterior.comparison.projection import Draws, change_power, visited_patterns
from lrposterior.distribution import NormalDistribution
from lrposterior.posterior import FitStatistics, Posterior

NUM_NEURONS = 14


@functools.cache
def stage():
    """A settled model with a bulk, a recording, true whitened parameters, and a root of an estimate's covariance."""
    model = lrp.LowRankModel(rank=2, background=lrp.RandomBulk(gain=0.4, dimension=3), priors=lrp.Priors())
    simulation, _ = stimulated(model, num_neurons=NUM_NEURONS, num_trials=4, num_new=1, seed=0)
    settled = model.for_recording(simulation.recording)
    space = settled.space_for(simulation.recording)
    parameters = {name: value for name, value in simulation.parameters.items() if name not in ("W0", "time_constant")}
    noise = parameters.pop("noise_scale")
    Q = settled.background.visited
    parameters |= {"A": simulation.parameters["W0"] @ Q, "log_noise_scale": np.log(noise)}
    z = np.asarray(space.whiten(parameters))
    root = 0.005 * np.random.default_rng(1).standard_normal((space.size, 40))
    return settled, simulation.recording, space, z, root


def estimate(z, root, seed):
    """A posterior around z plus an error of the covariance that it states; with no error for seed None."""
    model, recording, *_ = stage()
    error = 0.0 if seed is None else root @ np.random.default_rng(seed).standard_normal(root.shape[1])
    statistics = FitStatistics(0.0, 0.0, 0.0, 1, 0.0, None, "by hand")
    return Posterior(
        model, recording, "laplace", 0, "converged", statistics, z + error, NormalDistribution(z + error, root)
    )


def rank_one_change(size):
    """z with a change of W that what a single left factor writes adds to a single right factor, and the two vectors."""
    _, _, space, z, _ = stage()
    write = np.random.default_rng(3).standard_normal(NUM_NEURONS)
    write /= np.linalg.norm(write)
    changed = z.copy()
    changed[space.slices["A"]] += (size * np.outer(write, [1.0, 0.0, 0.0]) / space["A"].standard_deviation).ravel()
    return changed, write, stage()[0].background.visited[:, 0]


def test_moments_are_those_of_dense_draws_with_what_is_not_seen():
    _, _, _, z, root = stage()
    posterior = estimate(z, root, None)
    random = np.random.default_rng(4)
    write, read = (np.linalg.qr(random.standard_normal((NUM_NEURONS, 2)))[0] for _ in range(2))
    draws = Draws.of(posterior, posterior.sample_connectivity(4000, seed=0))
    W = posterior.sample_connectivity(4000, seed=1).to_dense()
    incoming, outgoing, between = draws.incoming(read), draws.outgoing(write), draws.between(write, read)
    for found, dense in (
        (incoming, np.moveaxis(W @ read, 1, 0)),
        (outgoing, np.moveaxis(np.swapaxes(W, 1, 2) @ write, 1, 0)),
        (between, (write.T @ W @ read).reshape(1, 4000, -1)),
    ):
        expected = np.stack([np.cov(each, rowvar=False) for each in dense])
        scale = np.sqrt(np.einsum("tii,tjj->tij", expected, expected))
        # 4,000 draws give a correlation to 0.016; five of these.
        np.testing.assert_allclose((found.covariance - expected) / scale, 0.0, atol=0.11)
        sd = np.sqrt(np.einsum("tii->ti", expected))
        np.testing.assert_allclose((found.mean - dense.mean(axis=1)) / sd, 0.0, atol=0.1)
    seen_power = np.mean(np.sum((draws.left @ np.swapaxes(draws.right, 1, 2)) ** 2, axis=(1, 2)))
    assert seen_power + draws.unseen_power == pytest.approx(np.mean(np.sum(W**2, axis=(1, 2))), rel=0.02)


def test_the_power_of_a_change_is_that_of_dense_matrices():
    _, _, _, z, root = stage()
    changed, _, _ = rank_one_change(0.5)
    before, after = estimate(z, root, None), estimate(changed, root, None)
    draws = [Draws.of(each, each.sample_connectivity(2000, seed=seed)) for seed, each in enumerate((before, after))]
    mean_power, spread = change_power(*draws)
    dense = [each.left @ np.swapaxes(each.right, 1, 2) for each in draws]
    assert mean_power == pytest.approx(np.sum((dense[1].mean(axis=0) - dense[0].mean(axis=0)) ** 2), rel=0.05)
    assert spread == pytest.approx(sum(each.var(axis=0, ddof=1).sum() for each in dense), rel=0.05)


def test_nothing_depends_on_the_gauge():
    _, _, _, z, root = stage()
    changed, _, _ = rank_one_change(0.3)
    posteriors = estimate(z, root, 1), estimate(changed, root, 2)
    draws = [Draws.of(each, each.sample_connectivity(150, seed=0)) for each in posteriors]
    random = np.random.default_rng(5)
    turned = []
    for each in draws:
        A = np.eye(each.left.shape[2]) + 0.1 * random.standard_normal((150, *each.left.shape[2:] * 2))
        right = each.right @ np.swapaxes(np.linalg.inv(A), 1, 2)
        turned.append(dataclasses.replace(each, left=each.left @ A, right=right))
    read = visited_patterns(posteriors[0].mode_rates().reshape(-1, NUM_NEURONS), 1e-3, 8)
    found = [
        find_directions(*pair, pair[1].incoming(read).after(pair[0].incoming(read)), read, 0)
        for pair in (draws, turned)
    ]
    # Both W together have rank 7, so that an eighth direction would be rounding errors.
    for name in ("size", "sd", "p"):
        np.testing.assert_allclose(getattr(found[0], name)[:7], getattr(found[1], name)[:7], rtol=1e-6)
    assert found[0].total_p == found[1].total_p
    np.testing.assert_allclose(change_power(*draws), change_power(*turned), rtol=1e-6)


def test_where_nothing_changed_false_alarms_have_their_rate():
    _, _, _, z, root = stage()
    found = [
        lrp.compare_posteriors(estimate(z, root, 2 * seed), estimate(z, root, 2 * seed + 1), num_draws=200, seed=seed)
        for seed in range(100)
    ]
    # Of 100 comparisons 5 are expected; more than 11 have probability 0.004.
    assert sum(each.p_value < 0.05 for each in found) <= 11
    assert sum(each.num_directions > 0 for each in found) <= 11
    incoming = np.mean([each.incoming_p < 0.05 for each in found])
    differs = np.mean(np.concatenate([each.differs.ravel() for each in found]))
    # The tests of one comparison depend on each other: as many as 250 independent ones, whose rate has sd 0.014. What
    # the posterior leaves to the unseen bulk makes the rate smaller.
    assert 0.0 < differs < 0.10
    assert incoming < 0.10


def test_without_a_bulk_the_rate_is_not_too_small_either():
    model, _, space, z, root = stage()
    plain = dataclasses.replace(model, background=None)
    kept = np.ones(space.size, dtype=bool)
    kept[space.slices["A"]] = False
    found = []
    for seed in range(100):
        pair = [
            dataclasses.replace(
                each,
                model=plain,
                mode_coordinates=each.mode_coordinates[kept],
                distribution=NormalDistribution(each.mode_coordinates[kept], root[kept]),
            )
            for each in (estimate(z, root, 2 * seed), estimate(z, root, 2 * seed + 1))
        ]
        found.append(lrp.compare_posteriors(*pair, num_draws=200, seed=seed))
    assert 0.02 < np.mean([each.incoming_p < 0.05 for each in found]) < 0.09
    # 1 to 11 of 100 where 5 are expected: probability 0.99.
    assert 1 <= sum(each.p_value < 0.05 for each in found) <= 11
    assert 1 <= sum(each.num_directions > 0 for each in found) <= 11


def test_a_planted_change_is_found_and_located():
    _, _, _, z, root = stage()
    changed, write, read = rank_one_change(0.6)
    found = lrp.compare_posteriors(estimate(z, root, 1), estimate(changed, root, 2), seed=0)
    assert found.p_value < 0.01
    assert found.num_directions >= 1
    assert abs(found.directions.write[:, 0] @ write) > 0.9
    assert abs(found.directions.read[:, 0] @ read) > 0.8
    assert abs(found.directions.size[0] - 0.6) < 4.0 * found.directions.sd[0]
    changes = np.abs(write) > 0.35
    assert np.all(found.incoming_p[changes] < 0.05)
    # The other way round it is the same change with the other sign.
    back = lrp.compare_posteriors(estimate(changed, root, 2), estimate(z, root, 1), seed=0)
    np.testing.assert_allclose(np.abs(back.z_score), np.abs(found.z_score), rtol=0.35, atol=0.35)
    strongest = int(np.argmax(np.abs(write)))
    table = found.synapses([strongest, strongest], [0, 1])
    expected = [each.connectivity_entries([strongest, strongest], [0, 1]) for each in (found.before, found.after)]
    np.testing.assert_allclose(table["change"], expected[1][0] - expected[0][0])
    np.testing.assert_allclose(table["sd"], np.hypot(expected[0][1], expected[1][1]))
    assert np.all((table["P(increase)"] > 0.5) == (table["change"] > 0.0))


def test_what_only_the_prior_says_is_called_so():
    _, _, space, z, root = stage()
    wide = np.concatenate([root, np.eye(space.size)], axis=1)
    found = lrp.compare_posteriors(estimate(z, wide, None), estimate(z, wide, None), seed=0)
    assert not found.differs.any()
    assert found.untold.mean() > 0.9
    assert "cannot be told" in str(found)
    narrow = lrp.compare_posteriors(estimate(z, root, None), estimate(z, root, None), seed=0)
    assert narrow.untold.mean() < 0.5


def test_a_comparison_is_a_table_a_figure_and_text():
    _, _, _, z, root = stage()
    changed, _, _ = rank_one_change(0.6)
    found = lrp.compare_posteriors(estimate(z, root, 1), estimate(changed, root, 2), num_draws=200, seed=0)
    tree = found.to_xarray()
    np.testing.assert_array_equal(tree["differs"], found.differs)
    np.testing.assert_array_equal(tree["direction_size"], found.directions.size)
    assert tree.attrs["p_value"] == found.p_value
    assert f"direction 0: size {found.directions.size[0]:.3g}" in str(found)
    assert "direction(s) of change beyond doubt" in repr(found)
    titles = [axes.get_title(loc="left") for axes in found.plot().axes[:3]]
    assert titles[1] == f"{found.num_directions} direction(s) beyond doubt"
    with pytest.raises(ValueError, match="read-only"):
        found.change[0, 0] = 1.0


@pytest.mark.slow
def test_what_cannot_be_compared_is_refused():
    _, _, _, z, root = stage()
    posterior = estimate(z, root, None)
    model = plain_model(rank=1)
    simulation, _ = stimulated(model, num_neurons=6, num_trials=6, num_new=1, seed=6)
    other = lrp.fit(model, simulation.recording, seed=0, progress=False)
    with pytest.raises(ValueError, match="after: expected the 14 neurons of before, got 6"):
        lrp.compare_posteriors(posterior, other, seed=0)
    with pytest.raises(ValueError, match="before: expected Posterior"):
        lrp.compare_posteriors(posterior.recording, other, seed=0)
    with pytest.raises(ValueError, match="num_draws: expected"):
        lrp.compare_posteriors(posterior, posterior, num_draws=10, seed=0)
    labelled = dataclasses.replace(other, recording=dataclasses.replace(other.recording, neuron_labels=list("abcdef")))
    swapped = dataclasses.replace(other, recording=dataclasses.replace(other.recording, neuron_labels=list("bacdef")))
    with pytest.raises(ValueError, match="after: expected the neuron labels of before"):
        lrp.compare_posteriors(labelled, swapped, seed=0)
    known = dataclasses.replace(
        other, model=dataclasses.replace(other.model, background=lrp.FixedBackground(np.eye(6)))
    )
    with pytest.raises(ValueError, match="after: expected the known background of before"):
        lrp.compare_posteriors(other, known, seed=0)
