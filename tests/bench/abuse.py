"""``python -m tests.bench.abuse``: what an abuser costs other callers, on each transport.

A bystander resolves routes at a fixed rate, first in quiet and then while one abuser does its worst (``abusers``);
each is a process of its own. Server and engines have one core to themselves. The bystander has the last core, and goes
first there (SCHED_RR). With three cores or more the abuser has one of its own, else it shares that of the bystander;
where the bystander may not go first, as an idle process (SCHED_IDLE). Callers show bearer tokens, which the server
checks.

``--transport envoy-noop`` abuses an Envoy in the same configuration whose application answers at once and does nothing:
what a row of ``envoy`` has in common with it is the work of Envoy and of the shared machine, not ours.

``busy-neighbour`` sends no abuse, and keeps its core as busy as the others do: its ratio is what the method costs.

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
from collections import Counter
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
# Of the busy neighbour: from here on the run says nothing.
TRUSTED_RATIO = 1.5
TARGET_MEGABYTES = 64
LEAD_SECONDS = 1.0
NOOP = "envoy-noop"
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
class Times:
    """Percentiles in milliseconds, each the median of some runs."""

    p50: float
    p99: float

    @classmethod
    def middle(cls, runs: Sequence[Seen]) -> "Times":
        """Take the medians."""
        return cls(statistics.median(run.p50 for run in runs), statistics.median(run.p99 for run in runs))


@dataclass(frozen=True, slots=True)
class Row:
    """What was seen of one abuse; growth in bytes."""

    transport: str
    abuse: str
    quiet: Times
    abused: Times
    growth: int
    per_second: float
    disconnected: int
    failures: Counter[str]

    @property
    def ratio(self) -> float:
        """How much slower the client's p99 got."""
        return self.abused.p99 / self.quiet.p99

    @property
    def fine(self) -> bool:
        """Whether the targets hold."""
        return not self.failures and self.ratio <= TARGET_RATIO and self.growth <= TARGET_MEGABYTES * MEGABYTE


def watch(server: Child, places: Places, seconds: float, token: str) -> Seen:
    """Let the bystander call for some seconds."""
    command = [sys.executable, "-m", "tests.bench.bystander", server.address, str(seconds), token]
    with cores.pinned(places.client):
        output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=seconds + 60, check=True).stdout
    return Seen(**json.loads(output.splitlines()[-1]))


@contextmanager
def abusing(name: str, address: str, places: Places, told: dict[str, int], *, back: bool) -> Iterator[None]:
    """Let an abuser loose until the block ends; ``told`` gets what it says. ``back``: only while nobody else runs."""

    def place() -> None:
        if places.abuser is not None:
            os.sched_setaffinity(0, {places.abuser})
            if back:
                cores.stand_back()

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
    quiet: list[Seen] = []
    abused: list[Seen] = []
    told = {"done": 0, "disconnected": 0}
    failures: Counter[str] = Counter()
    growth = 0
    token = KEY.token(exp=2**31)
    lasted = 0.0
    for _ in range(chosen.rounds):
        seen = watch(server, places, chosen.seconds, token)
        quiet.append(seen)
        before = _start_of_growth(server)
        said: dict[str, int] = {}
        start = time.monotonic()
        with abusing(abuse, server.address, places, said, back=places.shared and not seen.first):
            time.sleep(LEAD_SECONDS)  # until it is in full swing
            seen = watch(server, places, chosen.seconds, token)
        lasted += time.monotonic() - start
        abused.append(seen)
        failures.update(seen.failures)
        growth = max(growth, _worst(server) - before)
        for name in told:
            told[name] += said.get(name, 0)
    return Row(
        transport,
        abuse,
        Times.middle(quiet),
        Times.middle(abused),
        growth,
        told["done"] / lasted,
        told["disconnected"],
        failures,
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


HEAD = (
    "| transport | abuse | a second | disconnected | p50 ms | abused | p99 ms | abused | ratio | memory | targets |",
    "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Render what was seen."""
    yield from HEAD
    for row in rows:
        verdict = "met" if row.fine else "missed"
        if row.failures:
            verdict += f", {row.failures.total()} calls failed, such as {row.failures.most_common(1)[0][0]}"
        cells = (
            row.transport,
            row.abuse,
            f"{row.per_second:,.0f}",
            f"{row.disconnected:,}",
            f"{row.quiet.p50:.2f}",
            f"{row.abused.p50:.2f}",
            f"{row.quiet.p99:.2f}",
            f"{row.abused.p99:.2f}",
            f"{row.ratio:.1f}",
            f"{row.growth / MEGABYTE:+.0f} MB",
            verdict,
        )
        yield f"| {' | '.join(cells)} |"


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.abuse", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one run (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the medians are taken (%(default)s)")
    parser.add_argument("--only", choices=[NEIGHBOUR, *ABUSES], action="append", help="one abuse; again for more")
    parser.add_argument(
        "--transport", choices=[*TRANSPORTS, NOOP], action="append", help="one transport; again for more"
    )
    return parser.parse_args()


def environment(urls: Mapping[str, str], jwks: Path) -> dict[str, str]:
    """Say how the servers run: as by default, but with authentication."""
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
    if transport == NOOP:
        serve = ["tests.bench.noop", "envoy"]
    with ExitStack() as stack:
        with cores.pinned(places.server):
            server = stack.enter_context(child(serve, log, settings))
        yield server


def main() -> int:
    """Measure and print; 1 when a target is missed, 2 when the run says nothing."""
    chosen = options()
    places = Places.choose()
    logs.configure("warning", "console")
    print(*report.machine(load=os.getloadavg()), "", sep="\n")
    print(f"server on core {places.server}, bystander on {places.client}, abuser on {places.abuser}", flush=True)
    print()
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
    if any(row.abuse == NEIGHBOUR and row.ratio > TRUSTED_RATIO for row in rows):
        print("\nAn invalid run: a busy neighbour alone delays the bystander. Others use this machine.")
        return 2
    return 0 if all(row.fine for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
