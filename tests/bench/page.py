"""What the server's benchmark says: the page, the numbers and the picture."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from longrun_training.figures import PALETTE, styled
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from tests.bench.aims import LEAST_OF_PRESIGNED, MOST_GROWN, TIMES_STOCK, Aim, judge, number
from tests.bench.operations import BLOCK_SECONDS, OPERATIONS, STOCK_BLOCK_SECONDS
from tests.bench.results import CLIENTS, GET, HEALTH, NAMES, OURS, PRESIGNED, PUT, STOCK, STORE, TUNED, Loads, Results, Timings

LABELS = {operation.name: operation.label for operation in OPERATIONS}
COLOURS = {STOCK: PALETTE[5], TUNED: PALETTE[1], OURS: PALETTE[0], PRESIGNED: PALETTE[2]}
NAMED = {STOCK: "stock", TUNED: "tuned stock", OURS: "ours", PRESIGNED: "presigned", STORE: "MinIO alone"}


def mark(*, met: bool) -> str:
    """Return the sign of an aim."""
    return "✓" if met else "✗"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|---|" + "--:|" * (len(headings) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _ms(timings: Timings) -> str:
    failed = f", {timings.failed} failed" if timings.failed else ""
    return f"{number(1000 * timings.median)} ({number(1000 * timings.p95)}{failed})"


def _rate(timings: Timings) -> str:
    failed = f" ({timings.failed} failed)" if timings.failed else ""
    return f"{number(timings.per_second)}{failed}"


def _verdict(aims: Sequence[Aim]) -> str:
    parts = list(dict.fromkeys(aim.part for aim in aims))
    blocks = []
    for part in parts:
        rows = [[aim.what, f"**{aim.measured}**", aim.wanted, mark(met=aim.met), aim.by] for aim in aims if aim.part == part]
        blocks.append(_table([part, "measured", "aim", "", "by"], rows))
    return "\n\n".join(blocks)


def _operations(results: Results) -> Iterator[str]:
    if not results.operations:
        return
    yield "## Operations\n"
    rows = []
    for name, table in results.operations.items():
        one = {column: table[column][1] for column in NAMES}
        ratios = [number(one[OURS].median / one[column].median) for column in (STOCK, TUNED)]
        rows.append([LABELS[name], *(_ms(one[column]) for column in NAMES), *ratios])
    yield "One client: median and p95 (in brackets) in ms, and ours as a share of the others' medians.\n"
    yield _table(["1 client", *(NAMED[name] for name in NAMES), "ours / stock", "ours / tuned"], rows) + "\n"
    floors = [f"`GET /health` through the same nginx {_ms(results.health[1])}"] if 1 in results.health else []
    if results.durable:
        floors.append(f"one SQL statement that stores 20 metrics, committed to disk, {_ms(results.durable)}")
    if floors:
        yield f"The floors, in ms as above: {'; '.join(floors)}.\n"
    for clients in CLIENTS[1:]:
        rows = []
        for name, table in results.operations.items():
            many = {column: table[column][clients] for column in NAMES}
            ratios = [f"{number(many[OURS].per_second / many[column].per_second)}×" for column in (STOCK, TUNED)]
            rows.append([LABELS[name], *(_rate(many[column]) for column in NAMES), *ratios, _ms(many[OURS])])
        if clients in results.health:
            health = results.health[clients]
            rows.append(["`GET /health`, the floor", "", "", _rate(health), "", "", _ms(health)])
        yield f"{clients} clients: requests a second.\n"
        yield _table([f"{clients} clients", *(NAMED[name] for name in NAMES), "ours / stock", "ours / tuned", "ours, ms"], rows) + "\n"


def _artifacts(results: Results) -> Iterator[str]:
    artifacts = results.artifacts
    if not artifacts:
        return
    yield "## Artifacts\n"
    large, ways = artifacts.large, (STORE, PRESIGNED, *NAMES)
    rows = []
    for direction in (PUT, GET):
        ratios = [
            f"{number(large.rate(direction, OURS) / large.rate(direction, STOCK))}×",
            number(large.rate(direction, OURS) / large.rate(direction, PRESIGNED)),
        ]
        rows.append([f"{direction}, {large.megabytes} MB", *(number(large.rate(direction, way)) for way in ways), *ratios])
    yield "Large: MB a second. A presigned transfer through the same nginx is what there is to reach; MinIO alone has no TLS, and the client on its own host.\n"
    yield _table(["", *(NAMED[way] for way in ways), "ours / stock", "ours / presigned"], rows) + "\n"
    rows = []
    for name, row in artifacts.small.items():
        ratios = [number(row[OURS].median / row[column].median) for column in (STOCK, TUNED)]
        rows.append([name, *(_ms(row[column]) for column in NAMES), *ratios])
    yield "Small, one client: median and p95 in ms.\n"
    yield _table(["", *(NAMED[name] for name in NAMES), "ours / stock", "ours / tuned"], rows) + "\n"
    rows = []
    for name in NAMES:
        up, down = (artifacts.growth[direction][name] for direction in (PUT, GET))
        size = f"{up.megabytes:,} MB"
        cells = [f"{number(seen.grown_mib)} MiB" for seen in (up, down)]
        disk = f"{number(max(up.temporary_bytes, down.temporary_bytes) / 1e6)} MB" if up.temporary_bytes or down.temporary_bytes else "none"
        truths = ["yes" if true else "no" for true in (artifacts.resumes[name], artifacts.whole_or_nothing[name])]
        rows.append([NAMED[name], size, *cells, disk, *truths])
    yield "What one transfer does to MLflow and nginx, and what becomes of one that breaks off.\n"
    yield _table(["", "file", "memory, PUT", "memory, GET", "temporary file", "download resumes", "upload leaves nothing"], rows) + "\n"


def _wire(loads: Loads, *, first: bool) -> str:
    each = loads.first if first else loads.second
    size, seconds = statistics.median(load.wire_bytes for load in each), statistics.median(load.seconds for load in each)
    return f"{number(size / 1e3)} KB, {number(seconds)} s"


def _pages(results: Results) -> Iterator[str]:
    if not results.pages:
        return
    yield "## Pages in Chromium\n"
    rows = [
        [f"{page}, {'first' if first else 'second'} load", *(_wire(columns[name], first=first) for name in NAMES)]
        for page, columns in results.pages.items()
        for first in (True, False)
    ]
    yield "On the wire, and until there is something to see.\n"
    yield _table(["", *(NAMED[name] for name in NAMES)], rows) + "\n"


def _processes(results: Results) -> Iterator[str]:
    if not results.memory and not results.start:
        return
    yield "## Memory and start\n"
    rows = []
    if results.memory:
        rows.append(["memory, idle, MiB", *(number(results.memory[name].idle_bytes / 2**20) for name in NAMES)])
        rows.append(["memory at the end, MiB", *(number(results.memory[name].loaded_bytes / 2**20) for name in NAMES)])
        rows.append(["processes", *(str(results.memory[name].processes) for name in NAMES)])
    if results.start:
        rows.append(["restart until every instance answers, s", *(number(statistics.median(results.start[name])) for name in NAMES)])
    yield "Memory is the proportional share (PSS) of MLflow's processes.\n"
    yield _table(["", *(NAMED[name] for name in NAMES)], rows) + "\n"


def _growth(results: Results) -> Iterator[str]:
    if not results.growth:
        return
    yield "## Growth\n"
    sizes = sorted(results.growth)
    rows = []
    for name, smallest in results.growth[sizes[0]].items():
        medians = [results.growth[size][name] for size in sizes]
        label = "`GET /health`, as a control" if name == HEALTH else LABELS[name]
        rows.append([label, *map(_ms, medians), f"{number(medians[-1].median / smallest.median)}×"])
    yield "Ours with one client, while its database grows, in experiments of a thousand runs: median and p95 in ms.\n"
    yield _table(["", *(f"{size:,} runs" for size in sizes), "last / first"], rows) + "\n"


def _training(results: Results) -> Iterator[str]:
    if not results.training:
        return
    pair = results.training
    yield "## A training\n"
    yield (
        f"Recorded by ours, a whole `longrun train` takes {pair.seconds:+.1f} s ({100 * pair.share:+.0f} %) against a recorder that records nothing "
        f"({len(pair.without)} of each, by turns). [training.md](training.md) has more of it.\n"
    )


def render(results: Results) -> str:
    """Return the page as Markdown."""
    context, aims = results.context, judge(results)
    met = sum(aim.met for aim in aims)
    short = " This is the short form: fewer repetitions, smaller files, fewer runs." if context.quick else ""
    parts = [each for part in (_operations, _artifacts, _pages, _processes, _growth, _training) for each in part(results)]
    return f"""# How fast the server is

