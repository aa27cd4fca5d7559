"""Plans of sweeps: what they name is what Python would make, and what they misname is named."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import lrposterior as lrp
from lrposterior.cli.fitting import EXAMPLE_PLAN, MATCHING_PLAN
from lrposterior.inference.learned_embedding import EmbeddingToLearn
from lrposterior.options import KINDS, make_model
from lrposterior.sweep.configuration import changed, conflict, make_settings

BASE = {"model": {"rank": 2, "background": "none", "priors": {"kind": "independent", "K": 2.0}}}


def plan_of(**parts: Any) -> lrp.SweepPlan:
    return lrp.SweepPlan.from_dict({"base": BASE} | parts)


def options_of(plan: lrp.SweepPlan, name: str) -> dict[str, Any]:
    return dict(next(one.options for one in plan.configurations if one.name == name))


def test_words_make_the_model_that_python_makes():
    words = {
        "rank": 3,
        "time_constant": {"E": 0.1, "I": {"median": 0.05, "spread": 0.2}},
        "nonlinearity": "softplus",
        "observation": {"kind": "overdispersed-count", "scale": 20.0},
        "background": "none",
        "priors": {
            "kind": "dale",
            "M": {"E": 1.0, "I": 0.5},
            "K": {"E": 1.5, "I": 6.0},
            "magnitudes": {"E": "log-normal", "I": "half-normal"},
            "spread": {"E": 0.7, "I": 1.0},
            "inhibitory": ["I"],
        },
    }
    assert make_model(words) == lrp.LowRankModel(
        3,
        time_constant={"E": 0.1, "I": lrp.TimeConstantPrior(0.05, 0.2)},
        nonlinearity="softplus",
        observation=lrp.NegativeBinomialObservation(scale=20.0),
        background=None,
        priors=lrp.DaleLoadings(
            M={"E": 1.0, "I": 0.5},
            K={"E": 1.5, "I": 6.0},
            magnitudes={"E": "log-normal", "I": "half-normal"},
            spread={"E": 0.7, "I": 1.0},
            inhibitory=("I",),
        ),
    )
    noisy = make_model(
        {
            "rank": 1,
            "process_noise": {"kind": "full", "scale": 0.3},
            "priors": {"kind": "correlated", "K": {"median": 2.0}},
        }
    )
    assert noisy.process_noise == lrp.ProcessNoise("full", scale=0.3)
    assert noisy.priors == lrp.CorrelatedLoadings(K=lrp.ScalePrior(2.0))


def test_time_constants_of_neurons_in_words():
    prior = lrp.TimeConstantPrior(0.1, spread=0.2)
    for each, expected in (({"median": 0.1, "spread": 0.2}, prior), ([0.1, 0.2], (0.1, 0.2))):
        made = make_model({"rank": 1, "time_constant": {"kind": "neuron", "each": each}})
        assert made.time_constant == lrp.PerNeuron(expected)
    for value, words in (
        ({"kind": "neurons", "each": 0.1}, r"time_constant: expected one of 'neuron', got 'neurons'"),
        ({"kind": "neuron"}, "time_constant: expected a value for each, got none"),
    ):
        with pytest.raises(ValueError, match=words):
            make_model({"rank": 1, "time_constant": value})


def test_integration_constants_in_words():
    fixed, prior = lrp.IntegrationConstant(0.54), lrp.IntegrationConstantPrior(0.72, 0.2)
    in_words = {"a": {"median": 0.72, "spread": 0.2}}
    for words, expected in (
        ({"a": 0.54}, fixed),
        (in_words, prior),
        ({"E": {"a": 0.54}, "I": in_words}, {"E": fixed, "I": prior}),
        ({"kind": "neuron", "each": in_words}, lrp.PerNeuron(prior)),
        ({"kind": "neuron", "each": [{"a": 0.54}, 0.1]}, lrp.PerNeuron([fixed, 0.1])),
    ):
        made = make_model({"rank": 1, "time_constant": words})
        assert made.time_constant == lrp.LowRankModel(1, expected).time_constant
    for value, message in (
        ({"a": 1.5}, "time_constant.a: expected a number between 0 and 1, both excluded, got 1.5"),
        ({"I": {"a": {"median": 0.5, "width": 1.0}}}, "time_constant.I.a: expected one of 'median', 'spread'"),
    ):
        with pytest.raises(ValueError, match=message):
            make_model({"rank": 1, "time_constant": value})


def test_a_background_may_be_a_file(tmp_path):
    np.save(tmp_path / "W0.npy", np.eye(3))
    sparse.save_npz(tmp_path / "W0.npz", sparse.csr_array(2.0 * np.eye(3)))
    for name, scale in (("W0.npy", 1.0), ("W0.npz", 2.0)):
        model = make_model({"rank": 1, "background": str(tmp_path / name)})
        np.testing.assert_array_equal(model.background.to_dense(), scale * np.eye(3))  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("option", "name", "field"),
    [(option, name, each.name) for option in KINDS for name, kind in KINDS[option].items() for each in kind.fields],
)
def test_every_field_of_every_kind_is_known(option, name, field):
    table = {option: {"kind": name, "nothing": 1}}
    changes = table if option == "embedding" else {"fit" if option == "method" else "model": table}
    with pytest.raises(ValueError, match=rf"{option}: expected one of .*'{field}'.*, got 'nothing'"):
        plan_of(improvements={"x": changes})


def test_the_fields_of_a_fit_method_are_options():
    method = {"kind": "ensemble", "num_networks": 3, "regularisation": 0.5}
    settings = make_settings(
        options_of(plan_of(improvements={"x": {"fit": {"method": method, "num_restarts": 2}}}), "x")
    )
    assert settings.method == lrp.Ensemble(num_networks=3, regularisation=0.5)
    assert dict(settings.fit_options) == {"num_restarts": 2}


def test_a_change_of_a_field_keeps_the_kind_and_a_change_of_the_kind_drops_the_fields():
    plan = plan_of(
        improvements={
            "weak": {"model": {"priors": {"B": 0.5}}},
            "correlated": {"model": {"priors": "correlated"}},
        }
    )
    weak, correlated = (make_settings(options_of(plan, name)).model for name in ("weak", "correlated"))
    assert weak.priors == lrp.Priors(K=2.0, B=0.5)
    assert correlated.priors == lrp.CorrelatedLoadings()


def test_a_grid_is_the_product_of_its_lists():
    grid = {
        "model": {"rank": [1, 3], "priors": {"K": [1.0, 4.0]}},
        "embedding": [{"kind": "lags", "lags": 2}, "polynomial"],
    }
    plan = plan_of(grid=[grid])
    assert len(plan.improvements) == 8
    found = make_settings(options_of(plan, "rank=3, priors.K=1.0, embedding=lags(lags=2)"))
    assert (found.model.rank, found.model.priors.K, found.embedding) == (3, 1.0, lrp.LaggedInputs(2))
    settings = [make_settings(one.options) for one in plan.configurations[1:]]
    assert {(one.model.rank, one.model.priors.K) for one in settings} == {(1, 1.0), (1, 4.0), (3, 1.0), (3, 4.0)}


def test_combinations_are_of_the_best_that_do_not_change_the_same_option():
    plan = plan_of(
        improvements={
            "short": {"model": {"time_constant": 0.05}},
            "lags": {"embedding": {"kind": "lags", "lags": 2}},
            "K": {"model": {"priors": {"K": 1.0}}},
        },
        grid=[{"model": {"rank": [1, 3]}}],
        combine={"sizes": [2, 3], "best": 3},
    )
    found = plan.combinations(["rank=3", "rank=1", "lags", "short", "K"])
    assert [one.name for one in found] == [
        "rank=3 + lags", "rank=3 + short", "lags + short", "rank=3 + lags + short",
    ]  # fmt: skip
    both = make_settings(found[0].options)
    assert (both.model.rank, both.embedding, both.model.priors) == (3, lrp.LaggedInputs(2), lrp.Priors(K=2.0))
    assert plan.combinations(["lags"]) == () == plan_of().combinations(["lags"])


def test_what_conflicts():
    assert conflict({"model.priors": "dale"}, {"model.priors.K": 1.0})
    assert conflict({"model.priors.K": 2.0}, {"model.priors.K": 1.0})
    assert not conflict({"model.priors.K": 2.0}, {"model.priors.B": 1.0})
    assert not conflict({"model.rank": 2}, {"embedding": "polynomial"})
    one, other = {"model.priors.K": 3.0}, {"embedding": "polynomial"}
    base = {"model.rank": 1, "model.priors": "dale"}
    assert changed(changed(base, one), other) == changed(changed(base, other), one)


def test_the_example_is_the_model_that_it_says():
    plan = lrp.load_plan(EXAMPLE_PLAN)
    dale = make_settings(plan.base).model
    assert dale == lrp.LowRankModel(
        5,
        time_constant=0.1,
        nonlinearity="softplus",
        observation=lrp.PoissonObservation(),
        background=None,
        priors=lrp.DaleLoadings(K={"E": 1.5, "I": 6.0}, magnitudes="log-normal"),
    )
    models = [make_settings(one.options) for one in plan.configurations]
    assert {one.model.rank for one in models} == {5, 20, 50}
    assert {one.embedding for one in models} >= {lrp.RandomEmbedding(28, seed=0), lrp.LaggedInputs(3)}


def test_the_plan_of_matching_covers_what_it_says():
    settings = [make_settings(one.options) for one in lrp.load_plan(MATCHING_PLAN).configurations]
    assert settings[0].method == lrp.Match(conditions="labels")
    prior = lrp.TimeConstantPrior
    assert {one.model.time_constant for one in settings} == {
        prior(0.1),
        0.1,
        lrp.LowRankModel(1, {"E": prior(0.1), "I": prior(0.05)}).time_constant,
        lrp.PerNeuron(prior(0.1)),
        lrp.LowRankModel(
            1, {"E": lrp.IntegrationConstantPrior(0.54), "I": lrp.IntegrationConstantPrior(0.72)}
        ).time_constant,
    }
    assert {one.model.rank for one in settings} == {5, 20, 50, 54}
    assert [one.model.background for one in settings if one.model.background is not None] == [lrp.SignedBackground()]
    assert sum(not one.model.self_connections for one in settings) == 1
    assert {one.model.priors.magnitudes for one in settings} == {"log-normal"}
    assert {one.method.cost for one in settings} == {"euclidean", "poisson"}
    assert {one.method.activity_penalty for one in settings} == {0.0, 0.1, 1.0}
    assert {one.method.time_constant_rate for one in settings} == {0.001, 0.0001}
    assert {one.model.process_noise for one in settings} == {
        None, *(lrp.ProcessNoise("diagonal", scale=scale) for scale in (0.03, 0.1, 0.3)),
    }  # fmt: skip
    assert {one.embedding for one in settings} == {
        None,
        lrp.PolynomialInputs(),
        *(kind(width, seed=0) for kind in (lrp.RandomEmbedding, EmbeddingToLearn) for width in (28, 56)),
        *(lrp.LaggedInputs(lags) for lags in (1, 2, 3)),
    }


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"basis": {}}, r"plan: expected one of .*'base'.*, got 'basis'; did you mean 'base'\?"),
        ({"base": {"modell": {}}}, r"base: expected one of 'model', 'fit', 'embedding', got 'modell'; did you mean"),
        ({"base": {"model": {"rnk": 2}}}, r"base.model: expected one of 'rank', .*, got 'rnk'; did you mean 'rank'"),
        ({"base": {}}, "base: model: expected a rank, got none"),
        (
            {"improvements": {"x": {"fit": {"method": {"kind": "match", "checkpoint": "x.npz"}}}}},
            r"fit.method.checkpoint: expected none in a plan, .*, got 'x.npz'; leave it out: finished runs are kept",
        ),
        ({"base": 3}, "base: expected a table of options, got 3"),
        ({"improvements": {"x": {"fit": {"methd": 1}}}}, r"improvements.x.fit: expected one of 'method', .*did you"),
        (
            {"improvements": {"x": {"fit": {"method": "lapace"}}}},
            "x: fit.method: expected one of 'laplace', .*'lapace'",
        ),
        (
            {"improvements": {"x": {"model": {"observation": {"kind": "count", "scal": 1.0}}}}},
            r"x: model.observation: expected one of 'scale', .*, got 'scal'; did you mean 'scale'\?",
        ),
        ({"improvements": {"x": {"model": {"observation": "spikes"}}}}, "x: model.observation: expected one of 'rate'"),
        ({"improvements": {"x": {"model": {"observation": "calcium"}}}}, "expected a value for decay_time, got none"),
        ({"improvements": {"x": {"model": {"drift": {"scale": 0.1}}}}}, "model.drift: expected its kind beside its"),
        ({"improvements": {"x": {"embedding": {"kind": "none", "lags": 1}}}}, "expected a kind without fields alone"),
        ({"improvements": {"x": {"model": {"rank": 0}}}}, "x: rank: expected an integer >= 1, got 0"),
        ({"improvements": {"base": {"model": {"rank": 1}}}}, "improvements: expected names other than 'base'"),
        ({"improvements": {"a + b": {"model": {"rank": 1}}}}, "without ' \\+ '"),
        ({"grid": {"model": {"rank": [1]}}}, "grid: expected a list"),
        ({"grid": [{"model": {"rank": 1}}]}, r"grid\[0\].model.rank: expected a list, got 1"),
        ({"grid": [{"model": {"rank": []}}]}, r"grid\[0\].model.rank: expected at least one value, got none"),
        ({"grid": [{"model": {"rank": [1, 1]}}]}, r"grid\[0\]: expected every point once, got 'rank=1' twice"),
        ({"seeds": []}, "seeds: expected different integers, at least one"),
        ({"seeds": [0, 0]}, "seeds: expected different integers, at least one"),
        ({"score": "density"}, "score: expected one of 'log density', 'bits per spike', 'correlation'"),
        ({"score": "bits per spike"}, "score: expected models of counts with score"),
        ({"validation": {"share": 0.1}}, "validation: expected one of 'fraction', 'trials', 'smoothing'"),
        ({"validation": {"fraction": 2.0}}, "validation.fraction: expected a number between 0 and 1"),
        ({"validation": {"fraction": 0.2, "trials": [1]}}, "validation: expected a fraction, or trials, got both"),
        ({"combine": {"sizes": [4]}}, r"combine.sizes: expected some of 2 \(pairs\) and 3 \(triples\), got \[4\]"),
        ({"combine": {"best": 1}}, "combine.best: expected an integer >= 2, got 1"),
        ({"combine": {"bst": 3}}, "combine: expected one of 'sizes', 'best', got 'bst'"),
    ],
)
def test_what_is_misnamed_is_named(parts, words):
    with pytest.raises(ValueError, match=words):
        plan_of(**parts)


def test_files_that_are_no_plan_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"plan: expected a plan in TOML, got no file at .*--example"):
        lrp.load_plan(tmp_path / "plan.toml")
    (tmp_path / "plan.toml").write_text("seeds = [0,", encoding="utf-8")
    with pytest.raises(ValueError, match=r"plan: expected TOML, got 'plan.toml' \("):
        lrp.load_plan(tmp_path / "plan.toml")


def test_a_plan_does_not_change():
    plan = plan_of()
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.seeds = (1,)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        plan.base["model.rank"] = 3  # pyright: ignore[reportIndexIssue]
