"""Runs against one of our servers, the floor or etcd, by h2load or by our own generator."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from pointsman.v1 import route_service_pb2 as pb
from tests.bench import layers
from tests.bench.children import Child
from tests.bench.contests import Refused, Sample
from tests.bench.driver import Job
from tests.bench.generators import CALLS_IN_FLIGHT, CONNECTIONS, SERVICE, H2load, ask, drive
from tests.bench.rig import Rig


@dataclass(frozen=True, slots=True)
class Call:
    """A call of ours: its method, a file of requests, and what the caller shows.

    ``source`` is the layer that must answer, where one must. A call is about ``each`` things, as a batch is.
    """

    method: str
    requests: Path
    headers: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    each: int = 1

    def job(self, address: str, seconds: float, *, in_flight: int = CALLS_IN_FLIGHT, again: bool = True) -> Job:
        """Make it a job for our own generator."""
        path = self.method if "/" in self.method else f"{SERVICE}/{self.method}"
        connections = min(CONNECTIONS, in_flight)
        return Job(
            address, path, str(self.requests), seconds, connections, in_flight, again, headers=dict(self.headers)
        )


def by_h2load(rig: Rig, server: Child, call: Call) -> Callable[[], Sample]:
    """Repeat the request of a call, 32 at a time."""
    program = rig.h2load
    if program is None:
        return _missing("h2load")
    h2load = H2load(program, call.requests, rig.work / "h2load.log", call.headers)

    def run() -> Sample:
        _probe(server, call)
        with layers.answering(server, call.source) if call.source else nullcontext():
            return rig.measure(
                server.process.pid, lambda: h2load.run(server.address, call.method, rig.seconds), each=call.each
            )

    return run


def over_tls(rig: Rig, server: Child, call: Call, ca: Path) -> Callable[[], Sample]:
    """Repeat the request of a call over TLS, 32 at a time."""
    program = rig.h2load
    if program is None:
        return _missing("h2load")
    h2load = H2load(program, call.requests, rig.work / "h2load.log", call.headers, scheme="https")

    def run() -> Sample:
        _probe_over_tls(server, call, ca)
        with layers.answering(server, call.source) if call.source else nullcontext():
            return rig.measure(
                server.process.pid, lambda: h2load.run(server.address, call.method, rig.seconds), each=call.each
            )

    return run


def by_driver(rig: Rig, server: Child, call: Call, *, in_flight: int = CALLS_IN_FLIGHT) -> Callable[[], Sample]:
    """Send the requests of a call in turn, round and round."""

    def run() -> Sample:
        job = call.job(server.address, rig.seconds, in_flight=in_flight)
        with layers.answering(server, call.source) if call.source else nullcontext():
            return rig.measure(server.process.pid, lambda: drive(job), each=call.each)

    return run


def warm(server: Child, call: Call) -> None:
    """Make each call once. Raises LoadFailed."""
    drive(call.job(server.address, 120, in_flight=CONNECTIONS, again=False))


def _probe(server: Child, call: Call) -> None:
    """Make one call and look at its answer: h2load does not. Raises LoadFailed and Refused."""
    answer = ask(call.job(server.address, 0))
    if call.method == "Resolve" and not pb.ResolveResponse.FromString(answer).route.url:
        raise Refused("the answer has no route")


def _probe_over_tls(server: Child, call: Call, ca: Path) -> None:
    """Make one call and look at its answer. Raises Refused, and ``grpc.RpcError``."""
    credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    with grpc.secure_channel(server.address, credentials) as channel:
        ask_for = channel.unary_unary(f"/{SERVICE}/{call.method}", _same, _same)
        answer = ask_for(call.requests.read_bytes()[5:], metadata=list(call.headers.items()), timeout=30)
    if call.method == "Resolve" and not pb.ResolveResponse.FromString(answer).route.url:
        raise Refused("the answer has no route")


def _same(message: bytes) -> bytes:
    return message


def _missing(name: str) -> Callable[[], Sample]:
    def refuse() -> Sample:
        raise Refused(f"{name} is missing")

    return refuse
