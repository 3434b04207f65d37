"""A project folder of its own for the tests of the controller, so that no environment of a person is read or changed.

And a server in it for the real Terraform, on a platform that needs no provider.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from longrun_controller import cli, secrets, terraform
from longrun_controller import environment as environments
from longrun_controller.environment import Environment
from longrun_controller.progress import Step
from longrun_controller.terraform import Terraform

REAL = Path(__file__).resolve().parents[3]
FILES = ("server.tfvars", "vars.yml", "users.yml")
Run = Callable[..., tuple[int, str, str]]
PROTECTED = ("terraform_data.volume",)
GUARD = """
  lifecycle {
    prevent_destroy = true
  }
"""
VOLUME = f"""
resource "terraform_data" "volume" {{
  for_each = var.hosts

  triggers_replace = var.size
  input            = var.label
{GUARD}}}
"""
MAIN = f"""
terraform {{
  backend "local" {{}}
}}

variable "platform" {{
  type = string
}}
variable "name" {{
  type = string
}}
variable "ssh_public_key" {{
  type = string
}}
variable "given" {{
  type = string
}}
variable "size" {{
  type    = number
  default = 20
}}
variable "label" {{
  type    = string
  default = "data"
}}
variable "host_size" {{
  type    = number
  default = 1
}}
variable "hosts" {{
  type    = set(string)
  default = ["server"]
}}
{VOLUME}
module "host" {{
  source   = "../../modules/host"
  for_each = var.hosts

  key   = var.ssh_public_key
  size  = var.host_size
  given = var.given
}}

output "public_url" {{
  value = "https://${{length(var.hosts)}}.example.org"
}}
output "hosts" {{
  value = {{}}
}}
"""
HOST = """
variable "key" {
  type = string
}
variable "size" {
  type = number
}
variable "given" {
  type = string
}
resource "terraform_data" "host" {
  triggers_replace = [var.key, var.size, var.given]
}
"""


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


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run one command in a root of its own; return status, standard output and standard error."""
    assert project.is_dir()
    # No step of these tests may get as far as an engine.
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["longrun-controller", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return int(ended.value.code or 0), said.out, said.err

    return call


class Platform(SimpleNamespace):
    """A platform in place of a real one, which writes down what it was asked for."""

    PROTECTED = PROTECTED
    HOST = "terraform_data"

    def __init__(self) -> None:
        super().__init__(asked=[], stopped=0, started=0, explained={}, calls=[], foreseen=[], PREPARED={})

    def terraform_variables(self, directory: Path, values: dict[str, Any]) -> dict[str, str]:
        assert directory.is_dir()
        assert values["platform"] == "container"
        return {"given": "something"}

    def process_environment(self) -> dict[str, str]:
        return {"LONGRUN_ENGINE": "here"}

    def preflight(self, values: dict[str, Any]) -> None:
        assert values["name"] == "local"

    def foresee(self, _values: dict[str, Any], _say: Callable[[str], None]) -> list[str]:
        self.calls.append("foresee")
        return list(self.foreseen)

    def prepare(self, _values: dict[str, Any], _say: Callable[[str], None]) -> None:
        self.calls.append("prepare")

    def strays(self, _values: dict[str, Any], known: set[str]) -> list[str]:
        return ["container longrun-local-server"] if not known else []

    def discard(self, values: dict[str, Any], known: set[str]) -> list[str]:
        assert values["name"] == "local"
        self.asked.append(known)
        self.calls.append("discard")
        return self.strays(values, known)

    def stop(self, _values: dict[str, Any]) -> None:
        self.calls.append("stop")
        self.stopped += 1

    def start(self, _values: dict[str, Any]) -> None:
        self.calls.append("start")
        self.started += 1

    def explain(self, problem: str) -> str | None:
        return next((sentence for part, sentence in self.explained.items() if part in problem), None)


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Platform:
    """The platform whose name is in server.tfvars."""
    made = Platform()
    monkeypatch.setattr(terraform, "platform_of", {"container": made}.__getitem__)
    return made


def lay_out(tree: Path) -> Path:
    """Write such a tree; return the platform's folder in it."""
    folder = tree / "platforms" / "container"
    for path, text in (
        (folder / "main.tf", MAIN),
        (tree / "modules" / "host" / "main.tf", HOST),
        (folder / "tests" / "plan.tftest.hcl", ""),
        (folder / ".terraform.lock.hcl", "no lock file\n"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree in place of terraform/; returned is the platform's folder in it."""
    tree = tmp_path / "source"
    monkeypatch.setattr(terraform, "SOURCE", tree)
    return lay_out(tree)


@pytest.fixture
def server(local: Environment, edit: Callable[[str, str], Path], platform: Platform, source: Path) -> Iterator[Environment]:
    """The environment `local` of that platform, which has been made."""
    assert source.is_dir()
    mask = os.umask(0o022)
    edit("server.tfvars", 'platform = "container"\nname = "local"\n')
    local.ssh_key.with_name("ssh_key.pub").write_text("ssh-ed25519 AAAA longrun\n")
    environment = Environment.load("local")
    assert Terraform(environment).apply(step())
    platform.asked.clear()
    platform.stopped = 0
    yield environment
    os.umask(mask)


def step() -> Step:
    """Return a step without a log."""
    return Step("host (Terraform)", None)


def resources(environment: Environment) -> dict[str, Any]:
    """Return what the state holds by address."""
    state = json.loads(environment.state.read_text())
    return {
        f"{resource.get('module', '')}.{resource['type']}.{resource['name']}.{instance.get('index_key')}".lstrip("."): instance["attributes"]
        for resource in state["resources"]
        for instance in resource["instances"]
    }


def change(source: Path, pattern: str, replacement: str) -> None:
    """Change the platform's main.tf, as somebody who works on it does."""
    text = (source / "main.tf").read_text()
    changed = re.sub(pattern, lambda _: replacement, text)
    assert changed != text
    (source / "main.tf").write_text(changed)
