"""Steps: whole output in the log, one line for people, and what a program's exit status means."""

import os
import sys
from pathlib import Path

import pytest
from longrun_controller import progress
from longrun_controller.errors import ProblemError
from longrun_controller.progress import Progress, Step, seconds
from rich.console import Console

SCREAM = "import sys; print('one'); print('two', file=sys.stderr); print('reason: no room'); sys.exit(int(sys.argv[1]))"


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Console:
    """What a person without a terminal would read."""
    console = Console(file=None, record=True, width=200, force_terminal=False)
    console.quiet = False
    monkeypatch.setattr(progress, "console", console)
    return console


def run(step: Step, status: int, accept: frozenset[int] = frozenset({0})) -> int:
    """Run a small program that says three things and ends with a status."""
    return step.run(
        [sys.executable, "-c", SCREAM, str(status)],
        environment=os.environ,
        describe=lambda line: line.upper() if line == "one" else None,
        diagnose=lambda lines: next((line for line in lines if line.startswith("reason")), None),
        accept=accept,
    )


@pytest.mark.parametrize(("duration", "expected"), [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (65, "1 min 05 s"), (3600, "60 min 00 s")])
def test_durations_are_said_as_people_say_them(duration: float, expected: str) -> None:
    """184 s is nothing that anybody thinks in."""
    assert seconds(duration) == expected


def test_the_log_holds_everything(tmp_path: Path, screen: Console) -> None:
    """The screen shows one line; whoever looks for a cause needs both streams, in their order."""
    steps = Progress(tmp_path)
    with steps.step("deploy (MLflow)") as step:
        assert run(step, 0) == 0
    assert sorted((tmp_path / "deploy.log").read_text().splitlines()) == ["one", "reason: no room", "two"]
    shown = screen.export_text()
    assert "ONE" in shown
    assert "two" not in shown
    assert "✓ deploy (MLflow)" in shown
    assert list(steps.times) == ["deploy (MLflow)"]


def test_a_log_begins_anew(tmp_path: Path, screen: Console) -> None:
    """The failure of last week must not be found in the log of today."""
    (tmp_path / "users.log").write_text("last week\n")
    with Progress(tmp_path).step("users"):
        pass
    assert not (tmp_path / "users.log").exists()
    assert "users" in screen.export_text()


def test_a_failure_says_step_reason_and_log(tmp_path: Path, screen: Console) -> None:
    """What failed, why, and where to look further; the step is marked as failed."""
    with pytest.raises(ProblemError) as caught, Progress(tmp_path).step("host (Terraform)") as step:
        run(step, 3)
    assert str(caught.value) == f"host (Terraform): reason: no room (whole output: {tmp_path / 'host.log'})"
    assert "✗ host (Terraform)" in screen.export_text()


def test_a_failure_without_a_diagnosis_shows_the_last_line(tmp_path: Path) -> None:
    """A program that we don't understand must not fail without a word."""
    step = Step("build", tmp_path / "build.log")
    with pytest.raises(ProblemError, match="build: the end"):
        step.run(
            [sys.executable, "-c", "print('begin'); print('the end'); print(); raise SystemExit(1)"],
            environment=os.environ,
            describe=lambda _line: None,
            diagnose=lambda _lines: None,
        )


def test_a_silent_failure(tmp_path: Path) -> None:
    """Even then the message is a sentence."""
    step = Step("build", tmp_path / "build.log")
    with pytest.raises(ProblemError, match="build: it said nothing"):
        step.run([sys.executable, "-c", "raise SystemExit(1)"], environment=os.environ, describe=lambda _: None, diagnose=lambda _: None)


def test_other_statuses_may_be_welcome(tmp_path: Path) -> None:
    """`terraform plan -detailed-exitcode` ends with 2 when there is something to do."""
    assert run(Step("plan", tmp_path / "plan.log"), 2, accept=frozenset({0, 2})) == 2


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A program may print anything; the log is for people."""
    step = Step("build", tmp_path / "build.log")
    code = "import sys; sys.stdout.buffer.write(b'\\xff\\xfe ok\\n')"
    assert step.run([sys.executable, "-c", code], environment=os.environ, describe=lambda _: None, diagnose=lambda _: None) == 0
    assert "ok" in (tmp_path / "build.log").read_text()


def test_the_table_adds_up(tmp_path: Path, screen: Console) -> None:
    """The table at the end of `make up` shows every step and the whole."""
    steps = Progress(tmp_path)
    steps.times = {"tools": 1.0, "deploy": 64.0}
    screen.print(steps.table())
    rows = [line.split() for line in screen.export_text().splitlines()]
    assert rows == [["tools", "1", "s"], ["deploy", "1", "min", "04", "s"], ["all", "1", "min", "05", "s"]]
