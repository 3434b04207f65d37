"""Our workflows, run with act against the server: what a team's history looks like after its first weeks.

Tests run in the order they stand here: each begins with what the one before left, and the last one reads the whole history.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.pipelines import Ended, Pipelines, Running, pipelines
from tests.e2e.stand_ins.github import PullRequest
from tests.servers import ROOT, Server, api, say

FILE, EXPERIMENT, LOGIN = "models/diabetes/longrun.toml", "progression", "pipelines"
# A quick model of a name of its own, for `make up` has trained the other; what is judged, and how, stays as it is.
QUICK = {'(?m)^name = "diabetes"': f'name = "{EXPERIMENT}"', "n_estimators = \\d+": "n_estimators = 20", "repeats = \\d+": "repeats = 1"}
WORSE = {**QUICK, '(?m)^name = "RandomForestRegressor"\\nparameters.*': 'name = "DummyRegressor"'}
# Hours of training, of which nobody waits for more than the first seconds.
LONG = {**QUICK, "repeats = \\d+": "repeats = 5000"}


def changed(replacements: Mapping[str, str], remark: str = "") -> dict[str, str]:
    """Return the repository's own longrun.toml with some values replaced, as the files of a commit."""
    text = (ROOT / FILE).read_text()
    for pattern, replacement in replacements.items():
        text, count = re.subn(pattern, replacement, text)
        assert count == 1, pattern
    return {FILE: f"{text}\n# {remark}\n" if remark else text}


@dataclass
class Team:
    """A repository, its pipelines, and the server that they report to.

    Attributes:
        go: Starts pipelines.
        server: Where the runs are.
        secrets: Of the repository.
        client: The client contract, for looking.
        history: For each pipeline that ran, the status of its run on the server, and the gate's exit status where it was judged.
    """

    go: Pipelines
    server: Server
    secrets: dict[str, str]
    client: dict[str, str]
    history: dict[int, tuple[str, str | None]] = field(default_factory=dict)

    def runs(self, number: int) -> list[dict[str, Any]]:
        """Return the runs of a pipeline that the server has."""
        try:
            experiment = api(self.client, "experiments/get-by-name", experiment_name=EXPERIMENT)["experiment"]["experiment_id"]
        except AssertionError:
            return []
        found = api_search(self.client, experiment, f"tags.`longrun.attempt` = '{number}/1'")
        return [{"status": run["info"]["status"], **{tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}, "run": run} for run in found]

    def expect(self, ended: Ended, *, gate: int | None, status: int) -> Ended:
        """Compare how a pipeline and its gate ended with what was wanted."""
        say(f"pipeline {ended.number}: {ended.seconds:.0f} s, gate {ended.gate}, act {ended.status}")
        if (ended.gate, ended.status) != (gate, status):
            pytest.fail(f"gate {ended.gate} and act {ended.status}, not {gate} and {status}:\n{ended.text[-6000:]}", pytrace=False)
        assert self.secrets["MLFLOW_TRACKING_PASSWORD"] not in ended.text, "the password stands in the log"
        if gate is not None:
            self.history[ended.number] = ("FINISHED", str(gate))
        return ended


