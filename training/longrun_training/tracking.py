"""The tracking server as a run sees it: is it there, may we, and everything that is recorded. Only MLflow's public client is used."""

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import mlflow.sklearn
import requests
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Dataset as LoggedDataset
from mlflow.entities import DatasetInput, Experiment, InputTag, LifecycleStage, LoggedModelStatus, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from sklearn.ensemble import RandomForestRegressor

from longrun_training import terminal
from longrun_training.data import Dataset
from longrun_training.errors import ProblemError, StoppedError
from longrun_training.model import TRUSTED_TYPES, predict, requirements

CONTRACT = 'eval "$(make -s env)"'
# How long the first call, and the last one of a run that went wrong, wait for an answer.
IMPATIENT_SECONDS = 4
# What a server or the proxy before it answers while it restarts or is too busy; MLflow's client tries these again.
RESTARTING = frozenset({408, 429, 502, 503, 504})
UNAUTHORIZED, FORBIDDEN = 401, 403
# How often a wait for the server is said to be one.
NOTICE_SECONDS = 30.0
# The example that is stored with a model, for its users to copy.
EXAMPLE_ROWS = 5
DIGEST_CHARACTERS = 12
SHOWN_CHARACTERS = 200

Failure = MlflowException | requests.RequestException


@contextmanager
def _impatient() -> Iterator[None]:
    """Make MLflow's client fail at once, where it would try again for minutes."""
    wanted = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(IMPATIENT_SECONDS)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _RetryNotice(logging.Handler):
    """Says that the server is being waited for, which MLflow's client does in silence."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._said: float | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Turn urllib3's lines of a repeated request into one of ours, now and then."""
        if str(record.msg).startswith("Retry") and (self._said is None or time.monotonic() - self._said > NOTICE_SECONDS):
            self._said = time.monotonic()
            terminal.note("the server does not answer or is restarting: trying again, for some minutes")


@contextmanager
def _telling_retries() -> Iterator[None]:
    logger, notice = logging.getLogger("urllib3.connectionpool"), _RetryNotice()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(notice)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(notice)
        logger.setLevel(level)
        logger.propagate = propagate


def _status(error: Failure) -> int | None:
    """Return the HTTP status behind an error, or None where the server did not answer."""
    for cause in _causes(error):
        if isinstance(cause, requests.exceptions.RetryError):
            found = re.search(r"too many (\d{3}) error", str(cause))
            return int(found[1]) if found else None
        if isinstance(cause, requests.HTTPError) and cause.response is not None:
            return cause.response.status_code
        if isinstance(cause, requests.RequestException | OSError):
            return None
    return int(error.get_http_status_code()) if isinstance(error, MlflowException) else None  # type: ignore[no-untyped-call]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what is below it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _code(error: MlflowException) -> str:
    return str(error.error_code)


def _without_login(uri: str) -> str:
    """Return an address without the user and the password that it may hold."""
    return re.sub(r"//[^/]*@", "//", uri)


def _plain(text: str) -> str:
    """Return an answer without its HTML, cut to what a line can hold."""
    bare = " ".join(re.sub(r"<[^>]*>", " ", text).split())
    return bare if len(bare) <= SHOWN_CHARACTERS else bare[:SHOWN_CHARACTERS] + "…"


