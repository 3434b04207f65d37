"""A server of its own for the end-to-end tests, made by the commands that a person types and removed at the end.

The environments are called `e2e` and `e2e-b`; a person's are never touched. What stands in a folder of that name from
an aborted run is removed first.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / "environments"
CONTROLLER = ROOT / ".venv" / "bin"


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

    def make(self, *arguments: str, check: bool = True, timeout: float = 900) -> Result:
        """Run `make` as a person would and keep what it printed."""
        return run(["make", "-s", *arguments, f"ENV={self.name}"], check=check, timeout=timeout, log=self.log)

    @property
    def directory(self) -> Path:
        return ENVIRONMENTS / self.name

    @property
    def host(self) -> str:
        """Name of the container that is the environment's one host."""
        return f"longrun-{self.name}-server"

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

    def shell(self, command: str, *, check: bool = True) -> str:
        """Run a command as root on the host and return what it printed."""
        return run(["podman", "exec", self.host, "bash", "-c", command], check=check, log=self.log).stdout

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


def run(command: list[str | Path], *, check: bool = True, timeout: float = 900, log: Path | None = None, environment: dict[str, str] | None = None) -> Result:
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


def say(text: str) -> None:
    """Show progress past pytest's capture: these tests take minutes."""
    print(f"[e2e] {text}", file=sys.__stderr__, flush=True)


def remove(name: str) -> None:
    """Remove an environment and whatever of it the engine still holds."""
    if (ENVIRONMENTS / name / "server.tfvars").exists():
        run(["make", "-s", "destroy", f"ENV={name}", f"CONFIRM={name}"], check=False)
    label = f"label=longrun.environment={name}"
    for container in run(["podman", "ps", "-aq", "--filter", label]).stdout.split():
        run(["podman", "rm", "-f", container], check=False)
    for kind in ("volume", "network"):
        for line in run(["podman", kind, "ls", "-q", "--filter", label]).stdout.split():
            run(["podman", kind, "rm", "-f", line], check=False)
    shutil.rmtree(ENVIRONMENTS / name, ignore_errors=True)


@pytest.fixture(scope="session")
def logs() -> Path:
    """Return the folder of these tests' logs; CI shows it on failure."""
    directory = ROOT / "tests" / "e2e" / "logs"
    directory.mkdir(exist_ok=True)
    for old in directory.glob("*.log"):
        old.unlink()
    return directory


@pytest.fixture(scope="session")
def second(logs: Path) -> Iterator[Server]:
    """Make the folder of a second server; the tests that need it start it."""
    remove("e2e-b")
    server = Server("e2e-b", logs / "e2e-b.log")
    server.make("new")
    yield server
    say("removing e2e-b")
    remove("e2e-b")


@pytest.fixture(scope="session")
def server(logs: Path) -> Iterator[Server]:
    """Make a fresh server with `make new` and `make up`, watching what `ps` shows meanwhile."""
    remove("e2e")
    server = Server("e2e", logs / "e2e.log")
    server.make("new")
    say("make up ENV=e2e (about three minutes; log: tests/e2e/logs/e2e.log)")
    process = subprocess.Popen(
        ["make", "-s", "up", "ENV=e2e"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=server.log.open("a"), text=True
    )
    started = time.monotonic()
    while process.poll() is None:
        if time.monotonic() - started > 1500:
            process.kill()
            pytest.fail("make up did not end within 25 minutes")
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                server.seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
        # The pace of looking, not a wait for something to be true.
        time.sleep(0.05)
    assert process.stdout
    server.up = Result(process.returncode, process.stdout.read(), server.log.read_text(), time.monotonic() - started)
    assert not process.returncode, server.up.stderr[-3000:]
    say(f"up after {server.up.seconds:.0f} s")
    yield server
    say("removing e2e")
    remove("e2e")


@pytest.fixture(scope="session")
def stock_python(logs: Path) -> Path:
    """Return the Python of a virtual environment with plain MLflow and nothing of ours."""
    run(["controller/bootstrap", "tests/e2e/.venv-client", "requirements/training.txt"], log=logs / "client.log")
    return ROOT / "tests" / "e2e" / ".venv-client" / "bin" / "python"
