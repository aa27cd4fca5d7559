"""The true rank is chosen, and a rank without evidence neither wins nor vetoes without held-out trials on its side."""

import dataclasses
import functools
import json

import numpy as np
import pytest
from handmade import density, make_rank_selection
from matplotlib.figure import Figure
from plain import plain_model

import lrposterior as lrp
from lrposterior import plots
from lrposterior.arviz_bridge import log_likelihood_of_draws
from lrposterior.held_out import HeldOutDensity, cross_validate, make_folds
from lrposterior.rank_selection import RankFit, choose


@functools.cache
def simulated(rank, num_neurons=12, num_trials=8):
    return lrp.simulate_recording(
        plain_model(rank), num_neurons=num_neurons, num_trials=num_trials, num_bins=40, noise_scale=0.1, seed=rank
    ).recording


@functools.cache
def selection(rank):
    return lrp.select_rank(plain_model(1), simulated(rank), (1, 2, 3), seed=0, progress=False)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 2])
def test_the_true_rank_is_chosen(rank):
    found = selection(rank)
    assert found.rank == rank
    assert found.posterior is found.posteriors[rank]
    assert found.posterior.model.rank == rank
    assert set(found.posteriors) == {one.rank for one in found.fits if one.failure is None}
    assert found[rank].log_evidence == found.posterior.statistics.log_evidence


@pytest.mark.slow
def test_the_text_names_rank_criterion_and_reason_and_what_cannot_be_trusted():
    found = selection(2)
    text = str(found)
    assert text.startswith("RankSelection(rank 2 of [1, 2, 3] by evidence)")
    assert found.reason in text
    assert "2 *" in text
    assert (
        "Pareto k above 0.7: PSIS-LOO, and with it p_loo, cannot be trusted there; ranks are compared by K-fold" in text
    )
    assert found[2].loo.largest_pareto_k > 0.7
    assert found[2].held_out.by == "k-fold"


def test_numbers_and_table():
    found = selection(2)
    stored = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (stored["rank"], stored["criterion"]) == (2, "evidence")
    table = found.to_dataframe()
    assert list(table.index) == [1, 2, 3]
    assert table.loc[2, "log_evidence"] == found[2].log_evidence
    assert table.loc[2, "elpd"] == pytest.approx(found[2].held_out.by_trial.sum())


def test_plot_shows_the_chosen_rank_and_marks_what_has_no_value():
    figure = make_rank_selection().plot()
    assert type(figure) is Figure
    assert figure.get_suptitle() == "rank 2, chosen by: evidence"
    left, right = figure.axes
    np.testing.assert_allclose(left.containers[0].lines[0].get_ydata(), [-500.0, 0.0])
    np.testing.assert_allclose(right.containers[0].lines[0].get_ydata(), [-480.0, 0.0, -120.0])
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert labels == {"chosen", "no evidence: singular", "could not be fitted"}
    plots.to_png(figure)


def test_a_singular_rank_that_predicts_worse_does_not_win():
    found = make_rank_selection()
    assert (found.rank, found.criterion) == (2, "evidence")
    assert found.reason == (
        "Rank 2 has the highest evidence, 500.0 nats above rank 1. Rank 3 is singular and predicts worse than rank 2 "
        "in held-out trials (-120.0 ± 8.2 nats). Not fitted, and so not compared: rank 4."
    )


def test_a_singular_rank_that_predicts_better_wins_and_one_within_the_error_does_not():
    regular = RankFit(1, None, 1000.0, "", None, density(400, 410, 390, 400))
    better = RankFit(2, None, None, "no evidence", None, density(420, 425, 415, 421))
    rank, criterion, reason = choose([regular, better])
    assert (rank, criterion) == (2, "held-out density")
    assert "Rank 2 is singular and predicts better than rank 1 in held-out trials (+81.0 ± " in reason
    alike = dataclasses.replace(better, held_out=density(430, 380, 400, 405))
    gain, error = alike.held_out.better_than(regular.held_out)
    assert 0 < gain < error
    assert choose([regular, alike])[:2] == (1, "evidence")


def test_without_any_evidence_the_smallest_rank_that_is_not_worse_is_chosen():
    first = RankFit(1, None, None, "singular", None, density(100, 110, 120))
    alike = RankFit(2, None, None, "singular", None, density(90, 115, 127))
    better = RankFit(3, None, None, "singular", None, density(150, 155, 170))
    assert choose([first, alike])[:2] == (1, "held-out density")
    assert choose([first, alike, better])[:2] == (3, "held-out density")
    with pytest.raises(lrp.FitError, match="expected one whose evidence holds"):
        choose([dataclasses.replace(one, held_out=None) for one in (first, alike)])


def test_a_rank_that_cannot_be_compared_does_not_win_and_is_named():
    regular = RankFit(1, None, 1000.0, "", None, density(400, 410))
    silent = RankFit(2, None, None, "no evidence", None, None, "no held-out density: a fold failed")
    rank, criterion, reason = choose([regular, silent])
    assert (rank, criterion) == (1, "evidence")
    assert "Rank 2 is not compared (no held-out density: a fold failed)." in reason
    assert choose([silent, RankFit(3, "refused")])[:2] == (2, "only rank that could be fitted")


