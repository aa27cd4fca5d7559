"""Sweeps: scores against a fit by hand, and what happens to runs where they end early, go on, fail, or are combined."""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import scipy.stats
from plain import plain_model
from scipy.special import logsumexp

import lrposterior as lrp
from lrposterior.inference.learned_embedding import EmbeddingToLearn
from lrposterior.plots import plot_sweep, to_png
from lrposterior.sweep import scores
from lrposterior.sweep.configuration import Settings
from lrposterior.sweep.scores import SCORES, Run, score_configuration
from lrposterior.sweep.search import process_pool
from lrposterior.sweep.store import fingerprint
from lrposterior.sweep.validation import Validation

BASE = {"model": {"rank": 1, "background": "none", "priors": "independent"}}
CHANGES = {
    "lags": {"embedding": {"kind": "lags", "lags": 1}},
    "short": {"model": {"time_constant": 0.05}},
    "rank": {"model": {"rank": 2}},
    "worse": {"fit": {"max_iterations": 7}},
}
PLAN = {
    "base": BASE,
    "improvements": CHANGES,
    "seeds": [0, 1, 2],
    "validation": {"fraction": 0.4},
    "combine": {"sizes": [2, 3], "best": 3},
}


def recording(seed: int = 0) -> lrp.Recording:
    truth = lrp.simulate_recording(
        plain_model(1), num_neurons=6, num_trials=10, num_bins=20, num_inputs=1, noise_scale=0.1, seed=seed
    )
    return truth.recording


class InProcess(concurrent.futures.Executor):
    """Runs `function`, or what it is given, at once; is interrupted after a number of runs."""

    def __init__(self, function: Callable[..., Run] | None = None, after: float = float("inf")) -> None:
        self.function, self.after, self.calls = function, after, []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        if len(self.calls) >= self.after:
            raise KeyboardInterrupt
        self.calls.append(args)
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result((self.function or fn)(*args))
        except (ArithmeticError, ValueError) as error:
            future.set_exception(error)
        return future


def scripted(settings: Settings, _: Path, __: Validation, seed: int) -> Run:
    """Scores whose gains are known: lags 0.3 and short 0.2, which add up; rank is refused with seed 1."""
    if settings.model.rank == 2 and seed == 1:
        return Run({}, "rank: too much", 1.0)
    gain = 0.3 * (settings.embedding is not None) + 0.2 * (settings.model.time_constant == 0.05)
    gain += 0.1 * (settings.model.rank == 2) - 0.1 * (settings.fit_options.get("max_iterations") == 7)
    noise = 0.01 * np.random.default_rng([seed, int(1000 * (1.0 + gain))]).normal()
    return Run(dict.fromkeys(SCORES, seed + gain + noise), None, 1.0, ("a warning",) if seed == 2 else ())


def sweep(
    folder: Any, executor: concurrent.futures.Executor, plan: Any = None, session: lrp.Recording | None = None
) -> lrp.SweepResult:
    made = lrp.SweepPlan.from_dict(PLAN if plan is None else PLAN | plan)
    return lrp.run_sweep(made, session or recording(), folder, executor=executor, progress=False)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> lrp.SweepResult:
    return sweep(tmp_path_factory.mktemp("scripted"), InProcess(scripted))


# ------------------------------------------------------------------------------------------------------------ one run


