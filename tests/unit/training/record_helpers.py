"""For the tests of recording: a proxy before a real server that loses what it is told to, a small run, and everything that a server has of a run."""

import http.client
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
import numpy as np
from longrun_training.heartbeat import INTERVAL_SECONDS
from longrun_training.records import Description, LoggedData
from longrun_training.tracking import Recorder
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from sklearn.linear_model import LinearRegression

PASS, REFUSE, LOSE, BUSY, KILL = "pass", "refuse", "lose", "busy", "kill"
FOLDS = 3


@dataclass
class Proxy:
    """Forwards requests to a server.

    Attributes:
        uri: Where it listens.
        fate: What becomes of request n (from 1): `pass`; `refuse`: it hangs up before the server hears of it; `lose`: the server does it and the
            answer is lost; `busy`: 429, as nginx says while MLflow restarts; `kill`: like `lose`, and the process `victim` is killed.
        asked: The requests, `GET runs/get`.
        victim: See above.
    """

    uri: str = ""
    fate: Callable[[int], str] = lambda _: PASS
    asked: list[str] = field(default_factory=list)
    victim: int | None = None
    guard: threading.Lock = field(default_factory=threading.Lock)

    def reset(self, fate: Callable[[int], str] = lambda _: PASS) -> None:
        """Count anew."""
        with self.guard:
            self.asked.clear()
            self.fate = fate

    def decide(self, method: str, path: str) -> str:
        """Note a request and return what becomes of it."""
        with self.guard:
            self.asked.append(f"{method} {re.sub(r'.*/(?:mlflow|mlflow-artifacts)/', '', path.partition('?')[0])}")
            return self.fate(len(self.asked))


def timed(asked: Sequence[str], seconds: float, *, batches: int, runs: int = 1) -> int:
    """Return how many requests were made because time passed, and see that it explains them.

    Args:
        asked: The requests, as `Proxy` notes them.
        seconds: How long all of it took.
        batches: Of metrics and the like, that it makes however quick it is; more are sent while a run goes on, because somebody may be looking.
        runs: How many give signs of life.
    """
    sent, beats = asked.count("POST runs/log-batch"), asked.count("POST runs/set-tag")
    assert sent <= batches + seconds / 2
    assert beats <= runs * (seconds // INTERVAL_SECONDS)
    return sent + beats


@contextmanager
def proxied(upstream: str) -> Iterator[Proxy]:
    """Serve a proxy before a server."""
    proxy = Proxy()
    target = urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fate = proxy.decide(self.command, self.path)
            if fate == BUSY:
                self._answer(429, b"{}", {"Retry-After": "1"})
                return
            if fate == REFUSE:
                self.close_connection = True
                return
            connection = http.client.HTTPConnection(str(target.hostname), target.port, timeout=30)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in {"host", "connection"}}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if fate == KILL and proxy.victim:
                os.kill(proxy.victim, signal.SIGKILL)
            if fate in {LOSE, KILL}:
                self.close_connection = True
                return
            self._answer(answer.status, content, {"Content-Type": answer.headers.get("Content-Type", "application/json")})

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names that http.server looks for

        def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            with suppress(OSError):
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    proxy.uri = f"http://127.0.0.1:{made.server_port}"
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield proxy
    finally:
        made.shutdown()
        made.server_close()


def save_model(folder: Path) -> Path:
    """Write a model as `train` does, with signature and example."""
    rows = np.arange(8.0).reshape(4, 2)
    model = LinearRegression().fit(rows, rows.sum(axis=1))
    mlflow.sklearn.save_model(
        model,
        folder,
        signature=mlflow.models.infer_signature(rows, model.predict(rows)),
        pip_requirements=["scikit-learn"],
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_SKOPS,
    )
    return folder


def description(experiment: str, kind: str = "train", parent: str | None = None) -> Description:
    """Describe a small run; its model is called like its experiment."""
    return Description(experiment, experiment, kind, {"mlflow.source.name": "test"}, parent)


def small_run(recorder: Recorder, model: Path | None) -> None:
    """Record a bit of everything."""
    recorder.log_parameters({"folds": FOLDS, "estimator": "LinearRegression"})
    recorder.log_dataset(LoggedData("rows", "abc123", '{"uri": "rows.csv"}', "local", "{}", '{"num_rows": 4}'))
    for step in range(1, FOLDS + 1):
        recorder.log_metrics({"cv_rmse": step / 3}, step)
    recorder.log_metrics({"holdout_rmse": 0.1, "undefined": float("nan"), "endless": float("inf")})
    recorder.log_text("line\n", "notes/note.txt")
    recorder.log_json({"a": 1}, "environment.json")
    recorder.set_tags({"longrun.seed": "7"})
    if model is not None:
        recorder.log_model(model, parameters={"fit_intercept": True}, model_type="regressor")
        recorder.register()


def runs_of(experiment: str) -> list[Run]:
    """Return the runs of an experiment."""
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def _files(folder: Path, hidden: tuple[str, ...]) -> dict[str, bytes]:
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for number, text in enumerate(hidden):
            content = content.replace(text.encode(), f"<{number}>".encode())
        found[path.relative_to(folder).as_posix()] = content
    return found


def models_of(run: Run) -> list[LoggedModel]:
    """Return the logged models that a run made."""
    return list(MlflowClient().search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"))


def everything(run: Run, scratch: Path) -> dict[str, Any]:
    """Return all that the server has of a run, without what differs between two equal runs: ids, times, and the name that MLflow thinks up."""
    client = MlflowClient()
    run = client.get_run(run.info.run_id)
    metrics = {name: [(metric.step, str(metric.value)) for metric in client.get_metric_history(run.info.run_id, name)] for name in sorted(run.data.metrics)}
    own = ("mlflow.runName", "longrun.uuid", "longrun.heartbeat", "longrun.duration_seconds", "longrun.host")
    found: dict[str, Any] = {
        "status": run.info.status,
        "parameters": run.data.params,
        "tags": {name: value for name, value in run.data.tags.items() if name not in own},
        "metrics": metrics,
        "inputs": [(item.dataset.name, item.dataset.digest, item.tags[0].value) for item in run.inputs.dataset_inputs] if run.inputs else [],
        "outputs": len(run.outputs.model_outputs) if run.outputs else 0,
        "artifacts": _files(Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, dst_path=str(scratch / run.info.run_id))), ()),
        "models": [],
    }
    for model in models_of(run):
        stored = Path(mlflow.artifacts.download_artifacts(model.artifact_location, dst_path=str(scratch / model.model_id)))
        versions = [version for version in client.search_model_versions(f"run_id = '{run.info.run_id}'") if version.source == f"models:/{model.model_id}"]
        found["models"].append(
            {
                "name": model.name,
                "type": model.model_type,
                "status": str(model.status),
                "parameters": model.params,
                "tags": sorted(model.tags),
                "metrics": sorted((metric.key, metric.step, metric.value) for metric in model.metrics or []),
                "files": _files(stored, (run.info.run_id, model.model_id, run.info.experiment_id + "/models")),
                "versions": len(versions),
            }
        )
    return found