@dataclass(frozen=True)
class Server:
    """A tracking server and the login for it.

    Attributes:
        uri: Its address as MLflow's client takes it.
        username: Who we are there; empty where the server asks nobody.
    """

    uri: str
    username: str

    @classmethod
    def from_environment(cls) -> "Server":
        """Read the client contract.

        Raises:
            ProblemError: The address is missing or no address of a server, or the certificate is not there.
        """
        uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
        if not uri:
            message = f"MLFLOW_TRACKING_URI is not set, so there is no server to train against: {CONTRACT}"
            raise ProblemError(message)
        try:
            parts = urlsplit(uri)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            usable = False
        if not usable:
            message = f"MLFLOW_TRACKING_URI is {_without_login(uri)!r}, which is not the address of a server (https://…): {CONTRACT}"
            raise ProblemError(message)
        certificate = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH", "")
        if certificate and not Path(certificate).is_file():
            message = f"MLFLOW_TRACKING_SERVER_CERT_PATH names {certificate}, which is no file here: {CONTRACT}"
            raise ProblemError(message)
        # The registry follows: a machine's MLFLOW_REGISTRY_URI would send the model to another server than the run.
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        return cls(uri.rstrip("/"), os.environ.get("MLFLOW_TRACKING_USERNAME", ""))

    @property
    def address(self) -> str:
        """The address as it may be shown: without the password that it may hold."""
        return _without_login(self.uri)

    def run_url(self, experiment_id: str, run_id: str) -> str:
        """Return where MLflow's pages show a run."""
        return f"{self.address}/#/experiments/{experiment_id}/runs/{run_id}"

    def find(self, experiment: str) -> Experiment | None:
        """Reach the server, log in, and look the experiment up; change nothing.

        Fails within seconds where nobody answers, but waits for a server that says it is restarting.

        Returns:
            The experiment, or None where it is yet to be made.

        Raises:
            ProblemError: The server, the login or the experiment can't be used.
        """
        client, subject = MlflowClient(), f"experiment {experiment!r}"
        with self._explaining(subject):
            try:
                with _impatient():
                    found, restarting = client.get_experiment_by_name(experiment), False
            except MlflowException as error:
                if _status(error) not in RESTARTING:
                    raise
                restarting = True
            if restarting:
                terminal.note(f"{self.address} answers that it is restarting or busy: waiting for it, for some minutes")
                found = client.get_experiment_by_name(experiment)
        if found is not None and found.lifecycle_stage != LifecycleStage.ACTIVE:
            message = f"{subject} is deleted: `mlflow experiments restore -x {found.experiment_id}` restores it, or take another --experiment"
            raise ProblemError(message)
        return found

    @contextmanager
    def _explaining(self, subject: str) -> Iterator[None]:
        """Turn the client's errors into the line that a person reads; the subject is what the block works on."""
        try:
            yield
        except (MlflowException, requests.RequestException) as error:
            raise self._problem(error, subject) from error

    def _problem(self, error: Failure, subject: str) -> ProblemError:
        status = _status(error)
        if status is None:
            return ProblemError(self._unanswered(error))
        return ProblemError(self._refused(status, subject) or self._strange(_plain(str(error))))

    def _refused(self, status: int, subject: str) -> str | None:
        if status == UNAUTHORIZED and not self.username:
            return f"{self.address} wants a login: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or {CONTRACT}"
        if status == UNAUTHORIZED:
            return f"{self.address} does not accept the login of {self.username!r}: check MLFLOW_TRACKING_USERNAME and _PASSWORD, or {CONTRACT}"
        if status == FORBIDDEN:
            who, kind = repr(self.username) if self.username else "a client without a login", subject.partition(" ")[0]
            return f"{who} may not write to {subject} on {self.address}: take another --{kind}, or ask its owner for the permission EDIT"
        if status in RESTARTING:
            return f"{self.address} answers {status} for too long: is it restarting? look with `make status`, then run this again"
        return None

    def _strange(self, said: str) -> str:
        if "HTTP request was sent to HTTPS port" in said:
            return f"{self.address} wants https: {CONTRACT}"
        return f"{self.address} does not answer as MLflow does ({said}): check MLFLOW_TRACKING_URI, and the server with `make status`"

    def _unanswered(self, error: Failure) -> str:
        causes = list(_causes(error))
        text = " ".join(str(cause) for cause in causes)
        if any(isinstance(cause, requests.exceptions.SSLError) for cause in causes) or "TLS CA certificate" in text:
            if "WRONG_VERSION_NUMBER" in text or "wrong version number" in text.lower():
                return f"{self.address} does not speak TLS: is it http:// instead?"
            if "mismatch" in text or "doesn't match" in text:
                return f"{self.address} shows a certificate of another name: write MLFLOW_TRACKING_URI with the name that the certificate is for"
            return f"the certificate of {self.address} is not trusted: set MLFLOW_TRACKING_SERVER_CERT_PATH to its authority's file, or {CONTRACT}"
        if any(isinstance(cause, requests.exceptions.ProxyError) for cause in causes):
            return f"{self.address} can't be reached through the proxy: check HTTPS_PROXY and NO_PROXY"
        reasons = {
            "Connection refused": "connection refused",
            "Failed to resolve": "no such name",
            "Name or service not known": "no such name",
            "No route to host": "no route",
            "Network is unreachable": "no network",
            "timed out": f"no answer within {IMPATIENT_SECONDS} s",
            "timeout": f"no answer within {IMPATIENT_SECONDS} s",
            "Connection aborted": "it hung up",
        }
        reason = next((reason for part, reason in reasons.items() if part in text), _plain(str(error)))
        return f"{self.address} can't be reached ({reason}): is the server up (`make status`), and is MLFLOW_TRACKING_URI right?"

    @contextmanager
    def run(self, experiment: str, model: str, found: Experiment | None, tags: Mapping[str, str]) -> Iterator["Run"]:
        """Create a run and end it the way the block ends: FINISHED, FAILED, or KILLED on a signal.

        Args:
            experiment: Its name.
            model: The registered model that the run may add a version to.
            found: The experiment as `find` found it.
            tags: What the run is marked with from its beginning.

        Raises:
            ProblemError: The server can't be used, at the beginning or later.
        """
        client = MlflowClient()
        # The model comes first: it is taken back where we may not use the experiment, and an experiment can't be.
        with _telling_retries(), self._explaining(f"experiment {experiment!r}"), self._claimed(client, model):
            experiment_id = found.experiment_id if found else _create_experiment(client, experiment)
            run_id = client.create_run(experiment_id, tags=dict(tags)).info.run_id
            run = Run(client, experiment_id, run_id, model, self.run_url(experiment_id, run_id))
            try:
                with self._explaining(f"model {model!r}"):
                    yield run
                    client.set_terminated(run_id)
            except ProblemError as error:
                message = f"{error} ({run.end('FAILED')})"
                raise ProblemError(message) from error
            except StoppedError as stop:
                stop.add_note(run.end("KILLED"))
                raise
            except BaseException as error:
                error.add_note(run.end("FAILED"))
                raise

    @contextmanager
    def _claimed(self, client: MlflowClient, model: str) -> Iterator[None]:
        """Make the registered model before the work begins, and take it back where the block fails and nobody added a version.

        A server that keeps its models to their owners answers 403 for another's model and for none alike: only making it tells.
        """
        with self._explaining(f"model {model!r}"):
            made = _make_model(client, model)
        try:
            yield
        except BaseException:
            if made:
                with suppress(MlflowException, requests.RequestException, StoppedError), _impatient():
                    if not client.get_registered_model(model).latest_versions:
                        client.delete_registered_model(model)
            raise


