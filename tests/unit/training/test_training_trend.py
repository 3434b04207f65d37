"""The trend: the right runs from a real server, in few calls, and charts that a browser takes."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import requests
from longrun_training import lookup, trend, trend_figure
from longrun_training.errors import ProblemError
from longrun_training.judgement import Judgement, Rule, Verdict
from longrun_training.trend import Point, Trend
from mlflow import MlflowClient
from mlflow.entities import Metric

from tests.unit.training import report_helpers as made

MODEL = "trended"
START = 1_790_000_000_000
CALLS_AT_MOST = 10


class Bench:
    """An experiment on the real server, to which a test adds runs."""

    def __init__(self, uri: str, name: str) -> None:
        self.client = MlflowClient(uri, uri)
        self.experiment_id = self.client.create_experiment(name)
        self.count = 0

    def run(self, value: float, *, status: str = "FINISHED", verdict: str | None = "pass", model: str = MODEL, **tags: str) -> str:
        """Make a judged run on main, a minute after the one before."""
        self.count += 1
        start = START + self.count * 60_000
        given = {"longrun.kind": "train", "longrun.model": model, lookup.BRANCH: "main", lookup.COMMIT: f"{self.count:040x}", lookup.HOLDOUT: "h"}
        judged = {} if verdict is None else {lookup.VERDICT: verdict, lookup.EXIT_STATUS: "0" if verdict == "pass" else "1"}
        run_id = self.client.create_run(self.experiment_id, start_time=start, tags={**given, **judged, **tags}).info.run_id
        metrics = [Metric("holdout_rmse", value, start, 0), Metric("cv_rmse_mean", value + 1, start, 0)]
        self.client.log_batch(run_id, metrics)
        self.client.set_terminated(run_id, status, start + 30_000)
        return str(run_id)

    def version(self, run_id: str) -> str:
        """Register a run."""
        return str(self.client.create_model_version(MODEL, f"runs:/{run_id}/m", run_id).version)

    def read(self, found: Judgement, metrics: tuple[str, ...] = ()) -> Trend | None:
        """Read the trend."""
        return trend.read(self.client, found, experiment_id=self.experiment_id, branch="main", metrics=metrics, unit="kg")


def judged(candidate: str, baseline: str | None = None, **changes: Any) -> Judgement:  # noqa: ANN401 - the fields of a judgement
    """A judgement about runs of the real server."""
    run = made.run(1, version=None, run_id=candidate)
    base = None if baseline is None else made.run(2, version=None, run_id=baseline)
    return made.judgement(model=MODEL, candidate=run, baseline=base, reference=None, **changes)


def test_the_right_runs_in_order(server_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last judged runs of main, oldest first; none of a pull request, none unjudged, unfinished or of another kind or model, not the candidate."""
    monkeypatch.setattr(trend, "MOST_RUNS", 4)
    bench = Bench(server_uri, "trended")
    bench.client.create_registered_model(MODEL)
    champion = bench.run(57.0)
    version = bench.version(champion)
    bench.client.set_registered_model_alias(MODEL, "champion", version)
    runs = [bench.run(56.0), bench.run(55.5, verdict="fail"), bench.run(math.nan), bench.run(55.0, verdict="a word of the future")]
    bench.run(1.0, verdict=None)
    bench.run(2.0, **{lookup.PULL_REQUEST: "7"})
    bench.run(3.0, status="KILLED")
    bench.run(4.0, **{"longrun.kind": "calibration"})
    bench.run(5.0, model="another")
    bench.run(6.0, **{lookup.BRANCH: "main2"})
    candidate = bench.run(54.0)
    label = bench.version(runs[-1])

    asked: list[str] = []
    send = requests.Session.send

    def counting(self: requests.Session, request: requests.PreparedRequest, **more: Any) -> requests.Response:  # noqa: ANN401 - passed on
        asked.append(str(request.url))
        return send(self, request, **more)

    monkeypatch.setattr(requests.Session, "send", counting)
    found = bench.read(judged(candidate, runs[0]))
    assert found is not None
    assert 0 < len(asked) <= CALLS_AT_MOST
    assert [point.run_id for point in found.points] == runs
    assert [point.values.get("holdout_rmse") for point in found.points] == [56.0, 55.5, None, 55.0]
    assert [point.verdict for point in found.points] == [Verdict.PASS, Verdict.FAIL, Verdict.PASS, None]
    assert [point.accepted for point in found.points] == [True, False, True, False]
    assert [point.label for point in found.points] == [*(f"{number:040x}"[:7] for number in (2, 3, 4)), label]
    assert found.candidate is not None
    assert (found.candidate.run_id, found.candidate.verdict, found.candidate.accepted) == (candidate, Verdict.PASS, True)
    assert found.champion is not None
    assert (found.champion.run_id, found.champion.label, found.champion in found.points) == (champion, version, False)
    assert found.baseline == found.points[0]
    assert found.reference is None
    assert trend.mermaid(found) is not None
    assert trend_figure.png(found).startswith(b"\x89PNG")


