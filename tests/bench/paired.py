"""The same `longrun` command with a server and without one, timed by turns."""

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
        """What the server adds: of the best times, for whatever else a machine does makes either longer, and by more than this."""
        return min(self.with_server) - min(self.without)

    @property
    def share(self) -> float:
        """The same, of the time without one."""
        return self.seconds / min(self.without)

    @property
    def spread(self) -> float:
        """How far the times without one lie apart: what a difference is to be read beside, in seconds."""
        return max(self.without) - min(self.without)


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
