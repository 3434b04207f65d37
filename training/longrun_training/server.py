"""The tracking server as everybody here sees it: is it there, may we, and what its errors mean. Only MLflow's public client is used."""

import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage, Run
from mlflow.exceptions import MlflowException, RestException

from longrun_training import records, terminal
from longrun_training.errors import OutageError, ProblemError

CONTRACT = 'eval "$(make -s env)"'
# How long the first call, and the last one of a run that went wrong, wait for an answer.
IMPATIENT_SECONDS = 4
# How long it waits where somebody takes the connection and thinks: a small or busy server, just started, needs more than a moment for its first login.
SLOW_SECONDS = 30
# How long one request of a run may take; MLflow's own default is two minutes.
REQUEST_SECONDS = 60
# How long a run waits for a server that was there before: a restart behind nginx takes up to three and a half minutes.
PATIENCE = "LONGRUN_PATIENCE_SECONDS"
PATIENCE_SECONDS = 240.0
# The pauses between two tries grow to this.
LONGEST_PAUSE_SECONDS = 15.0
# What a server or the proxy before it answers while it restarts or is too busy.
RESTARTING = frozenset({408, 429, 502, 503, 504})
UNAUTHORIZED, FORBIDDEN, BROKEN = 401, 403, 500
NO_JSON = "not in a valid JSON format"
SHOWN_CHARACTERS = 200

# What MLflow's client does unasked: it prints links, draws bars of its own, logs behind our back, and reports its use to its makers.
CALM = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
# Its client repeats a request that made a run, although the answer may only have been lost: repeating is done here, after looking.
ONE_TRY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_SECONDS)}

Failure = MlflowException | requests.RequestException

_guard = threading.Lock()
_before: dict[str, str | None] = {}
_wanted: dict[str, list[tuple[object, str]]] = {}


