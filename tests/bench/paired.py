"""The same `longrun` command with a server and without one, timed by turns."""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from longrun_training import terminal


@dataclass(frozen=True)
class Pair:
    """The same work with a server and without.

    Attributes:
        with_server: Seconds, each time.
        without: Seconds, each time.
    """

    with_server: Sequence[float]
    without: Sequence[float]

    @property
    def seconds(self) -> float:
        """What the server adds, of the medians."""
        return statistics.median(self.with_server) - statistics.median(self.without)

    @property
    def share(self) -> float:
        """The same, of the time without one."""
        return self.seconds / statistics.median(self.without)


def timed(folder: Path, *arguments: str, module: str = "longrun_training.cli", statuses: Sequence[int] = (0,)) -> tuple[float, str]:
    """Run `longrun` and return for how long, and what it printed."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode not in statuses:
        terminal.fail(f"longrun {arguments[0]} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        raise typer.Exit(1)
    return seconds, done.stdout


def compare(folder: Path, name: str, repeats: int, *arguments: str) -> Pair:
    """Run the same training with the server and without, by turns, so that a machine that gets slower does so for both."""
    with_server: list[float] = []
    without: list[float] = []
    with terminal.step(name, 2 * repeats) as advance:
        for number in range(repeats):
            for module, times in [("longrun_training.cli", with_server), ("tests.bench.untracked", without)][:: -1 if number % 2 else 1]:
                times.append(timed(folder, *arguments, module=module)[0])
                advance()
    return Pair(with_server, without)
