"""What the fast paths ask of PostgreSQL: a prepared statement a call, which is a transaction of its own.

The tables are MLflow's. Every statement reads and writes what MLflow's own store would, in the order in which MLflow would, so that answers without an
order of their own come in the same one.
"""

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import psycopg2
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import PoolProxiedConnection

# Where a connection remembers what has been prepared on it; a new connection in its place forgets it.
PREPARED = "longrun_prepared"


class UnusualError(Exception):
    """MLflow's own store has to answer: the call is out of the ordinary, or PostgreSQL did not take it."""


class UnavailableError(UnusualError):
    """The connection broke, or PostgreSQL could not go on: nobody knows whether the statement was carried out."""


@dataclass(frozen=True)
class Statement:
    """A statement to prepare: its name, the types of its arguments, its text with $1, $2, ... for them."""

    name: str
    types: str
    text: str


class Point(NamedTuple):
    """A row of `metrics` without its run, `value` as it is stored; `is_latest` if it is the newest of its key in this call."""

    key: str
    value: float
    timestamp: int
    step: int
    is_nan: bool
    is_latest: bool


class RunRow(NamedTuple):
    """A row of `runs` with everything that hangs on it.

    Attributes:
        metrics: Key, value, timestamp and step, the last three as PostgreSQL writes them.
        datasets: For each tag of each input: the dataset's id, name, digest, type of source, source, schema and profile; key and value of the tag, or None.
        models: Which kind of end of the edge it is, id, step.
    """

    run_id: str
    name: str | None
    experiment_id: int
    user_id: str
    status: str
    start_time: int
    end_time: int | None
    lifecycle_stage: str
    artifact_uri: str
    metrics: list[tuple[str, str, str, str]]
    params: dict[str, str]
    tags: dict[str, str]
    datasets: list[Sequence[Any]]
    models: list[Sequence[Any]]


# Values, timestamps and steps of a metric's points, as PostgreSQL writes them.
Points = tuple[list[str], list[str], list[str]]


EXPERIMENT = Statement("longrun_experiment", "integer", "SELECT artifact_location FROM experiments WHERE experiment_id = $1 AND lifecycle_stage = 'active'")

# Nothing is stored if the experiment was deleted or its artifacts were moved meanwhile.
CREATE = Statement(
    "longrun_create",
    "integer, text, text, text, text, text, bigint, text[], text[]",
    """
    WITH run AS (
        INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, source_version, lifecycle_stage,
                          artifact_uri, experiment_id)
        SELECT $3, $4, 'UNKNOWN', '', '', $6, 'RUNNING', $7, '', 'active', $5, experiment_id
        FROM experiments WHERE experiment_id = $1 AND lifecycle_stage = 'active' AND artifact_location = $2
        RETURNING run_uuid
    ), tagged AS (
        INSERT INTO tags (run_uuid, key, value) SELECT run.run_uuid, tag.key, tag.value FROM run, unnest($8, $9) AS tag (key, value)
    )
    SELECT 1 FROM run
    """,
)

EXPERIMENT_OF_RUN = Statement("longrun_experiment_of_run", "text", "SELECT experiment_id FROM runs WHERE run_uuid = $1")

RUN = Statement(
    "longrun_run",
    "text",
    """
    SELECT run_uuid, name, experiment_id, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri,
        (SELECT json_agg(json_build_array(key, value, timestamp, step, is_nan))::text FROM latest_metrics WHERE run_uuid = $1),
        (SELECT json_object_agg(key, value)::text FROM params WHERE run_uuid = $1),
        (SELECT json_object_agg(key, value)::text FROM tags WHERE run_uuid = $1),
        (SELECT json_agg(json_build_array(d.dataset_uuid, d.name, d.digest, d.dataset_source_type, d.dataset_source, d.dataset_schema, d.dataset_profile,
                                          t.name, t.value))::text
         FROM inputs AS i JOIN datasets AS d ON d.dataset_uuid = i.source_id LEFT JOIN input_tags AS t ON t.input_uuid = i.input_uuid
         WHERE i.destination_type = 'RUN' AND i.destination_id = $1),
        (SELECT json_agg(json_build_array(destination_type, destination_id, step))::text FROM inputs
         WHERE source_id = $1
           AND (source_type = 'RUN_INPUT' AND destination_type = 'MODEL_INPUT' OR source_type = 'RUN_OUTPUT' AND destination_type = 'MODEL_OUTPUT'))
    FROM runs WHERE run_uuid = $1
    """,
)

