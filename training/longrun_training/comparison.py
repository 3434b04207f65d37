"""A candidate against another run, metric by metric: on the hold-out's rows, on its slices, and on the folds of the cross-validation."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from longrun_training import lookup, predictions, statistics
from longrun_training.config import Configuration, Metric
from longrun_training.errors import OutageError, ProblemError
from longrun_training.judgement import Comparison, Verdict
from longrun_training.predictions import FILE_NAME, PROBABILITY, SLICE
from longrun_training.scores import METRICS, MetricKind, metrics_of
from longrun_training.statistics import Answers, Decision, Estimate, UndefinedError

HOLDOUT, FOLDS = "hold-out", "cross-validation"
# The tracking store keeps infinities as the largest number there is.
LARGEST = 1.7e308
SHORT = 8

Kind = Literal["hold-out", "cross-validation", "slice"]


@dataclass(frozen=True)
class Side:
    """One of the two runs, with what is compared of it.

    Attributes:
        run: The run.
        frame: Its predictions: hold-out rows, sorted by row id; None where they can't be had.
        missing: Why not, one sentence.
    """

    run: Run
    frame: pd.DataFrame | None = None
    missing: str | None = None


@dataclass(frozen=True)
class Compared:
    """What a comparison of two runs came to.

    Attributes:
        comparisons: In the order of longrun.toml: hold-out, cross-validation, slices.
        missing: What could not be compared, one sentence each.
    """

    comparisons: tuple[Comparison, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Terms:
    """What is compared, and how.

    Attributes:
        metrics: By name, in the order of longrun.toml.
        factor: The margins are this many times the metrics' own.
        whose: What sentences call the other run.
    """

    configuration: Configuration
    metrics: Mapping[str, Metric]
    factor: float = 1.0
    whose: str = "the baseline"

    def margin(self, metric: str) -> float | None:
        """Return a metric's margin; None where it is only shown."""
        own = self.metrics[metric].margin
        return None if own is None else own * self.factor


@dataclass(frozen=True)
class _Draft:
    """A comparison before it is judged together with the others.

    Attributes:
        remark: Why it is shown and not judged, or why it has no value; empty where it is judged.
        undefined: Whose fault it is that there is no estimate.
    """

    metric: str
    scope: str
    kind: Kind
    margin: float | None
    rows: int
    estimate: Estimate | None = None
    remark: str = ""
    undefined: str | None = None
    known: Mapping[str, float | None] = field(default_factory=dict)


def finite(value: float | None) -> float | None:
    """Return a logged value, or None where it is missing, NaN or infinite, also as a tracking store keeps an infinity."""
    return value if value is not None and math.isfinite(value) and abs(value) < LARGEST else None


def fetch(client: MlflowClient, run: Run) -> Side:
    """Get a run's predictions from the server."""
    name = f"run {run.info.run_id[:SHORT]}"
    with TemporaryDirectory(prefix="longrun-") as folder:
        try:
            path = client.download_artifacts(run.info.run_id, FILE_NAME, folder)
            return Side(run, predictions.read(Path(path)).frame)
        except OutageError:
            raise
        except ProblemError as error:
            return Side(run, missing=f"{name}: its {FILE_NAME} can't be used: {error}")
        except (MlflowException, OSError) as error:
            if not is_absent(error):
                raise
            return Side(run, missing=f"{name} has no {FILE_NAME}: was it made by another version of `longrun train`?")


