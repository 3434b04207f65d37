"""The verb `sync`: runs that wait in the spool go to the server, are read back and compared, and only then leave the spool."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import requests
from mlflow import MlflowClient, artifacts
from mlflow.entities import LoggedModel, LoggedModelStatus, Run
from mlflow.exceptions import MlflowException

from longrun_training import last_run, records
from longrun_training.courier import Patience, deliver
from longrun_training.errors import OutageError, ProblemError
from longrun_training.sending import MLMODEL, Beginning, Sender, identity, metrics_of, outputs_of
from longrun_training.server import UNAUTHORIZED, Server, calm, one_try, patience, status_of
from longrun_training.spool import BusyError, Entry, Journal, Kind, StoredFile, measure, waiting

SWEEP = "sweep"
SHOWN_DIFFERENCES = 3


@dataclass(frozen=True)
class Sent:
    """A run that left the spool.

    Attributes:
        uuid: The client's name for it.
        run_id: On the server.
        experiment: Its name.
        model: The registered model.
        version: Of it; None where the run made none.
        status: FINISHED, FAILED or KILLED.
        url: Where MLflow's pages show it.
    """

    uuid: str
    run_id: str
    experiment: str
    model: str
    version: str | None
    status: str
    url: str


@dataclass(frozen=True)
class Left:
    """A run that stays in the spool.

    Attributes:
        folder: Where.
        reason: One line.
        busy: Whether it is only being recorded or sent by another process just now.
    """

    folder: str
    reason: str
    busy: bool = False


@dataclass(frozen=True)
class SyncResult:
    """What a sync came to.

    Attributes:
        sent: Runs that are on the server now.
        left: Runs that stay.
        outage: Why the rest was not tried; None where the server answered to the end.
    """

    sent: tuple[Sent, ...]
    left: tuple[Left, ...]
    outage: str | None = None


def sync(spool: Path, server: Server, progress: Callable[[str], None] = lambda _: None, *, any_server: bool = False) -> SyncResult:
    """Send every run of a spool. It may be repeated and broken off at any point, and run twice at once.

    Args:
        spool: The folder of runs that wait.
        server: Where to.
        progress: Told what is being sent.
        any_server: Send runs as well that were recorded for another server.

    Raises:
        ProblemError: The spool can't be read, or the server refuses us.
    """
    folders = waiting(spool)
    if not folders:
        return SyncResult((), ())
    sent: list[Sent] = []
    left: list[Left] = []
    with calm(), one_try():
        try:
            for folder in _parents_first(folders, left):
                progress(folder.name)
                done = _attempt(folder, server, any_server=any_server)
                if isinstance(done, Left):
                    left.append(done)
                elif done is not None:
                    sent.append(done)
                    last_run.update(spool, done.uuid, done.run_id, done.version)
        except OutageError as outage:
            finished = {run.uuid for run in sent} | {Path(stays.folder).name for stays in left}
            left += [Left(str(folder), "the server is away") for folder in folders if folder.name not in finished]
            return SyncResult(tuple(sent), tuple(left), str(outage))
    return SyncResult(tuple(sent), tuple(left))


def _parents_first(folders: Sequence[Path], left: list[Left]) -> list[Path]:
    """Return the folders in the order of their beginnings, a sweep before its children; what can't be opened is noted."""
    found = []
    for folder in folders:
        try:
            journal = Journal.open(folder)
        except BusyError:
            left.append(Left(str(folder), "it is being recorded or sent by another process", busy=True))
            continue
        except ProblemError as error:
            left.append(Left(str(folder), str(error)))
            continue
        if journal is None:
            continue
        try:
            beginning = next(iter(journal.entries()), None)
        except ProblemError as error:
            left.append(Left(str(folder), str(error)))
            continue
        finally:
            journal.close()
        start = (beginning.content["kind"] != SWEEP, beginning.at) if beginning else (True, 0)
        found.append((start, folder.name, folder))
    return [folder for *_, folder in sorted(found)]


