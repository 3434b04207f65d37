"""What recording costs a training, a sweep, and the gate and the report as the history grows: `make bench-training`, against a running server.

Everything is the command line that a pipeline calls, through TLS and login. The server may be on the same machine, and then takes its share of the
processors from the training: the ratios are the worst that a team sees.
"""

import json
import os
import statistics
import time
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from longrun_training import terminal
from longrun_training.figures import PALETTE, styled
from longrun_training.server import calm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from mlflow.entities import Metric, Param

from tests.bench.paired import Pair, compare, timed
from tests.servers import ROOT, Server
from tests.unit.training.gate_helpers import Bench, Repository, regression

MOST_OVERHEAD_SHARE, MOST_OVERHEAD_SECONDS = 0.05, 1.0
GATE_SECONDS, REPORT_SECONDS = 5.0, 10.0
# A sweep is bound by training where the server costs no more than this.
MOST_SWEEP_SHARE = 0.25
TRIALS = 200
# Whatever it finds, it has judged.
VERDICTS = (0, 1, 2)
METRICS = tuple(f"{scope}_{name}" for name in ("rmse", "mae", "r2", "median_ae") for scope in ("holdout", "cv_mean", "cv_std", "cv"))
PARAMETERS = 25
TABLES = '[metrics.rmse]\nmargin = 1.0\n[metrics.mae]\nmargin = 1.0\n[metrics.r2]\nmargin = 0.1\n[metrics.median_ae]\n[model]\nname = "{model}"\n'
# 200 small forests, 25 leaves by 8 depths, each some tenths of a second.
GRID = """
model.name = "{model}"
evaluation = {{ folds = 2, repeats = 1 }}
[sweep.parameters]
min_samples_leaf = {leaves}
max_depth = {depths}
"""


@dataclass(frozen=True)
class Growth:
    """How long gate and report take with so many runs in the experiment, in seconds, each time."""

    runs: int
    gate: Sequence[float]
    report: Sequence[float]


def _fill(bench: Bench, numbers: range) -> Iterable[None]:
    """Add runs of main that passed, each of a commit of its own that is not an ancestor of anything."""

    def add(number: int) -> None:
        tags = {
            "longrun.kind": "train",
            "longrun.model": bench.place.model,
            "longrun.uuid": str(uuid.uuid4()),
            "longrun.gate.exit_status": "0",
            "longrun.gate.verdict": "pass",
            "longrun.gate.reason": "rmse, mae, r2: no worse than the baseline by more than the margin",
            "mlflow.source.git.branch": "main",
            "mlflow.source.git.commit": f"{number:040x}",
        }
        now = int(time.time() * 1000)
        run_id = bench.client.create_run(bench.place.experiment.experiment_id, now, tags).info.run_id
        values = [Metric(name, 10.0 + number / 1000, now, 0) for name in METRICS]
        bench.client.log_batch(run_id, values, [Param(f"parameter_{index}", "x" * 20) for index in range(PARAMETERS)])
        bench.client.set_terminated(run_id)

    with ThreadPoolExecutor(4) as pool:
        yield from pool.map(add, numbers)


def _grow(folder: Path, sizes: Sequence[int], repeats: int) -> list[Growth]:
    """Judge one candidate again and again, while the experiment grows. Its baseline is the oldest run: the worst that the rule can ask for."""
    bench = Bench.open(os.environ["MLFLOW_TRACKING_URI"], f"speed-{int(time.time())}")
    repository = Repository(folder)
    base = bench.run(regression(10.0), commit=repository.commit(), exit_status=0)
    repository.branch("feature")
    commit = repository.commit()
    (folder / "longrun.toml").write_text(TABLES.format(model=bench.place.model), encoding="utf-8")
    found, there = [], 0
    for size in sizes:
        with terminal.step(f"experiment of {size} runs", size - there) as advance:
            for _ in _fill(bench, range(there, size)):
                advance()
        there = size
        candidate = bench.run(regression(10.1, seed=2), commit=commit, branch="feature", pull_request="7").info.run_id
        gates, reports = [], []
        with terminal.step("gate and report", repeats) as advance:
            for _ in range(repeats):
                seconds, judged = timed(folder, "gate", "--json", "--candidate", candidate, "--output", "gate.json", statuses=VERDICTS)
                if json.loads(judged)["baseline"]["run_id"] != base.info.run_id:
                    terminal.fail("the gate did not find its baseline")
                    raise typer.Exit(1)
                gates.append(seconds)
                seconds, _ = timed(folder, "report", "--gate", "gate.json", "--output", "report")
                reports.append(seconds)
                advance()
        found.append(Growth(size, gates, reports))
    return found


def _mark(*, met: bool) -> str:
    return "✓" if met else "✗"


def _rows(training: Pair, sweep: Pair, growth: Sequence[Growth]) -> list[tuple[str, str, str, bool]]:
    """Return what was measured, what came out, the aim, and whether it is met."""
    gate, report = (statistics.median(times) for times in (growth[-1].gate, growth[-1].report))
    small = training.seconds <= max(MOST_OVERHEAD_SECONDS, MOST_OVERHEAD_SHARE * min(training.without))
    without, bound = min(sweep.without), sweep.share <= MOST_SWEEP_SHARE
    return [
        ("a training run, recorded", f"{training.seconds:+.2f} s ({100 * training.share:+.1f} %)", "≤ 5 % or 1 s", small),
        (
            f"a sweep of {TRIALS} trials, recorded",
            f"{100 * sweep.share:+.0f} % of {without:.0f} s",
            "bound by training: ≤ 25 %",
            bound,
        ),
        (f"gate, {growth[-1].runs:,} runs in the experiment", f"{gate:.1f} s", "< 5 s", gate < GATE_SECONDS),
        (f"report, {growth[-1].runs:,} runs in the experiment", f"{report:.1f} s", "< 10 s", report < REPORT_SECONDS),
    ]


