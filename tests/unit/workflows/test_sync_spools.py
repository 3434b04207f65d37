"""Spools of training jobs: whose are taken, and when they are deleted. The real `longrun` sends them in the end-to-end tests."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import sync_spools

from tests.e2e.stand_ins.github import Forge
from tests.unit.workflows.conftest import ROOT, Runner, upload

RUN = "00000000-0000-4000-8000-000000000001"
NOTE = {"format": 1, "config": "models/diabetes/longrun.toml", "commit": "", "runs": [RUN]}
FILES = {"pipeline.json": json.dumps(NOTE).encode(), f"spool/{RUN}/journal.sqlite3": b"x"}
# Notes how it was called, and ends as told: the workflow's own logic is what is tested here.
PROGRAM = """#!/bin/sh
echo "$PWD: $@" >>"$CALLS"
case $1 in sync) exit ${SYNC_STATUS:-0} ;; gate) exit ${GATE_STATUS:-0} ;; esac
"""


def note_run(forge: Forge, number: int, **changes: Any) -> None:  # noqa: ANN401 - JSON
    """Have GitHub know a workflow run."""
    person = {"login": "developer"}
    run = {"id": number, "event": "pull_request", "head_repository": {"full_name": Forge.REPOSITORY}, "actor": person, "triggering_actor": person}
    forge.runs[number] = {**run, "html_url": f"https://github.com/runs/{number}", **changes}


@pytest.fixture
def calls(job: Runner, tmp_path: Path) -> Path:
    """A file with a line for each call of `longrun`, which a small program plays."""
    program = tmp_path / "bin" / "longrun"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    job.set(PATH=f"{program.parent}{os.pathsep}{os.environ['PATH']}", CALLS=tmp_path / "calls")
    return tmp_path / "calls"


def test_a_spool_is_sent_judged_and_deleted(forge: Forge, job: Runner, calls: Path) -> None:
    """Judged with the longrun.toml of its own commit, which is checked out for it; other artifacts stay."""
    commit = forge.create(ROOT / ".github" / "scripts", {"models/diabetes/longrun.toml": "x"})
    job.environment.chdir(forge.clone)
    note_run(forge, 1001)
    upload(forge, "longrun-spool-models-diabetes-1", 1001, {**FILES, "pipeline.json": json.dumps({**NOTE, "commit": commit}).encode()})
    upload(forge, "longrun-report-models-diabetes-1", 1001, {"report.md": b"x"})
    sync_spools.main()
    sent, judged = calls.read_text().splitlines()
    assert "sync --spool " in sent
    assert f"gate --config models/diabetes/longrun.toml --candidate {RUN} --output " in judged
    assert judged.partition(":")[0].endswith("/commit")
    assert [artifact["name"] for artifact in forge.stored()] == ["longrun-report-models-diabetes-1"]
    assert f"{RUN}: sent; passed" in job.summary
    assert forge.git("worktree", "list").count("\n") == 0


def test_a_commit_that_is_gone_is_sent_and_not_judged(forge: Forge, job: Runner, calls: Path) -> None:
    """The run belongs to the history all the same."""
    forge.create(ROOT / ".github" / "scripts", {})
    job.environment.chdir(forge.clone)
    note_run(forge, 1001)
    upload(forge, "longrun-spool-x-1", 1001, {**FILES, "pipeline.json": json.dumps({**NOTE, "commit": "f" * 40}).encode()})
    sync_spools.main()
    assert len(calls.read_text().splitlines()) == 1
    assert "its commit is gone" in job.summary
    assert not forge.stored()


@pytest.mark.parametrize(
    "run",
    [
        {"head_repository": {"full_name": Forge.FORK}},
        {"head_repository": None},
        {"actor": {"login": "dependabot[bot]"}},
        {"triggering_actor": {"login": "dependabot[bot]"}},
        {"event": "pull_request_target"},
        {"event": "workflow_run"},
    ],
)
def test_spools_from_outside_are_left_alone(forge: Forge, calls: Path, run: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """A fork can upload anything under this name, and this job holds the login."""
    note_run(forge, 1001, **run)
    upload(forge, "longrun-spool-x-1", 1001, FILES)
    sync_spools.main()
    assert "comes from outside" in capsys.readouterr().out
    assert not calls.exists()
    assert len(forge.stored()) == 1


def test_while_the_server_is_away_everything_stays(forge: Forge, job: Runner, calls: Path) -> None:
    """The next night tries again."""
    note_run(forge, 1001)
    upload(forge, "longrun-spool-x-1", 1001, FILES)
    upload(forge, "longrun-spool-y-1", 1001, FILES)
    job.set(SYNC_STATUS="3")
    with pytest.raises(SystemExit) as ended:
        sync_spools.main()
    assert ended.value.code == 3
    assert len(calls.read_text().splitlines()) == 1
    assert len(forge.stored()) == 2


@pytest.mark.parametrize(
    "files",
    [
        {"pipeline.json": b"{", "spool/x": b""},
        {"pipeline.json": json.dumps({**NOTE, "config": "../../etc/longrun.toml"}).encode(), "spool/x": b""},
        {"pipeline.json": json.dumps({**NOTE, "config": "/etc/longrun.toml"}).encode(), "spool/x": b""},
        {"pipeline.json": json.dumps({**NOTE, "runs": ["--all"]}).encode(), "spool/x": b""},
        {"pipeline.json": json.dumps({**NOTE, "commit": "--upload-pack=x"}).encode(), "spool/x": b""},
        {"pipeline.json": json.dumps({**NOTE, "format": 2}).encode(), "spool/x": b""},
        {"spool/x": b""},
        {"pipeline.json": json.dumps(NOTE).encode()},
    ],
    ids=["half", "up", "absolute", "run", "commit", "format", "no note", "no spool"],
)
@pytest.mark.usefixtures("calls")
def test_one_that_is_refused_stops_no_other(forge: Forge, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    """The job fails at its end, with a line for it, and the others are sent before."""
    note_run(forge, 1001)
    upload(forge, "longrun-spool-bad-1", 1001, files)
    upload(forge, "longrun-spool-good-1", 1001, FILES)
    with pytest.raises(SystemExit):
        sync_spools.main()
    assert "longrun-spool-bad-1" in capsys.readouterr().out
    assert [artifact["name"] for artifact in forge.stored()] == ["longrun-spool-bad-1"]


def test_members_stay_below_their_folder(forge: Forge, job: Runner, calls: Path) -> None:
    """An archive may name any path."""
    note_run(forge, 1001)
    upload(forge, "longrun-spool-x-1", 1001, {**FILES, "../../outside": b"x"})
    sync_spools.main()
    assert not list(job.folder.parent.rglob("outside"))
    assert calls.exists()


def test_nothing_waits(forge: Forge, job: Runner) -> None:
    """An ordinary night."""
    upload(forge, "longrun-spool-x-1", 1001, FILES, expired=True)
    sync_spools.main()
    assert "no run was waiting" in job.summary