def test_no_history_yet(server_uri: str) -> None:
    """The first run has no trend; neither is an error, nor is a model without versions."""
    bench = Bench(server_uri, "untrended")
    candidate = bench.run(54.0, model="untrended")
    first = judged(candidate).model_copy(update={"model": "untrended"})
    assert bench.read(first) is None
    bench.run(55.0, model="untrended")
    found = bench.read(first, ("rmse",))
    assert found is not None
    assert (len(found.points), found.champion) == (1, None)
    assert "The only judged run on main" in trend_figure.draw(found, trend_figure.LIGHT).get_suptitle()


def test_names_that_can_not_be_searched_for(server_uri: str) -> None:
    """MLflow's filters know no escape: one kind of quotes works, two are said to a person."""
    bench = Bench(server_uri, "quoted")
    for model, kept in (("it's", True), ('it\'s "it"', False)):
        found = judged(bench.run(1.0)).model_copy(update={"model": model})
        if kept:
            assert bench.read(found) is None
        else:
            with pytest.raises(ProblemError, match="can't search for"):
                bench.read(found)


def chosen(found: Judgement, *metrics: str, keys: tuple[str, ...] = ("holdout_rmse", "holdout_mae", "holdout_r2", "cv_rmse_mean")) -> list[str]:
    """The keys of the metrics that a trend would show."""
    points = [Point("a", "1", None, dict.fromkeys(keys, 1.0))]
    return [series.key for series in trend.choose(found, points, metrics, "kg")]


def test_judged_metrics_are_shown() -> None:
    """Those with a margin, on the hold-out where there is one, three at most; else those of rules, of the configuration, or any one."""
    assert chosen(made.judgement()) == ["holdout_rmse", "holdout_mae", "holdout_r2"]
    folds = tuple(comparison for comparison in made.judgement().comparisons if comparison.kind == "cross-validation")
    assert chosen(made.judgement(comparisons=folds)) == ["cv_rmse_mean"]
    unjudged = (made.comparison(margin=None), made.comparison("mae"))
    assert chosen(made.judgement(comparisons=unjudged)) == ["holdout_mae"]
    floor = Rule(name="floor", metric="r2", value=0.4, limit=0.3, direction="higher", kept=True, reason="")
    assert chosen(made.judgement(comparisons=(), rules=(floor,))) == ["holdout_r2"]
    assert chosen(made.judgement(comparisons=(), rules=()), "mae", "rmse") == ["holdout_mae", "holdout_rmse"]
    assert chosen(made.judgement(comparisons=(), rules=())) == ["holdout_rmse"]
    assert chosen(made.judgement(), keys=("other",)) == []


@pytest.mark.parametrize(("direction", "expected"), [("lower", (11.0, 9.5, 10.2)), ("higher", (9.0, 9.8, 10.5))])
def test_limit_and_interval_are_in_the_metrics_own_direction(direction: str, expected: tuple[float, float, float]) -> None:
    """The gate's differences are above 0 where it is better; on the axis, better may be down."""
    comparison = made.comparison("r2" if direction == "higher" else "rmse", direction=direction, baseline=10.0, margin=1.0, low=-0.2, high=0.5)
    point = Point("a", "1", None, {"holdout_r2": 10.0, "holdout_rmse": 10.0})
    (series,) = trend.choose(made.judgement(comparisons=(comparison,), rules=()), [point], [], None)
    assert (series.limit, series.low, series.high) == pytest.approx(expected)


def check_mermaid(text: str, points: int) -> None:
    """Hold a chart to the part of Mermaid's grammar for xychart-beta that this project uses; all versions since 10.4 know it."""
    lines = text.splitlines()
    number = r"-?\d+(\.\d+)?"
    assert re.fullmatch(r"%%\{init: \{.*\}\}%%", lines[0])
    assert lines[1] == "xychart-beta"
    assert re.fullmatch(r'    title "[^"\n`]+"', lines[2])
    axis = re.fullmatch(r'    x-axis "[^"`]+" \[((?:"[^"\[\]`]+"(?:, )?)+)\]', lines[3])
    assert axis
    labels = axis[1].split(", ")
    assert len(labels) == len(set(labels)) == points
    scale = re.fullmatch(rf'    y-axis "[^"`]+" ({number}) --> ({number})', lines[4])
    assert scale
    assert float(scale[1]) < float(scale[3])
    assert len(lines) > 5
    for line in lines[5:]:
        data = re.fullmatch(rf"    (?:bar|line) \[({number}(?:, {number})*)\]", line)
        assert data, line
        assert len(data[1].split(", ")) == points


