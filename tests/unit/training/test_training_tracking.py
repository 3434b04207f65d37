"""What is recorded reaches a real server, as a stock client would have left it, and no failure of server or disk loses it."""

import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib as mpl
import mlflow
import numpy as np
import pytest
from longrun_training import server as server_module
from longrun_training.errors import OutageError, ProblemError, StoppedError
from longrun_training.heartbeat import Heartbeat
from longrun_training.spool import waiting
from longrun_training.sync import sync
from longrun_training.tracking import Outcome, Recorder, Server, find_run, record
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sklearn.linear_model import LinearRegression

from tests.unit.training import record_helpers as helpers
from tests.unit.training.record_helpers import BUSY, LOSE, PASS, REFUSE, Proxy

MIB = 1 << 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as `train` saves it."""
    return helpers.save_model(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def proxy(server_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the real server, which the client contract names."""
    with helpers.proxied(server_uri) as made:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
        monkeypatch.setenv("LONGRUN_PATIENCE_SECONDS", "0")
        yield made


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that nobody is."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{unused.getsockname()[1]}")
        yield Server.from_environment()


def recorded(experiment: str, spool: Path, server: Server, model: Path | None) -> Outcome:
    """Record a small run."""
    with record(helpers.description(experiment), spool=spool, server=server) as recorder:
        helpers.small_run(recorder, model)
    return recorder.outcome


@pytest.mark.usefixtures("server")
def test_as_a_stock_client_leaves_it(tmp_path: Path, model: Path) -> None:
    """Whoever comes with MLflow's own tools finds what MLflow's own `log_model` would have left, and nothing waits in the spool."""
    server = Server.from_environment()
    rows = np.arange(8.0).reshape(4, 2)
    experiment = mlflow.set_experiment("stock").experiment_id
    with mlflow.start_run(experiment_id=experiment):
        mlflow.log_metric("holdout_rmse", 0.1)
        fitted = LinearRegression().fit(rows, rows.sum(axis=1))
        mlflow.sklearn.log_model(
            fitted,
            name="ours",
            signature=mlflow.models.infer_signature(rows, fitted.predict(rows)),
            pip_requirements=["scikit-learn"],
            serialization_format="skops",
            params={"fit_intercept": True},
            model_type="regressor",
            registered_model_name="ours",
        )
    spool = tmp_path / "spool"
    outcome = recorded("ours", spool, server, model)
    assert waiting(spool) == []
    assert outcome.spooled is None
    assert outcome.version == "2"

    [stock], [ours] = (helpers.everything(run, tmp_path)["models"] for name in ("stock", "ours") for run in helpers.runs_of(name))
    for side in (stock, ours):
        # What is written at different times, and by whom.
        side["files"]["MLmodel"] = b"\n".join(line for line in side["files"]["MLmodel"].splitlines() if not line.startswith(b"utc_time_created"))
        # A ZIP file, with its own times.
        assert side["files"].pop("model.skops")
    assert ours["files"] == stock["files"]
    assert {name: ours[name] for name in ("name", "type", "status", "versions", "parameters")} == {
        name: stock[name] for name in ("name", "type", "status", "versions", "parameters")
    }
    assert set(ours["metrics"]) - set(stock["metrics"]) == {("endless", 0, 1.7976931348623157e308)}
    assert "mlflow.modelVersions" in ours["tags"]

    [run] = helpers.runs_of("ours")
    client = MlflowClient()
    assert find_run(client, "ours", outcome.uuid) is not None
    assert find_run(client, "ours", "another") is None
    assert client.get_model_version_by_alias("ours", "candidate").run_id == outcome.run_id == run.info.run_id
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "cv_rmse")] == [1, 2, 3]
    assert str(run.data.metrics["undefined"]) == "nan"
    assert mlflow.pyfunc.load_model("models:/ours@candidate").predict(rows).shape == (4,)
    assert run.data.tags["longrun.kind"] == "train"
    assert run.data.tags["longrun.heartbeat"].isdecimal()
    assert float(run.data.tags["longrun.duration_seconds"]) >= 0


