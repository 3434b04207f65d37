"""Debian's own root file system, made from its packages: what each platform's image begins with."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from longrun_controller import tools
from longrun_controller.errors import ProblemError

CODENAMES = {12: "bookworm", 13: "trixie"}
# Commands or files, and the package that brings each. Ubuntu has no keys of Debian's archive.
PACKAGES = {"mmdebstrap": "mmdebstrap", "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring"}


def bootstrap(release: int, packages: Sequence[Path], setup: Path, target: Path, prepare: Path | None = None) -> None:
    """Install Debian into a folder, or into an archive where the target's name ends in .tar.

    Args:
        release: Debian release, 12 or 13.
        packages: Files that name the packages beside the smallest system.
        setup: A program that is run at the end, with the root's path as its argument.
        target: What is made.
        prepare: A program that is run before the packages are installed, with the root's path as its argument.

    Raises:
        ProblemError: The mirror does not answer, or a package is not to be had.
    """
    names = ",".join(name for path in packages for name in path.read_text(encoding="utf-8").split())
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={names}", f'--customize-hook={setup} "$1"']
    if prepare:
        command.append(f'--essential-hook={prepare} "$1"')
    command += [CODENAMES[release], str(target)]
    if mirror := os.environ.get("LONGRUN_DEBIAN_MIRROR"):
        command.append(mirror)
    done = subprocess.run([*tools.sudo(), *command], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith(("E:", "Err"))] or done.stderr.splitlines()
        message = f"mmdebstrap could not install Debian {release}: {lines[0] if lines else 'it said nothing'} (another mirror: LONGRUN_DEBIAN_MIRROR)"
        raise ProblemError(message)
