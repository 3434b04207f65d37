"""The program that builds our indexes, on a database of its own."""

# MLflow gives no types to most of what is called here.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import subprocess
import sys
from typing import Any

import psycopg2
import pytest
from longrun_server import indexes
from longrun_server.indexes import INDEXES, ProblemError, apply
from longrun_server.sqlstore import SqlStore
from mlflow.entities import ViewType

from tests.unit.server.conftest import Cluster

INDEX = INDEXES[0]
NAMES = [index.name for index in INDEXES]
PROGRAM = [sys.executable, "-m", "longrun_server.indexes"]
PATH = {"PYTHONPATH": ":".join(sys.path)}


@pytest.fixture(scope="module")
def made(cluster: Cluster) -> str:
    """A database with MLflow's tables; making one takes longer than a test."""
    return cluster.database()


@pytest.fixture
def database(cluster: Cluster, made: str) -> str:
    """The same without our indexes, and with empty tables."""
    for name, _ in there(cluster, made):
        cluster.execute(f"DROP INDEX {name}", made)
    cluster.execute("TRUNCATE runs CASCADE", made)
    return made


def there(cluster: Cluster, database: str) -> list[tuple[Any, ...]]:
    """Return our indexes, and whether each is valid."""
    query = "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid WHERE relname LIKE 'longrun%' ORDER BY relname"
    return cluster.execute(query, database)


def test_built_once(cluster: Cluster, database: str) -> None:
    """A second run changes nothing."""
    assert apply(cluster.uri(database)) == [f"{name}: built" for name in NAMES]
    assert there(cluster, database) == [(name, True) for name in sorted(NAMES)]
    assert apply(cluster.uri(database)) == []


def test_a_broken_build_is_done_again(cluster: Cluster, database: str) -> None:
    """An interrupted build leaves an index behind that costs and helps nobody, and whose name is taken."""
    cluster.execute("INSERT INTO runs (run_uuid, name) VALUES ('a', 'twice'), ('b', 'twice')", database)
    with pytest.raises(psycopg2.errors.UniqueViolation):
        cluster.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {INDEX.name} ON runs (name)", database)
    assert there(cluster, database) == [(INDEX.name, False)]
    assert apply(cluster.uri(database))[:2] == [f"{INDEX.name}: removed, its build had been interrupted", f"{INDEX.name}: built"]
    assert there(cluster, database) == [(name, True) for name in sorted(NAMES)]


def test_an_outdated_one_goes(cluster: Cluster, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed definition has another name."""
    cluster.execute("CREATE INDEX longrun_old ON runs (name)", database)
    monkeypatch.setattr(indexes, "OUTDATED", ("longrun_old", "longrun_older"))
    assert apply(cluster.uri(database)) == ["longrun_old: removed, it is outdated", *(f"{name}: built" for name in NAMES)]
    assert apply(cluster.uri(database)) == []


def test_a_second_builder_waits(cluster: Cluster, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts may be deployed at once."""
    monkeypatch.setattr(indexes, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(indexes, "POLL_SECONDS", 0.0)
    other = psycopg2.connect(host=str(cluster.directory), user="mlflow", dbname=database)
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (indexes.LOCK,))
    with pytest.raises(ProblemError, match="pg_stat_progress_create_index"):
        apply(cluster.uri(database))
    other.close()
    monkeypatch.setattr(indexes, "WAIT_SECONDS", 60.0)
    assert apply(cluster.uri(database))


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (None, "MLFLOW_BACKEND_STORE_URI is not set"),
        ("nothing", "MLFLOW_BACKEND_STORE_URI is no database URI"),
        ("sqlite:///x.db", "names sqlite"),
        ("postgresql://mlflow@/mlflow?host=/nowhere", "/nowhere"),
        ("{cluster}postgres", "no table runs: let MLflow make its tables first"),
    ],
)
def test_a_problem_is_one_line(cluster: Cluster, uri: str | None, said: str) -> None:
    """Run as the role runs it; a traceback is a bug."""
    environment = {} if uri is None else {indexes.URI: cluster.uri("postgres") if uri == "{cluster}postgres" else uri}
    done = subprocess.run(PROGRAM, capture_output=True, text=True, check=False, env=environment | PATH)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("longrun_server.indexes: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_it_says_what_it_did(cluster: Cluster, database: str) -> None:
    """For the role, which reports a change by it."""
    environment = {indexes.URI: cluster.uri(database)} | PATH
    said = [subprocess.run(PROGRAM, capture_output=True, text=True, check=True, env=environment) for _ in range(2)]
    assert [done.stdout.splitlines() for done in said] == [[f"{name}: built" for name in NAMES], ["nothing to do"]]


def test_searches_by_time_use_it(cluster: Cluster, database: str) -> None:
    """MLflow's default order, and the one that its pages ask for: no row is read that is not shown."""
    store = SqlStore(cluster.uri(database), "s3://mlflow")
    apply(cluster.uri(database))
    cluster.execute(
        """
        INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) VALUES (7, 'many', 's3://mlflow/7', 'active');
        INSERT INTO runs (run_uuid, name, source_type, user_id, status, start_time, lifecycle_stage, artifact_uri, experiment_id)
        SELECT md5(n::text), 'run', 'UNKNOWN', 'ann', 'FINISHED', 1700000000000 + n, CASE WHEN n % 10 = 0 THEN 'deleted' ELSE 'active' END, 's3://mlflow', 7
        FROM generate_series(1, 20000) AS n;
        ANALYZE runs
        """,
        database,
    )
    for order_by in (None, ["attributes.start_time DESC"], ["start_time ASC"]):
        cluster.execute("SELECT pg_stat_reset()", database)
        assert len(store.search_runs(["7"], "", ViewType.ACTIVE_ONLY, 100, order_by)) == 100
        used = f"SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = '{INDEX.name}'"  # noqa: S608
        store.engine.dispose()
        deadline = 200
        while (read := cluster.execute(used, database)[0][0]) == 0 and deadline:
            deadline -= 1
        assert 100 < read < 300
