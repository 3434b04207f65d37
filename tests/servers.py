"""Environments that tests make, driven by the commands that a person types, and the questions that tests ask their servers."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / "environments"
CONTROLLER = ROOT / ".venv" / "bin"
# Parts of the end-to-end tests run side by side: each has a server of this name, and its lines begin with it.
PART = os.environ.get("LONGRUN_E2E_PART", "e2e")


@dataclass
class Result:
    """What a command said, and how it ended."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def text(self) -> str:
        return self.stdout + self.stderr


@dataclass
class Server:
    """One environment, driven through the Makefile."""

    name: str
    log: Path
    up: Result | None = None
    # Command lines of every process seen while the server was made.
    seen: set[str] = field(default_factory=set)

    def make(self, *arguments: str, check: bool = True, timeout: float = 1800, environment: dict[str, str] | None = None) -> Result:
        """Run `make` as a person would and keep what it printed."""
        return run(["make", "-s", *arguments, f"ENV={self.name}"], check=check, timeout=timeout, log=self.log, environment=environment)

    @property
    def directory(self) -> Path:
        return ENVIRONMENTS / self.name

    @property
    def host(self) -> str:
        """Name of the container that is the environment's one host."""
        return f"longrun-{self.name}-server"

    def outputs(self) -> dict[str, Any]:
        """Return what Terraform tells Ansible."""
        outputs = json.loads((self.directory / "terraform.tfstate").read_text())["outputs"]
        return {name: output["value"] for name, output in outputs.items()}

    def client(self, login: str = "ci") -> dict[str, str]:
        """Return the client contract, read from what `make -s env` prints."""
        printed = self.make("env", f"LOGIN={login}").stdout
        variables = dict(line.removeprefix("export ").split("=", 1) for line in printed.splitlines())
        return {name: shlex.split(value)[0] for name, value in variables.items()}

    def secrets(self) -> dict[str, str]:
        """Return every secret of the environment by name, users' passwords and all."""
        done = subprocess.run(
            [
                CONTROLLER / "ansible-vault",
                "decrypt",
                "--output",
                "-",
                "--vault-password-file",
                self.directory / ".vault-password",
                self.directory / "vault.yml",
            ],
            capture_output=True,
            text=True,
            check=True,
            cwd=self.directory,
        )
        values: dict[str, Any] = yaml.safe_load(done.stdout)
        users = values.pop("vault_user_passwords")
        values.pop("vault_tls_ca_certificate")
        # A key is many lines; one of its middle is as telling.
        values["vault_tls_ca_private_key"] = values["vault_tls_ca_private_key"].splitlines()[1]
        return values | {f"password of {user}": password for user, password in users.items()}

    def shell(self, command: str, *, host: str = "server", check: bool = True) -> str:
        """Run a command as root on a host and return what it printed."""
        return run(["podman", "exec", f"longrun-{self.name}-{host}", "bash", "-c", command], check=check, log=self.log).stdout

    def status(self) -> dict[str, Any]:
        """Return the report of `make status` as a program gets it."""
        done = run([CONTROLLER / "longrun-controller", "status", "--json", "--env", self.name], log=self.log)
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def edit(self, file: str, pattern: str, replacement: str) -> str:
        """Change a file of the environment and return what stood in it."""
        path = self.directory / file
        before = path.read_text()
        after, count = re.subn(pattern, replacement, before)
        assert count, f"{pattern} is not in {path}"
        path.write_text(after)
        return before


def run(command: list[str | Path], *, check: bool = True, timeout: float = 1800, log: Path | None = None, environment: dict[str, str] | None = None) -> Result:
    """Run a command to its end; its output goes to the log as well."""
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
    )
    result = Result(done.returncode, done.stdout, done.stderr, time.monotonic() - started)
    if log:
        with log.open("a") as file:
            file.write(f"$ {shlex.join(map(str, command))}\n{result.stderr}[exit {result.status}, {result.seconds:.0f} s]\n")
    if check and result.status:
        tail = "\n".join(result.stderr.splitlines()[-15:])
        pytest.fail(f"{shlex.join(map(str, command))} ended with {result.status}:\n{tail}")
    return result


