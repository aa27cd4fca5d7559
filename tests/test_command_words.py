"""Models in words of the command line: what they say is what Python would make, and what they misspell is named."""

from pathlib import Path
from typing import Any

import pytest

import lrposterior as lrp
from lrposterior.cli import main
from lrposterior.cli.input import read_method, read_model
from lrposterior.populations import ByCellType

SCALE, TAU = lrp.ScalePrior, lrp.TimeConstantPrior
FIXED_A, PRIOR_A = lrp.IntegrationConstant, lrp.IntegrationConstantPrior
DALE = ["--nonlinearity", "softplus", "--background", "none"]


def model_of(**options: Any) -> lrp.LowRankModel:
    words: dict[str, Any] = {
        "rank": 1, "time_constant": "0.1", "infer_time_constant": False, "nonlinearity": "softplus",
        "observe": "rate", "initial_state": "zero", "background": "none", "process_noise": "none",
        "hidden_neurons": "0", "drift": False, "loadings": "dale", "no_self_connections": False,
    }  # fmt: skip
    return read_model(**words | options)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("dale", lrp.DaleLoadings()),
        ("dale,K=3", lrp.DaleLoadings(K=3.0)),
        ("dale,K.E=1.5,K.I=6.0", lrp.DaleLoadings(K={"E": 1.5, "I": 6.0})),
        ("dale, K = {E = 1.5, I = 6}", lrp.DaleLoadings(K={"E": 1.5, "I": 6.0})),
        ("dale,K.median=2.0", lrp.DaleLoadings(K=SCALE(2.0))),
        ("dale,K.E.median=1.5,K.I.median=6,K.I.spread=5e-1", lrp.DaleLoadings(K={"E": SCALE(1.5), "I": SCALE(6, 0.5)})),
        ("dale,magnitudes=log-normal,spread=0.8", lrp.DaleLoadings(magnitudes="log-normal", spread=0.8)),
        (
            "dale,M.E=1,M.I=0.5,K.E=1.5,K.I=6,magnitudes.E=log-normal,magnitudes.I=half-normal,spread.E=0.7,spread.I=1",
            lrp.DaleLoadings(
                M={"E": 1.0, "I": 0.5},
                K={"E": 1.5, "I": 6.0},
                magnitudes={"E": "log-normal", "I": "half-normal"},
                spread={"E": 0.7, "I": 1.0},
            ),
        ),
        ("dale,inhibitory=[SST,PV]", lrp.DaleLoadings(inhibitory=("SST", "PV"))),
        ("correlated,by_cell_type=true,K.median=2", lrp.CorrelatedLoadings(K=SCALE(2.0), by_cell_type=True)),
        ("independent,B.median=0.5,b=0.1", lrp.Priors(B=SCALE(0.5), b=0.1)),
    ],
)
def test_fields_of_loadings(words, expected):
    assert model_of(loadings=words).priors == expected


@pytest.mark.parametrize(
    ("words", "inferred", "expected"),
    [
        ("0.1", False, 0.1),
        ("0.1", True, TAU(0.1)),
        ("median=0.1,spread=0.2", False, TAU(0.1, 0.2)),
        ("E=0.1,I=0.05", False, {"E": 0.1, "I": 0.05}),
        ("E=0.1,I=0.05", True, {"E": TAU(0.1), "I": TAU(0.05)}),
        ("E.median=0.1,E.spread=0.2,I=0.05", False, {"E": TAU(0.1, 0.2), "I": 0.05}),
        ("E.median=0.1,E.spread=0.2,I=0.05", True, {"E": TAU(0.1, 0.2), "I": TAU(0.05)}),
        ("a=0.54", False, FIXED_A(0.54)),
        ("a=0.54", True, PRIOR_A(0.54)),
        ("E.a=0.54,I.a.median=0.7", False, {"E": FIXED_A(0.54), "I": PRIOR_A(0.7)}),
        ("neuron,each=0.1", False, lrp.PerNeuron(0.1)),
        ("neuron,each=0.1", True, lrp.PerNeuron(TAU(0.1))),
        ("neuron,each=[0.1,0.2]", True, lrp.PerNeuron([TAU(0.1), TAU(0.2)])),
        ("neuron,each.a.median=0.54", False, lrp.PerNeuron(PRIOR_A(0.54))),
    ],
)
def test_time_constants(words, inferred, expected):
    made = model_of(time_constant=words, infer_time_constant=inferred)
    assert made.time_constant == lrp.LowRankModel(1, expected).time_constant


