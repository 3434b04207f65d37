"""A server of its own for the end-to-end tests, made by the commands that a person types and removed at the end.

The environments are called `e2e`, `e2e-b` and, for the part that runs at the same time, `e2e-flow`; a person's are never touched. What stands in a
folder of that name from an aborted run is removed first.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from longrun_controller.locks import alone

from tests.servers import PART, ROOT, Result, Server, hurried, remove, run, say

# Made by a test in which the server gets another image; no host needs it once the server is removed.
OTHER_IMAGE = f"localhost/longrun-{PART}-host:latest"


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Leave the progress to the lines below: pytest's dots would mix with the roles' tests, which run at the same time."""
    if report.passed:
        return ("passed" if report.when == "call" else "", "", "")
    return None


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say how each test ended, and how long it took."""
    if report.when == "call" or report.outcome != "passed":
        say(f"{report.outcome:<7} {report.duration:4.0f} s  {report.nodeid.rsplit('::', 1)[-1]}{'' if report.when == 'call' else f' ({report.when})'}")


def fresh(log: Path) -> Path:
    """Return a log whose last run's lines are gone; other tests, which run at the same time, keep theirs."""
    log.unlink(missing_ok=True)
    return log


@pytest.fixture(scope="session")
def logs() -> Path:
    """Return the folder of these tests' logs; CI shows it on failure."""
    directory = ROOT / "tests" / "e2e" / "logs"
    directory.mkdir(exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def second(logs: Path) -> Iterator[Server]:
    """Make the folder of a second server, of two hosts; the tests that need it start it."""
    remove("e2e-b")
    server = Server("e2e-b", fresh(logs / "e2e-b.log"))
    server.make("new")
    server.edit("server.tfvars", r"(?m)\Z", 'hosts = {\n  data = { groups = ["postgresql", "minio"] }\n  web  = { groups = ["mlflow", "nginx"] }\n}\n')
    yield server
    say("removing e2e-b")
    remove("e2e-b")


@pytest.fixture(scope="session")
def server(logs: Path) -> Iterator[Server]:
    """Make a fresh server with `make new` and `make up`, watching what `ps` shows meanwhile."""
    remove(PART)
    server = Server(PART, fresh(logs / f"{PART}.log"))
    server.make("new")
    say(f"make up ENV={PART} (about three minutes; log: tests/e2e/logs/{PART}.log)")
    process = subprocess.Popen(
        ["make", "-s", "up", f"ENV={PART}"],
        cwd=ROOT,
        env={**os.environ, **({} if PART == "e2e" else hurried())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=server.log.open("a"),
        text=True,
    )
    started = time.monotonic()
    while process.poll() is None:
        if time.monotonic() - started > 2400:
            process.kill()
            pytest.fail("make up did not end within 40 minutes")
        # Who looks into /proc so often keeps a good part of a processor busy, so one of the parts does it for all.
        for path in Path("/proc").glob("[0-9]*/cmdline") if PART == "e2e" else ():
            try:
                server.seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
        # The pace of looking, not a wait for something to be true: a task of Ansible lasts longer.
        time.sleep(0.2)
    assert process.stdout
    server.up = Result(process.returncode, process.stdout.read(), server.log.read_text(), time.monotonic() - started)
    assert not process.returncode, server.up.stderr[-3000:]
    say(f"up after {server.up.seconds:.0f} s")
    yield server
    say(f"removing {PART}")
    remove(PART)
    run(["podman", "rmi", OTHER_IMAGE], check=False)


@pytest.fixture(scope="session")
def stock_python(logs: Path) -> Path:
    """Return the Python of a virtual environment with plain MLflow and nothing of ours."""
    with alone("stock-client"):
        run(["controller/bootstrap", "tests/e2e/.venv-client", "requirements/training.txt"], log=logs / "client.log")
    return ROOT / "tests" / "e2e" / ".venv-client" / "bin" / "python"