def _make_model(client: MlflowClient, name: str) -> bool:
    """Make a registered model; return False where it is there already and may be read."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if _code(error) != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    else:
        return True
    client.get_registered_model(name)
    return False


def _create_experiment(client: MlflowClient, name: str) -> str:
    try:
        return client.create_experiment(name)
    except MlflowException as error:
        if _code(error) != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    # Another pipeline made it since we looked.
    found = client.get_experiment_by_name(name)
    if found is None:
        message = f"experiment {name!r} was deleted while it was being made: run this again"
        raise ProblemError(message)
    return found.experiment_id


class Run:
    """A run that is being recorded."""

    def __init__(self, client: MlflowClient, experiment_id: str, run_id: str, model: str, url: str) -> None:
        self._client = client
        self._registered_model = model
        self._model_id: str | None = None
        self.experiment_id = experiment_id
        self.run_id = run_id
        self.url = url

    def end(self, status: str) -> str:
        """Mark a run that did not finish, and its unfinished model, without waiting long; return what to say about it."""
        try:
            with _impatient():
                self._client.set_terminated(self.run_id, status)
                if self._model_id:
                    self._client.finalize_logged_model(self._model_id, LoggedModelStatus.FAILED)
        except (MlflowException, requests.RequestException, StoppedError):
            pass
        else:
            return f"the run is marked {status}: {self.url}"
        return f"the server could not be told, so the run still looks open: {self.url}"

    def log_parameters(self, parameters: Mapping[str, object]) -> None:
        """Record what the run was started with."""
        self._client.log_batch(self.run_id, params=[Param(name, str(value)) for name, value in parameters.items()])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Mark the run."""
        self._client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record metrics of one step; MLflow copies those of step 0 to the model that is logged later."""
        now = int(time.time() * 1000)
        self._client.log_batch(self.run_id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])

    def log_dataset(self, dataset: Dataset) -> None:
        """Record the data set as the run's input: name, digest, source, schema and size, not the rows themselves."""
        digest = dataset.sha256[:DIGEST_CHARACTERS]
        if isinstance(dataset.source, Path):
            made = from_pandas(dataset.table, str(dataset.source), dataset.target, dataset.name, digest)
        else:
            source = CodeDatasetSource({"mlflow.source.name": dataset.source})
            made = from_pandas(dataset.table, source, dataset.target, dataset.name, digest)
        self._client.log_inputs(self.run_id, [DatasetInput(LoggedDataset(**made.to_dict()), [InputTag("mlflow.data.context", "training")])])

    def log_figure(self, figure: Figure, name: str) -> None:
        """Store a figure as `figures/<name>`, a PNG."""
        self._client.log_figure(self.run_id, figure, f"figures/{name}")

    def log_json(self, content: Mapping[str, object], name: str) -> None:
        """Store a mapping as a JSON artifact."""
        self._client.log_dict(self.run_id, dict(content), name)

    def log_model(self, forest: RandomForestRegressor, dataset: Dataset, parameters: Mapping[str, object]) -> None:
        """Store the model with signature, example and requirements, as a logged model of this run."""
        example = dataset.features.head(EXAMPLE_ROWS)
        # Made by hand: log_model alone would put it into the experiment of MLFLOW_EXPERIMENT_ID or into the default one.
        logged = mlflow.initialize_logged_model(
            self._registered_model,
            source_run_id=self.run_id,
            params={name: str(value) for name, value in parameters.items()},
            model_type="regressor",
            experiment_id=self.experiment_id,
        )
        self._model_id = logged.model_id
        mlflow.sklearn.log_model(
            forest,
            name=self._registered_model,
            run_id=self.run_id,
            model_id=logged.model_id,
            signature=infer_signature(dataset.features, predict(forest, example)),
            input_example=example,
            pip_requirements=requirements(),
            serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_SKOPS,
            skops_trusted_types=TRUSTED_TYPES,
        )

    def register_model(self) -> str:
        """Make the logged model the next version of the registered model, and return the version."""
        version = mlflow.register_model(f"models:/{self._model_id}", self._registered_model)
        self._model_id = None
        return str(version.version)
