"""What a person sees of a run: steps with their times, a progress bar on a terminal, plain lines elsewhere."""

import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

# What a person reads goes to standard error, what a program reads to standard output. The stream is bound here, so that
# `quiet` can send everybody else's standard error elsewhere.
console = Console(file=sys.stderr, highlight=False)
# Without a terminal, a long step reports this often how far it is.
HEARTBEAT_SECONDS = 10.0
RUN_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_saying = threading.Lock()
_said: set[str] | None = None

Advance = Callable[[], None]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what libraries print and warn off the screen; `console` still reaches it."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def distinct() -> Iterator[None]:
    """Leave out notes that say of one run what was said of another: many runs that meet the same outage say it once."""
    global _said  # noqa: PLW0603 - there is one screen
    before, _said = _said, set()
    try:
        yield
    finally:
        _said = before


def note(text: str) -> None:
    """Leave a line that stays on the screen."""
    if _said is not None:
        general = RUN_UUID.sub("", text)
        with _saying:
            if general in _said:
                return
            _said.add(general)
    console.print(f"  [dim]·[/] {escape(text)}", soft_wrap=True)


def _seconds(duration: float) -> str:
    minutes, rest = divmod(round(duration), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{duration:.1f} s"


def _animated() -> bool:
    # FORCE_COLOR makes rich call a CI log a terminal, where a moving line would be hundreds of lines.
    return console.is_interactive and sys.__stderr__ is not None and sys.__stderr__.isatty()


@contextmanager
def _bar(name: str, total: int | None) -> Iterator[Advance]:
    columns = [SpinnerColumn(), TextColumn(name)]
    if total:
        columns += [BarColumn(bar_width=30), MofNCompleteColumn()]
    columns += [TimeElapsedColumn()]
    # Redirection is left to `quiet`: rich's own would put the libraries' output back on the screen.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        task = progress.add_task(name, total=total)
        yield lambda: progress.advance(task)


@contextmanager
def _lines(name: str, total: int | None) -> Iterator[Advance]:
    started = said = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal said, done
        done += 1
        if time.monotonic() - said > HEARTBEAT_SECONDS and done != total:
            said = time.monotonic()
            console.print(f"  [dim]{said - started:4.0f} s[/]  {escape(name)}: {done} of {total}", soft_wrap=True)

    yield advance


@contextmanager
def step(name: str, total: int | None = None, remark: str = "") -> Iterator[Advance]:
    """Run the block as one named step, and say how it ended and how long it took.

    Args:
        name: What is being done.
        total: How many times the block will call what it is given, for a bar; None shows a spinner.
        remark: What the line says besides, once the step is done.
    """
    started = time.monotonic()
    ended = "[red]✗[/]"
    try:
        with (_bar if _animated() else _lines)(name, total) as advance:
            yield advance
        ended = "[green]✓[/]"
    finally:
        remark = f"  {escape(remark)}" if remark else ""
        console.print(f"{ended} {escape(name)}{remark}  [dim]{_seconds(time.monotonic() - started)}[/]", soft_wrap=True)


@contextmanager
def waiting(name: str) -> Iterator[None]:
    """Show a spinner that leaves nothing behind; without a terminal, show nothing."""
    if not _animated():
        yield
        return
    with _bar(name, None):
        yield


def fail(text: str) -> None:
    """Print the one line that a person reads when something went wrong."""
    console.print(f"[red]longrun:[/] {escape(text)}", soft_wrap=True)