# What hangs on some runs: a row for each table, with its columns as texts, the values joined by a character that they hardly ever have within them. A row for
# each param would take five times as long to send and to read. Columns: which table, how many rows, how many without NULL, then runs, keys, values and the
# other columns of the table.
CONTENTS = Statement(
    "longrun_contents",
    "text[], text",
    """
    SELECT 'metrics', count(*), count(timestamp), string_agg(run_uuid, $2), string_agg(key, $2),
        string_agg(CASE WHEN is_nan THEN 'NaN' ELSE value::text END, $2), string_agg(timestamp::text, $2), string_agg(step::text, $2)
    FROM latest_metrics WHERE run_uuid = ANY ($1)
    UNION ALL
    SELECT 'params', count(*), count(value), string_agg(run_uuid, $2), string_agg(key, $2), string_agg(value, $2), NULL, NULL
    FROM params WHERE run_uuid = ANY ($1)
    UNION ALL
    SELECT 'tags', count(*), count(value), string_agg(run_uuid, $2), string_agg(key, $2), string_agg(value, $2), NULL, NULL
    FROM tags WHERE run_uuid = ANY ($1)
    UNION ALL
    SELECT 'datasets', count(*), count(*), string_agg(i.destination_id, $2),
        string_agg(json_build_array(d.dataset_uuid, d.name, d.digest, d.dataset_source_type, d.dataset_source, d.dataset_schema, d.dataset_profile,
                                    t.name, t.value)::text, $2), NULL, NULL, NULL
    FROM inputs AS i JOIN datasets AS d ON d.dataset_uuid = i.source_id LEFT JOIN input_tags AS t ON t.input_uuid = i.input_uuid
    WHERE i.destination_type = 'RUN' AND i.destination_id = ANY ($1)
    UNION ALL
    SELECT 'models', count(*), count(*), string_agg(source_id, $2), string_agg(json_build_array(destination_type, destination_id, step)::text, $2),
        NULL, NULL, NULL
    FROM inputs WHERE source_type = 'RUN_OUTPUT' AND destination_type = 'MODEL_OUTPUT' AND source_id = ANY ($1)
    """,
)
SEPARATOR = "\x1f"
# So many runs at once: the texts stay short, and PostgreSQL reads a table in the order in which it lies there, by itself.
CHUNK = 200

# The sum keeps the planner from walking the primary key, which begins with the key and the time, through the points of all other runs.
HISTORY = Statement(
    "longrun_history",
    "text, text, bigint, bigint",
    """
    SELECT count(*), string_agg(CASE WHEN is_nan THEN 'NaN' ELSE value::text END, ','), string_agg(timestamp::text, ','), string_agg(step::text, ',')
    FROM (SELECT value, timestamp, step, is_nan FROM metrics WHERE run_uuid = $1 AND key = $2
          ORDER BY timestamp + 0, step, value OFFSET $3 LIMIT $4) AS point
    """,
)


@functools.cache
def log_statement(*, metrics: bool, params: bool, tags: bool, name: bool) -> Statement:
    """Return the statement that logs to an active run what is asked for; it returns a row if it did.

    It locks the run first, so that two calls for one run wait for each other: rows come in the order given, and no two such calls can block one another.
    Arguments: the run's id; keys and values of `params`; keys, values, timestamps, steps, is_nan and is_latest of `metrics`; keys and values of `tags`;
    the run's new name.
    """
    types = ["text"]

    def arguments(*wanted: str) -> str:
        types.extend(wanted)
        return ", ".join(f"${number}" for number in range(len(types) - len(wanted) + 1, len(types) + 1))

    ctes = ["run AS MATERIALIZED (SELECT run_uuid, lifecycle_stage FROM runs WHERE run_uuid = $1 FOR NO KEY UPDATE)"]
    condition = "lifecycle_stage = 'active'"
    if params:
        given = f"unnest({arguments('text[]', 'text[]')}) WITH ORDINALITY AS given (key, value, number)"
        # Looked up once for the run, which mostly has none yet, and not once for each key.
        ctes.append("there AS MATERIALIZED (SELECT key, value FROM params WHERE run_uuid = $1)")
        ctes.append(f"changed AS (SELECT 1 FROM there JOIN {given} USING (key) WHERE there.value <> given.value)")  # noqa: S608
        condition += " AND NOT EXISTS (SELECT 1 FROM changed)"
    ctes.append(f"target AS MATERIALIZED (SELECT run_uuid FROM run WHERE {condition})")  # noqa: S608 - here and below: the text is this function's own
    if params:
        # No ON CONFLICT: where another call stored the same key just now, PostgreSQL refuses, and MLflow looks at both values.
        ctes.append(
            f"new_params AS (INSERT INTO params (run_uuid, key, value) SELECT target.run_uuid, given.key, given.value FROM target, {given} "  # noqa: S608
            "WHERE NOT EXISTS (SELECT 1 FROM there WHERE there.key = given.key) ORDER BY given.number)"
        )
    if metrics:
        given = (
            f"unnest({arguments('text[]', 'double precision[]', 'bigint[]', 'bigint[]', 'boolean[]', 'boolean[]')}) "
            "AS given (key, value, timestamp, step, is_nan, is_latest)"
        )
        columns = "run_uuid, key, value, timestamp, step, is_nan"
        rows = f"SELECT target.run_uuid, given.key, given.value, given.timestamp, given.step, given.is_nan FROM target, {given}"  # noqa: S608
        ctes += [
            f"new_metrics AS (INSERT INTO metrics ({columns}) {rows} ON CONFLICT DO NOTHING)",
            (
                f"new_latest AS (INSERT INTO latest_metrics AS latest ({columns}) {rows} WHERE given.is_latest ON CONFLICT (key, run_uuid) DO UPDATE "
                "SET value = excluded.value, timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan "
                "WHERE (excluded.step, excluded.timestamp, excluded.value) > (latest.step, latest.timestamp, latest.value))"
            ),
        ]
    if tags:
        ctes.append(
            f"new_tags AS (INSERT INTO tags (run_uuid, key, value) SELECT target.run_uuid, given.key, given.value FROM target, "  # noqa: S608
            f"unnest({arguments('text[]', 'text[]')}) AS given (key, value) "
            "ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value WHERE tags.value IS DISTINCT FROM excluded.value)"
        )
    if name:
        new = arguments("text")
        ctes.append(f"renamed AS (UPDATE runs SET name = {new} FROM target WHERE runs.run_uuid = target.run_uuid AND runs.name IS DISTINCT FROM {new})")  # noqa: S608
    parts = [part for part, wanted in {"metrics": metrics, "params": params, "tags": tags, "name": name}.items() if wanted]
    return Statement("_".join(["longrun_log", *parts]), ", ".join(types), f"WITH {', '.join(ctes)} SELECT 1 FROM target")  # noqa: S608


