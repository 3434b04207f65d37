"""What the server is to be: every aim as a ratio or a number, and whether a run of the benchmark met it."""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.operations import OPERATIONS
from tests.bench.results import GET, OURS, PRESIGNED, PUT, STOCK, TUNED, Results

TIMES_STOCK = 40.0
MOST_FLOORS = 8.0
LEAST_OF_PRESIGNED, TIMES_STOCKS_TRANSFER = 0.8, 3.0
MOST_GROWTH_MIB = 50.0
FIRST_MB, SECOND_KB = 1.4, 50.0
MOST_MIB, MOST_START_SECONDS = 700.0, 15.0
MOST_GROWN = 2.0
MOST_MINUTES = 15.0


@dataclass(frozen=True)
class Aim:
    """One line of the verdict.

    Attributes:
        part: What it belongs to.
        what: Is measured.
        measured: What came out.
        wanted: What should.
        met: Whether it did.
        by: By how much it was met or missed.
    """

    part: str
    what: str
    measured: str
    wanted: str
    met: bool
    by: str


def number(value: float) -> str:
    """Return a number with as many digits as say something."""
    if math.isnan(value):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def at_least(part: str, what: str, value: float, bound: float, unit: str = "") -> Aim:
    """Return an aim that a larger value meets."""
    met = value >= bound
    by = f"{number(value / bound)} times the aim" if met else f"{100 * (1 - value / bound):.0f} % short"
    return Aim(part, what, f"{number(value)}{unit}", f"≥ {bound:g}{unit}", met, by)


def at_most(part: str, what: str, value: float, bound: float, unit: str = "") -> Aim:
    """Return an aim that a smaller value meets."""
    met = value <= bound
    if not bound:
        by = "" if met else f"{number(value)} too many"
    else:
        by = f"{100 * (1 - value / bound):.0f} % below" if met else f"{100 * (value / bound - 1):.0f} % above"
    return Aim(part, what, f"{number(value)}{unit}", f"≤ {bound:g}{unit}", met, by)


def holds(part: str, what: str, *, true: bool) -> Aim:
    """Return an aim that is met or not."""
    return Aim(part, what, "yes" if true else "no", "yes", true, "")


def _of_operations(results: Results) -> Iterator[Aim]:
    part = "8 clients, requests a second against stock"
    labels = {operation.name: operation.label for operation in OPERATIONS}
    for name, table in results.operations.items():
        yield at_least(part, labels[name], table[OURS][8].per_second / table[STOCK][8].per_second, TIMES_STOCK, "×")
    part = "1 client, median against tuned stock"
    bounds = {operation.name: operation.against_tuned for operation in OPERATIONS}
    for name, table in results.operations.items():
        if bound := bounds[name]:
            yield at_most(part, labels[name], table[OURS][1].median / table[TUNED][1].median, bound)
    if results.durable and "log-batch" in results.operations:
        ratio = results.operations["log-batch"][OURS][1].median / results.durable.median
        yield at_most("1 client, median against the durable floor", labels["log-batch"], ratio, MOST_FLOORS, "×")


def _of_failures(results: Results) -> Iterator[Aim]:
    timings = [each for table in results.operations.values() for each in table[OURS].values()]
    timings += [each for found in results.growth.values() for each in found.values()]
    if timings:
        yield at_most("calls of ours", "refused or broken", sum(each.failed for each in timings), 0)


def _of_artifacts(results: Results) -> Iterator[Aim]:
    if not results.artifacts:
        return
    artifacts, part = results.artifacts, "artifacts"
    large = artifacts.large
    for direction in (PUT, GET):
        what = f"{direction} of {large.megabytes} MB"
        yield at_least(part, f"{what}, of a presigned transfer", large.rate(direction, OURS) / large.rate(direction, PRESIGNED), LEAST_OF_PRESIGNED)
        yield at_least(part, f"{what}, against stock", large.rate(direction, OURS) / large.rate(direction, STOCK), TIMES_STOCKS_TRANSFER, "×")
    for direction in (PUT, GET):
        seen = artifacts.growth[direction][OURS]
        yield at_most(part, f"memory grown by a {direction} of {seen.megabytes:,} MB", seen.grown_mib, MOST_GROWTH_MIB, " MiB")
        yield holds(part, f"no temporary file on the server, {direction}", true=not seen.temporary_bytes and not seen.spilled)
    yield holds(part, "a download that broke off goes on where it stopped", true=artifacts.resumes[OURS])
    yield holds(part, "an upload that broke off leaves nothing to see", true=artifacts.whole_or_nothing[OURS])


def _of_pages(results: Results) -> Iterator[Aim]:
    for page, columns in results.pages.items():
        loads = columns[OURS]
        first, second = (statistics.median(load.wire_bytes for load in each) for each in (loads.first, loads.second))
        yield at_most("pages on the wire", f"{page}, first load", first / 1e6, FIRST_MB, " MB")
        yield at_most("pages on the wire", f"{page}, second load", second / 1e3, SECOND_KB, " KB")


def _of_processes(results: Results) -> Iterator[Aim]:
    if OURS in results.memory:
        yield at_most("application tier", "memory, idle or after everything", results.memory[OURS].most_mib, MOST_MIB, " MiB")
    if OURS in results.start:
        yield at_most("application tier", "ready after a restart", statistics.median(results.start[OURS]), MOST_START_SECONDS, " s")


def _of_growth(results: Results) -> Iterator[Aim]:
    if len(results.growth) < 2:
        return
    smallest, largest = min(results.growth), max(results.growth)
    labels = {operation.name: operation.label for operation in OPERATIONS} | {"search-time": "search by time in an experiment"}
    for name, before in results.growth[smallest].items():
        if name in labels:
            part = f"median at {largest:,} runs against {smallest:,}"
            yield at_most(part, labels[name], results.growth[largest][name].median / before.median, MOST_GROWN, "×")


def _of_the_benchmark(results: Results) -> Iterator[Aim]:
    everything = (results.operations, results.artifacts, results.pages, results.memory, results.start, results.growth)
    if all(everything) and not results.context.quick:
        yield at_most("the benchmark", "from the command to its end", results.context.minutes, MOST_MINUTES, " min")


def judge(results: Results) -> list[Aim]:
    """Return a line for each aim whose part was measured."""
    parts = (_of_operations, _of_failures, _of_artifacts, _of_pages, _of_processes, _of_growth, _of_the_benchmark)
    return [aim for part in parts for aim in part(results)]
