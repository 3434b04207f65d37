"""Memory of services, and the temporary files that they hold open.

    memory.py once UNIT...    one line of JSON
    memory.py watch UNIT...   a line every quarter of a second, until standard input ends

`bytes` is their proportional share (PSS); of a process that nobody may look into, as nginx's workers are, it is what is its own.
Runs on the host as root. In a container that is not enough to look at another user's process, so it becomes that user for the moment.
"""

import json
import os
import re
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PAUSE_SECONDS = 0.25
TEMPORARY = ("/tmp/", "/var/tmp/")  # noqa: S108 - to be looked for, not used


@contextmanager
def become(uid: int, gid: int) -> Iterator[None]:
    """Act as another user."""
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def kilobytes(path: Path, name: str) -> int:
    """Return the number behind a name in one of the kernel's tables."""
    found = re.search(rf"(?m)^{name}:\s+(\d+) kB", path.read_text())
    return int(found[1]) if found else 0


def temporary_files(process: Path) -> dict[tuple[int, int], int]:
    """Return the size of each temporary file that a process holds open, however often; those without a name included."""
    sizes = {}
    for link in (process / "fd").iterdir():
        with suppress(OSError):
            target, found = str(link.readlink()), link.stat()
            if stat.S_ISREG(found.st_mode) and not target.startswith("/memfd:") and (target.endswith("(deleted)") or any(each in target for each in TEMPORARY)):
                sizes[found.st_dev, found.st_ino] = found.st_size
    return sizes


def look(units: list[str]) -> dict[str, int]:
    """Return what the processes of these services have together."""
    report = {"bytes": 0, "processes": 0}
    temporary: dict[tuple[int, int], int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        # One that ends meanwhile has nothing.
        with suppress(FileNotFoundError, ProcessLookupError):
            if not any(f"/{unit}\n" in (process / "cgroup").read_text() for unit in units):
                continue
            owner = process.stat()
            try:
                with become(owner.st_uid, owner.st_gid):
                    size = kilobytes(process / "smaps_rollup", "Pss")
                    temporary |= temporary_files(process)
            except PermissionError:
                size = kilobytes(process / "status", "RssAnon")
            report["bytes"] += 1024 * size
            report["processes"] += 1
    return report | {"temporary": sum(temporary.values())}


def main(verb: str, units: list[str]) -> None:
    """Look once, or again and again."""
    while True:
        print(json.dumps(look(units)), flush=True)
        if verb == "once" or select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
            return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
