"""The load generators: ghz, which varies the request, and h2load, which is faster and repeats one."""

import json
import re
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.tools import tool

CONNECTIONS = 4
CALLS_IN_FLIGHT = 32
SERVICE = "pointsman.v1.RouteService"
GHZ_HINT = "ghz is missing: `make tools` builds it, which needs Go on PATH (https://go.dev/dl)"
H2LOAD_HINT = "h2load is missing, and what it measures: it comes with nghttp2-client (Debian) or nghttp2 (Homebrew)"


class LoadFailed(Exception):
    """A load generator failed, or calls did."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a generator saw: calls, seconds, and percentiles in milliseconds."""

    calls: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Calls per second."""
        return self.calls / self.seconds


@dataclass(frozen=True, slots=True)
class Ghz:
    """ghz, with a file of requests."""

    program: Path
    descriptors: Path

    def run(self, address: str, method: str, data: Path, seconds: float) -> Load:
        """Call for some seconds. Raises LoadFailed unless every call is OK."""
        return self._run(address, method, data, [f"--duration={seconds}s", "--duration-stop=wait"], seconds)

    def warm_up(self, address: str, method: str, data: Path, calls: int) -> None:
        """Make a number of calls. Raises LoadFailed unless every call is OK."""
        self._run(address, method, data, [f"--total={calls}"], seconds=60)

    def _run(self, address: str, method: str, data: Path, amount: Sequence[str], seconds: float) -> Load:
        templates = [] if "{{." in data.read_text() else ["--disable-template-functions", "--disable-template-data"]
        command = [
            str(self.program),
            "--insecure",
            f"--protoset={self.descriptors}",
            f"--call={SERVICE}/{method}",
            f"--data-file={data}",
            f"--concurrency={CALLS_IN_FLIGHT}",
            f"--connections={CONNECTIONS}",
            "--format=json",
            *templates,
            *amount,
            address,
        ]
        return _ghz_load(json.loads(_output(command, seconds + 60)))


@dataclass(frozen=True, slots=True)
class H2load:
    """h2load, with one prepared request."""

    program: Path
    frame: Path
    log: Path

    def run(self, address: str, method: str, seconds: float) -> Load:
        """Call for some seconds. It sees only HTTP: whoever calls this checks that the calls were OK."""
        self.log.unlink(missing_ok=True)
        command = [
            str(self.program),
            f"--duration={round(seconds * 1000)}ms",
            f"--clients={CONNECTIONS}",
            f"--max-concurrent-streams={CALLS_IN_FLIGHT // CONNECTIONS}",
            f"--data={self.frame}",
            "--header=content-type: application/grpc",
            "--header=te: trailers",
            f"--log-file={self.log}",
            f"http://{address}/{SERVICE}/{method}",
        ]
        return _h2load_load(_output(command, seconds + 60), self.log, seconds)


def find_ghz(descriptors: Path) -> Ghz | None:
    """Find ghz."""
    program = tool("ghz")
    return Ghz(program, descriptors) if program else None


def find_h2load(frame: Path, log: Path) -> H2load | None:
    """Find h2load."""
    program = shutil.which("h2load")
    return H2load(Path(program), frame, log) if program else None


def _output(command: Sequence[str], seconds: float) -> str:
    """Run to the end; on a timeout or an interrupt the generator is killed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise LoadFailed(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def _ghz_load(report: dict[str, Any]) -> Load:
    codes = report["statusCodeDistribution"]
    if codes != {"OK": report["count"]}:
        raise LoadFailed(f"calls were not all OK: {codes} {report['errorDistribution']}")
    milliseconds = {entry["percentage"]: entry["latency"] / 1e6 for entry in report["latencyDistribution"]}
    return Load(report["count"], report["total"] / 1e9, milliseconds[50], milliseconds[99])


def _h2load_load(output: str, log: Path, seconds: float) -> Load:
    found = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed", output)
    if not found or found[1] != found[2] or found[3] != "0" or found[1] == "0":
        raise LoadFailed(f"h2load's calls were not all answered: {output.strip()[-500:]}")
    microseconds = [int(line.split("\t")[2]) for line in log.read_text().splitlines()]
    percentiles = statistics.quantiles(microseconds, n=100)
    return Load(int(found[1]), seconds, percentiles[49] / 1000, percentiles[98] / 1000)