def hurried() -> dict[str, str]:
    """Return the environment in which Ansible keeps a Python on each host for all of its tasks (Mitogen), where it would start one for each of them.

    For what a test needs and is not about: a server that is made, made again or interrupted as people do it has Ansible's own way (docs/adr/0019).
    """
    package = find_spec("ansible_mitogen")
    assert package
    assert package.submodule_search_locations
    return {
        "ANSIBLE_STRATEGY": "mitogen_linear",
        "ANSIBLE_STRATEGY_PLUGINS": f"{package.submodule_search_locations[0]}/plugins/strategy",
        "ANSIBLE_SSH_EXECUTABLE": str(ROOT / "tests" / "ssh-accept-new"),
    }


def say(text: str) -> None:
    """Show progress past pytest's capture: these tests take minutes."""
    print(f"[{PART}] {text}", file=sys.__stderr__, flush=True)


def remove(name: str) -> None:
    """Remove an environment and whatever of it the engine still holds."""
    label = f"label=longrun.environment={name}"
    # Nothing of it is kept, so nobody waits until it has stopped in order.
    for container in run(["podman", "ps", "-aq", "--filter", label]).stdout.split():
        run(["podman", "rm", "-f", "--time=0", container], check=False)
    if (ENVIRONMENTS / name / "server.tfvars").exists():
        run(["make", "-s", "destroy", f"ENV={name}", f"CONFIRM={name}"], check=False)
    for kind in ("volume", "network"):
        for line in run(["podman", kind, "ls", "-q", "--filter", label]).stdout.split():
            run(["podman", kind, "rm", "-f", line], check=False)
    shutil.rmtree(ENVIRONMENTS / name, ignore_errors=True)


def last_run_url(result: Result) -> str:
    """Return the address of the run that a training printed."""
    found = re.search(r"https://\S+/runs/[0-9a-f]{32}", result.text)
    assert found, result.text[-2000:]
    return found[0]


def api(client: dict[str, str], method: str, /, **parameters: str) -> dict[str, Any]:
    """Ask MLflow's REST API with the client contract."""
    answer = requests.get(
        f"{client['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/{method}",
        params=parameters,
        auth=(client["MLFLOW_TRACKING_USERNAME"], client["MLFLOW_TRACKING_PASSWORD"]),
        verify=client["MLFLOW_TRACKING_SERVER_CERT_PATH"],
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def runs_of(client: dict[str, str], experiment: str) -> list[str]:
    """Return the ids of an experiment's runs."""
    experiment_id = api(client, "experiments/get-by-name", experiment_name=experiment)["experiment"]["experiment_id"]
    answer = requests.post(
        f"{client['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/runs/search",
        json={"experiment_ids": [experiment_id]},
        auth=(client["MLFLOW_TRACKING_USERNAME"], client["MLFLOW_TRACKING_PASSWORD"]),
        verify=client["MLFLOW_TRACKING_SERVER_CERT_PATH"],
        timeout=30,
    )
    return [run["info"]["run_id"] for run in answer.json().get("runs", [])]


def versions_of(client: dict[str, str], model: str) -> list[int]:
    """Return the numbers of a model's versions."""
    found = api(client, "model-versions/search", filter=f"name='{model}'").get("model_versions", [])
    return sorted(int(version["version"]) for version in found)


def artifacts_of(client: dict[str, str], run_id: str, path: str = "") -> dict[str, str]:
    """Return path and SHA-256 of every artifact of a run, downloaded anew."""
    listed = api(client, "artifacts/list", run_id=run_id, path=path).get("files", [])
    digests: dict[str, str] = {}
    for entry in listed:
        if entry.get("is_dir"):
            digests |= artifacts_of(client, run_id, entry["path"])
            continue
        answer = requests.get(
            f"{client['MLFLOW_TRACKING_URI']}/get-artifact",
            params={"run_id": run_id, "path": entry["path"]},
            auth=(client["MLFLOW_TRACKING_USERNAME"], client["MLFLOW_TRACKING_PASSWORD"]),
            verify=client["MLFLOW_TRACKING_SERVER_CERT_PATH"],
            timeout=60,
        )
        assert answer.status_code == 200, (entry, answer.text)
        assert len(answer.content) == int(entry["file_size"])
        digests[entry["path"]] = hashlib.sha256(answer.content).hexdigest()
    return digests
