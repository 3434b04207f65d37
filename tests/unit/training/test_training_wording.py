"""How a report says it: as many digits as a number deserves, one word for each verdict, and what was done in sentences."""

import math
from typing import Any

import pytest
from longrun_training import wording
from longrun_training.judgement import Judgement, Rule, StandingOverride, Verdict

from tests.unit.training import report_helpers as made


@pytest.mark.parametrize(
    ("low", "difference", "high", "baseline", "expected"),
    [
        (-0.855, 0.1926, 1.219, 54.21374, ("54.2", "+0.2", "−0.9 to +1.2")),
        (-0.0172, 0.0041, 0.0261, 0.45121, ("0.451", "+0.004", "−0.017 to +0.026")),
        (-310.0, 193.0, 4100.0, 54213.74, ("54,200", "+200", "−300 to +4,100")),
        (0.1926, 0.1926, 0.1926, 54.21374, ("54.21", "+0.19", "+0.19 to +0.19")),
        (2e-5, 2e-5, 2e-5 + 1e-14, 54.21374, ("54.213740", "+0.000020", "+0.000020 to +0.000020")),
        (None, 2e-5, None, 54.21374, ("54.213740", "+0.000020", "")),
    ],
)
def test_decimals_follow_the_width_of_the_interval(
    low: float | None, difference: float, high: float | None, baseline: float, expected: tuple[str, str, str]
) -> None:
    """Two digits of the width and no more: further ones would be noise that looks like knowledge."""
    row = wording.row(made.comparison(baseline=baseline, candidate=baseline, difference=difference, low=low, high=high), None)
    assert (row.baseline, row.difference, row.interval) == expected


@pytest.mark.parametrize("noise", [0.0, 7.1e-15])
def test_equal_models_differ_by_nothing(noise: float) -> None:
    """What floating point leaves behind is shown as 0, not with 15 decimals."""
    row = wording.row(made.comparison(candidate=54.21374 + noise, difference=-noise, low=-noise, high=noise), None)
    assert (row.baseline, row.candidate, row.difference, row.interval) == ("54.21", "54.21", "0", "0 to 0")


@pytest.mark.parametrize(
    ("value", "places", "expected"),
    [
        (None, 2, "–"),
        (math.nan, 2, "–"),
        (math.inf, 2, "∞"),
        (-math.inf, 2, "−∞"),
        (-0.001, 2, "0.00"),
        (-1.005, 1, "−1.0"),
        (1234567.0, 0, "1,234,567"),
        (1234567.0, -3, "1,235,000"),
        (1.25e12, -10, "1.25e+12"),
        (-3.14159e-12, 14, "−3.14e-12"),
        (0.0, 14, "0.00000000"),
    ],
)
def test_numbers(value: float | None, places: int, expected: str) -> None:
    """Undefined, infinite, tiny and huge numbers all have a form that a table takes."""
    assert wording.number(value, places) == expected


@pytest.mark.parametrize(("value", "expected"), [(0.0, "0"), (-0.004, "0"), (0.5, "+0.50"), (-0.5, "−0.50"), (None, "–"), (math.inf, "+∞")])
def test_differences_have_a_sign(value: float | None, expected: str) -> None:
    """Above 0 is better: the plus says so."""
    assert wording.signed(value, 2) == expected


@pytest.mark.parametrize(("value", "limit", "expected"), [(54.02113, 60.0, "54.02"), (59.9999, 60.0, "59.9999"), (60.0, 60.0, "60"), (0.95, 0.9500001, "0.95")])
def test_a_value_is_on_its_side_of_the_limit(value: float, limit: float, expected: str) -> None:
    """`60.00 is more than 60` would make no sense."""
    assert wording.told_apart(value, limit) == expected


def test_undefined_comparison() -> None:
    """A metric that is undefined, or not judged, has dashes and not `None`."""
    row = wording.row(made.comparison(baseline=None, candidate=None, difference=None, low=None, high=None, margin=None, verdict=Verdict.NOT_JUDGED), "kg")
    assert (row.baseline, row.candidate, row.difference, row.interval, row.margin, row.sign) == ("–", "–", "–", "", "–", "⏸️")


def test_units_are_where_they_are_known() -> None:
    """The target's unit belongs to an error in that unit, and not to R²."""
    assert wording.words(wording.metric_name("rmse", "kg")) == "RMSE (kg)"
    assert wording.words(wording.metric_name("r2", "kg")) == "R²"
    assert wording.metric_name("theirs", "kg")[0].name
    rule = Rule(name="floor", metric="mae", value=None, limit=4.0, direction="lower", kept=False, reason="it is missing")
    row = wording.rule_row(rule, "kg")
    assert (wording.words(row.name), row.value, row.limit, row.sign) == ("floor of MAE", "–", "at most 4 kg", "❌")


def test_groups_and_single_rows_are_counted() -> None:
    """`1 rows` is no English, and with groups it is they that were drawn."""
    assert wording.row(made.comparison(rows=1), None).count == "1 row"
    assert wording.row(made.comparison(rows=1200, groups=80), None).count == "1,200 rows in 80 groups"


