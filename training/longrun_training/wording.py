"""How a report says things: verdicts in words, numbers with as many digits as they deserve, and whose text is not ours."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from longrun_training.judgement import Comparison, Judgement, Override, Rule, RunReference, Verdict
from longrun_training.scores import METRICS

if TYPE_CHECKING:
    from longrun_training.contents import Contents

SIGNS = {Verdict.PASS: "✅", Verdict.FAIL: "❌", Verdict.INCONCLUSIVE: "⚠️", Verdict.NOT_JUDGED: "⏸️", Verdict.NO_BASELINE: "🆕"}
MEANINGS = {
    Verdict.PASS: "no worse than the baseline",
    Verdict.FAIL: "worse than is accepted",
    Verdict.INCONCLUSIVE: "too uncertain to tell",
    Verdict.NOT_JUDGED: "no verdict either way",
    Verdict.NO_BASELINE: "nothing to compare with yet",
}
ACCEPTED = "🔓"
NOTHING, ONLY_SHOWN = "–", "only shown"
# Below this share of the values, an interval's width is what floating point leaves behind and no width.
FLOAT_NOISE = 1e-9
# What a table's cell can take: more decimals, or larger numbers, are written as powers of ten.
MOST_DECIMALS, LARGEST = 8, 1e9
DIGITS, MOST_DIGITS = 4, 12
COMMIT = re.compile(r"[0-9a-f]{7,64}")
SHORT_COMMIT = 9
LONGEST_NAME, LONGEST_SENTENCE = 80, 500
FOUND = {
    "merge base": "the run of the merge base",
    "champion": "the champion, as no ancestor has a run that passed",
    "named": "named by hand",
}
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


@dataclass(frozen=True)
class Piece:
    """A bit of text in a table's cell or a line.

    Attributes:
        text: As it came, not escaped.
        url: Where it leads; None for no link.
        name: Whether it is a name that somebody else chose (a branch, a slice), so that it is shown as code.
    """

    text: str
    url: str | None = None
    name: bool = False


Cell = tuple[Piece, ...]


@dataclass(frozen=True)
class Row:
    """One comparison as its table shows it; see `judgement.Comparison` for the meanings."""

    comparison: Comparison
    metric: Cell
    scope: Cell
    baseline: str
    candidate: str
    difference: str
    interval: str
    margin: str
    count: str
    sign: str
    verdict: str


@dataclass(frozen=True)
class RuleRow:
    """One rule as its table shows it."""

    rule: Rule
    name: Cell
    value: str
    limit: str
    sign: str


def plain(text: str, longest: int = LONGEST_SENTENCE) -> str:
    """Return a text in one line without what can't be seen (control characters, marks that turn the direction of writing), cut where it is too long."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def decimals(width: float | None, scale: float) -> int:
    """Return how many decimals numbers deserve: those that show two digits of the interval's width, else four digits of the largest value.

    Args:
        width: Of the interval; None, 0 or mere float noise where there is none.
        scale: The largest absolute value that is shown.

    Returns:
        The decimals; below 0, that many digits before the point are rounded away.
    """
    if width is not None and math.isfinite(width) and width > FLOAT_NOISE * scale:
        return 1 - math.floor(math.log10(width))
    if scale > 0 and math.isfinite(scale):
        return max(DIGITS - 1 - math.floor(math.log10(scale)), 0)
    return 0


def number(value: float | None, places: int) -> str:
    """Return a number with so many decimals and a true minus sign; a dash where it is undefined."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value and (places > MOST_DECIMALS or abs(value) >= LARGEST):
        digits = max(places + math.floor(math.log10(abs(value))), 0)
        text = f"{value:.{min(digits, MOST_DIGITS)}e}"
    else:
        rounded = round(value, places)
        text = f"{rounded + 0.0:,.{max(min(places, MOST_DECIMALS), 0)}f}"
    # A minus before nothing but zeros is no sign of anything.
    if not re.search(r"[1-9]", text):
        text = text.lstrip("-")
    return text.replace("-", "−", 1) if text.startswith("-") else text


def signed(value: float | None, places: int) -> str:
    """Return a difference: with a plus where it is above 0, and `0` where it is nothing."""
    text = number(value, places)
    if text == NOTHING or text.startswith("−"):
        return text
    return f"+{text}" if re.search(r"[1-9∞]", text) else "0"


def given(value: float) -> str:
    """Return a number that a person wrote, as they wrote it."""
    return f"{value:,.6g}".replace("-", "−", 1)


def told_apart(value: float | None, limit: float) -> str:
    """Return a measured value with enough digits to be seen on its side of the limit."""
    if value is None or not math.isfinite(value):
        return number(value, 0)
    for digits in range(DIGITS, MOST_DIGITS):
        text = f"{value:,.{digits}g}"
        if value == limit or float(text.replace(",", "")) != limit:
            break
    return text.replace("-", "−", 1) if text.startswith("-") else text


def metric_name(metric: str, unit: str | None = None) -> Cell:
    """Return what people call a metric, with the target's unit where it has that; the name itself where it is none of ours."""
    kind = METRICS.get(metric)
    if kind is None:
        return (Piece(metric, name=True),)
    return (Piece(f"{kind.title} ({unit})" if unit and kind.in_unit else kind.title),)


