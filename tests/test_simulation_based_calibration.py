"""Simulation-based calibration: uniform ranks where the posterior is right, and an alarm where it is not."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
from handmade import STATISTICS, in_another_gauge
from plain import plain_model

import lrposterior as lrp
from lrposterior.calibration import Networks, SimulatedTruth, gauge_invariant_quantities
from lrposterior.calibration.rank_band import RankBand
from lrposterior.calibration.simulated_truth import Size, draw_truth, simulate_truth, with_drawn_scales
from lrposterior.distribution import NormalDistribution, SampleDistribution

MODEL = plain_model(rank=2, priors=lrp.Priors(noise_scale=0.15, noise_spread=0.2, unit=1.0))
SMALL = {"num_neurons": 6, "num_trials": 2, "num_bins": 12, "num_draws": 49, "progress": False}


def posterior_of(model, recording, seed, distribution):
    size = model.for_recording(recording).space_for(recording).size
    return lrp.Posterior(
        model.for_recording(recording),
        recording,
        "toy",
        seed,
        "converged",
        STATISTICS,
        np.zeros(size),
        distribution(size),
    )


def prior_as_posterior(width):
    """A fit that has not looked at the data: the prior (width 1), or one as wide as that."""

    def fit(model, recording, seed):
        return posterior_of(
            model, recording, seed, lambda size: NormalDistribution(np.zeros(size), width * np.eye(size))
        )

    return fit


def exact_fit(model, recording, seed):
    """The exact posterior of a tiny model: draws of the prior, chosen by their likelihood."""
    random = np.random.default_rng([seed, 5])
    settled = model.for_recording(recording)
    z = random.standard_normal((4000, settled.space_for(recording).size))
    unweighted = posterior_of(model, recording, seed, lambda size: SampleDistribution(z[None]))
    parameters = unweighted.named_draws(z, random)
    log_weights = Networks(settled, parameters, recording).log_likelihood()
    weights = np.exp(log_weights - log_weights.max())
    chosen = random.choice(len(z), size=49, p=weights / weights.sum())
    return posterior_of(model, recording, seed, lambda size: SampleDistribution(z[None, chosen]))


def tiny_quantities(networks):
    """Of a single neuron; the log likelihood and the data are known to the posterior alone."""
    W = networks.connectivity.entries([0], [0])[:, 0]
    return {
        "W": W,
        "bias": networks.parameters["b"][:, 0],
        "noise": networks.parameters["noise_scale"][:, 0],
        "log likelihood": networks.log_likelihood(),
    }


TINY = {"num_neurons": 1, "num_trials": 1, "num_bins": 5, "num_inputs": 0, "num_draws": 49, "progress": False}
TINY_MODEL = plain_model(rank=1, priors=lrp.Priors(noise_scale=0.5, noise_spread=0.3, unit=1.0))


# ----------------------------------------------------------------------------------------------------- right posteriors
@pytest.mark.slow
def test_the_exact_posterior_is_in_the_band():
    """All four quantities in their familywise band: a right posterior fails with probability 0.05."""
    result = lrp.simulate_calibration(
        TINY_MODEL, exact_fit, num_simulations=50, quantities=tiny_quantities, seed=0, **TINY
    )
    assert result.in_band(familywise=True) == dict.fromkeys(("W", "bias", "noise", "log likelihood"), True)
    assert result.num_fitted == 50
    assert result.num_refused == 0


@pytest.mark.slow
def test_an_exact_posterior_that_is_narrowed_leaves_the_band():
    def narrowed(model, recording, seed):
        posterior = exact_fit(model, recording, seed)
        draws = posterior.distribution.draws
        centre = draws.mean(axis=1, keepdims=True)
        return dataclasses.replace(posterior, distribution=SampleDistribution(centre + 0.3 * (draws - centre)))

    result = lrp.simulate_calibration(
        TINY_MODEL, narrowed, num_simulations=50, quantities=tiny_quantities, seed=0, **TINY
    )
    assert not result.in_band(familywise=True)["bias"]
    assert not result.in_band(familywise=True)["noise"]
    assert "NO" in str(result)


@pytest.mark.slow
def test_the_prior_is_calibrated_but_for_the_log_likelihood():
    """The well-known blind spot of ranks of parameters, and the quantity that sees it."""
    result = lrp.simulate_calibration(MODEL, prior_as_posterior(1.0), num_simulations=40, seed=0, **SMALL)
    inside = result.in_band(familywise=True)
    assert not inside.pop("log likelihood")
    assert inside == dict.fromkeys(inside, True)
    assert len(inside) == 9


@pytest.mark.slow
def test_a_prior_of_half_the_width_is_found_out():
    result = lrp.simulate_calibration(MODEL, prior_as_posterior(0.5), num_simulations=40, seed=0, **SMALL)
    inside = result.in_band(familywise=True)
    assert not any(inside[name] for name in ("W[0, 1]", "W[2, 2]", "norm of W", "modulus 1"))
    np.testing.assert_allclose(result.to_dataframe().loc["W[0, 1]", "sd_error"], 4.0, rtol=0.5)


def test_truths_have_scales_from_their_priors():
    """The log scales of 300 models against their Normal priors (Kolmogorov, 0.001), and those of one network."""
    priors = lrp.Priors(K=lrp.ScalePrior(2.0, 0.8), unit=1.0)
    model = lrp.LowRankModel(rank=1, priors=priors, background=lrp.RandomBulk(gain=lrp.ScalePrior(0.5, 0.6)))
    models = [with_drawn_scales(model, seed=seed) for seed in range(300)]
    for scale, median, spread in (("K", 2.0, 0.8), ("gain", 0.5, 0.6)):
        logs = np.log([each.scale(scale) for each in models])
        assert scipy.stats.kstest(logs, scipy.stats.norm(np.log(median), spread).cdf).pvalue > 1e-3
    parameters = draw_truth(model, Size(num_neurons=60, num_trials=1, num_bins=2), seed=3).parameters
    # A root mean square of n entries scatters by 1 / sqrt(2 n) of itself: four of these.
    for entries, expected in ((parameters["K"], models[3].scale("K")), (parameters["W0"], models[3].scale("gain"))):
        found = np.sqrt(np.mean(entries**2)) * (1.0 if entries.shape[1] == 1 else np.sqrt(60))
        assert abs(found / expected - 1.0) < 4.0 / np.sqrt(2 * entries.size)


def driven_quantities(networks):
    """Of a network whose latents are driven by noise, which a rollout has not."""
    of_network = gauge_invariant_quantities(networks)
    return {name: of_network[name] for name in ("W[0, 1]", "W[2, 2]", "real part 1", "one to one", "several to one")}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fits_with_process_noise_are_in_the_band_where_rollouts_are_not():
    """25 networks of rank 1 and five quantities in their familywise band: a right posterior fails with 0.05."""
    noise = lrp.ProcessNoise(scale=0.3, spread=0.3)
    model = dataclasses.replace(MODEL, rank=1, process_noise=noise)

    def calibrated(fitted):
        return lrp.simulate_calibration(
            model,
            lambda model, recording, seed: lrp.fit(
                dataclasses.replace(model, process_noise=fitted), recording, seed=seed, progress=False
            ),
            num_simulations=25,
            quantities=driven_quantities,
            num_neurons=8,
            num_trials=10,
            num_bins=40,
            num_draws=99,
            seed=0,
            progress=False,
        )

    inside = calibrated(noise).in_band(familywise=True)
    assert inside == dict.fromkeys(inside, True)
    assert not any(calibrated(None).in_band(familywise=True).values())


# ------------------------------------------------------------------------------------------------------- the quantities
@pytest.mark.parametrize("background", [None, lrp.RandomBulk(gain=0.4)])
def test_quantities_are_the_same_in_every_gauge(background):
    model = dataclasses.replace(MODEL, background=background)
    truth = draw_truth(model, Size(6, num_trials=3, num_bins=24), seed=3)
    random = np.random.default_rng(0)
    posterior = posterior_of(
        model, truth.recording, 0, lambda size: SampleDistribution(0.5 * random.standard_normal((1, 20, size)))
    )
    one, other = (
        gauge_invariant_quantities(Networks(each.model, each.sample_parameters(20, seed=0), truth.recording))
        for each in (posterior, in_another_gauge(posterior))
    )
    assert len(one) == 10
    for name in one:
        np.testing.assert_allclose(other[name], one[name], rtol=1e-6, atol=1e-9, err_msg=name)
    moved = {"M": 2.0 * posterior.sample_parameters(20, seed=0)["M"]}
    wrong = Networks(posterior.model, posterior.sample_parameters(20, seed=0) | moved, truth.recording)
    assert not np.allclose(gauge_invariant_quantities(wrong)["norm of W"], one["norm of W"])


@pytest.mark.parametrize("background", [None, lrp.RandomBulk(gain=0.4)])
def test_quantities_of_the_truth_are_those_of_its_connectivity(background, monkeypatch):
    seen = []

    def spy(networks):
        seen.append(networks)
        return gauge_invariant_quantities(networks)

    model = dataclasses.replace(MODEL, background=background)
    size = Size(6, num_trials=3, num_bins=24)
    simulate_truth(model, size, prior_as_posterior(1.0), quantities=spy, num_draws=10, seed=4)
    truth, network = draw_truth(model, size, seed=4), seen[1]
    found, W = gauge_invariant_quantities(network), truth.connectivity
    np.testing.assert_allclose(found["W[0, 1]"], W[0, 1])
    np.testing.assert_allclose(found["W[2, 2]"], W[2, 2])
    np.testing.assert_allclose(found["norm of W"], np.linalg.norm(W))
    np.testing.assert_allclose(found["modulus 1"], np.abs(np.linalg.eigvals(W)).max())
    np.testing.assert_allclose(network.rates(truth.recording)[0], truth.rates, atol=1e-10)
    density = scipy.stats.norm(truth.rates, truth.parameters["noise_scale"]).logpdf(truth.recording.activity)
    np.testing.assert_allclose(found["log likelihood"], density.sum())


def test_responses_are_those_of_the_stimulated_neurons():
    """Against the simulation of the first trial with and without the stimulation."""
    truth = draw_truth(MODEL, Size(8, num_trials=3, num_bins=24), seed=5)
    parameters = {name: np.asarray(value)[None] for name, value in truth.parameters.items()}
    found = gauge_invariant_quantities(Networks(MODEL, parameters, truth.recording))
    first = {"inputs": truth.recording.inputs[:1]}
    silent = lrp.Recording(np.zeros((1, 24, 8)), 0.02, **first)
    for number, quantity in ((1, "one to one"), (4, "several to one")):
        stimulation = np.zeros((1, 24, 8))
        stimulation[:, 8:10, :number] = 2.0
        stimulated = lrp.Recording(np.zeros((1, 24, 8)), 0.02, **first, stimulation=stimulation)
        plain, moved = (
            Networks(MODEL, parameters, trials).rates(trials)[0, 0, 8:14].mean(axis=0)
            for trials in (silent, stimulated)
        )
        np.testing.assert_allclose(found[quantity], (moved - plain)[5])
    np.testing.assert_allclose(found["several to others"], (moved - plain)[4:].mean())


# --------------------------------------------------------------------------------------------------- refusals and bands
def test_refusals_are_counted_and_reported_with_their_text():
    def picky(model, recording, seed):
        if seed % 3 == 0:
            raise lrp.FitError(f"the data of seed {seed} do not support rank 2")
        return prior_as_posterior(1.0)(model, recording, seed)

    result = lrp.simulate_calibration(MODEL, picky, num_simulations=10, seed=0, **SMALL)
    assert (result.num_fitted, result.num_refused) == (6, 4)
    assert sorted(result.refusals) == [0, 3, 6, 9]
    assert "10 simulations, 4 refused" in str(result)
    assert "refused, seed 3: the data of seed 3 do not support rank 2" in str(result)
    assert "... and 1 more" in str(result)
    assert result.to_xarray().attrs["num_refused"] == 4

    def refuses(model, recording, seed):
        raise lrp.FitError("no")

    with pytest.raises(ValueError, match="fit: expected one fit at least, got none of 2; the first: no"):
        lrp.simulate_calibration(MODEL, refuses, num_simulations=2, seed=0, **SMALL)

    def broken(model, recording, seed):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        lrp.simulate_calibration(MODEL, broken, num_simulations=2, seed=0, **SMALL)


def test_the_same_seed_gives_the_same_ranks_and_its_parts_join():
    fit = prior_as_posterior(1.0)
    once, again = (lrp.simulate_calibration(MODEL, fit, num_simulations=4, seed=7, **SMALL) for _ in range(2))
    np.testing.assert_array_equal(once.ranks, again.ranks)
    parts = [
        simulate_truth(MODEL, Size(6, num_trials=2, num_bins=12), fit, num_draws=49, seed=seed) for seed in range(7, 11)
    ]
    np.testing.assert_array_equal(lrp.CalibrationResult.of(parts).ranks, once.ranks)
    assert once.to_xarray().sizes == {"simulation": 4, "quantity": 10}


def test_ranks_of_one_distribution_are_uniform_with_and_without_ties():
    random = np.random.default_rng(1)

    def simulate(seed):
        values = {"plain": random.normal(size=10), "tied": random.integers(3, size=10)}
        return SimulatedTruth(
            seed,
            num_draws=9,
            below={name: int(np.sum(each[1:] < each[0])) for name, each in values.items()},
            equal={name: int(np.sum(each[1:] == each[0])) for name, each in values.items()},
            error=dict.fromkeys(values, 0.0),
        )

    result = lrp.CalibrationResult.of([simulate(seed) for seed in range(500)])
    assert result.in_band(familywise=True) == {"plain": True, "tied": True}
    assert np.all((result.ranks > 0) & (result.ranks < 1))


def test_the_band_holds_uniform_ranks_and_no_others():
    """Of 40 sets of uniform ranks two leave the 95% band on average; more than eight with probability 0.0005."""
    random = np.random.default_rng(0)
    assert sum(not RankBand.of(random.uniform(size=100)).holds for _ in range(40)) <= 8
    too_narrow = random.beta(0.5, 0.5, size=100)
    assert not RankBand.of(too_narrow).holds
    assert RankBand.of(too_narrow).excess > 0.02
    one, many = RankBand.of(too_narrow), RankBand.of(too_narrow, 0.995)
    assert np.all(many.upper >= one.upper)
    assert np.all(many.lower <= one.lower)
    share = [np.mean(too_narrow <= at) for at in one.at]
    np.testing.assert_allclose(one.difference, np.array(share) - one.at)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": plain_model(rank=1, nonlinearity="relu")}, "model: expected priors whose unit is a number"),
        ({"fit": "laplace"}, "fit: expected a function of"),
        ({"fit": lambda model, recording, seed: 3}, "fit: expected Posterior, got int"),
        ({"num_simulations": 0}, "num_simulations: expected an integer >= 1"),
        ({"num_neurons": 2}, "num_neurons: expected an integer >= 3"),
        ({"num_bins": 5}, "num_bins: expected an integer >= 12"),
        ({"quantities": lambda networks: {"all": networks.parameters["b"]}}, "quantities: expected 49 finite numbers"),
    ],
)
def test_errors_name_the_argument(changes, message):
    given = {"model": MODEL, "fit": prior_as_posterior(1.0), "num_simulations": 1, "seed": 0} | SMALL | changes
    with pytest.raises(ValueError, match=message):
        lrp.simulate_calibration(given.pop("model"), given.pop("fit"), **given)
