"""`longrun report` as a person and as CI meet it: against a real server, without one, and with files that are none."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from longrun_training import lookup, report
from longrun_training.judgement import Verdict
from mlflow import MlflowClient
from mlflow.entities import Metric

from tests.unit.training import report_helpers as made

Longrun = Callable[..., Any]
AWAY = "http://127.0.0.1:9"
HEAD = "ab" * 20


def files(folder: Path) -> set[str]:
    """The names in a folder."""
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What GitHub sets on a pull request; returns the summary's file."""
    event, summary = tmp_path / "event.json", tmp_path / "summary.md"
    event.write_text(json.dumps({"pull_request": {"number": 128, "head": {"sha": HEAD, "ref": "deeper-trees"}}}), encoding="utf-8")
    summary.write_text("an earlier step\n", encoding="utf-8")
    given = {
        "GITHUB_EVENT_PATH": event,
        "GITHUB_STEP_SUMMARY": summary,
        "GITHUB_WORKFLOW": "train",
        "GITHUB_SHA": "cd" * 20,
        "GITHUB_REPOSITORY": "acme/models",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))
    return summary


def history(model: str, count: int) -> list[str]:
    """Runs on main of a real server, one of them a sweep, and the candidate as the last; returns their ids."""
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"], os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.create_experiment(model)
    made_here = []
    for number in range(count + 1):
        tags = {
            "longrun.kind": "sweep" if number == 1 else "train",
            "longrun.model": model,
            lookup.BRANCH: "main",
            lookup.VERDICT: "pass",
            lookup.EXIT_STATUS: "0",
        }
        tags |= {lookup.PULL_REQUEST: "128"} if number == count else {}
        run = client.create_run(experiment, tags=tags, start_time=1_790_000_000_000 + number)
        client.log_batch(run.info.run_id, [Metric("holdout_rmse", 55 - 0.1 * number, 1, 0)])
        client.set_terminated(run.info.run_id)
        made_here.append(run.info.run_id)
    return made_here


