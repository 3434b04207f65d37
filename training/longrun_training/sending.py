"""From the journal to the server: each step may be repeated, after looking, until the server has it exactly once."""

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode

from longrun_training import records
from longrun_training.errors import ProblemError
from longrun_training.server import FORBIDDEN, runs_by_uuid, status_of
from longrun_training.spool import Entry, Kind, StoredFile, now

# Name, step, time and value.
Identity = tuple[str, int, int, float | str]

# What can wait a little and then goes to the server in one request.
GATHERED = frozenset({Kind.PARAMETERS, Kind.METRICS, Kind.TAGS})
# Two clients that made the same run at the same moment: how long the one that keeps its run waits for the other to give way.
GIVE_WAY_SECONDS = 3.0
# What the registry answers where no version holds an alias.
NOBODY = frozenset({400, 404})
# SQL stores have no infinity.
LARGEST = 1.7976931348623157e308

# MLflow's pages then show the experiment as models that are trained, not as conversations.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
MLMODEL = "MLmodel"
CONTEXT = "mlflow.data.context"


def is_code(error: MlflowException, code: int) -> bool:
    """Return whether an error of MLflow's client carries one of its codes."""
    return str(error.error_code) == str(ErrorCode.Name(code))


def claim(client: MlflowClient, name: str) -> bool:
    """Make sure that a registered model is there and may be used; return whether it was made.

    A server that keeps its models to their owners answers 403 for another's model and for none alike: only making it tells.
    """
    try:
        client.get_registered_model(name)
    except MlflowException as refused:
        if not is_code(refused, RESOURCE_DOES_NOT_EXIST) and status_of(refused) != FORBIDDEN:
            raise
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if not is_code(error, RESOURCE_ALREADY_EXISTS):
                raise
            # It is there after all: ours, made by a request whose answer was lost or by another run, or somebody else's.
            client.get_registered_model(name)
            return False
        return True
    return False


