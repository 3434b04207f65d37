"""`longrun reap`: end the runs that a killed job left open."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from longrun_training import terminal
from longrun_training.commands.common import AsJson
from longrun_training.errors import ProblemError

if TYPE_CHECKING:
    from longrun_training.reap import Reaped

EPILOG = """[bold]Examples[/]

    longrun reap --experiment diabetes

    longrun reap --all --silence 120 --dry-run

    longrun reap --all --json | jq length

[dim]Exit status: 0 done, 3 the server is away, 4 a problem or a wrong call. A run that lives renews its sign of life every 30 seconds:
silent runs are watched for that long before they are ended.[/]"""

SILENCE_MINUTES, WATCH_SECONDS = 60.0, 45.0


def reap(  # noqa: PLR0913 - one argument an option
    experiment: Annotated[list[str] | None, typer.Option("--experiment", metavar="NAME", help="Where to look; may be given several times.")] = None,
    silence: Annotated[float, typer.Option("--silence", metavar="MINUTES", min=1, help="How long a run may give no sign of life.")] = SILENCE_MINUTES,
    watch: Annotated[float, typer.Option("--watch", metavar="SECONDS", min=0, help="How long a silent run is watched before it is ended.")] = WATCH_SECONDS,
    *,
    everywhere: Annotated[bool, typer.Option("--all", help="Look into every experiment that we may see.")] = False,
    all_clients: Annotated[bool, typer.Option("--all-clients", help="End runs as well that longrun did not make; those give no heartbeat.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which runs would be ended.")] = False,
    as_json: AsJson = False,
) -> int:
    """Mark runs KILLED that are still RUNNING although nothing was heard of them for long; a live run is never touched."""
    if bool(experiment) == everywhere:
        message = "name the experiments with --experiment NAME, or take --all; one of the two"
        raise ProblemError(message)
    with terminal.waiting("starting"), terminal.quiet():
        # Imported here: MLflow takes seconds, and --help does not need it.
        from longrun_training.reap import reap as end  # noqa: PLC0415
        from longrun_training.server import Server  # noqa: PLC0415
    server = Server.from_environment()
    names = experiment or None
    with terminal.waiting("looking for silent runs"), terminal.quiet():
        ended = end(server, names, silence_minutes=silence, watch_seconds=watch, dry_run=dry_run, all_clients=all_clients)
    if as_json:
        print(json.dumps([asdict(run) for run in ended]))
    _show(ended, dry_run=dry_run)
    return 0


def _show(ended: "list[Reaped]", *, dry_run: bool) -> None:
    for run in ended:
        done = "would become KILLED" if dry_run else "is KILLED"
        terminal.console.print(
            f"[green]✓[/] {escape(run.experiment)}: silent for {run.silent_minutes} min, {done}: {escape(run.url)}", highlight=False, soft_wrap=True
        )
    if not ended:
        terminal.note("no silent run")