def test_report_with_a_server(server: str, tmp_path: Path, longrun: Longrun) -> None:
    """Four files here, three of them with the run, and everything is said where they are."""
    runs = history("reported", 3)
    url = f"{server}/#/experiments/1/runs/{runs[-1]}"
    candidate = made.run(1, version=None, run_id=runs[-1], url=url)
    found = made.judgement(model="reported", candidate=candidate, baseline=made.run(2, version=None, run_id=runs[0]), reference=None)
    made.write(tmp_path, found)
    (tmp_path / "longrun.toml").write_text('[model]\nname = "reported"\n[data]\nunit = "kg"\n', encoding="utf-8")
    done = longrun("report", "--gate", "gate.json", "--output", "out", "--json")
    assert (done.status, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert said == {
        "verdict": "pass", "markdown": "out/report.md", "page": "out/report.html", "trend": "out/trend.png", "comment": "out/comment.json",
        "no_trend": None, "url": f"{url}/artifactPath/report.html", "notes": [],
    }  # fmt: skip
    assert files(tmp_path / "out") == {"report.md", "report.html", "trend.png", "comment.json"}
    picture = (tmp_path / "out/trend.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    html = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    # Once for light and once for dark screens.
    assert base64.b64encode(picture).decode() in html
    assert html.count("data:image/png;base64,") == 2
    text = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert "RMSE (kg)" in text
    assert "The last 3 judged runs" in text
    assert f"[whole report]({url}/artifactPath/report.html)" in text
    client = MlflowClient(server)
    assert {item.path for item in client.list_artifacts(runs[-1])} == {"report.md", "report.html", "trend.png"}
    stored = client.download_artifacts(runs[-1], "report.html", str(tmp_path))
    assert Path(stored).read_bytes() == (tmp_path / "out/report.html").read_bytes()


def test_report_without_a_server(tmp_path: Path, github: Path, longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage costs the trend and nothing else; the report says so, and the exit status is 0: the report is there."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    made.write(tmp_path, made.judgement())
    out = tmp_path / ".longrun/report"
    out.mkdir(parents=True)
    (out / "trend.png").write_bytes(b"of yesterday")
    done = longrun("report", "--gate", "gate.json")
    assert (done.status, done.stdout) == (0, "")
    assert "✅ diabetes pass: no worse than the baseline" in done.stderr
    assert "The server was away" in done.stderr
    assert files(out) == {"report.md", "report.html", "comment.json"}
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "### Trend\n\nThe server was away when this report was written" in text
    assert "The server was away" in (out / "report.html").read_text(encoding="utf-8")
    assert github.read_text(encoding="utf-8") == "an earlier step\n" + text


@pytest.mark.parametrize(("uri", "expected"), [("", "MLFLOW_TRACKING_URI is not set"), ("ftp://x", "not the address of a server")])
def test_report_with_a_wrong_address(tmp_path: Path, longrun: Longrun, monkeypatch: pytest.MonkeyPatch, uri: str, expected: str) -> None:
    """What keeps us from the server is in the report as well: it is no outage, but no reason to have no report."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    made.write(tmp_path, made.judgement())
    assert longrun("report", "--gate", "gate.json").status == 0
    assert expected in (tmp_path / ".longrun/report/report.html").read_text(encoding="utf-8")


def test_runs_that_are_not_on_this_server(server: str, tmp_path: Path, longrun: Longrun) -> None:
    """A gate.json of another server has a report, without a trend."""
    history("another-server", 1)
    made.write(tmp_path, made.judgement(model="another-server"))
    (tmp_path / "longrun.toml").write_text('[model]\nname = "another-server"\n', encoding="utf-8")
    done = longrun("report", "--gate", "gate.json", "--json")
    assert done.status == 0
    said = json.loads(done.stdout)
    assert (said["trend"], said["url"]) == (None, None)
    assert server in said["no_trend"]


def test_no_experiment_yet(server: str, tmp_path: Path, longrun: Longrun) -> None:
    """Neither is that an error."""
    made.write(tmp_path, made.judgement(candidate=None))
    (tmp_path / "longrun.toml").write_text('[model]\nname = "no-such-model"\n', encoding="utf-8")
    done = longrun("report", "--gate", "gate.json", "--json")
    assert done.status == 0
    assert "no experiment 'no-such-model'" in json.loads(done.stdout)["no_trend"], server


def test_comment_for_the_other_workflow(tmp_path: Path, github: Path, longrun: Longrun) -> None:
    """It names the head of the pull request, not the commit that GitHub merged for a try, and begins with its marker."""
    made.write(tmp_path, made.judgement(verdict=Verdict.FAIL, exit_status=1))
    assert longrun("report", "--gate", "gate.json", "--no-summary").status == 0
    comment = json.loads((tmp_path / ".longrun/report/comment.json").read_text(encoding="utf-8"))
    body = comment.pop("body")
    assert comment == {"format": 1, "head_sha": HEAD, "workflow": "train", "model": "diabetes", "verdict": "fail"}
    assert body == (tmp_path / ".longrun/report/report.md").read_text(encoding="utf-8")
    assert body.startswith("<!-- longrun: train diabetes -->\n")
    assert "https://github.com/acme/models/commit/" in body
    assert github.read_text(encoding="utf-8") == "an earlier step\n"


def test_outside_of_ci(tmp_path: Path, longrun: Longrun) -> None:
    """On a laptop the workflow is called local, and the commit is the candidate's."""
    made.write(tmp_path, made.judgement())
    assert longrun("report", "--gate", "gate.json").status == 0
    comment = json.loads((tmp_path / ".longrun/report/comment.json").read_text(encoding="utf-8"))
    assert (comment["workflow"], comment["head_sha"]) == ("local", "c0" * 20)


def test_a_full_summary_is_cut(tmp_path: Path, github: Path, longrun: Longrun) -> None:
    """GitHub drops a summary of more than 1 MiB as a whole, with what other steps wrote."""
    made.write(tmp_path, made.judgement())
    github.write_bytes(b"x" * (report.SUMMARY_BYTES - 1500))
    assert longrun("report", "--gate", "gate.json").status == 0
    assert report.SUMMARY_BYTES - 1500 < github.stat().st_size <= report.SUMMARY_BYTES
    assert github.read_text(encoding="utf-8").endswith("✂️ The summary was cut to fit.\n")
    assert longrun("report", "--gate", "gate.json").status == 0
    assert github.stat().st_size <= report.SUMMARY_BYTES


def test_a_summary_that_can_not_be_written(tmp_path: Path, longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is there; that it is not in the summary is a note."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    made.write(tmp_path, made.judgement())
    done = longrun("report", "--gate", "gate.json", "--json")
    assert done.status == 0
    assert "the job's summary" in json.loads(done.stdout)["notes"][0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "gate.json does not exist: `longrun gate` writes it"),
        ("", "gate.json is no judgement"),
        ("{}", "gate.json is no judgement"),
        ('{"format": 2}', "gate.json is no judgement"),
        (b"\xff\xfe", "gate.json can't be read"),
    ],
)
def test_no_judgement_is_one_line(tmp_path: Path, longrun: Longrun, content: str | bytes | None, expected: str) -> None:
    """Missing, empty, of another format or no text: exit status 4, one line, no file."""
    if content is not None:
        (tmp_path / "gate.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    done = longrun("report", "--gate", "gate.json")
    assert done.status == 4
    assert expected in done.error
    assert not (tmp_path / ".longrun/report").exists()


@pytest.mark.parametrize("arguments", [("--limit", "10"), ("--limit", "many"), ("--nothing",)])
def test_wrong_calls(longrun: Longrun, arguments: tuple[str, ...]) -> None:
    """Exit status 4 and one line."""
    done = longrun("report", *arguments)
    assert done.status == 4
    assert "longrun report --help" in done.error


def test_no_place_for_the_report(tmp_path: Path, longrun: Longrun) -> None:
    """A file where the folder should be, or a full disk, is one line."""
    made.write(tmp_path, made.judgement())
    (tmp_path / "out").write_text("", encoding="utf-8")
    done = longrun("report", "--gate", "gate.json", "--output", "out")
    assert done.status == 4
    assert "the report can't be written to out" in done.error


def test_limit(tmp_path: Path, longrun: Longrun) -> None:
    """A comment elsewhere may take less than GitHub's."""
    slices = tuple(made.comparison(scope=f"slice {number}", kind="slice") for number in range(300))
    made.write(tmp_path, made.judgement(comparisons=slices))
    assert longrun("report", "--gate", "gate.json", "--limit", "5000").status == 0
    assert len((tmp_path / ".longrun/report/report.md").read_text(encoding="utf-8")) <= 5000


def test_numbers_that_are_none(tmp_path: Path, longrun: Longrun) -> None:
    """A candidate whose metric is undefined was judged; its report has dashes."""
    undefined = made.comparison(candidate=None, difference=None, low=None, high=None, verdict=Verdict.FAIL, reason="the candidate's predictions are not finite")
    infinite = made.comparison("mae", low=-1.5, high=2.0, candidate=1e308)
    made.write(tmp_path, made.judgement(verdict=Verdict.FAIL, exit_status=1, comparisons=(undefined, infinite)))
    assert longrun("report", "--gate", "gate.json").status == 0
    text = (tmp_path / ".longrun/report/report.md").read_text(encoding="utf-8")
    assert "| RMSE | hold-out | 54.21 | **–** | – | – | 1 | 89 rows | ❌ fail |" in text
