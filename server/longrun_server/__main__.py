"""`python -m longrun_server server ...`: `mlflow server ...` as one process.

MLflow's command imports all of MLflow to check its options, starts uvicorn as a child, which imports all of it again, and waits for it, for as long as the
server lives. Here it becomes uvicorn itself: one process, and what is imported is imported once, so that it is ready in half the time.
"""

# MLflow gives no types to what is called here.
# mypy: disable-error-code="no-untyped-call"

import os
import sys
from collections.abc import Mapping, Sequence

# Before MLflow, which asks whether it is there to know that it is being imported by a server, whose security is its own.
import uvicorn  # isort: split

import mlflow.server
from mlflow.cli import cli

from longrun_server import seams

# What MLflow's command sets for the server, and the server reads while it works. Anything else may be read when MLflow is imported, which is over by then.
READ_LATER = frozenset(
    {
        "MLFLOW_ENABLE_WORKSPACES",
        "MLFLOW_FLASK_SERVER_SECRET_KEY",
        "MLFLOW_REGISTRY_URI",
        "MLFLOW_SERVER_SECRETS_CACHE_MAX_SIZE",
        "MLFLOW_SERVER_SECRETS_CACHE_TTL",
        "MLFLOW_TRACKING_URI",
        "_MLFLOW_IN_JOB_EXECUTOR",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION",
        "_MLFLOW_SERVER_ARTIFACT_ROOT",
        "_MLFLOW_SERVER_BOOT_ID",
        "_MLFLOW_SERVER_FILE_STORE",
        "_MLFLOW_SERVER_REGISTRY_STORE",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS",
        "_MLFLOW_SGI_NAME",
    }
)
UVICORN = [sys.executable, "-m", "uvicorn"]
_AT_FIRST = dict(os.environ)


def become(command: Sequence[str], *, extra_env: Mapping[str, str], **_ways_to_wait: object) -> None:
    """Be what a command starts, in this process, with what MLflow would add to the child's environment.

    Where it is not uvicorn, or the environment holds what MLflow would have had to know earlier, the command takes this process's place.
    """
    os.environ.update(extra_env)
    set_since = {name for name, value in os.environ.items() if _AT_FIRST.get(name) != value} | (_AT_FIRST.keys() - os.environ.keys())
    if list(command[: len(UVICORN)]) == UVICORN and set_since <= READ_LATER:
        uvicorn.main(list(command[len(UVICORN) :]), prog_name="uvicorn")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    # The server says in its log what follows from another version.
    if seams.VERSION in seams.CHECKED:
        vars(mlflow.server)["_exec_cmd"] = become
    cli(prog_name="mlflow")
