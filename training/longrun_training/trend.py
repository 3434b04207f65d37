"""The last judged runs of the main branch, in order, with the candidate as a point of its own: read from the server, and as a Mermaid chart.

`trend_figure` draws it as a picture.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mlflow import MlflowClient
from mlflow.entities import Run

from longrun_training import lookup
from longrun_training.config import Direction
from longrun_training.judgement import Comparison, Judgement, RunReference, Verdict
from longrun_training.records import MODEL
from longrun_training.scores import METRICS
from longrun_training.wording import decimals, metric_name, words

MOST_RUNS, MOST_SERIES = 30, 3
SHORT_COMMIT = 7
# A share of the shown values, left free above and below them.
AIR = 0.12
# What a Mermaid string may hold here: no quote, no bracket, nothing that begins a comment or an entity.
UNSAFE = re.compile(r"[^\w .,:()/+²★◆-]")
CHAMPION, REFERENCE = "★", "◆"


@dataclass(frozen=True)
class Point:
    """One run.

    Attributes:
        run_id: Of the run.
        label: The model version that it made, else the beginning of its commit.
        finished: Milliseconds since 1970, UTC; None where it has no end.
        values: Its metrics by their names on the server, only finite ones.
        verdict: Of its gate; None where it was not judged, or by a version of longrun with other words.
        accepted: Whether its gate ended with 0.
        holdout: SHA-256 of its hold-out; None where it does not say.
    """

    run_id: str
    label: str
    finished: int | None
    values: Mapping[str, float]
    verdict: Verdict | None = None
    accepted: bool = True
    holdout: str | None = None


@dataclass(frozen=True)
class Series:
    """One metric of the trend.

    Attributes:
        metric: Its name in longrun.toml.
        key: Its name on the server.
        title: What people call it, with its unit.
        direction: Which way is better.
        limit: The worst value that the gate accepts, baseline and margin taken together; None without both.
        low: Lower end of the candidate's value, from the difference's interval; None where that has none.
        high: Its upper end.
    """

    metric: str
    key: str
    title: str
    direction: Direction
    limit: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Trend:
    """What happened on the main branch, oldest first, and where the candidate stands.

    Attributes:
        branch: The main branch's name.
        points: At most MOST_RUNS runs; never the candidate.
        candidate: None where it is not on the server.
        champion: The run of the alias `champion`; it need not be among the points.
        baseline: As the gate took it; it need not be among the points.
        reference: The pinned one.
        series: The metrics, most important first; at least one.
    """

    branch: str
    points: tuple[Point, ...]
    candidate: Point | None
    champion: Point | None
    baseline: Point | None
    reference: Point | None
    series: tuple[Series, ...]

    @property
    def shown(self) -> tuple[Point, ...]:
        """The points with the candidate as the last."""
        return self.points if self.candidate is None else (*self.points, self.candidate)


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that are numbers."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _verdict(tags: Mapping[str, str]) -> Verdict | None:
    try:
        return Verdict(tags.get(lookup.VERDICT, ""))
    except ValueError:
        return None


def _point(run: Run, versions: Mapping[str, str]) -> Point:
    tags = run.data.tags
    label = versions.get(run.info.run_id) or tags.get(lookup.COMMIT, "")[:SHORT_COMMIT] or run.info.run_id[:SHORT_COMMIT]
    accepted = tags.get(lookup.EXIT_STATUS) == "0"
    return Point(run.info.run_id, label, run.info.end_time, finite(run.data.metrics), _verdict(tags), accepted, tags.get(lookup.HOLDOUT))


def _history(client: MlflowClient, experiment_id: str, judgement: Judgement, branch: str) -> list[Run]:
    """Return the last judged runs of the branch, newest first, in one search. A fork's branch may be called main too: none of a pull request."""
    wanted = {MODEL: judgement.model, lookup.BRANCH: branch}
    clauses = [f"attributes.status = '{lookup.FINISHED}'", lookup.WITH_MODEL, f"tags.`{lookup.PULL_REQUEST}` IS NULL", f"tags.`{lookup.VERDICT}` IS NOT NULL"]
    clauses += [f"tags.`{name}` = {lookup.quoted(value)}" for name, value in wanted.items()]
    # One more than are shown: the candidate may be among them.
    found = client.search_runs([experiment_id], " and ".join(clauses), max_results=MOST_RUNS + 1, order_by=["attributes.start_time DESC"])
    own = judgement.candidate.run_id if judgement.candidate else None
    return [run for run in found if run.info.run_id != own][:MOST_RUNS]


