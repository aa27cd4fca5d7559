"""The command line: from a recording to a posterior, its degeneracy, a ranking of perturbations and a report.

Files go in and out as in Python: recordings as .npz, or in from MATLAB's .mat; posteriors as .nc. Results go to stdout,
progress, notes and errors to stderr. A user's error is one line and exit code 2; Ctrl-C is exit code 130 and leaves
nothing half written.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn, cast

import typer

from lrposterior.cli.fitting import diagnose, fit, sweep
from lrposterior.cli.questions import degeneracy, rank, report
from lrposterior.cli.simulated import demo, simulate

USER_ERROR, INTERRUPTED = 2, 130
# The commands in the order of the help, and what each shows under its options.
COMMANDS: dict[Callable[..., None], str] = {
    simulate: "Example:\n"
    "  lrposterior simulate session.npz --neurons 50 --trials 12 --bins 70 --dt 0.02 --rank 2 --seed 0\n",
    fit: "Examples:\n"
    "  lrposterior fit session.npz fit.nc --rank 2 --time-constant 0.1 --validation-fraction 0.2 --seed 0\n"
    "  lrposterior fit session.npz fit.nc --rank 2 --time-constant E=0.1,I=0.05 --nonlinearity softplus \\\n"
    "    --background none --loadings dale,K.E=1.5,K.I=6.0,magnitudes=log-normal\n",
    diagnose: "Examples:\n"
    "  lrposterior diagnose session.npz --rank 2 --observe count --nonlinearity softplus\n"
    "  lrposterior diagnose fit.nc --validation fit.validation.npz\n",
    degeneracy: "Example:\n  lrposterior degeneracy fit.nc --threshold 1.0 --figure spectrum.png\n",
    rank: "Example:\n"
    "  lrposterior rank fit.nc --candidates single --power 1.0 --by certainty --top 10 --output ranking.csv\n",
    report: "Example:\n"
    "  lrposterior report fit.nc report.html --validation fit.validation.npz --activity-unit spikes/s\n",
    sweep: "Example:\n  lrposterior sweep --example > plan.toml\n  lrposterior sweep plan.toml --figure sweep.png\n",
    demo: "Example:\n  lrposterior demo --output demo\n",
}

app = typer.Typer(
    name="lrposterior",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command, examples in COMMANDS.items():
    app.command(epilog=f"\b\n{examples}")(command)


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


def _fail(message: str) -> NoReturn:
    print(f"lrposterior: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(USER_ERROR)


def _is_fit_error(error: Exception) -> bool:
    from lrposterior import FitError

    return isinstance(error, FitError)
