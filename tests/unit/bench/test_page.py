"""The page, the numbers and the picture of the server's benchmark."""

import json
from pathlib import Path

from tests.bench import page
from tests.bench.aims import judge
from tests.bench.results import OURS, Memory, Results, Timings
from tests.unit.bench import made

PARTS = ("## Operations", "## Artifacts", "## Pages in Chromium", "## Memory and start", "## Growth", "## A training")


def test_the_page_has_every_part() -> None:
    """Tables, verdict and the machine that it was measured on."""
    text = page.render(made.results())
    for expected in (*PARTS, "met", "2 cores", "a processor", "server.png", "32 clients", "GET, 512 MB", "1,000,000 runs", "runs page, second load"):
        assert expected in text, expected
    assert "✗" not in text
    assert "nan" not in text


def test_what_was_missed_stands_there() -> None:
    """A reader sees it in the heading and in its line."""
    results = made.results(memory={name: Memory(900 * made.MIB, 800 * made.MIB, 4) for name in ("stock", "tuned", OURS)})
    text = page.render(results)
    count = len(judge(results))
    assert f"{count - 1} of {count} met" in text
    assert "| **900 MiB** | ≤ 700 MiB | ✗ | 29 % above |" in text


def test_a_part_that_was_not_measured_is_left_out() -> None:
    """`--only` writes a page, too."""
    text = page.render(Results(made.CONTEXT))
    assert not [part for part in PARTS if part in text]
    assert "0 of 0 met" in text


def test_failed_requests_are_shown() -> None:
    """A server that refuses half of what it is asked is fast with the rest."""
    results = made.results(health={1: Timings((0.001,), 1.0, failed=3)})
    assert "3 failed" in page.render(results)


def test_three_files(tmp_path: Path) -> None:
    """The JSON file has all numbers as JSON knows them, and the picture is one; a partial run makes them as well."""
    page.write(made.results(), tmp_path / "whole")
    page.write(Results(made.CONTEXT), tmp_path / "part")
    content = json.loads((tmp_path / "whole" / "server.json").read_text(), parse_constant=lambda name: f"not JSON: {name}")
    assert content["operations"]["create"]["ours"]["8"]["requests"] == 20
    assert content["growth"]["1000000"]["health"]["failed"] == 0
    assert "not JSON" not in json.dumps(content)
    assert all(aim["met"] for aim in content["aims"])
    for folder in ("whole", "part"):
        assert (tmp_path / folder / "server.png").read_bytes().startswith(b"\x89PNG")
