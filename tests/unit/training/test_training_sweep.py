"""A sweep leaves every trial on the server and the best one's model in the registry, whichever worker dies, server goes away or parameter is wrong."""

import csv
import json
import math
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from longrun_training import crew, sweep_figure, terminal, train, trial
from longrun_training import sweep as sweeping
from longrun_training.config import Configuration, load
from longrun_training.errors import ProblemError, StoppedError
from longrun_training.evaluation import Split, split
from longrun_training.records import Outcome
from longrun_training.spool import waiting
from longrun_training.sync import sync
from longrun_training.tracking import Server
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.unit.training import record_helpers as helpers
from tests.unit.training.record_helpers import PASS, REFUSE
from tests.unit.training.sweep_helpers import after_the_first, runs, write

Longrun = Callable[..., Any]
DEADLINE_SECONDS = 60
RIDGE = "alpha = [100, -1, 0.1]\nfit_intercept = [true, false]"


def stored(run: Run, path: str) -> Path:
    """Return an artifact of a run."""
    return Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=path))


class Threads:
    """A crew without processes, for what happens around the measuring."""

    def __init__(self, parts: Split, before: Callable[[Configuration], None] = lambda _: None, size: int = 2) -> None:
        self.size, self.name, self._parts, self._before = size, "threads", parts, before
        self.stopped = threading.Event()

    def start(self, configuration: Configuration) -> crew.Job:
        if self.stopped.is_set():
            raise StoppedError(signal.SIGTERM)
        return _ThreadJob(self, configuration)

    def stop(self) -> None:
        self.stopped.set()

    def measure(self, configuration: Configuration) -> trial.Measured:
        self._before(configuration)
        return trial.measure(self._parts, configuration)


class _ThreadJob:
    def __init__(self, owner: Threads, configuration: Configuration) -> None:
        self._owner, self._configuration = owner, configuration

    def result(self) -> trial.Measured:
        return self._owner.measure(self._configuration)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Threads]]:
    """Let sweeps be measured by threads; returns the crews as they are made."""

    def use(before: Callable[[Configuration], None] = lambda _: None, size: int = 2) -> list[Threads]:
        made: list[Threads] = []

        def gather(parts: Split, **_: object) -> Threads:
            made.append(Threads(parts, before, size))
            return made[-1]

        monkeypatch.setattr(crew, "gather", gather)
        return made

    return use


