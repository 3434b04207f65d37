"""`longrun train`: train the configured model, and record the run."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from longrun_training import terminal
from longrun_training.commands.common import SPOOL, AsJson, ConfigFile, SpoolFolder

if TYPE_CHECKING:
    from longrun_training.sweep import Sweep
    from longrun_training.train import Result

EPILOG = """[bold]Examples[/]

    longrun train

    longrun train --config models/houses/longrun.toml

    longrun train --data houses.csv --target price --folds 10

    longrun train --data sklearn:iris --estimator LogisticRegression --set estimator.scale=true

    longrun train --set estimator.parameters.n_estimators=50 --set data.group=street --seed 7

    longrun train --sweep --jobs 4

    longrun train --sweep --set "sweep.parameters.max_depth=[4, 8]" --dask tcp://cluster:8786

    longrun train --json | jq .metrics.holdout_rmse

[dim]Exit status: 0 trained (also where the server is away: the run then waits for `longrun sync`), 4 a problem or a wrong call (one line says which),
130 interrupted, 143 terminated.[/]"""


def train(  # noqa: PLR0913, PLR0917 - one argument an option
    config: ConfigFile = None,
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="CSV (commas, UTF-8, header line), Parquet, or sklearn:NAME. Default: scikit-learn's diabetes data.")
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column to predict; the others are features, which must be numbers.")] = None,
    estimator: Annotated[str | None, typer.Option(metavar="NAME", help="A classifier or regressor of scikit-learn. Default: RandomForestRegressor.")] = None,
    experiment: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the model's name.")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The registered model to add a version to. Default: the file's name without extension, or `diabetes`.")
    ] = None,
    folds: Annotated[int | None, typer.Option(metavar="N", help="Parts of the cross-validation. Default: 5.")] = None,
    repeats: Annotated[int | None, typer.Option(metavar="N", help="How often the rows are cut into parts anew. Default: 3.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Same seed and data, same model. Default: 0.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of longrun.toml; may be given several times.")] = None,
    jobs: Annotated[int | None, typer.Option(metavar="N", min=1, help="With --sweep: processes at once. Default: one a processor.")] = None,
    dask: Annotated[str | None, typer.Option(metavar="ADDRESS", help="With --sweep: measure on the Dask cluster of this scheduler, tcp://host:8786.")] = None,
    spool: SpoolFolder = SPOOL,
    *,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Try every combination of the parameters in \\[sweep], each as a child run, and train the best.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Train a model, cross-validate it, and register it as a new version.

    What is not said here is in longrun.toml; where there is none, a random forest learns from scikit-learn's diabetes data.
    """
    _check_sweep(jobs, dask, sweep=sweep)
    options: dict[str, object] = {"model.name": model, "model.experiment": experiment, "estimator.name": estimator}
    options |= {"evaluation.folds": folds, "evaluation.repeats": repeats, "evaluation.seed": seed}
    with terminal.waiting("starting"), terminal.quiet():
        # Imported here: MLflow and scikit-learn take seconds, and --help needs neither.
        from longrun_training.config import load, parse_change  # noqa: PLC0415

        given = {key: value for key, value in options.items() if value is not None}
        configuration = load(config, _data(config, data, target) | given | dict(parse_change(change) for change in changes or []))
        from longrun_training.tracking import Server, calm  # noqa: PLC0415
        from longrun_training.train import prepare  # noqa: PLC0415
        from longrun_training.train import train as run_training  # noqa: PLC0415
    found: Sweep | None = None
    with terminal.quiet(), calm():
        with terminal.waiting("reading the data"):
            dataset = prepare(configuration)
        server = Server.from_environment()
        if sweep:
            from longrun_training.sweep import sweep as run_sweep  # noqa: PLC0415

            found = run_sweep(configuration, dataset, spool=spool, server=server, jobs=jobs, cluster=dask)
        result = found.result if found else run_training(configuration, dataset, spool=spool, server=server)
    if as_json:
        print(json.dumps(found.summary if found else result.summary))
    else:
        _show(result)
    return 0


def _check_sweep(jobs: int | None, dask: str | None, *, sweep: bool) -> None:
    from longrun_training.errors import ProblemError  # noqa: PLC0415 - beside the other imports

    if not sweep and (jobs is not None or dask is not None):
        message = f"{'--dask' if dask is not None else '--jobs'} belongs to --sweep: write longrun train --sweep"
        raise ProblemError(message)
    if jobs is not None and dask is not None:
        message = "--jobs is for this machine and --dask for a cluster, which knows its own workers: leave out one of them"
        raise ProblemError(message)


def _data(config: Path | None, data: str | None, target: str | None) -> dict[str, object]:
    """Return what --data and --target change: both together are another table, so that nothing said of the file's own columns stays."""
    from longrun_training.config import FILE_NAME  # noqa: PLC0415
    from longrun_training.errors import ProblemError  # noqa: PLC0415

    if data is not None and target is not None:
        return {"data": {"source": data, "target": target}}
    if target is not None and config is None and not Path(FILE_NAME).is_file():
        message = f"--target {target} needs --data FILE: the table that has this column"
        raise ProblemError(message)
    if data is not None and data.startswith("sklearn:"):
        return {"data": {"source": data}}
    return {} if data is None and target is None else {"data.source": data} if data is not None else {"data.target": target}


def _show(result: "Result") -> None:
    from longrun_training.scores import METRICS  # noqa: PLC0415

    table = Table(box=None, padding=(0, 2), pad_edge=False)
    for column in ("", "cross-validation", "hold-out"):
        table.add_column(column, justify="right" if column else "left", header_style="dim")
    for name, kind in METRICS.items():
        if f"holdout_{name}" not in result.metrics:
            continue
        mean, deviation, holdout = (result.metrics[key] for key in (f"cv_{name}_mean", f"cv_{name}_std", f"holdout_{name}"))
        # Two digits of the deviation say how many digits of the mean mean something.
        decimals = max(0, 1 - math.floor(math.log10(deviation))) if math.isfinite(deviation) and deviation > 0 else 4
        table.add_row(kind.title, f"{mean:.{decimals}f} ± {deviation:.{decimals}f}", f"[bold]{holdout:.{decimals}f}[/]")
    terminal.console.print()
    terminal.console.print(table)
    terminal.console.print()
    version = f", version [bold]{result.model_version}[/]" if result.model_version else ""
    terminal.console.print(f"model  [bold]{escape(result.model_name)}[/]{version}", soft_wrap=True)
    if result.spooled:
        terminal.console.print(f"spool  {escape(result.spooled)}: `longrun sync` sends the run once the server answers", soft_wrap=True)
    if result.run_url:
        terminal.console.print(f"run    {escape(result.run_url)}", soft_wrap=True)