Made by `make bench` in {context.minutes:.0f} minutes: three servers on one host, asked by the same client over the network, by turns, block after block.{short}

- **Stock** is `mlflow server --app-name basic-auth --serve-artifacts` as it starts by itself, without TLS.
- **Tuned stock** is the same code as well as settings make it: passwords remembered, one worker a unix socket, {context.instances} of them as ours has,
  no job runner, the same nginx with TLS.
- **Ours** is what `make deploy` installs.

All have the same MLflow ({context.mlflow}), PostgreSQL and MinIO; who asks is no administrator. Clients, servers and databases share the machine:
{context.cores} cores, {context.processor}, {context.loop_ns:.0f} ns for one turn of an empty loop in Python, load {context.load:.1f} before and
{context.load_after:.1f} at the end. Another machine has other times; what is meant to hold on all of them are the ratios.

![Against stock with 8 clients, against tuned stock with one, artifacts, and latency over the number of runs](server.png)

## Aims: {met} of {len(aims)} met

{_verdict(aims)}

{chr(10).join(parts)}
## How it is measured

- Clients are threads, each with one kept-alive connection of Python's `http.client` and the headers of MLflow's client; answers are read whole and not
  unpacked. A client asks again as soon as it has its answer. Before anything is timed, every kind of answer is checked on every server.
