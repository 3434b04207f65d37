"""`python -m longrun_server server ...`: `mlflow server ...` as one process.

MLflow's command imports all of MLflow to check its options, starts uvicorn as a child and waits for it, for as long as the server lives. Here it becomes
uvicorn in the child's place, and gives its memory and its connections to PostgreSQL back.
"""

# MLflow gives no types to what is called here.
# mypy: disable-error-code="no-untyped-call"

import os
import sys
from collections.abc import Mapping, Sequence

import mlflow.server
from mlflow.cli import cli

from longrun_server import seams


def become(command: Sequence[str], *, extra_env: Mapping[str, str], **_ways_to_wait: object) -> None:
    """Run a command in this process's place, with what MLflow would add to the child's environment."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(command[0], command, {**os.environ, **extra_env})  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    # The server says in its log what follows from another version.
    if seams.VERSION in seams.CHECKED:
        vars(mlflow.server)["_exec_cmd"] = become
    cli(prog_name="mlflow")
