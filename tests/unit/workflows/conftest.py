"""What the tests of .github/scripts share: the scripts on Python's path, a runner's files, and GitHub's API as the stand-in plays it."""

import json
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.stand_ins.github import TOKEN, Forge

ROOT = Path(__file__).resolve().parents[3]
# Where a job has them: beside each other.
sys.path.insert(0, str(ROOT / ".github" / "scripts"))


@dataclass
class Runner:
    """A job's environment, and what was written into it."""

    folder: Path
    environment: pytest.MonkeyPatch

    def set(self, **variables: str | Path) -> None:
        """Set variables of the step."""
        for name, value in variables.items():
            self.environment.setenv(name, str(value))

    def _entries(self, file: str) -> dict[str, str]:
        path = self.folder / file
        lines = iter(path.read_text().splitlines() if path.exists() else [])
        found = {}
        for line in lines:
            name, _, end = line.partition("<<")
            value = []
            while (part := next(lines)) != end:
                value.append(part)
            found[name] = "\n".join(value)
        return found

    @property
    def outputs(self) -> dict[str, str]:
        """The step's outputs."""
        return self._entries("output")

    @property
    def variables(self) -> dict[str, str]:
        """The variables for later steps."""
        return self._entries("env")

    @property
    def summary(self) -> str:
        """The job's summary."""
        path = self.folder / "summary"
        return path.read_text() if path.exists() else ""

    def event(self, content: object) -> None:
        """Set the event that started the workflow."""
        path = self.folder / "event.json"
        path.write_text(json.dumps(content))
        self.set(GITHUB_EVENT_PATH=path)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A step's environment: a runner's files, and nothing of the machine's own CI."""
    folder = tmp_path / "runner"
    folder.mkdir()
    for name in (
        "GITHUB_ACTOR",
        "GITHUB_EVENT_NAME",
        "MLFLOW_TRACKING_URI",
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_SERVER_CERT",
    ):
        monkeypatch.delenv(name, raising=False)
    runner = Runner(folder, monkeypatch)
    runner.set(GITHUB_OUTPUT=folder / "output", GITHUB_ENV=folder / "env", GITHUB_STEP_SUMMARY=folder / "summary", RUNNER_TEMP=folder)
    runner.set(GITHUB_REPOSITORY=Forge.REPOSITORY)
    return runner


@pytest.fixture
def forge(tmp_path: Path, job: Runner) -> Iterator[Forge]:
    """A GitHub of our own, whose API the scripts ask; its repository is made by the tests that need one."""
    folder = tmp_path / "forge"
    folder.mkdir()
    made = Forge(folder)
    with made.serving() as api:
        job.set(GITHUB_API_URL=api, GITHUB_TOKEN=TOKEN)
        yield made


def upload(forge: Forge, name: str, run: int, files: Mapping[str, bytes], *, expired: bool = False) -> int:
    """Leave an artifact of a workflow run, and return its id."""
    forge.artifacts.mkdir(exist_ok=True)
    identifier = 1 + len(list(forge.artifacts.glob("*.zip")))
    with zipfile.ZipFile(forge.artifacts / f"{identifier}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    (forge.artifacts / f"{identifier}.json").write_text(json.dumps({"id": identifier, "name": name, "run": run, "expired": expired}))
    return identifier
