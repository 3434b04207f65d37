"""Runs and versions on the server, by what a person or a tag calls them."""

import re
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage, Run
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from longrun_training.errors import ProblemError
from longrun_training.judgement import RunReference
from longrun_training.records import KIND
from longrun_training.server import Server, find_run

COMMIT, BRANCH = "mlflow.source.git.commit", "mlflow.source.git.branch"
PULL_REQUEST, REPOSITORY, DIRTY = "longrun.pull_request", "longrun.repository", "longrun.git_dirty"
DATA, HOLDOUT, SPLIT_VERSION, METRIC_VERSION = "longrun.data_sha256", "longrun.holdout_sha256", "longrun.split_version", "longrun.metric_version"
# On a model version: somebody accepted its failing gate.
OVERRIDE = "longrun.override"
# On a judged run: the override that its exit status 0 is owed to.
ACCEPTED = "longrun.gate.override"
VERDICT, EXIT_STATUS, JUDGED_AT, BASELINE, REASON = (f"longrun.gate.{name}" for name in ("verdict", "exit_status", "judged_at", "baseline", "reason"))

# What the server says of a name or an alias that it does not have.
ABSENT = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
RUN_ID = re.compile(r"[0-9a-f]{32}")
RUN_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
VERSION = re.compile(r"[0-9]{1,18}")
FINISHED = "FINISHED"
# The kinds of run that measure and bring no model to judge; all others (`train`, `sweep`) do. MLflow's filters know no "one of".
WITHOUT_MODEL = ("calibration", "trial")
WITH_MODEL = " and ".join(f"tags.`{KIND}` != '{kind}'" for kind in WITHOUT_MODEL)


@dataclass(frozen=True)
class Place:
    """Where a gate looks: the server, the experiment of the runs and the registered model."""

    client: MlflowClient
    server: Server
    experiment: Experiment
    model: str

    def reference(self, run: Run, version: ModelVersion | None = None) -> RunReference:
        """Return what a reader needs to find a run again.

        Args:
            run: The run.
            version: Its version, where it was looked up already.
        """
        found = version or version_of(self.client, self.model, run.info.run_id)
        own = run.info.experiment_id == self.experiment.experiment_id
        tags = run.data.tags
        return RunReference(
            run_id=run.info.run_id,
            url=self.server.run_url(run.info.experiment_id, run.info.run_id),
            experiment=self.experiment.name if own else self.client.get_experiment(run.info.experiment_id).name,
            model=self.model,
            version=None if found is None else str(found.version),
            commit=tags.get(COMMIT),
            branch=tags.get(BRANCH),
            pull_request=tags.get(PULL_REQUEST),
            finished=run.info.end_time,
        )

    def named(self, name: str, option: str) -> Run:
        """Return the run that a person means by a run's id or uuid, a version's number, or an alias.

        Args:
            name: What the person wrote.
            option: Where they wrote it, for the error.

        Raises:
            ProblemError: There is none.
        """
        if RUN_ID.fullmatch(name):
            return run_by_id(self.client, name, option)
        if RUN_UUID.fullmatch(name):
            run = find_run(self.client, self.experiment.name, name)
            if run is None:
                message = f"{option} {name}: no run of experiment {self.experiment.name!r} carries this uuid: is it still in the spool (`longrun sync`)?"
                raise ProblemError(message)
            return run
        version = named_version(self.client, self.model, name, option)
        if not version.run_id:
            message = f"{option} {name}: version {version.version} of {self.model!r} was not made by a run, so there is nothing to compare"
            raise ProblemError(message)
        return run_by_id(self.client, version.run_id, f"version {version.version} of {self.model!r}: its run")


def quoted(text: str) -> str:
    """Return a value as a search filter takes it.

    Raises:
        ProblemError: It holds both kinds of quotes, which MLflow can't search for.
    """
    if "'" in text and '"' in text:
        message = f"{text!r} holds both ' and \", which MLflow can't search for: take a name with one of them at most"
        raise ProblemError(message)
    return f'"{text}"' if "'" in text else f"'{text}'"


def run_by_id(client: MlflowClient, run_id: str, what: str) -> Run:
    """Return a run that is there and not deleted.

    Raises:
        ProblemError: It is not.
    """
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        message = f"{what} {run_id} is not on the server: check it on the experiment's page"
        raise ProblemError(message) from error
    if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
        message = f"{what} {run_id} is deleted: `mlflow runs restore --run-id {run_id}` restores it"
        raise ProblemError(message)
    return run


def registered_model(client: MlflowClient, model: str) -> RegisteredModel:
    """Return a registered model with its tags and aliases.

    Raises:
        ProblemError: There is none of this name.
    """
    try:
        return client.get_registered_model(model)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        message = f"there is no registered model {model!r} on the server: `longrun train` makes it; or check [model] name"
        raise ProblemError(message) from error


def alias_of(client: MlflowClient, model: str, alias: str) -> ModelVersion | None:
    """Return the version that an alias points at; None where there is no such alias, or no such model."""
    try:
        return client.get_model_version_by_alias(model, alias)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


def version_by_number(client: MlflowClient, model: str, number: str) -> ModelVersion | None:
    """Return a version; None where there is none of this number."""
    try:
        return client.get_model_version(model, number)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


def named_version(client: MlflowClient, model: str, name: str, option: str) -> ModelVersion:
    """Return the version that a person means by its number or by an alias.

    Raises:
        ProblemError: There is none.
    """
    numbered = VERSION.fullmatch(name) is not None
    found = version_by_number(client, model, name) if numbered else alias_of(client, model, name)
    if found is None:
        kind = f"no version {name}" if numbered else f"no alias {name!r}, nor is it a run"
        message = f"{option} {name}: the model {model!r} has {kind}: take a run's id, a version's number or an alias"
        raise ProblemError(message)
    return found


def version_of(client: MlflowClient, model: str, run_id: str) -> ModelVersion | None:
    """Return the newest version of the model that a run made; None where it made none."""
    found = client.search_model_versions(f"name = {quoted(model)} and run_id = '{run_id}'")
    return max(found, key=lambda version: int(version.version), default=None)


def same_pull_request(one: Run, other: Run) -> bool:
    """Say whether two runs come from one pull request of one repository."""
    number = one.data.tags.get(PULL_REQUEST)
    return bool(number) and number == other.data.tags.get(PULL_REQUEST) and one.data.tags.get(REPOSITORY) == other.data.tags.get(REPOSITORY)
