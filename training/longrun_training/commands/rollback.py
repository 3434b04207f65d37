"""`longrun rollback`: the champion before is champion again."""

from typing import Annotated

import typer

from longrun_training import terminal
from longrun_training.commands.common import AsJson, ConfigFile
from longrun_training.commands.promote import Who, show

EPILOG = """[bold]Examples[/]

    longrun rollback

    longrun rollback --reason "wrong in the north" --json

[dim]Exit status: 0 rolled back; 3 the server is away; 4 a problem or a wrong call (one line says which).[/]"""


def rollback(
    config: ConfigFile = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept in the history.")] = None,
    who: Who = None,
    *,
    as_json: AsJson = False,
) -> int:
    """Move the alias `champion` back to the version that had it before; again, and it goes one further back."""
    with terminal.waiting("rolling back"), terminal.quiet():
        # Imported here: MLflow takes seconds, and --help needs none of it.
        from longrun_training import promotion  # noqa: PLC0415
        from longrun_training.commands.registry import registry  # noqa: PLC0415

        with registry(config) as (place, _):
            move = promotion.rollback(place, why=reason or "", who=who or promotion.default_who())
    show(place.model, move, as_json=as_json)
    return 0
