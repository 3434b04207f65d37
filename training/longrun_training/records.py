"""What a run is made of before any server sees it: plain values that go into the journal as JSON and out of it again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# The longest values that MLflow stores; what is longer is cut here, so that what is read back equals what was sent.
LONGEST_PARAMETER, LONGEST_TAG = 6000, 8000

# The tags that this package lives by. All values are strings.
UUID = "longrun.uuid"  # made by the client: what a run is found by, wherever it was made
MODEL = "longrun.model"
KIND = "longrun.kind"
PARENT = "longrun.parent"  # the parent's uuid; the parent itself may still wait in the spool
HEARTBEAT = "longrun.heartbeat"  # milliseconds since 1970
HOST = "longrun.host"
DURATION = "longrun.duration_seconds"
REAPED = "longrun.reaped"
PARENT_RUN = "mlflow.parentRunId"


@dataclass(frozen=True)
class Description:
    """What a run is, known before it begins.

    Attributes:
        experiment: The experiment's name.
        model: The registered model that the run may add a version to.
        kind: `train`, `calibration`, `sweep` (a parent) or `trial` (its child).
        tags: What the run is marked with from its beginning.
        parent: The uuid (not the run id) of the sweep's parent run.
    """

    experiment: str
    model: str
    kind: str
    tags: Mapping[str, str]
    parent: str | None = None


@dataclass(frozen=True)
class LoggedData:
    """A data set as a run's input: what it was and where it came from, not its rows.

    Attributes:
        name: Shown by MLflow's pages.
        digest: At most 36 characters; the same rows have the same digest.
        source: Where the rows are, as the source type writes it (JSON for MLflow's own types).
        source_type: `local`, `code`, ...
        schema: JSON of the columns, as `mlflow.data` writes it.
        profile: JSON of the numbers of rows and elements.
        context: `training`, `evaluation`, ...
    """

    name: str
    digest: str
    source: str
    source_type: str
    schema: str
    profile: str
    context: str = "training"


@dataclass(frozen=True)
class Outcome:
    """Where a run ended up.

    Attributes:
        uuid: The client's own name for the run, valid on and off the server.
        run_id: On the server; None where the run never reached it.
        experiment_id: On the server.
        version: Of the registered model; None where none was made or it waits in the spool.
        url: Where MLflow's pages show the run.
        spooled: The folder in which (the rest of) the run waits for `longrun sync`; None where all of it is on the server.
    """

    uuid: str
    run_id: str | None
    experiment_id: str | None
    version: str | None
    url: str | None
    spooled: Path | None
