"""``python -m tests.bench.abuse``: what an abuser costs everybody else, on each transport.

A bystander resolves routes at a fixed rate, first in quiet and then while one abuser does its worst (``abusers``);
each is a process of its own. Server and engines have one core to themselves. The bystander has the last core, before
everybody else; so has the abuser where there are only two, but as an idle process (SCHED_IDLE), which runs only while
nobody else does. With three cores or more it has one of its own. Callers show bearer tokens, which the server checks.

``busy-neighbour`` abuses nobody, and keeps its core as busy as the others do: its ratio is what the method costs.

Targets: the bystander's p99 stays within twice that of quiet, and the server grows by at most 64 MB.
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

import psutil

from pointsman_server import embedded
from pointsman_server.telemetry import logs
from tests.bench import cores, report
from tests.bench.abusers import ABUSES, NEIGHBOUR
from tests.bench.bystander import Seen
from tests.bench.children import ROOT, Child, child
from tests.bench.rig import COMMON, TRANSPORTS, load_routes
from tests.support import issuer
from tests.support.memory import MEGABYTE, forget_worst, resident
from tests.support.servers import EVERYBODY

TARGET_RATIO = 2.0
TARGET_MEGABYTES = 64
LEAD_SECONDS = 1.0
KEY = issuer.SigningKey(kid="k1", kind="RSA")


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


def watch(server: Child, places: Places, seconds: float, token: str) -> Seen:
    """Let the bystander call for some seconds."""
    command = [sys.executable, "-m", "tests.bench.bystander", server.address, str(seconds), token]
    with cores.pinned(places.client):
        output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=seconds + 60, check=True).stdout
    return Seen(**json.loads(output))


@contextmanager
def abusing(name: str, address: str, places: Places, told: dict[str, int]) -> Iterator[None]:
    """Let an abuser loose until the block ends; ``told`` gets what it says."""

    def place() -> None:
        if places.abuser is not None:
            os.sched_setaffinity(0, {places.abuser})
            if places.shared:
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    command = [sys.executable, "-m", "tests.bench.abusers", name, address, KEY.token(exp=2**31)]
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
    quiet: list[float] = []
    abused: list[float] = []
    told = {"done": 0, "disconnected": 0}
    failed = growth = 0
    token = KEY.token(exp=2**31)
    begun = 0.0
    for _ in range(chosen.rounds):
        seen = watch(server, places, chosen.seconds, token)
        quiet.append(seen.p99)
        before = _start_of_growth(server)
        said: dict[str, int] = {}
        start = time.monotonic()
        with abusing(abuse, server.address, places, said):
            time.sleep(LEAD_SECONDS)  # until it is in full swing
            seen = watch(server, places, chosen.seconds, token)
        begun += time.monotonic() - start
        abused.append(seen.p99)
        failed += seen.failed
        growth = max(growth, _worst(server) - before)
        for name in told:
            told[name] += said.get(name, 0)
    middle = statistics.median
    return Row(
        transport, abuse, middle(quiet), middle(abused), growth, told["done"] / begun, told["disconnected"], failed
    )


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
    parser.add_argument("--only", choices=[NEIGHBOUR, *ABUSES], action="append", help="one abuse; again for more")
    parser.add_argument("--transport", choices=TRANSPORTS, action="append", help="one transport; again for more")
    return parser.parse_args()


def environment(urls: Mapping[str, str], jwks: Path) -> dict[str, str]:
    """Say how the servers run: as by default, but that they check who calls."""
    return {
        **COMMON,
        **urls,
        "POINTSMAN_JWT_ISSUER": issuer.ISSUER,
        "POINTSMAN_JWT_AUDIENCE": issuer.AUDIENCE,
        "POINTSMAN_JWT_JWKS_FILE": str(jwks),
        "POINTSMAN_POLICY_FILE": str(EVERYBODY),
    }


@contextmanager
def _server(transport: str, log: Path, settings: Mapping[str, str], places: Places) -> Iterator[Child]:
    # One for each abuse: what it leaves behind is not another's.
    serve = ["pointsman_server", "serve", "--roles", "api", "--transport", transport]
    with ExitStack() as stack:
        with cores.pinned(places.server):
            server = stack.enter_context(child(serve, log, settings))
        yield server


def main() -> int:
    """Measure and print; 1 when a target is missed."""
    chosen = options()
    places = Places.choose()
    logs.configure("warning", "console")
    print(*report.machine(load=os.getloadavg()), "", sep="\n")
    print(f"server on core {places.server}, bystander on {places.client}, abuser on {places.abuser}", end="")
    print(" as SCHED_IDLE" if places.shared else "", end="\n\n", flush=True)
    rows: list[Row] = []
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pointsman-bench-")))
        with cores.pinned(places.server):
            engines = stack.enter_context(embedded.start(data, ("postgres", "redis")))
        load_routes(engines.urls)
        jwks = data / "jwks.json"
        jwks.write_bytes(issuer.jwks(KEY))
        settings = environment(engines.urls, jwks)
        for transport, abuse in itertools.product(chosen.transport or TRANSPORTS, chosen.only or [NEIGHBOUR, *ABUSES]):
            with _server(transport, data / f"{transport}-{abuse}.log", settings, places) as server:
                rows.append(measure(transport, abuse, server, places, chosen))
            print(*list(table(rows))[0 if len(rows) == 1 else -1 :], sep="\n", flush=True)
    return 0 if all(row.fine for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
