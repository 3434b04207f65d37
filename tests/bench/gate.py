"""How often the gate calls equal models worse, and how often it catches a true loss: `make bench-gate`.

Every pair of models goes through the gate's own comparison and verdict; only the server is left out. Margins are what the calibration proposes.
"""

import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from longrun_training import comparison, lookup, terminal
from longrun_training.comparison import Compared, Side
from longrun_training.config import Configuration, Data, Metric
from longrun_training.gate import combine
from longrun_training.judgement import Comparison, Verdict
from longrun_training.margins import CrossValidation
from longrun_training.predictions import PROBABILITY
from longrun_training.scores import METRIC_VERSION
from mlflow import entities
from threadpoolctl import threadpool_limits

from tests.bench import gate_results
from tests.bench.gate_results import LOSSES, RATES, WORSE, Outcome, Rate
from tests.bench.worlds import Pair, Scenario, World

REGRESSION, CLASSIFICATION = ("rmse", "mae", "r2"), ("accuracy", "f1", "log_loss")
SCENARIOS = (
    *(Scenario(f"regression, {rows} rows", REGRESSION, rows) for rows in (89, 300, 1000)),
    *(Scenario(f"classification, {rows} rows", CLASSIFICATION, rows) for rows in (89, 300, 1000)),
    Scenario("60 groups of 5 rows", ("rmse", "mae"), 300, group_size=5),
    Scenario("89 rows and 5 × 3 folds of 353", REGRESSION, 89, folds=CrossValidation(353, 5, 3)),
)
FOLDS_ALONE = "of these, the folds alone"
ALL = "pairs"
WORLDS = 10
WORKERS = 2
# The losses that the aims are about get all pairs; the rest of the curve, half as many.
AIMED = (0.0, 2.0)


class _History(dict[tuple[str, str], list[entities.Metric]]):
    """Fold scores by run and key, asked for as the tracking client is asked."""

    def get_metric_history(self, run_id: str, key: str) -> list[entities.Metric]:
        return self[run_id, key]


@dataclass
class _Part:
    """What one world's pairs came to: (row of the results, loss) -> verdicts, and how many were called worse at all."""

    scenario: int
    margins: dict[str, float]
    relative: dict[str, float]
    remarks: dict[str, str]
    tight: bool
    counts: dict[tuple[str, float], Counter[str]] = field(default_factory=dict)

    def add(self, row: str, loss: float, verdict: Verdict, comparisons: tuple[Comparison, ...]) -> None:
        """Count one pair."""
        counter = self.counts.setdefault((row, loss), Counter())
        counter.update([ALL, verdict.value])
        counter[WORSE] += any(found.high is not None and found.high < 0 for found in comparisons)


def _frame(pair: Pair, *, candidate: bool) -> pd.DataFrame:
    answers = pair.candidate if candidate else pair.baseline
    # The row's names seed the bootstrap; equal ones in every pair let it keep its weights.
    frame = pd.DataFrame({"row_id": [f"{row:016x}-0" for row in range(len(pair.actual))], "actual": pair.actual, "predicted": np.asarray(answers.predicted)})
    if pair.groups is not None:
        frame["group"] = pair.groups.astype(str)
    if answers.probabilities is not None and answers.classes is not None:
        for column, name in enumerate(np.asarray(answers.classes)):
            frame[f"{PROBABILITY}{name}"] = np.asarray(answers.probabilities)[:, column]
    return frame


def _run(name: str, folds: CrossValidation, metrics: Mapping[str, float]) -> entities.Run:
    info = entities.RunInfo(name, "0", "bench", "FINISHED", 0, 0, "active")
    tags = {lookup.METRIC_VERSION: METRIC_VERSION, lookup.HOLDOUT: "0", lookup.DATA: "0", lookup.SPLIT_VERSION: "1"}
    parameters = {"folds": folds.folds, "repeats": folds.repeats, "seed": 0, "holdout_fraction": 0.2}
    data = entities.RunData(
        [entities.Metric(f"cv_{name}", value, 0, 0) for name, value in metrics.items()],
        [entities.Param(name, str(value)) for name, value in parameters.items()],
        [entities.RunTag(name, value) for name, value in tags.items()],
    )
    return entities.Run(info, data)


def _compare(scenario: Scenario, pair: Pair, configuration: Configuration) -> tuple[Comparison, ...]:
    mine, theirs = _frame(pair, candidate=True), _frame(pair, candidate=False)
    if scenario.folds is None:
        return tuple(comparison.compare_rows(mine, theirs, configuration))
    history, sides = _History(), []
    for place, (name, frame) in enumerate((("baseline", theirs), ("candidate", mine))):
        scores = {metric: values[place] for metric, values in pair.folds.items()}
        history.update({(name, f"cv_{metric}"): [entities.Metric(metric, v, step, step) for step, v in enumerate(of, 1)] for metric, of in scores.items()})
        sides.append(Side(_run(name, scenario.folds, {metric: float(of[-1]) for metric, of in scores.items()}), frame))
    compared = comparison.compare(history, sides[1], sides[0], configuration)  # type: ignore[arg-type] # all that it asks of a client is the history
    if compared.missing:
        raise RuntimeError(compared.missing)
    return compared.comparisons


