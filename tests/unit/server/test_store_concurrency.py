"""Several writers at once, and a database that goes away: nothing is lost, nothing is there twice, nobody waits for ever."""

# MLflow gives no types to most of what is called here.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from longrun_server.sqlstore import SqlStore
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from tests.unit.server.conftest import START, Cluster, Pair

ROUNDS = 15
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def store(pair: Pair) -> SqlStore:
    """Ours."""
    return pair.ours


@pytest.fixture
def run(store: SqlStore) -> str:
    """A run for a test."""
    return str(store.create_run("0", "ann", START, [], "n").info.run_id)


def at_once(*calls: Callable[[], Any]) -> None:
    """Make the calls in a thread each, all of them at the same moment, and raise what they raise."""
    barrier = threading.Barrier(len(calls))

    def call(each: Callable[[], Any]) -> None:
        barrier.wait(WAIT_SECONDS)
        each()

    with ThreadPoolExecutor(len(calls)) as pool:
        for done in [pool.submit(call, each) for each in calls]:
            done.result(WAIT_SECONDS)


def rows(store: SqlStore, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with store.engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query, arguments)]


@pytest.fixture
def only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's own method, which comes after a refusal, would hide a deadlock of ours."""

    def refuse(*_arguments: object) -> None:
        message = "MLflow's own method was asked"
        raise AssertionError(message)

    for name in ("log_batch", "log_metric", "set_tag"):
        monkeypatch.setattr(SqlAlchemyStore, name, refuse)


@pytest.mark.usefixtures("only_ours")
def test_the_latest_is_the_latest(store: SqlStore, run: str) -> None:
    """By step, then time, then value, whoever comes last."""
    latest = [Metric("step", 1.0, START, 9), Metric("time", 1.0, START + 9, 5), Metric("value", 9.0, START, 5)]
    for number in range(ROUNDS):
        name = f"{number}/"
        before = [Metric(name + "step", 8.0, START + 99, 8), Metric(name + "time", 8.0, START + 8, 5), Metric(name + "value", 8.0, START, 5)]
        after = [Metric(name + each.key, each.value, each.timestamp, each.step) for each in latest]
        at_once(lambda: store.log_batch(run, before, [], []), lambda: store.log_batch(run, after, [], []))  # noqa: B023 - called at once
    found = rows(store, "SELECT key, value, timestamp, step FROM latest_metrics WHERE run_uuid = %s ORDER BY key", run)
    assert sorted(found) == sorted((f"{number}/{each.key}", each.value, each.timestamp, each.step) for number in range(ROUNDS) for each in latest)
    assert rows(store, "SELECT count(*) FROM metrics WHERE run_uuid = %s", run) == [(ROUNDS * 6,)]


@pytest.mark.usefixtures("only_ours")
def test_opposite_orders(store: SqlStore, run: str) -> None:
    """Two that lock the same rows the other way round would wait for each other."""
    keys = [f"k{number}" for number in range(60)]
    for number in range(ROUNDS):
        points = [Metric(key, number, START, number) for key in keys]
        tags = [RunTag(key, str(number)) for key in keys]
        at_once(
            lambda: store.log_batch(run, points, [], tags),  # noqa: B023 - called at once
            lambda: store.log_batch(run, points[::-1], [], tags[::-1]),  # noqa: B023
            lambda: store.log_metric(run, points[0]),  # noqa: B023
            lambda: store.set_tag(run, tags[-1]),  # noqa: B023
        )
    assert rows(store, "SELECT count(*) FROM metrics WHERE run_uuid = %s", run) == [(ROUNDS * len(keys),)]
    found = store.get_run(run).data
    assert set(found.metrics.values()) == {ROUNDS - 1.0}
    assert {found.tags[key] for key in keys} == {str(ROUNDS - 1)}


def test_one_param_at_once(store: SqlStore, run: str) -> None:
    """The first value stays; who wanted another is told, and nothing else of that batch is stored."""
    refused: list[str] = []

    def log(value: str) -> None:
        try:
            store.log_batch(run, [], [Param(f"p{number}", value), Param(f"{number}/{value}", "x")], [])
        except MlflowException as error:
            assert error.error_code == "INVALID_PARAMETER_VALUE"  # noqa: PT017 - one of two fails
            refused.append(value)

    for number in range(ROUNDS):  # noqa: B007 - `log` reads it
        at_once(lambda: log("a"), lambda: log("b"))
    assert len(refused) == ROUNDS
    params = store.get_run(run).data.params
    assert len(params) == 2 * ROUNDS
    assert all(params[f"p{number}"] != refused[number] for number in range(ROUNDS))


def test_deleted_meanwhile(store: SqlStore, run: str) -> None:
    """A batch that waits for a run's lock sees what became of it."""
    with store.engine.connect() as connection:
        connection.exec_driver_sql("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = %s", (run,))
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(store.log_batch, run, [Metric("m", 1.0, START, 0)], [], [])
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            while rows(store, waiting) == [(0,)]:
                assert not done.done()
            connection.commit()
            with pytest.raises(MlflowException, match="must be in the 'active' state"):
                done.result(WAIT_SECONDS)
    assert rows(store, "SELECT * FROM metrics WHERE run_uuid = %s", run) == []


@contextmanager
def cut(cluster: Cluster, table: str, store: SqlStore) -> Iterator[None]:
    """End the sessions of the store's database while they wait for a table that is locked here."""
    database = str(store.engine.url.database)
    with store.engine.connect() as connection:
        connection.exec_driver_sql(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        stop = threading.Event()

        def end() -> None:
            query = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"  # noqa: S608
            while not stop.is_set() and not cluster.execute(query):
                pass
            connection.rollback()

        thread = threading.Thread(target=end)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(WAIT_SECONDS)


def test_cut_off_in_a_batch(cluster: Cluster, store: SqlStore, run: str) -> None:
    """It is tried again over a new connection; and a client that sends it all again stores each point once."""
    points = [Metric(f"m{number}", number, START, 0) for number in range(20)]
    with cut(cluster, "metrics", store):
        store.log_batch(run, points, [Param("p", "1")], [RunTag("t", "1")])
    store.log_batch(run, points, [Param("p", "1")], [RunTag("t", "1")])
    assert rows(store, "SELECT count(*) FROM metrics WHERE run_uuid = %s", run) == [(20,)]
    found = store.get_run(run).data
    assert (len(found.metrics), found.params, found.tags["t"]) == (20, {"p": "1"}, "1")


def test_cut_off_in_a_creation(cluster: Cluster, store: SqlStore) -> None:
    """Nobody knows whether the run is there: the client is told to come again, as by MLflow's own store."""
    store.create_run("0", "ann", START, [], "seen")
    with cut(cluster, "tags", store), pytest.raises(MlflowException) as refused:
        store.create_run("0", "ann", START, [], "cut off")
    assert refused.value.error_code == "TEMPORARILY_UNAVAILABLE"
    assert rows(store, "SELECT count(*) FROM runs WHERE name = 'cut off'") == [(0,)]
    assert store.create_run("0", "ann", START, [], "cut off").info.run_name == "cut off"


def test_connections_come_back_as_they_were(store: SqlStore, run: str) -> None:
    """MLflow's other methods use the same ones and need transactions."""
    store.log_metric(run, Metric("m", 1.0, START, 0))
    with pytest.raises(MlflowException):
        store.log_batch(run, [], [], [RunTag("mlflow.runName", "x" * 251)])
    for _ in range(3):
        connection = store.engine.raw_connection()
        assert connection.dbapi_connection is not None
        assert connection.dbapi_connection.autocommit is False
        connection.close()
    assert store.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
