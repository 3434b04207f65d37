"""How much memory the application tiers take, and how long they take to start."""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from longrun_controller.errors import ProblemError
from longrun_training import terminal

from tests.bench.columns import Bench, Column
from tests.bench.results import NAMES

# Nothing is answered any more; what was asked for has been given back.
SETTLE_SECONDS = 3.0
LOOK_SECONDS = 30.0


def restart(bench: Bench, column: Column) -> float:
    """Restart every instance of a column at once, and return the seconds until each of them answers."""
    wait = "\n".join(f"until curl --silent --fail --max-time 5 --output /dev/null {each}/health; do sleep 0.1; done" for each in column.sockets)
    # Measured on the host: the way there is no part of it.
    script = f"begun=$EPOCHREALTIME; systemctl restart {' '.join(column.units)}\n{wait}\necho $begun $EPOCHREALTIME"
    begun, ended = map(float, bench.host.script(script).split())
    return ended - begun


def starts(bench: Bench, repeats: int) -> dict[str, list[float]]:
    """Restart every column so often, by turns."""
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    with terminal.step("restarts", repeats * len(NAMES)) as advance:
        for number in range(repeats):
            for name in NAMES[:: -1 if number % 2 else 1]:
                found[name].append(restart(bench, bench.columns[name]))
                advance()
    return found


def shares(bench: Bench) -> dict[str, tuple[int, int]]:
    """Return bytes and number of processes of every column's application tier, as it is now."""
    time.sleep(SETTLE_SECONDS)
    seen = {name: bench.host.memory(bench.columns[name].units) for name in NAMES}
    return {name: (found["bytes"], found["processes"]) for name, found in seen.items()}


@contextmanager
def watched(bench: Bench, units: Sequence[str]) -> Iterator[list[Mapping[str, int]]]:
    """Look at services while the block runs; afterwards, what was yielded holds what was seen, oldest first.

    Raises:
        ProblemError: Nothing can be seen.
    """
    seen: list[Mapping[str, int]] = []
    process = bench.host.watch(units)
    looked = threading.Event()

    def read() -> None:
        for line in process.stdout or ():
            seen.append(json.loads(line))
            looked.set()
        looked.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        # The block begins when the first look was taken.
        if not looked.wait(LOOK_SECONDS) or not seen:
            message = f"on the host: the memory of {', '.join(units)} can't be looked at"
            raise ProblemError(message)
        yield seen
        assert process.stdin
        process.stdin.close()
        reader.join(LOOK_SECONDS)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()


def spilled(bench: Bench, log: str | None) -> int:
    """Return how many lines of one of nginx's logs tell of a temporary file."""
    return int(bench.host.script(f"grep -c 'buffered to a temporary file' {log} || true")) if log else 0
