"""`longrun gate`: judge a candidate, or measure what the margins should be."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from longrun_training import terminal
from longrun_training.commands.common import SPOOL, AsJson, ConfigFile, SpoolFolder

if TYPE_CHECKING:
    from longrun_training.calibration import Calibration
    from longrun_training.config import Configuration
    from longrun_training.judgement import Comparison, Judgement, RunReference

EPILOG = """[bold]Examples[/]

    longrun gate

    longrun gate --candidate 3f2a…e1 --baseline champion

    longrun gate --inconclusive fail --json | jq -r .verdict

    longrun gate --calibrate --seeds 5

    longrun gate --calibrate --check

[dim]Exit status: 0 pass or no baseline, 1 fail, 2 inconclusive, 3 not judged (not comparable, or the server is away), 4 a problem or a wrong call.
With --check: 1 where the present margins fail one of two equal models.[/]"""

OUTPUT = Path(".longrun/gate.json")
COLOURS = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "not judged": "dim", "no baseline": "cyan"}
ARROWS = {"higher": "↑", "lower": "↓"}
SHORT = 8
# The columns that a comparison in one line takes.
WIDE = 140


def gate(  # noqa: PLR0913 - one argument an option
    config: ConfigFile = None,
    candidate: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="A run's id or uuid, a version or an alias. Default: the last run of this folder, else the alias `candidate`."),
    ] = None,
    baseline: Annotated[str | None, typer.Option(metavar="RUN", help="Likewise. Default: the run of the merge base, of an ancestor, or the champion.")] = None,
    inconclusive: Annotated[
        Literal["report", "pass", "fail"] | None,
        typer.Option(help="Whether an inconclusive verdict ends with 2, 0 or 1. Default: as in longrun.toml."),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where the judgement goes, as JSON.")] = OUTPUT,
    spool: SpoolFolder = SPOOL,
    *,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Train with other seeds, measure the noise, and propose margins.")] = False,
    seeds: Annotated[int | None, typer.Option(metavar="N", min=2, max=100, help="With --calibrate: how many seeds. Default: 5.")] = None,
    check: Annotated[bool, typer.Option("--check", help="With --calibrate: do the present margins fail any two equal models?")] = False,
    as_json: AsJson = False,
) -> int:
    """Compare the candidate with its baseline, metric by metric, and end with 0, 1, 2 or 3.

    The margins, floors, slices and the baseline's rule are in longrun.toml. The judgement goes into a file, and to the run on the server.
    """
    from longrun_training.errors import ProblemError  # noqa: PLC0415 - beside the other imports

    if not calibrate and (check or seeds is not None):
        message = f"{'--check' if check else '--seeds'} belongs to --calibrate: write longrun gate --calibrate"
        raise ProblemError(message)
    if calibrate and (candidate or baseline or inconclusive):
        message = "--calibrate judges no candidate: leave out --candidate, --baseline and --inconclusive"
        raise ProblemError(message)
    with terminal.waiting("starting"), terminal.quiet():
        # Imported here: MLflow and pandas take seconds, and --help needs neither.
        from longrun_training.config import load  # noqa: PLC0415

        configuration = load(config, {"gate.inconclusive": inconclusive} if inconclusive else {})
    if calibrate:
        return _calibrate(configuration, seeds=seeds, spool=spool, check=check, as_json=as_json)
    return _judge(configuration, candidate, baseline, output, spool, as_json=as_json)


def _judge(configuration: "Configuration", candidate: str | None, baseline: str | None, output: Path, spool: Path, *, as_json: bool) -> int:
    with terminal.waiting("comparing"), terminal.quiet():
        from longrun_training import gate_file  # noqa: PLC0415 - as above
        from longrun_training.gate import gate as judge  # noqa: PLC0415
        from longrun_training.server import Server, calm  # noqa: PLC0415

        with calm():
            judgement = judge(configuration, server=Server.from_environment(), spool=spool, output=output, candidate=candidate, named=baseline)
    if as_json:
        print(gate_file.to_json(judgement), end="")
    else:
        show(judgement, configuration)
        terminal.console.print(f"[dim]{escape(str(output))}[/]", soft_wrap=True)
    return judgement.exit_status


def show(judgement: "Judgement", configuration: "Configuration") -> None:
    """Print a judgement for people: what was compared, metric by metric, the rules, what was missing, and the verdict last."""
    from longrun_training import wording  # noqa: PLC0415 - as above

    unit = configuration.data.unit
    terminal.console.print()
    _show_runs(judgement)
    _show_comparisons(judgement.comparisons, "against the baseline", configuration)
    _show_comparisons(judgement.reference_comparisons, "against the reference", configuration)
    if judgement.rules:
        table = Table(box=None, padding=(0, 2), pad_edge=False, show_header=False)
        for rule in judgement.rules:
            row = wording.rule_row(rule, unit)
            sign = "[green]✓[/]" if rule.kept else "[red]✗[/]"
            value = row.value if rule.value is not None else rule.reason
            table.add_row(sign, escape(wording.words(row.name)), escape(value), f"[dim]{escape(row.limit)}[/]", "" if rule.kept else "[bold red]broken[/]")
        _block("rules", table)
    if judgement.missing:
        terminal.console.print("\n[bold]not compared[/]")
        for sentence in judgement.missing:
            terminal.note(sentence)
    notes = [note for note in (judgement.stale, *_overrides(judgement)) if note]
    if notes:
        terminal.console.print("\n[bold]worth knowing[/]")
        for sentence in notes:
            terminal.note(sentence)
    terminal.console.print()
    accepted = ", accepted by the override above" if judgement.override else ""
    status = wording.status_note(judgement)
    terminal.console.print(
        f"[{COLOURS[judgement.verdict]}]{judgement.verdict.upper()}[/]{accepted}: {escape(judgement.reason)}{f' [dim]{escape(status)}[/]' if status else ''}",
        soft_wrap=True,
    )


def _console() -> Console:
    """Return where tables go: a person's window is as wide as it is, a log as wide as it needs to be."""
    return terminal.console if terminal.console.is_terminal else Console(file=terminal.console.file, width=WIDE, highlight=False)