@pytest.mark.slow
def test_the_log_density_is_that_of_held_out_trials_by_hand():
    session, validation = recording(), Validation(trials=(2, 5, 6, 7))
    run = score_configuration(Settings(plain_model(1)), session, validation, 3)
    posterior = lrp.fit(plain_model(1), session.select(trials=[0, 1, 3, 4, 8, 9]), seed=3, progress=False)
    held_out = session.select(trials=[2, 5, 6, 7])
    rates = posterior.predict_rates(held_out.inputs, num_draws=300, seed=3)
    noise = posterior.sample_parameters(300, seed=3)["noise_scale"]
    by_draw = scipy.stats.norm.logpdf(held_out.activity, rates, noise[:, None, None]).sum(axis=(2, 3))
    expected = (logsumexp(by_draw, axis=0) - np.log(300)).sum() / held_out.activity.size
    assert run.refusal is None
    assert run.scores["log density"] == pytest.approx(expected)
    assert np.isnan(run.scores["bits per spike"])
    assert 0.9 < run.scores["correlation"] < 1.0
    labelled = dataclasses.replace(
        session, trial_labels=["left" if trial in (2, 5, 6) else "right" for trial in range(10)]
    )
    run = score_configuration(Settings(plain_model(1)), labelled, validation, 3)
    assert run.scores["log density"] == pytest.approx(expected)
    assert np.isnan(run.scores["correlation"])
    assert run.notes[0].startswith("no correlation of trial averages: 3 held-out trials at most of each of 2 label(s)")


def test_bits_per_spike_are_above_independent_neurons_at_the_rates_of_the_fitted_trials():
    model = plain_model(1, nonlinearity="softplus", observation=lrp.PoissonObservation(scale=50.0))
    factor = np.random.default_rng(0).normal(size=(6, 1))
    session = lrp.simulate_recording(model, num_trials=8, num_inputs=1, M=factor, K=2.0 * factor, seed=0).recording
    run = score_configuration(Settings(model), session, Validation(trials=(0, 3)), 0)
    counts = session.activity[[0, 3]]
    mean = session.activity[[1, 2, 4, 5, 6, 7]].mean(axis=(0, 1))
    gained = run.scores["log density"] * counts.size - scipy.stats.poisson.logpmf(counts, mean).sum()
    assert run.scores["bits per spike"] == pytest.approx(gained / np.log(2.0) / counts.sum())
    assert np.isnan(run.scores["correlation"])
    assert run.notes == (
        "no correlation of trial averages: 2 held-out trials at most of each of 1 label(s), where 4 are needed",
    )


MATCH = lrp.Match(conditions="labels", num_members=2, warm_up=2, ramp=2, num_epochs=6)


def labelled() -> lrp.Recording:
    return dataclasses.replace(recording(), trial_labels=["left", "right"] * 5)


@pytest.mark.slow
def test_the_density_of_networks_that_match_is_their_mean_by_hand():
    """With a layer that learns from the fitted trials alone."""
    session, validation, model = labelled(), Validation(trials=(2, 5, 6, 7)), plain_model(1)
    parts = [session.select(trials=trials) for trials in ([0, 1, 3, 4, 8, 9], [2, 5, 6, 7])]
    layer = lrp.learn_embedding(model, parts[0], 3, method=MATCH, seed=1, progress=False)
    training, held_out = (lrp.embed_inputs(one, layer) for one in parts)
    run = score_configuration(Settings(model, EmbeddingToLearn(3, seed=1), MATCH), session, validation, 3)
    posterior = lrp.fit(model, training, MATCH, seed=3, progress=False)
    networks = posterior.sample_parameters(2, seed=3)
    assert not np.array_equal(networks["M"][0], networks["M"][1])
    by_network = []
    for network in range(2):
        one = {name: value[network] for name, value in networks.items()}
        rates = np.tanh(posterior.model.simulated_currents(one, held_out, seed=0))
        densities = scipy.stats.norm.logpdf(held_out.activity, rates, one["noise_scale"])
        by_network.append(densities.sum(axis=(1, 2)))
    expected = (logsumexp(by_network, axis=0) - np.log(2)).sum() / held_out.activity.size
    assert run.refusal is None
    assert run.scores["log density"] == pytest.approx(expected)


