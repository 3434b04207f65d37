"""The dynamic inventory: Terraform's outputs as Ansible reads them, and one line for everything that can be missing."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from longrun_controller import tools

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "ansible" / "inventory.py"
HOST = {
    "address": "127.0.0.1",
    "port": 8422,
    "user": "longrun",
    "groups": ["minio", "mlflow", "nginx", "postgresql"],
    "data_path": "/srv/longrun",
    "private_address": "10.1.2.10",
}
OUTPUTS = {"hosts": {"server": HOST}, "public_url": "https://localhost:8443"}


def load() -> ModuleType:
    """Import the script, which is no package."""
    spec = importlib.util.spec_from_file_location("longrun_inventory", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


inventory = load()


def test_one_host_carries_everything() -> None:
    """The default: one host in all four groups, reached with the environment's own key."""
    built = inventory.build("local", OUTPUTS)
    assert {group: built[group]["hosts"] for group in inventory.GROUPS} == {group: ["server"] for group in inventory.GROUPS}
    assert built["all"]["vars"] == {"longrun_environment": "local", "public_url": "https://localhost:8443"}
    variables = built["_meta"]["hostvars"]["server"]
    assert (variables["ansible_host"], variables["ansible_port"], variables["ansible_user"]) == ("127.0.0.1", 8422, "longrun")
    assert variables["ansible_ssh_private_key_file"].endswith("environments/local/ssh_key")
    assert variables["data_path"] == "/srv/longrun"
    assert variables["private_address"] == "10.1.2.10"


def test_a_host_is_known_by_its_key() -> None:
    """A host on the same address with another key must be refused, and nobody's own known_hosts may be written."""
    arguments = inventory.build("local", OUTPUTS)["_meta"]["hostvars"]["server"]["ansible_ssh_common_args"]
    assert "environments/local/known_hosts" in arguments
    assert "StrictHostKeyChecking=accept-new" in arguments
    assert "StrictHostKeyChecking=no" not in arguments


def test_two_hosts_share_the_work() -> None:
    """Nothing may assume one host: data on one, MLflow on the other."""
    hosts = {
        "web": {**HOST, "groups": ["mlflow", "nginx"], "port": 8423, "private_address": "10.1.2.11"},
        "data": {**HOST, "groups": ["postgresql", "minio"]},
    }
    built = inventory.build("team", {**OUTPUTS, "hosts": hosts})
    assert {group: built[group]["hosts"] for group in inventory.GROUPS} == {
        "postgresql": ["data"],
        "minio": ["data"],
        "mlflow": ["web"],
        "nginx": ["web"],
    }
    assert {name: host["private_address"] for name, host in built["_meta"]["hostvars"].items()} == {"data": "10.1.2.10", "web": "10.1.2.11"}


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({"hosts": {}, "public_url": ""}, "holds no host: `make provision ENV=local` finishes it"),
        ({}, "holds no host"),
        ({**OUTPUTS, "hosts": {"server": {**HOST, "groups": ["mlflow", "redis"]}}}, "host 'server' has the unknown group 'redis'"),
    ],
)
def test_unusable_outputs_are_refused(outputs: dict[str, Any], expected: str) -> None:
    """An empty inventory would make every play succeed on no host at all."""
    with pytest.raises(inventory.InventoryError) as caught:
        inventory.build("local", outputs)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a copy of the script in a root of its own, as Ansible would."""
    (tmp_path / "ansible").mkdir()
    script = Path(shutil.copy(SCRIPT, tmp_path / "ansible"))
    (tmp_path / "environments" / "local").mkdir(parents=True)
    shutil.copy(ROOT / "environments" / "local" / "server.tfvars", tmp_path / "environments" / "local")
    monkeypatch.setenv("LONGRUN_ENV", "local")

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **environment})

    return call


def tree(tmp_path: Path) -> Path:
    """Make the environment's copy of the platform, as `make provision` does, and return it."""
    folder = tmp_path / "environments" / "local" / ".terraform" / "tree" / "platforms" / "container"
    folder.mkdir(parents=True)
    # The platform's outputs come from its state; its resources and their provider have no part in it.
    (folder / "main.tf").write_text('terraform {\n  backend "local" {}\n}\n')
    return folder


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that the script ends with."""
    assert done.returncode == 1
    assert not done.stdout
    assert done.stderr.startswith("longrun inventory: ")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_an_unknown_environment(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """A slip in LONGRUN_ENV must not deploy to another server."""
    assert "there is no environment 'lokal': `make new ENV=lokal` makes it" in refused(run("--list", LONGRUN_ENV="lokal"))


@pytest.mark.parametrize("there", [[], ["tree"], ["terraform.tfstate"], ["backend.tf"]], ids=["nothing", "no state", "no tree", "no tree, state elsewhere"])
def test_no_host_yet(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, there: list[str]) -> None:
    """`ansible-playbook deploy.yml` before `make provision` is an easy mistake; so is a clone whose state lies elsewhere."""
    for name in there:
        if name == "tree":
            tree(tmp_path)
        else:
            (tmp_path / "environments/local" / name).write_text("{}")
    assert "environment 'local' has no host yet: `make provision ENV=local` makes it" in refused(run("--list"))


def test_a_file_without_a_platform(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """The state can't be read without knowing which platform wrote it."""
    (tmp_path / "environments/local/server.tfvars").write_text('name = "local"\n')
    assert 'server.tfvars: `platform = "..."` is missing' in refused(run("--list"))


