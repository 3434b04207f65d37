"""What the tests of training share: small tables, a real MLflow server, servers that refuse, and the command line run in this process."""

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests
from longrun_training import terminal

START_SECONDS, STOP_SECONDS = 180, 20
CONTRACT = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_SERVER_CERT_PATH")
# What a pipeline, and a person who uses longrun every day, have in their environment.
FOREIGN = ("GITHUB_", "LONGRUN_", "MLFLOW_")
# A seed that is fixed, so that a failure comes again.
SEED = 20261124


@pytest.fixture(autouse=True)
def _clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests from the server and the CI of whoever runs them, and what longrun leaves in the current folder from this repository."""
    for name in list(os.environ):
        if name == "CI" or name.startswith(FOREIGN):
            monkeypatch.delenv(name)
    for name in (*CONTRACT, "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        # Set and deleted again: what a test leaves behind is undone as well.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def table() -> pd.DataFrame:
    """60 rows of two features and a target that depends on them."""
    random = np.random.default_rng(SEED)
    features = random.uniform(0, 10, size=(60, 2)).round(3)
    return pd.DataFrame({"area": features[:, 0], "age": features[:, 1], "price": (3 * features[:, 0] - features[:, 1]).round(3)})


@pytest.fixture
def table_csv(tmp_path: Path, table: pd.DataFrame) -> Path:
    """The table as a person's CSV file."""
    path = tmp_path / "houses.csv"
    table.to_csv(path, index=False)
    return path


@dataclass(frozen=True)
class Outcome:
    """How a command ended: exit status, and what it wrote."""

    status: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The only line on standard error."""
        lines = self.stderr.splitlines()
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("longrun: "), self.stderr
        return lines[0]


@pytest.fixture
def longrun(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Outcome]]:
    """Run the command line as a person does, in this process: a new one imports MLflow for seconds each time."""
    from longrun_training import cli  # noqa: PLC0415 - the commands, which the tests of a module alone don't need

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: str) -> Outcome:
        screen = io.StringIO()
        monkeypatch.setattr(sys, "argv", ["longrun", *arguments])
        monkeypatch.setattr(terminal.console, "file", screen)
        capsys.readouterr()
        status: object = 0
        try:
            cli.main()
        except SystemExit as ended:
            status = ended.code or 0
        captured = capsys.readouterr()
        assert isinstance(status, int)
        return Outcome(status, captured.out, screen.getvalue() + captured.err)

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def _starting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[bytes], str, Path]]:
    """A real `mlflow server` process of its own, on its way up while the other tests run."""
    folder = tmp_path_factory.mktemp("server")
    port, log = _free_port(), folder / "server.log"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True)
    yield process, f"http://127.0.0.1:{port}", log
    # The group is the server and its worker, and has the server's own pid for a number.
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_SECONDS)


@pytest.fixture(scope="session", autouse=True)
def _start_early(_starting_server: object) -> None:
    """Start the server before the first test, so that nobody waits for it later."""


@pytest.fixture(scope="session")
def server_uri(_starting_server: tuple[subprocess.Popen[bytes], str, Path]) -> str:
    """The address of a real MLflow server without logins, once it answers."""
    process, uri, log = _starting_server
    deadline = time.monotonic() + START_SECONDS
    answered = threading.Event()
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{uri}/health", timeout=5).ok:
                return uri
        except requests.RequestException:
            answered.wait(0.1)
    pytest.fail(f"mlflow server did not come up:\n{log.read_text(encoding='utf-8')[-2000:]}")


@pytest.fixture
def server(server_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The real server, named by the client contract."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server_uri)
    return server_uri


Answer = tuple[int, str, dict[str, str]]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Serve the given answers in turn, the last one for ever, and return the list in which the requests are noted."""
    servers: list[ThreadingHTTPServer] = []

    def serve(*answers: Answer) -> list[str]:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body, headers = answers[min(len(asked), len(answers) - 1)]
                asked.append(f"{self.command} {self.path.partition('?')[0]}")
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            do_POST = do_GET  # noqa: N815 - the name that http.server looks for

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(made)
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{made.server_port}")
        return asked

    yield serve
    for made in servers:
        made.shutdown()
        made.server_close()
