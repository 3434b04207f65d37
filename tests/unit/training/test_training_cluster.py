"""A sweep on a Dask cluster of two workers, which lose a worker, then all of them, and at last their scheduler.

Tests run in the order they stand here: a cluster takes its time to start, so that they share one.
"""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import LocalCluster
from longrun_training import crew
from longrun_training.tracking import Server

from tests.unit.training.sweep_helpers import after_the_first, runs, write

Longrun = Callable[..., Any]
# Each some tenths of a second on one processor.
SLOW = "n_estimators = [40, 41, 42, 43, 44, 45]\nmax_depth = [3]"
START_SECONDS = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two worker processes of one thread each, and their scheduler."""
    folder = str(tmp_path_factory.mktemp("dask"))
    made = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=60, local_directory=folder)  # type: ignore[no-untyped-call]
    yield made
    # The last test took its scheduler away, which would be looked for for half a minute.
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        made.close()


def sweep_and_lose(longrun: Longrun, cluster: Any, name: str, lose: Callable[[], None]) -> Any:  # noqa: ANN401 - most of Dask has no types
    """Sweep on the cluster, and lose something of it in the midst."""
    write(name, SLOW, "RandomForestRegressor")
    Server.from_environment()
    with after_the_first(lose):
        return longrun("train", "--sweep", "--dask", cluster.scheduler_address)


def check_broken_off(name: str) -> None:
    """What was measured stays, and nothing looks alive."""
    parent, children = runs(name)
    assert parent.info.status == "FAILED"
    statuses = Counter(run.info.status for run in children)
    assert statuses["FINISHED"] >= 1
    assert not statuses["RUNNING"]


@pytest.mark.usefixtures("server", "table_csv")
def test_a_lost_worker_costs_nothing(longrun: Longrun, cluster: Any) -> None:  # noqa: ANN401 - most of Dask has no types
    """The scheduler gives the lost worker's trial to the other one."""
    done = sweep_and_lose(longrun, cluster, "cluster", lambda: os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL))
    assert done.status == 0, done.stderr
    assert "2 threads of the cluster tcp://" in done.stderr
    parent, children = runs("cluster")
    assert [run.info.status for run in [parent, *children]] == ["FINISHED"] * 7
    assert "best of 6: trial " in done.stderr


@pytest.mark.usefixtures("server", "table_csv")
def test_all_workers_lost(longrun: Longrun, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401 - as above
    """Others may come, so the sweep waits for a while; then one line says what is missing."""
    monkeypatch.setattr(crew, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(crew, "DESERTED_SECONDS", 2.0)
    cluster.wait_for_workers(2, START_SECONDS)
    done = sweep_and_lose(longrun, cluster, "deserted-cluster", lambda: cluster.scale(0))
    assert done.status == 4
    last = done.stderr.splitlines()[-1]
    assert f"the cluster at {cluster.scheduler_address} has had no worker for 2 s" in last
    assert "of 6 trials are missing, the first is n_estimators=" in last
    check_broken_off("deserted-cluster")


@pytest.mark.usefixtures("server", "table_csv")
def test_a_cluster_without_workers(longrun: Longrun, cluster: Any) -> None:  # noqa: ANN401 - as above
    """Nobody would ever begin, so it is said at once and nothing is recorded."""
    write("nobody", "alpha = [1]")
    assert f"the cluster at {cluster.scheduler_address} has no workers" in longrun("train", "--sweep", "--dask", cluster.scheduler_address).error
    assert not Path(".longrun").exists()


@pytest.mark.usefixtures("server", "table_csv")
def test_the_scheduler_lost(longrun: Longrun, cluster: Any) -> None:  # noqa: ANN401 - as above
    """Then the whole cluster is, and one line says so."""
    cluster.scale(2)
    cluster.wait_for_workers(2, START_SECONDS)
    done = sweep_and_lose(longrun, cluster, "headless", lambda: cluster.sync(cluster.scheduler.close))
    assert done.status == 4
    assert "of 6 trials are missing, the first is n_estimators=" in done.stderr.splitlines()[-1]
    assert "the cluster" in done.stderr.splitlines()[-1]
    check_broken_off("headless")
