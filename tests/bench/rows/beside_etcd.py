"""etcd with the same routes: the same keys, and values that are the routes themselves, as we would answer them."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pointsman_server.cli import demo_routes
from tests.bench import etcd, noop, protobuf, requests
from tests.bench.contests import Refused, Sample
from tests.bench.driver import Job
from tests.bench.generators import CONNECTIONS, H2load, drive
from tests.bench.rig import Rig


def value() -> bytes:
    """Write a route as it goes over our wire: what etcd stores for each key."""
    return noop.answer().route.SerializeToString()


@dataclass(frozen=True, slots=True)
class Member:
    """A member of etcd that has the table."""

    etcd: etcd.Etcd

    @classmethod
    def start(cls, stack: ExitStack, rig: Rig) -> Self:
        """Start it and fill it. Raises ChildFailed and LoadFailed."""
        running = stack.enter_context(rig.etcd())
        pairs = ((requests.etcd_key(route.key), value()) for route in demo_routes.routes(requests.ROUTES))
        running.put(pairs, rig.work / "etcd-table.bin")
        return cls(running)

    def range(self, rig: Rig, *, serializable: bool, tls: bool = False) -> Callable[[], Sample]:
        """Ask for one key, time and again."""
        key = requests.etcd_key(requests.resolves()[0].key)
        body = protobuf.range_request(key, serializable=serializable)
        request = requests.write_bodies(rig.work / f"range-{serializable}.bin", [body])
        return self._repeat(rig, protobuf.RANGE_METHOD, request, protobuf.values_of_range, 1, tls=tls)

    def txn(self, rig: Rig, size: int, *, tls: bool = False) -> Callable[[], Sample]:
        """Ask for many keys in one transaction, time and again."""
        keys = [requests.etcd_key(request.key) for request in requests.resolves()[:size]]
        request = requests.write_bodies(rig.work / "txn.bin", [protobuf.txn_request(keys)])
        return self._repeat(rig, protobuf.TXN_METHOD, request, protobuf.values_of_txn, size, tls=tls)

    def puts(self, rig: Rig, *, in_flight: int, count: int) -> Callable[[], Sample]:
        """Write keys that differ."""
        bodies = (protobuf.put_request(requests.etcd_key(key), value()) for key in requests.keys("puts", count))
        path = requests.write_bodies(rig.work / f"puts-{in_flight}.bin", bodies)
        connections = min(CONNECTIONS, in_flight)
        job = Job(self.etcd.address, protobuf.PUT_METHOD, str(path), rig.seconds, connections, in_flight)
        return lambda: rig.measure(self.etcd.pid, lambda: drive(job))

    def _repeat(
        self, rig: Rig, method: str, request: Path, values: Callable[[bytes], Sequence[bytes]], size: int, *, tls: bool
    ) -> Callable[[], Sample]:
        program = rig.h2load
        address, scheme = (self.etcd.tls_address, "https") if tls else (self.etcd.address, "http")

        def run() -> Sample:
            if program is None:
                raise Refused("h2load is missing")
            found = values(self.etcd.ask(method, request))
            if found != [value()] * size:
                raise Refused(f"etcd answered {len(found)} of {size} keys")
            h2load = H2load(program, request, rig.work / "h2load.log", scheme=scheme)
            return rig.measure(self.etcd.pid, lambda: h2load.run(address, method, rig.seconds), each=size)

        return run
