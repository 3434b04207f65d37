"""Everything that MLflow's client can ask for: its way with experiment, run and registered model, and each of MLflow's routes with nothing to go by."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.unit.server.asked import AJAX, API, UNKNOWN, Asked, Call

API_3 = "/api/3.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/"
# The one reaches out to other hosts, and nginx lets nobody through to it; the other, asked for nothing, answers with a name that it drew.
LEFT_OUT = ("/gateway/", "/runs/create")
Ask = Callable[..., Any]


def sweep(endpoints: list[tuple[str, Any, list[str]]]) -> Iterator[Call]:
    """Return a call without any content, and one with wrong content, for each of MLflow's routes.

    Args:
        endpoints: Path, handler and methods, as MLflow has them.
    """
    paths = {(path, method) for path, _, methods in endpoints for method in methods if path.startswith("/api/")}
    for path, method in sorted(paths):
        if any(part in path for part in LEFT_OUT):
            continue
        asked = re.sub(r"<(?:path:)?\w+>", "absent", path)
        yield method, asked, None if method == "GET" else {}
        wrong = {"name": 7, "run_id": UNKNOWN, "experiment_id": "77"}
        yield method, f"{asked}?experiment_id=77&run_id={UNKNOWN}&name=absent", None if method == "GET" else wrong


def live(asked: Asked, user: str, opened: str, shut: str) -> None:
    """Go the whole way of a client as one user, in an experiment of the user's own, and try it in two of others.

    Args:
        asked: Where to ask.
        user: Who asks.
        opened: Identifier of the experiment with permissions.
        shut: Of the one without.
    """

    def ask(method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        return asked.ask(user, (method, path, body)) or {}

    own = _experiment(ask, user)
    for experiment in (own, opened, shut):
        run, model = _run(ask, experiment), _logged_model(ask, experiment)
        ask("POST", f"{API}runs/outputs", {"run_id": run, "models": [{"model_id": model, "step": 1}]})
        _artifacts(ask, experiment, run)
        _registered(ask, f"model-{user}-{experiment}", experiment, run, model)
        _trace(ask, f"tr-{'0' * 31}{len(asked.answers) % 10}", experiment)
        ask("DELETE", f"{API}logged-models/{model}")
        ask("GET", f"{API}logged-models/{model}")
        ask("POST", f"{API}runs/delete", {"run_id": run})
        ask("POST", f"{API}runs/set-tag", {"run_id": run, "key": "late", "value": "1"})
        ask("GET", f"{API}runs/get?run_id={run}")
        ask("POST", f"{API}runs/restore", {"run_id": run})
    ask("POST", f"{API}experiments/delete", {"experiment_id": own})


def _experiment(ask: Ask, user: str) -> str:
    name = f"life of {user}"
    made = ask("POST", f"{API}experiments/create", {"name": name, "tags": [{"key": "a", "value": "b"}]})
    experiment: str = made.get("experiment_id", "77")
    ask("POST", f"{API}experiments/create", {"name": name})
    ask("POST", f"{API}experiments/create", {"name": ""})
    ask("POST", f"{API}experiments/update", {"experiment_id": experiment, "new_name": f"{name}, renamed"})
    ask("POST", f"{API}experiments/set-experiment-tag", {"experiment_id": experiment, "key": "c", "value": "d"})
    ask("POST", f"{API}experiments/delete-experiment-tag", {"experiment_id": experiment, "key": "a"})
    ask("POST", f"{API}experiments/delete-experiment-tag", {"experiment_id": experiment, "key": "a"})
    ask("GET", f"{API}experiments/search?max_results=1&order_by=name+DESC")
    ask("POST", f"{API}experiments/search", {"max_results": 100, "filter": "tags.c = 'd'", "order_by": ["name"]})
    ask("POST", f"{API}experiments/search", {"max_results": 100, "filter": "nonsense"})
    ask("POST", f"{API}experiments/delete", {"experiment_id": experiment})
    ask("GET", f"{API}experiments/get?experiment_id={experiment}")
    ask("POST", f"{API}runs/create", {"experiment_id": experiment, "start_time": 5, "run_name": "new"})
    ask("POST", f"{API}runs/search", {"experiment_ids": [experiment]})
    ask("POST", f"{API}experiments/restore", {"experiment_id": experiment})
    return experiment


def _run(ask: Ask, experiment: str) -> str:
    made = ask("POST", f"{API}runs/create", {"experiment_id": experiment, "start_time": 5, "run_name": "new", "tags": [{"key": "t", "value": "1"}]})
    run: str = made.get("run", {}).get("info", {}).get("run_id", UNKNOWN)
    metrics = [{"key": "loss", "value": 1 / step, "timestamp": step, "step": step} for step in range(1, 5)]
    dataset = {"name": "rows", "digest": "abc", "source_type": "local", "source": "{}", "schema": "{}", "profile": "{}"}
    flavor = {"artifact_path": "model", "flavors": {"sklearn": {}}, "run_id": run, "utc_time_created": "2026-01-01 00:00:00"}
    ask("POST", f"{API}runs/log-batch", {"run_id": run, "metrics": metrics, "params": [{"key": "p", "value": "1"}], "tags": [{"key": "u", "value": "2"}]})
    ask("POST", f"{API}runs/log-parameter", {"run_id": run, "key": "p", "value": "other"})
    ask("POST", f"{API}runs/log-inputs", {"run_id": run, "datasets": [{"tags": [{"key": "mlflow.data.context", "value": "training"}], "dataset": dataset}]})
    ask("POST", f"{API}runs/log-inputs", {"run_id": run, "datasets": [{"dataset": {"name": "rows"}}]})
    ask("POST", f"{API}runs/log-model", {"run_id": run, "model_json": json.dumps(flavor)})
    ask("POST", f"{API}runs/log-model", {"run_id": run, "model_json": "no JSON"})
    ask("POST", f"{API}runs/delete-tag", {"run_id": run, "key": "t"})
    ask("POST", f"{API}runs/update", {"run_id": run, "status": "FINISHED", "end_time": 9, "run_name": "new"})
    ask("POST", f"{API}runs/update", {"run_id": run, "status": "NO_SUCH"})
    ask("GET", f"{API}runs/get?run_id={run}")
    ask("GET", f"{API}metrics/get-history?run_id={run}&metric_key=loss&max_results=3")
    for prefix in (API, AJAX):
        ask("GET", f"{prefix}metrics/get-history-bulk-interval?run_ids={run}&metric_key=loss&max_results=2")
    ask("POST", "/api/2.0mlflow/experiments/search-datasets", {"experiment_ids": [experiment]})
    return run


def _logged_model(ask: Ask, experiment: str) -> str:
    made = ask("POST", f"{API}logged-models", {"experiment_id": experiment, "name": "model", "params": [{"key": "p", "value": "1"}]})
    model: str = made.get("model", {}).get("info", {}).get("model_id", f"m-{UNKNOWN}")
    path = f"{API}logged-models/{model}"
    ask("POST", f"{path}/params", {"model_id": model, "params": [{"key": "q", "value": "2"}]})
    ask("PATCH", f"{path}/tags", {"model_id": model, "tags": [{"key": "t", "value": "1"}]})
    ask("DELETE", f"{path}/tags/t")
    ask("DELETE", f"{path}/tags/absent")
    ask("PATCH", path, {"model_id": model, "status": "LOGGED_MODEL_READY"})
    ask("GET", path)
    ask("GET", f"{path}/artifacts/directories")
    ask("POST", f"{API}logged-models/search", {"experiment_ids": [experiment], "filter": f"model_id = '{model}'"})
    ask("POST", f"{API}logged-models/search", {"experiment_ids": [experiment], "filter": "nonsense"})
    return model


def _artifacts(ask: Ask, experiment: str, run: str) -> None:
    folder = f"{experiment}/{run}/artifacts"
    ask("PUT", f"{ARTIFACTS}artifacts/{folder}/notes/a.txt", b"written by a client")
    ask("GET", f"{ARTIFACTS}artifacts/{folder}/notes/a.txt")
    ask("GET", f"{ARTIFACTS}artifacts/{folder}/notes/absent.txt")
    ask("GET", f"{ARTIFACTS}artifacts?path={folder}/notes")
    ask("GET", f"{ARTIFACTS}artifacts?path=..")
    ask("GET", f"{API}artifacts/list?run_id={run}&path=notes")
    ask("GET", f"{API}artifacts/list?run_id={run}&path=../..")
    ask("GET", f"/get-artifact?run_id={run}&path=notes/a.txt")
    ask("POST", f"{ARTIFACTS}mpu/create/{folder}/large", {"path": f"{folder}/large", "num_parts": 2})
    ask("POST", f"{API}artifacts/presigned-download-url", {"run_id": run, "path": "notes/a.txt"})
    ask("POST", f"{API}artifacts/presigned-upload-url", {"run_id": run, "path": "notes/b.txt"})
    ask("DELETE", f"{ARTIFACTS}artifacts/{folder}/notes/a.txt")
    ask("GET", f"{ARTIFACTS}artifacts/{folder}/notes/a.txt")


def _registered(ask: Ask, name: str, experiment: str, run: str, model: str) -> None:
    """Register a model, give it versions, and take all of it away again."""
    source = f"mlflow-artifacts:/{experiment}/{run}/artifacts/model"
    ask("POST", f"{API}registered-models/create", {"name": f"{name}-first", "description": "one", "tags": [{"key": "a", "value": "b"}]})
    ask("POST", f"{API}registered-models/create", {"name": f"{name}-first"})
    ask("POST", f"{API}registered-models/create", {"name": "a/b"})
    ask("POST", f"{API}registered-models/rename", {"name": f"{name}-first", "new_name": name})
    ask("PATCH", f"{API}registered-models/update", {"name": name, "description": "two"})
    ask("POST", f"{API}registered-models/set-tag", {"name": name, "key": "c", "value": "d"})
    ask("DELETE", f"{API}registered-models/delete-tag", {"name": name, "key": "a"})
    for number in (1, 2):
        ask("POST", f"{API}model-versions/create", {"name": name, "source": source, "run_id": run, "tags": [{"key": "n", "value": str(number)}]})
    ask("POST", f"{API}model-versions/create", {"name": name, "source": f"models:/{model}", "model_id": model})
    ask("POST", f"{API}model-versions/create", {"name": name, "source": "/etc/passwd", "run_id": run})
    ask("POST", f"{API}model-versions/create", {"name": f"{name}-absent", "source": source, "run_id": run})
    version = {"name": name, "version": "1"}
    ask("PATCH", f"{API}model-versions/update", {**version, "description": "three"})
    ask("POST", f"{API}model-versions/transition-stage", {**version, "stage": "Production", "archive_existing_versions": True})
    ask("POST", f"{API}model-versions/transition-stage", {**version, "stage": "Nowhere"})
    ask("POST", f"{API}model-versions/set-tag", {**version, "key": "c", "value": "d"})
    ask("DELETE", f"{API}model-versions/delete-tag", {**version, "key": "c"})
    ask("POST", f"{API}registered-models/alias", {**version, "alias": "champion"})
    ask("POST", f"{API}registered-models/alias", {"name": name, "version": "77", "alias": "champion"})
    ask("GET", f"{API}registered-models/alias?name={name}&alias=champion")
    ask("GET", f"{API}registered-models/get?name={name}")
    ask("GET", f"{API}registered-models/search?filter=name='{name}'")
    ask("GET", f"{API}registered-models/search?filter=nonsense")
    ask("POST", f"{API}registered-models/get-latest-versions", {"name": name, "stages": ["Production"]})
    ask("GET", f"{API}registered-models/get-latest-versions?name={name}")
    ask("GET", f"{API}model-versions/get?name={name}&version=1")
    ask("GET", f"{API}model-versions/get?name={name}&version=77")
    ask("GET", f"{API}model-versions/get-download-uri?name={name}&version=1")
    ask("GET", f"{API}model-versions/search?filter=run_id='{run}'&order_by=version_number+ASC")
    ask("GET", f"{API}model-versions/search?filter=name='{name}'&max_results=1")
    ask("DELETE", f"{API}registered-models/alias", {"name": name, "alias": "champion"})
    ask("GET", f"{API}registered-models/alias?name={name}&alias=champion")
    ask("DELETE", f"{API}model-versions/delete", version)
    ask("DELETE", f"{API}model-versions/delete", version)
    ask("DELETE", f"{API}registered-models/delete", {"name": name})
    ask("GET", f"{API}registered-models/get?name={name}")


def _trace(ask: Ask, trace: str, experiment: str) -> None:
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
    info = {"trace_id": trace, "trace_location": location, "request_time": "2026-01-01T00:00:00Z", "execution_duration": "1s", "state": "OK"}
    ask("POST", f"{API_3}traces", {"trace": {"trace_info": info}})
    ask("GET", f"{API_3}traces/{trace}")
    ask("PATCH", f"{API_3}traces/{trace}/tags", {"key": "a", "value": "b"})
    ask("DELETE", f"{API_3}traces/{trace}/tags", {"key": "a"})
    ask("POST", f"{API_3}traces/search", {"locations": [location], "max_results": 5})
    ask("POST", f"{API_3}traces/delete-traces", {"experiment_id": experiment, "request_ids": [trace]})
