"""Our store against MLflow's own: the same calls give the same answers, the same refusals and the same rows."""

# MLflow gives no types to most of what is called here.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import logging
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from longrun_server import store as stores
from longrun_server.sqlstore import SqlStore
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput, Metric, Param, RunStatus, RunTag
from mlflow.server.handlers import TrackingStoreRegistryWrapper
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.tracking.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore
from mlflow.tracking._tracking_service.utils import _tracking_store_registry

from tests.unit.server.conftest import START, Pair

Call = Callable[[SqlAlchemyStore, str], Any]


def metric(key: Any, value: Any, step: Any = 0, timestamp: Any = START, **others: Any) -> Metric:  # noqa: ANN401 - what is wrong is part of the test
    """Return a point."""
    return Metric(key, value, timestamp, step, **others)


def batch(metrics: list[Metric] | None = None, params: dict[Any, Any] | None = None, tags: dict[Any, Any] | list[RunTag] | None = None) -> Call:
    """Return a call of log_batch."""
    given = [Param(key, value) for key, value in (params or {}).items()]
    wanted = tags if isinstance(tags, list) else [RunTag(key, value) for key, value in (tags or {}).items()]
    return lambda store, run: store.log_batch(run, metrics or [], given, wanted)


def point(*arguments: Any, **others: Any) -> Call:  # noqa: ANN401 - as above
    """Return a call of log_metric."""
    return lambda store, run: store.log_metric(run, metric(*arguments, **others))


def param(key: Any, value: Any) -> Call:  # noqa: ANN401 - as above
    """Return a call of log_param."""
    return lambda store, run: store.log_param(run, Param(key, value))


def tag(key: Any, value: Any) -> Call:  # noqa: ANN401 - as above
    """Return a call of set_tag."""
    return lambda store, run: store.set_tag(run, RunTag(key, value))


def delete(store: SqlAlchemyStore, run: str) -> None:
    """Delete the run."""
    store.delete_run(run)


