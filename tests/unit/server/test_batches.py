"""A batch that is read from JSON is stored as MLflow's view stores it, and whatever is not just what a client sends MLflow reads or refuses."""

# MLflow gives no types to most of what is called here.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import json
from collections.abc import Iterator
from typing import Any, cast
from unittest.mock import patch

import pytest
from flask import Flask
from longrun_server import views
from longrun_server.sqlstore import SqlStore
from longrun_server.views import View
from mlflow.entities import Metric, Param, RunTag
from mlflow.protos.service_pb2 import LogBatch
from mlflow.server import handlers
from mlflow.server.constants import ARTIFACTS_ONLY_ENV_VAR
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.proto_json_utils import message_to_json, parse_dict

from tests.unit.server.conftest import ROOT, START, Cluster
from tests.unit.server.test_views import NUMBERS, TEXTS, VIEWS

ROUTE = "/api/2.0/mlflow/runs/log-batch"
TABLES = ("metrics", "latest_metrics", "params", "tags")
RUN = "a run"


class Two:
    """MLflow's view, and ours, with a run each in one database."""

    def __init__(self, cluster: Cluster) -> None:
        uri = cluster.uri(cluster.database())
        self.ours, self.stock = SqlStore(uri, ROOT), SqlAlchemyStore(uri, ROOT)
        self.flask = Flask("ours")
        self.flask.view_functions |= {name: getattr(handlers, name) for name in (*VIEWS, "_log_batch")}
        views.install(self.flask)
        self.experiment = self.stock.create_experiment("batches")

    def log(self, body: Any, *, content_type: str = "application/json") -> int:  # noqa: ANN401 - JSON, or bytes
        """Return the status of both answers, after a comparison of them and of all that is stored now; the run stands in the body as `RUN`."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        theirs = self._log(self.stock, handlers._log_batch, text, content_type)
        assert self._log(self.ours, cast("View", self.flask.view_functions["_log_batch"]), text, content_type) == theirs
        return theirs[0]

    def _log(self, store: SqlAlchemyStore, view: View, text: bytes, content_type: str) -> tuple[int, object, list[list[str]]]:
        run: str = store.create_run(self.experiment, "ann", START, [], "same").info.run_id
        answer: object
        with (
            self.flask.test_request_context(ROUTE, method="POST", data=text.replace(RUN.encode(), run.encode()), content_type=content_type),
            patch.object(handlers, "_get_tracking_store", lambda: store),
        ):
            try:
                given = view()
                status, answer = given.status_code, (sorted(given.headers), given.get_data().replace(run.encode(), RUN.encode()))
            # What MLflow did not expect becomes an answer further out.
            except Exception as error:  # noqa: BLE001
                status, answer = 500, (type(error), str(error))
        return status, answer, [self.rows(table, run) for table in TABLES]

    def rows(self, table: str, run: str) -> list[str]:
        """Return all rows of a run, as text."""
        with self.ours.engine.connect() as connection:
            found = connection.exec_driver_sql(f"SELECT (to_jsonb(t) - 'run_uuid')::text FROM {table} AS t WHERE run_uuid = %s ORDER BY 1", (run,))  # noqa: S608 - ours
            return list(found.scalars())


@pytest.fixture(scope="module")
def two(cluster: Cluster) -> Iterator[Two]:
    """A database."""
    made = Two(cluster)
    yield made
    for store in (made.ours, made.stock):
        store.engine.dispose()


def test_what_the_client_sends(two: Two) -> None:
    """Every number and text but for those that are no plain ones; ours makes no message of it."""
    finite = [value for value in NUMBERS if abs(value) < float("inf")]
    message = LogBatch(
        run_id=RUN,
        metrics=[Metric(f"m{number}", value, START + number, number - 3).to_proto() for number, value in enumerate(finite)],
        params=[Param(f"p{number}", text).to_proto() for number, text in enumerate(TEXTS) if text.isascii()],
        tags=[RunTag(f"t{number}", text).to_proto() for number, text in enumerate(TEXTS) if text.isascii()],
    )
    body = message_to_json(message)
    # MLflow's view makes one, and no other.
    with patch.object(handlers, "parse_dict", side_effect=parse_dict) as parsed:
        assert two.log(body.encode()) == 200
    assert parsed.call_count == 1
    run = two.ours.search_runs([two.experiment], "", 1, 1).to_list()[0]
    assert len(run.data.metrics) == len(finite)


METRIC = {"key": "m", "value": 0.5, "timestamp": START, "step": 0}
PAIR = {"key": "k", "value": "v"}
ODD_VALUES: tuple[Any, ...] = (None, "1.5", "NaN", float("nan"), float("inf"), True, 10**400, 2**53 + 1, "x", [])


@pytest.mark.parametrize(
    "body",
    [
        {"run_id": RUN},
        {"run_id": RUN, "metrics": [], "params": [], "tags": []},
        {"run_id": RUN, "metrics": [METRIC | {"value": 3}, METRIC | {"value": -0.0, "step": 1}, METRIC]},
        {"run_id": RUN, "metrics": [METRIC, METRIC, METRIC | {"key": "a/b c"}], "tags": [PAIR, PAIR | {"value": "w"}]},
        {"run_id": RUN, "params": [PAIR | {"value": ""}], "tags": [PAIR | {"value": ""}]},
        {"run_id": RUN, "tags": [PAIR | {"key": "mlflow.runName", "value": "another"}]},
        {"run_id": RUN, "params": [PAIR | {"value": "\U0001f600 \u00fc"}]},
        {"run_id": RUN, "metrics": [METRIC | {"step": -(2**62)}]},
    ],
    ids=lambda body: json.dumps(body)[:90],
)
def test_stored(two: Two, body: dict[str, Any]) -> None:
    """As MLflow's view stores it."""
    assert two.log(body) == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        {},
        {"run_id": ""},
        {"run_id": None},
        {"run_id": 5},
        {"run_id": "0" * 32, "metrics": [METRIC]},
        {"runId": RUN, "metrics": [METRIC]},
        {"run_id": RUN, "runId": RUN},
        {"run_id": RUN, "more": 1},
        {"run_id": RUN, "metrics": None},
        {"run_id": RUN, "metrics": METRIC},
        {"run_id": RUN, "metrics": [5]},
        {"run_id": RUN, "metrics": [{}]},
        {"run_id": RUN, "metrics": [{"key": "m", "value": 1.0, "timestamp": START}]},
        *({"run_id": RUN, "metrics": [METRIC | {"value": value}]} for value in ODD_VALUES),
        *(
            {"run_id": RUN, "metrics": [METRIC | {name: value}]}
            for name in ("timestamp", "step")
            for value in (None, "7", 1.0, 1.5, True, 2**63, -(2**63), "x")
        ),
        *({"run_id": RUN, "metrics": [METRIC | {"key": key}]} for key in (None, "", 5, "a\0b", "../a", "x" * 251)),
        {"run_id": RUN, "metrics": [METRIC | {"model_id": "m-1"}]},
        {"run_id": RUN, "metrics": [METRIC | {"unknown": 1}]},
        {"run_id": RUN, "metrics": [METRIC] * 1001},
        *(
            {"run_id": RUN, name: [PAIR | change]}
            for name in ("params", "tags")
            for change in ({"value": None}, {"value": 5}, {"key": ""}, {"key": 5}, {"x": "y"})
        ),
        *({"run_id": RUN, name: [PAIR | {"value": value}]} for name in ("params", "tags") for value in ("a\0b", "x" * 9000)),
        {"run_id": RUN, "params": [{"key": "k"}], "tags": [{"key": "k"}]},
        {"run_id": RUN, "params": [PAIR, PAIR]},
        {"run_id": RUN, "params": [PAIR, PAIR | {"value": "w"}]},
        b'{"run_id": "a run", "params": [{"key": "k", "value": "\\ud800"}]}',
        b'{"run_id": "a run", "tags": [{"key": "k\\uDC00", "value": "v"}]}',
        b'{"run_id": "a run", "run_id": "a run", "tags": [{"key": "k", "key": "l", "value": "v"}]}',
        json.dumps(json.dumps({"run_id": RUN, "params": [PAIR]})).encode(),
    ],
    ids=lambda body: (body if isinstance(body, bytes) else json.dumps(body).encode()).decode()[:90],
)
def test_the_same_as_mlflow(two: Two, body: Any) -> None:  # noqa: ANN401 - JSON, or bytes
    """Whatever that is: a refusal in its words, or what it makes of it."""
    two.log(body)


def test_another_type_of_content(two: Two) -> None:
    """MLflow takes JSON only."""
    assert two.log({"run_id": RUN}, content_type="text/plain") == 400


def test_a_refusal_of_the_store(two: Two) -> None:
    """It is asked once, and what it says is answered."""
    with patch.object(SqlAlchemyStore, "log_batch", side_effect=SqlAlchemyStore.log_batch, autospec=True) as asked:
        assert two.log({"run_id": RUN, "params": [PAIR, PAIR | {"key": "K" * 300}]}) == 400
    assert asked.call_count <= 2


def test_a_server_of_artifacts_only(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has no runs to log to."""
    monkeypatch.setenv(ARTIFACTS_ONLY_ENV_VAR, "true")
    assert two.log({"run_id": RUN, "params": [PAIR]}) == 503
