"""A search and a history are, to the byte, what MLflow's own views answer with MLflow's own store on the same database."""

# MLflow gives no types to most of what is called here.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import mlflow.server.auth
import numpy as np
import pytest
from flask import Flask, Response
from longrun_server import rows, views
from longrun_server.answers import double
from longrun_server.sql import SEPARATOR
from longrun_server.sqlstore import SqlStore
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos import service_pb2
from mlflow.server import handlers
from mlflow.server.constants import ARTIFACTS_ONLY_ENV_VAR
from mlflow.server.graphql.graphql_schema_extensions import Query
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from tests.unit.server.conftest import ROOT, START, Cluster
from tests.unit.server.test_answers import DOUBLES, STRINGS

VIEWS = {"_search_runs": "/api/2.0/mlflow/runs/search", "_get_metric_history": "/api/2.0/mlflow/metrics/get-history"}
NUMBERS = [*DOUBLES, 1e15, 1e-05, 1e-4, 2.0**53, -(2.0**53) - 2, 1.7976931348623157e308, 9007199254740993.0, 123456789012345.6, 2e23]
# PostgreSQL refuses the zero byte, and the separator has a test of its own.
TEXTS = [text.replace("\x00", "").replace(SEPARATOR, "\x1e") for text in STRINGS] + ["\\u001f", "a\\", "\\\\", "%s %(a)s", "{}", "NULL", "a,b"]
HISTORY = 25


class Two:
    """MLflow's views with its store, and ours with ours, on one database."""

    def __init__(self, uri: str) -> None:
        self.ours, self.stock = SqlStore(uri, ROOT), SqlAlchemyStore(uri, ROOT)
        self.flask = Flask("ours")
        self.flask.view_functions |= {name: getattr(handlers, name) for name in (*VIEWS, "_log_batch")}
        views.install(self.flask)
        self.experiment = self.stock.create_experiment("views")

    def answer(self, name: str, body: object, *, method: str | None = None) -> Response:
        """Return what both answer: ours without a look by MLflow's store, unless it refuses."""
        method = method or ("POST" if name == "_search_runs" else "GET")
        told: dict[str, Any] = {"query_string": body} if method == "GET" else {"data": body} if isinstance(body, bytes) else {"json": body}
        with self.flask.test_request_context(VIEWS[name], method=method, **told):
            with patch.object(handlers, "_get_tracking_store", lambda: self.stock):
                theirs: Response = getattr(handlers, name)()
            with patch.object(handlers, "_get_tracking_store", lambda: self.ours):
                ours = cast("Response", self.flask.view_functions[name]())
        assert (ours.status, ours.headers, ours.get_data()) == (theirs.status, theirs.headers, theirs.get_data())
        return ours

    def search(self, **body: Any) -> Any:  # noqa: ANN401 - JSON
        answer = self.answer("_search_runs", {"experiment_ids": [self.experiment], "run_view_type": "ALL"} | body)
        assert answer.status_code == 200
        return json.loads(answer.get_data())

    def history(self, **body: Any) -> Any:  # noqa: ANN401 - JSON
        answer = self.answer("_get_metric_history", body)
        assert answer.status_code == 200
        return json.loads(answer.get_data())

    def new_run(self, name: str, start: int = START, tags: list[RunTag] | None = None) -> str:
        run_id: str = self.stock.create_run(self.experiment, "ann", start, tags or [], name).info.run_id
        return run_id


@pytest.fixture(scope="module")
def two(cluster: Cluster) -> Iterator[Two]:
    """A database with runs of every kind."""
    with patch.object(mlflow.server.auth, "filter_experiment_ids", lambda ids: ids):
        made = Two(cluster.uri(cluster.database()))
        fill(made, cluster)
        yield made
    for store in (made.ours, made.stock):
        store.engine.dispose()