@pytest.mark.slow
def test_one_network_is_simulated_as_often_as_a_posterior(monkeypatch):
    """As twenty simulations by hand, whose noise differs."""
    session, validation, model = recording(), Validation(trials=(2, 5, 6, 7)), plain_model(1)
    method = dataclasses.replace(MATCH, conditions=None, num_members=1)
    run = score_configuration(Settings(model, None, method), session, validation, 3)
    held_out = session.select(trials=[2, 5, 6, 7])
    posterior = lrp.fit(model, session.select(trials=[0, 1, 3, 4, 8, 9]), method, seed=3, progress=False)
    simulated = [posterior.model.simulate(posterior.mode, held_out, seed=3 + draw).activity for draw in range(20)]
    found = lrp.compare_trials(held_out, np.stack(simulated), width=2 * session.dt, num_resamples=2, seed=3)
    assert run.scores["correlation"] == pytest.approx(found["correlation"].value)


@pytest.mark.long
@pytest.mark.slow
def test_a_plan_of_networks_that_match_runs_and_a_combination_of_its_changes_too(tmp_path):
    plan = {
        "base": BASE | {"fit": {"method": {"kind": "match", "warm_up": 2, "ramp": 2, "num_epochs": 6}}},
        "improvements": {
            "by neuron": {"model": {"time_constant": {"kind": "neuron", "each": {"median": 0.1}}}},
            "full rank": {"model": {"rank": 6}},
            "price": {"fit": {"method": {"weight_penalty": 0.01}}},
            "cost": {"fit": {"method": {"cost": "poisson"}}},
        },
        "seeds": [0],
        "combine": {"sizes": [2], "best": 4},
    }
    result = sweep(tmp_path, InProcess(), plan)
    fitted = [one for one in result.ranking if not one.refusals]
    assert all(np.isfinite(result.values(one.name)).all() for one in fitted)
    assert {one.name for one in fitted} >= {"base", "by neuron", "full rank", "price"}
    refused = next(one for one in result.ranking if one.name == "cost")
    assert "cost: expected 'euclidean' for activity that may be negative" in refused.refusals[0]


def test_what_is_fitted_has_embedded_inputs_and_the_options_of_the_plan(monkeypatch):
    fitted = []

    def refusing(*arguments: Any, **options: Any) -> None:
        fitted.append((*arguments, options))
        raise lrp.FitError("not today")

    monkeypatch.setattr("lrposterior.sweep.scores.fit", refusing)
    session, method = recording(), lrp.SVI(num_steps=10)
    settings = Settings(plain_model(1), lrp.LaggedInputs(1), method, {"num_restarts": 2})
    assert score_configuration(settings, session, Validation(fraction=0.4), 5).refusal == "not today"
    model, training, options = fitted[0]
    assert model is settings.model
    expected = lrp.embed_inputs(session, lrp.LaggedInputs(1)).split(0.4, seed=5)[0]
    np.testing.assert_array_equal(training.inputs, expected.inputs)
    assert options == {"method": method, "num_restarts": 2, "seed": 5, "progress": False}


def test_what_does_not_suit_the_recording_is_refused_with_its_text():
    run = score_configuration(Settings(plain_model(7)), recording(), Validation(), 0)
    assert run.scores == {}
    assert run.refusal == "rank: expected at most the 6 neurons of the recording, got 7; lower the rank"


# ------------------------------------------------------------------------------------------------------- all the runs


def test_going_on_runs_nothing_twice_and_gives_the_same_table(tmp_path, found):
    first, second = InProcess(scripted), InProcess(scripted)
    assert sweep(tmp_path, first).table.identical(sweep(tmp_path, second).table)
    assert (len(first.calls), len(second.calls)) == (len(found.names) * 3, 0)
    assert lrp.SweepResult.load(tmp_path / "sweep.nc").table.equals(found.table)
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == found.to_dict()


