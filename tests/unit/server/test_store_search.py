"""Searches and histories: ours and MLflow's own find the same, in the same order, page by page."""

# MLflow gives no types to most of what is called here.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import math
from itertools import chain
from typing import Any

import pytest
from longrun_server.search import read
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from tests.unit.server.conftest import START, Pair

RUNS = 24


@pytest.fixture(scope="module")
def experiments(pair: Pair) -> list[str]:
    """An experiment full of runs that differ, some of them deleted, and a second one with one run."""
    first = pair.same(lambda store, _: store.create_experiment("searched"))
    other = pair.same(lambda store, _: store.create_experiment("other"))
    for number in range(RUNS):
        runs = pair.new_run(f"run {number % 7}", first, START + number // 3)
        metrics = [Metric("all", [number, -number, math.nan, math.inf][number % 4], START, 0)]
        if number % 3:
            metrics.append(Metric("some", number % 5, START, number))
        params, tags = [Param("p", str(number % 5)), Param(f"q{number % 2}", "x")], [RunTag("t", f"v{number % 4}"), RunTag("a b/c", "%_")]
        pair.same(lambda store, run: store.log_batch(run, metrics, params, tags[: 1 + number % 2]), runs)  # noqa: B023 - called at once
        if number % 6 == 5:
            pair.same(lambda store, run: store.delete_run(run), runs)
    pair.new_run("elsewhere", other)
    return [first, other]


def search(pair: Pair, *arguments: Any) -> list[str]:  # noqa: ANN401 - as the store takes them
    """Return the names of the runs found, after a comparison of everything else.

    Runs with the same start are ordered by an id that is drawn, so such ties are compared as what they are: equal.
    """
    found = []
    for store in pair.stores:
        page = store.search_runs(*arguments)
        found.append([(run.info.run_name, run.info.start_time, run.data.params.get("p"), run.data.tags.get("t"), run.info.lifecycle_stage) for run in page])
    assert sorted(found[0]) == sorted(found[1])
    return [name for name, *_ in found[0]]


FILTERS = (
    "metrics.all > 3",
    "metrics.all != 3",
    "metrics.all = 0",
    "metrics.`some` <= 2 and metrics.all >= 0",
    "params.p = '3'",
    "params.p != '3' and params.q1 = 'x'",
    "params.p ILIKE '%1'",
    "tags.t = 'v1'",
    "tags.t LIKE 'V%'",
    "tags.t ILIKE 'V%'",
    "tags.`a b/c` = '%_'",
    "tags.nothing IS NULL",
    "params.q1 IS NOT NULL",
    "params.q0 IS NULL",
    "attributes.run_name = 'run 3'",
    "run_name LIKE 'run%' and status = 'RUNNING'",
    f"start_time >= {START + 3}",
    "attributes.run_id != 'x'",
    "user_id = 'ann' and artifact_uri LIKE 's3://%'",
    "dataset.name = 'none'",
    "",
    None,
)


@pytest.mark.parametrize("filter_string", FILTERS)
def test_filters(pair: Pair, experiments: list[str], filter_string: str | None) -> None:
    """MLflow's own grammar, on each kind of attribute."""
    found = [search(pair, experiments, filter_string, view, 100) for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL)]
    assert len(found[0]) + len(found[1]) == len(found[2])


def test_filters_find_something(pair: Pair, experiments: list[str]) -> None:
    """The test before could pass on nothing but empty answers."""
    empty = [each for each in FILTERS if not search(pair, experiments, each, ViewType.ALL, 100)]
    assert empty == ["tags.t LIKE 'V%'", "dataset.name = 'none'"]


ORDERS: tuple[list[str] | None, ...] = (
    None,
    [],
    ["attributes.start_time DESC"],
    ["start_time ASC"],
    ["attribute.run_name", "start_time"],
    ["metrics.all DESC"],
    ["metrics.all ASC", "metrics.some DESC"],
    ["metrics.`some`"],
    ["params.p DESC", "params.q1"],
    ["tags.t", "tags.nothing DESC"],
    ["status", "end_time DESC", "metrics.missing"],
)


def pages(pair: Pair, experiments: list[str], filter_string: str, order_by: list[str] | None) -> list[list[str]]:
    """Return the ids of a search page by page to the end, each page the same as MLflow's on the same database, which has the ids that break ties."""
    stock = SqlAlchemyStore(pair.ours.db_uri, "s3://mlflow")
    token, found = None, []
    while True:
        ours, theirs = (store.search_runs(experiments, filter_string, ViewType.ALL, 10, order_by, token) for store in (pair.ours, stock))
        assert [run.to_proto() for run in ours] == [run.to_proto() for run in theirs] or str(ours) == str(theirs)
        assert ours.token == theirs.token
        found.append([run.info.run_id for run in ours])
        token = ours.token
        if token is None:
            return found


@pytest.mark.parametrize("order_by", ORDERS, ids=str)
def test_orders_and_pages(pair: Pair, experiments: list[str], order_by: list[str] | None) -> None:
    """Every run is on one of the pages."""
    found = pages(pair, experiments, "", order_by)
    assert list(map(len, found)) == [10, 10, RUNS + 1 - 20]
    assert len(set(chain(*found))) == RUNS + 1


