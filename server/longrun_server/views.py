"""Flask's views for a search and for a history, whose answer is written from the rows, and for a batch, which is read from the request's JSON.

MLflow's own views go on behind them, for whatever they refuse and whatever is out of the ordinary, and for everybody else who calls them.
"""

# Most of MLflow's functions have no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import os
from collections.abc import Callable
from functools import wraps
from typing import cast

import mlflow.server.auth
from flask import Flask, Response
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.service_pb2 import GetMetricHistory, SearchRuns
from mlflow.server import handlers
from mlflow.server.constants import ARTIFACTS_ONLY_ENV_VAR
from mlflow.server.handlers import (
    _assert_array,
    _assert_intlike,
    _assert_item_type_string,
    _assert_less_than_or_equal,
    _assert_required,
    _assert_string,
    _get_request_message,
    catch_mlflow_exception,
)

from longrun_server import batches, rows
from longrun_server.sql import UnusualError
from longrun_server.sqlstore import SqlStore

View = Callable[[], Response]

# As in MLflow's views.
MOST_RUNS = 50_000


def install(flask: Flask) -> None:
    """Put our views in place of MLflow's, which stay behind them."""
    for name, write in {"_search_runs": search_text, "_get_metric_history": history_text}.items():
        flask.view_functions[name] = _before(write, cast("View", flask.view_functions[name]))
    flask.view_functions["_log_batch"] = _logging(cast("View", flask.view_functions["_log_batch"]))


def search_text(store: SqlStore) -> str:
    """Return the answer to the search that Flask holds.

    Raises:
        MlflowException: MLflow's view refuses, too.
        UnusualError: It has to answer.
    """
    message = _get_request_message(
        SearchRuns(),
        schema={
            "experiment_ids": [_assert_array],
            "filter": [_assert_string],
            "max_results": [_assert_intlike, lambda number: _assert_less_than_or_equal(int(number), MOST_RUNS)],
            "order_by": [_assert_array, _assert_item_type_string],
        },
    )
    view_type = ViewType.from_proto(message.run_view_type) if message.HasField("run_view_type") else ViewType.ACTIVE_ONLY
    experiment_ids = list(message.experiment_ids)
    if mlflow.server.auth.auth_config:
        experiment_ids = mlflow.server.auth.filter_experiment_ids(experiment_ids)
    return rows.search_text(*store.find_runs(experiment_ids, message.filter, view_type, message.max_results, message.order_by, message.page_token or None))


def history_text(store: SqlStore) -> str:
    """Return the answer to the request for a history that Flask holds.

    Raises:
        MlflowException: As of `search_text`.
        UnusualError: As of `search_text`.
    """
    message = _get_request_message(
        GetMetricHistory(),
        schema={"run_id": [_assert_string, _assert_required], "metric_key": [_assert_string, _assert_required], "page_token": [_assert_string]},
    )
    most = message.max_results if message.HasField("max_results") else None
    if most is not None and most <= 0:
        raise UnusualError
    key = message.metric_key
    return rows.history_text(key, *store.find_points(message.run_id or message.run_uuid, key, most, message.page_token or None))


def _store() -> SqlStore:
    """Return our store.

    Raises:
        UnusualError: It is another one, or this server has none.
    """
    store = None if os.environ.get(ARTIFACTS_ONLY_ENV_VAR) else handlers._get_tracking_store()  # noqa: SLF001
    if not isinstance(store, SqlStore):
        raise UnusualError
    return store


def _logging(view: View) -> View:
    @wraps(view)
    @catch_mlflow_exception
    def answer() -> Response:
        try:
            store = _store()
            batch = batches.of_request()
        except (MlflowException, UnusualError):
            return view()
        store.log_batch(*batch)
        return Response("{}", mimetype="application/json")

    return answer


def _before(write: Callable[[SqlStore], str], view: View) -> View:
    @wraps(view)
    def answer() -> Response:
        try:
            text = write(_store())
        except (MlflowException, UnusualError):
            return view()
        return Response(text, mimetype="application/json")

    return answer