def test_workers_read_the_recording_from_a_file_that_is_written_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session = dataclasses.replace(labelled(), mask=np.random.default_rng(0).random((10, 20, 6)) < 0.9)
    executor = InProcess(scripted)
    sweep("there", executor, session=session)
    path = executor.calls[0][1]
    assert path.is_absolute()
    assert {one[1] for one in executor.calls} == {path}
    assert fingerprint(lrp.load_recording(path)) == fingerprint(session)
    written = path.stat().st_mtime_ns
    sweep("there", InProcess(scripted), {"seeds": [0, 1, 2, 3]}, session)
    assert path.stat().st_mtime_ns == written
    assert not any(isinstance(one, lrp.Recording) for call in executor.calls for one in call)


@pytest.mark.parametrize("after", [0, 4, 17])
def test_an_interruption_loses_nothing_that_was_finished(tmp_path, found, after):
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, InProcess(scripted, after))
    assert len(list((tmp_path / "runs").iterdir())) == after
    rest = InProcess(scripted)
    assert sweep(tmp_path, rest).table.identical(found.table)
    assert len(rest.calls) == len(found.names) * 3 - after


def test_what_finished_while_the_interruption_came_is_kept(tmp_path):
    class Pool(concurrent.futures.Executor):
        """Runs end all at once, with the interruption, as they may in a pool of processes."""

        def __init__(self) -> None:
            self.futures: list[concurrent.futures.Future[Run]] = []

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            if len(self.futures) == 5:
                self.futures[0].set_exception(KeyboardInterrupt())
                for future in self.futures[1:4]:
                    future.set_result(Run(dict.fromkeys(SCORES, 0.0), None, 1.0))
                raise KeyboardInterrupt
            self.futures.append(concurrent.futures.Future())
            return self.futures[-1]

    pool = Pool()
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, pool)
    assert len(list((tmp_path / "runs").iterdir())) == 3
    assert pool.futures[4].cancelled()


def test_a_changed_plan_runs_what_is_new(tmp_path):
    sweep(tmp_path, InProcess(scripted), {"combine": {"best": 2}})
    renamed = {f"{name}, again": changes for name, changes in CHANGES.items()}
    for change, number in (
        ({"improvements": renamed, "combine": {"best": 2}}, 0),
        ({"improvements": CHANGES | {"tanh": {"model": {"nonlinearity": "linear"}}}, "combine": {"best": 2}}, 3),
        ({"seeds": [0, 1, 2, 3], "combine": {"best": 2}}, 6),
        ({"validation": {"fraction": 0.3}, "combine": {"best": 2}}, 18),
    ):
        executor = InProcess(scripted)
        sweep(tmp_path, executor, change)
        assert len(executor.calls) == number, change
    other = InProcess(scripted)
    sweep(tmp_path, other, {"combine": {"best": 2}}, recording(seed=1))
    assert len(other.calls) == 18


def test_a_background_is_known_by_what_is_in_its_file(tmp_path):
    plan = {"improvements": {"known": {"model": {"background": str(tmp_path / "W0.npy")}}}}
    for entries, number in ((np.eye(6), 6), (np.eye(6), 0), (np.zeros((6, 6)), 3)):
        np.save(tmp_path / "W0.npy", entries)
        executor = InProcess(scripted)
        sweep(tmp_path, executor, plan)
        assert len(executor.calls) == number


def test_any_other_error_ends_the_sweep_and_keeps_what_was_finished(tmp_path):
    def broken(settings: Settings, session: Path, validation: Validation, seed: int) -> Run:
        if settings.embedding is not None:
            raise ZeroDivisionError("a mistake of ours")
        return scripted(settings, session, validation, seed)

    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        sweep(tmp_path, InProcess(broken))
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_trials_that_cannot_be_held_out_are_refused_before_anything_runs(tmp_path):
    executor = InProcess(scripted)
    with pytest.raises(ValueError, match=r"validation.trials: expected indices from 0 to 9 of 10 trials, got 10"):
        sweep(tmp_path, executor, {"validation": {"trials": [10]}})
    with pytest.raises(ValueError, match=r"validation.trials: expected trials left to fit, got all of them"):
        sweep(tmp_path, executor, {"validation": {"trials": list(range(10))}})
    assert not executor.calls