def _versions(client: MlflowClient, model: str, run_ids: Sequence[str]) -> dict[str, str]:
    """Return the newest version that each run made, in one search."""
    listed = ", ".join(f"'{run_id}'" for run_id in run_ids)
    found = client.search_model_versions(f"name = {lookup.quoted(model)} and run_id IN ({listed})") if run_ids else []
    return {version.run_id: str(version.version) for version in sorted(found, key=lambda version: int(version.version)) if version.run_id}


def _champion(client: MlflowClient, model: str) -> str | None:
    version = lookup.alias_of(client, model, "champion")
    return version.run_id if version is not None else None


def read(client: MlflowClient, judgement: Judgement, *, experiment_id: str, branch: str, metrics: Sequence[str], unit: str | None) -> Trend | None:
    """Read the trend from the server, in a handful of calls however many runs there are.

    Args:
        client: Of the server.
        judgement: Its comparisons say which metrics are shown.
        experiment_id: Where the runs are.
        branch: The main branch.
        metrics: Names of metrics, the most important first; they decide where no comparison does.
        unit: The target's.

    Returns:
        The trend; None where the branch has no judged run yet, or none with a metric that could be shown.
    """
    runs = {run.info.run_id: run for run in _history(client, experiment_id, judgement, branch)}
    if not runs:
        return None
    points = list(reversed(runs))
    marked = {
        "candidate": _id(judgement.candidate),
        "champion": _champion(client, judgement.model),
        "baseline": _id(judgement.baseline),
        "reference": _id(judgement.reference),
    }
    for run_id in marked.values():
        if run_id is not None and run_id not in runs:
            runs[run_id] = client.get_run(run_id)
    versions = _versions(client, judgement.model, list(runs))
    made = {run_id: _point(run, versions) for run_id, run in runs.items()}
    if judgement.candidate is not None:
        own = judgement.candidate.run_id
        made[own] = replace(made[own], verdict=judgement.verdict, accepted=judgement.exit_status == 0)
    found = {role: made[run_id] if run_id is not None else None for role, run_id in marked.items()}
    series = choose(judgement, [made[run_id] for run_id in points], metrics, unit)
    return Trend(branch, tuple(made[run_id] for run_id in points), series=series, **found) if series else None


def _id(run: RunReference | None) -> str | None:
    return None if run is None else run.run_id


def choose(judgement: Judgement, points: Sequence[Point], metrics: Sequence[str], unit: str | None) -> tuple[Series, ...]:
    """Return the metrics that are worth a chart: those that are judged, then those of rules, then the given ones, then any; each once."""
    whole = [comparison for comparison in judgement.comparisons if comparison.kind != "slice"]
    whole.sort(key=lambda comparison: (comparison.margin is None, comparison.kind != "hold-out"))
    floors = [rule.metric for rule in judgement.rules if rule.metric is not None]
    names = list(dict.fromkeys([*(comparison.metric for comparison in whole), *floors, *metrics, *METRICS]))
    chosen = []
    for name in names:
        comparison = next((comparison for comparison in whole if comparison.metric == name), None)
        series = _series(name, comparison, unit)
        if series is not None and any(series.key in point.values for point in points):
            chosen.append(series)
    judged = [series for series in chosen if series.limit is not None]
    # A metric that nobody asked about is shown only where there is no other.
    asked = [series for series in chosen if series.metric in {*(comparison.metric for comparison in whole), *floors, *metrics}]
    return tuple((judged or asked or chosen[:1])[:MOST_SERIES])


