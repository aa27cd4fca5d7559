"""`lrposterior sweep`: a plan that it prints, a sweep by processes, and one line for every mistake."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from plain import plain_model

import lrposterior as lrp
from lrposterior.cli import main

PLAN = """
recording = "session.npz"
seeds = [0, 1]

[validation]
fraction = 0.4

[base.model]
rank = 1
background = "none"
priors = "independent"

[improvements."rank 9"]
model.rank = 9
"""


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `lrposterior sweep`."""
    with pytest.raises(SystemExit) as end:
        main(["sweep", *map(str, arguments)])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model = plain_model(1)
    session = lrp.simulate_recording(model, num_neurons=6, num_trials=8, num_bins=20, noise_scale=0.1, seed=0)
    session.recording.save("session.npz")
    path = tmp_path / "plan.toml"
    path.write_text(PLAN, encoding="utf-8")
    return path


@pytest.mark.parametrize("option", ["--example", "--example-match"])
def test_an_example_is_a_plan(tmp_path, capsys, option):
    code, out, _ = run(capsys, option)
    (tmp_path / "plan.toml").write_text(out, encoding="utf-8")
    assert code == 0
    assert lrp.load_plan(tmp_path / "plan.toml").combine is not None


# What makes each of them small; one rank is above the number of neurons.
SMALL = {"[0, 1, 2, 3, 4]": "[0]", "fraction = 0.2": "fraction = 0.5", "rank = [20, 50": "rank = [8, 50"}
SHORT = {
    "--example": {'method = "laplace"': 'method = "laplace"\nmax_iterations = 20'},
    "--example-match": {"rate = 0.001 }": "rate = 0.001, warm_up = 1, ramp = 1, num_epochs = 3 }", ", 54]": "]"},
}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("option", list(SHORT))
def test_an_example_runs_from_its_first_configuration_to_its_last(tmp_path, monkeypatch, capsys, option):
    monkeypatch.chdir(tmp_path)
    session = lrp.simulate_session(
        num_trials=28, num_bins=20, num_excitatory=6, num_inhibitory=2, num_inputs=3, num_outliers=0, seed=0
    )
    session.recording.save("session.npz")
    _, text, _ = run(capsys, option)
    for old, new in (SMALL | SHORT[option]).items():
        assert old in text
        text = text.replace(old, new)
    Path("plan.toml").write_text(text, encoding="utf-8")
    code, out, err = run(capsys, "plan.toml", "--workers", 1, "--figure", "gains.png")
    assert (code, err) == (0, "")
    made, found = lrp.load_plan("plan.toml"), lrp.SweepResult.load("plan.sweep/sweep.nc")
    singles = [one.name for one in made.configurations]
    better = [name for name in found.better_than_base if name in singles]
    assert list(found.names) == singles + [one.name for one in made.combinations(better)]
    assert any(" + " in name for name in found.names)
    assert [one.name for one in found.ranking if one.refusals] == ["rank=50"]
    assert all(np.isfinite(found.values(name)).all() for name in found.names if name != "rank=50")
    assert all(name in out for name in found.names)
    assert Path("gains.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
@pytest.mark.slow
def test_a_sweep_of_networks_that_match(plan, capsys):
    method = '{ kind = "match", warm_up = 2, ramp = 2, num_epochs = 6 }'
    changes = f"\n[base.fit]\nmethod = {method}\n[improvements.longer]\nfit.method.warm_up = 3\n"
    plan.write_text(plan.read_text(encoding="utf-8") + changes, encoding="utf-8")
    code, out, err = run(capsys, "plan.toml", "--workers", 1)
    assert (code, err) == (0, "")
    assert "longer" in out
    found = lrp.SweepResult.load("plan.sweep/sweep.nc")
    assert all(np.isfinite(found.values(name)).all() for name in ("base", "longer"))


@pytest.mark.long
@pytest.mark.slow
def test_a_sweep_from_the_command_line(plan, capsys):
    code, out, err = run(capsys, "plan.toml", "--workers", 1, "--figure", "gains.png")
    assert (code, err) == (0, "")
    assert "refused: rank 9, seed 0, 1: rank: expected at most the 6 neurons" in out
    assert out.splitlines()[-1] == "written: plan.sweep, gains.png"
    assert len(list(Path("plan.sweep/runs").glob("*.json"))) == 4
    assert Path("gains.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run(capsys, "plan.toml", "--json")
    assert json.loads(out) == lrp.SweepResult.load("plan.sweep/sweep.nc").to_dict() | {
        "folder": "plan.sweep",
        "figure": None,
    }


@pytest.mark.parametrize(
    ("arguments", "edit", "words"),
    [
        ([], {}, "PLAN.toml: expected the name of a plan, got none; or print one by --example"),
        (["nothing.toml"], {}, "plan: expected a plan in TOML, got no file at 'nothing.toml'"),
        (["plan.toml"], {"rank = 1": "rnk = 1"}, "base.model: expected one of 'rank'"),
        (["plan.toml"], {'recording = "session.npz"': ""}, "plan: expected a recording, got none"),
        (["plan.toml", "--figure", "gains.gif"], {}, "--figure: expected a file name that ends in .png"),
        (["plan.toml", "--workers", "0"], {}, "--workers: expected an integer >= 1, got 0"),
    ],
)
def test_a_mistake_is_one_line(plan, capsys, arguments, edit, words):
    for old, new in edit.items():
        plan.write_text(plan.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"lrposterior: {words}")
    assert err.count("\n") == 1
    assert not Path("plan.sweep").exists()


def test_a_score_that_held_out_trials_cannot_have_is_refused_before_anything_runs(plan, capsys):
    plan.write_text(plan.read_text(encoding="utf-8").replace("seeds", 'score = "correlation"\nseeds'), encoding="utf-8")
    recording = lrp.load_recording("session.npz")
    dataclasses.replace(recording, trial_labels=["left", "right"] * 4).save("session.npz")
    code, out, err = run(capsys, "plan.toml", "--workers", 1)
    assert (code, out) == (2, "")
    assert err.startswith("lrposterior: validation: expected at least 4 held-out trials of some label, as correlation")
    assert not list(Path("plan.sweep/runs").glob("*"))
