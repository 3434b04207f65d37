"""How long `longrun gate` takes with many runs in the experiment: `python -m tests.bench.gate_speed`, against the server of the client contract.

The baseline is the oldest of all runs, so every page of them is read: the worst that the baseline's rule can ask for.
"""

import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from longrun_training import terminal
from mlflow.entities import Metric, Param

from tests.unit.training.gate_helpers import Bench, Repository, regression

# The aim.
AIM_SECONDS = 5.0
METRICS = tuple(f"{scope}_{name}" for name in ("rmse", "mae", "r2", "median_ae") for scope in ("holdout", "cv_mean", "cv_std", "cv"))
PARAMETERS = 25
TABLES = '[metrics.rmse]\nmargin = 1.0\n[metrics.mae]\nmargin = 1.0\n[metrics.r2]\nmargin = 0.1\n[metrics.median_ae]\n[model]\nname = "{model}"\n'


def _fill(bench: Bench, runs: int) -> Iterable[None]:
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
        values = [Metric(name, float(number), now, 0) for name in METRICS]
        bench.client.log_batch(run_id, values, [Param(f"parameter_{index}", "x" * 20) for index in range(PARAMETERS)])
        bench.client.set_terminated(run_id)

    with ThreadPoolExecutor(4) as pool:
        yield from pool.map(add, range(runs))


def main(
    runs: Annotated[int, typer.Option(help="Runs in the experiment.")] = 1000, repeats: Annotated[int, typer.Option(help="Gates that are timed.")] = 5
) -> None:
    """Fill an experiment of its own, judge one candidate several times, and print the times."""
    bench = Bench.open(os.environ["MLFLOW_TRACKING_URI"], f"gate-speed-{int(time.time())}")
    with TemporaryDirectory() as folder:
        repository = Repository(Path(folder))
        base = bench.run(regression(10.0), commit=repository.commit(), exit_status=0)
        with terminal.step("runs", runs) as advance:
            for _ in _fill(bench, runs):
                advance()
        repository.branch("feature")
        candidate = bench.run(regression(10.1, seed=2), commit=repository.commit(), branch="feature", pull_request="7")
        Path(folder, "longrun.toml").write_text(TABLES.format(model=bench.place.model), encoding="utf-8")
        times = []
        for _ in range(repeats):
            started = time.monotonic()
            command = [sys.executable, "-m", "longrun_training.cli", "gate", "--json", "--candidate", candidate.info.run_id]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            times.append(time.monotonic() - started)
            if f'"run_id": "{base.info.run_id}"' not in done.stdout:
                terminal.fail(f"the gate did not find its baseline: {done.stderr}")
                raise typer.Exit(1)
    middle, worst = statistics.median(times), max(times)
    terminal.console.print(f"{runs} runs: the gate answers in {middle:.2f} s (median of {repeats}; slowest {worst:.2f} s), aim below {AIM_SECONDS:g} s")
    raise typer.Exit(0 if middle < AIM_SECONDS else 1)


if __name__ == "__main__":
    typer.run(main)
