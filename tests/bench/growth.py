"""Ours as its history grows: the same questions with a thousand, a hundred thousand and a million runs in its database."""

import json
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from longrun_controller.errors import ProblemError
from longrun_training import terminal

from tests.bench import history
from tests.bench.columns import LOGIN, Bench
from tests.bench.loads import Call, ask, block
from tests.bench.memory import restart
from tests.bench.operations import OPERATIONS, SINCE_MS, Operation, Seeds, experiment, health
from tests.bench.results import HEALTH, Timings

SIZES = (1_000, 100_000, 1_000_000)
ASKED = ("search-time", "create", "log-metric", "log-batch", "get")
# At once in PostgreSQL; each is one turn of the progress bar.
CHUNK = 150_000
BLOCK_SECONDS = 1.0
ROUNDS = 2
FRESH_RUNS = 200


class _Grown(Seeds):
    """The seeds of a history whose searched experiment has a thousand runs, and which is asked for any of its runs."""

    runs = history.RUNS_AN_EXPERIMENT

    def searched_run(self, number: int) -> str:
        """Return any run of the whole history: far apart, as nobody asks for neighbours."""
        return history.run_id(self.name, number * 7919 % self.runs)


def grow(bench: Bench, sizes: Sequence[int] = SIZES) -> dict[int, dict[str, Timings]]:
    """Empty the database of ours, and measure it with one client at each size.

    Experiments have a thousand runs each; the one that is searched is the user's own.

    Returns:
        Number of runs -> operation, and `HEALTH` as a control -> timings.

    Raises:
        ProblemError: The experiments do not follow one another.
    """
    ours, name = bench.ours, f"growth-{time.time_ns()}"
    bench.host.psql(ours.database, history.EMPTY)
    # What an instance may remember of runs that are gone is gone as well.
    restart(bench, ours)
    seeds = _Grown(experiment(ours, f"{name}-written"), experiment(ours, f"{name}-searched"), name, FRESH_RUNS)
    others = max(sizes) // history.RUNS_AN_EXPERIMENT - 1
    if others:
        bench.host.psql(ours.database, history.EXPERIMENTS, {"name": name, "since": SINCE_MS, "count": others})
    _let_read(bench, name)
    last = experiment(ours, f"{name}-last")
    if int(last) != int(seeds.searched) + others + 1:
        message = f"experiments {seeds.searched} to {last} should be {others + 1}: somebody else makes some on this host"
        raise ProblemError(message)
    bare: dict[str, str | int] = {"since": SINCE_MS, "each": FRESH_RUNS, "first": 0, "last": FRESH_RUNS - 1}
    bench.host.psql(ours.database, history.BARE, bare | {"name": f"{name}-fresh", "experiment": seeds.written})
    operations = [operation for operation in OPERATIONS if operation.name in ASKED]
    found: dict[int, dict[str, Timings]] = {}
    there = 0
    for size in sizes:
        parts = list(history.chunks(there, size, CHUNK))
        with terminal.step(f"{size:,} runs", len(parts) + 2) as advance:
            bench.host.psql(ours.database, history.WITHOUT_INDEXES)
            for first, end in parts:
                values: dict[str, str | int] = {"since": SINCE_MS, "name": name, "experiment": seeds.searched, "each": history.RUNS_AN_EXPERIMENT}
                bench.host.psql(ours.database, history.RUNS, values | {"first": first, "last": end})
                advance()
            for sessions in (history.INDEXES, history.SETTLE):
                bench.host.psql(ours.database, sessions)
                advance()
        there = seeds.runs = size
        found[size] = _ask(bench, seeds, operations)
    return found


def _let_read(bench: Bench, name: str) -> None:
    """Let the user of the pipelines read the runs of all experiments, as one role for a team does."""

    def post(path: str, content: object) -> Any:  # noqa: ANN401 - JSON
        return ask(bench.administrator, Call("POST", f"/api/3.0/mlflow/roles/{path}", json.dumps(content).encode()))

    role = post("create", {"name": name, "workspace": "default"})["role"]["id"]
    post("permissions/add", {"role_id": role, "resource_type": "experiment", "resource_pattern": "*", "permission": "READ"})
    post("assign", {"username": LOGIN, "role_id": role})


def _ask(bench: Bench, seeds: Seeds, operations: Sequence[Operation]) -> dict[str, Timings]:
    target = bench.ours.target
    calls = {operation.name: operation.calls for operation in operations} | {HEALTH: health}
    found: dict[str, Timings] = {}
    with terminal.step("asking", (1 + ROUNDS) * len(calls)) as advance:
        for number in range(1 + ROUNDS):
            for name, of in calls.items():
                again = block(target, partial(of, seeds), clients=1, seconds=BLOCK_SECONDS if number else BLOCK_SECONDS / 4, least=10)
                # The first one is to warm up.
                if number:
                    found[name] = found.get(name, Timings((), 0.0)) + again
                advance()
    return found