def words(cell: Iterable[Piece]) -> str:
    """Return a cell as bare text."""
    return plain("".join(piece.text for piece in cell))


def _count(comparison: Comparison) -> str:
    noun = "folds" if comparison.kind == "cross-validation" else "rows"
    noun = noun.removesuffix("s") if comparison.rows == 1 else noun
    groups = f" in {comparison.groups:,} groups" if comparison.groups is not None else ""
    return f"{comparison.rows:,} {noun}{groups}"


def _magnitude(values: Iterable[float | None]) -> float:
    return max((abs(value) for value in values if value is not None and math.isfinite(value)), default=0.0)


def only_shown(comparison: Comparison) -> bool:
    """Say whether nobody asked for a verdict: there are both values, and no margin."""
    return comparison.verdict is Verdict.NOT_JUDGED and comparison.margin is None and comparison.difference is not None


def _without_noise(value: float | None, scale: float) -> float | None:
    return 0.0 if value is not None and abs(value) <= FLOAT_NOISE * scale else value


def row(comparison: Comparison, unit: str | None) -> Row:
    """Return a comparison's texts, all of its numbers with the same decimals."""
    scale = _magnitude((comparison.baseline, comparison.candidate))
    low, high, difference = (_without_noise(value, scale) for value in (comparison.low, comparison.high, comparison.difference))
    width = None if low is None or high is None else _without_noise(high - low, scale)
    places = decimals(width, scale)
    # Without a width it is the difference that must not vanish behind the values' digits.
    if difference and not width:
        places = max(places, decimals(abs(difference), scale))
    return Row(
        comparison,
        metric_name(comparison.metric, unit),
        (Piece(comparison.scope, name=comparison.kind == "slice"),),
        number(comparison.baseline, places),
        number(comparison.candidate, places),
        signed(difference, places),
        "" if width is None else f"{signed(low, places)} to {signed(high, places)}",
        NOTHING if comparison.margin is None else given(comparison.margin),
        _count(comparison),
        SIGNS[comparison.verdict],
        ONLY_SHOWN if only_shown(comparison) else f"{SIGNS[comparison.verdict]} {comparison.verdict}",
    )


def rows(comparisons: Iterable[Comparison], unit: str | None, most: int | None = None) -> list[Row]:
    """Return the rows of a table, those that need a look first, else in the order of the gate; so many at most."""
    ranks = {Verdict.FAIL: 0, Verdict.INCONCLUSIVE: 1, Verdict.NOT_JUDGED: 2}

    def rank(comparison: Comparison) -> int:
        return 4 if only_shown(comparison) else ranks.get(comparison.verdict, 3)

    return [row(comparison, unit) for comparison in sorted(comparisons, key=rank)[:most]]


def rule_row(rule: Rule, unit: str | None) -> RuleRow:
    """Return a rule's texts."""
    known = METRICS.get(rule.metric or "")
    shown_unit = rule.unit or (unit if unit and known and known.in_unit else "")
    suffix = f" {plain(shown_unit, LONGEST_NAME)}" if shown_unit else ""
    name: Cell = (Piece(rule.name),) if rule.metric is None else (Piece(f"{rule.name} of "), *metric_name(rule.metric))
    value = told_apart(rule.value, rule.limit)
    bound = "at most" if rule.direction == "lower" else "at least"
    return RuleRow(rule, name, value if value == NOTHING else value + suffix, f"{bound} {given(rule.limit)}{suffix}", "✅" if rule.kept else "❌")


def accepted(judgement: Judgement) -> bool:
    """Say whether an override is what lets the candidate through."""
    return judgement.override is not None and judgement.exit_status == 0 and judgement.verdict not in {Verdict.PASS, Verdict.NO_BASELINE}


def headline(judgement: Judgement) -> tuple[str, str]:
    """Return the sign and the verdict in words."""
    verdict = judgement.verdict
    if accepted(judgement):
        return ACCEPTED, f"{verdict}, accepted by an override"
    return SIGNS[verdict], f"{verdict}: {MEANINGS[verdict]}"


def status_note(judgement: Judgement) -> str | None:
    """Return what the exit status means where the verdict alone would not tell."""
    if accepted(judgement) or judgement.verdict is not Verdict.INCONCLUSIVE:
        return None
    settings = {0: "counts as a pass", 1: "counts as a failure"}
    return f"An inconclusive verdict {settings[judgement.exit_status]} here (inconclusive, in [gate])." if judgement.exit_status in settings else None


def tally(comparisons: Sequence[Comparison]) -> str:
    """Return how many comparisons ended how: `❌ 1 fail, ✅ 5 pass`."""
    counts = {verdict: sum(comparison.verdict is verdict for comparison in comparisons) for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)}
    shown = sum(only_shown(comparison) for comparison in comparisons)
    rest = len(comparisons) - sum(counts.values()) - shown
    parts = [f"{SIGNS[verdict]} {count} {verdict}" for verdict, count in counts.items() if count]
    return ", ".join([*parts, *([f"{rest} not judged"] if rest else []), *([f"{shown} {ONLY_SHOWN}"] if shown else [])])


