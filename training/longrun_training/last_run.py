"""Which run this folder made last: what `gate` and `report` work on where nobody names a run."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from longrun_training.errors import ProblemError
from longrun_training.records import Description, Outcome

NAME = "last-run.json"


@dataclass(frozen=True)
class LastRun:
    """A run, on the server or still in the spool.

    Attributes:
        uuid: What the run is found by, also after a sync.
        run_id: None where it was not on the server yet.
        experiment: Its name.
        model: The registered model.
        version: Of it; None where there is none yet.
        server: The server's address.
        spooled: The folder where it waits; None where all of it is on the server.
    """

    uuid: str
    run_id: str | None
    experiment: str
    model: str
    version: str | None
    server: str
    spooled: str | None


def place(spool: Path) -> Path:
    """Return where it is noted: beside the spool."""
    return spool.parent / NAME


def write(outcome: Outcome, description: Description, server: str, spool: Path) -> None:
    """Note a run. A full disk loses the note and not the run.

    Args:
        outcome: Of the run.
        description: Of the run.
        server: `Server.address`.
        spool: The folder of runs that wait.
    """
    spooled = str(outcome.spooled) if outcome.spooled else None
    _store(spool, LastRun(outcome.uuid, outcome.run_id, description.experiment, description.model, outcome.version, server, spooled))


def read(spool: Path) -> LastRun:
    """Return the run that was made last.

    Raises:
        ProblemError: There is none, or the note can't be read.
    """
    path = place(spool)
    try:
        return LastRun(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        message = f"{path} is not there: run `longrun train` first, or name a run"
        raise ProblemError(message) from error
    except (OSError, ValueError, TypeError) as error:
        message = f"{path} can't be read ({error}): run `longrun train` again, or name a run"
        raise ProblemError(message) from error


def update(spool: Path, uuid: str, run_id: str, version: str | None) -> None:
    """Note that the last run is on the server now, where it is the one that was sent."""
    with suppress(ProblemError):
        found = read(spool)
        if found.uuid == uuid:
            _store(spool, replace(found, run_id=run_id, version=version, spooled=None))


def _store(spool: Path, run: LastRun) -> None:
    path = place(spool)
    part = path.with_name(f"{NAME}.{os.getpid()}.part")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(asdict(run), indent=2) + "\n", encoding="utf-8")
        part.replace(path)
