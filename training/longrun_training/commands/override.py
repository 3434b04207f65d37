"""`longrun override`: accept a version although its gate did not pass."""

import json
from typing import Annotated

import typer
from rich.markup import escape

from longrun_training import terminal
from longrun_training.commands.common import AsJson, ConfigFile
from longrun_training.commands.promote import RunOption, VersionOption, Who

EPILOG = """[bold]Examples[/]

    longrun override --version 12 --reason "the old data had a fault; see the log" --days 7

    longrun override --run 3f2a…e1 --reason "known, fixed in the next release"

    longrun override --version 12 --withdraw

[dim]Exit status: 0 accepted or withdrawn; 3 the server is away; 4 a problem or a wrong call (one line says which).[/]"""

DAYS = 14.0


def override(  # noqa: PLR0913 - one argument an option
    config: ConfigFile = None,
    version: VersionOption = None,
    run: RunOption = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why it is accepted; every report shows it while it lasts.")] = None,
    days: Annotated[float | None, typer.Option(metavar="D", help="How long it lasts. Default: 14; at most 365.")] = None,
    who: Who = None,
    *,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take it back: the gate's own verdict counts again.")] = False,
    as_json: AsJson = False,
) -> int:
    """Accept a version that its gate did not pass, for some days: its verdict stays, its exit status becomes 0.

    It counts for a further run of the same commit too, lets `longrun promote` take the version, and every report shows it.
    """
    from longrun_training.errors import ProblemError  # noqa: PLC0415 - beside the other imports

    if withdraw and (reason is not None or days is not None):
        message = "--withdraw takes no --reason and no --days: leave them out"
        raise ProblemError(message)
    if not withdraw and reason is None:
        message = "an override needs a reason: add --reason TEXT"
        raise ProblemError(message)
    with terminal.waiting("writing the override"), terminal.quiet():
        # Imported here: MLflow takes seconds, and --help needs none of it.
        from longrun_training import promotion  # noqa: PLC0415
        from longrun_training.commands.registry import registry  # noqa: PLC0415

        with registry(config) as (place, _):
            if withdraw:
                chosen, accepted = promotion.withdraw(place, version=version, run=run), None
            else:
                chosen, accepted = promotion.override(
                    place, version=version, run=run, reason=reason or "", who=who or promotion.default_who(), days=DAYS if days is None else days
                )
    if as_json:
        found = {"model": place.model, "version": str(chosen.version), "override": accepted.model_dump() if accepted else None}
        print(json.dumps(found, ensure_ascii=False))
        return 0
    name = f"version [bold]{chosen.version}[/] of [bold]{escape(place.model)}[/]"
    if accepted is None:
        terminal.console.print(f"[green]✓[/] {name}: the override is withdrawn, its gate's own verdict counts again", soft_wrap=True)
        return 0
    terminal.console.print(f"[green]✓[/] {name} is accepted until {accepted.expires}", soft_wrap=True)
    terminal.console.print(f"  [dim]by {escape(accepted.who)}: {escape(accepted.reason)}[/]", soft_wrap=True)
    return 0
