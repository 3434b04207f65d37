"""The comment at a pull request: complete, short enough, and harmless whatever a branch is called."""

import re

import pytest
from longrun_training import markdown
from longrun_training.judgement import StandingOverride, Verdict

from tests.unit.training import report_helpers as made

# What a report is made of.
ELEMENTS = {
    *("h2", "h3", "p", "strong", "code", "pre", "a", "sub", "ul", "li", "blockquote", "details", "summary"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


def test_everything_is_said() -> None:
    """Verdict, commits, links, n, difference, interval, margin, slices, rules, what was missing, and the trend."""
    text = markdown.render(made.contents())
    lines = text.splitlines()
    assert lines[0] == "<!-- longrun: train diabetes -->"
    assert lines[1] == "## ✅ `diabetes` pass: no worse than the baseline"
    assert f"[version 43](https://mlflow.example/#/experiments/7/runs/{0xC0:032x})" in text
    assert f"[`c0c0c0c0c`]({made.REPOSITORY}/commit/{'c0' * 20})" in text
    assert f"`deeper-trees` of pull request [128]({made.REPOSITORY}/pull/128)" in text
    assert "| RMSE (mg/dL) | hold-out | 54.2 | **54.0** | +0.2 | −0.9 to +1.2 | 1 | 89 rows | ✅ pass |" in lines
    assert "| floor of RMSE | 54.02 mg/dL | at most 60 mg/dL | ✅ kept |" in lines
    assert "2 commits before the merge base; 3 days old" in text
    assert "- the baseline has no log\\_loss" in lines
    assert "<summary>Slices: ⚠️ 1 inconclusive, ✅ 1 pass, 1 not judged</summary>" in lines
    assert "- ⏸️ RMSE (mg/dL) on `smokers`: 4 rows are fewer than the 10 of minimum\\_rows" in lines
    assert "<summary>Against the pinned reference: ✅ 1 pass</summary>" in lines
    assert "```mermaid" in lines
    assert "[whole report](https://mlflow.example/#/report)" in text
    assert "Stale" not in text
    assert "None" not in text


def test_it_is_what_it_looks_like() -> None:
    """Each table has as many cells in each row as in its head, and every element is closed."""
    html = made.as_html(markdown.render(made.contents()))
    for table in re.findall(r"(?s)<table>.*?</table>", html):
        assert {row.count("<td") + row.count("<th ") + row.count("<th>") for row in re.findall(r"(?s)<tr>.*?</tr>", table)} == {table.count("<th") - 1}
    assert html.count("<table>") == 5
    assert html.count("<details") == html.count("</details>") == 2


def test_a_failed_slice_is_not_hidden() -> None:
    """Slices are folded away, but not one that failed."""
    worse = made.comparison(scope="women", kind="slice", verdict=Verdict.FAIL, reason="worse")
    text = markdown.render(made.contents(judgement=made.judgement(comparisons=(worse,))))
    assert "<details open>\n<summary>Slices: ❌ 1 fail</summary>" in text


def test_a_broken_rule_says_why() -> None:
    """And comes first."""
    found = made.judgement()
    broken = found.rules[2].model_copy(update={"kept": False, "value": 31.0, "reason": "31 ms is more than 20 ms"})
    lines = markdown.render(made.contents(judgement=made.judgement(rules=(*found.rules[:2], broken)))).splitlines()
    row = lines.index("| latency | 31 ms | at most 20 ms | ❌ broken: 31 ms is more than 20 ms |")
    assert lines[row - 1].startswith("| :--")


def test_an_override_is_in_every_report_while_it_lasts() -> None:
    """With reason and expiry, and that of another version too."""
    other = made.override().model_copy(update={"reason": "rollout"})
    found = made.judgement(
        verdict=Verdict.FAIL, exit_status=0, override=made.override(), standing_overrides=(StandingOverride(version="40", override=other),), stale="it is old"
    )
    text = markdown.render(made.contents(judgement=found))
    assert "## 🔓 `diabetes` fail, accepted by an override" in text
    assert "> [!WARNING]\n> Override since 2026-11-25 until 2026-12-02 09:00 UTC (6 days left) by ana: the old data were wrong, see the incident\n>\n" in text
    assert "> Version 40 has an override" in text
    assert "⚠️ Stale: it is old" in text


def test_a_spooled_run_and_no_server() -> None:
    """Without candidate, baseline and trend there is still a report, and it says what to do."""
    found = made.judgement(
        verdict=Verdict.NOT_JUDGED,
        exit_status=3,
        reason="it waits",
        missing=("it waits",),
        candidate=None,
        baseline=None,
        reference=None,
        comparisons=(),
        reference_comparisons=(),
        rules=(),
    )
    text = markdown.render(made.contents(judgement=found, trend=None, no_trend="The server was away.", stored=None))
    assert "`longrun sync` sends it" in text
    assert "### Trend\n\nThe server was away." in text
    assert "the whole report is `report.html` beside this one" in text
    assert "| baseline" not in text
    assert text.count("it waits") == 1


def test_nobodys_text_does_anything() -> None:
    """A branch, a metric, a slice or a reason makes no link, picture, mention, reference, element, cell or line of its own."""
    text = markdown.render(made.contents(judgement=made.nasty()))
    html = made.as_html(text)
    assert "evil.example" in html
    for link in re.findall(r'(?:href|src)="([^"]*)"', html):
        assert link.startswith(("https://mlflow.example/", made.REPOSITORY)), link
    assert "<img" not in html
    assert "javascript:" not in text
    assert text.count("<!--") == 1
    visible = made.text_outside_code(html)
    # What GitHub would find after Markdown is done.
    assert not re.search(r"@\w|(?<!&)#\w|://|www\.", visible)
    assert set(re.findall(r"<(\w+)", html)) <= ELEMENTS
    for table in re.findall(r"(?s)<table>.*?</table>", html):
        assert {row.count("<td") + row.count("<th ") + row.count("<th>") for row in re.findall(r"(?s)<tr>.*?</tr>", table)} == {table.count("<th") - 1}
    assert html.count("<h3>") == 4
    assert len(re.findall(r"<li>", html)) == 5 + 2


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain", "`plain`"),
        ("a`b", "``a`b``"),
        ("`", "`` ` ``"),
        ("a|b\\", "`a¦b\\`"),
        ("", "–"),
        ("\n\u202e", "–"),
        ("<!-- longrun: x", "`<!\u200b-- longrun: x`"),
    ],
)
def test_names_are_code(name: str, shown: str) -> None:
    """Whatever a name holds, it can't end the code span or the cell that it is in."""
    assert markdown.code(name) == shown
    html = made.as_html(f"| a | b |\n| - | - |\n| {markdown.code(name)} | end |\n")
    assert html.count("<td>") == 2
    assert "<td>end</td>" in html


