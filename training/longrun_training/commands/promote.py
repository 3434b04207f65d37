"""`longrun promote`: make a version the champion."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from longrun_training import terminal
from longrun_training.commands.common import AsJson, ConfigFile

if TYPE_CHECKING:
    from longrun_training.promotion import Move

EPILOG = """[bold]Examples[/]

    longrun promote

    longrun promote --version 12 --reason "half the latency"

    longrun promote --run 3f2a…e1 --json

[dim]Exit status: 0 promoted, or champion already; 3 the server is away; 4 a problem or a wrong call (one line says which).[/]"""

VersionOption = Annotated[str | None, typer.Option("--version", metavar="N", help="A version's number, or an alias.")]
RunOption = Annotated[str | None, typer.Option("--run", metavar="RUN", help="The run that made the version: its id or uuid.")]
Who = Annotated[str | None, typer.Option(metavar="NAME", help="Who does it. Default: GITHUB_ACTOR, MLFLOW_TRACKING_USERNAME, or the user of this machine.")]


def promote(
    config: ConfigFile = None,
    version: VersionOption = None,
    run: RunOption = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept in the history.")] = None,
    who: Who = None,
    *,
    as_json: AsJson = False,
) -> int:
    """Move the alias `champion` to a version whose gate passed on the main branch, or that has an override.

    Default: the newest that passed. Who moved it and why is kept with the model.
    """
    with terminal.waiting("promoting"), terminal.quiet():
        # Imported here: MLflow takes seconds, and --help needs none of it.
        from longrun_training import promotion  # noqa: PLC0415
        from longrun_training.commands.registry import registry  # noqa: PLC0415

        with registry(config) as (place, configuration):
            done = promotion.promote(
                place, branch=configuration.baseline.branch, version=version, run=run, why=reason or "", who=who or promotion.default_who()
            )
    if isinstance(done, promotion.Move):
        show(place.model, done, as_json=as_json)
    elif as_json:
        print(json.dumps({"model": place.model, "champion": str(done.version), "moved": None}, ensure_ascii=False))
    else:
        terminal.console.print(f"version [bold]{done.version}[/] of {escape(place.model)} is the champion already: nothing to do", soft_wrap=True)
    return 0


def show(model: str, move: "Move", *, as_json: bool) -> None:
    """Print a move of the alias, for people or as JSON."""
    if as_json:
        print(json.dumps({"model": model, "champion": move.after, "moved": asdict(move)}, ensure_ascii=False))
        return
    before = f"version {move.before}" if move.before else "none"
    terminal.console.print(f"[green]✓[/] champion of [bold]{escape(model)}[/]: {before} → [bold]version {move.after}[/]", soft_wrap=True)
    terminal.console.print(f"  [dim]by {escape(move.who)}: {escape(move.why)}[/]", soft_wrap=True)
