"""Where a run comes from: the commit that it was started on, and the machine and packages that it ran with."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import distributions

TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Source:
    """The state of the code.

    Attributes:
        commit: Full hash, or None where the folder has no commit.
        branch: Its name, or None on a detached commit.
        dirty: Whether tracked files differ from the commit; None where git can't tell.
    """

    commit: str | None
    branch: str | None
    dirty: bool | None


def source() -> Source:
    """Return commit and branch: what CI says, else what git says about the current folder."""
    # On a pull request GITHUB_REF_NAME is `7/merge`; the branch that a person knows is in GITHUB_HEAD_REF.
    branch = os.environ.get("GITHUB_HEAD_REF") or os.environ.get("GITHUB_REF_NAME") or _git("branch", "--show-current")
    commit = os.environ.get("GITHUB_SHA") or _git("rev-parse", "--verify", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return Source(commit or None, branch or None, None if changes is None or not commit else bool(changes))


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


def environment() -> dict[str, object]:
    """Return the interpreter, the platform and every installed package with its version, fit for JSON."""
    packages = {(found.metadata["Name"] or "").lower(): found.version for found in distributions()}
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "packages": dict(sorted(packages.items())),
    }
