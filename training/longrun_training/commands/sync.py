"""`longrun sync`: send the runs that wait in the spool."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from longrun_training import terminal
from longrun_training.commands.common import SPOOL, AsJson, SpoolFolder

if TYPE_CHECKING:
    from longrun_training.sync import SyncResult

EPILOG = """[bold]Examples[/]

    longrun sync

    longrun sync --spool /var/spool/longrun --json | jq .sent[].url

[dim]Exit status: 0 every run was sent (or none waits), 3 the server is away, 4 a run could not be sent (a line says why).
What was sent is read back and compared before it leaves the spool. A run that is being recorded is left alone.[/]"""

SENT, AWAY, STAYED = 0, 3, 4


def sync(
    spool: SpoolFolder = SPOOL,
    *,
    any_server: Annotated[bool, typer.Option("--any-server", help="Send runs as well that were recorded for another server.")] = False,
    as_json: AsJson = False,
) -> int:
    """Send the runs that were made while the server was away, with their times, and remove them here once they were read back."""
    with terminal.waiting("starting"), terminal.quiet():
        # Imported here: MLflow takes seconds, and --help does not need it.
        from longrun_training.server import Server  # noqa: PLC0415
        from longrun_training.sync import sync as send  # noqa: PLC0415
    server = Server.from_environment()
    with terminal.waiting(f"sending to {server.address}"), terminal.quiet():
        result = send(spool, server, lambda name: terminal.note(f"sending {name}"), any_server=any_server)
    if as_json:
        print(json.dumps(asdict(result)))
    _show(result)
    if result.outage:
        return AWAY
    return STAYED if any(not stays.busy for stays in result.left) else SENT


def _show(result: "SyncResult") -> None:
    for run in result.sent:
        made = f", version {run.version} of {run.model}" if run.version else ""
        terminal.console.print(f"[green]✓[/] {escape(run.experiment)}, {run.status}{escape(made)}: {escape(run.url)}", soft_wrap=True)
    for stays in result.left:
        mark = "[dim]·[/]" if stays.busy else "[red]✗[/]"
        terminal.console.print(f"{mark} {escape(stays.folder)}: {escape(stays.reason)}", soft_wrap=True)
    if result.outage:
        terminal.fail(result.outage)
    elif not result.sent and not result.left:
        terminal.note("no run waits")
