"""`python -m longrun_server.indexes`: what MLflow's own indexes lack, built while the server works.

Without it, a search by time reads and sorts all runs of all experiments. MLflow's migrations leave these indexes alone, and a second run changes nothing.
An index whose definition changes gets another name, and its old one goes to `OUTDATED`.
"""

import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import psycopg2
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

URI = "MLFLOW_BACKEND_STORE_URI"
# Of all who share the database only one may build at a time. The number is ours alone.
LOCK = 7_305_806_016
WAIT_SECONDS = 3600.0
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Index:
    """An index: its name, its table, and what PostgreSQL is told after `ON`."""

    name: str
    table: str
    definition: str


INDEXES = (
    # The newest runs of an experiment without a look at the others; the stage is in it, so that deleted runs are passed over within the index.
    Index("longrun_runs_by_start_1", "runs", "runs (experiment_id, start_time DESC, run_uuid) INCLUDE (lifecycle_stage)"),
)
OUTDATED: tuple[str, ...] = ()


class ProblemError(Exception):
    """What a person can do something about, in one line."""


def apply(uri: str) -> list[str]:
    """Build the indexes that are missing or broken and remove the outdated ones; return a line for each change.

    Args:
        uri: The database as MLflow is told.

    Raises:
        ProblemError: No such database, no tables of MLflow's in it, no right to change them, or somebody else builds for an hour.
    """
    try:
        connection = psycopg2.connect(**_arguments(uri))
    except psycopg2.OperationalError as error:
        raise ProblemError(_line(error)) from None
    try:
        # An index that is built while others write can't be part of a transaction.
        connection.autocommit = True
        with connection.cursor() as cursor:
            return _apply(cursor)
    except psycopg2.Error as error:
        raise ProblemError(_line(error)) from None
    finally:
        connection.close()


def _arguments(uri: str) -> dict[str, Any]:
    """Return what the driver needs to know of a URI, which only SQLAlchemy can read."""
    try:
        url = make_url(uri)
    except ArgumentError:
        message = f"{URI} is no database URI: write postgresql+psycopg2://user@/database?host=/run/postgresql"
        raise ProblemError(message) from None
    if url.get_backend_name() != "postgresql":
        message = f"{URI} names {url.get_backend_name()}: these indexes are for PostgreSQL only"
        raise ProblemError(message)
    arguments = {"host": url.host, "port": url.port, "user": url.username, "password": url.password, "dbname": url.database, **url.query}
    return {name: value for name, value in arguments.items() if value is not None}


def _apply(cursor: Any) -> list[str]:  # noqa: ANN401 - the driver's
    missing = [index.table for index in INDEXES if _one(cursor, "SELECT to_regclass(%s) IS NULL", index.table)]
    if missing:
        message = f"the database has no table {missing[0]}: let MLflow make its tables first (mlflow db upgrade)"
        raise ProblemError(message)
    # A session that waits for the lock inside PostgreSQL would be one that the build waits for.
    deadline = time.monotonic() + WAIT_SECONDS
    while not _one(cursor, "SELECT pg_try_advisory_lock(%s)", LOCK):
        if time.monotonic() > deadline:
            message = f"somebody else has been building indexes for {WAIT_SECONDS / 60:.0f} minutes: look at pg_stat_progress_create_index"
            raise ProblemError(message)
        time.sleep(POLL_SECONDS)
    changes = []
    for name in OUTDATED:
        if _one(cursor, "SELECT to_regclass(%s) IS NOT NULL", name):
            cursor.execute(f"DROP INDEX CONCURRENTLY {name}")
            changes.append(f"{name}: removed, it is outdated")
    for index in INDEXES:
        valid = _one(cursor, "SELECT (SELECT indisvalid AND indisready FROM pg_index WHERE indexrelid = to_regclass(%s))", index.name)
        if valid:
            continue
        if valid is not None:
            cursor.execute(f"DROP INDEX CONCURRENTLY {index.name}")
            changes.append(f"{index.name}: removed, its build had been interrupted")
        cursor.execute(f"CREATE INDEX CONCURRENTLY {index.name} ON {index.definition}")
        changes.append(f"{index.name}: built")
    return changes


def _one(cursor: Any, query: str, *arguments: object) -> Any:  # noqa: ANN401 - the driver's
    cursor.execute(query, arguments)
    return cursor.fetchone()[0]


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def main() -> int:
    """Build the indexes of the database that the environment names; say what was done, or in one line why not."""
    uri = os.environ.get(URI)
    if not uri:
        sys.stderr.write(f"longrun_server.indexes: {URI} is not set: it names the database, as for mlflow server\n")
        return 1
    try:
        changes = apply(uri)
    except ProblemError as error:
        sys.stderr.write(f"longrun_server.indexes: {error}\n")
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in changes or ["nothing to do"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