@pytest.mark.parametrize(
    ("verdict", "status", "expected"),
    [
        (Verdict.PASS, 0, ("✅", "pass: no worse than the baseline")),
        (Verdict.FAIL, 1, ("❌", "fail: worse than is accepted")),
        (Verdict.INCONCLUSIVE, 2, ("⚠️", "inconclusive: too uncertain to tell")),
        (Verdict.NOT_JUDGED, 3, ("⏸️", "not judged: no verdict either way")),
        (Verdict.NO_BASELINE, 0, ("🆕", "no baseline: nothing to compare with yet")),
    ],
)
def test_every_verdict_has_words_and_a_sign(verdict: Verdict, status: int, expected: tuple[str, str]) -> None:
    """The sign alone is not enough for who can't see it."""
    assert wording.headline(made.judgement(verdict=verdict, exit_status=status)) == expected


def test_what_fails_first_is_seen_first() -> None:
    """Nobody looks for the one line of many that failed."""
    shown = made.comparison(verdict=Verdict.NOT_JUDGED, margin=None)
    verdicts = [Verdict.PASS, Verdict.NOT_JUDGED, Verdict.INCONCLUSIVE, Verdict.FAIL]
    rows = wording.rows([shown, *(made.comparison(verdict=verdict) for verdict in verdicts)], None)
    assert [row.verdict for row in rows] == ["❌ fail", "⚠️ inconclusive", "⏸️ not judged", "✅ pass", "only shown"]
    assert wording.tally([row.comparison for row in rows]) == "❌ 1 fail, ⚠️ 1 inconclusive, ✅ 1 pass, 1 not judged, 1 only shown"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"baseline_rule": "merge base", "baseline_distance": 0}, "The baseline is the run of the merge base; 3 days old."),
        ({"baseline_distance": 1}, "The baseline is the run of an ancestor, one commit before the merge base; 3 days old."),
        ({"baseline_rule": "champion", "baseline_distance": None}, "The baseline is the champion, as no ancestor has a run that passed; 3 days old."),
        ({"baseline_rule": "named", "baseline": made.run(2, version="1", finished=None)}, "The baseline is named by hand."),
        ({"judged_at": "yesterday"}, "The baseline is the run of an ancestor, 2 commits before the merge base."),
    ],
)
def test_how_the_baseline_was_found(changes: dict[str, Any], expected: str) -> None:
    """A reader who doubts the verdict asks this first."""
    assert wording.baseline_note(made.judgement(**changes)) == expected


def test_no_baseline_no_note() -> None:
    """Nothing is said of what is not there."""
    assert wording.baseline_note(made.judgement(baseline=None)) is None


def test_overrides_say_who_why_and_until_when() -> None:
    """An override is an exception that must not be forgotten, that of another version neither."""
    own = made.override()
    other = own.model_copy(update={"who": "bo"})
    standing = (StandingOverride(version="43", override=own), StandingOverride(version="40", override=other))
    found = made.judgement(verdict=Verdict.FAIL, exit_status=0, override=own, standing_overrides=standing)
    text = "since 2026-11-25 until 2026-12-02 09:00 UTC (6 days left) by"
    assert wording.override_note(found) == f"Override {text} ana: the old data were wrong, see the incident"
    assert wording.standing_notes(found) == [f"Version 40 has an override {text} bo: the old data were wrong, see the incident"]
    assert wording.headline(found) == ("🔓", "fail, accepted by an override")


@pytest.mark.parametrize(("status", "expected"), [(0, "counts as a pass"), (1, "counts as a failure"), (2, None)])
def test_what_an_inconclusive_verdict_counts_as(status: int, expected: str | None) -> None:
    """The exit status may say something else than the verdict; a reader must not wonder why the check is green."""
    note = wording.status_note(made.judgement(verdict=Verdict.INCONCLUSIVE, exit_status=status))
    assert note is None if expected is None else note is not None and expected in note


def test_text_that_can_not_be_seen_is_taken_out() -> None:
    """A mark that turns the direction of writing makes a name look like another one."""
    assert wording.plain("a\u202eb\x1b[31m\tc\nd\u200b") == "a b [31m c d"
    assert wording.plain("x" * 99, 10) == "x" * 9 + "…"


def test_times_that_are_none() -> None:
    """A time that can't be read is a dash, not a traceback."""
    assert wording.when(wording.moment("soon")) == "–"
    assert wording.since_epoch(10**30) is None
    assert wording.when(wording.moment("2026-11-26T08:00:00+02:00")) == "2026-11-26 06:00 UTC"


def test_methods_are_named_once() -> None:
    """And nothing is said where nothing was compared."""
    assert wording.methods(made.judgement()) == "Intervals: paired bootstrap, corrected t; corrected for looking at several metrics (Holm)."
    assert wording.methods(Judgement(model="m", verdict=Verdict.NOT_JUDGED, exit_status=3, reason="r", judged_at="", candidate=None)) == ""