def test_a_close_call_is_said_to_be_one():
    fits = [RankFit(1, None, 10.0), RankFit(2, None, 11.5)]
    assert choose(fits)[2] == "Rank 2 has the highest evidence, 1.5 nats above rank 1, which is little: look at both."


@pytest.mark.slow
def test_a_rank_that_the_data_refuse_is_recorded_and_one_fit_is_enough():
    """Rank 4 of a rank-one recording: refused or singular, but never an error."""
    found = lrp.select_rank(plain_model(1), simulated(1), (1, 4), seed=0, num_folds=0, progress=False)
    assert found.rank == 1
    assert found[4].failure is not None or found[4].log_evidence is None
    assert (4 in found.posteriors) == (found[4].failure is None)
    assert found[1].held_out is None
    assert "PSIS-LOO cannot be trusted, and no folds were asked for" in str(found)


def test_no_rank_that_fits_is_an_error(monkeypatch):
    def refuse(*arguments, **options):
        raise lrp.FitError("no convergence")

    monkeypatch.setattr("lrposterior.rank_selection.fit", refuse)
    with pytest.raises(lrp.FitError, match=r"expected one that can be fitted, got none of \[1, 2\].*no convergence"):
        lrp.select_rank(plain_model(1), simulated(1), (1, 2), seed=0, progress=False)


def test_a_fold_that_cannot_be_fitted_leaves_no_density():
    def refuse(recording):
        raise lrp.FitError("no convergence")

    density, note = cross_validate(refuse, simulated(1), make_folds(8, 4, seed=0), num_draws=100, seed=0)
    assert density is None
    assert note == "no held-out density: the fit without fold 1 of 4 failed (no convergence)"


def test_cross_validation_is_the_mean_density_over_draws_of_a_fit_without_the_trial():
    recording, model = simulated(1), plain_model(1)

    def refit(trials):
        return lrp.fit(model, trials, seed=0, progress=False)

    folds = make_folds(recording.num_trials, 4, seed=3)
    assert sorted(np.concatenate(folds)) == list(range(8))
    found, _ = cross_validate(refit, recording, folds, num_draws=200, seed=5)
    fold = folds[2]
    posterior = refit(recording.select(trials=np.setdiff1d(np.arange(8), fold)))
    draws, held_out = posterior.sample_parameters(200, seed=5), recording.select(trials=fold)
    rates = lrp.Posterior.predict_rates(posterior, held_out.inputs, num_draws=200, seed=5)
    noise = draws["noise_scale"][:, None, None, :]
    residuals = (held_out.activity - rates) / noise
    log_density = (-0.5 * residuals**2 - np.log(noise) - 0.5 * np.log(2 * np.pi)).sum(axis=(2, 3))
    np.testing.assert_allclose(log_likelihood_of_draws(posterior.model, draws, held_out), log_density)
    np.testing.assert_allclose(found.by_trial[fold], np.logaddexp.reduce(log_density, axis=0) - np.log(200), rtol=1e-9)


@pytest.mark.slow
def test_leave_one_out_agrees_with_refitting_where_it_can_be_trusted():
    """Many weak trials: k is small, and the density of a trial hardly depends on how it is left out."""
    recording = lrp.simulate_recording(
        plain_model(1), num_neurons=4, num_trials=60, num_bins=12, num_inputs=1, noise_scale=0.1, seed=0
    ).recording
    found = lrp.select_rank(plain_model(1), recording, [1], seed=0, progress=False)
    assert (found.rank, found.criterion) == (1, "only rank that could be fitted")
    loo = found[1].held_out
    assert loo.by == "loo"
    assert loo.is_trusted
    assert "Pareto k above" not in str(found)
    refitted, _ = cross_validate(
        lambda trials: lrp.fit(plain_model(1), trials, seed=0, progress=False),
        recording,
        make_folds(60, 6, seed=0),
        num_draws=1000,
        seed=0,
    )
    # A fold takes nine other trials away as well, which moves single trials by a few tenths of a nat, of a spread of 4.
    assert np.sqrt(np.mean((loo.by_trial - refitted.by_trial) ** 2)) < 0.5
    assert loo.elpd == pytest.approx(refitted.elpd, abs=5.0)


def test_an_infinite_or_missing_pareto_k_is_not_trusted():
    assert not HeldOutDensity("loo", np.zeros(2), np.array([0.1, np.inf]), 1.0).is_trusted
    assert HeldOutDensity("loo", np.zeros(2), np.array([0.1, 0.7]), 1.0).is_trusted


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ([1, 2, 1], "got 1 2 times"),
        ([0, 1], "got 0"),
        ([1, 13], "got 13"),
        ([], "got none"),
        (2, "got 2"),
        ("12", "got '12'"),
        ([1.5], "got 1.5"),
        ([True], "got True"),
    ],
)
def test_bad_ranks_are_refused_before_anything_is_fitted(ranks, text):
    with pytest.raises(ValueError, match=f"^ranks: expected .*{text}; "):
        lrp.select_rank(plain_model(1), simulated(1), ranks, seed=0)


@pytest.mark.parametrize(("option", "value"), [("num_folds", 1), ("num_draws", 10), ("seed", -1)])
def test_bad_options_are_refused(option, value):
    options = {"seed": 0} | {option: value}
    with pytest.raises(ValueError, match=f"^{option}: expected"):
        lrp.select_rank(plain_model(1), simulated(1), (1,), **options)
