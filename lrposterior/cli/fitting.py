"""Commands that fit models to a recording, or say why none would fit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from lrposterior.checks import argument_error, require_integer
from lrposterior.cli.arguments import Force, Json, Quiet, Seed, shown
from lrposterior.cli.input import (
    naming_options,
    prepare_jax,
    read_embedding,
    read_method,
    read_model,
    read_recording,
    read_session,
    require_new,
)
from lrposterior.cli.model_options import (
    KIND_AND_FIELDS,
    Axes,
    BinWidth,
    Clip,
    Drift,
    Embedding,
    Hidden,
    HiddenNeurons,
    InferTimeConstant,
    InitialState,
    KnownBackground,
    Loadings,
    Names,
    Nonlinearity,
    NoSelfConnections,
    Observe,
    ProcessNoise,
    TimeConstant,
)
from lrposterior.cli.output import (
    describe_clipping,
    describe_diagnosis,
    describe_fit,
    describe_modes,
    listed,
    to_json,
)

EXAMPLE_PLAN = Path(__file__).parents[1] / "sweep" / "example.toml"
MATCHING_PLAN = EXAMPLE_PLAN.with_name("matching.toml")


def fit(
    recording: Annotated[
        Path, typer.Argument(metavar="SESSION", help="A recording, .npz or .mat: activity, dt and what else.")
    ],
    posterior: Annotated[Path, typer.Argument(metavar="FIT.nc", help="Where to write the posterior.")],
    rank: Annotated[int, typer.Option(help="Rank of the connectivity.")],
    names: Names = None,
    axes: Axes = None,
    dt: BinWidth = None,
    clip: Clip = None,
    hidden: Hidden = None,
    embedding: Embedding = "none",
    time_constant: TimeConstant = "0.1",
    infer_time_constant: InferTimeConstant = False,
    nonlinearity: Nonlinearity = "tanh",
    observe: Observe = "rate",
    initial_state: InitialState = "zero",
    background: KnownBackground = "bulk",
    process_noise: ProcessNoise = "none",
    hidden_neurons: HiddenNeurons = "0",
    drift: Drift = False,
    loadings: Loadings = "correlated",
    no_self_connections: NoSelfConnections = False,
    method: Annotated[
        str,
        typer.Option(
            metavar=KIND_AND_FIELDS,
            help="laplace, svi, nuts, or match (networks, and no posterior), with their options: "
            "match,conditions=labels,cost=poisson.",
        ),
    ] = "laplace",
    validation_fraction: Annotated[
        float | None,
        typer.Option(help="Share of the trials to hold out. They are written to FIT.validation.npz, for the report."),
    ] = None,
    restarts: Annotated[int, typer.Option(help="More starts from the prior, to see how many modes there are.")] = 0,
    max_iterations: Annotated[int, typer.Option(help="Gauss-Newton steps of one descent to the mode.")] = 300,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit a low-rank network to a recording.

    SESSION holds activity (trial, time, neuron) and dt (s), and may hold inputs (trial, time, input), stimulation
    and mask (as activity), neuron_labels, cell_types, trial_labels, session_labels: numpy.savez("session.npz",
    activity=..., dt=0.01).

    FIELD=VALUE after a comma is a field of the object in Python, in the words of plan files: a dot is for a field of a
    field, as in K.E.median=1.5, and a prior that is inferred has a median and may have a spread.

    With --embedding the posterior, and trials that are held out, have features in the place of the inputs. The
    embedding is written to FIT.embedding.npz; another session is embedded alike by --embedding FIT.embedding.npz.
    """
    require_new(posterior, "FIT.nc", (".nc",), force)
    validation_file = None
    if validation_fraction is not None:
        validation_file = posterior.with_suffix(".validation.npz")
        require_new(validation_file, "--validation-fraction", (".npz",), force)
    embedding_file = None
    if embedding != "none":
        embedding_file = posterior.with_suffix(".embedding.npz")
        require_new(embedding_file, "--embedding", (".npz",), force)
    prepare_jax()
    import lrposterior as lrp
    from lrposterior.fit_quality import assess_fit

    session, clipping = read_session(recording, names, axes, dt, clip, hidden, loadings)
    with naming_options():
        model = read_model(
            rank, time_constant, infer_time_constant, nonlinearity, observe, initial_state, background, process_noise,
            hidden_neurons, drift, loadings, no_self_connections,
        )  # fmt: skip
    chosen = read_method(method)
    held_out = None
    if validation_fraction is not None:
        session, held_out = session.split(validation_fraction, seed=seed)
    with naming_options():
        features = read_embedding(embedding, model, session, chosen, shown(quiet))
        if features is not None:
            session = lrp.embed_inputs(session, features)
            held_out = None if held_out is None else lrp.embed_inputs(held_out, features)
        result = lrp.fit(
            model, session, chosen,
            seed=seed, num_restarts=restarts, max_iterations=max_iterations, progress=shown(quiet),
        )  # fmt: skip
    fitted = assess_fit(result)
    validation = None if held_out is None else assess_fit(result, held_out)
    if held_out is not None and validation_file is not None:
        held_out.save(validation_file)
    if features is not None and embedding_file is not None:
        lrp.save_embedding(features, embedding_file)
    result.save(posterior)
    if as_json:
        files = {"posterior": posterior, "validation": validation_file, "embedding": embedding_file}
        print(to_json(describe_fit(result, fitted, validation) | {"clipping": describe_clipping(clipping)} | files))
        return
    if clipping is not None:
        print(clipping)
    print(result)
    print(describe_modes(result))
    print(f"explained variance: {fitted.explained_variance:.3f} of {fitted.recording.num_trials} fitted trials")
    if validation is not None:
        print(
            f"explained variance: {validation.explained_variance:.3f} of {validation.recording.num_trials} held-out "
            "trials "
            f"({validation.expected:.3f} if they were predicted as well as the fitted ones)"
        )
    print(f"written: {listed(posterior, validation_file, embedding_file)}")