NAME = "mlflow.runName"
STRANGE = "{\"a\": 'b', \\ \\N NULL,\t\n%s %(x)s $1 größe 🙂}"
WIDE = "🙂"
LOGGED: dict[str, list[Call]] = {
    "twenty metrics": [batch([metric(f"m{number}", number / 3, 1) for number in range(20)])] * 2,
    "nan and infinities": [batch([metric("n", math.nan), metric("p", math.inf), metric("m", -math.inf), metric("l", 1.7976931348623157e308)])],
    "nan and nought": [batch([metric("a", math.nan), metric("a", 0.0), metric("b", 0.0), metric("b", math.nan), metric("b", -0.0)]), point("a", 0.0)],
    "nan twice": [batch([metric("a", math.nan), metric("a", float("nan"))]), batch([metric("a", math.nan)])],
    "small and exact": [batch([metric("a", 5e-324), metric("b", 0.1 + 0.2), metric("c", 1e22), metric("d", 123456789.123456789)])],
    "whole numbers": [batch([metric("a", 5), metric("b", -3), metric("c", 2**53 + 1), metric("d", 10**300)]), point("a", 7)],
    "a point twice in a batch": [batch([metric("a", 1.0), metric("b", 2.0), metric("a", 1.0)])],
    "a point again, with others": [batch([metric("a", 1.0), metric("b", 1.0)]), batch([metric("b", 1.0), metric("c", 1.0), metric("a", 2.0, 1)])],
    "a key at several steps": [batch([metric("b", 1.0, 3), metric("a", 9.0, 1), metric("b", 5.0, 2), metric("a", 1.0, 7), metric("c", 0.0, -1)])],
    "older than what is there": [point("a", 1.0, 5), point("a", 9.0, 4), batch([metric("a", 8.0, 5, START - 1), metric("a", 0.5, 5)])],
    "a larger value at one time": [point("a", 1.0), point("a", 2.0), point("a", 1.5), batch([metric("a", 1.7), metric("a", 3.0), metric("a", 2.5)])],
    "a newer time at one step": [point("a", 5.0), point("a", 1.0, 0, START + 1), point("a", 9.0, 0, START)],
    "the same but for the dataset": [batch([metric("a", 1.0), metric("a", 1.0, dataset_name="d", dataset_digest="e")])],
    "values that are none": [batch([metric("a", None)]), batch([metric("b", "1.0")]), batch([metric("c", value=True)]), point("a", None), point("a", "x")],
    "other kinds of numbers": [batch([metric("a", Decimal("1.5"))]), batch([metric("b", 1 + 2j)]), batch([metric("c", 1.0, 1.0)]), point("d", 1.0, 0, 1.5)],
    "numbers beyond the columns": [batch([metric("a", 10**400)]), batch([metric("b", 1.0, 2**63)], {"p": "1"}, {"t": "1"}), point("c", 1.0, 0, 2**63)],
    "the ends of the columns": [batch([metric("a", 1.0, 2**63 - 1), metric("b", 1.0, -(2**63) + 1), metric("c", 1.0, -(2**63)), metric("d", 1.0, 0, 0)])],
    "times that are none": [batch([metric("a", 1.0, 0, -1)]), batch([metric("b", 1.0, "x")]), point("c", 1.0, 0, -1), point("d", 1.0, None)],
    "names of metrics": [batch([metric(key, 1.0)]) for key in ("a/b.c-d e:f_g", "größe", "ends\n", "../up", "a//b", "", "a,b", "a" * 250, "a" * 251, None)],
    "names of one metric": [point(key, 1.0) for key in ("a/b.c-d e:f_g", "../up", "a,b", "", "a" * 251, None)],
    "metrics of a model": [batch([metric("a", 1.0, model_id="m-1")], {"p": "1"}, {"t": "1"}), point("b", 1.0, model_id="m-1")],
    "params": [batch(params={f"p{number}": str(number) for number in range(100)})] * 2,
    "params in their order": [batch(params={"z": "1", "a": "2"}), batch(params={"m": "3", "a": "2", "b": "4"}), param("0", "5")],
    "a changed param": [
        batch(params={"a": "1", "b": "2"}),
        batch([metric("m", 1.0)], {"c": "3", "a": "changed", "b": "2"}, {"t": "1"}),
        param("a", "1"),
        param("a", "changed"),
    ],
    "strange values": [batch(params={"a": STRANGE, "b": ""}, tags={"a": STRANGE, "b": ""}), batch(params={"a": STRANGE}, tags={"a": STRANGE})],
    "a zero byte": [batch([metric("m", 1.0)], {"a": "x\0y"}), batch([metric("m", 2.0)], {}, {"a": "x\0y"}), param("b", "\0"), tag("b", "\0")],
    "half a character": [batch(params={"a": "\ud800"}), tag("a", "\ud800")],
    "no value": [batch(params={"a": None}), batch(tags={"a": None}), param("b", None), tag("b", None), batch(tags={"a": "now"}), batch(tags={"a": None})],
    "values of other types": [batch(params={"a": 5}), param("b", 5), batch(tags={"a": 5}), tag("b", 5)],
    "names of params": [batch(params={key: "1"}) for key in ("a/b.c-d e:f_g", "../up", "a,b", "", "a" * 250, "a" * 251, None)] + [param("a,b", "1")],
    "a param twice in a batch": [lambda store, run: store.log_batch(run, [], [Param("a", "1"), Param("a", "1")], [])],
    "long values": [batch(params={"a": "x" * 6001}, tags={"a": "x" * 8001}), param("b", "x" * 6001), tag("b", "x" * 8001)],
    "tags": [batch(tags={"z": "1", "a": "2"}), batch(tags={"a": "3", "m": "4"}), tag("a", "5"), tag("0", "6")],
    "a tag twice in a batch": [batch(tags=[RunTag("a", "1"), RunTag("b", "2"), RunTag("a", "3")])] * 2,
    "names of tags": [batch(tags={key: "1"}) for key in ("a/b.c-d e:f_g", "../up", "a,b", "", "a" * 251, None)] + [tag("a,b", "1")],
    "the run's name": [tag(NAME, "another"), batch(tags={"a": "1", NAME: "a third"}), batch([metric("m", 1.0)], {}, {NAME: "a third"}), param("p", "1")],
    "the run's name, twice or empty": [
        batch(tags=[RunTag(NAME, "b"), RunTag("x", "1"), RunTag(NAME, "c"), RunTag(NAME, "")]),
        batch(tags={NAME: "", "y": "1"}),
        tag(NAME, ""),
        tag(NAME, None),
    ],
    "the run's name, too long": [batch([metric("m", 1.0)], {"p": "1"}, {"a": "1", NAME: "x" * 251}), tag(NAME, "x" * 251)],
    "nothing": [batch()],
    "as much as may be": [batch([metric(f"m{number}", 1.0) for number in range(1000)]), batch(params=dict.fromkeys(map(str, range(100)), "1"))],
    "as much as may be of all": [
        batch([metric(f"m{number}", 1.0) for number in range(800)], {f"p{number}": "1" for number in range(100)}, {f"t{number}": "1" for number in range(100)})
    ],
    "too much": [
        batch([metric(f"m{number}", 1.0) for number in range(1001)]),
        batch(params={f"p{number}": "1" for number in range(101)}),
        batch(tags={f"t{number}": "1" for number in range(101)}),
        batch([metric(f"m{number}", 1.0) for number in range(801)], {f"p{number}": "1" for number in range(100)}, {f"t{number}": "1" for number in range(100)}),
    ],
    "five megabytes": [batch([], {f"p{number}": WIDE * 6000 for number in range(100)}, {f"t{number}": WIDE * 8000 for number in range(100)})],
    "a deleted run": [
        batch([metric("a", 1.0)]),
        delete,
        batch([metric("a", 2.0)], {"p": "1"}, {"t": "1"}),
        batch(),
        point("a", 1.0),
        param("a", "1"),
        tag("a", "1"),
    ],
    "unknown runs": [
        lambda store, _: store.log_batch("0" * 32, [metric("a", 1.0)], [], []),
        lambda store, _: store.log_batch("0" * 32, [], [], []),
        lambda store, _: store.log_batch("../x", [], [], []),
        lambda store, _: store.log_metric("0" * 32, metric("a", 1.0)),
        lambda store, _: store.log_metric("", metric("a", 1.0)),
        lambda store, _: store.log_metric(None, metric("a", 1.0)),
        lambda store, _: store.log_param("0" * 32, Param("a", "1")),
        lambda store, _: store.set_tag("0" * 32, RunTag("a", "1")),
        lambda store, _: store.set_tag("0" * 32, RunTag("a,b", "1")),
        lambda store, _: store.get_run("0" * 32),
        lambda store, _: store.get_run(None),
        lambda store, _: store.get_run("a\0b"),
    ],
}


