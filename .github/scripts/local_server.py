"""Starts and stops the throw-away MLflow server of a job without secrets: `local_server.py start` or `stop`.

It listens on loopback, keeps its runs in SQLite below RUNNER_TEMP, and asks nobody for a login.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import runner

START_SECONDS, STOP_SECONDS = 180, 20


def folder() -> Path:
    """Return the folder that everything of the server lies in."""
    return Path(runner.needed("RUNNER_TEMP")) / "longrun-server"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=5) as answer:  # noqa: S310 - loopback
            return bool(answer.status == 200)  # noqa: PLR2004 - HTTP's OK
    except OSError:
        return False


def start() -> None:
    """Start the server, wait until it answers, and give the step its address as the output `uri`."""
    place, port = folder(), _free_port()
    place.mkdir(parents=True)
    uri, log = f"http://127.0.0.1:{port}", place / "server.log"
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{place / 'mlflow.db'}", "--artifacts-destination", str(place / "artifacts")]
    settings = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    settings |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("wb") as written:
        process = subprocess.Popen(command, cwd=place, env=settings, stdin=subprocess.DEVNULL, stdout=written, stderr=written, start_new_session=True)
    (place / "pid").write_text(str(process.pid), encoding="utf-8")
    deadline = time.monotonic() + START_SECONDS
    while not _answers(uri):
        if process.poll() is not None or time.monotonic() > deadline:
            runner.fail(f"the throw-away MLflow server did not come up; its last words: {log.read_text(errors='replace')[-1000:]}")
        time.sleep(0.2)
    runner.output("uri", uri)
    print(f"a throw-away MLflow server answers on {uri}")


def stop() -> None:
    """End the server and all its processes, where one was started."""
    noted = folder() / "pid"
    if not noted.exists():
        return
    group = int(noted.read_text(encoding="utf-8"))
    for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                os.killpg(group, number)
            except ProcessLookupError:
                noted.unlink()
                return
            time.sleep(0.2)
    runner.warning("the throw-away MLflow server would not end")


if __name__ == "__main__":
    {"start": start, "stop": stop}[sys.argv[1]]()
