"""Create and Activate, beside a Put of etcd: all of them wait for the same disk."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pointsman.v1 import route_service_pb2 as pb
from tests.bench import requests
from tests.bench.children import Child
from tests.bench.contests import Contest, Row, Sample, at_least, at_most
from tests.bench.generators import CALLS_IN_FLIGHT, drive
from tests.bench.rig import Rig
from tests.bench.rows.beside_etcd import Member
from tests.bench.rows.calls import Call

# More than anybody makes in a second. A run whose requests are used up ends earlier, which is no harm.
MOST_PER_SECOND = 6000
INACTIVE_PER_SECOND = 1500


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure the native transport."""
    with ExitStack() as stack:
        server = stack.enter_context(rig.server("native"))
        contestants: dict[str, Callable[[], Sample]] = {}
        for in_flight in (1, CALLS_IN_FLIGHT):
            contestants[f"Create, {in_flight}"] = _creates(rig, server, in_flight)
            contestants[f"Activate, {in_flight}"] = _activates(rig, server, in_flight)
        rows = [Row(f"write.{name.lower().replace(', ', '.')}", name, name, None) for name in contestants]
        if rig.has_etcd:
            member = Member.start(stack, rig)
            count = round(MOST_PER_SECOND * rig.seconds)
            for in_flight in (1, CALLS_IN_FLIGHT):
                contestants[f"etcd Put, {in_flight}"] = member.puts(rig, in_flight=in_flight, count=count)
            rows = _rows()
        yield Contest("Writes, native, by calls in flight", contestants, rows)


def _rows() -> list[Row]:
    many = [
        Row(
            f"write.{what.lower()}.{CALLS_IN_FLIGHT}.etcd",
            f"{what}, {CALLS_IN_FLIGHT} in flight",
            f"{what}, {CALLS_IN_FLIGHT}",
            at_least(0.25),
            f"etcd Put, {CALLS_IN_FLIGHT}",
        )
        for what in ("Create", "Activate")
    ]
    one = [
        Row(
            f"write.{what.lower()}.1.etcd",
            f"{what}, one in flight",
            f"{what}, 1",
            at_most(4.0),
            "etcd Put, 1",
            "p50",
            "ms",
        )
        for what in ("Create", "Activate")
    ]
    return many + one


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
        per_second = INACTIVE_PER_SECOND if in_flight > 1 else INACTIVE_PER_SECOND // 3
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