@pytest.mark.parametrize("calls", LOGGED.values(), ids=LOGGED)
def test_logging(pair: Pair, calls: list[Call]) -> None:
    """What is refused is refused in the same words, and leaves the same rows behind; the answer has them in the same order."""
    runs = pair.new_run()
    for call in calls:
        pair.same(call, runs)
    pair.same_rows(runs)
    assert pair.same(lambda store, run: store.get_run(run), runs)


def test_the_fast_path_is_taken(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of this file could pass with MLflow's own methods."""

    def refuse(*_arguments: object, **_others: object) -> None:
        message = "MLflow's own method was asked"
        raise AssertionError(message)

    for name in ("log_batch", "log_metric", "log_param", "set_tag", "create_run", "get_run", "get_metric_history", "_search_runs"):
        monkeypatch.setattr(SqlAlchemyStore, name, refuse)
    run = pair.ours.create_run(pair.experiment, "ann", START, [RunTag("a", "b")], None).info.run_id
    pair.ours.log_batch(run, [metric("m", math.nan), metric("m", 5, 1)], [Param("p", "1")], [RunTag("t", "1"), RunTag(NAME, "n")])
    pair.ours.log_batch(run, [], [], [])
    pair.ours.log_metric(run, metric("m", 6.0, 2))
    pair.ours.log_param(run, Param("q", "1"))
    pair.ours.set_tag(run, RunTag("u", "1"))
    found = pair.ours.get_run(run)
    assert (found.data.metrics, found.data.params) == ({"m": 6.0}, {"p": "1", "q": "1"})
    assert found.data.tags == {"a": "b", NAME: "n", "t": "1", "u": "1"}
    assert len(pair.ours.get_metric_history(run, "m")) == 3
    assert run in [each.info.run_id for each in pair.ours.search_runs([pair.experiment], "metrics.m = 6", 1, 10, ["params.p"])]


CREATED: dict[str, tuple[Any, ...]] = {
    "as clients do": ("ann", START, [RunTag("mlflow.user", "ann"), RunTag(NAME, "a name")], "a name"),
    "a name only": ("ann", START, [], "a name"),
    "a tag only": ("ann", START, [RunTag(NAME, "a name"), RunTag("z", "1"), RunTag("a", "2")], None),
    "no name": ("", START, [RunTag("z", "1")], ""),
    "an empty tag": ("ann", START, [RunTag(NAME, "")], None),
    "no tags": ("ann", 0, None, "a name"),
    "two names": ("ann", START, [RunTag(NAME, "one")], "another"),
    "a long name": ("ann", START, [], "x" * 251),
    "strange names": (STRANGE, START, [RunTag(STRANGE, STRANGE)], STRANGE),
    "a tag twice": ("ann", START, [RunTag("a", "1"), RunTag("a", "2")], "n"),
    "a long tag": ("ann", START, [RunTag("a", "x" * 8001)], "n"),
    "a tag with a long key": ("ann", START, [RunTag("a" * 251, "x")], "n"),
    "a tag without value": ("ann", START, [RunTag("a", None)], "n"),  # type: ignore[arg-type]
    "a zero byte": ("ann", START, [], "a\0b"),
    "no user": (None, START, [], "n"),
    "no start": ("ann", None, [], "n"),
    "a start beyond the column": ("ann", 2**63, [], "n"),
    "a broken start": ("ann", 1.5, [], "n"),
}


@pytest.mark.parametrize("arguments", CREATED.values(), ids=CREATED)
def test_creating(pair: Pair, arguments: tuple[Any, ...]) -> None:
    """The answer is the run as it is made, and what is stored is the same."""
    ids: list[str] = []

    def create(store: SqlAlchemyStore, _: str) -> Any:  # noqa: ANN401 - an entity
        made = store.create_run(pair.experiment, *arguments)
        ids.append(made.info.run_id)
        assert made.info.run_id in made.info.artifact_uri
        return made

    pair.same(create)
    assert len(ids) in (0, 2)
    if ids:
        pair.same_rows((ids[0], ids[1]))
        pair.same(lambda store, run: store.get_run(run), (ids[0], ids[1]))


@pytest.mark.parametrize("experiment", [None, "", "0", "00", "x", 0, "4711", "-1", "99999999999999", "²"])
def test_creating_in_experiments(pair: Pair, experiment: object) -> None:
    """Some of these are the default experiment, for MLflow."""
    pair.same(lambda store, _: store.create_run(experiment, "ann", START, [], "n"))


def test_creating_in_a_deleted_experiment(pair: Pair) -> None:
    """Ours has seen it alive."""
    experiment = pair.same(lambda store, _: store.create_experiment("to be deleted", "s3://elsewhere/x?y=z"))

    def create(store: SqlAlchemyStore, _: str) -> Any:  # noqa: ANN401 - an entity
        return store.create_run(experiment, "ann", START, [], "n")

    assert "s3://elsewhere/x/<id>/artifacts?y=z" in str(pair.same(create))
    pair.same(lambda store, _: store.delete_experiment(experiment))
    assert pair.same(create)[0] == "refused"
    pair.same(lambda store, _: store.restore_experiment(experiment))
    assert "RUNNING" in str(pair.same(create))


def test_inputs_and_outputs(pair: Pair) -> None:
    """Datasets with their tags and models are part of a run's answer."""
    runs = pair.new_run()
    datasets = [
        DatasetInput(Dataset("d", "1", "local", "there", None, "{}"), [InputTag("mlflow.data.context", "training"), InputTag("x", "y")]),
        DatasetInput(Dataset("e", "2", "http", "here", "[]", None), []),
    ]
    pair.same(lambda store, run: store.log_inputs(run, datasets, [LoggedModelInput("m-in")]), runs)
    pair.same(lambda store, run: store.log_inputs(run, datasets[:1]), runs)
    pair.same(lambda store, run: store.log_outputs(run, [LoggedModelOutput("m-out", 3), LoggedModelOutput("m-two", 0)]), runs)
    for said in ("m-in", "m-out", "m-two", "training", "there"):
        assert said in str(pair.same(lambda store, run: store.get_run(run), runs))
    found = str(pair.same(lambda store, _: store.search_runs([pair.experiment], "dataset.context = 'training'", 3, 10)))
    assert "m-out" in found
    assert "m-in" not in found


def test_a_run_that_ended(pair: Pair) -> None:
    """What other methods change, ours read."""
    runs = pair.new_run()
    pair.same(lambda store, run: store.update_run_info(run, RunStatus.FINISHED, START + 5, "renamed"), runs)
    assert "renamed" in str(pair.same(lambda store, run: store.get_run(run), runs))
    for store, run in zip(pair.stores, runs, strict=True):
        with store.engine.begin() as connection:
            # As MLflow 1.29 and older left them.
            connection.exec_driver_sql("UPDATE runs SET name = NULL WHERE run_uuid = %s", (run,))
    assert "renamed" in str(pair.same(lambda store, run: store.get_run(run), runs))
    for store, run in zip(pair.stores, runs, strict=True):
        with store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE runs SET user_id = NULL WHERE run_uuid = %s", (run,))
    assert pair.same(lambda store, run: store.get_run(run), runs)[0] == "refused"


def test_mlflow_asks_for_ours(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the URI's scheme, in the server and in a client; by the entry point of the installed package."""
    uri = pair.ours.db_uri
    for registry in (TrackingStoreRegistryWrapper(), _tracking_store_registry):
        assert registry.get_store_builder(uri) is stores.build
    made = TrackingStoreRegistryWrapper().get_store(uri, "s3://there")
    assert (type(made), made.artifact_root_uri) == (SqlStore, "s3://there")
    assert type(stores.build(uri)) is SqlStore
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    assert type(stores.build(uri, "s3://there")) is WorkspaceAwareSqlAlchemyStore


def test_another_mlflow_gets_its_own_store(pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Slower and right, and the log says why."""
    monkeypatch.setattr(stores, "VERSION", "3.99.0")
    with caplog.at_level(logging.WARNING, stores.__name__):
        assert type(stores.build(pair.ours.db_uri, "s3://there")) is SqlAlchemyStore
    assert [record.getMessage() for record in caplog.records if record.name == stores.__name__] == [
        "longrun's tracking store was checked with MLflow 3.17.2, not with 3.99.0: MLflow's own store answers, as correct and slower"
    ]


def test_a_read_replica_gets_mlflows_own_store(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It decides call by call where to read, which ours does not."""
    monkeypatch.setenv("_MLFLOW_SERVER_READ_REPLICA_BACKEND_STORE", pair.stock.db_uri)
    made = stores.build(pair.ours.db_uri, "s3://there")
    assert type(made) is SqlAlchemyStore
    assert made.read_engine is not None
