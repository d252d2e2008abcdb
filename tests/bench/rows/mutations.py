"""Create and Activate, beside a Put of etcd and beside pgbench with the same statements: all wait for the same disk.

A write takes several processes, where etcd is one of several threads. So nothing is pinned here: each contestant
has both cores of a small machine, which the generator shares.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from pointsman.v1 import route_service_pb2 as pb
from tests.bench import pgbench, requests
from tests.bench.children import Child
from tests.bench.contests import Contest, Row, Sample, Target, at_least, at_most
from tests.bench.generators import CALLS_IN_FLIGHT, drive
from tests.bench.rig import Rig, pids
from tests.bench.rig import engines as start_engines
from tests.bench.rows.beside_etcd import Member
from tests.bench.rows.calls import Call

# More than anybody makes in a second. A run whose requests are used up ends earlier, which is no harm.
MOST_PER_SECOND = 12_000
INACTIVE_PER_SECOND = 6000
PGBENCH_CLIENTS = 8
# What the transport before Envoy, without TLS and limits, made of the same beside pgbench (2026-11-24).
LEAST_CREATES = 3.1
IN_FLIGHT = (1, PGBENCH_CLIENTS, CALLS_IN_FLIGHT)


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure the Envoy door."""
    with ExitStack() as stack:
        running = stack.enter_context(start_engines(None))
        rig = replace(rig, urls=running.urls, engines=pids(running), server_core=None, load_core=None)
        server = stack.enter_context(rig.server("envoy"))
        contestants: dict[str, Callable[[], Sample]] = {}
        for in_flight in IN_FLIGHT:
            contestants[f"Create, {in_flight}"] = _creates(rig, server, in_flight)
            contestants[f"Activate, {in_flight}"] = _activates(rig, server, in_flight)
        for clients in (1, PGBENCH_CLIENTS):
            contestants[f"pgbench, {clients}"] = _pgbench(rig, clients)
        rows = _beside_pgbench()
        if rig.has_etcd:
            member = Member.start(stack, rig)
            count = round(2 * MOST_PER_SECOND * rig.seconds)
            for in_flight in (1, CALLS_IN_FLIGHT):
                contestants[f"etcd Put, {in_flight}"] = member.puts(rig, in_flight=in_flight, count=count)
            rows += _beside_etcd()
        yield Contest("Writes, envoy, by calls in flight", contestants, rows)


def _beside_etcd() -> list[Row]:
    return [
        *(_row(what, CALLS_IN_FLIGHT, "etcd Put", CALLS_IN_FLIGHT, at_least(0.5)) for what in ("Create", "Activate")),
        *(_row(what, 1, "etcd Put", 1, None, "p50", "ms") for what in ("Create", "Activate")),
    ]


def _beside_pgbench() -> list[Row]:
    return [
        *(_row(what, PGBENCH_CLIENTS, "pgbench", PGBENCH_CLIENTS, at_least(1.0)) for what in ("Create", "Activate")),
        _row("Create", CALLS_IN_FLIGHT, "pgbench", PGBENCH_CLIENTS, at_least(LEAST_CREATES)),
        _row("Activate", CALLS_IN_FLIGHT, "pgbench", PGBENCH_CLIENTS, None),
        *(_row(what, 1, "pgbench", 1, at_most(2.0), "p50", "ms") for what in ("Create", "Activate")),
    ]


def _row(
    what: str,
    ours: int,
    theirs: str,
    their_clients: int,
    target: Target | None,
    figure: str = "rate",
    unit: str = "calls/s",
) -> Row:
    name = f"write.{what.lower()}.{ours}.{theirs.lower().split()[0]}"
    said = f"{what}, {ours} in flight, beside {theirs}, {their_clients}"
    return Row(name, said, f"{what}, {ours}", target, f"{theirs}, {their_clients}", figure, unit)


def _pgbench(rig: Rig, clients: int) -> Callable[[], Sample]:
    return lambda: pgbench.run(rig.urls["DATABASE_URL"], rig.work, clients, rig.seconds)


_tenants = (f"bench-{number}" for number in itertools.count())


def _creates(rig: Rig, server: Child, in_flight: int) -> Callable[[], Sample]:
    def run() -> Sample:
        # Every run makes routes of a tenant of its own: none is there yet.
        keys = requests.keys(next(_tenants), round(MOST_PER_SECOND * rig.seconds))
        path = requests.write(rig.work / "creates.bin", map(requests.create, keys))
        return _write(rig, server, Call("Create", path, rig.guard.headers), in_flight)

    return run


def _activates(rig: Rig, server: Child, in_flight: int) -> Callable[[], Sample]:
    def run() -> Sample:
        # Each is activated once, since to activate an active route changes nothing.
        per_second = INACTIVE_PER_SECOND if in_flight > 1 else INACTIVE_PER_SECOND // 4
        keys = requests.keys(next(_tenants), max(100, round(per_second * rig.seconds)))
        creates = (requests.create(key, active=False) for key in keys)
        made = Call("Create", requests.write(rig.work / "inactive.bin", creates), rig.guard.headers)
        drive(made.job(server.address, 120, again=False))
        activates = (pb.ActivateRequest(key=key, reason="benchmark") for key in keys)
        path = requests.write(rig.work / "activates.bin", activates)
        return _write(rig, server, Call("Activate", path, rig.guard.headers), in_flight)

    return run


def _write(rig: Rig, server: Child, call: Call, in_flight: int) -> Sample:
    job = call.job(server.address, rig.seconds, in_flight=in_flight, again=False)
    return rig.measure(server.process.pid, lambda: drive(job))