def test_fields_of_every_other_object():
    made = model_of(
        observe="count,scale=50,per=network", background="signed,scale.E=1,scale.I=4", process_noise="full,scale=0.3"
    )
    assert made.observation == lrp.PoissonObservation(scale=50.0, per="network")
    assert made.background == lrp.SignedBackground({"E": 1.0, "I": 4.0})
    assert made.process_noise == lrp.ProcessNoise("full", scale=0.3)
    method = read_method("match,conditions=labels,cost=poisson,checkpoint=./a-b.npz,validation=[1,2]")
    expected = {"conditions": "labels", "cost": "poisson", "checkpoint": "./a-b.npz", "validation": (1, 2)}
    assert method == lrp.Match(**expected)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four excitatory and two inhibitory neurons, bins of 20 ms."""
    folder = tmp_path_factory.mktemp("session")
    model = lrp.LowRankModel(1, nonlinearity="softplus", background=None, priors=lrp.DaleLoadings(unit=1.0))
    size = {"num_neurons": 6, "num_trials": 4, "num_bins": 15, "num_inputs": 1, "cell_types": ["E"] * 4 + ["I"] * 2}
    lrp.simulate_recording(model, **size, dt=0.02, noise_scale=0.1, seed=0).recording.save(folder / "session.npz")
    return folder


def run_fit(folder: Path, *options: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["fit", str(folder / "session.npz"), str(folder / "fit.nc"), "--rank", "1", *DALE, *options])
    return int(end.value.code or 0)


@pytest.mark.slow
def test_a_fit_under_dales_law_has_the_priors_that_were_asked_for(folder):
    loadings = "dale,K.E.median=1.5,K.I.median=6.0,K.I.spread=0.5,magnitudes=log-normal,spread=0.8"
    assert run_fit(folder, "--loadings", loadings, "--time-constant", "E.median=0.1,I.a=0.5") == 0
    model = lrp.load_posterior(folder / "fit.nc").model
    members = (0, 0, 0, 0, 1, 1)
    assert ByCellType(("E", "I"), (SCALE(1.5), SCALE(6.0, 0.5)), members) == model.priors.K
    assert (model.priors.magnitudes, model.priors.spread) == ("log-normal", 0.8)
    assert ByCellType(("E", "I"), (TAU(0.1), 0.04), members) == model.time_constant


@pytest.mark.parametrize(
    ("option", "words", "message"),
    [
        ("--loadings", "dale,K.E=-1,K.I=2", "--loadings: priors.K['E']: expected one finite number > 0, got -1"),
        ("--loadings", "dale,K.E.median=0", "--loadings.K.E: median: expected one finite number > 0, got 0"),
        ("--loadings", "dale,K.E=1,K.I.median=2", "--loadings: priors.K: expected numbers alone, or ScalePriors alone"),
        ("--loadings", "dale,K.E=1.5", "--loadings.K: expected a value for each of the cell types ['E', 'I'], got"),
        (
            "--loadings",
            "dale,magnitudes.PV=log-normal",
            "--loadings.magnitudes: expected a value for each of the cell types ['E', 'I'], got none for ['E', 'I']",
        ),
        ("--loadings", "dale,magnitudes=normal", "--loadings: priors.magnitudes: expected one of 'half-normal', 'log-"),
        ("--loadings", "dale,magnitude=log-normal", "got 'magnitude'; did you mean 'magnitudes'?"),
        ("--loadings", "dale,log-normal", "--loadings: expected dale,FIELD=VALUE, got 'dale,log-normal' (Expected '='"),
        ("--loadings", "dale,K=1,K=2", "--loadings: expected dale,FIELD=VALUE, got 'dale,K=1,K=2' (Duplicate"),
        ("--loadings", "dail,K=2", "--loadings: expected one of 'correlated', 'independent', 'dale', got 'dail,K=2'"),
        ("--time-constant", "fast", "--time-constant: expected a time in s, or TYPE=TIME,TYPE=TIME, got 'fast'; write"),
        ("--time-constant", "E=0.1,0.05", "--time-constant: expected a time in s, or TYPE=TIME,TYPE=TIME, got 'E=0.1,"),
        ("--time-constant", "E=0.1,I=-1", "--time-constant.I: expected one finite number > 0 (in s), got -1; give"),
        ("--time-constant", "E=0.1,I=0.01", "--time-constant: expected at least the bin width dt = 0.02 s, got 0.01 s"),
        ("--time-constant", "E=0.1,PV=0.1", "--time-constant: expected a value for each of the cell types ['E', 'I']"),
        ("--time-constant", "a=1.5", "--time-constant: time_constant.a: expected a number between 0 and 1"),
        ("--time-constant", "cell,each=0.1", "--time-constant: expected one of 'neuron', got 'cell'"),
        ("--method", "match,cost=poison", "--method: cost: expected one of 'euclidean', 'poisson', got 'poison'"),
        ("--hidden", "E:8", "--hidden: expected TYPE=NUMBER, got 'E:8'"),
    ],
)
def test_a_mistake_names_the_option_and_gets_exit_code_2(folder, capsys, option, words, message):
    before = sorted(folder.iterdir())
    dale = [] if option == "--loadings" else ["--loadings", "dale,K.E=1.5,K.I=6.0"]
    assert run_fit(folder, "--force", *dale, option, words) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("lrposterior: --")
    assert message in err
    assert sorted(folder.iterdir()) == before