# ----------------------------------------------------------------------------------------------------- what it says


def test_the_ranking_has_the_gains_that_were_put_in(found):
    assert [one.name for one in found.ranking] == [
        "lags + short", "lags", "short", "base", "worse", "rank",
    ]  # fmt: skip
    gains = {one.name: one.gain for one in found.ranking}
    for name, gain in {"lags + short": 0.5, "lags": 0.3, "short": 0.2, "worse": -0.1, "base": 0.0, "rank": 0.1}.items():
        assert gains[name].value == pytest.approx(gain, abs=0.03)
    by_hand = found.values("lags") - found.values("base")
    assert gains["lags"].standard_error == pytest.approx(by_hand.std(ddof=1) * np.sqrt(1 / 3 + 4 / 6))
    assert gains["lags"].standard_error < 0.1 * found.ranking[1].score.standard_error


def test_only_what_was_fitted_for_every_seed_and_is_better_than_the_base_is_combined(found):
    assert [one.name for one in found.stacking] == ["lags + short"]
    one = found.stacking[0]
    assert (one.parts, one.verdict) == (("lags", "short"), "stack")
    assert one.sum_of_gains.value == pytest.approx(0.5, abs=0.03)


def test_refusals_are_reported(found):
    assert found.ranking[-1].refusals == {1: "rank: too much"}
    assert found.ranking[-1].score.num_seeds == 2
    lines = str(found).splitlines()
    assert "refused: rank, seed 1: rank: too much" in lines
    assert f"note, {len(found.names)} run(s): a warning" in lines
    assert (
        lines[-1] == "± standard error over 3 seeds, each with held-out trials of its own, 0.67 times the fitted ones."
    )


def test_improvements_that_do_not_go_together_are_refused(tmp_path):
    def both_are_better(settings: Settings, *_: Any) -> Run:
        score = float(settings.model.hidden_neurons != 0 or settings.model.background is not None)
        return Run(dict.fromkeys(SCORES, score), None, 1.0)

    improvements = {
        "hidden": {"model": {"hidden_neurons": 900}},
        "bulk": {"model": {"background": "bulk"}},
    }
    result = sweep(tmp_path, InProcess(both_are_better), {"improvements": improvements})
    pair = next(one for one in result.ranking if one.name == "hidden + bulk")
    assert set(pair.refusals) == {0, 1, 2}
    assert "background: expected None, as there are hidden neurons" in pair.refusals[0]
    assert result.stacking[0].verdict == "not decided"
    assert to_png(plot_sweep(result))


def test_with_the_same_trials_for_all_seeds_the_errors_are_those_of_the_fits(tmp_path):
    result = sweep(tmp_path, InProcess(scripted), {"validation": {"trials": [1, 2]}})
    assert str(result).endswith("all with the same held-out trials: standard errors are of the fits alone.")
    gain = next(one.gain for one in result.ranking if one.name == "lags")
    assert gain.standard_error == pytest.approx(scipy.stats.sem(result.gains("lags")))


def test_the_figure_shows_every_configuration_and_verdict(found):
    figure = found.plot()
    ranking, stacking = figure.axes
    assert [label.get_text() for label in ranking.get_yticklabels()] == [one.name for one in found.ranking]
    assert "refused, 1 of 3" in [text.get_text() for text in ranking.texts]
    assert [text.get_text() for text in stacking.texts] == ["stack"]
    single = lrp.SweepResult(found.table.isel(configuration=[0, 1], seed=[0]))
    assert len(single.plot().axes) == 1
    assert to_png(figure) != to_png(single.plot())


def test_the_figure_tells_combinations_of_long_names_apart(found):
    names = [name.replace("lags", "lags" * 20) for name in found.names]
    figure = lrp.SweepResult(found.table.assign_coords(configuration=names)).plot()
    (label,) = (each.get_text() for each in figure.axes[1].get_yticklabels())
    assert label.startswith("lagslags")
    assert label.endswith("… + short")


