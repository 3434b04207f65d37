"""Recording a run: each piece goes into a journal on disk first, and from there to the server as long as that answers.

The names of `server` and `records` that callers need are here as well.
"""

import io
import json
import os
import platform
import tempfile
import threading
import uuid as uuids
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import requests
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from longrun_training import records, terminal
from longrun_training.courier import Courier, Patience
from longrun_training.errors import OutageError, ProblemError, StoppedError
from longrun_training.heartbeat import Heartbeat
from longrun_training.records import LONGEST_PARAMETER, LONGEST_TAG, Description, LoggedData, Outcome
from longrun_training.sending import MLMODEL, Beginning, Sender, claim
from longrun_training.server import IMPATIENT_SECONDS, Server, calm, find_run, impatient, one_try, patience
from longrun_training.spool import Entry, Journal, Kind, SpoolError, StoredFile, measure, now

__all__ = ["Description", "LoggedData", "Outcome", "Recorder", "Server", "calm", "find_run", "record"]

# Kinds of runs that never add a version to the registered model, so that it need not be there.
UNREGISTERED = frozenset({"calibration", "trial"})


class Recorder:
    """A run that is being recorded. No method waits for the server: a thread sends what the journal has, in order.

    A server that goes away is no error: one line says so, and the rest of the run waits in the spool. One that refuses (a password that was changed
    meanwhile) does not stop the training either; the end of `record` says it.

    Attributes:
        uuid: The run's name before and after it is on a server (tag `longrun.uuid`).
        outcome: Where the run ended up; only there after the `record` block, however that ended.
    """

    outcome: Outcome

    def __init__(self, server: Server, beginning: Beginning, spool: Path, sender: Sender) -> None:
        self.uuid = beginning.uuid
        self._server = server
        self._beginning = beginning
        self._spool = spool
        self._sender = sender
        self._client = MlflowClient()
        self._order = threading.Lock()
        self._number = 0
        self._parameters: dict[str, str] = {}
        self._has_model = False
        self._ended = False
        # Where the spool could take nothing more, its journal is no longer complete.
        self._journal: Journal | None = None
        self._complete = True
        self._full = ""
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._courier: Courier | None = None
        self._heartbeat: Heartbeat | None = None
        self._made_model = False

    @property
    def run_id(self) -> str | None:
        """The run on the server, once it is known there."""
        return self._sender.run_id

    @property
    def ended(self) -> bool:
        """Whether the run's end is recorded: nothing may follow."""
        return self._ended

    @property
    def url(self) -> str | None:
        """Where MLflow's pages show the run, once it is on the server."""
        if self._sender.run_id is None or self._sender.experiment_id is None:
            return None
        return self._server.run_url(self._sender.experiment_id, self._sender.run_id)

    # What is recorded

    def log_parameters(self, parameters: Mapping[str, object]) -> None:
        """Record what the run was started with, as `str(value)`; a name can't get another value later."""
        texts = {name: str(value)[:LONGEST_PARAMETER] for name, value in parameters.items()}
        for name, text in texts.items():
            if self._parameters.setdefault(name, text) != text:
                message = f"parameter {name!r} is {self._parameters[name]!r} already and can't become {text!r}"
                raise ValueError(message)
        if texts:
            self._record(Kind.PARAMETERS, texts)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record metrics of one step, with the time of this call; NaN and infinities are kept. Those of step 0 are the logged model's too."""
        if metrics:
            self._record(Kind.METRICS, {"values": {name: float(value) for name, value in metrics.items()}, "step": step, "time": now()})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Mark the run; a later value replaces an earlier one."""
        if tags:
            self._record(Kind.TAGS, {name: value[:LONGEST_TAG] for name, value in tags.items()})

    def log_dataset(self, dataset: LoggedData) -> None:
        """Record a data set as the run's input."""
        self._record(Kind.DATASET, vars(dataset))

    def log_figure(self, figure: Figure, path: str) -> None:
        """Store a figure as the artifact `path`, in the format of its ending."""
        drawn = io.BytesIO()
        figure.savefig(drawn, format=PurePosixPath(path).suffix.removeprefix(".") or "png")
        self._artifact(path, drawn.getvalue())

    def log_json(self, content: Mapping[str, object], path: str) -> None:
        """Store a mapping as a JSON artifact."""
        self._artifact(path, (json.dumps(dict(content), indent=2, ensure_ascii=False) + "\n").encode())

    def log_text(self, text: str, path: str) -> None:
        """Store a text as an artifact, UTF-8."""
        self._artifact(path, text.encode())

    def log_file(self, source: Path, path: str) -> None:
        """Store a file as the artifact `path`; its content is taken now, byte for byte, so the file may be removed afterwards."""
        self._artifact(path, source)

    def _artifact(self, path: str, source: Path | bytes) -> None:
        parts = PurePosixPath(path)
        if parts.is_absolute() or not parts.name or ".." in parts.parts or str(parts) != path:
            message = f"{path!r} is no path of an artifact: write it relative, with slashes and without `..`"
            raise ValueError(message)
        self._record(Kind.ARTIFACT, {}, {path: source})

    def log_model(self, folder: Path, *, parameters: Mapping[str, object], model_type: str) -> None:
        """Store a model as a logged model of this run, named after the registered model. At most one a run, after the metrics that describe it.

        Args:
            folder: As `mlflow.sklearn.save_model` wrote it; its content is taken now, so it may be removed afterwards (but not changed in place).
            parameters: Of the model.
            model_type: `regressor` or `classifier`.
        """
        if self._has_model or not (folder / MLMODEL).is_file():
            message = "a run has one model" if self._has_model else f"{folder} holds no {MLMODEL}: mlflow.sklearn.save_model writes it"
            raise ValueError(message)
        found = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        sources = {path.relative_to(folder).as_posix(): path for path in found}
        texts = {name: str(value) for name, value in parameters.items()}
        self._record(Kind.MODEL, {"parameters": texts, "model_type": model_type}, sources, copy=False)
        self._has_model = True

    def register(self, alias: str | None = "candidate") -> None:
        """Make the logged model the next version of the registered model; the version's number is in `outcome` after the block."""
        if not self._has_model:
            message = "there is no model to register: log_model comes first"
            raise ValueError(message)
        self._record(Kind.REGISTER, {"alias": alias})

    # The journal

    def _record(self, kind: Kind, content: Mapping[str, object], sources: Mapping[str, Path | bytes] | None = None, *, copy: bool = True) -> None:
        with self._order:
            self._number += 1
            files = self._take(self._number, sources, copy=copy) if sources else ()
            entry = Entry(self._number, now(), kind, content, files)
            self._write(entry)
            carried = self._carrying
            if self._courier is not None and carried:
                self._courier.put(entry)
        # A file that the spool could not take is sent at once, before its owner removes it.
        if self._courier is not None and any(Path(file.local).is_absolute() for file in files):
            carried = self._courier.settle()
        if not carried and not self._complete:
            raise ProblemError(self._homeless())

    @property
    def _carrying(self) -> bool:
        return self._courier is not None and not self._courier.gave_up

    def _take(self, number: int, sources: Mapping[str, Path | bytes], *, copy: bool) -> tuple[StoredFile, ...]:
        if self._journal is not None and self._complete:
            try:
                return self._journal.take(number, sources, copy=copy)
            except SpoolError as error:
                self._incomplete(error, warn=self._carrying)
        kept = []
        for path, source in sources.items():
            lies = source.resolve() if isinstance(source, Path) else self._scratched(number, path, source)
            kept.append(StoredFile(path, str(lies), *measure(lies)))
        return tuple(kept)

    def _scratched(self, number: int, path: str, content: bytes) -> Path:
        """Write what only memory holds where the machine keeps what is not kept; MLflow's client sends files only."""
        try:
            if self._scratch is None:
                self._scratch = tempfile.TemporaryDirectory(prefix="longrun-")
            target = Path(self._scratch.name, str(number), PurePosixPath(path).name)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content)
        except OSError as error:
            message = f"neither the spool {self._spool} nor {tempfile.gettempdir()} can be written ({error.strerror}): free some space, or set TMPDIR"
            raise ProblemError(message) from error
        return target

    def _write(self, entry: Entry) -> None:
        if self._journal is None or not self._complete:
            return
        try:
            self._journal.append(entry)
        except SpoolError as error:
            self._incomplete(error, warn=self._carrying)

    def _incomplete(self, error: SpoolError, *, warn: bool) -> None:
        """Note that the journal ends here; what comes after it is only sent."""
        self._complete = False
        self._full = str(error)
        if warn:
            terminal.note(f"the spool {self._spool} can't be written ({error}): the run goes to the server only, and is lost should that go away")

    def _homeless(self) -> str:
        kept = f"; what was recorded before is kept in {self._journal.folder}" if self._journal else ""
        return f"{self._server.address} is away, and the spool {self._spool} can't be written ({self._full}): free some space or take another --spool{kept}"

    # From the beginning to the end

    def begin(self, found_experiment: str | None, outage: OutageError | None) -> None:
        """Open the journal, and the run on the server where that answers.

        Args:
            found_experiment: Its id, where it is there already.
            outage: Why the server can't be used; None where it answers.

        Raises:
            ProblemError: The server refuses; or it is away and the spool can't be written.
        """
        self._number = 1
        try:
            self._journal = Journal.create(self._spool, self.uuid)
            self._journal.append(Entry(1, now(), Kind.BEGIN, vars(self._beginning)))
        except SpoolError as error:
            self._incomplete(error, warn=outage is None)
        self._sender.experiment_id = found_experiment
        if outage is None:
            try:
                self._open()
            except OutageError as error:
                outage = error
            except BaseException:
                self._abandon()
                raise
        if outage is not None:
            if not self._complete:
                self._discard()
                raise ProblemError(self._homeless())
            terminal.note(f"{outage}; the run is kept in {self._kept} until `longrun sync`")

    @property
    def _kept(self) -> Path:
        return self._journal.folder if self._journal else self._spool

    def _open(self) -> None:
        """Make the run on the server. The model comes first: it is taken back where we may not use the experiment, and an experiment can't be."""
        wait = Patience(self._server, patience())
        model, experiment = self._beginning.model, self._beginning.experiment
        if self._beginning.kind not in UNREGISTERED:
            self._made_model = wait(lambda: claim(self._client, model), f"model {model!r}", self._look)
        wait(self._sender.begin, f"experiment {experiment!r}", self._look)
        self._courier = Courier(self._sender, wait, f"model {model!r}", self._lost)
        self._courier.start()
        self._heartbeat = Heartbeat(self._client, str(self._sender.run_id))
        self._heartbeat.start()

    def _look(self) -> None:
        self._sender.careful = True

    def _lost(self, error: ProblemError) -> None:
        """Say that the courier stopped; where the journal is not complete, the next record raises instead."""
        if self._complete:
            terminal.note(f"{error}; the training goes on, and the run is kept in {self._kept} until `longrun sync`")

    def _abandon(self) -> None:
        """Leave nothing behind of a run that could not begin."""
        self._take_back()
        experiment = self._sender.experiment_id
        if experiment is not None:
            # Its answer may have been lost or interrupted.
            with suppress(MlflowException, requests.RequestException, StoppedError), impatient():
                for run in self._client.search_runs([experiment], f"tags.`{records.UUID}` = '{self.uuid}'"):
                    self._client.set_terminated(str(run.info.run_id), "KILLED")
        self._discard()

    def _take_back(self) -> None:
        """Delete the registered model where we made it and nobody added a version."""
        if not self._made_model or self._sender.version is not None or (self._courier is not None and self._courier.outage is not None):
            return
        with suppress(MlflowException, requests.RequestException, StoppedError), impatient():
            if not self._client.get_registered_model(self._beginning.model).latest_versions:
                self._client.delete_registered_model(self._beginning.model)

    def _discard(self) -> None:
        if self._journal is not None:
            self._journal.remove()
            self._journal = None

    def complete(self) -> None:
        """End a run that did what it should, and wait until the server has all of it or has gone.

        Raises:
            ProblemError: The server refuses part of the run; all of it is in the spool.
        """
        self._end("FINISHED")
        if self._courier is None:
            return
        if self._courier.finish(hurry=False):
            self._discard()
            return
        problem = self._courier.problem
        if problem is None and not self._complete:
            raise ProblemError(self._homeless())
        if isinstance(problem, ProblemError):
            told = self._tell("FAILED")
            message = f"{problem} ({told}; all of it is kept in {self._kept}: put this right, then `longrun sync`)"
            raise ProblemError(message) from problem
        if problem is not None:
            problem.add_note(f"the run is kept in {self._kept}")
            raise problem

    def break_off(self, status: str) -> str:
        """End a run that did not finish, FAILED or KILLED, without waiting long; return what to say about it."""
        with suppress(ProblemError):
            self._end(status)
        if self._courier is None:
            return f"the run is kept in {self._kept} until `longrun sync`"
        if self._courier.finish(hurry=True, seconds=IMPATIENT_SECONDS if status == "KILLED" else None):
            self._discard()
            return f"the run is marked {status}: {self.url}"
        told = self._tell(status)
        return f"{told}; the rest of it is kept in {self._kept} until `longrun sync`" if self._complete else told

    def _end(self, status: str) -> None:
        if self._ended:
            return
        self._ended = True
        if self._heartbeat is not None:
            self._heartbeat.stop()
        time_of_end = now()
        with suppress(ProblemError):
            self.set_tags({records.DURATION: f"{(time_of_end - self._beginning.start) / 1000:.3f}"})
        end = {"status": status, "time": time_of_end}
        if self._journal is not None and not self._complete and status != "FINISHED":
            # A run that failed because the spool is full may end there: a row is small.
            with suppress(SpoolError):
                self._journal.append(Entry(self._number + 1, time_of_end, Kind.END, end))
        self._record(Kind.END, end)

    def _tell(self, status: str) -> str:
        """Mark the run past the courier, who is stuck or has given up."""
        run_id = self._sender.run_id
        try:
            with impatient():
                self._client.set_terminated(str(run_id), status)
        except (MlflowException, requests.RequestException, StoppedError):
            return f"the server could not be told, so the run still looks open: {self.url}"
        return f"the run is marked {status}: {self.url}"

    def close(self) -> None:
        """Let go of everything, and say in `outcome` where the run is."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        self._take_back()
        spooled = None
        if self._journal is not None:
            # A courier that is stuck must not find the journal gone; it ends with the process.
            spooled = self._journal.folder
            self._journal.close()
        if self._scratch is not None:
            self._scratch.cleanup()
        sender = self._sender
        self.outcome = Outcome(self.uuid, sender.run_id, sender.experiment_id, sender.version, self.url, spooled)


@contextmanager
def record(description: Description, *, spool: Path, server: Server) -> Iterator[Recorder]:
    """Record a run, and end it the way the block ends: FINISHED, FAILED (any exception), or KILLED (StoppedError, KeyboardInterrupt).

    A server that is away is found out within 5 s, a silent one within 40, and the run is only spooled; a line says so. Login, permission and address are
    checked before the block begins. An exception that leaves the block has a note that says where the run is; a ProblemError has it in its line.

    Args:
        description: What the run is.
        spool: The folder of runs that wait; made where it is missing.
        server: Where to; `Server.from_environment()`.

    Raises:
        ProblemError: The server refuses, at the beginning or later; or it is away and the spool can't be written.
    """
    with calm(), one_try():
        outage, experiment = None, None
        try:
            found = server.preflight(description.experiment)
            experiment = found.experiment_id if found else None
        except OutageError as error:
            outage = error
        recorder = _recorder(description, spool, server)
        recorder.begin(experiment, outage)
        try:
            yield recorder
            recorder.complete()
        except (StoppedError, KeyboardInterrupt) as stop:
            stop.add_note(recorder.break_off("KILLED"))
            raise
        except ProblemError as error:
            if recorder.ended:
                raise
            message = f"{error} ({recorder.break_off('FAILED')})"
            raise type(error)(message) from error
        except BaseException as error:
            if not recorder.ended:
                error.add_note(recorder.break_off("FAILED"))
            raise
        finally:
            recorder.close()


def _recorder(description: Description, spool: Path, server: Server) -> Recorder:
    uuid, start = str(uuids.uuid4()), now()
    tags = {
        **{name: value[:LONGEST_TAG] for name, value in description.tags.items()},
        records.UUID: uuid,
        records.MODEL: description.model,
        records.KIND: description.kind,
        records.HOST: f"{platform.node()} {os.getpid()}",
        records.HEARTBEAT: str(start),
    }
    if description.parent:
        tags[records.PARENT] = description.parent
    beginning = Beginning(uuid, description.experiment, description.model, description.kind, description.parent, server.address, start, tags)
    return Recorder(server, beginning, spool, Sender(MlflowClient(), beginning, spool / uuid, careful=False))