def _attempt(folder: Path, server: Server, *, any_server: bool) -> Sent | Left | None:
    """Send one journal and remove it; None where it has gone meanwhile, or holds nothing.

    Raises:
        OutageError: The server is away.
        ProblemError: It refuses us, whatever we send.
    """
    try:
        journal = Journal.open(folder)
        if journal is None:
            return None
        try:
            return _deliver(journal, server, any_server=any_server)
        finally:
            journal.close()
    except BusyError:
        return Left(str(folder), "it is being sent by another process", busy=True)
    except ProblemError as error:
        if isinstance(error, OutageError) or _concerns_all(error):
            raise
        return Left(str(folder), str(error))
    except OSError as error:
        return Left(str(folder), f"a file can't be read, or read back, on this machine ({error})")


def _concerns_all(error: ProblemError) -> bool:
    """Return whether an error would come again with each run: a wrong password (a lock-out counts the tries), a certificate."""
    cause = error.__cause__
    return isinstance(cause, MlflowException | requests.RequestException) and status_of(cause) in {None, UNAUTHORIZED}


def _deliver(journal: Journal, server: Server, *, any_server: bool) -> Sent | Left | None:
    entries = _ended(journal.entries())
    if not entries:
        # Its process died before the run began.
        journal.remove()
        return None
    beginning = Beginning.of(entries[0])
    if beginning.server != server.address and not any_server:
        return Left(str(journal.folder), f"recorded for {beginning.server}, and this is {server.address}: --any-server sends it nevertheless")
    sender = _send(journal, beginning, entries, server)
    journal.remove()
    run_id, status = str(sender.run_id), str(entries[-1].content["status"])
    url = server.run_url(str(sender.experiment_id), run_id)
    return Sent(beginning.uuid, run_id, beginning.experiment, beginning.model, sender.version, status, url)


def _ended(entries: list[Entry]) -> list[Entry]:
    """Return the records with an end: a run whose process was killed ended with its last one."""
    if not entries or entries[0].kind is not Kind.BEGIN:
        return []
    if entries[-1].kind is Kind.END:
        return entries
    last = entries[-1]
    return [*entries, Entry(last.number + 1, last.at, Kind.END, {"status": "KILLED", "time": last.at})]


def _send(journal: Journal, beginning: Beginning, entries: Sequence[Entry], server: Server) -> Sender:
    """Bring a journal to the server until what is read back equals it.

    Raises:
        OutageError: The server is away.
        ProblemError: It refuses, or what it gives back stays different.
    """
    client, wait = MlflowClient(), Patience(server, patience())
    found = server.preflight(beginning.experiment)
    subject = f"experiment {beginning.experiment!r}"
    differences: list[str] = []
    for resend in (False, True):
        sender = Sender(client, beginning, journal.folder, careful=True, resend=resend)
        sender.experiment_id = found.experiment_id if found else None

        def patiently(action: Callable[[], None]) -> None:
            wait(action, subject, lambda: None)

        _check_files(journal.folder, entries)
        deliver(sender, entries, patiently)
        if beginning.kind == SWEEP:
            patiently(sender.adopt)
        reader = _Reader(client, sender, journal.folder, beginning)
        differences = wait(partial(reader.differences, entries), subject, lambda: None)
        if not differences:
            return sender
    shown = "; ".join(differences[:SHOWN_DIFFERENCES]) + ("; …" if len(differences) > SHOWN_DIFFERENCES else "")
    message = f"{server.run_url(str(sender.experiment_id), str(sender.run_id))} differs from what was recorded ({shown}): kept in {journal.folder}"
    raise ProblemError(message)


def _check_files(folder: Path, entries: Sequence[Entry]) -> None:
    """Refuse a journal whose files are no longer what was recorded, before any of them replaces a good one on the server."""
    for entry in entries:
        for file in entry.files:
            path = folder / file.local
            if not path.is_file() or measure(path) != (file.size, file.sha256):
                message = f"{path} is not the file that was recorded (SHA-256 {file.sha256[:12]}…): the run can't be sent; remove {folder} to give it up"
                raise ProblemError(message)


