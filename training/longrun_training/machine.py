"""The machine that a run is made on: processor, memory, and how much of it is free."""

import os
import platform
from contextlib import suppress
from pathlib import Path

MEMORY = Path("/proc/meminfo")
PROCESSORS = Path("/proc/cpuinfo")
# What a container may use: of cgroup v2, then of v1.
LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def free_memory() -> int | None:
    """Return how many bytes a process can get now without swapping, or None where the system does not say."""
    free = [bytes_ for bytes_ in (_memory("MemAvailable"), *(_left(limit, used) for limit, used in LIMITS)) if bytes_ is not None]
    return min(free, default=None)


def hardware() -> dict[str, object]:
    """Return what decides how fast a run is, fit for JSON."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "usable_cpus": usable,
        "memory_bytes": _memory("MemTotal"),
    }


def _memory(name: str) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in MEMORY.read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def _left(limit: Path, used: Path) -> int | None:
    # `max` and a file that is not there alike mean that there is no limit.
    with suppress(OSError, ValueError):
        return max(0, int(limit.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii")))
    return None


def _processor() -> str:
    with suppress(OSError):
        for line in PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