def test_few_requests(proxy: Proxy, tmp_path: Path, model: Path) -> None:
    """Each request costs tens of milliseconds over TLS: a usual run needs 32 at most, whatever the number of folds."""
    recorded("few", tmp_path, Server.from_environment(), model)
    proxy.reset()
    with record(helpers.description("few"), spool=tmp_path, server=Server.from_environment()) as recorder:
        for step in range(15):
            recorder.log_metrics({"cv_rmse": 1 / (step + 1), "cv_mae": 1.0}, step + 1)
        for name in ("a.json", "b.json", "c.json", "d.json"):
            recorder.log_json({}, name)
        helpers.small_run(recorder, model)
    # `train` stores an input example, which makes two more files.
    assert 20 < len(proxy.asked) <= 30, proxy.asked


@pytest.mark.usefixtures("server")
def test_byte_for_byte(tmp_path: Path) -> None:
    """Figures, texts and files arrive as they were when they were recorded, whatever becomes of the originals."""
    source = tmp_path / "table.bin"
    source.write_bytes(bytes(range(256)) * 1000)
    figure = Figure()
    figure.subplots().plot([1, 2])
    with record(helpers.description("bytes"), spool=tmp_path / "spool", server=Server.from_environment()) as recorder:
        recorder.log_file(source, "deep/er/table.bin")
        source.write_bytes(b"changed")
        recorder.log_figure(figure, "figures/a.png")
        recorder.log_text("größer\r\n", "notes.txt")
        with pytest.raises(ValueError, match="no path of an artifact"):
            recorder.log_text("", "../outside.txt")
        with pytest.raises(ValueError, match="log_model comes first"):
            recorder.register()
        recorder.log_parameters({"depth": 1})
        with pytest.raises(ValueError, match="'depth' is '1' already"):
            recorder.log_parameters({"depth": 2})
    [run] = helpers.runs_of("bytes")
    stored = helpers.everything(run, tmp_path)["artifacts"]
    assert stored["deep/er/table.bin"] == bytes(range(256)) * 1000
    assert stored["notes.txt"] == "größer\r\n".encode()
    assert stored["figures/a.png"].startswith(b"\x89PNG")
    assert mpl.get_backend()


@pytest.mark.usefixtures("server")
def test_the_end_of_the_block_is_the_end_of_the_run(tmp_path: Path) -> None:
    """A run that failed or was interrupted says so on the server and to the person, and takes back the model that it only claimed."""
    server = Server.from_environment()
    endings = [(StoppedError(15), "KILLED"), (KeyboardInterrupt(), "KILLED"), (MemoryError("no more"), "FAILED")]
    for ending, status in endings:
        with pytest.raises(type(ending)) as caught, record(helpers.description("ends"), spool=tmp_path, server=server) as recorder:  # noqa: PT012
            recorder.log_parameters({"a": 1})
            raise ending
        assert caught.value.__notes__ == [f"the run is marked {status}: {recorder.outcome.url}"]
    message = "no such column"
    with (
        pytest.raises(ProblemError, match=r"no such column \(the run is marked FAILED: http"),
        record(helpers.description("ends"), spool=tmp_path, server=server),
    ):
        raise ProblemError(message)
    assert sorted(run.info.status for run in helpers.runs_of("ends")) == ["FAILED", "FAILED", "KILLED", "KILLED"]
    assert [run.data.params for run in helpers.runs_of("ends")].count({"a": "1"}) == 3
    with pytest.raises(MlflowException, match="not found"):
        MlflowClient().get_registered_model("ends")
    assert waiting(tmp_path) == []