def find_or_make_experiment(client: MlflowClient, name: str) -> str:
    """Return the id of an experiment, which is made where it is missing.

    Raises:
        ProblemError: It was deleted at this moment.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, tags=EXPERIMENT_TAGS)
        except MlflowException as error:
            if not is_code(error, RESOURCE_ALREADY_EXISTS):
                raise
        # Another pipeline made it since we looked.
        found = client.get_experiment_by_name(name)
    if found is None:
        message = f"experiment {name!r} was deleted while it was being made: run this again"
        raise ProblemError(message)
    return found.experiment_id


@dataclass(frozen=True)
class Beginning:
    """What the first record of a journal says."""

    uuid: str
    experiment: str
    model: str
    kind: str
    parent: str | None
    server: str
    start: int
    tags: dict[str, str]

    @classmethod
    def of(cls, entry: Entry) -> "Beginning":
        """Read it."""
        return cls(**entry.content)


class Sender:
    """Brings records to the server. Its errors are those of MLflow's client.

    After a failed try, and where the journal was left by another process, it is careful: it looks what is there before it writes, so that
    a run, a model and a version are made once, and nothing is written twice. Files of the same size are taken for the same: who reads the run
    back sees whether they are, and has them sent again (`resend`).

    Attributes:
        careful: See above.
        run_id: On the server, once it is known.
        experiment_id: Likewise.
        version: Of the registered model, likewise.
        model_id: Of the logged model, likewise.
    """

    def __init__(self, client: MlflowClient, beginning: Beginning, folder: Path, *, careful: bool, resend: bool = False) -> None:
        self._client = client
        self.beginning = beginning
        self._folder = folder
        self.careful = careful
        self._resend = resend
        self._artifacts: dict[str, int] | None = None
        self.experiment_id: str | None = None
        self.run_id: str | None = None
        self.model_id: str | None = None
        self.version: str | None = None
        # Those of step 0: the logged model gets them as well.
        self._metrics: dict[Identity, Metric] = {}

    @property
    def _run(self) -> str:
        assert self.run_id is not None  # noqa: S101 - a journal's first record is always its beginning
        return self.run_id

    @property
    def _experiment(self) -> str:
        assert self.experiment_id is not None  # noqa: S101 - likewise
        return self.experiment_id

    def send(self, entry: Entry) -> None:
        """Bring one record to the server that is none of those that are gathered."""
        match entry.kind:
            case Kind.BEGIN:
                self.begin()
            case Kind.DATASET:
                self._dataset(entry)
            case Kind.ARTIFACT:
                self._artifact(entry.files[0])
            case Kind.MODEL:
                self._model(entry)
            case Kind.REGISTER:
                self._register(entry.content["alias"])
            case Kind.END:
                self._client.set_terminated(self._run, entry.content["status"], entry.content["time"])
            case _:
                self.gather([entry])

    # The beginning

    def begin(self) -> None:
        """Find or make the experiment and the run."""
        if self.experiment_id is None:
            self.experiment_id = find_or_make_experiment(self._client, self.beginning.experiment)
        if self.run_id is not None:
            return
        there = runs_by_uuid(self._client, self._experiment, self.beginning.uuid) if self.careful else []
        run_id = str(there[0].info.run_id) if there else self._make_run()
        if self.careful:
            run_id = self._only_one(run_id)
        self.run_id = run_id

    def _make_run(self) -> str:
        # A run that is sent days later lives now, as `reap` sees it.
        tags = self.beginning.tags | {records.HEARTBEAT: str(now())}
        if self.beginning.parent:
            parent = next(iter(runs_by_uuid(self._client, self._experiment, self.beginning.parent)), None)
            if parent is not None:
                tags[records.PARENT_RUN] = str(parent.info.run_id)
        return str(self._client.create_run(self._experiment, start_time=self.beginning.start, tags=tags).info.run_id)

    def _only_one(self, mine: str) -> str:
        """Return the one run of this uuid after two clients made it at the same moment; the first in order stays."""
        deadline = time.monotonic() + GIVE_WAY_SECONDS
        while True:
            there = [str(run.info.run_id) for run in runs_by_uuid(self._client, self._experiment, self.beginning.uuid)]
            if there == [mine] or not there:
                return mine
            if mine not in there:
                return there[0]
            # The first stays, unless the other did not see it and goes on with its own.
            if there[0] != mine or time.monotonic() > deadline:
                self._client.delete_run(mine)
                return next(run_id for run_id in there if run_id != mine)
            time.sleep(0.2)

    # What is gathered

    def gather(self, entries: Sequence[Entry]) -> None:
        """Bring parameters, metrics and tags to the server, in as few requests as it takes."""
        parameters: dict[str, str] = {}
        tags: dict[str, str] = {}
        metrics: list[Metric] = []
        for entry in entries:
            if entry.kind is Kind.PARAMETERS:
                parameters |= entry.content
            elif entry.kind is Kind.TAGS:
                tags |= entry.content
            else:
                metrics += metrics_of(entry)
        for metric in metrics:
            if metric.step == 0:
                self._metrics[identity(metric)] = metric
        if self.careful:
            there = self.metrics_there({metric.key for metric in metrics})
            metrics = [metric for metric in metrics if identity(metric) not in there]
        self._client.log_batch(
            self._run, metrics, [Param(name, value) for name, value in parameters.items()], [RunTag(name, value) for name, value in tags.items()]
        )

    def metrics_there(self, names: Iterable[str], run: Run | None = None) -> set[Identity]:
        """Return the metrics of the run that the server has; one request a name."""
        known = (run or self._client.get_run(self._run)).data.metrics
        return {identity(metric) for name in sorted(names) if name in known for metric in self._client.get_metric_history(self._run, name)}

    def _dataset(self, entry: Entry) -> None:
        content = dict(entry.content)
        context = InputTag(CONTEXT, content.pop("context"))
        # MLflow keeps an input of one run and data set once, however often it is sent.
        self._client.log_inputs(self._run, [DatasetInput(Dataset(**content), [context])])

    # Files

    def _artifact(self, file: StoredFile) -> None:
        if self.careful and self._artifacts is None:
            self._artifacts = self.artifact_sizes()
        if self._artifacts is not None and self._artifacts.get(file.path) == file.size and not self._resend:
            return
        folder = str(PurePosixPath(file.path).parent)
        self._client.log_artifact(self._run, str(self._folder / file.local), None if folder == "." else folder)
        if self._artifacts is not None:
            self._artifacts[file.path] = file.size

    def sizes(self, listing: Callable[[str | None], Iterable[object]], folder: str | None = None) -> dict[str, int]:
        """Return path → bytes of all files below a folder of artifacts."""
        found: dict[str, int] = {}
        for item in listing(folder):
            path, is_folder, size = item.path, item.is_dir, item.file_size  # type: ignore[attr-defined]
            found |= self.sizes(listing, path) if is_folder else {path: int(size or 0)}
        return found

    def model_sizes(self) -> dict[str, int]:
        """Return path → bytes of the logged model's files."""
        model_id = self.model_id
        if model_id is None:
            return {}
        return self.sizes(lambda folder: self._client.list_logged_model_artifacts(model_id, folder))

    def artifact_sizes(self) -> dict[str, int]:
        """Return path → bytes of the run's artifacts."""
        return self.sizes(lambda folder: self._client.list_artifacts(self._run, folder))

    # The model

    def find_model(self) -> LoggedModel | None:
        """Return the run's logged model, the first one made."""
        found = self._client.search_logged_models([self._experiment], f"source_run_id = '{self._run}'")
        ours = [model for model in found if model.tags.get(records.UUID) == self.beginning.uuid]
        return min(ours, key=lambda model: (model.creation_timestamp, model.model_id), default=None)

    def _model(self, entry: Entry) -> None:
        model = self._find_or_make_model(entry)
        self.model_id = model.model_id
        if not self.careful or model.model_id not in {output.model_id for output in outputs_of(self._client.get_run(self._run))}:
            self._client.log_outputs(self._run, [LoggedModelOutput(model.model_id, step=0)])
        self._model_metrics(model)
        there = self.model_sizes() if self.careful and not self._resend else {}
        with tempfile.TemporaryDirectory() as scratch:
            for file in entry.files:
                self._model_file(model, file, Path(scratch), there)
        if model.status != LoggedModelStatus.READY:
            self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    def _find_or_make_model(self, entry: Entry) -> LoggedModel:
        if self.careful:
            there = self.find_model()
            if there is not None:
                # Parameters beyond the first hundred are sent by requests of their own.
                missing = {name: value for name, value in entry.content["parameters"].items() if name not in (there.params or {})}
                if missing:
                    self._client.log_model_params(there.model_id, missing)
                return there
        made = self._client.create_logged_model(
            self._experiment,
            name=self.beginning.model,
            source_run_id=self._run,
            tags={records.UUID: self.beginning.uuid},
            params=entry.content["parameters"],
            model_type=entry.content["model_type"],
        )
        if not self.careful:
            return made
        # Another client may have made it at the same moment; the server's clock says whose was first.
        first = self.find_model() or made
        if first.model_id != made.model_id:
            self._client.delete_logged_model(made.model_id)
        return first

    def _model_metrics(self, model: LoggedModel) -> None:
        """Link the run's metrics of step 0 to the model, as MLflow's own `log_model` does."""
        there = {identity(metric)[:3] for metric in self._client.get_logged_model(model.model_id).metrics or []} if self.careful else set()
        linked = [
            Metric(metric.key, metric.value, metric.timestamp, metric.step, model_id=model.model_id, run_id=self._run)
            for known, metric in self._metrics.items()
            # MLflow would store a model's NaN as 0.
            if known[:3] not in there and not math.isnan(metric.value)
        ]
        self._client.log_batch(self._run, linked)

    def _model_file(self, model: LoggedModel, file: StoredFile, scratch: Path, there: dict[str, int]) -> None:
        path, size = self._folder / file.local, file.size
        if file.path == MLMODEL:
            content = self.manifest(path, model)
            path = scratch / MLMODEL
            path.write_bytes(content)
            size = len(content)
        if there.get(file.path) == size:
            return
        folder = str(PurePosixPath(file.path).parent)
        self._client.log_model_artifact(model.model_id, str(path), None if folder == "." else folder)

    def manifest(self, path: Path, model: LoggedModel) -> bytes:
        """Return the model's MLmodel as it is on the server: with the ids that only the server gives."""
        described = Model.load(path)
        described.run_id, described.model_id, described.model_uuid = self._run, model.model_id, model.model_id
        described.artifact_path = model.artifact_location
        return described.to_yaml().encode()

    # The version

    def find_version(self) -> ModelVersion | None:
        """Return the version of the registered model that was made of the run's logged model, the first one."""
        found = self._client.search_model_versions(f"run_id = '{self._run}'")
        ours = [version for version in found if version.name == self.beginning.model and version.source == f"models:/{self.model_id}"]
        return min(ours, key=lambda version: int(version.version), default=None)

    def _register(self, alias: str | None) -> None:
        if self.model_id is None:
            message = f"run {self._run} has no model to register"
            raise ProblemError(message)
        # The server notes the version at the logged model (mlflow.modelVersions).
        self.version = str(self._find_or_make_version().version)
        if alias and not (self.careful and self.newer_holds(alias)):
            self._client.set_registered_model_alias(self.beginning.model, alias, self.version)

    def _find_or_make_version(self) -> ModelVersion:
        name = self.beginning.model
        if self.careful:
            claim(self._client, name)
            there = self.find_version()
            if there is not None:
                return there
        try:
            made = self._make_version()
        except MlflowException as error:
            if not is_code(error, RESOURCE_DOES_NOT_EXIST):
                raise
            # Another run that had made the registered model failed, and took it back.
            claim(self._client, name)
            made = self._make_version()
        if not self.careful:
            return made
        # Versions count up, so that the smaller one was first.
        first = self.find_version() or made
        if first.version != made.version:
            self._client.delete_model_version(name, str(made.version))
        return first

    def _make_version(self) -> ModelVersion:
        return self._client.create_model_version(self.beginning.model, f"models:/{self.model_id}", self._run, model_id=self.model_id)

    def newer_holds(self, alias: str) -> bool:
        """Return whether a later run holds an alias; a run that was sent days after it was made must not take it back."""
        try:
            holder = self._client.get_model_version_by_alias(self.beginning.model, alias)
        except MlflowException as error:
            if status_of(error) not in NOBODY:
                raise
            return False
        if str(holder.version) == self.version or not holder.run_id:
            return False
        try:
            start = self._client.get_run(holder.run_id).info.start_time
        except MlflowException as error:
            if not is_code(error, RESOURCE_DOES_NOT_EXIST):
                raise
            return False
        return bool(start > self.beginning.start)

    def adopt(self) -> None:
        """Link the children that reached the server before their parent."""
        found = self._client.search_runs([self._experiment], f"tags.`{records.PARENT}` = '{self.beginning.uuid}'")
        for child in found:
            if child.data.tags.get(records.PARENT_RUN) != self._run:
                self._client.set_tag(str(child.info.run_id), records.PARENT_RUN, self._run)


def outputs_of(run: Run) -> list[LoggedModelOutput]:
    """Return the models that a run made."""
    return list(run.outputs.model_outputs) if run.outputs else []


def metrics_of(entry: Entry) -> list[Metric]:
    """Return a record's metrics."""
    return [Metric(name, value, entry.content["time"], entry.content["step"]) for name, value in entry.content["values"].items()]


def identity(metric: Metric) -> Identity:
    """Return what makes a metric itself, as the server keeps it: NaN equals NaN, and infinity is the largest number."""
    value = float(metric.value)
    kept: float | str = "nan" if math.isnan(value) else max(-LARGEST, min(LARGEST, value))
    return metric.key, metric.step, metric.timestamp, kept