def is_absent(error: Exception) -> bool:
    """Say whether an artifact's download failed because there is none, and not because the server is away or refuses."""
    if isinstance(error, FileNotFoundError):
        return True
    if isinstance(error, MlflowException):
        return error.error_code in {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"} or "404" in str(error) or "No such artifact" in str(error)
    return False


def incomparable(candidate: Run, baseline: Run, whose: str = "the baseline") -> str | None:
    """Return why nothing of two runs can be compared; None where their hold-outs are the same rows, scored the same way."""
    mine, theirs = candidate.data.tags, baseline.data.tags
    short = f"{whose} (run {baseline.info.run_id[:SHORT]})"
    if not mine.get(lookup.METRIC_VERSION) or not mine.get(lookup.HOLDOUT):
        return "the candidate does not say how it was scored: was it made by another version of `longrun train`?"
    if mine[lookup.METRIC_VERSION] != theirs.get(lookup.METRIC_VERSION):
        versions = f"metric version {theirs.get(lookup.METRIC_VERSION) or 'unknown'}, not {mine[lookup.METRIC_VERSION]}"
        return f"{short} computed its metrics in another way: {versions}"
    if mine[lookup.HOLDOUT] != theirs.get(lookup.HOLDOUT):
        fingerprints = f"{_fingerprint(theirs, lookup.HOLDOUT)} is the SHA-256 of its hold-out, not {_fingerprint(mine, lookup.HOLDOUT)}"
        return f"{short} was scored on other data: {fingerprints}: `longrun override` accepts a change of the data"
    return None


def _fingerprint(tags: Mapping[str, str], name: str) -> str:
    value = tags.get(name)
    return f"{value[:SHORT]}…" if value else "unknown"


def _other_folds(candidate: Run, baseline: Run) -> str | None:
    """Return why two runs' cross-validations are not of the same folds; None where they are."""
    for name, words in ((lookup.DATA, "other data"), (lookup.SPLIT_VERSION, "another split version")):
        if candidate.data.tags.get(name) != baseline.data.tags.get(name):
            return words
    for name in ("folds", "repeats", "seed", "holdout_fraction"):
        mine, theirs = candidate.data.params.get(name), baseline.data.params.get(name)
        if mine != theirs:
            return f"{name.replace('_', ' ')} {theirs or 'unknown'} instead of {mine or 'unknown'}"
    return None


def compare(
    client: MlflowClient, candidate: Side, baseline: Side, configuration: Configuration, *, factor: float = 1.0, whose: str = "the baseline"
) -> Compared:
    """Compare a candidate with another run.

    Hold-out comparisons are corrected for their number among themselves; the slices and the cross-validation are a second family. So the two
    together call equal models worse no more often than 1 - confidence.

    Args:
        client: Of the server.
        candidate: As `fetch` returns it.
        baseline: Likewise.
        configuration: Metrics, margins, [gate].
        factor: The margins are this many times the metrics' own.
        whose: What sentences call the other run.
    """
    reason = incomparable(candidate.run, baseline.run, whose) or candidate.missing or baseline.missing
    if reason:
        return Compared(missing=(reason,))
    mine, theirs = candidate.frame, baseline.frame
    if mine is None or theirs is None or list(mine["row_id"]) != list(theirs["row_id"]):
        return Compared(missing=(f"{whose}'s predictions are of other rows than its fingerprint says: train it again",))
    terms = _Terms(configuration, compared_metrics(configuration, mine), factor, whose)
    first = [_with_logged_values(draft, candidate.run, baseline.run) for draft in _on_holdout(terms, (mine, theirs))]
    missing = [f"{_where(draft)}: {draft.remark}" for draft in first if draft.estimate is None]
    rest = [*_on_folds(client, (candidate.run, baseline.run), terms, missing), *_on_slices(terms, (mine, theirs), missing)]
    missing += [f"{_where(draft)}: {draft.remark}" for draft in rest if draft.estimate is None]
    return Compared((*_judge(first, configuration.gate.confidence), *_judge(rest, configuration.gate.confidence)), tuple(missing))


def compare_rows(mine: pd.DataFrame, theirs: pd.DataFrame, configuration: Configuration) -> list[Comparison]:
    """Compare the predictions of two runs with the same hold-out, on all of its rows and on its slices; judged as `compare` does."""
    terms, frames = _Terms(configuration, compared_metrics(configuration, mine)), (mine, theirs)
    families = (list(_on_holdout(terms, frames)), list(_on_slices(terms, frames, [])))
    return [comparison for family in families for comparison in _judge(family, configuration.gate.confidence)]


def _where(draft: _Draft) -> str:
    """Return which comparison a sentence is about."""
    places = {"hold-out": f"on the {HOLDOUT}", "cross-validation": f"in the {FOLDS}", "slice": f"on the slice {draft.scope}"}
    return f"{draft.metric} {places[draft.kind]}"


def is_classification(frame: pd.DataFrame) -> bool:
    """Say whether predictions are classes (texts) and no numbers."""
    return not pd.api.types.is_numeric_dtype(frame["predicted"])


def compared_metrics(configuration: Configuration, frame: pd.DataFrame) -> dict[str, Metric]:
    """Return what is compared: the configured metrics, or all that can be computed where none is."""
    if configuration.metrics:
        return dict(configuration.metrics)
    probabilities = any(str(column).startswith(PROBABILITY) for column in frame.columns)
    return {name: Metric() for name in metrics_of("classification" if is_classification(frame) else "regression", with_probabilities=probabilities)}


def answers(frame: pd.DataFrame) -> Answers:
    """Return what a model answered, as the statistics take it."""
    columns = [str(column) for column in frame.columns if str(column).startswith(PROBABILITY)]
    if not columns:
        return Answers(frame["predicted"].to_numpy())
    classes = [column.removeprefix(PROBABILITY) for column in columns]
    return Answers(frame["predicted"].to_numpy(), frame[columns].to_numpy(dtype="float64"), classes)


def _seed(frame: pd.DataFrame) -> int:
    """Return a seed that belongs to the rows: the same gate gives the same bounds each time, and no two data sets share their draws."""
    return int(str(frame["row_id"].iloc[0])[:SHORT], 16) if len(frame) else 0


def _check_probabilities(given: tuple[Answers, Answers]) -> None:
    sides: tuple[Literal["candidate", "baseline"], ...] = ("candidate", "baseline")
    for side, answered in zip(sides, given, strict=True):
        if answered.probabilities is None:
            message = f"the {side} gives no probabilities"
            raise UndefinedError(side, message)


def estimate(kind: MetricKind, frames: tuple[pd.DataFrame, pd.DataFrame], *, margin: float | None, group: bool, resamples: int) -> Estimate:
    """Estimate a metric's difference on the rows of two frames, which are the same rows in the same order.

    Args:
        kind: The metric.
        frames: The candidate's and the baseline's predictions.
        margin: In the metric's unit; None: not judged.
        group: Whether the rows of one group are drawn together.
        resamples: Draws.

    Raises:
        UndefinedError: The metric has no value here.
    """
    mine, theirs = frames
    actual = mine["actual"].to_numpy()
    groups = mine["group"].to_numpy() if group and "group" in mine else None
    given = (answers(mine), answers(theirs))
    if kind.needs_probability:
        _check_probabilities(given)
    if kind.name == "accuracy" and groups is None and len(mine):
        return statistics.mcnemar(mine["predicted"].to_numpy() == actual, theirs["predicted"].to_numpy() == actual, margin=margin)
    return statistics.paired_bootstrap(kind.name, actual, *given, margin=margin, groups=groups, resamples=resamples, seed=_seed(mine))


def _on_rows(terms: _Terms, name: str, scope: str, kind: Kind, frames: tuple[pd.DataFrame, pd.DataFrame]) -> _Draft:
    """Compare a metric on the hold-out or on a slice of it."""
    settings, margin, rows = terms.configuration.gate, terms.margin(name), len(frames[0])
    draft = _Draft(name, scope, kind, margin, rows)
    if (METRICS[name].task == "classification") != is_classification(frames[0]):
        return replace(draft, remark=f"this is a metric of {METRICS[name].task}, and the predictions are not", undefined="rows")
    few = f"{rows} row{'' if rows == 1 else 's'}, and [gate] minimum_rows is {settings.minimum_rows}" if rows < settings.minimum_rows else ""
    group = terms.configuration.data.group is not None
    try:
        found = estimate(METRICS[name], frames, margin=None if few else margin, group=group, resamples=settings.resamples)
    except UndefinedError as error:
        return replace(draft, remark=str(error), undefined=error.side)
    return replace(draft, estimate=found, remark=few)


def _on_holdout(terms: _Terms, frames: tuple[pd.DataFrame, pd.DataFrame]) -> Iterator[_Draft]:
    for name in terms.metrics:
        yield _on_rows(terms, name, HOLDOUT, "hold-out", frames)


def _with_logged_values(draft: _Draft, candidate: Run, baseline: Run) -> _Draft:
    """Add what the runs logged to a comparison that has no estimate: one of the two may have a value all the same."""
    if draft.estimate is not None:
        return draft
    key = f"holdout_{draft.metric}"
    return replace(draft, known={"candidate": finite(candidate.data.metrics.get(key)), "baseline": finite(baseline.data.metrics.get(key))})


def _on_slices(terms: _Terms, frames: tuple[pd.DataFrame, pd.DataFrame], missing: list[str]) -> Iterator[_Draft]:
    """Compare each metric on each slice; the rows of a slice are the candidate's to say, as the baseline may be older than the slice."""
    for scope in terms.configuration.slices:
        column = f"{SLICE}{scope}"
        source = next((frame for frame in frames if column in frame), None)
        if source is None:
            missing.append(f"slice {scope}: no predictions say which rows it is: train again with it in longrun.toml")
            continue
        chosen = source[column].to_numpy(dtype=bool)
        if not chosen.any():
            missing.append(f"slice {scope}: none of the hold-out's rows is in it")
            continue
        part = (frames[0][chosen], frames[1][chosen])
        for name, metric in terms.metrics.items():
            if metric.slices:
                yield _on_rows(terms, name, scope, "slice", part)


def fold_scores(client: MlflowClient, run: Run, metric: str) -> list[float]:
    """Return a metric's value of each fold, in the order of the folds; empty where it was not logged."""
    if f"cv_{metric}" not in run.data.metrics:
        return []
    # A run that was sent twice may hold a step twice; the later value is the one that stayed.
    logged = sorted(client.get_metric_history(run.info.run_id, f"cv_{metric}"), key=lambda entry: entry.timestamp)
    steps = {entry.step: entry.value for entry in logged}
    return [math.nan if finite(value) is None else value for _, value in sorted(steps.items())]


def _on_folds(client: MlflowClient, runs: tuple[Run, Run], terms: _Terms, missing: list[str]) -> Iterator[_Draft]:
    """Compare each metric on the folds of the cross-validation, where these are the same folds."""
    candidate, baseline = runs
    reason = _other_folds(candidate, baseline)
    if reason:
        missing.append(f"{FOLDS}: {terms.whose} has other folds ({reason})")
        return
    count = candidate.data.params.get("folds", "")
    without: dict[str, list[str]] = {}
    for name in terms.metrics:
        mine, theirs = fold_scores(client, candidate, name), fold_scores(client, baseline, name)
        if not mine or len(mine) != len(theirs) or not count.isdigit():
            logged = f"the candidate logged {len(mine) or 'no'} folds of it, {terms.whose} {len(theirs) or 'none'}"
            without.setdefault(logged if mine or theirs else "neither run logged folds of it", []).append(name)
            continue
        draft = _Draft(name, FOLDS, "cross-validation", terms.margin(name), len(mine))
        try:
            higher = METRICS[name].direction == "higher"
            found = statistics.corrected_t(mine, theirs, test_ratio=1 / (int(count) - 1), higher=higher, margin=draft.margin)
        except UndefinedError as error:
            yield replace(draft, remark=str(error), undefined=error.side)
        else:
            yield replace(draft, estimate=found)
    missing += [f"{', '.join(names)} in the {FOLDS}: {logged}" for logged, names in without.items()]


def _judge(drafts: Sequence[_Draft], confidence: float) -> list[Comparison]:
    """Judge a family of comparisons together."""
    estimates = [draft.estimate for draft in drafts if draft.estimate is not None]
    decisions = iter(statistics.decide(estimates, confidence))
    return [_without_estimate(draft) if draft.estimate is None else _judged(draft, draft.estimate, next(decisions)) for draft in drafts]


def _without_estimate(draft: _Draft) -> Comparison:
    """Return a comparison that has no value: the candidate fails by what is its own fault, and by nothing else."""
    failed = draft.undefined == "candidate" and draft.margin is not None
    return Comparison(
        **_common(draft),
        baseline=draft.known.get("baseline"),
        candidate=draft.known.get("candidate"),
        verdict=Verdict.FAIL if failed else Verdict.NOT_JUDGED,
        reason=draft.remark,
    )


def _common(draft: _Draft) -> dict[str, Any]:
    return {
        "metric": draft.metric,
        "scope": draft.scope,
        "kind": draft.kind,
        "direction": METRICS[draft.metric].direction,
        "margin": draft.margin,
        "rows": draft.rows,
    }


def _judged(draft: _Draft, found: Estimate, decision: Decision) -> Comparison:
    return Comparison(
        **_common(draft),
        baseline=finite(found.baseline),
        candidate=finite(found.candidate),
        difference=finite(found.difference),
        low=finite(decision.low),
        high=finite(decision.high),
        groups=found.groups,
        method=found.method,
        p_value=decision.p_value,
        verdict=decision.verdict,
        reason=draft.remark or _reason(draft.margin, found, decision),
    )


def _reason(margin: float | None, found: Estimate, decision: Decision) -> str:
    """Return in a clause what the bounds say."""
    if margin is None:
        return "no margin is set, so it is only shown"
    if decision.verdict is Verdict.PASS:
        if found.difference == 0 and decision.low == decision.high == 0:
            return "the two are equal"
        return "better" if decision.low > 0 else "worse by less than the margin" if decision.high < 0 else "no worse than the margin"
    if decision.verdict is Verdict.FAIL:
        return "worse, and by the margin or more"
    if decision.high < 0:
        return "worse, but whether by more than the margin is open"
    return "looks worse by the margin or more, but may be chance" if found.difference <= -margin else "a larger loss than the margin is possible"