def _workers() -> list[int]:
    """Return the processes of this one that measure trials."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == os.getpid() and b"popen_loky" in command:
            found.append(int(status.parent.name))
    return found


@pytest.mark.usefixtures("table_csv")
def test_grid_children_and_the_best_as_the_parents_model(  # noqa: PLR0915 - one sweep, looked at from all sides
    server_uri: str, longrun: Longrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every combination is a child with its own parameters and metrics, wrong ones FAILED; the parent is a usual run of the best, which the gate judges.

    In the middle the kernel kills a process, as it does when memory is short: that changes nothing of all this.
    """
    write("ridge", RIDGE)
    began = time.monotonic()
    killed: list[int] = []

    def kill() -> None:
        killed.append(_workers()[0])
        os.kill(killed[0], signal.SIGKILL)

    with helpers.proxied(server_uri) as proxy, after_the_first(kill):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
        done = longrun("train", "--sweep", "--jobs", "2", "--json")
        asked = list(proxy.asked)
        judged = longrun("gate", "--json")
    assert done.status == 0, done.stderr
    assert len(killed) == 1
    assert _workers() == []
    result = json.loads(done.stdout)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server_uri)
    Server.from_environment()

    parent, children = runs("ridge")
    assert [run.info.status for run in children] == ["FINISHED", "FINISHED", "FAILED", "FAILED", "FINISHED", "FINISHED"]
    grid = [(alpha, intercept) for alpha in ("100", "-1", "0.1") for intercept in ("True", "False")]
    assert [(run.data.params["alpha"], run.data.params["fit_intercept"]) for run in children] == grid
    assert "line 7: sweep.parameters.alpha is not right for Ridge: it must be a float in the range [0.0, inf)" in children[2].data.tags["longrun.error"]
    assert "trial 3 (alpha=-1, fit_intercept=True) failed: " in done.stderr
    client = MlflowClient()
    finished = [run for run in children if run.info.status == "FINISHED"]
    for run in finished:
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, "cv_rmse")] == [1, 2, 3, 4]
        assert run.data.metrics["duration_seconds"] > 0
        assert run.inputs is not None
        assert run.inputs.dataset_inputs[0].dataset.name == "houses"
        # The hold-out is for the one that is chosen.
        assert not [name for name in run.data.metrics if name.startswith("holdout")]
        assert helpers.models_of(run) == []
        assert client.list_artifacts(run.info.run_id) == []

    best = min(finished, key=lambda run: run.data.metrics["cv_rmse_mean"])
    assert result["sweep"]["best"]["run_id"] == best.info.run_id
    assert result["sweep"] | {"best": 0, "failures": 0} == {"metric": "rmse", "trials": 6, "finished": 4, "failed": 2, "best": 0, "failures": 0}
    assert (parent.info.run_id, parent.info.status) == (result["run_id"], "FINISHED")
    assert {name: parent.data.params[name] for name in ("alpha", "fit_intercept")} == {name: best.data.params[name] for name in ("alpha", "fit_intercept")}
    assert parent.data.metrics["cv_rmse_mean"] == pytest.approx(best.data.metrics["cv_rmse_mean"])
    tags = parent.data.tags
    assert (tags["longrun.sweep.best_trial"], json.loads(tags["longrun.sweep.best_parameters"])) == (
        best.data.tags["longrun.uuid"],
        {"alpha": 0.1, "fit_intercept": False},
    )
    assert (tags["longrun.sweep.trials"], tags["longrun.sweep.finished"], tags["longrun.sweep.failed"]) == ("6", "4", "2")
    table = json.loads(stored(parent, "sweep.json").read_text(encoding="utf-8"))
    assert [row["run_id"] for row in table["trials"]] == [run.info.run_id for run in children]
    rows = list(csv.DictReader(stored(parent, "sweep.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["alpha"], row["status"]) for row in rows[1:3]] == [("100", "FINISHED"), ("-1", "FAILED")]
    assert float(rows[0]["cv_rmse_mean"]) == pytest.approx(children[0].data.metrics["cv_rmse_mean"])
    assert stored(parent, "figures/sweep.png").read_bytes().startswith(b"\x89PNG")
    assert client.get_model_version_by_alias("ridge", "candidate").run_id == parent.info.run_id
    assert [version.version for version in client.search_model_versions("name = 'ridge'")] == ["1"]
    chosen = Configuration.model_validate_json(stored(parent, "configuration.json").read_text(encoding="utf-8"))
    assert chosen.estimator.parameters == {"alpha": 0.1, "fit_intercept": False}

    # Five requests a child: find the parent, make the run, its data set, all its values in one, its end. The parent is a usual run with three files more.
    assert (asked.count("POST runs/create"), asked.count("POST runs/update")) == (7, 7)
    assert len(asked) - helpers.timed(asked, time.monotonic() - began, batches=6 + 4, runs=7) <= 6 * 4 + 33, asked
    assert (judged.status, json.loads(judged.stdout)["candidate"]["run_id"]) == (0, parent.info.run_id), judged.stderr


def test_a_trial_whose_process_dies(table_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is begun anew; what is too large for the machine and dies each time is named, and the worker's place goes to the next trial."""
    died = tmp_path / "died"

    def once(_: Configuration) -> trial.Measured:
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return trial.Measured((), 7.0)

    configuration = load(None, {"data": {"source": str(table_csv), "target": "price"}, "estimator.name": "Ridge"})
    parts = split(train.prepare(configuration), configuration)
    workers = crew.Processes(parts, 1)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(trial, "enter", lambda *_: None)
            patched.setattr(trial, "measure_here", once)
            assert workers.start(configuration).result() == trial.Measured((), 7.0)
            patched.setattr(trial, "measure_here", lambda _: os.kill(os.getpid(), signal.SIGKILL))
            with pytest.raises(ProblemError, match="its process was killed 2 times"):
                workers.start(configuration).result()
        assert workers.start(configuration).result().folds == trial.measure(parts, configuration).folds
        endless = load(None, {"data": {"source": str(table_csv), "target": "price"}, "estimator.parameters.n_estimators": 10**6})
        waited = workers.start(endless)
        workers.stop()
        with pytest.raises(StoppedError):
            waited.result()
        with pytest.raises(StoppedError):
            workers.start(configuration)
    finally:
        workers.stop()


@pytest.mark.usefixtures("server", "table_csv")
def test_a_crew_that_is_gone_names_what_is_missing(longrun: Longrun, threads: Callable[..., list[Threads]]) -> None:
    """Where nobody is left to measure, the line says how much is missing; what is finished stays, and the rest does not look alive."""
    write("deserted", "alpha = [1, 2, 3, 4]")

    def leave(configuration: Configuration) -> None:
        if configuration.estimator.parameters["alpha"] == 3:
            message = "the cluster is gone"
            raise crew.CrewError(message)

    threads(leave, size=1)
    done = longrun("train", "--sweep")
    assert done.status == 4
    last = done.stderr.splitlines()[-1]
    assert "the cluster is gone" in last
    assert "of 4 trials are missing, the first is alpha=" in last
    Server.from_environment()
    parent, children = runs("deserted")
    assert parent.info.status == "FAILED"
    statuses = Counter(run.info.status for run in children)
    assert statuses["FINISHED"] >= 2
    assert not statuses["RUNNING"]
    assert len(json.loads(stored(parent, "sweep.json").read_text(encoding="utf-8"))["trials"]) >= 2


@pytest.mark.usefixtures("table_csv")
def test_an_outage_spools_the_rest(server_uri: str, longrun: Longrun, monkeypatch: pytest.MonkeyPatch, threads: Callable[..., list[Threads]]) -> None:
    """A server that goes away in the middle costs no trial and is said once; after the sync, parent and children belong together."""
    write("outage", "alpha = [1, 2, 3, 4]")
    monkeypatch.setenv("LONGRUN_PATIENCE_SECONDS", "0")
    with helpers.proxied(server_uri) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)

        def go_away(configuration: Configuration) -> None:
            if configuration.estimator.parameters["alpha"] == 3:
                proxy.reset(lambda _: REFUSE)

        threads(go_away)
        done = longrun("train", "--sweep", "--json")
        assert done.status == 0, done.stderr
        assert done.stderr.count("is kept in") <= 3, done.stderr
        result = json.loads(done.stdout)
        assert Path(result["spooled"]).is_dir()
        left = len(waiting(Path(".longrun/spool")))
        assert left >= 3
        proxy.reset(lambda _: PASS)
        sent = sync(Path(".longrun/spool"), Server.from_environment())
        assert (len(sent.sent), sent.left) == (left, ())
        parent, children = runs("outage")
        assert [run.data.params["alpha"] for run in children] == [str(number) for number in range(1, 5)]
        assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
        assert MlflowClient().get_model_version_by_alias("outage", "candidate").run_id == parent.info.run_id


@pytest.mark.usefixtures("server", "table_csv")
def test_interruption_ends_parent_and_children(server: str, longrun: Longrun, threads: Callable[..., list[Threads]]) -> None:
    """After Ctrl-C nothing looks alive: what ran is KILLED, what was done is FINISHED, and the rest was never begun.

    The signal comes to another thread while all of them wait, so that nothing wakes the one that is to hear it.
    """
    write("stopped", f"alpha = {list(range(1, 21))}")
    # All lanes: one for each of the two workers, and as many to spare.
    together = threading.Barrier(4)

    def interrupt(configuration: Configuration) -> None:
        if configuration.estimator.parameters["alpha"] in range(5, 9):
            together.wait(DEADLINE_SECONDS)
        if configuration.estimator.parameters["alpha"] == 5:
            # Until the main thread has kept the first four trials and waits again; sooner, it would hear the signal anyway.
            time.sleep(0.2)
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        if configuration.estimator.parameters["alpha"] in range(5, 21):
            assert made[0].stopped.wait(DEADLINE_SECONDS)
            raise StoppedError(signal.SIGTERM)

    made = threads(interrupt)
    done = longrun("train", "--sweep")
    assert done.status == 130
    assert f"KILLED: {server}/#/" in done.stderr.splitlines()[-1]
    Server.from_environment()
    parent, children = runs("stopped")
    assert parent.info.status == "KILLED"
    assert [run.info.status for run in children][:4] == ["FINISHED"] * 4
    assert 5 <= len(children) < 20
    assert {run.info.status for run in children[4:]} == {"KILLED"}
    assert waiting(Path(".longrun/spool")) == []


@pytest.mark.usefixtures("server", "table_csv")
def test_all_trials_fail(longrun: Longrun, threads: Callable[..., list[Threads]]) -> None:
    """Then there is no best: status 4 and the first reason, the parent FAILED, no version."""
    write("hopeless", "alpha = [-1, -2]")
    threads()
    done = longrun("train", "--sweep")
    assert done.status == 4
    assert "all 2 trials of the sweep failed; the first one, alpha=-1: longrun.toml, line 7: sweep.parameters.alpha is not right" in done.stderr
    Server.from_environment()
    parent, children = runs("hopeless")
    assert [run.info.status for run in [parent, *children]] == ["FAILED"] * 3
    assert MlflowClient().search_model_versions("name = 'hopeless'") == []


@pytest.mark.parametrize(
    ("parameters", "arguments", "expected"),
    [
        ("alpha = [1]", ("--jobs", "2"), "--jobs belongs to --sweep"),
        ("alpha = [1]", ("--dask", "tcp://here:8786"), "--dask belongs to --sweep"),
        ("alpha = [1]", ("--sweep", "--jobs", "2", "--dask", "tcp://here:8786"), "leave out one of them"),
        ("alpha = [1]", ("--sweep", "--jobs", "0"), "--jobs"),
        ("", ("--sweep",), "line 6: sweep.parameters names nothing to try"),
        ("alfa = [1]", ("--sweep",), "longrun.toml, line 7: sweep.parameters.alfa is not a parameter of Ridge: did you mean alpha?"),
        ("alpha = []", ("--sweep",), "line 7: sweep.parameters.alpha has no values"),
        (f"alpha = {list(range(300))}\ntol = {list(range(300))}", ("--sweep",), "makes 90000 combinations, and 10000 are the most"),
        ("alpha = [1]", ("--sweep", "--set", "sweep.metric=accuracy"), "sweep.metric can't be computed"),
        ("alpha = [1]", ("--sweep", "--dask", "tcp://127.0.0.1:9"), "--dask tcp://127.0.0.1:9: no Dask scheduler answers there"),
        ("alpha = [1]", ("--sweep", "--dask", "nonsense://x"), "--dask nonsense://x: no Dask scheduler answers there"),
    ],
)
@pytest.mark.usefixtures("table_csv", "server")
def test_what_can_not_be_swept(parameters: str, arguments: tuple[str, ...], expected: str, longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line and status 4, before anything is recorded."""
    monkeypatch.setattr(crew, "CONNECT_SECONDS", 1)
    write("refused", parameters)
    done = longrun("train", *arguments)
    assert done.status == 4
    assert expected in done.error
    assert not Path(".longrun").exists()


@pytest.mark.usefixtures("table_csv", "server")
def test_without_dask(longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only whoever has a cluster needs the package."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    write("alone", "alpha = [1]")
    assert "--dask needs the package distributed" in longrun("train", "--sweep", "--dask", "tcp://here:8786").error


def test_equal_values_are_tried_once() -> None:
    """A value that stands there twice makes no second child; 1 and 1.0 and true may mean different things."""
    configuration = load(None, {"estimator.name": "Ridge", "sweep.parameters": {"alpha": [1, 1, 1.0, True], "solver": ["auto", "auto"]}})
    assert [found.label for found in sweeping.plan(configuration)] == [f"alpha={value}, solver=auto" for value in ("1", "1.0", "True")]


def test_the_best_is_a_number(table_csv: Path) -> None:
    """NaN is never the best, the direction is the metric's, and of equals the first one wins."""
    configuration = load(None, {"data": {"source": str(table_csv), "target": "price"}, "estimator.name": "Ridge", "sweep.parameters": {"alpha": [1, 2, 3, 4]}})
    dataset = train.prepare(configuration)
    combinations = sweeping.plan(configuration)
    outcome = Outcome("uuid", None, None, None, None, None)
    for metric, values, best in [("rmse", [math.nan, 2, 1, 1], 3), ("r2", [0.5, math.nan, 0.9, 0.9], 3), ("mae", [math.inf, 3, 4, 5], 2)]:
        changed = configuration.model_copy(update={"sweep": configuration.sweep.model_copy(update={"metric": metric})})
        search = sweeping._Search(changed, dataset, combinations, Threads(split(dataset, changed)), Path("spool"), Server("http://127.0.0.1:9", ""))
        search.trials = [
            sweeping.Trial(one, "FINISHED", outcome, trial.Measured(({metric: value}, {metric: value}), 1.0))
            for one, value in zip(combinations, values, strict=True)
        ]
        assert search.best().combination.number == best
    search.trials = [sweeping.Trial(one, "FINISHED", outcome, trial.Measured(({"mae": math.nan},) * 2, 1.0)) for one in combinations]
    with pytest.raises(ProblemError, match="no trial of the sweep has a mae that is a number"):
        search.best()


def test_the_figure_draws_any_parameter(table_csv: Path, tmp_path: Path) -> None:
    """Texts, lists, None and hundreds of values are drawn, and a parameter that never changes is not."""
    configuration = load(None, {"data": {"source": str(table_csv), "target": "price"}})
    dataset = train.prepare(configuration)
    values = [None, "a very long name of a solver", True, 0.5, [1, 2], *range(100)]
    points = [sweep_figure.Point(number, {"a": value, "b": 1, "c": number % 3}, number / 7, 0.1, number == 1) for number, value in enumerate(values, 1)]
    points.append(sweep_figure.Point(999, {"a": 1, "b": 1, "c": 1}, math.nan, math.nan, best=False))
    figure = sweep_figure.draw(points, "rmse", dataset)
    assert isinstance(figure, Figure)
    assert [axes.get_xlabel() for axes in figure.axes] == ["rank", "a", "c"]
    figure.savefig(tmp_path / "sweep.png")
    single = sweep_figure.draw(points[:1], "r2", dataset)
    assert len(single.axes) == 1
    single.savefig(tmp_path / "single.png")


def test_many_runs_say_the_same_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred runs that meet one outage are one line, not two hundred."""
    monkeypatch.setattr(terminal.console, "file", sys.stderr)
    with terminal.distinct():
        for uuid in ("0b0e7a5e-0000-4000-8000-000000000001", "0b0e7a5e-0000-4000-8000-000000000002"):
            terminal.note(f"the server is away: the run is kept in {uuid}")
        terminal.note("something else")
    terminal.note("something else")
    assert capsys.readouterr().err.count("\n") == 3
