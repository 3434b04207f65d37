"""`longrun report`: what the gate found, for people."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from longrun_training import terminal
from longrun_training.commands.common import AsJson, ConfigFile

if TYPE_CHECKING:
    from longrun_training.report import Written

EPILOG = """[bold]Examples[/]

    longrun report

    longrun report --gate gate.json --output report --json

    longrun report && xdg-open .longrun/report/report.html

[dim]Exit status: 0 the report is written, whatever the verdict, also while the server is away; 4 no gate.json, or a wrong call (one line says which).[/]"""

GATE, OUTPUT, LIMIT, SHORTEST = Path(".longrun/gate.json"), Path(".longrun/report"), 65_000, 2_000
SUMMARY = "GITHUB_STEP_SUMMARY"


def report(
    gate: Annotated[Path, typer.Option(metavar="FILE", help="What the gate found, as `longrun gate` wrote it.")] = GATE,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where report.md, report.html, trend.png and comment.json go.")] = OUTPUT,
    config: ConfigFile = None,
    limit: Annotated[int, typer.Option(metavar="N", min=SHORTEST, help="The most characters of report.md; GitHub takes 65,536 for a comment.")] = LIMIT,
    *,
    summary: Annotated[bool, typer.Option("--summary/--no-summary", help=f"Whether the job's summary ({SUMMARY}) gets the report.")] = True,
    as_json: AsJson = False,
) -> int:
    """Write the gate's result as Markdown for the pull request and as a page, with the trend of the main branch.

    Where the server answers, the trend comes from there, and the report is stored with the candidate's run.
    """
    with terminal.waiting("writing the report"), terminal.quiet():
        # Imported here: MLflow and matplotlib take seconds, and --help needs neither.
        from longrun_training import report as reports  # noqa: PLC0415
        from longrun_training.config import load  # noqa: PLC0415

        place = os.environ.get(SUMMARY, "") if summary else ""
        written = reports.report(load(config), gate=gate, output=output, limit=limit, summary=Path(place) if place else None)
    if as_json:
        print(json.dumps(_content(written), ensure_ascii=False))
    else:
        _show(written)
    return 0


def _content(written: "Written") -> dict[str, object]:
    return {
        "verdict": written.judgement.verdict.value,
        "markdown": str(written.markdown),
        "page": str(written.page),
        "trend": str(written.picture) if written.picture else None,
        "comment": str(written.comment),
        "no_trend": written.no_trend,
        "url": written.stored,
        "notes": list(written.notes),
    }


def _show(written: "Written") -> None:
    from longrun_training import wording  # noqa: PLC0415 - it is loaded already

    sign, verdict = wording.headline(written.judgement)
    terminal.console.print(f"{sign} [bold]{escape(wording.plain(written.judgement.model))}[/] {verdict}", soft_wrap=True)
    for note in (written.no_trend, *written.notes):
        if note:
            terminal.note(note)
    for name, path in (("page", written.page), ("text", written.markdown), ("trend", written.picture)):
        if path is not None:
            terminal.console.print(f"{name:5}  {escape(str(path))}", soft_wrap=True)
    if written.stored:
        terminal.console.print(f"there  {escape(written.stored)}", soft_wrap=True)
