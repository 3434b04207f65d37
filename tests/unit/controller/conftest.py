"""A project folder of its own for the tests of the controller, so that no environment of a person is read or changed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from longrun_controller import environment as environments
from longrun_controller import secrets
from longrun_controller.environment import Environment

REAL = Path(__file__).resolve().parents[3]
FILES = ("server.tfvars", "vars.yml", "users.yml")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with a copy of what git holds of environments/local and of each platform's model, in place of the real one."""
    local = tmp_path / "environments" / "local"
    local.mkdir(parents=True)
    for file in FILES:
        shutil.copy(REAL / "environments" / "local" / file, local / file)
    for model in (REAL / "terraform" / "platforms").glob("*/server.tfvars"):
        copy = tmp_path / model.relative_to(REAL)
        copy.parent.mkdir(parents=True)
        shutil.copy(model, copy)
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path / "environments")
    monkeypatch.setattr(secrets, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def local(project: Path) -> Environment:
    """The environment `local` of that root."""
    assert project.is_dir()
    return Environment.load("local")


@pytest.fixture
def edit(project: Path) -> Callable[[str, str], Path]:
    """Write a file of the environment `local`."""

    def write(file: str, content: str) -> Path:
        path = project / "environments" / "local" / file
        path.write_text(content, encoding="utf-8")
        return path

    return write
