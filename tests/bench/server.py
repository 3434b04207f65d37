"""Stock, tuned stock and ours beside one another, on a host that is made for it and removed afterwards: `make bench`.

`--quick` and `--only` are for the work on the server; what they write goes to tests/bench/logs. A whole run writes docs/benchmarks/server.md.
"""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import pytest
import typer
from longrun_controller.errors import ProblemError
from longrun_training import terminal

from tests.bench import artifacts, browser, growth, memory, operations, page
from tests.bench.aims import judge
from tests.bench.columns import DEFAULT, LOG, Bench, ensure_users, environment, fail, interruptible
from tests.bench.operations import OPERATIONS, Operation, Seeds
from tests.bench.paired import Pair, compare
from tests.bench.results import NAMES, Context, Memory, Results
from tests.servers import ROOT, Server

PARTS = ("start", "operations", "artifacts", "pages", "memory", "training", "growth")
LOOP_TURNS = 2_000_000
INTERRUPTED = 130


@dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
        rounds: How often each block is repeated; starts, pages and trainings, which take long, are measured once.
        fresh_runs: Runs that nothing was logged to, of each server.
        megabytes: Size of a large artifact.
        largest: Size of the one that is sent to ours while its memory is looked at.
        grown: Runs in the database.
    """

    rounds: int
    fresh_runs: int
    megabytes: int
    largest: int
    grown: Sequence[int]


FULL = Size(2, 8000, 512, 5000, growth.SIZES)
QUICK = Size(1, 4000, 64, 64, growth.SIZES[:2])


def _processor() -> str:
    """Return the processor's name, where the system tells it."""
    found = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
    return found[0] if found else "an unnamed processor"


def _loop_ns() -> float:
    """Return how long one turn of an empty loop takes, in ns: the best of some, as anything that disturbs makes it longer."""

    def once() -> float:
        started = time.perf_counter()
        for _ in range(LOOP_TURNS):
            pass
        return 1e9 * (time.perf_counter() - started) / LOOP_TURNS

    return min(once() for _ in range(5))


def _chosen(only: str) -> tuple[list[str], list[Operation]]:
    """Return the parts and the operations that are meant.

    Raises:
        ProblemError: A name is neither.
    """
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = {operation.name: operation for operation in OPERATIONS}
    if unknown := [name for name in names if name not in PARTS and name not in known]:
        message = f"--only {', '.join(unknown)}: there are {', '.join(PARTS)}, and of the operations {', '.join(known)}"
        raise ProblemError(message)
    picked = [known[name] for name in names if name in known]
    parts = [part for part in PARTS if not names or part in names or (part == "operations" and picked)]
    return parts, picked or list(OPERATIONS)


def _training(env: str) -> Pair:
    """Time a whole training with ours and without any server."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "LONGRUN_", "GITHUB_")) or name == "CI"]:
        del os.environ[name]
    os.environ |= {**Server(env, LOG).client(), "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    with TemporaryDirectory() as folder:
        return compare(Path(folder), "training, recorded and not", 1, "train", "--model", f"bench-{int(time.time())}")


def _measure(bench: Bench, env: str, parts: Sequence[str], chosen: Sequence[Operation], size: Size) -> Results:
    """Measure the parts one after another; growth comes last, for it empties the database of ours. How long it took is not known yet."""
    load, loop_ns = os.getloadavg()[0], _loop_ns()
    start = memory.starts(bench, 1)
    ensure_users(bench)
    seeds = _seed(bench, size) if {"operations", "artifacts", "pages", "memory"} & set(parts) else {}
    idle = memory.shares(bench) if "memory" in parts else {}
    measured = operations.measure(bench, seeds, chosen, size.rounds) if "operations" in parts else operations.Measured()
    stored = artifacts.measure(bench, seeds, megabytes=size.megabytes, largest=size.largest, rounds=size.rounds) if "artifacts" in parts else None
    pages = browser.measure(bench, seeds, 1) if "pages" in parts else {}
    loaded = memory.shares(bench) if "memory" in parts else {}
    training = _training(env) if "training" in parts else None
    grown = growth.grow(bench, size.grown) if "growth" in parts else {}
    context = Context(
        cores=os.cpu_count() or 0,
        processor=_processor(),
        loop_ns=loop_ns,
        load=load,
        load_after=os.getloadavg()[0],
        mlflow=bench.host.script("readlink /opt/longrun/mlflow/current | sed 's#.*/##; s/-.*//'").strip(),
        instances=len(bench.ours.units),
        minutes=math.nan,
        quick=size is QUICK,
    )
    return Results(
        context,
        operations=measured.operations,
        health=measured.health,
        durable=measured.durable,
        artifacts=stored,
        pages=pages,
        memory={name: Memory(share, *loaded[name]) for name, (share, _) in idle.items()},
        start=start if "start" in parts else {},
        growth=grown,
        training=training,
    )


def _seed(bench: Bench, size: Size) -> dict[str, Seeds]:
    seeds: dict[str, Seeds] = {}
    with terminal.step("5,000 runs in each database, and one call of each kind", len(NAMES)) as advance:
        for name in NAMES:
            seeds[name] = operations.seed(bench, bench.columns[name], fresh_runs=size.fresh_runs)
            operations.verify(bench.columns[name], seeds[name])
            advance()
    return seeds


def main(
    only: Annotated[str, typer.Option(metavar="NAME,NAME", help=f"Parts ({', '.join(PARTS)}) or operations; the rest is left out.")] = "",
    *,
    quick: Annotated[bool, typer.Option(help="Fewer repetitions, smaller artifacts, 100,000 runs at most.")] = False,
    env: Annotated[str, typer.Option(metavar="NAME", help="Use the host of this environment, which an earlier run kept, and leave it.")] = "",
    keep: Annotated[bool, typer.Option(help="Leave the host for the next run's --env.")] = False,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Where server.md, server.json and server.png go.")] = None,
) -> None:
    """Measure three servers on one host, and say which aims are met."""
    interruptible()
    begun = time.monotonic()
    size, name = QUICK if quick else FULL, env or DEFAULT
    folder = output or (LOG.parent if quick or only else ROOT / "docs" / "benchmarks")
    try:
        parts, chosen = _chosen(only)
        with environment(name, keep=keep, there=bool(env)) as bench:
            results = _measure(bench, name, parts, chosen, size)
    except KeyboardInterrupt:
        terminal.fail("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except (ProblemError, pytest.fail.Exception, OSError) as error:
        raise fail(error) from None
    results = replace(results, context=replace(results.context, minutes=(time.monotonic() - begun) / 60))
    page.write(results, folder)
    aims = judge(results)
    for aim in aims:
        terminal.console.print(f"{page.mark(met=aim.met)} {aim.part}: {aim.what}: {aim.measured} (aim: {aim.wanted}; {aim.by})", soft_wrap=True)
    terminal.note(f"{sum(aim.met for aim in aims)} of {len(aims)} aims met; {folder / 'server.md'}, server.json, server.png")
    raise typer.Exit(0 if all(aim.met for aim in aims) else 1)


if __name__ == "__main__":
    typer.run(main)
