"""The report as GitHub's Markdown: for the comment at a pull request, and for the job's summary.

Branch names, reasons, metrics and slices come from whoever opened the pull request. Names are shown as code, in which nothing is a link,
a mention or a reference; sentences are escaped. Neither can leave its cell, its line or its element.
"""

import html
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from urllib.parse import quote, urlsplit

from longrun_training import wording
from longrun_training.contents import Contents
from longrun_training.judgement import Comparison, Verdict
from longrun_training.trend import CHAMPION, REFERENCE, mermaid
from longrun_training.wording import Cell, Piece, RuleRow, plain

LIMIT = 65_000
# How many rows of each table and list are tried, from all to none, until the report is short enough.
ROWS = (100_000, 300, 100, 50, 25, 10, 5, 2, 0)
# What Markdown reads as something else than itself.
SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
# The same, but only at the beginning of a line: a heading, a list, a rule.
LEADING = re.compile(r"^(\d{1,9}(?=[.)](?:\s|$))|)(?=[.)#+=-])")
# What GitHub turns into links and mentions after Markdown is done, so that no escape helps: an invisible character breaks it up.
BROKEN_UP = ((re.compile(r"@(?=\w)"), "@\u200b"), (re.compile(r"#(?=\w)"), "#\u200b"), (re.compile(r"://"), ":\u200b//"))
WEB, ISSUE = re.compile(r"\bwww\.", re.IGNORECASE), re.compile(r"\bgh-(?=\d)", re.IGNORECASE)
MOST_OVERRIDES = 5
# What would end an HTML comment, or is not allowed in one.
NOT_IN_COMMENTS = re.compile(r"--|[<>%]")


def prose(text: str) -> str:
    """Return somebody's sentence as Markdown that shows it, and does nothing else."""
    line = WEB.sub(lambda found: f"{found[0][:-1]}\u200b.", plain(text))
    line = ISSUE.sub(lambda found: f"{found[0][:-1]}\u200b-", line)
    for pattern, replacement in BROKEN_UP:
        line = pattern.sub(replacement, line)
    escaped = SPECIAL.sub(r"\\\1", html.escape(line, quote=False))
    return LEADING.sub(r"\1\\", escaped)


def code(text: str, longest: int = wording.LONGEST_NAME) -> str:
    """Return somebody's name as a code span; a bar, which would end a table's cell even there, becomes a broken bar."""
    line = plain(text, longest).replace("|", "¦").replace("<!--", "<!\u200b--")
    if not line:
        return wording.NOTHING
    fence = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    air = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{fence}{air}{line}{air}{fence}"


def link(text: str, url: str | None) -> str:
    """Return Markdown with a link around it, where the address is one of the web."""
    if url is None or not is_web(url):
        return text
    return f"[{text}]({quote(url, safe=':/?#!$&*+,;=%~')})"


def is_web(url: str) -> bool:
    """Say whether an address leads to a web page and not to a script."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def safe_name(name: str) -> str:
    """Return a workflow's or a model's name as it may stand within an HTML comment: as it is, but for what would end that."""
    return NOT_IN_COMMENTS.sub(lambda found: "".join(f"%{ord(character):02X}" for character in found[0]), plain(name, wording.LONGEST_SENTENCE))


def marker(workflow: str, model: str) -> str:
    """Return the comment's first line: what the comment of a workflow and a model is found by."""
    return f"<!-- longrun: {safe_name(workflow)} {safe_name(model)} -->"


def _piece(piece: Piece) -> str:
    return link(code(piece.text) if piece.name else prose(piece.text) if piece.text.strip() else piece.text, piece.url)


def _cell(cell: Cell) -> str:
    # A piece's own blanks at its ends are meant; `prose` takes them away.
    parts = []
    for piece in cell:
        before, after = (" " if piece.text[:1] == " " else "", " " if piece.text[-1:] == " " else "")
        parts.append(_piece(piece) if piece.name else f"{before}{_piece(piece)}{after}")
    return "".join(parts).strip()


