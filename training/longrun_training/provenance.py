"""Where a run comes from: the commit and the pipeline that it was started by, and the machine and packages that it ran with."""

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from longrun_training import machine

TIMEOUT_SECONDS = 10
# Of a pull request that GitHub merged for a try: refs/pull/7/merge.
PULL_REF = re.compile(r"refs/pull/(\d+)/")
# owner/name at the end of https://host/owner/name.git and git@host:owner/name.git.
REMOTE = re.compile(r"[:/]([^/:]+/[^/]+?)(?:\.git)?/?$")


@dataclass(frozen=True)
class Source:
    """The state of the code, and who runs it.

    Attributes:
        commit: Full hash, or None where the folder has no commit. Of a pull request its own, not the one that GitHub merged for a try.
        branch: Its name, or None on a detached commit.
        dirty: Whether tracked files differ from the commit; None where git can't tell.
        repository: owner/name.
        pull_request: Its number.
        pipeline_url: Where the pipeline's log is.
        attempt: The pipeline's own number and which try of it this is: `1234/2`.
    """

    commit: str | None = None
    branch: str | None = None
    dirty: bool | None = None
    repository: str | None = None
    pull_request: str | None = None
    pipeline_url: str | None = None
    attempt: str | None = None

    @property
    def tags(self) -> dict[str, str]:
        """What a run is marked with; what is not known is left out."""
        names = {"commit": "mlflow.source.git.commit", "branch": "mlflow.source.git.branch", "dirty": "longrun.git_dirty"}
        found = {names.get(field.name, f"longrun.{field.name}"): getattr(self, field.name) for field in fields(self)}
        return {name: str(value).lower() if isinstance(value, bool) else value for name, value in found.items() if value is not None}


def source() -> Source:
    """Return what CI says, else what git says about the current folder."""
    ci, pull = os.environ, _pull_request()
    head: Mapping[str, Any] = pull["head"] if isinstance(pull.get("head"), dict) else {}
    # On a pull request GITHUB_REF_NAME is `7/merge`; the branch that a person knows is in GITHUB_HEAD_REF.
    branch = ci.get("GITHUB_HEAD_REF") or head.get("ref") or ci.get("GITHUB_REF_NAME") or _git("branch", "--show-current")
    commit = head.get("sha") or ci.get("GITHUB_SHA") or _git("rev-parse", "--verify", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    ref = PULL_REF.match(ci.get("GITHUB_REF", ""))
    number = pull.get("number") or (ref[1] if ref else None)
    return Source(
        commit=commit or None,
        branch=branch or None,
        dirty=None if changes is None or not commit else bool(changes),
        repository=ci.get("GITHUB_REPOSITORY") or _repository(),
        pull_request=None if number is None else str(number),
        **_pipeline(ci),
    )


def _pull_request() -> Mapping[str, Any]:
    """Return what the event that started the pipeline says of its pull request; empty where it was something else."""
    path = os.environ.get("GITHUB_EVENT_PATH")
    try:
        event = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        # A run without this is still a run; GITHUB_REF knows the number too.
        return {}
    found = event.get("pull_request") if isinstance(event, dict) else None
    return found if isinstance(found, dict) else {}


def _pipeline(ci: Mapping[str, str]) -> dict[str, str | None]:
    number, repository = ci.get("GITHUB_RUN_ID"), ci.get("GITHUB_REPOSITORY")
    if not number:
        return {"pipeline_url": None, "attempt": None}
    attempt = ci.get("GITHUB_RUN_ATTEMPT") or "1"
    server = (ci.get("GITHUB_SERVER_URL") or "https://github.com").rstrip("/")
    url = f"{server}/{repository}/actions/runs/{number}" if repository else None
    return {"pipeline_url": url and (url if attempt == "1" else f"{url}/attempts/{attempt}"), "attempt": f"{number}/{attempt}"}


def _repository() -> str | None:
    # Only owner and name: an address may hold a password.
    found = REMOTE.search(_git("remote", "get-url", "origin") or "")
    return found[1] if found else None


def _git(*arguments: str) -> str | None:
    """Return what git prints, or None where there is no git, no repository or no commit."""
    git = shutil.which("git")
    if not git:
        return None
    try:
        done = subprocess.run([git, *arguments], capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def packages() -> dict[str, str]:
    """Return every installed package with its version, by name."""
    found = {(one.metadata["Name"] or "").lower(): one.version for one in distributions()}
    return dict(sorted((name, version) for name, version in found.items() if name))


def lock() -> str:
    """Return every installed package as pip reads it, one `name==version` a line."""
    return "".join(f"{name}=={version}\n" for name, version in packages().items())


def environment() -> dict[str, object]:
    """Return the interpreter, the platform, the hardware and every installed package with its version, fit for JSON."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        **machine.hardware(),
        "packages": packages(),
    }