def _folds_verdict(comparisons: tuple[Comparison, ...]) -> Verdict:
    """Return what the folds alone would say: fail if one fails, pass if all pass."""
    verdicts = {found.verdict for found in comparisons}
    return Verdict.FAIL if Verdict.FAIL in verdicts else Verdict.PASS if verdicts == {Verdict.PASS} else Verdict.INCONCLUSIVE


def _pairs_at(loss: float, pairs: int) -> int:
    """Return how many pairs one world simulates, rounded up."""
    return -(-pairs // WORLDS) if loss in AIMED else -(-pairs // (2 * WORLDS))


def simulate(number: int, world_number: int, pairs: int) -> _Part:
    """Simulate one world of a scenario: its calibration, and its share of the pairs at every loss."""
    scenario = SCENARIOS[number]
    with threadpool_limits(1):
        world = World(scenario, np.random.default_rng([number, world_number]))
        margins = {name: proposal.margin for name, proposal in world.proposals.items()}
        relative = {name: 2 * proposal.margin / proposal.learnt for name, proposal in world.proposals.items()}
        remarks = {name: proposal.remark for name, proposal in world.proposals.items()}
        part = _Part(number, margins, relative, remarks, all(proposal.tight for proposal in world.proposals.values()))
        group = "group" if scenario.group_size > 1 else None
        configuration = Configuration(data=Data(group=group), metrics={name: Metric(margin=margin) for name, margin in margins.items()})
        for place, loss in enumerate(LOSSES):
            rng = np.random.default_rng([number, world_number, place])
            for _ in range(_pairs_at(loss, pairs)):
                comparisons = _compare(scenario, world.pair(loss, rng), configuration)
                verdict, _ = combine((), Compared(comparisons), Compared(), has_baseline=True)
                part.add(scenario.name, loss, verdict, comparisons)
                if scenario.folds:
                    folds = tuple(found for found in comparisons if found.kind == "cross-validation")
                    part.add(FOLDS_ALONE, loss, _folds_verdict(folds), folds)
    return part


def _collect(parts: list[_Part]) -> list[Outcome]:
    outcomes = []
    for number, scenario in enumerate(SCENARIOS):
        mine = [part for part in parts if part.scenario == number]
        margins = {name: float(np.median([part.margins[name] for part in mine])) for name in scenario.metrics}
        relative = {name: float(np.median([part.relative[name] for part in mine])) for name in scenario.metrics}
        for row in (scenario.name, *((FOLDS_ALONE,) if scenario.folds else ())):
            counts = {loss: sum((part.counts[row, loss] for part in mine), Counter()) for loss in LOSSES}
            rates = {loss: {name: Rate(found[name], found[ALL]) for name in RATES} for loss, found in counts.items()}
            outcomes.append(Outcome(row, margins, relative, sum(part.tight for part in mine) / len(mine), rates))
    return outcomes


def main(
    pairs: Annotated[
        int, typer.Option(min=WORLDS, help="Pairs of models for each scenario, at a loss of 0 and of 2 margins each; half as many elsewhere.")
    ] = 500,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where gate.md, gate.json and gate.png go.")] = Path("docs/benchmarks"),
) -> None:
    """State how often the gate fails equal models (aim: at most 5 %) and how often it fails a true loss of two margins (aim: at least 95 %)."""
    started = time.monotonic()
    jobs = [(number, world, pairs) for number in range(len(SCENARIOS)) for world in range(WORLDS)]
    with (
        terminal.step("simulating the gate", len(jobs), f"{len(SCENARIOS)} scenarios × {WORLDS} calibrations") as advance,
        ProcessPoolExecutor(WORKERS) as pool,
    ):
        parts = []
        for job in as_completed([pool.submit(simulate, *job) for job in jobs]):
            parts.append(job.result())
            advance()
    # As they came is not as they were asked for, and the same call gives the same files.
    outcomes = _collect(sorted(parts, key=lambda part: (part.scenario, sorted(part.margins.items()))))
    gate_results.show(outcomes)
    gate_results.write(outcomes, output, pairs=pairs, seconds=time.monotonic() - started)
    terminal.note(f"{output / 'gate.md'}, gate.json, gate.png")


if __name__ == "__main__":
    typer.run(main)