def _block(title: str, table: Table) -> None:
    terminal.console.print(f"\n[bold]{escape(title)}[/]", soft_wrap=True)
    _console().print(Padding(table, (0, 0, 0, 2), expand=False))


def _show_runs(judgement: "Judgement") -> None:
    from longrun_training import wording  # noqa: PLC0415 - as above

    found = wording.baseline_note(judgement)
    for name, run, note in (
        ("candidate", judgement.candidate, None),
        ("baseline", judgement.baseline, found),
        ("reference", judgement.reference, None),
    ):
        if run is not None:
            terminal.console.print(f"[bold]{name:9}[/]  {escape(_run(run))}", soft_wrap=True)
            if note:
                terminal.console.print(f"{'':9}  [dim]{escape(note)}[/]", soft_wrap=True)
    if judgement.candidate is not None and judgement.baseline is None:
        terminal.console.print("[bold]baseline [/]  [cyan]none[/]")


def _run(run: "RunReference") -> str:
    parts = [f"version {run.version}" if run.version else "", f"run {run.run_id[:SHORT]}", f"commit {run.commit[:SHORT]}" if run.commit else ""]
    parts += [f"branch {run.branch}" if run.branch else "", f"pull request {run.pull_request}" if run.pull_request else ""]
    return ", ".join(part for part in parts if part)


def _overrides(judgement: "Judgement") -> list[str]:
    from longrun_training import wording  # noqa: PLC0415 - as above

    own = wording.override_note(judgement)
    others = [
        f"version {standing.version} has an override until {standing.override.expires}, by {standing.override.who}: {standing.override.reason}"
        for standing in judgement.standing_overrides
        if standing.override != judgement.override
    ]
    return ([own] if own else []) + others


def _show_comparisons(comparisons: Sequence["Comparison"], title: str, configuration: "Configuration") -> None:
    if not comparisons:
        return
    _block(title, _comparison_table(comparisons, configuration, narrow=_console().width < WIDE))


