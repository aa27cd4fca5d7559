"""Commands that ask a posterior: what is open, which perturbation to try next, and a report of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lrposterior.checks import require_choice, require_integer
from lrposterior.cli.arguments import Force, Json, PosteriorFile, Quiet, Seed, shown
from lrposterior.cli.input import make_candidates, prepare_jax, read_recording, require_new
from lrposterior.cli.output import (
    describe_degeneracy,
    describe_ranking,
    format_ranking,
    listed,
    save_ranking,
    to_json,
)

Threshold = Annotated[float, typer.Option(help="Information lambda from which a direction counts as constrained.")]
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
    ranking = rank_perturbations(fitted, chosen, **options, progress=shown(quiet))
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
    ranking = rank_perturbations(fitted, chosen, **options, progress=shown(quiet))
    write_report(
        output, fitted, analysis, ranking, held_out=held_out, title=title, activity_unit=activity_unit, seed=seed
    )
    if as_json:
        print(to_json({"report": output, "validation": validation, "warnings": list(ranking.warnings)}))
    else:
        print(f"written: {output}")
    hidden = posterior.with_suffix(".validation.npz")
    if validation is None and hidden.exists():
        print(f"hint: add --validation {hidden} to show how the fit does on held-out trials", file=sys.stderr)
