"""The command line: from a recording to a posterior, its degeneracy, a ranking of perturbations and a report.

Files go in and out as in Python: recordings as .npz, or in from MATLAB's .mat; posteriors as .nc. Results go to stdout,
progress, notes and errors to stderr. A user's error is one line and exit code 2; Ctrl-C is exit code 130 and leaves
nothing half written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import numpy as np
import typer

from lrposterior.checks import argument_error, require_choice, require_integer
from lrposterior.cli.input import (
    make_candidates,
    naming_options,
    prepare_jax,
    read_embedding,
    read_method,
    read_model,
    read_recording,
    read_session,
    require_new,
)
from lrposterior.cli.output import (
    describe_clipping,
    describe_degeneracy,
    describe_diagnosis,
    describe_fit,
    describe_modes,
    describe_ranking,
    describe_recording,
    format_ranking,
    listed,
    save_ranking,
    to_json,
)
from lrposterior.files import replacing

USER_ERROR, INTERRUPTED = 2, 130
EXAMPLE_PLAN = Path(__file__).parents[1] / "sweep" / "example.toml"
MATCHING_PLAN = EXAMPLE_PLAN.with_name("matching.toml")

app = typer.Typer(
    name="lrposterior",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

KIND_AND_FIELDS = "KIND[,FIELD=VALUE...]"
PosteriorFile = Annotated[Path, typer.Argument(metavar="FIT.nc", help="A posterior that `lrposterior fit` wrote.")]
Force = Annotated[bool, typer.Option("--force", help="Replace output files that exist.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random; the same seed gives the same numbers.")]
Threshold = Annotated[float, typer.Option(help="Information lambda from which a direction counts as constrained.")]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--name",
        metavar="ARGUMENT=VARIABLE",
        help="Of a .mat file, which variable is which: activity=fr, inputs=session.u; inputs= leaves them out. "
        "Give it several times. Default: by common names, which are shown.",
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        metavar="AXIS,AXIS,AXIS",
        help="Of a .mat file, the order of MATLAB's size, as neuron,time,trial. Default: trial,time,neuron.",
    ),
]
BinWidth = Annotated[float | None, typer.Option(help="Of a .mat file, the width of a bin, in s.")]
Clip = Annotated[
    float | None,
    typer.Option(
        metavar="PERCENTILE",
        help="Clip entries that are twice as far from a neuron's median as this percentile, for instance 99.9, and "
        "print what was clipped.",
    ),
]
Hidden = Annotated[
    list[str] | None,
    typer.Option(
        "--hidden",
        metavar="TYPE=NUMBER",
        help="Under Dale's law, neurons of a type that were not recorded: E=8. Give it several times. They follow the "
        "recorded ones.",
    ),
]
TimeConstant = Annotated[
    str,
    typer.Option(
        metavar="TIME|TYPE=TIME,TYPE=TIME",
        help="Time constant of the neurons, in s; at least the width of a bin. By cell type: E=0.1,I=0.05; one for "
        "every neuron: neuron,each=0.1. An inferred one has the median and spread of its prior: E.median=0.1,I=0.05. "
        "As a = dt / tau: a=0.5, or E.a=0.5,I.a.median=0.7.",
    ),
]
InferTimeConstant = Annotated[
    bool, typer.Option("--infer-time-constant", help="Infer all of it, with the numbers of --time-constant as medians.")
]
Embedding = Annotated[
    str,
    typer.Option(
        metavar="KIND[,FIELD=VALUE...]|EMBEDDING.npz",
        help="Features in the place of the inputs: none; lags,lags=2 (also those of bins before); polynomial (also "
        "squares and products); random,width=28,seed=0 or learned,width=28,seed=0 (a rectified layer); or the file of "
        "an earlier fit.",
    ),
]
InitialState = Annotated[str, typer.Option(help="State at the start of a trial: zero, or free (inferred).")]
ProcessNoise = Annotated[
    str,
    typer.Option(
        metavar=KIND_AND_FIELDS,
        help="Noise that drives the latents of single trials: none, diagonal or full; full,scale=0.3 gives the median "
        "of its scale.",
    ),
]
HiddenNeurons = Annotated[
    str,
    typer.Option(
        metavar="NUMBER|SHARE",
        help="Neurons that were not recorded, or their share; with --background none. Under Dale's law: --hidden.",
    ),
]
Drift = Annotated[
    bool, typer.Option("--drift", help="Neurons are seen with an offset and a scale of their own in every session.")
]
Nonlinearity = Annotated[str, typer.Option(help="From current to rate: tanh, relu, softplus or linear.")]
Observe = Annotated[
    str,
    typer.Option(
        metavar=KIND_AND_FIELDS,
        help="What the activity is: rate, current, spike-rate (spikes/s), count (Poisson), overdispersed-count, or "
        "calcium,decay_time=0.5 (s).",
    ),
]
KnownBackground = Annotated[
    str,
    typer.Option(
        metavar="KIND[,FIELD=VALUE...]|W0.npy",
        help="Connectivity beside the low-rank part: bulk (unknown and unstructured), signed (unknown, with --loadings "
        "dale; signed,scale.E=1.0,scale.I=4.0), none, or a file with a known matrix (post, pre), .npy or .npz of "
        "scipy.sparse.save_npz.",
    ),
]
Loadings = Annotated[
    str,
    typer.Option(
        metavar=KIND_AND_FIELDS,
        help="correlated: a neuron's K depends on its other loadings; independent; or dale: Dale's law, with softplus, "
        "without a background or with a signed one. Scales and magnitudes are fields: "
        "dale,K.E=1.5,K.I=6.0,magnitudes=log-normal,spread=1.0. K.E.median=1.5,K.I.median=6.0 are inferred.",
    ),
]
NoSelfConnections = Annotated[
    bool, typer.Option("--no-self-connections", help="With --loadings dale: no neuron drives itself.")
]
CandidateKinds = Annotated[
    list[str] | None,
    typer.Option(
        "--candidates",
        metavar="KIND",
        help="single (each neuron), ensemble (random ones), latent (directions of the activity), or a .npz file with "
        "patterns (candidate, neuron) and, if you like, labels. Give it several times to join them. Default: all "
        "three.",
    ),
]
Power = Annotated[float, typer.Option(help="Power of every candidate, in current² s.")]
Onset = Annotated[float | None, typer.Option(help="Start of the stimulation, in s. Default: the middle of the trial.")]
Duration = Annotated[float | None, typer.Option(help="Its duration, in s. Default: a tenth of the trial.")]
NumCandidates = Annotated[
    int | None, typer.Option("--num-candidates", help="Ensembles, and latent directions. Default: 50 and 20.")
]
EnsembleSize = Annotated[int | None, typer.Option("--size", help="Neurons in an ensemble. Default: 10, or fewer.")]
CellType = Annotated[str | None, typer.Option(help="Take ensembles from neurons of this type, for example E.")]
Criterion = Annotated[str, typer.Option("--by", help="certainty, contraction or information.")]
Draws = Annotated[int, typer.Option("--draws", help="Draws of the posterior.")]
Quantity = Annotated[str, typer.Option(help="What responds: current or rate.")]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit code."""
    # What is wrong on the command line itself: typer's class for it, which has no public name of its own.
    usage_error: type[Exception] = typer.BadParameter.__bases__[0]
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = typer.main.get_command(app)
        code = command.main(args=arguments, prog_name="lrposterior", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except usage_error as error:
        _fail(cast(typer.BadParameter, error).format_message())
    except (ValueError, OSError, RuntimeError) as error:
        if "--traceback" in arguments or (isinstance(error, RuntimeError) and not _is_fit_error(error)):
            raise
        _fail(str(error))
    if code == INTERRUPTED:
        print("lrposterior: interrupted; no file is left half written", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


@app.callback(
    invoke_without_command=True,
    epilog="\b\n"
    "Example, from a recording to a report:\n"
    "  lrposterior fit session.npz fit.nc --rank 2 --time-constant 0.1\n"
    "  lrposterior degeneracy fit.nc\n"
    "  lrposterior rank fit.nc --candidates single --power 1.0\n"
    "  lrposterior report fit.nc report.html\n",
)
def _options(
    context: typer.Context,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")] = False,
) -> None:
    """What a population recording says about the connectivity of a circuit, and which perturbation to try next."""
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(USER_ERROR)


@app.command(
    epilog="\b\n"
    "Example:\n"
    "  lrposterior simulate session.npz --neurons 50 --trials 12 --bins 70 --dt 0.02 --rank 2 --seed 0\n"
)
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


@app.command(
    epilog="\b\n"
    "Examples:\n"
    "  lrposterior fit session.npz fit.nc --rank 2 --time-constant 0.1 --validation-fraction 0.2 --seed 0\n"
    "  lrposterior fit session.npz fit.nc --rank 2 --time-constant E=0.1,I=0.05 --nonlinearity softplus \\\n"
    "    --background none --loadings dale,K.E=1.5,K.I=6.0,magnitudes=log-normal\n"
)
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
        features = read_embedding(embedding, model, session, chosen, _shown(quiet))
        if features is not None:
            session = lrp.embed_inputs(session, features)
            held_out = None if held_out is None else lrp.embed_inputs(held_out, features)
        result = lrp.fit(
            model, session, chosen,
            seed=seed, num_restarts=restarts, max_iterations=max_iterations, progress=_shown(quiet),
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


@app.command(
    epilog="\b\n"
    "Examples:\n"
    "  lrposterior diagnose session.npz --rank 2 --observe count --nonlinearity softplus\n"
    "  lrposterior diagnose fit.nc --validation fit.validation.npz\n"
)
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


@app.command(epilog="\b\nExample:\n  lrposterior degeneracy fit.nc --threshold 1.0 --figure spectrum.png\n")
def degeneracy(
    posterior: PosteriorFile,
    threshold: Threshold = 1.0,
    figure: Annotated[
        Path | None, typer.Option(metavar="FIGURE.png", help="Where to draw it: .png, .svg or .pdf.")
    ] = None,
    draw: Annotated[str, typer.Option(help="What to draw: spectrum, contraction or subspaces.")] = "spectrum",
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show which directions the recording constrains.

    The other directions of the connectivity are left to the prior: they are degenerate.

    Information is in nats. lambda is prior / posterior variance - 1: at 1 the data say as much as the prior.
    """
    require_choice(draw, "--draw", ("spectrum", "contraction", "subspaces"))
    if figure is not None:
        require_new(figure, "--figure", (".png", ".svg", ".pdf"), force)
    prepare_jax()
    from lrposterior.degeneracy import analyze_degeneracy
    from lrposterior.storage import load_posterior

    analysis = analyze_degeneracy(load_posterior(posterior), threshold)
    if figure is not None:
        from lrposterior.plots import plot_contraction, plot_spectrum, plot_subspaces, save_figure

        if draw == "subspaces":
            drawn = plot_subspaces(analysis, seed=seed)
        else:
            drawn = (plot_spectrum if draw == "spectrum" else plot_contraction)(analysis)
        save_figure(drawn, figure)
    if as_json:
        print(to_json(describe_degeneracy(analysis) | {"figure": figure}))
        return
    print(analysis)
    if figure is not None:
        print(f"written: {figure}")


@app.command(
    epilog="\b\n"
    "Example:\n"
    "  lrposterior rank fit.nc --candidates single --power 1.0 --by certainty --top 10 --output ranking.csv\n"
)
def rank(
    posterior: PosteriorFile,
    candidates: CandidateKinds = None,
    by: Criterion = "certainty",
    power: Power = 1.0,
    onset: Onset = None,
    duration: Duration = None,
    num_candidates: NumCandidates = None,
    size: EnsembleSize = None,
    cell_type: CellType = None,
    quantity: Quantity = "current",
    top: Annotated[int, typer.Option(help="How many of the best to show.")] = 10,
    output: Annotated[
        Path | None,
        typer.Option(metavar="RANKING.csv", help="Write all candidates: .csv (a table) or .nc (with responses)."),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FIGURE.png", help="Where to draw the ranking: .png, .svg or .pdf.")
    ] = None,
    draws: Draws = 300,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Rank perturbations by certainty or by information.

    That is by how well the posterior predicts their responses, or by what they would teach about the network.

    Power is in current² s, times in s from the start of the trial, information in nats. Expected R² is the accuracy
    that the prediction will have on average, if the model is right. Responses exclude the stimulus' own feed-through.
    """
    if output is not None:
        require_new(output, "--output", (".csv", ".nc"), force)
    if figure is not None:
        require_new(figure, "--figure", (".png", ".svg", ".pdf"), force)
    prepare_jax()
    from lrposterior.perturbation.prediction import rank_perturbations
    from lrposterior.storage import load_posterior

    require_integer(top, "--top", 1)
    fitted = load_posterior(posterior)
    chosen = make_candidates(fitted, candidates, power, onset, duration, num_candidates, size, cell_type, seed)
    options: dict[str, Any] = {"by": by, "quantity": quantity, "num_draws": draws, "seed": seed}
    ranking = rank_perturbations(fitted, chosen, **options, progress=_shown(quiet))
    if output is not None:
        save_ranking(ranking, output)
    if figure is not None:
        from lrposterior.plots import plot_ranking, save_figure

        save_figure(plot_ranking(ranking), figure)
    if as_json:
        print(to_json(describe_ranking(ranking, top) | {"output": output, "figure": figure}))
        return
    print(format_ranking(ranking, top))
    if output is not None or figure is not None:
        print(f"written: {listed(output, figure)}")


@app.command(
    epilog="\b\n"
    "Example:\n"
    "  lrposterior report fit.nc report.html --validation fit.validation.npz --activity-unit spikes/s\n"
)
def report(
    posterior: PosteriorFile,
    output: Annotated[Path, typer.Argument(metavar="REPORT.html", help="Where to write the report.")],
    validation: Annotated[
        Path | None,
        typer.Option(metavar="FIT.validation.npz", help="Trials that were kept from the fit; `fit` can write them."),
    ] = None,
    candidates: CandidateKinds = None,
    by: Criterion = "certainty",
    power: Power = 1.0,
    onset: Onset = None,
    duration: Duration = None,
    num_candidates: NumCandidates = None,
    size: EnsembleSize = None,
    cell_type: CellType = None,
    quantity: Quantity = "current",
    threshold: Threshold = 1.0,
    title: Annotated[str, typer.Option(help="Heading of the report.")] = "What the recording says about the circuit",
    activity_unit: Annotated[
        str, typer.Option(help="Unit of the activity, for the figures, for example spikes/s.")
    ] = "recorded units",
    draws: Draws = 300,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write one HTML file with all results.

    It shows the data, the quality of the fit, the connectivity with its uncertainty, degeneracy and ranking.

    The ranking is the one that `lrposterior rank` with the same options gives. Times are in s, power in current² s.
    """
    require_new(output, "REPORT.html", (".html",), force)
    prepare_jax()
    from lrposterior.degeneracy import analyze_degeneracy
    from lrposterior.perturbation.prediction import rank_perturbations
    from lrposterior.report import write_report
    from lrposterior.storage import load_posterior

    fitted = load_posterior(posterior)
    held_out = None if validation is None else read_recording(validation)
    chosen = make_candidates(fitted, candidates, power, onset, duration, num_candidates, size, cell_type, seed)
    analysis = analyze_degeneracy(fitted, threshold)
    options: dict[str, Any] = {"by": by, "quantity": quantity, "num_draws": draws, "seed": seed}
    ranking = rank_perturbations(fitted, chosen, **options, progress=_shown(quiet))
    write_report(
        output, fitted, analysis, ranking, held_out=held_out, title=title, activity_unit=activity_unit, seed=seed
    )
    if as_json:
        print(to_json({"report": output, "validation": validation}))
    else:
        print(f"written: {output}")
    hidden = posterior.with_suffix(".validation.npz")
    if validation is None and hidden.exists():
        print(f"hint: add --validation {hidden} to show how the fit does on held-out trials", file=sys.stderr)


@app.command(
    epilog="\b\nExample:\n  lrposterior sweep --example > plan.toml\n  lrposterior sweep plan.toml --figure sweep.png\n"
)
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
        result = run_sweep(asked, recording, folder, executor=pool, progress=_shown(quiet))
    if figure is not None:
        from lrposterior.plots import plot_sweep, save_figure

        save_figure(plot_sweep(result), figure)
    if as_json:
        print(to_json(result.to_dict() | {"folder": folder, "figure": figure}))
        return
    print(result)
    print(f"written: {listed(folder, figure)}")


@app.command(epilog="\b\nExample:\n  lrposterior demo --output demo\n")
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


def _fail(message: str) -> NoReturn:
    print(f"lrposterior: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(USER_ERROR)


def _is_fit_error(error: Exception) -> bool:
    from lrposterior import FitError

    return isinstance(error, FitError)


def _shown(quiet: bool) -> bool:
    return not quiet and sys.stderr.isatty()