def _series(name: str, comparison: Comparison | None, unit: str | None) -> Series | None:
    title, kind = words(metric_name(name, unit)), METRICS.get(name)
    if comparison is None:
        return None if kind is None else Series(name, f"holdout_{name}", title, kind.direction)
    folds = comparison.kind == "cross-validation"
    series = Series(name, f"cv_{name}_mean" if folds else f"holdout_{name}", f"{title}, cross-validation" if folds else title, comparison.direction)
    baseline, margin, low, high = comparison.baseline, comparison.margin, comparison.low, comparison.high
    if baseline is None:
        return series
    # Differences are oriented: above 0 is better.
    side = 1.0 if comparison.direction == "higher" else -1.0
    limit = None if margin is None else baseline - side * margin
    if low is None or high is None:
        return replace(series, limit=limit)
    ends = sorted((baseline + side * low, baseline + side * high))
    return replace(series, limit=limit, low=ends[0], high=ends[1])


def span(values: Iterable[float]) -> tuple[float, float]:
    """Return where an axis begins and ends, with some air around the values, also where all of them are equal."""
    known = list(values)
    low, high = min(known), max(known)
    air = (high - low) * AIR or abs(high) * AIR or 1.0
    return low - air, high + air


def _safe(text: str) -> str:
    return " ".join(UNSAFE.sub(" ", text).split())


def _plain_number(value: float, places: int) -> str:
    """Return a number as Mermaid reads it: digits and a point, never an exponent."""
    return f"{value:.{min(max(places, 0), 15)}f}"


def mermaid(trend: Trend) -> str | None:
    """Return the first metric's chart for a Markdown page: a line of the runs that ends in the candidate, the candidate's bar, the limit.

    Returns:
        An `xychart-beta`; None where it could show less than two points, or Mermaid could not write its numbers.
    """
    series = trend.series[0]
    points = [point for point in trend.shown if series.key in point.values]
    values = [point.values[series.key] for point in points]
    if len(points) < 2:  # noqa: PLR2004 - one point is no trend
        return None
    low, high = span([*values, *([] if series.limit is None else [series.limit])])
    places = decimals((high - low) / 10, max(abs(low), abs(high))) + 1
    if places > 15 or max(abs(low), abs(high)) > 1e15:  # noqa: PLR2004 - beyond what digits can write
        return None
    own = trend.candidate is not None and points[-1] == trend.candidate
    # A bar that begins below the axis is not drawn, so that only the candidate has one.
    below = low - (high - low) / 5
    bars = [*([below] * (len(values) - 1)), values[-1]] if own else []
    listed = [("bar", bars), ("line", values), ("line", [] if series.limit is None else [series.limit] * len(values))]
    colours = ["#dd6b20", "#3182ce", "#e53e3e"]
    palette = ", ".join(colour for colour, (_, numbers) in zip(colours, listed, strict=True) if numbers)
    size = '"width": 900, "height": 320, "xAxis": {"labelFontSize": 11}'
    title = _safe(series.title)
    lines = [
        f'%%{{init: {{"xyChart": {{{size}}}, "themeVariables": {{"xyChart": {{"plotColorPalette": "{palette}"}}}}}}}}%%',
        "xychart-beta",
        f'    title "{title}: {series.direction} is better"',
        f'    x-axis "runs on {_safe(trend.branch)}, oldest first" [{", ".join(_labels(trend, points))}]',
        f'    y-axis "{title}" {_plain_number(low, places)} --> {_plain_number(high, places)}',
        *(f"    {kind} [{', '.join(_plain_number(value, places) for value in numbers)}]" for kind, numbers in listed if numbers),
    ]
    return "\n".join(lines)


def _labels(trend: Trend, points: Sequence[Point]) -> list[str]:
    """Return a quoted label a point; each of them another one, or Mermaid would draw two points at one place."""
    seen: dict[str, int] = {}
    labels = []
    for point in points:
        text = "this" if point == trend.candidate else _safe(point.label)
        seen[text] = seen.get(text, 0) + 1
        if seen[text] > 1:
            text = f"{text}.{seen[text]}"
        if point != trend.candidate:
            text += CHAMPION if point == trend.champion else ""
            text += REFERENCE if point == trend.reference else ""
        labels.append(f'"{text}"')
    return labels
