"""What the margins should be: the same model trained with other seeds is equally good, and what differs between two of them is noise."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import permutations
from pathlib import Path

from longrun_training import comparison, train
from longrun_training.config import Configuration, Metric
from longrun_training.errors import ProblemError
from longrun_training.judgement import Comparison, Verdict
from longrun_training.margins import CrossValidation, Proposal, propose_margin
from longrun_training.predictions import Predictions
from longrun_training.server import Server
from longrun_training.statistics import UndefinedError

SEEDS = 5
SEED_LIMIT = 2**32
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Alarm:
    """Two equal models of which one would be failed.

    Attributes:
        candidate: The seed of the one that is judged.
        baseline: The seed of the other.
        comparison: What fails.
    """

    candidate: int
    baseline: int
    comparison: Comparison

    @property
    def sentence(self) -> str:
        """The alarm for people."""
        found = self.comparison
        where = f"slice {found.scope}" if found.kind == "slice" else found.scope
        difference = "undefined" if found.difference is None else f"{found.difference:.4g}"
        return f"seed {self.candidate} against seed {self.baseline}: {found.metric}, {where}: difference {difference}, margin {found.margin:g}"


@dataclass(frozen=True)
class Calibration:
    """What some trainings of one configuration with different seeds came to.

    Attributes:
        model: The registered model's name; no version is added to it.
        seeds: One a run.
        runs: The runs' ids; a run that waits in the spool has its uuid here.
        present: The margins of longrun.toml, by metric.
        proposals: By metric.
        toml: The [metrics] tables with the proposed margins, to be put into longrun.toml in the place of its own.
        missing: What could not be measured, one sentence each.
        checked: With a check: how many of the ordered pairs of runs get which verdict from the present margins; None without one.
        alarms: The comparisons that fail one of two equal models.
    """

    model: str
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    present: Mapping[str, float | None]
    proposals: Mapping[str, Proposal]
    toml: str
    missing: tuple[str, ...] = ()
    checked: Mapping[str, int] | None = None
    alarms: tuple[Alarm, ...] = field(default=())

    def to_json(self) -> dict[str, object]:
        """Return everything, fit for JSON: a number that is not finite is null."""
        return {
            "model": self.model,
            "seeds": list(self.seeds),
            "runs": list(self.runs),
            "present": dict(self.present),
            "proposals": {name: _finite(asdict(proposal)) for name, proposal in self.proposals.items()},
            "toml": self.toml,
            "missing": list(self.missing),
            "checked": None if self.checked is None else dict(self.checked),
            "alarms": [{"candidate": a.candidate, "baseline": a.baseline, **a.comparison.model_dump(mode="json")} for a in self.alarms],
        }


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def calibrate(configuration: Configuration, *, server: Server, spool: Path, seeds: int = SEEDS, check: bool = False) -> Calibration:
    """Train a configuration with other seeds than its own, and measure what differs.

    The runs are recorded (kind `calibration`) and add no version. The hold-out does not depend on the seed, so all of them answer the same rows.

    Args:
        configuration: The model's.
        server: Where the runs are recorded.
        spool: Where they wait if it is away: a calibration needs no server.
        seeds: How many, at least 2; the ones after the configured seed, so that the same call gives the same margins.
        check: Whether the present margins are tried on each pair of runs as well.

    Raises:
        ProblemError: The configuration or the data can't be used, or there is no margin to check.
    """
    if check and not any(metric.margin is not None for metric in configuration.metrics.values()):
        message = "--check: no metric has a margin yet, so there is nothing to check: `longrun gate --calibrate` proposes some for longrun.toml"
        raise ProblemError(message)
    dataset = train.prepare(configuration)
    chosen = tuple((configuration.evaluation.seed + number) % SEED_LIMIT for number in range(1, seeds + 1))
    names, found = [], []
    for seed in chosen:
        changed = configuration.model_copy(update={"evaluation": configuration.evaluation.model_copy(update={"seed": seed})})
        result = train.train(changed, dataset, kind="calibration", spool=spool, server=server)
        names.append(result.run_id or result.uuid)
        found.append(result.predictions)
    answered = [predictions for predictions in found if predictions is not None]
    return measure(configuration, chosen, names, answered, training_rows=len(dataset.table) - len(answered[0].frame), check=check)


def measure(
    configuration: Configuration, seeds: Sequence[int], runs: Sequence[str], answered: Sequence[Predictions], *, training_rows: int, check: bool = False
) -> Calibration:
    """Propose margins from the predictions of some runs, and with `check` judge each run against each other.

    Args:
        configuration: Of all runs, but for the seed.
        seeds: One a run.
        runs: Their names.
        answered: Their predictions, of the same rows.
        training_rows: Rows of the cross-validation.
        check: As for `calibrate`.
    """
    first = answered[0].frame
    metrics = comparison.compared_metrics(configuration, first)
    settings = configuration.evaluation
    folds = CrossValidation(training_rows, settings.folds, settings.repeats)
    groups = answered[0].groups if configuration.data.group is not None else None
    proposals: dict[str, Proposal] = {}
    missing: list[str] = []
    for name in metrics:
        try:
            proposals[name] = propose_margin(
                name,
                answered[0].actual,
                [comparison.answers(one.frame) for one in answered],
                groups=groups,
                metrics=len(metrics),
                cross_validation=folds,
                confidence=configuration.gate.confidence,
            )
        except (UndefinedError, ValueError) as error:
            missing.append(f"{name}: {error}")
    verdicts, alarms = _check(configuration, seeds, answered) if check else (None, ())
    return Calibration(
        model=configuration.model.name,
        seeds=tuple(seeds),
        runs=tuple(runs),
        present={name: metric.margin for name, metric in metrics.items()},
        proposals=proposals,
        toml=_toml(metrics, proposals),
        missing=tuple(missing),
        checked=verdicts,
        alarms=tuple(alarms),
    )


def _check(configuration: Configuration, seeds: Sequence[int], answered: Sequence[Predictions]) -> tuple[dict[str, int], list[Alarm]]:
    """Judge each run against each other: either could be the candidate."""
    verdicts: Counter[str] = Counter()
    alarms = []
    for (mine, candidate), (theirs, baseline) in permutations(zip(seeds, answered, strict=True), 2):
        compared = comparison.compare_rows(candidate.frame, baseline.frame, configuration)
        failed = [Alarm(mine, theirs, found) for found in compared if found.verdict is Verdict.FAIL]
        decisive = {found.verdict for found in compared if found.kind == "hold-out"}
        verdicts[_verdict(decisive, failed=bool(failed))] += 1
        alarms += failed
    return {verdict.value: verdicts[verdict] for verdict in Verdict if verdicts[verdict]}, alarms


def _verdict(decisive: set[Verdict], *, failed: bool) -> Verdict:
    if failed:
        return Verdict.FAIL
    return next((verdict for verdict in (Verdict.INCONCLUSIVE, Verdict.PASS) if verdict in decisive), Verdict.NOT_JUDGED)


def _toml(metrics: Mapping[str, Metric], proposals: Mapping[str, Proposal]) -> str:
    """Return the [metrics] tables with the proposed margins; what else they say stays."""
    tables = []
    for name, metric in metrics.items():
        if name not in proposals and not metric.model_fields_set:
            continue
        lines = [f"[metrics.{name if BARE_KEY.fullmatch(name) else json.dumps(name)}]"]
        values = metric.model_dump(exclude_unset=True, exclude={"margin"}, exclude_none=True)
        margin = proposals[name].margin if name in proposals else metric.margin
        lines += [f"{key} = {_value(value)}" for key, value in {**({} if margin is None else {"margin": margin}), **values}.items()]
        tables.append("\n".join(lines) + "\n")
    return "\n".join(tables)


def _value(value: object) -> str:
    """Return a value of a metric's table as TOML has it: JSON's texts, numbers and truth values are TOML's too."""
    return json.dumps(value)