@pytest.mark.parametrize(("order_by", "flags"), [(["start_time DESC"], 0), (["end_time"], 1), (["metrics.all", "start_time"], 1)])
def test_a_start_is_always_there(pair: Pair, order_by: list[str], flags: int) -> None:
    """Asking whether there is one would keep PostgreSQL from its index."""
    order = read(pair.ours.engine.dialect, "metrics.all > 1", order_by, ViewType.ALL).string.split("ORDER BY")[1]
    assert order.count("CASE") == flags


@pytest.mark.parametrize(
    ("filter_string", "order_by", "joins"),
    [
        ("metrics.all != 3", ["metrics.all DESC"], 1),
        ("metrics.all > -20 and metrics.some < 4", ["metrics.some", "metrics.all DESC"], 2),
        ("metrics.all > -20", ["metrics.some", "metrics.all"], 2),
        ("metrics.all > -20 and metrics.all < 20", ["metrics.all"], 2),
        ("params.p != '3'", ["params.p DESC"], 1),
        ("params.p != '3'", ["tags.p", "params.p"], 2),
        ("tags.t LIKE 'v%'", ["tags.t", "params.t"], 2),
        ("params.q0 IS NULL", ["params.q0", "metrics.all"], 2),
        ("run_name LIKE 'run%'", ["run_name", "tags.`mlflow.runName`"], 1),
    ],
)
def test_sorted_by_what_was_filtered(pair: Pair, experiments: list[str], filter_string: str, order_by: list[str], joins: int) -> None:
    """The row that a filter found is not looked up again, where it is the same one."""
    assert len(list(chain(*pages(pair, experiments, filter_string, order_by)))) > 5
    statement = read(pair.ours.engine.dialect, filter_string, order_by, ViewType.ALL).string
    sorted_alone, _ = statement.split("WITH ORDINALITY")
    assert sorted_alone.count(" JOIN ") == joins


@pytest.mark.parametrize(
    "arguments",
    [
        (["1"], "metrics.a ~ 3", 1, 10),
        (["1"], "nothing", 1, 10),
        (["1"], "metrics.a = 'x'", 1, 10),
        (["1"], "params.a = 3", 1, 10),
        (["1"], "nothing.a = 'x'", 1, 10),
        (["1"], f"start_time > {10**30}", 1, 10),
        (["1"], "params.p = 'a\0b'", 1, 10),
        (["1"], "", 1, 0),
        (["1"], "", 1, 50001),
        (["1"], "", 1, -1),
        (["1"], "", 1, 10, ["metrics.a", "metrics.a"]),
        (["1"], "", 1, 10, ["nothing"]),
        (["1"], "", 1, 10, ["nothing.a"]),
        (["1"], "", 1, 10, None, "no token"),
        (["1"], "", 1, 10, None, "e30="),
        (["1"], "", 1, 10, None, "////"),
        (["x"], "", 1, 10),
        (["4711"], "", 1, 10),
        (["99999999999"], "", 1, 10),
        ([], "", 1, 10),
        ([None], "", 1, 10),
        (["1"], "", 7, 10),
        (["4711"], "", 1, None),
    ],
    ids=str,
)
def test_what_is_refused(pair: Pair, experiments: list[str], arguments: tuple[Any, ...]) -> None:  # noqa: ARG001 - to have something to find
    """In the same words, statement of the database included."""
    pair.same(lambda store, _: store.search_runs(*arguments))


HISTORY = 2500


@pytest.fixture(scope="module")
def logged(pair: Pair) -> tuple[str, str]:
    """Runs with a long history."""
    runs = pair.new_run("long")
    values = [math.nan, math.inf, -math.inf, 0.5, -0.25]
    points = [Metric("h", values[number % 5], START + number // 2, number // 3) for number in range(HISTORY)] + [Metric("other", 1, START, 0)]
    for begin in range(0, len(points), 1000):
        pair.same(lambda store, run: store.log_batch(run, points[begin : begin + 1000], [], []), runs)  # noqa: B023 - called at once
    return runs


@pytest.mark.parametrize("limit", [None, 0, 1, 1000, HISTORY - 1, HISTORY, HISTORY + 1])
def test_history(pair: Pair, logged: tuple[str, str], limit: int | None) -> None:
    """The whole of it and its pages, tokens included."""
    found = pair.same(lambda store, run: store.get_metric_history(run, "h", limit), logged)
    assert len(found) - 2 == (HISTORY if limit is None else min(limit, HISTORY))
    token, pages = None, 0
    while limit:
        page = [store.get_metric_history(run, "h", limit, token) for store, run in zip(pair.stores, logged, strict=True)]
        assert [str(metric) for metric in page[0]] == [str(metric) for metric in page[1]]
        assert page[0].token == page[1].token
        token, pages = page[0].token, pages + 1
        if token is None or pages == 3:
            break


@pytest.mark.parametrize(
    "arguments",
    [
        ("h", -1),
        ("h", 1.5),
        ("h", "x"),
        ("h", 10, "no token"),
        ("h", 10, "e30="),
        ("h", 10, "////"),
        ("nothing",),
        (None,),
        (5,),
        ("a\0b",),
        ("h", 2**63),
        ("h", 10, b"eyJvZmZzZXQiOiAxfQ=="),
    ],
)
def test_histories_that_are_none(pair: Pair, logged: tuple[str, str], arguments: tuple[Any, ...]) -> None:
    """Unknown, empty or wrong."""
    pair.same(lambda store, run: store.get_metric_history(run, *arguments), logged)
    pair.same(lambda store, _: store.get_metric_history("0" * 32, *arguments))