# --------------------------------------------------------------------------------------------------------- processes


def test_an_interruption_ends_the_processes_and_leaves_the_environment_as_it_was():
    before, started = dict(os.environ), time.perf_counter()

    def interrupted() -> None:
        with process_pool(1) as pool:
            assert os.environ["NPROC"] == "1"
            pool.submit(time.sleep, 100.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.perf_counter() - started < 50.0
    assert dict(os.environ) == before


def _wait_for_ever(place: Path) -> None:
    place.write_text(str(os.getpid()))
    time.sleep(1000.0)


def _have_a_process_wait(place: Path) -> None:
    with process_pool(1) as pool:
        pool.submit(_wait_for_ever, place).result()


@pytest.mark.long
@pytest.mark.slow
def test_processes_end_with_one_that_is_killed(tmp_path):
    place = tmp_path / "process"
    parent = multiprocessing.get_context("spawn").Process(target=_have_a_process_wait, args=(place,))
    parent.start()
    _wait_until(lambda: place.is_file() and place.read_text() != "")
    parent.kill()
    parent.join()
    _wait_until(lambda: not _runs(int(place.read_text())))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_until(condition: Callable[[], bool]) -> None:
    started = time.perf_counter()
    while not condition():
        assert time.perf_counter() - started < 140.0
        time.sleep(0.1)


@pytest.mark.long
@pytest.mark.slow
def test_processes_give_the_scores_of_this_one(tmp_path):
    plan = {"improvements": {"lags": CHANGES["lags"]}, "seeds": [0], "combine": {"best": 2}}
    there = lrp.run_sweep(lrp.SweepPlan.from_dict(PLAN | plan), recording(), tmp_path / "there", progress=False)
    here = sweep(tmp_path / "here", InProcess(), plan)
    np.testing.assert_allclose(there.table["scores"], here.table["scores"], rtol=1e-6)


def test_dask_gives_the_scores_of_this_process(tmp_path):
    """Its workers get small tasks, and read the recording."""
    distributed = pytest.importorskip("distributed")
    plan = {"improvements": {"lags": CHANGES["lags"]}, "seeds": [0], "combine": {"best": 2}}
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        warnings.catch_warnings(),
        distributed.LocalCluster(**options, silence_logs=50) as cluster,
        distributed.Client(cluster) as client,
    ):
        warnings.simplefilter("ignore", ResourceWarning)
        there = sweep(tmp_path / "there", client.get_executor(), plan)
    here = sweep(tmp_path / "here", InProcess(), plan)
    np.testing.assert_allclose(there.table["scores"], here.table["scores"], rtol=1e-6)


def test_a_process_keeps_what_was_compiled_for_one_configuration_alone(tmp_path, monkeypatch):
    doubled = jax.jit(lambda x: 2.0 * x)

    def compiled_before(*_) -> int:
        before = doubled._cache_size()  # pyright: ignore[reportAttributeAccessIssue]
        doubled(1.0)
        return before

    monkeypatch.setattr(scores, "score_configuration", compiled_before)
    file = tmp_path / "recording.npz"
    recording().save(file)
    one, other = Settings(plain_model(1)), Settings(plain_model(2))
    validation = Validation(fraction=0.4)
    found = [scores.score_in_file(each, file, validation, seed) for each in (one, other, one) for seed in (0, 1)]
    assert found == [0, 1] * 3


def test_the_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match="plan: expected SweepPlan, got dict; make it with load_plan"):
        lrp.run_sweep(PLAN, recording(), tmp_path)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="result: expected SweepResult"):
        plot_sweep("result")  # pyright: ignore[reportArgumentType]
    with pytest.raises(dataclasses.FrozenInstanceError):
        lrp.SweepResult(None).table = None  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
