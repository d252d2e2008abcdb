"""Clients of xDS on a snapshot in memory: real streams and sessions, without a network."""

from collections.abc import Sequence
from typing import Any

from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import Change
from pointsman_server.ports.store import Clock
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.xds.clients.registry import Clients, Connected
from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.session import Session
from pointsman_server.xds.snapshot import ResourceSnapshot
from pointsman_server.xds.sources.grpc_source import GrpcSource
from pointsman_server.xds.stream import Client, Observer, Stream
from pointsman_server.xds.table import Table
from pointsman_server.xds.views import View
from tests.support.xds_world import answer, request

OPENED = 1_700_000_000.5


class FakeCaller:
    """May read the tenants that a test says; None is all."""

    def __init__(self, subject: str = "anonymous", tenants: Sequence[str] | None = None) -> None:
        self.subject = subject
        self.tenants = tenants

    def may_read(self, scope: Scope) -> bool:
        return self.tenants is None or scope.tenant in self.tenants

    async def verify(self) -> bool:
        return False


class Connection:
    """A stream, and its client, which acknowledges or refuses what it was sent when it is told to."""

    def __init__(self, connections: "Connections", node: str, caller: FakeCaller, view: View, agent: str) -> None:
        self._clients = connections.clients
        self._sent: list[Any] = []
        self._names: dict[str, Sequence[str]] = {}
        source = GrpcSource(connections.snapshot, view, caller.may_read)
        client = Client(node, agent, "ipv4:127.0.0.1:4242", view, caller, OPENED)
        session = Session(source)
        self._observers = connections.observers
        self.stream = Stream(client, session, source, self._write, observers=self._observers)
        for observer in self._observers:
            observer.opened(self.stream)

    @property
    def connected(self) -> Connected:
        return self._clients.of(self.stream)

    async def ask(self, kind: ResourceType, *names: str) -> None:
        """Subscribe; what is sent waits to be acknowledged."""
        self._names[kind] = names
        self.stream._receive(request(kind, *names))
        await self.stream._send(True)

    async def answer(self, error: str = "") -> None:
        """Acknowledge everything that was sent, or refuse it with the text ``error``."""
        sent, self._sent = self._sent, []
        for response in sent:
            self.stream._receive(answer(response, self._names[response.type_url], error or None))

    async def follow(self) -> None:
        """Be sent what has changed."""
        self.stream._source.flush(self.stream)
        await self.stream._send(True)

    def close(self) -> None:
        for observer in reversed(self._observers):
            observer.closed(self.stream)

    async def _write(self, response: bytes) -> None:
        self._sent.append(pb.DiscoveryResponse.FromString(response))


class Connections:
    """The clients of a server, and what it serves."""

    def __init__(self, *changes: Change) -> None:
        self.snapshot = ResourceSnapshot(Table(Clock("e1", 0)), FairShare())
        self.clients = Clients(lambda: self.snapshot.clock)
        self.observers: list[Observer] = [self.clients]
        self.change(*changes)

    def change(self, *changes: Change) -> None:
        if changes:
            self.snapshot.apply(changes)

    def connect(
        self,
        node: str = "node",
        *,
        subject: str = "anonymous",
        tenants: Sequence[str] | None = None,
        view: View = View(),  # noqa: B008 - immutable
        agent: str = "gRPC test 1.0",
    ) -> Connection:
        return Connection(self, node, FakeCaller(subject, tenants), view, agent)


class Turns(FairShare):
    """Counts the turns that are taken."""

    taken = 0

    async def take(self) -> None:
        self.taken += 1
        await super().take()