class Database:
    """PostgreSQL, through the pool of MLflow's engine.

    Every method raises `UnusualError` where PostgreSQL refuses; nothing is stored then, but where it is an `UnavailableError`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def artifact_location(self, experiment_id: int) -> str | None:
        """Return where an active experiment keeps its artifacts, None where there is no such experiment."""
        with self._connection() as connection:
            rows = _execute(connection, EXPERIMENT, [experiment_id])
        return rows[0][0] if rows else None

    def experiment_of(self, run_id: str) -> int | None:
        """Return the id of a run's experiment, None where there is no such run."""
        with self._connection() as connection:
            rows = _execute(connection, EXPERIMENT_OF_RUN, [run_id])
        return rows[0][0] if rows else None

    def create_run(self, experiment: tuple[int, str], run: tuple[str, str, str, str, int], tags: Sequence[tuple[str, str]]) -> bool:
        """Store a new run, and return whether it was stored: only if the experiment is active and still keeps its artifacts there.

        Args:
            experiment: Its id, and where it keeps its artifacts.
            run: Id, name, artifact URI, user, start in milliseconds since 1970.
            tags: Keys and values, no key twice.
        """
        with self._connection() as connection:
            return bool(_execute(connection, CREATE, [*experiment, *run, _texts(key for key, _ in tags), _texts(value for _, value in tags)]))

    def log(
        self,
        run_id: str,
        *,
        points: Sequence[Point] = (),
        params: Sequence[tuple[str, str]] = (),
        tags: Sequence[tuple[str, str]] = (),
        name: str | None = None,
    ) -> bool:
        """Store all of it or nothing, and return whether it was stored: only if the run is active, and no param is there with another value.

        Args:
            run_id: The run's.
            points: No two of them alike but for `is_latest`, which one of each key has.
            params: Keys and values, no key twice.
            tags: Keys and values, no key twice.
            name: The run's new name.
        """
        statement = log_statement(metrics=bool(points), params=bool(params), tags=bool(tags), name=name is not None)
        arguments: list[Any] = [run_id]
        if params:
            arguments += [_texts(key for key, _ in params), _texts(value for _, value in params)]
        if points:
            keys, values, timestamps, steps, is_nan, is_latest = zip(*points, strict=True)
            arguments += [_texts(keys), _plain(values), _plain(timestamps), _plain(steps), _plain(is_nan), _plain(is_latest)]
        if tags:
            arguments += [_texts(key for key, _ in tags), _texts(value for _, value in tags)]
        if name is not None:
            arguments.append(name)
        with self._connection() as connection:
            return bool(_execute(connection, statement, arguments))

    def history(self, run_id: str, key: str, offset: int, limit: int | None) -> Points:
        """Return the points of a metric, by timestamp, step and value."""
        with self._connection() as connection:
            ((number, *columns),) = _execute(connection, HISTORY, [run_id, key, offset, limit])
        if not number:
            return [], [], []
        values, timestamps, steps = (column.split(",") for column in columns)
        return values, timestamps, steps

    def run(self, run_id: str) -> RunRow | None:
        """Return a run, None where there is none."""
        with self._connection() as connection:
            rows = _execute(connection, RUN, [run_id])
        if not rows:
            return None
        # The columns from the tenth on are JSON.
        metrics, *columns = rows[0][9:]
        params, tags, datasets, models = (column and json.loads(column) for column in columns)
        points = [
            (key, "NaN" if is_nan else value, timestamp, step)
            for key, value, timestamp, step, is_nan in (metrics and json.loads(metrics, parse_float=str, parse_int=str)) or ()
        ]
        if any(timestamp is None for _, _, timestamp, _ in points):
            raise UnusualError
        return _row(rows[0], points, params or {}, tags or {}, datasets or [], models or [])

    def search(self, statement: str, arguments: Mapping[str, Any], limit: int | None) -> tuple[list[RunRow], bool]:
        """Return the runs that a statement finds, and whether there are more than the limit; of their models only outputs.

        Args:
            statement: For the driver. Its rows begin with the columns of `RunRow`.
            arguments: The statement's.
            limit: So many runs at most.
        """
        with self._connection() as connection:
            with _refusals(), closing(connection.cursor()) as cursor:
                cast("Any", cursor).execute(statement, arguments)
                found = [_row(row, [], {}, {}, [], []) for row in cursor.fetchall()]
            is_more = limit is not None and len(found) > limit
            del found[limit:]
            for begin in range(0, len(found), CHUNK):
                _fill(connection, {row.run_id: row for row in found[begin : begin + CHUNK]})
        return found, is_more

    @contextmanager
    def _connection(self) -> Iterator[PoolProxiedConnection]:
        """Lend a connection on which every statement is a transaction."""
        try:
            connection = self._engine.raw_connection()
        except SQLAlchemyError as error:
            raise UnusualError from error
        try:
            driver: Any = connection.dbapi_connection
            driver.autocommit = True
            try:
                yield connection
            finally:
                if driver.closed:
                    connection.invalidate()
                else:
                    driver.autocommit = False
        finally:
            connection.close()