def test_away_from_the_beginning(away: Server, proxy: Proxy, tmp_path: Path, model: Path) -> None:
    """The run is made within seconds, waits in the spool, and is the same run after a sync, with its own times."""
    started = time.monotonic()
    outcome = recorded("away", tmp_path / "spool", away, model)
    assert time.monotonic() - started < 5
    assert (outcome.run_id, outcome.version, outcome.url) == (None, None, None)
    assert waiting(tmp_path / "spool") == [outcome.spooled]
    before = time.time() * 1000
    server = Server.from_environment() if away.uri != proxy.uri else away
    assert "recorded for http" in sync(tmp_path / "spool", server).left[0].reason
    [sent] = sync(tmp_path / "spool", server, any_server=True).sent
    assert waiting(tmp_path / "spool") == []
    run = MlflowClient().get_run(sent.run_id)
    assert run.info.start_time <= run.info.end_time < before
    assert sent.version == "1"
    history = MlflowClient().get_metric_history(sent.run_id, "cv_rmse")
    assert all(run.info.start_time <= metric.timestamp <= run.info.end_time for metric in history)


def test_away_in_the_middle(proxy: Proxy, tmp_path: Path, model: Path) -> None:
    """The training goes on, the rest is kept, and after the sync the run is the one that it would have been."""
    server = Server.from_environment()
    reference = recorded("middle", tmp_path / "spool", server, model)
    proxy.reset(lambda number: PASS if number < 6 else REFUSE)
    outcome = recorded("middle", tmp_path / "spool", server, model)
    assert outcome.run_id is not None
    assert outcome.spooled is not None
    proxy.reset()
    assert [sent.run_id for sent in sync(tmp_path / "spool", server).sent] == [outcome.run_id]
    runs = helpers.runs_of("middle")
    one, two = (helpers.everything(run, tmp_path) for run in runs if run.info.run_id in {reference.run_id, outcome.run_id})
    assert one == two


def test_a_restart_is_waited_for(proxy: Proxy, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While MLflow restarts, nginx answers 429, and answers get lost: the run is whole nevertheless, made once, and needs no sync."""
    monkeypatch.setenv("LONGRUN_PATIENCE_SECONDS", "20")
    fates = {1: BUSY, 4: LOSE, 8: REFUSE, 13: LOSE, 22: LOSE}
    proxy.reset(lambda number: fates.get(number, PASS))
    outcome = recorded("restart", tmp_path, Server.from_environment(), model)
    assert outcome.spooled is None
    assert outcome.version == "1"
    [run] = helpers.runs_of("restart")
    assert run.info.status == "FINISHED"
    assert len(helpers.models_of(run)) == 1


@pytest.mark.usefixtures("server")
def test_refused_in_the_middle(tmp_path: Path) -> None:
    """What the server does not take is said at the end, and the whole run is kept."""
    description, server = helpers.description("refused"), Server.from_environment()
    with (
        pytest.raises(ProblemError, match=r"all of it is kept in .*`longrun sync`\)") as caught,
        record(description, spool=tmp_path, server=server) as recorder,
    ):
        recorder.log_metrics({"bad\nname": 1.0})
    assert "refuses model 'refused'" in str(caught.value)
    assert [run.info.status for run in helpers.runs_of("refused")] == ["FAILED"]
    assert waiting(tmp_path) == [recorder.outcome.spooled]


def test_wrong_password(answering: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found out before the training, and leaves nothing in the spool."""
    asked = answering((401, "no", {}))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "alice")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "no-such-password")
    with (
        pytest.raises(ProblemError, match="does not accept the login of 'alice'") as caught,
        record(helpers.description("locked"), spool=tmp_path / "spool", server=Server.from_environment()),
    ):
        pytest.fail("the block must not begin")
    assert not isinstance(caught.value, OutageError)
    assert not (tmp_path / "spool").exists()
    assert len(asked) == 1


