"""MLflow's tracking store on PostgreSQL with the calls of a training's life answered by one statement each.

Whatever is out of the ordinary goes to MLflow's own method, which answers or says what is wrong: an unknown or deleted run, a param with another value,
metrics of a logged model, types that MLflow takes but never sends, and everything that PostgreSQL refuses. What is checked before the database is asked, is
checked by MLflow's own functions, in its order.
"""

# MLflow gives no types to most of what is called here.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunInputs, RunTag
from mlflow.entities.lifecycle_stage import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME, _get_run_name_from_tags
from mlflow.utils.name_utils import _generate_random_name
from mlflow.utils.search_utils import SearchUtils
from mlflow.utils.uri import append_to_uri_path
from mlflow.utils.validation import (
    _parse_experiment_ids,
    _validate_batch_log_data,
    _validate_batch_log_limits,
    _validate_metric,
    _validate_param,
    _validate_param_keys_unique,
    _validate_run_id,
    _validate_tag,
)

from longrun_server import rows, search
from longrun_server.sql import Database, Point, Points, RunRow, UnavailableError, UnusualError

# What PostgreSQL's bigint and integer hold.
LARGEST = 2**63 - 1
LARGEST_ID = 2**31 - 1
# Whole numbers up to here are floats without loss.
LARGEST_WHOLE = 2**53


