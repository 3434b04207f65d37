"""What the roles' tests share. Molecule starts them as its `verify`, after it has run a role on the hosts of `ansible/molecule/inventory`.

They may change those hosts, which live for one run only; each puts back what the tests after it need.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

MOLECULE = Path(__file__).resolve().parents[2] / "ansible" / "molecule"
SECRETS = ("postgresql", "minio-root", "minio-mlflow", "mlflow-admin", "mlflow-flask")


@dataclass
class Play:
    """How a run of a role ended."""

    status: int
    text: str

    @property
    def message(self) -> str:
        """Return the whole output with line breaks taken out, so that a sentence can be looked for."""
        return re.sub(r"\s+", " ", self.text)

    @property
    def changed(self) -> int:
        """Number of tasks that changed something, over all hosts."""
        counts = re.findall(r"(?m)^\S+\s+: ok=\d+\s+changed=(\d+)", self.text)
        assert counts, self.text
        return sum(map(int, counts))


@dataclass
class Output:
    """What a script on a host said, and how it ended."""

    status: int
    stdout: str
    stderr: str


@dataclass
class Scenario:
    """The hosts and secrets of this run."""

    directory: Path

    @property
    def options(self) -> list[str]:
        """Options of ssh. Questions to a host share one connection, which ends a minute after the last: a login for each is three quarters of its time."""
        return [
            f"-oUserKnownHostsFile={self.directory / 'known_hosts'}",
            # Where the roles come with Mitogen alone, nobody has written the host down yet.
            "-oStrictHostKeyChecking=accept-new",
            "-oIdentitiesOnly=yes",
            "-oControlMaster=auto",
            "-oControlPersist=60",
            f"-oControlPath={self.directory}/%h",
        ]

    def host(self, name: str) -> Host:
        """Return a host as root, reached as Ansible reaches it."""
        return testinfra.get_host(
            f"ssh://longrun@{self.address(name)}",
            ssh_identity_file=str(self.directory / "ssh_key"),
            ssh_extra_args=" ".join(self.options),
            sudo=True,
        )

    def script(self, name: str, text: str) -> Output:
        """Run a bash script as root on a host.

        It goes through standard input: sudo writes command lines into the journal, where no secret may stand.
        """
        command = ["ssh", f"-i{self.directory / 'ssh_key'}", *self.options, f"longrun@{self.address(name)}", "sudo bash -s"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode != 255, done.stderr  # ssh's own
        return Output(done.returncode, done.stdout, done.stderr)

    def address(self, name: str) -> str:
        """Return the address of a host."""
        return (self.directory / f"{name}.address").read_text()

    def secret(self, name: str) -> str:
        """Return one of SECRETS, as the roles were given it."""
        return (self.directory / name).read_text().strip()

    def converge(self, role: str, host: str = "trixie", **variables: object) -> Play:
        """Run a role once more on one host, with other values than the inventory's."""
        done = subprocess.run(
            ["ansible-playbook", f"--inventory={MOLECULE / 'inventory'}", f"--limit={host}", "-e", json.dumps(variables), MOLECULE / "shared" / "converge.yml"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "MOLECULE_SCENARIO_NAME": role},
        )
        return Play(done.returncode, done.stdout + done.stderr)


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:  # noqa: ANN401 - whatever the condition answers
    """Return the condition's first true answer.

    Raises:
        AssertionError: There was none within so many seconds.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        # The pace of asking.
        time.sleep(0.3)
    message = f"not true within {seconds:g} s"
    raise AssertionError(message)


@pytest.fixture(scope="session")
def scenario() -> Scenario:
    """Return the run that molecule is in."""
    return Scenario(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "longrun")


@pytest.fixture(scope="session")
def trixie(scenario: Scenario) -> Host:
    """Return the host with every role, on Debian 13."""
    return scenario.host("trixie")


@pytest.fixture(scope="session")
def bookworm(scenario: Scenario) -> Host:
    """Return the host with PostgreSQL alone, on Debian 12."""
    return scenario.host("bookworm")