def _comparison_table(comparisons: Iterable["Comparison"], configuration: "Configuration", *, narrow: bool) -> Table:
    """Return the comparisons as a table; in a narrow window the interval stands below the difference, the margin below the verdict."""
    from longrun_training import wording  # noqa: PLC0415 - as above

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    interval = f"{100 * configuration.gate.confidence:.6g} % interval"
    table.add_column("", no_wrap=True)
    for name in ("baseline", "candidate", *([f"difference\n{interval}"] if narrow else ["difference", interval, "margin"])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=12)
    scope = None
    for comparison in comparisons:
        row = wording.row(comparison, configuration.data.unit)
        if scope != (comparison.kind, comparison.scope):
            scope = (comparison.kind, comparison.scope)
            name = f"slice {comparison.scope}" if comparison.kind == "slice" else comparison.scope
            table.add_row(f"[italic]{escape(name)}[/][dim], {escape(row.count)}[/]")
        # The unit is in the report; here it would take the room of the numbers.
        metric = f"  {escape(wording.words(wording.metric_name(comparison.metric)))} [dim]{ARROWS[comparison.direction]}[/]"
        verdict = f"[{COLOURS[comparison.verdict]}]{comparison.verdict}[/]"
        if narrow:
            margin = f"\n[dim]margin {row.margin}[/]" if comparison.margin is not None else ""
            table.add_row(metric, row.baseline, row.candidate, f"{row.difference}\n[dim]{row.interval}[/]", f"{verdict}{margin}")
        else:
            table.add_row(metric, row.baseline, row.candidate, row.difference, row.interval, row.margin, f"{verdict}[dim]: {escape(comparison.reason)}[/]")
    return table


def _calibrate(configuration: "Configuration", *, seeds: int | None, spool: Path, check: bool, as_json: bool) -> int:
    import json  # noqa: PLC0415 - only here

    with terminal.waiting("starting"), terminal.quiet():
        from longrun_training import calibration  # noqa: PLC0415 - as above
        from longrun_training.server import Server, calm  # noqa: PLC0415
    with terminal.quiet(), calm():
        found = calibration.calibrate(configuration, server=Server.from_environment(), spool=spool, seeds=seeds or calibration.SEEDS, check=check)
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False, allow_nan=False))
    else:
        _show_calibration(found)
    return 1 if found.alarms else 0


def _show_calibration(found: "Calibration") -> None:
    terminal.console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    for name in ("mean", "between seeds ±", "margin now", "proposed"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, proposal in found.proposals.items():
        present = found.present.get(name)
        values = (f"{proposal.noise.mean:.4g}", f"{proposal.noise.deviation:.2g}", "–" if present is None else f"{present:g}", f"[bold]{proposal.margin:g}[/]")
        table.add_row(escape(name), *values)
    _block(f"noise of {len(found.runs)} equal models, seeds {', '.join(str(seed) for seed in found.seeds)}", table)
    for name, proposal in found.proposals.items():
        terminal.note(f"{name}: {proposal.remark}")
    if found.missing:
        terminal.console.print("\n[bold]not measured[/]")
        for sentence in found.missing:
            terminal.note(sentence)
    if found.checked is not None:
        terminal.console.print("\n[bold]equal models against each other, with the present margins[/]")
        for verdict, count in found.checked.items():
            terminal.note(f"{verdict}: {count} of {sum(found.checked.values())}")
        for alarm in found.alarms:
            terminal.note(alarm.sentence)
        word = f"[bold red]FALSE ALARM[/]: {len(found.alarms)} comparisons of equal models fail; widen the margins" if found.alarms else None
        terminal.console.print("\n" + (word or "[green]OK[/]: the present margins fail no two equal models"), soft_wrap=True)
        return
    # Written bare, so that it can be copied; to standard output, so that it can be appended.
    terminal.console.print("\n[bold]for longrun.toml[/], in the place of its [dim]\\[metrics.…][/] tables\n")
    print(found.toml, end="")