def test_somebody_elses_model(answering: Callable[..., list[str]], tmp_path: Path) -> None:
    """A model that may not be used is found out before the run is made; a server that hides it answers 403 until one tries to make it."""
    none, there = '{"error_code": "RESOURCE_DOES_NOT_EXIST"}', '{"error_code": "RESOURCE_ALREADY_EXISTS"}'
    asked = answering((404, none, {}), (403, "Permission denied", {}), (400, there, {}), (403, "Permission denied", {}))
    with (
        pytest.raises(ProblemError, match="may not write to model 'theirs'"),
        record(helpers.description("theirs"), spool=tmp_path, server=Server.from_environment()),
    ):
        pytest.fail("the block must not begin")
    assert [request.rpartition("/mlflow/")[2] for request in asked] == [
        "experiments/get-by-name",
        "registered-models/get",
        "registered-models/create",
        "registered-models/get",
    ]
    assert waiting(tmp_path) == []


@pytest.fixture
def small_files() -> Iterator[None]:
    """A disk that takes no file beyond 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(recorder: Recorder, source: Path) -> None:
    """Record little, then more than the disk takes, then little."""
    recorder.log_metrics({"before": 1.0})
    recorder.log_file(source, "large.bin")
    recorder.log_metrics({"after": 1.0})


@pytest.mark.usefixtures("server")
def test_full_disk_with_a_server(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The server has everything; the spool is only what would have helped."""
    source = tmp_path / "large.bin"
    source.write_bytes(b"x" * MIB)
    request.getfixturevalue("small_files")
    with record(helpers.description("full"), spool=tmp_path / "spool", server=Server.from_environment()) as recorder:
        fill(recorder, source)
    assert recorder.outcome.spooled is None
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    [run] = helpers.runs_of("full")
    assert run.info.status == "FINISHED"
    found = helpers.everything(run, tmp_path)
    assert found["artifacts"] == {"large.bin": b"x" * MIB}
    assert set(found["metrics"]) == {"before", "after"}


def test_full_disk_without_a_server(away: Server, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """There is nowhere to go: one line says so, and what was recorded until then can still be sent."""
    source = tmp_path / "large.bin"
    source.write_bytes(b"x" * MIB)
    request.getfixturevalue("small_files")
    with (
        pytest.raises(ProblemError, match=r"is away, and the spool .* can't be written") as caught,
        record(helpers.description("nowhere"), spool=tmp_path / "spool", server=away) as recorder,
    ):
        fill(recorder, source)
    assert "\n" not in str(caught.value)
    assert waiting(tmp_path / "spool") == [recorder.outcome.spooled]


def test_a_spool_that_is_a_file(away: Server, tmp_path: Path) -> None:
    """A spool that can't be made is found out before an hour of training."""
    (tmp_path / "spool").write_text("", encoding="utf-8")
    with pytest.raises(ProblemError, match="is away, and the spool"), record(helpers.description("x"), spool=tmp_path / "spool", server=away):
        pytest.fail("the block must not begin")


@pytest.mark.usefixtures("server")
def test_the_heartbeat_beats_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It renews its tag while the run lives, and leaves no thread behind."""
    monkeypatch.setattr(Heartbeat.__init__, "__defaults__", (0.05,))
    server = Server.from_environment()
    client = MlflowClient()
    with record(helpers.description("beats"), spool=tmp_path, server=server) as recorder:
        first = client.get_run(str(recorder.run_id)).data.tags["longrun.heartbeat"]
        deadline = time.monotonic() + 10
        while client.get_run(str(recorder.run_id)).data.tags["longrun.heartbeat"] == first:
            assert time.monotonic() < deadline
    for thread in threading.enumerate():
        if thread.name.startswith("longrun-"):
            thread.join(10)
            assert not thread.is_alive()


def test_patience_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo there must not wait for ever."""
    monkeypatch.setenv("LONGRUN_PATIENCE_SECONDS", "soon")
    with pytest.raises(ProblemError, match="LONGRUN_PATIENCE_SECONDS is 'soon'"):
        server_module.patience()
