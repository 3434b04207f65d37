"""What MLflow's own application answers is what ours answers, to whomever it is, and whatever was changed before."""

# Most of MLflow's functions have no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from mlflow.entities import LoggedModelOutput, Metric, ViewType
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore as AuthStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

from tests.unit.server.asked import DELETED, MODEL, MODEL_RUN, PASSWORD, RUN, SHUT_RUN
from tests.unit.server.calls import ADMIN, USERS
from tests.unit.server.conftest import Cluster

ROOT = Path(__file__).parents[3]
GRANTS = {
    "reader": [("experiment", "READ")],
    "editor": [("experiment", "EDIT")],
    "manager": [("experiment", "MANAGE")],
    "no-runs": [("experiment", "EDIT"), ("run", "DENY")],
    "no-models": [("experiment", "READ"), ("logged_model", "DENY")],
}


def _tracking(uri: str, folder: Path) -> dict[str, str]:
    store = SqlAlchemyStore(uri, f"{folder}/artifacts")
    ids = {name: str(store.create_experiment(name)) for name in ("open", "shut")}
    for run_id, experiment in ((RUN, "open"), (DELETED, "open"), (MODEL_RUN, "open"), (SHUT_RUN, "shut")):
        with patch("mlflow.store.tracking.sqlalchemy_store.uuid.uuid4", lambda known=run_id: UUID(known)):
            store.create_run(ids[experiment], "somebody", 1, [], run_id[-3:])
    store.log_batch(RUN, [Metric("loss", value, 1, step) for step, value in enumerate((0.1, float("inf"), 2.0))], [], [])
    with patch("mlflow.store.tracking.sqlalchemy_store.uuid.uuid4", lambda: UUID(MODEL.removeprefix("m-"))):
        assert store.create_logged_model(ids["open"], source_run_id=MODEL_RUN).model_id == MODEL
    store.log_batch(MODEL_RUN, [Metric("loss", 0.3, 1, 0, model_id=MODEL)], [], [])
    store.log_outputs(MODEL_RUN, [LoggedModelOutput(MODEL, 0)])
    store.delete_run(DELETED)
    for run_id in (RUN, SHUT_RUN):
        artifacts = Path(store.get_run(run_id).info.artifact_uri)
        artifacts.mkdir(parents=True)
        (artifacts / "a.txt").write_text("an artifact", encoding="utf-8")
    assert len(store.search_runs(list(ids.values()), "", ViewType.ALL)) == 4
    store.engine.dispose()
    return ids


def _users(folder: Path, opened: str) -> None:
    store = AuthStore()
    store.init_db(f"sqlite:///{folder}/auth.db")
    for name in USERS:
        store.create_user(name, PASSWORD, is_admin=name == ADMIN)
    for name, grants in GRANTS.items():
        for kind, permission in grants:
            store.grant_user_permission(name, kind, opened if kind == "experiment" else "*", permission)
    for name, pattern in (("by-role", opened), ("by-star", "*")):
        role = store.create_role(name=name, workspace=DEFAULT_WORKSPACE_NAME)
        store.add_role_permission(role.id, "experiment", pattern, "EDIT")
        store.assign_role_to_user(store.get_user(name).id, role.id)
    store.engine.dispose()


@pytest.fixture(scope="module")
def template(cluster: Cluster) -> str:
    """The name of a database of runs that both applications get a copy of."""
    return cluster.database()


@pytest.fixture(scope="module")
def databases(cluster: Cluster, template: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything else that they start from."""
    folder = tmp_path_factory.mktemp("databases")
    ids = _tracking(cluster.uri(template), folder)
    _users(folder, ids["open"])
    (folder / "experiments.json").write_text(json.dumps(ids), encoding="utf-8")
    return folder


def ask(which: str, databases: Path, folder: Path, uri: str) -> list[dict[str, Any]]:
    """Return what an application answers to the calls of `calls.py`."""
    shutil.copytree(databases, folder)
    (folder / "tracking").write_text(uri, encoding="utf-8")
    settings = {
        "default_permission": "NO_PERMISSIONS",
        "database_uri": f"sqlite:///{folder}/auth.db",
        "admin_username": ADMIN,
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "auth_cache_ttl_seconds": "60",
    }
    (folder / "auth.ini").write_text("[mlflow]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "_MLFLOW_"))}
    command = [sys.executable, "-m", "tests.unit.server.calls", which, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    answers: list[dict[str, Any]] = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return answers


def test_same_answers(databases: Path, cluster: Cluster, template: str, tmp_path: Path) -> None:
    """Status, headers and body of three thousand calls; grants hold at once, and what was taken away is gone once nothing is remembered."""
    stock, ours = (ask(which, databases, tmp_path / which, cluster.uri(cluster.database(template))) for which in ("stock", "ours"))
    different = [(theirs, our) for theirs, our in zip(stock, ours, strict=True) if theirs != our]
    assert not different, json.dumps(different[:5], indent=1)
    statuses = Counter(answer["status"] for answer in ours)
    # Nothing was compared if everything was refused, or allowed.
    assert len(ours) > 3000
    assert all(statuses[status] > 200 for status in (200, 400, 401, 403, 404)), statuses
