"""What this process may use of its machine or container."""

import os
from dataclasses import dataclass
from pathlib import Path

from pointsman_server.runtime import descriptors

# cgroup v2, and v1, whose number for "no limit" is beyond any machine.
MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True)
class Machine:
    """CPUs, memory in bytes, and file descriptors."""

    cpus: int
    memory: int
    descriptors: int


def measure() -> Machine:
    """Measure what the limits of the container, or else the machine, allow."""
    return Machine(_cpus(CPU_LIMIT), _memory(MEMORY_LIMITS), descriptors.within_reach())


def _cpus(limit: Path) -> int:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = limit.read_text().split()
        return max(1, min(allowed, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return allowed


def _memory(limits: tuple[Path, ...]) -> int:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in limits:
        try:
            return min(physical, int(path.read_text()))
        except (OSError, ValueError):
            continue
    return physical