def test_mermaid() -> None:
    """A line that ends in the candidate, a bar for the candidate alone, and the limit."""
    chart = trend.mermaid(made.trend())
    assert chart is not None
    check_mermaid(chart, 31)
    bar, line, limit = chart.splitlines()[5:]
    values = [float(value) for value in re.findall(r"-?[\d.]+", bar)]
    lowest = float(re.findall(r"[\d.]+", chart.splitlines()[4])[-2])
    assert all(value < lowest for value in values[:-1])
    assert values[-1] == pytest.approx(54.021)
    assert line.endswith("54.021]")
    assert set(re.findall(r"[\d.]+", limit)) == {"55.210"}
    assert '"38★"' in chart
    assert '"11◆"' in chart


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e6, 1e12])
def test_mermaid_knows_no_exponents(scale: float) -> None:
    """Python writes 1e-09, which Mermaid does not read: that would be a bomb in the place of the chart."""
    found = made.trend(3)
    points = tuple(replace(point, values={"holdout_rmse": point.values["holdout_rmse"] * scale}) for point in found.points)
    series = (replace(found.series[0], limit=None),)
    chart = trend.mermaid(replace(found, points=points, candidate=None, series=series))
    assert chart is not None
    check_mermaid(chart, 3)


def test_mermaid_of_equal_negative_and_missing_values() -> None:
    """Equal values still have an axis, a run without the metric is left out, and labels stay different."""
    found = made.trend(3)
    same = tuple(replace(point, label='x"]`%%', values={"holdout_rmse": -2.0}) for point in found.points)
    lost = replace(found.points[0], values={})
    chart = trend.mermaid(replace(found, branch='m"ain`', points=(*same, lost), candidate=None, series=(replace(found.series[0], limit=None),)))
    assert chart is not None
    check_mermaid(chart, 3)


def test_mermaid_of_what_can_not_be_drawn() -> None:
    """One point is no trend, and numbers beyond what digits write are left to the picture."""
    found = made.trend(1)
    assert trend.mermaid(replace(found, candidate=None)) is None
    huge = tuple(replace(point, values={"holdout_rmse": 1e300}) for point in made.trend(3).points)
    assert trend.mermaid(replace(found, points=huge)) is None


def test_picture_names_what_it_shows() -> None:
    """Titles, direction, versions and days, and a legend of what is there and nothing else."""
    figure = trend_figure.draw(made.trend(), trend_figure.LIGHT)
    assert figure.get_suptitle() == "The last 30 judged runs on main"
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["RMSE (mg/dL)", "R²"]
    assert figure.axes[0].get_title(loc="right") == "↓ lower is better"
    labels = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert labels[-1] == "this run"
    assert "v38\n23 Nov" in labels
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["passed", "failed", "inconclusive", "this run, with its interval", "baseline", "champion", "reference", "not accepted of this run"]
    calm = made.trend(4)
    plain = replace(calm, candidate=None, champion=None, baseline=None, reference=None, series=(replace(calm.series[0], limit=None),))
    points = tuple(replace(point, verdict=Verdict.PASS, accepted=True) for point in plain.points)
    figure = trend_figure.draw(replace(plain, points=points), trend_figure.LIGHT)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["passed"]


def test_a_run_far_away_does_not_flatten_the_rest() -> None:
    """A failed run with an error of a million sits at the edge with its value."""
    found = made.trend()
    points = list(found.points)
    points[15] = replace(points[15], values={"holdout_rmse": 1e6, "holdout_r2": -4.0})
    figure = trend_figure.draw(replace(found, points=tuple(points)), trend_figure.LIGHT)
    assert figure.axes[0].get_ylim()[1] < 70
    assert "1e+06" in [text.get_text() for text in figure.axes[0].texts]


def test_another_hold_out_cuts_the_line() -> None:
    """Scores of other rows are not comparable, so nothing may join them."""
    found = made.trend(6)
    points = tuple(replace(point, holdout="b") if number > 2 else point for number, point in enumerate(found.points))
    figure = trend_figure.draw(replace(found, points=points, baseline=None), trend_figure.LIGHT)
    assert "other hold-out" in [text.get_text() for text in figure.axes[0].texts]
    lines = [line for line in figure.axes[0].lines if any(math.isnan(value) for value in map(float, line.get_ydata()))]  # type: ignore[arg-type]
    assert len(lines) == 1


def test_an_old_champion_is_a_level() -> None:
    """A champion from before the shown runs is a line with its version."""
    found = made.trend(5)
    champion = Point("z", "3", None, {"holdout_rmse": 54.5})
    figure = trend_figure.draw(replace(found, champion=champion), trend_figure.LIGHT)
    assert "champion 3, before these" in [text.get_text() for text in figure.axes[0].texts]


def test_the_same_trend_is_the_same_picture() -> None:
    """A sticky comment that is written again should not change for nothing; and a branch called like a formula is drawn as it is."""
    found = replace(made.trend(3), branch="$\\frac{x}$")
    assert trend_figure.png(found) == trend_figure.png(found)
