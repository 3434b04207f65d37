"""What a step tells its runner: outputs, variables for the steps after it, annotations, and the job's summary.

The scripts of this folder need nothing but Python's standard library: they run before anything is installed.
"""

import os
import secrets
import sys
from pathlib import Path
from typing import NoReturn

# GitHub takes 1 MiB a step.
SUMMARY_BYTES = 1_000_000


def _append(variable: str, text: str) -> None:
    """Add to the file that a variable names; without a runner there is none, and nobody to tell."""
    if path := os.environ.get(variable):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


def _entry(name: str, value: str) -> str:
    # The value ends at a line that it can't hold, for nobody can guess it.
    end = f"end-{secrets.token_hex(8)}"
    return f"{name}<<{end}\n{value}\n{end}\n"


def output(name: str, value: str) -> None:
    """Give the step an output."""
    _append("GITHUB_OUTPUT", _entry(name, value))


def variable(name: str, value: str) -> None:
    """Set an environment variable for the steps that follow."""
    _append("GITHUB_ENV", _entry(name, value))


def summary(markdown: str) -> None:
    """Add to the job's summary, cut to what GitHub takes."""
    cut = markdown.encode()[:SUMMARY_BYTES].decode(errors="ignore")
    _append("GITHUB_STEP_SUMMARY", f"{cut}\n")


def _annotate(kind: str, text: str) -> None:
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    print(f"::{kind}::{escaped}", flush=True)


def notice(text: str) -> None:
    """Say something that a reader of the pull request should see."""
    _annotate("notice", text)


def warning(text: str) -> None:
    """Say something that somebody should look at, though the job goes on."""
    _annotate("warning", text)


def fail(text: str, status: int = 1) -> NoReturn:
    """Say in one line what is wrong and what to do, and end the step."""
    _annotate("error", text)
    sys.exit(status)


def needed(name: str) -> str:
    """Return a variable that the workflow has to set."""
    value = os.environ.get(name, "")
    if not value:
        fail(f"{name} is not set: the workflow that calls this script has to")
    return value
