"""``python -m tests.bench.abuse``: what an abuser costs everybody else, on each transport.

Another client resolves routes, one call after the other with a pause of 2 ms, first in quiet and then while one abuser
does its worst (``abusers``). Server and engines have one core to themselves. The client has the last core; so has the
abuser where there are only two, but as an idle process (SCHED_IDLE), which runs only while the client does not. With
three cores or more it has one of its own.

Targets: the client's p99 stays within twice that of quiet, and the server grows by at most 64 MB.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil

from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman_server import embedded
from pointsman_server.telemetry import logs
from tests.bench import cores, report, requests
from tests.bench.abusers import ABUSES
from tests.bench.children import ROOT, Child, child
from tests.bench.rig import COMMON, TRANSPORTS, load_routes
from tests.support.memory import MEGABYTE, forget_worst, resident

PAUSE_SECONDS = 0.002
TARGET_RATIO = 2.0
TARGET_MEGABYTES = 64
# With them, a server checks bearer tokens, and `bad-tokens` is about that; without, it ignores them.
JWT_SETTINGS = ("POINTSMAN_JWT_ISSUER", "POINTSMAN_JWT_AUDIENCE", "POINTSMAN_JWT_JWKS_FILE")


@dataclass(frozen=True, slots=True)
class Places:
    """Which core is whose; none where nothing can be pinned."""

    server: int | None
    client: int | None
    abuser: int | None

    @classmethod
    def choose(cls) -> "Places":
        """Spread over what there is."""
        available = cores.available()
        if len(available) < 2:
            return cls(None, None, None)
        return cls(available[0], available[-1], available[1])

    @property
    def shared(self) -> bool:
        """Whether the abuser must share the core of the client."""
        return self.abuser == self.client


@dataclass(frozen=True, slots=True)
class Row:
    """What was seen of one abuse; times in milliseconds, growth in bytes."""

    transport: str
    abuse: str
    quiet: float
    abused: float
    growth: int
    per_second: float
    disconnected: int
    failed: int

    @property
    def ratio(self) -> float:
        """How much slower the client's p99 got."""
        return self.abused / self.quiet

    @property
    def fine(self) -> bool:
        """Whether the targets hold."""
        return not self.failed and self.ratio <= TARGET_RATIO and self.growth <= TARGET_MEGABYTES * MEGABYTE


class Client:
    """The one that must not suffer."""

    def __init__(self, address: str, metadata: Sequence[tuple[str, str]]) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub = RouteServiceStub(self._channel)
        self._requests = requests.resolves()[:200]
        self._metadata = metadata

    def p99(self, seconds: float) -> tuple[float, int]:
        """Call for some seconds; returns the 99th percentile in milliseconds, and how many calls failed."""
        times: list[float] = []
        failed = 0
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            try:
                request = self._requests[len(times) % len(self._requests)]
                self._stub.Resolve(request, timeout=10, metadata=self._metadata)
            except grpc.RpcError:
                failed += 1
            times.append(time.perf_counter() - begun)
            time.sleep(PAUSE_SECONDS)
        return sorted(times)[int(len(times) * 0.99)] * 1000, failed

    def close(self) -> None:
        """Hang up."""
        self._channel.close()