- A block is {number(BLOCK_SECONDS)} s ({number(STOCK_BLOCK_SECONDS)} s for stock), and until every client has had an answer; {max(CLIENTS)} clients ask
  stock once each. A second round looks at ours, and at tuned stock with one client. Median and p95 are over all blocks; requests a second are answers
  over the blocks' whole time.
- The three databases hold the same: 5,000 finished runs in one experiment, one of them with a metric of 10,000 points, and runs that nothing was logged to.
- The durable floor is one statement from psycopg2 on the host, against the same tables. A presigned transfer takes the nginx before tuned stock, which is
  set up as ours is. MinIO alone is asked by curl on the host itself.
- An artifact is one PUT or GET of the path that MLflow's client uses; the large one goes each way twice, and a third time for ours and presigned. Memory is
  looked at in transfers of their own, which are not timed.
- A page is loaded by a fresh Chromium, and again in the same one; bytes are those that the browser itself counts, headers included.
- For growth, the database of ours is emptied and filled with rows as MLflow writes them for a small run.
"""


def to_json(results: Results) -> dict[str, Any]:
    """Return everything that was measured."""
    return {
        "context": asdict(results.context),
        "aims": [asdict(aim) for aim in judge(results)],
        "operations": {
            name: {column: {str(clients): timings.to_json() for clients, timings in each.items()} for column, each in table.items()}
            for name, table in results.operations.items()
        },
        "floors": {
            HEALTH: {str(clients): timings.to_json() for clients, timings in results.health.items()},
            "durable": results.durable.to_json() if results.durable else None,
        },
        "artifacts": _artifacts_json(results),
        "pages": {page: {name: asdict(loads) for name, loads in columns.items()} for page, columns in results.pages.items()},
        "memory": {name: asdict(memory) for name, memory in results.memory.items()},
        "start_seconds": {name: list(seconds) for name, seconds in results.start.items()},
        "growth": {str(size): {name: timings.to_json() for name, timings in found.items()} for size, found in results.growth.items()},
        "training": asdict(results.training) if results.training else None,
    }


def _artifacts_json(results: Results) -> dict[str, Any] | None:
    artifacts = results.artifacts
    if not artifacts:
        return None
    return {
        "small": {name: {column: timings.to_json() for column, timings in row.items()} for name, row in artifacts.small.items()},
        "large": asdict(artifacts.large),
        "growth": {direction: {name: asdict(seen) for name, seen in each.items()} for direction, each in artifacts.growth.items()},
        "resumes": dict(artifacts.resumes),
        "whole_or_nothing": dict(artifacts.whole_or_nothing),
    }


def _bars(axes: Axes, labels: Sequence[str], bars: Mapping[str, Sequence[float]]) -> None:
    """Draw horizontal bars in groups, the first label on top."""
    height = 0.8 / len(bars)
    for place, (name, values) in enumerate(bars.items()):
        rows = [row + (place - (len(bars) - 1) / 2) * height for row in range(len(labels))]
        drawn = axes.barh(rows, values, height, color=COLOURS[name], label=NAMED[name])
        axes.bar_label(drawn, [number(value) for value in values], padding=2, fontsize=8)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.margins(x=0.15)


def _logarithmic(axes: Axes, ticks: Sequence[float]) -> None:
    """Make the x axis one of powers, with plain numbers: the pictures' style reads no formulas, which matplotlib would write."""
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_operations(throughput: Axes, latency: Axes, results: Results) -> None:
    tables = results.operations
    labels = [LABELS[name] for name in tables]
    ratios = {column: [table[column][8].per_second / table[STOCK][8].per_second for table in tables.values()] for column in (TUNED, OURS)}
    _bars(throughput, labels, ratios)
    throughput.axvline(TIMES_STOCK, color="black", linestyle="--", linewidth=1)
    _logarithmic(throughput, (1, 10, 100, 1000))
    throughput.set(xlabel=f"times stock's requests a second (dashed: aim, {TIMES_STOCK:.0f})", title="8 clients")
    throughput.legend(frameon=False, loc="upper left", bbox_to_anchor=(0.0, -0.1), ncols=2)
    _bars(latency, labels, {OURS: [table[OURS][1].median / table[TUNED][1].median for table in tables.values()]})
    bounds = {operation.name: operation.against_tuned for operation in OPERATIONS}
    for row, name in enumerate(tables):
        if bound := bounds[name]:
            latency.plot([bound, bound], [row - 0.4, row + 0.4], color="black", linestyle="--", linewidth=1)
    latency.set(xlim=(0, None), xlabel="share of tuned stock's median (dashed: aims)", title="1 client")


