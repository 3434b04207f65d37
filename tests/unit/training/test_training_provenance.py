"""A run says which code it ran, in CI, on a laptop, and where there is no git."""

import json
import subprocess
from pathlib import Path

import pytest
from longrun_training import provenance


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


def test_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a repository there is nothing to say, and nothing fails."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.source() == provenance.Source(None, None, None)


def test_no_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slim container image has no git."""
    monkeypatch.setenv("PATH", str(repository))
    assert provenance.source() == provenance.Source(None, None, None)


def test_environment_is_json() -> None:
    """The versions that decide what a model becomes are recorded."""
    found = json.loads(json.dumps(provenance.environment()))
    assert {"mlflow", "scikit-learn", "numpy"} <= set(found["packages"])
    assert found["python"].startswith("3.")
