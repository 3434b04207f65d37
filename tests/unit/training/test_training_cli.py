"""`longrun train` as a person and as CI meet it: against a real MLflow server, and against everything that goes wrong."""

import datetime
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from longrun_training import evaluation, figures, predictions
from longrun_training import server as server_module
from longrun_training.config import Configuration
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tests.unit.training import record_helpers as helpers

Longrun = Callable[..., Any]
SMALL = ("--set", "estimator.parameters.n_estimators=10", "--folds", "3", "--repeats", "2")
# What differs from one training to the next, however equal the model.
MEASURED = {"latency_ms", "duration_seconds", "model_size_bytes"}
LOGIN = {"MLFLOW_TRACKING_USERNAME": "alice", "MLFLOW_TRACKING_PASSWORD": "no-such-password"}
NOT_THERE = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"})


def runs_of(experiment: str) -> list[Any]:
    """Return the runs of an experiment, newest first; none where there is no experiment."""
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def test_train_twice_and_read_back(server: str, table_csv: Path, longrun: Longrun) -> None:
    """Two trainings are two runs and two versions, equal in their numbers, and everything about them can be read back."""
    arguments = ["train", "--data", str(table_csv), "--target", "price", "--seed", "7", "--json", *SMALL]
    # The first one in a process of its own, as CI starts it: what libraries print past Python shows only there.
    first = subprocess.run([sys.executable, "-m", "longrun_training.cli", *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert first.returncode == 0, first.stderr
    one = json.loads(first.stdout)
    assert first.stdout.count("\n") == 1
    assert all(line[:1] in "✓ " or line == f"houses on {server}" for line in first.stderr.splitlines()), first.stderr
    second = longrun(*arguments)
    assert second.status == 0
    two = json.loads(second.stdout)

    assert set(one) == {"uuid", "run_id", "experiment_id", "experiment", "model_name", "model_version", "run_url", "spooled", "metrics"}
    assert (one["model_name"], one["model_version"], two["model_version"]) == ("houses", "1", "2")
    assert one["run_url"] == f"{server}/#/experiments/{one['experiment_id']}/runs/{one['run_id']}"
    assert {name: value for name, value in one["metrics"].items() if name not in MEASURED} == {
        name: value for name, value in two["metrics"].items() if name not in MEASURED
    }
    assert set(one["metrics"]) > MEASURED

    client = MlflowClient()
    run = client.get_run(two["run_id"])
    assert run.info.status == "FINISHED"
    wanted = {"estimator": "RandomForestRegressor", "n_estimators": "10", "max_depth": "12", "target": "price", "rows": "60", "features": "2"}
    wanted |= {"folds": "3", "repeats": "2", "seed": "7", "holdout_fraction": "0.2"}
    assert run.data.params.items() >= wanted.items()
    assert len(run.data.params["data_sha256"]) == 64
    tags = run.data.tags
    assert tags["longrun.data_source"] == str(table_csv)
    assert tags.items() >= {"longrun.kind": "train", "longrun.uuid": two["uuid"], "longrun.seed": "7", "longrun.split_version": "1"}.items()
    assert (len(tags["longrun.schema_sha256"]), tags["longrun.metric_version"]) == (64, "1")
    assert {name: run.data.metrics[name] for name in two["metrics"]} == pytest.approx(two["metrics"])
    history = client.get_metric_history(two["run_id"], "cv_rmse")
    assert [metric.step for metric in history] == [1, 2, 3, 4, 5, 6]
    assert sum(metric.value for metric in history) / 6 == pytest.approx(two["metrics"]["cv_rmse_mean"])

    assert run.inputs is not None
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.source_type) == ("houses", "local")
    assert run.data.params["data_sha256"].startswith(dataset.digest)
    assert str(table_csv) in dataset.source
    listed = {item.path for item in client.list_artifacts(two["run_id"])}
    assert listed == {"configuration.json", "environment.json", "requirements.txt", "predictions.parquet", "figures"}
    assert {item.path for item in client.list_artifacts(two["run_id"], "figures")} == {"figures/residuals.png", "figures/importance.png"}
    for item in client.list_artifacts(two["run_id"], "figures"):
        stored = mlflow.artifacts.download_artifacts(run_id=two["run_id"], artifact_path=item.path)
        assert Path(stored).read_bytes().startswith(b"\x89PNG")

    _check_artifacts(one["run_id"], two["run_id"], two["metrics"], tags)

    version = client.get_model_version("houses", "2")
    assert version.run_id == two["run_id"]
    assert client.get_model_version_by_alias("houses", "candidate").version == "2"
    model = mlflow.pyfunc.load_model("models:/houses/2")
    assert [column.name for column in model.metadata.signature.inputs.inputs] == ["area", "age"]
    assert list(model.input_example.columns) == ["area", "age"]
    assert "scikit-learn==" in Path(mlflow.artifacts.download_artifacts("models:/houses/2/requirements.txt")).read_text(encoding="utf-8")
    table = pd.read_csv(table_csv)
    assert abs(model.predict(table[["area", "age"]]) - table["price"]).mean() < table["price"].std() / 2


def _check_artifacts(first: str, second: str, metrics: dict[str, float], tags: dict[str, str]) -> None:
    """Both runs say the same of each row, which is what their tags and metrics say, and keep how they were made."""
    of_each = [predictions.read(Path(mlflow.artifacts.download_artifacts(run_id=run, artifact_path="predictions.parquet"))) for run in (first, second)]
    pd.testing.assert_frame_equal(of_each[0].frame, of_each[1].frame)
    assert of_each[1].sha256 == tags["longrun.holdout_sha256"]
    errors = of_each[1].actual - of_each[1].predicted
    assert (errors**2).mean() ** 0.5 == pytest.approx(metrics["holdout_rmse"])
    configuration = mlflow.artifacts.load_text(f"runs:/{second}/configuration.json")
    assert Configuration.model_validate_json(configuration).evaluation.seed == 7


def test_a_person_reads_a_small_table(server: str, longrun: Longrun) -> None:
    """Without --json standard output stays empty, and the screen shows scores, version and where to look."""
    done = longrun("train", "--model", "shown", *SMALL)
    assert (done.status, done.stdout) == (0, "")
    lines = done.stderr.splitlines()
    assert any(line.startswith("RMSE") and "±" in line for line in lines)
    assert "model  shown, version 1" in lines
    assert lines[-1].startswith(f"run    {server}/#/experiments/")
    # The note is what `gate` begins with; nothing waits in the spool.
    assert json.loads(Path(".longrun/last-run.json").read_text(encoding="utf-8"))["version"] == "1"


def test_classes_by_a_file_with_groups_and_slices(server: str, longrun: Longrun, tmp_path: Path) -> None:
    """The whole way with a longrun.toml: a classifier behind a scaler, classes with probabilities, a slice, and figures of classes."""
    folder = tmp_path / "models" / "flowers"
    folder.mkdir(parents=True)
    written = folder / "longrun.toml"
    written.write_text(
        """
        model.name = "flowers"
        data.source = "sklearn:iris"
        estimator = { name = "LogisticRegression", scale = true }
        evaluation = { folds = 2, repeats = 2 }
        metrics.log_loss.margin = 0.05
        [slices.long]
        column = "petal length (cm)"
        at_least = 4
        """,
        encoding="utf-8",
    )
    done = longrun("train", "--config", str(written), "--json")
    assert done.status == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["run_url"].startswith(server)
    assert result["metrics"]["holdout_accuracy"] > 0.8
    assert {"cv_roc_auc_mean", "cv_log_loss_std", "holdout_f1", "holdout_balanced_accuracy"} < set(result["metrics"])
    drawn = {item.path for item in MlflowClient().list_artifacts(result["run_id"], "figures")}
    assert drawn == {f"figures/{name}.png" for name in ("confusion", "probabilities", "importance")}
    found = predictions.read(Path(mlflow.artifacts.download_artifacts(run_id=result["run_id"], artifact_path="predictions.parquet")))
    assert found.probabilities is not None
    assert found.probabilities.classes == ("setosa", "versicolor", "virginica")
    assert 0 < found.slices["long"].sum() < len(found.frame)
    model = mlflow.pyfunc.load_model("models:/flowers@candidate")
    assert set(model.predict(model.input_example)) <= set(found.probabilities.classes)


@pytest.mark.parametrize(
    "arguments",
    [("--set", "estimator.parameters.n_estimators=2"), ("--data", "sklearn:iris", "--estimator", "LogisticRegression", "--set", "estimator.scale=true")],
)
def test_few_requests(arguments: tuple[str, ...], server_uri: str, longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request costs tens of milliseconds over TLS, so that they bound what recording may cost: 32 for a usual run of 15 folds and its model.

    Batches of metrics and signs of life depend on how long the run takes; all else does not.
    """
    began = time.monotonic()
    with helpers.proxied(server_uri) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
        assert longrun("train", "--model", "few", *arguments).status == 0
        assert 20 < len(proxy.asked) - helpers.timed(proxy.asked, time.monotonic() - began, batches=3) <= 29, proxy.asked


def test_interruption_ends_the_run(server: str, longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, and CI's SIGTERM, must not leave a run that looks alive for ever, nor an empty model."""
    for number in (signal.SIGINT, signal.SIGTERM):

        def interrupted(*_: object, sent: signal.Signals = number, **__: object) -> Iterator[dict[str, float]]:
            os.kill(os.getpid(), sent)
            yield {"rmse": 1.0}

        monkeypatch.setattr(evaluation, "cross_validate", interrupted)
        done = longrun("train", "--experiment", "interrupted")
        assert done.status == 128 + number
        last = done.stderr.splitlines()[-1]
        assert last.startswith("longrun: interrupted: ")
        assert f"KILLED: {server}/#/" in last
    assert [run.info.status for run in runs_of("interrupted")] == ["KILLED", "KILLED"]
    with pytest.raises(MlflowException, match="not found"):
        MlflowClient().get_registered_model("interrupted")


def test_a_bug_ends_the_run_and_shows_no_traceback(server: str, longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens after the beginning, the run is FAILED and a person reads one line."""

    def broken(*_: object) -> None:
        message = "no more\nmemory"
        raise MemoryError(message)

    monkeypatch.setattr(figures, "residuals", broken)
    done = longrun("train", "--experiment", "broken", *SMALL)
    assert done.status == 4
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("longrun: a bug in longrun: MemoryError: no more memory; ")
    assert "FAILED" in last
    assert server in last
    assert [run.info.status for run in runs_of("broken")] == ["FAILED"]


@pytest.mark.usefixtures("server")
def test_a_deleted_experiment_is_not_written_to(longrun: Longrun) -> None:
    """MLflow keeps the name of a deleted experiment; the line says how to get it back."""
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    number = client.create_experiment("gone")
    client.delete_experiment(number)
    assert f"experiments restore -x {number}" in longrun("train", "--experiment", "gone").error


@pytest.mark.usefixtures("server")
def test_bad_data_leaves_nothing_on_the_server(tmp_path: Path, longrun: Longrun) -> None:
    """Data are checked before the server hears of them."""
    path = tmp_path / "untidy.csv"
    path.write_text("a,y\n1,2\n3,four\n", encoding="utf-8")
    done = longrun("train", "--data", str(path), "--target", "y")
    assert done.status == 4
    assert f"{path}, line 3: column 'y' holds 'four'" in done.error
    path.write_text("a,y\n1,2\n3,4\n", encoding="utf-8")
    assert "has only 2 rows" in longrun("train", "--data", str(path), "--target", "y").error
    assert MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).get_experiment_by_name("untidy") is None
    assert not Path(".longrun").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--target", "y"), "--target y needs --data FILE"),
        (("--data", "t.csv"), "--data t.csv needs --target COLUMN"),
        (("--set", "metrics.accuracy.margin=0.1"), "--set metrics.accuracy can't be computed: RandomForestRegressor is for regression; take some of rmse"),
        (("--data", "sklearn:iris", "--estimator", "LinearSVC", "--set", "metrics.log_loss.margin=0.1"), "LinearSVC gives no probabilities"),
        (("--estimator", "RandomForrest"), "--estimator is 'RandomForrest', which is no classifier or regressor"),
        (("--config", "nowhere.toml"), "nowhere.toml does not exist: check --config"),
        (("--set", "slices.a.column=age_years", "--set", "slices.b.below=3"), "slices.b.column is missing"),
    ],
)
def test_configurations_that_can_not_be_trained(arguments: tuple[str, ...], expected: str, longrun: Longrun) -> None:
    """One line each, before a server is asked for."""
    done = longrun("train", *arguments)
    assert done.status == 4
    assert expected in done.error


@pytest.mark.parametrize("arguments", [("--model", "a/b"), ("--model", "a:b"), ("--experiment", " ")])
def test_names_that_mlflow_refuses(arguments: tuple[str, str], longrun: Longrun) -> None:
    """A name is refused before an hour of training, not after it."""
    assert f"write {arguments[0]} NAME" in longrun("train", *arguments).error


@pytest.mark.parametrize(
    "arguments", [("--folds", "1"), ("--folds", "many"), ("--set", "estimator.parameters.n_estimators=0"), ("--seed", "-1"), ("--no-such-option",)]
)
def test_wrong_usage_is_status_4(arguments: tuple[str, ...], longrun: Longrun) -> None:
    """Scripts tell a typo from a model that failed its gate (1), an inconclusive one (2) and an outage (3)."""
    done = longrun("train", *arguments)
    assert done.status == 4
    assert arguments[0].removeprefix("--set") in done.error


def test_help_shows_examples(longrun: Longrun) -> None:
    """The help is the manual, and `train` is a subcommand from the first day on."""
    assert "train" in longrun("--help").stdout
    done = longrun("train", "--help")
    assert done.status == 0
    assert "longrun train --data houses.csv --target price" in done.stdout


@pytest.mark.parametrize("uri", ["", "sqlite:///mlflow.db", "mlruns", "https://", "http://127.0.0.1:99999", "ftp://me:secret@host"])
def test_no_server_is_named(uri: str, longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in a folder of the machine would be lost to the team: only a server will do, and the line says how to name one."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    done = longrun("train")
    assert done.status == 4
    assert 'eval "$(make -s env)"' in done.error
    assert "secret" not in done.error


def test_nobody_listens(longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away costs no training: the reason is there within seconds and without the password, and the run waits in the spool."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://alice:secret@127.0.0.1:{unused.getsockname()[1]}")
        done = longrun("train", "--model", "alone", *SMALL)
    assert done.status == 0
    assert "can't be reached (connection refused)" in done.stderr
    assert "secret" not in done.stderr
    [spooled] = [path for path in Path(".longrun/spool").iterdir() if path.is_dir()]
    assert any(line.startswith("spool  ") and spooled.name in line and "longrun sync" in line for line in done.stderr.splitlines())
    assert "model  alone\n" in done.stderr


def test_a_server_that_never_answers(longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes the connection and says nothing is found out as well; the client's own patience comes back afterwards."""
    monkeypatch.setattr(server_module, "IMPATIENT_SECONDS", 1)
    monkeypatch.setattr(server_module, "SLOW_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        done = longrun("train", "--json", *SMALL)
    assert done.status == 0
    assert "no answer in time" in done.stderr
    result = json.loads(done.stdout)
    assert (result["run_id"], result["model_version"]) == (None, None)
    assert Path(result["spooled"]).is_dir()
    assert result["metrics"]["holdout_rmse"] > 0
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_a_slow_server_is_waited_for(server_uri: str, longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, so the run belongs to it and not into the spool, although its first answer takes long."""
    monkeypatch.setattr(server_module, "IMPATIENT_SECONDS", 1)

    def slow_at_first(number: int) -> str:
        if number == 1:
            time.sleep(2)
        return helpers.PASS

    with helpers.proxied(server_uri) as proxy:
        proxy.reset(slow_at_first)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
        done = longrun("train", "--model", "slow", *SMALL)
    assert done.status == 0, done.stderr
    assert "is there and has not answered within 1 s: waiting for it" in done.stderr
    assert "model  slow, version 1" in done.stderr


def test_wrong_password(answering: Callable[..., list[str]], longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request, no second try (a lock-out counts them), and the password is not repeated."""
    requests = answering((401, "You are not authenticated.", {"WWW-Authenticate": "Basic"}))
    assert "wants a login: set MLFLOW_TRACKING_USERNAME" in longrun("train").error
    for name, value in LOGIN.items():
        monkeypatch.setenv(name, value)
    requests.clear()
    done = longrun("train")
    assert done.status == 4
    assert "does not accept the login of 'alice'" in done.error
    assert "no-such-password" not in done.error
    assert requests == ["GET /api/2.0/mlflow/experiments/get-by-name"]


def test_somebody_elses_experiment(answering: Callable[..., list[str]], longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server keeps experiments to their owners; the line names the experiment and the way out."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "alice")
    answering((403, "Permission denied", {}))
    error = longrun("train", "--experiment", "theirs").error
    assert "'alice' may not write to experiment 'theirs'" in error
    assert "take another --experiment" in error


def test_somebody_elses_model(answering: Callable[..., list[str]], longrun: Longrun) -> None:
    """A model of somebody else is found out before the training, and before an experiment is made for it."""
    exists = json.dumps({"error_code": "RESOURCE_ALREADY_EXISTS", "message": "there"})
    denied: tuple[int, str, dict[str, str]] = (403, "Permission denied", {})
    requests = answering((404, NOT_THERE, {}), denied, (400, exists, {}), denied)
    error = longrun("train", "--model", "theirs").error
    assert "may not write to model 'theirs'" in error
    assert [request.rpartition("/mlflow/")[2] for request in requests] == [
        "experiments/get-by-name",
        "registered-models/get",
        "registered-models/create",
        "registered-models/get",
    ]


@pytest.mark.parametrize("answer", [(200, "<html>Welcome to nginx</html>", {}), (404, "<html>Not Found</html>", {})])
def test_something_else_answers(answer: tuple[int, str, dict[str, str]], answering: Callable[..., list[str]], longrun: Longrun) -> None:
    """The address of another service gives one line, not a page of HTML."""
    answering(answer)
    done = longrun("train", *SMALL)
    assert done.status == 4
    assert "does not answer as MLflow does" in done.error
    assert "<html>" not in done.error


def test_a_broken_server_costs_no_training(answering: Callable[..., list[str]], longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with a bug, or with a full disk, is away."""
    monkeypatch.setenv("LONGRUN_PATIENCE_SECONDS", "0")
    answering((500, "<html>oops</html>", {}))
    done = longrun("train", *SMALL)
    assert done.status == 0
    assert "answers 500" in done.stderr
    assert "<html>" not in done.stderr


def test_a_restarting_server_is_waited_for(answering: Callable[..., list[str]], longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """While MLflow restarts, nginx answers 429 with Retry-After: CI must not lose its run to an upgrade."""
    monkeypatch.setenv("LONGRUN_PATIENCE_SECONDS", "20")
    requests = answering((429, "{}", {"Retry-After": "0"}), (429, "{}", {"Retry-After": "0"}), (401, "no", {}))
    done = longrun("train")
    assert "restarting or busy: waiting for it" in done.stderr
    assert "wants a login" in done.stderr.splitlines()[-1]
    assert len(requests) == 3


def _certificate(folder: Path, hours: int) -> tuple[Path, Path]:
    """Make a certificate that signs itself and is valid for so many more hours; return its file and its key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "longrun test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=2))
        .not_valid_after(now + datetime.timedelta(hours=hours))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "server.crt", folder / "server.key"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return public, private


@pytest.fixture
def tls_server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    """The address of a TLS server with a private certificate, and that certificate's file; the parameter is how many hours it is still valid."""
    public, private = _certificate(tmp_path, getattr(request, "param", 1))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(65536)
                    secured.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            except (ssl.SSLError, OSError):
                connection.close()

    threading.Thread(target=serve, daemon=True).start()
    yield f"https://127.0.0.1:{listener.getsockname()[1]}", public
    listener.close()


@pytest.mark.parametrize("tls_server", [-1], indirect=True)
def test_an_expired_certificate(tls_server: tuple[str, Path], longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the server's to renew, and nothing that a client could set."""
    uri, certificate = tls_server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
    assert "has expired: have it renewed on the server, and check the clock of this machine" in longrun("train").error


def test_private_certificates(tls_server: tuple[str, Path], tmp_path: Path, longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private authority is trusted when its file is named, and each way of getting that wrong says so."""
    uri, certificate = tls_server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    error = longrun("train").error
    assert "is not trusted: set MLFLOW_TRACKING_SERVER_CERT_PATH" in error
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
    assert "wants a login" in longrun("train").error
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.replace("127.0.0.1", "localhost"))
    assert "certificate of another name" in longrun("train").error
    nonsense = tmp_path / "nonsense.crt"
    nonsense.write_text("no certificate", encoding="utf-8")
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(nonsense))
    assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in longrun("train").error
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path / "nowhere.crt"))
    assert "no file here" in longrun("train").error


def test_plain_http_behind_https(answering: Callable[..., list[str]], longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """https:// for a server that speaks http is a typo with a name."""
    answering((200, "{}", {}))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", os.environ["MLFLOW_TRACKING_URI"].replace("http:", "https:"))
    assert "does not speak TLS" in longrun("train").error