def _draw_artifacts(axes: Axes, results: Results) -> None:
    if not results.artifacts:
        return
    large = results.artifacts.large
    shares = {way: [large.rate(direction, way) / large.rate(direction, PRESIGNED) for direction in (PUT, GET)] for way in NAMES}
    _bars(axes, [f"{direction}\n{large.megabytes} MB" for direction in (PUT, GET)], shares)
    axes.axvline(LEAST_OF_PRESIGNED, color="black", linestyle="--", linewidth=1)
    axes.set(xlabel=f"share of a presigned transfer's speed (dashed: aim, {LEAST_OF_PRESIGNED})", title="Artifacts")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0.0, -0.14), ncols=3)


def _draw_growth(axes: Axes, results: Results) -> None:
    sizes = sorted(results.growth)
    if not sizes:
        return
    for place, name in enumerate(results.growth[sizes[0]]):
        medians = [results.growth[size][name].median for size in sizes]
        label, line = ("GET /health", ":") if name == HEALTH else (LABELS[name].replace("search 100 of 5,000", "search"), "-")
        axes.plot(sizes, [value / medians[0] for value in medians], line, marker="o", color=PALETTE[place % len(PALETTE)], label=label)
    axes.axhline(MOST_GROWN, color="black", linestyle="--", linewidth=1)
    _logarithmic(axes, sizes)
    axes.set(ylim=(0, None), xlabel="runs in the database", ylabel=f"times the median at {sizes[0]:,}", title="Growth (dashed: aim)")
    axes.legend(frameon=False, fontsize=9)


def draw(results: Results) -> Figure:
    """Draw the ratios against the aims; what was not measured stays empty."""
    with styled():
        figure = Figure(figsize=(14, 9), layout="constrained")
        (throughput, latency), (artifacts, growth) = figure.subplots(2, 2, height_ratios=(3, 2))
        if results.operations:
            _draw_operations(throughput, latency, results)
        _draw_artifacts(artifacts, results)
        _draw_growth(growth, results)
    return figure


def write(results: Results, folder: Path) -> None:
    """Write server.md, server.json and server.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "server.md").write_text(render(results), encoding="utf-8")
    (folder / "server.json").write_text(json.dumps(to_json(results), indent=2) + "\n", encoding="utf-8")
    with styled():
        draw(results).savefig(folder / "server.png")
