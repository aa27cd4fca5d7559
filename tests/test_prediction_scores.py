"""Scores of predictions: equal to naive references, right where the posterior is, and alarmed where it is not."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
import scoringrules
from small_fit import small_fit

import lrposterior as lrp
from lrposterior.calibration.cases import COVERAGE_LEVELS, Cases, compare
from lrposterior.calibration.envelope import global_envelope
from lrposterior.calibration.rank_band import RankBand
from lrposterior.calibration.ranks import LEVELS
from lrposterior.calibration.statistics import (
    STATISTICS,
    pooled_expected_r2,
    reliability,
    reliability_slope,
    risk,
    sparsification,
)

NUM_CANDIDATES, NUM_ENTRIES = 24, 15


def network_draws(num_draws, random, *, width=1.0, num_candidates=NUM_CANDIDATES):
    """Responses (draw, candidate, entry) of Gaussian networks: a common latent, entries of their own, a mean."""
    fixed = np.random.default_rng(99)
    mean = fixed.standard_normal((num_candidates, NUM_ENTRIES)) * np.linspace(0.2, 3.0, num_candidates)[:, None]
    loading = 0.4 * fixed.standard_normal((num_candidates, NUM_ENTRIES, 3))
    latent, own = random.standard_normal((num_draws, 3)), random.standard_normal((num_draws, *mean.shape))
    return mean + width * (np.einsum("cek,dk->dce", loading, latent) + own)


def made_cases(expected_r2, error, power=1.0):
    """Cases by hand, with E|q|² = 1."""
    expected_r2, error = np.atleast_2d(expected_r2), np.atleast_2d(error)
    one = np.ones_like(error)
    return Cases(error, power * one, one, 1.0 - expected_r2, expected_r2, one, one, np.ones((*one.shape, 4)))


# --------------------------------------------------------------------------------------------- against naive references
@pytest.mark.parametrize("tied", [False, True])
def test_a_draw_in_the_place_of_the_truth_is_scored_like_a_truth_against_the_other_draws(tied):
    random = np.random.default_rng(0)
    draws = random.standard_normal((12, 30)) * random.uniform(0.1, 3.0, 30) + random.standard_normal(30)
    draws = np.round(draws) if tied else draws
    found = compare(draws, random.standard_normal(30))
    for index in range(len(draws)):
        alone = compare(np.delete(draws, index, axis=0), draws[index])
        for name in Cases._fields:
            np.testing.assert_allclose(
                getattr(found.draws, name)[index], getattr(alone.truth, name)[0], rtol=1e-10, atol=1e-12, err_msg=name
            )
        np.testing.assert_allclose(found.draw_pits[index], alone.pit, atol=1e-12)


def test_moments_follow_their_definitions():
    random = np.random.default_rng(1)
    draws, truth = random.standard_normal((40, 6)) + 1.0, random.standard_normal(6)
    case = compare(draws, truth).truth
    mean, spread = draws.mean(axis=0), np.trace(np.cov(draws.T))
    np.testing.assert_allclose(case.achieved_r2, 1.0 - np.sum((truth - mean) ** 2) / np.sum(truth**2))
    np.testing.assert_allclose(case.spread, spread)
    np.testing.assert_allclose(case.expected_power, np.mean(np.sum(draws**2, axis=1)))
    signal = mean @ mean - spread / 40
    np.testing.assert_allclose(case.expected_r2, signal / (signal + spread))


def test_crps_and_energy_score_are_those_of_scoringrules():
    random = np.random.default_rng(2)
    draws, truth = random.standard_normal((25, 9)), random.standard_normal(9)
    case = compare(draws, truth).truth
    by_entry = scoringrules.crps_ensemble(truth, draws.T, estimator="fair")
    np.testing.assert_allclose(case.crps, by_entry.mean())
    np.testing.assert_allclose(case.energy, scoringrules.es_ensemble(truth, draws, estimator="fair"))


def test_crps_and_energy_score_are_those_of_all_pairs():
    random = np.random.default_rng(3)
    draws, truth = random.standard_normal((25, 9)), random.standard_normal(9)
    case = compare(draws, truth).truth
    pairs = draws[:, None] - draws[None]
    off_diagonal = 25 * 24
    crps = np.abs(draws - truth).mean(axis=0) - 0.5 * np.abs(pairs).sum(axis=(0, 1)) / off_diagonal
    np.testing.assert_allclose(case.crps, crps.mean())
    distances = np.linalg.norm(pairs, axis=-1).sum() / off_diagonal
    np.testing.assert_allclose(case.energy, np.linalg.norm(draws - truth, axis=1).mean() - 0.5 * distances)


def test_crps_of_normal_draws_is_the_closed_form_on_average():
    """Gneiting and Raftery (2007), equation 21; 4,000 ensembles of five draws, four standard errors."""
    random = np.random.default_rng(4)
    truth = np.full(4000, 0.7)
    scores = [compare(random.standard_normal((5, 1)), truth[:1]).truth.crps[0, 0] for _ in truth]
    normal = scipy.stats.norm
    exact = 0.7 * (2 * normal.cdf(0.7) - 1) + 2 * normal.pdf(0.7) - 1 / np.sqrt(np.pi)
    assert abs(np.mean(scores) - exact) < 4 * np.std(scores) / np.sqrt(len(scores))


def test_the_expected_r2_is_that_of_the_ranking():
    fit = small_fit()
    options = {"num_draws": 50, "seed": 0}
    draws = lrp.predict_responses(fit.posterior, fit.candidates, **options)
    scores = lrp.score_predictions(draws, draws[7], labels=fit.candidates.labels, seed=0)
    ranking = lrp.rank_perturbations(fit.posterior, fit.candidates, progress=False, **options)
    np.testing.assert_allclose(scores.expected_r2, ranking.expected_r2, rtol=1e-9)


def test_entries_where_nothing_ever_happens_do_not_count():
    random = np.random.default_rng(5)
    draws, truth = random.standard_normal((30, 8)), random.standard_normal(8)
    padded = compare(np.pad(draws, ((0, 0), (4, 3))), np.pad(truth, (4, 3)))
    plain = compare(draws, truth)
    for one, other in zip(padded.truth, plain.truth, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    np.testing.assert_allclose(padded.pit, plain.pit, atol=1e-15)


def test_units_do_not_matter():
    random = np.random.default_rng(6)
    draws, truth = network_draws(40, random), network_draws(1, random)[0]
    one, other = (lrp.score_predictions(unit * draws, unit * truth, seed=0)["all"] for unit in (1.0, 1000.0))
    for name in STATISTICS:
        factor = 1000.0 if name in ("CRPS", "energy score") else 1.0
        np.testing.assert_allclose(other[name].value, factor * one[name].value, rtol=1e-9, err_msg=name)


# ---------------------------------------------------------------------------------------------------- a right posterior
@pytest.mark.parametrize("num_draws", [20, 21, 100])
def test_intervals_of_a_right_posterior_cover_what_they_say_with_any_number_of_draws(num_draws):
    """20,000 independent entries, four binomial standard errors; quantiles of 20 draws would cover 0.814, not 0.9."""
    random = np.random.default_rng(7)
    draws, truth = random.standard_normal((num_draws, 20, 1000)), random.standard_normal((20, 1000))
    coverage = lrp.score_predictions(draws, truth, seed=0).coverage.mean(axis=0)
    for level, found in zip(COVERAGE_LEVELS, coverage, strict=True):
        assert abs(found - level) < 4 * np.sqrt(level * (1 - level) / truth.size)


@pytest.mark.slow
def test_every_score_is_its_ceiling_on_average_under_a_right_posterior():
    """60 truths; five standard errors of the difference for each of 17 scores."""
    random = np.random.default_rng(8)
    results = [
        lrp.score_predictions(network_draws(60, random), network_draws(1, random)[0], seed=0)["all"] for _ in range(60)
    ]
    for name in STATISTICS:
        difference = np.array([result[name].value - result[name].ceiling for result in results])
        # A prediction from 60 draws is better than one from 59 by 1/60 of a standard deviation's square.
        assert abs(difference.mean()) < 5 * difference.std() / np.sqrt(60) + 1e-3, name
    inside = np.mean(
        [[result[name].is_as_expected for name in STATISTICS if "expected" not in name] for result in results]
    )
    assert 0.9 < inside < 0.99  # 0.95 (1 - 1/60) on average; scores of one truth depend on each other


def test_weighted_r2_is_certainty_on_average():
    """E[y (R² - certainty)] = 0 for every candidate: 20,000 truths, five standard errors."""
    random = np.random.default_rng(9)
    draws, truths = network_draws(20_000, random), network_draws(20_000, random)
    mean, expected_power = draws.mean(axis=0), np.mean(np.sum(draws**2, axis=2), axis=0)
    certainty = np.sum(mean**2, axis=1) / expected_power
    weight = np.sum(truths**2, axis=2) / expected_power
    r2 = 1.0 - np.sum((truths - mean) ** 2, axis=2) / np.sum(truths**2, axis=2)
    difference = weight * (r2 - certainty)
    assert np.all(np.abs(difference.mean(axis=0)) < 5 * difference.std(axis=0) / np.sqrt(20_000))


@pytest.mark.parametrize("common", [0.0, 1.0, 3.0])
def test_the_band_holds_for_a_right_posterior_however_its_entries_depend_on_each_other(common):
    """Of 300 right posteriors 15 leave the 95% band on average; more than 28 with probability 0.001."""
    random = np.random.default_rng(10)
    p_values, independent = [], []
    for _ in range(300):
        responses = common * random.standard_normal((100, 1)) + random.standard_normal((100, 60))
        found = compare(responses[1:], responses[0])
        p_values.append(global_envelope(found.pit, found.draw_pits, 0.95).p_value)
        if len(independent) < 40:
            below = np.sum(responses[1:] < responses[0], axis=0)
            independent.append(RankBand.of((below + random.uniform(size=60)) / 100).holds)
    assert np.sum(np.array(p_values) <= 0.05) <= 28
    # A band for ranks that do not depend on each other would be right in the first case only.
    assert np.mean(independent) > 0.8 if not common else np.mean(independent) < 0.3


def test_a_curve_is_out_of_the_band_where_its_p_value_is_small():
    random = np.random.default_rng(11)
    references = np.cumsum(random.standard_normal((200, 30)), axis=1)
    for curve in np.cumsum(random.standard_normal((100, 30)), axis=1) * 1.3:
        band = global_envelope(curve, references, 0.95)
        inside = (band.lower - 1e-9 <= curve) & (curve <= band.upper + 1e-9)
        assert np.all(inside) == (band.p_value > 0.05)


# ---------------------------------------------------------------------------------------------------- a wrong posterior
def test_an_overconfident_posterior_is_found_out():
    random = np.random.default_rng(12)
    truth = network_draws(1, random)[0]
    scores = lrp.score_predictions(network_draws(200, random, width=0.4), truth, seed=0)
    found = scores["all"]
    for name in ("50% coverage", "90% coverage", "95% coverage"):
        assert found[name].value < found[name].ceiling_lower
    for name in ("gap of pooled", "gap of medians", "reliability gap", "CRPS", "energy score"):
        assert found[name].value > found[name].ceiling_upper
    assert scores.pit_band().p_value < 0.05
    assert "*" in str(scores)


def test_a_posterior_too_wide_is_found_out():
    random = np.random.default_rng(13)
    truth = network_draws(1, random)[0]
    scores = lrp.score_predictions(network_draws(200, random, width=2.5), truth, seed=0)
    assert scores["all"]["90% coverage"].value > scores["all"]["90% coverage"].ceiling_upper
    assert scores["all"]["gap of pooled"].value > scores["all"]["gap of pooled"].ceiling_upper
    assert scores.pit_band().p_value < 0.05


# -------------------------------------------------------------------------------------------------- scores of the order
def test_sparsification_is_0_for_the_oracle_and_1_in_random_order():
    random = np.random.default_rng(14)
    error = random.uniform(0.1, 0.9, 30)
    area = STATISTICS["sparsification area"]
    np.testing.assert_allclose(area(made_cases(1.0 - error, error)), 0.0, atol=1e-12)
    assert area(made_cases(error, error)) > 1.5
    shuffled = made_cases(np.stack([random.permutation(error) for _ in range(4000)]), np.tile(error, (4000, 1)))
    assert abs(np.mean(area(shuffled)) - 1.0) < 5 * np.std(area(shuffled)) / np.sqrt(4000)
    curves = sparsification(made_cases(1.0 - error, error))
    np.testing.assert_allclose(curves.ours[0, -1], error.mean())
    np.testing.assert_allclose(curves.ours[0, 0], error.min())


def test_spearman_is_that_of_scipy():
    random = np.random.default_rng(15)
    certainty, error = random.uniform(size=(2, 5, 20))
    certainty = np.round(certainty, 1)  # ties
    found = STATISTICS["Spearman"](made_cases(certainty, error))
    expected = [scipy.stats.spearmanr(one, 1 - other).statistic for one, other in zip(certainty, error, strict=True)]
    np.testing.assert_allclose(found, expected)
    assert np.isnan(STATISTICS["Spearman"](made_cases(certainty[:, :2], error[:, :2]))).all()


def test_reliability_of_a_prediction_that_promises_a_fixed_part():
    certainty = np.linspace(0.2, 0.8, 40)
    cases = made_cases(certainty, 1.0 - (0.1 + 0.5 * certainty))
    np.testing.assert_allclose(reliability_slope(cases), 0.5)
    bins = reliability(cases)
    assert bins.predicted.shape == (1, 8)
    np.testing.assert_allclose(bins.achieved, 0.1 + 0.5 * bins.predicted)
    np.testing.assert_allclose(STATISTICS["reliability gap"](cases), np.mean(np.abs(0.1 - 0.5 * bins.predicted)))
    assert np.isnan(reliability_slope(made_cases(np.full(9, 0.5), np.full(9, 0.5)))).all()


def test_risk_of_all_candidates_is_that_of_no_order():
    random = np.random.default_rng(16)
    error, power = random.uniform(size=(2, 1, 12))
    cases = made_cases(random.uniform(size=12), error, power)
    np.testing.assert_allclose(risk(cases)[0, -1], error.sum() / power.sum())


def test_pooled_expectation_is_not_biased_upwards_by_weak_candidates():
    """Responses that are zero on average: the unbiased |Eq|² is small in the sum, and clipped one by one."""
    random = np.random.default_rng(17)
    scores = lrp.score_predictions(random.standard_normal((20, 400, 5)), random.standard_normal((400, 5)), seed=0)
    assert scores.expected_r2.mean() > 0.01
    assert pooled_expected_r2(scores.truth) < 0.005


# ---------------------------------------------------------------------------------------------- the door and the result
def scored(**options):
    random = np.random.default_rng(18)
    draws, truth = network_draws(40, random), network_draws(1, random)[0]
    return lrp.score_predictions(draws, truth, **({"seed": 0} | options))


def test_intervals_resample_clusters():
    random = np.random.default_rng(19)
    draws, truth = network_draws(40, random), network_draws(1, random)[0]
    twice = [np.repeat(each, 2, axis=each.ndim - 2) for each in (draws, truth)]
    once = lrp.score_predictions(draws, truth, seed=3)["all"]["90% coverage"]
    together = lrp.score_predictions(*twice, clusters=np.repeat(np.arange(24), 2), seed=3)["all"]["90% coverage"]
    apart = lrp.score_predictions(*twice, seed=3)["all"]["90% coverage"]
    np.testing.assert_allclose((together.lower, together.upper), (once.lower, once.upper))
    assert apart.upper - apart.lower < 0.85 * (once.upper - once.lower)
    alone = lrp.score_predictions(draws, truth, clusters=["a"] * 24, seed=3)["all"]["90% coverage"]
    assert np.isnan(alone.lower)


def test_classes_are_scored_like_sets_of_their_own():
    random = np.random.default_rng(20)
    draws, truth = network_draws(40, random), network_draws(1, random)[0]
    kinds = np.array(["weak"] * 10 + ["strong"] * 14)
    scores = lrp.score_predictions(draws, truth, classes=kinds, seed=0)
    assert scores.class_names == ("all", "weak", "strong")
    for kind in ("weak", "strong"):
        alone = lrp.score_predictions(draws[:, kinds == kind], truth[kinds == kind], seed=0)
        for name in STATISTICS:
            np.testing.assert_equal(scores[kind][name][:1], alone["all"][name][:1])
            np.testing.assert_equal(scores[kind][name][3:6], alone["all"][name][3:6])
        np.testing.assert_allclose(scores.pit_band(kind).p_value, alone.pit_band().p_value)
        np.testing.assert_array_equal(scores.members(kind), np.flatnonzero(kinds == kind))


def test_chunks_of_candidates_are_scored_as_one_array():
    random = np.random.default_rng(21)
    draws, truth = network_draws(40, random).reshape(40, 24, 3, 5), network_draws(1, random)[0].reshape(24, 3, 5)
    whole = lrp.score_predictions(draws, truth, seed=0)
    chunked = lrp.score_predictions((draws[:, start : start + 5] for start in range(0, 24, 5)), truth, seed=0)
    assert whole.summary == chunked.summary or str(whole) == str(chunked)
    np.testing.assert_array_equal(whole.pits, chunked.pits)


def test_the_result_is_a_table_a_dataset_and_a_sentence():
    scores = scored(classes=["one"] * 12 + ["two"] * 12, labels=[f"pattern {index}" for index in range(24)])
    table = scores.to_dataframe()
    assert table.loc[("two", "CRPS"), "value"] == scores["two"]["CRPS"].value
    dataset = scores.to_xarray()
    assert dataset.sizes == {
        "class": 3, "score": len(STATISTICS), "statistic": 7, "candidate": 24, "probability": 4, "level": len(LEVELS)
    }  # fmt: skip
    np.testing.assert_allclose(
        dataset["score_of_class"].sel({"class": "one", "score": "Spearman", "statistic": "ceiling"}),
        scores["one"]["Spearman"].ceiling,
    )
    assert "24 candidates in 2 classes, 40 draws" in repr(scores)
    assert all(name in str(scores) for name in STATISTICS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        scores.num_draws = 3
    with pytest.raises(ValueError, match="read-only"):
        scores.pits[0] = 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"truth": np.zeros(24)}, r"truth: expected numbers with axes \(candidate, ...\)"),
        ({"truth": np.zeros((23, 15))}, "draws: expected numbers of shape"),
        ({"truth": np.zeros((25, 15))}, "draws: expected 25 candidates, as truth has, got 24"),
        (
            {"truth": np.full((24, 15), np.nan)},
            "truth: expected finite responses, got NaN or infinity for 'candidate 0'",
        ),
        ({"draws": np.zeros((40, 24, 15))}, "draws: expected responses that differ between draws"),
        ({"draws": np.ones((5, 24, 15))}, "number of draws: expected an integer >= 20"),
        ({"draws": 3}, "draws: expected an array or an iterable of arrays, got int"),
        ({"classes": ["all"] * 24}, "classes: expected names other than 'all'"),
        ({"classes": ["a"] * 3}, "classes: expected 24 strings"),
        ({"clusters": [0.5] * 24}, "clusters: expected 24 strings or integers"),
        ({"seed": -1}, "seed: expected an integer >= 0"),
    ],
)
def test_errors_name_the_argument(changes, message):
    random = np.random.default_rng(22)
    given = {"draws": network_draws(40, random), "truth": network_draws(1, random)[0], "seed": 0} | changes
    with pytest.raises(ValueError, match=message):
        lrp.score_predictions(given.pop("draws"), given.pop("truth"), **given)
    with pytest.raises(ValueError, match="class: expected one of 'all'"):
        scored()["latent"]
