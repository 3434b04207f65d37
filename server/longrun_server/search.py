"""Which runs a search finds: MLflow's filters and orders as PostgreSQL's text, read once.

A pipeline asks the same over and over, and reading an order by MLflow's grammar takes longer than finding the runs: what a filter and an order come to is
remembered. Experiments and page are put in at each call.
"""

# MLflow gives no types to most of what is called here.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from mlflow.entities.lifecycle_stage import LifecycleStage
from mlflow.store.tracking.dbmodels.models import SqlRun
from mlflow.store.tracking.sqlalchemy_store import _get_orderby_clauses, _get_sqlalchemy_filter_clauses
from mlflow.utils.search_utils import SearchUtils
from sqlalchemy import BigInteger, Dialect, Select, String, Subquery, bindparam, column, func, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import replacement_traverse

REMEMBERED = 256
# A longer filter is nobody's habit, and would take memory.
LONGEST = 4096
# As `longrun_server.sql.RunRow` begins.
RUN = (
    SqlRun.run_uuid,
    SqlRun.name,
    SqlRun.experiment_id,
    SqlRun.user_id,
    SqlRun.status,
    SqlRun.start_time,
    SqlRun.end_time,
    SqlRun.lifecycle_stage,
    SqlRun.artifact_uri,
)


def read(dialect: Dialect, filter_string: str | None, order_by: Sequence[str], view_type: int) -> SQLCompiler:
    """Return the statement of a search; it lacks where to search, and which page.

    Args:
        dialect: PostgreSQL's.
        filter_string: As MLflow's store takes it.
        order_by: As MLflow's store takes it.
        view_type: Which runs, as of `mlflow.entities.ViewType`.

    Raises:
        MlflowException: No such filter or order.
    """
    is_long = len(filter_string or "") + sum(map(len, order_by)) > LONGEST
    made: SQLCompiler = (_read.__wrapped__ if is_long else _read)(dialect, filter_string, tuple(order_by), view_type)
    return made


def complete(statement: SQLCompiler, experiment_ids: Sequence[int], offset: int, limit: int | None) -> tuple[str, dict[str, Any]]:
    """Return a statement for the driver, and its arguments; its rows begin with the columns of `longrun_server.sql.RunRow`."""
    state = statement.construct_expanded_state({"experiments": experiment_ids, "offset": offset, "limit": limit})
    # What SQLAlchemy does with a value before it hands it to the driver.
    processors = state.processors
    return state.statement, {name: processors[name](value) if name in processors else value for name, value in state.parameters.items()}


@lru_cache(REMEMBERED)
def _read(dialect: Dialect, filter_string: str | None, order_by: tuple[str, ...], view_type: int) -> SQLCompiler:
    # MLflow makes queries of it, and asks nothing.
    session = Session()
    columns, order, sorting_joins = _get_orderby_clauses(list(order_by), session)
    of_runs, joins, of_datasets = _get_sqlalchemy_filter_clauses(SearchUtils.parse_search_filter(filter_string), session, dialect.name)
    # Every run has a start, so whether it has one orders nothing, and keeps PostgreSQL from using the index that begins with it.
    needless = {flag.name for flag, value in zip(columns[::2], columns[1::2], strict=True) if value is SqlRun.start_time}
    again = {join: found for join in sorting_joins if (found := _narrower(join, joins)) is not None}
    sorted_by = {column: found.c[column.key] for join, found in again.items() for column in join.c}
    columns, order = ([_replaced(clause, sorted_by) for clause in clauses] for clauses in (columns, order))
    flags = {flag.name: flag for flag in columns[::2]}
    # What is joined is sorted by itself, and the runs of the page are looked up afterwards: else all that are found would be carried along whole. A run may
    # have two inputs that fit, which makes two rows of it; no other join does.
    is_bare = bool((joins or sorting_joins) and not of_datasets)
    statement = select(SqlRun.run_uuid) if is_bare else select(*RUN, *columns)
    for join in joins:
        statement = statement.join(join, SqlRun.run_uuid == join.c.run_uuid)
    for join in of_datasets:
        statement = statement.join(join, SqlRun.run_uuid == join.c.destination_id)
    for join in sorting_joins:
        if join in again:
            continue
        statement = statement.outerjoin(join, SqlRun.run_uuid == join.c.run_uuid)
    stages = sorted(LifecycleStage.view_type_to_stages(view_type))
    statement = (
        statement.where(SqlRun.experiment_id.in_(bindparam("experiments", expanding=True)), SqlRun.lifecycle_stage.in_(stages), *of_runs)
        .order_by(*(flags[clause] if isinstance(clause, str) else clause for clause in order if not isinstance(clause, str) or clause not in needless))
        .offset(bindparam("offset", type_=BigInteger))
        .limit(bindparam("limit", type_=BigInteger))
    )
    if of_datasets:
        statement = statement.distinct()
    if is_bare:
        ids = func.unnest(func.array(statement.scalar_subquery()))
        page = ids.table_valued(column("run_uuid", String), with_ordinality="place").render_derived()
        statement = select(*RUN).join_from(page, SqlRun, SqlRun.run_uuid == page.c.run_uuid).order_by(page.c.place)
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 - for its type
    return compiled


def _narrower(join: Subquery, filters: Sequence[Subquery]) -> Subquery | None:
    """Return the filter, if any, that finds of a metric's, param's or tag's rows only some: a run that it found can be sorted by the row that it found.

    Looking the row up again takes as long as the filter.
    """
    of_key = cast("Select[Any]", join.element).whereclause
    if of_key is None:
        return None
    for narrower in filters:
        conditions = cast("Select[Any]", narrower.element).whereclause
        if any(condition.compare(of_key) for condition in getattr(conditions, "clauses", ())):
            return narrower
    return None


def _replaced(clause: Any, by: Mapping[Any, Any]) -> Any:  # noqa: ANN401 - a part of SQLAlchemy's, or the name of one
    return clause if isinstance(clause, str) else replacement_traverse(clause, {}, lambda element, **_: by.get(element))
