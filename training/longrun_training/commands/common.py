"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The model's longrun.toml. Default: the one in this folder, else what the defaults are.")
]
SpoolFolder = Annotated[
    Path,
    typer.Option(
        "--spool", metavar="DIR", envvar="LONGRUN_SPOOL", show_default=False, help="Where runs wait for a server that is away. Default: .longrun/spool."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]

SPOOL = Path(".longrun/spool")
