"""A log-batch as MLflow's client writes it, read without a message for each metric, param and tag.

MLflow makes them twice, for the permission check and for the store: of a batch of 100 params that is more than a third of the call in Python.
"""

# MLflow gives no types to its entities.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Callable
from math import isfinite
from typing import Any, TypeVar

from flask import g, request
from mlflow.entities import Metric, Param, RunTag
from mlflow.server.handlers import _get_request_json

from longrun_server.sql import UnusualError
from longrun_server.sqlstore import LARGEST, LARGEST_WHOLE

FIELDS = frozenset({"run_id", "metrics", "params", "tags"})

_BATCH = "_longrun_batch"

Batch = tuple[str, list[Metric], list[Param], list[RunTag]]
Entity = TypeVar("Entity")


def of_request() -> Batch:
    """Return the batch that Flask holds, which is read once a request.

    Raises:
        MlflowException: MLflow's view refuses, too.
        UnusualError: As of `read`.
    """
    batch: Batch | None = g.get(_BATCH)
    if batch is None:
        batch = read(_get_request_json(), request.get_data())
        setattr(g, _BATCH, batch)
    return batch


def read(body: Any, text: bytes) -> Batch:  # noqa: ANN401 - whatever JSON has
    """Return a batch's run, metrics, params and tags.

    Args:
        body: What the request's text says.
        text: The request's, as it came.

    Raises:
        UnusualError: It is not just what MLflow's client sends: MLflow has to read it, or to refuse it.
    """
    # Half of a pair of surrogates is a text for Python, and none for a message.
    if type(body) is not dict or not body.keys() <= FIELDS or b"\\ud" in text or b"\\uD" in text:
        raise UnusualError
    try:
        return _text(body["run_id"]), _each(_metric, body, "metrics"), _each(_param, body, "params"), _each(_tag, body, "tags")
    except (KeyError, TypeError) as error:
        raise UnusualError from error


def _each(entity: Callable[..., Entity], body: dict[str, Any], name: str) -> list[Entity]:
    items = body.get(name, [])
    if type(items) is not list:
        raise UnusualError
    return [entity(**item) for item in items]


def _metric(*, key: str, value: float, timestamp: int, step: int) -> Metric:
    if type(value) is float:
        if not isfinite(value):
            raise UnusualError
    elif type(value) is not int or abs(value) > LARGEST_WHOLE:
        raise UnusualError
    if type(timestamp) is not int or type(step) is not int or abs(timestamp) > LARGEST or abs(step) > LARGEST:
        raise UnusualError
    return Metric(_text(key), float(value), timestamp, step)


def _param(*, key: str, value: str) -> Param:
    return Param(_text(key), _text(value, may_be_empty=True))


def _tag(*, key: str, value: str) -> RunTag:
    return RunTag(_text(key), _text(value, may_be_empty=True))


def _text(value: Any, *, may_be_empty: bool = False) -> str:  # noqa: ANN401 - whatever JSON has
    if type(value) is not str or not (value or may_be_empty):
        raise UnusualError
    return value