def _draw(training: Pair, sweep: Pair, growth: Sequence[Growth]) -> Figure:
    with styled():
        figure = Figure(figsize=(12, 4), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        for axes, pair, title in ((left, training, "A training run"), (middle, sweep, f"A sweep of {TRIALS} trials")):
            best = [min(times) for times in (pair.without, pair.with_server)]
            axes.bar(["nothing recorded", "recorded"], best, color=[PALETTE[5], PALETTE[0]])
            for place, times in enumerate((pair.without, pair.with_server)):
                axes.plot([place] * len(times), times, "o", color="black", markersize=3)
            axes.set(title=title, ylabel="seconds")
        for name, colour, aim in (("gate", PALETTE[0], GATE_SECONDS), ("report", PALETTE[1], REPORT_SECONDS)):
            sizes: list[Sequence[float]] = [getattr(size, name) for size in growth]
            right.plot([size.runs for size in growth], [statistics.median(each) for each in sizes], "o-", color=colour, label=name)
            right.axhline(aim, color=colour, linestyle="--", linewidth=1)
        right.set(title="Gate and report (dashed: aims)", xlabel="runs in the experiment", ylabel="seconds", xscale="log", ylim=(0, None))
        # Plain numbers: the pictures' style reads no formulas, which matplotlib would write.
        right.set_xticks([size.runs for size in growth], [f"{size.runs:,}" for size in growth])
        right.xaxis.set_minor_formatter(NullFormatter())
        right.legend(frameon=False)
    return figure


def _page(rows: Sequence[tuple[str, str, str, bool]], training: Pair, growth: Sequence[Growth], load: float) -> str:
    table = "\n".join(f"| {what} | {value} | {aim} {_mark(met=met)} |" for what, value, aim, met in rows)
    grown = "\n".join(f"| {size.runs:,} | {statistics.median(size.gate):.1f} | {statistics.median(size.report):.1f} |" for size in growth)
    return f"""# What recording costs

Made by `make bench-training` on {os.cpu_count()} cores, the server on the same machine behind TLS and login, load {load:.1f} at the start.

![A training and a sweep with and without a server; gate and report over the number of runs](training.png)

| | measured | aim |
|---|--:|--:|
{table}

A whole process each time, as a pipeline starts it: two to three seconds of gate and report are Python importing MLflow.

| runs in the experiment | gate, s | report, s |
|--:|--:|--:|
{grown}

"Without" is the same command with a recorder that records nothing (`tests/bench/untracked.py`): the same folds, the figures drawn, the model saved.
They take turns, {len(training.without)} times the training, and the best of each are compared: whatever else a machine does makes a time longer.
Those of the training without a server lie {training.spread:.1f} s apart. Gate and report are medians; the baseline of the gate is the oldest run of the
experiment, so that all pages of the history are read. Where more runs take less time, the machine got faster meanwhile.
"""


def main(
    env: Annotated[str, typer.Option(metavar="NAME", help="The environment whose server is asked.")] = "local",
    repeats: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 5,
    sizes: Annotated[str, typer.Option(metavar="N,N", help="Runs in the experiment.")] = "10,100,1000",
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where training.md, training.json and training.png go.")] = ROOT / "docs" / "benchmarks",
) -> None:
    """State what recording costs a training (aim: 5 % or 1 s), and how long gate and report take with 1,000 runs (aims: 5 and 10 s)."""
    load = os.getloadavg()[0]
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "LONGRUN_", "GITHUB_")) or name == "CI"]:
        del os.environ[name]
    os.environ |= {**Server(env, Path(os.devnull)).client(), "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    stamp = int(time.time())
    with TemporaryDirectory() as folder:
        training = compare(Path(folder), "training", repeats, "train", "--model", f"overhead-{stamp}")
    with TemporaryDirectory() as folder:
        grid = GRID.format(model=f"sweep-{stamp}", leaves=list(range(1, 26)), depths=list(range(2, 2 + TRIALS // 25)))
        Path(folder, "longrun.toml").write_text(grid, encoding="utf-8")
        sweep = compare(Path(folder), f"sweep of {TRIALS} trials", 1, "train", "--sweep", "--jobs", "2")
    with TemporaryDirectory() as folder, calm():
        growth = _grow(Path(folder), sorted(int(size) for size in sizes.split(",")), repeats)
    rows = _rows(training, sweep, growth)
    for what, value, aim, met in rows:
        terminal.console.print(f"{_mark(met=met)} {what}: {value} (aim: {aim})")
    content = {"cores": os.cpu_count(), "load": load, "training": asdict(training), "sweep": asdict(sweep), "growth": [asdict(size) for size in growth]}
    output.mkdir(parents=True, exist_ok=True)
    (output / "training.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (output / "training.md").write_text(_page(rows, training, growth, load), encoding="utf-8")
    with styled():
        _draw(training, sweep, growth).savefig(output / "training.png")
    terminal.note(f"{output / 'training.md'}, training.json, training.png")
    raise typer.Exit(0 if all(met for *_, met in rows) else 1)


if __name__ == "__main__":
    typer.run(main)