class _Reader:
    """Reads a run back and compares it with its journal."""

    def __init__(self, client: MlflowClient, sender: Sender, folder: Path, beginning: Beginning) -> None:
        self._client = client
        self._sender = sender
        self._folder = folder
        self._beginning = beginning

    def differences(self, entries: Sequence[Entry]) -> list[str]:
        """Return what the server has not, or has otherwise."""
        return list(self._differences(entries))

    def _differences(self, entries: Sequence[Entry]) -> Iterator[str]:
        run = self._client.get_run(str(self._sender.run_id))
        yield from self._values(run, entries)
        yield from self._metrics(run, entries)
        yield from self._files(run, entries)
        if any(entry.kind is Kind.REGISTER for entry in entries):
            version = self._sender.find_version()
            if version is None or str(version.version) != self._sender.version:
                yield f"version {self._sender.version} of model {self._beginning.model!r}"

    def _values(self, run: Run, entries: Sequence[Entry]) -> Iterator[str]:
        parameters: dict[str, str] = {}
        tags = {name: value for name, value in self._beginning.tags.items() if name != records.HEARTBEAT}
        for entry in entries:
            if entry.kind is Kind.PARAMETERS:
                parameters |= entry.content
            elif entry.kind is Kind.TAGS:
                tags |= entry.content
            elif entry.kind is Kind.DATASET and not _has_dataset(run, entry):
                yield f"data set {entry.content['name']!r}"
        yield from (f"parameter {name!r}" for name, value in parameters.items() if run.data.params.get(name) != value)
        yield from (f"tag {name!r}" for name, value in tags.items() if run.data.tags.get(name) != value)
        end = entries[-1].content
        if (run.info.start_time, run.info.end_time, run.info.status) != (self._beginning.start, end["time"], end["status"]):
            yield "times or status"

    def _metrics(self, run: Run, entries: Sequence[Entry]) -> Iterator[str]:
        wanted = Counter(identity(metric) for entry in entries if entry.kind is Kind.METRICS for metric in metrics_of(entry))
        there = self._sender.metrics_there({key for key, *_ in wanted}, run)
        missing = {key for key, *rest in wanted if (key, *rest) not in there}
        yield from (f"metric {key!r}" for key in sorted(missing))

    def _files(self, run: Run, entries: Sequence[Entry]) -> Iterator[str]:
        # A path that was recorded twice holds what came last.
        wanted = {entry.files[0].path: entry.files[0] for entry in entries if entry.kind is Kind.ARTIFACT}
        sizes = self._sender.artifact_sizes() if wanted else {}
        with tempfile.TemporaryDirectory() as scratch:
            for path, file in wanted.items():
                if sizes.get(path) != file.size:
                    yield f"artifact {path!r}"
                    continue
                got = artifacts.download_artifacts(artifact_uri=f"{run.info.artifact_uri}/{path}", dst_path=scratch)
                if measure(Path(got)) != (file.size, file.sha256):
                    yield f"artifact {path!r}"
                Path(got).unlink()
            for entry in entries:
                if entry.kind is Kind.MODEL:
                    yield from self._model(run, entry, scratch)

    def _model(self, run: Run, entry: Entry, scratch: str) -> Iterator[str]:
        model = self._client.get_logged_model(str(self._sender.model_id))
        if model.status != LoggedModelStatus.READY or model.model_id not in {output.model_id for output in outputs_of(run)}:
            yield "the logged model's state"
        if (model.params or {}) != dict(entry.content["parameters"]):
            yield "the logged model's parameters"
        missing = {file.path for file in entry.files} - set(self._sender.model_sizes())
        if missing:
            yield from (f"the model's file {path!r}" for path in sorted(missing))
            return
        got = Path(artifacts.download_artifacts(artifact_uri=model.artifact_location, dst_path=scratch))
        for file in entry.files:
            if not self._same(got / file.path, file, model):
                yield f"the model's file {file.path!r}"

    def _same(self, got: Path, file: StoredFile, model: LoggedModel) -> bool:
        if file.path == MLMODEL:
            return got.read_bytes() == self._sender.manifest(self._folder / file.local, model)
        return measure(got) == (file.size, file.sha256)


def _has_dataset(run: Run, entry: Entry) -> bool:
    wanted = {name: entry.content[name] for name in ("name", "digest")}
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return any({"name": found.dataset.name, "digest": found.dataset.digest} == wanted for found in inputs)
