"""Standard errors over seeds against repetition, and the verdict on stacking on tables whose gains are known."""

import numpy as np
import pytest
import scipy.stats

from lrposterior.sweep.statistics import Mean, judge_stacking

NUM_TABLES, NUM_SEEDS = 1500, 5
# Of a share p of the tables, 3 standard deviations.
CHANCE = 3.0 * np.sqrt(0.05 * 0.95 / NUM_TABLES)


def test_without_overlap_it_is_the_t_interval_of_the_mean():
    values = np.array([0.3, np.nan, 0.1, 0.7])
    found, known = Mean.over_seeds(values, 0.0), values[~np.isnan(values)]
    assert (found.value, found.num_seeds) == (pytest.approx(known.mean()), 3)
    assert found.standard_error == pytest.approx(scipy.stats.sem(known))
    interval = scipy.stats.t.interval(0.9, 2, loc=known.mean(), scale=scipy.stats.sem(known))
    assert found.interval == pytest.approx(interval)


def test_with_overlap_it_is_the_error_of_a_mean_over_seeds_that_share_trials():
    """Independent scores of 20 trials, of which every seed holds 5 out: the mean square of the standard error is the
    variance of the mean of 4 seeds over other recordings. Both are known to 3% with 4000 recordings."""
    random, num_seeds = np.random.default_rng(0), 4
    means, squares = [], []
    for _ in range(4000):
        trials = random.normal(size=20)
        values = np.array([trials[random.permutation(20)[:5]].mean() for _ in range(num_seeds)])
        found = Mean.over_seeds(values, 5 / 15)
        means.append(found.value)
        squares.append(found.standard_error**2)
    assert np.mean(squares) == pytest.approx(np.var(means), rel=0.1)


def test_one_seed_has_no_standard_error_and_none_no_mean():
    assert np.isnan(Mean.over_seeds(np.array([1.0, np.nan]), 0.2).standard_error)
    assert np.isnan(Mean.over_seeds(np.full(2, np.nan), 0.2).value)


def verdicts(together: float, singles: tuple[float, ...], noise: float) -> dict[str, float]:
    """Shares of the verdicts over tables with these true gains and independent noise of every entry."""
    random = np.random.default_rng(1)
    found = []
    for _ in range(NUM_TABLES):
        gains = {str(index): gain + noise * random.normal(size=NUM_SEEDS) for index, gain in enumerate(singles)}
        found.append(judge_stacking("x", together + noise * random.normal(size=NUM_SEEDS), gains, 0.0).verdict)
    return {name: found.count(name) / NUM_TABLES for name in ("stack", "do not stack", "not decided")}


@pytest.mark.parametrize("singles", [(1.0, 1.0), (1.0, 0.6), (1.0, 0.8, 0.6)])
@pytest.mark.parametrize("noise", [0.05, 0.2, 0.6])
def test_gains_that_add_up_are_rarely_said_not_to(singles, noise):
    found = verdicts(sum(singles), singles, noise)
    assert found["do not stack"] <= 0.05 + CHANCE
    assert found["stack"] > 0.95 or noise > 0.05


@pytest.mark.parametrize("singles", [(1.0, 1.0), (1.0, 0.6), (1.0, 0.8, 0.6)])
@pytest.mark.parametrize("noise", [0.05, 0.2, 0.6])
def test_gains_of_which_the_largest_is_all_are_rarely_said_to_add_up(singles, noise):
    found = verdicts(max(singles), singles, noise)
    assert found["stack"] <= 0.05 + CHANCE
    assert found["do not stack"] > 0.95 or noise > 0.05


def test_half_way_between_either_verdict_has_its_stated_rate():
    found = verdicts(1.3, (1.0, 0.6), 0.05)
    for name in ("stack", "do not stack"):
        assert found[name] == pytest.approx(0.05, abs=CHANCE)


def test_what_is_reported_is_of_the_seeds_in_which_all_were_fitted():
    nan = float("nan")
    singles = {"a": np.array([1.0, 1.2, 1.1, 9.0]), "b": np.array([0.5, nan, 0.6, 9.0])}
    found = judge_stacking("a + b", np.array([1.4, 1.6, 1.8, nan]), singles, 0.0)
    assert (found.name, found.parts) == ("a + b", ("a", "b"))
    assert (found.gain.value, found.gain.num_seeds) == (pytest.approx(1.6), 2)
    assert found.largest_gain.value == pytest.approx(1.05)
    assert found.sum_of_gains.value == pytest.approx(1.6)
    assert found.difference.value == pytest.approx(0.0)


def test_nothing_is_decided_without_an_error_to_judge_by():
    for values in (np.array([1.0]), np.array([1.0, 1.0, 1.0]), np.full(3, np.nan)):
        assert judge_stacking("x", 2.0 * values, {"a": values, "b": values}, 0.25).verdict == "not decided"
