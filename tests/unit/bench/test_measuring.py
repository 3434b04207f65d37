"""What the server's benchmark asks, and of whom."""

import itertools
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from longrun_controller.errors import ProblemError

from tests.bench import columns, history, server
from tests.bench.loads import Call
from tests.bench.on_host import memory
from tests.bench.operations import OPERATIONS, Operation, Seeds, log_batch, log_metric, log_parameters
from tests.servers import ROOT


def seeds(fresh: int = 50) -> Seeds:
    """Return seeds of a database that nobody asks."""
    return Seeds("1", "2", "x", fresh)


@pytest.mark.parametrize("name", ["local", "e2e", "prod", "benchmark", "my-bench", ""])
def test_a_persons_server_is_never_measured(name: str) -> None:
    """The benchmark empties the database of runs: a wrong name must not cost anybody a history."""
    with pytest.raises(ProblemError, match="empties the database"):
        columns.check_name(name)
    for right in ("bench", "bench-b"):
        columns.check_name(right)


def test_parts_and_operations_by_name() -> None:
    """An operation's name means its part; an unknown one is told what there is."""
    assert server._chosen("")[0] == list(server.PARTS)
    parts, chosen = server._chosen("growth, create,get")
    assert parts == ["operations", "growth"]
    assert [operation.name for operation in chosen] == ["create", "get"]
    with pytest.raises(ProblemError, match=r"--only nonsense: there are .*growth.* create"):
        server._chosen("create,nonsense")


def test_parts_of_a_large_history() -> None:
    """Every run is made once."""
    parts = list(history.chunks(1000, 2501, 500))
    assert parts == [(1000, 1499), (1500, 1999), (2000, 2499), (2500, 2500)]
    assert not list(history.chunks(5, 5, 10))


def test_a_run_has_the_id_that_the_sql_gives_it() -> None:
    """PostgreSQL and Python name the same run; psql replaces every name that stands in the SQL."""
    # SELECT md5('a' || '-' || 3)
    assert history.run_id("a", 3) == "708caaced298fed1d34d3a20c7d30606"
    named = set(re.findall(r"(?<!:):'?([a-z]+)'?", "".join((*history.RUNS, *history.BARE, *history.HISTORY, *history.EXPERIMENTS))))
    assert named == {"name", "experiment", "each", "since", "first", "last", "key", "run", "points", "count"}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_operation_can_be_asked(operation: Operation) -> None:
    """Each goes to MLflow's REST API, and says of what."""
    calls = list(itertools.islice(operation.calls(seeds(), 0), 3))
    assert all(call.path.startswith("/api/2.0/mlflow/") for call in calls)
    assert all(json.loads(call.body or b"{}") or "?" in call.path for call in calls)


@pytest.mark.parametrize("of", [log_metric, log_batch])
def test_a_step_is_logged_once(of: Callable[[Seeds, int], Iterator[Call]]) -> None:
    """A point that is there already takes another way through MLflow's store, and through ours."""
    shared = seeds()
    sent = [json.loads(call.body or b"") for client in range(2) for call in itertools.islice(of(shared, client), 3)]
    steps = [content["step"] if "step" in content else content["metrics"][0]["step"] for content in sent]
    assert len(set(steps)) == len(steps)
    assert len({content["run_id"] for content in sent}) == 2


def test_parameters_are_logged_to_one_new_run_each() -> None:
    """A run's parameters can't be logged again; when no run is left, the line says so."""
    calls = log_parameters(seeds(3), 0)
    sent = [json.loads(next(calls).body or b"") for _ in range(3)]
    assert len({content["run_id"] for content in sent}) == 3
    assert all(len(content["params"]) == 100 for content in sent)
    with pytest.raises(ProblemError, match="all 3 fresh runs"):
        next(calls)


def test_temporary_files_without_a_name_are_seen() -> None:
    """That is how Python and nginx keep what waits on the disk."""
    before = sum(memory.temporary_files(Path("/proc/self")).values())
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 100_000)
        file.flush()
        # The threads of one upload hold it several times.
        with open(os.dup(file.fileno()), "rb"):
            assert sum(memory.temporary_files(Path("/proc/self")).values()) == before + 100_000
    assert memory.kilobytes(Path("/proc/self/smaps_rollup"), "Pss") > 1000


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("mlflow/templates/mlflow@.service.j2", "RuntimeDirectory=mlflow/"),
        ("nginx/templates/nginx.conf.j2", "pid /run/nginx.pid;"),
        ("nginx/templates/nginx.conf.j2", "unix:/run/mlflow/"),
        ("nginx/templates/nginx.conf.j2", "/var/log/nginx/"),
        ("nginx/templates/nginx.conf.j2", "listen 443 ssl default_server;"),
    ],
)
def test_tuned_stock_is_made_of_the_roles_templates(template: str, text: str) -> None:
    """The playbook replaces these words, so that both stand on one host; where one is gone, it would take ours' place."""
    assert text in (ROOT / "ansible" / "roles" / template).read_text(encoding="utf-8")
    assert text in (ROOT / "tests" / "bench" / "columns.yml").read_text(encoding="utf-8")
