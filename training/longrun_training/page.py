"""The report as one HTML file: no other file, no script, nothing from the net; on a phone and in the dark as well."""

import math
from base64 import b64encode
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from longrun_training import wording
from longrun_training.contents import Contents
from longrun_training.judgement import Comparison, Verdict
from longrun_training.markdown import is_web
from longrun_training.wording import Row

# The drawing of a difference, in its own units: from 0 to 2 * MIDDLE, with 0 in the middle.
MIDDLE, REACH = 100.0, 92.0
TONES = {Verdict.PASS: "good", Verdict.FAIL: "bad", Verdict.INCONCLUSIVE: "unsure", Verdict.NOT_JUDGED: "still", Verdict.NO_BASELINE: "new"}


@dataclass(frozen=True)
class Whisker:
    """A difference and its interval as a drawing.

    Attributes:
        low: Where the interval begins, in the drawing's units.
        high: Where it ends.
        point: The difference.
        limit: The margin's end: left of it the gate does not accept; None where nothing is judged.
    """

    low: float
    high: float
    point: float
    limit: float | None


@dataclass(frozen=True)
class Table:
    """A table of comparisons, with the drawing of each."""

    title: str
    lines: list[tuple[Row, Whisker | None, str]]


def whisker(comparison: Comparison) -> Whisker | None:
    """Return the drawing of a difference; None where there is none."""
    difference, margin = comparison.difference, comparison.margin
    if difference is None or not math.isfinite(difference):
        return None
    low = difference if comparison.low is None else comparison.low
    high = difference if comparison.high is None else comparison.high
    ends = [abs(value) for value in (difference, low, high, margin or 0.0) if math.isfinite(value)]
    scale = max(ends) * 1.1 or 1.0

    def place(value: float) -> float:
        return round(MIDDLE + REACH * min(max(value / scale, -1.0), 1.0), 1)

    return Whisker(place(low), place(high), place(difference), None if margin is None else place(-margin))


def _table(title: str, comparisons: list[Comparison], unit: str | None) -> Table:
    return Table(title, [(row, whisker(row.comparison), TONES[row.comparison.verdict]) for row in wording.rows(comparisons, unit)])


def _tables(contents: Contents) -> list[Table]:
    judgement = contents.judgement
    slices = [comparison for comparison in judgement.comparisons if comparison.kind == "slice"]
    whole = [comparison for comparison in judgement.comparisons if comparison.kind != "slice"]
    found = [("Metrics", whole), ("Slices", slices), ("Against the pinned reference", [*judgement.reference_comparisons])]
    return [_table(title, comparisons, contents.unit) for title, comparisons in found if comparisons]


def render(contents: Contents, pictures: tuple[bytes, bytes] | None = None) -> str:
    """Return the page.

    Args:
        contents: What it says.
        pictures: The trend as PNG, for light and for dark screens.
    """
    environment = Environment(
        loader=PackageLoader("longrun_training"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["plain"] = wording.plain
    environment.tests["web"] = is_web
    judgement = contents.judgement
    sign, verdict = wording.headline(judgement)
    override = wording.override_note(judgement)
    return environment.get_template("report.html").render(
        contents=contents,
        judgement=judgement,
        sign=sign,
        verdict=verdict,
        tone="accepted" if wording.accepted(judgement) else TONES[judgement.verdict],
        status_note=wording.status_note(judgement),
        overrides=[*([override] if override else []), *wording.standing_notes(judgement)],
        baseline_note=wording.baseline_note(judgement),
        compared=wording.compared(contents),
        tables=_tables(contents),
        rules=[wording.rule_row(rule, contents.unit) for rule in sorted(judgement.rules, key=lambda rule: rule.kept)],
        missing=wording.missing(judgement),
        methods=wording.methods(judgement),
        judged_at=wording.when(wording.moment(judgement.judged_at)),
        pictures=[b64encode(picture).decode() for picture in pictures] if pictures else None,
    )