@pytest.mark.parametrize("text", ["- a", "+ a", "# a", "1. a", "1) a", "=== ", "---", "> a", "| a |", "```", "~~~", "    a", "<div>", "[a]: https://x.example"])
def test_sentences_are_paragraphs(text: str) -> None:
    """A sentence that begins like a list, a heading or a quote is none."""
    assert re.fullmatch(r"(?s)<p>[^<]*</p>\n", made.as_html(markdown.prose(text)))


def test_times_and_decimals_stay_readable() -> None:
    """What needs no escape gets none: the file is read as it is, too."""
    assert markdown.prose("2026-11-26: 54.02 (mg/dL) is less; it's 3.5 %!") == "2026-11-26: 54.02 (mg/dL) is less; it's 3.5 %!"


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "/etc", "https://", "http://[", None])
def test_only_the_web_is_linked(url: str | None) -> None:
    """A link that a gate.json brings along leads to a page or nowhere."""
    assert markdown.link("here", url) == "here"


def test_a_link_is_not_left() -> None:
    """Neither by a bracket nor by a blank."""
    assert markdown.link("here", "https://a.example/#/x)y z<") == "[here](https://a.example/#/x%29y%20z%3C)"


def test_marker_is_one_comment() -> None:
    """The comment workflow finds its comment by this line, so no name may end it or make it another's."""
    assert markdown.marker("train / model", "größe_1.0") == "<!-- longrun: train / model größe_1.0 -->"
    assert markdown.marker("a --> b", "c\nd--") == "<!-- longrun: a %2D%2D%3E b c d%2D%2D -->"


@pytest.mark.parametrize("limit", [65_000, 20_000, 8_000, 4_000, 2_000])
def test_a_long_report_is_cut_to_the_limit(limit: int) -> None:
    """What did not pass is kept longest, a table is never cut in the middle, and a link leads to the whole."""
    slices = tuple(made.comparison(scope=f"slice number {number}", kind="slice") for number in range(3000))
    worse = made.comparison(scope="the one that failed", kind="slice", verdict=Verdict.FAIL, reason="worse")
    found = made.judgement(comparisons=(made.comparison(), *slices, worse), missing=tuple(f"no metric {number}" for number in range(500)))
    text = markdown.render(made.contents(judgement=found), limit)
    assert limit / 8 < len(text) <= limit
    assert text.startswith("<!-- longrun: train diabetes -->\n## ✅")
    assert text.count("<details") == text.count("</details>")
    assert text.count("```") % 2 == 0
    assert all(line.count("|") >= 5 for line in text.splitlines() if line.startswith("|"))
    if limit >= 4_000:
        assert "✂️ **This report was cut to fit**: the [whole report](https://mlflow.example/#/report)." in text
    if limit >= 8_000:
        assert "`the one that failed`" in text
        assert re.search(r"… and 2,\d{3} more rows\.", text)


def test_long_names_and_reasons_are_cut() -> None:
    """One branch name may not take the room of the report."""
    text = markdown.render(made.contents(judgement=made.judgement(reason="word " * 10_000, candidate=made.run(1, version="1", branch="b" * 10_000))))
    assert len(text) < 10_000
    assert f"`{'b' * 79}…`" in text