def fill(two: Two, cluster: Cluster) -> None:
    """Store one run for each way in which an answer can differ."""
    store, database = two.stock, two.stock.engine.url.database
    assert database
    two.new_run("bare")
    full = two.new_run("full \U0001f600")
    store.log_batch(
        full,
        [Metric(f"m{number}", value, START + number, number - 3) for number, value in enumerate(NUMBERS)] + [Metric("zero", 0, 0, 0)],
        [Param(f"p{number}", text) for number, text in enumerate(TEXTS)],
        [RunTag(f"t{number}", text) for number, text in enumerate(TEXTS)] + [RunTag("\u00fc/a b", "key")],
    )
    store.log_batch(
        full, [Metric("h", NUMBERS[step % len(NUMBERS)], START + step // 3, step // 2) for step in range(HISTORY)] + [Metric("h", 0.1, START, 0)], [], []
    )
    cluster.execute(f"INSERT INTO metrics SELECT 'before', 0.5, -n, '{full}', -n, false FROM generate_series(0, 3) AS n", database)  # noqa: S608
    odd = f"('odd', 'Infinity', 1, '{full}', 1), ('odd', 'NaN', 2, '{full}', 2)"
    cluster.execute(f"INSERT INTO metrics (key, value, timestamp, run_uuid, step) VALUES {odd}", database)  # noqa: S608
    data = two.new_run("data", START + 1)
    sets = [
        DatasetInput(
            Dataset(f"d{number}", "1\u00fc", "local", '{"a": "\\n"}', schema, profile), [InputTag("mlflow.data.context", "train"), InputTag("b", "\n")][:number]
        )
        for number, (schema, profile) in enumerate(((None, None), ("", "{}"), ("s\n", None)))
    ]
    store.log_inputs(data, sets)
    store.log_inputs(two.new_run("the same data", START + 1), sets[1:])
    model = two.new_run("model", START + 2)
    logged = store.create_logged_model(two.experiment, source_run_id=model).model_id
    store.log_outputs(model, [LoggedModelOutput(logged, 7)])
    store.log_batch(model, [Metric("h", 0.3, START, 0, model_id=logged), Metric("h", 0.4, START, 1)], [], [])
    store.delete_run(two.new_run("deleted", START + 3))
    for name, change in {
        "nobody": "user_id = ''",
        "no name": "name = NULL",
        "empty name": "name = ''",
        "ended": "end_time = 5, status = 'KILLED'",
        "never": "end_time = 0, artifact_uri = ''",
        "nowhere": "artifact_uri = NULL, start_time = 0",
        "before": "start_time = -5, end_time = -1",
    }.items():
        cluster.execute(f"UPDATE runs SET {change} WHERE run_uuid = '{two.new_run(name, START + 4)}'", database)  # noqa: S608
    for name in ("NULL", "''"):
        run_id = two.new_run("nameless", START + 4)
        cluster.execute(f"DELETE FROM tags WHERE run_uuid = '{run_id}'", database)  # noqa: S608
        cluster.execute(f"UPDATE runs SET name = {name} WHERE run_uuid = '{run_id}'", database)  # noqa: S608


def test_every_run(two: Two) -> None:
    """All in one answer, which our store finds without MLflow's."""
    with patch.object(SqlStore, "search_runs", side_effect=AssertionError):
        found = two.search()["runs"]
    assert len(found) == 15
    assert {"bare", "full \U0001f600", "nobody", ""} <= {run["info"].get("run_name") for run in found}
    assert sum("end_time" not in run["info"] for run in found) > 5
    assert sum("dataset_inputs" in run["inputs"] for run in found) == 2
    assert sum("model_outputs" in run["outputs"] for run in found) == 1
    assert two.search(filter="attributes.run_name = 'absent'") == {}


@pytest.mark.parametrize(
    "body",
    [
        {"run_view_type": "ACTIVE_ONLY"},
        {"run_view_type": "DELETED_ONLY"},
        {"experiment_ids": []},
        {"experiment_ids": ["0", "4711"]},
        {"max_results": 1},
        {"max_results": 15},
        {"max_results": "3"},
        {"filter": "metrics.m1 <= 0 and tags.t1 = 'plain'"},
        {"filter": "params.p1 LIKE 'pl%'", "order_by": ["metrics.m1 DESC", "attributes.run_name"]},
        {"filter": "dataset.name LIKE 'd%'", "order_by": ["attributes.start_time ASC"]},
        {"filter": "dataset.context = 'train'"},
        {"order_by": ["tags.`t2`", "metrics.h", "attributes.end_time DESC"]},
        {"filter": "tags.t1 IS NULL"},
        {"filter": f"start_time < {10**30}"},
        {"filter": "attributes.status != 'KILLED'" + " " * 5000},
    ],
    ids=lambda body: str(body)[:80],
)
def test_searches(two: Two, body: dict[str, Any]) -> None:
    """Views, pages, filters and orders; the second time what was read the first time is remembered."""
    with patch.object(SqlStore, "search_runs", side_effect=AssertionError):
        assert two.search(**body) == two.search(**body)


def test_pages(two: Two) -> None:
    """From token to token, to the end."""
    names, token = [], ""
    while True:
        page = two.search(max_results=4, order_by=["attributes.run_name"], page_token=token)
        names += [run["info"]["run_id"] for run in page["runs"]]
        token = page.get("next_page_token", "")
        if not token:
            break
    assert len(names) == len(set(names)) == 15


def test_histories(two: Two) -> None:
    """Every number, doubles, times before 1970, numbers that MLflow would not have written; and pages."""
    runs = {run["info"].get("run_name"): run["info"]["run_id"] for run in two.search()["runs"]}
    full, model = runs["full \U0001f600"], runs["model"]
    with patch.object(SqlStore, "get_metric_history", side_effect=AssertionError):
        whole = two.history(run_id=full, metric_key="h")["metrics"]
        assert len(whole) > 20
        assert "NaN" in [each["value"] for each in whole]
        assert [each["step"] for each in two.history(run_id=full, metric_key="before")["metrics"]] == [-3, -2, -1, 0]
        assert [each["value"] for each in two.history(run_id=full, metric_key="odd")["metrics"]] == ["Infinity", "NaN"]
        assert len(two.history(run_uuid=model, metric_key="h")["metrics"]) == 2
        assert two.history(run_id=full, metric_key="absent") == two.history(run_id="0" * 32, metric_key="h") == {}
        for most in (1, len(whole) - 1, len(whole), len(whole) + 1):
            paged, token = [], ""
            while True:
                page = two.history(run_id=full, metric_key="h", max_results=most, page_token=token)
                paged += page["metrics"]
                token = page.get("next_page_token", "")
                if not token:
                    break
            assert paged == whole


def test_numbers(two: Two) -> None:
    """Drawn doubles, as PostgreSQL writes them, become what Python writes: any bits, few digits, and the neighbours of powers of two and ten."""
    rng = np.random.default_rng(7)
    powers = np.concatenate([2.0 ** np.arange(-60, 70), 10.0 ** np.arange(-30, 31)])
    drawn = np.concatenate(
        [
            rng.integers(0, 2**64, 20_000, dtype=np.uint64).view(np.float64),
            rng.random(20_000) * 10.0 ** rng.integers(-6, 18, 20_000),
            rng.integers(0, 10**6, 20_000) / 10.0 ** rng.integers(0, 9, 20_000),
            rng.integers(2**49, 2**50, 20_000) + rng.integers(0, 16, 20_000) / 16.0,
            powers,
            np.nextafter(powers, 0.0),
            np.nextafter(powers, np.inf),
        ]
    )
    numbers = [*drawn[np.isfinite(drawn)].tolist(), *NUMBERS]
    told = f"{{{','.join(map(repr, numbers))}}}"
    with two.ours.engine.connect() as connection:
        written = connection.exec_driver_sql("SELECT array_agg(n::text) FROM unnest(%s::double precision[]) AS n", (told,)).scalar_one()
    assert list(map(rows._number, written)) == list(map(double, numbers))


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("_search_runs", {"experiment_ids": "1"}),
        ("_search_runs", {"experiment_ids": ["x"]}),
        ("_search_runs", {"experiment_ids": ["1"], "max_results": 50001}),
        ("_search_runs", {"experiment_ids": ["1"], "max_results": 0}),
        ("_search_runs", {"experiment_ids": ["1"], "filter": 5}),
        ("_search_runs", {"experiment_ids": ["1"], "filter": "metrics.a ~ 3"}),
        ("_search_runs", {"experiment_ids": ["1"], "order_by": ["nothing.a"]}),
        ("_search_runs", {"experiment_ids": ["1"], "order_by": [5]}),
        ("_search_runs", {"experiment_ids": ["1"], "page_token": "no token"}),
        ("_search_runs", b"{not json"),
        ("_get_metric_history", {}),
        ("_get_metric_history", {"run_id": "a"}),
        ("_get_metric_history", {"run_id": "a", "metric_key": "b", "max_results": 0}),
        ("_get_metric_history", {"run_id": "a", "metric_key": "b", "page_token": "no token"}),
        ("_get_metric_history", {"run_id": "a", "metric_key": "b\0"}),
    ],
    ids=str,
)
def test_refusals(two: Two, name: str, body: object) -> None:
    """In MLflow's words."""
    assert two.answer(name, body).status_code >= 400