def api_search(client: dict[str, str], experiment: str, filter_string: str) -> list[dict[str, Any]]:
    """Search the runs of an experiment over MLflow's REST API."""
    answer = requests.post(
        f"{client['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/runs/search",
        json={"experiment_ids": [experiment], "filter": filter_string},
        auth=(client["MLFLOW_TRACKING_USERNAME"], client["MLFLOW_TRACKING_PASSWORD"]),
        verify=client["MLFLOW_TRACKING_SERVER_CERT_PATH"],
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json().get("runs", [])
    return found


def await_training(team: Team, running: Running) -> None:
    """Wait until a pipeline's run is on the server with its first fold, so that it is in the midst of its training."""
    deadline = time.monotonic() + 300
    while not any("cv_rmse" in json.dumps(run["run"]["data"].get("metrics", [])) for run in team.runs(running.number)):
        assert running.process.poll() is None, running.text[-4000:]
        assert time.monotonic() < deadline, running.text[-4000:]
        time.sleep(0.5)


@pytest.fixture(scope="module")
def team(server: Server, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A repository with this one's files, and a login of its own on the server."""
    server.edit("users.yml", r"(?m)\Z", f"  - name: {LOGIN}\n")
    server.make("users")
    client = server.client(LOGIN)
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    secrets = {name: client[name] for name in names}
    if client["MLFLOW_TRACKING_URI"].startswith("https:"):
        secrets["MLFLOW_TRACKING_SERVER_CERT"] = Path(client["MLFLOW_TRACKING_SERVER_CERT_PATH"]).read_text()
    nightly = ".github/workflows/nightly.yml"
    renamed = (ROOT / nightly).read_text().replace("experiment: diabetes", f"experiment: {EXPERIMENT}")
    with pipelines(tmp_path_factory.mktemp("forge"), logs / "pipelines", {**changed(QUICK), nightly: renamed}) as go:
        yield Team(go, server, secrets, client)


def open_pull_request(team: Team, branch: str, replacements: Mapping[str, str], **how: Any) -> PullRequest:  # noqa: ANN401 - as pull_request
    """Open a pull request that changes the model's configuration."""
    return team.go.forge.pull_request(branch, changed(replacements, branch), **how)


def comments(team: Team, pull: PullRequest) -> list[str]:
    """Return what stands under a pull request."""
    return [comment["body"] for comment in team.go.forge.comments.get(pull.number, [])]


# --- the history builds up ---


def test_main_has_no_baseline_at_first(team: Team) -> None:
    """The first run of a repository: nothing to compare with, the floors hold, and it becomes what others are compared with."""
    ended = team.expect(team.go.push(team.secrets).wait(), gate=0, status=0)
    assert "NO BASELINE" in ended.text
    assert "no baseline" in ended.summary
    [run] = team.runs(ended.number)
    assert run["longrun.gate.verdict"] == "no baseline"
    assert run["mlflow.source.git.branch"] == "main"


def test_two_pull_requests_at_once(team: Team) -> None:
    """Two pipelines side by side, each with an equal model: both pass against main's run, and neither takes the other's version."""
    pulls = [open_pull_request(team, branch, QUICK) for branch in ("tidy-up", "rename")]
    ended = [running.wait() for running in [team.go.pull_request(pull, team.secrets) for pull in pulls]]
    versions = set()
    for pull, pipeline in zip(pulls, ended, strict=True):
        team.expect(pipeline, gate=0, status=0)
        assert "PASS" in pipeline.text
        [run] = team.runs(pipeline.number)
        assert run["longrun.gate.verdict"] == "pass"
        assert run["mlflow.source.git.commit"] == pull.head
        assert run["longrun.pull_request"] == str(pull.number)
        versions.add(run["run"]["info"]["run_id"])
        assert "pass" in team.go.comment(pipeline).text
        [comment] = comments(team, pull)
        assert comment.startswith(f"<!-- longrun: model {EXPERIMENT} -->")
    assert len(versions) == 2


def test_a_worse_model_fails_and_the_comment_is_renewed(team: Team) -> None:
    """A further push makes the model worse: its check fails with the gate's own exit status, and the comment that said pass now says fail."""
    pull = open_pull_request(team, "tidy-up", WORSE)
    [passed] = comments(team, pull)
    ended = team.expect(team.go.pull_request(pull, team.secrets).wait(), gate=1, status=1)
    assert "FAIL" in ended.text
    # The verdict's step, and with it the check that branch protection requires.
    assert "(exit status 1)" in ended.text
    assert team.runs(ended.number)[0]["longrun.gate.verdict"] == "fail"
    team.expect(team.go.comment(ended), gate=None, status=0)
    [failed] = comments(team, pull)
    assert failed.splitlines()[0] == passed.splitlines()[0]
    assert "pass" in passed.splitlines()[1]
    assert "fail" in failed.splitlines()[1]
    assert pull.head[:7] in failed


def test_only_what_a_pull_request_touches_is_trained(team: Team) -> None:
    """A change of a text trains nothing, and the required check passes all the same instead of waiting for ever."""
    pull = team.go.forge.pull_request("typo", {"README.md": "# Better words\n"})
    ended = team.expect(team.go.pull_request(pull, team.secrets).wait(), gate=None, status=0)
    assert "left out: nothing it tests was changed" in ended.text
    assert not team.runs(ended.number)


def test_the_night_compares_equal_models(team: Team) -> None:
    """The same code with other seeds makes equal models: the margins fail none of them, and the job's summary shows how the pairs came out."""
    night = team.go.scheduled("nightly", team.secrets, "calibrate")
    assert night.status == 0, night.text[-6000:]
    assert "A/A calibration" in night.summary
    assert re.search(r"pass: [1-9]\d* of 20", night.summary), night.summary
    experiment = api(team.client, "experiments/get-by-name", experiment_name=EXPERIMENT)["experiment"]["experiment_id"]
    calibrated = api_search(team.client, experiment, "tags.`longrun.kind` = 'calibration'")
    assert [run["info"]["status"] for run in calibrated] == ["FINISHED"] * 5


# --- ends that nobody wished for ---


def test_a_cancelled_run_is_killed(team: Team) -> None:
    """A newer push cancels the older run: its training is told so, and the run on the server says KILLED."""
    running = team.go.pull_request(open_pull_request(team, "impatient", LONG), team.secrets)
    await_training(team, running)
    running.cancel()
    ended = running.wait()
    assert ended.status != 0
    assert ended.gate is None
    [run] = team.runs(ended.number)
    assert run["status"] == "KILLED"
    assert "longrun.gate.verdict" not in run
    team.history[ended.number] = ("KILLED", None)


def test_a_lost_run_stays_open(team: Team) -> None:
    """A runner that loses its machine tells nobody, here in the midst of main's next run; the night's `reap` finds it, further below."""
    team.go.forge.push(changed(LONG, "a longer training"))
    running = team.go.push(team.secrets)
    await_training(team, running)
    running.lose()
    ended = running.wait()
    assert [run["status"] for run in team.runs(ended.number)] == ["RUNNING"]
    team.history[ended.number] = ("KILLED", None)


def test_a_missing_secret_is_named(team: Team) -> None:
    """One line says which, before anything is trained."""
    pull = open_pull_request(team, "new-here", QUICK)
    secrets = {name: value for name, value in team.secrets.items() if name != "MLFLOW_TRACKING_PASSWORD"}
    ended = team.expect(team.go.pull_request(pull, secrets).wait(), gate=None, status=1)
    assert "missing secret: MLFLOW_TRACKING_PASSWORD" in ended.text
    assert not team.runs(ended.number)


def test_a_fork_is_held_to_the_floors(team: Team) -> None:
    """Without secrets: trained against a server of the job's own, floors only, said so, no failure, and nothing on the team's server."""
    pull = open_pull_request(team, "from-a-fork", QUICK, fork=True, author="stranger")
    ended = team.go.pull_request(pull, {}).wait()
    assert (ended.gate, ended.status) == (0, 0), ended.text[-6000:]
    assert "comes from a fork" in ended.summary
    assert "floors only" in ended.summary
    assert "NO BASELINE" in ended.text
    assert not team.runs(ended.number)
    # Its server ended with the job.
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if f"/jobs/{ended.number}/".encode() in read_bytes(path)]
    team.expect(team.go.comment(ended), gate=None, status=0)
    [comment] = comments(team, pull)
    assert "[!WARNING]" in comment


def read_bytes(path: Path) -> bytes:
    """Return a file of /proc, whose process may be gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


# --- an outage ---


def test_an_outage_costs_no_run(team: Team) -> None:
    """The server is away: training goes on, the run waits in an artifact, and the gate says that nothing was judged."""
    pull = open_pull_request(team, "in-the-storm", QUICK)
    team.server.shell("systemctl stop nginx")
    try:
        ended = team.expect(team.go.pull_request(pull, team.secrets).wait(), gate=3, status=1)
    finally:
        team.server.shell("systemctl start nginx")
    assert "NOT JUDGED" in ended.text
    assert not team.runs(ended.number)
    assert "longrun-spool-models-diabetes-1" in [artifact["name"] for artifact in team.go.forge.stored(ended.number)]

    night = team.go.scheduled("nightly", team.secrets, "sync")
    assert night.status == 0, night.text[-6000:]
    [run] = team.runs(ended.number)
    assert run["status"] == "FINISHED"
    assert run["longrun.gate.verdict"] == "pass"
    assert run["mlflow.source.git.commit"] == pull.head
    assert "longrun-spool-models-diabetes-1" not in [artifact["name"] for artifact in team.go.forge.stored(ended.number)]
    # Main's last commit has a run that never ended, so the one before it counts; nor is any run of a pull request a baseline.
    first = min(team.history)
    assert run["longrun.gate.baseline"] == team.runs(first)[0]["run"]["info"]["run_id"]
    team.history[ended.number] = ("FINISHED", "0")


def test_the_lost_run_is_reaped(team: Team, tmp_path: Path) -> None:
    """What the night's workflow calls, with less patience; the run of the lost machine ends as KILLED."""
    environment = {**os.environ, **{name: value for name, value in team.client.items() if value}}
    command = [str(ROOT / "tests/.venv/bin/longrun"), "reap", "--experiment", EXPERIMENT, "--silence", "1", "--watch", "31", "--json"]
    deadline = time.monotonic() + 180
    while True:
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if json.loads(done.stdout):
            break
        assert time.monotonic() < deadline, done.stderr
        time.sleep(5)
    [lost] = [number for number, (status, _) in team.history.items() if status == "KILLED" and "longrun.reaped" in team.runs(number)[0]]
    assert team.runs(lost)[0]["status"] == "KILLED"


def test_the_server_holds_every_run(team: Team, stock_python: Path) -> None:
    """A stock client reads the history: every pipeline's run with its commit, folds, artifacts and version, and no other run."""
    done = subprocess.run(
        [stock_python, ROOT / "tests/e2e/stock_history.py", EXPERIMENT],
        env={**{key: os.environ[key] for key in ("PATH", "HOME")}, **team.client, "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    history = json.loads(done.stdout.splitlines()[-1])
    assert set(history) == {f"{number}/1" for number in team.history}
    killed = {run["run_id"] for run in history.values() if run["status"] == "KILLED"}
    assert len(killed) == 2
    versions = []
    for number, (status, judged) in team.history.items():
        run = history[f"{number}/1"]
        assert run["status"] == status, number
        assert run["tags"].get("longrun.gate.exit_status") == judged, number
        assert run["tags"].get("longrun.gate.baseline") not in killed
        assert run["tags"]["mlflow.source.git.commit"] == team.go.forge.runs[number]["head_sha"]
        assert run["tags"]["longrun.pipeline_url"].endswith(f"/actions/runs/{number}")
        assert run["start_time"] <= run["end_time"]
        if status == "FINISHED":
            assert len(run["folds"]) == 5
            assert run["metrics"]["holdout_rmse"] > 0
            assert {"predictions.parquet", "gate.json", "environment.json", "configuration.json", "requirements.txt"} <= set(run["artifacts"])
            [version] = run["versions"]
            versions.append(version)
        else:
            assert not run["versions"]
    assert sorted(versions) == list(range(1, len(versions) + 1))
    say(f"the server holds {len(history)} runs of {len(team.go.forge.runs)} pipelines, {len(versions)} versions")
