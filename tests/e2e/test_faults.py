"""What breaks under a server at work: PostgreSQL, MLflow, MinIO's disk. No client loses anything, and none sees half of anything."""

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.servers import ROOT, Server, api

BATCHES, METRICS = 60, 20
RESTARTED_AT, KILLED_AT = 15, 35
PIECE = b"0" * 1_000_000
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
# Room for what MinIO keeps for itself, and not for the artifact.
SMALL_MB, LARGE_MB = 64, 100


class Upload:
    """A file of so many MB that comes in pieces; something happens in the middle of it."""

    def __init__(self, megabytes: int, happens: Callable[[], object]) -> None:
        self._left = megabytes
        self._half = megabytes // 2
        self._happens = happens

    def __len__(self) -> int:
        """Return the bytes that are left, for the header."""
        return self._left * len(PIECE)

    def __iter__(self) -> Iterator[bytes]:
        """Return the rest, piece by piece."""
        while piece := self.read():
            yield piece

    def read(self, _size: int = -1) -> bytes:
        """Return the next piece."""
        if self._left == self._half:
            self._happens()
        if not self._left:
            return b""
        self._left -= 1
        return PIECE


class Artifacts:
    """A run's artifacts, as plain HTTP."""

    def __init__(self, client: dict[str, str]) -> None:
        self._session = requests.Session()
        # Neither a proxy nor a .netrc of whoever runs the tests.
        self._session.trust_env = False
        self._session.auth = (client["MLFLOW_TRACKING_USERNAME"], client["MLFLOW_TRACKING_PASSWORD"])
        self._session.verify = client["MLFLOW_TRACKING_SERVER_CERT_PATH"]
        base = client["MLFLOW_TRACKING_URI"]
        name = f"faults-{secrets.token_hex(4)}"
        made = self._session.post(f"{base}/api/2.0/mlflow/experiments/create", json={"name": name}, timeout=30).json()["experiment_id"]
        run = self._session.post(f"{base}/api/2.0/mlflow/runs/create", json={"experiment_id": made}, timeout=30).json()["run"]["info"]["run_id"]
        self._folder = f"{base}{ARTIFACTS}{made}/{run}/artifacts/"

    def put(self, name: str, content: object) -> requests.Response:
        """Send a file."""
        return self._session.put(self._folder + name, data=content, timeout=120)  # type: ignore[arg-type] # whatever requests can read

    def get(self, name: str) -> requests.Response:
        """Fetch a file."""
        return self._session.get(self._folder + name, timeout=120)


@pytest.fixture(scope="module")
def artifacts(server: Server) -> Artifacts:
    """Return the artifacts of a new run."""
    return Artifacts(server.client())


def test_every_point_is_stored_once(server: Server, stock_python: Path) -> None:
    """PostgreSQL restarts and an instance is killed while a stock client logs: it notices nothing, and every point is there, once."""
    client = server.client()
    process = subprocess.Popen(
        [stock_python, ROOT / "tests/e2e/stock_steady.py", str(BATCHES), str(METRICS)],
        env={**{key: os.environ[key] for key in ("PATH", "HOME")}, **client, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stderr
    run = process.stdout.readline().strip()
    done = []
    for line in process.stdout:
        done.append(int(line))
        if done[-1] == RESTARTED_AT:
            server.shell("systemctl restart 'postgresql@*'")
        elif done[-1] == KILLED_AT:
            server.shell("systemctl kill --signal=KILL mlflow@1")
    assert process.wait(timeout=300) == 0, process.stderr.read()[-3000:]
    assert done == list(range(BATCHES))
    for number in range(METRICS):
        points = api(client, "metrics/get-history", run_id=run, metric_key=f"metric_{number}")["metrics"]
        assert sorted((int(point.get("step", 0)), float(point["value"])) for point in points) == [(step, number + step / BATCHES) for step in range(BATCHES)]
    latest = {metric["key"]: metric["value"] for metric in api(client, "runs/get", run_id=run)["run"]["data"]["metrics"]}
    assert latest == {f"metric_{number}": pytest.approx(number + (BATCHES - 1) / BATCHES) for number in range(METRICS)}


def test_an_upload_survives_its_instance(server: Server, artifacts: Artifacts) -> None:
    """MLflow has said who may; the bytes need it no more. What goes through MLflow itself is there whole or not at all."""

    def kill() -> None:
        server.shell("systemctl kill --signal=KILL 'mlflow@*'")

    def wait() -> None:
        answers = "curl -sf -o /dev/null --unix-socket /run/mlflow/$n/mlflow.sock http://localhost/health"
        server.shell(f"systemctl start mlflow@1 mlflow@2; for n in 1 2; do until {answers}; do sleep 0.3; done; done")

    assert artifacts.put("before.bin", PIECE).status_code == 200
    assert artifacts.put("survives.bin", Upload(20, kill)).status_code == 200
    wait()
    assert artifacts.get("survives.bin").content == PIECE * 20
    # Of no length: so it goes through MLflow.
    assert artifacts.put("broken.bin", iter(Upload(20, kill))).status_code in {429, 502}
    wait()
    assert artifacts.get("broken.bin").status_code >= 400
    assert artifacts.get("before.bin").content == PIECE


def test_a_full_disk_is_named(server: Server, artifacts: Artifacts) -> None:
    """Nothing half is left, what was there is, and the answer is MinIO's, which says what is wrong; clients do not repeat it."""
    folder = "/srv/longrun/minio"
    assert artifacts.put("kept.bin", PIECE).status_code == 200
    server.shell(
        f"systemctl stop minio; mkdir /tmp/small; mount -t tmpfs -o size=$(( $(du -sm {folder} | cut -f1) + {SMALL_MB} ))m none /tmp/small;"
        f" cp -a {folder}/. /tmp/small/; chown --reference={folder} /tmp/small; chmod --reference={folder} /tmp/small;"
        f" mount --bind /tmp/small {folder}; systemctl start minio"
    )
    try:
        full = artifacts.put("large.bin", PIECE * LARGE_MB)
        assert full.status_code == 507
        assert "XMinioStorageFull" in full.text
        assert artifacts.get("large.bin").status_code >= 400
        assert artifacts.get("kept.bin").content == PIECE
    finally:
        server.shell(f"systemctl stop minio; umount {folder} /tmp/small; rmdir /tmp/small; systemctl start minio")
    assert artifacts.put("large.bin", PIECE * LARGE_MB).status_code == 200
