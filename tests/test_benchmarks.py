"""Every benchmark runs at tiny size, prints its table, and leaves the stored results alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
HEADERS = {
    "bulk.py": "90% cover, median certainty, median R²",
    "calibration.py": "quantity        | in band | leaves by | error / sd: mean, sd | 50%, 90% cover",
    "closed_loop.py": "error after trials",
    "comparison.py": "anything  direction  entries  neurons",
    "correction.py": "recording | method         | mean  | log sd | Pareto k",
    "curvature.py": "largest difference  structured (s)  automatic (s)  ratio of times",
    "dales_law.py": "recording  magnitudes             trials  networks  refused  W: cover, nearer, further",
    "dales_law_methods.py": "kind                  method   networks refused settled  W: mean, log sd, sd ratio",
    "equal_accuracy.py": "90% cover  rms z      R²  converged  seconds  ratio to Laplace",
    "filter_accuracy.py": "network   noise in a bin  mean activity  filter - particle filter (nats a trial)",
    "filter_speed.py": "largest difference of a trial (of)  value: ours, dynamax (s), ratio  gradient: ours, dynamax",
    "gibbs.py": "truths   beta    sessions  refused  cover: all (se), mean weights, responses",
    "growth.py": "steps  seconds  ratio to base  peak GB  of which start   exponent: all, last two",
    "hidden_types.py": "recording          fit             networks  refused  W: cover, nearer, further, width",
    "latents.py": "error of the mean (of the reference)  ratio of sd",
    "loadings.py": "network  priors       ",
    "long_recording.py": "bins    density   gradient information        fit      start    density",
    "matching.py": "losses   clock, processor (s)  PyTorch: clock, processor  ratio of clocks, of processors",
    "mode.py": "within 0.1 nats  steps  seconds  ratio of seconds  nats above",
    "partial_observation.py": "| recorded | regression | its limit | 90% interval, median | covers 0 |",
    "perturbation.py": "class          n   mode   mean   expected (std) |    R²    expected  | spread²   | cover",
    "ranking_speed.py": "read       seconds    drawn (s)  ratio",
    "rank_selection.py": "true rank  gain  fitted bulk  size         right  chosen (rank: times)",
    "session_means.py": "network  trials  networks  refused  entries of W",
    "session_truth.py": "directions are known to better than 1 prior standard deviation",
    "single_trials.py": "cover of W, rms z: all | half | nine tenths (entries) | of responses: 1 bin | 50 bins",
    "update.py": "steps: update, refit  seconds: update, refit  ratio",
    "truths.py": "expected R², achieved R² (pooled), 90% cover",
    "scaling.py": "neurons          fit    fit cpu       draw      entry  candidate       save",
}
ARGUMENTS = {
    "calibration.py": [("--method", "laplace"), ("--method", "laplace_mode", "--process-noise")],
}
NOT_BENCHMARKS = {"averaged_responses.py", "low_rank_regression.py", "particle_smoother.py", "stored.py"}


def test_every_benchmark_is_run_here() -> None:
    assert {path.name for path in FOLDER.glob("*.py")} - NOT_BENCHMARKS == set(HEADERS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments"),
    [(script, arguments) for script in sorted(HEADERS) for arguments in ARGUMENTS.get(script, [()])],
)
def test_a_tiny_run_prints_the_table_and_stores_nothing(script: str, arguments: tuple[str, ...]) -> None:
    stored = {path: path.stat().st_mtime_ns for path in (FOLDER / "results").iterdir()}
    finished = subprocess.run(
        [sys.executable, str(FOLDER / script), *arguments, "--tiny"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert HEADERS[script] in finished.stdout
    assert {path: path.stat().st_mtime_ns for path in (FOLDER / "results").iterdir()} == stored
