"""The command line: one command a verb."""

import json
import math
import os
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from longrun_training import terminal
from longrun_training.errors import ProblemError, StoppedError

if TYPE_CHECKING:
    from longrun_training.train import Result

# Exit statuses: a problem that a person can put right; Ctrl-C and SIGTERM as shells give them.
PROBLEM, SIGNALLED = 1, 128
# What MLflow's client does unasked: it prints links, draws bars of its own, and reports its use to its makers.
UNASKED = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}

# Set, it shows where a bug is.
TRACEBACK = "LONGRUN_TRACEBACK"

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.callback()
def longrun() -> None:
    """Train models against an MLflow tracking server.

    The server is the one that MLFLOW_TRACKING_URI, _USERNAME, _PASSWORD and _SERVER_CERT_PATH name: eval "$(make -s env)" sets them.
    """


@app.command(
    epilog="""[bold]Examples[/]

    longrun train

    longrun train --data houses.csv --target price --folds 10

    longrun train --data houses.parquet --target price --experiment housing --model house-prices --seed 7

    longrun train --json | jq .metrics.holdout_rmse

    [dim]Exit status: 0 trained, 1 a problem (one line says which), 2 wrong usage, 130 interrupted.[/]"""
)
def train(  # noqa: PLR0913, PLR0917 - one argument an option
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV (commas, UTF-8, header line) or Parquet. Default: scikit-learn's diabetes data.")
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column to predict; the others are features. All must be numbers.")] = None,
    experiment: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the file's name without extension, or `diabetes`.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The registered model to add a version to. Default: the experiment's name.")] = None,
    estimators: Annotated[int, typer.Option(metavar="N", min=1, help="Trees in the forest.")] = 200,
    max_depth: Annotated[int, typer.Option(metavar="N", min=1, help="Levels of each tree; they bound the size of the model.")] = 12,
    folds: Annotated[int, typer.Option(metavar="N", min=2, help="Parts of the cross-validation.")] = 5,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="How often the rows are cut into parts anew.")] = 3,
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Same seed and data, same model.")] = 0,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Train a random forest, cross-validate it, and register it as a new version of a model."""
    with terminal.waiting("starting"), terminal.quiet():
        os.environ.update({name: value for name, value in UNASKED.items() if name not in os.environ})
        # Imported here: MLflow and scikit-learn take seconds, and --help needs neither.
        from longrun_training.model import Settings  # noqa: PLC0415
        from longrun_training.train import train as run_training  # noqa: PLC0415
    with terminal.quiet():
        settings = Settings(estimators, max_depth, folds, repeats, seed)
        result = run_training(data=data, target=target, experiment=experiment, model=model, settings=settings)
    if as_json:
        print(json.dumps(asdict(result)))
    else:
        _show(result)


def _show(result: "Result") -> None:
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    for column in ("", "cross-validation", "hold-out"):
        table.add_column(column, justify="right" if column else "left", header_style="dim")
    for name, title in (("rmse", "RMSE"), ("mae", "MAE"), ("r2", "R²")):
        mean, deviation, holdout = (result.metrics[key] for key in (f"cv_{name}_mean", f"cv_{name}_std", f"holdout_{name}"))
        # Two digits of the deviation say how many digits of the mean mean something.
        decimals = max(0, 1 - math.floor(math.log10(deviation))) if deviation > 0 else 4
        table.add_row(title, f"{mean:.{decimals}f} ± {deviation:.{decimals}f}", f"[bold]{holdout:.{decimals}f}[/]")
    terminal.console.print()
    terminal.console.print(table)
    terminal.console.print()
    terminal.console.print(f"model  [bold]{escape(result.model_name)}[/], version [bold]{result.model_version}[/]", soft_wrap=True)
    terminal.console.print(f"run    {escape(result.run_url)}", soft_wrap=True)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise StoppedError(number)


def main() -> None:
    """Run the command line; a person's error is one line and status 1, and a traceback is shown only to who asks for it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app()
    except ProblemError as error:
        terminal.fail(str(error))
        sys.exit(PROBLEM)
    except StoppedError as stop:
        notes = getattr(stop, "__notes__", [])
        terminal.fail(f"interrupted: {notes[0]}" if notes else "interrupted before a run began")
        sys.exit(SIGNALLED + stop.number)
    except Exception as error:  # noqa: BLE001 - a traceback is a bug, so none is shown
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        happened = " ".join(f"{type(error).__name__}: {error}".split())
        terminal.fail("; ".join([f"a bug in longrun: {happened}", *getattr(error, "__notes__", []), f"{TRACEBACK}=1 shows where"]))
        sys.exit(PROBLEM)


if __name__ == "__main__":
    main()
