"""Steps of a long run: what is being done, for how long, and where the whole output lies."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.status import Status
from rich.table import Table

from longrun_controller.errors import ProblemError

# What a person reads goes to standard error, what a program reads to standard output.
console = Console(stderr=True, highlight=False)
# Without a terminal, a step that says nothing new reports this often that it is still at work.
HEARTBEAT_SECONDS = 20.0

Describe = Callable[[str], str | None]
Diagnose = Callable[[Sequence[str]], str | None]


def seconds(duration: float) -> str:
    """Return a duration in seconds the way people say it: `4 s`, `2 min 05 s`."""
    minutes, rest = divmod(round(duration), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Step:
    """One named part of a run. Thread-safe: several jobs may report into the same step."""

    def __init__(self, name: str, log: Path | None) -> None:
        self.name = name
        self.log = log
        self._started = time.monotonic()
        self._status: Status | None = None
        self._doing: dict[str, str] = {}
        self._said = self._started
        self._lock = threading.Lock()
        self._finished = threading.Event()

    @property
    def elapsed(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._started

    def say(self, doing: str, job: str = "") -> None:
        """Show what the step (or one of its parallel jobs) is doing now; an empty text ends the job."""
        with self._lock:
            if doing:
                self._doing[job] = doing
            else:
                self._doing.pop(job, None)
            if doing and not self._status:
                self._line(doing)

    def note(self, text: str) -> None:
        """Leave a line that stays on the screen."""
        with self._lock:
            console.print(f"  [dim]·[/] {text}", soft_wrap=True)

    def _line(self, text: str) -> None:
        self._said = time.monotonic()
        console.print(f"  [dim]{self.elapsed:4.0f} s[/]  {text}", soft_wrap=True)

    def _tick(self) -> None:
        while not self._finished.wait(0.5 if self._status else 1.0):
            with self._lock:
                doing = "; ".join(self._doing.values())
                if self._status:
                    self._status.update(f"[bold]{self.name}[/] [dim]{seconds(self.elapsed)}[/]  {doing}"[: console.width + 20])
                elif time.monotonic() - self._said > HEARTBEAT_SECONDS:
                    self._line(f"still at it: {doing or self.name}")

    @contextmanager
    def showing(self, *, quiet: bool = False) -> Iterator["Step"]:
        """Keep the step's line alive while the block runs, and say how it ended.

        Args:
            quiet: Leave the screen to a program that shows its own progress.
        """
        if console.is_terminal and not quiet:
            self._status = Status(f"[bold]{self.name}[/]", console=console)
            self._status.start()
        else:
            console.print(f"[bold]{self.name}[/]")
        ticker = threading.Thread(target=self._tick, daemon=True)
        if not quiet:
            ticker.start()
        ended = "[red]✗[/]"
        try:
            yield self
            ended = "[green]✓[/]"
        finally:
            self._finished.set()
            if not quiet:
                ticker.join()
            if self._status:
                self._status.stop()
            console.print(f"{ended} {self.name}  [dim]{seconds(self.elapsed)}[/]")

    def run(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        describe: Describe,
        diagnose: Diagnose,
        cwd: Path | None = None,
        accept: frozenset[int] = frozenset({0}),
    ) -> int:
        """Run a command, keep its whole output in the log, and show what `describe` makes of each line.

        Returns:
            The exit status, one of `accept`.

        Raises:
            ProblemError: Any other exit status; the text is what `diagnose` makes of the output.
        """
        lines: list[str] = []
        with self._open_log() as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            assert process.stdout  # noqa: S101 - it is a pipe
            try:
                for line in process.stdout:
                    log.write(line)
                    lines.append(line.rstrip())
                    if doing := describe(lines[-1]):
                        self.say(doing)
                status = process.wait()
            except BaseException:
                # Ctrl-C reached the child as well: let it put its own house in order first.
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
                raise
        if status not in accept:
            reason = diagnose(lines) or next((line for line in reversed(lines) if line.strip()), "it said nothing")
            where = f" (whole output: {self.log})" if self.log else ""
            message = f"{self.name}: {reason.strip()}{where}"
            raise ProblemError(message)
        return status

    def _open_log(self) -> TextIO:
        if not self.log:
            return open("/dev/null", "a", encoding="utf-8")
        self.log.parent.mkdir(exist_ok=True)
        # Line by line, for whoever follows it.
        return open(self.log, "a", encoding="utf-8", buffering=1)


class Progress:
    """The steps of one run, and the table of their times at the end."""

    def __init__(self, logs: Path | None = None) -> None:
        self._logs = logs
        self.times: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, *, quiet: bool = False) -> Iterator[Step]:
        """Run the block as one step; its log file begins anew. `quiet` as in `Step.showing`."""
        log = self._logs / f"{name.split(maxsplit=1)[0].lower()}.log" if self._logs else None
        if log:
            log.unlink(missing_ok=True)
        step = Step(name, log)
        with step.showing(quiet=quiet):
            yield step
        self.times[name] = step.elapsed

    def table(self) -> Table:
        """Return the times of the steps so far as a table for the terminal."""
        table = Table(show_header=False, box=None, padding=(0, 1))
        table.add_column()
        table.add_column(justify="right")
        for name, duration in self.times.items():
            table.add_row(name, seconds(duration))
        table.add_row("[bold]all[/]", f"[bold]{seconds(sum(self.times.values()))}[/]")
        return table
