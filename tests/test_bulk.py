"""Networks with a random bulk and correlated loadings: draws, moments, simulations, degeneracy and files."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from handmade import NEURONS, STATISTICS, make_posterior, make_recording
from plain import plain_model

import lrposterior as lrp
from lrposterior import rollouts
from lrposterior.bulk import BulkDraws
from lrposterior.connectivity import LowRankConnectivity
from lrposterior.distribution import MixtureDistribution, NormalDistribution
from lrposterior.orbit import trade_directions
from lrposterior.perturbation.experiment import make_experiment
from lrposterior.perturbation.responses import response_draws
from lrposterior.report import render_report
from lrposterior.spectrum import connectivity_spectrum, horizontal_spectrum

RANK, DIMENSION = 2, 2
BULK = lrp.RandomBulk(gain=0.5, dimension=DIMENSION)
MODELS = {
    "bulk": plain_model(RANK, background=BULK),
    "correlated loadings": plain_model(RANK, priors=lrp.CorrelatedLoadings(), initial_state="free"),
    "cell types": lrp.LowRankModel(RANK, background=BULK, priors=lrp.CorrelatedLoadings(by_cell_type=True)),
    "bulk and correlated loadings": lrp.LowRankModel(
        RANK, background=BULK, priors=lrp.CorrelatedLoadings(), time_constant=lrp.TimeConstantPrior(0.1)
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)
with_bulk = pytest.mark.parametrize("name", ["bulk", "bulk and correlated loadings"])


def made(name, **options):
    model, recording = MODELS[name], make_recording(stimulation=None, mask=None, neuron_labels=None)
    if name == "cell types":  # as after a fit: scales that differ
        model = model.for_recording(recording).with_scales({"K[E]": 0.5, "K[I]": 2.0})
    return make_posterior(model, recording, **options)


def narrowed(posterior, factor):
    """The same Normal posterior with a smaller spread, and a gain without any."""
    normal = NormalDistribution(posterior.mode_coordinates, factor * posterior.distribution.scale)
    return dataclasses.replace(posterior, distribution=normal, statistics=dataclasses.replace(STATISTICS, scales={}))


# ------------------------------------------------------------------------------------------------------- draws of W


@pytest.fixture(scope="module")
def operator():
    """Two draws of 300 neurons: more than one block of rows."""
    random, size = np.random.default_rng(0), 300
    Q = np.linalg.qr(random.standard_normal((size, 3)))[0]
    bulk = BulkDraws(random.standard_normal((2, size, 3)), Q, np.array([0.4, 0.8]), np.array([5, 2**62 + 1]))
    factors = random.standard_normal((2, 2, size, 2))
    return LowRankConnectivity(*factors, bulk=bulk)


def test_all_views_of_a_draw_are_those_of_one_matrix(operator):
    W, random = operator.to_dense(), np.random.default_rng(1)
    vector, vectors = random.standard_normal(300), random.standard_normal((2, 300))
    post, pre = np.array([299, 3, 255, 256, -1, 3]), np.array([0, 1, 2, -300, 299, 7])
    np.testing.assert_allclose(operator.matvec(vector), W @ vector, atol=1e-11)
    np.testing.assert_allclose(operator.rmatvec(vector), vector @ W, atol=1e-11)
    np.testing.assert_allclose(operator.matvec(vectors), np.einsum("dij,dj->di", W, vectors), atol=1e-11)
    np.testing.assert_allclose(operator.rmatvec(vectors), np.einsum("dij,di->dj", W, vectors), atol=1e-11)
    np.testing.assert_allclose(operator.entries(post, pre), W[:, post, pre], atol=1e-12)
    np.testing.assert_allclose(operator.block(post, pre), W[:, post][:, :, pre], atol=1e-12)
    np.testing.assert_allclose(np.sum(operator.singular_values() ** 2, axis=1), np.sum(W**2, axis=(1, 2)))
    np.testing.assert_allclose(operator.eigenvalues().sum(axis=1), np.trace(W, axis1=1, axis2=2), atol=1e-10)
    assert operator.eigenvalues().shape == (2, 300)


def test_the_bulk_has_its_seen_part_exactly_and_the_unseen_in_distribution(operator):
    bulk = operator.bulk
    for draw in range(2):
        W0, Q = bulk.dense(draw), bulk.Q
        np.testing.assert_allclose(W0 @ Q, bulk.A[draw], atol=1e-12)
        unseen = (W0 - bulk.A[draw] @ Q.T) / bulk.gain[draw]
        # N (N - d) independent numbers of variance 1 / N, in coordinates of the complement of Q.
        coordinates = unseen @ scipy.linalg.null_space(Q.T) * np.sqrt(300.0)
        assert coordinates.var() == pytest.approx(1.0, abs=4.0 * np.sqrt(2.0 / coordinates.size))
        assert np.abs(coordinates.mean()) < 4.0 / np.sqrt(coordinates.size)
    other, same = bulk.take(np.array([1])), bulk.take(np.array([0]))
    np.testing.assert_array_equal(same.dense(0), bulk.dense(0))
    assert np.abs(other.dense(0) - bulk.dense(0)).max() > 0.01


@with_bulk
def test_draws_of_W_are_those_of_the_parameters(name):
    posterior = made(name)
    draws, W = posterior.sample_parameters(4, seed=7), posterior.sample_connectivity(4, seed=7).to_dense()
    again = posterior.sample_connectivity(4, seed=7).to_dense()
    np.testing.assert_array_equal(again, W)
    seen = draws["M"] @ np.swapaxes(draws["K"], 1, 2) / NEURONS + draws["A"] @ posterior.subspace.T
    np.testing.assert_allclose(W @ posterior.subspace, seen @ posterior.subspace, atol=1e-12)
    assert (np.abs(W - seen).max(axis=(1, 2)) > 0.05).all()
    mode = posterior.mode
    np.testing.assert_allclose(
        posterior.mode_connectivity.to_dense()[0],
        mode["M"] @ mode["K"].T / NEURONS + mode["A"] @ posterior.subspace.T,
        atol=1e-13,
    )


@pytest.mark.parametrize("mixture", [False, True])
def test_moments_against_draws(mixture):
    posterior, num_draws = made("bulk", mixture=mixture), 20_000
    posterior = dataclasses.replace(
        posterior, statistics=dataclasses.replace(STATISTICS, scales={"gain": (0.5, 0.4), "K": (1.0, 0.2)})
    )
    draws = posterior.sample_connectivity(num_draws, seed=1).to_dense()
    centred = draws - draws.mean(axis=0)
    variance, fourth = (centred**2).mean(axis=0), (centred**4).mean(axis=0)
    for error in (
        (draws.mean(axis=0) - posterior.connectivity_mean()) / np.sqrt(variance / num_draws),
        (variance - posterior.connectivity_sd() ** 2) / np.sqrt((fourth - variance**2) / num_draws),
    ):
        assert np.abs(error).max() < 4.5
        assert np.sqrt(np.mean(error**2)) < 2.0


@every_model
def test_moments_of_a_narrow_posterior_are_those_of_the_linearised_connectivity(name):
    posterior = narrowed(made(name), 1e-4)
    jacobian = connectivity_jacobian(posterior)
    spread = np.linalg.norm(jacobian @ posterior.distribution.scale[: jacobian.shape[1]], axis=1)
    variance = spread.reshape(NEURONS, NEURONS) ** 2 + posterior.unseen_variance
    np.testing.assert_allclose(posterior.connectivity_sd(), np.sqrt(variance), rtol=1e-4)
    np.testing.assert_allclose(
        posterior.connectivity_mean(), posterior.mode_connectivity.to_dense()[0], rtol=0, atol=1e-6
    )


def test_the_gain_of_every_draw_is_its_own():
    posterior = made("bulk")
    inferred = dataclasses.replace(STATISTICS, scales={"gain": (0.8, 0.3)})
    draws = dataclasses.replace(posterior, statistics=inferred).sample_parameters(4000, seed=0)
    log_gain = np.log(draws["gain"])
    assert log_gain.mean() == pytest.approx(np.log(0.8), abs=0.02)
    assert log_gain.std() == pytest.approx(0.3, abs=0.02)
    assert len(set(draws["bulk_seed"].tolist())) == 4000
    fixed = dataclasses.replace(posterior, statistics=dataclasses.replace(STATISTICS, scales={}))
    np.testing.assert_array_equal(fixed.sample_parameters(3, seed=0)["gain"], 0.5)


# ------------------------------------------------------------------------------------------------------ simulations


def with_known_background(posterior, draws, draw):
    """The model and the parameters of one draw, with its bulk as a known matrix."""
    W0 = BulkDraws(draws["A"], posterior.subspace, draws.get("gain"), draws.get("bulk_seed")).dense(draw)
    model = dataclasses.replace(posterior.model, background=lrp.FixedBackground(W0))
    names = set(draws) - {"A", "gain", "bulk_seed"}
    return model, {name: draws[name][draw : draw + 1] for name in names}


@with_bulk
@pytest.mark.parametrize("entries", [1, 2**24])
def test_a_draw_behaves_as_the_network_with_its_matrix(name, entries, monkeypatch):
    monkeypatch.setattr(rollouts, "DENSE_ENTRIES", entries)
    posterior = made(name)
    draws = posterior.sample_parameters(3, seed=2)
    rates = posterior.predict_rates(num_draws=3, seed=2)
    recording = posterior.recording
    candidates = lrp.pattern_candidates(recording, np.eye(NEURONS)[:3], onset=0.02, duration=0.04)
    experiment = make_experiment(posterior, candidates, None, None)
    quantities = ("current", "rate")
    responses = {each: response_draws(posterior.model, draws, experiment, each) for each in quantities}
    for draw in range(3):
        model, parameters = with_known_background(posterior, draws, draw)
        expected = rollouts.simulate_draws(model, parameters, posterior.trials_like(), quantity="rate")
        np.testing.assert_allclose(rates[draw], expected[0], atol=1e-12)
        for each in quantities:
            known = response_draws(model, parameters, experiment, each)
            np.testing.assert_allclose(responses[each][draw], known[0], atol=1e-12)


@with_bulk
def test_the_mode_leaves_the_unseen_part_out(name):
    posterior = made(name)
    mode = {key: value[None] for key, value in posterior.mode.items()}
    model, parameters = with_known_background(posterior, mode, 0)
    expected = rollouts.simulate_draws(model, parameters, posterior.trials_like(), quantity="rate")
    np.testing.assert_allclose(posterior.mode_rates(), expected[0], atol=1e-12)
    candidates = lrp.pattern_candidates(posterior.recording, np.eye(NEURONS)[:2], onset=0.02, duration=0.04)
    experiment = make_experiment(posterior, candidates, None, None)
    for quantity in ("current", "rate"):
        np.testing.assert_allclose(
            response_draws(posterior.model, mode, experiment, quantity),
            response_draws(model, parameters, experiment, quantity),
            atol=1e-12,
        )


@every_model
def test_a_ranking_scores_the_predicted_responses(name):
    posterior = made(name)
    candidates = lrp.pattern_candidates(posterior.recording, np.eye(NEURONS), onset=0.02, duration=0.04)
    ranking = lrp.rank_perturbations(posterior, candidates, num_draws=60, seed=3, progress=False)
    responses = lrp.predict_responses(posterior, candidates, num_draws=60, seed=3)
    np.testing.assert_allclose(ranking.response_mean, responses.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(ranking.response_sd, responses.std(axis=0, ddof=1), atol=1e-6)
    assert np.isfinite(ranking.contraction).all()
    assert np.isfinite(ranking.information).all()
    # Every direction of this posterior is constrained: what is degenerate is the unseen part of the bulk.
    assert ((ranking.share_degenerate > 1e-3) == (posterior.subspace is not None)).all()


def test_a_known_network_with_an_unseen_bulk_has_uncertain_responses():
    """All parameters known: what is left is the bulk, in the posterior as in the prior."""
    certain = narrowed(made("bulk"), 1e-6)
    candidates = lrp.pattern_candidates(certain.recording, np.eye(NEURONS), onset=0.02, duration=0.04)
    ranking = lrp.rank_perturbations(certain, candidates, num_draws=300, seed=0, progress=False)
    assert (ranking.expected_r2 < 0.98).all()
    np.testing.assert_allclose(ranking.share_degenerate, 1.0, atol=1e-3)
    model = dataclasses.replace(certain.model, background=dataclasses.replace(certain.model.background, gain=1e-9))
    quiet = dataclasses.replace(certain, model=model)
    ranking = lrp.rank_perturbations(quiet, candidates, num_draws=50, seed=0, progress=False)
    np.testing.assert_allclose(ranking.expected_r2, 1.0, atol=1e-6)


# ------------------------------------------------------------------------------------- what the data say, against jax


def jacobian_of(posterior, names):
    """Jacobian of W (its seen part) or of parameters by name, with respect to the dynamics coordinates."""
    space, z, Q = posterior.space, jnp.asarray(posterior.mode_coordinates), posterior.subspace

    def values(dynamics):
        parameters = space.unwhiten(jnp.concatenate([dynamics, z[space.num_dynamics :]]))
        everything = parameters | {"W": parameters["M"] @ parameters["K"].T / NEURONS}
        if Q is not None:
            everything["W"] += parameters["A"] @ Q.T
        if "initial_kappa" in parameters:
            everything["start"] = parameters["initial_kappa"] @ parameters["M"].T
        return jnp.concatenate([everything[name].ravel() for name in names])

    return np.asarray(jax.jacobian(values)(z[: space.num_dynamics]))


def connectivity_jacobian(posterior):
    return jacobian_of(posterior, ["W"])


def variance_ratios(jacobian, covariance):
    """Prior over posterior variance minus 1 along the directions of what a Jacobian maps to, decreasing."""
    basis, values, _ = np.linalg.svd(jacobian)
    mapped = basis[:, : np.sum(values > 1e-9 * values[0])].T @ jacobian
    return np.sort(scipy.linalg.eigh(mapped @ mapped.T, mapped @ covariance @ mapped.T)[0] - 1.0)[::-1]


def covariance_of(posterior):
    root = posterior.distribution.scale[: posterior.space.num_dynamics]
    return root @ root.T


def num_trades(posterior):
    num_inputs = posterior.recording.num_inputs
    of_bulk = 0 if posterior.subspace is None else RANK * DIMENSION
    num_types = len(posterior.space.regressions) // 3
    return of_bulk + num_types * RANK * (RANK + num_inputs + 1)


@every_model
def test_information_is_prior_over_posterior_variance_of_everything_observable(name):
    posterior = made(name)
    names = ["W", "B", "b"] + [each for each in ("log_time_constant_excess",) if each in posterior.space]
    names += ["start"] if "initial_kappa" in posterior.space else []
    expected = variance_ratios(jacobian_of(posterior, names), covariance_of(posterior))
    assert len(expected) == posterior.space.num_dynamics - RANK**2 - num_trades(posterior)
    np.testing.assert_allclose(posterior.spectrum.information, expected, rtol=1e-6)
    vertical = posterior.spectrum.vertical
    np.testing.assert_allclose(jacobian_of(posterior, names) @ vertical, 0.0, atol=1e-11)


@every_model
def test_information_on_W_is_prior_over_posterior_variance_of_W(name):
    posterior = made(name)
    found = connectivity_spectrum(
        posterior.space, posterior.mode_coordinates, posterior.spectrum, posterior.subspace
    ).information
    expected = variance_ratios(connectivity_jacobian(posterior), covariance_of(posterior))
    dimension = 0 if posterior.subspace is None else DIMENSION
    assert len(found) == 2 * NEURONS * RANK + NEURONS * dimension - RANK**2 - RANK * dimension
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@every_model
def test_contraction_and_subspaces_are_those_of_the_linearised_connectivity(name):
    posterior = made(name)
    degeneracy = lrp.analyze_degeneracy(posterior)
    jacobian = connectivity_jacobian(posterior)
    changes = jacobian.reshape(NEURONS, NEURONS, -1)
    unseen = np.zeros((NEURONS, NEURONS))
    if posterior.subspace is not None:
        complement = np.eye(NEURONS) - posterior.subspace @ posterior.subspace.T
        gain, spread = STATISTICS.scales["gain"]
        unseen = gain**2 * np.exp(2.0 * spread**2) / NEURONS * complement
    removed = np.eye(jacobian.shape[1]) - covariance_of(posterior)
    prior = np.sum(changes**2, axis=2)
    expected = np.einsum("ijp,pq,ijq->ij", changes, removed, changes) / (prior + np.diag(unseen))
    np.testing.assert_allclose(degeneracy.contraction, expected, rtol=1e-8, atol=1e-9)
    for subspace, axes, of_unseen in (
        (degeneracy.read, "kip,pq,kjq->ij", NEURONS * unseen),
        (degeneracy.written, "ikp,pq,jkq->ij", np.trace(unseen) * np.eye(NEURONS)),
    ):
        of_prior = np.einsum(axes, changes, np.eye(len(removed)), changes) + of_unseen
        of_removed = np.einsum(axes, changes, removed, changes)
        pattern = subspace.patterns[0]
        assert subspace.contraction[0] == pytest.approx(
            pattern @ of_removed @ pattern / (pattern @ of_prior @ pattern), rel=1e-7
        )
        np.testing.assert_allclose(
            subspace.shares, np.linalg.eigvalsh(of_removed)[::-1] / np.trace(of_removed), atol=1e-9
        )


@with_bulk
def test_unseen_directions_and_trades_are_counted_apart(name):
    posterior = made(name)
    degeneracy = lrp.analyze_degeneracy(posterior)
    unseen = NEURONS * (NEURONS - DIMENSION)
    assert degeneracy.num_unseen == unseen
    assert degeneracy.num_gauge == RANK**2
    assert degeneracy.num_trades == num_trades(posterior)
    seen = posterior.space.num_dynamics - degeneracy.num_gauge - degeneracy.num_trades
    assert degeneracy.num_constrained + degeneracy.num_degenerate == seen + unseen
    assert degeneracy.num_constrained == np.sum(degeneracy.spectrum >= 1.0)
    assert f"    of them the unseen bulk       {unseen:>16}{unseen:>12}" in str(degeneracy)
    assert f"and {degeneracy.num_trades} trades between parameters" in str(degeneracy)


@with_bulk
def test_the_spectrum_is_drawn_without_the_unseen_directions(name):
    degeneracy = lrp.analyze_degeneracy(made(name))
    axes = degeneracy.plot_spectrum().axes[0]
    everything, alone = axes.get_lines()[:2]
    np.testing.assert_array_equal(everything.get_ydata(), np.maximum(degeneracy.spectrum, 1e-4))
    assert len(alone.get_xdata()) == len(degeneracy.connectivity.spectrum)
    assert alone.get_label().endswith("15 never seen and not shown")


@with_bulk
def test_with_a_bulk_no_change_of_W_is_excluded(name):
    degeneracy = lrp.analyze_degeneracy(made(name))
    Q, random = degeneracy.posterior.subspace, np.random.default_rng(0)
    unseen = random.standard_normal((NEURONS, NEURONS)) @ (np.eye(NEURONS) - Q @ Q.T)
    anything = random.standard_normal((NEURONS, NEURONS))
    split = degeneracy.split(anything)
    np.testing.assert_allclose(split.constrained + split.degenerate, anything, atol=1e-10)
    np.testing.assert_array_equal(split.outside, 0.0)
    left = degeneracy.posterior.mode["M"]
    outside_left = unseen - left @ np.linalg.lstsq(left, unseen, rcond=None)[0]
    K = degeneracy.posterior.mode["K"]
    outside = outside_left @ (np.eye(NEURONS) - K @ np.linalg.lstsq(K, np.eye(NEURONS), rcond=None)[0])
    outside = outside @ (np.eye(NEURONS) - np.linalg.pinv(np.c_[K, Q].T) @ np.c_[K, Q].T)
    np.testing.assert_allclose(degeneracy.split(outside).constrained, 0.0, atol=1e-10)


# ------------------------------------------------------------------------------------------------------- mixtures


def test_moments_of_a_mixture_follow_from_its_components():
    random = np.random.default_rng(0)
    components = tuple(NormalDistribution(random.standard_normal(3), random.standard_normal((3, 4))) for _ in range(2))
    mixture = MixtureDistribution(np.array([0.8, 0.2]), components)
    draws = mixture.sample(200_000, seed=0)
    locations = np.stack([each.location for each in components])
    mean = mixture.weights @ locations
    expected = sum(
        weight * (each.scale @ each.scale.T + np.outer(each.location - mean, each.location - mean))
        for weight, each in zip(mixture.weights, components, strict=True)
    )
    np.testing.assert_array_equal(mixture.location, locations[0])
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(draws, rowvar=False), expected, rtol=0.03, atol=0.05)


@every_model
def test_spectrum_of_a_mixture(name):
    """One component alone is a Normal posterior; several have the covariance of them all."""
    posterior = made(name)
    normal, space, mode = posterior.distribution, posterior.space, posterior.mode_coordinates
    twice = MixtureDistribution(np.array([0.25, 0.75]), (normal, normal))
    found = horizontal_spectrum(space, mode, twice, posterior.subspace)
    np.testing.assert_allclose(found.information, posterior.spectrum.information, rtol=1e-9)
    wider = MixtureDistribution(np.array([0.5, 0.5]), (normal, NormalDistribution(mode, 2.0 * normal.scale)))
    found = horizontal_spectrum(space, mode, wider, posterior.subspace)
    np.testing.assert_allclose(found.posterior_variance, 2.5 * posterior.spectrum.posterior_variance, rtol=1e-9)


# ------------------------------------------------------------------------------------------- files, ArviZ, printout


@every_model
def test_a_file_holds_everything(name, tmp_path):
    posterior = made(name, mixture=True)
    posterior.save(tmp_path / "fit.nc")
    loaded = lrp.load_posterior(tmp_path / "fit.nc")
    assert loaded.statistics.scales == STATISTICS.scales
    assert loaded.model.priors == posterior.model.priors
    for mine, other in ((posterior.sample_parameters(5, seed=1), loaded.sample_parameters(5, seed=1)),):
        assert mine.keys() == other.keys()
        for key, value in mine.items():
            np.testing.assert_array_equal(other[key], value)
    np.testing.assert_array_equal(
        loaded.sample_connectivity(3, seed=0).to_dense(), posterior.sample_connectivity(3, seed=0).to_dense()
    )
    np.testing.assert_array_equal(loaded.connectivity_sd(), posterior.connectivity_sd())
    if posterior.subspace is not None:
        np.testing.assert_array_equal(loaded.subspace, posterior.subspace)
        assert loaded.model.background.gain == posterior.model.background.gain


@every_model
def test_arviz_has_the_draws_of_W(name):
    posterior = made(name, mixture=True)
    tree = posterior.to_arviz(6, seed=3)
    np.testing.assert_allclose(tree.posterior["W"][0], posterior.sample_connectivity(6, seed=3).to_dense(), atol=1e-13)
    assert ("gain" in tree.posterior) == (posterior.subspace is not None)
    assert np.isfinite(tree.log_likelihood["activity"]).all()


def test_printout_tells_scales_and_parts():
    posterior = made("bulk")
    text = str(posterior)
    assert "inferred prior scales: K 0.333 (0.221 to 0.503), gain 0.4 (0.399 to 0.401)" in text
    assert f"explained variance {posterior.explained_parts.both:.3f}, by M K^T alone" in text
    assert made("correlated loadings").explained_parts is None


def test_parts_that_do_nothing_are_named():
    random = np.random.default_rng(0)
    model = plain_model(1, background=lrp.RandomBulk(gain=0.8, dimension=4))
    simulation = lrp.simulate_recording(model, num_neurons=12, num_trials=4, num_bins=30, noise_scale=1e-3, seed=0)
    settled = model.for_recording(simulation.recording)
    space = settled.space_for(simulation.recording)
    truth = {name: simulation.parameters[name] for name in ("M", "K", "B", "b")}
    truth |= {"A": simulation.parameters["W0"] @ settled.background.visited, "log_noise_scale": np.full(12, -7.0)}

    def parts(**changes):
        z = np.asarray(space.whiten(truth | changes))
        normal = NormalDistribution(z, 1e-3 * random.standard_normal((space.size, 2)))
        return lrp.Posterior(
            settled, simulation.recording, "laplace", 0, "by hand", STATISTICS, z, normal
        ).explained_parts

    both = parts()
    assert both.both > 0.98
    assert max(both.low_rank, both.bulk) < both.both - 0.01
    no_bulk, no_rank = parts(A=0.0 * truth["A"]), parts(K=1e-9 * truth["K"])
    assert no_bulk.both == no_bulk.low_rank == both.low_rank
    assert no_rank.bulk == pytest.approx(no_rank.both, abs=1e-6)
    assert no_bulk.warning is None
    assert "the low-rank part is not needed" in no_rank.warning
    nothing = parts(A=0.0 * truth["A"], K=1e-9 * truth["K"])
    assert nothing.neither == pytest.approx(nothing.both, abs=1e-6)
    assert nothing.neither == pytest.approx(both.neither, abs=1e-6)
    assert "without any connectivity" in nothing.warning


# ------------------------------------------------------------------------------------------------------ simulations


def test_simulated_recordings_have_a_bulk_that_the_truth_knows():
    model = plain_model(2, background=lrp.RandomBulk(gain=lrp.ScalePrior(0.7, 1.0)))
    options = {"num_neurons": 60, "num_trials": 2, "num_bins": 20, "noise_scale": 0.1, "seed": 3}
    simulation = lrp.simulate_recording(model, **options)
    W0 = simulation.parameters["W0"]
    assert W0.std() * np.sqrt(60) == pytest.approx(0.7, abs=4.0 * 0.7 / np.sqrt(2 * 3600))
    M, K = simulation.parameters["M"], simulation.parameters["K"]
    np.testing.assert_allclose(simulation.connectivity, M @ K.T / 60 + W0)
    known = dataclasses.replace(model, background=lrp.FixedBackground(W0))
    parameters = {name: value for name, value in simulation.parameters.items() if name != "W0"}
    again = known.simulate(parameters, simulation.recording, seed=1)
    np.testing.assert_array_equal(model.simulate(simulation.parameters, again, seed=1).activity, again.activity)
    assert np.abs(again.activity - simulation.rates).max() < 0.6
    plain = lrp.simulate_recording(plain_model(2), **options)
    np.testing.assert_array_equal(plain.parameters["M"], M)


def test_a_simulation_without_the_matrix_of_the_bulk_is_refused():
    model = plain_model(2, background=lrp.RandomBulk())
    simulation = lrp.simulate_recording(model, num_neurons=6, num_trials=2, num_bins=10, seed=0)
    parameters = {name: value for name, value in simulation.parameters.items() if name != "W0"}
    with pytest.raises(ValueError, match=r"^parameters: expected the key 'W0', .*; add the bulk's matrix"):
        model.simulate(parameters, simulation.recording, seed=0)


def test_given_left_factors_enter_the_regression_of_K():
    model = plain_model(1, priors=lrp.CorrelatedLoadings(K=1e-9, B=1e-9, b=1e-9))
    M = np.random.default_rng(0).standard_normal((9, 1))
    simulation = lrp.simulate_recording(model, M=M, num_trials=1, num_bins=5, seed=2)
    K = simulation.parameters["K"]
    np.testing.assert_allclose(K, M * (K[0] / M[0]), atol=1e-6)
    assert np.abs(K).max() > 0.1


# ------------------------------------------------------------------------------------------------- trades and report


@every_model
def test_trades_between_parameters_change_nothing(name):
    """Not only to first order: K within Q against A, and coefficients against residuals of K."""
    posterior, random = made(name), np.random.default_rng(4)
    space, Q = posterior.space, posterior.subspace
    parameters = {key: np.asarray(value) for key, value in space.unwhiten(posterior.mode_coordinates).items()}
    if Q is not None:
        Z = random.standard_normal((DIMENSION, RANK))
        parameters["K"] = parameters["K"] + NEURONS * Q @ Z
        parameters["A"] = parameters["A"] - parameters["M"] @ Z.T
    for coefficients in space.regressions:
        parameters[coefficients] = random.standard_normal(parameters[coefficients].shape)
    moved = dataclasses.replace(posterior, mode_coordinates=np.asarray(space.whiten(parameters)))
    assert np.linalg.norm(moved.mode_coordinates - posterior.mode_coordinates) > 1.0
    W, other = posterior.mode_connectivity.to_dense(), moved.mode_connectivity.to_dense()
    np.testing.assert_allclose(other, W, atol=1e-12)
    np.testing.assert_allclose(moved.mode_rates(), posterior.mode_rates(), atol=1e-12)
    for direction in trade_directions(space, posterior.mode_coordinates, Q).T[:: max(1, RANK)]:
        change = np.concatenate([direction, np.zeros(space.size - space.num_dynamics)])
        along = dataclasses.replace(posterior, mode_coordinates=posterior.mode_coordinates + 0.5 * change)
        np.testing.assert_allclose(along.mode_connectivity.to_dense(), W, atol=1e-12)


def test_the_report_tells_of_the_bulk():
    posterior = made("bulk and correlated loadings", mixture=True)
    candidates = lrp.pattern_candidates(posterior.recording, np.eye(NEURONS), onset=0.02, duration=0.04)
    ranking = lrp.rank_perturbations(posterior, candidates, num_draws=20, seed=0, progress=False)
    text = render_report(posterior, lrp.analyze_degeneracy(posterior), ranking, seed=0)
    assert "random, gain 0.5, seen through 2 patterns of activity" in text
    assert "K 0.333 (0.221 to 0.503), gain 0.4" in text
    assert str(posterior.explained_parts) in text
    assert "15 belong to the part of the random bulk" in " ".join(text.split())


# ------------------------------------------------------------------------------------------------------------- a fit


@pytest.mark.slow
def test_a_fit_with_a_bulk():
    """Everything inferred at once: the scales come with the fit, and the truth lies within its intervals."""
    model = plain_model(2, background=lrp.RandomBulk(dimension=3))
    simulation = lrp.simulate_recording(model, num_neurons=20, num_trials=10, num_bins=40, noise_scale=0.1, seed=1)
    posterior = lrp.fit(model, simulation.recording, seed=0, progress=False)
    value, spread = posterior.statistics.scales["gain"]
    assert posterior.model.background.gain == value
    assert abs(np.log(value / 0.3)) < 4.0 * spread
    assert posterior.sample_parameters(50, seed=0)["gain"].std() > 0.0
    scores = (simulation.connectivity - posterior.connectivity_mean()) / posterior.connectivity_sd()
    assert 0.8 < np.mean(np.abs(scores) < 1.645) < 1.0
    degeneracy = lrp.analyze_degeneracy(posterior)
    assert degeneracy.num_unseen == 20 * 17
    assert 0 < degeneracy.connectivity.num_constrained <= degeneracy.max_constrained_connectivity


def test_a_dimension_beyond_what_the_recording_spans_is_refused():
    model = plain_model(rank=1, background=lrp.RandomBulk(dimension=7))
    recording = lrp.Recording(np.random.default_rng(0).standard_normal((2, 10, 6)), 0.02)
    with pytest.raises(ValueError, match=r"^dimension: expected at most 6, what 6 neurons .*, got 7; lower it"):
        lrp.fit(model, recording, seed=0, progress=False)


@pytest.mark.parametrize(("num_neurons", "dimension"), [(200, 20), (1000, 20), (4000, 10)])
def test_a_large_population_has_fewer_visited_directions(num_neurons, dimension):
    """Neurons times squared directions is what a fit costs; thirty directions stand out of the noise here."""
    random = np.random.default_rng(0)
    signal = random.standard_normal((120, 30)) @ random.standard_normal((30, num_neurons))
    activity = signal + 0.1 * random.standard_normal(signal.shape)
    recording = lrp.Recording(activity.reshape(4, 30, num_neurons), 0.02)
    settled = lrp.LowRankModel(rank=1).for_recording(recording)
    assert settled.background.dimension == dimension
