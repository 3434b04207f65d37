"""The verdict of the server's benchmark: every aim of issue and design, met and missed."""

from dataclasses import replace

import pytest

from tests.bench.aims import Aim, at_least, at_most, judge
from tests.bench.browser import START
from tests.bench.operations import OPERATIONS
from tests.bench.results import GET, HEALTH, NAMES, OURS, PUT, Load, Loads, Memory, Results, Timings
from tests.unit.bench import made

EVERYTHING = made.results()


def missed(results: Results) -> list[Aim]:
    """Return the lines that are not met."""
    return [aim for aim in judge(results) if not aim.met]


def test_every_aim_has_a_line() -> None:
    """Requests a second and growth for each operation, latency for all but parameters, one floor, failures, and what is not an operation."""
    parts: dict[str, int] = {}
    for aim in judge(EVERYTHING):
        parts[aim.part] = parts.get(aim.part, 0) + 1
    assert list(parts.values()) == [len(OPERATIONS), len(OPERATIONS) - 1, 1, 1, 10, 4, 2, 5, 1]
    assert not missed(EVERYTHING)
    assert not judge(Results(made.CONTEXT))


def test_by_how_much() -> None:
    """A line says more than met or missed, in the direction that matters."""
    assert at_least("", "", 52.0, 40.0, "×") == Aim("", "", "52.0×", "≥ 40×", met=True, by="1.30 times the aim")
    assert at_least("", "", 30.0, 40.0).by == "25 % short"
    assert at_most("", "", 0.4, 0.5).by == "20 % below"
    assert at_most("", "", 0.6, 0.5) == Aim("", "", "0.60", "≤ 0.5", met=False, by="20 % above")
    assert not at_most("", "", float("nan"), 0.5).met
    assert at_most("", "", 3, 0) == Aim("", "", "3", "≤ 0", met=False, by="3 too many")
    assert at_most("", "", 0, 0).met


@pytest.mark.parametrize(
    ("results", "what"),
    [
        (made.results(durable=made.timings(0.0005)), "log-batch, 20 metrics"),
        (made.results(artifacts=made.artifacts(resumes=dict.fromkeys(NAMES, False))), "a download that broke off"),
        (made.results(artifacts=made.artifacts(whole_or_nothing=dict.fromkeys(NAMES, False))), "an upload that broke off"),
        (made.results(memory={OURS: Memory(600 * made.MIB, 701 * made.MIB, 4)}), "memory, idle or after everything"),
        (made.results(start={OURS: [16.0, 15.5]}), "ready after a restart"),
        (replace(EVERYTHING, context=replace(made.CONTEXT, minutes=15.2)), "from the command to its end"),
        (made.results(pages={START: {OURS: Loads([Load(1_300_000, 60, 1.0)], [Load(51_000, 60, 1.0)])}}), "start page, second load"),
    ],
)
def test_a_missed_aim_is_seen(results: Results, what: str) -> None:
    """One thing is worse than it should be, and one line says so."""
    (line,) = missed(results)
    assert line.what.startswith(what)


@pytest.mark.parametrize("change", [{"temporary_bytes": 1}, {"spilled": 1}, {"peak_bytes": 651 * made.MIB}])
def test_a_large_transfer_leaves_the_server_as_it_was(change: dict[str, int]) -> None:
    """A temporary file of MLflow's, one of nginx's, or memory that grows: for each direction by itself."""
    growth = {PUT: dict.fromkeys(NAMES, made.growth()), GET: dict.fromkeys(NAMES, made.growth(**change))}
    (line,) = missed(made.results(artifacts=made.artifacts(growth=growth)))
    assert GET in line.what


def test_growth_is_that_of_the_largest_history() -> None:
    """Three times the latency is too much for what is asked, and says nothing of the control."""
    sizes = sorted(EVERYTHING.growth)
    slow = {**EVERYTHING.growth, sizes[-1]: {name: made.timings(0.02) for name in EVERYTHING.growth[sizes[-1]]}}
    lines = missed(replace(EVERYTHING, growth=slow))
    assert len(lines) == len(slow[sizes[0]]) - 1
    assert not any(HEALTH in line.what for line in lines)
    assert "1,000,000 runs against 1,000" in lines[0].part


def test_a_refused_call_is_a_miss() -> None:
    """What is fast because it says no is not fast."""
    (line,) = missed(made.results(growth={1: {HEALTH: Timings((0.1,), 1.0, failed=2)}}))
    assert (line.part, line.measured) == ("calls of ours", "2")