def test_values_that_are_not_plain(two: Two, cluster: Cluster) -> None:
    """A tag with the separator in it, and one with none at all, are MLflow's to write; so that no value can pass for two."""
    database = two.stock.engine.url.database
    assert database
    for tags, change in (([RunTag("k", f"a{SEPARATOR}b")], None), ([RunTag("k", "v")], "UPDATE tags SET value = NULL WHERE key = 'k'")):
        run_id = two.new_run("odd", START, [*tags, RunTag("l", f"{SEPARATOR}")])
        if change:
            cluster.execute(change, database)
        assert two.search(filter=f"attributes.run_id = '{run_id}'")["runs"]
        two.stock.delete_run(run_id)
        two.stock._hard_delete_run(run_id)


def test_what_a_user_may_see(two: Two) -> None:
    """It is asked at each search, where permissions.py puts its own; and what it refuses is refused."""
    with patch.object(mlflow.server.auth, "filter_experiment_ids", lambda _: []):
        assert two.search() == {}
    with patch.object(mlflow.server.auth, "filter_experiment_ids", side_effect=MlflowException("no")):
        assert two.answer("_search_runs", {"experiment_ids": [two.experiment]}).status_code == 500


def test_a_server_of_artifacts_only(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has no runs to show."""
    monkeypatch.setenv(ARTIFACTS_ONLY_ENV_VAR, "true")
    assert [two.answer(name, {}).status_code for name in VIEWS] == [503, 503]


def test_another_store(two: Two) -> None:
    """Is asked by MLflow's view."""
    with patch.object(two, "ours", two.stock):
        assert len(two.search()["runs"]) == 15


def test_others_who_search_get_messages(two: Two) -> None:
    """MLflow's GraphQL calls what its view calls, and makes something else of it."""
    with patch.object(handlers, "_get_tracking_store", lambda: two.ours):
        found = Query().resolve_mlflow_search_runs(None, SimpleNamespace(experiment_ids=[two.experiment], max_results=2))
    assert [type(run) for run in found.runs] == [service_pb2.Run] * 2
