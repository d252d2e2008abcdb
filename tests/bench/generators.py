"""The load generators: h2load, which is fast and repeats one request, and ours, whose requests differ."""

import json
import re
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.children import ROOT
from tests.bench.driver import Job

CONNECTIONS = 4
CALLS_IN_FLIGHT = 32
SERVICE = "pointsman.v1.RouteService"
H2LOAD_HINT = "h2load is missing, and what it measures: it comes with nghttp2-client (Debian) or nghttp2 (Homebrew)"


class LoadFailed(Exception):
    """A load generator failed, or calls did."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a generator saw: calls, seconds, percentiles in milliseconds; and its own processor time in seconds."""

    calls: int
    seconds: float
    p50: float
    p99: float
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Calls per second."""
        return self.calls / self.seconds


@dataclass(frozen=True, slots=True)
class H2load:
    """h2load, with one prepared request."""

    program: Path
    frame: Path
    log: Path
    headers: Mapping[str, str] = field(default_factory=dict)
    connections: int = CONNECTIONS
    in_flight: int = CALLS_IN_FLIGHT
    scheme: str = "http"

    def run(self, address: str, method: str, seconds: float) -> Load:
        """Call for some seconds. It sees only HTTP: the caller checks that the calls were OK."""
        self.log.unlink(missing_ok=True)
        path = method if "/" in method else f"{SERVICE}/{method}"
        command = [
            str(self.program),
            f"--duration={round(seconds * 1000)}ms",
            f"--clients={self.connections}",
            f"--max-concurrent-streams={self.in_flight // self.connections}",
            f"--data={self.frame}",
            "--header=content-type: application/grpc",
            "--header=te: trailers",
            *(f"--header={name}: {value}" for name, value in self.headers.items()),
            f"--log-file={self.log}",
            f"{self.scheme}://{address}/{path}",
        ]
        output, cpu = _output(command, seconds + 60)
        return h2load_load(output, self.log.read_text(), seconds, cpu)


def find_h2load(frame: Path, log: Path) -> H2load | None:
    """Find h2load."""
    program = shutil.which("h2load")
    return H2load(Path(program), frame, log) if program else None


def drive(job: Job) -> Load:
    """Carry out a job in a process of its own. Raises LoadFailed unless every call is OK."""
    outcome = _drive(job)
    p50, p99 = percentiles(outcome["microseconds"])
    return Load(outcome["calls"], outcome["seconds"], p50, p99, outcome["cpu"])


def percentiles(microseconds: Sequence[int]) -> tuple[float, float]:
    """Give the median and the 99th percentile in milliseconds. Raises LoadFailed when there are no calls."""
    if not microseconds:
        raise LoadFailed("no calls were made")
    cuts = statistics.quantiles([*microseconds, microseconds[-1]], n=100, method="inclusive")
    return cuts[49] / 1000, cuts[98] / 1000


def ask(job: Job) -> bytes:
    """Make the first call of a job alone, and return its answer without the prefix. Raises LoadFailed."""
    settled = {"connections": 1, "in_flight": 1, "seconds": 0.0, "keep": True}
    answer = bytes.fromhex(_drive(Job(**asdict(job) | settled))["answer"])
    return answer[5:]


def _drive(job: Job) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.driver"]
    outcome: dict[str, Any] = json.loads(_output(command, job.seconds + 60, json.dumps(asdict(job)))[0])
    return outcome


def h2load_load(output: str, log: str, seconds: float, cpu: float = 0.0) -> Load:
    """Read what h2load printed, and its log of requests: start, HTTP status, microseconds. Raises LoadFailed."""
    found = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed", output)
    if not found or found[1] != found[2] or found[3] != "0" or found[1] == "0":
        raise LoadFailed(f"h2load's calls were not all answered: {output.strip()[-500:]}")
    p50, p99 = percentiles([int(line.split("\t")[2]) for line in log.splitlines()])
    return Load(int(found[1]), seconds, p50, p99, cpu)


def _output(command: Sequence[str], seconds: float, given: str = "") -> tuple[str, float]:
    """Run to the end; on a timeout or an interrupt the generator is killed. Gives its output and processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise LoadFailed(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