@contextmanager
def settings(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block; blocks of several threads may overlap in any order."""
    token = object()
    with _guard:
        for name, value in values.items():
            if not _wanted.get(name):
                _before[name] = os.environ.get(name)
            _wanted.setdefault(name, []).append((token, value))
            os.environ[name] = value
    try:
        yield
    finally:
        with _guard:
            for name in values:
                _wanted[name] = [(owner, value) for owner, value in _wanted[name] if owner is not token]
                restored = _wanted[name][-1][1] if _wanted[name] else _before[name]
                if restored is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = restored


@contextmanager
def calm() -> Iterator[None]:
    """Make MLflow's client quiet: no links, no bars, no chatter, no telemetry."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with settings(CALM):
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def impatient(seconds: int | None = None) -> Iterator[None]:
    """Make MLflow's client fail at once, where it would try again for minutes.

    Args:
        seconds: For an answer; None: IMPATIENT_SECONDS.
    """
    with settings(ONE_TRY | {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(IMPATIENT_SECONDS if seconds is None else seconds)}):
        yield


@contextmanager
def one_try() -> Iterator[None]:
    """Make MLflow's client try everything once: who repeats it has to look first what the lost request did."""
    # A person's own timeout stays: a large model may need it.
    with settings({name: value for name, value in ONE_TRY.items() if name != "MLFLOW_HTTP_REQUEST_TIMEOUT" or name not in os.environ}):
        yield


def patience() -> float:
    """Return for how many seconds a run waits for a server that was there before.

    Raises:
        ProblemError: The variable holds no such number.
    """
    text = os.environ.get(PATIENCE, "").strip()
    if not text:
        return PATIENCE_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 24 * 3600:
        message = f"{PATIENCE} is {text!r}: write the seconds that a run waits for a restarting server, 0 to 86400"
        raise ProblemError(message)
    return seconds


def pauses() -> Iterator[float]:
    """Yield the seconds to wait before each further try."""
    pause = 0.25
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def status_of(error: Failure) -> int | None:
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


def _is_slow(error: Failure) -> bool:
    """Return whether somebody took the connection, and did not answer in time."""
    return any(isinstance(cause, requests.exceptions.ReadTimeout) or "Read timed out" in str(cause) for cause in _causes(error))


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

    def preflight(self, experiment: str) -> Experiment | None:
        """Reach the server, log in, and look the experiment up; change nothing.

        Fails within 5 s where nobody takes the connection. Waits half a minute for the answer of a server that does, and longer (see `patience`) for
        one that says it is restarting.

        Returns:
            The experiment, or None where it is yet to be made.

        Raises:
            OutageError: Nobody answers, or the server is still not ready.
            ProblemError: The address, the certificate, the login or the experiment can't be used.
        """
        client, subject = MlflowClient(), f"experiment {experiment!r}"
        deadline: float | None = None
        seconds = IMPATIENT_SECONDS
        for pause in pauses():
            try:
                with impatient(seconds):
                    found = client.get_experiment_by_name(experiment)
                break
            except (MlflowException, requests.RequestException) as error:
                now = time.monotonic()
                if _is_slow(error) and seconds < SLOW_SECONDS:
                    terminal.note(f"{self.address} is there and has not answered within {seconds} s: waiting for it, for {SLOW_SECONDS} s at most")
                    seconds = SLOW_SECONDS
                    continue
                if deadline is None and status_of(error) in RESTARTING:
                    terminal.note(f"{self.address} answers that it is restarting or busy: waiting for it, for some minutes")
                    deadline = now + patience()
                # While a server comes up, it may answer nothing at all for a moment.
                problem = self.explain(error, subject)
                if deadline is None or now > deadline or not isinstance(problem, OutageError):
                    raise problem from error
            time.sleep(pause)
        if found is not None and found.lifecycle_stage != LifecycleStage.ACTIVE:
            message = f"{subject} is deleted: `mlflow experiments restore -x {found.experiment_id}` restores it, or take another --experiment"
            raise ProblemError(message)
        return found

    @contextmanager
    def explaining(self, subject: str) -> Iterator[None]:
        """Turn the client's errors into the line that a person reads; the subject (`experiment 'x'`) is what the block works on.

        Raises:
            OutageError: The server is away or broken.
            ProblemError: It answers, but not as we want.
        """
        try:
            yield
        except (MlflowException, requests.RequestException) as error:
            raise self.explain(error, subject) from error

    def explain(self, error: Failure, subject: str) -> ProblemError:
        """Return the line for an error of MLflow's client, as an OutageError where the server is away or broken."""
        status = status_of(error)
        if status is None:
            return self._unanswered(error)
        # MLflow's client reports an answer of another kind of server, a page with status 200, as an error 500 of its own.
        if (status in RESTARTING or status >= BROKEN) and NO_JSON not in str(error):
            return OutageError(f"{self.address} answers {status} for too long: is it restarting? look with `make status`, then run this again")
        return ProblemError(self._refused(status, subject) or self._strange(error, subject))

    def _refused(self, status: int, subject: str) -> str | None:
        if status == UNAUTHORIZED and not self.username:
            return f"{self.address} wants a login: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or {CONTRACT}"
        if status == UNAUTHORIZED:
            return f"{self.address} does not accept the login of {self.username!r}: check MLFLOW_TRACKING_USERNAME and _PASSWORD, or {CONTRACT}"
        if status == FORBIDDEN:
            who, kind = repr(self.username) if self.username else "a client without a login", subject.partition(" ")[0]
            return f"{who} may not write to {subject} on {self.address}: take another --{kind}, or ask its owner for the permission EDIT"
        return None

    def _strange(self, error: Failure, subject: str) -> str:
        said = _plain(str(error))
        if "HTTP request was sent to HTTPS port" in said:
            return f"{self.address} wants https: {CONTRACT}"
        if isinstance(error, RestException):
            return f"{self.address} refuses {subject}: {said}"
        return f"{self.address} does not answer as MLflow does ({said}): check MLFLOW_TRACKING_URI, and the server with `make status`"

    def _unanswered(self, error: Failure) -> ProblemError:
        causes = list(_causes(error))
        text = " ".join(str(cause) for cause in causes)
        if any(isinstance(cause, requests.exceptions.SSLError) for cause in causes) or "TLS CA certificate" in text:
            untrusted = self._untrusted(text)
            if untrusted:
                return ProblemError(untrusted)
        if any(isinstance(cause, requests.exceptions.ProxyError) for cause in causes):
            return OutageError(f"{self.address} can't be reached through the proxy: check HTTPS_PROXY and NO_PROXY")
        reasons = {
            "Connection refused": "connection refused",
            "Failed to resolve": "no such name",
            "Name or service not known": "no such name",
            "No route to host": "no route",
            "Network is unreachable": "no network",
            "timed out": "no answer in time",
            "timeout": "no answer in time",
            "Connection aborted": "it hung up",
            "UNEXPECTED_EOF": "it hung up",
        }
        reason = next((reason for part, reason in reasons.items() if part in text), _plain(str(error)))
        return OutageError(f"{self.address} can't be reached ({reason}): is the server up (`make status`), and is MLFLOW_TRACKING_URI right?")

    def _untrusted(self, text: str) -> str | None:
        """Return what is wrong with the server's certificate, or None where the connection just broke off."""
        if "WRONG_VERSION_NUMBER" in text or "wrong version number" in text.lower():
            return f"{self.address} does not speak TLS: is it http:// instead?"
        if "mismatch" in text or "doesn't match" in text:
            return f"{self.address} shows a certificate of another name: write MLFLOW_TRACKING_URI with the name that the certificate is for"
        if "expired" in text:
            return f"the certificate of {self.address} has expired: have it renewed on the server, and check the clock of this machine"
        if "CERTIFICATE_VERIFY_FAILED" in text or "TLS CA certificate" in text or "certificate" in text.lower() or "NO_CERTIFICATE" in text:
            return f"the certificate of {self.address} is not trusted: set MLFLOW_TRACKING_SERVER_CERT_PATH to its authority's file, or {CONTRACT}"
        return None


def find_run(client: MlflowClient, experiment: str, uuid: str) -> Run | None:
    """Find a run by the uuid that its recorder gave it; None where the experiment has no such run (yet).

    Args:
        client: MLflow's.
        experiment: The experiment's name.
        uuid: As in `Outcome.uuid`.
    """
    found = client.get_experiment_by_name(experiment)
    return next(iter(runs_by_uuid(client, found.experiment_id, uuid)), None) if found else None


def runs_by_uuid(client: MlflowClient, experiment_id: str, uuid: str) -> list[Run]:
    """Return the runs that carry a uuid, in an order that everybody agrees on; more than one only for a moment, while two clients send the same run."""
    found = client.search_runs([experiment_id], f"tags.`{records.UUID}` = '{uuid}'")
    return sorted(found, key=lambda run: str(run.info.run_id))