def test_no_terraform(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """A clone on a new machine: the message says what installs it."""
    tree(tmp_path)
    (tmp_path / "environments/local/terraform.tfstate").write_text("{}")
    nowhere = {"PATH": str(tmp_path), "LONGRUN_CACHE": str(tmp_path), "TF": ""}
    assert "terraform and tofu not found: `make tools` installs it" in refused(run("--list", **nowhere))


def with_state(tmp_path: Path, content: str) -> dict[str, str]:
    """Write a state and return the environment in which the real program reads it; without a backend.tf it lies in the folder."""
    environment = {"TF": tools.terraform(), **tools.terraform_environment()}
    directory, folder = tmp_path / "environments" / "local", tree(tmp_path)
    backend, path = directory / "backend.tf", directory / "terraform.tfstate"
    if backend.exists():
        path = tmp_path / "elsewhere.tfstate"
        shutil.copy(backend, folder / "backend_override.tf")
    subprocess.run(
        [environment["TF"], f"-chdir={folder}", "init", "-no-color", *([] if backend.exists() else [f"-backend-config=path={path}"])],
        env={**os.environ, **environment, "TF_DATA_DIR": str(directory / ".terraform"), "CHECKPOINT_DISABLE": "1"},
        check=True,
        capture_output=True,
    )
    path.write_text(content)
    return environment


def state(outputs: dict[str, Any]) -> str:
    """Return a state file with these outputs, as Terraform writes it."""
    kinds = {"hosts": "dynamic", "public_url": "string"}
    return json.dumps(
        {
            "version": 4,
            "terraform_version": "1.9.0",
            "serial": 1,
            "lineage": "00000000-0000-0000-0000-000000000000",
            "outputs": {name: {"value": value, "type": kinds[name] if name == "public_url" else ["map", ["object", TYPES]]} for name, value in outputs.items()},
            "resources": [],
            "check_results": None,
        }
    )


TYPES = {
    "address": "string",
    "data_path": "string",
    "groups": ["list", "string"],
    "port": "number",
    "private_address": "string",
    "user": "string",
}


def test_the_real_program_reads_the_state(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """From a state on disk to what Ansible asks for, with Terraform in between."""
    environment = with_state(tmp_path, state(OUTPUTS))
    done = run("--list", **environment)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert listed["mlflow"]["hosts"] == ["server"]
    assert listed["_meta"]["hostvars"]["server"]["ansible_port"] == 8422
    one = run("--host", "server", **environment)
    assert json.loads(one.stdout) == listed["_meta"]["hostvars"]["server"]
    assert json.loads(run("--host", "nobody", **environment).stdout) == {}


def test_a_state_that_lies_elsewhere(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """A team shares its state; the environment's folder then holds none."""
    (tmp_path / "environments/local/backend.tf").write_text(f'terraform {{\n  backend "local" {{\n    path = "{tmp_path}/elsewhere.tfstate"\n  }}\n}}\n')
    environment = with_state(tmp_path, state(OUTPUTS))
    assert not (tmp_path / "environments/local/terraform.tfstate").exists()
    done = run("--list", **environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["nginx"]["hosts"] == ["server"]


def test_a_state_without_hosts(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """After an interrupted `make provision`, the answer is to run it again."""
    environment = with_state(tmp_path, state({}))
    assert "holds no host: `make provision ENV=local` finishes it" in refused(run("--list", **environment))


def test_a_broken_state(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """A truncated file is named, not shown as a parser's error."""
    environment = with_state(tmp_path, '{"version": 4, ')
    assert "environments/local/terraform.tfstate can't be read: " in refused(run("--list", **environment))
