"""A run says which code it ran, in CI, on a laptop, and where there is no git."""

import json
import subprocess
from pathlib import Path

import pytest
from longrun_training import provenance

PIPELINE = {
    "GITHUB_SERVER_URL": "https://github.example",
    "GITHUB_REPOSITORY": "team/models",
    "GITHUB_RUN_ID": "1234",
    "GITHUB_RUN_ATTEMPT": "2",
    "GITHUB_SHA": "f" * 40,
    "GITHUB_REF": "refs/pull/7/merge",
    "GITHUB_REF_NAME": "7/merge",
}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one commit on the branch `topic`, which is the current folder."""
    (tmp_path / "code.py").write_text("1\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    for arguments in (["init", "-q", "-b", "topic"], ["add", "."], [*who, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *arguments], check=True, capture_output=True)
    return tmp_path


def test_git_says_it(repository: Path) -> None:
    """Commit and branch come from git, and so does whether the commit is the whole truth."""
    source = provenance.source()
    assert source.commit is not None
    assert len(source.commit) == 40
    assert (source.branch, source.dirty) == ("topic", False)
    (repository / "code.py").write_text("2\n", encoding="utf-8")
    assert provenance.source().dirty is True


@pytest.mark.usefixtures("repository")
def test_ci_knows_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pull request's checkout is detached, and its ref is `7/merge`: the branch that a person knows is the head's."""
    monkeypatch.setenv("GITHUB_SHA", "f" * 40)
    monkeypatch.setenv("GITHUB_REF_NAME", "7/merge")
    assert (provenance.source().commit, provenance.source().branch) == ("f" * 40, "7/merge")
    monkeypatch.setenv("GITHUB_HEAD_REF", "feature")
    assert provenance.source().branch == "feature"


@pytest.mark.usefixtures("repository")
def test_a_pull_request_is_its_own_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GITHUB_SHA of a pull request is a merge that GitHub made for a try and that no history keeps; the event's file has the head."""
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"number": 7, "pull_request": {"number": 7, "head": {"sha": "a" * 40, "ref": "feature"}}}), encoding="utf-8")
    for name, value in PIPELINE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
    found = provenance.source()
    assert (found.commit, found.branch, found.pull_request, found.repository) == ("a" * 40, "feature", "7", "team/models")
    assert found.pipeline_url == "https://github.example/team/models/actions/runs/1234/attempts/2"
    assert found.tags == {
        "mlflow.source.git.commit": "a" * 40,
        "mlflow.source.git.branch": "feature",
        "longrun.git_dirty": "false",
        "longrun.repository": "team/models",
        "longrun.pull_request": "7",
        "longrun.pipeline_url": found.pipeline_url,
        "longrun.attempt": "1234/2",
    }


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("event", ["", "{", "[]", '{"pull_request": null}', '{"pull_request": {"head": 3}}'])
def test_an_event_that_says_nothing(event: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is worth more than its labels: without the event, the reference still gives the number."""
    path = tmp_path / "event.json"
    path.write_text(event, encoding="utf-8")
    for name, value in PIPELINE.items():
        monkeypatch.setenv(name, value)
    for event_path in (str(path), str(tmp_path / "nowhere")):
        monkeypatch.setenv("GITHUB_EVENT_PATH", event_path)
        found = provenance.source()
        assert (found.commit, found.pull_request) == ("f" * 40, "7")


@pytest.mark.usefixtures("repository")
def test_a_push_has_no_pull_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on main must not look like one of a pull request, or it would be no baseline."""
    for name, value in (PIPELINE | {"GITHUB_REF": "refs/heads/main", "GITHUB_REF_NAME": "main", "GITHUB_RUN_ATTEMPT": "1"}).items():
        monkeypatch.setenv(name, value)
    found = provenance.source()
    assert (found.pull_request, found.branch, found.attempt) == (None, "main", "1234/1")
    assert found.pipeline_url == "https://github.example/team/models/actions/runs/1234"


@pytest.mark.parametrize("address", ["https://me:secret@git.example/team/models.git", "git@git.example:team/models.git", "ssh://git@git.example/team/models"])
def test_a_repository_is_known_without_ci(address: str, repository: Path) -> None:
    """On a laptop it is the remote's, and no password of its address gets into a tag."""
    subprocess.run(["git", "-C", str(repository), "remote", "add", "origin", address], check=True, capture_output=True)
    assert provenance.source().repository == "team/models"


def test_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a repository there is nothing to say, and nothing fails."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.source() == provenance.Source()


def test_no_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slim container image has no git."""
    monkeypatch.setenv("PATH", str(repository))
    assert provenance.source() == provenance.Source()


def test_environment_is_json() -> None:
    """The versions that decide what a model becomes are recorded."""
    found = json.loads(json.dumps(provenance.environment()))
    assert {"mlflow", "scikit-learn", "numpy"} <= set(found["packages"])
    assert found["python"].startswith("3.")
    assert found["cpus"] >= 1
    assert found["memory_bytes"] > 10**8
    assert found["processor"]


def test_the_lock_can_be_installed() -> None:
    """What a run used can be had again: every package with its version, as pip reads it."""
    lines = provenance.lock().splitlines()
    assert len(lines) > 20
    assert all(line.count("==") == 1 for line in lines)
    assert any(line.startswith("mlflow==") for line in lines)
