"""Commands that simulate: a recording, and the whole job on one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer

from lrposterior.cli.arguments import Force, Json, Quiet, Seed
from lrposterior.cli.input import prepare_jax, require_new
from lrposterior.cli.model_options import Nonlinearity
from lrposterior.cli.output import describe_recording, listed, to_json
from lrposterior.files import replacing


def simulate(
    recording: Annotated[Path, typer.Argument(metavar="SESSION.npz", help="Where to write the recording.")],
    neurons: Annotated[int, typer.Option(help="Number of neurons.")] = 50,
    trials: Annotated[int, typer.Option(help="Number of trials.")] = 12,
    bins: Annotated[int, typer.Option(help="Number of time bins in a trial.")] = 70,
    dt: Annotated[float, typer.Option(help="Width of a bin, in s.")] = 0.02,
    rank: Annotated[int, typer.Option(help="Rank of the connectivity.")] = 2,
    inputs: Annotated[int, typer.Option(help="Number of inputs, smooth noise of variance 1.")] = 2,
    time_constant: Annotated[float, typer.Option(help="Time constant of the neurons, in s.")] = 0.1,
    nonlinearity: Nonlinearity = "tanh",
    observe: Annotated[str, typer.Option(help="What is recorded: rate or current.")] = "rate",
    bulk_gain: Annotated[
        float, typer.Option(help="Gain g of unstructured connectivity beside the low-rank part; 0 for none.")
    ] = 0.3,
    noise: Annotated[float, typer.Option(help="Standard deviation of the noise, in units of activity.")] = 0.1,
    truth: Annotated[
        Path | None, typer.Option(metavar="TRUTH.npz", help="Also write the true parameters and noise-free rates.")
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Simulate a recording of a network drawn from the prior."""
    require_new(recording, "SESSION.npz", (".npz",), force)
    if truth is not None:
        require_new(truth, "--truth", (".npz",), force)
    prepare_jax()
    from lrposterior import GaussianObservation, LowRankModel, RandomBulk, simulate_recording

    options: dict[str, Any] = {
        "time_constant": time_constant,
        "nonlinearity": nonlinearity,
        "background": None if bulk_gain == 0.0 else RandomBulk(gain=bulk_gain),
    }
    model = LowRankModel(rank, observation=GaussianObservation(of=cast(Any, observe)), **options)
    simulation = simulate_recording(
        model,
        num_neurons=neurons,
        num_trials=trials,
        num_bins=bins,
        dt=dt,
        num_inputs=inputs,
        noise_scale=noise,
        seed=seed,
    )
    simulation.recording.save(recording)
    if truth is not None:
        arrays: dict[str, Any] = simulation.parameters | {"rates": simulation.rates}
        with replacing(truth) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
    if as_json:
        print(to_json(describe_recording(simulation.recording) | {"recording": recording, "truth": truth}))
    else:
        print(simulation.recording.summary())
        print(f"written: {listed(recording, truth)}")


def demo(
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write figures, data and the report.")] = Path(
        "demo"
    ),
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Run the whole job on a simulated recording.

    The predictions are compared with the truth. Takes about a minute.

    The folder must be new, empty, or made by an earlier demo, whose files are replaced.
    """
    prepare_jax()
    from lrposterior.demo import run_demo

    print(run_demo(output, seed=seed, progress=not quiet))