class SqlStore(SqlAlchemyStore):
    """MLflow's store; see there for what a method takes and returns."""

    def __init__(self, db_uri: str, default_artifact_root: str) -> None:
        super().__init__(db_uri, default_artifact_root)
        self._database = Database(self.engine)
        # Nobody can change where an experiment keeps its artifacts, and the statement that stores a run looks again.
        self._locations: dict[int, str] = {}

    def log_batch(self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]) -> None:
        """Log metrics, params and tags: all or, where MLflow's own method finds something wrong halfway, what that stores."""
        _validate_run_id(run_id)
        metrics, checked_params, checked_tags = _validate_batch_log_data(metrics, params, tags)
        _validate_batch_log_limits(metrics, checked_params, checked_tags)
        _validate_param_keys_unique(checked_params)
        try:
            self._log(run_id, metrics=metrics, params=checked_params, tags=checked_tags)
        except UnusualError:
            super().log_batch(run_id, metrics, params, tags)

    def log_metric(self, run_id: str, metric: Metric) -> None:
        """Log a point."""
        try:
            _require(metric.model_id is None)
            _validate_metric(metric.key, metric.value, metric.timestamp, metric.step)
            self._log(run_id, metrics=[metric])
        except UnusualError:
            super().log_metric(run_id, metric)

    def log_param(self, run_id: str, param: Param) -> None:
        """Log a param."""
        try:
            self._log(run_id, params=[_validate_param(param.key, param.value)])
        except UnusualError:
            super().log_param(run_id, param)

    def set_tag(self, run_id: str, tag: RunTag) -> None:
        """Set a tag."""
        try:
            self._log(run_id, tags=[_validate_tag(_text(tag.key), _text(tag.value))])
        except UnusualError:
            super().set_tag(run_id, tag)

    def create_run(self, experiment_id: str, user_id: str, start_time: int, tags: Sequence[RunTag] | None, run_name: str | None) -> Run:
        """Create a run."""
        try:
            return self._create_run(experiment_id, user_id, start_time, tags or [], run_name)
        except UnavailableError as error:
            # It may be there: a second try here could make a second run. MLflow's own store says the same.
            raise MlflowException(message=str(error), error_code=TEMPORARILY_UNAVAILABLE) from error
        except UnusualError:
            return super().create_run(experiment_id, user_id, start_time, tags, run_name)

    def experiment_of(self, run_id: str) -> str | None:
        """Return the id of a run's experiment, None where there is no such run.

        Raises:
            UnusualError: PostgreSQL did not answer.
        """
        found = self._database.experiment_of(run_id)
        return None if found is None else str(found)

    def get_run(self, run_id: str) -> Run:
        """Return a run, with its inputs and outputs."""
        try:
            found = self._database.run(_text(run_id))
            if found is not None:
                return rows.run(found, with_model_inputs=True)
        except UnusualError:
            pass
        return super().get_run(run_id)

    def get_metric_history(self, run_id: str, metric_key: str, max_results: int | None = None, page_token: str | None = None) -> PagedList[Metric]:
        """Return the points of a metric, by time, step and value."""
        try:
            points, token = self.find_points(run_id, metric_key, max_results, page_token)
        except UnusualError:
            return super().get_metric_history(run_id, metric_key, max_results, page_token)
        return PagedList(rows.metrics(metric_key, points), token)

    def find_points(self, run_id: str, metric_key: str, max_results: int | None, page_token: str | None) -> tuple[Points, Any]:
        """Return a page of a metric's points as rows, and the token of the next one.

        Raises:
            UnusualError: MLflow's own method has to answer.
        """
        _require(max_results is None or (type(max_results) is int and 0 <= max_results < LARGEST))
        offset = _offset(page_token)
        limit = None if max_results is None else max_results + 1
        points = self._database.history(_text(run_id), _text(metric_key), offset, limit)
        if max_results is None or len(points[0]) < max_results + 1:
            return points, None
        for column in points:
            column.pop()
        return points, SearchUtils.create_page_token(offset + max_results)

    def _search_runs(
        self,
        experiment_ids: list[str | int],
        filter_string: str | None,
        run_view_type: int,
        max_results: int | None,
        order_by: list[str] | None,
        page_token: str | None,
    ) -> tuple[list[Run], str | None]:
        """Return a page of runs, and the token of the next one."""
        try:
            found, token = self.find_runs(experiment_ids, filter_string, run_view_type, max_results, order_by, page_token)
            return [rows.run(row, with_model_inputs=False) for row in found], token
        except UnusualError:
            return super()._search_runs(experiment_ids, filter_string, run_view_type, max_results, order_by, page_token)

    def find_runs(
        self,
        experiment_ids: Sequence[str | int],
        filter_string: str | None,
        run_view_type: int,
        max_results: int | None,
        order_by: Sequence[str] | None,
        page_token: str | None,
    ) -> tuple[list[RunRow], Any]:
        """Return a page of a search as rows, and the token of the next one.

        Raises:
            UnusualError: MLflow's own method has to answer.
        """
        offset = _offset(page_token)
        try:
            self._validate_max_results_param(max_results, allow_null=True)  # type: ignore[arg-type]
            wanted = _parse_experiment_ids(list(experiment_ids))
            limit = None if max_results is None else max_results + 1
            statement, arguments = search.complete(search.read(self.engine.dialect, filter_string, order_by or (), run_view_type), wanted, offset, limit)
        # What is wrong with it MLflow says, within a session, which has words of its own for what isn't MLflow's.
        except Exception as error:
            raise UnusualError from error
        found, is_more = self._database.search(statement, arguments, max_results)
        if max_results is None or not is_more:
            return found, None
        return found, SearchUtils.create_page_token(offset + max_results)

    def _log(self, run_id: str, *, metrics: Iterable[Metric] = (), params: Iterable[Param] = (), tags: Sequence[RunTag] = ()) -> None:
        points = self._points(metrics)
        values = {_text(tag.key): _text(tag.value) for tag in tags}
        # A run's name is a tag and a column, and an empty one is none: MLflow then leaves both as they are.
        name = next((tag.value for tag in reversed(tags) if tag.key == MLFLOW_RUN_NAME and tag.value), None)
        values.pop(MLFLOW_RUN_NAME, None)
        if name is not None:
            values = {MLFLOW_RUN_NAME: name} | values
        pairs = [(_text(param.key), _text(param.value)) for param in params]
        _require(self._database.log(_text(run_id), points=points, params=pairs, tags=list(values.items()), name=name))

    def _points(self, metrics: Iterable[Metric]) -> list[Point]:
        """Return what is to be stored: the newest point of each key first, in the order in which the keys appear."""
        latest: dict[str, Point] = {}
        stored: dict[Point, None] = {}
        for metric in metrics:
            _require(metric.model_id is None and type(metric.timestamp) is type(metric.step) is int)
            _require(metric.timestamp <= LARGEST and abs(metric.step) <= LARGEST)
            _require(type(metric.value) is float or (type(metric.value) is int and abs(metric.value) <= LARGEST_WHOLE))
            is_nan, value = self.sanitize_metric_value(float(metric.value))
            point = Point(_text(metric.key), float(value), metric.timestamp, metric.step, is_nan, is_latest=False)
            if point in stored:
                continue
            stored[point] = None
            before = latest.get(point.key)
            # The first of equals stays, whether or not it is NaN, whose value is 0 here.
            if before is None or (point.step, point.timestamp, point.value) > (before.step, before.timestamp, before.value):
                latest[point.key] = point
        return [point._replace(is_latest=True) for point in latest.values()] + [point for point in stored if latest[point.key] is not point]

    def _create_run(self, experiment_id: str, user_id: str, start_time: int, tags: Sequence[RunTag], run_name: str | None) -> Run:
        number = _number(experiment_id)
        _require(type(start_time) is int and abs(start_time) <= LARGEST)
        location = self._locations.get(number) or self._artifact_location(number)
        pairs = [(_text(tag.key), _text(tag.value)) for tag in tags]
        name_tag = _get_run_name_from_tags(tags)
        _require(not run_name or not name_tag or run_name == name_tag)
        _require(name_tag or all(key != MLFLOW_RUN_NAME for key, _ in pairs))
        name = _text(run_name or name_tag or _generate_random_name())
        if not name_tag:
            pairs.append((MLFLOW_RUN_NAME, name))
        run_id = uuid.uuid4().hex
        uri = append_to_uri_path(location, run_id, SqlAlchemyStore.ARTIFACTS_FOLDER_NAME)
        if not self._database.create_run((number, location), (run_id, name, uri, _text(user_id), start_time), pairs):
            self._locations.pop(number, None)
            raise UnusualError
        info = RunInfo(run_id, experiment_id, user_id, "RUNNING", start_time, None, LifecycleStage.ACTIVE, uri, name)
        return Run(info, RunData(tags=[RunTag(key, value) for key, value in pairs]), RunInputs(dataset_inputs=[]))

    def _artifact_location(self, experiment_id: int) -> str:
        try:
            location = self._database.artifact_location(experiment_id)
        except UnavailableError as error:
            # Nothing was to be stored yet.
            raise UnusualError from error
        if not location:
            raise UnusualError
        self._locations[experiment_id] = location
        return location


def _require(condition: object) -> None:
    if not condition:
        raise UnusualError


def _text(value: Any) -> str:  # noqa: ANN401 - MLflow takes whatever its database takes
    if type(value) is not str:
        raise UnusualError
    return value


def _offset(page_token: str | None) -> int:
    try:
        offset = SearchUtils.parse_start_offset_from_page_token(page_token)
    # What is no token MLflow refuses within a session, which has words of its own for it.
    except (MlflowException, TypeError, ValueError, AttributeError) as error:
        raise UnusualError from error
    _require(type(offset) is int and 0 <= offset <= LARGEST)
    return int(offset)


def _number(experiment_id: Any) -> int:  # noqa: ANN401 - as above
    text = _text(experiment_id)
    _require(text.isascii() and text.isdigit() and str(int(text)) == text and int(text) <= LARGEST_ID)
    return int(text)
