"""A judgement where others find it: the file gate.json, and the run's tags and artifact."""

import os
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import RunTag
from pydantic import ValidationError

from longrun_training import lookup
from longrun_training.errors import ProblemError
from longrun_training.judgement import Judgement
from longrun_training.records import LONGEST_TAG

ARTIFACT = "gate.json"
DEFAULT = Path(".longrun/gate.json")


def to_json(judgement: Judgement) -> str:
    """Return the file's text: JSON with a line a value, ended by a newline."""
    return judgement.model_dump_json(indent=2) + "\n"


def write(judgement: Judgement, path: Path) -> None:
    """Write a judgement whole or not at all; its folder is made where it is missing.

    Raises:
        ProblemError: The disk or the folder does not take it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(to_json(judgement))
                file.flush()
                # A temporary file is its owner's alone; this one is for everybody whom the folder is for.
                temporary.chmod(0o666 & ~_umask())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        message = f"{path} can't be written: {error.strerror or error}: choose another --output"
        raise ProblemError(message) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read(path: Path) -> Judgement:
    """Read a judgement.

    Raises:
        ProblemError: There is none, or it is no judgement of this format.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        message = f"{path} does not exist: `longrun gate` writes it"
        raise ProblemError(message) from error
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} can't be read: {getattr(error, 'strerror', None) or error}"
        raise ProblemError(message) from error
    try:
        return Judgement.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = f"{path} is no judgement that this version reads ({f'{where}: ' if where else ''}{first['msg']}): run `longrun gate` again"
        raise ProblemError(message) from error


def tags(judgement: Judgement) -> dict[str, str]:
    """Return what a judged run is marked with; a tag is empty where there is nothing to say, so that an older one does not stay."""
    return {
        lookup.VERDICT: judgement.verdict.value,
        lookup.EXIT_STATUS: str(judgement.exit_status),
        lookup.JUDGED_AT: judgement.judged_at,
        lookup.BASELINE: judgement.baseline.run_id if judgement.baseline else "",
        lookup.REASON: judgement.reason[:LONGEST_TAG],
        lookup.ACCEPTED: judgement.override.model_dump_json() if judgement.override else "",
    }


def publish(client: MlflowClient, judgement: Judgement) -> None:
    """Store a judgement with the run that it is about: the artifact first, so that a run that is marked has it."""
    if judgement.candidate is None:
        return
    run_id = judgement.candidate.run_id
    client.log_text(run_id, to_json(judgement), ARTIFACT)
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags(judgement).items()])