@contextmanager
def abusing(name: str, address: str, places: Places, told: dict[str, int]) -> Iterator[None]:
    """Let an abuser loose until the block ends; ``told`` gets what it says."""

    def place() -> None:
        if places.abuser is not None:
            os.sched_setaffinity(0, {places.abuser})
            if places.shared:
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    command = [sys.executable, "-m", "tests.bench.abusers", name, address]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, preexec_fn=place)  # noqa: PLW1509 - one thread
    try:
        yield
    finally:
        process.terminate()
        try:
            output, _ = process.communicate(timeout=30)
            told.update(json.loads(output or b"{}"))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def measure(transport: str, abuse: str, server: Child, places: Places, chosen: argparse.Namespace) -> Row:
    """Measure one abuse of one server: quiet, abused, quiet, abused, of which the medians are taken."""
    quiet, abused, told = [], [], {"done": 0, "disconnected": 0}
    failed = growth = 0
    with cores.pinned(places.client):
        token = [("authorization", f"Bearer {chosen.token}")] if chosen.token else []
        client = Client(server.address, token)
        client.p99(1)
        for _ in range(chosen.rounds):
            p99, missed = client.p99(chosen.seconds)
            quiet.append(p99)
            before = _start_of_growth(server)
            seen: dict[str, int] = {}
            with abusing(abuse, server.address, places, seen):
                time.sleep(1)  # until it is in full swing
                p99, missed = client.p99(chosen.seconds)
                abused.append(p99)
            failed += missed
            growth = max(growth, _worst(server) - before)
            for name in told:
                told[name] += seen.get(name, 0)
        client.close()
    per_second = told["done"] / (chosen.rounds * (chosen.seconds + 1))
    middle = statistics.median
    return Row(transport, abuse, middle(quiet), middle(abused), growth, per_second, told["disconnected"], failed)


def _family(server: Child) -> list[int]:
    process = psutil.Process(server.process.pid)
    return [process.pid, *(each.pid for each in process.children(recursive=True))]


def _start_of_growth(server: Child) -> int:
    for pid in _family(server):
        forget_worst(pid)
    return sum(map(resident, _family(server)))


def _worst(server: Child) -> int:
    return sum(resident(pid, worst=True) for pid in _family(server))


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Render what was seen."""
    yield "| transport | abuse | a second | disconnected | p99 quiet ms | p99 abused ms | ratio | memory | targets |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|---|"
    for row in rows:
        verdict = "met" if row.fine else "missed"
        if row.failed:
            verdict += f", {row.failed} calls failed"
        yield (
            f"| {row.transport} | {row.abuse} | {row.per_second:,.0f} | {row.disconnected:,} | {row.quiet:.2f} | "
            f"{row.abused:.2f} | {row.ratio:.1f} | {row.growth / MEGABYTE:+.0f} MB | {verdict} |"
        )


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.abuse", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one run (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the medians are taken (%(default)s)")
    parser.add_argument("--only", choices=ABUSES, action="append", help="one abuse; again for more")
    parser.add_argument("--transport", choices=TRANSPORTS, action="append", help="one transport; again for more")
    parser.add_argument("--token", default="", help="a good bearer token, for a server that asks for one")
    return parser.parse_args()


def environment(urls: Mapping[str, str]) -> dict[str, str]:
    """Say how the servers run: as by default, but for ``JWT_SETTINGS``, which are taken over from our environment."""
    return COMMON | dict(urls) | {name: os.environ[name] for name in JWT_SETTINGS if name in os.environ}


@contextmanager
def _server(transport: str, log: Path, urls: Mapping[str, str], places: Places) -> Iterator[Child]:
    # One for each abuse: what it leaves behind is not another's.
    serve = ["pointsman_server", "serve", "--roles", "api", "--transport", transport]
    with ExitStack() as stack:
        with cores.pinned(places.server):
            server = stack.enter_context(child(serve, log, environment(urls)))
        yield server


def main() -> int:
    """Measure and print; 1 when a target is missed."""
    chosen = options()
    places = Places.choose()
    logs.configure("warning", "console")
    print(*report.machine(load=os.getloadavg()), "", sep="\n")
    print(f"server on core {places.server}, client on {places.client}, abuser on {places.abuser}", end="")
    print(" as SCHED_IDLE" if places.shared else "", end="\n\n", flush=True)
    rows: list[Row] = []
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pointsman-bench-")))
        with cores.pinned(places.server):
            engines = stack.enter_context(embedded.start(data, ("postgres", "redis")))
        load_routes(engines.urls)
        for transport, abuse in itertools.product(chosen.transport or TRANSPORTS, chosen.only or ABUSES):
            with _server(transport, data / f"{transport}-{abuse}.log", engines.urls, places) as server:
                rows.append(measure(transport, abuse, server, places, chosen))
            print(*list(table(rows))[0 if len(rows) == 1 else -1 :], sep="\n", flush=True)
    return 0 if all(row.fine for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