def moment(text: str) -> datetime | None:
    """Return an ISO 8601 time, UTC; None where it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def when(time: datetime | None) -> str:
    """Return a time as `2026-11-26 07:03 UTC`."""
    return NOTHING if time is None else f"{time:%Y-%m-%d %H:%M} UTC"


def since_epoch(milliseconds: int | None) -> datetime | None:
    """Return a run's time; None where it has none or an impossible one."""
    try:
        return None if milliseconds is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None


def duration(seconds: float) -> str:
    """Return a duration in the unit that people would take."""
    for unit, name in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
        if seconds >= unit:
            count = int(seconds // unit)
            return f"{count:,} {name}{'' if count == 1 else 's'}"
    return "less than a minute"


def _commit(commit: str | None, repository: str | None) -> Cell:
    if not commit:
        return (Piece(NOTHING),)
    known = COMMIT.fullmatch(commit) is not None
    return (Piece(commit[:SHORT_COMMIT], url=f"{repository}/commit/{commit}" if repository and known else None, name=True),)


def _branch(run: RunReference, repository: str | None) -> Cell:
    cell: Cell = (Piece(run.branch, name=True),) if run.branch else (Piece(NOTHING),)
    number = run.pull_request
    if not number:
        return cell
    url = f"{repository}/pull/{number}" if repository and number.isascii() and number.isdigit() else None
    # A branch of a pull request may be called main, as in a fork.
    return (*cell, Piece(" of pull request "), Piece(number, url=url))


def run_cells(run: RunReference, repository: str | None) -> tuple[Cell, Cell, Cell, Cell]:
    """Return what identifies a run: version or id with its link, commit, branch, and when it finished."""
    title = f"version {run.version}" if run.version else f"run {run.run_id[:8]}"
    return (Piece(title, url=run.url),), _commit(run.commit, repository), _branch(run, repository), (Piece(when(since_epoch(run.finished))),)


def baseline_note(judgement: Judgement) -> str | None:
    """Return how the baseline was found and how old it is; None where there is none."""
    if judgement.baseline is None:
        return None
    if judgement.baseline_rule == "ancestor":
        distance = judgement.baseline_distance
        steps = "an ancestor" if distance is None else "one commit" if distance == 1 else f"{distance:,} commits"
        found = "the run of an ancestor on the main branch" if distance is None else f"the run of an ancestor, {steps} before the merge base"
    else:
        found = FOUND.get(judgement.baseline_rule or "", "not said how it was found")
    ended, judged = since_epoch(judgement.baseline.finished), moment(judgement.judged_at)
    age = f"; {duration((judged - ended).total_seconds())} old" if ended and judged and judged >= ended else ""
    return f"The baseline is {found}{age}."


def _override(override: Override, judged: datetime | None) -> str:
    since, expires = moment(override.since), moment(override.expires)
    start = f" since {since:%Y-%m-%d}" if since else ""
    end = when(expires) if expires else plain(override.expires, LONGEST_NAME)
    left = f" ({duration((expires - judged).total_seconds())} left)" if expires and judged and expires > judged else ""
    return f"{start} until {end}{left} by {plain(override.who, LONGEST_NAME)}: {plain(override.reason)}"


def override_note(judgement: Judgement) -> str | None:
    """Return who accepted this candidate, why and until when; None where nobody did."""
    return None if judgement.override is None else f"Override{_override(judgement.override, moment(judgement.judged_at))}"


def standing_notes(judgement: Judgement) -> list[str]:
    """Return the overrides that last and are of other versions."""
    judged = moment(judgement.judged_at)
    others = [standing for standing in judgement.standing_overrides if standing.override != judgement.override]
    return [f"Version {plain(standing.version, LONGEST_NAME)} has an override{_override(standing.override, judged)}" for standing in others]


def missing(judgement: Judgement) -> list[str]:
    """Return what could not be compared, without what the verdict's own sentence says already."""
    return [sentence for sentence in judgement.missing if sentence != judgement.reason]


def methods(judgement: Judgement) -> str:
    """Return how the intervals were made, as one sentence; empty where there are none."""
    found = list(dict.fromkeys(comparison.method for comparison in (*judgement.comparisons, *judgement.reference_comparisons) if comparison.method))
    return f"Intervals: {plain(', '.join(found))}; corrected for looking at several metrics (Holm)." if found else ""


def compared(contents: "Contents") -> list[tuple[str, tuple[Cell, Cell, Cell, Cell]]]:
    """Return the runs of a report with their roles."""
    judgement = contents.judgement
    roles = (("this run", judgement.candidate), ("baseline", judgement.baseline), ("reference", judgement.reference))
    return [(role, run_cells(run, contents.repository)) for role, run in roles if run is not None]
