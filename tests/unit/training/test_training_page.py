"""The HTML page: one file that holds everything, and nothing that anybody else wrote does anything in it."""

import base64
from html.parser import HTMLParser

import pytest
from longrun_training import page
from longrun_training.judgement import Verdict

from tests.unit.training import report_helpers as made

VOID = {"meta", "img", "source", "br"}
PICTURES = b"\x89PNG light", b"\x89PNG dark"


class Reader(HTMLParser):
    """Checks that each element is closed, and collects links, sources and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.elements: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        given = dict(attrs)
        self.links += [given["href"] or ""] if "href" in given else []
        self.sources += [given[name] or "" for name in ("src", "srcset") if name in given]
        assert not [name for name in given if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def read(text: str) -> Reader:
    """Read a page and see that it is whole."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_everything_is_on_the_page() -> None:
    """It says what the Markdown says, and nothing has to be fetched: pictures are in the file, there is no script."""
    reader = read(page.render(made.contents(), PICTURES))
    expected = ["diabetes pass: no worse than the baseline", "deeper-trees", "RMSE (mg/dL)", "−0.9 to +1.2", "89 rows", "age 60 and above", "smokers"]
    expected += ["Against the pinned reference", "at most 60 mg/dL", "the baseline has no log_loss", "2 commits before the merge base", "paired bootstrap"]
    for text in expected:
        assert text in reader.text
    assert reader.sources == [f"data:image/png;base64,{base64.b64encode(picture).decode()}" for picture in reversed(PICTURES)]
    assert f"{made.REPOSITORY}/commit/{'c0' * 20}" in reader.links
    assert not reader.elements & {"script", "iframe", "link", "object", "form"}
    assert "None" not in reader.text


def test_phones_and_the_dark() -> None:
    """Two media queries and a viewport: without them a phone shows a page for a desk, in white."""
    text = page.render(made.contents(), PICTURES)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert text.count("prefers-color-scheme: dark") == 2
    assert "@media (max-width" in text
    assert "default-src 'none'" in text


def test_nobodys_text_does_anything() -> None:
    """No element and no link comes from a branch, a metric or a reason."""
    reader = read(page.render(made.contents(judgement=made.nasty()), PICTURES))
    usual = read(page.render(made.contents(), PICTURES))
    assert reader.elements <= usual.elements
    assert "<img src=x onerror=alert(1)>" in reader.text
    assert all(link.startswith(("https://mlflow.example/", made.REPOSITORY)) for link in reader.links)
    assert len(reader.sources) == 2


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_has_a_page(verdict: Verdict) -> None:
    """Also the emptiest judgement."""
    empty = made.judgement(
        verdict=verdict, candidate=None, baseline=None, reference=None, comparisons=(), reference_comparisons=(), rules=(), missing=(), stale="old",
        override=made.override(), exit_status=2,
    )  # fmt: skip
    reader = read(page.render(made.contents(judgement=empty, trend=None, no_trend="The server was away."), None))
    assert "The server was away." in reader.text
    assert "Stale: old" in reader.text
    assert "by ana: the old data were wrong" in reader.text
    assert "longrun sync" in reader.text


def test_all_slices_are_on_the_page() -> None:
    """The page is what the cut Markdown points at, so it is never cut."""
    slices = tuple(made.comparison(scope=f"slice {number}", kind="slice") for number in range(500))
    assert "slice 499" in read(page.render(made.contents(judgement=made.judgement(comparisons=slices)), None)).text


@pytest.mark.parametrize(
    ("low", "high", "margin", "expected"),
    [
        (-0.5, 1.0, 1.0, page.Whisker(58.2, 183.6, 120.9, 16.4)),
        (None, None, None, page.Whisker(183.6, 183.6, 183.6, None)),
        (-float("inf"), 1.0, 1.0, page.Whisker(8.0, 183.6, 120.9, 16.4)),
    ],
)
def test_a_difference_is_drawn_to_scale(low: float | None, high: float | None, margin: float | None, expected: page.Whisker) -> None:
    """0 is in the middle, better is right, and an infinite bound ends at the edge."""
    assert page.whisker(made.comparison(difference=0.25, low=low, high=high, margin=margin)) == expected


def test_nothing_to_draw() -> None:
    """Equal models are a point in the middle; an undefined difference is none at all."""
    assert page.whisker(made.comparison(difference=0.0, low=0.0, high=0.0, margin=0.0)) == page.Whisker(100.0, 100.0, 100.0, 100.0)
    assert page.whisker(made.comparison(difference=None)) is None
