"""Servers as processes of their own, which never outlive this one."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

import psutil

from pointsman_server.embedded.tied import tied_to_this_process

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0
STOP_SECONDS = 15.0
OURS = ("POINTSMAN_", "DATABASE_URL", "REDIS_URL", "KAFKA_")


class ChildFailed(Exception):
    """A server did not start; the text holds the end of what it printed."""


@dataclass(frozen=True, slots=True)
class Child:
    """A server that listens."""

    process: subprocess.Popen[bytes]
    grpc_port: int
    http_port: int

    @property
    def address(self) -> str:
        """Where gRPC listens."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def metrics(self) -> str:
        """Where the metrics are, of servers that have any."""
        return f"http://127.0.0.1:{self.http_port}/metrics"


@contextmanager
def child(
    command: Sequence[str], log: Path, settings: Mapping[str, str] | None = None, *, module: bool = True
) -> Iterator[Child]:
    """Run ``python -m`` a module, with arguments, until the block ends; without ``module`` a program.

    Once it serves, it logs a line of JSON with its ports. Raises ChildFailed.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            tied_to_this_process([*((sys.executable, "-m") if module else ()), *command], death=SIGTERM),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env=clean | dict(settings or {}),
            start_new_session=True,  # Ctrl-C is ours to handle
        )
    try:
        report = _serving(process, log)
        yield Child(process, report["grpc_port"], report.get("http_port", 0))
    finally:
        _stop(process)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Sum the processor time of processes and of everything that they started."""
    return sum(_cpu_seconds(process) for pid in pids for process in _family(pid))


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _cpu_seconds(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


def _serving(process: subprocess.Popen[bytes], log: Path) -> dict[str, int]:
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        for line in log.read_text(errors="replace").splitlines():
            if '"serving"' in line and line.endswith("}"):
                report: dict[str, int] = json.loads(line)
                return report
        time.sleep(0.05)
    end = "\n  ".join(log.read_text(errors="replace").splitlines()[-15:])
    raise ChildFailed(f"a server does not serve; the end of {log.name}:\n  {end}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