def diagnose(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A recording, .npz or .mat, or a posterior that `lrposterior fit` wrote."),
    ],
    rank: Annotated[int | None, typer.Option(help="Of a recording, the rank of the network to be fitted.")] = None,
    names: Names = None,
    axes: Axes = None,
    dt: BinWidth = None,
    clip: Clip = None,
    hidden: Hidden = None,
    embedding: Embedding = "none",
    time_constant: TimeConstant = "0.1",
    infer_time_constant: InferTimeConstant = False,
    nonlinearity: Nonlinearity = "tanh",
    observe: Observe = "rate",
    initial_state: InitialState = "zero",
    background: KnownBackground = "bulk",
    process_noise: ProcessNoise = "none",
    hidden_neurons: HiddenNeurons = "0",
    drift: Drift = False,
    loadings: Loadings = "correlated",
    no_self_connections: NoSelfConnections = False,
    validation: Annotated[
        Path | None,
        typer.Option(metavar="FIT.validation.npz", help="Of a posterior, trials that were kept from the fit."),
    ] = None,
    draws: Annotated[int, typer.Option("--draws", help="Networks drawn from the prior.")] = 20,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Look for the usual reasons why a network does not take on the activity of a recording.

    Of a recording, networks drawn from the prior are judged, with the options of `fit`; of a posterior, the network
    that was fitted. The options that describe a model are for a recording.

    FIELD=VALUE after a comma is a field of the object in Python, in the words of plan files.
    """
    prepare_jax()
    import lrposterior as lrp

    is_posterior = file.suffix == ".nc"
    if is_posterior != (rank is None):
        expected, got = ("none, for a posterior", f"{rank}") if is_posterior else ("a number, for a recording", "none")
        raise argument_error("--rank", expected, got, "leave it out" if is_posterior else "add for instance --rank 2")
    if rank is None:
        fitted, recording, clipping = lrp.load_posterior(file), None, None
    else:
        recording, clipping = read_session(file, names, axes, dt, clip, hidden, loadings)
        with naming_options():
            fitted = read_model(
                rank, time_constant, infer_time_constant, nonlinearity, observe, initial_state, background,
                process_noise, hidden_neurons, drift, loadings, no_self_connections,
            )  # fmt: skip
            features = read_embedding(embedding, fitted, recording, None, progress=False)
            if features is not None:
                recording = lrp.embed_inputs(recording, features)
    held_out = None if validation is None else read_recording(validation)
    with naming_options():
        diagnosis = lrp.diagnose(fitted, recording, validation=held_out, num_draws=draws, seed=seed)
    if as_json:
        print(to_json(describe_diagnosis(diagnosis) | {"clipping": describe_clipping(clipping)}))
        return
    if clipping is not None:
        print(clipping)
    print(diagnosis)


def sweep(
    plan: Annotated[
        Path | None, typer.Argument(metavar="PLAN.toml", help="What to try, and on which recording.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to keep finished runs and the table. Default: PLAN.sweep."),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FIGURE.png", help="Where to draw the gains: .png, .svg or .pdf.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Fits at a time, each in a process of one thread. Default: one for every core.")
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Print a plan to start from, and do nothing else.")
    ] = False,
    example_match: Annotated[
        bool, typer.Option("--example-match", help="Print one of networks that match trials, and do nothing else.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare many models by trials that their fits have not seen.

    PLAN.toml names a recording, a base and changes to it. The same command goes on where an earlier one was
    interrupted, and runs what is new where the plan was changed.
    """
    if example or example_match:
        print((MATCHING_PLAN if example_match else EXAMPLE_PLAN).read_text(encoding="utf-8"), end="")
        return
    if plan is None:
        raise argument_error("PLAN.toml", "the name of a plan", "none", "or print one by --example")
    if figure is not None:
        require_new(figure, "--figure", (".png", ".svg", ".pdf"), force)
    num_workers = require_integer(os.cpu_count() or 1 if workers is None else workers, "--workers", minimum=1)
    prepare_jax()
    from lrposterior.sweep.plan import load_plan
    from lrposterior.sweep.search import process_pool, run_sweep

    asked = load_plan(plan)
    if asked.recording is None:
        raise argument_error("plan", "a recording", "none", 'write recording = "session.npz" in its first line')
    recording, folder = read_recording(Path(asked.recording)), output or plan.with_suffix(".sweep")
    with process_pool(num_workers) as pool:
        result = run_sweep(asked, recording, folder, executor=pool, progress=shown(quiet))
    if figure is not None:
        from lrposterior.plots import plot_sweep, save_figure

        save_figure(plot_sweep(result), figure)
    if as_json:
        print(to_json(result.to_dict() | {"folder": folder, "figure": figure}))
        return
    print(result)
    print(f"written: {listed(folder, figure)}")