def _table(header: Sequence[str], alignment: str, lines: Iterable[Sequence[str]]) -> str:
    rules = {"l": ":--", "r": "--:", "c": ":-:"}
    rows = [header, [rules[letter] for letter in alignment], *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _more(count: int, what: str) -> list[str]:
    return [f"… and {count:,} more {what}."] if count > 0 else []


def _comparisons(comparisons: Sequence[Comparison], unit: str | None, most: int, scope: str) -> str:
    """Return the table, and below it why whatever did not pass did not."""
    shown, hidden = wording.rows(comparisons, unit, most), max(len(comparisons) - most, 0)
    if not shown:
        return "\n".join(_more(hidden, "rows"))
    table = _table(
        ["metric", scope, "baseline", "this run", "difference", "interval", "margin", "n", "verdict"],
        "llrrrcrrl",
        (
            [
                _cell(row.metric), _cell(row.scope), row.baseline, f"**{row.candidate}**", row.difference, row.interval or wording.NOTHING, row.margin,
                row.count, row.verdict,
            ]
            for row in shown
        ),
    )  # fmt: skip
    reasons = [
        f"- {row.sign} {_cell(row.metric)} on {_cell(row.scope)}: {prose(row.comparison.reason)}"
        for row in shown
        if row.comparison.verdict is not Verdict.PASS and row.comparison.reason and row.verdict != wording.ONLY_SHOWN
    ]
    return "\n".join([table, *(["", *reasons] if reasons else []), *(["", *more] if (more := _more(hidden, "rows")) else [])])


def _details(summary: str, body: str, *, opened: bool = False) -> str:
    return f"<details{' open' if opened else ''}>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def _head(contents: Contents) -> list[str]:
    judgement = contents.judgement
    sign, verdict = wording.headline(judgement)
    blocks = [f"## {sign} {code(judgement.model)} {prose(verdict)}", f"**{prose(judgement.reason) or wording.NOTHING}**"]
    note = wording.status_note(judgement)
    blocks += [prose(note)] if note else []
    override = wording.override_note(judgement)
    overrides = [*([override] if override else []), *wording.standing_notes(judgement)]
    if overrides:
        blocks.append("> [!WARNING]\n> " + "\n>\n> ".join(prose(sentence) for sentence in overrides[:MOST_OVERRIDES]))
    if judgement.candidate is None:
        blocks.append("> [!NOTE]\n> The run waits in the spool of the machine that trained it: `longrun sync` sends it, then `longrun gate` can judge it.")
    return blocks


def _runs(contents: Contents) -> list[str]:
    compared = wording.compared(contents)
    blocks = []
    if compared:
        lines = ([f"**{role}**", *(_cell(cell) for cell in cells)] for role, cells in compared)
        blocks.append(_table(["", "run", "commit", "branch", "finished"], "lllll", lines))
    note = wording.baseline_note(contents.judgement)
    blocks += [prose(note)] if note else []
    if contents.judgement.stale:
        blocks.append(f"⚠️ Stale: {prose(contents.judgement.stale)}")
    return blocks


def _kept(row: RuleRow) -> str:
    return f"{row.sign} kept" if row.rule.kept else f"{row.sign} broken: {prose(row.rule.reason)}"


def _judged(contents: Contents, most: int) -> list[str]:
    judgement, unit = contents.judgement, contents.unit
    whole = [comparison for comparison in judgement.comparisons if comparison.kind != "slice"]
    slices = [comparison for comparison in judgement.comparisons if comparison.kind == "slice"]
    blocks = []
    if whole:
        blocks += ["### Metrics", _comparisons(whole, unit, most, "on"), "<sub>A difference above 0 is better, whichever way the metric counts.</sub>"]
    if judgement.rules:
        cells = [
            [_cell(row.name), prose(row.value), prose(row.limit), _kept(row)]
            for row in (wording.rule_row(rule, unit) for rule in sorted(judgement.rules, key=lambda rule: rule.kept))
        ]
        more = [f"\n{line}" for line in _more(len(cells) - most, "rules")]
        blocks += ["### Rules", "\n".join([_table(["rule", "measured", "accepted", "verdict"], "lrrl", cells[:most]), *more])]
    missing = wording.missing(judgement)
    if missing:
        lines = [*(prose(sentence) for sentence in missing[:most]), *_more(len(missing) - most, "things")]
        blocks += ["### Not compared", "\n".join(f"- {line}" for line in lines)]
    if slices:
        failed = any(comparison.verdict is Verdict.FAIL for comparison in slices)
        blocks.append(_details(f"Slices: {wording.tally(slices)}", _comparisons(slices, unit, most, "slice"), opened=failed))
    if judgement.reference_comparisons:
        found = judgement.reference_comparisons
        failed = any(comparison.verdict is Verdict.FAIL for comparison in found)
        blocks.append(_details(f"Against the pinned reference: {wording.tally(found)}", _comparisons(found, unit, most, "on"), opened=failed))
    return blocks


def _trend(contents: Contents) -> list[str]:
    if contents.trend is None:
        return [f"### Trend\n\n{prose(contents.no_trend)}"] if contents.no_trend else []
    trend, chart = contents.trend, mermaid(contents.trend)
    if chart is None:
        return []
    lines = ["the line is the runs", "the bar is this run"] if trend.candidate else ["the line is the runs"]
    lines += ["the red level is the worst that is accepted"] if trend.series[0].limit is not None else []
    lines += [f"{CHAMPION} is the champion"] if trend.champion in trend.points else []
    lines += [f"{REFERENCE} is the reference"] if trend.reference in trend.points else []
    caption = "; ".join(lines)
    return ["### Trend", f"```mermaid\n{chart}\n```", f"<sub>The last {len(trend.points)} judged runs on {code(trend.branch)}: {caption}.</sub>"]


def _foot(contents: Contents, *, cut: bool) -> list[str]:
    judgement = contents.judgement
    whole = f"the {link('whole report', contents.stored)}" if contents.stored else "the whole report is `report.html` beside this one"
    parts = [wording.methods(judgement), f"Judged {prose(wording.when(wording.moment(judgement.judged_at)))}; {whole}."]
    notice = [f"✂️ **This report was cut to fit**: {whole}."] if cut else []
    return [*notice, f"<sub>{' '.join(part for part in parts if part)}</sub>"]


def _write(contents: Contents, most: int, *, cut: bool) -> str:
    blocks = [*_head(contents), *_runs(contents), *_judged(contents, most), *_trend(contents), *_foot(contents, cut=cut)]
    return "\n".join([marker(contents.workflow, contents.judgement.model), "\n\n".join(blocks), ""])


def render(contents: Contents, limit: int = LIMIT) -> str:
    """Return the report, shorter than the limit: rows are left out first, those that passed before those that did not, then the trend, then the end.

    Args:
        contents: What it says.
        limit: In characters; GitHub takes 65,536 for a comment.
    """
    tries: list[Callable[[], str]] = [lambda most=most: _write(contents, most, cut=most != ROWS[0]) for most in ROWS]  # type: ignore[misc]
    bare = replace(contents, trend=None, no_trend=None)
    tries.append(lambda: _write(bare, 0, cut=True))
    text = ""
    for attempt in tries:
        text = attempt()
        if len(text) <= limit:
            return text
    # What is left has a bounded length: only a tiny limit gets here. A cut between blocks leaves no table and no element open.
    kept = text[:limit].rpartition("\n\n")[0]
    if kept.count("<details") > kept.count("</details>"):
        kept = kept[: kept.rindex("<details")]
    return f"{kept.rstrip()}\n"