def _execute(connection: PoolProxiedConnection, statement: Statement, arguments: Sequence[Any]) -> list[tuple[Any, ...]]:
    prepared = connection.info.setdefault(PREPARED, set())
    # SQLAlchemy does not know what its drivers' cursors can do.
    with _refusals(), cast("Any", connection.cursor()) as cursor:
        if statement.name not in prepared:
            cursor.execute(f"PREPARE {statement.name} ({statement.types}) AS {statement.text}")
            prepared.add(statement.name)
        cursor.execute(f"EXECUTE {statement.name} ({', '.join(['%s'] * len(arguments))})", arguments)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except psycopg2.OperationalError as error:
        raise UnavailableError(error) from error
    # A value error: text that PostgreSQL can't hold, as with a zero byte in it.
    except (psycopg2.Error, ValueError) as error:
        raise UnusualError from error


def _row(columns: Sequence[Any], *contents: Any) -> RunRow:  # noqa: ANN401 - as `RunRow` has them
    """Return a run.

    Raises:
        UnusualError: It lacks what MLflow gives to each.
    """
    if columns[3] is None or columns[4] is None or columns[5] is None:
        raise UnusualError
    return RunRow._make((*columns[:9], *contents))


def _fill(connection: PoolProxiedConnection, runs: Mapping[str, RunRow]) -> None:
    """Put into the rows of some runs what hangs on them."""
    for table, number, complete, *texts in _execute(connection, CONTENTS, [_texts(runs), SEPARATOR]):
        if not number:
            continue
        run_ids, keys, *others = columns = [text.split(SEPARATOR) for text in texts if text is not None]
        # A value with the separator in it is two; one that is NULL is none.
        if complete != number or any(len(column) != number for column in columns):
            raise UnusualError
        into = {run_id: getattr(row, table) for run_id, row in runs.items()}
        if table == "metrics":
            values, timestamps, steps = others
            for run_id, point in zip(run_ids, zip(keys, values, timestamps, steps, strict=True), strict=True):
                into[run_id].append(point)
        elif others:
            for run_id, key, value in zip(run_ids, keys, others[0], strict=True):
                into[run_id][key] = value
        else:
            for run_id, edge in zip(run_ids, keys, strict=True):
                into[run_id].append(json.loads(edge))


def _plain(values: Iterable[float | bool]) -> str:
    """Return numbers or truth values as a PostgreSQL array; a number's text is the shortest that reads as the same number."""
    return f"{{{','.join(map(repr, values))}}}"


def _texts(values: Iterable[str]) -> str:
    """Return texts as a PostgreSQL array."""
    quoted = ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    return f"{{{','.join(quoted)}}}"
